//! What a core counts, and how the control thread tells it. A core's counters are plain numbers that only
//! it changes; it sends a copy when asked. The encoding (Prometheus, prefix `millrace_`) runs on the
//! control thread. It knows no socket.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use hdrhistogram::Histogram;
use net::kafka::ApiKey;
use net::kafka::error::ErrorCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use storage::types::{CoreId, TopicId};

use crate::ids::OwnMap;

/// A part of a request's way, of which the time is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the whole frame to the begin of its handling.
    Queue,
    /// From there until its last batch is in the journal's buffer (Produce), or its data is found (Fetch).
    Journal,
    /// From there until the data is as durable as was asked for (Produce), or read or come (Fetch).
    Flush,
    /// From there until the answer is handed to the socket.
    Respond,
}

impl Stage {
    const ALL: [Stage; 4] = [Stage::Queue, Stage::Journal, Stage::Flush, Stage::Respond];

    fn name(self) -> &'static str {
        match self {
            Stage::Queue => "queue",
            Stage::Journal => "journal",
            Stage::Flush => "flush",
            Stage::Respond => "respond",
        }
    }
}

/// Longest time that is told apart, in microseconds; longer ones count as this.
const LATENCY_US_MAX: u64 = 60_000_000;

/// Upper bounds of the buckets that are told, in microseconds.
const BUCKETS_US: [u64; 18] = [
    50, 100, 200, 300, 500, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000,
    500_000, 1_000_000, 5_000_000, 30_000_000,
];

/// Times of one stage.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
    sum_us: u64,
}

impl Latency {
    fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, 2)
            .expect("the bounds are apart and two digits are allowed");
        Latency {
            histogram,
            sum_us: 0,
        }
    }

    fn record(&mut self, us: u64) {
        self.histogram.saturating_record(us);
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// Counts by bucket, each for itself; the last is for what is above all bounds.
    fn buckets(&self) -> Vec<(f64, u64)> {
        let mut buckets: Vec<(f64, u64)> = BUCKETS_US
            .iter()
            .map(|us| (*us as f64 / 1e6, 0))
            .chain([(f64::INFINITY, 0)])
            .collect();
        for recorded in self.histogram.iter_recorded() {
            let place = BUCKETS_US.partition_point(|us| *us < recorded.value_iterated_to());
            buckets[place].1 += recorded.count_at_value();
        }
        buckets
    }
}

/// Copies of payload beyond the one that a produced byte needs, and that one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// From request to journal: one for each produced byte.
    pub produce_bytes: u64,
    /// Heads of frames that straddle receive buffers.
    pub straddling_bytes: u64,
    /// Waiting frames that were copied out because receive buffers ran short.
    pub provided_bytes: u64,
    /// Blocks that were assembled for segments.
    pub write_back_bytes: u64,
    /// Answers that were copied out because their reader stalled.
    pub stalled_bytes: u64,
}

/// Memory of a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryGauges {
    /// What it may hold.
    pub budget_bytes: u64,
    /// Requests, received or being received.
    pub frames_bytes: u64,
    /// Log data that is not yet in its segments.
    pub dirty_bytes: u64,
    /// Log data that is kept for consumers only.
    pub clean_bytes: u64,
    /// What was read from disk for consumers, or ahead of them.
    pub windows_bytes: u64,
}

/// What the store of a core has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreTotals {
    /// Journal writes.
    pub journal_writes: u64,
    /// Bytes of journal writes, headers and padding included.
    pub journal_bytes: u64,
    /// Writes of batches straight to their segments.
    pub straight_writes: u64,
    /// Bytes of those.
    pub straight_bytes: u64,
    /// Reads from disk.
    pub disk_reads: u64,
    /// Those of them that were begun ahead of their reader.
    pub disk_reads_ahead: u64,
    /// Bytes read from disk for consumers.
    pub disk_read_bytes: u64,
    /// Memory of what was read ahead and dropped before anybody asked for it, in bytes.
    pub read_ahead_unused_bytes: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Segments deleted.
    pub segments_deleted: u64,
    /// Compactions finished.
    pub compactions: u64,
    /// Partitions there are.
    pub partitions: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct TopicTotals {
    received_bytes: u64,
    received_records: u64,
    sent_bytes: u64,
}

/// The highest API key that is counted by itself.
const API_KEYS: usize = 96;

/// The highest kind of native frame, below the answers, that is counted by itself.
const NATIVE_KINDS: usize = 16;

/// The counters of one core.
#[derive(Clone, Debug)]
pub struct ShardMetrics {
    core: CoreId,
    /// Connections that were accepted.
    pub connections_accepted: u64,
    /// Connections that are open.
    pub connections_open: u64,
    /// Bytes of requests, sizes included.
    pub received_bytes: u64,
    /// Bytes of answers, sizes included.
    pub sent_bytes: u64,
    /// Requests that closed their connection because they could not be read.
    pub malformed_requests: u64,
    /// Payload that was copied.
    pub copies: Copies,
    /// What is held.
    pub memory: MemoryGauges,
    /// What the store did.
    pub store: StoreTotals,
    requests: [u64; API_KEYS],
    native_requests: [u64; NATIVE_KINDS],
    errors: BTreeMap<(i16, i16), u64>,
    topics: OwnMap<TopicId, TopicTotals>,
    /// By name, in what goes to the control thread.
    named: HashMap<String, TopicTotals>,
    produce: [Latency; 4],
    fetch: [Latency; 4],
}

impl ShardMetrics {
    /// Counters at zero.
    pub fn new(core: CoreId) -> Self {
        ShardMetrics {
            core,
            connections_accepted: 0,
            connections_open: 0,
            received_bytes: 0,
            sent_bytes: 0,
            malformed_requests: 0,
            copies: Copies::default(),
            memory: MemoryGauges::default(),
            store: StoreTotals::default(),
            requests: [0; API_KEYS],
            native_requests: [0; NATIVE_KINDS],
            errors: BTreeMap::new(),
            topics: OwnMap::default(),
            named: HashMap::new(),
            produce: std::array::from_fn(|_| Latency::new()),
            fetch: std::array::from_fn(|_| Latency::new()),
        }
    }

    /// A request is about to be handled.
    pub fn on_request(&mut self, api: ApiKey) {
        if let Some(count) = usize::try_from(api as i16)
            .ok()
            .and_then(|at| self.requests.get_mut(at))
        {
            *count += 1;
        }
    }

    /// A native frame is about to be handled.
    pub fn on_native_request(&mut self, kind: net::native::Kind) {
        if let Some(count) = self.native_requests.get_mut(usize::from(kind as u8)) {
            *count += 1;
        }
    }

    /// A request, or a part of one, was answered with an error.
    pub fn on_error(&mut self, api: ApiKey, error: ErrorCode) {
        if error != ErrorCode::None {
            *self.errors.entry((api as i16, error as i16)).or_default() += 1;
        }
    }

    /// A batch was appended.
    pub fn on_appended(&mut self, topic: TopicId, bytes: usize, record_count: i32) {
        let totals = self.topics.entry(topic).or_default();
        totals.received_bytes += bytes as u64;
        totals.received_records += u64::try_from(record_count).unwrap_or(0);
        self.copies.produce_bytes += bytes as u64;
    }

    /// Data of a topic goes into an answer.
    pub fn on_fetched(&mut self, topic: TopicId, bytes: usize) {
        if bytes > 0 {
            self.topics.entry(topic).or_default().sent_bytes += bytes as u64;
        }
    }

    /// A topic is gone.
    pub fn forget_topic(&mut self, topic: TopicId) {
        self.topics.remove(&topic);
    }

    /// A Produce spent this long in a stage.
    pub fn on_produce_stage(&mut self, stage: Stage, us: u64) {
        self.produce[stage as usize].record(us);
    }

    /// A Fetch spent this long in a stage.
    pub fn on_fetch_stage(&mut self, stage: Stage, us: u64) {
        self.fetch[stage as usize].record(us);
    }

    /// A copy for the control thread; `name_of` tells the names of topics that are still there.
    pub fn snapshot<'a>(&self, name_of: impl Fn(TopicId) -> Option<&'a str>) -> ShardMetrics {
        let mut copy = self.clone();
        for (id, totals) in copy.topics.drain() {
            if let Some(name) = name_of(id) {
                copy.named.insert(name.to_owned(), totals);
            }
        }
        copy
    }
}

/// What the control thread itself knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerGauges {
    /// Log directories that are offline.
    pub log_dirs_offline: u64,
    /// When the process started, in seconds since 1970.
    pub start_time_seconds: u64,
}

/// The metrics of all cores in the text format of OpenMetrics, which Prometheus reads.
pub fn encode(cores: Vec<ShardMetrics>, broker: BrokerGauges) -> String {
    let mut registry = Registry::with_prefix("millrace");
    registry.register_collector(Box::new(Snapshot { cores, broker }));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .expect("writing to a string does not fail");
    text
}

#[derive(Debug)]
struct Snapshot {
    cores: Vec<ShardMetrics>,
    broker: BrokerGauges,
}

fn counter(
    encoder: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    value: u64,
) -> fmt::Result {
    encoder
        .encode_family(labels)?
        .encode_counter::<NoLabelSet, _, u64>(&value, None)
}

fn gauge(encoder: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
    encoder.encode_family(labels)?.encode_gauge(&value)
}

/// A number that each core has one of: name without prefix and unit, help, unit, and how to get it.
type PerCore = (
    &'static str,
    &'static str,
    Option<Unit>,
    fn(&ShardMetrics) -> u64,
);

const COUNTERS: &[PerCore] = &[
    ("connections_accepted", "Connections accepted", None, |m| {
        m.connections_accepted
    }),
    ("received", "Bytes of requests", Some(Unit::Bytes), |m| {
        m.received_bytes
    }),
    ("sent", "Bytes of answers", Some(Unit::Bytes), |m| {
        m.sent_bytes
    }),
    (
        "malformed_requests",
        "Requests that closed their connection",
        None,
        |m| m.malformed_requests,
    ),
    ("journal_writes", "Journal writes", None, |m| {
        m.store.journal_writes
    }),
    (
        "journal_written",
        "Bytes of journal writes",
        Some(Unit::Bytes),
        |m| m.store.journal_bytes,
    ),
    (
        "straight_writes",
        "Writes of batches straight to their segments",
        None,
        |m| m.store.straight_writes,
    ),
    (
        "straight_written",
        "Bytes written straight to segments",
        Some(Unit::Bytes),
        |m| m.store.straight_bytes,
    ),
    ("disk_reads", "Reads from disk", None, |m| {
        m.store.disk_reads
    }),
    (
        "disk_read",
        "Bytes read from disk",
        Some(Unit::Bytes),
        |m| m.store.disk_read_bytes,
    ),
    (
        "disk_reads_ahead",
        "Reads from disk that were begun ahead of their reader",
        None,
        |m| m.store.disk_reads_ahead,
    ),
    (
        "read_ahead_unused",
        "Memory of what was read ahead and dropped before anybody asked for it",
        Some(Unit::Bytes),
        |m| m.store.read_ahead_unused_bytes,
    ),
    ("checkpoints", "Checkpoints written", None, |m| {
        m.store.checkpoints
    }),
    ("segments_deleted", "Segments deleted", None, |m| {
        m.store.segments_deleted
    }),
    ("compactions", "Compactions finished", None, |m| {
        m.store.compactions
    }),
];

const GAUGES: &[PerCore] = &[
    ("connections", "Open connections", None, |m| {
        m.connections_open
    }),
    ("partitions", "Partitions", None, |m| m.store.partitions),
    (
        "memory_budget",
        "Memory that buffers may take",
        Some(Unit::Bytes),
        |m| m.memory.budget_bytes,
    ),
];

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let names: Vec<String> = self.cores.iter().map(|m| m.core.to_string()).collect();
        let cores = || self.cores.iter().zip(names.iter().map(String::as_str));
        for (name, help, unit, value) in COUNTERS {
            let mut metric =
                encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
            for (core, label) in cores() {
                counter(&mut metric, &[("core", label)], value(core))?;
            }
        }
        for (name, help, unit, value) in GAUGES {
            let mut metric =
                encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            for (core, label) in cores() {
                gauge(&mut metric, &[("core", label)], value(core))?;
            }
        }
        let mut metric = encoder.encode_descriptor(
            "memory_held",
            "Memory that buffers take",
            Some(&Unit::Bytes),
            MetricType::Gauge,
        )?;
        for (core, label) in cores() {
            let held = &core.memory;
            for (kind, bytes) in [
                ("frames", held.frames_bytes),
                ("dirty", held.dirty_bytes),
                ("clean", held.clean_bytes),
                ("read", held.windows_bytes),
            ] {
                gauge(&mut metric, &[("core", label), ("kind", kind)], bytes)?;
            }
        }
        let mut metric = encoder.encode_descriptor(
            "copied",
            "Payload copied: produce is the one copy that each produced byte needs",
            Some(&Unit::Bytes),
            MetricType::Counter,
        )?;
        for (core, label) in cores() {
            let copies = &core.copies;
            for (kind, bytes) in [
                ("produce", copies.produce_bytes),
                ("straddling", copies.straddling_bytes),
                ("provided", copies.provided_bytes),
                ("write_back", copies.write_back_bytes),
                ("stalled", copies.stalled_bytes),
            ] {
                counter(&mut metric, &[("core", label), ("kind", kind)], bytes)?;
            }
        }
        let mut metric =
            encoder.encode_descriptor("requests", "Requests by API", None, MetricType::Counter)?;
        for (core, label) in cores() {
            for (key, count) in core
                .requests
                .iter()
                .enumerate()
                .filter(|(_, count)| **count > 0)
            {
                counter(
                    &mut metric,
                    &[("core", label), ("api", &api_name(key as i16))],
                    *count,
                )?;
            }
        }
        let mut metric = encoder.encode_descriptor(
            "native_requests",
            "Requests of the native protocol, by kind",
            None,
            MetricType::Counter,
        )?;
        for (core, label) in cores() {
            for kind in net::native::Kind::ALL {
                if let Some(count) = core.native_requests.get(usize::from(*kind as u8))
                    && *count > 0
                {
                    counter(
                        &mut metric,
                        &[("core", label), ("kind", kind.name())],
                        *count,
                    )?;
                }
            }
        }
        let mut metric = encoder.encode_descriptor(
            "errors",
            "Errors answered, by API and error",
            None,
            MetricType::Counter,
        )?;
        for (core, label) in cores() {
            for ((api, code), count) in &core.errors {
                let error = ErrorCode::from_code(*code).map_or("UNKNOWN", ErrorCode::name);
                let labels = [("core", label), ("api", &api_name(*api)), ("error", error)];
                counter(&mut metric, &labels, *count)?;
            }
        }
        self.encode_topics(&mut encoder)?;
        self.encode_latencies(&mut encoder)?;
        let mut metric = encoder.encode_descriptor(
            "log_dirs_offline",
            "Log directories that are offline",
            None,
            MetricType::Gauge,
        )?;
        metric.encode_gauge(&self.broker.log_dirs_offline)?;
        let mut metric = encoder.encode_descriptor(
            "start_time",
            "When the process started, since 1970",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        metric.encode_gauge(&self.broker.start_time_seconds)
    }
}

impl Snapshot {
    fn encode_topics(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut topics: BTreeMap<&str, TopicTotals> = BTreeMap::new();
        for (name, totals) in self.cores.iter().flat_map(|core| &core.named) {
            let sum = topics.entry(name).or_default();
            sum.received_bytes += totals.received_bytes;
            sum.received_records += totals.received_records;
            sum.sent_bytes += totals.sent_bytes;
        }
        type PerTopic = (
            &'static str,
            &'static str,
            Option<Unit>,
            fn(&TopicTotals) -> u64,
        );
        let kinds: [PerTopic; 3] = [
            (
                "topic_received",
                "Bytes appended, by topic",
                Some(Unit::Bytes),
                |t| t.received_bytes,
            ),
            (
                "topic_received_records",
                "Records appended, by topic",
                None,
                |t| t.received_records,
            ),
            (
                "topic_sent",
                "Bytes answered to fetches, by topic",
                Some(Unit::Bytes),
                |t| t.sent_bytes,
            ),
        ];
        for (name, help, unit, value) in kinds {
            let mut metric =
                encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
            for (topic, totals) in &topics {
                counter(&mut metric, &[("topic", *topic)], value(totals))?;
            }
        }
        Ok(())
    }

    fn encode_latencies(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type PerApi = (
            &'static str,
            &'static str,
            fn(&ShardMetrics) -> &[Latency; 4],
        );
        let kinds: [PerApi; 2] = [
            (
                "produce_stage_duration",
                "Time of Produce requests, by stage",
                |m| &m.produce,
            ),
            (
                "fetch_stage_duration",
                "Time of Fetch requests, by stage",
                |m| &m.fetch,
            ),
        ];
        for (name, help, latencies) in kinds {
            let mut metric = encoder.encode_descriptor(
                name,
                help,
                Some(&Unit::Seconds),
                MetricType::Histogram,
            )?;
            for core in &self.cores {
                let label = core.core.to_string();
                for (stage, latency) in Stage::ALL.into_iter().zip(latencies(core)) {
                    metric
                        .encode_family(&[("core", label.as_str()), ("stage", stage.name())])?
                        .encode_histogram::<NoLabelSet>(
                            latency.sum_us as f64 / 1e6,
                            latency.histogram.len(),
                            &latency.buckets(),
                            None,
                        )?;
                }
            }
        }
        Ok(())
    }
}

fn api_name(key: i16) -> String {
    ApiKey::try_from(key).map_or_else(|_| key.to_string(), |api| format!("{api:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_cores() -> Vec<ShardMetrics> {
        let mut first = ShardMetrics::new(CoreId(0));
        let mut second = ShardMetrics::new(CoreId(1));
        first.on_native_request(net::native::Kind::Produce);
        first.on_request(ApiKey::Produce);
        first.on_request(ApiKey::Produce);
        second.on_request(ApiKey::Fetch);
        second.on_error(ApiKey::Fetch, ErrorCode::OffsetOutOfRange);
        second.on_error(ApiKey::Fetch, ErrorCode::None);
        first.received_bytes = 77;
        let (topic, gone) = (TopicId::from_u128(5), TopicId::from_u128(6));
        first.on_appended(topic, 100, 3);
        second.on_appended(topic, 10, 1);
        second.on_appended(gone, 10, 1);
        second.forget_topic(gone);
        second.on_fetched(topic, 40);
        second.on_fetched(gone, 40);
        for us in [40, 50, 51, 1_000_000, 900_000_000] {
            first.on_produce_stage(Stage::Flush, us);
        }
        let name_of = |id| (id == topic).then_some("t");
        vec![first.snapshot(name_of), second.snapshot(name_of)]
    }

    #[test]
    fn names_units_and_sums() {
        let broker = BrokerGauges {
            log_dirs_offline: 1,
            start_time_seconds: 5,
        };
        let text = encode(two_cores(), broker);
        for line in [
            "# TYPE millrace_requests counter",
            "millrace_requests_total{core=\"0\",api=\"Produce\"} 2",
            "millrace_requests_total{core=\"1\",api=\"Fetch\"} 1",
            "millrace_errors_total{core=\"1\",api=\"Fetch\",error=\"OFFSET_OUT_OF_RANGE\"} 1",
            "millrace_native_requests_total{core=\"0\",kind=\"Produce\"} 1",
            "# UNIT millrace_received_bytes bytes",
            "millrace_received_bytes_total{core=\"0\"} 77",
            "millrace_topic_received_bytes_total{topic=\"t\"} 110",
            "millrace_topic_received_records_total{topic=\"t\"} 4",
            "millrace_topic_sent_bytes_total{topic=\"t\"} 40",
            "millrace_copied_bytes_total{core=\"0\",kind=\"produce\"} 100",
            "millrace_memory_held_bytes{core=\"1\",kind=\"dirty\"} 0",
            "millrace_log_dirs_offline 1",
            "millrace_start_time_seconds 5",
            "# TYPE millrace_produce_stage_duration_seconds histogram",
            "millrace_produce_stage_duration_seconds_count{core=\"0\",stage=\"flush\"} 5",
        ] {
            assert!(
                text.lines().any(|told| told == line),
                "{line:?} is not in:\n{text}"
            );
        }
        assert!(!text.contains("topic=\"gone\""));
        assert!(!text.contains("error=\"NONE\""));
    }

    #[test]
    fn times_fall_into_their_buckets() {
        let cores = two_cores();
        let buckets = cores[0].produce[Stage::Flush as usize].buckets();
        assert_eq!(buckets[0], (0.00005, 2), "a bound belongs to its bucket");
        assert_eq!(buckets[1], (0.0001, 1));
        let total: u64 = buckets.iter().map(|(_, count)| count).sum();
        assert_eq!(total, 5);
        let text = encode(cores, BrokerGauges::default());
        let labels = "core=\"0\",stage=\"flush\"";
        let name = "millrace_produce_stage_duration_seconds_bucket";
        assert!(
            text.contains(&format!("{name}{{le=\"0.0001\",{labels}}} 3")),
            "{text}"
        );
        assert!(
            text.contains(&format!("{name}{{le=\"+Inf\",{labels}}} 5")),
            "{text}"
        );
    }
}
