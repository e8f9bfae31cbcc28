//! Produce requests of versions 9 to 12, read in place and answered by hand, without an allocation. The loop's thread; knows no socket.

use std::fmt;
use std::io;

use net::kafka::ApiKey;
use net::kafka::error::ErrorCode;
use net::wire::{DecodeError, Reader};

use super::Journal;

/// The versions that look alike on the wire, as far as is read and written here.
const VERSIONS: std::ops::RangeInclusive<i16> = 9..=12;
/// The largest partition that has a counter of offsets.
const PARTITION_MAX: i32 = 1_000_000;
/// What stands before the checksummed part of a batch, and where in it the length and the checksum are, in bytes.
const CHECKED_FROM: usize = 21;
const LENGTH_AT: usize = 8;
const CHECKSUM_AT: usize = 17;
const RECORDS_COUNT_AT: usize = 57;
const HEADER_BYTES: usize = 61;
/// What the journal keeps before each batch: partition, length, base offset.
const ENTRY_BYTES: usize = 16;

/// Why a request cannot be served.
#[derive(Debug)]
pub enum Refusal {
    /// It is no Produce request of a known version.
    Unknown(i16, i16),
    /// It ends too early, or a field is out of range.
    Malformed,
    /// The journal failed.
    Journal(io::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Unknown(key, version) => write!(
                f,
                "a request with key {key} in version {version}; the bare loop knows Produce 9 to 12"
            ),
            Refusal::Malformed => f.write_str("a request that cannot be read"),
            Refusal::Journal(error) => write!(f, "the journal failed: {error}"),
        }
    }
}

impl From<DecodeError> for Refusal {
    fn from(_: DecodeError) -> Refusal {
        Refusal::Malformed
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal::Journal(error)
    }
}

/// The next offset of each partition.
#[derive(Debug, Default)]
pub struct Offsets(Vec<i64>);

impl Offsets {
    fn take(&mut self, partition: i32, count: i64) -> Result<i64, Refusal> {
        if !(0..=PARTITION_MAX).contains(&partition) {
            return Err(Refusal::Malformed);
        }
        let partition = partition as usize;
        if partition >= self.0.len() {
            self.0.resize(partition + 1, 0);
        }
        let base = self.0[partition];
        self.0[partition] += count;
        Ok(base)
    }
}

/// Serves one request (without its size): every batch is checked and copied into the journal's buffer, and the answer is
/// appended to `answers`, to be sent when the journal is flushed.
///
/// # Errors
/// Why there is no answer; the connection must close.
pub fn serve(
    request: &[u8],
    journal: &mut Journal,
    offsets: &mut Offsets,
    answers: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let mut reader = Reader::new(request);
    let (key, version) = (reader.i16()?, reader.i16()?);
    if key != ApiKey::Produce as i16 || !VERSIONS.contains(&version) {
        return Err(Refusal::Unknown(key, version));
    }
    let correlation_id = reader.take(4)?;
    let client_id_bytes = reader.i16()?;
    reader.take(client_id_bytes.max(0) as usize)?;
    reader.skip_tagged_fields()?;
    compact_bytes(&mut reader)?;
    let acks = reader.i16()?;
    reader.i32()?;
    let topics = reader.unsigned_varint()?;

    let answer_from = answers.len();
    answers.extend_from_slice(&[0; 4]);
    answers.extend_from_slice(correlation_id);
    answers.push(0);
    put_varint(answers, topics);
    for _ in 1..topics {
        let name = compact_bytes(&mut reader)?;
        put_varint(answers, name.len() as u32 + 1);
        answers.extend_from_slice(name);
        let partitions = reader.unsigned_varint()?;
        put_varint(answers, partitions);
        for _ in 1..partitions {
            let partition = reader.i32()?;
            let batch = compact_bytes(&mut reader)?;
            reader.skip_tagged_fields()?;
            let outcome = append(partition, batch, journal, offsets)?;
            let (error, base_offset) = match outcome {
                Ok(base_offset) => (ErrorCode::None, base_offset),
                Err(error) => (error, -1),
            };
            answers.extend_from_slice(&partition.to_be_bytes());
            answers.extend_from_slice(&error.code().to_be_bytes());
            answers.extend_from_slice(&base_offset.to_be_bytes());
            // log_append_time_ms, log_start_offset, no record errors, no message, no tagged fields.
            answers.extend_from_slice(&(-1i64).to_be_bytes());
            answers.extend_from_slice(&0i64.to_be_bytes());
            answers.extend_from_slice(&[1, 0, 0]);
        }
        reader.skip_tagged_fields()?;
        answers.push(0);
    }
    reader.skip_tagged_fields()?;
    // throttle_time_ms, no tagged fields.
    answers.extend_from_slice(&[0; 5]);
    if acks == 0 {
        answers.truncate(answer_from);
        return Ok(());
    }
    let size = (answers.len() - answer_from - 4) as u32;
    answers[answer_from..answer_from + 4].copy_from_slice(&size.to_be_bytes());
    Ok(())
}

/// Checks one batch and copies it, once, with its offset.
fn append(
    partition: i32,
    batch: &[u8],
    journal: &mut Journal,
    offsets: &mut Offsets,
) -> Result<Result<i64, ErrorCode>, Refusal> {
    if batch.len() < HEADER_BYTES || number(batch, LENGTH_AT) as usize != batch.len() - 12 {
        return Ok(Err(ErrorCode::InvalidRecord));
    }
    if crc_fast::crc32_iscsi(&batch[CHECKED_FROM..]) != number(batch, CHECKSUM_AT) {
        return Ok(Err(ErrorCode::CorruptMessage));
    }
    let base_offset = offsets.take(partition, i64::from(number(batch, RECORDS_COUNT_AT)))?;
    let room = journal.reserve(ENTRY_BYTES + batch.len())?;
    let (head, body) = room.split_at_mut(ENTRY_BYTES);
    head[..4].copy_from_slice(&partition.to_be_bytes());
    head[4..8].copy_from_slice(&(batch.len() as u32).to_be_bytes());
    head[8..].copy_from_slice(&base_offset.to_be_bytes());
    body.copy_from_slice(batch);
    body[..8].copy_from_slice(&base_offset.to_be_bytes());
    Ok(Ok(base_offset))
}

fn number(batch: &[u8], at: usize) -> u32 {
    let bytes = batch[at..at + 4].try_into();
    u32::from_be_bytes(bytes.expect("four bytes"))
}

/// Bytes, or a string, whose length stands before them as a varint that is one more; null is empty.
fn compact_bytes<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Refusal> {
    let length = reader.unsigned_varint()?.saturating_sub(1);
    Ok(reader.take(length as usize)?)
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
