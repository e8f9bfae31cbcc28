//! The simulated disk: seeded, in memory, on one thread. It loses at a crash what was not flushed: any
//! subset of unflushed 512-byte sectors survives, and any part of unflushed directory changes. It
//! delays and reorders concurrent operations, and can be full or broken. Knows no file's meaning.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use ring::buf::{AlignedBuf, BLOCK_BYTES, SECTOR_BYTES, Shared};

use crate::disk::{DirEntry, Disk, OpenMode, Space, joined};

mod names;

use names::{Node, Tree};

/// A small seeded generator (xorshift*); good enough to choose what goes wrong.
#[derive(Clone, Debug)]
pub struct SimRng(u64);

impl SimRng {
    /// A generator; equal seeds give equal numbers.
    pub fn new(seed: u64) -> SimRng {
        SimRng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`, which must be above 0.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.next_u64() >> 11) % end
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// What goes wrong on a [`SimDisk`].
#[derive(Clone, Debug)]
pub struct SimFaults {
    /// Bytes that fit.
    pub capacity_bytes: u64,
    /// Operations on paths that contain this fail with EIO.
    pub broken: Option<String>,
    /// Flushes of paths that contain this do nothing, as on a disk that lies: only for showing that the
    /// checks would notice.
    pub lies_about_flushes: Option<String>,
    /// A file system cannot be flushed as one: files are flushed one by one.
    pub no_sync_all: bool,
    /// How many times an operation may be polled before it completes.
    pub delay_polls_max: u64,
}

impl Default for SimFaults {
    fn default() -> SimFaults {
        SimFaults {
            capacity_bytes: u64::MAX,
            broken: None,
            lies_about_flushes: None,
            no_sync_all: false,
            delay_polls_max: 4,
        }
    }
}

impl SimFaults {
    fn lies(&self, path: &Path) -> bool {
        self.lies_about_flushes
            .as_ref()
            .is_some_and(|part| path.to_string_lossy().contains(part.as_str()))
    }
}

type Sector = Vec<u8>;

/// The contents of one file: what is there now, and what of it a crash may take back.
#[derive(Clone, Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    /// For each sector changed since it was flushed: the states that it had, each with the version at
    /// which it ended. The first is the one that is surely on the disk.
    unflushed: BTreeMap<usize, Vec<(u64, Sector)>>,
    /// The same for the length.
    lengths: Vec<(u64, usize)>,
    /// Counts changes, so that a flush covers only what was there when it began.
    version: u64,
}

impl Inode {
    fn sector(&self, index: usize) -> Sector {
        let start = index * SECTOR_BYTES;
        let mut sector = vec![0; SECTOR_BYTES];
        if start < self.bytes.len() {
            let stop = self.bytes.len().min(start + SECTOR_BYTES);
            sector[..stop - start].copy_from_slice(&self.bytes[start..stop]);
        }
        sector
    }

    fn remember(&mut self, index: usize) {
        let state = (self.version, self.sector(index));
        self.unflushed.entry(index).or_default().push(state);
    }

    fn write(&mut self, position: usize, bytes: &[u8]) {
        self.version += 1;
        for index in position / SECTOR_BYTES..(position + bytes.len()).div_ceil(SECTOR_BYTES) {
            self.remember(index);
        }
        if self.bytes.len() < position + bytes.len() {
            self.lengths.push((self.version, self.bytes.len()));
            self.bytes.resize(position + bytes.len(), 0);
        }
        self.bytes[position..position + bytes.len()].copy_from_slice(bytes);
    }

    fn set_length(&mut self, length: usize) {
        self.version += 1;
        for index in length / SECTOR_BYTES..self.bytes.len().div_ceil(SECTOR_BYTES) {
            self.remember(index);
        }
        self.lengths.push((self.version, self.bytes.len()));
        self.bytes.resize(length, 0);
    }

    /// What was there at `version` is on the disk now.
    fn flush(&mut self, version: u64) {
        self.unflushed.retain(|_, states| {
            states.retain(|(ended, _)| *ended > version);
            !states.is_empty()
        });
        self.lengths.retain(|(ended, _)| *ended > version);
    }

    /// What a power cut leaves.
    fn crash(&mut self, rng: &mut SimRng, writes: &[(usize, Vec<u8>)]) {
        // Writes that were on their way may have reached any of their sectors.
        for (position, bytes) in writes {
            self.write(*position, bytes);
        }
        let lengths = std::mem::take(&mut self.lengths);
        let choice = rng.below(lengths.len() as u64 + 1) as usize;
        let length = lengths
            .get(choice)
            .map_or(self.bytes.len(), |(_, length)| *length);
        for (index, states) in std::mem::take(&mut self.unflushed) {
            let choice = rng.below(states.len() as u64 + 1) as usize;
            if let Some((_, state)) = states.get(choice) {
                let start = index * SECTOR_BYTES;
                if self.bytes.len() < start + SECTOR_BYTES {
                    self.bytes.resize(start + SECTOR_BYTES, 0);
                }
                self.bytes[start..start + SECTOR_BYTES].copy_from_slice(state);
            }
        }
        self.bytes.resize(length, 0);
    }
}

struct State {
    rng: SimRng,
    faults: SimFaults,
    inodes: HashMap<u64, Inode>,
    next_inode: u64,
    names: Tree,
    /// Writes that were begun and are not done.
    in_flight: BTreeMap<u64, (u64, usize, Shared)>,
    next_write: u64,
}

impl State {
    fn used_bytes(&self) -> u64 {
        self.names
            .files()
            .iter()
            .map(|inode| self.inodes[inode].bytes.len().next_multiple_of(BLOCK_BYTES) as u64)
            .sum()
    }

    fn check(&self, path: &Path) -> io::Result<()> {
        match &self.faults.broken {
            Some(part) if path.to_string_lossy().contains(part.as_str()) => {
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
            _ => Ok(()),
        }
    }

    fn check_room(&self, inode: u64, length: usize) -> io::Result<()> {
        let now = self.inodes[&inode].bytes.len();
        if length > now && self.faults.capacity_bytes != u64::MAX {
            let more =
                (length.next_multiple_of(BLOCK_BYTES) - now.next_multiple_of(BLOCK_BYTES)) as u64;
            if self.used_bytes() + more > self.faults.capacity_bytes {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
        }
        Ok(())
    }
}

/// An open file of a [`SimDisk`].
#[derive(Clone, Debug)]
pub struct SimFile {
    inode: u64,
    path: Rc<PathBuf>,
}

/// See the module's documentation.
#[derive(Clone)]
pub struct SimDisk {
    state: Rc<RefCell<State>>,
}

/// Completes after some polls, so that what runs beside it may come first.
struct Delay(u64);

impl Future for Delay {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        Poll::Pending
    }
}

fn missing() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

impl SimDisk {
    /// An empty disk with nothing but `/`.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk {
            state: Rc::new(RefCell::new(State {
                rng: SimRng::new(seed),
                faults: SimFaults::default(),
                inodes: HashMap::new(),
                next_inode: 0,
                names: Tree::new(),
                in_flight: BTreeMap::new(),
                next_write: 0,
            })),
        }
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, change: impl FnOnce(&mut SimFaults)) {
        change(&mut self.state.borrow_mut().faults);
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> u64 {
        self.state.borrow().used_bytes()
    }

    /// The power fails: what was flushed is there, of the rest a seeded choice. Everything that was
    /// under way must have been dropped.
    pub fn crash(&self) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let writes = std::mem::take(&mut state.in_flight);
        let mut by_inode: HashMap<u64, Vec<(usize, Vec<u8>)>> = HashMap::new();
        for (inode, position, bytes) in writes.into_values() {
            by_inode
                .entry(inode)
                .or_default()
                .push((position, bytes.to_vec()));
        }
        let mut ids: Vec<u64> = state.inodes.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let writes = by_inode.remove(&id).unwrap_or_default();
            let inode = state.inodes.get_mut(&id).expect("listed");
            inode.crash(&mut state.rng, &writes);
        }
        state.names.crash(&mut state.rng);
    }

    /// The process ends and the machine lives on: nothing that was written is lost.
    pub fn process_crash(&self) {
        let mut state = self.state.borrow_mut();
        let writes = std::mem::take(&mut state.in_flight);
        // A write that was under way is done, or not at all.
        for (inode, position, bytes) in writes.into_values() {
            if state.rng.one_in(2)
                && let Some(inode) = state.inodes.get_mut(&inode)
            {
                inode.write(position, &bytes);
            }
        }
    }

    /// Changes one byte of a file in place, as rot would.
    ///
    /// # Panics
    /// If there is no such byte.
    pub fn rot(&self, path: &Path, position: usize) {
        let mut state = self.state.borrow_mut();
        let Some(Node::File(inode)) = state.names.get(path) else {
            panic!("no file {}", path.display());
        };
        state.inodes.get_mut(&inode).expect("named").bytes[position] ^= 0x40;
    }

    /// Whether there is a file or directory of this name.
    pub fn exists(&self, path: &Path) -> bool {
        self.state.borrow().names.get(path).is_some()
    }

    /// A file's bytes.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.borrow();
        match state.names.get(path)? {
            Node::File(inode) => Some(state.inodes[&inode].bytes.clone()),
            Node::Dir(_) => None,
        }
    }

    fn delay(&self) -> Delay {
        let mut state = self.state.borrow_mut();
        let most = state.faults.delay_polls_max;
        Delay(if most == 0 { 0 } else { state.rng.below(most) })
    }

    fn open_now(&self, path: &Path, mode: OpenMode) -> io::Result<SimFile> {
        let mut state = self.state.borrow_mut();
        state.check(path)?;
        let found = state.names.get(path);
        let inode = match (found, mode) {
            (Some(Node::Dir(_)), _) => return Err(io::Error::from_raw_os_error(libc::EISDIR)),
            (Some(_), OpenMode::CreateNew) => {
                return Err(io::Error::from_raw_os_error(libc::EEXIST));
            }
            (Some(Node::File(inode)), _) => inode,
            (None, OpenMode::Read | OpenMode::ReadWrite) => return Err(missing()),
            (None, _) => {
                let inode = state.next_inode;
                if !state.names.add_file(path, inode) {
                    return Err(missing());
                }
                state.next_inode += 1;
                state.inodes.insert(inode, Inode::default());
                inode
            }
        };
        Ok(SimFile {
            inode,
            path: Rc::new(path.to_path_buf()),
        })
    }
}

/// A write that is under way; leaves the list of those when it is done.
struct UnderWay {
    disk: SimDisk,
    id: u64,
}

impl UnderWay {
    fn begin(disk: &SimDisk, file: &SimFile, position: u64, bytes: &Shared) -> UnderWay {
        let mut state = disk.state.borrow_mut();
        let id = state.next_write;
        state.next_write += 1;
        state
            .in_flight
            .insert(id, (file.inode, position as usize, bytes.clone()));
        drop(state);
        UnderWay {
            disk: disk.clone(),
            id,
        }
    }

    fn end(self) {
        self.disk.state.borrow_mut().in_flight.remove(&self.id);
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<SimFile> {
        self.delay().await;
        self.open_now(path, mode)
    }

    async fn read_at(
        &self,
        file: &SimFile,
        position: u64,
        mut buf: AlignedBuf,
    ) -> (io::Result<usize>, AlignedBuf) {
        assert!(
            position.is_multiple_of(BLOCK_BYTES as u64),
            "an unaligned read"
        );
        self.delay().await;
        let state = self.state.borrow();
        if let Err(error) = state.check(&file.path) {
            return (Err(error), buf);
        }
        let bytes = &state.inodes[&file.inode].bytes;
        let start = (position as usize).min(bytes.len());
        let count = (bytes.len() - start).min(buf.len());
        buf[..count].copy_from_slice(&bytes[start..start + count]);
        (Ok(count), buf)
    }

    async fn write_at(&self, file: &SimFile, position: u64, bytes: Shared) -> io::Result<()> {
        assert!(
            position.is_multiple_of(BLOCK_BYTES as u64) && bytes.len().is_multiple_of(BLOCK_BYTES),
            "an unaligned write"
        );
        let under_way = UnderWay::begin(self, file, position, &bytes);
        self.delay().await;
        let mut state = self.state.borrow_mut();
        state.in_flight.remove(&under_way.id);
        state.check(&file.path)?;
        state.check_room(file.inode, position as usize + bytes.len())?;
        state
            .inodes
            .get_mut(&file.inode)
            .expect("an open file")
            .write(position as usize, &bytes);
        drop(state);
        under_way.end();
        Ok(())
    }

    async fn write_gathered(
        &self,
        file: &SimFile,
        position: u64,
        pieces: &[Shared],
    ) -> io::Result<()> {
        for piece in pieces {
            assert!(
                (piece.as_ptr() as usize).is_multiple_of(SECTOR_BYTES)
                    && piece.len().is_multiple_of(SECTOR_BYTES),
                "an unaligned piece"
            );
        }
        self.write_at(file, position, joined(pieces)).await
    }

    async fn sync_data(&self, file: &SimFile) -> io::Result<()> {
        let version = self.state.borrow().inodes[&file.inode].version;
        self.delay().await;
        let mut state = self.state.borrow_mut();
        state.check(&file.path)?;
        if !state.faults.lies(&file.path) {
            let inode = state.inodes.get_mut(&file.inode).expect("an open file");
            inode.flush(version);
        }
        Ok(())
    }

    async fn allocate(&self, file: &SimFile, position: u64, length_bytes: u64) -> io::Result<()> {
        self.delay().await;
        let mut state = self.state.borrow_mut();
        state.check(&file.path)?;
        let end = (position + length_bytes) as usize;
        state.check_room(file.inode, end)?;
        let inode = state.inodes.get_mut(&file.inode).expect("an open file");
        if inode.bytes.len() < end {
            inode.set_length(end);
        }
        Ok(())
    }

    async fn truncate(&self, file: &SimFile, length_bytes: u64) -> io::Result<()> {
        self.delay().await;
        let mut state = self.state.borrow_mut();
        state.check(&file.path)?;
        let inode = state.inodes.get_mut(&file.inode).expect("an open file");
        inode.set_length(length_bytes as usize);
        Ok(())
    }

    async fn length(&self, file: &SimFile) -> io::Result<u64> {
        self.delay().await;
        let state = self.state.borrow();
        state.check(&file.path)?;
        Ok(state.inodes[&file.inode].bytes.len() as u64)
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.delay().await;
        let mut state = self.state.borrow_mut();
        state.check(from)?;
        if state.names.rename(from, to) {
            Ok(())
        } else {
            Err(missing())
        }
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.delay().await;
        let mut state = self.state.borrow_mut();
        state.check(path)?;
        match state.names.get(path) {
            Some(Node::File(_)) => {}
            Some(Node::Dir(_)) => return Err(io::Error::from_raw_os_error(libc::EISDIR)),
            None => return Err(missing()),
        }
        state.names.remove(path);
        Ok(())
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.delay().await;
        let mut state = self.state.borrow_mut();
        state.check(path)?;
        let Some(mut inside) = state.names.list(path) else {
            return Err(missing());
        };
        if inside.next().is_some() {
            return Err(io::Error::from_raw_os_error(libc::ENOTEMPTY));
        }
        drop(inside);
        state.names.remove(path);
        Ok(())
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.delay().await;
        let mut state = self.state.borrow_mut();
        state.check(path)?;
        if !state.names.add_dirs(path) {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
        }
        Ok(())
    }

    async fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.delay().await;
        let state = self.state.borrow();
        state.check(path)?;
        let names = state.names.list(path).ok_or_else(missing)?;
        Ok(names
            .map(|(name, node)| DirEntry {
                name: name.to_string_lossy().into_owned(),
                is_dir: matches!(node, Node::Dir(_)),
            })
            .collect())
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.delay().await;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.check(path)?;
        if state.faults.lies(path) {
            return Ok(());
        }
        state.names.sync(path);
        Ok(())
    }

    async fn sync_all(&self, directory: &Path, _file: &SimFile) -> io::Result<()> {
        if self.state.borrow().faults.no_sync_all {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let begun: Vec<(PathBuf, u64, u64)> = {
            let state = self.state.borrow();
            let files = state.names.files_below(directory).into_iter();
            files
                .map(|(path, inode)| (path, inode, state.inodes[&inode].version))
                .collect()
        };
        self.delay().await;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.check(directory)?;
        for (path, inode, version) in begun {
            state.check(&path)?;
            if !state.faults.lies(&path)
                && let Some(inode) = state.inodes.get_mut(&inode)
            {
                inode.flush(version);
            }
        }
        for directory in state.names.dirs_below(directory) {
            if !state.faults.lies(&directory) {
                state.names.sync(&directory);
            }
        }
        Ok(())
    }

    async fn space(&self, path: &Path) -> io::Result<Space> {
        self.delay().await;
        let state = self.state.borrow();
        state.check(path)?;
        let total_bytes = state.faults.capacity_bytes;
        Ok(Space {
            total_bytes,
            free_bytes: total_bytes.saturating_sub(state.used_bytes()),
        })
    }

    async fn pause(&self) {
        self.delay().await;
    }
}
