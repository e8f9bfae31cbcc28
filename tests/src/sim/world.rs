//! The world around the shards of one broker, on one thread: a clock that jumps, a disk that forgets, links
//! between cores that delay but keep their order, tasks polled in seeded order, clients' connections as
//! pipes of whole requests. Knows no request and no answer; see `workload`.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use engine::boot;
use engine::config::BrokerConfig;
use engine::event::{Action, ConnId, ControlMessage, ControlReply, Event, TaskDone};
use engine::mesh::MeshMessage;
use engine::metadata::MetadataImage;
use engine::outstanding::Outstanding;
use engine::shard::{Shard, ShardConfig};
use ring::buf::{Chunk, Shared};
use storage::recovery;
use storage::sim_disk::{SimDisk, SimRng};
use storage::store::{Store, StoreConfig};
use storage::types::{CoreId, Now};

/// Wall time at which every simulation begins, in milliseconds since 1970.
const WALL_START_MS: i64 = 1_750_000_000_000;

/// Memory that a simulated core says it has: small, so that bounds are met.
const MEMORY_BYTES: usize = 4 << 20;

/// Polls of one start after which it is said to hang.
const START_POLLS_MAX: u64 = 2_000_000;

/// What a task under way reports.
enum Done {
    Task(TaskDone),
    Journal(u64, io::Result<()>),
    Discarded(io::Result<()>),
}

struct Running {
    core: usize,
    future: Pin<Box<dyn Future<Output = Done>>>,
}

struct Core {
    shard: Shard,
    /// Events were handled since the last end of a turn.
    in_turn: bool,
    ready: bool,
    /// On the way to a stop, its connections are closed.
    quiet: bool,
    stopped: bool,
    /// Ticks that left the deadline in the past, one after another.
    idle_ticks: u32,
}

/// A client's connection.
struct Pipe {
    core: usize,
    /// Requests on their way, without size prefix.
    requests: VecDeque<Vec<u8>>,
    /// Answers that the kernel takes one after another.
    sends: VecDeque<Vec<Chunk>>,
    received: Vec<u8>,
    paused: bool,
    /// The shard wants it closed after what it sends.
    closing: bool,
    /// The client is gone.
    broken: bool,
}

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Choice {
    Mesh(u16, u16),
    Poll(usize),
    Frame(ConnId),
    Sent(ConnId),
    Closed(ConnId),
    TurnEnd(usize),
    Tick(usize),
}

/// How a run of the broker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The power fails: what was not flushed may be gone.
    Power,
    /// The process is killed: what was written stays.
    Kill,
}

/// What a start found.
#[derive(Clone, Debug, Default)]
pub struct Started {
    /// It followed a run that did not end well.
    pub unclean: bool,
    /// Bytes that came back from journals.
    pub dirty_bytes: u64,
    /// Directories that it set aside because no topic has them.
    pub strays: Vec<String>,
}

/// See the module's documentation.
pub struct World {
    rng: SimRng,
    /// The disk of the machine.
    pub disk: SimDisk,
    dirs: Vec<PathBuf>,
    config: BrokerConfig,
    cores: Vec<Core>,
    links: BTreeMap<(u16, u16), VecDeque<MeshMessage>>,
    running: Vec<Running>,
    pipes: BTreeMap<ConnId, Pipe>,
    orphans: VecDeque<(usize, ConnId, Vec<Chunk>)>,
    next_conn: u64,
    time_us: u64,
    /// What the monotonic clock of this start shows less than `time_us`.
    clock_lag_us: u64,
    starts: u64,
    /// Drawn for each start, as the broker does.
    salt: u64,
    discarded: bool,
    steps: u64,
    /// Mixes what happened, to tell whether two runs were the same.
    trace: u64,
}

impl World {
    /// A machine with an empty disk and a broker that has not started.
    pub fn new(seed: u64, dirs: usize, settings: &str) -> Result<World, String> {
        let dirs: Vec<PathBuf> = (0..dirs).map(|i| PathBuf::from(format!("/d{i}"))).collect();
        let names: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        let text = format!("log.dirs={}\n{settings}", names.join(","));
        let (config, _) = BrokerConfig::from_text(&text, &[]).map_err(|error| error.to_string())?;
        Ok(World {
            rng: SimRng::new(seed ^ 0x5EED_0001),
            disk: SimDisk::new(seed ^ 0x5EED_0002),
            dirs,
            config,
            cores: Vec::new(),
            links: BTreeMap::new(),
            running: Vec::new(),
            pipes: BTreeMap::new(),
            orphans: VecDeque::new(),
            next_conn: 0,
            time_us: 1_000_000,
            clock_lag_us: 0,
            starts: 0,
            salt: 0,
            discarded: false,
            steps: 0,
            trace: 0,
        })
    }

    /// What the clocks show.
    pub fn now(&self) -> Now {
        Now {
            monotonic_us: self.time_us - self.clock_lag_us,
            wall_ms: WALL_START_MS + (self.time_us / 1000) as i64,
        }
    }

    /// Microseconds since the simulation began, whatever started or ended since then.
    pub fn time_us(&self) -> u64 {
        self.time_us
    }

    /// How many cores the running broker has.
    pub fn core_count(&self) -> usize {
        self.cores.len()
    }

    /// A number that two runs share only if they went the same way.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    fn note(&mut self, what: u64) {
        self.trace = (self.trace.rotate_left(7) ^ what).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    /// Starts the broker on `cores` cores and serves when all are ready. `polls` bounds how far the start
    /// gets; `Ok(None)` when that was not far enough, and the broker is as dead as it was.
    pub fn start(&mut self, cores: u16, polls: u64) -> Result<Option<Started>, String> {
        assert!(self.cores.is_empty(), "a broker starts once");
        self.starts += 1;
        self.salt = self.rng.next_u64();
        self.clock_lag_us = self.rng.below(self.time_us);
        self.discarded = false;
        let mut left = polls;
        let image = MetadataImage::new("simulated".to_owned(), self.config.clone());
        let disk = self.disk.clone();
        let dirs = self.dirs.clone();
        let mut booting = Box::pin(boot::boot(&disk, &dirs, cores, image));
        let booted = loop {
            if left == 0 {
                return Ok(None);
            }
            left -= 1;
            self.time_us += self.rng.below(20);
            let mut context = Context::from_waker(Waker::noop());
            if let Poll::Ready(result) = booting.as_mut().poll(&mut context) {
                break result.map_err(|error| format!("the broker does not start: {error}"))?;
            }
        };
        drop(booting);
        if !booted.recovered.offline.is_empty() {
            return Err(format!(
                "log directories are offline after a start: {:?}",
                booted.recovered.offline
            ));
        }
        let started = Started {
            unclean: booted.recovered.unclean,
            dirty_bytes: booted.recovered.dirty_bytes,
            strays: booted
                .recovered
                .strays
                .iter()
                .map(|(from, _)| from.display().to_string())
                .collect(),
        };
        let epoch = booted.recovered.epoch;
        let config = Arc::new(ShardConfig {
            cores,
            memory_bytes: MEMORY_BYTES,
            broker: self.config.clone(),
            seed: self.rng.next_u64(),
        });
        let now = self.now();
        for image in booted.recovered.cores {
            let core = image.core;
            let store = Store::new(self.store_config(core, cores, epoch), image);
            let shard = Shard::new(core, Arc::clone(&config), booted.image.clone(), store, now);
            self.cores.push(Core {
                shard,
                in_turn: true,
                ready: false,
                quiet: false,
                stopped: false,
                idle_ticks: 0,
            });
        }
        for core in 0..self.cores.len() {
            self.do_actions(core)?;
        }
        let mut steps = 0;
        while !self.cores.iter().all(|core| core.ready) {
            if left == 0 {
                return Ok(None);
            }
            left -= 1;
            steps += 1;
            if steps > START_POLLS_MAX || !self.step()? {
                return Err("the broker never gets ready".to_owned());
            }
        }
        let disk = self.disk.clone();
        let dirs = self.dirs.clone();
        self.running.push(Running {
            core: 0,
            future: Box::pin(async move {
                Done::Discarded(recovery::discard_older(&disk, &dirs, epoch).await)
            }),
        });
        Ok(Some(started))
    }

    fn store_config(&self, core: CoreId, cores: u16, epoch: u64) -> StoreConfig {
        StoreConfig {
            dirty_bytes_max: 1 << 20,
            straight_bytes_min: 2 << 10,
            clean_bytes_max: 128 << 10,
            journal_file_bytes: 256 << 10,
            journal_files_max: 4,
            reserve_bytes: 1536 << 10,
            write_back_ms: 300,
            settle_idle_ms: 700,
            checkpoint_ms: 1500,
            retention_check_ms: 2000,
            cleaner_backoff_ms: 1500,
            cleaner_memory_bytes: 1 << 20,
            ..StoreConfig::new(
                core,
                cores,
                self.dirs.clone(),
                epoch,
                self.salt,
                MEMORY_BYTES as u64,
            )
        }
    }

    /// Ends the broker as `end` says.
    pub fn crash(&mut self, end: End) {
        self.running.clear();
        self.links.clear();
        self.pipes.clear();
        self.orphans.clear();
        self.cores.clear();
        match end {
            End::Power => self.disk.crash(),
            End::Kill => self.disk.process_crash(),
        }
    }

    /// Asks the broker to stop.
    pub fn begin_shutdown(&mut self) -> Result<(), String> {
        for core in 0..self.cores.len() {
            self.tell(core, Event::Control(ControlMessage::Shutdown))?;
        }
        Ok(())
    }

    /// Whether every core has stopped; takes the second step of the stop when it is time for it.
    pub fn has_stopped(&mut self) -> Result<bool, String> {
        if self.cores.iter().all(|core| core.quiet) {
            for core in 0..self.cores.len() {
                self.cores[core].quiet = false;
                self.tell(core, Event::Control(ControlMessage::Settle))?;
            }
        }
        Ok(self.cores.iter().all(|core| core.stopped))
    }

    /// Lets the broker go after it stopped; the disk is what it left.
    pub fn end_stopped(&mut self) {
        assert!(self.cores.iter().all(|core| core.stopped), "it runs");
        self.crash(End::Kill);
    }

    /// Opens a connection to a core.
    pub fn connect(&mut self, core: usize) -> Result<ConnId, String> {
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        self.pipes.insert(
            conn,
            Pipe {
                core,
                requests: VecDeque::new(),
                sends: VecDeque::new(),
                received: Vec::new(),
                paused: false,
                closing: false,
                broken: false,
            },
        );
        let peer = ([127, 0, 0, 1], 40_000).into();
        let listener = 0;
        self.tell(
            core,
            Event::Accepted {
                conn,
                listener,
                peer,
            },
        )?;
        Ok(conn)
    }

    /// Sends a request; it arrives later.
    pub fn send(&mut self, conn: ConnId, request: Vec<u8>) {
        if let Some(pipe) = self.pipes.get_mut(&conn) {
            pipe.requests.push_back(request);
        }
    }

    /// The client goes away; what it had asked may still be done.
    pub fn disconnect(&mut self, conn: ConnId) {
        if let Some(pipe) = self.pipes.get_mut(&conn) {
            pipe.broken = true;
            pipe.requests.clear();
            pipe.received.clear();
        }
    }

    /// Whether a connection is open as its client sees it.
    pub fn is_open(&self, conn: ConnId) -> bool {
        self.pipes.get(&conn).is_some_and(|pipe| !pipe.broken)
    }

    /// The next whole answer on a connection, without its size.
    pub fn answer(&mut self, conn: ConnId) -> Option<Vec<u8>> {
        let received = &mut self.pipes.get_mut(&conn)?.received;
        let size = i32::from_be_bytes(*received.first_chunk::<4>()?);
        let end = 4 + usize::try_from(size).ok()?;
        if received.len() < end {
            return None;
        }
        let answer = received[4..end].to_vec();
        received.drain(..end);
        Some(answer)
    }

    /// What each core has not finished.
    pub fn outstanding(&self) -> Vec<Outstanding> {
        self.cores
            .iter()
            .map(|core| core.shard.outstanding())
            .collect()
    }

    fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        let stopped = |core: usize| self.cores[core].stopped;
        for (&(from, to), queue) in &self.links {
            if !queue.is_empty() {
                choices.push(Choice::Mesh(from, to));
            }
        }
        choices.extend((0..self.running.len()).map(Choice::Poll));
        for (&conn, pipe) in &self.pipes {
            if stopped(pipe.core) {
                continue;
            }
            if !pipe.sends.is_empty() {
                choices.push(Choice::Sent(conn));
            } else if pipe.closing || pipe.broken {
                choices.push(Choice::Closed(conn));
            }
            if !pipe.requests.is_empty() && !pipe.paused && !pipe.closing {
                choices.push(Choice::Frame(conn));
            }
        }
        for (index, core) in self.cores.iter().enumerate() {
            if core.stopped {
                continue;
            }
            if core.in_turn {
                choices.push(Choice::TurnEnd(index));
            }
            if self.is_due(core) {
                choices.push(Choice::Tick(index));
            }
        }
        choices
    }

    fn is_due(&self, core: &Core) -> bool {
        let now_us = self.time_us - self.clock_lag_us;
        core.shard.next_deadline().is_some_and(|due| due <= now_us)
    }

    /// Does one thing that may happen now; where nothing may, moves the clock to the next deadline.
    /// `false`: nothing will ever happen again by itself.
    pub fn step(&mut self) -> Result<bool, String> {
        self.steps += 1;
        self.time_us += 1 + self.rng.below(30);
        if let Some((core, conn, released)) = self.orphans.pop_front() {
            self.tell(core, Event::Sent { conn, released })?;
            return Ok(true);
        }
        let choices = self.choices();
        if choices.is_empty() {
            let next = self
                .cores
                .iter()
                .filter(|core| !core.stopped)
                .filter_map(|core| core.shard.next_deadline())
                .min();
            let Some(due_us) = next else {
                return Ok(false);
            };
            self.time_us = self.time_us.max(due_us + self.clock_lag_us);
            return Ok(true);
        }
        let place = self.rng.below(choices.len() as u64) as usize;
        self.perform(choices[place])?;
        Ok(true)
    }

    fn perform(&mut self, choice: Choice) -> Result<(), String> {
        match choice {
            Choice::Mesh(from, to) => {
                self.note(1 << 32 | u64::from(from) << 16 | u64::from(to));
                if let Some(message) = self
                    .links
                    .get_mut(&(from, to))
                    .and_then(VecDeque::pop_front)
                {
                    let from = CoreId(from);
                    self.tell(usize::from(to), Event::Mesh { from, message })?;
                }
            }
            Choice::Poll(index) => self.poll_task(index)?,
            Choice::Frame(conn) => {
                self.note(2 << 32 | conn.0);
                if let Some(pipe) = self.pipes.get_mut(&conn)
                    && let Some(request) = pipe.requests.pop_front()
                {
                    let core = pipe.core;
                    let frame = Shared::from(request);
                    self.tell(core, Event::Frame { conn, frame })?;
                }
            }
            Choice::Sent(conn) => {
                self.note(3 << 32 | conn.0);
                if let Some(pipe) = self.pipes.get_mut(&conn)
                    && let Some(released) = pipe.sends.pop_front()
                {
                    if !pipe.broken {
                        for chunk in &released {
                            pipe.received.extend_from_slice(chunk);
                        }
                    }
                    let core = pipe.core;
                    self.tell(core, Event::Sent { conn, released })?;
                }
            }
            Choice::Closed(conn) => {
                self.note(4 << 32 | conn.0);
                if let Some(pipe) = self.pipes.remove(&conn) {
                    self.tell(pipe.core, Event::Closed { conn })?;
                }
            }
            Choice::TurnEnd(core) => self.end_turn(core)?,
            Choice::Tick(core) => {
                self.note(6 << 32 | core as u64);
                self.tell(core, Event::Tick)?;
                self.end_turn(core)?;
                let late = self.is_due(&self.cores[core]);
                let state = &mut self.cores[core];
                state.idle_ticks = if late { state.idle_ticks + 1 } else { 0 };
                if state.idle_ticks > 200 {
                    return Err(format!("core {core} asks for a tick again and again"));
                }
            }
        }
        Ok(())
    }

    fn end_turn(&mut self, core: usize) -> Result<(), String> {
        self.note(5 << 32 | core as u64);
        let now = self.now();
        self.cores[core].shard.handle(now, Event::TurnEnd);
        self.cores[core].in_turn = false;
        self.do_actions(core)
    }

    fn tell(&mut self, core: usize, event: Event) -> Result<(), String> {
        if self.cores[core].stopped {
            return Ok(());
        }
        let now = self.now();
        self.cores[core].shard.handle(now, event);
        self.cores[core].in_turn = true;
        if self.rng.one_in(2) {
            self.do_actions(core)?;
        }
        if self.rng.one_in(3) {
            self.end_turn(core)?;
        }
        Ok(())
    }

    fn do_actions(&mut self, core: usize) -> Result<(), String> {
        while let Some(action) = self.cores[core].shard.poll_action() {
            match action {
                Action::Send { conn, chunks } => match self.pipes.get_mut(&conn) {
                    Some(pipe) => pipe.sends.push_back(chunks),
                    None => self.orphans.push_back((core, conn, chunks)),
                },
                Action::Close { conn } => {
                    if let Some(pipe) = self.pipes.get_mut(&conn) {
                        pipe.closing = true;
                        pipe.requests.clear();
                    }
                }
                Action::PauseReceive { conn } => {
                    if let Some(pipe) = self.pipes.get_mut(&conn) {
                        pipe.paused = true;
                    }
                }
                Action::ResumeReceive { conn } => {
                    if let Some(pipe) = self.pipes.get_mut(&conn) {
                        pipe.paused = false;
                    }
                }
                Action::DurableWrite(write) => {
                    let disk = self.disk.clone();
                    self.running.push(Running {
                        core,
                        future: Box::pin(async move {
                            let (token, result) = write.run(disk).await;
                            Done::Journal(token, result)
                        }),
                    });
                }
                Action::Spawn(task) => {
                    let disk = self.disk.clone();
                    self.running.push(Running {
                        core,
                        future: Box::pin(async move { Done::Task(task.run(disk).await) }),
                    });
                }
                Action::Mesh { to, message } => {
                    let link = (core as u16, to.0);
                    self.links.entry(link).or_default().push_back(message);
                }
                Action::Control(ControlReply::Ready) => self.cores[core].ready = true,
                Action::Control(ControlReply::Quiet) => self.cores[core].quiet = true,
                Action::Control(ControlReply::DirOffline { dir, why }) => {
                    return Err(format!("core {core} lost {dir}: {why}"));
                }
                Action::Control(ControlReply::Metrics(_)) | Action::StopAccepting => {}
                Action::Stop => self.cores[core].stopped = true,
            }
        }
        Ok(())
    }

    fn poll_task(&mut self, index: usize) -> Result<(), String> {
        let mut context = Context::from_waker(Waker::noop());
        let running = &mut self.running[index];
        let core = running.core;
        let Poll::Ready(done) = running.future.as_mut().poll(&mut context) else {
            return Ok(());
        };
        self.note(7 << 32 | index as u64);
        drop(self.running.swap_remove(index));
        match done {
            Done::Task(done) => self.tell(core, Event::TaskDone(done)),
            Done::Journal(token, result) => {
                self.tell(core, Event::JournalWritten { token, result })
            }
            Done::Discarded(result) => {
                self.discarded = true;
                result.map_err(|error| format!("old journals cannot be removed: {error}"))
            }
        }
    }
}
