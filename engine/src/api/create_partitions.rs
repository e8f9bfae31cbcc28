//! CreatePartitions (KIP-195): gives topics more partitions. Decided on the first core, answered on the core
//! that accepted the connection, when every core knows the partitions.

use net::kafka::create_partitions as wire;
use net::wire::DecodeError;
use storage::types::Now;

use super::{Outcome, Request};
use crate::metadata::command::NewPartitions;
use crate::metadata::{MetadataCommand, MetadataReply};
use crate::shard::Shard;

/// Handles a CreatePartitions request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::CreatePartitionsRequest::decode)?;
    let head = request.head;
    let topics = body
        .topics
        .into_iter()
        .map(|topic| NewPartitions {
            name: topic.name.into_owned(),
            count: topic.count,
            assignments: topic.assignments.map(|all| {
                all.into_iter()
                    .map(|assignment| assignment.broker_ids)
                    .collect()
            }),
        })
        .collect();
    let command = MetadataCommand::CreatePartitions {
        topics,
        validate_only: body.validate_only,
    };
    let then = move |shard: &mut Shard, _now: Now, reply: MetadataReply| {
        let results = match reply {
            MetadataReply::PartitionsCreated(results) => results,
            other => unreachable!("CreatePartitions is not answered with {other:?}"),
        };
        let response = wire::CreatePartitionsResponse {
            results: results
                .into_iter()
                .map(|(name, result)| {
                    let refusal = result.err();
                    wire::CreatePartitionsTopicResult {
                        name: name.into(),
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
