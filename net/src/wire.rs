//! The wire's alphabet: reading numbers, strings, arrays and tagged fields out of a borrowed frame, and
//! gathering an answer that leaves as a list of buffers. Lives on whichever core holds the frame; knows
//! no message, no partition and no socket.

mod field;
mod reader;
mod writer;

pub(crate) use field::differs;
pub use field::{Context, Field, Records};
pub use reader::{DecodeError, ELEMENTS_BYTES_MAX, Reader};
pub use writer::Writer;

#[cfg(test)]
mod tests;
