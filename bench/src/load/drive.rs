//! Drives prepared connections through warm-up, measured window and drain, and takes the times. A thread of the generator's, with epoll; knows no protocol but through [`Wire`].

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;

use crate::load::connection::{Connection, Sent};
use crate::load::pace::{Pace, Turns};
use crate::load::summary::{Broker, Generator, Latencies, Measured, Second, histogram, micros};
use crate::load::wire::{Prepared, Wire};
use crate::process::{Usage, thread_cpu_seconds};
use crate::{Failure, clock};

/// Events taken at once.
const EVENTS_MAX: usize = 256;
/// What one receive takes at most, in bytes.
const SCRATCH_BYTES: usize = 256 << 10;
/// The longest sleep, so that the end of a phase is seen in time.
const SLEEP_NS_MAX: u64 = 50_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// The end of a phase that ends for another reason: a century.
const FOR_EVER_NS: u64 = 100 * 365 * 86_400 * SECOND_NS;

/// How to load.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Requests under way on each connection, at most.
    pub in_flight: usize,
    /// Which requests of what rate; None for a closed loop.
    pub pace: Option<Turns>,
    /// Whether requests have answers.
    pub answered: bool,
    /// Closed loop: stop after so many, instead of after the measured seconds.
    pub requests: Option<u64>,
    /// Before the measured window.
    pub warmup: Duration,
    /// The measured window.
    pub seconds: Duration,
    /// How long to wait for the last answers.
    pub drain: Duration,
    /// Poll instead of sleeping.
    pub spin: bool,
    /// Whose CPU time and memory to look at.
    pub broker_pid: Option<u32>,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Warmup,
    Measured,
    Drain,
}

/// What was used when the window began.
#[derive(Debug)]
struct Opening {
    wall_ms: i64,
    broker: Option<Usage>,
    thread_cpu_seconds: f64,
    idle_ns: u64,
}

/// What the window's end tells of everything but the requests.
struct Closing {
    started_ms: i64,
    generator: Generator,
    broker: Option<Broker>,
}

/// What has been measured so far.
#[derive(Debug)]
struct Tally {
    phase: Phase,
    now_ns: u64,
    /// When the window really began and ended; the latter far away until it is known.
    window_from_ns: u64,
    window_to_ns: u64,
    latencies: Latencies,
    requests: u64,
    records: u64,
    value_bytes: u64,
    seconds: Vec<Second>,
    second: Histogram<u64>,
    second_requests: u64,
}

impl Tally {
    /// Takes the times of a finished request.
    fn finished(&mut self, request: &Prepared, sent: Sent) {
        if self.phase == Phase::Measured {
            self.requests += 1;
            self.records += request.records;
            self.value_bytes += request.value_bytes;
            while self.now_ns >= self.window_from_ns + SECOND_NS * (self.seconds.len() as u64 + 1) {
                self.end_second();
            }
            self.second_requests += 1;
            self.second
                .saturating_record(micros(self.now_ns - sent.intended_ns));
        }
        // What was due in the window counts, also when its answer comes after it.
        if self.phase != Phase::Warmup
            && (self.window_from_ns..self.window_to_ns).contains(&sent.intended_ns)
        {
            self.latencies
                .record(sent.intended_ns, sent.actual_ns, self.now_ns);
        }
    }

    fn end_second(&mut self) {
        self.seconds.push(Second {
            requests: std::mem::take(&mut self.second_requests),
            latency_us: std::mem::replace(&mut self.second, histogram()),
        });
    }
}

struct Run<'a, W> {
    wire: &'a W,
    plan: &'a Plan,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    pace: Option<Pace>,
    /// Requests that may still be started.
    left: u64,
    started: Instant,
    idle_ns: u64,
    opening: Option<Opening>,
    lag: Histogram<u64>,
    tally: Tally,
}

/// Runs the load.
///
/// # Errors
/// If a connection breaks, an answer is an error, or answers never come: a sentence that says where.
pub fn drive<W: Wire>(
    wire: &W,
    connections: Vec<Connection>,
    plan: &Plan,
) -> Result<Measured, Failure> {
    let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(std::io::Error::from)?;
    for (index, connection) in connections.iter().enumerate() {
        epoll::add(
            &epoll,
            connection.fd(),
            EventData::new_u64(index as u64),
            EventFlags::IN,
        )
        .map_err(std::io::Error::from)?;
    }
    let end_ns = nanos(plan.warmup + plan.seconds);
    let run = Run {
        wire,
        plan,
        epoll,
        pace: plan
            .pace
            .map(|turns| Pace::new(turns, connections.len(), end_ns)),
        connections,
        left: plan.requests.unwrap_or(u64::MAX),
        started: clock::now(),
        idle_ns: 0,
        opening: None,
        lag: histogram(),
        tally: Tally {
            phase: Phase::Warmup,
            now_ns: 0,
            window_from_ns: nanos(plan.warmup),
            window_to_ns: u64::MAX,
            latencies: Latencies::default(),
            requests: 0,
            records: 0,
            value_bytes: 0,
            seconds: Vec::new(),
            second: histogram(),
            second_requests: 0,
        },
    };
    run.run()
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

impl<W: Wire> Run<'_, W> {
    fn run(mut self) -> Result<Measured, Failure> {
        let warmup_ns = nanos(self.plan.warmup);
        let end_ns = match self.plan.requests {
            Some(_) => FOR_EVER_NS,
            None => nanos(self.plan.warmup + self.plan.seconds),
        };
        let drain_end_ns = end_ns + nanos(self.plan.drain);
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut closing = None;
        if warmup_ns == 0 {
            self.open_window()?;
        }
        for index in 0..self.connections.len() {
            self.refill(index)?;
        }
        loop {
            self.tick();
            if self.tally.phase == Phase::Warmup && self.tally.now_ns >= warmup_ns {
                self.open_window()?;
            }
            let spent = self.left == 0 && !self.owes_answers();
            if self.tally.phase == Phase::Measured && (self.tally.now_ns >= end_ns || spent) {
                closing = Some(self.close_window()?);
            }
            self.start_due()?;
            if self.tally.phase == Phase::Drain {
                if !self.owes_answers() {
                    break;
                }
                if self.tally.now_ns >= drain_end_ns {
                    return Err(self.unanswered());
                }
            }
            let phase_end_ns = match self.tally.phase {
                Phase::Warmup => warmup_ns,
                Phase::Measured => end_ns,
                Phase::Drain => drain_end_ns,
            };
            self.wait(&mut events, phase_end_ns)?;
            for &Event { flags, data, .. } in &events {
                let index = data.u64() as usize;
                if flags.contains(EventFlags::OUT) {
                    self.flush(index)?;
                    self.refill(index)?;
                }
                if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                    self.receive(index, &mut scratch)?;
                }
            }
        }
        let closing = closing.expect("the drain follows the window");
        let tally = self.tally;
        Ok(Measured {
            started_ms: closing.started_ms,
            window_seconds: (tally.window_to_ns - tally.window_from_ns) as f64 / 1e9,
            requests: tally.requests,
            records: tally.records,
            value_bytes: tally.value_bytes,
            latencies: tally.latencies,
            generator: closing.generator,
            broker: closing.broker,
            seconds: tally.seconds,
        })
    }

    /// Looks at the clock.
    fn tick(&mut self) {
        self.tally.now_ns = nanos(self.started.elapsed());
    }

    fn usage(&self) -> Result<Option<Usage>, Failure> {
        self.plan.broker_pid.map(Usage::of).transpose()
    }

    fn open_window(&mut self) -> Result<(), Failure> {
        self.opening = Some(Opening {
            wall_ms: clock::wall_ms(),
            broker: self.usage()?,
            thread_cpu_seconds: thread_cpu_seconds(),
            idle_ns: self.idle_ns,
        });
        self.tick();
        self.tally.phase = Phase::Measured;
        self.tally.window_from_ns = self.tally.now_ns;
        Ok(())
    }

    fn close_window(&mut self) -> Result<Closing, Failure> {
        let tally = &mut self.tally;
        tally.phase = Phase::Drain;
        tally.window_to_ns = tally.now_ns;
        let seconds = (tally.window_to_ns - tally.window_from_ns) as f64 / 1e9;
        // A rest that is no second of its own belongs to the last one.
        if (tally.seconds.len() as f64) < self.plan.seconds.as_secs_f64() {
            tally.end_second();
        } else if let Some(last) = tally.seconds.last_mut() {
            last.requests += tally.second_requests;
        }
        let opening = self.opening.take().expect("the window was opened");
        let thread_cpu_seconds = thread_cpu_seconds() - opening.thread_cpu_seconds;
        let broker = match (opening.broker, self.usage()?) {
            (Some(from), Some(to)) => Some(Broker::between(&from, &to)),
            _ => None,
        };
        let generator = Generator {
            thread_count: 1,
            cpu_share: thread_cpu_seconds / seconds,
            busy_share: 1.0 - (self.idle_ns - opening.idle_ns) as f64 / 1e9 / seconds,
            lag: self.lag.clone(),
        };
        Ok(Closing {
            started_ms: opening.wall_ms,
            generator,
            broker,
        })
    }

    /// Waits for events, for the next request that is due, or for the end of the phase.
    fn wait(&mut self, events: &mut Vec<Event>, phase_end_ns: u64) -> Result<(), Failure> {
        events.clear();
        self.tick();
        let before_ns = self.tally.now_ns;
        let due_ns = self.pace.as_ref().and_then(Pace::next_due_ns);
        let until_ns = phase_end_ns.min(due_ns.unwrap_or(u64::MAX));
        let sleep_ns = if self.plan.spin {
            0
        } else {
            until_ns.saturating_sub(before_ns).min(SLEEP_NS_MAX)
        };
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: sleep_ns as i64,
        };
        let room = rustix::buffer::spare_capacity(events);
        match epoll::wait(&self.epoll, room, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
        self.tick();
        // Who sleeps is idle in the call; who polls is when there was nothing to do.
        if !self.plan.spin || events.is_empty() {
            self.idle_ns += self.tally.now_ns - before_ns;
        }
        Ok(())
    }

    /// Open loop: starts what is due by now, or notes it where a connection has no room.
    fn start_due(&mut self) -> Result<(), Failure> {
        while let Some(pace) = &mut self.pace {
            let Some((request, index)) = pace.take_due(self.tally.now_ns) else {
                break;
            };
            let intended_ns = pace.due_ns(request);
            let connection = &mut self.connections[index];
            if let Some((_, count)) = &mut connection.backlog {
                *count += 1;
            } else if connection.under_way_count() >= self.plan.in_flight {
                connection.backlog = Some((request, 1));
            } else {
                // Only the generator itself can have delayed this one.
                if self.tally.phase == Phase::Measured {
                    self.lag
                        .saturating_record(micros(self.tally.now_ns - intended_ns));
                }
                self.start(index, intended_ns);
                self.flush(index)?;
                self.tick();
            }
        }
        Ok(())
    }

    fn start(&mut self, index: usize, intended_ns: u64) {
        self.connections[index].start(Sent {
            intended_ns,
            actual_ns: self.tally.now_ns,
        });
    }

    /// Starts what a connection has room for: what waits for it, or in a closed loop as much as may be under way.
    fn refill(&mut self, index: usize) -> Result<(), Failure> {
        let mut started = false;
        while self.connections[index].under_way_count() < self.plan.in_flight {
            match (&self.pace, self.connections[index].backlog) {
                (Some(pace), Some((request, count))) => {
                    let (intended_ns, after) = (pace.due_ns(request), pace.after(request));
                    self.connections[index].backlog = (count > 1).then(|| (after, count - 1));
                    self.start(index, intended_ns);
                }
                (None, _) if self.tally.phase != Phase::Drain && self.left > 0 => {
                    self.left -= 1;
                    self.start(index, self.tally.now_ns);
                }
                _ => break,
            }
            started = true;
        }
        if started {
            self.flush(index)?;
        }
        Ok(())
    }

    fn flush(&mut self, index: usize) -> Result<(), Failure> {
        let connection = &mut self.connections[index];
        let sent_count = connection
            .flush()
            .map_err(|error| Failure(format!("connection {index}: sending failed: {error}")))?;
        if !self.plan.answered {
            // What has no answer ends when the kernel has taken it.
            self.tally.now_ns = nanos(self.started.elapsed());
            for _ in 0..sent_count {
                let (number, sent) = connection.finish_unanswered();
                self.tally.finished(connection.request(number), sent);
            }
        }
        // Without answers it is room for sending that lets the next request of a closed loop start.
        let goes_on = !self.plan.answered
            && self.pace.is_none()
            && self.left > 0
            && self.tally.phase != Phase::Drain;
        let waits_for_room = connection.has_unsent() || goes_on;
        if waits_for_room != connection.waits_for_room {
            connection.waits_for_room = waits_for_room;
            let mut flags = EventFlags::IN;
            flags.set(EventFlags::OUT, waits_for_room);
            let data = EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, connection.fd(), data, flags)
                .map_err(std::io::Error::from)?;
        }
        Ok(())
    }

    fn receive(&mut self, index: usize, scratch: &mut [u8]) -> Result<(), Failure> {
        self.tick();
        let tally = &mut self.tally;
        let connection = &mut self.connections[index];
        let open = connection
            .receive(self.wire, scratch, |request, sent| {
                tally.finished(request, sent);
            })
            .map_err(|why| Failure(format!("connection {index}: {why}")))?;
        if !open {
            return Err(Failure(format!(
                "connection {index}: the other side closed it, with {} requests under way",
                connection.under_way_count()
            )));
        }
        self.refill(index)
    }

    fn owes_answers(&self) -> bool {
        let some_due = |pace: &Pace| pace.next_due_ns().is_some();
        let owed = |connection: &Connection| {
            connection.under_way_count() > 0 || connection.backlog.is_some()
        };
        self.pace.as_ref().is_some_and(some_due) || self.connections.iter().any(owed)
    }

    fn unanswered(&self) -> Failure {
        let connections = self.connections.iter();
        let under_way: usize = connections.clone().map(Connection::under_way_count).sum();
        let waiting: u64 = connections
            .filter_map(|connection| connection.backlog)
            .map(|(_, count)| count)
            .sum();
        Failure(format!(
            "{:?} after the end {under_way} requests have no answer, and {waiting} could not even be sent",
            self.plan.drain
        ))
    }
}
