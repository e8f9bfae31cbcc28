//! OffsetForLeaderEpoch (KIP-101, KIP-320): where a leader epoch ends. Asked of the owning cores;
//! answered on the core that accepted the connection.

use net::kafka::offset_for_leader_epoch as wire;
use net::wire::DecodeError;
use storage::types::{LeaderEpoch, Now};

use super::{Outcome, PartitionQuestion, Request, ask_by_topic};
use crate::mesh::{Ask, PartitionAnswer};
use crate::shard::Shard;

/// Handles an OffsetForLeaderEpoch request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::OffsetForLeaderEpochRequest::decode)?;
    let topics = body.topics.iter().map(|topic| {
        let questions = topic.partitions.iter().map(|partition| PartitionQuestion {
            partition: partition.partition,
            current_leader_epoch: partition.current_leader_epoch,
            ask: Ok(Ask::EpochEnd(LeaderEpoch(partition.leader_epoch))),
        });
        (&*topic.topic, questions.collect())
    });
    let topics = topics.collect();
    let head = request.head;
    ask_by_topic(shard, now, topics, move |shard, answers| {
        let topics = answers
            .into_iter()
            .map(|(name, partitions)| wire::OffsetForLeaderTopicResult {
                topic: name.into(),
                partitions: partitions
                    .into_iter()
                    .map(|(index, answer)| response(index, &answer))
                    .collect(),
            })
            .collect();
        let response = wire::OffsetForLeaderEpochResponse {
            topics,
            ..Default::default()
        };
        let chunks = head.encode(|writer, version| response.encode(writer, version));
        shard.respond(head, Some(chunks));
    });
    Ok(Outcome::Pending)
}

fn response(index: i32, answer: &PartitionAnswer) -> wire::EpochEndOffset {
    let (error_code, leader_epoch, end_offset) = match answer {
        PartitionAnswer::Offset {
            offset,
            leader_epoch,
            ..
        } => (0, *leader_epoch, *offset),
        PartitionAnswer::Error(code) => (code.code(), -1, -1),
        PartitionAnswer::Producers(_) => (-1, -1, -1),
    };
    wire::EpochEndOffset {
        error_code,
        partition: index,
        leader_epoch,
        end_offset,
    }
}
