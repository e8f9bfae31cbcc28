//! CreatePartitions: more partitions for topics (key 37). Lives on the core of the connection; knows
//! only the form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Asks for more partitions.
    request(CreatePartitions) CreatePartitionsRequest<'a> {
        /// The topics.
        topics: Vec<CreatePartitionsTopic<'a>> = 0..;
        /// How long to wait until they exist, in milliseconds.
        timeout_ms: i32 = 0..;
        /// Whether only to check.
        validate_only: bool = 0..;
    }

    /// One topic to enlarge.
    struct CreatePartitionsTopic<'a> {
        /// The topic's name.
        name: Cow<'a, str> = 0..;
        /// How many partitions it is to have in all.
        count: i32 = 0..;
        /// Where the new ones go; null if the broker is to choose.
        assignments: Option<Vec<CreatePartitionsAssignment>> = 0.., nullable 0..;
    }

    /// The replicas of one new partition.
    struct CreatePartitionsAssignment {
        /// The brokers, the preferred leader first.
        broker_ids: Vec<i32> = 0..;
    }

    /// Says which topics are larger now.
    response(CreatePartitions) CreatePartitionsResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 0..;
        /// The topics.
        results: Vec<CreatePartitionsTopicResult<'a>> = 0..;
    }

    /// The outcome for one topic.
    struct CreatePartitionsTopicResult<'a> {
        /// The topic's name.
        name: Cow<'a, str> = 0..;
        /// The error, or 0.
        error_code: i16 = 0..;
        /// What is wrong, in words.
        error_message: Option<Cow<'a, str>> = 0.., nullable 0..;
    }
}
