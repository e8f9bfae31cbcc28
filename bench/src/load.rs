//! `millrace bench load`: raw requests to a broker, closed or open loop, from one thread or from one on each of some cores. Knows the order of a run, and leaves the protocol to a [`wire::Wire`], the sockets to [`drive`], the figures to [`summary`].

pub mod cluster;
pub mod connection;
pub mod drive;
pub mod kafka;
pub mod native;
pub mod pace;
pub mod summary;
pub mod wire;

#[cfg(test)]
mod tests;

use std::sync::Barrier;
use std::time::Duration;

use clap::ValueEnum;
use client::Greeting;
use client::blocking::Client;
use client::stream::unix_path;

use crate::payload::Random;
use crate::{Failure, process};
use cluster::{Cluster, Placement};
use connection::Connection;
use drive::Plan;
use kafka::KafkaWire;
use native::NativeWire;
use pace::Turns;
use wire::{Batch, Wire};

/// The options of `millrace bench load`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The brokers to start from, like host1:9092,host2:9092; with the native protocol, its listener, or its Unix
    /// socket as unix:/path.
    #[arg(long, value_name = "HOST:PORT")]
    pub bootstrap_server: String,
    /// The protocol that requests are made of.
    #[arg(long, value_enum, default_value_t = Protocol::Kafka)]
    pub protocol: Protocol,
    /// With the native protocol: the Kafka listener, where the topic is created and deleted. Without it the broker
    /// creates the topic as it creates one that is missing.
    #[arg(long, value_name = "HOST:PORT")]
    pub kafka_server: Option<String>,
    /// With the native protocol: asks the broker's core to look for work before it sleeps (native.idle.poll.us).
    #[arg(long)]
    pub idle_poll: bool,
    /// The topic.
    #[arg(long, default_value = "bench-load")]
    pub topic: String,
    /// Connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// Requests under way on each connection, at most; default 1, in an open loop 32.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub in_flight: Option<u32>,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=64 << 20))]
    pub record_size: u32,
    /// Records in each batch.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub records_per_batch: u32,
    /// Partitions in all, spread over the connections; default one for each connection.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub partitions: Option<u32>,
    /// Batches in a request, each for another partition.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub partitions_per_request: u32,
    /// Who must have the records before the answer: all (-1), 1, or 0 for no answer.
    #[arg(long, default_value = "all", allow_hyphen_values = true, value_parser = parse_acks)]
    pub acks: i16,
    /// Open loop: so many requests a second in all, whatever the broker does. Without it a closed loop: as fast as
    /// answers come.
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_positive)]
    pub rate: Option<f64>,
    /// Seconds before the measured ones.
    #[arg(long, default_value = "1", value_parser = parse_seconds)]
    pub warmup_seconds: Duration,
    /// Measured seconds.
    #[arg(long, default_value = "5", value_parser = parse_seconds)]
    pub seconds: Duration,
    /// Measured instead of seconds: exactly so many requests in a closed loop, without warm-up.
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["rate", "seconds", "warmup_seconds"],
          value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
    /// How long to wait after that for answers that are still due.
    #[arg(long, default_value = "30", value_parser = parse_seconds)]
    pub drain_seconds: Duration,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// The core to run on; several, separated by commas: a thread on each, with its share of the connections.
    #[arg(long, value_name = "CORES", value_delimiter = ',')]
    pub core: Vec<usize>,
    /// The broker's process on this machine: its CPU time and memory are measured.
    #[arg(long, value_name = "PID")]
    pub broker_pid: Option<u32>,
    /// Polls instead of sleeping: sends open-loop requests on time to the microsecond, and takes a whole core.
    #[arg(long)]
    pub spin: bool,
    /// The address is a bare loop's: every partition is there, and nobody is asked.
    #[arg(long, conflicts_with_all = ["create_topic", "delete_topic"])]
    pub bare: bool,
    /// Creates the topic when it is not there.
    #[arg(long)]
    pub create_topic: bool,
    /// Deletes the topic at the end.
    #[arg(long)]
    pub delete_topic: bool,
    /// A config of the created topic; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", requires = "create_topic")]
    pub topic_config: Vec<String>,
}

/// A protocol of the broker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Kafka's.
    Kafka,
    /// Millrace's own.
    Native,
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A few lines for people.
    Text,
    /// One object, histograms included.
    Json,
}

fn parse_acks(text: &str) -> Result<i16, String> {
    match text {
        "all" | "-1" => Ok(-1),
        "1" => Ok(1),
        "0" => Ok(0),
        _ => Err("one of all, -1, 1, 0".to_owned()),
    }
}

fn parse_positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("a number above zero".to_owned()),
    }
}

pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=1e7).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds".to_owned()),
    }
}

impl Arguments {
    fn in_flight(&self) -> usize {
        self.in_flight
            .unwrap_or(if self.rate.is_some() { 32 } else { 1 }) as usize
    }

    fn partitions(&self) -> u32 {
        self.partitions
            .unwrap_or(self.connections.max(self.partitions_per_request))
    }

    /// Threads that drive the connections.
    fn thread_count(&self) -> usize {
        self.core.len().max(1)
    }

    /// Whether each of the cores is there, and has a connection to drive.
    fn check_cores(&self) -> Result<(), Failure> {
        let count = self.thread_count();
        if (self.connections as usize) < count {
            return Err(Failure(format!(
                "--core names {count} cores for --connections {}: each takes one at least",
                self.connections
            )));
        }
        let mut cores = self.core.clone();
        cores.sort_unstable();
        cores.dedup();
        if cores.len() < self.core.len() {
            return Err(Failure("--core names a core twice".to_owned()));
        }
        Ok(())
    }

    /// What one of the threads does: its part of the rate or of the requests.
    fn plan(&self, thread: usize) -> Plan {
        let count = self.thread_count();
        // The first ones take what does not go round.
        let share = |all: u64| (all + (count - 1 - thread) as u64) / count as u64;
        Plan {
            in_flight: self.in_flight(),
            pace: self.rate.map(|rate| Turns {
                rate,
                first: thread as u64,
                step: count as u64,
            }),
            answered: self.acks != 0,
            requests: self.requests.map(share),
            warmup: match self.requests {
                Some(_) => Duration::ZERO,
                None => self.warmup_seconds,
            },
            seconds: self.seconds,
            drain: self.drain_seconds,
            spin: self.spin,
            // One looks at the broker for all.
            broker_pid: self.broker_pid.filter(|_| thread == 0),
        }
    }

    fn batch(&self) -> Batch {
        Batch {
            records: self.records_per_batch,
            value_bytes: self.record_size,
        }
    }
}

/// Runs it.
///
/// # Errors
/// A sentence for the operator.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    arguments.check_cores()?;
    for (option, given) in [
        ("--kafka-server", arguments.kafka_server.is_some()),
        ("--idle-poll", arguments.idle_poll),
    ] {
        if given && arguments.protocol == Protocol::Kafka {
            return Err(Failure(format!("{option} belongs to --protocol native")));
        }
    }
    if arguments.protocol == Protocol::Kafka && unix_path(&arguments.bootstrap_server).is_some() {
        return Err(Failure(format!(
            "{} is a Unix socket: that takes --protocol native",
            arguments.bootstrap_server
        )));
    }
    let outcome = match arguments.protocol {
        Protocol::Kafka => {
            let cluster = Cluster::find(arguments)?;
            let outcome = kafka(arguments, &cluster);
            if arguments.delete_topic {
                cluster.delete_topic()?;
            }
            outcome
        }
        Protocol::Native => native(arguments),
    };
    match outcome?.print(arguments.output) {
        // Whoever reads the output has gone.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// A run over the Kafka protocol.
fn kafka(arguments: &Arguments, cluster: &Cluster) -> Result<summary::Summary, Failure> {
    let wire = KafkaWire::new(
        &arguments.topic,
        arguments.acks,
        arguments.batch(),
        crate::clock::wall_ms(),
    );
    measure(arguments, cluster, &wire)
}

/// A run over the native protocol.
fn native(arguments: &Arguments) -> Result<summary::Summary, Failure> {
    if arguments.bare {
        return Err(Failure("a bare loop speaks no native protocol".to_owned()));
    }
    // What only the Kafka protocol can ask for is asked there.
    let beside = match &arguments.kafka_server {
        Some(address) => Some(Cluster::find(&Arguments {
            bootstrap_server: address.clone(),
            ..arguments.clone()
        })?),
        None if arguments.delete_topic || !arguments.topic_config.is_empty() => {
            return Err(Failure(
                "a topic's configs, and its end, take --kafka-server".to_owned(),
            ));
        }
        None => None,
    };
    let cannot = |error: client::Error| {
        Failure(format!(
            "topic {} at {}: {error}",
            arguments.topic, arguments.bootstrap_server
        ))
    };
    let greeting = Greeting {
        idle_poll: arguments.idle_poll,
        ..Greeting::from("millrace-bench")
    };
    let topic = Client::connect(&arguments.bootstrap_server, greeting.clone())
        .and_then(|mut client| client.topic(&arguments.topic, arguments.create_topic))
        .map_err(cannot)?;
    let partitions = arguments.partitions();
    if topic.partition_count < partitions.cast_signed() {
        return Err(Failure(format!(
            "topic {} has {} partitions, fewer than {partitions}",
            arguments.topic, topic.partition_count
        )));
    }
    let wire = NativeWire::new(
        greeting,
        topic.id,
        arguments.acks,
        arguments.batch(),
        crate::clock::wall_ms(),
    );
    let cluster = Cluster::given(&arguments.bootstrap_server, &arguments.topic, partitions);
    let outcome = measure(arguments, &cluster, &wire);
    if let Some(cluster) = beside
        && arguments.delete_topic
    {
        cluster.delete_topic()?;
    }
    outcome
}

/// Connects, prepares every request, and drives the load.
pub fn measure<W: Wire + Sync>(
    arguments: &Arguments,
    cluster: &Cluster,
    wire: &W,
) -> Result<summary::Summary, Failure> {
    let placements = cluster.place(
        arguments.connections as usize,
        arguments.partitions_per_request as usize,
    )?;
    let count = arguments.thread_count();
    let connected = Barrier::new(count);
    let one = |index: usize| {
        let prepared = match arguments.core.get(index) {
            Some(core) => process::pin_to(*core),
            None => Ok(()),
        }
        .and_then(|()| {
            let mut random = Random::new(u64::from(std::process::id()) + ((index as u64) << 32));
            let mine = placements.iter().skip(index).step_by(count);
            mine.map(|placement| connect(arguments, wire, placement, &mut random))
                .collect::<Result<Vec<_>, _>>()
        });
        // Nobody waits for a thread that could not connect: it comes here too.
        connected.wait();
        drive::drive(wire, prepared?, &arguments.plan(index))
    };
    let parts = std::thread::scope(|scope| {
        let others: Vec<_> = (1..count)
            .map(|index| {
                let one = &one;
                scope.spawn(move || one(index))
            })
            .collect();
        let mut parts = vec![one(0)];
        parts.extend(
            others
                .into_iter()
                .map(|other| other.join().expect("a thread of the load does not panic")),
        );
        parts.into_iter().collect::<Result<Vec<_>, _>>()
    })?;
    Ok(summary::Summary {
        workload: summary::Workload {
            protocol: W::NAME,
            target: arguments.bootstrap_server.clone(),
            bare: arguments.bare,
            topic: arguments.topic.clone(),
            connections: arguments.connections,
            in_flight: arguments.in_flight(),
            partitions: arguments.partitions(),
            partitions_per_request: arguments.partitions_per_request,
            record_bytes: arguments.record_size,
            records_per_batch: arguments.records_per_batch,
            acks: arguments.acks,
            rate: arguments.rate,
            warmup_seconds: arguments.warmup_seconds.as_secs_f64(),
            spin: arguments.spin,
            cores: arguments.core.clone(),
        },
        measured: summary::Measured::merge(parts),
    })
}

fn connect<W: Wire>(
    arguments: &Arguments,
    wire: &W,
    placement: &Placement,
    random: &mut Random,
) -> Result<Connection, Failure> {
    // Each request under way needs a number of its own, and every partition gets its turn.
    let groups: Vec<&[i32]> = placement
        .partitions
        .chunks(arguments.partitions_per_request as usize)
        .collect();
    let count = arguments
        .in_flight()
        .max(groups.len())
        .next_multiple_of(groups.len());
    let mut stream = connection::dial(&placement.address)?;
    wire.open(&mut stream)?;
    let requests = (0..count)
        .map(|number| wire.prepare(number as u32, groups[number % groups.len()], random))
        .collect();
    Connection::new(stream, requests)
}
