//! OffsetCommit: how far a group has read. Sorts out topics and partitions that do not exist, asks the
//! group's coordinator about the others, and answers when it does, on the core that accepted the connection.

use std::collections::HashMap;

use net::kafka::offset_commit as wire;
use net::wire::DecodeError;
use storage::types::{Now, TopicId};

use super::groups::{ask, has_partition};
use super::{Head, Outcome, Request};
use crate::group::{CommitCall, CommitPartition, CommitTopic, GroupAnswer, GroupCall, GroupError};
use crate::shard::Shard;

/// From this version topics are named by id (KIP-848).
const VERSION_TOPIC_IDS: i16 = 10;

/// What became of each partition of a topic.
type PartitionErrors = Vec<(i32, GroupError)>;

/// The answer as it grows: refusals first, then what the coordinator says.
#[derive(Default)]
struct Results {
    topics: Vec<(String, TopicId, PartitionErrors)>,
    places: HashMap<(String, TopicId), usize>,
}

impl Results {
    fn topic(&mut self, name: &str, id: TopicId) -> &mut PartitionErrors {
        let topics = &mut self.topics;
        let place = *self.places.entry((name.to_owned(), id)).or_insert_with(|| {
            topics.push((name.to_owned(), id, Vec::new()));
            topics.len() - 1
        });
        &mut topics[place].2
    }

    fn encode(self, head: Head) -> Vec<ring::buf::Chunk> {
        let topics = self.topics.into_iter();
        let response = wire::OffsetCommitResponse {
            throttle_time_ms: 0,
            topics: topics
                .map(
                    |(name, topic_id, partitions)| wire::OffsetCommitResponseTopic {
                        name: name.into(),
                        topic_id,
                        partitions: partitions
                            .into_iter()
                            .map(
                                |(partition_index, error)| wire::OffsetCommitResponsePartition {
                                    partition_index,
                                    error_code: error.code(),
                                },
                            )
                            .collect(),
                    },
                )
                .collect(),
        };
        head.encode(|writer, version| response.encode(writer, version))
    }
}

/// Handles an OffsetCommit request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::OffsetCommitRequest::decode)?;
    let head = request.head;
    let by_id = head.version >= VERSION_TOPIC_IDS;
    let mut results = Results::default();
    let mut topics = Vec::with_capacity(body.topics.len());
    for topic in body.topics {
        let known = if by_id {
            shard.image.topic_by_id(topic.topic_id)
        } else {
            shard.image.topic(&topic.name)
        };
        let Some(known) = known else {
            let error = if by_id {
                GroupError::UnknownTopicId
            } else {
                GroupError::UnknownTopicOrPartition
            };
            let refused = topic.partitions.iter();
            let refused = refused.map(|partition| (partition.partition_index, error));
            results.topic(&topic.name, topic.topic_id).extend(refused);
            continue;
        };
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = partition.partition_index;
            if has_partition(known, index) {
                partitions.push(CommitPartition {
                    partition: index,
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.committed_metadata.map(|text| text.into_owned()),
                });
            } else {
                let refused = (index, GroupError::UnknownTopicOrPartition);
                results.topic(&known.name, known.id).push(refused);
            }
        }
        if !partitions.is_empty() {
            topics.push(CommitTopic {
                topic: known.name.clone(),
                topic_id: known.id,
                partitions,
            });
        }
    }
    if topics.is_empty() {
        return Ok(Outcome::Done(results.encode(head)));
    }
    // What the coordinator answers in the same order.
    let asked: Vec<(String, TopicId, Vec<i32>)> = topics
        .iter()
        .map(|topic| {
            let indexes = topic.partitions.iter().map(|partition| partition.partition);
            (topic.topic.clone(), topic.topic_id, indexes.collect())
        })
        .collect();
    let call = CommitCall {
        api_version: head.version,
        group_id: body.group_id.into_owned(),
        generation: body.generation_id_or_member_epoch,
        member_id: body.member_id.into_owned(),
        instance_id: body.group_instance_id.map(|id| id.into_owned()),
        retention_ms: body.retention_time_ms,
        topics,
    };
    let then = move |shard: &mut Shard, _now: Now, answer: GroupAnswer| {
        let GroupAnswer::Commit { error, topics } = answer else {
            unreachable!("a commit is answered as a commit");
        };
        let mut answered = topics.into_iter();
        for (name, id, partitions) in asked {
            let errors = match error {
                GroupError::None => answered.next().unwrap_or_default(),
                error => vec![error; partitions.len()],
            };
            let partitions = partitions.into_iter().zip(errors);
            results.topic(&name, id).extend(partitions);
        }
        shard.respond(head, Some(results.encode(head)));
    };
    ask(shard, now, GroupCall::Commit(call), Box::new(then));
    Ok(Outcome::Pending)
}
