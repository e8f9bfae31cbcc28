//! One partition on the core that owns it: who waits for its appends, who watches it grow. Knows its
//! log only by name; bytes on disk are the store's.

use std::collections::VecDeque;
use std::sync::Arc;

use ring::buf::Chunk;
use storage::store::LogId;
use storage::types::LeaderEpoch;

use crate::config::topic::TopicConfig;
use crate::ids::Key;
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

/// The partitions of a core by their logs, which are numbered in the order of their creation.
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
