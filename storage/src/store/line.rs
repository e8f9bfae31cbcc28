//! Who waits for room in memory or in a journal, and in which order. Part of a core's store; knows the sizes
//! of batches and nothing of their senders.
//!
//! The first append that finds no room stands at the head of its journal's line: nobody else is admitted
//! there before it, however small, until it has been, so that a stream of small batches cannot hold off a
//! large one. Where it waits for memory, which all journals share, nobody is admitted anywhere. As
//! nothing is added meanwhile, write-back, which then writes tail blocks too, empties what is in its way; and
//! when nothing more can be written, one batch is admitted whatever its size. What needs no admission
//! (control entries, metadata) passes it.
//!
//! Who waits is outside of this store, and may be gone: a head of the line that was told of room and did not
//! come by the end of the turn has left.

use crate::types::Now;

use super::Store;
use super::api::{AppendError, LogId, Notice};
use super::partition::LogState;

/// The append that is admitted next.
#[derive(Clone, Copy)]
pub(super) struct FirstInLine {
    log: LogId,
    bytes: u64,
    /// It waits for memory.
    memory: bool,
    /// It was told that there is room for it.
    told: bool,
}

impl Store {
    /// Admits `bytes` of a log, or has it wait; `space` says whether the disk has room.
    pub(super) fn wait_in_line(
        &mut self,
        log: LogId,
        dir: usize,
        bytes: u64,
        essential: bool,
        space: bool,
    ) -> Result<(), AppendError> {
        let memory = self.has_memory(bytes);
        let room = memory && self.has_journal(dir, bytes, essential);
        let turn = essential || self.is_turn_of(log, dir);
        let state = &mut self.dirs[dir];
        let own = state.first_in_line.is_some_and(|first| first.log == log);
        if room && turn && space && !self.shutting_down {
            if own {
                state.first_in_line = None;
            }
            return Ok(());
        }
        if !essential && turn {
            // For space nobody else waits: others may find some, or it is the disk that is full.
            state.first_in_line = (!room).then_some(FirstInLine {
                log,
                bytes,
                memory: !memory,
                told: false,
            });
        } else if own && let Some(first) = &mut state.first_in_line {
            first.told = false;
        }
        state.waits_for_room = true;
        if !std::mem::replace(&mut self.waits_for_room, true) {
            self.look_for_room = true;
        }
        Err(AppendError::Busy)
    }

    /// Whether nobody stands before an append to this log.
    fn is_turn_of(&self, log: LogId, dir: usize) -> bool {
        self.dirs.iter().enumerate().all(|(at, state)| {
            state
                .first_in_line
                .is_none_or(|first| first.log == log || (at != dir && !first.memory))
        })
    }

    /// Whether there is memory for `bytes` more. One batch always fits, however large, when nothing else
    /// is about to be written.
    fn has_memory(&self, bytes: u64) -> bool {
        self.dirty_bytes + bytes <= self.config.dirty_bytes_max || !self.will_get_clean()
    }

    fn will_get_clean(&self) -> bool {
        let dirs = &mut self.dirs.iter();
        self.dirty_bytes > 0 && dirs.any(|state| !state.offline && state.space.will_get_clean())
    }

    /// Whether a journal has room for `bytes` more, beside what frees its files.
    fn has_journal(&self, dir: usize, bytes: u64, essential: bool) -> bool {
        let state = &self.dirs[dir];
        let backlog = state.journal.backlog_bytes() + state.straight_bytes;
        let reserve = self.config.journal_file_bytes / 4;
        (backlog == 0 || backlog + bytes <= self.config.journal_file_bytes)
            && (essential
                || !state.space.will_get_clean()
                || state.journal.room_bytes() >= bytes + reserve)
    }

    /// Tells that refused appends may be tried again, if any were refused and there is room.
    pub(super) fn tell_room(&mut self) {
        if !self.waits_for_room || self.shutting_down {
            return;
        }
        let memory =
            self.dirty_bytes < self.config.dirty_bytes_max / 4 * 3 || !self.will_get_clean();
        let mut told = false;
        for dir in 0..self.dirs.len() {
            let state = &self.dirs[dir];
            if state.waits_for_room && (state.offline || memory && self.is_room_for_first(dir)) {
                let state = &mut self.dirs[dir];
                state.waits_for_room = false;
                if let Some(first) = &mut state.first_in_line {
                    first.told = true;
                }
                told = true;
            }
        }
        if told {
            self.notices.push_back(Notice::Room);
        }
        self.waits_for_room = self.dirs.iter().any(|state| state.waits_for_room);
    }

    /// Whether a journal has a good deal of room, and enough for who is first in its line.
    fn is_room_for_first(&self, dir: usize) -> bool {
        let state = &self.dirs[dir];
        let half = self.config.journal_file_bytes / 2;
        let (backlog, room) = (state.journal.backlog_bytes(), state.journal.room_bytes());
        if backlog >= half || (room <= half && state.space.will_get_clean()) {
            return false;
        }
        let Some(first) = state.first_in_line else {
            return true;
        };
        let live = |log| self.log(log).is_some_and(|p| p.state == LogState::Live);
        // Who will be refused is told that too.
        state.space.is_full()
            || !live(first.log)
            || self.is_turn_of(first.log, dir)
                && self.has_memory(first.bytes)
                && self.has_journal(dir, first.bytes, false)
    }

    /// Who was told and did not come has left the line.
    pub(super) fn close_line(&mut self) {
        let mut left = false;
        for state in &mut self.dirs {
            left |= state.first_in_line.take_if(|first| first.told).is_some();
        }
        if left {
            self.tell_room();
        }
    }

    /// While somebody waits for room, all that could give some is written and flushed now, tail blocks too.
    /// After a look, it looks again when something has changed and what it found is on its way.
    pub(super) fn make_room(&mut self, now: Now) {
        if !self.waits_for_room || !self.look_for_room || !self.write_back.is_idle() {
            return;
        }
        self.look_for_room = false;
        for dir in 0..self.dirs.len() {
            let marks = self.dirs[dir].journal.marks();
            if marks.durable < marks.written && !self.dirs[dir].flushing {
                self.dirs[dir].flush_due_us = Some(now.monotonic_us);
                self.poll_flush(now, dir);
            }
        }
        self.look_for_dirty(now);
    }
}
