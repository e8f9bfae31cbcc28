//! Walks the records of a produced batch the way Kafka's validator does, as a bounded stream: on the
//! owning core for what is small or not compressed, in steps inside a task for the rest. Keeps no
//! record, and knows no topic: the rules come from the caller.

mod in_place;

use crate::batch::{BatchView, Compression, NO_TIMESTAMP, TimestampType};
use crate::compression::{CodecScratch, Decoder, DecompressError};
use crate::records::{RecordsError, read_varint, read_varlong};

pub use crate::recompress::{Recompress, recompress};

/// What a decoder fills at a time, in bytes.
pub(crate) const WINDOW_BYTES: usize = 64 * 1024;
/// How many refused records are told apart; more are only counted.
pub const RECORD_ERRORS_MAX: usize = 1000;
/// What any batch may decompress to, in bytes.
const OUTPUT_BYTES_FLOOR: u64 = 256 * 1024 * 1024;
/// What a large batch may expand by.
const OUTPUT_EXPANSION: u64 = 32;

/// Default bound of what a batch of this length may decompress to, in bytes: far beyond what producers
/// send, far below what a bomb wants.
pub fn output_bytes_max(batch_bytes: usize) -> u64 {
    OUTPUT_BYTES_FLOOR.max((batch_bytes as u64).saturating_mul(OUTPUT_EXPANSION))
}

/// Whether walking `batch` is long enough work to be done in a task: decompressing costs about a
/// millisecond for 100 KiB of gzip.
pub fn wants_task(batch: &BatchView<'_>, compressed_bytes_max: usize) -> bool {
    batch.header().attributes().compression() != Some(Compression::None)
        && batch.len_bytes() > compressed_bytes_max
}

/// What a topic asks of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkRules {
    /// Compacted topics need a key on every record.
    pub keys_required: bool,
    /// None under LogAppendTime, where the producer's timestamps do not matter.
    pub timestamps: Option<TimestampBounds>,
    /// Bound of what the batch may decompress to; see [`output_bytes_max`].
    pub output_bytes_max: u64,
}

/// How far timestamps may lie from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampBounds {
    /// The broker's clock, in ms since 1970.
    pub now_ms: i64,
    /// message.timestamp.before.max.ms.
    pub before_max_ms: i64,
    /// message.timestamp.after.max.ms.
    pub after_max_ms: i64,
}

impl TimestampBounds {
    /// Whether a record may have this timestamp; none (-1) is always allowed.
    pub fn allows(&self, timestamp: i64) -> bool {
        let age_ms = self.now_ms.saturating_sub(timestamp);
        timestamp == NO_TIMESTAMP
            || (age_ms <= self.before_max_ms && age_ms.saturating_neg() <= self.after_max_ms)
    }
}

/// What a walk found in a good batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkSummary {
    /// Number of records, as stated and as found.
    pub records_count: i32,
    /// Largest timestamp, in ms, or -1: what the header must say under CreateTime.
    pub max_timestamp: i64,
    /// Offset of the first record with it, relative to the base offset.
    pub max_timestamp_offset_delta: i32,
    /// Length of the records uncompressed, in bytes.
    pub uncompressed_bytes: u64,
}

/// Why a batch is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalkError {
    /// Its records cannot be read, or are not as many as stated: INVALID_RECORD.
    Records(RecordsError),
    /// Some records break the rules. INVALID_TIMESTAMP if any of them does so by its timestamp, else
    /// INVALID_RECORD.
    Refused {
        /// In order; at most [`RECORD_ERRORS_MAX`].
        errors: Vec<RecordError>,
        /// How many there are in all.
        errors_count: u64,
    },
}

impl WalkError {
    /// Whether the batch is refused for a timestamp.
    pub fn is_timestamp(&self) -> bool {
        match self {
            WalkError::Records(_) => false,
            WalkError::Refused { errors, .. } => errors
                .iter()
                .any(|error| matches!(error.kind, RecordErrorKind::Timestamp { .. })),
        }
    }
}

/// One record that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// Which record of the batch; counts from 0.
    pub index: i32,
    /// Which rule.
    pub kind: RecordErrorKind,
}

/// The rule that a record breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordErrorKind {
    /// No key, in a compacted topic.
    NullKey,
    /// A timestamp too far from now.
    Timestamp {
        /// The record's, in ms.
        timestamp: i64,
    },
    /// Its offset delta is not its index.
    OffsetDelta {
        /// The record's.
        offset_delta: i32,
    },
}

/// Memory for walks, used again from one to the next.
#[derive(Debug, Default)]
pub struct WalkScratch {
    codec: CodecScratch,
    window: Vec<u8>,
}

impl WalkScratch {
    /// Empty; grows to 64 KiB, and a codec's window, with the first compressed batch.
    pub fn new() -> WalkScratch {
        WalkScratch::default()
    }
}

/// Walks the records of `batch` at once. See [`Walk`] for walking in steps.
pub fn walk(
    batch: &BatchView<'_>,
    rules: &WalkRules,
    scratch: &mut WalkScratch,
) -> Result<WalkSummary, WalkError> {
    if batch.header().attributes().compression() == Some(Compression::None)
        && let Some(summary) = in_place::walk(batch, rules)
    {
        return Ok(summary);
    }
    let mut walk = Walk::new(batch, rules, scratch)?;
    loop {
        if let Some(summary) = walk.step(u64::MAX)? {
            return Ok(summary);
        }
    }
}

/// A walk in progress.
pub struct Walk<'a> {
    source: Source<'a>,
    state: State,
}

enum Source<'a> {
    InPlace(Slice<'a>),
    Compressed(Stream<'a>),
}

impl<'a> Walk<'a> {
    /// Prepares to walk `batch`, whose header and checksum have been checked.
    pub fn new(
        batch: &BatchView<'a>,
        rules: &WalkRules,
        scratch: &'a mut WalkScratch,
    ) -> Result<Walk<'a>, WalkError> {
        let header = batch.header();
        let compression = header
            .attributes()
            .compression()
            .ok_or(WalkError::Records(RecordsError::UnknownCompression))?;
        let source = match compression {
            Compression::None => Source::InPlace(Slice {
                rest: batch.payload(),
            }),
            _ => {
                scratch.window.resize(WINDOW_BYTES, 0);
                let decoder = Decoder::new(
                    compression,
                    batch.payload(),
                    &mut scratch.codec,
                    rules.output_bytes_max,
                )
                .map_err(|error| WalkError::Records(error.into()))?;
                Source::Compressed(Stream {
                    decoder,
                    window: &mut scratch.window,
                    position: 0,
                    end: 0,
                })
            }
        };
        let append_time = (header.attributes().timestamp_type() == TimestampType::LogAppendTime)
            .then(|| header.max_timestamp());
        Ok(Walk {
            source,
            state: State {
                rules: *rules,
                records_count: header.records_count(),
                base_timestamp: header.base_timestamp(),
                append_time,
                index: 0,
                part: Part::RecordStart,
                skip_bytes: 0,
                record_left_bytes: 0,
                walked_bytes: 0,
                max_timestamp: NO_TIMESTAMP,
                max_timestamp_offset_delta: 0,
                errors: Vec::new(),
                errors_count: 0,
            },
        })
    }

    /// Walks on for about `budget_bytes` of uncompressed records. None: there is more to walk.
    pub fn step(&mut self, budget_bytes: u64) -> Result<Option<WalkSummary>, WalkError> {
        let ended = match &mut self.source {
            Source::InPlace(source) => self.state.run(source, budget_bytes),
            Source::Compressed(source) => self.state.run(source, budget_bytes),
        };
        if !ended.map_err(WalkError::Records)? {
            return Ok(None);
        }
        if self.state.errors_count > 0 {
            return Err(WalkError::Refused {
                errors: std::mem::take(&mut self.state.errors),
                errors_count: self.state.errors_count,
            });
        }
        Ok(Some(WalkSummary {
            records_count: self.state.index,
            max_timestamp: self.state.max_timestamp,
            max_timestamp_offset_delta: self.state.max_timestamp_offset_delta,
            uncompressed_bytes: self.state.walked_bytes,
        }))
    }
}

/// Where a walk's bytes come from.
trait ByteSource {
    /// The next byte; None at the end.
    fn next(&mut self) -> Result<Option<u8>, DecompressError>;
    /// Skips at least one and at most `bytes_max` bytes; 0 at the end. May stop early.
    fn skip(&mut self, bytes_max: u64) -> Result<u64, DecompressError>;
}

struct Slice<'a> {
    rest: &'a [u8],
}

impl ByteSource for Slice<'_> {
    #[inline]
    fn next(&mut self) -> Result<Option<u8>, DecompressError> {
        Ok(self.rest.split_off_first().copied())
    }

    #[inline]
    fn skip(&mut self, bytes_max: u64) -> Result<u64, DecompressError> {
        let bytes = self
            .rest
            .len()
            .min(usize::try_from(bytes_max).unwrap_or(usize::MAX));
        self.rest = &self.rest[bytes..];
        Ok(bytes as u64)
    }
}

struct Stream<'a> {
    decoder: Decoder<'a>,
    window: &'a mut [u8],
    position: usize,
    end: usize,
}

impl Stream<'_> {
    /// Whether there are bytes in the window, after filling it if there were none.
    #[inline]
    fn has_bytes(&mut self) -> Result<bool, DecompressError> {
        if self.position == self.end {
            self.position = 0;
            self.end = 0;
            self.end = self.decoder.fill(self.window)?;
        }
        Ok(self.end > 0)
    }
}

impl ByteSource for Stream<'_> {
    #[inline]
    fn next(&mut self) -> Result<Option<u8>, DecompressError> {
        if !self.has_bytes()? {
            return Ok(None);
        }
        let byte = self.window[self.position];
        self.position += 1;
        Ok(Some(byte))
    }

    #[inline]
    fn skip(&mut self, bytes_max: u64) -> Result<u64, DecompressError> {
        if !self.has_bytes()? {
            return Ok(0);
        }
        let bytes = ((self.end - self.position) as u64).min(bytes_max);
        self.position += bytes as usize;
        Ok(bytes)
    }
}

/// What comes next in the record being walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    RecordStart,
    Value,
    HeadersCount,
    HeaderKey { left: i32 },
    HeaderValue { left: i32 },
    RecordEnd,
}

struct State {
    rules: WalkRules,
    records_count: i32,
    base_timestamp: i64,
    append_time: Option<i64>,
    /// Which record is being walked.
    index: i32,
    part: Part,
    /// Of a key or value that was announced and not passed yet.
    skip_bytes: u64,
    /// What the record's length leaves.
    record_left_bytes: u64,
    walked_bytes: u64,
    max_timestamp: i64,
    max_timestamp_offset_delta: i32,
    errors: Vec<RecordError>,
    errors_count: u64,
}

impl State {
    /// True at the end of the batch, false when the budget is spent.
    fn run<S: ByteSource>(
        &mut self,
        source: &mut S,
        budget_bytes: u64,
    ) -> Result<bool, RecordsError> {
        let stop = self.walked_bytes.saturating_add(budget_bytes);
        loop {
            while self.skip_bytes > 0 {
                let skipped = source.skip(self.skip_bytes)?;
                if skipped == 0 {
                    return Err(RecordsError::Malformed);
                }
                self.skip_bytes -= skipped;
                self.record_left_bytes -= skipped;
                self.walked_bytes += skipped;
                if self.walked_bytes >= stop {
                    return Ok(false);
                }
            }
            match self.part {
                Part::RecordStart => {
                    if self.walked_bytes >= stop {
                        return Ok(false);
                    }
                    if self.index >= self.records_count {
                        return match source.next()? {
                            None => Ok(true),
                            Some(_) => Err(RecordsError::TrailingBytes),
                        };
                    }
                    self.record_start(source)?;
                }
                Part::Value => {
                    self.skip_bytes = self.length(source)?.unwrap_or(0);
                    self.part = Part::HeadersCount;
                }
                Part::HeadersCount => {
                    let left = self.varint(source)?;
                    self.part = match left {
                        ..0 => return Err(RecordsError::Malformed),
                        0 => Part::RecordEnd,
                        1.. => Part::HeaderKey { left },
                    };
                }
                Part::HeaderKey { left } => {
                    // A header's key is never null.
                    self.skip_bytes = self.length(source)?.ok_or(RecordsError::Malformed)?;
                    self.part = Part::HeaderValue { left };
                }
                Part::HeaderValue { left } => {
                    self.skip_bytes = self.length(source)?.unwrap_or(0);
                    self.part = match left {
                        1 => Part::RecordEnd,
                        _ => Part::HeaderKey { left: left - 1 },
                    };
                }
                Part::RecordEnd => {
                    if self.record_left_bytes != 0 {
                        return Err(RecordsError::Malformed);
                    }
                    self.index += 1;
                    self.part = Part::RecordStart;
                }
            }
        }
    }

    /// Reads from a record's length to its key's, and applies the rules.
    fn record_start<S: ByteSource>(&mut self, source: &mut S) -> Result<(), RecordsError> {
        // Of the length field nothing is left over: five bytes are what it may take.
        self.record_left_bytes = 5;
        let length = read_varint(|| self.byte(source), RecordsError::RecordLength)?;
        self.record_left_bytes = u64::try_from(length).map_err(|_| RecordsError::Malformed)?;
        // Attributes of a record: no bit is in use.
        self.byte(source)?;
        let timestamp_delta = read_varlong(|| self.byte(source), RecordsError::Malformed)?;
        let offset_delta = self.varint(source)?;
        let key_bytes = self.length(source)?;

        let timestamp = self
            .append_time
            .unwrap_or_else(|| self.base_timestamp.wrapping_add(timestamp_delta));
        if timestamp > self.max_timestamp {
            self.max_timestamp = timestamp;
            self.max_timestamp_offset_delta = self.index;
        }
        if self.rules.keys_required && key_bytes.is_none() {
            self.refuse(RecordErrorKind::NullKey);
        } else if self
            .rules
            .timestamps
            .is_some_and(|bounds| !bounds.allows(timestamp))
        {
            self.refuse(RecordErrorKind::Timestamp { timestamp });
        } else if offset_delta != self.index {
            self.refuse(RecordErrorKind::OffsetDelta { offset_delta });
        }
        self.skip_bytes = key_bytes.unwrap_or(0);
        self.part = Part::Value;
        Ok(())
    }

    #[cold]
    fn refuse(&mut self, kind: RecordErrorKind) {
        self.errors_count += 1;
        if self.errors.len() < RECORD_ERRORS_MAX {
            self.errors.push(RecordError {
                index: self.index,
                kind,
            });
        }
    }

    #[inline]
    fn byte<S: ByteSource>(&mut self, source: &mut S) -> Result<u8, RecordsError> {
        self.record_left_bytes = self
            .record_left_bytes
            .checked_sub(1)
            .ok_or(RecordsError::Malformed)?;
        self.walked_bytes += 1;
        source.next()?.ok_or(RecordsError::Malformed)
    }

    #[inline]
    fn varint<S: ByteSource>(&mut self, source: &mut S) -> Result<i32, RecordsError> {
        read_varint(|| self.byte(source), RecordsError::Malformed)
    }

    /// A length that fits into the record; None is null.
    #[inline]
    fn length<S: ByteSource>(&mut self, source: &mut S) -> Result<Option<u64>, RecordsError> {
        match u64::try_from(self.varint(source)?) {
            Ok(length) if length <= self.record_left_bytes => Ok(Some(length)),
            Ok(_) => Err(RecordsError::Malformed),
            Err(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
