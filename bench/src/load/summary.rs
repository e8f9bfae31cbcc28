//! The figures of a load run and how they are told: as text, and as JSON with whole histograms. The generator's thread, after the run; reads no clock.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use serde_json::{Value, json};

use crate::load::Output;
use crate::process::Usage;

/// The longest time that a histogram tells apart: an hour, in microseconds.
const MICROS_MAX: u64 = 3_600_000_000;
/// A generator that is busy for more of the time than this may be what limits the rate.
const BUSY_SHARE_MAX: f64 = 0.9;
/// A generator that is later than this with one request in a hundred does not keep its schedule, in microseconds.
const LAG_US_MAX: u64 = 1_000;
/// An open loop that achieves less of its rate than this has fallen behind.
const RATE_SHARE_MIN: f64 = 0.99;

/// An empty histogram of microseconds, with three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds are sound")
}

/// Nanoseconds as the nearest microseconds.
pub fn micros(nanoseconds: u64) -> u64 {
    (nanoseconds + 500) / 1000
}

/// Latencies of the same requests, from two beginnings.
#[derive(Debug, Clone, PartialEq)]
pub struct Latencies {
    /// From the time when the request was due, in microseconds: a broker that stands still makes all requests late that
    /// were due meanwhile (corrected for coordinated omission).
    pub intended_us: Histogram<u64>,
    /// From the time when the request was sent, in microseconds.
    pub actual_us: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies {
            intended_us: histogram(),
            actual_us: histogram(),
        }
    }
}

impl Latencies {
    /// One request, in nanoseconds of one clock.
    pub fn record(&mut self, intended_ns: u64, actual_ns: u64, done_ns: u64) {
        self.intended_us
            .saturating_record(micros(done_ns.saturating_sub(intended_ns)));
        self.actual_us
            .saturating_record(micros(done_ns.saturating_sub(actual_ns)));
    }
}

/// One second of the window.
#[derive(Debug, Clone, PartialEq)]
pub struct Second {
    /// Requests that were answered in it.
    pub requests: u64,
    /// How long they took, from the intended time, in microseconds.
    pub latency_us: Histogram<u64>,
}

/// What the generator tells of itself, over the window.
#[derive(Debug, Clone)]
pub struct Generator {
    /// Its threads.
    pub thread_count: usize,
    /// CPU time of its threads over wall time.
    pub cpu_share: f64,
    /// The part of the time in which it did not wait; of the busiest of its threads.
    pub busy_share: f64,
    /// Open loop: how late requests were sent though their connection had room, in microseconds.
    pub lag: Histogram<u64>,
}

/// What the broker's process used in the window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Broker {
    /// CPU time, in seconds.
    pub cpu_seconds: f64,
    /// The part of it in the kernel, in seconds.
    pub system_seconds: f64,
    /// The most memory it ever had in RAM, in bytes.
    pub resident_bytes_max: u64,
    /// How often its threads went to sleep.
    pub voluntary_switches: u64,
    /// How often they were made to wait for a core.
    pub involuntary_switches: u64,
}

impl Broker {
    /// What was used from one look to the next.
    pub fn between(from: &Usage, to: &Usage) -> Broker {
        Broker {
            cpu_seconds: to.cpu_seconds - from.cpu_seconds,
            system_seconds: to.system_seconds - from.system_seconds,
            resident_bytes_max: to.resident_bytes_max,
            voluntary_switches: to
                .voluntary_switches
                .saturating_sub(from.voluntary_switches),
            involuntary_switches: to
                .involuntary_switches
                .saturating_sub(from.involuntary_switches),
        }
    }
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct Measured {
    /// When the window began: milliseconds since 1970.
    pub started_ms: i64,
    /// How long the window really was.
    pub window_seconds: f64,
    /// Requests that were answered in it.
    pub requests: u64,
    /// Their records.
    pub records: u64,
    /// Bytes of those records' values.
    pub value_bytes: u64,
    /// Latencies of the requests that were due in it.
    pub latencies: Latencies,
    /// The generator itself.
    pub generator: Generator,
    /// The broker's process, if it was watched.
    pub broker: Option<Broker>,
    /// Second by second.
    pub seconds: Vec<Second>,
}

impl Measured {
    /// What several threads measured at the same time, as one: histograms are added up, not percentiles.
    pub fn merge(parts: Vec<Measured>) -> Measured {
        let add = |to: &mut Histogram<u64>, from: &Histogram<u64>| {
            to.add(from).expect("all have the same bounds");
        };
        let mut parts = parts.into_iter();
        let mut merged = parts.next().expect("a run has a thread at least");
        for part in parts {
            merged.started_ms = merged.started_ms.min(part.started_ms);
            merged.window_seconds = merged.window_seconds.max(part.window_seconds);
            merged.requests += part.requests;
            merged.records += part.records;
            merged.value_bytes += part.value_bytes;
            add(
                &mut merged.latencies.intended_us,
                &part.latencies.intended_us,
            );
            add(&mut merged.latencies.actual_us, &part.latencies.actual_us);
            let generator = &mut merged.generator;
            generator.thread_count += part.generator.thread_count;
            generator.cpu_share += part.generator.cpu_share;
            generator.busy_share = generator.busy_share.max(part.generator.busy_share);
            add(&mut generator.lag, &part.generator.lag);
            merged.broker = merged.broker.or(part.broker);
            // A thread that ended first has a second less.
            let known = merged.seconds.len().min(part.seconds.len());
            for (to, from) in merged.seconds.iter_mut().zip(&part.seconds) {
                to.requests += from.requests;
                add(&mut to.latency_us, &from.latency_us);
            }
            merged.seconds.extend(part.seconds.into_iter().skip(known));
        }
        merged
    }
}

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The protocol's name.
    pub protocol: &'static str,
    /// Where the broker is.
    pub target: String,
    /// Whether it is a bare loop.
    pub bare: bool,
    /// The topic.
    pub topic: String,
    /// Connections.
    pub connections: u32,
    /// Requests under way on each, at most.
    pub in_flight: usize,
    /// Partitions in all.
    pub partitions: u32,
    /// Batches in a request.
    pub partitions_per_request: u32,
    /// Bytes of a record's value.
    pub record_bytes: u32,
    /// Records in a batch.
    pub records_per_batch: u32,
    /// As the protocol says it.
    pub acks: i16,
    /// Requests a second, in an open loop.
    pub rate: Option<f64>,
    /// Seconds before the window.
    pub warmup_seconds: f64,
    /// Whether the generator polled.
    pub spin: bool,
    /// The generator's cores, a thread on each; none: one thread on any.
    pub cores: Vec<usize>,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Summary {
    /// What was asked for.
    pub workload: Workload,
    /// What came of it.
    pub measured: Measured,
}

impl Summary {
    /// Requests answered a second.
    pub fn requests_per_second(&self) -> f64 {
        self.measured.requests as f64 / self.measured.window_seconds
    }

    /// Megabytes (10^6 bytes) of record values a second.
    pub fn mb_per_second(&self) -> f64 {
        self.measured.value_bytes as f64 / 1e6 / self.measured.window_seconds
    }

    /// What the generator could not do, as sentences: a result with one of these says little about the broker.
    pub fn limits(&self) -> Vec<String> {
        let generator = &self.measured.generator;
        let mut limits = Vec::new();
        if generator.busy_share > BUSY_SHARE_MAX {
            limits.push(format!(
                "the generator was busy for {:.0} % of the time: it may be the limit, not the broker",
                generator.busy_share * 100.0
            ));
        }
        let lag_us = generator.lag.value_at_quantile(0.99);
        if lag_us > LAG_US_MAX {
            limits.push(format!(
                "the generator sent one request in a hundred more than {lag_us} us late by its own fault"
            ));
        }
        if let Some(rate) = self.workload.rate
            && self.requests_per_second() < rate * RATE_SHARE_MIN
        {
            limits.push(format!(
                "{:.0} requests a second were answered where {rate:.0} were asked for",
                self.requests_per_second()
            ));
        }
        limits
    }

    /// Writes it to standard output.
    ///
    /// # Errors
    /// As standard output.
    pub fn print(&self, output: Output) -> io::Result<()> {
        let text = match output {
            Output::Text => self.text(),
            Output::Json => format!("{}\n", self.json()),
        };
        if output == Output::Json {
            for limit in self.limits() {
                eprintln!("NOTE: {limit}");
            }
        }
        io::stdout().lock().write_all(text.as_bytes())
    }

    /// For people.
    pub fn text(&self) -> String {
        let (workload, measured) = (&self.workload, &self.measured);
        let mut text = format!(
            "{} {}{}: {} connections, {} in flight, {} x {} B a batch, {} of {} partitions a request, acks {}, {}\n",
            workload.protocol,
            workload.target,
            if workload.bare { " (bare loop)" } else { "" },
            workload.connections,
            workload.in_flight,
            workload.records_per_batch,
            workload.record_bytes,
            workload.partitions_per_request,
            workload.partitions,
            workload.acks,
            match workload.rate {
                Some(rate) => format!("open loop of {rate} requests/s"),
                None => "closed loop".to_owned(),
            }
        );
        text += &format!(
            "{:.1} s: {:.0} requests/s, {:.0} records/s, {:.2} MB/s\n",
            measured.window_seconds,
            self.requests_per_second(),
            measured.records as f64 / measured.window_seconds,
            self.mb_per_second(),
        );
        let latencies = &measured.latencies;
        let mut rows = vec![("latency", &latencies.intended_us)];
        if workload.rate.is_some() {
            rows = vec![
                ("latency from the intended time", &latencies.intended_us),
                ("latency from the actual sending", &latencies.actual_us),
            ];
        }
        for (name, latency) in rows {
            let at = |quantile| latency.value_at_quantile(quantile);
            text += &format!(
                "{name}, us: p50 {}, p90 {}, p99 {}, p99.9 {}, p99.99 {}, max {}\n",
                at(0.5),
                at(0.9),
                at(0.99),
                at(0.999),
                at(0.9999),
                latency.max()
            );
        }
        if let Some(broker) = &measured.broker {
            text += &format!(
                "broker: {:.2} CPU s ({:.0} % of a core, {:.0} % of it in the kernel), {} a GB, {} a million requests; \
                 at most {:.1} MiB; {:.2} sleeps a request\n",
                broker.cpu_seconds,
                broker.cpu_seconds / measured.window_seconds * 100.0,
                broker.system_seconds / broker.cpu_seconds.max(1e-9) * 100.0,
                ratio(broker.cpu_seconds, measured.value_bytes as f64 / 1e9),
                ratio(broker.cpu_seconds, measured.requests as f64 / 1e6),
                broker.resident_bytes_max as f64 / f64::from(1 << 20),
                broker.voluntary_switches as f64 / (measured.requests.max(1)) as f64,
            );
        }
        let generator = &measured.generator;
        text += &format!(
            "generator: {}{:.0} % CPU, busy for {:.0} % of the time",
            match generator.thread_count {
                1 => String::new(),
                count => format!("{count} threads, "),
            },
            generator.cpu_share * 100.0,
            generator.busy_share * 100.0
        );
        if workload.rate.is_some() {
            text += &format!(
                "; late by itself, us: p50 {}, p99 {}, max {}",
                generator.lag.value_at_quantile(0.5),
                generator.lag.value_at_quantile(0.99),
                generator.lag.max()
            );
        }
        text += "\n";
        for limit in self.limits() {
            text += &format!("NOTE: {limit}\n");
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let (workload, measured) = (&self.workload, &self.measured);
        let generator = &measured.generator;
        let broker = measured.broker.map(|broker| {
            json!({
                "cpu_seconds": broker.cpu_seconds,
                "cpu_seconds_system": broker.system_seconds,
                "cpu_share": broker.cpu_seconds / measured.window_seconds,
                "cpu_seconds_per_gb": per(broker.cpu_seconds, measured.value_bytes as f64 / 1e9),
                "cpu_seconds_per_million_requests": per(broker.cpu_seconds, measured.requests as f64 / 1e6),
                "resident_bytes_max": broker.resident_bytes_max,
                "voluntary_switches": broker.voluntary_switches,
                "involuntary_switches": broker.involuntary_switches,
            })
        });
        let second = |second: &Second| {
            json!({
                "requests": second.requests,
                "p50_us": second.latency_us.value_at_quantile(0.5),
                "p99_us": second.latency_us.value_at_quantile(0.99),
                "max_us": second.latency_us.max(),
            })
        };
        json!({
            "tool": "millrace bench load",
            "version": env!("CARGO_PKG_VERSION"),
            "workload": {
                "protocol": workload.protocol,
                "target": workload.target,
                "bare": workload.bare,
                "topic": workload.topic,
                "connections": workload.connections,
                "in_flight": workload.in_flight,
                "partitions": workload.partitions,
                "partitions_per_request": workload.partitions_per_request,
                "record_bytes": workload.record_bytes,
                "records_per_batch": workload.records_per_batch,
                "acks": workload.acks,
                "rate": workload.rate,
                "warmup_seconds": workload.warmup_seconds,
                "spin": workload.spin,
                "cores": workload.cores,
            },
            "started_ms": measured.started_ms,
            "window_seconds": measured.window_seconds,
            "requests": measured.requests,
            "records": measured.records,
            "value_bytes": measured.value_bytes,
            "requests_per_second": self.requests_per_second(),
            "records_per_second": measured.records as f64 / measured.window_seconds,
            "mb_per_second": self.mb_per_second(),
            "latency_from_intended_us": latency_json(&measured.latencies.intended_us),
            "latency_from_actual_us": latency_json(&measured.latencies.actual_us),
            "generator": {
                "threads": generator.thread_count,
                "cpu_share": generator.cpu_share,
                "busy_share": generator.busy_share,
                "lag_us": latency_json(&generator.lag),
                "limits": self.limits(),
            },
            "broker": broker,
            "seconds": measured.seconds.iter().map(second).collect::<Vec<_>>(),
        })
    }
}

/// `amount` for each `unit`, or null when there were none.
fn per(amount: f64, units: f64) -> Option<f64> {
    (units > 0.0).then(|| amount / units)
}

fn ratio(amount: f64, units: f64) -> String {
    per(amount, units).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
}

/// Percentiles, and the histogram itself in HdrHistogram's compressed form (V2, deflate) as base64.
fn latency_json(latency: &Histogram<u64>) -> Value {
    let at = |quantile| latency.value_at_quantile(quantile);
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(latency, &mut bytes)
        .expect("memory takes all bytes");
    json!({
        "count": latency.len(),
        "min": latency.min(),
        "mean": latency.mean(),
        "p50": at(0.5),
        "p90": at(0.9),
        "p99": at(0.99),
        "p99_9": at(0.999),
        "p99_99": at(0.9999),
        "max": latency.max(),
        "histogram": STANDARD.encode(bytes),
    })
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;

    use super::*;

    #[test]
    fn a_late_request_is_late_from_the_time_it_was_due() {
        let mut latencies = Latencies::default();
        // Due at 1 ms, sent at 900 ms because the broker stood still, answered a millisecond later.
        latencies.record(1_000_000, 900_000_000, 901_000_000);
        assert_eq!(latencies.actual_us.max(), 1_000);
        let intended = latencies.intended_us.max();
        assert!(latencies.intended_us.equivalent(intended, 900_000));
    }

    #[test]
    fn the_serialised_histogram_is_the_histogram() {
        let mut latency = histogram();
        for value in [3, 300, 300, 45_000] {
            latency.record(value).unwrap();
        }
        let told = latency_json(&latency);
        assert_eq!(told["count"], 4);
        assert_eq!(told["p50"], 300);
        let bytes = STANDARD
            .decode(told["histogram"].as_str().unwrap())
            .unwrap();
        let back: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .unwrap();
        assert_eq!(back, latency);
    }

    #[test]
    fn nanoseconds_are_rounded() {
        assert_eq!((micros(499), micros(500), micros(1_499)), (0, 1, 1));
    }
}
