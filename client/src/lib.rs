//! A client of the native protocol: a producer that batches, acknowledges and repeats nothing, and a
//! consumer that reads batches where they were received. Lives in the caller's program, on whatever
//! thread; knows no runtime and no shard.
//!
//! The core opens no socket and reads no clock: [`Link`] turns bytes into frames and back, [`Producer`]
//! and [`Consumer`] are state machines over it. Around them are two ready-made clients: [`blocking`]
//! over `std::net`, and [`asynchronous`] over any stream that has the traits of `futures-io` (tokio's
//! and glommio's streams have wrappers for them).
//!
//! A client on the broker's own machine may connect by the broker's Unix socket (`native.unix.socket`)
//! instead of TCP's loopback: `Client::connect("unix:/run/millrace/native.sock", ..)`, or
//! [`asynchronous::Client::open`] over a Unix stream of the runtime. Who has few records under way and wants each
//! answer as early as can be connects with a [`Greeting`] that asks for it.
//!
//! ```no_run
//! use millrace_client::blocking::Client;
//! use millrace_client::{ProducerConfig, Window};
//!
//! # fn main() -> Result<(), millrace_client::Error> {
//! let mut client = Client::connect("127.0.0.1:9192", "example")?;
//! let topic = client.topic("greetings", true)?;
//! let mut producer = client.producer(ProducerConfig::default());
//! producer.send(topic.id, 0, None, Some(b"hello"))?;
//! producer.flush()?;
//!
//! let client = Client::connect("127.0.0.1:9192", "example")?;
//! let mut consumer = client.consumer(vec![(topic.id, 0, 0)], Window::default())?;
//! let delivery = consumer.next()?;
//! for partition in delivery.partitions() {
//!     for batch in partition?.batches() {
//!         let batch = batch?;
//!         for record in batch.records(&mut Default::default())? {
//!             println!("{:?}", record?.value);
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod asynchronous;
pub mod blocking;
mod consumer;
mod error;
mod link;
mod metadata;
mod producer;
pub mod stream;

pub use consumer::{Batch, Consumer, Delivery, PartitionDelivery, Position, Window};
pub use error::Error;
pub use link::{Greeting, Link, Received};
pub use metadata::Topic;
pub use producer::{Acknowledged, Outcome, Producer, ProducerConfig};

/// A topic's id.
pub type TopicId = [u8; 16];
