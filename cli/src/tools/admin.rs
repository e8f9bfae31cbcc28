//! What the admin tools ask of a cluster, in the shapes and orders of Java's admin client. Main thread; knows requests, and no tool's output.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bench::context::log_line;
use clap::ArgMatches;
use net::client::{Broker, Client, ClientError, Options, Target, error_of};
use net::kafka::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use net::kafka::describe_topic_partitions::{Cursor, DescribeTopicPartitionsRequest, TopicRequest};
use net::kafka::error::ErrorCode;
use net::kafka::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use net::kafka::metadata::{MetadataRequest, MetadataRequestTopic};
use uuid::Uuid;

use super::args::Found;
use super::{Stop, java, kafka_errors, properties};

/// A topic and a partition of it.
pub type TopicPartition = (String, i32);

/// `topic-partition`, as Kafka prints it.
pub fn show((topic, partition): &TopicPartition) -> String {
    format!("{topic}-{partition}")
}

/// Why an admin call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminError {
    /// The broker's error, if it was one.
    pub code: Option<ErrorCode>,
    /// What the broker answered without an error does not suit the question.
    pub illegal: bool,
    /// The sentence.
    pub message: String,
}

impl AdminError {
    /// The error of a code, with the broker's own sentence if it gave one.
    pub fn new(code: ErrorCode, message: Option<String>) -> AdminError {
        let message = message.unwrap_or_else(|| kafka_errors::message(code).to_owned());
        AdminError {
            code: Some(code),
            illegal: false,
            message,
        }
    }

    /// The error as Java's `toString` of its exception.
    pub fn java(&self) -> String {
        let class = match self.code {
            Some(code) => kafka_errors::class(code),
            None if self.illegal => "java.lang.IllegalArgumentException".to_owned(),
            None => "org.apache.kafka.common.errors.TimeoutException".to_owned(),
        };
        format!("{class}: {}", self.message)
    }
}

impl From<ClientError> for AdminError {
    fn from(error: ClientError) -> AdminError {
        match error {
            ClientError::Refused(code, message) => AdminError::new(code, message),
            ClientError::Unsupported(_) => AdminError {
                code: Some(ErrorCode::UnsupportedVersion),
                illegal: false,
                message: error.to_string(),
            },
            other => AdminError {
                code: None,
                illegal: false,
                message: other.to_string(),
            },
        }
    }
}

/// Turns a response's code into a result.
pub fn check(code: i16, message: Option<Cow<'_, str>>) -> Result<(), AdminError> {
    match error_of(code) {
        ErrorCode::None => Ok(()),
        code => Err(AdminError::new(code, message.map(Cow::into_owned))),
    }
}

/// A topic by name and id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicListing {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: Uuid,
}

/// One partition's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The partition.
    pub partition: i32,
    /// The leader's broker id, if there is a leader.
    pub leader: Option<i32>,
    /// The brokers that have it.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub isr: Vec<i32>,
    /// Those that may lead although not in sync; None when the broker cannot tell.
    pub elr: Option<Vec<i32>>,
    /// The last of those known; None when the broker cannot tell.
    pub last_known_elr: Option<Vec<i32>>,
}

/// A topic with its partitions, which are sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: Uuid,
    /// Its partitions.
    pub partitions: Vec<PartitionInfo>,
}

/// One config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Option<String>,
    /// Where the value comes from, by the protocol's number.
    pub source: i8,
    /// Whether it is secret.
    pub sensitive: bool,
    /// The places its value could come from: source, name, value.
    pub synonyms: Vec<(i8, String, Option<String>)>,
}

/// The kinds of config resources.
pub mod resource {
    /// A topic.
    pub const TOPIC: i8 = 2;
    /// A broker.
    pub const BROKER: i8 = 4;
    /// A broker's loggers.
    pub const BROKER_LOGGER: i8 = 8;
    /// Client metrics.
    pub const CLIENT_METRICS: i8 = 16;
    /// A group.
    pub const GROUP: i8 = 32;
}

/// The admin client.
pub struct Admin {
    /// The client below it.
    pub client: Client,
}

impl Admin {
    /// A client for `--bootstrap-server` and `--command-config`.
    pub fn new(found: &ArgMatches, client_id: &str) -> Result<Admin, Stop> {
        Admin::with_config(&Admin::config(found)?, client_id, None)
    }

    /// The Java properties that `--bootstrap-server` and `--command-config` say.
    pub fn config(found: &ArgMatches) -> Result<BTreeMap<String, String>, Stop> {
        let mut config = match found.text("command-config") {
            Some(path) => properties::load(path)?,
            None => BTreeMap::new(),
        };
        if let Some(servers) = found.text("bootstrap-server") {
            config.insert("bootstrap.servers".to_owned(), servers.to_owned());
        }
        Ok(config)
    }

    /// A client with these Java properties; `call_timeout_ms` wins over what they say.
    pub fn with_config(
        config: &BTreeMap<String, String>,
        client_id: &str,
        call_timeout_ms: Option<u64>,
    ) -> Result<Admin, Stop> {
        let ms = |name: &str, default: u64| match config.get(name).map(|value| value.trim().parse())
        {
            None => Ok(default),
            Some(Ok(ms)) => Ok(ms),
            Some(Err(_)) => Err(Stop::Failed(format!(
                "Invalid value {} for configuration {name}",
                config[name]
            ))),
        };
        if let Some(protocol) = config.get("security.protocol")
            && !protocol.trim().eq_ignore_ascii_case("PLAINTEXT")
        {
            return Err(Stop::Failed(format!(
                "security.protocol={protocol} is not supported: only PLAINTEXT is"
            )));
        }
        let options = Options {
            client_id: config
                .get("client.id")
                .cloned()
                .unwrap_or_else(|| client_id.to_owned()),
            request_timeout: Duration::from_millis(ms("request.timeout.ms", 30_000)?.max(1)),
            call_timeout: Duration::from_millis(
                call_timeout_ms.unwrap_or(ms("default.api.timeout.ms", 60_000)?),
            ),
            retry_backoff: Duration::from_millis(ms("retry.backoff.ms", 100)?),
            on_trouble: |trouble| log_line("WARN", trouble),
        };
        let servers = config
            .get("bootstrap.servers")
            .map(String::as_str)
            .unwrap_or_default();
        let client = Client::new(servers, options).map_err(|e| Stop::Failed(e.to_string()))?;
        Ok(Admin { client })
    }

    /// All topics, in the order of Java's map; the broker's own ones only if `internal`.
    pub fn list_topics(&mut self, internal: bool) -> Result<Vec<TopicListing>, AdminError> {
        let request = MetadataRequest {
            topics: None,
            ..MetadataRequest::default()
        };
        let topics = self.client.call(Target::Any, &request, |response, _| {
            let topics = response
                .topics
                .into_iter()
                .filter(|topic| internal || !topic.is_internal);
            topics
                .map(|topic| TopicListing {
                    name: topic.name.map(Cow::into_owned).unwrap_or_default(),
                    id: topic.topic_id,
                })
                .collect::<Vec<_>>()
        })?;
        Ok(java::map_order(topics, |topic| &topic.name))
    }

    /// The topics of these names, in the order of Java's map.
    ///
    /// # Errors
    /// The first error of a topic, when any has one.
    pub fn describe_topics(
        &mut self,
        names: &[String],
        page: i32,
    ) -> Result<Vec<TopicDescription>, AdminError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let described = match self.describe_by_pages(names, page) {
            Err(AdminError {
                code: Some(ErrorCode::UnsupportedVersion),
                ..
            }) => self.describe_by_metadata(names)?,
            other => other?,
        };
        let mut topics = Vec::with_capacity(described.len());
        for (error, topic) in described {
            check(error, None)?;
            topics.push(topic);
        }
        for topic in &mut topics {
            topic.partitions.sort_by_key(|info| info.partition);
        }
        let table = java::sized_table(topics.len());
        Ok(java::hash_order(topics, table, |topic| {
            java::string_hash(&topic.name)
        }))
    }

    fn describe_by_pages(
        &mut self,
        names: &[String],
        page: i32,
    ) -> Result<Vec<(i16, TopicDescription)>, AdminError> {
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort();
        sorted.dedup();
        let mut found: Vec<(i16, TopicDescription)> = Vec::new();
        let mut cursor: Option<(String, i32)> = None;
        loop {
            let request = DescribeTopicPartitionsRequest {
                topics: sorted
                    .iter()
                    .filter(|name| {
                        cursor
                            .as_ref()
                            .is_none_or(|(from, _)| name.as_str() >= from.as_str())
                    })
                    .map(|name| TopicRequest {
                        name: Cow::Borrowed(name.as_str()),
                    })
                    .collect(),
                response_partition_limit: page,
                cursor: cursor.as_ref().map(|(topic, index)| Cursor {
                    topic_name: Cow::Borrowed(topic),
                    partition_index: *index,
                }),
            };
            cursor = self.client.call(Target::Any, &request, |response, _| {
                for topic in response.topics {
                    let name = topic.name.map(Cow::into_owned).unwrap_or_default();
                    let partitions = topic.partitions.into_iter().map(|info| PartitionInfo {
                        partition: info.partition_index,
                        leader: (info.leader_id >= 0).then_some(info.leader_id),
                        replicas: info.replica_nodes,
                        isr: info.isr_nodes,
                        elr: Some(info.eligible_leader_replicas.unwrap_or_default()),
                        last_known_elr: Some(info.last_known_elr.unwrap_or_default()),
                    });
                    // A page may go on with the topic that the last one ended in.
                    match found.last_mut().filter(|(_, last)| last.name == name) {
                        Some((_, last)) => last.partitions.extend(partitions),
                        None => {
                            let partitions = partitions.collect();
                            found.push((
                                topic.error_code,
                                TopicDescription {
                                    name,
                                    id: topic.topic_id,
                                    partitions,
                                },
                            ));
                        }
                    }
                }
                response
                    .next_cursor
                    .map(|next| (next.topic_name.into_owned(), next.partition_index))
            })?;
            if cursor.is_none() {
                return Ok(found);
            }
        }
    }

    fn describe_by_metadata(
        &mut self,
        names: &[String],
    ) -> Result<Vec<(i16, TopicDescription)>, AdminError> {
        let request = MetadataRequest {
            topics: Some(
                names
                    .iter()
                    .map(|name| MetadataRequestTopic {
                        name: Some(Cow::Borrowed(name.as_str())),
                        ..Default::default()
                    })
                    .collect(),
            ),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        Ok(self.client.call(Target::Any, &request, |response, _| {
            let topics = response.topics.into_iter().map(|topic| {
                let partitions = topic.partitions.into_iter().map(|info| PartitionInfo {
                    partition: info.partition_index,
                    leader: (info.leader_id >= 0).then_some(info.leader_id),
                    replicas: info.replica_nodes,
                    isr: info.isr_nodes,
                    elr: None,
                    last_known_elr: None,
                });
                let name = topic.name.map(Cow::into_owned).unwrap_or_default();
                let partitions = partitions.collect();
                (
                    topic.error_code,
                    TopicDescription {
                        name,
                        id: topic.topic_id,
                        partitions,
                    },
                )
            });
            topics.collect()
        })?)
    }

    /// The configs of resources of one kind, in the order of `names`. Each may fail for itself.
    pub fn describe_configs(
        &mut self,
        kind: i8,
        names: &[String],
        synonyms: bool,
    ) -> Result<Vec<Result<Vec<ConfigEntry>, AdminError>>, AdminError> {
        let mut results = Vec::with_capacity(names.len());
        for chunk in names.chunks(500) {
            let target = match (kind, chunk.first()) {
                (resource::BROKER | resource::BROKER_LOGGER, Some(id)) if !id.is_empty() => {
                    Target::Broker(id.parse().unwrap_or(-1))
                }
                _ => Target::Any,
            };
            let resources = chunk.iter().map(|name| DescribeConfigsResource {
                resource_type: kind,
                resource_name: Cow::Borrowed(name),
                configuration_keys: None,
            });
            let request = DescribeConfigsRequest {
                resources: resources.collect(),
                include_synonyms: synonyms,
                include_documentation: false,
            };
            let mut found: BTreeMap<String, Result<Vec<ConfigEntry>, AdminError>> =
                self.client.call(target, &request, |response, _| {
                    let results = response.results.into_iter().map(|result| {
                        let entries = check(result.error_code, result.error_message)
                            .map(|()| result.configs.into_iter().map(entry).collect());
                        (result.resource_name.into_owned(), entries)
                    });
                    results.collect()
                })?;
            for name in chunk {
                results.push(found.remove(name).unwrap_or_else(|| {
                    Err(AdminError {
                        code: Some(ErrorCode::UnknownServerError),
                        illegal: false,
                        message: format!(
                            "The node response did not contain a result for config resource {name}"
                        ),
                    })
                }));
            }
        }
        Ok(results)
    }

    /// The brokers, in the order that the cluster tells them.
    pub fn brokers(&mut self) -> Result<Vec<Broker>, AdminError> {
        Ok(self.client.refresh_brokers()?)
    }

    /// The leader of each partition, or why it has none.
    pub fn leaders(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Result<i32, ErrorCode>>, AdminError> {
        let mut names: Vec<&String> = partitions.iter().map(|(topic, _)| topic).collect();
        names.sort();
        names.dedup();
        let request = MetadataRequest {
            topics: Some(
                names
                    .iter()
                    .map(|name| MetadataRequestTopic {
                        name: Some(Cow::Borrowed(name.as_str())),
                        ..Default::default()
                    })
                    .collect(),
            ),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let mut known: BTreeMap<TopicPartition, Result<i32, ErrorCode>> = BTreeMap::new();
        let mut topic_errors: BTreeMap<String, ErrorCode> = BTreeMap::new();
        self.client.call(Target::Any, &request, |response, _| {
            for topic in response.topics {
                let name = topic.name.map(Cow::into_owned).unwrap_or_default();
                if topic.error_code != 0 {
                    topic_errors.insert(name.clone(), error_of(topic.error_code));
                }
                for info in topic.partitions {
                    let leader = match (error_of(info.error_code), info.leader_id) {
                        (ErrorCode::None, 0..) => Ok(info.leader_id),
                        (ErrorCode::None, _) => Err(ErrorCode::LeaderNotAvailable),
                        (code, _) => Err(code),
                    };
                    known.insert((name.clone(), info.partition_index), leader);
                }
            }
        })?;
        let leaders = partitions.iter().map(|partition| {
            let leader = known.get(partition).copied().unwrap_or_else(|| {
                Err(topic_errors
                    .get(&partition.0)
                    .copied()
                    .unwrap_or(ErrorCode::UnknownTopicOrPartition))
            });
            (partition.clone(), leader)
        });
        Ok(leaders.collect())
    }

    /// The offset of each partition at a time in milliseconds, or at a place named by a negative number; -1 for none.
    pub fn list_offsets(
        &mut self,
        partitions: &[TopicPartition],
        timestamp: i64,
    ) -> Result<BTreeMap<TopicPartition, Result<i64, AdminError>>, AdminError> {
        let mut offsets = BTreeMap::new();
        let mut by_leader: BTreeMap<i32, BTreeMap<&str, Vec<i32>>> = BTreeMap::new();
        let leaders = self.leaders(partitions)?;
        for (partition, leader) in &leaders {
            match leader {
                Ok(id) => {
                    by_leader
                        .entry(*id)
                        .or_default()
                        .entry(partition.0.as_str())
                        .or_default()
                        .push(partition.1);
                }
                Err(code) => {
                    offsets.insert(partition.clone(), Err(AdminError::new(*code, None)));
                }
            }
        }
        for (leader, topics) in by_leader {
            let timeout_ms = self.client.call_timeout_ms();
            let topics = topics.into_iter().map(|(name, indexes)| ListOffsetsTopic {
                name: Cow::Borrowed(name),
                partitions: indexes
                    .into_iter()
                    .map(|partition_index| ListOffsetsPartition {
                        partition_index,
                        timestamp,
                        ..ListOffsetsPartition::default()
                    })
                    .collect(),
            });
            let request = ListOffsetsRequest {
                replica_id: -1,
                isolation_level: 0,
                topics: topics.collect(),
                timeout_ms,
            };
            self.client
                .call(Target::Broker(leader), &request, |response, _| {
                    for topic in response.topics {
                        for found in topic.partitions {
                            let offset = check(found.error_code, None).map(|()| found.offset);
                            offsets.insert(
                                (topic.name.clone().into_owned(), found.partition_index),
                                offset,
                            );
                        }
                    }
                })?;
        }
        Ok(offsets)
    }
}

fn entry(found: net::kafka::describe_configs::DescribeConfigsResourceResult<'_>) -> ConfigEntry {
    ConfigEntry {
        name: found.name.into_owned(),
        value: found.value.map(Cow::into_owned),
        source: found.config_source,
        sensitive: found.is_sensitive,
        synonyms: found
            .synonyms
            .into_iter()
            .map(|synonym| {
                (
                    synonym.source,
                    synonym.name.into_owned(),
                    synonym.value.map(Cow::into_owned),
                )
            })
            .collect(),
    }
}
