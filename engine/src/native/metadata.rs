//! Native Metadata: topics, partitions and this broker as rows. Lives on the core that accepted the
//! connection; missing topics are created as for Kafka's request.

use std::collections::{HashMap, HashSet};

use net::kafka::error::ErrorCode;
use net::native::frame::push_text;
use net::native::v1::{
    ArchivedMetadata, BrokerRow, METADATA_ALL, METADATA_CREATE, MetadataAnswer, PartitionRow,
    TOPIC_INTERNAL, TopicRow,
};
use net::native::{REQUEST_PARTITIONS_MAX, read, read_text};
use storage::types::{Now, TopicId};

use super::{Head, Refused, Request};
use crate::api::Outcome;
use crate::api::metadata::{create_missing, missing_error};
use crate::metadata::{Topic, is_internal};
use crate::shard::Shard;

/// A topic of the request.
#[derive(PartialEq, Eq, Hash)]
enum Asked {
    Name(String),
    Id(TopicId),
}

/// Handles a Metadata request.
pub(super) fn handle(
    shard: &mut Shard,
    now: Now,
    request: &Request<'_>,
) -> Result<Outcome, Refused> {
    let body = read::<ArchivedMetadata>(request.body)?;
    let head = request.head;
    if body.topics.len() > REQUEST_PARTITIONS_MAX {
        return Err(Refused::invalid("too many topics"));
    }
    if body.flags & METADATA_ALL != 0 {
        let mut answer = broker_answer(shard);
        for topic in shard.image.topics() {
            add_topic(shard, &mut answer, topic);
        }
        return Ok(Outcome::Done(head.encode(&answer)));
    }
    let mut seen = HashSet::new();
    let mut asked = Vec::new();
    for query in body.topics.iter() {
        let id = TopicId::from_bytes(query.topic_id);
        let one = if id.is_nil() {
            let start = query.name_start.to_native();
            let name = read_text(&body.texts, start, query.name_bytes.to_native())?;
            // No name is longer; what is may be told shortened.
            Asked::Name(name.chars().take(NAME_CHARS_MAX).collect())
        } else {
            Asked::Id(id)
        };
        let key = match &one {
            Asked::Name(name) => Asked::Name(name.clone()),
            Asked::Id(id) => Asked::Id(*id),
        };
        if seen.insert(key) {
            asked.push(one);
        }
    }
    let create =
        body.flags & METADATA_CREATE != 0 && shard.image.config().auto_create_topics_enable;
    let missing: Vec<String> = asked
        .iter()
        .filter_map(|asked| match asked {
            Asked::Name(name) if create && shard.image.topic(name).is_none() => Some(name.clone()),
            _ => None,
        })
        .collect();
    if missing.is_empty() {
        return Ok(Outcome::Done(answer(shard, head, &asked, &HashMap::new())));
    }
    create_missing(shard, now, missing, move |shard, errors| {
        let chunks = answer(shard, head, &asked, &errors);
        shard.respond_to(head.ticket, Some(chunks));
    });
    Ok(Outcome::Pending)
}

/// Beyond the 249 that a name may have, so that a longer one stays one that may not be.
const NAME_CHARS_MAX: usize = 300;

fn answer(
    shard: &Shard,
    head: Head,
    asked: &[Asked],
    errors: &HashMap<String, ErrorCode>,
) -> Vec<ring::buf::Chunk> {
    let mut answer = broker_answer(shard);
    for asked in asked {
        let (topic, error) = match asked {
            Asked::Id(id) => (shard.image.topic_by_id(*id), ErrorCode::UnknownTopicId),
            Asked::Name(name) => (
                shard.image.topic(name),
                missing_error(name, errors.get(name).copied()),
            ),
        };
        match topic {
            Some(topic) => add_topic(shard, &mut answer, topic),
            None => add_missing(&mut answer, asked, error),
        }
    }
    head.encode(&answer)
}

/// The answer without topics.
fn broker_answer(shard: &Shard) -> MetadataAnswer {
    let image = &shard.image;
    let mut answer = MetadataAnswer {
        controller_id: image.node_id(),
        ..MetadataAnswer::default()
    };
    let broker = &shard.config.broker;
    let (host, port) = match &broker.native_listener {
        // There is a Unix socket only: no address leads here.
        None => ("", 0),
        Some(place) => match broker.listeners.first() {
            // Clients reach every interface by the name that they are told for the Kafka protocol.
            Some(listener) if place.is_wildcard() => {
                (listener.advertised.host.as_str(), place.port)
            }
            _ => (place.host.as_str(), place.port),
        },
    };
    let (host_start, host_bytes) = push_text(&mut answer.texts, host);
    answer.brokers.push(BrokerRow {
        node_id: image.node_id(),
        host_start,
        host_bytes,
        port,
    });
    answer
}

fn add_topic(shard: &Shard, answer: &mut MetadataAnswer, topic: &Topic) {
    let image = &shard.image;
    let (name_start, name_bytes) = push_text(&mut answer.texts, &topic.name);
    let partitions_start = answer.partitions.len() as u32;
    let rows = topic.partitions().map(|partition| PartitionRow {
        partition: partition.index,
        leader_id: image.node_id(),
        leader_epoch: image.leader_epoch(&partition).0,
        error: ErrorCode::None.code(),
    });
    answer.partitions.extend(rows);
    answer.topics.push(TopicRow {
        topic_id: topic.id.into_bytes(),
        name_start,
        name_bytes,
        partitions_start,
        partitions_count: answer.partitions.len() as u32 - partitions_start,
        error: ErrorCode::None.code(),
        flags: flags(&topic.name),
    });
}

fn add_missing(answer: &mut MetadataAnswer, asked: &Asked, error: ErrorCode) {
    let (name, topic_id) = match asked {
        Asked::Name(name) => (name.as_str(), TopicId::nil()),
        Asked::Id(id) => ("", *id),
    };
    let (name_start, name_bytes) = push_text(&mut answer.texts, name);
    answer.topics.push(TopicRow {
        topic_id: topic_id.into_bytes(),
        name_start,
        name_bytes,
        partitions_start: answer.partitions.len() as u32,
        partitions_count: 0,
        error: error.code(),
        flags: flags(name),
    });
}

fn flags(name: &str) -> u8 {
    if is_internal(name) { TOPIC_INTERNAL } else { 0 }
}
