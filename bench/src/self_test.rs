//! `millrace bench self-test`: what this machine can do before any broker is blamed. The calling thread and helpers; knows disks, sockets, memory and clocks, and no broker.

mod disk;
mod machine;

use std::path::PathBuf;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::results::{Facts, MIB};
use crate::{Failure, environment};

/// The options.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The directory on the disk that is measured: where a broker would have its data.
    #[arg(long, value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Seconds for each single measurement.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5)]
    seconds: f64,
    /// Writes the results as JSON to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Measure {
    /// What was done.
    pub name: String,
    /// How often a second.
    pub per_s: f64,
    /// MiB a second, where bytes are moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mib_per_s: Option<f64>,
    /// Microseconds at the median, where single operations are timed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<f64>,
    /// At 99 of 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<f64>,
    /// At 999 of 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_9_us: Option<f64>,
}

impl Measure {
    /// Of operations that were timed in nanoseconds, each of so many bytes.
    fn timed(
        name: String,
        latencies_ns: &Histogram<u64>,
        elapsed: Duration,
        bytes: usize,
    ) -> Measure {
        let per_s = latencies_ns.len() as f64 / elapsed.as_secs_f64().max(1e-9);
        let us = |quantile: f64| {
            (!latencies_ns.is_empty())
                .then(|| latencies_ns.value_at_quantile(quantile) as f64 / 1000.0)
        };
        Measure {
            name,
            per_s,
            mib_per_s: (bytes > 0).then(|| per_s * bytes as f64 / MIB),
            p50_us: us(0.5),
            p99_us: us(0.99),
            p99_9_us: us(0.999),
        }
    }

    /// Of bytes moved.
    fn moved(name: String, bytes: u64, times: u64, elapsed: Duration) -> Measure {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        Measure {
            name,
            per_s: times as f64 / seconds,
            mib_per_s: Some(bytes as f64 / MIB / seconds),
            p50_us: None,
            p99_us: None,
            p99_9_us: None,
        }
    }
}

/// Measurements of one thing, and what to think of them.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    /// What was measured.
    pub title: String,
    /// How it went.
    pub measures: Vec<Measure>,
    /// What that means, in a sentence or two.
    pub judgement: String,
}

#[derive(Serialize)]
struct Outcome<'a> {
    machine: &'a Facts,
    parts: &'a [Part],
}

/// Measures the machine and prints what it found.
///
/// # Errors
/// When the directory cannot be written, or a socket cannot be opened.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    if !(0.01..=600.0).contains(&arguments.seconds) {
        return Err(Failure("--seconds lies between 0.01 and 600".to_owned()));
    }
    let each = Duration::from_secs_f64(arguments.seconds);
    let machine = environment::machine();
    for (name, value) in machine.iter() {
        println!("{name}: {value}");
    }
    let mut parts = Vec::new();
    for measure in [
        machine::timer as fn(Duration) -> Result<Part, Failure>,
        machine::standstill,
        machine::memory,
        machine::loopback,
    ] {
        parts.push(show(measure(each)?));
    }
    parts.push(show(disk::measure(&arguments.directory, each)?));
    if let Some(path) = &arguments.json {
        let outcome = Outcome {
            machine: &machine,
            parts: &parts,
        };
        let json = serde_json::to_string_pretty(&outcome).expect("every field has a JSON form");
        std::fs::write(path, json)
            .map_err(|error| Failure(format!("{} cannot be written: {error}", path.display())))?;
    }
    Ok(())
}

fn show(part: Part) -> Part {
    let number = |value: Option<f64>| value.map_or_else(String::new, short);
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        part.title.as_str(),
        "per second",
        "MiB/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
    ]);
    for measure in &part.measures {
        table.add_row([
            measure.name.clone(),
            short(measure.per_s),
            number(measure.mib_per_s),
            number(measure.p50_us),
            number(measure.p99_us),
            number(measure.p99_9_us),
        ]);
    }
    for column in 1..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("\n{table}\n{}", part.judgement);
    part
}

fn short(value: f64) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 1.0 {
        1
    } else {
        3
    };
    crate::report_files::grouped(value, digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_measures_something_and_judges_it() {
        let each = Duration::from_millis(10);
        let directory = tempfile::tempdir_in(".").unwrap();
        for part in [
            machine::timer(each).unwrap(),
            machine::standstill(each).unwrap(),
            machine::memory(each).unwrap(),
            machine::loopback(each).unwrap(),
            disk::measure(directory.path(), each).unwrap(),
        ] {
            assert!(part.judgement.ends_with('.'), "{}", part.judgement);
            assert!(!part.measures.is_empty());
            for measure in &part.measures {
                assert!(measure.per_s > 0.0, "{measure:?}");
            }
        }
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            0,
            "the file is removed"
        );
    }

    #[test]
    fn a_directory_that_does_not_exist_is_named() {
        let why = disk::measure(
            std::path::Path::new("/nowhere/at/all"),
            Duration::from_millis(1),
        );
        assert!(why.unwrap_err().0.contains("/nowhere/at/all"));
    }
}
