//! Writes one segment's file front to back, with its indexes, in chunks of bounded size. Used by tasks
//! on their core; knows no log: which batches come, and under what name, the caller says.

use std::io;
use std::path::PathBuf;

use ring::buf::{AlignedBuf, BLOCK_BYTES};

use crate::batch::BatchView;
use crate::disk::{Disk, OpenMode};
use crate::index::SegmentIndex;
use crate::segment::SegmentImage;
use crate::store::note_image;
use crate::tasks::write_plain;

/// Bytes that are gathered for one write; no more of a segment is ever held.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// Where the files of a segment are written: none of them has its final name yet.
#[derive(Clone, Debug)]
pub(crate) struct SegmentPaths {
    pub log: PathBuf,
    pub offset_index: PathBuf,
    pub time_index: PathBuf,
}

impl SegmentPaths {
    pub(crate) fn into_all(self) -> [PathBuf; 3] {
        [self.log, self.offset_index, self.time_index]
    }
}

/// How densely a segment is indexed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexBounds {
    /// `index.interval.bytes`
    pub interval_bytes: u64,
    /// `segment.index.bytes`: an index that would pass it becomes sparser.
    pub bytes_max: usize,
}

/// A segment that is being written.
pub(crate) struct SegmentWriter<F> {
    file: F,
    paths: SegmentPaths,
    image: SegmentImage,
    index: SegmentIndex,
    bounds: IndexBounds,
    /// Not written yet; the file ends at `written`, a multiple of a block, before it.
    chunk: AlignedBuf,
    filled: usize,
    written: u64,
}

impl<F: Clone + 'static> SegmentWriter<F> {
    /// Begins a segment that is like `image`, without batches. What an earlier attempt left under
    /// these names goes.
    pub(crate) async fn create<D: Disk<File = F>>(
        disk: &D,
        paths: SegmentPaths,
        image: SegmentImage,
        bounds: IndexBounds,
    ) -> io::Result<SegmentWriter<F>> {
        assert_eq!(image.length_bytes, 0, "a segment is written from its start");
        let file = disk.open(&paths.log, OpenMode::Create).await?;
        disk.truncate(&file, 0).await?;
        Ok(SegmentWriter {
            file,
            paths,
            index: SegmentIndex::new(image.base),
            image,
            bounds,
            chunk: AlignedBuf::scratch(CHUNK_BYTES),
            filled: 0,
            written: 0,
        })
    }

    /// Bytes of batches so far.
    pub(crate) fn length_bytes(&self) -> u64 {
        self.image.length_bytes
    }

    /// Appends a whole batch, which the caller has looked at.
    pub(crate) async fn push<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        bytes: &[u8],
    ) -> io::Result<()> {
        let batch = BatchView::new(bytes).expect("looked at by the caller");
        let (header, position) = (batch.header(), self.image.length_bytes);
        self.index
            .on_batch(header, position, self.bounds.interval_bytes);
        while self.index.is_full(self.bounds.bytes_max) {
            self.index.thin();
        }
        note_image(&mut self.image, position, header);
        let mut rest = bytes;
        while !rest.is_empty() {
            let take = rest.len().min(CHUNK_BYTES - self.filled);
            self.chunk[self.filled..self.filled + take].copy_from_slice(&rest[..take]);
            self.filled += take;
            rest = &rest[take..];
            if self.filled == CHUNK_BYTES {
                self.write_chunk(disk).await?;
            }
        }
        Ok(())
    }

    async fn write_chunk<D: Disk<File = F>>(&mut self, disk: &D) -> io::Result<()> {
        let padded = self.filled.next_multiple_of(BLOCK_BYTES);
        self.chunk[self.filled..padded].fill(0);
        let chunk = std::mem::replace(&mut self.chunk, AlignedBuf::scratch(0)).freeze();
        disk.write_at(&self.file, self.written, chunk.slice(0..padded))
            .await?;
        // Freed before the next one is taken: there is never more than one.
        drop(chunk);
        self.chunk = AlignedBuf::scratch(CHUNK_BYTES);
        self.written += self.filled as u64;
        self.filled = 0;
        disk.pause().await;
        Ok(())
    }

    /// Writes the rest and the indexes, and flushes all three files; their names are not durable yet.
    pub(crate) async fn finish<D: Disk<File = F>>(mut self, disk: &D) -> io::Result<SegmentImage> {
        if self.filled > 0 {
            self.write_chunk(disk).await?;
        }
        disk.truncate(&self.file, self.image.length_bytes).await?;
        disk.sync_data(&self.file).await?;
        self.index.close();
        let index = &self.index;
        write_plain(disk, &self.paths.offset_index, index.offset_index_bytes()).await?;
        write_plain(disk, &self.paths.time_index, index.time_index_bytes()).await?;
        self.image.synced_bytes = self.image.length_bytes;
        self.image.closed = true;
        self.image.finished = true;
        Ok(self.image)
    }
}
