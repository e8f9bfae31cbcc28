//! When checkpoints are taken and what they free. Part of a core's store; knows no bytes of theirs.

use std::collections::BTreeSet;
use std::io;

use crate::checkpoint::{CheckpointHead, Encoder, checkpoint_path};
use crate::tasks::{FileWork, FilesWhy, Job};
use crate::types::Now;

use super::Store;
use super::api::{LogId, Notice};
use super::durable::is_full;
use super::partition::LogState;

/// The checkpoints of one log directory.
#[derive(Default)]
pub(super) struct Checkpoints {
    /// Whether anything happened since the last one.
    pub changed: bool,
    /// Taken, and waiting until the journal is durable up to what it covers.
    waiting: Option<Snapshot>,
    /// Being written: what becomes free when it is durable.
    running: Option<(u64, bool)>,
    last_us: u64,
    /// Logs that keep the oldest journal files from being freed, and the last sequence in these.
    relief: Option<(u64, BTreeSet<LogId>)>,
    /// How many logs keep the oldest journal files, as of when there were so many files behind them.
    pinning: Pinning,
}

/// How many logs kept the oldest of so many journal files, which end with this sequence.
#[derive(Clone, Copy, Default)]
struct Pinning {
    end: u64,
    files: usize,
    logs: u64,
}

/// What comes into the journal while one log is written and flushed, about, in bytes: with others, and
/// alone.
const RELIEF_BYTES_TOGETHER: u64 = 32 << 10;
const RELIEF_BYTES_ALONE: u64 = 96 << 10;
/// What a log should have brought before it is written for that, where the journal has so much room.
const RELIEF_PIECE_BYTES: u64 = 16 << 10;
/// What a log has beyond this takes as long to write as it took to come.
const RELIEF_LARGE_BYTES: u64 = 64 << 10;

struct Snapshot {
    covers_sequence: u64,
    replay_from: u64,
    clean: bool,
    bytes: Vec<u8>,
}

impl Checkpoints {
    /// Whether the journal must go on so that its oldest file can be freed.
    pub(super) fn is_relieving(&self) -> bool {
        self.waiting.is_some() || self.relief.is_some()
    }

    /// The last sequence in the oldest files, while logs that keep these are written.
    pub(super) fn relief_end(&self) -> Option<u64> {
        self.relief.as_ref().map(|(end, _)| *end)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_none() && self.running.is_none()
    }
}

impl Store {
    /// Takes a snapshot of a directory's logs, unless one is under way. It is written once the
    /// journal is durable up to it.
    pub(super) fn take_checkpoint(&mut self, now: Now, dir: usize, clean: bool) -> bool {
        let state = &self.dirs[dir];
        // A deletion is either not begun or done in a checkpoint: its rename is not repeated later.
        let deleting = !state.renaming.is_empty()
            || self
                .logs
                .iter()
                .flatten()
                .any(|p| p.dir == dir && p.state == LogState::Deleting);
        // A settled directory's last checkpoint says that the journal is not needed: it stays the last.
        if !state.checkpoints.is_idle() || state.offline || state.settled || deleting {
            return false;
        }
        self.seal(dir);
        let state = &self.dirs[dir];
        let covers_sequence = state.journal.next_sequence() - 1;
        let pinned = self
            .logs
            .iter()
            .flatten()
            .filter(|partition| partition.dir == dir)
            .filter_map(|partition| partition.pinned_sequence())
            .min();
        let replay_from = pinned.unwrap_or(covers_sequence + 1);
        let head = CheckpointHead {
            epoch: self.config.epoch,
            core: self.config.core,
            covers_sequence,
            replay_from,
            clean: clean && pinned.is_none(),
        };
        let mut encoder = Encoder::new(&head, state.deletions.iter().chain(&state.deleting));
        for partition in self.logs.iter().flatten().filter(|p| p.dir == dir) {
            // Log starts and replacements that are journaled but not applied yet are part of it:
            // their entries are not replayed again.
            let log_start = partition
                .start_moves
                .iter()
                .map(|(offset, _)| *offset)
                .chain([partition.log_start])
                .max()
                .expect("at least one");
            encoder.partition(
                &partition.key,
                partition.incarnation,
                log_start,
                partition.compacted_end,
                partition.segments.iter().map(|segment| &segment.image),
                partition.replacements.iter(),
                &partition.epochs,
                &partition.producers,
            );
        }
        let state = &mut self.dirs[dir];
        state.checkpoints.changed = false;
        state.checkpoints.last_us = now.monotonic_us;
        state.checkpoints.waiting = Some(Snapshot {
            covers_sequence,
            replay_from,
            clean: head.clean,
            bytes: encoder.finish(),
        });
        self.poll_checkpoint(dir);
        true
    }

    /// Writes the waiting snapshot if the journal is durable up to it.
    fn poll_checkpoint(&mut self, dir: usize) {
        let state = &mut self.dirs[dir];
        let durable = state.journal.marks().durable;
        if state
            .checkpoints
            .waiting
            .as_ref()
            .is_none_or(|snapshot| snapshot.covers_sequence > durable)
        {
            return;
        }
        let snapshot = state.checkpoints.waiting.take().expect("just seen");
        state.checkpoints.running = Some((snapshot.replay_from, snapshot.clean));
        let path = checkpoint_path(&state.path, self.config.epoch, self.config.core);
        self.spawn(Job::Checkpoint {
            dir,
            path,
            bytes: snapshot.bytes,
        });
    }

    pub(super) fn on_checkpoint(&mut self, now: Now, dir: usize, result: io::Result<()>) {
        let (replay_from, clean) = self.dirs[dir]
            .checkpoints
            .running
            .take()
            .expect("a checkpoint under way");
        match result {
            Ok(()) => {
                self.counters.checkpoints += 1;
                let surplus = self.dirs[dir].journal.recycle_below(replay_from);
                if let Some(file) = surplus {
                    self.spawn(Job::Files {
                        dir,
                        why: FilesWhy::Cleanup(None),
                        work: vec![FileWork::Remove(file.path.to_path_buf())],
                    });
                }
                if clean && self.shutting_down {
                    self.dirs[dir].settled = true;
                }
                if !self.dirs[dir].ready {
                    self.dirs[dir].ready = true;
                    self.check_ready();
                }
                self.on_durable(now, dir);
                self.tell_room();
            }
            Err(error) if is_full(&error) => {
                self.dirs[dir].checkpoints.changed = true;
                self.on_no_space(dir);
            }
            Err(error) => self.fail_dir(dir, format!("a checkpoint failed: {error}")),
        }
        self.check_settled();
    }

    /// The journal's durable mark may have moved: whatever waited for it goes on.
    pub(super) fn on_durable(&mut self, now: Now, dir: usize) {
        if self.dirs[dir].offline {
            return;
        }
        self.poll_checkpoint(dir);
        if !self.dirs[dir].ready {
            let state = &self.dirs[dir];
            let carried = state.journal.marks().durable >= state.start_sequence;
            if carried && state.space.is_settled() && state.checkpoints.is_idle() {
                self.take_checkpoint(now, dir, false);
            }
            return;
        }
        let checkpoints = &self.dirs[dir].checkpoints;
        if checkpoints.relief.is_none() && checkpoints.is_idle() && self.is_relief_due(now, dir) {
            self.begin_relief(now, dir);
        }
        self.check_settled();
    }

    /// Whether the oldest journal files should be freed: early enough for all the logs that keep it, and
    /// as late as that allows, since what is written later is written in larger pieces.
    fn is_relief_due(&mut self, now: Now, dir: usize) -> bool {
        let state = &self.dirs[dir];
        let Some(end) = state.journal.oldest_files_end() else {
            return false;
        };
        let files = state.journal.files_count();
        let known = state.checkpoints.pinning;
        if (known.end, known.files) != (end, files) {
            let logs = self.pinning(dir, end).count() as u64;
            self.dirs[dir].checkpoints.pinning = Pinning { end, files, logs };
        }
        let state = &self.dirs[dir];
        let each = if state.flushes.may_gather(now) {
            RELIEF_BYTES_TOGETHER
        } else {
            RELIEF_BYTES_ALONE
        };
        let logs = state.checkpoints.pinning.logs;
        let (file_bytes, room) = (self.config.journal_file_bytes, state.journal.room_bytes());
        let all_bytes = file_bytes * self.config.journal_files_max as u64;
        let large = all_bytes.saturating_sub(room + logs * RELIEF_LARGE_BYTES);
        let needed = (logs * each + large).max(2 * file_bytes);
        let filled_min = (logs * RELIEF_PIECE_BYTES).clamp(all_bytes / 4, all_bytes / 2);
        room <= needed.min(all_bytes - filled_min)
    }

    /// The logs that need a journal write up to `end`.
    fn pinning(&self, dir: usize, end: u64) -> impl Iterator<Item = LogId> {
        self.logs
            .iter()
            .enumerate()
            .filter_map(|(index, log)| Some((LogId(index as u32), log.as_deref()?)))
            .filter(move |(_, partition)| {
                partition.dir == dir && partition.pinned_sequence().is_some_and(|at| at <= end)
            })
            .map(|(log, _)| log)
    }

    /// Settles the logs that pin the oldest journal files; a checkpoint follows.
    fn begin_relief(&mut self, now: Now, dir: usize) {
        let Some(end) = self.dirs[dir].journal.oldest_files_end() else {
            return;
        };
        let pinning: BTreeSet<LogId> = self.pinning(dir, end).collect();
        for &log in &pinning {
            self.want_flush(log);
        }
        self.dirs[dir].checkpoints.relief = Some((end, pinning));
        self.end_relief(now, dir);
    }

    /// A log was written: it may no longer pin the oldest journal files.
    pub(super) fn relieve(&mut self, now: Now, dir: usize, log: LogId) {
        let Some((end, pinning)) = &self.dirs[dir].checkpoints.relief else {
            self.check_settled();
            return;
        };
        if !pinning.contains(&log) {
            return;
        }
        let end = *end;
        if let Some(partition) = self.log(log) {
            if partition.flush {
                return;
            }
            if partition.pinned_sequence().is_some_and(|at| at <= end) {
                // Its tail block is that old.
                self.want_write_back(log, true);
                return;
            }
        }
        if let Some((_, pinning)) = &mut self.dirs[dir].checkpoints.relief {
            pinning.remove(&log);
        }
        self.end_relief(now, dir);
    }

    /// When nothing pins the oldest files any more, a checkpoint frees them.
    pub(super) fn end_relief(&mut self, now: Now, dir: usize) {
        let logs = &self.logs;
        let Some((_, pinning)) = &mut self.dirs[dir].checkpoints.relief else {
            return;
        };
        pinning.retain(|log| logs[log.0 as usize].is_some());
        if pinning.is_empty() && self.take_checkpoint(now, dir, false) {
            self.dirs[dir].checkpoints.relief = None;
        }
    }

    /// Goes on with what frees the oldest files, whatever became of the writes it asked for.
    fn look_after_relief(&mut self, now: Now, dir: usize) {
        let Some((_, pinning)) = &self.dirs[dir].checkpoints.relief else {
            return;
        };
        for log in pinning.clone() {
            match self.log(log) {
                Some(partition) if partition.busy || partition.queued => {}
                Some(partition) if partition.flush => self.want_flush(log),
                _ => self.relieve(now, dir, log),
            }
        }
        self.end_relief(now, dir);
    }

    /// Takes checkpoints by time.
    pub(super) fn tick_checkpoints(&mut self, now: Now) {
        for dir in 0..self.dirs.len() {
            self.look_after_relief(now, dir);
            let state = &self.dirs[dir];
            let due = state.checkpoints.last_us + self.config.checkpoint_ms * 1_000;
            if state.ready && state.checkpoints.changed && now.monotonic_us >= due {
                self.take_checkpoint(now, dir, false);
            }
        }
    }

    pub(super) fn check_ready(&mut self) {
        if !self.ready && self.dirs.iter().all(|dir| dir.ready || dir.offline) {
            self.ready = true;
            self.notices.push_back(Notice::Ready);
        }
    }
}
