//! The room that a start takes in the log directories before the broker serves: without it, on a full
//! disk, a start would wait. Runs on the main thread, when the directories are locked and no core has
//! started; it gives back what earlier starts kept in reserve, and knows nothing of logs.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use storage::blocking_disk::{BlockingDisk, block_on};
use storage::disk::{Disk, OpenMode};
use storage::store::StoreConfig;

/// What is set aside for a moment, to see whether it can be.
const PROBE_FILE: &str = ".room-probe";

/// For directories, the files that count starts, and whatever the file system itself takes.
const SMALL_FILES_BYTES: u64 = 256 << 10;

/// Of one partition in a checkpoint, about.
const CHECKPOINT_ENTRY_BYTES: u64 = 512;

/// What the file system needs beside them to note where they lie, at most.
const EXTENTS_BYTES: u64 = 1 << 20;

/// With so much more than what is needed nothing is tried.
const PLENTY_BYTES: u64 = 64 << 20;

/// Bytes that a start needs in a log directory: a journal for each core, with what the core carries over
/// from the last start (`carried_bytes`, by core), and checkpoints of `partitions`.
pub(crate) fn needed_bytes(store: &StoreConfig, carried_bytes: &[u64], partitions: usize) -> u64 {
    let file_bytes = store.journal_file_bytes;
    let journals: u64 = carried_bytes
        .iter()
        .map(|carried| (1 + carried.div_ceil(file_bytes)) * (file_bytes + (4 << 10)))
        .sum();
    journals + partitions as u64 * CHECKPOINT_ENTRY_BYTES + SMALL_FILES_BYTES
}

/// Looks whether each log directory has the bytes that `needed_bytes` says, by its index. What lacks is
/// taken from the reserve files of earlier starts, which are there for this.
///
/// # Errors
/// A sentence for the operator: which directory is full, and what to do.
pub(crate) fn make(dirs: &[PathBuf], needed_bytes: impl Fn(usize) -> u64) -> Result<(), String> {
    let all_bytes: u64 = (0..dirs.len()).map(&needed_bytes).sum();
    let plenty = |dir: &PathBuf| {
        ring::space(dir).is_ok_and(|space| space.free_bytes > all_bytes + PLENTY_BYTES)
    };
    if dirs.iter().all(plenty) {
        return Ok(());
    }
    // All at once: several may lie on one file system.
    let mut probes = Vec::with_capacity(dirs.len());
    for (index, dir) in dirs.iter().enumerate() {
        let bytes = needed_bytes(index);
        let probe = Probe(dir.join(PROBE_FILE));
        if is_full(&probe.take(bytes)) {
            give_reserve(dir, bytes + EXTENTS_BYTES).map_err(|error| {
                format!(
                    "log directory {}: the reserve cannot be given up: {error}",
                    dir.display()
                )
            })?;
            if is_full(&probe.take(bytes)) {
                drop(probe);
                let free = ring::space(dir).map_or(0, |space| space.free_bytes);
                return Err(format!(
                    "log directory {}: the disk is full: a start needs {bytes} bytes there, for journals \
                     and checkpoints, and {free} are free. Free some on that file system, enlarge it, or \
                     start with a smaller --memory, which makes journals smaller",
                    dir.display()
                ));
            }
        }
        // What is not for lack of room is told better by those who need the directory.
        probes.push(probe);
    }
    Ok(())
}

/// What is said of a directory where the room was taken by others after [`make`] had seen it.
pub(crate) fn lacking(dir: &str) -> String {
    format!(
        "log directory {dir}: the disk is full: the broker cannot make its journals and checkpoints. Free \
         some room on that file system, or enlarge it, and start again; nothing is lost"
    )
}

/// A file that takes room until it is dropped.
struct Probe(PathBuf);

impl Probe {
    fn take(&self, bytes: u64) -> io::Result<()> {
        let disk = BlockingDisk::new();
        block_on(async {
            let file = disk.open(&self.0, OpenMode::Create).await?;
            disk.truncate(&file, 0).await?;
            disk.allocate(&file, 0, bytes.next_multiple_of(4096))
                .await?;
            // Some file systems find out only now.
            disk.sync_data(&file).await
        })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // One that could not be made need not be removed.
        let _ = fs::remove_file(&self.0);
    }
}

fn is_full(result: &io::Result<()>) -> bool {
    matches!(result, Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
}

/// Shortens the reserve files of a log directory by `bytes` together, or by all they have.
fn give_reserve(dir: &Path, bytes: u64) -> io::Result<()> {
    let mut missing = bytes;
    let entries = match fs::read_dir(dir.join(".millrace")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with("reserve-") {
            continue;
        }
        let file = File::options().write(true).open(entry.path())?;
        let length = file.metadata()?.len();
        let given = missing.min(length).next_multiple_of(4096);
        file.set_len(length.saturating_sub(given))?;
        file.sync_all()?;
        missing = missing.saturating_sub(given);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::types::CoreId;

    #[test]
    fn a_journal_for_each_core_and_more_for_what_is_carried() {
        let store = StoreConfig::new(CoreId(0), 2, Vec::new(), 1, 0, 64 << 20);
        let file = store.journal_file_bytes;
        let idle = needed_bytes(&store, &[0, 0], 0);
        assert!(idle > 2 * file && idle < 3 * file, "{idle}");
        let carried = needed_bytes(&store, &[file + 1, 0], 0);
        assert!(carried > 4 * file && carried < 5 * file, "{carried}");
        assert_eq!(needed_bytes(&store, &[0, 0], 1000), idle + 512_000);
    }

    #[test]
    fn reserves_are_shortened_by_what_is_needed() {
        let dir = tempfile::tempdir().expect("a directory");
        let own = dir.path().join(".millrace");
        give_reserve(dir.path(), 1).expect("nothing to give");
        fs::create_dir(&own).expect("a directory");
        for (name, length) in [
            ("reserve-0000", 3 << 20),
            ("reserve-0001", 1 << 20),
            ("epoch", 10),
        ] {
            let file = File::create(own.join(name)).expect("a file");
            file.set_len(length).expect("a length");
        }
        let lengths = || {
            let length = |name| fs::metadata(own.join(name)).expect("a file").len();
            (
                length("reserve-0000") + length("reserve-0001"),
                length("epoch"),
            )
        };
        give_reserve(dir.path(), 2 << 20).expect("given");
        assert_eq!(lengths(), (2 << 20, 10));
        give_reserve(dir.path(), 9 << 20).expect("given");
        assert_eq!(lengths(), (0, 10));
    }

    #[test]
    fn where_there_is_room_nothing_stays_behind() {
        let dir = tempfile::tempdir().expect("a directory");
        let dirs = [dir.path().to_path_buf()];
        assert_eq!(make(&dirs, |_| 1 << 20), Ok(()));
        let probe = Probe(dirs[0].join(PROBE_FILE));
        probe.take(1 << 20).expect("room");
        drop(probe);
        assert_eq!(fs::read_dir(&dirs[0]).expect("a directory").count(), 0);
    }
}
