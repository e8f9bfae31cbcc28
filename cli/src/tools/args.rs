//! Options as Kafka's parser takes them: `--name value`, `--name=value`, values that begin with a dash. Main thread; knows no tool.

use clap::{Arg, ArgAction, ArgMatches, builder::ValueParser, parser::ValueSource};

use super::Stop;

/// An option without a value.
pub fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

/// An option with one text value, given at most once.
pub fn text(name: &'static str, value_name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name(value_name)
        .allow_hyphen_values(true)
        .help(help)
}

/// An option with one 32-bit value.
pub fn int(name: &'static str, value_name: &'static str, help: &'static str) -> Arg {
    text(name, value_name, help).value_parser(clap::value_parser!(i32))
}

/// An option with one 64-bit value.
pub fn long(name: &'static str, value_name: &'static str, help: &'static str) -> Arg {
    text(name, value_name, help).value_parser(clap::value_parser!(i64))
}

/// An option with one value, which may be given many times.
pub fn many(name: &'static str, value_name: &'static str, help: &'static str) -> Arg {
    text(name, value_name, help).action(ArgAction::Append)
}

/// An option whose value may be left out; then it is the empty text.
pub fn maybe(name: &'static str, value_name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name(value_name)
        .num_args(0..=1)
        .default_missing_value("")
        .value_parser(ValueParser::string())
        .help(help)
}

/// Reading what was parsed.
pub trait Found {
    /// Whether the option was given.
    fn has(&self, name: &str) -> bool;
    /// The option's value.
    fn text(&self, name: &str) -> Option<&str>;
    /// All values of the option.
    fn texts(&self, name: &str) -> Vec<&str>;
    /// The value of an option made by [`int`].
    fn int(&self, name: &str) -> Option<i32>;
    /// The value of an option made by [`long`].
    fn long(&self, name: &str) -> Option<i64>;
}

impl Found for ArgMatches {
    fn has(&self, name: &str) -> bool {
        self.value_source(name) == Some(ValueSource::CommandLine)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.get_one::<String>(name).map(String::as_str)
    }

    fn texts(&self, name: &str) -> Vec<&str> {
        self.get_many::<String>(name)
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect()
    }

    fn int(&self, name: &str) -> Option<i32> {
        self.get_one(name).copied()
    }

    fn long(&self, name: &str) -> Option<i64> {
        self.get_one(name).copied()
    }
}

/// Fails unless every one of these options was given.
pub fn require(found: &ArgMatches, names: &[&str]) -> Result<(), Stop> {
    match names.iter().find(|name| !found.has(name)) {
        Some(name) => Err(Stop::Usage(format!(
            "Missing required argument \"[{name}]\""
        ))),
        None => Ok(()),
    }
}

/// Fails when `used` and any of `others` were given.
pub fn exclude(found: &ArgMatches, used: &str, others: &[&str]) -> Result<(), Stop> {
    if !found.has(used) {
        return Ok(());
    }
    match others.iter().find(|name| found.has(name)) {
        Some(name) => Err(Stop::Usage(format!(
            "Option \"[{used}]\" can't be used with option \"[{name}]\""
        ))),
        None => Ok(()),
    }
}

/// Fails unless exactly one of these options was given.
pub fn exactly_one(found: &ArgMatches, names: &[&str]) -> Result<(), Stop> {
    if names.iter().filter(|name| found.has(name)).count() == 1 {
        return Ok(());
    }
    let list: Vec<String> = names.iter().map(|name| format!("[{name}]")).collect();
    Err(Stop::Usage(format!(
        "Exactly one of the following arguments is required: {}",
        list.join(", ")
    )))
}

/// Fails when both options were given; the message is Kafka's for a deprecated pair.
pub fn not_together(found: &ArgMatches, one: &str, other: &str) -> Result<(), Stop> {
    if found.has(one) && found.has(other) {
        return Err(Stop::Usage(format!(
            "Options --{one} and --{other} cannot be specified together."
        )));
    }
    Ok(())
}

/// Splits `key=value` texts. A missing value is the empty one, as in Kafka's console tools.
pub fn pairs(texts: &[&str]) -> Vec<(String, String)> {
    texts
        .iter()
        .map(|text| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

/// Checks a bootstrap list as Kafka's tools do: every part must carry a port.
pub fn check_bootstrap(servers: &str) -> Result<(), Stop> {
    if servers.trim().is_empty() {
        return Err(Stop::Usage(
            "Error while validating the bootstrap address\n".to_owned(),
        ));
    }
    let valid = |server: &str| {
        server.trim().rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
        })
    };
    if servers.split(',').all(valid) {
        return Ok(());
    }
    Err(Stop::Usage(
        "Please provide valid host:port like host1:9091,host2:9092\n".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Command;

    fn parse(arguments: &[&str]) -> ArgMatches {
        Command::new("test")
            .no_binary_name(true)
            .args([
                flag("list", ""),
                text("topic", "", ""),
                long("shift-by", "", ""),
                many("config", "", ""),
                maybe("state", "", ""),
            ])
            .get_matches_from(arguments)
    }

    #[test]
    fn values_may_begin_with_a_dash_and_repeat() {
        let found = parse(&[
            "--shift-by",
            "-2",
            "--config",
            "a=1",
            "--config=b=2",
            "--topic",
            "-x",
        ]);
        assert_eq!(found.long("shift-by"), Some(-2));
        assert_eq!(found.texts("config"), ["a=1", "b=2"]);
        assert_eq!(found.text("topic"), Some("-x"));
        assert!(!found.has("list"));
    }

    #[test]
    fn an_optional_value_leaves_the_next_option_alone() {
        let found = parse(&["--state", "--list"]);
        assert_eq!(found.text("state"), Some(""));
        assert!(found.has("list"));
        assert_eq!(parse(&["--state", "Stable"]).text("state"), Some("Stable"));
    }

    #[test]
    fn checks_speak_kafkas_words() {
        let found = parse(&["--list", "--topic", "a"]);
        assert_eq!(require(&found, &["topic", "list"]), Ok(()));
        assert_eq!(
            require(&found, &["topic", "state"]),
            Err(Stop::Usage(
                "Missing required argument \"[state]\"".to_owned()
            ))
        );
        assert_eq!(
            exclude(&found, "list", &["state", "topic"]),
            Err(Stop::Usage(
                "Option \"[list]\" can't be used with option \"[topic]\"".to_owned()
            ))
        );
        assert!(exactly_one(&found, &["list", "topic"]).is_err());
        assert_eq!(exactly_one(&found, &["list", "state"]), Ok(()));
    }

    #[test]
    fn bootstrap_lists_need_ports() {
        for good in ["localhost:9092", "a:1,b:2", "[::1]:9092"] {
            assert_eq!(check_bootstrap(good), Ok(()), "{good}");
        }
        for bad in ["", " ", "localhost", "a:1,b", "a:x"] {
            assert!(check_bootstrap(bad).is_err(), "{bad}");
        }
    }
}
