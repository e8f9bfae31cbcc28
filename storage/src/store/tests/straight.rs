//! Tests of straight writes: that a stream is written once, and what of it a crash leaves.

use super::*;

/// From how many bytes a write goes straight here.
const STRAIGHT_BYTES: u64 = 16 << 10;

fn streaming_on(disk: SimDisk) -> Bench {
    let recovered = recover(&disk);
    assert!(recovered.offline.is_empty(), "{:?}", recovered.offline);
    Bench::start_with(disk, recovered, |config| {
        config.straight_bytes_min = STRAIGHT_BYTES;
        config.dirty_bytes_max = 1 << 20;
    })
}

/// A log, and what was appended to it.
struct Stream {
    log: LogId,
    expected: Vec<Vec<u8>>,
}

impl Stream {
    fn open(bench: &mut Bench, name: &str, id: u128, config: LogConfig) -> Stream {
        Stream {
            log: bench.create(name, id, config),
            expected: Vec::new(),
        }
    }

    /// Appends a batch of about `bytes`; false if there is no room.
    fn append(&mut self, bench: &mut Bench, bytes: usize) -> bool {
        let number = self.expected.len();
        let batch = batch_of(&vec![number as u8; bytes], 1 + number as i64);
        if bench.append(self.log, &batch).is_err() {
            return false;
        }
        self.expected.push(stamped(batch, number as i64));
        true
    }

    /// Turns of four batches each.
    fn turns(&mut self, bench: &mut Bench, turns: usize, bytes: usize) {
        for _ in 0..turns {
            for _ in 0..4 {
                while !self.append(bench, bytes) {
                    bench.pass(100);
                }
            }
            bench.run();
        }
    }

    /// What the first batches are together.
    fn bytes(&self, count: usize) -> Vec<u8> {
        self.expected[..count].concat()
    }

    /// Checks that the log holds a first part of what was appended, at least `count` batches.
    fn check(&self, bench: &mut Bench, id: u128, count: usize) {
        let log = bench.find(id);
        let end = bench.stores[0].log_end(log).expect("a log").0 as usize;
        assert!(
            (count..=self.expected.len()).contains(&end),
            "{end}, {count}"
        );
        assert!(bench.read_all(log) == self.bytes(end), "other bytes");
    }
}

fn segment_path(name: &str) -> PathBuf {
    Path::new(DIR).join(format!("{name}-0/00000000000000000000.log"))
}

/// No byte of a large stream is written twice, and the newest are read from where they were copied.
#[test]
fn a_stream_is_written_once() {
    let mut bench = streaming_on(SimDisk::new(1));
    let mut stream = Stream::open(&mut bench, "t", 1, LogConfig::default());
    stream.turns(&mut bench, 10, 9_000);
    let before = bench.stores[0].counters();
    stream.turns(&mut bench, 40, 9_000);
    let after = bench.stores[0].counters();
    let appended = after.appended_bytes - before.appended_bytes;
    let journaled = after.journal_bytes - before.journal_bytes;
    let straight = after.straight_bytes - before.straight_bytes;
    assert!(straight > appended * 9 / 10, "{straight} of {appended}");
    // Two blocks of the journal for each turn: header, reference, tail.
    assert!(journaled <= 40 * 8192, "{journaled} beside {appended}");
    let copied = after.write_back_bytes_copied - before.write_back_bytes_copied;
    assert!(copied <= 40 * 8192, "{copied} copied twice");
    let end = stream.expected.len();
    stream.check(&mut bench, 1, end);
    let mut bench = streaming_on(bench.shut_down());
    stream.check(&mut bench, 1, end);
    // The stream goes on where it ended, behind a tail block that was settled.
    stream.log = bench.find(1);
    stream.turns(&mut bench, 20, 9_000);
    assert!(bench.stores[0].counters().straight_writes > 5);
    let disk = bench.disk.clone();
    drop(bench);
    disk.crash();
    let mut bench = streaming_on(disk);
    let end = stream.expected.len();
    stream.check(&mut bench, 1, end);
}

/// Rules 2, 4 and 13: wherever the power fails, what was acknowledged is there, and of the rest a first
/// part.
#[test]
fn a_power_cut_in_a_straight_write_takes_nothing_acknowledged() {
    let mut cut = 0;
    for seed in 0..60 {
        let mut bench = streaming_on(SimDisk::new(seed));
        let mut stream = Stream::open(&mut bench, "t", 1, LogConfig::default());
        stream.turns(&mut bench, 10 + seed as usize % 5, 7_000);
        for _ in 0..2 {
            for _ in 0..4 {
                stream.append(&mut bench, 5_000 + seed as usize * 97);
            }
            let now = bench.now;
            bench.store().end_turn(now);
            bench.executor.take_actions(0, &mut bench.stores[0]);
            for _ in 0..seed % 45 {
                bench.executor.step(now, &mut bench.rng, &mut bench.stores);
            }
        }
        assert!(bench.stores[0].counters().straight_writes > 3);
        let acked = bench.stores[0].durable_end(stream.log).expect("a log").0 as usize;
        let disk = bench.disk.clone();
        drop(bench);
        disk.crash();
        let mut bench = streaming_on(disk);
        stream.check(&mut bench, 1, acked);
        let end = bench.stores[0].log_end(bench.find(1)).expect("a log").0;
        cut += usize::from((end as usize) < stream.expected.len());
    }
    assert!((1..60).contains(&cut), "{cut} were cut: all or none");
}

/// Rule 4: a reference that nothing confirms and that does not check ends its log there, and no other.
#[test]
fn a_reference_that_does_not_check_ends_its_log_only() {
    let mut bench = streaming_on(SimDisk::new(7));
    let mut stream = Stream::open(&mut bench, "t", 1, LogConfig::default());
    let mut other = Stream::open(&mut bench, "u", 2, LogConfig::default());
    stream.turns(&mut bench, 12, 9_000);
    let before = stream.expected.len();
    let straight = bench.stores[0].counters().straight_writes;
    for _ in 0..4 {
        assert!(stream.append(&mut bench, 9_000));
    }
    assert!(other.append(&mut bench, 100));
    bench.run();
    assert_eq!(bench.stores[0].counters().straight_writes, straight + 1);
    let disk = bench.disk.clone();
    drop(bench);
    // Within the last batch but one.
    let position = stream.bytes(stream.expected.len() - 2).len() + 500;
    disk.rot(&segment_path("t"), position);
    let mut bench = streaming_on(disk);
    assert_eq!(
        bench.stores[0].log_end(bench.find(1)),
        Some(Offset(before as i64))
    );
    stream.check(&mut bench, 1, before);
    other.check(&mut bench, 2, 1);
    // The log goes on from there.
    stream.expected.truncate(before);
    stream.log = bench.find(1);
    stream.turns(&mut bench, 12, 9_000);
    let end = stream.expected.len();
    stream.check(&mut bench, 1, end);
}

/// Rule 4: what the journal confirms is not read again at a start; a batch that rotted is not served.
#[test]
fn a_confirmed_reference_is_not_checked() {
    let mut bench = streaming_on(SimDisk::new(7));
    let mut stream = Stream::open(&mut bench, "t", 1, LogConfig::default());
    let mut other = Stream::open(&mut bench, "u", 2, LogConfig::default());
    stream.turns(&mut bench, 12, 9_000);
    other.turns(&mut bench, 1, 100);
    let disk = bench.disk.clone();
    drop(bench);
    let position = stream.bytes(stream.expected.len() - 2).len() + 500;
    disk.rot(&segment_path("t"), position);
    let mut bench = streaming_on(disk);
    let log = bench.find(1);
    let end = stream.expected.len() as i64;
    assert_eq!(bench.stores[0].log_end(log), Some(Offset(end)));
    let now = bench.now;
    let read = bench
        .store()
        .read(now, log, Offset(end - 2), 1, true, Offset(end));
    let Read::Disk(ticket) = read else {
        panic!("only the last batch is in memory");
    };
    bench.run();
    assert!(bench.notices.iter().any(|n| matches!(
        n,
        Notice::ReadDone { ticket: t, result: Err(ReadError::Corrupt) } if *t == ticket
    )));
}

/// Straight writes end with their segment; closed ones hold exactly their batches.
#[test]
fn a_stream_rolls_over_segments() {
    let mut bench = streaming_on(SimDisk::new(3));
    let config = LogConfig {
        segment_bytes: 200_000,
        ..LogConfig::default()
    };
    let mut stream = Stream::open(&mut bench, "t", 1, config);
    stream.turns(&mut bench, 60, 9_000);
    assert!(bench.stores[0].counters().straight_writes > 20);
    let first = bench.disk.contents(&segment_path("t")).expect("the first");
    assert!(first.len() > 190_000 && first.len() <= 200_000);
    assert!(first[..] == stream.bytes(stream.expected.len())[..first.len()]);
    let end = stream.expected.len();
    stream.check(&mut bench, 1, end);
    let disk = bench.disk.clone();
    drop(bench);
    disk.crash();
    let mut bench = streaming_on(disk);
    stream.check(&mut bench, 1, end);
    bench.shut_down();
}

/// Rule 9: with flush.messages above 1 the write acknowledges; a killed process loses nothing of it, and
/// the flush that follows covers the segment.
#[test]
fn a_stream_is_acknowledged_after_its_write() {
    let mut bench = streaming_on(SimDisk::new(5));
    let config = LogConfig {
        flush_messages: 1_000,
        ..LogConfig::default()
    };
    let mut stream = Stream::open(&mut bench, "t", 1, config);
    stream.turns(&mut bench, 12, 9_000);
    // It streams once what was written before is flushed.
    bench.pass(2_000);
    stream.turns(&mut bench, 30, 9_000);
    let straight = bench.stores[0].counters().straight_writes;
    assert!(straight > 5, "{straight}");
    let end = stream.expected.len();
    let marks = bench.stores[0].dirs[0].journal.marks();
    assert!(marks.durable < marks.written);
    assert_eq!(
        bench.stores[0].durable_end(stream.log),
        Some(Offset(end as i64))
    );
    let killed = bench.disk.clone();
    drop(bench);
    killed.process_crash();
    let mut bench = streaming_on(killed);
    stream.check(&mut bench, 1, end);
    stream.log = bench.find(1);
    let config = LogConfig {
        flush_messages: 1_000,
        ..LogConfig::default()
    };
    let now = bench.now;
    let log = stream.log;
    bench.store().set_config(now, log, config);
    stream.turns(&mut bench, 12, 9_000);
    bench.pass(1_500);
    let end = stream.expected.len();
    let disk = bench.disk.clone();
    drop(bench);
    disk.crash();
    let mut bench = streaming_on(disk);
    stream.check(&mut bench, 1, end);
}

/// Rule 11: a disk that fills up under a stream has room for all that was acknowledged.
#[test]
fn a_stream_fills_the_disk_and_loses_nothing() {
    let disk = SimDisk::new(9);
    disk.set_faults(|faults| faults.capacity_bytes = 24 << 20);
    let mut bench = streaming_on(disk.clone());
    let mut stream = Stream::open(&mut bench, "t", 1, LogConfig::default());
    let mut refused = 0;
    while refused < 40 && stream.expected.len() < 10_000 {
        let mut taken = false;
        for _ in 0..4 {
            taken |= stream.append(&mut bench, 9_000);
        }
        bench.run();
        if !taken {
            refused += 1;
            bench.pass(5_000);
        }
    }
    assert_eq!(refused, 40);
    assert!(bench.stores[0].counters().straight_writes > 50);
    let end = stream.expected.len();
    stream.check(&mut bench, 1, end);
    let now = bench.now;
    disk.crash();
    drop(bench);
    disk.set_faults(|faults| faults.capacity_bytes = u64::MAX);
    let mut bench = streaming_on(disk);
    bench.now = now;
    stream.check(&mut bench, 1, end);
    bench.shut_down();
}

/// Rule 3: a checkpoint that covers a reference and does not know its log says that the log was deleted,
/// whatever checkpoints of earlier starts say of it.
#[test]
fn a_stream_deleted_before_a_checkpoint_stays_deleted() {
    let start = |disk: SimDisk| {
        let recovered = recover(&disk);
        assert!(recovered.offline.is_empty(), "{:?}", recovered.offline);
        Bench::start_with(disk, recovered, |config| {
            config.straight_bytes_min = STRAIGHT_BYTES;
            config.dirty_bytes_max = 1 << 20;
            config.checkpoint_ms = 100;
            // What the other log brings stays in the journal, and so do the references behind it.
            config.settle_idle_ms = 1 << 30;
        })
    };
    let mut bench = start(SimDisk::new(1));
    let mut stream = Stream::open(&mut bench, "t", 1, LogConfig::default());
    let mut other = Stream::open(&mut bench, "u", 2, LogConfig::default());
    stream.turns(&mut bench, 1, 9_000);
    other.append(&mut bench, 100);
    bench.pass(1_000);
    let disk = bench.disk.clone();
    drop(bench);
    disk.process_crash();
    // The journal and the checkpoint of the first start are there to the end.
    let mut bench = start(disk);
    stream.log = bench.find(1);
    stream.turns(&mut bench, 20, 9_000);
    assert!(bench.stores[0].counters().straight_writes > 5);
    let now = bench.now;
    bench.store().delete_partition(now, stream.log);
    bench.run();
    let before = bench.stores[0].counters().checkpoints;
    bench.pass(1_000);
    assert!(bench.stores[0].counters().checkpoints > before);
    let disk = bench.disk.clone();
    drop(bench);
    disk.crash();
    let mut bench = start(disk);
    assert_eq!(bench.stores[0].find(TopicId::from_u128(1), 0), None);
    other.check(&mut bench, 2, 1);
}
