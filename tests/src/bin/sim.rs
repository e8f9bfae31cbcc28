//! The simulations as a program, for `cargo xtask sim`: one seed again, the seeds that once failed, or fresh
//! seeds until the time is up. Knows no broker code beyond what the simulations are called.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use millrace_tests::sim::{self as shards, Shape};

/// Seeds that once failed: the simulation (`storage`, `shards`, or `pressed` shards), the seed, and how many steps it takes.
const FAILED_ONCE: &str = include_str!("../../seeds.txt");

/// How long a run of a seed is, in steps, of whole shards and of storage alone.
const SHARD_STEPS: u32 = 12_000;
const STORAGE_STEPS: u64 = 3_000;

#[derive(Parser)]
#[command(about = "Whole shards, and storage alone, over a simulated disk, against a model")]
struct Arguments {
    /// Run this seed only
    #[arg(long)]
    seed: Option<u64>,
    /// So many seeds from that one on
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Steps of each run of whole shards
    #[arg(long, default_value_t = SHARD_STEPS)]
    steps: u32,
    /// Run the seeds that once failed
    #[arg(long)]
    replay: bool,
    /// Draw fresh seeds for this long
    #[arg(long, default_value_t = 2)]
    minutes: u64,
}

thread_local! {
    /// The command that repeats what runs now.
    static COMMAND: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The last line that a failed run prints, whether the model or an assertion of the broker has failed.
fn name_command() {
    COMMAND.with_borrow(|command| eprintln!("to see it again: {command}"));
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        before(info);
        name_command();
    }));
    let outcome = if let Some(seed) = arguments.seed {
        let mut seeds = (0..arguments.count).map(|at| seed.wrapping_add(at));
        seeds.try_for_each(|seed| {
            let trace = both(seed, arguments.steps)?;
            println!("seed {seed} held; the way it went has the number {trace:016x}");
            Ok(())
        })
    } else if arguments.replay {
        replay()
    } else {
        fresh(Duration::from_secs(arguments.minutes * 60), arguments.steps)
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            name_command();
            ExitCode::FAILURE
        }
    }
}

/// Runs one seed through both simulations; the number tells whether two runs went the same way.
fn both(seed: u64, steps: u32) -> Result<u64, String> {
    COMMAND.set(format!("cargo xtask sim --seed {seed} --steps {steps}"));
    storage::sim::run(seed, STORAGE_STEPS)?;
    let shape = if seed.is_multiple_of(3) {
        Shape::pressed(seed)
    } else {
        Shape::roomy()
    };
    shards::run_traced(seed, steps, shape)
}

/// Runs every seed that once failed.
fn replay() -> Result<(), String> {
    let lines = FAILED_ONCE.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let wrong = || format!("seeds.txt: '{line}' is not a simulation, a seed and steps");
        let [simulation, seed, steps] = words[..] else {
            return Err(wrong());
        };
        let seed: u64 = seed.parse().map_err(|_| wrong())?;
        let steps: u32 = steps.parse().map_err(|_| wrong())?;
        COMMAND.set(String::from(
            "cargo run --profile checks -p millrace-tests --bin sim -- --replay",
        ));
        match simulation {
            "shards" => shards::run(seed, steps, Shape::roomy())?,
            "pressed" => shards::run(seed, steps, Shape::pressed(seed))?,
            "storage" => storage::sim::run(seed, u64::from(steps))?,
            _ => return Err(wrong()),
        }
    }
    Ok(())
}

/// Runs seeds that nobody has seen until the time is up.
fn fresh(time: Duration, steps: u32) -> Result<(), String> {
    let first = fresh_seed();
    // Known even where the program is killed.
    println!("fresh seeds from {first} on, of {steps} steps");
    let began = now();
    let mut count = 0;
    while began.elapsed() < time {
        both(first.wrapping_add(count), steps)?;
        count += 1;
    }
    println!("{count} seeds held, from {first} on");
    Ok(())
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
