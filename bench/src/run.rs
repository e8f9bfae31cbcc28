//! `millrace bench run`: a workload against a broker, from its topics to its results. The calling thread looks once a second at what the others count; knows phases and totals, and no chart.

mod clients;
mod cluster;
mod progress;
mod shared;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::kafka_config::{self, Properties};
use crate::payload::Random;
use crate::results::{FORMAT, Facts, Latency, Phase, Run, Second, Since, Totals};
use crate::run::clients::{Clients, Window};
use crate::run::cluster::Cluster;
use crate::run::progress::Progress;
use crate::run::shared::Shared;
use crate::workload::{Driver, Workload};
use crate::{Failure, clock, environment, hdr_files, properties, report_files};

/// How long consumers may take to get their partitions, and topics their leaders.
const READY: Duration = Duration::from_secs(60);
/// How long what is under way at the end may take.
const SETTLE: Duration = Duration::from_secs(30);
/// Fewer records than this are no backlog: they are under way.
const BACKLOG_LEAST: u64 = 1000;

/// The options.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Workload files in OpenMessaging Benchmark's form; several are run one after the other and compared.
    #[arg(required = true, value_name = "WORKLOAD.yaml")]
    workloads: Vec<PathBuf>,
    /// The broker: HOST:PORT, several separated by commas [default: localhost:9092].
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap_server: Option<String>,
    /// An OpenMessaging Benchmark driver file for Kafka: client and topic settings.
    #[arg(long, value_name = "DRIVER.yaml")]
    driver: Option<PathBuf>,
    /// A file of properties for all clients.
    #[arg(long, value_name = "FILE")]
    command_config: Option<String>,
    /// A property of all clients, by its Java name.
    #[arg(long, value_name = "KEY=VALUE")]
    command_property: Vec<String>,
    /// A property of the producers.
    #[arg(long, value_name = "KEY=VALUE")]
    producer_property: Vec<String>,
    /// A property of the consumers.
    #[arg(long, value_name = "KEY=VALUE")]
    consumer_property: Vec<String>,
    /// A config of the topics that are created.
    #[arg(long, value_name = "KEY=VALUE")]
    topic_config: Vec<String>,
    /// Replicas of each partition [default: the broker's default].
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    replication_factor: Option<i32>,
    /// Replaces a key of the workload.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// What the report calls the run [default: the workload's name].
    #[arg(long)]
    name: Option<String>,
    /// Where results and report go [default: bench-results/<time>-<name>].
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The broker's process on this machine, for its CPU time and memory [default: who listens at the port].
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// Do not delete the topics at the end.
    #[arg(long)]
    keep_topics: bool,
}

/// Everything that one run needs.
struct Plan {
    workload: Workload,
    name: String,
    servers: String,
    producer: rdkafka::ClientConfig,
    consumer: rdkafka::ClientConfig,
    topic_prefix: String,
    topic_configs: Properties,
    replication_factor: i32,
    broker_pid: Option<u32>,
    keep_topics: bool,
    settings: Facts,
}

/// Runs the workloads and writes results and report.
///
/// # Errors
/// A sentence for the operator.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let plans = plans(arguments)?;
    let output = match &arguments.output {
        Some(directory) => directory.clone(),
        None => default_output(&plans[0].name),
    };
    std::fs::create_dir_all(&output)
        .map_err(|error| Failure(format!("{} cannot be made: {error}", output.display())))?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // A second signal ends the program at once.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&interrupted))?;
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let mut runs = Vec::new();
    for plan in &plans {
        let measured = Measured::of(plan, &interrupted)?;
        let stem = (plans.len() > 1).then(|| report_files::slug(&plan.name));
        report_files::write_run(&output, stem.as_deref(), &measured.run)?;
        hdr_files::write_logs(&output, stem.as_deref(), &measured.run, &measured.intervals)?;
        println!(
            "{}",
            report_files::table(std::slice::from_ref(&measured.run))
        );
        runs.push(measured.run);
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
    }
    let page = report_files::write_report(&output, &runs)?;
    println!("Report: {}", page.display());
    Ok(())
}

fn default_output(name: &str) -> PathBuf {
    let at = clock::format_local("yyyyMMdd-HHmmss", clock::wall_ms()).unwrap_or_default();
    PathBuf::from("bench-results").join(format!("{at}-{}", report_files::slug(name)))
}

fn pairs(texts: &[String]) -> Result<Properties, Failure> {
    texts
        .iter()
        .map(|text| {
            text.split_once('=')
                .map(|(key, value)| (key.trim().to_owned(), value.to_owned()))
                .ok_or_else(|| Failure(format!("\"{text}\" is not key=value")))
        })
        .collect()
}

fn plans(arguments: &Arguments) -> Result<Vec<Plan>, Failure> {
    let driver = match &arguments.driver {
        Some(path) => Driver::load(path)?,
        None => Driver::default(),
    };
    let mut common = driver.common.clone();
    if let Some(path) = &arguments.command_config {
        common.extend(properties::load(path)?);
    }
    common.extend(pairs(&arguments.command_property)?);
    if let Some(servers) = &arguments.bootstrap_server {
        common.insert("bootstrap.servers".to_owned(), servers.clone());
    }
    let servers = common
        .entry("bootstrap.servers".to_owned())
        .or_insert_with(|| "localhost:9092".to_owned())
        .clone();
    let with = |more: &Properties, given: &[String]| -> Result<Properties, Failure> {
        let mut all = common.clone();
        all.extend(more.clone());
        all.extend(pairs(given)?);
        Ok(all)
    };
    let mut producer = with(&driver.producer, &arguments.producer_property)?;
    kafka_config::pipelined(&mut producer);
    let mut consumer = with(&driver.consumer, &arguments.consumer_property)?;
    // The topics are new; whatever was sent before a consumer had its partitions is still to be read.
    consumer.insert("auto.offset.reset".to_owned(), "earliest".to_owned());
    let mut topic_configs = driver.topic.clone();
    topic_configs.extend(pairs(&arguments.topic_config)?);
    let mut settings = Facts::default();
    for (kind, set) in [
        ("producer", &producer),
        ("consumer", &consumer),
        ("topic", &topic_configs),
    ] {
        let text: Vec<String> = set
            .iter()
            .filter(|(key, _)| !secret(key) && key.as_str() != "bootstrap.servers")
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        if !text.is_empty() {
            settings.put(kind, text.join(" "));
        }
    }
    let mut plans = Vec::new();
    for path in &arguments.workloads {
        let workload = Workload::load(path, &arguments.set)?;
        let name = match (&arguments.name, arguments.workloads.len()) {
            (Some(name), 1) => name.clone(),
            (Some(name), _) => format!("{name}: {}", workload.name),
            (None, _) => workload.name.clone(),
        };
        plans.push(Plan {
            name,
            servers: servers.clone(),
            producer: kafka_config::producer(&producer)?,
            consumer: kafka_config::consumer(&consumer)?,
            topic_prefix: driver
                .topic_prefix
                .clone()
                .unwrap_or_else(|| "bench".to_owned()),
            topic_configs: topic_configs.clone(),
            replication_factor: arguments
                .replication_factor
                .or(driver.replication_factor)
                .unwrap_or(-1),
            broker_pid: arguments.broker_pid,
            keep_topics: arguments.keep_topics,
            settings: settings.clone(),
            workload,
        });
    }
    Ok(plans)
}

/// Whether a property must not stand in a report.
fn secret(key: &str) -> bool {
    ["password", "jaas", "secret", "token", ".key"]
        .iter()
        .any(|word| key.contains(word))
}

/// The port of the first bootstrap server, if it is on this machine.
fn local_port(servers: &str) -> Option<u16> {
    let (host, port) = servers.split(',').next()?.trim().rsplit_once(':')?;
    let host = host.rsplit("//").next().unwrap_or(host);
    let local = matches!(host, "localhost" | "127.0.0.1" | "[::1]" | "0.0.0.0");
    local.then(|| port.parse().ok()).flatten()
}

/// A run and what its logs are made of.
struct Measured {
    run: Run,
    intervals: Vec<hdr_files::Interval>,
}

/// What is counted since the clients started.
#[derive(Debug, Default, Clone, Copy)]
struct Ever {
    acknowledged: u64,
    received: u64,
}

/// A run under way.
struct Running<'a> {
    plan: &'a Plan,
    clients: &'a Clients,
    shared: &'a Shared,
    interrupted: &'a AtomicBool,
    progress: Progress,
    ever: Ever,
    /// Everything since the measured part began.
    total: Window,
    seconds: Vec<Second>,
    intervals: Vec<hdr_files::Interval>,
    phases: Vec<Phase>,
    remarks: Vec<String>,
    started_ns: u64,
    last_ns: u64,
    measuring: bool,
}

impl Measured {
    fn of(plan: &Plan, interrupted: &Arc<AtomicBool>) -> Result<Measured, Failure> {
        let workload = &plan.workload;
        eprintln!("{}: {}", plan.name, plan.servers);
        let cluster = Cluster::connect(&plan.producer)?;
        let topics = topic_names(plan);
        cluster.create(
            &topics,
            workload.partitions_per_topic,
            plan.replication_factor,
            &plan.topic_configs,
            READY,
        )?;
        let outcome = Measured::on(plan, &cluster, &topics, interrupted);
        if !plan.keep_topics
            && let Err(why) = cluster.delete(&topics)
        {
            eprintln!("The topics could not be deleted: {why}");
        }
        outcome
    }

    fn on(
        plan: &Plan,
        cluster: &Cluster,
        topics: &[String],
        interrupted: &AtomicBool,
    ) -> Result<Measured, Failure> {
        let workload = &plan.workload;
        let (mut versions, durability) = cluster.facts(&topics[0], &plan.servers);
        let pid = plan
            .broker_pid
            .or_else(|| local_port(&plan.servers).and_then(environment::listener));
        let mut commands = Facts::default();
        commands.put("client", environment::own_command());
        if let Some(pid) = pid {
            if let Some(line) = environment::command_line(pid) {
                commands.put("broker", line);
            }
            if let Some(version) = environment::broker_version(pid) {
                versions.put("broker", version);
            }
        }
        let shared = Arc::new(Shared::new());
        let clients = Clients::start(workload, topics, &plan.producer, &plan.consumer, &shared)?;
        let mut running = Running {
            plan,
            clients: &clients,
            shared: &shared,
            interrupted,
            progress: Progress::new(&plan.name),
            ever: Ever::default(),
            total: Window::default(),
            seconds: Vec::new(),
            intervals: Vec::new(),
            phases: Vec::new(),
            remarks: Vec::new(),
            started_ns: 0,
            last_ns: 0,
            measuring: false,
        };
        let outcome = running.go(pid, topics.len() as u64);
        running.progress.finish();
        shared.stop();
        let (client_cpu_s, broker) = outcome?;
        let elapsed_s = (running.last_ns - running.started_ns) as f64 / 1e9;
        let started_ms =
            clock::wall_ms() - ((shared.now_ns() - running.started_ns) / 1_000_000) as i64;
        let Running {
            total,
            seconds,
            intervals,
            phases,
            mut remarks,
            ..
        } = running;
        clients.join();
        // Rates are of the measured part only; what settled afterwards is in the histograms.
        let sum = |of: fn(&Second) -> u64| seconds.iter().map(of).sum::<u64>();
        let mut totals = Totals {
            records_intended: if workload.rate > 0.0 {
                (workload.rate * elapsed_s).round() as u64
            } else {
                total.sent
            },
            records_sent: total.sent,
            records_acknowledged: sum(|second| second.acknowledged),
            records_failed: total.failed,
            bytes_acknowledged: sum(|second| second.acknowledged_bytes),
            records_received: sum(|second| second.received),
            bytes_received: sum(|second| second.received_bytes),
            client_cpu_s,
            ..Totals::default()
        };
        totals.rates(elapsed_s);
        if let Some((cpu_s, memory)) = broker {
            totals.broker_cpu_s = Some(cpu_s);
            totals.broker_memory_peak_bytes = Some(memory);
        }
        clients::remarks(workload, &total, &totals, elapsed_s, &mut remarks);
        let mut latencies = Vec::new();
        for (kind, pair) in [
            ("publish", &total.publish),
            ("end_to_end", &total.end_to_end),
        ] {
            if !pair.intended.is_empty() {
                latencies.push(Latency::new(kind, Since::Intended, 1, &pair.intended));
                latencies.push(Latency::new(kind, Since::Sent, 1, &pair.sent));
            }
        }
        if workload.rate > 0.0 {
            latencies.push(Latency::new("send_lag", Since::Intended, 1, &total.lag));
        }
        let mut facts = workload.facts();
        for (name, value) in plan.settings.iter() {
            facts.put(&format!("{name} settings"), value);
        }
        let run = Run {
            format: FORMAT.to_owned(),
            name: plan.name.clone(),
            tool: "bench run".to_owned(),
            started_ms,
            elapsed_s,
            commands,
            machine: environment::machine(),
            versions,
            durability,
            workload: facts,
            totals,
            latencies,
            seconds,
            phases,
            remarks,
        };
        Ok(Measured { run, intervals })
    }
}

fn topic_names(plan: &Plan) -> Vec<String> {
    let mut random = Random::new(clock::wall_ms() as u64 ^ u64::from(std::process::id()) << 32);
    let mut word = [0; 7];
    random.letters(&mut word);
    let word = String::from_utf8_lossy(&word).to_lowercase();
    (0..plan.workload.topics)
        .map(|index| format!("{}-{word}-{index:04}", plan.topic_prefix))
        .collect()
}

impl Running<'_> {
    /// All phases. Gives the generator's CPU seconds, and the broker's CPU seconds and peak memory.
    fn go(&mut self, pid: Option<u32>, topics: u64) -> Result<(f64, Option<(f64, u64)>), Failure> {
        let workload = &self.plan.workload;
        self.wait_for_consumers(topics)?;
        self.shared.open();
        self.last_ns = self.shared.now_ns();
        if !workload.warmup.is_zero() {
            let until_ns = self.shared.now_ns() + workload.warmup.as_nanos() as u64;
            self.watch("warm-up", |_, now_ns| now_ns >= until_ns)?;
        }
        // What is taken out here was of the warm-up.
        self.started_ns = self.shared.begin();
        self.look(false);
        self.last_ns = self.started_ns;
        self.measuring = true;
        let client_before_s = own_cpu_s();
        let broker_before = pid.and_then(environment::usage);
        if workload.backlog_bytes > 0 {
            self.backlog()?;
        }
        let until_ns = workload.test.map_or(u64::MAX, |test| {
            // After a backlog the whole duration follows, as in OpenMessaging Benchmark.
            let from_ns = if workload.backlog_bytes > 0 {
                self.shared.now_ns()
            } else {
                self.started_ns
            };
            from_ns + test.as_nanos() as u64
        });
        self.shared.end_at(until_ns);
        self.watch("test", |_, now_ns| now_ns >= until_ns)?;
        let end_ns = self.shared.now_ns().min(until_ns);
        self.shared.end_at(end_ns);
        self.look(true);
        let measured_until_ns = self.last_ns;
        let client_cpu_s = own_cpu_s() - client_before_s;
        let broker = pid.and_then(environment::usage).zip(broker_before);
        self.settle()?;
        self.last_ns = measured_until_ns;
        Ok((
            client_cpu_s,
            broker.map(|((after_s, peak_bytes), (before_s, _))| (after_s - before_s, peak_bytes)),
        ))
    }

    /// One record to each partition shows that every subscription has it.
    fn wait_for_consumers(&mut self, topics: u64) -> Result<(), Failure> {
        let workload = &self.plan.workload;
        let partitions = topics * u64::from(workload.partitions_per_topic);
        self.progress.say("opening the way to every partition");
        self.clients.probe(workload.partitions_per_topic, READY)?;
        if workload.consumers() == 0 {
            return Ok(());
        }
        let expected = partitions * u64::from(workload.subscriptions_per_topic);
        let begin = clock::now();
        loop {
            let found = self.shared.probes();
            if found >= expected {
                return Ok(());
            }
            if begin.elapsed() > READY {
                return Err(Failure(format!(
                    "the consumers were not ready within {} s: {found} of {expected} first records came",
                    READY.as_secs()
                )));
            }
            self.check_interrupt()?;
            self.progress.say(&format!(
                "waiting for consumers: {found} of {expected} partitions"
            ));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn check_interrupt(&self) -> Result<(), Failure> {
        if self.interrupted.load(Ordering::Relaxed) && !self.measuring {
            return Err(Failure(
                "interrupted before anything was measured".to_owned(),
            ));
        }
        Ok(())
    }

    /// Looks once a second until a condition holds, or somebody interrupts.
    fn watch(
        &mut self,
        phase: &str,
        mut over: impl FnMut(&Self, u64) -> bool,
    ) -> Result<(), Failure> {
        let mut next_ns = self.last_ns + 1_000_000_000;
        loop {
            let now_ns = self.shared.now_ns();
            let ends = over(self, now_ns) || self.interrupted.load(Ordering::Relaxed);
            // The last piece of a second belongs to what ended, if it is long enough for a rate.
            if now_ns >= next_ns || (ends && now_ns > self.last_ns + 200_000_000) {
                let second = self.look(self.measuring);
                self.progress
                    .show(phase, &second, self.plan.workload.consumers() > 0);
                while next_ns <= now_ns {
                    next_ns += 1_000_000_000;
                }
            }
            if let Some(why) = self.shared.failure() {
                return Err(Failure(why));
            }
            self.check_interrupt()?;
            if ends {
                return Ok(());
            }
            std::thread::sleep(Duration::from_nanos(
                next_ns
                    .saturating_sub(self.shared.now_ns())
                    .min(100_000_000),
            ));
        }
    }

    /// Takes what was counted since the last look. `keep`: it is a second of the measured part.
    fn look(&mut self, keep: bool) -> Second {
        let window = self.clients.take();
        let now_ns = self.shared.now_ns();
        let length_s = (now_ns - self.last_ns).max(1) as f64 / 1e9;
        self.ever.acknowledged += window.acknowledged;
        self.ever.received += window.received;
        let mut second = window.second();
        second.length_s = length_s;
        second.at_s = now_ns.saturating_sub(self.started_ns) as f64 / 1e9;
        second.backlog = self.backlog_records();
        if keep {
            self.seconds.push(second.clone());
        }
        if self.measuring {
            // The log has what settles after the end too, so that it adds up to the whole.
            let start_ns = self.last_ns.saturating_sub(self.started_ns);
            self.intervals.extend(window.intervals(start_ns, length_s));
            self.total.add(&window);
        }
        self.last_ns = now_ns;
        second
    }

    fn backlog_records(&self) -> u64 {
        let subscriptions = if self.plan.workload.consumers() > 0 {
            u64::from(self.plan.workload.subscriptions_per_topic)
        } else {
            0
        };
        (self.ever.acknowledged * subscriptions).saturating_sub(self.ever.received)
    }

    /// Stops the consumers until the backlog is there, then waits until it is gone.
    fn backlog(&mut self) -> Result<(), Failure> {
        let workload = &self.plan.workload;
        let bytes = workload.message_bytes as u64;
        let wanted = workload.backlog_bytes / bytes;
        let begin_ns = self.shared.now_ns();
        self.shared.pause(true);
        self.watch("building the backlog", |running, _| {
            running.backlog_records() >= wanted
        })?;
        let built_ns = self.shared.now_ns();
        let built = self.backlog_records();
        self.phase("build the backlog", begin_ns, built_ns, |facts, seconds| {
            facts.put("records", built);
            facts.put("records/s", (built as f64 / seconds).round());
        });
        self.shared.pause(false);
        let received_before = self.ever.received;
        let empty =
            (((1.0 - workload.drain_ratio) * wanted as f64) as u64).max(BACKLOG_LEAST.min(wanted));
        self.watch("draining the backlog", |running, _| {
            running.backlog_records() <= empty
        })?;
        let received = self.ever.received - received_before;
        self.phase(
            "drain the backlog",
            built_ns,
            self.shared.now_ns(),
            |facts, seconds| {
                facts.put("records consumed", received);
                facts.put("records/s", (received as f64 / seconds).round());
                let mib = (received * bytes) as f64 / crate::results::MIB / seconds;
                facts.put("MiB/s", format!("{mib:.1}"));
            },
        );
        Ok(())
    }

    fn phase(
        &mut self,
        name: &str,
        begin_ns: u64,
        end_ns: u64,
        fill: impl FnOnce(&mut Facts, f64),
    ) {
        let length_s = (end_ns - begin_ns) as f64 / 1e9;
        let mut facts = Facts::default();
        fill(&mut facts, length_s.max(1e-9));
        self.phases.push(Phase {
            name: name.to_owned(),
            start_s: begin_ns.saturating_sub(self.started_ns) as f64 / 1e9,
            length_s,
            facts,
        });
    }

    /// Waits for what is under way: its latencies belong to the run.
    fn settle(&mut self) -> Result<(), Failure> {
        self.progress.say("waiting for what is under way");
        let begin = clock::now();
        while !(self.clients.senders_done() && self.clients.in_flight() == 0)
            && begin.elapsed() < SETTLE
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        let unsent = self.clients.give_up();
        if unsent > 0 {
            self.remarks.push(format!(
                "{unsent} records of the schedule were not sent even {} s after its end: the percentiles are better than the truth.",
                SETTLE.as_secs()
            ));
        }
        let open = self.clients.in_flight();
        if open > 0 {
            self.remarks.push(format!(
                "{open} records were neither acknowledged nor refused {} s after the end; their latencies are missing.",
                SETTLE.as_secs()
            ));
        }
        self.look(false);
        let (mut backlog, mut moved) = (self.backlog_records(), clock::now());
        while backlog > 0
            && moved.elapsed() < Duration::from_secs(5)
            && begin.elapsed() < SETTLE * 2
        {
            std::thread::sleep(Duration::from_millis(20));
            self.look(false);
            if self.backlog_records() < backlog {
                backlog = self.backlog_records();
                moved = clock::now();
            }
        }
        if backlog > 0 {
            self.remarks.push(format!(
                "{backlog} records were acknowledged and not consumed when the run ended; their end-to-end latencies are missing."
            ));
        }
        Ok(())
    }
}

/// CPU seconds of this process.
fn own_cpu_s() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_broker_of_this_machine_is_looked_for() {
        assert_eq!(local_port("localhost:9092"), Some(9092));
        assert_eq!(local_port("127.0.0.1:1,other:2"), Some(1));
        assert_eq!(local_port("PLAINTEXT://127.0.0.1:7"), Some(7));
        assert_eq!(local_port("example.org:9092"), None);
        assert_eq!(local_port("localhost"), None);
    }

    #[test]
    fn secrets_stay_out_of_reports() {
        for key in ["sasl.jaas.config", "ssl.key.password", "ssl.keystore.key"] {
            assert!(secret(key), "{key}");
        }
        assert!(!secret("acks") && !secret("batch.size"));
    }
}
