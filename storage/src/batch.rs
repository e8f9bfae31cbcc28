//! A record batch (format v2) as bytes: its header as a view, splitting, checks, stamping. Pure
//! functions used on the core that owns the partition; knows no record and no compression format.

use zerocopy::byteorder::big_endian::{I16, I32, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::crc::crc32c;
use crate::types::{LeaderEpoch, Offset};

/// Length of the header, in bytes; records follow it.
pub const HEADER_BYTES: usize = 61;
/// What `batch_length` does not count: base offset and the length itself, in bytes.
pub const LENGTH_OVERHEAD_BYTES: usize = 12;
/// The only format served: v2 (KIP-98).
pub const MAGIC: i8 = 2;
/// Where the magic byte stands, in all formats.
const MAGIC_POSITION: usize = 16;
/// Where a batch's length is.
const BATCH_LENGTH_POSITION: usize = 8;
/// What no batch of any format is shorter than, in bytes after its length: Kafka's least record overhead.
pub const BATCH_LENGTH_MIN: i32 = 14;
/// The checksum covers everything from here.
const CRC_START: usize = 21;
/// "No timestamp" of a record or batch.
pub const NO_TIMESTAMP: i64 = -1;
/// "No producer" of a batch that is not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;
/// "No producer epoch".
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// "No sequence".
pub const NO_SEQUENCE: i32 = -1;

const COMPRESSION_MASK: i16 = 0x07;
const TIMESTAMP_TYPE_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
const DELETE_HORIZON_BIT: i16 = 0x40;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip, RFC 1952.
    Gzip,
    /// snappy, in xerial framing or raw.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// zstd frames (KIP-110).
    Zstd,
}

impl Compression {
    /// The value in a batch's attributes.
    pub fn id(self) -> i16 {
        match self {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }

    /// By the value in a batch's attributes; 5 to 7 mean nothing.
    pub fn from_id(id: i16) -> Option<Compression> {
        match id {
            0 => Some(Compression::None),
            1 => Some(Compression::Gzip),
            2 => Some(Compression::Snappy),
            3 => Some(Compression::Lz4),
            4 => Some(Compression::Zstd),
            _ => None,
        }
    }

    /// Kafka's name in configs and tools.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// By Kafka's name in configs and tools; `uncompressed` is what `compression.type` calls none.
    pub fn from_name(name: &str) -> Option<Compression> {
        match name {
            "none" | "uncompressed" => Some(Compression::None),
            "gzip" => Some(Compression::Gzip),
            "snappy" => Some(Compression::Snappy),
            "lz4" => Some(Compression::Lz4),
            "zstd" => Some(Compression::Zstd),
            _ => None,
        }
    }
}

/// Whose clock a batch's timestamps come from (KIP-32).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's, one for each record.
    #[default]
    CreateTime,
    /// The broker's at the append, one for the whole batch.
    LogAppendTime,
}

/// The 16 bits of a batch's attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub i16);

impl Attributes {
    /// None for a value that no format defines.
    pub fn compression(self) -> Option<Compression> {
        Compression::from_id(self.0 & COMPRESSION_MASK)
    }

    /// Whose clock the timestamps come from.
    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & TIMESTAMP_TYPE_BIT == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(self) -> bool {
        self.0 & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch carries a transaction marker or the like instead of a user's records.
    pub fn is_control(self) -> bool {
        self.0 & CONTROL_BIT != 0
    }

    /// Whether `base_timestamp` is the time from which tombstones may go (KIP-534).
    pub fn has_delete_horizon(self) -> bool {
        self.0 & DELETE_HORIZON_BIT != 0
    }

    /// The same with another compression.
    pub fn with_compression(self, compression: Compression) -> Attributes {
        Attributes(self.0 & !COMPRESSION_MASK | compression.id())
    }

    /// The same with another timestamp type.
    pub fn with_timestamp_type(self, timestamp_type: TimestampType) -> Attributes {
        self.with_bit(
            TIMESTAMP_TYPE_BIT,
            timestamp_type == TimestampType::LogAppendTime,
        )
    }

    /// The same with the transactional bit set or not.
    pub fn with_transactional(self, on: bool) -> Attributes {
        self.with_bit(TRANSACTIONAL_BIT, on)
    }

    /// The same with the control bit set or not.
    pub fn with_control(self, on: bool) -> Attributes {
        self.with_bit(CONTROL_BIT, on)
    }

    /// The same with the delete-horizon bit set or not.
    pub fn with_delete_horizon(self, on: bool) -> Attributes {
        self.with_bit(DELETE_HORIZON_BIT, on)
    }

    fn with_bit(self, bit: i16, on: bool) -> Attributes {
        Attributes(if on { self.0 | bit } else { self.0 & !bit })
    }
}

/// The header of a v2 batch, read in place.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BatchHeader {
    pub(crate) base_offset: I64,
    pub(crate) batch_length: I32,
    pub(crate) partition_leader_epoch: I32,
    pub(crate) magic: i8,
    pub(crate) crc: U32,
    pub(crate) attributes: I16,
    pub(crate) last_offset_delta: I32,
    pub(crate) base_timestamp: I64,
    pub(crate) max_timestamp: I64,
    pub(crate) producer_id: I64,
    pub(crate) producer_epoch: I16,
    pub(crate) base_sequence: I32,
    pub(crate) records_count: I32,
}

const _: () = assert!(size_of::<BatchHeader>() == HEADER_BYTES);

impl BatchHeader {
    /// Reads the header at the front of `bytes`, checking only that it is all there.
    pub fn ref_from_prefix(bytes: &[u8]) -> Option<&BatchHeader> {
        <BatchHeader as FromBytes>::ref_from_prefix(bytes)
            .ok()
            .map(|(header, _)| header)
    }

    /// Offset of the first record. 0 in what producers send.
    pub fn base_offset(&self) -> Offset {
        Offset(self.base_offset.get())
    }

    /// Length of what follows this field, in bytes, as stated.
    pub fn batch_length(&self) -> i32 {
        self.batch_length.get()
    }

    /// The leadership under which the batch was appended.
    pub fn partition_leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.partition_leader_epoch.get())
    }

    /// The format's version.
    pub fn magic(&self) -> i8 {
        self.magic
    }

    /// The stored CRC-32C.
    pub fn crc(&self) -> u32 {
        self.crc.get()
    }

    /// Compression, timestamp type and the flags.
    pub fn attributes(&self) -> Attributes {
        Attributes(self.attributes.get())
    }

    /// Last offset minus base offset; kept by compaction even when the last record goes.
    pub fn last_offset_delta(&self) -> i32 {
        self.last_offset_delta.get()
    }

    /// Offset of the last record; an absurd delta does not wrap.
    pub fn offset_last(&self) -> Offset {
        Offset(
            self.base_offset
                .get()
                .saturating_add(i64::from(self.last_offset_delta.get())),
        )
    }

    /// One past the last offset.
    pub fn offset_end(&self) -> Offset {
        Offset(self.offset_last().0.saturating_add(1))
    }

    /// What the records' timestamp deltas count from, in ms: the first record's timestamp, or the
    /// delete horizon.
    pub fn base_timestamp(&self) -> i64 {
        self.base_timestamp.get()
    }

    /// Largest timestamp of the records, or the append time, in ms.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp.get()
    }

    /// When the batch's tombstones may be removed, in ms (KIP-534).
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        self.attributes()
            .has_delete_horizon()
            .then(|| self.base_timestamp.get())
    }

    /// Id of the idempotent producer, or -1.
    pub fn producer_id(&self) -> i64 {
        self.producer_id.get()
    }

    /// Epoch of the idempotent producer, or -1.
    pub fn producer_epoch(&self) -> i16 {
        self.producer_epoch.get()
    }

    /// Sequence of the first record, or -1.
    pub fn base_sequence(&self) -> i32 {
        self.base_sequence.get()
    }

    /// Sequence of the last record: after 2147483647 comes 0. -1 where there is no sequence.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence.get() == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        sequence_plus(self.base_sequence.get(), self.last_offset_delta.get())
    }

    /// Whether an idempotent producer sent it.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id.get() > NO_PRODUCER_ID
    }

    /// Number of records, as stated.
    pub fn records_count(&self) -> i32 {
        self.records_count.get()
    }
}

/// `sequence` moved on by `increment`; after 2147483647 comes 0.
pub fn sequence_plus(sequence: i32, increment: i32) -> i32 {
    (i64::from(sequence) + i64::from(increment)).rem_euclid(1 << 31) as i32
}

/// Why bytes are not a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// The bytes end before the batch does.
    Truncated,
    /// The stated length cannot hold a header.
    LengthTooSmall {
        /// As stated.
        batch_length: i32,
    },
    /// The batch is followed by other bytes where it should be alone.
    TrailingBytes,
    /// A format before v2, or one that nobody knows.
    Magic(i8),
    /// The checksum does not match.
    Crc {
        /// In the header.
        stored: u32,
        /// Over the bytes.
        computed: u32,
    },
    /// Records count and last offset delta cannot both be right.
    CountMismatch,
}

/// One whole batch: the length is known to be right, nothing else.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    header: &'a BatchHeader,
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// Takes the first batch from `bytes` and returns it with the rest. Checks magic and length only.
    pub fn first(bytes: &'a [u8]) -> Result<(BatchView<'a>, &'a [u8]), BatchError> {
        match bytes.get(MAGIC_POSITION) {
            None => return Err(BatchError::Truncated),
            Some(&magic) if magic as i8 != MAGIC => return Err(BatchError::Magic(magic as i8)),
            Some(_) => {}
        }
        let header = BatchHeader::ref_from_prefix(bytes).ok_or(BatchError::Truncated)?;
        let batch_length = header.batch_length();
        let total = usize::try_from(batch_length)
            .ok()
            .map(|length| length + LENGTH_OVERHEAD_BYTES)
            .filter(|&total| total >= HEADER_BYTES)
            .ok_or(BatchError::LengthTooSmall { batch_length })?;
        let (batch, rest) = bytes.split_at_checked(total).ok_or(BatchError::Truncated)?;
        Ok((
            BatchView {
                header,
                bytes: batch,
            },
            rest,
        ))
    }

    /// `bytes` as exactly one batch.
    pub fn new(bytes: &'a [u8]) -> Result<BatchView<'a>, BatchError> {
        match BatchView::first(bytes)? {
            (batch, []) => Ok(batch),
            _ => Err(BatchError::TrailingBytes),
        }
    }

    /// The header.
    pub fn header(&self) -> &'a BatchHeader {
        self.header
    }

    /// The whole batch.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What follows the header: records, compressed or not.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// Length of the whole batch, in bytes.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Compares the checksum. Allocates nothing.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let (stored, computed) = (self.header.crc(), crc32c(&self.bytes[CRC_START..]));
        if stored == computed {
            Ok(())
        } else {
            Err(BatchError::Crc { stored, computed })
        }
    }

    /// Checks a stored batch: checksum, and a count that its offsets can hold (compaction leaves fewer
    /// records than offsets, down to none).
    pub fn verify(&self) -> Result<(), BatchError> {
        self.verify_crc()?;
        let (count, delta) = (self.header.records_count(), self.header.last_offset_delta());
        let fits = delta >= 0 && count >= 0 && i64::from(count) <= i64::from(delta) + 1;
        if fits {
            Ok(())
        } else {
            Err(BatchError::CountMismatch)
        }
    }
}

/// Walks a run of batches. See [`split`].
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    /// What has not been walked yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match BatchView::first(self.rest) {
            Ok((batch, rest)) => {
                self.rest = rest;
                Some(Ok(batch))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

/// Splits `bytes` into whole batches, checking magic and length of each. A cut-off or broken one ends
/// the walk with its error.
pub fn split(bytes: &[u8]) -> Batches<'_> {
    Batches { rest: bytes }
}

/// Why a produced batch is refused by its header, before its records are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProducedError {
    /// No bytes at all: INVALID_RECORD.
    Empty,
    /// More than one batch: INVALID_RECORD.
    SeveralBatches,
    /// Format 0 or 1: INVALID_RECORD.
    OldMagic(i8),
    /// A format that nobody knows: CORRUPT_MESSAGE.
    UnknownMagic(i8),
    /// The bytes end before the first batch does: INVALID_RECORD, for there is no batch.
    CutOff,
    /// A batch is never as short as its length says: CORRUPT_MESSAGE.
    Length {
        /// As stated, in bytes after the length itself.
        batch_length: i32,
    },
    /// Larger than max.message.bytes: MESSAGE_TOO_LARGE.
    TooLarge {
        /// Of the whole batch.
        batch_bytes: usize,
    },
    /// The checksum does not match: CORRUPT_MESSAGE.
    Crc {
        /// In the header.
        stored: u32,
        /// Over the bytes.
        computed: u32,
    },
    /// The base offset is not 0: INVALID_RECORD.
    BaseOffset(i64),
    /// A negative last offset delta: INVALID_RECORD.
    OffsetRange,
    /// No records: INVALID_RECORD.
    NoRecords,
    /// Count and last offset delta do not agree: INVALID_RECORD.
    CountMismatch {
        /// Stated number of records.
        records_count: i32,
        /// Stated last offset delta.
        last_offset_delta: i32,
    },
    /// A control batch, which only brokers write: INVALID_RECORD.
    Control,
    /// An idempotent batch with a negative sequence: INVALID_RECORD.
    NegativeSequence(i32),
    /// Compression 5, 6 or 7: UNKNOWN_SERVER_ERROR.
    UnknownCompression(i16),
}

/// Checks what a producer sent for one partition: exactly one v2 batch of at most `batch_bytes_max`
/// bytes, whose header agrees with itself and whose checksum matches. What comes back still needs its
/// records walked ([`crate::walk`]). Allocates nothing.
pub fn check_produced(
    records: &[u8],
    batch_bytes_max: usize,
) -> Result<BatchView<'_>, ProducedError> {
    if records.is_empty() {
        return Err(ProducedError::Empty);
    }
    check_frame(records)?;
    let (batch, rest) = BatchView::first(records).map_err(|error| match error {
        BatchError::Magic(magic) => ProducedError::OldMagic(magic),
        BatchError::LengthTooSmall { batch_length } => ProducedError::Length { batch_length },
        _ => ProducedError::CutOff,
    })?;
    if !rest.is_empty() {
        return Err(ProducedError::SeveralBatches);
    }
    let header = batch.header();
    if header.base_offset().0 != 0 {
        return Err(ProducedError::BaseOffset(header.base_offset().0));
    }
    if batch.len_bytes() > batch_bytes_max {
        return Err(ProducedError::TooLarge {
            batch_bytes: batch.len_bytes(),
        });
    }
    if let Err(BatchError::Crc { stored, computed }) = batch.verify_crc() {
        return Err(ProducedError::Crc { stored, computed });
    }
    let (records_count, last_offset_delta) = (header.records_count(), header.last_offset_delta());
    // i32::MAX as a delta would be 2^31 records: Kafka's count wraps there and refuses it too.
    if !(0..i32::MAX).contains(&last_offset_delta) {
        return Err(ProducedError::OffsetRange);
    }
    if records_count <= 0 {
        return Err(ProducedError::NoRecords);
    }
    if records_count != last_offset_delta + 1 {
        return Err(ProducedError::CountMismatch {
            records_count,
            last_offset_delta,
        });
    }
    let attributes = header.attributes();
    if attributes.is_control() {
        return Err(ProducedError::Control);
    }
    if header.has_producer_id() && header.base_sequence() < 0 {
        return Err(ProducedError::NegativeSequence(header.base_sequence()));
    }
    if attributes.compression().is_none() {
        return Err(ProducedError::UnknownCompression(
            attributes.0 & COMPRESSION_MASK,
        ));
    }
    Ok(batch)
}

/// What makes bytes a batch of any format, in the order in which Kafka looks: length, format, and all
/// of it being there.
fn check_frame(records: &[u8]) -> Result<(), ProducedError> {
    let Some(length) = records.get(BATCH_LENGTH_POSITION..LENGTH_OVERHEAD_BYTES) else {
        return Err(ProducedError::CutOff);
    };
    let batch_length = i32::from_be_bytes(length.try_into().expect("four bytes"));
    if batch_length < BATCH_LENGTH_MIN {
        return Err(ProducedError::Length { batch_length });
    }
    let Some(&magic) = records.get(MAGIC_POSITION) else {
        return Err(ProducedError::CutOff);
    };
    if !(0..=MAGIC).contains(&(magic as i8)) {
        return Err(ProducedError::UnknownMagic(magic as i8));
    }
    if records.len() - LENGTH_OVERHEAD_BYTES < batch_length as usize {
        return Err(ProducedError::CutOff);
    }
    Ok(())
}

/// Stamps base offset and leader epoch into a batch. Both lie outside the checksum.
///
/// Panics if `batch` is shorter than a header: the caller has checked it.
pub fn stamp(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    let header = header_mut(batch);
    header.base_offset.set(base_offset.0);
    header.partition_leader_epoch.set(leader_epoch.0);
}

/// Sets timestamp type and max timestamp of a whole batch, with a new checksum if that changes
/// anything. With LogAppendTime, `max_timestamp` is the append time, which all records then take.
///
/// Panics if `batch` is shorter than a header: the caller has checked it.
pub fn rewrite_timestamps(batch: &mut [u8], timestamp_type: TimestampType, max_timestamp: i64) {
    let header = header_mut(batch);
    let attributes = header.attributes().with_timestamp_type(timestamp_type);
    if header.attributes() == attributes && header.max_timestamp() == max_timestamp {
        return;
    }
    header.attributes.set(attributes.0);
    header.max_timestamp.set(max_timestamp);
    stamp_crc(batch);
}

/// Computes the checksum of a whole batch anew and stores it.
///
/// Panics if `batch` is shorter than a header: the caller has checked it.
pub fn stamp_crc(batch: &mut [u8]) {
    let crc = crc32c(&batch[CRC_START..]);
    header_mut(batch).crc.set(crc);
}

pub(crate) fn header_mut(batch: &mut [u8]) -> &mut BatchHeader {
    let (header, _) = BatchHeader::mut_from_prefix(batch).expect("a checked batch has a header");
    header
}

#[cfg(test)]
mod tests;
