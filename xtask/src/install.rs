//! Installs the real clients, at pinned versions, from their registries into the build directory, once per change of their lists.
//! Knows the package managers and nothing of what the clients do.

use crate::{requirements, workspace};
use std::fs;
use std::os::unix::fs::PermissionsExt;
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
    java(&lists, &to)?;
    rskafka(&lists, &to)?;
    kcat(&lists, &to)
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

fn rskafka(lists: &Path, to: &Path) -> Result<(), String> {
    let project = lists.join("rskafka");
    let manifest = project.join("Cargo.toml");
    let files = [
        manifest.clone(),
        project.join("Cargo.lock"),
        project.join("src/main.rs"),
    ];
    once(&to.join("rskafka"), &files, "Rust client", |directory| {
        run(Command::new(workspace::cargo())
            .args(["build", "--quiet", "--locked", "--manifest-path"])
            .arg(&manifest)
            .arg("--target-dir")
            .arg(directory))
    })
}

/// Starts the unpacked kcat with the libraries that were unpacked beside it.
const KCAT_LAUNCHER: &str = r#"#!/bin/sh
here=$(dirname "$0")
LD_LIBRARY_PATH=$(echo "$here"/usr/lib/*-linux-gnu*) exec "$here/usr/bin/kcat" "$@"
"#;

/// kcat is in no registry of a language: what is installed is taken, else Debian's packages are unpacked, which needs no root.
fn kcat(lists: &Path, to: &Path) -> Result<(), String> {
    if requirements::kcat_installed() {
        println!("kcat: the installed one");
        return Ok(());
    }
    let list = lists.join("debian.txt");
    let unpack = |directory: &Path| {
        let packages = fs::read_to_string(&list)
            .map_err(|error| format!("cannot read {}: {error}", list.display()))?;
        let names = packages.lines().filter(|line| !line.starts_with('#'));
        // Root's apt-get would download as a user who may not write here.
        run(Command::new("apt-get")
            .args(["-q", "-o", "APT::Sandbox::User=root", "download"])
            .args(names)
            .current_dir(directory))?;
        run(Command::new("sh")
            .args([
                "-ec",
                "for package in *.deb; do dpkg-deb -x \"$package\" .; done",
            ])
            .current_dir(directory))?;
        let launcher = directory.join("kcat");
        fs::write(&launcher, KCAT_LAUNCHER)
            .and_then(|()| fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755)))
            .map_err(|error| format!("cannot write {}: {error}", launcher.display()))?;
        run(Command::new(&launcher).arg("-V"))
    };
    once(
        &to.join("kcat"),
        std::slice::from_ref(&list),
        "kcat",
        unpack,
    )
    .map_err(|error| {
        format!(
            "{error}\nmissing: kcat, and its packages cannot be fetched (apt-get update may help); install kcat (Debian: apt-get install kcat)"
        )
    })
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
