//! Which half-received frames may go on: memory for frames of one core. Lives on that core; knows no
//! socket, no clock and no byte of a frame.
//!
//! A frame above [`FREE_BYTES`] reserves its whole size before more of it is received, in the order of
//! asking, and keeps the reservation until the last view of it is dropped. Large frames have a pool of
//! their own, which holds at least one frame of the largest size; so stalled large ones stop no small
//! one. While others wait, a frame that makes no progress loses its place: its connection is closed. A
//! frame that was whole before it could ask is counted all the same, also above what the pool has, so
//! that others wait for it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use ring::buf::{Shared, Stable};

/// Frames up to this size need no reservation: a buffer of this size is what any connection may have.
pub const FREE_BYTES: usize = 64 << 10;

/// Frames above this size share the pool for large ones.
pub const LARGE_BYTES: usize = 1 << 20;

/// How long a frame may make less than [`PROGRESS_BYTES`] of progress while others wait, in
/// microseconds: long enough for a bad minute of a network's second, short enough for a client's
/// request timeout (30 s) behind several stalled ones.
pub const PROGRESS_WINDOW_US: u64 = 4_000_000;

/// The progress that keeps a place, in bytes per window: 64 KiB/s, slower than any link worth serving.
pub const PROGRESS_BYTES: usize = 256 << 10;

/// Names a frame's place; given once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(pub u64);

#[derive(Clone, Copy, Debug)]
struct Receiving {
    place: Place,
    size_bytes: usize,
    /// Received when the window began.
    received_bytes: usize,
    window_us: u64,
}

/// One pool: who receives, who waits.
struct Pool {
    capacity_bytes: usize,
    /// Reserved by frames that are received and by whole ones that still live.
    reserved: Rc<Cell<usize>>,
    receiving: Vec<Receiving>,
    waiting: VecDeque<(Place, usize)>,
}

impl Pool {
    fn new(capacity_bytes: usize) -> Pool {
        Pool {
            capacity_bytes,
            reserved: Rc::default(),
            receiving: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    fn admit(&mut self, now_us: u64, admitted: &mut Vec<Place>) {
        while let Some((place, size_bytes)) = self.waiting.front().copied() {
            if self.reserved.get() + size_bytes > self.capacity_bytes {
                return;
            }
            self.waiting.pop_front();
            self.reserved.set(self.reserved.get() + size_bytes);
            self.receiving.push(Receiving {
                place,
                size_bytes,
                received_bytes: 0,
                window_us: now_us,
            });
            admitted.push(place);
        }
    }
}

/// The memory for frames of one core.
pub struct Admission {
    medium: Pool,
    large: Pool,
    next_place: u64,
}

/// A whole frame that gives its reservation back when its last view is dropped.
struct Reserved {
    frame: Shared,
    size_bytes: usize,
    reserved: Rc<Cell<usize>>,
}

impl Stable for Reserved {
    fn bytes(&self) -> &[u8] {
        &self.frame
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.reserved.set(self.reserved.get() - self.size_bytes);
    }
}

impl Admission {
    /// Memory of `memory_bytes` for frames of up to `frame_bytes_max` bytes: a quarter for medium ones,
    /// the rest, but at least one whole frame, for large ones.
    pub fn new(memory_bytes: usize, frame_bytes_max: usize) -> Admission {
        let medium = (memory_bytes / 4).max(4 * LARGE_BYTES);
        let large = memory_bytes.saturating_sub(medium).max(frame_bytes_max);
        Admission {
            medium: Pool::new(medium),
            large: Pool::new(large),
            next_place: 0,
        }
    }

    fn pool(&mut self, size_bytes: usize) -> &mut Pool {
        if size_bytes > LARGE_BYTES {
            &mut self.large
        } else {
            &mut self.medium
        }
    }

    /// Queues a frame of this size. It may go on when [`Admission::admit`] names its place.
    pub fn ask(&mut self, size_bytes: usize) -> Place {
        let place = Place(self.next_place);
        self.next_place += 1;
        self.pool(size_bytes).waiting.push_back((place, size_bytes));
        place
    }

    /// The places that may go on now, in the order of asking.
    pub fn admit(&mut self, now_us: u64) -> Vec<Place> {
        let mut admitted = Vec::new();
        self.medium.admit(now_us, &mut admitted);
        self.large.admit(now_us, &mut admitted);
        admitted
    }

    /// Memory reserved, in bytes: by frames that are received, and by whole ones that still live.
    pub fn reserved_bytes(&self) -> usize {
        self.medium.reserved.get() + self.large.reserved.get()
    }

    /// Whether any frame waits for its place.
    pub fn has_waiting(&self) -> bool {
        !self.medium.waiting.is_empty() || !self.large.waiting.is_empty()
    }

    /// The frame is whole: its memory is reserved as long as it lives. `place` is `None` if it was whole
    /// before it could ask, all of it received at once.
    pub fn complete(&mut self, place: Option<Place>, frame: Shared) -> Shared {
        if let Some(place) = place {
            self.forget(place);
        }
        let size_bytes = frame.len();
        if size_bytes <= FREE_BYTES {
            return frame;
        }
        let reserved = Rc::clone(&self.pool(size_bytes).reserved);
        reserved.set(reserved.get() + size_bytes);
        Shared::new(Reserved {
            frame,
            size_bytes,
            reserved,
        })
    }

    /// The frame will not be whole: its connection is gone.
    pub fn forget(&mut self, place: Place) {
        for pool in [&mut self.medium, &mut self.large] {
            pool.waiting.retain(|(waiting, _)| *waiting != place);
            if let Some(index) = pool.receiving.iter().position(|one| one.place == place) {
                let one = pool.receiving.swap_remove(index);
                pool.reserved.set(pool.reserved.get() - one.size_bytes);
            }
        }
    }

    /// The places whose frames make no progress while others wait in their pool. `received` says how
    /// many bytes of a place's frame have arrived.
    pub fn stalled(&mut self, now_us: u64, received: impl Fn(Place) -> usize) -> Vec<Place> {
        let mut stalled = Vec::new();
        for pool in [&mut self.medium, &mut self.large] {
            let others_wait = !pool.waiting.is_empty();
            for one in &mut pool.receiving {
                if now_us < one.window_us + PROGRESS_WINDOW_US {
                    continue;
                }
                let now_bytes = received(one.place);
                if others_wait && now_bytes < one.received_bytes + PROGRESS_BYTES {
                    stalled.push(one.place);
                }
                one.received_bytes = now_bytes;
                one.window_us = now_us;
            }
        }
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 100 << 20;

    #[test]
    fn three_stalled_large_frames_stop_nobody() {
        let mut admission = Admission::new(64 << 20, MAX);
        let stalled: Vec<Place> = (0..3).map(|_| admission.ask(MAX)).collect();
        assert_eq!(admission.admit(0), [stalled[0]]);
        // Small enough for the other pool: at once.
        let medium = admission.ask(LARGE_BYTES);
        assert_eq!(admission.admit(0), [medium]);
        let honest = admission.ask(MAX);
        let mut now_us = 0;
        let mut closed = Vec::new();
        let mut admitted = Vec::new();
        for _ in 0..20 {
            now_us += PROGRESS_WINDOW_US;
            // The honest one receives 10 MiB a window.
            let for_window = |place| if place == honest { now_us as usize } else { 0 };
            for place in admission.stalled(now_us, for_window) {
                admission.forget(place);
                closed.push(place);
            }
            admitted.extend(admission.admit(now_us));
        }
        assert_eq!(
            closed, stalled,
            "the medium one has nobody waiting behind it"
        );
        assert_eq!(admitted, [stalled[1], stalled[2], honest]);
    }

    #[test]
    fn a_stalled_frame_that_nobody_waits_behind_may_stay() {
        let mut admission = Admission::new(0, MAX);
        let place = admission.ask(MAX);
        assert_eq!(admission.admit(0), [place]);
        assert!(admission.stalled(1 << 40, |_| 0).is_empty());
    }

    #[test]
    fn a_whole_frame_keeps_its_memory_until_it_is_dropped() {
        let mut admission = Admission::new(0, 10 << 20);
        let first = admission.ask(10 << 20);
        assert_eq!(admission.admit(0), [first]);
        let second = admission.ask(2 << 20);
        let frame = admission.complete(Some(first), Shared::from(vec![7; 10 << 20]));
        let part = frame.slice(5..6);
        drop(frame);
        assert!(admission.admit(0).is_empty(), "a part still lives");
        assert_eq!(part[..], [7]);
        drop(part);
        assert_eq!(admission.admit(0), [second]);
    }

    #[test]
    fn a_frame_that_was_whole_at_once_makes_others_wait() {
        let mut admission = Admission::new(0, 10 << 20);
        let free = admission.complete(None, Shared::from(vec![7; FREE_BYTES]));
        assert_eq!(admission.reserved_bytes(), 0);
        // Two of 6 MiB are more than the 10 MiB that there are, and yet they are here.
        let frames = [6 << 20; 2].map(|size| admission.complete(None, Shared::from(vec![7; size])));
        assert_eq!(admission.reserved_bytes(), 12 << 20);
        let honest = admission.ask(2 << 20);
        assert!(admission.admit(0).is_empty());
        // One that waited, and was whole before it was stopped.
        let late = admission.ask(3 << 20);
        let late = admission.complete(Some(late), Shared::from(vec![7; 3 << 20]));
        assert_eq!(admission.reserved_bytes(), 15 << 20);
        drop((free, late));
        assert!(admission.admit(0).is_empty(), "12 of 10 MiB");
        drop(frames);
        assert_eq!(admission.admit(0), [honest]);
        assert_eq!(admission.reserved_bytes(), 2 << 20);
    }
}
