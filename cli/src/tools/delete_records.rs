//! `delete-records`: moves the start of partitions forward. Main thread.

use std::borrow::Cow;
use std::collections::BTreeMap;

use clap::{Arg, ArgMatches};
use net::client::Target;
use net::kafka::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use serde_json::Value;

use super::admin::{Admin, AdminError, TopicPartition, check, show};
use super::args::{self, Found, text};
use super::{Help, Outcome, Stop, Tool, java, out};

/// The tool.
pub const TOOL: Tool = Tool {
    name: "delete-records",
    about: "This tool helps to delete records of the given partitions down to the specified offset.",
    options,
    run,
    help: Help::Fails,
};

fn options() -> Vec<Arg> {
    vec![
        text(
            "bootstrap-server",
            "server(s) to use for bootstrapping",
            "REQUIRED: The server to connect to.",
        ),
        text(
            "offset-json-file",
            "Offset json file path",
            "REQUIRED: A file like {\"partitions\": [{\"topic\": \"foo\", \"partition\": 1, \"offset\": 1}], \"version\":1}",
        ),
        text(
            "command-config",
            "command config property file path",
            "A file of admin client properties.",
        ),
    ]
}

fn run(found: &ArgMatches) -> Outcome {
    args::require(found, &["bootstrap-server", "offset-json-file"])?;
    let path = found.text("offset-json-file").expect("required above");
    let mut admin = Admin::new(found, "adminclient-1")?;
    let json = std::fs::read_to_string(path).map_err(|_| Stop::Failed(path.to_owned()))?;
    let wanted = parse(&json).map_err(Stop::Failed)?;
    out::line("Executing records delete operation");
    let mut outcomes = delete(&mut admin, &wanted).map_err(|error| Stop::Failed(error.message))?;
    out::line("Records delete operation completed:");
    let table = java::grown_table(wanted.len());
    let order = java::hash_order(wanted, table, |(partition, _)| {
        java::topic_partition_hash(&partition.0, partition.1)
    });
    for (partition, _) in order {
        let outcome = outcomes.remove(&partition).unwrap_or_else(|| {
            Err(AdminError {
                code: None,
                illegal: false,
                message: format!(
                    "The response did not contain a result for {}",
                    show(&partition)
                ),
            })
        });
        match outcome {
            Ok(low) => out::line(&format!(
                "partition: {}\tlow_watermark: {low}",
                show(&partition)
            )),
            Err(error) => out::line(&format!(
                "partition: {}\terror: {}",
                show(&partition),
                error.java()
            )),
        }
    }
    Ok(())
}

/// Reads the file: the partitions with the first offset that each is to keep.
fn parse(json: &str) -> Result<Vec<(TopicPartition, i64)>, String> {
    let value: Value = serde_json::from_str(json)
        .map_err(|_| "The input string is not a valid JSON".to_owned())?;
    match value.get("version") {
        None => {}
        Some(version) if version.as_i64() == Some(1) => {}
        Some(version) => return Err(format!("Not supported version field value {version}")),
    }
    let partitions = value.get("partitions").ok_or("Missing partitions field")?;
    let partitions = partitions
        .as_array()
        .ok_or_else(|| format!("Expected JSON array, received {partitions}"))?;
    let mut wanted: Vec<(TopicPartition, i64)> = Vec::with_capacity(partitions.len());
    let mut twice: Vec<String> = Vec::new();
    for partition in partitions {
        let field = |name: &str| {
            partition
                .get(name)
                .ok_or_else(|| format!("No such field exists: `{name}`"))
        };
        let wrong =
            |kind: &str, value: &Value| format!("Expected `{kind}` value, received {value}");
        let topic = field("topic")?;
        let topic = topic
            .as_str()
            .ok_or_else(|| wrong("String", topic))?
            .to_owned();
        let index = field("partition")?;
        let index = index
            .as_i64()
            .and_then(|i| i32::try_from(i).ok())
            .ok_or_else(|| wrong("Integer", index))?;
        let offset = field("offset")?;
        let offset = offset.as_i64().ok_or_else(|| wrong("Long", offset))?;
        let key = (topic, index);
        if wanted.iter().any(|(earlier, _)| *earlier == key) {
            twice.push(show(&key));
        }
        wanted.push((key, offset));
    }
    if twice.is_empty() {
        return Ok(wanted);
    }
    twice.dedup();
    Err(format!(
        "Offset json file contains duplicate topic partitions: {}",
        twice.join(",")
    ))
}

type Outcomes = BTreeMap<TopicPartition, Result<i64, AdminError>>;

fn delete(admin: &mut Admin, wanted: &[(TopicPartition, i64)]) -> Result<Outcomes, AdminError> {
    let partitions: Vec<TopicPartition> = wanted
        .iter()
        .map(|(partition, _)| partition.clone())
        .collect();
    let leaders = admin.leaders(&partitions)?;
    let mut outcomes = Outcomes::new();
    let mut by_leader: BTreeMap<i32, BTreeMap<&str, Vec<DeleteRecordsPartition>>> = BTreeMap::new();
    for (partition, offset) in wanted {
        match leaders[partition] {
            Ok(leader) => by_leader
                .entry(leader)
                .or_default()
                .entry(&partition.0)
                .or_default()
                .push(DeleteRecordsPartition {
                    partition_index: partition.1,
                    offset: *offset,
                }),
            Err(code) => {
                outcomes.insert(partition.clone(), Err(AdminError::new(code, None)));
            }
        }
    }
    for (leader, topics) in by_leader {
        let topics = topics
            .into_iter()
            .map(|(name, partitions)| DeleteRecordsTopic {
                name: Cow::Borrowed(name),
                partitions,
            })
            .collect();
        let request = DeleteRecordsRequest {
            topics,
            timeout_ms: admin.client.call_timeout_ms(),
        };
        admin
            .client
            .call(Target::Broker(leader), &request, |response, _| {
                for topic in response.topics {
                    for found in topic.partitions {
                        let outcome = check(found.error_code, None).map(|()| found.low_watermark);
                        outcomes.insert(
                            (topic.name.clone().into_owned(), found.partition_index),
                            outcome,
                        );
                    }
                }
            })?;
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_partitions_and_offsets() {
        let json = r#"{"partitions": [{"topic": "a", "partition": 1, "offset": 5}, {"topic": "a", "partition": 0, "offset": -1}], "version": 1}"#;
        assert_eq!(
            parse(json),
            Ok(vec![(("a".to_owned(), 1), 5), (("a".to_owned(), 0), -1)])
        );
        assert_eq!(parse(r#"{"partitions": []}"#), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_with_the_file_is_told() {
        for (json, why) in [
            ("no", "The input string is not a valid JSON"),
            ("{}", "Missing partitions field"),
            (
                r#"{"version": 2, "partitions": []}"#,
                "Not supported version field value 2",
            ),
            (
                r#"{"partitions": [{"topic":"a","partition":0,"offset":1},{"topic":"a","partition":0,"offset":2}]}"#,
                "Offset json file contains duplicate topic partitions: a-0",
            ),
            (
                r#"{"partitions": [{"partition":0,"offset":1}]}"#,
                "No such field exists: `topic`",
            ),
        ] {
            assert_eq!(parse(json), Err(why.to_owned()));
        }
    }
}
