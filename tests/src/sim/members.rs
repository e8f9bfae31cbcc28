//! The members of one consumer group: they join, share out partitions, say that they live, commit, fall
//! silent and leave, each on a connection of its own. Knows what the classic protocol promises to members,
//! and no coordinator.

use std::collections::{BTreeMap, BTreeSet};

use net::kafka::ApiKey;
use net::kafka::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use net::kafka::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use net::kafka::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberIdentity};
use net::kafka::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse};

use super::actor::{Actor, gone};
use super::client::{Answer, Client, Context, between, pick};
use super::commits::{Commits, Name};
use super::committer::{
    NOT_YET, ask_commit, ask_committed, ask_coordinator, commit_error, committed, coordinator_error,
};
use super::model::ensure;
use super::world::World;

const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER_ID: i16 = 25;
const REBALANCE_IN_PROGRESS: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;

/// The kind of group, and the only protocol of its members.
/// How long a member may have to wait for the others, in microseconds: until the slowest is given up, in
/// the rebalance that it held up and in the one that follows.
const OTHERS_US_MAX: u64 = 2 * (150_000 + 60_000);

const KIND: &str = "consumer";
const PROTOCOL: &str = "range";

/// What each member gets, as its leader handed it out.
type Assignments = BTreeMap<String, Vec<u8>>;

/// What a member asked, each with the newest generation that was known of then.
#[derive(Debug)]
enum MemberAsked {
    /// Who coordinates the group.
    Find,
    /// To enter.
    Join { floor: i32 },
    /// Its share.
    Sync { generation: i32, floor: i32 },
    /// Whether it is still a member.
    Heartbeat { generation: i32, floor: i32 },
    /// To keep an offset.
    Commit {
        name: Name,
        offset: i64,
        generation: i32,
        floor: i32,
    },
    /// What offset is kept.
    Read(Name),
    /// To be let go.
    Leave,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Out,
    /// Waits for an answer to its join or its sync.
    Waiting,
    /// It has joined; where it leads, with all members.
    Joined(Option<Vec<String>>),
    /// It has its share.
    In(Vec<Name>),
}

#[derive(Debug, Default)]
struct Member {
    client: Client<MemberAsked>,
    found: bool,
    state: State,
    id: String,
    generation: i32,
    metadata: Vec<u8>,
    silent_until_us: u64,
}

/// What holds for the group as a whole.
#[derive(Debug, Default)]
struct Group {
    name: String,
    start: u64,
    /// The newest generation that is surely durable: a member has its share of it.
    durable: i32,
    /// The newest generation that this start of the broker told of.
    newest: i32,
    /// An answer showed that the coordinator has read the group back. Before, it says to every heartbeat
    /// that all is well, as Kafka does: a start is no reason for members to join again.
    loaded: bool,
    /// Who leads each generation of this start.
    leaders: BTreeMap<i32, String>,
    /// What leaders handed out in each generation: more than one thing only if the broker lost the first.
    handed_out: BTreeMap<i32, Vec<Assignments>>,
    /// Which of them holds, once a member was told.
    holds: BTreeMap<i32, usize>,
    /// Who owns a partition in a generation.
    owners: BTreeMap<(i32, Name), String>,
    /// All that members ever said of themselves.
    metadata: BTreeSet<Vec<u8>>,
    commits: Commits,
    next_word: u32,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Members {
    group: Group,
    members: Vec<Member>,
}

impl Members {
    /// A group with this name and at most so many members.
    pub fn new(name: String, count: usize) -> Members {
        let group = Group {
            name,
            ..Group::default()
        };
        Members {
            group,
            members: (0..count).map(|_| Member::default()).collect(),
        }
    }
}

impl Group {
    /// A broker that was started again may give a generation a second time that nobody had a share of.
    fn on_start(&mut self, cx: &Context<'_>) {
        let start = cx.world.start_count();
        self.commits.on_start(start, cx.world.time_us());
        if std::mem::replace(&mut self.start, start) != start || cx.world.is_troubled() {
            self.newest = self.durable;
            self.loaded = false;
            self.leaders.clear();
        }
    }

    fn word(&mut self) -> u32 {
        self.next_word += 1;
        self.next_word
    }

    /// What a member tells of itself: a subscription to all topics, and a word that nobody said before.
    fn new_metadata(&mut self, cx: &Context<'_>) -> Vec<u8> {
        let mut bytes = vec![0, 0];
        let live = cx.model.live();
        bytes.extend((live.len() as i32).to_be_bytes());
        for topic in live {
            let name = cx.model.topics[topic].name.as_bytes();
            bytes.extend((name.len() as i16).to_be_bytes());
            bytes.extend(name);
        }
        bytes.extend(4i32.to_be_bytes());
        bytes.extend(self.word().to_be_bytes());
        self.metadata.insert(bytes.clone());
        bytes
    }

    /// Shares out all partitions.
    fn assign(&mut self, cx: &mut Context<'_>, members: &[String]) -> Assignments {
        let word = self.word();
        let mut shares: BTreeMap<&String, Vec<Name>> =
            members.iter().map(|id| (id, Vec::new())).collect();
        for topic in cx.model.live() {
            for partition in 0..cx.model.topics[topic].partitions.len() {
                let id = &members[cx.rng.below(members.len() as u64) as usize];
                if let Some(share) = shares.get_mut(id) {
                    share.push((topic, partition as i32));
                }
            }
        }
        shares
            .into_iter()
            .map(|(id, share)| {
                let mut bytes = word.to_be_bytes().to_vec();
                for (topic, partition) in share {
                    bytes.extend((topic as u32).to_be_bytes());
                    bytes.extend(partition.to_be_bytes());
                }
                (id.clone(), bytes)
            })
            .collect()
    }

    /// A member was told its share: it is what one leader handed out, and nobody else has it.
    fn on_share(&mut self, generation: i32, id: &str, bytes: &[u8]) -> Result<Vec<Name>, String> {
        let who = format!("{id} in generation {generation} of group {}", self.name);
        let handed_out = self.handed_out.entry(generation).or_default();
        let found = handed_out
            .iter()
            .position(|shares| shares.get(id).is_some_and(|share| share == bytes));
        let Some(found) = found else {
            return Err(format!(
                "{who} got {bytes:?}, which no leader gave it; handed out: {handed_out:?}"
            ));
        };
        let holds = *self.holds.entry(generation).or_insert(found);
        ensure!(
            holds == found,
            "{who} got its share of assignment {found}, and another member that of {holds}"
        );
        let word = |at: usize| {
            let bytes = bytes[at..at + 4].first_chunk::<4>();
            bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
        };
        let mut share = Vec::new();
        for at in (4..bytes.len()).step_by(8) {
            let name = (word(at) as usize, word(at + 4) as i32);
            let owner = self
                .owners
                .entry((generation, name))
                .or_insert_with(|| id.to_owned());
            ensure!(owner == id, "{who} owns {name:?}, which {owner} owns");
            share.push(name);
        }
        self.durable = self.durable.max(generation);
        self.newest = self.newest.max(generation);
        Ok(share)
    }
}

/// One member's turn.
struct Turn<'a, 'c> {
    group: &'a mut Group,
    member: &'a mut Member,
    cx: &'a mut Context<'c>,
}

impl Turn<'_, '_> {
    fn act(&mut self) -> Result<(), String> {
        let member = &mut *self.member;
        let open = member.client.open_count();
        if self.cx.world.time_us() < member.silent_until_us || open >= 3 {
            return Ok(());
        }
        if self.cx.rng.one_in(120) {
            member.client.disconnect(self.cx);
            return Ok(());
        }
        match &member.state {
            State::Out if open > 0 => Ok(()),
            State::Out if !member.found => ask_coordinator(
                &mut member.client,
                self.cx,
                &self.group.name,
                MemberAsked::Find,
            ),
            State::Out => self.join(),
            State::Waiting => Ok(()),
            State::Joined(_) => self.sync(),
            State::In(_) => self.live(),
        }
    }

    fn join(&mut self) -> Result<(), String> {
        let metadata = self.group.new_metadata(self.cx);
        let member = &mut *self.member;
        if member.metadata.is_empty() || self.cx.rng.one_in(2) {
            member.metadata = metadata;
        }
        let request = JoinGroupRequest {
            group_id: self.group.name.clone().into(),
            session_timeout_ms: between(self.cx.rng, 20, 150) as i32,
            rebalance_timeout_ms: between(self.cx.rng, 5, 60) as i32,
            member_id: member.id.clone().into(),
            protocol_type: KIND.into(),
            protocols: vec![JoinGroupRequestProtocol {
                name: PROTOCOL.into(),
                metadata: member.metadata.clone().into(),
            }],
            ..Default::default()
        };
        member.state = State::Waiting;
        let version = between(self.cx.rng, 1, 9) as i16;
        let what = MemberAsked::Join {
            floor: self.group.newest,
        };
        let write = |writer: &mut _, version| request.encode(writer, version);
        let asked = (ApiKey::JoinGroup, version);
        member
            .client
            .ask_to_wait(self.cx, asked, what, true, OTHERS_US_MAX, write)
    }

    fn sync(&mut self) -> Result<(), String> {
        let member = &mut *self.member;
        let generation = member.generation;
        let mut assignments = Vec::new();
        if let State::Joined(Some(members)) = &member.state {
            let shares = self.group.assign(self.cx, members);
            for (id, bytes) in &shares {
                assignments.push(SyncGroupRequestAssignment {
                    member_id: id.clone().into(),
                    assignment: bytes.clone().into(),
                });
            }
            let handed_out = self.group.handed_out.entry(generation).or_default();
            handed_out.push(shares);
        }
        let request = SyncGroupRequest {
            group_id: self.group.name.clone().into(),
            generation_id: generation,
            member_id: member.id.clone().into(),
            group_instance_id: None,
            protocol_type: Some(KIND.into()),
            protocol_name: Some(PROTOCOL.into()),
            assignments,
        };
        member.state = State::Waiting;
        let version = between(self.cx.rng, 0, 5) as i16;
        let floor = self.group.newest;
        let what = MemberAsked::Sync { generation, floor };
        let write = |writer: &mut _, version| request.encode(writer, version);
        let asked = (ApiKey::SyncGroup, version);
        member
            .client
            .ask_to_wait(self.cx, asked, what, true, OTHERS_US_MAX, write)
    }

    /// What a member does that has its share.
    fn live(&mut self) -> Result<(), String> {
        let State::In(share) = &self.member.state else {
            return Ok(());
        };
        let share: Vec<Name> = share
            .iter()
            .filter(|name| !gone(self.cx.model, name.0))
            .copied()
            .collect();
        match self.cx.rng.below(100) {
            0 => self.leave(),
            1 => {
                let silence_us = between(self.cx.rng, 5_000, 200_000) as u64;
                self.member.silent_until_us = self.cx.world.time_us() + silence_us;
                Ok(())
            }
            2 => self.join(),
            3..40 if !share.is_empty() => {
                let name = pick(self.cx.rng, &share);
                self.commit(name)
            }
            40..60 if !share.is_empty() => {
                let name = pick(self.cx.rng, &share);
                let version = between(self.cx.rng, 1, 10) as i16;
                let what = MemberAsked::Read(name);
                let client = &mut self.member.client;
                ask_committed(client, self.cx, &self.group.name, name, version, what)
            }
            _ => self.heartbeat(),
        }
    }

    fn commit(&mut self, name: Name) -> Result<(), String> {
        let version = between(self.cx.rng, 2, 10) as i16;
        let now_us = self.cx.world.time_us();
        let offset = self.group.commits.send(name, version, now_us);
        let generation = self.member.generation;
        let what = MemberAsked::Commit {
            name,
            offset,
            generation,
            floor: self.group.newest,
        };
        let id = self.member.id.clone();
        ask_commit(
            &mut self.member.client,
            self.cx,
            &self.group.name,
            (&id, generation),
            (name, offset),
            (version, what),
        )
    }

    fn heartbeat(&mut self) -> Result<(), String> {
        let member = &mut *self.member;
        let generation = member.generation;
        let request = HeartbeatRequest {
            group_id: self.group.name.clone().into(),
            generation_id: generation,
            member_id: member.id.clone().into(),
            group_instance_id: None,
        };
        let floor = if self.group.loaded {
            self.group.newest
        } else {
            0
        };
        let what = MemberAsked::Heartbeat { generation, floor };
        let version = between(self.cx.rng, 0, 4) as i16;
        let write = |writer: &mut _, version| request.encode(writer, version);
        member
            .client
            .ask(self.cx, ApiKey::Heartbeat, version, what, true, write)
    }

    fn leave(&mut self) -> Result<(), String> {
        let member = &mut *self.member;
        let id = std::mem::take(&mut member.id);
        member.state = State::Out;
        let request = LeaveGroupRequest {
            group_id: self.group.name.clone().into(),
            member_id: id.clone().into(),
            members: vec![MemberIdentity {
                member_id: id.into(),
                ..Default::default()
            }],
        };
        let version = between(self.cx.rng, 0, 5) as i16;
        let write = |writer: &mut _, version| request.encode(writer, version);
        let what = MemberAsked::Leave;
        member
            .client
            .ask(self.cx, ApiKey::LeaveGroup, version, what, true, write)
    }

    /// What every error means that a member may get for what it did in a generation.
    fn on_error(&mut self, what: &str, generation: i32, error: i16) -> Result<(), String> {
        let member = &mut *self.member;
        if NOT_YET.contains(&error) {
            member.found = false;
            if member.state == State::Waiting {
                member.state = State::Out;
            }
            return Ok(());
        }
        ensure!(
            matches!(
                error,
                ILLEGAL_GENERATION | UNKNOWN_MEMBER_ID | REBALANCE_IN_PROGRESS
            ),
            "{what} of {} in generation {generation} of group {} was answered with error {error}",
            member.id,
            self.group.name
        );
        self.group.loaded = true;
        // What it did before it joined again says nothing of what it is now.
        if generation == member.generation {
            let waits_again =
                member.state == State::Waiting && !matches!(what, "a join" | "a sync");
            if error == UNKNOWN_MEMBER_ID && !waits_again {
                member.id.clear();
            }
            if !waits_again {
                member.state = State::Out;
            }
        }
        Ok(())
    }

    fn on_answer(&mut self, answer: &Answer<MemberAsked>) -> Result<(), String> {
        let floor_max = self.floor_max();
        let accepted = |what: &str, generation: i32, floor: i32| {
            if generation < floor.min(floor_max) {
                return Err(format!(
                    "{what} in generation {generation} was accepted, and generation {floor} had begun"
                ));
            }
            Ok(())
        };
        let now_us = self.cx.world.time_us();
        match answer.asked.what {
            MemberAsked::Find => {
                let error = coordinator_error(answer)?;
                ensure!(
                    error == 0 || NOT_YET.contains(&error),
                    "FindCoordinator was answered with error {error}"
                );
                self.member.found = error == 0;
                Ok(())
            }
            MemberAsked::Join { floor } => self.on_joined(answer, floor),
            MemberAsked::Sync { generation, floor } => {
                let response = answer.body(SyncGroupResponse::decode)?;
                if response.error_code != 0 {
                    return self.on_error("a sync", generation, response.error_code);
                }
                self.group.loaded = true;
                accepted("a sync", generation, floor)?;
                let named = response.protocol_name.as_deref();
                ensure!(
                    answer.asked.version < 5 || named == Some(PROTOCOL),
                    "a sync was answered with protocol {named:?}"
                );
                let id = self.member.id.clone();
                let share = self.group.on_share(generation, &id, &response.assignment)?;
                self.member.state = State::In(share);
                Ok(())
            }
            MemberAsked::Heartbeat { generation, floor } => {
                let response = answer.body(HeartbeatResponse::decode)?;
                if response.error_code != 0 {
                    return self.on_error("a heartbeat", generation, response.error_code);
                }
                // A coordinator that reads its log back because an append failed says to each that all is well.
                match self.cx.world.is_troubled() {
                    true => Ok(()),
                    false => accepted("a heartbeat", generation, floor),
                }
            }
            MemberAsked::Commit {
                name,
                offset,
                generation,
                floor,
            } => match commit_error(answer)? {
                0 => {
                    self.group.loaded = true;
                    accepted("a commit", generation, floor)?;
                    self.group.commits.ack(name, offset, now_us);
                    Ok(())
                }
                3 | 100 if gone(self.cx.model, name.0) => Ok(()),
                error => {
                    if !NOT_YET.contains(&error) {
                        self.group.commits.refuse(name, offset);
                    }
                    self.on_error("a commit", generation, error)
                }
            },
            MemberAsked::Read(name) => {
                let (error, offset, metadata) = committed(answer)?;
                if NOT_YET.contains(&error) || gone(self.cx.model, name.0) {
                    return Ok(());
                }
                ensure!(error == 0, "an OffsetFetch was answered with error {error}");
                let asked_us = answer.asked.sent_us;
                let (earlier, asked_for_us) = self.cx.model.earlier_lives(name.0);
                let commits = &mut self.group.commits;
                commits.follow_name(name, &earlier, offset, asked_for_us);
                commits
                    .check_read(name, (offset, &metadata), asked_us, now_us)
                    .map_err(|why| {
                        let topic = &self.cx.model.topics[name.0].name;
                        format!("group {}, {topic}-{}: {why}", self.group.name, name.1)
                    })
            }
            MemberAsked::Leave => {
                let response = answer.body(LeaveGroupResponse::decode)?;
                let error = match response.members.first() {
                    Some(member) if response.error_code == 0 => member.error_code,
                    _ => response.error_code,
                };
                ensure!(
                    matches!(error, 0 | UNKNOWN_MEMBER_ID) || NOT_YET.contains(&error),
                    "a leave was answered with error {error}"
                );
                Ok(())
            }
        }
    }

    /// Where the log of groups takes nothing, they fall back to what it has.
    fn floor_max(&self) -> i32 {
        if self.cx.world.is_troubled() {
            self.group.durable
        } else {
            i32::MAX
        }
    }

    fn on_joined(&mut self, answer: &Answer<MemberAsked>, floor: i32) -> Result<(), String> {
        let floor = floor.min(self.floor_max());
        let response = answer.body(JoinGroupResponse::decode)?;
        let generation = response.generation_id;
        match response.error_code {
            0 => {}
            MEMBER_ID_REQUIRED => {
                self.group.loaded = true;
                let own = &mut self.member.id;
                ensure!(
                    own.is_empty() && !response.member_id.is_empty(),
                    "a join of '{own}' is to be done again as '{}'",
                    response.member_id
                );
                *own = response.member_id.into_owned();
                self.member.state = State::Out;
                return Ok(());
            }
            error => {
                let known = self.member.generation;
                return self.on_error("a join", known, error);
            }
        }
        ensure!(
            generation >= floor && generation > 0,
            "a join was answered with generation {generation}, after {floor}"
        );
        let own = response.member_id.into_owned();
        ensure!(
            !own.is_empty() && (self.member.id.is_empty() || self.member.id == own),
            "{} joined and is called {own}",
            self.member.id
        );
        ensure!(
            response.protocol_name.as_deref() == Some(PROTOCOL),
            "a join was answered with protocol {:?}",
            response.protocol_name
        );
        self.group.loaded = true;
        self.group.newest = self.group.newest.max(generation);
        let leader = self
            .group
            .leaders
            .entry(generation)
            .or_insert_with(|| response.leader.clone().into_owned());
        ensure!(
            **leader == *response.leader,
            "generation {generation} has leaders {leader} and {}",
            response.leader
        );
        let leads = response.leader == own;
        let mut members = Vec::new();
        for member in &response.members {
            ensure!(
                self.group.metadata.contains(&*member.metadata),
                "{} has metadata that nobody sent",
                member.member_id
            );
            members.push(member.member_id.clone().into_owned());
        }
        ensure!(
            members.contains(&own) == leads && members.is_empty() != leads,
            "{own} joined generation {generation} under leader {} and was told of {members:?}",
            response.leader
        );
        self.member.id = own;
        self.member.generation = generation;
        self.member.state = State::Joined(leads.then_some(members));
        Ok(())
    }
}

impl Actor for Members {
    fn act(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        self.group.on_start(cx);
        let chosen = cx.rng.below(self.members.len() as u64) as usize;
        let group = &mut self.group;
        let member = &mut self.members[chosen];
        Turn { group, member, cx }.act()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        self.group.on_start(cx);
        for member in &mut self.members {
            while let Some(answer) = member.client.answer(cx)? {
                let group = &mut self.group;
                Turn { group, member, cx }.on_answer(&answer)?;
            }
            if member.client.lost(cx).is_some() && !matches!(member.state, State::In(_)) {
                // Whether it is in, it finds out by joining again.
                member.state = State::Out;
            }
        }
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        self.members.iter().all(|member| member.client.is_quiet())
    }

    fn overdue(&self, world: &World) -> Option<String> {
        let mut members = self.members.iter();
        members.find_map(|member| member.client.overdue(world))
    }

    fn describe(&self) -> String {
        let busy = self.members.iter().find(|member| !member.client.is_quiet());
        let oldest = busy.map_or(String::new(), |member| member.client.oldest());
        format!("a member of {}: {oldest}", self.group.name)
    }
}
