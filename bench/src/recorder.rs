//! When records were wanted, when they were sent, and how long they took: the schedule of an open loop and the histograms of one window. The threads that send, poll and consume; reads no clock.

use hdrhistogram::Histogram;

/// The longest latency that is told apart: an hour, in nanoseconds.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// A latency histogram: nanoseconds, three significant digits from 64 ns up, growing as needed.
pub fn histogram() -> Histogram<u64> {
    let mut histogram =
        Histogram::new_with_bounds(100, 16_000_000, 3).expect("the bounds are valid");
    histogram.auto(true);
    histogram
}

/// Records a value; what is longer than an hour counts as an hour.
pub fn record(histogram: &mut Histogram<u64>, ns: u64) {
    histogram
        .record(ns.min(LONGEST_NS))
        .expect("the histogram grows");
}

/// When a record was wanted and when it was sent, in nanoseconds of the run's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The moment of the schedule.
    pub intended_ns: u64,
    /// The moment at which the client took it.
    pub sent_ns: u64,
}

impl Stamp {
    /// Bytes at the head of a value.
    pub const BYTES: usize = 16;

    /// A record that only asks whether the way is open.
    pub const PROBE: Stamp = Stamp {
        intended_ns: u64::MAX,
        sent_ns: u64::MAX,
    };

    /// Writes itself over the head of a value, if the value is long enough.
    pub fn write(self, value: &mut [u8]) {
        if let Some(head) = value.first_chunk_mut::<{ Stamp::BYTES }>() {
            head[..8].copy_from_slice(&self.intended_ns.to_le_bytes());
            head[8..].copy_from_slice(&self.sent_ns.to_le_bytes());
        }
    }

    /// Reads what [`Stamp::write`] wrote.
    pub fn read(value: &[u8]) -> Option<Stamp> {
        let head = value.first_chunk::<{ Stamp::BYTES }>()?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        Some(Stamp {
            intended_ns: word(0),
            sent_ns: word(8),
        })
    }
}

/// The moments of an open loop: evenly spread, whatever happens to the records. Several senders share a rate by taking
/// turns.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    start_ns: u64,
    interval_ns: f64,
    next: u64,
    step: u64,
}

impl Schedule {
    /// `rate` records a second over all `senders`; this is number `index` of them.
    pub fn new(start_ns: u64, rate: f64, index: u64, senders: u64) -> Schedule {
        Schedule {
            start_ns,
            interval_ns: 1e9 / rate,
            next: index,
            step: senders,
        }
    }

    /// When the next record is wanted. It stays so until [`Schedule::sent`], however late that is.
    pub fn due_ns(&self) -> u64 {
        self.start_ns + (self.next as f64 * self.interval_ns) as u64
    }

    /// The next record was sent.
    pub fn sent(&mut self) {
        self.next += self.step;
    }

    /// How many of this sender's records are wanted before a moment and not sent yet.
    pub fn overdue(&self, until_ns: u64) -> u64 {
        let due_ns = self.due_ns();
        if until_ns <= due_ns {
            return 0;
        }
        1 + ((until_ns - 1 - due_ns) as f64 / (self.interval_ns * self.step as f64)) as u64
    }
}

/// The same latencies from both beginnings.
#[derive(Debug, Clone)]
pub struct Pair {
    /// From the intended send time: corrected for coordinated omission.
    pub intended: Histogram<u64>,
    /// From the actual send time.
    pub sent: Histogram<u64>,
}

impl Default for Pair {
    fn default() -> Pair {
        Pair {
            intended: histogram(),
            sent: histogram(),
        }
    }
}

impl Pair {
    /// Records what ended at `done_ns`.
    pub fn record(&mut self, stamp: Stamp, done_ns: u64) {
        record(
            &mut self.intended,
            done_ns.saturating_sub(stamp.intended_ns),
        );
        record(&mut self.sent, done_ns.saturating_sub(stamp.sent_ns));
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Pair) {
        self.intended
            .add(&other.intended)
            .expect("the histogram grows");
        self.sent.add(&other.sent).expect("the histogram grows");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends at `rate` for `seconds` to a broker that answers after `service_ns`, but answers nothing from
    /// `stop_ns` for a second. The client takes `queue` unanswered records at most.
    fn stalled(rate: f64, seconds: u64, queue: usize) -> (Pair, u64) {
        let (service_ns, stop_ns) = (1_000_000, 5_000_000_000);
        let resume_ns = stop_ns + 1_000_000_000;
        let mut schedule = Schedule::new(0, rate, 0, 1);
        let mut pair = Pair::default();
        let mut in_flight = std::collections::VecDeque::new();
        let mut now_ns = 0_u64;
        let mut sent = 0;
        while schedule.due_ns() < seconds * 1_000_000_000 {
            let due_ns = schedule.due_ns();
            now_ns = now_ns.max(due_ns);
            // A full client makes the sender wait for an answer.
            while in_flight.len() >= queue {
                now_ns = now_ns.max(in_flight.pop_front().unwrap());
            }
            while in_flight.front().is_some_and(|done| *done <= now_ns) {
                in_flight.pop_front();
            }
            let mut done_ns = now_ns + service_ns;
            if (stop_ns..resume_ns).contains(&done_ns) {
                done_ns = resume_ns;
            }
            in_flight.push_back(done_ns);
            let stamp = Stamp {
                intended_ns: due_ns,
                sent_ns: now_ns,
            };
            pair.record(stamp, done_ns);
            schedule.sent();
            sent += 1;
        }
        (pair, sent)
    }

    #[test]
    fn a_broker_that_stops_for_a_second_shows_in_the_corrected_percentiles() {
        // With room for the whole second, and with room for eight records only: the schedule goes on in both.
        // Catching up with eight at a time takes a seventh longer, and more records wait for it.
        for (queue, expected) in [(usize::MAX, 240..=262), (8, 275..=295)] {
            let (pair, sent) = stalled(1000.0, 20, queue);
            assert_eq!(sent, 20_000);
            assert_eq!(pair.intended.len(), 20_000);
            // A thousand records were wanted while it stood; they waited from 0 to 1 s, evenly.
            for (low_ms, high_ms) in [(2, 250), (250, 500), (500, 750), (750, 1002)] {
                let count = pair
                    .intended
                    .count_between(low_ms * 1_000_000, high_ms * 1_000_000);
                assert!(
                    expected.contains(&count),
                    "{count} in {low_ms}..{high_ms} ms, queue {queue}"
                );
            }
            assert!(pair.intended.value_at_quantile(0.99) > 790_000_000);
            assert!(pair.intended.value_at_quantile(0.9) < 2_000_000);
        }
    }

    #[test]
    fn the_actual_send_time_alone_would_hide_it() {
        let (pair, _) = stalled(1000.0, 20, 8);
        let slow = |histogram: &Histogram<u64>| histogram.count_between(100_000_000, 2_000_000_000);
        assert!(slow(&pair.sent) <= 8, "only what was in flight waited");
        assert!(slow(&pair.intended) >= 890);
        assert!(pair.sent.value_at_quantile(0.99) < 2_000_000);
    }

    #[test]
    fn senders_share_a_schedule_evenly() {
        let mut due = Vec::new();
        for index in 0..3 {
            let mut schedule = Schedule::new(100, 1_000_000.0, index, 3);
            for _ in 0..4 {
                due.push(schedule.due_ns());
                schedule.sent();
            }
        }
        due.sort_unstable();
        let expected: Vec<u64> = (0..12).map(|k| 100 + k * 1000).collect();
        assert_eq!(due, expected);
    }

    #[test]
    fn what_was_never_sent_is_counted() {
        let mut schedule = Schedule::new(0, 1000.0, 0, 1);
        assert_eq!(schedule.overdue(0), 0);
        assert_eq!(schedule.overdue(1), 1);
        assert_eq!(schedule.overdue(1_000_000), 1);
        assert_eq!(schedule.overdue(10_000_000), 10);
        schedule.sent();
        assert_eq!(schedule.overdue(10_000_000), 9);
    }

    #[test]
    fn a_stamp_travels_in_a_value() {
        let stamp = Stamp {
            intended_ns: 7,
            sent_ns: 1 << 60,
        };
        let mut value = vec![9; 20];
        stamp.write(&mut value);
        assert_eq!(Stamp::read(&value), Some(stamp));
        assert_eq!(value[16..], [9; 4]);
        let mut short = vec![9; 15];
        stamp.write(&mut short);
        assert_eq!(short, [9; 15]);
        assert_eq!(Stamp::read(&short), None);
    }
}
