//! OffsetForLeaderEpoch: where a leader epoch ends (key 23). Lives on the core of the connection; knows
//! only the form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Asks where leader epochs end.
    request(OffsetForLeaderEpoch) OffsetForLeaderEpochRequest<'a> {
        /// The asking follower's broker id, -1 for a consumer, -2 if it does not say.
        replica_id: i32 = 3.., default -2;
        /// The topics.
        topics: Vec<OffsetForLeaderTopic<'a>> = 0..;
    }

    /// One topic to ask about.
    struct OffsetForLeaderTopic<'a> {
        /// The topic's name.
        topic: Cow<'a, str> = 0..;
        /// The partitions.
        partitions: Vec<OffsetForLeaderPartition> = 0..;
    }

    /// One partition to ask about.
    struct OffsetForLeaderPartition {
        /// The partition.
        partition: i32 = 0..;
        /// The leader epoch that the client knows, or -1.
        current_leader_epoch: i32 = 2.., default -1;
        /// The epoch whose end is wanted.
        leader_epoch: i32 = 0..;
    }

    /// Says where leader epochs end.
    response(OffsetForLeaderEpoch) OffsetForLeaderEpochResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 2..;
        /// The topics.
        topics: Vec<OffsetForLeaderTopicResult<'a>> = 0..;
    }

    /// The ends in one topic.
    struct OffsetForLeaderTopicResult<'a> {
        /// The topic's name.
        topic: Cow<'a, str> = 0..;
        /// The partitions.
        partitions: Vec<EpochEndOffset> = 0..;
    }

    /// The end in one partition.
    struct EpochEndOffset {
        /// The error, or 0.
        error_code: i16 = 0..;
        /// The partition.
        partition: i32 = 0..;
        /// The newest epoch that is not above the one asked for, or -1.
        leader_epoch: i32 = 1.., default -1;
        /// Where it ends, exclusive, or -1.
        end_offset: i64 = 0.., default -1;
    }
}
