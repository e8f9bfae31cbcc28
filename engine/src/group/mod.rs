//! Consumer groups of the classic protocol. A group lives on the core that owns its partition of
//! `__consumer_offsets`; [`GroupCoordinator`] is the machine of that core. Nothing here knows the wire,
//! a log or a clock: calls and times come in, records to append and answers go out.

mod call;
mod classic;
mod coordinator;
pub mod decoder;
mod member;
mod offsets;
mod random;
mod rebalance;
pub mod records;
mod replay;
pub mod subscription;
mod timers;

pub use call::{
    CommitCall, CommitPartition, CommitTopic, DeleteGroupCall, DeleteOffsetsCall, DescribeAnswer,
    DescribeCall, DescribedMember, FetchOffsetsCall, FetchTopic, FetchedOffset, FetchedTopic,
    GroupAnswer, GroupCall, GroupError, HeartbeatCall, JoinAnswer, JoinCall, JoinedMember,
    LeaveCall, LeavingMember, ListCall, ListedGroup, ReplyToken, SyncAnswer, SyncCall,
};
pub use coordinator::{Append, AppendFailure, GroupConfig, GroupCoordinator, Ticket};

/// Java's `String.hashCode`: over UTF-16 code units, wrapping.
pub fn java_string_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

/// The partition of the offsets topic that holds `group`, of `partition_count` (50 by default).
/// Kafka's absolute value of the smallest integer is 0.
pub fn partition_for(group: &str, partition_count: i32) -> i32 {
    let hash = java_string_hash(group);
    hash.checked_abs().unwrap_or(0) % partition_count
}

#[cfg(test)]
mod tests;
