//! LeaveGroup: members leave a classic group, or are taken out of it (KIP-345). Decodes, asks the group's
//! coordinator, and answers when it does, on the core that accepted the connection.

use net::kafka::leave_group as wire;
use net::wire::DecodeError;
use storage::types::Now;

use super::groups::ask;
use super::{Outcome, Request};
use crate::group::{GroupAnswer, GroupCall, GroupError, LeaveCall, LeavingMember};
use crate::shard::Shard;

/// Before this version a request is of one member, and so is its error.
const VERSION_MANY: i16 = 3;

/// Handles a LeaveGroup request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::LeaveGroupRequest::decode)?;
    let head = request.head;
    let members = if head.version < VERSION_MANY {
        vec![LeavingMember {
            member_id: body.member_id.into_owned(),
            instance_id: None,
        }]
    } else {
        body.members
            .into_iter()
            .map(|member| LeavingMember {
                member_id: member.member_id.into_owned(),
                instance_id: member.group_instance_id.map(|id| id.into_owned()),
            })
            .collect()
    };
    let call = LeaveCall {
        group_id: body.group_id.into_owned(),
        members,
    };
    let then = move |shard: &mut Shard, _now: Now, answer: GroupAnswer| {
        let GroupAnswer::Leave { mut error, members } = answer else {
            unreachable!("a departure is answered as a departure");
        };
        if head.version < VERSION_MANY && error == GroupError::None {
            error = members.first().map_or(error, |(_, error)| *error);
        }
        let response = wire::LeaveGroupResponse {
            throttle_time_ms: 0,
            error_code: error.code(),
            members: members
                .into_iter()
                .map(|(member, error)| wire::MemberResponse {
                    member_id: member.member_id.into(),
                    group_instance_id: member.instance_id.map(Into::into),
                    error_code: error.code(),
                })
                .collect(),
        };
        let chunks = head.encode(|writer, version| response.encode(writer, version));
        shard.respond(head, Some(chunks));
    };
    ask(shard, now, GroupCall::Leave(call), Box::new(then));
    Ok(Outcome::Pending)
}
