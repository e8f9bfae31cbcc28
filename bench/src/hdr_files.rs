//! HdrHistogram's own files: interval logs (`.hlog`) and percentile distributions (`.hgrm`), which its plotters and its libraries in other languages read. The calling thread, after a run; knows results, and no client.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;

use crate::Failure;
use crate::results::{Run, Since, decode, encode};

/// Values of the files are milliseconds; histograms hold nanoseconds.
const NS_PER_MS: f64 = 1e6;
/// Lines of a distribution between one power of two and the next, as HdrHistogram's tools choose.
const TICKS_PER_HALF: u32 = 5;

/// The histogram of one interval, packed.
#[derive(Debug, Clone)]
pub struct Interval {
    kind: &'static str,
    since: Since,
    start: Duration,
    length: Duration,
    packed: String,
}

impl Interval {
    /// Packs a histogram of nanoseconds. `start_ns` counts from the start of the measured part.
    pub fn new(
        kind: &'static str,
        since: Since,
        start_ns: u64,
        length_s: f64,
        histogram: &Histogram<u64>,
    ) -> Interval {
        Interval {
            kind,
            since,
            start: Duration::from_nanos(start_ns),
            length: Duration::from_secs_f64(length_s),
            packed: encode(histogram),
        }
    }
}

fn name(stem: Option<&str>, slug: &str, ending: &str) -> String {
    match stem {
        Some(stem) => format!("{stem}-{slug}.{ending}"),
        None => format!("{slug}.{ending}"),
    }
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes)
        .map_err(|error| Failure(format!("{} cannot be written: {error}", path.display())))
}

/// Writes an interval log for each kind of latency into a directory.
///
/// # Errors
/// When a file cannot be written.
pub fn write_logs(
    directory: &Path,
    stem: Option<&str>,
    run: &Run,
    intervals: &[Interval],
) -> Result<(), Failure> {
    for latency in &run.latencies {
        let own: Vec<&Interval> = intervals
            .iter()
            .filter(|interval| interval.kind == latency.kind && interval.since == latency.since)
            .collect();
        if own.is_empty() {
            continue;
        }
        let bytes = log(run, &latency.slug(), &own)?;
        put(&directory.join(name(stem, &latency.slug(), "hlog")), &bytes)?;
    }
    Ok(())
}

fn log(run: &Run, slug: &str, intervals: &[&Interval]) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let start = UNIX_EPOCH + Duration::from_millis(run.started_ms.max(0) as u64);
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment(&format!("[{slug} of {}]", run.name.replace('\n', " ")))
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(NS_PER_MS);
    let failed = |why: String| Failure(format!("the log of {slug} cannot be written: {why}"));
    let mut writer = builder
        .begin_log_with(&mut bytes, &mut serializer)
        .map_err(|error| failed(error.to_string()))?;
    for interval in intervals {
        let histogram = decode(&interval.packed).map_err(failed)?;
        writer
            .write_histogram(&histogram, interval.start, interval.length, None)
            .map_err(|error| failed(error.to_string()))?;
    }
    drop(writer);
    Ok(bytes)
}

/// Writes a percentile distribution for each kind of latency into a directory.
///
/// # Errors
/// When a file cannot be written, or a result holds no histogram.
pub fn write_distributions(directory: &Path, stem: Option<&str>, run: &Run) -> Result<(), Failure> {
    for latency in &run.latencies {
        let text = distribution(&latency.histogram()?, NS_PER_MS / latency.unit_ns as f64);
        put(
            &directory.join(name(stem, &latency.slug(), "hgrm")),
            text.as_bytes(),
        )?;
    }
    Ok(())
}

/// The text of a percentile distribution in HdrHistogram's form; values are divided by `scale`.
pub fn distribution(histogram: &Histogram<u64>, scale: f64) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        total += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / scale;
        let quantile = step.quantile_iterated_to();
        if quantile < 1.0 {
            let _ = writeln!(
                text,
                "{value:12.3} {quantile:.12} {total:10} {:14.2}",
                1.0 / (1.0 - quantile)
            );
        } else {
            let _ = writeln!(text, "{value:12.3} {quantile:.12} {total:10}");
        }
    }
    let _ = writeln!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]",
        histogram.mean() / scale,
        histogram.stdev() / scale
    );
    let _ = writeln!(
        text,
        "#[Max     = {:12.3}, Total count    = {:12}]",
        histogram.max() as f64 / scale,
        histogram.len()
    );
    let _ = writeln!(
        text,
        "#[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.buckets(),
        sub_buckets(histogram.sigfig())
    );
    text
}

/// How finely HdrHistogram parts each power of two: the next power of two above twice ten to the digits.
fn sub_buckets(digits: u8) -> u64 {
    (2 * 10_u64.pow(u32::from(digits))).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder;
    use crate::results::Latency;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn run() -> (Run, Vec<Interval>) {
        let mut total = recorder::histogram();
        let mut intervals = Vec::new();
        for second in 0..3_u64 {
            let mut histogram = recorder::histogram();
            for ms in 1..=100 {
                recorder::record(&mut histogram, (second + 1) * ms * 1_000_000);
            }
            total.add(&histogram).unwrap();
            intervals.push(Interval::new(
                "publish",
                Since::Intended,
                second * 1_000_000_000,
                1.0,
                &histogram,
            ));
        }
        let run = Run {
            name: "test".to_owned(),
            started_ms: 1_700_000_000_000,
            latencies: vec![Latency::new("publish", Since::Intended, 1, &total)],
            ..Run::default()
        };
        (run, intervals)
    }

    #[test]
    fn the_intervals_of_a_log_add_up_to_the_whole() {
        let (run, intervals) = run();
        let bytes = log(
            &run,
            "publish-intended",
            &intervals.iter().collect::<Vec<_>>(),
        )
        .unwrap();
        let mut sum = recorder::histogram();
        let mut starts = Vec::new();
        for entry in IntervalLogIterator::new(&bytes) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                starts.push(interval.start_timestamp().as_secs());
                let packed = {
                    use base64::Engine;
                    base64::engine::general_purpose::STANDARD
                        .decode(interval.encoded_histogram())
                        .unwrap()
                };
                let histogram: Histogram<u64> = Deserializer::new()
                    .deserialize(&mut packed.as_slice())
                    .unwrap();
                assert!((interval.max() - histogram.max() as f64 / 1e6).abs() < 0.001);
                sum.add(&histogram).unwrap();
            }
        }
        assert_eq!(starts, [0, 1, 2]);
        assert_eq!(sum, run.latencies[0].histogram().unwrap());
    }

    #[test]
    fn a_distribution_has_hdrhistograms_form() {
        let (run, _) = run();
        let text = distribution(&run.latencies[0].histogram().unwrap(), NS_PER_MS);
        let mut lines = text.lines();
        assert_eq!(
            lines.next(),
            Some("       Value     Percentile TotalCount 1/(1-Percentile)")
        );
        assert_eq!(lines.next(), Some(""));
        let rows: Vec<Vec<f64>> = lines
            .clone()
            .take_while(|line| !line.starts_with('#'))
            .map(|line| {
                line.split_whitespace()
                    .map(|word| word.parse().unwrap())
                    .collect()
            })
            .collect();
        // Percentiles and counts rise; 300 values end at the largest, 300 ms, within three digits.
        assert!(
            rows.windows(2).all(|two| two[0][0] <= two[1][0]
                && two[0][1] <= two[1][1]
                && two[0][2] <= two[1][2])
        );
        let last = rows.last().unwrap();
        assert_eq!((last.len(), last[1], last[2]), (3, 1.0, 300.0));
        assert!((last[0] - 300.0).abs() <= 0.3);
        // 1/(1-p) belongs to its percentile.
        for row in &rows[..rows.len() - 1] {
            assert!(
                (row[3] - 1.0 / (1.0 - row[1])).abs() <= row[3] * 0.01 + 0.01,
                "{row:?}"
            );
        }
        assert!(text.contains("Total count    =          300]"), "{text}");
        assert!(
            text.trim_end().ends_with("SubBuckets     =         2048]"),
            "{text}"
        );
    }
}
