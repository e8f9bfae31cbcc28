//! CRC-32C, the checksum of record batches, and the test of it that runs at start. Pure functions for
//! any thread; knows no batch.

/// CRC-32C (Castagnoli) of `bytes`.
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The accelerated checksum disagrees with the definition on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrcSelfTestError {
    /// Length of the input on which they disagree, in bytes.
    pub input_bytes: usize,
    /// By the definition, one bit at a time.
    pub expected: u32,
    /// What the accelerated code says.
    pub computed: u32,
}

/// Compares the accelerated checksum, which picks its instructions by the processor, with the
/// definition, over lengths that reach each of its loops. Takes about a millisecond; run once at start,
/// because a wrong checksum would refuse good batches or serve bad ones.
pub fn self_test() -> Result<(), CrcSelfTestError> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let input: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(5000)
    .collect();
    for start in [0usize, 1, 7] {
        for length in [
            0, 1, 3, 8, 15, 16, 31, 63, 64, 100, 127, 128, 255, 256, 511, 1024, 4093,
        ] {
            let part = &input[start..start + length];
            let (expected, computed) = (crc32c_by_bits(part), crc32c(part));
            if expected != computed {
                return Err(CrcSelfTestError {
                    input_bytes: length,
                    expected,
                    computed,
                });
            }
        }
    }
    Ok(())
}

/// The definition: reflected polynomial 0x82f63b78, all ones in, inverted out.
fn crc32c_by_bits(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value_of_the_catalogue() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c_by_bits(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn self_test_passes_here() {
        assert_eq!(self_test(), Ok(()));
    }
}
