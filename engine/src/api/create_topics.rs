//! CreateTopics (KIP-4, KIP-525): makes topics as a client says. Decided on the first core, answered on the
//! core that accepted the connection, when the topics are durable and every core knows them.

use net::kafka::create_topics as wire;
use net::kafka::error::ErrorCode;
use net::wire::DecodeError;
use storage::types::Now;

use super::{Outcome, Request, fresh_topic_id};
use crate::config::{BrokerConfig, describe};
use crate::metadata::command::{CreatedTopic, NewTopic};
use crate::metadata::{MetadataCommand, MetadataReply};
use crate::shard::Shard;

/// Handles a CreateTopics request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::CreateTopicsRequest::decode)?;
    let head = request.head;
    let topics = body
        .topics
        .into_iter()
        .map(|topic| NewTopic {
            id: fresh_topic_id(shard),
            name: topic.name.into_owned(),
            partition_count: topic.num_partitions,
            replication_factor: topic.replication_factor,
            assignments: topic
                .assignments
                .into_iter()
                .map(|assignment| (assignment.partition_index, assignment.broker_ids))
                .collect(),
            configs: topic
                .configs
                .into_iter()
                .map(|config| {
                    (
                        config.name.into_owned(),
                        config.value.map(|v| v.into_owned()),
                    )
                })
                .collect(),
        })
        .collect();
    let command = MetadataCommand::CreateTopics {
        topics,
        validate_only: body.validate_only,
    };
    let then = move |shard: &mut Shard, _now: Now, reply: MetadataReply| {
        let created = match reply {
            MetadataReply::Created(created) => created,
            other => unreachable!("CreateTopics is not answered with {other:?}"),
        };
        let config = shard.image.config();
        let response = wire::CreateTopicsResponse {
            topics: created.iter().map(|topic| result(config, topic)).collect(),
            ..Default::default()
        };
        let chunks = head.encode(|writer, version| response.encode(writer, version));
        shard.respond(head, Some(chunks));
    };
    shard.ask_metadata(now, command, Box::new(then));
    Ok(Outcome::Pending)
}

fn result<'a>(config: &BrokerConfig, created: &'a CreatedTopic) -> wire::CreatableTopicResult<'a> {
    let name = (&*created.name).into();
    match &created.result {
        Err(refusal) => wire::CreatableTopicResult {
            name,
            error_code: refusal.error.code(),
            error_message: refusal.message.as_deref().map(Into::into),
            configs: Some(Vec::new()),
            ..Default::default()
        },
        Ok(shape) => wire::CreatableTopicResult {
            name,
            topic_id: shape.id,
            error_code: ErrorCode::None.code(),
            error_message: None,
            topic_config_error_code: ErrorCode::None.code(),
            num_partitions: shape.partition_count,
            replication_factor: shape.replication_factor,
            configs: Some(
                describe::created_topic(config, &shape.configs)
                    .into_iter()
                    .map(|entry| wire::CreatableTopicConfigs {
                        name: entry.name.into(),
                        value: entry.value.map(Into::into),
                        read_only: entry.read_only,
                        config_source: entry.source.code(),
                        is_sensitive: entry.sensitive,
                    })
                    .collect(),
            ),
        },
    }
}
