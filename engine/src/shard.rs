//! The shard: everything that one core knows, as a state machine. `handle` takes what happened,
//! `poll_action` gives what the world must do next. No clock, no socket, no file, no async inside.
//!
//! The state lives here; what is done with it is in the files beside: `serve` (connections and
//! requests), `append` and `reading` (partitions this core owns), `calls` (what this core waits for
//! from others), `controller` and `sync` (topic metadata), `coordinator` (groups), `api/*`.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;

use net::kafka::error::ErrorCode;
use ring::buf::LeaseTable;
use storage::disk::Space;
use storage::store::{Notice, Store, StoreAction};
use storage::types::{CoreId, Now};
use storage::walk::WalkScratch;

use crate::api::fetch::FetchState;
use crate::api::init_producer_id::ProducerIds;
use crate::api::produce::ProduceState;
use crate::append::AppendGroup;
use crate::calls::{Gathering, LogDirsGathering, Origin, Waiting};
use crate::config::BrokerConfig;
use crate::connection::Connection;
use crate::controller::{Controller, METADATA_PARTITION};
use crate::coordinator::Coordinator;
use crate::event::{Action, ConnId, ControlMessage, ControlReply, Event, Task, TaskDone};
use crate::fetch_session::FetchSessions;
use crate::ids::{Key, KeyMap, Keys, OwnMap};
use crate::limits::{HOUSEKEEPING_US, SHUTDOWN_ANSWERS_US, SHUTDOWN_SETTLE_US};
use crate::mesh::{MeshMessage, PartitionAnswer, PartitionRef};
use crate::metadata::MetadataImage;
use crate::metrics::{ShardMetrics, StoreTotals};
use crate::native::NativeState;
use crate::partition::{ByLog, Partitions};
use crate::reading::{OwnerFetch, Questions, Ticketed, Watch, looked_up, read_error_code};
use crate::sync::Sync;

/// What all cores agree on before they start.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// How many data cores there are.
    pub cores: u16,
    /// Memory of each of them, in bytes.
    pub memory_bytes: usize,
    /// The broker's configuration as it was at the start.
    pub broker: BrokerConfig,
    /// A random number, different on every start: the seed of what must not repeat.
    pub seed: u64,
}

/// Something that is due at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A parked fetch has waited long enough.
    Fetch(Key),
    /// A subscription may have been silent for long enough.
    Heartbeat(Key),
    /// Idle connections are looked for.
    Housekeeping,
    /// A stop has waited long enough for answers.
    Shutdown,
    /// A stop has waited long enough for the store.
    Settle,
}

/// How far a stop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// What is in flight is being answered.
    Answering,
    /// Every connection is closed; other cores may still append here.
    Quiet,
    /// The store writes everything down.
    Settling,
    /// Nothing is left to do.
    Stopped,
}

/// One core's share of the broker.
pub struct Shard {
    pub(crate) core: CoreId,
    pub(crate) config: Arc<ShardConfig>,
    pub(crate) image: MetadataImage,
    pub(crate) store: Store,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) keys: Keys,
    pub(crate) leases: LeaseTable,
    pub(crate) metrics: ShardMetrics,
    pub(crate) walk_scratch: WalkScratch,

    pub(crate) connections: OwnMap<ConnId, Connection>,
    /// Connections that have got answers in this turn.
    pub(crate) ready: Vec<ConnId>,
    /// Connections that are to be closed at the end of this event.
    pub(crate) closing: Vec<ConnId>,
    pub(crate) partitions: Partitions,
    pub(crate) logs: ByLog,

    pub(crate) calls: KeyMap<Waiting>,
    pub(crate) gatherings: KeyMap<Gathering>,
    pub(crate) log_dirs_gatherings: KeyMap<LogDirsGathering>,
    pub(crate) produces: KeyMap<ProduceState>,
    pub(crate) fetches: KeyMap<FetchState>,
    /// Bytes of answers that are given and not yet taken by the kernel, or that open Fetches may bring.
    pub(crate) answers_bytes: usize,
    pub(crate) sessions: FetchSessions,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) native: NativeState,

    pub(crate) append_groups: KeyMap<AppendGroup>,
    /// Partitions whose first queued append found no room.
    pub(crate) blocked: Vec<PartitionRef>,
    pub(crate) owner_fetches: KeyMap<OwnerFetch>,
    pub(crate) questions: KeyMap<Questions>,
    pub(crate) tickets: KeyMap<Ticketed>,
    pub(crate) watches: KeyMap<Watch>,
    pub(crate) watches_by_call: OwnMap<Origin, Key>,

    /// Only on the first core.
    pub(crate) controller: Option<Controller>,
    pub(crate) sync: Sync,
    pub(crate) coordinator: Coordinator,

    /// Room in each log directory, as it was lately.
    pub(crate) space: Vec<Option<Space>>,
    pub(crate) timers: BinaryHeap<Reverse<(u64, Timer)>>,
    /// Log directories that are offline, as this core was told.
    pub(crate) dirs_lost: BTreeSet<usize>,
    pub(crate) stopping: Option<Stopping>,
    pub(crate) ready_told: bool,
}

impl Shard {
    /// A shard over what recovery found; `image` is the metadata with this start's leader epochs.
    pub fn new(
        core: CoreId,
        config: Arc<ShardConfig>,
        image: MetadataImage,
        store: Store,
        now: Now,
    ) -> Shard {
        let sessions_max = usize::try_from(config.broker.fetch_session_slots_max).unwrap_or(0);
        let cores = config.cores;
        let mut shard = Shard {
            core,
            image,
            store,
            actions: VecDeque::new(),
            keys: Keys::default(),
            leases: LeaseTable::new(core.0),
            metrics: ShardMetrics::new(core),
            walk_scratch: WalkScratch::new(),
            connections: OwnMap::default(),
            ready: Vec::new(),
            closing: Vec::new(),
            partitions: Partitions::default(),
            logs: ByLog::default(),
            calls: KeyMap::default(),
            gatherings: KeyMap::default(),
            log_dirs_gatherings: KeyMap::default(),
            produces: KeyMap::default(),
            fetches: KeyMap::default(),
            answers_bytes: 0,
            sessions: FetchSessions::new(core.0, cores, sessions_max.div_ceil(usize::from(cores))),
            producer_ids: ProducerIds::default(),
            native: NativeState::default(),
            append_groups: KeyMap::default(),
            blocked: Vec::new(),
            owner_fetches: KeyMap::default(),
            questions: KeyMap::default(),
            tickets: KeyMap::default(),
            watches: KeyMap::default(),
            watches_by_call: OwnMap::default(),
            controller: None,
            sync: Sync::default(),
            coordinator: Coordinator::new(core, &config),
            space: Vec::new(),
            timers: BinaryHeap::new(),
            dirs_lost: BTreeSet::new(),
            stopping: None,
            ready_told: false,
            config,
        };
        shard.set_timer(now.monotonic_us + HOUSEKEEPING_US, Timer::Housekeeping);
        shard.ask_space();
        shard.configure_store();
        if !shard.image.config().dynamic_defaults().is_empty()
            || !shard.image.config().dynamic_own().is_empty()
        {
            shard.limit_connections();
        }
        shard.adopt_partitions(now);
        if core == CoreId(0) {
            shard.open_metadata_log(now);
        }
        shard
    }

    /// Takes what happened at `now`.
    pub fn handle(&mut self, now: Now, event: Event) {
        match event {
            Event::Accepted {
                conn,
                listener,
                peer,
            } => self.on_accepted(now, conn, listener, peer),
            Event::Frame { conn, frame } => self.on_frame(now, conn, frame),
            Event::BadFrame { conn, size_bytes } => self.on_bad_frame(conn, size_bytes),
            Event::PeerFinished { conn } => self.on_peer_finished(now, conn),
            Event::Closed { conn } => self.on_closed(conn),
            Event::Sent { conn, released } => self.on_sent(now, conn, released),
            Event::Mesh { from, message } => self.on_mesh(now, from, message),
            Event::JournalWritten { token, result } => {
                self.store.on_write_done(now, token, result);
                self.on_store_progress(now);
            }
            Event::TaskDone(TaskDone::Store(done)) => {
                self.store.on_task_done(now, done);
                self.on_store_progress(now);
            }
            Event::TaskDone(TaskDone::Walk(done)) => self.on_walked(now, done),
            Event::TaskDone(TaskDone::Space(space)) => self.space = space,
            Event::Control(ControlMessage::Shutdown) => self.begin_shutdown(now),
            Event::Control(ControlMessage::Settle) => self.settle(now),
            Event::Control(ControlMessage::Metrics) => {
                let snapshot = Box::new(self.metrics_snapshot());
                let reply = ControlReply::Metrics(snapshot);
                self.actions.push_back(Action::Control(reply));
            }
            Event::Tick => self.on_tick(now),
            Event::TurnEnd => self.store.end_turn(now),
        }
        self.advance_ready(now);
        self.pump_store(now);
        self.go_on_stopping(now);
    }

    /// What is to be done next, in order; `None`: nothing until the next event.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Event::Tick`] is due, in monotonic microseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        let timer = self.timers.peek().map(|Reverse((due_us, _))| *due_us);
        [
            timer,
            self.store.next_deadline(),
            self.coordinator.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(crate) fn set_timer(&mut self, due_us: u64, timer: Timer) {
        self.timers.push(Reverse((due_us, timer)));
    }

    fn on_tick(&mut self, now: Now) {
        while let Some(Reverse((due_us, _))) = self.timers.peek()
            && *due_us <= now.monotonic_us
            && let Some(Reverse((_, timer))) = self.timers.pop()
        {
            match timer {
                Timer::Fetch(request) => self.on_fetch_deadline(now, request),
                Timer::Heartbeat(subscription) => {
                    crate::native::subscribe::on_heartbeat(self, now, subscription);
                }
                Timer::Housekeeping => {
                    self.close_idle(now);
                    self.ask_space();
                    self.set_timer(now.monotonic_us + HOUSEKEEPING_US, Timer::Housekeeping);
                }
                Timer::Shutdown => self.close_all(),
                Timer::Settle => self.stop_unsettled(),
            }
        }
        self.store.tick(now);
        self.on_store_progress(now);
        self.tick_groups(now);
    }

    fn ask_space(&mut self) {
        let dirs = self.config.broker.log_dirs.clone();
        self.actions.push_back(Action::Spawn(Task::Space(dirs)));
    }

    fn on_mesh(&mut self, now: Now, from: CoreId, message: MeshMessage) {
        match message {
            MeshMessage::Call { id, call } => self.on_call(now, Origin { core: from, id }, call),
            MeshMessage::Answer { id, answer } => self.on_answer(now, id, answer),
            MeshMessage::ReturnLeases(leases) => {
                for lease in leases {
                    self.leases.give_back(lease);
                }
            }
            MeshMessage::FetchWake { id } => self.on_fetch_wake(now, id),
            MeshMessage::FetchForget { id } => self.forget_watch(from, id),
            MeshMessage::Metadata { version, records } => {
                self.apply_metadata(now, version, &records);
            }
            MeshMessage::MetadataApplied { version } => self.on_metadata_applied(now, version),
            MeshMessage::DirOffline { dir, why } => {
                self.store.set_dir_offline(dir);
                self.on_dir_offline(now, dir, why);
            }
        }
    }

    fn metrics_snapshot(&self) -> ShardMetrics {
        let image = &self.image;
        let mut metrics = self
            .metrics
            .snapshot(|id| image.topic_by_id(id).map(|topic| topic.name.as_str()));
        let (done, held) = (self.store.counters(), self.store.gauges());
        metrics.connections_open = self.connections.len() as u64;
        metrics.copies.write_back_bytes = done.write_back_bytes_copied;
        metrics.memory.budget_bytes = self.config.memory_bytes as u64;
        metrics.memory.dirty_bytes = held.dirty_bytes;
        metrics.memory.clean_bytes = held.clean_bytes;
        metrics.memory.windows_bytes = held.windows_bytes;
        metrics.store = StoreTotals {
            journal_writes: done.journal_writes,
            journal_bytes: done.journal_bytes,
            straight_writes: done.straight_writes,
            straight_bytes: done.straight_bytes,
            disk_reads: done.disk_reads,
            disk_reads_ahead: done.disk_reads_ahead,
            disk_read_bytes: done.disk_read_bytes,
            read_ahead_unused_bytes: done.read_ahead_unused_bytes,
            checkpoints: done.checkpoints,
            segments_deleted: done.segments_deleted,
            compactions: done.compactions,
            partitions: held.partitions,
        };
        metrics
    }

    /// Takes what the store has to tell, and does what it asks.
    fn on_store_progress(&mut self, now: Now) {
        while let Some(notice) = self.store.poll_notice() {
            self.expect_durable();
            self.on_notice(now, notice);
        }
    }

    fn pump_store(&mut self, now: Now) {
        self.on_store_progress(now);
        while let Some(action) = self.store.poll_action() {
            self.actions.push_back(match action {
                StoreAction::DurableWrite(write) => Action::DurableWrite(write),
                StoreAction::Spawn(task) => Action::Spawn(Task::Store(task)),
            });
        }
        self.advance_ready(now);
    }

    fn on_notice(&mut self, now: Now, notice: Notice) {
        match notice {
            Notice::Ready => self.on_store_ready(now),
            Notice::Created { log } => {
                if let Some(name) = self.logs.get(log).copied() {
                    self.on_partition_created(now, name);
                }
            }
            Notice::Deleted { log } => {
                self.logs.remove(log);
            }
            Notice::Durable { log, offset_end } => match self.logs.get(log).copied() {
                Some(METADATA_PARTITION) => self.on_metadata_durable(now, offset_end),
                Some(name) => self.on_durable(now, name, log, offset_end),
                None => {}
            },
            Notice::ReadDone { ticket, result } => self.on_read_done(now, ticket, result),
            Notice::LookupDone { ticket, result } => {
                let answer = match result {
                    Ok(found) => looked_up(found),
                    Err(error) => PartitionAnswer::Error(read_error_code(error)),
                };
                self.on_question_done(now, ticket, answer);
            }
            Notice::LogStartMoved {
                log,
                offset,
                ticket,
            } => {
                if let Some(ticket) = ticket {
                    let answer = PartitionAnswer::Offset {
                        offset: offset.0,
                        timestamp_ms: -1,
                        leader_epoch: -1,
                    };
                    self.on_question_done(now, ticket, answer);
                }
                let _ = log;
            }
            Notice::DirOffline { dir, why } => self.on_dir_offline(now, dir, why),
            Notice::DirFull { dir } => {
                let dir = self.config.broker.log_dirs[dir].display();
                tracing::warn!(core = self.core.0, %dir, "the log directory is full: produce is refused");
                let dir = dir.to_string();
                self.actions
                    .push_back(Action::Control(ControlReply::DirFull { dir }));
            }
            Notice::DirRoom { dir } => {
                let dir = self.config.broker.log_dirs[dir].display();
                tracing::info!(core = self.core.0, %dir, "the log directory has room again");
                self.retry_blocked(now);
            }
            Notice::Room => {
                self.retry_blocked(now);
                self.retry_groups(now);
                self.on_metadata_log_open(now);
            }
            Notice::Settled => {
                if self.stopping == Some(Stopping::Settling) {
                    self.stopping = Some(Stopping::Stopped);
                    self.actions.push_back(Action::Stop);
                }
            }
        }
    }

    fn on_store_ready(&mut self, now: Now) {
        if !self.ready_told {
            self.ready_told = true;
            self.actions.push_back(Action::Control(ControlReply::Ready));
            self.load_groups(now);
        }
    }

    fn on_dir_offline(&mut self, now: Now, dir: usize, why: String) {
        if !self.dirs_lost.insert(dir) {
            return;
        }
        let path = self.config.broker.log_dirs[dir].display().to_string();
        tracing::error!(
            core = self.core.0,
            dir = path,
            why,
            "the log directory is offline"
        );
        for core in (0..self.config.cores).map(CoreId) {
            if core != self.core {
                let why = why.clone();
                self.send(core, MeshMessage::DirOffline { dir, why });
            }
        }
        let reply = ControlReply::DirOffline { dir: path, why };
        self.actions.push_back(Action::Control(reply));
        let lost: Vec<PartitionRef> = self
            .partitions
            .values()
            .filter(|partition| {
                let size = self.store.size_bytes(partition.log);
                size.is_some_and(|(_, own)| own == dir)
            })
            .map(|partition| partition.name)
            .collect();
        for name in lost {
            self.fail_appends(now, name, ErrorCode::KafkaStorageError);
            self.on_internal_lost(now, name);
            self.give_up_creation(now, name);
        }
        self.on_metadata_dir_offline(now);
    }

    fn begin_shutdown(&mut self, now: Now) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Stopping::Answering);
        self.actions.push_back(Action::StopAccepting);
        self.set_timer(now.monotonic_us + SHUTDOWN_ANSWERS_US, Timer::Shutdown);
        // Parked fetches are answered with what there is.
        let parked: Vec<Key> = self.fetches.keys().copied().collect();
        for request in parked {
            self.on_fetch_deadline(now, request);
        }
        self.stop_groups(now);
        self.close_quiet();
    }

    /// Closes the connections that have nothing in flight.
    fn close_quiet(&mut self) {
        let quiet: Vec<ConnId> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.is_idle())
            .map(|(conn, _)| *conn)
            .collect();
        for conn in quiet {
            self.close(conn, "the broker stops");
        }
    }

    fn close_all(&mut self) {
        let all: Vec<ConnId> = self.connections.keys().copied().collect();
        for conn in all {
            self.close(conn, "the broker stops");
        }
    }

    fn go_on_stopping(&mut self, now: Now) {
        if self.stopping == Some(Stopping::Answering) {
            self.close_quiet();
            self.advance_ready(now);
            if self.connections.is_empty() {
                self.stopping = Some(Stopping::Quiet);
                self.actions.push_back(Action::Control(ControlReply::Quiet));
            }
        }
    }

    /// No core has connections any more, so nothing is appended: the store writes everything down.
    fn settle(&mut self, now: Now) {
        self.stopping = Some(Stopping::Settling);
        self.store.begin_shutdown(now);
        self.set_timer(now.monotonic_us + SHUTDOWN_SETTLE_US, Timer::Settle);
    }

    /// Leaves what is not in segments to the journal, from which the next start replays it.
    fn stop_unsettled(&mut self) {
        if self.stopping == Some(Stopping::Settling) {
            let what = self.store.unsettled();
            tracing::warn!(
                core = self.core.0,
                what,
                "stopping before everything is in its segment"
            );
            self.stopping = Some(Stopping::Stopped);
            self.actions.push_back(Action::Stop);
        }
    }
}
