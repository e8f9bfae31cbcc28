//! Write-back: which segment gets which bytes next. Part of a core's store; paced by a bounded number
//! of tasks of at most a chunk each; knows no disk.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use crate::journal::EntryKind;
use crate::segment::{BLOCK, block_floor};
use crate::tasks::{FileWork, Finish, Flush, Job, WriteBack};
use crate::types::{Now, Offset};

use super::Store;
use super::api::LogId;
use super::durable::is_full;
use super::gather::{bounded, gather};
use super::partition::PartitionLog;

/// Bytes of one write to a segment, at most: a write of the journal that comes behind it waits for no
/// more than the device takes for that. Buffers of this size lie on huge pages.
const CHUNK_BYTES_MAX: u64 = 1 << 20;
/// How much is being written at once, where room is needed, counted as by [`LARGE_WEIGHT_BYTES`]: enough to
/// keep a device busy, and no more for the journal to wait behind.
const RUNNING_BYTES_MAX: u64 = 3 * LARGE_WEIGHT_BYTES;
/// Tasks at once, however little each writes.
const RUNNING_MAX: usize = 16;
/// Beyond this a write counts as large: few at once take the device as far as many.
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// What a large write counts as, however large.
const LARGE_WEIGHT_BYTES: u64 = 256 << 10;
/// Tasks at once when the store stops: nobody is served any more, and what thousands of small logs wait
/// for is one flush each, many of which the file system does as one.
const RUNNING_STOPPING_MAX: usize = 64;

/// What waits to be written.
#[derive(Default)]
pub(super) struct Queue {
    logs: VecDeque<LogId>,
    running: usize,
    /// What the running tasks count in bytes.
    running_bytes: u64,
    /// Logs whose write found no space.
    starved: Vec<LogId>,
    pub renames: Vec<WaitingRename>,
}

/// The rename of a deleted log's directory, which waits for tasks that work with its files.
pub(super) struct WaitingRename {
    pub log: LogId,
    /// How many of them have not ended.
    pub tasks: usize,
    pub dir: usize,
    pub name: String,
    pub work: Vec<FileWork>,
}

impl Queue {
    fn begin(&mut self, weight_bytes: u64) {
        self.running += 1;
        self.running_bytes += weight_bytes;
    }

    pub(super) fn end(&mut self, weight_bytes: u64) {
        self.running -= 1;
        self.running_bytes -= weight_bytes;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running == 0 && self.logs.is_empty()
    }
}

/// Bytes of a segment that are in memory and durable in the journal, or written already.
fn durable_length(partition: &PartitionLog, index: usize, durable: u64) -> u64 {
    let segment = &partition.segments[index];
    partition
        .recent
        .dirty_until(|recent| recent.sequence <= durable)
        .rev()
        .find(|recent| recent.segment_base <= segment.base())
        .filter(|recent| recent.segment_base == segment.base())
        .map_or(segment.written, |recent| {
            recent.position_end().max(segment.written)
        })
}

impl Store {
    /// Asks for a log's dirty bytes to be written; with `settle` the tail block too, and flushed.
    pub(super) fn want_write_back(&mut self, log: LogId, settle: bool) {
        self.queue_write_back(log, settle, false);
    }

    /// Asks for a log's whole blocks to be written and flushed: what a journal file waits for, without
    /// the tail block, which would have to be journaled again.
    pub(super) fn want_flush(&mut self, log: LogId) {
        self.queue_write_back(log, false, true);
    }

    /// Asks for a new log's directory and file to be made before anything is written to them.
    pub(super) fn want_made(&mut self, log: LogId) {
        if let Some(partition) = self.log_mut(log) {
            partition.make_ahead = true;
            self.want_write_back(log, false);
        }
    }

    fn queue_write_back(&mut self, log: LogId, settle: bool, flush: bool) {
        let Some(partition) = self.log_mut(log) else {
            return;
        };
        partition.settle |= settle;
        partition.flush |= flush;
        if !partition.queued && !partition.busy {
            partition.queued = true;
            self.write_back.logs.push_back(log);
        }
    }

    /// Starts as many writes as may run.
    pub(super) fn run_write_back(&mut self, now: Now) {
        self.make_room(now);
        let (running_max, bytes_max) = if self.shutting_down {
            (RUNNING_STOPPING_MAX, u64::MAX)
        } else if self.is_pressed() {
            (RUNNING_MAX, RUNNING_BYTES_MAX)
        } else {
            (RUNNING_MAX, LARGE_WEIGHT_BYTES)
        };
        while self.write_back.running < running_max && self.write_back.running_bytes < bytes_max {
            let Some(log) = self.write_back.logs.pop_front() else {
                break;
            };
            self.start_write_back(now, log);
        }
        self.poll_flushes(now);
    }

    /// Whether appends would soon wait for what write-back frees.
    fn is_pressed(&self) -> bool {
        self.shutting_down
            || self.waits_for_room
            || !self.ready
            || self.dirty_bytes > self.config.dirty_bytes_max / 3
            || self.dirs.iter().any(|dir| dir.journal.is_nearly_full())
    }

    fn start_write_back(&mut self, now: Now, log: LogId) {
        let Some(partition) = self.log_mut(log) else {
            return;
        };
        partition.queued = false;
        let dir = partition.dir;
        let busy = partition.busy || partition.allocating || partition.is_streaming();
        let state = &self.dirs[dir];
        let name_taken =
            !state.renaming.is_empty() && state.renaming.contains_key(&self.dir_name(log));
        if busy || state.offline || name_taken {
            return;
        }
        let durable = state.journal.marks().durable;
        let partition = self.log(log).expect("seen above");
        let settle = partition.settle || self.shutting_down;
        let Some((index, end)) = next_piece(partition, durable, settle) else {
            let settled = !partition.has_work(true);
            let index = partition.segments.len() - 1;
            let partition = self.log_mut(log).expect("seen above");
            if std::mem::take(&mut partition.make_ahead) && !partition.active().made {
                partition.flush = true;
                self.spawn_write_back(now, log, index, 0, false);
                return;
            }
            let flushed = std::mem::take(&mut partition.flush);
            partition.settle &= !settled;
            if flushed {
                // Nothing was left to flush: whoever waits for that must not wait for a write's end.
                self.relieve(now, dir, log);
            }
            return;
        };
        if !self.prepare_head(log, index, end, durable) {
            return;
        }
        self.spawn_write_back(now, log, index, end, settle);
    }

    fn dir_name(&self, log: LogId) -> String {
        self.log(log).map_or(String::new(), |p| p.key.dir_name())
    }

    /// Whether the tail block may be rewritten: its head is in the journal, durably. Sees to it that
    /// it will be, if not.
    fn prepare_head(&mut self, log: LogId, index: usize, end: u64, durable: u64) -> bool {
        let partition = self.log_mut(log).expect("a log that is written");
        let path = Rc::clone(&partition.path);
        let first = partition
            .recent
            .first_dirty()
            .map(|recent| (recent.segment_base, recent.position));
        let segment = &mut partition.segments[index];
        let from = segment.write_from();
        if segment.written == from || end == segment.written {
            return true;
        }
        // The journal still holds the block's head as part of a batch.
        if first.is_some_and(|(base, position)| base == segment.base() && position <= from) {
            return true;
        }
        let base = segment.base();
        match (&segment.head, segment.head_sequence) {
            (None, _) => {
                let length_bytes = (segment.written - from) as usize;
                let path = crate::segment::path(&path, base, "log");
                partition.busy = true;
                self.write_back.begin(BLOCK);
                self.spawn(Job::LoadHead {
                    log,
                    base,
                    path,
                    position: from,
                    length_bytes,
                });
                false
            }
            (Some(head), None) => {
                let head = Rc::clone(head);
                let sequence = self.add_control(log, EntryKind::TailBlock, &head, |entry| {
                    entry.segment_base = base;
                    entry.position = from;
                });
                let partition = self.log_mut(log).expect("a log that is written");
                partition.segments[index].head_sequence = Some(sequence);
                let dir = partition.dir;
                // Nothing else may come this turn that would seal it.
                if self.should_seal(dir) {
                    self.seal(dir);
                }
                false
            }
            (Some(_), Some(sequence)) => sequence <= durable,
        }
    }

    /// Whether what is written now is flushed with what others in the queue are about to write.
    fn flushes_together(&self, now: Now, dir: usize) -> bool {
        let flushes = &self.dirs[dir].flushes;
        let count = 1 + self.write_back.logs.len() + flushes.waiting_count();
        count >= self.config.flush_together_min && flushes.may_gather(now)
    }

    fn spawn_write_back(&mut self, now: Now, log: LogId, index: usize, end: u64, settle: bool) {
        let partition = self.log(log).expect("a log that is written");
        let together = self.flushes_together(now, partition.dir);
        let partition = self.logs[log.0 as usize]
            .as_deref_mut()
            .expect("a log that is written");
        let dir = partition.dir;
        let tight = self.dirs[dir].space.is_full();
        let segment = &partition.segments[index];
        let image = &segment.image;
        let from = segment.write_from();
        let mut to = if settle || image.closed {
            end
        } else {
            block_floor(end)
        };
        to = bounded(
            segment,
            &partition.recent,
            from,
            to.min(from + CHUNK_BYTES_MAX),
        );
        let complete = to == end;
        let finishing = image.closed && to == image.length_bytes;
        // What streams goes straight once all that was written is flushed.
        let whole_blocks = to + BLOCK > end;
        // Of a log that grows as fast as it is written there is no end: what keeps the oldest journal files
        // is enough.
        let relieves = || {
            let end = self.dirs[dir].checkpoints.relief_end();
            end.is_some_and(|end| !partition.pins_beyond(segment.base(), to, end))
        };
        let sync = finishing
            || (settle && complete)
            || (partition.streams && whole_blocks)
            || (partition.flush && (whole_blocks || relieves()));
        let flush = match sync {
            true if together && !finishing => Flush::Together,
            true => Flush::Own,
            false => Flush::Later,
        };
        let write = to > segment.written;
        let (pieces, copied_bytes) = match write {
            true => gather(segment, &partition.recent, from, to),
            false => (Vec::new(), 0),
        };
        let target = segment.allocation_for(
            to,
            partition.config.segment_bytes,
            partition.config.preallocate,
            tight,
        );
        let allocate = (target > segment.allocated).then(|| (target, target - segment.allocated));
        let finish = finishing.then(|| Finish {
            length_bytes: image.length_bytes,
            indexes: segment
                .index
                .as_ref()
                .filter(|_| segment.index_from == 0)
                .map(|index| {
                    let mut index = index.clone();
                    index.close();
                    (
                        index.offset_index_bytes().to_vec(),
                        index.time_index_bytes().to_vec(),
                    )
                }),
        });
        // A flush of its own, and making or finishing files, take a device as long as many bytes do.
        let alone = !segment.made || flush == Flush::Own || finishing;
        let weight_bytes = match (to - from).max(BLOCK) {
            bytes if alone || bytes > SMALL_BYTES_MAX => LARGE_WEIGHT_BYTES,
            bytes => bytes,
        };
        let work = WriteBack {
            log,
            base: segment.base(),
            dir: Rc::clone(&partition.path),
            log_dir: Rc::new(self.dirs[dir].path.clone()),
            topic_id: partition.key.topic_id,
            make: !segment.made,
            allocate,
            position: from,
            pieces,
            written: to.max(segment.written),
            flush,
            weight_bytes,
            made_by_flush: flush == Flush::Together && self.dirs[dir].flushes.is_proven(),
            finish,
        };
        if settle && complete && !image.closed {
            // This is what was asked for; what comes later is not.
            partition.settle = false;
        }
        if sync && !image.closed {
            partition.flush = false;
        }
        partition.busy = true;
        self.counters.write_back_bytes_copied += copied_bytes;
        self.write_back.begin(work.weight_bytes);
        self.spawn(Job::WriteBack(Box::new(work)));
    }

    pub(super) fn on_head_loaded(&mut self, log: LogId, base: Offset, result: io::Result<Vec<u8>>) {
        self.write_back.end(BLOCK);
        if self.was_deleted(log) {
            return;
        }
        let partition = self.log_mut(log).expect("not deleted");
        partition.busy = false;
        let dir = partition.dir;
        match result {
            Ok(head) => {
                if let Some(index) = partition.segment_at(base) {
                    partition.segments[index].head = Some(Rc::new(head));
                }
                self.want_write_back(log, false);
                self.try_swap(log);
            }
            Err(error) => self.fail_dir(dir, format!("a segment cannot be read: {error}")),
        }
    }

    /// Whether a log went away while a task on its files ran, which has ended now; after the last one
    /// its directory is renamed.
    pub(super) fn was_deleted(&mut self, log: LogId) -> bool {
        if self.log(log).is_some() {
            return false;
        }
        let waiting = &mut self.write_back.renames;
        if let Some(at) = waiting.iter().position(|waiting| waiting.log == log) {
            waiting[at].tasks -= 1;
            if waiting[at].tasks == 0 {
                let WaitingRename {
                    dir, name, work, ..
                } = waiting.swap_remove(at);
                self.spawn_rename(dir, name, work);
            }
        }
        true
    }

    #[allow(clippy::too_many_arguments)] // One value per field of the task's outcome.
    pub(super) fn on_written_back(
        &mut self,
        now: Now,
        log: LogId,
        base: Offset,
        written: u64,
        allocated: Option<u64>,
        flush: Flush,
        finished: bool,
        result: io::Result<()>,
    ) {
        self.look_for_room = true;
        if self.was_deleted(log) {
            return;
        }
        let partition = self.log_mut(log).expect("not deleted");
        partition.busy = false;
        let dir = partition.dir;
        match result {
            Ok(()) => {
                let synced = flush == Flush::Own;
                self.note_written(log, base, written, allocated, synced, finished);
            }
            Err(error) if is_full(&error) => {
                self.write_back.starved.push(log);
                self.on_no_space(dir);
                return;
            }
            Err(error) => {
                self.fail_dir(dir, format!("a segment cannot be written: {error}"));
                return;
            }
        }
        if flush == Flush::Together {
            self.flush_with_others(now, log, base);
        } else {
            self.after_write_back(now, log);
        }
        self.tell_room();
    }

    /// A write to a log's segments has ended, and its flush, where it has one: what comes next.
    pub(super) fn after_write_back(&mut self, now: Now, log: LogId) {
        let partition = self.log(log).expect("not deleted");
        let dir = partition.dir;
        let more = partition.settle
            || partition.flush
            || self.shutting_down
            || partition.segments.len() > 1 && partition.has_work(false)
            || partition.unwritten_bytes() >= CHUNK_BYTES_MAX && !partition.takes_straight();
        if more {
            self.want_write_back(log, false);
        }
        if self.log(log).is_some_and(|partition| partition.streams) {
            self.allocate_ahead(now, log);
        }
        self.try_swap(log);
        self.relieve(now, dir, log);
    }

    fn note_written(
        &mut self,
        log: LogId,
        base: Offset,
        written: u64,
        allocated: Option<u64>,
        synced: bool,
        finished: bool,
    ) {
        let partition = self.logs[log.0 as usize]
            .as_deref_mut()
            .expect("not deleted");
        let Some(index) = partition.segment_at(base) else {
            return;
        };
        let segment = &mut partition.segments[index];
        segment.made = true;
        if let Some(bytes) = allocated {
            segment.allocated = bytes;
        }
        let mut oldest = segment.pinned_sequence();
        if written > segment.written {
            segment.head = None;
            segment.head_sequence = None;
        }
        // Batches are in offset order, and so are their journal writes.
        if let Some(recent) = partition.recent.first_dirty()
            && recent.segment_base == base
            && recent.position < written
        {
            oldest = Some(oldest.map_or(recent.sequence, |at| at.min(recent.sequence)));
        }
        if synced {
            segment.unsynced_sequence = None;
            segment.image.synced_bytes = written;
        } else {
            segment.unsynced_sequence = oldest;
        }
        if finished {
            segment.image.finished = true;
            segment.allocated = segment.image.length_bytes.next_multiple_of(BLOCK);
            segment.file = None;
            segment.earlier = None;
            if segment.index.is_some() && segment.index_from == 0 {
                // Written with the rest.
                segment.index = None;
            } else {
                self.indexes
                    .want(log, base, segment.image.generation, false);
            }
        }
        self.note_in_file(log, base, written);
    }

    /// A segment's file has all bytes below `written`: batches that are wholly in it are clean: they
    /// stay as a cache.
    pub(super) fn note_in_file(&mut self, log: LogId, base: Offset, written: u64) {
        let Some(partition) = self
            .logs
            .get_mut(log.0 as usize)
            .and_then(Option::as_deref_mut)
        else {
            return;
        };
        let Some(index) = partition.segment_at(base) else {
            return;
        };
        let segment = &mut partition.segments[index];
        assert!(segment.written <= written, "a segment shrinks");
        segment.written = written;
        let (mut moved, mut kept) = (0, 0);
        let mut moved_from = None;
        while let Some(recent) = partition.recent.first_dirty() {
            if recent.segment_base != base || recent.position_end() > written {
                break;
            }
            moved += recent.bytes.len() as u64;
            kept += recent.held_bytes();
            moved_from = moved_from.or(Some(recent.sequence));
            partition.recent.note_clean();
        }
        partition.dirty_bytes -= moved;
        let dir = partition.dir;
        if let Some(sequence) = moved_from {
            self.dirs[dir].cache.on_clean(log, sequence, kept);
        }
        self.dirty_bytes -= moved;
        self.clean_bytes += kept;
        self.dirs[dir].space.on_clean(moved);
        self.dirs[dir].checkpoints.changed = true;
        self.drop_clean(dir);
    }

    /// Keeps the cache of written batches within its bounds, oldest first.
    pub(super) fn drop_clean(&mut self, dir: usize) {
        while let Some((log, mut bytes)) = {
            let over = self.clean_bytes > self.config.clean_bytes_max;
            self.dirs[dir].cache.pop(over)
        } {
            let Some(partition) = self.logs[log.0 as usize].as_deref_mut() else {
                continue;
            };
            while bytes > 0 {
                let Some(recent) = partition.recent.pop_clean() else {
                    break;
                };
                bytes = bytes.saturating_sub(recent.held_bytes());
                self.clean_bytes -= recent.held_bytes();
            }
        }
    }

    /// Logs whose writes found no space try again: the reserve has given way.
    pub(super) fn feed_starved(&mut self) {
        for log in std::mem::take(&mut self.write_back.starved) {
            // Whether it was to be settled is not known any more.
            self.want_write_back(log, true);
        }
    }
}

/// The first segment with something to write, and how far it may be written.
fn next_piece(partition: &PartitionLog, durable: u64, settle: bool) -> Option<(usize, u64)> {
    for (index, segment) in partition.segments.iter().enumerate() {
        let image = &segment.image;
        if image.finished {
            continue;
        }
        let end = durable_length(partition, index, durable);
        if image.closed {
            let whole = end == image.length_bytes && segment.closed_sequence <= durable;
            if whole || block_floor(end) > segment.written {
                return Some((index, if whole { end } else { block_floor(end) }));
            }
            return None;
        }
        let unsynced = segment.unsynced_sequence.is_some();
        if settle {
            return (end > segment.written || unsynced).then_some((index, end));
        }
        if block_floor(end) > segment.written {
            return Some((index, end));
        }
        return (partition.flush && unsynced).then_some((index, segment.written));
    }
    None
}
