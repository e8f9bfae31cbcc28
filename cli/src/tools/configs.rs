//! `configs`: shows and changes the configs of topics, brokers, groups and client metrics. Main thread.

use std::borrow::Cow;

use clap::{Arg, ArgMatches};
use net::client::Target;
use net::kafka::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use net::kafka::list_config_resources::ListConfigResourcesRequest;
use net::kafka::list_groups::ListGroupsRequest;

use super::admin::{Admin, AdminError, ConfigEntry, check, resource};
use super::args::{self, Found, flag, many, text};
use super::{Help, Outcome, Stop, Tool, java, out, properties};

/// The tool.
pub const TOOL: Tool = Tool {
    name: "configs",
    about: "This tool helps to manipulate and describe entity config for a topic, client, user, broker, ip, client-metrics or group",
    options,
    run,
    help: Help::Fails,
};

const TYPES: [&str; 8] = [
    "topics",
    "clients",
    "users",
    "brokers",
    "ips",
    "client-metrics",
    "groups",
    "broker-loggers",
];
/// The options that name an entity, and its type.
const NAMED: [(&str, &str); 8] = [
    ("topic", "topics"),
    ("client", "clients"),
    ("user", "users"),
    ("broker", "brokers"),
    ("broker-logger", "broker-loggers"),
    ("ip", "ips"),
    ("client-metrics", "client-metrics"),
    ("group", "groups"),
];
/// The options that mean a type's default.
const DEFAULTS: [(&str, &str); 4] = [
    ("client-defaults", "clients"),
    ("user-defaults", "users"),
    ("broker-defaults", "brokers"),
    ("ip-defaults", "ips"),
];

fn options() -> Vec<Arg> {
    vec![
        text(
            "bootstrap-server",
            "server to connect to",
            "The Kafka servers to connect to.",
        ),
        text(
            "bootstrap-controller",
            "controller to connect to",
            "The Kafka controllers to connect to.",
        ),
        text(
            "command-config",
            "command config property file",
            "A file of admin client properties.",
        ),
        flag("alter", "Alter the configuration for the entity."),
        flag("describe", "List configs for the given entity."),
        flag(
            "all",
            "List all configs for the given entity, including static configs if available.",
        ),
        many(
            "entity-type",
            "String",
            "topics, clients, users, brokers, broker-loggers, ips, client-metrics or groups.",
        ),
        many("entity-name", "String", "Name of the entity."),
        flag(
            "entity-default",
            "The default entity of clients, users, brokers or ips.",
        ),
        text(
            "add-config",
            "String",
            "Configs to set, as 'k1=v1,k2=[v1,v2,v2],k3=v3'.",
        ),
        text(
            "add-config-file",
            "String",
            "A properties file with configs to set.",
        ),
        many(
            "delete-config",
            "String",
            "Config keys to remove, as 'k1,k2'.",
        ),
        text("topic", "String", "The topic's name."),
        text("client", "String", "The client's ID."),
        flag("client-defaults", "The config defaults for all clients."),
        text("user", "String", "The user's principal name."),
        flag("user-defaults", "The config defaults for all users."),
        text("broker", "String", "The broker's ID."),
        flag("broker-defaults", "The config defaults for all brokers."),
        text(
            "broker-logger",
            "String",
            "The broker's ID for its logger config.",
        ),
        flag("ip-defaults", "The config defaults for all IPs."),
        text("ip", "String", "The IP address."),
        text("group", "String", "The group's ID."),
        text(
            "client-metrics",
            "String",
            "The client metrics config resource name.",
        ),
    ]
}

fn run(found: &ArgMatches) -> Outcome {
    let entities = check_options(found)?;
    let mut admin = Admin::new(found, "adminclient-1")?;
    if found.has("alter") {
        alter(&mut admin, found, &entities)
    } else {
        describe(&mut admin, found, &entities)
    }
}

/// What the options name: types in order, and names, where the empty one is the default.
#[derive(Debug, PartialEq, Eq)]
struct Entities {
    types: Vec<String>,
    names: Vec<String>,
}

fn entities(found: &ArgMatches) -> Entities {
    let mut types: Vec<String> = found
        .texts("entity-type")
        .into_iter()
        .map(str::to_owned)
        .collect();
    let mut names: Vec<String> = found
        .texts("entity-name")
        .into_iter()
        .map(str::to_owned)
        .collect();
    if found.has("entity-default") {
        names.push(String::new());
    }
    for (option, kind) in NAMED {
        if let Some(name) = found.text(option) {
            types.push(kind.to_owned());
            names.push(name.to_owned());
        }
    }
    for (option, kind) in DEFAULTS {
        if found.has(option) {
            types.push(kind.to_owned());
            names.push(String::new());
        }
    }
    Entities { types, names }
}

fn check_options(found: &ArgMatches) -> Result<Entities, Stop> {
    let wrong = |why: String| Err(Stop::Failed(why));
    if found.has("alter") == found.has("describe") {
        return Err(Stop::Usage(
            "Command must include exactly one action: --describe, --alter".to_owned(),
        ));
    }
    args::exclude(found, "describe", &["add-config", "delete-config"])?;
    let entities = entities(found);
    let types = &entities.types;
    for (index, kind) in types.iter().enumerate() {
        if types[..index].contains(kind) {
            return wrong(format!("Duplicate entity type(s) specified: {kind}"));
        }
    }
    match (
        found.has("bootstrap-server"),
        found.has("bootstrap-controller"),
    ) {
        (false, false) => {
            return wrong(
                "Either --bootstrap-server or --bootstrap-controller must be specified.".to_owned(),
            );
        }
        (true, true) => {
            return wrong(
                "Only one of --bootstrap-server or --bootstrap-controller can be specified"
                    .to_owned(),
            );
        }
        (false, true) => {
            return wrong(
                "--bootstrap-controller is not supported: use --bootstrap-server.".to_owned(),
            );
        }
        (true, false) => {}
    }
    if let Some(kind) = types.iter().find(|kind| !TYPES.contains(&kind.as_str())) {
        return wrong(format!(
            "Invalid entity type {kind}, the entity type must be one of {} with a --bootstrap-server or --bootstrap-controller argument",
            TYPES.join(", ")
        ));
    }
    let both =
        types.iter().any(|kind| kind == "users") && types.iter().any(|kind| kind == "clients");
    let Some(kind) = types.first() else {
        return wrong("At least one entity type must be specified".to_owned());
    };
    if types.len() > 1 && !(types.len() == 2 && both) {
        return wrong(
            "Only 'users' and 'clients' entity types may be specified together".to_owned(),
        );
    }
    let by_flags = NAMED
        .iter()
        .chain(&DEFAULTS)
        .any(|(option, _)| found.has(option));
    if (found.has("entity-name") || found.has("entity-type") || found.has("entity-default"))
        && by_flags
    {
        return wrong("--entity-{type,name,default} should not be used in conjunction with specific entity flags".to_owned());
    }
    let named = entities.names.iter().find(|name| !name.is_empty());
    if let Some(name) = named
        && matches!(kind.as_str(), "brokers" | "broker-loggers")
        && name.parse::<i32>().is_err()
    {
        return wrong(format!(
            "The entity name for {kind} must be a valid integer broker id, but it is: {name}"
        ));
    }
    let has_default_entity = matches!(kind.as_str(), "users" | "clients" | "brokers" | "ips");
    if found.has("describe") {
        if found.has("entity-default") && !has_default_entity {
            return wrong(format!(
                "--entity-default must not be specified with --describe of {}",
                types.join(",")
            ));
        }
        if kind == "broker-loggers" && named.is_none() {
            return wrong(format!(
                "An entity name must be specified with --describe of {kind}"
            ));
        }
        return Ok(entities);
    }
    if has_default_entity && entities.names.is_empty() {
        return wrong("An entity-name or default entity must be specified with --alter of users, clients, brokers or ips".to_owned());
    }
    if !has_default_entity && named.is_none() {
        return wrong(format!(
            "An entity name must be specified with --alter of {}",
            types.join(",")
        ));
    }
    let (add, file, delete) = (
        found.has("add-config"),
        found.has("add-config-file"),
        found.has("delete-config"),
    );
    if add && file {
        return wrong("Only one of --add-config or --add-config-file must be specified".to_owned());
    }
    if !add && !file && !delete {
        return wrong("At least one of --add-config, --add-config-file, or --delete-config must be specified with --alter".to_owned());
    }
    if entities.types.len() != entities.names.len() {
        return wrong("An entity name must be specified for every entity type".to_owned());
    }
    Ok(entities)
}

fn kind_number(kind: &str) -> Result<i8, Stop> {
    match kind {
        "topics" => Ok(resource::TOPIC),
        "brokers" => Ok(resource::BROKER),
        "broker-loggers" => Ok(resource::BROKER_LOGGER),
        "client-metrics" => Ok(resource::CLIENT_METRICS),
        "groups" => Ok(resource::GROUP),
        // Quotas and credentials have APIs of their own.
        "users" | "clients" | "ips" => Err(Stop::Failed(
            "The node does not support DESCRIBE_CLIENT_QUOTAS".to_owned(),
        )),
        other => Err(Stop::Failed(format!("Unsupported entity type: {other}"))),
    }
}

/// The type without its plural's last letter, as Kafka prints it.
fn singular(kind: &str) -> &str {
    &kind[..kind.len() - 1]
}

/// Cuts `k1=v1,k2=[v1,v2],k3=` at commas outside brackets.
fn parse_added(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut parts: Vec<String> = vec![String::new()];
    let mut depth = 0_u32;
    for c in text.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("never empty").push(c);
    }
    while parts.len() > 1 && parts.last().is_some_and(String::is_empty) {
        parts.pop();
    }
    let mut configs = Vec::with_capacity(parts.len());
    for part in parts {
        let equals_outside = part
            .split('[')
            .next()
            .unwrap_or_default()
            .matches('=')
            .count();
        let (Some((key, value)), 1) = (part.split_once('='), equals_outside) else {
            return Err("requirement failed: Invalid entity config: all configs to be added must be in the format \"key=val\" or  \"key=[val1,val2]\" to group values which contain commas.".to_owned());
        };
        configs.push((
            key.trim().to_owned(),
            value.replace(['[', ']'], "").trim().to_owned(),
        ));
    }
    Ok(configs)
}

fn alter(admin: &mut Admin, found: &ArgMatches, entities: &Entities) -> Outcome {
    let (kind, name) = (&entities.types[0], &entities.names[0]);
    let number = kind_number(kind)?;
    let mut added: Vec<(String, String)> = match found.text("add-config-file") {
        Some(path) => properties::load(path)?.into_iter().collect(),
        None => Vec::new(),
    };
    if let Some(text) = found.text("add-config") {
        added.extend(parse_added(text).map_err(Stop::Failed)?);
    }
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '$' | '.' | '_' | '-');
    if let Some((key, _)) = added.iter().find(|(key, _)| !key.chars().all(valid)) {
        return Err(Stop::Failed(format!(
            "Invalid character found for config key: {key}"
        )));
    }
    let deleted: Vec<&str> = found
        .texts("delete-config")
        .into_iter()
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .collect();
    let change = |name: &str, config_operation: i8, value: &str| AlterableConfig {
        name: Cow::Owned(name.to_owned()),
        config_operation,
        value: Some(Cow::Owned(value.to_owned())),
    };
    let configs = deleted
        .iter()
        .map(|key| change(key, 1, ""))
        .chain(added.iter().map(|(key, value)| change(key, 0, value)));
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: number,
            resource_name: Cow::Borrowed(name),
            configs: configs.collect(),
        }],
        validate_only: false,
    };
    let target = match (number, name.parse()) {
        (resource::BROKER | resource::BROKER_LOGGER, Ok(id)) => Target::Broker(id),
        _ => Target::Any,
    };
    let outcome = admin
        .client
        .call(target, &request, |response, _| {
            response
                .responses
                .into_iter()
                .try_for_each(|result| check(result.error_code, result.error_message))
        })
        .map_err(AdminError::from);
    outcome.and_then(|inner| inner).map_err(executing)?;
    out::line(&if name.is_empty() {
        format!("Completed updating default config for {kind} in the cluster.")
    } else {
        format!("Completed updating config for {} {name}.", singular(kind))
    });
    Ok(())
}

/// What Kafka's tool says of an answer that is an error.
fn executing(error: AdminError) -> Stop {
    let arguments: Vec<String> = std::env::args()
        .skip_while(|argument| !argument.starts_with("--"))
        .collect();
    Stop::Failed(format!(
        "Error while executing config command with args '{}'\njava.util.concurrent.ExecutionException: {}",
        arguments.join(" "),
        error.java()
    ))
}

fn describe(admin: &mut Admin, found: &ArgMatches, entities: &Entities) -> Outcome {
    let kind = entities.types[0].as_str();
    let number = kind_number(kind)?;
    let all = found.has("all");
    let names = match entities.names.first() {
        Some(name) => {
            if !all && !exists(admin, number, name).map_err(executing)? {
                out::line(&format!(
                    "The {} '{name}' doesn't exist and doesn't have dynamic config.",
                    singular(kind)
                ));
                return Ok(());
            }
            vec![name.clone()]
        }
        None => every(admin, number).map_err(executing)?,
    };
    for name in names {
        out::line(&if name.is_empty() {
            format!("Default configs for {kind} in the cluster are:")
        } else {
            format!(
                "{} configs for {} {name} are:",
                if all { "All" } else { "Dynamic" },
                singular(kind)
            )
        });
        let described = admin
            .describe_configs(number, std::slice::from_ref(&name), true)
            .map_err(executing)?;
        let mut entries = described
            .into_iter()
            .next()
            .unwrap_or_else(|| Ok(Vec::new()))
            .map_err(executing)?;
        if let (false, Some(source)) = (all, dynamic_source(number, &name)) {
            entries.retain(|entry| entry.source == source);
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        for entry in &entries {
            out::line(&line(entry));
        }
    }
    Ok(())
}

/// The source of configs that were set for this entity itself.
fn dynamic_source(kind: i8, name: &str) -> Option<i8> {
    match kind {
        resource::TOPIC => Some(1),
        resource::BROKER if name.is_empty() => Some(3),
        resource::BROKER => Some(2),
        resource::CLIENT_METRICS => Some(7),
        resource::GROUP => Some(8),
        _ => None,
    }
}

fn source_name(source: i8) -> &'static str {
    match source {
        1 => "DYNAMIC_TOPIC_CONFIG",
        2 => "DYNAMIC_BROKER_CONFIG",
        3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        4 => "STATIC_BROKER_CONFIG",
        5 => "DEFAULT_CONFIG",
        6 => "DYNAMIC_BROKER_LOGGER_CONFIG",
        7 => "DYNAMIC_CLIENT_METRICS_CONFIG",
        8 => "DYNAMIC_GROUP_CONFIG",
        _ => "UNKNOWN",
    }
}

fn line(entry: &ConfigEntry) -> String {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".to_owned());
    let synonyms: Vec<String> = entry
        .synonyms
        .iter()
        .map(|(source, name, synonym)| {
            format!("{}:{name}={}", source_name(*source), value(synonym))
        })
        .collect();
    format!(
        "  {}={} sensitive={} synonyms={{{}}}",
        entry.name,
        value(&entry.value),
        entry.sensitive,
        synonyms.join(", ")
    )
}

fn exists(admin: &mut Admin, kind: i8, name: &str) -> Result<bool, AdminError> {
    Ok(match kind {
        resource::BROKER | resource::BROKER_LOGGER => {
            name.is_empty()
                || admin
                    .brokers()?
                    .iter()
                    .any(|broker| broker.id.to_string() == name)
        }
        _ => every(admin, kind)?.iter().any(|found| found == name),
    })
}

/// The names of every entity of a kind, in the order that Kafka's tool lists them.
fn every(admin: &mut Admin, kind: i8) -> Result<Vec<String>, AdminError> {
    match kind {
        resource::TOPIC => Ok(admin
            .list_topics(true)?
            .into_iter()
            .map(|topic| topic.name)
            .collect()),
        resource::BROKER | resource::BROKER_LOGGER => {
            let mut names: Vec<String> = admin
                .brokers()?
                .iter()
                .map(|broker| broker.id.to_string())
                .collect();
            names.push(String::new());
            Ok(names)
        }
        resource::GROUP => {
            let mut names = groups(admin)?;
            for name in listed(admin, kind)? {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            Ok(names)
        }
        _ => listed(admin, kind),
    }
}

fn listed(admin: &mut Admin, kind: i8) -> Result<Vec<String>, AdminError> {
    let request = ListConfigResourcesRequest {
        resource_types: vec![kind],
    };
    admin.client.call(Target::Any, &request, |response, _| {
        check(response.error_code, None)?;
        let resources = response
            .config_resources
            .into_iter()
            .filter(|found| found.resource_type == kind);
        Ok(resources
            .map(|found| found.resource_name.into_owned())
            .collect())
    })?
}

fn groups(admin: &mut Admin) -> Result<Vec<String>, AdminError> {
    let mut names = Vec::new();
    for broker in admin.brokers()? {
        let found: Result<Vec<String>, AdminError> = admin.client.call(
            Target::Broker(broker.id),
            &ListGroupsRequest::default(),
            |response, _| {
                check(response.error_code, None)?;
                Ok(response
                    .groups
                    .into_iter()
                    .map(|group| group.group_id.into_owned())
                    .collect())
            },
        )?;
        names.extend(found?);
    }
    Ok(java::map_order(names, |name| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options_of(arguments: &[&str]) -> Result<Entities, Stop> {
        let all = [&["--bootstrap-server", "h:1"], arguments].concat();
        check_options(
            &super::super::command(&TOOL)
                .no_binary_name(true)
                .get_matches_from(all),
        )
    }

    #[test]
    fn entities_are_named_in_two_ways() {
        let expected = |kind: &str, name: &str| Entities {
            types: vec![kind.to_owned()],
            names: vec![name.to_owned()],
        };
        let describe = |arguments: &[&str]| options_of(&[&["--describe"], arguments].concat());
        assert_eq!(describe(&["--topic", "t"]), Ok(expected("topics", "t")));
        assert_eq!(
            describe(&["--entity-type", "topics", "--entity-name", "t"]),
            Ok(expected("topics", "t"))
        );
        assert_eq!(
            describe(&["--broker-defaults"]),
            Ok(expected("brokers", ""))
        );
        assert_eq!(
            describe(&["--entity-type", "brokers", "--entity-default"]),
            Ok(expected("brokers", ""))
        );
    }

    #[test]
    fn wrong_options_are_told_in_kafkas_words() {
        let why = |arguments: &[&str]| match options_of(arguments) {
            Err(Stop::Failed(why) | Stop::Usage(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            why(&[]),
            "Command must include exactly one action: --describe, --alter"
        );
        assert_eq!(
            why(&["--describe"]),
            "At least one entity type must be specified"
        );
        assert_eq!(
            why(&["--alter", "--entity-type", "topics", "--add-config", "a=b"]),
            "An entity name must be specified with --alter of topics"
        );
        assert_eq!(
            why(&["--alter", "--topic", "t"]),
            "At least one of --add-config, --add-config-file, or --delete-config must be specified with --alter"
        );
        assert_eq!(
            why(&["--describe", "--broker", "x"]),
            "The entity name for brokers must be a valid integer broker id, but it is: x"
        );
        assert!(
            why(&["--describe", "--entity-type", "cats"])
                .starts_with("Invalid entity type cats, the entity type")
        );
    }

    #[test]
    fn added_configs_keep_lists_in_brackets_together() {
        let pairs = |pairs: &[(&str, &str)]| {
            Ok(pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect::<Vec<_>>())
        };
        assert_eq!(
            parse_added("a=1,b=[x,y],c="),
            pairs(&[("a", "1"), ("b", "x,y"), ("c", "")])
        );
        assert_eq!(parse_added("a = 1 "), pairs(&[("a", "1")]));
        assert!(parse_added("a").unwrap_err().contains("key=[val1,val2]"));
        assert!(parse_added("a=1=2").is_err());
    }

    #[test]
    fn a_config_prints_with_its_synonyms() {
        let entry = ConfigEntry {
            name: "retention.ms".to_owned(),
            value: Some("1".to_owned()),
            source: 1,
            sensitive: false,
            synonyms: vec![
                (1, "retention.ms".to_owned(), Some("1".to_owned())),
                (4, "log.retention.ms".to_owned(), None),
            ],
        };
        assert_eq!(
            line(&entry),
            "  retention.ms=1 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=1, STATIC_BROKER_CONFIG:log.retention.ms=null}"
        );
    }
}
