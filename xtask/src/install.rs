//! Installs the real clients, at pinned versions, from their registries into the build directory, once per change of their lists.
//! Knows the package managers and nothing of what the clients do.

use crate::workspace;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Installs what is not there yet.
pub fn all() -> Result<(), String> {
    let lists = workspace::root().join("tests/interop");
    let to = workspace::interop();
    fs::create_dir_all(&to).map_err(|error| format!("cannot create {}: {error}", to.display()))?;
    python(&lists, &to)?;
    node(&lists, &to)?;
    go(&lists, &to)?;
    java(&lists, &to)
}

fn python(lists: &Path, to: &Path) -> Result<(), String> {
    let requirements = lists.join("requirements.txt");
    once(
        &to.join("venv"),
        std::slice::from_ref(&requirements),
        "Python clients",
        |directory| {
            run(Command::new("python3").args(["-m", "venv"]).arg(directory))?;
            run(Command::new(directory.join("bin/python"))
                .args([
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    "-r",
                ])
                .arg(&requirements))
        },
    )
}

fn node(lists: &Path, to: &Path) -> Result<(), String> {
    let files = [
        lists.join("node/package.json"),
        lists.join("node/package-lock.json"),
    ];
    once(&to.join("node"), &files, "Node client", |directory| {
        for file in &files {
            let name = file.file_name().expect("a file name");
            fs::copy(file, directory.join(name))
                .map_err(|error| format!("cannot copy {}: {error}", file.display()))?;
        }
        run(Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund", "--silent"])
            .current_dir(directory))
    })
}

fn go(lists: &Path, to: &Path) -> Result<(), String> {
    let module = lists.join("franz");
    let files = [
        module.join("go.mod"),
        module.join("go.sum"),
        module.join("main.go"),
    ];
    once(
        &to.join("franz"),
        &files,
        "Go client and its test suite",
        |directory| {
            run(Command::new("go")
                .args(["build", "-o"])
                .arg(directory.join("client"))
                .arg(".")
                .current_dir(&module))?;
            run(Command::new("go")
                .args(["test", "-c", "-o"])
                .arg(directory.join("kgo.test"))
                .arg("github.com/twmb/franz-go/pkg/kgo")
                .current_dir(&module))
        },
    )
}

fn java(lists: &Path, to: &Path) -> Result<(), String> {
    let pom = lists.join("kafka/pom.xml");
    once(
        &to.join("kafka"),
        std::slice::from_ref(&pom),
        "Kafka and its tools",
        |directory| {
            run(Command::new("mvn")
                .args(["-B", "-q", "-f"])
                .arg(&pom)
                .args([
                    "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
                        .to_string(),
                    format!("-DoutputDirectory={}", directory.join("libs").display()),
                ]))
        },
    )?;
    let source = lists.join("kafka/JavaClient.java");
    once(
        &to.join("java-client"),
        std::slice::from_ref(&source),
        "Java client's test program",
        |directory| {
            let libraries = to.join("kafka/libs/*");
            run(Command::new("javac")
                .arg("-cp")
                .arg(libraries)
                .arg("-d")
                .arg(directory)
                .arg(&source))
        },
    )
}

/// Does the work in an empty directory unless it was finished there before from the same files.
fn once(
    directory: &Path,
    files: &[PathBuf],
    what: &str,
    work: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let mut wanted = String::new();
    for file in files {
        wanted += &fs::read_to_string(file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    }
    let stamp = directory.join(".installed");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        println!("{what}: installed already in {}", directory.display());
        return Ok(());
    }
    println!("{what}: installing into {}", directory.display());
    if directory.exists() {
        fs::remove_dir_all(directory)
            .map_err(|error| format!("cannot clear {}: {error}", directory.display()))?;
    }
    fs::create_dir_all(directory)
        .map_err(|error| format!("cannot create {}: {error}", directory.display()))?;
    work(directory)?;
    fs::write(&stamp, wanted).map_err(|error| format!("cannot write {}: {error}", stamp.display()))
}

fn run(command: &mut Command) -> Result<(), String> {
    println!("$ {command:?}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?} ended with {status}")),
        Err(error) => Err(format!("{command:?} cannot be run: {error}")),
    }
}
