//! TCP and Unix stream sockets on the ring: accepting, receiving, sending, closing. Lives on one core;
//! knows no frame and no protocol.
//!
//! A socket's descriptor is closed, and its slot given to another, only when the kernel holds no
//! operation of it any more; so no completion is ever taken for a later socket's. Cancellations name
//! operations, not descriptors, for the same reason. At most one receive and one send of a socket are
//! in flight, which keeps its bytes in order.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use io_uring::{cqueue, opcode, squeue, types};

use crate::buf::{AlignedBuf, Chunk, Shared};
use crate::file::is_again;
use crate::listener::{Family, Listener, UNIX_ADDRESS, name_of, set_option};
use crate::op::{Op, OpToken};
use crate::recv_pool::GROUP;
use crate::ring::{Completion, Ring};

/// A connection of this ring. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    index: u32,
    generation: u32,
}

impl SocketId {
    /// The id as one number, unique among this ring's sockets.
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The slot: small, and used again by later sockets.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// Why receiving ended.
#[derive(Debug)]
pub enum EndReason {
    /// The peer has sent all it wanted to send.
    Finished,
    /// The connection is broken.
    Failed(io::Error),
}

/// A caller's buffer to receive into.
#[derive(Debug)]
pub enum IntoBuf {
    /// Aligned memory.
    Aligned(AlignedBuf),
    /// Any memory.
    Plain(Vec<u8>),
}

impl Deref for IntoBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            IntoBuf::Aligned(buf) => buf,
            IntoBuf::Plain(buf) => buf,
        }
    }
}

impl DerefMut for IntoBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            IntoBuf::Aligned(buf) => buf,
            IntoBuf::Plain(buf) => buf,
        }
    }
}

impl From<IntoBuf> for Shared {
    fn from(buf: IntoBuf) -> Shared {
        match buf {
            IntoBuf::Aligned(buf) => buf.freeze(),
            IntoBuf::Plain(buf) => buf.into(),
        }
    }
}

/// The one receive of a socket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receive {
    Idle,
    /// The pool was empty; armed again when buffers have come home.
    Starved,
    Armed(OpToken),
    /// Cancelled; what arrived before the cancellation is still delivered.
    Stopping,
    Into(OpToken),
}

/// The rest of a large message, received straight into the caller's buffer.
pub(crate) struct Into {
    /// `None` while the kernel has it.
    buf: Option<IntoBuf>,
    filled: usize,
    end: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Closing {
    No,
    AfterSends,
    Now,
}

pub(crate) struct Socket {
    pub(crate) fd: OwnedFd,
    family: Family,
    pub(crate) in_flight_count: u32,
    pub(crate) receive: Receive,
    pub(crate) receive_wanted: bool,
    pub(crate) receive_ended: bool,
    pub(crate) into: Option<Into>,
    pub(crate) outgoing: VecDeque<Chunk>,
    /// Bytes queued and in flight.
    pub(crate) unsent_bytes: usize,
    pub(crate) sending: Option<OpToken>,
    pub(crate) send_failed: bool,
    /// What is in flight is to be copied out and sent from the copy.
    pub(crate) unpin: bool,
    /// Listed in `Sockets::to_send`.
    pub(crate) listed: bool,
    pub(crate) closing: Closing,
    /// Listed in `Sockets::to_finish`.
    pub(crate) finishing: bool,
}

struct SocketSlot {
    generation: u32,
    socket: Option<Socket>,
}

struct ListenerSlot {
    fd: Option<OwnedFd>,
    family: Family,
    accepting: Option<OpToken>,
    stopped: bool,
}

/// All sockets of a ring.
#[derive(Default)]
pub(crate) struct Sockets {
    slots: Vec<SocketSlot>,
    free: Vec<u32>,
    listeners: Vec<ListenerSlot>,
    pub(crate) to_send: Vec<SocketId>,
    to_finish: Vec<SocketId>,
    starved: VecDeque<SocketId>,
    starved_count: u64,
    pub(crate) copied_out_bytes: u64,
}

impl Sockets {
    pub(crate) fn get(&mut self, id: SocketId) -> Option<&mut Socket> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        slot.socket.as_mut()
    }

    /// The socket of an operation that is in flight: it cannot be gone.
    pub(crate) fn held(&mut self, id: SocketId) -> &mut Socket {
        self.get(id)
            .expect("a socket stays until its operations have ended")
    }

    fn insert(&mut self, fd: OwnedFd, family: Family) -> SocketId {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(SocketSlot {
                    generation: 0,
                    socket: None,
                });
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 sockets")
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.socket = Some(Socket {
            fd,
            family,
            in_flight_count: 0,
            receive: Receive::Idle,
            receive_wanted: false,
            receive_ended: false,
            into: None,
            outgoing: VecDeque::new(),
            unsent_bytes: 0,
            sending: None,
            send_failed: false,
            unpin: false,
            listed: false,
            closing: Closing::No,
            finishing: false,
        });
        SocketId {
            index,
            generation: slot.generation,
        }
    }

    /// Notes that a socket may be finished.
    pub(crate) fn check_finish(&mut self, id: SocketId) {
        let socket = self.held(id);
        if socket.closing == Closing::Now && socket.in_flight_count == 0 && !socket.finishing {
            socket.finishing = true;
            self.to_finish.push(id);
        }
    }
}

/// States of a TCP connection that `TCP_INFO` tells: reset, and finished by the peer.
const TCP_CLOSE: u8 = 7;
const TCP_CLOSE_WAIT: u8 = 8;

fn tcp_state(fd: RawFd) -> Option<u8> {
    // SAFETY: all of tcp_info is plain numbers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: `info` is writable for `len` bytes.
    let told = unsafe {
        libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    (told == 0).then_some(info.tcpi_state)
}

/// Whether the peer sends nothing more.
fn has_hung_up(fd: RawFd) -> bool {
    let mut asked = libc::pollfd {
        fd,
        events: libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: `asked` is one entry, writable for the call, which does not wait.
    let told = unsafe { libc::poll(&raw mut asked, 1, 0) };
    told > 0 && asked.revents & (libc::POLLRDHUP | libc::POLLHUP) != 0
}

/// What the kernel has received and nobody has read, in bytes.
fn unread_bytes(fd: RawFd) -> Option<usize> {
    let mut unread: libc::c_int = 0;
    // SAFETY: `unread` is writable for the call.
    let told = unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut unread) };
    if told == 0 {
        usize::try_from(unread).ok()
    } else {
        None
    }
}

impl Ring {
    /// Starts accepting on a listener; its number counts from 0 in the order of these calls.
    pub fn listen(&mut self, listener: Listener) -> usize {
        let (fd, family) = listener.into_fd();
        self.sockets.listeners.push(ListenerSlot {
            fd: Some(fd),
            family,
            accepting: None,
            stopped: false,
        });
        let number = self.sockets.listeners.len() - 1;
        self.resume_accept(number);
        number
    }

    /// Accepts again after [`Completion::AcceptFailed`].
    pub fn resume_accept(&mut self, listener: usize) {
        let slot = &self.sockets.listeners[listener];
        let Some(fd) = &slot.fd else { return };
        if slot.stopped || slot.accepting.is_some() {
            return;
        }
        let fd = types::Fd(fd.as_raw_fd());
        let entry = match slot.family {
            Family::Tcp => opcode::AcceptMulti::new(fd)
                .flags(libc::SOCK_CLOEXEC)
                .build(),
            // Several rings share this socket, and the kernel wakes the one that has waited longest. Who
            // accepts one connection at a time goes to the end of that line; who never left it would get all.
            Family::Unix => opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut())
                .flags(libc::SOCK_CLOEXEC)
                .build(),
        };
        let token = self.push_op(Op::Accept { listener }, entry);
        self.sockets.listeners[listener].accepting = Some(token);
    }

    /// Stops accepting on all listeners and closes them.
    pub fn stop_accepting(&mut self) {
        for number in 0..self.sockets.listeners.len() {
            let slot = &mut self.sockets.listeners[number];
            slot.stopped = true;
            match slot.accepting {
                Some(token) => self.cancel(token),
                None => slot.fd = None,
            }
        }
    }

    pub(crate) fn on_accept(
        &mut self,
        listener: usize,
        result: i32,
        more: bool,
        completions: &mut Vec<Completion>,
    ) {
        let slot = &mut self.sockets.listeners[listener];
        if !more {
            slot.accepting = None;
        }
        if result >= 0 {
            let family = slot.family;
            // SAFETY: the kernel has just made this descriptor for us.
            let fd = unsafe { OwnedFd::from_raw_fd(result) };
            let adopted = match family {
                Family::Tcp => self.adopt_socket(fd),
                Family::Unix => {
                    let socket = self.sockets.insert(fd, family);
                    Ok((socket, UNIX_ADDRESS, UNIX_ADDRESS))
                }
            };
            // A peer that is gone already is nobody to tell about.
            if let Ok((socket, peer, local)) = adopted {
                completions.push(Completion::Accepted {
                    listener,
                    socket,
                    peer,
                    local,
                });
            }
        }
        let slot = &mut self.sockets.listeners[listener];
        if more {
            return;
        }
        if slot.stopped {
            slot.fd = None;
            return;
        }
        match -result {
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EINVAL => {
                completions.push(Completion::AcceptFailed {
                    listener,
                    error: io::Error::from_raw_os_error(-result),
                });
            }
            _ => self.resume_accept(listener),
        }
    }

    /// Takes over a connected TCP socket, as if it had been accepted.
    ///
    /// # Errors
    /// When it is not a connected TCP socket (any more).
    pub fn adopt_socket(&mut self, fd: OwnedFd) -> io::Result<(SocketId, SocketAddr, SocketAddr)> {
        set_option(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
        set_option(&fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE)?;
        let peer = name_of(&fd, libc::getpeername)?;
        let local = name_of(&fd, libc::getsockname)?;
        Ok((self.sockets.insert(fd, Family::Tcp), peer, local))
    }

    /// How many sockets there are, closing ones included.
    pub fn socket_count(&self) -> usize {
        self.sockets.slots.len() - self.sockets.free.len()
    }

    /// How often a socket had to wait because no receive buffer was free.
    pub fn starved_count(&self) -> u64 {
        self.sockets.starved_count
    }

    /// Receives from now on.
    pub fn resume_receive(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get(id) {
            socket.receive_wanted = true;
            self.advance_receive(id);
        }
    }

    /// Stops receiving: back-pressure. What the kernel had already received is still delivered.
    pub fn pause_receive(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else {
            return;
        };
        socket.receive_wanted = false;
        self.stop_multishot(id);
    }

    fn stop_multishot(&mut self, id: SocketId) {
        let socket = self.sockets.held(id);
        match socket.receive {
            Receive::Armed(token) => {
                socket.receive = Receive::Stopping;
                self.cancel(token);
            }
            Receive::Starved => socket.receive = Receive::Idle,
            Receive::Idle | Receive::Stopping | Receive::Into(_) => {}
        }
    }

    /// Receives the next bytes of this socket into `buf[range]` until it is full; then comes
    /// [`Completion::ReceivedInto`], and after it ordinary receiving goes on as it was. Bytes that had
    /// already been received otherwise are copied into the buffer, which keeps them in order: so call
    /// this only when all completions of the last turn are handled. Goes on while receiving is paused.
    /// If receiving ends first, the buffer is dropped.
    ///
    /// # Panics
    /// If the range is empty or outside the buffer, or such a request is open for this socket.
    pub fn receive_into(&mut self, id: SocketId, buf: IntoBuf, range: std::ops::Range<usize>) {
        assert!(range.start < range.end && range.end <= buf.len());
        let Some(socket) = self.sockets.get(id) else {
            return;
        };
        assert!(socket.into.is_none(), "one direct receive at a time");
        if socket.receive_ended || socket.closing != Closing::No {
            return;
        }
        socket.into = Some(Into {
            buf: Some(buf),
            filled: range.start,
            end: range.end,
        });
        self.stop_multishot(id);
        self.advance_receive(id);
    }

    /// How far a direct receive has come: the end of the filled part of the buffer. `None` when none is
    /// open.
    pub fn received_into(&mut self, id: SocketId) -> Option<usize> {
        Some(self.sockets.get(id)?.into.as_ref()?.filled)
    }

    /// Whether a client that is not read from now can no longer send `missing_bytes` more: it has reset
    /// the connection, or finished with less than that in the kernel's buffer. Two system calls.
    pub fn cannot_send(&mut self, id: SocketId, missing_bytes: usize) -> bool {
        let Some(socket) = self.sockets.get(id) else {
            return true;
        };
        let fd = socket.fd.as_raw_fd();
        let (reset, finished) = match socket.family {
            Family::Tcp => match tcp_state(fd) {
                Some(TCP_CLOSE) => (true, true),
                state => (false, state == Some(TCP_CLOSE_WAIT)),
            },
            // What was sent before the end can be read whatever way it ended.
            Family::Unix => (false, has_hung_up(fd)),
        };
        reset || finished && unread_bytes(fd).is_some_and(|unread| unread < missing_bytes)
    }

    /// Arms what this socket should be doing and is not.
    fn advance_receive(&mut self, id: SocketId) {
        let multishot = self.multishot_receive;
        let Some(socket) = self.sockets.get(id) else {
            return;
        };
        if socket.receive != Receive::Idle || socket.receive_ended || socket.closing != Closing::No
        {
            return;
        }
        let fd = types::Fd(socket.fd.as_raw_fd());
        if let Some(into) = &mut socket.into {
            let mut buf = into.buf.take().expect("the kernel does not have it");
            let rest = &mut buf[into.filled..into.end];
            let len = rest.len().min(1 << 30) as u32;
            let entry = opcode::Recv::new(fd, rest.as_mut_ptr(), len).build();
            let token = self.push_op(Op::ReceiveInto { socket: id, buf }, entry);
            let socket = self.sockets.held(id);
            socket.receive = Receive::Into(token);
            socket.in_flight_count += 1;
        } else if socket.receive_wanted {
            let entry = if multishot {
                opcode::RecvMulti::new(fd, GROUP).build()
            } else {
                opcode::Recv::new(fd, std::ptr::null_mut(), 0)
                    .buf_group(GROUP)
                    .build()
                    .flags(squeue::Flags::BUFFER_SELECT)
            };
            let token = self.push_op(Op::Receive { socket: id }, entry);
            let socket = self.sockets.held(id);
            socket.receive = Receive::Armed(token);
            socket.in_flight_count += 1;
        }
    }

    pub(crate) fn on_receive(
        &mut self,
        id: SocketId,
        result: i32,
        flags: u32,
        completions: &mut Vec<Completion>,
    ) {
        let more = cqueue::more(flags);
        let piece = cqueue::buffer_select(flags)
            .map(|buffer| self.pool.take(buffer, result.max(0) as usize));
        let socket = self.sockets.held(id);
        if !more {
            socket.in_flight_count -= 1;
            socket.receive = Receive::Idle;
        }
        let live = socket.closing == Closing::No && !socket.receive_ended;
        if live && result > 0 {
            let piece = piece.expect("received bytes come in a buffer of the pool");
            self.deliver(id, piece, completions);
        } else if live {
            match -result {
                0 => self.end_receive(id, EndReason::Finished, completions),
                libc::ENOBUFS => {
                    if socket.into.is_none() && socket.receive_wanted {
                        socket.receive = Receive::Starved;
                        self.sockets.starved.push_back(id);
                        self.sockets.starved_count += 1;
                    }
                }
                libc::EINVAL if self.multishot_receive => {
                    // The kernel does not know multishot receiving: one request a piece from here on.
                    self.multishot_receive = false;
                }
                libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
                errno => {
                    let error = io::Error::from_raw_os_error(errno);
                    self.end_receive(id, EndReason::Failed(error), completions);
                }
            }
        }
        if !more {
            self.advance_receive(id);
            self.sockets.check_finish(id);
        }
    }

    /// Gives a received piece to whom it belongs: first the open direct receive, then the caller.
    fn deliver(&mut self, id: SocketId, piece: Shared, completions: &mut Vec<Completion>) {
        let socket = self.sockets.held(id);
        let mut rest = 0;
        if let Some(into) = &mut socket.into {
            let buf = into.buf.as_mut().expect("the kernel does not have it");
            rest = piece.len().min(into.end - into.filled);
            buf[into.filled..into.filled + rest].copy_from_slice(&piece[..rest]);
            into.filled += rest;
            self.finish_into(id, completions);
        }
        if rest < piece.len() {
            let bytes = piece.slice(rest..piece.len());
            completions.push(Completion::Received { socket: id, bytes });
        }
    }

    fn finish_into(&mut self, id: SocketId, completions: &mut Vec<Completion>) {
        let socket = self.sockets.held(id);
        if socket
            .into
            .as_ref()
            .is_some_and(|into| into.filled == into.end)
            && let Some(Into { buf: Some(buf), .. }) = socket.into.take()
        {
            completions.push(Completion::ReceivedInto { socket: id, buf });
        }
    }

    pub(crate) fn on_receive_into(
        &mut self,
        id: SocketId,
        buf: IntoBuf,
        result: i32,
        completions: &mut Vec<Completion>,
    ) {
        let socket = self.sockets.held(id);
        socket.in_flight_count -= 1;
        socket.receive = Receive::Idle;
        if socket.closing == Closing::No {
            let into = socket.into.as_mut().expect("open until it is full");
            into.buf = Some(buf);
            if result > 0 {
                into.filled += result as usize;
                self.finish_into(id, completions);
            } else if result == 0 {
                self.end_receive(id, EndReason::Finished, completions);
            } else if !is_again(result) {
                let error = io::Error::from_raw_os_error(-result);
                self.end_receive(id, EndReason::Failed(error), completions);
            }
            self.advance_receive(id);
        }
        self.sockets.check_finish(id);
    }

    fn end_receive(&mut self, id: SocketId, reason: EndReason, completions: &mut Vec<Completion>) {
        let socket = self.sockets.held(id);
        socket.receive_ended = true;
        socket.into = None;
        completions.push(Completion::ReceiveEnded { socket: id, reason });
    }

    /// Goes on receiving where the pool had been empty, once a part of it has come home.
    pub(crate) fn rearm_starved(&mut self) {
        let room = self.pool.count().div_ceil(8);
        if self.sockets.starved.is_empty() || self.pool.free_count() < room {
            return;
        }
        // As many as there are buffers: the others would only find the pool empty again.
        for _ in 0..self.pool.free_count() {
            let Some(id) = self.sockets.starved.pop_front() else {
                return;
            };
            if let Some(socket) = self.sockets.get(id)
                && socket.receive == Receive::Starved
            {
                socket.receive = Receive::Idle;
                self.advance_receive(id);
            }
        }
    }

    /// Closes now: what is unsent is dropped. [`Completion::Closed`] follows when the kernel has let go.
    pub fn close(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else {
            return;
        };
        if socket.closing == Closing::Now {
            return;
        }
        socket.closing = Closing::Now;
        socket.into = None;
        // SAFETY: no memory is passed. Fails when the peer is gone already, which is as good.
        unsafe { libc::shutdown(socket.fd.as_raw_fd(), libc::SHUT_RDWR) };
        let sending = socket.sending;
        let receiving = match socket.receive {
            Receive::Armed(token) | Receive::Into(token) => Some(token),
            Receive::Idle | Receive::Starved | Receive::Stopping => None,
        };
        for token in [sending, receiving].into_iter().flatten() {
            self.cancel(token);
        }
        self.sockets.check_finish(id);
    }

    /// Closes as soon as everything queued is sent; nothing more is received meanwhile.
    pub fn close_after_sends(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else {
            return;
        };
        if socket.closing == Closing::No {
            socket.closing = Closing::AfterSends;
            socket.receive_wanted = false;
            if let Receive::Into(token) = socket.receive {
                self.cancel(token);
            } else {
                self.stop_multishot(id);
            }
            self.close_when_sent(id);
        }
    }

    pub(crate) fn close_when_sent(&mut self, id: SocketId) {
        let socket = self.sockets.held(id);
        let nothing_left = socket.sending.is_none() && socket.outgoing.is_empty();
        if socket.closing == Closing::AfterSends && (nothing_left || socket.send_failed) {
            self.close(id);
        }
    }

    pub(crate) fn has_socket_work(&self) -> bool {
        !self.sockets.to_send.is_empty() || !self.sockets.to_finish.is_empty()
    }

    pub(crate) fn finish_closes(&mut self, completions: &mut Vec<Completion>) {
        while let Some(id) = self.sockets.to_finish.pop() {
            let slot = &mut self.sockets.slots[id.index as usize];
            let socket = slot.socket.take().expect("listed once");
            slot.generation = slot.generation.wrapping_add(1);
            self.sockets.free.push(id.index);
            completions.push(Completion::Closed {
                socket: id,
                released: socket.outgoing.into(),
            });
        }
    }
}
