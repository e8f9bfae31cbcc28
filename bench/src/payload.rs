//! What a load generator sends. The sender's thread; knows no client.

/// A small fast generator (xorshift64*); reproducible, not for secrets.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed; any value will do.
    pub fn new(seed: u64) -> Random {
        Random(seed ^ 0x9E37_79B9_7F4A_7C15)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`, which must not be zero.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// Fills a buffer with letters A to Z.
    pub fn letters(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bits = self.bits().to_le_bytes();
            for (letter, byte) in chunk.iter_mut().zip(bits) {
                *letter = b'A' + ((u16::from(byte) * 26) >> 8) as u8;
            }
        }
    }
}

/// Where the values of records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Random letters, so many bytes.
    Letters(usize),
    /// One of these, chosen at random.
    Samples(Vec<Vec<u8>>),
    /// The record's number as decimal text.
    Counter,
}

/// Produces one value after another, in one buffer.
#[derive(Debug)]
pub struct Source {
    payload: Payload,
    random: Random,
    buffer: Vec<u8>,
}

impl Source {
    /// A source of values, the same at each run. Samples must not be empty.
    pub fn new(payload: Payload) -> Source {
        let size = if let Payload::Letters(size) = payload {
            size
        } else {
            0
        };
        Source {
            payload,
            random: Random::new(0),
            buffer: vec![0; size],
        }
    }

    /// The value of record `index`.
    pub fn next(&mut self, index: u64) -> &[u8] {
        match &self.payload {
            Payload::Letters(_) => self.random.letters(&mut self.buffer),
            Payload::Samples(samples) => return &samples[self.random.below(samples.len())],
            Payload::Counter => {
                self.buffer.clear();
                self.buffer.extend_from_slice(index.to_string().as_bytes());
            }
        }
        &self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_have_the_size_and_differ() {
        let mut source = Source::new(Payload::Letters(21));
        let first = source.next(0).to_vec();
        assert_eq!(first.len(), 21);
        assert!(first.iter().all(u8::is_ascii_uppercase));
        assert_ne!(first, source.next(1));
    }

    #[test]
    fn every_sample_is_used_and_a_counter_counts() {
        let mut source = Source::new(Payload::Samples(vec![b"a".to_vec(), b"b".to_vec()]));
        let seen: std::collections::BTreeSet<Vec<u8>> =
            (0..64).map(|i| source.next(i).to_vec()).collect();
        assert_eq!(seen.len(), 2);
        let mut source = Source::new(Payload::Counter);
        assert_eq!(source.next(9), b"9");
        assert_eq!(source.next(10), b"10");
    }
}
