//! Asking the processor for memory that is read soon. For whoever goes through many things that lie
//! scattered: on any thread; knows nothing of what they are.

/// The size of what a processor fetches at a time, in bytes.
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;

/// Has the memory of `value` itself, not what it refers to, brought near. Reads nothing, so it costs
/// nothing but the asking; where a processor has no such instruction it does nothing.
#[inline(always)]
pub fn prefetch<T: ?Sized>(value: &T) {
    prefetch_bytes((&raw const *value).cast(), size_of_val(value));
}

/// As [`prefetch`], of the memory behind `value` where the next of its kind goes.
#[inline(always)]
pub fn prefetch_behind<T>(value: &T) {
    prefetch_bytes((&raw const *value).wrapping_add(1).cast(), size_of::<T>());
}

#[inline(always)]
fn prefetch_bytes(start: *const i8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let mut at = 0;
        while at < bytes {
            // SAFETY: a prefetch neither reads nor faults, wherever it points to.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at)) };
            at += LINE_BYTES;
        }
        if let Some(last) = bytes.checked_sub(1) {
            // What begins inside of a line may end in one more.
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(last)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, bytes);
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
        prefetch_behind(&bytes[999]);
        assert!(bytes.iter().all(|byte| *byte == 7));
    }
}
