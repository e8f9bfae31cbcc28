//! Which written batches of a log directory leave memory next: those in its oldest journal writes, since
//! the memory of a write goes only with its last batch. Part of a core's store; knows no log.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::api::LogId;

/// Clean batches by age.
#[derive(Default)]
pub(super) struct Cache {
    /// The first write of some batches of a log, and the memory of these.
    batches: BinaryHeap<Reverse<(u64, u32, u64)>>,
    /// The newest writes, with their sizes.
    writes: VecDeque<(u64, u64)>,
    writes_bytes: u64,
    /// The oldest write that may stay.
    from: u64,
}

impl Cache {
    /// A write of `bytes` was sealed; of the newest writes `bytes_max` in all may stay.
    pub(super) fn on_sealed(&mut self, sequence: u64, bytes: u64, bytes_max: u64) {
        self.writes.push_back((sequence, bytes));
        self.writes_bytes += bytes;
        while self.writes_bytes > bytes_max
            && let Some((sequence, bytes)) = self.writes.pop_front()
        {
            self.writes_bytes -= bytes;
            self.from = sequence + 1;
        }
    }

    /// The first `bytes` of a log that are newly clean begin in this write.
    pub(super) fn on_clean(&mut self, log: LogId, sequence: u64, bytes: u64) {
        self.batches.push(Reverse((sequence, log.0, bytes)));
    }

    /// The log that gives up that many bytes: the oldest, if that is too old or `any` must go.
    pub(super) fn pop(&mut self, any: bool) -> Option<(LogId, u64)> {
        let Reverse((sequence, ..)) = self.batches.peek()?;
        if !any && *sequence >= self.from {
            return None;
        }
        let Reverse((_, log, bytes)) = self.batches.pop()?;
        Some((LogId(log), bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_writes_go_first_whoever_was_written_back_first() {
        let mut cache = Cache::default();
        cache.on_clean(LogId(1), 7, 100);
        cache.on_clean(LogId(2), 3, 50);
        assert_eq!(cache.pop(false), None);
        assert_eq!(cache.pop(true), Some((LogId(2), 50)));
        assert_eq!(cache.pop(true), Some((LogId(1), 100)));
        assert_eq!(cache.pop(true), None);
    }

    #[test]
    fn what_lies_in_a_write_that_is_too_old_goes_unasked() {
        let mut cache = Cache::default();
        for sequence in 1..=4 {
            cache.on_sealed(sequence, 4096, 8192);
        }
        cache.on_clean(LogId(1), 3, 100);
        cache.on_clean(LogId(1), 2, 100);
        assert_eq!(cache.pop(false), Some((LogId(1), 100)));
        assert_eq!(cache.pop(false), None, "writes 3 and 4 may stay");
    }
}
