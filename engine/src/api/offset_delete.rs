//! OffsetDelete: forgets committed offsets (KIP-496). Sorts out topics and partitions that do not exist,
//! asks the group's coordinator about the others, and answers when it does, on the core that accepted the
//! connection.

use std::collections::HashMap;

use net::kafka::offset_delete as wire;
use net::wire::DecodeError;
use storage::types::Now;

use super::groups::{ask, has_partition};
use super::{Outcome, Request};
use crate::group::{DeleteOffsetsCall, GroupAnswer, GroupCall, GroupError};
use crate::shard::Shard;

/// Handles an OffsetDelete request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::OffsetDeleteRequest::decode)?;
    let head = request.head;
    let mut refused: Vec<(String, Vec<(i32, GroupError)>)> = Vec::new();
    let mut topics = Vec::new();
    for topic in body.topics {
        let known = shard.image.topic(&topic.name);
        let indexes = topic
            .partitions
            .iter()
            .map(|partition| partition.partition_index);
        let (there, missing): (Vec<i32>, Vec<i32>) =
            indexes.partition(|index| known.is_some_and(|known| has_partition(known, *index)));
        if !missing.is_empty() {
            let error = GroupError::UnknownTopicOrPartition;
            let missing = missing.into_iter().map(|index| (index, error)).collect();
            refused.push((topic.name.to_string(), missing));
        }
        if !there.is_empty() {
            topics.push((topic.name.into_owned(), there));
        }
    }
    let asked = topics.clone();
    let call = DeleteOffsetsCall {
        group_id: body.group_id.into_owned(),
        topics,
    };
    let then = move |shard: &mut Shard, _now: Now, answer: GroupAnswer| {
        let GroupAnswer::DeleteOffsets { error, topics } = answer else {
            unreachable!("a deletion of offsets is answered as such");
        };
        let mut results = Vec::new();
        if error == GroupError::None {
            let answered = asked.into_iter().zip(topics);
            let answered = answered.map(|((name, partitions), errors)| {
                (name, partitions.into_iter().zip(errors).collect())
            });
            results = merged(refused.into_iter().chain(answered));
        }
        let response = wire::OffsetDeleteResponse {
            error_code: error.code(),
            throttle_time_ms: 0,
            topics: results
                .into_iter()
                .map(|(name, partitions)| wire::OffsetDeleteResponseTopic {
                    name: name.into(),
                    partitions: partitions
                        .into_iter()
                        .map(
                            |(partition_index, error)| wire::OffsetDeleteResponsePartition {
                                partition_index,
                                error_code: error.code(),
                            },
                        )
                        .collect(),
                })
                .collect(),
        };
        let chunks = head.encode(|writer, version| response.encode(writer, version));
        shard.respond(head, Some(chunks));
    };
    ask(shard, now, GroupCall::DeleteOffsets(call), Box::new(then));
    Ok(Outcome::Pending)
}

/// Each topic once, where it came first.
fn merged(
    parts: impl Iterator<Item = (String, Vec<(i32, GroupError)>)>,
) -> Vec<(String, Vec<(i32, GroupError)>)> {
    let mut topics: Vec<(String, Vec<(i32, GroupError)>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (name, partitions) in parts {
        let place = *places.entry(name.clone()).or_insert_with(|| {
            topics.push((name, Vec::new()));
            topics.len() - 1
        });
        topics[place].1.extend(partitions);
    }
    topics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_answered_once() {
        let parts = [
            (
                "a".to_owned(),
                vec![(9, GroupError::UnknownTopicOrPartition)],
            ),
            ("b".to_owned(), vec![(0, GroupError::None)]),
            ("a".to_owned(), vec![(1, GroupError::None)]),
        ];
        let topics = merged(parts.into_iter());
        let shape: Vec<(&str, usize)> = topics
            .iter()
            .map(|(name, partitions)| (name.as_str(), partitions.len()))
            .collect();
        assert_eq!(shape, [("a", 2), ("b", 1)]);
    }
}
