//! Hostile bytes on demand: made-up valid frames, and seeded damage to them. Lives in tests and in the
//! fuzzing command; knows every message but no broker.

/// A seeded source of numbers (SplitMix64): the same seed gives the same run everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end
    }

    /// A number for a field: small ones and extremes more often than chance has them.
    pub fn number(&mut self) -> i64 {
        match self.below(4) {
            0 => self.below(200) as i64 - 2,
            1 => [0, -1, i64::MAX, i64::from(i32::MAX), i64::MIN][self.below(5) as usize],
            _ => self.bits() as i64,
        }
    }

    /// A short text, some of it outside ASCII.
    pub fn text(&mut self) -> String {
        let count = match self.below(20) {
            // Lengths on both sides of a one-byte varint.
            0 => 126 + self.below(4),
            _ => self.below(8),
        };
        let letters = ['a', 'Z', '0', '.', '-', '\u{e9}', '\u{4e16}', '\u{1f980}'];
        (0..count)
            .map(|_| letters[self.below(letters.len() as u64) as usize])
            .collect()
    }

    /// A few bytes.
    pub fn bytes(&mut self) -> Vec<u8> {
        let count = self.below(40);
        (0..count).map(|_| self.bits() as u8).collect()
    }
}
