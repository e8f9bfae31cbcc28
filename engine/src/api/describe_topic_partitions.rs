//! DescribeTopicPartitions (KIP-966): topics and partitions a page at a time, in the order of their names.
//! Answered on the core that accepted the connection from its own metadata.

use std::collections::BTreeSet;

use net::kafka::describe_topic_partitions as wire;
use net::kafka::error::ErrorCode;
use net::wire::DecodeError;
use storage::types::TopicId;

use super::metadata::TOPIC_OPERATIONS;
use super::{Outcome, Request};
use crate::metadata::topics::check_name;
use crate::metadata::{MetadataImage, Topic, is_internal};
use crate::shard::Shard;

/// Handles a DescribeTopicPartitions request.
pub fn handle(shard: &mut Shard, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::DescribeTopicPartitionsRequest::decode)?;
    let response = respond(&shard.image, &body);
    Ok(Outcome::Done(request.head.encode(|writer, version| {
        response.encode(writer, version)
    })))
}

fn respond<'a>(
    image: &'a MetadataImage,
    body: &'a wire::DescribeTopicPartitionsRequest<'a>,
) -> wire::DescribeTopicPartitionsResponse<'a> {
    let (first_name, first_partition) = match &body.cursor {
        None => ("", 0),
        Some(cursor) => (&*cursor.topic_name, cursor.partition_index),
    };
    let listed = body.topics.is_empty() || body.topics.iter().any(|t| t.name == first_name);
    if body.cursor.is_some() && (first_partition < 0 || !listed) {
        let refused =
            |topic: &'a wire::TopicRequest<'a>| wire::DescribeTopicPartitionsResponseTopic {
                error_code: ErrorCode::InvalidRequest.code(),
                name: Some((&*topic.name).into()),
                ..Default::default()
            };
        return wire::DescribeTopicPartitionsResponse {
            topics: body.topics.iter().map(refused).collect(),
            ..Default::default()
        };
    }
    let all = body.topics.is_empty();
    // An unknown name is told only where it was asked for.
    let names: Box<dyn Iterator<Item = &'a str>> = if all {
        Box::new(
            image
                .topics_from(first_name)
                .map(|topic| topic.name.as_str()),
        )
    } else {
        let names: BTreeSet<&str> = body.topics.iter().map(|topic| &*topic.name).collect();
        Box::new(names.into_iter().filter(move |name| *name >= first_name))
    };
    let limit = body
        .response_partition_limit
        .min(image.config().describe_partitions_max)
        .max(1);
    let mut left = limit;
    let mut response = wire::DescribeTopicPartitionsResponse::default();
    for name in names {
        if left == 0 {
            response.next_cursor = Some(cursor(name, 0));
            break;
        }
        let Some(topic) = image.topic(name) else {
            let error = check_name(name)
                .err()
                .map_or(ErrorCode::UnknownTopicOrPartition, |refusal| refusal.error);
            response.topics.push(missing(name, error));
            continue;
        };
        let from = if name == first_name {
            first_partition
        } else {
            0
        };
        let end = from.saturating_add(left).min(topic.partition_count());
        response.topics.push(page(image, topic, from, end));
        if end < topic.partition_count() {
            response.next_cursor = Some(cursor(name, end));
            break;
        }
        left -= (end - from).max(0);
    }
    response
}

fn cursor(name: &str, partition_index: i32) -> wire::Cursor<'_> {
    wire::Cursor {
        topic_name: name.into(),
        partition_index,
    }
}

fn missing(name: &str, error: ErrorCode) -> wire::DescribeTopicPartitionsResponseTopic<'_> {
    wire::DescribeTopicPartitionsResponseTopic {
        error_code: error.code(),
        name: Some(name.into()),
        topic_id: TopicId::nil(),
        is_internal: is_internal(name),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..Default::default()
    }
}

/// The partitions of a topic with indexes from `from` to before `end`.
fn page<'a>(
    image: &MetadataImage,
    topic: &'a Topic,
    from: i32,
    end: i32,
) -> wire::DescribeTopicPartitionsResponseTopic<'a> {
    wire::DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::None.code(),
        name: Some((&*topic.name).into()),
        topic_id: topic.id,
        is_internal: topic.internal(),
        partitions: (from..end)
            .filter_map(|index| topic.partition(index))
            .map(|partition| wire::DescribeTopicPartitionsResponsePartition {
                error_code: ErrorCode::None.code(),
                partition_index: partition.index,
                leader_id: image.node_id(),
                leader_epoch: image.leader_epoch(&partition).0,
                replica_nodes: partition.replicas.to_vec(),
                isr_nodes: partition.replicas.to_vec(),
                eligible_leader_replicas: Some(Vec::new()),
                last_known_elr: Some(Vec::new()),
                offline_replicas: Vec::new(),
            })
            .collect(),
        topic_authorized_operations: TOPIC_OPERATIONS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerConfig;
    use crate::metadata::MetadataRecord;
    use crate::metadata::record::PartitionRun;

    fn image() -> MetadataImage {
        let mut image = MetadataImage::new("c".to_owned(), BrokerConfig::default());
        for (name, count) in [("a", 3), ("b", 2), ("c", 1)] {
            image.apply(&MetadataRecord::Topic {
                id: TopicId::from_u128(u128::from(name.as_bytes()[0])),
                name: name.to_owned(),
                partitions: vec![PartitionRun {
                    count,
                    created_at_start: 0,
                    replicas: vec![1],
                }],
            });
        }
        image
    }

    fn told(topics: &[&str], limit: i32, start: Option<(&str, i32)>) -> String {
        let image = image();
        let body = wire::DescribeTopicPartitionsRequest {
            topics: topics
                .iter()
                .map(|name| wire::TopicRequest {
                    name: (*name).into(),
                })
                .collect(),
            response_partition_limit: limit,
            cursor: start.map(|(name, partition)| cursor(name, partition)),
        };
        let response = respond(&image, &body);
        let mut out: Vec<String> = response
            .topics
            .iter()
            .map(|topic| {
                let indexes: Vec<i32> =
                    topic.partitions.iter().map(|p| p.partition_index).collect();
                format!(
                    "{} {} {indexes:?}",
                    topic.name.as_deref().unwrap_or("-"),
                    topic.error_code
                )
            })
            .collect();
        if let Some(next) = response.next_cursor {
            out.push(format!("next {} {}", next.topic_name, next.partition_index));
        }
        out.join("; ")
    }

    #[test]
    fn pages() {
        assert_eq!(told(&[], 2000, None), "a 0 [0, 1, 2]; b 0 [0, 1]; c 0 [0]");
        assert_eq!(told(&[], 2, None), "a 0 [0, 1]; next a 2");
        assert_eq!(told(&[], 2, Some(("a", 2))), "a 0 [2]; b 0 [0]; next b 1");
        assert_eq!(told(&[], 3, None), "a 0 [0, 1, 2]; next b 0");
        assert_eq!(told(&[], 2, Some(("b", 1))), "b 0 [1]; c 0 [0]");
        assert_eq!(
            told(&[], 0, Some(("c", 0))),
            "c 0 [0]",
            "a limit is at least 1"
        );
        assert_eq!(
            told(&[], 9, Some(("bb", 7))),
            "c 0 [0]",
            "the cursor's topic may be gone"
        );
        assert_eq!(
            told(&["c", "a", "c", "x", "/"], 9, None),
            "/ 17 []; a 0 [0, 1, 2]; c 0 [0]; x 3 []"
        );
        assert_eq!(told(&["c", "a"], 9, Some(("b", 0))), "c 42 []; a 42 []");
        assert_eq!(told(&["c", "a"], 9, Some(("c", 0))), "c 0 [0]");
        assert_eq!(told(&["c"], 9, Some(("c", -1))), "c 42 []");
        assert_eq!(
            told(&[], 9, Some(("a", i32::MAX))),
            "a 0 []; b 0 [0, 1]; c 0 [0]"
        );
    }
}
