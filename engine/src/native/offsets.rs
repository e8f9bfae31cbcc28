//! Native Offsets: questions about offsets, by topic id. Asked of the owning cores; answered on the core
//! that accepted the connection.

use net::kafka::error::ErrorCode;
use net::native::v1::{
    ASK_EPOCH_END, ASK_TIME, ArchivedOffsetQuestion, ArchivedOffsets, OffsetResult, OffsetsAnswer,
};
use net::native::{REQUEST_PARTITIONS_MAX, read};
use storage::types::{LeaderEpoch, Now, TopicId};

use super::{Refused, Request};
use crate::api::Outcome;
use crate::api::list_offsets::ask_of;
use crate::mesh::{Ask, PartitionAnswer, PartitionCall, PartitionRef};
use crate::shard::Shard;

/// The version of Kafka's ListOffsets whose special times are known.
const LIST_OFFSETS_VERSION: i16 = 11;

/// Handles an Offsets request.
pub(super) fn handle(
    shard: &mut Shard,
    now: Now,
    request: &Request<'_>,
) -> Result<Outcome, Refused> {
    let body = read::<ArchivedOffsets>(request.body)?;
    if body.questions.len() > REQUEST_PARTITIONS_MAX {
        return Err(Refused::invalid("too many questions"));
    }
    let mut results = Vec::with_capacity(body.questions.len());
    let mut calls = Vec::new();
    let mut places = Vec::new();
    for question in body.questions.iter() {
        match call_of(shard, question) {
            Ok(call) => {
                places.push(results.len());
                calls.push(call);
                results.push(failed(ErrorCode::UnknownServerError));
            }
            Err(code) => results.push(failed(code)),
        }
    }
    let head = request.head;
    let then = move |shard: &mut Shard, _now: Now, answers: Vec<PartitionAnswer>| {
        for (place, answer) in places.into_iter().zip(answers) {
            results[place] = result_of(&answer);
        }
        let chunks = head.encode(&OffsetsAnswer { results });
        shard.respond_to(head.ticket, Some(chunks));
    };
    shard.ask_partitions(now, calls, Box::new(then));
    Ok(Outcome::Pending)
}

fn call_of(shard: &Shard, question: &ArchivedOffsetQuestion) -> Result<PartitionCall, ErrorCode> {
    let topic_id = TopicId::from_bytes(question.topic_id);
    let partition = question.partition.to_native();
    let at = question.at.to_native();
    let topic = shard
        .image
        .topic_by_id(topic_id)
        .ok_or(ErrorCode::UnknownTopicId)?;
    if !(0..topic.partition_count()).contains(&partition) {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    let ask = match question.ask {
        ASK_TIME => ask_of(at, LIST_OFFSETS_VERSION)?,
        ASK_EPOCH_END => match i32::try_from(at) {
            Ok(epoch) => Ask::EpochEnd(LeaderEpoch(epoch)),
            Err(_) => return Err(ErrorCode::InvalidRequest),
        },
        _ => return Err(ErrorCode::UnsupportedVersion),
    };
    Ok(PartitionCall {
        partition: PartitionRef {
            topic_id,
            partition,
        },
        current_leader_epoch: question.leader_epoch.to_native(),
        ask,
    })
}

fn result_of(answer: &PartitionAnswer) -> OffsetResult {
    match answer {
        PartitionAnswer::Offset {
            offset,
            timestamp_ms,
            leader_epoch,
        } => OffsetResult {
            offset: *offset,
            timestamp_ms: *timestamp_ms,
            leader_epoch: *leader_epoch,
            error: ErrorCode::None.code(),
        },
        PartitionAnswer::Error(code) => failed(*code),
        PartitionAnswer::Producers(_) => failed(ErrorCode::UnknownServerError),
    }
}

fn failed(code: ErrorCode) -> OffsetResult {
    OffsetResult {
        offset: -1,
        timestamp_ms: -1,
        leader_epoch: -1,
        error: code.code(),
    }
}
