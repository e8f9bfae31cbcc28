//! What a partition remembers of its idempotent producers (KIP-98, KIP-360): the last batches of each,
//! to tell a retry from a new batch and a gap from both. Lives on the partition's core; reads no clock,
//! knows no file, and holds nothing of transactions yet.

use std::collections::BTreeMap;

use zerocopy::byteorder::big_endian::{I16, I32, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::batch::{BatchHeader, NO_PRODUCER_EPOCH, NO_SEQUENCE, sequence_plus};
use crate::types::Offset;

/// How many batches of a producer are remembered: what a client may have in flight.
pub const BATCHES_KEPT: usize = 5;

const SNAPSHOT_VERSION: u8 = 1;

/// What a batch is to the producers' state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// Next in sequence, from a producer without state here, or not idempotent at all.
    New,
    /// One of the remembered batches again: answered with what the first one got.
    Duplicate(RememberedBatch),
    /// A gap, an overlap, or a duplicate older than what is remembered:
    /// OUT_OF_ORDER_SEQUENCE_NUMBER.
    OutOfOrder,
    /// The producer's epoch is older than the newest seen: INVALID_PRODUCER_EPOCH.
    Fenced,
}

/// A batch that a producer has appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RememberedBatch {
    /// Sequence of its first record.
    pub base_sequence: i32,
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// One past the offset of its last record.
    pub offset_end: Offset,
    /// Its max timestamp, in ms: under LogAppendTime the append time.
    pub timestamp: i64,
}

const NO_BATCH: RememberedBatch = RememberedBatch {
    base_sequence: NO_SEQUENCE,
    last_sequence: NO_SEQUENCE,
    base_offset: Offset(-1),
    offset_end: Offset(-1),
    timestamp: -1,
};

#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    coordinator_epoch: i32,
    last_timestamp: i64,
    last_append_ms: i64,
    /// Oldest first; the first `batches_count` of them are there.
    batches: [RememberedBatch; BATCHES_KEPT],
    batches_count: usize,
}

impl Producer {
    fn batches(&self) -> &[RememberedBatch] {
        &self.batches[..self.batches_count]
    }

    fn last_sequence(&self) -> i32 {
        self.batches()
            .last()
            .map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    fn remember(&mut self, batch: RememberedBatch) {
        if self.batches_count == BATCHES_KEPT {
            self.batches.rotate_left(1);
            self.batches_count -= 1;
        }
        self.batches[self.batches_count] = batch;
        self.batches_count += 1;
    }
}

/// A producer as DescribeProducers shows it (KIP-664).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerDescription {
    /// Its id.
    pub producer_id: i64,
    /// Its newest epoch.
    pub producer_epoch: i16,
    /// Sequence of its last record, or -1.
    pub last_sequence: i32,
    /// Max timestamp of its last batch, in ms.
    pub last_timestamp: i64,
    /// Epoch of the transaction coordinator that wrote its last marker, or -1.
    pub coordinator_epoch: i32,
    /// Offset at which its open transaction starts, or -1.
    pub current_txn_start_offset: i64,
}

/// The idempotent producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerStates {
    // Ordered, so that the same events give the same snapshot, and no id can be chosen to collide.
    producers: BTreeMap<i64, Producer>,
}

impl ProducerStates {
    /// No producers.
    pub fn new() -> ProducerStates {
        ProducerStates::default()
    }

    /// How many producers there are.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// What a batch would be. Changes nothing.
    pub fn check(&self, batch: &BatchHeader) -> SequenceCheck {
        if !batch.has_producer_id() {
            return SequenceCheck::New;
        }
        let Some(producer) = self.producers.get(&batch.producer_id()) else {
            // Its state may have expired, or its records been deleted (KIP-360).
            return SequenceCheck::New;
        };
        let (first, last) = (batch.base_sequence(), batch.last_sequence());
        if batch.producer_epoch() == producer.epoch {
            let same = |b: &&RememberedBatch| b.base_sequence == first && b.last_sequence == last;
            if let Some(original) = producer.batches().iter().find(same) {
                return SequenceCheck::Duplicate(*original);
            }
        }
        if batch.producer_epoch() < producer.epoch {
            return SequenceCheck::Fenced;
        }
        let expected = if batch.producer_epoch() > producer.epoch {
            // An id that has only ever had markers carries no epoch of its own.
            if producer.epoch == NO_PRODUCER_EPOCH {
                return SequenceCheck::New;
            }
            0
        } else {
            match producer.last_sequence() {
                NO_SEQUENCE => 0,
                sequence => sequence_plus(sequence, 1),
            }
        };
        if first == expected {
            SequenceCheck::New
        } else {
            SequenceCheck::OutOfOrder
        }
    }

    /// Takes in a batch that [`ProducerStates::check`] called new, or that was found in the log, at its
    /// `base_offset`. Batches that are not idempotent change nothing. `now_ms` is the wall clock.
    pub fn apply(&mut self, batch: &BatchHeader, base_offset: Offset, now_ms: i64) {
        if !batch.has_producer_id() || batch.attributes().is_control() {
            return;
        }
        let producer = self
            .producers
            .entry(batch.producer_id())
            .or_insert(Producer {
                epoch: batch.producer_epoch(),
                coordinator_epoch: -1,
                last_timestamp: -1,
                last_append_ms: now_ms,
                batches: [NO_BATCH; BATCHES_KEPT],
                batches_count: 0,
            });
        if producer.epoch != batch.producer_epoch() {
            producer.epoch = batch.producer_epoch();
            producer.batches = [NO_BATCH; BATCHES_KEPT];
            producer.batches_count = 0;
        }
        producer.last_timestamp = batch.max_timestamp();
        producer.last_append_ms = now_ms;
        producer.remember(RememberedBatch {
            base_sequence: batch.base_sequence(),
            last_sequence: batch.last_sequence(),
            base_offset,
            offset_end: Offset(base_offset.0 + i64::from(batch.last_offset_delta()) + 1),
            timestamp: batch.max_timestamp(),
        });
    }

    /// Forgets producers that have appended nothing for `expiration_ms` (producer.id.expiration.ms),
    /// and says how many. By the broker's clock, not by the records': an old record copied in today
    /// does not make its producer old.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) -> usize {
        let before = self.producers.len();
        self.producers
            .retain(|_, producer| now_ms.saturating_sub(producer.last_append_ms) < expiration_ms);
        before - self.producers.len()
    }

    /// When the next producer expires, by the wall clock in ms.
    pub fn next_expiry_ms(&self, expiration_ms: i64) -> Option<i64> {
        let oldest = self
            .producers
            .values()
            .map(|producer| producer.last_append_ms)
            .min()?;
        Some(oldest.saturating_add(expiration_ms))
    }

    /// Sequence of each producer's last record, with its last offset: compaction keeps the batch that
    /// holds it, so that the state can be rebuilt from the log.
    pub fn last_batches(&self) -> impl Iterator<Item = (i64, RememberedBatch)> + '_ {
        self.producers
            .iter()
            .filter_map(|(&id, producer)| Some((id, *producer.batches().last()?)))
    }

    /// All producers, by id.
    pub fn describe(&self) -> impl Iterator<Item = ProducerDescription> + '_ {
        self.producers
            .iter()
            .map(|(&producer_id, producer)| ProducerDescription {
                producer_id,
                producer_epoch: producer.epoch,
                last_sequence: producer.last_sequence(),
                last_timestamp: producer.last_timestamp,
                coordinator_epoch: producer.coordinator_epoch,
                current_txn_start_offset: -1,
            })
    }

    /// Appends a snapshot: the version, the number of producers, and each with its batches. Its length
    /// and integrity are for the checkpoint around it to keep.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(SNAPSHOT_VERSION);
        let count = u32::try_from(self.producers.len()).expect("fewer than 2^32 producers");
        out.extend_from_slice(&count.to_be_bytes());
        for (&producer_id, producer) in &self.producers {
            let fields = ProducerFields {
                producer_id: I64::new(producer_id),
                epoch: I16::new(producer.epoch),
                coordinator_epoch: I32::new(producer.coordinator_epoch),
                last_timestamp: I64::new(producer.last_timestamp),
                last_append_ms: I64::new(producer.last_append_ms),
                batches_count: producer.batches_count as u8,
            };
            out.extend_from_slice(fields.as_bytes());
            for batch in producer.batches() {
                let fields = BatchFields {
                    base_sequence: I32::new(batch.base_sequence),
                    last_sequence: I32::new(batch.last_sequence),
                    base_offset: I64::new(batch.base_offset.0),
                    offset_end: I64::new(batch.offset_end.0),
                    timestamp: I64::new(batch.timestamp),
                };
                out.extend_from_slice(fields.as_bytes());
            }
        }
    }

    /// Reads a snapshot from the front of `bytes` and returns it with the rest. None if it is not one.
    pub fn decode(bytes: &[u8]) -> Option<(ProducerStates, &[u8])> {
        let (&version, rest) = bytes.split_first()?;
        if version != SNAPSHOT_VERSION {
            return None;
        }
        let (count, mut rest) = U32::read_from_prefix(rest).ok()?;
        let mut producers = BTreeMap::new();
        for _ in 0..count.get() {
            let (fields, after) = ProducerFields::ref_from_prefix(rest).ok()?;
            let batches_count = usize::from(fields.batches_count);
            if batches_count > BATCHES_KEPT {
                return None;
            }
            let (batches, after) =
                <[BatchFields]>::ref_from_prefix_with_elems(after, batches_count).ok()?;
            rest = after;
            let mut producer = Producer {
                epoch: fields.epoch.get(),
                coordinator_epoch: fields.coordinator_epoch.get(),
                last_timestamp: fields.last_timestamp.get(),
                last_append_ms: fields.last_append_ms.get(),
                batches: [NO_BATCH; BATCHES_KEPT],
                batches_count: 0,
            };
            for batch in batches {
                producer.remember(RememberedBatch {
                    base_sequence: batch.base_sequence.get(),
                    last_sequence: batch.last_sequence.get(),
                    base_offset: Offset(batch.base_offset.get()),
                    offset_end: Offset(batch.offset_end.get()),
                    timestamp: batch.timestamp.get(),
                });
            }
            producers.insert(fields.producer_id.get(), producer);
        }
        Some((ProducerStates { producers }, rest))
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ProducerFields {
    producer_id: I64,
    epoch: I16,
    coordinator_epoch: I32,
    last_timestamp: I64,
    last_append_ms: I64,
    batches_count: u8,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct BatchFields {
    base_sequence: I32,
    last_sequence: I32,
    base_offset: I64,
    offset_end: I64,
    timestamp: I64,
}

#[cfg(test)]
mod tests;
