//! Keys of things in flight on one core, and the map that finds them. Lives on every core; knows
//! nothing of what is kept.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Names something in flight on this core. Never reused while the core runs.
pub type Key = u64;

/// A map by [`Key`].
pub type KeyMap<T> = HashMap<Key, T, BuildHasherDefault<KeyHasher>>;

/// A map by names that this broker made itself, whatever they consist of. Equal runs meet its entries in
/// equal order.
pub type OwnMap<K, V> = HashMap<K, V, BuildHasherDefault<KeyHasher>>;

/// Gives out keys.
#[derive(Debug, Default)]
pub struct Keys {
    next: Key,
}

impl Keys {
    /// A key that was never given out before.
    pub fn next(&mut self) -> Key {
        self.next += 1;
        self.next
    }
}

/// Spreads consecutive keys with one multiplication: keys come from this core, never from a stranger.
#[derive(Debug, Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_i32(&mut self, value: i32) {
        self.write_u64(u64::from(value as u32));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
