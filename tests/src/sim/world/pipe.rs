//! Clients' connections as pipes of whole requests and answers, as a client sees them. Knows no request and
//! no answer.

use std::collections::VecDeque;

use engine::event::{ConnId, Event};
use ring::buf::Chunk;

use super::World;

/// A client's connection.
pub(super) struct Pipe {
    pub core: usize,
    /// Requests on their way, without size prefix.
    pub requests: VecDeque<Vec<u8>>,
    /// Answers that the kernel takes one after another.
    pub sends: VecDeque<Vec<Chunk>>,
    pub received: Vec<u8>,
    pub paused: bool,
    /// The shard wants it closed after what it sends.
    pub closing: bool,
    /// The client is gone.
    pub broken: bool,
}

impl World {
    /// Opens a connection to a core.
    pub fn connect(&mut self, core: usize) -> Result<ConnId, String> {
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        self.pipes.insert(
            conn,
            Pipe {
                core,
                requests: VecDeque::new(),
                sends: VecDeque::new(),
                received: Vec::new(),
                paused: false,
                closing: false,
                broken: false,
            },
        );
        let peer = ([127, 0, 0, 1], 40_000).into();
        let listener = 0;
        self.tell(
            core,
            Event::Accepted {
                conn,
                listener,
                peer,
            },
        )?;
        Ok(conn)
    }

    /// Sends a request; it arrives later.
    pub fn send(&mut self, conn: ConnId, request: Vec<u8>) {
        if let Some(pipe) = self.pipes.get_mut(&conn) {
            pipe.requests.push_back(request);
        }
    }

    /// The client goes away; what it had asked may still be done.
    pub fn disconnect(&mut self, conn: ConnId) {
        if let Some(pipe) = self.pipes.get_mut(&conn) {
            pipe.broken = true;
            pipe.requests.clear();
            pipe.received.clear();
        }
    }

    /// Whether a connection is open as its client sees it.
    pub fn is_open(&self, conn: ConnId) -> bool {
        self.pipes.get(&conn).is_some_and(|pipe| !pipe.broken)
    }

    /// The next whole answer on a connection, without its size.
    pub fn answer(&mut self, conn: ConnId) -> Option<Vec<u8>> {
        let received = &mut self.pipes.get_mut(&conn)?.received;
        let size = i32::from_be_bytes(*received.first_chunk::<4>()?);
        let end = 4 + usize::try_from(size).ok()?;
        if received.len() < end {
            return None;
        }
        let answer = received[4..end].to_vec();
        received.drain(..end);
        Some(answer)
    }
}
