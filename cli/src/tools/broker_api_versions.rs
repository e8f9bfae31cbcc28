//! `broker-api-versions`: which APIs each broker serves. Main thread.

use clap::{Arg, ArgMatches};
use net::client::{Broker, Target, Versions};

use super::admin::{Admin, AdminError};
use super::args::{self, text};
use super::{Help, Outcome, Stop, Tool, out};

/// The tool.
pub const TOOL: Tool = Tool {
    name: "broker-api-versions",
    about: "This tool helps to retrieve broker version information.",
    options,
    run,
    help: Help::Fails,
};

/// The APIs that Java's client of Kafka 4.3 knows: key, name, oldest and newest version. What it calls usable is told
/// by these, not by what this program's own client speaks.
const CLIENT: &[(i16, &str, i16, i16)] = &[
    (0, "Produce", 3, 13),
    (1, "Fetch", 4, 18),
    (2, "ListOffsets", 1, 11),
    (3, "Metadata", 0, 13),
    (8, "OffsetCommit", 2, 10),
    (9, "OffsetFetch", 1, 10),
    (10, "FindCoordinator", 0, 6),
    (11, "JoinGroup", 0, 9),
    (12, "Heartbeat", 0, 4),
    (13, "LeaveGroup", 0, 5),
    (14, "SyncGroup", 0, 5),
    (15, "DescribeGroups", 0, 6),
    (16, "ListGroups", 0, 5),
    (17, "SaslHandshake", 0, 1),
    (18, "ApiVersions", 0, 4),
    (19, "CreateTopics", 2, 7),
    (20, "DeleteTopics", 1, 6),
    (21, "DeleteRecords", 0, 2),
    (22, "InitProducerId", 0, 6),
    (23, "OffsetForLeaderEpoch", 2, 4),
    (24, "AddPartitionsToTxn", 0, 5),
    (25, "AddOffsetsToTxn", 0, 4),
    (26, "EndTxn", 0, 5),
    (27, "WriteTxnMarkers", 1, 2),
    (28, "TxnOffsetCommit", 0, 5),
    (29, "DescribeAcls", 1, 3),
    (30, "CreateAcls", 1, 3),
    (31, "DeleteAcls", 1, 3),
    (32, "DescribeConfigs", 1, 4),
    (33, "AlterConfigs", 0, 2),
    (34, "AlterReplicaLogDirs", 1, 2),
    (35, "DescribeLogDirs", 1, 5),
    (36, "SaslAuthenticate", 0, 2),
    (37, "CreatePartitions", 0, 3),
    (38, "CreateDelegationToken", 1, 3),
    (39, "RenewDelegationToken", 1, 2),
    (40, "ExpireDelegationToken", 1, 2),
    (41, "DescribeDelegationToken", 1, 3),
    (42, "DeleteGroups", 0, 2),
    (43, "ElectLeaders", 0, 2),
    (44, "IncrementalAlterConfigs", 0, 1),
    (45, "AlterPartitionReassignments", 0, 1),
    (46, "ListPartitionReassignments", 0, 0),
    (47, "OffsetDelete", 0, 0),
    (48, "DescribeClientQuotas", 0, 1),
    (49, "AlterClientQuotas", 0, 1),
    (50, "DescribeUserScramCredentials", 0, 0),
    (51, "AlterUserScramCredentials", 0, 0),
    (55, "DescribeQuorum", 0, 2),
    (57, "UpdateFeatures", 0, 2),
    (60, "DescribeCluster", 0, 2),
    (61, "DescribeProducers", 0, 0),
    (64, "UnregisterBroker", 0, 0),
    (65, "DescribeTransactions", 0, 0),
    (66, "ListTransactions", 0, 2),
    (68, "ConsumerGroupHeartbeat", 0, 1),
    (69, "ConsumerGroupDescribe", 0, 1),
    (71, "GetTelemetrySubscriptions", 0, 0),
    (72, "PushTelemetry", 0, 0),
    (74, "ListConfigResources", 0, 1),
    (75, "DescribeTopicPartitions", 0, 0),
    (76, "ShareGroupHeartbeat", 1, 1),
    (77, "ShareGroupDescribe", 1, 1),
    (78, "ShareFetch", 1, 2),
    (79, "ShareAcknowledge", 1, 2),
    (80, "AddRaftVoter", 0, 1),
    (81, "RemoveRaftVoter", 0, 0),
    (83, "InitializeShareGroupState", 0, 0),
    (84, "ReadShareGroupState", 0, 0),
    (85, "WriteShareGroupState", 0, 1),
    (86, "DeleteShareGroupState", 0, 0),
    (87, "ReadShareGroupStateSummary", 0, 1),
    (88, "StreamsGroupHeartbeat", 0, 0),
    (89, "StreamsGroupDescribe", 0, 0),
    (90, "DescribeShareGroupOffsets", 0, 1),
    (91, "AlterShareGroupOffsets", 0, 0),
    (92, "DeleteShareGroupOffsets", 0, 0),
];

fn options() -> Vec<Arg> {
    vec![
        text(
            "bootstrap-server",
            "server(s) to use for bootstrapping",
            "REQUIRED: The server to connect to.",
        ),
        text(
            "command-config",
            "command config property file",
            "A file of admin client properties.",
        ),
    ]
}

/// Kafka's tool is less patient than the others, in milliseconds.
const CALL_TIMEOUT_MS: u64 = 5_000;

fn run(found: &ArgMatches) -> Outcome {
    args::require(found, &["bootstrap-server"])?;
    let config = Admin::config(found)?;
    let mut admin = Admin::with_config(&config, "admin-1", Some(CALL_TIMEOUT_MS))?;
    let failed = |error: AdminError| Stop::Failed(error.message);
    for broker in admin.brokers().map_err(failed)? {
        let shown = match admin.client.versions(Target::Broker(broker.id)) {
            Ok(versions) => listing(&versions),
            Err(error) => format!("ERROR: {error}"),
        };
        out::line(&format!("{} -> {shown}", node(&broker)));
    }
    Ok(())
}

/// A broker as Java's `Node` prints itself.
fn node(broker: &Broker) -> String {
    let rack = broker.rack.as_deref().unwrap_or("null");
    format!(
        "{}:{} (id: {} rack: {rack} isFenced: false)",
        broker.host, broker.port, broker.id
    )
}

fn listing(served: &[Versions]) -> String {
    let mut lines: Vec<(i16, String)> = Vec::new();
    for versions in served {
        let known = CLIENT.iter().find(|(key, ..)| *key == versions.api_key);
        let range = if versions.min == versions.max {
            versions.min.to_string()
        } else {
            format!("{} to {}", versions.min, versions.max)
        };
        let line = match known {
            None => format!("UNKNOWN({}): {range}", versions.api_key),
            Some((key, name, oldest, newest)) => {
                let usable = if *newest < versions.min {
                    "unusable: node too new".to_owned()
                } else if versions.max < *oldest {
                    "unusable: node too old".to_owned()
                } else {
                    format!("usable: {}", (*newest).min(versions.max))
                };
                format!("{name}({key}): {range} [{usable}]")
            }
        };
        lines.push((versions.api_key, line));
    }
    for (key, name, ..) in CLIENT {
        if !served.iter().any(|versions| versions.api_key == *key) {
            lines.push((*key, format!("{name}({key}): UNSUPPORTED")));
        }
    }
    lines.sort_by_key(|(key, _)| *key);
    let lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
    format!("(\n\t{}\n)", lines.join(",\n\t"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_usable_too_old_too_new_or_missing() {
        let served = |api_key, min, max| Versions { api_key, min, max };
        let text = listing(&[
            served(1, 4, 99),
            served(46, 0, 0),
            served(0, 0, 2),
            served(18, 9, 9),
            served(999, 0, 1),
        ]);
        for line in [
            "\tProduce(0): 0 to 2 [unusable: node too old],\n",
            "\tFetch(1): 4 to 99 [usable: 18],\n",
            "\tListOffsets(2): UNSUPPORTED,\n",
            "\tApiVersions(18): 9 [unusable: node too new],\n",
            "\tListPartitionReassignments(46): 0 [usable: 0],\n",
            "\tUNKNOWN(999): 0 to 1\n)",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.starts_with("(\n\tProduce"));
    }

    #[test]
    fn a_broker_prints_as_javas_node() {
        let broker = Broker {
            id: 1,
            host: "h".to_owned(),
            port: 9092,
            rack: None,
        };
        assert_eq!(node(&broker), "h:9092 (id: 1 rack: null isFenced: false)");
    }
}
