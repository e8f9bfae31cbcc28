//! Metadata: brokers, topics and who leads what (key 3). Lives on the core of the connection; knows
//! only the form on the wire.

use std::borrow::Cow;

use uuid::Uuid;

use super::message::message;

/// What an operations field holds when nobody asked for it.
const NOT_ASKED: i32 = i32::MIN;

message! {
    /// Asks for the state of the cluster.
    request(Metadata) MetadataRequest<'a> {
        /// The topics; null for all. Version 0 has no null, and says all with an empty list.
        topics: Option<Vec<MetadataRequestTopic<'a>>> = 0.., nullable 1..;
        /// Whether unknown topics may be created.
        allow_auto_topic_creation: bool = 4.., default true;
        /// Whether to say what the client may do with the cluster; versions 8 to 10.
        include_cluster_authorized_operations: bool = 8..=10;
        /// Whether to say what the client may do with each topic.
        include_topic_authorized_operations: bool = 8..;
    }

    /// One topic to describe.
    struct MetadataRequestTopic<'a> {
        /// The topic's id, or zero.
        topic_id: Uuid = 10..;
        /// The topic's name, or null when the id says it.
        name: Option<Cow<'a, str>> = 0.., nullable 10..;
    }

    /// Brings the state of the cluster.
    response(Metadata) MetadataResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 3..;
        /// The brokers.
        brokers: Vec<MetadataResponseBroker<'a>> = 0..;
        /// The cluster's id.
        cluster_id: Option<Cow<'a, str>> = 2.., nullable 2..;
        /// The broker id that acts as controller, or -1.
        controller_id: i32 = 1.., default -1;
        /// The topics.
        topics: Vec<MetadataResponseTopic<'a>> = 0..;
        /// What the client may do with the cluster; versions 8 to 10.
        cluster_authorized_operations: i32 = 8..=10, default NOT_ASKED;
        /// The error of the whole request, or 0 (KIP-1102).
        error_code: i16 = 13..;
    }

    /// One broker.
    struct MetadataResponseBroker<'a> {
        /// The broker id.
        node_id: i32 = 0..;
        /// The host.
        host: Cow<'a, str> = 0..;
        /// The port.
        port: i32 = 0..;
        /// The rack, if it has one.
        rack: Option<Cow<'a, str>> = 1.., nullable 1..;
    }

    /// One topic.
    struct MetadataResponseTopic<'a> {
        /// The error, or 0.
        error_code: i16 = 0..;
        /// The topic's name; null for an id that nobody knows.
        name: Option<Cow<'a, str>> = 0.., nullable 12..;
        /// The topic's id.
        topic_id: Uuid = 10..;
        /// Whether the topic is the broker's own.
        is_internal: bool = 1..;
        /// The partitions.
        partitions: Vec<MetadataResponsePartition> = 0..;
        /// What the client may do with the topic.
        topic_authorized_operations: i32 = 8.., default NOT_ASKED;
    }

    /// One partition.
    struct MetadataResponsePartition {
        /// The error, or 0.
        error_code: i16 = 0..;
        /// The partition.
        partition_index: i32 = 0..;
        /// The leader's broker id, or -1.
        leader_id: i32 = 0..;
        /// The leader epoch.
        leader_epoch: i32 = 7.., default -1;
        /// The brokers that have the partition.
        replica_nodes: Vec<i32> = 0..;
        /// Those of them that are in sync.
        isr_nodes: Vec<i32> = 0..;
        /// Those of them that are offline.
        offline_replicas: Vec<i32> = 5..;
    }
}
