//! JoinGroup: a member enters a classic group. Decodes, asks the group's coordinator, and answers when it
//! does, on the core that accepted the connection; the rules are `group`'s.

use net::kafka::join_group as wire;
use net::wire::DecodeError;
use storage::types::Now;

use super::groups::{ask, host_text};
use super::{Outcome, Request};
use crate::group::{GroupAnswer, GroupCall, JoinAnswer, JoinCall};
use crate::shard::Shard;

/// Handles a JoinGroup request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::JoinGroupRequest::decode)?;
    let head = request.head;
    let call = JoinCall {
        api_version: head.version,
        group_id: body.group_id.into_owned(),
        member_id: body.member_id.into_owned(),
        instance_id: body.group_instance_id.map(|id| id.into_owned()),
        client_id: request.client_id.unwrap_or_default().to_owned(),
        client_host: host_text(request.peer.ip()),
        session_timeout_ms: body.session_timeout_ms,
        rebalance_timeout_ms: if head.version == 0 {
            body.session_timeout_ms
        } else {
            body.rebalance_timeout_ms
        },
        protocol_type: body.protocol_type.into_owned(),
        protocols: body
            .protocols
            .into_iter()
            .map(|protocol| (protocol.name.into_owned(), protocol.metadata.into_owned()))
            .collect(),
    };
    let then = move |shard: &mut Shard, _now: Now, answer: GroupAnswer| {
        let GroupAnswer::Join(answer) = answer else {
            unreachable!("a join is answered as a join");
        };
        let response = response(answer);
        let chunks = head.encode(|writer, version| response.encode(writer, version));
        shard.respond(head, Some(chunks));
    };
    ask(shard, now, GroupCall::Join(call), Box::new(then));
    Ok(Outcome::Pending)
}

fn response(answer: JoinAnswer) -> wire::JoinGroupResponse<'static> {
    wire::JoinGroupResponse {
        throttle_time_ms: 0,
        error_code: answer.error.code(),
        generation_id: answer.generation,
        protocol_type: answer.protocol_type.map(Into::into),
        protocol_name: answer.protocol_name.map(Into::into),
        leader: answer.leader.into(),
        skip_assignment: answer.skip_assignment,
        member_id: answer.member_id.into(),
        members: answer
            .members
            .into_iter()
            .map(|member| wire::JoinGroupResponseMember {
                member_id: member.member_id.into(),
                group_instance_id: member.instance_id.map(Into::into),
                metadata: member.metadata.into(),
            })
            .collect(),
    }
}
