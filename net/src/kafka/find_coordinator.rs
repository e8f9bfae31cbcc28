//! FindCoordinator: which broker coordinates a group (key 10). Lives on the core of the connection; knows
//! only the form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Asks for coordinators.
    request(FindCoordinator) FindCoordinatorRequest<'a> {
        /// The group or transactional id, up to version 3.
        key: Cow<'a, str> = 0..=3;
        /// What the key is: 0 a group, 1 a transactional id, 2 a share group.
        key_type: i8 = 1..;
        /// The keys, from version 4 (KIP-699).
        coordinator_keys: Vec<Cow<'a, str>> = 4..;
    }

    /// Says which brokers coordinate.
    response(FindCoordinator) FindCoordinatorResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 1..;
        /// The error, or 0; up to version 3, like what follows.
        error_code: i16 = 0..=3;
        /// What is wrong, in words.
        error_message: Option<Cow<'a, str>> = 1..=3, nullable 1..=3;
        /// The broker id.
        node_id: i32 = 0..=3;
        /// The host.
        host: Cow<'a, str> = 0..=3;
        /// The port.
        port: i32 = 0..=3;
        /// One coordinator for each key, from version 4.
        coordinators: Vec<Coordinator<'a>> = 4..;
    }

    /// The coordinator of one key.
    struct Coordinator<'a> {
        /// The key.
        key: Cow<'a, str> = 4..;
        /// The broker id.
        node_id: i32 = 4..;
        /// The host.
        host: Cow<'a, str> = 4..;
        /// The port.
        port: i32 = 4..;
        /// The error, or 0.
        error_code: i16 = 4..;
        /// What is wrong, in words.
        error_message: Option<Cow<'a, str>> = 4.., nullable 4..;
    }
}
