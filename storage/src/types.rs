//! The words that storage and the rooms above it share: offsets, epochs, ids, time. Plain values that
//! live on any core and know nothing.

use std::fmt;

/// Position of a record in its partition. Counts from 0; `offset_end` values are exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

/// Which leadership of a partition a batch was written under. Starts at 0 and never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderEpoch(pub i32);

/// A data core of this broker; counts from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u16);

/// Identifies a topic for ever, across deletions and re-creations of its name (KIP-516).
pub type TopicId = uuid::Uuid;

/// A partition's index within its topic; counts from 0.
pub type PartitionIndex = i32;

/// Time as a state machine sees it: passed in with every event, never read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, for sessions and time-outs, in microseconds from an arbitrary start.
    pub monotonic_us: u64,
    /// Wall clock, for timestamps and retention, in milliseconds since 1970 (UTC).
    pub wall_ms: i64,
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for CoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
