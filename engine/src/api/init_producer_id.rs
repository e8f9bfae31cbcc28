//! InitProducerId: ids for idempotent producers (KIP-98, KIP-360). Lives on the core that accepted the
//! connection, which takes ids from blocks that the metadata controller has reserved durably.

use net::kafka::error::ErrorCode;
use net::kafka::init_producer_id as wire;
use net::wire::DecodeError;
use storage::types::Now;

use super::{Head, Outcome, Request};
use crate::connection::Ticket;
use crate::metadata::{MetadataCommand, MetadataReply};
use crate::native;
use crate::shard::Shard;

/// Ids that this core may still give out.
#[derive(Debug, Default)]
pub struct ProducerIds {
    next: i64,
    end: i64,
    waiting: Vec<Reply>,
}

/// Who asked for an id.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A Kafka client.
    Kafka(Head),
    /// A native client.
    Native(native::Head),
}

impl Reply {
    fn encode(&self, result: Result<i64, ErrorCode>) -> Vec<ring::buf::Chunk> {
        match (self, result) {
            (Reply::Kafka(head), Ok(id)) => given(*head, id),
            (Reply::Kafka(head), Err(code)) => failed(*head, code),
            (Reply::Native(head), result) => native::producer_id::encode(head, result),
        }
    }

    fn ticket(&self) -> Ticket {
        match self {
            Reply::Kafka(head) => head.ticket,
            Reply::Native(head) => head.ticket,
        }
    }
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
    Ok(give(shard, now, Reply::Kafka(head)))
}

/// Gives an id, at once or when a block of them is reserved.
pub(crate) fn give(shard: &mut Shard, now: Now, reply: Reply) -> Outcome {
    let ids = &mut shard.producer_ids;
    if ids.next < ids.end {
        let id = ids.next;
        ids.next += 1;
        return Outcome::Done(reply.encode(Ok(id)));
    }
    ids.waiting.push(reply);
    if ids.waiting.len() == 1 {
        let then = |shard: &mut Shard, now: Now, reply: MetadataReply| on_block(shard, now, reply);
        shard.ask_metadata(now, MetadataCommand::ReserveProducerIds, Box::new(then));
    }
    Outcome::Pending
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
    for reply in std::mem::take(&mut shard.producer_ids.waiting) {
        let ids = &mut shard.producer_ids;
        let chunks = if ids.next < ids.end {
            ids.next += 1;
            reply.encode(Ok(ids.next - 1))
        } else {
            // More producers at once than a block has ids, or no block: they ask again.
            reply.encode(Err(ErrorCode::CoordinatorLoadInProgress))
        };
        shard.respond_to(reply.ticket(), Some(chunks));
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
