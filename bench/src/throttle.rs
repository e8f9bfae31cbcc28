//! Holds a sender to a rate, as Kafka's perf tool does: sleeps on average 1/rate between sends, in pieces of at least 2 ms. The sender's thread; reads no clock.

use std::time::Duration;

const PAUSE_NS_MIN: u64 = 2_000_000;

/// The debt of sleep of one sender.
#[derive(Debug)]
pub struct Throttle {
    rate: f64,
    start_ms: i64,
    pause_ns: u64,
    owed_ns: u64,
}

impl Throttle {
    /// At most `rate` sends a second, counted from `start_ms`. Below zero: no limit; zero: nothing may be sent.
    pub fn new(rate: f64, start_ms: i64) -> Throttle {
        let pause_ns = if rate > 0.0 {
            (1e9 / rate) as u64
        } else {
            u64::MAX
        };
        Throttle {
            rate,
            start_ms,
            pause_ns,
            owed_ns: 0,
        }
    }

    /// How long to wait now, after `sent` sends of which the last began at `now_ms`; None when no pause is due.
    /// [`Duration::MAX`] means for ever.
    pub fn pause(&mut self, sent: u64, now_ms: i64) -> Option<Duration> {
        if self.rate < 0.0 {
            return None;
        }
        let elapsed_s = (now_ms - self.start_ms) as f64 / 1000.0;
        if elapsed_s <= 0.0 || sent as f64 / elapsed_s <= self.rate {
            return None;
        }
        if self.rate == 0.0 {
            return Some(Duration::MAX);
        }
        self.owed_ns = self.owed_ns.saturating_add(self.pause_ns);
        if self.owed_ns < PAUSE_NS_MIN {
            return None;
        }
        Some(Duration::from_nanos(std::mem::take(&mut self.owed_ns)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_sender_pauses_once_enough_debt_is_there() {
        let mut throttle = Throttle::new(1000.0, 0);
        assert_eq!(throttle.pause(500, 1000), None, "slower than allowed");
        assert_eq!(
            throttle.pause(2000, 1000),
            None,
            "1 ms owed is too short a sleep"
        );
        assert_eq!(throttle.pause(2001, 1000), Some(Duration::from_millis(2)));
        assert_eq!(throttle.pause(2002, 1000), None, "the debt was paid");
    }

    #[test]
    fn the_ends_of_the_scale() {
        assert_eq!(Throttle::new(-1.0, 0).pause(u64::MAX, 1), None);
        assert_eq!(Throttle::new(0.0, 0).pause(1, 1), Some(Duration::MAX));
        assert_eq!(
            Throttle::new(10.0, 5).pause(100, 5),
            None,
            "no time has passed yet"
        );
        assert_eq!(
            Throttle::new(2.0, 0).pause(100, 1),
            Some(Duration::from_millis(500))
        );
    }
}
