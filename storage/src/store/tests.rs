//! Tests of a whole store over the simulated disk: the rules of the log, one by one.

use std::path::{Path, PathBuf};

use super::*;
use crate::batch::{Compression, stamp};
use crate::blocking_disk::block_on;
use crate::builder::BatchBuilder;
use crate::open_files::OpenFiles;
use crate::recovery::{self, Recovered};
use crate::sim::Executor;
use crate::sim_disk::{SimDisk, SimRng};
use crate::types::CoreId;

mod compaction;
mod flushes;
mod indexes;
mod journal;
mod line;
mod namesakes;
mod straight;

/// One store over a disk, and whoever runs its tasks.
struct Bench {
    disk: SimDisk,
    executor: Executor,
    rng: SimRng,
    stores: Vec<Store>,
    now: Now,
    notices: Vec<Notice>,
}

fn key(name: &str, id: u128) -> PartitionKey {
    PartitionKey {
        topic_id: TopicId::from_u128(id),
        topic: String::from(name),
        partition: 0,
    }
}

/// When the tests begin, wall clock.
const BEGIN_MS: i64 = 1_700_000_000_000;

/// A batch of one record, `after_ms` from the beginning of the test.
fn batch_of(value: &[u8], after_ms: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(BEGIN_MS + after_ms, None, Some(value));
    builder.build()
}

const DIR: &str = "/data";

fn recover(disk: &SimDisk) -> Recovered {
    block_on(recovery::recover(
        disk,
        &[PathBuf::from(DIR)],
        1,
        |_| true,
        |_| CoreId(0),
    ))
}

impl Bench {
    fn new() -> Bench {
        Bench::on(SimDisk::new(1))
    }

    fn on(disk: SimDisk) -> Bench {
        let recovered = recover(&disk);
        assert!(recovered.offline.is_empty(), "{:?}", recovered.offline);
        Bench::start(disk, recovered)
    }

    fn start(disk: SimDisk, recovered: Recovered) -> Bench {
        Bench::start_with(disk, recovered, |_| {})
    }

    fn start_with(
        disk: SimDisk,
        recovered: Recovered,
        change: impl FnOnce(&mut StoreConfig),
    ) -> Bench {
        let mut config = StoreConfig::new(
            CoreId(0),
            1,
            vec![PathBuf::from(DIR)],
            recovered.epoch,
            0x5a17,
            4 << 20,
        );
        config.journal_file_bytes = 256 << 10;
        config.reserve_bytes = 8 << 20;
        config.settle_idle_ms = 1_000;
        config.checkpoint_ms = 5_000;
        change(&mut config);
        let image = recovered.cores.into_iter().next().expect("one core");
        let mut bench = Bench {
            executor: Executor::new(disk.clone()),
            disk,
            rng: SimRng::new(3),
            stores: vec![Store::new(config, image)],
            now: Now {
                monotonic_us: 1,
                wall_ms: BEGIN_MS,
            },
            notices: Vec::new(),
        };
        bench.run();
        assert!(bench.stores[0].is_ready());
        bench
    }

    fn store(&mut self) -> &mut Store {
        &mut self.stores[0]
    }

    /// Runs everything that can run without time passing.
    fn run(&mut self) {
        let now = self.now;
        self.stores[0].end_turn(now);
        self.executor.take_actions(0, &mut self.stores[0]);
        while self.executor.step(now, &mut self.rng, &mut self.stores) {}
        while let Some(notice) = self.stores[0].poll_notice() {
            self.notices.push(notice);
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(100) {
            self.now.monotonic_us += 100_000;
            self.now.wall_ms += 100;
            let now = self.now;
            self.stores[0].tick(now);
            self.run();
        }
    }

    fn create(&mut self, name: &str, id: u128, config: LogConfig) -> LogId {
        let now = self.now;
        let log = self.store().create_partition(now, key(name, id), config);
        self.run();
        log
    }

    fn append(&mut self, log: LogId, batch: &[u8]) -> Result<Appended, AppendError> {
        let now = self.now;
        self.store().append(now, log, batch, AppendStamp::default())
    }

    fn read_all(&mut self, log: LogId) -> Vec<u8> {
        let mut from = self.stores[0].log_start(log).expect("a log");
        let end = self.stores[0].durable_end(log).expect("a log");
        let mut out = Vec::new();
        while from < end {
            let now = self.now;
            let batches = match self.store().read(now, log, from, 1 << 20, true, end) {
                Read::Ready(batches) => batches,
                Read::Disk(ticket) => {
                    self.run();
                    let at = self
                        .notices
                        .iter()
                        .position(
                            |n| matches!(n, Notice::ReadDone { ticket: t, .. } if *t == ticket),
                        )
                        .expect("the read is done");
                    let Notice::ReadDone { result, .. } = self.notices.remove(at) else {
                        unreachable!("matched above");
                    };
                    result.expect("readable")
                }
                Read::Err(error) => panic!("{error}"),
            };
            for batch in batches {
                from = BatchHeader::ref_from_prefix(&batch)
                    .expect("a batch")
                    .offset_end();
                out.extend_from_slice(&batch);
            }
        }
        out
    }

    fn shut_down(mut self) -> SimDisk {
        let now = self.now;
        self.store().begin_shutdown(now);
        self.run();
        assert!(
            self.notices.iter().any(|n| matches!(n, Notice::Settled)),
            "{}",
            self.stores[0].unsettled()
        );
        self.disk
    }

    fn find(&self, id: u128) -> LogId {
        self.stores[0]
            .find(TopicId::from_u128(id), 0)
            .expect("the log")
    }
}

fn stamped(mut batch: Vec<u8>, offset: i64) -> Vec<u8> {
    stamp(&mut batch, Offset(offset), LeaderEpoch(0));
    batch
}

#[test]
fn an_append_is_told_after_its_write_and_read_from_memory() {
    let mut bench = Bench::new();
    let log = bench.create("t", 1, LogConfig::default());
    let batch = batch_of(b"hello", 5);
    let appended = bench.append(log, &batch).expect("admitted");
    assert_eq!(
        (appended.base_offset, appended.offset_end),
        (Offset(0), Offset(1))
    );
    assert_eq!(bench.stores[0].durable_end(log), Some(Offset(0)));
    bench.run();
    assert_eq!(bench.stores[0].durable_end(log), Some(Offset(1)));
    assert_eq!(bench.read_all(log), stamped(batch, 0));
    assert_eq!(bench.stores[0].counters().disk_reads, 0);
}

/// Rule 10: a partition takes appends only after its creation is durable.
#[test]
fn nothing_is_appended_before_the_creation_is_durable() {
    let mut bench = Bench::new();
    let now = bench.now;
    let log = bench
        .store()
        .create_partition(now, key("t", 1), LogConfig::default());
    let batch = batch_of(b"x", 1);
    assert_eq!(bench.append(log, &batch), Err(AppendError::NotReady));
    bench.run();
    assert!(bench.append(log, &batch).is_ok());
}

/// Rule 2: a settled tail block is rewritten only after its head is in the journal, so that a crash in
/// the middle of that leaves everything.
#[test]
fn a_settled_tail_block_survives_being_rewritten() {
    for seed in 0..12 {
        let mut bench = Bench::on(SimDisk::new(seed));
        let log = bench.create("t", 1, LogConfig::default());
        let mut expected = Vec::new();
        for round in 0..4 {
            let batch = batch_of(&[round; 700], 1);
            expected.extend(stamped(batch.clone(), i64::from(round)));
            bench.append(log, &batch).expect("admitted");
            bench.run();
            if round < 3 {
                bench.pass(2_000);
            }
        }
        // The next settling is under way when the power fails.
        bench.now.monotonic_us += 2_000_000;
        let now = bench.now;
        bench.store().tick(now);
        bench.executor.take_actions(0, &mut bench.stores[0]);
        for _ in 0..seed * 3 {
            bench.executor.step(now, &mut bench.rng, &mut bench.stores);
        }
        let disk = bench.disk.clone();
        drop(bench);
        disk.crash();
        let mut bench = Bench::on(disk);
        let log = bench.find(1);
        assert!(bench.read_all(log) == expected, "seed {seed}");
        bench.pass(3_000);
        assert!(bench.read_all(log) == expected, "seed {seed}, settled");
    }
}

/// Rule 3: a topic deleted and made again gets nothing of the old one's.
#[test]
fn a_topic_made_again_is_empty() {
    let mut bench = Bench::new();
    let log = bench.create("t", 1, LogConfig::default());
    let old = batch_of(b"old", 1);
    bench.append(log, &old).expect("admitted");
    bench.run();
    bench.pass(2_000);
    let now = bench.now;
    bench.store().delete_partition(now, log);
    let again = bench.create("t", 2, LogConfig::default());
    let new = batch_of(b"new", 1);
    bench.append(again, &new).expect("admitted");
    bench.run();
    let disk = bench.disk.clone();
    drop(bench);
    disk.crash();
    let mut bench = Bench::on(disk);
    assert_eq!(bench.stores[0].find(TopicId::from_u128(1), 0), None);
    let log = bench.find(2);
    assert_eq!(bench.read_all(log), stamped(new, 0));
    let disk = bench.shut_down();
    let segment = disk
        .contents(&Path::new(DIR).join("t-0/00000000000000000000.log"))
        .expect("settled");
    assert!(segment.windows(3).any(|bytes| bytes == b"new"));
    assert!(!segment.windows(3).any(|bytes| bytes == b"old"));
}

/// Rule 3: a directory that nobody knows is set aside.
#[test]
fn a_stray_directory_is_set_aside() {
    let disk = SimDisk::new(5);
    let stray = Path::new(DIR).join("who-3");
    block_on(crate::disk::Disk::create_dir_all(&disk, &stray)).expect("made");
    let recovered = recover(&disk);
    assert_eq!(recovered.strays.len(), 1);
    assert!(!disk.exists(&stray) && disk.exists(&recovered.strays[0].1));
}

/// A crash may come between the deletion of a topic and that of its log: who knows of the first has the
/// second done.
#[test]
fn a_log_of_a_deleted_topic_is_removed() {
    let mut bench = Bench::new();
    let log = bench.create("t", 1, LogConfig::default());
    bench.append(log, &batch_of(b"old", 1)).expect("admitted");
    bench.run();
    let disk = bench.shut_down();
    let own = Path::new(DIR).join("t-0");
    assert!(disk.exists(&own));
    let recovered = block_on(async {
        let scan = recovery::scan(&disk, &[PathBuf::from(DIR)]).await;
        scan.finish(&disk, 1, |_| recovery::Known::Deleted, |_| CoreId(0))
            .await
    });
    assert!(recovered.strays.is_empty() && !disk.exists(&own));
    let mut bench = Bench::start(disk, recovered);
    bench.pass(200);
    let left = block_on(crate::disk::Disk::list_dir(&bench.disk, Path::new(DIR))).expect("listed");
    assert!(
        left.iter().all(|entry| entry.name == ".millrace"),
        "{left:?}"
    );
}

/// `preallocate`: the file has the segment's whole size from its first bytes on, and its own length when
/// it is closed.
#[test]
fn a_preallocated_segment_has_its_whole_size() {
    let mut bench = Bench::new();
    let config = LogConfig {
        preallocate: true,
        segment_bytes: 100_000,
        ..LogConfig::default()
    };
    let log = bench.create("t", 1, config);
    let batch = batch_of(&[1; 5_000], 1);
    bench.append(log, &batch).expect("admitted");
    bench.run();
    bench.pass(2_000);
    let first = Path::new(DIR).join("t-0/00000000000000000000.log");
    let length = |bench: &Bench| bench.disk.contents(&first).map(|bytes| bytes.len());
    assert_eq!(length(&bench), Some(100_000_usize.next_multiple_of(4096)));
    for _ in 0..20 {
        bench.append(log, &batch).expect("admitted");
        bench.run();
    }
    bench.pass(2_000);
    assert_eq!(length(&bench), Some(100_000 / batch.len() * batch.len()));
}

/// Rule 5: the length of a segment is what checkpoint and journal say, whatever its file holds behind.
#[test]
fn old_batches_behind_the_end_do_not_come_back() {
    let mut bench = Bench::new();
    let log = bench.create("t", 1, LogConfig::default());
    let batch = batch_of(b"real", 1);
    bench.append(log, &batch).expect("admitted");
    bench.run();
    let disk = bench.shut_down();
    // A batch with just the next offset lies behind the end, as in a block used before.
    let path = Path::new(DIR).join("t-0/00000000000000000000.log");
    let length = batch.len();
    let fake = stamped(batch_of(b"fake", 1), 1);
    block_on(async {
        use crate::disk::{Disk, OpenMode};
        let file = disk.open(&path, OpenMode::ReadWrite).await.unwrap();
        let mut block = ring::buf::AlignedBuf::zeroed(4096);
        block[..length].copy_from_slice(&stamped(batch.clone(), 0));
        block[length..length + fake.len()].copy_from_slice(&fake);
        disk.write_at(&file, 0, block.freeze()).await.unwrap();
        disk.sync_data(&file).await.unwrap();
    });
    let mut bench = Bench::on(disk);
    let log = bench.find(1);
    assert_eq!(bench.stores[0].log_end(log), Some(Offset(1)));
    assert_eq!(bench.read_all(log), stamped(batch, 0));
}

/// Rule 11: what was acknowledged on a disk that fills up is written; then the disk heals.
#[test]
fn a_full_disk_keeps_what_it_acknowledged_and_heals() {
    let disk = SimDisk::new(9);
    disk.set_faults(|faults| faults.capacity_bytes = 20 << 20);
    let mut bench = Bench::on(disk.clone());
    let log = bench.create("t", 1, LogConfig::default());
    let batch = batch_of(&[5; 100_000], 1);
    let mut taken = 0;
    let mut full = false;
    for _ in 0..1_000 {
        match bench.append(log, &batch) {
            Ok(_) => taken += 1,
            Err(AppendError::DiskFull) => {
                // Allocation goes on in smaller steps, so the first time need not be the last.
                bench.pass(10_000);
                full = bench.append(log, &batch) == Err(AppendError::DiskFull);
                if full {
                    break;
                }
                taken += 1;
            }
            Err(AppendError::Busy) => bench.pass(200),
            Err(error) => panic!("{error}"),
        }
        bench.run();
    }
    assert!(full && taken > 20, "{taken}");
    assert_eq!(bench.read_all(log).len(), taken * batch.len());
    assert_eq!(bench.stores[0].gauges().dirty_bytes, 0);
    disk.set_faults(|faults| faults.capacity_bytes = 1 << 30);
    bench.pass(10_000);
    assert!(
        bench
            .notices
            .iter()
            .any(|n| matches!(n, Notice::DirRoom { .. }))
    );
    assert!(bench.append(log, &batch).is_ok());
}

/// Rule 3: a log start is durable before it is told, and stays.
#[test]
fn deleted_records_stay_deleted() {
    let mut bench = Bench::new();
    let config = LogConfig {
        segment_bytes: 2_000,
        file_delete_delay_ms: 100,
        ..LogConfig::default()
    };
    let log = bench.create("t", 1, config);
    for value in 0..10u8 {
        let batch = batch_of(&[value; 900], 1);
        bench.append(log, &batch).expect("admitted");
        bench.run();
    }
    bench.pass(3_000);
    let now = bench.now;
    let ticket = bench
        .store()
        .delete_records(now, log, Offset(5))
        .expect("in range");
    assert!(bench.store().delete_records(now, log, Offset(11)).is_err());
    bench.run();
    let told = |n: &Notice| matches!(n, Notice::LogStartMoved { offset: Offset(5), ticket: Some(t), .. } if *t == ticket);
    assert!(bench.notices.iter().any(told));
    let disk = bench.disk.clone();
    drop(bench);
    disk.crash();
    let mut bench = Bench::on(disk);
    let log = bench.find(1);
    assert_eq!(bench.stores[0].log_start(log), Some(Offset(5)));
    let now = bench.now;
    assert!(matches!(
        bench.store().read(now, log, Offset(4), 1, true, Offset(10)),
        Read::Err(ReadError::OutOfRange)
    ));
    bench.pass(1_000);
    let first = Path::new(DIR).join("t-0/00000000000000000000.log");
    assert!(!bench.disk.exists(&first));
}

/// Retention by time takes the active segment too, after rolling it.
#[test]
fn retention_by_time_empties_an_old_log() {
    let mut bench = Bench::new();
    let config = LogConfig {
        retention_ms: Some(1_000),
        ..LogConfig::default()
    };
    let log = bench.create("t", 1, config);
    let batch = batch_of(b"x", 0);
    bench.append(log, &batch).expect("admitted");
    bench.run();
    bench.pass(600_000);
    assert_eq!(bench.stores[0].log_start(log), Some(Offset(1)));
    assert_eq!(bench.stores[0].log_end(log), Some(Offset(1)));
}

#[test]
fn closed_segments_hold_exactly_their_batches() {
    let mut bench = Bench::new();
    let config = LogConfig {
        segment_bytes: 5_000,
        index_interval_bytes: 500,
        ..LogConfig::default()
    };
    let log = bench.create("t", 1, config);
    let mut expected = Vec::new();
    for value in 0..8u8 {
        let batch = batch_of(&[value; 1_500], 10 + i64::from(value));
        if value < 3 {
            expected.extend(stamped(batch.clone(), i64::from(value)));
        }
        bench.append(log, &batch).expect("admitted");
        bench.run();
    }
    bench.pass(3_000);
    let dir = Path::new(DIR).join("t-0");
    let first = bench.disk.contents(&dir.join("00000000000000000000.log"));
    assert!(first == Some(expected));
    for extension in ["index", "timeindex"] {
        let name = format!("00000000000000000000.{extension}");
        assert!(bench.disk.exists(&dir.join(name)));
    }
    assert!(bench.disk.exists(&dir.join("00000000000000000003.log")));
}

#[test]
fn lookups_find_the_exact_record_in_memory_and_on_disk() {
    let mut bench = Bench::new();
    let log = bench.create("t", 1, LogConfig::default());
    let mut builder = BatchBuilder::new(Compression::Lz4);
    for timestamp in [100, 300, 200] {
        builder.push(timestamp, None, Some(b"v"));
    }
    let batch = builder.build();
    bench.append(log, &batch).expect("admitted");
    bench.run();
    let exact = |timestamp_ms, offset| {
        Some(Found {
            timestamp_ms,
            offset: Offset(offset),
            leader_epoch: LeaderEpoch(0),
        })
    };
    let now = bench.now;
    for (kind, found) in [
        (LookupKind::ByTimestamp(150), exact(300, 1)),
        (LookupKind::ByTimestamp(100), exact(100, 0)),
        (LookupKind::ByTimestamp(301), None),
        (LookupKind::MaxTimestamp, exact(300, 1)),
    ] {
        assert_eq!(bench.store().lookup(now, log, kind), Lookup::Ready(found));
    }
    let mut bench = Bench::on(bench.shut_down());
    let log = bench.find(1);
    let now = bench.now;
    let Lookup::Disk(ticket) = bench.store().lookup(now, log, LookupKind::ByTimestamp(150)) else {
        panic!("nothing is in memory after a clean start");
    };
    bench.run();
    let done = bench.notices.iter().find_map(|n| match n {
        Notice::LookupDone { ticket: t, result } if *t == ticket => Some(*result),
        _ => None,
    });
    assert_eq!(done, Some(Ok(exact(300, 1))));
}

/// A batch that rotted on disk is never given out.
#[test]
fn a_rotten_batch_is_not_served() {
    let mut bench = Bench::new();
    let log = bench.create("t", 1, LogConfig::default());
    let batch = batch_of(b"value", 1);
    bench.append(log, &batch).expect("admitted");
    bench.run();
    let disk = bench.shut_down();
    disk.rot(
        &Path::new(DIR).join("t-0/00000000000000000000.log"),
        batch.len() - 2,
    );
    let mut bench = Bench::on(disk);
    let log = bench.find(1);
    let now = bench.now;
    let Read::Disk(ticket) = bench
        .store()
        .read(now, log, Offset(0), 100, true, Offset(1))
    else {
        panic!("nothing is in memory after a clean start");
    };
    bench.run();
    assert!(bench.notices.iter().any(|n| matches!(
        n,
        Notice::ReadDone { ticket: t, result: Err(ReadError::Corrupt) } if *t == ticket
    )));
}

/// Who goes through a log finds what comes next read already; who asks once causes no more than he asked
/// for.
#[test]
fn a_reader_that_goes_on_is_read_ahead_of() {
    let batch = batch_of(&[7; 100_000], 1);
    let begin = |windows_bytes_max| {
        let mut bench = Bench::new();
        let log = bench.create("t", 1, LogConfig::default());
        for _ in 0..50 {
            while bench.append(log, &batch).is_err() {
                bench.pass(100);
            }
            bench.run();
        }
        let disk = bench.shut_down();
        let recovered = recover(&disk);
        let change = |config: &mut StoreConfig| config.windows_bytes_max = windows_bytes_max;
        let bench = Bench::start_with(disk, recovered, change);
        (bench.find(1), bench)
    };
    // The file's windows have ten batches each.
    let (log, mut bench) = begin(8 << 20);
    let read = |bench: &mut Bench, from: i64, bytes_max: usize| {
        let now = bench.now;
        let end = Offset(50);
        let read = bench
            .store()
            .read(now, log, Offset(from), bytes_max, true, end);
        let ready = matches!(read, Read::Ready(_));
        bench.run();
        let counters = bench.stores[0].counters();
        (ready, counters.disk_reads, counters.disk_reads_ahead)
    };
    assert_eq!(read(&mut bench, 0, 1 << 20), (false, 1, 0));
    assert_eq!(read(&mut bench, 30, 1 << 20), (false, 2, 0), "elsewhere");
    assert_eq!(read(&mut bench, 10, 1 << 20), (false, 4, 1), "goes on");
    // What reaches up to a window that is there anyhow is read on behind that.
    assert_eq!(
        read(&mut bench, 20, 400_000),
        (true, 4, 1),
        "enough is left"
    );
    assert_eq!(read(&mut bench, 23, 1 << 20), (true, 5, 2));
    assert_eq!(
        read(&mut bench, 33, 1 << 20),
        (true, 5, 2),
        "nothing is left to read"
    );
    assert_eq!(read(&mut bench, 43, 1 << 20), (true, 5, 2));
    assert_eq!(bench.stores[0].counters().read_ahead_unused_bytes, 0);
    bench.pass(11_000);
    assert_eq!(
        bench.stores[0].gauges().windows_bytes,
        0,
        "nobody asks any more"
    );
    assert_eq!(bench.read_all(log).len(), 50 * batch.len());

    let (log, mut bench) = begin(0);
    assert_eq!(bench.read_all(log).len(), 50 * batch.len());
    let counters = bench.stores[0].counters();
    assert_eq!((counters.disk_reads, counters.disk_reads_ahead), (5, 0));
    let (log, mut bench) = begin(8 << 20);
    assert_eq!(bench.read_all(log).len(), 50 * batch.len());
    let counters = bench.stores[0].counters();
    assert_eq!((counters.disk_reads, counters.disk_reads_ahead), (5, 3));
}

/// Leader epochs and producers come back, after a crash as after a clean stop.
#[test]
fn epochs_and_producers_come_back() {
    let mut bench = Bench::new();
    let log = bench.create("t", 1, LogConfig::default());
    let mut builder = BatchBuilder::new(Compression::None).producer(77, 0, 0);
    builder.push(1, None, Some(b"v"));
    let batch = builder.build();
    bench.append(log, &batch).expect("admitted");
    bench.run();
    let disk = bench.disk.clone();
    drop(bench);
    disk.crash();
    let bench = Bench::on(disk);
    let bench = Bench::on(bench.shut_down());
    let log = bench.find(1);
    let header = BatchHeader::ref_from_prefix(&batch).expect("a batch");
    let Some(SequenceCheck::Duplicate(original)) = bench.stores[0].check_sequence(log, header)
    else {
        panic!("the producer is forgotten");
    };
    assert_eq!(original.base_offset, Offset(0));
    assert_eq!(
        bench.stores[0].epoch_end(log, LeaderEpoch(0), LeaderEpoch(0)),
        Some((LeaderEpoch(0), Offset(1)))
    );
}

/// The set of open files does not know a renamed segment by its old name.
#[test]
fn a_store_needs_few_open_files() {
    let disk = OpenFiles::new(SimDisk::new(1), 1);
    block_on(async {
        use crate::disk::{Disk, OpenMode};
        disk.create_dir_all(Path::new("/a")).await.unwrap();
        disk.open(Path::new("/a/x"), OpenMode::Create)
            .await
            .unwrap();
        disk.rename(Path::new("/a/x"), Path::new("/a/y"))
            .await
            .unwrap();
        assert!(disk.open(Path::new("/a/x"), OpenMode::Read).await.is_err());
        assert!(disk.open(Path::new("/a/y"), OpenMode::Read).await.is_ok());
    });
}
