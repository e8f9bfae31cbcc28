//! One core's traffic between its shard and its ring: completions become events, actions become
//! submissions. Lives on the core, inside its serving loop; knows no executor and decides nothing that
//! a shard decides.
//!
//! Work per turn is bounded: completions and messages are taken in portions, and the portions of one
//! connection by what the kernel gives it at a time.

mod sweep;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::BuildHasherDefault;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use net::framer::{DirectTarget, Framer};
use ring::buf::{Chunk, Shared};
use ring::{Completion, EndReason, IntoBuf, Listener, Ring, SocketId, clock};
use storage::types::{CoreId, Now};

use crate::admission::{Admission, FREE_BYTES, Place};
use crate::connection_limits::ConnectionLimits;
use crate::event::{Action, ConnId, ControlMessage, ControlReply, Event};
use crate::ids::{KeyHasher, OwnMap};
use crate::journal_io::{JournalIo, Written};
use crate::mesh::MeshMessage;
use crate::mesh_link::MeshLinks;
use crate::metrics::{Copies, ShardMetrics};
use crate::native;
use crate::ring_disk::RingDisk;
use crate::shard::Shard;
use crate::task_queue::TaskQueue;

/// Completions taken from the kernel in one turn.
const COMPLETIONS_PER_TURN: usize = 256;
/// Messages taken from other cores in one turn.
const MESSAGES_PER_TURN: usize = 256;
/// What is missing of a straddling frame is received straight into its buffer from this size on; less
/// is copied, which is cheaper than stopping and starting the ordinary receive.
const DIRECT_BYTES_MIN: usize = 8 << 10;
/// How long a closing connection may take to send its last answers, in microseconds.
const CLOSE_GRACE_US: u64 = 10_000_000;
/// How long a listener rests after the machine ran out of descriptors, in microseconds.
const ACCEPT_REST_US: u64 = 100_000;
/// What a core serves: the shard, or a stand-in in tests.
pub trait Machine {
    /// Changes state.
    fn handle(&mut self, now: Now, event: Event);
    /// What the world must do next.
    fn poll_action(&mut self) -> Option<Action>;
    /// When it wants [`Event::Tick`], in monotonic microseconds.
    fn next_deadline(&self) -> Option<u64>;
    /// How many produce requests of this core's clients, or of others' for this core's partitions, have no
    /// answer yet.
    fn waiting_count(&self) -> usize;
    /// How long the core is to look for work before it sleeps while few requests wait, in microseconds; zero: a
    /// few turns.
    fn idle_poll_us(&self) -> u64;
}

impl Machine for Shard {
    fn handle(&mut self, now: Now, event: Event) {
        Shard::handle(self, now, event);
    }

    fn poll_action(&mut self) -> Option<Action> {
        Shard::poll_action(self)
    }

    fn next_deadline(&self) -> Option<u64> {
        Shard::next_deadline(self)
    }

    fn waiting_count(&self) -> usize {
        self.produces.len().max(self.append_groups.len())
    }

    fn idle_poll_us(&self) -> u64 {
        native::idle_poll_us(self)
    }
}

/// A connection's framer, and what is on its way.
struct Conn {
    socket: SocketId,
    ip: IpAddr,
    framer: Framer,
    /// The shard does not want to hear from it now.
    paused: bool,
    /// Receiving goes on in the ring.
    receiving: bool,
    /// Place of the frame that is arriving, when it is above [`FREE_BYTES`].
    place: Option<Place>,
    admitted: bool,
    /// Range of the framer's buffer that the ring has.
    direct: Option<Range<usize>>,
    /// Nothing more will arrive; closes when what has arrived is handed over.
    ended: bool,
    /// The framer refused a size; nothing is read any more.
    bad: bool,
    /// Chunks of each answer that is not wholly sent.
    answers: VecDeque<usize>,
    /// Chunks of the oldest answers that came back.
    returned: Vec<Chunk>,
    /// Unsent bytes at the last sweep.
    unsent_seen_bytes: usize,
    copied_out: bool,
    close_by_us: Option<u64>,
}

/// Ways in and out of a core beside its sockets and files.
pub struct CoreLinks {
    /// To and from the other cores.
    pub mesh: MeshLinks<MeshMessage>,
    /// From the control thread, which wakes the core after each message.
    pub control: Receiver<ControlMessage>,
    /// To the control thread.
    pub replies: tokio::sync::mpsc::UnboundedSender<(CoreId, ControlReply)>,
}

/// One core's shard between its ring, its links and its tasks.
pub struct CoreIo<M> {
    core: CoreId,
    machine: M,
    ring: Rc<RefCell<Ring>>,
    /// Until the shard is ready.
    listeners: Vec<Listener>,
    disk: RingDisk,
    tasks: TaskQueue,
    links: CoreLinks,
    admission: Admission,
    frame_bytes_max: usize,
    /// The listeners whose connections speak native frames.
    native_listeners: Range<usize>,
    /// What readers that have stalled may hold together; the one that holds most goes first.
    stalled_bytes_max: usize,
    conns: OwnMap<ConnId, Conn>,
    by_place: HashMap<Place, ConnId>,
    /// Connections whose receiving is to be looked at when the turn's completions are handled.
    touched: Vec<ConnId>,
    /// Connections with frames that were not cut because other cores are behind.
    held: BTreeSet<ConnId>,
    /// Connections with unsent answers, or closing.
    sending: HashSet<ConnId, BuildHasherDefault<KeyHasher>>,
    sweep_us: u64,
    limits: Arc<ConnectionLimits>,
    /// Accepted while there were `max.connections` already, or too soon after others: nothing is read from
    /// them yet.
    entering: VecDeque<(usize, SocketId, SocketAddr)>,
    enter_us: u64,
    accept_again: Vec<(usize, u64)>,
    journal: JournalIo,
    /// A control message taken while looking whether to sleep.
    control_ahead: Option<ControlMessage>,
    copies: Copies,
    stopped: bool,
    /// The shard was told something since its last turn ended. True at first: it may have made plans
    /// while it was made.
    turn_open: bool,
    completions: Vec<Completion>,
    /// When the last turn was.
    turned_us: u64,
    messages: Vec<(CoreId, MeshMessage)>,
}

impl<M: Machine> CoreIo<M> {
    /// A core that serves `machine` on `listeners`, whose places are the listener indexes that the
    /// machine hears; nobody is accepted before it says [`ControlReply::Ready`]. Frames have `frame_memory_bytes` of memory and at most `frame_bytes_max` each.
    #[allow(clippy::too_many_arguments)] // one caller; each is a part of the core
    pub fn new(
        core: CoreId,
        machine: M,
        ring: Rc<RefCell<Ring>>,
        disk: RingDisk,
        tasks: TaskQueue,
        links: CoreLinks,
        listeners: Vec<Listener>,
        frame_memory_bytes: usize,
        frame_bytes_max: usize,
        limits: Arc<ConnectionLimits>,
    ) -> CoreIo<M> {
        CoreIo {
            core,
            machine,
            ring,
            listeners,
            disk,
            tasks,
            links,
            admission: Admission::new(frame_memory_bytes, frame_bytes_max),
            frame_bytes_max,
            native_listeners: 0..0,
            stalled_bytes_max: frame_memory_bytes,
            conns: OwnMap::default(),
            by_place: HashMap::new(),
            touched: Vec::new(),
            held: BTreeSet::new(),
            sending: HashSet::default(),
            sweep_us: 0,
            limits,
            entering: VecDeque::new(),
            enter_us: 0,
            accept_again: Vec::new(),
            journal: JournalIo::default(),
            control_ahead: None,
            copies: Copies::default(),
            stopped: false,
            turn_open: true,
            completions: Vec::new(),
            turned_us: 0,
            messages: Vec::new(),
        }
    }

    /// The same, where connections of those listeners speak native frames.
    pub fn with_native_listeners(mut self, listeners: Range<usize>) -> CoreIo<M> {
        self.native_listeners = listeners;
        self
    }

    /// Whether the shard has stopped.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// What the core serves.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// When the last turn was, in monotonic microseconds.
    pub fn turned_us(&self) -> u64 {
        self.turned_us
    }

    /// One turn: everything that is ready becomes events, then the shard's actions are carried out.
    /// Returns whether anything happened.
    ///
    /// # Errors
    /// Only when the ring is broken.
    pub fn turn(&mut self) -> io::Result<bool> {
        let mut completions = std::mem::take(&mut self.completions);
        let reaped = self
            .ring
            .borrow_mut()
            .turn(&mut completions, COMPLETIONS_PER_TURN)?;
        let now = now();
        self.turned_us = now.monotonic_us;
        let mut worked = reaped > 0;
        for completion in completions.drain(..) {
            self.on_completion(now, completion);
        }
        self.completions = completions;

        let mut messages = std::mem::take(&mut self.messages);
        self.links.mesh.receive(&mut messages, MESSAGES_PER_TURN);
        worked |= !messages.is_empty();
        for (from, message) in messages.drain(..) {
            self.tell(now, Event::Mesh { from, message });
        }
        self.messages = messages;

        while let Some(message) = self
            .control_ahead
            .take()
            .or_else(|| self.links.control.try_recv().ok())
        {
            worked = true;
            self.tell(now, Event::Control(message));
        }
        while let Some(done) = self.tasks.take_done() {
            worked = true;
            self.tell(now, Event::TaskDone(done));
        }
        if self
            .machine
            .next_deadline()
            .is_some_and(|deadline_us| deadline_us <= now.monotonic_us)
        {
            worked = true;
            self.tell(now, Event::Tick);
            self.journal.forget_unused();
            ring::give_back_unused_memory();
        }
        if !self.held.is_empty() && !self.links.mesh.is_congested() {
            worked = true;
            for conn in std::mem::take(&mut self.held) {
                self.cut_frames(now, conn);
            }
        }
        worked |= self.sweep(now);
        if self.turn_open {
            self.machine.handle(now, Event::TurnEnd);
            self.turn_open = false;
        }
        worked |= self.carry_out(now);
        // An answer to a connection that is gone is told after the turn's end: that opens the next.
        worked |= self.turn_open;
        self.admit(now);
        self.advance_touched();
        self.links.mesh.flush();
        self.set_timer();
        Ok(worked)
    }

    /// Prepares to sleep; false when there is something to do after all. The ring's `woke` must follow
    /// either way.
    pub fn prepare_sleep(&mut self) -> bool {
        let quiet = self.ring.borrow_mut().prepare_sleep();
        self.links.mesh.flush();
        if self.control_ahead.is_none() {
            self.control_ahead = self.links.control.try_recv().ok();
        }
        let inboxes_empty = !self.links.mesh.has_incoming()
            && self.control_ahead.is_none()
            && !self.tasks.has_done()
            && (self.held.is_empty() || self.links.mesh.is_congested());
        quiet && inboxes_empty
    }

    fn tell(&mut self, now: Now, event: Event) {
        self.turn_open = true;
        self.machine.handle(now, event);
    }

    fn on_completion(&mut self, now: Now, completion: Completion) {
        match completion {
            Completion::Accepted {
                listener,
                socket,
                peer,
                local: _,
            } => self.on_accepted(now, listener, socket, peer),
            Completion::AcceptFailed { listener, error } => {
                tracing::warn!(%error, "cannot accept connections for now");
                self.accept_again
                    .push((listener, now.monotonic_us + ACCEPT_REST_US));
            }
            Completion::Received { socket, bytes } => {
                let conn = conn_id(socket);
                if let Some(state) = self.conns.get_mut(&conn)
                    && !state.bad
                {
                    state.framer.push(bytes);
                    self.cut_frames(now, conn);
                }
            }
            Completion::ReceivedInto { socket, buf } => {
                let conn = conn_id(socket);
                let IntoBuf::Plain(buffer) = buf else {
                    unreachable!("framers lend plain memory")
                };
                if let Some(state) = self.conns.get_mut(&conn) {
                    let range = state.direct.take().expect("lent to the ring");
                    let bytes = range.len();
                    let target = DirectTarget { buffer, range };
                    state.framer.direct_received(target, bytes);
                    self.cut_frames(now, conn);
                }
            }
            Completion::ReceiveEnded { socket, reason } => {
                let conn = conn_id(socket);
                if let Some(state) = self.conns.get_mut(&conn) {
                    state.ended = true;
                    // A broken connection takes no answers; one that has only said all it wanted to
                    // is closed by the shard, once it has them.
                    if matches!(reason, EndReason::Failed(_)) {
                        self.ring.borrow_mut().close(socket);
                    } else if !self.held.contains(&conn) {
                        self.tell(now, Event::PeerFinished { conn });
                    }
                }
            }
            Completion::Sent { socket, released } => self.on_sent(now, conn_id(socket), released),
            Completion::SendFailed {
                socket, released, ..
            } => {
                self.on_sent(now, conn_id(socket), released);
                self.ring.borrow_mut().close(socket);
            }
            Completion::Closed { socket, released } => {
                self.on_closed(now, conn_id(socket), released);
            }
            Completion::File { token, outcome } => {
                if let Some(outcome) = self.disk.complete(token, outcome) {
                    let written =
                        self.journal
                            .complete(&mut self.ring.borrow_mut(), token, outcome);
                    self.tell_written(now, written);
                }
            }
            // Deadlines are looked at in every turn; this one was only to have a turn.
            Completion::Timer => {}
        }
    }

    fn on_accepted(&mut self, now: Now, listener: usize, socket: SocketId, peer: SocketAddr) {
        if !self.limits.enter_ip(peer.ip()) {
            tracing::debug!(%peer, "closing a connection: its address has max.connections.per.ip");
            self.ring.borrow_mut().close(socket);
        } else if !self.entering.is_empty() || !self.limits.enter(now.monotonic_us) {
            self.entering.push_back((listener, socket, peer));
        } else {
            self.admit_connection(now, listener, socket, peer);
        }
    }

    fn admit_connection(&mut self, now: Now, listener: usize, socket: SocketId, peer: SocketAddr) {
        let conn = conn_id(socket);
        let framer = if self.native_listeners.contains(&listener) {
            Framer::native(self.frame_bytes_max)
        } else {
            Framer::new(self.frame_bytes_max)
        };
        let state = Conn {
            socket,
            ip: peer.ip(),
            framer,
            paused: false,
            receiving: false,
            place: None,
            admitted: false,
            direct: None,
            ended: false,
            bad: false,
            answers: VecDeque::new(),
            returned: Vec::new(),
            unsent_seen_bytes: 0,
            copied_out: false,
            close_by_us: None,
        };
        self.conns.insert(conn, state);
        self.touched.push(conn);
        self.tell(
            now,
            Event::Accepted {
                conn,
                listener,
                peer,
            },
        );
    }

    /// Hands over what is whole.
    fn cut_frames(&mut self, now: Now, conn: ConnId) {
        self.touched.push(conn);
        loop {
            // Work that needs other cores would only pile up: what has arrived stays in its buffers,
            // and when those are gone nobody is read from.
            if self.links.mesh.is_congested() {
                self.held.insert(conn);
                return;
            }
            let Some(state) = self.conns.get_mut(&conn) else {
                return;
            };
            let straddles = state.framer.pending().is_some();
            match state.framer.next_frame() {
                Ok(Some(frame)) => {
                    let place = state.place.take();
                    if let Some(place) = place {
                        self.by_place.remove(&place);
                        state.admitted = false;
                    }
                    let frame = match place {
                        None if !straddles && self.ring.borrow().receive_buffers_low() => {
                            self.copies.provided_bytes += frame.len() as u64;
                            Shared::from(frame.to_vec())
                        }
                        place => self.admission.complete(place, frame),
                    };
                    self.tell(now, Event::Frame { conn, frame });
                    // What the shard asked for may fill a link to another core.
                    self.carry_out(now);
                }
                Ok(None) => break,
                Err(error) => {
                    if !state.bad {
                        state.bad = true;
                        let size_bytes = i64::from(error.size);
                        self.tell(now, Event::BadFrame { conn, size_bytes });
                    }
                    break;
                }
            }
        }
        if self.conns.get(&conn).is_some_and(|state| state.ended) {
            self.tell(now, Event::PeerFinished { conn });
        }
    }

    /// Sets what the ring should receive for those that something happened to.
    fn advance_touched(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        for conn in touched.drain(..) {
            self.advance_receive(conn);
        }
        self.touched = touched;
    }

    /// Sets what the ring should receive for a connection, and where to.
    fn advance_receive(&mut self, conn: ConnId) {
        let Some(state) = self.conns.get_mut(&conn) else {
            return;
        };
        if state.direct.is_some() || state.ended || state.bad {
            return;
        }
        let pending = state.framer.pending();
        let large = pending.filter(|frame| frame.size_bytes > FREE_BYTES);
        if let Some(frame) = large
            && state.place.is_none()
        {
            let place = self.admission.ask(frame.size_bytes);
            state.place = Some(place);
            state.admitted = false;
            self.by_place.insert(place, conn);
        }
        let waits = state.place.is_some() && !state.admitted;
        // A paused connection may finish a frame that has its memory already; others then get it.
        let stopped = state.paused && !state.admitted;
        let missing = pending.map_or(0, |frame| frame.size_bytes - frame.received_bytes);
        let direct = !waits && !stopped && missing >= DIRECT_BYTES_MIN;
        let receive = !waits && !stopped && !direct;
        let mut ring = self.ring.borrow_mut();
        if receive != state.receiving {
            state.receiving = receive;
            if receive {
                ring.resume_receive(state.socket);
            } else {
                ring.pause_receive(state.socket);
            }
        }
        if direct && let Some(DirectTarget { buffer, range }) = state.framer.direct_target() {
            state.direct = Some(range.clone());
            ring.receive_into(state.socket, IntoBuf::Plain(buffer), range);
        }
    }

    /// Gives memory to frames that wait for it.
    fn admit(&mut self, now: Now) {
        // A connection asks in `advance_receive`, after this; the next turn follows at once, because
        // asking is the consequence of something that happened in this one.
        self.advance_touched();
        for place in self.admission.admit(now.monotonic_us) {
            let Some(conn) = self.by_place.get(&place) else {
                continue;
            };
            if let Some(state) = self.conns.get_mut(conn) {
                state.admitted = true;
                self.touched.push(*conn);
            }
        }
    }

    fn on_sent(&mut self, now: Now, conn: ConnId, released: Vec<Chunk>) {
        let Some(state) = self.conns.get_mut(&conn) else {
            // The connection went before the answer came.
            self.tell(now, Event::Sent { conn, released });
            return;
        };
        if state.returned.is_empty()
            && state.answers.len() == 1
            && state.answers.front() == Some(&released.len())
        {
            // As nearly always: one answer, sent in one go.
            state.answers.pop_front();
            if state.close_by_us.is_none() {
                self.sending.remove(&conn);
            }
            self.tell(now, Event::Sent { conn, released });
            return;
        }
        state.returned.extend(released);
        let mut whole = 0;
        let mut chunks = 0;
        while let Some(count) = state.answers.front()
            && chunks + count <= state.returned.len()
        {
            chunks += count;
            whole += 1;
            state.answers.pop_front();
        }
        if state.answers.is_empty() && state.close_by_us.is_none() {
            self.sending.remove(&conn);
        }
        if whole == 0 {
            return;
        }
        // One event per answer: the first carries the chunks of all.
        let mut released: Vec<Chunk> = state.returned.drain(..chunks).collect();
        for _ in 0..whole {
            let released = std::mem::take(&mut released);
            self.tell(now, Event::Sent { conn, released });
        }
    }

    fn on_closed(&mut self, now: Now, conn: ConnId, released: Vec<Chunk>) {
        let Some(state) = self.conns.remove(&conn) else {
            return;
        };
        self.limits.leave();
        self.limits.leave_ip(state.ip);
        self.sending.remove(&conn);
        self.held.remove(&conn);
        self.copies.straddling_bytes += straddling_bytes(&state.framer);
        if let Some(place) = state.place {
            self.by_place.remove(&place);
            self.admission.forget(place);
        }
        let mut chunks = state.returned;
        chunks.extend(released);
        if !chunks.is_empty() {
            let released = chunks;
            self.tell(now, Event::Sent { conn, released });
        }
        self.tell(now, Event::Closed { conn });
    }

    /// Carries out what the shard asks for. Returns whether it asked for anything.
    fn carry_out(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(action) = self.machine.poll_action() {
            any = true;
            match action {
                Action::Send { conn, chunks } => {
                    let Some(state) = self.conns.get_mut(&conn) else {
                        let released = chunks;
                        self.tell(now, Event::Sent { conn, released });
                        continue;
                    };
                    state.answers.push_back(chunks.len());
                    self.sending.insert(conn);
                    self.ring.borrow_mut().send(state.socket, chunks);
                }
                Action::Close { conn } => {
                    if let Some(state) = self.conns.get_mut(&conn)
                        && state.close_by_us.is_none()
                    {
                        state.close_by_us = Some(now.monotonic_us + CLOSE_GRACE_US);
                        self.sending.insert(conn);
                        self.ring.borrow_mut().close_after_sends(state.socket);
                    }
                }
                Action::PauseReceive { conn } => self.set_paused(conn, true),
                Action::ResumeReceive { conn } => self.set_paused(conn, false),
                Action::DurableWrite(write) => {
                    let written = self.journal.write(&mut self.ring.borrow_mut(), write);
                    self.tell_written(now, written);
                }
                Action::Spawn(task) => self.tasks.push(task),
                Action::Mesh { to, message } => self.links.mesh.send(to, message),
                Action::Control(mut reply) => {
                    match &mut reply {
                        ControlReply::Ready => {
                            for listener in self.listeners.drain(..) {
                                self.ring.borrow_mut().listen(listener);
                            }
                        }
                        ControlReply::Metrics(metrics) => self.add_metrics(metrics),
                        ControlReply::Quiet
                        | ControlReply::DirFull { .. }
                        | ControlReply::DirOffline { .. } => {}
                    }
                    // Fails when the control thread is gone: then nobody is left to tell.
                    let _ = self.links.replies.send((self.core, reply));
                }
                Action::StopAccepting => {
                    for (_, socket, peer) in self.entering.drain(..) {
                        self.limits.leave_ip(peer.ip());
                        self.ring.borrow_mut().close(socket);
                    }
                    self.listeners.clear();
                    self.ring.borrow_mut().stop_accepting();
                }
                Action::LimitConnections { rate_max } => self.limits.set_rate(rate_max),
                Action::Stop => self.stopped = true,
            }
        }
        any
    }

    /// Adds what only this side of the shard counts.
    fn add_metrics(&self, metrics: &mut ShardMetrics) {
        let open: u64 = self
            .conns
            .values()
            .map(|state| straddling_bytes(&state.framer))
            .sum();
        metrics.copies.straddling_bytes += self.copies.straddling_bytes + open;
        metrics.copies.provided_bytes += self.copies.provided_bytes;
        metrics.copies.stalled_bytes += self.ring.borrow().copied_out_bytes();
        metrics.memory.frames_bytes += self.admission.reserved_bytes() as u64;
    }

    fn set_paused(&mut self, conn: ConnId, paused: bool) {
        if let Some(state) = self.conns.get_mut(&conn) {
            state.paused = paused;
            self.touched.push(conn);
        }
    }

    fn tell_written(&mut self, now: Now, written: impl IntoIterator<Item = Written>) {
        for (token, result) in written {
            self.tell(now, Event::JournalWritten { token, result });
        }
    }
}

/// Copied out of receive buffers, or moved because a frame's buffer grew.
fn straddling_bytes(framer: &Framer) -> u64 {
    framer.straddle_copied_bytes() + framer.moved_bytes()
}

fn conn_id(socket: SocketId) -> ConnId {
    ConnId(socket.to_u64())
}

fn now() -> Now {
    Now {
        monotonic_us: clock::monotonic_us(),
        wall_ms: clock::wall_ms(),
    }
}
