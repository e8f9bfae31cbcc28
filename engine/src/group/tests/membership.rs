//! Transcripts of joins, syncs, heartbeats and departures.

use super::super::coordinator::GroupConfig;
use super::script::Script;

#[track_caller]
fn check(transcript: &str) {
    Script::check(GroupConfig::default(), transcript);
}

/// KIP-394: a new member gets an id and error 79, and joins with that id. KIP-134: the first generation
/// waits `group.initial.rebalance.delay.ms`.
#[test]
fn handshake_and_first_generation_of_one() {
    check(
        "> a join
         log: g generation 0 - leader -
         a: error 79 as c.1
         > a join id=c.1
         > wait 2999
         > wait 1
         a: generation 1 consumer range leader c.1 as c.1 c.1:t
         > a sync c.1 1 type=consumer proto=range c.1=t0
         log: g generation 1 range leader c.1 c.1=t0
         a: consumer range 't0'
         > a beat c.1 1
         a: error 0
         > d describe
         d: error 0 Stable 'consumer' 'range' c.1=t0+",
    );
}

/// KIP-394 does not touch old versions, nor static members.
#[test]
fn without_handshake_before_version_4_and_for_static_members() {
    check(
        "> a join v=3
         log: g generation 0 - leader -
         > b join inst=i
         > wait 6000
         a: generation 1 consumer range leader c.1 as c.1 c.1:t i.1:t
         b: generation 1 consumer range leader c.1 as i.1",
    );
}

#[test]
fn calls_that_are_wrong_whatever_the_state() {
    check(
        "> a join g= id=x
         a: error 24 as x
         > a join st=5999
         a: error 26 as
         > a join st=1800001
         a: error 26 as
         > a join id=nobody
         a: error 25 as nobody
         > a join protos=
         log: g generation 0 - leader -
         a: error 23 as
         > a join type=none protos=
         a: error 23 as
         > a sync x 1 g=
         a: error 24
         > a beat x 1 g=
         a: error 24
         > a leave x g=
         a: error 24
         > a sync x 1
         a: error 25
         > a beat x 1 g=h
         a: error 25
         > a sync x 1 g=h
         a: error 25
         > a leave x y g=h
         a: error 0 x:25 y:25
         > d delete g=h
         d: error 69
         > d describe g=h
         d: error 0 Dead '' ''
         > d describe g=h v=6
         d: error 69 Dead '' ''",
    );
}

const TWO_STABLE: &str = "
    > a join v=3 client=a protos=range:t,rr:t
    log: g generation 0 - leader -
    > b join v=3 client=b protos=rr:t
    > wait 6000
    a: generation 1 consumer rr leader a.1 as a.1 a.1:t b.1:t
    b: generation 1 consumer rr leader a.1 as b.1
    > b sync b.1 1
    > a sync a.1 1 a.1=A b.1=B
    log: g generation 1 rr leader a.1 a.1=A b.1=B
    a: consumer rr 'A'
    b: consumer rr 'B'";

#[track_caller]
fn check_two(transcript: &str) {
    check(&format!("{TWO_STABLE}\n{transcript}"));
}

/// A new member makes the others join again; heartbeats tell them (27).
#[test]
fn a_third_member_makes_a_new_generation() {
    check_two(
        "> c join v=3 client=c protos=rr:t
         > a beat a.1 1
         a: error 27
         > a sync a.1 1
         a: error 27
         > a join id=a.1 protos=range:t,rr:t
         > b join id=b.1 protos=rr:t
         a: generation 2 consumer rr leader a.1 as a.1 a.1:t b.1:t c.1:t
         b: generation 2 consumer rr leader a.1 as b.1
         c: generation 2 consumer rr leader a.1 as c.1
         > b sync b.1 1
         b: error 22
         > c sync c.1 2
         > a sync a.1 2 a.1=x c.1=y
         log: g generation 2 rr leader a.1 a.1=x b.1= c.1=y
         a: consumer rr 'x'
         c: consumer rr 'y'
         > b sync b.1 2
         b: consumer rr ''
         > b beat b.1 1
         b: error 22",
    );
}

/// KIP-62: who does not join within the rebalance timeout is out.
#[test]
fn the_rebalance_timeout_drops_who_stays_away() {
    check_two(
        "> b join id=b.1 protos=rr:t+u
         > wait 9999
         > a beat a.1 1
         a: error 27
         > wait 9000
         > a beat a.1 1
         a: error 27
         > wait 9000
         > a beat a.1 1
         a: error 27
         > wait 9000
         > a beat a.1 1
         a: error 27
         > wait 9000
         > a beat a.1 1
         a: error 27
         > wait 9000
         > a beat a.1 1
         a: error 27
         > wait 5001
         b: generation 2 consumer rr leader b.1 as b.1 b.1:t+u
         > a beat a.1 2
         a: error 25",
    );
}

/// A session that ends starts a rebalance; the one that waits in its join is not expired.
#[test]
fn a_session_that_ends_removes_the_member() {
    check_two(
        "> wait 6000
         > a beat a.1 1
         a: error 0
         > wait 4000
         > a beat a.1 1
         a: error 27
         > b beat b.1 1
         b: error 25
         > a join id=a.1 protos=range:t,rr:t
         a: generation 2 consumer range leader a.1 as a.1 a.1:t",
    );
}

#[test]
fn all_sessions_ended_is_an_empty_group() {
    check_two(
        "> wait 10000
         log: g generation 2 - leader -
         > d describe
         d: error 0 Empty 'consumer' ''
         > d delete
         log: g gone
         d: error 0
         > d list
         d: error 0",
    );
}

/// Without a sync within the rebalance timeout the members that are missing are out.
#[test]
fn the_sync_timeout_drops_who_does_not_sync() {
    check(
        "> a join v=3 client=a rt=8000 st=30000
         log: g generation 0 - leader -
         > b join v=3 client=b rt=8000 st=30000
         > wait 6000
         a: generation 1 consumer range leader a.1 as a.1 a.1:t b.1:t
         b: generation 1 consumer range leader a.1 as b.1
         > b sync b.1 1
         > wait 8000
         b: error 27
         > a beat a.1 1
         a: error 25
         > b join id=b.1 rt=8000
         b: generation 2 consumer range leader b.1 as b.1 b.1:t",
    );
}

/// The leader's join means a rebalance, a follower's unchanged one does not.
#[test]
fn joins_in_a_stable_group() {
    check_two(
        "> b join id=b.1 protos=rr:t
         b: generation 1 consumer rr leader a.1 as b.1
         > a join id=a.1 protos=range:t,rr:t
         > b beat b.1 1
         b: error 27
         > b join id=b.1 protos=rr:t
         a: generation 2 consumer rr leader a.1 as a.1 a.1:t b.1:t
         b: generation 2 consumer rr leader a.1 as b.1
         > b join id=b.1 protos=rr:t
         b: generation 2 consumer rr leader a.1 as b.1
         > a join id=a.1 protos=range:t,rr:t
         a: generation 2 consumer rr leader a.1 as a.1 a.1:t b.1:t
         > a sync a.1 2 a.1=x b.1=y
         log: g generation 2 rr leader a.1 a.1=x b.1=y
         a: consumer rr 'x'
         > b join id=b.1 protos=rr:u
         > a beat a.1 2
         a: error 27",
    );
}

/// A join while the assignment is awaited tells those that wait for it to join again.
#[test]
fn a_join_between_join_and_sync_cancels_the_assignment() {
    check(
        "> a join v=3 client=a
         log: g generation 0 - leader -
         > b join v=3 client=b
         > wait 6000
         a: generation 1 consumer range leader a.1 as a.1 a.1:t b.1:t
         b: generation 1 consumer range leader a.1 as b.1
         > b sync b.1 1
         > c join v=3 client=c
         b: error 27",
    );
}

#[test]
fn what_does_not_fit_the_group_is_refused() {
    check_two(
        "> c join v=3 protos=other:t
         c: error 23 as
         > c join v=3 type=connect protos=rr:t
         c: error 23 as
         > a join id=a.1 protos=other:t
         a: error 23 as a.1
         > a sync a.1 1 type=connect proto=rr
         a: error 23
         > a sync a.1 1 type=consumer proto=range
         a: error 23
         > a sync nobody 1
         a: error 25
         > a beat nobody 1
         a: error 25",
    );
}

/// Any protocol type is welcome.
#[test]
fn connect_workers_are_a_group_too() {
    check(
        "> a join v=3 type=connect protos=sessioned:x,default:x
         log: g generation 0 - leader -
         > wait 3000
         a: generation 1 connect sessioned leader c.1 as c.1 c.1:x
         > a sync c.1 1 type=connect proto=sessioned c.1=w
         log: g generation 1 sessioned leader c.1 c.1=w
         a: connect sessioned 'w'
         > a commit gen=1 id=c.1 t-0=1
         log: g t-0=1
         a: 0
         > d drop t-0
         d: error 68",
    );
}

/// KIP-134: each member that comes during the delay extends it, up to the rebalance timeout.
#[test]
fn the_initial_delay_grows_with_newcomers() {
    check(
        "> a join v=3 client=a rt=7000
         log: g generation 0 - leader -
         > wait 1000
         > b join v=3 client=b rt=7000
         > wait 3000
         > c join v=3 client=c rt=7000
         > wait 2999
         > wait 1
         a: generation 1 consumer range leader a.1 as a.1 a.1:t b.1:t c.1:t
         b: generation 1 consumer range leader a.1 as b.1
         c: generation 1 consumer range leader a.1 as c.1",
    );
}

/// The votes decide among what all members have; equal votes like Java's hash map: `range` before `rr`.
#[test]
fn members_vote_for_a_protocol() {
    check(
        "> a join v=3 client=a protos=rr:t,range:t
         log: g generation 0 - leader -
         > b join v=3 client=b protos=range:t,rr:t
         > wait 6000
         a: generation 1 consumer rr leader a.1 as a.1 a.1:t b.1:t
         b: generation 1 consumer rr leader a.1 as b.1
         > c join v=3 client=c protos=range:t,x:t,rr:t
         > a join id=a.1 protos=rr:t,range:t
         > b join id=b.1 protos=range:t,rr:t
         a: generation 2 consumer range leader a.1 as a.1 a.1:t b.1:t c.1:t
         b: generation 2 consumer range leader a.1 as b.1
         c: generation 2 consumer range leader a.1 as c.1",
    );
}

/// Two rebalances in a row, as cooperative consumers make them: the second one begins while the first
/// generation's assignment is in use.
#[test]
fn a_cooperative_group_rebalances_twice() {
    check(
        "> a join v=3 client=a protos=cooperative-sticky:t
         log: g generation 0 - leader -
         > wait 3000
         a: generation 1 consumer cooperative-sticky leader a.1 as a.1 a.1:t
         > a sync a.1 1 a.1=t0+t1
         log: g generation 1 cooperative-sticky leader a.1 a.1=t0+t1
         a: consumer cooperative-sticky 't0+t1'
         > b join v=3 client=b protos=cooperative-sticky:t
         > a commit gen=1 id=a.1 t-1=9
         log: g t-1=9
         a: 0
         > a join id=a.1 protos=cooperative-sticky:t
         a: generation 2 consumer cooperative-sticky leader a.1 as a.1 a.1:t b.1:t
         b: generation 2 consumer cooperative-sticky leader a.1 as b.1
         > b sync b.1 2
         > a sync a.1 2 a.1=t0
         log: g generation 2 cooperative-sticky leader a.1 a.1=t0 b.1=
         a: consumer cooperative-sticky 't0'
         b: consumer cooperative-sticky ''
         > a join id=a.1 protos=cooperative-sticky:t
         > b join id=b.1 protos=cooperative-sticky:t
         a: generation 3 consumer cooperative-sticky leader a.1 as a.1 a.1:t b.1:t
         b: generation 3 consumer cooperative-sticky leader a.1 as b.1
         > a sync a.1 3 a.1=t0 b.1=t1
         log: g generation 3 cooperative-sticky leader a.1 a.1=t0 b.1=t1
         a: consumer cooperative-sticky 't0'
         > b sync b.1 3
         b: consumer cooperative-sticky 't1'",
    );
}

const STATIC_PAIR: &str = "
    > a join inst=a
    log: g generation 0 - leader -
    > b join inst=b
    > wait 6000
    a: generation 1 consumer range leader a.1 as a.1 a.1:t b.1:t
    b: generation 1 consumer range leader a.1 as b.1
    > a sync a.1 1 inst=a a.1=A b.1=B
    log: g generation 1 range leader a.1 a.1=A b.1=B
    a: consumer range 'A'
    > b sync b.1 1 inst=b
    b: consumer range 'B'";

#[track_caller]
fn check_static(transcript: &str) {
    check(&format!("{STATIC_PAIR}\n{transcript}"));
}

/// KIP-345: a static member that comes back within its session gets its assignment without a
/// rebalance; its old id is fenced (82).
#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    check_static(
        "> b join inst=b
         log: g generation 1 range leader a.1 a.1=A b.2=B
         b: generation 1 consumer range leader a.1 as b.2
         > b sync b.2 1 inst=b
         b: consumer range 'B'
         > o beat b.1 1 inst=b
         o: error 82
         > o join id=b.1 inst=b
         o: error 82 as b.1
         > o sync b.1 1 inst=b
         o: error 82
         > o commit id=b.1 gen=1 inst=b t-0=1
         o: error 82
         > o leave b.1/b
         o: error 0 b.1:82
         > o beat b.2 1 inst=unheard
         o: error 25
         > o beat b.2 1
         o: error 0",
    );
}

/// KIP-814: a returning leader is told to skip the assignment; before version 9 it is told that its old
/// id leads, so that it does not assign.
#[test]
fn a_static_leader_comes_back() {
    check_static(
        "> a join inst=a
         log: g generation 1 range leader a.2 a.2=A b.1=B
         a: generation 1 consumer range leader a.2 as a.2 skip a.2:t b.1:t
         > a join inst=a v=8
         log: g generation 1 range leader a.3 a.3=A b.1=B
         a: generation 1 consumer range leader a.2 as a.3
         > b join inst=b v=8
         log: g generation 1 range leader a.3 a.3=A b.2=B
         b: generation 1 consumer range leader a.3 as b.2",
    );
}

/// KIP-345: another protocol is a reason to rebalance after all.
#[test]
fn a_static_member_with_another_protocol_means_a_rebalance() {
    check(
        "> a join inst=a protos=range:t,rr:t
         log: g generation 0 - leader -
         > wait 3000
         a: generation 1 consumer range leader a.1 as a.1 a.1:t
         > a sync a.1 1 a.1=A
         log: g generation 1 range leader a.1 a.1=A
         a: consumer range 'A'
         > a join inst=a protos=rr:t,range:t
         a: generation 2 consumer rr leader a.2 as a.2 a.2:t",
    );
}

/// KIP-345: a second process with the same instance fences the first, also one that waits.
#[test]
fn a_double_static_member_fences_the_one_that_waits() {
    check_static(
        "> a join id=a.1 inst=a
         > n join inst=a
         a: error 82 as a.1
         > b join id=b.1 inst=b
         n: generation 2 consumer range leader a.2 as a.2 a.2:t b.1:t
         b: generation 2 consumer range leader a.2 as b.1
         > b sync b.1 2 inst=b
         > n join inst=b
         b: error 82",
    );
}

/// KIP-345: a static member stays through a rebalance that it misses, until its session ends.
#[test]
fn a_static_member_outlives_a_rebalance_it_misses() {
    check(
        "> a join inst=a rt=6000 st=60000
         log: g generation 0 - leader -
         > b join inst=b rt=6000 st=60000
         > wait 6000
         a: generation 1 consumer range leader a.1 as a.1 a.1:t b.1:t
         b: generation 1 consumer range leader a.1 as b.1
         > a sync a.1 1 a.1=A b.1=B
         log: g generation 1 range leader a.1 a.1=A b.1=B
         a: consumer range 'A'
         > b sync b.1 1
         b: consumer range 'B'
         > b join id=b.1 inst=b rt=6000 protos=range:u
         > wait 6000
         b: generation 2 consumer range leader b.1 as b.1 a.1:t b.1:u",
    );
}

/// An administrator removes static members by their instance, and dynamic ones by id.
#[test]
fn members_leave_one_by_one_or_together() {
    check_static(
        "> x leave nobody inst=nobody
         x: error 0 nobody:25 nobody:25
         > x leave inst=a b.1/b
         log: g generation 2 - leader -
         x: error 0 a:0 b.1:0
         > d describe
         d: error 0 Empty 'consumer' ''",
    );
}

#[test]
fn who_leaves_no_longer_holds_a_rebalance_up() {
    check_two(
        "> b join id=b.1 protos=rr:u
         > a leave a.1
         b: generation 2 consumer rr leader b.1 as b.1 b.1:u
         a: error 0 a.1:0
         > p join
         p: error 23 as
         > p join protos=rr:t
         p: error 79 as c.1
         > p leave c.1
         p: error 0 c.1:0
         > p join id=c.1 protos=rr:t
         p: error 25 as c.1",
    );
}

/// An id that was handed out holds a rebalance up until its session would end.
#[test]
fn a_pending_id_is_waited_for() {
    check_two(
        "> p join protos=rr:t st=7000
         p: error 79 as c.1
         > b join id=b.1 protos=rr:u
         > a join id=a.1 protos=rr:t
         > wait 6999
         > wait 1
         a: generation 2 consumer rr leader a.1 as a.1 a.1:t b.1:u
         b: generation 2 consumer rr leader a.1 as b.1",
    );
}

/// KIP-389: a full group takes no new member.
#[test]
fn a_full_group_refuses_newcomers() {
    let config = GroupConfig {
        size_max: 2,
        ..GroupConfig::default()
    };
    Script::check(
        config,
        &format!(
            "{TWO_STABLE}
             > c join v=3 protos=rr:t
             c: error 81 as
             > a join id=a.1 protos=range:t,rr:t
             > b join id=b.1 protos=rr:t
             a: generation 2 consumer rr leader a.1 as a.1 a.1:t b.1:t
             b: generation 2 consumer rr leader a.1 as b.1"
        ),
    );
}

/// Members that never hear of their membership do not stay: their join is answered after five minutes.
#[test]
fn a_new_members_join_is_bounded() {
    check(
        "> a join v=3 client=a rt=900000 st=400000
         log: g generation 0 - leader -
         > wait 3000
         a: generation 1 consumer range leader a.1 as a.1 a.1:t
         > a sync a.1 1 a.1=A
         log: g generation 1 range leader a.1 a.1=A
         a: consumer range 'A'
         > b join v=3 client=b rt=900000
         > wait 299999
         > wait 1
         b: error 25 as",
    );
}

/// An assignment that the offsets topic cannot take ends the generation.
#[test]
fn an_assignment_that_is_too_large_is_refused() {
    let config = GroupConfig {
        record_bytes_max: 400,
        ..GroupConfig::default()
    };
    let large = "x".repeat(400);
    Script::check(
        config,
        &format!(
            "> a join v=3
             log: g generation 0 - leader -
             > wait 3000
             a: generation 1 consumer range leader c.1 as c.1 c.1:t
             > a sync c.1 1 c.1={large}
             a: error -1
             > a beat c.1 1
             a: error 27"
        ),
    );
}

/// KIP-518, KIP-848: filters in any case; unknown ones match nothing.
#[test]
fn groups_are_listed_by_state_and_type() {
    check_two(
        "> c commit g=simple t-0=1
         log: simple t-0=1
         c: 0
         > l list
         l: error 0 [g Stable consumer classic] [simple Empty  classic]
         > l list states=sTABLE
         l: error 0 [g Stable consumer classic]
         > l list states=Empty,Dead types=CLASSIC
         l: error 0 [simple Empty  classic]
         > l list states=odd
         l: error 0
         > l list types=consumer
         l: error 0
         > l list types=odd
         l: error 0",
    );
}

/// After a restart a stable group goes on where it was; its sessions begin anew.
#[test]
fn a_stable_group_survives_a_restart() {
    check_two(
        "> wait 9000
         > restart
         > wait 9000
         > a beat a.1 1
         a: error 0
         > d describe
         d: error 0 Stable 'consumer' 'rr' a.1=A+ b.1=B+
         > b sync b.1 1
         b: consumer rr 'B'
         > wait 1000
         > a beat a.1 1
         a: error 27",
    );
}
