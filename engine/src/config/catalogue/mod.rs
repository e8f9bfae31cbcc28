//! The catalogue of configuration keys: every key of Kafka 4.3 and the few of our own, and the table that
//! the documentation shows. Constants on any thread; it knows nothing about how a key is used.

mod coordinators;
mod group;
mod logs;
mod own;
mod security;
mod server;
mod topic;

pub use group::{CLIENT_METRICS, GROUP};
pub use own::OWN;
pub use topic::TOPIC;

use super::key::{Dynamic, KeySpec, Status};

/// Every broker key, Kafka's first, then ours; each part sorted by name.
pub fn broker_keys() -> impl Iterator<Item = &'static KeySpec> {
    let mut keys: Vec<&'static KeySpec> = [
        server::SERVER,
        logs::LOGS,
        coordinators::COORDINATORS,
        security::SECURITY,
    ]
    .into_iter()
    .flatten()
    .collect();
    keys.sort_by_key(|spec| spec.name);
    keys.into_iter().chain(OWN)
}

/// The broker key of this name.
pub fn broker_key(name: &str) -> Option<&'static KeySpec> {
    [
        server::SERVER,
        logs::LOGS,
        coordinators::COORDINATORS,
        security::SECURITY,
        OWN,
    ]
    .into_iter()
    .find_map(|area| find(area, name))
}

/// The key of this name among those of our own.
pub fn own_key(name: &str) -> Option<&'static KeySpec> {
    find(OWN, name)
}

/// The topic key of this name.
pub fn topic_key(name: &str) -> Option<&'static KeySpec> {
    find(TOPIC, name)
}

/// The group key of this name.
pub fn group_key(name: &str) -> Option<&'static KeySpec> {
    find(GROUP, name)
}

/// The key of this name of a client metrics subscription.
pub fn client_metrics_key(name: &str) -> Option<&'static KeySpec> {
    find(CLIENT_METRICS, name)
}

fn find(sorted: &'static [KeySpec], name: &str) -> Option<&'static KeySpec> {
    sorted
        .binary_search_by_key(&name, |spec| spec.name)
        .ok()
        .map(|at| &sorted[at])
}

/// Whether a broker key takes effect when it is changed while the broker runs.
pub fn alterable(spec: &KeySpec) -> bool {
    spec.dynamic == Dynamic::Dynamic && spec.status == Status::Honoured
}

/// The catalogue as Markdown: a table each for broker, topic and group keys.
pub fn markdown() -> String {
    let mut out = String::new();
    let topic: Vec<&KeySpec> = TOPIC.iter().collect();
    let group: Vec<&KeySpec> = GROUP.iter().chain(CLIENT_METRICS).collect();
    let kafka: Vec<&KeySpec> = broker_keys()
        .filter(|spec| own_key(spec.name).is_none())
        .collect();
    let own: Vec<&KeySpec> = OWN.iter().collect();
    for (title, keys) in [
        ("Broker keys", kafka),
        ("Keys of our own", own),
        ("Topic keys", topic),
        ("Group and client metrics keys", group),
    ] {
        out.push_str(&format!("### {title}\n\n"));
        out.push_str("| key | type | default | status | at run time | what it does |\n");
        out.push_str("|---|---|---|---|---|---|\n");
        for spec in keys {
            let status = match spec.status {
                Status::Honoured => "honoured",
                Status::Accepted => "accepted without effect",
                Status::Refused => "refused",
            };
            let default = match spec.default {
                None => "null".to_owned(),
                Some("") => "empty".to_owned(),
                Some(text) => format!("`{text}`"),
            };
            out.push_str(&format!(
                "| `{}` | {} | {} | {} | {} | {} |\n",
                spec.name,
                spec.kind.name().to_lowercase(),
                default,
                status,
                if title == "Topic keys" || alterable(spec) {
                    "yes"
                } else {
                    "no"
                },
                spec.documentation,
            ));
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_sorted_and_every_default_allowed() {
        for area in [
            server::SERVER,
            logs::LOGS,
            coordinators::COORDINATORS,
            security::SECURITY,
            OWN,
            TOPIC,
            GROUP,
            CLIENT_METRICS,
        ] {
            for pair in area.windows(2) {
                assert!(
                    pair[0].name < pair[1].name,
                    "{} before {}",
                    pair[0].name,
                    pair[1].name
                );
            }
            for spec in area {
                let _ = spec.default_value();
                assert!(spec.documentation.ends_with('.'), "{}", spec.name);
            }
        }
        assert_eq!(TOPIC.len(), 33);
        assert_eq!(broker_keys().count(), 340 + OWN.len());
    }

    #[test]
    fn the_markdown_has_a_row_for_every_key() {
        let text = markdown();
        for spec in broker_keys().chain(TOPIC).chain(GROUP) {
            assert!(
                text.contains(&format!("| `{}` | ", spec.name)),
                "{}",
                spec.name
            );
        }
        assert!(text.contains(
            "| `num.partitions` | int | `1` | honoured | no | Partitions of a topic that is created"
        ));
        assert!(text.contains("| `num.io.threads` | int | `8` | accepted without effect |"));
    }
}
