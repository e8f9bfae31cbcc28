//! What a broker knows: shards, partitions, groups, metadata, limits; one behaviour file per Kafka API.
//! Lives on the data cores and the control thread; it touches sockets and files only through its core loop.

#![forbid(unsafe_code)]

pub mod admission;
pub mod config;
pub mod group;
pub mod mesh_link;
pub mod metadata;
pub mod metrics;
pub mod ring_disk;
