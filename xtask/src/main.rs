//! `cargo xtask ...`: the one door to every check of the workspace; runs other programs and adds up what they report.
//! Knows no broker code: what needs it lives in the `tests` crate and is started from here as a program of its own.
#![forbid(unsafe_code)]

mod checks;
mod install;
mod report;
mod requirements;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "The one door to every check of Millrace",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything CI runs: formatting, clippy, unit tests, simulation, and the suites with real clients
    Test {
        /// Leave out what needs Python, Node, Go, Java and packages from their registries
        #[arg(long)]
        skip_interop: bool,
        /// Run only this step; may be given several times
        #[arg(long, value_name = "STEP", value_parser = checks::step_names())]
        only: Vec<String>,
        /// Within the suites with real clients, run only cases whose name matches this regular expression
        #[arg(long, value_name = "REGEX")]
        filter: Option<String>,
    },
    /// Whole shards over a simulated disk, against a model
    Sim {
        /// Replay this seed only; without it, fresh seeds are drawn until the time is up
        #[arg(long)]
        seed: Option<u64>,
        /// How many steps whole shards take; short runs start and stop more often
        #[arg(long, default_value_t = 12_000)]
        steps: u32,
        /// How long to draw seeds
        #[arg(long, default_value_t = 2)]
        minutes: u64,
    },
    /// Feed a decoder with mutated messages; `list` names the targets
    Fuzz {
        /// The target, or `list`, or `all`
        name: String,
        /// How long to go on
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        /// Where the pseudo-random sequence starts; printed at every run
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Rounds of load, `kill -9` (and SIGTERM), restart, and a check of every acknowledged record
    Kill {
        /// How many rounds
        #[arg(long, default_value_t = 30)]
        rounds: u32,
        /// Cores of the broker
        #[arg(long, default_value_t = 2)]
        cores: u32,
        /// Run against `millrace`, or against Kafka to check the suite itself
        #[arg(long, default_value = "millrace", value_parser = ["millrace", "kafka"])]
        broker: String,
    },
    /// The same on a file system that forgets at a power cut what was not fsynced
    Powercut {
        /// How many rounds
        #[arg(long, default_value_t = 30)]
        rounds: u32,
        /// Decides what is lost, when, and how the broker is restarted; printed at every run
        #[arg(long)]
        seed: Option<u64>,
        /// Run against `millrace`, or against Kafka (with a flush a message) to check the suite itself
        #[arg(long, default_value = "millrace", value_parser = ["millrace", "kafka"])]
        broker: String,
    },
    /// Log directories that are full, or answer EIO, under load
    Disks {
        /// Only cases whose name matches this regular expression
        #[arg(long, value_name = "REGEX")]
        filter: Option<String>,
    },
    /// Many connections, many partitions, rebalancing groups, large records, load with restarts
    Scale {
        /// Only cases whose name matches this regular expression
        #[arg(long, value_name = "REGEX")]
        filter: Option<String>,
        /// `small` takes about a minute, `full` a quarter of an hour
        #[arg(long, default_value = "full", value_parser = ["small", "full"])]
        size: String,
    },
    /// The same requests to Kafka and to Millrace, compared field by field
    Conformance {
        /// Only cases whose name matches this regular expression
        #[arg(long, value_name = "REGEX")]
        filter: Option<String>,
        /// `kafka` compares Kafka with a second Kafka, to check the suite itself
        #[arg(long, default_value = "millrace", value_parser = ["millrace", "kafka"])]
        broker: String,
    },
    /// Real clients: every one writes, every one reads what the others wrote, groups, administration
    Interop {
        /// Only cases whose name matches this regular expression
        #[arg(long, value_name = "REGEX")]
        filter: Option<String>,
        /// Numbers of cores to run with, one after another
        #[arg(long, default_value = "1,2")]
        cores: String,
        /// Run against `millrace`, or against Kafka to check the suite itself
        #[arg(long, default_value = "millrace", value_parser = ["millrace", "kafka"])]
        broker: String,
    },
    /// Hostile frames beside a good client that must not notice
    Hostile {
        /// How many hostile frames
        #[arg(long, default_value_t = 100_000)]
        frames: u64,
        /// Run against `millrace`, or against Kafka to check the suite itself
        #[arg(long, default_value = "millrace", value_parser = ["millrace", "kafka"])]
        broker: String,
    },
    /// Install what the suites with real clients need, and nothing else
    Install,
    /// Print this help
    Help,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.task {
        Task::Test {
            skip_interop,
            only,
            filter,
        } => checks::test(skip_interop, &only, filter.as_deref()),
        Task::Sim {
            seed,
            steps,
            minutes,
        } => checks::sim(seed, steps, minutes),
        Task::Fuzz {
            name,
            seconds,
            seed,
        } => checks::fuzz(&name, seconds, seed),
        Task::Kill {
            rounds,
            cores,
            broker,
        } => checks::kill(rounds, cores, &broker),
        Task::Powercut {
            rounds,
            seed,
            broker,
        } => checks::powercut(rounds, seed, &broker),
        Task::Disks { filter } => checks::disks(filter.as_deref()),
        Task::Scale { filter, size } => checks::scale(filter.as_deref(), &size),
        Task::Conformance { filter, broker } => checks::conformance(filter.as_deref(), &broker),
        Task::Interop {
            filter,
            cores,
            broker,
        } => checks::interop(filter.as_deref(), &cores, &broker),
        Task::Hostile { frames, broker } => checks::hostile(frames, &broker),
        Task::Install => checks::install_only(),
        Task::Help => {
            use clap::CommandFactory;
            print!("{}", Arguments::command().render_long_help());
            return ExitCode::SUCCESS;
        }
    };
    if outcome.finish() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
