//! Tests of the configuration: what starts a broker, what does not, and what topics get from it.

use super::broker::ConfigWarning;
use super::describe::{self, ConfigEntry, ConfigSource};
use super::listener::HostPort;
use super::topic::{CompressionType, TimestampType};
use super::{BrokerConfig, ConfigError, ConfigMap, TopicConfig, topic};

fn load(text: &str, overrides: &[&str]) -> Result<(BrokerConfig, Vec<ConfigWarning>), ConfigError> {
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    BrokerConfig::from_text(text, &overrides)
}

fn config(text: &str) -> BrokerConfig {
    load(text, &[])
        .unwrap_or_else(|error| panic!("{text:?}: {error}"))
        .0
}

fn refusal(text: &str) -> String {
    load(text, &[]).map(|_| ()).expect_err(text).to_string()
}

fn map(pairs: &[(&str, &str)]) -> ConfigMap {
    pairs
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect()
}

/// The settings of the server.properties that Kafka 4.3 ships.
const KAFKA_SERVER_PROPERTIES: &str = "\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
";

#[test]
fn the_file_that_kafka_ships_is_taken_unchanged() {
    let (config, warnings) = load(KAFKA_SERVER_PROPERTIES, &[]).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.node_id, 1);
    assert_eq!(
        config.listeners.len(),
        1,
        "the controller's listener is not opened"
    );
    assert_eq!(config.listeners[0].name, "PLAINTEXT");
    assert_eq!(
        config.listeners[0].bind,
        HostPort {
            host: String::new(),
            port: 9092
        }
    );
    assert_eq!(config.listeners[0].advertised.to_string(), "localhost:9092");
    assert_eq!(
        config.log_dirs,
        [std::path::PathBuf::from("/tmp/kraft-combined-logs")]
    );
    assert_eq!(
        config.topic_defaults.log.retention_ms,
        Some(168 * 3_600_000)
    );
}

#[test]
fn without_a_file_it_listens_on_this_machine_only() {
    let config = BrokerConfig::default();
    assert_eq!(config.listeners[0].bind.to_string(), "127.0.0.1:9092");
    assert_eq!(config.listeners[0].advertised.to_string(), "127.0.0.1:9092");
    assert_eq!(
        config.log_dirs,
        [std::path::absolute("millrace-data").expect("a current directory")]
    );
    assert_eq!(config.http_listener.unwrap().to_string(), "127.0.0.1:9644");
    assert_eq!(config.topic_defaults.log.flush_messages, 1);
    assert_eq!(config.topic_defaults.log.flush_ms, None);
}

#[test]
fn overrides_win_and_oddities_are_told() {
    let (config, warnings) = load(
        "num.partitions=2\nfoo.bar=1\nnum.partitions=3",
        &["num.partitions=4", "bar=x=y"],
    )
    .unwrap();
    assert_eq!(config.num_partitions, 4);
    let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "foo.bar: unknown key on line 2, ignored",
            "num.partitions: set again on line 3; the last one counts",
            "bar: unknown key in --override, ignored",
        ]
    );
    assert!(load("", &["num.partitions"]).is_err());
    assert_eq!(
        load("listener.name.x.ssl.key.password=y", &[]).unwrap().1,
        []
    );
}

#[test]
fn several_named_listeners() {
    let config = config(
        "listeners=INTERNAL://127.0.0.1:9092,external://0.0.0.0:9094,V6://[::1]:9095\n\
         advertised.listeners=EXTERNAL://broker.example.org:19094\n\
         listener.security.protocol.map=INTERNAL:PLAINTEXT,EXTERNAL:PLAINTEXT,V6:plaintext\n\
         inter.broker.listener.name=INTERNAL\nhttp.listener=",
    );
    let told: Vec<String> = config
        .listeners
        .iter()
        .map(|l| format!("{} {} {}", l.name, l.bind, l.advertised))
        .collect();
    assert_eq!(
        told,
        [
            "INTERNAL 127.0.0.1:9092 127.0.0.1:9092",
            "EXTERNAL 0.0.0.0:9094 broker.example.org:19094",
            "V6 [::1]:9095 [::1]:9095",
        ]
    );
    assert_eq!(config.http_listener, None);
    assert_eq!(
        config.native_listener.expect("the default").to_string(),
        "127.0.0.1:9192"
    );
}

#[test]
fn the_unix_socket_is_off_unless_it_has_a_place_that_the_kernel_takes() {
    assert_eq!(config("").native_unix_socket, None);
    assert_eq!(config("native.unix.socket=").native_unix_socket, None);
    let longest = format!("/{}", "x".repeat(106));
    for path in ["/run/millrace/native.sock", &longest] {
        let config = config(&format!("native.listener=\nnative.unix.socket={path}"));
        assert_eq!(config.native_unix_socket, Some(path.into()));
        assert_eq!(config.native_listener, None, "one goes without the other");
    }
    let too_long = format!("/{}", "x".repeat(107));
    for (path, allowed) in [
        (
            "run/native.sock",
            "the absolute path of a socket, or empty for none",
        ),
        ("/", "the absolute path of a socket, or empty for none"),
        (
            "/run/millrace/",
            "the absolute path of a socket, or empty for none",
        ),
        (
            too_long.as_str(),
            "a path of at most 107 bytes: the kernel takes no more for a socket",
        ),
    ] {
        let error = load(&format!("native.unix.socket={path}"), &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("native.unix.socket={path} is not allowed: {allowed}")
        );
    }
}

#[test]
fn bad_values_name_key_value_and_what_is_allowed() {
    let table = [
        (
            "num.partitions=0",
            "num.partitions=0 is not allowed: Value must be at least 1",
        ),
        (
            "num.partitions=many",
            "num.partitions=many is not allowed: Not a number of type INT",
        ),
        (
            "auto.create.topics.enable=yes",
            "auto.create.topics.enable=yes is not allowed: Expected value to be either true or false",
        ),
        (
            "log.cleanup.policy=shred",
            "log.cleanup.policy=shred is not allowed: String must be one of: compact, delete",
        ),
        (
            "listeners=PLAINTEXT://0.0.0.0:9092",
            "PLAINTEXT binds to every interface, so clients cannot be told where to connect; set \
             advertised.listeners=PLAINTEXT://<host that clients reach>:9092",
        ),
        ("listeners=PLAINTEXT://:9092", "set advertised.listeners"),
        (
            "listeners=PLAINTEXT://[::]:9092",
            "set advertised.listeners",
        ),
        (
            "listeners=localhost:9092",
            "'localhost:9092' is not of the form NAME://host:port",
        ),
        (
            "listeners=PLAINTEXT://a:99999",
            "is not of the form NAME://host:port",
        ),
        (
            "listeners=PLAINTEXT://a:1,PLAINTEXT://a:2",
            "PLAINTEXT comes twice",
        ),
        (
            "listeners=A://a:1,B://a:1\nlistener.security.protocol.map=A:PLAINTEXT,B:PLAINTEXT",
            "each listener needs its own port",
        ),
        (
            "listeners=SSL://a:9092",
            "listener SSL speaks SSL, which is not served yet",
        ),
        ("listeners=SASL_PLAINTEXT://a:9092", "speaks SASL_PLAINTEXT"),
        (
            "listeners=OTHER://a:9092",
            "add OTHER:PLAINTEXT to listener.security.protocol.map",
        ),
        (
            "listeners=CONTROLLER://a:9092\ncontroller.listener.names=CONTROLLER",
            "at least one listener that is not in controller.listener.names",
        ),
        (
            "advertised.listeners=PLAINTEXT://0.0.0.0:9092",
            "clients cannot connect to '0.0.0.0:9092'",
        ),
        (
            "advertised.listeners=OTHER://a:1",
            "OTHER is not among listeners=",
        ),
        (
            "inter.broker.listener.name=X",
            "one of the opened listeners: PLAINTEXT",
        ),
        (
            "http.listener=9644",
            "http.listener=9644 is not allowed: host:port, or empty for none",
        ),
        ("log.dirs=/a,/a", "each directory once"),
        (
            "process.roles=controller",
            "a node that is only a controller is not served",
        ),
        ("node.id=1\nbroker.id=2", "the same as node.id=1"),
        (
            "authorizer.class.name=x.Y",
            "access control is not served yet",
        ),
        ("remote.log.storage.system.enable=true", "'true' is refused"),
        (
            "group.min.session.timeout.ms=7000000",
            "at most group.max.session.timeout.ms=1800000",
        ),
        ("default.replication.factor=3", "1 on one node"),
        (
            "max.connections.per.ip.overrides=a",
            "'a' is not address:count",
        ),
        ("log.retention.ms=0", "-1, or at least 1"),
        ("a=\\u12", "line 1: '\\u12' is not a Unicode escape"),
    ];
    for (text, expected) in table {
        let told = refusal(text);
        assert!(
            told.contains(expected),
            "{text:?} said {told:?}, not {expected:?}"
        );
    }
}

#[test]
fn keys_of_other_units_and_older_names() {
    let c = config(
        "broker.id=7\nlog.dir=/x\nlog.retention.minutes=2\nlog.retention.hours=9\nlog.roll.hours=1\n\
         log.roll.jitter.ms=5\nlog.flush.interval.messages=10\noffsets.topic.replication.factor=3\n\
         max.connections.per.ip.overrides=127.0.0.1:3,host:0",
    );
    assert_eq!(c.node_id, 7);
    assert_eq!(c.log_dirs, [std::path::PathBuf::from("/x")]);
    assert_eq!(c.topic_defaults.log.retention_ms, Some(120_000));
    assert_eq!(c.topic_defaults.log.segment_ms, 3_600_000);
    assert_eq!(c.topic_defaults.log.segment_jitter_ms, 5);
    assert_eq!(c.topic_defaults.log.flush_messages, 10);
    assert_eq!(
        c.connections_per_ip_overrides,
        [("127.0.0.1".to_owned(), 3), ("host".to_owned(), 0)]
    );
    assert_eq!(
        config("log.retention.hours=-1")
            .topic_defaults
            .log
            .retention_ms,
        None
    );
    assert_eq!(
        config("log.flush.scheduler.interval.ms=7")
            .topic_defaults
            .log
            .flush_ms,
        Some(7)
    );
}

#[test]
fn topics_override_the_broker() {
    let broker =
        config("log.segment.bytes=2000000\ncompression.type=gzip\ncompression.gzip.level=4");
    assert_eq!(
        TopicConfig::effective(&broker, &map(&[])),
        broker.topic_defaults
    );
    assert_eq!(broker.topic_defaults.compression, CompressionType::Gzip(4));
    let own = map(&[
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "5"),
        ("compression.type", "zstd"),
        ("compression.zstd.level", "-7"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.cleanable.dirty.ratio", "0.25"),
        ("max.message.bytes", "1000"),
    ]);
    let topic = TopicConfig::effective(&broker, &own);
    assert_eq!(topic.log.segment_bytes, 2_000_000);
    assert!(topic.log.cleanup_compact && topic.log.cleanup_delete);
    assert_eq!(topic.log.retention_ms, None);
    assert_eq!(topic.log.retention_bytes, Some(5));
    assert_eq!(topic.compression, CompressionType::Zstd(-7));
    assert_eq!(topic.timestamp_type, TimestampType::LogAppendTime);
    assert_eq!(topic.log.min_cleanable_dirty_ratio, 0.25);
    assert_eq!(topic.message_bytes_max, 1000);
    let neither = TopicConfig::effective(&broker, &map(&[("cleanup.policy", "")]));
    assert!(!neither.log.cleanup_compact && !neither.log.cleanup_delete);
}

#[test]
fn bad_topic_settings_are_refused_in_kafkas_words() {
    let broker = BrokerConfig::default();
    let table = [
        ("foo", "1", "Unknown topic config name: foo"),
        (
            "retention.ms",
            "-5",
            "Invalid value -5 for configuration retention.ms: Value must be at least -1",
        ),
        (
            "segment.bytes",
            "99999999999",
            "Invalid value 99999999999 for configuration segment.bytes: Not a number of type INT",
        ),
        (
            "cleanup.policy",
            "delete,foo",
            "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete",
        ),
        (
            "min.cleanable.dirty.ratio",
            "2",
            "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
        ),
        (
            "compression.gzip.level",
            "0",
            "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or \
             equal to -1",
        ),
        (
            "leader.replication.throttled.replicas",
            "x",
            "Invalid value [x] for configuration leader.replication.throttled.replicas: \
             leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the \
             following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
        ),
        (
            "remote.storage.enable",
            "true",
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with \
             remote log storage.",
        ),
    ];
    for (key, value, expected) in table {
        assert_eq!(
            topic::validate(&broker, &map(&[(key, value)])).unwrap_err(),
            expected
        );
    }
    for (key, value) in [
        ("retention.ms", " 100 "),
        ("preallocate", "TRUE"),
        ("cleanup.policy", ""),
        ("retention.bytes", "-2"),
        ("remote.storage.enable", "false"),
        ("leader.replication.throttled.replicas", "0:1,1:2"),
        ("follower.replication.throttled.replicas", "*"),
    ] {
        assert_eq!(
            topic::validate(&broker, &map(&[(key, value)])),
            Ok(()),
            "{key}={value}"
        );
    }
    let lags = map(&[
        ("min.compaction.lag.ms", "10"),
        ("max.compaction.lag.ms", "5"),
    ]);
    assert_eq!(
        topic::validate(&broker, &lags).unwrap_err(),
        "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)"
    );
}

fn find<'a>(entries: &'a [ConfigEntry], name: &str) -> &'a ConfigEntry {
    entries
        .iter()
        .find(|entry| entry.name == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

fn told(entry: &ConfigEntry) -> String {
    let synonyms: Vec<String> = entry
        .synonyms
        .iter()
        .map(|s| {
            format!(
                "{:?}:{}={}",
                s.source,
                s.name,
                s.value.as_deref().unwrap_or("null")
            )
        })
        .collect();
    let value = entry.value.as_deref().unwrap_or("null");
    format!("{value} {:?} [{}]", entry.source, synonyms.join(", "))
}

#[test]
fn topics_are_described_with_what_stands_behind_them() {
    let broker = config("log.segment.bytes=2000000\nlog.retention.hours=5\nlog.roll.ms=9000000");
    let broker = broker.with_dynamic(
        &map(&[("log.segment.bytes", "3000000")]),
        &map(&[("message.max.bytes", "7")]),
    );
    let entries = describe::topic(&broker, &map(&[("cleanup.policy", "compact")]));
    assert_eq!(entries.len(), 33);
    assert!(entries.windows(2).all(|pair| pair[0].name < pair[1].name));
    let table = [
        (
            "segment.bytes",
            "3000000 DynamicDefaultBroker [DynamicDefaultBroker:log.segment.bytes=3000000, \
             StaticBroker:log.segment.bytes=2000000, Default:log.segment.bytes=1073741824]",
        ),
        (
            "max.message.bytes",
            "7 DynamicBroker [DynamicBroker:message.max.bytes=7, Default:message.max.bytes=1048588]",
        ),
        (
            "cleanup.policy",
            "compact Topic [Topic:cleanup.policy=compact, Default:log.cleanup.policy=delete]",
        ),
        // Its first broker key is log.retention.ms, which is not set: nothing is told of the hours.
        ("retention.ms", "18000000 Default []"),
        (
            "segment.ms",
            "9000000 StaticBroker [StaticBroker:log.roll.ms=9000000, Default:log.roll.hours=168]",
        ),
        ("flush.ms", "9223372036854775807 Default []"),
        (
            "flush.messages",
            "1 Default [Default:log.flush.interval.messages=1]",
        ),
        ("remote.storage.enable", "false Default []"),
        ("leader.replication.throttled.replicas", " Default []"),
        (
            "min.cleanable.dirty.ratio",
            "0.5 Default [Default:log.cleaner.min.cleanable.ratio=0.5]",
        ),
    ];
    for (name, expected) in table {
        assert_eq!(told(find(&entries, name)), expected, "{name}");
    }
    assert!(
        entries
            .iter()
            .all(|entry| !entry.read_only && !entry.sensitive)
    );
    assert_eq!(find(&entries, "cleanup.policy").kind, 7);
}

#[test]
fn brokers_are_described_with_secrets_hidden() {
    let broker =
        config("ssl.key.password=secret\nnum.partitions=3\nmy.own.key=1\nlog.retention.hours=1");
    let broker = broker.with_dynamic(&map(&[("log.retention.ms", "77")]), &map(&[]));
    let entries = describe::broker(&broker);
    assert_eq!(
        entries.len(),
        341,
        "Kafka's 340 and the one that nobody knows"
    );
    let password = find(&entries, "ssl.key.password");
    assert_eq!(
        told(password),
        "null StaticBroker [StaticBroker:ssl.key.password=null]"
    );
    assert!(password.sensitive && !password.read_only);
    assert_eq!(password.kind, 9);
    let partitions = find(&entries, "num.partitions");
    assert_eq!(
        told(partitions),
        "3 StaticBroker [StaticBroker:num.partitions=3, Default:num.partitions=1]"
    );
    assert!(partitions.read_only);
    assert_eq!(
        told(find(&entries, "log.retention.hours")),
        "1 StaticBroker [StaticBroker:log.retention.hours=1, Default:log.retention.hours=168]"
    );
    assert_eq!(
        told(find(&entries, "log.retention.ms")),
        "77 DynamicDefaultBroker [DynamicDefaultBroker:log.retention.ms=77, \
         StaticBroker:log.retention.hours=1, Default:log.retention.hours=168]"
    );
    let ids = describe::broker(&config("node.id=5"));
    assert_eq!(
        told(find(&ids, "broker.id")),
        "5 StaticBroker [StaticBroker:broker.id=5, Default:broker.id=-1]",
        "either name of the id stands for both"
    );
    let unknown = find(&entries, "my.own.key");
    assert!(unknown.sensitive && unknown.value.is_none() && unknown.kind == 0);
    assert_eq!(
        told(find(&entries, "log.cleaner.io.max.bytes.per.second")),
        "1.7976931348623157E308 Default \
         [Default:log.cleaner.io.max.bytes.per.second=1.7976931348623157E308]"
    );
    let defaults = describe::broker_defaults(&broker);
    assert_eq!(defaults.len(), 1);
    assert_eq!(
        told(&defaults[0]),
        "77 DynamicDefaultBroker [DynamicDefaultBroker:log.retention.ms=77]"
    );
}

#[test]
fn groups_follow_the_broker() {
    let broker = config("group.consumer.session.timeout.ms=50000");
    let entries = describe::group(&broker, &map(&[("consumer.heartbeat.interval.ms", "6000")]));
    assert_eq!(entries.len(), 17);
    assert_eq!(
        told(find(&entries, "consumer.session.timeout.ms")),
        "50000 StaticBroker [StaticBroker:group.consumer.session.timeout.ms=50000, \
         Default:group.consumer.session.timeout.ms=45000]"
    );
    assert_eq!(
        told(find(&entries, "consumer.heartbeat.interval.ms")),
        "6000 Group [Group:consumer.heartbeat.interval.ms=6000, \
         Default:group.consumer.heartbeat.interval.ms=5000]"
    );
    assert_eq!(
        told(find(&entries, "share.auto.offset.reset")),
        "latest Default [Default:share.auto.offset.reset=latest]"
    );
    assert_eq!(
        find(&entries, "share.auto.offset.reset").source,
        ConfigSource::Default
    );
}
