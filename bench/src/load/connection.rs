//! One connection of the load generator: its prepared requests in turn, what is under way, and the bytes of answers. The generator's thread; knows no protocol and reads no clock.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use client::stream::Stream;

use crate::Failure;
use crate::load::wire::{Prepared, Wire};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests gathered into one send.
const GATHER_MAX: usize = 16;

/// When a request should have been sent and when it was, in nanoseconds since the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The time that the load asks for.
    pub intended_ns: u64,
    /// The time when it was given to the kernel.
    pub actual_ns: u64,
}

/// Connects to `host:port`, with Nagle's delay off, or to `unix:/path`.
///
/// # Errors
/// If nobody answers there.
pub fn dial(address: &str) -> Result<Stream, Failure> {
    Stream::connect(address, Some(CONNECT_TIMEOUT))
        .map_err(|why| Failure(format!("cannot connect to {address}: {why}")))
}

/// A connection that does not block.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    requests: Vec<Prepared>,
    /// By a request's number: when it was sent, while it is under way.
    under_way: Vec<Option<Sent>>,
    under_way_count: usize,
    /// The number that is sent next.
    next: usize,
    /// The oldest number without an answer.
    oldest: usize,
    /// Started requests that the kernel has not taken whole: the last ones before `next`.
    unsent_count: usize,
    /// How much of the first of them it has taken.
    unsent_from: usize,
    /// The start of an answer whose rest has not come yet.
    partial: Vec<u8>,
    /// Whether the poller has been asked to tell when there is room to send.
    pub waits_for_room: bool,
    /// Open loop: the first request that is due here and not sent, and how many are.
    pub backlog: Option<(u64, u64)>,
}

impl Connection {
    /// Takes a connected stream and the requests that it sends in turn; there must be one.
    ///
    /// # Errors
    /// If the stream cannot be made non-blocking.
    pub fn new(stream: Stream, requests: Vec<Prepared>) -> Result<Connection, Failure> {
        assert!(!requests.is_empty(), "a connection without requests");
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            under_way: vec![None; requests.len()],
            under_way_count: 0,
            next: 0,
            oldest: 0,
            unsent_count: 0,
            unsent_from: 0,
            partial: Vec::new(),
            waits_for_room: false,
            backlog: None,
            requests,
        })
    }

    /// For the poller.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Requests sent, or being sent, that have no answer.
    pub fn under_way_count(&self) -> usize {
        self.under_way_count
    }

    /// Whether something waits for room in the kernel's buffer.
    pub fn has_unsent(&self) -> bool {
        self.unsent_count > 0
    }

    /// A request.
    pub fn request(&self, number: usize) -> &Prepared {
        &self.requests[number]
    }

    /// Starts the next request; [`Connection::flush`] sends it.
    ///
    /// # Panics
    /// If all its numbers are under way.
    pub fn start(&mut self, sent: Sent) {
        let slot = &mut self.under_way[self.next];
        assert!(slot.is_none(), "the number is under way");
        *slot = Some(sent);
        self.under_way_count += 1;
        self.unsent_count += 1;
        self.next = (self.next + 1) % self.requests.len();
    }

    /// Gives the kernel what it takes of the started requests, and returns how many it has now taken whole.
    ///
    /// # Errors
    /// As the socket.
    pub fn flush(&mut self) -> io::Result<usize> {
        let before = self.unsent_count;
        while self.unsent_count > 0 {
            let count = self.requests.len();
            let first = (self.next + count - self.unsent_count) % count;
            let rest = &self.requests[first].bytes[self.unsent_from..];
            let written = if self.unsent_count == 1 {
                (&self.stream).write(rest)
            } else {
                let gathered = self.unsent_count.min(GATHER_MAX);
                let mut slices = [IoSlice::new(&[]); GATHER_MAX];
                slices[0] = IoSlice::new(rest);
                for (at, slice) in slices[..gathered].iter_mut().enumerate().skip(1) {
                    *slice = IoSlice::new(&self.requests[(first + at) % count].bytes);
                }
                (&self.stream).write_vectored(&slices[..gathered])
            };
            match written {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => self.took(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(before - self.unsent_count)
    }

    fn took(&mut self, mut bytes: usize) {
        let count = self.requests.len();
        while self.unsent_count > 0 {
            let first = (self.next + count - self.unsent_count) % count;
            let rest = self.requests[first].bytes.len() - self.unsent_from;
            if bytes < rest {
                self.unsent_from += bytes;
                return;
            }
            bytes -= rest;
            self.unsent_from = 0;
            self.unsent_count -= 1;
        }
    }

    /// Ends the oldest request, which will get no answer.
    pub fn finish_unanswered(&mut self) -> (usize, Sent) {
        let number = self.oldest;
        let sent = self.under_way[number].take().expect("one is under way");
        self.under_way_count -= 1;
        self.oldest = (number + 1) % self.requests.len();
        (number, sent)
    }

    /// Reads once, into `scratch` where possible, and gives every whole answer to `told` as its request and when that
    /// was sent. Returns false when the other side has closed.
    ///
    /// # Errors
    /// A sentence: the socket's error, or what is wrong with an answer.
    pub fn receive<W: Wire>(
        &mut self,
        wire: &W,
        scratch: &mut [u8],
        mut told: impl FnMut(&Prepared, Sent),
    ) -> Result<bool, String> {
        let bytes = match (&self.stream).read(scratch) {
            Ok(0) => return Ok(false),
            Ok(bytes) => bytes,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(true);
            }
            Err(error) => return Err(error.to_string()),
        };
        if self.partial.is_empty() {
            let used = self.answers(wire, &scratch[..bytes], &mut told)?;
            self.partial.extend_from_slice(&scratch[used..bytes]);
        } else {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(&scratch[..bytes]);
            let used = self.answers(wire, &partial, &mut told)?;
            partial.drain(..used);
            self.partial = partial;
        }
        Ok(true)
    }

    /// Takes the whole answers at the front and returns their length.
    fn answers<W: Wire>(
        &mut self,
        wire: &W,
        bytes: &[u8],
        told: &mut impl FnMut(&Prepared, Sent),
    ) -> Result<usize, String> {
        let mut used = 0;
        while let Some(length) = wire.answer_bytes(&bytes[used..])? {
            let Some(answer) = bytes.get(used..used + length) else {
                break;
            };
            let number = wire.number(answer)? as usize;
            if W::IN_ORDER && self.under_way_count > 0 && number != self.oldest {
                return Err(format!(
                    "the answer to request {number} where {} was due",
                    self.oldest
                ));
            }
            let sent = self.under_way.get_mut(number).and_then(Option::take);
            let sent = sent
                .ok_or_else(|| format!("an answer to request {number}, which is not under way"))?;
            self.under_way_count -= 1;
            self.oldest = (number + 1) % self.requests.len();
            let request = &self.requests[number];
            wire.check(answer, request)?;
            told(request, sent);
            used += length;
        }
        Ok(used)
    }
}
