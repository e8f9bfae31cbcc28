//! Produce: record batches for partitions (key 0). Lives on the core of the connection; knows only the
//! form on the wire, not what a batch is.

use std::borrow::Cow;

use uuid::Uuid;

use super::message::message;

message! {
    /// Asks to append batches.
    request(Produce) ProduceRequest<'a> {
        /// The transactional id, or null outside transactions.
        transactional_id: Option<Cow<'a, str>> = 3.., nullable 3..;
        /// Who must have the records before the answer: 0 nobody (and no answer), 1 the leader, -1 all
        /// in-sync replicas.
        acks: i16 = 0..;
        /// How long to wait for the replicas, in milliseconds.
        timeout_ms: i32 = 0..;
        /// The topics.
        topic_data: Vec<TopicProduceData<'a>> = 0..;
    }

    /// The batches for one topic.
    struct TopicProduceData<'a> {
        /// The topic's name, up to version 12.
        name: Cow<'a, str> = 0..=12;
        /// The topic's id, from version 13 (KIP-516).
        topic_id: Uuid = 13..;
        /// The partitions.
        partition_data: Vec<PartitionProduceData<'a>> = 0..;
    }

    /// The batch for one partition.
    struct PartitionProduceData<'a> {
        /// The partition.
        index: i32 = 0..;
        /// The record batch, where it stands in the frame.
        records: Option<&'a [u8]> = 0.., nullable 0..;
    }

    /// Says where the batches went.
    response(Produce) ProduceResponse<'a> {
        /// The topics.
        responses: Vec<TopicProduceResponse<'a>> = 0..;
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 1..;
        /// Where the leaders named in the partitions listen (KIP-951).
        node_endpoints: Vec<NodeEndpoint<'a>> = 10.., tag 0;
    }

    /// The outcome for one topic.
    struct TopicProduceResponse<'a> {
        /// The topic's name, up to version 12.
        name: Cow<'a, str> = 0..=12;
        /// The topic's id, from version 13.
        topic_id: Uuid = 13..;
        /// The partitions.
        partition_responses: Vec<PartitionProduceResponse<'a>> = 0..;
    }

    /// The outcome for one partition.
    struct PartitionProduceResponse<'a> {
        /// The partition.
        index: i32 = 0..;
        /// The error, or 0.
        error_code: i16 = 0..;
        /// The offset of the first record.
        base_offset: i64 = 0..;
        /// The broker's time of the append, if the topic uses it, in milliseconds; else -1.
        log_append_time_ms: i64 = 2.., default -1;
        /// The partition's first offset.
        log_start_offset: i64 = 5.., default -1;
        /// The records that made the batch fail (KIP-467).
        record_errors: Vec<BatchIndexAndErrorMessage<'a>> = 8..;
        /// What is wrong, in words.
        error_message: Option<Cow<'a, str>> = 8.., nullable 8..;
        /// The leader to go to instead (KIP-951).
        current_leader: LeaderIdAndEpoch = 10.., tag 0;
    }

    /// What is wrong with one record.
    struct BatchIndexAndErrorMessage<'a> {
        /// The record's index in its batch.
        batch_index: i32 = 8..;
        /// What is wrong, in words.
        batch_index_error_message: Option<Cow<'a, str>> = 8.., nullable 8..;
    }

    /// A partition's leader.
    struct LeaderIdAndEpoch {
        /// The leader's broker id, or -1.
        leader_id: i32 = 10.., default -1;
        /// The newest leader epoch, or -1.
        leader_epoch: i32 = 10.., default -1;
    }

    /// Where a broker listens.
    struct NodeEndpoint<'a> {
        /// The broker id.
        node_id: i32 = 10..;
        /// The host.
        host: Cow<'a, str> = 10..;
        /// The port.
        port: i32 = 10..;
        /// The rack, if it has one.
        rack: Option<Cow<'a, str>> = 10.., nullable 10..;
    }
}
