//! The operations that the kernel holds, and the memory it reads or writes meanwhile. Lives on one
//! core, inside its ring; knows no socket state and no file meaning.
//!
//! Everything the kernel may touch is owned by the slab from submission to completion, so that no
//! caller can free or change it. A slot's generation is part of the completion's user data: a late
//! completion never meets the slot's next operation.

use std::ffi::CString;

use io_uring::types::Timespec;

use crate::buf::{AlignedBuf, Chunk, Shared};
use crate::durable::Way;
use crate::file::File;
use crate::socket::{IntoBuf, SocketId};

/// Names an operation in flight; never given twice by one ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpToken(pub(crate) u64);

/// User data of operations whose completion means nothing (cancellations).
pub(crate) const IGNORED: u64 = u64::MAX;
/// User data of the poll of the ring's waker, which has no place in the slab: it owns no memory, and is
/// in flight for as long as the ring lives.
pub(crate) const WOKEN: u64 = u64::MAX - 1;

/// What the kernel reads while a send is in flight.
pub(crate) enum SendState {
    /// As most answers are: nothing needs to be gathered.
    One { chunk: Chunk, sent_bytes: usize },
    /// Several chunks.
    Gathered(Box<Gathered>),
}

/// A gathered send.
pub(crate) struct Gathered {
    pub chunks: Vec<Chunk>,
    pub iov: Vec<libc::iovec>,
    /// Index of the first entry of `iov` that is not wholly sent.
    pub iov_first: usize,
    pub header: libc::msghdr,
}

/// What is in flight.
pub(crate) enum Op {
    Accept {
        listener: usize,
    },
    Receive {
        socket: SocketId,
    },
    ReceiveInto {
        socket: SocketId,
        buf: IntoBuf,
    },
    Send {
        socket: SocketId,
        state: SendState,
    },
    Timer {
        _at: Box<Timespec>,
    },
    Open {
        _path: CString,
    },
    Read {
        file: File,
        position: u64,
        buf: AlignedBuf,
        done_bytes: usize,
    },
    Write {
        file: File,
        position: u64,
        bytes: Shared,
        done_bytes: usize,
        /// How it is made durable, if it is, and when it was submitted (monotonic, microseconds).
        durable: Option<(Way, u64)>,
    },
    WriteGathered {
        file: File,
        position: u64,
        pieces: Vec<Shared>,
        /// What is left of them, for the kernel.
        vectors: Vec<libc::iovec>,
        done_bytes: usize,
    },
    /// The flush behind a write that is done.
    Flush {
        file: File,
        written_bytes: usize,
        started_us: u64,
    },
    OnFile {
        _file: File,
    },
    OnPaths {
        _paths: Vec<CString>,
    },
    Stat {
        _file: File,
        stat: Box<libc::statx>,
    },
    Close,
    Helper,
}

#[derive(Default)]
pub(crate) struct OpSlab {
    slots: Vec<Slot>,
    free: Vec<u32>,
    live_count: usize,
}

struct Slot {
    generation: u32,
    op: Option<Op>,
}

impl OpSlab {
    pub fn insert(&mut self, op: Op) -> OpToken {
        self.live_count += 1;
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot {
                    generation: 0,
                    op: None,
                });
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 operations")
            }
        };
        let slot = &mut self.slots[index as usize];
        assert!(slot.op.is_none(), "a free slot is empty");
        slot.op = Some(op);
        OpToken(u64::from(slot.generation) << 32 | u64::from(index))
    }

    fn slot(&mut self, token: OpToken) -> Option<&mut Slot> {
        let slot = self.slots.get_mut((token.0 & 0xffff_ffff) as usize)?;
        (u64::from(slot.generation) == token.0 >> 32).then_some(slot)
    }

    pub fn get_mut(&mut self, token: OpToken) -> Option<&mut Op> {
        self.slot(token)?.op.as_mut()
    }

    /// Goes on with another operation under the same token.
    pub fn replace(&mut self, token: OpToken, op: Op) {
        let slot = self.get_mut(token);
        *slot.expect("an operation in flight") = op;
    }

    pub fn remove(&mut self, token: OpToken) -> Option<Op> {
        let slot = self.slot(token)?;
        let op = slot.op.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push((token.0 & 0xffff_ffff) as u32);
        self.live_count -= 1;
        Some(op)
    }

    pub fn live_count(&self) -> usize {
        self.live_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_token_does_not_meet_the_next_operation() {
        let mut slab = OpSlab::default();
        let first = slab.insert(Op::Close);
        assert!(slab.remove(first).is_some());
        let second = slab.insert(Op::Helper);
        assert_eq!(first.0 & 0xffff_ffff, second.0 & 0xffff_ffff, "same slot");
        assert!(slab.get_mut(first).is_none());
        assert!(slab.remove(first).is_none());
        assert!(matches!(slab.remove(second), Some(Op::Helper)));
        assert_eq!(slab.live_count(), 0);
    }
}
