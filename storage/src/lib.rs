//! Bytes on disk: record batches, journal, segments, indexes, recovery, compaction. Lives on the core
//! that owns the partitions; knows no network, no topic metadata, no consumer group.
#![forbid(unsafe_code)]

pub mod batch;
pub mod builder;
pub mod compact;
pub mod compression;
pub mod crc;
pub mod disk;
pub mod dump;
pub mod index;
pub mod leader_epochs;
pub mod producer_state;
pub mod records;
pub mod types;
pub mod walk;
