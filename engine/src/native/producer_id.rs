//! Native ProducerId: ids from the same blocks as Kafka's InitProducerId. Lives on the core that accepted
//! the connection.

use net::kafka::error::ErrorCode;
use net::native::read;
use net::native::v1::{ArchivedProducerId, ProducerIdAnswer};
use ring::buf::Chunk;
use storage::types::Now;

use super::{Head, Refused, Request};
use crate::api::Outcome;
use crate::api::init_producer_id::{Reply, give};
use crate::shard::Shard;

/// Handles a ProducerId request.
pub(super) fn handle(
    shard: &mut Shard,
    now: Now,
    request: &Request<'_>,
) -> Result<Outcome, Refused> {
    let body = read::<ArchivedProducerId>(request.body)?;
    // A producer names its id and epoch, or neither (KIP-360).
    if (body.producer_id.to_native() == -1) != (body.producer_epoch.to_native() == -1) {
        let refused = encode(&request.head, Err(ErrorCode::InvalidRequest));
        return Ok(Outcome::Done(refused));
    }
    Ok(give(shard, now, Reply::Native(request.head)))
}

/// The answer.
pub(crate) fn encode(head: &Head, result: Result<i64, ErrorCode>) -> Vec<Chunk> {
    head.encode(&match result {
        Ok(producer_id) => ProducerIdAnswer {
            producer_id,
            producer_epoch: 0,
            error: ErrorCode::None.code(),
        },
        Err(code) => ProducerIdAnswer {
            producer_id: -1,
            producer_epoch: -1,
            error: code.code(),
        },
    })
}
