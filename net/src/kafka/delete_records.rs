//! DeleteRecords: moves the start of partitions forward (key 21, KIP-107). Lives on the core of the
//! connection; knows only the form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Asks to delete the oldest records.
    request(DeleteRecords) DeleteRecordsRequest<'a> {
        /// The topics.
        topics: Vec<DeleteRecordsTopic<'a>> = 0..;
        /// How long to wait until it is done, in milliseconds.
        timeout_ms: i32 = 0..;
    }

    /// One topic.
    struct DeleteRecordsTopic<'a> {
        /// The topic's name.
        name: Cow<'a, str> = 0..;
        /// The partitions.
        partitions: Vec<DeleteRecordsPartition> = 0..;
    }

    /// One partition.
    struct DeleteRecordsPartition {
        /// The partition.
        partition_index: i32 = 0..;
        /// The first offset to keep, or -1 for the high watermark.
        offset: i64 = 0..;
    }

    /// Says where partitions start now.
    response(DeleteRecords) DeleteRecordsResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 0..;
        /// The topics.
        topics: Vec<DeleteRecordsTopicResult<'a>> = 0..;
    }

    /// The outcome for one topic.
    struct DeleteRecordsTopicResult<'a> {
        /// The topic's name.
        name: Cow<'a, str> = 0..;
        /// The partitions.
        partitions: Vec<DeleteRecordsPartitionResult> = 0..;
    }

    /// The outcome for one partition.
    struct DeleteRecordsPartitionResult {
        /// The partition.
        partition_index: i32 = 0..;
        /// The partition's first offset, the lowest among its replicas.
        low_watermark: i64 = 0..;
        /// The error, or 0.
        error_code: i16 = 0..;
    }
}
