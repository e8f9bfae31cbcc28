//! A thread that gives records to clients at the moments of a schedule, or as fast as they take them. Knows values and keys, and nothing of what becomes of a record.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::BaseRecord;

use super::{Counter, Sink};
use crate::payload::Random;
use crate::recorder::{self, Schedule, Stamp};
use crate::run::shared::Shared;
use crate::workload::{KeyDistributor, Workload};
use crate::{Failure, environment};

/// As OpenMessaging Benchmark: so many keys of so many bytes.
const KEYS: usize = 10_000;
const KEY_BYTES: usize = 10;
/// A shorter sleep costs more than it is worth.
const SLEEP_LEAST: Duration = Duration::from_micros(20);
/// A longer sleep would miss the end.
const SLEEP_MOST: Duration = Duration::from_millis(20);
/// How long a full client is left alone.
const FULL_PAUSE: Duration = Duration::from_micros(200);

/// One sending thread.
pub struct Sender {
    pub index: u64,
    pub count: u64,
    pub sinks: Vec<Arc<Sink>>,
    pub rate: f64,
    pub distributor: KeyDistributor,
    pub values: Arc<Vec<Vec<u8>>>,
    pub keys: Arc<Vec<Vec<u8>>>,
    pub shared: Arc<Shared>,
    pub counter: Arc<Counter>,
    pub give_up: Arc<AtomicBool>,
    pub left: Arc<AtomicU64>,
}

/// The values that a workload sends.
pub fn values(workload: &Workload) -> Result<Vec<Vec<u8>>, Failure> {
    let mut random = Random::new(0);
    let bytes = workload.message_bytes;
    if workload.randomized {
        let random_bytes = (bytes as f64 * workload.random_bytes_ratio) as usize;
        return Ok((0..workload.pool)
            .map(|_| {
                let mut value = vec![0; bytes];
                fill(&mut random, &mut value[..random_bytes]);
                value
            })
            .collect());
    }
    if let Some(path) = &workload.payload_file {
        let value = std::fs::read(path)
            .map_err(|error| Failure(format!("{} cannot be read: {error}", path.display())))?;
        if value.len() != bytes {
            return Err(Failure(format!(
                "{} has {} bytes, and messageSize is {bytes}",
                path.display(),
                value.len()
            )));
        }
        return Ok(vec![value]);
    }
    // Nothing said: a value that cannot be compressed.
    let mut value = vec![0; bytes];
    fill(&mut random, &mut value);
    Ok(vec![value])
}

fn fill(random: &mut Random, bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(8) {
        let word = random.bits().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

/// The keys that a workload sends; none when it has no keys.
pub fn keys(workload: &Workload) -> Vec<Vec<u8>> {
    if workload.key_distributor == KeyDistributor::NoKey {
        return Vec::new();
    }
    let mut random = Random::new(1);
    (0..KEYS)
        .map(|_| {
            let mut key = vec![0; KEY_BYTES];
            random.letters(&mut key);
            key
        })
        .collect()
}

/// What became of an offer.
enum Offer {
    Taken,
    Full,
    Refused,
}

impl Sender {
    /// Sends until the schedule ends. Tells how many records of it were not sent.
    pub fn run(self) -> u64 {
        environment::wake_exactly();
        while self.shared.opened_ns().is_none() {
            if self.ends() {
                self.left.fetch_sub(1, Ordering::AcqRel);
                return 0;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let unsent = if self.rate > 0.0 {
            self.by_schedule()
        } else {
            self.at_full_speed();
            0
        };
        self.left.fetch_sub(1, Ordering::AcqRel);
        unsent
    }

    fn ends(&self) -> bool {
        self.give_up.load(Ordering::Relaxed) || self.shared.is_stopped()
    }

    /// The open loop: what is late is sent at once, and its intended time stays what it was.
    fn by_schedule(&self) -> u64 {
        let start_ns = self.shared.opened_ns().unwrap_or(0);
        let mut schedule = Schedule::new(start_ns, self.rate, self.index, self.count);
        let mut record = Record::new(self);
        let mut full_since_ns = None;
        let mut turn = 0;
        loop {
            if self.ends() {
                return schedule.overdue(self.shared.until_ns().min(self.shared.now_ns()));
            }
            let due_ns = schedule.due_ns();
            if due_ns >= self.shared.until_ns() {
                return 0;
            }
            let now_ns = self.shared.now_ns();
            if due_ns > now_ns {
                let pause = Duration::from_nanos(due_ns - now_ns);
                std::thread::sleep(pause.clamp(SLEEP_LEAST, SLEEP_MOST));
                continue;
            }
            let stamp = Stamp {
                intended_ns: due_ns,
                sent_ns: now_ns,
            };
            let sink = &self.sinks[turn % self.sinks.len()];
            match record.offer(sink, stamp) {
                Offer::Full => {
                    full_since_ns.get_or_insert(now_ns);
                    std::thread::sleep(FULL_PAUSE);
                    continue;
                }
                Offer::Refused => {}
                Offer::Taken => {
                    let measured = self.shared.is_measured(due_ns);
                    let full_ns = full_since_ns.take().map(|since_ns: u64| now_ns - since_ns);
                    self.counter.with(|window| {
                        window.sent += 1;
                        if measured {
                            recorder::record(&mut window.lag.0, now_ns - due_ns);
                        }
                        if let Some(full_ns) = full_ns {
                            window.queue_full += 1;
                            window.queue_full_ns += full_ns;
                        }
                    });
                }
            }
            record.next();
            schedule.sent();
            turn += 1;
        }
    }

    /// As fast as the clients take records: one that is full is passed over.
    fn at_full_speed(&self) {
        let mut record = Record::new(self);
        let mut first_ns = vec![None; self.sinks.len()];
        let mut turn = 0;
        let mut full_in_a_row = 0;
        while !self.ends() {
            let now_ns = self.shared.now_ns();
            if now_ns >= self.shared.until_ns() {
                return;
            }
            let place = turn % self.sinks.len();
            turn += 1;
            let stamp = Stamp {
                intended_ns: first_ns[place].unwrap_or(now_ns),
                sent_ns: now_ns,
            };
            match record.offer(&self.sinks[place], stamp) {
                Offer::Full => {
                    first_ns[place].get_or_insert(now_ns);
                    full_in_a_row += 1;
                    if full_in_a_row >= self.sinks.len() {
                        full_in_a_row = 0;
                        std::thread::sleep(FULL_PAUSE);
                    }
                    continue;
                }
                Offer::Refused => {}
                Offer::Taken => self.counter.with(|window| window.sent += 1),
            }
            full_in_a_row = 0;
            first_ns[place] = None;
            record.next();
        }
    }
}

/// The next record of a sender.
struct Record<'a> {
    sender: &'a Sender,
    random: Random,
    value: Vec<u8>,
    index: usize,
    key: usize,
}

impl<'a> Record<'a> {
    fn new(sender: &'a Sender) -> Record<'a> {
        let mut record = Record {
            sender,
            random: Random::new(sender.index),
            value: Vec::new(),
            index: 0,
            key: sender.index as usize,
        };
        record.next();
        record
    }

    /// Chooses value and key of the next record.
    fn next(&mut self) {
        let values = &self.sender.values;
        self.index = self.random.below(values.len());
        if values.len() > 1 || self.value.is_empty() {
            self.value.clear();
            self.value.extend_from_slice(&values[self.index]);
        }
        let keys = self.sender.keys.len();
        self.key = match self.sender.distributor {
            KeyDistributor::NoKey => 0,
            KeyDistributor::KeyRoundRobin => (self.key + 1) % keys,
            KeyDistributor::RandomNano => (self.sender.shared.now_ns() % keys as u64) as usize,
        };
    }

    fn offer(&mut self, sink: &Sink, stamp: Stamp) -> Offer {
        stamp.write(&mut self.value);
        let mut record: BaseRecord<'_, [u8], [u8], Box<Stamp>> =
            BaseRecord::with_opaque_to(&sink.topic, Box::new(stamp)).payload(&self.value[..]);
        if self.sender.distributor != KeyDistributor::NoKey {
            record = record.key(&self.sender.keys[self.key][..]);
        }
        match sink.producer.send(record) {
            Ok(()) => Offer::Taken,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Offer::Full,
            Err((error, _)) => {
                self.sender.counter.with(|window| {
                    window.failed += 1;
                    window.failure.get_or_insert_with(|| error.to_string());
                });
                Offer::Refused
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(more: &str) -> Workload {
        let text = format!(
            "topics: 1\npartitionsPerTopic: 1\nmessageSize: 1000\nproducersPerTopic: 1\ntestDurationMinutes: 1\n{more}"
        );
        Workload::parse(&text, &[], "w").unwrap()
    }

    #[test]
    fn randomized_values_are_random_first_and_zero_then() {
        let values = values(&workload(
            "useRandomizedPayloads: true\nrandomBytesRatio: 0.3\nrandomizedPayloadPoolSize: 5\n",
        ))
        .unwrap();
        assert_eq!(values.len(), 5);
        for value in &values {
            assert_eq!(value.len(), 1000);
            assert!(value[300..].iter().all(|byte| *byte == 0));
            // 300 random bytes have about one zero.
            assert!(value[..300].iter().filter(|byte| **byte == 0).count() < 10);
        }
        assert_ne!(values[0], values[1]);
    }

    #[test]
    fn a_payload_file_must_have_the_size_that_is_sent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p");
        let mut workload = workload("");
        workload.payload_file = Some(path.clone());
        std::fs::write(&path, vec![7; 1000]).unwrap();
        assert_eq!(values(&workload).unwrap(), [vec![7; 1000]]);
        std::fs::write(&path, vec![7; 999]).unwrap();
        let why = values(&workload).unwrap_err().0;
        assert!(
            why.contains("has 999 bytes, and messageSize is 1000"),
            "{why}"
        );
    }

    #[test]
    fn keys_are_many_and_differ() {
        assert!(keys(&workload("")).is_empty());
        let keys = keys(&workload("keyDistributor: KEY_ROUND_ROBIN\n"));
        let different: std::collections::BTreeSet<&Vec<u8>> = keys.iter().collect();
        assert_eq!((keys.len(), different.len()), (KEYS, KEYS));
    }
}
