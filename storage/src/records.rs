//! The records inside a batch: reading them one by one from uncompressed bytes, and writing one. Pure
//! code for consumers, tools, coordinators and compaction, on any thread; knows no file and no offset
//! beyond its batch's.

use crate::batch::{BatchHeader, BatchView, TimestampType};
use crate::compression::{CodecScratch, DecompressError, KEEP_BYTES_MAX, decompress};

/// Why records cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordsError {
    /// A record's bytes contradict themselves, or end early.
    Malformed,
    /// A record's length is no number: a varint of more than five bytes.
    RecordLength,
    /// Bytes remain after the stated number of records.
    TrailingBytes,
    /// The attributes name no known compression.
    UnknownCompression,
    /// The compressed bytes are not what their codec's format says.
    Decompress,
    /// Decompressed, the records are larger than allowed.
    TooLarge,
}

impl From<DecompressError> for RecordsError {
    fn from(error: DecompressError) -> RecordsError {
        match error {
            DecompressError::Corrupt => RecordsError::Decompress,
            DecompressError::TooLarge => RecordsError::TooLarge,
        }
    }
}

/// Bytes being read, with checks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn byte(&mut self) -> Result<u8, RecordsError> {
        let (&byte, rest) = self.rest.split_first().ok_or(RecordsError::Malformed)?;
        self.rest = rest;
        Ok(byte)
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], RecordsError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(bytes)
            .ok_or(RecordsError::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<i32, RecordsError> {
        read_varint(|| self.byte(), RecordsError::Malformed)
    }

    fn varlong(&mut self) -> Result<i64, RecordsError> {
        read_varlong(|| self.byte(), RecordsError::Malformed)
    }

    /// A length and that many bytes; -1 (and, as in Kafka, any negative length) is null.
    fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, RecordsError> {
        match usize::try_from(self.varint()?) {
            Ok(length) => self.take(length).map(Some),
            Err(_) => Ok(None),
        }
    }
}

/// Reads a zigzag varint of at most 5 bytes.
#[inline]
pub(crate) fn read_varint<E>(
    mut byte: impl FnMut() -> Result<u8, E>,
    too_long: E,
) -> Result<i32, E> {
    let mut value = 0_u32;
    for shift in (0..35).step_by(7) {
        let next = byte()?;
        value |= u32::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok((value >> 1) as i32 ^ -((value & 1) as i32));
        }
    }
    Err(too_long)
}

/// Reads a zigzag varint of at most 10 bytes.
#[inline]
pub(crate) fn read_varlong<E>(
    mut byte: impl FnMut() -> Result<u8, E>,
    too_long: E,
) -> Result<i64, E> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let next = byte()?;
        value |= u64::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(too_long)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Appends a zigzag varint. One function serves both widths: an i32 has the same bytes as an i64.
pub(crate) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Length of a zigzag varint, in bytes.
pub(crate) fn varlong_bytes(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// One record, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its offset in the partition.
    pub offset: i64,
    /// In ms since 1970, or -1; under LogAppendTime the batch's.
    pub timestamp: i64,
    /// Null is none.
    pub key: Option<&'a [u8]>,
    /// Null is none: a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// In order, duplicates kept.
    pub headers: Headers<'a>,
    /// Everything from the key's length to the end, as stored.
    pub(crate) tail: &'a [u8],
    /// The timestamp as the record states it, whatever the batch's timestamp type.
    pub(crate) timestamp_stated: i64,
}

/// A record's headers; checked when the record was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = Header<'a>;
    type IntoIter = HeaderIter<'a>;

    fn into_iter(self) -> HeaderIter<'a> {
        HeaderIter {
            left: self.count,
            cursor: Cursor { rest: self.bytes },
        }
    }
}

/// One header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// UTF-8 by convention; not checked.
    pub key: &'a [u8],
    /// Null is none.
    pub value: Option<&'a [u8]>,
}

/// Iterates over a record's headers.
#[derive(Clone, Debug)]
pub struct HeaderIter<'a> {
    left: usize,
    cursor: Cursor<'a>,
}

impl<'a> HeaderIter<'a> {
    fn read(&mut self) -> Result<Header<'a>, RecordsError> {
        let key = self
            .cursor
            .nullable_bytes()?
            .ok_or(RecordsError::Malformed)?;
        Ok(Header {
            key,
            value: self.cursor.nullable_bytes()?,
        })
    }
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        Some(
            self.read()
                .expect("headers were checked when the record was read"),
        )
    }
}

/// Iterates over the records of a batch, checking each; ends after the first error.
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    cursor: Cursor<'a>,
    left: i32,
    base_offset: i64,
    base_timestamp: i64,
    /// Under LogAppendTime, what every record's timestamp is.
    append_time: Option<i64>,
    ended: bool,
}

impl<'a> RecordIter<'a> {
    /// Over `uncompressed`, the records of the batch with this header.
    pub fn new(header: &BatchHeader, uncompressed: &'a [u8]) -> RecordIter<'a> {
        let append_time = (header.attributes().timestamp_type() == TimestampType::LogAppendTime)
            .then(|| header.max_timestamp());
        RecordIter {
            cursor: Cursor { rest: uncompressed },
            left: header.records_count(),
            base_offset: header.base_offset().0,
            base_timestamp: header.base_timestamp(),
            append_time,
            ended: false,
        }
    }

    fn read(&mut self) -> Result<Record<'a>, RecordsError> {
        let length = usize::try_from(self.cursor.varint()?).map_err(|_| RecordsError::Malformed)?;
        let mut body = Cursor {
            rest: self.cursor.take(length)?,
        };
        // Attributes of a record: no bit is in use.
        body.byte()?;
        let timestamp_stated = self.base_timestamp.wrapping_add(body.varlong()?);
        let offset = self.base_offset.wrapping_add(i64::from(body.varint()?));
        let tail = body.rest;
        let key = body.nullable_bytes()?;
        let value = body.nullable_bytes()?;
        let count = usize::try_from(body.varint()?).map_err(|_| RecordsError::Malformed)?;
        let headers = Headers {
            count,
            bytes: body.rest,
        };
        let mut walk = headers.into_iter();
        for _ in 0..count {
            walk.read()?;
        }
        if !walk.cursor.rest.is_empty() {
            return Err(RecordsError::Malformed);
        }
        let timestamp = self.append_time.unwrap_or(timestamp_stated);
        Ok(Record {
            offset,
            timestamp,
            key,
            value,
            headers,
            tail,
            timestamp_stated,
        })
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if self.left <= 0 {
            self.ended = true;
            return (!self.cursor.rest.is_empty()).then_some(Err(RecordsError::TrailingBytes));
        }
        self.left -= 1;
        let record = self.read();
        self.ended = record.is_err();
        Some(record)
    }
}

/// Memory for reading batches, used again from one to the next.
#[derive(Debug, Default)]
pub struct RecordsScratch {
    codec: CodecScratch,
    uncompressed: Vec<u8>,
}

impl RecordsScratch {
    /// Empty; grows to the largest batch read.
    pub fn new() -> RecordsScratch {
        RecordsScratch::default()
    }

    /// The codecs' memory, and a buffer.
    pub(crate) fn parts(&mut self) -> (&mut CodecScratch, &mut Vec<u8>) {
        (&mut self.codec, &mut self.uncompressed)
    }

    /// Reads the records of `batch`: in place if they are not compressed, else after decompressing at
    /// most `output_bytes_max`.
    pub fn records<'s>(
        &'s mut self,
        batch: &BatchView<'s>,
        output_bytes_max: u64,
    ) -> Result<RecordIter<'s>, RecordsError> {
        let bytes = self.uncompressed(batch, output_bytes_max)?;
        Ok(RecordIter::new(batch.header(), bytes))
    }

    /// The uncompressed payload of `batch`.
    pub fn uncompressed<'s>(
        &'s mut self,
        batch: &BatchView<'s>,
        output_bytes_max: u64,
    ) -> Result<&'s [u8], RecordsError> {
        let compression = batch
            .header()
            .attributes()
            .compression()
            .ok_or(RecordsError::UnknownCompression)?;
        // A batch that compaction has emptied has no compressed stream either.
        if compression == crate::batch::Compression::None || batch.payload().is_empty() {
            return Ok(batch.payload());
        }
        self.uncompressed.clear();
        // One odd batch must not pin memory for ever.
        self.uncompressed.shrink_to(KEEP_BYTES_MAX);
        decompress(
            compression,
            batch.payload(),
            &mut self.codec,
            output_bytes_max,
            &mut self.uncompressed,
        )?;
        Ok(&self.uncompressed)
    }
}

/// Appends one record. `headers` is walked three times.
pub(crate) fn put_record<'h>(
    out: &mut Vec<u8>,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl Iterator<Item = Header<'h>> + Clone,
) {
    let headers_count = headers.clone().count() as i64;
    let headers_bytes: usize = headers
        .clone()
        .map(|header| nullable_len(Some(header.key)) + nullable_len(header.value))
        .sum();
    let body = 1
        + varlong_bytes(timestamp_delta)
        + varlong_bytes(i64::from(offset_delta))
        + nullable_len(key)
        + nullable_len(value)
        + varlong_bytes(headers_count)
        + headers_bytes;
    put_varlong(out, body as i64);
    out.push(0);
    put_varlong(out, timestamp_delta);
    put_varlong(out, i64::from(offset_delta));
    put_nullable(out, key);
    put_nullable(out, value);
    put_varlong(out, headers_count);
    for header in headers {
        put_nullable(out, Some(header.key));
        put_nullable(out, header.value);
    }
}

/// Appends a record read from elsewhere, with other deltas.
pub(crate) fn put_record_tail(
    out: &mut Vec<u8>,
    timestamp_delta: i64,
    offset_delta: i32,
    tail: &[u8],
) {
    let body =
        1 + varlong_bytes(timestamp_delta) + varlong_bytes(i64::from(offset_delta)) + tail.len();
    put_varlong(out, body as i64);
    out.push(0);
    put_varlong(out, timestamp_delta);
    put_varlong(out, i64::from(offset_delta));
    out.extend_from_slice(tail);
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varlong_bytes(bytes.len() as i64) + bytes.len())
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varlong(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}

#[cfg(test)]
mod tests;
