//! DeleteTopics: topics to remove (key 20). Lives on the core of the connection; knows only the form on
//! the wire.

use std::borrow::Cow;

use uuid::Uuid;

use super::message::message;

message! {
    /// Asks to delete topics.
    request(DeleteTopics) DeleteTopicsRequest<'a> {
        /// The topics by name or id, from version 6.
        topics: Vec<DeleteTopicState<'a>> = 6..;
        /// The topics by name, up to version 5.
        topic_names: Vec<Cow<'a, str>> = 0..=5;
        /// How long to wait until they are gone, in milliseconds.
        timeout_ms: i32 = 0..;
    }

    /// One topic to delete.
    struct DeleteTopicState<'a> {
        /// The topic's name, or null when the id says it.
        name: Option<Cow<'a, str>> = 6.., nullable 6..;
        /// The topic's id, or zero.
        topic_id: Uuid = 6..;
    }

    /// Says which topics are gone.
    response(DeleteTopics) DeleteTopicsResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 1..;
        /// The topics.
        responses: Vec<DeletableTopicResult<'a>> = 0..;
    }

    /// The outcome for one topic.
    struct DeletableTopicResult<'a> {
        /// The topic's name; null for an id that nobody knows.
        name: Option<Cow<'a, str>> = 0.., nullable 6..;
        /// The topic's id.
        topic_id: Uuid = 6..;
        /// The error, or 0.
        error_code: i16 = 0..;
        /// What is wrong, in words.
        error_message: Option<Cow<'a, str>> = 5.., nullable 5..;
    }
}
