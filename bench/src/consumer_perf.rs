//! Reads records as fast as they come and reports rates. The calling thread polls; librdkafka's threads do the rest. Knows no option's name.

use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::{ClientContext, TopicPartitionList};

use crate::Failure;
use crate::clock;
use crate::context::{self, Quiet};
use crate::report::fixed;

const MB: f64 = 1024.0 * 1024.0;
const COLUMNS: &str = "data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec";

/// What to read.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The topics; they exist.
    pub topics: Vec<String>,
    /// Stop after so many records.
    pub records: u64,
    /// Stop when none came for so long.
    pub timeout_ms: i64,
    /// Milliseconds between two lines of details.
    pub interval_ms: i64,
    /// Print details instead of one row.
    pub detailed: bool,
    /// Leave out the header.
    pub hide_header: bool,
    /// A pattern of Java's `SimpleDateFormat`.
    pub date_format: String,
    /// Print the client's statistics at the end.
    pub print_metrics: bool,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records read.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Milliseconds from start to end.
    pub elapsed_ms: i64,
    /// Milliseconds without any partition.
    pub rebalance_ms: i64,
}

/// How long the group took to give out partitions.
struct Joins {
    partitions: usize,
    start_ms: i64,
    total_ms: i64,
    round_ms: i64,
}

struct Context {
    joins: Mutex<Joins>,
    quiet: Quiet,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.quiet.line(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.quiet.keep(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.quiet.error(error, reason);
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let mut joins = self.joins.lock().expect("no holder panics");
        if let Rebalance::Revoke(partitions) = rebalance {
            joins.partitions = joins.partitions.saturating_sub(count(partitions));
            if joins.partitions == 0 {
                joins.start_ms = clock::wall_ms();
            }
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let mut joins = self.joins.lock().expect("no holder panics");
        if let Rebalance::Assign(partitions) = rebalance {
            if joins.partitions == 0 {
                let elapsed_ms = clock::wall_ms() - joins.start_ms;
                joins.total_ms += elapsed_ms;
                joins.round_ms += elapsed_ms;
            }
            joins.partitions += count(partitions);
        }
    }
}

fn count(partitions: &TopicPartitionList) -> usize {
    partitions.count()
}

/// The header row.
pub fn header(detailed: bool) -> String {
    format!(
        "{}, {COLUMNS}\n",
        if detailed {
            "time, threadId"
        } else {
            "start.time, end.time"
        }
    )
}

/// Where records come from.
pub trait Source {
    /// What came within this time: how many records, and the bytes of their keys and values. None: nothing.
    ///
    /// # Errors
    /// When nothing more can come.
    fn poll(&mut self, wait: Duration) -> Result<Option<(u64, u64)>, Failure>;

    /// Milliseconds without any partition, in all.
    fn rebalance_ms(&self) -> i64 {
        0
    }

    /// The same since it was asked last.
    fn round_ms(&mut self) -> i64 {
        0
    }
}

/// librdkafka's consumer.
struct Grouped {
    consumer: BaseConsumer<Context>,
}

impl Source for Grouped {
    fn poll(&mut self, wait: Duration) -> Result<Option<(u64, u64)>, Failure> {
        match self.consumer.poll(wait) {
            None => Ok(None),
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => Err(error.into()),
            Some(Err(error)) => {
                context::log_line("WARN", &error.to_string());
                Ok(None)
            }
            Some(Ok(message)) => Ok(Some((
                1,
                (message.key_len() + message.payload_len()) as u64,
            ))),
        }
    }

    fn rebalance_ms(&self) -> i64 {
        let joins = &self.consumer.context().joins;
        joins.lock().expect("no holder panics").total_ms
    }

    fn round_ms(&mut self) -> i64 {
        let joins = &self.consumer.context().joins;
        std::mem::take(&mut joins.lock().expect("no holder panics").round_ms)
    }
}

/// Runs the plan with a client of this configuration. Rows go to `out`.
///
/// # Errors
/// When the client cannot be made, the date pattern is wrong, a fatal error comes, or `out` fails.
pub fn run(config: &ClientConfig, plan: &Plan, out: &mut dyn Write) -> Result<Summary, Failure> {
    let mut config = config.clone();
    if plan.print_metrics {
        config.set("statistics.interval.ms", "500");
    }
    let connect = |start_ms| {
        let joins = Joins {
            partitions: 0,
            start_ms,
            total_ms: 0,
            round_ms: 0,
        };
        let context = Context {
            joins: Mutex::new(joins),
            quiet: Quiet::default(),
        };
        let consumer: BaseConsumer<Context> = config.create_with_context(context)?;
        let topics: Vec<&str> = plan.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics)?;
        Ok(Grouped { consumer })
    };
    let (read, source) = read_all(plan, connect, out)?;
    if plan.print_metrics {
        let consumer = source.consumer;
        consumer.poll(Duration::from_millis(600));
        out.write_all(context::metrics_table(&consumer.context().quiet.metrics()).as_bytes())?;
    }
    out.flush()?;
    Ok(read)
}

/// Reads what the plan asks for from a source that is made at the start, which is told; tells rows and gives the source
/// back.
///
/// # Errors
/// As [`run`].
pub fn read_all<S: Source>(
    plan: &Plan,
    connect: impl FnOnce(i64) -> Result<S, Failure>,
    out: &mut dyn Write,
) -> Result<(Summary, S), Failure> {
    let date = |at_ms| clock::format_local(&plan.date_format, at_ms).map_err(Failure);
    date(0)?;
    if !plan.hide_header {
        out.write_all(header(plan.detailed).as_bytes())?;
        out.flush()?;
    }
    let start_ms = clock::wall_ms();
    let mut source = connect(start_ms)?;
    let mut read = Summary::default();
    let mut reported = Summary::default();
    let (mut report_ms, mut last_ms, mut now_ms) = (start_ms, start_ms, start_ms);
    while read.records < plan.records && now_ms - last_ms <= plan.timeout_ms {
        let polled = source.poll(Duration::from_millis(100))?;
        now_ms = clock::wall_ms();
        let Some((records, bytes)) = polled else {
            continue;
        };
        last_ms = now_ms;
        read.records += records;
        read.bytes += bytes;
        if now_ms - report_ms >= plan.interval_ms {
            let round_ms = source.round_ms();
            if plan.detailed {
                let row = detailed_row(
                    &date(now_ms)?,
                    &read,
                    &reported,
                    now_ms - report_ms,
                    round_ms,
                );
                out.write_all(row.as_bytes())?;
                out.flush()?;
            }
            report_ms = now_ms;
            reported = read;
        }
    }
    if read.records < plan.records {
        writeln!(
            out,
            "WARNING: Exiting before consuming the expected number of records: timeout ({} ms) exceeded. \
             You can use the --timeout option to increase the timeout.",
            plan.timeout_ms
        )?;
    }
    let end_ms = clock::wall_ms();
    read.elapsed_ms = end_ms - start_ms;
    read.rebalance_ms = source.rebalance_ms();
    if !plan.detailed {
        out.write_all(row(&date(start_ms)?, &date(end_ms)?, &read).as_bytes())?;
    }
    out.flush()?;
    Ok((read, source))
}

fn row(start: &str, end: &str, read: &Summary) -> String {
    let elapsed_s = read.elapsed_ms as f64 / 1000.0;
    let fetch_ms = read.elapsed_ms - read.rebalance_ms;
    let (mb, records) = (read.bytes as f64 / MB, read.records as f64);
    format!(
        "{start}, {end}, {}, {}, {}, {}, {}, {fetch_ms}, {}, {}\n",
        fixed(mb, 4),
        fixed(mb / elapsed_s, 4),
        read.records,
        fixed(records / elapsed_s, 4),
        read.rebalance_ms,
        fixed(mb / (fetch_ms as f64 / 1000.0), 4),
        fixed(records / (fetch_ms as f64 / 1000.0), 4),
    )
}

fn detailed_row(
    time: &str,
    read: &Summary,
    before: &Summary,
    elapsed_ms: i64,
    rebalance_ms: i64,
) -> String {
    let fetch_ms = elapsed_ms - rebalance_ms;
    let mb = (read.bytes - before.bytes) as f64 / MB;
    let records = (read.records - before.records) as f64;
    let per_fetch_s = |amount: f64| {
        if fetch_ms <= 0 {
            0.0
        } else {
            1000.0 * amount / fetch_ms as f64
        }
    };
    format!(
        "{time}, 0, {}, {}, {}, {}, {rebalance_ms}, {fetch_ms}, {}, {}\n",
        fixed(read.bytes as f64 / MB, 4),
        fixed(1000.0 * mb / elapsed_ms as f64, 4),
        read.records,
        fixed(1000.0 * records / elapsed_ms as f64, 4),
        fixed(per_fetch_s(mb), 4),
        fixed(per_fetch_s(records), 4),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_rows_have_kafkas_columns() {
        assert_eq!(
            header(false),
            "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec\n"
        );
        assert!(header(true).starts_with("time, threadId, data.consumed.in.MB, "));
        let read = Summary {
            records: 1000,
            bytes: 4 * 1_048_576,
            elapsed_ms: 2500,
            rebalance_ms: 500,
        };
        assert_eq!(
            row("A", "B", &read),
            "A, B, 4.0000, 1.6000, 1000, 400.0000, 500, 2000, 2.0000, 500.0000\n"
        );
        let before = Summary {
            records: 500,
            bytes: 2 * 1_048_576,
            ..read
        };
        assert_eq!(
            detailed_row("T", &read, &before, 1000, 0),
            "T, 0, 4.0000, 2.0000, 1000, 500.0000, 0, 1000, 2.0000, 500.0000\n"
        );
        assert!(
            detailed_row("T", &read, &before, 1000, 1000).ends_with(", 1000, 0, 0.0000, 0.0000\n")
        );
    }

    #[test]
    fn no_time_at_all_prints_as_in_java() {
        let read = Summary {
            records: 0,
            bytes: 0,
            elapsed_ms: 10,
            rebalance_ms: 10,
        };
        assert!(row("A", "B", &read).ends_with(", 10, 0, NaN, NaN\n"));
    }
}
