//! Runs one step after another, shows what they print, and adds up how many checks passed and failed.
//! Knows how `cargo test` and the Python suites state their results, and nothing about what they check.

use std::borrow::BorrowMut;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What has been run so far.
#[derive(Default)]
pub struct Report {
    passed: u64,
    failed: u64,
    steps: Vec<Step>,
    skipped: Vec<String>,
}

struct Step {
    name: String,
    passed: u64,
    failed: u64,
    took: Duration,
}

impl Report {
    /// Runs a command as a step. Its results are counted from what it prints; a command that prints none counts as one check.
    pub fn run(&mut self, name: &str, mut command: impl BorrowMut<Command>) -> bool {
        let command = command.borrow_mut();
        banner(name);
        println!("$ {}", shown(command));
        let started = now();
        let (mut passed, mut failed) = (0, 0);
        let status = command
            .stdout(Stdio::piped())
            .spawn()
            .and_then(|mut child| {
                let stdout = child.stdout.take().expect("stdout is piped");
                let mut out = std::io::stdout().lock();
                for line in BufReader::new(stdout).split(b'\n') {
                    let line = line?;
                    out.write_all(&line)?;
                    out.write_all(b"\n")?;
                    if let Some((more_passed, more_failed)) =
                        counted(&String::from_utf8_lossy(&line))
                    {
                        passed += more_passed;
                        failed += more_failed;
                    }
                }
                child.wait()
            });
        match status {
            Ok(status) if status.success() && passed + failed == 0 => passed = 1,
            Ok(status) if status.success() => {}
            Ok(status) => {
                println!("{name}: ended with {status}");
                failed = failed.max(1);
            }
            Err(error) => {
                println!("{name}: cannot run: {error}");
                failed += 1;
            }
        }
        self.add(name, passed, failed, started.elapsed());
        failed == 0
    }

    /// Runs work of our own as a step of one check.
    pub fn work(&mut self, name: &str, work: impl FnOnce() -> Result<(), String>) -> bool {
        banner(name);
        let started = now();
        let outcome = work();
        if let Err(why) = &outcome {
            println!("{why}");
        }
        self.add(
            name,
            u64::from(outcome.is_ok()),
            u64::from(outcome.is_err()),
            started.elapsed(),
        );
        outcome.is_ok()
    }

    /// Notes what was left out; it is said again at the end.
    pub fn skip(&mut self, what: &str) {
        banner(&format!("SKIPPED: {what}"));
        self.skipped.push(what.to_string());
    }

    fn add(&mut self, name: &str, passed: u64, failed: u64, took: Duration) {
        let word = if failed == 0 { "ok" } else { "FAILED" };
        println!(
            "-- {name}: {word}, {passed} passed, {failed} failed, {:.1} s",
            took.as_secs_f64()
        );
        self.passed += passed;
        self.failed += failed;
        self.steps.push(Step {
            name: name.to_string(),
            passed,
            failed,
            took,
        });
    }

    /// Prints the summary; true if nothing failed and something was run.
    pub fn finish(self) -> bool {
        banner("summary");
        for step in &self.steps {
            let word = if step.failed == 0 { "ok    " } else { "FAILED" };
            println!(
                "{word} {:<28} {:>6} passed {:>4} failed {:>8.1} s",
                step.name,
                step.passed,
                step.failed,
                step.took.as_secs_f64()
            );
        }
        for what in &self.skipped {
            println!("SKIPPED, NOT CHECKED: {what}");
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        self.failed == 0 && self.passed > 0
    }
}

fn banner(name: &str) {
    println!(
        "\n==== {name} {}",
        "=".repeat(76usize.saturating_sub(name.len()))
    );
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The results stated by a line: `test result: ok. 3 passed; 0 failed; ...` or `3 passed, 0 failed`.
fn counted(line: &str) -> Option<(u64, u64)> {
    let line = line.trim();
    let (line, separator) = match line.strip_prefix("test result: ") {
        Some(rest) => (rest.split_once(". ")?.1, ';'),
        None => (line, ','),
    };
    let mut parts = line.split(separator);
    let passed = parts.next()?.trim().strip_suffix(" passed")?.parse().ok()?;
    let failed = parts.next()?.trim().strip_suffix(" failed")?.parse().ok()?;
    if separator == ',' && parts.next().is_some() {
        return None;
    }
    Some((passed, failed))
}

/// A step's start; the clock is only shown to people.
#[allow(clippy::disallowed_methods)] // A tool outside the broker: no state machine is timed here.
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn results_are_counted_from_both_forms_and_from_nothing_else() {
        assert_eq!(
            counted(
                "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s"
            ),
            Some((12, 0))
        );
        assert_eq!(
            counted("test result: FAILED. 11 passed; 1 failed; 0 ignored"),
            Some((11, 1))
        );
        assert_eq!(counted("7 passed, 2 failed"), Some((7, 2)));
        assert_eq!(counted("-- fmt: ok, 7 passed, 2 failed, 1.0 s"), None);
        assert_eq!(counted("running 7 tests"), None);
        assert_eq!(counted(""), None);
    }
}
