//! Sends one record at a time and waits until it comes back through the broker. The calling thread; knows no option's name.

use std::io::Write;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use hdrhistogram::Histogram;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::Failure;
use crate::clock;
use crate::context::Quiet;
use crate::payload::Random;
use crate::report;

/// How long a record may take to come back.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// What to send.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The topic; it exists.
    pub topic: String,
    /// How many records, one after the other.
    pub records: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Bytes of a key; always sent, also when empty.
    pub key_bytes: usize,
    /// Headers of a record.
    pub headers: usize,
    /// Bytes of a header's key.
    pub header_key_bytes: usize,
    /// Bytes of a header's value; None is the null value.
    pub header_value_bytes: Option<usize>,
}

/// Tells of each record whether it was acknowledged, from the client's polling thread.
struct Context {
    settled: Sender<Option<KafkaError>>,
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
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        // Nobody waits any more when the run has failed.
        let _ = self
            .settled
            .send(result.as_ref().err().map(|(error, _)| error.clone()));
    }
}

struct Record {
    key: Vec<u8>,
    value: Vec<u8>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Runs the plan; every thousandth latency and the summary go to `out`. Returns the latencies in microseconds.
///
/// # Errors
/// When a client cannot be made, a record is not acknowledged, or what comes back is not what was sent.
pub fn run(
    producer_config: &ClientConfig,
    consumer_config: &ClientConfig,
    plan: &Plan,
    out: &mut dyn Write,
) -> Result<Histogram<u64>, Failure> {
    let consumer: BaseConsumer = consumer_config.create()?;
    let (settled, acknowledged) = mpsc::channel();
    let context = Context {
        settled,
        quiet: Quiet::default(),
    };
    let producer: ThreadedProducer<Context> = producer_config.create_with_context(context)?;
    assign_to_end(&consumer, &plan.topic)?;
    let mut latencies_us = report::histogram();
    let mut total = Duration::ZERO;
    let mut random = Random::new(0);
    for index in 0..plan.records {
        let record = make(&mut random, plan);
        let begin = clock::now();
        send(&producer, &acknowledged, &plan.topic, &record)?;
        let message = receive(&consumer)?;
        let elapsed = begin.elapsed();
        if let Err(why) = check(&record, &message) {
            let _ = consumer.commit_consumer_state(CommitMode::Sync);
            return Err(Failure(why));
        }
        drop(message);
        if index % 1000 == 0 {
            writeln!(out, "{index}\t{:?}", elapsed.as_micros() as f64 / 1000.0)?;
            out.flush()?;
        }
        total += elapsed;
        latencies_us.saturating_record((elapsed.as_micros() as u64).max(1));
    }
    out.write_all(summary(&latencies_us, total, plan.records).as_bytes())?;
    out.flush()?;
    let _ = consumer.commit_consumer_state(CommitMode::Sync);
    Ok(latencies_us)
}

/// The two lines at the end: the average, and percentiles in whole milliseconds.
pub(crate) fn summary(latencies_us: &Histogram<u64>, total: Duration, records: u64) -> String {
    let percentile_ms = |quantile| latencies_us.value_at_quantile(quantile) / 1000;
    format!(
        "Avg latency: {} ms\nPercentiles: 50th = {}, 99th = {}, 99.9th = {}\n",
        report::fixed(total.as_secs_f64() * 1000.0 / records as f64, 4),
        percentile_ms(0.5),
        percentile_ms(0.99),
        percentile_ms(0.999),
    )
}

fn assign_to_end(consumer: &BaseConsumer, topic: &str) -> Result<(), Failure> {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let partitions = metadata
        .topics()
        .first()
        .map(|t| t.partitions())
        .unwrap_or_default();
    if partitions.is_empty() {
        return Err(Failure(format!("Topic {topic} has no partitions")));
    }
    let mut assignment = TopicPartitionList::new();
    for partition in partitions {
        let (_, end) = consumer.fetch_watermarks(topic, partition.id(), TIMEOUT)?;
        assignment.add_partition_offset(topic, partition.id(), Offset::Offset(end))?;
    }
    consumer.assign(&assignment)?;
    // The first poll starts the fetchers, so that the first record does not wait for them.
    match consumer.poll(Duration::from_millis(100)) {
        Some(Err(error)) => Err(error.into()),
        _ => Ok(()),
    }
}

fn make(random: &mut Random, plan: &Plan) -> Record {
    let mut letters = |length: usize| vec![b'A' + random.below(26) as u8; length];
    let (key, value) = (letters(plan.key_bytes), letters(plan.value_bytes));
    let headers = (0..plan.headers)
        .map(|_| {
            let name = letters(plan.header_key_bytes)
                .into_iter()
                .map(char::from)
                .collect();
            (name, plan.header_value_bytes.map(&mut letters))
        })
        .collect();
    Record {
        key,
        value,
        headers,
    }
}

fn send(
    producer: &ThreadedProducer<Context>,
    acknowledged: &Receiver<Option<KafkaError>>,
    topic: &str,
    record: &Record,
) -> Result<(), Failure> {
    let headers = record
        .headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: value.as_ref(),
            })
        });
    let message = BaseRecord::to(topic)
        .key(&record.key)
        .payload(&record.value)
        .headers(headers);
    producer.send(message).map_err(|(error, _)| error)?;
    match acknowledged.recv_timeout(TIMEOUT) {
        Ok(None) => Ok(()),
        Ok(Some(error)) => Err(error.into()),
        Err(_) => Err(Failure(format!(
            "No acknowledgement came within {} ms",
            TIMEOUT.as_millis()
        ))),
    }
}

fn receive(consumer: &BaseConsumer) -> Result<BorrowedMessage<'_>, Failure> {
    match consumer.poll(TIMEOUT) {
        Some(message) => Ok(message?),
        None => Err(Failure(format!(
            "poll() timed out before finding a result (timeout:[{}ms])",
            TIMEOUT.as_millis()
        ))),
    }
}

fn check(sent: &Record, read: &BorrowedMessage<'_>) -> Result<(), String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let value = read.payload().unwrap_or_default();
    if value != sent.value {
        return Err(format!(
            "The message value read [{}] did not match the message value sent [{}]",
            text(value),
            text(&sent.value)
        ));
    }
    match read.key() {
        None => return Err("Expected message key but received null".to_owned()),
        Some(key) if key != sent.key => {
            return Err(format!(
                "The message key read [{}] did not match the message key sent [{}]",
                text(key),
                text(&sent.key)
            ));
        }
        Some(_) => {}
    }
    let count = read.headers().map_or(0, Headers::count);
    if count == 0 && !sent.headers.is_empty() {
        return Err("Expected message headers but received none".to_owned());
    }
    if count != sent.headers.len() {
        return Err("Header count mismatch between sent and received messages".to_owned());
    }
    for (header, (key, value)) in read
        .headers()
        .into_iter()
        .flat_map(Headers::iter)
        .zip(&sent.headers)
    {
        if header.key != key || header.value != value.as_deref() {
            return Err(format!(
                "The message header read [{}:{:?}] did not match the message header sent [{key}:{value:?}]",
                header.key, header.value
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_kafkas_lines() {
        let mut latencies = report::histogram();
        for ms in 1..=1000_u64 {
            latencies.record(ms * 1000).unwrap();
        }
        assert_eq!(
            summary(&latencies, Duration::from_millis(2500), 1000),
            "Avg latency: 2.5000 ms\nPercentiles: 50th = 500, 99th = 990, 99.9th = 999\n"
        );
    }

    #[test]
    fn records_have_the_asked_sizes() {
        let plan = Plan {
            topic: "t".to_owned(),
            records: 1,
            value_bytes: 7,
            key_bytes: 0,
            headers: 2,
            header_key_bytes: 3,
            header_value_bytes: None,
        };
        let record = make(&mut Random::new(1), &plan);
        assert_eq!(
            (record.key.len(), record.value.len(), record.headers.len()),
            (0, 7, 2)
        );
        assert!(
            record
                .headers
                .iter()
                .all(|(key, value)| key.len() == 3 && value.is_none())
        );
    }
}
