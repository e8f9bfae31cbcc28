//! FindCoordinator: which broker coordinates a group: this one, at the address that the listener advertises.
//! Makes the offsets topic at its first use. Lives on the core that accepted the connection; knows nothing
//! of groups.

use net::kafka::error::ErrorCode;
use net::kafka::find_coordinator as wire;
use net::wire::DecodeError;
use storage::types::{Now, TopicId};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::{Head, Outcome, Request};
use crate::metadata::{MetadataCommand, MetadataReply, OFFSETS_TOPIC};
use crate::shard::Shard;

/// From this version several keys can be asked for (KIP-699).
const VERSION_KEYS: i16 = 4;

/// Kinds of keys.
const KEY_GROUP: i8 = 0;
const KEY_TRANSACTIONAL_ID: i8 = 1;

/// A broker's address, or none.
#[derive(Clone, Debug)]
struct Node {
    id: i32,
    host: String,
    port: i32,
}

impl Node {
    fn none() -> Node {
        Node {
            id: -1,
            host: String::new(),
            port: -1,
        }
    }
}

/// Handles a FindCoordinator request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::FindCoordinatorRequest::decode)?;
    let head = request.head;
    let keys: Vec<String> = if head.version < VERSION_KEYS {
        vec![body.key.into_owned()]
    } else {
        let keys = body.coordinator_keys.into_iter();
        keys.map(|key| key.into_owned()).collect()
    };
    let refusal = match body.key_type {
        KEY_GROUP => None,
        // Java, librdkafka and the Python clients give up at this error alone.
        KEY_TRANSACTIONAL_ID => Some(ErrorCode::TransactionalIdAuthorizationFailed),
        _ => Some(ErrorCode::InvalidRequest),
    };
    if let Some(error) = refusal {
        let chunks = encode(head, keys, error, Node::none());
        return Ok(Outcome::Done(chunks));
    }
    let advertised = &request.listener.advertised;
    let node = Node {
        id: shard.image.node_id(),
        host: advertised.host.clone(),
        port: i32::from(advertised.port),
    };
    if keys.is_empty() || shard.image.topic(OFFSETS_TOPIC).is_some() {
        let chunks = encode(head, keys, ErrorCode::None, node);
        return Ok(Outcome::Done(chunks));
    }
    let topics = vec![(OFFSETS_TOPIC.to_owned(), topic_id(shard, now))];
    let then = move |shard: &mut Shard, _now: Now, reply: MetadataReply| {
        let made = match reply {
            MetadataReply::Ensured(results) => results.iter().all(Result::is_ok),
            _ => false,
        };
        let chunks = if made {
            encode(head, keys, ErrorCode::None, node)
        } else {
            let error = ErrorCode::CoordinatorNotAvailable;
            encode(head, keys, error, Node::none())
        };
        shard.respond(head, Some(chunks));
    };
    let command = MetadataCommand::EnsureTopics { topics };
    shard.ask_metadata(now, command, Box::new(then));
    Ok(Outcome::Pending)
}

/// An id that no topic has yet: from the start's random seed, this core, and a number of its own.
fn topic_id(shard: &mut Shard, now: Now) -> TopicId {
    let mut text = [0; 18];
    text[..8].copy_from_slice(&shard.keys.next().to_le_bytes());
    text[8..16].copy_from_slice(&now.wall_ms.to_le_bytes());
    text[16..].copy_from_slice(&shard.core.0.to_le_bytes());
    let random = xxh3_128_with_seed(&text, shard.config.seed);
    uuid::Builder::from_random_bytes(random.to_le_bytes()).into_uuid()
}

fn encode(head: Head, keys: Vec<String>, error: ErrorCode, node: Node) -> Vec<ring::buf::Chunk> {
    let error_code = error.code();
    let response = if head.version < VERSION_KEYS {
        let message = match error {
            ErrorCode::None => "NONE",
            error => error.message(),
        };
        wire::FindCoordinatorResponse {
            error_code,
            error_message: Some(message.into()),
            node_id: node.id,
            host: node.host.into(),
            port: node.port,
            ..Default::default()
        }
    } else {
        let coordinators = keys.into_iter().map(|key| wire::Coordinator {
            key: key.into(),
            node_id: node.id,
            host: node.host.clone().into(),
            port: node.port,
            error_code,
            error_message: Some("".into()),
        });
        wire::FindCoordinatorResponse {
            coordinators: coordinators.collect(),
            ..Default::default()
        }
    };
    head.encode(|writer, version| response.encode(writer, version))
}
