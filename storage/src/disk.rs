//! What slow work may ask of a disk. Lives on the core whose task asks; knows no journal, no segment
//! and no clock. Implemented by the core's ring, by plain blocking files (start-up, offline tools) and
//! by the simulated disk.

use std::future::Future;
use std::io;
use std::path::Path;

use ring::buf::{AlignedBuf, Shared};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    ReadWrite,
    /// For reading and writing; it must not exist yet.
    CreateNew,
    /// For reading and writing; made when it does not exist.
    Create,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name within the directory.
    pub name: String,
    /// Whether it is a directory itself.
    pub is_dir: bool,
}

/// Files of one core, with direct I/O. Cheap to clone. Errors carry the raw OS error where there is
/// one (`ENOSPC`, `EIO`, `ENOENT`), so that the caller can tell a full disk from a broken one.
///
/// Durability: a write is durable after [`Disk::sync_data`] on its file that was asked for after the
/// write completed; a file's existence, name or removal after [`Disk::sync_dir`] of its directory.
pub trait Disk: Clone + 'static {
    /// An open file; closed when the last clone is dropped.
    type File: Clone + 'static;

    /// Opens a file for direct I/O.
    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = io::Result<Self::File>>;

    /// Reads at `position` (a multiple of the block size) into `buf`. Returns how many bytes were
    /// read: less than the buffer only at the end of the file.
    fn read_at(
        &self,
        file: &Self::File,
        position: u64,
        buf: AlignedBuf,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuf)>;

    /// Writes all of `bytes`, whose address, length and `position` are multiples of the block size.
    fn write_at(
        &self,
        file: &Self::File,
        position: u64,
        bytes: Shared,
    ) -> impl Future<Output = io::Result<()>>;

    /// Writes `pieces`, one behind the other, as [`Disk::write_at`] writes one. The address and length of
    /// each are multiples of [`SECTOR_BYTES`](ring::buf::SECTOR_BYTES); together they are whole blocks.
    fn write_gathered(
        &self,
        file: &Self::File,
        position: u64,
        pieces: &[Shared],
    ) -> impl Future<Output = io::Result<()>> {
        self.write_at(file, position, joined(pieces))
    }

    /// Makes completed writes and the file's length durable (fdatasync).
    fn sync_data(&self, file: &Self::File) -> impl Future<Output = io::Result<()>>;

    /// Sets space aside (fallocate) and, where the file is shorter, lengthens it with zeros.
    fn allocate(
        &self,
        file: &Self::File,
        position: u64,
        length_bytes: u64,
    ) -> impl Future<Output = io::Result<()>>;

    /// Sets the file's length and frees what lay behind it.
    fn truncate(
        &self,
        file: &Self::File,
        length_bytes: u64,
    ) -> impl Future<Output = io::Result<()>>;

    /// The file's length in bytes.
    fn length(&self, file: &Self::File) -> impl Future<Output = io::Result<u64>>;

    /// Renames a file or directory, replacing a file of that name.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>>;

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Makes a directory and its missing parents; one that exists is no error.
    fn create_dir_all(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Lists a directory, in no particular order.
    fn list_dir(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirEntry>>>;

    /// Makes the entries of a directory durable (fsync of the directory).
    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Makes everything durable that completed on the file system of `directory`, as one flush of every
    /// file and directory there, and `file` among them. Ends as [`io::ErrorKind::Unsupported`] where
    /// that cannot be had: then nothing was made durable.
    fn sync_all(&self, directory: &Path, file: &Self::File)
    -> impl Future<Output = io::Result<()>>;

    /// Total and free bytes of the file system that holds `path`.
    fn space(&self, path: &Path) -> impl Future<Output = io::Result<Space>>;

    /// Lets other work of this core run; long loops over memory call it between steps.
    fn pause(&self) -> impl Future<Output = ()>;
}

/// One buffer with the bytes of all.
pub fn joined(pieces: &[Shared]) -> Shared {
    let mut buf = AlignedBuf::scratch(pieces.iter().map(|piece| piece.len()).sum());
    let mut at = 0;
    for piece in pieces {
        buf[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    }
    buf.freeze().slice(0..at)
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system, in bytes.
    pub total_bytes: u64,
    /// What may still be written, in bytes.
    pub free_bytes: u64,
}
