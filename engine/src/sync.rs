//! Following the metadata: every core applies the controller's records to its own image and makes,
//! reconfigures and drops the partitions that it owns. Tells the controller when what is new is durable.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use net::kafka::error::ErrorCode;
use storage::store::PartitionKey;
use storage::types::{CoreId, Now, TopicId};

use crate::event::Action;
use crate::mesh::{MeshMessage, PartitionRef};
use crate::metadata::{MetadataRecord, ResourceKind};
use crate::partition::Partition;
use crate::shard::Shard;

/// Metadata versions whose partitions are not all durable yet.
#[derive(Debug, Default)]
pub(crate) struct Sync {
    open: VecDeque<OpenVersion>,
    /// Partitions that may lie in a log directory that was offline at the start: made anew they would
    /// use their offsets again, so they are not served before a start that finds them.
    withheld: HashSet<PartitionRef>,
}

#[derive(Debug)]
struct OpenVersion {
    version: u64,
    missing: HashSet<PartitionRef>,
}

impl Shard {
    /// At the start: partitions of this core that the metadata knows are found in the store, or made
    /// if a crash came between the two.
    pub(crate) fn adopt_partitions(&mut self, now: Now) {
        let topics: Vec<TopicId> = self.image.topics().map(|topic| topic.id).collect();
        let dirs = self.config.broker.log_dirs.len();
        if (0..dirs).any(|dir| self.store.is_dir_offline(dir)) {
            for topic in self.image.topics() {
                for partition in topic.partitions() {
                    if self.store.find(topic.id, partition.index).is_none() {
                        self.sync.withheld.insert(PartitionRef {
                            topic_id: topic.id,
                            partition: partition.index,
                        });
                    }
                }
            }
        }
        for topic_id in topics {
            self.ensure_partitions(now, topic_id);
        }
    }

    /// Applies one version of the metadata.
    pub(crate) fn apply_metadata(&mut self, now: Now, version: u64, records: &[MetadataRecord]) {
        let mut missing = HashSet::new();
        for record in records {
            let before = match record {
                MetadataRecord::TopicDeleted { id } => {
                    self.image.topic_by_id(*id).map(|topic| topic.name.clone())
                }
                _ => None,
            };
            self.image.apply(record);
            match record {
                MetadataRecord::Topic { id, .. } => {
                    missing.extend(self.ensure_partitions(now, *id))
                }
                MetadataRecord::TopicDeleted { id } => self.drop_topic(now, *id, before.as_deref()),
                MetadataRecord::Configs {
                    kind: ResourceKind::Topic,
                    name,
                    ..
                } => {
                    if let Some(id) = self.image.topic(name).map(|topic| topic.id) {
                        self.reconfigure(now, |partition| partition.topic_id == id);
                    }
                }
                MetadataRecord::Configs {
                    kind: ResourceKind::Broker,
                    ..
                } => {
                    self.configure_store();
                    self.limit_connections();
                    self.reconfigure(now, |_| true);
                }
                MetadataRecord::Configs { .. }
                | MetadataRecord::Start { .. }
                | MetadataRecord::ProducerIds { .. } => {}
            }
        }
        self.sync.open.push_back(OpenVersion { version, missing });
        self.tell_applied(now);
    }

    /// Tells the store what the broker's configuration, which changes while it runs, says of all logs.
    pub(crate) fn configure_store(&mut self) {
        let broker = self.image.config();
        let backoff_ms = u64::try_from(broker.cleaner_backoff_ms).unwrap_or(u64::MAX);
        // The cleaners' maps of keys: when one is full, the rest of its log waits for the next round.
        let dedupe_bytes = u64::try_from(broker.cleaner_dedupe_bytes).unwrap_or(0);
        let map_bytes = usize::try_from(dedupe_bytes / u64::from(self.config.cores))
            .unwrap_or(usize::MAX)
            .min(self.config.memory_bytes / 8);
        let expiration_ms = broker.producer_id_expiration_ms;
        self.store.set_cleaner(backoff_ms, map_bytes);
        self.store.set_producer_expiration(expiration_ms);
    }

    /// Has the new connections of the whole broker limited as its configuration says now. Every core does
    /// so, to the same end.
    pub(crate) fn limit_connections(&mut self) {
        let rate_max = self.image.config().connection_creation_rate_max;
        self.actions
            .push_back(Action::LimitConnections { rate_max });
    }

    /// Why a partition that this core should own is not here.
    pub(crate) fn absence(&self, name: PartitionRef) -> ErrorCode {
        if self.sync.withheld.contains(&name) {
            ErrorCode::KafkaStorageError
        } else {
            ErrorCode::UnknownTopicOrPartition
        }
    }

    /// Makes the partitions of a topic that this core owns and does not have yet. Gives those whose
    /// creation is not durable.
    fn ensure_partitions(&mut self, now: Now, topic_id: TopicId) -> Vec<PartitionRef> {
        let Some(topic) = self.image.topic_by_id(topic_id) else {
            return Vec::new();
        };
        let config = Arc::new(topic.config.clone());
        let name: Arc<str> = Arc::from(&*topic.name);
        let mut fresh = Vec::new();
        let mut made = Vec::new();
        for partition in topic.partitions() {
            let place = PartitionRef {
                topic_id,
                partition: partition.index,
            };
            if topic.core_of(place.partition, self.config.cores) != self.core
                || self.partitions.contains(&place)
                || self.sync.withheld.contains(&place)
            {
                continue;
            }
            let epoch = self.image.leader_epoch(&partition);
            made.push((place, epoch));
        }
        for (place, epoch) in made {
            let found = self.store.find(topic_id, place.partition);
            let log = match found {
                Some(log) => {
                    self.store.set_config(now, log, config.log.clone());
                    log
                }
                None => {
                    let key = PartitionKey {
                        topic_id,
                        topic: name.to_string(),
                        partition: place.partition,
                    };
                    let log = self.store.create_partition(now, key, config.log.clone());
                    // Nobody waits for what an offline directory can never make durable.
                    if !self.store.is_offline(log) {
                        fresh.push(place);
                    }
                    log
                }
            };
            let created = found.is_some();
            let partition = Partition::new(
                place,
                Arc::clone(&name),
                log,
                epoch,
                Arc::clone(&config),
                created,
            );
            self.partitions.insert(partition);
            self.logs.insert(log, place);
            self.on_partition_opened(now, place, created);
        }
        fresh
    }

    /// A partition's creation is durable: it takes appends.
    pub(crate) fn on_partition_created(&mut self, now: Now, name: PartitionRef) {
        if let Some(partition) = self.partitions.get_mut(&name) {
            partition.created = true;
        }
        for version in &mut self.sync.open {
            version.missing.remove(&name);
        }
        self.tell_applied(now);
        self.on_partition_opened(now, name, true);
        self.pump_appends(now, name);
    }

    /// The directory of a partition is offline: if it was being created, nobody waits for that any more.
    pub(crate) fn give_up_creation(&mut self, now: Now, name: PartitionRef) {
        for version in &mut self.sync.open {
            version.missing.remove(&name);
        }
        self.tell_applied(now);
    }

    fn tell_applied(&mut self, now: Now) {
        while let Some(front) = self.sync.open.front()
            && front.missing.is_empty()
        {
            let version = front.version;
            self.sync.open.pop_front();
            if self.core == CoreId(0) {
                self.on_metadata_applied(now, version);
            } else {
                self.send(CoreId(0), MeshMessage::MetadataApplied { version });
            }
        }
    }

    fn drop_topic(&mut self, now: Now, topic_id: TopicId, topic: Option<&str>) {
        let gone: Vec<PartitionRef> = self
            .partitions
            .names()
            .filter(|name| name.topic_id == topic_id)
            .copied()
            .collect();
        for name in gone {
            self.fail_appends(now, name, ErrorCode::UnknownTopicOrPartition);
            self.on_internal_lost(now, name);
            if let Some(partition) = self.partitions.remove(&name) {
                self.store.delete_partition(now, partition.log);
            }
            for version in &mut self.sync.open {
                version.missing.remove(&name);
            }
        }
        if let Some(topic) = topic {
            self.metrics.forget_topic(topic_id);
            self.forget_topic_offsets(now, topic, topic_id);
        }
    }

    fn reconfigure(&mut self, now: Now, which: impl Fn(&PartitionRef) -> bool) {
        let names: Vec<PartitionRef> = self
            .partitions
            .names()
            .filter(|name| which(name))
            .copied()
            .collect();
        for name in names {
            let Some(topic) = self.image.topic_by_id(name.topic_id) else {
                continue;
            };
            let config = Arc::new(topic.config.clone());
            if let Some(partition) = self.partitions.get_mut(&name)
                && partition.config != config
            {
                self.store
                    .set_config(now, partition.log, config.log.clone());
                partition.config = config;
            }
        }
    }
}
