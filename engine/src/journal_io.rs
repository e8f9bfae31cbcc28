//! The journal files that a core writes to: opened at the first write, kept open, written and flushed
//! through the core's ring. Lives on that core; knows no journal format and no mark.

use std::collections::HashMap;
use std::io;

use ring::{File, FileOutcome, OpToken, OpenOptions, Ring};
use storage::store::DurableWrite;

/// Journal files kept open; a core writes to one or two of each log directory at a time.
const FILES_MAX: usize = 16;

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
    /// By number; the longest open first.
    files: Vec<(u64, JournalFile)>,
    writes: HashMap<OpToken, u64>,
}

impl JournalIo {
    /// Starts a write; what ended at once is returned.
    pub fn write(&mut self, ring: &mut Ring, write: DurableWrite) -> Option<Written> {
        let id = write.file.id;
        if let Some((_, file)) = self.files.iter_mut().find(|(file, _)| *file == id) {
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
                let queued = vec![write];
                self.files
                    .push((id, JournalFile::Opening { token, queued }));
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
                let (id, JournalFile::Opening { queued, .. }) = self.files.remove(index) else {
                    unreachable!("just seen")
                };
                match result {
                    Ok(file) => {
                        for write in queued {
                            self.submit(ring, &file, write);
                        }
                        self.files.push((id, JournalFile::Open(file)));
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
