//! The bodies of version 1. Plain data on whichever thread holds the frame; knows no partition and no log.
//!
//! Each body is a few tables of rows and one root that says where they are. Rows have a fixed size and hold
//! numbers only; texts lie in one table of bytes, and a row says where its own is. So reading a body
//! needs no memory, and its bytes are simple to describe. Codes of errors are Kafka's.

use rkyv::{Archive, Deserialize, Serialize};

/// The number of this version.
pub const VERSION: u8 = 1;

/// `TopicQuery` for all topics: a bit of [`Metadata::flags`].
pub const METADATA_ALL: u8 = 1;

/// Create the topics that are named and missing, if the broker allows that: a bit of [`Metadata::flags`].
pub const METADATA_CREATE: u8 = 2;

/// The topic belongs to the broker itself: a bit of [`TopicRow::flags`].
pub const TOPIC_INTERNAL: u8 = 1;

/// Nothing more will come of this subscription, a bit of a delivery's header: all its partitions have failed.
pub const DELIVERY_ENDED: u16 = 1;

/// [`OffsetQuestion::at`] is a time in milliseconds since 1970, or -1 latest, -2 earliest, -3 largest
/// timestamp, as in Kafka's ListOffsets version 11.
pub const ASK_TIME: u8 = 0;

/// [`OffsetQuestion::at`] is a leader epoch of which the end is wanted (KIP-320).
pub const ASK_EPOCH_END: u8 = 1;

/// Batches to append. Behind the body lie the batches, one for each row, in the order of the rows.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Produce {
    /// Where each batch goes.
    pub parts: Vec<ProducePart>,
    /// How long the client waits, in milliseconds; kept for the time when replicas are waited for.
    pub timeout_ms: u32,
    /// -1: all, 1: the leader, 0: nobody answers.
    pub acks: i8,
}

/// One batch of a [`Produce`].
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct ProducePart {
    /// The topic's id.
    pub topic_id: [u8; 16],
    /// The partition's index.
    pub partition: i32,
    /// Length of the batch, in bytes.
    pub records_bytes: u32,
}

/// What became of each batch.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct ProduceAnswer {
    /// In the order of the request.
    pub results: Vec<ProduceResult>,
    /// What is to be said about failed batches.
    pub remarks: Vec<ProduceRemark>,
    /// The texts of the remarks; UTF-8.
    pub texts: Vec<u8>,
}

/// What became of one batch.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct ProduceResult {
    /// The offset of its first record; -1 with an error.
    pub base_offset: i64,
    /// With `message.timestamp.type=LogAppendTime` its time in milliseconds, else -1.
    pub log_append_time_ms: i64,
    /// The partition's first offset; -1 where it is not known.
    pub log_start_offset: i64,
    /// 0: it is as safe as was asked for.
    pub error: i16,
}

/// A sentence about a failed batch, or about one of its records.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct ProduceRemark {
    /// Index of the batch in the request.
    pub part: u32,
    /// Index of the record in the batch; -1: all of it.
    pub record: i32,
    /// Where its text begins.
    pub text_start: u32,
    /// Length of its text, in bytes.
    pub text_bytes: u32,
}

/// Read partitions.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Fetch {
    /// Which, and from where.
    pub parts: Vec<FetchPart>,
    /// How long the answer may wait for `bytes_min`, in milliseconds.
    pub wait_ms_max: u32,
    /// Answer as soon as there are so many bytes of records.
    pub bytes_min: u32,
    /// No more bytes than this, but at least one whole batch.
    pub bytes_max: u32,
    /// 0: read uncommitted, 1: read committed.
    pub isolation: u8,
}

/// One partition to read.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct FetchPart {
    /// The topic's id.
    pub topic_id: [u8; 16],
    /// The partition's index.
    pub partition: i32,
    /// The leader epoch that the client knows; -1: none.
    pub leader_epoch: i32,
    /// The first offset that is wanted; the batch that holds it comes whole.
    pub fetch_offset: i64,
    /// The epoch of the last record that the client has; -1: none (KIP-595).
    pub last_fetched_epoch: i32,
    /// No more bytes of this partition, but at least one whole batch where it is the first that has any.
    pub bytes_max: u32,
}

/// What was found, of an answer and of a delivery. Behind the body lie the batches of each row, in the
/// order of the rows.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct FetchAnswer {
    /// Partitions that have batches, an error, or diverge; of the others there is nothing to say.
    pub results: Vec<FetchResult>,
}

/// What was found in one partition.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct FetchResult {
    /// Everything below is safe; -1 with an error.
    pub high_watermark: i64,
    /// Everything below belongs to no open transaction; -1 with an error.
    pub last_stable_offset: i64,
    /// The partition's first offset; -1 with an error.
    pub log_start_offset: i64,
    /// Where the client's log parts from this one; -1: nowhere.
    pub diverging_end_offset: i64,
    /// The epoch in which it does; -1: none.
    pub diverging_epoch: i32,
    /// Index of the partition in the request.
    pub part: u32,
    /// Length of its batches, in bytes.
    pub records_bytes: u32,
    /// 0, or why it cannot be read.
    pub error: i16,
}

/// Read partitions for as long as the connection lives. What is found comes in deliveries, whose
/// correlation id is that of this request.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Subscribe {
    /// Which, and from where.
    pub parts: Vec<FetchPart>,
    /// How many bytes of records may be delivered before more credit comes; the last delivery may go over.
    pub credit_bytes: u32,
    /// No more bytes in one delivery, but at least one whole batch.
    pub bytes_max: u32,
    /// After so long without one, in milliseconds, an empty delivery says that all is well; 0: 10 s.
    pub heartbeat_ms: u32,
    /// 0: read uncommitted, 1: read committed.
    pub isolation: u8,
}

/// Whether a subscription has begun.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct SubscribeAnswer {
    /// 0, or why not.
    pub error: i16,
}

/// End a subscription.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Unsubscribe {
    /// The correlation id of its request.
    pub subscription: u64,
}

/// A subscription has ended: no delivery of it follows.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct UnsubscribeAnswer {
    /// 0, or INVALID_REQUEST where there is no such subscription.
    pub error: i16,
}

/// More credit; what the client has worked off. Has no answer; unknown subscriptions are ignored, because
/// one may have ended meanwhile.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Credit {
    /// The correlation id of the request that began it.
    pub subscription: u64,
    /// How many bytes of records more.
    pub bytes: u32,
}

/// Which topics to tell about.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Metadata {
    /// The topics; ignored with [`METADATA_ALL`].
    pub topics: Vec<TopicQuery>,
    /// Their names; UTF-8.
    pub texts: Vec<u8>,
    /// [`METADATA_ALL`], [`METADATA_CREATE`].
    pub flags: u8,
}

/// One topic, by name or by id.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct TopicQuery {
    /// Its id; all zero: it is named.
    pub topic_id: [u8; 16],
    /// Where its name begins.
    pub name_start: u32,
    /// Length of its name, in bytes.
    pub name_bytes: u32,
}

/// Topics, partitions, brokers.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct MetadataAnswer {
    /// Those that were asked for, in that order, each once.
    pub topics: Vec<TopicRow>,
    /// Their partitions.
    pub partitions: Vec<PartitionRow>,
    /// All brokers.
    pub brokers: Vec<BrokerRow>,
    /// Names and hosts; UTF-8.
    pub texts: Vec<u8>,
    /// The broker that decides about metadata.
    pub controller_id: i32,
}

/// One topic.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct TopicRow {
    /// Its id; all zero where it is not known.
    pub topic_id: [u8; 16],
    /// Where its name begins.
    pub name_start: u32,
    /// Length of its name, in bytes.
    pub name_bytes: u32,
    /// Index of its first partition in the table.
    pub partitions_start: u32,
    /// How many partitions it has; they are in the order of their indexes.
    pub partitions_count: u32,
    /// 0, or why there is nothing to tell.
    pub error: i16,
    /// [`TOPIC_INTERNAL`].
    pub flags: u8,
}

/// One partition.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct PartitionRow {
    /// Its index within the topic.
    pub partition: i32,
    /// The broker that leads it.
    pub leader_id: i32,
    /// The epoch of that leader.
    pub leader_epoch: i32,
    /// 0, or why it is not served.
    pub error: i16,
}

/// One broker.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct BrokerRow {
    /// Its id.
    pub node_id: i32,
    /// Where its host begins.
    pub host_start: u32,
    /// Length of its host, in bytes.
    pub host_bytes: u32,
    /// The port of its native listener.
    pub port: u16,
}

/// Questions about offsets.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Offsets {
    /// One for each row of the answer.
    pub questions: Vec<OffsetQuestion>,
}

/// One question about one partition.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct OffsetQuestion {
    /// The topic's id.
    pub topic_id: [u8; 16],
    /// The partition's index.
    pub partition: i32,
    /// The leader epoch that the client knows; -1: none.
    pub leader_epoch: i32,
    /// What about, as `ask` says.
    pub at: i64,
    /// [`ASK_TIME`] or [`ASK_EPOCH_END`].
    pub ask: u8,
}

/// Answers about offsets.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct OffsetsAnswer {
    /// In the order of the questions.
    pub results: Vec<OffsetResult>,
}

/// One answer.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct OffsetResult {
    /// The offset; -1: none.
    pub offset: i64,
    /// Its record's timestamp in milliseconds; -1 where that was not looked for.
    pub timestamp_ms: i64,
    /// Its leader epoch; -1: none.
    pub leader_epoch: i32,
    /// 0, or why it cannot be told.
    pub error: i16,
}

/// An id for an idempotent producer (KIP-98).
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct ProducerId {
    /// The id that the producer has; -1: none (KIP-360).
    pub producer_id: i64,
    /// The epoch that it has; -1: none.
    pub producer_epoch: i16,
}

/// The id.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct ProducerIdAnswer {
    /// The id; -1 with an error.
    pub producer_id: i64,
    /// Its epoch; -1 with an error.
    pub producer_epoch: i16,
    /// 0, or why there is none.
    pub error: i16,
}

/// Nothing aligns, nothing pads: the rows are as long as their fields together, wherever they lie.
macro_rules! packed {
    ($($row:ident = $bytes:literal,)*) => {
        $(const _: () = assert!(align_of::<$row>() == 1 && size_of::<$row>() == $bytes);)*
    };
}

packed! {
    ArchivedProduce = 13,
    ArchivedProducePart = 24,
    ArchivedProduceAnswer = 24,
    ArchivedProduceResult = 26,
    ArchivedProduceRemark = 16,
    ArchivedFetch = 21,
    ArchivedFetchPart = 40,
    ArchivedFetchAnswer = 8,
    ArchivedFetchResult = 46,
    ArchivedSubscribe = 21,
    ArchivedSubscribeAnswer = 2,
    ArchivedUnsubscribe = 8,
    ArchivedUnsubscribeAnswer = 2,
    ArchivedCredit = 12,
    ArchivedMetadata = 17,
    ArchivedTopicQuery = 24,
    ArchivedMetadataAnswer = 36,
    ArchivedTopicRow = 35,
    ArchivedPartitionRow = 14,
    ArchivedBrokerRow = 14,
    ArchivedOffsets = 8,
    ArchivedOffsetQuestion = 33,
    ArchivedOffsetsAnswer = 8,
    ArchivedOffsetResult = 22,
    ArchivedProducerId = 10,
    ArchivedProducerIdAnswer = 12,
}
