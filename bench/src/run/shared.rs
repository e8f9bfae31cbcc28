//! What all threads of a run share: its clock, its moments, and whether it goes on. Atomics only; knows no client.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::clock;

/// Moments are nanoseconds since the run's clock began.
#[derive(Debug)]
pub struct Shared {
    start: Instant,
    /// Senders begin here; `u64::MAX` until the way is open.
    open_ns: AtomicU64,
    /// Records intended from here on are measured.
    from_ns: AtomicU64,
    /// Records intended from here on are not sent.
    until_ns: AtomicU64,
    probes: AtomicU64,
    paused: AtomicBool,
    stopped: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl Shared {
    /// A clock that begins now.
    pub fn new() -> Shared {
        Shared {
            start: clock::now(),
            open_ns: AtomicU64::new(u64::MAX),
            from_ns: AtomicU64::new(u64::MAX),
            until_ns: AtomicU64::new(u64::MAX),
            probes: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    /// The run's clock.
    pub fn now_ns(&self) -> u64 {
        (clock::now() - self.start).as_nanos() as u64
    }

    /// Lets the senders begin.
    pub fn open(&self) {
        // A little later, so that every thread is awake for its first record.
        self.open_ns
            .store(self.now_ns() + 20_000_000, Ordering::Release);
    }

    /// When the schedule begins, once it is known.
    pub fn opened_ns(&self) -> Option<u64> {
        let at = self.open_ns.load(Ordering::Acquire);
        (at != u64::MAX).then_some(at)
    }

    /// Begins the measured part; tells when that is.
    pub fn begin(&self) -> u64 {
        let now_ns = self.now_ns();
        self.from_ns.store(now_ns, Ordering::Release);
        now_ns
    }

    /// Ends the schedule at a moment.
    pub fn end_at(&self, at_ns: u64) {
        self.until_ns.store(at_ns, Ordering::Release);
    }

    /// Where the schedule ends.
    pub fn until_ns(&self) -> u64 {
        self.until_ns.load(Ordering::Acquire)
    }

    /// Whether a record of this moment is measured.
    pub fn is_measured(&self, intended_ns: u64) -> bool {
        intended_ns >= self.from_ns.load(Ordering::Acquire)
            && intended_ns < self.until_ns.load(Ordering::Acquire)
    }

    /// A first record came.
    pub fn probe(&self) {
        self.probes.fetch_add(1, Ordering::Relaxed);
    }

    /// How many first records came.
    pub fn probes(&self) -> u64 {
        self.probes.load(Ordering::Relaxed)
    }

    /// Makes the consumers pause or go on.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
    }

    /// Whether consumers pause.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Ends all threads.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// Whether all threads end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Something failed that makes the run worthless.
    pub fn fail(&self, why: String) {
        self.failure
            .lock()
            .expect("no holder panics")
            .get_or_insert(why);
    }

    /// What failed.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().expect("no holder panics").clone()
    }
}
