//! The words between a store and the shard above it: configurations, requests, actions, notices and
//! errors. Plain values of the core that uses them; they know no journal and no file.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use ring::buf::{BLOCK_BYTES, Shared};

use crate::disk::{Disk, OpenMode};
use crate::tasks::StoreTask;
use crate::types::{CoreId, LeaderEpoch, Offset, PartitionIndex, TopicId};

/// Names a partition for ever.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionKey {
    /// The topic's id; a topic deleted and made again gets another.
    pub topic_id: TopicId,
    /// The topic's name.
    pub topic: String,
    /// Index within the topic.
    pub partition: PartitionIndex,
}

impl PartitionKey {
    /// The name of the partition's directory: `<topic>-<partition>`.
    pub fn dir_name(&self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }
}

/// A partition log of one [`Store`](super::Store); never used again after its deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId(pub u32);

/// The usual [`StoreConfig::straight_bytes_min`], in bytes. A durable write into space that was never
/// written costs more than one into the journal's written blocks, and saves the write-back: it pays for
/// large turns only. No kept measurement says yet from where on.
const STRAIGHT_BYTES_MIN: u64 = 512 << 10;

/// The usual [`StoreConfig::flush_together_min`]: flushing a file system looks at all of its files that
/// changed, whoever wrote to them.
const FLUSH_TOGETHER_MIN: usize = 16;

/// What windows of reads may take however little memory there is, in bytes: a few of one read each.
const WINDOWS_BYTES_MIN: u64 = 8 << 20;

/// How a store is set up; fixed while it runs.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The core that owns the store.
    pub core: CoreId,
    /// How many data cores the broker has.
    pub cores: u16,
    /// The log directories (`log.dirs`), the same on every core.
    pub dirs: Vec<PathBuf>,
    /// The durable epoch of this start, from recovery; higher than that of any start before.
    pub epoch: u64,
    /// How many bytes may wait in memory for their segments; beyond it appends are refused as
    /// [`AppendError::Busy`].
    pub dirty_bytes_max: u64,
    /// How many bytes that are safe in segments stay in memory for the newest consumers.
    pub clean_bytes_max: u64,
    /// How many bytes of what was read from disk, or ahead of its readers, stay in memory: a cache of
    /// their own, so that scans do not displace the newest data.
    pub windows_bytes_max: u64,
    /// A random number that no client can know, different on every start: see `journal`.
    pub journal_salt: u64,
    /// Size of a journal file.
    pub journal_file_bytes: u64,
    /// How many journal files a core may have in one log directory.
    pub journal_files_max: usize,
    /// From how many bytes in one write of the journal a partition's batches go straight to its segment.
    pub straight_bytes_min: u64,
    /// From how many segments on that wait for a flush one flush of the whole file system takes its place.
    pub flush_together_min: usize,
    /// Disk space kept aside in each log directory for data that is acknowledged and not yet in
    /// allocated segment space. Nothing larger than this is ever waiting there.
    pub reserve_bytes: u64,
    /// How often dirty data is written back although nothing presses, in milliseconds.
    pub write_back_ms: u64,
    /// After how long without an append a partition's partial tail block is written too, in
    /// milliseconds.
    pub settle_idle_ms: u64,
    /// How often a checkpoint is taken when something changed, in milliseconds.
    pub checkpoint_ms: u64,
    /// How often retention is looked at (`log.retention.check.interval.ms`).
    pub retention_check_ms: u64,
    /// How often the cleaner looks for work when there was none (`log.cleaner.backoff.ms`).
    pub cleaner_backoff_ms: u64,
    /// Memory for the cleaner's map of keys (`log.cleaner.dedupe.buffer.size`), in bytes.
    pub cleaner_memory_bytes: usize,
    /// How long a producer's sequence is remembered (`producer.id.expiration.ms`).
    pub producer_expiration_ms: i64,
}

impl StoreConfig {
    /// The usual setting for a core whose store may use `memory_bytes`.
    pub fn new(
        core: CoreId,
        cores: u16,
        dirs: Vec<PathBuf>,
        epoch: u64,
        journal_salt: u64,
        memory_bytes: u64,
    ) -> StoreConfig {
        // What a crash leaves in the journal comes back as dirty memory, so all journal files
        // together stay below that budget: a quarter below, which is for the places of small batches
        // in their logs.
        let dirty_bytes_max = (memory_bytes / 2).max(8 << 20);
        // A quarter for what is kept of written and of read data, beside the least that reading needs.
        let windows_bytes_max = (memory_bytes / 8).max(WINDOWS_BYTES_MIN);
        let journal_files_max = 8;
        let journal_file_bytes = (dirty_bytes_max / 4 * 3 / journal_files_max as u64)
            .next_multiple_of(BLOCK_BYTES as u64)
            .clamp(1 << 20, 64 << 20);
        StoreConfig {
            core,
            cores,
            dirs,
            epoch,
            dirty_bytes_max,
            clean_bytes_max: memory_bytes / 4 - (windows_bytes_max - WINDOWS_BYTES_MIN),
            windows_bytes_max,
            journal_salt,
            journal_file_bytes,
            journal_files_max,
            straight_bytes_min: STRAIGHT_BYTES_MIN,
            flush_together_min: FLUSH_TOGETHER_MIN,
            reserve_bytes: dirty_bytes_max + dirty_bytes_max / 2,
            write_back_ms: 1_000,
            settle_idle_ms: 3_000,
            checkpoint_ms: 15_000,
            retention_check_ms: 300_000,
            cleaner_backoff_ms: 15_000,
            cleaner_memory_bytes: 16 << 20,
            producer_expiration_ms: 86_400_000,
        }
    }
}

/// The topic configurations that concern the log, under Kafka's names and with its defaults, but for
/// `flush_messages`.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`
    pub segment_bytes: u64,
    /// `segment.ms`
    pub segment_ms: i64,
    /// `segment.jitter.ms`
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`
    pub segment_index_bytes: u64,
    /// `index.interval.bytes`
    pub index_interval_bytes: u64,
    /// `retention.ms`; `None` keeps for ever.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`; `None` is unlimited.
    pub retention_bytes: Option<u64>,
    /// Whether `cleanup.policy` holds `delete`.
    pub cleanup_delete: bool,
    /// Whether `cleanup.policy` holds `compact`.
    pub cleanup_compact: bool,
    /// `delete.retention.ms`
    pub delete_retention_ms: i64,
    /// `min.compaction.lag.ms`
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`
    pub max_compaction_lag_ms: i64,
    /// `min.cleanable.dirty.ratio`
    pub min_cleanable_dirty_ratio: f64,
    /// `file.delete.delay.ms`
    pub file_delete_delay_ms: i64,
    /// `flush.messages`: 1 acknowledges after the flush, more after the write.
    pub flush_messages: i64,
    /// `flush.ms`; unset means a second where `flush_messages` is above 1.
    pub flush_ms: Option<i64>,
    /// `preallocate`
    pub preallocate: bool,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: Some(604_800_000),
            retention_bytes: None,
            cleanup_delete: true,
            cleanup_compact: false,
            delete_retention_ms: 86_400_000,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            min_cleanable_dirty_ratio: 0.5,
            file_delete_delay_ms: 60_000,
            flush_messages: 1,
            flush_ms: None,
            preallocate: false,
        }
    }
}

/// What an append stamps into its batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendStamp {
    /// The leader epoch that the batch is written under.
    pub leader_epoch: LeaderEpoch,
    /// For `message.timestamp.type=LogAppendTime`: the time, in milliseconds since 1970. It never
    /// goes back within a partition; [`Appended`] says what was taken.
    pub log_append_time_ms: Option<i64>,
}

/// Where an append went. Not durable yet: see [`Notice::Durable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// One past its last record.
    pub offset_end: Offset,
    /// The LogAppendTime that was stamped, if one was asked for.
    pub log_append_time_ms: Option<i64>,
}

/// Why an append was refused. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// There is no such log, or its creation is not durable yet, or it is being deleted.
    NotReady,
    /// Memory or journal is full for the moment: try again after [`Notice::Room`].
    Busy,
    /// The log directory is full; [`Notice::DirRoom`] says when it no longer is.
    DiskFull,
    /// The log directory failed and is offline until a restart.
    Offline,
    /// The bytes are not one whole batch of format v2.
    Malformed,
}

/// Why a read or a lookup failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// There is no such log.
    NotFound,
    /// The offset lies below the log start or beyond the end.
    OutOfRange,
    /// A batch on disk does not match its checksum; it is not served.
    Corrupt,
    /// The disk failed.
    Io,
}

/// The answer to a read.
#[derive(Debug)]
pub enum Read {
    /// Whole batches in offset order; the first may begin below the offset asked for. Empty when
    /// there is nothing below `up_to`.
    Ready(Vec<Shared>),
    /// The disk is asked; [`Notice::ReadDone`] follows with this ticket.
    Disk(u64),
    /// It cannot be read.
    Err(ReadError),
}

/// What [`Store::lookup`](super::Store::lookup) looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LookupKind {
    /// The first record whose timestamp is at least this, in milliseconds since 1970.
    ByTimestamp(i64),
    /// The record with the largest timestamp; the first of several.
    MaxTimestamp,
}

/// A record that a lookup found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The record's timestamp, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The record's offset.
    pub offset: Offset,
    /// The leader epoch of its batch.
    pub leader_epoch: LeaderEpoch,
}

/// The answer to a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Answered from memory; `None` if no record matches.
    Ready(Option<Found>),
    /// The disk is asked; [`Notice::LookupDone`] follows with this ticket.
    Disk(u64),
    /// It cannot be read.
    Err(ReadError),
}

/// What the world must do next for a store.
#[derive(Debug)]
pub enum StoreAction {
    /// A write to a journal or beside it. Its outcome comes back through
    /// [`Store::on_write_done`](super::Store::on_write_done).
    DurableWrite(DurableWrite),
    /// Slow work: run [`StoreTask::run`] and give its result to
    /// [`Store::on_task_done`](super::Store::on_task_done).
    Spawn(StoreTask),
}

/// A file that is written beside the serving of a core: one of the journal, or a segment that takes
/// straight writes. Named by a number that is unique within its core and log directory, not beyond.
#[derive(Clone, Debug)]
pub struct FileRef {
    /// The number.
    pub id: u64,
    /// Where it is. It exists and has space for what is written. When nobody else holds this value, the
    /// store will not write to the file again, and it can be closed.
    pub path: Rc<PathBuf>,
}

impl FileRef {
    /// Marks the numbers of segments.
    const OF_LOG: u64 = 1 << 63;

    pub(crate) fn of_log(log: LogId) -> u64 {
        Self::OF_LOG | u64::from(log.0)
    }

    /// Whether it is a segment.
    pub(crate) fn is_of_log(&self) -> bool {
        self.id & Self::OF_LOG != 0
    }
}

/// One write to a journal, or to a segment beside it. At most two of a journal are out at a time for a
/// log directory, each with what goes beside it; they may complete in any order, and their flush, where
/// asked for, must cover at least the bytes of the write itself and what is needed to find them.
#[derive(Debug)]
pub struct DurableWrite {
    /// Comes back with the outcome.
    pub token: u64,
    /// The file.
    pub file: FileRef,
    /// Where, in bytes; a multiple of the block size.
    pub position: u64,
    /// What; aligned, a multiple of the block size.
    pub bytes: Shared,
    /// Whether completion must mean durable (write + linked fdatasync, or RWF_DSYNC).
    pub sync: bool,
}

impl DurableWrite {
    /// Does the write over a [`Disk`]; for simulations and rings without links.
    pub async fn run<D: Disk>(self, disk: D) -> (u64, io::Result<()>) {
        let outcome = async {
            let file = disk.open(&self.file.path, OpenMode::ReadWrite).await?;
            disk.write_at(&file, self.position, self.bytes.clone())
                .await?;
            if self.sync {
                disk.sync_data(&file).await?;
            }
            Ok(())
        };
        (self.token, outcome.await)
    }
}

/// What a store tells the shard. Each is told after what it speaks of is durable.
#[derive(Debug)]
pub enum Notice {
    /// What recovery found is in this start's journal and checkpoint; the store serves. Until then
    /// appends and creations are taken but nothing of theirs becomes durable.
    Ready,
    /// The partition exists for good and takes appends.
    Created {
        /// Which.
        log: LogId,
    },
    /// The partition is gone for good; its files follow after `file.delete.delay.ms`.
    Deleted {
        /// Which.
        log: LogId,
    },
    /// Everything below `offset_end` may be acknowledged and read.
    Durable {
        /// Which log.
        log: LogId,
        /// The new acknowledgement mark.
        offset_end: Offset,
    },
    /// A read from disk is done. No batches: ask again (the log changed meanwhile).
    ReadDone {
        /// From [`Read::Disk`].
        ticket: u64,
        /// Whole batches, their checksums verified.
        result: Result<Vec<Shared>, ReadError>,
    },
    /// A lookup on disk is done.
    LookupDone {
        /// From [`Lookup::Disk`].
        ticket: u64,
        /// What it found.
        result: Result<Option<Found>, ReadError>,
    },
    /// The log start moved, by [`Store::delete_records`](super::Store::delete_records) or retention.
    LogStartMoved {
        /// Which log.
        log: LogId,
        /// The new log start.
        offset: Offset,
        /// The ticket of the deletion that asked for it, if one did.
        ticket: Option<u64>,
    },
    /// A log directory failed; tell the other cores with
    /// [`Store::set_dir_offline`](super::Store::set_dir_offline).
    DirOffline {
        /// Index into the configured directories.
        dir: usize,
        /// What happened.
        why: String,
    },
    /// A log directory is full and takes no appends.
    DirFull {
        /// Index into the configured directories.
        dir: usize,
    },
    /// A log directory that was full takes appends again.
    DirRoom {
        /// Index into the configured directories.
        dir: usize,
    },
    /// Appends that were [`AppendError::Busy`] may be tried again.
    Room,
    /// After [`Store::begin_shutdown`](super::Store::begin_shutdown): everything is in segments and
    /// checkpoints; the next start replays nothing.
    Settled,
}

/// What a store has done since it began; all count up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounters {
    /// Batches appended.
    pub appended_batches: u64,
    /// Bytes appended: each copied once, into the journal's buffer or that of a straight write.
    pub appended_bytes: u64,
    /// Journal writes issued.
    pub journal_writes: u64,
    /// Bytes of journal writes, headers and padding included.
    pub journal_bytes: u64,
    /// Bytes copied to assemble aligned blocks for segments.
    pub write_back_bytes_copied: u64,
    /// Segments that were flushed with others, by one flush of their file system.
    pub flushed_together: u64,
    /// Straight writes issued.
    pub straight_writes: u64,
    /// Bytes of straight writes.
    pub straight_bytes: u64,
    /// Reads that went to disk.
    pub disk_reads: u64,
    /// Those of them that were begun ahead of their reader.
    pub disk_reads_ahead: u64,
    /// Bytes of whole batches that disk reads found.
    pub disk_read_bytes: u64,
    /// Memory of what was read ahead and dropped before anybody asked for it, in bytes.
    pub read_ahead_unused_bytes: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Segments deleted by retention, log start or compaction.
    pub segments_deleted: u64,
    /// Compactions finished.
    pub compactions: u64,
    /// Times that index files of a closed segment were built from the segment itself: begun before
    /// this start, or missing.
    pub indexes_rebuilt: u64,
}

/// What a store holds at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreGauges {
    /// Bytes that wait for their segments.
    pub dirty_bytes: u64,
    /// Bytes kept for the newest consumers only.
    pub clean_bytes: u64,
    /// Memory of what was read from disk and may be asked for, in bytes.
    pub windows_bytes: u64,
    /// Partitions.
    pub partitions: u64,
    /// Journal files in use or spare.
    pub journal_files: u64,
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AppendError::NotReady => "the log is not there yet or no longer",
            AppendError::Busy => "no room in memory or journal for the moment",
            AppendError::DiskFull => "the log directory is full",
            AppendError::Offline => "the log directory is offline",
            AppendError::Malformed => "not one whole batch of format v2",
        })
    }
}

impl std::error::Error for AppendError {}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReadError::NotFound => "no such log",
            ReadError::OutOfRange => "the offset is out of range",
            ReadError::Corrupt => "a batch on disk is corrupt",
            ReadError::Io => "the disk failed",
        })
    }
}

impl std::error::Error for ReadError {}
