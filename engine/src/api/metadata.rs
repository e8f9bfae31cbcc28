//! Metadata: brokers, topics and partitions, and the creation of topics that are asked for and missing.
//! Lives on the core that accepted the connection; creation is the first core's.

use std::collections::{HashMap, HashSet};

use net::kafka::error::ErrorCode;
use net::kafka::metadata as wire;
use net::wire::DecodeError;
use storage::types::{Now, TopicId};

use super::{Outcome, Request, fresh_topic_id};
use crate::config::listener::Listener;
use crate::metadata::topics::check_name;
use crate::metadata::{MetadataCommand, MetadataImage, MetadataReply, Topic, is_internal};
use crate::shard::Shard;

/// Operations that everyone may do on a topic where access is not controlled, as bits (KIP-430): read,
/// write, create, delete, alter, describe, describe and alter configs.
pub(crate) const TOPIC_OPERATIONS: i32 = 3576;

/// The same for the cluster.
pub(crate) const CLUSTER_OPERATIONS: i32 = 8096;

/// Authorized operations where nobody asked for them.
pub(crate) const OPERATIONS_NOT_ASKED: i32 = i32::MIN;

/// What a client wants to know, apart from the topics.
struct Wants {
    version: i16,
    listener: Listener,
    cluster_operations: bool,
    topic_operations: bool,
}

/// A topic of the request.
enum Asked {
    Name(String),
    Id(TopicId),
}

/// Handles a Metadata request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::MetadataRequest::decode)?;
    let head = request.head;
    let version = head.version;
    let wants = Wants {
        version,
        listener: request.listener.clone(),
        cluster_operations: body.include_cluster_authorized_operations,
        topic_operations: body.include_topic_authorized_operations,
    };
    let topics = match body.topics {
        Some(topics) if version > 0 || !topics.is_empty() => topics,
        _ => {
            let response = wants.all(&shard.image);
            return Ok(Outcome::Done(
                head.encode(|writer, version| response.encode(writer, version)),
            ));
        }
    };
    // Ids are known from version 10 on, but may be asked for from version 12 on (KIP-516).
    let by_id = topics.iter().any(|topic| !topic.topic_id.is_nil());
    let nameless = topics
        .iter()
        .any(|topic| topic.name.is_none() && topic.topic_id.is_nil());
    if nameless || (version < 12 && by_id) {
        let response = refused(&topics);
        return Ok(Outcome::Done(
            head.encode(|writer, version| response.encode(writer, version)),
        ));
    }
    let mut seen = HashSet::new();
    let mut asked = Vec::with_capacity(topics.len());
    for topic in &topics {
        let name = topic.name.as_deref().unwrap_or_default();
        // With one id, all are asked by id.
        if by_id && !topic.topic_id.is_nil() && seen.insert((topic.topic_id, "")) {
            asked.push(Asked::Id(topic.topic_id));
        } else if !by_id && seen.insert((TopicId::nil(), name)) {
            asked.push(Asked::Name(name.to_owned()));
        }
    }
    let create = body.allow_auto_topic_creation && shard.image.config().auto_create_topics_enable;
    let missing: Vec<String> = asked
        .iter()
        .filter_map(|asked| match asked {
            Asked::Name(name) if create && shard.image.topic(name).is_none() => Some(name.clone()),
            _ => None,
        })
        .collect();
    if missing.is_empty() {
        let response = wants.of(&shard.image, &asked, &HashMap::new());
        return Ok(Outcome::Done(
            head.encode(|writer, version| response.encode(writer, version)),
        ));
    }
    create_missing(shard, now, missing, move |shard, errors| {
        let response = wants.of(&shard.image, &asked, &errors);
        let chunks = head.encode(|writer, version| response.encode(writer, version));
        shard.respond(head, Some(chunks));
    });
    Ok(Outcome::Pending)
}

/// Creates topics that a client asked for; `then` gets what failed, by name.
pub(crate) fn create_missing(
    shard: &mut Shard,
    now: Now,
    missing: Vec<String>,
    then: impl FnOnce(&mut Shard, HashMap<String, ErrorCode>) + 'static,
) {
    let topics = missing
        .iter()
        .map(|name| (name.clone(), fresh_topic_id(shard)))
        .collect();
    let command = MetadataCommand::EnsureTopics { topics };
    let then = move |shard: &mut Shard, _now: Now, reply: MetadataReply| {
        let mut errors = HashMap::new();
        if let MetadataReply::Ensured(results) = reply {
            for (name, result) in missing.into_iter().zip(results) {
                if let Err(refusal) = result {
                    errors.insert(name, refusal.error);
                }
            }
        }
        then(shard, errors);
    };
    shard.ask_metadata(now, command, Box::new(then));
}

/// What is said of a topic that is not there, if its creation failed with `error` or was not tried.
pub(crate) fn missing_error(name: &str, error: Option<ErrorCode>) -> ErrorCode {
    error.unwrap_or_else(|| match check_name(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(refusal) => refusal.error,
    })
}

/// The answer to a request that names topics in a way that its version does not know.
fn refused<'a>(topics: &[wire::MetadataRequestTopic<'a>]) -> wire::MetadataResponse<'a> {
    let error_code = ErrorCode::InvalidRequest.code();
    wire::MetadataResponse {
        topics: topics
            .iter()
            .map(|topic| wire::MetadataResponseTopic {
                error_code,
                name: Some(topic.name.clone().unwrap_or_default()),
                topic_id: topic.topic_id,
                ..Default::default()
            })
            .collect(),
        error_code,
        ..Default::default()
    }
}

impl Wants {
    /// The answer without topics.
    fn cluster<'a>(&'a self, image: &'a MetadataImage) -> wire::MetadataResponse<'a> {
        wire::MetadataResponse {
            brokers: vec![wire::MetadataResponseBroker {
                node_id: image.node_id(),
                host: (&*self.listener.advertised.host).into(),
                port: i32::from(self.listener.advertised.port),
                rack: image.config().rack.as_deref().map(Into::into),
            }],
            cluster_id: Some(image.cluster_id().into()),
            controller_id: image.node_id(),
            cluster_authorized_operations: if self.cluster_operations {
                CLUSTER_OPERATIONS
            } else {
                OPERATIONS_NOT_ASKED
            },
            ..Default::default()
        }
    }

    fn all<'a>(&'a self, image: &'a MetadataImage) -> wire::MetadataResponse<'a> {
        let topics = image
            .topics()
            .map(|topic| self.topic(image, topic))
            .collect();
        wire::MetadataResponse {
            topics,
            ..self.cluster(image)
        }
    }

    fn of<'a>(
        &'a self,
        image: &'a MetadataImage,
        asked: &'a [Asked],
        errors: &HashMap<String, ErrorCode>,
    ) -> wire::MetadataResponse<'a> {
        let topics = asked
            .iter()
            .map(|asked| match asked {
                Asked::Id(id) => match image.topic_by_id(*id) {
                    Some(topic) => self.topic(image, topic),
                    None => wire::MetadataResponseTopic {
                        error_code: ErrorCode::UnknownTopicId.code(),
                        // Null is known from version 12 on, as is asking by id.
                        name: None,
                        topic_id: *id,
                        ..Default::default()
                    },
                },
                Asked::Name(name) => match image.topic(name) {
                    Some(topic) => self.topic(image, topic),
                    None => self.missing(name, errors.get(name).copied()),
                },
            })
            .collect();
        wire::MetadataResponse {
            topics,
            ..self.cluster(image)
        }
    }

    fn missing<'a>(
        &self,
        name: &'a str,
        error: Option<ErrorCode>,
    ) -> wire::MetadataResponseTopic<'a> {
        let error = missing_error(name, error);
        wire::MetadataResponseTopic {
            error_code: error.code(),
            name: Some(name.into()),
            is_internal: is_internal(name),
            topic_authorized_operations: self.operations(),
            ..Default::default()
        }
    }

    fn topic<'a>(
        &self,
        image: &MetadataImage,
        topic: &'a Topic,
    ) -> wire::MetadataResponseTopic<'a> {
        wire::MetadataResponseTopic {
            error_code: ErrorCode::None.code(),
            name: Some((&*topic.name).into()),
            topic_id: topic.id,
            is_internal: topic.internal(),
            partitions: topic
                .partitions()
                .map(|partition| wire::MetadataResponsePartition {
                    error_code: ErrorCode::None.code(),
                    partition_index: partition.index,
                    leader_id: image.node_id(),
                    leader_epoch: image.leader_epoch(&partition).0,
                    replica_nodes: partition.replicas.to_vec(),
                    isr_nodes: partition.replicas.to_vec(),
                    offline_replicas: Vec::new(),
                })
                .collect(),
            topic_authorized_operations: self.operations(),
        }
    }

    fn operations(&self) -> i32 {
        if self.topic_operations && self.version >= 8 {
            TOPIC_OPERATIONS
        } else {
            OPERATIONS_NOT_ASKED
        }
    }
}
