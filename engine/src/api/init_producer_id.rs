//! InitProducerId: ids for idempotent producers (KIP-98, KIP-360). Lives on the core that accepted the
//! connection, which takes ids from blocks that the metadata controller has reserved durably.

use net::kafka::error::ErrorCode;
use net::kafka::init_producer_id as wire;
use net::wire::DecodeError;
use storage::types::Now;

use super::{Head, Outcome, Request};
use crate::metadata::{MetadataCommand, MetadataReply};
use crate::shard::Shard;

/// Ids that this core may still give out.
#[derive(Debug, Default)]
pub struct ProducerIds {
    next: i64,
    end: i64,
    waiting: Vec<Head>,
}

/// Handles an InitProducerId request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::InitProducerIdRequest::decode)?;
    let head = request.head;
    match body.transactional_id.as_deref() {
        Some("") => return Ok(Outcome::Done(failed(head, ErrorCode::InvalidRequest))),
        Some(_) => {
            let code = ErrorCode::TransactionalIdAuthorizationFailed;
            return Ok(Outcome::Done(failed(head, code)));
        }
        None => {}
    }
    // A producer names its id and epoch, or neither (KIP-360).
    if (body.producer_id == -1) != (body.producer_epoch == -1) {
        return Ok(Outcome::Done(failed(head, ErrorCode::InvalidRequest)));
    }
    let ids = &mut shard.producer_ids;
    if ids.next < ids.end {
        let id = ids.next;
        ids.next += 1;
        return Ok(Outcome::Done(given(head, id)));
    }
    ids.waiting.push(head);
    if ids.waiting.len() == 1 {
        let then = |shard: &mut Shard, now: Now, reply: MetadataReply| on_block(shard, now, reply);
        shard.ask_metadata(now, MetadataCommand::ReserveProducerIds, Box::new(then));
    }
    Ok(Outcome::Pending)
}

fn on_block(shard: &mut Shard, _now: Now, reply: MetadataReply) {
    let block = match reply {
        MetadataReply::ProducerIds { first, count } => Some((first, first + i64::from(count))),
        _ => None,
    };
    if let Some((next, end)) = block {
        shard.producer_ids.next = next;
        shard.producer_ids.end = end;
    }
    for head in std::mem::take(&mut shard.producer_ids.waiting) {
        let ids = &mut shard.producer_ids;
        let chunks = if ids.next < ids.end {
            ids.next += 1;
            given(head, ids.next - 1)
        } else {
            // More producers at once than a block has ids, or no block: they ask again.
            failed(head, ErrorCode::CoordinatorLoadInProgress)
        };
        shard.respond(head, Some(chunks));
    }
}

fn given(head: Head, producer_id: i64) -> Vec<ring::buf::Chunk> {
    let response = wire::InitProducerIdResponse {
        producer_id,
        ..Default::default()
    };
    head.encode(|writer, version| response.encode(writer, version))
}

fn failed(head: Head, code: ErrorCode) -> Vec<ring::buf::Chunk> {
    let response = wire::InitProducerIdResponse {
        error_code: code.code(),
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    head.encode(|writer, version| response.encode(writer, version))
}
