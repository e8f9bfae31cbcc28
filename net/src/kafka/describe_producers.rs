//! DescribeProducers: the producers that partitions remember (key 61, KIP-664). Lives on the core of the
//! connection; knows only the form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Asks for producers.
    request(DescribeProducers) DescribeProducersRequest<'a> {
        /// The topics.
        topics: Vec<TopicRequest<'a>> = 0..;
    }

    /// One topic to ask about.
    struct TopicRequest<'a> {
        /// The topic's name.
        name: Cow<'a, str> = 0..;
        /// The partitions.
        partition_indexes: Vec<i32> = 0..;
    }

    /// Brings producers.
    response(DescribeProducers) DescribeProducersResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 0..;
        /// The topics.
        topics: Vec<TopicResponse<'a>> = 0..;
    }

    /// The producers of one topic.
    struct TopicResponse<'a> {
        /// The topic's name.
        name: Cow<'a, str> = 0..;
        /// The partitions.
        partitions: Vec<PartitionResponse<'a>> = 0..;
    }

    /// The producers of one partition.
    struct PartitionResponse<'a> {
        /// The partition.
        partition_index: i32 = 0..;
        /// The error, or 0.
        error_code: i16 = 0..;
        /// What is wrong, in words.
        error_message: Option<Cow<'a, str>> = 0.., nullable 0..;
        /// The producers.
        active_producers: Vec<ProducerState> = 0..;
    }

    /// One producer.
    struct ProducerState {
        /// Its id.
        producer_id: i64 = 0..;
        /// Its epoch.
        producer_epoch: i32 = 0..;
        /// The sequence of its last record, or -1.
        last_sequence: i32 = 0.., default -1;
        /// The timestamp of its last record in milliseconds, or -1.
        last_timestamp: i64 = 0.., default -1;
        /// The epoch of its transaction coordinator.
        coordinator_epoch: i32 = 0..;
        /// Where its open transaction starts, or -1.
        current_txn_start_offset: i64 = 0.., default -1;
    }
}
