//! Configuration: the properties file and `--override`s of a broker, topic keys, what DescribeConfigs tells
//! of them, and the log directories' identity. Read on the main thread at start, then plain data on every
//! core; it knows no shard and no socket.

pub mod broker;
pub mod catalogue;
pub mod describe;
pub mod key;
pub mod listener;
pub mod log_dir;
pub mod properties;
pub mod topic;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

pub use broker::BrokerConfig;
pub use topic::TopicConfig;

/// Keys and their values as text.
pub type ConfigMap = BTreeMap<String, String>;

/// Why a configuration does not start a broker. Nothing has been touched when this is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The file cannot be read.
    File {
        /// Its path.
        path: String,
        /// The system's words.
        why: String,
    },
    /// The text is not a `.properties` text.
    Syntax(properties::PropertiesError),
    /// An `--override` is not `key=value`.
    Override(String),
    /// A key has a value that it does not take.
    Invalid {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What is allowed, and where it helps, the remedy.
        allowed: String,
    },
}

impl ConfigError {
    pub(crate) fn invalid(key: &str, value: &str, allowed: impl Into<String>) -> Self {
        ConfigError::Invalid {
            key: key.to_owned(),
            value: value.to_owned(),
            allowed: allowed.into(),
        }
    }
}

impl From<key::InvalidValue> for ConfigError {
    fn from(invalid: key::InvalidValue) -> Self {
        ConfigError::Invalid {
            key: invalid.key,
            value: invalid.value,
            allowed: invalid.allowed,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::File { path, why } => write!(f, "{path}: {why}"),
            ConfigError::Syntax(error) => error.fmt(f),
            ConfigError::Override(text) => {
                write!(f, "--override {text}: allowed is key=value")
            }
            ConfigError::Invalid {
                key,
                value,
                allowed,
            } => {
                write!(f, "{key}={value} is not allowed: {allowed}")
            }
        }
    }
}

impl std::error::Error for ConfigError {}
