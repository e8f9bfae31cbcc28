//! `millrace bench echo`: round trips through a bare io_uring that sends back what it receives: what the broker's own event loop could do if there were nothing to do. A thread for the ring, the calling thread for the load; knows no protocol but its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ring::buf::Chunk;
use ring::clock::monotonic_us;
use ring::{Completion, Listener, Ring, RingConfig};

use crate::load::cluster::Cluster;
use crate::load::connection::{Connection, dial};
use crate::load::drive::{Plan, drive};
use crate::load::summary::{Summary, Workload};
use crate::load::wire::{Prepared, Wire};
use crate::load::{Output, parse_seconds};
use crate::payload::Random;
use crate::{Failure, process};

/// Completions taken in one turn.
const COMPLETIONS_MAX: usize = 1024;
/// How often a ring without work looks whether it shall stop, in milliseconds.
const STOP_LOOK_MS: i32 = 100;
/// What stands before the payload: size and number.
const HEAD_BYTES: usize = 8;

/// The options of `millrace bench echo`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Connections.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// Messages under way on each connection.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub in_flight: u32,
    /// Bytes of a message.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(8..=1 << 20))]
    pub size: u32,
    /// Seconds before the measured ones.
    #[arg(long, default_value = "1", value_parser = parse_seconds)]
    pub warmup_seconds: Duration,
    /// Measured seconds.
    #[arg(long, default_value = "3", value_parser = parse_seconds)]
    pub seconds: Duration,
    /// The ring's core.
    #[arg(long)]
    pub ring_core: Option<usize>,
    /// The load's core.
    #[arg(long)]
    pub core: Option<usize>,
    /// How long the ring looks again before it sleeps, in microseconds, as the broker's `idle.poll.us`.
    #[arg(long, default_value_t = 0)]
    pub idle_poll_us: u64,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Messages that come back as they are.
#[derive(Debug)]
struct EchoWire {
    bytes: usize,
}

impl Wire for EchoWire {
    const NAME: &'static str = "echo";
    const IN_ORDER: bool = true;

    fn prepare(&self, number: u32, partitions: &[i32], random: &mut Random) -> Prepared {
        let mut bytes = vec![0; self.bytes];
        random.letters(&mut bytes);
        bytes[..4].copy_from_slice(&(self.bytes as u32).to_be_bytes());
        bytes[4..HEAD_BYTES].copy_from_slice(&number.to_be_bytes());
        Prepared {
            bytes,
            partitions: partitions.to_vec(),
            records: 1,
            value_bytes: self.bytes as u64,
        }
    }

    fn answer_bytes(&self, head: &[u8]) -> Result<Option<usize>, String> {
        let Some(size) = head.first_chunk::<4>() else {
            return Ok(None);
        };
        let size = u32::from_be_bytes(*size) as usize;
        if size != self.bytes {
            return Err(format!("{size} bytes came back of {}", self.bytes));
        }
        Ok(Some(size))
    }

    fn number(&self, answer: &[u8]) -> Result<u32, String> {
        let number = answer[4..HEAD_BYTES].try_into().expect("four bytes");
        Ok(u32::from_be_bytes(number))
    }

    fn check(&self, answer: &[u8], request: &Prepared) -> Result<(), String> {
        if answer == request.bytes {
            Ok(())
        } else {
            Err("other bytes came back".to_owned())
        }
    }
}

/// Runs it.
///
/// # Errors
/// A sentence for the operator.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match measure(arguments)?.print(arguments.output) {
        // Whoever reads the output has gone.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn measure(arguments: &Arguments) -> Result<Summary, Failure> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = Listener::bind_group(address, 1)?
        .pop()
        .expect("one was asked for");
    let target = listener.local().to_string();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let (core, poll_us) = (arguments.ring_core, arguments.idle_poll_us);
    let echoing = std::thread::Builder::new()
        .name("echo".to_owned())
        .spawn(move || {
            if let Some(core) = core {
                process::pin_to(core)?;
            }
            echo(listener, poll_us, &stopped).map_err(Failure::from)
        })?;
    let outcome = load(arguments, &target);
    stop.store(true, Ordering::Relaxed);
    echoing.join().expect("the ring's thread does not panic")?;
    outcome
}

/// The ring: everything that arrives goes back, without a copy in between.
fn echo(listener: Listener, idle_poll_us: u64, stop: &AtomicBool) -> std::io::Result<()> {
    let mut ring = Ring::new(RingConfig::default())?;
    ring.listen(listener);
    let mut completions = Vec::with_capacity(COMPLETIONS_MAX);
    let mut worked_us = 0;
    while !stop.load(Ordering::Relaxed) {
        if ring.turn(&mut completions, COMPLETIONS_MAX)? > 0 {
            worked_us = monotonic_us();
        } else if monotonic_us() >= worked_us + idle_poll_us {
            ring.sleep_blocking(STOP_LOOK_MS)?;
        }
        for completion in completions.drain(..) {
            match completion {
                Completion::Accepted { socket, .. } => ring.resume_receive(socket),
                Completion::Received { socket, bytes } => {
                    ring.send(socket, vec![Chunk::Local(bytes)]);
                }
                Completion::ReceiveEnded { socket, .. } => ring.close(socket),
                _ => {}
            }
        }
    }
    Ok(())
}

fn load(arguments: &Arguments, target: &str) -> Result<Summary, Failure> {
    if let Some(core) = arguments.core {
        process::pin_to(core)?;
    }
    let wire = EchoWire {
        bytes: arguments.size as usize,
    };
    let mut random = Random::new(0);
    let placements = Cluster::given(target, "", 1).place(arguments.connections as usize, 1)?;
    let connections = placements
        .iter()
        .map(|placement| {
            let requests = (0..arguments.in_flight)
                .map(|number| wire.prepare(number, &placement.partitions, &mut random))
                .collect();
            Connection::new(dial(&placement.address)?, requests)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let plan = Plan {
        in_flight: arguments.in_flight as usize,
        pace: None,
        answered: true,
        requests: None,
        warmup: arguments.warmup_seconds,
        seconds: arguments.seconds,
        drain: Duration::from_secs(10),
        spin: false,
        broker_pid: None,
    };
    Ok(Summary {
        measured: drive(&wire, connections, &plan)?,
        workload: Workload {
            protocol: EchoWire::NAME,
            target: target.to_owned(),
            bare: false,
            topic: String::new(),
            connections: arguments.connections,
            in_flight: plan.in_flight,
            partitions: 1,
            partitions_per_request: 1,
            record_bytes: arguments.size,
            records_per_batch: 1,
            acks: -1,
            rate: None,
            warmup_seconds: arguments.warmup_seconds.as_secs_f64(),
            spin: false,
            cores: arguments.core.into_iter().collect(),
        },
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn what_is_sent_comes_back() {
        let options = [
            "echo",
            "--connections",
            "3",
            "--in-flight",
            "2",
            "--size",
            "100000",
        ];
        let times = ["--warmup-seconds", "0.05", "--seconds", "0.2"];
        let arguments = Line::parse_from(options.iter().chain(&times)).arguments;
        let summary = measure(&arguments).unwrap();
        assert!(summary.measured.requests > 0);
    }
}
