//! The cleaner's task: reads a log's closed segments, keeps each key's newest record, and writes new
//! segments beside the old ones. Runs on the store's core; knows no schedule and puts nothing in
//! place: that waits until the journal says so.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::batch::BatchView;
use crate::compact::{Cleaned, Cleaner, Mapped, OffsetMap};
use crate::disk::{Disk, OpenMode};
use crate::producer_state::ProducerStates;
use crate::read_task::{BatchWalk, SegmentRef};
use crate::records::RecordsScratch;
use crate::segment::{SegmentImage, file_name, path};
use crate::store::{LogId, ReadError, Replacement, note_image};
use crate::tasks::{FileWork, write_plain};
use crate::types::Offset;
use crate::walk::output_bytes_max;

/// A batch decompresses to at most this in a log that producers' batches were checked for.
const OUTPUT_BYTES_MAX: u64 = 1 << 30;

/// What to clean.
#[derive(Debug)]
pub(crate) struct CleanJob {
    pub log: LogId,
    pub dir: Rc<PathBuf>,
    /// The finished segments of the log, oldest first, each with what a checkpoint says of it.
    pub segments: Vec<(SegmentRef, SegmentImage)>,
    /// Up to here everything was compacted before.
    pub dirty_from: Offset,
    pub segment_bytes: u64,
    pub memory_bytes: usize,
    pub delete_retention_ms: i64,
    pub now_ms: i64,
    /// Names the new contents; larger than that of any segment of the log.
    pub generation: u64,
    pub producers: ProducerStates,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct CleanOutcome {
    pub log: LogId,
    /// The new segments, written and flushed, and how far the log is compacted with them.
    pub result: Result<(Vec<Replacement>, Offset), ReadError>,
}

/// The new segment that is being put together.
struct Output {
    removed: Vec<Offset>,
    image: SegmentImage,
    bytes: Vec<u8>,
}

impl CleanJob {
    pub(crate) async fn run<D: Disk>(self, disk: &D) -> CleanOutcome {
        CleanOutcome {
            log: self.log,
            result: self.clean(disk).await,
        }
    }

    async fn clean<D: Disk>(&self, disk: &D) -> Result<(Vec<Replacement>, Offset), ReadError> {
        let mut scratch = RecordsScratch::new();
        let map = self.build_map(disk, &mut scratch).await?;
        let map_end = map.offset_end();
        if map_end <= self.dirty_from {
            return Ok((Vec::new(), self.dirty_from));
        }
        let mut cleaner = Cleaner::new(
            map,
            &self.producers,
            self.now_ms,
            self.delete_retention_ms,
            OUTPUT_BYTES_MAX,
        );
        let mut done = Vec::new();
        let mut output: Option<Output> = None;
        let mut compacted_end = self.dirty_from;
        for (segment, image) in &self.segments {
            // Only segments that the map knows whole.
            if image.offset_end > map_end {
                break;
            }
            let kept = self
                .clean_segment(disk, segment, &mut cleaner, &mut scratch)
                .await?;
            // Small results of neighbours become one segment.
            let fits = output.as_ref().is_some_and(|output| {
                (output.bytes.len() + kept.len()) as u64 <= self.segment_bytes
                    && image.offset_end.0 - output.image.base.0 < i64::from(i32::MAX)
            });
            if !fits && let Some(full) = output.take() {
                done.push(self.write_output(disk, full).await?);
            }
            let output = output.get_or_insert_with(|| Output {
                removed: Vec::new(),
                image: SegmentImage {
                    closed: true,
                    finished: true,
                    generation: self.generation,
                    ..SegmentImage::empty(image.base, image.created_ms)
                },
                bytes: Vec::new(),
            });
            for batch in crate::batch::split(&kept) {
                let batch = batch.map_err(|_| ReadError::Corrupt)?;
                note_image(&mut output.image, output.bytes.len() as u64, batch.header());
                output.bytes.extend_from_slice(BatchView::bytes(&batch));
            }
            output.removed.push(image.base);
            // The segment reaches as far as those it was made from, whatever is left in it.
            output.image.offset_end = image.offset_end;
            compacted_end = compacted_end.max(image.offset_end);
        }
        if let Some(last) = output {
            done.push(self.write_output(disk, last).await?);
        }
        Ok((done, compacted_end))
    }

    /// The latest offset of every key in the part that was not compacted before.
    async fn build_map<D: Disk>(
        &self,
        disk: &D,
        scratch: &mut RecordsScratch,
    ) -> Result<OffsetMap, ReadError> {
        let mut map = OffsetMap::new(self.memory_bytes, self.generation ^ self.now_ms as u64);
        for (segment, image) in &self.segments {
            if image.offset_end <= self.dirty_from {
                continue;
            }
            let file = open(disk, segment).await?;
            let mut walk = BatchWalk::new(segment, 0);
            while let Some((_, batch)) = walk.next(disk, &file).await? {
                batch.verify_crc().map_err(|_| ReadError::Corrupt)?;
                let bound = output_bytes_max(batch.len_bytes());
                let mapped = map
                    .add_batch(&batch, self.dirty_from, bound, scratch)
                    .map_err(|_| ReadError::Corrupt)?;
                if mapped == Mapped::Full {
                    return Ok(map);
                }
            }
        }
        Ok(map)
    }

    async fn clean_segment<D: Disk>(
        &self,
        disk: &D,
        segment: &SegmentRef,
        cleaner: &mut Cleaner,
        scratch: &mut RecordsScratch,
    ) -> Result<Vec<u8>, ReadError> {
        let mut kept = Vec::new();
        if segment.end == 0 {
            return Ok(kept);
        }
        let file = open(disk, segment).await?;
        let mut walk = BatchWalk::new(segment, 0);
        while let Some((_, batch)) = walk.next(disk, &file).await? {
            batch.verify_crc().map_err(|_| ReadError::Corrupt)?;
            match cleaner
                .clean(&batch, scratch)
                .map_err(|_| ReadError::Corrupt)?
            {
                Cleaned::Kept => kept.extend_from_slice(batch.bytes()),
                Cleaned::Replaced(bytes) => kept.extend_from_slice(&bytes),
                Cleaned::Dropped => {}
            }
        }
        Ok(kept)
    }

    async fn write_output<D: Disk>(
        &self,
        disk: &D,
        mut output: Output,
    ) -> Result<Replacement, ReadError> {
        output.image.length_bytes = output.bytes.len() as u64;
        output.image.synced_bytes = output.image.length_bytes;
        let replacement = Replacement {
            removed: output.removed,
            added: output.image,
        };
        let target = self.dir.join(cleaned_name(&replacement));
        let written = async {
            write_plain(disk, &target, &output.bytes).await?;
            disk.sync_dir(&self.dir).await
        };
        written.await.map_err(|_: io::Error| ReadError::Io)?;
        Ok(replacement)
    }
}

async fn open<D: Disk>(disk: &D, segment: &SegmentRef) -> Result<D::File, ReadError> {
    disk.open(&path(&segment.dir, segment.base, "log"), OpenMode::Read)
        .await
        .map_err(|_| ReadError::Io)
}

/// The name of a compacted segment's file until it takes its place.
pub(crate) fn cleaned_name(replacement: &Replacement) -> String {
    let added = &replacement.added;
    file_name(added.base, &format!("{:016x}.cleaned", added.generation))
}

/// Puts a compacted segment in place of the old ones; can be repeated after a crash at any point.
pub(crate) fn swap_work(dir: &Path, replacement: &Replacement) -> Vec<FileWork> {
    let base = replacement.added.base;
    let mut work = vec![
        FileWork::Remove(path(dir, base, "index")),
        FileWork::Remove(path(dir, base, "timeindex")),
        FileWork::Rename(dir.join(cleaned_name(replacement)), path(dir, base, "log")),
    ];
    for removed in replacement
        .removed
        .iter()
        .filter(|removed| **removed != base)
    {
        for extension in ["log", "index", "timeindex"] {
            work.push(FileWork::Remove(path(dir, *removed, extension)));
        }
    }
    // Before the checkpoint forgets the swap, it must be durable.
    work.push(FileWork::SyncDir(dir.to_path_buf()));
    work
}
