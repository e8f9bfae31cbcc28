//! When the requests of an open loop are due. The generator's thread; reads no clock: every time is nanoseconds since the start of the run.

/// Which requests of a steady rate a thread sends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turns {
    /// Requests a second, of all threads together.
    pub rate: f64,
    /// The first of them that is this thread's.
    pub first: u64,
    /// Each so many is this thread's too.
    pub step: u64,
}

/// A steady rate: a thread's request `i` is the rate's request `first + i * step`, which is due at its number / rate, and
/// goes to the thread's connection `i % connections`.
#[derive(Debug, Clone)]
pub struct Pace {
    first_ns: f64,
    interval_ns: f64,
    connections: u64,
    /// The next request that is not yet due.
    next: u64,
    /// Requests from this one on are never sent.
    end: u64,
}

impl Pace {
    /// These requests over so many connections, until `end_ns`.
    pub fn new(turns: Turns, connections: usize, end_ns: u64) -> Pace {
        let interval_ns = 1e9 / turns.rate * turns.step as f64;
        let first_ns = 1e9 / turns.rate * turns.first as f64;
        Pace {
            first_ns,
            interval_ns,
            connections: connections as u64,
            next: 0,
            end: ((end_ns as f64 - first_ns) / interval_ns).ceil().max(0.0) as u64,
        }
    }

    /// When request `index` is due.
    pub fn due_ns(&self, index: u64) -> u64 {
        (self.first_ns + index as f64 * self.interval_ns) as u64
    }

    /// The next request, if it is due by now, as its index and its connection.
    pub fn take_due(&mut self, now_ns: u64) -> Option<(u64, usize)> {
        if self.next >= self.end || self.due_ns(self.next) > now_ns {
            return None;
        }
        let index = self.next;
        self.next += 1;
        Some((index, (index % self.connections) as usize))
    }

    /// When the next request is due; None when there is none.
    pub fn next_due_ns(&self) -> Option<u64> {
        (self.next < self.end).then(|| self.due_ns(self.next))
    }

    /// The request after `index` on the same connection.
    pub fn after(&self, index: u64) -> u64 {
        index + self.connections
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_the_rate_and_go_round() {
        // 4 a second for one second: at 0, 250, 500 and 750 ms; the one at 1 s belongs to no second any more.
        let turns = Turns {
            rate: 4.0,
            first: 0,
            step: 1,
        };
        let mut pace = Pace::new(turns, 3, 1_000_000_000);
        assert_eq!(pace.take_due(0), Some((0, 0)));
        assert_eq!(pace.take_due(0), None);
        assert_eq!(pace.next_due_ns(), Some(250_000_000));
        // A late look finds all that became due meanwhile, each with its own time.
        assert_eq!(pace.take_due(2_000_000_000), Some((1, 1)));
        assert_eq!(pace.take_due(2_000_000_000), Some((2, 2)));
        assert_eq!(pace.take_due(2_000_000_000), Some((3, 0)));
        assert_eq!(pace.take_due(2_000_000_000), None);
        assert_eq!(pace.next_due_ns(), None);
        assert_eq!(pace.due_ns(pace.after(0)), 750_000_000);
    }
    #[test]
    fn threads_take_turns_at_one_rate() {
        let due = |first| {
            let turns = Turns {
                rate: 4.0,
                first,
                step: 2,
            };
            let mut pace = Pace::new(turns, 1, 1_000_000_000);
            std::iter::from_fn(move || pace.take_due(u64::MAX).map(|(index, _)| pace.due_ns(index)))
                .collect::<Vec<_>>()
        };
        assert_eq!(due(0), [0, 500_000_000]);
        assert_eq!(due(1), [250_000_000, 750_000_000]);
    }
}
