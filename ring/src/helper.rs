//! A thread for the two questions that io_uring cannot ask: what a directory lists, and how much room a
//! file system has. Started at the first question; knows only paths. Rare work: recovery, new files,
//! the watch for a full disk.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::file::{FileOutcome, ListedEntry, SpaceBytes};
use crate::op::OpToken;
use crate::wake::Waker;

pub(crate) enum Question {
    List(PathBuf),
    Space(PathBuf),
}

enum Answer {
    Listed(io::Result<Vec<ListedEntry>>),
    Space(io::Result<SpaceBytes>),
}

pub(crate) struct Helper {
    questions: Sender<(OpToken, Question)>,
    answers: Receiver<(OpToken, Answer)>,
    open_count: usize,
}

impl Helper {
    pub fn start(waker: Waker) -> io::Result<Helper> {
        let (questions, inbox) = channel::<(OpToken, Question)>();
        let (outbox, answers) = channel();
        std::thread::Builder::new()
            .name("disk-helper".into())
            .stack_size(128 * 1024)
            .spawn(move || {
                for (token, question) in inbox {
                    let answer = match question {
                        Question::List(path) => Answer::Listed(list(&path)),
                        Question::Space(path) => Answer::Space(space(&path)),
                    };
                    if outbox.send((token, answer)).is_err() {
                        return;
                    }
                    waker.wake();
                }
            })?;
        Ok(Helper {
            questions,
            answers,
            open_count: 0,
        })
    }

    pub fn ask(&mut self, token: OpToken, question: Question) -> io::Result<()> {
        self.questions
            .send((token, question))
            .map_err(|_| io::Error::other("the disk helper thread is gone"))?;
        self.open_count += 1;
        Ok(())
    }

    pub fn poll(&mut self) -> Option<(OpToken, FileOutcome)> {
        if self.open_count == 0 {
            return None;
        }
        let (token, answer) = self.answers.try_recv().ok()?;
        self.open_count -= 1;
        let outcome = match answer {
            Answer::Listed(result) => FileOutcome::Listed(result),
            Answer::Space(result) => FileOutcome::Space(result),
        };
        Some((token, outcome))
    }
}

/// Lists a directory (blocking).
pub(crate) fn list(path: &Path) -> io::Result<Vec<ListedEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        // Names made by the broker are plain text; anything else is not ours to list.
        if let Ok(name) = entry.file_name().into_string() {
            entries.push(ListedEntry {
                name,
                is_dir: entry.file_type()?.is_dir(),
            });
        }
    }
    Ok(entries)
}

/// Room of the file system that holds `path` (blocking).
pub fn space(path: &Path) -> io::Result<SpaceBytes> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path ends in NUL and `stat` is valid for the write.
    if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed memory is a valid statvfs, and the call filled it.
    let stat = unsafe { stat.assume_init() };
    Ok(SpaceBytes {
        total_bytes: stat.f_blocks * stat.f_frsize,
        free_bytes: stat.f_bavail * stat.f_frsize,
    })
}
