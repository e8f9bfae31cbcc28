//! ListOffsets: offsets by time, or the first and the last (key 2). Lives on the core of the
//! connection; knows only the form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Asks for offsets.
    request(ListOffsets) ListOffsetsRequest<'a> {
        /// The asking follower's broker id, or -1 for a consumer.
        replica_id: i32 = 0..;
        /// 0 for all records, 1 for those of no open transaction.
        isolation_level: i8 = 2..;
        /// The topics.
        topics: Vec<ListOffsetsTopic<'a>> = 0..;
        /// How long to wait for tiered storage, in milliseconds.
        timeout_ms: i32 = 10..;
    }

    /// One topic to ask about.
    struct ListOffsetsTopic<'a> {
        /// The topic's name.
        name: Cow<'a, str> = 0..;
        /// The partitions.
        partitions: Vec<ListOffsetsPartition> = 0..;
    }

    /// One partition to ask about.
    struct ListOffsetsPartition {
        /// The partition.
        partition_index: i32 = 0..;
        /// The leader epoch that the client knows, or -1.
        current_leader_epoch: i32 = 4.., default -1;
        /// The time in milliseconds, or a negative number that names a place: -1 latest, -2 earliest,
        /// -3 largest timestamp, -4 earliest local, -5 latest tiered, -6 earliest pending upload.
        timestamp: i64 = 0..;
    }

    /// Brings offsets.
    response(ListOffsets) ListOffsetsResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 2..;
        /// The topics.
        topics: Vec<ListOffsetsTopicResponse<'a>> = 0..;
    }

    /// The offsets of one topic.
    struct ListOffsetsTopicResponse<'a> {
        /// The topic's name.
        name: Cow<'a, str> = 0..;
        /// The partitions.
        partitions: Vec<ListOffsetsPartitionResponse> = 0..;
    }

    /// The offset of one partition.
    struct ListOffsetsPartitionResponse {
        /// The partition.
        partition_index: i32 = 0..;
        /// The error, or 0.
        error_code: i16 = 0..;
        /// The timestamp of the record found, or -1.
        timestamp: i64 = 1.., default -1;
        /// The offset found, or -1.
        offset: i64 = 1.., default -1;
        /// The leader epoch of the record found, or -1.
        leader_epoch: i32 = 4.., default -1;
    }
}
