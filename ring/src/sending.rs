//! Sending on the ring's sockets: chunks are queued, gathered, continued after partial sends, and given
//! back. Lives on one core; knows no answer and no protocol.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{opcode, squeue, types};

use crate::buf::Chunk;
use crate::file::is_again;
use crate::op::{Gathered, Op, SendState};
use crate::ring::{Completion, Ring};
use crate::socket::{Closing, Socket, SocketId};

/// Chunks gathered into one send.
const SEND_CHUNKS_MAX: usize = 256;
/// Bytes gathered into one send: what one turn gives to one connection.
const SEND_BYTES_MAX: usize = 1 << 20;

impl Socket {
    /// Sendable chunks are listed for the next turn, so that answers of one turn share a send.
    fn wants_send(&self) -> bool {
        self.sending.is_none()
            && !self.listed
            && !self.send_failed
            && !self.outgoing.is_empty()
            && self.closing != Closing::Now
    }
}

impl Ring {
    /// Queues chunks to be sent, in order, after all that is queued. They come back by
    /// [`Completion::Sent`], [`Completion::SendFailed`] or [`Completion::Closed`].
    pub fn send(&mut self, id: SocketId, chunks: Vec<Chunk>) {
        let Some(socket) = self.sockets.get(id) else {
            self.ready.push(Completion::Sent {
                socket: id,
                released: chunks,
            });
            return;
        };
        socket.unsent_bytes += chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
        socket.outgoing.extend(chunks);
        self.list_send(id);
    }

    fn list_send(&mut self, id: SocketId) {
        let socket = self.sockets.held(id);
        if socket.send_failed && !socket.outgoing.is_empty() {
            let released = socket.outgoing.drain(..).collect();
            socket.unsent_bytes = 0;
            self.ready.push(Completion::Sent {
                socket: id,
                released,
            });
        } else if socket.wants_send() {
            socket.listed = true;
            self.sockets.to_send.push(id);
        }
    }

    /// Bytes queued for a socket and not yet taken by the kernel.
    pub fn unsent_bytes(&mut self, id: SocketId) -> usize {
        self.sockets.get(id).map_or(0, |socket| socket.unsent_bytes)
    }

    /// Copies what is queued for a slow reader and releases the originals, also those in flight.
    pub fn copy_out_unsent(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else {
            return;
        };
        if let Some(token) = socket.sending
            && !socket.unpin
        {
            socket.unpin = true;
            self.cancel(token);
        }
        let socket = self.sockets.held(id);
        if socket.outgoing.is_empty() {
            return;
        }
        let released: Vec<Chunk> = socket.outgoing.drain(..).collect();
        let mut copy = Vec::with_capacity(released.iter().map(|chunk| chunk.len()).sum());
        for chunk in &released {
            copy.extend_from_slice(chunk);
        }
        let copied_bytes = copy.len() as u64;
        socket.outgoing.push_back(Chunk::Local(copy.into()));
        self.sockets.copied_out_bytes += copied_bytes;
        self.ready.push(Completion::Sent {
            socket: id,
            released,
        });
    }

    /// Bytes copied by [`Ring::copy_out_unsent`] so far.
    pub fn copied_out_bytes(&self) -> u64 {
        self.sockets.copied_out_bytes
    }

    pub(crate) fn start_sends(&mut self) {
        while let Some(id) = self.sockets.to_send.pop() {
            let Some(socket) = self.sockets.get(id) else {
                continue;
            };
            socket.listed = false;
            if !socket.wants_send() {
                continue;
            }
            let state = SendState::of(&mut socket.outgoing);
            self.push_send(id, state);
        }
    }

    /// Submits what is left of a send.
    fn push_send(&mut self, id: SocketId, mut state: SendState) {
        let socket = self.sockets.held(id);
        socket.in_flight_count += 1;
        let entry = state.entry(types::Fd(socket.fd.as_raw_fd()));
        let token = self.push_op(Op::Send { socket: id, state }, entry);
        self.sockets.held(id).sending = Some(token);
    }

    pub(crate) fn on_send(
        &mut self,
        id: SocketId,
        mut state: SendState,
        result: i32,
        completions: &mut Vec<Completion>,
    ) {
        let socket = self.sockets.held(id);
        socket.in_flight_count -= 1;
        socket.sending = None;
        let sent_bytes = result.max(0) as usize;
        socket.unsent_bytes -= sent_bytes;
        let whole = state.advance(sent_bytes);
        let cancelled_for_copy = result == -libc::ECANCELED && socket.unpin;
        if whole {
            socket.unpin = false;
            completions.push(Completion::Sent {
                socket: id,
                released: state.into_chunks(),
            });
        } else if socket.closing == Closing::Now {
            completions.push(Completion::Sent {
                socket: id,
                released: state.into_chunks(),
            });
        } else if cancelled_for_copy || (socket.unpin && (result > 0 || is_again(result))) {
            socket.unpin = false;
            let copy = state.rest();
            self.sockets.copied_out_bytes += copy.len() as u64;
            completions.push(Completion::Sent {
                socket: id,
                released: state.into_chunks(),
            });
            let chunk = Chunk::Local(copy.into());
            let sent_bytes = 0;
            self.push_send(id, SendState::One { chunk, sent_bytes });
        } else if result > 0 || is_again(result) {
            self.push_send(id, state);
        } else {
            socket.send_failed = true;
            socket.unsent_bytes = 0;
            let mut released = state.into_chunks();
            released.extend(socket.outgoing.drain(..));
            completions.push(Completion::SendFailed {
                socket: id,
                error: io::Error::from_raw_os_error(-result),
                released,
            });
        }
        self.list_send(id);
        self.close_when_sent(id);
        self.sockets.check_finish(id);
    }
}

impl SendState {
    /// Takes what one send can take of what is queued, which is not nothing.
    fn of(outgoing: &mut VecDeque<Chunk>) -> SendState {
        if outgoing.len() == 1
            && let Some(chunk) = outgoing.pop_front()
        {
            let sent_bytes = 0;
            return SendState::One { chunk, sent_bytes };
        }
        let mut chunks = Vec::with_capacity(outgoing.len().min(SEND_CHUNKS_MAX));
        let mut bytes = 0;
        while chunks.len() < SEND_CHUNKS_MAX && bytes < SEND_BYTES_MAX {
            let Some(chunk) = outgoing.pop_front() else {
                break;
            };
            bytes += chunk.len();
            chunks.push(chunk);
        }
        let iov = chunks
            .iter()
            .map(|chunk| libc::iovec {
                iov_base: chunk.as_ptr().cast_mut().cast(),
                iov_len: chunk.len(),
            })
            .collect();
        SendState::Gathered(Box::new(Gathered {
            chunks,
            iov,
            iov_first: 0,
            // SAFETY: all of msghdr is numbers and pointers, for which zero is a value.
            header: unsafe { std::mem::zeroed() },
        }))
    }

    /// The submission for what is not sent. It points into the state, at places that do not move with it.
    fn entry(&mut self, fd: types::Fd) -> squeue::Entry {
        let flags = libc::MSG_NOSIGNAL;
        match self {
            SendState::One { chunk, sent_bytes } => {
                let rest = &chunk[*sent_bytes..];
                let len = rest.len().min(1 << 30) as u32;
                opcode::Send::new(fd, rest.as_ptr(), len)
                    .flags(flags)
                    .build()
            }
            SendState::Gathered(gathered) => {
                let rest = &mut gathered.iov[gathered.iov_first..];
                gathered.header.msg_iov = rest.as_mut_ptr();
                gathered.header.msg_iovlen = rest.len();
                opcode::SendMsg::new(fd, &raw const gathered.header)
                    .flags(flags as u32)
                    .build()
            }
        }
    }

    /// Notes that so many bytes more are sent. Returns whether that is all.
    fn advance(&mut self, bytes: usize) -> bool {
        match self {
            SendState::One { chunk, sent_bytes } => {
                *sent_bytes += bytes;
                *sent_bytes == chunk.len()
            }
            SendState::Gathered(gathered) => {
                let mut left = bytes;
                while let Some(entry) = gathered.iov.get_mut(gathered.iov_first) {
                    if left < entry.iov_len {
                        entry.iov_len -= left;
                        // SAFETY: fewer bytes than the entry has, so the address stays inside the chunk.
                        entry.iov_base = unsafe { entry.iov_base.cast::<u8>().add(left) }.cast();
                        return false;
                    }
                    left -= entry.iov_len;
                    gathered.iov_first += 1;
                }
                true
            }
        }
    }

    fn into_chunks(self) -> Vec<Chunk> {
        match self {
            SendState::One { chunk, .. } => vec![chunk],
            SendState::Gathered(gathered) => gathered.chunks,
        }
    }

    /// A copy of what is not sent.
    fn rest(&self) -> Vec<u8> {
        match self {
            SendState::One { chunk, sent_bytes } => chunk[*sent_bytes..].to_vec(),
            SendState::Gathered(gathered) => {
                let mut copy = Vec::new();
                let parts = gathered.chunks.iter().zip(&gathered.iov);
                for (chunk, entry) in parts.skip(gathered.iov_first) {
                    copy.extend_from_slice(&chunk[chunk.len() - entry.iov_len..]);
                }
                copy
            }
        }
    }
}
