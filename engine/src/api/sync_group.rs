//! SyncGroup: the leader hands out the assignment, members get theirs. Decodes, asks the group's
//! coordinator, and answers when it does, on the core that accepted the connection.

use net::kafka::sync_group as wire;
use net::wire::DecodeError;
use storage::types::Now;

use super::groups::ask;
use super::{Head, Outcome, Request};
use crate::group::{GroupAnswer, GroupCall, GroupError, SyncAnswer, SyncCall};
use crate::shard::Shard;

/// Handles a SyncGroup request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::SyncGroupRequest::decode)?;
    let head = request.head;
    if head.version >= 5 && (body.protocol_type.is_none() || body.protocol_name.is_none()) {
        // From version 5 both must be named (KIP-559).
        let answer = SyncAnswer::error(GroupError::InconsistentGroupProtocol);
        return Ok(Outcome::Done(encode(head, answer)));
    }
    let call = SyncCall {
        group_id: body.group_id.into_owned(),
        generation: body.generation_id,
        member_id: body.member_id.into_owned(),
        instance_id: body.group_instance_id.map(|id| id.into_owned()),
        protocol_type: body.protocol_type.map(|name| name.into_owned()),
        protocol_name: body.protocol_name.map(|name| name.into_owned()),
        assignments: body
            .assignments
            .into_iter()
            .map(|given| (given.member_id.into_owned(), given.assignment.into_owned()))
            .collect(),
    };
    let then = move |shard: &mut Shard, _now: Now, answer: GroupAnswer| {
        let GroupAnswer::Sync(answer) = answer else {
            unreachable!("a sync is answered as a sync");
        };
        let chunks = encode(head, answer);
        shard.respond(head, Some(chunks));
    };
    ask(shard, now, GroupCall::Sync(call), Box::new(then));
    Ok(Outcome::Pending)
}

fn encode(head: Head, answer: SyncAnswer) -> Vec<ring::buf::Chunk> {
    let response = wire::SyncGroupResponse {
        throttle_time_ms: 0,
        error_code: answer.error.code(),
        protocol_type: answer.protocol_type.map(Into::into),
        protocol_name: answer.protocol_name.map(Into::into),
        assignment: answer.assignment.into(),
    };
    head.encode(|writer, version| response.encode(writer, version))
}
