//! ListGroups: the groups that this broker coordinates. Asks all cores and answers when all did, on the core
//! that accepted the connection.

use net::kafka::list_groups as wire;
use net::wire::DecodeError;
use storage::types::Now;

use super::groups::ask_every_core;
use super::{Outcome, Request};
use crate::group::{GroupAnswer, GroupCall, GroupError, ListCall};
use crate::shard::Shard;

/// Handles a ListGroups request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::ListGroupsRequest::decode)?;
    let head = request.head;
    let call = GroupCall::List(ListCall {
        states: body
            .states_filter
            .into_iter()
            .map(|name| name.into_owned())
            .collect(),
        types: body
            .types_filter
            .into_iter()
            .map(|name| name.into_owned())
            .collect(),
    });
    let then = move |shard: &mut Shard, _now: Now, answers: Vec<GroupAnswer>| {
        let mut failure = GroupError::None;
        let mut groups = Vec::new();
        for answer in answers {
            let GroupAnswer::List {
                error,
                groups: listed,
            } = answer
            else {
                unreachable!("a list is answered as a list");
            };
            if error != GroupError::None {
                failure = error;
            }
            groups.extend(listed.into_iter().map(|group| wire::ListedGroup {
                group_id: group.group_id.into(),
                protocol_type: group.protocol_type.into(),
                group_state: group.state.into(),
                group_type: group.group_type.into(),
            }));
        }
        if failure != GroupError::None {
            groups.clear();
        }
        let response = wire::ListGroupsResponse {
            throttle_time_ms: 0,
            error_code: failure.code(),
            groups,
        };
        let chunks = head.encode(|writer, version| response.encode(writer, version));
        shard.respond(head, Some(chunks));
    };
    ask_every_core(shard, now, &call, Box::new(then));
    Ok(Outcome::Pending)
}
