//! Runs one step after another, shows what they print, and adds up how many checks passed and failed.
//! Knows how `cargo test` and the Python suites state their results, and nothing about what they check.

use std::borrow::BorrowMut;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Lines of a failed step's output that the summary says again: who keeps only the end of an output finds
/// there what failed.
const TAIL_LINES: usize = 15;

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
    /// The last lines that it printed.
    tail: VecDeque<String>,
}

/// What a step has printed so far.
#[derive(Default)]
struct Printed {
    passed: u64,
    failed: u64,
    tail: VecDeque<String>,
}

impl Printed {
    /// Takes a line: its results count, and it is one of the last.
    fn line(&mut self, line: &str) {
        if let Some((passed, failed)) = counted(line) {
            self.passed += passed;
            self.failed += failed;
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.trim_end().to_string());
    }

    /// Shows what comes at once, and takes it line by line.
    fn follow(&mut self, from: impl Read, out: &mut impl Write) -> std::io::Result<()> {
        for line in BufReader::new(from).split(b'\n') {
            let line = line?;
            out.write_all(&line)?;
            out.write_all(b"\n")?;
            self.line(&String::from_utf8_lossy(&line));
        }
        Ok(())
    }
}

impl Report {
    /// Runs a command as a step; what it says on stderr comes with the rest, in its order. Its results are
    /// counted from what it prints; a command that prints none counts as one check.
    pub fn run(&mut self, name: &str, mut command: impl BorrowMut<Command>) -> bool {
        let command = command.borrow_mut();
        banner(name);
        println!("$ {}", shown(command));
        let started = now();
        let mut printed = Printed::default();
        let status = run_merged(command, &mut printed, &mut std::io::stdout().lock());
        let (mut passed, mut failed) = (printed.passed, printed.failed);
        let mut say = |what: String| {
            println!("{what}");
            printed.line(&what);
        };
        match status {
            Ok(status) if status.success() && passed + failed == 0 => passed = 1,
            Ok(status) if status.success() => {}
            Ok(status) => {
                say(format!("{name}: ended with {status}"));
                failed = failed.max(1);
            }
            Err(error) => {
                say(format!("{name}: cannot run: {error}"));
                failed += 1;
            }
        }
        self.add(name, passed, failed, started.elapsed(), printed.tail);
        failed == 0
    }

    /// Runs work of our own as a step of one check.
    pub fn work(&mut self, name: &str, work: impl FnOnce() -> Result<(), String>) -> bool {
        banner(name);
        let started = now();
        let outcome = work();
        let mut printed = Printed::default();
        if let Err(why) = &outcome {
            println!("{why}");
            why.lines().for_each(|line| printed.line(line));
        }
        self.add(
            name,
            u64::from(outcome.is_ok()),
            u64::from(outcome.is_err()),
            started.elapsed(),
            printed.tail,
        );
        outcome.is_ok()
    }

    /// Notes what was left out; it is said again at the end.
    pub fn skip(&mut self, what: &str) {
        banner(&format!("SKIPPED: {what}"));
        self.skipped.push(what.to_string());
    }

    fn add(
        &mut self,
        name: &str,
        passed: u64,
        failed: u64,
        took: Duration,
        tail: VecDeque<String>,
    ) {
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
            tail,
        });
    }

    /// Prints the end of what failed, and the summary; true if nothing failed and something was run.
    pub fn finish(self) -> bool {
        for step in self.steps.iter().filter(|step| step.failed > 0) {
            banner(&format!("the end of: {}", step.name));
            for line in &step.tail {
                println!("{line}");
            }
        }
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

/// Runs a command to its end, with one pipe for all that it prints.
fn run_merged(
    command: &mut Command,
    printed: &mut Printed,
    out: &mut impl Write,
) -> std::io::Result<std::process::ExitStatus> {
    if std::io::stderr().is_terminal() {
        // It does not see the terminal behind the pipe.
        command.env("CARGO_TERM_COLOR", "always");
    }
    let (from, into) = std::io::pipe()?;
    let child = command.stdout(into.try_clone()?).stderr(into).spawn();
    // The command holds the pipe's other end until it is told to go on without.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child?;
    printed.follow(from, out)?;
    child.wait()
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
    use super::{Printed, TAIL_LINES, counted, run_merged};
    use std::process::Command;

    #[test]
    fn the_end_of_what_a_step_prints_is_kept_from_both_its_outputs_in_order() {
        let mut printed = Printed::default();
        let script = "for i in $(seq 40); do echo out $i; echo err $i >&2; done; echo 3 passed, 1 failed; exit 1";
        let status = run_merged(
            Command::new("sh").args(["-c", script]),
            &mut printed,
            &mut std::io::sink(),
        );
        assert!(!status.expect("a shell").success());
        let tail: Vec<String> = printed.tail.into_iter().collect();
        assert_eq!(tail.len(), TAIL_LINES);
        assert_eq!(
            tail[TAIL_LINES - 4..],
            ["err 39", "out 40", "err 40", "3 passed, 1 failed"]
        );
        assert_eq!((printed.passed, printed.failed), (3, 1));
    }

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
