//! Topic configuration: the typed values of a topic, from its own settings and the broker's keys that stand
//! behind them. Pure functions and plain data on any core; it knows no partition and no log.

use std::sync::Arc;

use storage::store::LogConfig;

use super::catalogue::{TOPIC, topic_key};
use super::key::Value;
use super::{BrokerConfig, ConfigMap};

/// How a topic's batches are stored compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// As the producer sent them.
    Producer,
    /// Not compressed.
    Uncompressed,
    /// gzip at this level; -1 is the library's default.
    Gzip(i32),
    /// Snappy.
    Snappy,
    /// LZ4 at this level.
    Lz4(i32),
    /// Zstandard at this level.
    Zstd(i32),
}

/// Whose time a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's, from the moment of the append.
    LogAppendTime,
}

/// The effective configuration of a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// What its logs are told.
    pub log: Arc<LogConfig>,
    /// `compression.type` with the level that goes with it.
    pub compression: CompressionType,
    /// `max.message.bytes`.
    pub message_bytes_max: i32,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_ms_max: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_ms_max: i64,
    /// `min.insync.replicas`.
    pub min_insync_replicas: i32,
}

/// The broker keys that stand behind a topic key, strongest first, each with the milliseconds of its unit
/// (1 where it is no time of another unit).
pub fn synonyms(topic_key: &str) -> &'static [(&'static str, i64)] {
    const MINUTE_MS: i64 = 60_000;
    const HOUR_MS: i64 = 3_600_000;
    match topic_key {
        "cleanup.policy" => &[("log.cleanup.policy", 1)],
        "compression.gzip.level" => &[("compression.gzip.level", 1)],
        "compression.lz4.level" => &[("compression.lz4.level", 1)],
        "compression.type" => &[("compression.type", 1)],
        "compression.zstd.level" => &[("compression.zstd.level", 1)],
        "delete.retention.ms" => &[("log.cleaner.delete.retention.ms", 1)],
        "file.delete.delay.ms" => &[("log.segment.delete.delay.ms", 1)],
        "flush.messages" => &[("log.flush.interval.messages", 1)],
        "flush.ms" => &[
            ("log.flush.interval.ms", 1),
            ("log.flush.scheduler.interval.ms", 1),
        ],
        "index.interval.bytes" => &[("log.index.interval.bytes", 1)],
        "local.retention.bytes" => &[("log.local.retention.bytes", 1)],
        "local.retention.ms" => &[("log.local.retention.ms", 1)],
        "max.compaction.lag.ms" => &[("log.cleaner.max.compaction.lag.ms", 1)],
        "max.message.bytes" => &[("message.max.bytes", 1)],
        "message.timestamp.after.max.ms" => &[("log.message.timestamp.after.max.ms", 1)],
        "message.timestamp.before.max.ms" => &[("log.message.timestamp.before.max.ms", 1)],
        "message.timestamp.type" => &[("log.message.timestamp.type", 1)],
        "min.cleanable.dirty.ratio" => &[("log.cleaner.min.cleanable.ratio", 1)],
        "min.compaction.lag.ms" => &[("log.cleaner.min.compaction.lag.ms", 1)],
        "min.insync.replicas" => &[("min.insync.replicas", 1)],
        "preallocate" => &[("log.preallocate", 1)],
        "retention.bytes" => &[("log.retention.bytes", 1)],
        "retention.ms" => &[
            ("log.retention.ms", 1),
            ("log.retention.minutes", MINUTE_MS),
            ("log.retention.hours", HOUR_MS),
        ],
        "segment.bytes" => &[("log.segment.bytes", 1)],
        "segment.index.bytes" => &[("log.index.size.max.bytes", 1)],
        "segment.jitter.ms" => &[
            ("log.roll.jitter.ms", 1),
            ("log.roll.jitter.hours", HOUR_MS),
        ],
        "segment.ms" => &[("log.roll.ms", 1), ("log.roll.hours", HOUR_MS)],
        "unclean.leader.election.enable" => &[("unclean.leader.election.enable", 1)],
        _ => &[],
    }
}

/// The value a topic key has where the topic sets none, by the broker keys behind it.
pub(crate) fn default_of(
    topic_key_name: &str,
    broker_value: &impl Fn(&str) -> Option<Value>,
) -> Option<Value> {
    for (broker_key, unit_ms) in synonyms(topic_key_name) {
        let Some(value) = broker_value(broker_key) else {
            continue;
        };
        return Some(match value {
            // Any negative retention in hours or minutes means for ever, as -1 does.
            Value::Integer(n) if topic_key_name == "retention.ms" && n < 0 => Value::Integer(-1),
            Value::Integer(n) => Value::Integer(n.saturating_mul(*unit_ms)),
            other => other,
        });
    }
    topic_key(topic_key_name)?.default_value()
}

/// Checks the settings of a topic, as they would be after a change.
///
/// # Errors
/// Words for the client, to go with INVALID_CONFIG (40).
pub fn validate(broker: &BrokerConfig, settings: &ConfigMap) -> Result<(), String> {
    if let Some(unknown) = settings.keys().find(|name| topic_key(name).is_none()) {
        return Err(format!("Unknown topic config name: {unknown}"));
    }
    for spec in TOPIC {
        let Some(text) = settings.get(spec.name) else {
            continue;
        };
        let value = spec.parse(text).map_err(|invalid| invalid.to_string())?;
        if spec.status == super::key::Status::Refused && Some(value) != spec.default_value() {
            return Err(match spec.name {
                "remote.storage.enable" => {
                    "Tiered Storage functionality is disabled in the broker. Topic cannot be \
                     configured with remote log storage."
                        .to_owned()
                }
                name => format!("{name} can only be set where remote storage is enabled"),
            });
        }
    }
    let effective = TopicConfig::effective(broker, settings);
    let (least, most) = (
        effective.log.min_compaction_lag_ms,
        effective.log.max_compaction_lag_ms,
    );
    if least > most {
        return Err(format!(
            "conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms ({most})"
        ));
    }
    Ok(())
}

impl TopicConfig {
    /// The configuration of a topic with these settings of its own. A setting that does not parse (it was
    /// checked when it was made) does not count.
    pub fn effective(broker: &BrokerConfig, settings: &ConfigMap) -> Self {
        if settings.is_empty() {
            return broker.topic_defaults.clone();
        }
        Self::build(&|name| {
            let own = settings
                .get(name)
                .and_then(|text| topic_key(name)?.parse(text).ok());
            own.or_else(|| default_of(name, &|key| broker.value(key)))
        })
    }

    /// The configuration of a topic without settings, where `broker_value` tells the broker's keys.
    pub(crate) fn of_broker(broker_value: impl Fn(&str) -> Option<Value>) -> Self {
        Self::build(&|name| default_of(name, &broker_value))
    }

    fn build(value: &dyn Fn(&str) -> Option<Value>) -> Self {
        let long = |name: &str| match value(name) {
            Some(Value::Integer(n)) => n,
            other => unreachable!("{name} is a number with a default, not {other:?}"),
        };
        let int = |name: &str| i32::try_from(long(name)).expect("an Int key has 32 bits");
        let size = |name: &str| u64::try_from(long(name)).expect("a size is not negative");
        let text = |name: &str| match value(name) {
            Some(Value::Text(text)) => text,
            other => unreachable!("{name} is a text with a default, not {other:?}"),
        };
        let policies = match value("cleanup.policy") {
            Some(Value::List(policies)) => policies,
            other => unreachable!("cleanup.policy is a list with a default, not {other:?}"),
        };
        TopicConfig {
            log: Arc::new(LogConfig {
                segment_bytes: size("segment.bytes"),
                segment_ms: long("segment.ms"),
                segment_jitter_ms: long("segment.jitter.ms"),
                segment_index_bytes: size("segment.index.bytes"),
                index_interval_bytes: size("index.interval.bytes"),
                retention_ms: Some(long("retention.ms")).filter(|ms| *ms >= 0),
                retention_bytes: u64::try_from(long("retention.bytes")).ok(),
                cleanup_delete: policies.iter().any(|policy| policy == "delete"),
                cleanup_compact: policies.iter().any(|policy| policy == "compact"),
                delete_retention_ms: long("delete.retention.ms"),
                min_compaction_lag_ms: long("min.compaction.lag.ms"),
                max_compaction_lag_ms: long("max.compaction.lag.ms"),
                min_cleanable_dirty_ratio: match value("min.cleanable.dirty.ratio") {
                    Some(Value::Double(ratio)) => ratio,
                    other => unreachable!("the ratio is a fraction with a default, not {other:?}"),
                },
                file_delete_delay_ms: long("file.delete.delay.ms"),
                flush_messages: long("flush.messages"),
                flush_ms: Some(long("flush.ms")).filter(|ms| *ms != i64::MAX),
                preallocate: value("preallocate") == Some(Value::Boolean(true)),
            }),
            compression: match text("compression.type").as_str() {
                "uncompressed" => CompressionType::Uncompressed,
                "gzip" => CompressionType::Gzip(int("compression.gzip.level")),
                "snappy" => CompressionType::Snappy,
                "lz4" => CompressionType::Lz4(int("compression.lz4.level")),
                "zstd" => CompressionType::Zstd(int("compression.zstd.level")),
                _ => CompressionType::Producer,
            },
            message_bytes_max: int("max.message.bytes"),
            timestamp_type: if text("message.timestamp.type") == "LogAppendTime" {
                TimestampType::LogAppendTime
            } else {
                TimestampType::CreateTime
            },
            timestamp_before_ms_max: long("message.timestamp.before.max.ms"),
            timestamp_after_ms_max: long("message.timestamp.after.max.ms"),
            min_insync_replicas: int("min.insync.replicas"),
        }
    }
}
