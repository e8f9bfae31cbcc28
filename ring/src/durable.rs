//! Which way of making a write durable is quicker on a device: by a flag of the write, or by a flush
//! behind it. Lives on one core, with the files of that device; knows no file and no ring.
//!
//! Where the device has a volatile cache, the kernel ends a flagged write on a worker thread of the
//! processor that took the device's interrupt. That saves this core work, unless a program that never
//! sleeps has that processor: then each write waits for a tick of the scheduler, a few milliseconds. A
//! flush of its own runs beside this core instead. Nobody tells us which it is, so both are measured.

/// How a write is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// RWF_DSYNC: the write completes when it is durable.
    Flagged,
    /// The write, then a flush of its file.
    Flushed,
}

/// Between two trials of the flush, at least, while nothing is wrong with the flag, in microseconds.
const COMPARE_US: u64 = 10_000_000;
/// Between two trials of the flush, at least, while the flag looks slow.
const SUSPECT_US: u64 = 20_000;
/// Until the flag is tried again after it was slow; doubled each time that it still is.
const RETRY_US_MIN: u64 = 1_000_000;
const RETRY_US_MAX: u64 = 64_000_000;
/// Larger writes take long for other reasons.
const SAMPLE_BYTES_MAX: usize = 256 << 10;
/// How many writes a mean remembers, about: so many that one write behind a busy device counts little,
/// and so few that a worker which waits now and then is seen.
const REMEMBERED: u64 = 128;

/// The way in use on one device, and how long the writes of each took.
#[derive(Debug)]
pub(crate) struct Ways {
    used: Way,
    /// What a write takes.
    flagged: Mean,
    flushed: Mean,
    /// Whether a trial of the other way is out.
    trying: bool,
    try_from_us: u64,
    retry_us: u64,
    changed_us: u64,
}

impl Default for Ways {
    fn default() -> Ways {
        Ways {
            used: Way::Flagged,
            flagged: Mean::default(),
            flushed: Mean::default(),
            trying: false,
            try_from_us: 0,
            retry_us: RETRY_US_MIN,
            changed_us: 0,
        }
    }
}

/// A running mean of durations; unknown at first.
#[derive(Clone, Copy, Debug, Default)]
struct Mean(u64);

impl Mean {
    fn of(took_us: u64) -> Mean {
        Mean(took_us.max(1) * REMEMBERED)
    }

    fn add(&mut self, took_us: u64) {
        *self = match self.0 {
            0 => Mean::of(took_us),
            sum => Mean(sum - sum / REMEMBERED + took_us),
        };
    }

    /// In microseconds; zero: not known.
    fn us(self) -> u64 {
        self.0 / REMEMBERED
    }
}

impl Ways {
    /// The way for the next write of `bytes`; its duration is told with [`Ways::on_done`].
    pub(crate) fn choose(&mut self, now_us: u64, bytes: usize) -> Way {
        if self.trying || bytes > SAMPLE_BYTES_MAX || now_us < self.try_from_us {
            return self.used;
        }
        match self.used {
            Way::Flagged => {
                let suspect = self.flagged.us() > self.flushed.us() * 2;
                let due = now_us >= self.changed_us + COMPARE_US;
                if self.flagged.us() == 0 || !(suspect || due) {
                    return Way::Flagged;
                }
                self.trying = true;
                Way::Flushed
            }
            Way::Flushed => {
                self.trying = true;
                Way::Flagged
            }
        }
    }

    /// A write of `bytes` is durable, so many microseconds after it was submitted.
    pub(crate) fn on_done(&mut self, now_us: u64, way: Way, bytes: usize, took_us: u64) {
        if bytes > SAMPLE_BYTES_MAX {
            return;
        }
        if way == self.used {
            match way {
                Way::Flagged => self.flagged.add(took_us),
                Way::Flushed => self.flushed.add(took_us),
            }
            return;
        }
        if !self.trying {
            // It was out when the other way was taken.
            return;
        }
        self.trying = false;
        match way {
            Way::Flushed => {
                self.flushed = Mean::of(took_us);
                self.try_from_us = now_us + SUSPECT_US;
                // Due again only after a while, unless the flag looks slow.
                self.changed_us = now_us;
                if self.flagged.us() > self.flushed.us() * 2 {
                    self.used = Way::Flushed;
                    self.try_from_us = now_us + self.retry_us;
                    self.retry_us = (self.retry_us * 2).min(RETRY_US_MAX);
                }
            }
            Way::Flagged => {
                if took_us <= self.flushed.us() * 5 / 4 {
                    self.used = Way::Flagged;
                    self.flagged = Mean::of(took_us);
                    if now_us >= self.changed_us + 2 * RETRY_US_MAX {
                        self.retry_us = RETRY_US_MIN;
                    }
                    self.changed_us = now_us;
                    self.try_from_us = now_us + SUSPECT_US;
                } else {
                    self.try_from_us = now_us + self.retry_us;
                    self.retry_us = (self.retry_us * 2).min(RETRY_US_MAX);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes one after another for `for_us`, where a way takes what `cost_us` says; how many were
    /// flushed.
    fn write(
        ways: &mut Ways,
        now_us: &mut u64,
        for_us: u64,
        cost_us: impl Fn(Way) -> u64,
    ) -> (u32, u32) {
        let (mut flagged, mut flushed) = (0, 0);
        let end = *now_us + for_us;
        while *now_us < end {
            let way = ways.choose(*now_us, 4096);
            match way {
                Way::Flagged => flagged += 1,
                Way::Flushed => flushed += 1,
            }
            let took = cost_us(way);
            *now_us += took;
            ways.on_done(*now_us, way, 4096, took);
        }
        (flagged, flushed)
    }

    fn well(way: Way) -> u64 {
        match way {
            Way::Flagged => 120,
            Way::Flushed => 180,
        }
    }

    /// A program keeps the interrupt's processor for itself.
    fn starved(way: Way) -> u64 {
        match way {
            Way::Flagged => 4_000,
            Way::Flushed => 180,
        }
    }

    #[test]
    fn the_flag_is_used_where_it_is_quick() {
        let (mut ways, mut now_us) = (Ways::default(), 1);
        let (flagged, flushed) = write(&mut ways, &mut now_us, 30_000_000, well);
        assert!(flagged > 200_000, "{flagged}");
        assert!((1..=4).contains(&flushed), "{flushed}");
    }

    #[test]
    fn a_starved_worker_is_noticed_soon_and_its_return_too() {
        let (mut ways, mut now_us) = (Ways::default(), 1);
        write(&mut ways, &mut now_us, 5_000_000, well);
        // A few dozen slow writes are enough, and few trials follow.
        let (flagged, flushed) = write(&mut ways, &mut now_us, 30_000_000, starved);
        assert!(flagged <= 60, "{flagged}");
        assert!(flushed > 100_000, "{flushed}");
        // The last trial may be a while ago; the next one finds the flag quick again.
        write(&mut ways, &mut now_us, RETRY_US_MAX, well);
        assert_eq!(ways.used, Way::Flagged);
    }

    #[test]
    fn a_worker_that_waits_every_tenth_time_is_noticed_too() {
        let (mut ways, mut now_us) = (Ways::default(), 1);
        write(&mut ways, &mut now_us, 5_000_000, well);
        let count = std::cell::Cell::new(0);
        let (flagged, flushed) = write(&mut ways, &mut now_us, 30_000_000, |way| {
            count.set(count.get() + 1);
            let waits = way == Way::Flagged && count.get() % 10 == 0;
            if waits { 8_000 } else { well(way) }
        });
        assert!(flagged * 10 < flushed, "{flagged} and {flushed}");
    }

    #[test]
    fn a_device_that_is_slow_either_way_keeps_the_flag() {
        let (mut ways, mut now_us) = (Ways::default(), 1);
        write(&mut ways, &mut now_us, 10_000_000, |_| 8_000);
        let (flagged, flushed) = write(&mut ways, &mut now_us, 60_000_000, |_| 8_000);
        assert!(flushed * 50 < flagged, "{flushed} of {flagged}");
    }

    #[test]
    fn more_load_slows_both_and_changes_nothing_for_long() {
        let (mut ways, mut now_us) = (Ways::default(), 1);
        write(&mut ways, &mut now_us, 5_000_000, well);
        let (flagged, flushed) = write(&mut ways, &mut now_us, 30_000_000, |way| well(way) * 10);
        assert!(flushed * 50 < flagged, "{flushed} of {flagged}");
    }

    #[test]
    fn large_writes_say_nothing() {
        let mut ways = Ways::default();
        for _ in 0..100 {
            assert_eq!(ways.choose(1, 4 << 20), Way::Flagged);
            ways.on_done(2, Way::Flagged, 4 << 20, 50_000);
        }
        assert_eq!(ways.flagged.us(), 0);
    }
}
