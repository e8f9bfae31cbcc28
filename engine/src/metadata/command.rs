//! What the metadata machine can be asked, and what it answers. Plain data that travels between cores; it
//! knows no wire form.

use net::kafka::error::ErrorCode;
use storage::types::{PartitionIndex, TopicId};

/// What the machine is asked. Ids and everything random are the asker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataCommand {
    /// A core needs producer ids.
    ReserveProducerIds,
    /// Topics are to be created as a client says.
    CreateTopics {
        /// The topics.
        topics: Vec<NewTopic>,
        /// Only tell whether it would work.
        validate_only: bool,
    },
    /// Topics are to be there because someone asked for them: created by the defaults where they are not.
    EnsureTopics {
        /// Their names, and the ids they get if they are new.
        topics: Vec<(String, TopicId)>,
    },
    /// Topics are to be deleted.
    DeleteTopics {
        /// The topics, by name or by id.
        topics: Vec<TopicTarget>,
    },
    /// Topics are to get more partitions.
    CreatePartitions {
        /// The topics.
        topics: Vec<NewPartitions>,
        /// Only tell whether it would work.
        validate_only: bool,
    },
    /// Settings are to change.
    AlterConfigs {
        /// The resources.
        resources: Vec<ConfigChange>,
        /// Only tell whether it would work.
        validate_only: bool,
    },
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// The id that it gets; random.
    pub id: TopicId,
    /// How many partitions; -1 is the broker's default.
    pub partition_count: i32,
    /// How many replicas; -1 is the broker's default.
    pub replication_factor: i16,
    /// Brokers by partition, where the client places them itself.
    pub assignments: Vec<(PartitionIndex, Vec<i32>)>,
    /// Its settings.
    pub configs: Vec<(String, Option<String>)>,
}

/// A topic by name or by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTarget {
    /// Its name.
    pub name: Option<String>,
    /// Its id; nil where it is named.
    pub id: TopicId,
}

/// A topic that is to get more partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPartitions {
    /// Its name.
    pub name: String,
    /// How many partitions it is to have in all.
    pub count: i32,
    /// Brokers of each new one, where the client places them itself.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// A change of a resource's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    /// Kafka's number of the kind of resource.
    pub kind: i8,
    /// The resource's name; empty for all brokers.
    pub name: String,
    /// What is to change.
    pub edit: ConfigEdit,
}

/// How settings change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigEdit {
    /// These become all settings.
    Replace(Vec<(String, Option<String>)>),
    /// These operations, by Kafka's numbers: 0 set, 1 delete, 2 append, 3 subtract (KIP-339).
    Incremental(Vec<(String, i8, Option<String>)>),
}

/// The machine's answer, to be given when the records that came with it are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataReply {
    /// To `ReserveProducerIds`.
    ProducerIds {
        /// The first id of the block.
        first: i64,
        /// How many ids it has.
        count: i32,
    },
    /// To `CreateTopics`: one for each name, also where a name came twice.
    Created(Vec<CreatedTopic>),
    /// To `EnsureTopics`: in the order of the command; the id of the topic that is there now.
    Ensured(Vec<Result<TopicId, Refusal>>),
    /// To `DeleteTopics`: one for each topic.
    Deleted(Vec<DeletedTopic>),
    /// To `CreatePartitions`: one for each name.
    PartitionsCreated(Vec<(String, Result<(), Refusal>)>),
    /// To `AlterConfigs`: in the order of the command.
    ConfigsAltered(Vec<Result<(), Refusal>>),
    /// To any command without parts: it could not be written.
    Failed(ErrorCode),
}

impl MetadataReply {
    /// The answer when what was decided could not be made durable: what would have been done is refused.
    pub fn refused(self, error: ErrorCode) -> MetadataReply {
        fn all<T>(results: Vec<Result<T, Refusal>>, error: ErrorCode) -> Vec<Result<T, Refusal>> {
            results
                .into_iter()
                .map(|result| result.and_then(|_| Err(Refusal::plain(error))))
                .collect()
        }
        match self {
            MetadataReply::Created(results) => MetadataReply::Created(
                results
                    .into_iter()
                    .map(|created| CreatedTopic {
                        result: created.result.and_then(|_| Err(Refusal::plain(error))),
                        ..created
                    })
                    .collect(),
            ),
            MetadataReply::Ensured(results) => MetadataReply::Ensured(all(results, error)),
            MetadataReply::Deleted(results) => MetadataReply::Deleted(
                results
                    .into_iter()
                    .map(|deleted| DeletedTopic {
                        result: deleted.result.and_then(|()| Err(Refusal::plain(error))),
                        ..deleted
                    })
                    .collect(),
            ),
            MetadataReply::PartitionsCreated(results) => MetadataReply::PartitionsCreated(
                results
                    .into_iter()
                    .map(|(name, result)| (name, result.and_then(|()| Err(Refusal::plain(error)))))
                    .collect(),
            ),
            MetadataReply::ConfigsAltered(results) => {
                MetadataReply::ConfigsAltered(all(results, error))
            }
            MetadataReply::ProducerIds { .. } | MetadataReply::Failed(_) => {
                MetadataReply::Failed(error)
            }
        }
    }
}

impl MetadataCommand {
    /// The answer that refuses all of the command.
    pub fn refusal(&self, error: ErrorCode) -> MetadataReply {
        let refusal = || Refusal::plain(error);
        match self {
            MetadataCommand::ReserveProducerIds => MetadataReply::Failed(error),
            MetadataCommand::CreateTopics { topics, .. } => MetadataReply::Created(
                topics
                    .iter()
                    .map(|topic| CreatedTopic {
                        name: topic.name.clone(),
                        result: Err(refusal()),
                    })
                    .collect(),
            ),
            MetadataCommand::EnsureTopics { topics } => {
                MetadataReply::Ensured(topics.iter().map(|_| Err(refusal())).collect())
            }
            MetadataCommand::DeleteTopics { topics } => MetadataReply::Deleted(
                topics
                    .iter()
                    .map(|topic| DeletedTopic {
                        name: topic.name.clone(),
                        id: topic.id,
                        result: Err(refusal()),
                    })
                    .collect(),
            ),
            MetadataCommand::CreatePartitions { topics, .. } => MetadataReply::PartitionsCreated(
                topics
                    .iter()
                    .map(|topic| (topic.name.clone(), Err(refusal())))
                    .collect(),
            ),
            MetadataCommand::AlterConfigs { resources, .. } => {
                MetadataReply::ConfigsAltered(resources.iter().map(|_| Err(refusal())).collect())
            }
        }
    }
}

/// What became of a topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its name.
    pub name: String,
    /// The topic, or why there is none.
    pub result: Result<TopicShape, Refusal>,
}

/// What a created topic is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicShape {
    /// Its id.
    pub id: TopicId,
    /// How many partitions.
    pub partition_count: i32,
    /// How many replicas.
    pub replication_factor: i16,
    /// Its own settings.
    pub configs: crate::config::ConfigMap,
}

/// What became of a topic to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    /// Its name, where it is known.
    pub name: Option<String>,
    /// Its id, where it is known.
    pub id: TopicId,
    /// Whether it is gone.
    pub result: Result<(), Refusal>,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error for the client.
    pub error: ErrorCode,
    /// Words for the client.
    pub message: Option<String>,
}

impl Refusal {
    /// An error with words of its own.
    pub fn new(error: ErrorCode, message: impl Into<String>) -> Self {
        Refusal {
            error,
            message: Some(message.into()),
        }
    }

    /// An error with the words that always go with it.
    pub fn plain(error: ErrorCode) -> Self {
        Refusal {
            error,
            message: Some(error.message().to_owned()),
        }
    }

    /// An error without words.
    pub fn silent(error: ErrorCode) -> Self {
        Refusal {
            error,
            message: None,
        }
    }
}
