//! JoinGroup: a member enters a classic group (key 11). Lives on the core of the connection; knows only
//! the form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Asks to enter a group.
    request(JoinGroup) JoinGroupRequest<'a> {
        /// The group.
        group_id: Cow<'a, str> = 0..;
        /// After which silence the member counts as dead, in milliseconds.
        session_timeout_ms: i32 = 0..;
        /// How long to wait for members in a rebalance, in milliseconds; -1 before version 1, which
        /// means the session timeout.
        rebalance_timeout_ms: i32 = 1.., default -1;
        /// The member id; empty at first.
        member_id: Cow<'a, str> = 0..;
        /// The name of a static member (KIP-345).
        group_instance_id: Option<Cow<'a, str>> = 5.., nullable 5..;
        /// What kind of group it is: "consumer", "connect".
        protocol_type: Cow<'a, str> = 0..;
        /// The protocols that the member knows, the one it likes best first.
        protocols: Vec<JoinGroupRequestProtocol<'a>> = 0..;
        /// Why the member joins (KIP-800).
        reason: Option<Cow<'a, str>> = 8.., nullable 8..;
    }

    /// One protocol of a member.
    struct JoinGroupRequestProtocol<'a> {
        /// The protocol's name.
        name: Cow<'a, str> = 0..;
        /// What the member tells the others in it.
        metadata: Cow<'a, [u8]> = 0..;
    }

    /// Says that a generation has begun.
    response(JoinGroup) JoinGroupResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 2..;
        /// The error, or 0.
        error_code: i16 = 0..;
        /// The generation.
        generation_id: i32 = 0.., default -1;
        /// The kind of group (KIP-559).
        protocol_type: Option<Cow<'a, str>> = 7.., nullable 7..;
        /// The protocol chosen; before version 7 null is written as "".
        protocol_name: Option<Cow<'a, str>> = 0.., nullable 7..;
        /// The leader's member id.
        leader: Cow<'a, str> = 0..;
        /// Whether the leader need not assign (KIP-814).
        skip_assignment: bool = 9..;
        /// The member's id.
        member_id: Cow<'a, str> = 0..;
        /// All members, for the leader only.
        members: Vec<JoinGroupResponseMember<'a>> = 0..;
    }

    /// One member.
    struct JoinGroupResponseMember<'a> {
        /// Its id.
        member_id: Cow<'a, str> = 0..;
        /// Its name, if static.
        group_instance_id: Option<Cow<'a, str>> = 5.., nullable 5..;
        /// What it tells in the chosen protocol.
        metadata: Cow<'a, [u8]> = 0..;
    }
}
