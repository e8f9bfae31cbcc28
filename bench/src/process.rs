//! Processes and cores of this machine, as /proc tells of them: pinning, CPU time, memory, context switches. Any thread; knows no broker.

use std::fs;

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::Failure;

/// Pins the calling thread to one core.
///
/// # Errors
/// If there is no such core, or it is not allowed.
pub fn pin_to(core: usize) -> Result<(), Failure> {
    let refused = |why: &str| Failure(format!("cannot run on core {core}: {why}"));
    if core >= CpuSet::MAX_CPU {
        return Err(refused("there is no such core"));
    }
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).map_err(|error| refused(&error.to_string()))
}

/// CPU time of the calling thread, in seconds.
pub fn thread_cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// CPU time of all its threads in user and kernel mode, in seconds.
    pub cpu_seconds: f64,
    /// The part of it in the kernel, in seconds.
    pub system_seconds: f64,
    /// The most memory it ever had in RAM (VmHWM), in bytes.
    pub resident_bytes_max: u64,
    /// How often its threads went to sleep by themselves: each is a wake-up later.
    pub voluntary_switches: u64,
    /// How often they were made to wait for a core.
    pub involuntary_switches: u64,
}

impl Usage {
    /// Of the process `pid`.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn of(pid: u32) -> Result<Usage, Failure> {
        let gone =
            |error: std::io::Error| Failure(format!("process {pid} cannot be watched: {error}"));
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(gone)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(gone)?;
        let (user, system) = cpu_ticks(&stat)
            .ok_or_else(|| Failure(format!("/proc/{pid}/stat is not what it should be")))?;
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        let mut usage = Usage {
            cpu_seconds: (user + system) as f64 / per_second,
            system_seconds: system as f64 / per_second,
            resident_bytes_max: field(&status, "VmHWM:").unwrap_or(0) * 1024,
            voluntary_switches: 0,
            involuntary_switches: 0,
        };
        for thread in fs::read_dir(format!("/proc/{pid}/task")).map_err(gone)? {
            // A thread may end while one looks.
            let Ok(status) = thread.and_then(|t| fs::read_to_string(t.path().join("status")))
            else {
                continue;
            };
            usage.voluntary_switches += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
            usage.involuntary_switches +=
                field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
        }
        Ok(usage)
    }
}

/// utime and stime of /proc/PID/stat; the program's name, in brackets before them, may hold anything.
fn cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The number behind a name at the start of a line.
fn field(status: &str, name: &str) -> Option<u64> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        let stat = "4242 (a) b (c)) S 1 4242 4242 0 -1 4194560 9 0 0 0 150 50 7 7 20 0 3 0 100";
        assert_eq!(cpu_ticks(stat), Some((150, 50)));
        assert_eq!(cpu_ticks("4242 (short) S 1"), None);
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(field(status, "VmHWM:"), Some(2048));
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(7));
        assert_eq!(field(status, "nonvoluntary_ctxt_switches:"), Some(3));
        assert_eq!(field(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_has_used_memory_and_a_missing_one_is_told() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident_bytes_max > 100_000);
        assert!(Usage::of(u32::MAX).is_err());
    }
}
