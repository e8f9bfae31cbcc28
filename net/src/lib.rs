//! Bytes on the wire: the Kafka protocol's codec and the framing of connections. Sans-I/O: runs on
//! whichever core holds the bytes, and knows no socket, no partition and no log; only `client`, which
//! belongs to the tools, opens sockets of its own.

#![forbid(unsafe_code)]

pub mod client;
pub mod framer;
pub mod fuzz;
pub mod kafka;
pub mod native;
pub mod wire;
