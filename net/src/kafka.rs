//! The messages of the Kafka protocol and their framing: which APIs there are, in which versions, and
//! the headers before them. Lives on whichever core holds the frame; knows no partition and no group.

pub mod alter_configs;
pub mod api_versions;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_topic_partitions;
pub mod error;
pub mod fetch;
pub mod find_coordinator;
mod header;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
mod key;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
mod message;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
mod request;
pub mod sync_group;
#[cfg(test)]
mod tests;

pub use header::{
    HeaderError, RequestHeader, ResponseHeader, decode_header, header_version,
    response_header_version,
};
pub use key::{Api, ApiKey, SUPPORTED};
pub use request::{Request, decode_any};
