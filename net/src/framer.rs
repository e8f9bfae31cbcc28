//! Cuts the bytes of one connection into frames. Sans-I/O: lives with its connection on that core, is
//! given received buffers and gives back frames; knows no socket and no API.
//!
//! A frame that lies whole in one received buffer is a slice of it. One that straddles buffers gets a
//! buffer of its own: its head is copied there, the rest can be received straight into it
//! ([`Framer::direct_target`]). That buffer grows with the bytes that arrive, never by what a size
//! prefix claims, so a large size and then silence costs nothing.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use ring::buf::Shared;

use crate::native;

/// The first piece of a straddling frame's buffer, in bytes; from there it doubles. Small enough to be
/// given to every connection.
const FIRST_STEP_BYTES: usize = 64 << 10;

/// Below this size, in bytes, address space (not memory) is set aside for the whole frame at once, so
/// that growing does not move it.
const UNMOVED_BYTES: usize = 1 << 20;

/// The size prefix of a frame.
const PREFIX_BYTES: usize = 4;

/// How frames say where they end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// A size of four bytes, big-endian, which is no part of the frame.
    Kafka,
    /// The native header, which is the frame's beginning.
    Native,
}

/// A size prefix that is no size, or a header that is none; the connection must close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameError {
    /// The size that the prefix claims, in bytes; of a native frame at most [`i32::MAX`], and -1 where the
    /// bytes are no native header.
    pub size: i32,
    /// The largest allowed, in bytes.
    pub size_max: usize,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "frame of {} bytes; allowed are 1 to {}",
            self.size, self.size_max
        )
    }
}

impl std::error::Error for FrameError {}

/// A frame whose bytes have not all arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingFrame {
    /// Its size, in bytes.
    pub size_bytes: usize,
    /// How much of it has arrived, in bytes.
    pub received_bytes: usize,
}

/// Where to receive the rest of a straddling frame. Owned, so that it may be lent to the kernel; give
/// it back with [`Framer::direct_received`].
#[derive(Debug)]
pub struct DirectTarget {
    /// The frame's buffer.
    pub buffer: Vec<u8>,
    /// The part of it to fill, from its beginning.
    pub range: Range<usize>,
}

impl DirectTarget {
    /// The part to fill.
    pub fn missing(&mut self) -> &mut [u8] {
        &mut self.buffer[self.range.clone()]
    }
}

/// A frame in a buffer of its own.
#[derive(Debug)]
struct Straddling {
    size: usize,
    received: usize,
    /// Initialised as far as it is reserved; `None` while lent as a [`DirectTarget`].
    buffer: Option<Vec<u8>>,
    /// The length of the buffer, also while it is lent.
    reserved: usize,
}

impl Straddling {
    /// Makes room for at least one more byte, and for `bytes` if so many are still missing.
    fn reserve(&mut self, bytes: usize) -> u64 {
        let needed = self.size.min(self.received + bytes.max(1));
        if needed <= self.reserved {
            return 0;
        }
        let doubled = self.reserved.saturating_mul(2).max(FIRST_STEP_BYTES);
        let reserved = needed.max(doubled).min(self.size);
        let buffer = self.buffer.as_mut().expect("the buffer is at home");
        let moved = if buffer.capacity() < reserved && self.received > 0 {
            self.received as u64
        } else {
            0
        };
        let capacity = reserved.max(self.size.min(UNMOVED_BYTES));
        buffer.reserve_exact(capacity - buffer.len());
        buffer.resize(reserved, 0);
        self.reserved = reserved;
        moved
    }
}

/// Cuts received bytes into frames.
#[derive(Debug)]
pub struct Framer {
    format: Format,
    size_max: usize,
    /// Received and not yet cut.
    chunks: VecDeque<Shared>,
    /// A size prefix that straddles.
    prefix: Vec<u8>,
    straddling: Option<Straddling>,
    failed: Option<FrameError>,
    straddle_copied_bytes: u64,
    moved_bytes: u64,
}

impl Framer {
    /// A framer that allows frames of up to `size_max` bytes (`socket.request.max.bytes`).
    pub fn new(size_max: usize) -> Framer {
        Framer::of(Format::Kafka, size_max)
    }

    /// A framer of native frames, which come out with their header.
    pub fn native(size_max: usize) -> Framer {
        Framer::of(Format::Native, size_max)
    }

    fn of(format: Format, size_max: usize) -> Framer {
        Framer {
            format,
            size_max,
            chunks: VecDeque::new(),
            prefix: Vec::new(),
            straddling: None,
            failed: None,
            straddle_copied_bytes: 0,
            moved_bytes: 0,
        }
    }

    /// Takes the next received bytes. Call [`next_frame`](Framer::next_frame) until it has none, or
    /// the buffer stays referenced.
    ///
    /// # Panics
    /// If the frame's buffer is lent as a [`DirectTarget`].
    pub fn push(&mut self, chunk: Shared) {
        if let Some(straddling) = &self.straddling {
            assert!(straddling.buffer.is_some(), "bytes beside a direct receive");
        }
        if !chunk.is_empty() {
            self.chunks.push_back(chunk);
        }
    }

    /// The next whole frame, without its size prefix but with its native header; `None` if bytes are missing. What is left of a
    /// received buffer is then copied out of it.
    ///
    /// # Errors
    /// If a size is not allowed; every later call fails alike.
    pub fn next_frame(&mut self) -> Result<Option<Shared>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        loop {
            if let Some(frame) = self.fill_straddling() {
                return Ok(Some(frame));
            }
            let Some(mut chunk) = self.chunks.pop_front() else {
                return Ok(None);
            };
            if self.format == Format::Native {
                match self.cut_native(chunk)? {
                    Some(frame) => return Ok(Some(frame)),
                    None => continue,
                }
            }
            let missing = PREFIX_BYTES - self.prefix.len();
            if chunk.len() < missing {
                self.prefix.extend_from_slice(&chunk);
                continue;
            }
            self.prefix.extend_from_slice(&chunk[..missing]);
            let size = self.take_size()?;
            chunk = chunk.slice(missing..chunk.len());
            if chunk.len() >= size {
                let frame = chunk.slice(0..size);
                if chunk.len() > size {
                    self.chunks.push_front(chunk.slice(size..chunk.len()));
                }
                return Ok(Some(frame));
            }
            self.straddle(size);
            if !chunk.is_empty() {
                self.chunks.push_front(chunk);
            }
        }
    }

    fn take_size(&mut self) -> Result<usize, FrameError> {
        let prefix: [u8; PREFIX_BYTES] = self.prefix[..].try_into().expect("a whole prefix");
        self.prefix.clear();
        let size = i32::from_be_bytes(prefix);
        match usize::try_from(size) {
            Ok(bytes) if bytes > 0 && bytes <= self.size_max => Ok(bytes),
            _ => Err(self.fail(size)),
        }
    }

    fn fail(&mut self, size: i32) -> FrameError {
        let error = FrameError {
            size,
            size_max: self.size_max,
        };
        self.failed = Some(error);
        self.chunks.clear();
        error
    }

    /// Takes what it can of a chunk that begins with a native header, or with the rest of one: the frame
    /// if all of it is there, else a beginning of it.
    fn cut_native(&mut self, chunk: Shared) -> Result<Option<Shared>, FrameError> {
        if self.prefix.is_empty()
            && let Some(header) = chunk.first_chunk()
        {
            let size = self.native_size(header)?;
            if chunk.len() >= size {
                let frame = chunk.slice(0..size);
                if chunk.len() > size {
                    self.chunks.push_front(chunk.slice(size..chunk.len()));
                }
                return Ok(Some(frame));
            }
            self.straddle(size);
            self.chunks.push_front(chunk);
            return Ok(None);
        }
        let missing = native::HEADER_BYTES - self.prefix.len();
        let (head, rest) = (chunk.len().min(missing), chunk.len());
        self.prefix.extend_from_slice(&chunk[..head]);
        if rest > head {
            self.chunks.push_front(chunk.slice(head..rest));
        }
        if let Some(header) = self.prefix.first_chunk().copied() {
            let size = self.native_size(&header)?;
            self.prefix.clear();
            self.straddle(size);
            // What was gathered byte by byte is the beginning of the frame.
            self.chunks.push_front(Shared::from(header.to_vec()));
        }
        Ok(None)
    }

    fn native_size(&mut self, header: &[u8; native::HEADER_BYTES]) -> Result<usize, FrameError> {
        native::frame_bytes(header, self.size_max).map_err(|fault| {
            self.fail(match fault {
                native::HeaderFault::Magic => -1,
                native::HeaderFault::Length(bytes) => i32::try_from(bytes).unwrap_or(i32::MAX),
            })
        })
    }

    fn straddle(&mut self, size: usize) {
        self.straddling = Some(Straddling {
            size,
            received: 0,
            buffer: Some(Vec::new()),
            reserved: 0,
        });
    }

    /// Copies waiting chunks into the straddling frame; gives it if it is whole.
    fn fill_straddling(&mut self) -> Option<Shared> {
        let straddling = self.straddling.as_mut()?;
        while straddling.received < straddling.size {
            let chunk = self.chunks.pop_front()?;
            let count = chunk.len().min(straddling.size - straddling.received);
            self.moved_bytes += straddling.reserve(count);
            let buffer = straddling.buffer.as_mut().expect("the buffer is at home");
            let received_end = straddling.received + count;
            buffer[straddling.received..received_end].copy_from_slice(&chunk[..count]);
            straddling.received = received_end;
            self.straddle_copied_bytes += count as u64;
            if count < chunk.len() {
                self.chunks.push_front(chunk.slice(count..chunk.len()));
            }
        }
        let buffer = self.straddling.take()?.buffer?;
        Some(Shared::from(buffer))
    }

    /// The frame that is still arriving, if its size is known.
    pub fn pending(&self) -> Option<PendingFrame> {
        self.straddling.as_ref().map(|straddling| PendingFrame {
            size_bytes: straddling.size,
            received_bytes: straddling.received,
        })
    }

    /// Lends the buffer of the frame that is still arriving, to receive into it. What is missing but
    /// not yet reserved is lent later. `None` if no frame is arriving, received chunks wait, or it is
    /// lent already.
    pub fn direct_target(&mut self) -> Option<DirectTarget> {
        if !self.chunks.is_empty() {
            return None;
        }
        let straddling = self.straddling.as_mut()?;
        if straddling.buffer.is_none() || straddling.received == straddling.size {
            return None;
        }
        self.moved_bytes += straddling.reserve(1);
        Some(DirectTarget {
            buffer: straddling.buffer.take()?,
            range: straddling.received..straddling.reserved,
        })
    }

    /// Takes a lent buffer back after `bytes` bytes were received into the beginning of its range;
    /// [`next_frame`](Framer::next_frame) then tells whether the frame is whole.
    ///
    /// # Panics
    /// If nothing was lent, or more was received than the range holds.
    pub fn direct_received(&mut self, target: DirectTarget, bytes: usize) {
        assert!(bytes <= target.range.len(), "received past the target");
        let straddling = self.straddling.as_mut().expect("a frame that straddles");
        assert!(
            straddling.buffer.is_none() && target.buffer.len() == straddling.reserved,
            "a buffer that was not lent"
        );
        straddling.buffer = Some(target.buffer);
        straddling.received += bytes;
    }

    /// How many bytes of memory the framer holds: the frame that is arriving, as far as it is
    /// reserved, and received buffers that were not cut yet.
    pub fn held_bytes(&self) -> usize {
        let waiting: usize = self.chunks.iter().map(|chunk| chunk.len()).sum();
        let waiting = waiting + self.prefix.len();
        let reserved = self.straddling.as_ref().map_or(0, |frame| frame.reserved);
        waiting + reserved
    }

    /// How many bytes of straddling frames were copied out of received buffers.
    pub fn straddle_copied_bytes(&self) -> u64 {
        self.straddle_copied_bytes
    }

    /// How many bytes were moved because a frame's buffer had to grow.
    pub fn moved_bytes(&self) -> u64 {
        self.moved_bytes
    }
}

#[cfg(test)]
mod tests;
