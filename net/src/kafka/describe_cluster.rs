//! DescribeCluster: the brokers and the controller (key 60, KIP-700). Lives on the core of the
//! connection; knows only the form on the wire.

use std::borrow::Cow;

use super::message::message;

/// The endpoint type "brokers"; controllers are 2 (KIP-919).
const BROKERS: i8 = 1;

message! {
    /// Asks for the cluster.
    request(DescribeCluster) DescribeClusterRequest {
        /// Whether to say what the client may do with the cluster.
        include_cluster_authorized_operations: bool = 0..;
        /// Which endpoints: 1 brokers, 2 controllers.
        endpoint_type: i8 = 1.., default BROKERS;
        /// Whether to list fenced brokers (KIP-1073).
        include_fenced_brokers: bool = 2..;
    }

    /// Brings the cluster.
    response(DescribeCluster) DescribeClusterResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 0..;
        /// The error, or 0.
        error_code: i16 = 0..;
        /// What is wrong, in words.
        error_message: Option<Cow<'a, str>> = 0.., nullable 0..;
        /// Which endpoints these are.
        endpoint_type: i8 = 1.., default BROKERS;
        /// The cluster's id.
        cluster_id: Cow<'a, str> = 0..;
        /// The broker id that acts as controller, or -1.
        controller_id: i32 = 0.., default -1;
        /// The brokers.
        brokers: Vec<DescribeClusterBroker<'a>> = 0..;
        /// What the client may do with the cluster.
        cluster_authorized_operations: i32 = 0.., default i32::MIN;
    }

    /// One broker.
    struct DescribeClusterBroker<'a> {
        /// The broker id.
        broker_id: i32 = 0..;
        /// The host.
        host: Cow<'a, str> = 0..;
        /// The port.
        port: i32 = 0..;
        /// The rack, if it has one.
        rack: Option<Cow<'a, str>> = 0.., nullable 0..;
        /// Whether the broker is fenced.
        is_fenced: bool = 2..;
    }
}
