//! Workloads and drivers as OpenMessaging Benchmark writes them: YAML in, checked values out. The calling thread; knows keys and bounds, and no client.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use saphyr::{LoadableYamlNode, Yaml};

use crate::Failure;
use crate::kafka_config::Properties;
use crate::properties;
use crate::results::Facts;

/// Each client has threads of its own.
const CLIENTS_MAX: u64 = 2000;
const TOPICS_MAX: f64 = 100_000.0;
const PARTITIONS_MAX: f64 = 100_000.0;
/// Kafka's own bound of a request.
const MESSAGE_BYTES_MAX: f64 = 104_857_600.0;
const RATE_MAX: f64 = 100_000_000.0;
const MINUTES_MAX: f64 = 100_000.0;
const POOL_MAX: f64 = 1_000_000.0;
/// A pool lies in memory.
const POOL_BYTES_MAX: u64 = 1 << 30;

/// How keys are given to records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyDistributor {
    /// No keys.
    NoKey,
    /// A fixed set of keys, one after the other.
    KeyRoundRobin,
    /// A fixed set of keys, chosen by the clock.
    RandomNano,
}

impl KeyDistributor {
    /// Its name in a workload.
    pub fn name(self) -> &'static str {
        match self {
            KeyDistributor::NoKey => "NO_KEY",
            KeyDistributor::KeyRoundRobin => "KEY_ROUND_ROBIN",
            KeyDistributor::RandomNano => "RANDOM_NANO",
        }
    }
}

/// What to run, with OpenMessaging Benchmark's keys and defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// `name`: what reports call it.
    pub name: String,
    /// `topics`: how many are created.
    pub topics: u32,
    /// `partitionsPerTopic`.
    pub partitions_per_topic: u32,
    /// `keyDistributor`.
    pub key_distributor: KeyDistributor,
    /// `messageSize`: bytes of a value.
    pub message_bytes: usize,
    /// `useRandomizedPayloads`: values are random bytes followed by zeros, from a pool.
    pub randomized: bool,
    /// `randomBytesRatio`: the share of random bytes, 0 to 1.
    pub random_bytes_ratio: f64,
    /// `randomizedPayloadPoolSize`: how many different values.
    pub pool: usize,
    /// `payloadFile`: a file with one value.
    pub payload_file: Option<PathBuf>,
    /// `subscriptionsPerTopic`: consumer groups of each topic.
    pub subscriptions_per_topic: u32,
    /// `producersPerTopic`.
    pub producers_per_topic: u32,
    /// `consumerPerSubscription`: members of each group.
    pub consumers_per_subscription: u32,
    /// `producerRate`: records a second over all producers; 0 is as fast as possible.
    pub rate: f64,
    /// `consumerBacklogSizeGB`, in bytes: so much is left unread before the consumers go on.
    pub backlog_bytes: u64,
    /// `backlogDrainRatio`: the share of the backlog that must be read until it counts as drained.
    pub drain_ratio: f64,
    /// `testDurationMinutes`; None (0) is until interrupted. Fractions are allowed.
    pub test: Option<Duration>,
    /// `warmupDurationMinutes`. Fractions are allowed.
    pub warmup: Duration,
}

/// All keys, in the order of OpenMessaging Benchmark's documentation.
const KEYS: [&str; 17] = [
    "name",
    "topics",
    "partitionsPerTopic",
    "keyDistributor",
    "messageSize",
    "useRandomizedPayloads",
    "randomBytesRatio",
    "randomizedPayloadPoolSize",
    "payloadFile",
    "subscriptionsPerTopic",
    "producersPerTopic",
    "consumerPerSubscription",
    "producerRate",
    "consumerBacklogSizeGB",
    "backlogDrainRatio",
    "testDurationMinutes",
    "warmupDurationMinutes",
];

/// Keys with a value, as text.
type Pairs = Vec<(String, String)>;

impl Workload {
    /// Reads a workload file; `overrides` are `key=value` and win.
    ///
    /// # Errors
    /// When the file cannot be read, is not such YAML, has an unknown key or a value out of its bounds.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Workload, Failure> {
        let text = read(path)?;
        let stem = path.file_stem().map_or_else(
            || "workload".to_owned(),
            |stem| stem.to_string_lossy().into_owned(),
        );
        let mut workload = Workload::parse(&text, overrides, &stem)
            .map_err(|why| Failure(format!("{}: {}", path.display(), why.0)))?;
        if let Some(file) = &workload.payload_file {
            workload.payload_file = Some(find(file, path).ok_or_else(|| {
                Failure(format!(
                    "{}: payloadFile: there is no file {}",
                    path.display(),
                    file.display()
                ))
            })?);
        }
        Ok(workload)
    }

    /// Parses the text of a workload; `name` is its name when it gives none.
    ///
    /// # Errors
    /// As [`Workload::load`].
    pub fn parse(text: &str, overrides: &[String], name: &str) -> Result<Workload, Failure> {
        let mut pairs = pairs(text)?;
        for text in overrides {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| Failure(format!("\"{text}\" is not key=value")))?;
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            match pairs.iter_mut().find(|(known, _)| *known == key) {
                Some((_, old)) => *old = value,
                None => pairs.push((key, value)),
            }
        }
        known(&pairs, &KEYS)?;
        let values = Values(&pairs);
        for key in [
            "topics",
            "partitionsPerTopic",
            "messageSize",
            "producersPerTopic",
            "testDurationMinutes",
        ] {
            if values.text(key).is_none() {
                return Err(Failure(format!("the key {key} is missing")));
            }
        }
        let distributor = match values.text("keyDistributor").unwrap_or("NO_KEY") {
            "NO_KEY" => KeyDistributor::NoKey,
            "KEY_ROUND_ROBIN" => KeyDistributor::KeyRoundRobin,
            "RANDOM_NANO" => KeyDistributor::RandomNano,
            other => {
                return Err(Failure(format!(
                    "keyDistributor is \"{other}\"; it is one of NO_KEY, KEY_ROUND_ROBIN, RANDOM_NANO"
                )));
            }
        };
        let test_minutes = values.number("testDurationMinutes", 0.0, 0.0, MINUTES_MAX)?;
        let workload = Workload {
            name: values.text("name").unwrap_or(name).to_owned(),
            topics: values.whole("topics", 1.0, 1.0, TOPICS_MAX)? as u32,
            partitions_per_topic: values.whole("partitionsPerTopic", 1.0, 1.0, PARTITIONS_MAX)?
                as u32,
            key_distributor: distributor,
            message_bytes: values.whole("messageSize", 0.0, 0.0, MESSAGE_BYTES_MAX)? as usize,
            randomized: values.truth("useRandomizedPayloads")?,
            random_bytes_ratio: values.number("randomBytesRatio", 0.0, 0.0, 1.0)?,
            pool: values.whole("randomizedPayloadPoolSize", 0.0, 0.0, POOL_MAX)? as usize,
            payload_file: values.text("payloadFile").map(PathBuf::from),
            subscriptions_per_topic: values.whole("subscriptionsPerTopic", 0.0, 0.0, 1000.0)?
                as u32,
            producers_per_topic: values.whole("producersPerTopic", 1.0, 1.0, CLIENTS_MAX as f64)?
                as u32,
            consumers_per_subscription: values.whole(
                "consumerPerSubscription",
                1.0,
                0.0,
                CLIENTS_MAX as f64,
            )? as u32,
            rate: values.number("producerRate", 0.0, 0.0, RATE_MAX)?,
            backlog_bytes: (values.number("consumerBacklogSizeGB", 0.0, 0.0, 1e6)?
                * 1024.0
                * 1024.0
                * 1024.0) as u64,
            drain_ratio: values.number("backlogDrainRatio", 1.0, 0.0, 1.0)?,
            test: (test_minutes > 0.0).then(|| minutes(test_minutes)),
            warmup: minutes(values.number("warmupDurationMinutes", 1.0, 0.0, MINUTES_MAX)?),
        };
        workload.check()?;
        Ok(workload)
    }

    /// What no single value tells.
    fn check(&self) -> Result<(), Failure> {
        if self.randomized && self.pool == 0 {
            return Err(Failure(
                "useRandomizedPayloads needs randomizedPayloadPoolSize of at least 1".to_owned(),
            ));
        }
        if self.pool as u64 * self.message_bytes as u64 > POOL_BYTES_MAX {
            return Err(Failure(format!(
                "randomizedPayloadPoolSize {} of messageSize {} is more than 1 GiB of payloads",
                self.pool, self.message_bytes
            )));
        }
        let partitions = u64::from(self.topics) * u64::from(self.partitions_per_topic);
        if partitions as f64 > PARTITIONS_MAX {
            return Err(Failure(format!(
                "{} topics of {} partitions are {partitions} partitions; at most {PARTITIONS_MAX} are made",
                self.topics, self.partitions_per_topic
            )));
        }
        let clients = self.producers() + self.consumers();
        if clients > CLIENTS_MAX {
            return Err(Failure(format!(
                "{} producers and {} consumers are {clients} clients, each with threads of its own; at most {CLIENTS_MAX} are started",
                self.producers(),
                self.consumers()
            )));
        }
        if self.backlog_bytes > 0 {
            if self.rate == 0.0 {
                return Err(Failure(
                    "consumerBacklogSizeGB needs a producerRate: with none the consumers may never catch up".to_owned(),
                ));
            }
            if self.consumers() == 0 {
                return Err(Failure(
                    "consumerBacklogSizeGB needs consumers: subscriptionsPerTopic and consumerPerSubscription of at least 1".to_owned(),
                ));
            }
            if self.message_bytes == 0 {
                return Err(Failure(
                    "consumerBacklogSizeGB needs a messageSize above 0".to_owned(),
                ));
            }
        }
        Ok(())
    }

    /// Producers of all topics.
    pub fn producers(&self) -> u64 {
        u64::from(self.topics) * u64::from(self.producers_per_topic)
    }

    /// Consumers of all subscriptions.
    pub fn consumers(&self) -> u64 {
        u64::from(self.topics)
            * u64::from(self.subscriptions_per_topic)
            * u64::from(self.consumers_per_subscription)
    }

    /// What a report says of it: OpenMessaging Benchmark's keys.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        facts.put("name", &self.name);
        facts.put("topics", self.topics);
        facts.put("partitionsPerTopic", self.partitions_per_topic);
        facts.put("keyDistributor", self.key_distributor.name());
        facts.put("messageSize", self.message_bytes);
        facts.put("useRandomizedPayloads", self.randomized);
        if self.randomized {
            facts.put("randomBytesRatio", self.random_bytes_ratio);
            facts.put("randomizedPayloadPoolSize", self.pool);
        } else if let Some(file) = &self.payload_file {
            facts.put("payloadFile", file.display());
        }
        facts.put("subscriptionsPerTopic", self.subscriptions_per_topic);
        facts.put("producersPerTopic", self.producers_per_topic);
        facts.put("consumerPerSubscription", self.consumers_per_subscription);
        facts.put("producerRate", self.rate);
        if self.backlog_bytes > 0 {
            let gib = self.backlog_bytes as f64 / (1024.0 * 1024.0 * 1024.0);
            facts.put("consumerBacklogSizeGB", (gib * 1000.0).round() / 1000.0);
            facts.put("backlogDrainRatio", self.drain_ratio);
        }
        let minutes = |length: Duration| (length.as_secs_f64() / 60.0 * 1000.0).round() / 1000.0;
        facts.put("testDurationMinutes", self.test.map_or(0.0, minutes));
        facts.put("warmupDurationMinutes", minutes(self.warmup));
        facts
    }
}

/// A driver file: how OpenMessaging Benchmark configures Kafka's clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Driver {
    /// `replicationFactor`; -1 is the broker's default.
    pub replication_factor: Option<i32>,
    /// `topicPrefix`: topics are named so.
    pub topic_prefix: Option<String>,
    /// `topicConfig`.
    pub topic: Properties,
    /// `commonConfig`.
    pub common: Properties,
    /// `producerConfig`.
    pub producer: Properties,
    /// `consumerConfig`.
    pub consumer: Properties,
}

const DRIVER_KEYS: [&str; 9] = [
    "name",
    "driverClass",
    "replicationFactor",
    "topicPrefix",
    "reset",
    "topicConfig",
    "commonConfig",
    "producerConfig",
    "consumerConfig",
];

impl Driver {
    /// Reads a driver file.
    ///
    /// # Errors
    /// When it cannot be read, is not such YAML, has an unknown key or is not Kafka's.
    pub fn load(path: &Path) -> Result<Driver, Failure> {
        Driver::parse(&read(path)?).map_err(|why| Failure(format!("{}: {}", path.display(), why.0)))
    }

    /// Parses the text of a driver file.
    ///
    /// # Errors
    /// As [`Driver::load`].
    pub fn parse(text: &str) -> Result<Driver, Failure> {
        let pairs = pairs(text)?;
        known(&pairs, &DRIVER_KEYS)?;
        let values = Values(&pairs);
        if let Some(class) = values.text("driverClass")
            && !class.to_ascii_lowercase().contains("kafka")
        {
            return Err(Failure(format!(
                "driverClass {class} is another system's; this tool speaks Kafka's protocol"
            )));
        }
        let table = |key: &str| values.text(key).map(properties::parse).unwrap_or_default();
        Ok(Driver {
            replication_factor: match values.text("replicationFactor") {
                None => None,
                Some(_) => Some(values.whole("replicationFactor", -1.0, -1.0, 100.0)? as i32),
            },
            topic_prefix: values.text("topicPrefix").map(str::to_owned),
            topic: table("topicConfig"),
            common: table("commonConfig"),
            producer: table("producerConfig"),
            consumer: table("consumerConfig"),
        })
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure(format!("{} cannot be read: {error}", path.display())))
}

/// Where a payload file lies: as it says, beside the workload, or a directory above it.
fn find(file: &Path, workload: &Path) -> Option<PathBuf> {
    let mut places = vec![PathBuf::new()];
    places.extend(workload.ancestors().skip(1).take(2).map(Path::to_path_buf));
    places
        .into_iter()
        .map(|place| place.join(file))
        .find(|path| path.is_file())
}

fn minutes(count: f64) -> Duration {
    Duration::from_secs_f64(count * 60.0)
}

/// The keys and values of a YAML document that is one flat mapping. Null values are left out.
fn pairs(text: &str) -> Result<Pairs, Failure> {
    let documents = Yaml::load_from_str(text).map_err(|e| Failure(format!("not YAML: {e}")))?;
    let Some(document) = documents.first() else {
        return Err(Failure("the file is empty".to_owned()));
    };
    let Some(mapping) = document.as_mapping() else {
        return Err(Failure(
            "this is not a mapping of keys to values".to_owned(),
        ));
    };
    let mut pairs = Pairs::new();
    for (key, value) in mapping {
        let key = scalar(key).ok_or_else(|| Failure("a key is not a word".to_owned()))?;
        if value.is_null() {
            continue;
        }
        let value = scalar(value)
            .ok_or_else(|| Failure(format!("the value of {key} is not a single value")))?;
        pairs.push((key, value));
    }
    Ok(pairs)
}

fn scalar(node: &Yaml<'_>) -> Option<String> {
    if let Some(text) = node.as_str() {
        return Some(text.to_owned());
    }
    if let Some(truth) = node.as_bool() {
        return Some(truth.to_string());
    }
    if let Some(number) = node.as_integer() {
        return Some(number.to_string());
    }
    node.as_floating_point().map(|number| number.to_string())
}

/// Refuses keys that are not among these, and names the one that was meant.
fn known(pairs: &Pairs, keys: &[&str]) -> Result<(), Failure> {
    for (key, _) in pairs {
        if keys.contains(&key.as_str()) {
            continue;
        }
        let nearest = keys
            .iter()
            .min_by_key(|known| distance(key, known))
            .expect("there are keys");
        return Err(Failure(
            if distance(key, nearest) <= key.len().max(nearest.len()) / 2 {
                format!("unknown key {key}; did you mean {nearest}?")
            } else {
                format!("unknown key {key}; the keys are {}", keys.join(", "))
            },
        ));
    }
    Ok(())
}

/// How many letters must be changed, added or taken away; capitals do not count.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.to_lowercase().chars().take(64).collect();
    let other: Vec<char> = other.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// Looking up checked values.
struct Values<'a>(&'a Pairs);

impl Values<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, value)| value.as_str())
    }

    fn number(&self, key: &str, default: f64, least: f64, most: f64) -> Result<f64, Failure> {
        let Some(text) = self.text(key) else {
            return Ok(default);
        };
        let plain = text.replace('_', "");
        match plain.parse::<f64>() {
            Ok(number) if number.is_finite() && number >= least && number <= most => Ok(number),
            Ok(_) => Err(Failure(format!(
                "{key} is {text}; it lies between {least} and {most}"
            ))),
            Err(_) => Err(Failure(format!("{key} is \"{text}\"; it is a number"))),
        }
    }

    fn whole(&self, key: &str, default: f64, least: f64, most: f64) -> Result<f64, Failure> {
        let number = self.number(key, default, least, most)?;
        if number.fract() != 0.0 {
            return Err(Failure(format!("{key} is {number}; it is a whole number")));
        }
        Ok(number)
    }

    fn truth(&self, key: &str) -> Result<bool, Failure> {
        match self.text(key) {
            None => Ok(false),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(text) => Err(Failure(format!("{key} is \"{text}\"; it is true or false"))),
        }
    }
}
