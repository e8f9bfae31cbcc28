//! The checkpoint of one core in one log directory: everything about its partitions that the journal
//! need not say again. Bytes in, bytes out; knows no disk and no store. Written as a whole, with a
//! checksum over all of it, and renamed into place.

use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::leader_epochs::LeaderEpochs;
use crate::producer_state::ProducerStates;
use crate::segment::SegmentImage;
use crate::store::{Deletion, PartitionKey, Replacement};
use crate::types::{CoreId, Offset, TopicId};

const MAGIC: &[u8; 8] = b"millrc\x00\x01";

/// A checkpoint larger than this is not one.
pub(crate) const CHECKPOINT_BYTES_MAX: u64 = 1 << 32;

/// What a checkpoint says of one partition.
#[derive(Clone, Debug)]
pub(crate) struct PartitionRecord {
    pub key: PartitionKey,
    pub incarnation: u64,
    pub log_start: Offset,
    pub compacted_end: Offset,
    pub segments: Vec<SegmentImage>,
    pub replacements: Vec<Replacement>,
    pub epochs: LeaderEpochs,
    pub producers: ProducerStates,
}

/// Where a checkpoint stands in its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointHead {
    pub epoch: u64,
    pub core: CoreId,
    /// It reflects the journal up to here.
    pub covers_sequence: u64,
    /// Journal writes from here on may hold bytes that no segment has.
    pub replay_from: u64,
    /// Whether nothing was written to the journal after it, and nothing need be replayed.
    pub clean: bool,
}

pub(crate) fn checkpoint_dir(dir: &Path) -> PathBuf {
    dir.join(".millrace").join("checkpoint")
}

pub(crate) fn checkpoint_path(dir: &Path, epoch: u64, core: CoreId) -> PathBuf {
    checkpoint_dir(dir).join(format!("{epoch:016x}-{:04x}.chk", core.0))
}

/// Epoch and core of a checkpoint's name.
pub(crate) fn parse_checkpoint_name(name: &str) -> Option<(u64, CoreId)> {
    let (epoch, core) = name.strip_suffix(".chk")?.split_once('-')?;
    Some((
        u64::from_str_radix(epoch, 16).ok()?,
        CoreId(u16::from_str_radix(core, 16).ok()?),
    ))
}

/// Collects little-endian values.
#[derive(Default)]
pub(crate) struct Out(pub(crate) Vec<u8>);

impl Out {
    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }
    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub(crate) fn i64(&mut self, value: i64) {
        self.u64(value as u64);
    }
    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.u32(value.len() as u32);
        self.0.extend_from_slice(value);
    }
}

/// Takes little-endian values off; `None` where they end early.
pub(crate) struct In<'a>(pub(crate) &'a [u8]);

impl<'a> In<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }
    pub(crate) fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }
    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
    pub(crate) fn i64(&mut self) -> Option<i64> {
        Some(self.u64()? as i64)
    }
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let bytes = self.u32()? as usize;
        self.take(bytes)
    }
    pub(crate) fn string(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }
    /// A count of things that take at least `bytes_min` each: never more than can follow.
    pub(crate) fn count(&mut self, bytes_min: usize) -> Option<usize> {
        let count = self.u32()? as usize;
        (count <= self.0.len() / bytes_min.max(1)).then_some(count)
    }
}

fn put_segment(out: &mut Out, segment: &SegmentImage) {
    out.i64(segment.base.0);
    out.u64(segment.length_bytes);
    out.i64(segment.offset_end.0);
    out.u64(segment.synced_bytes);
    out.i64(segment.max_timestamp_ms);
    out.i64(segment.first_timestamp_ms);
    out.i64(segment.created_ms);
    out.u64(segment.generation);
    out.u8(u8::from(segment.closed) | u8::from(segment.finished) << 1);
}

fn get_segment(bytes: &mut In<'_>) -> Option<SegmentImage> {
    let mut segment = SegmentImage::empty(Offset(bytes.i64()?), 0);
    segment.length_bytes = bytes.u64()?;
    segment.offset_end = Offset(bytes.i64()?);
    segment.synced_bytes = bytes.u64()?;
    segment.max_timestamp_ms = bytes.i64()?;
    segment.first_timestamp_ms = bytes.i64()?;
    segment.created_ms = bytes.i64()?;
    segment.generation = bytes.u64()?;
    let flags = bytes.u8()?;
    segment.closed = flags & 1 != 0;
    segment.finished = flags & 2 != 0;
    Some(segment)
}

/// Encodes what compaction put in place of older segments; also the payload of the journal's entry.
pub(crate) fn put_replacement(out: &mut Out, replacement: &Replacement) {
    out.u32(replacement.removed.len() as u32);
    for base in &replacement.removed {
        out.i64(base.0);
    }
    put_segment(out, &replacement.added);
    out.i64(replacement.compacted_end.0);
}

/// The reverse of [`put_replacement`].
pub(crate) fn get_replacement(bytes: &mut In<'_>) -> Option<Replacement> {
    let count = bytes.count(8)?;
    let mut removed = Vec::with_capacity(count);
    for _ in 0..count {
        removed.push(Offset(bytes.i64()?));
    }
    Some(Replacement {
        removed,
        added: get_segment(bytes)?,
        compacted_end: Offset(bytes.i64()?),
    })
}

/// Builds a checkpoint partition by partition.
pub(crate) struct Encoder {
    out: Out,
    partitions: u32,
    count_at: usize,
}

impl Encoder {
    pub(crate) fn new<'d>(
        head: &CheckpointHead,
        deletions: impl Iterator<Item = &'d Deletion>,
    ) -> Encoder {
        let mut out = Out::default();
        out.0.extend_from_slice(MAGIC);
        out.u64(head.epoch);
        out.u32(u32::from(head.core.0));
        out.u64(head.covers_sequence);
        out.u64(head.replay_from);
        out.u8(u8::from(head.clean));
        let at = out.0.len();
        out.u32(0);
        let mut count = 0u32;
        for deletion in deletions {
            count += 1;
            out.bytes(deletion.path.as_bytes());
            out.u8(u8::from(deletion.is_dir));
            out.i64(deletion.due_ms);
        }
        out.0[at..at + 4].copy_from_slice(&count.to_le_bytes());
        let count_at = out.0.len();
        out.u32(0);
        Encoder {
            out,
            partitions: 0,
            count_at,
        }
    }

    #[allow(clippy::too_many_arguments)] // One value per field of a record, borrowed where it lives.
    pub(crate) fn partition<'s, 'r>(
        &mut self,
        key: &PartitionKey,
        incarnation: u64,
        log_start: Offset,
        compacted_end: Offset,
        segments: impl ExactSizeIterator<Item = &'s SegmentImage>,
        replacements: impl ExactSizeIterator<Item = &'r Replacement>,
        epochs: &LeaderEpochs,
        producers: &ProducerStates,
    ) {
        let out = &mut self.out;
        out.0.extend_from_slice(key.topic_id.as_bytes());
        out.bytes(key.topic.as_bytes());
        out.u32(key.partition as u32);
        out.u64(incarnation);
        out.i64(log_start.0);
        out.i64(compacted_end.0);
        out.u32(segments.len() as u32);
        for segment in segments {
            put_segment(out, segment);
        }
        out.u32(replacements.len() as u32);
        for replacement in replacements {
            put_replacement(out, replacement);
        }
        let at = out.0.len();
        out.u32(0);
        epochs.encode(&mut out.0);
        let bytes = (out.0.len() - at - 4) as u32;
        out.0[at..at + 4].copy_from_slice(&bytes.to_le_bytes());
        let at = out.0.len();
        out.u32(0);
        producers.encode(&mut out.0);
        let bytes = (out.0.len() - at - 4) as u32;
        out.0[at..at + 4].copy_from_slice(&bytes.to_le_bytes());
        self.partitions += 1;
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let at = self.count_at;
        self.out.0[at..at + 4].copy_from_slice(&self.partitions.to_le_bytes());
        let checksum = xxh3_64(&self.out.0);
        self.out.u64(checksum);
        self.out.0
    }
}

/// A checkpoint as read.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub head: CheckpointHead,
    pub deletions: Vec<Deletion>,
    pub partitions: Vec<PartitionRecord>,
}

/// Reads a checkpoint; `None` if it is torn, rotten or not one.
pub(crate) fn decode(bytes: &[u8]) -> Option<Checkpoint> {
    let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
    if xxh3_64(body).to_le_bytes() != *checksum {
        return None;
    }
    let mut bytes = In(body.strip_prefix(MAGIC)?);
    let head = CheckpointHead {
        epoch: bytes.u64()?,
        core: CoreId(bytes.u32()? as u16),
        covers_sequence: bytes.u64()?,
        replay_from: bytes.u64()?,
        clean: bytes.u8()? != 0,
    };
    let mut deletions = Vec::new();
    for _ in 0..bytes.count(13)? {
        deletions.push(Deletion {
            path: bytes.string()?,
            is_dir: bytes.u8()? != 0,
            due_ms: bytes.i64()?,
        });
    }
    let count = bytes.count(60)?;
    let mut partitions = Vec::with_capacity(count);
    for _ in 0..count {
        partitions.push(get_partition(&mut bytes)?);
    }
    Some(Checkpoint {
        head,
        deletions,
        partitions,
    })
}

fn get_partition(bytes: &mut In<'_>) -> Option<PartitionRecord> {
    let topic_id = TopicId::from_bytes(bytes.take(16)?.try_into().ok()?);
    let key = PartitionKey {
        topic_id,
        topic: bytes.string()?,
        partition: bytes.u32()? as i32,
    };
    let incarnation = bytes.u64()?;
    let log_start = Offset(bytes.i64()?);
    let compacted_end = Offset(bytes.i64()?);
    let mut segments = Vec::new();
    for _ in 0..bytes.count(65)? {
        segments.push(get_segment(bytes)?);
    }
    let mut replacements = Vec::new();
    for _ in 0..bytes.count(77)? {
        replacements.push(get_replacement(bytes)?);
    }
    Some(PartitionRecord {
        key,
        incarnation,
        log_start,
        compacted_end,
        segments,
        replacements,
        epochs: LeaderEpochs::decode(bytes.bytes()?)?.0,
        producers: ProducerStates::decode(bytes.bytes()?)?.0,
    })
}
