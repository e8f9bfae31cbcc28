//! A [`Disk`] of plain blocking files, for start-up, offline tools and tests. Never on a data core
//! that serves: every call blocks its thread. Knows no ring and no simulation.

use std::fs::{File, OpenOptions};
use std::future::{Future, ready};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ring::buf::{AlignedBuf, Shared};

use crate::disk::{DirEntry, Disk, OpenMode, Space};

/// Zeros are written in pieces of this size.
const ZEROS_BYTES: usize = 1 << 20;

/// Blocking files, opened around the page cache where the file system can do that.
#[derive(Clone, Debug, Default)]
pub struct BlockingDisk(());

impl BlockingDisk {
    /// A disk.
    pub fn new() -> BlockingDisk {
        BlockingDisk(())
    }
}

/// Runs a future whose every await is done when it is asked: one over a [`BlockingDisk`].
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}

fn open(path: &Path, mode: OpenMode) -> io::Result<Rc<File>> {
    let mut options = OpenOptions::new();
    options.read(true);
    match mode {
        OpenMode::Read => &mut options,
        OpenMode::ReadWrite => options.write(true),
        OpenMode::CreateNew => options.write(true).create_new(true),
        OpenMode::Create => options.write(true).create(true),
    };
    let direct = options.clone().custom_flags(libc::O_DIRECT).open(path);
    match direct {
        // tmpfs and others know no direct I/O.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => options.open(path).map(Rc::new),
        other => other.map(Rc::new),
    }
}

fn read_at(file: &File, position: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < buf.len() {
        match file.read_at(&mut buf[read..], position + read as u64) {
            Ok(0) => break,
            Ok(bytes) => {
                read += bytes;
                // Direct reads end at the end of the file, which need not be aligned.
                if !read.is_multiple_of(512) {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

fn allocate(file: &File, position: u64, length_bytes: u64) -> io::Result<()> {
    let length = file.metadata()?.len();
    let end = position + length_bytes;
    if end <= length {
        return Ok(());
    }
    // Written, not only lengthened: what is set aside must be there when it is needed.
    let zeros = AlignedBuf::zeroed(ZEROS_BYTES);
    let mut at = length.next_multiple_of(4096).max(position);
    while at < end {
        let bytes = (end - at).min(ZEROS_BYTES as u64).next_multiple_of(4096);
        file.write_all_at(&zeros[..bytes as usize], at)?;
        at += bytes;
    }
    file.set_len(end)
}

impl Disk for BlockingDisk {
    type File = Rc<File>;

    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = io::Result<Rc<File>>> {
        ready(open(path, mode))
    }

    fn read_at(
        &self,
        file: &Rc<File>,
        position: u64,
        mut buf: AlignedBuf,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuf)> {
        let result = read_at(file, position, &mut buf);
        ready((result, buf))
    }

    fn write_at(
        &self,
        file: &Rc<File>,
        position: u64,
        bytes: Shared,
    ) -> impl Future<Output = io::Result<()>> {
        ready(file.write_all_at(&bytes, position))
    }

    fn sync_data(&self, file: &Rc<File>) -> impl Future<Output = io::Result<()>> {
        ready(file.sync_data())
    }

    fn allocate(
        &self,
        file: &Rc<File>,
        position: u64,
        length_bytes: u64,
    ) -> impl Future<Output = io::Result<()>> {
        ready(allocate(file, position, length_bytes))
    }

    fn truncate(&self, file: &Rc<File>, length_bytes: u64) -> impl Future<Output = io::Result<()>> {
        ready(file.set_len(length_bytes))
    }

    fn length(&self, file: &Rc<File>) -> impl Future<Output = io::Result<u64>> {
        ready(file.metadata().map(|metadata| metadata.len()))
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> {
        ready(std::fs::rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> impl Future<Output = io::Result<()>> {
        ready(std::fs::remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> {
        ready(std::fs::remove_dir(path))
    }

    fn create_dir_all(&self, path: &Path) -> impl Future<Output = io::Result<()>> {
        ready(std::fs::create_dir_all(path))
    }

    fn list_dir(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirEntry>>> {
        let list = || {
            let mut entries = Vec::new();
            for entry in std::fs::read_dir(path)? {
                let entry = entry?;
                // Names that are no text are none of ours.
                if let Ok(name) = entry.file_name().into_string() {
                    entries.push(DirEntry {
                        name,
                        is_dir: entry.file_type()?.is_dir(),
                    });
                }
            }
            Ok(entries)
        };
        ready(list())
    }

    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> {
        ready(File::open(path).and_then(|dir| dir.sync_all()))
    }

    fn sync_all(
        &self,
        _directory: &Path,
        _file: &Rc<File>,
    ) -> impl Future<Output = io::Result<()>> {
        // Who works at start-up or offline flushes file by file.
        ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn space(&self, path: &Path) -> impl Future<Output = io::Result<Space>> {
        ready(ring::space(path).map(|space| Space {
            total_bytes: space.total_bytes,
            free_bytes: space.free_bytes,
        }))
    }

    fn pause(&self) -> impl Future<Output = ()> {
        ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_read_and_listed() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = BlockingDisk::new();
        block_on(async {
            let sub = dir.path().join("a/b");
            disk.create_dir_all(&sub).await.unwrap();
            let path = sub.join("f");
            let file = disk.open(&path, OpenMode::CreateNew).await.unwrap();
            disk.allocate(&file, 0, 10_000).await.unwrap();
            assert_eq!(disk.length(&file).await.unwrap(), 10_000);
            let mut block = AlignedBuf::zeroed(4096);
            block[5] = 9;
            disk.write_at(&file, 4096, block.freeze()).await.unwrap();
            disk.truncate(&file, 5_000).await.unwrap();
            disk.sync_data(&file).await.unwrap();
            let (read, buf) = disk.read_at(&file, 4096, AlignedBuf::zeroed(8192)).await;
            assert_eq!((read.unwrap(), buf[5]), (904, 9));
            assert!(disk.open(&path, OpenMode::CreateNew).await.is_err());
            disk.rename(&path, &sub.join("g")).await.unwrap();
            disk.sync_dir(&sub).await.unwrap();
            let names = disk.list_dir(&sub).await.unwrap();
            assert_eq!(names.len(), 1);
            assert_eq!((names[0].name.as_str(), names[0].is_dir), ("g", false));
            assert!(disk.space(&sub).await.unwrap().total_bytes > 0);
            disk.remove_file(&sub.join("g")).await.unwrap();
            disk.remove_dir(&sub).await.unwrap();
        });
    }
}
