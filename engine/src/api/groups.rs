//! What the group APIs share: finding the core that owns a group, and asking several at once. Lives on the
//! core that accepted the connection; knows neither wire forms nor the rules of groups.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use storage::types::{CoreId, Now};

use crate::calls::GroupThen;
use crate::group::{GroupAnswer, GroupCall, GroupError, partition_for};
use crate::metadata::{OFFSETS_TOPIC, Topic};
use crate::shard::Shard;

/// Does something with the answers of several coordinators, in the order of the calls.
type AnswersThen = Box<dyn FnOnce(&mut Shard, Now, Vec<GroupAnswer>)>;

/// Answers of several coordinators, until the last has come.
struct Gathering {
    answers: Vec<Option<GroupAnswer>>,
    open_count: usize,
    then: Option<AnswersThen>,
}

/// The core that owns a group; `None` while there is no offsets topic.
fn owner(shard: &Shard, group: &str) -> Option<CoreId> {
    let topic = shard.image.topic(OFFSETS_TOPIC)?;
    let partition = partition_for(group, topic.partition_count());
    Some(topic.core_of(partition, shard.config.cores))
}

/// Asks the coordinator of the call's group. Without an offsets topic nobody coordinates it yet.
pub(crate) fn ask(shard: &mut Shard, now: Now, call: GroupCall, then: GroupThen) {
    match owner(shard, call.group_id().unwrap_or_default()) {
        Some(core) => shard.ask_group(now, core, call, then),
        None => {
            let refusal = call.refusal(GroupError::NotCoordinator);
            then(shard, now, refusal);
        }
    }
}

/// Asks the coordinator of each call's group; `then` gets the answers in the order of the calls.
pub(crate) fn ask_all(shard: &mut Shard, now: Now, calls: Vec<GroupCall>, then: AnswersThen) {
    gather(shard, now, calls, ask, then);
}

/// Asks every core the same; `then` gets an answer of each.
pub(crate) fn ask_every_core(shard: &mut Shard, now: Now, call: &GroupCall, then: AnswersThen) {
    let cores = (0..shard.config.cores).map(CoreId);
    let calls = cores.map(|core| (core, call.clone())).collect();
    let ask = |shard: &mut Shard, now, (core, call): (CoreId, GroupCall), then| {
        shard.ask_group(now, core, call, then);
    };
    gather(shard, now, calls, ask, then);
}

fn gather<T>(
    shard: &mut Shard,
    now: Now,
    calls: Vec<T>,
    ask: impl Fn(&mut Shard, Now, T, GroupThen),
    then: AnswersThen,
) {
    if calls.is_empty() {
        then(shard, now, Vec::new());
        return;
    }
    let gathering = Rc::new(RefCell::new(Gathering {
        answers: vec![None; calls.len()],
        open_count: calls.len(),
        then: Some(then),
    }));
    for (place, call) in calls.into_iter().enumerate() {
        let gathering = Rc::clone(&gathering);
        let take = move |shard: &mut Shard, now: Now, answer: GroupAnswer| {
            let mut state = gathering.borrow_mut();
            state.answers[place] = Some(answer);
            state.open_count -= 1;
            if state.open_count == 0
                && let Some(then) = state.then.take()
            {
                let answers = state.answers.drain(..).flatten().collect();
                drop(state);
                then(shard, now, answers);
            }
        };
        ask(shard, now, call, Box::new(take));
    }
}

/// Whether a topic has a partition with this index.
pub(crate) fn has_partition(topic: &Topic, index: i32) -> bool {
    (0..topic.partition_count()).contains(&index)
}

/// An address as Java prints it for a client's host: `/127.0.0.1`, IPv6 with all its groups.
pub(crate) fn host_text(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("/{address}"),
        IpAddr::V6(address) => {
            let groups = address.segments().map(|group| format!("{group:x}"));
            format!("/{}", groups.join(":"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_printed_like_javas() {
        let text = |address: &str| host_text(address.parse().unwrap());
        assert_eq!(text("127.0.0.1"), "/127.0.0.1");
        assert_eq!(text("::ffff:10.0.0.1"), "/10.0.0.1");
        assert_eq!(text("::1"), "/0:0:0:0:0:0:0:1");
    }
}
