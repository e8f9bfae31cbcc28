//! Segments and indexes as text, in the format of Kafka 4.3's log dump tool. For the offline tool, on
//! its own thread; knows no file: bytes come in, lines go out, and what a topic's records mean comes
//! from the caller.

use std::collections::VecDeque;
use std::fmt::Write as _;

use crate::batch::{BatchError, BatchView, TimestampType, sequence_plus};
use crate::index::{OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES, offset_entries, time_entries};
use crate::records::{Record, RecordsError, RecordsScratch};
use crate::walk::output_bytes_max;

/// What to show of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpOptions {
    /// Records too, not only batches (`--deep-iteration`).
    pub deep: bool,
    /// Keys and values of the records (`--print-data-log`, which implies deep).
    pub print_data: bool,
    /// Of the records only keys and values (`--skip-record-metadata`).
    pub skip_record_metadata: bool,
    /// Stop before the batch that would pass this many bytes (`--max-bytes`).
    pub bytes_max: Option<u64>,
}

/// Turns a record into the text of its key and value; None leaves one out.
pub type RecordText<'d> = dyn FnMut(&Record<'_>) -> (Option<String>, Option<String>) + 'd;

/// Keys and values as UTF-8, replacing what is not: the tool's default.
pub fn plain_text(record: &Record<'_>) -> (Option<String>, Option<String>) {
    let text = |bytes: Option<&[u8]>| bytes.map(|b| String::from_utf8_lossy(b).into_owned());
    (text(record.key), text(record.value))
}

/// Why a dump ends early; Kafka's tool ends with an exception and exit code 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpError {
    /// A length that no batch can have, as stated: the file was not cut to its contents, or is damaged.
    BatchLength(i32),
    /// A format that this tool does not read.
    Magic(i8),
    /// The records of a batch cannot be read.
    Records(RecordsError),
}

impl std::fmt::Display for DumpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DumpError::BatchLength(length) => {
                write!(f, "Found a batch of length {length}, which cannot be")
            }
            DumpError::Magic(magic) => write!(f, "Found a batch of format {magic}, not 2"),
            DumpError::Records(error) => write!(f, "Found records that cannot be read: {error:?}"),
        }
    }
}

impl std::error::Error for DumpError {}

/// The lines of one segment, after "Dumping" and "Log starting offset".
pub struct LogDump<'a, 'd> {
    segment: &'a [u8],
    position: u64,
    options: DumpOptions,
    text: Box<RecordText<'d>>,
    scratch: RecordsScratch,
    lines: VecDeque<Result<String, DumpError>>,
    ended: bool,
    trailing_bytes: u64,
    last_offset: i64,
    gaps: Vec<(i64, i64)>,
}

impl<'a, 'd> LogDump<'a, 'd> {
    /// Over the contents of a segment file. `text` is asked for keys and values.
    pub fn new(
        segment: &'a [u8],
        options: DumpOptions,
        text: impl FnMut(&Record<'_>) -> (Option<String>, Option<String>) + 'd,
    ) -> LogDump<'a, 'd> {
        LogDump {
            segment,
            position: 0,
            options,
            text: Box::new(text),
            scratch: RecordsScratch::new(),
            lines: VecDeque::new(),
            ended: false,
            trailing_bytes: 0,
            last_offset: -1,
            gaps: Vec::new(),
        }
    }

    /// Bytes at the end that are no whole batch, once all lines have been taken. The tool says "Found N
    /// invalid bytes at the end of FILE".
    pub fn trailing_bytes(&self) -> u64 {
        self.trailing_bytes
    }

    /// Pairs of offsets that do not follow each other, in a deep dump, as lines for standard error;
    /// none if all do. `file` is the segment's absolute path.
    pub fn gaps_report(&self, file: &str) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.gaps.is_empty() {
            lines.push(format!("Non-consecutive offsets in {file}"));
            lines.extend(
                self.gaps
                    .iter()
                    .map(|(a, b)| format!("  {a} is followed by {b}")),
            );
        }
        lines
    }

    /// Queues the lines of the next batch; false at the end.
    fn next_batch(&mut self) -> bool {
        let rest = &self.segment[self.position as usize..];
        if rest.iter().all(|byte| *byte == 0) {
            // Space that a segment in use has set aside, or the padding of its last block.
            return false;
        }
        let batch = match BatchView::first(rest) {
            Ok((batch, _)) => batch,
            Err(BatchError::LengthTooSmall { batch_length }) => {
                self.lines
                    .push_back(Err(DumpError::BatchLength(batch_length)));
                return false;
            }
            Err(BatchError::Magic(magic)) => {
                // Zeros where a batch should begin have magic 0 too; their length tells.
                let length = rest[8..12].try_into().map_or(0, i32::from_be_bytes);
                self.lines.push_back(Err(match length {
                    ..14 => DumpError::BatchLength(length),
                    14.. => DumpError::Magic(magic),
                }));
                return false;
            }
            Err(_) => {
                self.trailing_bytes = rest.len() as u64;
                return false;
            }
        };
        let end = self.position + batch.len_bytes() as u64;
        if self
            .options
            .bytes_max
            .is_some_and(|bytes_max| end > bytes_max)
        {
            return false;
        }
        self.lines.push_back(Ok(batch_line(&batch, self.position)));
        self.position = end;
        let deep = self.options.deep || self.options.print_data;
        if deep && let Err(error) = self.record_lines(&batch) {
            self.lines.push_back(Err(DumpError::Records(error)));
            return false;
        }
        true
    }

    fn record_lines(&mut self, batch: &BatchView<'_>) -> Result<(), RecordsError> {
        let bytes_max = output_bytes_max(batch.len_bytes());
        for record in self.scratch.records(batch, bytes_max)? {
            let record = record?;
            if record.offset != self.last_offset.wrapping_add(1) {
                self.gaps.push((self.last_offset, record.offset));
            }
            self.last_offset = record.offset;
            let is_control = batch.header().attributes().is_control();
            let mut line = String::new();
            let mut prefix = "| ";
            if !self.options.skip_record_metadata {
                put_record_metadata(&mut line, batch, &record);
                prefix = " ";
            }
            if self.options.print_data && !is_control {
                let (key, payload) = (self.text)(&record);
                for (name, text) in [("key", key), ("payload", payload)] {
                    if let Some(text) = text {
                        line.push_str(prefix);
                        line.push_str(name);
                        line.push_str(": ");
                        line.push_str(&text);
                        prefix = " ";
                    }
                }
            }
            self.lines.push_back(Ok(line));
        }
        Ok(())
    }
}

impl Iterator for LogDump<'_, '_> {
    type Item = Result<String, DumpError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            self.ended = !self.next_batch();
        }
    }
}

fn timestamp_type_name(batch: &BatchView<'_>) -> &'static str {
    match batch.header().attributes().timestamp_type() {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

fn batch_line(batch: &BatchView<'_>, position: u64) -> String {
    let header = batch.header();
    let attributes = header.attributes();
    let delete_horizon = match header.delete_horizon_ms() {
        Some(horizon_ms) => format!("OptionalLong[{horizon_ms}]"),
        None => "OptionalLong.empty".to_owned(),
    };
    format!(
        "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} producerId: {} \
         producerEpoch: {} partitionLeaderEpoch: {} isTransactional: {} isControl: {} \
         deleteHorizonMs: {} position: {} {}: {} size: {} magic: {} compresscodec: {} crc: {} \
         isvalid: {}",
        header.base_offset(),
        header.offset_last(),
        header.records_count(),
        header.base_sequence(),
        header.last_sequence(),
        header.producer_id(),
        header.producer_epoch(),
        header.partition_leader_epoch(),
        attributes.is_transactional(),
        attributes.is_control(),
        delete_horizon,
        position,
        timestamp_type_name(batch),
        header.max_timestamp(),
        batch.len_bytes(),
        header.magic(),
        attributes
            .compression()
            .map_or("unknown", |compression| compression.name()),
        header.crc(),
        batch.verify_crc().is_ok(),
    )
}

fn put_record_metadata(line: &mut String, batch: &BatchView<'_>, record: &Record<'_>) {
    let header = batch.header();
    let size = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i64);
    let sequence = match header.base_sequence() {
        ..0 => -1,
        base => {
            let delta = record.offset.wrapping_sub(header.base_offset().0);
            sequence_plus(base, i32::try_from(delta).unwrap_or(0))
        }
    };
    let mut header_keys = String::new();
    for (index, header) in record.headers.into_iter().enumerate() {
        header_keys.push_str(if index == 0 { "" } else { "," });
        header_keys.push_str(&String::from_utf8_lossy(header.key));
    }
    // Writing to a string does not fail.
    let _ = write!(
        line,
        "| offset: {} {}: {} keySize: {} valueSize: {} sequence: {} headerKeys: [{}]",
        record.offset,
        timestamp_type_name(batch),
        record.timestamp,
        size(record.key),
        size(record.value),
        sequence,
        header_keys,
    );
    if header.attributes().is_control() {
        put_control(line, record);
    }
}

/// A control record: version and type in its key; of a transaction's end, version and coordinator
/// epoch in its value.
fn put_control(line: &mut String, record: &Record<'_>) {
    let control_type = match record.key {
        Some([_, _, high, low, ..]) => i16::from_be_bytes([*high, *low]),
        _ => -1,
    };
    let coordinator_epoch = match record.value {
        Some([_, _, a, b, c, d, ..]) => i32::from_be_bytes([*a, *b, *c, *d]),
        _ => -1,
    };
    let _ = match control_type {
        0 => write!(
            line,
            " endTxnMarker: ABORT coordinatorEpoch: {coordinator_epoch}"
        ),
        1 => write!(
            line,
            " endTxnMarker: COMMIT coordinatorEpoch: {coordinator_epoch}"
        ),
        other => write!(line, " controlType: UNKNOWN({other})"),
    };
}

/// How thoroughly to look at an index, and what to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexDumpMode {
    /// Show the entries, and compare them with the segment.
    Print,
    /// Only compare (`--verify-index-only`).
    Verify,
    /// Only what a start would check (`--index-sanity-check`).
    Sanity,
}

/// The dump of an index file, after "Dumping".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexDump {
    /// For standard output.
    pub lines: Vec<String>,
    /// What does not agree with the segment, for standard error.
    pub problems: Vec<String>,
    /// The sanity check failed: exit code 1.
    pub corrupt: bool,
}

impl IndexDump {
    /// What can be said without the segment; true if that is all.
    fn begin(&mut self, file: &str, entries: usize, mode: IndexDumpMode, sane: bool) -> bool {
        if entries == 0 {
            self.lines.push(format!("{file} is empty."));
            return true;
        }
        if mode == IndexDumpMode::Sanity {
            self.corrupt = !sane;
            if sane {
                self.lines.push(format!("{file} passed sanity check."));
            } else {
                self.problems
                    .push(format!("Corrupt index found, index file ({file})"));
            }
            return true;
        }
        false
    }
}

/// The file's entries, leaving out what an incomplete last one may have.
fn whole_entries(bytes: &[u8], entry_bytes: usize) -> &[u8] {
    &bytes[..bytes.len() - bytes.len() % entry_bytes]
}

/// Where batches start in a segment, with their last offsets, from `position` on.
fn batches_from(segment: &[u8], position: usize) -> impl Iterator<Item = BatchView<'_>> {
    let rest = segment.get(position..).unwrap_or_default();
    crate::batch::split(rest).map_while(Result::ok)
}

/// Dumps a `.index` file beside its segment's contents. `file` is its name as the user gave it,
/// `path` its absolute path.
pub fn dump_offset_index(
    file: &str,
    path: &str,
    base_offset: i64,
    index: &[u8],
    segment: &[u8],
    mode: IndexDumpMode,
) -> IndexDump {
    let mut dump = IndexDump::default();
    let entries = offset_entries(whole_entries(index, OFFSET_ENTRY_BYTES)).unwrap_or_default();
    let sane = index.len().is_multiple_of(OFFSET_ENTRY_BYTES)
        && entries
            .last()
            .is_none_or(|last| last.relative_offset() >= 0);
    if dump.begin(file, entries.len(), mode, sane) {
        return dump;
    }
    let mut mismatches = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        // Zeros behind the entries of a file that was not cut.
        if entry.relative_offset() == 0 && index > 0 {
            break;
        }
        let offset = base_offset.wrapping_add(i64::from(entry.relative_offset()));
        let position = usize::try_from(entry.position()).unwrap_or(usize::MAX);
        let found = batches_from(segment, position).next();
        let found = found.map_or(-1, |batch| batch.header().offset_last().0);
        if found != offset {
            mismatches.push(format!("  Index offset: {offset}, log offset: {found}"));
        }
        if mode == IndexDumpMode::Print {
            dump.lines
                .push(format!("offset: {offset} position: {}", entry.position()));
        }
    }
    if !mismatches.is_empty() {
        dump.problems.push(format!("Mismatches in :{path}"));
        // Kafka's tool shows the last one first.
        dump.problems.extend(mismatches.into_iter().rev());
    }
    dump
}

/// Dumps a `.timeindex` file beside its segment's contents. `file` is its name as the user gave it,
/// `path` its absolute path.
pub fn dump_time_index(
    file: &str,
    path: &str,
    base_offset: i64,
    index: &[u8],
    segment: &[u8],
    mode: IndexDumpMode,
) -> IndexDump {
    let mut dump = IndexDump::default();
    let entries = time_entries(whole_entries(index, TIME_ENTRY_BYTES)).unwrap_or_default();
    let sane = index.len().is_multiple_of(TIME_ENTRY_BYTES)
        && entries
            .first()
            .zip(entries.last())
            .is_none_or(|(first, last)| {
                last.timestamp() >= first.timestamp() && last.relative_offset() >= 0
            });
    // An empty time index is said to have passed: Kafka's tool looks for emptiness in the other.
    if dump.begin(file, entries.len().max(1), mode, sane) {
        return dump;
    }
    let (mut mismatches, mut unordered, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    let mut batches = batches_from(segment, 0).peekable();
    let mut previous = -1;
    let mut scratch = RecordsScratch::new();
    for (index, entry) in entries.iter().enumerate() {
        if entry.relative_offset() == 0 && index > 0 {
            break;
        }
        let offset = base_offset.wrapping_add(i64::from(entry.relative_offset()));
        let timestamp = entry.timestamp();
        while batches
            .next_if(|batch| batch.header().offset_last().0 < offset)
            .is_some()
        {}
        match batches.peek() {
            Some(batch) if batch.header().offset_last().0 == offset => {
                let found = max_timestamp(batch, &mut scratch);
                if found != timestamp {
                    mismatches.push(format!(
                        "  Index timestamp: {timestamp}, log timestamp: {found}"
                    ));
                }
                if previous >= timestamp {
                    unordered.push(format!(
                        "  Index timestamp: {timestamp}, Previously indexed timestamp: {previous}"
                    ));
                }
            }
            other => {
                let found = other.map_or(-1, |batch| batch.header().offset_last().0);
                missing.push(format!(
                    "Indexed offset: {offset}, found log offset: {found}"
                ));
            }
        }
        if mode == IndexDumpMode::Print {
            dump.lines
                .push(format!("timestamp: {timestamp} offset: {offset}"));
        }
        previous = timestamp;
    }
    for (title, problems) in [
        ("Found timestamp mismatch in :", mismatches),
        ("Found out of order timestamp in :", unordered),
        ("The following indexed offsets are not found in :", missing),
    ] {
        if !problems.is_empty() {
            dump.problems.push(format!("{title}{path}"));
            dump.problems.extend(problems);
        }
    }
    dump
}

/// Largest timestamp of the records; of a batch without readable records, what its header says.
fn max_timestamp(batch: &BatchView<'_>, scratch: &mut RecordsScratch) -> i64 {
    let header = batch.header();
    let Ok(records) = scratch.records(batch, output_bytes_max(batch.len_bytes())) else {
        return header.max_timestamp();
    };
    records
        .map_while(Result::ok)
        .map(|record| record.timestamp)
        .max()
        .unwrap_or(-1)
}

#[cfg(test)]
mod tests;
