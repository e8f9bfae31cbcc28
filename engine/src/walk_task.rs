//! Checking one produced batch against its topic: header, checksum, records, timestamps, codec. Runs on
//! the owning core, at once for what is small or not compressed, else as a task beside the serving
//! queue. Knows no offset and no producer state.

use net::kafka::error::ErrorCode;
use ring::buf::Chunk;
use storage::batch::{self, BatchView, Compression, ProducedError, TimestampType};
use storage::disk::Disk;
use storage::records::RecordsScratch;
use storage::types::Now;
use storage::walk::{
    RecordErrorKind, TimestampBounds, Walk, WalkError, WalkRules, WalkScratch, WalkSummary,
    output_bytes_max, wants_task,
};

use crate::config::topic::{CompressionType, TimestampType as ConfiguredTime, TopicConfig};
use crate::limits::WALK_INLINE_BYTES_MAX;
use crate::mesh::{AppendResult, PartitionRef};

/// How much a task walks before it lets others run, in uncompressed bytes.
const WALK_STEP_BYTES: u64 = 256 << 10;

/// What a topic asks of a batch, and when.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    batch_bytes_max: usize,
    log_append_time: bool,
    before_max_ms: i64,
    after_max_ms: i64,
    keys_required: bool,
    target: Option<(Compression, i32)>,
    api_version: i16,
    now_ms: i64,
    walk_compressed: bool,
}

impl Rules {
    /// The rules of `config` for a Produce request of this version.
    pub fn new(config: &TopicConfig, api_version: i16, now: Now, walk_compressed: bool) -> Rules {
        Rules {
            batch_bytes_max: usize::try_from(config.message_bytes_max).unwrap_or(0),
            log_append_time: config.timestamp_type == ConfiguredTime::LogAppendTime,
            before_max_ms: config.timestamp_before_ms_max,
            after_max_ms: config.timestamp_after_ms_max,
            keys_required: config.log.cleanup_compact,
            target: target(config.compression),
            api_version,
            now_ms: now.wall_ms,
            walk_compressed,
        }
    }

    fn walk_rules(&self, batch_bytes: usize) -> WalkRules {
        WalkRules {
            keys_required: self.keys_required,
            timestamps: (!self.log_append_time).then_some(TimestampBounds {
                now_ms: self.now_ms,
                before_max_ms: self.before_max_ms,
                after_max_ms: self.after_max_ms,
            }),
            output_bytes_max: output_bytes_max(batch_bytes),
        }
    }
}

/// The codec that a topic asks for, with its level; `None`: the producer's.
fn target(compression: CompressionType) -> Option<(Compression, i32)> {
    match compression {
        CompressionType::Producer => None,
        CompressionType::Uncompressed => Some((Compression::None, 0)),
        CompressionType::Gzip(level) => Some((Compression::Gzip, level)),
        CompressionType::Snappy => Some((Compression::Snappy, 0)),
        CompressionType::Lz4(level) => Some((Compression::Lz4, level)),
        CompressionType::Zstd(level) => Some((Compression::Zstd, level)),
    }
}

/// What a check found.
#[derive(Debug)]
pub enum Walked {
    /// The batch is refused.
    Refused(Box<AppendResult>),
    /// The batch may be appended.
    Accepted(Accepted),
}

/// A batch that may be appended.
#[derive(Debug)]
pub struct Accepted {
    /// Its records.
    pub record_count: i32,
    /// Another form of the batch, where the topic asks for one or the header was wrong.
    pub rewritten: Option<Vec<u8>>,
    /// The append time that all records take, in milliseconds, where the topic says so.
    pub log_append_time_ms: Option<i64>,
}

/// Whether a check could be done at once.
#[derive(Debug)]
pub enum Checked {
    /// It was.
    Done(Walked),
    /// Its records are to be walked by a [`WalkTask`].
    Aside,
}

/// Checks a batch, at once if it is small.
pub fn check(bytes: &[u8], rules: &Rules, scratch: &mut WalkScratch) -> Checked {
    let batch = match check_header(bytes, rules) {
        Ok(batch) => batch,
        Err(result) => return Checked::Done(Walked::Refused(Box::new(result))),
    };
    let compression = batch.header().attributes().compression();
    let recompress = rules
        .target
        .is_some_and(|(target, _)| Some(target) != compression);
    if recompress && bytes.len() > WALK_INLINE_BYTES_MAX {
        return Checked::Aside;
    }
    let must_walk = rules.walk_compressed || compression == Some(Compression::None) || recompress;
    if must_walk && wants_task(&batch, WALK_INLINE_BYTES_MAX) {
        return Checked::Aside;
    }
    let summary = if must_walk {
        match storage::walk::walk(&batch, &rules.walk_rules(bytes.len()), scratch) {
            Ok(summary) => Some(summary),
            Err(error) => return Checked::Done(refused(&error)),
        }
    } else {
        None
    };
    Checked::Done(accept(&batch, rules, summary))
}

fn check_header<'a>(bytes: &'a [u8], rules: &Rules) -> Result<BatchView<'a>, AppendResult> {
    let batch = batch::check_produced(bytes, rules.batch_bytes_max).map_err(produced_error)?;
    let attributes = batch.header().attributes();
    if attributes.is_transactional() {
        return Err(AppendResult::error(
            ErrorCode::TransactionalIdAuthorizationFailed,
        ));
    }
    if attributes.compression() == Some(Compression::Zstd) && rules.api_version < 7 {
        return Err(AppendResult::refused(
            ErrorCode::UnsupportedCompressionType,
            "Produce below version 7 may not carry zstd",
        ));
    }
    Ok(batch)
}

fn accept(batch: &BatchView<'_>, rules: &Rules, summary: Option<WalkSummary>) -> Walked {
    let header = batch.header();
    let mut rewritten = None;
    let compression = header.attributes().compression();
    if let Some((target, level)) = rules.target
        && Some(target) != compression
    {
        let bound = output_bytes_max(batch.len_bytes());
        let mut scratch = RecordsScratch::new();
        match storage::walk::recompress(batch, target, level, bound, &mut scratch) {
            Ok(bytes) => rewritten = Some(bytes),
            Err(_) => {
                return Walked::Refused(Box::new(AppendResult::refused(
                    ErrorCode::InvalidRecord,
                    "the batch cannot be decompressed",
                )));
            }
        }
    }
    if !rules.log_append_time
        && let Some(summary) = summary
    {
        let as_stated = header.max_timestamp() == summary.max_timestamp
            && header.attributes().timestamp_type() == TimestampType::CreateTime;
        if !as_stated {
            let bytes = rewritten.get_or_insert_with(|| batch.bytes().to_vec());
            batch::rewrite_timestamps(bytes, TimestampType::CreateTime, summary.max_timestamp);
        }
    }
    Walked::Accepted(Accepted {
        record_count: header.records_count(),
        rewritten,
        log_append_time_ms: rules.log_append_time.then_some(rules.now_ms),
    })
}

fn produced_error(error: ProducedError) -> AppendResult {
    let invalid = |message: String| AppendResult::refused(ErrorCode::InvalidRecord, message);
    let corrupt = |message: String| AppendResult::refused(ErrorCode::CorruptMessage, message);
    match error {
        ProducedError::Empty => invalid("the partition's records are empty".into()),
        ProducedError::SeveralBatches => {
            invalid("a produce request holds one batch for each partition, not several".into())
        }
        ProducedError::OldMagic(magic) => {
            invalid(format!("record format {magic} is no longer written; 2 is"))
        }
        ProducedError::UnknownMagic(magic) => corrupt(format!("record format {magic} is unknown")),
        ProducedError::Length => corrupt("the batch's length does not fit the request".into()),
        ProducedError::TooLarge { batch_bytes } => AppendResult::refused(
            ErrorCode::MessageTooLarge,
            format!("the batch of {batch_bytes} bytes is larger than max.message.bytes"),
        ),
        ProducedError::Crc { stored, computed } => corrupt(format!(
            "the batch's checksum is {stored:#010x}, its bytes give {computed:#010x}"
        )),
        ProducedError::BaseOffset(offset) => {
            invalid(format!("the batch's base offset is {offset}, not 0"))
        }
        ProducedError::OffsetRange => invalid("the batch's last offset delta is negative".into()),
        ProducedError::NoRecords => invalid("the batch holds no records".into()),
        ProducedError::CountMismatch {
            records_count,
            last_offset_delta,
        } => invalid(format!(
            "the batch states {records_count} records and a last offset delta of {last_offset_delta}"
        )),
        ProducedError::Control => invalid("only brokers write control batches".into()),
        ProducedError::NegativeSequence(sequence) => {
            invalid(format!("an idempotent batch has the sequence {sequence}"))
        }
        ProducedError::UnknownCompression(id) => {
            corrupt(format!("compression type {id} is unknown"))
        }
    }
}

fn refused(error: &WalkError) -> Walked {
    let result = match error {
        WalkError::Records(error) => AppendResult::refused(
            ErrorCode::InvalidRecord,
            format!("the batch's records cannot be read: {error:?}"),
        ),
        WalkError::Refused { errors, .. } => {
            let code = if error.is_timestamp() {
                ErrorCode::InvalidTimestamp
            } else {
                ErrorCode::InvalidRecord
            };
            AppendResult {
                record_errors: errors
                    .iter()
                    .map(|error| (error.index, Some(record_message(error.kind))))
                    .collect(),
                ..AppendResult::refused(code, "One or more records have been rejected")
            }
        }
    };
    Walked::Refused(Box::new(result))
}

fn record_message(kind: RecordErrorKind) -> String {
    match kind {
        RecordErrorKind::NullKey => "a compacted topic takes no record without a key".into(),
        RecordErrorKind::Timestamp { timestamp } => {
            format!("the timestamp {timestamp} is out of the allowed range")
        }
        RecordErrorKind::OffsetDelta { offset_delta } => {
            format!("the offset delta {offset_delta} does not follow")
        }
    }
}

/// The check of one batch as slow work. It owns the batch meanwhile.
#[derive(Debug)]
pub struct WalkTask {
    partition: PartitionRef,
    bytes: Chunk,
    rules: Rules,
}

/// A finished walk.
#[derive(Debug)]
pub struct WalkDone {
    /// Where the batch is queued.
    pub partition: PartitionRef,
    /// The batch.
    pub bytes: Chunk,
    /// What was found.
    pub walked: Walked,
}

impl WalkTask {
    /// Walks `bytes`, whose header has been checked.
    pub fn new(partition: PartitionRef, bytes: Chunk, rules: Rules) -> WalkTask {
        WalkTask {
            partition,
            bytes,
            rules,
        }
    }

    /// Does the work, in steps.
    pub async fn run<D: Disk>(self, disk: D) -> WalkDone {
        let walked = self.walk(&disk).await;
        WalkDone {
            partition: self.partition,
            bytes: self.bytes,
            walked,
        }
    }

    async fn walk<D: Disk>(&self, disk: &D) -> Walked {
        let batch = match check_header(&self.bytes, &self.rules) {
            Ok(batch) => batch,
            Err(result) => return Walked::Refused(Box::new(result)),
        };
        let walk_rules = self.rules.walk_rules(self.bytes.len());
        let mut scratch = WalkScratch::new();
        let summary = {
            let mut walk = match Walk::new(&batch, &walk_rules, &mut scratch) {
                Ok(walk) => walk,
                Err(error) => return refused(&error),
            };
            loop {
                match walk.step(WALK_STEP_BYTES) {
                    Ok(Some(summary)) => break summary,
                    Ok(None) => disk.pause().await,
                    Err(error) => return refused(&error),
                }
            }
        };
        accept(&batch, &self.rules, Some(summary))
    }
}
