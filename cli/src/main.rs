//! The one binary, `millrace`: starts the broker or acts as one of Kafka's command-line tools. Lives on the main thread; it knows whom to call and with what options, and nothing of the protocol, the disk or the partitions.
#![forbid(unsafe_code)]

mod links;
mod start;
mod tools;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use clap_complete::Shell;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        let _ = writeln!(
            std::io::stderr(),
            "millrace stops: {panic}\nThis is a defect of Millrace; what was acknowledged is safe on disk."
        );
        // A core that is gone must not leave the others waiting: the process ends, whatever the build.
        std::process::abort();
    }));
    let mut arguments = std::env::args_os().map(|a| a.to_string_lossy().into_owned());
    let called = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    if let Some(tool) = links::tool_of(&called) {
        return tools::run(tool, &rest);
    }
    if let Some(tool) = rest.first().and_then(|name| tools::find(name)) {
        return tools::run(tool, &rest[1..]);
    }
    let matches = match command().try_get_matches_from(std::iter::once(called).chain(rest)) {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    match matches.subcommand() {
        None => start::run(&start::Arguments::default()),
        Some(("start", found)) => match start::Arguments::read(found) {
            Ok(arguments) => start::run(&arguments),
            Err(why) => {
                eprintln!("{why}");
                ExitCode::FAILURE
            }
        },
        Some(("bench", found)) => match bench::command::run(found) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("{why}");
                ExitCode::FAILURE
            }
        },
        Some(("completions", found)) => completions(found),
        Some(("install-tools", found)) => install_tools(found),
        Some((name, _)) => unreachable!("{name} is answered above"),
    }
}

/// The whole command line, tools included: what help and shell completion show.
fn command() -> Command {
    let command = Command::new("millrace")
        .version(env!("CARGO_PKG_VERSION"))
        .about(
            "An event-streaming broker that speaks the Kafka protocol. Without a subcommand it starts with defaults: \
             127.0.0.1:9092, data in ./millrace-data, HTTP on 127.0.0.1:9644.",
        )
        .subcommand(start::command())
        .subcommand(bench::command::command())
        .subcommand(
            Command::new("completions")
                .about("Prints a completion script for a shell")
                .arg(Arg::new("shell").required(true).value_parser(clap::value_parser!(Shell))),
        )
        .subcommand(
            Command::new("install-tools")
                .about("Makes links named kafka-topics, kafka-topics.sh and so on in a directory")
                .arg(Arg::new("directory").required(true).action(ArgAction::Set)),
        );
    tools::ALL.iter().fold(command, |command, tool| {
        command.subcommand(tools::command(tool))
    })
}

fn completions(found: &ArgMatches) -> ExitCode {
    let shell = *found.get_one::<Shell>("shell").expect("clap requires it");
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "millrace", &mut script);
    tools::out::bytes(&script);
    ExitCode::SUCCESS
}

fn install_tools(found: &ArgMatches) -> ExitCode {
    let directory = found
        .get_one::<String>("directory")
        .expect("clap requires it");
    match links::install(std::path::Path::new(directory)) {
        Ok(made) => {
            tools::out::line(&format!("Made {made} links in {directory}."));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
