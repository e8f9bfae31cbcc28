//! One partition on the core that owns it: who waits for its appends, who watches it grow. Knows its
//! log only by name; bytes on disk are the store's.

use std::collections::VecDeque;
use std::sync::Arc;

use ring::buf::Chunk;
use storage::store::LogId;
use storage::types::LeaderEpoch;

use crate::config::topic::TopicConfig;
use crate::ids::{Key, OwnMap};
use crate::mesh::PartitionRef;

/// A partition of this core.
#[derive(Debug)]
pub struct Partition {
    /// Which.
    pub name: PartitionRef,
    /// The name of its topic.
    pub topic: Arc<str>,
    /// Its log in this core's store.
    pub log: LogId,
    /// Stamped into every batch that is appended.
    pub leader_epoch: LeaderEpoch,
    /// The topic's configuration as it holds now.
    pub config: Arc<TopicConfig>,
    /// Whether the creation is durable; until then appends queue.
    pub created: bool,
    /// Appends that may not start yet, in order of arrival.
    pub queue: VecDeque<QueuedAppend>,
    /// Appends that are not yet acknowledged, by offset.
    pub unacked: VecDeque<Unacked>,
    /// Duplicates that wait until their original is acknowledged.
    pub duplicates: Vec<Unacked>,
    /// Parked fetches.
    pub watches: Vec<Key>,
}

/// The partitions of a core, by their names and by their logs.
///
/// A name leads to a log's number and that to the partition: of thousands of partitions the names alone stay
/// near the processor, and what is looked for by its log needs no name.
#[derive(Debug, Default)]
pub struct Partitions {
    by_name: OwnMap<PartitionRef, LogId>,
    by_log: Vec<Option<Box<Partition>>>,
}

impl Partitions {
    /// The partition of this name.
    pub fn get(&self, name: &PartitionRef) -> Option<&Partition> {
        self.of_log(*self.by_name.get(name)?)
    }

    /// The partition of this name.
    pub fn get_mut(&mut self, name: &PartitionRef) -> Option<&mut Partition> {
        self.of_log_mut(*self.by_name.get(name)?)
    }

    /// The partition whose log this is.
    pub fn of_log(&self, log: LogId) -> Option<&Partition> {
        self.by_log.get(log.0 as usize)?.as_deref()
    }

    /// The partition whose log this is.
    pub fn of_log_mut(&mut self, log: LogId) -> Option<&mut Partition> {
        self.by_log.get_mut(log.0 as usize)?.as_deref_mut()
    }

    /// Takes in a partition that is not there.
    pub fn insert(&mut self, partition: Partition) {
        let at = partition.log.0 as usize;
        if at >= self.by_log.len() {
            self.by_log.resize_with(at + 1, || None);
        }
        self.by_name.insert(partition.name, partition.log);
        self.by_log[at] = Some(Box::new(partition));
    }

    /// Forgets a partition.
    pub fn remove(&mut self, name: &PartitionRef) -> Option<Box<Partition>> {
        let log = self.by_name.remove(name)?;
        self.by_log[log.0 as usize].take()
    }

    /// Whether a partition is there.
    pub fn contains(&self, name: &PartitionRef) -> bool {
        self.by_name.contains_key(name)
    }

    /// All names, in no particular order.
    pub fn names(&self) -> impl Iterator<Item = &PartitionRef> {
        self.by_name.keys()
    }

    /// All partitions, in the order of their logs.
    pub fn values(&self) -> impl Iterator<Item = &Partition> {
        self.by_log.iter().flatten().map(Box::as_ref)
    }
}

/// The names of a core's partitions by their logs, which are numbered in the order of their creation.
#[derive(Debug, Default)]
pub struct ByLog(Vec<Option<PartitionRef>>);

impl ByLog {
    /// Notes whose a log is.
    pub fn insert(&mut self, log: LogId, name: PartitionRef) {
        let at = log.0 as usize;
        if at >= self.0.len() {
            self.0.resize(at + 1, None);
        }
        self.0[at] = Some(name);
    }

    /// Whose a log is.
    pub fn get(&self, log: LogId) -> Option<&PartitionRef> {
        self.0.get(log.0 as usize)?.as_ref()
    }

    /// Forgets a log.
    pub fn remove(&mut self, log: LogId) {
        if let Some(name) = self.0.get_mut(log.0 as usize) {
            *name = None;
        }
    }
}

/// An append that waits for its creation, for memory, or for the walk of an earlier batch.
#[derive(Debug)]
pub struct QueuedAppend {
    /// Where its result goes.
    pub waiter: AppendWaiter,
    /// The batch.
    pub bytes: Chunk,
    /// -1, 0 or 1, as the client asked.
    pub acks: i16,
    /// The version of its Produce request.
    pub api_version: i16,
    /// How far it is.
    pub walk: WalkState,
}

/// Whether the records of a queued batch have been looked at.
#[derive(Debug)]
pub enum WalkState {
    /// Not yet.
    NotWalked,
    /// A task is at it.
    Walking,
    /// What the task found.
    Walked(Box<crate::walk_task::Walked>),
}

/// Where the result of an append goes: a part of an append group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendWaiter {
    /// The group.
    pub group: Key,
    /// Which of its parts.
    pub part: usize,
}

/// An append whose acknowledgement waits for the disk.
#[derive(Clone, Copy, Debug)]
pub struct Unacked {
    /// Acknowledged when the partition is durable up to here.
    pub offset_end: i64,
    /// Its offset.
    pub base_offset: i64,
    /// Its time, where the broker sets it, else -1.
    pub log_append_time_ms: i64,
    /// Its size, in bytes.
    pub bytes: usize,
    /// Who waits.
    pub waiter: Waiter,
}

/// Who waits for an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiter {
    /// A client.
    Produce(AppendWaiter),
    /// Nobody: the client asked for no acknowledgement, or the broker itself wrote.
    Nobody,
}

impl Partition {
    /// A partition that nobody waits for.
    pub fn new(
        name: PartitionRef,
        topic: Arc<str>,
        log: LogId,
        leader_epoch: LeaderEpoch,
        config: Arc<TopicConfig>,
        created: bool,
    ) -> Partition {
        Partition {
            name,
            topic,
            log,
            leader_epoch,
            config,
            created,
            queue: VecDeque::new(),
            unacked: VecDeque::new(),
            duplicates: Vec::new(),
            watches: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::types::TopicId;

    fn name(topic: u128, partition: i32) -> PartitionRef {
        PartitionRef {
            topic_id: TopicId::from_u128(topic),
            partition,
        }
    }

    fn partition(name: PartitionRef, log: u32) -> Partition {
        let config = crate::config::BrokerConfig::default().topic_defaults;
        Partition::new(
            name,
            "t".into(),
            LogId(log),
            LeaderEpoch(0),
            Arc::new(config),
            true,
        )
    }

    #[test]
    fn partitions_are_found_by_name_and_by_log() {
        let mut all = Partitions::default();
        // In another order than that of their logs, which leaves one out: the metadata's has no partition.
        for (partition_index, log) in [(0, 3), (1, 1), (2, 0)] {
            all.insert(partition(name(1, partition_index), log));
        }
        let logs: Vec<u32> = all.values().map(|partition| partition.log.0).collect();
        assert_eq!(logs, [0, 1, 3]);
        assert!(all.of_log(LogId(2)).is_none() && all.of_log(LogId(9)).is_none());
        assert_eq!(all.get(&name(1, 1)).map(|found| found.log), Some(LogId(1)));
        assert_eq!(
            all.of_log_mut(LogId(3)).map(|found| found.name),
            Some(name(1, 0))
        );
        assert!(all.get(&name(2, 1)).is_none());

        // Deleted and made again under its name: another log, and nothing under the old one.
        assert_eq!(all.remove(&name(1, 1)).map(|gone| gone.log), Some(LogId(1)));
        assert!(all.remove(&name(1, 1)).is_none() && !all.contains(&name(1, 1)));
        all.insert(partition(name(1, 1), 4));
        assert!(all.of_log(LogId(1)).is_none());
        assert_eq!(
            all.get_mut(&name(1, 1)).map(|found| found.log),
            Some(LogId(4))
        );
        assert_eq!(all.names().count(), 3);
    }
}
