//! The files that a core writes to while it serves, journals and segments: opened at the first write,
//! kept open, written and flushed through the core's ring. Lives on that core; knows no journal format
//! and no mark.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use ring::{File, FileOutcome, OpToken, OpenOptions, Ring};
use storage::store::{DurableWrite, FileRef};

/// Files kept open; a core writes to one or two journal files of each log directory at a time, and to
/// the segments of partitions that bring much.
const FILES_MAX: usize = 32;

enum JournalFile {
    Opening {
        token: OpToken,
        queued: Vec<DurableWrite>,
    },
    Open(File),
}

/// A write's token and how it ended.
pub(crate) type Written = (u64, io::Result<()>);

/// Open journal files, and the writes in flight.
#[derive(Default)]
pub(crate) struct JournalIo {
    /// The longest open first. Numbers begin anew in each log directory, so the path decides.
    files: Vec<(FileRef, JournalFile)>,
    writes: HashMap<OpToken, u64>,
}

impl JournalIo {
    /// Closes files that the store will not write to again: what is deleted frees its space.
    pub fn forget_unused(&mut self) {
        self.files.retain(|(file, state)| {
            matches!(state, JournalFile::Opening { .. }) || Rc::strong_count(&file.path) > 1
        });
    }

    /// Starts a write; what ended at once is returned.
    pub fn write(&mut self, ring: &mut Ring, write: DurableWrite) -> Option<Written> {
        let known = self
            .files
            .iter_mut()
            .find(|(file, _)| file.id == write.file.id && file.path == write.file.path);
        if let Some((_, file)) = known {
            match file {
                JournalFile::Opening { queued, .. } => queued.push(write),
                JournalFile::Open(file) => {
                    let file = file.clone();
                    self.submit(ring, &file, write);
                }
            }
            return None;
        }
        if self.files.len() >= FILES_MAX
            && let Some(oldest) = self
                .files
                .iter()
                .position(|(_, file)| matches!(file, JournalFile::Open(_)))
        {
            self.files.remove(oldest);
        }
        let options = OpenOptions {
            write: true,
            direct: true,
            ..OpenOptions::default()
        };
        match ring.open(&write.file.path, options) {
            Ok(token) => {
                let reference = write.file.clone();
                let queued = vec![write];
                self.files
                    .push((reference, JournalFile::Opening { token, queued }));
                None
            }
            Err(error) => Some((write.token, Err(error))),
        }
    }

    fn submit(&mut self, ring: &mut Ring, file: &File, write: DurableWrite) {
        let token = ring.write_at(file, write.position, write.bytes, write.sync);
        self.writes.insert(token, write.token);
    }

    /// Applies the outcome of an operation that was asked for here; the writes that it ended.
    pub fn complete(
        &mut self,
        ring: &mut Ring,
        token: OpToken,
        outcome: FileOutcome,
    ) -> Vec<Written> {
        match outcome {
            FileOutcome::Opened(result) => {
                let index = self
                    .files
                    .iter()
                    .position(|(_, file)| {
                        matches!(file, JournalFile::Opening { token: opening, .. } if *opening == token)
                    })
                    .expect("only journal files are opened here");
                let (reference, JournalFile::Opening { queued, .. }) = self.files.remove(index)
                else {
                    unreachable!("just seen")
                };
                match result {
                    Ok(file) => {
                        for write in queued {
                            self.submit(ring, &file, write);
                        }
                        self.files.push((reference, JournalFile::Open(file)));
                        Vec::new()
                    }
                    Err(error) => queued
                        .into_iter()
                        .map(|write| (write.token, Err(copy_of(&error))))
                        .collect(),
                }
            }
            FileOutcome::Done(result) => {
                let write = self
                    .writes
                    .remove(&token)
                    .expect("only journal writes are asked for here");
                vec![(write, result.map(drop))]
            }
            other => unreachable!("nobody asked for {other:?}"),
        }
    }
}

fn copy_of(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.kind().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ring::buf::AlignedBuf;
    use ring::{Completion, RingConfig};

    use super::*;

    /// A write of one block of `byte` to the journal file number 0 of `dir`.
    fn write_to(dir: &Path, token: u64, byte: u8) -> DurableWrite {
        let path = dir.join("0.jnl");
        std::fs::write(&path, [0; 4096]).expect("a file of zeros");
        let mut block = AlignedBuf::zeroed(4096);
        block.fill(byte);
        DurableWrite {
            token,
            file: FileRef {
                id: 0,
                path: Rc::new(path),
            },
            position: 0,
            bytes: block.freeze(),
            sync: true,
        }
    }

    #[test]
    fn files_of_one_number_in_two_directories_are_two_files() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut ring = Ring::new(RingConfig::default()).expect("io_uring works here");
        let mut journal = JournalIo::default();
        for (dir, token, byte) in [(one.path(), 1, b'a'), (other.path(), 2, b'b')] {
            assert!(
                journal
                    .write(&mut ring, write_to(dir, token, byte))
                    .is_none()
            );
            let mut written = Vec::new();
            while written.is_empty() {
                let mut completions = Vec::new();
                ring.turn(&mut completions, 16).expect("the ring works");
                for completion in completions {
                    if let Completion::File { token, outcome } = completion {
                        written.extend(journal.complete(&mut ring, token, outcome));
                    }
                }
                ring.sleep_blocking(10).expect("the ring works");
            }
            assert!(matches!(written[..], [(done, Ok(()))] if done == token));
        }
        assert_eq!(
            std::fs::read(one.path().join("0.jnl")).unwrap(),
            [b'a'; 4096]
        );
        assert_eq!(
            std::fs::read(other.path().join("0.jnl")).unwrap(),
            [b'b'; 4096]
        );
    }

    #[test]
    fn a_file_is_closed_when_the_store_is_done_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut ring = Ring::new(RingConfig::default()).expect("io_uring works here");
        let mut journal = JournalIo::default();
        let write = write_to(dir.path(), 1, b'a');
        let held = write.file.clone();
        assert!(journal.write(&mut ring, write).is_none());
        let mut written = Vec::new();
        while written.is_empty() {
            let mut completions = Vec::new();
            ring.turn(&mut completions, 16).expect("the ring works");
            for completion in completions {
                if let Completion::File { token, outcome } = completion {
                    written.extend(journal.complete(&mut ring, token, outcome));
                }
            }
            ring.sleep_blocking(10).expect("the ring works");
        }
        journal.forget_unused();
        assert_eq!(journal.files.len(), 1);
        drop(held);
        journal.forget_unused();
        assert!(journal.files.is_empty());
    }
}
