//! Cold reads and lookups: finding a batch by its index, reading whole aligned windows, and
//! verifying every checksum before a batch is given out. Tasks on the core of their store; they know
//! no memory of the store but what they were given.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use ring::buf::{AlignedBuf, Shared};

use crate::batch::{BatchError, BatchHeader, BatchView, HEADER_BYTES, LENGTH_OVERHEAD_BYTES};
use crate::disk::{Disk, OpenMode};
use crate::index::SegmentIndex;
use crate::index_task::{Sought, find_start};
use crate::records::RecordsScratch;
use crate::segment::{BLOCK, block_floor, path};
use crate::segment_writer::IndexBounds;
use crate::store::{Found, LogId, LookupKind, ReadError};
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
    pub index: IndexBounds,
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

/// Opens a segment's file for reading.
pub(crate) async fn open_segment<D: Disk>(
    disk: &D,
    segment: &SegmentRef,
) -> Result<D::File, ReadError> {
    disk.open(&path(&segment.dir, segment.base, "log"), OpenMode::Read)
        .await
        .map_err(|error| disk_error(&error))
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
pub(crate) struct Window {
    buf: AlignedBuf,
    position: u64,
    /// Bytes of it that may be looked at.
    len: usize,
    /// Whether the file ended before the window did: it is shorter than the log says.
    cut: bool,
}

impl Window {
    pub(crate) async fn read<D: Disk>(
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

    /// What it holds from a position of the file on.
    pub(crate) fn bytes_at(&self, position: u64) -> &[u8] {
        let start = (position - self.position) as usize;
        &self.buf[start.min(self.len)..self.len]
    }

    fn at(&self, position: u64, segment: &SegmentRef, offset_min: Offset) -> At<'_> {
        let bytes = self.bytes_at(position);
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
    /// Bytes of its first read: of its only one, unless a batch is larger.
    fn wanted_bytes(&self) -> u64 {
        self.bytes_max.clamp(WINDOW_BYTES, WINDOW_BYTES_MAX)
    }

    /// Memory that it takes, in all likelihood: with the rest of the blocks at both ends.
    pub(crate) fn window_bytes(&self) -> u64 {
        let left = self.segment.end - self.position.unwrap_or(0).min(self.segment.end);
        self.wanted_bytes().min(left).next_multiple_of(BLOCK) + BLOCK
    }

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
        let file = open_segment(disk, segment).await?;
        let mut position = match self.position {
            Some(position) => position,
            None => find_start(disk, &file, segment, Sought::Offset(self.from), built).await?,
        };
        let mut wanted = self.wanted_bytes();
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

/// What a lookup found, and the indexes that it had to build.
#[derive(Debug)]
pub(crate) struct LookupOutcome {
    pub ticket: u64,
    pub log: LogId,
    pub result: Result<Option<Found>, ReadError>,
    /// By base offset and generation of their segments.
    pub built: Vec<(Offset, u64, SegmentIndex)>,
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
    pub(crate) async fn run<D: Disk>(self, disk: &D) -> LookupOutcome {
        let mut built = Vec::new();
        let result = self.search(disk, &mut built).await;
        LookupOutcome {
            ticket: self.ticket,
            log: self.log,
            result,
            built,
        }
    }

    async fn search<D: Disk>(
        &self,
        disk: &D,
        built: &mut Vec<(Offset, u64, SegmentIndex)>,
    ) -> Result<Option<Found>, ReadError> {
        let mut search = Search::new(self.kind, self.log_start, self.up_to);
        for part in &self.parts {
            match part {
                LookupPart::Segment(segment) => {
                    if segment.end == 0 || !search.wants(segment.max_timestamp_ms) {
                        continue;
                    }
                    if look_through(disk, segment, &mut search, built).await? {
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
    built: &mut Vec<(Offset, u64, SegmentIndex)>,
) -> Result<bool, ReadError> {
    let file = open_segment(disk, segment).await?;
    let mut start = 0;
    if segment.finished {
        let timestamp_ms = match search.kind {
            LookupKind::ByTimestamp(at_least) => at_least,
            LookupKind::MaxTimestamp => segment.max_timestamp_ms,
        };
        let mut index = None;
        let sought = Sought::Timestamp(timestamp_ms);
        start = find_start(disk, &file, segment, sought, &mut index).await?;
        built.extend(index.map(|index| (segment.base, segment.generation, index)));
    }
    let mut walk = BatchWalk::new(segment, start);
    while let Some((_, view)) = walk.next(disk, &file).await? {
        if search.look(&view)? {
            return Ok(true);
        }
    }
    Ok(false)
}
