//! What cores say to each other: one closed enum of messages. Values travel from any core to any
//! other; nothing here knows the links that carry them. A call is answered exactly once, with the id
//! that it came with. Messages of one core to another arrive in order.

use std::sync::Arc;

use net::kafka::error::ErrorCode;
use ring::buf::Lease;
use storage::types::{LeaderEpoch, Offset, PartitionIndex, TopicId};

use crate::group::{GroupAnswer, GroupCall};
use crate::metadata::{MetadataCommand, MetadataRecord, MetadataReply};

/// Names a call in the table of the core that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// A partition of a topic that may since have been deleted and made again under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionRef {
    /// The topic.
    pub topic_id: TopicId,
    /// The partition's index within it.
    pub partition: PartitionIndex,
}

/// What one core tells another.
#[derive(Debug)]
pub enum MeshMessage {
    /// Please do this and answer.
    Call {
        /// The caller's name for it.
        id: CallId,
        /// What to do.
        call: Call,
    },
    /// The answer to a call.
    Answer {
        /// The caller's name for it.
        id: CallId,
        /// What came of it.
        answer: Answer,
    },
    /// Buffers of the receiver that the sender has read.
    ReturnLeases(Vec<Lease>),
    /// A parked fetch may have enough now.
    FetchWake {
        /// The call that parked it.
        id: CallId,
    },
    /// A parked fetch was answered otherwise: forget to wake it.
    FetchForget {
        /// The call that parked it.
        id: CallId,
    },
    /// Topic metadata changed, durably; apply the records in order.
    Metadata {
        /// Counts the changes; one more than the last.
        version: u64,
        /// What changed.
        records: Arc<Vec<MetadataRecord>>,
    },
    /// The sender has applied metadata up to this version, and its new partitions are durable.
    MetadataApplied {
        /// The version.
        version: u64,
    },
    /// A log directory failed on the sender: no core uses it any more.
    DirOffline {
        /// Its index in the configuration.
        dir: usize,
        /// What happened.
        why: String,
    },
}

/// What a core asks of another.
#[derive(Debug)]
pub enum Call {
    /// Append batches to partitions of the receiver.
    Append(AppendCall),
    /// Read from partitions of the receiver.
    Fetch(FetchCall),
    /// One question each about partitions of the receiver.
    Partitions(Vec<PartitionCall>),
    /// Sizes of all partitions of the receiver.
    LogDirs,
    /// Change topic metadata; only the first core is asked.
    Metadata(Box<MetadataCommand>),
    /// A consumer group of the receiver.
    Group(Box<GroupCall>),
}

/// What comes back.
#[derive(Debug)]
pub enum Answer {
    /// Of [`Call::Append`]: a result for each part, and the leases that it came with.
    Append {
        /// In the order of the parts.
        results: Vec<AppendResult>,
        /// The batches, home again.
        leases: Vec<Lease>,
    },
    /// Of [`Call::Fetch`], in the order of its parts.
    Fetch {
        /// What was found, and the bytes on loan.
        parts: Vec<(FetchHead, Vec<Lease>)>,
        /// Whether the receiver watches the partitions and will send [`MeshMessage::FetchWake`].
        watched: bool,
    },
    /// Of [`Call::Partitions`], in order.
    Partitions(Vec<PartitionAnswer>),
    /// Of [`Call::LogDirs`].
    LogDirs(Vec<LogDirReport>),
    /// Of [`Call::Metadata`].
    Metadata(Box<MetadataReply>),
    /// Of [`Call::Group`].
    Group(Box<GroupAnswer>),
}

/// Batches for partitions of one core, from one Produce request.
#[derive(Debug)]
pub struct AppendCall {
    /// -1, 0 or 1, as the client asked.
    pub acks: i16,
    /// The version of the Produce request: old ones may not carry zstd.
    pub api_version: i16,
    /// One batch each.
    pub parts: Vec<(PartitionRef, Lease)>,
}

/// What came of appending one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendResult {
    /// `None`: it is appended and as durable as was asked for.
    pub error: ErrorCode,
    /// The offset of its first record, -1 with an error.
    pub base_offset: i64,
    /// With `message.timestamp.type=LogAppendTime` the batch's time in milliseconds, else -1.
    pub log_append_time_ms: i64,
    /// The partition's log start offset, -1 where it is not known.
    pub log_start_offset: i64,
    /// What else there is to say of an error: apart, since there is one result for each batch.
    pub fault: Option<Box<AppendFault>>,
}

/// What was wrong with a batch, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppendFault {
    /// Which records were at fault, and why.
    pub record_errors: Vec<(i32, Option<String>)>,
    /// What was wrong with the batch.
    pub message: Option<String>,
}

impl AppendResult {
    /// A refusal without more to say.
    pub fn error(error: ErrorCode) -> AppendResult {
        AppendResult {
            error,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            fault: None,
        }
    }

    /// A refusal with its reason.
    pub fn refused(error: ErrorCode, message: impl Into<String>) -> AppendResult {
        let fault = AppendFault {
            message: Some(message.into()),
            ..AppendFault::default()
        };
        AppendResult {
            fault: Some(Box::new(fault)),
            ..AppendResult::error(error)
        }
    }
}

/// Which partitions of one core to read, from one Fetch request.
#[derive(Clone, Debug)]
pub struct FetchCall {
    /// In the client's order.
    pub parts: Vec<FetchPart>,
    /// How much all parts together may bring, in bytes; the first batch found is whole all the same.
    pub bytes_max: usize,
    /// With fewer bytes than this, and no error, the receiver is to watch the partitions.
    pub bytes_min: usize,
    /// Whether the client waits for `bytes_min`.
    pub watch: bool,
}

/// One partition to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPart {
    /// Which.
    pub partition: PartitionRef,
    /// From where.
    pub fetch_offset: Offset,
    /// How much, in bytes.
    pub bytes_max: usize,
    /// The leader epoch that the client knows; -1: none.
    pub current_leader_epoch: i32,
    /// The epoch of the last record that the client has; -1: none (KIP-595).
    pub last_fetched_epoch: i32,
}

/// What a fetch found in a partition, beside the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchHead {
    /// `None` when the partition could be read.
    pub error: ErrorCode,
    /// Everything below is safe; -1 with an error.
    pub high_watermark: i64,
    /// The log start offset; -1 with an error.
    pub log_start_offset: i64,
    /// Where the client's log and this one part: an epoch and its end offset (KIP-595).
    pub diverging: Option<(i32, i64)>,
}

impl FetchHead {
    /// An answer that is an error.
    pub fn error(error: ErrorCode) -> FetchHead {
        FetchHead {
            error,
            high_watermark: -1,
            log_start_offset: -1,
            diverging: None,
        }
    }
}

/// A question about one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionCall {
    /// Which.
    pub partition: PartitionRef,
    /// The leader epoch that the client knows; -1: none.
    pub current_leader_epoch: i32,
    /// What about it.
    pub ask: Ask,
}

/// The questions about one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The log start offset.
    Earliest,
    /// The high watermark.
    Latest,
    /// A tiered offset: there is none.
    Tiered,
    /// The record with the largest timestamp (KIP-734).
    MaxTimestamp,
    /// The first record at or after a time, in milliseconds.
    ByTimestamp(i64),
    /// Where a leader epoch ends (KIP-101, KIP-320).
    EpochEnd(LeaderEpoch),
    /// Drop everything before this offset; -1: the high watermark (KIP-107).
    DeleteRecords(i64),
    /// The producers with state (KIP-664).
    Producers,
}

/// What is answered to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionAnswer {
    /// It cannot be told.
    Error(ErrorCode),
    /// An offset, its timestamp in milliseconds and its leader epoch; each -1 where there is none.
    Offset {
        /// The offset.
        offset: i64,
        /// The record's timestamp.
        timestamp_ms: i64,
        /// The epoch of the offset.
        leader_epoch: i32,
    },
    /// The producers.
    Producers(Vec<ProducerReport>),
}

/// State of one producer in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerReport {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// The last sequence number that was appended.
    pub last_sequence: i32,
    /// When, in milliseconds.
    pub last_timestamp_ms: i64,
}

/// Size of one partition on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDirReport {
    /// Index of the log directory in the configuration.
    pub dir: usize,
    /// The partition.
    pub partition: PartitionRef,
    /// Bytes of its log.
    pub size_bytes: u64,
}
