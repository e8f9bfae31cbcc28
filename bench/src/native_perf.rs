//! The perf tools over the native protocol, with the Rust client: what is named by `native://HOST:PORT` or `unix:/PATH`. The calling thread does everything; knows no option's name, and no group: a reader has all partitions.

use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, Instant};

use client::blocking::{BlockingConsumer, BlockingProducer, Client};
use client::stream::{UNIX_SCHEME, unix_path};
use client::{Acknowledged, Error, Greeting, ProducerConfig, TopicId, Window};
use hdrhistogram::Histogram;
use storage::batch::Compression;
use storage::records::RecordsScratch;

use crate::consumer_perf::{self, Source};
use crate::kafka_config::Properties;
use crate::payload::{Random, Source as Values};
use crate::report::{self, Stats};
use crate::throttle::Throttle;
use crate::{Failure, clock, context, e2e_latency, producer_perf};

/// What stands before the address of a native listener.
pub const SCHEME: &str = "native://";

/// The property by which a native client asks the broker's core to look for work before it sleeps.
const IDLE_POLL: &str = "idle.poll.enable";

/// Failures of batches that are printed; the rest are counted.
const FAILURES_SHOWN: u64 = 10;
/// The end of a partition, and its beginning, as `Offsets` is asked for them.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure(error.to_string())
    }
}

/// The address of the native listener, if the bootstrap servers name one; a Unix socket keeps its scheme, by
/// which the client knows it.
pub fn address(properties: &Properties) -> Option<&str> {
    let servers = properties.get("bootstrap.servers")?.trim();
    servers
        .strip_prefix(SCHEME)
        .or_else(|| unix_path(servers).map(|_| servers))
}

fn connect(properties: &Properties) -> Result<Client, Failure> {
    let address = address(properties).ok_or_else(|| {
        Failure(format!(
            "bootstrap.servers must begin with {SCHEME} or {UNIX_SCHEME}"
        ))
    })?;
    let name = properties.get("client.id").map_or("perf", String::as_str);
    let greeting = Greeting {
        idle_poll: match properties.get(IDLE_POLL) {
            Some(value) => value.trim().parse().map_err(|_| {
                Failure(format!(
                    "Invalid value {value} for configuration {IDLE_POLL}"
                ))
            })?,
            None => false,
        },
        ..Greeting::from(name)
    };
    Client::connect(address, greeting).map_err(|error| Failure(format!("{address}: {error}")))
}

/// A producer with Java's defaults, changed by these properties; those without a counterpart are told.
///
/// # Errors
/// A value that is not valid, with its property.
pub fn producer_config(properties: &Properties) -> Result<ProducerConfig, Failure> {
    let mut config = ProducerConfig {
        linger_us: 5_000,
        batch_bytes: 16_384,
        ..ProducerConfig::default()
    };
    for (name, value) in properties {
        let value = value.trim();
        let invalid = || Failure(format!("Invalid value {value} for configuration {name}"));
        let number = || value.parse::<u64>().map_err(|_| invalid());
        match name.as_str() {
            "acks" => {
                config.acks = match value {
                    "all" | "-1" => Acknowledged::ByAll,
                    "1" => Acknowledged::ByLeader,
                    "0" => Acknowledged::Never,
                    _ => return Err(invalid()),
                }
            }
            "enable.idempotence" => config.idempotent = value.parse().map_err(|_| invalid())?,
            "linger.ms" => config.linger_us = number()?.saturating_mul(1000),
            "batch.size" => config.batch_bytes = number()? as usize,
            "buffer.memory" => config.buffer_bytes = number()? as usize,
            "max.in.flight.requests.per.connection" => config.in_flight_max = number()? as usize,
            "retry.backoff.ms" => config.retry_us = number()?.saturating_mul(1000),
            "delivery.timeout.ms" => config.delivery_timeout_us = number()?.saturating_mul(1000),
            "compression.type" => {
                config.compression = match value {
                    "none" => Compression::None,
                    "gzip" => Compression::Gzip,
                    "snappy" => Compression::Snappy,
                    "lz4" => Compression::Lz4,
                    "zstd" => Compression::Zstd,
                    _ => return Err(invalid()),
                }
            }
            "bootstrap.servers" | "client.id" | IDLE_POLL => {}
            "transactional.id" => {
                return Err(Failure(
                    "there are no transactions over the native protocol".to_owned(),
                ));
            }
            _ => context::log_line(
                "WARN",
                &format!("{name} means nothing over the native protocol"),
            ),
        }
    }
    Ok(config)
}

/// A record that has no outcome yet.
struct Sent {
    ns: u64,
    bytes: usize,
    steady: bool,
}

/// A producing run.
struct Run<'a> {
    plan: &'a producer_perf::Plan,
    out: &'a mut dyn Write,
    producer: BlockingProducer,
    start: Instant,
    /// By partition, in the order of sending.
    sent: Vec<VecDeque<Sent>>,
    stats: Stats,
    steady: Option<Stats>,
    failed: u64,
}

/// As [`producer_perf::run`].
///
/// # Errors
/// As there.
pub fn produce(
    properties: &Properties,
    plan: &producer_perf::Plan,
    out: &mut dyn Write,
) -> Result<producer_perf::Summary, Failure> {
    let config = producer_config(properties)?;
    plan.announce_warmup(out)?;
    let mut client = connect(properties)?;
    let topic = client.topic(&plan.topic, true)?;
    let start_ms = clock::wall_ms();
    let mut run = Run {
        plan,
        out,
        producer: client.producer(config),
        start: clock::now(),
        sent: (0..topic.partition_count)
            .map(|_| VecDeque::new())
            .collect(),
        stats: Stats::new(start_ms, plan.interval_ms, false),
        steady: None,
        failed: 0,
    };
    run.send_all(topic.id, start_ms)?;
    while !run.producer.is_idle() {
        run.producer.flush()?;
        run.settle()?;
    }
    run.settle()?;
    let now_ms = clock::wall_ms();
    run.out.write_all(run.stats.total_line(now_ms).as_bytes())?;
    if let Some(steady) = &run.steady {
        run.out.write_all(steady.total_line(now_ms).as_bytes())?;
    }
    run.out.flush()?;
    if run.failed > 0 {
        context::log_line(
            "ERROR",
            &format!("{} records were not acknowledged", run.failed),
        );
    }
    Ok(producer_perf::Summary {
        stats: run.stats,
        steady: run.steady,
        failed: run.failed,
    })
}

impl Run<'_> {
    fn send_all(&mut self, topic_id: TopicId, start_ms: i64) -> Result<(), Failure> {
        let plan = self.plan;
        let mut values = Values::new(plan.payload.clone());
        let mut throttle = Throttle::new(plan.rate, start_ms);
        let (mut partition, mut sealed) = (0, 0);
        for index in 0..plan.records {
            if plan.warmup_records > 0 && index == plan.warmup_records {
                self.steady = Some(Stats::new(clock::wall_ms(), plan.interval_ms, true));
                self.stats.silence();
            }
            // A batch's worth of records goes to one partition, as from Kafka's producer without keys.
            if self.producer.sealed_count() > sealed {
                sealed = self.producer.sealed_count();
                partition = (partition + 1) % self.sent.len();
            }
            let value = values.next(index);
            self.sent[partition].push_back(Sent {
                ns: self.start.elapsed().as_nanos() as u64,
                bytes: value.len(),
                steady: plan.warmup_records > 0 && index >= plan.warmup_records,
            });
            self.producer
                .send(topic_id, partition as i32, None, Some(value))?;
            self.settle()?;
            if plan.rate >= 0.0
                && let Some(pause) = throttle.pause(index, clock::wall_ms())
            {
                self.wait(pause)?;
            }
        }
        Ok(())
    }

    /// Sleeps by taking what comes.
    fn wait(&mut self, pause: Duration) -> Result<(), Failure> {
        let start = clock::now();
        loop {
            let left = pause.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            self.producer.poll(left.min(Duration::from_millis(100)))?;
            self.settle()?;
        }
    }

    /// Counts the records whose batches have an outcome.
    fn settle(&mut self) -> Result<(), Failure> {
        let mut lines = String::new();
        while let Some(outcome) = self.producer.next_outcome() {
            let (now_ns, now_ms) = (self.start.elapsed().as_nanos() as u64, clock::wall_ms());
            let sent = &mut self.sent[outcome.partition as usize];
            for sent in sent.drain(..outcome.count as usize) {
                if outcome.result.is_err() {
                    self.failed += 1;
                    continue;
                }
                let latency_us = now_ns.saturating_sub(sent.ns) / 1000;
                lines.extend(self.stats.record(latency_us, sent.bytes, now_ms));
                if let (Some(steady), true) = (&mut self.steady, sent.steady) {
                    lines.extend(steady.record(latency_us, sent.bytes, now_ms));
                }
            }
            if let Err(code) = outcome.result
                && self.failed <= FAILURES_SHOWN
            {
                context::log_line(
                    "ERROR",
                    &format!(
                        "{} records were not acknowledged: {}",
                        outcome.count,
                        code.message()
                    ),
                );
            }
        }
        if !lines.is_empty() {
            self.out.write_all(lines.as_bytes())?;
            self.out.flush()?;
        }
        Ok(())
    }
}

/// All partitions of some topics.
struct Subscribed {
    consumer: BlockingConsumer,
    scratch: RecordsScratch,
}

impl Source for Subscribed {
    fn poll(&mut self, wait: Duration) -> Result<Option<(u64, u64)>, Failure> {
        let Some(delivery) = self.consumer.next_within(wait)? else {
            return Ok(None);
        };
        let (mut records, mut bytes) = (0, 0);
        for partition in delivery.partitions() {
            for batch in partition?.batches() {
                for record in batch?.records(&mut self.scratch)? {
                    let record = record?;
                    let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len) as u64;
                    records += 1;
                    bytes += length(record.key) + length(record.value);
                }
            }
        }
        Ok((records > 0).then_some((records, bytes)))
    }
}

/// As [`consumer_perf::run`], from all partitions, without a group.
///
/// # Errors
/// As there.
pub fn consume(
    properties: &Properties,
    plan: &consumer_perf::Plan,
    out: &mut dyn Write,
) -> Result<consumer_perf::Summary, Failure> {
    let latest = properties
        .get("auto.offset.reset")
        .is_some_and(|reset| reset == "latest");
    let subscribe = |_| {
        let mut client = connect(properties)?;
        let mut positions = Vec::new();
        for topic in &plan.topics {
            positions.extend(ends(&mut client, topic, latest)?);
        }
        Ok(Subscribed {
            consumer: client.consumer(positions, Window::default())?,
            scratch: RecordsScratch::new(),
        })
    };
    consumer_perf::read_all(plan, subscribe, out).map(|(summary, _)| summary)
}

/// Where the partitions of a topic end, or begin.
fn ends(
    client: &mut Client,
    topic: &str,
    latest: bool,
) -> Result<Vec<(TopicId, i32, i64)>, Failure> {
    let found = client
        .topic(topic, false)
        .map_err(|error| Failure(format!("topic {topic}: {error}")))?;
    let partitions = 0..found.partition_count;
    let at = if latest { LATEST } else { EARLIEST };
    let offsets = client.offsets(found.id, partitions.clone(), at)?;
    Ok(partitions
        .zip(offsets)
        .map(|(partition, offset)| (found.id, partition, offset))
        .collect())
}

/// As [`e2e_latency::run`]; records have no headers here.
///
/// # Errors
/// As there.
pub fn end_to_end(
    properties: &Properties,
    plan: &e2e_latency::Plan,
    out: &mut dyn Write,
) -> Result<Histogram<u64>, Failure> {
    if plan.headers > 0 {
        return Err(Failure(
            "the native client sends records without headers".to_owned(),
        ));
    }
    let mut config = producer_config(properties)?;
    config.linger_us = 0;
    let mut client = connect(properties)?;
    let topic = client.topic(&plan.topic, true)?;
    let positions = ends(&mut client, &plan.topic, true)?;
    let mut consumer = client.consumer(positions, Window::default())?;
    let mut producer = connect(properties)?.producer(config);
    let (mut latencies_us, mut total) = (report::histogram(), Duration::ZERO);
    let (mut random, mut scratch) = (Random::new(0), RecordsScratch::new());
    for index in 0..plan.records {
        let mut letters = |length: usize| vec![b'A' + random.below(26) as u8; length];
        let (key, value) = (letters(plan.key_bytes), letters(plan.value_bytes));
        let begin = clock::now();
        producer.send(topic.id, 0, Some(&key), Some(&value))?;
        producer.flush()?;
        while let Some(outcome) = producer.next_outcome() {
            if let Err(code) = outcome.result {
                return Err(Failure(code.message().to_owned()));
            }
        }
        receive(&mut consumer, &mut scratch, &key, &value)?;
        let elapsed = begin.elapsed();
        if index % 1000 == 0 {
            writeln!(out, "{index}\t{:?}", elapsed.as_micros() as f64 / 1000.0)?;
            out.flush()?;
        }
        total += elapsed;
        latencies_us.saturating_record((elapsed.as_micros() as u64).max(1));
    }
    out.write_all(e2e_latency::summary(&latencies_us, total, plan.records).as_bytes())?;
    out.flush()?;
    Ok(latencies_us)
}

/// Waits for one record, which must be this one.
fn receive(
    consumer: &mut BlockingConsumer,
    scratch: &mut RecordsScratch,
    key: &[u8],
    value: &[u8],
) -> Result<(), Failure> {
    let delivery = consumer.next_within(e2e_latency::TIMEOUT)?.ok_or_else(|| {
        Failure(format!(
            "no record came back within {} ms",
            e2e_latency::TIMEOUT.as_millis()
        ))
    })?;
    let mut count = 0;
    for partition in delivery.partitions() {
        for batch in partition?.batches() {
            for record in batch?.records(scratch)? {
                let record = record?;
                count += 1;
                if (record.key, record.value) != (Some(key), Some(value)) {
                    return Err(Failure(
                        "The message read did not match the message sent".to_owned(),
                    ));
                }
            }
        }
    }
    match count {
        1 => Ok(()),
        _ => Err(Failure(format!("{count} records came back for one"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn only_the_scheme_means_the_native_protocol() {
        let of = |servers| properties(&[("bootstrap.servers", servers)]);
        assert_eq!(address(&of("native://h:9192")), Some("h:9192"));
        for unix in ["unix:/run/native.sock", "native://unix:/run/native.sock"] {
            assert_eq!(address(&of(unix)), Some("unix:/run/native.sock"));
        }
        assert_eq!(address(&of("h:9092,native://h:9192")), None);
        assert_eq!(address(&Properties::new()), None);
    }

    #[test]
    fn javas_properties_are_the_native_producers() {
        let java = producer_config(&Properties::new()).unwrap();
        assert_eq!((java.linger_us, java.batch_bytes), (5_000, 16_384));
        assert_eq!((java.acks, java.idempotent), (Acknowledged::ByAll, true));
        assert_eq!(java.buffer_bytes, 33_554_432);
        let set = producer_config(&properties(&[
            ("acks", "1"),
            ("linger.ms", "0"),
            ("buffer.memory", "1000"),
            ("compression.type", "zstd"),
        ]))
        .unwrap();
        assert_eq!((set.acks, set.linger_us), (Acknowledged::ByLeader, 0));
        assert_eq!(
            (set.buffer_bytes, set.compression),
            (1000, Compression::Zstd)
        );
        for wrong in [("acks", "2"), ("linger.ms", "x"), ("transactional.id", "t")] {
            assert!(producer_config(&properties(&[wrong])).is_err(), "{wrong:?}");
        }
    }
}
