//! Transcripts of committed offsets: who may commit, what is told, and when offsets go.

use super::super::coordinator::GroupConfig;
use super::script::Script;

const HOUR_MS: i64 = 60 * 60 * 1000;

#[track_caller]
fn check(transcript: &str) {
    let config = GroupConfig {
        offsets_retention_ms: HOUR_MS,
        offset_metadata_max: 4,
        ..GroupConfig::default()
    };
    Script::check(config, transcript);
}

const ONE_STABLE: &str = "
    > a join v=3 client=a
    log: g generation 0 - leader -
    > wait 3000
    a: generation 1 consumer range leader a.1 as a.1 a.1:t
    > a sync a.1 1 a.1=A
    log: g generation 1 range leader a.1 a.1=A
    a: consumer range 'A'";

#[track_caller]
fn check_one(transcript: &str) {
    check(&format!("{ONE_STABLE}\n{transcript}"));
}

#[test]
fn commits_without_membership_make_a_simple_group() {
    check(
        "> a commit t-0=5@meta t-1=6 u-0=7
         log: g t-0=5
         log: g t-1=6
         log: g u-0=7
         a: 0,0 0
         > f fetch t-0 t-1 t-2 x-0
         f: offsets t-0=5/3@meta t-1=6/3 t-2=-1/-1 x-0=-1/-1
         > f fetch all
         f: offsets t-0=5/3@meta t-1=6/3 u-0=7/3
         > f fetch
         f: offsets
         > f fetch g=nobody t-0
         f: offsets t-0=-1/-1
         > f fetch g=nobody all
         f: offsets
         > d describe
         d: error 0 Empty '' ''",
    );
}

/// An offset of a topic that was deleted and made again is not the new one's.
#[test]
fn offsets_belong_to_a_topic_id() {
    check(
        "> a commit t-0=5
         log: g t-0=5
         a: 0
         > f fetch id=t t-0
         f: offsets t-0=5/3
         > f fetch id=other t-0
         f: offsets t-0=-1/-1",
    );
}

#[test]
fn too_much_metadata_is_refused_alone() {
    check(
        "> a commit t-0=5@12345 t-1=6@\u{e9}\u{e9}\u{e9}\u{e9} t-2=7@\u{1F600}\u{1F600}\u{1F600}
         log: g t-1=6
         a: 12,0,12",
    );
}

#[test]
fn commits_of_members_are_fenced() {
    check_one(
        "> x commit t-0=1
         x: error 25
         > x commit id=a.1 t-0=1
         x: error 22
         > x commit id=a.1 gen=0 t-0=1
         x: error 22
         > x commit id=nobody gen=1 t-0=1
         x: error 25
         > x commit g=h gen=1 id=a.1 t-0=1
         x: error 69
         > x commit g=h gen=1 id=a.1 v=8 t-0=1
         x: error 22
         > x commit id=a.1 gen=1 t-0=1
         log: g t-0=1
         x: 0
         > b join v=3 client=b
         > x commit id=a.1 gen=1 t-0=2
         log: g t-0=2
         x: 0
         > a join id=a.1
         a: generation 2 consumer range leader a.1 as a.1 a.1:t b.1:t
         b: generation 2 consumer range leader a.1 as b.1
         > x commit id=a.1 gen=2 t-0=3
         x: error 27",
    );
}

/// A commit is a sign of life.
#[test]
fn a_commit_keeps_the_session() {
    check_one(
        "> wait 9000
         > x commit id=a.1 gen=1 t-0=1
         log: g t-0=1
         x: 0
         > wait 9000
         > x beat a.1 1
         x: error 0",
    );
}

/// KIP-211: the offsets of a group without members expire when the retention has passed since it
/// became empty, and the group goes with them. They are looked at every ten minutes.
#[test]
fn an_empty_groups_offsets_expire() {
    check_one(
        "> x commit id=a.1 gen=1 t-0=1 u-0=1
         log: g t-0=1
         log: g u-0=1
         x: 0 0
         > a leave a.1
         log: g generation 2 - leader -
         a: error 0 a.1:0
         > wait 3590000
         > f fetch t-0
         f: offsets t-0=1/3
         > wait 610000
         log: g t-0 gone
         log: g u-0 gone
         log: g gone
         > l list
         l: error 0",
    );
}

/// KIP-211: in a stable group the offsets of topics that nobody subscribes to expire by their commits.
#[test]
fn only_unsubscribed_topics_expire_while_the_group_lives() {
    check(
        "> a join v=3 client=a st=1800000
         log: g generation 0 - leader -
         > wait 3000
         a: generation 1 consumer range leader a.1 as a.1 a.1:t
         > a sync a.1 1 a.1=A
         log: g generation 1 range leader a.1 a.1=A
         a: consumer range 'A'
         > x commit id=a.1 gen=1 t-0=1 u-0=1
         log: g t-0=1
         log: g u-0=1
         x: 0 0
         > wait 1700000
         > a beat a.1 1
         a: error 0
         > wait 1700000
         > a commit id=a.1 gen=1 u-1=2
         log: g u-1=2
         a: 0
         > wait 800000
         log: g u-0 gone
         > f fetch all
         f: offsets t-0=1/3 u-1=2/3",
    );
}

/// A simple group's offsets expire one by one, an old client's at the time it asked for.
#[test]
fn a_simple_groups_offsets_expire_by_their_commits() {
    check(
        "> a commit t-0=1
         log: g t-0=1
         a: 0
         > a commit keep=600000 t-2=1
         log: g t-2=1
         a: 0
         > wait 1800000
         log: g t-2 gone
         > a commit t-1=1
         log: g t-1=1
         a: 0
         > wait 1800000
         log: g t-0 gone
         > wait 1800000
         log: g t-1 gone
         log: g gone",
    );
}

/// KIP-496: what a consumer group subscribes to cannot be deleted (86), other topics can.
#[test]
fn offsets_are_deleted_unless_subscribed() {
    check_one(
        "> x commit id=a.1 gen=1 t-0=1 u-0=1
         log: g t-0=1
         log: g u-0=1
         x: 0 0
         > x drop t-0 t-1 u-0 u-1
         log: g u-0 gone
         x: 86,86 0,0
         > x delete
         x: error 68
         > x drop g=h t-0
         x: error 69
         > x drop g= t-0
         x: error 24
         > a leave a.1
         log: g generation 2 - leader -
         a: error 0 a.1:0
         > x drop t-0
         log: g t-0 gone
         x: 0",
    );
}

#[test]
fn a_deleted_group_takes_its_offsets_along() {
    check(
        "> a commit t-0=1 t-1=2
         log: g t-0=1
         log: g t-1=2
         a: 0,0
         > a delete
         log: g t-0 gone
         log: g t-1 gone
         log: g gone
         a: error 0
         > a delete
         a: error 69
         > restart
         > l list
         l: error 0",
    );
}

#[test]
fn a_deleted_topic_takes_its_offsets_along() {
    check(
        "> a commit t-0=1 u-0=2
         log: g t-0=1
         log: g u-0=2
         a: 0 0
         > topic-deleted t
         log: g t-0 gone
         > f fetch all
         f: offsets u-0=2/3
         > topic-deleted t",
    );
}
