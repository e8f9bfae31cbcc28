//! The listeners of a broker: where it binds, what it tells clients, and which of the configured ones it
//! opens at all. Used on the main thread at start; it opens no socket.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{ConfigError, key::split_list};

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address, an IPv6 address without brackets; empty means every interface.
    pub host: String,
    /// TCP port; 0 lets the system choose.
    pub port: u16,
}

impl HostPort {
    /// Parses `host:port`, `[v6]:port` or `:port`.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.trim().rsplit_once(':')?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']')?,
            None => host,
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
        if !host.chars().all(legal) || !port.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        Some(HostPort {
            host: host.to_owned(),
            port: port.parse().ok()?,
        })
    }

    /// Whether binding here means every interface.
    pub fn is_wildcard(&self) -> bool {
        self.host.is_empty()
            || self.host == "0.0.0.0"
            || self
                .host
                .parse::<std::net::Ipv6Addr>()
                .is_ok_and(|a| a.is_unspecified())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A listener that this broker opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name, in capitals.
    pub name: String,
    /// Where it binds.
    pub bind: HostPort,
    /// What clients that came through it are told; port 0 stands for the port that was bound.
    pub advertised: HostPort,
}

/// The texts that decide the listeners.
pub(crate) struct ListenerTexts<'a> {
    pub listeners: &'a str,
    pub advertised: Option<&'a str>,
    pub protocol_map: &'a str,
    pub controller_names: &'a str,
    pub inter_broker_name: Option<&'a str>,
    pub inter_broker_protocol: Option<&'a str>,
}

/// Name and address of every element of a listener list.
fn parse_list(key: &str, text: &str) -> Result<Vec<(String, HostPort)>, ConfigError> {
    let mut found: Vec<(String, HostPort)> = Vec::new();
    for element in split_list(text) {
        let parsed = element
            .split_once("://")
            .filter(|(name, _)| !name.is_empty())
            .and_then(|(name, at)| Some((name.to_ascii_uppercase(), HostPort::parse(at)?)));
        let Some((name, at)) = parsed else {
            return Err(ConfigError::invalid(
                key,
                text,
                format!("'{element}' is not of the form NAME://host:port"),
            ));
        };
        if found.iter().any(|(other, _)| *other == name) {
            return Err(ConfigError::invalid(
                key,
                text,
                format!("each listener needs its own name, and {name} comes twice"),
            ));
        }
        found.push((name, at));
    }
    Ok(found)
}

/// The listeners to open.
pub(crate) fn listeners(texts: &ListenerTexts<'_>) -> Result<Vec<Listener>, ConfigError> {
    let bound = parse_list("listeners", texts.listeners)?;
    let refuse = |allowed: String| Err(ConfigError::invalid("listeners", texts.listeners, allowed));
    let mut ports = BTreeSet::new();
    for (name, at) in &bound {
        // One port may serve two address families: an IPv4 and an IPv6 host beside each other.
        if at.port != 0 && !ports.insert((at.port, at.host.contains(':'))) {
            return refuse(format!(
                "each listener needs its own port, and {name} has one that is taken"
            ));
        }
    }
    let controllers: BTreeSet<String> = split_list(texts.controller_names)
        .iter()
        .map(|n| n.to_ascii_uppercase())
        .collect();
    let mut protocols = BTreeMap::new();
    for element in split_list(texts.protocol_map) {
        match element.split_once(':') {
            Some((name, protocol)) if !name.is_empty() => {
                protocols.insert(
                    name.trim().to_ascii_uppercase(),
                    protocol.trim().to_ascii_uppercase(),
                );
            }
            _ => {
                return Err(ConfigError::invalid(
                    "listener.security.protocol.map",
                    texts.protocol_map,
                    format!("'{element}' is not of the form NAME:PROTOCOL"),
                ));
            }
        }
    }
    let advertised_text = texts.advertised.filter(|text| !text.trim().is_empty());
    let advertised = match advertised_text {
        Some(text) => Some(parse_list("advertised.listeners", text)?),
        None => None,
    };
    if let (Some(list), Some(text)) = (&advertised, advertised_text) {
        for (name, at) in list {
            let refuse = |why: String| Err(ConfigError::invalid("advertised.listeners", text, why));
            if controllers.contains(name) {
                continue;
            }
            if !bound.iter().any(|(other, _)| other == name) {
                return refuse(format!("{name} is not among listeners={}", texts.listeners));
            }
            if at.is_wildcard() {
                return refuse(format!(
                    "clients cannot connect to '{at}'; name a host or an address that they can reach"
                ));
            }
        }
    }

    let mut opened = Vec::new();
    for (name, bind) in bound {
        if controllers.contains(&name) {
            continue;
        }
        match protocols.get(&name).map(String::as_str) {
            Some("PLAINTEXT") => {}
            Some(protocol @ ("SSL" | "SASL_PLAINTEXT" | "SASL_SSL")) => {
                return refuse(format!(
                    "listener {name} speaks {protocol}, which is not served yet; use PLAINTEXT"
                ));
            }
            Some(protocol) => {
                return Err(ConfigError::invalid(
                    "listener.security.protocol.map",
                    texts.protocol_map,
                    format!("{protocol} is no security protocol; PLAINTEXT is served"),
                ));
            }
            None => {
                return refuse(format!(
                    "listener {name} has no protocol; add {name}:PLAINTEXT to \
                     listener.security.protocol.map"
                ));
            }
        }
        let told = advertised
            .as_ref()
            .and_then(|l| l.iter().find(|(n, _)| *n == name));
        let told = match (told, &advertised) {
            (Some((_, at)), _) => at.clone(),
            // Not advertised on purpose: clients that come through it are told where it binds.
            (None, _) if !bind.is_wildcard() => bind.clone(),
            (None, _) => {
                return refuse(format!(
                    "{name} binds to every interface, so clients cannot be told where to connect; \
                     set advertised.listeners={name}://<host that clients reach>:{}",
                    bind.port
                ));
            }
        };
        opened.push(Listener {
            name,
            bind,
            advertised: told,
        });
    }
    if opened.is_empty() {
        return refuse("at least one listener that is not in controller.listener.names".to_owned());
    }
    if let Some(name) = texts
        .inter_broker_name
        .filter(|name| !name.trim().is_empty())
    {
        if !opened
            .iter()
            .any(|l| l.name == name.trim().to_ascii_uppercase())
        {
            let names: Vec<&str> = opened.iter().map(|l| l.name.as_str()).collect();
            return Err(ConfigError::invalid(
                "inter.broker.listener.name",
                name,
                format!("one of the opened listeners: {}", names.join(", ")),
            ));
        }
        if let Some(protocol) = texts.inter_broker_protocol {
            return Err(ConfigError::invalid(
                "security.inter.broker.protocol",
                protocol,
                "only one of inter.broker.listener.name and security.inter.broker.protocol may be set",
            ));
        }
    } else if let Some(protocol) = texts.inter_broker_protocol
        && protocol.trim() != "PLAINTEXT"
    {
        return Err(ConfigError::invalid(
            "security.inter.broker.protocol",
            protocol,
            "PLAINTEXT is what is served",
        ));
    }
    Ok(opened)
}
