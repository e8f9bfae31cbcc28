//! The charts of a report: what is drawn, from results. Any thread; knows results and axes, and no file. `draw` puts them into SVG and PNG.

mod draw;

pub use draw::{escaped, png, svg};

use crate::Failure;
use crate::results::{MIB, Run, Since};

/// Below this a latency is drawn as if it were this: a logarithm has no zero.
const LEAST_MS: f64 = 0.001;

/// One line of a chart.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// What the legend says.
    pub label: String,
    /// Which colour of the palette.
    pub color: usize,
    /// Dashes instead of one stroke.
    pub dashed: bool,
    /// Where it goes, in the axes' own measure.
    pub points: Vec<(f64, f64)>,
}

/// An axis: a range, and ticks with their texts. Logarithms are taken already.
#[derive(Debug, Clone, Default)]
pub struct Axis {
    /// Name and unit.
    pub label: String,
    /// Both ends.
    pub range: (f64, f64),
    /// Where the ticks are, and what stands at them.
    pub ticks: Vec<(f64, String)>,
}

/// One chart.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    /// For the file's name.
    pub slug: String,
    /// The heading.
    pub title: String,
    /// What it shows and how to read it, in a sentence for the page.
    pub caption: String,
    /// Across.
    pub x: Axis,
    /// Up.
    pub y: Axis,
    /// The lines, the most important last.
    pub lines: Vec<Line>,
}

/// All charts that these runs have data for.
///
/// # Errors
/// When a result holds a histogram that cannot be read.
pub fn all(runs: &[Run]) -> Result<Vec<Chart>, Failure> {
    let mut charts = Vec::new();
    charts.extend(by_percentile(
        runs,
        "publish",
        "Publish latency by percentile",
    )?);
    charts.extend(by_percentile(
        runs,
        "end_to_end",
        "End-to-end latency by percentile",
    )?);
    charts.extend(over_time(runs, "publish", "Publish latency over time"));
    charts.extend(over_time(
        runs,
        "end_to_end",
        "End-to-end latency over time",
    ));
    charts.extend(throughput(runs));
    Ok(charts)
}

/// Latency over 1/(1-p), both logarithmic: each further nine is as wide as the one before.
fn by_percentile(runs: &[Run], kind: &str, title: &str) -> Result<Option<Chart>, Failure> {
    let mut lines = Vec::new();
    let mut count_most = 0;
    for (color, run) in runs.iter().enumerate() {
        // The corrected line is drawn last, over the other.
        for since in [Since::Sent, Since::Intended] {
            let Some(latency) = run.latency(kind, since) else {
                continue;
            };
            let histogram = latency.histogram()?;
            count_most = count_most.max(histogram.len());
            let mut points: Vec<(f64, f64)> = Vec::new();
            for step in histogram.iter_quantiles(20) {
                let quantile = step.quantile_iterated_to();
                let ns = step.value_iterated_to().min(histogram.max()) * latency.unit_ns;
                let y = (ns as f64 / 1e6).max(LEAST_MS).log10();
                if quantile >= 1.0 {
                    // The highest value: where a percentile of so many values would end.
                    let x = (histogram.len() as f64).log10();
                    points.push((x.max(points.last().map_or(0.0, |last| last.0)), y));
                    break;
                }
                points.push((-(1.0 - quantile).log10(), y));
            }
            let of = match since {
                Since::Intended => "from intended send",
                Since::Sent => "from actual send",
            };
            lines.push(Line {
                label: name(runs, run, of),
                color,
                dashed: since == Since::Sent,
                points,
            });
        }
    }
    if lines.is_empty() {
        return Ok(None);
    }
    let decades = (count_most as f64).log10().ceil().clamp(2.0, 9.0);
    let x = Axis {
        label: "percentile of records".to_owned(),
        range: (0.0, decades),
        ticks: (0..=decades as i32)
            .map(|nines| (f64::from(nines), percent(nines)))
            .collect(),
    };
    Ok(Some(Chart {
        slug: format!("{}-by-percentile", kind.replace('_', "-")),
        title: title.to_owned(),
        caption: "Each step to the right is one nine more, 1/(1-p) on a logarithmic scale. The solid line counts from when the schedule wanted a record sent, so that a stall counts for every record that should have gone out in it; the dashed line counts from when it was sent.".to_owned(),
        x,
        y: latency_axis(&lines),
        lines,
    }))
}

/// Latency of each second.
fn over_time(runs: &[Run], kind: &str, title: &str) -> Option<Chart> {
    let mut lines = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        let wanted: &[(&str, usize)] = if runs.len() == 1 {
            &[("p50", 0), ("p99", 1), ("p99.9", 2), ("max", 3)]
        } else {
            &[("p50", index), ("p99", index)]
        };
        for (which, color) in wanted {
            let points: Vec<(f64, f64)> = run
                .seconds
                .iter()
                .filter_map(|second| {
                    let us = match kind {
                        "publish" => second.publish_us,
                        _ => second.end_to_end_us,
                    }?;
                    let us = match *which {
                        "p50" => us.p50,
                        "p99" => us.p99,
                        "p99.9" => us.p99_9,
                        _ => us.max,
                    };
                    Some((second.at_s, (us / 1000.0).max(LEAST_MS).log10()))
                })
                .collect();
            if points.len() > 1 {
                lines.push(Line {
                    label: name(runs, run, which),
                    color: *color,
                    dashed: runs.len() > 1 && *which == "p50",
                    points,
                });
            }
        }
    }
    if lines.is_empty() {
        return None;
    }
    Some(Chart {
        slug: format!("{}-over-time", kind.replace('_', "-")),
        title: title.to_owned(),
        caption: "Percentiles of what was recorded in each second, from the intended send time."
            .to_owned(),
        x: time_axis(&lines),
        y: latency_axis(&lines),
        lines,
    })
}

/// MiB of each second.
fn throughput(runs: &[Run]) -> Option<Chart> {
    let mut lines = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        let rate = |bytes: &dyn Fn(&crate::results::Second) -> u64| -> Vec<(f64, f64)> {
            run.seconds
                .iter()
                .map(|second| {
                    let mib = bytes(second) as f64 / MIB / second.length_s.max(1e-9);
                    (second.at_s, mib)
                })
                .collect()
        };
        let consumed = rate(&|second| second.received_bytes);
        if consumed.len() > 1 && consumed.iter().any(|(_, mib)| *mib > 0.0) {
            lines.push(Line {
                label: name(runs, run, "consumed"),
                color: if runs.len() == 1 { 1 } else { index },
                dashed: true,
                points: consumed,
            });
        }
        let published = rate(&|second| second.acknowledged_bytes);
        if published.len() > 1 {
            lines.push(Line {
                label: name(runs, run, "published"),
                color: index,
                dashed: false,
                points: published,
            });
        }
    }
    if lines.is_empty() {
        return None;
    }
    let most = lines
        .iter()
        .flat_map(|line| line.points.iter().map(|point| point.1))
        .fold(0.0, f64::max);
    Some(Chart {
        slug: "throughput-over-time".to_owned(),
        title: "Throughput over time".to_owned(),
        caption:
            "Bytes of keys and values acknowledged and consumed in each second, over its wall time."
                .to_owned(),
        x: time_axis(&lines),
        y: linear_axis("MiB/s", 0.0, most * 1.08),
        lines,
    })
}

/// A line's name: the run's is left out when there is one only.
fn name(runs: &[Run], run: &Run, what: &str) -> String {
    if runs.len() == 1 {
        what.to_owned()
    } else {
        format!("{}, {what}", run.name)
    }
}

/// 0: 0 %, 1: 90 %, 2: 99 %, 3: 99.9 %.
fn percent(nines: i32) -> String {
    match nines {
        0 => "0%".to_owned(),
        1 => "90%".to_owned(),
        2 => "99%".to_owned(),
        more => format!("99.{}%", "9".repeat(more as usize - 2)),
    }
}

/// Logarithmic milliseconds around all points. Ticks at 1, 2 and 5 where there is room, else at powers of ten.
fn latency_axis(lines: &[Line]) -> Axis {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for (_, y) in lines.iter().flat_map(|line| line.points.iter()) {
        low = low.min(*y);
        high = high.max(*y);
    }
    let (low, high) = (low - 0.08, high + 0.12);
    let steps: &[f64] = if high - low <= 3.2 {
        &[1.0, 2.0, 5.0]
    } else {
        &[1.0]
    };
    let mut ticks = Vec::new();
    for decade in low.floor() as i32..=high.ceil() as i32 {
        for step in steps {
            let ms = step * 10_f64.powi(decade);
            let at = ms.log10();
            if at >= low && at <= high {
                ticks.push((at, milliseconds(ms)));
            }
        }
    }
    Axis {
        label: "latency".to_owned(),
        range: (low, high),
        ticks,
    }
}

/// A round number of milliseconds in the unit that suits it.
fn milliseconds(ms: f64) -> String {
    let (value, unit) = if ms < 0.9995 {
        (ms * 1000.0, "\u{b5}s")
    } else if ms < 999.5 {
        (ms, "ms")
    } else {
        (ms / 1000.0, "s")
    };
    format!("{} {unit}", (value * 1000.0).round() / 1000.0)
}

/// Seconds from the first to the last point.
fn time_axis(lines: &[Line]) -> Axis {
    let last = lines
        .iter()
        .flat_map(|line| line.points.iter().map(|point| point.0))
        .fold(1.0, f64::max);
    linear_axis("seconds since the measured part began", 0.0, last)
}

/// Between four and ten ticks at round places.
fn linear_axis(label: &str, low: f64, high: f64) -> Axis {
    let high = if high > low { high } else { low + 1.0 };
    let rough = (high - low) / 7.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough)
        .unwrap_or(10.0 * power);
    let mut ticks = Vec::new();
    let mut at = (low / step).ceil() * step;
    while at <= high + step * 1e-9 {
        let text = format!("{}", (at * 1000.0).round() / 1000.0);
        ticks.push((at, text));
        at += step;
    }
    Axis {
        label: label.to_owned(),
        range: (low, high),
        ticks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report_files::made_up;

    #[test]
    fn runs_get_a_chart_for_each_thing_they_measured() {
        let slugs = |runs: &[Run]| -> Vec<String> {
            all(runs)
                .unwrap()
                .into_iter()
                .map(|chart| chart.slug)
                .collect()
        };
        let expected = [
            "publish-by-percentile",
            "publish-over-time",
            "throughput-over-time",
        ];
        assert_eq!(slugs(&[made_up("one", 1)]), expected);
        assert_eq!(slugs(&[made_up("one", 1), made_up("two", 3)]), expected);
        assert!(slugs(&[Run::default()]).is_empty());
    }

    #[test]
    fn percentiles_are_placed_by_their_nines() {
        let charts = all(&[made_up("one", 1)]).unwrap();
        let line = charts[0].lines.last().unwrap();
        assert_eq!(
            (line.dashed, line.label.as_str()),
            (false, "from intended send")
        );
        // The histogram's values are 1 ms + i*i*10 ns for i below 10,000: at 90 % i is 9,000, so 811 ms.
        let (_, y) = line
            .points
            .iter()
            .find(|(x, _)| *x >= 1.0)
            .copied()
            .unwrap();
        assert!((10_f64.powf(y) - 811.0).abs() < 12.0, "{}", 10_f64.powf(y));
        let last = line.points.last().unwrap();
        assert!(
            (last.0 - 4.0).abs() < 0.01,
            "ten thousand values end at four nines: {last:?}"
        );
        assert!((10_f64.powf(last.1) - 1001.0).abs() < 2.0);
        let ticks: Vec<&str> = charts[0]
            .x
            .ticks
            .iter()
            .map(|tick| tick.1.as_str())
            .collect();
        assert_eq!(ticks, ["0%", "90%", "99%", "99.9%", "99.99%"]);
    }

    #[test]
    fn axes_have_round_ticks() {
        let texts =
            |axis: Axis| -> Vec<String> { axis.ticks.into_iter().map(|tick| tick.1).collect() };
        assert_eq!(
            texts(linear_axis("", 0.0, 60.0)),
            ["0", "10", "20", "30", "40", "50", "60"]
        );
        assert_eq!(
            texts(linear_axis("", 0.0, 1.0)),
            ["0", "0.2", "0.4", "0.6", "0.8", "1"]
        );
        let line = Line {
            points: vec![(0.0, -1.0), (1.0, 3.0)],
            ..Line::default()
        };
        assert_eq!(
            texts(latency_axis(&[line])),
            ["100 \u{b5}s", "1 ms", "10 ms", "100 ms", "1 s"]
        );
        assert_eq!(linear_axis("", 0.0, 0.0).range, (0.0, 1.0));
    }
}
