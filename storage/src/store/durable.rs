//! From sealed to durable: what a journal write's completion means for the logs in it. Part of a
//! core's store; knows no I/O.

use std::io;

use ring::prefetch::{prefetch, prefetch_behind};

use crate::journal::{Entry, EntryKind, Gathered, JournalNeed, Sealed};
use crate::tasks::{FileWork, FilesWhy, Job};
use crate::types::{Now, Offset};

use super::api::{LogId, Notice, ReadError};
use super::partition::LogState;
use super::recent::Recent;
use super::straight::SealedStraight;
use super::write_back::WaitingRename;
use super::{Deletion, Dir, Store};

/// After how long what nobody else asks for is flushed, in microseconds.
const FLUSH_US: u64 = 1_000_000;
/// How many logs ahead their memory is asked for, where one after the other is gone through.
const AHEAD: usize = 8;

/// A write that is sealed and not durable.
pub(super) struct SealedWrite {
    sequence: u64,
    /// When what is in it must be flushed, where it gets no flush of its own.
    flush_due_us: Option<u64>,
    /// Logs whose mark moves, and whether the write alone is enough for that.
    touched: Vec<Touched>,
    effects: Vec<(LogId, Entry)>,
    /// What goes to segments beside it.
    straights: Vec<SealedStraight>,
    written: bool,
}

struct Touched {
    log: LogId,
    offset_end: Offset,
    after_write: bool,
}

/// The earlier of two moments, where there is any.
pub(super) fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    [one, other].into_iter().flatten().min()
}

impl Dir {
    /// What the journal's open write has just got is to be flushed by then, if at all.
    pub(super) fn flush_by(&mut self, due_us: Option<u64>) {
        for due in [&mut self.gathered_due_us, &mut self.flush_due_us] {
            *due = earlier(*due, due_us);
        }
    }

    /// When what lies behind the write `sequence` must be flushed: sealed, or gathered still.
    fn flush_due_behind(&self, sequence: u64) -> Option<u64> {
        let sealed = self.sealed.iter().rev();
        sealed
            .take_while(|write| write.sequence > sequence)
            .filter_map(|write| write.flush_due_us)
            .chain(self.gathered_due_us)
            .min()
    }
}

impl Store {
    /// Ends a turn: seals at most one journal write per log directory, if one may go out.
    pub fn end_turn(&mut self, now: Now) {
        self.close_line();
        for dir in 0..self.dirs.len() {
            if self.should_seal(dir) {
                self.seal(dir);
            }
        }
        self.run_write_back(now);
    }

    /// Whether something is gathered for a directory, and may go out.
    pub(super) fn should_seal(&self, dir: usize) -> bool {
        let state = &self.dirs[dir];
        let gathered = state.journal.should_seal()
            || (!state.straights.is_empty() && state.journal.may_seal());
        gathered && !state.offline
    }

    /// Whether nothing is gathered, waiting or in flight for a directory.
    pub(super) fn is_journal_idle(&self, dir: usize) -> bool {
        self.dirs[dir].journal.is_idle() && self.dirs[dir].straights.is_empty()
    }

    pub(super) fn seal(&mut self, dir: usize) {
        self.end_straights(dir);
        if let Some(sealed) = self.dirs[dir].journal.seal() {
            self.on_sealed(dir, sealed);
        }
    }

    /// The bytes of a write are final: its batches become readable memory of their logs.
    pub(super) fn on_sealed(&mut self, dir: usize, mut sealed: Sealed) {
        // What the journal has may be in memory whole, and what is clean beside.
        let files_max = self.config.journal_files_max as u64;
        let journal_bytes_max = self.config.journal_file_bytes * files_max;
        let kept_bytes_max = journal_bytes_max + self.config.clean_bytes_max;
        let bytes = sealed.bytes.len() as u64;
        let cache = &mut self.dirs[dir].cache;
        cache.on_sealed(sealed.sequence, bytes, kept_bytes_max);
        self.drop_clean(dir);
        let mut touched: Vec<Touched> = Vec::with_capacity(sealed.gathered.len());
        let mut effects = Vec::new();
        let mut straights = Vec::new();
        let mut companions = Vec::new();
        let mut parts = std::mem::take(&mut sealed.parts).into_iter();
        let mut all = std::mem::take(&mut sealed.gathered).into_iter();
        while let Some(gathered) = all.next() {
            self.expect_recent(all.as_slice());
            let entry = gathered.entry;
            if entry.kind == EntryKind::Straight {
                let part = parts.next().expect("one for each of these entries");
                let (straight, companion) = self.on_straight_sealed(sealed.sequence, part);
                straights.push(straight);
                companions.push(companion);
            }
            let Some(partition) = self.log_mut(gathered.log) else {
                continue;
            };
            match entry.kind {
                EntryKind::Append | EntryKind::Carried | EntryKind::Straight => {
                    if entry.kind != EntryKind::Straight {
                        let recent = Recent {
                            sequence: sealed.sequence,
                            segment_base: entry.segment_base,
                            position: entry.position,
                            base_offset: entry.base_offset,
                            offset_end: entry.offset_end,
                            bytes: sealed.bytes.slice(gathered.range),
                        };
                        partition.recent.push(recent);
                    }
                    let after_write = partition.config.flush_messages > 1;
                    match touched.last_mut() {
                        Some(last) if last.log == gathered.log => {
                            last.offset_end = entry.offset_end;
                        }
                        _ => touched.push(Touched {
                            log: gathered.log,
                            offset_end: entry.offset_end,
                            after_write,
                        }),
                    }
                }
                _ => effects.push((gathered.log, entry)),
            }
        }
        let state = &mut self.dirs[dir];
        let flush_due_us = state.gathered_due_us.take();
        state.journal.enqueue(&sealed, companions);
        state.sealed.push_back(SealedWrite {
            sequence: sealed.sequence,
            flush_due_us,
            touched,
            effects,
            straights,
            written: false,
        });
    }

    /// Has the ends of the lists brought near that the next batches go to.
    fn expect_recent(&self, next: &[Gathered]) {
        let partition_of = |ahead: usize| self.log(next.get(ahead)?.log);
        if let Some(partition) = partition_of(AHEAD) {
            prefetch(&partition.recent);
        }
        if let Some(last) = partition_of(AHEAD / 2).and_then(|partition| partition.recent.last()) {
            prefetch_behind(last);
        }
    }

    /// The outcome of a [`DurableWrite`](super::DurableWrite).
    ///
    /// # Panics
    /// If no such write is out.
    pub fn on_write_done(&mut self, now: Now, token: u64, result: io::Result<()>) {
        let (dir, sequence) = self.writes.remove(&token).expect("a write that is out");
        if self.dirs[dir].offline {
            return;
        }
        self.dirs[dir].journal.on_write_done(sequence, &result);
        if let Err(error) = result {
            self.fail_dir(dir, format!("a write failed: {error}"));
            return;
        }
        self.advance(now, dir);
    }

    /// Applies the journal's marks to the logs.
    pub(super) fn advance(&mut self, now: Now, dir: usize) {
        let marks = self.dirs[dir].journal.marks();
        // What is acknowledged after the write alone.
        let mut sealed = std::mem::take(&mut self.dirs[dir].sealed);
        // What is not flushed is not written back: memory and journal would stay as full as they are.
        let presses = self.waits_for_room
            || self.dirty_bytes > self.config.dirty_bytes_max / 2
            || self.dirs[dir].journal.is_nearly_full();
        let mut wants_flush = presses && marks.durable < marks.written;
        // Those before have said what they want; there may be many where flushes are late.
        let first = sealed.partition_point(|write| write.written);
        for write in sealed.range_mut(first..) {
            if write.sequence > marks.written {
                break;
            }
            write.written = true;
            for straight in &write.straights {
                self.on_straight_written(straight);
            }
            for touched in write.touched.iter().filter(|touched| touched.after_write) {
                self.acknowledge(touched.log, touched.offset_end);
            }
            wants_flush |= write.sequence > marks.durable
                && (!write.effects.is_empty()
                    || write.touched.iter().any(|touched| !touched.after_write));
        }
        // What is acknowledged after the flush, and what had to wait for it.
        let mut effects = Vec::new();
        let mut straights = Vec::new();
        while sealed
            .front()
            .is_some_and(|write| write.sequence <= marks.durable)
        {
            let write = sealed.pop_front().expect("just seen");
            let mut all = write.touched.into_iter();
            while let Some(touched) = all.next() {
                let ahead = all.as_slice().get(AHEAD);
                if let Some(partition) = ahead.and_then(|ahead| self.log(ahead.log)) {
                    prefetch(&partition.durable_end);
                }
                self.acknowledge(touched.log, touched.offset_end);
            }
            effects.extend(write.effects);
            straights.extend(write.straights);
        }
        self.dirs[dir].sealed = sealed;
        for straight in straights {
            self.on_straight_durable(now, &straight);
        }
        for (log, entry) in effects {
            self.on_effect(now, dir, log, &entry);
        }
        let state = &mut self.dirs[dir];
        if marks.durable == marks.written {
            state.flush_due_us = state.flush_due_behind(marks.durable);
        } else if wants_flush || self.shutting_down {
            state.flush_due_us = Some(now.monotonic_us);
        } else if state.flush_due_us.is_none() && !state.flushing {
            // Nobody waits for it.
            state.flush_due_us = Some(now.monotonic_us + FLUSH_US);
        }
        self.poll_flush(now, dir);
        self.on_durable(now, dir);
        self.look_for_room = true;
        self.tell_room();
    }

    fn acknowledge(&mut self, log: LogId, offset_end: Offset) {
        let Some(partition) = self.log_mut(log) else {
            return;
        };
        if partition.durable_end < offset_end {
            partition.durable_end = offset_end;
            self.notices.push_back(Notice::Durable { log, offset_end });
        }
    }

    /// Flushes what was written without a flush, when it is due.
    pub(super) fn poll_flush(&mut self, now: Now, dir: usize) {
        let state = &mut self.dirs[dir];
        let due = state
            .flush_due_us
            .is_some_and(|due| due <= now.monotonic_us);
        let marks = state.journal.marks();
        if !due || state.flushing || state.offline || marks.durable == marks.written {
            return;
        }
        state.flushing = true;
        // What it does not cover keeps its own time.
        state.flush_due_us = state.flush_due_behind(marks.written);
        let paths = state.journal.unflushed_files();
        let segments = self.unflushed_segments(dir, marks.written);
        self.spawn(Job::FlushJournal {
            dir,
            written: marks.written,
            paths,
            segments,
        });
    }

    pub(super) fn on_flushed(
        &mut self,
        now: Now,
        dir: usize,
        written: u64,
        result: io::Result<()>,
    ) {
        self.dirs[dir].flushing = false;
        if self.dirs[dir].offline {
            return;
        }
        match result {
            Ok(()) => {
                self.dirs[dir].journal.on_flushed(written);
                self.advance(now, dir);
            }
            Err(error) => self.fail_dir(dir, format!("a journal flush failed: {error}")),
        }
    }

    /// A control entry is durable: what it stands for may happen.
    fn on_effect(&mut self, now: Now, dir: usize, log: LogId, entry: &Entry) {
        let Some(partition) = self.log_mut(log) else {
            return;
        };
        match entry.kind {
            EntryKind::Created => {
                if partition.state == LogState::Creating {
                    partition.state = LogState::Live;
                    self.notices.push_back(Notice::Created { log });
                    self.want_made(log);
                }
            }
            EntryKind::LogStart => {
                let (offset, ticket) = partition
                    .start_moves
                    .pop_front()
                    .expect("a durable log start was asked for");
                self.apply_log_start(now, log, offset, ticket);
            }
            EntryKind::Deleted => self.finish_deletion(dir, log, entry.value),
            EntryKind::TailBlock | EntryKind::SegmentClosed => {
                self.want_write_back(log, false);
            }
            EntryKind::Replaced => self.start_swap(log),
            EntryKind::Append | EntryKind::Carried | EntryKind::Straight => {}
        }
    }

    /// A deletion is durable: the log leaves memory, its directory leaves its name.
    fn finish_deletion(&mut self, dir: usize, log: LogId, due_ms: i64) {
        let partition = self.logs[log.0 as usize].take().expect("a log to delete");
        self.dirty_bytes -= partition.dirty_bytes;
        self.dirs[dir].space.on_clean(partition.dirty_bytes);
        self.clean_bytes -= partition
            .recent
            .clean()
            .map(Recent::held_bytes)
            .sum::<u64>();
        self.dirs[dir].partitions -= 1;
        let name = partition.key.dir_name();
        let deleted = deleted_dir_name(&partition.key.topic_id, &name);
        let state = &mut self.dirs[dir];
        *state.renaming.entry(name.clone()).or_default() += 1;
        state.deletions.push(Deletion {
            path: deleted.clone(),
            is_dir: true,
            due_ms,
        });
        let from = state.path.join(&name);
        let to = state.path.join(&deleted);
        let work = vec![
            FileWork::RenameDir(from, to, partition.key.topic_id),
            FileWork::SyncDir(state.path.clone()),
        ];
        // What is under way holds the directory by name: it must end first.
        let tasks = partition.tasks_in_dir();
        if tasks > 0 {
            let waiting = WaitingRename {
                log,
                tasks,
                dir,
                name,
                work,
            };
            self.write_back.renames.push(waiting);
        } else {
            self.spawn_rename(dir, name, work);
        }
        self.notices.push_back(Notice::Deleted { log });
    }

    pub(super) fn spawn_rename(&mut self, dir: usize, name: String, work: Vec<FileWork>) {
        self.spawn(Job::Files {
            dir,
            why: FilesWhy::DirRenamed(name),
            work,
        });
    }

    /// Makes journal files as they are needed.
    pub(super) fn poll_journal_need(&mut self, dir: usize) {
        if self.dirs[dir].journal_starved {
            return;
        }
        // Beyond the usual number where otherwise the very work that frees files (heads of tail blocks,
        // a checkpoint's mark) would wait for one.
        let must_grow = !self.dirs[dir].ready
            || self.shutting_down
            || self.dirs[dir].checkpoints.is_relieving();
        if let JournalNeed::File { id, capacity_bytes } =
            self.dirs[dir].journal.poll_need(must_grow)
        {
            let path = self.dirs[dir].journal.file_path(id);
            let head = self.dirs[dir].journal.file_head().freeze();
            self.spawn(Job::MakeJournal {
                dir,
                id,
                path,
                head,
                capacity_bytes,
            });
        }
    }

    pub(super) fn on_journal_made(
        &mut self,
        dir: usize,
        id: u64,
        capacity_bytes: u64,
        result: io::Result<()>,
    ) {
        match result {
            Ok(()) => self.dirs[dir].journal.on_file_made(id, capacity_bytes),
            Err(error) if is_full(&error) => {
                self.dirs[dir].journal.on_file_failed();
                self.dirs[dir].journal_starved = true;
                self.on_no_space(dir);
            }
            Err(error) => self.fail_dir(dir, format!("a journal file cannot be made: {error}")),
        }
    }

    /// Takes a log directory offline, as another core or this one found it broken.
    pub fn set_dir_offline(&mut self, dir: usize) {
        self.dirs[dir].offline = true;
        self.dirs[dir].first_in_line = None;
        // Log starts that are not durable will not be: who waits for one is told.
        for partition in self.logs.iter_mut().flatten().filter(|p| p.dir == dir) {
            for ticket in partition
                .start_moves
                .drain(..)
                .filter_map(|(_, ticket)| ticket)
            {
                let result = Err(ReadError::Io);
                self.notices
                    .push_back(Notice::LookupDone { ticket, result });
            }
        }
        // Nobody may wait for this directory for ever.
        self.check_ready();
        self.check_settled();
    }

    pub(super) fn fail_dir(&mut self, dir: usize, why: String) {
        if self.dirs[dir].offline {
            return;
        }
        self.notices.push_back(Notice::DirOffline { dir, why });
        self.set_dir_offline(dir);
    }
}

/// The name of a deleted partition's directory until it is removed.
pub(crate) fn deleted_dir_name(topic_id: &uuid::Uuid, name: &str) -> String {
    aside_dir_name(&topic_id.simple(), name)
}

/// The name of a partition's directory that goes, with a mark that tells it from namesakes.
pub(crate) fn aside_dir_name(mark: &dyn std::fmt::Display, name: &str) -> String {
    // A directory name has at most 255 bytes; a topic's name alone may have 249.
    let suffix = format!(".{mark}-delete");
    let keep = name.len().min(255 - suffix.len());
    format!("{}{suffix}", &name[..keep])
}

/// Whether an error says that the disk is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOSPC) | Some(libc::EDQUOT)
    )
}
