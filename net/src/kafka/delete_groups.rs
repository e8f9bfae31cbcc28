//! DeleteGroups: groups to remove (key 42, KIP-229). Lives on the core of the connection; knows only the
//! form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Asks to delete groups.
    request(DeleteGroups) DeleteGroupsRequest<'a> {
        /// The groups.
        groups_names: Vec<Cow<'a, str>> = 0..;
    }

    /// Says which groups are gone.
    response(DeleteGroups) DeleteGroupsResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 0..;
        /// The groups.
        results: Vec<DeletableGroupResult<'a>> = 0..;
    }

    /// The outcome for one group.
    struct DeletableGroupResult<'a> {
        /// The group.
        group_id: Cow<'a, str> = 0..;
        /// The error, or 0.
        error_code: i16 = 0..;
    }
}
