//! OffsetDelete: forgets committed offsets (key 47, KIP-496). Lives on the core of the connection; knows
//! only the form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Asks to forget offsets.
    request(OffsetDelete) OffsetDeleteRequest<'a> {
        /// The group.
        group_id: Cow<'a, str> = 0..;
        /// The topics.
        topics: Vec<OffsetDeleteRequestTopic<'a>> = 0..;
    }

    /// One topic.
    struct OffsetDeleteRequestTopic<'a> {
        /// The topic's name.
        name: Cow<'a, str> = 0..;
        /// The partitions.
        partitions: Vec<OffsetDeleteRequestPartition> = 0..;
    }

    /// One partition.
    struct OffsetDeleteRequestPartition {
        /// The partition.
        partition_index: i32 = 0..;
    }

    /// Says what is forgotten.
    response(OffsetDelete) OffsetDeleteResponse<'a> {
        /// The error of the whole request, or 0.
        error_code: i16 = 0..;
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 0..;
        /// The topics.
        topics: Vec<OffsetDeleteResponseTopic<'a>> = 0..;
    }

    /// The outcome for one topic.
    struct OffsetDeleteResponseTopic<'a> {
        /// The topic's name.
        name: Cow<'a, str> = 0..;
        /// The partitions.
        partitions: Vec<OffsetDeleteResponsePartition> = 0..;
    }

    /// The outcome for one partition.
    struct OffsetDeleteResponsePartition {
        /// The partition.
        partition_index: i32 = 0..;
        /// The error, or 0.
        error_code: i16 = 0..;
    }
}
