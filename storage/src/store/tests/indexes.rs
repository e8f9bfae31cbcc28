//! Tests of index files: that closed segments have them, whenever they were begun, and that those which
//! are missing or wrong mislead nobody.

use super::*;
use crate::disk::Disk;
use crate::index::{OFFSET_ENTRY_BYTES, SegmentIndex};
use crate::tasks::write_plain;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 24 << 10,
        index_interval_bytes: 1024,
        ..LogConfig::default()
    }
}

fn start(disk: SimDisk) -> Bench {
    let recovered = recover(&disk);
    assert!(recovered.offline.is_empty(), "{:?}", recovered.offline);
    Bench::start_with(disk, recovered, |config| config.clean_bytes_max = 0)
}

fn value(number: usize) -> Vec<u8> {
    vec![number as u8; 300 + number % 7 * 50]
}

fn fill(bench: &mut Bench, log: LogId, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let batch = batch_of(&value(number), number as i64 * 10);
        bench.append(log, &batch).expect("admitted");
        bench.run();
    }
    bench.pass(3_000);
}

fn file(extension: &str) -> PathBuf {
    Path::new(DIR).join(format!("t-0/00000000000000000000.{extension}"))
}

/// The indexes of the first segment as a walk of it gives them.
fn walked(disk: &SimDisk) -> SegmentIndex {
    let bytes = disk.contents(&file("log")).expect("a segment");
    let mut index = SegmentIndex::new(Offset(0));
    let mut position = 0;
    for batch in crate::batch::split(&bytes) {
        let batch = batch.expect("whole");
        index.on_batch(batch.header(), position, 1024);
        position += batch.len_bytes() as u64;
    }
    index.close();
    index
}

/// One batch, from the disk.
fn read_one(bench: &mut Bench, log: LogId, offset: i64) -> Vec<u8> {
    let now = bench.now;
    let end = bench.stores[0].durable_end(log).expect("a log");
    // Windows and hints of earlier reads would answer instead.
    bench.store().reads = Default::default();
    let Read::Disk(ticket) = bench.store().read(now, log, Offset(offset), 1, true, end) else {
        panic!("{offset} is in memory");
    };
    bench.run();
    let at = bench
        .notices
        .iter()
        .position(|n| matches!(n, Notice::ReadDone { ticket: t, .. } if *t == ticket))
        .expect("the read is done");
    let Notice::ReadDone { result, .. } = bench.notices.remove(at) else {
        unreachable!("matched above");
    };
    let batches = result.expect("readable");
    assert_eq!(batches.len(), 1);
    batches[0].to_vec()
}

fn look_up(bench: &mut Bench, log: LogId, kind: LookupKind) -> Option<(i64, i64)> {
    let now = bench.now;
    let found = match bench.store().lookup(now, log, kind) {
        Lookup::Ready(found) => found,
        Lookup::Disk(ticket) => {
            bench.run();
            let done = bench.notices.iter().find_map(|n| match n {
                Notice::LookupDone { ticket: t, result } if *t == ticket => Some(*result),
                _ => None,
            });
            done.expect("the lookup is done").expect("readable")
        }
        Lookup::Err(error) => panic!("{error}"),
    };
    found.map(|found| (found.timestamp_ms, found.offset.0))
}

/// Reads and lookups all over the first segment.
fn check(bench: &mut Bench, log: LogId, what: &str) {
    for number in [0, 1, 17, 29, 33] {
        let expected = stamped(batch_of(&value(number), number as i64 * 10), number as i64);
        assert!(
            read_one(bench, log, number as i64) == expected,
            "{what}: {number}"
        );
        let time_ms = BEGIN_MS + number as i64 * 10;
        assert_eq!(
            look_up(bench, log, LookupKind::ByTimestamp(time_ms - 3)),
            Some((time_ms, number as i64)),
            "{what}: {number} by its time"
        );
    }
}

/// The index files of the first segment fit it, and have no wider holes than a seam makes.
fn check_against_walk(disk: &SimDisk) {
    let log = disk.contents(&file("log")).expect("a segment");
    let offsets = disk.contents(&file("index")).expect("an index");
    let times = disk.contents(&file("timeindex")).expect("an index");
    let expected = walked(disk);
    let mut batches = std::collections::BTreeMap::new();
    let mut position = 0;
    for batch in crate::batch::split(&log) {
        let batch = batch.expect("whole");
        let header = batch.header();
        batches.insert(position, (header.offset_last(), header.max_timestamp()));
        position += batch.len_bytes() as i32;
    }
    let (&last, &(offset_last, _)) = batches.last_key_value().expect("batches");
    let end = Offset(offset_last.0 + 1);
    let index =
        SegmentIndex::decode(Offset(0), &offsets, &times, log.len() as u64, end).expect("they fit");
    let mut before = 0;
    for entry in index.offset_entries() {
        let (offset, _) = batches[&entry.position()];
        assert_eq!(offset, Offset(i64::from(entry.relative_offset())));
        assert!(entry.position() - before < 4096, "a hole at {before}");
        before = entry.position();
    }
    assert!(last - before < 4096, "a hole at the end");
    for entry in index.time_entries() {
        let offset = Offset(i64::from(entry.relative_offset()));
        let brought = batches.values().find(|(last, _)| *last == offset);
        assert_eq!(brought, Some(&(offset, entry.timestamp())));
    }
    assert!(index.time_entries().len() + 3 > expected.time_entries().len());
    assert_eq!(index.max_timestamp(), expected.max_timestamp());
}

/// A segment that was active at a restart has whole index files when it is closed, and a reader needs
/// no walk.
#[test]
fn a_segment_that_was_reopened_has_whole_indexes() {
    let mut bench = start(SimDisk::new(1));
    let log = bench.create("t", 1, config());
    fill(&mut bench, log, 0..20);
    let mut bench = start(bench.shut_down());
    let log = bench.find(1);
    let now = bench.now;
    bench.store().set_config(now, log, config());
    fill(&mut bench, log, 20..26);
    // Once more, this time after a crash.
    let disk = bench.disk.clone();
    drop(bench);
    disk.crash();
    let mut bench = start(disk);
    let log = bench.find(1);
    let now = bench.now;
    bench.store().set_config(now, log, config());
    assert!(!bench.disk.exists(&file("index")));
    fill(&mut bench, log, 26..120);
    check_against_walk(&bench.disk);
    let counters = bench.stores[0].counters();
    assert_eq!(counters.indexes_rebuilt, 1, "the others never left memory");
    check(&mut bench, log, "reopened");
    assert_eq!(bench.stores[0].counters().indexes_rebuilt, 1);
    let in_memory = |bench: &Bench| {
        let partition = bench.stores[0].log(log).expect("a log");
        let segments = partition.segments.iter().filter(|s| s.image.finished);
        segments
            .filter(|s| s.index.is_some() || s.earlier.is_some())
            .count()
    };
    assert_eq!(in_memory(&bench), 0, "files say it");
}

/// Index files are hints: what is missing, torn or of another segment leads to the same answers, and is
/// written anew.
#[test]
fn wrong_index_files_mislead_nobody() {
    let mut bench = start(SimDisk::new(1));
    let log = bench.create("t", 1, config());
    fill(&mut bench, log, 0..120);
    let disk = bench.shut_down();
    let good = walked(&disk);
    assert!(good.offset_entries().len() > 10);
    let (offsets, times) = (good.offset_index_bytes(), good.time_index_bytes());
    let shifted: Vec<u8> = offsets
        .chunks(OFFSET_ENTRY_BYTES)
        .flat_map(|entry| {
            let mut entry = entry.to_vec();
            entry[7] ^= 1;
            entry
        })
        .collect();
    let one_later: Vec<u8> = offsets
        .chunks(OFFSET_ENTRY_BYTES)
        .flat_map(|entry| {
            // The batch is there, but it is not the one that the entry names.
            let mut entry = entry.to_vec();
            entry[3] -= 1;
            entry
        })
        .collect();
    let zeros = vec![0; offsets.len()];
    /// What is wrong, and what the two files hold instead.
    type Case<'a> = (&'a str, Option<&'a [u8]>, Option<&'a [u8]>);
    let cases: [Case<'_>; 8] = [
        ("missing", None, None),
        ("no times", Some(offsets), None),
        ("torn", Some(&offsets[..offsets.len() - 3]), Some(times)),
        ("zeros", Some(&zeros), Some(times)),
        ("between batches", Some(&shifted), Some(times)),
        ("another batch", Some(&one_later), Some(times)),
        ("times end early", Some(offsets), Some(&times[..24])),
        ("times begin late", Some(offsets), Some(&times[12..])),
    ];
    for (what, offsets_there, times_there) in cases {
        let mut bench = start(disk.clone());
        let (log, now) = (bench.find(1), bench.now);
        bench.store().set_config(now, log, config());
        for (extension, bytes) in [("index", offsets_there), ("timeindex", times_there)] {
            let path = file(extension);
            block_on(async {
                let _ = bench.disk.remove_file(&path).await;
                if let Some(bytes) = bytes {
                    write_plain(&bench.disk, &path, bytes).await.expect(what);
                }
            });
        }
        check(&mut bench, log, what);
        bench.pass(1_000);
        check(&mut bench, log, what);
        let there = (
            bench.disk.contents(&file("index")),
            bench.disk.contents(&file("timeindex")),
        );
        // An index with fewer entries is none that misleads.
        if what != "times begin late" {
            assert_eq!(there.0.as_deref(), Some(offsets), "{what}");
            assert_eq!(there.1.as_deref(), Some(times), "{what}");
        }
        drop(bench.shut_down());
    }
}
