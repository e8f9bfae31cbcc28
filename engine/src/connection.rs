//! One client connection: its requests in order, its answers in order. Lives on the core that
//! accepted it; knows no API beyond which requests may overlap, and no socket.
//!
//! Kafka handles one request of a connection at a time. Here only waiting overlaps: a Produce may
//! start while earlier Produces wait for their flush or earlier Fetches are parked; a Fetch starts
//! when every Produce before it is answered, so that it sees what they wrote; anything else starts
//! when nothing is in flight. Nothing starts for a client that leaves its answers unread.

use std::collections::VecDeque;
use std::net::SocketAddr;

use ring::buf::{Chunk, Shared};

use crate::event::ConnId;
use crate::ids::Key;
use crate::limits::{
    CONNECTION_HELD_BYTES_MAX, CONNECTION_OPEN_FETCHES_MAX, CONNECTION_WAITING_BYTES_MAX,
};

/// Names the place of one request's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The connection.
    pub conn: ConnId,
    /// Counts the requests of the connection.
    pub sequence: u64,
}

/// How a request gets on with its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// Starts beside Produces and Fetches.
    Produce,
    /// Starts beside Fetches.
    Fetch,
    /// Starts alone, and alone goes on.
    Barrier,
}

#[derive(Debug)]
struct Slot {
    overlap: Overlap,
    answer: Option<Answered>,
}

#[derive(Debug)]
enum Answered {
    Bytes(Vec<Chunk>),
    Nothing,
}

/// An answer that the kernel has not taken.
#[derive(Clone, Copy, Debug)]
pub struct Unsent {
    /// Of which kind it is.
    pub overlap: Overlap,
    /// When it was given, monotonic microseconds.
    pub given_us: u64,
    /// Its size.
    pub bytes: usize,
}

/// A request that has not started.
#[derive(Debug)]
pub struct Waiting {
    overlap: Overlap,
    /// The whole request.
    pub frame: Shared,
    /// When it arrived, monotonic microseconds.
    pub arrived_us: u64,
}

/// What a connection of the native protocol has beside its requests.
#[derive(Debug, Default)]
pub struct NativeSide {
    /// The version that was negotiated; before that, none.
    pub version: Option<u8>,
    /// The features that were negotiated, as bits.
    pub features: u64,
    /// Its subscriptions, each by the correlation id that began it.
    pub subscriptions: Vec<(u64, Key)>,
}

/// A client connection.
#[derive(Debug)]
pub struct Connection {
    /// Index of the listener that accepted it.
    pub listener: usize,
    /// The client's address.
    pub peer: SocketAddr,
    /// When a request last arrived or an answer last left, monotonic microseconds.
    pub active_us: u64,
    /// Set where the native protocol is spoken.
    pub native: Option<Box<NativeSide>>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    slots: VecDeque<Slot>,
    first_sequence: u64,
    /// The answers that are not yet taken by the kernel, oldest first.
    unsent: VecDeque<Unsent>,
    held_bytes: usize,
    paused: bool,
    closing: bool,
    /// The client sends nothing more.
    pub finished: bool,
}

impl Connection {
    /// A connection that has asked nothing.
    pub fn new(listener: usize, peer: SocketAddr, now_us: u64) -> Connection {
        Connection {
            listener,
            peer,
            active_us: now_us,
            native: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            slots: VecDeque::new(),
            first_sequence: 0,
            unsent: VecDeque::new(),
            held_bytes: 0,
            paused: false,
            closing: false,
            finished: false,
        }
    }

    /// Queues a request. Dropped when the connection is closing.
    pub fn push(&mut self, overlap: Overlap, frame: Shared, arrived_us: u64) {
        if !self.closing {
            self.waiting_bytes += frame.len();
            self.waiting.push_back(Waiting {
                overlap,
                frame,
                arrived_us,
            });
        }
    }

    /// The next request that may start now, with the place of its answer.
    pub fn start_next(&mut self) -> Option<(u64, Waiting)> {
        if self.closing || self.held_bytes > CONNECTION_HELD_BYTES_MAX {
            return None;
        }
        let overlap = self.waiting.front()?.overlap;
        let open = || self.slots.iter().filter(|slot| slot.answer.is_none());
        let may_start = match overlap {
            Overlap::Produce => open().all(|slot| slot.overlap != Overlap::Barrier),
            Overlap::Fetch => {
                open().all(|slot| slot.overlap == Overlap::Fetch)
                    && open().nth(CONNECTION_OPEN_FETCHES_MAX - 1).is_none()
            }
            Overlap::Barrier => open().next().is_none(),
        };
        if !may_start {
            return None;
        }
        let waiting = self.waiting.pop_front()?;
        self.waiting_bytes -= waiting.frame.len();
        self.slots.push_back(Slot {
            overlap,
            answer: None,
        });
        let sequence = self.first_sequence + self.slots.len() as u64 - 1;
        Some((sequence, waiting))
    }

    /// Sets the answer of a request; `None` where the protocol has none (acks=0).
    ///
    /// # Panics
    /// If the request was answered before: an answer is given once.
    pub fn answer(&mut self, sequence: u64, chunks: Option<Vec<Chunk>>) {
        let index = (sequence - self.first_sequence) as usize;
        let slot = &mut self.slots[index];
        assert!(slot.answer.is_none(), "request {sequence} answered twice");
        slot.answer = Some(match chunks {
            Some(chunks) => {
                self.held_bytes += bytes_of(&chunks);
                Answered::Bytes(chunks)
            }
            None => Answered::Nothing,
        });
    }

    /// The next answer whose turn it is to be sent, at `now_us`.
    pub fn next_answer(&mut self, now_us: u64) -> Option<Vec<Chunk>> {
        while self.slots.front()?.answer.is_some() {
            self.first_sequence += 1;
            let slot = self.slots.pop_front()?;
            if let Some(Answered::Bytes(chunks)) = slot.answer {
                self.unsent.push_back(Unsent {
                    overlap: slot.overlap,
                    given_us: now_us,
                    bytes: bytes_of(&chunks),
                });
                return Some(chunks);
            }
        }
        None
    }

    /// Bytes that answer no request are about to be sent, at `now_us`.
    pub fn on_unasked(&mut self, overlap: Overlap, bytes: usize, now_us: u64) {
        self.held_bytes += bytes;
        self.unsent.push_back(Unsent {
            overlap,
            given_us: now_us,
            bytes,
        });
    }

    /// Whether a feature of the native protocol was negotiated.
    pub fn has_feature(&self, feature: u64) -> bool {
        self.native
            .as_ref()
            .is_some_and(|native| native.features & feature != 0)
    }

    /// Whether anything is subscribed to.
    pub fn has_subscriptions(&self) -> bool {
        self.native
            .as_ref()
            .is_some_and(|native| !native.subscriptions.is_empty())
    }

    /// Whether more may be put before the client now.
    pub fn takes_more(&self) -> bool {
        !self.closing && self.held_bytes <= CONNECTION_HELD_BYTES_MAX
    }

    /// The oldest unsent answer was taken by the kernel.
    pub fn on_sent(&mut self) -> Option<Unsent> {
        let sent = self.unsent.pop_front()?;
        self.held_bytes -= sent.bytes;
        Some(sent)
    }

    /// Bytes of answers that are given and not yet taken by the kernel.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether reading should stop (`Some(true)`) or go on (`Some(false)`); `None`: as it is.
    pub fn receive_change(&mut self) -> Option<bool> {
        let full = self.slots.len() > crate::limits::CONNECTION_WAITING_REQUESTS_MAX
            || self.waiting_bytes > CONNECTION_WAITING_BYTES_MAX
            || self.waiting.len() > crate::limits::CONNECTION_WAITING_REQUESTS_MAX
            || self.unsent.len() > crate::limits::CONNECTION_UNSENT_ANSWERS_MAX;
        let calm = self.slots.len() <= crate::limits::CONNECTION_WAITING_REQUESTS_MAX / 2
            && self.waiting_bytes <= CONNECTION_WAITING_BYTES_MAX / 2
            && self.waiting.len() <= crate::limits::CONNECTION_WAITING_REQUESTS_MAX / 2
            && self.unsent.len() <= crate::limits::CONNECTION_UNSENT_ANSWERS_MAX / 2;
        if !self.paused && full {
            self.paused = true;
            Some(true)
        } else if self.paused && calm {
            self.paused = false;
            Some(false)
        } else {
            None
        }
    }

    /// No request starts any more; what waited is dropped.
    pub fn begin_close(&mut self) {
        self.closing = true;
        self.waiting.clear();
        self.waiting_bytes = 0;
    }

    /// Whether it is closing.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether nothing is waiting, in flight or unsent.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.slots.is_empty() && self.unsent.is_empty()
    }

    /// Answers that were given but not yet sent, because the connection is gone.
    pub fn take_answers(&mut self) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        for slot in self.slots.drain(..) {
            if let Some(Answered::Bytes(bytes)) = slot.answer {
                chunks.extend(bytes);
            }
        }
        chunks
    }
}

fn bytes_of(chunks: &[Chunk]) -> usize {
    chunks.iter().map(|chunk| chunk.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Overlap::{Barrier, Fetch, Produce};

    fn connection(requests: &[Overlap]) -> Connection {
        let peer = "127.0.0.1:5000".parse().expect("an address");
        let mut connection = Connection::new(0, peer, 0);
        for overlap in requests {
            connection.push(*overlap, Shared::from(vec![0; 10]), 0);
        }
        connection
    }

    fn start_all(connection: &mut Connection) -> Vec<u64> {
        std::iter::from_fn(|| connection.start_next().map(|(sequence, _)| sequence)).collect()
    }

    fn bytes(byte: u8) -> Option<Vec<Chunk>> {
        Some(vec![Chunk::Local(Shared::from(vec![byte]))])
    }

    #[test]
    fn produces_overlap_and_answers_keep_their_order() {
        let mut connection = connection(&[Produce, Produce]);
        assert_eq!(start_all(&mut connection), [0, 1]);
        connection.answer(1, bytes(1));
        assert!(connection.next_answer(0).is_none());
        connection.answer(0, bytes(0));
        assert_eq!(connection.next_answer(0).expect("first")[0][..], [0]);
        assert_eq!(connection.next_answer(0).expect("second")[0][..], [1]);
        assert!(connection.next_answer(0).is_none());
    }

    #[test]
    fn a_fetch_waits_for_produces_before_it_but_holds_none_back() {
        let mut connection = connection(&[Produce, Fetch, Produce]);
        assert_eq!(start_all(&mut connection), [0]);
        connection.answer(0, bytes(0));
        assert_eq!(start_all(&mut connection), [1, 2]);
    }

    #[test]
    fn a_barrier_starts_alone_and_goes_on_alone() {
        let mut connection = connection(&[Produce, Barrier, Produce]);
        assert_eq!(start_all(&mut connection), [0]);
        connection.answer(0, None);
        assert_eq!(start_all(&mut connection), [1]);
        connection.answer(1, bytes(1));
        assert_eq!(start_all(&mut connection), [2]);
        assert_eq!(
            connection.next_answer(0).expect("the barrier's")[0][..],
            [1]
        );
    }

    #[test]
    fn nothing_starts_for_a_client_that_leaves_its_answers_unread() {
        let mut connection = connection(&[Fetch, Fetch, Produce]);
        assert_eq!(start_all(&mut connection), [0, 1, 2]);
        connection.push(Fetch, Shared::from(vec![0; 10]), 0);
        connection.answer(2, None);
        let large = Shared::from(vec![0; CONNECTION_HELD_BYTES_MAX + 1]);
        connection.answer(0, Some(vec![Chunk::Local(large)]));
        assert!(start_all(&mut connection).is_empty());
        assert!(connection.next_answer(0).is_some());
        assert!(start_all(&mut connection).is_empty());
        assert_eq!(connection.held_bytes(), CONNECTION_HELD_BYTES_MAX + 1);
        let sent = connection.on_sent().expect("one was given");
        assert_eq!(sent.bytes, CONNECTION_HELD_BYTES_MAX + 1);
        assert_eq!(start_all(&mut connection), [3]);
    }

    #[test]
    fn few_fetches_are_parked_side_by_side() {
        let mut connection = connection(&[Fetch; CONNECTION_OPEN_FETCHES_MAX + 2]);
        assert_eq!(start_all(&mut connection), [0, 1, 2, 3]);
        connection.answer(1, bytes(1));
        assert_eq!(start_all(&mut connection), [4]);
    }

    #[test]
    #[should_panic(expected = "answered twice")]
    fn a_second_answer_is_a_broken_invariant() {
        let mut connection = connection(&[Produce]);
        start_all(&mut connection);
        connection.answer(0, None);
        connection.answer(0, None);
    }

    #[test]
    fn reading_stops_when_requests_pile_up_and_goes_on_when_they_are_gone() {
        let mut connection = connection(&[Barrier]);
        assert_eq!(connection.receive_change(), None);
        let big = Shared::from(vec![0; CONNECTION_WAITING_BYTES_MAX + 1]);
        connection.push(Barrier, big, 0);
        assert_eq!(connection.receive_change(), Some(true));
        assert_eq!(connection.receive_change(), None);
        assert_eq!(start_all(&mut connection), [0]);
        connection.answer(0, None);
        assert_eq!(start_all(&mut connection), [1]);
        assert_eq!(connection.receive_change(), Some(false));
    }
}
