//! Workload files that are right, and what is said of those that are not.

use super::*;

/// The smallest workload.
const SMALL: &str = "topics: 1\npartitionsPerTopic: 1\nmessageSize: 100\nproducersPerTopic: 1\ntestDurationMinutes: 1\n";

fn with(more: &str) -> Result<Workload, Failure> {
    Workload::parse(&format!("{SMALL}{more}"), &[], "small")
}

#[test]
fn a_workload_of_openmessaging_benchmark_is_read() {
    let text = "
# A comment.
name: 1 topic / 16 partitions / 1Kb

topics: 1
partitionsPerTopic: 16
keyDistributor: \"NO_KEY\"
messageSize: 1024
useRandomizedPayloads: true
randomBytesRatio: 0.5
randomizedPayloadPoolSize: 1000
payloadFile: \"payload/payload-1Kb.data\"
subscriptionsPerTopic: 2
consumerPerSubscription: 3
producersPerTopic: 4
producerRate: 50000
consumerBacklogSizeGB: 10
testDurationMinutes: 15
";
    let workload = Workload::parse(text, &[], "file").unwrap();
    assert_eq!(workload.name, "1 topic / 16 partitions / 1Kb");
    assert_eq!((workload.topics, workload.partitions_per_topic), (1, 16));
    assert_eq!(workload.key_distributor, KeyDistributor::NoKey);
    assert_eq!((workload.message_bytes, workload.pool), (1024, 1000));
    assert!(workload.randomized && workload.random_bytes_ratio == 0.5);
    assert_eq!((workload.producers(), workload.consumers()), (4, 6));
    assert_eq!(workload.rate, 50_000.0);
    assert_eq!(workload.backlog_bytes, 10 << 30);
    assert_eq!(workload.test, Some(Duration::from_secs(900)));
    // What the file leaves out has OpenMessaging Benchmark's defaults.
    assert_eq!(workload.drain_ratio, 1.0);
    assert_eq!(workload.warmup, Duration::from_secs(60));
}

#[test]
fn what_is_wrong_is_named() {
    for (more, expected) in [
        (
            "producerRat: 5\n",
            "unknown key producerRat; did you mean producerRate?",
        ),
        (
            "partitionspertopics: 5\n",
            "did you mean partitionsPerTopic?",
        ),
        ("zzz: 5\n", "unknown key zzz; the keys are name, topics, "),
        (
            "producerRate: fast\n",
            "producerRate is \"fast\"; it is a number",
        ),
        (
            "producerRate: -5\n",
            "producerRate is -5; it lies between 0 and 100000000",
        ),
        (
            "producerRate: .nan\n",
            "producerRate is NaN; it lies between",
        ),
        (
            "subscriptionsPerTopic: 1.5\n",
            "subscriptionsPerTopic is 1.5; it is a whole number",
        ),
        (
            "useRandomizedPayloads: maybe\n",
            "useRandomizedPayloads is \"maybe\"; it is true or false",
        ),
        (
            "useRandomizedPayloads: true\n",
            "randomizedPayloadPoolSize of at least 1",
        ),
        (
            "randomBytesRatio: 1.5\n",
            "randomBytesRatio is 1.5; it lies between 0 and 1",
        ),
        (
            "keyDistributor: ROUND\n",
            "keyDistributor is \"ROUND\"; it is one of NO_KEY",
        ),
        (
            "consumerBacklogSizeGB: 1\n",
            "consumerBacklogSizeGB needs a producerRate",
        ),
        (
            "consumerBacklogSizeGB: 1\nproducerRate: 5\n",
            "consumerBacklogSizeGB needs consumers",
        ),
        (
            "subscriptionsPerTopic: 1000\nconsumerPerSubscription: 1000\n",
            "are 1000001 clients",
        ),
        (
            "payloadFile: [a, b]\n",
            "the value of payloadFile is not a single value",
        ),
    ] {
        let why = with(more).unwrap_err().0;
        assert!(why.contains(expected), "{more:?} gives {why:?}");
    }
    for (text, expected) in [
        ("", "empty"),
        ("- a\n- b\n", "not a mapping"),
        ("a: [\n", "not YAML"),
        ("topics: 1\n", "the key partitionsPerTopic is missing"),
        ("topics: 1\ntopics: 2\n", "not YAML"),
    ] {
        let why = Workload::parse(text, &[], "x").unwrap_err().0;
        assert!(why.contains(expected), "{text:?} gives {why:?}");
    }
    for (key, value) in [
        ("topics", "0"),
        ("partitionsPerTopic", "0"),
        ("messageSize", "-1"),
        ("producersPerTopic", "0"),
    ] {
        let why = Workload::parse(SMALL, &[format!("{key}={value}")], "x")
            .unwrap_err()
            .0;
        assert!(
            why.starts_with(&format!("{key} is {value}; it lies between")),
            "{why}"
        );
    }
}

#[test]
fn overrides_win_and_durations_may_have_fractions() {
    let workload = Workload::parse(
        &format!("{SMALL}producerRate: 5\nname:\n"),
        &[
            "producerRate=1_000".to_owned(),
            "testDurationMinutes=0.5".to_owned(),
            "warmupDurationMinutes = 0".to_owned(),
        ],
        "small",
    )
    .unwrap();
    assert_eq!(workload.rate, 1000.0);
    assert_eq!(workload.test, Some(Duration::from_secs(30)));
    assert_eq!(workload.warmup, Duration::ZERO);
    assert_eq!(workload.name, "small", "a null is no value");
    let endless = Workload::parse(SMALL, &["testDurationMinutes=0".to_owned()], "x").unwrap();
    assert_eq!(endless.test, None);
    assert!(Workload::parse(SMALL, &["topics".to_owned()], "x").is_err());
}

#[test]
fn the_report_of_a_workload_reads_back_as_the_workload() {
    let workload =
        with("producerRate: 100\nsubscriptionsPerTopic: 1\nconsumerBacklogSizeGB: 2\n").unwrap();
    let text: String = workload
        .facts()
        .iter()
        .map(|(key, value)| format!("{key}: {value}\n"))
        .collect();
    assert_eq!(Workload::parse(&text, &[], "other").unwrap(), workload);
}

#[test]
fn a_payload_file_is_found_beside_the_workload_or_above_it() {
    let directory = tempfile::tempdir().unwrap();
    let workloads = directory.path().join("workloads");
    std::fs::create_dir_all(&workloads).unwrap();
    std::fs::create_dir_all(directory.path().join("payload")).unwrap();
    std::fs::write(directory.path().join("payload/p.data"), "x").unwrap();
    let path = workloads.join("w.yaml");
    std::fs::write(&path, format!("{SMALL}payloadFile: payload/p.data\n")).unwrap();
    let found = Workload::load(&path, &[]).unwrap().payload_file.unwrap();
    assert!(found.is_file());
    std::fs::remove_file(directory.path().join("payload/p.data")).unwrap();
    let why = Workload::load(&path, &[]).unwrap_err().0;
    assert!(why.contains("there is no file payload/p.data"), "{why}");
}

#[test]
fn a_driver_file_is_read() {
    let text = "
name: Kafka
driverClass: io.openmessaging.benchmark.driver.kafka.KafkaBenchmarkDriver
replicationFactor: 3
topicConfig: |
  min.insync.replicas=2
commonConfig: |
  bootstrap.servers=localhost:9092
producerConfig: |
  acks=all
  linger.ms=1
consumerConfig: |
  auto.offset.reset=earliest
";
    let driver = Driver::parse(text).unwrap();
    assert_eq!(driver.replication_factor, Some(3));
    assert_eq!(driver.topic["min.insync.replicas"], "2");
    assert_eq!(driver.common["bootstrap.servers"], "localhost:9092");
    assert_eq!(driver.producer.len(), 2);
    assert_eq!(driver.consumer["auto.offset.reset"], "earliest");
    assert!(
        Driver::parse(
            "driverClass: io.openmessaging.benchmark.driver.pulsar.PulsarBenchmarkDriver\n"
        )
        .is_err()
    );
    assert!(
        Driver::parse("producerConf: x\n")
            .unwrap_err()
            .0
            .contains("did you mean producerConfig?")
    );
}
