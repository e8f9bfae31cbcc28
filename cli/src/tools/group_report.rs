//! The tables of consumer-groups, in Kafka's columns. Main thread; knows no broker.

use std::collections::BTreeMap;
use std::fmt::Write;

use net::wire::Reader;

use super::admin::TopicPartition;
use super::out;

/// The state of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupState {
    /// Waiting for members to join.
    PreparingRebalance,
    /// Waiting for the assignment.
    CompletingRebalance,
    /// Working.
    Stable,
    /// Gone, or never there.
    Dead,
    /// Without members.
    Empty,
    /// Assigning, in the newer protocol.
    Assigning,
    /// Handing over, in the newer protocol.
    Reconciling,
    /// Something else.
    Unknown,
}

impl GroupState {
    const NAMED: [(GroupState, &'static str); 7] = [
        (GroupState::PreparingRebalance, "PreparingRebalance"),
        (GroupState::CompletingRebalance, "CompletingRebalance"),
        (GroupState::Stable, "Stable"),
        (GroupState::Dead, "Dead"),
        (GroupState::Empty, "Empty"),
        (GroupState::Assigning, "Assigning"),
        (GroupState::Reconciling, "Reconciling"),
    ];

    /// By name, whatever its case.
    pub fn parse(name: &str) -> GroupState {
        let found = GroupState::NAMED
            .iter()
            .find(|(_, known)| known.eq_ignore_ascii_case(name.trim()));
        found.map_or(GroupState::Unknown, |(state, _)| *state)
    }

    /// Kafka's name.
    pub fn name(self) -> &'static str {
        GroupState::NAMED
            .iter()
            .find(|(state, _)| *state == self)
            .map_or("Unknown", |(_, name)| name)
    }
}

/// States as `--state` lists them; none for all. The error is Kafka's sentence.
pub fn parse_states(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let states: Vec<GroupState> = text.split(',').map(GroupState::parse).collect();
    if states.contains(&GroupState::Unknown) {
        let valid: Vec<&str> = GroupState::NAMED.iter().map(|(_, name)| *name).collect();
        return Err(format!(
            "Invalid state list '{text}'. Valid states are: {}",
            valid.join(", ")
        ));
    }
    Ok(states
        .into_iter()
        .map(|state| state.name().to_owned())
        .collect())
}

/// Types as `--type` lists them; none for all. The error is Kafka's sentence.
pub fn parse_types(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let parse = |name: &str| match name.trim().to_ascii_lowercase().as_str() {
        "classic" => Some("Classic".to_owned()),
        "consumer" => Some("Consumer".to_owned()),
        _ => None,
    };
    text.split(',')
        .map(parse)
        .collect::<Option<Vec<String>>>()
        .ok_or_else(|| format!("Invalid types list '{text}'. Valid types are: Consumer, Classic"))
}

/// The partitions of a member's assignment in the consumer protocol; none when it is not one.
pub fn parse_assignment(bytes: &[u8]) -> Vec<TopicPartition> {
    fn parse(bytes: &[u8]) -> Result<Vec<TopicPartition>, net::wire::DecodeError> {
        let mut partitions = Vec::new();
        let mut reader = Reader::new(bytes);
        reader.i16()?;
        for _ in 0..reader.i32()? {
            let topic = reader.string(false)?.into_owned();
            for _ in 0..reader.i32()? {
                partitions.push((topic.clone(), reader.i32()?));
            }
        }
        Ok(partitions)
    }
    let mut partitions = parse(bytes).unwrap_or_default();
    partitions.sort();
    partitions.dedup();
    partitions
}

/// Says what there is to say of a group's state, and whether its table follows. `rows` is None for an unknown group.
pub fn announce(group: &str, state: GroupState, rows: Option<usize>) -> bool {
    let Some(rows) = rows else {
        out::line(&format!(
            "\nError: The consumer group '{group}' does not exist."
        ));
        return false;
    };
    match state {
        GroupState::Dead => out::line(&format!(
            "\nError: Consumer group '{group}' does not exist."
        )),
        GroupState::Empty => eprintln!("\nConsumer group '{group}' has no active members."),
        GroupState::PreparingRebalance
        | GroupState::CompletingRebalance
        | GroupState::Assigning
        | GroupState::Reconciling => {
            eprintln!("\nWarning: Consumer group '{group}' is rebalancing.")
        }
        GroupState::Stable | GroupState::Unknown => {}
    }
    state != GroupState::Dead && rows > 0
}

/// The table of `--list --state` and `--list --type`. Rows are group, type, state.
pub fn listing(rows: &[(&str, &str, &str)], with_type: bool, with_state: bool) -> String {
    let width = rows
        .iter()
        .map(|(group, ..)| group.len())
        .max()
        .unwrap_or(0)
        .max(15)
        + 10;
    let mut text = String::new();
    let mut line = |group: &str, kind: &str, state: &str| {
        let _ = write!(text, "{group:<width$}");
        if with_type {
            let _ = write!(text, " {kind:<20}");
        }
        if with_state {
            let _ = write!(text, " {state:<20}");
        }
        text.push('\n');
    };
    line("GROUP", "TYPE", "STATE");
    for (group, kind, state) in rows {
        line(group, type_name(kind), GroupState::parse(state).name());
    }
    text
}

/// A group's type as Kafka's tool writes it, whatever its case on the wire.
fn type_name(wire: &str) -> &'static str {
    let names = ["Consumer", "Classic", "Share", "Streams"];
    let found = names
        .into_iter()
        .find(|name| name.eq_ignore_ascii_case(wire));
    found.unwrap_or("Unknown")
}

/// One partition of a group.
#[derive(Debug, Clone, Default)]
pub struct OffsetRow {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The leader epoch of the committed offset.
    pub leader_epoch: Option<i32>,
    /// The committed offset.
    pub offset: Option<i64>,
    /// The end of the log.
    pub end: Option<i64>,
    /// The member's id.
    pub consumer: String,
    /// The member's host.
    pub host: String,
    /// The member's client id.
    pub client: String,
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

/// The table of `--describe --offsets`.
pub fn offsets(rows: &[OffsetRow], verbose: bool) -> String {
    let width = |of: fn(&OffsetRow) -> &str| {
        rows.iter()
            .map(|row| of(row).len())
            .max()
            .unwrap_or(0)
            .max(15)
    };
    let (group_width, topic_width) = (width(|row| &row.group), width(|row| &row.topic));
    let (consumer_width, host_width) = (width(|row| &row.consumer), width(|row| &row.host));
    let mut text = String::new();
    let mut line = |cells: [&str; 10]| {
        let [
            group,
            topic,
            partition,
            epoch,
            offset,
            end,
            lag,
            consumer,
            host,
            client,
        ] = cells;
        let _ = write!(
            text,
            "\n{group:<group_width$} {topic:<topic_width$} {partition:<10} "
        );
        if verbose {
            let _ = write!(text, "{epoch:<15} ");
        }
        let _ = write!(
            text,
            "{offset:<15} {end:<15} {lag:<15} {consumer:<consumer_width$} {host:<host_width$} {client}"
        );
    };
    line([
        "GROUP",
        "TOPIC",
        "PARTITION",
        "LEADER-EPOCH",
        "CURRENT-OFFSET",
        "LOG-END-OFFSET",
        "LAG",
        "CONSUMER-ID",
        "HOST",
        "CLIENT-ID",
    ]);
    for row in rows {
        let lag = row.offset.zip(row.end).map(|(offset, end)| end - offset);
        line([
            &row.group,
            &row.topic,
            &row.partition.to_string(),
            &or_dash(row.leader_epoch),
            &or_dash(row.offset),
            &or_dash(row.end),
            &or_dash(lag),
            &row.consumer,
            &row.host,
            &row.client,
        ]);
    }
    text.push('\n');
    text
}

/// One member of a group.
#[derive(Debug, Clone, Default)]
pub struct MemberRow {
    /// The group.
    pub group: String,
    /// The member's id.
    pub consumer: String,
    /// Its name, if static; else empty.
    pub instance: String,
    /// Its host.
    pub host: String,
    /// Its client id.
    pub client: String,
    /// What it got, sorted.
    pub partitions: Vec<TopicPartition>,
}

/// `topic:0,1;other:2`.
fn assignment_text(partitions: &[TopicPartition]) -> String {
    if partitions.is_empty() {
        return "-".to_owned();
    }
    let mut topics: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (topic, partition) in partitions {
        topics.entry(topic).or_default().push(partition.to_string());
    }
    let mut parts: Vec<String> = topics
        .into_iter()
        .map(|(topic, partitions)| format!("{topic}:{}", partitions.join(",")))
        .collect();
    parts.sort();
    parts.join(";")
}

/// The table of `--describe --members`. Columns widen only if `fits`; the header is printed in any case.
pub fn members(rows: &[MemberRow], fits: bool, verbose: bool) -> String {
    let measured = if fits { rows } else { &[] };
    let width = |of: fn(&MemberRow) -> usize, least: usize| {
        measured.iter().map(of).max().unwrap_or(0).max(least)
    };
    let group_width = width(|row| row.group.len(), 15);
    let consumer_width = width(|row| row.consumer.len(), 15);
    let instance_width = width(|row| row.instance.len(), 17);
    let host_width = width(|row| row.host.len(), 15);
    let client_width = width(|row| row.client.len(), 15);
    let current_width = width(|row| assignment_text(&row.partitions).len(), 20);
    let with_instance = measured.iter().any(|row| !row.instance.is_empty());
    let mut text = "\n".to_owned();
    let mut line = |cells: [&str; 6], more: [&str; 4]| {
        let [group, consumer, instance, host, client, count] = cells;
        let _ = write!(text, "{group:<group_width$} {consumer:<consumer_width$} ");
        if with_instance {
            let _ = write!(text, "{instance:<instance_width$} ");
        }
        let _ = write!(
            text,
            "{host:<host_width$} {client:<client_width$} {count:<15} "
        );
        if verbose {
            let [epoch, current, target_epoch, target] = more;
            let _ = write!(
                text,
                "{epoch:<15} {current:<current_width$} {target_epoch:<15} {target:<20}"
            );
        }
        text.push('\n');
    };
    line(
        [
            "GROUP",
            "CONSUMER-ID",
            "GROUP-INSTANCE-ID",
            "HOST",
            "CLIENT-ID",
            "#PARTITIONS",
        ],
        [
            "CURRENT-EPOCH",
            "CURRENT-ASSIGNMENT",
            "TARGET-EPOCH",
            "TARGET-ASSIGNMENT",
        ],
    );
    for row in rows {
        line(
            [
                &row.group,
                &row.consumer,
                &row.instance,
                &row.host,
                &row.client,
                &row.partitions.len().to_string(),
            ],
            ["-", &assignment_text(&row.partitions), "-", "-"],
        );
    }
    text
}

/// The table of `--describe --state`.
pub fn state(
    group: &str,
    coordinator: &str,
    assignor: &str,
    state: GroupState,
    members: usize,
    verbose: bool,
) -> String {
    let (group_width, coordinator_width) = (group.len().max(15), coordinator.len().max(25));
    let assignor = if assignor.is_empty() { "-" } else { assignor };
    let mut text = String::new();
    let mut line = |cells: [&str; 7]| {
        let [group, coordinator, assignor, state, epoch, target, members] = cells;
        let _ = write!(
            text,
            "\n{group:<group_width$} {coordinator:<coordinator_width$} {assignor:<20} {state:<20} "
        );
        if verbose {
            let _ = write!(text, "{epoch:<15} {target:<25} ");
        }
        text.push_str(members);
    };
    line([
        "GROUP",
        "COORDINATOR (ID)",
        "ASSIGNMENT-STRATEGY",
        "STATE",
        "GROUP-EPOCH",
        "TARGET-ASSIGNMENT-EPOCH",
        "#MEMBERS",
    ]);
    line([
        group,
        coordinator,
        assignor,
        state.name(),
        "-",
        "-",
        &members.to_string(),
    ]);
    text.push('\n');
    text
}

/// The table of `--delete-offsets`: a partition below zero stands for its whole topic.
pub fn deletions(results: &BTreeMap<TopicPartition, Result<(), String>>) -> String {
    let topic_width = results
        .keys()
        .map(|(topic, _)| topic.len())
        .max()
        .unwrap_or(0)
        .max(15);
    let mut text = format!(
        "\n{:<topic_width$} {:<10} {:<15}",
        "TOPIC", "PARTITION", "STATUS"
    );
    let mut rows: Vec<(&TopicPartition, &Result<(), String>)> = results.iter().collect();
    rows.sort_by_key(|((topic, partition), _)| format!("{topic}{partition}"));
    for ((topic, partition), outcome) in rows {
        let partition = if *partition >= 0 {
            partition.to_string()
        } else {
            "-".to_owned()
        };
        let status = match outcome {
            Ok(()) => "Successful".to_owned(),
            Err(why) => format!("Error: {why}"),
        };
        let _ = write!(text, "\n{topic:<topic_width$} {partition:<10} {status:<15}");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_print_in_kafkas_columns() {
        let row = OffsetRow {
            group: "g".to_owned(),
            topic: "a-topic-name-of-20-c".to_owned(),
            partition: 0,
            leader_epoch: Some(3),
            offset: Some(5),
            end: Some(9),
            consumer: "-".to_owned(),
            host: "-".to_owned(),
            client: "-".to_owned(),
        };
        let unknown = OffsetRow {
            partition: 1,
            offset: None,
            end: None,
            leader_epoch: None,
            ..row.clone()
        };
        assert_eq!(
            offsets(&[row, unknown], false),
            "\nGROUP           TOPIC                PARTITION  CURRENT-OFFSET  LOG-END-OFFSET  LAG             CONSUMER-ID     HOST            CLIENT-ID\
             \ng               a-topic-name-of-20-c 0          5               9               4               -               -               -\
             \ng               a-topic-name-of-20-c 1          -               -               -               -               -               -\n"
        );
        assert!(offsets(&[], true).contains("PARTITION  LEADER-EPOCH    CURRENT-OFFSET"));
    }

    #[test]
    fn members_print_their_assignment_when_asked() {
        let row = MemberRow {
            group: "g".to_owned(),
            consumer: "c".to_owned(),
            instance: String::new(),
            host: "/h".to_owned(),
            client: "x".to_owned(),
            partitions: vec![
                ("a".to_owned(), 0),
                ("a".to_owned(), 2),
                ("b".to_owned(), 1),
            ],
        };
        let text = members(std::slice::from_ref(&row), true, true);
        assert!(text.starts_with("\nGROUP           CONSUMER-ID     HOST            CLIENT-ID       #PARTITIONS     CURRENT-EPOCH   CURRENT-ASSIGNMENT   TARGET-EPOCH    TARGET-ASSIGNMENT   \n"));
        assert!(text.contains(" 3               -               a:0,2;b:1            -               -                   \n"));
        let named = MemberRow {
            instance: "i".to_owned(),
            ..row
        };
        assert!(members(&[named], true, false).contains("GROUP-INSTANCE-ID"));
        assert_eq!(
            members(&[], false, false),
            "\nGROUP           CONSUMER-ID     HOST            CLIENT-ID       #PARTITIONS     \n"
        );
    }

    #[test]
    fn a_state_prints_its_coordinator() {
        assert_eq!(
            state("g", "h:9  (1)", "", GroupState::Empty, 0, false),
            "\nGROUP           COORDINATOR (ID)          ASSIGNMENT-STRATEGY  STATE                #MEMBERS\
             \ng               h:9  (1)                  -                    Empty                0\n"
        );
    }

    #[test]
    fn listings_and_deletions() {
        assert_eq!(
            listing(&[("g", "classic", "")], true, true),
            format!(
                "{:<25} {:<20} {:<20}\n{:<25} {:<20} {:<20}\n",
                "GROUP", "TYPE", "STATE", "g", "Classic", "Unknown"
            )
        );
        let results = BTreeMap::from([
            (("t".to_owned(), 0), Ok(())),
            (("u".to_owned(), -1), Err("no".to_owned())),
        ]);
        assert_eq!(
            deletions(&results),
            "\nTOPIC           PARTITION  STATUS         \nt               0          Successful     \nu               -          Error: no      \n"
        );
    }

    #[test]
    fn states_and_types_are_read_whatever_their_case() {
        assert_eq!(
            parse_states("stable, Empty"),
            Ok(vec!["Stable".to_owned(), "Empty".to_owned()])
        );
        assert_eq!(parse_states(""), Ok(Vec::new()));
        assert!(
            parse_states("odd")
                .unwrap_err()
                .starts_with("Invalid state list 'odd'. Valid states are: ")
        );
        assert_eq!(parse_types("CLASSIC"), Ok(vec!["Classic".to_owned()]));
        assert!(parse_types("share").is_err());
    }

    #[test]
    fn an_assignment_is_read_and_rubbish_is_none() {
        let bytes = [
            0, 0, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff,
            0xff,
        ];
        assert_eq!(
            parse_assignment(&bytes),
            [("t".to_owned(), 0), ("t".to_owned(), 1)]
        );
        assert_eq!(parse_assignment(&[]), []);
        assert_eq!(parse_assignment(&[0, 0, 0x7f, 0xff, 0xff, 0xff]), []);
    }
}
