//! Everything that a run leaves in its directory, and `millrace bench report`, which makes it anew from results and compares several. The calling thread; knows results, and no client.

use std::path::{Path, PathBuf};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use crate::results::{Run, Since};
use crate::{Failure, charts, hdr_files, page};

/// The options.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Results: run.json of `bench run`, or what other tools wrote in the same form.
    #[arg(required = true, value_name = "RUN.json")]
    runs: Vec<PathBuf>,
    /// What the runs are called, in order; a name that is missing is taken from the result.
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// Where the report goes.
    #[arg(long, value_name = "DIR", default_value = "bench-report")]
    output: PathBuf,
}

/// Makes the report of some results.
///
/// # Errors
/// When a result cannot be read, or the report cannot be written.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut runs = Vec::new();
    for (index, path) in arguments.runs.iter().enumerate() {
        let bytes = std::fs::read(path)
            .map_err(|error| Failure(format!("{} cannot be read: {error}", path.display())))?;
        let mut run = Run::parse(&bytes)
            .map_err(|why| Failure(format!("{} is no result: {}", path.display(), why.0)))?;
        if let Some(name) = arguments.name.get(index) {
            run.name.clone_from(name);
        }
        runs.push(run);
    }
    let directory = &arguments.output;
    std::fs::create_dir_all(directory)
        .map_err(|error| Failure(format!("{} cannot be made: {error}", directory.display())))?;
    for run in &runs {
        let stem = (runs.len() > 1).then(|| slug(&run.name));
        hdr_files::write_distributions(directory, stem.as_deref(), run)?;
    }
    println!("{}", table(&runs));
    let page = write_report(directory, &runs)?;
    println!("Report: {}", page.display());
    Ok(())
}

/// A name that can stand in a file's name.
pub fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() {
        "run".to_owned()
    } else {
        slug.chars().take(60).collect()
    }
}

/// Writes `text` as a file of the directory.
fn put(directory: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
    let path = directory.join(name);
    std::fs::write(&path, bytes)
        .map_err(|error| Failure(format!("{} cannot be written: {error}", path.display())))?;
    Ok(path)
}

/// Writes a run's result and its distributions; `stem` begins the names when several runs share the directory.
///
/// # Errors
/// When a file cannot be written.
pub fn write_run(directory: &Path, stem: Option<&str>, run: &Run) -> Result<(), Failure> {
    let name = match stem {
        Some(stem) => format!("{stem}-run.json"),
        None => "run.json".to_owned(),
    };
    put(directory, &name, run.json().as_bytes())?;
    hdr_files::write_distributions(directory, stem, run)
}

/// Writes what shows one or several runs; tells where to begin reading.
///
/// # Errors
/// When a file cannot be written.
pub fn write_report(directory: &Path, runs: &[Run]) -> Result<PathBuf, Failure> {
    let text = format!("{}\n", table(runs));
    put(directory, "report.txt", text.as_bytes())?;
    let charts = charts::all(runs)?;
    for chart in &charts {
        let svg = charts::svg(chart)?;
        put(directory, &format!("{}.svg", chart.slug), svg.as_bytes())?;
        let png = charts::png(chart)?;
        put(directory, &format!("{}.png", chart.slug), &png)?;
    }
    let html = page::html(runs, &charts)?;
    put(directory, "report.html", html.as_bytes())
}

/// The table for terminals: a column for each run.
pub fn table(runs: &[Run]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    let mut header = vec![String::new()];
    header.extend(runs.iter().map(|run| run.name.clone()));
    table.set_header(header);
    for (name, values) in rows(runs) {
        let mut row = vec![name];
        row.extend(values);
        table.add_row(row);
    }
    for column in 1..=runs.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = table.to_string();
    for run in runs {
        for remark in &run.remarks {
            text.push_str("\n* ");
            if runs.len() > 1 {
                text.push_str(&format!("{}: ", run.name));
            }
            text.push_str(remark);
        }
    }
    text
}

/// The rows of the table: a name, and a value for each run.
pub fn rows(runs: &[Run]) -> Vec<(String, Vec<String>)> {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut row = |name: &str, value: &dyn Fn(&Run) -> Option<String>| {
        let values: Vec<Option<String>> = runs.iter().map(value).collect();
        if values.iter().any(Option::is_some) {
            let values = values
                .into_iter()
                .map(|value| value.unwrap_or_else(|| "-".to_owned()))
                .collect();
            rows.push((name.to_owned(), values));
        }
    };
    let positive = |value: f64, text: String| (value > 0.0).then_some(text);
    row("broker", &|run| {
        run.versions.get("broker").map(str::to_owned)
    });
    row("fsync", &|run| {
        run.durability.get("fsync").map(str::to_owned)
    });
    row("measured, s", &|run| Some(format!("{:.1}", run.elapsed_s)));
    row("requests/s", &|run| {
        run.totals.requests_per_s.map(|rate| grouped(rate, 0))
    });
    row("published records/s", &|run| {
        positive(
            run.totals.records_per_s,
            grouped(run.totals.records_per_s, 0),
        )
    });
    row("published MiB/s", &|run| {
        positive(run.totals.mib_per_s, grouped(run.totals.mib_per_s, 2))
    });
    row("consumed records/s", &|run| {
        positive(
            run.totals.received_records_per_s,
            grouped(run.totals.received_records_per_s, 0),
        )
    });
    row("consumed MiB/s", &|run| {
        positive(
            run.totals.received_mib_per_s,
            grouped(run.totals.received_mib_per_s, 2),
        )
    });
    row("failed records", &|run| {
        (run.totals.records_failed > 0).then(|| run.totals.records_failed.to_string())
    });
    let kinds = [
        ("publish", "publish", Since::Intended),
        ("publish", "publish, from actual send", Since::Sent),
        ("end_to_end", "end to end", Since::Intended),
        ("end_to_end", "end to end, from actual send", Since::Sent),
        ("send_lag", "send lag", Since::Intended),
    ];
    for (kind, title, since) in kinds {
        row(
            &format!("{title}, ms: p50 / p99 / p99.9 / p99.99 / max"),
            &|run| {
                run.latency(kind, since).map(|latency| {
                    let us = &latency.percentiles_us;
                    [us.p50, us.p99, us.p99_9, us.p99_99, us.max]
                        .map(ms)
                        .join(" / ")
                })
            },
        );
    }
    row("generator CPU, cores", &|run| {
        positive(
            run.totals.client_cpu_s,
            format!("{:.2}", run.totals.client_cpu_s / run.elapsed_s.max(1e-9)),
        )
    });
    row("broker CPU, cores", &|run| {
        run.totals
            .broker_cpu_s
            .map(|cpu_s| format!("{:.2}", cpu_s / run.elapsed_s.max(1e-9)))
    });
    row("broker CPU, s per GB", &|run| {
        let moved = (run.totals.bytes_acknowledged + run.totals.bytes_received) as f64 / 1e9;
        run.totals
            .broker_cpu_s
            .filter(|_| moved > 0.0)
            .map(|cpu_s| format!("{:.2}", cpu_s / moved))
    });
    row("broker memory peak, MiB", &|run| {
        run.totals
            .broker_memory_peak_bytes
            .map(|bytes| grouped(bytes as f64 / crate::results::MIB, 0))
    });
    for phase in runs
        .iter()
        .flat_map(|run| run.phases.iter().map(|phase| phase.name.clone()))
        .collect::<std::collections::BTreeSet<_>>()
    {
        row(&phase, &|run| {
            let found = run.phases.iter().find(|known| known.name == phase)?;
            let mut text = format!("{:.1} s", found.length_s);
            for (name, value) in found.facts.iter() {
                text.push_str(&format!(", {value} {name}"));
            }
            Some(text)
        });
    }
    rows
}

/// Microseconds as milliseconds, three digits that count.
pub fn ms(us: f64) -> String {
    let ms = us / 1000.0;
    if ms >= 100.0 {
        format!("{ms:.0}")
    } else if ms >= 10.0 {
        format!("{ms:.1}")
    } else if ms >= 1.0 {
        format!("{ms:.2}")
    } else {
        format!("{ms:.3}")
    }
}

/// A number with its thousands apart.
pub fn grouped(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$}");
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (index, c) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 && grouped != "-" {
            grouped.push(',');
        }
        grouped.push(c);
    }
    if rest.is_empty() {
        grouped
    } else {
        format!("{grouped}.{rest}")
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub use tests::made_up;
