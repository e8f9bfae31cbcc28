//! The cleaner's task: reads a log's closed segments, keeps each key's newest record, and writes new
//! segments beside the old ones, chunk by chunk. Runs on the store's core; knows no schedule and puts
//! nothing in place: that waits until the journal says so.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::compact::{Cleaned, Cleaner, Mapped, OffsetMap};
use crate::disk::{Disk, OpenMode};
use crate::producer_state::ProducerStates;
use crate::read_task::{BatchWalk, SegmentRef};
use crate::records::RecordsScratch;
use crate::segment::{RELATIVE_OFFSET_MAX, SegmentImage, file_name, path};
use crate::segment_writer::{IndexBounds, SegmentPaths, SegmentWriter};
use crate::store::{LogId, ReadError, Replacement};
use crate::tasks::FileWork;
use crate::types::Offset;
use crate::walk::output_bytes_max;

/// A batch decompresses to at most this in a log that producers' batches were checked for.
const OUTPUT_BYTES_MAX: u64 = 1 << 30;

/// Positions in an index have 31 bits. No segment is appended beyond that, and what stays of it is only
/// longer where batches had to be written anew, by a few bytes each.
const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// How the name of a file ends that compaction has not put in place.
const CLEANED: &str = ".cleaned";

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
    pub index: IndexBounds,
    /// For the map of keys.
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

impl CleanJob {
    pub(crate) async fn run<D: Disk>(self, disk: &D) -> CleanOutcome {
        let result = self.clean(disk).await;
        if result.is_err() {
            // What was written takes room that others may need. If it stays, the next round removes it.
            let _ = self.remove_leftovers(disk).await;
        }
        CleanOutcome {
            log: self.log,
            result,
        }
    }

    async fn clean<D: Disk>(&self, disk: &D) -> Result<(Vec<Replacement>, Offset), ReadError> {
        self.remove_leftovers(disk)
            .await
            .map_err(|_: io::Error| ReadError::Io)?;
        let mut scratch = RecordsScratch::new();
        let map = self.build_map(disk, &mut scratch).await?;
        let map_end = map.offset_end();
        let Some((_, last)) = self.segments.last() else {
            return Ok((Vec::new(), self.dirty_from));
        };
        if map_end <= self.dirty_from {
            return Ok((Vec::new(), self.dirty_from));
        }
        let mut cleaner = Cleaner::new(
            map,
            last.offset_end,
            &self.producers,
            self.now_ms,
            self.delete_retention_ms,
            OUTPUT_BYTES_MAX,
        );
        // A segment of which the map knows only the beginning is cleaned too: where the map ends, all
        // stays, and the next round goes on from there. So a map that is small against one segment's
        // keys gets on nevertheless.
        let known = self
            .segments
            .partition_point(|(_, image)| image.base < map_end);
        let mut done = Vec::new();
        for group in group_by_size(&self.segments[..known], self.segment_bytes) {
            let replacement = self
                .clean_group(disk, group, map_end, &mut cleaner, &mut scratch)
                .await?;
            done.push(replacement);
        }
        disk.sync_dir(&self.dir)
            .await
            .map_err(|_: io::Error| ReadError::Io)?;
        Ok((done, map_end))
    }

    /// Removes what a round that failed, or that a crash cut short, has left. Nothing in this directory
    /// waits to be put in place while a round begins.
    async fn remove_leftovers<D: Disk>(&self, disk: &D) -> io::Result<()> {
        for entry in disk.list_dir(&self.dir).await? {
            if entry.name.ends_with(CLEANED) && !entry.is_dir {
                disk.remove_file(&self.dir.join(&entry.name)).await?;
            }
        }
        Ok(())
    }

    /// The latest offset of every key in the part that was not compacted before, as far as the map
    /// takes them.
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
                if batch.header().offset_end() <= self.dirty_from {
                    continue;
                }
                batch.verify_crc().map_err(|_| ReadError::Corrupt)?;
                let bound = output_bytes_max(batch.len_bytes());
                let mapped = map
                    .add_batch(&batch, self.dirty_from, bound, scratch)
                    .map_err(|_| ReadError::Corrupt)?;
                if mapped == Mapped::Full {
                    return Ok(map);
                }
            }
            // Compaction may have left nothing at a segment's end.
            map.reach(image.offset_end);
        }
        Ok(map)
    }

    /// Writes what is left of neighbours into one new segment.
    async fn clean_group<D: Disk>(
        &self,
        disk: &D,
        group: &[(SegmentRef, SegmentImage)],
        map_end: Offset,
        cleaner: &mut Cleaner,
        scratch: &mut RecordsScratch,
    ) -> Result<Replacement, ReadError> {
        let (first, last) = (&group[0].1, &group[group.len() - 1].1);
        let mut image = SegmentImage::empty(first.base, first.created_ms);
        image.generation = self.generation;
        let mut writer = SegmentWriter::create(
            disk,
            cleaned_paths(&self.dir, first.base, self.generation),
            image,
            self.index,
        )
        .await
        .map_err(|_| ReadError::Io)?;
        for (segment, _) in group {
            if segment.end == 0 {
                continue;
            }
            let file = open(disk, segment).await?;
            let mut walk = BatchWalk::new(segment, 0);
            while let Some((_, batch)) = walk.next(disk, &file).await? {
                batch.verify_crc().map_err(|_| ReadError::Corrupt)?;
                let cleaned = cleaner
                    .clean(&batch, scratch)
                    .map_err(|_| ReadError::Corrupt)?;
                let kept = match &cleaned {
                    Cleaned::Kept => batch.bytes(),
                    Cleaned::Replaced(bytes) => bytes,
                    Cleaned::Dropped => continue,
                };
                if writer.length_bytes() + kept.len() as u64 > SEGMENT_BYTES_MAX {
                    return Err(ReadError::Corrupt);
                }
                writer.push(disk, kept).await.map_err(|_| ReadError::Io)?;
            }
        }
        let mut added = writer.finish(disk).await.map_err(|_| ReadError::Io)?;
        // The segment reaches as far as those it was made from, whatever is left in it.
        added.offset_end = last.offset_end;
        Ok(Replacement {
            removed: group.iter().map(|(_, image)| image.base).collect(),
            compacted_end: last.offset_end.min(map_end),
            added,
        })
    }
}

/// Neighbours that become one segment: as many as have, before they are cleaned, no more than a
/// segment's bytes together, and offsets that an index can hold. Kafka's rule: it needs no look ahead.
fn group_by_size(
    mut segments: &[(SegmentRef, SegmentImage)],
    segment_bytes: u64,
) -> impl Iterator<Item = &[(SegmentRef, SegmentImage)]> {
    std::iter::from_fn(move || {
        let (_, first) = segments.first()?;
        let mut bytes = first.length_bytes;
        let more = segments[1..].iter().take_while(|(_, image)| {
            bytes += image.length_bytes;
            bytes <= segment_bytes && image.offset_end.0 - first.base.0 <= RELATIVE_OFFSET_MAX
        });
        let (group, rest) = segments.split_at(1 + more.count());
        segments = rest;
        Some(group)
    })
}

async fn open<D: Disk>(disk: &D, segment: &SegmentRef) -> Result<D::File, ReadError> {
    disk.open(&path(&segment.dir, segment.base, "log"), OpenMode::Read)
        .await
        .map_err(|_| ReadError::Io)
}

/// The names of a compacted segment's files until they take their place.
pub(crate) fn cleaned_paths(dir: &Path, base: Offset, generation: u64) -> SegmentPaths {
    let name = |of: &str| dir.join(file_name(base, &format!("{generation:016x}{of}{CLEANED}")));
    SegmentPaths {
        log: name(""),
        offset_index: name(".index"),
        time_index: name(".timeindex"),
    }
}

/// Puts a compacted segment in place of the old ones; can be repeated after a crash at any point. The
/// directory keeps the order of these steps, and none is durable without those before it or without
/// the journal's entry that has them repeated: an index is never left with a log that is not its own.
pub(crate) fn swap_work(dir: &Path, replacement: &Replacement) -> Vec<FileWork> {
    let base = replacement.added.base;
    let cleaned = cleaned_paths(dir, base, replacement.added.generation);
    let mut work = vec![
        FileWork::Rename(cleaned.offset_index, path(dir, base, "index")),
        FileWork::Rename(cleaned.time_index, path(dir, base, "timeindex")),
        FileWork::Rename(cleaned.log, path(dir, base, "log")),
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

#[cfg(test)]
mod tests;
