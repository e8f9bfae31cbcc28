//! Finds out, before anything is touched, what this machine lacks, and says how to mend it. Lives on
//! the thread that starts the broker; knows no config.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::buf::AlignedBuf;
use crate::clock::monotonic_us;
use crate::file::FileOutcome;
use crate::ring::{Completion, Ring, RingConfig};

/// What is missing. Displays as one sentence of cause and one of remedy.
#[derive(Debug)]
pub enum Lack {
    /// io_uring is forbidden to this process.
    Forbidden,
    /// The kernel has no io_uring, or not the features needed.
    KernelTooOld {
        /// What the kernel says it is.
        release: String,
    },
    /// Locked memory is too small.
    LockedMemory {
        /// The limit, in bytes.
        limit_bytes: u64,
        /// What is needed, in bytes.
        needed_bytes: u64,
    },
    /// No direct I/O on a directory's file system.
    DirectIo {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// A directory that cannot be written to.
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Anything else.
    Other {
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lack::Forbidden => f.write_str(
                "io_uring is forbidden to this process. Set the sysctl kernel.io_uring_disabled to \
                 0, and in a container allow io_uring_setup, io_uring_enter and io_uring_register \
                 in its seccomp profile.",
            ),
            Lack::KernelTooOld { release } => write!(
                f,
                "Linux {release} lacks io_uring features that are needed. Use Linux 6.1 or later."
            ),
            Lack::LockedMemory {
                limit_bytes,
                needed_bytes,
            } => write!(
                f,
                "The limit for locked memory is {limit_bytes} bytes; {needed_bytes} are needed. \
                 Raise it with `ulimit -l {}`, or with LimitMEMLOCK= in a systemd unit.",
                needed_bytes.div_ceil(1024)
            ),
            Lack::DirectIo { path, error } => write!(
                f,
                "The file system of {} refuses direct I/O ({error}). Put the data on ext4 or XFS.",
                path.display()
            ),
            Lack::Directory { path, error } => write!(
                f,
                "{} cannot be written to ({error}). Make it writable for this user, or choose \
                 another directory.",
                path.display()
            ),
            Lack::Other { doing, error } => write!(
                f,
                "{doing} failed: {error}. The kernel's log (dmesg) may say more."
            ),
        }
    }
}

impl std::error::Error for Lack {}

/// Tries a ring with the sizes to be used, and checks the limit for locked memory: `core_count` data
/// cores, each locking `locked_bytes_per_core`.
///
/// # Errors
/// What is missing.
pub fn probe_ring(
    config: RingConfig,
    core_count: usize,
    locked_bytes_per_core: u64,
) -> Result<(), Lack> {
    let needed_bytes = locked_bytes_per_core * core_count as u64;
    let limit_bytes = locked_memory_limit();
    if limit_bytes < needed_bytes && !may_lock_any() {
        return Err(Lack::LockedMemory {
            limit_bytes,
            needed_bytes,
        });
    }
    match Ring::new(config) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Lack::Forbidden,
            Some(libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP) => Lack::KernelTooOld {
                release: kernel_release(),
            },
            Some(libc::ENOMEM) => Lack::LockedMemory {
                limit_bytes,
                needed_bytes: needed_bytes.max(limit_bytes.saturating_mul(2)),
            },
            _ => Lack::Other {
                doing: "Setting up io_uring",
                error,
            },
        }),
    }
}

/// Writes, flushes, reads and removes one block in `directory` with direct I/O.
///
/// # Errors
/// What is missing.
pub fn probe_direct(directory: &Path) -> Result<(), Lack> {
    let path = directory.join(format!(".direct-io-probe-{}", std::process::id()));
    let result = try_direct(directory, &path);
    // Best effort: when the open failed there is nothing to remove.
    let _ = std::fs::remove_file(&path);
    result
}

fn try_direct(directory: &Path, path: &Path) -> Result<(), Lack> {
    let at = |error| Lack::Directory {
        path: directory.to_owned(),
        error,
    };
    // An ordinary file first, so that a directory that cannot be written to is not taken for one
    // without direct I/O.
    drop(std::fs::File::create(path).map_err(at)?);
    let no_direct = |error| Lack::DirectIo {
        path: directory.to_owned(),
        error,
    };
    let mut ring = Ring::new(RingConfig::default()).map_err(|error| Lack::Other {
        doing: "Setting up io_uring",
        error,
    })?;
    let options = crate::file::OpenOptions {
        write: true,
        direct: true,
        ..Default::default()
    };
    let token = ring.open(path, options).map_err(at)?;
    let FileOutcome::Opened(file) = run(&mut ring, token).map_err(no_direct)? else {
        unreachable!("an open ends as opened");
    };
    let file = file.map_err(no_direct)?;
    let token = ring.write_at(&file, 0, AlignedBuf::zeroed(4096).freeze(), true);
    if let FileOutcome::Done(result) = run(&mut ring, token).map_err(no_direct)? {
        result.map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL | libc::EOPNOTSUPP) => no_direct(error),
            _ => at(error),
        })?;
    }
    let token = ring.read_at(&file, 0, AlignedBuf::zeroed(4096));
    if let FileOutcome::Read(result, _) = run(&mut ring, token).map_err(no_direct)? {
        result.map_err(no_direct)?;
    }
    Ok(())
}

fn run(ring: &mut Ring, token: crate::OpToken) -> io::Result<FileOutcome> {
    let give_up_us = monotonic_us() + 30_000_000;
    let mut completions = Vec::new();
    while monotonic_us() < give_up_us {
        ring.turn(&mut completions, 16)?;
        for completion in completions.drain(..) {
            if let Completion::File {
                token: done,
                outcome,
            } = completion
                && done == token
            {
                return Ok(outcome);
            }
        }
        ring.sleep_blocking(100)?;
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn locked_memory_limit() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for the write.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } != 0 {
        return u64::MAX;
    }
    limit.rlim_cur
}

/// Whether the limit does not bind this process: CAP_IPC_LOCK (14), as root has it.
fn may_lock_any() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find(|line| line.starts_with("CapEff:"))?;
            u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok()
        })
        .is_some_and(|capabilities| capabilities & (1 << 14) != 0)
}

fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "(unknown)".into(), |release| release.trim().into())
}

/// Raises the limit of open descriptors to what this process may raise it to, and tells it: every
/// connection takes one, and the soft limit that a shell gives is often 1,024.
///
/// # Errors
/// When the limit cannot be read.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is writable for the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let soft = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is readable for the call.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0;
    Ok(if raised { limit.rlim_max } else { soft })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_what_tests_need() {
        probe_ring(RingConfig::default(), 1, 1).expect("io_uring works here");
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let lack = probe_direct(Path::new("/nonexistent/data")).expect_err("not there");
        let text = lack.to_string();
        assert!(
            text.contains("/nonexistent/data cannot be written to"),
            "{text}"
        );
    }

    #[test]
    fn remedies_say_what_to_type() {
        let lack = Lack::LockedMemory {
            limit_bytes: 65_536,
            needed_bytes: 2 << 20,
        };
        assert!(lack.to_string().contains("`ulimit -l 2048`"), "{lack}");
    }
}
