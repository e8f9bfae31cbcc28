//! What the metadata machine decides about topics: creation, deletion, more partitions. Lives on core 0;
//! pure functions of the image, which they do not change.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use net::kafka::error::ErrorCode;
use storage::types::TopicId;

use super::command::{
    CreatedTopic, DeletedTopic, NewPartitions, NewTopic, Refusal, TopicShape, TopicTarget,
};
use super::image::MetadataImage;
use super::record::{MetadataRecord, PartitionRun, ResourceKind};
use super::{METADATA_TOPIC, OFFSETS_TOPIC};
use crate::config::{ConfigMap, topic};

/// Most partitions that one request may create, as in Kafka.
pub const PARTITIONS_PER_REQUEST_MAX: i64 = 10_000;

/// What became of each topic that was to get more partitions.
pub(super) type PartitionResults = Vec<(String, Result<(), Refusal>)>;

/// Longest name of a topic, in bytes.
const NAME_BYTES_MAX: usize = 249;

/// Checks a topic's name.
///
/// # Errors
/// INVALID_TOPIC_EXCEPTION (17), and why.
pub fn check_name(name: &str) -> Result<(), Refusal> {
    let refuse = |why: String| Err(Refusal::new(ErrorCode::InvalidTopicException, why));
    if name.is_empty() {
        return refuse("Topic name is invalid: the empty string is not allowed".to_owned());
    }
    if name == "." || name == ".." {
        return refuse(format!("Topic name is invalid: '{name}' is not allowed"));
    }
    // Kafka counts UTF-16 units, which for every legal character is bytes.
    if name.encode_utf16().count() > NAME_BYTES_MAX {
        return refuse(format!(
            "Topic name is invalid: the length of '{name}' is longer than the max allowed length \
             {NAME_BYTES_MAX}"
        ));
    }
    if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    {
        return refuse(format!(
            "Topic name is invalid: '{name}' contains one or more characters other than ASCII \
             alphanumerics, '.', '_' and '-'"
        ));
    }
    Ok(())
}

/// The name with every '.' as '_': metric names cannot tell the two apart, so neither may topics.
fn unified(name: &str) -> String {
    name.replace('.', "_")
}

/// Names of topics as they will be once what was decided so far is applied.
struct Names<'a> {
    image: &'a MetadataImage,
    new: BTreeSet<String>,
    /// Unified names of the topics that are there, made when first needed.
    unified: Option<BTreeMap<String, String>>,
}

impl<'a> Names<'a> {
    fn new(image: &'a MetadataImage) -> Self {
        Names {
            image,
            new: BTreeSet::new(),
            unified: None,
        }
    }

    fn exists(&self, name: &str) -> bool {
        self.image.topic(name).is_some() || self.new.contains(name)
    }

    fn add(&mut self, name: &str) {
        self.new.insert(name.to_owned());
    }

    /// A topic that is there and whose name differs only in '.' and '_'. As in Kafka, the other topics
    /// of a request do not count.
    fn collision(&mut self, name: &str) -> Option<&str> {
        if !name.contains(['.', '_']) {
            return None;
        }
        let image = self.image;
        let unified_names = self.unified.get_or_insert_with(|| {
            let mut names = BTreeMap::new();
            for known in image.topics().map(|topic| topic.name.as_str()) {
                if known.contains(['.', '_']) {
                    names
                        .entry(unified(known))
                        .or_insert_with(|| known.to_owned());
                }
            }
            names
        });
        unified_names
            .get(&unified(name))
            .map(String::as_str)
            .filter(|known| *known != name)
    }
}

/// Names that come more than once.
fn duplicates<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut seen = HashSet::new();
    names
        .filter(|name| !seen.insert(*name))
        .map(str::to_owned)
        .collect()
}

impl MetadataImage {
    pub(super) fn decide_create_topics(
        &self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> (Vec<MetadataRecord>, Vec<CreatedTopic>) {
        let twice = duplicates(topics.iter().map(|topic| topic.name.as_str()));
        let mut names = Names::new(self);
        let mut records = Vec::new();
        let mut results = Vec::new();
        let wanted: i64 = topics
            .iter()
            .filter(|topic| !twice.contains(&topic.name))
            .map(
                |topic| match (topic.assignments.len(), topic.partition_count) {
                    (0, -1) => i64::from(self.config().num_partitions),
                    (0, count) => i64::from(count.max(0)),
                    (placed, _) => placed as i64,
                },
            )
            .sum();
        for topic in topics.iter().filter(|topic| !twice.contains(&topic.name)) {
            let decided = if wanted > PARTITIONS_PER_REQUEST_MAX {
                Err(Refusal::new(
                    ErrorCode::PolicyViolation,
                    "Excessively large number of partitions per request.",
                ))
            } else {
                self.decide_create_topic(topic, &mut names)
            };
            results.push(CreatedTopic {
                name: topic.name.clone(),
                result: decided.map(|(shape, mut made)| {
                    names.add(&topic.name);
                    records.append(&mut made);
                    shape
                }),
            });
        }
        for name in twice {
            results.push(CreatedTopic {
                name,
                result: Err(Refusal::new(
                    ErrorCode::InvalidRequest,
                    "Duplicate topic name.",
                )),
            });
        }
        if validate_only {
            records.clear();
        }
        (records, results)
    }

    fn decide_create_topic(
        &self,
        topic: &NewTopic,
        names: &mut Names<'_>,
    ) -> Result<(TopicShape, Vec<MetadataRecord>), Refusal> {
        if topic.name == METADATA_TOPIC {
            return Err(Refusal::new(
                ErrorCode::InvalidRequest,
                format!("Creation of internal topic {METADATA_TOPIC} is prohibited."),
            ));
        }
        if names.exists(&topic.name) {
            return Err(Refusal::new(
                ErrorCode::TopicAlreadyExists,
                format!("Topic '{}' already exists.", topic.name),
            ));
        }
        check_name(&topic.name)?;
        if let Some(other) = names.collision(&topic.name) {
            return Err(Refusal::new(
                ErrorCode::InvalidTopicException,
                format!(
                    "Topic '{}' collides with existing topic: {other}",
                    topic.name
                ),
            ));
        }
        let mut configs = ConfigMap::new();
        let mut nulls = Vec::new();
        for (key, value) in &topic.configs {
            match value {
                Some(value) => {
                    configs.insert(key.clone(), value.clone());
                }
                None => nulls.push(key.as_str()),
            }
        }
        if !nulls.is_empty() {
            return Err(Refusal::new(
                ErrorCode::InvalidConfig,
                format!(
                    "Null value not supported for topic configs: {}",
                    nulls.join(",")
                ),
            ));
        }
        topic::validate(self.config(), &configs)
            .map_err(|why| Refusal::new(ErrorCode::InvalidConfig, why))?;
        let partition_count = self.decide_placement(topic)?;
        let mut records = vec![self.topic_record(topic.id, &topic.name, partition_count)];
        if !configs.is_empty() {
            records.push(MetadataRecord::Configs {
                kind: ResourceKind::Topic,
                name: topic.name.clone(),
                configs: configs.clone(),
            });
        }
        let shape = TopicShape {
            id: topic.id,
            partition_count,
            replication_factor: 1,
            configs,
        };
        Ok((shape, records))
    }

    fn topic_record(&self, id: TopicId, name: &str, partition_count: i32) -> MetadataRecord {
        MetadataRecord::Topic {
            id,
            name: name.to_owned(),
            partitions: vec![self.run(partition_count)],
        }
    }

    /// New partitions, all on the one broker there is.
    fn run(&self, count: i32) -> PartitionRun {
        PartitionRun {
            count,
            created_at_start: self.start_count(),
            replicas: vec![self.node_id()],
        }
    }

    /// How many partitions a new topic gets.
    fn decide_placement(&self, topic: &NewTopic) -> Result<i32, Refusal> {
        let refuse = |error, why: String| Err(Refusal::new(error, why));
        if !topic.assignments.is_empty() {
            if topic.replication_factor != -1 {
                return refuse(
                    ErrorCode::InvalidRequest,
                    "A manual partition assignment was specified, but replication factor was not \
                     set to -1."
                        .to_owned(),
                );
            }
            if topic.partition_count != -1 {
                return refuse(
                    ErrorCode::InvalidRequest,
                    "A manual partition assignment was specified, but numPartitions was not set \
                     to -1."
                        .to_owned(),
                );
            }
            let mut placed = BTreeSet::new();
            for (index, replicas) in &topic.assignments {
                if !placed.insert(*index) {
                    return refuse(
                        ErrorCode::InvalidReplicaAssignment,
                        format!(
                            "Found multiple manual partition assignments for partition {index}"
                        ),
                    );
                }
                self.check_assignment(replicas)?;
            }
            if placed.iter().copied().ne(0..placed.len() as i32) {
                return refuse(
                    ErrorCode::InvalidReplicaAssignment,
                    "partitions should be a consecutive 0-based integer sequence".to_owned(),
                );
            }
            return Ok(placed.len() as i32);
        }
        if topic.replication_factor < -1 || topic.replication_factor == 0 {
            return refuse(
                ErrorCode::InvalidReplicationFactor,
                "Replication factor must be larger than 0, or -1 to use the default value."
                    .to_owned(),
            );
        }
        if topic.partition_count < -1 || topic.partition_count == 0 {
            return refuse(
                ErrorCode::InvalidPartitions,
                "Number of partitions was set to an invalid non-positive value.".to_owned(),
            );
        }
        if topic.replication_factor > 1 {
            let factor = topic.replication_factor;
            return refuse(
                ErrorCode::InvalidReplicationFactor,
                format!(
                    "Unable to replicate the partition {factor} time(s): The target replication \
                     factor of {factor} cannot be reached because only 1 broker(s) are registered."
                ),
            );
        }
        Ok(match topic.partition_count {
            -1 => self.config().num_partitions,
            count => count,
        })
    }

    /// Checks where a client wants a partition.
    fn check_assignment(&self, replicas: &[i32]) -> Result<(), Refusal> {
        let refuse = |why: String| Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, why));
        if replicas.is_empty() {
            return refuse(
                "The manual partition assignment includes an empty replica list.".to_owned(),
            );
        }
        let mut sorted = replicas.to_vec();
        sorted.sort_unstable();
        if let Some(unknown) = sorted.iter().find(|broker| **broker != self.node_id()) {
            return refuse(format!(
                "The manual partition assignment includes broker {unknown}, but no such broker is \
                 registered."
            ));
        }
        if sorted.len() > 1 {
            return refuse(format!(
                "The manual partition assignment includes the broker {} more than once.",
                sorted[0]
            ));
        }
        Ok(())
    }

    pub(super) fn decide_ensure_topics(
        &self,
        topics: &[(String, TopicId)],
    ) -> (Vec<MetadataRecord>, Vec<Result<TopicId, Refusal>>) {
        let mut names = Names::new(self);
        let mut records = Vec::new();
        let mut made: BTreeMap<&str, TopicId> = BTreeMap::new();
        let mut results = Vec::new();
        for (name, id) in topics {
            let known = self
                .topic(name)
                .map(|topic| topic.id)
                .or_else(|| made.get(name.as_str()).copied());
            if let Some(id) = known {
                results.push(Ok(id));
                continue;
            }
            if let Err(refusal) = check_name(name) {
                results.push(Err(refusal));
                continue;
            }
            if names.collision(name).is_some() || name == METADATA_TOPIC {
                results.push(Err(Refusal::plain(ErrorCode::UnknownTopicOrPartition)));
                continue;
            }
            if name == OFFSETS_TOPIC {
                let config = self.config();
                records.push(self.topic_record(*id, name, config.offsets_topic_partitions));
                records.push(MetadataRecord::Configs {
                    kind: ResourceKind::Topic,
                    name: name.clone(),
                    configs: [
                        ("cleanup.policy", "compact".to_owned()),
                        ("compression.type", "producer".to_owned()),
                        (
                            "segment.bytes",
                            config.offsets_topic_segment_bytes.max(1 << 20).to_string(),
                        ),
                    ]
                    .map(|(key, value)| (key.to_owned(), value))
                    .into(),
                });
            } else {
                records.push(self.topic_record(*id, name, self.config().num_partitions));
            }
            names.add(name);
            made.insert(name, *id);
            results.push(Ok(*id));
        }
        (records, results)
    }

    pub(super) fn decide_delete_topics(
        &self,
        targets: &[TopicTarget],
    ) -> (Vec<MetadataRecord>, Vec<DeletedTopic>) {
        let mut results = Vec::new();
        let mut refuse = |name: Option<&str>, id: TopicId, refusal: Refusal| {
            results.push(DeletedTopic {
                name: name.map(str::to_owned),
                id,
                result: Err(refusal),
            });
        };
        let invalid = |why: &str| Refusal::new(ErrorCode::InvalidRequest, why);
        let mut names: Vec<&str> = Vec::new();
        let mut ids: Vec<TopicId> = Vec::new();
        for target in targets {
            match (&target.name, target.id.is_nil()) {
                (None, true) => refuse(
                    None,
                    TopicId::nil(),
                    invalid("Neither topic name nor id were specified."),
                ),
                (Some(name), false) => refuse(
                    Some(name),
                    target.id,
                    invalid("You may not specify both topic name and topic id."),
                ),
                (Some(name), true) => names.push(name),
                (None, false) => ids.push(target.id),
            }
        }
        let twice = duplicates(names.iter().copied());
        let mut seen = HashSet::new();
        let ids_twice: BTreeSet<TopicId> =
            ids.iter().copied().filter(|id| !seen.insert(*id)).collect();
        for name in &twice {
            refuse(Some(name), TopicId::nil(), invalid("Duplicate topic name."));
        }
        for id in &ids_twice {
            refuse(None, *id, invalid("Duplicate topic id."));
        }
        let mut doomed: BTreeMap<TopicId, &str> = BTreeMap::new();
        for id in ids.into_iter().filter(|id| !ids_twice.contains(id)) {
            match self.topic_by_id(id) {
                Some(topic) => {
                    doomed.insert(id, &topic.name);
                }
                None => refuse(None, id, Refusal::plain(ErrorCode::UnknownTopicId)),
            }
        }
        for name in names.into_iter().filter(|name| !twice.contains(*name)) {
            match self.topic(name) {
                None => refuse(
                    Some(name),
                    TopicId::nil(),
                    Refusal::plain(ErrorCode::UnknownTopicOrPartition),
                ),
                Some(topic) if ids_twice.contains(&topic.id) || doomed.contains_key(&topic.id) => {
                    doomed.remove(&topic.id);
                    refuse(
                        Some(name),
                        topic.id,
                        invalid("The provided topic name maps to an ID that was already supplied."),
                    );
                }
                Some(topic) => {
                    doomed.insert(topic.id, &topic.name);
                }
            }
        }
        let mut records = Vec::new();
        for (id, name) in doomed {
            let result = if name == OFFSETS_TOPIC {
                // Groups live on this topic's partitions; without it their cores would have nowhere to
                // write what they already promised.
                Err(Refusal::new(
                    ErrorCode::InvalidRequest,
                    format!("{name} keeps the groups of this cluster and cannot be deleted."),
                ))
            } else {
                records.push(MetadataRecord::TopicDeleted { id });
                if self.configs(ResourceKind::Topic, name).is_some() {
                    records.push(MetadataRecord::Configs {
                        kind: ResourceKind::Topic,
                        name: name.to_owned(),
                        configs: ConfigMap::new(),
                    });
                }
                Ok(())
            };
            results.push(DeletedTopic {
                name: Some(name.to_owned()),
                id,
                result,
            });
        }
        (records, results)
    }

    pub(super) fn decide_create_partitions(
        &self,
        topics: &[NewPartitions],
        validate_only: bool,
    ) -> (Vec<MetadataRecord>, PartitionResults) {
        let twice = duplicates(topics.iter().map(|topic| topic.name.as_str()));
        let mut records = Vec::new();
        let mut results: PartitionResults = twice
            .iter()
            .map(|name| {
                let refusal = Refusal::new(ErrorCode::InvalidRequest, "Duplicate topic name.");
                (name.clone(), Err(refusal))
            })
            .collect();
        for topic in topics.iter().filter(|topic| !twice.contains(&topic.name)) {
            let decided = self.decide_more_partitions(topic);
            results.push((
                topic.name.clone(),
                decided.map(|record| records.push(record)),
            ));
        }
        if validate_only {
            records.clear();
        }
        (records, results)
    }

    fn decide_more_partitions(&self, wanted: &NewPartitions) -> Result<MetadataRecord, Refusal> {
        let topic = self
            .topic(&wanted.name)
            .ok_or_else(|| Refusal::silent(ErrorCode::UnknownTopicOrPartition))?;
        let (have, count) = (topic.partition_count(), wanted.count);
        let invalid = |why: String| Err(Refusal::new(ErrorCode::InvalidPartitions, why));
        if count == have {
            return invalid(format!("Topic already has {have} partition(s)."));
        }
        if count < have {
            return invalid(format!(
                "The topic {} currently has {have} partition(s); {count} would not be an increase.",
                wanted.name
            ));
        }
        let additional = count - have;
        if i64::from(additional) > PARTITIONS_PER_REQUEST_MAX {
            return Err(Refusal::new(
                ErrorCode::PolicyViolation,
                "Excessively large number of partitions per request.",
            ));
        }
        if let Some(assignments) = &wanted.assignments {
            if assignments.len() != additional as usize {
                return Err(Refusal::new(
                    ErrorCode::InvalidReplicaAssignment,
                    format!(
                        "Attempted to add {additional} additional partition(s), but only {} \
                         assignment(s) were specified.",
                        assignments.len()
                    ),
                ));
            }
            for replicas in assignments {
                self.check_assignment(replicas)?;
            }
        }
        let mut partitions = topic.runs().to_vec();
        partitions.push(self.run(additional));
        Ok(MetadataRecord::Topic {
            id: topic.id,
            name: topic.name.clone(),
            partitions,
        })
    }
}
