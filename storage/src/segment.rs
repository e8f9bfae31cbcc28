//! One segment of a partition log as its core remembers it, and the names of its files. Lives with
//! its partition; knows no disk and no journal.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ring::buf::BLOCK_BYTES;

use crate::index::SegmentIndex;
use crate::types::Offset;

/// The block size as a file position.
pub(crate) const BLOCK: u64 = BLOCK_BYTES as u64;

/// The largest distance of an offset from its segment's base: indexes keep it in an `i32`.
pub(crate) const RELATIVE_OFFSET_MAX: i64 = i32::MAX as i64;

/// The last block boundary at or below `position`.
pub(crate) fn block_floor(position: u64) -> u64 {
    position - position % BLOCK
}

/// The name of a segment's file: its base offset in 20 digits, and an extension.
pub(crate) fn file_name(base: Offset, extension: &str) -> String {
    format!("{:020}.{extension}", base.0)
}

/// The path of a segment's file.
pub(crate) fn path(dir: &Path, base: Offset, extension: &str) -> PathBuf {
    dir.join(file_name(base, extension))
}

/// What a checkpoint and the journal say of a segment; lengths never come from its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentImage {
    /// Offset of its first record; names its files.
    pub base: Offset,
    /// Bytes of batches in it.
    pub length_bytes: u64,
    /// One past its last record.
    pub offset_end: Offset,
    /// Bytes that are flushed in its file; below them the journal is not needed.
    pub synced_bytes: u64,
    /// Largest timestamp of its records; -1 when it has none.
    pub max_timestamp_ms: i64,
    /// Timestamp of its first batch; -1 when it is empty.
    pub first_timestamp_ms: i64,
    /// When it was begun, wall clock; only for rolling by time.
    pub created_ms: i64,
    /// Whether it takes no more appends.
    pub closed: bool,
    /// Whether its file has its final length and its indexes are written.
    pub finished: bool,
    /// Distinguishes the contents that compaction gives to one base offset; 0 as appended.
    pub generation: u64,
}

/// A straight write to a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StraightWrite {
    /// The journal write that holds its reference.
    pub sequence: u64,
    /// Where it ends in the segment.
    pub to: u64,
}

impl SegmentImage {
    /// A segment without batches.
    pub fn empty(base: Offset, created_ms: i64) -> SegmentImage {
        SegmentImage {
            base,
            length_bytes: 0,
            offset_end: base,
            synced_bytes: 0,
            max_timestamp_ms: -1,
            first_timestamp_ms: -1,
            created_ms,
            closed: false,
            finished: false,
            generation: 0,
        }
    }
}

/// A segment of a partition that is being served.
#[derive(Debug)]
pub(crate) struct Segment {
    /// What a checkpoint would say; `synced_bytes` only ever covers completed flushes.
    pub image: SegmentImage,
    /// Its place in the journal when it was closed; its file is finished after that is durable.
    pub closed_sequence: u64,
    /// Bytes of its file that are written. Not a multiple of a block only when the tail block was
    /// settled: then nothing may rewrite that block before its head is in the journal.
    pub written: u64,
    /// Disk space set aside for its file.
    pub allocated: u64,
    /// Whether file and directory exist durably.
    pub made: bool,
    /// The oldest journal write that holds bytes which are written here and not flushed.
    pub unsynced_sequence: Option<u64>,
    /// Straight writes that are sealed and not flushed, oldest first.
    pub straights: VecDeque<StraightWrite>,
    /// The file's path for who writes to it directly; given up when nothing more is written.
    pub file: Option<Rc<PathBuf>>,
    /// The bytes of the settled tail block below `written`, once they are needed.
    pub head: Option<Rc<Vec<u8>>>,
    /// The journal write that holds the head.
    pub head_sequence: Option<u64>,
    /// Built as batches are appended; `None` for what was closed before this start.
    pub index: Option<SegmentIndex>,
    /// The position from which on `index` has entries: above 0 after a restart.
    pub index_from: u64,
    /// Built by walking, for what lies before `index_from`.
    pub earlier: Option<SegmentIndex>,
}

impl Segment {
    pub(crate) fn from_image(image: SegmentImage) -> Segment {
        let finished = image.finished;
        Segment {
            closed_sequence: 0,
            written: image.synced_bytes,
            // Allocation is not remembered: asking again for blocks that are there is cheap.
            allocated: image.synced_bytes,
            made: image.synced_bytes > 0 || finished,
            unsynced_sequence: None,
            straights: VecDeque::new(),
            file: None,
            head: None,
            head_sequence: None,
            index: (!image.closed).then(|| SegmentIndex::new(image.base)),
            index_from: image.length_bytes,
            earlier: None,
            image,
        }
    }

    /// Where to start looking for an offset, if the indexes in memory reach that far.
    pub(crate) fn position_for(&self, offset: Offset) -> Option<u64> {
        let position = self
            .index
            .as_ref()
            .map_or(0, |index| index.position_for_offset(offset));
        if position > 0 || (self.index.is_some() && self.index_from == 0) {
            return Some(position);
        }
        self.earlier
            .as_ref()
            .map(|index| index.position_for_offset(offset))
    }

    pub(crate) fn base(&self) -> Offset {
        self.image.base
    }

    /// Where the last partial block that may have to be rewritten begins.
    pub(crate) fn write_from(&self) -> u64 {
        block_floor(self.written)
    }

    /// The oldest journal write that this segment's file still needs, apart from dirty entries.
    pub(crate) fn pinned_sequence(&self) -> Option<u64> {
        let straight = self.straights.front().map(|straight| straight.sequence);
        [self.unsynced_sequence, self.head_sequence, straight]
            .into_iter()
            .flatten()
            .min()
    }

    /// How far the file is written when the straight writes under way are done.
    pub(crate) fn straight_end(&self) -> u64 {
        self.straights
            .back()
            .map_or(self.written, |straight| straight.to)
    }

    /// How much space the file should have so that `length` fits: the `whole` segment, or steps of half of what it has,
    /// at least four blocks, at most 4 MiB, and never beyond what the segment may grow to by much.
    pub(crate) fn allocation_for(
        &self,
        length: u64,
        segment_bytes: u64,
        whole: bool,
        disk_is_tight: bool,
    ) -> u64 {
        if length <= self.allocated {
            return self.allocated;
        }
        let step = if disk_is_tight || self.image.closed {
            BLOCK
        } else {
            (length / 2).clamp(4 * BLOCK, 4 << 20)
        };
        let wanted = (length + step).next_multiple_of(BLOCK);
        let most = segment_bytes.max(length).next_multiple_of(BLOCK);
        if whole && !disk_is_tight && !self.image.closed {
            return most;
        }
        wanted.min(most).max(length.next_multiple_of(BLOCK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_kafka_names_them() {
        assert_eq!(file_name(Offset(0), "log"), "00000000000000000000.log");
        assert_eq!(
            path(Path::new("/d/t-1"), Offset(4711), "timeindex"),
            Path::new("/d/t-1/00000000000000004711.timeindex")
        );
    }

    #[test]
    fn space_is_set_aside_in_small_steps_at_first() {
        let mut segment = Segment::from_image(SegmentImage::empty(Offset(0), 0));
        assert_eq!(segment.allocation_for(100, 1 << 30, false, false), 20_480);
        assert_eq!(segment.allocation_for(100, 1 << 30, false, true), 8_192);
        segment.allocated = 64 << 20;
        assert_eq!(
            segment.allocation_for(1 << 20, 1 << 30, false, false),
            64 << 20
        );
        assert_eq!(
            segment.allocation_for((64 << 20) + 1, 1 << 30, false, false),
            ((68 << 20) + 1u64).next_multiple_of(4096)
        );
        // With `preallocate` all at once, unless the disk is nearly full.
        assert_eq!(
            segment.allocation_for(65 << 20, 1 << 30, true, false),
            1 << 30
        );
        assert!(segment.allocation_for(65 << 20, 1 << 30, true, true) < 66 << 20);
        // Never far beyond what the segment may become.
        assert_eq!(
            segment.allocation_for(65 << 20, 65 << 20, false, false),
            65 << 20
        );
    }
}
