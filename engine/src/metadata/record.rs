//! The records of the metadata log: their keys, by which the log is compacted, and their values, as JSON.
//! Plain data on any core; it knows no log and no state.

use serde::{Deserialize, Serialize};
use storage::types::TopicId;

use crate::config::ConfigMap;

/// What a set of configurations belongs to; the number is Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKind {
    /// A topic.
    Topic = 2,
    /// A broker, or (with an empty name) all of them.
    Broker = 4,
    /// A broker's log levels.
    BrokerLogger = 8,
    /// A client metrics subscription.
    ClientMetrics = 16,
    /// A group.
    Group = 32,
}

impl ResourceKind {
    /// Kafka's number of this kind.
    pub fn code(self) -> i8 {
        self as i8
    }

    /// The kind with this number.
    pub fn of_code(code: i8) -> Option<Self> {
        [
            Self::Topic,
            Self::Broker,
            Self::BrokerLogger,
            Self::ClientMetrics,
            Self::Group,
        ]
        .into_iter()
        .find(|kind| kind.code() == code)
    }
}

/// Some partitions of a topic that were created together, with consecutive indexes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRun {
    /// How many.
    pub count: i32,
    /// How often the broker had started when they were created.
    pub created_at_start: i32,
    /// The brokers that hold them, the preferred leader first.
    pub replicas: Vec<i32>,
}

/// One change of the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataRecord {
    /// The broker has started this many times.
    Start {
        /// Starts so far, this one included.
        count: i32,
    },
    /// Producer ids below this one are given away.
    ProducerIds {
        /// The first id that is free.
        next: i64,
    },
    /// A topic exists, with these partitions.
    Topic {
        /// Its id.
        id: TopicId,
        /// Its name.
        name: String,
        /// Its partitions, from index 0.
        partitions: Vec<PartitionRun>,
    },
    /// A topic is gone.
    TopicDeleted {
        /// Its id.
        id: TopicId,
    },
    /// All settings that a resource has of its own; none removes it.
    Configs {
        /// What the resource is.
        kind: ResourceKind,
        /// Its name.
        name: String,
        /// Its settings.
        configs: ConfigMap,
    },
}

/// A record as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord {
    /// By which the log is compacted.
    pub key: Vec<u8>,
    /// `None` removes what the key names.
    pub value: Option<Vec<u8>>,
}

/// Why a stored record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// The key or the value is not what this version of the broker writes.
    Malformed(String),
    /// The value is of a later version.
    Version(u16),
}

impl std::fmt::Display for RecordError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RecordError::Malformed(why) => write!(f, "malformed metadata record: {why}"),
            RecordError::Version(version) => {
                write!(
                    f,
                    "metadata record of version {version}, which this broker does not know"
                )
            }
        }
    }
}

impl std::error::Error for RecordError {}

/// Version of the values below. It rises when a reader of the former version would misread one.
const VERSION: u16 = 0;

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Key<'a> {
    Start,
    ProducerIds,
    Topic {
        id: TopicText,
    },
    Configs {
        kind: ResourceKind,
        name: std::borrow::Cow<'a, str>,
    },
}

/// A topic id as text; uuid's own serde support is not compiled in.
type TopicText = String;

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u16,
    #[serde(flatten)]
    body: T,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u16,
}

#[derive(Serialize, Deserialize)]
struct StartValue {
    count: i32,
}

#[derive(Serialize, Deserialize)]
struct ProducerIdsValue {
    next: i64,
}

#[derive(Serialize, Deserialize)]
struct TopicValue {
    name: String,
    partitions: Vec<PartitionRun>,
}

#[derive(Serialize, Deserialize)]
struct ConfigsValue {
    configs: ConfigMap,
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("these types have nothing that JSON cannot say")
}

fn value<T: Serialize>(body: T) -> Option<Vec<u8>> {
    Some(json(&Versioned {
        version: VERSION,
        body,
    }))
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, RecordError> {
    serde_json::from_slice(bytes).map_err(|error| RecordError::Malformed(error.to_string()))
}

fn read_value<T: for<'a> Deserialize<'a>>(bytes: Option<&[u8]>) -> Result<T, RecordError> {
    let bytes = bytes.ok_or_else(|| RecordError::Malformed("no value".to_owned()))?;
    let VersionOnly { version } = read(bytes)?;
    if version != VERSION {
        return Err(RecordError::Version(version));
    }
    read::<Versioned<T>>(bytes).map(|versioned| versioned.body)
}

impl MetadataRecord {
    /// The record as the log keeps it.
    pub fn encode(&self) -> RawRecord {
        match self {
            MetadataRecord::Start { count } => RawRecord {
                key: json(&Key::Start),
                value: value(StartValue { count: *count }),
            },
            MetadataRecord::ProducerIds { next } => RawRecord {
                key: json(&Key::ProducerIds),
                value: value(ProducerIdsValue { next: *next }),
            },
            MetadataRecord::Topic {
                id,
                name,
                partitions,
            } => RawRecord {
                key: json(&Key::Topic { id: id.to_string() }),
                value: value(TopicValue {
                    name: name.clone(),
                    partitions: partitions.clone(),
                }),
            },
            MetadataRecord::TopicDeleted { id } => RawRecord {
                key: json(&Key::Topic { id: id.to_string() }),
                value: None,
            },
            MetadataRecord::Configs {
                kind,
                name,
                configs,
            } => RawRecord {
                key: json(&Key::Configs {
                    kind: *kind,
                    name: name.into(),
                }),
                value: if configs.is_empty() {
                    None
                } else {
                    value(ConfigsValue {
                        configs: configs.clone(),
                    })
                },
            },
        }
    }

    /// The record that the log keeps as this key and value.
    ///
    /// # Errors
    /// It is not one that this version writes.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Self, RecordError> {
        match read::<Key<'_>>(key)? {
            Key::Start => {
                read_value(value).map(|StartValue { count }| MetadataRecord::Start { count })
            }
            Key::ProducerIds => read_value(value)
                .map(|ProducerIdsValue { next }| MetadataRecord::ProducerIds { next }),
            Key::Topic { id } => {
                let id = id
                    .parse()
                    .map_err(|_| RecordError::Malformed(format!("'{id}' is no topic id")))?;
                if value.is_none() {
                    return Ok(MetadataRecord::TopicDeleted { id });
                }
                let TopicValue { name, partitions } = read_value(value)?;
                if partitions.is_empty() || partitions.iter().any(|run| run.count < 1) {
                    return Err(RecordError::Malformed(format!(
                        "topic {name} has no partitions"
                    )));
                }
                Ok(MetadataRecord::Topic {
                    id,
                    name,
                    partitions,
                })
            }
            Key::Configs { kind, name } => {
                let configs = match value {
                    None => ConfigMap::new(),
                    Some(_) => read_value::<ConfigsValue>(value)?.configs,
                };
                Ok(MetadataRecord::Configs {
                    kind,
                    name: name.into_owned(),
                    configs,
                })
            }
        }
    }
}
