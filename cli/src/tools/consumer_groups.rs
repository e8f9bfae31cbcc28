//! `consumer-groups`: lists, describes, resets and deletes consumer groups. Main thread; the tables lie in `group_report`, the arithmetic of resets in `offset_reset`.

mod delete;
mod reset;

use std::borrow::Cow;
use std::collections::BTreeMap;

use bench::context::log_line;
use clap::{Arg, ArgMatches};
use net::client::{Target, error_of};
use net::kafka::describe_groups::DescribeGroupsRequest;
use net::kafka::error::ErrorCode;
use net::kafka::list_groups::ListGroupsRequest;
use net::kafka::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestGroup};

use super::admin::{Admin, AdminError, TopicPartition, show};
use super::args::{self, Found, flag, long, many, maybe, text};
use super::group_report::{self, GroupState, MemberRow, OffsetRow};
use super::progress::Progress;
use super::regex::Whole;
use super::{Help, Outcome, Stop, Tool, java, out};

/// The tool.
pub const TOOL: Tool = Tool {
    name: "consumer-groups",
    about: "This tool helps to list all consumer groups, describe a consumer group, delete consumer group info, or reset consumer group offsets.",
    options,
    run,
    help: Help::Fails,
};

const ACTIONS: [&str; 6] = [
    "list",
    "describe",
    "delete",
    "reset-offsets",
    "delete-offsets",
    "validate-regex",
];
const SCENARIOS: [&str; 8] = [
    "to-offset",
    "to-datetime",
    "by-duration",
    "to-earliest",
    "to-latest",
    "to-current",
    "shift-by",
    "from-file",
];
/// Requests with topic ids begin at version 10; names are spoken up to here.
const NAMES_VERSION_MAX: i16 = 9;

fn options() -> Vec<Arg> {
    vec![
        text(
            "bootstrap-server",
            "server to connect to",
            "REQUIRED (for all options except for --validate-regex): The server(s) to connect to.",
        ),
        many(
            "group",
            "consumer group",
            "The consumer group we wish to act on.",
        ),
        many(
            "topic",
            "topic",
            "The topic to reset or whose offsets to delete, also as topic1:0,1,2.",
        ),
        flag(
            "all-topics",
            "Consider all topics assigned to a group in the `reset-offsets` process.",
        ),
        flag("list", "List all consumer groups."),
        flag(
            "describe",
            "Describe consumer group and list offset lag (number of messages not yet processed).",
        ),
        flag("all-groups", "Apply to all consumer groups."),
        flag(
            "delete",
            "Delete consumer groups with their offsets and ownership information.",
        ),
        long(
            "timeout",
            "timeout (ms)",
            "How long the tool may take to learn about a group; default 30000.",
        ),
        text(
            "command-config",
            "command config property file",
            "A file of admin client properties.",
        ),
        flag(
            "reset-offsets",
            "Reset offsets of consumer groups, which should be inactive.",
        ),
        flag("delete-offsets", "Delete offsets of a consumer group."),
        flag(
            "dry-run",
            "Only show results without executing changes on Consumer Groups.",
        ),
        flag("execute", "Execute operation."),
        flag("export", "Export operation execution to a CSV file."),
        long("to-offset", "offset", "Reset offsets to a specific offset."),
        text(
            "from-file",
            "path to CSV file",
            "Reset offsets to values defined in CSV file.",
        ),
        text(
            "to-datetime",
            "datetime",
            "Reset offsets to offset from datetime. Format: 'YYYY-MM-DDThh:mm:ss.sss'",
        ),
        text(
            "by-duration",
            "duration",
            "Reset offsets to offset by duration from current timestamp. Format: 'PnDTnHnMnS'",
        ),
        flag("to-earliest", "Reset offsets to earliest offset."),
        flag("to-latest", "Reset offsets to latest offset."),
        flag("to-current", "Reset offsets to current offset."),
        long(
            "shift-by",
            "number-of-offsets",
            "Reset offsets shifting current offset by 'n', where 'n' can be positive or negative.",
        ),
        flag("members", "Describe members of the group."),
        flag(
            "verbose",
            "Provide additional information, if any, when describing the group.",
        ),
        flag(
            "offsets",
            "Describe the group and list all topic partitions with their offset lag. The default.",
        ),
        maybe(
            "state",
            "String",
            "With --describe, the state of the group; with --list, the states of all groups, or groups of these states.",
        ),
        maybe(
            "type",
            "String",
            "With --list, the types of all groups, or groups of these types.",
        ),
        text(
            "validate-regex",
            "regex",
            "Validate that the syntax of the provided regular expression is valid.",
        ),
    ]
}

/// How an action ends that failed after the options were fine: printed on standard output, exit code 0.
enum Failure {
    /// Kafka's "Executing consumer group command failed due to ...".
    Error(String),
    /// Wrong options that only show now: usage, exit code 1.
    Usage(String),
}

impl From<AdminError> for Failure {
    /// The error as the message of Java's `ExecutionException`.
    fn from(error: AdminError) -> Failure {
        Failure::Error(error.java())
    }
}

type Done<T = ()> = Result<T, Failure>;

/// An error that Java wraps once more.
fn wrapped(error: AdminError) -> Failure {
    Failure::Error(format!(
        "java.util.concurrent.ExecutionException: {}",
        error.java()
    ))
}

fn run(found: &ArgMatches) -> Outcome {
    check_options(found)?;
    if let Some(regex) = found.text("validate-regex") {
        out::line(&match Whole::new(regex) {
            Ok(_) => format!("The regular expression `{regex}` is valid."),
            Err(why) => format!("The regular expression `{regex}` is invalid: {why}."),
        });
        return Ok(());
    }
    let config = Admin::config(found)?;
    let timeout_ms = found.long("timeout").unwrap_or(30_000).max(0) as u64;
    let admin = match Admin::with_config(&config, "adminclient-1", Some(timeout_ms)) {
        Err(Stop::Failed(why)) => {
            print_error(
                "Executing consumer group command failed due to Failed to create new KafkaAdminClient",
            );
            eprintln!("{why}");
            return Ok(());
        }
        made => made?,
    };
    let mut groups = Groups { admin, found };
    let done = match ACTIONS.into_iter().find(|action| found.has(action)) {
        Some("list") => groups.list(),
        Some("describe") => groups.describe(),
        Some("delete") => groups.delete(),
        Some("reset-offsets") => groups.reset(),
        _ => groups.delete_offsets(),
    };
    match done {
        Ok(()) => Ok(()),
        Err(Failure::Usage(why)) => Err(Stop::Usage(why)),
        Err(Failure::Error(why)) => {
            print_error(&format!(
                "Executing consumer group command failed due to {why}"
            ));
            Ok(())
        }
    }
}

fn print_error(message: &str) {
    out::line(&format!("\nError: {message}"));
}

fn check_options(found: &ArgMatches) -> Outcome {
    let wrong = |why: String| Err(Stop::Usage(why));
    let unavailable = |name: &str| {
        Err(Stop::Failed(format!(
            "Option(s) [{name}] are unavailable given other options on the command line"
        )))
    };
    for name in ["members", "verbose", "offsets"] {
        if found.has(name) && !found.has("describe") {
            return unavailable(name);
        }
    }
    if found.has("state") && !found.has("describe") && !found.has("list") {
        return unavailable("state");
    }
    if found.has("type") && !found.has("list") {
        return unavailable("type");
    }
    if !found.has("validate-regex") {
        args::require(found, &["bootstrap-server"])?;
    }
    let scope = "[group], [all-groups]";
    let no_scope = !found.has("group") && !found.has("all-groups");
    if found.has("describe") {
        if no_scope {
            return wrong(format!(
                "Option [describe] takes one of these options: {scope}"
            ));
        }
        if ["members", "offsets", "state"]
            .iter()
            .filter(|name| found.has(name))
            .count()
            > 1
        {
            return wrong("Option [describe] takes at most one of these options: [members], [offsets], [state]".to_owned());
        }
        if found.text("state").is_some_and(|state| !state.is_empty()) {
            return wrong("Option [describe] does not take a value for [state]".to_owned());
        }
    }
    if found.has("delete") {
        if no_scope {
            return wrong(format!(
                "Option [delete] takes one of these options: {scope}"
            ));
        }
        if found.has("topic") {
            return wrong("The consumer does not support topic-specific offset deletion from a consumer group.".to_owned());
        }
    }
    if found.has("delete-offsets") && (!found.has("group") || !found.has("topic")) {
        return wrong(
            "Option [delete-offsets] takes the following options: [group], [topic]".to_owned(),
        );
    }
    if found.has("reset-offsets") {
        if found.has("dry-run") && found.has("execute") {
            return wrong(
                "Option [reset-offsets] only accepts one of [execute] and [dry-run]".to_owned(),
            );
        }
        if !found.has("dry-run") && !found.has("execute") {
            eprintln!(
                "WARN: No action will be performed as the --execute option is missing. In version 5.0, this command will require either --dry-run or --execute to be specified. You should add the --dry-run option explicitly if you are scripting this command and want to keep the current default behavior without prompting."
            );
        }
        if no_scope {
            return wrong(format!(
                "Option [reset-offsets] takes one of these options: {scope}"
            ));
        }
        for scenario in SCENARIOS {
            let others: Vec<&str> = SCENARIOS
                .into_iter()
                .filter(|other| *other != scenario)
                .collect();
            args::exclude(found, scenario, &others)?;
        }
    }
    args::exclude(found, "group", &["all-groups"])?;
    args::exclude(found, "group", &["list"])?;
    args::exclude(found, "topic", &["list", "describe"])?;
    if ACTIONS.iter().filter(|action| found.has(action)).count() != 1 {
        return wrong(
            "Command must include exactly one action: --list, --describe, --delete, --reset-offsets, --delete-offsets, --validate-regex"
                .to_owned(),
        );
    }
    Ok(())
}

/// A group as the coordinator describes it.
struct Description {
    state: GroupState,
    assignor: String,
    coordinator: (i32, String, i32),
    members: Vec<Member>,
}

struct Member {
    id: String,
    instance: String,
    host: String,
    client: String,
    partitions: Vec<TopicPartition>,
}

/// A committed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Committed {
    offset: i64,
    leader_epoch: Option<i32>,
}

/// A row of a listing.
struct Listed {
    id: String,
    state: String,
    kind: String,
}

struct Groups<'a> {
    admin: Admin,
    found: &'a ArgMatches,
}

impl Groups<'_> {
    /// All consumer groups, in the order of Java's map.
    fn listing(&mut self, states: &[String], types: &[String]) -> Done<Vec<Listed>> {
        let request = ListGroupsRequest {
            states_filter: states
                .iter()
                .map(|state| Cow::Borrowed(state.as_str()))
                .collect(),
            types_filter: types
                .iter()
                .map(|kind| Cow::Borrowed(kind.as_str()))
                .collect(),
        };
        let mut listed: Vec<Listed> = Vec::new();
        for broker in self.admin.brokers().map_err(wrapped)? {
            let part: Vec<Listed> = self
                .admin
                .client
                .retry(|client| {
                    client.call(
                        Target::Broker(broker.id),
                        &request,
                        |response, _| match error_of(response.error_code) {
                            ErrorCode::None => Ok(response
                                .groups
                                .into_iter()
                                .filter(|group| matches!(&*group.protocol_type, "" | "consumer"))
                                .map(|group| Listed {
                                    id: group.group_id.into_owned(),
                                    state: group.group_state.into_owned(),
                                    kind: group.group_type.into_owned(),
                                })
                                .collect()),
                            code => Err((code, None)),
                        },
                    )
                })
                .map_err(AdminError::from)
                .map_err(wrapped)?;
            listed.extend(part);
        }
        Ok(java::map_order(listed, |group| &group.id))
    }

    fn default_listing(&mut self) -> Done<Vec<String>> {
        let types = ["Classic".to_owned(), "Consumer".to_owned()];
        Ok(self
            .listing(&[], &types)?
            .into_iter()
            .map(|group| group.id)
            .collect())
    }

    fn list(&mut self) -> Done {
        let (with_type, with_state) = (self.found.has("type"), self.found.has("state"));
        if !with_type && !with_state {
            for id in self.default_listing()? {
                out::line(&id);
            }
            return Ok(());
        }
        let types = group_report::parse_types(self.found.text("type").unwrap_or_default())
            .map_err(Failure::Usage)?;
        let states = group_report::parse_states(self.found.text("state").unwrap_or_default())
            .map_err(Failure::Usage)?;
        let listed = self.listing(&states, &types)?;
        let rows: Vec<(&str, &str, &str)> = listed
            .iter()
            .map(|group| (group.id.as_str(), group.kind.as_str(), group.state.as_str()))
            .collect();
        out::text(&group_report::listing(&rows, with_type, with_state));
        Ok(())
    }

    /// The groups that the options name.
    fn chosen(&mut self) -> Done<Vec<String>> {
        if self.found.has("all-groups") {
            return self.default_listing();
        }
        let mut named: Vec<String> = Vec::new();
        for group in self.found.texts("group") {
            if !named.iter().any(|earlier| earlier == group) {
                named.push(group.to_owned());
            }
        }
        Ok(java::map_order(named, |group| group))
    }

    fn describe_one(&mut self, group: &str) -> Result<Description, AdminError> {
        let request = DescribeGroupsRequest {
            groups: vec![Cow::Borrowed(group)],
            include_authorized_operations: false,
        };
        let admin = &mut self.admin;
        let mut coordinator = (-1, String::new(), -1);
        let described = admin.client.retry(|client| {
            let broker = client.coordinator(group)?;
            let target = Target::Broker(broker.id);
            coordinator = (broker.id, broker.host, broker.port);
            client.call(target, &request, |response, _| {
                let Some(found) = response.groups.into_iter().next() else {
                    return Err((ErrorCode::UnknownServerError, None));
                };
                match error_of(found.error_code) {
                    ErrorCode::None => Ok((
                        found.protocol_type.into_owned(),
                        Description {
                            state: GroupState::parse(&found.group_state),
                            assignor: found.protocol_data.into_owned(),
                            coordinator: (-1, String::new(), -1),
                            members: found
                                .members
                                .into_iter()
                                .map(|member| Member {
                                    id: member.member_id.into_owned(),
                                    instance: member
                                        .group_instance_id
                                        .map(Cow::into_owned)
                                        .unwrap_or_default(),
                                    host: member.client_host.into_owned(),
                                    client: member.client_id.into_owned(),
                                    partitions: group_report::parse_assignment(
                                        &member.member_assignment,
                                    ),
                                })
                                .collect(),
                        },
                    )),
                    code => Err((code, found.error_message.map(Cow::into_owned))),
                }
            })
        })?;
        let (protocol, description) = described;
        if !protocol.is_empty() && protocol != "consumer" {
            return Err(AdminError {
                code: None,
                illegal: true,
                message: format!("GroupId {group} is not a consumer group ({protocol})."),
            });
        }
        Ok(Description {
            coordinator,
            ..description
        })
    }

    fn committed(
        &mut self,
        group: &str,
    ) -> Result<BTreeMap<TopicPartition, Committed>, AdminError> {
        let request = OffsetFetchRequest {
            group_id: Cow::Borrowed(group),
            topics: None,
            groups: vec![OffsetFetchRequestGroup {
                group_id: Cow::Borrowed(group),
                topics: None,
                ..Default::default()
            }],
            require_stable: false,
        };
        Ok(self.admin.client.retry(|client| {
            let target = Target::Broker(client.coordinator(group)?.id);
            client.call_up_to(target, &request, NAMES_VERSION_MAX, |response, version| {
                let mut offsets = BTreeMap::new();
                let mut add = |topic: &str, partition: i32, offset: i64, epoch: i32, error: i16| {
                    if error == 0 && offset >= 0 {
                        let leader_epoch = (epoch >= 0).then_some(epoch);
                        offsets.insert(
                            (topic.to_owned(), partition),
                            Committed {
                                offset,
                                leader_epoch,
                            },
                        );
                    } else if error != 0 {
                        let partition = show(&(topic.to_owned(), partition));
                        log_line(
                            "WARN",
                            &format!(
                                "Skipping return offset for {partition} due to error {}.",
                                error_of(error).name()
                            ),
                        );
                    }
                };
                let code = if version >= 8 {
                    let Some(found) = response.groups.first() else {
                        return Err((ErrorCode::UnknownServerError, None));
                    };
                    for topic in &found.topics {
                        for p in &topic.partitions {
                            add(
                                &topic.name,
                                p.partition_index,
                                p.committed_offset,
                                p.committed_leader_epoch,
                                p.error_code,
                            );
                        }
                    }
                    found.error_code
                } else {
                    for topic in &response.topics {
                        for p in &topic.partitions {
                            add(
                                &topic.name,
                                p.partition_index,
                                p.committed_offset,
                                p.committed_leader_epoch,
                                p.error_code,
                            );
                        }
                    }
                    response.error_code
                };
                match error_of(code) {
                    ErrorCode::None => Ok(offsets),
                    code => Err((code, None)),
                }
            })
        })?)
    }

    fn describe(&mut self) -> Done {
        let ids = self.chosen()?;
        let verbose = self.found.has("verbose");
        let mut described: BTreeMap<String, Description> = BTreeMap::new();
        let mut progress = Progress::new(ids.len(), "groups");
        for id in ids {
            let description = self.describe_one(&id)?;
            described.insert(id, description);
            progress.step();
        }
        if self.found.has("state") {
            for (id, group) in &described {
                if group_report::announce(id, group.state, Some(1)) {
                    let (broker, host, port) = &group.coordinator;
                    let coordinator = format!("{host}:{port}  ({broker})");
                    let count = group.members.len();
                    out::text(&group_report::state(
                        id,
                        &coordinator,
                        &group.assignor,
                        group.state,
                        count,
                        verbose,
                    ));
                }
            }
            return Ok(());
        }
        if self.found.has("members") {
            for (id, group) in &described {
                let rows: Vec<MemberRow> = group
                    .members
                    .iter()
                    .map(|member| MemberRow {
                        group: id.clone(),
                        consumer: member.id.clone(),
                        instance: member.instance.clone(),
                        host: member.host.clone(),
                        client: member.client.clone(),
                        partitions: member.partitions.clone(),
                    })
                    .collect();
                let fits = group_report::announce(id, group.state, Some(rows.len()));
                out::text(&group_report::members(&rows, fits, verbose));
            }
            return Ok(());
        }
        let mut tables = Vec::new();
        for (id, group) in &described {
            tables.push((id, group.state, self.offset_rows(id, group)?));
        }
        for (id, state, rows) in tables {
            if group_report::announce(id, state, Some(rows.len())) {
                out::text(&group_report::offsets(&rows, verbose));
            }
        }
        Ok(())
    }

    fn offset_rows(&mut self, id: &str, group: &Description) -> Done<Vec<OffsetRow>> {
        let committed = self.committed(id).map_err(wrapped)?;
        let mut members: Vec<&Member> = group
            .members
            .iter()
            .filter(|member| !member.partitions.is_empty())
            .collect();
        members.sort_by_key(|member| std::cmp::Reverse(member.partitions.len()));
        let mut rows = Vec::new();
        let mut assigned: Vec<&TopicPartition> = Vec::new();
        for member in members {
            assigned.extend(&member.partitions);
            let who = [
                member.id.as_str(),
                member.host.as_str(),
                member.client.as_str(),
            ];
            rows.extend(self.partition_rows(id, &member.partitions, &committed, who)?);
        }
        let rest: Vec<TopicPartition> = committed
            .keys()
            .filter(|partition| !assigned.contains(partition))
            .cloned()
            .collect();
        if !rest.is_empty() {
            rows.extend(self.partition_rows(id, &rest, &committed, ["-", "-", "-"])?);
        }
        Ok(rows)
    }

    fn partition_rows(
        &mut self,
        group: &str,
        partitions: &[TopicPartition],
        committed: &BTreeMap<TopicPartition, Committed>,
        who: [&str; 3],
    ) -> Done<Vec<OffsetRow>> {
        let ends = self.admin.list_offsets(partitions, -1).map_err(wrapped)?;
        let mut sorted = partitions.to_vec();
        sorted.sort();
        let mut rows = Vec::with_capacity(sorted.len());
        for partition in sorted {
            let end = match ends.get(&partition) {
                Some(Ok(end)) => Some(*end),
                // A partition without a leader has no end that could be told.
                Some(Err(AdminError {
                    code: Some(ErrorCode::LeaderNotAvailable),
                    ..
                }))
                | None => None,
                Some(Err(error)) => return Err(wrapped(error.clone())),
            };
            let at = committed.get(&partition);
            rows.push(OffsetRow {
                group: group.to_owned(),
                topic: partition.0,
                partition: partition.1,
                leader_epoch: at.and_then(|at| at.leader_epoch),
                offset: at.map(|at| at.offset),
                end,
                consumer: who[0].to_owned(),
                host: who[1].to_owned(),
                client: who[2].to_owned(),
            });
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(arguments: &[&str]) -> Outcome {
        let all = [&["--bootstrap-server", "h:1"], arguments].concat();
        check_options(
            &super::super::command(&TOOL)
                .no_binary_name(true)
                .get_matches_from(all),
        )
    }

    #[test]
    fn options_are_checked_in_kafkas_words() {
        let usage = |text: &str| Err(Stop::Usage(text.to_owned()));
        assert_eq!(outcome(&["--list"]), Ok(()));
        assert_eq!(outcome(&["--list", "--state", "--type"]), Ok(()));
        assert_eq!(
            outcome(&["--describe"]),
            usage("Option [describe] takes one of these options: [group], [all-groups]")
        );
        assert_eq!(
            outcome(&["--describe", "--group", "g", "--members", "--state"]),
            usage(
                "Option [describe] takes at most one of these options: [members], [offsets], [state]"
            )
        );
        assert_eq!(
            outcome(&[
                "--reset-offsets",
                "--group",
                "g",
                "--execute",
                "--to-earliest",
                "--to-latest"
            ]),
            usage("Option \"[to-earliest]\" can't be used with option \"[to-latest]\"")
        );
        assert_eq!(
            outcome(&["--list", "--group", "g"]),
            usage("Option \"[group]\" can't be used with option \"[list]\"")
        );
        assert_eq!(
            outcome(&["--list", "--members"]),
            Err(Stop::Failed(
                "Option(s) [members] are unavailable given other options on the command line"
                    .to_owned()
            ))
        );
        assert!(
            matches!(outcome(&[]), Err(Stop::Usage(why)) if why.starts_with("Command must include exactly one action"))
        );
    }
}
