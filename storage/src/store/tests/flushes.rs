//! Tests of flushing many segments as one: that it is done, what it may not be done for, and what is
//! there after a power cut.

use super::*;
use crate::disk::{Disk, OpenMode};

const LOGS: u128 = 40;

fn many_on(disk: SimDisk) -> (Bench, Vec<LogId>) {
    let recovered = recover(&disk);
    let mut bench = Bench::start(disk, recovered);
    let logs = (1..=LOGS)
        .map(|id| bench.create(&format!("t{id}"), id, LogConfig::default()))
        .collect();
    (bench, logs)
}

/// Appends to all logs in turn, so much that the journal must free files; what each then holds.
fn fill(bench: &mut Bench, logs: &[LogId], rounds: usize) -> Vec<u8> {
    let mut expected = Vec::new();
    for round in 0..rounds {
        let batch = batch_of(&[round as u8; 1_500], 1 + round as i64);
        for log in logs {
            while bench.append(*log, &batch) == Err(AppendError::Busy) {
                bench.pass(100);
            }
        }
        bench.run();
        assert!(bench.stores[0].gauges().journal_files <= 8);
        expected.extend(stamped(batch, round as i64));
    }
    expected
}

#[test]
fn many_segments_are_flushed_as_one_and_survive_a_power_cut() {
    let (mut bench, logs) = many_on(SimDisk::new(1));
    let expected = fill(&mut bench, &logs, 200);
    let together = bench.stores[0].counters().flushed_together;
    assert!(together >= 100, "{together}");
    let disk = bench.disk.clone();
    drop(bench);
    disk.crash();
    let mut bench = Bench::on(disk);
    for id in 1..=LOGS {
        let log = bench.find(id);
        assert_eq!(bench.read_all(log), expected);
    }
}

#[test]
fn where_a_file_system_cannot_be_flushed_its_files_are() {
    let disk = SimDisk::new(1);
    disk.set_faults(|faults| faults.no_sync_all = true);
    let (mut bench, logs) = many_on(disk);
    let expected = fill(&mut bench, &logs, 200);
    assert_eq!(bench.stores[0].counters().flushed_together, 0);
    let disk = bench.disk.clone();
    drop(bench);
    disk.crash();
    let mut bench = Bench::on(disk);
    for id in 1..=LOGS {
        let log = bench.find(id);
        assert_eq!(bench.read_all(log), expected);
    }
}

/// A clean stop flushes the tails of all logs, and nothing is left to replay.
#[test]
fn a_stop_flushes_what_waits() {
    let (mut bench, logs) = many_on(SimDisk::new(2));
    let expected = fill(&mut bench, &logs, 3);
    let disk = bench.shut_down();
    disk.crash();
    let recovered = recover(&disk);
    assert!(!recovered.unclean);
    assert_eq!(recovered.dirty_bytes, 0);
    let mut bench = Bench::start(disk, recovered);
    for id in 1..=LOGS {
        let log = bench.find(id);
        assert_eq!(bench.read_all(log), expected);
    }
}

/// A failed flush of the file system says of no segment that it is safe: the directory goes offline, and
/// after a restart everything is there.
#[test]
fn a_failed_flush_takes_the_directory_offline() {
    let (mut bench, logs) = many_on(SimDisk::new(1));
    let (disk, other) = (bench.disk.clone(), Path::new(DIR).join("other"));
    // Only a flush of everything comes across this file.
    block_on(disk.open(&other, OpenMode::Create)).expect("made");
    disk.set_faults(|faults| faults.broken = Some(String::from("other")));
    let batch = batch_of(&[7; 1_500], 1);
    let mut acknowledged = Vec::new();
    'full: loop {
        for log in &logs {
            match bench.append(*log, &batch) {
                Ok(_) => {}
                Err(AppendError::Offline) => break 'full,
                Err(AppendError::Busy) => bench.pass(100),
                Err(error) => panic!("{error:?}"),
            }
        }
        bench.run();
        let ends = logs.iter().map(|log| bench.stores[0].durable_end(*log));
        acknowledged = ends.map(|end| end.expect("a log").0).collect();
    }
    assert_eq!(bench.stores[0].counters().flushed_together, 0);
    let offline = |notice: &Notice| matches!(notice, Notice::DirOffline { dir: 0, why } if why.contains("flushed"));
    assert!(bench.notices.iter().any(offline), "{:?}", bench.notices);
    drop(bench);
    disk.crash();
    disk.set_faults(|faults| faults.broken = None);
    // The cut may have taken it already.
    let _ = block_on(disk.remove_file(&other));
    let mut bench = Bench::on(disk);
    for (id, end) in (1..=LOGS).zip(acknowledged) {
        let log = bench.find(id);
        assert!(end > 0);
        assert!(bench.read_all(log).len() as i64 >= end * batch.len() as i64);
    }
}

/// A log that is deleted while its segment waits for the flush goes when the flush has ended.
#[test]
fn a_log_deleted_during_the_flush_is_removed() {
    for seed in 1..20 {
        let disk = SimDisk::new(seed);
        disk.set_faults(|faults| faults.delay_polls_max = 40);
        let (mut bench, logs) = many_on(disk);
        fill(&mut bench, &logs, 60);
        let batch = batch_of(&[9; 1_500], 100);
        // Until something waits for a flush or is being flushed.
        while !logs
            .iter()
            .any(|log| bench.stores[0].log(*log).is_some_and(|log| log.busy))
        {
            for log in &logs {
                let _ = bench.append(*log, &batch);
            }
            let now = bench.now;
            bench.stores[0].end_turn(now);
            bench.executor.take_actions(0, &mut bench.stores[0]);
            for _ in 0..50 {
                bench.executor.step(now, &mut bench.rng, &mut bench.stores);
            }
        }
        for log in &logs {
            let now = bench.now;
            bench.store().delete_partition(now, *log);
        }
        bench.run();
        bench.pass(61_000);
        for id in 1..=LOGS {
            let dir = Path::new(DIR).join(format!("t{id}-0"));
            assert!(!bench.disk.exists(&dir), "seed {seed}");
        }
        bench.shut_down();
    }
}

/// Rule 12: a partition's directory and file are there, durably, before anything is written back.
#[test]
fn a_new_partitions_file_is_made_ahead() {
    let (mut bench, _) = many_on(SimDisk::new(1));
    bench.pass(100);
    let disk = bench.disk.clone();
    drop(bench);
    disk.crash();
    for id in 1..=LOGS {
        let dir = Path::new(DIR).join(format!("t{id}-0"));
        assert_eq!(
            disk.contents(&dir.join(crate::segment::file_name(Offset(0), "log"))),
            Some(Vec::new())
        );
        let metadata = disk.contents(&dir.join("partition.metadata"));
        let text = crate::tasks::partition_metadata(TopicId::from_u128(id));
        assert_eq!(metadata, Some(text.into_bytes()));
    }
}

/// A process that is killed before the flush of the file system leaves metadata that reads right and is not
/// durable: what relies on it flushes it first.
#[test]
fn metadata_that_a_killed_process_left_is_made_durable() {
    for seed in 1..20 {
        let mut bench = Bench::on(SimDisk::new(seed));
        let disk = bench.disk.clone();
        let text = crate::tasks::partition_metadata(TopicId::from_u128(1));
        block_on(async {
            let dir = Path::new(DIR).join("t-0");
            disk.create_dir_all(&dir).await?;
            let metadata = dir.join("partition.metadata");
            let file = disk.open(&metadata, OpenMode::Create).await?;
            let mut block = ring::buf::AlignedBuf::zeroed(text.len());
            block[..text.len()].copy_from_slice(text.as_bytes());
            disk.write_at(&file, 0, block.freeze()).await?;
            disk.truncate(&file, text.len() as u64).await
        })
        .expect("made");
        let small = LogConfig {
            segment_bytes: 4_096,
            ..LogConfig::default()
        };
        let batch = batch_of(&[7; 1_500], 1);
        let log = bench.create("t", 1, small.clone());
        bench.append(log, &batch).expect("admitted");
        bench.run();
        let disk = bench.shut_down();
        disk.crash();
        // The next segment finds the directory as the cut has left it.
        let mut bench = Bench::on(disk);
        let log = bench.create("t", 1, small);
        let mut expected = stamped(batch.clone(), 0);
        for offset in 1..6 {
            bench.append(log, &batch).expect("admitted");
            expected.extend(stamped(batch.clone(), offset));
            bench.run();
        }
        let mut bench = Bench::on(bench.shut_down());
        let log = bench.find(1);
        assert_eq!(bench.read_all(log), expected, "seed {seed}");
    }
}

/// Write-back is bounded by what the device is given at once: many small pieces, few large ones.
#[test]
fn small_pieces_are_written_many_at_once_and_large_ones_are_not() {
    let disk = SimDisk::new(1);
    let recovered = recover(&disk);
    let mut bench = Bench::start_with(disk, recovered, |config| {
        // Only what is asked for here is written.
        config.settle_idle_ms = u64::MAX / 2;
        config.write_back_ms = u64::MAX / 2_000;
        config.journal_file_bytes = 4 << 20;
    });
    let logs: Vec<LogId> = (1..=LOGS)
        .map(|id| bench.create(&format!("t{id}"), id, LogConfig::default()))
        .collect();
    let write_backs = |store: &Store| {
        let is_one = |action: &&StoreAction| matches!(action, StoreAction::Spawn(task) if matches!(task.job, Job::WriteBack(_)));
        store.actions.iter().filter(is_one).count()
    };
    let append_to = |bench: &mut Bench, count: usize, bytes: usize| {
        for log in &logs[..count] {
            let batch = batch_of(&vec![7; bytes], 1);
            bench.append(*log, &batch).expect("room");
            bench.run();
        }
        for log in &logs[..count] {
            bench.store().want_write_back(*log, false);
        }
    };
    // The first piece of each may have to make its file, which is done alone.
    append_to(&mut bench, logs.len(), 6_000);
    bench.run();
    for (bytes, count, at_once) in [(6_000, 40, 16), (50_000, 8, 5), (100_000, 8, 1)] {
        append_to(&mut bench, count, bytes);
        let now = bench.now;
        let store = bench.store();
        store.run_write_back(now);
        assert_eq!(write_backs(store), at_once, "{bytes} bytes each");
        bench.run();
        let idle = |log: &LogId| !bench.stores[0].log(*log).expect("a log").has_work(false);
        assert!(logs.iter().all(idle));
    }
}
