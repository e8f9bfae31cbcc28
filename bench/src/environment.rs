//! What a report must state about where it was measured: the machine, and the process that listens at a port of it. The calling thread, before and after a run; knows no workload.

use std::collections::BTreeSet;
use std::fs;

use crate::results::Facts;

/// Processor, memory, kernel.
pub fn machine() -> Facts {
    let mut facts = Facts::default();
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = text("/proc/cpuinfo");
    let model = value_of(&cpu, "model name")
        .or_else(|| value_of(&cpu, "Model"))
        .unwrap_or(std::env::consts::ARCH);
    facts.put("processor", model);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    facts.put("cores", cores);
    let memory_kib: f64 = value_of(&text("/proc/meminfo"), "MemTotal")
        .and_then(|value| value.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0.0);
    facts.put("memory", format!("{:.1} GiB", memory_kib / 1024.0 / 1024.0));
    facts.put(
        "kernel",
        format!("Linux {}", text("/proc/sys/kernel/osrelease").trim()),
    );
    if let Some(name) = text("/etc/os-release")
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
    {
        facts.put("system", name.trim_matches('"'));
    }
    let governor = text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    if !governor.trim().is_empty() {
        facts.put("governor", governor.trim());
    }
    if cpu
        .lines()
        .any(|line| line.starts_with("flags") && line.contains(" hypervisor"))
    {
        facts.put("virtual machine", "yes");
    }
    facts
}

/// The value of the first line `name : value`.
fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// How many cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What a process has used: CPU seconds since its start, and the most bytes it had resident.
pub fn usage(pid: u32) -> Option<(f64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in brackets before the numbers, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak_kib: u64 = value_of(&status, "VmHWM")?
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    Some(((user + system) as f64 / ticks, peak_kib * 1024))
}

/// Makes the calling thread wake when its sleep ends, and not up to 50 us later.
pub fn wake_exactly() {
    // Where it is refused, the lag that is reported is larger.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

/// The process of this machine that listens at a port, if it can be seen.
pub fn listener(port: u16) -> Option<u32> {
    let mut sockets = BTreeSet::new();
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        sockets.extend(listening(
            &fs::read_to_string(path).unwrap_or_default(),
            port,
        ));
    }
    if sockets.is_empty() {
        return None;
    }
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // Others' processes cannot be looked into; processes end while one looks.
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else {
                continue;
            };
            let inode = target
                .to_str()
                .and_then(|name| name.strip_prefix("socket:["))
                .and_then(|name| name.strip_suffix(']'))
                .and_then(|number| number.parse().ok());
            if inode.is_some_and(|inode: u64| sockets.contains(&inode)) {
                return Some(pid);
            }
        }
    }
    None
}

/// The sockets that listen at a port, from the table of /proc/net/tcp.
fn listening(table: &str, port: u16) -> Vec<u64> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (_, number) = fields.get(1)?.rsplit_once(':')?;
            let here = u16::from_str_radix(number, 16).ok()? == port && *fields.get(3)? == "0A";
            here.then(|| fields.get(9)?.parse().ok()).flatten()
        })
        .collect()
}

/// How a process was started; long values of a Java class path are cut.
pub fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<String> = bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| quoted(&cut(&String::from_utf8_lossy(word))))
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

fn cut(word: &str) -> String {
    if word.len() <= 200 {
        return word.to_owned();
    }
    let head: String = word.chars().take(120).collect();
    format!("{head}...")
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// This program's own command line.
pub fn own_command() -> String {
    std::env::args()
        .map(|word| quoted(&word))
        .collect::<Vec<_>>()
        .join(" ")
}

/// What a broker's process says of its version: Millrace by its own answer, Kafka by the names of its jars.
pub fn broker_version(pid: u32) -> Option<String> {
    let maps = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&maps).replace('\0', " ");
    for word in line.split([' ', ':', '/']) {
        if let Some(rest) = word.strip_prefix("kafka_2.")
            && let Some((_, version)) = rest.split_once('-')
        {
            return Some(format!("Apache Kafka {}", version.trim_end_matches(".jar")));
        }
    }
    if line.contains("kafka.Kafka") {
        // The class path may be a directory with a star.
        for place in line.split([' ', ':']) {
            let Some(directory) = place.strip_suffix("/*") else {
                continue;
            };
            for entry in fs::read_dir(directory).ok()?.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if let Some(version) = name
                    .strip_prefix("kafka_2.")
                    .and_then(|rest| rest.split_once('-'))
                    .and_then(|(_, version)| version.strip_suffix(".jar"))
                {
                    return Some(format!("Apache Kafka {version}"));
                }
            }
        }
        return Some("Apache Kafka".to_owned());
    }
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let name = program.file_name()?.to_string_lossy().into_owned();
    if name != "millrace" {
        return Some(name);
    }
    let own = std::env::current_exe().ok();
    if own.is_some_and(|own| own == program) {
        return Some(format!("Millrace {}", env!("CARGO_PKG_VERSION")));
    }
    let answer = std::process::Command::new(format!("/proc/{pid}/exe"))
        .arg("--version")
        .output()
        .ok()?;
    let version = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
    Some(version.replacen("millrace", "Millrace", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let machine = machine();
        for name in ["processor", "cores", "memory", "kernel"] {
            assert!(
                machine.get(name).is_some_and(|value| !value.is_empty()),
                "{name}"
            );
        }
    }

    #[test]
    fn the_listener_of_a_port_is_this_process() {
        let listener_socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener_socket.local_addr().unwrap().port();
        assert_eq!(listener(port), Some(std::process::id()));
        assert!(command_line(std::process::id()).is_some());
    }

    #[test]
    fn this_process_has_used_memory_and_a_missing_one_has_no_usage() {
        let (_, peak_bytes) = usage(std::process::id()).unwrap();
        assert!(peak_bytes > 100_000);
        assert_eq!(usage(u32::MAX), None);
    }

    #[test]
    fn only_listening_sockets_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:2384 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 4242 1 0 100 0 0 10 0\n\
             1: 0100007F:2384 0100007F:9999 01 00000000:00000000 00:00000000 00000000  0 0 4343 1 0 100 0 0 10 0\n";
        assert_eq!(listening(table, 0x2384), [4242]);
        assert_eq!(listening(table, 1), Vec::<u64>::new());
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("a=b/c"), "a=b/c");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
