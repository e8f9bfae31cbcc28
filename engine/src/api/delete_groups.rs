//! DeleteGroups: groups without members are removed with their offsets (KIP-229). Asks the groups'
//! coordinators and answers when all did, on the core that accepted the connection.

use std::collections::HashSet;

use net::kafka::delete_groups as wire;
use net::wire::DecodeError;
use storage::types::Now;

use super::groups::ask_all;
use super::{Outcome, Request};
use crate::group::{DeleteGroupCall, GroupAnswer, GroupCall};
use crate::shard::Shard;

/// Handles a DeleteGroups request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::DeleteGroupsRequest::decode)?;
    let head = request.head;
    // A group that is named twice is deleted, and answered, once.
    let mut seen = HashSet::new();
    let group_ids: Vec<String> = body
        .groups_names
        .into_iter()
        .map(|id| id.into_owned())
        .filter(|id| seen.insert(id.clone()))
        .collect();
    let calls = group_ids
        .iter()
        .map(|group_id| {
            let group_id = group_id.clone();
            GroupCall::Delete(DeleteGroupCall { group_id })
        })
        .collect();
    let then = move |shard: &mut Shard, _now: Now, answers: Vec<GroupAnswer>| {
        let results = group_ids
            .into_iter()
            .zip(answers)
            .map(|(group_id, answer)| {
                let GroupAnswer::Delete(error) = answer else {
                    unreachable!("a deletion is answered as a deletion");
                };
                wire::DeletableGroupResult {
                    group_id: group_id.into(),
                    error_code: error.code(),
                }
            });
        let response = wire::DeleteGroupsResponse {
            throttle_time_ms: 0,
            results: results.collect(),
        };
        let chunks = head.encode(|writer, version| response.encode(writer, version));
        shard.respond(head, Some(chunks));
    };
    ask_all(shard, now, calls, Box::new(then));
    Ok(Outcome::Pending)
}
