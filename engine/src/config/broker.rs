//! The configuration of this broker: what the file, the `--override`s and later the dynamic settings say,
//! and the typed values that the rooms use. Made on the main thread, then a copy on every core; it opens
//! nothing and asks no one.

use std::path::{Path, PathBuf};

use super::catalogue::{broker_key, broker_keys};
use super::key::{KeySpec, Status, Value};
use super::listener::{self, HostPort, Listener, ListenerTexts};
use super::topic::TopicConfig;
use super::{ConfigError, ConfigMap, properties};

/// The configuration of a broker. Typed fields carry effective values: dynamic settings before the file's,
/// the file's before defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    statics: ConfigMap,
    dynamic_defaults: ConfigMap,
    dynamic_own: ConfigMap,
    /// `node.id`.
    pub node_id: i32,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// The listeners to open; those of controllers are not among them.
    pub listeners: Vec<Listener>,
    /// `log.dirs`, never empty.
    pub log_dirs: Vec<PathBuf>,
    /// `http.listener`; `None` switches HTTP off.
    pub http_listener: Option<HostPort>,
    /// `native.listener`; `None` switches the native protocol off.
    pub native_listener: Option<HostPort>,
    /// `native.unix.socket`, an absolute path; `None` switches the Unix socket off.
    pub native_unix_socket: Option<PathBuf>,
    /// `idle.poll.us`: how long a core without work looks for some before it sleeps, in microseconds.
    pub idle_poll_us: u32,
    /// `native.idle.poll.us`: as `idle.poll.us`, while a native client wants it.
    pub native_idle_poll_us: u32,
    /// `record.validation.walk.enable`.
    pub record_walk_enable: bool,
    /// `num.partitions`.
    pub num_partitions: i32,
    /// `default.replication.factor`.
    pub default_replication_factor: i16,
    /// `auto.create.topics.enable`.
    pub auto_create_topics_enable: bool,
    /// `delete.topic.enable`.
    pub delete_topic_enable: bool,
    /// `socket.request.max.bytes`.
    pub socket_request_bytes_max: i32,
    /// `socket.listen.backlog.size`.
    pub listen_backlog: i32,
    /// `connections.max.idle.ms`; negative means never.
    pub connections_idle_ms_max: i64,
    /// `max.connections`.
    pub connections_max: i32,
    /// `max.connection.creation.rate`, in connections a second.
    pub connection_creation_rate_max: i32,
    /// `max.connections.per.ip`.
    pub connections_per_ip_max: i32,
    /// `max.connections.per.ip.overrides`: address or host, and its bound.
    pub connections_per_ip_overrides: Vec<(String, i32)>,
    /// `fetch.max.bytes`.
    pub fetch_bytes_max: i32,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_session_slots_max: i32,
    /// `max.request.partition.size.limit`.
    pub describe_partitions_max: i32,
    /// `group.min.session.timeout.ms`.
    pub group_session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`.
    pub group_session_timeout_ms_max: i32,
    /// `group.initial.rebalance.delay.ms`.
    pub group_initial_rebalance_delay_ms: i32,
    /// `group.max.size`.
    pub group_members_max: i32,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_bytes_max: i32,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: i64,
    /// `offsets.topic.num.partitions`.
    pub offsets_topic_partitions: i32,
    /// `offsets.topic.segment.bytes`.
    pub offsets_topic_segment_bytes: i32,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i64,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval_ms: i64,
    /// `log.cleaner.backoff.ms`.
    pub cleaner_backoff_ms: i64,
    /// `log.cleaner.dedupe.buffer.size`, in bytes, for all cores together.
    pub cleaner_dedupe_bytes: i64,
    /// What a topic has that sets nothing of its own.
    pub topic_defaults: TopicConfig,
}

/// Something about a configuration that does not stop the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    /// The key.
    pub key: String,
    /// What is odd about it.
    pub why: String,
}

impl std::fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.key, self.why)
    }
}

impl Default for BrokerConfig {
    /// What a broker without file and overrides has.
    fn default() -> Self {
        Self::from_settings(ConfigMap::new()).expect("the defaults are allowed")
    }
}

/// Prefixes of keys that Kafka hands on to a listener or a Java class.
const PASSED_ON_PREFIXES: [&str; 3] = ["listener.name.", "rsm.config.", "rlmm.config."];

impl BrokerConfig {
    /// Reads a file and applies `--override`s (`key=value`) over it.
    ///
    /// # Errors
    /// The file cannot be read, or [`BrokerConfig::from_text`] refuses it.
    pub fn read(
        path: Option<&Path>,
        overrides: &[String],
    ) -> Result<(Self, Vec<ConfigWarning>), ConfigError> {
        let text = match path {
            None => String::new(),
            Some(path) => std::fs::read(path)
                .map_err(|error| ConfigError::File {
                    path: path.display().to_string(),
                    why: error.to_string(),
                })
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())?,
        };
        Self::from_text(&text, overrides)
    }

    /// The configuration that a properties text and `--override`s make, and what is odd about it.
    ///
    /// # Errors
    /// The first value that is not allowed, naming key, value and what is.
    pub fn from_text(
        text: &str,
        overrides: &[String],
    ) -> Result<(Self, Vec<ConfigWarning>), ConfigError> {
        let mut warnings = Vec::new();
        let mut settings = ConfigMap::new();
        for property in properties::parse(text).map_err(ConfigError::Syntax)? {
            if settings
                .insert(property.key.clone(), property.value)
                .is_some()
            {
                warnings.push(ConfigWarning {
                    why: format!("set again on line {}; the last one counts", property.line),
                    key: property.key.clone(),
                });
            }
            if !known(&property.key) {
                warnings.push(ConfigWarning {
                    why: format!("unknown key on line {}, ignored", property.line),
                    key: property.key,
                });
            }
        }
        for text in overrides {
            let (key, value) = text
                .split_once('=')
                .map(|(key, value)| (key.trim(), value.trim()))
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| ConfigError::Override(text.clone()))?;
            if !known(key) {
                warnings.push(ConfigWarning {
                    key: key.to_owned(),
                    why: "unknown key in --override, ignored".to_owned(),
                });
            }
            settings.insert(key.to_owned(), value.to_owned());
        }
        Ok((Self::from_settings(settings)?, warnings))
    }

    /// The configuration that these static settings make.
    ///
    /// # Errors
    /// The first value that is not allowed, naming key, value and what is.
    pub fn from_settings(mut statics: ConfigMap) -> Result<Self, ConfigError> {
        for spec in broker_keys() {
            let Some(text) = statics.get(spec.name) else {
                continue;
            };
            let value = spec.parse(text)?;
            if spec.status == Status::Refused
                && Some(&value) != spec.default_value().as_ref()
                && !value.to_string().is_empty()
            {
                return Err(ConfigError::invalid(spec.name, text, spec.documentation));
            }
        }
        let layers = Layers {
            statics: &statics,
            dynamic_defaults: &ConfigMap::new(),
            dynamic_own: &ConfigMap::new(),
        };
        let listeners = listener::listeners(&ListenerTexts {
            listeners: &layers.text("listeners").unwrap_or_default(),
            advertised: statics.get("advertised.listeners").map(String::as_str),
            protocol_map: &layers
                .text("listener.security.protocol.map")
                .unwrap_or_default(),
            controller_names: &layers.text("controller.listener.names").unwrap_or_default(),
            inter_broker_name: statics
                .get("inter.broker.listener.name")
                .map(String::as_str),
            inter_broker_protocol: statics
                .get("security.inter.broker.protocol")
                .map(String::as_str),
        })?;
        let own_listener = |key: &str| own_listener(key, &layers.text(key).unwrap_or_default());
        let http_listener = own_listener("http.listener")?;
        let native_listener = own_listener("native.listener")?;
        let native_unix_socket = unix_socket(&layers)?;
        let log_dirs = log_dirs(&layers)?;
        let node_id = node_id(&layers, &statics)?;
        let per_ip_overrides = per_ip_overrides(&layers)?;
        check_together(&layers, &statics)?;
        let mut config = BrokerConfig {
            node_id,
            rack: layers.text("broker.rack").filter(|rack| !rack.is_empty()),
            listeners,
            log_dirs,
            http_listener,
            native_listener,
            native_unix_socket,
            idle_poll_us: layers.u32("idle.poll.us"),
            native_idle_poll_us: layers.u32("native.idle.poll.us"),
            record_walk_enable: layers.bool("record.validation.walk.enable"),
            num_partitions: layers.i32("num.partitions"),
            default_replication_factor: layers.i32("default.replication.factor") as i16,
            auto_create_topics_enable: layers.bool("auto.create.topics.enable"),
            delete_topic_enable: layers.bool("delete.topic.enable"),
            socket_request_bytes_max: layers.i32("socket.request.max.bytes"),
            listen_backlog: layers.i32("socket.listen.backlog.size"),
            connections_idle_ms_max: layers.i64("connections.max.idle.ms"),
            connections_max: layers.i32("max.connections"),
            connection_creation_rate_max: layers.i32("max.connection.creation.rate"),
            connections_per_ip_max: layers.i32("max.connections.per.ip"),
            connections_per_ip_overrides: per_ip_overrides,
            fetch_bytes_max: layers.i32("fetch.max.bytes"),
            fetch_session_slots_max: layers.i32("max.incremental.fetch.session.cache.slots"),
            describe_partitions_max: layers.i32("max.request.partition.size.limit"),
            group_session_timeout_ms_min: layers.i32("group.min.session.timeout.ms"),
            group_session_timeout_ms_max: layers.i32("group.max.session.timeout.ms"),
            group_initial_rebalance_delay_ms: layers.i32("group.initial.rebalance.delay.ms"),
            group_members_max: layers.i32("group.max.size"),
            offset_metadata_bytes_max: layers.i32("offset.metadata.max.bytes"),
            offsets_retention_ms: layers.i64("offsets.retention.minutes") * 60_000,
            offsets_retention_check_interval_ms: layers.i64("offsets.retention.check.interval.ms"),
            offsets_topic_partitions: layers.i32("offsets.topic.num.partitions"),
            offsets_topic_segment_bytes: layers.i32("offsets.topic.segment.bytes"),
            producer_id_expiration_ms: layers.i64("producer.id.expiration.ms"),
            retention_check_interval_ms: layers.i64("log.retention.check.interval.ms"),
            cleaner_backoff_ms: layers.i64("log.cleaner.backoff.ms"),
            cleaner_dedupe_bytes: layers.i64("log.cleaner.dedupe.buffer.size"),
            topic_defaults: TopicConfig::of_broker(|key| layers.value(key)),
            statics: ConfigMap::new(),
            dynamic_defaults: ConfigMap::new(),
            dynamic_own: ConfigMap::new(),
        };
        let topic = &config.topic_defaults.log;
        if topic.retention_ms == Some(0) {
            return Err(ConfigError::invalid(
                "log.retention.ms",
                "0",
                "-1, or at least 1",
            ));
        }
        if topic.segment_ms < 1 {
            return Err(ConfigError::invalid(
                "log.roll.ms",
                &topic.segment_ms.to_string(),
                "at least 1",
            ));
        }
        // Either name of the id stands for both, and DescribeConfigs tells both.
        for (set, other) in [("node.id", "broker.id"), ("broker.id", "node.id")] {
            if statics.contains_key(set) && !statics.contains_key(other) {
                statics.insert(other.to_owned(), config.node_id.to_string());
            }
        }
        config.statics = statics;
        Ok(config)
    }

    /// This configuration under other dynamic settings: those of the whole cluster, and this broker's own.
    pub fn with_dynamic(&self, dynamic_defaults: &ConfigMap, dynamic_own: &ConfigMap) -> Self {
        let layers = Layers {
            statics: &self.statics,
            dynamic_defaults,
            dynamic_own,
        };
        let per_ip_overrides =
            per_ip_overrides(&layers).unwrap_or_else(|_| self.connections_per_ip_overrides.clone());
        BrokerConfig {
            connections_max: layers.i32("max.connections"),
            connection_creation_rate_max: layers.i32("max.connection.creation.rate"),
            connections_per_ip_max: layers.i32("max.connections.per.ip"),
            connections_per_ip_overrides: per_ip_overrides,
            producer_id_expiration_ms: layers.i64("producer.id.expiration.ms"),
            cleaner_backoff_ms: layers.i64("log.cleaner.backoff.ms"),
            cleaner_dedupe_bytes: layers.i64("log.cleaner.dedupe.buffer.size"),
            topic_defaults: TopicConfig::of_broker(|key| layers.value(key)),
            dynamic_defaults: dynamic_defaults.clone(),
            dynamic_own: dynamic_own.clone(),
            ..self.clone()
        }
    }

    /// The effective value of a broker key; `None` where it is Kafka's null or no key at all.
    pub fn value(&self, key: &str) -> Option<Value> {
        self.layers().value(key)
    }

    /// What the file and the overrides set.
    pub fn statics(&self) -> &ConfigMap {
        &self.statics
    }

    /// The dynamic settings of the whole cluster.
    pub fn dynamic_defaults(&self) -> &ConfigMap {
        &self.dynamic_defaults
    }

    /// The dynamic settings of this broker alone.
    pub fn dynamic_own(&self) -> &ConfigMap {
        &self.dynamic_own
    }

    fn layers(&self) -> Layers<'_> {
        Layers {
            statics: &self.statics,
            dynamic_defaults: &self.dynamic_defaults,
            dynamic_own: &self.dynamic_own,
        }
    }
}

fn known(key: &str) -> bool {
    broker_key(key).is_some()
        || PASSED_ON_PREFIXES
            .iter()
            .any(|prefix| key.starts_with(prefix))
}

/// The three places a broker key can be set, strongest last.
struct Layers<'a> {
    statics: &'a ConfigMap,
    dynamic_defaults: &'a ConfigMap,
    dynamic_own: &'a ConfigMap,
}

impl Layers<'_> {
    fn value(&self, key: &str) -> Option<Value> {
        let spec: &KeySpec = broker_key(key)?;
        [self.dynamic_own, self.dynamic_defaults, self.statics]
            .into_iter()
            .filter_map(|layer| layer.get(key))
            // A dynamic setting was checked when it was made; one that no longer parses does not count.
            .find_map(|text| spec.parse(text).ok())
            .or_else(|| spec.default_value())
    }

    fn text(&self, key: &str) -> Option<String> {
        self.value(key).map(|value| value.to_string())
    }

    fn i64(&self, key: &str) -> i64 {
        match self.value(key) {
            Some(Value::Integer(n)) => n,
            other => unreachable!("{key} is a number with a default, not {other:?}"),
        }
    }

    fn i32(&self, key: &str) -> i32 {
        i32::try_from(self.i64(key)).expect("an Int key was parsed as 32 bits")
    }

    fn u32(&self, key: &str) -> u32 {
        u32::try_from(self.i64(key)).expect("the key's range begins at 0")
    }

    fn bool(&self, key: &str) -> bool {
        match self.value(key) {
            Some(Value::Boolean(b)) => b,
            other => unreachable!("{key} is true or false with a default, not {other:?}"),
        }
    }
}

fn own_listener(key: &str, text: &str) -> Result<Option<HostPort>, ConfigError> {
    if text.is_empty() {
        return Ok(None);
    }
    match HostPort::parse(text).filter(|at| !at.host.is_empty()) {
        Some(at) => Ok(Some(at)),
        None => Err(ConfigError::invalid(
            key,
            text,
            "host:port, or empty for none",
        )),
    }
}

fn unix_socket(layers: &Layers<'_>) -> Result<Option<PathBuf>, ConfigError> {
    const KEY: &str = "native.unix.socket";
    let text = layers.text(KEY).unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    let path = Path::new(&text);
    if !path.is_absolute() || path.file_name().is_none() || text.ends_with('/') {
        let allowed = "the absolute path of a socket, or empty for none";
        return Err(ConfigError::invalid(KEY, &text, allowed));
    }
    if text.len() > ring::UNIX_PATH_BYTES_MAX {
        let allowed = format!(
            "a path of at most {} bytes: the kernel takes no more for a socket",
            ring::UNIX_PATH_BYTES_MAX
        );
        return Err(ConfigError::invalid(KEY, &text, allowed));
    }
    Ok(Some(path.to_owned()))
}

fn log_dirs(layers: &Layers<'_>) -> Result<Vec<PathBuf>, ConfigError> {
    let set = |key: &str| layers.text(key).filter(|text| !text.is_empty());
    let key = if set("log.dirs").is_some() {
        "log.dirs"
    } else {
        "log.dir"
    };
    let text = set(key).unwrap_or_default();
    let mut dirs: Vec<PathBuf> = Vec::new();
    for element in super::key::split_list(&text) {
        if element.is_empty() {
            return Err(ConfigError::invalid(
                key,
                &text,
                "directories without empty names",
            ));
        }
        // Absolute, as Kafka tells its log directories to whoever asks.
        let dir = std::path::absolute(element)
            .map_err(|_| ConfigError::invalid(key, &text, "directories that can be named"))?;
        if dirs.contains(&dir) {
            return Err(ConfigError::invalid(key, &text, "each directory once"));
        }
        dirs.push(dir);
    }
    if dirs.is_empty() {
        return Err(ConfigError::invalid(key, &text, "at least one directory"));
    }
    Ok(dirs)
}

fn node_id(layers: &Layers<'_>, statics: &ConfigMap) -> Result<i32, ConfigError> {
    let broker_id = layers.i32("broker.id");
    if let Some(roles) = statics.get("process.roles")
        && !super::key::split_list(roles)
            .iter()
            .any(|role| role == "broker")
        && !roles.trim().is_empty()
    {
        return Err(ConfigError::invalid(
            "process.roles",
            roles,
            "roles with 'broker' among them; a node that is only a controller is not served",
        ));
    }
    if !statics.contains_key("node.id") && broker_id >= 0 {
        return Ok(broker_id);
    }
    let node_id = layers.i32("node.id");
    if broker_id >= 0 && broker_id != node_id {
        return Err(ConfigError::invalid(
            "broker.id",
            &broker_id.to_string(),
            format!("the same as node.id={node_id}, or leave it out"),
        ));
    }
    Ok(node_id)
}

fn per_ip_overrides(layers: &Layers<'_>) -> Result<Vec<(String, i32)>, ConfigError> {
    const KEY: &str = "max.connections.per.ip.overrides";
    let text = layers.text(KEY).unwrap_or_default();
    super::key::split_list(&text)
        .into_iter()
        .map(|element| {
            element
                .rsplit_once(':')
                .and_then(|(host, most)| Some((host.trim().to_owned(), most.trim().parse().ok()?)))
                .filter(|(host, most): &(String, i32)| !host.is_empty() && *most >= 0)
                .ok_or_else(|| {
                    ConfigError::invalid(KEY, &text, format!("'{element}' is not address:count"))
                })
        })
        .collect()
}

/// Keys that must suit each other.
fn check_together(layers: &Layers<'_>, statics: &ConfigMap) -> Result<(), ConfigError> {
    let (least, most) = (
        layers.i32("group.min.session.timeout.ms"),
        layers.i32("group.max.session.timeout.ms"),
    );
    if least > most {
        let key = if statics.contains_key("group.min.session.timeout.ms") {
            (
                "group.min.session.timeout.ms",
                least,
                format!("at most group.max.session.timeout.ms={most}"),
            )
        } else {
            (
                "group.max.session.timeout.ms",
                most,
                format!("at least group.min.session.timeout.ms={least}"),
            )
        };
        return Err(ConfigError::invalid(key.0, &key.1.to_string(), key.2));
    }
    let factor = layers.i32("default.replication.factor");
    if factor != 1 && factor != -1 {
        return Err(ConfigError::invalid(
            "default.replication.factor",
            &factor.to_string(),
            "1 on one node",
        ));
    }
    let (lag_least, lag_most) = (
        layers.i64("log.cleaner.min.compaction.lag.ms"),
        layers.i64("log.cleaner.max.compaction.lag.ms"),
    );
    if lag_least > lag_most {
        return Err(ConfigError::invalid(
            "log.cleaner.min.compaction.lag.ms",
            &lag_least.to_string(),
            format!("at most log.cleaner.max.compaction.lag.ms={lag_most}"),
        ));
    }
    Ok(())
}
