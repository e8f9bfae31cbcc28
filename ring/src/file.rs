//! Files on the ring: opened, read, written, flushed, named and removed without blocking the core.
//! Lives on one core; knows no journal and no segment.
//!
//! A write that must be durable carries RWF_DSYNC where the file system is known to obey it: one
//! request, which completes when data and the metadata needed to find it are on the device. Elsewhere,
//! and where that is the slower way, a flush follows the write, before the write counts as done. Short
//! reads and writes are continued here, so that a completion always means the whole of it (or the end
//! of the file, or an error).

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use io_uring::{opcode, squeue, types};

use crate::buf::{AlignedBuf, BLOCK_BYTES, Shared};
use crate::clock;
use crate::durable::{Way, Ways};
use crate::helper::{Helper, Question};
use crate::op::{Op, OpToken};
use crate::ring::{Completion, Ring};

/// How a file is opened; all false means: for reading, and it must exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// For writing too.
    pub write: bool,
    /// Made when it does not exist.
    pub create: bool,
    /// It must not exist yet; implies `create`.
    pub create_new: bool,
    /// Around the page cache (O_DIRECT): positions, addresses and lengths in whole blocks.
    pub direct: bool,
    /// A directory, to be flushed.
    pub directory: bool,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEntry {
    /// The name within the directory.
    pub name: String,
    /// Whether it is a directory itself.
    pub is_dir: bool,
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceBytes {
    /// Size of the file system, in bytes.
    pub total_bytes: u64,
    /// What an ordinary process may still write, in bytes.
    pub free_bytes: u64,
}

/// How a file operation ended. Errors carry the raw OS error.
#[derive(Debug)]
pub enum FileOutcome {
    /// Of anything without a result of its own; a length for [`Ring::file_length`].
    Done(io::Result<u64>),
    /// Of [`Ring::open`].
    Opened(io::Result<File>),
    /// Of [`Ring::read_at`]: bytes read (fewer than asked only at the end of the file).
    Read(io::Result<usize>, AlignedBuf),
    /// Of [`Ring::list_dir`].
    Listed(io::Result<Vec<ListedEntry>>),
    /// Of [`Ring::space`].
    Space(io::Result<SpaceBytes>),
}

/// The devices of which it was asked, with the way of making writes durable on each.
pub(crate) type Devices = Rc<RefCell<HashMap<u64, Durability>>>;

/// How durable writes to a file are made.
#[derive(Clone, Debug)]
pub(crate) enum Durability {
    /// With RWF_DSYNC: the device writes through.
    Flagged,
    /// With a flush: the file system is not known to obey the flag.
    Flushed,
    /// Whichever is quicker on the device.
    Quicker(Rc<RefCell<Ways>>),
}

/// Descriptors whose last [`File`] was dropped; the ring closes them.
pub(crate) type Dropped = Rc<RefCell<Vec<OwnedFd>>>;

/// An open file of one core. Closed through the ring when the last clone is dropped: the last close of
/// a removed file frees its blocks, which is slow.
#[derive(Clone, Debug)]
pub struct File {
    inner: Rc<FileInner>,
}

#[derive(Debug)]
struct FileInner {
    fd: Option<OwnedFd>,
    /// Asked of the file system and the device at the first durable write.
    durability: OnceCell<Durability>,
    devices: Devices,
    dropped: Dropped,
}

impl File {
    fn fd(&self) -> types::Fd {
        types::Fd(self.as_raw_fd())
    }
}

/// File systems whose direct writes obey RWF_DSYNC, by the magic number of statfs: ext4, XFS, btrfs.
const OBEYING_DSYNC: [u64; 3] = [0xEF53, 0x5846_5342, 0x9123_683E];

impl File {
    fn durability(&self) -> &Durability {
        self.inner.durability.get_or_init(|| {
            // SAFETY: all of statfs is plain numbers, for which zero is a value.
            let mut about: libc::statfs = unsafe { std::mem::zeroed() };
            // SAFETY: the descriptor is open and `about` is writable for the call.
            let result = unsafe { libc::fstatfs(self.as_raw_fd(), &raw mut about) };
            if result != 0 || !OBEYING_DSYNC.contains(&(about.f_type as u64)) {
                return Durability::Flushed;
            }
            // SAFETY: all of stat is plain numbers, for which zero is a value.
            let mut about: libc::stat = unsafe { std::mem::zeroed() };
            // SAFETY: the descriptor is open and `about` is writable for the call.
            if unsafe { libc::fstat(self.as_raw_fd(), &raw mut about) } != 0 {
                return Durability::Flushed;
            }
            // Asked once a device: thousands of files may lie on it.
            let mut devices = self.inner.devices.borrow_mut();
            let device = devices.entry(about.st_dev).or_insert_with(|| {
                if device_writes_through(about.st_dev) {
                    Durability::Flagged
                } else {
                    Durability::Quicker(Rc::default())
                }
            });
            device.clone()
        })
    }

    fn choose_way(&self, now_us: u64, bytes: usize) -> Way {
        match self.durability() {
            Durability::Flagged => Way::Flagged,
            Durability::Flushed => Way::Flushed,
            Durability::Quicker(ways) => ways.borrow_mut().choose(now_us, bytes),
        }
    }

    /// A durable write that was submitted at `started_us` is done.
    fn note_duration(&self, way: Way, bytes: usize, started_us: u64) {
        if let Durability::Quicker(ways) = self.durability() {
            let now_us = clock::monotonic_us();
            let took_us = now_us.saturating_sub(started_us);
            ways.borrow_mut().on_done(now_us, way, bytes, took_us);
        }
    }
}

/// What the kernel says of a device; false where it says nothing.
fn device_writes_through(device: u64) -> bool {
    let (major, minor) = (libc::major(device), libc::minor(device));
    let device = format!("/sys/dev/block/{major}:{minor}");
    // A partition's queue is that of the disk around it.
    ["queue", "../queue"].iter().any(|queue| {
        let says = |name: &str, what: &str| {
            std::fs::read_to_string(format!("{device}/{queue}/{name}"))
                .is_ok_and(|text| text.trim() == what)
        };
        says("write_cache", "write through") || says("fua", "1")
    })
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.inner
            .fd
            .as_ref()
            .expect("open until dropped")
            .as_raw_fd()
    }
}

impl Drop for FileInner {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
            self.dropped.borrow_mut().push(fd);
        }
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

fn outcome(result: i32) -> io::Result<u64> {
    if result < 0 {
        Err(io::Error::from_raw_os_error(-result))
    } else {
        Ok(result as u64)
    }
}

/// Pieces that one request takes (UIO_MAXIOV); more are more requests.
const VECTORS_MAX: usize = 1024;

/// Describes `pieces` to the kernel from byte `from` on, as far as one request goes.
fn set_vectors(vectors: &mut Vec<libc::iovec>, pieces: &[Shared], from: usize) {
    vectors.clear();
    let mut skip = from;
    for piece in pieces {
        let rest = &piece[skip.min(piece.len())..];
        skip -= piece.len() - rest.len();
        if !rest.is_empty() && vectors.len() < VECTORS_MAX {
            vectors.push(libc::iovec {
                iov_base: rest.as_ptr().cast_mut().cast(),
                iov_len: rest.len(),
            });
        }
    }
}

/// Notes what a write of `bytes` in all has `done`; whether the rest is to be asked for. That begins at a block:
/// a direct write cannot start anywhere else. Less than a block gained (a limit on the file's size) would go on
/// for ever: that is an error.
fn goes_on(done: &mut usize, bytes: usize, result: i32) -> bool {
    let before = *done;
    *done += result.max(0) as usize;
    let resume = *done - *done % BLOCK_BYTES;
    let goes_on = *done < bytes && (resume > before || result <= 0);
    if goes_on {
        *done = resume;
    }
    goes_on
}

/// The outcome of a write of `bytes` in all that does not go on.
fn written(done: usize, bytes: usize, result: i32) -> io::Result<u64> {
    match outcome(result) {
        Ok(_) if done == bytes => Ok(done as u64),
        // The kernel took nothing and named no reason.
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EIO)),
        failed => failed,
    }
}

fn bytes_of(pieces: &[Shared]) -> usize {
    pieces.iter().map(|piece| piece.len()).sum()
}

/// Errors after which the same request is simply made again.
pub(crate) fn is_again(result: i32) -> bool {
    result == -libc::EINTR || result == -libc::EAGAIN
}

impl Ring {
    /// Opens a file; the outcome is [`FileOutcome::Opened`]. New files get mode 0644.
    ///
    /// # Errors
    /// When the path holds a zero byte.
    pub fn open(&mut self, path: &Path, options: OpenOptions) -> io::Result<OpToken> {
        let path = c_path(path)?;
        let mut flags = libc::O_CLOEXEC;
        flags |= if options.write {
            libc::O_RDWR
        } else {
            libc::O_RDONLY
        };
        for (wanted, flag) in [
            (options.create || options.create_new, libc::O_CREAT),
            (options.create_new, libc::O_EXCL),
            (options.direct, libc::O_DIRECT),
            (options.directory, libc::O_DIRECTORY),
        ] {
            if wanted {
                flags |= flag;
            }
        }
        let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr())
            .flags(flags)
            .mode(0o644)
            .build();
        Ok(self.push_op(Op::Open { _path: path }, entry))
    }

    /// Reads at `position` into `buf`; the outcome is [`FileOutcome::Read`].
    pub fn read_at(&mut self, file: &File, position: u64, buf: AlignedBuf) -> OpToken {
        let token = self.ops.insert(Op::Read {
            file: file.clone(),
            position,
            buf,
            done_bytes: 0,
        });
        self.push_transfer(token);
        token
    }

    /// Writes all of `bytes` at `position`, and with `sync` makes them durable before it completes; the
    /// outcome is [`FileOutcome::Done`].
    pub fn write_at(&mut self, file: &File, position: u64, bytes: Shared, sync: bool) -> OpToken {
        let durable = sync.then(|| {
            let now_us = clock::monotonic_us();
            (file.choose_way(now_us, bytes.len()), now_us)
        });
        let token = self.ops.insert(Op::Write {
            file: file.clone(),
            position,
            bytes,
            done_bytes: 0,
            durable,
        });
        self.push_transfer(token);
        token
    }

    /// Writes all of `pieces`, one behind the other, at `position`, as one write; the outcome is
    /// [`FileOutcome::Done`]. Their addresses and lengths are multiples of
    /// [`SECTOR_BYTES`](crate::buf::SECTOR_BYTES), together they are whole blocks. A device that wants more
    /// ends it with EINVAL.
    pub fn write_gathered(&mut self, file: &File, position: u64, pieces: Vec<Shared>) -> OpToken {
        let token = self.ops.insert(Op::WriteGathered {
            file: file.clone(),
            position,
            vectors: Vec::with_capacity(pieces.len().min(VECTORS_MAX)),
            pieces,
            done_bytes: 0,
        });
        self.push_transfer(token);
        token
    }

    /// Submits what is left of a read or write.
    fn push_transfer(&mut self, token: OpToken) {
        let entry = match self.ops.get_mut(token) {
            Some(Op::Read {
                file,
                position,
                buf,
                done_bytes,
            }) => {
                let rest = &mut buf[*done_bytes..];
                let len = rest.len().min(1 << 30) as u32;
                opcode::Read::new(file.fd(), rest.as_mut_ptr(), len)
                    .offset(*position + *done_bytes as u64)
                    .build()
            }
            Some(Op::Write {
                file,
                position,
                bytes,
                done_bytes,
                durable,
            }) => {
                let rest = &bytes[*done_bytes..];
                let len = rest.len().min(1 << 30) as u32;
                opcode::Write::new(file.fd(), rest.as_ptr(), len)
                    .offset(*position + *done_bytes as u64)
                    .rw_flags(match durable {
                        Some((Way::Flagged, _)) => libc::RWF_DSYNC,
                        Some((Way::Flushed, _)) | None => 0,
                    })
                    .build()
            }
            Some(Op::WriteGathered {
                file,
                position,
                pieces,
                vectors,
                done_bytes,
            }) => {
                set_vectors(vectors, pieces, *done_bytes);
                opcode::Writev::new(file.fd(), vectors.as_ptr(), vectors.len() as u32)
                    .offset(*position + *done_bytes as u64)
                    .build()
            }
            _ => unreachable!("only reads and writes are transfers"),
        };
        self.push(entry.user_data(token.0));
    }

    fn on_file(&mut self, file: &File, entry: squeue::Entry) -> OpToken {
        self.push_op(
            Op::OnFile {
                _file: file.clone(),
            },
            entry,
        )
    }

    /// Makes completed writes and the length durable (fdatasync); covers only writes that completed
    /// before this call.
    pub fn sync_data(&mut self, file: &File) -> OpToken {
        let entry = opcode::Fsync::new(file.fd())
            .flags(types::FsyncFlags::DATASYNC)
            .build();
        self.on_file(file, entry)
    }

    /// Makes everything about a file or directory durable (fsync).
    pub fn sync_all(&mut self, file: &File) -> OpToken {
        let entry = opcode::Fsync::new(file.fd()).build();
        self.on_file(file, entry)
    }

    /// Sets space aside (fallocate), lengthening the file where it is shorter.
    pub fn allocate(&mut self, file: &File, position: u64, length_bytes: u64) -> OpToken {
        let entry = opcode::Fallocate::new(file.fd(), length_bytes)
            .offset(position)
            .build();
        self.on_file(file, entry)
    }

    /// Sets the file's length.
    pub fn truncate(&mut self, file: &File, length_bytes: u64) -> OpToken {
        if !self.has_ftruncate {
            // SAFETY: no memory is passed; the descriptor is open. Only on kernels before 6.9, and a
            // segment is truncated once, when it closes.
            let result = unsafe { libc::ftruncate(file.as_raw_fd(), length_bytes as libc::off_t) };
            let done = if result == 0 {
                Ok(0)
            } else {
                Err(io::Error::last_os_error())
            };
            let token = self.ops.insert(Op::Helper);
            self.ready.push(Completion::File {
                token,
                outcome: FileOutcome::Done(done),
            });
            self.ops.remove(token);
            return token;
        }
        let entry = opcode::Ftruncate::new(file.fd(), length_bytes).build();
        self.on_file(file, entry)
    }

    /// Asks for the file's length in bytes.
    pub fn file_length(&mut self, file: &File) -> OpToken {
        // SAFETY: all of statx is plain numbers, for which zero is a value.
        let mut stat: Box<libc::statx> = Box::new(unsafe { std::mem::zeroed() });
        let entry = opcode::Statx::new(
            file.fd(),
            c"".as_ptr(),
            (&raw mut *stat).cast::<types::statx>(),
        )
        .flags(libc::AT_EMPTY_PATH)
        .mask(libc::STATX_SIZE)
        .build();
        self.push_op(
            Op::Stat {
                _file: file.clone(),
                stat,
            },
            entry,
        )
    }

    /// Renames a file or directory, replacing a file of that name.
    ///
    /// # Errors
    /// When a path holds a zero byte.
    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<OpToken> {
        let (from, to) = (c_path(from)?, c_path(to)?);
        let here = types::Fd(libc::AT_FDCWD);
        let entry = opcode::RenameAt::new(here, from.as_ptr(), here, to.as_ptr()).build();
        Ok(self.push_op(
            Op::OnPaths {
                _paths: vec![from, to],
            },
            entry,
        ))
    }

    /// Removes a file, or with `directory` an empty directory.
    ///
    /// # Errors
    /// When the path holds a zero byte.
    pub fn remove(&mut self, path: &Path, directory: bool) -> io::Result<OpToken> {
        let path = c_path(path)?;
        let entry = opcode::UnlinkAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr())
            .flags(if directory { libc::AT_REMOVEDIR } else { 0 })
            .build();
        Ok(self.push_op(Op::OnPaths { _paths: vec![path] }, entry))
    }

    /// Makes one directory, with mode 0755.
    ///
    /// # Errors
    /// When the path holds a zero byte.
    pub fn make_dir(&mut self, path: &Path) -> io::Result<OpToken> {
        let path = c_path(path)?;
        let entry = opcode::MkDirAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr())
            .mode(0o755)
            .build();
        Ok(self.push_op(Op::OnPaths { _paths: vec![path] }, entry))
    }

    /// Lists a directory, on a helper thread: io_uring cannot.
    ///
    /// # Errors
    /// When the helper thread cannot be started.
    pub fn list_dir(&mut self, path: &Path) -> io::Result<OpToken> {
        self.ask_helper(Question::List(path.to_owned()))
    }

    /// Asks for the room on the file system of `path`, on a helper thread: io_uring cannot.
    ///
    /// # Errors
    /// When the helper thread cannot be started.
    pub fn space(&mut self, path: &Path) -> io::Result<OpToken> {
        self.ask_helper(Question::Space(path.to_owned()))
    }

    /// Flushes the whole file system that holds the directory `path` (syncfs), on a helper thread:
    /// io_uring cannot. What was written before is then with the device, data, lengths and names; a
    /// flush of any file behind it makes the device keep it. Ends as `Unsupported` where the file
    /// system does not promise that.
    ///
    /// # Errors
    /// When the helper thread cannot be started.
    pub fn sync_file_system(&mut self, path: &Path) -> io::Result<OpToken> {
        let at = match self.syncers.iter().position(|(known, _)| known == path) {
            Some(at) => at,
            None => {
                let helper = Helper::start(self.waker.clone())?;
                self.syncers.push((path.to_owned(), helper));
                self.syncers.len() - 1
            }
        };
        // The slot only makes the token unique; nothing is in the kernel.
        let token = self.ops.insert(Op::Helper);
        self.ops.remove(token);
        let helper = &mut self.syncers[at].1;
        helper.ask(token, Question::Sync(path.to_owned()))?;
        Ok(token)
    }

    fn ask_helper(&mut self, question: Question) -> io::Result<OpToken> {
        let helper = match &mut self.helper {
            Some(helper) => helper,
            none => none.insert(Helper::start(self.waker.clone())?),
        };
        // The slot only makes the token unique; nothing is in the kernel.
        let token = self.ops.insert(Op::Helper);
        self.ops.remove(token);
        helper.ask(token, question)?;
        Ok(token)
    }

    /// Closes descriptors whose last user is gone. Always on a worker of the kernel (ASYNC), because
    /// the last close of a removed file frees its blocks.
    pub(crate) fn close_dropped_files(&mut self) {
        loop {
            let Some(fd) = self.dropped_files.borrow_mut().pop() else {
                return;
            };
            let entry = opcode::Close::new(types::Fd(fd.into_raw_fd()))
                .build()
                .flags(squeue::Flags::ASYNC);
            self.push_op(Op::Close, entry);
        }
    }

    pub(crate) fn adopt_file(&self, fd: RawFd) -> File {
        // SAFETY: the kernel has just opened this descriptor for us, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        File {
            inner: Rc::new(FileInner {
                fd: Some(fd),
                durability: OnceCell::new(),
                devices: Rc::clone(&self.devices),
                dropped: Rc::clone(&self.dropped_files),
            }),
        }
    }

    /// Applies the completion of an operation on files.
    pub(crate) fn on_file_completion(
        &mut self,
        token: OpToken,
        result: i32,
        completions: &mut Vec<Completion>,
    ) {
        match self.ops.get_mut(token) {
            Some(Op::Read {
                buf, done_bytes, ..
            }) if result > 0 || is_again(result) => {
                *done_bytes += result.max(0) as usize;
                // Direct reads end off a block only at the end of the file.
                if *done_bytes < buf.len() && done_bytes.is_multiple_of(BLOCK_BYTES) {
                    self.push_transfer(token);
                    return;
                }
            }
            Some(Op::Write {
                file,
                bytes,
                done_bytes,
                durable,
                ..
            }) if result > 0 || is_again(result) => {
                if goes_on(done_bytes, bytes.len(), result) {
                    self.push_transfer(token);
                    return;
                }
                if *done_bytes == bytes.len()
                    && let Some((Way::Flushed, started_us)) = *durable
                {
                    let flush = Op::Flush {
                        file: file.clone(),
                        written_bytes: bytes.len(),
                        started_us,
                    };
                    let entry = opcode::Fsync::new(file.fd())
                        .flags(types::FsyncFlags::DATASYNC)
                        .build();
                    self.ops.replace(token, flush);
                    self.push(entry.user_data(token.0));
                    return;
                }
            }
            Some(Op::WriteGathered {
                pieces, done_bytes, ..
            }) if result > 0 || is_again(result) => {
                let bytes = bytes_of(pieces);
                if goes_on(done_bytes, bytes, result) {
                    self.push_transfer(token);
                    return;
                }
            }
            _ => {}
        }
        let outcome = match self.ops.remove(token) {
            Some(Op::Read {
                buf, done_bytes, ..
            }) => FileOutcome::Read(outcome(result).map(|_| done_bytes), buf),
            Some(Op::Write {
                file,
                bytes,
                done_bytes,
                durable,
                ..
            }) => {
                let result = written(done_bytes, bytes.len(), result);
                if let (Ok(_), Some((way, started_us))) = (&result, durable) {
                    file.note_duration(way, bytes.len(), started_us);
                }
                FileOutcome::Done(result)
            }
            Some(Op::WriteGathered {
                pieces, done_bytes, ..
            }) => FileOutcome::Done(written(done_bytes, bytes_of(&pieces), result)),
            Some(Op::Flush {
                file,
                written_bytes,
                started_us,
            }) => FileOutcome::Done(outcome(result).map(|_| {
                file.note_duration(Way::Flushed, written_bytes, started_us);
                written_bytes as u64
            })),
            Some(Op::Open { .. }) => {
                FileOutcome::Opened(outcome(result).map(|_| self.adopt_file(result)))
            }
            Some(Op::Stat { stat, .. }) => {
                FileOutcome::Done(outcome(result).map(|_| stat.stx_size))
            }
            Some(_) => FileOutcome::Done(outcome(result)),
            None => unreachable!("a completion of an operation that is not in flight"),
        };
        completions.push(Completion::File { token, outcome });
    }
}
