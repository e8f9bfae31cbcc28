//! Latencies and rates of a run, and the lines that Kafka's producer tool prints of them. The thread that polls the client; reads no clock.

use hdrhistogram::Histogram;

/// MiB, which Kafka's tools call MB.
const MB: f64 = 1024.0 * 1024.0;

/// `%.Nf` with Java's words for what is not a number.
pub fn fixed(value: f64, digits: usize) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 {
            "Infinity".to_owned()
        } else {
            "-Infinity".to_owned()
        }
    } else {
        format!("{value:.digits$}")
    }
}

/// A latency histogram: microseconds up to an hour, three significant digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are valid")
}

/// What was sent since some moment.
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    start_ms: i64,
    count: u64,
    bytes: u64,
    latency_us: u64,
    latency_us_max: u64,
}

impl Sum {
    fn add(&mut self, latency_us: u64, bytes: usize) {
        self.count += 1;
        self.bytes += bytes as u64;
        self.latency_us += latency_us;
        self.latency_us_max = self.latency_us_max.max(latency_us);
    }

    fn records_per_s(&self, now_ms: i64) -> f64 {
        1000.0 * self.count as f64 / (now_ms - self.start_ms) as f64
    }

    fn mb_per_s(&self, now_ms: i64) -> f64 {
        1000.0 * self.bytes as f64 / (now_ms - self.start_ms) as f64 / MB
    }

    fn average_ms(&self) -> f64 {
        self.latency_us as f64 / self.count as f64 / 1000.0
    }
}

/// The statistics of a producing run.
#[derive(Debug)]
pub struct Stats {
    total: Sum,
    window: Sum,
    latencies_us: Histogram<u64>,
    interval_ms: i64,
    steady: bool,
    silent: bool,
}

impl Stats {
    /// Starts counting. A line is due every `interval_ms`; `steady` is the run after the warm-up.
    pub fn new(now_ms: i64, interval_ms: i64, steady: bool) -> Stats {
        let sum = Sum {
            start_ms: now_ms,
            ..Sum::default()
        };
        Stats {
            total: sum,
            window: sum,
            latencies_us: histogram(),
            interval_ms,
            steady,
            silent: false,
        }
    }

    /// Stops the lines of windows; the total remains.
    pub fn silence(&mut self) {
        self.silent = true;
    }

    /// How many records were acknowledged.
    pub fn count(&self) -> u64 {
        self.total.count
    }

    /// The distribution of latencies, in microseconds.
    pub fn latencies_us(&self) -> &Histogram<u64> {
        &self.latencies_us
    }

    /// Counts an acknowledged record; the answer is what is to be printed now, if a window is over.
    pub fn record(&mut self, latency_us: u64, bytes: usize, now_ms: i64) -> Option<String> {
        self.total.add(latency_us, bytes);
        self.window.add(latency_us, bytes);
        self.latencies_us.saturating_record(latency_us.max(1));
        if now_ms - self.window.start_ms < self.interval_ms {
            return None;
        }
        let mut text = String::new();
        if self.steady && self.total.count == self.window.count {
            text.push_str("In steady state.\n");
        }
        if !self.silent {
            text.push_str(&self.window_line(now_ms));
        }
        self.window = Sum {
            start_ms: now_ms,
            ..Sum::default()
        };
        Some(text)
    }

    fn window_line(&self, now_ms: i64) -> String {
        format!(
            "{} records sent, {} records/sec ({} MB/sec), {} ms avg latency, {} ms max latency.\n",
            self.window.count,
            fixed(self.window.records_per_s(now_ms), 1),
            fixed(self.window.mb_per_s(now_ms), 2),
            fixed(self.window.average_ms(), 1),
            fixed(self.window.latency_us_max as f64 / 1000.0, 1),
        )
    }

    /// The last line of a run.
    pub fn total_line(&self, now_ms: i64) -> String {
        let percentile_ms = |quantile| self.latencies_us.value_at_quantile(quantile) / 1000;
        format!(
            "{}{} records sent, {} records/sec ({} MB/sec), {} ms avg latency, {} ms max latency, {} ms 50th, {} ms 95th, {} ms 99th, {} ms 99.9th.\n",
            self.total.count,
            if self.steady { " steady state" } else { "" },
            fixed(self.total.records_per_s(now_ms), 6),
            fixed(self.total.mb_per_s(now_ms), 2),
            fixed(self.total.average_ms(), 2),
            fixed(self.total.latency_us_max as f64 / 1000.0, 2),
            percentile_ms(0.5),
            percentile_ms(0.95),
            percentile_ms(0.99),
            percentile_ms(0.999),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_and_the_total_print_kafkas_lines() {
        let mut stats = Stats::new(0, 1000, false);
        assert_eq!(stats.record(2_000, 1_048_576, 500), None);
        assert_eq!(
            stats.record(4_000, 1_048_576, 1000).as_deref(),
            Some(
                "2 records sent, 2.0 records/sec (2.00 MB/sec), 3.0 ms avg latency, 4.0 ms max latency.\n"
            )
        );
        assert_eq!(
            stats.record(6_000, 2_097_152, 1500),
            None,
            "a new window began"
        );
        assert_eq!(
            stats.total_line(2000),
            "3 records sent, 1.500000 records/sec (2.00 MB/sec), 4.00 ms avg latency, 6.00 ms max latency, \
             4 ms 50th, 6 ms 95th, 6 ms 99th, 6 ms 99.9th.\n"
        );
    }

    #[test]
    fn the_steady_state_says_so_once() {
        let mut stats = Stats::new(0, 100, true);
        assert!(
            stats
                .record(1_000, 1, 100)
                .unwrap()
                .starts_with("In steady state.\n1 records sent, ")
        );
        assert!(
            stats
                .record(1_000, 1, 200)
                .unwrap()
                .starts_with("1 records sent, ")
        );
        assert!(
            stats
                .total_line(1000)
                .starts_with("2 steady state records sent, 2.000000 records/sec")
        );
    }

    #[test]
    fn a_silent_warm_up_prints_no_windows() {
        let mut stats = Stats::new(0, 100, false);
        stats.silence();
        assert_eq!(stats.record(1, 1, 100).as_deref(), Some(""));
    }

    #[test]
    fn a_run_without_records_has_no_average() {
        assert!(
            Stats::new(0, 100, false)
                .total_line(1000)
                .contains("NaN ms avg latency")
        );
    }
}
