//! `dump-log`: prints segments and indexes from files, offline. Main thread; reads whole files and knows no running broker.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches};
use storage::dump::{self, DumpOptions, IndexDump, IndexDumpMode, LogDump};
use storage::records::Record;

use super::args::{self, Found, flag, int, maybe, text};
use super::{Help, Outcome, Stop, Tool, out};

/// The tool.
pub const TOOL: Tool = Tool {
    name: "dump-log",
    about: "This tool helps to parse a log file and dump its contents to the console, useful for debugging a seemingly corrupt log segment.",
    options,
    run,
    help: Help::Fails,
};

/// Decoders of topics that this broker does not write.
const UNKNOWN_DECODERS: [&str; 4] = [
    "transaction-log-decoder",
    "cluster-metadata-decoder",
    "remote-log-metadata-decoder",
    "share-group-state-decoder",
];
/// Where Kafka keeps the strings' decoder.
const STRING_DECODER: &str = "StringDecoder";

fn options() -> Vec<Arg> {
    vec![
        flag(
            "print-data-log",
            "Print the contents of messages too. Set by any decoder option.",
        ),
        flag(
            "verify-index-only",
            "Just verify the index log without printing its content.",
        ),
        flag(
            "index-sanity-check",
            "Just check the index as a start of the broker would.",
        ),
        text(
            "files",
            "file1, file2, ...",
            "REQUIRED: The comma separated list of data and index log files to be dumped.",
        ),
        int(
            "max-message-size",
            "size",
            "Size of largest message; accepted without effect.",
        ),
        int("max-bytes", "size", "Read only so many bytes of batches."),
        flag(
            "deep-iteration",
            "Look into batches. Set by --print-data-log.",
        ),
        maybe(
            "value-decoder-class",
            "String",
            "Only kafka's StringDecoder, the default, is known.",
        ),
        maybe(
            "key-decoder-class",
            "String",
            "Only kafka's StringDecoder, the default, is known.",
        ),
        flag(
            "offsets-decoder",
            "Read records as those of the __consumer_offsets topic.",
        ),
        flag(
            "transaction-log-decoder",
            "Read records as those of the __transaction_state topic.",
        ),
        flag(
            "cluster-metadata-decoder",
            "Read records as cluster metadata records.",
        ),
        flag(
            "remote-log-metadata-decoder",
            "Read records as remote log metadata records.",
        ),
        flag(
            "share-group-state-decoder",
            "Read records as those of the __share_group_state topic.",
        ),
        flag(
            "skip-record-metadata",
            "Leave out the metadata of records, and control records.",
        ),
    ]
}

fn run(found: &ArgMatches) -> Outcome {
    args::require(found, &["files"])?;
    if let Some(decoder) = UNKNOWN_DECODERS.iter().find(|name| found.has(name)) {
        return Err(Stop::Failed(format!(
            "--{decoder} is not supported: this broker writes no such records"
        )));
    }
    for option in ["value-decoder-class", "key-decoder-class"] {
        let class = found.text(option).unwrap_or_default();
        if !class.is_empty() && class.rsplit('.').next() != Some(STRING_DECODER) {
            return Err(Stop::Failed(format!(
                "Failed to load decoder class {class}: only {STRING_DECODER} is known"
            )));
        }
    }
    let mode = if found.has("index-sanity-check") {
        IndexDumpMode::Sanity
    } else if found.has("verify-index-only") {
        IndexDumpMode::Verify
    } else {
        IndexDumpMode::Print
    };
    let mut problems: Vec<String> = Vec::new();
    let mut outcome = Ok(());
    for file in found.text("files").unwrap_or_default().split(',') {
        out::line(&format!("Dumping {file}"));
        let done = match extension(file) {
            Some(".log") => dump_segment(file, found, &mut problems),
            Some(".index") => dump_index(file, mode, &mut problems, dump::dump_offset_index),
            Some(".timeindex") => dump_index(file, mode, &mut problems, dump::dump_time_index),
            _ => {
                eprintln!("Ignoring unknown file {file}");
                Ok(())
            }
        };
        if done.is_err() {
            outcome = done;
            break;
        }
    }
    out::flush();
    for problem in problems {
        eprintln!("{problem}");
    }
    outcome
}

/// The last part of a file's name, from its last point on.
fn extension(file: &str) -> Option<&str> {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.rfind('.').map(|at| &name[at..])
}

/// The offset that a file's name begins with.
fn base_offset(file: &str) -> Result<i64, Stop> {
    let name = file.rsplit('/').next().unwrap_or(file);
    let digits = name.split('.').next().unwrap_or(name);
    digits
        .parse()
        .map_err(|_| Stop::Failed(format!("For input string: \"{digits}\"")))
}

fn read(path: &Path) -> Result<Vec<u8>, Stop> {
    std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Stop::Failed(format!(
            "java.nio.file.NoSuchFileException: {}",
            path.display()
        )),
        _ => Stop::Failed(format!("{}: {error}", path.display())),
    })
}

fn absolute(file: &str) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| PathBuf::from(file))
}

fn offsets_text(record: &Record<'_>) -> (Option<String>, Option<String>) {
    match record.key {
        Some(key) => {
            let (key, value) = engine::group::decoder::decode(record.offset, key, record.value);
            (Some(key), value)
        }
        None => (
            Some(format!(
                "Failed to decode message at offset {} using the specified decoder (message had a missing key)",
                record.offset
            )),
            None,
        ),
    }
}

fn dump_segment(file: &str, found: &ArgMatches, problems: &mut Vec<String>) -> Outcome {
    out::line(&format!("Log starting offset: {}", base_offset(file)?));
    let segment = read(Path::new(file))?;
    let decoders = [
        "print-data-log",
        "offsets-decoder",
        "value-decoder-class",
        "key-decoder-class",
    ];
    let print_data = decoders.iter().any(|name| found.has(name));
    let bytes_max = found
        .int("max-bytes")
        .filter(|max| *max != i32::MAX)
        .map(|max| max.max(0) as u64);
    let options = DumpOptions {
        deep: found.has("deep-iteration") || print_data,
        print_data,
        skip_record_metadata: found.has("skip-record-metadata"),
        bytes_max,
    };
    let text = if found.has("offsets-decoder") {
        offsets_text
    } else {
        dump::plain_text
    };
    let mut lines = LogDump::new(&segment, options, text);
    let mut failed = None;
    let mut ahead = Vec::with_capacity(1 << 16);
    for line in lines.by_ref() {
        match line {
            Ok(line) => {
                ahead.extend_from_slice(line.as_bytes());
                ahead.push(b'\n');
            }
            Err(error) => failed = Some(error),
        }
        if ahead.len() > 1 << 16 {
            out::bytes(&ahead);
            ahead.clear();
            if out::is_broken() {
                return Ok(());
            }
        }
    }
    out::bytes(&ahead);
    problems.extend(lines.gaps_report(&absolute(file).display().to_string()));
    if let Some(error) = failed {
        return Err(Stop::Failed(error.to_string()));
    }
    let trailing = lines.trailing_bytes();
    if trailing > 0 && bytes_max.is_none() {
        let name = file.rsplit('/').next().unwrap_or(file);
        out::line(&format!(
            "Found {trailing} invalid bytes at the end of {name}"
        ));
    }
    Ok(())
}

type DumpIndex = fn(&str, &str, i64, &[u8], &[u8], IndexDumpMode) -> IndexDump;

fn dump_index(
    file: &str,
    mode: IndexDumpMode,
    problems: &mut Vec<String>,
    dump: DumpIndex,
) -> Outcome {
    let base_offset = base_offset(file)?;
    let path = absolute(file);
    let segment = read(&path.with_extension("log"))?;
    let index = read(&path)?;
    let dumped = dump(
        file,
        &path.display().to_string(),
        base_offset,
        &index,
        &segment,
        mode,
    );
    for line in &dumped.lines {
        out::line(line);
    }
    problems.extend(dumped.problems);
    if dumped.corrupt {
        Err(Stop::Quiet(1))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_names() {
        assert_eq!(extension("/d/t-0/00000000000000000007.log"), Some(".log"));
        assert_eq!(extension("a.b/noextension"), None);
        assert_eq!(base_offset("/d/t-0/00000000000000000007.timeindex"), Ok(7));
        assert!(base_offset("x.log").is_err());
    }

    #[test]
    fn a_missing_file_and_an_unknown_decoder_are_told() {
        let outcome = |arguments: &[&str]| {
            run(&super::super::command(&TOOL)
                .no_binary_name(true)
                .get_matches_from(arguments))
        };
        assert_eq!(
            outcome(&["--print-data-log"]),
            Err(Stop::Usage(
                "Missing required argument \"[files]\"".to_owned()
            ))
        );
        assert_eq!(
            outcome(&["--files", "/nowhere/00000000000000000000.log"]),
            Err(Stop::Failed(
                "java.nio.file.NoSuchFileException: /nowhere/00000000000000000000.log".to_owned()
            ))
        );
        assert!(matches!(
            outcome(&["--files", "a.log", "--transaction-log-decoder"]),
            Err(Stop::Failed(_))
        ));
    }
}
