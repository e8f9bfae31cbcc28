//! Straight writes: a partition that brings much in one write of the journal has its batches put into
//! its segment directly, and only a reference into the journal. Part of a core's store; knows no I/O.
//!
//! A batch is copied once here too, into a buffer that is laid out as the segment's blocks. When the
//! journal's write is sealed, whole blocks of that buffer become a companion of the write, and the
//! partial block behind them goes into the reference. The next straight write begins with that block
//! again, so a block is only ever written whole, and until then the journal has its bytes.
//!
//! What must hold when one begins: the segment's file exists durably, all that is written to it is
//! flushed, space is allocated for what comes, nobody else writes to it. Then, when a straight write and
//! everything before it is durable, so is the whole segment up to its end.

use std::rc::Rc;

use ring::buf::{AlignedBuf, Shared};

use crate::batch::HEADER_BYTES;
use crate::journal::{Companion, Entry, EntryKind, WRITE_BYTES_MAX};
use crate::reference::{encode, reference_bytes};
use crate::segment::{BLOCK, StraightWrite, block_floor};
use crate::tasks::Job;
use crate::types::{Now, Offset};

use super::Store;
use super::api::{FileRef, LogId};
use super::durable::earlier;
use super::partition::{LogState, PartitionLog};
use super::recent::Recent;

/// A straight write takes at most this much along that the journal has already: it is copied.
pub(crate) const CARRY_BYTES_MAX: u64 = WRITE_BYTES_MAX as u64;
/// Buffers are cut from pieces of this size; larger needs get one of their own.
const ARENA_BYTES: usize = 1 << 20;
/// The headers in a reference are at most this part of the bytes referred to.
const HEADERS_PART_MAX: u64 = 8;
/// Space is allocated ahead by a quarter of the segment, within these bounds.
const AHEAD_BYTES_MIN: u64 = 1 << 20;
const AHEAD_BYTES_MAX: u64 = 64 << 20;
/// How long to wait after the disk had no space for that, in microseconds.
const AHEAD_RETRY_US: u64 = 10_000_000;

/// How much a partition brings in one write of the journal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gathering {
    /// The write that is being gathered.
    sequence: u64,
    bytes: u64,
    batches: u64,
    /// The same of the write before, in which there was any of it.
    last_bytes: u64,
    last_batches: u64,
}

impl Gathering {
    /// The last batch went into this write: the one before may have been sealed to make room.
    pub(super) fn is_in(&mut self, sequence: u64) {
        self.sequence = sequence;
    }
}

struct Placed {
    base_offset: Offset,
    offset_end: Offset,
    /// Place in the buffer.
    start: usize,
    stop: usize,
}

/// What a partition gathers for its segment until the journal's write is sealed.
pub(crate) struct OpenStraight {
    segment_base: Offset,
    /// Where the buffer begins in the segment: a block's beginning.
    from: u64,
    /// Where the first new batch begins in the segment.
    first: u64,
    wall_ms: i64,
    /// When it must be flushed, where its write gets no flush of its own.
    flush_due_us: Option<u64>,
    buf: AlignedBuf,
    placed: Vec<Placed>,
}

impl OpenStraight {
    /// The last batch is to be flushed by then, if at all.
    pub(super) fn flush_by(&mut self, due_us: Option<u64>) {
        self.flush_due_us = earlier(self.flush_due_us, due_us);
    }

    /// The place of the next batch, at `position` of the segment.
    pub(super) fn place(
        &mut self,
        position: u64,
        bytes: usize,
        base_offset: Offset,
        offset_end: Offset,
    ) -> &mut [u8] {
        let start = (position - self.from) as usize;
        self.placed.push(Placed {
            base_offset,
            offset_end,
            start,
            stop: start + bytes,
        });
        &mut self.buf[start..start + bytes]
    }
}

/// A straight write whose reference is in the journal's open write.
pub(crate) struct Part {
    log: LogId,
    segment_base: Offset,
    to: u64,
    companion: Companion,
    /// The whole buffer.
    bytes: Shared,
    placed: Vec<Placed>,
}

impl Part {
    /// The batches as readable memory, and the write's place in its segment.
    fn batches(&self, sequence: u64) -> impl Iterator<Item = Recent> {
        let from = self.companion.position;
        self.placed.iter().map(move |placed| Recent {
            sequence,
            segment_base: self.segment_base,
            position: from + placed.start as u64,
            base_offset: placed.base_offset,
            offset_end: placed.offset_end,
            bytes: self.bytes.slice(placed.start..placed.stop),
        })
    }
}

/// A straight write of a sealed write of the journal.
pub(super) struct SealedStraight {
    log: LogId,
    segment_base: Offset,
    to: u64,
}

/// Whether a straight write of `bytes` may begin.
fn may_begin(partition: &PartitionLog, bytes: u64) -> bool {
    let active = partition.active();
    let count = partition.segments.len();
    // Closed segments are finished first: nothing else gets at the log's files while it streams.
    let others_finished = count == 1 || partition.segments[count - 2].image.finished;
    let written = active.straight_end();
    partition.state == LogState::Live
        && !partition.busy
        && !partition.settle
        && !partition.flush
        && others_finished
        && active.made
        && active.unsynced_sequence.is_none()
        && written == block_floor(written)
        && active.image.length_bytes - written <= CARRY_BYTES_MAX
        && active.image.length_bytes + bytes <= active.allocated
}

impl Store {
    /// Whether the next batch of a log, of `bytes`, goes straight to its segment. Then
    /// `PartitionLog::straight` has room for it.
    pub(super) fn goes_straight(&mut self, now: Now, log: LogId, bytes: u64) -> bool {
        let threshold = self.config.straight_bytes_min;
        let partition = self.log(log).expect("admitted");
        let dir = partition.dir;
        if let Some(open) = &partition.straight {
            let end = partition.active().image.length_bytes + bytes;
            let fits = end - open.from <= open.buf.len() as u64
                && end <= partition.active().allocated
                && self.dirs[dir].straight_bytes < WRITE_BYTES_MAX as u64;
            if !fits {
                // What follows begins behind it, in the next write.
                self.seal(dir);
            }
        }
        let sequence = self.dirs[dir].journal.next_sequence();
        let partition = self.log_mut(log).expect("admitted");
        let gathering = &mut partition.gathering;
        if gathering.sequence != sequence {
            *gathering = Gathering {
                sequence,
                bytes: 0,
                batches: 0,
                last_bytes: gathering.bytes,
                last_batches: gathering.batches,
            };
        }
        let first = gathering.bytes == 0;
        gathering.bytes += bytes;
        gathering.batches += 1;
        if partition.straight.is_some() {
            return true;
        }
        let headers = gathering.last_batches * HEADER_BYTES as u64;
        let streams = bytes >= threshold
            || gathering.last_bytes >= threshold
                && headers * HEADERS_PART_MAX <= gathering.last_bytes;
        let expected = gathering.last_bytes.max(bytes);
        partition.streams = streams;
        // What this write gathered already cannot be taken along.
        if !streams || !first {
            return false;
        }
        if !may_begin(partition, bytes) {
            self.want_write_back(log, false);
            self.allocate_ahead(now, log);
            return false;
        }
        self.begin_straight(now, log, bytes, expected);
        true
    }

    fn begin_straight(&mut self, now: Now, log: LogId, bytes: u64, expected: u64) {
        let partition = self.logs[log.0 as usize].as_deref_mut().expect("admitted");
        let active = partition.active();
        let (from, first) = (active.straight_end(), active.image.length_bytes);
        let carried = first - from;
        let expected = expected.min(WRITE_BYTES_MAX as u64).max(bytes);
        let needed = ((carried + expected).next_multiple_of(BLOCK) + BLOCK) as usize;
        let dir = &mut self.dirs[partition.dir];
        let mut buf = match dir.straight_arena.take() {
            Some(rest) if rest.len() >= needed => rest,
            _ => AlignedBuf::scratch(needed.max(ARENA_BYTES)),
        };
        let mut covered = from;
        for recent in partition.recent.dirty() {
            let start = recent.position.max(from);
            if start < recent.position_end() {
                assert!(start <= covered, "a hole in what is written to a segment");
                covered = recent.position_end();
                let source = (start - recent.position) as usize..;
                let (at, stop) = (start - from, recent.position_end() - from);
                buf[at as usize..stop as usize].copy_from_slice(&recent.bytes[source]);
            }
        }
        assert!(covered == first, "a hole in what is written to a segment");
        self.counters.write_back_bytes_copied += carried;
        dir.straights.push(log);
        partition.straight = Some(Box::new(OpenStraight {
            segment_base: partition.active().base(),
            from,
            first,
            wall_ms: now.wall_ms,
            flush_due_us: None,
            buf,
            placed: Vec::new(),
        }));
    }

    /// Ends what the logs of a directory gather for their segments: its references go into the open
    /// write.
    pub(super) fn end_straights(&mut self, dir: usize) {
        while let Some(log) = self.dirs[dir].straights.last().copied() {
            self.end_straight(log);
        }
        self.dirs[dir].straight_bytes = 0;
    }

    /// As [`Store::end_straights`], for one log, if it gathers anything.
    pub(super) fn end_straight(&mut self, log: LogId) {
        let Some(partition) = self.logs.get_mut(log.0 as usize).and_then(Option::as_mut) else {
            return;
        };
        let Some(open) = partition.straight.take() else {
            return;
        };
        let dir = partition.dir;
        self.dirs[dir].straights.retain(|known| *known != log);
        let last = open.placed.last().expect("begun for a batch");
        let (used, base_offset, offset_end) =
            (last.stop, open.placed[0].base_offset, last.offset_end);
        let to = block_floor(open.from + used as u64);
        let sync = partition.config.flush_messages <= 1;
        let entry = Entry {
            kind: EntryKind::Straight,
            topic_id: partition.key.topic_id,
            partition: partition.key.partition,
            incarnation: partition.incarnation,
            segment_base: open.segment_base,
            position: open.first,
            base_offset,
            offset_end,
            value: open.wall_ms,
        };
        if to.saturating_sub(open.first) < (self.config.straight_bytes_min / 2).max(1) {
            self.put_into_journal(log, dir, entry, sync, *open);
            return;
        }
        let OpenStraight {
            segment_base,
            from,
            first: _,
            wall_ms: _,
            flush_due_us,
            mut buf,
            placed,
        } = *open;
        let whole = (to - from) as usize;
        let file = FileRef {
            id: FileRef::of_log(log),
            path: partition.active_file(),
        };
        let headers = placed
            .iter()
            .map(|placed| &buf[placed.start..placed.start + HEADER_BYTES]);
        let length = reference_bytes(placed.len(), used - whole);
        let (_, sealed) = self.dirs[dir].journal.add(log, entry, length, sync, |out| {
            encode(out, from, &buf[..whole], headers, &buf[whole..used]);
        });
        if let Some(sealed) = sealed {
            self.on_sealed(dir, sealed);
        }
        self.dirs[dir].flush_by(flush_due_us);
        let blocks = used.next_multiple_of(BLOCK as usize);
        let bytes = if blocks < buf.len() {
            let front = buf.split_to(blocks);
            self.dirs[dir].straight_arena = Some(buf);
            front.freeze()
        } else {
            buf.freeze()
        };
        let partition = self.log_mut(log).expect("just seen");
        // From here on, not from when it is sealed: nobody else may write to the file in between.
        partition.straights_under_way += 1;
        self.counters.straight_writes += 1;
        self.counters.straight_bytes += whole as u64;
        self.counters.write_back_bytes_copied += (used - whole) as u64;
        let companion = Companion {
            file,
            position: from,
            bytes: bytes.slice(0..whole),
        };
        self.dirs[dir].journal.attach(Part {
            log,
            segment_base,
            to,
            companion,
            bytes,
            placed,
        });
    }

    /// Too little came after all: the journal gets it, with a second copy.
    fn put_into_journal(
        &mut self,
        log: LogId,
        dir: usize,
        entry: Entry,
        sync: bool,
        open: OpenStraight,
    ) {
        for placed in &open.placed {
            let entry = Entry {
                kind: EntryKind::Append,
                position: open.from + placed.start as u64,
                base_offset: placed.base_offset,
                offset_end: placed.offset_end,
                ..entry
            };
            let bytes = &open.buf[placed.start..placed.stop];
            let (_, sealed) = self.dirs[dir]
                .journal
                .add(log, entry, bytes.len(), sync, |out| {
                    out.copy_from_slice(bytes);
                });
            self.counters.write_back_bytes_copied += bytes.len() as u64;
            if let Some(sealed) = sealed {
                self.on_sealed(dir, sealed);
            }
            self.dirs[dir].flush_by(open.flush_due_us);
        }
        self.dirs[dir].straight_arena = Some(open.buf);
    }

    /// The reference of a straight write is sealed: its batches become readable memory, and its bytes
    /// go out beside the journal's write.
    pub(super) fn on_straight_sealed(
        &mut self,
        sequence: u64,
        part: Part,
    ) -> (SealedStraight, Companion) {
        let partition = self.log_mut(part.log).expect("it is deleted later");
        partition.recent.extend(part.batches(sequence));
        let index = partition
            .segment_at(part.segment_base)
            .expect("it is dropped later");
        partition.segments[index]
            .straights
            .push_back(StraightWrite {
                sequence,
                to: part.to,
            });
        let sealed = SealedStraight {
            log: part.log,
            segment_base: part.segment_base,
            to: part.to,
        };
        (sealed, part.companion)
    }

    /// A straight write, and everything before it, is in the segment's file.
    pub(super) fn on_straight_written(&mut self, straight: &SealedStraight) {
        self.note_in_file(straight.log, straight.segment_base, straight.to);
    }

    /// A straight write, and everything before it, is flushed.
    pub(super) fn on_straight_durable(&mut self, now: Now, straight: &SealedStraight) {
        let log = straight.log;
        let Some(partition) = self.log_mut(log) else {
            return;
        };
        let Some(index) = partition.segment_at(straight.segment_base) else {
            return;
        };
        partition.straights_under_way -= 1;
        let segment = &mut partition.segments[index];
        segment.straights.pop_front();
        segment.image.synced_bytes = straight.to;
        let dir = partition.dir;
        let closed = partition.segments[index].image.closed;
        let streams = partition.is_streaming();
        self.dirs[dir].checkpoints.changed = true;
        if !streams {
            // Whoever wanted to write to its files may now.
            let settles = self
                .log(log)
                .is_some_and(|partition| partition.settle || partition.flush);
            if settles || closed || self.shutting_down {
                self.want_write_back(log, false);
            }
            self.relieve(now, dir, log);
        } else {
            self.allocate_ahead(now, log);
        }
    }

    /// The segments' files that have straight writes which are written and not flushed.
    pub(super) fn unflushed_segments(
        &self,
        dir: usize,
        written: u64,
    ) -> Vec<Rc<std::path::PathBuf>> {
        let mut paths = Vec::new();
        for partition in self.logs.iter().flatten().filter(|p| p.dir == dir) {
            for segment in &partition.segments {
                let unflushed = segment.straights.front();
                if unflushed.is_some_and(|straight| straight.sequence <= written) {
                    paths.extend(segment.file.clone());
                }
            }
        }
        paths
    }

    /// Allocates space for what a streaming log will bring next, unless there is enough.
    pub(super) fn allocate_ahead(&mut self, now: Now, log: LogId) {
        let Some(partition) = self.logs[log.0 as usize].as_deref_mut() else {
            return;
        };
        let dir = &self.dirs[partition.dir];
        let segment_bytes = partition.config.segment_bytes;
        let active = partition.segments.back().expect("a log has a segment");
        let length = active.image.length_bytes;
        let ahead = (length / 4).clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX);
        let most = segment_bytes.max(length).next_multiple_of(BLOCK);
        let target = (length + ahead).next_multiple_of(BLOCK).min(most);
        let is_low = active.allocated < target && active.allocated < length + ahead / 2;
        if !is_low
            || !active.made
            || partition.busy
            || partition.allocating
            || dir.offline
            || dir.space.is_full()
            || now.monotonic_us < partition.allocate_from_us
        {
            return;
        }
        partition.allocating = true;
        let job = Job::Allocate {
            log,
            base: active.base(),
            path: crate::segment::path(&partition.path, active.base(), "log"),
            position: active.allocated,
            to: target,
        };
        self.spawn(job);
    }

    pub(super) fn on_allocated(
        &mut self,
        now: Now,
        log: LogId,
        base: Offset,
        to: u64,
        result: std::io::Result<()>,
    ) {
        if self.was_deleted(log) {
            return;
        }
        let partition = self.log_mut(log).expect("not deleted");
        partition.allocating = false;
        match result {
            Ok(()) => {
                if let Some(index) = partition.segment_at(base) {
                    let segment = &mut partition.segments[index];
                    if !segment.image.finished {
                        segment.allocated = segment.allocated.max(to);
                    }
                }
            }
            // Write-back asks for smaller pieces, and says so if there are none.
            Err(error) => {
                partition.allocate_from_us = now.monotonic_us + AHEAD_RETRY_US;
                tracing::debug!(%error, "no space ahead of a segment");
            }
        }
        self.drop_segments(now, log);
        // Whoever wanted to write to the file waited.
        self.want_write_back(log, false);
    }
}
