//! OffsetCommit: how far a group has read (key 8). Lives on the core of the connection; knows only the
//! form on the wire.

use std::borrow::Cow;

use uuid::Uuid;

use super::message::message;

message! {
    /// Asks to remember offsets.
    request(OffsetCommit) OffsetCommitRequest<'a> {
        /// The group.
        group_id: Cow<'a, str> = 0..;
        /// The generation, the member's epoch, or -1 without membership.
        generation_id_or_member_epoch: i32 = 1.., default -1;
        /// The member's id, or empty.
        member_id: Cow<'a, str> = 1..;
        /// Its name, if static.
        group_instance_id: Option<Cow<'a, str>> = 7.., nullable 7..;
        /// How long to keep the offsets, in milliseconds, or -1; versions 2 to 4.
        retention_time_ms: i64 = 2..=4, default -1;
        /// The topics.
        topics: Vec<OffsetCommitRequestTopic<'a>> = 0..;
    }

    /// The offsets of one topic.
    struct OffsetCommitRequestTopic<'a> {
        /// The topic's name, up to version 9.
        name: Cow<'a, str> = 0..=9;
        /// The topic's id, from version 10 (KIP-848).
        topic_id: Uuid = 10..;
        /// The partitions.
        partitions: Vec<OffsetCommitRequestPartition<'a>> = 0..;
    }

    /// The offset of one partition.
    struct OffsetCommitRequestPartition<'a> {
        /// The partition.
        partition_index: i32 = 0..;
        /// The next offset to read.
        committed_offset: i64 = 0..;
        /// The leader epoch of the last record read, or -1 (KIP-320).
        committed_leader_epoch: i32 = 6.., default -1;
        /// The client's own note.
        committed_metadata: Option<Cow<'a, str>> = 0.., nullable 0..;
    }

    /// Says what is remembered.
    response(OffsetCommit) OffsetCommitResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 3..;
        /// The topics.
        topics: Vec<OffsetCommitResponseTopic<'a>> = 0..;
    }

    /// The outcome for one topic.
    struct OffsetCommitResponseTopic<'a> {
        /// The topic's name, up to version 9.
        name: Cow<'a, str> = 0..=9;
        /// The topic's id, from version 10.
        topic_id: Uuid = 10..;
        /// The partitions.
        partitions: Vec<OffsetCommitResponsePartition> = 0..;
    }

    /// The outcome for one partition.
    struct OffsetCommitResponsePartition {
        /// The partition.
        partition_index: i32 = 0..;
        /// The error, or 0.
        error_code: i16 = 0..;
    }
}
