//! Tests of compaction in a whole store: what stays, and that a crash at any step leaves the old
//! segments or the new ones.

use std::collections::BTreeMap;

use super::*;
use crate::batch::{BatchView, split};
use crate::disk::Disk;
use crate::index::SegmentIndex;
use crate::records::RecordsScratch;

const KEYS: u64 = 5;

fn config(min_cleanable_dirty_ratio: f64) -> LogConfig {
    LogConfig {
        segment_bytes: 8 << 10,
        index_interval_bytes: 512,
        cleanup_delete: false,
        cleanup_compact: true,
        min_cleanable_dirty_ratio,
        ..LogConfig::default()
    }
}

/// Nothing is dirtier than wholly dirty.
const NEVER: f64 = 1.0;
const ALWAYS: f64 = 0.0;

fn keyed(key: u64, number: u64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    let value = vec![number as u8; 900];
    builder.push(
        BEGIN_MS + number as i64,
        Some(&key.to_be_bytes()),
        Some(&value),
    );
    builder.build()
}

fn start(disk: SimDisk) -> Bench {
    let recovered = recover(&disk);
    assert!(recovered.offline.is_empty(), "{:?}", recovered.offline);
    Bench::start_with(disk, recovered, |config| {
        config.cleaner_backoff_ms = 50;
        config.clean_bytes_max = 0;
    })
}

/// A log of several closed segments that nothing has compacted, and what was appended.
fn filled(seed: u64, batches: u64) -> (Bench, BTreeMap<i64, Vec<u8>>) {
    let mut bench = start(SimDisk::new(seed));
    let log = bench.create("t", 1, config(NEVER));
    let mut appended = BTreeMap::new();
    for number in 0..batches {
        let batch = keyed(number * 7 % KEYS, number);
        let at = bench.append(log, &batch).expect("admitted").base_offset.0;
        appended.insert(at, stamped(batch, at));
        bench.run();
    }
    bench.pass(3_000);
    assert_eq!(bench.stores[0].counters().compactions, 0);
    (bench, appended)
}

/// What is there was appended, in order, and of each key the newest is there.
fn check(bench: &mut Bench, appended: &BTreeMap<i64, Vec<u8>>, what: &str) -> usize {
    let log = bench.find(1);
    assert_eq!(
        bench.stores[0].log_end(log),
        Some(Offset(appended.len() as i64)),
        "{what}"
    );
    let bytes = bench.read_all(log);
    let mut newest: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    let mut scratch = RecordsScratch::new();
    let mut key_of = |bytes: &[u8]| {
        let batch = BatchView::new(bytes).expect("whole");
        let mut records = scratch.records(&batch, 1 << 20).expect("readable");
        let record = records.next().expect("one").expect("readable");
        record.key.expect("a key").to_vec()
    };
    for (offset, batch) in appended {
        newest.insert(key_of(batch), *offset);
    }
    let mut last = -1;
    let mut count = 0;
    for batch in split(&bytes) {
        let batch = batch.expect("whole");
        let offset = batch.header().base_offset().0;
        assert!(offset > last, "{what}: {offset} after {last}");
        last = offset;
        count += 1;
        assert!(
            batch.bytes() == appended[&offset],
            "{what}: other bytes at {offset}"
        );
        let key = key_of(batch.bytes());
        if newest[&key] == offset {
            newest.remove(&key);
        }
    }
    assert!(
        newest.is_empty(),
        "{what}: the newest of {newest:?} are gone"
    );
    count
}

fn files(disk: &SimDisk, ending: &str) -> Vec<PathBuf> {
    let dir = Path::new(DIR).join("t-0");
    let entries = block_on(disk.list_dir(&dir)).expect("listed");
    let names = entries.into_iter().map(|entry| entry.name);
    let mut found: Vec<_> = names
        .filter(|name| name.ends_with(ending))
        .map(|name| dir.join(name))
        .collect();
    found.sort();
    found
}

/// Each closed segment has the indexes that a walk of it gives.
fn check_indexes(bench: &Bench, what: &str) {
    let log = bench.find(1);
    let partition = bench.stores[0].log(log).expect("a log");
    for segment in &partition.segments {
        if !segment.image.finished {
            continue;
        }
        let base = segment.base();
        let of = |extension| {
            let path = crate::segment::path(&partition.path, base, extension);
            bench.disk.contents(&path)
        };
        let bytes = of("log").expect("a segment");
        assert_eq!(bytes.len() as u64, segment.image.length_bytes, "{what}");
        let mut index = SegmentIndex::new(base);
        let mut position = 0;
        for batch in split(&bytes) {
            let batch = batch.expect("whole");
            index.on_batch(batch.header(), position, 512);
            position += batch.len_bytes() as u64;
        }
        index.close();
        assert_eq!(
            of("index").as_deref(),
            Some(index.offset_index_bytes()),
            "{what}: offsets of {base}"
        );
        assert_eq!(
            of("timeindex").as_deref(),
            Some(index.time_index_bytes()),
            "{what}: times of {base}"
        );
    }
}

#[test]
fn a_log_is_compacted_with_its_indexes() {
    let (mut bench, appended) = filled(1, 60);
    let before = files(&bench.disk, ".log").len();
    assert!(before >= 6, "{before} segments");
    let (log, now) = (bench.find(1), bench.now);
    bench.store().set_config(now, log, config(ALWAYS));
    bench.pass(3_000);
    let counters = bench.stores[0].counters();
    assert!(counters.compactions > 0);
    let left = check(&mut bench, &appended, "compacted");
    assert!(left < 20, "{left} batches are left");
    check_indexes(&bench, "compacted");
    assert_eq!(files(&bench.disk, ".cleaned"), Vec::<PathBuf>::new());
    // A reader that begins in the middle asks the index.
    assert_eq!(
        bench.stores[0].counters().indexes_rebuilt,
        counters.indexes_rebuilt
    );
    let mut bench = start(bench.shut_down());
    assert_eq!(check(&mut bench, &appended, "after a stop"), left);
    check_indexes(&bench, "after a stop");
}

/// Whatever step of a compaction the power fails at, or the process dies at: all that counts is there,
/// and the next start compacts the log to the end.
#[test]
fn a_crash_at_any_step_of_a_compaction_takes_nothing() {
    // How many steps there are until the log is compacted, at most.
    let steps = {
        let (mut bench, _) = filled(0, 40);
        begin(&mut bench);
        let mut steps = 0;
        while bench.stores[0].counters().compactions == 0 {
            step(&mut bench);
            steps += 1;
        }
        steps
    };
    assert!(steps > 100, "{steps}");
    let (mut before, mut after) = (0, 0);
    for seed in 0..90 {
        let (mut bench, appended) = filled(seed, 40);
        begin(&mut bench);
        for _ in 0..steps * (seed + 1) / 85 {
            step(&mut bench);
        }
        let disk = bench.disk.clone();
        drop(bench);
        let power = !seed.is_multiple_of(3);
        if power {
            disk.crash();
        } else {
            disk.process_crash();
        }
        let what = format!("seed {seed}, power {power}");
        let mut bench = start(disk);
        if check(&mut bench, &appended, &what) == appended.len() {
            before += 1;
        } else {
            after += 1;
        }
        begin(&mut bench);
        bench.pass(4_000);
        let left = check(&mut bench, &appended, &format!("{what}, compacted"));
        assert!(left < appended.len() / 2, "{what}: {left} left");
        assert_eq!(
            files(&bench.disk, ".cleaned"),
            Vec::<PathBuf>::new(),
            "{what}"
        );
        check_indexes_where_there(&bench, &what);
    }
    assert!(before > 5 && after > 5, "{before} and {after}");
}

/// As [`check_indexes`], but a crash may have left a segment without: then a reader builds them.
fn check_indexes_where_there(bench: &Bench, what: &str) {
    let partition = bench.stores[0].log(bench.find(1)).expect("a log");
    let all_there = partition
        .segments
        .iter()
        .filter(|segment| segment.image.finished)
        .all(|segment| {
            let path = crate::segment::path(&partition.path, segment.base(), "timeindex");
            bench.disk.exists(&path)
        });
    if all_there {
        check_indexes(bench, what);
    }
}

fn begin(bench: &mut Bench) {
    let (log, now) = (bench.find(1), bench.now);
    bench.store().set_config(now, log, config(ALWAYS));
    bench.now.monotonic_us += 200_000;
    let now = bench.now;
    bench.store().tick(now);
    bench.executor.take_actions(0, &mut bench.stores[0]);
}

fn step(bench: &mut Bench) {
    let now = bench.now;
    if !bench.executor.step(now, &mut bench.rng, &mut bench.stores) {
        bench.pass(100);
    }
}

/// Kafka cleans what is dirtier than the ratio, not what is as dirty; min.compaction.lag.ms keeps the
/// newest segments out, max.compaction.lag.ms lets nothing wait longer.
#[test]
fn what_is_due_follows_ratio_and_lags() {
    let compacted = |change: &dyn Fn(&mut LogConfig)| {
        let (mut bench, _) = filled(1, 30);
        let (log, now) = (bench.find(1), bench.now);
        let mut config = config(NEVER);
        change(&mut config);
        bench.store().set_config(now, log, config);
        bench.pass(2_000);
        bench.stores[0].counters().compactions > 0
    };
    assert!(!compacted(&|_| {}));
    assert!(compacted(&|config| config.min_cleanable_dirty_ratio = 0.99));
    assert!(!compacted(&|config| {
        config.min_cleanable_dirty_ratio = ALWAYS;
        config.min_compaction_lag_ms = 3_600_000;
    }));
    assert!(compacted(&|config| {
        config.min_cleanable_dirty_ratio = ALWAYS;
        config.min_compaction_lag_ms = 10;
    }));
    assert!(compacted(&|config| config.max_compaction_lag_ms = 1_000));
}
