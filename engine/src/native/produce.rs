//! Native Produce: batches by topic id. Lives on the core that accepted the connection; a batch stays a
//! range of the frame, and a request with one batch for this very core waits without a state of its own.

use net::kafka::error::ErrorCode;
use net::native::v1::{
    ArchivedProduce, ArchivedProducePart, ProduceAnswer, ProduceRemark, ProduceResult,
};
use net::native::{REQUEST_PARTITIONS_MAX, frame, read};
use storage::types::{Now, TopicId};

use super::{Head, PRODUCE_VERSION, Refused, Request};
use crate::api::Outcome;
use crate::api::produce::{Batches, Reply};
use crate::calls::Waiting;
use crate::mesh::{AppendResult, PartitionRef};
use crate::metadata::is_internal;
use crate::shard::Shard;

/// A request with one batch, until it has its result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OneBatch {
    head: Head,
    acks: i16,
}

/// Handles a Produce request.
pub(super) fn handle(
    shard: &mut Shard,
    now: Now,
    request: &Request<'_>,
) -> Result<Outcome, Refused> {
    let body = read::<ArchivedProduce>(request.body)?;
    let stated: u64 = body
        .parts
        .iter()
        .map(|part| u64::from(part.records_bytes.to_native()))
        .sum();
    if stated != request.records.len() as u64 {
        return Err(Refused::invalid(
            "the lengths of the batches are not that of the records",
        ));
    }
    if body.parts.len() > REQUEST_PARTITIONS_MAX {
        return Err(Refused::invalid("too many batches"));
    }
    let acks = i16::from(body.acks);
    let acks_known = (-1..=1).contains(&acks);
    if let [part] = body.parts.as_slice()
        && acks_known
    {
        let name = name_of(part);
        if let Some(partition) = shard.partitions.get(&name)
            && !is_internal(&partition.topic)
        {
            let one = OneBatch {
                head: request.head,
                acks,
            };
            let id = shard.expect(Waiting::NativeProduce(one));
            let origin = shard.origin(id);
            let batch = request.share_records(0, request.records.len());
            shard.serve_append(
                now,
                origin,
                acks,
                PRODUCE_VERSION,
                [(name, batch)].into_iter(),
            );
            return Ok(Outcome::Pending);
        }
    }
    let mut batches = Batches::with_capacity(body.parts.len());
    let mut start = 0;
    for part in body.parts.iter() {
        let bytes = part.records_bytes.to_native() as usize;
        let name = name_of(part);
        match refusal(shard, name, acks_known) {
            Some(code) => batches.refuse(name.partition, code),
            None => {
                let core = shard.owner(name);
                batches.add(core, name, request.share_records(start, bytes));
            }
        }
        start += bytes;
    }
    let reply = Reply::Native(request.head);
    batches.append(shard, now, reply, acks, PRODUCE_VERSION, request.frame);
    Ok(Outcome::Pending)
}

fn name_of(part: &ArchivedProducePart) -> PartitionRef {
    PartitionRef {
        topic_id: TopicId::from_bytes(part.topic_id),
        partition: part.partition.to_native(),
    }
}

/// Why a batch is refused before it is looked at.
fn refusal(shard: &Shard, name: PartitionRef, acks_known: bool) -> Option<ErrorCode> {
    if !acks_known {
        return Some(ErrorCode::InvalidRequiredAcks);
    }
    let Some(topic) = shard.image.topic_by_id(name.topic_id) else {
        return Some(ErrorCode::UnknownTopicId);
    };
    if !(0..topic.partition_count()).contains(&name.partition) {
        return Some(ErrorCode::UnknownTopicOrPartition);
    }
    topic.internal().then_some(ErrorCode::InvalidTopicException)
}

/// The one batch of a request has its result.
pub(crate) fn finish_one(shard: &mut Shard, one: OneBatch, results: Vec<AppendResult>) {
    if one.acks != 0 {
        respond(shard, one.head, results.into_iter());
        return;
    }
    let failed = results.iter().any(|result| result.error != ErrorCode::None);
    if failed {
        shard.close(one.head.ticket.conn, "a produce with acks=0 failed");
    }
    shard.respond_to(one.head.ticket, None);
}

/// Answers a request whose batches all have their results.
pub(crate) fn respond(shard: &mut Shard, head: Head, results: impl Iterator<Item = AppendResult>) {
    let mut answer = ProduceAnswer {
        results: std::mem::take(&mut shard.native.results),
        ..ProduceAnswer::default()
    };
    answer.results.clear();
    for result in results {
        let part = answer.results.len() as u32;
        answer.results.push(ProduceResult {
            base_offset: result.base_offset,
            log_append_time_ms: result.log_append_time_ms,
            log_start_offset: result.log_start_offset,
            error: result.error.code(),
        });
        let fault = result.fault.map(|fault| *fault).unwrap_or_default();
        if let Some(message) = &fault.message {
            remark(&mut answer, part, -1, message);
        }
        for (record, message) in &fault.record_errors {
            remark(&mut answer, part, *record, message.as_deref().unwrap_or(""));
        }
    }
    let chunks = head.encode(&answer);
    if answer.results.capacity() <= REQUEST_PARTITIONS_MAX {
        shard.native.results = answer.results;
    }
    shard.respond_to(head.ticket, Some(chunks));
}

fn remark(answer: &mut ProduceAnswer, part: u32, record: i32, message: &str) {
    let (text_start, text_bytes) = frame::push_text(&mut answer.texts, message);
    answer.remarks.push(ProduceRemark {
        part,
        record,
        text_start,
        text_bytes,
    });
}
