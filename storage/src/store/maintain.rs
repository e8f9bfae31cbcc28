//! What a store does by time, and its end: retention, deletion of files, expiry of producers, cadence
//! of write-back, shutdown. Part of a core's store; reads no clock.

use std::io;

use crate::journal::EntryKind;
use crate::segment::file_name;
use crate::space::SpaceNeed;
use crate::tasks::{FileWork, FilesWhy, Job, Outcome, StoreTaskDone};
use crate::types::{Now, Offset};

use super::api::{LogId, Notice};
use super::durable::is_full;
use super::partition::{LogState, PartitionLog};
use super::{Deletion, Store};

/// When the regular looks are due, on the monotonic clock.
#[derive(Default)]
pub(super) struct Due {
    write_back_us: u64,
    retention_us: u64,
    pub cleaner_us: u64,
}

/// Logs that a warning names, at most.
const UNSETTLED_NAMED_MAX: usize = 5;

impl Store {
    /// Does what is due. Call it at [`Store::next_deadline`], and whenever convenient.
    pub fn tick(&mut self, now: Now) {
        for dir in 0..self.dirs.len() {
            self.poll_flush(now, dir);
            self.poll_space(now, dir);
            self.poll_deletions(now, dir);
        }
        if now.monotonic_us >= self.due.write_back_us {
            self.due.write_back_us = now.monotonic_us + self.config.write_back_ms * 1_000;
            self.look_for_dirty(now);
        }
        if self.ready && !self.shutting_down {
            self.tick_checkpoints(now);
            if now.monotonic_us >= self.due.retention_us {
                self.due.retention_us = now.monotonic_us + self.config.retention_check_ms * 1_000;
                self.apply_retention(now);
            }
            self.poll_cleaner(now);
            self.poll_indexes();
        }
        self.reads.expire(now.monotonic_us);
        self.tell_room();
        self.run_write_back(now);
        self.check_settled();
    }

    /// When [`Store::tick`] has something to do, in monotonic microseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        let dirs = self.dirs.iter().filter(|dir| !dir.offline).flat_map(|dir| {
            // Before something is written there is nothing to flush; the write's end looks again.
            let marks = dir.journal.marks();
            let flush = dir
                .flush_due_us
                .filter(|_| !dir.flushing && marks.durable < marks.written);
            [flush, dir.space.next_deadline_us()]
        });
        dirs.flatten()
            .chain([self.due.write_back_us])
            .chain(self.reads.next_deadline_us())
            .chain((self.ready && !self.shutting_down).then_some(self.due.retention_us))
            .min()
    }

    /// The result of a [`StoreTask`](crate::store::StoreTask).
    pub fn on_task_done(&mut self, now: Now, done: StoreTaskDone) {
        self.tasks_running -= 1;
        match done.outcome {
            Outcome::MakeJournal {
                dir,
                id,
                capacity_bytes,
                result,
            } => self.on_journal_made(dir, id, capacity_bytes, result),
            Outcome::FlushJournal {
                dir,
                written,
                result,
            } => self.on_flushed(now, dir, written, result),
            Outcome::FlushAll { dir, result } => self.on_flushed_together(now, dir, result),
            Outcome::Checkpoint { dir, result } => self.on_checkpoint(now, dir, result),
            Outcome::WriteBack {
                log,
                base,
                written,
                allocated,
                flush,
                finished,
                weight_bytes,
                result,
            } => {
                self.write_back.end(weight_bytes);
                self.on_written_back(now, log, base, written, allocated, flush, finished, result);
                self.drop_segments(now, log);
            }
            Outcome::LoadHead { log, base, result } => self.on_head_loaded(log, base, result),
            Outcome::Read(outcome) => self.on_read(now, outcome),
            Outcome::Lookup(outcome) => self.on_lookup(outcome),
            Outcome::Index(outcome) => self.on_indexed(now, outcome),
            Outcome::Files { dir, why, result } => self.on_files(now, dir, why, result),
            Outcome::Reserve {
                dir,
                bytes,
                grow,
                result,
            } => self.on_reserve(now, dir, bytes, grow, result),
            Outcome::Compact(outcome) => self.on_compacted(now, outcome),
            Outcome::Allocate {
                log,
                base,
                to,
                result,
            } => self.on_allocated(now, log, base, to, result),
        }
        self.poll_indexes();
        self.run_write_back(now);
        self.check_settled();
    }

    fn on_files(&mut self, now: Now, dir: usize, why: FilesWhy, result: io::Result<()>) {
        match why {
            // Files that could not be removed are in nobody's way; the next start tries again.
            FilesWhy::Cleanup(log) => {
                if let Some(log) = log
                    && !self.was_deleted(log)
                {
                    self.log_mut(log).expect("not deleted").cleanups -= 1;
                }
                if let Err(error) = result {
                    tracing::warn!(dir, %error, "files could not be removed");
                }
            }
            FilesWhy::Deletions => {
                self.dirs[dir].deleting.clear();
                self.dirs[dir].checkpoints.changed = true;
                if let Err(error) = result {
                    tracing::warn!(dir, %error, "deleted files could not be removed");
                }
            }
            FilesWhy::DirRenamed(renamed) => {
                let name = &renamed;
                let renaming = &mut self.dirs[dir].renaming;
                let left = renaming.get_mut(name).expect("a rename that was begun");
                *left -= 1;
                let free = *left == 0;
                if free {
                    renaming.remove(name);
                }
                if let Err(error) = result {
                    self.fail_dir(dir, format!("a directory cannot be renamed: {error}"));
                    return;
                }
                if !free {
                    return;
                }
                // A new partition of that name may have waited for its directory.
                let waiting: Vec<LogId> = self
                    .by_key
                    .values()
                    .copied()
                    .filter(|&log| {
                        self.log(log)
                            .is_some_and(|p| p.dir == dir && p.key.dir_name() == *name)
                    })
                    .collect();
                for log in waiting {
                    self.want_write_back(log, false);
                }
            }
            FilesWhy::Swap(log) => self.on_swapped(now, dir, log, result),
        }
    }

    /// Puts segments on their way to disk although nothing presses.
    pub(super) fn look_for_dirty(&mut self, now: Now) {
        let idle_us = self.config.settle_idle_ms * 1_000;
        let mut wanted = Vec::new();
        for (index, partition) in self.logs.iter().enumerate() {
            let Some(partition) = partition else { continue };
            if partition.queued || partition.busy || partition.is_streaming() {
                continue;
            }
            // Who waits for memory waits for tail blocks too; else those of busy logs can wait.
            let idle = self.waits_for_room
                || self.shutting_down
                || now.monotonic_us >= partition.last_append_us + idle_us;
            let settle = idle && partition.has_work(true);
            if settle
                || (partition.has_work(false) && partition.unwritten_bytes() >= 64 << 10)
                || partition.segments.len() > 1 && partition.has_work(false)
            {
                wanted.push((LogId(index as u32), settle));
            }
        }
        for (log, settle) in wanted {
            self.want_write_back(log, settle);
        }
    }

    pub(super) fn poll_space(&mut self, now: Now, dir: usize) {
        if self.dirs[dir].offline {
            return;
        }
        let need = self.dirs[dir].space.poll_need(now.monotonic_us);
        let (bytes, grow) = match need {
            SpaceNeed::Nothing => return,
            SpaceNeed::Grow(bytes) => (bytes, true),
            SpaceNeed::Shrink(bytes) => (bytes, false),
        };
        let path = self.dirs[dir].space.path().to_path_buf();
        self.spawn(Job::Reserve {
            dir,
            path,
            bytes,
            grow,
        });
    }

    /// A write or an allocation found the disk full.
    pub(super) fn on_no_space(&mut self, dir: usize) {
        if self.dirs[dir].space.on_no_space() {
            self.notices.push_back(Notice::DirFull { dir });
        }
    }

    fn on_reserve(&mut self, now: Now, dir: usize, bytes: u64, grow: bool, result: io::Result<()>) {
        let was_full = self.dirs[dir].space.is_full();
        self.dirs[dir].journal_starved = false;
        let done = match &result {
            Ok(()) => true,
            Err(error) if is_full(error) => false,
            Err(error) => {
                self.fail_dir(dir, format!("the reserve cannot be kept: {error}"));
                return;
            }
        };
        if self.dirs[dir].space.on_reserve(bytes, grow, done) {
            self.notices.push_back(Notice::DirRoom { dir });
        } else if !was_full && self.dirs[dir].space.is_full() {
            self.notices.push_back(Notice::DirFull { dir });
        }
        // Also where it stays as it was: others may have given room meanwhile.
        self.feed_starved();
        self.on_durable(now, dir);
        self.tell_room();
    }

    /// Deletes a log's records below `before`, durably; [`Notice::LogStartMoved`] with the returned
    /// ticket follows. Below the present log start, that is told again.
    ///
    /// # Errors
    /// If there is no such log, its directory is offline, or `before` lies beyond what is
    /// acknowledged.
    pub fn delete_records(
        &mut self,
        _now: Now,
        log: LogId,
        before: Offset,
    ) -> Result<u64, super::ReadError> {
        let partition = self.log(log).ok_or(super::ReadError::NotFound)?;
        if partition.state != LogState::Live {
            return Err(super::ReadError::NotFound);
        }
        if self.dirs[partition.dir].offline {
            return Err(super::ReadError::Io);
        }
        if before > partition.durable_end || before.0 < 0 {
            return Err(super::ReadError::OutOfRange);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.move_log_start(log, before, Some(ticket));
        Ok(ticket)
    }

    fn move_log_start(&mut self, log: LogId, offset: Offset, ticket: Option<u64>) {
        let partition = self.log_mut(log).expect("a log that shrinks");
        partition.start_moves.push_back((offset, ticket));
        self.add_control(log, EntryKind::LogStart, &[], |entry| {
            entry.base_offset = offset;
        });
    }

    /// A log start is durable: the log begins there, and segments wholly below it go.
    pub(super) fn apply_log_start(
        &mut self,
        now: Now,
        log: LogId,
        offset: Offset,
        ticket: Option<u64>,
    ) {
        let partition = self.log_mut(log).expect("looked at by the caller");
        let moved = offset > partition.log_start;
        if moved {
            partition.log_start = offset;
            partition.epochs.truncate_before(offset);
        }
        let offset = partition.log_start;
        if moved || ticket.is_some() {
            self.notices.push_back(Notice::LogStartMoved {
                log,
                offset,
                ticket,
            });
        }
        self.drop_segments(now, log);
    }

    /// Lets go of segments below the log start, unless their files are being worked on.
    pub(super) fn drop_segments(&mut self, now: Now, log: LogId) {
        let Some(partition) = self
            .logs
            .get_mut(log.0 as usize)
            .and_then(Option::as_deref_mut)
        else {
            return;
        };
        if partition.tasks_on_files() > 0 || !partition.replacements.is_empty() {
            return;
        }
        let mut work = Vec::new();
        let mut freed = 0;
        let dir = partition.dir;
        let due_ms = now.wall_ms + partition.config.file_delete_delay_ms.max(0);
        while partition.segments.len() > 1
            && partition.segments[0].image.closed
            && partition.segments[0].image.offset_end <= partition.log_start
        {
            let segment = partition.segments.pop_front().expect("more than one");
            let base = segment.base();
            freed += partition
                .recent
                .drop_dirty(|recent| recent.segment_base <= base);
            self.counters.segments_deleted += 1;
            if segment.made {
                drop_files(
                    partition,
                    segment.base(),
                    due_ms,
                    &mut work,
                    &mut self.dirs[dir].deletions,
                );
            }
        }
        partition.dirty_bytes -= freed;
        self.dirty_bytes -= freed;
        self.dirs[dir].space.on_clean(freed);
        if !work.is_empty() {
            self.spawn_cleanup(log, work);
        }
    }

    /// Renames or removes files of a log that it does not need.
    pub(super) fn spawn_cleanup(&mut self, log: LogId, work: Vec<FileWork>) {
        let partition = self.log_mut(log).expect("a log with files");
        partition.cleanups += 1;
        let dir = partition.dir;
        self.spawn(Job::Files {
            dir,
            why: FilesWhy::Cleanup(Some(log)),
            work,
        });
    }

    fn apply_retention(&mut self, now: Now) {
        for index in 0..self.logs.len() {
            let log = LogId(index as u32);
            let Some(partition) = self.logs[index].as_deref_mut() else {
                continue;
            };
            partition
                .producers
                .expire(now.wall_ms, self.config.producer_expiration_ms);
            if partition.state != LogState::Live
                || !partition.configured
                || !partition.start_moves.is_empty()
                || self.dirs[partition.dir].offline
            {
                continue;
            }
            let (start, all) = retained_from(partition, now.wall_ms);
            if start <= partition.log_start {
                self.drop_segments(now, log);
                continue;
            }
            if all {
                self.close_active(now, log);
            }
            self.move_log_start(log, start, None);
        }
        self.seal_if_possible();
    }

    /// Control entries of a tick go out without waiting for a turn with appends.
    fn seal_if_possible(&mut self) {
        for dir in 0..self.dirs.len() {
            if self.should_seal(dir) {
                self.seal(dir);
            }
        }
    }

    fn poll_deletions(&mut self, now: Now, dir: usize) {
        let state = &mut self.dirs[dir];
        if !state.deleting.is_empty()
            || state.offline
            || !state.renaming.is_empty()
            || !state.deletions.iter().any(|d| d.due_ms <= now.wall_ms)
        {
            return;
        }
        let (due, later) = std::mem::take(&mut state.deletions)
            .into_iter()
            .partition(|deletion| deletion.due_ms <= now.wall_ms);
        state.deleting = due;
        state.deletions = later;
        let work = state
            .deleting
            .iter()
            .map(|deletion| {
                let path = state.path.join(&deletion.path);
                if deletion.is_dir {
                    FileWork::RemoveTree(path)
                } else {
                    FileWork::Remove(path)
                }
            })
            .collect();
        self.spawn(Job::Files {
            dir,
            why: FilesWhy::Deletions,
            work,
        });
    }

    /// Begins the end: nothing more is appended; everything goes to segments and checkpoints, then
    /// [`Notice::Settled`].
    pub fn begin_shutdown(&mut self, now: Now) {
        self.shutting_down = true;
        self.seal_if_possible();
        self.look_for_dirty(now);
        self.run_write_back(now);
        self.check_settled();
    }

    /// What keeps a shutdown from being settled, in words: for logs and simulations.
    pub fn unsettled(&self) -> String {
        let logs =
            self.logs.iter().flatten().filter(|p| {
                p.busy || p.has_work(true) || !p.replacements.is_empty() || p.compacting
            });
        let count = logs.clone().count();
        let names: Vec<String> = logs
            .take(UNSETTLED_NAMED_MAX)
            .map(|p| {
                format!(
                    "{} (busy {}, queued {}, replacements {}/{}, compacting {}, state {:?})",
                    p.key.dir_name(),
                    p.busy,
                    p.queued,
                    p.swaps_durable,
                    p.replacements.len(),
                    p.compacting,
                    p.state
                )
            })
            .collect();
        let dirs: Vec<String> = self
            .dirs
            .iter()
            .map(|dir| {
                format!(
                    "{}: settled {}, journal idle {}, checkpoint idle {}, renaming {}",
                    dir.path.display(),
                    dir.settled,
                    dir.journal.is_idle(),
                    dir.checkpoints.is_idle(),
                    dir.renaming.len()
                )
            })
            .collect();
        format!(
            "core {}, {} tasks, {count} logs, of them [{}], directories [{}]",
            self.config.core,
            self.tasks_running,
            names.join(", "),
            dirs.join(", ")
        )
    }

    /// Whether everything is in segments and checkpoints; takes the last checkpoint when it can.
    pub(super) fn check_settled(&mut self) {
        if !self.shutting_down || self.settled || !self.ready {
            return;
        }
        if !self.write_back.is_idle() {
            return;
        }
        let now = Now::default();
        for dir in 0..self.dirs.len() {
            let state = &self.dirs[dir];
            if state.offline || state.settled || !state.checkpoints.is_idle() {
                continue;
            }
            let unfinished: Vec<LogId> = self
                .logs
                .iter()
                .enumerate()
                .filter_map(|(index, log)| Some((LogId(index as u32), log.as_deref()?)))
                .filter(|(_, p)| {
                    p.dir == dir
                        && (p.busy
                            || p.has_work(true)
                            || !p.replacements.is_empty()
                            || p.compacting)
                })
                .map(|(log, _)| log)
                .collect();
            if !unfinished.is_empty() {
                for log in unfinished {
                    self.want_write_back(log, true);
                }
                continue;
            }
            if self.is_journal_idle(dir) {
                self.take_checkpoint(now, dir, true);
            } else {
                self.seal_if_possible();
            }
        }
        if self.dirs.iter().all(|dir| dir.settled || dir.offline) {
            self.settled = true;
            self.notices.push_back(Notice::Settled);
        }
    }
}

/// Renames a segment's files out of the way and notes their removal.
pub(super) fn drop_files(
    partition: &PartitionLog,
    base: Offset,
    due_ms: i64,
    work: &mut Vec<FileWork>,
    deletions: &mut Vec<Deletion>,
) {
    for extension in ["log", "index", "timeindex"] {
        let name = file_name(base, extension);
        let deleted = format!("{name}.deleted");
        work.push(FileWork::Rename(
            partition.path.join(&name),
            partition.path.join(&deleted),
        ));
        deletions.push(Deletion {
            path: format!("{}/{deleted}", partition.key.dir_name()),
            is_dir: false,
            due_ms,
        });
    }
}

/// Where retention by time and size lets the log begin, and whether that is behind everything.
fn retained_from(partition: &PartitionLog, now_ms: i64) -> (Offset, bool) {
    let mut start = partition.log_start;
    if !partition.config.cleanup_delete {
        return (start, false);
    }
    let mut over_bytes = partition
        .config
        .retention_bytes
        .map_or(0, |most| partition.size_bytes().saturating_sub(most));
    for segment in &partition.segments {
        let image = &segment.image;
        let empty = image.length_bytes == 0;
        let newest_ms = if image.max_timestamp_ms >= 0 {
            image.max_timestamp_ms
        } else {
            image.created_ms
        };
        let too_old = partition
            .config
            .retention_ms
            .is_some_and(|keep| now_ms.saturating_sub(newest_ms) > keep);
        let too_much = over_bytes > 0 && over_bytes >= image.length_bytes;
        if empty || image.offset_end > partition.durable_end || !(too_old || too_much) {
            return (start, false);
        }
        over_bytes = over_bytes.saturating_sub(image.length_bytes);
        start = start.max(image.offset_end);
    }
    (start, true)
}
