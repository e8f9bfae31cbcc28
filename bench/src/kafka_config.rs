//! Java clients' properties in librdkafka's words, with Java's defaults. The calling thread; knows names and values, and opens no connection.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;

use crate::Failure;
use crate::context::log_line;

/// A client's properties under their Java names.
pub type Properties = BTreeMap<String, String>;

/// What becomes of a Java property.
enum Fate {
    /// It has this name in librdkafka.
    Named(&'static str),
    /// It has no counterpart and changes nothing that is visible.
    Dropped,
    /// It needs a closer look.
    Special,
}

fn fate(java: &str) -> Option<Fate> {
    use Fate::{Dropped, Named, Special};
    Some(match java {
        "fetch.max.wait.ms" => Named("fetch.wait.max.ms"),
        "send.buffer.bytes" => Named("socket.send.buffer.bytes"),
        "receive.buffer.bytes" => Named("socket.receive.buffer.bytes"),
        "max.request.size" => Named("message.max.bytes"),
        "socket.connection.setup.timeout.ms" => Named("socket.connection.setup.timeout.ms"),
        "compression.gzip.level" | "compression.lz4.level" | "compression.zstd.level" => {
            Named("compression.level")
        }
        "ssl.truststore.certificates" => Named("ssl.ca.pem"),
        "ssl.keystore.certificate.chain" => Named("ssl.certificate.pem"),
        "ssl.keystore.key" => Named("ssl.key.pem"),
        "acks"
        | "buffer.memory"
        | "partitioner.class"
        | "partitioner.ignore.keys"
        | "partition.assignment.strategy"
        | "request.timeout.ms"
        | "sasl.jaas.config"
        | "auto.offset.reset"
        | "security.protocol" => Special,
        "key.serializer"
        | "value.serializer"
        | "key.deserializer"
        | "value.deserializer"
        | "max.block.ms"
        | "max.poll.records"
        | "exclude.internal.topics"
        | "default.api.timeout.ms"
        | "metric.reporters"
        | "metrics.num.samples"
        | "metrics.recording.level"
        | "metrics.sample.window.ms"
        | "auto.include.jmx.reporter"
        | "partitioner.availability.timeout.ms"
        | "partitioner.adaptive.partitioning.enable"
        | "enable.metrics.push"
        | "socket.connection.setup.timeout.max.ms"
        | "metadata.max.idle.ms" => Dropped,
        _ => return None,
    })
}

/// A producer with Java's defaults, changed by these properties.
///
/// # Errors
/// A value that is not valid, with its property.
pub fn producer(properties: &Properties) -> Result<ClientConfig, Failure> {
    let defaults = [
        ("acks", "all"),
        ("batch.size", "16384"),
        ("linger.ms", "5"),
        ("enable.idempotence", "true"),
        ("partitioner", "murmur2_random"),
        ("queue.buffering.max.kbytes", "32768"),
        // Java bounds its queue by bytes alone.
        ("queue.buffering.max.messages", "10000000"),
        ("delivery.timeout.ms", "120000"),
        ("max.in.flight.requests.per.connection", "5"),
        ("message.max.bytes", "1048576"),
        ("retry.backoff.ms", "100"),
        ("reconnect.backoff.ms", "50"),
        ("reconnect.backoff.max.ms", "1000"),
        ("metadata.max.age.ms", "300000"),
        ("connections.max.idle.ms", "540000"),
        ("enable.metrics.push", "false"),
        ("log.connection.close", "false"),
    ];
    let mut config = ClientConfig::new();
    for (name, value) in defaults {
        config.set(name, value);
    }
    check_servers(properties)?;
    let mut properties = properties.clone();
    // As in Java, idempotence gives way when it was not asked for and the other settings forbid it.
    if !properties.contains_key("enable.idempotence") {
        let weak_acks = properties
            .get("acks")
            .is_some_and(|acks| !matches!(acks.trim(), "all" | "-1"));
        let no_retries = properties
            .get("retries")
            .is_some_and(|retries| retries.trim() == "0");
        if weak_acks || no_retries {
            properties.insert("enable.idempotence".to_owned(), "false".to_owned());
        }
    }
    apply(&mut config, &properties, true)?;
    Ok(config)
}

/// Keeps several batches of a partition on their way at once, as Java's producer does: librdkafka sends the next batch of a partition only when
/// the one before was answered, where idempotence is on (it counts records against the five requests that a broker remembers). So a tool that
/// measures switches idempotence off, unless it was asked for or a transaction needs it.
pub fn pipelined(properties: &mut Properties) {
    if !properties.contains_key("transactional.id") {
        properties
            .entry("enable.idempotence".to_owned())
            .or_insert_with(|| "false".to_owned());
    }
}

/// A consumer with Java's defaults, changed by these properties.
///
/// # Errors
/// A value that is not valid, with its property.
pub fn consumer(properties: &Properties) -> Result<ClientConfig, Failure> {
    let defaults = [
        ("isolation.level", "read_uncommitted"),
        ("auto.offset.reset", "latest"),
        ("enable.auto.commit", "true"),
        ("allow.auto.create.topics", "true"),
        ("check.crcs", "true"),
        ("partition.assignment.strategy", "range"),
        ("reconnect.backoff.ms", "50"),
        ("reconnect.backoff.max.ms", "1000"),
        ("metadata.max.age.ms", "300000"),
        ("connections.max.idle.ms", "540000"),
        ("enable.metrics.push", "false"),
        ("log.connection.close", "false"),
        // Neither has a counterpart in Java, whose consumer fetches whenever it has room.
        ("fetch.queue.backoff.ms", "10"),
        ("fetch.error.backoff.ms", "100"),
    ];
    let mut config = ClientConfig::new();
    for (name, value) in defaults {
        config.set(name, value);
    }
    check_servers(properties)?;
    apply(&mut config, properties, false)?;
    Ok(config)
}

fn apply(
    config: &mut ClientConfig,
    properties: &Properties,
    producer: bool,
) -> Result<(), Failure> {
    let mut unknown = Vec::new();
    for (java, value) in properties {
        match fate(java) {
            Some(Fate::Named(name)) => set(config, java, name, value)?,
            Some(Fate::Dropped) => {}
            Some(Fate::Special) => special(config, java, value, producer)?,
            None if is_known(java) => set(config, java, java, value)?,
            None => unknown.push(java.as_str()),
        }
    }
    if !unknown.is_empty() {
        log_line(
            "WARN",
            &format!("These configurations '{unknown:?}' were supplied but are not used."),
        );
    }
    Ok(())
}

fn special(
    config: &mut ClientConfig,
    java: &str,
    value: &str,
    producer: bool,
) -> Result<(), Failure> {
    let short = value.rsplit('.').next().unwrap_or(value);
    match java {
        "buffer.memory" => {
            let bytes: u64 = value.trim().parse().map_err(|_| invalid(java, value))?;
            set(
                config,
                java,
                "queue.buffering.max.kbytes",
                &(bytes / 1024).max(1).to_string(),
            )
        }
        "request.timeout.ms" if producer => {
            set(config, java, "request.timeout.ms", value)?;
            set(config, java, "socket.timeout.ms", &at_least(value, 1000))
        }
        "request.timeout.ms" => set(config, java, "socket.timeout.ms", &at_least(value, 1000)),
        "partitioner.ignore.keys" => {
            if value.trim() == "true" {
                config.set("partitioner", "random");
            }
            Ok(())
        }
        "partitioner.class" => {
            log_line(
                "WARN",
                &format!(
                    "{java}={value} is not supported: keys are placed as Java's default does."
                ),
            );
            Ok(())
        }
        "partition.assignment.strategy" => {
            let strategy = match value
                .split(',')
                .next()
                .map(|first| first.rsplit('.').next().unwrap_or(first))
            {
                Some("RoundRobinAssignor" | "roundrobin") => "roundrobin",
                Some("CooperativeStickyAssignor" | "cooperative-sticky") => "cooperative-sticky",
                Some("RangeAssignor" | "range") => "range",
                _ => {
                    log_line(
                        "WARN",
                        &format!("{java}={value} is not supported: range is used."),
                    );
                    "range"
                }
            };
            set(config, java, java, strategy)
        }
        "auto.offset.reset" => match value.trim() {
            "none" => set(config, java, java, "error"),
            "earliest" | "latest" => set(config, java, java, value.trim()),
            _ => Err(invalid(java, value)),
        },
        "security.protocol" => set(config, java, java, &value.trim().to_ascii_lowercase()),
        "sasl.jaas.config" => {
            for (field, name) in [("username", "sasl.username"), ("password", "sasl.password")] {
                if let Some(found) = jaas_field(value, field) {
                    set(config, java, name, &found)?;
                }
            }
            Ok(())
        }
        // librdkafka takes any number of brokers.
        "acks" if !matches!(short.trim(), "all" | "-1" | "0" | "1") => Err(Failure(format!(
            "Invalid value {} for configuration acks: String must be one of: all, -1, 0, 1",
            short.trim()
        ))),
        "acks" => set(config, java, java, short.trim()),
        other => unreachable!("{other} has no special treatment"),
    }
}

/// librdkafka tries for ever where Java's clients are not even made.
fn check_servers(properties: &Properties) -> Result<(), Failure> {
    match properties.get("bootstrap.servers") {
        Some(servers) if !servers.trim().is_empty() && !net::client::resolvable(servers) => {
            Err(Failure(net::client::ClientError::Unresolvable.to_string()))
        }
        _ => Ok(()),
    }
}

/// librdkafka's sockets need a second at least.
fn at_least(value: &str, least: u64) -> String {
    match value.trim().parse::<u64>() {
        Ok(number) => number.max(least).to_string(),
        Err(_) => value.to_owned(),
    }
}

/// The quoted value of a field in a JAAS line: `... username="x" password="y";`.
fn jaas_field(jaas: &str, field: &str) -> Option<String> {
    let rest = &jaas[jaas.find(&format!("{field}="))? + field.len() + 1..];
    let rest = rest.strip_prefix(['"', '\''])?;
    rest.find(['"', '\'']).map(|end| rest[..end].to_owned())
}

fn set(config: &mut ClientConfig, java: &str, name: &str, value: &str) -> Result<(), Failure> {
    let mut alone = ClientConfig::new();
    alone.set(name, value.trim());
    alone
        .create_native_config()
        .map_err(|_| invalid(java, value))?;
    config.set(name, value.trim());
    Ok(())
}

fn is_known(name: &str) -> bool {
    match ClientConfig::new().create_native_config() {
        // Asking for a value tells names apart without setting anything; unset texts are known too.
        Ok(native) => native.get(name).is_ok() || is_settable(name),
        Err(_) => false,
    }
}

fn is_settable(name: &str) -> bool {
    let mut alone = ClientConfig::new();
    alone.set(name, "");
    !matches!(
        alone.create_native_config(),
        Err(rdkafka::error::KafkaError::ClientConfig(
            rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN,
            ..
        ))
    )
}

fn invalid(java: &str, value: &str) -> Failure {
    Failure(format!("Invalid value {value} for configuration {java}"))
}

/// Merges an option over properties as Kafka's tools do: what was given on the command line wins, what the properties
/// say comes next, then the option's default.
pub fn merge(properties: &mut Properties, key: &str, given: Option<String>, default: Option<&str>) {
    if let Some(value) = given {
        properties.insert(key.to_owned(), value);
    } else if let Some(default) = default {
        properties
            .entry(key.to_owned())
            .or_insert_with(|| default.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_producer_behaves_like_javas() {
        let config = producer(&properties(&[])).unwrap();
        for (name, value) in [
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("linger.ms", "5"),
            ("batch.size", "16384"),
            ("partitioner", "murmur2_random"),
        ] {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
        config.create_native_config().unwrap();
    }

    #[test]
    fn java_names_are_translated() {
        let config = producer(&properties(&[
            ("buffer.memory", "1048576"),
            ("max.request.size", "5000000"),
            ("send.buffer.bytes", "102400"),
            ("request.timeout.ms", "1500"),
            (
                "key.serializer",
                "org.apache.kafka.common.serialization.StringSerializer",
            ),
            ("compression.type", "zstd"),
        ]))
        .unwrap();
        for (name, value) in [
            ("queue.buffering.max.kbytes", "1024"),
            ("message.max.bytes", "5000000"),
            ("socket.send.buffer.bytes", "102400"),
            ("request.timeout.ms", "1500"),
            ("compression.type", "zstd"),
        ] {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
        assert_eq!(config.get("key.serializer"), None);
        config.create_native_config().unwrap();
        let config = consumer(&properties(&[
            ("fetch.max.wait.ms", "10"),
            ("auto.offset.reset", "none"),
            (
                "partition.assignment.strategy",
                "org.apache.kafka.clients.consumer.CooperativeStickyAssignor",
            ),
            ("group.id", "g"),
        ]))
        .unwrap();
        assert_eq!(config.get("fetch.wait.max.ms"), Some("10"));
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
        assert_eq!(
            config.get("partition.assignment.strategy"),
            Some("cooperative-sticky")
        );
        assert_eq!(config.get("isolation.level"), Some("read_uncommitted"));
        config.create_native_config().unwrap();
    }

    #[test]
    fn weak_settings_switch_idempotence_off_unless_it_was_asked_for() {
        let off = |pairs: &[(&str, &str)]| {
            producer(&properties(pairs))
                .unwrap()
                .get("enable.idempotence")
                == Some("false")
        };
        assert!(off(&[("acks", "1")]) && off(&[("retries", "0")]));
        assert_eq!(
            producer(&properties(&[("acks", "7")])).err(),
            Some(Failure(
                "Invalid value 7 for configuration acks: String must be one of: all, -1, 0, 1"
                    .to_owned()
            ))
        );
        assert!(!off(&[("acks", "-1")]) && !off(&[("acks", "1"), ("enable.idempotence", "true")]));
    }

    #[test]
    fn a_measuring_producer_is_idempotent_only_where_that_is_wanted() {
        let idempotent = |pairs: &[(&str, &str)]| {
            let mut set = properties(pairs);
            pipelined(&mut set);
            let config = producer(&set).unwrap();
            config.create_native_config().unwrap();
            config.get("enable.idempotence") == Some("true")
        };
        assert!(!idempotent(&[]) && !idempotent(&[("acks", "1")]));
        assert!(idempotent(&[("enable.idempotence", "true")]));
        assert!(idempotent(&[("transactional.id", "t")]));
    }

    #[test]
    fn unknown_names_are_left_out_and_bad_values_refused() {
        let config = consumer(&properties(&[("no.such.thing", "1")])).unwrap();
        assert_eq!(config.get("no.such.thing"), None);
        assert_eq!(
            consumer(&properties(&[("fetch.min.bytes", "many")])).err(),
            Some(Failure(
                "Invalid value many for configuration fetch.min.bytes".to_owned()
            ))
        );
        assert!(consumer(&properties(&[("auto.offset.reset", "sometimes")])).is_err());
        let nowhere = [("bootstrap.servers", "no-such-host.invalid:9092")];
        assert!(
            producer(&properties(&nowhere)).is_err() && consumer(&properties(&nowhere)).is_err()
        );
    }

    #[test]
    fn jaas_lines_give_name_and_password() {
        let jaas = "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"al\" password=\"x y\";";
        assert_eq!(jaas_field(jaas, "username").as_deref(), Some("al"));
        assert_eq!(jaas_field(jaas, "password").as_deref(), Some("x y"));
        assert_eq!(jaas_field(jaas, "token"), None);
    }

    #[test]
    fn the_command_line_wins_over_the_file_and_the_file_over_defaults() {
        let mut found = properties(&[("a", "file"), ("b", "file")]);
        merge(&mut found, "a", Some("line".to_owned()), Some("default"));
        merge(&mut found, "b", None, Some("default"));
        merge(&mut found, "c", None, Some("default"));
        merge(&mut found, "d", None, None);
        assert_eq!(
            found,
            properties(&[("a", "line"), ("b", "file"), ("c", "default")])
        );
    }
}
