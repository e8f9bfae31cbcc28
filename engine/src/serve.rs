//! Connections and requests of a shard: from frame to handler, from answer to socket, in order. Lives on
//! the core that accepted the connection; knows no API beyond which of them overlap.

use std::net::SocketAddr;

use net::kafka::{ApiKey, decode_header};
use ring::buf::{Chunk, Shared};
use storage::types::Now;

use crate::api::{self, Head, Outcome, Request};
use crate::connection::{Connection, Overlap, Ticket};
use crate::event::{Action, ConnId};
use crate::metrics::Stage;
use crate::native;
use crate::shard::Shard;

impl Shard {
    pub(crate) fn on_accepted(
        &mut self,
        now: Now,
        conn: ConnId,
        listener: usize,
        peer: SocketAddr,
    ) {
        self.metrics.connections_accepted += 1;
        if self.stopping.is_some() {
            self.actions.push_back(Action::Close { conn });
        }
        let mut connection = Connection::new(listener, peer, now.monotonic_us);
        // Behind the listeners of the Kafka protocol are those of the native one.
        if listener >= self.config.broker.listeners.len() {
            connection.native = Some(Box::default());
        }
        self.connections.insert(conn, connection);
    }

    pub(crate) fn on_frame(&mut self, now: Now, conn: ConnId, frame: Shared) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        connection.active_us = now.monotonic_us;
        let overlap = if connection.native.is_some() {
            self.metrics.received_bytes += frame.len() as u64;
            match native::overlap(&frame) {
                Some(overlap) => overlap,
                None if native::take_credit(self, conn, &frame) => {
                    self.advance(now, conn);
                    return;
                }
                None => Overlap::Barrier,
            }
        } else {
            self.metrics.received_bytes += frame.len() as u64 + 4;
            match frame.first_chunk::<2>().map(|key| i16::from_be_bytes(*key)) {
                Some(0) => Overlap::Produce,
                Some(1) => Overlap::Fetch,
                _ => Overlap::Barrier,
            }
        };
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        connection.push(overlap, frame, now.monotonic_us);
        self.advance(now, conn);
    }

    /// Starts what may start on a connection, and sends what may be sent.
    pub(crate) fn advance(&mut self, now: Now, conn: ConnId) {
        loop {
            self.send_answers(now, conn);
            let Some(connection) = self.connections.get_mut(&conn) else {
                return;
            };
            let Some((sequence, waiting)) = connection.start_next() else {
                break;
            };
            let ticket = Ticket { conn, sequence };
            if connection.native.is_some() {
                native::start(self, now, ticket, &waiting.frame, waiting.arrived_us);
            } else {
                self.start_request(now, ticket, &waiting.frame, waiting.arrived_us);
            }
        }
        if let Some(connection) = self.connections.get_mut(&conn) {
            match connection.receive_change() {
                Some(true) => self.actions.push_back(Action::PauseReceive { conn }),
                Some(false) => self.actions.push_back(Action::ResumeReceive { conn }),
                None => {}
            }
            if connection.finished && connection.is_idle() {
                self.close(conn, "the client has finished, and has its answers");
            }
        }
    }

    /// The client has shut down its side: it gets what it asked for, parked fetches with what there is.
    pub(crate) fn on_peer_finished(&mut self, now: Now, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        connection.finished = true;
        if !connection.is_idle() {
            let parked: Vec<_> = self
                .fetches
                .iter()
                .filter(|(_, state)| state.reply.conn() == conn)
                .map(|(key, _)| *key)
                .collect();
            for key in parked {
                self.on_fetch_deadline(now, key);
            }
        }
        self.advance(now, conn);
    }

    fn start_request(&mut self, now: Now, ticket: Ticket, frame: &Shared, arrived_us: u64) {
        let (header, reader) = match decode_header(frame) {
            Ok(decoded) => decoded,
            Err(error) => {
                self.metrics.malformed_requests += 1;
                self.close(ticket.conn, &error.to_string());
                return;
            }
        };
        let Some(connection) = self.connections.get(&ticket.conn) else {
            return;
        };
        let (listener, peer) = (connection.listener, connection.peer);
        let head = Head {
            ticket,
            api: header.api_key,
            version: header.api_version,
            correlation_id: header.correlation_id,
            started_us: now.monotonic_us,
        };
        let config = std::sync::Arc::clone(&self.config);
        let request = Request {
            head,
            client_id: header.client_id.as_deref(),
            listener: &config.broker.listeners[listener],
            peer,
            frame,
            body: reader.rest(),
        };
        self.metrics.on_request(head.api);
        let queued_us = now.monotonic_us.saturating_sub(arrived_us);
        match head.api {
            ApiKey::Produce => self.metrics.on_produce_stage(Stage::Queue, queued_us),
            ApiKey::Fetch => self.metrics.on_fetch_stage(Stage::Queue, queued_us),
            _ => {}
        }
        match api::dispatch(self, now, &request) {
            Outcome::Done(chunks) => self.set_answer(ticket, Some(chunks)),
            Outcome::Nothing => self.set_answer(ticket, None),
            Outcome::Pending => {}
            Outcome::Close(why) => self.close(ticket.conn, why),
        }
    }

    /// Sets the answer of a request that was pending, and goes on with its connection.
    pub(crate) fn respond(&mut self, head: Head, chunks: Option<Vec<Chunk>>) {
        self.respond_to(head.ticket, chunks);
    }

    /// The same, for whatever protocol.
    pub(crate) fn respond_to(&mut self, ticket: Ticket, chunks: Option<Vec<Chunk>>) {
        self.set_answer(ticket, chunks);
        self.ready.push(ticket.conn);
    }

    pub(crate) fn set_answer(&mut self, ticket: Ticket, chunks: Option<Vec<Chunk>>) {
        match self.connections.get_mut(&ticket.conn) {
            Some(connection) => {
                let before = connection.held_bytes();
                connection.answer(ticket.sequence, chunks);
                self.answers_bytes += connection.held_bytes() - before;
            }
            None => self.release(chunks.into_iter().flatten()),
        }
    }

    pub(crate) fn send_answers(&mut self, now: Now, conn: ConnId) {
        while let Some(connection) = self.connections.get_mut(&conn)
            && let Some(chunks) = connection.next_answer(now.monotonic_us)
        {
            let bytes: usize = chunks.iter().map(|chunk| chunk.len()).sum();
            self.metrics.sent_bytes += bytes as u64;
            self.actions.push_back(Action::Send { conn, chunks });
        }
    }

    /// Goes on with the connections that have got answers, and closes those that are to be closed
    /// after what they were answered.
    pub(crate) fn advance_ready(&mut self, now: Now) {
        loop {
            if let Some(conn) = self.ready.pop() {
                self.advance(now, conn);
            } else if let Some(subscription) = self.native.ready.pop_front() {
                native::subscribe::advance(self, now, subscription);
            } else {
                break;
            }
        }
        while let Some(conn) = self.closing.pop() {
            self.send_answers(now, conn);
            self.actions.push_back(Action::Close { conn });
        }
    }

    pub(crate) fn on_sent(&mut self, now: Now, conn: ConnId, released: Vec<Chunk>) {
        self.release(released);
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.active_us = now.monotonic_us;
            if let Some(sent) = connection.on_sent() {
                self.answers_bytes -= sent.bytes;
                let us = now.monotonic_us.saturating_sub(sent.given_us);
                match sent.overlap {
                    Overlap::Produce => self.metrics.on_produce_stage(Stage::Respond, us),
                    Overlap::Fetch => self.metrics.on_fetch_stage(Stage::Respond, us),
                    Overlap::Barrier => {}
                }
            }
            self.advance(now, conn);
            native::subscribe::wake(self, conn);
        }
    }

    /// Closes a connection after what was answered has been sent.
    pub(crate) fn close(&mut self, conn: ConnId, why: &str) {
        if let Some(connection) = self.connections.get_mut(&conn)
            && !connection.is_closing()
        {
            tracing::debug!(peer = %connection.peer, why, "closing a connection");
            connection.begin_close();
            self.closing.push(conn);
        }
    }

    pub(crate) fn on_bad_frame(&mut self, conn: ConnId, size_bytes: i64) {
        self.metrics.malformed_requests += 1;
        let why = format!("a request of {size_bytes} bytes is not allowed");
        self.close(conn, &why);
    }

    pub(crate) fn on_closed(&mut self, conn: ConnId) {
        let Some(mut connection) = self.connections.remove(&conn) else {
            return;
        };
        self.answers_bytes -= connection.held_bytes();
        let idle = connection.is_idle() && !connection.has_subscriptions();
        native::forget(self, &connection);
        let unsent = connection.take_answers();
        self.release(unsent);
        if !idle {
            let parked: Vec<_> = self
                .fetches
                .iter()
                .filter(|(_, state)| state.reply.conn() == conn)
                .map(|(key, _)| *key)
                .collect();
            for key in parked {
                self.abandon_fetch(key);
            }
        }
    }

    /// Closes connections that have been idle for longer than `connections.max.idle.ms`.
    pub(crate) fn close_idle(&mut self, now: Now) {
        let Ok(idle_ms) = u64::try_from(self.config.broker.connections_idle_ms_max) else {
            return;
        };
        let limit_us = idle_ms.saturating_mul(1000);
        let idle: Vec<ConnId> = self
            .connections
            .iter()
            .filter(|(_, connection)| {
                connection.is_idle()
                    && !connection.has_subscriptions()
                    && now.monotonic_us.saturating_sub(connection.active_us) > limit_us
            })
            .map(|(conn, _)| *conn)
            .collect();
        for conn in idle {
            self.close(conn, "idle for too long");
        }
    }
}
