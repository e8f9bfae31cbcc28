//! Metadata of the cluster: topics, configurations, producer ids, starts. A machine of `decide` and `apply`
//! over durable records: core 0 decides, every core applies the same records to its own image. It knows no
//! clock, no random source and no log; a quorum can replicate its records as they are.

pub mod command;
pub mod image;
pub mod record;
mod settings;
#[cfg(test)]
mod tests;
pub mod topics;

pub use command::{MetadataCommand, MetadataReply, Refusal};
pub use image::{MetadataImage, Partition, Topic, is_internal};
pub use record::{MetadataRecord, RawRecord, ResourceKind};

use storage::types::{CoreId, Now, PartitionIndex, TopicId};

/// Id of the partition that keeps the metadata records, the same in every cluster.
pub const METADATA_TOPIC_ID: TopicId = uuid::Uuid::from_u128(1);

/// Name of the topic that keeps the metadata records. It is not among the topics of the image.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// Name of the topic that keeps groups and their offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The core that owns a partition: round-robin from a start that depends on the topic's name, and not on its
/// id. Topics that have the same name one after another want the same directories; as their partitions
/// are on the same cores too, a core's store sees by itself that a name is not free yet.
pub fn core_of(topic: &str, partition: PartitionIndex, cores: u16) -> CoreId {
    core_from(start_of(topic), partition, cores)
}

/// What decides at which core a topic begins.
fn start_of(topic: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(topic.as_bytes())
}

fn core_from(start: u64, partition: PartitionIndex, cores: u16) -> CoreId {
    assert!(cores > 0, "a broker has at least one core");
    let cores = u64::from(cores);
    let partition = u64::try_from(partition).expect("a partition's index is not negative");
    CoreId(((start % cores + partition) % cores) as u16)
}

/// Producer ids that a core gets at a time. What is left of a block at a crash is never given away.
pub const PRODUCER_ID_BLOCK: i32 = 1000;

impl MetadataImage {
    /// What a command changes, and its answer. The records are to be applied at once, so that the next
    /// decision builds on them, and the answer is given when they are durable.
    /// Nothing here depends on the time yet.
    pub fn decide(
        &self,
        _now: Now,
        command: &MetadataCommand,
    ) -> (Vec<MetadataRecord>, MetadataReply) {
        match command {
            MetadataCommand::ReserveProducerIds => {
                let first = self.producer_id_next();
                let next = first + i64::from(PRODUCER_ID_BLOCK);
                (
                    vec![MetadataRecord::ProducerIds { next }],
                    MetadataReply::ProducerIds {
                        first,
                        count: PRODUCER_ID_BLOCK,
                    },
                )
            }
            MetadataCommand::CreateTopics {
                topics,
                validate_only,
            } => {
                let (records, results) = self.decide_create_topics(topics, *validate_only);
                (records, MetadataReply::Created(results))
            }
            MetadataCommand::EnsureTopics { topics } => {
                let (records, results) = self.decide_ensure_topics(topics);
                (records, MetadataReply::Ensured(results))
            }
            MetadataCommand::DeleteTopics { topics } => {
                let (records, results) = self.decide_delete_topics(topics);
                (records, MetadataReply::Deleted(results))
            }
            MetadataCommand::CreatePartitions {
                topics,
                validate_only,
            } => {
                let (records, results) = self.decide_create_partitions(topics, *validate_only);
                (records, MetadataReply::PartitionsCreated(results))
            }
            MetadataCommand::AlterConfigs {
                resources,
                validate_only,
            } => {
                let (records, results) = self.decide_alter_configs(resources, *validate_only);
                (records, MetadataReply::ConfigsAltered(results))
            }
        }
    }
}
