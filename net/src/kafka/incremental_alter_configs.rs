//! IncrementalAlterConfigs: changes single configs of resources (key 44, KIP-339). Lives on the core of
//! the connection; knows only the form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Asks to change configs.
    request(IncrementalAlterConfigs) IncrementalAlterConfigsRequest<'a> {
        /// Whose configs.
        resources: Vec<AlterConfigsResource<'a>> = 0..;
        /// Whether only to check.
        validate_only: bool = 0..;
    }

    /// One resource to change.
    struct AlterConfigsResource<'a> {
        /// Its kind, as in DescribeConfigs.
        resource_type: i8 = 0..;
        /// Its name.
        resource_name: Cow<'a, str> = 0..;
        /// The changes.
        configs: Vec<AlterableConfig<'a>> = 0..;
    }

    /// One change.
    struct AlterableConfig<'a> {
        /// The config's name.
        name: Cow<'a, str> = 0..;
        /// What to do: 0 set, 1 delete, 2 append to a list, 3 subtract from a list.
        config_operation: i8 = 0..;
        /// The value.
        value: Option<Cow<'a, str>> = 0.., nullable 0..;
    }

    /// Says what was changed.
    response(IncrementalAlterConfigs) IncrementalAlterConfigsResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 0..;
        /// The resources.
        responses: Vec<AlterConfigsResourceResponse<'a>> = 0..;
    }

    /// The outcome for one resource.
    struct AlterConfigsResourceResponse<'a> {
        /// The error, or 0.
        error_code: i16 = 0..;
        /// What is wrong, in words.
        error_message: Option<Cow<'a, str>> = 0.., nullable 0..;
        /// The resource's kind.
        resource_type: i8 = 0..;
        /// The resource's name.
        resource_name: Cow<'a, str> = 0..;
    }
}
