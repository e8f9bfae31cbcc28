//! Sends records as fast as allowed and reports latency. The calling thread sends and polls; librdkafka's threads do the rest. Knows no option's name.

use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use crate::Failure;
use crate::clock;
use crate::context::{self, Quiet};
use crate::payload::{Payload, Source};
use crate::report::Stats;
use crate::throttle::Throttle;

/// Sends between two looks at what was acknowledged.
const SENDS_PER_POLL: u64 = 32;
/// Failures of records that are printed in full; the rest are counted.
const FAILURES_SHOWN: u64 = 10;

/// What to send.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The topic.
    pub topic: String,
    /// How many records.
    pub records: u64,
    /// Their values.
    pub payload: Payload,
    /// Records a second; below zero: no limit.
    pub rate: f64,
    /// Records at the beginning that the steady state does not count.
    pub warmup_records: u64,
    /// Milliseconds between two lines.
    pub interval_ms: i64,
    /// Records go in transactions of about this length.
    pub transaction: Option<Duration>,
    /// Print the client's statistics at the end.
    pub print_metrics: bool,
}

impl Plan {
    /// Says, as Kafka's tool does, that the first records are for warming up.
    pub(crate) fn announce_warmup(&self, out: &mut dyn Write) -> std::io::Result<()> {
        match self.warmup_records {
            0 => Ok(()),
            records => writeln!(
                out,
                "Warmup first {records} records. Steady state results will print after the complete test summary.",
            ),
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Summary {
    /// All records.
    pub stats: Stats,
    /// The records after the warm-up, if there was one.
    pub steady: Option<Stats>,
    /// Records that were not acknowledged.
    pub failed: u64,
}

/// Counters that the delivery callback fills, on the polling thread.
struct Counters {
    stats: Stats,
    steady: Option<Stats>,
    failed: u64,
    lines: String,
}

struct Context {
    start: Instant,
    counters: Mutex<Counters>,
    quiet: Quiet,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.quiet.line(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.quiet.keep(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.quiet.error(error, reason);
    }
}

/// The opaque value of a record: the nanosecond it was sent at, and whether it belongs to the steady state.
const STEADY: usize = 1 << (usize::BITS - 1);

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: usize) {
        let mut counters = self.counters.lock().expect("no holder panics");
        let counters = &mut *counters;
        match result {
            Ok(message) => {
                let elapsed_ns = (clock::now() - self.start).as_nanos() as u64;
                let latency_us = elapsed_ns.saturating_sub((sent & !STEADY) as u64) / 1000;
                let (bytes, now_ms) = (message.payload_len(), clock::wall_ms());
                counters
                    .lines
                    .extend(counters.stats.record(latency_us, bytes, now_ms));
                if let (Some(steady), true) = (&mut counters.steady, sent & STEADY != 0) {
                    counters
                        .lines
                        .extend(steady.record(latency_us, bytes, now_ms));
                }
            }
            Err((error, _)) => {
                counters.failed += 1;
                if counters.failed <= FAILURES_SHOWN {
                    context::log_line("ERROR", &format!("A record was not acknowledged: {error}"));
                }
            }
        }
    }
}

/// Runs the plan with a client of this configuration; lines go to `out` as they are due, the totals at the end.
///
/// # Errors
/// When the client cannot be made, a transaction fails, or `out` does.
pub fn run(config: &ClientConfig, plan: &Plan, out: &mut dyn Write) -> Result<Summary, Failure> {
    let mut config = config.clone();
    if plan.print_metrics {
        config.set("statistics.interval.ms", "500");
    }
    plan.announce_warmup(out)?;
    let start_ms = clock::wall_ms();
    let counters = Counters {
        stats: Stats::new(start_ms, plan.interval_ms, false),
        steady: None,
        failed: 0,
        lines: String::new(),
    };
    let context = Context {
        start: clock::now(),
        counters: Mutex::new(counters),
        quiet: Quiet::default(),
    };
    let producer: BaseProducer<Context> = config.create_with_context(context)?;
    send_all(&producer, plan, start_ms, out)?;
    while producer.in_flight_count() > 0 {
        // Sends what still lingers, and returns at once: the pause is the poll's.
        let _ = producer.flush(Duration::ZERO);
        producer.poll(Duration::from_millis(2));
        print_lines(&producer, out)?;
    }
    let now_ms = clock::wall_ms();
    {
        let counters = producer
            .context()
            .counters
            .lock()
            .expect("no holder panics");
        out.write_all(counters.stats.total_line(now_ms).as_bytes())?;
        if let Some(steady) = &counters.steady {
            out.write_all(steady.total_line(now_ms).as_bytes())?;
        }
        if counters.failed > FAILURES_SHOWN {
            context::log_line(
                "ERROR",
                &format!("{} records were not acknowledged", counters.failed),
            );
        }
    }
    if plan.print_metrics {
        // Once more, so that the statistics cover the end of the run.
        producer.poll(Duration::from_millis(600));
        out.write_all(context::metrics_table(&producer.context().quiet.metrics()).as_bytes())?;
    }
    out.flush()?;
    let mut counters = producer
        .context()
        .counters
        .lock()
        .expect("no holder panics");
    let empty = Stats::new(now_ms, plan.interval_ms, false);
    Ok(Summary {
        stats: std::mem::replace(&mut counters.stats, empty),
        steady: counters.steady.take(),
        failed: counters.failed,
    })
}

fn send_all(
    producer: &BaseProducer<Context>,
    plan: &Plan,
    start_ms: i64,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let timeout = Duration::from_secs(60);
    if plan.transaction.is_some() {
        producer.init_transactions(timeout)?;
    }
    let mut source = Source::new(plan.payload.clone());
    let mut throttle = Throttle::new(plan.rate, start_ms);
    let mut open: Option<Instant> = None;
    for index in 0..plan.records {
        if plan.transaction.is_some() && open.is_none() {
            producer.begin_transaction()?;
            open = Some(clock::now());
        }
        if plan.warmup_records > 0 && index == plan.warmup_records {
            let mut counters = producer
                .context()
                .counters
                .lock()
                .expect("no holder panics");
            counters.steady = Some(Stats::new(clock::wall_ms(), plan.interval_ms, true));
            counters.stats.silence();
        }
        let steady = plan.warmup_records > 0 && index >= plan.warmup_records;
        let sent_ns = (clock::now() - producer.context().start).as_nanos() as usize;
        let opaque = if steady {
            sent_ns | STEADY
        } else {
            sent_ns & !STEADY
        };
        send_one(producer, &plan.topic, source.next(index), opaque)?;
        if let (Some(length), Some(since)) = (plan.transaction, open)
            && since.elapsed() >= length
        {
            producer.commit_transaction(timeout)?;
            open = None;
        }
        if index % SENDS_PER_POLL == 0 {
            producer.poll(Duration::ZERO);
            print_lines(producer, out)?;
        }
        if plan.rate >= 0.0
            && let Some(pause) = throttle.pause(index, clock::wall_ms())
        {
            wait(producer, pause, out)?;
        }
    }
    if open.is_some() {
        producer.commit_transaction(timeout)?;
    }
    Ok(())
}

/// Hands one record to the client, waiting while its queue is full.
fn send_one(
    producer: &BaseProducer<Context>,
    topic: &str,
    value: &[u8],
    opaque: usize,
) -> Result<(), Failure> {
    let mut record: BaseRecord<'_, [u8], [u8], usize> =
        BaseRecord::with_opaque_to(topic, opaque).payload(value);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                // Longer than a millisecond, the last of which rdkafka spends looking without pause, on a processor that the broker may need.
                producer.poll(Duration::from_millis(20));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// Sleeps by polling.
fn wait(
    producer: &BaseProducer<Context>,
    pause: Duration,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let start = clock::now();
    loop {
        let left = pause.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        producer.poll(left.min(Duration::from_millis(100)));
        print_lines(producer, out)?;
    }
}

fn print_lines(producer: &BaseProducer<Context>, out: &mut dyn Write) -> Result<(), Failure> {
    let lines = {
        let mut counters = producer
            .context()
            .counters
            .lock()
            .expect("no holder panics");
        if counters.lines.is_empty() {
            return Ok(());
        }
        std::mem::take(&mut counters.lines)
    };
    out.write_all(lines.as_bytes())?;
    out.flush()?;
    Ok(())
}
