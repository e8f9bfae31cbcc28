//! The classic group protocol: how joins, syncs, heartbeats, departures and time-outs move a group
//! through its generations (KIP-62, KIP-134, KIP-345, KIP-394, KIP-559, KIP-814). Changes one group at a
//! time; knows no other group and not when records become durable.

use std::rc::Rc;

use super::call::{
    GroupError, HeartbeatCall, JoinAnswer, JoinCall, LeaveCall, LeavingMember, ReplyToken,
    SyncAnswer, SyncCall,
};
use super::classic::{Group, GroupState, InitialDelay, Turn};
use super::member::Member;
use super::timers::{Alarm, Timer};

/// A join that nobody picks up again must not keep its new member in the group for ever.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1000;

/// A new dynamic member comes back with the id it is given from this version on (KIP-394).
const JOIN_VERSION_ID_REQUIRED: i16 = 4;

/// A returning static leader understands "skip the assignment" from this version on (KIP-814).
const JOIN_VERSION_SKIP_ASSIGNMENT: i16 = 9;

impl Group {
    /// JoinGroup. The answer may come with a later change.
    pub(crate) fn join(&mut self, turn: &mut Turn<'_>, token: ReplyToken, call: JoinCall) {
        if !self.accepts_joining(turn, &call.member_id) {
            self.remove_member(turn, &call.member_id);
            turn.answer_join(
                token,
                JoinAnswer::error(GroupError::GroupMaxSizeReached, ""),
            );
        } else if !self.supports(&call.protocol_type, &call.protocols) {
            let error = GroupError::InconsistentGroupProtocol;
            turn.answer_join(token, JoinAnswer::error(error, &call.member_id));
        } else if call.member_id.is_empty() {
            self.join_new(turn, token, call);
        } else {
            self.join_again(turn, token, call);
        }
    }

    /// Whether `group.max.size` leaves room for a joining member (KIP-389).
    fn accepts_joining(&self, turn: &Turn<'_>, member_id: &str) -> bool {
        let member = self.members.get(member_id);
        match self.state {
            GroupState::Empty => true,
            // The waiting ones count: who has not come again may be dropped.
            GroupState::PreparingRebalance => {
                member.is_some_and(|member| member.awaiting_join.is_some())
                    || self.awaiting_join_count() < turn.config.size_max
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                member.is_some() || self.members.len() < turn.config.size_max
            }
        }
    }

    fn join_new(&mut self, turn: &mut Turn<'_>, token: ReplyToken, call: JoinCall) {
        let prefix = call.instance_id.as_ref().unwrap_or(&call.client_id);
        let id: Rc<str> = format!("{prefix}-{}", turn.random.uuid()).into();
        if let Some(instance_id) = &call.instance_id {
            match self.static_members.get(instance_id).cloned() {
                Some(old_id) => self.return_static(turn, token, call, &old_id, id),
                None => self.add_and_rebalance(turn, token, call, id),
            }
        } else if call.api_version >= JOIN_VERSION_ID_REQUIRED {
            let due_us = turn.due_us(i64::from(call.session_timeout_ms));
            let mut alarm = Alarm::default();
            alarm.set(due_us, turn.timers, || Timer::Session {
                partition: turn.partition,
                group: self.id.clone(),
                member: id.clone(),
            });
            turn.answer_join(token, JoinAnswer::error(GroupError::MemberIdRequired, &id));
            self.pending_joins.insert(id, alarm);
        } else {
            self.add_and_rebalance(turn, token, call, id);
        }
    }

    fn join_again(&mut self, turn: &mut Turn<'_>, token: ReplyToken, call: JoinCall) {
        let id: Rc<str> = call.member_id.as_str().into();
        if self.pending_joins.contains_key(&id) {
            if call.instance_id.is_some() {
                // Ids that were handed out belong to dynamic members; Kafka has no better answer.
                let error = GroupError::UnknownServerError;
                turn.answer_join(token, JoinAnswer::error(error, &id));
            } else {
                self.add_and_rebalance(turn, token, call, id);
            }
            return;
        }
        if let Err(error) = self.check_member(&id, call.instance_id.as_deref()) {
            turn.answer_join(token, JoinAnswer::error(error, &id));
            return;
        }
        let unchanged = self.members[&id].protocols == call.protocols;
        match self.state {
            // It may not have got the answer to its first join.
            GroupState::CompletingRebalance if unchanged => {
                let answer = self.join_answer(&id, self.is_leader(&id));
                turn.answer_join(token, answer);
            }
            // The leader may know of a change that its metadata does not show.
            GroupState::Stable if unchanged && !self.is_leader(&id) => {
                let answer = self.join_answer(&id, false);
                turn.answer_join(token, answer);
            }
            GroupState::Empty => {
                let error = GroupError::UnknownMemberId;
                turn.answer_join(token, JoinAnswer::error(error, &id));
            }
            _ => {
                self.update_member(turn, token, call, &id);
                self.rebalance_or_complete_join(turn);
            }
        }
    }

    fn add_and_rebalance(
        &mut self,
        turn: &mut Turn<'_>,
        token: ReplyToken,
        call: JoinCall,
        id: Rc<str>,
    ) {
        if self.members.is_empty() {
            self.protocol_type = Some(call.protocol_type);
        }
        if self.state == GroupState::PreparingRebalance && self.previous_state == GroupState::Empty
        {
            self.new_member_added = true;
        }
        self.add_member(Member {
            id: id.clone(),
            instance_id: call.instance_id,
            client_id: call.client_id,
            client_host: call.client_host,
            rebalance_timeout_ms: call.rebalance_timeout_ms,
            session_timeout_ms: call.session_timeout_ms,
            protocols: call.protocols,
            assignment: Vec::new(),
            awaiting_join: Some(token),
            awaiting_sync: None,
            is_new: true,
            session: Alarm::default(),
        });
        self.expect_member(turn, &id, NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.rebalance_or_complete_join(turn);
    }

    fn update_member(
        &mut self,
        turn: &mut Turn<'_>,
        token: ReplyToken,
        call: JoinCall,
        member_id: &str,
    ) {
        let member = self
            .members
            .get_mut(member_id)
            .expect("only a member is updated");
        member.protocols = call.protocols;
        member.rebalance_timeout_ms = call.rebalance_timeout_ms;
        member.session_timeout_ms = call.session_timeout_ms;
        if let Some(superseded) = member.awaiting_join.replace(token) {
            // The member asked anew, most likely over a new connection.
            let error = GroupError::RebalanceInProgress;
            turn.answer_join(superseded, JoinAnswer::error(error, member_id));
        }
    }

    /// A static member without an id, whose instance is known: it was restarted (KIP-345).
    fn return_static(
        &mut self,
        turn: &mut Turn<'_>,
        token: ReplyToken,
        call: JoinCall,
        old_id: &str,
        id: Rc<str>,
    ) {
        let leader_before = self.leader_name();
        let skips_assignment = call.api_version >= JOIN_VERSION_SKIP_ASSIGNMENT;
        self.replace_static_member(turn, old_id, id.clone());
        self.update_member(turn, token, call, &id);
        self.heard_from(turn, &id);
        match self.state {
            GroupState::Stable => {
                if self.protocol.is_some() && self.select_protocol() == self.protocol {
                    // The assignment stands under the new id.
                    let member = self.members.get_mut(&id).expect("it was just replaced");
                    member.awaiting_join = None;
                    turn.records.push(self.record());
                    let is_leader = self.is_leader(&id);
                    let answer = if skips_assignment {
                        JoinAnswer {
                            skip_assignment: is_leader,
                            ..self.join_answer(&id, is_leader)
                        }
                    } else {
                        // An old client that sees itself as the leader would assign anew.
                        JoinAnswer {
                            leader: leader_before,
                            ..self.join_answer(&id, false)
                        }
                    };
                    turn.answer_join(token, answer);
                } else {
                    self.rebalance_or_complete_join(turn);
                }
            }
            // The leader may already assign to the old id.
            GroupState::CompletingRebalance => self.prepare_rebalance(turn),
            GroupState::PreparingRebalance => self.complete_join_if_all_joined(turn),
            GroupState::Empty => unreachable!("an empty group has no static members"),
        }
    }

    fn rebalance_or_complete_join(&mut self, turn: &mut Turn<'_>) {
        if self.can_rebalance() {
            self.prepare_rebalance(turn);
        } else {
            self.complete_join_if_all_joined(turn);
        }
    }

    /// Asks all members to join again.
    pub(crate) fn prepare_rebalance(&mut self, turn: &mut Turn<'_>) {
        if self.state == GroupState::CompletingRebalance {
            self.cancel_assignment(turn, GroupError::RebalanceInProgress);
        }
        self.pending_syncs.clear();
        self.sync_alarm.clear();
        let is_initial = self.state == GroupState::Empty;
        self.move_to(GroupState::PreparingRebalance, turn.now);
        if is_initial {
            // A new group waits for more members, so that its first generation has most of them.
            let delay_ms = turn.config.initial_rebalance_delay_ms;
            self.initial_delay = Some(InitialDelay {
                delay_ms,
                remaining_ms: (self.rebalance_timeout_ms() - delay_ms).max(0),
            });
            self.new_member_added = false;
            self.set_join_alarm(turn, delay_ms);
        } else if self.all_joined() {
            self.complete_join(turn);
        } else {
            self.set_join_alarm(turn, self.rebalance_timeout_ms());
        }
    }

    fn set_join_alarm(&mut self, turn: &mut Turn<'_>, delay_ms: i64) {
        let due_us = turn.due_us(delay_ms);
        let (partition, group) = (turn.partition, &self.id);
        self.join_alarm.set(due_us, turn.timers, || Timer::Join {
            partition,
            group: group.clone(),
        });
    }

    /// Ends the join phase when nobody is missing; a new group waits its delay out.
    fn complete_join_if_all_joined(&mut self, turn: &mut Turn<'_>) {
        if self.state == GroupState::PreparingRebalance
            && self.previous_state != GroupState::Empty
            && self.all_joined()
        {
            self.complete_join(turn);
        }
    }

    /// The join phase's time is over.
    pub(crate) fn join_time_over(&mut self, turn: &mut Turn<'_>) {
        if self.state != GroupState::PreparingRebalance {
            return;
        }
        if let Some(initial) = self.initial_delay
            && self.new_member_added
            && initial.remaining_ms != 0
        {
            self.new_member_added = false;
            let delay_ms = turn
                .config
                .initial_rebalance_delay_ms
                .min(initial.remaining_ms);
            self.initial_delay = Some(InitialDelay {
                delay_ms,
                remaining_ms: (initial.remaining_ms - initial.delay_ms).max(0),
            });
            self.set_join_alarm(turn, delay_ms);
        } else {
            self.complete_join(turn);
        }
    }

    fn complete_join(&mut self, turn: &mut Turn<'_>) {
        self.join_alarm.clear();
        self.initial_delay = None;
        // Static members may come back within their session; the others are out.
        let missing: Vec<Rc<str>> = self
            .members
            .values()
            .filter(|member| member.awaiting_join.is_none() && member.instance_id.is_none())
            .map(|member| member.id.clone())
            .collect();
        for id in missing {
            self.remove_member(turn, &id);
        }
        if !self.members.is_empty() && !self.elect_joined_leader() {
            // Nobody came: wait until sessions end, or somebody does.
            self.set_join_alarm(turn, self.rebalance_timeout_ms());
            return;
        }
        self.generation = self.generation.wrapping_add(1);
        self.pending_syncs.clear();
        if self.members.is_empty() {
            self.protocol = None;
            self.subscribed = self.compute_subscribed();
            self.move_to(GroupState::Empty, turn.now);
            turn.records.push(self.record());
            return;
        }
        self.protocol = self.select_protocol();
        assert!(
            self.protocol.is_some(),
            "joins without a common protocol are refused"
        );
        self.subscribed = self.compute_subscribed();
        self.move_to(GroupState::CompletingRebalance, turn.now);
        let ids: Vec<Rc<str>> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = self.join_answer(&id, self.is_leader(&id));
            let member = self.members.get_mut(&id).expect("it is one of them");
            member.is_new = false;
            if let Some(token) = member.awaiting_join.take() {
                turn.answer_join(token, answer);
            }
            self.heard_from(turn, &id);
            self.pending_syncs.insert(id);
        }
        let due_us = turn.due_us(self.rebalance_timeout_ms());
        let (partition, group) = (turn.partition, &self.id);
        self.sync_alarm.set(due_us, turn.timers, || Timer::Sync {
            partition,
            group: group.clone(),
        });
    }

    /// Makes sure that the leader is one that has joined; false where nobody has.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |id: &Rc<str>| {
            self.members
                .get(id)
                .is_some_and(|member| member.awaiting_join.is_some())
        };
        if !self.leader.as_ref().is_some_and(joined) {
            let Some(elected) = self.members.keys().find(|id| joined(id)).cloned() else {
                return false;
            };
            self.leader = Some(elected);
        }
        true
    }

    /// SyncGroup. The answer may come with the leader's assignment.
    pub(crate) fn sync(&mut self, turn: &mut Turn<'_>, token: ReplyToken, call: SyncCall) {
        if let Err(error) = self.check_sync(&call) {
            turn.answer_sync(token, SyncAnswer::error(error));
            return;
        }
        match self.state {
            GroupState::Empty => {
                turn.answer_sync(token, SyncAnswer::error(GroupError::UnknownMemberId));
            }
            GroupState::PreparingRebalance => {
                turn.answer_sync(token, SyncAnswer::error(GroupError::RebalanceInProgress));
            }
            GroupState::CompletingRebalance => {
                let member = self
                    .members
                    .get_mut(call.member_id.as_str())
                    .expect("it was checked");
                if let Some(superseded) = member.awaiting_sync.replace(token) {
                    let error = GroupError::RebalanceInProgress;
                    turn.answer_sync(superseded, SyncAnswer::error(error));
                }
                self.has_synced(&call.member_id);
                if self.is_leader(&call.member_id) {
                    self.take_assignment(turn, call.assignments);
                }
            }
            GroupState::Stable => {
                self.has_synced(&call.member_id);
                let answer = self.sync_answer(&call.member_id);
                turn.answer_sync(token, answer);
            }
        }
    }

    fn check_sync(&self, call: &SyncCall) -> Result<(), GroupError> {
        self.check_member(&call.member_id, call.instance_id.as_deref())?;
        if call.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        // Either side may not know (KIP-559).
        let differs = |theirs: &Option<String>, ours: &Option<String>| {
            theirs.is_some() && ours.is_some() && theirs != ours
        };
        if differs(&call.protocol_type, &self.protocol_type)
            || differs(&call.protocol_name, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn has_synced(&mut self, member_id: &str) {
        self.pending_syncs.remove(member_id);
        if self.pending_syncs.is_empty() {
            self.sync_alarm.clear();
        }
    }

    fn sync_answer(&self, member_id: &str) -> SyncAnswer {
        SyncAnswer {
            error: GroupError::None,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            assignment: self.members[member_id].assignment.clone(),
        }
    }

    /// The leader's assignment: members it left out get nothing.
    fn take_assignment(&mut self, turn: &mut Turn<'_>, assignments: Vec<(String, Vec<u8>)>) {
        for member in self.members.values_mut() {
            member.assignment.clear();
        }
        for (member_id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(member_id.as_str()) {
                member.assignment = assignment;
            }
        }
        self.move_to(GroupState::Stable, turn.now);
        let record = self.record();
        let record_bytes = record.key.len() + record.value.as_ref().map_or(0, Vec::len);
        if record_bytes > turn.config.record_bytes_max {
            self.cancel_assignment(turn, GroupError::UnknownServerError);
            self.prepare_rebalance(turn);
            return;
        }
        turn.records.push(record);
        self.answer_syncs(turn, |group, id| group.sync_answer(id));
    }

    /// Takes all assignments back and tells those that wait for one.
    fn cancel_assignment(&mut self, turn: &mut Turn<'_>, error: GroupError) {
        for member in self.members.values_mut() {
            member.assignment.clear();
        }
        self.answer_syncs(turn, |_, _| SyncAnswer::error(error));
    }

    fn answer_syncs(&mut self, turn: &mut Turn<'_>, answer: impl Fn(&Group, &str) -> SyncAnswer) {
        let waiting: Vec<(Rc<str>, ReplyToken)> = self
            .members
            .values_mut()
            .filter_map(|member| Some((member.id.clone(), member.awaiting_sync.take()?)))
            .collect();
        for (id, token) in waiting {
            turn.answer_sync(token, answer(self, &id));
            // Its session may have run out while it waited.
            self.heard_from(turn, &id);
        }
    }

    /// The sync phase's time is over: who has not synced is out.
    pub(crate) fn sync_time_over(&mut self, turn: &mut Turn<'_>) {
        let in_generation = matches!(
            self.state,
            GroupState::CompletingRebalance | GroupState::Stable
        );
        if in_generation && !self.pending_syncs.is_empty() {
            for id in std::mem::take(&mut self.pending_syncs) {
                self.remove_member(turn, &id);
            }
            self.prepare_rebalance(turn);
        }
    }

    /// Heartbeat.
    pub(crate) fn heartbeat(&mut self, turn: &mut Turn<'_>, call: &HeartbeatCall) -> GroupError {
        if let Err(error) = self.check_member(&call.member_id, call.instance_id.as_deref()) {
            return error;
        }
        if call.generation != self.generation {
            return GroupError::IllegalGeneration;
        }
        self.heard_from(turn, &call.member_id);
        match self.state {
            GroupState::Empty => GroupError::UnknownMemberId,
            GroupState::PreparingRebalance => GroupError::RebalanceInProgress,
            GroupState::CompletingRebalance | GroupState::Stable => GroupError::None,
        }
    }

    /// A member, or an id that was handed out, was not heard from in time.
    pub(crate) fn session_over(&mut self, turn: &mut Turn<'_>, member_id: &str) {
        let is_pending = self.pending_joins.contains_key(member_id);
        match self.members.get(member_id) {
            Some(member) if member.is_alive_without_heartbeat() => return,
            None if !is_pending => return,
            _ => {}
        }
        self.remove_member(turn, member_id);
        match self.state {
            GroupState::Stable | GroupState::CompletingRebalance if !is_pending => {
                self.prepare_rebalance(turn);
            }
            GroupState::PreparingRebalance if self.all_joined() => self.complete_join(turn),
            _ => {}
        }
    }

    /// LeaveGroup, of each member for itself.
    pub(crate) fn leave(
        &mut self,
        turn: &mut Turn<'_>,
        call: LeaveCall,
    ) -> Vec<(LeavingMember, GroupError)> {
        let results: Vec<(LeavingMember, GroupError)> = call
            .members
            .into_iter()
            .map(|leaving| {
                let error = self.leave_one(turn, &leaving);
                (leaving, error)
            })
            .collect();
        if results.iter().any(|(_, error)| *error == GroupError::None) {
            match self.state {
                GroupState::Stable | GroupState::CompletingRebalance => {
                    self.prepare_rebalance(turn);
                }
                GroupState::PreparingRebalance => self.complete_join_if_all_joined(turn),
                GroupState::Empty => {}
            }
        }
        results
    }

    fn leave_one(&mut self, turn: &mut Turn<'_>, leaving: &LeavingMember) -> GroupError {
        let instance_id = leaving.instance_id.as_deref();
        let member_id: Rc<str> = if leaving.member_id.is_empty() {
            // An administrator removes a static member by its instance.
            match instance_id.and_then(|instance_id| self.static_members.get(instance_id)) {
                Some(member_id) => member_id.clone(),
                None => return GroupError::UnknownMemberId,
            }
        } else {
            leaving.member_id.as_str().into()
        };
        if !self.pending_joins.contains_key(&member_id)
            && let Err(error) = self.check_member(&member_id, instance_id)
        {
            return error;
        }
        self.remove_member(turn, &member_id);
        GroupError::None
    }
}
