//! A thread for what io_uring cannot ask: what a directory lists, how much room a file system has, and
//! that all of a file system be flushed. Started at the first question; knows only paths. Rare work:
//! recovery, new files, the watch for a full disk. Flushes have threads of their own, one for each
//! directory that asks: a disk that hangs holds up only its own.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::file::{FileOutcome, ListedEntry, SpaceBytes};
use crate::op::OpToken;
use crate::wake::Waker;

pub(crate) enum Question {
    List(PathBuf),
    Space(PathBuf),
    Sync(PathBuf),
}

enum Answer {
    Listed(io::Result<Vec<ListedEntry>>),
    Space(io::Result<SpaceBytes>),
    Synced(io::Result<()>),
}

/// File systems whose syncfs makes durable whatever was written to them, by the type that statfs tells.
/// Others may not even ask the one who has the data (FUSE).
const SYNCING: [i64; 4] = [
    0xEF53,      // ext4
    0x5846_5342, // XFS
    0x9123_683E, // btrfs
    0xF2F5_2010, // F2FS
];

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
                let mut syncing = Syncing::default();
                for (token, question) in inbox {
                    let answer = match question {
                        Question::List(path) => Answer::Listed(list(&path)),
                        Question::Space(path) => Answer::Space(space(&path)),
                        Question::Sync(path) => Answer::Synced(syncing.sync(&path)),
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
            Answer::Synced(result) => FileOutcome::Done(result.map(|()| 0)),
        };
        Some((token, outcome))
    }
}

/// A directory of the file system that is flushed. It stays open: the kernel tells an error of writing
/// back once to everybody who had something open when it happened.
#[derive(Default)]
struct Syncing(Option<(PathBuf, File)>);

impl Syncing {
    fn sync(&mut self, path: &Path) -> io::Result<()> {
        let directory = match &mut self.0 {
            Some((known, directory)) if known == path => directory,
            place => {
                let directory = File::open(path)?;
                if !SYNCING.contains(&file_system_type(&directory)?) {
                    return Err(io::ErrorKind::Unsupported.into());
                }
                &mut place.insert((path.to_owned(), directory)).1
            }
        };
        // SAFETY: the descriptor is open.
        match unsafe { libc::syncfs(directory.as_raw_fd()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn file_system_type(file: &File) -> io::Result<i64> {
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the descriptor is open and `stat` is valid for the write.
    if unsafe { libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed memory is a valid statfs, and the call filled it.
    Ok(unsafe { stat.assume_init() }.f_type)
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
