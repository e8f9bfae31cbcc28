//! Indexes of closed segments: read from their files, built by a walk where those are missing or do not
//! fit, and written. Tasks on the core of their store; they know no memory of the store but what they
//! were given.

use crate::batch::{BatchHeader, HEADER_BYTES};
use crate::disk::Disk;
use crate::index::SegmentIndex;
use crate::read_task::{BatchWalk, SegmentRef, Window, open_segment};
use crate::segment::path;
use crate::store::{LogId, ReadError};
use crate::tasks::{read_file, write_indexes};
use crate::types::Offset;

/// An index file that is longer is not one of ours.
const INDEX_BYTES_MAX: u64 = 1 << 30;

/// Writes the index files of a finished segment whose index is not, or not wholly, in memory.
#[derive(Debug)]
pub(crate) struct IndexJob {
    /// Its `end` is where the part ends that must be walked.
    pub segment: SegmentRef,
    /// What is known of the batches behind that.
    pub known: Option<SegmentIndex>,
}

#[derive(Debug)]
pub(crate) struct IndexOutcome {
    pub log: LogId,
    pub base: Offset,
    pub generation: u64,
    pub result: Result<(), ReadError>,
}

impl IndexJob {
    pub(crate) async fn run<D: Disk>(self, disk: &D) -> IndexOutcome {
        IndexOutcome {
            log: self.segment.log,
            base: self.segment.base,
            generation: self.segment.generation,
            result: self.write(disk).await,
        }
    }

    async fn write<D: Disk>(&self, disk: &D) -> Result<(), ReadError> {
        let mut index = SegmentIndex::new(self.segment.base);
        if self.segment.end > 0 {
            let file = open_segment(disk, &self.segment).await?;
            index = walk_index(disk, &file, &self.segment).await?;
        }
        if let Some(known) = &self.known {
            index.extend(known);
        }
        index.close();
        let (dir, base) = (&self.segment.dir, self.segment.base);
        let (offsets, times) = (index.offset_index_bytes(), index.time_index_bytes());
        write_indexes(disk, dir, base, offsets, times)
            .await
            .map_err(|_| ReadError::Io)
    }
}

/// What a search begins from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sought {
    Offset(Offset),
    /// The first record that is not older.
    Timestamp(i64),
}

impl Sought {
    fn entry(self, index: &SegmentIndex) -> Option<(Offset, u64)> {
        match self {
            Sought::Offset(offset) => index.entry_for_offset(offset),
            Sought::Timestamp(timestamp) => index.entry_for_timestamp(timestamp.saturating_sub(1)),
        }
    }
}

/// Where in a segment to begin the search, in bytes. An index file is a hint: one that is missing, that
/// does not fit the segment, or whose entry does not meet the batch that it names, counts for nothing,
/// and the segment is walked. What that built is left in `built`.
pub(crate) async fn find_start<D: Disk>(
    disk: &D,
    file: &D::File,
    segment: &SegmentRef,
    sought: Sought,
    built: &mut Option<SegmentIndex>,
) -> Result<u64, ReadError> {
    if segment.finished
        && let Some(index) = load_index(disk, segment, sought).await
    {
        match sought.entry(&index) {
            None => return Ok(0),
            Some((offset_last, position)) => {
                if is_batch_at(disk, file, segment, offset_last, position).await {
                    return Ok(position);
                }
            }
        }
    }
    let index = walk_index(disk, file, segment).await?;
    let start = sought.entry(&index).map_or(0, |(_, position)| position);
    *built = Some(index);
    Ok(start)
}

/// The index files that a search needs, if they are there and fit.
async fn load_index<D: Disk>(
    disk: &D,
    segment: &SegmentRef,
    sought: Sought,
) -> Option<SegmentIndex> {
    let name = |extension| path(&segment.dir, segment.base, extension);
    let offsets = read_file(disk, &name("index"), INDEX_BYTES_MAX)
        .await
        .ok()?;
    let times = match sought {
        Sought::Offset(_) => Vec::new(),
        Sought::Timestamp(_) => read_file(disk, &name("timeindex"), INDEX_BYTES_MAX)
            .await
            .ok()?,
    };
    let index = SegmentIndex::decode(
        segment.base,
        &offsets,
        &times,
        segment.length_bytes,
        segment.offset_end,
    )
    .ok()?;
    // A time index was closed with the largest timestamp: without it, it is not whole.
    let whole = match sought {
        Sought::Offset(_) => true,
        Sought::Timestamp(_) => index.max_timestamp() == segment.max_timestamp_ms,
    };
    whole.then_some(index)
}

/// Whether a batch that ends with this offset begins there.
async fn is_batch_at<D: Disk>(
    disk: &D,
    file: &D::File,
    segment: &SegmentRef,
    offset_last: Offset,
    position: u64,
) -> bool {
    let Ok(window) = Window::read(disk, file, segment, position, HEADER_BYTES as u64).await else {
        return false;
    };
    BatchHeader::ref_from_prefix(window.bytes_at(position))
        .is_some_and(|header| header.offset_last() == offset_last)
}

async fn walk_index<D: Disk>(
    disk: &D,
    file: &D::File,
    segment: &SegmentRef,
) -> Result<SegmentIndex, ReadError> {
    let mut index = SegmentIndex::new(segment.base);
    let mut walk = BatchWalk::new(segment, 0);
    while let Some((position, view)) = walk.next(disk, file).await? {
        index.on_batch(view.header(), position, segment.index.interval_bytes);
        while index.is_full(segment.index.bytes_max) {
            index.thin();
        }
    }
    Ok(index)
}
