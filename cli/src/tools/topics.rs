//! `topics`: creates, lists, describes, changes and deletes topics. Main thread.

use std::borrow::Cow;

use clap::{Arg, ArgMatches};
use net::client::Target;
use net::kafka::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use net::kafka::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use net::kafka::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use net::kafka::error::ErrorCode;
use uuid::Uuid;

use super::admin::{
    Admin, AdminError, ConfigEntry, PartitionInfo, TopicDescription, check, resource,
};
use super::args::{self, Found, flag, int, many, text};
use super::regex::{Whole, is_internal};
use super::{Help, Outcome, Stop, Tool, java, out};

/// The tool.
pub const TOOL: Tool = Tool {
    name: "topics",
    about: "This tool helps to create, delete, describe, or change a topic.",
    options,
    run,
    help: Help::Fails,
};

const ACTIONS: [&str; 5] = ["alter", "create", "describe", "list", "delete"];
const REPORTS: [&str; 4] = [
    "under-replicated-partitions",
    "under-min-isr-partitions",
    "at-min-isr-partitions",
    "unavailable-partitions",
];
/// `DEFAULT_CONFIG` as a config's source.
const SOURCE_DEFAULT: i8 = 5;

fn options() -> Vec<Arg> {
    vec![
        text(
            "bootstrap-server",
            "server to connect to",
            "REQUIRED: The Kafka server to connect to.",
        ),
        text(
            "command-config",
            "command config property file",
            "A file of admin client properties.",
        ),
        flag("list", "List all available topics."),
        flag("create", "Create a new topic."),
        flag("delete", "Delete a topic."),
        flag(
            "alter",
            "Alter the number of partitions and replica assignment. (kafka-configs alters topic configurations.)",
        ),
        flag("describe", "List details for the given topics."),
        text(
            "topic",
            "topic",
            "The topic; a regular expression, except for --create.",
        ),
        text("topic-id", "topic-id", "The topic-id to describe."),
        many(
            "config",
            "name=value",
            "A topic configuration for the topic being created.",
        ),
        many("delete-config", "name", "No longer supported."),
        int(
            "partitions",
            "# of partitions",
            "The number of partitions; the cluster's default when left out.",
        ),
        int(
            "replication-factor",
            "replication factor",
            "Replicas of each partition; the cluster's default when left out.",
        ),
        text(
            "replica-assignment",
            "b1:b2,b3:b4,...",
            "Brokers of each partition, by hand.",
        ),
        flag(
            "under-replicated-partitions",
            "When describing, only show under-replicated partitions.",
        ),
        flag(
            "unavailable-partitions",
            "When describing, only show partitions whose leader is not available.",
        ),
        flag(
            "under-min-isr-partitions",
            "When describing, only show partitions with fewer in sync than the minimum.",
        ),
        flag(
            "at-min-isr-partitions",
            "When describing, only show partitions with just the minimum in sync.",
        ),
        flag(
            "topics-with-overrides",
            "When describing, only show topics that have overridden configs.",
        ),
        flag("if-exists", "Act only if the topic exists."),
        flag(
            "if-not-exists",
            "Do not fail to create a topic that exists.",
        ),
        flag("exclude-internal", "Leave out internal topics."),
        int(
            "partition-size-limit-per-response",
            "maximum number of partitions per response",
            "Partitions in one answer; default 2000.",
        ),
    ]
}

fn run(found: &ArgMatches) -> Outcome {
    check_options(found)?;
    let mut admin = Admin::new(found, "adminclient-1")?;
    let done = match ACTIONS.into_iter().find(|action| found.has(action)) {
        Some("create") => create(&mut admin, found),
        Some("alter") => alter(&mut admin, found),
        Some("list") => list(&mut admin, found),
        Some("describe") => describe(&mut admin, found),
        _ => delete(&mut admin, found),
    };
    done.map_err(|why| {
        out::line(&format!("Error while executing topic command : {why}"));
        Stop::Quiet(1)
    })
}

impl From<AdminError> for String {
    fn from(error: AdminError) -> String {
        error.message
    }
}

fn check_options(found: &ArgMatches) -> Outcome {
    if ACTIONS.iter().filter(|action| found.has(action)).count() != 1 {
        return Err(Stop::Usage(
            "Command must include exactly one action: --list, --describe, --create, --alter or --delete".to_owned(),
        ));
    }
    if found.has("delete-config") {
        eprintln!(
            "delete-config option is no longer supported and deprecated since version 4.0. The config will be fully removed in future releases."
        );
    }
    if !found.has("bootstrap-server") {
        return Err(Stop::Failed(
            "--bootstrap-server must be specified".to_owned(),
        ));
    }
    if found.has("describe") && found.has("if-exists") {
        if !found.has("topic") && !found.has("topic-id") {
            return Err(Stop::Usage(
                "--topic or --topic-id is required to describe a topic".to_owned(),
            ));
        }
        if found.has("topic") && found.has("topic-id") {
            out::line(
                "Only topic id will be used when both --topic and --topic-id are specified and topicId is not Uuid.ZERO_UUID",
            );
        }
    }
    if !found.has("list") && !found.has("describe") {
        args::require(found, &["topic"])?;
    }
    if found.has("alter") {
        if found.has("config") {
            return Err(Stop::Usage(
                "Option combination \"[bootstrap-server],[config]\" can't be used with option \"[alter]\" (To alter topic configurations, the kafka-configs tool can be used.)"
                    .to_owned(),
            ));
        }
        args::require(found, &["partitions"])?;
    }
    let other = |allowed: &[&str], more: &[&'static str]| -> Vec<&'static str> {
        ACTIONS
            .into_iter()
            .filter(|action| !allowed.contains(action))
            .chain(more.iter().copied())
            .collect()
    };
    args::exclude(found, "config", &other(&["alter", "create"], &[]))?;
    args::exclude(found, "partitions", &other(&["alter", "create"], &[]))?;
    args::exclude(found, "replication-factor", &other(&["create"], &[]))?;
    args::exclude(
        found,
        "replica-assignment",
        &other(&["alter", "create"], &[]),
    )?;
    if found.has("create") {
        args::exclude(
            found,
            "replica-assignment",
            &["partitions", "replication-factor"],
        )?;
    }
    for report in REPORTS {
        args::exclude(
            found,
            report,
            &other(&["describe"], &["topics-with-overrides"]),
        )?;
    }
    args::exclude(
        found,
        "topics-with-overrides",
        &other(&["describe"], &REPORTS),
    )?;
    args::exclude(
        found,
        "if-exists",
        &other(&["alter", "delete", "describe"], &[]),
    )?;
    args::exclude(found, "if-not-exists", &other(&["create"], &[]))?;
    args::exclude(
        found,
        "exclude-internal",
        &other(&["list", "describe"], &[]),
    )
}

/// `1:2,3:4`: the brokers of partition 0, of partition 1, and so on.
fn parse_assignment(text: &str) -> Result<Vec<Vec<i32>>, String> {
    let mut partitions: Vec<Vec<i32>> = Vec::new();
    for (index, part) in text.split(',').enumerate() {
        let mut brokers: Vec<i32> = Vec::new();
        let mut twice: Vec<String> = Vec::new();
        for broker in part.split(':') {
            let broker = broker.trim();
            let id = broker
                .parse()
                .map_err(|_| format!("For input string: \"{broker}\""))?;
            if brokers.contains(&id) {
                twice.push(id.to_string());
            }
            brokers.push(id);
        }
        if !twice.is_empty() {
            return Err(format!(
                "Partition replica lists may not contain duplicate entries: {}",
                twice.join(",")
            ));
        }
        if partitions
            .first()
            .is_some_and(|first| first.len() != brokers.len())
        {
            return Err(format!(
                "Partition {index} has different replication factor: {brokers:?}"
            ));
        }
        partitions.push(brokers);
    }
    Ok(partitions)
}

fn assignment(found: &ArgMatches) -> Result<Vec<Vec<i32>>, String> {
    match found.text("replica-assignment") {
        None | Some("") => Ok(Vec::new()),
        Some(text) => parse_assignment(text),
    }
}

/// Configs as `key=value`; the last one of a key wins.
fn parse_configs(texts: &[&str]) -> Result<Vec<(String, String)>, String> {
    let mut configs: Vec<(String, String)> = Vec::new();
    for text in texts {
        let mut parts = text.split('=').map(str::trim);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(key), Some(value), None) if !value.is_empty() => {
                configs.retain(|(earlier, _)| earlier != key);
                configs.push((key.to_owned(), value.to_owned()));
            }
            _ => {
                return Err(
                    "requirement failed: Invalid topic config: all configs to be added must be in the format \"key=val\"."
                        .to_owned(),
                );
            }
        }
    }
    Ok(configs)
}

fn create(admin: &mut Admin, found: &ArgMatches) -> Result<(), String> {
    let name = found.text("topic").expect("required above");
    let assignment = assignment(found)?;
    let configs = parse_configs(&found.texts("config"))?;
    if name.contains(['.', '_']) {
        out::line(
            "WARNING: Due to limitations in metric names, topics with a period ('.') or underscore ('_') could collide. To avoid issues it is best to use either, but not both.",
        );
    }
    if found
        .int("replication-factor")
        .is_some_and(|factor| !(1..=i32::from(i16::MAX)).contains(&factor))
    {
        return Err("The replication factor must be between 1 and 32767 inclusive".to_owned());
    }
    if found.int("partitions").is_some_and(|count| count < 1) {
        return Err("The partitions must be greater than 0".to_owned());
    }
    let by_hand = !assignment.is_empty();
    let topic = CreatableTopic {
        name: Cow::Borrowed(name),
        num_partitions: if by_hand {
            -1
        } else {
            found.int("partitions").unwrap_or(-1)
        },
        replication_factor: if by_hand {
            -1
        } else {
            found
                .int("replication-factor")
                .map_or(-1, |factor| factor as i16)
        },
        assignments: assignment
            .into_iter()
            .zip(0..)
            .map(|(broker_ids, partition_index)| CreatableReplicaAssignment {
                partition_index,
                broker_ids,
            })
            .collect(),
        configs: configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig {
                name: Cow::Borrowed(name),
                value: Some(Cow::Borrowed(value)),
            })
            .collect(),
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: admin.client.call_timeout_ms(),
        validate_only: false,
    };
    let created = admin
        .client
        .call(Target::Any, &request, |response, _| {
            match response.topics.into_iter().next() {
                Some(result) => check(result.error_code, result.error_message),
                None => Err(AdminError::new(ErrorCode::UnknownServerError, None)),
            }
        })
        .map_err(AdminError::from)?;
    match created {
        Ok(()) => {
            out::line(&format!("Created topic {name}."));
            Ok(())
        }
        Err(error)
            if error.code == Some(ErrorCode::TopicAlreadyExists) && found.has("if-not-exists") =>
        {
            Ok(())
        }
        Err(error) => Err(error.message),
    }
}

/// The topics that `--topic` matches, sorted.
fn chosen(admin: &mut Admin, found: &ArgMatches) -> Result<Vec<String>, String> {
    let exclude = found.has("exclude-internal");
    let mut names: Vec<String> = admin
        .list_topics(!exclude)?
        .into_iter()
        .map(|topic| topic.name)
        .collect();
    names.sort_by(|one, other| one.encode_utf16().cmp(other.encode_utf16()));
    if let Some(pattern) = found.text("topic") {
        let filter = Whole::filter(pattern)?;
        names.retain(|name| filter.matches(name));
    }
    names.retain(|name| !(exclude && is_internal(name)));
    Ok(names)
}

fn ensure_exists(names: &[String], found: &ArgMatches) -> Result<(), String> {
    match found.text("topic") {
        Some(topic) if !topic.is_empty() && names.is_empty() && !found.has("if-exists") => {
            Err(format!("Topic '{topic}' does not exist as expected"))
        }
        _ => Ok(()),
    }
}

fn list(admin: &mut Admin, found: &ArgMatches) -> Result<(), String> {
    let names = chosen(admin, found)?;
    out::line(&names.join("\n"));
    Ok(())
}

fn alter(admin: &mut Admin, found: &ArgMatches) -> Result<(), String> {
    let assignment = assignment(found)?;
    let names = chosen(admin, found)?;
    ensure_exists(&names, found)?;
    if names.is_empty() {
        return Ok(());
    }
    let count = found.int("partitions").expect("required above");
    let described = if assignment.is_empty() {
        Vec::new()
    } else {
        admin.describe_topics(&names, 2000)?
    };
    let new = |name: &str| {
        let existing = described
            .iter()
            .find(|topic| topic.name == name)
            .map_or(0, |topic| topic.partitions.len());
        let new = assignment.iter().skip(existing);
        new.map(|brokers| CreatePartitionsAssignment {
            broker_ids: brokers.clone(),
        })
        .collect()
    };
    let topics = names.iter().map(|name| CreatePartitionsTopic {
        name: Cow::Borrowed(name),
        count,
        assignments: (!assignment.is_empty()).then(|| new(name)),
    });
    let request = CreatePartitionsRequest {
        topics: topics.collect(),
        timeout_ms: admin.client.call_timeout_ms(),
        validate_only: false,
    };
    let outcomes: Vec<Result<(), AdminError>> = admin
        .client
        .call(Target::Any, &request, |response, _| {
            response
                .results
                .into_iter()
                .map(|result| check(result.error_code, result.error_message))
                .collect()
        })
        .map_err(AdminError::from)?;
    Ok(outcomes.into_iter().collect::<Result<(), AdminError>>()?)
}

fn delete(admin: &mut Admin, found: &ArgMatches) -> Result<(), String> {
    let names = chosen(admin, found)?;
    ensure_exists(&names, found)?;
    if names.is_empty() {
        return Ok(());
    }
    let request = DeleteTopicsRequest {
        topics: names
            .iter()
            .map(|name| DeleteTopicState {
                name: Some(Cow::Borrowed(name)),
                topic_id: Uuid::nil(),
            })
            .collect(),
        topic_names: names
            .iter()
            .map(|name| Cow::Borrowed(name.as_str()))
            .collect(),
        timeout_ms: admin.client.call_timeout_ms(),
    };
    let outcomes: Vec<Result<(), AdminError>> = admin
        .client
        .call(Target::Any, &request, |response, _| {
            response
                .responses
                .into_iter()
                .map(|result| check(result.error_code, result.error_message))
                .collect()
        })
        .map_err(AdminError::from)?;
    Ok(outcomes.into_iter().collect::<Result<(), AdminError>>()?)
}

fn describe(admin: &mut Admin, found: &ArgMatches) -> Result<(), String> {
    let wanted = match found.text("topic-id") {
        Some(text) => Some(java::parse_uuid(text)?).filter(|id| !id.is_nil()),
        None => None,
    };
    let names = match wanted {
        Some(id) => {
            let topics = admin.list_topics(!found.has("exclude-internal"))?;
            let names: Vec<String> = topics
                .into_iter()
                .filter(|topic| topic.id == id)
                .map(|topic| topic.name)
                .collect();
            if names.is_empty() && !found.has("if-exists") {
                return Err(format!(
                    "TopicId '{}' does not exist as expected",
                    java::uuid_text(id)
                ));
            }
            names
        }
        None => {
            let names = chosen(admin, found)?;
            ensure_exists(&names, found)?;
            names
        }
    };
    let page = found
        .int("partition-size-limit-per-response")
        .unwrap_or(2000);
    let topics = admin.describe_topics(&names, page)?;
    let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
    let configs = admin.describe_configs(resource::TOPIC, &names, false)?;
    let live: Vec<i32> = admin
        .brokers()?
        .into_iter()
        .map(|broker| broker.id)
        .collect();
    let reports = Reports {
        under_replicated: found.has("under-replicated-partitions"),
        unavailable: found.has("unavailable-partitions"),
        under_min_isr: found.has("under-min-isr-partitions"),
        at_min_isr: found.has("at-min-isr-partitions"),
        overrides: found.has("topics-with-overrides"),
    };
    for (topic, configs) in topics.iter().zip(configs) {
        out::text(&reports.show(topic, &configs?, &live));
    }
    Ok(())
}

/// Which partitions and topics are shown.
#[derive(Debug, Default)]
struct Reports {
    under_replicated: bool,
    unavailable: bool,
    under_min_isr: bool,
    at_min_isr: bool,
    overrides: bool,
}

impl Reports {
    fn show(&self, topic: &TopicDescription, configs: &[ConfigEntry], live: &[i32]) -> String {
        let all =
            !(self.under_replicated || self.unavailable || self.under_min_isr || self.at_min_isr);
        let mut text = String::new();
        let overridden = configs.iter().any(|config| config.source != SOURCE_DEFAULT);
        if all && (!self.overrides || overridden) {
            text.push_str(&topic_line(topic, configs));
        }
        if self.overrides {
            return text;
        }
        let min_isr = configs
            .iter()
            .find(|config| config.name == "min.insync.replicas")
            .and_then(|config| config.value.as_ref()?.parse().ok())
            .unwrap_or(1);
        for info in &topic.partitions {
            let no_leader = info.leader.is_none();
            let shown = all
                || self.under_replicated && info.replicas.len() > info.isr.len()
                || self.unavailable && info.leader.is_none_or(|leader| !live.contains(&leader))
                || self.under_min_isr && (no_leader || info.isr.len() < min_isr)
                || self.at_min_isr && info.isr.len() == min_isr;
            if shown {
                text.push_str(&partition_line(&topic.name, info));
            }
        }
        text
    }
}

fn topic_line(topic: &TopicDescription, configs: &[ConfigEntry]) -> String {
    let order = java::map_order(configs.iter().collect(), |config| &config.name);
    let shown: Vec<String> = order
        .into_iter()
        .filter(|config| config.source != SOURCE_DEFAULT)
        .map(|config| {
            format!(
                "{}={}",
                config.name,
                config.value.as_deref().unwrap_or("null")
            )
        })
        .collect();
    let id = if topic.id.is_nil() {
        String::new()
    } else {
        format!("\tTopicId: {}", java::uuid_text(topic.id))
    };
    format!(
        "Topic: {}{id}\tPartitionCount: {}\tReplicationFactor: {}\tConfigs: {}\n",
        topic.name,
        topic.partitions.len(),
        topic
            .partitions
            .first()
            .map_or(0, |info| info.replicas.len()),
        shown.join(","),
    )
}

fn partition_line(topic: &str, info: &PartitionInfo) -> String {
    let ids = |ids: &[i32]| ids.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    let maybe = |list: &Option<Vec<i32>>| list.as_ref().map_or("N/A".to_owned(), |list| ids(list));
    format!(
        "\tTopic: {topic}\tPartition: {}\tLeader: {}\tReplicas: {}\tIsr: {}\tElr: {}\tLastKnownElr: {}\n",
        info.partition,
        info.leader
            .map_or("none".to_owned(), |leader| leader.to_string()),
        ids(&info.replicas),
        ids(&info.isr),
        maybe(&info.elr),
        maybe(&info.last_known_elr),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, value: &str, source: i8) -> ConfigEntry {
        ConfigEntry {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            source,
            sensitive: false,
            synonyms: Vec::new(),
        }
    }

    fn topic() -> TopicDescription {
        let info = |partition, leader, isr: &[i32]| PartitionInfo {
            partition,
            leader,
            replicas: vec![1, 2],
            isr: isr.to_vec(),
            elr: None,
            last_known_elr: Some(Vec::new()),
        };
        TopicDescription {
            name: "t".to_owned(),
            id: Uuid::from_u128(1),
            partitions: vec![info(0, Some(1), &[1, 2]), info(1, None, &[2])],
        }
    }

    #[test]
    fn a_topic_prints_as_in_kafka() {
        let configs = [
            config("retention.ms", "1000", 1),
            config("cleanup.policy", "compact", 1),
            config("min.insync.replicas", "2", SOURCE_DEFAULT),
        ];
        let text = Reports::default().show(&topic(), &configs, &[1]);
        assert_eq!(
            text,
            "Topic: t\tTopicId: AAAAAAAAAAAAAAAAAAAAAQ\tPartitionCount: 2\tReplicationFactor: 2\tConfigs: cleanup.policy=compact,retention.ms=1000\n\
             \tTopic: t\tPartition: 0\tLeader: 1\tReplicas: 1,2\tIsr: 1,2\tElr: N/A\tLastKnownElr: \n\
             \tTopic: t\tPartition: 1\tLeader: none\tReplicas: 1,2\tIsr: 2\tElr: N/A\tLastKnownElr: \n"
        );
    }

    #[test]
    fn reports_choose_partitions() {
        let configs = [config("min.insync.replicas", "2", SOURCE_DEFAULT)];
        let lines = |reports: Reports| reports.show(&topic(), &configs, &[1]).lines().count();
        assert_eq!(
            lines(Reports {
                under_replicated: true,
                ..Reports::default()
            }),
            1
        );
        assert_eq!(
            lines(Reports {
                unavailable: true,
                ..Reports::default()
            }),
            1
        );
        assert_eq!(
            lines(Reports {
                under_min_isr: true,
                ..Reports::default()
            }),
            1
        );
        assert_eq!(
            lines(Reports {
                at_min_isr: true,
                ..Reports::default()
            }),
            1
        );
        assert_eq!(
            lines(Reports {
                overrides: true,
                ..Reports::default()
            }),
            0
        );
    }

    #[test]
    fn assignments_and_configs_are_checked() {
        assert_eq!(
            parse_assignment("1:2, 3:4"),
            Ok(vec![vec![1, 2], vec![3, 4]])
        );
        assert_eq!(
            parse_assignment("1:1").unwrap_err(),
            "Partition replica lists may not contain duplicate entries: 1"
        );
        assert_eq!(
            parse_assignment("1:2,3").unwrap_err(),
            "Partition 1 has different replication factor: [3]"
        );
        assert_eq!(
            parse_configs(&["a = 1", "a=2"]),
            Ok(vec![("a".to_owned(), "2".to_owned())])
        );
        for wrong in ["a", "a=", "a=b=c"] {
            assert!(
                parse_configs(&[wrong])
                    .unwrap_err()
                    .starts_with("requirement failed"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn options_exclude_each_other_as_in_kafka() {
        let outcome = |arguments: &[&str]| {
            check_options(
                &super::super::command(&TOOL)
                    .no_binary_name(true)
                    .get_matches_from(arguments),
            )
        };
        let usage = |text: &str| Err(Stop::Usage(text.to_owned()));
        assert_eq!(
            outcome(&["--list", "--create"]),
            usage(
                "Command must include exactly one action: --list, --describe, --create, --alter or --delete"
            )
        );
        assert_eq!(
            outcome(&["--list"]),
            Err(Stop::Failed(
                "--bootstrap-server must be specified".to_owned()
            ))
        );
        let server = ["--bootstrap-server", "h:1"];
        assert_eq!(
            outcome(&[&server[..], &["--create"]].concat()),
            usage("Missing required argument \"[topic]\"")
        );
        assert_eq!(
            outcome(&[&server[..], &["--alter", "--topic", "a"]].concat()),
            usage("Missing required argument \"[partitions]\"")
        );
        assert_eq!(
            outcome(&[&server[..], &["--create", "--topic", "a", "--if-exists"]].concat()),
            usage("Option \"[if-exists]\" can't be used with option \"[create]\"")
        );
        assert_eq!(
            outcome(
                &[
                    &server[..],
                    &["--describe", "--under-replicated-partitions"]
                ]
                .concat()
            ),
            Ok(())
        );
    }
}
