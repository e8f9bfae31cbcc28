//! Heartbeat: a member of a classic group is alive. Decodes, asks the group's coordinator, and answers when
//! it does, on the core that accepted the connection.

use net::kafka::heartbeat as wire;
use net::wire::DecodeError;
use storage::types::Now;

use super::groups::ask;
use super::{Outcome, Request};
use crate::group::{GroupAnswer, GroupCall, HeartbeatCall};
use crate::shard::Shard;

/// Handles a Heartbeat request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::HeartbeatRequest::decode)?;
    let head = request.head;
    let call = HeartbeatCall {
        group_id: body.group_id.into_owned(),
        generation: body.generation_id,
        member_id: body.member_id.into_owned(),
        instance_id: body.group_instance_id.map(|id| id.into_owned()),
    };
    let then = move |shard: &mut Shard, _now: Now, answer: GroupAnswer| {
        let GroupAnswer::Heartbeat(error) = answer else {
            unreachable!("a heartbeat is answered as a heartbeat");
        };
        let response = wire::HeartbeatResponse {
            throttle_time_ms: 0,
            error_code: error.code(),
        };
        let chunks = head.encode(|writer, version| response.encode(writer, version));
        shard.respond(head, Some(chunks));
    };
    ask(shard, now, GroupCall::Heartbeat(call), Box::new(then));
    Ok(Outcome::Pending)
}
