//! What the metadata machine decides about configurations of topics, brokers, groups and client metrics.
//! Lives on core 0; pure functions of the image, which they do not change.

use std::collections::HashSet;

use net::kafka::error::ErrorCode;

use super::command::{ConfigChange, ConfigEdit, Refusal};
use super::image::MetadataImage;
use super::record::{MetadataRecord, ResourceKind};
use super::topics::check_name;
use crate::config::catalogue::{alterable, broker_key, client_metrics_key, group_key, topic_key};
use crate::config::key::{KeySpec, Kind, Value, split_list};
use crate::config::{ConfigMap, topic};

fn invalid_request(why: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, why)
}

fn invalid_config(why: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidConfig, why)
}

/// The key of this name for this kind of resource.
fn key_of(kind: ResourceKind, name: &str) -> Option<&'static KeySpec> {
    match kind {
        ResourceKind::Topic => topic_key(name),
        ResourceKind::Broker => broker_key(name),
        ResourceKind::Group => group_key(name),
        ResourceKind::ClientMetrics => client_metrics_key(name),
        ResourceKind::BrokerLogger => None,
    }
}

impl MetadataImage {
    pub(super) fn decide_alter_configs(
        &self,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> (Vec<MetadataRecord>, Vec<Result<(), Refusal>>) {
        let mut seen = HashSet::new();
        let twice: HashSet<(i8, &str)> = changes
            .iter()
            .map(|change| (change.kind, change.name.as_str()))
            .filter(|resource| !seen.insert(*resource))
            .collect();
        let mut records = Vec::new();
        let results = changes
            .iter()
            .map(|change| {
                if twice.contains(&(change.kind, change.name.as_str())) {
                    return Err(invalid_request("Each resource must appear at most once."));
                }
                self.decide_alter_resource(change)
                    .map(|record| records.extend(record))
            })
            .collect();
        if validate_only {
            records.clear();
        }
        (records, results)
    }

    fn decide_alter_resource(
        &self,
        change: &ConfigChange,
    ) -> Result<Option<MetadataRecord>, Refusal> {
        check_edit(&change.edit)?;
        let kind = ResourceKind::of_code(change.kind);
        let kind = match kind {
            Some(ResourceKind::BrokerLogger) | None => {
                return Err(invalid_request(format!(
                    "Unknown resource type {}",
                    change.kind
                )));
            }
            Some(kind) => kind,
        };
        let name = change.name.as_str();
        match kind {
            ResourceKind::Topic => {
                if name.is_empty() {
                    return Err(invalid_request("Default topic resources are not allowed."));
                }
                check_name(name)?;
                if self.topic(name).is_none() {
                    return Err(Refusal::new(
                        ErrorCode::UnknownTopicOrPartition,
                        format!("The topic '{name}' does not exist."),
                    ));
                }
            }
            ResourceKind::Broker if !name.is_empty() => {
                let id: i32 = name.parse().map_err(|_| {
                    invalid_request(format!("Node id must be an integer, but it is: {name}"))
                })?;
                if id != self.node_id() {
                    return Err(invalid_request(format!(
                        "Unexpected broker id, expected {}, but received {name}",
                        self.node_id()
                    )));
                }
            }
            ResourceKind::Group if name.is_empty() => {
                return Err(invalid_request("Default group resources are not allowed."));
            }
            ResourceKind::ClientMetrics if name.is_empty() => {
                return Err(invalid_request("Subscription name can't be empty"));
            }
            _ => {}
        }
        let none = ConfigMap::new();
        let before = self.configs(kind, name).unwrap_or(&none);
        let after = match &change.edit {
            ConfigEdit::Replace(entries) => entries
                .iter()
                .filter_map(|(key, value)| Some((key.clone(), value.clone()?)))
                .collect(),
            ConfigEdit::Incremental(operations) => edited(kind, before, operations)?,
        };
        self.check_settings(kind, before, &after)?;
        if after == *before {
            return Ok(None);
        }
        Ok(Some(MetadataRecord::Configs {
            kind,
            name: name.to_owned(),
            configs: after,
        }))
    }

    /// Checks a group's value against what the broker lets groups have.
    fn check_group_bounds(&self, name: &str, value: &Value) -> Result<(), Refusal> {
        let (Some((prefix, rest)), Value::Integer(value)) = (name.split_once('.'), value) else {
            return Ok(());
        };
        let bound = |which: &str| {
            let key = format!("group.{prefix}.{which}.{rest}");
            match self.config().value(&key) {
                Some(Value::Integer(bound)) => Some((key, bound)),
                _ => None,
            }
        };
        if let Some((key, least)) = bound("min")
            && *value < least
        {
            return Err(invalid_config(format!(
                "{name} must be greater than or equal to {key}"
            )));
        }
        if let Some((key, most)) = bound("max")
            && *value > most
        {
            return Err(invalid_config(format!(
                "{name} must be less than or equal to {key}"
            )));
        }
        Ok(())
    }

    /// Checks the settings that a resource would have.
    fn check_settings(
        &self,
        kind: ResourceKind,
        before: &ConfigMap,
        after: &ConfigMap,
    ) -> Result<(), Refusal> {
        match kind {
            ResourceKind::Topic => topic::validate(self.config(), after).map_err(invalid_config),
            ResourceKind::Broker => {
                for (name, text) in after {
                    let changed = before.get(name) != Some(text);
                    match broker_key(name) {
                        Some(spec) if alterable(spec) => {
                            spec.parse(text)
                                .map_err(|error| invalid_request(error.to_string()))?;
                        }
                        _ if !changed => {}
                        Some(_) => {
                            return Err(invalid_request(format!(
                                "Cannot update these configs dynamically: [{name}]"
                            )));
                        }
                        None => {
                            return Err(invalid_request(format!("Unknown config name: {name}")));
                        }
                    }
                }
                Ok(())
            }
            _ => {
                let what = if kind == ResourceKind::Group {
                    "group"
                } else {
                    "client metrics"
                };
                for (name, text) in after {
                    let spec = key_of(kind, name).ok_or_else(|| match kind {
                        ResourceKind::Group => {
                            invalid_config(format!("Unknown {what} config name: {name}"))
                        }
                        _ => invalid_request(format!("Unknown {what} configuration: {name}")),
                    })?;
                    let value = spec
                        .parse(text)
                        .map_err(|error| invalid_config(error.to_string()))?;
                    if kind == ResourceKind::Group {
                        self.check_group_bounds(name, &value)?;
                    } else {
                        check_client_metrics(name, &value)?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// What a client metrics subscription can match by (KIP-714).
const CLIENT_PROPERTIES: [&str; 6] = [
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

fn check_client_metrics(name: &str, value: &Value) -> Result<(), Refusal> {
    match (name, value) {
        ("interval.ms", Value::Integer(ms)) if !(100..=3_600_000).contains(ms) => {
            Err(invalid_request(format!(
                "Invalid value {ms} for interval.ms, interval must be between 100 and 3600000 (1 hour)"
            )))
        }
        ("match", Value::List(patterns)) => {
            let legal = |pattern: &str| {
                pattern
                    .split_once('=')
                    .is_some_and(|(property, _)| CLIENT_PROPERTIES.contains(&property.trim()))
            };
            match patterns.iter().find(|pattern| !legal(pattern)) {
                Some(bad) => Err(invalid_config(format!(
                    "Illegal client matching pattern: {bad}"
                ))),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Checks what holds for a change of any resource: each key once, and no null where a value is needed.
fn check_edit(edit: &ConfigEdit) -> Result<(), Refusal> {
    let (names, nulls): (Vec<&str>, Vec<&str>) = match edit {
        ConfigEdit::Replace(entries) => (
            entries.iter().map(|(name, _)| name.as_str()).collect(),
            entries
                .iter()
                .filter(|(_, v)| v.is_none())
                .map(|(name, _)| name.as_str())
                .collect(),
        ),
        ConfigEdit::Incremental(operations) => (
            operations
                .iter()
                .map(|(name, _, _)| name.as_str())
                .collect(),
            operations
                .iter()
                .filter(|(_, operation, value)| *operation != DELETE && value.is_none())
                .map(|(name, _, _)| name.as_str())
                .collect(),
        ),
    };
    let mut seen = HashSet::new();
    if !names.iter().all(|name| seen.insert(*name)) {
        return Err(invalid_request("Error due to duplicate config keys"));
    }
    if !nulls.is_empty() {
        return Err(invalid_request(format!(
            "Null value not supported for : {}",
            nulls.join(", ")
        )));
    }
    Ok(())
}

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// `before` after these operations (KIP-339).
fn edited(
    kind: ResourceKind,
    before: &ConfigMap,
    operations: &[(String, i8, Option<String>)],
) -> Result<ConfigMap, Refusal> {
    let mut after = before.clone();
    for (name, operation, value) in operations {
        let value = value.as_deref().unwrap_or_default();
        match *operation {
            SET => {
                after.insert(name.clone(), value.to_owned());
            }
            DELETE => {
                after.remove(name);
            }
            APPEND | SUBTRACT => {
                let word = if *operation == APPEND {
                    "APPEND"
                } else {
                    "SUBTRACT"
                };
                let spec = key_of(kind, name)
                    .filter(|spec| spec.kind == Kind::List)
                    .ok_or_else(|| {
                        invalid_config(format!(
                            "Can't {word} to key {name} because its type is not LIST."
                        ))
                    })?;
                // Without a value of its own the key's default is what is appended to.
                let current = after
                    .get(name)
                    .map(String::as_str)
                    .or(spec.default)
                    .unwrap_or_default();
                let mut elements = split_list(current);
                for element in split_list(value) {
                    if *operation == SUBTRACT {
                        elements.retain(|known| *known != element);
                    } else if !elements.contains(&element) {
                        elements.push(element);
                    }
                }
                after.insert(name.clone(), elements.join(","));
            }
            other => return Err(invalid_request(format!("Unknown operations type {other}"))),
        }
    }
    Ok(after)
}
