//! Runs the simulation of storage over a range of seeds: `sim FIRST END STEPS`. On one thread; prints
//! each seed that fails.

use std::process::ExitCode;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let [first, end, steps] = numbers[..] else {
        eprintln!("usage: sim FIRST END STEPS");
        return ExitCode::FAILURE;
    };
    let mut failed = false;
    for seed in first..end {
        if let Err(why) = millrace_storage::sim::run(seed, steps) {
            println!("{why}");
            failed = true;
        }
    }
    ExitCode::from(u8::from(failed))
}
