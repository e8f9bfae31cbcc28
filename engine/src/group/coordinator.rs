//! The coordinator of a core: the groups whose partition of `__consumer_offsets` the core owns. Calls
//! take effect at once, so that the next one builds on them; their answers wait until every record of
//! the partition so far is durable. It knows no log: records go out by [`GroupCoordinator::poll_append`],
//! their fate comes in by [`GroupCoordinator::on_appended`], and replay is [`GroupCoordinator::apply`].

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use storage::types::{Now, TopicId};

use super::call::{
    DescribeAnswer, GroupAnswer, GroupCall, GroupError, JoinCall, ListCall, ReplyToken,
};
use super::classic::{Group, Turn};
use super::offsets;
use super::partition_for;
use super::random::Random;
use super::records::{self, GroupMetadataValue, Record, RecordError};
use super::replay::apply;
use super::timers::{Timer, Timers};

/// What the broker's configuration says about groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `offsets.topic.num.partitions`, until the topic itself tells.
    pub partition_count: i32,
    /// `group.min.session.timeout.ms`.
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_ms_max: i32,
    /// `group.initial.rebalance.delay.ms` (KIP-134).
    pub initial_rebalance_delay_ms: i64,
    /// `group.max.size` (KIP-389).
    pub size_max: usize,
    /// `offset.metadata.max.bytes`, counted in UTF-16 units as Kafka does.
    pub offset_metadata_max: usize,
    /// `offsets.retention.minutes`, in milliseconds (KIP-211).
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_ms: i64,
    /// The largest key and value together that the offsets topic takes, in bytes.
    pub record_bytes_max: usize,
}

impl Default for GroupConfig {
    fn default() -> GroupConfig {
        GroupConfig {
            partition_count: 50,
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            size_max: i32::MAX as usize,
            offset_metadata_max: 4096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1000,
            offsets_retention_check_ms: 10 * 60 * 1000,
            // max.message.bytes less the batch's and the record's own heads.
            record_bytes_max: 1_048_588 - 128,
        }
    }
}

/// Names what was given out for one append. Those of a partition rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// The partition of the offsets topic.
    pub partition: i32,
    /// Rises over all partitions of the core.
    pub number: u64,
}

/// Records to append to one partition of the offsets topic, in order, after all earlier appends.
/// They may be spread over several batches; the last one's end counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// To be given back with the outcome.
    pub ticket: Ticket,
    /// Never empty.
    pub records: Vec<Record>,
}

/// Why an append came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendFailure {
    /// The log is lost to this broker; clients are told NOT_COORDINATOR.
    Storage,
    /// Not just now, for example for want of room; clients are told COORDINATOR_NOT_AVAILABLE.
    Unavailable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartitionState {
    /// Being replayed.
    Loading,
    Serving,
    /// An append failed; what is in memory may not be in the log. Waits for another replay.
    Failed(GroupError),
}

/// One partition of the offsets topic.
#[derive(Debug)]
struct Partition {
    state: PartitionState,
    groups: BTreeMap<Rc<str>, Group>,
    /// The newest ticket given out.
    ticket_last: u64,
    /// The newest ticket whose records, and all before, are durable.
    ticket_durable: u64,
    /// Answers and the ticket that each waits for, in order.
    waiting: VecDeque<(u64, ReplyToken, GroupAnswer)>,
}

/// A list of groups that waits for the records of several partitions.
#[derive(Debug)]
struct WaitingList {
    tickets: Vec<Ticket>,
    token: ReplyToken,
    answer: GroupAnswer,
}

/// The machine of one core. See the module's head.
#[derive(Debug)]
pub struct GroupCoordinator {
    config: GroupConfig,
    partitions: BTreeMap<i32, Partition>,
    timers: Timers,
    random: Random,
    ticket_last: u64,
    expiry_due_us: Option<u64>,
    /// The broker stops: nothing new, and time no longer counts.
    stopping: bool,
    appends: VecDeque<Append>,
    lists: Vec<WaitingList>,
    replies: VecDeque<(ReplyToken, GroupAnswer)>,
}

impl GroupCoordinator {
    /// A coordinator without partitions. `seed` makes the member ids; no two starts may share one.
    pub fn new(config: GroupConfig, seed: [u64; 2]) -> GroupCoordinator {
        assert!(
            config.partition_count > 0,
            "the offsets topic has partitions"
        );
        GroupCoordinator {
            config,
            partitions: BTreeMap::new(),
            timers: Timers::default(),
            random: Random::new(seed),
            ticket_last: 0,
            expiry_due_us: None,
            stopping: false,
            appends: VecDeque::new(),
            lists: Vec::new(),
            replies: VecDeque::new(),
        }
    }

    /// The partition of the offsets topic that holds `group`; its owner is to be asked.
    pub fn partition_of(&self, group: &str) -> i32 {
        partition_for(group, self.config.partition_count)
    }

    /// Takes the partition count from the offsets topic as it is; it may have been made under another
    /// configuration.
    pub fn set_partition_count(&mut self, partition_count: i32) {
        assert!(partition_count > 0, "the offsets topic has partitions");
        self.config.partition_count = partition_count;
    }

    /// Groups in memory on this core.
    pub fn group_count(&self) -> usize {
        self.partitions
            .values()
            .map(|partition| partition.groups.len())
            .sum()
    }

    /// Starts a partition from nothing: until [`GroupCoordinator::finish_load`] its records are to be
    /// applied, and callers are told to wait. Whoever still waits for the partition's past is refused.
    pub fn begin_load(&mut self, partition: i32) {
        self.drop_partition(partition, GroupError::NotCoordinator);
        self.partitions.insert(
            partition,
            Partition {
                state: PartitionState::Loading,
                groups: BTreeMap::new(),
                ticket_last: self.ticket_last,
                ticket_durable: self.ticket_last,
                waiting: VecDeque::new(),
            },
        );
    }

    /// Takes a record of the log into a partition that is being loaded. Kinds that are not served here
    /// are passed over.
    ///
    /// # Errors
    /// When the bytes are not a record of this topic; nothing changed.
    pub fn apply(
        &mut self,
        partition: i32,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), RecordError> {
        match self.partitions.get_mut(&partition) {
            Some(partition) => apply(&mut partition.groups, key, value),
            None => Ok(()),
        }
    }

    /// Serves a partition whose log has been applied whole. Its members' sessions start anew.
    pub fn finish_load(&mut self, now: Now, partition: i32) {
        let Some(loaded) = self.partitions.get_mut(&partition) else {
            return;
        };
        loaded.state = PartitionState::Serving;
        let ids: Vec<Rc<str>> = loaded.groups.keys().cloned().collect();
        for id in ids {
            self.with_group(now, partition, &id, |group, turn| {
                let members: Vec<Rc<str>> = group.members.keys().cloned().collect();
                for member in members {
                    group.heard_from(turn, &member);
                }
                if group.members.len() > turn.config.size_max {
                    // group.max.size is lower than it was (KIP-389).
                    group.prepare_rebalance(turn);
                }
            });
        }
        if self.expiry_due_us.is_none() {
            self.schedule_expiry(now);
        }
    }

    /// Stops serving a partition; whoever waits is told NOT_COORDINATOR.
    pub fn unload(&mut self, partition: i32) {
        self.drop_partition(partition, GroupError::NotCoordinator);
    }

    fn drop_partition(&mut self, partition: i32, error: GroupError) {
        self.fail_partition(partition, error);
        self.partitions.remove(&partition);
        self.appends
            .retain(|append| append.ticket.partition != partition);
    }

    /// The broker stops: joins and syncs that wait for other members are sent elsewhere (NOT_COORDINATOR),
    /// as is every later call, and no time-out changes a group any more, so that its members find it
    /// after the restart as they left it. Answers that wait for the log still come.
    pub fn begin_shutdown(&mut self) {
        self.stopping = true;
        let mut answers = Vec::new();
        for partition in self.partitions.values_mut() {
            for group in partition.groups.values_mut() {
                group.fail_waiting(&mut answers, GroupError::NotCoordinator);
            }
        }
        self.replies.extend(answers);
    }

    /// Takes a call; its answer comes by [`GroupCoordinator::poll_reply`] under `token`.
    pub fn handle(&mut self, now: Now, token: ReplyToken, call: GroupCall) {
        if self.stopping {
            let refusal = call.refusal(GroupError::NotCoordinator);
            self.replies.push_back((token, refusal));
            return;
        }
        if let GroupCall::List(call) = &call {
            self.list(token, call);
            return;
        }
        if let Err(error) = self.admit(&call) {
            self.replies.push_back((token, call.refusal(error)));
            return;
        }
        let group_id = call.group_id().unwrap_or_default();
        let partition = self.partition_of(group_id);
        let state = self
            .partitions
            .get(&partition)
            .map(|partition| partition.state);
        let refusal = match state {
            Some(PartitionState::Serving) => None,
            // A member is not to be upset by a load (as in Kafka).
            Some(PartitionState::Loading) if matches!(call, GroupCall::Heartbeat(_)) => {
                Some(GroupError::None)
            }
            Some(PartitionState::Loading) => Some(GroupError::CoordinatorLoadInProgress),
            Some(PartitionState::Failed(error)) => Some(error),
            None => Some(GroupError::NotCoordinator),
        };
        match refusal {
            Some(error) => self.replies.push_back((token, call.refusal(error))),
            None => self.serve(now, partition, token, call),
        }
    }

    /// What is wrong with a call whatever the group's state.
    fn admit(&self, call: &GroupCall) -> Result<(), GroupError> {
        let needs_group_id = matches!(
            call,
            GroupCall::Join(_)
                | GroupCall::Sync(_)
                | GroupCall::Heartbeat(_)
                | GroupCall::Leave(_)
                | GroupCall::DeleteOffsets(_)
        );
        if needs_group_id && call.group_id() == Some("") {
            return Err(GroupError::InvalidGroupId);
        }
        if let GroupCall::Join(call) = call
            && !(self.config.session_timeout_ms_min..=self.config.session_timeout_ms_max)
                .contains(&call.session_timeout_ms)
        {
            return Err(GroupError::InvalidSessionTimeout);
        }
        if call.fits_records() {
            Ok(())
        } else {
            Err(GroupError::UnknownServerError)
        }
    }

    fn serve(&mut self, now: Now, partition: i32, token: ReplyToken, call: GroupCall) {
        let group = self
            .partitions
            .get(&partition)
            .and_then(|partition| partition.groups.get(call.group_id().unwrap_or_default()));
        match call {
            GroupCall::Join(call) => self.join(now, partition, token, call),
            GroupCall::Sync(_) | GroupCall::Heartbeat(_) | GroupCall::Leave(_) => {
                self.serve_member(now, partition, token, call);
            }
            GroupCall::Commit(call) => {
                match offsets::decide_commit(group, &self.config, now, &call) {
                    Ok((records, topics)) => {
                        if let Some(group) = group
                            && group.members.contains_key(call.member_id.as_str())
                        {
                            let id = group.id.clone();
                            // A commit is a sign of life.
                            self.with_group(now, partition, &id, |group, turn| {
                                group.heard_from(turn, &call.member_id);
                            });
                        }
                        let answer = GroupAnswer::Commit {
                            error: GroupError::None,
                            topics,
                        };
                        self.settle_decided(partition, records, Some((token, answer)));
                    }
                    Err(error) => {
                        let answer = GroupAnswer::Commit {
                            error,
                            topics: Vec::new(),
                        };
                        self.settle(partition, Vec::new(), vec![(token, answer)]);
                    }
                }
            }
            GroupCall::FetchOffsets(call) => {
                let answer = GroupAnswer::FetchOffsets {
                    error: GroupError::None,
                    topics: offsets::fetch(group, &call),
                };
                self.settle(partition, Vec::new(), vec![(token, answer)]);
            }
            GroupCall::DeleteOffsets(call) => {
                let decided = match group {
                    Some(group) => group.decide_delete_offsets(&call.topics),
                    None => Err(GroupError::GroupIdNotFound),
                };
                let (error, records, topics) = match decided {
                    Ok((records, topics)) => (GroupError::None, records, topics),
                    Err(error) => (error, Vec::new(), Vec::new()),
                };
                let answer = GroupAnswer::DeleteOffsets { error, topics };
                self.settle_decided(partition, records, Some((token, answer)));
            }
            GroupCall::Describe(call) => {
                let answer = match group {
                    Some(group) => group.describe(),
                    None => DescribeAnswer {
                        state: "Dead",
                        ..DescribeAnswer::error(if call.api_version >= 6 {
                            GroupError::GroupIdNotFound
                        } else {
                            GroupError::None
                        })
                    },
                };
                let answer = GroupAnswer::Describe(answer);
                self.settle(partition, Vec::new(), vec![(token, answer)]);
            }
            GroupCall::Delete(_) => {
                let decided = group.map_or(Err(GroupError::GroupIdNotFound), Group::decide_delete);
                let (records, error) = match decided {
                    Ok(records) => (records, GroupError::None),
                    Err(error) => (Vec::new(), error),
                };
                let answer = GroupAnswer::Delete(error);
                self.settle_decided(partition, records, Some((token, answer)));
            }
            GroupCall::List(_) => unreachable!("a list is not of one group"),
        }
    }

    fn join(&mut self, now: Now, partition: i32, token: ReplyToken, call: JoinCall) {
        let id: Rc<str> = call.group_id.as_str().into();
        let groups = &mut self.partition_mut(partition).groups;
        let is_new = !groups.contains_key(&id);
        if is_new {
            if !call.member_id.is_empty() {
                let answer = GroupCall::Join(call).refusal(GroupError::UnknownMemberId);
                self.settle(partition, Vec::new(), vec![(token, answer)]);
                return;
            }
            groups.insert(id.clone(), Group::new(id.clone(), now.wall_ms));
        }
        self.with_group(now, partition, &id, |group, turn| {
            group.join(turn, token, call);
            if is_new && turn.records.is_empty() {
                // The group is there from now on, and is listed after a restart too.
                turn.records.push(records::group_metadata(
                    &group.id,
                    &GroupMetadataValue {
                        protocol_type: String::new(),
                        generation: 0,
                        protocol: None,
                        leader: None,
                        state_timestamp_ms: turn.now.wall_ms,
                        members: Vec::new(),
                    },
                ));
            }
        });
    }

    /// Calls that only members of a group that exists may make.
    fn serve_member(&mut self, now: Now, partition: i32, token: ReplyToken, call: GroupCall) {
        let id: Rc<str> = call.group_id().unwrap_or_default().into();
        if !self.partition_mut(partition).groups.contains_key(&id) {
            let error = GroupError::UnknownMemberId;
            let answer = match call {
                // Kafka answers each member of an unknown group.
                GroupCall::Leave(call) => GroupAnswer::Leave {
                    error: GroupError::None,
                    members: call
                        .members
                        .into_iter()
                        .map(|member| (member, error))
                        .collect(),
                },
                call => call.refusal(error),
            };
            self.settle(partition, Vec::new(), vec![(token, answer)]);
            return;
        }
        self.with_group(now, partition, &id, |group, turn| match call {
            GroupCall::Sync(call) => group.sync(turn, token, call),
            GroupCall::Heartbeat(call) => {
                let error = group.heartbeat(turn, &call);
                turn.answers.push((token, GroupAnswer::Heartbeat(error)));
            }
            GroupCall::Leave(call) => {
                let members = group.leave(turn, call);
                let error = GroupError::None;
                turn.answers
                    .push((token, GroupAnswer::Leave { error, members }));
            }
            _ => unreachable!("only members' calls come here"),
        });
    }

    fn list(&mut self, token: ReplyToken, call: &ListCall) {
        let mut error = GroupError::None;
        let mut groups = Vec::new();
        let mut tickets = Vec::new();
        let states: Vec<String> = call
            .states
            .iter()
            .map(|state| state.trim().to_lowercase())
            .collect();
        let types_match = call.types.is_empty()
            || call
                .types
                .iter()
                .any(|name| name.trim().eq_ignore_ascii_case("classic"));
        for (index, partition) in &self.partitions {
            match partition.state {
                PartitionState::Loading => error = GroupError::CoordinatorLoadInProgress,
                PartitionState::Failed(_) => continue,
                PartitionState::Serving => {}
            }
            if partition.ticket_last > partition.ticket_durable {
                tickets.push(Ticket {
                    partition: *index,
                    number: partition.ticket_last,
                });
            }
            let listed = partition.groups.values().map(Group::listed);
            groups.extend(listed.filter(|group| {
                types_match && (states.is_empty() || states.contains(&group.state.to_lowercase()))
            }));
        }
        if error != GroupError::None {
            groups.clear();
            tickets.clear();
        }
        let answer = GroupAnswer::List { error, groups };
        if tickets.is_empty() {
            self.replies.push_back((token, answer));
        } else {
            self.lists.push(WaitingList {
                tickets,
                token,
                answer,
            });
        }
    }

    /// A topic is gone: so are the offsets committed for it.
    pub fn on_topic_deleted(&mut self, topic: &str, topic_id: TopicId) {
        self.decide_all(|group| group.decide_topic_deleted(topic, topic_id));
    }

    /// The outcome of an [`Append`]: `Ok` once its records are durable. After a failure nothing of the
    /// partition can be trusted: it is to be loaded again from the log.
    pub fn on_appended(&mut self, ticket: Ticket, outcome: Result<(), AppendFailure>) {
        let Some(partition) = self.partitions.get_mut(&ticket.partition) else {
            return;
        };
        // Older ones are of the time before the partition was loaded anew.
        if ticket.number <= partition.ticket_durable {
            return;
        }
        match outcome {
            Ok(()) => {
                partition.ticket_durable = ticket.number;
                while let Some((_, token, answer)) = partition
                    .waiting
                    .pop_front_if(|(number, _, _)| *number <= ticket.number)
                {
                    self.replies.push_back((token, answer));
                }
                self.release_lists(|waits_for| {
                    waits_for.partition == ticket.partition && waits_for.number <= ticket.number
                });
            }
            Err(failure) => {
                let error = match failure {
                    AppendFailure::Storage => GroupError::NotCoordinator,
                    AppendFailure::Unavailable => GroupError::CoordinatorNotAvailable,
                };
                self.fail_partition(ticket.partition, error);
            }
        }
    }

    fn release_lists(&mut self, is_done: impl Fn(&Ticket) -> bool) {
        for mut list in std::mem::take(&mut self.lists) {
            list.tickets.retain(|ticket| !is_done(ticket));
            if list.tickets.is_empty() {
                self.replies.push_back((list.token, list.answer));
            } else {
                self.lists.push(list);
            }
        }
    }

    fn fail_partition(&mut self, index: i32, error: GroupError) {
        let Some(partition) = self.partitions.get_mut(&index) else {
            return;
        };
        partition.state = PartitionState::Failed(error);
        partition.ticket_durable = partition.ticket_last;
        for (_, token, answer) in partition.waiting.drain(..) {
            self.replies.push_back((token, answer.failed(error)));
        }
        let mut answers = Vec::new();
        for group in partition.groups.values_mut() {
            group.fail_waiting(&mut answers, error);
        }
        partition.groups.clear();
        self.replies.extend(answers);
        self.release_lists(|ticket| ticket.partition == index);
    }

    /// The next records to append, each after all of its partition's before.
    pub fn poll_append(&mut self) -> Option<Append> {
        self.appends.pop_front()
    }

    /// The next answer that may be sent.
    pub fn poll_reply(&mut self) -> Option<(ReplyToken, GroupAnswer)> {
        self.replies.pop_front()
    }

    /// When [`GroupCoordinator::tick`] is to be called, in monotonic microseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        if self.stopping {
            return None;
        }
        let expiry_due_us = self.expiry_due_us.filter(|_| self.group_count() > 0);
        [self.timers.next_due_us(), expiry_due_us]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what time demands: sessions that ended, phases that are over, offsets that expired.
    pub fn tick(&mut self, now: Now) {
        if self.stopping {
            return;
        }
        while let Some((due_us, timer)) = self.timers.pop_due(now.monotonic_us) {
            self.ring(now, due_us, &timer);
        }
        if self
            .expiry_due_us
            .is_some_and(|due_us| due_us <= now.monotonic_us)
        {
            self.schedule_expiry(now);
            let config = self.config.clone();
            self.decide_all(|group| group.decide_expiry(&config, now));
        }
    }

    fn ring(&mut self, now: Now, due_us: u64, timer: &Timer) {
        let (Timer::Session {
            partition, group, ..
        }
        | Timer::Join { partition, group }
        | Timer::Sync { partition, group }) = timer;
        self.with_group(now, *partition, group, |group, turn| {
            let alarm = match timer {
                Timer::Session { member, .. } => match group.pending_joins.get_mut(member) {
                    Some(alarm) => Some(alarm),
                    None => group
                        .members
                        .get_mut(member)
                        .map(|member| &mut member.session),
                },
                Timer::Join { .. } => Some(&mut group.join_alarm),
                Timer::Sync { .. } => Some(&mut group.sync_alarm),
            };
            if !alarm.is_some_and(|alarm| alarm.rings(due_us, turn.timers, timer)) {
                return;
            }
            match timer {
                Timer::Session { member, .. } => group.session_over(turn, member),
                Timer::Join { .. } => group.join_time_over(turn),
                Timer::Sync { .. } => group.sync_time_over(turn),
            }
        });
    }

    fn schedule_expiry(&mut self, now: Now) {
        let interval_us = self.config.offsets_retention_check_ms.max(1) as u64 * 1000;
        self.expiry_due_us = Some(now.monotonic_us.saturating_add(interval_us));
    }

    /// Lets every group that is served decide, and applies what they decided.
    fn decide_all(&mut self, decide: impl Fn(&Group) -> Vec<Record>) {
        let serving: Vec<i32> = self
            .partitions
            .iter()
            .filter(|(_, partition)| partition.state == PartitionState::Serving)
            .map(|(index, _)| *index)
            .collect();
        for index in serving {
            let groups = self.partition_mut(index).groups.values();
            let records = groups.flat_map(&decide).collect();
            self.settle_decided(index, records, None);
        }
    }

    fn partition_mut(&mut self, index: i32) -> &mut Partition {
        self.partitions
            .get_mut(&index)
            .expect("only partitions that are served come here")
    }

    /// Changes one group, where it exists, and sends off what comes of it.
    fn with_group(
        &mut self,
        now: Now,
        index: i32,
        id: &str,
        change: impl FnOnce(&mut Group, &mut Turn<'_>),
    ) {
        let Some(group) = self
            .partitions
            .get_mut(&index)
            .and_then(|partition| partition.groups.get_mut(id))
        else {
            return;
        };
        let (mut records, mut answers) = (Vec::new(), Vec::new());
        change(
            group,
            &mut Turn {
                now,
                partition: index,
                config: &self.config,
                timers: &mut self.timers,
                random: &mut self.random,
                records: &mut records,
                answers: &mut answers,
            },
        );
        self.settle(index, records, answers);
    }

    /// Applies decided records, then sends them off with their answer.
    fn settle_decided(
        &mut self,
        index: i32,
        records: Vec<Record>,
        answer: Option<(ReplyToken, GroupAnswer)>,
    ) {
        let groups = &mut self.partition_mut(index).groups;
        for record in &records {
            apply(groups, &record.key, record.value.as_deref())
                .expect("what was just encoded can be read");
        }
        self.settle(index, records, answer.into_iter().collect());
    }

    fn settle(
        &mut self,
        index: i32,
        records: Vec<Record>,
        answers: Vec<(ReplyToken, GroupAnswer)>,
    ) {
        let number = self.ticket_last + 1;
        let partition = self.partition_mut(index);
        let mut append = None;
        if !records.is_empty() {
            partition.ticket_last = number;
            append = Some(Append {
                ticket: Ticket {
                    partition: index,
                    number,
                },
                records,
            });
        }
        if partition.ticket_last > partition.ticket_durable {
            let ticket_last = partition.ticket_last;
            let waiting = answers
                .into_iter()
                .map(|(token, answer)| (ticket_last, token, answer));
            partition.waiting.extend(waiting);
        } else {
            self.replies.extend(answers);
        }
        if let Some(append) = append {
            self.ticket_last = number;
            self.appends.push_back(append);
        }
    }

    /// The hard state of every group, for tests that compare a machine with its replay.
    #[cfg(test)]
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.partitions
            .values()
            .flat_map(|partition| partition.groups.values())
    }
}
