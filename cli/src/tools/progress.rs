//! Progress of long work, on standard error and only when that is a terminal. Main thread; it never touches standard output.

use std::time::{Duration, Instant};

use bench::clock;
use indicatif::{ProgressBar, ProgressStyle};

/// Work shorter than this shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// A bar that appears once the work has taken a while, and vanishes with it.
pub struct Progress {
    began: Instant,
    total: u64,
    done: u64,
    what: &'static str,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Over `total` things of this name.
    pub fn new(total: usize, what: &'static str) -> Progress {
        Progress {
            began: clock::now(),
            total: total as u64,
            done: 0,
            what,
            bar: None,
        }
    }

    /// One more is done.
    pub fn step(&mut self) {
        self.done += 1;
        if self.bar.is_none() && self.began.elapsed() >= PATIENCE {
            let bar = ProgressBar::new(self.total);
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
                bar.set_style(style);
            }
            bar.set_message(self.what);
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_work_shows_nothing() {
        let mut progress = Progress::new(2, "groups");
        progress.step();
        assert!(progress.bar.is_none());
        // Work that began long ago shows its bar with the next step.
        progress.began -= PATIENCE;
        progress.step();
        assert_eq!(progress.bar.as_ref().map(ProgressBar::position), Some(2));
    }
}
