//! What a measured run leaves behind: one JSON document with facts, totals, a row for each second, and whole histograms. Any thread; knows no client, no file and no chart.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize};

use crate::Failure;

/// What `format` says: a reader refuses what it does not know.
pub const FORMAT: &str = "millrace-bench-1";

/// MiB, which Kafka's tools call MB.
pub const MIB: f64 = 1024.0 * 1024.0;

/// Names and values for people, in the order they were put.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts(pub Vec<(String, String)>);

impl Facts {
    /// Adds a fact; one of this name is replaced.
    pub fn put(&mut self, name: &str, value: impl fmt::Display) {
        let value = value.to_string();
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl Serialize for Facts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Facts {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Facts, D::Error> {
        struct Ordered;
        impl<'de> Visitor<'de> for Ordered {
            type Value = Facts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Facts, A::Error> {
                let mut facts = Facts::default();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    facts.put(&name, value);
                }
                Ok(facts)
            }
        }
        deserializer.deserialize_map(Ordered)
    }
}

/// One measured run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// [`FORMAT`].
    pub format: String,
    /// What charts and tables call it.
    pub name: String,
    /// What measured: `bench run`, `bench load`, `producer-perf-test`.
    pub tool: String,
    /// When the measured part began: milliseconds since 1970.
    pub started_ms: i64,
    /// How long the measured part took, in seconds.
    pub elapsed_s: f64,
    /// The commands that were run: the client's, and the broker's where it is known.
    pub commands: Facts,
    /// Processor, memory, kernel.
    pub machine: Facts,
    /// Versions of client and broker.
    pub versions: Facts,
    /// When the broker flushes, as it says itself.
    pub durability: Facts,
    /// What was asked for.
    pub workload: Facts,
    /// Amounts over the measured part.
    pub totals: Totals,
    /// The distributions.
    pub latencies: Vec<Latency>,
    /// One row for each second of the measured part.
    pub seconds: Vec<Second>,
    /// Building and draining a backlog, and other parts of the run that took time of their own.
    pub phases: Vec<Phase>,
    /// What the generator itself did not keep up with, and whatever else a reader must know.
    pub remarks: Vec<String>,
}

/// Amounts over the measured part. Rates are bytes and records over wall time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Records that the schedule asked for; with no rate, those that were sent.
    pub records_intended: u64,
    /// Records given to the client.
    pub records_sent: u64,
    /// Records acknowledged.
    pub records_acknowledged: u64,
    /// Records refused or given up.
    pub records_failed: u64,
    /// Bytes of keys and values acknowledged.
    pub bytes_acknowledged: u64,
    /// Acknowledged records a second.
    pub records_per_s: f64,
    /// Acknowledged MiB a second.
    pub mib_per_s: f64,
    /// Requests answered a second, where the tool counts requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_s: Option<f64>,
    /// Records consumed, over all subscriptions.
    pub records_received: u64,
    /// Bytes of keys and values consumed.
    pub bytes_received: u64,
    /// Consumed records a second.
    pub received_records_per_s: f64,
    /// Consumed MiB a second.
    pub received_mib_per_s: f64,
    /// Seconds of processor time that the generator used.
    pub client_cpu_s: f64,
    /// Seconds of processor time that the broker used, where its process is on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_cpu_s: Option<f64>,
    /// The most memory that the broker's process had resident, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_memory_peak_bytes: Option<u64>,
}

impl Totals {
    /// Fills in the rates over so many seconds.
    pub fn rates(&mut self, elapsed_s: f64) {
        if elapsed_s <= 0.0 {
            return;
        }
        self.records_per_s = self.records_acknowledged as f64 / elapsed_s;
        self.mib_per_s = self.bytes_acknowledged as f64 / MIB / elapsed_s;
        self.received_records_per_s = self.records_received as f64 / elapsed_s;
        self.received_mib_per_s = self.bytes_received as f64 / MIB / elapsed_s;
    }
}

/// What a latency is measured from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Since {
    /// From when the schedule wanted the record sent: corrected for coordinated omission.
    Intended,
    /// From when it was really sent.
    Sent,
}

impl Since {
    /// For titles: "from the intended send time".
    pub fn words(self) -> &'static str {
        match self {
            Since::Intended => "from the intended send time",
            Since::Sent => "from the actual send time",
        }
    }

    /// For names of files.
    pub fn slug(self) -> &'static str {
        match self {
            Since::Intended => "intended",
            Since::Sent => "sent",
        }
    }
}

/// One distribution.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Latency {
    /// What was timed: `publish` (until acknowledged), `end_to_end` (until consumed), `send_lag` (until given to the client).
    pub kind: String,
    /// From when.
    pub since: Since,
    /// Nanoseconds of one unit of the histogram's values.
    #[serde(default = "one")]
    pub unit_ns: u64,
    /// How many were recorded.
    pub count: u64,
    /// Their mean, in microseconds.
    pub mean_us: f64,
    /// Microseconds at the usual percentiles, for readers without an HdrHistogram library.
    pub percentiles_us: Percentiles,
    /// The histogram: HdrHistogram's compressed V2 encoding in base64.
    pub histogram: String,
}

fn one() -> u64 {
    1
}

impl Latency {
    /// Packs a histogram whose values count units of `unit_ns` nanoseconds.
    pub fn new(kind: &str, since: Since, unit_ns: u64, histogram: &Histogram<u64>) -> Latency {
        Latency {
            kind: kind.to_owned(),
            since,
            unit_ns,
            count: histogram.len(),
            mean_us: histogram.mean() * unit_ns as f64 / 1000.0,
            percentiles_us: Percentiles::of(histogram, unit_ns),
            histogram: encode(histogram),
        }
    }

    /// The histogram again.
    ///
    /// # Errors
    /// When the text is not one.
    pub fn histogram(&self) -> Result<Histogram<u64>, Failure> {
        decode(&self.histogram).map_err(|why| {
            Failure(format!(
                "the histogram of {} {} cannot be read: {why}",
                self.kind,
                self.since.slug()
            ))
        })
    }

    /// A title: "Publish latency".
    pub fn title(&self) -> String {
        match self.kind.as_str() {
            "publish" => "Publish latency".to_owned(),
            "end_to_end" => "End-to-end latency".to_owned(),
            "send_lag" => "Send lag".to_owned(),
            other => other.replace('_', " "),
        }
    }

    /// For names of files: `publish-intended`.
    pub fn slug(&self) -> String {
        let kind: String = self
            .kind
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        format!("{kind}-{}", self.since.slug())
    }
}

/// Microseconds at some percentiles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// 75 of 100 are not above this.
    pub p75: f64,
    /// 90 of 100.
    pub p90: f64,
    /// 95 of 100.
    pub p95: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p99_9: f64,
    /// 9,999 of 10,000.
    pub p99_99: f64,
    /// The highest.
    pub max: f64,
}

impl Percentiles {
    /// Those of a histogram whose values count units of `unit_ns` nanoseconds; zeros when it is empty.
    pub fn of(histogram: &Histogram<u64>, unit_ns: u64) -> Percentiles {
        if histogram.is_empty() {
            return Percentiles::default();
        }
        let us = |value: u64| (value as f64) * unit_ns as f64 / 1000.0;
        let at = |quantile: f64| us(histogram.value_at_quantile(quantile).min(histogram.max()));
        Percentiles {
            p50: at(0.5),
            p75: at(0.75),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: us(histogram.max()),
        }
    }
}

/// One second of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Second {
    /// Where the second ends, counted from the start of the measured part.
    pub at_s: f64,
    /// How long it really was.
    pub length_s: f64,
    /// Records given to the client.
    pub sent: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Their bytes.
    pub acknowledged_bytes: u64,
    /// Records refused or given up.
    pub failed: u64,
    /// Records consumed.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Records sent and not yet consumed, over all subscriptions.
    pub backlog: u64,
    /// Publish latency from the intended send time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish_us: Option<Percentiles>,
    /// End-to-end latency from the intended send time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end_us: Option<Percentiles>,
}

/// A part of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Phase {
    /// What was done.
    pub name: String,
    /// Where it began, in seconds from the start of the measured part.
    pub start_s: f64,
    /// How long it took, in seconds.
    pub length_s: f64,
    /// What came of it.
    pub facts: Facts,
}

impl Run {
    /// Reads a result.
    ///
    /// # Errors
    /// When it is not JSON, or of another format.
    pub fn parse(json: &[u8]) -> Result<Run, Failure> {
        let run: Run = serde_json::from_slice(json).map_err(|e| Failure(e.to_string()))?;
        if run.format != FORMAT {
            return Err(Failure(format!(
                "its \"format\" is \"{}\", and this program reads \"{FORMAT}\"",
                run.format
            )));
        }
        for latency in &run.latencies {
            latency.histogram()?;
        }
        Ok(run)
    }

    /// The result as JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("every field has a JSON form")
    }

    /// The distribution of this kind.
    pub fn latency(&self, kind: &str, since: Since) -> Option<&Latency> {
        self.latencies
            .iter()
            .find(|latency| latency.kind == kind && latency.since == since && latency.count > 0)
    }
}

/// Packs a histogram: HdrHistogram's compressed V2 encoding in base64, which its libraries in other languages read.
pub fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .expect("a Vec takes everything");
    STANDARD.encode(bytes)
}

/// Unpacks a histogram.
///
/// # Errors
/// When the text is not one.
pub fn decode(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = STANDARD.decode(text.trim()).map_err(|e| e.to_string())?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|e| e.to_string())
}

/// Seconds with fractions.
pub fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_survives_its_json() {
        let mut histogram = Histogram::new_with_bounds(100, 3_600_000_000_000, 3).unwrap();
        for ns in [1_000_000, 2_000_000, 900_000_000] {
            histogram.record(ns).unwrap();
        }
        let mut run = Run {
            format: FORMAT.to_owned(),
            name: "a".to_owned(),
            ..Run::default()
        };
        run.machine.put("kernel", "6.1");
        run.machine.put("cores", 2);
        run.latencies
            .push(Latency::new("publish", Since::Intended, 1, &histogram));
        let back = Run::parse(run.json().as_bytes()).unwrap();
        assert_eq!(
            back.machine.iter().collect::<Vec<_>>(),
            [("kernel", "6.1"), ("cores", "2")]
        );
        let latency = back.latency("publish", Since::Intended).unwrap();
        assert_eq!(latency.histogram().unwrap(), histogram);
        // Three digits: at most one in a thousand off.
        assert!((latency.percentiles_us.p50 - 2000.0).abs() <= 2.0);
        assert!((latency.percentiles_us.max - 900_000.0).abs() <= 900.0);
        assert!(back.latency("publish", Since::Sent).is_none());
    }

    #[test]
    fn other_documents_are_refused() {
        assert!(Run::parse(b"[1]").is_err());
        let why = Run::parse(br#"{"format":"other"}"#).unwrap_err().0;
        assert!(why.contains("other") && why.contains(FORMAT), "{why}");
        let broken = format!(
            r#"{{"format":"{FORMAT}","latencies":[{{"kind":"publish","since":"sent","count":1,"mean_us":1,"percentiles_us":{{}},"histogram":"AAAA"}}]}}"#
        );
        assert!(
            Run::parse(broken.as_bytes())
                .unwrap_err()
                .0
                .contains("publish sent")
        );
    }

    #[test]
    fn rates_are_amounts_over_wall_time() {
        let mut totals = Totals {
            records_acknowledged: 1000,
            bytes_acknowledged: 4 * 1_048_576,
            ..Totals::default()
        };
        totals.rates(4.0);
        assert_eq!((totals.records_per_s, totals.mib_per_s), (250.0, 1.0));
        totals.rates(0.0);
        assert_eq!(totals.records_per_s, 250.0, "no time: nothing to divide by");
    }
}
