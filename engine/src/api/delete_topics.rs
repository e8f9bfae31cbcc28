//! DeleteTopics (KIP-4, KIP-516): removes topics by name or by id. Decided on the first core, answered on the
//! core that accepted the connection, when no core knows the topics any more.

use net::kafka::delete_topics as wire;
use net::kafka::error::ErrorCode;
use net::wire::DecodeError;
use storage::types::{Now, TopicId};

use super::{Outcome, Request};
use crate::metadata::command::TopicTarget;
use crate::metadata::{MetadataCommand, MetadataReply};
use crate::shard::Shard;

/// Handles a DeleteTopics request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::DeleteTopicsRequest::decode)?;
    let head = request.head;
    let by_name = body.topic_names.into_iter().map(|name| TopicTarget {
        name: Some(name.into_owned()),
        id: TopicId::nil(),
    });
    let by_either = body.topics.into_iter().map(|topic| TopicTarget {
        name: topic.name.map(|n| n.into_owned()),
        id: topic.topic_id,
    });
    let topics: Vec<TopicTarget> = by_name.chain(by_either).collect();
    if !shard.image.config().delete_topic_enable {
        // Older clients do not know the error that says so.
        let error = if head.version < 3 {
            ErrorCode::InvalidRequest
        } else {
            ErrorCode::TopicDeletionDisabled
        };
        let response = wire::DeleteTopicsResponse {
            responses: topics
                .into_iter()
                .map(|topic| wire::DeletableTopicResult {
                    name: topic.name.map(Into::into),
                    topic_id: topic.id,
                    error_code: error.code(),
                    error_message: None,
                })
                .collect(),
            ..Default::default()
        };
        return Ok(Outcome::Done(
            head.encode(|writer, version| response.encode(writer, version)),
        ));
    }
    let command = MetadataCommand::DeleteTopics { topics };
    let then = move |shard: &mut Shard, _now: Now, reply: MetadataReply| {
        let deleted = match reply {
            MetadataReply::Deleted(deleted) => deleted,
            other => unreachable!("DeleteTopics is not answered with {other:?}"),
        };
        let response = wire::DeleteTopicsResponse {
            responses: deleted
                .into_iter()
                .map(|topic| {
                    let refusal = topic.result.err();
                    wire::DeletableTopicResult {
                        name: topic.name.map(Into::into),
                        topic_id: topic.id,
                        error_code: refusal.as_ref().map_or(0, |refusal| refusal.error.code()),
                        error_message: refusal.and_then(|r| r.message).map(Into::into),
                    }
                })
                .collect(),
            ..Default::default()
        };
        let chunks = head.encode(|writer, version| response.encode(writer, version));
        shard.respond(head, Some(chunks));
    };
    shard.ask_metadata(now, command, Box::new(then));
    Ok(Outcome::Pending)
}
