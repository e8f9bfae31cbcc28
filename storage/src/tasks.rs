//! Slow work of a store over a [`Disk`]: each task owns what it needs, shares nothing with the store
//! and reports one result. Runs on the store's core, beside it; knows no journal state and no mark.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ring::buf::{AlignedBuf, BLOCK_BYTES, Shared};

use crate::disk::{Disk, OpenMode};
use crate::index_task::{IndexJob, IndexOutcome};
use crate::read_task::{LookupJob, LookupOutcome, ReadJob, ReadOutcome};
use crate::segment::BLOCK;
use crate::store::{LogId, aside_dir_name};
use crate::types::Offset;

/// Zeros are written in pieces of this size.
const ZEROS_BYTES: usize = 1 << 20;

/// One piece of slow work, to be run beside the store and given back to it.
#[derive(Debug)]
pub struct StoreTask {
    pub(crate) job: Job,
}

/// The result of a [`StoreTask`].
#[derive(Debug)]
pub struct StoreTaskDone {
    pub(crate) outcome: Outcome,
}

/// Bytes that go to a segment's file, and what is done with the file around them.
#[derive(Debug)]
pub(crate) struct WriteBack {
    pub log: LogId,
    pub base: Offset,
    pub dir: Rc<PathBuf>,
    pub log_dir: Rc<PathBuf>,
    pub topic_id: uuid::Uuid,
    /// Whether file and directory must be made first.
    pub make: bool,
    /// The size that the file must have, and how much of it is new.
    pub allocate: Option<(u64, u64)>,
    pub position: u64,
    /// What is written there, one behind the other; nothing if there are none.
    pub pieces: Vec<Shared>,
    /// Bytes of the segment that are in its file afterwards.
    pub written: u64,
    pub flush: Flush,
    /// What it counts among what is written at once, in bytes.
    pub weight_bytes: u64,
    /// Whether the flush that follows makes what is made here durable too, with its names.
    pub made_by_flush: bool,
    /// For a closed segment that is whole now: its length and its index files.
    pub finish: Option<Finish>,
}

/// Whether and how what is written to a segment is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Some other time.
    Later,
    /// At once.
    Own,
    /// With other segments, when they are written too.
    Together,
}

#[derive(Debug)]
pub(crate) struct Finish {
    pub length_bytes: u64,
    /// Contents of `.index` and `.timeindex`, unless an [`IndexJob`] writes them.
    pub indexes: Option<(Vec<u8>, Vec<u8>)>,
}

/// What is done with files whose contents nobody needs any more.
#[derive(Debug, Clone)]
pub(crate) enum FileWork {
    /// Renamed; a source that is not there is no error.
    Rename(PathBuf, PathBuf),
    /// A partition's directory, renamed if it is of this topic: the partition may have had none yet. Nobody
    /// else may make or rename a directory of that name meanwhile.
    RenameDir(PathBuf, PathBuf, uuid::Uuid),
    /// Removed; absence is no error.
    Remove(PathBuf),
    /// Removed with everything in it (one level deep); absence is no error.
    RemoveTree(PathBuf),
    /// Its entries are made durable.
    SyncDir(PathBuf),
}

#[derive(Debug)]
pub(crate) enum Job {
    MakeJournal {
        dir: usize,
        id: u64,
        path: PathBuf,
        head: Shared,
        capacity_bytes: u64,
    },
    FlushJournal {
        dir: usize,
        written: u64,
        paths: Vec<Rc<PathBuf>>,
        /// Segments that were written beside the journal.
        segments: Vec<Rc<PathBuf>>,
    },
    /// Flushes all that was written in a log directory, `file` included.
    FlushAll {
        dir: usize,
        directory: PathBuf,
        file: PathBuf,
    },
    Checkpoint {
        dir: usize,
        path: PathBuf,
        bytes: Vec<u8>,
    },
    WriteBack(Box<WriteBack>),
    LoadHead {
        log: LogId,
        base: Offset,
        path: PathBuf,
        position: u64,
        length_bytes: usize,
    },
    Read(Box<ReadJob>),
    Lookup(Box<LookupJob>),
    Files {
        dir: usize,
        why: FilesWhy,
        work: Vec<FileWork>,
    },
    /// Gives the reserve file this size.
    Reserve {
        dir: usize,
        path: PathBuf,
        bytes: u64,
        grow: bool,
    },
    Compact(Box<crate::clean_task::CleanJob>),
    Index(Box<IndexJob>),
    /// Sets space aside in a segment, from `position` to `to`.
    Allocate {
        log: LogId,
        base: Offset,
        path: PathBuf,
        position: u64,
        to: u64,
    },
}

/// On whose behalf files are moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FilesWhy {
    /// Nobody waits, except for the rename of the directory of the log, where they are in one.
    Cleanup(Option<LogId>),
    /// The files' time has come.
    Deletions,
    /// The directory of this name is free for a new partition afterwards.
    DirRenamed(String),
    /// Compacted segments take their place.
    Swap(LogId),
}

#[derive(Debug)]
pub(crate) enum Outcome {
    MakeJournal {
        dir: usize,
        id: u64,
        capacity_bytes: u64,
        result: io::Result<()>,
    },
    FlushJournal {
        dir: usize,
        written: u64,
        result: io::Result<()>,
    },
    FlushAll {
        dir: usize,
        result: io::Result<()>,
    },
    Checkpoint {
        dir: usize,
        result: io::Result<()>,
    },
    WriteBack {
        log: LogId,
        base: Offset,
        written: u64,
        allocated: Option<u64>,
        flush: Flush,
        finished: bool,
        weight_bytes: u64,
        result: io::Result<()>,
    },
    LoadHead {
        log: LogId,
        base: Offset,
        result: io::Result<Vec<u8>>,
    },
    Read(ReadOutcome),
    Lookup(LookupOutcome),
    Index(IndexOutcome),
    Files {
        dir: usize,
        why: FilesWhy,
        result: io::Result<()>,
    },
    Reserve {
        dir: usize,
        /// The size it has now.
        bytes: u64,
        grow: bool,
        result: io::Result<()>,
    },
    Compact(crate::clean_task::CleanOutcome),
    Allocate {
        log: LogId,
        base: Offset,
        to: u64,
        result: io::Result<()>,
    },
}

impl StoreTask {
    /// Does the work. Errors of the disk are part of the result.
    pub async fn run<D: Disk>(self, disk: D) -> StoreTaskDone {
        let outcome = match self.job {
            Job::MakeJournal {
                dir,
                id,
                path,
                head,
                capacity_bytes,
            } => Outcome::MakeJournal {
                dir,
                id,
                capacity_bytes,
                result: match make_journal(&disk, &path, head, capacity_bytes).await {
                    Err(error) => {
                        // What was written of it takes room that others need; a next try has another name.
                        let _ = disk.remove_file(&path).await;
                        Err(error)
                    }
                    made => made,
                },
            },
            Job::FlushJournal {
                dir,
                written,
                paths,
                segments,
            } => Outcome::FlushJournal {
                dir,
                written,
                result: flush(&disk, &paths, &segments).await,
            },
            Job::FlushAll {
                dir,
                directory,
                file,
            } => Outcome::FlushAll {
                dir,
                result: flush_all(&disk, &directory, &file).await,
            },
            Job::Checkpoint { dir, path, bytes } => Outcome::Checkpoint {
                dir,
                result: write_file(&disk, &path, &bytes).await,
            },
            Job::WriteBack(work) => {
                let result = write_back(&disk, &work).await;
                Outcome::WriteBack {
                    log: work.log,
                    base: work.base,
                    written: work.written,
                    allocated: work.allocate.map(|(bytes, _)| bytes),
                    flush: work.flush,
                    finished: work.finish.is_some(),
                    weight_bytes: work.weight_bytes,
                    result,
                }
            }
            Job::LoadHead {
                log,
                base,
                path,
                position,
                length_bytes,
            } => Outcome::LoadHead {
                log,
                base,
                result: load_head(&disk, &path, position, length_bytes).await,
            },
            Job::Read(job) => Outcome::Read(job.run(&disk).await),
            Job::Lookup(job) => Outcome::Lookup(job.run(&disk).await),
            Job::Index(job) => Outcome::Index(job.run(&disk).await),
            Job::Files { dir, why, work } => Outcome::Files {
                dir,
                why,
                result: move_files(&disk, &work).await,
            },
            Job::Reserve {
                dir,
                path,
                bytes,
                grow,
            } => {
                let (bytes, result) = set_reserve(&disk, &path, bytes, grow).await;
                Outcome::Reserve {
                    dir,
                    bytes,
                    grow,
                    result,
                }
            }
            Job::Compact(job) => Outcome::Compact(job.run(&disk).await),
            Job::Allocate {
                log,
                base,
                path,
                position,
                to,
            } => Outcome::Allocate {
                log,
                base,
                to,
                result: allocate(&disk, &path, position, to).await,
            },
        };
        StoreTaskDone { outcome }
    }

    /// Whether the work should give way to serving: compaction and the making of files.
    pub fn is_background(&self) -> bool {
        !matches!(
            self.job,
            Job::Read(_) | Job::Lookup(_) | Job::FlushJournal { .. }
        )
    }
}

/// `None` where the error is only that something is not there.
fn unless_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Sets space aside. A file system that cannot do that (some in user space) at least gives the length;
/// a full disk is then found only when it is written.
async fn set_aside<D: Disk>(
    disk: &D,
    file: &D::File,
    position: u64,
    length_bytes: u64,
) -> io::Result<()> {
    match disk.allocate(file, position, length_bytes).await {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
            let end = position + length_bytes;
            if disk.length(file).await? < end {
                disk.truncate(file, end).await?;
            }
            Ok(())
        }
        other => other,
    }
}

async fn make_journal<D: Disk>(
    disk: &D,
    path: &Path,
    head: Shared,
    capacity_bytes: u64,
) -> io::Result<()> {
    let file = disk.open(path, OpenMode::Create).await?;
    disk.truncate(&file, 0).await?;
    let end = head.len() as u64 + capacity_bytes;
    set_aside(disk, &file, 0, end).await?;
    // Written once with zeros: a flush into blocks that were never written costs far more.
    let zeros = AlignedBuf::zeroed(ZEROS_BYTES).freeze();
    let mut position = head.len() as u64;
    disk.write_at(&file, 0, head).await?;
    while position < end {
        let bytes = (end - position).min(ZEROS_BYTES as u64);
        disk.write_at(&file, position, zeros.slice(0..bytes as usize))
            .await?;
        position += bytes;
        disk.pause().await;
    }
    disk.sync_data(&file).await?;
    disk.sync_dir(path.parent().expect("a journal lies in a directory"))
        .await
}

async fn flush<D: Disk>(
    disk: &D,
    paths: &[Rc<PathBuf>],
    segments: &[Rc<PathBuf>],
) -> io::Result<()> {
    for path in paths {
        let file = disk.open(path, OpenMode::ReadWrite).await?;
        disk.sync_data(&file).await?;
    }
    for path in segments {
        // One that is gone was deleted with its partition.
        match disk.open(path, OpenMode::ReadWrite).await {
            Ok(file) => disk.sync_data(&file).await?,
            Err(error) => unless_missing(Err(error))?,
        }
    }
    Ok(())
}

async fn flush_all<D: Disk>(disk: &D, directory: &Path, file: &Path) -> io::Result<()> {
    let file = disk.open(file, OpenMode::ReadWrite).await?;
    disk.sync_all(directory, &file).await
}

async fn allocate<D: Disk>(disk: &D, path: &Path, position: u64, to: u64) -> io::Result<()> {
    let file = disk.open(path, OpenMode::ReadWrite).await?;
    set_aside(disk, &file, position, to - position).await
}

/// Puts a file with these contents in place of what was there, durably, or leaves what was there.
pub(crate) async fn write_file<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_file(disk, path, bytes).await?;
    disk.sync_dir(path.parent().expect("a file lies in a directory"))
        .await
}

/// As [`write_file`], but which of the two is there after a power cut is open.
async fn replace_file<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    write_plain(disk, &temporary, bytes).await?;
    disk.rename(&temporary, path).await
}

/// Writes and flushes a file; its name is not durable yet.
pub(crate) async fn write_plain<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = disk.open(path, OpenMode::Create).await?;
    disk.truncate(&file, 0).await?;
    let mut position = 0;
    for piece in bytes.chunks(ZEROS_BYTES) {
        let mut block = AlignedBuf::zeroed(piece.len());
        block[..piece.len()].copy_from_slice(piece);
        disk.write_at(&file, position, block.freeze()).await?;
        position += piece.len().next_multiple_of(BLOCK_BYTES) as u64;
        disk.pause().await;
    }
    disk.truncate(&file, bytes.len() as u64).await?;
    disk.sync_data(&file).await
}

/// Reads a whole file, at most `bytes_max`.
pub(crate) async fn read_file<D: Disk>(
    disk: &D,
    path: &Path,
    bytes_max: u64,
) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read).await?;
    let length = disk.length(&file).await?;
    if length > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} is {length} bytes, more than {bytes_max}",
                path.display()
            ),
        ));
    }
    let mut out = Vec::with_capacity(length as usize);
    while (out.len() as u64) < length {
        let wanted = (length - out.len() as u64).min(ZEROS_BYTES as u64) as usize;
        let (result, buf) = disk
            .read_at(&file, out.len() as u64, AlignedBuf::zeroed(wanted))
            .await;
        let read = result?.min(wanted);
        if read == 0 {
            break;
        }
        out.extend_from_slice(&buf[..read]);
    }
    Ok(out)
}

async fn write_back<D: Disk>(disk: &D, work: &WriteBack) -> io::Result<()> {
    let path = crate::segment::path(&work.dir, work.base, "log");
    let file = if work.make {
        make_partition_dir(disk, work).await?;
        disk.open(&path, OpenMode::Create).await?
    } else {
        disk.open(&path, OpenMode::ReadWrite).await?
    };
    if let Some((bytes, new)) = work.allocate {
        set_aside(disk, &file, bytes - new, new).await?;
    }
    if work.make && work.flush != Flush::Own && !work.made_by_flush {
        // It is used from now on; what is written first is flushed later.
        disk.sync_data(&file).await?;
    }
    match &work.pieces[..] {
        [] => {}
        [one] => disk.write_at(&file, work.position, one.clone()).await?,
        pieces => disk.write_gathered(&file, work.position, pieces).await?,
    }
    if let Some(finish) = &work.finish {
        disk.truncate(&file, finish.length_bytes).await?;
    }
    if work.flush == Flush::Own {
        disk.sync_data(&file).await?;
    }
    if work.make && !work.made_by_flush {
        disk.sync_dir(&work.dir).await?;
    }
    if let Some(Finish {
        indexes: Some((offsets, times)),
        ..
    }) = &work.finish
    {
        write_indexes(disk, &work.dir, work.base, offsets, times).await?;
    }
    Ok(())
}

/// Puts both index files of a finished segment in place, each whole or not at all.
pub(crate) async fn write_indexes<D: Disk>(
    disk: &D,
    dir: &Path,
    base: Offset,
    offsets: &[u8],
    times: &[u8],
) -> io::Result<()> {
    write_file(disk, &crate::segment::path(dir, base, "index"), offsets).await?;
    write_file(disk, &crate::segment::path(dir, base, "timeindex"), times).await
}

/// Moves a directory aside that has a partition's name and is of another topic: what an earlier start left.
/// Of a topic that was deleted since this one no directory is met: the store waits until it has its new name.
async fn move_aside<D: Disk>(disk: &D, work: &WriteBack, other: &[u8]) -> io::Result<()> {
    let name = work.dir.file_name().unwrap_or_default().to_string_lossy();
    let mark = xxhash_rust::xxh3::xxh3_64(other);
    let aside = aside_dir_name(&format_args!("{mark:016x}"), &name);
    let aside = work.log_dir.join(aside);
    disk.rename(&work.dir, &aside).await?;
    disk.sync_dir(&work.log_dir).await
}

/// Makes a partition's directory and the file that says which topic it belongs to.
async fn place_partition_dir<D: Disk>(
    disk: &D,
    work: &WriteBack,
    metadata: &Path,
    text: &str,
) -> io::Result<()> {
    disk.create_dir_all(&work.dir).await?;
    if work.made_by_flush {
        // A power cut before the flush may leave a file that says nothing: the journal has all that belongs
        // there, and the directory is made anew.
        let file = disk.open(metadata, OpenMode::Create).await?;
        disk.truncate(&file, 0).await?;
        let mut block = AlignedBuf::zeroed(text.len());
        block[..text.len()].copy_from_slice(text.as_bytes());
        disk.write_at(&file, 0, block.freeze()).await?;
        return disk.truncate(&file, text.len() as u64).await;
    }
    replace_file(disk, metadata, text.as_bytes()).await
}

/// Makes a partition's directory with the file that says which topic it belongs to. What is there
/// already may be the work of a process that was killed before it flushed: it is flushed anyway. What
/// the directory holds is durable when the caller, who makes another file in it, has flushed it.
async fn make_partition_dir<D: Disk>(disk: &D, work: &WriteBack) -> io::Result<()> {
    let metadata = work.dir.join("partition.metadata");
    let text = partition_metadata(work.topic_id);
    match read_file(disk, &metadata, 4096).await {
        Ok(found) if found == text.as_bytes() => {
            if !work.made_by_flush {
                // Who wrote it may have left that to a flush of the file system, and been killed before it.
                let file = disk.open(&metadata, OpenMode::ReadWrite).await?;
                disk.sync_data(&file).await?;
            }
        }
        Ok(other) => {
            move_aside(disk, work, &other).await?;
            place_partition_dir(disk, work, &metadata, &text).await?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            place_partition_dir(disk, work, &metadata, &text).await?;
        }
        Err(error) => return Err(error),
    }
    if work.made_by_flush {
        return Ok(());
    }
    disk.sync_dir(&work.log_dir).await
}

/// The contents of `partition.metadata`, as Kafka writes it (KIP-516): the id in URL-safe base64.
pub fn partition_metadata(topic_id: uuid::Uuid) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::from("version: 0\ntopic_id: ");
    for group in topic_id.as_bytes().chunks(3) {
        let mut bits = [0u8; 3];
        bits[..group.len()].copy_from_slice(group);
        let word = u32::from_be_bytes([0, bits[0], bits[1], bits[2]]);
        for digit in 0..=group.len() {
            text.push(DIGITS[(word >> (18 - 6 * digit)) as usize & 63] as char);
        }
    }
    text.push('\n');
    text
}

async fn load_head<D: Disk>(
    disk: &D,
    path: &Path,
    position: u64,
    length_bytes: usize,
) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read).await?;
    let (result, buf) = disk
        .read_at(&file, position, AlignedBuf::zeroed(BLOCK as usize))
        .await;
    if result? < length_bytes {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{} ends inside acknowledged data", path.display()),
        ));
    }
    Ok(buf[..length_bytes].to_vec())
}

pub(crate) async fn move_files<D: Disk>(disk: &D, work: &[FileWork]) -> io::Result<()> {
    for step in work {
        match step {
            FileWork::Rename(from, to) => unless_missing(disk.rename(from, to).await)?,
            FileWork::RenameDir(from, to, topic_id) => {
                let expected = partition_metadata(*topic_id);
                match read_file(disk, &from.join("partition.metadata"), 4096).await {
                    Ok(found) if found == expected.as_bytes() => {
                        unless_missing(disk.rename(from, to).await)?;
                    }
                    Ok(_) => {}
                    Err(error) => unless_missing(Err(error))?,
                }
            }
            FileWork::Remove(path) => unless_missing(disk.remove_file(path).await)?,
            FileWork::SyncDir(path) => unless_missing(disk.sync_dir(path).await)?,
            FileWork::RemoveTree(path) => {
                let entries = match disk.list_dir(path).await {
                    Ok(entries) => entries,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                for entry in entries.iter().filter(|entry| !entry.is_dir) {
                    unless_missing(disk.remove_file(&path.join(&entry.name)).await)?;
                    disk.pause().await;
                }
                unless_missing(disk.remove_dir(path).await)?;
            }
        }
    }
    Ok(())
}

/// Gives the reserve file a size; tells which it has then.
async fn set_reserve<D: Disk>(
    disk: &D,
    path: &Path,
    bytes: u64,
    grow: bool,
) -> (u64, io::Result<()>) {
    let mut there = 0;
    let result = async {
        let file = disk.open(path, OpenMode::Create).await?;
        there = disk.length(&file).await?;
        if grow {
            if let Err(error) = set_aside(disk, &file, 0, bytes).await {
                // Some file systems have given a part: it is not to be taken from who needs it now.
                disk.truncate(&file, there).await?;
                return Err(error);
            }
        } else {
            disk.truncate(&file, bytes).await?;
        }
        there = bytes;
        disk.sync_data(&file).await
    }
    .await;
    (there, result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_metadata_reads_as_kafkas() {
        // 16 bytes give 22 digits without padding; all zeros are all 'A'.
        assert_eq!(
            partition_metadata(uuid::Uuid::nil()),
            "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA\n"
        );
        let all_ones = partition_metadata(uuid::Uuid::from_bytes([255; 16]));
        assert_eq!(all_ones, "version: 0\ntopic_id: _____________________w\n");
    }
}
