//! A small language for transcripts of the group coordinator. A line that begins with `>` is a call or an
//! event, the lines below it are the answers and records that it brings about.
//!
//! `> LABEL join [id=M] [inst=I] [client=C] [v=9] [type=consumer] [protos=range:t1+t2,rr:t1] [st=MS] [rt=MS]`,
//! `> LABEL sync M GEN [inst=I] [type=..] [proto=..] [M=ASSIGNMENT ...]`, `> LABEL beat M GEN [inst=I]`,
//! `> LABEL leave [M] [inst=I] ...`, `> LABEL commit [id=M] [gen=N] [v=9] [keep=MS] T-P=OFFSET[@META] ...`,
//! `> LABEL fetch all|T-P ...`, `> LABEL drop T-P ...` (OffsetDelete), `> LABEL describe [v=5]`,
//! `> LABEL list [states=A,B] [types=A]`, `> LABEL delete`, `> topic-deleted T`, `> wait MS`,
//! `> shutdown`, `> hold` (appends stay open), `> release`, `> fail storage|unavailable`, `> restart`, `> load`.
//! Everything is about group `g`, or about the one of `g=NAME`. Members are named `CLIENT.N` in the order
//! in which their ids were given out.

use std::collections::BTreeMap;
use std::fmt::Write;

use storage::types::Now;
use uuid::Uuid;

use super::super::call::*;
use super::super::coordinator::{AppendFailure, GroupConfig, GroupCoordinator, Ticket};
use super::super::records::{self, Key, Record};
use super::super::subscription::{encode_subscription, subscribed_topics};

/// A machine with its log, its clock and the names of its members.
pub(crate) struct Script {
    pub machine: GroupCoordinator,
    config: GroupConfig,
    now: Now,
    restarts: u64,
    log: BTreeMap<i32, Vec<Record>>,
    holding: bool,
    held: Vec<(Ticket, Vec<Record>)>,
    labels: Vec<String>,
    names: Vec<(String, String)>,
    out: String,
}

/// The id that every topic of a transcript has.
fn topic_id(topic: &str) -> Uuid {
    Uuid::from_u128(
        topic
            .bytes()
            .fold(1, |id, byte| id * 257 + u128::from(byte)),
    )
}

fn split_partition(text: &str) -> (String, i32) {
    let (topic, partition) = text.rsplit_once('-').expect("TOPIC-PARTITION");
    (topic.to_owned(), partition.parse().expect("a partition"))
}

impl Script {
    pub(crate) fn new(config: GroupConfig) -> Script {
        let mut script = Script {
            machine: GroupCoordinator::new(config.clone(), [7, 1]),
            config,
            now: Now {
                monotonic_us: 5_000_000,
                wall_ms: 1_000_000,
            },
            restarts: 0,
            log: BTreeMap::new(),
            holding: false,
            held: Vec::new(),
            labels: Vec::new(),
            names: Vec::new(),
            out: String::new(),
        };
        script.load(true);
        script
    }

    fn load(&mut self, finish: bool) {
        for partition in 0..self.config.partition_count {
            self.machine.begin_load(partition);
            for record in self.log.get(&partition).into_iter().flatten() {
                self.machine
                    .apply(partition, &record.key, record.value.as_deref())
                    .expect("the log is sound");
            }
            if finish {
                self.machine.finish_load(self.now, partition);
            }
        }
    }

    /// A new machine over the log of the old one.
    pub(crate) fn replayed(&self) -> GroupCoordinator {
        let mut machine = GroupCoordinator::new(self.config.clone(), [1, 2]);
        for (partition, records) in &self.log {
            machine.begin_load(*partition);
            for record in records {
                machine
                    .apply(*partition, &record.key, record.value.as_deref())
                    .expect("the log is sound");
            }
        }
        machine
    }

    /// Runs a whole transcript and compares.
    #[track_caller]
    pub(crate) fn check(config: GroupConfig, transcript: &str) {
        let mut script = Script::new(config);
        let lines: Vec<&str> = transcript
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        for line in lines.iter().filter_map(|line| line.strip_prefix("> ")) {
            writeln!(script.out, "> {line}").unwrap();
            script.run(line);
        }
        let expected = lines.join("\n");
        let actual = script.out.trim_end();
        assert!(
            actual == expected,
            "--- expected\n{expected}\n--- actual\n{actual}\n"
        );
    }

    pub(crate) fn run(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["wait", ms] => self.wait(ms.parse().expect("milliseconds")),
            ["topic-deleted", topic] => self.machine.on_topic_deleted(topic, topic_id(topic)),
            ["shutdown"] => self.machine.begin_shutdown(),
            ["hold"] => self.holding = true,
            ["release"] => {
                self.holding = false;
                for (ticket, records) in std::mem::take(&mut self.held) {
                    self.append(ticket, records);
                }
            }
            ["fail", how] => {
                let failure = match *how {
                    "storage" => AppendFailure::Storage,
                    _ => AppendFailure::Unavailable,
                };
                for (ticket, _) in std::mem::take(&mut self.held) {
                    self.machine.on_appended(ticket, Err(failure));
                }
                self.holding = false;
            }
            ["restart"] => {
                self.restarts += 1;
                self.machine = GroupCoordinator::new(self.config.clone(), [7, 1 + self.restarts]);
                self.load(true);
            }
            ["load"] => self.load(false),
            ["loaded"] => self.load(true),
            [label, verb, rest @ ..] => self.call(label, verb, rest),
            _ => panic!("not a line of a transcript: {line}"),
        }
        self.settle();
    }

    fn wait(&mut self, ms: u64) {
        let end_us = self.now.monotonic_us + ms * 1000;
        while let Some(due_us) = self.machine.next_deadline().filter(|due| *due <= end_us) {
            self.move_to(due_us);
            self.machine.tick(self.now);
            self.settle();
        }
        self.move_to(end_us);
    }

    fn move_to(&mut self, monotonic_us: u64) {
        let step_us = monotonic_us.saturating_sub(self.now.monotonic_us);
        self.now.monotonic_us += step_us;
        self.now.wall_ms += (step_us / 1000) as i64;
    }

    fn call(&mut self, label: &str, verb: &str, rest: &[&str]) {
        let option = |name: &str| {
            rest.iter()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let number = |name: &str, default: i64| {
            option(name).map_or(default, |text| text.parse().expect("a number"))
        };
        let group_id = option("g").unwrap_or("g").to_owned();
        let instance_id = option("inst").map(str::to_owned);
        let member = |index: usize| self.full_id(rest.get(index).expect("a member"));
        let generation = || rest[1].parse().expect("a generation");
        let partitions = || {
            let mut topics: Vec<(String, Vec<i32>)> = Vec::new();
            for word in rest.iter().filter(|word| word.contains('-')) {
                let (topic, partition) = split_partition(word);
                match topics.iter_mut().find(|(name, _)| *name == topic) {
                    Some((_, partitions)) => partitions.push(partition),
                    None => topics.push((topic, vec![partition])),
                }
            }
            topics
        };
        let call = match verb {
            "join" => GroupCall::Join(JoinCall {
                api_version: number("v", 9) as i16,
                group_id,
                member_id: option("id").map_or(String::new(), |name| self.full_id(name)),
                instance_id,
                client_id: option("client").unwrap_or("c").into(),
                client_host: "/127.0.0.1".into(),
                session_timeout_ms: number("st", 10_000) as i32,
                rebalance_timeout_ms: number("rt", 60_000) as i32,
                protocol_type: option("type").unwrap_or("consumer").into(),
                protocols: option("protos")
                    .unwrap_or("range:t")
                    .split(',')
                    .filter(|text| !text.is_empty())
                    .map(|text| {
                        let (name, topics) = text.split_once(':').expect("NAME:TOPICS");
                        let topics: Vec<&str> = topics.split('+').collect();
                        (name.to_owned(), encode_subscription(&topics))
                    })
                    .collect(),
            }),
            "sync" => GroupCall::Sync(SyncCall {
                group_id,
                generation: generation(),
                member_id: member(0),
                instance_id,
                protocol_type: option("type").map(str::to_owned),
                protocol_name: option("proto").map(str::to_owned),
                assignments: rest[2..]
                    .iter()
                    .filter_map(|word| word.split_once('='))
                    .filter(|(name, _)| name.contains('.'))
                    .map(|(name, text)| (self.full_id(name), text.as_bytes().to_vec()))
                    .collect(),
            }),
            "beat" => GroupCall::Heartbeat(HeartbeatCall {
                group_id,
                generation: generation(),
                member_id: member(0),
                instance_id,
            }),
            "leave" => {
                let mut members: Vec<LeavingMember> = Vec::new();
                for word in rest.iter().filter(|word| !word.starts_with("g=")) {
                    match word.strip_prefix("inst=") {
                        Some(instance_id) => members.push(LeavingMember {
                            member_id: String::new(),
                            instance_id: Some(instance_id.to_owned()),
                        }),
                        None => {
                            let (id, instance) = word.split_once('/').unzip();
                            members.push(LeavingMember {
                                member_id: self.full_id(id.unwrap_or(word)),
                                instance_id: instance.map(str::to_owned),
                            });
                        }
                    }
                }
                GroupCall::Leave(LeaveCall { group_id, members })
            }
            "commit" => {
                let mut topics: Vec<CommitTopic> = Vec::new();
                let offsets = rest.iter().filter_map(|word| word.split_once('='));
                for (key, text) in offsets.filter(|(key, _)| key.contains('-')) {
                    let (topic, partition) = split_partition(key);
                    let (offset, metadata) = text.split_once('@').unwrap_or((text, ""));
                    let partition = CommitPartition {
                        partition,
                        offset: offset.parse().expect("an offset"),
                        leader_epoch: 3,
                        metadata: (!metadata.is_empty()).then(|| metadata.to_owned()),
                    };
                    match topics.iter_mut().find(|known| known.topic == topic) {
                        Some(known) => known.partitions.push(partition),
                        None => topics.push(CommitTopic {
                            topic_id: topic_id(&topic),
                            topic,
                            partitions: vec![partition],
                        }),
                    }
                }
                GroupCall::Commit(CommitCall {
                    api_version: number("v", 9) as i16,
                    group_id,
                    generation: number("gen", -1) as i32,
                    member_id: option("id").map_or(String::new(), |name| self.full_id(name)),
                    instance_id,
                    retention_ms: number("keep", -1),
                    topics,
                })
            }
            "fetch" => GroupCall::FetchOffsets(FetchOffsetsCall {
                group_id,
                topics: (!rest.contains(&"all")).then(|| {
                    partitions()
                        .into_iter()
                        .map(|(topic, partitions)| FetchTopic {
                            topic_id: match option("id") {
                                Some(other) => topic_id(other),
                                None => Uuid::nil(),
                            },
                            topic,
                            partitions,
                        })
                        .collect()
                }),
            }),
            "drop" => GroupCall::DeleteOffsets(DeleteOffsetsCall {
                group_id,
                topics: partitions(),
            }),
            "describe" => GroupCall::Describe(DescribeCall {
                api_version: number("v", 5) as i16,
                group_id,
            }),
            "list" => {
                let names = |name: &str| {
                    option(name).map_or(Vec::new(), |text| {
                        text.split(',').map(str::to_owned).collect()
                    })
                };
                GroupCall::List(ListCall {
                    states: names("states"),
                    types: names("types"),
                })
            }
            "delete" => GroupCall::Delete(DeleteGroupCall { group_id }),
            _ => panic!("no such call: {verb}"),
        };
        let token = ReplyToken(self.labels.len() as u64);
        self.labels.push(label.to_owned());
        self.machine.handle(self.now, token, call);
    }

    /// The calls that were not answered yet.
    pub(crate) fn settle(&mut self) {
        loop {
            if let Some(append) = self.machine.poll_append() {
                assert!(!append.records.is_empty(), "an append has records");
                if self.holding {
                    self.held.push((append.ticket, append.records));
                } else {
                    self.append(append.ticket, append.records);
                }
            } else if let Some((token, answer)) = self.machine.poll_reply() {
                let label = std::mem::take(&mut self.labels[token.0 as usize]);
                assert!(!label.is_empty(), "each call is answered once");
                let text = self.answer_text(answer);
                writeln!(self.out, "{}", format!("{label}: {text}").trim_end()).unwrap();
            } else {
                return;
            }
        }
    }

    fn append(&mut self, ticket: Ticket, records: Vec<Record>) {
        for record in &records {
            let text = self.record_text(record);
            writeln!(self.out, "log: {text}").unwrap();
        }
        self.log
            .entry(ticket.partition)
            .or_default()
            .extend(records);
        self.machine.on_appended(ticket, Ok(()));
    }

    fn full_id(&self, name: &str) -> String {
        self.names
            .iter()
            .find(|(_, known)| known == name)
            .map_or(name, |(id, _)| id)
            .to_owned()
    }

    fn name(&mut self, id: &str) -> String {
        if let Some((_, name)) = self.names.iter().find(|(known, _)| known == id) {
            return name.clone();
        }
        let Some(prefix) = id
            .len()
            .checked_sub(37)
            .and_then(|end| id.get(..end))
            .filter(|_| Uuid::parse_str(&id[id.len() - 36..]).is_ok())
        else {
            return id.to_owned();
        };
        let count = self
            .names
            .iter()
            .filter(|(_, name)| {
                name.rsplit_once('.')
                    .is_some_and(|(head, _)| head == prefix)
            })
            .count();
        let name = format!("{prefix}.{}", count + 1);
        self.names.push((id.to_owned(), name.clone()));
        name
    }

    fn record_text(&mut self, record: &Record) -> String {
        let value = record.value.as_deref();
        match records::decode_key(&record.key).expect("a key") {
            Key::OffsetCommit {
                group,
                topic,
                partition,
            } => match value {
                Some(value) => {
                    let (_, value) = records::decode_offset_commit_value(value).unwrap();
                    format!("{group} {topic}-{partition}={}", value.offset)
                }
                None => format!("{group} {topic}-{partition} gone"),
            },
            Key::GroupMetadata { group } => match value {
                Some(value) => {
                    let (_, value) = records::decode_group_metadata_value(value).unwrap();
                    let leader = self.name(value.leader.as_deref().unwrap_or("-"));
                    let mut text = format!(
                        "{group} generation {} {} leader {leader}",
                        value.generation,
                        value.protocol.as_deref().unwrap_or("-")
                    );
                    for member in value.members {
                        let name = self.name(&member.member_id);
                        let assignment = String::from_utf8(member.assignment).unwrap();
                        write!(text, " {name}={assignment}").unwrap();
                    }
                    text
                }
                None => format!("{group} gone"),
            },
            Key::Unknown(kind) => panic!("a record of kind {kind}"),
        }
    }

    fn answer_text(&mut self, answer: GroupAnswer) -> String {
        let codes = |topics: Vec<Vec<GroupError>>| {
            let topics = topics.into_iter().map(|errors| {
                let codes = errors.into_iter().map(|error| error.code().to_string());
                codes.collect::<Vec<_>>().join(",")
            });
            topics.collect::<Vec<_>>().join(" ")
        };
        match answer {
            GroupAnswer::Join(answer) => {
                let member = self.name(&answer.member_id);
                if answer.error != GroupError::None {
                    return format!("error {} as {member}", answer.error.code());
                }
                let mut text = format!(
                    "generation {} {} {} leader {} as {member}",
                    answer.generation,
                    answer.protocol_type.as_deref().unwrap_or("-"),
                    answer.protocol_name.as_deref().unwrap_or("-"),
                    self.name(&answer.leader)
                );
                if answer.skip_assignment {
                    text += " skip";
                }
                for member in answer.members {
                    let name = self.name(&member.member_id);
                    let topics = subscribed_topics(&member.metadata).unwrap();
                    let topics = topics.into_iter().collect::<Vec<_>>().join("+");
                    write!(text, " {name}:{topics}").unwrap();
                }
                text
            }
            GroupAnswer::Sync(answer) if answer.error == GroupError::None => format!(
                "{} {} '{}'",
                answer.protocol_type.as_deref().unwrap_or("-"),
                answer.protocol_name.as_deref().unwrap_or("-"),
                String::from_utf8(answer.assignment).unwrap()
            ),
            GroupAnswer::Sync(answer) => format!("error {}", answer.error.code()),
            GroupAnswer::Heartbeat(error) | GroupAnswer::Delete(error) => {
                format!("error {}", error.code())
            }
            GroupAnswer::Leave { error, members } => {
                let mut text = format!("error {}", error.code());
                for (member, error) in members {
                    let name = match member.member_id.as_str() {
                        "" => member.instance_id.unwrap_or_default(),
                        id => self.name(id),
                    };
                    write!(text, " {name}:{}", error.code()).unwrap();
                }
                text
            }
            GroupAnswer::Commit { error, topics }
            | GroupAnswer::DeleteOffsets { error, topics } => match error {
                GroupError::None => codes(topics),
                error => format!("error {}", error.code()),
            },
            GroupAnswer::FetchOffsets { error, topics } => {
                if error != GroupError::None {
                    return format!("error {}", error.code());
                }
                let mut text = String::from("offsets");
                for topic in topics {
                    for offset in topic.partitions {
                        let at = format!("{}-{}={}", topic.topic, offset.partition, offset.offset);
                        write!(text, " {at}/{}", offset.leader_epoch).unwrap();
                        if !offset.metadata.is_empty() {
                            write!(text, "@{}", offset.metadata).unwrap();
                        }
                    }
                }
                text
            }
            GroupAnswer::Describe(answer) => {
                let mut text = format!(
                    "error {} {} '{}' '{}'",
                    answer.error.code(),
                    answer.state,
                    answer.protocol_type,
                    answer.protocol
                );
                for member in answer.members {
                    let name = self.name(&member.member_id);
                    let assignment = String::from_utf8(member.assignment).unwrap();
                    let knows = if member.metadata.is_empty() { "" } else { "+" };
                    write!(text, " {name}={assignment}{knows}").unwrap();
                }
                text
            }
            GroupAnswer::List { error, groups } => {
                let mut text = format!("error {}", error.code());
                for group in groups {
                    let kind = format!("{} {}", group.protocol_type, group.group_type);
                    write!(text, " [{} {} {kind}]", group.group_id, group.state).unwrap();
                }
                text
            }
        }
    }
}
