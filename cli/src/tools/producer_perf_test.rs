//! `producer-perf-test`: how fast records are acknowledged. Main thread; `bench` does the work.

use std::time::Duration;

use bench::native_perf;
use bench::payload::Payload;
use bench::producer_perf::{self, Plan};
use clap::{Arg, ArgMatches};

use super::args::{Found, flag, long, text};
use super::kafka_config::{self, Properties};
use super::{Help, Outcome, Stop, Tool, java, out, properties};

/// The tool.
pub const TOOL: Tool = Tool {
    name: "producer-perf-test",
    about: "This tool is used to verify the producer performance.",
    options,
    run,
    help: Help::Prints,
};

fn options() -> Vec<Arg> {
    let list = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("PROP-NAME=PROP-VALUE")
            .num_args(1..)
            .action(clap::ArgAction::Append)
            .help(help)
    };
    vec![
        text(
            "bootstrap-server",
            "BOOTSTRAP-SERVER",
            "The server(s) to connect to.",
        ),
        text("topic", "TOPIC", "Produce records to this topic."),
        long(
            "num-records",
            "NUM-RECORDS",
            "Number of records to produce.",
        ),
        long(
            "record-size",
            "RECORD-SIZE",
            "Record size in bytes; or --payload-file or --payload-monotonic.",
        ),
        text(
            "payload-file",
            "PAYLOAD-FILE",
            "A text file whose parts are sent at random.",
        ),
        flag("payload-monotonic", "Send a rising number."),
        text(
            "payload-delimiter",
            "PAYLOAD-DELIMITER",
            "What parts the payload file; default a new line.",
        ),
        text(
            "throughput",
            "THROUGHPUT",
            "Records a second at most, about; -1 for no limit.",
        )
        .value_parser(clap::value_parser!(f64)),
        list("producer-props", "(DEPRECATED) Use --command-property."),
        list("command-property", "Producer properties, as key=value."),
        text(
            "producer.config",
            "CONFIG-FILE",
            "(DEPRECATED) Use --command-config.",
        ),
        text(
            "command-config",
            "CONFIG-FILE",
            "A file of producer properties.",
        ),
        flag("print-metrics", "Print out metrics at the end of the test."),
        text(
            "transactional-id",
            "TRANSACTIONAL-ID",
            "The transactional id to use.",
        ),
        long(
            "transaction-duration-ms",
            "TRANSACTION-DURATION",
            "How long a transaction lasts; default 3000.",
        ),
        long(
            "warmup-records",
            "WARMUP-RECORDS",
            "Records that the steady state does not count; default 0.",
        ),
        long(
            "reporting-interval",
            "INTERVAL-MS",
            "Milliseconds between two lines; default 5000.",
        ),
    ]
}

fn run(found: &ArgMatches) -> Outcome {
    let (plan, mut properties) = read(found)?;
    if native_perf::address(&properties).is_some() {
        return native_perf::produce(&properties, &plan, &mut std::io::stdout())
            .map(|_| ())
            .map_err(|failure| Stop::Failed(failure.to_string()));
    }
    kafka_config::pipelined(&mut properties);
    let config = kafka_config::producer(&properties)?;
    producer_perf::run(&config, &plan, &mut std::io::stdout())
        .map(|_| ())
        .map_err(|failure| Stop::Failed(failure.to_string()))
}

fn wrong<T>(why: &str) -> Result<T, Stop> {
    Err(Stop::Usage(format!(
        "kafka-producer-perf-test: error: {why}"
    )))
}

fn read(found: &ArgMatches) -> Result<(Plan, Properties), Stop> {
    for name in ["topic", "num-records", "throughput"] {
        if !found.has(name) {
            return wrong(&format!("argument --{name} is required"));
        }
    }
    let sources = ["record-size", "payload-file", "payload-monotonic"];
    match sources.iter().filter(|name| found.has(name)).count() {
        0 => {
            return wrong(
                "one of the arguments --record-size --payload-file --payload-monotonic is required",
            );
        }
        1 => {}
        _ => {
            let given: Vec<&&str> = sources.iter().filter(|name| found.has(name)).collect();
            return wrong(&format!(
                "argument --{}: not allowed with argument --{}",
                given[1], given[0]
            ));
        }
    }
    let records = found.long("num-records").unwrap_or_default();
    let warmup_records = found.long("warmup-records").unwrap_or(0).max(0);
    let interval_ms = found.long("reporting-interval").unwrap_or(5000);
    let size = found.long("record-size");
    if records <= 0 {
        return wrong("--num-records should be greater than zero.");
    }
    if warmup_records >= records {
        return wrong(
            "The value for --warmup-records must be strictly fewer than the number of records in the test, --num-records.",
        );
    }
    if size.is_some_and(|size| size <= 0) {
        return wrong("--record-size should be greater than zero.");
    }
    let configured = [
        "bootstrap-server",
        "command-property",
        "producer-props",
        "producer.config",
        "command-config",
    ];
    if !configured.iter().any(|name| found.has(name)) {
        return wrong(
            "At least one of --bootstrap-server, --command-property, --producer-props, --producer.config or --command-config must be specified.",
        );
    }
    for (one, other) in [
        ("command-property", "producer-props"),
        ("command-config", "producer.config"),
    ] {
        if found.has(one) && found.has(other) {
            return wrong(&format!(
                "--{one} and --{other} cannot be specified together."
            ));
        }
    }
    let duration = found.long("transaction-duration-ms");
    if duration.is_some_and(|ms| ms <= 0) {
        return wrong("--transaction-duration-ms should be greater than zero.");
    }
    if interval_ms <= 0 {
        return wrong("--reporting-interval should be greater than zero.");
    }
    let payload = match (size, found.text("payload-file")) {
        (Some(size), _) => Payload::Letters(size as usize),
        (None, Some(path)) => Payload::Samples(samples(
            path,
            found.text("payload-delimiter").unwrap_or("\\n"),
        )?),
        (None, None) => Payload::Counter,
    };
    for (old, new) in [
        ("producer-props", "command-property"),
        ("producer.config", "command-config"),
    ] {
        if found.has(old) {
            out::line(&format!(
                "Option --{old} has been deprecated and will be removed in a future version. Use --{new} instead."
            ));
        }
    }
    let mut properties = read_properties(found)?;
    let mut transaction = None;
    if duration.is_some()
        || found.has("transactional-id")
        || properties.contains_key("transactional.id")
    {
        let made_up = format!(
            "performance-producer-{}",
            java::uuid_text(uuid::Uuid::new_v4())
        );
        let id = found.text("transactional-id").map(str::to_owned);
        let id = id
            .or_else(|| properties.get("transactional.id").cloned())
            .unwrap_or(made_up);
        properties.insert("transactional.id".to_owned(), id);
        transaction = Some(Duration::from_millis(duration.unwrap_or(3000) as u64));
    }
    let plan = Plan {
        topic: found.text("topic").unwrap_or_default().to_owned(),
        records: records as u64,
        payload,
        rate: found.get_one::<f64>("throughput").copied().unwrap_or(-1.0),
        warmup_records: warmup_records as u64,
        interval_ms,
        transaction,
        print_metrics: found.has("print-metrics"),
    };
    Ok((plan, properties))
}

fn read_properties(found: &ArgMatches) -> Result<Properties, Stop> {
    let mut properties = match found
        .text("command-config")
        .or(found.text("producer.config"))
    {
        Some(path) => properties::load(path)?,
        None => Properties::new(),
    };
    let name = if found.has("producer-props") {
        "producer-props"
    } else {
        "command-property"
    };
    for text in found.texts(name) {
        match text.split('=').collect::<Vec<_>>()[..] {
            [key, value] if !value.is_empty() => {
                properties.insert(key.to_owned(), value.to_owned())
            }
            _ => return Err(Stop::Failed(format!("Invalid property: {text}"))),
        };
    }
    properties
        .entry("client.id".to_owned())
        .or_insert_with(|| "perf-producer-client".to_owned());
    if let Some(servers) = found.text("bootstrap-server") {
        properties.insert("bootstrap.servers".to_owned(), servers.to_owned());
    }
    Ok(properties)
}

/// The parts of a payload file.
fn samples(path: &str, delimiter: &str) -> Result<Vec<Vec<u8>>, Stop> {
    let shown = std::path::absolute(path)
        .map_or_else(|_| path.to_owned(), |path| path.display().to_string());
    out::line(&format!("Reading payloads from: {shown}"));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    if text.is_empty() {
        return Err(Stop::Failed(
            "File does not exist or empty file provided.".to_owned(),
        ));
    }
    let delimiter = if delimiter == "\\n" { "\n" } else { delimiter };
    let parts = cut(&text, delimiter);
    out::line(&format!("Number of records read: {}", parts.len()));
    if parts.is_empty() {
        return Err(Stop::Failed(
            "File does not exist or empty file provided.".to_owned(),
        ));
    }
    Ok(parts)
}

/// Cuts text as Java's scanner does: nothing comes after the last delimiter.
fn cut(text: &str, delimiter: &str) -> Vec<Vec<u8>> {
    let text = text.strip_suffix(delimiter).unwrap_or(text);
    text.split(delimiter)
        .map(|part| part.as_bytes().to_vec())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(arguments: &[&str]) -> Result<(Plan, Properties), Stop> {
        read(
            &super::super::command(&TOOL)
                .no_binary_name(true)
                .get_matches_from(arguments),
        )
    }

    const GOOD: [&str; 8] = [
        "--topic",
        "t",
        "--num-records",
        "5",
        "--throughput",
        "-1",
        "--record-size",
        "10",
    ];

    #[test]
    fn a_plan_is_read() {
        let more = [
            "--command-property",
            "acks=1",
            "linger.ms=3",
            "--bootstrap-server",
            "h:1",
        ];
        let (plan, properties) = read_of(&[&GOOD[..], &more].concat()).unwrap();
        assert_eq!(
            (plan.records, plan.rate, plan.payload),
            (5, -1.0, Payload::Letters(10))
        );
        assert_eq!(
            (plan.interval_ms, plan.warmup_records, plan.transaction),
            (5000, 0, None)
        );
        for (key, value) in [
            ("acks", "1"),
            ("linger.ms", "3"),
            ("bootstrap.servers", "h:1"),
            ("client.id", "perf-producer-client"),
        ] {
            assert_eq!(properties[key], value);
        }
    }

    #[test]
    fn wrong_arguments_are_told() {
        let why = |arguments: &[&str]| match read_of(arguments) {
            Err(Stop::Usage(why) | Stop::Failed(why)) => why,
            other => panic!("{other:?}"),
        };
        let error = |why: &str| format!("kafka-producer-perf-test: error: {why}");
        assert_eq!(
            why(&["--topic", "t"]),
            error("argument --num-records is required")
        );
        assert_eq!(
            why(&GOOD[..6]),
            error(
                "one of the arguments --record-size --payload-file --payload-monotonic is required"
            )
        );
        assert_eq!(
            why(&[&GOOD[..], &["--payload-monotonic"]].concat()),
            error("argument --payload-monotonic: not allowed with argument --record-size")
        );
        assert!(why(&GOOD).contains("At least one of --bootstrap-server"));
        assert!(
            why(&[
                &GOOD[..],
                &["--bootstrap-server", "h:1", "--warmup-records", "5"]
            ]
            .concat())
            .contains("strictly fewer")
        );
        assert_eq!(
            why(&[&GOOD[..], &["--producer-props", "acks"]].concat()),
            "Invalid property: acks"
        );
    }

    #[test]
    fn a_transaction_gets_an_id() {
        let more = [
            "--bootstrap-server",
            "h:1",
            "--transaction-duration-ms",
            "10",
        ];
        let (plan, properties) = read_of(&[&GOOD[..], &more].concat()).unwrap();
        assert_eq!(plan.transaction, Some(Duration::from_millis(10)));
        assert!(properties["transactional.id"].starts_with("performance-producer-"));
    }

    #[test]
    fn payload_files_are_cut() {
        assert_eq!(cut("a\nb\n", "\n"), [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(
            cut("a,,b", ","),
            [b"a".to_vec(), b"".to_vec(), b"b".to_vec()]
        );
    }
}
