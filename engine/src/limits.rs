//! The bounds of the engine, each with its reason. Constants for every core.

/// Bytes of requests that one connection may have waiting before its socket is no longer read: about
/// what one turn serves, so that one client cannot fill a core's memory.
pub const CONNECTION_WAITING_BYTES_MAX: usize = 1 << 20;

/// Requests that one connection may have waiting: small ones cost bookkeeping rather than bytes.
pub const CONNECTION_WAITING_REQUESTS_MAX: usize = 1024;

/// Answers that one connection may leave unread before its requests are no longer read.
pub const CONNECTION_UNSENT_ANSWERS_MAX: usize = 1024;

/// Bytes of answers that one connection may leave unread before its next request starts: Kafka starts
/// none at all, this much keeps the socket busy.
pub const CONNECTION_HELD_BYTES_MAX: usize = 1 << 20;

/// Reads of the disk that one Fetch starts on a core: a client that reads thousands of small partitions
/// comes again for the others.
pub const FETCH_DISK_READS_MAX: usize = 256;

/// Fetches of one connection that may be parked side by side. Clients have one at a time.
pub const CONNECTION_OPEN_FETCHES_MAX: usize = 4;

/// What answers that are being made or sent may hold, as a share of the core's memory. One Fetch gets
/// at most half of what is left of it, so that several readers of old data make progress side by side
/// and readers that stall keep little.
pub const ANSWERS_MEMORY_SHARE: usize = 8;

/// What a Fetch may ask for even when answers hold their share already: enough for progress.
pub const FETCH_ROOM_BYTES_MIN: usize = 64 << 10;

const _: () =
    assert!(FETCH_ROOM_BYTES_MIN * CONNECTION_OPEN_FETCHES_MAX <= CONNECTION_HELD_BYTES_MAX);

/// Compressed batches above this size are walked beside the serving queue: below it, walking takes
/// about as long as starting a task.
pub const WALK_INLINE_BYTES_MAX: usize = 16 << 10;

/// Producer ids that a core takes from the metadata log at a time, so that a new producer rarely
/// waits for a flush there.
pub const PRODUCER_ID_BLOCK: i64 = 1000;

/// How often idle connections are looked for, in microseconds: a small part of any sensible
/// `connections.max.idle.ms`.
pub const HOUSEKEEPING_US: u64 = 10_000_000;

/// How long a stop waits for the answers that are in flight, in microseconds: longer than any flush,
/// shorter than what service managers wait before they kill.
pub const SHUTDOWN_ANSWERS_US: u64 = 5_000_000;

/// How long a stop waits until everything is in its segments, in microseconds: a full disk would hold
/// it up for ever, and what is left is safe in the journal.
pub const SHUTDOWN_SETTLE_US: u64 = 60_000_000;

/// How much of a group log is read at a time, in bytes: one large direct read.
pub const GROUP_LOAD_BYTES: usize = 1 << 20;

/// Subscriptions that one connection of the native protocol may have: consumers have one.
pub const SUBSCRIPTIONS_MAX: usize = 16;

/// Partitions in all subscriptions of one connection: what they remember stays below some megabytes.
pub const SUBSCRIBED_PARTITIONS_MAX: usize = 16_384;
