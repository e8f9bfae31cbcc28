//! OffsetFetch: how far groups have read (key 9). Lives on the core of the connection; knows only the form
//! on the wire.

use std::borrow::Cow;

use uuid::Uuid;

use super::message::message;

message! {
    /// Asks for committed offsets.
    request(OffsetFetch) OffsetFetchRequest<'a> {
        /// The group, up to version 7.
        group_id: Cow<'a, str> = 0..=7;
        /// The topics, up to version 7; null for all.
        topics: Option<Vec<OffsetFetchRequestTopic<'a>>> = 0..=7, nullable 2..=7;
        /// The groups, from version 8 (KIP-709).
        groups: Vec<OffsetFetchRequestGroup<'a>> = 8..;
        /// Whether offsets of open transactions are an error (KIP-447).
        require_stable: bool = 7..;
    }

    /// One topic, up to version 7.
    struct OffsetFetchRequestTopic<'a> {
        /// The topic's name.
        name: Cow<'a, str> = 0..=7;
        /// The partitions.
        partition_indexes: Vec<i32> = 0..=7;
    }

    /// One group.
    struct OffsetFetchRequestGroup<'a> {
        /// The group.
        group_id: Cow<'a, str> = 8..;
        /// The asking member's id (KIP-848).
        member_id: Option<Cow<'a, str>> = 9.., nullable 9..;
        /// The asking member's epoch, or -1.
        member_epoch: i32 = 9.., default -1;
        /// The topics; null for all.
        topics: Option<Vec<OffsetFetchRequestTopics<'a>>> = 8.., nullable 8..;
    }

    /// One topic of a group.
    struct OffsetFetchRequestTopics<'a> {
        /// The topic's name, up to version 9.
        name: Cow<'a, str> = 8..=9;
        /// The topic's id, from version 10.
        topic_id: Uuid = 10..;
        /// The partitions.
        partition_indexes: Vec<i32> = 8..;
    }

    /// Brings committed offsets.
    response(OffsetFetch) OffsetFetchResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 3..;
        /// The topics, up to version 7.
        topics: Vec<OffsetFetchResponseTopic<'a>> = 0..=7;
        /// The error of the whole request, or 0; versions 2 to 7.
        error_code: i16 = 2..=7;
        /// The groups, from version 8.
        groups: Vec<OffsetFetchResponseGroup<'a>> = 8..;
    }

    /// The offsets of one topic, up to version 7.
    struct OffsetFetchResponseTopic<'a> {
        /// The topic's name.
        name: Cow<'a, str> = 0..=7;
        /// The partitions.
        partitions: Vec<OffsetFetchResponsePartition<'a>> = 0..=7;
    }

    /// The offset of one partition, up to version 7.
    struct OffsetFetchResponsePartition<'a> {
        /// The partition.
        partition_index: i32 = 0..=7;
        /// The committed offset, or -1.
        committed_offset: i64 = 0..=7;
        /// The leader epoch of the last record read, or -1.
        committed_leader_epoch: i32 = 5..=7, default -1;
        /// The client's own note.
        metadata: Option<Cow<'a, str>> = 0..=7, nullable 0..=7;
        /// The error, or 0.
        error_code: i16 = 0..=7;
    }

    /// The offsets of one group.
    struct OffsetFetchResponseGroup<'a> {
        /// The group.
        group_id: Cow<'a, str> = 8..;
        /// The topics.
        topics: Vec<OffsetFetchResponseTopics<'a>> = 8..;
        /// The error of the group, or 0.
        error_code: i16 = 8..;
    }

    /// The offsets of one topic.
    struct OffsetFetchResponseTopics<'a> {
        /// The topic's name, up to version 9.
        name: Cow<'a, str> = 8..=9;
        /// The topic's id, from version 10.
        topic_id: Uuid = 10..;
        /// The partitions.
        partitions: Vec<OffsetFetchResponsePartitions<'a>> = 8..;
    }

    /// The offset of one partition.
    struct OffsetFetchResponsePartitions<'a> {
        /// The partition.
        partition_index: i32 = 8..;
        /// The committed offset, or -1.
        committed_offset: i64 = 8..;
        /// The leader epoch of the last record read, or -1.
        committed_leader_epoch: i32 = 8.., default -1;
        /// The client's own note.
        metadata: Option<Cow<'a, str>> = 8.., nullable 8..;
        /// The error, or 0.
        error_code: i16 = 8..;
    }
}
