//! ListOffsets: the first and last offsets of partitions, and offsets by time. Asked of the owning
//! cores; answered on the core that accepted the connection.

use net::kafka::error::ErrorCode;
use net::kafka::list_offsets as wire;
use net::wire::DecodeError;
use storage::types::Now;

use super::{Outcome, PartitionQuestion, Request, ask_by_topic};
use crate::mesh::{Ask, PartitionAnswer};
use crate::shard::Shard;

/// Handles a ListOffsets request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::ListOffsetsRequest::decode)?;
    let version = request.head.version;
    let topics = body.topics.iter().map(|topic| {
        let questions = topic.partitions.iter().map(|partition| PartitionQuestion {
            partition: partition.partition_index,
            current_leader_epoch: partition.current_leader_epoch,
            ask: ask_of(partition.timestamp, version),
        });
        (&*topic.name, questions.collect())
    });
    let topics = topics.collect();
    let head = request.head;
    ask_by_topic(shard, now, topics, move |shard, answers| {
        let topics = answers
            .into_iter()
            .map(|(name, partitions)| wire::ListOffsetsTopicResponse {
                name: name.into(),
                partitions: partitions
                    .into_iter()
                    .map(|(index, answer)| response(index, &answer))
                    .collect(),
            })
            .collect();
        let response = wire::ListOffsetsResponse {
            topics,
            ..Default::default()
        };
        let chunks = head.encode(|writer, version| response.encode(writer, version));
        shard.respond(head, Some(chunks));
    });
    Ok(Outcome::Pending)
}

/// What a timestamp asks for: a time, or one of the special values that each came with a version.
pub(crate) fn ask_of(timestamp: i64, version: i16) -> Result<Ask, ErrorCode> {
    match timestamp {
        0.. => Ok(Ask::ByTimestamp(timestamp)),
        -1 => Ok(Ask::Latest),
        -2 => Ok(Ask::Earliest),
        // KIP-734
        -3 if version >= 7 => Ok(Ask::MaxTimestamp),
        // The local log start (KIP-405): without tiered storage, the log start.
        -4 if version >= 8 => Ok(Ask::Earliest),
        // The last tiered offset (KIP-1005), and the first that is to be tiered (KIP-1023).
        -5 if version >= 9 => Ok(Ask::Tiered),
        -6 if version >= 11 => Ok(Ask::Tiered),
        _ => Err(ErrorCode::UnsupportedVersion),
    }
}

fn response(index: i32, answer: &PartitionAnswer) -> wire::ListOffsetsPartitionResponse {
    match answer {
        PartitionAnswer::Offset {
            offset,
            timestamp_ms,
            leader_epoch,
        } => wire::ListOffsetsPartitionResponse {
            partition_index: index,
            error_code: 0,
            timestamp: *timestamp_ms,
            offset: *offset,
            leader_epoch: *leader_epoch,
        },
        PartitionAnswer::Error(code) => failed(index, *code),
        PartitionAnswer::Producers(_) => failed(index, ErrorCode::UnknownServerError),
    }
}

fn failed(index: i32, code: ErrorCode) -> wire::ListOffsetsPartitionResponse {
    wire::ListOffsetsPartitionResponse {
        partition_index: index,
        error_code: code.code(),
        timestamp: -1,
        offset: -1,
        leader_epoch: -1,
    }
}
