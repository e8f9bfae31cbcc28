//! Kafka's command-line tools: their table, and what all of them share: parsing, help, exit codes. Runs on the main thread; each tool's own file knows its options and its output.

mod admin;
pub mod args;
mod broker_api_versions;
mod configs;
mod console_consumer;
mod console_producer;
mod consumer_groups;
mod consumer_perf_test;
mod delete_records;
mod dump_log;
mod e2e_latency;
mod formatter;
mod get_offsets;
mod group_report;
pub mod java;
mod kafka_errors;
mod line_reader;
mod log_dirs;
mod offset_reset;
pub mod out;
mod producer_perf_test;
mod progress;
mod regex;
mod topic_choice;
mod topics;

use std::process::ExitCode;

use bench::{kafka_config, properties};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

/// Why a tool ends early.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// The options are wrong: this message and the usage go to standard error, exit code 1.
    Usage(String),
    /// Something failed: this message goes to standard error, exit code 1.
    Failed(String),
    /// Everything is said already; this is the exit code.
    Quiet(u8),
}

impl From<bench::Failure> for Stop {
    fn from(failure: bench::Failure) -> Stop {
        Stop::Failed(failure.0)
    }
}

/// How a tool ends.
pub type Outcome = Result<(), Stop>;

/// What a tool does with no arguments and with `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Help {
    /// As nearly all of Kafka's: help to standard error, exit code 1.
    Fails,
    /// As kafka-producer-perf-test: to standard output; no arguments exit with 0, `--help` with 1.
    Prints,
}

/// One of Kafka's tools.
pub struct Tool {
    /// Its name without `kafka-`.
    pub name: &'static str,
    /// One sentence, printed above the help.
    pub about: &'static str,
    /// Its options.
    pub options: fn() -> Vec<Arg>,
    /// What it does.
    pub run: fn(&ArgMatches) -> Outcome,
    /// How it answers `--help`.
    pub help: Help,
}

/// Every tool, in the order that help lists them.
pub const ALL: &[Tool] = &[
    topics::TOOL,
    configs::TOOL,
    console_producer::TOOL,
    console_consumer::TOOL,
    consumer_groups::TOOL,
    get_offsets::TOOL,
    delete_records::TOOL,
    log_dirs::TOOL,
    broker_api_versions::TOOL,
    dump_log::TOOL,
    producer_perf_test::TOOL,
    consumer_perf_test::TOOL,
    e2e_latency::TOOL,
];

/// The tool of this name.
pub fn find(name: &str) -> Option<&'static Tool> {
    ALL.iter().find(|tool| tool.name == name)
}

/// A tool's clap command. Arguments that belong to no option are taken and ignored, as Kafka's parser does.
pub fn command(tool: &Tool) -> Command {
    Command::new(tool.name)
        .about(tool.about)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args((tool.options)())
        .arg(
            Arg::new("help")
                .long("help")
                .action(ArgAction::SetTrue)
                .help("Print usage information."),
        )
        .arg(
            Arg::new("version")
                .long("version")
                .action(ArgAction::SetTrue)
                .help("Display the version."),
        )
        .arg(Arg::new("ignored").num_args(0..).hide(true))
}

/// Runs a tool with its arguments (without the program's name).
pub fn run(tool: &Tool, arguments: &[String]) -> ExitCode {
    let mut command = command(tool)
        .no_binary_name(true)
        .bin_name(format!("millrace {}", tool.name));
    let asked = arguments.iter().any(|a| a == "--help");
    if arguments.is_empty() || asked {
        let help = format!("{}\n{}", tool.about, options_text(&mut command));
        return match tool.help {
            Help::Fails => {
                eprint!("{help}");
                ExitCode::FAILURE
            }
            Help::Prints => {
                out::text(&help);
                ExitCode::from(u8::from(asked))
            }
        };
    }
    if arguments.iter().any(|a| a == "--version") {
        out::line(&format!("millrace {}", env!("CARGO_PKG_VERSION")));
        return ExitCode::SUCCESS;
    }
    let outcome = match command.try_get_matches_from_mut(arguments) {
        Ok(found) => (tool.run)(&found),
        Err(error) => Err(Stop::Usage(parse_failure(&error))),
    };
    out::flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Usage(message)) => {
            eprint!("{message}\n{}", options_text(&mut command));
            ExitCode::FAILURE
        }
        Err(Stop::Failed(message)) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
        Err(Stop::Quiet(code)) => ExitCode::from(code),
    }
}

fn options_text(command: &mut Command) -> String {
    let help = command.render_help().to_string();
    match help.find("Options:") {
        Some(at) => help[at..].replacen("Options:", "Option:", 1),
        None => help,
    }
}

/// A parser's complaint in the words of Kafka's option parser.
fn parse_failure(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str),
        _ => None,
    };
    let option = context(ContextKind::InvalidArg)
        .map(|text| {
            text.split([' ', '=', '['])
                .next()
                .unwrap_or(text)
                .trim_start_matches('-')
        })
        .unwrap_or("?");
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument => format!("{option} is not a recognized option"),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation if value.is_empty() => {
            format!("Option {option} requires an argument")
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            format!("Cannot parse argument '{value}' of option {option}")
        }
        ErrorKind::ArgumentConflict => {
            format!("Found multiple arguments for option {option}, but you asked for only one")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(arguments: &[&str]) -> String {
        let tool = find("console-consumer").unwrap();
        let error = command(tool)
            .no_binary_name(true)
            .try_get_matches_from(arguments)
            .unwrap_err();
        parse_failure(&error)
    }

    #[test]
    fn wrong_options_are_named_in_kafkas_words() {
        assert_eq!(
            failure(&["--nothing"]),
            "nothing is not a recognized option"
        );
        assert_eq!(failure(&["--topic"]), "Option topic requires an argument");
        assert_eq!(
            failure(&["--partition", "x"]),
            "Cannot parse argument 'x' of option partition"
        );
        assert_eq!(
            failure(&["--topic", "a", "--topic", "b"]),
            "Found multiple arguments for option topic, but you asked for only one"
        );
    }

    #[test]
    fn every_tool_has_a_name_of_its_own() {
        for (index, tool) in ALL.iter().enumerate() {
            assert!(
                ALL[..index].iter().all(|earlier| earlier.name != tool.name),
                "{}",
                tool.name
            );
            command(tool).debug_assert();
        }
    }
}
