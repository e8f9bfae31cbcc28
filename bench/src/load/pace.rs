//! When the requests of an open loop are due. The generator's thread; reads no clock: every time is nanoseconds since the start of the run.

/// A steady rate: request `i` is due at `i / rate`, and goes to connection `i % connections`.
#[derive(Debug, Clone)]
pub struct Pace {
    interval_ns: f64,
    connections: u64,
    /// The next request that is not yet due.
    next: u64,
    /// Requests from this one on are never sent.
    end: u64,
}

impl Pace {
    /// `rate` requests a second over so many connections, until `end_ns`.
    pub fn new(rate: f64, connections: usize, end_ns: u64) -> Pace {
        let interval_ns = 1e9 / rate;
        Pace {
            interval_ns,
            connections: connections as u64,
            next: 0,
            end: (end_ns as f64 / interval_ns).ceil() as u64,
        }
    }

    /// When request `index` is due.
    pub fn due_ns(&self, index: u64) -> u64 {
        (index as f64 * self.interval_ns) as u64
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
        let mut pace = Pace::new(4.0, 3, 1_000_000_000);
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
}
