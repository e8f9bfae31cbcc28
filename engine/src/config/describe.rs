//! What DescribeConfigs tells of a resource: every key with its effective value, where that comes from, and
//! the values behind it. Pure functions on any core; they know no wire form and no metadata.

use super::catalogue::{CLIENT_METRICS, GROUP, TOPIC, broker_key, broker_keys, own_key};
use super::key::{Dynamic, KeySpec, Kind};
use super::{BrokerConfig, ConfigMap, topic};

/// Where a value comes from; the number is the one DescribeConfigs answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set for the topic.
    Topic = 1,
    /// Set for this broker while it runs.
    DynamicBroker = 2,
    /// Set for all brokers while they run.
    DynamicDefaultBroker = 3,
    /// Set in the file or by an override.
    StaticBroker = 4,
    /// Set nowhere.
    Default = 5,
    /// A log level.
    DynamicBrokerLogger = 6,
    /// Set for the client metrics subscription.
    ClientMetrics = 7,
    /// Set for the group.
    Group = 8,
}

impl ConfigSource {
    /// The number that DescribeConfigs answers.
    pub fn code(self) -> i8 {
        self as i8
    }
}

/// A value that stands behind an effective one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The key under which it is set.
    pub name: String,
    /// The value as it was set; `None` where it is secret.
    pub value: Option<String>,
    /// Where it is set.
    pub source: ConfigSource,
}

/// A key of a resource as DescribeConfigs tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The key.
    pub name: String,
    /// Its effective value; `None` where it has none or is secret.
    pub value: Option<String>,
    /// Whether it cannot be changed while the broker runs.
    pub read_only: bool,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether the value is secret.
    pub sensitive: bool,
    /// The values behind it, strongest first; the first is the effective one.
    pub synonyms: Vec<Synonym>,
    /// Kafka's number of its type; 0 is unknown.
    pub kind: i8,
    /// What the key does; `None` where it is unknown.
    pub documentation: Option<&'static str>,
}

/// Every value that is set for a broker key or one that stands beside it, strongest first. Those before the
/// first of the key's own are dropped, as Kafka does: they belong to a stronger key.
fn broker_synonyms(broker: &BrokerConfig, name: &str) -> Vec<Synonym> {
    let names: &[&str] = match name {
        "log.retention.ms" | "log.retention.minutes" | "log.retention.hours" => &[
            "log.retention.ms",
            "log.retention.minutes",
            "log.retention.hours",
        ],
        "log.roll.ms" | "log.roll.hours" => &["log.roll.ms", "log.roll.hours"],
        "log.roll.jitter.ms" | "log.roll.jitter.hours" => {
            &["log.roll.jitter.ms", "log.roll.jitter.hours"]
        }
        "log.flush.interval.ms" => &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
        other => &[other],
    };
    let sensitive = broker_key(name).is_none_or(KeySpec::sensitive);
    let shown = |text: &str| (!sensitive).then(|| text.to_owned());
    let mut found = Vec::new();
    for (layer, source) in [
        (broker.dynamic_own(), ConfigSource::DynamicBroker),
        (
            broker.dynamic_defaults(),
            ConfigSource::DynamicDefaultBroker,
        ),
        (broker.statics(), ConfigSource::StaticBroker),
    ] {
        for name in names {
            if let Some(text) = layer.get(*name) {
                found.push(Synonym {
                    name: (*name).to_owned(),
                    value: shown(text),
                    source,
                });
            }
        }
    }
    for name in names {
        // Kafka wants every node to have its number set: its default here is not told.
        if *name != "node.id"
            && let Some(text) = broker_key(name).and_then(|spec| spec.default)
        {
            found.push(Synonym {
                name: (*name).to_owned(),
                value: shown(text),
                source: ConfigSource::Default,
            });
        }
    }
    let first_own = found
        .iter()
        .position(|synonym| synonym.name == name)
        .unwrap_or(found.len());
    found.split_off(first_own)
}

fn entry(
    spec: &'static KeySpec,
    value: Option<String>,
    read_only: bool,
    synonyms: Vec<Synonym>,
) -> ConfigEntry {
    ConfigEntry {
        name: spec.name.to_owned(),
        value: value.filter(|_| !spec.sensitive()),
        read_only,
        source: synonyms
            .first()
            .map_or(ConfigSource::Default, |synonym| synonym.source),
        sensitive: spec.sensitive(),
        synonyms,
        kind: spec.kind.code(),
        documentation: Some(spec.documentation),
    }
}

/// What is set for a resource itself, in front of what stands behind it.
fn with_own(
    name: &str,
    value: Option<&String>,
    source: ConfigSource,
    behind: Vec<Synonym>,
) -> Vec<Synonym> {
    if value.is_none() {
        return behind;
    }
    let own = Synonym {
        name: name.to_owned(),
        value: value.cloned(),
        source,
    };
    std::iter::once(own).chain(behind).collect()
}

/// All keys of a topic with these settings of its own, sorted by name.
pub fn topic(broker: &BrokerConfig, settings: &ConfigMap) -> Vec<ConfigEntry> {
    TOPIC
        .iter()
        .map(|spec| {
            let own = settings.get(spec.name).map(|text| {
                spec.parse(text)
                    .map_or_else(|_| text.clone(), |v| v.to_string())
            });
            let value = own.clone().or_else(|| {
                topic::default_of(spec.name, &|key| broker.value(key)).map(|v| v.to_string())
            });
            let behind = match topic::synonyms(spec.name).first() {
                Some((broker_key, _)) => broker_synonyms(broker, broker_key),
                None => Vec::new(),
            };
            let synonyms = with_own(spec.name, own.as_ref(), ConfigSource::Topic, behind);
            entry(spec, value, false, synonyms)
        })
        .collect()
}

/// All keys of this broker, sorted by name; of ours, and of those nobody knows, only the ones that are set.
pub fn broker(broker: &BrokerConfig) -> Vec<ConfigEntry> {
    let mut entries: Vec<ConfigEntry> = broker_keys()
        .filter(|spec| own_key(spec.name).is_none() || broker.statics().contains_key(spec.name))
        .map(|spec| {
            let value = broker.value(spec.name).map(|value| value.to_string());
            let read_only = spec.dynamic == Dynamic::Static;
            entry(spec, value, read_only, broker_synonyms(broker, spec.name))
        })
        .collect();
    for name in broker
        .statics()
        .keys()
        .filter(|name| broker_key(name).is_none())
    {
        entries.push(ConfigEntry {
            name: name.clone(),
            // What nobody knows may be a password.
            value: None,
            read_only: true,
            source: ConfigSource::StaticBroker,
            sensitive: true,
            synonyms: broker_synonyms(broker, name),
            kind: 0,
            documentation: None,
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

/// The keys that are set for all brokers while they run, sorted by name.
pub fn broker_defaults(broker: &BrokerConfig) -> Vec<ConfigEntry> {
    broker
        .dynamic_defaults()
        .iter()
        .filter_map(|(name, text)| {
            let spec = broker_key(name)?;
            let mut synonyms = broker_synonyms(broker, name);
            synonyms.retain(|synonym| synonym.source == ConfigSource::DynamicDefaultBroker);
            let read_only = spec.dynamic == Dynamic::Static;
            Some(entry(spec, Some(text.clone()), read_only, synonyms))
        })
        .collect()
}

/// All keys of a group with these settings of its own, sorted by name.
pub fn group(broker: &BrokerConfig, settings: &ConfigMap) -> Vec<ConfigEntry> {
    GROUP
        .iter()
        .map(|spec| {
            let own = settings.get(spec.name).map(|text| {
                spec.parse(text)
                    .map_or_else(|_| text.clone(), |v| v.to_string())
            });
            let broker_name = format!("group.{}", spec.name);
            let (default, behind) = match broker.value(&broker_name) {
                Some(value) => (Some(value), broker_synonyms(broker, &broker_name)),
                None => {
                    let behind = spec.default.map(|text| Synonym {
                        name: spec.name.to_owned(),
                        value: Some(text.to_owned()),
                        source: ConfigSource::Default,
                    });
                    (spec.default_value(), behind.into_iter().collect())
                }
            };
            let value = own
                .clone()
                .or_else(|| default.map(|value| value.to_string()));
            let synonyms = with_own(spec.name, own.as_ref(), ConfigSource::Group, behind);
            entry(spec, value, false, synonyms)
        })
        .collect()
}

/// All keys of a client metrics subscription with these settings, sorted by name.
pub fn client_metrics(settings: &ConfigMap) -> Vec<ConfigEntry> {
    CLIENT_METRICS
        .iter()
        .map(|spec| {
            let own = settings.get(spec.name);
            let value = own.map(String::as_str).or(spec.default).map(str::to_owned);
            let synonyms = with_own(spec.name, own, ConfigSource::ClientMetrics, Vec::new());
            entry(spec, value, false, synonyms)
        })
        .collect()
}

/// The log levels of this broker: one for everything.
pub fn broker_loggers(level: &str) -> Vec<ConfigEntry> {
    vec![ConfigEntry {
        name: "root".to_owned(),
        value: Some(level.to_owned()),
        read_only: false,
        source: ConfigSource::DynamicBrokerLogger,
        sensitive: false,
        synonyms: Vec::new(),
        kind: Kind::String.code(),
        documentation: None,
    }]
}

/// All keys of a topic that was just created, sorted by name. CreateTopics names the source of a value by
/// any broker key behind it, where DescribeConfigs names it by the first alone.
pub fn created_topic(broker: &BrokerConfig, settings: &ConfigMap) -> Vec<ConfigEntry> {
    let mut entries = topic(broker, settings);
    for entry in &mut entries {
        let behind = topic::synonyms(&entry.name);
        let layers = [
            (broker.dynamic_own(), ConfigSource::DynamicBroker),
            (
                broker.dynamic_defaults(),
                ConfigSource::DynamicDefaultBroker,
            ),
            (broker.statics(), ConfigSource::StaticBroker),
        ];
        let set = |layer: &ConfigMap| behind.iter().any(|(name, _)| layer.contains_key(*name));
        entry.source = if let Some(text) = settings.get(&entry.name) {
            // As it was given, where DescribeConfigs shows what it means.
            entry.value = Some(text.clone());
            ConfigSource::Topic
        } else {
            let found = layers.into_iter().find(|(layer, _)| set(layer));
            found.map_or(ConfigSource::Default, |(_, source)| source)
        };
        entry.synonyms.clear();
    }
    entries
}
