//! Bytes on disk: record batches, journal, segments, indexes, recovery, compaction. Lives on the core
//! that owns the partitions; knows no network, no topic metadata, no consumer group.
#![forbid(unsafe_code)]

pub mod batch;
pub mod blocking_disk;
pub mod builder;
mod checkpoint;
mod clean_task;
pub mod compact;
pub mod compression;
pub mod crc;
pub mod disk;
pub mod dump;
pub mod index;
mod index_task;
mod journal;
pub mod leader_epochs;
pub mod open_files;
pub mod producer_state;
mod read_task;
pub mod recompress;
pub mod records;
pub mod recovery;
mod reference;
mod segment;
mod segment_writer;
pub mod sim;
pub mod sim_disk;
mod space;
pub mod store;
mod tasks;
pub mod types;
pub mod walk;
