//! `get-offsets`: the offsets of partitions at a time or a named place. Main thread.

use clap::{Arg, ArgMatches};

use super::admin::{Admin, AdminError, TopicPartition, show};
use super::args::{self, Found, flag, text};
use super::regex::Whole;
use super::{Help, Outcome, Stop, Tool, out};

/// The tool.
pub const TOOL: Tool = Tool {
    name: "get-offsets",
    about: "An interactive shell for getting topic-partition offsets.",
    options,
    run,
    help: Help::Fails,
};

fn options() -> Vec<Arg> {
    vec![
        text(
            "bootstrap-server",
            "HOST1:PORT1,...,HOST3:PORT3",
            "REQUIRED. The server(s) to connect to.",
        ),
        text(
            "topic-partitions",
            "topic1:1,topic2:0-3,topic3,topic4:5-,topic5:-3",
            "Patterns of topics, each with a partition, a range (upper end exclusive), or none for all.",
        ),
        text(
            "topic",
            "topic",
            "The topic, also as a regular expression; all when left out.",
        ),
        text(
            "partitions",
            "partition ids",
            "Partition ids, separated by commas; all when left out.",
        ),
        text(
            "time",
            "<timestamp> / -1 or latest / -2 or earliest / -3 or max-timestamp / -4 or earliest-local / -5 or latest-tiered / -6 or earliest-pending-upload",
            "The time in milliseconds, or a place; default latest.",
        ),
        text(
            "command-config",
            "config file",
            "A file of admin client properties.",
        ),
        flag("exclude-internal-topics", "Leave out internal topics."),
    ]
}

fn run(found: &ArgMatches) -> Outcome {
    args::require(found, &["bootstrap-server"])?;
    args::check_bootstrap(found.text("bootstrap-server").unwrap_or_default())?;
    fetch(found).map_err(|why| match why {
        Stop::Failed(why) => Stop::Failed(format!("Error occurred: {why}")),
        other => other,
    })
}

fn fetch(found: &ArgMatches) -> Outcome {
    let failed = |error: AdminError| Stop::Failed(error.message);
    if found.has("topic-partitions") && (found.has("topic") || found.has("partitions")) {
        return Err(Stop::Failed(
            "--topic-partitions cannot be used with --topic or --partitions".to_owned(),
        ));
    }
    let timestamp = parse_time(found.text("time").unwrap_or("latest")).map_err(Stop::Failed)?;
    let rules = match found.text("topic-partitions") {
        Some(list) => list
            .split(',')
            .map(parse_rule)
            .collect::<Result<Vec<Rule>, String>>(),
        None => one_rule(found.text("topic"), found.text("partitions")).map(|rule| vec![rule]),
    };
    let rules = rules.map_err(Stop::Failed)?;
    let mut admin = Admin::new(found, "GetOffsetShell")?;
    let topics = admin
        .list_topics(!found.has("exclude-internal-topics"))
        .map_err(failed)?;
    let names: Vec<String> = topics
        .into_iter()
        .map(|topic| topic.name)
        .filter(|name| rules.iter().any(|rule| rule.topic.matches(name)))
        .collect();
    let described = admin.describe_topics(&names, 2000).map_err(failed)?;
    let mut partitions: Vec<TopicPartition> = Vec::new();
    for topic in described {
        for info in &topic.partitions {
            if rules.iter().any(|rule| {
                rule.topic.matches(&topic.name) && rule.partitions.allow(info.partition)
            }) {
                partitions.push((topic.name.clone(), info.partition));
            }
        }
    }
    if partitions.is_empty() {
        return Err(Stop::Failed(
            "Could not match any topic-partitions with the specified filters".to_owned(),
        ));
    }
    let offsets = admin.list_offsets(&partitions, timestamp).map_err(failed)?;
    // Kafka sorts by the text `topic-partition`: t-10 comes before t-2.
    partitions.sort_by_key(show);
    for partition in partitions {
        match offsets.get(&partition) {
            Some(Ok(-1)) | None => {}
            Some(Ok(offset)) => out::line(&format!("{}:{}:{offset}", partition.0, partition.1)),
            Some(Err(error)) => {
                eprintln!(
                    "Skip getting offsets for topic-partition {} due to error: {}",
                    show(&partition),
                    error.java()
                );
            }
        }
    }
    Ok(())
}

fn parse_time(text: &str) -> Result<i64, String> {
    Ok(match text {
        "latest" => -1,
        "earliest" => -2,
        "max-timestamp" => -3,
        "earliest-local" => -4,
        "latest-tiered" => -5,
        "earliest-pending-upload" => -6,
        number => number.parse().map_err(|_| {
            format!(
                "Malformed time argument {text}. Please use -1 or latest / -2 or earliest / -3 or max-timestamp / -4 or earliest-local / -5 or latest-tiered / -6 or earliest-pending-upload, or a specified long format timestamp"
            )
        })?,
    })
}

/// Which partitions of which topics.
struct Rule {
    topic: Whole,
    partitions: Partitions,
}

#[derive(Debug, PartialEq, Eq)]
enum Partitions {
    /// These; all when empty.
    Set(Vec<i32>),
    /// From the first to before the last.
    Range(i32, i32),
}

impl Partitions {
    fn allow(&self, partition: i32) -> bool {
        match self {
            Partitions::Set(set) => set.is_empty() || set.contains(&partition),
            Partitions::Range(from, to) => (*from..*to).contains(&partition),
        }
    }
}

fn one_rule(topic: Option<&str>, partitions: Option<&str>) -> Result<Rule, String> {
    let set = match partitions {
        None | Some("") => Ok(Vec::new()),
        Some(list) => list
            .split(',')
            .map(|id| id.parse::<i32>().map_err(|_| list))
            .collect(),
    };
    let set = set.map_err(|list| {
        format!("--partitions expects a comma separated list of numeric partition ids, but received: {list}")
    })?;
    Ok(Rule {
        topic: Whole::filter(topic.unwrap_or(".*"))?,
        partitions: Partitions::Set(set),
    })
}

/// `topic`, `topic:1`, `topic:1-3`, `topic:1-`, `topic:-3`, each also without the topic.
fn parse_rule(text: &str) -> Result<Rule, String> {
    let wrong = || format!("Invalid rule specification: {text}");
    let (topic, partitions) = match text.split_once(':') {
        Some((topic, partitions)) => (topic, Some(partitions)),
        None => (text, None),
    };
    let number = |digits: &str, default: i32| {
        if digits.is_empty() {
            return Ok(default);
        }
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        digits
            .parse::<i32>()
            .map_err(|_| format!("For input string: \"{digits}\""))
    };
    let partitions = match partitions {
        None | Some("") => Partitions::Range(0, i32::MAX),
        Some(range) => match range.split_once('-') {
            Some((from, to)) => Partitions::Range(number(from, 0)?, number(to, i32::MAX)?),
            None => Partitions::Set(vec![number(range, 0)?]),
        },
    };
    let topic = Whole::filter(if topic.is_empty() { ".*" } else { topic })?;
    Ok(Rule { topic, partitions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_words_or_numbers() {
        for (text, time) in [
            ("latest", -1),
            ("earliest", -2),
            ("-3", -3),
            ("1700000000000", 1_700_000_000_000),
        ] {
            assert_eq!(parse_time(text), Ok(time));
        }
        assert!(
            parse_time("soon")
                .unwrap_err()
                .starts_with("Malformed time argument soon. Please use -1 or latest")
        );
    }

    #[test]
    fn rules_name_topics_and_partitions() {
        let allows = |rule: &str, topic: &str, partition: i32| {
            let rule = parse_rule(rule).unwrap();
            rule.topic.matches(topic) && rule.partitions.allow(partition)
        };
        assert!(allows("t", "t", 9) && !allows("t", "tt", 0));
        assert!(allows("t.*:1", "tx", 1) && !allows("t.*:1", "tx", 0));
        assert!(allows("t:1-3", "t", 2) && !allows("t:1-3", "t", 3));
        assert!(allows("t:2-", "t", 99) && !allows("t:2-", "t", 1));
        assert!(allows("t:-2", "t", 1) && !allows("t:-2", "t", 2));
        assert!(allows(":5", "anything", 5));
        assert_eq!(
            parse_rule("t:a").err().as_deref(),
            Some("Invalid rule specification: t:a")
        );
        assert_eq!(
            parse_rule("t:1-2-3").err().as_deref(),
            Some("Invalid rule specification: t:1-2-3")
        );
    }

    #[test]
    fn partition_lists_are_numbers() {
        assert!(one_rule(None, Some("0,2")).unwrap().partitions.allow(2));
        assert!(!one_rule(None, Some("0,2")).unwrap().partitions.allow(1));
        assert_eq!(
            one_rule(None, Some("a")).err().as_deref(),
            Some(
                "--partitions expects a comma separated list of numeric partition ids, but received: a"
            )
        );
    }
}
