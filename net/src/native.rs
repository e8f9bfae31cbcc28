//! The native protocol: frames made for this engine. Sans-I/O, on whichever core or client thread holds the
//! bytes; knows no socket, no partition and no log. docs/PROTOCOL.md says the same for other languages.
//!
//! A frame is a fixed header of 32 bytes ([`header`]), a body archived by rkyv ([`hello`], [`v1`]), and
//! record batches exactly as on the Kafka side, from a multiple of 8 bytes on ([`frame`]).
//!
//! The header's checksum covers header and body, and is looked at before the body is: validating an
//! archive says that reading it is safe, not that it is what was sent. It does not cover the batches:
//! each has a CRC-32C of its own, which the broker checks before it appends and the consumer before it
//! uses a batch.
//!
//! Archives are built with rkyv's `unaligned` feature: every field is packed, little-endian, at whatever
//! address it lies. So a body is read where it was received, at any position of a receive buffer, with no
//! aligned copy to make and no padding to describe; on the machines that this runs on, an unaligned load
//! costs as much as another.

pub mod body;
pub mod frame;
pub mod header;
pub mod hello;
pub mod v1;

pub use body::Body;
pub use frame::{Fault, Frame, decode, encode, read, read_text};
pub use header::{HEADER_BYTES, Header, HeaderFault, Kind, frame_bytes};

/// The oldest version of the protocol that is spoken.
pub const VERSION_MIN: u8 = 1;

/// The newest version of the protocol that is spoken.
pub const VERSION_MAX: u8 = 1;

/// The version of the frames that negotiate: their layout never changes.
pub const VERSION_HELLO: u8 = 0;

/// Partitions that one request may name; with more it is refused as INVALID_REQUEST.
pub const REQUEST_PARTITIONS_MAX: usize = 65_536;

#[cfg(test)]
mod tests;
