//! Tests of the metadata machine: what it refuses, what it makes, and that replay makes the same again.

use net::kafka::error::ErrorCode;
use storage::types::{CoreId, LeaderEpoch, Now, TopicId};
use uuid::Uuid;

use super::command::*;
use super::*;
use crate::config::{BrokerConfig, ConfigMap};

mod settings;

fn id(n: u128) -> TopicId {
    Uuid::from_u128(n)
}

fn map(pairs: &[(&str, &str)]) -> ConfigMap {
    pairs
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect()
}

/// An image, and every record that made it.
struct Machine {
    image: MetadataImage,
    log: Vec<MetadataRecord>,
}

impl Machine {
    fn new(settings: &[(&str, &str)]) -> Self {
        let config = BrokerConfig::from_settings(map(settings)).unwrap();
        let mut machine = Machine {
            image: MetadataImage::new("cluster".to_owned(), config),
            log: Vec::new(),
        };
        machine.start();
        machine
    }

    /// The broker starts.
    fn start(&mut self) {
        let count = self.image.start_count() + 1;
        let record = MetadataRecord::Start { count };
        self.image.apply(&record);
        self.log.push(record);
    }

    fn run(&mut self, command: MetadataCommand) -> MetadataReply {
        let (records, reply) = self.image.decide(Now::default(), &command);
        for record in records {
            self.image.apply(&record);
            self.log.push(record);
        }
        reply
    }

    fn create(&mut self, topics: Vec<NewTopic>) -> Vec<CreatedTopic> {
        match self.run(MetadataCommand::CreateTopics {
            topics,
            validate_only: false,
        }) {
            MetadataReply::Created(results) => results,
            other => panic!("{other:?}"),
        }
    }

    /// The code and the words for one topic.
    fn refusal(&mut self, topic: NewTopic) -> (i16, String) {
        let refusal = self.create(vec![topic]).remove(0).result.unwrap_err();
        (refusal.error as i16, refusal.message.unwrap_or_default())
    }

    fn alter(&mut self, resources: Vec<ConfigChange>) -> Vec<Result<(), Refusal>> {
        match self.run(MetadataCommand::AlterConfigs {
            resources,
            validate_only: false,
        }) {
            MetadataReply::ConfigsAltered(results) => results,
            other => panic!("{other:?}"),
        }
    }

    fn delete(&mut self, topics: Vec<TopicTarget>) -> Vec<DeletedTopic> {
        match self.run(MetadataCommand::DeleteTopics { topics }) {
            MetadataReply::Deleted(results) => results,
            other => panic!("{other:?}"),
        }
    }

    fn more(&mut self, topics: Vec<NewPartitions>) -> Vec<(String, Result<(), Refusal>)> {
        match self.run(MetadataCommand::CreatePartitions {
            topics,
            validate_only: false,
        }) {
            MetadataReply::PartitionsCreated(results) => results,
            other => panic!("{other:?}"),
        }
    }
}

fn topic(name: &str, n: u128) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        id: id(n),
        partition_count: -1,
        replication_factor: -1,
        assignments: Vec::new(),
        configs: Vec::new(),
    }
}

fn named(name: &str) -> TopicTarget {
    TopicTarget {
        name: Some(name.to_owned()),
        id: Uuid::nil(),
    }
}

fn by_id(n: u128) -> TopicTarget {
    TopicTarget {
        name: None,
        id: id(n),
    }
}

#[test]
fn created_topics_are_there() {
    let mut machine = Machine::new(&[("num.partitions", "3")]);
    let results = machine.create(vec![
        topic("plain", 10),
        NewTopic {
            configs: vec![("retention.ms".to_owned(), Some("5".to_owned()))],
            partition_count: 1,
            replication_factor: 1,
            ..topic("short", 11)
        },
        NewTopic {
            assignments: vec![(1, vec![1]), (0, vec![1])],
            ..topic("placed", 12)
        },
    ]);
    assert!(
        results.iter().all(|created| created.result.is_ok()),
        "{results:?}"
    );
    assert_eq!(machine.image.topic("plain").unwrap().partition_count(), 3);
    assert_eq!(machine.image.topic("placed").unwrap().partition_count(), 2);
    let short = machine.image.topic_by_id(id(11)).unwrap();
    assert_eq!(short.name, "short");
    assert_eq!(short.config.log.retention_ms, Some(5));
    assert_eq!(short.partition(0).unwrap().replicas, [1]);
    assert_eq!(short.partition(1), None);
    assert_eq!(short.partition(-1), None);
    let names: Vec<&str> = machine
        .image
        .topics()
        .map(|topic| topic.name.as_str())
        .collect();
    assert_eq!(names, ["placed", "plain", "short"]);
    let from: Vec<&str> = machine
        .image
        .topics_from("plb")
        .map(|topic| topic.name.as_str())
        .collect();
    assert_eq!(from, ["short"]);
}

#[test]
fn what_is_wrong_with_a_new_topic_is_told() {
    let mut machine = Machine::new(&[]);
    machine.create(vec![topic("there", 1), topic("a.b", 2)]);
    let long = "x".repeat(250);
    let table: Vec<(NewTopic, i16, &str)> = vec![
        (topic("there", 9), 36, "Topic 'there' already exists."),
        (topic("", 9), 17, "empty string"),
        (topic(".", 9), 17, "'.' is not allowed"),
        (topic("..", 9), 17, "'..' is not allowed"),
        (
            topic(&long, 9),
            17,
            "longer than the max allowed length 249",
        ),
        (topic("a/b", 9), 17, "other than ASCII alphanumerics"),
        (topic("\u{e9}", 9), 17, "other than ASCII alphanumerics"),
        (
            topic("a_b", 9),
            17,
            "Topic 'a_b' collides with existing topic: a.b",
        ),
        (topic("a.b", 9), 36, "Topic 'a.b' already exists."),
        (topic("__cluster_metadata", 9), 42, "prohibited"),
        (
            NewTopic {
                partition_count: 0,
                ..topic("x", 9)
            },
            37,
            "invalid non-positive value",
        ),
        (
            NewTopic {
                partition_count: -2,
                ..topic("x", 9)
            },
            37,
            "invalid non-positive value",
        ),
        (
            NewTopic {
                replication_factor: 0,
                ..topic("x", 9)
            },
            38,
            "larger than 0, or -1",
        ),
        (
            NewTopic {
                replication_factor: 3,
                ..topic("x", 9)
            },
            38,
            "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be \
             reached because only 1 broker(s) are registered.",
        ),
        (
            NewTopic {
                partition_count: 10_001,
                ..topic("x", 9)
            },
            44,
            "Excessively large number",
        ),
        (
            NewTopic {
                partition_count: 1,
                assignments: vec![(0, vec![1])],
                ..topic("x", 9)
            },
            42,
            "numPartitions was not set to -1",
        ),
        (
            NewTopic {
                replication_factor: 1,
                assignments: vec![(0, vec![1])],
                ..topic("x", 9)
            },
            42,
            "replication factor was not set to -1",
        ),
        (
            NewTopic {
                assignments: vec![(0, vec![2])],
                ..topic("x", 9)
            },
            39,
            "includes broker 2, but no such broker is registered",
        ),
        (
            NewTopic {
                assignments: vec![(0, vec![1, 1])],
                ..topic("x", 9)
            },
            39,
            "more than once",
        ),
        (
            NewTopic {
                assignments: vec![(0, vec![])],
                ..topic("x", 9)
            },
            39,
            "empty replica list",
        ),
        (
            NewTopic {
                assignments: vec![(1, vec![1])],
                ..topic("x", 9)
            },
            39,
            "consecutive 0-based",
        ),
        (
            NewTopic {
                assignments: vec![(0, vec![1]), (0, vec![1])],
                ..topic("x", 9)
            },
            39,
            "multiple manual partition assignments for partition 0",
        ),
        (
            NewTopic {
                configs: vec![("foo".to_owned(), Some(String::new()))],
                ..topic("x", 9)
            },
            40,
            "Unknown topic config name: foo",
        ),
        (
            NewTopic {
                configs: vec![("retention.ms".to_owned(), None)],
                ..topic("x", 9)
            },
            40,
            "Null value not supported for topic configs: retention.ms",
        ),
    ];
    for (wanted, code, words) in table {
        let (told_code, told_words) = machine.refusal(wanted.clone());
        assert_eq!(told_code, code, "{wanted:?}: {told_words}");
        assert!(told_words.contains(words), "{wanted:?}: {told_words}");
    }
    assert_eq!(machine.image.topics().count(), 2);
}

#[test]
fn one_request_names_each_topic_once() {
    // As in Kafka, a name that comes twice is refused, but names collide only with what is there already.
    let mut machine = Machine::new(&[]);
    let results = machine.create(vec![
        topic("x.y", 1),
        topic("x_y", 2),
        topic("z", 3),
        topic("z", 4),
    ]);
    let told: Vec<(String, i16)> = results
        .iter()
        .map(|created| {
            let code = created
                .result
                .as_ref()
                .err()
                .map_or(0, |refusal| refusal.error as i16);
            (created.name.clone(), code)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("x.y".to_owned(), 0),
            ("x_y".to_owned(), 0),
            ("z".to_owned(), 42)
        ]
    );
}

#[test]
fn validating_changes_nothing() {
    let mut machine = Machine::new(&[]);
    let before = machine.image.clone();
    let reply = machine.run(MetadataCommand::CreateTopics {
        topics: vec![topic("x", 1)],
        validate_only: true,
    });
    assert!(matches!(&reply, MetadataReply::Created(r) if r[0].result.is_ok()));
    assert_eq!(machine.image, before);
}

#[test]
fn ensured_topics() {
    let mut machine = Machine::new(&[
        ("num.partitions", "2"),
        ("offsets.topic.segment.bytes", "100"),
    ]);
    machine.create(vec![topic("old", 1), topic("a.b", 2)]);
    let reply = machine.run(MetadataCommand::EnsureTopics {
        topics: [
            "old",
            "new",
            "new",
            "a_b",
            "",
            OFFSETS_TOPIC,
            METADATA_TOPIC,
        ]
        .iter()
        .zip(100..)
        .map(|(name, n)| (name.to_string(), id(n)))
        .collect(),
    });
    let MetadataReply::Ensured(results) = reply else {
        panic!("{reply:?}")
    };
    let told: Vec<Result<TopicId, i16>> = results
        .into_iter()
        .map(|result| result.map_err(|refusal| refusal.error as i16))
        .collect();
    assert_eq!(
        told,
        [
            Ok(id(1)),
            Ok(id(101)),
            Ok(id(101)),
            Err(3),
            Err(17),
            Ok(id(105)),
            Err(3)
        ]
    );
    assert_eq!(machine.image.topic("new").unwrap().partition_count(), 2);
    let offsets = machine.image.topic(OFFSETS_TOPIC).unwrap();
    assert_eq!(offsets.partition_count(), 50);
    assert!(offsets.internal() && offsets.config.log.cleanup_compact);
    assert!(!offsets.config.log.cleanup_delete);
    assert_eq!(
        offsets.config.log.segment_bytes,
        1 << 20,
        "no segment is below the minimum"
    );
}

#[test]
fn deleting() {
    let mut machine = Machine::new(&[]);
    machine.create(vec![
        NewTopic {
            configs: vec![("retention.ms".to_owned(), Some("5".to_owned()))],
            ..topic("a", 1)
        },
        topic("b", 2),
        topic("c", 3),
        topic("d", 4),
    ]);
    machine.run(MetadataCommand::EnsureTopics {
        topics: vec![(OFFSETS_TOPIC.to_owned(), id(50))],
    });
    let results = machine.delete(vec![
        named("a"),
        by_id(2),
        named("missing"),
        by_id(99),
        named("twice"),
        named("twice"),
        by_id(77),
        by_id(77),
        TopicTarget {
            name: None,
            id: Uuid::nil(),
        },
        TopicTarget {
            name: Some("c".to_owned()),
            id: id(3),
        },
        by_id(4),
        named("d"),
        named(OFFSETS_TOPIC),
    ]);
    let mut told: Vec<String> = results
        .iter()
        .map(|deleted| {
            let code = deleted
                .result
                .as_ref()
                .err()
                .map_or(0, |refusal| refusal.error as i16);
            format!(
                "{} {} {code}",
                deleted.name.as_deref().unwrap_or("-"),
                deleted.id.as_u128()
            )
        })
        .collect();
    told.sort();
    let mut expected = vec![
        "a 1 0",
        "b 2 0",
        "missing 0 3",
        "- 99 100",
        "twice 0 42",
        "- 77 42",
        "- 0 42",
        "c 3 42",
        "d 4 42",
        "__consumer_offsets 50 42",
    ];
    expected.sort_unstable();
    assert_eq!(told, expected);
    let names: Vec<&str> = machine
        .image
        .topics()
        .map(|topic| topic.name.as_str())
        .collect();
    assert_eq!(names, ["__consumer_offsets", "c", "d"]);
    machine.create(vec![topic("a", 5)]);
    let again = machine.image.topic("a").unwrap();
    assert_eq!(again.id, id(5));
    assert_ne!(
        again.config.log.retention_ms,
        Some(5),
        "settings go with their topic"
    );
}

#[test]
fn more_partitions_and_their_epochs() {
    let mut machine = Machine::new(&[]);
    machine.create(vec![NewTopic {
        partition_count: 2,
        ..topic("t", 1)
    }]);
    machine.start();
    machine.start();
    let more = |name: &str, count, assignments| NewPartitions {
        name: name.to_owned(),
        count,
        assignments,
    };
    let table = [
        (more("missing", 3, None), Err(3)),
        (more("t", 2, None), Err(37)),
        (more("t", 1, None), Err(37)),
        (more("t", -1, None), Err(37)),
        (more("t", 4, Some(vec![vec![1]])), Err(39)),
        (more("t", 3, Some(vec![vec![7]])), Err(39)),
        (more("t", 2_000_000_000, None), Err(44)),
        (more("t", 3, Some(vec![vec![1]])), Ok(())),
        (more("t", 5, None), Ok(())),
    ];
    for (wanted, expected) in table {
        let (_, result) = machine.more(vec![wanted.clone()]).remove(0);
        assert_eq!(
            result.map_err(|refusal| refusal.error as i16),
            expected,
            "{wanted:?}"
        );
    }
    let twice = machine.more(vec![more("t", 9, None), more("t", 10, None)]);
    assert_eq!(twice.len(), 1);
    assert_eq!(
        twice[0].1.as_ref().unwrap_err().error,
        ErrorCode::InvalidRequest
    );
    let t = machine.image.topic("t").unwrap();
    let epochs: Vec<LeaderEpoch> = t
        .partitions()
        .map(|partition| machine.image.leader_epoch(&partition))
        .collect();
    assert_eq!(epochs, [2, 2, 0, 0, 0].map(LeaderEpoch));
    machine.start();
    let t = machine.image.topic("t").unwrap();
    assert_eq!(
        machine.image.leader_epoch(&t.partition(4).unwrap()),
        LeaderEpoch(1)
    );
}

#[test]
fn producer_ids_come_in_blocks() {
    let mut machine = Machine::new(&[]);
    let first = machine.run(MetadataCommand::ReserveProducerIds);
    let second = machine.run(MetadataCommand::ReserveProducerIds);
    assert_eq!(
        first,
        MetadataReply::ProducerIds {
            first: 0,
            count: 1000
        }
    );
    assert_eq!(
        second,
        MetadataReply::ProducerIds {
            first: 1000,
            count: 1000
        }
    );
}

fn change(kind: ResourceKind, name: &str, edit: ConfigEdit) -> ConfigChange {
    ConfigChange {
        kind: kind.code(),
        name: name.to_owned(),
        edit,
    }
}

fn incremental(operations: &[(&str, i8, Option<&str>)]) -> ConfigEdit {
    ConfigEdit::Incremental(
        operations
            .iter()
            .map(|(key, operation, value)| (key.to_string(), *operation, value.map(str::to_owned)))
            .collect(),
    )
}

#[test]
fn replay_makes_the_same_image_also_after_compaction() {
    let mut machine = Machine::new(&[("num.partitions", "2")]);
    let set = |kind, name: &str, key: &str, value: &str| {
        change(kind, name, incremental(&[(key, 0, Some(value))]))
    };
    machine.create(vec![topic("a", 1), topic("b", 2)]);
    machine.alter(vec![
        set(ResourceKind::Topic, "a", "retention.ms", "5"),
        set(ResourceKind::Topic, "b", "segment.ms", "6"),
        set(
            ResourceKind::Group,
            "g",
            "consumer.session.timeout.ms",
            "46000",
        ),
        set(ResourceKind::Broker, "", "log.segment.bytes", "5000000"),
    ]);
    machine.more(vec![NewPartitions {
        name: "a".to_owned(),
        count: 7,
        assignments: None,
    }]);
    machine.delete(vec![named("b")]);
    machine.create(vec![topic("b", 3)]);
    machine.run(MetadataCommand::ReserveProducerIds);
    machine.start();

    let raw: Vec<RawRecord> = machine.log.iter().map(MetadataRecord::encode).collect();
    let replay = |raw: &[RawRecord]| {
        let config = BrokerConfig::from_settings(map(&[("num.partitions", "2")])).unwrap();
        let mut image = MetadataImage::new("cluster".to_owned(), config);
        for record in raw {
            image.apply(&MetadataRecord::decode(&record.key, record.value.as_deref()).unwrap());
        }
        image
    };
    assert_eq!(replay(&raw), machine.image);
    let newest = |at: usize| !raw[at + 1..].iter().any(|later| later.key == raw[at].key);
    let compacted: Vec<RawRecord> = (0..raw.len())
        .filter(|at| newest(*at))
        .map(|at| raw[at].clone())
        .collect();
    assert!(compacted.len() < raw.len());
    assert_eq!(replay(&compacted), machine.image);
}

#[test]
fn records_that_nobody_wrote_are_refused() {
    let start = MetadataRecord::Start { count: 3 }.encode();
    assert_eq!(
        String::from_utf8(start.key.clone()).unwrap(),
        r#"{"type":"start"}"#
    );
    assert_eq!(
        String::from_utf8(start.value.unwrap()).unwrap(),
        r#"{"version":0,"count":3}"#
    );
    let decode = |key: &str, value: Option<&str>| {
        MetadataRecord::decode(key.as_bytes(), value.map(str::as_bytes))
    };
    assert!(decode("", None).is_err());
    assert!(decode(r#"{"type":"start"}"#, None).is_err());
    assert!(decode(r#"{"type":"other"}"#, None).is_err());
    assert!(decode(r#"{"type":"topic","id":"x"}"#, None).is_err());
    assert_eq!(
        decode(r#"{"type":"start"}"#, Some(r#"{"version":9}"#)),
        Err(record::RecordError::Version(9))
    );
    let id = id(1).to_string();
    let empty = decode(
        &format!(r#"{{"type":"topic","id":"{id}"}}"#),
        Some(r#"{"version":0,"name":"x","partitions":[]}"#),
    );
    assert!(empty.is_err());
}

#[test]
fn partitions_go_round_the_cores() {
    for cores in 1..=5u16 {
        let first = core_of("t", 0, cores);
        for partition in 0..20 {
            let expected = (usize::from(first.0) + partition) % usize::from(cores);
            assert_eq!(
                core_of("t", partition as i32, cores),
                CoreId(expected as u16)
            );
        }
    }
    let start = |n: u32| core_of(&format!("t{n}"), 0, 4).0;
    let starts: std::collections::HashSet<u16> = (0..64).map(start).collect();
    assert_eq!(starts.len(), 4, "topics start on different cores");
}

/// A topic that is made again wants the directories of the one before: the same cores decide on them.
#[test]
fn a_topic_made_again_has_its_partitions_where_they_were() {
    let partitions = vec![record::PartitionRun {
        count: 4,
        created_at_start: 0,
        replicas: vec![1],
    }];
    for cores in 1..=5 {
        let owners = |id| {
            let mut image = Machine::new(&[]).image;
            image.apply(&MetadataRecord::Topic {
                id,
                name: "again".to_owned(),
                partitions: partitions.clone(),
            });
            let topic = image.topic_by_id(id).unwrap();
            let owner = |partition| topic.core_of(partition, cores);
            (0..4).map(owner).collect::<Vec<CoreId>>()
        };
        let expected: Vec<CoreId> = (0..4).map(|p| core_of("again", p, cores)).collect();
        for n in 0..16 {
            assert_eq!(owners(id(n)), expected);
        }
    }
}
