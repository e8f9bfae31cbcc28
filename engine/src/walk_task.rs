//! Checking one produced batch against its topic: header, checksum, records, timestamps, codec. Runs on
//! the owning core, at once for what is small or not compressed, else as a task beside the serving
//! queue. Knows no offset and no producer state.

use net::kafka::error::ErrorCode;
use ring::buf::Chunk;
use storage::batch::{self, BatchView, Compression, ProducedError, TimestampType};
use storage::disk::Disk;
use storage::records::{RecordsError, RecordsScratch};
use storage::types::Now;
use storage::walk::{
    Recompress, RecordErrorKind, TimestampBounds, Walk, WalkError, WalkRules, WalkScratch,
    WalkSummary, output_bytes_max, wants_task,
};

use crate::config::topic::{CompressionType, TimestampType as ConfiguredTime, TopicConfig};
use crate::limits::WALK_INLINE_BYTES_MAX;
use crate::mesh::{AppendFault, AppendResult, PartitionRef};

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

    /// The codec and level that the topic wants and the batch does not have.
    fn recompress_to(&self, batch: &BatchView<'_>) -> Option<(Compression, i32)> {
        let compression = batch.header().attributes().compression();
        self.target
            .filter(|(target, _)| Some(*target) != compression)
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
    Refused(Box<Refusal>),
    /// The batch may be appended.
    Accepted(Accepted),
}

/// Why a batch is refused, as a client is told.
#[derive(Debug)]
pub struct Refusal {
    /// The answer, but for the log start offset.
    pub result: AppendResult,
    /// Whether the answer states the log start offset: as in Kafka, where a batch came as far as to be
    /// checked against its log, and is not corrupt or too large.
    pub tells_log_start: bool,
}

impl Refusal {
    /// Without a log start offset.
    fn early(result: AppendResult) -> Refusal {
        Refusal {
            result,
            tells_log_start: false,
        }
    }

    /// With a log start offset.
    fn at_log(result: AppendResult) -> Refusal {
        Refusal {
            result,
            tells_log_start: true,
        }
    }
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
    let done = |refusal| Checked::Done(Walked::Refused(Box::new(refusal)));
    let batch = match check_header(bytes, rules) {
        Ok(batch) => batch,
        Err(refusal) => return done(refusal),
    };
    let compression = batch.header().attributes().compression();
    let recompress_to = rules.recompress_to(&batch);
    if recompress_to.is_some() && bytes.len() > WALK_INLINE_BYTES_MAX {
        return Checked::Aside;
    }
    let must_walk =
        rules.walk_compressed || compression == Some(Compression::None) || recompress_to.is_some();
    if must_walk && wants_task(&batch, WALK_INLINE_BYTES_MAX) {
        return Checked::Aside;
    }
    let summary = if must_walk {
        match storage::walk::walk(&batch, &rules.walk_rules(bytes.len()), scratch) {
            Ok(summary) => Some(summary),
            Err(error) => return done(walk_refusal(&error, &batch)),
        }
    } else {
        None
    };
    let rewritten = match recompress_to {
        None => None,
        Some((target, level)) => {
            let bytes_max = rules.batch_bytes_max as u64;
            let mut scratch = RecordsScratch::new();
            match storage::walk::recompress(&batch, target, level, bytes_max, &mut scratch) {
                Ok(bytes) => Some(bytes),
                Err(error) => return done(recompress_refusal(error)),
            }
        }
    };
    Checked::Done(accept(&batch, rules, summary, rewritten))
}

fn check_header<'a>(bytes: &'a [u8], rules: &Rules) -> Result<BatchView<'a>, Refusal> {
    let batch = batch::check_produced(bytes, rules.batch_bytes_max).map_err(|error| {
        let mut refusal = produced_refusal(error);
        // Up to version 6 the codec is looked at before the log, for zstd is not allowed.
        if matches!(error, ProducedError::UnknownCompression(_)) && rules.api_version < 7 {
            refusal.tells_log_start = false;
        }
        refusal
    })?;
    let attributes = batch.header().attributes();
    if attributes.is_transactional() {
        return Err(Refusal::early(AppendResult::error(
            ErrorCode::TransactionalIdAuthorizationFailed,
        )));
    }
    if attributes.compression() == Some(Compression::Zstd) && rules.api_version < 7 {
        return Err(Refusal::early(AppendResult::error(
            ErrorCode::UnsupportedCompressionType,
        )));
    }
    Ok(batch)
}

fn accept(
    batch: &BatchView<'_>,
    rules: &Rules,
    summary: Option<WalkSummary>,
    mut rewritten: Option<Vec<u8>>,
) -> Walked {
    let header = batch.header();
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

/// What a client is told of a header. Kafka gives a reason only for the few with a message here.
fn produced_refusal(error: ProducedError) -> Refusal {
    let corrupt = ErrorCode::CorruptMessage;
    match error {
        ProducedError::Empty
        | ProducedError::CutOff
        | ProducedError::SeveralBatches
        | ProducedError::OldMagic(_) => {
            Refusal::early(AppendResult::error(ErrorCode::InvalidRecord))
        }
        ProducedError::UnknownMagic(magic) => Refusal::early(AppendResult::refused(
            corrupt,
            format!("record format {magic} is unknown"),
        )),
        ProducedError::Length { batch_length } if batch_length < batch::BATCH_LENGTH_MIN => {
            Refusal::early(AppendResult::refused(
                corrupt,
                format!("the batch's length is {batch_length}, less than any batch has"),
            ))
        }
        ProducedError::Length { .. } | ProducedError::Crc { .. } => {
            Refusal::early(AppendResult::error(corrupt))
        }
        ProducedError::TooLarge { .. } => {
            Refusal::early(AppendResult::error(ErrorCode::MessageTooLarge))
        }
        ProducedError::BaseOffset(_)
        | ProducedError::OffsetRange
        | ProducedError::NoRecords
        | ProducedError::CountMismatch { .. }
        | ProducedError::Control
        | ProducedError::NegativeSequence(_) => {
            Refusal::at_log(AppendResult::error(ErrorCode::InvalidRecord))
        }
        ProducedError::UnknownCompression(_) => {
            Refusal::at_log(AppendResult::error(ErrorCode::UnknownServerError))
        }
    }
}

/// What a client is told of records. What Kafka stumbles over without having a code for it is
/// UNKNOWN_SERVER_ERROR.
fn walk_refusal(error: &WalkError, batch: &BatchView<'_>) -> Refusal {
    let (errors, errors_count) = match error {
        WalkError::Records(error) => return records_refusal(*error),
        WalkError::Refused {
            errors,
            errors_count,
        } => (errors, *errors_count),
    };
    let compressed = batch.header().attributes().compression() != Some(Compression::None);
    let only_deltas = errors
        .iter()
        .all(|error| matches!(error.kind, RecordErrorKind::OffsetDelta { .. }));
    if compressed && only_deltas {
        return Refusal::at_log(AppendResult::error(ErrorCode::UnknownServerError));
    }
    let code = if error.is_timestamp() {
        ErrorCode::InvalidTimestamp
    } else {
        ErrorCode::InvalidRecord
    };
    let fault = AppendFault {
        record_errors: errors
            .iter()
            .map(|error| (error.index, Some(record_message(error.kind))))
            .collect(),
        message: Some(format!("{errors_count} records have been refused")),
    };
    Refusal::at_log(AppendResult {
        fault: Some(Box::new(fault)),
        ..AppendResult::error(code)
    })
}

fn records_refusal(error: RecordsError) -> Refusal {
    let code = match error {
        RecordsError::Malformed | RecordsError::TrailingBytes => ErrorCode::InvalidRecord,
        RecordsError::RecordLength
        | RecordsError::UnknownCompression
        | RecordsError::Decompress => ErrorCode::UnknownServerError,
        // A bound that Kafka does not have, so the client is told.
        RecordsError::TooLarge => {
            return Refusal::at_log(AppendResult::refused(
                ErrorCode::InvalidRecord,
                "the batch decompresses to more than is allowed",
            ));
        }
    };
    Refusal::at_log(AppendResult::error(code))
}

/// What a client is told when its batch does not fit in the topic's compression. Its records have been
/// walked within their bound, so what is too large is what came out.
fn recompress_refusal(error: RecordsError) -> Refusal {
    match error {
        RecordsError::TooLarge => Refusal::early(AppendResult::error(ErrorCode::MessageTooLarge)),
        other => records_refusal(other),
    }
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
        match self.checked(disk).await {
            Ok(walked) => walked,
            Err(refusal) => Walked::Refused(Box::new(refusal)),
        }
    }

    async fn checked<D: Disk>(&self, disk: &D) -> Result<Walked, Refusal> {
        let batch = check_header(&self.bytes, &self.rules)?;
        let walk_rules = self.rules.walk_rules(self.bytes.len());
        let mut scratch = WalkScratch::new();
        let refused = |error: WalkError| walk_refusal(&error, &batch);
        let mut walk = Walk::new(&batch, &walk_rules, &mut scratch).map_err(refused)?;
        let summary = loop {
            match walk.step(WALK_STEP_BYTES).map_err(refused)? {
                Some(summary) => break summary,
                None => disk.pause().await,
            }
        };
        drop(walk);
        let rewritten = match self.rules.recompress_to(&batch) {
            None => None,
            Some((target, level)) => {
                let bytes_max = self.rules.batch_bytes_max as u64;
                let mut scratch = RecordsScratch::new();
                let mut work = Recompress::new(&batch, target, level, bytes_max, &mut scratch)
                    .map_err(recompress_refusal)?;
                loop {
                    match work.step(WALK_STEP_BYTES).map_err(recompress_refusal)? {
                        Some(bytes) => break Some(bytes),
                        None => disk.pause().await,
                    }
                }
            }
        };
        Ok(accept(&batch, &self.rules, Some(summary), rewritten))
    }
}

#[cfg(test)]
mod tests;
