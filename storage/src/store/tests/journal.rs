//! Tests of the journal under a store: what ends it, what bounds it, when it is flushed.

use super::*;
use crate::segment::BLOCK;

/// Rule 1: rot in the middle of the journal is not taken for its end.
#[test]
fn a_hole_in_the_journal_takes_the_directory_offline() {
    let mut bench = Bench::new();
    let log = bench.create("t", 1, LogConfig::default());
    for value in [b"a", b"b", b"c", b"d"] {
        let batch = batch_of(value, 1);
        bench.append(log, &batch).expect("admitted");
        bench.run();
    }
    let Bench { disk, stores, .. } = bench;
    let path = Path::new(DIR).join(".millrace/journal/0000000000000001-0000-00000000.jnl");
    drop(stores);
    // The creation is the first write, behind the file's head; the appends are blocks 2 to 5. Harm the
    // second append.
    disk.rot(&path, 3 * 4096 + 200);
    let recovered = recover(&disk);
    assert_eq!(recovered.offline.len(), 1, "{recovered:?}");
    assert!(
        recovered.offline[0]
            .1
            .contains("acknowledged data is missing")
    );
}

/// Rule 1: a torn last write is the end, and what it held was never acknowledged.
#[test]
fn a_torn_end_is_cut() {
    let mut bench = Bench::new();
    let log = bench.create("t", 1, LogConfig::default());
    for value in [b"a", b"b"] {
        let batch = batch_of(value, 1);
        bench.append(log, &batch).expect("admitted");
        bench.run();
    }
    let disk = bench.disk.clone();
    drop(bench);
    let path = Path::new(DIR).join(".millrace/journal/0000000000000001-0000-00000000.jnl");
    disk.rot(&path, 3 * 4096 + 200);
    let mut bench = Bench::on(disk);
    let log = bench.find(1);
    assert_eq!(bench.read_all(log), stamped(batch_of(b"a", 1), 0));
}

/// Rule 1: a journal whose first block rotted says so; its writes are not passed over.
#[test]
fn a_journal_without_its_head_takes_the_directory_offline() {
    let mut bench = Bench::new();
    let log = bench.create("t", 1, LogConfig::default());
    bench.append(log, &batch_of(b"a", 1)).expect("admitted");
    bench.run();
    let disk = bench.disk.clone();
    drop(bench);
    let path = Path::new(DIR).join(".millrace/journal/0000000000000001-0000-00000000.jnl");
    disk.rot(&path, 17);
    let recovered = recover(&disk);
    assert_eq!(recovered.offline.len(), 1, "{recovered:?}");
    assert!(recovered.offline[0].1.contains("is damaged"));
}

/// Rules 6 and 7: however much is written, the journal stays within its files, and a clean stop leaves
/// nothing to replay.
#[test]
fn the_journal_is_bounded_and_a_clean_stop_replays_nothing() {
    let mut bench = Bench::new();
    let log = bench.create("t", 1, LogConfig::default());
    let batch = batch_of(&[5; 20_000], 1);
    for _ in 0..400 {
        while bench.append(log, &batch) == Err(AppendError::Busy) {
            bench.pass(100);
        }
        bench.run();
        assert!(bench.stores[0].gauges().journal_files <= 8);
    }
    let disk = bench.shut_down();
    disk.crash();
    let recovered = recover(&disk);
    assert!(!recovered.unclean);
    assert_eq!(recovered.dirty_bytes, 0);
    let mut bench = Bench::start(disk, recovered);
    let log = bench.find(1);
    assert_eq!(bench.read_all(log).len(), 400 * batch.len());
}

/// Freeing journal files flushes whole blocks of a busy log and leaves its tail block, which is young,
/// to the journal: written, it would have to be journaled again.
#[test]
fn a_busy_logs_tail_block_stays_in_the_journal() {
    let mut bench = Bench::new();
    let log = bench.create("t", 1, LogConfig::default());
    let checkpoints = bench.stores[0].counters().checkpoints;
    let batch = batch_of(&[5; 300], 1);
    for _ in 0..1_000 {
        assert!(bench.append(log, &batch).is_ok());
        bench.run();
    }
    assert!(bench.stores[0].counters().checkpoints > checkpoints + 1);
    let segment = bench.stores[0].log(log).expect("it lives").active();
    assert!(segment.written > 0);
    assert_eq!(segment.written % BLOCK, 0);
    assert_eq!(segment.head_sequence, None, "a tail block was journaled");
}

/// A log that grows as fast as it is written is never written to its end: what keeps the oldest journal
/// files is flushed all the same, and nobody waits for room.
#[test]
fn a_log_that_write_back_never_catches_up_with_does_not_hold_the_journal() {
    let disk = SimDisk::new(1);
    let recovered = recover(&disk);
    let mut bench = Bench::start_with(disk, recovered, |config| {
        config.journal_file_bytes = 2 << 20;
        config.dirty_bytes_max = 8 << 20;
        config.reserve_bytes = 256 << 20;
    });
    let log = bench.create("t", 1, LogConfig::default());
    let batch = batch_of(&[5; 20_000], 1);
    let (mut taken, mut idle) = (0, false);
    while taken < 3_000 {
        // While it is written there is always more to write than one write takes.
        let more = |store: &Store| {
            let unwritten_bytes = store.log(log).expect("a log").unwritten_bytes();
            store.dirs[0].journal.backlog_bytes() < 512 << 10 && (idle || unwritten_bytes < 4 << 20)
        };
        while more(&bench.stores[0]) {
            bench.append(log, &batch).expect("there is room");
            taken += 1;
        }
        let now = bench.now;
        bench.stores[0].end_turn(now);
        let Bench {
            executor,
            rng,
            stores,
            ..
        } = &mut bench;
        executor.take_actions(0, &mut stores[0]);
        idle = !executor.step(now, rng, stores);
    }
    assert!(bench.stores[0].gauges().journal_files <= 8);
    bench.run();
    let disk = bench.disk.clone();
    drop(bench);
    disk.crash();
    let mut bench = Bench::on(disk);
    let log = bench.find(1);
    assert_eq!(bench.read_all(log).len(), taken * batch.len());
}

/// A log with nothing but an old tail block has no whole block to flush: the tail is written then, and
/// the journal goes on without anybody's tick.
#[test]
fn a_quiet_logs_tail_block_does_not_hold_the_journal() {
    let mut bench = Bench::new();
    let quiet = bench.create("quiet", 1, LogConfig::default());
    let busy = bench.create("busy", 2, LogConfig::default());
    let batch = batch_of(&[5; 300], 1);
    assert!(bench.append(quiet, &batch).is_ok());
    bench.run();
    for _ in 0..2_000 {
        assert!(bench.append(busy, &batch).is_ok());
        bench.run();
        assert!(bench.stores[0].gauges().journal_files <= 8);
    }
    let quiet = bench.stores[0].log(quiet).expect("it lives");
    assert_eq!(quiet.pinned_sequence(), None);
}

/// A broken disk takes its directory offline; nothing more is acknowledged, safe data is still read.
#[test]
fn a_broken_journal_takes_the_directory_offline() {
    let mut bench = Bench::new();
    let log = bench.create("t", 1, LogConfig::default());
    let batch = batch_of(b"safe", 1);
    bench.append(log, &batch).expect("admitted");
    bench.run();
    bench
        .disk
        .set_faults(|faults| faults.broken = Some(String::from("journal")));
    bench.append(log, &batch).expect("admitted");
    bench.run();
    assert!(
        bench
            .notices
            .iter()
            .any(|n| matches!(n, Notice::DirOffline { dir: 0, .. }))
    );
    assert_eq!(bench.stores[0].durable_end(log), Some(Offset(1)));
    assert_eq!(bench.append(log, &batch), Err(AppendError::Offline));
    assert_eq!(bench.read_all(log), stamped(batch, 0));
}

/// Rule 9: with flush.messages above 1 the write alone acknowledges, and a flush follows.
#[test]
fn flush_messages_acknowledges_after_the_write_and_flushes_within_a_second() {
    let mut bench = Bench::new();
    let config = LogConfig {
        flush_messages: 1_000,
        ..LogConfig::default()
    };
    let log = bench.create("t", 1, config);
    let batch = batch_of(b"x", 1);
    bench.append(log, &batch).expect("admitted");
    bench.run();
    assert_eq!(bench.stores[0].durable_end(log), Some(Offset(1)));
    let marks = bench.stores[0].dirs[0].journal.marks();
    assert!(marks.durable < marks.written);
    bench.pass(1_200);
    let marks = bench.stores[0].dirs[0].journal.marks();
    assert_eq!(marks.durable, marks.written);
}

/// What is gathered while an earlier flush is asked for keeps its own time, and is not late.
#[test]
fn what_a_flush_does_not_cover_is_flushed_in_its_own_time() {
    let mut bench = Bench::new();
    let config = LogConfig {
        flush_messages: 1_000,
        flush_ms: Some(500),
        ..LogConfig::default()
    };
    let log = bench.create("t", 1, config);
    bench.append(log, &batch_of(b"x", 1)).expect("admitted");
    bench.run();
    bench.pass(400);
    bench.append(log, &batch_of(b"y", 2)).expect("admitted");
    bench.now.monotonic_us += 100_000;
    let now = bench.now;
    // The flush of the first begins, and the second is not sealed.
    bench.store().tick(now);
    assert!(bench.stores[0].dirs[0].flushing);
    bench.run();
    let marks = bench.stores[0].dirs[0].journal.marks();
    assert!(marks.durable > 0 && marks.durable < marks.written);
    let due_us = bench.stores[0].next_deadline().expect("a flush");
    assert!(due_us <= now.monotonic_us + 400_000);
    bench.pass(400);
    let marks = bench.stores[0].dirs[0].journal.marks();
    assert_eq!(marks.durable, marks.written);
}
