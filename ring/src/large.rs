//! Memory of one thread for large buffers, on huge pages where the kernel has them. A piece may be dropped
//! on any thread; only its own thread takes new ones. Knows no buffer's contents and no ring.
//!
//! Why huge pages: a device gets an address for each piece of memory that lies together. Of small pages a
//! megabyte has 256, and a virtual disk takes longer over these than over the bytes.
//!
//! Why memory is made ahead: the kernel clears a huge page when it is first touched, and in a virtual
//! machine the host may have to find each 4 KiB of it, which together takes milliseconds. A thread that
//! asked for it has a few chunks touched by another one, which runs when nobody else wants the processor.

use std::cell::RefCell;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::clock;

/// The size of a huge page, on x86-64 and mostly on 64-bit ARM; where it is another one, so be it.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Memory is asked of the kernel in chunks of this size: in one of them seven reads of a megabyte find
/// room, and it becomes resident one huge page at a time.
const CHUNK_BYTES: usize = 4 * HUGE_PAGE_BYTES;
/// The smallest page that there may be.
const PAGE_BYTES: usize = 4 << 10;
/// Pieces are whole slots.
const SLOT_BYTES: usize = 32 << 10;
const SLOTS: usize = CHUNK_BYTES / SLOT_BYTES;
const WORDS: usize = SLOTS / 64;
/// Smaller pieces gain nothing.
pub(crate) const PIECE_BYTES_MIN: usize = 64 << 10;
/// No piece is larger.
pub(crate) const PIECE_BYTES_MAX: usize = CHUNK_BYTES;
/// Chunks that were not needed for so long go back to the kernel.
const UNUSED_US: u64 = 60_000_000;
/// No more is made ahead: what is asked for faster is asked for faster than memory can be cleared.
const AHEAD_CHUNKS_MAX: usize = 4;

/// Memory from the kernel, of which slots are taken.
struct Chunk {
    memory: NonNull<u8>,
    /// A bit for each slot. Set by the thread that has the chunk in its list, cleared by whoever drops a
    /// piece.
    taken: [AtomicU64; WORDS],
}

// SAFETY: the memory is reached only through pieces, each of which has its slots for itself.
unsafe impl Send for Chunk {}
// SAFETY: as for `Send`; the map of slots is atomic.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn new() -> Option<Chunk> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let mapped_bytes = CHUNK_BYTES + HUGE_PAGE_BYTES;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let mapped =
            unsafe { libc::mmap(std::ptr::null_mut(), mapped_bytes, protection, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return None;
        }
        let before = mapped.align_offset(HUGE_PAGE_BYTES);
        let after = HUGE_PAGE_BYTES - before;
        // SAFETY: the chunk, and what lies before and behind it, are parts of the mapping just made, and
        // nothing points into it yet. Where advice is refused, the pages are small ones.
        let memory = unsafe {
            let memory = mapped.byte_add(before);
            if before > 0 {
                libc::munmap(mapped, before);
            }
            if after > 0 {
                libc::munmap(memory.byte_add(CHUNK_BYTES), after);
            }
            libc::madvise(memory, CHUNK_BYTES, libc::MADV_HUGEPAGE);
            memory
        };
        Some(Chunk {
            memory: NonNull::new(memory.cast())?,
            taken: Default::default(),
        })
    }

    /// The first place where so many slots in a row are free.
    fn find(&self, slots: usize) -> Option<usize> {
        let mut at = 0;
        let mut first = 0;
        while at < SLOTS && first + slots <= SLOTS {
            // What another thread did with memory that it freed is over for whoever sees the bit clear.
            let word = self.taken[at / 64].load(Ordering::Acquire) >> (at % 64);
            let left = 64 - at % 64;
            let free = (word.trailing_zeros() as usize).min(left);
            at += free;
            if at - first >= slots {
                return Some(first);
            }
            if free < left {
                at += ((word >> free).trailing_ones() as usize).min(left - free);
                first = at;
            }
        }
        None
    }

    /// Each word of the map that a range of slots touches, with the range's bits in it.
    fn bits(first: usize, slots: usize) -> impl Iterator<Item = (usize, u64)> {
        (first / 64..=(first + slots - 1) / 64).map(move |word| {
            let from = first.max(word * 64) - word * 64;
            let to = (first + slots).min(word * 64 + 64) - word * 64;
            (word, (u64::MAX >> (64 - (to - from))) << from)
        })
    }

    /// Touches each page, so that it is resident.
    fn touch(&self) {
        for page in 0..CHUNK_BYTES / PAGE_BYTES {
            // SAFETY: the page is the chunk's, which nobody else has yet. A write that nobody reads may be
            // left out, a volatile one may not.
            unsafe {
                let byte = self.memory.as_ptr().add(page * PAGE_BYTES);
                byte.write_volatile(0);
            }
        }
    }

    fn is_free(&self) -> bool {
        self.taken
            .iter()
            .all(|word| word.load(Ordering::Acquire) == 0)
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; every piece holds the chunk, so none is left.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), CHUNK_BYTES) };
    }
}

/// Memory that belongs to its holder alone, initialised, until it is dropped.
pub(crate) struct Piece {
    chunk: Arc<Chunk>,
    first: usize,
    slots: usize,
}

impl Piece {
    /// Memory of this thread of at least `bytes`, with whatever its last holder left in it; `None` if the
    /// kernel gives none, or the thread is ending.
    ///
    /// # Panics
    /// If `bytes` is above [`PIECE_BYTES_MAX`], or zero.
    pub(crate) fn take(bytes: usize) -> Option<Piece> {
        assert!(0 < bytes && bytes <= PIECE_BYTES_MAX, "a piece of {bytes}");
        CHUNKS
            .try_with(|chunks| chunks.borrow_mut().take(bytes.div_ceil(SLOT_BYTES)))
            .ok()
            .flatten()
    }

    /// Where it is.
    pub(crate) fn memory(&self) -> NonNull<u8> {
        // SAFETY: the slot lies in the chunk.
        unsafe { self.chunk.memory.add(self.first * SLOT_BYTES) }
    }

    /// Its size.
    pub(crate) fn bytes(&self) -> usize {
        self.slots * SLOT_BYTES
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        for (word, bits) in Chunk::bits(self.first, self.slots) {
            self.chunk.taken[word].fetch_and(!bits, Ordering::Release);
        }
        if self.chunk.is_free() {
            // On another thread this looks at that thread's chunks, and finds nothing to do.
            let _ = CHUNKS
                .try_with(|chunks| chunks.borrow_mut().give_back_unused(clock::monotonic_us()));
        }
    }
}

/// Makes memory resident before it is needed.
struct Ahead {
    orders: Sender<Chunk>,
    ready: Receiver<Chunk>,
}

impl Ahead {
    /// Starts the thread, on the processor of the calling one, so that memory is near it where that makes
    /// a difference, with so many chunks to begin with.
    fn start(chunks: usize) -> io::Result<Ahead> {
        let (orders, inbox) = channel::<Chunk>();
        let (outbox, ready) = channel();
        std::thread::Builder::new()
            .name("memory-ahead".into())
            .stack_size(128 * 1024)
            .spawn(move || {
                only_when_idle();
                for chunk in inbox {
                    chunk.touch();
                    if outbox.send(chunk).is_err() {
                        return;
                    }
                }
            })?;
        let ahead = Ahead { orders, ready };
        (0..chunks).for_each(|_| ahead.order());
        Ok(ahead)
    }

    /// Has one chunk more made.
    fn order(&self) {
        if let Some(chunk) = Chunk::new() {
            // Without the thread there is none ahead, and whoever needs one makes it.
            let _ = self.orders.send(chunk);
        }
    }

    /// A chunk that is ready, in whose place another one is made.
    fn take(&self) -> Option<Chunk> {
        let chunk = self.ready.try_recv().ok()?;
        self.order();
        Some(chunk)
    }
}

/// The calling thread runs when no other wants the processor.
fn only_when_idle() {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the priority is valid for the read; refused, the thread runs like any other.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const priority) };
}

/// Has memory for [`crate::buf::AlignedBuf::scratch`] of the calling thread made resident before it is
/// needed, about `bytes` at a time: whole chunks, and not more than clearing can keep up with. Nothing is
/// made ahead where that is less than a chunk.
///
/// # Errors
/// If the thread that does so cannot be started.
pub fn make_memory_ahead(bytes: usize) -> io::Result<()> {
    let chunks = (bytes / CHUNK_BYTES).min(AHEAD_CHUNKS_MAX);
    if chunks > 0 {
        let ahead = Ahead::start(chunks)?;
        CHUNKS.with_borrow_mut(|chunks| chunks.ahead = Some(ahead));
    }
    Ok(())
}

/// Gives back memory of the calling thread that was not needed for a minute, a chunk at a time: that takes
/// the kernel a tenth of a millisecond. Dropping buffers does so too.
pub fn give_back_unused_memory() {
    CHUNKS.with_borrow_mut(|chunks| chunks.give_back_unused(clock::monotonic_us()));
}

/// The chunks of a thread.
#[derive(Default)]
struct Chunks {
    all: Vec<Arc<Chunk>>,
    ahead: Option<Ahead>,
    /// How few chunks were free at once since that time.
    free_count_min: usize,
    since_us: u64,
    /// How many go back.
    unused_count: usize,
}

impl Chunks {
    fn take(&mut self, slots: usize) -> Option<Piece> {
        let found = self
            .all
            .iter()
            .find_map(|chunk| Some((Arc::clone(chunk), chunk.find(slots)?)));
        let (chunk, first) = match found {
            Some(found) => found,
            None => {
                let ready = self.ahead.as_ref().and_then(Ahead::take);
                let chunk = Arc::new(ready.or_else(Chunk::new)?);
                self.all.push(Arc::clone(&chunk));
                (chunk, 0)
            }
        };
        let begun = chunk.is_free();
        for (word, bits) in Chunk::bits(first, slots) {
            chunk.taken[word].fetch_or(bits, Ordering::Relaxed);
        }
        if begun {
            self.free_count_min = self.free_count_min.min(self.free_count());
        }
        Some(Piece {
            chunk,
            first,
            slots,
        })
    }

    fn free_count(&self) -> usize {
        self.all.iter().filter(|chunk| chunk.is_free()).count()
    }

    /// Gives back one of as many chunks as were free all the time for so long.
    fn give_back_unused(&mut self, now_us: u64) {
        if now_us.saturating_sub(self.since_us) >= UNUSED_US {
            self.unused_count = self.free_count_min;
            self.free_count_min = self.free_count();
            self.since_us = now_us;
        }
        if self.unused_count == 0 {
            return;
        }
        self.unused_count -= 1;
        // Those taken from last are at the end.
        if let Some(index) = self.all.iter().rposition(|chunk| chunk.is_free()) {
            self.all.remove(index);
            self.free_count_min = self.free_count_min.min(self.free_count());
        }
    }
}

thread_local! {
    static CHUNKS: RefCell<Chunks> = RefCell::default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(piece: &Piece) -> usize {
        piece.memory().as_ptr() as usize
    }

    fn chunks_count() -> usize {
        CHUNKS.with_borrow(|chunks| chunks.all.len())
    }

    #[test]
    fn pieces_lie_side_by_side_and_the_first_gap_that_fits_is_taken() {
        let take = |slots: usize| Piece::take(slots * SLOT_BYTES).expect("memory");
        let (a, b, c) = (take(33), take(70), take(33));
        assert_eq!(place(&a) % HUGE_PAGE_BYTES, 0);
        assert_eq!(place(&b), place(&a) + 33 * SLOT_BYTES);
        assert_eq!(place(&c), place(&b) + 70 * SLOT_BYTES);
        let gap = place(&b);
        drop(b);
        let behind = take(71);
        assert_eq!(place(&behind), place(&c) + 33 * SLOT_BYTES);
        let fits = take(70);
        assert_eq!(place(&fits), gap);
        assert_eq!(chunks_count(), 1);
        let elsewhere = take(SLOTS);
        assert_eq!(elsewhere.bytes(), CHUNK_BYTES);
        assert_eq!(chunks_count(), 2);
    }

    #[test]
    fn every_number_of_slots_is_found_in_an_empty_chunk_and_nowhere_in_a_full_one() {
        for slots in 1..=SLOTS {
            let piece = Piece::take(slots * SLOT_BYTES).expect("memory");
            let set: u32 = piece
                .chunk
                .taken
                .iter()
                .map(|word| word.load(Ordering::Relaxed).count_ones())
                .sum();
            assert_eq!(set as usize, slots);
            assert_eq!(piece.chunk.find(SLOTS - slots + 1), None);
            if slots < SLOTS {
                assert_eq!(piece.chunk.find(SLOTS - slots), Some(slots));
            }
        }
        assert_eq!(chunks_count(), 1);
    }

    #[test]
    fn a_piece_may_end_on_another_thread_and_serves_the_next() {
        let piece = Piece::take(PIECE_BYTES_MAX).expect("memory");
        let address = place(&piece);
        std::thread::spawn(move || drop(piece))
            .join()
            .expect("dropped");
        let again = Piece::take(PIECE_BYTES_MAX).expect("memory");
        assert_eq!(place(&again), address);
    }

    #[test]
    fn a_piece_outlives_its_thread() {
        let piece = std::thread::spawn(|| Piece::take(PIECE_BYTES_MIN).expect("memory"))
            .join()
            .expect("taken");
        // SAFETY: the piece has this memory for itself, and it is initialised.
        let byte = unsafe { piece.memory().as_ptr().read() };
        assert_eq!(byte, 0);
    }

    /// Whether each page of a chunk is in memory.
    fn is_resident(chunk: &Chunk) -> bool {
        let mut pages = vec![0_u8; CHUNK_BYTES / PAGE_BYTES];
        // SAFETY: the chunk is mapped, and there is a byte for each of its pages, which are no smaller.
        let result = unsafe {
            libc::mincore(
                chunk.memory.as_ptr().cast(),
                CHUNK_BYTES,
                pages.as_mut_ptr(),
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        pages.iter().all(|page| page & 1 == 1)
    }

    #[test]
    fn memory_that_nobody_needed_for_a_minute_goes_back() {
        // Drops look at the real clock, which stays behind these times.
        let begin_us = clock::monotonic_us();
        let give_back_one = |seconds: u64| {
            let now_us = begin_us + seconds * 1_000_000;
            CHUNKS.with_borrow_mut(|chunks| chunks.give_back_unused(now_us));
            chunks_count()
        };
        let give_back = |seconds: u64| {
            (0..5).for_each(|_| _ = give_back_one(seconds));
            give_back_one(seconds)
        };
        let mut pieces: Vec<Piece> = (0..5)
            .map(|_| Piece::take(PIECE_BYTES_MAX).expect("memory"))
            .collect();
        assert_eq!(give_back(60), 5);
        pieces.truncate(2);
        assert_eq!(give_back(119), 5, "not yet");
        assert_eq!(give_back(120), 5, "they were needed at first");
        // Of the three that are free now, one is needed in this minute.
        drop(Piece::take(PIECE_BYTES_MAX));
        assert_eq!(give_back_one(180), 4, "one at a time");
        assert_eq!(give_back(180), 3);
        drop(pieces);
        assert_eq!(give_back(240), 2);
        assert_eq!(give_back(300), 0);
    }

    #[test]
    fn memory_made_ahead_is_resident_and_made_again() {
        make_memory_ahead(2 * CHUNK_BYTES + 1).expect("a thread");
        let ready = || {
            CHUNKS.with_borrow(|chunks| {
                let ahead = chunks.ahead.as_ref().expect("started");
                ahead
                    .ready
                    .recv_timeout(std::time::Duration::from_secs(60))
                    .expect("a chunk")
            })
        };
        let (first, second) = (ready(), ready());
        assert!(is_resident(&first) && is_resident(&second));
        assert!(!is_resident(&Chunk::new().expect("memory")));
        assert_eq!(chunks_count(), 0);
        // What was received above is not replaced, what a piece takes is.
        CHUNKS.with_borrow(|chunks| chunks.ahead.as_ref().expect("started").order());
        let begin_us = clock::monotonic_us();
        let piece = loop {
            let piece = Piece::take(PIECE_BYTES_MIN).expect("memory");
            if is_resident(&piece.chunk) {
                break piece;
            }
            drop(piece);
            CHUNKS.with_borrow_mut(|chunks| chunks.all.clear());
            assert!(
                clock::monotonic_us() < begin_us + 60_000_000,
                "none was ready"
            );
        };
        assert!(is_resident(&ready()), "another one in its place");
        drop(piece);
    }

    #[test]
    fn less_than_a_chunk_is_not_made_ahead() {
        make_memory_ahead(CHUNK_BYTES - 1).expect("nothing to do");
        assert!(CHUNKS.with_borrow(|chunks| chunks.ahead.is_none()));
    }
}
