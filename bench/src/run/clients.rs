//! The producers and consumers of a run. Each sender, each consumer and each client's own polling has a thread; they count into windows that the caller takes once a second. Knows librdkafka, and no phase.

mod consumer;
mod sender;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hdrhistogram::Histogram;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use crate::context::Quiet;
use crate::hdr_files::Interval;
use crate::payload::Random;
use crate::recorder::{self, Pair, Stamp};
use crate::results::{Percentiles, Second, Since, Totals};
use crate::run::shared::Shared;
use crate::workload::Workload;
use crate::{Failure, clock, environment};

/// More senders than this take turns on a thread.
const SENDER_THREADS_MAX: u64 = 16;

/// What was counted in some stretch of time.
#[derive(Debug, Default)]
pub struct Window {
    /// Records given to a client.
    pub sent: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Their bytes.
    pub acknowledged_bytes: u64,
    /// Records refused or given up.
    pub failed: u64,
    /// The first refusal.
    pub failure: Option<String>,
    /// Records consumed.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// How often a client had no room for a record.
    pub queue_full: u64,
    /// How long senders waited for room, in nanoseconds.
    pub queue_full_ns: u64,
    /// Until acknowledged.
    pub publish: Pair,
    /// Until consumed.
    pub end_to_end: Pair,
    /// From the intended to the actual send time.
    pub lag: Lag,
}

/// A histogram that begins empty.
#[derive(Debug)]
pub struct Lag(pub Histogram<u64>);

impl Default for Lag {
    fn default() -> Lag {
        Lag(recorder::histogram())
    }
}

impl std::ops::Deref for Lag {
    type Target = Histogram<u64>;

    fn deref(&self) -> &Histogram<u64> {
        &self.0
    }
}

impl Window {
    /// Adds another's counts.
    pub fn add(&mut self, other: &Window) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.acknowledged_bytes += other.acknowledged_bytes;
        self.failed += other.failed;
        if self.failure.is_none() {
            self.failure.clone_from(&other.failure);
        }
        self.received += other.received;
        self.received_bytes += other.received_bytes;
        self.queue_full += other.queue_full;
        self.queue_full_ns += other.queue_full_ns;
        self.publish.add(&other.publish);
        self.end_to_end.add(&other.end_to_end);
        self.lag.0.add(&other.lag.0).expect("the histogram grows");
    }

    /// The row of a second, without its times.
    pub fn second(&self) -> Second {
        let percentiles = |histogram: &Histogram<u64>| {
            (!histogram.is_empty()).then(|| Percentiles::of(histogram, 1))
        };
        Second {
            sent: self.sent,
            acknowledged: self.acknowledged,
            acknowledged_bytes: self.acknowledged_bytes,
            failed: self.failed,
            received: self.received,
            received_bytes: self.received_bytes,
            publish_us: percentiles(&self.publish.intended),
            end_to_end_us: percentiles(&self.end_to_end.intended),
            ..Second::default()
        }
    }

    /// Its histograms, as lines of interval logs.
    pub fn intervals(&self, start_ns: u64, length_s: f64) -> Vec<Interval> {
        [
            ("publish", Since::Intended, &self.publish.intended),
            ("publish", Since::Sent, &self.publish.sent),
            ("end_to_end", Since::Intended, &self.end_to_end.intended),
            ("end_to_end", Since::Sent, &self.end_to_end.sent),
        ]
        .into_iter()
        .filter(|(_, _, histogram)| !histogram.is_empty())
        .map(|(kind, since, histogram)| Interval::new(kind, since, start_ns, length_s, histogram))
        .collect()
    }
}

/// A place where one thread counts and another takes.
#[derive(Debug, Default)]
struct Counter(Mutex<Window>);

impl Counter {
    fn with(&self, count: impl FnOnce(&mut Window)) {
        count(&mut self.0.lock().expect("no holder panics"));
    }

    fn take(&self) -> Window {
        std::mem::take(&mut *self.0.lock().expect("no holder panics"))
    }
}

/// What librdkafka tells a producer.
struct Context {
    shared: Arc<Shared>,
    counter: Arc<Counter>,
    quiet: Quiet,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.quiet.line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.quiet.error(error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Stamp>;

    fn delivery(&self, result: &DeliveryResult<'_>, stamp: Box<Stamp>) {
        let now_ns = self.shared.now_ns();
        if *stamp == Stamp::PROBE {
            if let Err((error, _)) = result {
                self.shared
                    .fail(format!("a first record was not acknowledged: {error}"));
            }
            return;
        }
        self.counter.with(|window| match result {
            Ok(message) => {
                window.acknowledged += 1;
                window.acknowledged_bytes += (message.key_len() + message.payload_len()) as u64;
                if self.shared.is_measured(stamp.intended_ns) {
                    window.publish.record(*stamp, now_ns);
                }
            }
            Err((error, _)) => {
                window.failed += 1;
                window.failure.get_or_insert_with(|| error.to_string());
            }
        });
    }
}

/// A producer of one topic. Its own thread polls it.
struct Sink {
    topic: String,
    producer: ThreadedProducer<Context>,
}

/// All clients of a run.
pub struct Clients {
    sinks: Vec<Arc<Sink>>,
    counters: Vec<Arc<Counter>>,
    senders: Mutex<Vec<JoinHandle<u64>>>,
    consumers: Mutex<Vec<JoinHandle<()>>>,
    senders_left: Arc<AtomicU64>,
    give_up: Arc<AtomicBool>,
}

impl Clients {
    /// Starts consumers and producers; senders wait until the way is open.
    pub fn start(
        workload: &Workload,
        topics: &[String],
        producer: &ClientConfig,
        consumer: &ClientConfig,
        shared: &Arc<Shared>,
    ) -> Result<Clients, Failure> {
        let mut counters = Vec::new();
        let mut consumers = Vec::new();
        let mut random = Random::new(clock::wall_ms() as u64);
        for topic in topics {
            for subscription in 0..workload.subscriptions_per_topic {
                let mut word = [0; 7];
                random.letters(&mut word);
                let group = format!(
                    "sub-{subscription:03}-{}",
                    String::from_utf8_lossy(&word).to_lowercase()
                );
                for _ in 0..workload.consumers_per_subscription {
                    let mut config = consumer.clone();
                    config.set("group.id", &group);
                    let counter = Arc::new(Counter::default());
                    counters.push(Arc::clone(&counter));
                    consumers.push(consumer::start(
                        &config,
                        topic,
                        counter,
                        Arc::clone(shared),
                    )?);
                }
            }
        }
        let mut sinks = Vec::new();
        for _ in 0..workload.producers_per_topic {
            for topic in topics {
                let counter = Arc::new(Counter::default());
                counters.push(Arc::clone(&counter));
                let context = Context {
                    shared: Arc::clone(shared),
                    counter,
                    quiet: Quiet::default(),
                };
                sinks.push(Arc::new(Sink {
                    topic: topic.clone(),
                    producer: producer.create_with_context(context)?,
                }));
            }
        }
        let values = Arc::new(sender::values(workload)?);
        let keys = Arc::new(sender::keys(workload));
        let count = (sinks.len() as u64).min(SENDER_THREADS_MAX);
        let senders_left = Arc::new(AtomicU64::new(count));
        let give_up = Arc::new(AtomicBool::new(false));
        let mut senders = Vec::new();
        for index in 0..count {
            let counter = Arc::new(Counter::default());
            counters.push(Arc::clone(&counter));
            let own: Vec<Arc<Sink>> = sinks
                .iter()
                .skip(index as usize)
                .step_by(count as usize)
                .map(Arc::clone)
                .collect();
            let sender = sender::Sender {
                index,
                count,
                sinks: own,
                rate: workload.rate,
                distributor: workload.key_distributor,
                values: Arc::clone(&values),
                keys: Arc::clone(&keys),
                shared: Arc::clone(shared),
                counter,
                give_up: Arc::clone(&give_up),
                left: Arc::clone(&senders_left),
            };
            senders.push(
                std::thread::Builder::new()
                    .name(format!("sender-{index}"))
                    .spawn(move || sender.run())?,
            );
        }
        Ok(Clients {
            sinks,
            counters,
            senders: Mutex::new(senders),
            consumers: Mutex::new(consumers),
            senders_left,
            give_up,
        })
    }

    /// Sends a first record to every partition and waits until all are acknowledged.
    pub fn probe(&self, partitions: u32, patience: Duration) -> Result<(), Failure> {
        let mut done = std::collections::BTreeSet::new();
        for sink in &self.sinks {
            if !done.insert(&sink.topic) {
                // Every producer opens its connections, not only a topic's first.
                self.probe_one(sink, None)?;
                continue;
            }
            for partition in 0..partitions {
                self.probe_one(sink, Some(partition as i32))?;
            }
        }
        for sink in &self.sinks {
            sink.producer.flush(patience).map_err(|error| {
                Failure(format!("the first records were not acknowledged: {error}"))
            })?;
        }
        Ok(())
    }

    fn probe_one(&self, sink: &Sink, partition: Option<i32>) -> Result<(), Failure> {
        let mut value = [0; Stamp::BYTES];
        Stamp::PROBE.write(&mut value);
        let Some(partition) = partition else {
            // Metadata is enough: a record more would be one too many for the consumers to count.
            sink.producer
                .client()
                .fetch_metadata(Some(&sink.topic), Duration::from_secs(10))?;
            return Ok(());
        };
        let record: BaseRecord<'_, [u8], [u8], Box<Stamp>> =
            BaseRecord::with_opaque_to(&sink.topic, Box::new(Stamp::PROBE))
                .payload(&value[..])
                .partition(partition);
        sink.producer.send(record).map_err(|(error, _)| error)?;
        Ok(())
    }

    /// What all threads counted since the last time.
    pub fn take(&self) -> Window {
        let mut all = Window::default();
        for counter in &self.counters {
            all.add(&counter.take());
        }
        all
    }

    /// Whether the whole schedule was sent.
    pub fn senders_done(&self) -> bool {
        self.senders_left.load(Ordering::Acquire) == 0
    }

    /// Records that the clients hold.
    pub fn in_flight(&self) -> u64 {
        self.sinks
            .iter()
            .map(|sink| sink.producer.in_flight_count().max(0) as u64)
            .sum()
    }

    /// Ends the senders; tells how many records of their schedules they did not send.
    pub fn give_up(&self) -> u64 {
        self.give_up.store(true, Ordering::Release);
        let senders = std::mem::take(&mut *self.senders.lock().expect("no holder panics"));
        senders
            .into_iter()
            .map(|sender| sender.join().unwrap_or(0))
            .sum()
    }

    /// Waits for all threads; the shared state says stop.
    pub fn join(&self) {
        self.give_up();
        let consumers = std::mem::take(&mut *self.consumers.lock().expect("no holder panics"));
        for consumer in consumers {
            // A thread that panicked has said so.
            let _ = consumer.join();
        }
    }
}

/// What a reader must know about the generator itself.
pub fn remarks(
    workload: &Workload,
    total: &Window,
    totals: &Totals,
    elapsed_s: f64,
    remarks: &mut Vec<String>,
) {
    if workload.rate == 0.0 {
        remarks.push(
            "There was no schedule (producerRate 0): the intended send time is when a record was first offered to the client, so that waiting for room in its queue counts. Latency at full speed tells how long the queue is; compare it at a fixed rate."
                .to_owned(),
        );
    } else {
        let reached = totals.records_per_s / workload.rate;
        if reached < 0.99 {
            remarks.push(format!(
                "The rate was not reached: {:.0} of {:.0} records/s ({:.1} %) were acknowledged.",
                totals.records_per_s,
                workload.rate,
                reached * 100.0
            ));
        }
        let lag = Percentiles::of(&total.lag, 1);
        remarks.push(format!(
            "The generator sent behind its schedule by {} at p50, {} at p99, {} at most; the corrected latencies contain that.",
            super::progress::milliseconds(lag.p50),
            super::progress::milliseconds(lag.p99),
            super::progress::milliseconds(lag.max)
        ));
    }
    if total.queue_full > 0 && workload.rate > 0.0 {
        remarks.push(format!(
            "A client's queue was full {} times, for {:.2} s of all senders' time together: records waited before they could be sent.",
            total.queue_full,
            total.queue_full_ns as f64 / 1e9
        ));
    }
    if total.failed > 0 {
        remarks.push(format!(
            "{} records failed; the first with: {}",
            total.failed,
            total.failure.as_deref().unwrap_or("unknown")
        ));
    }
    let cores = environment::cores() as f64;
    let share = totals.client_cpu_s / elapsed_s.max(1e-9);
    remarks.push(format!(
        "The generator used {share:.2} of {cores:.0} cores{}.",
        if share > 0.9 * cores {
            ": it was the bottleneck, not the broker"
        } else if share > 0.6 * cores {
            ": it took processor time that a broker on the same machine lacked"
        } else {
            ""
        }
    ));
    if workload.consumers() > 0 && workload.message_bytes < Stamp::BYTES {
        remarks.push(format!(
            "Values of {} bytes have no room for a time of send: end-to-end latency is from the record's timestamp, in whole milliseconds.",
            workload.message_bytes
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(more: &str) -> Workload {
        let text = format!(
            "topics: 1\npartitionsPerTopic: 1\nmessageSize: 8\nproducersPerTopic: 1\ntestDurationMinutes: 1\n{more}"
        );
        Workload::parse(&text, &[], "w").unwrap()
    }

    #[test]
    fn what_the_generator_did_not_keep_up_with_is_said() {
        let mut total = Window::default();
        recorder::record(&mut total.lag.0, 7_000_000);
        total.queue_full = 3;
        total.queue_full_ns = 500_000_000;
        total.failed = 2;
        total.failure = Some("MessageTimedOut".to_owned());
        let totals = Totals {
            records_per_s: 500.0,
            client_cpu_s: 1000.0,
            ..Totals::default()
        };
        let mut said = Vec::new();
        remarks(
            &workload("producerRate: 1000\nsubscriptionsPerTopic: 1\n"),
            &total,
            &totals,
            10.0,
            &mut said,
        );
        let said = said.join("\n");
        for expected in [
            "500 of 1000 records/s (50.0 %)",
            "behind its schedule by 7.0",
            "full 3 times, for 0.50 s",
            "2 records failed; the first with: MessageTimedOut",
            "it was the bottleneck",
            "whole milliseconds",
        ] {
            assert!(said.contains(expected), "{expected} is missing in:\n{said}");
        }
        let mut said = Vec::new();
        remarks(&workload(""), &Window::default(), &totals, 10.0, &mut said);
        assert!(said[0].starts_with("There was no schedule"));
    }

    #[test]
    fn windows_are_merged_as_histograms() {
        let stamp = Stamp {
            intended_ns: 0,
            sent_ns: 0,
        };
        let (mut one, mut other) = (Window::default(), Window::default());
        for ms in 1..=99_u64 {
            one.publish.record(stamp, ms * 1_000_000);
        }
        other.publish.record(stamp, 1_000_000_000);
        one.add(&other);
        let second = one.second();
        // The hundredth value of a hundred is the other's: a mean of percentiles would say 549 ms at p50.
        let us = second.publish_us.unwrap();
        assert!((us.p50 - 50_000.0).abs() < 100.0, "{us:?}");
        assert!((us.max - 1_000_000.0).abs() < 1000.0, "{us:?}");
        assert!(second.end_to_end_us.is_none());
        assert_eq!(one.intervals(0, 1.0).len(), 2);
    }
}
