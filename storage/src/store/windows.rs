//! What reads of the disk left in memory: windows that another reader may ask for, windows that were read
//! ahead of theirs, and the places where readers go on. Part of a core's store; knows no log and no
//! disk.
//!
//! All of it has one bound. A window of which everything was given out goes first; what was read ahead
//! and not asked for yet makes no room for more of the kind, or two readers would take it from each
//! other.

use std::collections::VecDeque;

use ring::buf::Shared;

use crate::read_task::ReadBatch;
use crate::types::Offset;

use super::api::LogId;

/// How many windows are kept: those of small logs are small, and all are looked through.
const WINDOWS_MAX: usize = 512;
/// How many places are remembered at which a reader will go on.
const PLACES_MAX: usize = 512;
/// A window that nobody asked for in this time goes, in microseconds.
const UNUSED_US_MAX: u64 = 10_000_000;

/// What a reader asks for: whole batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub bytes_max: usize,
    /// The first batch whatever its size.
    pub whole_batch_at_least: bool,
    pub up_to: Offset,
}

/// Batches for a reader, as long as they fit.
pub(super) struct Taken {
    wanted: Wanted,
    pub batches: Vec<Shared>,
    bytes: usize,
    /// Where the reader goes on.
    pub end: Offset,
}

impl Taken {
    pub(super) fn new(wanted: Wanted, from: Offset) -> Taken {
        Taken {
            wanted,
            batches: Vec::new(),
            bytes: 0,
            end: from,
        }
    }

    /// Takes batches; false when one was left because it is not wanted.
    pub(super) fn take<'b>(&mut self, batches: impl Iterator<Item = (Offset, &'b Shared)>) -> bool {
        for (offset_end, batch) in batches {
            let first = self.batches.is_empty() && self.wanted.whole_batch_at_least;
            let fits = first || self.bytes + batch.len() <= self.wanted.bytes_max;
            if offset_end > self.wanted.up_to || !fits {
                return false;
            }
            self.bytes += batch.len();
            self.batches.push(batch.clone());
            self.end = offset_end;
        }
        true
    }
}

/// A part of a segment in memory.
struct Window {
    log: LogId,
    base: Offset,
    generation: u64,
    bytes: u64,
    /// Never empty.
    batches: Vec<ReadBatch>,
    /// Readers were given what lies below.
    given_end: Offset,
    used_us: u64,
}

impl Window {
    fn is_spent(&self) -> bool {
        self.offset_end() <= self.given_end
    }

    fn is_unused(&self) -> bool {
        self.given_end <= self.batches[0].base_offset
    }

    fn offset_end(&self) -> Offset {
        self.batches.last().expect("never empty").offset_end
    }
}

/// Where in a segment the batch with an offset begins.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub log: LogId,
    pub base: Offset,
    pub generation: u64,
    pub offset: Offset,
    pub position: u64,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Windows {
    /// Oldest first.
    all: VecDeque<Window>,
    bytes: u64,
    /// Set aside for reads ahead that are under way.
    ahead_bytes: u64,
    places: VecDeque<Place>,
    expire_us: Option<u64>,
    /// Bytes that were read ahead and never asked for.
    unused_bytes: u64,
}

impl Windows {
    /// Window and batch that hold an offset. `is_current` tells whether a segment's generation is.
    fn find(
        &self,
        log: LogId,
        offset: Offset,
        is_current: &impl Fn(Offset, u64) -> bool,
    ) -> Option<(usize, usize)> {
        self.all.iter().enumerate().find_map(|(index, window)| {
            if window.log != log || window.offset_end() <= offset {
                return None;
            }
            let at = window
                .batches
                .partition_point(|batch| batch.offset_end <= offset);
            let holds = window.batches[at].base_offset <= offset;
            (holds && is_current(window.base, window.generation)).then_some((index, at))
        })
    }

    /// Gives a reader what is there from an offset on, out of several windows if they lie side by side;
    /// `None` if the first batch is not there.
    pub(super) fn take(
        &mut self,
        now_us: u64,
        log: LogId,
        from: Offset,
        wanted: Wanted,
        is_current: impl Fn(Offset, u64) -> bool,
    ) -> Option<Taken> {
        let mut taken: Option<Taken> = None;
        let mut next = from;
        while let Some((index, at)) = self.find(log, next, &is_current) {
            let window = &mut self.all[index];
            window.used_us = now_us;
            let taken = taken.get_or_insert_with(|| Taken::new(wanted, from));
            let batches = window.batches[at..].iter();
            let all = taken.take(batches.map(|batch| (batch.offset_end, &batch.bytes)));
            window.given_end = window.given_end.max(taken.end);
            if !all {
                break;
            }
            next = taken.end;
        }
        taken
    }

    /// How far memory reaches from an offset on: to where, and how many bytes.
    pub(super) fn reach(
        &self,
        log: LogId,
        from: Offset,
        is_current: impl Fn(Offset, u64) -> bool,
    ) -> (Offset, u64) {
        let (mut end, mut bytes) = (from, 0);
        while let Some((index, at)) = self.find(log, end, &is_current) {
            let window = &self.all[index];
            let batches = window.batches[at..].iter();
            bytes += batches.map(|batch| batch.bytes.len() as u64).sum::<u64>();
            end = window.offset_end();
        }
        (end, bytes)
    }

    /// Where a reader said that it would go on.
    pub(super) fn place(&self, log: LogId, offset: Offset) -> Option<Place> {
        let mut newest = self.places.iter().rev();
        newest
            .find(|place| (place.log, place.offset) == (log, offset))
            .copied()
    }

    /// Keeps what was read, of which readers were given what lies below `given_end`; all windows together
    /// have `bytes_max`. `place` is where the next batch begins.
    pub(super) fn keep(
        &mut self,
        now_us: u64,
        place: Place,
        batches: Vec<ReadBatch>,
        given_end: Offset,
        bytes_max: u64,
    ) {
        if self.places.len() >= PLACES_MAX {
            self.places.pop_front();
        }
        self.places.push_back(place);
        let bytes = batches[0].bytes.buffer_bytes() as u64;
        self.bytes += bytes;
        self.expire_us.get_or_insert(now_us + UNUSED_US_MAX);
        self.all.push_back(Window {
            log: place.log,
            base: place.base,
            generation: place.generation,
            bytes,
            batches,
            given_end,
            used_us: now_us,
        });
        while self.all.len() > WINDOWS_MAX || self.bytes + self.ahead_bytes > bytes_max {
            let spent = self.all.iter().position(Window::is_spent);
            if self.all.is_empty() {
                break;
            }
            self.remove(spent.unwrap_or(0));
        }
    }

    /// Sets memory aside for a read ahead, if there is some without giving up what was read ahead before.
    pub(super) fn reserve_ahead(&mut self, bytes: u64, bytes_max: u64) -> bool {
        while self.bytes + self.ahead_bytes + bytes > bytes_max {
            match self.all.iter().position(Window::is_spent) {
                Some(spent) => self.remove(spent),
                None => return false,
            }
        }
        self.ahead_bytes += bytes;
        true
    }

    /// A read ahead has ended.
    pub(super) fn release_ahead(&mut self, bytes: u64) {
        self.ahead_bytes -= bytes;
    }

    fn remove(&mut self, index: usize) {
        if let Some(window) = self.all.remove(index) {
            self.bytes -= window.bytes;
            if window.is_unused() {
                self.unused_bytes += window.bytes;
            }
        }
    }

    /// When [`Windows::expire`] has something to do, in monotonic microseconds.
    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        self.expire_us
    }

    /// Lets go of what nobody asks for any more.
    pub(super) fn expire(&mut self, now_us: u64) {
        if self.expire_us.is_none_or(|at_us| now_us < at_us) {
            return;
        }
        let unused = |window: &Window| window.used_us + UNUSED_US_MAX <= now_us;
        while let Some(index) = self.all.iter().position(unused) {
            self.remove(index);
        }
        let oldest_us = self.all.iter().map(|window| window.used_us).min();
        self.expire_us = oldest_us.map(|used_us| used_us + UNUSED_US_MAX);
    }

    /// Memory of all windows, and what is set aside for more, in bytes.
    pub(super) fn held_bytes(&self) -> u64 {
        self.bytes + self.ahead_bytes
    }

    /// Bytes that were read ahead, and dropped before anybody asked for them.
    pub(super) fn unused_bytes(&self) -> u64 {
        self.unused_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId(7);
    /// Of a window of four batches of 1,000 bytes each.
    const BYTES: u64 = 4096;

    fn wanted(bytes_max: usize) -> Wanted {
        Wanted {
            bytes_max,
            whole_batch_at_least: true,
            up_to: Offset(i64::MAX),
        }
    }

    /// Four batches of ten records each from `base` on.
    fn keep(windows: &mut Windows, now_us: u64, base: i64, given_end: i64, bytes_max: u64) {
        let buffer = Shared::from(vec![0; BYTES as usize]);
        let batches = (0..4).map(|n| ReadBatch {
            base_offset: Offset(base + n * 10),
            offset_end: Offset(base + n * 10 + 10),
            bytes: buffer.slice(n as usize * 1000..n as usize * 1000 + 1000),
        });
        let place = Place {
            log: LOG,
            base: Offset(0),
            generation: 0,
            offset: Offset(base + 40),
            position: base as u64 * 100 + 4000,
        };
        windows.keep(
            now_us,
            place,
            batches.collect(),
            Offset(given_end),
            bytes_max,
        );
    }

    fn take(windows: &mut Windows, from: i64, bytes_max: usize) -> Option<(usize, i64)> {
        windows
            .take(1, LOG, Offset(from), wanted(bytes_max), |_, _| true)
            .map(|taken| (taken.batches.len(), taken.end.0))
    }

    #[test]
    fn a_reader_goes_on_from_window_to_window() {
        let mut windows = Windows::default();
        keep(&mut windows, 0, 0, 0, 1 << 20);
        keep(&mut windows, 0, 40, 0, 1 << 20);
        assert_eq!(take(&mut windows, 15, 2500), Some((2, 30)));
        assert_eq!(take(&mut windows, 30, 2500), Some((2, 50)));
        assert_eq!(take(&mut windows, 50, 9000), Some((3, 80)));
        assert_eq!(take(&mut windows, 80, 9000), None);
        assert_eq!(take(&mut windows, 0, 1), Some((1, 10)), "one at least");
        let reach = |from| windows.reach(LOG, Offset(from), |_, _| true);
        assert_eq!(reach(20), (Offset(80), 6000));
        assert_eq!(reach(80), (Offset(80), 0));
        assert_eq!(windows.reach(LogId(8), Offset(20), |_, _| true).1, 0);
        assert_eq!(windows.reach(LOG, Offset(20), |_, _| false).1, 0);
    }

    #[test]
    fn what_was_given_out_goes_before_what_was_read_ahead() {
        let mut windows = Windows::default();
        keep(&mut windows, 0, 0, 0, 3 * BYTES);
        keep(&mut windows, 0, 40, 80, 3 * BYTES);
        keep(&mut windows, 0, 80, 0, 3 * BYTES);
        keep(&mut windows, 0, 120, 0, 3 * BYTES);
        assert_eq!(take(&mut windows, 40, 1), None, "the spent one went");
        assert_eq!(windows.unused_bytes(), 0);
        keep(&mut windows, 0, 160, 0, 3 * BYTES);
        assert_eq!(take(&mut windows, 0, 1), None, "then the oldest");
        assert_eq!(windows.unused_bytes(), BYTES);
        assert_eq!(windows.held_bytes(), 3 * BYTES);
    }

    #[test]
    fn a_read_ahead_finds_room_only_where_something_was_given_out() {
        let mut windows = Windows::default();
        keep(&mut windows, 0, 0, 0, 2 * BYTES);
        keep(&mut windows, 0, 40, 0, 2 * BYTES);
        assert!(!windows.reserve_ahead(BYTES, 2 * BYTES));
        assert_eq!(take(&mut windows, 0, 9000), Some((8, 80)));
        assert!(windows.reserve_ahead(BYTES, 2 * BYTES));
        assert!(windows.reserve_ahead(BYTES, 2 * BYTES));
        assert!(!windows.reserve_ahead(1, 2 * BYTES));
        windows.release_ahead(BYTES);
        keep(&mut windows, 0, 80, 80, 2 * BYTES);
        assert_eq!(windows.held_bytes(), 2 * BYTES);
        windows.release_ahead(BYTES);
        assert_eq!(windows.held_bytes(), BYTES);
    }

    #[test]
    fn what_nobody_asks_for_goes_in_time() {
        let mut windows = Windows::default();
        assert_eq!(windows.next_deadline_us(), None);
        keep(&mut windows, 1000, 0, 0, 1 << 20);
        keep(&mut windows, 2000, 40, 0, 1 << 20);
        assert_eq!(windows.next_deadline_us(), Some(1000 + UNUSED_US_MAX));
        windows.expire(999 + UNUSED_US_MAX);
        assert_eq!(windows.held_bytes(), 2 * BYTES);
        windows.expire(1000 + UNUSED_US_MAX);
        assert_eq!(windows.held_bytes(), BYTES);
        assert_eq!(windows.next_deadline_us(), Some(2000 + UNUSED_US_MAX));
        windows.expire(2000 + UNUSED_US_MAX);
        assert_eq!(windows.next_deadline_us(), None);
        let place = windows.place(LOG, Offset(80)).expect("remembered");
        assert_eq!(place.position, 8000, "places cost little and stay");
    }
}
