//! The sparse indexes of one segment, in Kafka's file formats: offset to position, timestamp to offset.
//! Lives on the partition's core, in memory; knows no file. Hints only: both can be rebuilt from the
//! segment, and every lookup ends in a scan of batches.

use zerocopy::byteorder::big_endian::{I32, I64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::batch::{BatchHeader, NO_TIMESTAMP};
use crate::types::Offset;

/// Length of an entry of a `.index` file, in bytes.
pub const OFFSET_ENTRY_BYTES: usize = size_of::<OffsetEntry>();
/// Length of an entry of a `.timeindex` file, in bytes.
pub const TIME_ENTRY_BYTES: usize = size_of::<TimeEntry>();

const _: () = assert!(OFFSET_ENTRY_BYTES == 8 && TIME_ENTRY_BYTES == 12);

/// An entry of a `.index` file: the batch at `position` ends with this offset.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct OffsetEntry {
    relative_offset: I32,
    position: I32,
}

impl OffsetEntry {
    /// Last offset of the batch, relative to the segment's base offset.
    pub fn relative_offset(&self) -> i32 {
        self.relative_offset.get()
    }

    /// Where the batch begins in the segment, in bytes.
    pub fn position(&self) -> i32 {
        self.position.get()
    }
}

/// An entry of a `.timeindex` file: up to this offset no timestamp is larger.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct TimeEntry {
    timestamp: I64,
    relative_offset: I32,
}

impl TimeEntry {
    /// Largest timestamp so far, in ms.
    pub fn timestamp(&self) -> i64 {
        self.timestamp.get()
    }

    /// Last offset of the batch that brought it, relative to the segment's base offset.
    pub fn relative_offset(&self) -> i32 {
        self.relative_offset.get()
    }
}

/// Why index files do not fit their segment; the remedy is to rebuild them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexError {
    /// The file's length is no multiple of its entry's.
    Length,
    /// An entry does not rise above the one before it.
    Order,
    /// An entry points outside the segment.
    Range,
}

/// Both indexes of a segment, and what is needed to go on building them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentIndex {
    base_offset: Offset,
    offsets: Vec<OffsetEntry>,
    times: Vec<TimeEntry>,
    /// Since the last entry; the first batches of a segment get none before an interval has passed.
    bytes_since_entry: u64,
    /// Entries are at least so far apart; above 0 once the index was thinned.
    interval_bytes_min: u64,
    max_timestamp: i64,
    max_timestamp_offset: Offset,
}

impl SegmentIndex {
    /// The indexes of an empty segment.
    pub fn new(base_offset: Offset) -> SegmentIndex {
        SegmentIndex {
            base_offset,
            offsets: Vec::new(),
            times: Vec::new(),
            bytes_since_entry: 0,
            interval_bytes_min: 0,
            max_timestamp: NO_TIMESTAMP,
            max_timestamp_offset: base_offset,
        }
    }

    /// Base offset of the segment.
    pub fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// Whether a batch that ends with `offset_last` can be in this segment at all: relative offsets
    /// have 31 bits.
    pub fn can_hold(&self, offset_last: Offset) -> bool {
        self.relative(offset_last).is_some()
    }

    /// Whether an index has reached segment.index.bytes, which rolls the segment.
    pub fn is_full(&self, index_bytes_max: usize) -> bool {
        (self.offsets.len() + 1) * OFFSET_ENTRY_BYTES > index_bytes_max
            || (self.times.len() + 1) * TIME_ENTRY_BYTES > index_bytes_max
    }

    /// Largest timestamp of the batches so far, in ms, or -1.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// Last offset of the first batch with the largest timestamp.
    pub fn max_timestamp_offset(&self) -> Offset {
        self.max_timestamp_offset
    }

    /// Memory that the entries take, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.offsets.capacity() * OFFSET_ENTRY_BYTES + self.times.capacity() * TIME_ENTRY_BYTES
    }

    /// Takes in the next batch of the segment, whose base offset is stamped, at `position` in bytes.
    /// Adds an entry to each index when more than index.interval.bytes have passed since the last.
    ///
    /// Panics if the batch does not fit: the caller has asked [`SegmentIndex::can_hold`], and segments
    /// are smaller than 2 GiB.
    pub fn on_batch(&mut self, batch: &BatchHeader, position: u64, interval_bytes: u64) {
        let offset_last = batch.offset_last();
        if batch.max_timestamp() > self.max_timestamp {
            self.max_timestamp = batch.max_timestamp();
            self.max_timestamp_offset = offset_last;
        }
        if self.bytes_since_entry > interval_bytes.max(self.interval_bytes_min) {
            let relative = self
                .relative(offset_last)
                .expect("the segment was rolled before");
            let position = i32::try_from(position).expect("segments are smaller than 2 GiB");
            if self
                .offsets
                .last()
                .is_none_or(|last| last.relative_offset() < relative)
            {
                self.offsets.push(OffsetEntry {
                    relative_offset: I32::new(relative),
                    position: I32::new(position),
                });
            }
            self.push_time();
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += batch.batch_length() as u64 + 12;
    }

    /// Lets go of every second entry of each index, and lets the next ones come as far apart: a lookup
    /// reads more, and finds the same.
    pub fn thin(&mut self) {
        fn halve<T: Copy>(entries: &mut Vec<T>) {
            *entries = entries.iter().skip(1).step_by(2).copied().collect();
        }
        halve(&mut self.offsets);
        halve(&mut self.times);
        if let Some(last) = self.offsets.last() {
            self.interval_bytes_min = last.position() as u64 / self.offsets.len() as u64;
        }
    }

    /// Adds what `later` knows of the batches behind those of this index, which is of the same segment.
    pub fn extend(&mut self, later: &SegmentIndex) {
        assert_eq!(self.base_offset, later.base_offset, "another segment");
        self.offsets.extend_from_slice(&later.offsets);
        let known = self.max_timestamp;
        let rising = later.times.iter().filter(|time| time.timestamp() > known);
        self.times.extend(rising);
        if later.max_timestamp > self.max_timestamp {
            self.max_timestamp = later.max_timestamp;
            self.max_timestamp_offset = later.max_timestamp_offset;
        }
        self.bytes_since_entry = later.bytes_since_entry;
    }

    /// Adds the last time entry of a segment that is closed, so that its largest timestamp can be
    /// found without reading it.
    pub fn close(&mut self) {
        self.push_time();
    }

    fn push_time(&mut self) {
        let last = self.times.last().map_or(NO_TIMESTAMP, TimeEntry::timestamp);
        if self.max_timestamp > last {
            let relative = self
                .relative(self.max_timestamp_offset)
                .expect("checked with its batch");
            self.times.push(TimeEntry {
                timestamp: I64::new(self.max_timestamp),
                relative_offset: I32::new(relative),
            });
        }
    }

    fn relative(&self, offset: Offset) -> Option<i32> {
        i32::try_from(offset.0.checked_sub(self.base_offset.0)?)
            .ok()
            .filter(|&r| r >= 0)
    }

    /// Where to start scanning for `offset`, in bytes: at or before the batch that holds it.
    pub fn position_for_offset(&self, offset: Offset) -> u64 {
        self.entry_for_offset(offset)
            .map_or(0, |(_, position)| position)
    }

    /// The entry to start scanning for `offset` from: the last offset of a batch, and where that batch
    /// begins, in bytes. None: from the segment's start.
    pub fn entry_for_offset(&self, offset: Offset) -> Option<(Offset, u64)> {
        let relative = offset.0.saturating_sub(self.base_offset.0);
        let above = self
            .offsets
            .partition_point(|entry| i64::from(entry.relative_offset()) <= relative);
        let entry = self.offsets[above.checked_sub(1)?];
        let offset_last = Offset(self.base_offset.0 + i64::from(entry.relative_offset()));
        Some((offset_last, entry.position() as u64))
    }

    /// Where to start scanning for the first record whose timestamp is at least `timestamp`, in bytes.
    pub fn position_for_timestamp(&self, timestamp: i64) -> u64 {
        self.entry_for_timestamp(timestamp)
            .map_or(0, |(_, position)| position)
    }

    /// As [`SegmentIndex::entry_for_offset`], for the first record whose timestamp is at least
    /// `timestamp`.
    pub fn entry_for_timestamp(&self, timestamp: i64) -> Option<(Offset, u64)> {
        let above = self
            .times
            .partition_point(|entry| entry.timestamp() <= timestamp);
        let floor = self.times[above.checked_sub(1)?];
        let relative = i64::from(floor.relative_offset());
        self.entry_for_offset(Offset(self.base_offset.0 + relative))
    }

    /// Cuts both indexes to what lies below `offset_end` and `length_bytes`. What they still need to be
    /// built on with is lost: rebuild them if the segment is to grow.
    pub fn truncate(&mut self, offset_end: Offset, length_bytes: u64) {
        let relative_end = offset_end.0.saturating_sub(self.base_offset.0);
        self.offsets.retain(|entry| {
            i64::from(entry.relative_offset()) < relative_end
                && (entry.position() as u64) < length_bytes
        });
        self.times
            .retain(|entry| i64::from(entry.relative_offset()) < relative_end);
    }

    /// Entries of the offset index.
    pub fn offset_entries(&self) -> &[OffsetEntry] {
        &self.offsets
    }

    /// Entries of the time index.
    pub fn time_entries(&self) -> &[TimeEntry] {
        &self.times
    }

    /// Contents of the `.index` file.
    pub fn offset_index_bytes(&self) -> &[u8] {
        self.offsets.as_bytes()
    }

    /// Contents of the `.timeindex` file.
    pub fn time_index_bytes(&self) -> &[u8] {
        self.times.as_bytes()
    }

    /// Reads both files of a closed segment that is `segment_bytes` long and ends at `offset_end`, and
    /// checks that they fit it. It is not meant to be built on.
    pub fn decode(
        base_offset: Offset,
        offset_index: &[u8],
        time_index: &[u8],
        segment_bytes: u64,
        offset_end: Offset,
    ) -> Result<SegmentIndex, IndexError> {
        let offsets = offset_entries(offset_index)?;
        let times = time_entries(time_index)?;
        let relative_end = offset_end.0.saturating_sub(base_offset.0);
        let in_range = |relative: i32| relative >= 0 && i64::from(relative) < relative_end;
        for pair in offsets.windows(2) {
            if pair[0].relative_offset() >= pair[1].relative_offset()
                || pair[0].position() >= pair[1].position()
            {
                return Err(IndexError::Order);
            }
        }
        for pair in times.windows(2) {
            if pair[0].timestamp() >= pair[1].timestamp()
                || pair[0].relative_offset() > pair[1].relative_offset()
            {
                return Err(IndexError::Order);
            }
        }
        let offsets_fit = offsets.iter().all(|entry| {
            in_range(entry.relative_offset())
                && u64::try_from(entry.position()).is_ok_and(|position| position < segment_bytes)
        });
        if !offsets_fit || !times.iter().all(|entry| in_range(entry.relative_offset())) {
            return Err(IndexError::Range);
        }
        let (max_timestamp, max_timestamp_offset) =
            times.last().map_or((NO_TIMESTAMP, base_offset), |last| {
                (
                    last.timestamp(),
                    Offset(base_offset.0 + i64::from(last.relative_offset())),
                )
            });
        Ok(SegmentIndex {
            base_offset,
            offsets: offsets.to_vec(),
            times: times.to_vec(),
            bytes_since_entry: 0,
            interval_bytes_min: 0,
            max_timestamp,
            max_timestamp_offset,
        })
    }
}

/// The entries of a `.index` file.
pub fn offset_entries(bytes: &[u8]) -> Result<&[OffsetEntry], IndexError> {
    <[OffsetEntry]>::ref_from_bytes(bytes).map_err(|_| IndexError::Length)
}

/// The entries of a `.timeindex` file.
pub fn time_entries(bytes: &[u8]) -> Result<&[TimeEntry], IndexError> {
    <[TimeEntry]>::ref_from_bytes(bytes).map_err(|_| IndexError::Length)
}

#[cfg(test)]
mod tests;
