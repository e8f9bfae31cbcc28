//! `millrace start`: reads the options, sets up logging, hands over to the engine. Runs on the main thread; knows no key of server.properties.

use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use engine::start::{Cores, StartOptions};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// What the command line of `start` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments {
    /// The properties file.
    pub file: Option<PathBuf>,
    /// `--override key=value`, in order; later ones win.
    pub overrides: Vec<(String, String)>,
    /// `--cores`; all when absent.
    pub cores: Option<Cores>,
    /// `--memory`, in bytes.
    pub memory_bytes: Option<u64>,
    /// `--log-format`.
    pub log_format: LogFormat,
}

/// The options of `start`.
pub fn command() -> Command {
    Command::new("start")
        .about("Starts the broker")
        .arg(
            Arg::new("file")
                .value_name("server.properties")
                .help("Kafka's own properties file"),
        )
        .arg(
            Arg::new("override")
                .long("override")
                .value_name("key=value")
                .action(ArgAction::Append)
                .help("Sets one key, over what the file says"),
        )
        .arg(
            Arg::new("cores")
                .long("cores")
                .value_name("0-3|0,2|N")
                .help("Cores to use: a range, a list, or how many"),
        )
        .arg(
            Arg::new("memory").long("memory").value_name("4GiB").help(
                "Memory for buffers; default an eighth of the machine, at most 192 MiB a core",
            ),
        )
        .arg(
            Arg::new("log-format")
                .long("log-format")
                .value_parser(["human", "json"])
                .default_value("human")
                .help("How log lines look"),
        )
}

impl Arguments {
    /// Reads what clap found. The error is a sentence for the operator.
    pub fn read(found: &ArgMatches) -> Result<Arguments, String> {
        let text = |name: &str| found.get_one::<String>(name).map(String::as_str);
        let mut overrides = Vec::new();
        for pair in found.get_many::<String>("override").into_iter().flatten() {
            match pair.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    overrides.push((key.trim().to_owned(), value.trim().to_owned()));
                }
                _ => return Err(format!("--override takes key=value, not '{pair}'")),
            }
        }
        Ok(Arguments {
            file: text("file").map(PathBuf::from),
            overrides,
            cores: text("cores").map(parse_cores).transpose()?,
            memory_bytes: text("memory").map(parse_bytes).transpose()?,
            log_format: if text("log-format") == Some("json") {
                LogFormat::Json
            } else {
                LogFormat::Human
            },
        })
    }
}

/// `0-3`, `0,2,4-5`, or a single number: how many.
fn parse_cores(text: &str) -> Result<Cores, String> {
    let wrong = || {
        format!(
            "--cores takes a range (0-3; 0-0 is processor 0 alone), a list (0,2) or a count of at \
             least 1, not '{text}'"
        )
    };
    if !text.contains([',', '-']) {
        return match text.trim().parse() {
            Ok(0) | Err(_) => Err(wrong()),
            Ok(count) => Ok(Cores::Count(count)),
        };
    }
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| wrong())?;
        let last: usize = last.trim().parse().map_err(|_| wrong())?;
        // Core numbers of a machine stay far below this; a typo must not allocate.
        if first > last || last > 4095 {
            return Err(wrong());
        }
        for core in first..=last {
            if cores.contains(&core) {
                return Err(format!("--cores names core {core} twice: '{text}'"));
            }
            cores.push(core);
        }
    }
    Ok(Cores::List(cores))
}

/// `1073741824`, `512MiB`, `4GiB`, also `4G`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!("--memory takes a number of bytes, or one with KiB, MiB, GiB or TiB, not '{text}'")
    };
    let trimmed = text.trim();
    let digits = trimmed
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(trimmed.len());
    let number: u64 = trimmed[..digits].parse().map_err(|_| wrong())?;
    let shift = match trimmed[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(wrong)
}

/// Starts the broker and returns when it has stopped.
pub fn run(arguments: &Arguments) -> ExitCode {
    // The very first thing: a start that is stopped has stopped well.
    if let Err(error) = engine::control::exit_on_signals_until_served() {
        eprintln!("millrace: cannot handle signals: {error}");
        return ExitCode::FAILURE;
    }
    start_logging(arguments.log_format);
    let options = StartOptions {
        config_file: arguments.file.clone(),
        overrides: arguments
            .overrides
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect(),
        cores: arguments.cores.clone(),
        memory_bytes: arguments.memory_bytes,
    };
    match engine::start::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "millrace: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Log lines go to standard output; MILLRACE_LOG filters them in tracing's own syntax.
fn start_logging(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MILLRACE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // A log that cannot be written, on a full disk for one, ends nothing: its errors would go to standard
    // error, which is often the same file, and failing there is a panic.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .log_internal_errors(false);
    match format {
        LogFormat::Json => lines.json().flatten_event(true).init(),
        LogFormat::Human => lines.with_ansi(std::io::stdout().is_terminal()).init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_a_count_a_list_or_a_range() {
        assert_eq!(parse_cores("2"), Ok(Cores::Count(2)));
        assert_eq!(parse_cores("0-3"), Ok(Cores::List(vec![0, 1, 2, 3])));
        assert_eq!(parse_cores("0,2"), Ok(Cores::List(vec![0, 2])));
        assert_eq!(parse_cores("5,0-1"), Ok(Cores::List(vec![5, 0, 1])));
        for wrong in ["", "0", "-1", "a", "3-1", "0,0", "0-99999999", "1,"] {
            assert!(parse_cores(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn memory_is_bytes_or_carries_a_unit() {
        for (text, bytes) in [
            ("1024", 1024),
            ("64KiB", 65_536),
            ("512 MiB", 536_870_912),
            ("4GiB", 4_294_967_296),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "GiB", "0", "4GB", "-1", "1.5GiB", "99999999TiB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn overrides_keep_their_order_and_may_hold_equals_signs() {
        let found = command()
            .try_get_matches_from([
                "start",
                "a.properties",
                "--override",
                "a=1",
                "--override",
                "b = x=y",
                "--cores",
                "0,1",
            ])
            .unwrap();
        let read = Arguments::read(&found).unwrap();
        assert_eq!(read.file, Some(PathBuf::from("a.properties")));
        assert_eq!(
            read.overrides,
            [
                ("a".to_owned(), "1".to_owned()),
                ("b".to_owned(), "x=y".to_owned())
            ]
        );
        assert_eq!(read.cores, Some(Cores::List(vec![0, 1])));
        let found = command()
            .try_get_matches_from(["start", "--override", "nothing"])
            .unwrap();
        assert!(Arguments::read(&found).unwrap_err().contains("nothing"));
    }
}
