//! DeleteRecords (KIP-107): moves log start offsets forward, durably before the answer. Asked of the
//! owning cores; answered on the core that accepted the connection.

use net::kafka::delete_records as wire;
use net::wire::DecodeError;
use storage::types::Now;

use super::{Outcome, PartitionQuestion, Request, ask_by_topic};
use crate::mesh::{Ask, PartitionAnswer};
use crate::shard::Shard;

/// Handles a DeleteRecords request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::DeleteRecordsRequest::decode)?;
    let topics = body.topics.iter().map(|topic| {
        let questions = topic.partitions.iter().map(|partition| PartitionQuestion {
            partition: partition.partition_index,
            current_leader_epoch: -1,
            ask: Ok(Ask::DeleteRecords(partition.offset)),
        });
        (&*topic.name, questions.collect())
    });
    let topics = topics.collect();
    let head = request.head;
    ask_by_topic(shard, now, topics, move |shard, answers| {
        let topics = answers
            .into_iter()
            .map(|(name, partitions)| wire::DeleteRecordsTopicResult {
                name: name.into(),
                partitions: partitions
                    .into_iter()
                    .map(|(index, answer)| response(index, &answer))
                    .collect(),
            })
            .collect();
        let response = wire::DeleteRecordsResponse {
            topics,
            ..Default::default()
        };
        let chunks = head.encode(|writer, version| response.encode(writer, version));
        shard.respond(head, Some(chunks));
    });
    Ok(Outcome::Pending)
}

fn response(index: i32, answer: &PartitionAnswer) -> wire::DeleteRecordsPartitionResult {
    let (low_watermark, error_code) = match answer {
        PartitionAnswer::Offset { offset, .. } => (*offset, 0),
        PartitionAnswer::Error(code) => (-1, code.code()),
        PartitionAnswer::Producers(_) => (-1, -1),
    };
    wire::DeleteRecordsPartitionResult {
        partition_index: index,
        low_watermark,
        error_code,
    }
}
