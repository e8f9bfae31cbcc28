//! Flushing the segments of many logs as one. What write-back wrote for them waits here, and one flush
//! of the log directory's file system covers it all: a flush for each of a thousand segments takes the
//! device a thousand times as long. Part of a core's store; knows no disk.
//!
//! A log is busy from its write to the end of the flush, so what the flush covers is what its segment
//! has then: nobody writes to it meanwhile.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use crate::tasks::Job;
use crate::types::{Now, Offset};

use super::Store;
use super::api::LogId;

/// So many are flushed without waiting for more.
const TOGETHER_MAX: usize = 256;
/// A log waits for others so long at most, in microseconds.
const WAIT_US: u64 = 20_000;
/// A flush of the file system that takes longer found much there that others have written: for a while
/// segments are flushed one by one, in microseconds. Once it may be chance, or the whole process stood
/// still: the first time that is short, and twice as long with each slow flush that follows.
const SLOW_US: u64 = 200_000;
const SLOW_REST_FIRST_US: u64 = 1_000_000;
const SLOW_REST_MAX_US: u64 = 60_000_000;

/// A segment that is written and not flushed.
struct Written {
    log: LogId,
    base: Offset,
    /// The log's directory, which keeps its name as long as the log is busy.
    dir: Rc<PathBuf>,
}

/// What waits for one flush in a log directory.
#[derive(Default)]
pub(super) struct Flushes {
    waiting: Vec<Written>,
    /// When the first of them came.
    since_us: u64,
    running: Vec<Written>,
    begun_us: u64,
    /// When segments may be flushed together again.
    from_us: u64,
    /// How long they were not allowed to after the last flush; 0 if that was not slow.
    rest_us: u64,
    /// Whether the file system has been flushed as one: it can be, then.
    proven: bool,
}

impl Flushes {
    /// Whether segments may be flushed together.
    pub(super) fn may_gather(&self, now: Now) -> bool {
        now.monotonic_us >= self.from_us
    }

    /// Whether a flush together is known to make files and names durable here.
    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    /// A flush together has ended.
    fn on_ended(&mut self, now: Now) {
        if now.monotonic_us > self.begun_us + SLOW_US {
            self.rest_us = (self.rest_us * 2).clamp(SLOW_REST_FIRST_US, SLOW_REST_MAX_US);
            self.from_us = now.monotonic_us + self.rest_us;
        } else {
            self.rest_us = 0;
        }
    }

    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }
}

impl Store {
    /// A log was written and is to be flushed with others; it stays busy until then.
    pub(super) fn flush_with_others(&mut self, now: Now, log: LogId, base: Offset) {
        let partition = self.log_mut(log).expect("a log that was written");
        partition.busy = true;
        let (dir, path) = (partition.dir, Rc::clone(&partition.path));
        let flushes = &mut self.dirs[dir].flushes;
        if flushes.waiting.is_empty() {
            flushes.since_us = now.monotonic_us;
        }
        let dir = path;
        flushes.waiting.push(Written { log, base, dir });
    }

    /// Begins the flushes that nobody else will join soon.
    pub(super) fn poll_flushes(&mut self, now: Now) {
        let no_more = self.write_back.is_idle();
        for dir in 0..self.dirs.len() {
            let state = &mut self.dirs[dir];
            let flushes = &mut state.flushes;
            if flushes.waiting.is_empty() || !flushes.running.is_empty() {
                continue;
            }
            if state.offline {
                for written in std::mem::take(&mut flushes.waiting) {
                    if !self.was_deleted(written.log) {
                        self.log_mut(written.log).expect("not deleted").busy = false;
                    }
                }
                continue;
            }
            let due = no_more
                || flushes.waiting.len() >= TOGETHER_MAX
                || now.monotonic_us >= flushes.since_us + WAIT_US;
            if !due {
                continue;
            }
            flushes.begun_us = now.monotonic_us;
            flushes.running = std::mem::take(&mut flushes.waiting);
            let one = flushes.running.last().expect("not empty");
            let file = crate::segment::path(&one.dir, one.base, "log");
            let directory = state.path.clone();
            self.spawn(Job::FlushAll {
                dir,
                directory,
                file,
            });
        }
    }

    pub(super) fn on_flushed_together(&mut self, now: Now, dir: usize, result: io::Result<()>) {
        let flushes = &mut self.dirs[dir].flushes;
        let written = std::mem::take(&mut flushes.running);
        flushes.on_ended(now);
        let flushed = match result {
            Ok(()) => {
                flushes.proven = true;
                true
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                flushes.from_us = u64::MAX;
                false
            }
            Err(error) => {
                self.fail_dir(dir, format!("segments cannot be flushed: {error}"));
                false
            }
        };
        for Written { log, base, .. } in written {
            if self.was_deleted(log) {
                continue;
            }
            let partition = self.log_mut(log).expect("not deleted");
            partition.busy = false;
            if !flushed {
                partition.flush = true;
            } else if let Some(index) = partition.segment_at(base) {
                let segment = &mut partition.segments[index];
                segment.unsynced_sequence = None;
                segment.image.synced_bytes = segment.written;
            }
            self.counters.flushed_together += u64::from(flushed);
            self.after_write_back(now, log);
            self.drop_segments(now, log);
        }
        self.dirs[dir].checkpoints.changed = true;
        self.tell_room();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_flushes_keep_segments_apart_for_longer_each_time() {
        let mut flushes = Flushes::default();
        let at = |monotonic_us| Now {
            monotonic_us,
            wall_ms: 0,
        };
        let mut now_us = 1_000_000;
        let mut rest_s = Vec::new();
        for took_us in [1_000, 300_000, 300_000, 300_000, 1_000, 300_000] {
            flushes.begun_us = now_us;
            now_us += took_us;
            flushes.on_ended(at(now_us));
            let begun_us = now_us;
            while !flushes.may_gather(at(now_us)) {
                now_us += 1_000_000;
            }
            rest_s.push((now_us - begun_us) / 1_000_000);
        }
        assert_eq!(rest_s, [0, 1, 2, 4, 0, 1]);
        for _ in 0..10 {
            flushes.begun_us = 0;
            flushes.on_ended(at(300_000));
        }
        assert!(flushes.may_gather(at(300_000 + SLOW_REST_MAX_US)));
        assert!(!flushes.may_gather(at(299_999 + SLOW_REST_MAX_US)));
    }
}
