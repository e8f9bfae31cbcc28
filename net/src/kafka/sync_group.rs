//! SyncGroup: the leader hands out the assignment, members get theirs (key 14). Lives on the core of the
//! connection; knows only the form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Asks for the member's assignment.
    request(SyncGroup) SyncGroupRequest<'a> {
        /// The group.
        group_id: Cow<'a, str> = 0..;
        /// The generation.
        generation_id: i32 = 0..;
        /// The member's id.
        member_id: Cow<'a, str> = 0..;
        /// Its name, if static.
        group_instance_id: Option<Cow<'a, str>> = 3.., nullable 3..;
        /// The kind of group (KIP-559).
        protocol_type: Option<Cow<'a, str>> = 5.., nullable 5..;
        /// The protocol chosen.
        protocol_name: Option<Cow<'a, str>> = 5.., nullable 5..;
        /// Everybody's assignment, from the leader only.
        assignments: Vec<SyncGroupRequestAssignment<'a>> = 0..;
    }

    /// One member's assignment.
    struct SyncGroupRequestAssignment<'a> {
        /// The member's id.
        member_id: Cow<'a, str> = 0..;
        /// What it gets.
        assignment: Cow<'a, [u8]> = 0..;
    }

    /// Brings the member's assignment.
    response(SyncGroup) SyncGroupResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 1..;
        /// The error, or 0.
        error_code: i16 = 0..;
        /// The kind of group.
        protocol_type: Option<Cow<'a, str>> = 5.., nullable 5..;
        /// The protocol chosen.
        protocol_name: Option<Cow<'a, str>> = 5.., nullable 5..;
        /// What the member gets.
        assignment: Cow<'a, [u8]> = 0..;
    }
}
