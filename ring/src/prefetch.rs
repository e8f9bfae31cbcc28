//! Asking the processor for memory that is read soon. For whoever goes through many things that lie
//! scattered: on any thread; knows nothing of what they are.

/// The size of what a processor fetches at a time, in bytes.
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;

/// Has the memory of `value` itself, not what it refers to, brought near. Reads nothing, so it costs
/// nothing but the asking; where a processor has no such instruction it does nothing.
#[inline(always)]
pub fn prefetch<T: ?Sized>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = (&raw const *value).cast::<i8>();
        let bytes = size_of_val(value);
        for at in (0..bytes).step_by(LINE_BYTES).chain(bytes.checked_sub(1)) {
            // SAFETY: `at` lies inside of `value`; a prefetch neither reads nor faults.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(at)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_changes_whatever_is_asked_for() {
        let bytes = vec![7_u8; 1000];
        prefetch(&bytes[3..]);
        prefetch(&bytes[..0]);
        prefetch("text");
        prefetch(&());
        assert!(bytes.iter().all(|byte| *byte == 7));
    }
}
