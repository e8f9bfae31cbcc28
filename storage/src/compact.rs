//! The core of compaction: which record is the latest of its key, and what of a batch stays. Pure code
//! for the compaction task of a core, one batch at a time so that it can pause between; knows no file,
//! no segment and no schedule.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::batch::{BatchView, Compression};
use crate::builder::BatchBuilder;
use crate::compression::default_level;
use crate::producer_state::ProducerStates;
use crate::records::{Record, RecordIter, RecordsError, RecordsScratch};
use crate::types::Offset;

const SLOT_BYTES: usize = size_of::<Slot>();
const SLOTS_MIN: usize = 64;
/// How full the table may get, in tenths: probing stays short.
const LOAD_TENTHS: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// 0 in both halves with a negative offset is a free slot.
    hash: [u64; 2],
    offset: i64,
}

const FREE: Slot = Slot {
    hash: [0; 2],
    offset: -1,
};

/// The latest offset of each key in the part of a log that is being compacted. Holds hashes of keys,
/// not keys: 128 bits, seeded so that nobody can choose keys that collide.
#[derive(Debug)]
pub struct OffsetMap {
    slots: Vec<Slot>,
    slots_max: usize,
    used: usize,
    seed: u64,
    offset_end: Offset,
}

/// What became of a batch that was shown to an [`OffsetMap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// All of its keys are in the map.
    Whole,
    /// The map is full: this round of compaction ends at [`OffsetMap::offset_end`].
    Full,
}

impl OffsetMap {
    /// An empty map that grows to at most `memory_bytes`. `seed` should be random, and differ from
    /// round to round.
    pub fn new(memory_bytes: usize, seed: u64) -> OffsetMap {
        // While it grows to its full size, the half of it is there too.
        let slots_max = (memory_bytes / 3 * 2 / SLOT_BYTES).max(SLOTS_MIN);
        // A power of two, so that a hash finds its slot by a mask.
        let slots_max = 1 << slots_max.ilog2();
        OffsetMap {
            slots: vec![FREE; SLOTS_MIN],
            slots_max,
            used: 0,
            seed,
            offset_end: Offset(0),
        }
    }

    /// How many keys are in it.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether it holds no key.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Up to here (exclusive) the latest offsets are known: where this round of compaction ends.
    pub fn offset_end(&self) -> Offset {
        self.offset_end
    }

    /// Takes in the keys of the next batch, in log order, from `offset_from` on. Control batches have
    /// no user's keys. After [`Mapped::Full`] nothing more goes in.
    pub fn add_batch(
        &mut self,
        batch: &BatchView<'_>,
        offset_from: Offset,
        output_bytes_max: u64,
        scratch: &mut RecordsScratch,
    ) -> Result<Mapped, RecordsError> {
        let header = batch.header();
        if !header.attributes().is_control() {
            for record in scratch.records(batch, output_bytes_max)? {
                let record = record?;
                let Some(key) = record.key.filter(|_| record.offset >= offset_from.0) else {
                    continue;
                };
                if !self.put(key, record.offset) {
                    return Ok(Mapped::Full);
                }
                self.offset_end = Offset(record.offset + 1);
            }
        }
        self.offset_end = self.offset_end.max(header.offset_end());
        Ok(Mapped::Whole)
    }

    /// There is nothing more below `offset`: the round ends there at least.
    pub fn reach(&mut self, offset: Offset) {
        self.offset_end = self.offset_end.max(offset);
    }

    /// False if the key is new and the map is full.
    fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = self.hash(key);
        let mut at = self.find(hash);
        if self.slots[at].offset < 0 {
            if (self.used + 1) * 10 > self.slots.len() * LOAD_TENTHS {
                if self.slots.len() * 2 > self.slots_max {
                    return false;
                }
                self.grow();
                at = self.find(hash);
            }
            self.used += 1;
        }
        self.slots[at] = Slot { hash, offset };
        true
    }

    /// Latest offset of `key`, if it is in the map.
    pub fn latest(&self, key: &[u8]) -> Option<Offset> {
        let slot = self.slots[self.find(self.hash(key))];
        (slot.offset >= 0).then_some(Offset(slot.offset))
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let hash = xxh3_128_with_seed(key, self.seed);
        [hash as u64, (hash >> 64) as u64]
    }

    /// The slot of this hash, or the free one where it would go.
    fn find(&self, hash: [u64; 2]) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash[0] as usize & mask;
        while self.slots[at].offset >= 0 && self.slots[at].hash != hash {
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self) {
        let double = vec![FREE; self.slots.len() * 2];
        for slot in std::mem::replace(&mut self.slots, double) {
            if slot.offset >= 0 {
                let at = self.find(slot.hash);
                self.slots[at] = slot;
            }
        }
    }
}

/// What is left of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cleaned {
    /// It stays as it is, byte for byte.
    Kept,
    /// This takes its place: same base offset, last offset and producer fields, fewer records or none.
    Replaced(Vec<u8>),
    /// It goes.
    Dropped,
}

/// What a round of compaction has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanerCounters {
    /// Records seen.
    pub records_read: u64,
    /// Records that stay.
    pub records_kept: u64,
    /// Batches that stay, rewritten or not.
    pub batches_kept: u64,
    /// Length of what was read, in bytes.
    pub read_bytes: u64,
    /// Length of what stays, in bytes.
    pub kept_bytes: u64,
}

/// Filters batches by an [`OffsetMap`].
#[derive(Debug)]
pub struct Cleaner {
    map: OffsetMap,
    round_end: Offset,
    now_ms: i64,
    delete_retention_ms: i64,
    output_bytes_max: u64,
    /// Last offset of each live producer's last batch.
    last_offsets: BTreeMap<i64, Offset>,
    counters: CleanerCounters,
}

impl Cleaner {
    /// Prepares to filter what `map` was built from, as far as it took it, and what follows up to
    /// `round_end`: the batch that ends there stays, empty if need be. So does the batch with a live
    /// producer's last sequence; `producers` as of the log's end. Tombstones go once `delete_retention_ms`
    /// (delete.retention.ms) have passed since a round first saw them, by the wall clock `now_ms`.
    pub fn new(
        map: OffsetMap,
        round_end: Offset,
        producers: &ProducerStates,
        now_ms: i64,
        delete_retention_ms: i64,
        output_bytes_max: u64,
    ) -> Cleaner {
        let last_offsets = producers
            .last_batches()
            .map(|(id, batch)| (id, Offset(batch.offset_end.0 - 1)))
            .collect();
        let counters = CleanerCounters::default();
        Cleaner {
            map,
            round_end,
            now_ms,
            delete_retention_ms,
            output_bytes_max,
            last_offsets,
            counters,
        }
    }

    /// What has been done so far.
    pub fn counters(&self) -> CleanerCounters {
        self.counters
    }

    /// Says what is left of `batch`. An error means that its records cannot be read: the partition is
    /// not to be compacted.
    pub fn clean(
        &mut self,
        batch: &BatchView<'_>,
        scratch: &mut RecordsScratch,
    ) -> Result<Cleaned, RecordsError> {
        let header = batch.header();
        self.counters.read_bytes += batch.len_bytes() as u64;
        let cleaned = if header.attributes().is_control() {
            // Markers stay until transactions are served, which know when one is of no more use.
            self.counters.records_read += header.records_count().max(0) as u64;
            self.counters.records_kept += header.records_count().max(0) as u64;
            Cleaned::Kept
        } else {
            let uncompressed = scratch.uncompressed(batch, self.output_bytes_max)?;
            self.clean_records(batch, uncompressed)?
        };
        let kept_bytes = match &cleaned {
            Cleaned::Kept => batch.len_bytes(),
            Cleaned::Replaced(bytes) => bytes.len(),
            Cleaned::Dropped => return Ok(cleaned),
        };
        self.counters.batches_kept += 1;
        self.counters.kept_bytes += kept_bytes as u64;
        Ok(cleaned)
    }

    fn clean_records(
        &mut self,
        batch: &BatchView<'_>,
        uncompressed: &[u8],
    ) -> Result<Cleaned, RecordsError> {
        let header = batch.header();
        // None: a round has not seen these tombstones yet (KIP-534).
        let horizon_ms = header.delete_horizon_ms();
        let tombstones_stay = horizon_ms.is_none_or(|horizon_ms| self.now_ms < horizon_ms);
        let stays = |record: &Record<'_>| {
            if record.offset >= self.map.offset_end().0 {
                return true;
            }
            let Some(key) = record.key else {
                // Kafka drops it too: nothing will ever supersede it.
                return false;
            };
            let is_latest = self
                .map
                .latest(key)
                .is_none_or(|latest| record.offset >= latest.0);
            is_latest && (record.value.is_some() || tombstones_stay)
        };

        let (mut read, mut kept, mut tombstones) = (0_u64, 0_u64, 0_u64);
        for record in RecordIter::new(header, uncompressed) {
            let record = record?;
            read += 1;
            if stays(&record) {
                kept += 1;
                tombstones += u64::from(record.value.is_none());
            }
        }
        self.counters.records_read += read;
        self.counters.records_kept += kept;

        if kept == 0 {
            return Ok(self.clean_empty(batch));
        }
        let horizon_is_new = tombstones > 0 && horizon_ms.is_none();
        if kept == read && !horizon_is_new {
            return Ok(Cleaned::Kept);
        }
        let horizon_ms = if horizon_is_new {
            Some(self.now_ms.saturating_add(self.delete_retention_ms))
        } else {
            horizon_ms
        };
        let attributes = header
            .attributes()
            .with_delete_horizon(horizon_ms.is_some());
        let level = default_level(attributes.compression().unwrap_or_default());
        let mut builder = BatchBuilder::like(header, attributes, level);
        if let Some(horizon_ms) = horizon_ms {
            builder = builder.with_base_timestamp(horizon_ms);
        }
        for record in RecordIter::new(header, uncompressed) {
            let record = record?;
            if stays(&record) {
                let offset_delta = i32::try_from(record.offset - header.base_offset().0)
                    .map_err(|_| RecordsError::Malformed)?;
                builder.push_tail(offset_delta, record.timestamp_stated, record.tail);
            }
        }
        Ok(Cleaned::Replaced(builder.build()))
    }

    /// An empty batch stays where it alone says how far the log goes or what a producer sent last.
    fn clean_empty(&self, batch: &BatchView<'_>) -> Cleaned {
        let header = batch.header();
        let ends_round = header.offset_end() == self.round_end;
        let is_producers_last = header.has_producer_id()
            && self.last_offsets.get(&header.producer_id()) == Some(&header.offset_last());
        if !ends_round && !is_producers_last {
            return Cleaned::Dropped;
        }
        if header.records_count() == 0 {
            return Cleaned::Kept;
        }
        let attributes = header
            .attributes()
            .with_compression(Compression::None)
            .with_delete_horizon(false);
        Cleaned::Replaced(
            BatchBuilder::like(header, attributes, 0)
                .with_base_timestamp(header.max_timestamp())
                .with_max_timestamp(header.max_timestamp())
                .build(),
        )
    }
}

#[cfg(test)]
mod tests;
