//! Subscriptions: fetches that begin anew as long as there is credit, and whose findings are sent unasked.
//! Live on the core that accepted the connection; partitions are read as by any fetch.

use std::sync::Arc;

use net::kafka::error::ErrorCode;
use net::native::v1::{
    ArchivedCredit, ArchivedSubscribe, ArchivedUnsubscribe, DELIVERY_ENDED, FetchAnswer,
    SubscribeAnswer, UnsubscribeAnswer,
};
use net::native::{Fault, Kind, encode, read};
use ring::buf::{Chunk, Shared};
use storage::batch::BatchHeader;
use storage::types::Now;

use super::{Refused, Request, fetch};
use crate::api::Outcome;
use crate::api::fetch::{Plan, Reply, start};
use crate::calls::FetchedPart;
use crate::connection::{Connection, Overlap};
use crate::event::{Action, ConnId};
use crate::fetch_session::{SessionKey, SessionPartition, SessionPlan};
use crate::ids::Key;
use crate::limits::{SUBSCRIBED_PARTITIONS_MAX, SUBSCRIPTIONS_MAX};
use crate::shard::{Shard, Timer};

/// How often a silent subscription says that it lives where the client does not say, in milliseconds.
const HEARTBEAT_MS_DEFAULT: u32 = 10_000;

/// And the shortest that it may ask for.
const HEARTBEAT_MS_MIN: u32 = 100;

/// Partitions that are read for a client until it ends that.
#[derive(Debug)]
pub(crate) struct Subscription {
    conn: ConnId,
    correlation_id: u64,
    version: u8,
    /// Those without an error, in the order of the next fetch.
    parts: Vec<Part>,
    /// Bytes that may be delivered; below zero after a batch that went over.
    credit_bytes: i64,
    bytes_max: usize,
    heartbeat_us: u64,
    read_committed: bool,
    /// The fetch that is open.
    fetch: Option<Key>,
    /// Waits in the list of those that may have something to do.
    queued: bool,
    delivered_us: u64,
}

#[derive(Debug)]
struct Part {
    index: u32,
    key: SessionKey,
    want: SessionPartition,
}

/// Handles a Subscribe request.
pub(super) fn handle(
    shard: &mut Shard,
    now: Now,
    request: &Request<'_>,
) -> Result<Outcome, Refused> {
    let body = read::<ArchivedSubscribe>(request.body)?;
    fetch::check(body.parts.len(), body.isolation)?;
    let head = request.head;
    let conn = head.ticket.conn;
    let id = head.correlation_id;
    if !may_subscribe(shard, conn, id, body.parts.len()) {
        let error = ErrorCode::InvalidRequest.code();
        return Ok(Outcome::Done(head.encode(&SubscribeAnswer { error })));
    }
    let heartbeat_ms = match body.heartbeat_ms.to_native() {
        0 => HEARTBEAT_MS_DEFAULT,
        heartbeat_ms => heartbeat_ms.max(HEARTBEAT_MS_MIN),
    };
    let no_name = Arc::clone(&shard.native.no_name);
    let parts = body.parts.iter().zip(0..).map(|(part, index)| {
        let (key, want) = fetch::wanted(&no_name, part);
        Part { index, key, want }
    });
    let subscription = Subscription {
        conn,
        correlation_id: id,
        version: head.version,
        parts: parts.collect(),
        credit_bytes: i64::from(body.credit_bytes.to_native()),
        bytes_max: body.bytes_max.to_native() as usize,
        heartbeat_us: u64::from(heartbeat_ms) * 1000,
        read_committed: body.isolation == 1,
        fetch: None,
        queued: true,
        delivered_us: now.monotonic_us,
    };
    let key = shard.keys.next();
    shard.set_timer(
        now.monotonic_us + subscription.heartbeat_us,
        Timer::Heartbeat(key),
    );
    shard.native.subscriptions.insert(key, subscription);
    shard.native.ready.push_back(key);
    if let Some(connection) = shard.connections.get_mut(&conn)
        && let Some(native) = &mut connection.native
    {
        native.subscriptions.push((id, key));
    }
    // The answer leaves before anything is delivered: nothing else of the connection is open, and
    // subscriptions are looked at after the connections.
    let error = ErrorCode::None.code();
    Ok(Outcome::Done(head.encode(&SubscribeAnswer { error })))
}

/// Whether a connection may have one more subscription, of that name and size.
fn may_subscribe(shard: &Shard, conn: ConnId, id: u64, partitions: usize) -> bool {
    let Some(native) = shard
        .connections
        .get(&conn)
        .and_then(|connection| connection.native.as_ref())
    else {
        return false;
    };
    let subscribed: usize = native
        .subscriptions
        .iter()
        .filter_map(|(_, key)| shard.native.subscriptions.get(key))
        .map(|subscription| subscription.parts.len())
        .sum();
    native.subscriptions.len() < SUBSCRIPTIONS_MAX
        && subscribed + partitions <= SUBSCRIBED_PARTITIONS_MAX
        && native.subscriptions.iter().all(|(known, _)| *known != id)
}

/// Handles an Unsubscribe request.
pub(super) fn handle_end(shard: &mut Shard, request: &Request<'_>) -> Result<Outcome, Refused> {
    let body = read::<ArchivedUnsubscribe>(request.body)?;
    let conn = request.head.ticket.conn;
    let error = match find(shard, conn, body.subscription.to_native()) {
        Some(key) => {
            end(shard, key);
            ErrorCode::None
        }
        None => ErrorCode::InvalidRequest,
    };
    let error = error.code();
    Ok(Outcome::Done(
        request.head.encode(&UnsubscribeAnswer { error }),
    ))
}

/// Takes more credit, as soon as it arrives.
pub(super) fn take_credit(shard: &mut Shard, conn: ConnId, body: &[u8]) -> Result<(), Fault> {
    let body = read::<ArchivedCredit>(body)?;
    if let Some(key) = find(shard, conn, body.subscription.to_native())
        && let Some(subscription) = shard.native.subscriptions.get_mut(&key)
    {
        let more = i64::from(body.bytes.to_native());
        subscription.credit_bytes = subscription.credit_bytes.saturating_add(more);
        queue(shard, key);
    }
    Ok(())
}

fn find(shard: &Shard, conn: ConnId, id: u64) -> Option<Key> {
    let native = shard.connections.get(&conn)?.native.as_ref()?;
    let known = native
        .subscriptions
        .iter()
        .find(|(known, _)| *known == id)?;
    Some(known.1)
}

/// Ends a subscription: whatever was being read for it is given up.
fn end(shard: &mut Shard, key: Key) {
    let Some(subscription) = shard.native.subscriptions.remove(&key) else {
        return;
    };
    if let Some(open) = subscription.fetch {
        shard.abandon_fetch(open);
    }
    if let Some(connection) = shard.connections.get_mut(&subscription.conn)
        && let Some(native) = &mut connection.native
    {
        native.subscriptions.retain(|(_, known)| *known != key);
    }
}

/// A connection is gone, and its subscriptions with it; their fetches are given up with its others.
pub(crate) fn forget(shard: &mut Shard, connection: &Connection) {
    for (_, key) in connection
        .native
        .iter()
        .flat_map(|native| &native.subscriptions)
    {
        shard.native.subscriptions.remove(key);
    }
}

fn queue(shard: &mut Shard, key: Key) {
    if let Some(subscription) = shard.native.subscriptions.get_mut(&key)
        && !subscription.queued
    {
        subscription.queued = true;
        shard.native.ready.push_back(key);
    }
}

/// A connection has sent something: its subscriptions may go on.
pub(crate) fn wake(shard: &mut Shard, conn: ConnId) {
    let Some(connection) = shard.connections.get(&conn) else {
        return;
    };
    if !connection.has_subscriptions() {
        return;
    }
    let keys: Vec<Key> = connection
        .native
        .iter()
        .flat_map(|native| &native.subscriptions)
        .map(|(_, key)| *key)
        .collect();
    for key in keys {
        queue(shard, key);
    }
}

/// Reads on for a subscription, if it has credit and its client takes what it gets.
pub(crate) fn advance(shard: &mut Shard, now: Now, key: Key) {
    let Some(subscription) = shard.native.subscriptions.get_mut(&key) else {
        return;
    };
    subscription.queued = false;
    let takes_more = shard
        .connections
        .get(&subscription.conn)
        .is_some_and(Connection::takes_more);
    if subscription.fetch.is_some()
        || subscription.credit_bytes <= 0
        || !takes_more
        || shard.stopping.is_some()
    {
        return;
    }
    let credit_bytes = usize::try_from(subscription.credit_bytes).unwrap_or(usize::MAX);
    let plan = Plan {
        reply: Reply::Subscription(subscription.conn, key),
        started_us: now.monotonic_us,
        session: SessionPlan::Sessionless,
        wanted: subscription
            .parts
            .iter()
            .map(|part| (part.key.clone(), part.want))
            .collect(),
        by_id: true,
        wait_us: None,
        bytes_min: 1,
        bytes_max: subscription.bytes_max.min(credit_bytes).max(1),
        read_committed: subscription.read_committed,
    };
    let open = start(shard, now, plan);
    if shard.fetches.contains_key(&open)
        && let Some(subscription) = shard.native.subscriptions.get_mut(&key)
    {
        subscription.fetch = Some(open);
    }
}

/// Sends what was found, and goes on later.
pub(crate) fn deliver(
    shard: &mut Shard,
    now: Now,
    key: Key,
    found: impl Iterator<Item = Option<FetchedPart>>,
) {
    let Some(subscription) = shard.native.subscriptions.get_mut(&key) else {
        shard.release(found.flatten().flat_map(|(_, chunks)| chunks));
        return;
    };
    subscription.fetch = None;
    let parts = &mut subscription.parts;
    let mut turn = 0;
    let mut failed = Vec::new();
    let found: Vec<Option<FetchedPart>> = found.collect();
    for (place, found) in found.iter().enumerate() {
        let Some((head, chunks)) = found else {
            continue;
        };
        if head.error != ErrorCode::None || head.diverging.is_some() {
            failed.push(parts[place].index);
        }
        if let Some(offset) = chunks.last().and_then(|chunk| end_of(chunk)) {
            parts[place].want.fetch_offset = offset;
            turn = place + 1;
        }
    }
    let (results, chunks, records_bytes) =
        fetch::collect(found.into_iter(), |place| parts[place].index);
    // Whoever brought something comes last the next time.
    let count = parts.len();
    parts.rotate_left(turn % count.max(1));
    parts.retain(|part| !failed.contains(&part.index));
    subscription.credit_bytes -= i64::from(records_bytes);
    let ended = parts.is_empty();
    if results.is_empty() && !ended {
        queue(shard, key);
        return;
    }
    send(shard, now, key, results, chunks, records_bytes, ended);
    if ended {
        end(shard, key);
    } else {
        queue(shard, key);
    }
}

/// The end of the last batch in bytes that are whole batches.
fn end_of(mut batches: &[u8]) -> Option<i64> {
    let mut end = None;
    while let Some(header) = BatchHeader::ref_from_prefix(batches) {
        end = Some(header.offset_end().0);
        let length = usize::try_from(header.batch_length()).ok()?;
        batches = batches.get(length + storage::batch::LENGTH_OVERHEAD_BYTES..)?;
    }
    end
}

fn send(
    shard: &mut Shard,
    now: Now,
    key: Key,
    results: Vec<net::native::v1::FetchResult>,
    mut chunks: Vec<Chunk>,
    records_bytes: u32,
    ended: bool,
) {
    let Some(subscription) = shard.native.subscriptions.get_mut(&key) else {
        return;
    };
    subscription.delivered_us = now.monotonic_us;
    let front = encode(
        subscription.version,
        Kind::Delivery,
        if ended { DELIVERY_ENDED } else { 0 },
        subscription.correlation_id,
        &FetchAnswer { results },
        records_bytes,
    );
    chunks[0] = Chunk::Local(Shared::from(front));
    let conn = subscription.conn;
    let Some(connection) = shard.connections.get_mut(&conn) else {
        shard.release(chunks);
        return;
    };
    if connection.is_closing() {
        shard.release(chunks);
        return;
    }
    let bytes: usize = chunks.iter().map(|chunk| chunk.len()).sum();
    connection.on_unasked(Overlap::Fetch, bytes, now.monotonic_us);
    shard.answers_bytes += bytes;
    shard.metrics.sent_bytes += bytes as u64;
    shard.actions.push_back(Action::Send { conn, chunks });
}

/// The time of a heartbeat: an empty delivery, unless something was delivered meanwhile.
pub(crate) fn on_heartbeat(shard: &mut Shard, now: Now, key: Key) {
    let Some(subscription) = shard.native.subscriptions.get(&key) else {
        return;
    };
    let heartbeat_us = subscription.heartbeat_us;
    let takes_more = shard
        .connections
        .get(&subscription.conn)
        .is_some_and(Connection::takes_more);
    if subscription.delivered_us + heartbeat_us <= now.monotonic_us && takes_more {
        let chunks = vec![Chunk::Local(Shared::empty())];
        send(shard, now, key, Vec::new(), chunks, 0, false);
    }
    let Some(subscription) = shard.native.subscriptions.get(&key) else {
        return;
    };
    let due_us = (subscription.delivered_us + heartbeat_us).max(now.monotonic_us + 1000);
    shard.set_timer(due_us, Timer::Heartbeat(key));
}
