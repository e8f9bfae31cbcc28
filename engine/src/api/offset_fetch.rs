//! OffsetFetch: how far groups have read, one group up to version 7, several from 8 (KIP-709). Finds topics
//! by id from 10, asks the groups' coordinators, and answers when all did, on the core that accepted the
//! connection.

use net::kafka::offset_fetch as wire;
use net::wire::DecodeError;
use storage::types::{Now, TopicId};

use super::groups::ask_all;
use super::{Head, Outcome, Request};
use crate::group::{
    FetchOffsetsCall, FetchTopic, FetchedTopic, GroupAnswer, GroupCall, GroupError,
};
use crate::shard::Shard;

/// From this version the whole answer can have an error.
const VERSION_GROUP_ERROR: i16 = 2;
/// From this version there are several groups.
const VERSION_GROUPS: i16 = 8;
/// From this version topics are named by id (KIP-848).
const VERSION_TOPIC_IDS: i16 = 10;

/// What one group is asked, and what of it is answered here.
struct Asked {
    group_id: String,
    /// Everything there is.
    all: bool,
    /// Partitions as they were asked for, for a version without an error of the whole.
    topics: Vec<(String, Vec<i32>)>,
    /// Ids that nobody knows.
    unknown: Vec<(TopicId, Vec<i32>)>,
}

/// What one group answered.
struct Fetched {
    asked: Asked,
    error: GroupError,
    topics: Vec<FetchedTopic>,
}

/// The id of the topic that has this name now: offsets of a deleted one that had it before are not its own,
/// although a crash may have kept them from being removed. Nil where there is none.
fn id_today(shard: &Shard, name: &str) -> TopicId {
    shard
        .image
        .topic(name)
        .map_or(TopicId::nil(), |topic| topic.id)
}

/// Handles an OffsetFetch request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::OffsetFetchRequest::decode)?;
    let head = request.head;
    let mut asked = Vec::new();
    let mut calls = Vec::new();
    let mut add = |group_id: String, topics: Option<Vec<FetchTopic>>, unknown| {
        let named = topics.iter().flatten();
        asked.push(Asked {
            group_id: group_id.clone(),
            all: topics.is_none(),
            topics: if head.version < VERSION_GROUP_ERROR {
                named
                    .map(|topic| (topic.topic.clone(), topic.partitions.clone()))
                    .collect()
            } else {
                Vec::new()
            },
            unknown,
        });
        calls.push(GroupCall::FetchOffsets(FetchOffsetsCall {
            group_id,
            topics,
        }));
    };
    if head.version < VERSION_GROUPS {
        let topics = body.topics.map(|topics| {
            let topics = topics.into_iter().map(|topic| FetchTopic {
                topic_id: id_today(shard, &topic.name),
                topic: topic.name.into_owned(),
                partitions: topic.partition_indexes,
            });
            topics.collect()
        });
        add(body.group_id.into_owned(), topics, Vec::new());
    } else {
        for group in body.groups {
            let mut unknown = Vec::new();
            let topics = group.topics.map(|topics| {
                let mut known = Vec::with_capacity(topics.len());
                for topic in topics {
                    let (name, topic_id) = if head.version >= VERSION_TOPIC_IDS {
                        match shard.image.topic_by_id(topic.topic_id) {
                            Some(found) => (found.name.clone(), found.id),
                            None => {
                                unknown.push((topic.topic_id, topic.partition_indexes));
                                continue;
                            }
                        }
                    } else {
                        let id = id_today(shard, &topic.name);
                        (topic.name.into_owned(), id)
                    };
                    known.push(FetchTopic {
                        topic: name,
                        topic_id,
                        partitions: topic.partition_indexes,
                    });
                }
                known
            });
            add(group.group_id.into_owned(), topics, unknown);
        }
    }
    let then = move |shard: &mut Shard, _now: Now, answers: Vec<GroupAnswer>| {
        let fetched = asked.into_iter().zip(answers).map(|(asked, answer)| {
            let GroupAnswer::FetchOffsets { error, topics } = answer else {
                unreachable!("a fetch of offsets is answered as such");
            };
            Fetched {
                asked,
                error,
                topics,
            }
        });
        let response = response(shard, head, fetched.collect());
        let chunks = head.encode(|writer, version| response.encode(writer, version));
        shard.respond(head, Some(chunks));
    };
    ask_all(shard, now, calls, Box::new(then));
    Ok(Outcome::Pending)
}

fn response(
    shard: &Shard,
    head: Head,
    mut groups: Vec<Fetched>,
) -> wire::OffsetFetchResponse<'static> {
    if head.version >= VERSION_GROUPS {
        return wire::OffsetFetchResponse {
            groups: groups
                .into_iter()
                .map(|fetched| group_response(shard, head, fetched))
                .collect(),
            ..Default::default()
        };
    }
    let Some(fetched) = groups.pop() else {
        unreachable!("an old request is of one group");
    };
    if head.version < VERSION_GROUP_ERROR && fetched.error != GroupError::None {
        return wire::OffsetFetchResponse {
            topics: failed(fetched.asked.topics, fetched.error),
            ..Default::default()
        };
    }
    wire::OffsetFetchResponse {
        error_code: fetched.error.code(),
        topics: fetched
            .topics
            .into_iter()
            .map(|topic| wire::OffsetFetchResponseTopic {
                name: topic.topic.into(),
                partitions: topic
                    .partitions
                    .into_iter()
                    .map(|offset| wire::OffsetFetchResponsePartition {
                        partition_index: offset.partition,
                        committed_offset: offset.offset,
                        committed_leader_epoch: offset.leader_epoch,
                        metadata: Some(offset.metadata.into()),
                        error_code: 0,
                    })
                    .collect(),
            })
            .collect(),
        ..Default::default()
    }
}

/// The error at every partition, for a version that has no other place.
fn failed(
    topics: Vec<(String, Vec<i32>)>,
    error: GroupError,
) -> Vec<wire::OffsetFetchResponseTopic<'static>> {
    topics
        .into_iter()
        .map(|(name, partitions)| wire::OffsetFetchResponseTopic {
            name: name.into(),
            partitions: partitions
                .into_iter()
                .map(|partition_index| wire::OffsetFetchResponsePartition {
                    partition_index,
                    committed_offset: -1,
                    committed_leader_epoch: -1,
                    metadata: Some("".into()),
                    error_code: error.code(),
                })
                .collect(),
        })
        .collect()
}

fn group_response(
    shard: &Shard,
    head: Head,
    fetched: Fetched,
) -> wire::OffsetFetchResponseGroup<'static> {
    let group_id = fetched.asked.group_id.into();
    if fetched.error != GroupError::None {
        return wire::OffsetFetchResponseGroup {
            group_id,
            topics: Vec::new(),
            error_code: fetched.error.code(),
        };
    }
    let mut topics = Vec::with_capacity(fetched.topics.len() + fetched.asked.unknown.len());
    for topic in fetched.topics {
        let mut topic_id = topic.topic_id;
        if fetched.asked.all && head.version >= VERSION_TOPIC_IDS {
            // A topic that is no more cannot be named by id.
            match shard.image.topic(&topic.topic) {
                Some(found) => topic_id = found.id,
                None => continue,
            }
        }
        topics.push(wire::OffsetFetchResponseTopics {
            name: topic.topic.into(),
            topic_id,
            partitions: topic
                .partitions
                .into_iter()
                .map(|offset| wire::OffsetFetchResponsePartitions {
                    partition_index: offset.partition,
                    committed_offset: offset.offset,
                    committed_leader_epoch: offset.leader_epoch,
                    metadata: Some(offset.metadata.into()),
                    error_code: 0,
                })
                .collect(),
        });
    }
    for (topic_id, partitions) in fetched.asked.unknown {
        topics.push(wire::OffsetFetchResponseTopics {
            name: "".into(),
            topic_id,
            partitions: partitions
                .into_iter()
                .map(|partition_index| wire::OffsetFetchResponsePartitions {
                    partition_index,
                    committed_offset: -1,
                    committed_leader_epoch: -1,
                    metadata: Some("".into()),
                    error_code: GroupError::UnknownTopicId.code(),
                })
                .collect(),
        });
    }
    wire::OffsetFetchResponseGroup {
        group_id,
        topics,
        error_code: 0,
    }
}
