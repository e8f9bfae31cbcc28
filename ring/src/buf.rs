//! Buffers of one core: aligned memory for direct I/O, shared read-only views of it, and leases by
//! which another core may read a view. Lives on the core that made the buffer; knows no ring and no
//! file.
//!
//! A buffer is written by its one owner ([`AlignedBuf`], `Vec<u8>`), then frozen into [`Shared`] and
//! never written again. `Shared` counts references without atomics and so cannot leave its core. A
//! [`Lease`] can: the home core keeps the buffer alive in its [`LeaseTable`] until the very lease
//! comes home. A lease that is lost leaks its buffer; it never dangles.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::HashMap;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use crate::large::{PIECE_BYTES_MAX, PIECE_BYTES_MIN, Piece};

/// Alignment of every [`AlignedBuf`], in bytes: the block size that direct I/O is done in.
pub const BLOCK_BYTES: usize = 4096;

/// What the addresses and lengths of the pieces of a gathered direct write must be multiples of, in bytes:
/// enough for most devices; the others refuse it.
pub const SECTOR_BYTES: usize = 512;

/// Zeroed memory whose address and capacity are multiples of [`BLOCK_BYTES`].
pub struct AlignedBuf {
    memory: NonNull<u8>,
    capacity_bytes: usize,
    /// What `memory` is a part of; other parts may belong to other buffers.
    allocation: Arc<Allocation>,
}

/// Aligned memory that one or several [`AlignedBuf`] divide among themselves.
struct Allocation {
    memory: NonNull<u8>,
    bytes: usize,
    /// Where it belongs if it was not allocated for itself.
    piece: Option<Piece>,
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if self.piece.is_none() {
            // SAFETY: `memory` was allocated in `AlignedBuf::zeroed` with this very layout and is freed
            // once.
            unsafe { dealloc(self.memory.as_ptr(), AlignedBuf::layout(self.bytes)) }
        }
    }
}

// SAFETY: an `Allocation` only frees its memory; the parts are reached through their buffers alone.
unsafe impl Send for Allocation {}
// SAFETY: as for `Send`: nothing is read or written through a shared `Allocation`.
unsafe impl Sync for Allocation {}

impl AlignedBuf {
    /// Allocates at least `bytes` zeroed bytes, rounded up to whole blocks (at least one).
    pub fn zeroed(bytes: usize) -> AlignedBuf {
        let capacity_bytes = bytes.max(1).next_multiple_of(BLOCK_BYTES);
        let layout = Self::layout(capacity_bytes);
        // SAFETY: the layout has a size above zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else {
            handle_alloc_error(layout)
        };
        AlignedBuf {
            memory,
            capacity_bytes,
            allocation: Arc::new(Allocation {
                memory,
                bytes: capacity_bytes,
                piece: None,
            }),
        }
    }

    /// As [`AlignedBuf::zeroed`], but with whatever an earlier buffer of this thread left in that
    /// memory, and on huge pages if it is large and the kernel has them: for those who write every byte
    /// that anybody will read.
    pub fn scratch(bytes: usize) -> AlignedBuf {
        let capacity_bytes = bytes.max(1).next_multiple_of(BLOCK_BYTES);
        let piece = (PIECE_BYTES_MIN..=PIECE_BYTES_MAX)
            .contains(&capacity_bytes)
            .then(|| Piece::take(capacity_bytes))
            .flatten();
        match piece {
            Some(piece) => AlignedBuf {
                memory: piece.memory(),
                capacity_bytes,
                allocation: Arc::new(Allocation {
                    memory: piece.memory(),
                    bytes: piece.bytes(),
                    piece: Some(piece),
                }),
            },
            None => AlignedBuf::zeroed(capacity_bytes),
        }
    }

    /// Cuts the first `bytes` off into a buffer of their own, without copying; `self` keeps the rest.
    /// The memory is freed when both are gone.
    ///
    /// # Panics
    /// If `bytes` is no multiple of [`BLOCK_BYTES`], is zero, or does not leave at least a block.
    pub fn split_to(&mut self, bytes: usize) -> AlignedBuf {
        assert!(
            bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES) && bytes < self.capacity_bytes,
            "split {bytes} of {} bytes",
            self.capacity_bytes
        );
        let front = AlignedBuf {
            memory: self.memory,
            capacity_bytes: bytes,
            allocation: Arc::clone(&self.allocation),
        };
        // SAFETY: `bytes` is less than the capacity, so the result stays inside the allocation.
        self.memory = unsafe { self.memory.add(bytes) };
        self.capacity_bytes -= bytes;
        front
    }

    /// Size of the allocation that this buffer keeps alive, in bytes.
    pub fn allocation_bytes(&self) -> usize {
        self.allocation.bytes
    }

    fn layout(capacity_bytes: usize) -> Layout {
        Layout::from_size_align(capacity_bytes, BLOCK_BYTES).expect("a capacity that fits memory")
    }

    /// Turns the buffer into a shared read-only view of all of it.
    pub fn freeze(self) -> Shared {
        Shared::new(self)
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `memory` is valid and initialised for `capacity_bytes` as long as `self`, which
        // holds the allocation, lives.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.capacity_bytes) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.capacity_bytes) }
    }
}

// SAFETY: this part of the memory is owned by the buffer alone and no thread-local state is tied to it.
unsafe impl Send for AlignedBuf {}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.capacity_bytes)
    }
}

/// What can stand behind a [`Shared`] view: bytes that neither move nor change as long as the value
/// lives. Its `Drop` is where a pooled buffer goes back to its pool.
pub trait Stable: 'static {
    /// The bytes; every call returns the same address, length and contents.
    fn bytes(&self) -> &[u8];
}

impl Stable for AlignedBuf {
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl Stable for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A read-only view of a reference-counted buffer of this core. Cloning and slicing copy no bytes.
#[derive(Clone)]
pub struct Shared {
    /// The viewed part of what `owner` holds: reading it asks the owner nothing.
    bytes: NonNull<[u8]>,
    owner: Rc<dyn Stable>,
}

impl Shared {
    /// A view of all bytes of `owner`.
    pub fn new(owner: impl Stable) -> Shared {
        let owner: Rc<dyn Stable> = Rc::new(owner);
        Shared {
            bytes: NonNull::from(owner.bytes()),
            owner,
        }
    }

    /// A view of no bytes.
    pub fn empty() -> Shared {
        Shared::new(Vec::new())
    }

    /// A part of this view; `range` counts from its first byte.
    ///
    /// # Panics
    /// If `range` does not lie inside this view.
    pub fn slice(&self, range: Range<usize>) -> Shared {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "slice {range:?} of {} bytes",
            self.len()
        );
        Shared {
            bytes: NonNull::from(&self[range]),
            owner: Rc::clone(&self.owner),
        }
    }

    /// Whether two views share one buffer.
    pub fn same_buffer(&self, other: &Shared) -> bool {
        Rc::ptr_eq(&self.owner, &other.owner)
    }

    /// The size of the whole buffer that this view keeps alive, in bytes.
    pub fn buffer_bytes(&self) -> usize {
        self.owner.bytes().len()
    }
}

impl Deref for Shared {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are a part of what `owner` holds, and that neither moves nor changes as
        // long as it lives (`Stable`); a `Shared` has no mutable access to give.
        unsafe { self.bytes.as_ref() }
    }
}

impl From<Vec<u8>> for Shared {
    fn from(bytes: Vec<u8>) -> Shared {
        Shared::new(bytes)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({} bytes)", self.len())
    }
}

/// Leave to read a view of another core's buffer. It must come home to the [`LeaseTable`] that gave
/// it; until then the buffer lives.
pub struct Lease {
    bytes: *const [u8],
    id: u64,
    home: u16,
}

impl Lease {
    /// The number of the core whose table lent it.
    pub fn home(&self) -> u16 {
        self.home
    }
}

// SAFETY: the bytes are immutable (`Stable`), and the home core keeps them alive until this value is
// given back to it by `LeaseTable::give_back`; a dropped lease leaks them instead of freeing them.
unsafe impl Send for Lease {}

impl Deref for Lease {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: as for `Send`: the buffer lives and does not change as long as this lease exists.
        unsafe { &*self.bytes }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease(#{}, {} bytes)", self.id, self.len())
    }
}

/// The buffers of this core that other cores are reading.
pub struct LeaseTable {
    lent: HashMap<u64, Shared>,
    next_id: u64,
    home: u16,
}

impl LeaseTable {
    /// A table of core `home` that has lent nothing.
    pub fn new(home: u16) -> LeaseTable {
        LeaseTable {
            lent: HashMap::new(),
            next_id: 0,
            home,
        }
    }

    /// Lends `view` to another core.
    pub fn lend(&mut self, view: &Shared) -> Lease {
        let id = self.next_id;
        self.next_id += 1;
        let lease = Lease {
            bytes: &raw const **view,
            id,
            home: self.home,
        };
        self.lent.insert(id, view.clone());
        lease
    }

    /// Takes a lease back and frees what it held.
    ///
    /// # Panics
    /// If the lease was not lent by this table.
    pub fn give_back(&mut self, lease: Lease) {
        let ours = self
            .lent
            .get(&lease.id)
            .is_some_and(|view| std::ptr::eq(&raw const **view, lease.bytes));
        assert!(ours, "a lease came home to a table that did not lend it");
        self.lent.remove(&lease.id);
    }

    /// How many leases are out.
    pub fn lent_count(&self) -> usize {
        self.lent.len()
    }
}

impl Drop for LeaseTable {
    fn drop(&mut self) {
        // A lease that is still out may be read: leak rather than free under its reader.
        for (_, view) in self.lent.drain() {
            std::mem::forget(view);
        }
    }
}

/// One piece of what a socket sends: bytes of this core, or bytes that another core has lent.
#[derive(Debug)]
pub enum Chunk {
    /// Bytes of this core.
    Local(Shared),
    /// Bytes of another core; they go home after the send.
    Leased(Lease),
}

impl From<Shared> for Chunk {
    fn from(view: Shared) -> Chunk {
        Chunk::Local(view)
    }
}

impl From<Lease> for Chunk {
    fn from(lease: Lease) -> Chunk {
        Chunk::Leased(lease)
    }
}

impl Deref for Chunk {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Chunk::Local(view) => view,
            Chunk::Leased(lease) => lease,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_memory_is_whole_zeroed_blocks() {
        let mut buf = AlignedBuf::zeroed(5000);
        assert_eq!(buf.len(), 8192);
        assert_eq!(buf.as_ptr() as usize % BLOCK_BYTES, 0);
        assert!(buf.iter().all(|byte| *byte == 0));
        buf[8191] = 7;
        assert_eq!(buf.freeze()[8191], 7);
    }

    #[test]
    fn memory_of_a_dropped_buffer_serves_the_next_of_its_size() {
        let mut buf = AlignedBuf::scratch(512 << 10);
        assert!(buf.iter().all(|byte| *byte == 0), "never anybody else's");
        buf[0] = 7;
        let address = buf.as_ptr() as usize;
        let mut rest = buf;
        let front = rest.split_to(BLOCK_BYTES).freeze();
        drop(rest);
        let other = AlignedBuf::scratch(512 << 10);
        assert_ne!(other.as_ptr() as usize, address, "a part is still read");
        drop(front);
        let again = AlignedBuf::scratch(500 << 10);
        assert_eq!((again.as_ptr() as usize, again[0]), (address, 7));
        assert_eq!(again.len(), 500 << 10);
        drop((other, again));
        let huge = AlignedBuf::scratch(PIECE_BYTES_MAX + 1);
        assert_eq!(huge.len(), PIECE_BYTES_MAX + BLOCK_BYTES);
    }

    #[test]
    fn a_buffer_is_divided_without_copying() {
        let mut rest = AlignedBuf::zeroed(3 * BLOCK_BYTES);
        rest[0] = 1;
        rest[BLOCK_BYTES] = 2;
        let address = rest.as_ptr() as usize;
        let front = rest.split_to(BLOCK_BYTES).freeze();
        assert_eq!((front.len(), rest.len()), (BLOCK_BYTES, 2 * BLOCK_BYTES));
        assert_eq!(rest.as_ptr() as usize, address + BLOCK_BYTES);
        rest[0] = 3;
        drop(rest);
        assert_eq!(front[0], 1);
    }

    #[test]
    #[should_panic(expected = "split 8192 of 8192 bytes")]
    fn a_split_leaves_a_block() {
        AlignedBuf::zeroed(8192).split_to(8192);
    }

    #[test]
    fn slices_share_one_buffer() {
        let whole = Shared::from(vec![1, 2, 3, 4, 5]);
        let part = whole.slice(1..4).slice(1..3);
        assert_eq!(&part[..], &[3, 4]);
        assert!(part.same_buffer(&whole));
        drop(whole);
        assert_eq!(&part[..], &[3, 4]);
    }

    #[test]
    #[should_panic(expected = "slice 2..6 of 5 bytes")]
    fn a_slice_past_the_end_is_refused() {
        Shared::from(vec![1, 2, 3, 4, 5]).slice(2..6);
    }

    #[test]
    fn a_lease_is_read_elsewhere_and_comes_home() {
        let mut table = LeaseTable::new(3);
        let lease = table.lend(&Shared::from(vec![1, 2, 3]).slice(1..3));
        assert_eq!((table.lent_count(), lease.home()), (1, 3));
        let lease = std::thread::spawn(move || {
            assert_eq!(&lease[..], &[2, 3]);
            lease
        })
        .join()
        .expect("the reader ends");
        table.give_back(lease);
        assert_eq!(table.lent_count(), 0);
    }

    #[test]
    #[should_panic(expected = "did not lend it")]
    fn a_strange_lease_is_refused() {
        let lease = LeaseTable::new(0).lend(&Shared::from(vec![1]));
        LeaseTable::new(1).give_back(lease);
    }
}
