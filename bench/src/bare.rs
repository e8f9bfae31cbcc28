//! `millrace bench bare`: the bare loop, the least work that a durable answer takes: epoll, checksums, one copy into a direct-I/O journal, one write and fdatasync a turn, answers. One thread; knows Produce requests and nothing else of a broker: no topics, no reading, no recovery.

mod journal;
mod produce;
mod server;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

pub use journal::Journal;
pub use server::Server;

use crate::{Failure, process};

/// The options of `millrace bench bare`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Where to listen; with port 0 on a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:9292", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// The journal; it is made, or overwritten.
    #[arg(long, value_name = "FILE")]
    pub journal: PathBuf,
    /// Size of the journal, in MiB; it is written with zeros first, and from its end starts anew.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(64..=1 << 20))]
    pub journal_mib: u64,
    /// The core to run on.
    #[arg(long)]
    pub core: Option<usize>,
    /// Polls instead of sleeping when nothing is there to do.
    #[arg(long)]
    pub spin: bool,
}

/// Serves until the process is ended.
///
/// # Errors
/// A sentence for the operator.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(core) = arguments.core {
        process::pin_to(core)?;
    }
    let journal = Journal::create(&arguments.journal, arguments.journal_mib << 20, true)?;
    let mut server = Server::bind(arguments.listen, journal, arguments.spin)?;
    println!("The bare loop listens on {}", server.local());
    server.serve(&AtomicBool::new(false))
}
