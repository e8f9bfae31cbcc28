//! Native Fetch: the same plan as Kafka's, without sessions and by topic id. Lives on the core that accepted
//! the connection.

use std::sync::Arc;

use net::kafka::error::ErrorCode;
use net::native::v1::{ArchivedFetch, ArchivedFetchPart, FetchAnswer, FetchResult};
use net::native::{REQUEST_PARTITIONS_MAX, read};
use ring::buf::Chunk;
use storage::types::{Now, TopicId};

use super::{Head, Refused, Request};
use crate::api::Outcome;
use crate::api::fetch::{Plan, Reply, start};
use crate::calls::FetchedPart;
use crate::fetch_session::{SessionKey, SessionPartition, SessionPlan};
use crate::shard::Shard;

/// Handles a Fetch request.
pub(super) fn handle(
    shard: &mut Shard,
    now: Now,
    request: &Request<'_>,
) -> Result<Outcome, Refused> {
    let body = read::<ArchivedFetch>(request.body)?;
    check(body.parts.len(), body.isolation)?;
    let wanted = body
        .parts
        .iter()
        .map(|part| wanted(&shard.native.no_name, part))
        .collect();
    let plan = Plan {
        reply: Reply::Native(request.head),
        started_us: request.head.started_us,
        session: SessionPlan::Sessionless,
        wanted,
        by_id: true,
        wait_us: Some(u64::from(body.wait_ms_max.to_native()) * 1000),
        bytes_min: body.bytes_min.to_native() as usize,
        bytes_max: body.bytes_max.to_native() as usize,
        read_committed: body.isolation == 1,
    };
    start(shard, now, plan);
    Ok(Outcome::Pending)
}

/// What Fetch and Subscribe demand alike.
pub(super) fn check(parts: usize, isolation: u8) -> Result<(), Refused> {
    if parts > REQUEST_PARTITIONS_MAX {
        return Err(Refused::invalid("too many partitions"));
    }
    if isolation > 1 {
        return Err(Refused::invalid("isolation is 0 or 1"));
    }
    Ok(())
}

/// A partition as the plan of a fetch has it.
pub(super) fn wanted(
    no_name: &Arc<str>,
    part: &ArchivedFetchPart,
) -> (SessionKey, SessionPartition) {
    let key = SessionKey {
        topic: Arc::clone(no_name),
        topic_id: TopicId::from_bytes(part.topic_id),
        partition: part.partition.to_native(),
    };
    let want = SessionPartition {
        fetch_offset: part.fetch_offset.to_native(),
        bytes_max: i32::try_from(part.bytes_max.to_native()).unwrap_or(i32::MAX),
        current_leader_epoch: part.leader_epoch.to_native(),
        last_fetched_epoch: part.last_fetched_epoch.to_native(),
        told_high_watermark: None,
        told_log_start_offset: None,
    };
    (key, want)
}

/// Rows and records of what was found. `part_of` names a partition by its place among those that were
/// asked for; rows that say nothing are left out.
pub(super) fn collect(
    found: impl Iterator<Item = Option<FetchedPart>>,
    part_of: impl Fn(usize) -> u32,
) -> (Vec<FetchResult>, Vec<Chunk>, u32) {
    let mut results = Vec::new();
    // The first place is for what stands before the records.
    let mut chunks = vec![Chunk::Local(ring::buf::Shared::empty())];
    let mut records_bytes = 0;
    for (place, found) in found.enumerate() {
        let Some((head, data)) = found else {
            continue;
        };
        let bytes: usize = data.iter().map(|chunk| chunk.len()).sum();
        if bytes == 0 && head.error == ErrorCode::None && head.diverging.is_none() {
            continue;
        }
        let (diverging_epoch, diverging_end_offset) = head.diverging.unwrap_or((-1, -1));
        // Answers are bounded by fetch.max.bytes and one batch, far below 4 GiB.
        let bytes = bytes as u32;
        records_bytes += bytes;
        results.push(FetchResult {
            high_watermark: head.high_watermark,
            last_stable_offset: head.high_watermark,
            log_start_offset: head.log_start_offset,
            diverging_end_offset,
            diverging_epoch,
            part: part_of(place),
            records_bytes: bytes,
            error: head.error.code(),
        });
        chunks.extend(data);
    }
    (results, chunks, records_bytes)
}

/// Answers a request for which there is enough.
pub(crate) fn respond(
    shard: &mut Shard,
    head: Head,
    found: impl Iterator<Item = Option<FetchedPart>>,
) {
    let (results, mut chunks, records_bytes) = collect(found, |place| place as u32);
    chunks[0] = head.front(&FetchAnswer { results }, records_bytes);
    shard.respond_to(head.ticket, Some(chunks));
}
