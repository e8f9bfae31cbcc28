//! The store of one core: its partition logs, the journals they share, and when slow work is due.
//! Lives on that core and is touched by no other; a state machine that knows no clock, no file and no
//! network. What it wants done leaves as [`StoreAction`], what happened comes back by `on_*`, what
//! the shard should know leaves as [`Notice`].
//!
//! How a record stays alive:
//! - `append` copies a batch once, into the write that its log directory's journal is gathering.
//!   `end_turn` seals that write; two may be in flight; the rest gathers. The batch stays readable in
//!   that very memory (`PartitionLog::dirty`) until it is written to its segment, and for a while
//!   after (`clean`).
//! - A log's acknowledgement mark is a contiguous prefix: it follows the journal's marks, which only
//!   move in sequence. What a segment's file holds beyond them counts for nothing: its length is what
//!   checkpoint and journal say.
//! - A log that brings much has its batches written to its segment beside the journal's write, which
//!   keeps a reference only (`straight`). Such a write counts as durable when what it refers to is.
//! - Write-back puts whole blocks into the segment, in chunks, large batches from where they lie in
//!   memory (`gather`); many segments are flushed as one (`flushes`). The partial block at the end
//!   stays dirty, and the journal writes that hold it stay pinned. To free the journal (or when a log is
//!   idle, or at a shutdown) the log is settled: its tail block is written padded with zeros and
//!   flushed. From then on `Segment::written` is no multiple of a block, and before the block is
//!   rewritten its head goes to the journal as a `TailBlock` entry, durable first.
//! - `Segment::image.synced_bytes` only counts completed flushes. A log's `pinned_sequence` is the
//!   oldest journal write that holds something not below that. The minimum over all logs of a
//!   directory, taken in the same moment as the checkpoint's contents, is the checkpoint's
//!   `replay_from`; when the checkpoint is durable, journal files below it are recycled. Nothing else
//!   ever frees a journal file.
//! - A checkpoint is a snapshot of everything up to a sealed sequence, and is written only after that
//!   sequence is durable: it never says more than the journal did.
//! - Control entries (creation, roll, log start, deletion, compaction) are durable before the file
//!   operation or the answer that they stand for; both are `effects` of their write.
//! - Space: what waits in memory for unallocated disk space is always covered by the directory's
//!   reserve file (`space`); when a segment cannot grow, the reserve shrinks and appends stop.
//! - A failed journal write or flush takes the directory offline for good; marks stay where they are.

mod api;
mod append;
mod cache;
mod checkpoints;
mod cleaner;
mod durable;
mod flushes;
mod gather;
mod indexes;
mod line;
mod maintain;
pub(crate) mod partition;
mod reads;
mod recent;
mod start;
mod straight;
#[cfg(test)]
mod tests;
mod windows;
mod write_back;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

pub use crate::tasks::{StoreTask, StoreTaskDone, partition_metadata};
pub use api::{
    AppendError, AppendStamp, Appended, DurableWrite, FileRef, Found, LogConfig, LogId, Lookup,
    LookupKind, Notice, PartitionKey, Read, ReadError, StoreAction, StoreConfig, StoreCounters,
    StoreGauges,
};
pub(crate) use append::note_image;
pub(crate) use durable::{aside_dir_name, deleted_dir_name};
pub use partition::Replacement;
pub(crate) use straight::Part;

use ring::buf::AlignedBuf;
use ring::prefetch::prefetch;

use crate::batch::BatchHeader;
use crate::journal::{Entry, EntryKind, Journal};
use crate::leader_epochs::LeaderEpochs;
use crate::producer_state::{ProducerStates, SequenceCheck};
use crate::space::DirSpace;
use crate::tasks::Job;
use crate::types::{LeaderEpoch, Now, Offset, PartitionIndex, TopicId};
use cache::Cache;
use durable::SealedWrite;
use partition::{LogState, PartitionLog};
use reads::Reads;

/// Files that go away at a wall-clock time; part of the checkpoint, so that a restart goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Relative to the log directory: a file, or a directory with files in it.
    pub path: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// When, in milliseconds since 1970.
    pub due_ms: i64,
}

/// One log directory as this core sees it.
pub(crate) struct Dir {
    path: PathBuf,
    offline: bool,
    journal: Journal,
    /// Writes that are sealed and not durable, oldest first.
    sealed: VecDeque<SealedWrite>,
    /// Logs that gather batches for their segments directly, and how many bytes of them.
    straights: Vec<LogId>,
    straight_bytes: u64,
    /// What is left of a buffer for such.
    straight_arena: Option<AlignedBuf>,
    cache: Cache,
    /// When writes without a flush must be flushed.
    flush_due_us: Option<u64>,
    /// When what is gathered for the next write must be flushed, if it gets no flush of its own.
    gathered_due_us: Option<u64>,
    flushing: bool,
    flushes: flushes::Flushes,
    checkpoints: checkpoints::Checkpoints,
    space: DirSpace,
    /// A journal file found no room: it is tried again when the reserve has changed.
    journal_starved: bool,
    deletions: Vec<Deletion>,
    /// Being removed.
    deleting: Vec<Deletion>,
    /// Directories of deleted partitions that still have their old name, and of how many of one name
    /// nobody has told yet.
    renaming: HashMap<String, usize>,
    /// Appends were refused here for want of room, since it was last told that there is some.
    waits_for_room: bool,
    /// The first of them.
    first_in_line: Option<line::FirstInLine>,
    partitions: usize,
    /// The write that carries the last of what recovery found.
    start_sequence: u64,
    ready: bool,
    settled: bool,
}

/// See the module's documentation.
pub struct Store {
    config: StoreConfig,
    dirs: Vec<Dir>,
    logs: Vec<Option<Box<PartitionLog>>>,
    by_key: BTreeMap<(TopicId, PartitionIndex), LogId>,
    actions: VecDeque<StoreAction>,
    notices: VecDeque<Notice>,
    /// Directory and sequence of each write in flight, by token.
    writes: HashMap<u64, (usize, u64)>,
    next_token: u64,
    next_ticket: u64,
    next_incarnation: u64,
    counters: StoreCounters,
    dirty_bytes: u64,
    clean_bytes: u64,
    waits_for_room: bool,
    /// Somebody waits for room, and write-back has not looked for all that gives it since something changed.
    look_for_room: bool,
    write_back: write_back::Queue,
    reads: Reads,
    indexes: indexes::Indexes,
    ready: bool,
    shutting_down: bool,
    settled: bool,
    tasks_running: usize,
    due: maintain::Due,
    cleaning: bool,
}

impl Store {
    /// Makes a partition on the log directory with the fewest of this core; it takes appends after
    /// [`Notice::Created`]. A partition that exists is returned as it is (and told again).
    pub fn create_partition(
        &mut self,
        now: Now,
        key: PartitionKey,
        config: impl Into<Arc<LogConfig>>,
    ) -> LogId {
        let config = config.into();
        if let Some(log) = self.find(key.topic_id, key.partition) {
            self.set_config(now, log, config);
            if self.log(log).is_some_and(|p| p.state == LogState::Live) {
                self.notices.push_back(Notice::Created { log });
            }
            return log;
        }
        let dir = (0..self.dirs.len())
            .min_by_key(|&dir| {
                let candidate = &self.dirs[dir];
                (
                    candidate.offline,
                    candidate.space.is_full(),
                    candidate.partitions,
                )
            })
            .expect("a store has a directory");
        let log = LogId(self.logs.len() as u32);
        let incarnation = self.config.epoch << 32 | self.next_incarnation;
        self.next_incarnation += 1;
        let name = key.topic.clone().into_bytes();
        let entry_key = (key.topic_id, key.partition);
        let path = self.dirs[dir].path.clone();
        self.logs.push(Some(Box::new(PartitionLog::new(
            key,
            dir,
            &path,
            incarnation,
            config,
            now.wall_ms,
        ))));
        self.by_key.insert(entry_key, log);
        self.dirs[dir].partitions += 1;
        self.add_control(log, EntryKind::Created, &name, |entry| {
            entry.value = now.wall_ms;
        });
        log
    }

    /// Deletes a partition. It takes nothing more from now on; [`Notice::Deleted`] follows.
    pub fn delete_partition(&mut self, now: Now, log: LogId) {
        let Some(partition) = self.log_mut(log) else {
            return;
        };
        if partition.state == LogState::Deleting {
            return;
        }
        partition.state = LogState::Deleting;
        let key = (partition.key.topic_id, partition.key.partition);
        let due = now.wall_ms + partition.config.file_delete_delay_ms.max(0);
        self.end_straight(log);
        self.by_key.remove(&key);
        self.add_control(log, EntryKind::Deleted, &[], |entry| entry.value = due);
    }

    /// Changes a log's configuration; recovered logs delete and compact nothing before the first call.
    pub fn set_config(&mut self, _now: Now, log: LogId, config: impl Into<Arc<LogConfig>>) {
        if let Some(partition) = self.log_mut(log) {
            partition.config = config.into();
            partition.configured = true;
        }
    }

    /// How often the cleaner looks for work when there was none (`log.cleaner.backoff.ms`), and how many
    /// bytes its map of keys may take.
    pub fn set_cleaner(&mut self, backoff_ms: u64, map_bytes: usize) {
        self.config.cleaner_backoff_ms = backoff_ms;
        self.config.cleaner_memory_bytes = map_bytes;
    }

    /// How long a producer's sequence is remembered (`producer.id.expiration.ms`), in milliseconds.
    pub fn set_producer_expiration(&mut self, expiration_ms: i64) {
        self.config.producer_expiration_ms = expiration_ms;
    }

    /// The log of a partition, if this core has it.
    pub fn find(&self, topic_id: TopicId, partition: PartitionIndex) -> Option<LogId> {
        self.by_key.get(&(topic_id, partition)).copied()
    }

    /// All logs with their partitions, in no particular order.
    pub fn logs(&self) -> impl Iterator<Item = (LogId, &PartitionKey)> {
        self.by_key
            .values()
            .filter_map(|&log| Some((log, &self.log(log)?.key)))
    }

    /// The log start offset.
    pub fn log_start(&self, log: LogId) -> Option<Offset> {
        Some(self.log(log)?.log_start)
    }

    /// One past the newest record, acknowledged or not.
    pub fn log_end(&self, log: LogId) -> Option<Offset> {
        Some(self.log(log)?.log_end)
    }

    /// The acknowledgement mark: everything below it is durable (or written, where
    /// `flush.messages` is above 1). High watermark and reads stay below it.
    pub fn durable_end(&self, log: LogId) -> Option<Offset> {
        Some(self.log(log)?.durable_end)
    }

    /// Bytes of a log's segments, and the index of its log directory (for DescribeLogDirs).
    pub fn size_bytes(&self, log: LogId) -> Option<(u64, usize)> {
        let partition = self.log(log)?;
        Some((partition.size_bytes(), partition.dir))
    }

    /// Whether a log directory is offline.
    pub fn is_dir_offline(&self, dir: usize) -> bool {
        self.dirs[dir].offline
    }

    /// Whether a log's directory is offline.
    pub fn is_offline(&self, log: LogId) -> bool {
        self.log(log)
            .is_some_and(|partition| self.dirs[partition.dir].offline)
    }

    /// The log's leader epochs and where they began.
    pub fn leader_epochs(&self, log: LogId) -> Option<&LeaderEpochs> {
        Some(&self.log(log)?.epochs)
    }

    /// The largest epoch at or below `epoch` and where it ended, for OffsetForLeaderEpoch, while the
    /// leader's epoch is `current`; `None` above that.
    pub fn epoch_end(
        &self,
        log: LogId,
        epoch: LeaderEpoch,
        current: LeaderEpoch,
    ) -> Option<(LeaderEpoch, Offset)> {
        let partition = self.log(log)?;
        let epochs = &partition.epochs;
        epochs.end_offset_for(epoch, current, partition.log_end)
    }

    /// How a batch's producer sequence stands to what the log has taken.
    pub fn check_sequence(&self, log: LogId, header: &BatchHeader) -> Option<SequenceCheck> {
        Some(self.log(log)?.producers.check(header))
    }

    /// The producers that a log remembers.
    pub fn producers(&self, log: LogId) -> Option<&ProducerStates> {
        Some(&self.log(log)?.producers)
    }

    /// What the store has done.
    pub fn counters(&self) -> StoreCounters {
        StoreCounters {
            read_ahead_unused_bytes: self.reads.unused_bytes(),
            ..self.counters
        }
    }

    /// What the store holds.
    pub fn gauges(&self) -> StoreGauges {
        StoreGauges {
            dirty_bytes: self.dirty_bytes,
            clean_bytes: self.clean_bytes,
            windows_bytes: self.reads.windows_bytes(),
            partitions: self.by_key.len() as u64,
            journal_files: self
                .dirs
                .iter()
                .map(|dir| dir.journal.files_count() as u64)
                .sum(),
        }
    }

    /// Whether [`Notice::Ready`] was told.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// What the world must do next. To be asked until it says `None`, after every other call.
    pub fn poll_action(&mut self) -> Option<StoreAction> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        for dir in 0..self.dirs.len() {
            if self.dirs[dir].offline {
                continue;
            }
            let token = self.next_token;
            if let Some((sequence, write)) = self.dirs[dir].journal.poll_write(token) {
                self.next_token += 1;
                self.writes.insert(token, (dir, sequence));
                if !write.file.is_of_log() {
                    self.counters.journal_writes += 1;
                    self.counters.journal_bytes += write.bytes.len() as u64;
                }
                return Some(StoreAction::DurableWrite(write));
            }
            self.poll_journal_need(dir);
        }
        self.actions.pop_front()
    }

    /// Has the memory brought near that an append to this log will touch: first what leads to the rest.
    /// To be asked some appends ahead.
    pub fn expect_append(&self, log: LogId, leads: bool) {
        let Some(partition) = self.log(log) else {
            return;
        };
        if leads {
            prefetch(partition);
            return;
        }
        prefetch(partition.active());
        if let Some(start) = partition.epochs.entries().last() {
            prefetch(start);
        }
    }

    /// The log that becomes durable by the notice that comes after `skip` others, if it is one of that kind.
    pub fn durable_ahead(&self, skip: usize) -> Option<LogId> {
        match self.notices.get(skip)? {
            Notice::Durable { log, .. } => Some(*log),
            _ => None,
        }
    }

    /// What the shard should know next.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    fn log(&self, log: LogId) -> Option<&PartitionLog> {
        self.logs.get(log.0 as usize)?.as_deref()
    }

    fn log_mut(&mut self, log: LogId) -> Option<&mut PartitionLog> {
        self.logs.get_mut(log.0 as usize)?.as_deref_mut()
    }

    fn spawn(&mut self, job: Job) {
        self.tasks_running += 1;
        self.actions
            .push_back(StoreAction::Spawn(StoreTask { job }));
    }

    /// Puts a control entry of a log into its journal; always flushed. Returns its sequence.
    fn add_control(
        &mut self,
        log: LogId,
        kind: EntryKind,
        payload: &[u8],
        set: impl FnOnce(&mut Entry),
    ) -> u64 {
        let partition = self.log(log).expect("a control entry is of a log");
        let dir = partition.dir;
        let mut entry = Entry {
            kind,
            topic_id: partition.key.topic_id,
            partition: partition.key.partition,
            incarnation: partition.incarnation,
            segment_base: partition.active().base(),
            position: 0,
            base_offset: Offset(0),
            offset_end: Offset(0),
            value: 0,
        };
        set(&mut entry);
        let (sequence, sealed) =
            self.dirs[dir]
                .journal
                .add(log, entry, payload.len(), true, |out| {
                    out.copy_from_slice(payload);
                });
        self.dirs[dir].checkpoints.changed = true;
        if let Some(sealed) = sealed {
            self.on_sealed(dir, sealed);
        }
        sequence
    }
}
