//! The buffers that the kernel receives into: a ring of provided buffers, shared with the kernel. Lives
//! on one core; knows no socket. A received piece is a [`Shared`] view whose last drop gives the buffer
//! back to the kernel.

use std::cell::Cell;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::buf::{Shared, Stable};

/// The one buffer group of a ring.
pub(crate) const GROUP: u16 = 0;

/// Anonymous memory, zeroed and backed by pages only where it was touched.
struct Mapping {
    memory: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Mapping> {
        // SAFETY: a fresh anonymous mapping touches no existing memory.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping {
            memory: NonNull::new(memory.cast()).expect("mmap does not give null"),
            bytes,
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, has this size, and nothing refers to it any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.bytes) };
    }
}

struct Inner {
    /// The entries that the kernel takes buffers from; page-aligned as it wants.
    entries: Mapping,
    buffers: Mapping,
    buffer_bytes: usize,
    count: u16,
    tail: Cell<u16>,
    /// Buffers that the kernel may fill, as far as completions have told.
    free_count: Cell<usize>,
}

/// The pool of one ring. Cloning shares it.
#[derive(Clone)]
pub(crate) struct RecvPool {
    inner: Rc<Inner>,
}

impl RecvPool {
    /// Makes `count` buffers (a power of two, at most 32768) and hands all to the kernel.
    pub fn register(ring: &IoUring, count: u16, buffer_bytes: usize) -> io::Result<RecvPool> {
        assert!(count.is_power_of_two() && count <= 1 << 15);
        let inner = Inner {
            entries: Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?,
            buffers: Mapping::new(usize::from(count) * buffer_bytes)?,
            buffer_bytes,
            count,
            tail: Cell::new(0),
            free_count: Cell::new(0),
        };
        // SAFETY: the entries are page-aligned, large enough for `count`, and outlive the ring: the
        // ring holds this pool and waits for its operations before it lets go.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                inner.entries.memory.as_ptr() as u64,
                count,
                GROUP,
                0,
            )?;
        }
        for id in 0..count {
            inner.give(id);
        }
        Ok(RecvPool {
            inner: Rc::new(inner),
        })
    }

    /// Takes the buffer that the kernel filled with `bytes` bytes.
    pub fn take(&self, id: u16, bytes: usize) -> Shared {
        assert!(id < self.inner.count && bytes <= self.inner.buffer_bytes);
        self.inner.free_count.set(self.inner.free_count.get() - 1);
        Shared::new(Piece {
            pool: Rc::clone(&self.inner),
            id,
        })
        .slice(0..bytes)
    }

    pub fn free_count(&self) -> usize {
        self.inner.free_count.get()
    }

    pub fn count(&self) -> usize {
        usize::from(self.inner.count)
    }

    pub fn buffer_bytes(&self) -> usize {
        self.inner.buffer_bytes
    }
}

impl Inner {
    /// Hands a buffer to the kernel.
    fn give(&self, id: u16) {
        let tail = self.tail.get();
        let base = self.entries.memory.as_ptr().cast::<BufRingEntry>();
        // SAFETY: the index is below `count`, and the kernel does not read an entry before the tail
        // moves past it. Only address, length and id are written: the first entry's fourth field is
        // the tail itself.
        let entry = unsafe { &mut *base.add(usize::from(tail & (self.count - 1))) };
        let offset = usize::from(id) * self.buffer_bytes;
        // SAFETY: `id` is below `count`, so the address lies inside the mapping.
        entry.set_addr(unsafe { self.buffers.memory.as_ptr().add(offset) } as u64);
        entry.set_len(self.buffer_bytes as u32);
        entry.set_bid(id);
        self.tail.set(tail.wrapping_add(1));
        self.free_count.set(self.free_count.get() + 1);
        // SAFETY: the tail lies in the mapping, is aligned for u16, and is read by the kernel only.
        let shared_tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()) };
        shared_tail.store(self.tail.get(), Ordering::Release);
    }
}

/// One buffer, filled by the kernel and not yet given back.
struct Piece {
    pool: Rc<Inner>,
    id: u16,
}

impl Stable for Piece {
    fn bytes(&self) -> &[u8] {
        let offset = usize::from(self.id) * self.pool.buffer_bytes;
        // SAFETY: inside the mapping, which was zeroed and lives as long as the pool; the kernel does
        // not write to a buffer that it has not been given back.
        unsafe {
            std::slice::from_raw_parts(
                self.pool.buffers.memory.as_ptr().add(offset),
                self.pool.buffer_bytes,
            )
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.pool.give(self.id);
    }
}
