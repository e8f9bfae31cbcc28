//! Tests of topics that are deleted and made again under one name, one quickly after another: each has a
//! directory to itself.

use super::*;
use crate::tasks::{FilesWhy, Job};

/// How many topics of one name there are, one after another.
const NAMESAKES: u128 = 6;

/// Lets a random part of what is under way happen.
fn some_steps(bench: &mut Bench, most: u64) {
    let now = bench.now;
    bench.stores[0].end_turn(now);
    bench.executor.take_actions(0, &mut bench.stores[0]);
    for _ in 0..bench.rng.below(most) {
        bench.executor.step(now, &mut bench.rng, &mut bench.stores);
    }
}

/// Writes, flushes, removals of old segments and the renames of directories are under way at once: what is
/// there in the end is the last topic, whole.
#[test]
fn the_directory_of_a_name_is_that_of_its_last_topic() {
    let small = LogConfig {
        segment_bytes: 4_096,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    };
    for seed in 1..80 {
        let disk = SimDisk::new(seed);
        disk.set_faults(|faults| faults.delay_polls_max = 40);
        let mut bench = Bench::on(disk);
        bench.rng = SimRng::new(seed);
        let mut expected = Vec::new();
        for id in 1..=NAMESAKES {
            expected.clear();
            let now = bench.now;
            let log = bench
                .store()
                .create_partition(now, key("t", id), small.clone());
            some_steps(&mut bench, 120);
            let mut start = 0;
            for round in 0..bench.rng.below(12) {
                let batch = batch_of(&[id as u8; 1_500], 1);
                if let Ok(appended) = bench.append(log, &batch) {
                    expected.push(stamped(batch, appended.base_offset.0));
                }
                some_steps(&mut bench, 60);
                let end = bench.stores[0].durable_end(log).expect("a log");
                if round % 4 == 3 && bench.store().delete_records(now, log, end).is_ok() {
                    start = end.0;
                    some_steps(&mut bench, 60);
                }
            }
            expected.drain(..start as usize);
            if id < NAMESAKES {
                bench.store().delete_partition(now, log);
                some_steps(&mut bench, 20);
            }
        }
        bench.run();
        let log = bench.find(NAMESAKES);
        let batch = batch_of(&[7; 100], 1);
        let appended = bench.append(log, &batch).expect("admitted");
        expected.push(stamped(batch, appended.base_offset.0));
        bench.run();
        let disk = bench.shut_down();
        let metadata = disk.contents(&Path::new(DIR).join("t-0").join("partition.metadata"));
        let text = crate::tasks::partition_metadata(TopicId::from_u128(NAMESAKES));
        assert_eq!(metadata, Some(text.into_bytes()), "seed {seed}");
        let mut bench = Bench::on(disk);
        let log = bench.find(NAMESAKES);
        assert_eq!(bench.read_all(log), expected.concat(), "seed {seed}");
    }
}

/// Does everything at once, but for the removal of old segments, which is put off; gives those tasks.
fn run_but_for_cleanups(bench: &mut Bench) -> Vec<StoreTask> {
    let disk = OpenFiles::new(bench.disk.clone(), 16);
    let now = bench.now;
    let mut held = Vec::new();
    bench.store().end_turn(now);
    while let Some(action) = bench.store().poll_action() {
        match action {
            StoreAction::DurableWrite(write) => {
                let (token, result) = block_on(write.run(disk.clone()));
                bench.store().on_write_done(now, token, result);
            }
            StoreAction::Spawn(task) => {
                if matches!(
                    &task.job,
                    Job::Files {
                        why: FilesWhy::Cleanup(_),
                        ..
                    }
                ) {
                    held.push(task);
                } else {
                    let done = block_on(task.run(disk.clone()));
                    bench.store().on_task_done(now, done);
                }
            }
        }
        bench.store().end_turn(now);
    }
    held
}

/// Who renames a partition's old segments by their path must not meet those of the next topic.
#[test]
fn old_segments_that_are_being_renamed_are_not_those_of_the_next_topic() {
    let small = LogConfig {
        segment_bytes: 4_096,
        ..LogConfig::default()
    };
    let mut bench = Bench::new();
    let log = bench.create("t", 1, small.clone());
    for _ in 0..10 {
        bench
            .append(log, &batch_of(&[1; 1_500], 1))
            .expect("admitted");
        bench.run();
    }
    bench.pass(2_000);
    let now = bench.now;
    bench
        .store()
        .delete_records(now, log, Offset(8))
        .expect("there");
    let held = run_but_for_cleanups(&mut bench);
    assert!(!held.is_empty(), "segments are dropped");
    bench.store().delete_partition(now, log);
    run_but_for_cleanups(&mut bench);
    let log = bench.store().create_partition(now, key("t", 2), small);
    run_but_for_cleanups(&mut bench);
    let batch = batch_of(&[2; 6_000], 1);
    bench.append(log, &batch).expect("admitted");
    run_but_for_cleanups(&mut bench);
    for task in held {
        let done = block_on(task.run(bench.disk.clone()));
        bench.store().on_task_done(now, done);
    }
    bench.run();
    let mut bench = Bench::on(bench.shut_down());
    let log = bench.find(2);
    assert_eq!(bench.read_all(log), stamped(batch, 0));
}
