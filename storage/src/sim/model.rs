//! What must be true of the partitions of a simulation: plain batches in memory. Runs on the simulation's
//! one thread; knows no store.

use std::collections::BTreeMap;

use crate::batch;
use crate::records::RecordsScratch;
use crate::store::PartitionKey;
use crate::types::Offset;

/// A batch as it was appended, with the offsets and the epoch that it got.
#[derive(Clone)]
pub(super) struct ModelBatch {
    pub base: Offset,
    pub end: Offset,
    pub bytes: Vec<u8>,
}

/// What must be true of one partition.
#[derive(Default)]
pub(super) struct Model {
    pub batches: Vec<ModelBatch>,
    /// Acknowledged: never lost again.
    pub acked_end: Offset,
    /// Told as the log start.
    pub start_told: Offset,
    /// The furthest log start that was asked for: retention may have got it through unseen.
    pub start_asked: Offset,
    pub created: bool,
    pub deleting: bool,
}

impl Model {
    /// One past the newest record that was appended.
    pub fn end(&self) -> Offset {
        self.batches.last().map_or(Offset(0), |batch| batch.end)
    }
}

/// Whether a partition's topic is compacted.
pub(super) fn is_compacted(key: &PartitionKey) -> bool {
    key.topic == "t5"
}

/// Collects the records of a batch that must not begin behind `from`; where it ends.
pub(super) fn note_records(
    bytes: &[u8],
    from: Offset,
    records: &mut BTreeMap<i64, (Vec<u8>, Vec<u8>)>,
) -> Option<Offset> {
    let view = batch::BatchView::new(bytes).ok()?;
    view.verify_crc().ok()?;
    let end = view.header().offset_end();
    if end <= from {
        return None;
    }
    let mut scratch = RecordsScratch::new();
    for record in scratch.records(&view, 1 << 24).ok()? {
        let record = record.ok()?;
        records.insert(
            record.offset,
            (record.key?.to_vec(), record.value?.to_vec()),
        );
    }
    Some(end)
}
