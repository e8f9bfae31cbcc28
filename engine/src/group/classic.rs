//! A group of the classic protocol: its state, its members, what they can agree on, and its record. It
//! changes only when `rebalance` or `offsets` say so, on the core that owns the group's partition; it
//! knows nothing of other groups, of logs, or of when a record is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use storage::types::Now;

use super::call::{
    DescribeAnswer, GroupAnswer, GroupError, JoinAnswer, ListedGroup, ReplyToken, SyncAnswer,
};
use super::coordinator::GroupConfig;
use super::java_string_hash;
use super::member::Member;
use super::offsets::CommittedOffset;
use super::random::Random;
use super::records::{self, GroupMetadataValue, Record};
use super::subscription::{CONSUMER_PROTOCOL_TYPE, subscribed_topics};
use super::timers::{Alarm, Timer, Timers};

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupState {
    /// No members; perhaps offsets.
    Empty,
    /// Members are asked to join again.
    PreparingRebalance,
    /// All have joined; the leader's assignment is awaited.
    CompletingRebalance,
    /// All have an assignment.
    Stable,
}

impl GroupState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
        }
    }
}

/// What a change of a group may use, and where it leaves what it brings about.
pub(crate) struct Turn<'a> {
    pub now: Now,
    pub partition: i32,
    pub config: &'a GroupConfig,
    pub timers: &'a mut Timers,
    pub random: &'a mut Random,
    /// To be appended to the group's partition, in order.
    pub records: &'a mut Vec<Record>,
    /// To be sent once those records are durable.
    pub answers: &'a mut Vec<(ReplyToken, GroupAnswer)>,
}

impl Turn<'_> {
    pub(crate) fn answer_join(&mut self, token: ReplyToken, answer: JoinAnswer) {
        self.answers.push((token, GroupAnswer::Join(answer)));
    }

    pub(crate) fn answer_sync(&mut self, token: ReplyToken, answer: SyncAnswer) {
        self.answers.push((token, GroupAnswer::Sync(answer)));
    }

    /// `delay_ms` from now, in monotonic microseconds; a negative delay is none.
    pub(crate) fn due_us(&self, delay_ms: i64) -> u64 {
        let delay_us = u64::try_from(delay_ms).unwrap_or(0).saturating_mul(1000);
        self.now.monotonic_us.saturating_add(delay_us)
    }
}

/// How much of the wait for more members of a new group is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InitialDelay {
    pub delay_ms: i64,
    pub remaining_ms: i64,
}

/// One group.
#[derive(Debug)]
pub(crate) struct Group {
    pub id: Rc<str>,
    pub state: GroupState,
    pub previous_state: GroupState,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: Option<Rc<str>>,
    /// When the state last changed; `None` after reading a record of old.
    pub state_since_ms: Option<i64>,
    pub members: BTreeMap<Rc<str>, Member>,
    /// Member ids of static members by their instance (KIP-345).
    pub static_members: BTreeMap<String, Rc<str>>,
    /// Ids that were handed out and not joined with yet (KIP-394).
    pub pending_joins: BTreeMap<Rc<str>, Alarm>,
    /// Members that joined this generation and did not sync yet.
    pub pending_syncs: BTreeSet<Rc<str>>,
    /// Somebody came while a new group waited for more.
    pub new_member_added: bool,
    pub initial_delay: Option<InitialDelay>,
    pub join_alarm: Alarm,
    pub sync_alarm: Alarm,
    /// The topics that members subscribe to, where they can be told.
    pub subscribed: Option<BTreeSet<String>>,
    pub offsets: BTreeMap<String, BTreeMap<i32, CommittedOffset>>,
}

impl Group {
    pub(crate) fn new(id: Rc<str>, now_ms: i64) -> Group {
        Group {
            id,
            state: GroupState::Empty,
            previous_state: GroupState::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            state_since_ms: Some(now_ms),
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_joins: BTreeMap::new(),
            pending_syncs: BTreeSet::new(),
            new_member_added: false,
            initial_delay: None,
            join_alarm: Alarm::default(),
            sync_alarm: Alarm::default(),
            subscribed: None,
            offsets: BTreeMap::new(),
        }
    }

    /// Becomes what a record says; offsets stay, they have records of their own.
    pub(crate) fn apply_metadata(&mut self, value: GroupMetadataValue) {
        let offsets = std::mem::take(&mut self.offsets);
        *self = Group::new(self.id.clone(), value.state_timestamp_ms);
        self.offsets = offsets;
        self.state = if value.members.is_empty() {
            GroupState::Empty
        } else {
            GroupState::Stable
        };
        self.previous_state = self.state;
        self.generation = value.generation;
        self.protocol_type = (!value.protocol_type.is_empty()).then_some(value.protocol_type);
        self.protocol = value.protocol;
        self.leader = value.leader.map(Rc::from);
        self.state_since_ms = (value.state_timestamp_ms != -1).then_some(value.state_timestamp_ms);
        for member in value.members {
            let member = Member::from_record(member, self.protocol.as_deref());
            if let Some(instance_id) = &member.instance_id {
                self.static_members
                    .insert(instance_id.clone(), member.id.clone());
            }
            self.members.insert(member.id.clone(), member);
        }
        self.subscribed = self.compute_subscribed();
    }

    /// Forgets what a group's tombstone deletes; true where nothing is left.
    pub(crate) fn apply_tombstone(&mut self) -> bool {
        let offsets = std::mem::take(&mut self.offsets);
        *self = Group::new(self.id.clone(), -1);
        self.state_since_ms = None;
        self.offsets = offsets;
        self.offsets.is_empty()
    }

    /// The group's record as it stands now.
    pub(crate) fn record(&self) -> Record {
        let protocol = self.protocol.as_deref();
        records::group_metadata(
            &self.id,
            &GroupMetadataValue {
                protocol_type: self.protocol_type.clone().unwrap_or_default(),
                generation: self.generation,
                protocol: self.protocol.clone(),
                leader: self.leader.as_deref().map(str::to_owned),
                state_timestamp_ms: self.state_since_ms.unwrap_or(-1),
                members: self
                    .members
                    .values()
                    .map(|member| member.to_record(protocol.unwrap_or_default()))
                    .collect(),
            },
        )
    }

    pub(crate) fn move_to(&mut self, state: GroupState, now: Now) {
        let legal = match state {
            GroupState::Empty | GroupState::CompletingRebalance => {
                self.state == GroupState::PreparingRebalance
            }
            GroupState::PreparingRebalance => self.can_rebalance(),
            GroupState::Stable => self.state == GroupState::CompletingRebalance,
        };
        assert!(legal, "a group goes from {:?} to {state:?}", self.state);
        self.previous_state = self.state;
        self.state = state;
        self.state_since_ms = Some(now.wall_ms);
    }

    pub(crate) fn can_rebalance(&self) -> bool {
        self.state != GroupState::PreparingRebalance
    }

    pub(crate) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    pub(crate) fn leader_name(&self) -> String {
        self.leader.as_deref().unwrap_or_default().to_owned()
    }

    pub(crate) fn awaiting_join_count(&self) -> usize {
        self.members
            .values()
            .filter(|member| member.awaiting_join.is_some())
            .count()
    }

    pub(crate) fn all_joined(&self) -> bool {
        self.pending_joins.is_empty() && self.awaiting_join_count() == self.members.len()
    }

    /// The longest of the members' rebalance timeouts.
    pub(crate) fn rebalance_timeout_ms(&self) -> i64 {
        self.members
            .values()
            .map(|member| i64::from(member.rebalance_timeout_ms))
            .max()
            .unwrap_or(0)
    }

    pub(crate) fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    /// Whether the group may still need the offsets of a topic. A consumer group whose subscriptions
    /// cannot be read may need any.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    pub(crate) fn compute_subscribed(&self) -> Option<BTreeSet<String>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            let protocol = self.protocol.as_deref()?;
            topics.extend(subscribed_topics(member.metadata(protocol)).ok()?);
        }
        Some(topics)
    }

    /// Whether a member with these protocols has one in common with all others.
    pub(crate) fn supports(&self, protocol_type: &str, protocols: &[(String, Vec<u8>)]) -> bool {
        if self.state == GroupState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols
                .iter()
                .any(|(name, _)| self.members.values().all(|member| member.supports(name)))
    }

    /// The protocol with most votes among those that all members have; each votes for the first such
    /// of its own. Equal votes are decided like Kafka's, by the order of a Java hash map.
    pub(crate) fn select_protocol(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member
                .protocols
                .iter()
                .map(|(name, _)| name.as_str())
                .find(|name| self.members.values().all(|other| other.supports(name)));
            *votes.entry(vote?).or_default() += 1;
        }
        let mut slots = 16u32;
        while votes.len() as u32 * 4 > slots * 3 {
            slots *= 2;
        }
        let slot = |name: &str| {
            let hash = java_string_hash(name) as u32;
            (hash ^ (hash >> 16)) & (slots - 1)
        };
        votes
            .into_iter()
            .max_by_key(|(name, count)| (*count, std::cmp::Reverse(slot(name))))
            .map(|(name, _)| name.to_owned())
    }

    /// Whether a call's member and instance are who they say (KIP-345).
    pub(crate) fn check_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(current) if &**current != member_id => {
                    return Err(GroupError::FencedInstanceId);
                }
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) {
            Ok(())
        } else {
            Err(GroupError::UnknownMemberId)
        }
    }

    pub(crate) fn add_member(&mut self, member: Member) {
        if let Some(instance_id) = &member.instance_id {
            let before = self
                .static_members
                .insert(instance_id.clone(), member.id.clone());
            assert!(before.is_none(), "an instance has one member");
        }
        self.pending_joins.remove(&member.id);
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        self.members.insert(member.id.clone(), member);
    }

    /// Takes out a member or a pending id; what it still waits for is answered UNKNOWN_MEMBER_ID.
    pub(crate) fn remove_member(&mut self, turn: &mut Turn<'_>, member_id: &str) {
        self.pending_joins.remove(member_id);
        self.pending_syncs.remove(member_id);
        if let Some(member) = self.members.remove(member_id) {
            if let Some(instance_id) = &member.instance_id {
                self.static_members.remove(instance_id);
            }
            if let Some(token) = member.awaiting_join {
                turn.answer_join(token, JoinAnswer::error(GroupError::UnknownMemberId, ""));
            }
            if let Some(token) = member.awaiting_sync {
                turn.answer_sync(token, SyncAnswer::error(GroupError::UnknownMemberId));
            }
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Gives a static member a new id; whoever still waits under the old one is fenced.
    pub(crate) fn replace_static_member(
        &mut self,
        turn: &mut Turn<'_>,
        old_id: &str,
        new_id: Rc<str>,
    ) {
        let mut member = self
            .members
            .remove(old_id)
            .expect("a static member is a member");
        if let Some(token) = member.awaiting_join.take() {
            turn.answer_join(
                token,
                JoinAnswer::error(GroupError::FencedInstanceId, old_id),
            );
        }
        if let Some(token) = member.awaiting_sync.take() {
            turn.answer_sync(token, SyncAnswer::error(GroupError::FencedInstanceId));
        }
        member.id = new_id.clone();
        member.is_new = false;
        member.session = Alarm::default();
        if let Some(instance_id) = &member.instance_id {
            self.static_members
                .insert(instance_id.clone(), new_id.clone());
        }
        if self.pending_syncs.remove(old_id) {
            self.pending_syncs.insert(new_id.clone());
        }
        if self.is_leader(old_id) {
            self.leader = Some(new_id.clone());
        }
        self.members.insert(new_id, member);
    }

    /// Expects to hear from a member within `timeout_ms`.
    pub(crate) fn expect_member(&mut self, turn: &mut Turn<'_>, member_id: &str, timeout_ms: i64) {
        let due_us = turn.due_us(timeout_ms);
        let Some(member) = self.members.get_mut(member_id) else {
            return;
        };
        let (partition, group, id) = (turn.partition, &self.id, &member.id);
        member.session.set(due_us, turn.timers, || Timer::Session {
            partition,
            group: group.clone(),
            member: id.clone(),
        });
    }

    /// A sign of life: expects the next within the member's session timeout.
    pub(crate) fn heard_from(&mut self, turn: &mut Turn<'_>, member_id: &str) {
        if let Some(member) = self.members.get(member_id) {
            let timeout_ms = i64::from(member.session_timeout_ms);
            self.expect_member(turn, member_id, timeout_ms);
        }
    }

    /// The answer to a join of a member in this generation.
    pub(crate) fn join_answer(&self, member_id: &str, with_members: bool) -> JoinAnswer {
        JoinAnswer {
            error: GroupError::None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            leader: self.leader_name(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members: if with_members {
                let protocol = self.protocol.as_deref().unwrap_or_default();
                self.members
                    .values()
                    .map(|member| member.joined(protocol))
                    .collect()
            } else {
                Vec::new()
            },
        }
    }

    pub(crate) fn describe(&self) -> DescribeAnswer {
        let protocol = match self.state {
            GroupState::Stable => self.protocol.as_deref(),
            _ => None,
        };
        DescribeAnswer {
            error: GroupError::None,
            state: self.state.name(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: protocol.unwrap_or_default().to_owned(),
            members: self
                .members
                .values()
                .map(|member| member.described(protocol))
                .collect(),
        }
    }

    pub(crate) fn listed(&self) -> ListedGroup {
        ListedGroup {
            group_id: self.id.to_string(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            state: self.state.name(),
            group_type: "classic",
        }
    }

    /// Answers everything that waits: the group's partition is lost.
    pub(crate) fn fail_waiting(
        &mut self,
        answers: &mut Vec<(ReplyToken, GroupAnswer)>,
        error: GroupError,
    ) {
        for member in self.members.values_mut() {
            if let Some(token) = member.awaiting_join.take() {
                let answer = JoinAnswer::error(error, &member.id);
                answers.push((token, GroupAnswer::Join(answer)));
            }
            if let Some(token) = member.awaiting_sync.take() {
                answers.push((token, GroupAnswer::Sync(SyncAnswer::error(error))));
            }
        }
    }
}
