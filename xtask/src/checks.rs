//! What each task runs, in which order: the list of checks.

use crate::report::Report;
use crate::{install, requirements, workspace};
use std::process::Command;

/// The steps of `cargo xtask test`, in their order.
const STEPS: &[&str] = &[
    "fmt",
    "clippy",
    "unit",
    "sim",
    "interop",
    "crash",
    "powercut",
    "disks",
    "hostile",
    "scale",
    "conformance",
];
/// The one build profile of all checks, so that nothing is compiled twice; see Cargo.toml.
const PROFILE: &str = "checks";
/// The steps that need real clients, or Kafka itself.
const STEPS_INTEROP: &[&str] = &[
    "interop",
    "crash",
    "powercut",
    "disks",
    "hostile",
    "scale",
    "conformance",
];
/// The small versions of the long suites that every run of CI makes.
const CI_KILL_ROUNDS: &str = "3";
const CI_POWERCUT_ROUNDS: &str = "4";
const CI_HOSTILE_FRAMES: &str = "10000";
const CI_SIM_MINUTES: u64 = 2;
const CI_FUZZ_SECONDS: u64 = 1;

/// The names that `--only` takes.
pub fn step_names() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(STEPS)
}

/// Everything, or the named steps.
pub fn test(skip_interop: bool, only: &[String], filter: Option<&str>) -> Report {
    let mut report = Report::default();
    let wanted = |step: &str| only.is_empty() || only.iter().any(|name| name == step);
    let interop = STEPS_INTEROP.iter().any(|step| wanted(step));
    // What is missing is told before minutes of building, not after.
    if !report.work("programs needed", || {
        requirements::build()?;
        if interop && !skip_interop {
            requirements::interop()
        } else {
            Ok(())
        }
    }) {
        return report;
    }
    if wanted("fmt") {
        report.run("fmt", cargo(&["fmt", "--all", "--", "--check"]));
    }
    if wanted("clippy") {
        report.run(
            "clippy",
            cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--profile",
                PROFILE,
                "--",
                "-D",
                "warnings",
            ]),
        );
    }
    if wanted("unit") {
        report.run(
            "unit",
            cargo(&[
                "test",
                "--workspace",
                "--no-fail-fast",
                "--profile",
                PROFILE,
            ]),
        );
        report.run(
            "fuzz",
            program("fuzz").args(["all", "--seconds", &CI_FUZZ_SECONDS.to_string()]),
        );
    }
    if wanted("sim") {
        report.run(
            "sim: seeds that once failed",
            program("sim").arg("--replay"),
        );
        // What fresh seeds find is a defect: it is fixed, and its seed kept in tests/seeds.txt.
        report.run(
            "sim: fresh seeds",
            program("sim").args(["--minutes", &CI_SIM_MINUTES.to_string()]),
        );
    }
    if !interop {
        return report;
    }
    if skip_interop {
        for step in STEPS_INTEROP.iter().filter(|step| wanted(step)) {
            report.skip(&format!("{step} (--skip-interop was given)"));
        }
        return report;
    }
    if !report.work("install clients", install::all) || !build_broker(&mut report) {
        return report;
    }
    if wanted("interop") {
        report.run(
            "interop",
            filtered(suite("interop").args(["--cores", "1,2"]), filter),
        );
        report.run(
            "native",
            filtered(suite("native").args(["--cores", "1,2"]), filter),
        );
        report.run("bench", filtered(&mut suite("bench"), filter));
    }
    if wanted("crash") {
        report.run(
            "crash",
            suite("crash").args(["--rounds", CI_KILL_ROUNDS, "--cores", "2"]),
        );
    }
    for (step, arguments) in [
        ("powercut", &["--rounds", CI_POWERCUT_ROUNDS][..]),
        ("disks", &[]),
    ] {
        if wanted(step) {
            match forgetful_file_system() {
                Ok(()) => {
                    report.run(step, suite(step).args(arguments));
                }
                Err(why) => report.skip(&format!("{step}: no file system can be mounted: {why}")),
            }
        }
    }
    if wanted("hostile") {
        report.run(
            "hostile",
            suite("hostile").args(["--frames", CI_HOSTILE_FRAMES]),
        );
    }
    if wanted("scale") {
        report.run("scale", suite("scale").args(["--size", "small"]));
    }
    if wanted("conformance") {
        report.run("conformance", filtered(&mut suite("conformance"), filter));
    }
    report
}

/// Simulation: one seed, or fresh ones for some minutes.
pub fn sim(seed: Option<u64>, steps: u32, minutes: u64) -> Report {
    let mut report = Report::default();
    let mut command = program("sim");
    command.args(["--steps", &steps.to_string()]);
    match seed {
        Some(seed) => command.args(["--seed", &seed.to_string()]),
        None => command.args(["--minutes", &minutes.to_string()]),
    };
    report.run("sim", &mut command);
    report
}

/// Fuzzing of one decoder, or of all.
pub fn fuzz(name: &str, seconds: u64, seed: Option<u64>) -> Report {
    let mut report = Report::default();
    let mut command = program("fuzz");
    command.args([name, "--seconds", &seconds.to_string()]);
    if let Some(seed) = seed {
        command.args(["--seed", &seed.to_string()]);
    }
    report.run("fuzz", &mut command);
    report
}

/// Rounds of `kill -9`.
pub fn kill(rounds: u32, cores: u32, broker: &str) -> Report {
    one_suite("crash", broker, |command| {
        command.args([
            "--rounds",
            &rounds.to_string(),
            "--cores",
            &cores.to_string(),
        ]);
    })
}

/// Rounds of power cuts.
pub fn powercut(rounds: u32, seed: Option<u64>, broker: &str) -> Report {
    one_suite("powercut", broker, |command| {
        command.args(["--rounds", &rounds.to_string()]);
        if let Some(seed) = seed {
            command.args(["--seed", &seed.to_string()]);
        }
    })
}

/// Full and broken disks.
pub fn disks(filter: Option<&str>) -> Report {
    one_suite("disks", "millrace", |command| {
        filtered(command, filter);
    })
}

/// Many connections, partitions, group members; load with restarts.
pub fn scale(filter: Option<&str>, size: &str) -> Report {
    one_suite("scale", "millrace", |command| {
        filtered(command.args(["--size", size]), filter);
    })
}

/// Kafka and Millrace side by side.
pub fn conformance(filter: Option<&str>, broker: &str) -> Report {
    one_suite("conformance", broker, |command| {
        filtered(command, filter);
    })
}

/// Real clients.
pub fn interop(filter: Option<&str>, cores: &str, broker: &str) -> Report {
    one_suite("interop", broker, |command| {
        filtered(command.args(["--cores", cores]), filter);
    })
}

/// Hostile frames.
pub fn hostile(frames: u64, broker: &str) -> Report {
    one_suite("hostile", broker, |command| {
        command.args(["--frames", &frames.to_string()]);
    })
}

/// The clients, without running them.
pub fn install_only() -> Report {
    let mut report = Report::default();
    if report.work("programs needed", requirements::interop) {
        report.work("install clients", install::all);
    }
    report
}

fn one_suite(name: &str, broker: &str, arguments: impl FnOnce(&mut Command)) -> Report {
    let mut report = Report::default();
    let ready = report.work("programs needed", || {
        requirements::build().and_then(|()| requirements::interop())
    }) && report.work("install clients", install::all)
        && (broker == "kafka" || build_broker(&mut report));
    if ready {
        let mut command = suite(name);
        command.args(["--broker", broker]);
        arguments(&mut command);
        report.run(name, &mut command);
    }
    report
}

fn build_broker(report: &mut Report) -> bool {
    report.run(
        "build the broker",
        cargo(&["build", "--package", "millrace", "--profile", PROFILE]),
    )
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(workspace::cargo());
    command.current_dir(workspace::root()).args(arguments);
    command
}

/// A program of the `tests` crate.
fn program(name: &str) -> Command {
    cargo(&[
        "run",
        "--quiet",
        "--profile",
        PROFILE,
        "--package",
        "millrace-tests",
        "--bin",
        name,
        "--",
    ])
}

/// A suite written in Python, run by the interpreter that has the clients.
fn suite(name: &str) -> Command {
    let mut command = Command::new(workspace::interop().join("venv/bin/python"));
    command
        .current_dir(workspace::root())
        .env("PYTHONUNBUFFERED", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("MILLRACE_INTEROP_DIR", workspace::interop())
        .env(
            "MILLRACE_BINARY",
            workspace::target().join(PROFILE).join("millrace"),
        )
        .arg(format!("tests/{name}/run.py"));
    command
}

/// Why a file system of our own cannot be mounted here.
fn forgetful_file_system() -> Result<(), String> {
    let output = Command::new(workspace::interop().join("venv/bin/python"))
        .current_dir(workspace::root().join("tests"))
        .args([
            "-c",
            "import sys; from harness import forgetful; sys.exit(forgetful.why_not())",
        ])
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

fn filtered<'a>(command: &'a mut Command, filter: Option<&str>) -> &'a mut Command {
    if let Some(filter) = filter {
        command.args(["--filter", filter]);
    }
    command
}
