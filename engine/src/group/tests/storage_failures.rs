//! Transcripts of answers that wait for their records, and of records that never become durable.

use super::super::coordinator::GroupConfig;
use super::script::Script;

#[track_caller]
fn check(transcript: &str) {
    Script::check(GroupConfig::default(), transcript);
}

/// A change takes effect at once, but nobody hears of it before it is durable.
#[test]
fn answers_and_reads_wait_for_the_records() {
    check(
        "> hold
         > a commit t-0=1
         > a commit t-0=2
         > f fetch t-0
         > d describe
         > l list
         > x list states=Stable
         > release
         log: g t-0=1
         log: g t-0=2
         a: 0
         a: 0
         f: offsets t-0=2/3
         d: error 0 Empty '' ''
         l: error 0 [g Empty  classic]
         x: error 0",
    );
}

#[test]
fn an_assignment_is_told_when_it_is_durable() {
    check(
        "> a join v=3
         log: g generation 0 - leader -
         > wait 3000
         a: generation 1 consumer range leader c.1 as c.1 c.1:t
         > hold
         > a sync c.1 1 c.1=A
         > a beat c.1 1
         > release
         log: g generation 1 range leader c.1 c.1=A
         a: consumer range 'A'
         a: error 0",
    );
}

/// What could not be stored is forgotten: the callers are told, and the log is read again.
#[test]
fn a_failed_append_rebuilds_the_partition() {
    check(
        "> a commit t-0=1
         log: g t-0=1
         a: 0
         > hold
         > a commit t-0=2
         > a join v=3
         > f fetch t-0
         > fail storage
         a: error 16
         f: error 16
         a: error 16 as c.1
         > f fetch t-0
         f: error 16
         > load
         > f fetch t-0
         f: error 14
         > f beat c.1 1
         f: error 0
         > l list
         l: error 14
         > loaded
         > f fetch t-0
         f: offsets t-0=1/3
         > hold
         > a commit t-0=3
         > fail unavailable
         a: error 15",
    );
}

/// A stop answers who waits, stores what was decided, and leaves the group as it was for the restart.
#[test]
fn a_stop_answers_who_waits_and_changes_no_group() {
    check(
        "> a join v=3
         log: g generation 0 - leader -
         > wait 3000
         a: generation 1 consumer range leader c.1 as c.1 c.1:t
         > a sync c.1 1 c.1=A
         log: g generation 1 range leader c.1 c.1=A
         a: consumer range 'A'
         > b join v=3
         > hold
         > x commit id=c.1 gen=1 t-0=1
         > shutdown
         b: error 16 as c.2
         > x beat c.1 1
         x: error 16
         > wait 600000
         > release
         log: g t-0=1
         x: 0
         > restart
         > d describe
         d: error 0 Stable 'consumer' 'range' c.1=A+",
    );
}

#[test]
fn a_partition_that_is_not_here_is_said_to_be_elsewhere() {
    use super::super::*;
    let mut machine = GroupCoordinator::new(GroupConfig::default(), [1, 1]);
    let now = storage::types::Now::default();
    let call = GroupCall::Delete(DeleteGroupCall {
        group_id: "g".into(),
    });
    machine.handle(now, ReplyToken(1), call.clone());
    let elsewhere = Some((
        ReplyToken(1),
        GroupAnswer::Delete(GroupError::NotCoordinator),
    ));
    assert_eq!(machine.poll_reply(), elsewhere);
    let partition = machine.partition_of("g");
    machine.begin_load(partition);
    machine.finish_load(now, partition);
    machine.unload(partition);
    machine.handle(now, ReplyToken(1), call);
    assert_eq!(machine.poll_reply(), elsewhere);
}
