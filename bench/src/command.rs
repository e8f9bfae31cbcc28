//! `millrace bench`: the table of its subcommands. Runs on the main thread; each subcommand's own module knows its options and its output.

use clap::{ArgMatches, Command, FromArgMatches, Subcommand};

use crate::{Failure, bare, echo, load, report_files, run, self_test};

/// What `millrace bench` can do.
#[derive(Debug, Subcommand)]
enum Bench {
    /// Runs OpenMessaging Benchmark workloads against a broker and writes a report.
    Run(Box<run::Arguments>),
    /// Builds the report anew from results, and compares several.
    Report(report_files::Arguments),
    /// Measures clock, cores, memory, loopback and disk, before any broker is blamed.
    SelfTest(self_test::Arguments),
    /// Loads a broker with raw Produce requests, closed or open loop, and reports rates and latencies.
    Load(load::Arguments),
    /// Serves the bare loop: the least that a broker must do for a durable answer, to compare brokers with.
    Bare(bare::Arguments),
    /// Measures round trips through a bare io_uring that echoes.
    Echo(echo::Arguments),
}

/// The command with its subcommands.
pub fn command() -> Command {
    Bench::augment_subcommands(
        Command::new("bench")
            .about("Load generators, reports, and what this machine can do without a broker"),
    )
    .subcommand_required(true)
    .arg_required_else_help(true)
}

/// Runs what clap found.
///
/// # Errors
/// A sentence for the operator.
pub fn run(found: &ArgMatches) -> Result<(), Failure> {
    match Bench::from_arg_matches(found).map_err(|error| Failure(error.to_string()))? {
        Bench::Run(arguments) => run::run(&arguments),
        Bench::Report(arguments) => report_files::run(&arguments),
        Bench::SelfTest(arguments) => self_test::run(&arguments),
        Bench::Load(arguments) => load::run(&arguments),
        Bench::Bare(arguments) => bare::run(&arguments),
        Bench::Echo(arguments) => echo::run(&arguments),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_options_are_consistent() {
        super::command().debug_assert();
    }
}
