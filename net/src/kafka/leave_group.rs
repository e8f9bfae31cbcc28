//! LeaveGroup: members leave a classic group (key 13). Lives on the core of the connection; knows only
//! the form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Asks to take members out of a group.
    request(LeaveGroup) LeaveGroupRequest<'a> {
        /// The group.
        group_id: Cow<'a, str> = 0..;
        /// The member's id, up to version 2.
        member_id: Cow<'a, str> = 0..=2;
        /// The members, from version 3 (KIP-345).
        members: Vec<MemberIdentity<'a>> = 3..;
    }

    /// One member.
    struct MemberIdentity<'a> {
        /// Its id; may be empty if it is static.
        member_id: Cow<'a, str> = 3..;
        /// Its name, if static.
        group_instance_id: Option<Cow<'a, str>> = 3.., nullable 3..;
        /// Why it leaves (KIP-800).
        reason: Option<Cow<'a, str>> = 5.., nullable 5..;
    }

    /// Says who is out.
    response(LeaveGroup) LeaveGroupResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 1..;
        /// The error of the whole request, or 0.
        error_code: i16 = 0..;
        /// The members, from version 3.
        members: Vec<MemberResponse<'a>> = 3..;
    }

    /// The outcome for one member.
    struct MemberResponse<'a> {
        /// Its id.
        member_id: Cow<'a, str> = 3..;
        /// Its name, if static.
        group_instance_id: Option<Cow<'a, str>> = 3.., nullable 3..;
        /// The error, or 0.
        error_code: i16 = 3..;
    }
}
