//! Bytes on disk: record batches, journal, segments, indexes, recovery, compaction. Lives on the core
//! that owns the partitions; knows no network, no topic metadata, no consumer group.
#![forbid(unsafe_code)]

pub mod disk;
pub mod types;
