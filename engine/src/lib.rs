//! What a broker knows: shards, partitions, groups, metadata, limits; one behaviour file per Kafka API.
//! Lives on the data cores and the control thread; it touches sockets and files only through its core loop.

#![forbid(unsafe_code)]

pub mod admission;
pub mod api;
mod append;
pub mod boot;
mod calls;
pub mod config;
mod connection;
pub mod connection_limits;
pub mod control;
mod controller;
mod coordinator;
pub mod core_io;
pub mod core_loop;
pub mod event;
mod fetch_session;
pub mod group;
mod ids;
mod journal_io;
pub mod limits;
pub mod mesh;
pub mod mesh_link;
pub mod metadata;
pub mod metrics;
mod native;
pub mod outstanding;
mod partition;
mod reading;
pub mod ring_disk;
mod room;
mod serve;
pub mod shard;
pub mod start;
mod sync;
pub mod task_queue;
mod unix_socket;
mod walk_task;
