//! The report as one HTML page that needs nothing else: charts are drawn into it. The calling thread; knows results and charts, and no file.

use std::fmt::Write;

use crate::charts::{self, Chart, escaped};
use crate::report_files::{grouped, ms, rows};
use crate::results::{Facts, Run};
use crate::{Failure, clock};

/// How the page looks: by the reader's own fonts, light or dark as he likes it, narrow enough to read.
const STYLE: &str = r#"
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1b1f24; --soft: #59636e; --line: #e4e7eb; --wash: #f5f7f9; --note: #fff6e5; --note-line: #e69f00;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #15191e; --ink: #e8ebee; --soft: #a3adb8; --line: #2c333b; --wash: #1c2127; --note: #2a2417; --note-line: #e69f00; }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 66rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums;
}
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .8rem; padding-top: .9rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 48rem; }
.lead, figcaption, th, .unit { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .93rem; }
td, th { padding: .32rem .9rem .32rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); font-weight: 400; }
thead th { color: var(--ink); font-weight: 600; }
td.number, th.number { text-align: right; white-space: nowrap; padding: .32rem 0 .32rem 1.4rem; }
.cards { display: flex; flex-wrap: wrap; gap: .9rem; margin: 1.4rem 0; }
.card { flex: 1 1 11rem; background: var(--wash); border-radius: .5rem; padding: .8rem 1rem; }
.card b { display: block; font-size: 1.45rem; font-weight: 600; line-height: 1.25; }
.card span { color: var(--soft); font-size: .85rem; }
figure { margin: 1.6rem 0 2.2rem; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { font-size: .9rem; max-width: 48rem; margin-top: .4rem; }
ul.remarks { margin: 1rem 0; padding: .8rem 1rem .8rem 2rem; background: var(--note); border-left: .25rem solid var(--note-line); border-radius: .25rem; }
ul.remarks li { margin: .25rem 0; }
pre { background: var(--wash); padding: .7rem 1rem; border-radius: .4rem; overflow-x: auto; font: .86rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.facts td:first-child { color: var(--soft); white-space: nowrap; }
footer { margin-top: 3rem; color: var(--soft); font-size: .85rem; }
@media print { body { max-width: none; } figure, table { break-inside: avoid; } }
"#;

/// The page of some runs.
///
/// # Errors
/// When a chart cannot be drawn.
pub fn html(runs: &[Run], charts: &[Chart]) -> Result<String, Failure> {
    let title = match runs {
        [only] => only.name.clone(),
        _ => format!("{} runs compared", runs.len()),
    };
    let mut page = String::new();
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{0}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{0}</h1>\n",
        escaped(&title)
    );
    let _ = writeln!(page, "<p class=\"lead\">{}</p>", escaped(&lead(runs)));
    if let [only] = runs {
        page.push_str(&cards(only));
    }
    remarks(&mut page, runs);
    page.push_str("<h2>Results</h2>\n");
    summary(&mut page, runs);
    for chart in charts {
        let _ = writeln!(
            page,
            "<figure>\n{}\n<figcaption>{}</figcaption>\n</figure>",
            charts::svg(chart)?.trim(),
            escaped(&chart.caption)
        );
    }
    page.push_str("<h2>Percentiles</h2>\n");
    percentiles(&mut page, runs);
    for run in runs {
        about(&mut page, run, runs.len() > 1);
    }
    page.push_str(METHOD);
    page.push_str("</body>\n</html>\n");
    Ok(page)
}

const METHOD: &str = "<h2>How it was measured</h2>
<p>Latency from the <em>intended</em> send time counts from the moment at which the schedule wanted a record sent, whether or not the
generator or the client could send it then: when a broker stalls, every record that should have gone out meanwhile counts with the time
that it really waited (this corrects for coordinated omission). Latency from the <em>actual</em> send time counts from when the client
took the record. Publish latency ends with the acknowledgement, end-to-end latency when a consumer has the record.</p>
<p>Latencies are recorded in HdrHistograms with three significant digits and merged as histograms. Rates are bytes and records over wall
time. MiB are 1,048,576 bytes of keys and values. The histograms are beside this page as <code>.hlog</code> (a histogram for each second)
and <code>.hgrm</code> (percentiles, in milliseconds), for HdrHistogram's own plotters; all figures are in the result's JSON.</p>
<footer>Made by millrace bench. This page loads nothing from elsewhere.</footer>
";

fn lead(runs: &[Run]) -> String {
    let mut parts = Vec::new();
    if let Some(run) = runs.first() {
        let at = clock::format_local("yyyy-MM-dd HH:mm XXX", run.started_ms).unwrap_or_default();
        parts.push(at);
        for (facts, name) in [(&run.machine, "processor"), (&run.machine, "kernel")] {
            if let Some(value) = facts.get(name) {
                parts.push(value.to_owned());
            }
        }
        if let [only] = runs {
            parts.extend(only.versions.get("broker").map(str::to_owned));
            parts.extend(
                only.durability
                    .get("fsync")
                    .map(|mode| format!("fsync {mode}")),
            );
        }
    }
    parts.join(" \u{b7} ")
}

/// The figures that most readers come for.
fn cards(run: &Run) -> String {
    let mut cards: Vec<(String, &str)> = Vec::new();
    if let Some(rate) = run.totals.requests_per_s {
        cards.push((grouped(rate, 0), "requests answered a second"));
    }
    if run.totals.records_per_s > 0.0 {
        cards.push((
            grouped(run.totals.records_per_s, 0),
            "records published a second",
        ));
        cards.push((
            format!("{} MiB/s", grouped(run.totals.mib_per_s, 1)),
            "published",
        ));
    }
    if run.totals.received_mib_per_s > 0.0 {
        cards.push((
            format!("{} MiB/s", grouped(run.totals.received_mib_per_s, 1)),
            "consumed",
        ));
    }
    if let Some(latency) = run.latency("publish", crate::results::Since::Intended) {
        let us = &latency.percentiles_us;
        cards.push((format!("{} ms", ms(us.p50)), "publish latency, median"));
        cards.push((format!("{} ms", ms(us.p99)), "publish latency, 99 %"));
        cards.push((format!("{} ms", ms(us.p99_9)), "publish latency, 99.9 %"));
    }
    let mut html = String::from("<div class=\"cards\">\n");
    for (figure, what) in cards {
        let _ = writeln!(
            html,
            "<div class=\"card\"><b>{}</b><span>{}</span></div>",
            escaped(&figure),
            escaped(what)
        );
    }
    html.push_str("</div>\n");
    html
}

fn remarks(page: &mut String, runs: &[Run]) {
    if runs.iter().all(|run| run.remarks.is_empty()) {
        return;
    }
    page.push_str("<ul class=\"remarks\">\n");
    for run in runs {
        for remark in &run.remarks {
            let name = if runs.len() > 1 {
                format!("<b>{}:</b> ", escaped(&run.name))
            } else {
                String::new()
            };
            let _ = writeln!(page, "<li>{name}{}</li>", escaped(remark));
        }
    }
    page.push_str("</ul>\n");
}

fn summary(page: &mut String, runs: &[Run]) {
    page.push_str("<div class=\"scroll\"><table>\n<thead><tr><th></th>");
    for run in runs {
        let _ = write!(page, "<th class=\"number\">{}</th>", escaped(&run.name));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for (name, values) in rows(runs) {
        let _ = write!(page, "<tr><th>{}</th>", escaped(&name));
        for value in values {
            let _ = write!(page, "<td class=\"number\">{}</td>", escaped(&value));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div>\n");
}

fn percentiles(page: &mut String, runs: &[Run]) {
    page.push_str(
        "<p>Milliseconds.</p>\n<div class=\"scroll\"><table>\n<thead><tr><th>latency</th>",
    );
    for name in [
        "count", "mean", "50 %", "75 %", "90 %", "95 %", "99 %", "99.9 %", "99.99 %", "max",
    ] {
        let _ = write!(page, "<th class=\"number\">{name}</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for run in runs {
        for latency in &run.latencies {
            let name = if runs.len() > 1 {
                format!("{}: ", run.name)
            } else {
                String::new()
            };
            let _ = write!(
                page,
                "<tr><th>{}</th><td class=\"number\">{}</td>",
                escaped(&format!(
                    "{name}{}, {}",
                    latency.title(),
                    latency.since.words()
                )),
                grouped(latency.count as f64, 0)
            );
            let us = &latency.percentiles_us;
            for value in [
                latency.mean_us,
                us.p50,
                us.p75,
                us.p90,
                us.p95,
                us.p99,
                us.p99_9,
                us.p99_99,
                us.max,
            ] {
                let _ = write!(page, "<td class=\"number\">{}</td>", ms(value));
            }
            page.push_str("</tr>\n");
        }
    }
    page.push_str("</tbody></table></div>\n");
}

/// Where and how one run was made.
fn about(page: &mut String, run: &Run, named: bool) {
    let _ = writeln!(
        page,
        "<h2>{}</h2>",
        if named {
            escaped(&run.name)
        } else {
            "What was measured, and where".to_owned()
        }
    );
    for (title, facts) in [
        ("Machine", &run.machine),
        ("Versions", &run.versions),
        (
            "Durability, as the broker describes the topic",
            &run.durability,
        ),
        ("Workload", &run.workload),
    ] {
        table(page, title, facts);
    }
    for phase in &run.phases {
        let mut facts = Facts::default();
        facts.put("began at", format!("{:.1} s", phase.start_s));
        facts.put("took", format!("{:.1} s", phase.length_s));
        for (name, value) in phase.facts.iter() {
            facts.put(name, value);
        }
        table(page, &phase.name, &facts);
    }
    if !run.commands.is_empty() {
        page.push_str("<h3>Commands</h3>\n");
        for (name, command) in run.commands.iter() {
            let _ = writeln!(page, "<pre># {}\n{}</pre>", escaped(name), escaped(command));
        }
    }
}

fn table(page: &mut String, title: &str, facts: &Facts) {
    if facts.is_empty() {
        return;
    }
    let _ = writeln!(
        page,
        "<h3>{}</h3>\n<div class=\"scroll\"><table class=\"facts\"><tbody>",
        escaped(title)
    );
    for (name, value) in facts.iter() {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td></tr>",
            escaped(name),
            escaped(value)
        );
    }
    page.push_str("</tbody></table></div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report_files::made_up;

    fn page(runs: &[Run]) -> String {
        html(runs, &charts::all(runs).unwrap()).unwrap()
    }

    #[test]
    fn a_page_needs_nothing_from_elsewhere() {
        let text = page(&[made_up("one", 1), made_up("two", 2)]);
        for reference in [
            "href=", "src=", "@import", "<link", "<script", "<iframe", "url(", "srcset",
        ] {
            assert!(!text.contains(reference), "{reference}");
        }
        // The only addresses are names of namespaces.
        for (at, _) in text.match_indices("http") {
            let rest = &text[at..];
            assert!(rest.starts_with("http://www.w3.org/"), "{}", &rest[..40]);
        }
    }

    #[test]
    fn a_page_states_where_and_how_it_was_measured() {
        let text = page(&[made_up("one", 1)]);
        for expected in [
            "Linux 6.1",
            "Millrace &lt;0.1.0&gt;",
            "before every acknowledgement",
            "millrace bench run a&amp;b.yaml",
            "producerRate",
            "The generator used 0.50 of 2 cores.",
            "Publish latency by percentile",
            "20,000",
        ] {
            assert!(text.contains(expected), "{expected} is missing");
        }
        assert_eq!(text.matches("<svg").count(), 3);
        assert_eq!(
            text.matches("<table").count(),
            text.matches("</table>").count()
        );
        assert_eq!(
            text.matches("<figure").count(),
            text.matches("</figure>").count()
        );
    }
}
