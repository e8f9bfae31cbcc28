//! Partitions as checkpoints and journal entries make them. Runs in recovery; knows no disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::batch::BatchHeader;
use crate::checkpoint::{CheckpointHead, In, PartitionRecord, get_replacement};
use crate::disk::Disk;
use crate::journal::{Entries, Entry, EntryKind, WRITE_HEADER_BYTES, peek_write};
use crate::leader_epochs::LeaderEpochs;
use crate::producer_state::ProducerStates;
use crate::reference::Reference;
use crate::segment::{SegmentImage, block_floor};
use crate::store::{PartitionKey, Replacement, note_image};
use crate::types::{Offset, PartitionIndex, TopicId};

use super::DirtyImage;
use super::chain::Chain;

/// A partition that is being put together.
#[derive(Debug)]
pub(super) struct Building {
    pub dir: usize,
    /// The start whose checkpoint (or creation) this began with: entries of earlier ones are dead.
    epoch: u64,
    pub record: PartitionRecord,
    pub dirty: Vec<DirtyImage>,
    heads: Vec<(Offset, u64, Vec<u8>)>,
    /// The start in whose journal the log ends, because a straight write did not reach its segment.
    ends_in_epoch: Option<u64>,
    /// Why a batch that lies partly in a segment could not be read.
    pub lacks: Option<String>,
    pub head: Option<Vec<u8>>,
    pub dropped: Vec<Offset>,
}

/// A partition whose deletion was replayed: its directory may still have its name.
#[derive(Debug)]
pub(super) struct Deleted {
    pub dir: usize,
    pub name: String,
    pub topic_id: TopicId,
    pub due_ms: i64,
}

#[derive(Default)]
pub(super) struct Builder {
    pub partitions: BTreeMap<(TopicId, PartitionIndex), Building>,
    pub deleted: Vec<Deleted>,
}

impl Builder {
    /// Takes a checkpoint's partitions; of several that speak of one partition the newest counts.
    pub(super) fn add_checkpoint(
        &mut self,
        dir: usize,
        head: &CheckpointHead,
        partitions: Vec<PartitionRecord>,
    ) {
        for mut record in partitions {
            let key = (record.key.topic_id, record.key.partition);
            if self
                .partitions
                .get(&key)
                .is_some_and(|known| known.epoch > head.epoch)
            {
                continue;
            }
            let replacements = record.replacements.clone();
            for replacement in &replacements {
                apply_replacement(&mut record, replacement);
            }
            self.partitions.insert(
                key,
                Building {
                    dir,
                    epoch: head.epoch,
                    record,
                    dirty: Vec::new(),
                    heads: Vec::new(),
                    ends_in_epoch: None,
                    lacks: None,
                    head: None,
                    dropped: Vec::new(),
                },
            );
        }
    }

    /// Applies the entries of a journal.
    ///
    /// # Errors
    /// If an entry does not follow from what came before it.
    pub(super) async fn replay<D: Disk>(
        &mut self,
        disk: &D,
        dir: &Path,
        chain: &Chain,
    ) -> Result<(), String> {
        for (sequence, bytes) in &chain.writes {
            let header = peek_write(bytes).expect("verified when it was found");
            let body = &bytes[WRITE_HEADER_BYTES..header.used_bytes as usize];
            for raw in Entries::new(body) {
                let raw = raw.expect("verified when it was found");
                let range = raw.payload_at..raw.payload_at + raw.payload().len();
                if raw.entry.kind == EntryKind::Straight && *sequence > chain.confirmed_sequence {
                    self.check_straight(disk, dir, chain, &raw.entry, raw.payload())
                        .await?;
                }
                self.apply(chain, *sequence, &raw.entry, raw.payload(), bytes, range)?;
            }
        }
        Ok(())
    }

    /// A reference that nothing confirms counts if the segment holds what it refers to; else the log
    /// ends before it.
    async fn check_straight<D: Disk>(
        &mut self,
        disk: &D,
        dir: &Path,
        chain: &Chain,
        entry: &Entry,
        payload: &[u8],
    ) -> Result<(), String> {
        let key = (entry.topic_id, entry.partition);
        let Some(building) = self.partitions.get_mut(&key) else {
            return Ok(());
        };
        if !building.is_meant(chain, entry) {
            return Ok(());
        }
        let reference = read_reference(entry, payload)?;
        let dir = dir.join(building.record.key.dir_name());
        let path = crate::segment::path(&dir, entry.segment_base, "log");
        let there = super::is_in_segment(disk, &path, &reference)
            .await
            .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        if !there {
            building.ends_in_epoch = Some(chain.epoch);
        }
        Ok(())
    }

    fn apply(
        &mut self,
        chain: &Chain,
        sequence: u64,
        entry: &Entry,
        payload: &[u8],
        write: &Arc<Vec<u8>>,
        range: std::ops::Range<usize>,
    ) -> Result<(), String> {
        let key = (entry.topic_id, entry.partition);
        // What a checkpoint covers is in it; of its entries only the bytes still count.
        let covered = sequence <= chain.covers_sequence;
        if entry.kind == EntryKind::Created {
            if !covered && !self.partitions.contains_key(&key) {
                self.partitions.insert(key, created(chain, entry, payload)?);
            }
            return Ok(());
        }
        let Some(building) = self.partitions.get_mut(&key) else {
            return Ok(());
        };
        let counts = if entry.kind == EntryKind::Deleted {
            building.is_of(chain, entry)
        } else {
            building.is_meant(chain, entry)
        };
        if !counts {
            return Ok(());
        }
        if covered && building.epoch < chain.epoch {
            // A checkpoint has all logs of its core: this one was deleted before it was taken. What an
            // earlier start's says of it is no longer true of its files.
            self.partitions.remove(&key);
            return Ok(());
        }
        match entry.kind {
            EntryKind::Append => {
                if !covered {
                    building.extend(entry, payload)?;
                }
                building.keep_bytes(entry, write, range);
            }
            EntryKind::Carried => building.keep_bytes(entry, write, range),
            EntryKind::Straight => {
                let reference = read_reference(entry, payload)?;
                if !covered {
                    building.extend_straight(entry, &reference)?;
                }
                building.keep_tail(entry, &reference, write, range.end);
            }
            EntryKind::TailBlock => {
                building
                    .heads
                    .push((entry.segment_base, entry.position, payload.to_vec()));
            }
            _ if covered => {}
            EntryKind::SegmentClosed => building.close(entry)?,
            EntryKind::LogStart => {
                building.record.log_start = building.record.log_start.max(entry.base_offset);
            }
            EntryKind::Deleted => {
                let gone = self.partitions.remove(&key).expect("just seen");
                self.deleted.push(Deleted {
                    dir: gone.dir,
                    name: gone.record.key.dir_name(),
                    topic_id: entry.topic_id,
                    due_ms: entry.value,
                });
            }
            EntryKind::Replaced => {
                let replacement = get_replacement(&mut In(payload))
                    .ok_or_else(|| String::from("a compaction's journal entry is not readable"))?;
                apply_replacement(&mut building.record, &replacement);
                building
                    .dirty
                    .retain(|dirty| !replacement.removed.contains(&dirty.segment_base));
                building.record.replacements.push(replacement);
            }
            EntryKind::Created => unreachable!("handled above"),
        }
        Ok(())
    }
}

fn created(chain: &Chain, entry: &Entry, payload: &[u8]) -> Result<Building, String> {
    let topic = String::from_utf8(payload.to_vec())
        .map_err(|_| String::from("a topic's name in the journal is not readable"))?;
    Ok(Building {
        dir: chain.dir,
        epoch: chain.epoch,
        record: PartitionRecord {
            key: PartitionKey {
                topic_id: entry.topic_id,
                topic,
                partition: entry.partition,
            },
            incarnation: entry.incarnation,
            log_start: Offset(0),
            compacted_end: Offset(0),
            segments: vec![SegmentImage::empty(Offset(0), entry.value)],
            replacements: Vec::new(),
            epochs: LeaderEpochs::new(),
            producers: ProducerStates::new(),
        },
        dirty: Vec::new(),
        heads: Vec::new(),
        ends_in_epoch: None,
        lacks: None,
        head: None,
        dropped: Vec::new(),
    })
}

/// Puts a compacted segment in place of those that it was made from.
pub(crate) fn apply_replacement(record: &mut PartitionRecord, replacement: &Replacement) {
    let at = record
        .segments
        .iter()
        .position(|segment| replacement.removed.contains(&segment.base));
    let Some(at) = at else { return };
    record
        .segments
        .retain(|segment| !replacement.removed.contains(&segment.base));
    record.segments.insert(at, replacement.added.clone());
    record.compacted_end = record.compacted_end.max(replacement.compacted_end);
}

fn read_reference<'a>(entry: &Entry, payload: &'a [u8]) -> Result<Reference<'a>, String> {
    Reference::decode(payload, entry.position)
        .ok_or_else(|| String::from("a reference in the journal is not readable"))
}

impl Building {
    /// Whether an entry of a journal still counts for this partition.
    fn is_meant(&self, chain: &Chain, entry: &Entry) -> bool {
        self.is_of(chain, entry) && self.ends_in_epoch != Some(chain.epoch)
    }

    /// Whether an entry is of this life of the partition, and not older than what is known of it.
    fn is_of(&self, chain: &Chain, entry: &Entry) -> bool {
        self.record.incarnation == entry.incarnation
            && self.dir == chain.dir
            && self.epoch <= chain.epoch
    }

    fn gap(&self, entry: &Entry) -> String {
        format!(
            "the journal of {} has a gap before offset {}",
            self.record.key.dir_name(),
            entry.base_offset
        )
    }

    /// Moves the log's end over an appended batch.
    fn extend(&mut self, entry: &Entry, payload: &[u8]) -> Result<(), String> {
        let Some(header) = BatchHeader::ref_from_prefix(payload) else {
            return Err(self.gap(entry));
        };
        if header.base_offset() != entry.base_offset {
            return Err(self.gap(entry));
        }
        self.extend_by(entry, entry.position, header)
    }

    /// Moves the log's end over the batches of a straight write.
    fn extend_straight(&mut self, entry: &Entry, reference: &Reference<'_>) -> Result<(), String> {
        for batch in reference.batches(entry.position) {
            self.extend_by(entry, batch.position, batch.header)?;
        }
        Ok(())
    }

    fn extend_by(
        &mut self,
        entry: &Entry,
        position: u64,
        header: &BatchHeader,
    ) -> Result<(), String> {
        let base_offset = header.base_offset();
        let follows = self.record.segments.last().is_some_and(|active| {
            entry.segment_base == active.base
                && position == active.length_bytes
                && base_offset == active.offset_end
        });
        if !follows {
            return Err(self.gap(entry));
        }
        let active = self.record.segments.last_mut().expect("just seen");
        note_image(active, position, header);
        self.record
            .epochs
            .assign(header.partition_leader_epoch(), base_offset);
        self.record
            .producers
            .apply(header, base_offset, entry.value);
        Ok(())
    }

    /// A straight write is in its segment: so is everything before it, and of its own batches the
    /// journal has what lies behind the last whole block.
    fn keep_tail(
        &mut self,
        entry: &Entry,
        reference: &Reference<'_>,
        write: &Arc<Vec<u8>>,
        payload_end: usize,
    ) {
        let base = entry.segment_base;
        let segments = &mut self.record.segments;
        let Ok(at) = segments.binary_search_by_key(&base, |segment| segment.base) else {
            return;
        };
        // When it began, every segment before was finished, whatever the checkpoint knew of that.
        for earlier in segments[..at]
            .iter_mut()
            .filter(|earlier| !earlier.finished)
        {
            earlier.synced_bytes = earlier.length_bytes;
            earlier.finished = true;
        }
        self.dirty.retain(|dirty| dirty.segment_base >= base);
        let segment = &mut segments[at];
        if segment.generation != 0 {
            return;
        }
        if segment.synced_bytes < reference.to {
            segment.synced_bytes = reference.to;
            self.dirty
                .retain(|dirty| dirty.segment_base != base || dirty.position_end() > reference.to);
        }
        let tail_at = payload_end - reference.tail.len();
        for batch in reference.batches(entry.position) {
            let start = batch.position.max(reference.to);
            if batch.position_end <= start {
                continue;
            }
            let from = tail_at + (start - reference.to) as usize;
            let dirty = DirtyImage {
                segment_base: base,
                position: batch.position,
                base_offset: batch.header.base_offset(),
                offset_end: batch.header.offset_end(),
                in_segment: start - batch.position,
                write: Arc::clone(write),
                range: from..from + (batch.position_end - start) as usize,
            };
            self.keep(dirty);
        }
    }

    /// Keeps a batch's bytes unless its segment has them safely.
    fn keep_bytes(&mut self, entry: &Entry, write: &Arc<Vec<u8>>, range: std::ops::Range<usize>) {
        self.keep(DirtyImage {
            segment_base: entry.segment_base,
            position: entry.position,
            base_offset: entry.base_offset,
            offset_end: entry.offset_end,
            in_segment: 0,
            write: Arc::clone(write),
            range,
        });
    }

    fn keep(&mut self, dirty: DirtyImage) {
        let Ok(at) = self
            .record
            .segments
            .binary_search_by_key(&dirty.segment_base, |segment| segment.base)
        else {
            return;
        };
        let segment = &self.record.segments[at];
        let end = dirty.position_end();
        let known = self
            .dirty
            .last()
            .is_some_and(|last| last.offset_end > dirty.base_offset);
        let safe = segment.generation != 0 || end <= segment.synced_bytes;
        if !safe && end <= segment.length_bytes && !known {
            self.dirty.push(dirty);
        }
    }

    fn close(&mut self, entry: &Entry) -> Result<(), String> {
        let fits = self.record.segments.last().is_some_and(|active| {
            active.base == entry.segment_base
                && active.length_bytes == entry.position
                && active.offset_end == entry.offset_end
        });
        if !fits {
            return Err(self.gap(entry));
        }
        self.record.segments.last_mut().expect("just seen").closed = true;
        self.record
            .segments
            .push(SegmentImage::empty(entry.offset_end, entry.value));
        Ok(())
    }

    /// Lets go of what the log start has passed, and checks that every byte is somewhere.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        let record = &mut self.record;
        while record.segments.len() > 1
            && record.segments[0].closed
            && record.segments[0].offset_end <= record.log_start
        {
            let segment = record.segments.remove(0);
            self.dirty
                .retain(|dirty| dirty.segment_base != segment.base);
            self.dropped.push(segment.base);
        }
        record.epochs.truncate_before(record.log_start);
        for segment in &record.segments {
            let mut end = segment.synced_bytes;
            for dirty in self
                .dirty
                .iter()
                .filter(|dirty| dirty.segment_base == segment.base)
            {
                if dirty.position > end {
                    break;
                }
                end = end.max(dirty.position_end());
            }
            if end != segment.length_bytes {
                return Err(format!(
                    "{} lacks bytes {end} to {} of its segment {}: neither flushed nor in the journal",
                    record.key.dir_name(),
                    segment.length_bytes,
                    segment.base
                ));
            }
        }
        // Of several heads of the tail block any that is long enough has the bytes that were there.
        let active = record.segments.last().expect("a log has a segment");
        let from = block_floor(active.synced_bytes);
        let length = (active.synced_bytes - from) as usize;
        // A settled block is only ever rewritten with bytes that the journal has.
        let rewritten = self
            .dirty
            .last()
            .is_some_and(|dirty| dirty.segment_base == active.base);
        if length > 0 && rewritten {
            self.head = self
                .heads
                .iter()
                .rev()
                .find(|(base, position, bytes)| {
                    *base == active.base && *position == from && bytes.len() >= length
                })
                .map(|(_, _, bytes)| bytes[..length].to_vec());
        }
        self.heads.clear();
        Ok(())
    }
}
