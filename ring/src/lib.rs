//! The kernel's edge: one io_uring per core, its buffers, its wake-up. Everything here lives on the
//! core that made it; nothing here knows Kafka, partitions or logs.

pub mod buf;
pub mod clock;
mod durable;
pub mod file;
mod helper;
mod large;
pub mod listener;
mod op;
pub mod prefetch;
pub mod probe;
pub mod recv_pool;
pub mod ring;
mod sending;
pub mod socket;
pub mod wake;

pub use file::{File, FileOutcome, OpenOptions};
pub use helper::space;
pub use large::{give_back_unused_memory, make_memory_ahead};
pub use listener::{BACKLOG_USUAL, Listener, UNIX_PATH_BYTES_MAX, is_unix_served};
pub use op::OpToken;
pub use ring::{Completion, Ring, RingConfig};
pub use socket::{EndReason, IntoBuf, SocketId};
pub use wake::Waker;
