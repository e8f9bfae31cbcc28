//! The simulation of storage: stores of one to three cores over one [`SimDisk`], driven by a seeded
//! scheduler through appends, rolls, retention, deletions, crashes and restarts, against a plain
//! model. Everything on one thread, nothing but the seed decides; knows no network and no shard.

mod checks;
mod executor;
mod model;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;

use ring::buf::Shared;

use crate::batch::{self, Compression};
use crate::builder::BatchBuilder;
use crate::recovery;
use crate::sim_disk::{SimDisk, SimRng};
use crate::store::{
    AppendError, AppendStamp, LogConfig, LogId, Notice, PartitionKey, ReadError, Store, StoreConfig,
};
use crate::types::{CoreId, LeaderEpoch, Now, Offset, TopicId};

use model::{Model, ModelBatch, is_compacted};

pub use executor::Executor;

/// What a run did, to show that it did something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimReport {
    /// Batches appended.
    pub appended: u64,
    /// Batches that came back equal, from memory or disk.
    pub read: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Processes killed.
    pub kills: u64,
    /// Clean restarts.
    pub clean_restarts: u64,
    /// Restarts that brought bytes back from journals.
    pub replays: u64,
    /// Appends refused because something was full.
    pub refused: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Segments deleted.
    pub segments_deleted: u64,
    /// Logs compacted.
    pub compactions: u64,
    /// Reads that went to the disk.
    pub disk_reads: u64,
    /// Straight writes.
    pub straight_writes: u64,
    /// Segments flushed with others.
    pub flushed_together: u64,
}

struct World {
    rng: SimRng,
    disk: SimDisk,
    executor: Executor,
    stores: Vec<Store>,
    dirs: Vec<PathBuf>,
    model: BTreeMap<PartitionKey, Model>,
    now: Now,
    epoch: u64,
    next_value: u64,
    reads: BTreeMap<(usize, u64), Result<Vec<Shared>, ReadError>>,
    settled: Vec<bool>,
    ready: Vec<bool>,
    report: SimReport,
}

/// Runs one simulation of `steps` steps.
///
/// # Errors
/// With the seed, what the model found wrong.
pub fn run(seed: u64, steps: u64) -> Result<(), String> {
    run_with(seed, steps, |_| {}).map(|_| ())
}

/// As [`run`], over a disk that `prepare` has changed; says what was done.
///
/// # Errors
/// With the seed, what the model found wrong.
pub fn run_with(
    seed: u64,
    steps: u64,
    prepare: impl FnOnce(&SimDisk),
) -> Result<SimReport, String> {
    let disk = SimDisk::new(seed ^ 0xd15c);
    disk.set_faults(|faults| faults.no_sync_all = seed.is_multiple_of(4));
    prepare(&disk);
    let mut rng = SimRng::new(seed);
    let dirs = (0..1 + rng.below(2))
        .map(|dir| PathBuf::from(format!("/data{dir}")))
        .collect();
    let mut world = World {
        executor: Executor::new(disk.clone()),
        rng,
        disk,
        stores: Vec::new(),
        dirs,
        model: BTreeMap::new(),
        now: Now {
            monotonic_us: 1_000_000,
            wall_ms: 1_700_000_000_000,
        },
        epoch: 0,
        next_value: 0,
        reads: BTreeMap::new(),
        settled: Vec::new(),
        ready: Vec::new(),
        report: SimReport::default(),
    };
    world
        .all(steps)
        .map_err(|why| format!("seed {seed}: {why}"))?;
    Ok(world.report)
}

/// Topics of one name are on one core, as the store relies on.
fn core_of(topic: &str, cores: u16) -> u16 {
    (xxhash_rust::xxh3::xxh3_64(topic.as_bytes()) % u64::from(cores)) as u16
}

impl World {
    fn all(&mut self, steps: u64) -> Result<(), String> {
        self.start()?;
        for _ in 0..steps {
            match self.rng.below(400) {
                0 => self.crash(true)?,
                1 => self.crash(false)?,
                2 => self.restart_cleanly()?,
                3..6 => self.check_some()?,
                6..10 => self.create()?,
                10..12 => self.delete_records(),
                12 if self.rng.one_in(4) => self.delete_partition(),
                13..40 => {
                    self.pass_time();
                    let core = self.rng.below(self.stores.len() as u64) as usize;
                    self.stores[core].tick(self.now);
                    self.turn(core);
                }
                40..150 => self.append()?,
                150..160 => self.stream()?,
                _ => {
                    for _ in 0..self.rng.below(8) {
                        self.step();
                    }
                    self.take_notices()?;
                }
            }
        }
        self.crash(true)?;
        self.restart_cleanly()
    }

    fn pass_time(&mut self) {
        let ms = self.rng.below(40);
        self.now.monotonic_us += ms * 1_000;
        self.now.wall_ms += ms as i64;
    }

    fn step(&mut self) {
        self.executor
            .step(self.now, &mut self.rng, &mut self.stores);
    }

    fn turn(&mut self, core: usize) {
        self.stores[core].end_turn(self.now);
        self.executor.take_actions(core, &mut self.stores[core]);
    }

    /// Runs until `done`, letting time pass.
    fn until(&mut self, what: &str, done: impl Fn(&World) -> bool) -> Result<(), String> {
        for round in 0..400_000u64 {
            if done(self) {
                return Ok(());
            }
            self.step();
            self.take_notices()?;
            if round % 50 == 0 {
                self.pass_time();
                for core in 0..self.stores.len() {
                    self.stores[core].tick(self.now);
                    self.turn(core);
                }
            }
        }
        Err(format!("never {what}"))
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        crate::blocking_disk::block_on(future)
    }

    fn config(&mut self, core: usize, cores: u16) -> StoreConfig {
        let mut config = StoreConfig::new(
            CoreId(core as u16),
            cores,
            self.dirs.clone(),
            self.epoch,
            self.rng.next_u64(),
            0,
        );
        config.journal_file_bytes = 64 << 10;
        config.journal_files_max = 3 + self.rng.below(2) as usize;
        config.straight_bytes_min = match self.rng.below(3) {
            0 => u64::MAX,
            _ => 1 + self.rng.below(6_000),
        };
        config.flush_together_min = 1 + self.rng.below(4) as usize;
        config.dirty_bytes_max = 256 << 10;
        config.clean_bytes_max = self.rng.below(64 << 10);
        config.windows_bytes_max = self.rng.below(64 << 10);
        config.reserve_bytes = 1 << 20;
        config.write_back_ms = 10;
        config.settle_idle_ms = 10 + self.rng.below(100);
        config.checkpoint_ms = 20 + self.rng.below(300);
        config.retention_check_ms = 100;
        config.cleaner_backoff_ms = 50;
        config
    }

    fn log_config(&mut self, compacted: bool) -> LogConfig {
        LogConfig {
            segment_bytes: 8_192 + self.rng.below(60_000),
            index_interval_bytes: 1_024,
            retention_ms: None,
            retention_bytes: self.rng.one_in(3).then_some(100_000),
            cleanup_delete: !compacted,
            cleanup_compact: compacted,
            min_cleanable_dirty_ratio: 0.3,
            file_delete_delay_ms: self.rng.below(100) as i64,
            ..LogConfig::default()
        }
    }

    /// Recovers, checks what came back against the model, and starts the stores.
    fn start(&mut self) -> Result<(), String> {
        let cores = 1 + self.rng.below(3) as u16;
        let disk = self.disk.clone();
        let known: Vec<PartitionKey> = self
            .model
            .iter()
            .filter(|(_, model)| !model.deleting)
            .map(|(key, _)| key.clone())
            .collect();
        let owner = |key: &PartitionKey| CoreId(core_of(&key.topic, cores));
        let recovered = self.block_on(recovery::recover(
            &disk,
            &self.dirs,
            cores,
            |key| known.contains(key),
            owner,
        ));
        if let Some((dir, why)) = recovered.offline.first() {
            return Err(format!("directory {dir} is offline: {why}"));
        }
        if recovered.epoch <= self.epoch {
            return Err(format!("epoch {} after {}", recovered.epoch, self.epoch));
        }
        self.epoch = recovered.epoch;
        if recovered.dirty_bytes > 0 {
            self.report.replays += 1;
        }
        self.executor = Executor::new(self.disk.clone());
        self.stores.clear();
        self.settled = vec![false; usize::from(cores)];
        self.ready = vec![false; usize::from(cores)];
        for (core, image) in recovered.cores.into_iter().enumerate() {
            let config = self.config(core, cores);
            self.stores.push(Store::new(config, image));
            self.turn(core);
        }
        self.check_recovered()?;
        // A crash may come before the stores are ready, and again.
        if self.rng.one_in(6) {
            for _ in 0..self.rng.below(60) {
                self.step();
            }
            return self.crash(true);
        }
        self.until("ready", |world| world.ready.iter().all(|ready| *ready))?;
        let (dirs, epoch) = (self.dirs.clone(), self.epoch);
        if !self.rng.one_in(4) {
            self.block_on(recovery::discard_older(&disk, &dirs, epoch))
                .map_err(|error| format!("older journals stay: {error}"))?;
        }
        // Only now is it as safe as what was acknowledged: another crash may still have taken it.
        for (key, model) in &mut self.model {
            if let Some((store, log)) = self
                .stores
                .iter()
                .find_map(|store| Some((store, store.find(key.topic_id, key.partition)?)))
            {
                model.created = true;
                model.acked_end = store.durable_end(log).expect("found");
                model.start_told = store.log_start(log).expect("found");
                model.start_asked = model.start_told;
            }
        }
        for key in known {
            if let Some((core, log)) = self.find(&key) {
                let config = self.log_config(is_compacted(&key));
                self.stores[core].set_config(self.now, log, config);
            }
        }
        self.check_all()
    }

    fn find(&self, key: &PartitionKey) -> Option<(usize, LogId)> {
        self.stores
            .iter()
            .enumerate()
            .find_map(|(core, store)| Some((core, store.find(key.topic_id, key.partition)?)))
    }

    fn take_notices(&mut self) -> Result<(), String> {
        for core in 0..self.stores.len() {
            while let Some(notice) = self.stores[core].poll_notice() {
                self.on_notice(core, notice)?;
            }
        }
        Ok(())
    }

    fn on_notice(&mut self, core: usize, notice: Notice) -> Result<(), String> {
        let key_of = |store: &Store, log: LogId| {
            store
                .logs()
                .find(|(known, _)| *known == log)
                .map(|(_, key)| key.clone())
        };
        match notice {
            Notice::Ready => self.ready[core] = true,
            Notice::Settled => self.settled[core] = true,
            Notice::Created { log } => {
                if let Some(key) = key_of(&self.stores[core], log)
                    && let Some(model) = self.model.get_mut(&key)
                {
                    model.created = true;
                }
            }
            Notice::Durable { log, offset_end } => {
                if let Some(key) = key_of(&self.stores[core], log)
                    && let Some(model) = self.model.get_mut(&key)
                {
                    if offset_end < model.acked_end {
                        return Err(format!("the mark of {} went back", key.dir_name()));
                    }
                    model.acked_end = offset_end;
                }
            }
            Notice::ReadDone { ticket, result } => {
                self.reads.insert((core, ticket), result);
            }
            Notice::LogStartMoved { log, offset, .. } => {
                if let Some(key) = key_of(&self.stores[core], log)
                    && let Some(model) = self.model.get_mut(&key)
                {
                    model.start_told = model.start_told.max(offset);
                    model.start_asked = model.start_asked.max(offset);
                }
            }
            Notice::DirOffline { dir, why } => {
                return Err(format!("directory {dir} went offline: {why}"));
            }
            Notice::Deleted { .. }
            | Notice::LookupDone { .. }
            | Notice::DirFull { .. }
            | Notice::DirRoom { .. }
            | Notice::Room => {}
        }
        Ok(())
    }

    fn create(&mut self) -> Result<(), String> {
        if self.model.len() >= 8 {
            return Ok(());
        }
        let number = self.rng.below(6);
        let topic = format!("t{number}");
        // A name whose partition exists is not made again; a deleted one may be, at once.
        let exists = |(key, model): (&PartitionKey, &Model)| key.topic == topic && !model.deleting;
        if self.model.iter().any(exists) {
            return Ok(());
        }
        self.next_value += 1;
        let key = PartitionKey {
            topic_id: TopicId::from_u128(
                u128::from(self.epoch) << 64 | u128::from(self.next_value),
            ),
            topic,
            partition: 0,
        };
        let core = usize::from(core_of(&key.topic, self.stores.len() as u16));
        let config = self.log_config(is_compacted(&key));
        self.stores[core].create_partition(self.now, key.clone(), config);
        self.model.insert(key, Model::default());
        self.turn(core);
        Ok(())
    }

    fn pick(&mut self) -> Option<PartitionKey> {
        if self.model.is_empty() {
            return None;
        }
        let at = self.rng.below(self.model.len() as u64) as usize;
        let (key, model) = self.model.iter().nth(at).expect("counted");
        (!model.deleting).then(|| key.clone())
    }

    fn append(&mut self) -> Result<(), String> {
        let Some(key) = self.pick() else {
            return Ok(());
        };
        let (core, log) = self
            .find(&key)
            .ok_or_else(|| format!("{} has no log", key.dir_name()))?;
        for _ in 0..=self.rng.below(3) {
            self.append_one(&key, core, log)?;
        }
        if !self.rng.one_in(3) {
            self.turn(core);
        }
        Ok(())
    }

    /// A partition that brings much, turn after turn.
    fn stream(&mut self) -> Result<(), String> {
        let Some(key) = self.pick() else {
            return Ok(());
        };
        for _ in 0..2 + self.rng.below(10) {
            let (core, log) = self
                .find(&key)
                .ok_or_else(|| format!("{} has no log", key.dir_name()))?;
            for _ in 0..2 + self.rng.below(4) {
                self.append_one(&key, core, log)?;
            }
            self.turn(core);
            for _ in 0..self.rng.below(60) {
                self.step();
            }
            self.take_notices()?;
        }
        Ok(())
    }

    fn append_one(&mut self, key: &PartitionKey, core: usize, log: LogId) -> Result<(), String> {
        let compression = if self.rng.one_in(4) {
            Compression::Lz4
        } else {
            Compression::None
        };
        let mut builder = BatchBuilder::new(compression);
        for _ in 0..=self.rng.below(3) {
            self.next_value += 1;
            let largest = if self.rng.one_in(20) { 20_000 } else { 900 };
            let length = self.rng.below(largest) as usize;
            let mut value = self.next_value.to_be_bytes().to_vec();
            value.resize(8 + length, self.next_value as u8);
            let record_key = is_compacted(key).then(|| [self.rng.below(12) as u8]);
            let record_key = record_key.as_ref().map(|key| key.as_slice());
            builder.push(self.now.wall_ms, record_key, Some(&value));
        }
        let mut bytes = builder.build();
        let stamp = AppendStamp {
            leader_epoch: LeaderEpoch(self.epoch as i32),
            log_append_time_ms: None,
        };
        let end_before = self.stores[core].log_end(log);
        let model = self.model.get_mut(key).expect("picked");
        match self.stores[core].append(self.now, log, &bytes, stamp) {
            Ok(appended) => {
                if Some(appended.base_offset) != end_before
                    || appended.base_offset != model.end().max(model.start_told)
                {
                    return Err(format!(
                        "{} gave offset {} after {}",
                        key.dir_name(),
                        appended.base_offset,
                        model.end()
                    ));
                }
                batch::stamp(&mut bytes, appended.base_offset, stamp.leader_epoch);
                model.batches.push(ModelBatch {
                    base: appended.base_offset,
                    end: appended.offset_end,
                    bytes,
                });
                self.report.appended += 1;
            }
            Err(AppendError::NotReady) if !model.created => {}
            Err(AppendError::Busy | AppendError::DiskFull) => self.report.refused += 1,
            Err(error) => return Err(format!("{}: {error}", key.dir_name())),
        }
        Ok(())
    }

    fn delete_records(&mut self) {
        let Some(key) = self.pick() else { return };
        let Some((core, log)) = self.find(&key) else {
            return;
        };
        let model = self.model.get_mut(&key).expect("picked");
        let to = Offset(self.rng.below(model.acked_end.0 as u64 + 1) as i64);
        if model.created && self.stores[core].delete_records(self.now, log, to).is_ok() {
            model.start_asked = model.start_asked.max(to);
        }
        self.turn(core);
    }

    fn delete_partition(&mut self) {
        let Some(key) = self.pick() else { return };
        if let Some((core, log)) = self.find(&key) {
            self.stores[core].delete_partition(self.now, log);
            self.model.get_mut(&key).expect("picked").deleting = true;
            self.turn(core);
        }
    }

    fn crash(&mut self, power: bool) -> Result<(), String> {
        self.take_notices()?;
        self.add_counters();
        self.stores.clear();
        self.executor = Executor::new(self.disk.clone());
        if power {
            self.disk.crash();
            self.report.power_cuts += 1;
        } else {
            self.disk.process_crash();
            self.report.kills += 1;
        }
        self.start()
    }

    fn add_counters(&mut self) {
        for store in &self.stores {
            let counters = store.counters();
            self.report.checkpoints += counters.checkpoints;
            self.report.segments_deleted += counters.segments_deleted;
            self.report.compactions += counters.compactions;
            self.report.disk_reads += counters.disk_reads;
            self.report.straight_writes += counters.straight_writes;
            self.report.flushed_together += counters.flushed_together;
        }
    }

    fn restart_cleanly(&mut self) -> Result<(), String> {
        let disk = self.disk.clone();
        self.block_on(recovery::discard_older(&disk, &self.dirs, self.epoch))
            .map_err(|error| format!("older journals stay: {error}"))?;
        for core in 0..self.stores.len() {
            self.stores[core].begin_shutdown(self.now);
            self.turn(core);
        }
        self.until("settled", |world| {
            world.settled.iter().all(|settled| *settled)
        })
        .map_err(|why| {
            let stuck: Vec<String> = self.stores.iter().map(Store::unsettled).collect();
            format!("{why}: {}", stuck.join("; "))
        })?;
        for (key, model) in &self.model {
            if model.created
                && !model.deleting
                && model.acked_end != model.end().max(model.start_told)
            {
                return Err(format!(
                    "{} settled with unacknowledged batches",
                    key.dir_name()
                ));
            }
        }
        self.add_counters();
        self.stores.clear();
        self.executor = Executor::new(self.disk.clone());
        self.disk.crash();
        self.report.clean_restarts += 1;
        let scan = self.block_on(recovery::scan(&disk, &self.dirs));
        let again = self.block_on(scan.finish(&disk, 1, |_| recovery::Known::Yes, |_| CoreId(0)));
        if again.dirty_bytes > 0 || again.unclean {
            return Err(format!(
                "a clean shutdown left {} bytes to replay",
                again.dirty_bytes
            ));
        }
        self.epoch = again.epoch;
        self.start()
    }
}

#[cfg(test)]
mod tests;
