//! Durable direct writes into blocks that were written before, as a journal makes them: by size and by how many are under way. One thread and one ring; knows files, and no log.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ring::OpToken;
use ring::buf::{AlignedBuf, Shared};
use ring::file::{File, FileOutcome, OpenOptions};
use ring::ring::{Completion, Ring, RingConfig};

use super::{Measure, Part};
use crate::recorder::{self, record};
use crate::{Failure, clock};

/// As large as a journal's file.
const FILE_BYTES: u64 = 64 << 20;
const KIB: usize = 1024;
/// (bytes, writes under way)
const DURABLE: [(usize, usize); 11] = [
    (4 * KIB, 1),
    (4 * KIB, 2),
    (4 * KIB, 4),
    (4 * KIB, 8),
    (4 * KIB, 16),
    (16 * KIB, 1),
    (16 * KIB, 2),
    (64 * KIB, 1),
    (256 * KIB, 1),
    (1024 * KIB, 1),
    (1024 * KIB, 2),
];
const FLUSHED: [usize; 3] = [4 * KIB, 64 * KIB, 1024 * KIB];
const PLAIN: [(usize, usize); 2] = [(4 * KIB, 1), (1024 * KIB, 2)];

/// How a write becomes durable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// By itself (RWF_DSYNC).
    Dsync,
    /// By a flush after it.
    Flush,
    /// Not at all.
    Plain,
}

/// Removes the file whatever happens.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Measures the disk under a directory.
pub fn measure(directory: &Path, each: Duration) -> Result<Part, Failure> {
    let scratch = Scratch(directory.join(format!("millrace-self-test-{}", std::process::id())));
    fill(&scratch.0).map_err(|error| {
        Failure(format!(
            "{} cannot be written: {error}",
            scratch.0.display()
        ))
    })?;
    let mut disk = Disk::open(&scratch.0)?;
    let mut measures = Vec::new();
    for (bytes, depth) in DURABLE {
        measures.push(disk.writes(How::Dsync, bytes, depth, each)?);
    }
    for bytes in FLUSHED {
        measures.push(disk.writes(How::Flush, bytes, 1, each)?);
    }
    for (bytes, depth) in PLAIN {
        measures.push(disk.writes(How::Plain, bytes, depth, each)?);
    }
    let judgement = judge(&measures);
    Ok(Part {
        title: format!("disk of {}", directory.display()),
        measures,
        judgement,
    })
}

/// Blocks that were never written cost more at their first write: this measures the later ones.
fn fill(path: &Path) -> std::io::Result<()> {
    let mut file = fs::File::create(path)?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..FILE_BYTES >> 20 {
        file.write_all(&zeros)?;
    }
    file.sync_all()
}

struct Disk {
    ring: Ring,
    file: File,
    completions: Vec<Completion>,
    /// The flush of the written block is under way.
    flushing: bool,
}

impl Disk {
    fn open(path: &Path) -> Result<Disk, Failure> {
        let mut ring = Ring::new(RingConfig {
            receive_buffer_count: 1,
            receive_buffer_bytes: 4096,
            ..RingConfig::default()
        })
        .map_err(|error| Failure(format!("no io_uring: {error}")))?;
        let options = OpenOptions {
            write: true,
            direct: true,
            ..OpenOptions::default()
        };
        let token = ring.open(path, options)?;
        let mut completions = Vec::new();
        loop {
            ring.turn(&mut completions, 64)?;
            for completion in completions.drain(..) {
                if let Completion::File {
                    token: done,
                    outcome: FileOutcome::Opened(file),
                } = completion
                    && done == token
                {
                    let file = file.map_err(|error| {
                        Failure(format!(
                            "{} does not open for direct writes: {error}",
                            path.display()
                        ))
                    })?;
                    return Ok(Disk {
                        ring,
                        file,
                        completions: Vec::new(),
                        flushing: false,
                    });
                }
            }
            ring.sleep_blocking(1000)?;
        }
    }

    /// Writes one block after the other through the file, `depth` at a time.
    fn writes(
        &mut self,
        how: How,
        bytes: usize,
        depth: usize,
        each: Duration,
    ) -> Result<Measure, Failure> {
        let block: Shared = AlignedBuf::zeroed(bytes).freeze();
        let mut latencies_ns = recorder::histogram();
        let mut under_way: HashMap<OpToken, Instant> = HashMap::new();
        let mut position = 0;
        let begin = clock::now();
        loop {
            let now = clock::now();
            let goes_on = now - begin < each || latencies_ns.len() < 3;
            while goes_on && under_way.len() < depth {
                let token =
                    self.ring
                        .write_at(&self.file, position, block.clone(), how == How::Dsync);
                under_way.insert(token, clock::now());
                position = (position + bytes as u64) % (FILE_BYTES - bytes as u64 + 1);
                position -= position % bytes as u64;
            }
            if under_way.is_empty() {
                break;
            }
            if self.ring.turn(&mut self.completions, 64)? == 0 {
                self.ring.sleep_blocking(1000)?;
            }
            for completion in std::mem::take(&mut self.completions) {
                let Completion::File {
                    token,
                    outcome: FileOutcome::Done(done),
                } = completion
                else {
                    continue;
                };
                done.map_err(|error| Failure(format!("a write failed: {error}")))?;
                let Some(since) = under_way.remove(&token) else {
                    continue;
                };
                if how == How::Flush && !self.is_flush(&mut under_way, since) {
                    continue;
                }
                finish(&mut latencies_ns, since);
            }
        }
        let elapsed = begin.elapsed();
        let size = if bytes >= 1 << 20 {
            format!("{} MiB", bytes >> 20)
        } else {
            format!("{} KiB", bytes >> 10)
        };
        let way = match how {
            How::Dsync => "durable write (RWF_DSYNC)",
            How::Flush => "write, then fdatasync",
            How::Plain => "write, not durable",
        };
        Ok(Measure::timed(
            format!("{way} {size}, {depth} under way"),
            &latencies_ns,
            elapsed,
            bytes,
        ))
    }

    /// After the write of a pair submits the flush, which inherits its beginning; after the flush says so.
    fn is_flush(&mut self, under_way: &mut HashMap<OpToken, Instant>, since: Instant) -> bool {
        if self.flushing {
            self.flushing = false;
            return true;
        }
        self.flushing = true;
        let token = self.ring.sync_data(&self.file);
        under_way.insert(token, since);
        false
    }
}

fn finish(latencies_ns: &mut Histogram<u64>, since: Instant) {
    record(latencies_ns, since.elapsed().as_nanos() as u64);
}

/// What the figures mean for a broker.
fn judge(measures: &[Measure]) -> String {
    let (one, two) = (&measures[0], &measures[1]);
    let (p50, p99) = (one.p50_us.unwrap_or(0.0), one.p99_us.unwrap_or(0.0));
    let kind = if p50 < 40.0 {
        "So fast is a device with its own safe memory, or one that does not flush at all: make sure which"
    } else if p50 < 1000.0 {
        "That is usual for flash"
    } else {
        "That is slow: every acknowledgement that waits for the disk waits so long"
    };
    let gain = two.per_s / one.per_s.max(1e-9);
    let spread = if p99 > 5.0 * p50 {
        format!(
            "; its p99 is {:.0} times that, and so will a broker's be",
            p99 / p50.max(1e-9)
        )
    } else {
        String::new()
    };
    format!(
        "A durable write of 4 KiB takes {p50:.0} us{spread}: no broker on this disk can acknowledge durably in less. {kind}. \
         Two under way bring {gain:.1} times the rate of one."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_judgement_follows_the_figures() {
        let measure = |p50: f64, p99: f64, per_s: f64| Measure {
            name: String::new(),
            per_s,
            mib_per_s: None,
            p50_us: Some(p50),
            p99_us: Some(p99),
            p99_9_us: None,
        };
        let fast = judge(&[measure(20.0, 30.0, 100.0), measure(20.0, 30.0, 200.0)]);
        assert!(
            fast.contains("make sure which") && fast.contains("2.0 times"),
            "{fast}"
        );
        let slow = judge(&[measure(5000.0, 50_000.0, 100.0), measure(1.0, 1.0, 100.0)]);
        assert!(
            slow.contains("That is slow") && slow.contains("p99 is 10 times"),
            "{slow}"
        );
    }
}
