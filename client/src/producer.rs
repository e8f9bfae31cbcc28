//! Producing in batches: what waits for more, what is on its way, what is to be sent again. A state machine
//! over a [`Link`]; knows no socket and no clock.
//!
//! Batches of a partition are acknowledged, and sent again, in their order: behind a batch that failed and
//! may succeed later, nothing of its partition is sent until what is on its way has come back. With an
//! idempotent producer the broker drops what it has already (KIP-98); after a failure that cannot be
//! repaired the producer takes a new id and counts anew.

use std::collections::{BTreeMap, VecDeque};

use net::kafka::error::ErrorCode;
use net::native::v1::{
    ArchivedProduceAnswer, ArchivedProducerIdAnswer, Produce, ProducePart, ProducerId,
};
use net::native::{Fault, Frame, Kind, read};
use storage::batch::{Compression, stamp_crc};
use storage::builder::BatchBuilder;

use crate::{Error, Link, TopicId};

/// Requests that may be on their way: the broker remembers as many batches of an idempotent producer.
const IN_FLIGHT_MAX: usize = 5;

/// Where a batch has its producer's id; epoch and base sequence follow.
const PRODUCER_ID_POSITION: usize = 43;

/// When a record counts as delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// When it is sent: the broker says nothing.
    Never,
    /// When the leader has it as safe as `flush.messages` says.
    ByLeader,
    /// When all replicas in sync have it.
    ByAll,
}

/// How a producer works.
#[derive(Clone, Debug, PartialEq)]
pub struct ProducerConfig {
    /// When a record counts as delivered.
    pub acks: Acknowledged,
    /// Whether nothing is written twice; needs an acknowledgement.
    pub idempotent: bool,
    /// How long a batch waits for more records, in microseconds.
    pub linger_us: u64,
    /// A batch of this size waits no longer, in bytes before compression.
    pub batch_bytes: usize,
    /// Records that are taken and have no outcome yet, in bytes as they are held: what goes beyond waits
    /// (Kafka's `buffer.memory`). One record is always taken where nothing else is held.
    pub buffer_bytes: usize,
    /// Requests on their way, 1 to 5.
    pub in_flight_max: usize,
    /// How records are compressed.
    pub compression: Compression,
    /// How long to wait before a batch is sent again, in microseconds.
    pub retry_us: u64,
    /// After so long without an acknowledgement a batch has failed, in microseconds.
    pub delivery_timeout_us: u64,
}

impl Default for ProducerConfig {
    fn default() -> ProducerConfig {
        ProducerConfig {
            acks: Acknowledged::ByAll,
            idempotent: true,
            linger_us: 0,
            batch_bytes: 64 << 10,
            buffer_bytes: 32 << 20,
            in_flight_max: IN_FLIGHT_MAX,
            compression: Compression::None,
            retry_us: 100_000,
            delivery_timeout_us: 120_000_000,
        }
    }
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The topic.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: i32,
    /// The number of its first record, as [`Producer::append`] gave it.
    pub record: u64,
    /// How many records it had.
    pub count: u64,
    /// The offset of its first record, -1 where the broker does not say; or why it failed.
    pub result: Result<i64, ErrorCode>,
}

#[derive(Debug)]
struct Batch {
    bytes: Vec<u8>,
    record: u64,
    count: u64,
    since_us: u64,
    in_flight: bool,
}

/// One partition.
#[derive(Debug)]
struct Lane {
    open: Option<(BatchBuilder, u64)>,
    /// The number of the next record.
    record_next: u64,
    /// The sequence of the next batch.
    sequence_next: i32,
    batches: VecDeque<Batch>,
    in_flight: usize,
    /// A batch is to be sent again.
    mending: bool,
    /// Not before then.
    retry_at_us: u64,
}

type LaneKey = (TopicId, i32);

/// Batches records, sends them, and sees to it that they arrive.
#[derive(Debug)]
pub struct Producer {
    config: ProducerConfig,
    lanes: BTreeMap<LaneKey, Lane>,
    /// Requests on their way, and the first record of each batch in them.
    in_flight: VecDeque<(u64, Vec<(LaneKey, u64)>)>,
    id: Option<(i64, i16)>,
    id_asked: Option<u64>,
    outcomes: VecDeque<Outcome>,
    /// Bytes of open batches and of those without an outcome.
    held_bytes: usize,
    /// Batches that were closed since the beginning.
    sealed_count: u64,
}

/// What a record takes beside its key and value, at most, in bytes; its batch's header is not counted.
const RECORD_OVERHEAD_BYTES: usize = 32;

impl Producer {
    /// A producer that has sent nothing.
    pub fn new(mut config: ProducerConfig) -> Producer {
        config.idempotent &= config.acks != Acknowledged::Never;
        config.in_flight_max = config.in_flight_max.clamp(1, IN_FLIGHT_MAX);
        Producer {
            config,
            lanes: BTreeMap::new(),
            in_flight: VecDeque::new(),
            id: None,
            id_asked: None,
            outcomes: VecDeque::new(),
            held_bytes: 0,
            sealed_count: 0,
        }
    }

    /// Whether a record of so many bytes of key and value has room, beside what is held here and waits to be
    /// sent in `link`.
    pub fn has_room(&self, record_bytes: usize, link: &Link) -> bool {
        let held = self.held_bytes + link.output().len();
        held == 0 || held + record_bytes + RECORD_OVERHEAD_BYTES <= self.config.buffer_bytes
    }

    /// Takes a record, whether or not it [has room](Producer::has_room); gives its number within its
    /// partition.
    pub fn append(
        &mut self,
        now_us: u64,
        topic_id: TopicId,
        partition: i32,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> u64 {
        let lane = self
            .lanes
            .entry((topic_id, partition))
            .or_insert_with(|| Lane {
                open: None,
                record_next: 0,
                sequence_next: 0,
                batches: VecDeque::new(),
                in_flight: 0,
                mending: false,
                retry_at_us: 0,
            });
        let bytes = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        if let Some((open, _)) = &lane.open
            && open.uncompressed_bytes() + bytes > self.config.batch_bytes
        {
            self.sealed_count += 1;
            lane.seal(self.id, &mut self.held_bytes);
        }
        let compression = self.config.compression;
        let (open, _) = lane.open.get_or_insert_with(|| {
            let open = BatchBuilder::new(compression);
            self.held_bytes += open.uncompressed_bytes();
            (open, now_us)
        });
        let before = open.uncompressed_bytes();
        open.push(timestamp_ms, key, value);
        self.held_bytes += open.uncompressed_bytes() - before;
        let record = lane.record_next;
        lane.record_next += 1;
        record
    }

    /// Whether everything has its outcome.
    pub fn is_idle(&self) -> bool {
        self.lanes
            .values()
            .all(|lane| lane.open.is_none() && lane.batches.is_empty())
    }

    /// Bytes of batches that are open, wait, or are on their way.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// How many batches were closed since the beginning: with each there is something new to send.
    pub fn sealed_count(&self) -> u64 {
        self.sealed_count
    }

    /// What became of batches, in the order in which it became known.
    pub fn next_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// Whether a batch that is ready could be sent now.
    fn may_send(&self) -> bool {
        self.in_flight.len() < self.config.in_flight_max
            && (self.id.is_some() || !self.config.idempotent)
    }

    /// When [`Producer::advance`] has something to do again, if nothing arrives before.
    pub fn next_deadline_us(&self) -> Option<u64> {
        let wait_us = if self.may_send() {
            self.config.linger_us
        } else {
            self.config.delivery_timeout_us
        };
        let linger = |lane: &Lane| Some(lane.open.as_ref()?.1 + wait_us);
        let retry = |lane: &Lane| (lane.mending && lane.in_flight == 0).then_some(lane.retry_at_us);
        self.lanes
            .values()
            .flat_map(|lane| [linger(lane), retry(lane)])
            .flatten()
            .min()
    }

    /// Queues what is due; with `flush` also what would wait for more.
    pub fn advance(&mut self, now_us: u64, flush: bool, link: &mut Link) {
        // What could not be sent yet goes on gathering records.
        let may_send = self.may_send();
        for (key, lane) in &mut self.lanes {
            if let Some((open, since_us)) = &lane.open
                && (may_send && (flush || now_us >= since_us + self.config.linger_us)
                    || now_us > since_us + self.config.delivery_timeout_us
                    || open.uncompressed_bytes() >= self.config.batch_bytes)
            {
                self.sealed_count += 1;
                lane.seal(self.id, &mut self.held_bytes);
            }
            while let Some(batch) = lane.batches.front()
                && !batch.in_flight
                && lane.in_flight == 0
                && now_us > batch.since_us + self.config.delivery_timeout_us
                && let Some(batch) = lane.batches.pop_front()
            {
                self.held_bytes -= batch.bytes.len();
                self.outcomes
                    .push_back(outcome(*key, &batch, Err(ErrorCode::RequestTimedOut)));
            }
        }
        if !link.is_open() {
            return;
        }
        if self.config.idempotent && self.id.is_none() {
            if self.id_asked.is_none() && self.in_flight.is_empty() {
                let body = ProducerId {
                    producer_id: -1,
                    producer_epoch: -1,
                };
                self.id_asked = Some(link.request(Kind::ProducerId, &body, []));
            }
            return;
        }
        while self.in_flight.len() < self.config.in_flight_max && self.send(now_us, link) {}
    }

    /// Sends the next batch of each partition that has one; false if there is none.
    fn send(&mut self, now_us: u64, link: &mut Link) -> bool {
        let ordered_by_broker = self.config.idempotent;
        let mut parts = Vec::new();
        let mut sent = Vec::new();
        let mut records: Vec<&[u8]> = Vec::new();
        for (key, lane) in &mut self.lanes {
            let may = if lane.mending {
                lane.in_flight == 0 && now_us >= lane.retry_at_us
            } else {
                ordered_by_broker || lane.in_flight == 0
            };
            if !may {
                continue;
            }
            let Some(batch) = lane.batches.iter_mut().find(|batch| !batch.in_flight) else {
                continue;
            };
            lane.mending = false;
            lane.in_flight += 1;
            batch.in_flight = true;
            parts.push(ProducePart {
                topic_id: key.0,
                partition: key.1,
                records_bytes: u32::try_from(batch.bytes.len()).expect("a batch below 4 GiB"),
            });
            sent.push((*key, batch.record));
            records.push(&batch.bytes);
        }
        if parts.is_empty() {
            return false;
        }
        let body = Produce {
            parts,
            timeout_ms: 30_000,
            acks: match self.config.acks {
                Acknowledged::Never => 0,
                Acknowledged::ByLeader => 1,
                Acknowledged::ByAll => -1,
            },
        };
        let id = link.request(Kind::Produce, &body, records);
        if self.config.acks == Acknowledged::Never {
            for (key, record) in sent {
                self.finish(key, record, Ok(-1));
            }
        } else {
            self.in_flight.push_back((id, sent));
        }
        true
    }

    /// Takes a frame; false if it is none of this producer's.
    ///
    /// # Errors
    /// The frame is malformed.
    pub fn on_frame(&mut self, now_us: u64, frame: Frame<'_>) -> Result<bool, Error> {
        if frame.kind == Kind::ProducerIdAnswer && Some(frame.correlation_id) == self.id_asked {
            let answer = read::<ArchivedProducerIdAnswer>(frame.body)?;
            self.id_asked = None;
            match answer.error.to_native() {
                0 => self.renumber((
                    answer.producer_id.to_native(),
                    answer.producer_epoch.to_native(),
                )),
                // It is asked for again.
                code if is_retriable(code) => {}
                code => return Err(Error::of_code(code)),
            }
            return Ok(true);
        }
        if frame.kind != Kind::ProduceAnswer
            || self.in_flight.front().map(|(id, _)| *id) != Some(frame.correlation_id)
        {
            return Ok(false);
        }
        let answer = read::<ArchivedProduceAnswer>(frame.body)?;
        let Some((_, sent)) = self.in_flight.pop_front() else {
            return Ok(false);
        };
        if answer.results.len() != sent.len() {
            return Err(Fault::Body.into());
        }
        for ((key, record), result) in sent.into_iter().zip(answer.results.iter()) {
            let code = result.error.to_native();
            let code = ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError);
            match code {
                ErrorCode::None => self.finish(key, record, Ok(result.base_offset.to_native())),
                ErrorCode::DuplicateSequenceNumber => self.finish(key, record, Ok(-1)),
                code => self.on_failed(now_us, key, record, code),
            }
        }
        Ok(true)
    }

    fn on_failed(&mut self, now_us: u64, key: LaneKey, record: u64, code: ErrorCode) {
        let Some(lane) = self.lanes.get_mut(&key) else {
            return;
        };
        // Behind a batch that failed, the next ones find a gap: they go again, with it or with a new id.
        let gap = code == ErrorCode::OutOfOrderSequenceNumber
            && (lane.mending || (self.config.idempotent && self.id.is_none()));
        if gap || code.retriable() {
            if let Some(batch) = lane.batches.iter_mut().find(|batch| batch.record == record) {
                batch.in_flight = false;
            }
            lane.in_flight -= 1;
            lane.mending = true;
            lane.retry_at_us = now_us + self.config.retry_us;
            return;
        }
        self.finish(key, record, Err(code));
        if self.config.idempotent {
            // Sequences behind it would find a gap for ever.
            self.id = None;
        }
    }

    fn finish(&mut self, key: LaneKey, record: u64, result: Result<i64, ErrorCode>) {
        if let Some(lane) = self.lanes.get_mut(&key)
            && let Some(place) = lane.batches.iter().position(|batch| batch.record == record)
            && let Some(batch) = lane.batches.remove(place)
        {
            lane.in_flight -= 1;
            self.held_bytes -= batch.bytes.len();
            self.outcomes.push_back(outcome(key, &batch, result));
        }
    }

    /// Stamps what waits with a new id, counting anew.
    fn renumber(&mut self, id: (i64, i16)) {
        self.id = Some(id);
        for lane in self.lanes.values_mut() {
            lane.sequence_next = 0;
            for batch in &mut lane.batches {
                lane.sequence_next = stamp(batch, id, lane.sequence_next);
            }
        }
    }

    /// The connection is lost: what was on its way goes again, in its order, over the next.
    pub fn on_disconnected(&mut self) {
        self.in_flight.clear();
        self.id_asked = None;
        for lane in self.lanes.values_mut() {
            lane.in_flight = 0;
            lane.mending = false;
            for batch in &mut lane.batches {
                batch.in_flight = false;
            }
        }
    }
}

impl Lane {
    /// No more records for the open batch; `held_bytes` counts it as it is now.
    fn seal(&mut self, id: Option<(i64, i16)>, held_bytes: &mut usize) {
        let Some((open, since_us)) = self.open.take() else {
            return;
        };
        *held_bytes -= open.uncompressed_bytes();
        let count = u64::try_from(open.records_count()).unwrap_or(0);
        let mut batch = Batch {
            bytes: open.build(),
            record: self.record_next - count,
            count,
            since_us,
            in_flight: false,
        };
        *held_bytes += batch.bytes.len();
        if let Some(id) = id {
            self.sequence_next = stamp(&mut batch, id, self.sequence_next);
        }
        self.batches.push_back(batch);
    }
}

/// Writes producer and sequence into a batch; gives the sequence of the next.
fn stamp(batch: &mut Batch, (id, epoch): (i64, i16), sequence: i32) -> i32 {
    let place = &mut batch.bytes[PRODUCER_ID_POSITION..];
    place[..8].copy_from_slice(&id.to_be_bytes());
    place[8..10].copy_from_slice(&epoch.to_be_bytes());
    place[10..14].copy_from_slice(&sequence.to_be_bytes());
    stamp_crc(&mut batch.bytes);
    let count = i32::try_from(batch.count).unwrap_or(i32::MAX);
    storage::batch::sequence_plus(sequence, count)
}

fn outcome(key: LaneKey, batch: &Batch, result: Result<i64, ErrorCode>) -> Outcome {
    Outcome {
        topic_id: key.0,
        partition: key.1,
        record: batch.record,
        count: batch.count,
        result,
    }
}

fn is_retriable(code: i16) -> bool {
    ErrorCode::from_code(code).is_some_and(ErrorCode::retriable)
}

#[cfg(test)]
mod tests;
