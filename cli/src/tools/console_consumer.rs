//! `console-consumer`: prints records to standard output. Main thread; librdkafka's threads fetch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bench::clock;
use bench::context::{Quiet, log_line};
use bench::payload::Random;
use clap::{Arg, ArgMatches};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message, Timestamp};
use rdkafka::{Offset, TopicPartitionList};

use super::args::{self, Found, flag, int, long, many, text};
use super::formatter::{self, Formatter, Shown, Stamp};
use super::kafka_config::{self, Properties, merge};
use super::regex::Whole;
use super::topic_choice::Choice;
use super::{Help, Outcome, Stop, Tool, out, properties};

/// The tool.
pub const TOOL: Tool = Tool {
    name: "console-consumer",
    about: "This tool helps to read data from Kafka topics and outputs it to standard output.",
    options,
    run,
    help: Help::Fails,
};

fn options() -> Vec<Arg> {
    vec![
        text("topic", "topic", "The topic to consume from."),
        text(
            "include",
            "Java regex (String)",
            "Regular expression of the topics to consume from.",
        ),
        int(
            "partition",
            "partition",
            "The partition to consume from, from its end unless --offset says otherwise.",
        ),
        text(
            "offset",
            "consume offset",
            "The offset to start at, or 'earliest' or 'latest' (default).",
        ),
        many(
            "consumer-property",
            "consumer_prop",
            "(DEPRECATED) Use --command-property.",
        ),
        many(
            "command-property",
            "consumer_prop",
            "A consumer property, as key=value.",
        ),
        text(
            "consumer.config",
            "config file",
            "(DEPRECATED) Use --command-config.",
        ),
        text(
            "command-config",
            "config file",
            "A file of consumer properties; --command-property wins.",
        ),
        text(
            "formatter",
            "class",
            "The formatter's class: Default-, Logging- or NoOpMessageFormatter.",
        ),
        many("property", "prop", "(DEPRECATED) Use --formatter-property."),
        many(
            "formatter-property",
            "prop",
            "print.timestamp, print.key, print.offset, print.epoch, print.partition, print.headers, print.value, \
             key.separator, line.separator, headers.separator, null.literal, key.deserializer, value.deserializer, \
             headers.deserializer, as key=value.",
        ),
        text(
            "formatter-config",
            "config file",
            "A file of formatter properties; --formatter-property wins.",
        ),
        flag(
            "from-beginning",
            "Start with the earliest message when the group has no position yet.",
        ),
        int(
            "max-messages",
            "num_messages",
            "Exit after so many messages.",
        ),
        long(
            "timeout-ms",
            "timeout_ms",
            "Exit when no message comes for so long.",
        ),
        flag(
            "skip-message-on-error",
            "Skip a message that cannot be printed instead of stopping.",
        ),
        text(
            "bootstrap-server",
            "server to connect to",
            "REQUIRED: The server(s) to connect to.",
        ),
        text(
            "key-deserializer",
            "deserializer for keys",
            "The class that turns keys into text.",
        ),
        text(
            "value-deserializer",
            "deserializer for values",
            "The class that turns values into text.",
        ),
        flag(
            "enable-systest-events",
            "Log lifecycle events of the consumer.",
        ),
        text(
            "isolation-level",
            "String",
            "read_committed or read_uncommitted (default).",
        ),
        text(
            "group",
            "consumer group id",
            "The consumer group id of the consumer.",
        ),
    ]
}

/// Where a single partition is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Earliest,
    Latest,
    At(i64),
}

fn run(found: &ArgMatches) -> Outcome {
    check(found)?;
    let mut properties = match found
        .text("command-config")
        .or(found.text("consumer.config"))
    {
        Some(path) => properties::load(path)?,
        None => Properties::new(),
    };
    let name = if found.has("consumer-property") {
        "consumer-property"
    } else {
        "command-property"
    };
    let extra: Properties = args::pairs(&found.texts(name)).into_iter().collect();
    complete(found, &mut properties, extra)?;
    let start = start(found)?;
    let formatter = make_formatter(found)?;
    let config = kafka_config::consumer(&properties)?;
    let consumer: BaseConsumer<Quiet> = config
        .create_with_context(Quiet::default())
        .map_err(|e| Stop::Failed(e.to_string()))?;
    let choice = subscribe(found, &consumer, start)?;
    let stop = Arc::new(AtomicUsize::new(0));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let _ = signal_hook::flag::register_usize(signal, Arc::clone(&stop), signal as usize);
    }
    let (count, ended) = consume(found, &consumer, choice, &formatter, &stop);
    out::flush();
    drop(consumer);
    eprintln!("Processed a total of {count} messages");
    if found.has("enable-systest-events") {
        out::line("shutdown_complete");
    }
    ended?;
    match stop.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => Err(Stop::Quiet(128 + signal as u8)),
    }
}

fn check(found: &ArgMatches) -> Outcome {
    args::exactly_one(found, &["topic", "include"])?;
    if found.has("partition") {
        if !found.has("topic") {
            return Err(Stop::Usage(
                "The topic is required when partition is specified.".to_owned(),
            ));
        }
        if found.has("from-beginning") && found.has("offset") {
            return Err(Stop::Usage(
                "Options from-beginning and offset cannot be specified together.".to_owned(),
            ));
        }
    } else if found.has("offset") {
        return Err(Stop::Usage(
            "The partition is required when offset is specified.".to_owned(),
        ));
    }
    args::require(found, &["bootstrap-server"])?;
    args::not_together(found, "consumer-property", "command-property")?;
    args::not_together(found, "consumer.config", "command-config")?;
    for (old, new) in [
        ("consumer-property", "command-property"),
        ("consumer.config", "command-config"),
    ] {
        if found.has(old) {
            out::line(&format!(
                "Option --{old} is deprecated and will be removed in a future version. Use --{new} instead."
            ));
        }
    }
    Ok(())
}

/// Adds what the options say to the properties of the file and of the command line.
fn complete(found: &ArgMatches, properties: &mut Properties, extra: Properties) -> Outcome {
    let mut groups: Vec<String> = Vec::new();
    let named = [
        found.text("group").map(str::to_owned),
        properties.get("group.id").cloned(),
        extra.get("group.id").cloned(),
    ];
    for group in named.into_iter().flatten() {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    if groups.len() > 1 {
        let list: Vec<String> = groups.iter().map(|group| format!("'{group}'")).collect();
        return Err(Stop::Usage(format!(
            "The group ids provided in different places (directly using '--group', via '--consumer-property', or via \
             '--consumer.config') do not match. Detected group ids: {}",
            list.join(", ")
        )));
    }
    if !groups.is_empty() && found.has("partition") {
        return Err(Stop::Usage(
            "Options group and partition cannot be specified together.".to_owned(),
        ));
    }
    properties.extend(extra);
    match properties.get("auto.offset.reset") {
        Some(reset) if found.has("from-beginning") && reset != "earliest" => {
            return Err(Stop::Failed(format!(
                "Can't simultaneously specify --from-beginning and 'auto.offset.reset={reset}', please remove one option"
            )));
        }
        Some(_) => {}
        None => {
            let reset = if found.has("from-beginning") {
                "earliest"
            } else {
                "latest"
            };
            properties.insert("auto.offset.reset".to_owned(), reset.to_owned());
        }
    }
    let bootstrap = found.text("bootstrap-server").unwrap_or_default();
    properties.insert("bootstrap.servers".to_owned(), bootstrap.to_owned());
    properties
        .entry("client.id".to_owned())
        .or_insert_with(|| "console-consumer".to_owned());
    let isolation = found.text("isolation-level").map(str::to_owned);
    merge(
        properties,
        "isolation.level",
        isolation,
        Some("read_uncommitted"),
    );
    match groups.pop() {
        Some(group) => {
            properties.insert("group.id".to_owned(), group);
        }
        None => {
            // A group made up here is of no use later: it leaves no offsets behind.
            let seed = clock::wall_ms() as u64 ^ u64::from(std::process::id()).rotate_left(32);
            let number = Random::new(seed).below(100_000);
            properties.insert("group.id".to_owned(), format!("console-consumer-{number}"));
            properties
                .entry("enable.auto.commit".to_owned())
                .or_insert_with(|| "false".to_owned());
        }
    }
    Ok(())
}

fn start(found: &ArgMatches) -> Result<Start, Stop> {
    let Some(offset) = found.text("offset") else {
        return Ok(if found.has("from-beginning") {
            Start::Earliest
        } else {
            Start::Latest
        });
    };
    match offset.to_ascii_lowercase().as_str() {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        number => match number.parse() {
            Ok(at) if at >= 0 => Ok(Start::At(at)),
            _ => Err(Stop::Usage(format!(
                "The provided offset value '{offset}' is incorrect. Valid values are 'earliest', 'latest', or a non-negative long."
            ))),
        },
    }
}

fn make_formatter(found: &ArgMatches) -> Result<Formatter, Stop> {
    args::not_together(found, "property", "formatter-property")?;
    if found.has("property") {
        out::line(
            "Option --property is deprecated and will be removed in a future version. Use --formatter-property instead.",
        );
    }
    let mut properties = match found.text("formatter-config") {
        Some(path) => properties::load(path)?,
        None => Properties::new(),
    };
    for (option, key) in [
        ("key-deserializer", "key.deserializer"),
        ("value-deserializer", "value.deserializer"),
    ] {
        if let Some(class) = found.text(option).filter(|class| !class.is_empty()) {
            properties.insert(key.to_owned(), class.to_owned());
        }
    }
    let name = if found.has("property") {
        "property"
    } else {
        "formatter-property"
    };
    properties.extend(args::pairs(&found.texts(name)));
    let class = found.text("formatter").unwrap_or(formatter::DEFAULT);
    Formatter::new(class, &properties).map_err(Stop::Usage)
}

fn subscribe(
    found: &ArgMatches,
    consumer: &BaseConsumer<Quiet>,
    start: Start,
) -> Result<Option<Choice>, Stop> {
    let failed = |e: KafkaError| Stop::Failed(e.to_string());
    match (found.text("topic"), found.int("partition")) {
        (Some(topic), Some(partition)) => {
            let offset = match start {
                Start::Earliest => Offset::Beginning,
                Start::Latest => Offset::End,
                Start::At(offset) => Offset::Offset(offset),
            };
            let mut assignment = TopicPartitionList::new();
            assignment
                .add_partition_offset(topic, partition, offset)
                .map_err(failed)?;
            consumer.assign(&assignment).map_err(failed)?;
            Ok(None)
        }
        (Some(topic), None) => {
            consumer.subscribe(&[topic]).map_err(failed)?;
            Ok(None)
        }
        (None, _) => {
            let pattern =
                Whole::new(found.text("include").unwrap_or_default()).map_err(Stop::Failed)?;
            let mut choice = Choice::new(pattern);
            choice.refresh(consumer).map_err(failed)?;
            Ok(Some(choice))
        }
    }
}

fn consume(
    found: &ArgMatches,
    consumer: &BaseConsumer<Quiet>,
    mut choice: Option<Choice>,
    formatter: &Formatter,
    stop: &AtomicUsize,
) -> (u64, Outcome) {
    let most = found.int("max-messages").filter(|most| *most != -1);
    let timeout = found
        .long("timeout-ms")
        .filter(|ms| *ms >= 0)
        .map(|ms| Duration::from_millis(ms as u64));
    let skip = found.has("skip-message-on-error");
    let mut count = 0_u64;
    let mut waiting_since = clock::now();
    let mut text = Vec::new();
    while most.is_none_or(|most| (count as i64) < i64::from(most)) {
        if stop.load(Ordering::Relaxed) != 0 {
            break;
        }
        let polled = match consumer.poll(Duration::ZERO) {
            None => {
                out::flush();
                let left = timeout.map(|timeout| timeout.saturating_sub(waiting_since.elapsed()));
                consumer.poll(
                    left.unwrap_or(Duration::MAX)
                        .min(Duration::from_millis(100)),
                )
            }
            some => some,
        };
        let message = match polled {
            Some(Ok(message)) => message,
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                return (count, Err(Stop::Failed(error.to_string())));
            }
            Some(Err(error)) => {
                log_line("WARN", &error.to_string());
                continue;
            }
            None => {
                if timeout.is_some_and(|timeout| waiting_since.elapsed() > timeout) {
                    log_line(
                        "ERROR",
                        "Error processing message, terminating consumer process: no message came in time",
                    );
                    break;
                }
                if let Some(choice) = &mut choice
                    && let Err(error) = choice.refresh(consumer)
                {
                    log_line("WARN", &error.to_string());
                }
                continue;
            }
        };
        waiting_since = clock::now();
        count += 1;
        text.clear();
        let shown = Shown {
            partition: message.partition(),
            offset: message.offset(),
            stamp: match message.timestamp() {
                Timestamp::NotAvailable => Stamp::None,
                Timestamp::CreateTime(ms) => Stamp::Created(ms),
                Timestamp::LogAppendTime(ms) => Stamp::Appended(ms),
            },
            key: message.key(),
            value: message.payload(),
            headers: message
                .headers()
                .into_iter()
                .flat_map(Headers::iter)
                .map(|header| (header.key, header.value))
                .collect(),
        };
        match formatter.write(&shown, &mut text) {
            Ok(()) => out::bytes(&text),
            Err(why) if skip => log_line(
                "ERROR",
                &format!("Error processing message, skipping this message: {why}"),
            ),
            Err(why) => return (count, Err(Stop::Failed(why))),
        }
        if out::is_broken() {
            eprintln!("Unable to write to standard out, closing consumer.");
            break;
        }
    }
    (count, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> ArgMatches {
        super::super::command(&TOOL)
            .no_binary_name(true)
            .get_matches_from(arguments)
    }

    fn properties(arguments: &[&str], extra: &[(&str, &str)]) -> Result<Properties, Stop> {
        let mut properties = Properties::new();
        let extra = extra
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        complete(&parse(arguments), &mut properties, extra)?;
        Ok(properties)
    }

    #[test]
    fn options_exclude_each_other_as_in_kafka() {
        let why = |arguments: &[&str]| match check(&parse(arguments)) {
            Err(Stop::Usage(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            why(&["--bootstrap-server", "h:1"]),
            "Exactly one of the following arguments is required: [topic], [include]"
        );
        assert_eq!(
            why(&["--include", "a", "--partition", "0"]),
            "The topic is required when partition is specified."
        );
        assert_eq!(
            why(&["--topic", "a", "--offset", "0"]),
            "The partition is required when offset is specified."
        );
        assert_eq!(
            why(&["--topic", "a"]),
            "Missing required argument \"[bootstrap-server]\""
        );
        assert_eq!(
            check(&parse(&["--topic", "a", "--bootstrap-server", "h:1"])),
            Ok(())
        );
    }

    #[test]
    fn a_group_that_was_not_named_leaves_no_offsets() {
        let made_up = properties(&["--topic", "t"], &[]).unwrap();
        assert!(made_up["group.id"].starts_with("console-consumer-"));
        assert_eq!(made_up["enable.auto.commit"], "false");
        assert_eq!(made_up["auto.offset.reset"], "latest");
        let named = properties(&["--topic", "t", "--group", "g", "--from-beginning"], &[]).unwrap();
        assert_eq!(named["group.id"], "g");
        assert_eq!(named.get("enable.auto.commit"), None);
        assert_eq!(named["auto.offset.reset"], "earliest");
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(matches!(
            properties(&["--group", "a"], &[("group.id", "b")]),
            Err(Stop::Usage(_))
        ));
        assert!(properties(&["--group", "a"], &[("group.id", "a")]).is_ok());
        assert!(matches!(
            properties(&["--from-beginning"], &[("auto.offset.reset", "latest")]),
            Err(Stop::Failed(_))
        ));
        assert!(matches!(
            properties(&["--group", "a", "--topic", "t", "--partition", "0"], &[]),
            Err(Stop::Usage(_))
        ));
    }

    #[test]
    fn offsets_are_words_or_numbers() {
        for (text, expected) in [
            ("Earliest", Start::Earliest),
            ("latest", Start::Latest),
            ("7", Start::At(7)),
        ] {
            assert_eq!(start(&parse(&["--offset", text])), Ok(expected));
        }
        assert!(start(&parse(&["--offset", "-1"])).is_err());
        assert_eq!(start(&parse(&["--from-beginning"])), Ok(Start::Earliest));
    }
}
