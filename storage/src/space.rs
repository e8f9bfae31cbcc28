//! Disk space of one log directory, as one core accounts for it: a reserve file that covers what is
//! acknowledged but has no place in a segment yet. Lives in that core's store; knows no file system.
//!
//! Data in memory is only ever admitted against the reserve, so a full disk can always be given what
//! was acknowledged: the reserve file shrinks by what a segment needs. From then on the directory is
//! full and takes nothing, until the reserve has its size back. The last part of the reserve is never
//! counted for data: checkpoints, deletions, changes of metadata and the journal of the next start must
//! go on when everything else is spent.

use std::path::{Path, PathBuf};

use crate::types::CoreId;

/// Which part of a reserve is kept from data, as a divisor: a journal file (a sixth of the reserve, by
/// `StoreConfig::new`), and the rest for checkpoints, metadata and rounding.
const KEPT_DIVISOR: u64 = 4;

/// What the owner must do to the reserve file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpaceNeed {
    Nothing,
    /// Allocate up to this size.
    Grow(u64),
    /// Shrink to this size.
    Shrink(u64),
}

#[derive(Debug)]
pub(crate) struct DirSpace {
    path: PathBuf,
    target_bytes: u64,
    reserved_bytes: u64,
    /// Bytes in memory that may still need space.
    dirty_bytes: u64,
    full: bool,
    /// Whether the reserve must shrink so that writing can go on.
    pressed: bool,
    working: bool,
    retry_due_us: u64,
}

/// The name of a core's reserve file within `.millrace`.
pub(crate) fn reserve_path(dir: &Path, core: CoreId) -> PathBuf {
    dir.join(".millrace")
        .join(format!("reserve-{:04x}", core.0))
}

impl DirSpace {
    pub(crate) fn new(dir: &Path, core: CoreId, target_bytes: u64) -> DirSpace {
        DirSpace {
            path: reserve_path(dir, core),
            target_bytes: target_bytes.next_multiple_of(4096),
            reserved_bytes: 0,
            dirty_bytes: 0,
            full: false,
            pressed: false,
            working: false,
            retry_due_us: 0,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the directory takes no appends.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Whether `bytes` more are covered by the reserve.
    pub(crate) fn admits(&self, bytes: u64) -> bool {
        // An empty memory takes one batch of any size: its segment is asked for space next.
        let kept = self.target_bytes / KEPT_DIVISOR;
        self.dirty_bytes == 0
            || self.dirty_bytes + bytes <= self.reserved_bytes.saturating_sub(kept)
    }

    /// Whether something in memory waits for this directory, and gets there as long as it has room.
    pub(crate) fn will_get_clean(&self) -> bool {
        self.dirty_bytes > 0 && !self.full
    }

    pub(crate) fn on_dirty(&mut self, bytes: u64) {
        self.dirty_bytes += bytes;
    }

    pub(crate) fn on_clean(&mut self, bytes: u64) {
        self.dirty_bytes = self.dirty_bytes.saturating_sub(bytes);
    }

    /// A write or allocation found no space. True if the directory was not known to be full.
    pub(crate) fn on_no_space(&mut self) -> bool {
        self.pressed = true;
        !std::mem::replace(&mut self.full, true)
    }

    /// What to do next; at most one thing at a time.
    pub(crate) fn poll_need(&mut self, now_us: u64) -> SpaceNeed {
        if self.working {
            return SpaceNeed::Nothing;
        }
        if self.pressed {
            self.pressed = false;
            // In steps: what is given back here may be taken by anybody.
            let step = (self.target_bytes / 8).max(1 << 20).next_multiple_of(4096);
            let bytes = self.reserved_bytes.saturating_sub(step);
            if bytes == self.reserved_bytes {
                return SpaceNeed::Nothing;
            }
            self.working = true;
            self.retry_due_us = now_us + 2_000_000;
            return SpaceNeed::Shrink(bytes);
        }
        if self.reserved_bytes < self.target_bytes && now_us >= self.retry_due_us {
            self.working = true;
            self.retry_due_us = now_us + 2_000_000;
            return SpaceNeed::Grow(self.target_bytes);
        }
        SpaceNeed::Nothing
    }

    /// When [`DirSpace::poll_need`] may have more to do.
    pub(crate) fn next_deadline_us(&self) -> Option<u64> {
        if self.working {
            None
        } else if self.pressed {
            Some(0)
        } else {
            (self.reserved_bytes < self.target_bytes).then_some(self.retry_due_us)
        }
    }

    /// The reserve file was to be given another size, and has this one, be it `done` or not. True if
    /// the directory has room again.
    pub(crate) fn on_reserve(&mut self, bytes: u64, grow: bool, done: bool) -> bool {
        self.working = false;
        self.reserved_bytes = bytes;
        if grow && done {
            return std::mem::replace(&mut self.full, false);
        }
        if grow {
            self.full = true;
        }
        false
    }

    /// Whether the reserve was ever allocated or found impossible: a start waits for that.
    pub(crate) fn is_settled(&self) -> bool {
        self.full || self.reserved_bytes == self.target_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> DirSpace {
        let mut space = DirSpace::new(Path::new("/d"), CoreId(0), 64 << 20);
        assert_eq!(space.poll_need(0), SpaceNeed::Grow(64 << 20));
        assert_eq!(space.poll_need(0), SpaceNeed::Nothing);
        space.on_reserve(64 << 20, true, true);
        space
    }

    #[test]
    fn nothing_is_admitted_beyond_the_reserve() {
        let mut space = space();
        assert!(space.admits(48 << 20));
        space.on_dirty(48 << 20);
        assert!(!space.admits(1));
        space.on_clean(10 << 20);
        assert!(space.admits(10 << 20));
        assert!(!space.admits((10 << 20) + 1));
    }

    #[test]
    fn a_full_disk_takes_what_was_admitted_and_then_heals() {
        let mut space = space();
        assert!(space.on_no_space());
        assert!(space.is_full());
        assert_eq!(space.poll_need(1), SpaceNeed::Shrink(56 << 20));
        assert!(!space.on_reserve(56 << 20, false, true));
        // Not before a while, and only the whole reserve opens the directory again.
        assert_eq!(space.poll_need(2), SpaceNeed::Nothing);
        assert_eq!(space.poll_need(3_000_000), SpaceNeed::Grow(64 << 20));
        assert!(!space.on_reserve(56 << 20, true, false));
        assert!(space.is_full());
        assert_eq!(space.poll_need(6_000_000), SpaceNeed::Grow(64 << 20));
        assert!(space.on_reserve(64 << 20, true, true));
        assert!(!space.is_full());
    }

    #[test]
    fn a_start_on_a_full_disk_gives_what_an_earlier_start_kept() {
        let mut space = DirSpace::new(Path::new("/d"), CoreId(0), 64 << 20);
        assert_eq!(space.poll_need(0), SpaceNeed::Grow(64 << 20));
        // Not all of it can be had, but the file of the last start is there.
        assert!(!space.on_reserve(20 << 20, true, false));
        assert!(space.is_full() && space.is_settled());
        // The new journal finds no room.
        assert!(!space.on_no_space(), "known to be full");
        assert_eq!(space.next_deadline_us(), Some(0));
        assert_eq!(space.poll_need(1), SpaceNeed::Shrink(12 << 20));
    }
}
