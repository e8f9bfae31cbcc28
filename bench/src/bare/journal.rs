//! The bare loop's journal: one aligned buffer and one file, written before with zeros and used as a ring. The loop's thread; knows no request.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use ring::buf::{AlignedBuf, BLOCK_BYTES};
use rustix::fs::{OFlags, fdatasync};

use crate::Failure;

/// What the buffer holds, in bytes: more than a turn brings, else the turn is written in parts.
const BUFFER_BYTES: usize = 8 << 20;
/// What is written at once while the file is filled with zeros, in bytes.
const FILL_BYTES: usize = 4 << 20;

/// A journal that is never read.
#[derive(Debug)]
pub struct Journal {
    file: File,
    file_bytes: u64,
    /// Where the next write goes.
    position: u64,
    buffer: AlignedBuf,
    filled: usize,
}

impl Journal {
    /// Makes the file, writes zeros to all of it, and flushes it: overwriting needs no new blocks afterwards. `direct`
    /// bypasses the page cache.
    ///
    /// # Errors
    /// If the file cannot be made, or its file system has no direct I/O.
    pub fn create(path: &Path, bytes: u64, direct: bool) -> Result<Journal, Failure> {
        let cannot = |error: io::Error| Failure(format!("{}: {error}", path.display()));
        let flags = if direct {
            OFlags::DIRECT
        } else {
            OFlags::empty()
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .map_err(cannot)?;
        let zeros = AlignedBuf::zeroed(FILL_BYTES);
        let mut position = 0;
        while position < bytes {
            let piece = (bytes - position).min(FILL_BYTES as u64);
            file.write_all_at(&zeros[..piece as usize], position)
                .map_err(cannot)?;
            position += piece;
        }
        file.sync_all().map_err(cannot)?;
        Ok(Journal {
            file,
            file_bytes: bytes,
            position: 0,
            buffer: AlignedBuf::zeroed(BUFFER_BYTES),
            filled: 0,
        })
    }

    /// Makes room for `bytes` more, writing what is there if need be, and returns that room.
    ///
    /// # Errors
    /// As the file; also when no turn could ever hold so much.
    pub fn reserve(&mut self, bytes: usize) -> io::Result<&mut [u8]> {
        if bytes > self.buffer.len() {
            return Err(io::Error::other("a batch larger than the buffer"));
        }
        if self.filled + bytes > self.buffer.len() {
            self.flush()?;
        }
        let from = self.filled;
        self.filled += bytes;
        Ok(&mut self.buffer[from..from + bytes])
    }

    /// Writes what is there and waits until the device has it: one write and one fdatasync.
    ///
    /// # Errors
    /// As the file.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.filled == 0 {
            return Ok(());
        }
        let bytes = self.filled.next_multiple_of(BLOCK_BYTES);
        // What an earlier turn left behind the end is no part of this one.
        self.buffer[self.filled..bytes].fill(0);
        if self.position + bytes as u64 > self.file_bytes {
            self.position = 0;
        }
        self.file
            .write_all_at(&self.buffer[..bytes], self.position)?;
        fdatasync(&self.file)?;
        self.position += bytes as u64;
        self.filled = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_whole_blocks_one_after_another_and_start_anew_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let mut journal = Journal::create(&path, 3 * BLOCK_BYTES as u64, false).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), vec![0; 3 * BLOCK_BYTES]);
        journal.reserve(5000).unwrap().fill(1);
        journal.flush().unwrap();
        journal.reserve(10).unwrap().fill(2);
        journal.flush().unwrap();
        journal.flush().unwrap();
        let written = std::fs::read(&path).unwrap();
        assert_eq!(written[4999..5001], [1, 0]);
        assert_eq!(
            written[2 * BLOCK_BYTES..][..11],
            [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 0]
        );
        journal.reserve(1).unwrap().fill(3);
        journal.flush().unwrap();
        let written = std::fs::read(&path).unwrap();
        assert_eq!(written[..2], [3, 0]);
        assert_eq!(written.len(), 3 * BLOCK_BYTES);
    }

    #[test]
    fn what_fits_no_buffer_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let mut journal = Journal::create(&path, BLOCK_BYTES as u64, false).unwrap();
        assert!(journal.reserve(BUFFER_BYTES + 1).is_err());
    }
}
