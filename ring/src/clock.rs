//! The two clocks of the kernel, read by whoever drives a state machine. Lives on any thread; knows no
//! deadline. The monotonic one is the clock that the ring's timer counts in.

fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for the write, and both clocks exist on every Linux.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "the kernel has this clock");
    time
}

/// Microseconds of `CLOCK_MONOTONIC`; never goes back.
pub fn monotonic_us() -> u64 {
    let time = read(libc::CLOCK_MONOTONIC);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// Milliseconds since 1970 (UTC); may jump when the machine's clock is set.
pub fn wall_ms() -> i64 {
    let time = read(libc::CLOCK_REALTIME);
    time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_run_forward() {
        let first = monotonic_us();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(monotonic_us() >= first + 2_000);
        // 2020-01-01: a machine with a clock before that is not set.
        assert!(wall_ms() > 1_577_836_800_000);
    }
}
