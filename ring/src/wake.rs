//! How any thread wakes a core that sleeps: the eventfd that the core's ring polls. Lives on every
//! thread; knows nothing of what the woken core will find.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Wakes one core. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Waker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    event: File,
    sleeping: AtomicBool,
}

impl Waker {
    /// A waker with an eventfd of its own.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Waker> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and owned by nobody else.
        let event = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Waker {
            inner: Arc::new(Inner {
                event,
                sleeping: AtomicBool::new(false),
            }),
        })
    }

    /// Wakes the core if it sleeps. What it shall find must have been published before.
    pub fn wake(&self) {
        // Pairs with the fence in `set_sleeping`: either this load sees that the core is about to
        // sleep, or the core's last look sees what was published before.
        fence(Ordering::SeqCst);
        if self.inner.sleeping.load(Ordering::Relaxed)
            && self.inner.sleeping.swap(false, Ordering::AcqRel)
        {
            // The counter of an eventfd is full only after 2^64 writes nobody read.
            let _ = (&self.inner.event).write(&1u64.to_ne_bytes());
        }
    }

    /// Says that the core is about to sleep; it must look at its inboxes once more afterwards.
    pub(crate) fn set_sleeping(&self) {
        self.inner.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Says that the core is awake.
    pub(crate) fn set_awake(&self) {
        self.inner.sleeping.store(false, Ordering::Relaxed);
    }
}

impl AsRawFd for Waker {
    /// The eventfd: written when the core should wake.
    fn as_raw_fd(&self) -> RawFd {
        self.inner.event.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn only_a_sleeper_is_written_to() {
        let waker = Waker::new().expect("an eventfd");
        let mut count = [0u8; 8];
        waker.wake();
        assert!((&waker.inner.event).read(&mut count).is_err(), "awake");
        waker.set_sleeping();
        waker.wake();
        waker.wake();
        (&waker.inner.event).read_exact(&mut count).expect("woken");
        assert_eq!(u64::from_ne_bytes(count), 1, "one write for two wakes");
        waker.set_awake();
    }
}
