//! What the native protocol's requests do: negotiation, the table of who behaves how, refusals. Lives on
//! the core that accepted the connection. Frames become the same operations as Kafka's requests; wire
//! forms are `net::native`'s, what is done with partitions is `append`'s and `reading`'s.

pub(crate) mod fetch;
pub(crate) mod metadata;
pub(crate) mod offsets;
pub(crate) mod produce;
pub(crate) mod producer_id;
pub(crate) mod subscribe;

use std::collections::VecDeque;
use std::sync::Arc;

use net::kafka::error::ErrorCode;
use net::native::frame::BodySerializer;
use net::native::hello::{self, ArchivedHello, HelloAnswer, Refusal};
use net::native::v1::ProduceResult;
use net::native::{
    Fault, Frame, Header, Kind, VERSION_HELLO, VERSION_MAX, VERSION_MIN, decode, encode, read,
};
use ring::buf::{Chunk, Shared};
use rkyv::Serialize;
use storage::types::Now;

use crate::api::Outcome;
use crate::connection::{Connection, Overlap, Ticket};
use crate::event::ConnId;
use crate::ids::{Key, KeyMap};
use crate::metrics::Stage;
use crate::shard::Shard;

/// Where a frame says its kind.
const KIND_POSITION: usize = 13;

/// The version of Kafka's Produce whose rules hold for native batches.
const PRODUCE_VERSION: i16 = 13;

/// What a core keeps for its native connections.
#[derive(Default)]
pub(crate) struct NativeState {
    /// Subscriptions that may have something to do.
    pub ready: VecDeque<Key>,
    /// All subscriptions.
    pub subscriptions: KeyMap<subscribe::Subscription>,
    /// Connections whose client wants the core to look for work before it sleeps.
    pub idle_poll_count: usize,
    /// Rows of an answer, kept for the next.
    results: Vec<ProduceResult>,
    /// The name of topics that are told by id.
    no_name: Arc<str>,
}

/// Where an answer goes, and in which form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// Its place on the connection.
    pub ticket: Ticket,
    /// What the answer is.
    pub kind: Kind,
    /// The version that is spoken.
    pub version: u8,
    /// The client's name for the request.
    pub correlation_id: u64,
    /// When handling began, monotonic microseconds.
    pub started_us: u64,
}

impl Head {
    /// A whole answer without records.
    pub fn encode<T>(&self, body: &T) -> Vec<Chunk>
    where
        T: for<'a> Serialize<BodySerializer<'a>>,
    {
        vec![self.front(body, 0)]
    }

    /// An answer up to its records.
    pub fn front<T>(&self, body: &T, records_bytes: u32) -> Chunk
    where
        T: for<'a> Serialize<BodySerializer<'a>>,
    {
        let id = self.correlation_id;
        let front = encode(self.version, self.kind, 0, id, body, records_bytes);
        Chunk::Local(Shared::from(front))
    }
}

/// A request as its handler sees it.
pub(crate) struct Request<'a> {
    /// Where its answer goes.
    pub head: Head,
    /// All of it.
    pub frame: &'a Shared,
    /// Its body.
    pub body: &'a [u8],
    /// Its records.
    pub records: &'a [u8],
}

impl Request<'_> {
    /// A part of the records, by its place in them.
    pub fn share_records(&self, start: usize, bytes: usize) -> Shared {
        let records_start = self.frame.len() - self.records.len();
        let start = records_start + start;
        self.frame.slice(start..start + bytes)
    }
}

/// Why a frame cannot be answered: the connection closes behind the refusal.
#[derive(Debug)]
pub(crate) struct Refused {
    error: ErrorCode,
    why: String,
}

impl Refused {
    /// The request makes no sense.
    pub fn invalid(why: impl Into<String>) -> Refused {
        Refused {
            error: ErrorCode::InvalidRequest,
            why: why.into(),
        }
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Refused {
        let error = match fault {
            Fault::Checksum => ErrorCode::CorruptMessage,
            _ => ErrorCode::InvalidRequest,
        };
        Refused {
            error,
            why: fault.to_string(),
        }
    }
}

/// How a frame gets on with its neighbours; `None`: it is more credit, which has no place among them.
pub(crate) fn overlap(frame: &[u8]) -> Option<Overlap> {
    match frame
        .get(KIND_POSITION)
        .copied()
        .and_then(Kind::from_number)
    {
        Some(Kind::Produce) => Some(Overlap::Produce),
        Some(Kind::Fetch) => Some(Overlap::Fetch),
        Some(Kind::Credit) => None,
        _ => Some(Overlap::Barrier),
    }
}

/// Takes more credit for a subscription. False if the frame is not what it should be: then it is to be
/// refused in its turn.
pub(crate) fn take_credit(shard: &mut Shard, conn: ConnId, frame: &Shared) -> bool {
    let version = shard
        .connections
        .get(&conn)
        .and_then(|connection| connection.native.as_ref()?.version);
    match decode(frame) {
        Ok(decoded) if Some(decoded.version) == version && decoded.kind == Kind::Credit => {
            let taken = subscribe::take_credit(shard, conn, decoded.body).is_ok();
            if taken {
                shard.metrics.on_native_request(Kind::Credit);
            }
            taken
        }
        _ => false,
    }
}

/// Starts a request of a native connection.
pub(crate) fn start(shard: &mut Shard, now: Now, ticket: Ticket, frame: &Shared, arrived_us: u64) {
    let handled = match decode(frame) {
        Ok(decoded) => handle(shard, now, ticket, frame, decoded, arrived_us),
        Err(fault) => Err(fault.into()),
    };
    match handled {
        Ok(Outcome::Done(chunks)) => shard.set_answer(ticket, Some(chunks)),
        Ok(Outcome::Nothing) => shard.set_answer(ticket, None),
        Ok(Outcome::Pending) => {}
        Ok(Outcome::Close(why)) => shard.close(ticket.conn, why),
        Err(refused) => refuse(shard, ticket, frame, refused),
    }
}

fn refuse(shard: &mut Shard, ticket: Ticket, frame: &[u8], refused: Refused) {
    shard.metrics.malformed_requests += 1;
    let body = Refusal {
        message: refused.why.clone().into_bytes(),
        error: refused.error.code(),
    };
    let id = Header::from_prefix(frame).map_or(0, |header| header.correlation_id.get());
    let bytes = encode(VERSION_HELLO, Kind::Refusal, 0, id, &body, 0);
    let chunks = vec![Chunk::Local(Shared::from(bytes))];
    shard.set_answer(ticket, Some(chunks));
    shard.close(ticket.conn, &refused.why);
}

fn handle(
    shard: &mut Shard,
    now: Now,
    ticket: Ticket,
    frame: &Shared,
    decoded: Frame<'_>,
    arrived_us: u64,
) -> Result<Outcome, Refused> {
    let kind = decoded.kind;
    shard.metrics.on_native_request(kind);
    let connection = shard.connections.get(&ticket.conn);
    let spoken = connection.and_then(|connection| connection.native.as_ref()?.version);
    let may_subscribe =
        connection.is_some_and(|connection| connection.has_feature(hello::FEATURE_SUBSCRIBE));
    let head = |answer: Kind, version: u8| Head {
        ticket,
        kind: answer,
        version,
        correlation_id: decoded.correlation_id,
        started_us: now.monotonic_us,
    };
    let version = match (kind, spoken) {
        (Kind::Hello, None) => {
            return negotiate(shard, head(Kind::HelloAnswer, VERSION_HELLO), decoded);
        }
        (Kind::Hello, Some(_)) => return Err(Refused::invalid("a second Hello")),
        (_, None) => return Err(Refused::invalid("the first frame is to be a Hello")),
        (_, Some(version)) if decoded.version != version => {
            return Err(Refused {
                error: ErrorCode::UnsupportedVersion,
                why: format!(
                    "a frame of version {}, where version {version} was negotiated",
                    decoded.version
                ),
            });
        }
        (_, Some(version)) => version,
    };
    let queued_us = now.monotonic_us.saturating_sub(arrived_us);
    let request = |answer: Kind| Request {
        head: head(answer, version),
        frame,
        body: decoded.body,
        records: decoded.records,
    };
    if kind != Kind::Produce && !decoded.records.is_empty() {
        return Err(Refused::invalid("records that belong to no batch"));
    }
    match kind {
        Kind::Produce => {
            shard.metrics.on_produce_stage(Stage::Queue, queued_us);
            produce::handle(shard, now, &request(Kind::ProduceAnswer))
        }
        Kind::Fetch => {
            shard.metrics.on_fetch_stage(Stage::Queue, queued_us);
            fetch::handle(shard, now, &request(Kind::FetchAnswer))
        }
        Kind::Subscribe if !may_subscribe => Err(Refused::invalid(
            "subscriptions, which the Hello did not ask for",
        )),
        Kind::Subscribe => subscribe::handle(shard, now, &request(Kind::SubscribeAnswer)),
        Kind::Unsubscribe => subscribe::handle_end(shard, &request(Kind::UnsubscribeAnswer)),
        Kind::Metadata => metadata::handle(shard, now, &request(Kind::MetadataAnswer)),
        Kind::Offsets => offsets::handle(shard, now, &request(Kind::OffsetsAnswer)),
        Kind::ProducerId => producer_id::handle(shard, now, &request(Kind::ProducerIdAnswer)),
        kind => Err(Refused::invalid(format!(
            "{} is malformed, or not for a broker",
            kind.name()
        ))),
    }
}

/// How long the core is to look for work before it sleeps, in microseconds.
pub(crate) fn idle_poll_us(shard: &Shard) -> u64 {
    let broker = &shard.config.broker;
    let asked = shard.native.idle_poll_count > 0;
    let native_us = if asked { broker.native_idle_poll_us } else { 0 };
    u64::from(broker.idle_poll_us.max(native_us))
}

/// A connection is gone.
pub(crate) fn forget(shard: &mut Shard, connection: &Connection) {
    let asked = connection.has_feature(hello::FEATURE_IDLE_POLL);
    shard.native.idle_poll_count -= usize::from(asked);
    subscribe::forget(shard, connection);
}

/// Chooses the version that a connection speaks from now on.
fn negotiate(shard: &mut Shard, head: Head, decoded: Frame<'_>) -> Result<Outcome, Refused> {
    if decoded.version != VERSION_HELLO {
        return Err(Refused::invalid("a Hello has version 0"));
    }
    let hello = read::<ArchivedHello>(decoded.body)?;
    let chosen = hello::choose_version(hello.version_min, hello.version_max);
    let broker = shard.image.config();
    let mut features = hello.features.to_native() & hello::FEATURES;
    if shard.config.broker.native_idle_poll_us == 0 {
        features &= !hello::FEATURE_IDLE_POLL;
    }
    let mut answer = HelloAnswer {
        cluster_id: shard.image.cluster_id().as_bytes().to_vec(),
        message: Vec::new(),
        features,
        node_id: shard.image.node_id(),
        frame_bytes_max: u32::try_from(broker.socket_request_bytes_max).unwrap_or(0),
        error: ErrorCode::None.code(),
        version: chosen.unwrap_or(0),
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
    };
    if chosen.is_none() {
        answer.error = ErrorCode::UnsupportedVersion.code();
        answer.message = format!(
            "the client speaks versions {} to {} of the native protocol, this broker {VERSION_MIN} to {VERSION_MAX}",
            hello.version_min, hello.version_max
        )
        .into_bytes();
    }
    let chunks = head.encode(&answer);
    let conn = head.ticket.conn;
    if chosen.is_some()
        && let Some(connection) = shard.connections.get_mut(&conn)
        && let Some(native) = &mut connection.native
    {
        native.version = chosen;
        native.features = features;
        shard.native.idle_poll_count +=
            usize::from(connection.has_feature(hello::FEATURE_IDLE_POLL));
    }
    shard.set_answer(head.ticket, Some(chunks));
    if chosen.is_none() {
        shard.close(conn, "no common version of the native protocol");
    }
    Ok(Outcome::Pending)
}

#[cfg(test)]
mod tests;
