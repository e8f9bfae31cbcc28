//! DescribeGroups: classic groups and their members (key 15). Lives on the core of the connection; knows
//! only the form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Asks about groups.
    request(DescribeGroups) DescribeGroupsRequest<'a> {
        /// The groups.
        groups: Vec<Cow<'a, str>> = 0..;
        /// Whether to say what the client may do with each.
        include_authorized_operations: bool = 3..;
    }

    /// Tells about groups.
    response(DescribeGroups) DescribeGroupsResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 1..;
        /// The groups.
        groups: Vec<DescribedGroup<'a>> = 0..;
    }

    /// One group.
    struct DescribedGroup<'a> {
        /// The error, or 0.
        error_code: i16 = 0..;
        /// What is wrong, in words (KIP-1043).
        error_message: Option<Cow<'a, str>> = 6.., nullable 6..;
        /// The group.
        group_id: Cow<'a, str> = 0..;
        /// Its state, by name.
        group_state: Cow<'a, str> = 0..;
        /// The kind of group.
        protocol_type: Cow<'a, str> = 0..;
        /// The protocol chosen.
        protocol_data: Cow<'a, str> = 0..;
        /// The members.
        members: Vec<DescribedGroupMember<'a>> = 0..;
        /// What the client may do with the group.
        authorized_operations: i32 = 3.., default i32::MIN;
    }

    /// One member.
    struct DescribedGroupMember<'a> {
        /// Its id.
        member_id: Cow<'a, str> = 0..;
        /// Its name, if static.
        group_instance_id: Option<Cow<'a, str>> = 4.., nullable 4..;
        /// Its client id.
        client_id: Cow<'a, str> = 0..;
        /// Where it comes from.
        client_host: Cow<'a, str> = 0..;
        /// What it tells in the chosen protocol.
        member_metadata: Cow<'a, [u8]> = 0..;
        /// What it got.
        member_assignment: Cow<'a, [u8]> = 0..;
    }
}
