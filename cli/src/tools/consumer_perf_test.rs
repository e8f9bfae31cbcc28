//! `consumer-perf-test`: how fast records are read. Main thread; `bench` does the work.

use std::time::Duration;

use bench::consumer_perf::{self, Plan};
use bench::payload::Random;
use bench::{clock, context, native_perf};
use clap::{Arg, ArgMatches};
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::args::{self, Found, flag, int, long, many, maybe, text};
use super::kafka_config::{self, Properties};
use super::regex::{Whole, is_internal};
use super::{Help, Outcome, Stop, Tool, out, properties};

/// The tool.
pub const TOOL: Tool = Tool {
    name: "consumer-perf-test",
    about: "This tool is used to verify the consumer performance.",
    options,
    run,
    help: Help::Fails,
};

fn options() -> Vec<Arg> {
    vec![
        text(
            "bootstrap-server",
            "server to connect to",
            "REQUIRED: The server(s) to connect to.",
        ),
        text("topic", "topic", "The topic to consume from."),
        text(
            "include",
            "Java regex (String)",
            "Regular expression of the topics to consume from.",
        ),
        text("group", "gid", "The group id to consume on."),
        int(
            "fetch-size",
            "size",
            "Bytes of one partition in one request at most; default 1048576.",
        ),
        many(
            "command-property",
            "prop1=val1",
            "A consumer property, as key=value.",
        ),
        flag(
            "from-latest",
            "Start with the latest record when the group has no position yet.",
        ),
        int(
            "socket-buffer-size",
            "size",
            "Bytes of the socket's receive buffer; default 2097152.",
        ),
        text(
            "consumer.config",
            "config file",
            "(DEPRECATED) Use --command-config.",
        ),
        text(
            "command-config",
            "config file",
            "A file of consumer properties.",
        ),
        flag("print-metrics", "Print out the metrics."),
        flag(
            "show-detailed-stats",
            "Print a row for each reporting interval.",
        ),
        maybe(
            "timeout",
            "milliseconds",
            "Longest time between records; default 10000.",
        )
        .value_parser(clap::value_parser!(i64))
        .default_missing_value("10000"),
        long("messages", "count", "(DEPRECATED) Use --num-records."),
        long(
            "num-records",
            "count",
            "REQUIRED: The number of records to consume.",
        ),
        long(
            "reporting-interval",
            "interval_ms",
            "Milliseconds between two rows; default 5000.",
        ),
        text(
            "date-format",
            "date format",
            "A pattern of java.text.SimpleDateFormat; default yyyy-MM-dd HH:mm:ss:SSS.",
        ),
        flag("hide-header", "Leave out the header."),
    ]
}

fn run(found: &ArgMatches) -> Outcome {
    args::require(found, &["bootstrap-server"])?;
    args::exactly_one(found, &["topic", "include"])?;
    args::exactly_one(found, &["messages", "num-records"])?;
    args::exclude(found, "consumer.config", &["command-config"])?;
    if found.has("messages") {
        out::line("Warning: --messages is deprecated. Use --num-records instead.");
    }
    if found.has("consumer.config") {
        out::line("Warning: --consumer.config is deprecated. Use --command-config instead.");
    }
    let interval_ms = found.long("reporting-interval").unwrap_or(5000);
    if interval_ms <= 0 {
        return Err(Stop::Failed(
            "Reporting interval must be greater than 0.".to_owned(),
        ));
    }
    let properties = read_properties(found)?;
    let native = native_perf::address(&properties).is_some();
    let topics = match found.text("topic") {
        Some(topic) => vec![topic.to_owned()],
        None if native => {
            return Err(Stop::Failed(
                "--include is not there over the native protocol".to_owned(),
            ));
        }
        None => matching(
            &kafka_config::consumer(&properties)?,
            found.text("include").unwrap_or_default(),
        )?,
    };
    let plan = Plan {
        topics,
        records: found
            .long("num-records")
            .or(found.long("messages"))
            .unwrap_or_default()
            .max(0) as u64,
        timeout_ms: found.get_one("timeout").copied().unwrap_or(10_000),
        interval_ms,
        detailed: found.has("show-detailed-stats"),
        hide_header: found.has("hide-header"),
        date_format: found
            .text("date-format")
            .unwrap_or("yyyy-MM-dd HH:mm:ss:SSS")
            .to_owned(),
        print_metrics: found.has("print-metrics"),
    };
    let out = &mut std::io::stdout();
    let done = if native {
        native_perf::consume(&properties, &plan, out)
    } else {
        consumer_perf::run(&kafka_config::consumer(&properties)?, &plan, out)
    };
    done.map(|_| ())
        .map_err(|failure| Stop::Failed(failure.to_string()))
}

fn read_properties(found: &ArgMatches) -> Result<Properties, Stop> {
    let mut properties = match found
        .text("consumer.config")
        .or(found.text("command-config"))
    {
        Some(path) => properties::load(path)?,
        None => Properties::new(),
    };
    properties.extend(args::pairs(&found.texts("command-property")));
    let seed = clock::wall_ms() as u64 ^ u64::from(std::process::id()).rotate_left(32);
    let group = match found.text("group") {
        Some(group) => group.to_owned(),
        None => format!("perf-consumer-{}", Random::new(seed).below(100_000)),
    };
    let reset = if found.has("from-latest") {
        "latest"
    } else {
        "earliest"
    };
    let number = |name: &str, default: i32| found.int(name).unwrap_or(default).to_string();
    for (key, value) in [
        (
            "bootstrap.servers",
            found
                .text("bootstrap-server")
                .unwrap_or_default()
                .to_owned(),
        ),
        ("group.id", group),
        (
            "receive.buffer.bytes",
            number("socket-buffer-size", 2 << 20),
        ),
        ("max.partition.fetch.bytes", number("fetch-size", 1 << 20)),
        ("auto.offset.reset", reset.to_owned()),
        ("check.crcs", "false".to_owned()),
    ] {
        properties.insert(key.to_owned(), value);
    }
    properties
        .entry("client.id".to_owned())
        .or_insert_with(|| "perf-consumer-client".to_owned());
    Ok(properties)
}

/// The topics that match a Java pattern now.
fn matching(config: &rdkafka::ClientConfig, pattern: &str) -> Result<Vec<String>, Stop> {
    let pattern = Whole::new(pattern).map_err(Stop::Failed)?;
    let failed = |e: rdkafka::error::KafkaError| Stop::Failed(e.to_string());
    let consumer: BaseConsumer<context::Quiet> = config
        .create_with_context(context::Quiet::default())
        .map_err(failed)?;
    let metadata = consumer
        .fetch_metadata(None, Duration::from_secs(60))
        .map_err(failed)?;
    let topics = metadata
        .topics()
        .iter()
        .map(|topic| topic.name().to_owned());
    let topics: Vec<String> = topics
        .filter(|name| !is_internal(name) && pattern.matches(name))
        .collect();
    if topics.is_empty() {
        return Err(Stop::Failed(
            "No topic matches the pattern of --include.".to_owned(),
        ));
    }
    Ok(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_properties() {
        let found = super::super::command(&TOOL)
            .no_binary_name(true)
            .get_matches_from([
                "--bootstrap-server",
                "127.0.0.1:1",
                "--topic",
                "t",
                "--num-records",
                "5",
                "--command-property",
                "client.id=x",
            ]);
        let properties = read_properties(&found).unwrap();
        for (key, value) in [
            ("client.id", "x"),
            ("auto.offset.reset", "earliest"),
            ("max.partition.fetch.bytes", "1048576"),
            ("check.crcs", "false"),
        ] {
            assert_eq!(properties[key], value);
        }
        assert!(properties["group.id"].starts_with("perf-consumer-"));
        kafka_config::consumer(&properties)
            .unwrap()
            .create_native_config()
            .unwrap();
    }
}
