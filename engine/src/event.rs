//! What can happen to a shard and what it can ask of the world: two closed enums. Values pass between
//! a shard and the core loop (or the simulator) of the same core; nothing here knows sockets or rings.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use ring::buf::{Chunk, Shared};
use storage::disk::{Disk, Space};
use storage::store::{DurableWrite, StoreTask, StoreTaskDone};

use storage::types::CoreId;

use crate::mesh::MeshMessage;
use crate::metrics::ShardMetrics;
use crate::walk_task::{WalkDone, WalkTask};

/// A client's connection on the core that accepted it. Never reused while the core runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A client connected to the listener with this index in the configuration.
    Accepted {
        /// The new connection.
        conn: ConnId,
        /// Index of the listener that was asked.
        listener: usize,
        /// The client's address.
        peer: SocketAddr,
    },
    /// A whole request arrived, without its size prefix.
    Frame {
        /// Where it came from.
        conn: ConnId,
        /// Request header and body.
        frame: Shared,
    },
    /// A size prefix that no request may have: zero, negative, or above `socket.request.max.bytes`.
    BadFrame {
        /// Where it came from.
        conn: ConnId,
        /// The size that was stated, in bytes.
        size_bytes: i64,
    },
    /// The client says nothing more, and may still read: it gets the answers that it waits for.
    PeerFinished {
        /// The connection.
        conn: ConnId,
    },
    /// The connection is gone; no later event names it.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// Chunks of an [`Action::Send`] were taken by the kernel; leased ones must go home.
    Sent {
        /// Where they went.
        conn: ConnId,
        /// The buffers that are free again.
        released: Vec<Chunk>,
    },
    /// Another core says something.
    Mesh {
        /// Which core.
        from: CoreId,
        /// What.
        message: MeshMessage,
    },
    /// An [`Action::DurableWrite`] ended.
    JournalWritten {
        /// Which write.
        token: u64,
        /// `Ok` when the write, and its flush where one was asked for, completed.
        result: io::Result<()>,
    },
    /// An [`Action::Spawn`] ended.
    TaskDone(TaskDone),
    /// The control thread asks.
    Control(ControlMessage),
    /// The time of [`crate::shard::Shard::next_deadline`] has come.
    Tick,
    /// Everything that was ready has been handled; now is the time to write.
    TurnEnd,
}

/// What the world must do next, in this order.
#[derive(Debug)]
pub enum Action {
    /// Send these bytes after all earlier ones.
    Send {
        /// Where to.
        conn: ConnId,
        /// What; the chunks come back with [`Event::Sent`], also when the connection breaks.
        chunks: Vec<Chunk>,
    },
    /// Send what was asked for before, then close. [`Event::Closed`] follows.
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Stop reading from this connection: its requests pile up.
    PauseReceive {
        /// The connection.
        conn: ConnId,
    },
    /// Read from this connection again.
    ResumeReceive {
        /// The connection.
        conn: ConnId,
    },
    /// Write the journal, and flush it where `sync` says so. Until it completes the bytes do not
    /// change; what they hold is not acknowledged before [`Event::JournalWritten`].
    DurableWrite(DurableWrite),
    /// Run slow work beside the serving queue.
    Spawn(Task),
    /// Tell another core.
    Mesh {
        /// Which core.
        to: CoreId,
        /// What.
        message: MeshMessage,
    },
    /// Answer the control thread.
    Control(ControlReply),
    /// The limits of the broker's connections have changed.
    LimitConnections {
        /// `max.connection.creation.rate`, in connections a second.
        rate_max: i32,
    },
    /// Close the listeners.
    StopAccepting,
    /// Everything is flushed and checkpointed, every connection closed: leave the loop.
    Stop,
}

/// Slow work of a shard.
#[derive(Debug)]
pub enum Task {
    /// Work of the log: cold reads, write-back, compaction, checkpoints.
    Store(StoreTask),
    /// Walking the records of a large compressed batch.
    Walk(WalkTask),
    /// Asking how much room the log directories have.
    Space(Vec<PathBuf>),
}

impl Task {
    /// Does the work.
    pub async fn run<D: Disk>(self, disk: D) -> TaskDone {
        match self {
            Task::Store(task) => TaskDone::Store(task.run(disk).await),
            Task::Walk(task) => TaskDone::Walk(task.run(disk).await),
            Task::Space(dirs) => {
                let mut spaces = Vec::with_capacity(dirs.len());
                for dir in &dirs {
                    spaces.push(disk.space(dir).await.ok());
                }
                TaskDone::Space(spaces)
            }
        }
    }
}

/// What slow work reports.
#[derive(Debug)]
pub enum TaskDone {
    /// The log's.
    Store(StoreTaskDone),
    /// The walk's.
    Walk(WalkDone),
    /// Room in each log directory; `None` where it cannot be told.
    Space(Vec<Option<Space>>),
}

/// What the control thread asks of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlMessage {
    /// Stop accepting, answer what is in flight, close the connections; [`ControlReply::Quiet`] follows.
    Shutdown,
    /// No core has connections any more: flush, checkpoint, stop.
    Settle,
    /// Send a snapshot of the counters.
    Metrics,
}

/// What a shard tells the control thread.
#[derive(Debug)]
pub enum ControlReply {
    /// The shard serves: its journal is open and what it recovered is safe.
    Ready,
    /// On the way to a stop: every connection of this core is answered and closed.
    Quiet,
    /// The counters as they stand.
    Metrics(Box<ShardMetrics>),
    /// A log directory of this core has become full.
    DirFull {
        /// Its path.
        dir: String,
    },
    /// A log directory of this core went offline.
    DirOffline {
        /// Its path.
        dir: String,
        /// Why.
        why: String,
    },
}
