//! The bare loop itself: epoll, receive, serve, one flush, send. One thread; knows frames, and leaves what is in them to `produce`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;

use super::Journal;
use super::produce::{Offsets, Refusal, serve};
use crate::Failure;

/// Events taken in one turn.
const EVENTS_MAX: usize = 1024;
/// What a connection's buffer holds at first; it grows to the size of its requests.
const INPUT_BYTES: usize = 128 << 10;
/// The largest request, in bytes.
const REQUEST_BYTES_MAX: usize = 8 << 20;
/// The name of the listener among the connections' indices.
const LISTENER: u64 = u64::MAX;
/// How often a loop without work looks whether it shall stop.
const STOP_LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    /// Received bytes: `input[..filled]`, all of a request that is not whole yet.
    input: Vec<u8>,
    filled: usize,
    /// Answers that are not sent yet.
    output: Vec<u8>,
    waits_for_room: bool,
}

/// The bare loop.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    local: SocketAddr,
    epoll: OwnedFd,
    connections: Vec<Option<Connection>>,
    journal: Journal,
    offsets: Offsets,
    spin: bool,
    /// Connections with answers to send when the journal is flushed.
    answered: Vec<usize>,
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// If the address is taken.
    pub fn bind(address: SocketAddr, journal: Journal, spin: bool) -> Result<Server, Failure> {
        let listener = TcpListener::bind(address)
            .map_err(|error| Failure(format!("cannot listen on {address}: {error}")))?;
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        epoll::add(
            &epoll,
            &listener,
            EventData::new_u64(LISTENER),
            EventFlags::IN,
        )
        .map_err(io::Error::from)?;
        Ok(Server {
            local: listener.local_addr()?,
            listener,
            epoll,
            connections: Vec::new(),
            journal,
            offsets: Offsets::default(),
            spin,
            answered: Vec::new(),
        })
    }

    /// The address it listens on, with the port that it got.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Serves until told to stop.
    ///
    /// # Errors
    /// If the journal fails: nothing can be promised any more.
    pub fn serve(&mut self, stop: &AtomicBool) -> Result<(), Failure> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
        while !stop.load(Ordering::Relaxed) {
            events.clear();
            let timeout = if self.spin { &AT_ONCE } else { &STOP_LOOK };
            let room = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, room, Some(timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
            for &Event { flags, data, .. } in &events {
                if data.u64() == LISTENER {
                    self.accept()?;
                    continue;
                }
                let index = data.u64() as usize;
                if flags.contains(EventFlags::OUT) {
                    self.send(index)?;
                }
                if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                    self.receive(index)?;
                }
            }
            self.journal.flush()?;
            let mut answered = std::mem::take(&mut self.answered);
            for index in answered.drain(..) {
                self.send(index)?;
            }
            self.answered = answered;
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<(), Failure> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error.into()),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let free = self.connections.iter().position(Option::is_none);
            let index = free.unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            epoll::add(
                &self.epoll,
                &stream,
                EventData::new_u64(index as u64),
                EventFlags::IN,
            )
            .map_err(io::Error::from)?;
            self.connections[index] = Some(Connection {
                stream,
                input: vec![0; INPUT_BYTES],
                filled: 0,
                output: Vec::new(),
                waits_for_room: false,
            });
        }
    }

    /// Receives what is there, once, and serves the whole requests in it.
    fn receive(&mut self, index: usize) -> Result<(), Failure> {
        let Some(connection) = &mut self.connections[index] else {
            return Ok(());
        };
        match (&connection.stream).read(&mut connection.input[connection.filled..]) {
            Ok(0) => self.connections[index] = None,
            Ok(bytes) => {
                connection.filled += bytes;
                let was_empty = connection.output.is_empty();
                let served = requests(connection, &mut self.journal, &mut self.offsets);
                if was_empty && !connection.output.is_empty() {
                    self.answered.push(index);
                }
                match served {
                    Ok(()) => {}
                    Err(refusal @ Refusal::Journal(_)) => return Err(Failure(refusal.to_string())),
                    Err(refusal) => {
                        eprintln!("a connection is closed: {refusal}");
                        self.connections[index] = None;
                    }
                }
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.connections[index] = None,
        }
        Ok(())
    }

    /// Sends a connection's answers, all at once; what finds no room waits for it.
    fn send(&mut self, index: usize) -> Result<(), Failure> {
        let Some(connection) = &mut self.connections[index] else {
            return Ok(());
        };
        while !connection.output.is_empty() {
            match (&connection.stream).write(&connection.output) {
                Ok(bytes) if bytes == connection.output.len() => connection.output.clear(),
                Ok(bytes) => drop(connection.output.drain(..bytes)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.connections[index] = None;
                    return Ok(());
                }
            }
        }
        let waits_for_room = !connection.output.is_empty();
        if waits_for_room != connection.waits_for_room {
            connection.waits_for_room = waits_for_room;
            let mut flags = EventFlags::IN;
            flags.set(EventFlags::OUT, waits_for_room);
            let data = EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &connection.stream, data, flags).map_err(io::Error::from)?;
        }
        Ok(())
    }
}

/// Serves the whole requests of a connection's input and moves the rest to its front.
fn requests(
    connection: &mut Connection,
    journal: &mut Journal,
    offsets: &mut Offsets,
) -> Result<(), Refusal> {
    let input = &connection.input[..connection.filled];
    let mut used = 0;
    while let Some(size) = input[used..].first_chunk::<4>() {
        let size = u32::from_be_bytes(*size) as usize;
        if size > REQUEST_BYTES_MAX {
            return Err(Refusal::Malformed);
        }
        let Some(request) = input[used + 4..].get(..size) else {
            break;
        };
        serve(request, journal, offsets, &mut connection.output)?;
        used += 4 + size;
    }
    let wanted = match connection.input[used..connection.filled].first_chunk::<4>() {
        Some(size) => 4 + u32::from_be_bytes(*size) as usize,
        None => 0,
    };
    if used > 0 {
        connection.input.copy_within(used..connection.filled, 0);
        connection.filled -= used;
    }
    if wanted > connection.input.len() {
        connection.input.resize(wanted, 0);
    }
    Ok(())
}
