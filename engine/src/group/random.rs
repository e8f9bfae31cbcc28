//! The random part of member ids: xoroshiro128++ from a seed that the caller draws, so that a machine
//! with the same seed and calls does the same. Not a secret, and needs not be one.

use uuid::Uuid;

/// A generator; the same seed gives the same ids.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: [u64; 2],
}

impl Random {
    pub(crate) fn new(seed: [u64; 2]) -> Random {
        // The all-zero state is the one that never leaves itself.
        let state = if seed == [0, 0] { [1, 0] } else { seed };
        Random { state }
    }

    fn next(&mut self) -> u64 {
        let [a, mut b] = self.state;
        let result = a.wrapping_add(b).rotate_left(17).wrapping_add(a);
        b ^= a;
        self.state = [a.rotate_left(49) ^ b ^ (b << 21), b.rotate_left(28)];
        result
    }

    /// A version 4 UUID.
    pub(crate) fn uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_le_bytes());
        bytes[8..].copy_from_slice(&self.next().to_le_bytes());
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}
