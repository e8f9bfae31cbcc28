//! The world around the shards of one broker, on one thread: a clock that jumps, a disk that forgets, links
//! between cores that delay but keep their order, tasks polled in seeded order, clients' connections as
//! pipes of whole requests. Knows no request and no answer; see `workload`.

mod pipe;
mod shape;
mod trouble;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
use storage::store::Store;
use storage::types::{CoreId, Now};

use pipe::Pipe;
pub use shape::Shape;
use trouble::Fault;

/// Wall time at which every simulation begins, in milliseconds since 1970.
const WALL_START_MS: i64 = 1_750_000_000_000;

/// Memory that a simulated core says it has: small, so that bounds are met.
const MEMORY_BYTES: usize = 4 << 20;

/// Polls of one start after which it is said to hang.
const START_POLLS_MAX: u64 = 2_000_000;

/// Polls of a start on a full disk after which somebody makes room.
const START_POLLS_FULL: u64 = 3_000;

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

/// How a start went.
#[derive(Clone, Debug)]
pub enum Start {
    /// The broker serves.
    Serves(Started),
    /// It did not get that far.
    Cut,
    /// It said why it does not start.
    Refused(String),
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
    shape: Shape,
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
    /// What earlier starts left could not be removed.
    kept_old: bool,
    /// Log directories that this start found or told to be offline.
    lost: BTreeSet<usize>,
    fault: Option<Fault>,
    /// Since when nothing is wrong with the disk.
    sound_since_us: u64,
    /// When the clock last jumped, from where and to where.
    skipped: (u64, u64),
    /// Until when links between cores carry nothing, and cores do nothing.
    stalled_links: BTreeMap<(u16, u16), u64>,
    stalled_cores: BTreeMap<usize, u64>,
    steps: u64,
    /// Mixes what happened, to tell whether two runs were the same.
    trace: u64,
}

impl World {
    /// A machine with an empty disk and a broker that has not started.
    pub fn new(seed: u64, dirs: usize, settings: &str, shape: Shape) -> Result<World, String> {
        let dirs: Vec<PathBuf> = (0..dirs).map(|i| PathBuf::from(format!("/d{i}"))).collect();
        let names: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        let text = format!("log.dirs={}\n{settings}", names.join(","));
        let (config, _) = BrokerConfig::from_text(&text, &[]).map_err(|error| error.to_string())?;
        let disk = SimDisk::new(seed ^ 0x5EED_0002);
        disk.set_faults(|faults| faults.no_sync_all = seed.is_multiple_of(4));
        Ok(World {
            rng: SimRng::new(seed ^ 0x5EED_0001),
            disk,
            dirs,
            config,
            shape,
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
            kept_old: false,
            lost: BTreeSet::new(),
            fault: None,
            sound_since_us: 0,
            skipped: (0, 0),
            stalled_links: BTreeMap::new(),
            stalled_cores: BTreeMap::new(),
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

    /// How often the broker was started.
    pub fn start_count(&self) -> u64 {
        self.starts
    }

    /// Whether the next start finds what earlier starts left because it could not be removed. Ask once.
    pub fn take_kept_old(&mut self) -> bool {
        std::mem::take(&mut self.kept_old)
    }

    /// How many log directories there are.
    pub fn dir_count(&self) -> usize {
        self.dirs.len()
    }

    /// A number that two runs share only if they went the same way.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    fn note(&mut self, what: u64) {
        self.trace = (self.trace.rotate_left(7) ^ what).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    /// Starts the broker on `cores` cores and serves when all are ready. `polls` bounds how far the start
    /// gets. Unless it serves then, the broker is as dead as it was.
    pub fn start(&mut self, cores: u16, polls: u64) -> Result<Start, String> {
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
                return Ok(Start::Cut);
            }
            left -= 1;
            self.time_us += self.rng.below(20);
            let mut context = Context::from_waker(Waker::noop());
            match booting.as_mut().poll(&mut context) {
                Poll::Pending => {}
                Poll::Ready(Ok(booted)) => break booted,
                Poll::Ready(Err(error)) => {
                    let why = format!("the broker does not start: {error}");
                    return Ok(Start::Refused(why));
                }
            }
        };
        drop(booting);
        let offline = &booted.recovered.offline;
        if let Some((dir, why)) = offline.iter().find(|(dir, _)| !self.has_lost(*dir)) {
            let why = format!("log directory {dir} is offline after a start: {why}");
            return Ok(Start::Refused(why));
        }
        self.lost = offline.iter().map(|(dir, _)| *dir).collect();
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
                return Ok(Start::Cut);
            }
            left -= 1;
            steps += 1;
            // It waits for room for its checkpoints, and goes on by itself.
            if steps == START_POLLS_FULL && self.fault == Some(Fault::Full) {
                self.mend_disk();
            }
            if steps > START_POLLS_MAX || !self.step()? {
                return Err("the broker never gets ready".to_owned());
            }
        }
        // What a lost directory's old journals hold is nowhere else.
        let kept: Vec<PathBuf> = self
            .dirs
            .iter()
            .enumerate()
            .filter(|(index, _)| !self.lost.contains(index))
            .map(|(_, path)| path.clone())
            .collect();
        self.kept_old = kept.len() < self.dirs.len();
        let disk = self.disk.clone();
        self.running.push(Running {
            core: 0,
            future: Box::pin(async move {
                Done::Discarded(recovery::discard_older(&disk, &kept, epoch).await)
            }),
        });
        Ok(Start::Serves(started))
    }

    /// Ends the broker as `end` says.
    pub fn crash(&mut self, end: End) {
        self.running.clear();
        self.links.clear();
        self.pipes.clear();
        self.orphans.clear();
        self.cores.clear();
        self.stalled_links.clear();
        self.stalled_cores.clear();
        self.stop_healing();
        match end {
            End::Power => self.disk.crash(),
            End::Kill => self.disk.process_crash(),
        }
    }

    /// Asks the broker to stop, once it has removed what earlier starts left: the thread that does so is the
    /// one that is asked.
    pub fn begin_shutdown(&mut self) -> Result<(), String> {
        while !self.discarded {
            self.step()?;
        }
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

    /// What each core has not finished.
    pub fn outstanding(&self) -> Vec<Outstanding> {
        self.cores
            .iter()
            .map(|core| core.shard.outstanding())
            .collect()
    }

    fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        let stopped =
            |core: usize| self.cores[core].stopped || self.stalled_cores.contains_key(&core);
        for (&(from, to), queue) in &self.links {
            let stalled = self.stalled_links.contains_key(&(from, to));
            if !queue.is_empty() && !stalled && !self.stalled_cores.contains_key(&to.into()) {
                choices.push(Choice::Mesh(from, to));
            }
        }
        for (index, running) in self.running.iter().enumerate() {
            if !self.stalled_cores.contains_key(&running.core) {
                choices.push(Choice::Poll(index));
            }
        }
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
            if stopped(index) {
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
        if self.is_troubled() {
            self.sound_since_us = self.time_us;
        }
        if let Some((core, conn, released)) = self.orphans.pop_front() {
            self.tell(core, Event::Sent { conn, released })?;
            return Ok(true);
        }
        self.stall();
        let choices = self.choices();
        if choices.is_empty() {
            let deadlines = self
                .cores
                .iter()
                .enumerate()
                .filter(|(index, core)| !core.stopped && !self.stalled_cores.contains_key(index))
                .filter_map(|(_, core)| core.shard.next_deadline())
                .map(|due_us| due_us + self.clock_lag_us);
            let stalls = self
                .stalled_links
                .values()
                .chain(self.stalled_cores.values());
            let Some(due_us) = deadlines.chain(stalls.copied()).min() else {
                return Ok(false);
            };
            self.time_us = self.time_us.max(due_us);
            return Ok(true);
        }
        let place = self.rng.below(choices.len() as u64) as usize;
        self.perform(choices[place])?;
        Ok(true)
    }

    /// Now and then a link between cores is slow, or a whole core.
    fn stall(&mut self) {
        let now_us = self.time_us;
        self.stalled_links.retain(|_, until_us| *until_us > now_us);
        self.stalled_cores.retain(|_, until_us| *until_us > now_us);
        self.heal();
        let cores = self.cores.len() as u64;
        if cores < 2 || !self.rng.one_in(1_000) {
            return;
        }
        let until_us = now_us + 100 + self.rng.below(10_000);
        let (from, to) = (self.rng.below(cores), self.rng.below(cores));
        if from == to {
            self.stalled_cores.insert(from as usize, until_us);
        } else {
            self.stalled_links
                .insert((from as u16, to as u16), until_us);
        }
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
                    let known = self.dirs.iter().position(|path| path.as_os_str() == &*dir);
                    match known.filter(|index| self.has_lost(*index)) {
                        Some(index) => self.lost.insert(index),
                        None => return Err(format!("core {core} lost {dir}: {why}")),
                    };
                }
                Action::Control(ControlReply::Metrics(_) | ControlReply::DirFull { .. })
                | Action::LimitConnections { .. }
                | Action::StopAccepting => {}
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
                match result {
                    Err(error) if !self.is_troubled() => {
                        Err(format!("old journals cannot be removed: {error}"))
                    }
                    Err(_) => {
                        self.kept_old = true;
                        Ok(())
                    }
                    Ok(()) => Ok(()),
                }
            }
        }
    }
}
