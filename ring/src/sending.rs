//! Sending on the ring's sockets: chunks are queued, gathered, continued after partial sends, and given
//! back. Lives on one core; knows no answer and no protocol.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{opcode, types};

use crate::buf::Chunk;
use crate::file::is_again;
use crate::op::{Op, SendState};
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
            let mut chunks = Vec::with_capacity(socket.outgoing.len().min(SEND_CHUNKS_MAX));
            let mut bytes = 0;
            while chunks.len() < SEND_CHUNKS_MAX && bytes < SEND_BYTES_MAX {
                let Some(chunk) = socket.outgoing.pop_front() else {
                    break;
                };
                bytes += chunk.len();
                chunks.push(chunk);
            }
            self.submit_send(id, chunks);
        }
    }

    fn submit_send(&mut self, id: SocketId, chunks: Vec<Chunk>) {
        let iov = chunks
            .iter()
            .map(|chunk| libc::iovec {
                iov_base: chunk.as_ptr().cast_mut().cast(),
                iov_len: chunk.len(),
            })
            .collect();
        // SAFETY: all of msghdr is numbers and pointers, for which zero is a value.
        let header: libc::msghdr = unsafe { std::mem::zeroed() };
        let state = Box::new(SendState {
            chunks,
            iov,
            iov_first: 0,
            header,
        });
        self.push_send(id, state);
    }

    /// Submits what is left of a gathered send.
    fn push_send(&mut self, id: SocketId, mut state: Box<SendState>) {
        let first = state.iov_first;
        state.header.msg_iov = state.iov[first..].as_mut_ptr();
        state.header.msg_iovlen = state.iov.len() - first;
        let socket = self.sockets.held(id);
        let fd = types::Fd(socket.fd.as_raw_fd());
        socket.in_flight_count += 1;
        let entry = opcode::SendMsg::new(fd, &raw const state.header)
            .flags(libc::MSG_NOSIGNAL as u32)
            .build();
        let token = self.push_op(Op::Send { socket: id, state }, entry);
        self.sockets.held(id).sending = Some(token);
    }

    pub(crate) fn on_send(
        &mut self,
        id: SocketId,
        mut state: Box<SendState>,
        result: i32,
        completions: &mut Vec<Completion>,
    ) {
        let socket = self.sockets.held(id);
        socket.in_flight_count -= 1;
        socket.sending = None;
        let mut left = result.max(0) as usize;
        socket.unsent_bytes -= left;
        while let Some(entry) = state.iov.get_mut(state.iov_first) {
            if left < entry.iov_len {
                entry.iov_len -= left;
                // SAFETY: fewer bytes than the entry has, so the address stays inside the chunk.
                entry.iov_base = unsafe { entry.iov_base.cast::<u8>().add(left) }.cast();
                break;
            }
            left -= entry.iov_len;
            state.iov_first += 1;
        }
        let cancelled_for_copy = result == -libc::ECANCELED && socket.unpin;
        if state.iov_first == state.iov.len() {
            socket.unpin = false;
            completions.push(Completion::Sent {
                socket: id,
                released: state.chunks,
            });
        } else if socket.closing == Closing::Now {
            completions.push(Completion::Sent {
                socket: id,
                released: state.chunks,
            });
        } else if cancelled_for_copy || (socket.unpin && (result > 0 || is_again(result))) {
            socket.unpin = false;
            let copy = rest_of(&state);
            self.sockets.copied_out_bytes += copy.len() as u64;
            completions.push(Completion::Sent {
                socket: id,
                released: state.chunks,
            });
            self.submit_send(id, vec![Chunk::Local(copy.into())]);
        } else if result > 0 || is_again(result) {
            self.push_send(id, state);
        } else {
            socket.send_failed = true;
            socket.unsent_bytes = 0;
            let mut released = state.chunks;
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

/// What a gathered send has not sent.
fn rest_of(state: &SendState) -> Vec<u8> {
    let mut copy = Vec::new();
    for (chunk, entry) in state.chunks.iter().zip(&state.iov).skip(state.iov_first) {
        copy.extend_from_slice(&chunk[chunk.len() - entry.iov_len..]);
    }
    copy
}
