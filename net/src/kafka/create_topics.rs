//! CreateTopics: new topics (key 19). Lives on the core of the connection; knows only the form on the
//! wire.

use std::borrow::Cow;

use uuid::Uuid;

use super::message::message;

message! {
    /// Asks for new topics.
    request(CreateTopics) CreateTopicsRequest<'a> {
        /// The topics.
        topics: Vec<CreatableTopic<'a>> = 0..;
        /// How long to wait until they exist, in milliseconds.
        timeout_ms: i32 = 0.., default 60_000;
        /// Whether only to check.
        validate_only: bool = 1..;
    }

    /// One topic to create.
    struct CreatableTopic<'a> {
        /// The topic's name.
        name: Cow<'a, str> = 0..;
        /// How many partitions; -1 for the broker's default, or when they are assigned by hand.
        num_partitions: i32 = 0..;
        /// How many replicas of each; -1 as above.
        replication_factor: i16 = 0..;
        /// Partitions assigned by hand.
        assignments: Vec<CreatableReplicaAssignment> = 0..;
        /// The topic's own configs.
        configs: Vec<CreatableTopicConfig<'a>> = 0..;
    }

    /// The replicas of one partition.
    struct CreatableReplicaAssignment {
        /// The partition.
        partition_index: i32 = 0..;
        /// The brokers, the preferred leader first.
        broker_ids: Vec<i32> = 0..;
    }

    /// One config of a topic to create.
    struct CreatableTopicConfig<'a> {
        /// The config's name.
        name: Cow<'a, str> = 0..;
        /// Its value.
        value: Option<Cow<'a, str>> = 0.., nullable 0..;
    }

    /// Says which topics exist now.
    response(CreateTopics) CreateTopicsResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 2..;
        /// The topics.
        topics: Vec<CreatableTopicResult<'a>> = 0..;
    }

    /// The outcome for one topic.
    struct CreatableTopicResult<'a> {
        /// The topic's name.
        name: Cow<'a, str> = 0..;
        /// The topic's id.
        topic_id: Uuid = 7..;
        /// The error, or 0.
        error_code: i16 = 0..;
        /// What is wrong, in words.
        error_message: Option<Cow<'a, str>> = 1.., nullable 0..;
        /// Why the configs are not shown, or 0 (KIP-525).
        topic_config_error_code: i16 = 5.., tag 0;
        /// How many partitions the topic has, or -1.
        num_partitions: i32 = 5.., default -1;
        /// How many replicas each has, or -1.
        replication_factor: i16 = 5.., default -1;
        /// All configs of the topic.
        configs: Option<Vec<CreatableTopicConfigs<'a>>> = 5.., nullable 5..;
    }

    /// One config of a created topic.
    struct CreatableTopicConfigs<'a> {
        /// The config's name.
        name: Cow<'a, str> = 5..;
        /// Its value.
        value: Option<Cow<'a, str>> = 5.., nullable 5..;
        /// Whether it cannot be changed.
        read_only: bool = 5..;
        /// Where its value comes from.
        config_source: i8 = 5.., default -1;
        /// Whether it is secret.
        is_sensitive: bool = 5..;
    }
}
