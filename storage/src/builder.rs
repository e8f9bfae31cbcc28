//! Makes whole record batches: for coordinators, tools and tests, on any thread. Knows the format, and
//! nothing of logs; what it makes has base offset and leader epoch as told, to be stamped on append.

use zerocopy::IntoBytes;
use zerocopy::byteorder::big_endian::{I16, I32, I64, U32};

use crate::batch::{
    Attributes, BatchHeader, Compression, HEADER_BYTES, LENGTH_OVERHEAD_BYTES, MAGIC,
    NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TimestampType, stamp_crc,
};
use crate::compression::{compress, default_level};
use crate::records::{Header, put_record, put_record_tail};

/// Gathers records and makes a batch of them.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    attributes: Attributes,
    level: Option<i32>,
    base_offset: i64,
    leader_epoch: i32,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    base_timestamp: Option<i64>,
    max_timestamp: i64,
    append_time: Option<i64>,
    last_offset_delta: i32,
    records_count: i32,
    records: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch at base offset 0, without a producer.
    pub fn new(compression: Compression) -> BatchBuilder {
        BatchBuilder {
            attributes: Attributes::default().with_compression(compression),
            level: None,
            base_offset: 0,
            leader_epoch: -1,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            base_timestamp: None,
            max_timestamp: NO_TIMESTAMP,
            append_time: None,
            last_offset_delta: -1,
            records_count: 0,
            records: Vec::new(),
        }
    }

    /// Sets the codec's level instead of its default.
    pub fn level(mut self, level: i32) -> BatchBuilder {
        self.level = Some(level);
        self
    }

    /// Sets the offset of the first record.
    pub fn base_offset(mut self, base_offset: i64) -> BatchBuilder {
        self.base_offset = base_offset;
        self
    }

    /// Sets the leader epoch.
    pub fn leader_epoch(mut self, leader_epoch: i32) -> BatchBuilder {
        self.leader_epoch = leader_epoch;
        self
    }

    /// Sets the fields of an idempotent producer.
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> BatchBuilder {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Marks the batch as part of a transaction.
    pub fn transactional(mut self) -> BatchBuilder {
        self.attributes = self.attributes.with_transactional(true);
        self
    }

    /// Marks the batch as control records.
    pub fn control(mut self) -> BatchBuilder {
        self.attributes = self.attributes.with_control(true);
        self
    }

    /// Gives all records the broker's time, in ms, as LogAppendTime does.
    pub fn log_append_time(mut self, append_time_ms: i64) -> BatchBuilder {
        self.attributes = self
            .attributes
            .with_timestamp_type(TimestampType::LogAppendTime);
        self.append_time = Some(append_time_ms);
        self
    }

    /// Appends a record at the next offset. `timestamp` in ms, or -1.
    pub fn push(&mut self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.push_with_headers(timestamp, key, value, &[]);
    }

    /// Appends a record with headers at the next offset.
    pub fn push_with_headers(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) {
        self.push_at(self.last_offset_delta + 1, timestamp, key, value, headers);
    }

    /// Appends a record at an offset of the caller's choice, given relative to the base offset.
    pub fn push_at(
        &mut self,
        offset_delta: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) {
        let delta = self.note(offset_delta, timestamp);
        put_record(
            &mut self.records,
            delta,
            offset_delta,
            key,
            value,
            headers.iter().copied(),
        );
    }

    /// Appends a record whose bytes from the key on are known.
    pub(crate) fn push_tail(&mut self, offset_delta: i32, timestamp: i64, tail: &[u8]) {
        let delta = self.note(offset_delta, timestamp);
        put_record_tail(&mut self.records, delta, offset_delta, tail);
    }

    fn note(&mut self, offset_delta: i32, timestamp: i64) -> i64 {
        let base_timestamp = *self.base_timestamp.get_or_insert(timestamp);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.last_offset_delta = self.last_offset_delta.max(offset_delta);
        self.records_count += 1;
        timestamp.wrapping_sub(base_timestamp)
    }

    /// Takes over what the header of an existing batch says, but for records and timestamps, to write
    /// its records anew: compaction and recompression.
    pub(crate) fn like(header: &BatchHeader, attributes: Attributes, level: i32) -> BatchBuilder {
        let mut builder = BatchBuilder::new(Compression::None)
            .level(level)
            .base_offset(header.base_offset().0)
            .leader_epoch(header.partition_leader_epoch().0)
            .producer(
                header.producer_id(),
                header.producer_epoch(),
                header.base_sequence(),
            );
        builder.attributes = attributes;
        builder.last_offset_delta = header.last_offset_delta();
        if attributes.timestamp_type() == TimestampType::LogAppendTime {
            builder.append_time = Some(header.max_timestamp());
        }
        builder
    }

    /// Fixes what timestamp deltas count from, before the first record.
    pub(crate) fn with_base_timestamp(mut self, base_timestamp: i64) -> BatchBuilder {
        self.base_timestamp = Some(base_timestamp);
        self
    }

    /// Raises the max timestamp, for a batch that keeps it without the record that brought it.
    pub(crate) fn with_max_timestamp(mut self, max_timestamp: i64) -> BatchBuilder {
        self.max_timestamp = max_timestamp;
        self
    }

    /// Number of records so far.
    pub fn records_count(&self) -> i32 {
        self.records_count
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.records_count == 0
    }

    /// Length of the batch if it were not compressed, in bytes.
    pub fn uncompressed_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The whole batch, checksum included.
    pub fn build(&self) -> Vec<u8> {
        let mut batch = Vec::with_capacity(self.uncompressed_bytes());
        batch.resize(HEADER_BYTES, 0);
        let compression = self.attributes.compression().unwrap_or_default();
        if self.records_count > 0 {
            let level = self.level.unwrap_or(default_level(compression));
            compress(compression, level, &self.records, &mut batch);
        }
        let batch_length = i32::try_from(batch.len() - LENGTH_OVERHEAD_BYTES)
            .expect("a batch is smaller than 2 GiB");
        let header = BatchHeader {
            base_offset: I64::new(self.base_offset),
            batch_length: I32::new(batch_length),
            partition_leader_epoch: I32::new(self.leader_epoch),
            magic: MAGIC,
            crc: U32::new(0),
            attributes: I16::new(self.attributes.0),
            last_offset_delta: I32::new(self.last_offset_delta),
            base_timestamp: I64::new(self.base_timestamp.unwrap_or(NO_TIMESTAMP)),
            max_timestamp: I64::new(self.append_time.unwrap_or(self.max_timestamp)),
            producer_id: I64::new(self.producer_id),
            producer_epoch: I16::new(self.producer_epoch),
            base_sequence: I32::new(self.base_sequence),
            records_count: I32::new(self.records_count),
        };
        batch[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        stamp_crc(&mut batch);
        batch
    }
}
