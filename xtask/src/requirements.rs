//! The programs that the build and the suites with real clients need; tells which are missing and how to get them.

use std::process::{Command, Stdio};

struct Requirement {
    program: &'static str,
    version_flag: &'static str,
    why: &'static str,
    install: &'static str,
}

const BUILD: &[Requirement] = &[
    Requirement {
        program: "cc",
        version_flag: "--version",
        why: "builds librdkafka and zstd",
        install: "a C compiler (Debian: apt-get install build-essential)",
    },
    Requirement {
        program: "c++",
        version_flag: "--version",
        why: "builds librdkafka",
        install: "a C++ compiler (Debian: apt-get install build-essential)",
    },
    Requirement {
        program: "make",
        version_flag: "--version",
        why: "builds librdkafka",
        install: "make (Debian: apt-get install build-essential)",
    },
];

const INTEROP: &[Requirement] = &[
    Requirement {
        program: "python3",
        version_flag: "--version",
        why: "runs the suites, and the clients confluent-kafka, kafka-python and aiokafka",
        install: "Python 3.9 or newer with venv (Debian: apt-get install python3 python3-venv)",
    },
    Requirement {
        program: "node",
        version_flag: "--version",
        why: "runs the client kafkajs",
        install: "Node.js 18 or newer (https://nodejs.org)",
    },
    Requirement {
        program: "npm",
        version_flag: "--version",
        why: "installs the client kafkajs",
        install: "npm, which comes with Node.js (https://nodejs.org)",
    },
    Requirement {
        program: "go",
        version_flag: "version",
        why: "builds the client franz-go and its test suite",
        install: "Go 1.26 or newer (https://go.dev/dl)",
    },
    Requirement {
        program: "java",
        version_flag: "-version",
        why: "runs Kafka, its tools and the Java client",
        install: "a JDK, 17 or newer (Debian: apt-get install openjdk-17-jdk-headless)",
    },
    Requirement {
        program: "javac",
        version_flag: "-version",
        why: "compiles the test program of the Java client",
        install: "a JDK, 17 or newer (Debian: apt-get install openjdk-17-jdk-headless)",
    },
    Requirement {
        program: "mvn",
        version_flag: "--version",
        why: "fetches Kafka and its tools",
        install: "Maven 3.6 or newer (Debian: apt-get install maven)",
    },
];

const KCAT: Requirement = Requirement {
    program: "kcat",
    version_flag: "-V",
    why: "is one of the clients",
    install: "kcat (Debian: apt-get install kcat), or have apt-get and dpkg-deb, which fetch it",
};

/// What fetches kcat where it is not installed.
const KCAT_FETCH: &[Requirement] = &[
    Requirement {
        program: "apt-get",
        version_flag: "--version",
        why: "downloads kcat",
        install: "kcat itself (https://github.com/edenhill/kcat)",
    },
    Requirement {
        program: "dpkg-deb",
        version_flag: "--version",
        why: "unpacks kcat",
        install: "kcat itself (https://github.com/edenhill/kcat)",
    },
];

/// True if kcat needs no fetching.
pub fn kcat_installed() -> bool {
    runs(&KCAT)
}

/// What building needs.
pub fn build() -> Result<(), String> {
    check(BUILD)
}

/// What the suites with real clients need.
pub fn interop() -> Result<(), String> {
    check(INTEROP)?;
    if check(KCAT_FETCH).is_err() {
        check(&[KCAT])?;
    }
    let venv = Command::new("python3")
        .args(["-c", "import venv, ensurepip"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match venv {
        Ok(status) if status.success() => Ok(()),
        _ => Err("python3 cannot make virtual environments; install venv (Debian: apt-get install python3-venv)".to_string()),
    }
}

fn check(requirements: &[Requirement]) -> Result<(), String> {
    let missing: Vec<String> = requirements
        .iter()
        .filter(|one| !runs(one))
        .map(|one| {
            format!(
                "missing: {:<8} it {}; install {}",
                one.program, one.why, one.install
            )
        })
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(missing.join("\n"))
    }
}

fn runs(one: &Requirement) -> bool {
    Command::new(one.program)
        .arg(one.version_flag)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
