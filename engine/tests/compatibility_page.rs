//! Holds docs/COMPATIBILITY.md to the code: its tables of APIs and of configuration keys are what the codec
//! and the catalogue say. `MILLRACE_BLESS=1` rewrites them. On a test's thread; knows no broker.

use std::fmt::Write;
use std::path::PathBuf;

use millrace_engine::config::catalogue;
use net::kafka::{ApiKey, SUPPORTED};

/// Every API key of Kafka 4.3 that a broker or a controller listens for, and what it belongs to.
const KAFKA_APIS: &[(i16, &str, &str)] = &[
    (0, "Produce", "data"),
    (1, "Fetch", "data"),
    (2, "ListOffsets", "data"),
    (3, "Metadata", "data"),
    (8, "OffsetCommit", "groups"),
    (9, "OffsetFetch", "groups"),
    (10, "FindCoordinator", "groups"),
    (11, "JoinGroup", "groups"),
    (12, "Heartbeat", "groups"),
    (13, "LeaveGroup", "groups"),
    (14, "SyncGroup", "groups"),
    (15, "DescribeGroups", "groups"),
    (16, "ListGroups", "groups"),
    (17, "SaslHandshake", "security"),
    (18, "ApiVersions", "data"),
    (19, "CreateTopics", "administration"),
    (20, "DeleteTopics", "administration"),
    (21, "DeleteRecords", "administration"),
    (22, "InitProducerId", "data"),
    (23, "OffsetForLeaderEpoch", "data"),
    (24, "AddPartitionsToTxn", "transactions"),
    (25, "AddOffsetsToTxn", "transactions"),
    (26, "EndTxn", "transactions"),
    (27, "WriteTxnMarkers", "transactions"),
    (28, "TxnOffsetCommit", "transactions"),
    (29, "DescribeAcls", "security"),
    (30, "CreateAcls", "security"),
    (31, "DeleteAcls", "security"),
    (32, "DescribeConfigs", "administration"),
    (33, "AlterConfigs", "administration"),
    (34, "AlterReplicaLogDirs", "administration"),
    (35, "DescribeLogDirs", "administration"),
    (36, "SaslAuthenticate", "security"),
    (37, "CreatePartitions", "administration"),
    (38, "CreateDelegationToken", "security"),
    (39, "RenewDelegationToken", "security"),
    (40, "ExpireDelegationToken", "security"),
    (41, "DescribeDelegationToken", "security"),
    (42, "DeleteGroups", "groups"),
    (43, "ElectLeaders", "replication"),
    (44, "IncrementalAlterConfigs", "administration"),
    (45, "AlterPartitionReassignments", "replication"),
    (46, "ListPartitionReassignments", "replication"),
    (47, "OffsetDelete", "groups"),
    (48, "DescribeClientQuotas", "quotas"),
    (49, "AlterClientQuotas", "quotas"),
    (50, "DescribeUserScramCredentials", "security"),
    (51, "AlterUserScramCredentials", "security"),
    (52, "Vote", "between nodes"),
    (53, "BeginQuorumEpoch", "between nodes"),
    (54, "EndQuorumEpoch", "between nodes"),
    (55, "DescribeQuorum", "quorum"),
    (56, "AlterPartition", "between nodes"),
    (57, "UpdateFeatures", "quorum"),
    (58, "Envelope", "between nodes"),
    (59, "FetchSnapshot", "between nodes"),
    (60, "DescribeCluster", "administration"),
    (61, "DescribeProducers", "transactions"),
    (62, "BrokerRegistration", "between nodes"),
    (63, "BrokerHeartbeat", "between nodes"),
    (64, "UnregisterBroker", "quorum"),
    (65, "DescribeTransactions", "transactions"),
    (66, "ListTransactions", "transactions"),
    (67, "AllocateProducerIds", "between nodes"),
    (68, "ConsumerGroupHeartbeat", "groups of KIP-848"),
    (69, "ConsumerGroupDescribe", "groups of KIP-848"),
    (70, "ControllerRegistration", "between nodes"),
    (71, "GetTelemetrySubscriptions", "telemetry"),
    (72, "PushTelemetry", "telemetry"),
    (73, "AssignReplicasToDirs", "between nodes"),
    (74, "ListConfigResources", "administration"),
    (75, "DescribeTopicPartitions", "administration"),
    (76, "ShareGroupHeartbeat", "share groups"),
    (77, "ShareGroupDescribe", "share groups"),
    (78, "ShareFetch", "share groups"),
    (79, "ShareAcknowledge", "share groups"),
    (80, "AddRaftVoter", "quorum"),
    (81, "RemoveRaftVoter", "quorum"),
    (82, "UpdateRaftVoter", "between nodes"),
    (83, "InitializeShareGroupState", "between nodes"),
    (84, "ReadShareGroupState", "between nodes"),
    (85, "WriteShareGroupState", "between nodes"),
    (86, "DeleteShareGroupState", "between nodes"),
    (87, "ReadShareGroupStateSummary", "between nodes"),
    (88, "StreamsGroupHeartbeat", "streams groups"),
    (89, "StreamsGroupDescribe", "streams groups"),
    (90, "DescribeShareGroupOffsets", "share groups"),
    (91, "AlterShareGroupOffsets", "share groups"),
    (92, "DeleteShareGroupOffsets", "share groups"),
];

fn versions(from: i16, to: i16) -> String {
    if from == to {
        from.to_string()
    } else {
        format!("{from}-{to}")
    }
}

fn api_table() -> String {
    let mut out = String::from("| key | API | part | served versions |\n|---|---|---|---|\n");
    for (key, name, part) in KAFKA_APIS {
        let served = match ApiKey::try_from(*key) {
            Err(_) => "not served".to_owned(),
            Ok(api) => {
                assert_eq!(api.name(), *name, "Kafka's name of key {key}");
                let api = api.api();
                let mut text = versions(api.served_min, api.max);
                if api.advertised_min != api.served_min {
                    write!(text, " (advertised from {})", api.advertised_min).expect("a string");
                }
                text
            }
        };
        writeln!(out, "| {key} | {name} | {part} | {served} |").expect("a string");
    }
    out
}

/// Puts `table` between the two marks of `name`.
fn replaced(page: &str, name: &str, table: &str) -> String {
    let (begin, end) = (
        format!("<!-- generated: {name} -->\n"),
        format!("<!-- end: {name} -->"),
    );
    let from = page.find(&begin).expect("the page has the mark") + begin.len();
    let to = page.find(&end).expect("the page has the end mark");
    format!("{}\n{}\n\n{}", &page[..from], table.trim_end(), &page[to..])
}

#[test]
fn the_list_of_apis_is_whole() {
    assert!(KAFKA_APIS.is_sorted_by(|a, b| a.0 < b.0));
    for api in SUPPORTED {
        let key = api.key as i16;
        assert!(KAFKA_APIS.iter().any(|known| known.0 == key), "key {key}");
    }
}

#[test]
fn the_tables_of_the_page_are_what_the_code_says() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/COMPATIBILITY.md");
    let page = std::fs::read_to_string(&path).expect("the page is there");
    let wanted = replaced(&page, "APIs", &api_table());
    let wanted = replaced(&wanted, "configuration keys", &catalogue::markdown());
    if page == wanted {
        return;
    }
    if std::env::var_os("MILLRACE_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, wanted).expect("the page can be written");
        return;
    }
    let wrong = wanted
        .lines()
        .find(|line| !page.lines().any(|told| told == *line))
        .unwrap_or("(a line too many, or another order)");
    panic!(
        "docs/COMPATIBILITY.md does not say what the code does; rewrite it with\n\
         MILLRACE_BLESS=1 cargo test -p millrace-engine --test compatibility_page\n\
         first line that is missing: {wrong}"
    );
}
