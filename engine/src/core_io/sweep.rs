//! What a core looks at now and then because it does not report by itself: listeners that rest, connections that
//! wait to enter, answers that nobody reads, closes that do not end, large requests that make no progress. Lives
//! on the core, in its turn; knows no shard.

use std::collections::HashMap;

use ring::SocketId;
use storage::types::Now;

use super::{CoreIo, Machine};
use crate::admission::Place;

/// How often stalled readers, stalled frames and unfinished closes are looked for, in microseconds.
const SWEEP_US: u64 = 1_000_000;
/// How often it is looked whether a connection that waits for `max.connections` or
/// `max.connection.creation.rate` may be served, in microseconds.
const ENTER_AGAIN_US: u64 = 100_000;

impl<M: Machine> CoreIo<M> {
    /// Looks after what does not report by itself. Returns whether it did anything.
    pub(super) fn sweep(&mut self, now: Now) -> bool {
        let mut worked = self.resume_listeners(now);
        worked |= self.let_enter(now);
        if now.monotonic_us >= self.sweep_us {
            self.sweep_us = now.monotonic_us + SWEEP_US;
            worked |= self.sweep_answers(now);
            worked |= self.sweep_requests(now);
        }
        worked
    }

    /// Has the ring's timer end a sleep when the next of it, or the shard's deadline, is due.
    pub(super) fn set_timer(&mut self) {
        let sweep =
            (!self.sending.is_empty() || self.admission.has_waiting()).then_some(self.sweep_us);
        let enter = (!self.entering.is_empty()).then_some(self.enter_us);
        let accept = self.accept_again.iter().map(|(_, at_us)| *at_us).min();
        let deadline = self.machine.next_deadline();
        if let Some(at_us) = [sweep, enter, accept, deadline].into_iter().flatten().min() {
            self.ring.borrow_mut().set_timer(at_us);
        }
    }

    /// Listeners that have rested accept again.
    fn resume_listeners(&mut self, now: Now) -> bool {
        let mut worked = false;
        while let Some(index) = self
            .accept_again
            .iter()
            .position(|(_, at_us)| *at_us <= now.monotonic_us)
        {
            let (listener, _) = self.accept_again.swap_remove(index);
            self.ring.borrow_mut().resume_accept(listener);
            worked = true;
        }
        worked
    }

    /// Connections that waited for one of the limits are served, as far as it allows now.
    fn let_enter(&mut self, now: Now) -> bool {
        let mut worked = false;
        if now.monotonic_us >= self.enter_us && !self.entering.is_empty() {
            self.enter_us = now.monotonic_us + ENTER_AGAIN_US;
            while !self.entering.is_empty() && self.limits.enter(now.monotonic_us) {
                if let Some((listener, socket, peer)) = self.entering.pop_front() {
                    self.admit_connection(now, listener, socket, peer);
                    worked = true;
                }
            }
        }
        worked
    }

    /// Closes that take too long are made at once, what readers leave unread is copied out of the memory that it
    /// pins, and where that is too much, whoever left most of it is let go.
    fn sweep_answers(&mut self, now: Now) -> bool {
        let mut worked = false;
        let mut ring = self.ring.borrow_mut();
        let mut stalled: Vec<(usize, SocketId)> = Vec::new();
        for conn in &self.sending {
            let Some(state) = self.conns.get_mut(conn) else {
                continue;
            };
            if state
                .close_by_us
                .is_some_and(|by_us| by_us <= now.monotonic_us)
            {
                ring.close(state.socket);
                worked = true;
                continue;
            }
            let unsent_bytes = ring.unsent_bytes(state.socket);
            if unsent_bytes == 0 || unsent_bytes != state.unsent_seen_bytes {
                state.unsent_seen_bytes = unsent_bytes;
                state.copied_out = false;
            } else if !state.copied_out {
                state.copied_out = true;
                ring.copy_out_unsent(state.socket);
                worked = true;
            }
            if state.copied_out {
                stalled.push((unsent_bytes, state.socket));
            }
        }
        let mut stalled_bytes: usize = stalled.iter().map(|(bytes, _)| bytes).sum();
        stalled.sort_unstable_by_key(|(bytes, _)| *bytes);
        while stalled_bytes > self.stalled_bytes_max
            && let Some((bytes, socket)) = stalled.pop()
        {
            tracing::debug!(bytes, "closing a connection that does not read its answers");
            stalled_bytes -= bytes;
            ring.close(socket);
            worked = true;
        }
        worked
    }

    /// Large requests that make no progress, or whose client is gone while they wait for a place, are let go.
    fn sweep_requests(&mut self, now: Now) -> bool {
        let mut worked = false;
        let mut ring = self.ring.borrow_mut();
        let (conns, by_place) = (&mut self.conns, &self.by_place);
        let received: HashMap<Place, usize> = by_place
            .iter()
            .filter_map(|(place, conn)| {
                let state = conns.get_mut(conn)?;
                let before = state.framer.pending()?.received_bytes;
                let direct = match &state.direct {
                    Some(range) => ring
                        .received_into(state.socket)
                        .map_or(0, |filled| filled - range.start),
                    None => 0,
                };
                Some((*place, before + direct))
            })
            .collect();
        // Nobody reads from who waits for a place, so nobody would hear that it is gone.
        for conn in by_place.values() {
            if let Some(state) = conns.get(conn)
                && !state.admitted
                && let Some(frame) = state.framer.pending()
                && ring.cannot_send(state.socket, frame.size_bytes - frame.received_bytes)
            {
                tracing::debug!("closing a connection that left while its large request waited");
                ring.close(state.socket);
                worked = true;
            }
        }
        for place in self.admission.stalled(now.monotonic_us, |place| {
            received.get(&place).copied().unwrap_or(0)
        }) {
            if let Some(state) = by_place.get(&place).and_then(|conn| conns.get(conn)) {
                tracing::debug!("closing a connection whose large request makes no progress");
                ring.close(state.socket);
                worked = true;
            }
        }
        worked
    }
}
