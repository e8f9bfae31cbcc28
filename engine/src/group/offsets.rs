//! Committed offsets of a group: commit, fetch, delete, expire (KIP-211, KIP-496). Each change is decided
//! into records and takes effect by applying them; nothing here knows logs or members' sessions.

use storage::types::{Now, TopicId};
use uuid::Uuid;

use super::call::{CommitCall, FetchOffsetsCall, FetchedOffset, FetchedTopic, GroupError};
use super::classic::{Group, GroupState};
use super::coordinator::GroupConfig;
use super::records::{self, OffsetCommitValue, Record};

/// A committed offset of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
    pub commit_ms: i64,
    /// Of old clients that asked for a time of their own; else -1.
    pub expire_ms: i64,
    pub topic_id: TopicId,
}

impl From<OffsetCommitValue> for CommittedOffset {
    fn from(value: OffsetCommitValue) -> CommittedOffset {
        CommittedOffset {
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata,
            commit_ms: value.commit_timestamp_ms,
            expire_ms: value.expire_timestamp_ms,
            topic_id: value.topic_id,
        }
    }
}

/// The records of a commit, and what to answer for each partition. `group` is `None` where it does not
/// exist yet; a commit without membership makes one.
pub(crate) fn decide_commit(
    group: Option<&Group>,
    config: &GroupConfig,
    now: Now,
    call: &CommitCall,
) -> Result<(Vec<Record>, Vec<Vec<GroupError>>), GroupError> {
    match group {
        Some(group) => group.check_commit(call)?,
        None if call.generation < 0 => {}
        None if call.api_version >= 9 => return Err(GroupError::GroupIdNotFound),
        None => return Err(GroupError::IllegalGeneration),
    }
    let expire_timestamp_ms = match call.retention_ms {
        -1 => -1,
        retention_ms => now.wall_ms.saturating_add(retention_ms),
    };
    let mut records = Vec::new();
    let mut results = Vec::with_capacity(call.topics.len());
    for topic in &call.topics {
        let mut errors = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let metadata = partition.metadata.as_deref().unwrap_or_default();
            // Kafka counts Java characters, whatever the config's name says.
            if metadata.encode_utf16().count() > config.offset_metadata_max {
                errors.push(GroupError::OffsetMetadataTooLarge);
                continue;
            }
            errors.push(GroupError::None);
            records.push(records::offset_commit(
                &call.group_id,
                &topic.topic,
                partition.partition,
                &OffsetCommitValue {
                    offset: partition.offset,
                    leader_epoch: partition.leader_epoch,
                    metadata: metadata.to_owned(),
                    commit_timestamp_ms: now.wall_ms,
                    expire_timestamp_ms,
                    topic_id: topic.topic_id,
                },
            ));
        }
        results.push(errors);
    }
    Ok((records, results))
}

/// What is committed of what was asked for; of an unknown group, nothing.
pub(crate) fn fetch(group: Option<&Group>, call: &FetchOffsetsCall) -> Vec<FetchedTopic> {
    let Some(topics) = &call.topics else {
        return group.map_or(Vec::new(), Group::all_offsets);
    };
    topics
        .iter()
        .map(|wanted| {
            let offsets = group.and_then(|group| group.offsets.get(&wanted.topic));
            FetchedTopic {
                topic: wanted.topic.clone(),
                topic_id: wanted.topic_id,
                partitions: wanted
                    .partitions
                    .iter()
                    .map(|partition| {
                        let committed = offsets
                            .and_then(|offsets| offsets.get(partition))
                            .filter(|committed| same_topic(committed.topic_id, wanted.topic_id));
                        fetched(*partition, committed)
                    })
                    .collect(),
            }
        })
        .collect()
}

/// Ids that are both known must agree: an offset of a deleted topic is not one of its successor.
fn same_topic(committed: TopicId, wanted: TopicId) -> bool {
    committed.is_nil() || wanted.is_nil() || committed == wanted
}

fn fetched(partition: i32, committed: Option<&CommittedOffset>) -> FetchedOffset {
    match committed {
        Some(committed) => FetchedOffset {
            partition,
            offset: committed.offset,
            leader_epoch: committed.leader_epoch,
            metadata: committed.metadata.clone(),
        },
        None => FetchedOffset {
            partition,
            offset: -1,
            leader_epoch: -1,
            metadata: String::new(),
        },
    }
}

impl Group {
    /// Whether a commit may be taken from whoever sent it.
    fn check_commit(&self, call: &CommitCall) -> Result<(), GroupError> {
        if call.generation < 0 && self.state == GroupState::Empty {
            // An administrator, or a consumer that assigns to itself.
            return Ok(());
        }
        if call.generation < 0 && call.member_id.is_empty() && call.instance_id.is_none() {
            return Err(GroupError::UnknownMemberId);
        }
        self.check_member(&call.member_id, call.instance_id.as_deref())?;
        if call.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == GroupState::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    /// Takes one offset record; `None` is its tombstone.
    pub(crate) fn apply_offset(
        &mut self,
        topic: &str,
        partition: i32,
        committed: Option<CommittedOffset>,
    ) {
        match committed {
            Some(committed) => {
                if let Some(partitions) = self.offsets.get_mut(topic) {
                    partitions.insert(partition, committed);
                } else {
                    let partitions = [(partition, committed)].into();
                    self.offsets.insert(topic.to_owned(), partitions);
                }
            }
            None => {
                if let Some(partitions) = self.offsets.get_mut(topic) {
                    partitions.remove(&partition);
                    if partitions.is_empty() {
                        self.offsets.remove(topic);
                    }
                }
            }
        }
    }

    fn all_offsets(&self) -> Vec<FetchedTopic> {
        self.offsets
            .iter()
            .map(|(topic, partitions)| FetchedTopic {
                topic: topic.clone(),
                topic_id: Uuid::nil(),
                partitions: partitions
                    .iter()
                    .map(|(partition, committed)| fetched(*partition, Some(committed)))
                    .collect(),
            })
            .collect()
    }

    /// The tombstones of an OffsetDelete, and what to answer for each partition (KIP-496).
    #[allow(
        clippy::type_complexity,
        reason = "records and answers, as in a commit"
    )]
    pub(crate) fn decide_delete_offsets(
        &self,
        topics: &[(String, Vec<i32>)],
    ) -> Result<(Vec<Record>, Vec<Vec<GroupError>>), GroupError> {
        if self.state != GroupState::Empty && !self.uses_consumer_protocol() {
            return Err(GroupError::NonEmptyGroup);
        }
        let mut records = Vec::new();
        let mut results = Vec::with_capacity(topics.len());
        for (topic, partitions) in topics {
            if self.is_subscribed_to(topic) {
                results.push(vec![GroupError::GroupSubscribedToTopic; partitions.len()]);
                continue;
            }
            for partition in partitions {
                let committed = self.offsets.get(topic);
                if committed.is_some_and(|offsets| offsets.contains_key(partition)) {
                    records.push(records::offset_commit_tombstone(
                        &self.id, topic, *partition,
                    ));
                }
            }
            results.push(vec![GroupError::None; partitions.len()]);
        }
        Ok((records, results))
    }

    /// Tombstones of everything, the group last.
    pub(crate) fn decide_delete(&self) -> Result<Vec<Record>, GroupError> {
        if self.state != GroupState::Empty {
            return Err(GroupError::NonEmptyGroup);
        }
        let mut tombstones = self.offset_tombstones(|_, _, _| true);
        tombstones.push(records::group_metadata_tombstone(&self.id));
        Ok(tombstones)
    }

    /// The tombstones that time demands: offsets that expired, and a group without any (KIP-211).
    pub(crate) fn decide_expiry(&self, config: &GroupConfig, now: Now) -> Vec<Record> {
        // Since when an offset is without use: a group that had members counts from when the last left.
        let since_ms: fn(&Group, &CommittedOffset) -> i64 = match (&self.protocol_type, self.state)
        {
            (None, _) => |_, committed| committed.commit_ms,
            (Some(_), GroupState::Empty) => {
                |group, committed| group.state_since_ms.unwrap_or(committed.commit_ms)
            }
            // Where the subscription is known, other topics expire also while the group lives.
            (Some(_), GroupState::Stable) if self.subscribed.is_some() => {
                |_, committed| committed.commit_ms
            }
            _ => return Vec::new(),
        };
        let mut tombstones = self.offset_tombstones(|group, topic, committed| {
            !group.is_subscribed_to(topic)
                && match committed.expire_ms {
                    -1 => {
                        now.wall_ms.saturating_sub(since_ms(group, committed))
                            >= config.offsets_retention_ms
                    }
                    expire_ms => now.wall_ms >= expire_ms,
                }
        });
        let left = self.offsets.values().map(|partitions| partitions.len());
        if self.state == GroupState::Empty && tombstones.len() == left.sum::<usize>() {
            tombstones.push(records::group_metadata_tombstone(&self.id));
        }
        tombstones
    }

    /// The tombstones of a deleted topic's offsets; those of a topic that has its name today stay.
    pub(crate) fn decide_topic_deleted(&self, topic: &str, topic_id: TopicId) -> Vec<Record> {
        self.offset_tombstones(|_, name, committed| {
            name == topic && same_topic(committed.topic_id, topic_id)
        })
    }

    fn offset_tombstones(
        &self,
        chosen: impl Fn(&Group, &str, &CommittedOffset) -> bool,
    ) -> Vec<Record> {
        let mut tombstones = Vec::new();
        for (topic, partitions) in &self.offsets {
            for (partition, committed) in partitions {
                if chosen(self, topic, committed) {
                    tombstones.push(records::offset_commit_tombstone(
                        &self.id, topic, *partition,
                    ));
                }
            }
        }
        tombstones
    }
}
