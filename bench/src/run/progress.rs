//! The line that tells how a run goes. The calling thread; knows rows of seconds, and no client.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::results::{MIB, Second};

/// Lines of a log are written this often.
const LINE_SECONDS: u64 = 10;

/// A line that renews itself on a terminal, or a line every ten seconds elsewhere.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    name: String,
    seconds: u64,
}

impl Progress {
    /// Begins; goes to standard error.
    pub fn new(name: &str) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            bar.set_style(style);
            bar
        });
        Progress {
            bar,
            name: name.to_owned(),
            seconds: 0,
        }
    }

    /// What is done now.
    pub fn say(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {what}", self.name));
            bar.tick();
        }
    }

    /// A second is over.
    pub fn show(&mut self, phase: &str, second: &Second, consumers: bool) {
        self.seconds += 1;
        let line = format!("{phase} {} s: {}", self.seconds, line(second, consumers));
        match &self.bar {
            Some(bar) => {
                bar.set_message(line);
                bar.tick();
            }
            None if self.seconds % LINE_SECONDS == 1 => eprintln!("{}: {line}", self.name),
            None => {}
        }
    }

    /// Takes the line away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What a second says.
fn line(second: &Second, consumers: bool) -> String {
    let per_s = |count: u64| count as f64 / second.length_s.max(1e-9);
    let mut text = format!(
        "published {:.0}/s {:.1} MiB/s",
        per_s(second.acknowledged),
        per_s(second.acknowledged_bytes) / MIB,
    );
    if let Some(us) = &second.publish_us {
        text.push_str(&format!(
            " p50 {} p99 {} max {}",
            milliseconds(us.p50),
            milliseconds(us.p99),
            milliseconds(us.max)
        ));
    }
    if consumers {
        text.push_str(&format!(
            " | consumed {:.0}/s {:.1} MiB/s",
            per_s(second.received),
            per_s(second.received_bytes) / MIB,
        ));
        if let Some(us) = &second.end_to_end_us {
            text.push_str(&format!(
                " p50 {} p99 {}",
                milliseconds(us.p50),
                milliseconds(us.p99)
            ));
        }
        text.push_str(&format!(" backlog {}", second.backlog));
    }
    if second.failed > 0 {
        text.push_str(&format!(" | FAILED {}", second.failed));
    }
    text
}

/// Microseconds as milliseconds with three digits that count.
pub fn milliseconds(us: f64) -> String {
    let ms = us / 1000.0;
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else if ms < 100.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Percentiles;

    #[test]
    fn a_second_is_one_line() {
        let second = Second {
            length_s: 2.0,
            acknowledged: 4000,
            acknowledged_bytes: 4_194_304,
            received: 2000,
            received_bytes: 2_097_152,
            backlog: 7,
            publish_us: Some(Percentiles {
                p50: 512.0,
                p99: 12_345.0,
                max: 123_456.0,
                ..Percentiles::default()
            }),
            ..Second::default()
        };
        assert_eq!(
            line(&second, true),
            "published 2000/s 2.0 MiB/s p50 0.51 ms p99 12.3 ms max 123 ms | consumed 1000/s 1.0 MiB/s backlog 7"
        );
        assert!(!line(&second, false).contains("consumed"));
    }
}
