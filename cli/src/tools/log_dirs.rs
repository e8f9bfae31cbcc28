//! `log-dirs`: what lies in the log directories of brokers, as JSON. Main thread.

use clap::{Arg, ArgMatches};
use net::client::{Target, error_of};
use net::kafka::describe_log_dirs::DescribeLogDirsRequest;
use net::kafka::error::ErrorCode;
use serde_json::Value;

use super::admin::{Admin, AdminError, check};
use super::args::{self, Found, flag, text};
use super::{Help, Outcome, Stop, Tool, java, kafka_errors, out};

/// The tool.
pub const TOOL: Tool = Tool {
    name: "log-dirs",
    about: "This tool helps to query log directory usage on the specified brokers.",
    options,
    run,
    help: Help::Fails,
};

fn options() -> Vec<Arg> {
    vec![
        text(
            "bootstrap-server",
            "The server(s) to use for bootstrapping",
            "REQUIRED: the server(s) to connect to.",
        ),
        text(
            "command-config",
            "Admin client property file",
            "A file of admin client properties.",
        ),
        flag(
            "describe",
            "Describe the specified log directories on the specified brokers.",
        ),
        text(
            "topic-list",
            "Topic list",
            "Topics as \"topic1,topic2\"; all when left out.",
        ),
        text(
            "broker-list",
            "Broker list",
            "Brokers as \"0,1,2\"; all when left out.",
        ),
    ]
}

/// A replica in a directory.
#[derive(Debug, Clone)]
struct Replica {
    topic: String,
    partition: i32,
    size: i64,
    lag: i64,
    future: bool,
}

/// A directory of a broker.
#[derive(Debug, Clone)]
struct Directory {
    path: String,
    error: ErrorCode,
    replicas: Vec<Replica>,
}

fn run(found: &ArgMatches) -> Outcome {
    args::require(found, &["bootstrap-server", "describe"])?;
    let failed = |error: AdminError| Stop::Failed(error.message);
    let list = |name: &str| -> Vec<String> {
        let text = found.text(name).unwrap_or_default();
        text.split(',')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let topics = list("topic-list");
    let mut wanted: Vec<i32> = Vec::new();
    for id in list("broker-list") {
        let id = id
            .parse()
            .map_err(|_| Stop::Failed(format!("For input string: \"{id}\"")))?;
        if !wanted.contains(&id) {
            wanted.push(id);
        }
    }
    let mut admin = Admin::new(found, "log-dirs-tool")?;
    let cluster = by_hash(
        admin
            .brokers()
            .map_err(failed)?
            .into_iter()
            .map(|broker| broker.id)
            .collect(),
    );
    let missing: Vec<i32> = by_hash(
        wanted
            .iter()
            .copied()
            .filter(|id| !cluster.contains(id))
            .collect(),
    );
    if !missing.is_empty() {
        return Err(Stop::Failed(format!(
            "ERROR: The given brokers do not exist from --broker-list: {}. Current existent brokers: {}",
            commas(&missing),
            commas(&cluster)
        )));
    }
    let asked = if wanted.is_empty() {
        cluster
    } else {
        by_hash(wanted)
    };
    out::line("Querying brokers for log directories information");
    let mut brokers = Vec::new();
    for id in &asked {
        brokers.push((*id, directories(&mut admin, *id).map_err(failed)?));
    }
    out::line(&format!(
        "Received log directory information from brokers {}",
        commas(&asked)
    ));
    out::line(&json(brokers, &topics));
    Ok(())
}

/// Numbers in the order of Java's hash set.
fn by_hash(ids: Vec<i32>) -> Vec<i32> {
    let table = java::grown_table(ids.len());
    java::hash_order(ids, table, |id| *id)
}

fn commas(ids: &[i32]) -> String {
    ids.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

fn directories(admin: &mut Admin, broker: i32) -> Result<Vec<Directory>, AdminError> {
    let request = DescribeLogDirsRequest { topics: None };
    admin
        .client
        .call(Target::Broker(broker), &request, |response, _| {
            if response.results.is_empty() {
                let code = if response.error_code == 0 {
                    ErrorCode::ClusterAuthorizationFailed.code()
                } else {
                    response.error_code
                };
                check(code, None)?;
            }
            let directories = response.results.into_iter().map(|result| Directory {
                path: result.log_dir.into_owned(),
                error: error_of(result.error_code),
                replicas: result
                    .topics
                    .into_iter()
                    .flat_map(|topic| {
                        let name = topic.name.into_owned();
                        topic.partitions.into_iter().map(move |found| Replica {
                            topic: name.clone(),
                            partition: found.partition_index,
                            size: found.partition_size,
                            lag: found.offset_lag,
                            future: found.is_future_key,
                        })
                    })
                    .collect(),
            });
            Ok(directories.collect())
        })?
}

/// An object whose fields stand in the order of Java's map.
fn object(fields: Vec<(&str, String)>) -> String {
    let fields = java::map_order(fields, |(name, _)| name);
    let fields: Vec<String> = fields
        .into_iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", fields.join(","))
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn json(brokers: Vec<(i32, Vec<Directory>)>, topics: &[String]) -> String {
    let brokers = brokers.into_iter().map(|(id, directories)| {
        let table = java::sized_table(directories.len());
        let directories = java::hash_order(directories, table, |directory| {
            java::string_hash(&directory.path)
        });
        let directories = array(
            directories
                .into_iter()
                .map(|directory| directory_json(directory, topics)),
        );
        object(vec![("broker", id.to_string()), ("logDirs", directories)])
    });
    object(vec![
        ("version", "1".to_owned()),
        ("brokers", array(brokers)),
    ])
}

fn directory_json(directory: Directory, topics: &[String]) -> String {
    let hash = |replica: &Replica| java::topic_partition_hash(&replica.topic, replica.partition);
    // Java puts them into one map with all replicas, and from there into one with those that were asked for.
    let table = java::grown_table(directory.replicas.len());
    let mut replicas = java::hash_order(directory.replicas, table, hash);
    replicas.retain(|replica| topics.is_empty() || topics.contains(&replica.topic));
    let table = java::grown_table(replicas.len());
    let replicas = java::hash_order(replicas, table, hash)
        .into_iter()
        .map(|replica| {
            object(vec![
                (
                    "partition",
                    quoted(&format!("{}-{}", replica.topic, replica.partition)),
                ),
                ("size", replica.size.to_string()),
                ("offsetLag", replica.lag.to_string()),
                ("isFuture", replica.future.to_string()),
            ])
        });
    let error = match directory.error {
        ErrorCode::None => "null".to_owned(),
        code => quoted(&kafka_errors::class(code)),
    };
    object(vec![
        ("logDir", quoted(&directory.path)),
        ("error", error),
        ("partitions", array(replicas)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_is_javas() {
        let replica = |topic: &str, partition| Replica {
            topic: topic.to_owned(),
            partition,
            size: 7,
            lag: 0,
            future: false,
        };
        let directory = |error| Directory {
            path: "/d".to_owned(),
            error,
            replicas: vec![replica("a", 1), replica("a", 0), replica("b", 0)],
        };
        assert_eq!(
            json(
                vec![(1, vec![directory(ErrorCode::None)])],
                &["a".to_owned()]
            ),
            r#"{"brokers":[{"broker":1,"logDirs":[{"partitions":[{"partition":"a-1","size":7,"offsetLag":0,"isFuture":false},{"partition":"a-0","size":7,"offsetLag":0,"isFuture":false}],"error":null,"logDir":"/d"}]}],"version":1}"#
        );
        let offline = Directory {
            replicas: Vec::new(),
            ..directory(ErrorCode::KafkaStorageError)
        };
        let text = json(vec![(1, vec![offline])], &[]);
        assert!(
            text.contains(r#""error":"org.apache.kafka.common.errors.KafkaStorageException""#),
            "{text}"
        );
    }
}
