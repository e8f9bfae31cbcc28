//! The metadata that every core has a copy of: what `apply` over the records makes. Plain data on each
//! core; it decides nothing.

use std::collections::{BTreeMap, HashMap};

use storage::types::{CoreId, LeaderEpoch, PartitionIndex, TopicId};

use super::OFFSETS_TOPIC;
use super::record::{MetadataRecord, PartitionRun, ResourceKind};
use crate::config::{BrokerConfig, ConfigMap, TopicConfig};

/// A topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// Its effective configuration.
    pub config: TopicConfig,
    runs: Vec<PartitionRun>,
    partition_count: i32,
    /// What decides at which core it begins.
    start: u64,
}

/// A partition as metadata sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition<'a> {
    /// Its index.
    pub index: PartitionIndex,
    /// The brokers that hold it, the preferred leader first.
    pub replicas: &'a [i32],
    /// How often the broker had started when it was created.
    pub created_at_start: i32,
}

impl Topic {
    /// How many partitions it has; their indexes are those below.
    pub fn partition_count(&self) -> i32 {
        self.partition_count
    }

    /// The core that owns a partition of it, as [`core_of`](super::core_of) of its name.
    pub fn core_of(&self, partition: PartitionIndex, cores: u16) -> CoreId {
        super::core_from(self.start, partition, cores)
    }

    /// Whether the broker made it for itself.
    pub fn internal(&self) -> bool {
        is_internal(&self.name)
    }

    /// The partition with this index.
    pub fn partition(&self, index: PartitionIndex) -> Option<Partition<'_>> {
        let mut first = 0;
        for run in &self.runs {
            if index >= first && index < first + run.count {
                return Some(Partition {
                    index,
                    replicas: &run.replicas,
                    created_at_start: run.created_at_start,
                });
            }
            first += run.count;
        }
        None
    }

    /// Its partitions, by index.
    pub fn partitions(&self) -> impl Iterator<Item = Partition<'_>> {
        self.runs
            .iter()
            .flat_map(|run| (0..run.count).map(move |_| run))
            .zip(0..)
            .map(|(run, index)| Partition {
                index,
                replicas: &run.replicas,
                created_at_start: run.created_at_start,
            })
    }

    /// Its partitions by the times they were created.
    pub fn runs(&self) -> &[PartitionRun] {
        &self.runs
    }
}

/// Whether a topic of this name belongs to the broker itself: clients do not produce to it.
pub fn is_internal(name: &str) -> bool {
    matches!(
        name,
        OFFSETS_TOPIC | "__transaction_state" | "__share_group_state"
    )
}

/// The metadata after some records.
#[derive(Clone, Debug, PartialEq)]
pub struct MetadataImage {
    cluster_id: String,
    config: BrokerConfig,
    start_count: i32,
    producer_id_next: i64,
    names: BTreeMap<String, TopicId>,
    topics: HashMap<TopicId, Topic>,
    configs: BTreeMap<(ResourceKind, String), ConfigMap>,
}

impl MetadataImage {
    /// The metadata before any record, of the broker with this static configuration.
    pub fn new(cluster_id: String, config: BrokerConfig) -> Self {
        MetadataImage {
            cluster_id,
            config,
            start_count: 0,
            producer_id_next: 0,
            names: BTreeMap::new(),
            topics: HashMap::new(),
            configs: BTreeMap::new(),
        }
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// This broker's id.
    pub fn node_id(&self) -> i32 {
        self.config.node_id
    }

    /// The broker's configuration, dynamic settings included.
    pub fn config(&self) -> &BrokerConfig {
        &self.config
    }

    /// How often the broker has started.
    pub fn start_count(&self) -> i32 {
        self.start_count
    }

    /// The first producer id that is not reserved.
    pub fn producer_id_next(&self) -> i64 {
        self.producer_id_next
    }

    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.names.get(name).and_then(|id| self.topics.get(id))
    }

    /// The topic with this id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.names.values().filter_map(|id| self.topics.get(id))
    }

    /// The topics whose names are not before this one, by name.
    pub fn topics_from(&self, name: &str) -> impl Iterator<Item = &Topic> {
        self.names
            .range::<str, _>((std::ops::Bound::Included(name), std::ops::Bound::Unbounded))
            .filter_map(|(_, id)| self.topics.get(id))
    }

    /// The settings that a resource has of its own.
    pub fn configs(&self, kind: ResourceKind, name: &str) -> Option<&ConfigMap> {
        self.configs.get(&(kind, name.to_owned()))
    }

    /// The names of resources of this kind that have settings of their own.
    pub fn configured(&self, kind: ResourceKind) -> impl Iterator<Item = &str> {
        self.configs
            .keys()
            .filter(move |(k, _)| *k == kind)
            .map(|(_, name)| name.as_str())
    }

    /// The leader epoch of a partition: it rises with each start of the broker.
    pub fn leader_epoch(&self, partition: &Partition<'_>) -> LeaderEpoch {
        LeaderEpoch(self.start_count - partition.created_at_start)
    }

    /// Applies one record. The same records in the same order make the same image.
    pub fn apply(&mut self, record: &MetadataRecord) {
        match record {
            MetadataRecord::Start { count } => self.start_count = *count,
            MetadataRecord::ProducerIds { next } => self.producer_id_next = *next,
            MetadataRecord::Topic {
                id,
                name,
                partitions,
            } => {
                let config = self.topic_config(name);
                self.names.insert(name.clone(), *id);
                self.topics.insert(
                    *id,
                    Topic {
                        id: *id,
                        name: name.clone(),
                        config,
                        partition_count: partitions.iter().map(|run| run.count).sum(),
                        runs: partitions.clone(),
                        start: super::start_of(name),
                    },
                );
            }
            MetadataRecord::TopicDeleted { id } => {
                if let Some(topic) = self.topics.remove(id)
                    && self.names.get(&topic.name) == Some(id)
                {
                    self.names.remove(&topic.name);
                }
            }
            MetadataRecord::Configs {
                kind,
                name,
                configs,
            } => {
                if configs.is_empty() {
                    self.configs.remove(&(*kind, name.clone()));
                } else {
                    self.configs.insert((*kind, name.clone()), configs.clone());
                }
                match kind {
                    ResourceKind::Topic => {
                        let config = self.topic_config(name);
                        if let Some(id) = self.names.get(name)
                            && let Some(topic) = self.topics.get_mut(id)
                        {
                            topic.config = config;
                        }
                    }
                    ResourceKind::Broker => self.on_broker_configs_changed(),
                    _ => {}
                }
            }
        }
    }

    fn topic_config(&self, name: &str) -> TopicConfig {
        match self.configs(ResourceKind::Topic, name) {
            Some(settings) => TopicConfig::effective(&self.config, settings),
            None => self.config.topic_defaults.clone(),
        }
    }

    fn on_broker_configs_changed(&mut self) {
        let none = ConfigMap::new();
        let defaults = self.configs(ResourceKind::Broker, "").unwrap_or(&none);
        let own = self.configs(ResourceKind::Broker, &self.config.node_id.to_string());
        self.config = self.config.with_dynamic(defaults, own.unwrap_or(&none));
        let names: Vec<String> = self.names.keys().cloned().collect();
        for name in names {
            let config = self.topic_config(&name);
            if let Some(topic) = self.names.get(&name).and_then(|id| self.topics.get_mut(id)) {
                topic.config = config;
            }
        }
    }
}
