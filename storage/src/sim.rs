//! The simulation of storage: stores of one to three cores over one [`SimDisk`], driven by a seeded
//! scheduler through appends, rolls, retention, deletions, crashes and restarts, against a plain
//! model. Everything on one thread, nothing but the seed decides; knows no network and no shard.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ring::buf::Shared;

use crate::batch::{self, Compression};
use crate::builder::BatchBuilder;
use crate::open_files::OpenFiles;
use crate::records::RecordsScratch;
use crate::recovery;
use crate::sim_disk::{SimDisk, SimRng};
use crate::store::{
    AppendError, AppendStamp, LogConfig, LogId, Notice, PartitionKey, Read, ReadError, Store,
    StoreAction, StoreConfig,
};
use crate::tasks::StoreTaskDone;
use crate::types::{CoreId, LeaderEpoch, Now, Offset, TopicId};

enum Finished {
    Task(StoreTaskDone),
    Write(u64, io::Result<()>),
}

type Running = Pin<Box<dyn Future<Output = Finished>>>;

/// Polls what stores have asked for in an order that the seed decides.
pub struct Executor {
    running: Vec<(usize, Running)>,
    disk: OpenFiles<SimDisk>,
}

impl Executor {
    /// An executor over a disk.
    pub fn new(disk: SimDisk) -> Executor {
        Executor {
            running: Vec::new(),
            disk: OpenFiles::new(disk, 16),
        }
    }

    /// Takes up all actions of a store.
    pub fn take_actions(&mut self, core: usize, store: &mut Store) {
        while let Some(action) = store.poll_action() {
            let disk = self.disk.clone();
            let future: Running = match action {
                StoreAction::DurableWrite(write) => Box::pin(async move {
                    let (token, result) = write.run(disk).await;
                    Finished::Write(token, result)
                }),
                StoreAction::Spawn(task) => {
                    Box::pin(async move { Finished::Task(task.run(disk).await) })
                }
            };
            self.running.push((core, future));
        }
    }

    /// Polls one future, chosen by `rng`, and gives its result to its store. False if there is none.
    pub fn step(&mut self, now: Now, rng: &mut SimRng, stores: &mut [Store]) -> bool {
        if self.running.is_empty() {
            return false;
        }
        let at = rng.below(self.running.len() as u64) as usize;
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(finished) = self.running[at].1.as_mut().poll(&mut context) else {
            return true;
        };
        let (core, _) = self.running.swap_remove(at);
        match finished {
            Finished::Task(done) => stores[core].on_task_done(now, done),
            Finished::Write(token, result) => stores[core].on_write_done(now, token, result),
        }
        stores[core].end_turn(now);
        self.take_actions(core, &mut stores[core]);
        true
    }
}

/// A batch as it was appended, with the offsets and the epoch that it got.
#[derive(Clone)]
struct ModelBatch {
    base: Offset,
    end: Offset,
    bytes: Vec<u8>,
}

/// What must be true of one partition.
#[derive(Default)]
struct Model {
    batches: Vec<ModelBatch>,
    /// Acknowledged: never lost again.
    acked_end: Offset,
    /// Told as the log start.
    start_told: Offset,
    /// The furthest log start that was asked for: retention may have got it through unseen.
    start_asked: Offset,
    created: bool,
    deleting: bool,
}

impl Model {
    fn end(&self) -> Offset {
        self.batches.last().map_or(Offset(0), |batch| batch.end)
    }
}

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
}

fn is_compacted(key: &PartitionKey) -> bool {
    key.topic == "t5"
}

/// Collects the records of a batch that must not begin behind `from`; where it ends.
fn note_records(
    bytes: &[u8],
    from: Offset,
    records: &mut BTreeMap<i64, (Vec<u8>, Vec<u8>)>,
) -> Option<Offset> {
    let view = batch::BatchView::new(bytes).ok()?;
    view.verify_crc().ok()?;
    let end = view.header().offset_end();
    if end <= from {
        return None;
    }
    let mut scratch = RecordsScratch::new();
    for record in scratch.records(&view, 1 << 24).ok()? {
        let record = record.ok()?;
        records.insert(
            record.offset,
            (record.key?.to_vec(), record.value?.to_vec()),
        );
    }
    Some(end)
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
        config.dirty_bytes_max = 256 << 10;
        config.clean_bytes_max = self.rng.below(64 << 10);
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
        let owner =
            |key: &PartitionKey| CoreId((key.topic_id.as_u128() as u64 % u64::from(cores)) as u16);
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

    /// Everything acknowledged came back, and nothing that was never appended.
    fn check_recovered(&mut self) -> Result<(), String> {
        let mut gone = Vec::new();
        for (key, model) in &mut self.model {
            let found = self.stores.iter().find_map(|store| {
                let log = store.find(key.topic_id, key.partition)?;
                Some((store.log_start(log)?, store.log_end(log)?))
            });
            if model.deleting {
                gone.push(key.clone());
                continue;
            }
            let Some((start, end)) = found else {
                if model.created {
                    return Err(format!("{} is gone", key.dir_name()));
                }
                gone.push(key.clone());
                continue;
            };
            if end < model.acked_end {
                return Err(format!(
                    "{} ends at {end}, but {} was acknowledged",
                    key.dir_name(),
                    model.acked_end
                ));
            }
            let at_batch = end == Offset(0)
                || end == start
                || model.batches.iter().any(|batch| batch.end == end);
            if end > model.end().max(start) || !at_batch {
                return Err(format!("{} ends at {end}: never appended", key.dir_name()));
            }
            if start < model.start_told {
                return Err(format!(
                    "{} starts at {start}, but {} was told",
                    key.dir_name(),
                    model.start_told
                ));
            }
            // What was not acknowledged and did not come back never will.
            model.batches.retain(|batch| batch.end <= end);
        }
        for key in gone {
            self.model.remove(&key);
        }
        Ok(())
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
        let core = (key.topic_id.as_u128() as u64 % self.stores.len() as u64) as usize;
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

    fn check_some(&mut self) -> Result<(), String> {
        let Some(key) = self.pick() else {
            return Ok(());
        };
        self.check_partition(&key)
    }

    fn check_all(&mut self) -> Result<(), String> {
        let keys: Vec<PartitionKey> = self.model.keys().cloned().collect();
        for key in keys {
            self.check_partition(&key)?;
        }
        Ok(())
    }

    /// What a compacted partition gave: nothing but what was appended, and each key's newest.
    fn check_compacted(
        &self,
        key: &PartitionKey,
        seen: &BTreeMap<i64, (Vec<u8>, Vec<u8>)>,
        up_to: Offset,
    ) -> Result<(), String> {
        let mut appended = BTreeMap::new();
        for batch in &self.model[key].batches {
            note_records(&batch.bytes, Offset(0), &mut appended).expect("as it was built");
        }
        for (offset, record) in seen {
            if appended.get(offset) != Some(record) {
                return Err(format!(
                    "{} at {offset}: not what was appended",
                    key.dir_name()
                ));
            }
        }
        let (core, log) = self.find(key).expect("read before");
        let start = self.stores[core].log_start(log).expect("found");
        let mut newest = BTreeMap::new();
        for (offset, (record_key, _)) in appended.range(start.0..up_to.0) {
            newest.insert(record_key.clone(), *offset);
        }
        for (record_key, offset) in newest {
            if !seen.contains_key(&offset) {
                return Err(format!(
                    "{}: the newest record of key {record_key:?}, at {offset}, is gone",
                    key.dir_name()
                ));
            }
        }
        Ok(())
    }

    /// Reads a partition from its start and compares every byte.
    fn check_partition(&mut self, key: &PartitionKey) -> Result<(), String> {
        if self.model[key].deleting || !self.model[key].created {
            return Ok(());
        }
        let (core, log) = self
            .find(key)
            .ok_or_else(|| format!("{} has no log", key.dir_name()))?;
        let start = self.stores[core].log_start(log).expect("found");
        if start > self.model[key].start_asked && self.model[key].start_asked > Offset(0) {
            self.model.get_mut(key).expect("known").start_asked = start;
        }
        let up_to = self.model[key].acked_end;
        let mut seen = BTreeMap::new();
        let mut from = start;
        let bytes_max = 1 + self.rng.below(100_000) as usize;
        let mut turns = 0;
        while from < up_to {
            turns += 1;
            if turns > 10_000 {
                return Err(format!("{} gives nothing at {from}", key.dir_name()));
            }
            let batches = match self.stores[core].read(self.now, log, from, bytes_max, true, up_to)
            {
                Read::Ready(batches) => batches,
                Read::Disk(ticket) => {
                    self.executor.take_actions(core, &mut self.stores[core]);
                    self.until("read", |world| world.reads.contains_key(&(core, ticket)))?;
                    let result = self.reads.remove(&(core, ticket)).expect("just seen");
                    result.map_err(|error| format!("{} at {from}: {error}", key.dir_name()))?
                }
                // The log start moved on while this was reading.
                Read::Err(ReadError::OutOfRange) => {
                    from = self.stores[core].log_start(log).expect("found");
                    continue;
                }
                Read::Err(error) => return Err(format!("{} at {from}: {error}", key.dir_name())),
            };
            for bytes in batches {
                if is_compacted(key) {
                    from = note_records(&bytes, from, &mut seen)
                        .ok_or_else(|| format!("{} at {from}: unreadable", key.dir_name()))?;
                    self.report.read += 1;
                    continue;
                }
                let model = &self.model[key];
                let at = model.batches.partition_point(|batch| batch.end <= from);
                let expected = &model.batches[at];
                if bytes[..] != expected.bytes[..] || expected.base > from {
                    return Err(format!(
                        "{} at {from}: not the batch that was appended",
                        key.dir_name()
                    ));
                }
                from = expected.end;
                self.report.read += 1;
            }
        }
        if is_compacted(key) {
            return self.check_compacted(key, &seen, up_to);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_records_survive_everything() {
        let mut sum = SimReport::default();
        for seed in 0..40 {
            let report = run_with(seed, 1_500, |_| {}).unwrap_or_else(|why| panic!("{why}"));
            sum.appended += report.appended;
            sum.read += report.read;
            sum.power_cuts += report.power_cuts;
            sum.kills += report.kills;
            sum.replays += report.replays;
            sum.segments_deleted += report.segments_deleted;
            sum.compactions += report.compactions;
            sum.disk_reads += report.disk_reads;
            sum.checkpoints += report.checkpoints;
            sum.straight_writes += report.straight_writes;
        }
        // The runs did what they are for.
        assert!(sum.appended > 5_000, "{sum:?}");
        assert!(
            sum.power_cuts > 40 && sum.kills > 40 && sum.replays > 40,
            "{sum:?}"
        );
        assert!(sum.segments_deleted > 20 && sum.disk_reads > 100, "{sum:?}");
        assert!(sum.compactions > 5, "{sum:?}");
        assert!(sum.straight_writes > 200, "{sum:?}");
    }

    #[test]
    fn a_disk_that_lies_about_flushes_is_found_out() {
        let found = (0..20).any(|seed| {
            run_with(seed, 1_000, |disk| {
                disk.set_faults(|faults| faults.lies_about_flushes = Some(String::new()));
            })
            .is_err()
        });
        assert!(found, "the simulation would not notice lost flushes");
    }

    /// Rules 4 and 13: the reference alone is not enough to acknowledge what was written straight.
    #[test]
    fn segments_that_are_not_flushed_are_found_out() {
        let found = (0..20).any(|seed| {
            run_with(seed, 1_000, |disk| {
                disk.set_faults(|faults| faults.lies_about_flushes = Some(String::from(".log")));
            })
            .is_err()
        });
        assert!(
            found,
            "the simulation would not notice segments that are lost"
        );
    }
}
