//! Runs of the simulation, and what it must not overlook.

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
        sum.flushed_together += report.flushed_together;
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
    assert!(sum.flushed_together > 200, "{sum:?}");
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
