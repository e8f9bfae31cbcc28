//! Tests of who waits for room: in which order, and that what gives room is looked for at once.

use super::*;

/// A store that looks at what nobody waits for never.
fn bench(count: u128, journal_file_bytes: u64) -> (Bench, Vec<LogId>) {
    let disk = SimDisk::new(1);
    let recovered = recover(&disk);
    let mut bench = Bench::start_with(disk, recovered, |config| {
        config.write_back_ms = 1 << 40;
        config.settle_idle_ms = 1 << 40;
        config.dirty_bytes_max = 100 << 10;
        config.journal_file_bytes = journal_file_bytes;
        config.journal_files_max = 4;
    });
    let logs = (1..=count)
        .map(|id| bench.create(&format!("t{id}"), id, LogConfig::default()))
        .collect();
    (bench, logs)
}

/// One that needs more room than there is comes before small ones that come later, for ever.
#[test]
fn a_large_batch_is_not_held_off_by_small_ones() {
    let (mut bench, logs) = bench(12, 64 << 10);
    let small = batch_of(&[1; 1_000], 1);
    for large_bytes in [20_000, 60_000, 200_000, 1_000_000] {
        let large = batch_of(&vec![2; large_bytes], 1);
        // It is tried when there is said to be room; the others come all the time.
        let mut room = true;
        for round in 0.. {
            assert!(round < 20_000, "{large_bytes} bytes are held off");
            if std::mem::take(&mut room) && bench.append(logs[0], &large).is_ok() {
                break;
            }
            for log in &logs[1..] {
                let _ = bench.append(*log, &small);
            }
            let now = bench.now;
            bench.store().end_turn(now);
            bench.executor.take_actions(0, &mut bench.stores[0]);
            bench.executor.step(now, &mut bench.rng, &mut bench.stores);
            while let Some(notice) = bench.store().poll_notice() {
                room |= matches!(notice, Notice::Room);
            }
        }
    }
}

/// A small batch that comes after one that found no room is not admitted before it, though it would fit.
#[test]
fn nobody_passes_who_waits_for_room() {
    let (mut bench, logs) = bench(3, 1 << 20);
    let (large, small) = (batch_of(&[1; 60_000], 1), batch_of(&[2; 1_000], 1));
    assert!(bench.append(logs[0], &large).is_ok());
    assert!(matches!(
        bench.append(logs[1], &large),
        Err(AppendError::Busy)
    ));
    assert!(matches!(
        bench.append(logs[2], &small),
        Err(AppendError::Busy)
    ));
    // Once there is room it is the first one's turn, and then anybody's.
    bench.run();
    assert!(bench.append(logs[1], &large).is_ok());
    assert!(bench.append(logs[2], &small).is_ok());
}

/// Who waits for room does not wait for a clock: tail blocks of all logs are written at once.
#[test]
fn room_is_made_without_waiting_for_a_tick() {
    let (mut bench, logs) = bench(40, 1 << 20);
    // Together they have more than the memory, and none has a whole block.
    let batch = batch_of(&[1; 3_000], 1);
    let admitted = |bench: &mut Bench, log: &LogId| {
        let admitted = bench.append(*log, &batch).is_ok();
        bench.run();
        admitted
    };
    assert!(!logs.iter().all(|log| admitted(&mut bench, log)));
    assert!(bench.notices.iter().any(|n| matches!(n, Notice::Room)));
}
