//! Metadata of the cluster: topics, configurations, producer ids, starts. A machine of `decide` and `apply`
//! over durable records: core 0 decides, every core applies the same records to its own image. It knows no
//! clock, no random source and no log; a quorum can replicate its records as they are.

pub mod image;
pub mod record;

pub use image::{MetadataImage, Partition, Topic};
pub use record::{MetadataRecord, ResourceKind};

use storage::types::{CoreId, PartitionIndex, TopicId};

/// Id of the partition that keeps the metadata records, the same in every cluster.
pub const METADATA_TOPIC_ID: TopicId = uuid::Uuid::from_u128(1);

/// Name of the topic that keeps the metadata records. It is not among the topics of the image.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// Name of the topic that keeps groups and their offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The core that owns a partition: round-robin from a start that depends on the topic.
pub fn core_of(topic_id: TopicId, partition: PartitionIndex, cores: u16) -> CoreId {
    assert!(cores > 0, "a broker has at least one core");
    let cores = u64::from(cores);
    let start = xxhash_rust::xxh3::xxh3_64(topic_id.as_bytes()) % cores;
    let partition = u64::try_from(partition).expect("a partition's index is not negative");
    CoreId(((start + partition) % cores) as u16)
}
