//! What the simulated broker has to do with: sizes of its memory and its journals, and its clocks for what is
//! not urgent; and how long an answer may take there. Knows no request.

use storage::sim_disk::SimRng;
use storage::store::StoreConfig;
use storage::types::CoreId;

use super::{MEMORY_BYTES, World};

/// How long what nobody waits for may be put off in a roomy broker, in milliseconds, so that it happens often.
const OFTEN_MS: [u64; 2] = [700, 1_500];
/// The same in a pressed broker: so seldom that an answer that waits for it is missed.
const SELDOM_MS: [u64; 2] = [60_000, 120_000];

/// How often a store looks for what should be written back, in milliseconds.
const WRITE_BACK_MS: u64 = 300;

/// How long a request may take on a sound disk, beyond what its sender asked to wait, in microseconds.
///
/// What an answer may need is some looks of write-back and, with memory and journals as small as here, some
/// hundred operations of the disk: a few polls each, of which every one comes round in about a millisecond. That
/// is far below this, and the clocks of what may be put off in a pressed broker are far above: an answer that
/// comes later has waited for one of them, or for nothing.
const ANSWER_US_MAX: u64 = 10_000_000;

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The world is a small one where everything is often full.
    pub pressed: bool,
    /// How many partitions a topic is made with at most.
    pub partitions_max: i64,
    /// How large a record's value is at most, in bytes: six of them may be more than journals have room for.
    pub value_bytes_max: i64,
    dirty_bytes_max: u64,
    journal_file_bytes: u64,
    journal_files_max: usize,
}

impl Shape {
    /// Room enough for what clients bring most of the time.
    pub fn roomy() -> Shape {
        Shape {
            pressed: false,
            partitions_max: 4,
            value_bytes_max: 40_000,
            dirty_bytes_max: 1 << 20,
            journal_file_bytes: 256 << 10,
            journal_files_max: 4,
        }
    }

    /// Journals that are filled again and again, and in some worlds many partitions.
    pub fn pressed(seed: u64) -> Shape {
        let mut rng = SimRng::new(seed ^ 0x5EED_0003);
        let dirty_bytes_max = (256 << 10) << rng.below(2);
        Shape {
            pressed: true,
            partitions_max: if rng.one_in(3) { 24 } else { 4 },
            value_bytes_max: 40_000,
            dirty_bytes_max,
            journal_file_bytes: dirty_bytes_max / 8,
            journal_files_max: 4 + rng.below(5) as usize,
        }
    }
}

impl World {
    pub(super) fn store_config(&self, core: CoreId, cores: u16, epoch: u64) -> StoreConfig {
        let shape = &self.shape;
        let [settle_idle_ms, checkpoint_ms] = if shape.pressed { SELDOM_MS } else { OFTEN_MS };
        StoreConfig {
            dirty_bytes_max: shape.dirty_bytes_max,
            straight_bytes_min: 2 << 10,
            flush_together_min: 3,
            clean_bytes_max: 128 << 10,
            journal_file_bytes: shape.journal_file_bytes,
            journal_files_max: shape.journal_files_max,
            reserve_bytes: shape.dirty_bytes_max + shape.dirty_bytes_max / 2,
            write_back_ms: WRITE_BACK_MS,
            settle_idle_ms,
            checkpoint_ms,
            retention_check_ms: 2000,
            cleaner_backoff_ms: 1500,
            cleaner_memory_bytes: 1 << 20,
            ..StoreConfig::new(
                core,
                cores,
                self.dirs.clone(),
                epoch,
                self.salt,
                MEMORY_BYTES as u64,
            )
        }
    }

    /// What it has to do with.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// How much too late an answer would be now that was due at `due_us`, in microseconds.
    pub fn late_us(&self, due_us: u64) -> Option<u64> {
        let latest_us = due_us.max(self.sound_since_us) + ANSWER_US_MAX;
        (!self.is_troubled())
            .then(|| self.time_us.checked_sub(latest_us))
            .flatten()
    }
}
