//! `cargo xtask fuzz`: feeds decoders with damaged messages until the time is up, and prints the seed that repeats a run.
//! A program of its own on one thread; knows only what `net::fuzz` offers.
#![forbid(unsafe_code)]

use clap::Parser;
use net::fuzz;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Inputs between two looks at the clock, each with a seed of its own.
const ITERATIONS: u64 = 10_000;

#[derive(Parser)]
#[command(name = "fuzz", about = "Feed a decoder with damaged messages")]
struct Arguments {
    /// The target, `list`, or `all`
    name: String,
    /// How long for each target
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Where to start; the default is drawn from the clock and printed
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let targets: Vec<&str> = match arguments.name.as_str() {
        "list" => {
            for target in fuzz::TARGETS {
                println!("{target}");
            }
            return ExitCode::SUCCESS;
        }
        "all" => fuzz::TARGETS.to_vec(),
        name => vec![name],
    };
    let first_seed = arguments.seed.unwrap_or_else(fresh_seed);
    for name in &targets {
        let started = now();
        let mut seed = first_seed;
        let (mut accepted, mut refused) = (0, 0);
        while started.elapsed() < Duration::from_secs(arguments.seconds) {
            // Printed first: whatever stops the process, the seed is known.
            println!("{name}: seed {seed}");
            match fuzz::run(name, seed, ITERATIONS) {
                Ok(outcome) => {
                    accepted += outcome.accepted_count;
                    refused += outcome.refused_count;
                }
                Err(unknown) => {
                    eprintln!("{unknown}");
                    return ExitCode::FAILURE;
                }
            }
            seed = seed.wrapping_add(1);
        }
        println!("{name}: {accepted} inputs decoded, {refused} refused");
    }
    println!("{} passed, 0 failed", targets.len());
    ExitCode::SUCCESS
}

#[allow(clippy::disallowed_methods)] // A tool outside the broker draws a seed from the clock.
fn fresh_seed() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

#[allow(clippy::disallowed_methods)] // A tool outside the broker measures how long it has run.
fn now() -> Instant {
    Instant::now()
}
