//! ListGroups: the groups that a broker coordinates (key 16). Lives on the core of the connection; knows
//! only the form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Asks for groups.
    request(ListGroups) ListGroupsRequest<'a> {
        /// The states wanted, by name; none for all (KIP-518).
        states_filter: Vec<Cow<'a, str>> = 4..;
        /// The types wanted, by name; none for all (KIP-848).
        types_filter: Vec<Cow<'a, str>> = 5..;
    }

    /// Brings groups.
    response(ListGroups) ListGroupsResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 1..;
        /// The error, or 0.
        error_code: i16 = 0..;
        /// The groups.
        groups: Vec<ListedGroup<'a>> = 0..;
    }

    /// One group.
    struct ListedGroup<'a> {
        /// The group.
        group_id: Cow<'a, str> = 0..;
        /// The kind of group.
        protocol_type: Cow<'a, str> = 0..;
        /// Its state, by name.
        group_state: Cow<'a, str> = 4..;
        /// Its type, by name.
        group_type: Cow<'a, str> = 5..;
    }
}
