//! Fetch: record batches from partitions (key 1). Lives on the core of the connection; knows only the
//! form on the wire, not sessions and not logs.

use std::borrow::Cow;

use uuid::Uuid;

use super::ApiKey;
use super::message::message;
use crate::wire::{DecodeError, Field, Reader, Records, Writer};

message! {
    /// Asks for record batches.
    request(Fetch) FetchRequest<'a> {
        /// The cluster that the client means, if it says.
        cluster_id: Option<Cow<'a, str>> = 12.., nullable 12.., tag 0;
        /// The fetching follower's broker id, or -1 for a consumer; up to version 14.
        replica_id: i32 = 0..=14, default -1;
        /// The fetching follower, from version 15 (KIP-903).
        replica_state: ReplicaState = 15.., tag 1;
        /// How long to wait for `min_bytes`, in milliseconds.
        max_wait_ms: i32 = 0..;
        /// The fewest bytes to answer with, unless the wait is over.
        min_bytes: i32 = 0..;
        /// The most bytes to answer with.
        max_bytes: i32 = 3.., default i32::MAX;
        /// 0 for all records, 1 for those of no open or aborted transaction.
        isolation_level: i8 = 4..;
        /// The fetch session, or 0 (KIP-227).
        session_id: i32 = 7..;
        /// The epoch of the session: 0 opens one, -1 closes it.
        session_epoch: i32 = 7.., default -1;
        /// What to fetch; in a session, what is new or changed.
        topics: Vec<FetchTopic<'a>> = 0..;
        /// What to take out of the session.
        forgotten_topics_data: Vec<ForgottenTopic<'a>> = 7..;
        /// The client's rack (KIP-392).
        rack_id: Cow<'a, str> = 11..;
    }

    /// A fetching follower.
    struct ReplicaState {
        /// Its broker id, or -1 for a consumer.
        replica_id: i32 = 15.., default -1;
        /// Its broker epoch, or -1.
        replica_epoch: i64 = 15.., default -1;
    }

    /// What to fetch of one topic.
    struct FetchTopic<'a> {
        /// The topic's name, up to version 12.
        topic: Cow<'a, str> = 0..=12;
        /// The topic's id, from version 13.
        topic_id: Uuid = 13..;
        /// The partitions.
        partitions: Vec<FetchPartition> = 0..;
    }

    /// What to fetch of one partition.
    struct FetchPartition {
        /// The partition.
        partition: i32 = 0..;
        /// The leader epoch that the client knows, or -1.
        current_leader_epoch: i32 = 9.., default -1;
        /// The first offset wanted.
        fetch_offset: i64 = 0..;
        /// The leader epoch of the last record fetched, or -1 (KIP-595).
        last_fetched_epoch: i32 = 12.., default -1;
        /// The follower's own first offset, or -1 for a consumer.
        log_start_offset: i64 = 5.., default -1;
        /// The most bytes to answer with.
        partition_max_bytes: i32 = 0..;
        /// The follower's log directory.
        replica_directory_id: Uuid = 17.., tag 0;
        /// The high watermark that the follower knows (KIP-1166).
        high_watermark: i64 = 18.., tag 1, default i64::MAX;
    }

    /// What to take out of the session.
    struct ForgottenTopic<'a> {
        /// The topic's name, up to version 12.
        topic: Cow<'a, str> = 7..=12;
        /// The topic's id, from version 13.
        topic_id: Uuid = 13..;
        /// The partitions.
        partitions: Vec<i32> = 7..;
    }

    /// Brings record batches.
    moved struct FetchResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 1..;
        /// The error of the whole request, or 0.
        error_code: i16 = 7..;
        /// The session, or 0.
        session_id: i32 = 7..;
        /// The topics.
        responses: Vec<FetchableTopicResponse<'a>> = 0..;
        /// Where the leaders named in the partitions listen (KIP-951).
        node_endpoints: Vec<NodeEndpoint<'a>> = 16.., tag 0;
    }

    /// What was fetched of one topic.
    moved struct FetchableTopicResponse<'a> {
        /// The topic's name, up to version 12.
        topic: Cow<'a, str> = 0..=12;
        /// The topic's id, from version 13.
        topic_id: Uuid = 13..;
        /// The partitions.
        partitions: Vec<PartitionData<'a>> = 0..;
    }

    /// What was fetched of one partition.
    moved struct PartitionData<'a> {
        /// The partition.
        partition_index: i32 = 0..;
        /// The error, or 0.
        error_code: i16 = 0..;
        /// The high watermark.
        high_watermark: i64 = 0..;
        /// The last stable offset.
        last_stable_offset: i64 = 4.., default -1;
        /// The partition's first offset.
        log_start_offset: i64 = 5.., default -1;
        /// Where the follower's log parts from the leader's (KIP-595).
        diverging_epoch: EpochEndOffset = 12.., tag 0;
        /// The leader to go to instead.
        current_leader: LeaderIdAndEpoch = 12.., tag 1;
        /// The snapshot to fetch instead (KIP-630).
        snapshot_id: SnapshotId = 12.., tag 2;
        /// The aborted transactions among the records; null unless asked for committed records.
        aborted_transactions: Option<Vec<AbortedTransaction>> = 4.., nullable 4..;
        /// The replica to read from instead, or -1 (KIP-392).
        preferred_read_replica: i32 = 11.., default -1;
        /// The record batches.
        records: Records<'a> = 0.., nullable 0..;
    }

    /// The end of a leader epoch.
    struct EpochEndOffset {
        /// The epoch, or -1.
        epoch: i32 = 12.., default -1;
        /// Its end offset, or -1.
        end_offset: i64 = 12.., default -1;
    }

    /// A partition's leader.
    struct LeaderIdAndEpoch {
        /// The leader's broker id, or -1.
        leader_id: i32 = 12.., default -1;
        /// The newest leader epoch, or -1.
        leader_epoch: i32 = 12.., default -1;
    }

    /// Names a snapshot.
    struct SnapshotId {
        /// The offset after its last record, or -1.
        end_offset: i64 = 0.., default -1;
        /// The epoch of its last record, or -1.
        epoch: i32 = 0.., default -1;
    }

    /// A transaction whose records are to be left out.
    struct AbortedTransaction {
        /// Its producer id.
        producer_id: i64 = 4..;
        /// Its first offset.
        first_offset: i64 = 4..;
    }

    /// Where a broker listens.
    struct NodeEndpoint<'a> {
        /// The broker id.
        node_id: i32 = 16..;
        /// The host.
        host: Cow<'a, str> = 16..;
        /// The port.
        port: i32 = 16..;
        /// The rack, if it has one.
        rack: Option<Cow<'a, str>> = 16.., nullable 16..;
    }
}

impl<'a> FetchResponse<'a> {
    /// The key of the API that this message belongs to.
    pub const API_KEY: i16 = ApiKey::Fetch as i16;

    /// Reads the message from where `reader` stands; what follows it is left unread.
    pub fn decode(reader: &mut Reader<'a>, version: i16) -> Result<Self, DecodeError> {
        Field::read(reader, ApiKey::Fetch.context(version))
    }

    /// Writes the message in `version`. Takes it, because buffers of record data move into the
    /// writer: no byte of them is copied, and leases go where they are sent from.
    pub fn encode(self, writer: &mut Writer, version: i16) {
        self.write(writer, ApiKey::Fetch.context(version));
        for topic in self.responses {
            for partition in topic.partitions {
                if let Records::Chunks(chunks) = partition.records {
                    writer.fill_gap(chunks);
                }
            }
        }
    }
}
