//! Heartbeat: a member of a classic group is alive (key 12). Lives on the core of the connection; knows
//! only the form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Says that the member is alive.
    request(Heartbeat) HeartbeatRequest<'a> {
        /// The group.
        group_id: Cow<'a, str> = 0..;
        /// The generation.
        generation_id: i32 = 0..;
        /// The member's id.
        member_id: Cow<'a, str> = 0..;
        /// Its name, if static.
        group_instance_id: Option<Cow<'a, str>> = 3.., nullable 3..;
    }

    /// Says whether the generation goes on.
    response(Heartbeat) HeartbeatResponse {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 1..;
        /// The error, or 0.
        error_code: i16 = 0..;
    }
}
