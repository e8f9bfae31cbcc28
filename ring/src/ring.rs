//! One core's io_uring: what is submitted, what has completed, the timer, and going to sleep. Lives on
//! the core that made it and nowhere else (single issuer); knows neither protocol nor log.
//!
//! A turn is one system call at most: it submits what was asked for since the last one and reaps what
//! has completed. A sleep is one too: it submits, and returns with the first completion. Other threads
//! end it through an eventfd that the ring itself polls; while the core is awake nobody writes that.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::rc::Rc;

use io_uring::types::{self, SubmitArgs, TimeoutFlags, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, cqueue, opcode, squeue};

use crate::buf::{Chunk, Shared};
use crate::file::{Devices, Dropped, FileOutcome};
use crate::helper::Helper;
use crate::op::{IGNORED, Op, OpSlab, OpToken, WOKEN};
use crate::recv_pool::RecvPool;
use crate::socket::{EndReason, IntoBuf, SocketId, Sockets};
use crate::wake::Waker;

/// Sizes of a ring.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Submissions that fit before a system call; a power of two.
    pub submission_entries: u32,
    /// Completions that fit before the kernel keeps them aside; a power of two.
    pub completion_entries: u32,
    /// Buffers for receiving; a power of two.
    pub receive_buffer_count: u16,
    /// Size of one of them, in bytes.
    pub receive_buffer_bytes: usize,
    /// One request receives for as long as a connection lives (Linux 6.0); else one request a piece.
    pub multishot_receive: bool,
}

impl Default for RingConfig {
    fn default() -> RingConfig {
        RingConfig {
            submission_entries: 512,
            completion_entries: 4096,
            receive_buffer_count: 128,
            // Most requests lie whole in one; untouched pages cost nothing.
            receive_buffer_bytes: 64 * 1024,
            multishot_receive: true,
        }
    }
}

/// Operations of a core that may block at the same time. At a stop thousands of files are made and
/// flushed: how many of those one commit of the file system takes is how many wait for it together.
const BLOCKING_WORKERS_MAX: u32 = 64;

/// What has happened.
#[derive(Debug)]
pub enum Completion {
    /// A peer connected. Nothing is received until [`Ring::resume_receive`].
    Accepted {
        /// Which listener, as given by [`Ring::listen`].
        listener: usize,
        /// The new socket.
        socket: SocketId,
        /// The other end; [`crate::listener::UNIX_ADDRESS`] of a Unix socket.
        peer: SocketAddr,
        /// This end: the address that the peer connected to.
        local: SocketAddr,
    },
    /// A listener cannot accept (descriptors or memory are spent) and rests until
    /// [`Ring::resume_accept`].
    AcceptFailed {
        /// Which listener.
        listener: usize,
        /// Why.
        error: io::Error,
    },
    /// Bytes arrived, in order; the view goes back to the pool when it is dropped.
    Received {
        /// From where.
        socket: SocketId,
        /// What.
        bytes: Shared,
    },
    /// The range given to [`Ring::receive_into`] is full.
    ReceivedInto {
        /// From where.
        socket: SocketId,
        /// The caller's buffer.
        buf: IntoBuf,
    },
    /// Nothing more will be received. What is unsent can still be sent.
    ReceiveEnded {
        /// By whom.
        socket: SocketId,
        /// How.
        reason: EndReason,
    },
    /// Chunks were sent, whole, in order.
    Sent {
        /// To whom.
        socket: SocketId,
        /// The chunks; leases among them go home now.
        released: Vec<Chunk>,
    },
    /// Nothing more can be sent; all that was queued comes back.
    SendFailed {
        /// To whom.
        socket: SocketId,
        /// Why.
        error: io::Error,
        /// What was queued, sent in part or not at all.
        released: Vec<Chunk>,
    },
    /// The socket is gone; its id names nothing any more.
    Closed {
        /// Which.
        socket: SocketId,
        /// What was still queued for it.
        released: Vec<Chunk>,
    },
    /// An operation on files ended.
    File {
        /// Which, as returned when it was asked for.
        token: OpToken,
        /// How.
        outcome: FileOutcome,
    },
    /// The time given to [`Ring::set_timer`] has come.
    Timer,
}

struct Armed {
    token: OpToken,
    at_us: u64,
}

/// One core's ring.
pub struct Ring {
    pub(crate) uring: IoUring,
    pub(crate) ops: OpSlab,
    pub(crate) pool: RecvPool,
    pub(crate) sockets: Sockets,
    pub(crate) waker: Waker,
    pub(crate) helper: Option<Helper>,
    /// Those that flush, by the directory that asks.
    pub(crate) syncers: Vec<(PathBuf, Helper)>,
    pub(crate) dropped_files: Dropped,
    pub(crate) devices: Devices,
    pub(crate) has_ftruncate: bool,
    pub(crate) multishot_receive: bool,
    /// Completions made without the kernel; given out by the next turn.
    pub(crate) ready: Vec<Completion>,
    /// Submissions that found the queue full.
    backlog: VecDeque<squeue::Entry>,
    reaped: Vec<(u64, i32, u32)>,
    timer: Option<Armed>,
}

impl Ring {
    /// Makes the ring of the calling thread, which alone may use it.
    ///
    /// # Errors
    /// What the kernel says; [`crate::probe`] turns it into a remedy.
    pub fn new(config: RingConfig) -> io::Result<Ring> {
        Ring::with_waker(config, Waker::new()?)
    }

    /// As [`Ring::new`], woken by a waker that others already know.
    ///
    /// # Errors
    /// As [`Ring::new`].
    pub fn with_waker(config: RingConfig, waker: Waker) -> io::Result<Ring> {
        let uring: IoUring = IoUring::builder()
            .setup_cqsize(config.completion_entries)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .build(config.submission_entries)?;
        // What would block (flushes, making files) runs on workers of the kernel, by default no more
        // than four for each processor. A kernel that does not take the number keeps its own.
        let _ = uring
            .submitter()
            .register_iowq_max_workers(&mut [BLOCKING_WORKERS_MAX, 0]);
        let pool = RecvPool::register(
            &uring,
            config.receive_buffer_count,
            config.receive_buffer_bytes,
        )?;
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe)?;
        let mut ring = Ring {
            uring,
            ops: OpSlab::default(),
            pool,
            sockets: Sockets::default(),
            waker,
            helper: None,
            syncers: Vec::new(),
            dropped_files: Rc::new(RefCell::new(Vec::new())),
            devices: Devices::default(),
            has_ftruncate: probe.is_supported(opcode::Ftruncate::CODE),
            multishot_receive: config.multishot_receive,
            ready: Vec::new(),
            backlog: VecDeque::new(),
            reaped: Vec::new(),
            timer: None,
        };
        ring.watch_waker();
        Ok(ring)
    }

    /// Has the kernel tell of every write to the eventfd from now on. It is never read: only that it was
    /// written counts.
    fn watch_waker(&mut self) {
        let entry = opcode::PollAdd::new(types::Fd(self.waker.as_raw_fd()), libc::POLLIN as u32)
            .multi(true)
            .build();
        self.push(entry.user_data(WOKEN));
    }

    /// What wakes this core.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Receive buffers that the kernel may fill.
    pub fn receive_buffers_free(&self) -> usize {
        self.pool.free_count()
    }

    /// All receive buffers.
    pub fn receive_buffers_count(&self) -> usize {
        self.pool.count()
    }

    /// Size of one receive buffer, in bytes.
    pub fn receive_buffer_bytes(&self) -> usize {
        self.pool.buffer_bytes()
    }

    /// Whether less than a quarter of the receive buffers is free: who keeps pieces should copy them.
    pub fn receive_buffers_low(&self) -> bool {
        self.pool.free_count() * 4 < self.pool.count()
    }

    /// Operations that the kernel holds.
    pub fn in_flight_count(&self) -> usize {
        self.ops.live_count()
    }

    pub(crate) fn push_op(&mut self, op: Op, entry: squeue::Entry) -> OpToken {
        let token = self.ops.insert(op);
        self.push(entry.user_data(token.0));
        token
    }

    /// Queues a submission. All memory that it names must be owned by the slab (or live as long as the
    /// ring).
    pub(crate) fn push(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() {
            // SAFETY: everything the entry points to is owned by the operation in the slab, which is
            // removed only at its completion.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    pub(crate) fn cancel(&mut self, token: OpToken) {
        self.push(opcode::AsyncCancel::new(token.0).build().user_data(IGNORED));
    }

    /// Wakes the core at `at_us` (of [`crate::clock::monotonic_us`]) with [`Completion::Timer`]. One
    /// timer: an earlier time replaces it, a later one waits for it to fire early, once.
    pub fn set_timer(&mut self, at_us: u64) {
        if let Some(armed) = &self.timer {
            if armed.at_us <= at_us {
                return;
            }
            let old = armed.token;
            self.push(opcode::TimeoutRemove::new(old.0).build().user_data(IGNORED));
        }
        let at = Box::new(
            Timespec::new()
                .sec(at_us / 1_000_000)
                .nsec((at_us % 1_000_000) as u32 * 1_000),
        );
        let entry = opcode::Timeout::new(&raw const *at)
            .flags(TimeoutFlags::ABS)
            .build();
        let token = self.push_op(Op::Timer { _at: at }, entry);
        self.timer = Some(Armed { token, at_us });
    }

    /// Submits what was asked for and appends at most about `completions_max` of what has happened.
    /// Returns how many; zero means that there is nothing to do now.
    ///
    /// # Errors
    /// Only when the kernel refuses the ring itself, after which it is of no use.
    pub fn turn(
        &mut self,
        completions: &mut Vec<Completion>,
        completions_max: usize,
    ) -> io::Result<usize> {
        let before = completions.len();
        self.start_sends();
        self.rearm_starved();
        self.close_dropped_files();
        self.submit(false)?;
        let mut reaped = std::mem::take(&mut self.reaped);
        reaped.extend(
            self.uring
                .completion()
                .take(completions_max)
                .map(|entry| (entry.user_data(), entry.result(), entry.flags())),
        );
        let reaped_count = reaped.len();
        for (user_data, result, flags) in reaped.drain(..) {
            self.on_completion(user_data, result, flags, completions);
        }
        self.reaped = reaped;
        while let Some((token, outcome)) = self.poll_helpers() {
            completions.push(Completion::File { token, outcome });
        }
        self.finish_closes(completions);
        completions.append(&mut self.ready);
        // A completion that said nothing to the caller may have left work for the next turn.
        Ok((completions.len() - before).max(reaped_count))
    }

    /// Enters the kernel when there is something to submit, to run or to flush, or when `forced`.
    fn submit(&mut self, mut forced: bool) -> io::Result<()> {
        loop {
            let (submitter, mut queue, _) = self.uring.split();
            while let Some(entry) = self.backlog.front() {
                // SAFETY: as in `push`.
                if unsafe { queue.push(entry) }.is_err() {
                    break;
                }
                self.backlog.pop_front();
            }
            queue.sync();
            let len = queue.len();
            if len == 0 && !forced && !queue.taskrun() && !queue.cq_overflow() {
                return Ok(());
            }
            drop(queue);
            forced = false;
            // SAFETY: no argument is passed; the queued entries were checked when they were pushed.
            let entered = unsafe {
                submitter.enter::<libc::sigset_t>(len as u32, 0, EnterFlags::GETEVENTS.bits(), None)
            };
            match entered {
                Ok(taken) if taken < len || !self.backlog.is_empty() => {
                    if taken == 0 {
                        return Ok(());
                    }
                }
                Ok(_) => return Ok(()),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // Completions must be reaped before more is taken: that follows.
                    Some(libc::EBUSY | libc::EAGAIN) => return Ok(()),
                    _ => return Err(error),
                },
            }
        }
    }

    fn on_completion(
        &mut self,
        user_data: u64,
        result: i32,
        flags: u32,
        completions: &mut Vec<Completion>,
    ) {
        let more = cqueue::more(flags);
        match user_data {
            IGNORED => return,
            WOKEN if more => return,
            WOKEN => return self.watch_waker(),
            _ => {}
        }
        let token = OpToken(user_data);
        match self.ops.get_mut(token) {
            Some(Op::Accept { listener }) => {
                let listener = *listener;
                if !more {
                    self.ops.remove(token);
                }
                self.on_accept(listener, result, more, completions);
            }
            Some(Op::Receive { socket }) => {
                let socket = *socket;
                if !more {
                    self.ops.remove(token);
                }
                self.on_receive(socket, result, flags, completions);
            }
            Some(Op::ReceiveInto { .. }) => {
                let Some(Op::ReceiveInto { socket, buf }) = self.ops.remove(token) else {
                    unreachable!("just seen")
                };
                self.on_receive_into(socket, buf, result, completions);
            }
            Some(Op::Send { .. }) => {
                let Some(Op::Send { socket, state }) = self.ops.remove(token) else {
                    unreachable!("just seen")
                };
                self.on_send(socket, state, result, completions);
            }
            Some(Op::Timer { .. }) => {
                self.ops.remove(token);
                if self
                    .timer
                    .as_ref()
                    .is_some_and(|armed| armed.token == token)
                {
                    self.timer = None;
                    completions.push(Completion::Timer);
                }
            }
            Some(Op::Close) => {
                self.ops.remove(token);
            }
            Some(_) => self.on_file_completion(token, result, completions),
            None => unreachable!("a completion of an operation that is not in flight"),
        }
    }

    /// Prepares to sleep: from here on other threads write the eventfd. Returns false when something has
    /// happened already. Either way [`Ring::woke`] must follow ([`Ring::wait_blocking`] sees to that);
    /// before it waits, the caller looks at its own inboxes once more.
    pub fn prepare_sleep(&mut self) -> bool {
        self.waker.set_sleeping();
        self.uring.completion().is_empty()
            && self.backlog.is_empty()
            && self.ready.is_empty()
            && self.dropped_files.borrow().is_empty()
            && !self.has_socket_work()
            && !self.helper_answered()
    }

    fn helper_answered(&mut self) -> bool {
        let Some((token, outcome)) = self.poll_helpers() else {
            return false;
        };
        self.ready.push(Completion::File { token, outcome });
        true
    }

    fn poll_helpers(&mut self) -> Option<(OpToken, FileOutcome)> {
        let syncers = self.syncers.iter_mut().map(|(_, helper)| helper);
        self.helper.iter_mut().chain(syncers).find_map(Helper::poll)
    }

    /// Ends a sleep, also one that did not happen.
    pub fn woke(&mut self) {
        self.waker.set_awake();
    }

    /// Sleeps the thread until something happens or `timeout_ms` is over (negative: however long that
    /// takes): for threads that have nothing to look at but their ring (tests, tools).
    ///
    /// # Errors
    /// As [`Ring::turn`].
    pub fn sleep_blocking(&mut self, timeout_ms: i32) -> io::Result<()> {
        if self.prepare_sleep() {
            self.wait_blocking(timeout_ms)?;
        } else {
            self.woke();
        }
        Ok(())
    }

    /// Submits what was asked for, and waits: the second half of [`Ring::sleep_blocking`], after
    /// [`Ring::prepare_sleep`] and a look at the caller's own inboxes. Returns whether something happened
    /// in time.
    ///
    /// # Errors
    /// As [`Ring::turn`].
    pub fn wait_blocking(&mut self, timeout_ms: i32) -> io::Result<bool> {
        let mut flags = EnterFlags::GETEVENTS;
        if self.uring.params().is_feature_no_iowait() {
            // A core that waits for requests would count as one that waits for its disk.
            flags |= EnterFlags::NO_IOWAIT;
        }
        let timeout = u64::try_from(timeout_ms).ok().map(|timeout_ms| {
            Timespec::new()
                .sec(timeout_ms / 1000)
                .nsec((timeout_ms % 1000) as u32 * 1_000_000)
        });
        let (submitter, mut queue, _) = self.uring.split();
        queue.sync();
        let len = queue.len() as u32;
        drop(queue);
        let entered = match &timeout {
            Some(timeout) => {
                let args = SubmitArgs::new().timespec(timeout);
                flags |= EnterFlags::EXT_ARG;
                // SAFETY: the arguments live until the call returns; the queued entries were checked when
                // they were pushed.
                unsafe { submitter.enter(len, 1, flags.bits(), Some(&args)) }
            }
            // SAFETY: as above, without arguments.
            None => unsafe { submitter.enter::<libc::sigset_t>(len, 1, flags.bits(), None) },
        };
        self.woke();
        if let Err(error) = entered {
            match error.raw_os_error() {
                // An interruption is as good as a wake-up, and the next turn does what could not be done.
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                Some(libc::ETIME) => return Ok(false),
                _ => return Err(error),
            }
        }
        // Submitted and timed out is told as submitted.
        Ok(timeout.is_none() || !self.uring.completion().is_empty())
    }

    /// Cancels everything and waits for the kernel to let go of all memory. Returns whether it has.
    fn let_go(&mut self) -> bool {
        let cancel_all = opcode::AsyncCancel2::new(io_uring::types::CancelBuilder::any())
            .build()
            .user_data(IGNORED);
        let give_up_us = crate::clock::monotonic_us() + 5_000_000;
        while self.ops.live_count() > 0 {
            self.push(cancel_all.clone());
            let _ = self.submit(true);
            let wait = Timespec::new().nsec(50_000_000);
            let args = SubmitArgs::new().timespec(&wait);
            // Timing out, like any other failure, leads to another look.
            let _ = self.uring.submitter().submit_with_args(1, &args);
            let reaped: Vec<_> = self
                .uring
                .completion()
                .map(|entry| (entry.user_data(), entry.result(), entry.flags()))
                .collect();
            for (user_data, result, flags) in reaped {
                if user_data == IGNORED || user_data == WOKEN {
                    continue;
                }
                let token = OpToken(user_data);
                let opens = matches!(
                    self.ops.get_mut(token),
                    Some(Op::Accept { .. } | Op::Open { .. })
                );
                if opens && result >= 0 {
                    drop(self.adopt_file(result));
                }
                if !cqueue::more(flags) {
                    self.ops.remove(token);
                }
            }
            if crate::clock::monotonic_us() > give_up_us {
                return false;
            }
        }
        true
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.let_go() {
            // A device does not answer: what it may still write to must stay.
            std::mem::forget(std::mem::take(&mut self.ops));
            std::mem::forget(self.pool.clone());
        }
    }
}
