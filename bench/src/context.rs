//! What librdkafka says beside its answers: log lines go to standard error in Kafka's form, statistics are kept for a report. librdkafka's own threads and the thread that polls; knows no tool.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde_json::Value;

use crate::clock;

/// Prints one log line as Kafka's tools do.
pub fn log_line(level: &str, text: &str) {
    let at = clock::format_local("yyyy-MM-dd HH:mm:ss,SSS", clock::wall_ms()).unwrap_or_default();
    eprintln!("[{at}] {level} {text}");
}

/// The same trouble is told again only after so long.
const REPEAT: Duration = Duration::from_secs(10);

/// Keeps the newest statistics and prints warnings.
#[derive(Debug, Default)]
pub struct Quiet {
    statistics: Mutex<Vec<u8>>,
    trouble: Mutex<Option<(String, Instant)>>,
}

impl Quiet {
    /// Keeps a statistics report.
    pub fn keep(&self, statistics: &[u8]) {
        *self.statistics.lock().expect("no holder panics") = statistics.to_vec();
    }

    /// The newest statistics as lines of name and value, sorted; empty before the first report.
    pub fn metrics(&self) -> Vec<(String, String)> {
        flatten(&self.statistics.lock().expect("no holder panics"))
    }

    /// A line of librdkafka's log.
    pub fn line(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let level = match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => "ERROR",
            RDKafkaLogLevel::Warning => "WARN",
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => return,
        };
        // CONFWARN tells of settings that are Java's defaults here; errors of brokers arrive as `error` too.
        if facility != "CONFWARN" && facility != "FAIL" {
            log_line(level, &format!("{message} ({facility})"));
        }
    }
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.line(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.keep(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // That all brokers are down follows from what was told of each.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            return;
        }
        // What stands in brackets is how long and how often: the trouble is the same.
        let trouble = reason.split(" (").next().unwrap_or(reason).to_owned();
        let mut last = self.trouble.lock().expect("no holder panics");
        let told = |(text, at): &(String, Instant)| *text == trouble && at.elapsed() < REPEAT;
        if !last.as_ref().is_some_and(told) {
            log_line("WARN", reason);
            *last = Some((trouble, clock::now()));
        }
    }
}

impl ConsumerContext for Quiet {}

/// Turns nested statistics into one line for each number or text.
fn flatten(json: &[u8]) -> Vec<(String, String)> {
    fn walk(path: &str, value: &Value, lines: &mut Vec<(String, String)>) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    let path = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}:{name}")
                    };
                    walk(&path, field, lines);
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    walk(&format!("{path}:{index}"), item, lines);
                }
            }
            Value::String(text) => lines.push((path.to_owned(), text.clone())),
            other => lines.push((path.to_owned(), other.to_string())),
        }
    }
    let mut lines = Vec::new();
    if let Ok(value) = serde_json::from_slice(json) {
        walk("", &value, &mut lines);
    }
    lines.sort();
    lines
}

/// The table that `--print-metrics` prints: Kafka's form, librdkafka's names.
pub fn metrics_table(metrics: &[(String, String)]) -> String {
    if metrics.is_empty() {
        return String::new();
    }
    let width = metrics
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or(0);
    let mut text = format!("\n{:<width$}   {}\n", "Metric Name", "Value");
    for (name, value) in metrics {
        text.push_str(&format!("{name:<width$} : {value}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_become_a_sorted_table() {
        let metrics =
            flatten(br#"{"txmsgs":3,"brokers":{"a:1":{"state":"UP"}},"cgrp":{"x":[1,2]}}"#);
        assert_eq!(
            metrics_table(&metrics),
            "\nMetric Name         Value\nbrokers:a:1:state : UP\ncgrp:x:0          : 1\ncgrp:x:1          : 2\ntxmsgs            : 3\n"
        );
        assert_eq!(metrics_table(&flatten(b"not json")), "");
    }
}
