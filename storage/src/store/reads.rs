//! Reading: memory first, then windows that were read lately, then the disk; one read per place,
//! whoever asks; and, for who goes through a log, the read of what comes next ahead of the question. Part of a core's store; knows no fetch session and no high watermark.

use std::collections::HashMap;
use std::rc::Rc;

use ring::buf::Shared;

use crate::batch::BatchView;
use crate::read_task::{
    LookupJob, LookupOutcome, LookupPart, ReadJob, ReadOutcome, Search, SegmentRef,
};
use crate::segment_writer::IndexBounds;
use crate::tasks::Job;
use crate::types::{Now, Offset};

use super::Store;
use super::api::{Found, LogConfig, LogId, Lookup, LookupKind, Notice, Read, ReadError};
use super::partition::PartitionLog;
use super::recent::Recent;
use super::windows::{Place, Taken, Wanted, Windows};

/// An index is not thinned below this, in bytes, whatever the configuration says.
const INDEX_BYTES_MIN: u64 = 4096;

/// How often a lookup begins anew when files change under it, before it is taken for the disk's fault.
const LOOKUPS_ANEW_MAX: u32 = 8;

/// Reads under way and what earlier ones left.
#[derive(Default)]
pub(super) struct Reads {
    under_way: HashMap<(LogId, Offset), UnderWay>,
    windows: Windows,
    /// Lookups under way, by ticket: what is sought, and how often it was begun anew.
    lookups: HashMap<u64, (LookupKind, u32)>,
}

/// A read of the disk.
struct UnderWay {
    /// Whom it is for; nobody yet, if it was begun ahead of its reader.
    waiters: Vec<Waiter>,
    /// Whether the reader goes on where one stopped: then it will ask for what comes next, too.
    goes_on: bool,
    /// Set aside for it, if it was begun ahead.
    ahead_bytes: u64,
}

struct Waiter {
    ticket: u64,
    wanted: Wanted,
}

impl Reads {
    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        self.windows.next_deadline_us()
    }

    pub(super) fn expire(&mut self, now_us: u64) {
        self.windows.expire(now_us);
    }

    /// Memory of windows, in bytes.
    pub(super) fn windows_bytes(&self) -> u64 {
        self.windows.held_bytes()
    }

    /// Bytes read ahead for nobody.
    pub(super) fn unused_bytes(&self) -> u64 {
        self.windows.unused_bytes()
    }
}

impl Store {
    /// Reads whole batches from the one that holds `from` on, ending at or below `up_to`, at most
    /// `bytes_max` bytes, or one batch whatever its size if `whole_batch_at_least`.
    pub fn read(
        &mut self,
        now: Now,
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
        let wanted = Wanted {
            bytes_max,
            whole_batch_at_least,
            up_to,
        };
        if let Some(batches) = self.held_in_memory(now, log, from, wanted) {
            return Read::Ready(batches);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        match self.ask_disk(now, log, from, vec![Waiter { ticket, wanted }]) {
            Ok(()) => Read::Disk(ticket),
            Err(batches) => Read::Ready(batches),
        }
    }

    fn held_in_memory(
        &mut self,
        now: Now,
        log: LogId,
        from: Offset,
        wanted: Wanted,
    ) -> Option<Vec<Shared>> {
        let partition = self.logs.get(log.0 as usize)?.as_deref()?;
        if let Some(recent) = partition.in_memory(from, wanted.up_to) {
            let mut taken = Taken::new(wanted, from);
            taken.take(recent.map(|recent| (recent.offset_end, &recent.bytes)));
            return Some(taken.batches);
        }
        let is_current = |base, generation| is_current(partition, base, generation);
        let windows = &mut self.reads.windows;
        let taken = windows.take(now.monotonic_us, log, from, wanted, is_current)?;
        self.read_ahead(log, taken.end, wanted.bytes_max);
        Some(taken.batches)
    }

    /// Starts a read of the disk for these waiters, or joins one; gives batches back where the offset
    /// turned out to lie in a hole before those in memory.
    fn ask_disk(
        &mut self,
        now: Now,
        log: LogId,
        from: Offset,
        waiters: Vec<Waiter>,
    ) -> Result<(), Vec<Shared>> {
        if let Some(joined) = self.reads.under_way.get_mut(&(log, from)) {
            joined.waiters.extend(waiters);
            return Ok(());
        }
        let bytes_max = waiters.iter().map(|waiter| waiter.wanted.bytes_max).max();
        let Some(job) = self.plan_read(log, from, bytes_max.unwrap_or(0)) else {
            // Compaction left nothing at `from`: the next batch there is lies in memory.
            let wanted = waiters.first().expect("at least one").wanted;
            let partition = self.log(log).expect("looked at by the caller");
            let from = partition
                .recent
                .first_dirty()
                .map_or(from, |recent| recent.base_offset);
            let batches = self.held_in_memory(now, log, from, wanted);
            return Err(batches.unwrap_or_default());
        };
        let under_way = UnderWay {
            waiters,
            goes_on: self.reads.windows.place(log, from).is_some(),
            ahead_bytes: 0,
        };
        self.begin_read(job, under_way);
        Ok(())
    }

    /// What to read from the disk for who asks for `from`; `None` if nothing there is on disk.
    fn plan_read(&self, log: LogId, from: Offset, bytes_max: usize) -> Option<ReadJob> {
        let partition = self.log(log)?;
        let mut index = partition.segment_of(from);
        while index < partition.segments.len()
            && (partition.readable_bytes(index) == 0
                || partition.segments[index].image.offset_end <= from)
        {
            index += 1;
        }
        let segment = partition.segments.get(index)?;
        let place = self.reads.windows.place(log, from).filter(|place| {
            (place.base, place.generation) == (segment.base(), segment.image.generation)
        });
        let position = if from <= segment.base() {
            Some(0)
        } else if let Some(place) = place {
            Some(place.position)
        } else {
            segment.position_for(from)
        };
        Some(ReadJob {
            segment: self.segment_ref(log, index),
            from,
            up_to: partition.log_end,
            bytes_max: bytes_max as u64,
            position,
        })
    }

    fn begin_read(&mut self, job: ReadJob, under_way: UnderWay) {
        self.counters.disk_reads += 1;
        self.reads
            .under_way
            .insert((job.segment.log, job.from), under_way);
        self.spawn(Job::Read(Box::new(job)));
    }

    /// A reader that goes through a log was given what lies below `next`: what it will ask for then is
    /// read while it looks at what it has, as far as there is memory for that.
    fn read_ahead(&mut self, log: LogId, next: Offset, bytes_max: usize) {
        let Some(partition) = self.log(log) else {
            return;
        };
        let is_current = |base, generation| is_current(partition, base, generation);
        let (end, held_bytes) = self.reads.windows.reach(log, next, is_current);
        // Behind the acknowledgement mark nothing need be in a file or in memory yet.
        if held_bytes > 0 && held_bytes >= bytes_max as u64
            || end >= partition.durable_end
            || partition.in_memory(end, partition.durable_end).is_some()
            || self.reads.under_way.contains_key(&(log, end))
        {
            return;
        }
        let Some(job) = self.plan_read(log, end, bytes_max) else {
            return;
        };
        let ahead_bytes = job.window_bytes();
        let windows_bytes_max = self.config.windows_bytes_max;
        let windows = &mut self.reads.windows;
        if windows.reserve_ahead(ahead_bytes, windows_bytes_max) {
            self.counters.disk_reads_ahead += 1;
            let under_way = UnderWay {
                waiters: Vec::new(),
                goes_on: true,
                ahead_bytes,
            };
            self.begin_read(job, under_way);
        }
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

    pub(super) fn on_read(&mut self, now: Now, outcome: ReadOutcome) {
        let UnderWay {
            waiters,
            goes_on,
            ahead_bytes,
        } = self
            .reads
            .under_way
            .remove(&(outcome.log, outcome.from))
            .expect("a read under way");
        self.reads.windows.release_ahead(ahead_bytes);
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
        let Some(last) = data.batches.last() else {
            self.read_on(now, log, index, waiters);
            return;
        };
        let place = Place {
            log,
            base: outcome.base,
            generation: outcome.generation,
            offset: last.offset_end,
            position: data.position_next,
        };
        let batches = || data.batches.iter();
        let lengths = batches().map(|batch| batch.bytes.len() as u64);
        self.counters.disk_read_bytes += lengths.sum::<u64>();
        let mut given_end = outcome.from;
        let mut bytes_max = None;
        for waiter in waiters {
            let mut taken = Taken::new(waiter.wanted, outcome.from);
            taken.take(batches().map(|batch| (batch.offset_end, &batch.bytes)));
            given_end = given_end.max(taken.end);
            bytes_max = bytes_max.max(Some(waiter.wanted.bytes_max));
            self.tell_read(waiter.ticket, Ok(taken.batches));
        }
        self.reads.windows.keep(
            now.monotonic_us,
            place,
            data.batches,
            given_end,
            self.config.windows_bytes_max,
        );
        if let Some(bytes_max) = bytes_max.filter(|_| goes_on) {
            self.read_ahead(log, given_end, bytes_max);
        }
    }

    /// Compaction left nothing at the offset in this segment: the read goes on behind it.
    fn read_on(&mut self, now: Now, log: LogId, index: usize, waiters: Vec<Waiter>) {
        let partition = self.log(log).expect("the segment is there");
        let base = partition.segments[index].base();
        let next = partition
            .recent
            .dirty()
            .find(|recent| recent.segment_base >= base)
            .filter(|recent| recent.segment_base == base)
            .map_or(partition.segments[index].image.offset_end, |recent| {
                recent.base_offset
            });
        for waiter in waiters {
            let ticket = waiter.ticket;
            if next >= waiter.wanted.up_to {
                self.tell_read(ticket, Ok(Vec::new()));
            } else if let Some(batches) = self.held_in_memory(now, log, next, waiter.wanted) {
                self.tell_read(ticket, Ok(batches));
            } else if let Err(batches) = self.ask_disk(now, log, next, vec![waiter]) {
                self.tell_read(ticket, Ok(batches));
            }
        }
    }

    fn tell_read(&mut self, ticket: u64, result: Result<Vec<Shared>, ReadError>) {
        self.notices.push_back(Notice::ReadDone { ticket, result });
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
                .recent
                .first()
                .is_some_and(|recent| recent.base_offset <= segment.base().max(log_start));
            if partition.readable_bytes(index) > 0 && !in_memory {
                memory_only = false;
                parts.push(LookupPart::Segment(self.segment_ref(log, index)));
            }
            let own = |recent: &&Recent| recent.segment_base == segment.base();
            let bytes = |recent: &Recent| recent.bytes.clone();
            let batches = match in_memory {
                true => partition.recent.iter().filter(own).map(bytes).collect(),
                false => partition.recent.dirty().filter(own).map(bytes).collect(),
            };
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

/// Whether a segment is still the one that was read.
fn is_current(partition: &PartitionLog, base: Offset, generation: u64) -> bool {
    partition
        .segment_at(base)
        .is_some_and(|index| partition.segments[index].image.generation == generation)
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
