//! DescribeGroups: classic groups and their members. Asks the groups' coordinators and answers when all
//! did, on the core that accepted the connection.

use net::kafka::describe_groups as wire;
use net::wire::DecodeError;
use storage::types::Now;

use super::groups::ask_all;
use super::{Outcome, Request};
use crate::group::{DescribeAnswer, DescribeCall, GroupAnswer, GroupCall, GroupError};
use crate::shard::Shard;

/// Everything that can be done with a group, as bits of Kafka's operations: read, delete, describe,
/// describe configs and alter configs.
const GROUP_OPERATIONS: i32 = 3400;

/// Handles a DescribeGroups request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::DescribeGroupsRequest::decode)?;
    let head = request.head;
    let operations = if body.include_authorized_operations {
        GROUP_OPERATIONS
    } else {
        i32::MIN
    };
    let group_ids: Vec<String> = body.groups.into_iter().map(|id| id.into_owned()).collect();
    let calls = group_ids
        .iter()
        .map(|group_id| {
            GroupCall::Describe(DescribeCall {
                api_version: head.version,
                group_id: group_id.clone(),
            })
        })
        .collect();
    let then = move |shard: &mut Shard, _now: Now, answers: Vec<GroupAnswer>| {
        let groups = group_ids
            .into_iter()
            .zip(answers)
            .map(|(group_id, answer)| {
                let GroupAnswer::Describe(answer) = answer else {
                    unreachable!("a description is answered as a description");
                };
                described(group_id, answer, operations)
            });
        let response = wire::DescribeGroupsResponse {
            throttle_time_ms: 0,
            groups: groups.collect(),
        };
        let chunks = head.encode(|writer, version| response.encode(writer, version));
        shard.respond(head, Some(chunks));
    };
    ask_all(shard, now, calls, Box::new(then));
    Ok(Outcome::Pending)
}

fn described(
    group_id: String,
    answer: DescribeAnswer,
    operations: i32,
) -> wire::DescribedGroup<'static> {
    let error_message = (answer.error == GroupError::GroupIdNotFound)
        .then(|| format!("Group {group_id} not found.").into());
    wire::DescribedGroup {
        error_code: answer.error.code(),
        error_message,
        group_id: group_id.into(),
        group_state: answer.state.into(),
        protocol_type: answer.protocol_type.into(),
        protocol_data: answer.protocol.into(),
        members: answer
            .members
            .into_iter()
            .map(|member| wire::DescribedGroupMember {
                member_id: member.member_id.into(),
                group_instance_id: member.instance_id.map(Into::into),
                client_id: member.client_id.into(),
                client_host: member.client_host.into(),
                member_metadata: member.metadata.into(),
                member_assignment: member.assignment.into(),
            })
            .collect(),
        authorized_operations: match answer.error {
            GroupError::None => operations,
            _ => i32::MIN,
        },
    }
}
