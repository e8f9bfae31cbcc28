//! `e2e-latency`: how long a record takes through the broker and back. Main thread; `bench` does the work.

use std::borrow::Cow;

use bench::clock;
use bench::e2e_latency::{self, Plan};
use bench::native_perf;
use clap::{Arg, ArgMatches};
use net::client::Target;
use net::kafka::create_topics::{CreatableTopic, CreateTopicsRequest};

use super::admin::{Admin, AdminError, check};
use super::args::{self, Found, int, maybe, text};
use super::kafka_config::{self, Properties};
use super::{Help, Outcome, Stop, Tool, command, out, properties};

/// The tool.
pub const TOOL: Tool = Tool {
    name: "e2e-latency",
    about: "This tool measures end-to-end latency in Kafka by sending messages and timing their reception.",
    options,
    run,
    help: Help::Fails,
};

/// The order of the old positional form.
const POSITIONS: [&str; 6] = [
    "bootstrap-server",
    "topic",
    "num-records",
    "producer-acks",
    "record-size",
    "command-config",
];

fn options() -> Vec<Arg> {
    let number = |name: &'static str, help: &'static str| {
        maybe(name, "bytes", help)
            .value_parser(clap::value_parser!(i32))
            .default_missing_value("0")
            .allow_hyphen_values(true)
    };
    vec![
        text(
            "bootstrap-server",
            "bootstrap-server",
            "REQUIRED: The brokers, as HOST1:PORT1,HOST2:PORT2.",
        ),
        text(
            "topic",
            "topic-name",
            "REQUIRED: The topic to use for the test.",
        ),
        int(
            "num-records",
            "count",
            "REQUIRED: The number of messages to send.",
        ),
        text(
            "producer-acks",
            "producer-acks",
            "REQUIRED: Producer acknowledgements: '1' or 'all'.",
        ),
        int(
            "record-size",
            "bytes",
            "REQUIRED: The size of each message payload in bytes.",
        ),
        number(
            "record-key-size",
            "The size of the message key in bytes; default 0.",
        ),
        number(
            "record-header-key-size",
            "The size of a header's key in bytes; default 0.",
        ),
        number(
            "record-header-size",
            "The size of a header's value in bytes, -1 for null; default 0.",
        ),
        number(
            "num-headers",
            "The number of headers of each message; default 0.",
        ),
        text(
            "command-config",
            "config-file",
            "A file of client properties.",
        ),
    ]
}

fn run(found: &ArgMatches) -> Outcome {
    match positions(found)? {
        None => measure(found),
        Some(arguments) => {
            out::line(
                "WARNING: Positional argument usage is deprecated and will be removed in Apache Kafka 5.0. Please use named arguments instead: --bootstrap-server, --topic, --num-records, --producer-acks, --record-size, --command-config",
            );
            match command(&TOOL)
                .no_binary_name(true)
                .try_get_matches_from(arguments)
            {
                Ok(found) => measure(&found),
                Err(error) => Err(Stop::Usage(super::parse_failure(&error))),
            }
        }
    }
}

/// The named form of positional arguments, if that is how the tool was called.
fn positions(found: &ArgMatches) -> Result<Option<Vec<String>>, Stop> {
    if POSITIONS[..5].iter().any(|name| found.has(name)) {
        return Ok(None);
    }
    let values = found.texts("ignored");
    if values.len() != 5 && values.len() != 6 {
        return Err(Stop::Failed(format!(
            "Invalid number of arguments. Expected 5 or 6 positional arguments, but got {}. Usage: bootstrap-server topic num-records producer-acks record-size [optional] command-config",
            values.len()
        )));
    }
    let named = POSITIONS.iter().zip(values);
    Ok(Some(
        named
            .flat_map(|(name, value)| [format!("--{name}"), value.to_owned()])
            .collect(),
    ))
}

fn check_options(found: &ArgMatches) -> Result<Plan, Stop> {
    args::require(found, &POSITIONS[..5])?;
    let wrong = |why: &str| Err(Stop::Usage(why.to_owned()));
    let number = |name: &str| found.int(name).unwrap_or(0);
    if !matches!(found.text("producer-acks"), Some("1" | "all")) {
        return wrong(
            "Invalid value for --producer-acks. Latency testing requires synchronous acknowledgement. Please use '1' or 'all'.",
        );
    }
    if number("num-records") <= 0 {
        return wrong("Value for --num-records must be a positive integer.");
    }
    for name in ["record-size", "record-key-size", "record-header-key-size"] {
        if number(name) < 0 {
            return wrong(&format!(
                "Value for --{name} must be a non-negative integer."
            ));
        }
    }
    if number("record-header-size") < -1 {
        return wrong(
            "Value for --record-header-size must be a non-negative integer or -1 for null header value.",
        );
    }
    if number("num-headers") < 0 {
        return wrong("Value for --num-headers must be a non-negative integer.");
    }
    Ok(Plan {
        topic: found.text("topic").unwrap_or_default().to_owned(),
        records: number("num-records") as u64,
        value_bytes: number("record-size") as usize,
        key_bytes: number("record-key-size") as usize,
        headers: number("num-headers") as usize,
        header_key_bytes: number("record-header-key-size") as usize,
        header_value_bytes: usize::try_from(number("record-header-size")).ok(),
    })
}

fn measure(found: &ArgMatches) -> Outcome {
    let plan = check_options(found)?;
    let mut shared = match found.text("command-config") {
        Some(path) => properties::load(path)?,
        None => Properties::new(),
    };
    shared.insert(
        "bootstrap.servers".to_owned(),
        found
            .text("bootstrap-server")
            .unwrap_or_default()
            .to_owned(),
    );
    if native_perf::address(&shared).is_some() {
        let acks = found.text("producer-acks").unwrap_or("all");
        shared.insert("acks".to_owned(), acks.to_owned());
        return native_perf::end_to_end(&shared, &plan, &mut std::io::stdout())
            .map(|_| ())
            .map_err(|failure| Stop::Failed(failure.to_string()));
    }
    let mut admin = Admin::with_config(&shared, "adminclient-1", None)?;
    ensure_topic(&mut admin, &plan.topic).map_err(|error| Stop::Failed(error.java()))?;
    let with = |pairs: &[(&str, &str)]| {
        let mut properties = shared.clone();
        properties.extend(
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
        );
        properties
    };
    let acks = found.text("producer-acks").unwrap_or("all");
    let producer = kafka_config::producer(&with(&[("linger.ms", "0"), ("acks", acks)]))?;
    let group = format!("test-group-{}", clock::wall_ms());
    let consumer = kafka_config::consumer(&with(&[
        ("group.id", &group),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "latest"),
        ("fetch.max.wait.ms", "0"),
    ]))?;
    e2e_latency::run(&producer, &consumer, &plan, &mut std::io::stdout())
        .map(|_| ())
        .map_err(|failure| Stop::Failed(failure.to_string()))
}

fn ensure_topic(admin: &mut Admin, topic: &str) -> Result<(), AdminError> {
    if admin
        .list_topics(true)?
        .iter()
        .any(|found| found.name == topic)
    {
        return Ok(());
    }
    out::line(&format!(
        "Topic \"{topic}\" does not exist. Will create topic with 1 partition(s) and replication factor = 1"
    ));
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: Cow::Borrowed(topic),
            num_partitions: 1,
            replication_factor: 1,
            ..CreatableTopic::default()
        }],
        timeout_ms: admin.client.call_timeout_ms(),
        validate_only: false,
    };
    let created = admin.client.call(Target::Any, &request, |response, _| {
        response
            .topics
            .into_iter()
            .try_for_each(|result| check(result.error_code, result.error_message))
    })?;
    if created.is_err() {
        out::line(&format!("Creation of topic {topic} failed"));
    }
    created
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> ArgMatches {
        command(&TOOL)
            .no_binary_name(true)
            .get_matches_from(arguments)
    }

    #[test]
    fn the_positional_form_is_turned_into_the_named_one() {
        let named = positions(&parse(&["h:1", "t", "10", "all", "100"]))
            .unwrap()
            .unwrap();
        assert_eq!(named[..4], ["--bootstrap-server", "h:1", "--topic", "t"]);
        let words: Vec<&str> = named.iter().map(String::as_str).collect();
        let plan = check_options(&parse(&words)).unwrap();
        assert_eq!(
            (plan.records, plan.value_bytes, plan.header_value_bytes),
            (10, 100, Some(0))
        );
        assert!(matches!(positions(&parse(&["h:1"])), Err(Stop::Failed(_))));
        assert_eq!(positions(&parse(&["--topic", "t"])), Ok(None));
    }

    #[test]
    fn values_are_checked() {
        let good = [
            "--bootstrap-server",
            "h:1",
            "--topic",
            "t",
            "--num-records",
            "1",
            "--record-size",
            "1",
            "--producer-acks",
        ];
        let why = |more: &[&str]| match check_options(&parse(&[&good[..], more].concat())) {
            Err(Stop::Usage(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(why(&["0"]).starts_with("Invalid value for --producer-acks."));
        assert!(why(&["1", "--record-header-size", "-2"]).contains("or -1 for null header value"));
        assert!(
            why(&["1", "--num-headers", "-1"]).contains("--num-headers must be a non-negative")
        );
        let plan = check_options(&parse(
            &[&good[..], &["1", "--record-header-size", "-1"]].concat(),
        ))
        .unwrap();
        assert_eq!(plan.header_value_bytes, None);
    }
}
