//! One partition log in the memory of its core: segments, marks, and the batches that are not on disk
//! yet or are kept for the newest consumers. Lives in its store; knows no journal, no task and no
//! disk.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::leader_epochs::LeaderEpochs;
use crate::producer_state::ProducerStates;
use crate::segment::{Segment, SegmentImage, block_floor};
use crate::store::api::{LogConfig, PartitionKey};
use crate::store::recent::{Recent, RecentBatches};
use crate::store::straight::{CARRY_BYTES_MAX, Gathering, OpenStraight};
use crate::types::Offset;

/// Where a partition is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogState {
    /// Its creation is not durable: it takes no appends.
    Creating,
    Live,
    /// Its deletion is on its way.
    Deleting,
}

/// What a compaction is about to put in place of older segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// Bases of the segments that go.
    pub removed: Vec<Offset>,
    /// The segment that comes; its file is `<base>.<generation>.cleaned` until it is renamed.
    pub added: SegmentImage,
    /// Below this offset the log is compacted with it: not all of `added`, where the map of keys was
    /// too small.
    pub compacted_end: Offset,
}

pub(crate) struct PartitionLog {
    pub key: PartitionKey,
    /// Index of its log directory.
    pub dir: usize,
    /// Its own directory.
    pub path: Rc<PathBuf>,
    pub incarnation: u64,
    /// The same value for all logs of a topic.
    pub config: Arc<LogConfig>,
    /// Whether `config` came from above: recovered logs keep everything until it did.
    pub configured: bool,
    pub state: LogState,
    /// In offset order, never empty; the last one takes appends.
    pub segments: VecDeque<Segment>,
    pub log_start: Offset,
    /// One past the newest record, durable or not.
    pub log_end: Offset,
    /// The acknowledgement mark.
    pub durable_end: Offset,
    /// Batches in memory.
    pub recent: RecentBatches,
    pub dirty_bytes: u64,
    pub epochs: LeaderEpochs,
    pub producers: ProducerStates,
    /// Whether a write-back, head load or swap of its files is under way: one at a time.
    pub busy: bool,
    /// Whether it stands in the store's write-back queue.
    pub queued: bool,
    /// Whether the tail block is to be written too, and all flushed.
    pub settle: bool,
    /// Whether what is written of whole blocks is to be flushed.
    pub flush: bool,
    /// Whether its directory and file are to be made although nothing is to be written yet.
    pub make_ahead: bool,
    pub last_append_us: u64,
    pub last_append_time_ms: i64,
    /// Log start moves that are on their way to the journal: where to, and who asked.
    pub start_moves: VecDeque<(Offset, Option<u64>)>,
    /// Compaction results that are on their way to the journal or being renamed.
    pub replacements: VecDeque<Replacement>,
    /// How many of them are durable in the journal.
    pub swaps_durable: usize,
    /// Whether they are being renamed.
    pub swapping: bool,
    /// Below this offset everything was compacted.
    pub compacted_end: Offset,
    pub compacting: bool,
    /// Whether index files of one of its segments are being written.
    pub indexing: bool,
    /// How much it brings in one write of the journal.
    pub gathering: Gathering,
    /// Whether that is so much that its batches should go straight to its segment.
    pub streams: bool,
    /// What goes there with the journal's open write.
    pub straight: Option<Box<OpenStraight>>,
    /// Straight writes that are no longer gathered and not flushed.
    pub straights_under_way: usize,
    /// Whether space is being allocated ahead.
    pub allocating: bool,
    /// How many tasks rename or remove files that it does not need.
    pub cleanups: usize,
    /// When to ask for that again after the disk had none, on the monotonic clock.
    pub allocate_from_us: u64,
}

impl PartitionLog {
    /// A log with one empty segment at offset 0.
    pub(crate) fn new(
        key: PartitionKey,
        dir: usize,
        dir_path: &Path,
        incarnation: u64,
        config: Arc<LogConfig>,
        now_ms: i64,
    ) -> PartitionLog {
        let path = Rc::new(dir_path.join(key.dir_name()));
        PartitionLog {
            key,
            dir,
            path,
            incarnation,
            config,
            configured: true,
            state: LogState::Creating,
            segments: VecDeque::from([Segment::from_image(SegmentImage::empty(Offset(0), now_ms))]),
            log_start: Offset(0),
            log_end: Offset(0),
            durable_end: Offset(0),
            recent: RecentBatches::default(),
            dirty_bytes: 0,
            epochs: LeaderEpochs::default(),
            producers: ProducerStates::default(),
            busy: false,
            queued: false,
            settle: false,
            flush: false,
            make_ahead: false,
            last_append_us: 0,
            last_append_time_ms: -1,
            start_moves: VecDeque::new(),
            replacements: VecDeque::new(),
            swaps_durable: 0,
            swapping: false,
            compacted_end: Offset(0),
            compacting: false,
            indexing: false,
            gathering: Gathering::default(),
            streams: false,
            straight: None,
            straights_under_way: 0,
            allocating: false,
            cleanups: 0,
            allocate_from_us: 0,
        }
    }

    /// Whether straight writes to its segments are gathered or under way.
    pub(crate) fn is_streaming(&self) -> bool {
        self.straight.is_some() || self.straights_under_way > 0
    }

    /// Whether what waits for the active segment is left to the next straight write.
    pub(crate) fn takes_straight(&self) -> bool {
        self.streams
            && self.active().unsynced_sequence.is_none()
            && self.unwritten_bytes() <= CARRY_BYTES_MAX
    }

    /// How many tasks work with its files by name: before they end, the directory keeps its name.
    pub(crate) fn tasks_on_files(&self) -> usize {
        [self.busy, self.compacting, self.allocating, self.indexing]
            .into_iter()
            .map(usize::from)
            .sum()
    }

    /// How many tasks name files in its directory, and must end before the directory has another name.
    pub(crate) fn tasks_in_dir(&self) -> usize {
        self.tasks_on_files() + self.cleanups
    }

    /// The path of the active segment's file, the same value as long as it is written to.
    pub(crate) fn active_file(&mut self) -> Rc<PathBuf> {
        let dir = Rc::clone(&self.path);
        let active = self.active_mut();
        let base = active.base();
        let file = active
            .file
            .get_or_insert_with(|| Rc::new(crate::segment::path(&dir, base, "log")));
        Rc::clone(file)
    }

    pub(crate) fn active(&self) -> &Segment {
        self.segments.back().expect("a log has a segment")
    }

    pub(crate) fn active_mut(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("a log has a segment")
    }

    /// Index of the segment with this base offset.
    pub(crate) fn segment_at(&self, base: Offset) -> Option<usize> {
        let index = self
            .segments
            .partition_point(|segment| segment.base() < base);
        (self.segments.get(index)?.base() == base).then_some(index)
    }

    /// Index of the segment that holds `offset`, or would hold it: the last one that begins at or
    /// below it.
    pub(crate) fn segment_of(&self, offset: Offset) -> usize {
        self.segments
            .partition_point(|segment| segment.base() <= offset)
            .saturating_sub(1)
    }

    /// The oldest journal write that must stay: what it holds is not flushed in a segment.
    pub(crate) fn pinned_sequence(&self) -> Option<u64> {
        let dirty = self.recent.first_dirty().map(|recent| recent.sequence);
        self.segments
            .iter()
            .filter_map(Segment::pinned_sequence)
            .chain(dirty)
            .min()
    }

    /// Whether a batch that is not wholly in the file of the segment at `base` when this is written up to
    /// `to`, or lies in a later one, is in the journal at or below `end`.
    pub(crate) fn pins_beyond(&self, base: Offset, to: u64, end: u64) -> bool {
        let written = |recent: &Recent| {
            recent.segment_base < base || recent.segment_base == base && recent.position_end() <= to
        };
        self.recent
            .dirty_from(written)
            .next()
            .is_some_and(|recent| recent.sequence <= end)
    }

    /// Batches in memory from the one that holds `from` on, as long as they end at or below `up_to`.
    /// `None` if the first of them is not in memory.
    pub(crate) fn in_memory(
        &self,
        from: Offset,
        up_to: Offset,
    ) -> Option<impl Iterator<Item = &Recent>> {
        let begins = self.recent.first()?.base_offset;
        let batches = self.recent.from(move |recent| recent.offset_end <= from);
        (from >= begins).then(|| batches.take_while(move |recent| recent.offset_end <= up_to))
    }

    /// How many bytes of a segment's file may be asked from the disk: everything behind that
    /// is readable is dirty in memory as whole batches.
    pub(crate) fn readable_bytes(&self, index: usize) -> u64 {
        let segment = &self.segments[index];
        let first = self
            .recent
            .dirty()
            .find(|recent| recent.segment_base >= segment.base())
            .filter(|recent| recent.segment_base == segment.base());
        match first {
            Some(recent) => recent.position,
            // What is not there and not written is still being gathered for the journal.
            None => segment.written.min(segment.image.length_bytes),
        }
    }

    /// Whether there is something to write to a segment's file: whole blocks, or with `settle`
    /// anything at all.
    pub(crate) fn has_work(&self, settle: bool) -> bool {
        self.segments.iter().any(|segment| {
            let image = &segment.image;
            if image.closed {
                !image.finished
            } else if settle {
                segment.written < image.length_bytes || segment.unsynced_sequence.is_some()
            } else {
                block_floor(image.length_bytes) > segment.written
            }
        })
    }

    /// Contiguous bytes that wait for the active segment.
    pub(crate) fn unwritten_bytes(&self) -> u64 {
        let active = self.active();
        active.image.length_bytes - active.written.min(active.image.length_bytes)
    }

    /// Bytes of segment files.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.image.length_bytes)
            .sum()
    }
}
