//! DescribeLogDirs (KIP-113): how much each partition takes in each log directory. Asked of all cores;
//! answered on the core that accepted the connection.

use std::collections::{BTreeMap, HashSet};

use net::kafka::describe_log_dirs as wire;
use net::kafka::error::ErrorCode;
use net::wire::DecodeError;
use storage::types::Now;

use super::{Outcome, Request};
use crate::shard::Shard;

/// Handles a DescribeLogDirs request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::DescribeLogDirsRequest::decode)?;
    let wanted: Option<HashSet<(String, i32)>> = body.topics.map(|topics| {
        topics
            .iter()
            .flat_map(|topic| {
                let name = &topic.topic;
                topic
                    .partitions
                    .iter()
                    .map(move |index| (name.to_string(), *index))
            })
            .collect()
    });
    let head = request.head;
    let then = move |shard: &mut Shard, _now: Now, reports: Vec<crate::mesh::LogDirReport>| {
        let mut dirs: Vec<BTreeMap<String, Vec<wire::DescribeLogDirsPartition>>> = shard
            .config
            .broker
            .log_dirs
            .iter()
            .map(|_| BTreeMap::new())
            .collect();
        for report in reports {
            let Some(topic) = shard.image.topic_by_id(report.partition.topic_id) else {
                continue;
            };
            let name = topic.name.to_string();
            let index = report.partition.partition;
            let asked = match &wanted {
                Some(wanted) => wanted.contains(&(name.clone(), index)),
                None => true,
            };
            if asked && let Some(topics) = dirs.get_mut(report.dir) {
                topics
                    .entry(name)
                    .or_default()
                    .push(wire::DescribeLogDirsPartition {
                        partition_index: index,
                        partition_size: i64::try_from(report.size_bytes).unwrap_or(i64::MAX),
                        offset_lag: 0,
                        is_future_key: false,
                    });
            }
        }
        let results = dirs
            .into_iter()
            .enumerate()
            .map(|(index, topics)| {
                let space = shard.space.get(index).copied().flatten();
                let offline = shard.store.is_dir_offline(index);
                wire::DescribeLogDirsResult {
                    error_code: if offline {
                        ErrorCode::KafkaStorageError.code()
                    } else {
                        0
                    },
                    log_dir: shard.config.broker.log_dirs[index]
                        .display()
                        .to_string()
                        .into(),
                    topics: topics
                        .into_iter()
                        .map(|(name, mut partitions)| {
                            partitions.sort_by_key(|partition| partition.partition_index);
                            wire::DescribeLogDirsTopic {
                                name: name.into(),
                                partitions,
                            }
                        })
                        .collect(),
                    total_bytes: space.map_or(-1, |space| space.total_bytes as i64),
                    usable_bytes: space.map_or(-1, |space| space.free_bytes as i64),
                    is_cordoned: false,
                }
            })
            .collect();
        let response = wire::DescribeLogDirsResponse {
            results,
            ..Default::default()
        };
        let chunks = head.encode(|writer, version| response.encode(writer, version));
        shard.respond(head, Some(chunks));
    };
    shard.ask_log_dirs(now, Box::new(then));
    Ok(Outcome::Pending)
}
