//! Cold reads and lookups: finding a batch by index or by walking, reading whole aligned windows, and
//! verifying every checksum before a batch is given out. Tasks on the core of their store; they know
//! no memory of the store but what they were given.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use ring::buf::{AlignedBuf, Shared};

use crate::batch::{BatchError, BatchHeader, BatchView, HEADER_BYTES, LENGTH_OVERHEAD_BYTES};
use crate::disk::{Disk, OpenMode};
use crate::index::SegmentIndex;
use crate::records::RecordsScratch;
use crate::segment::{BLOCK, block_floor, path};
use crate::store::{Found, LogId, LookupKind, ReadError};
use crate::tasks::read_file;
use crate::types::Offset;
use crate::walk::output_bytes_max;

/// Bytes of one read, at least: smaller direct reads cost more per byte.
pub(crate) const WINDOW_BYTES: u64 = 1 << 20;
/// Bytes of one read, at most, unless a single batch is larger.
const WINDOW_BYTES_MAX: u64 = 4 << 20;
/// Checksums are computed over about this much before other work gets a turn.
const CRC_STEP_BYTES: usize = 256 << 10;

/// A segment as a task may read it.
#[derive(Clone, Debug)]
pub(crate) struct SegmentRef {
    pub log: LogId,
    pub dir: Rc<PathBuf>,
    pub base: Offset,
    pub generation: u64,
    /// Bytes that may be read.
    pub end: u64,
    pub length_bytes: u64,
    pub offset_end: Offset,
    pub max_timestamp_ms: i64,
    /// Whether index files are there.
    pub finished: bool,
    pub index_interval_bytes: u64,
    /// Bytes that replace what the file holds at a position: a tail block may just be rewritten.
    pub overlay: Option<(u64, Rc<Vec<u8>>)>,
}

#[derive(Debug)]
pub(crate) struct ReadJob {
    pub segment: SegmentRef,
    pub from: Offset,
    pub up_to: Offset,
    pub bytes_max: u64,
    /// Where to start looking, if that is known.
    pub position: Option<u64>,
}

/// A batch in a window.
#[derive(Clone, Debug)]
pub(crate) struct ReadBatch {
    pub base_offset: Offset,
    pub offset_end: Offset,
    pub bytes: Shared,
}

#[derive(Debug)]
pub(crate) struct ReadOutcome {
    pub log: LogId,
    pub base: Offset,
    pub generation: u64,
    pub from: Offset,
    pub result: Result<ReadData, ReadError>,
    /// Built because it was missing.
    pub index: Option<SegmentIndex>,
}

#[derive(Debug)]
pub(crate) struct ReadData {
    pub batches: Vec<ReadBatch>,
    /// Where the batch after the last one begins.
    pub position_next: u64,
}

/// Maps an error of the disk.
fn disk_error(error: &io::Error) -> ReadError {
    if error.kind() == io::ErrorKind::NotFound {
        ReadError::NotFound
    } else {
        ReadError::Io
    }
}

/// What lies at a position of a window.
enum At<'a> {
    Batch(BatchView<'a>),
    /// The window ends before the batch does; this much is needed from its first byte.
    Short(u64),
    Corrupt,
}

/// A window of a segment's file.
struct Window {
    buf: AlignedBuf,
    position: u64,
    /// Bytes of it that may be looked at.
    len: usize,
    /// Whether the file ended before the window did: it is shorter than the log says.
    cut: bool,
}

impl Window {
    async fn read<D: Disk>(
        disk: &D,
        file: &D::File,
        segment: &SegmentRef,
        from: u64,
        bytes: u64,
    ) -> io::Result<Window> {
        let position = block_floor(from);
        let end = segment.end.min((from + bytes).next_multiple_of(BLOCK));
        let wanted = (end - position) as usize;
        let (result, mut buf) = disk
            .read_at(file, position, AlignedBuf::scratch(wanted))
            .await;
        let len = result?.min(wanted);
        if let Some((at, over)) = &segment.overlay {
            let start = (*at).max(position);
            let stop = (at + over.len() as u64).min(position + wanted as u64);
            if start < stop {
                buf[(start - position) as usize..(stop - position) as usize]
                    .copy_from_slice(&over[(start - at) as usize..(stop - at) as usize]);
            }
        }
        Ok(Window {
            buf,
            position,
            len,
            cut: len < wanted,
        })
    }

    fn at(&self, position: u64, segment: &SegmentRef, offset_min: Offset) -> At<'_> {
        let start = (position - self.position) as usize;
        let bytes = &self.buf[start.min(self.len)..self.len];
        let left = segment.end - position;
        match BatchView::first(bytes) {
            Ok((view, _)) => {
                let header = view.header();
                // The base offset lies outside the checksum: it must at least be in order.
                let ordered = header.base_offset() >= offset_min
                    && header.offset_end() <= segment.offset_end
                    && header.last_offset_delta() >= 0;
                if ordered {
                    At::Batch(view)
                } else {
                    At::Corrupt
                }
            }
            Err(BatchError::Truncated) => {
                let needed = BatchHeader::ref_from_prefix(bytes).map_or(HEADER_BYTES as u64, |h| {
                    h.batch_length().max(0) as u64 + LENGTH_OVERHEAD_BYTES as u64
                });
                if self.cut || needed > left || needed <= bytes.len() as u64 {
                    At::Corrupt
                } else {
                    At::Short(needed)
                }
            }
            Err(_) => At::Corrupt,
        }
    }
}

impl ReadJob {
    pub(crate) async fn run<D: Disk>(self, disk: &D) -> ReadOutcome {
        let mut index = None;
        let result = self.read(disk, &mut index).await;
        ReadOutcome {
            log: self.segment.log,
            base: self.segment.base,
            generation: self.segment.generation,
            from: self.from,
            result,
            index,
        }
    }

    async fn read<D: Disk>(
        &self,
        disk: &D,
        built: &mut Option<SegmentIndex>,
    ) -> Result<ReadData, ReadError> {
        let segment = &self.segment;
        let file = disk
            .open(&path(&segment.dir, segment.base, "log"), OpenMode::Read)
            .await
            .map_err(|error| disk_error(&error))?;
        let mut position = match self.position {
            Some(position) => position,
            None => {
                let index = load_index(disk, &file, segment, built).await?;
                index.position_for_offset(self.from)
            }
        };
        let mut wanted = self.bytes_max.clamp(WINDOW_BYTES, WINDOW_BYTES_MAX);
        let mut offset_min = segment.base;
        while position < segment.end {
            let window = Window::read(disk, &file, segment, position, wanted)
                .await
                .map_err(|error| disk_error(&error))?;
            let mut ranges = Vec::new();
            let window_start = window.position;
            let mut unverified = 0;
            loop {
                if position >= segment.end {
                    break;
                }
                let view = match window.at(position, segment, offset_min) {
                    At::Batch(view) => view,
                    At::Short(needed) => {
                        wanted = needed.max(WINDOW_BYTES);
                        break;
                    }
                    At::Corrupt if ranges.is_empty() => return Err(ReadError::Corrupt),
                    At::Corrupt => break,
                };
                let header = view.header();
                let (base_offset, offset_end) = (header.base_offset(), header.offset_end());
                let len = view.len_bytes();
                if offset_end > self.up_to {
                    return Ok(give_out(window, ranges, position));
                }
                if offset_end > self.from {
                    if view.verify_crc().is_err() {
                        if ranges.is_empty() {
                            return Err(ReadError::Corrupt);
                        }
                        break;
                    }
                    unverified += len;
                    let start = (position - window_start) as usize;
                    ranges.push((base_offset, offset_end, start..start + len));
                }
                offset_min = offset_end;
                position += len as u64;
                if unverified >= CRC_STEP_BYTES {
                    unverified = 0;
                    disk.pause().await;
                }
            }
            if !ranges.is_empty() {
                return Ok(give_out(window, ranges, position));
            }
        }
        Ok(ReadData {
            batches: Vec::new(),
            position_next: position,
        })
    }
}

fn give_out(
    window: Window,
    ranges: Vec<(Offset, Offset, std::ops::Range<usize>)>,
    position_next: u64,
) -> ReadData {
    let shared = window.buf.freeze();
    ReadData {
        batches: ranges
            .into_iter()
            .map(|(base_offset, offset_end, range)| ReadBatch {
                base_offset,
                offset_end,
                bytes: shared.slice(range),
            })
            .collect(),
        position_next,
    }
}

/// The indexes of a segment: from their files, or built by walking it.
async fn load_index<D: Disk>(
    disk: &D,
    file: &D::File,
    segment: &SegmentRef,
    built: &mut Option<SegmentIndex>,
) -> Result<SegmentIndex, ReadError> {
    if segment.finished {
        let limit = 1 << 30;
        let offsets = read_file(disk, &path(&segment.dir, segment.base, "index"), limit).await;
        let times = read_file(disk, &path(&segment.dir, segment.base, "timeindex"), limit).await;
        if let (Ok(offsets), Ok(times)) = (offsets, times)
            && let Ok(index) = SegmentIndex::decode(
                segment.base,
                &offsets,
                &times,
                segment.length_bytes,
                segment.offset_end,
            )
        {
            return Ok(index);
        }
    }
    // Kept in memory by the store, not written: this task does not know whether the segment still has
    // the contents that it walked.
    let index = walk_index(disk, file, segment).await?;
    *built = Some(index.clone());
    Ok(index)
}

async fn walk_index<D: Disk>(
    disk: &D,
    file: &D::File,
    segment: &SegmentRef,
) -> Result<SegmentIndex, ReadError> {
    let mut index = SegmentIndex::new(segment.base);
    let mut walk = BatchWalk::new(segment, 0);
    while let Some((position, view)) = walk.next(disk, file).await? {
        index.on_batch(view.header(), position, segment.index_interval_bytes);
    }
    Ok(index)
}

/// Goes through the batches of a segment, window by window.
pub(crate) struct BatchWalk<'s> {
    segment: &'s SegmentRef,
    position: u64,
    offset_min: Offset,
    window: Option<Window>,
    wanted: u64,
}

impl<'s> BatchWalk<'s> {
    pub(crate) fn new(segment: &'s SegmentRef, position: u64) -> BatchWalk<'s> {
        BatchWalk {
            segment,
            position,
            offset_min: segment.base,
            window: None,
            wanted: WINDOW_BYTES,
        }
    }

    /// The next batch and its position; its checksum is not verified yet.
    pub(crate) async fn next<D: Disk>(
        &mut self,
        disk: &D,
        file: &D::File,
    ) -> Result<Option<(u64, BatchView<'_>)>, ReadError> {
        if self.position >= self.segment.end {
            return Ok(None);
        }
        loop {
            let short = match &self.window {
                None => Some(self.wanted),
                Some(window) => match window.at(self.position, self.segment, self.offset_min) {
                    At::Batch(_) => None,
                    At::Short(needed) => Some(needed.max(WINDOW_BYTES)),
                    At::Corrupt => return Err(ReadError::Corrupt),
                },
            };
            let Some(wanted) = short else { break };
            self.wanted = wanted;
            let window = Window::read(disk, file, self.segment, self.position, wanted)
                .await
                .map_err(|error| disk_error(&error))?;
            self.window = Some(window);
            disk.pause().await;
        }
        let window = self.window.as_ref().expect("read above");
        let At::Batch(view) = window.at(self.position, self.segment, self.offset_min) else {
            return Err(ReadError::Corrupt);
        };
        let position = self.position;
        self.position += view.len_bytes() as u64;
        self.offset_min = view.header().offset_end();
        Ok(Some((position, view)))
    }
}

/// A lookup over segments and then over batches that are only in memory, in offset order.
#[derive(Debug)]
pub(crate) struct LookupJob {
    pub ticket: u64,
    pub log: LogId,
    pub kind: LookupKind,
    pub log_start: Offset,
    pub up_to: Offset,
    pub parts: Vec<LookupPart>,
}

#[derive(Debug)]
pub(crate) enum LookupPart {
    Segment(SegmentRef),
    Memory(Vec<Shared>),
}

/// What a lookup has found so far.
pub(crate) struct Search {
    kind: LookupKind,
    log_start: Offset,
    up_to: Offset,
    best: Option<Found>,
    scratch: RecordsScratch,
}

impl Search {
    pub(crate) fn new(kind: LookupKind, log_start: Offset, up_to: Offset) -> Search {
        Search {
            kind,
            log_start,
            up_to,
            best: None,
            scratch: RecordsScratch::new(),
        }
    }

    pub(crate) fn found(&self) -> Option<Found> {
        self.best
    }

    /// Whether batches whose largest timestamp is this need looking at.
    fn wants(&self, max_timestamp_ms: i64) -> bool {
        match self.kind {
            LookupKind::ByTimestamp(at_least) => max_timestamp_ms >= at_least,
            LookupKind::MaxTimestamp => {
                max_timestamp_ms > self.best.map_or(-1, |found| found.timestamp_ms)
            }
        }
    }

    /// Looks at a batch. True if the search is over.
    pub(crate) fn look(&mut self, view: &BatchView<'_>) -> Result<bool, ReadError> {
        let header = view.header();
        if header.base_offset() >= self.up_to {
            return Ok(true);
        }
        if !self.wants(header.max_timestamp()) || header.offset_end() <= self.log_start {
            return Ok(false);
        }
        view.verify_crc().map_err(|_| ReadError::Corrupt)?;
        let records = self
            .scratch
            .records(view, output_bytes_max(view.len_bytes()))
            .map_err(|_| ReadError::Corrupt)?;
        for record in records {
            let record = record.map_err(|_| ReadError::Corrupt)?;
            let offset = Offset(record.offset);
            if offset < self.log_start || offset >= self.up_to {
                continue;
            }
            let better = match self.kind {
                LookupKind::ByTimestamp(at_least) => record.timestamp >= at_least,
                LookupKind::MaxTimestamp => {
                    record.timestamp > self.best.map_or(-1, |found| found.timestamp_ms)
                }
            };
            if better {
                self.best = Some(Found {
                    timestamp_ms: record.timestamp,
                    offset,
                    leader_epoch: header.partition_leader_epoch(),
                });
                if matches!(self.kind, LookupKind::ByTimestamp(_)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

impl LookupJob {
    pub(crate) async fn run<D: Disk>(self, disk: &D) -> Result<Option<Found>, ReadError> {
        let mut search = Search::new(self.kind, self.log_start, self.up_to);
        for part in &self.parts {
            match part {
                LookupPart::Segment(segment) => {
                    if segment.end == 0 || !search.wants(segment.max_timestamp_ms) {
                        continue;
                    }
                    if look_through(disk, segment, &mut search).await? {
                        return Ok(search.found());
                    }
                }
                LookupPart::Memory(batches) => {
                    for bytes in batches {
                        let view = BatchView::new(bytes).map_err(|_| ReadError::Corrupt)?;
                        if search.look(&view)? {
                            return Ok(search.found());
                        }
                    }
                }
            }
        }
        Ok(search.found())
    }
}

async fn look_through<D: Disk>(
    disk: &D,
    segment: &SegmentRef,
    search: &mut Search,
) -> Result<bool, ReadError> {
    let file = disk
        .open(&path(&segment.dir, segment.base, "log"), OpenMode::Read)
        .await
        .map_err(|error| disk_error(&error))?;
    let start = match search.kind {
        LookupKind::ByTimestamp(at_least) if segment.finished => {
            load_index(disk, &file, segment, &mut None)
                .await?
                .position_for_timestamp(at_least.saturating_sub(1))
        }
        LookupKind::MaxTimestamp if segment.finished => load_index(disk, &file, segment, &mut None)
            .await?
            .position_for_timestamp(segment.max_timestamp_ms.saturating_sub(1)),
        _ => 0,
    };
    let mut walk = BatchWalk::new(segment, start);
    while let Some((_, view)) = walk.next(disk, &file).await? {
        if search.look(&view)? {
            return Ok(true);
        }
    }
    Ok(false)
}
