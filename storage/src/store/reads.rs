//! Reading: memory first, then windows that were read lately, then the disk; one read per place,
//! whoever asks. Part of a core's store; knows no fetch session and no high watermark.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use ring::buf::Shared;

use crate::batch::BatchView;
use crate::read_task::{
    LookupJob, LookupOutcome, LookupPart, ReadBatch, ReadJob, ReadOutcome, Search, SegmentRef,
};
use crate::segment_writer::IndexBounds;
use crate::tasks::Job;
use crate::types::{Now, Offset};

use super::Store;
use super::api::{Found, LogConfig, LogId, Lookup, LookupKind, Notice, Read, ReadError};

/// Memory for windows that may be asked for again, in bytes: a cache of their own, so that scans do
/// not displace the newest data.
const WINDOWS_BYTES_MAX: u64 = 8 << 20;
/// How many places are remembered at which a reader will go on.
const HINTS_MAX: usize = 512;

/// An index is not thinned below this, in bytes, whatever the configuration says.
const INDEX_BYTES_MIN: u64 = 4096;

/// How often a lookup begins anew when files change under it, before it is taken for the disk's fault.
const LOOKUPS_ANEW_MAX: u32 = 8;

/// Reads under way and what earlier ones left.
#[derive(Default)]
pub(super) struct Reads {
    under_way: HashMap<(LogId, Offset), Vec<Waiter>>,
    windows: VecDeque<CachedWindow>,
    windows_bytes: u64,
    hints: VecDeque<Hint>,
    /// Lookups under way, by ticket: what is sought, and how often it was begun anew.
    lookups: HashMap<u64, (LookupKind, u32)>,
}

struct Waiter {
    ticket: u64,
    bytes_max: usize,
    whole_batch_at_least: bool,
    up_to: Offset,
}

struct CachedWindow {
    log: LogId,
    base: Offset,
    generation: u64,
    bytes: u64,
    batches: Vec<ReadBatch>,
}

/// Where in a segment the batch with an offset begins.
struct Hint {
    log: LogId,
    base: Offset,
    generation: u64,
    offset: Offset,
    position: u64,
}

/// Takes batches as long as they fit; the first one whatever its size, if so asked.
fn take<'b>(
    batches: impl Iterator<Item = (Offset, &'b Shared)>,
    bytes_max: usize,
    whole_batch_at_least: bool,
    up_to: Offset,
) -> Vec<Shared> {
    let mut out = Vec::new();
    let mut bytes = 0;
    for (offset_end, batch) in batches {
        let first = out.is_empty() && whole_batch_at_least;
        if offset_end > up_to || (!first && bytes + batch.len() > bytes_max) {
            break;
        }
        bytes += batch.len();
        out.push(batch.clone());
    }
    out
}

impl Store {
    /// Reads whole batches from the one that holds `from` on, ending at or below `up_to`, at most
    /// `bytes_max` bytes, or one batch whatever its size if `whole_batch_at_least`.
    pub fn read(
        &mut self,
        _now: Now,
        log: LogId,
        from: Offset,
        bytes_max: usize,
        whole_batch_at_least: bool,
        up_to: Offset,
    ) -> Read {
        let Some(partition) = self.log(log) else {
            return Read::Err(ReadError::NotFound);
        };
        if from < partition.log_start || from > partition.log_end {
            return Read::Err(ReadError::OutOfRange);
        }
        let up_to = up_to.min(partition.log_end);
        if from >= up_to {
            return Read::Ready(Vec::new());
        }
        let waiter = Waiter {
            ticket: 0,
            bytes_max,
            whole_batch_at_least,
            up_to,
        };
        if let Some(batches) = self.held_in_memory(log, from, &waiter) {
            return Read::Ready(batches);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let waiter = Waiter { ticket, ..waiter };
        match self.ask_disk(log, from, vec![waiter]) {
            Ok(()) => Read::Disk(ticket),
            Err(batches) => Read::Ready(batches),
        }
    }

    fn held_in_memory(&self, log: LogId, from: Offset, waiter: &Waiter) -> Option<Vec<Shared>> {
        let partition = self.log(log)?;
        let Waiter {
            bytes_max,
            whole_batch_at_least,
            up_to,
            ..
        } = *waiter;
        if let Some(recent) = partition.in_memory(from, up_to) {
            return Some(take(
                recent.map(|recent| (recent.offset_end, &recent.bytes)),
                bytes_max,
                whole_batch_at_least,
                up_to,
            ));
        }
        for window in self.reads.windows.iter().filter(|window| window.log == log) {
            let at = window
                .batches
                .partition_point(|batch| batch.offset_end <= from);
            let holds = window
                .batches
                .get(at)
                .is_some_and(|batch| batch.base_offset <= from);
            let current = partition.segment_at(window.base).is_some_and(|index| {
                partition.segments[index].image.generation == window.generation
            });
            if holds && current {
                return Some(take(
                    window.batches[at..]
                        .iter()
                        .map(|batch| (batch.offset_end, &batch.bytes)),
                    bytes_max,
                    whole_batch_at_least,
                    up_to,
                ));
            }
        }
        None
    }

    /// Starts a read of the disk for these waiters, or joins one; gives batches back where the offset
    /// turned out to lie in a hole before those in memory.
    fn ask_disk(
        &mut self,
        log: LogId,
        from: Offset,
        waiters: Vec<Waiter>,
    ) -> Result<(), Vec<Shared>> {
        if let Some(joined) = self.reads.under_way.get_mut(&(log, from)) {
            joined.extend(waiters);
            return Ok(());
        }
        let partition = self.log(log).expect("looked at by the caller");
        let mut index = partition.segment_of(from);
        while index < partition.segments.len()
            && (partition.readable_bytes(index) == 0
                || partition.segments[index].image.offset_end <= from)
        {
            index += 1;
        }
        if index == partition.segments.len() {
            // Compaction left nothing at `from`: the next batch there is lies in memory.
            let waiter = waiters.first().expect("at least one");
            let from = partition
                .dirty
                .front()
                .map_or(from, |recent| recent.base_offset);
            return Err(self.held_in_memory(log, from, waiter).unwrap_or_default());
        }
        let segment = &partition.segments[index];
        let hint = self.reads.hints.iter().rev().find(|hint| {
            (hint.log, hint.base, hint.generation, hint.offset)
                == (log, segment.base(), segment.image.generation, from)
        });
        let position = if from <= segment.base() {
            Some(0)
        } else if let Some(hint) = hint {
            Some(hint.position)
        } else {
            segment.position_for(from)
        };
        let bytes_max = waiters
            .iter()
            .map(|waiter| waiter.bytes_max)
            .max()
            .unwrap_or(0) as u64;
        let job = ReadJob {
            segment: self.segment_ref(log, index),
            from,
            up_to: partition.log_end,
            bytes_max,
            position,
        };
        self.counters.disk_reads += 1;
        self.reads.under_way.insert((log, from), waiters);
        self.spawn(Job::Read(Box::new(job)));
        Ok(())
    }

    pub(super) fn segment_ref(&self, log: LogId, index: usize) -> SegmentRef {
        let partition = self.log(log).expect("looked at by the caller");
        let segment = &partition.segments[index];
        let image = &segment.image;
        SegmentRef {
            log,
            dir: Rc::clone(&partition.path),
            base: image.base,
            generation: image.generation,
            end: partition.readable_bytes(index),
            length_bytes: image.length_bytes,
            offset_end: image.offset_end,
            max_timestamp_ms: image.max_timestamp_ms,
            finished: image.finished,
            index: index_bounds(&partition.config),
            overlay: segment
                .head
                .as_ref()
                .map(|head| (segment.write_from(), Rc::clone(head))),
        }
    }

    pub(super) fn on_read(&mut self, outcome: ReadOutcome) {
        let waiters = self
            .reads
            .under_way
            .remove(&(outcome.log, outcome.from))
            .unwrap_or_default();
        let log = outcome.log;
        if let Some(built) = outcome.index {
            self.note_built_index(log, outcome.base, outcome.generation, built);
        }
        let current = self.log(log).and_then(|partition| {
            // While files are renamed nobody can say whose contents were read.
            if partition.swapping {
                return None;
            }
            let index = partition.segment_at(outcome.base)?;
            let segment = &partition.segments[index];
            (segment.image.generation == outcome.generation).then_some(index)
        });
        let Some(index) = current else {
            // Compacted, deleted or expired meanwhile: whoever asks again sees what is there now.
            let gone = self.log(log).is_none();
            for waiter in waiters {
                let result = if gone {
                    Err(ReadError::NotFound)
                } else {
                    Ok(Vec::new())
                };
                self.tell_read(waiter.ticket, result);
            }
            return;
        };
        let data = match outcome.result {
            Ok(data) => data,
            Err(error) => {
                for waiter in waiters {
                    self.tell_read(waiter.ticket, Err(error));
                }
                return;
            }
        };
        if data.batches.is_empty() {
            self.read_on(log, index, waiters);
            return;
        }
        for waiter in &waiters {
            let batches = take(
                data.batches
                    .iter()
                    .map(|batch| (batch.offset_end, &batch.bytes)),
                waiter.bytes_max,
                waiter.whole_batch_at_least,
                waiter.up_to,
            );
            self.counters.disk_read_bytes +=
                batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
            self.tell_read(waiter.ticket, Ok(batches));
        }
        self.remember(
            log,
            outcome.base,
            outcome.generation,
            data.batches,
            data.position_next,
        );
    }

    /// Compaction left nothing at the offset in this segment: the read goes on behind it.
    fn read_on(&mut self, log: LogId, index: usize, waiters: Vec<Waiter>) {
        let partition = self.log(log).expect("the segment is there");
        let base = partition.segments[index].base();
        let next = partition
            .dirty
            .iter()
            .find(|recent| recent.segment_base >= base)
            .filter(|recent| recent.segment_base == base)
            .map_or(partition.segments[index].image.offset_end, |recent| {
                recent.base_offset
            });
        for waiter in waiters {
            if next >= waiter.up_to {
                self.tell_read(waiter.ticket, Ok(Vec::new()));
            } else if let Some(batches) = self.held_in_memory(log, next, &waiter) {
                self.tell_read(waiter.ticket, Ok(batches));
            } else {
                let ticket = waiter.ticket;
                if let Err(batches) = self.ask_disk(log, next, vec![waiter]) {
                    self.tell_read(ticket, Ok(batches));
                }
            }
        }
    }

    fn tell_read(&mut self, ticket: u64, result: Result<Vec<Shared>, ReadError>) {
        self.notices.push_back(Notice::ReadDone { ticket, result });
    }

    fn remember(
        &mut self,
        log: LogId,
        base: Offset,
        generation: u64,
        batches: Vec<ReadBatch>,
        position: u64,
    ) {
        let last = batches.last().expect("not empty");
        let reads = &mut self.reads;
        if reads.hints.len() >= HINTS_MAX {
            reads.hints.pop_front();
        }
        reads.hints.push_back(Hint {
            log,
            base,
            generation,
            offset: last.offset_end,
            position,
        });
        let bytes = last.bytes.buffer_bytes() as u64;
        reads.windows_bytes += bytes;
        reads.windows.push_back(CachedWindow {
            log,
            base,
            generation,
            bytes,
            batches,
        });
        while reads.windows_bytes > WINDOWS_BYTES_MAX {
            let Some(window) = reads.windows.pop_front() else {
                break;
            };
            reads.windows_bytes -= window.bytes;
        }
    }

    /// Finds a record by timestamp, exactly, inside compressed batches too. Records at or beyond the
    /// acknowledgement mark are not seen.
    pub fn lookup(&mut self, _now: Now, log: LogId, kind: LookupKind) -> Lookup {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let lookup = self.begin_lookup(ticket, log, kind);
        if let Lookup::Disk(ticket) = lookup {
            self.reads.lookups.insert(ticket, (kind, 0));
        }
        lookup
    }

    fn begin_lookup(&mut self, ticket: u64, log: LogId, kind: LookupKind) -> Lookup {
        let Some(partition) = self.log(log) else {
            return Lookup::Err(ReadError::NotFound);
        };
        let (log_start, up_to) = (partition.log_start, partition.durable_end);
        let wanted = |max_timestamp_ms: i64| match kind {
            LookupKind::ByTimestamp(at_least) => max_timestamp_ms >= at_least,
            LookupKind::MaxTimestamp => max_timestamp_ms >= 0,
        };
        let mut parts = Vec::new();
        let mut memory_only = true;
        for (index, segment) in partition.segments.iter().enumerate() {
            if !wanted(segment.image.max_timestamp_ms) || segment.image.offset_end <= log_start {
                continue;
            }
            let in_memory = partition
                .clean
                .front()
                .or(partition.dirty.front())
                .is_some_and(|recent| recent.base_offset <= segment.base().max(log_start));
            if partition.readable_bytes(index) > 0 && !in_memory {
                memory_only = false;
                parts.push(LookupPart::Segment(self.segment_ref(log, index)));
            }
            let batches = partition
                .clean
                .iter()
                .filter(|_| in_memory)
                .chain(&partition.dirty)
                .filter(|recent| recent.segment_base == segment.base())
                .map(|recent| recent.bytes.clone())
                .collect();
            parts.push(LookupPart::Memory(batches));
        }
        if memory_only {
            return match lookup_in_memory(kind, log_start, up_to, &parts) {
                Ok(found) => Lookup::Ready(found),
                Err(error) => Lookup::Err(error),
            };
        }
        self.spawn(Job::Lookup(Box::new(LookupJob {
            ticket,
            log,
            kind,
            log_start,
            up_to,
            parts,
        })));
        Lookup::Disk(ticket)
    }

    pub(super) fn on_lookup(&mut self, outcome: LookupOutcome) {
        let LookupOutcome {
            ticket,
            log,
            result,
            built,
        } = outcome;
        for (base, generation, index) in built {
            self.note_built_index(log, base, generation, index);
        }
        let (kind, begun) = self
            .reads
            .lookups
            .remove(&ticket)
            .expect("a lookup under way");
        // Files that vanish or change under the search were deleted by retention or compacted: the
        // search begins anew over what is there now.
        let result = match result {
            Err(error) if self.log(log).is_some() && begun < LOOKUPS_ANEW_MAX => {
                match self.begin_lookup(ticket, log, kind) {
                    Lookup::Ready(found) => Ok(found),
                    Lookup::Disk(ticket) => {
                        self.reads.lookups.insert(ticket, (kind, begun + 1));
                        return;
                    }
                    Lookup::Err(_) => Err(error),
                }
            }
            Err(ReadError::NotFound) if self.log(log).is_some() => Err(ReadError::Io),
            other => other,
        };
        self.notices
            .push_back(Notice::LookupDone { ticket, result });
    }
}

/// How densely a log's segments are indexed.
pub(super) fn index_bounds(config: &LogConfig) -> IndexBounds {
    IndexBounds {
        interval_bytes: config.index_interval_bytes,
        bytes_max: config.segment_index_bytes.max(INDEX_BYTES_MIN) as usize,
    }
}

fn lookup_in_memory(
    kind: LookupKind,
    log_start: Offset,
    up_to: Offset,
    parts: &[LookupPart],
) -> Result<Option<Found>, ReadError> {
    let mut search = Search::new(kind, log_start, up_to);
    for part in parts {
        let LookupPart::Memory(batches) = part else {
            continue;
        };
        for bytes in batches {
            let view = BatchView::new(bytes).map_err(|_| ReadError::Corrupt)?;
            if search.look(&view)? {
                return Ok(search.found());
            }
        }
    }
    Ok(search.found())
}
