//! A client that makes, widens, reconfigures and deletes topics, one request after another. Knows which of its
//! changes are certain, and after a crash finds out about the last one.

use net::kafka::ApiKey;
use net::kafka::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
};
use net::kafka::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse,
};
use net::kafka::delete_topics::{DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse};
use net::kafka::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};
use net::kafka::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use storage::types::TopicId;

use super::actor::Actor;
use super::client::{Answer, Client, Context, STORAGE_ERROR, between, pick};
use super::model::{Kind, Life, Partition, Topic, TopicRef, ensure};
use super::world::World;

/// How many names topics have.
const NAMES: u64 = 5;
/// Most partitions of a topic.
const PARTITIONS_MAX: i64 = 5;

/// What was asked.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// A topic.
    Create(TopicRef),
    /// A topic's end.
    Delete(TopicRef),
    /// More partitions, this many in all.
    Widen(TopicRef, usize),
    /// Other settings.
    Configure(TopicRef),
    /// What is there.
    Look(TopicRef),
}

impl Change {
    fn topic(self) -> TopicRef {
        match self {
            Change::Create(topic)
            | Change::Delete(topic)
            | Change::Widen(topic, _)
            | Change::Configure(topic)
            | Change::Look(topic) => topic,
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Admin {
    client: Client<Change>,
    /// Topics whose last change is not certain.
    doubts: Vec<TopicRef>,
    partitions_max: i64,
}

/// Settings that a kind of topic is made with.
fn settings(kind: Kind, roll_ms: i64) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("segment.ms", roll_ms.to_string()),
        ("file.delete.delay.ms", "1500".to_owned()),
        ("index.interval.bytes", "400".to_owned()),
    ];
    if kind.compact {
        settings.push(("cleanup.policy", "compact".to_owned()));
        settings.push(("min.cleanable.dirty.ratio", "0.01".to_owned()));
    }
    if kind.append_time {
        settings.push(("message.timestamp.type", "LogAppendTime".to_owned()));
    }
    if kind.lazy {
        settings.push(("flush.messages", "1000".to_owned()));
        settings.push(("flush.ms", "20".to_owned()));
    }
    if kind.retention {
        settings.push(("retention.bytes", "30000".to_owned()));
        settings.push(("retention.ms", "20000".to_owned()));
    } else {
        settings.push(("retention.ms", "-1".to_owned()));
    }
    settings
}

impl Admin {
    /// One that makes topics with so many partitions at most.
    pub fn new(partitions_max: i64) -> Admin {
        Admin {
            partitions_max,
            ..Admin::default()
        }
    }

    fn create(&mut self, cx: &mut Context<'_>, name: &str) -> Result<(), String> {
        let kind = match cx.rng.below(10) {
            0 | 1 => Kind {
                retention: true,
                ..Kind::default()
            },
            2 => Kind {
                append_time: true,
                ..Kind::default()
            },
            3 => Kind {
                compact: true,
                ..Kind::default()
            },
            4 | 5 => Kind {
                lazy: true,
                ..Kind::default()
            },
            _ => Kind::default(),
        };
        let count = between(cx.rng, 1, self.partitions_max);
        let topic = cx.model.topics.len();
        cx.model.topics.push(Topic {
            name: name.to_owned(),
            id: TopicId::nil(),
            kind,
            life: Life::Creating,
            asked_for_us: cx.world.time_us(),
            partitions: vec![Partition::default(); count as usize],
            asked_count: count as usize,
        });
        let roll_ms = pick(cx.rng, &[700, 3_000, 60_000]);
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: name.to_owned().into(),
                num_partitions: count as i32,
                replication_factor: pick(cx.rng, &[1, -1]),
                configs: settings(kind, roll_ms)
                    .into_iter()
                    .map(|(name, value)| CreatableTopicConfig {
                        name: name.into(),
                        value: Some(value.into()),
                    })
                    .collect(),
                ..Default::default()
            }],
            timeout_ms: 30_000,
            validate_only: false,
        };
        let version = between(cx.rng, 4, 7) as i16;
        let write = |writer: &mut _, version| request.encode(writer, version);
        let what = Change::Create(topic);
        self.client
            .ask(cx, ApiKey::CreateTopics, version, what, true, write)
    }

    fn delete(&mut self, cx: &mut Context<'_>, topic: TopicRef) -> Result<(), String> {
        let known = &mut cx.model.topics[topic];
        known.life = Life::Deleting;
        let version = between(cx.rng, 1, 6) as i16;
        let by_id = version >= 6 && cx.rng.one_in(2);
        let request = DeleteTopicsRequest {
            topics: vec![DeleteTopicState {
                name: (!by_id).then(|| known.name.clone().into()),
                topic_id: if by_id { known.id } else { TopicId::nil() },
            }],
            topic_names: vec![known.name.clone().into()],
            timeout_ms: 30_000,
        };
        let write = |writer: &mut _, version| request.encode(writer, version);
        let what = Change::Delete(topic);
        self.client
            .ask(cx, ApiKey::DeleteTopics, version, what, true, write)
    }

    fn widen(&mut self, cx: &mut Context<'_>, topic: TopicRef) -> Result<(), String> {
        let known = &mut cx.model.topics[topic];
        let count = known.partitions.len() + 1;
        if count as i64 > PARTITIONS_MAX {
            return Ok(());
        }
        known.asked_count = count;
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: known.name.clone().into(),
                count: count as i32,
                assignments: None,
            }],
            timeout_ms: 30_000,
            validate_only: false,
        };
        let version = between(cx.rng, 0, 3) as i16;
        let write = |writer: &mut _, version| request.encode(writer, version);
        let what = Change::Widen(topic, count);
        self.client
            .ask(cx, ApiKey::CreatePartitions, version, what, true, write)
    }

    fn configure(&mut self, cx: &mut Context<'_>, topic: TopicRef) -> Result<(), String> {
        let known = &cx.model.topics[topic];
        let (name, value) = match cx.rng.below(3) {
            0 => ("segment.ms", pick(cx.rng, &["500", "2500", "30000"])),
            1 => ("index.interval.bytes", pick(cx.rng, &["0", "4096"])),
            _ if known.kind.retention => ("retention.bytes", pick(cx.rng, &["8000", "100000"])),
            _ => ("file.delete.delay.ms", pick(cx.rng, &["0", "4000"])),
        };
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: 2,
                resource_name: known.name.clone().into(),
                configs: vec![AlterableConfig {
                    name: name.into(),
                    config_operation: 0,
                    value: Some(value.into()),
                }],
            }],
            validate_only: false,
        };
        let version = between(cx.rng, 0, 1) as i16;
        let api = ApiKey::IncrementalAlterConfigs;
        let write = |writer: &mut _, version| request.encode(writer, version);
        self.client
            .ask(cx, api, version, Change::Configure(topic), true, write)
    }

    fn look(&mut self, cx: &mut Context<'_>, topic: TopicRef) -> Result<(), String> {
        let request = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                topic_id: TopicId::nil(),
                name: Some(cx.model.topics[topic].name.clone().into()),
            }]),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let version = between(cx.rng, 10, 13) as i16;
        let write = |writer: &mut _, version| request.encode(writer, version);
        self.client.ask(
            cx,
            ApiKey::Metadata,
            version,
            Change::Look(topic),
            true,
            write,
        )
    }

    /// Whether a change was refused for want of a disk.
    fn is_refused(&self, answer: &Answer<Change>) -> Result<bool, String> {
        let error = match answer.asked.what {
            Change::Create(_) => {
                let response = answer.body(CreateTopicsResponse::decode)?;
                response.topics.first().map(|result| result.error_code)
            }
            Change::Delete(_) => {
                let response = answer.body(DeleteTopicsResponse::decode)?;
                response.responses.first().map(|result| result.error_code)
            }
            Change::Widen(..) => {
                let response = answer.body(CreatePartitionsResponse::decode)?;
                response.results.first().map(|result| result.error_code)
            }
            Change::Configure(_) => {
                let response = answer.body(IncrementalAlterConfigsResponse::decode)?;
                response.responses.first().map(|result| result.error_code)
            }
            Change::Look(_) => None,
        };
        Ok(error == Some(STORAGE_ERROR))
    }

    fn on_answer(&mut self, cx: &mut Context<'_>, answer: &Answer<Change>) -> Result<(), String> {
        if cx.world.is_troubled() && self.is_refused(answer)? {
            self.doubts.push(answer.asked.what.topic());
            return Ok(());
        }
        let told = |name: &str, what: &str, error: i16| {
            if error == 0 {
                Ok(())
            } else {
                Err(format!("{what} {name} was answered with error {error}"))
            }
        };
        match answer.asked.what {
            Change::Create(topic) => {
                let response = answer.body(CreateTopicsResponse::decode)?;
                let result = response.topics.first().ok_or("no result")?;
                let known = &mut cx.model.topics[topic];
                told(&known.name, "creating", result.error_code)?;
                if answer.asked.version >= 7 {
                    known.id = result.topic_id;
                    known.life = Life::Live;
                } else {
                    self.doubts.push(topic);
                }
            }
            Change::Delete(topic) => {
                let response = answer.body(DeleteTopicsResponse::decode)?;
                let result = response.responses.first().ok_or("no result")?;
                let known = &mut cx.model.topics[topic];
                told(&known.name, "deleting", result.error_code)?;
                known.life = Life::Gone;
            }
            Change::Widen(topic, count) => {
                let response = answer.body(CreatePartitionsResponse::decode)?;
                let result = response.results.first().ok_or("no result")?;
                let known = &mut cx.model.topics[topic];
                told(&known.name, "widening", result.error_code)?;
                known.partitions.resize_with(count, Partition::default);
            }
            Change::Configure(topic) => {
                let response = answer.body(IncrementalAlterConfigsResponse::decode)?;
                let result = response.responses.first().ok_or("no result")?;
                told(
                    &cx.model.topics[topic].name,
                    "configuring",
                    result.error_code,
                )?;
            }
            Change::Look(topic) => {
                let response = answer.body(MetadataResponse::decode)?;
                let result = response.topics.first().ok_or("no result")?;
                let known = &mut cx.model.topics[topic];
                if result.error_code == 3 {
                    ensure!(
                        known.life != Life::Live,
                        "{} is there and is not found",
                        known.name
                    );
                    known.life = Life::Gone;
                    return Ok(());
                }
                told(&known.name, "looking for", result.error_code)?;
                if known.id.is_nil() {
                    known.id = result.topic_id;
                }
                ensure!(
                    known.id == result.topic_id,
                    "{} has id {} and had {}",
                    known.name,
                    result.topic_id,
                    known.id
                );
                let count = result.partitions.len();
                ensure!(
                    count >= known.partitions.len() && count <= known.asked_count,
                    "{} has {count} partitions; {} were there, {} asked for",
                    known.name,
                    known.partitions.len(),
                    known.asked_count
                );
                known.partitions.resize_with(count, Partition::default);
                known.asked_count = count;
                known.life = Life::Live;
            }
        }
        Ok(())
    }
}

impl Actor for Admin {
    fn act(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        if self.client.open_count() > 0 {
            return Ok(());
        }
        if !self.doubts.is_empty() {
            // What a broken disk kept of a change shows after the next start.
            if cx.world.is_broken() {
                return Ok(());
            }
            if let Some(topic) = self.doubts.pop() {
                return self.look(cx, topic);
            }
        }
        let live = cx.model.live();
        let name = format!("t{}", cx.rng.below(NAMES));
        if cx.model.current(&name).is_none() && (live.len() < 3 || cx.rng.one_in(6)) {
            return self.create(cx, &name);
        }
        if live.is_empty() {
            return Ok(());
        }
        let topic = pick(cx.rng, &live);
        match cx.rng.below(30) {
            0 => self.delete(cx, topic),
            1 => self.widen(cx, topic),
            2 => self.configure(cx, topic),
            3 => self.look(cx, topic),
            _ => Ok(()),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        while let Some(answer) = self.client.answer(cx)? {
            self.on_answer(cx, &answer)?;
        }
        for asked in self.client.lost(cx).into_iter().flatten() {
            self.doubts.push(asked.what.topic());
        }
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        self.client.is_quiet()
    }

    fn overdue(&self, world: &World) -> Option<String> {
        self.client.overdue(world)
    }

    fn is_settled(&self) -> bool {
        self.doubts.is_empty()
    }

    fn describe(&self) -> String {
        format!("the admin: {}", self.client.oldest())
    }
}
