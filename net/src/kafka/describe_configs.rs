//! DescribeConfigs: configs with their sources (key 32). Lives on the core of the connection; knows only
//! the form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Asks for configs.
    request(DescribeConfigs) DescribeConfigsRequest<'a> {
        /// Whose configs.
        resources: Vec<DescribeConfigsResource<'a>> = 0..;
        /// Whether to tell where each value could come from.
        include_synonyms: bool = 1..;
        /// Whether to explain each config.
        include_documentation: bool = 3..;
    }

    /// One resource to describe.
    struct DescribeConfigsResource<'a> {
        /// Its kind: 2 a topic, 4 a broker, 8 a broker's loggers, 16 client metrics, 32 a group.
        resource_type: i8 = 0..;
        /// Its name.
        resource_name: Cow<'a, str> = 0..;
        /// The configs wanted; null for all.
        configuration_keys: Option<Vec<Cow<'a, str>>> = 0.., nullable 0..;
    }

    /// Brings configs.
    response(DescribeConfigs) DescribeConfigsResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 0..;
        /// The resources.
        results: Vec<DescribeConfigsResult<'a>> = 0..;
    }

    /// The configs of one resource.
    struct DescribeConfigsResult<'a> {
        /// The error, or 0.
        error_code: i16 = 0..;
        /// What is wrong, in words.
        error_message: Option<Cow<'a, str>> = 0.., nullable 0..;
        /// The resource's kind.
        resource_type: i8 = 0..;
        /// The resource's name.
        resource_name: Cow<'a, str> = 0..;
        /// The configs.
        configs: Vec<DescribeConfigsResourceResult<'a>> = 0..;
    }

    /// One config.
    struct DescribeConfigsResourceResult<'a> {
        /// The config's name.
        name: Cow<'a, str> = 0..;
        /// Its value; null if secret or unset.
        value: Option<Cow<'a, str>> = 0.., nullable 0..;
        /// Whether it cannot be changed.
        read_only: bool = 0..;
        /// Where the value comes from.
        config_source: i8 = 1.., default -1;
        /// Whether it is secret.
        is_sensitive: bool = 0..;
        /// The places its value could come from, the one that counts first.
        synonyms: Vec<DescribeConfigsSynonym<'a>> = 1..;
        /// The type of its value.
        config_type: i8 = 3..;
        /// What it means.
        documentation: Option<Cow<'a, str>> = 3.., nullable 0..;
    }

    /// One place a value could come from.
    struct DescribeConfigsSynonym<'a> {
        /// The config's name there.
        name: Cow<'a, str> = 1..;
        /// Its value there.
        value: Option<Cow<'a, str>> = 1.., nullable 0..;
        /// The place.
        source: i8 = 1..;
    }
}
