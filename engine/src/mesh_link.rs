//! The links between cores: for every ordered pair a bounded single-producer single-consumer ring, and
//! the wake-up of the core at its end. Made at start, one set of ends moved to each core; knows nothing
//! of the messages.
//!
//! A full link never drops and never blocks: the sender keeps the message in a queue of its own, goes
//! on draining what others send it, and admits no new work until the queue is empty
//! ([`MeshLinks::is_congested`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use ring::Waker;
use rtrb::{Consumer, Producer, RingBuffer};
use storage::types::CoreId;

struct Outgoing<M> {
    link: Producer<M>,
    overflow: VecDeque<M>,
    /// Tells the receiver that this core waits for room; shared with it.
    overflowing: Arc<AtomicBool>,
    receiver: Waker,
    /// Pushed since the last flush.
    fresh: bool,
}

struct Incoming<M> {
    link: Consumer<M>,
    overflowing: Arc<AtomicBool>,
    sender: Waker,
}

/// One core's ends of all its links.
pub struct MeshLinks<M> {
    /// By receiving core; `None` at this core's own place.
    outgoing: Vec<Option<Outgoing<M>>>,
    /// By sending core.
    incoming: Vec<Option<Incoming<M>>>,
    next_incoming: usize,
    overflow_count: usize,
}

impl<M> MeshLinks<M> {
    /// Makes the full mesh between the cores that `wakers` wake; each link holds `link_capacity`
    /// messages. One set of ends per core, in the order of the wakers.
    pub fn full_mesh(wakers: &[Waker], link_capacity: usize) -> Vec<MeshLinks<M>> {
        let mut ends: Vec<MeshLinks<M>> = wakers
            .iter()
            .map(|_| MeshLinks {
                outgoing: Vec::new(),
                incoming: Vec::new(),
                next_incoming: 0,
                overflow_count: 0,
            })
            .collect();
        for (from, sender) in wakers.iter().enumerate() {
            for (to, receiver) in wakers.iter().enumerate() {
                if from == to {
                    ends[from].outgoing.push(None);
                    ends[to].incoming.push(None);
                    continue;
                }
                let (producer, consumer) = RingBuffer::new(link_capacity);
                let overflowing = Arc::new(AtomicBool::new(false));
                ends[from].outgoing.push(Some(Outgoing {
                    link: producer,
                    overflow: VecDeque::new(),
                    overflowing: Arc::clone(&overflowing),
                    receiver: receiver.clone(),
                    fresh: false,
                }));
                ends[to].incoming.push(Some(Incoming {
                    link: consumer,
                    overflowing,
                    sender: sender.clone(),
                }));
            }
        }
        ends
    }

    /// Sends after everything sent to that core before. The receiver is woken by the next flush.
    ///
    /// # Panics
    /// If `to` is this core or none of the mesh.
    pub fn send(&mut self, to: CoreId, message: M) {
        let outgoing = self.outgoing[usize::from(to.0)]
            .as_mut()
            .expect("a core does not send to itself");
        if outgoing.overflow.is_empty() {
            match outgoing.link.push(message) {
                Ok(()) => outgoing.fresh = true,
                Err(rtrb::PushError::Full(message)) => {
                    outgoing.overflow.push_back(message);
                    outgoing.overflowing.store(true, Ordering::Relaxed);
                    self.overflow_count += 1;
                }
            }
        } else {
            outgoing.overflow.push_back(message);
            self.overflow_count += 1;
        }
    }

    /// Moves what waits for room onto its links, and wakes the receivers of what is new. To be called
    /// at the end of every turn, and once more when about to sleep.
    pub fn flush(&mut self) {
        if self.overflow_count > 0 {
            // Pairs with the fence in `woke_senders`: either this sees the room that the receiver
            // made, or the receiver sees that this core waits for it.
            fence(Ordering::SeqCst);
        }
        for outgoing in self.outgoing.iter_mut().flatten() {
            while let Some(message) = outgoing.overflow.pop_front() {
                match outgoing.link.push(message) {
                    Ok(()) => {
                        outgoing.fresh = true;
                        self.overflow_count -= 1;
                        if outgoing.overflow.is_empty() {
                            outgoing.overflowing.store(false, Ordering::Relaxed);
                        }
                    }
                    Err(rtrb::PushError::Full(message)) => {
                        outgoing.overflow.push_front(message);
                        break;
                    }
                }
            }
            if outgoing.fresh {
                outgoing.fresh = false;
                outgoing.receiver.wake();
            }
        }
    }

    /// Whether messages wait for room: then no new work is admitted.
    pub fn is_congested(&self) -> bool {
        self.overflow_count > 0
    }

    /// Appends at most about `messages_max` messages to `received`, taking from all senders in turn.
    pub fn receive(&mut self, received: &mut Vec<(CoreId, M)>, messages_max: usize) {
        let cores = self.incoming.len();
        let share = messages_max.div_ceil(cores.max(1));
        for step in 0..cores {
            let from = (self.next_incoming + step) % cores;
            let Some(incoming) = &mut self.incoming[from] else {
                continue;
            };
            let before = received.len();
            while received.len() < before + share
                && let Ok(message) = incoming.link.pop()
            {
                received.push((CoreId(from as u16), message));
            }
            if received.len() > before {
                fence(Ordering::SeqCst);
                if incoming.overflowing.load(Ordering::Relaxed) {
                    incoming.sender.wake();
                }
            }
        }
        self.next_incoming = (self.next_incoming + 1) % cores.max(1);
    }

    /// Whether a message waits to be received.
    pub fn has_incoming(&self) -> bool {
        self.incoming
            .iter()
            .flatten()
            .any(|incoming| !incoming.link.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(capacity: usize) -> (MeshLinks<u64>, MeshLinks<u64>) {
        let wakers = [Waker::new().unwrap(), Waker::new().unwrap()];
        let mut ends = MeshLinks::full_mesh(&wakers, capacity);
        let second = ends.pop().unwrap();
        (ends.pop().unwrap(), second)
    }

    #[test]
    fn a_full_link_keeps_order_and_says_so() {
        let (mut one, mut other) = pair(4);
        for number in 0..10 {
            one.send(CoreId(1), number);
        }
        assert!(one.is_congested());
        let mut got = Vec::new();
        while got.len() < 10 {
            other.receive(&mut got, 3);
            one.flush();
        }
        assert!(!one.is_congested());
        let numbers: Vec<u64> = got.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, (0..10).collect::<Vec<_>>());
        assert!(got.iter().all(|(from, _)| *from == CoreId(0)));
        assert!(!other.has_incoming());
    }

    #[test]
    fn every_sender_gets_its_share() {
        let wakers: Vec<Waker> = (0..3).map(|_| Waker::new().unwrap()).collect();
        let mut ends = MeshLinks::full_mesh(&wakers, 100);
        for number in 0..50 {
            ends[0].send(CoreId(2), number);
            ends[1].send(CoreId(2), 1000 + number);
        }
        let mut got = Vec::new();
        ends[2].receive(&mut got, 30);
        let from_first = got.iter().filter(|(from, _)| *from == CoreId(0)).count();
        assert_eq!(from_first, 10);
        assert_eq!(got.len(), 20);
    }

    /// Two rings that sleep whenever they have nothing to do, and links far too small: a lost wake-up
    /// hangs this.
    #[test]
    fn sleeping_cores_miss_no_message_and_no_room() {
        const COUNT: u64 = 20_000;
        let wakers: Vec<Waker> = (0..2).map(|_| Waker::new().unwrap()).collect();
        let threads: Vec<_> = MeshLinks::<u64>::full_mesh(&wakers, 2)
            .into_iter()
            .enumerate()
            .map(|(core, mut links)| {
                let waker = wakers[core].clone();
                std::thread::spawn(move || {
                    let config = ring::RingConfig::default();
                    let mut ring = ring::Ring::with_waker(config, waker).unwrap();
                    let (mut sent, mut expected) = (0, 0);
                    let mut got = Vec::new();
                    while sent < COUNT || expected < COUNT || links.is_congested() {
                        for _ in 0..3 {
                            if sent < COUNT && !links.is_congested() {
                                links.send(CoreId(1 - core as u16), sent);
                                sent += 1;
                            }
                        }
                        links.flush();
                        links.receive(&mut got, 64);
                        if !got.is_empty() {
                            for (_, number) in got.drain(..) {
                                assert_eq!(number, expected);
                                expected += 1;
                            }
                            continue;
                        }
                        let quiet = ring.prepare_sleep();
                        links.flush();
                        let more_to_send = sent < COUNT && !links.is_congested();
                        let finished = sent == COUNT && expected == COUNT;
                        if quiet && !links.has_incoming() && !more_to_send && !finished {
                            assert!(ring.wait_blocking(60_000).unwrap(), "a wake-up was lost");
                        } else {
                            ring.woke();
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("all messages in order");
        }
    }
}
