//! ListConfigResources: the resources that have configs (key 74, KIP-1142). Lives on the core of the
//! connection; knows only the form on the wire.

use std::borrow::Cow;

use super::message::message;

/// The kind "client metrics": what version 0 lists.
const CLIENT_METRICS: i8 = 16;

message! {
    /// Asks for resources.
    request(ListConfigResources) ListConfigResourcesRequest {
        /// The kinds wanted; none for all. Version 0 always means client metrics.
        resource_types: Vec<i8> = 1..;
    }

    /// Brings resources.
    response(ListConfigResources) ListConfigResourcesResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 0..;
        /// The error, or 0.
        error_code: i16 = 0..;
        /// The resources.
        config_resources: Vec<ConfigResource<'a>> = 0..;
    }

    /// One resource.
    struct ConfigResource<'a> {
        /// Its name.
        resource_name: Cow<'a, str> = 0..;
        /// Its kind, as in DescribeConfigs.
        resource_type: i8 = 1.., default CLIENT_METRICS;
    }
}
