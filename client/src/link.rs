//! One connection without its socket: what is to be sent, and frames out of what was received. Lives with
//! the client; knows no request's meaning but the negotiation's.
//!
//! Received bytes stay where they were received: a frame is lent out of the receive buffer until the next
//! is asked for. Only the beginning of a frame that straddles the buffer's end is moved. The buffer
//! grows with what has arrived, never by what a header claims.

use std::ops::Range;

use net::kafka::error::ErrorCode;
use net::native::frame::{BodySerializer, encode_into};
use net::native::hello::{
    ArchivedHelloAnswer, ArchivedRefusal, FEATURE_IDLE_POLL, FEATURE_SUBSCRIBE, Hello,
};
use net::native::{
    Fault, Frame, HEADER_BYTES, Kind, VERSION_HELLO, VERSION_MAX, VERSION_MIN, decode, frame_bytes,
    read,
};
use rkyv::Serialize;

use crate::Error;

/// The receive buffer at first, in bytes: many small answers fit.
const BUFFER_BYTES_FIRST: usize = 64 << 10;

/// The largest frame that is taken from a broker, in bytes: more than any answer to what this client asks.
const FRAME_BYTES_MAX: usize = 256 << 20;

/// A frame that has arrived; its bytes are [`Link::frame`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// What it is.
    pub kind: Kind,
    /// The request that it answers, or the subscription that it belongs to.
    pub correlation_id: u64,
}

/// What a client says of itself when it connects; a name alone makes one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// A name for the broker's log.
    pub software: String,
    /// Asks the broker's core that serves the connection to look for work for a while before it sleeps
    /// (`native.idle.poll.us`): answers come earlier where little is under way, and the core takes more of its
    /// processor. For clients that have a processor of their own.
    pub idle_poll: bool,
}

impl From<&str> for Greeting {
    fn from(software: &str) -> Greeting {
        Greeting {
            software: software.to_owned(),
            idle_poll: false,
        }
    }
}

/// A connection without its socket.
#[derive(Debug)]
pub struct Link {
    out: Vec<u8>,
    written: usize,
    buffer: Vec<u8>,
    /// Where received bytes begin that were not handed over.
    start: usize,
    /// Where they end.
    end: usize,
    current: Range<usize>,
    next_id: u64,
    version: Option<u8>,
}

impl Link {
    /// A fresh connection; its greeting is the first output.
    pub fn new(greeting: &Greeting) -> Link {
        let mut link = Link {
            out: Vec::new(),
            written: 0,
            buffer: vec![0; BUFFER_BYTES_FIRST],
            start: 0,
            end: 0,
            current: 0..0,
            next_id: 1,
            version: None,
        };
        let hello = Hello {
            software: greeting.software.as_bytes().to_vec(),
            features: if greeting.idle_poll {
                FEATURE_SUBSCRIBE | FEATURE_IDLE_POLL
            } else {
                FEATURE_SUBSCRIBE
            },
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
        };
        encode_into(&mut link.out, VERSION_HELLO, Kind::Hello, 0, 0, &hello, 0);
        link
    }

    /// Whether a version is negotiated: before that nothing is to be asked.
    pub fn is_open(&self) -> bool {
        self.version.is_some()
    }

    /// The version that was negotiated.
    pub fn version(&self) -> Option<u8> {
        self.version
    }

    /// Queues a request; gives its correlation id.
    ///
    /// # Panics
    /// If the connection [is not open](Link::is_open).
    pub fn request<'r, T>(
        &mut self,
        kind: Kind,
        body: &T,
        records: impl IntoIterator<Item = &'r [u8]>,
    ) -> u64
    where
        T: for<'a> Serialize<BodySerializer<'a>>,
    {
        let version = self.version.expect("a version is negotiated");
        let id = self.next_id;
        self.next_id += 1;
        let records: Vec<&[u8]> = records.into_iter().collect();
        let bytes: usize = records.iter().map(|batch| batch.len()).sum();
        let bytes = u32::try_from(bytes).expect("records of one request below 4 GiB");
        encode_into(&mut self.out, version, kind, 0, id, body, bytes);
        for batch in records {
            self.out.extend_from_slice(batch);
        }
        id
    }

    /// What is to be sent.
    pub fn output(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// So much of it was sent.
    pub fn on_written(&mut self, bytes: usize) {
        self.written += bytes;
        assert!(self.written <= self.out.len(), "sent more than there was");
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
    }

    /// Where to receive; never empty.
    pub fn input(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(self.end * 2, 0);
        }
        self.current = 0..0;
        &mut self.buffer[self.end..]
    }

    /// So much was received into [`Link::input`].
    pub fn on_read(&mut self, bytes: usize) {
        self.end += bytes;
        assert!(self.end <= self.buffer.len(), "received past the buffer");
    }

    /// Goes on to the next whole frame; `None`: receive more. The negotiation is dealt with in here.
    ///
    /// # Errors
    /// The broker's bytes are no frame, or it refused something: the connection is of no use any more.
    pub fn next_frame(&mut self) -> Result<Option<Received>, Error> {
        loop {
            self.current = 0..0;
            let waiting = &self.buffer[self.start..self.end];
            let Some(header) = waiting.first_chunk::<HEADER_BYTES>() else {
                return Ok(None);
            };
            let bytes = frame_bytes(header, FRAME_BYTES_MAX).map_err(|_| Fault::Length)?;
            if waiting.len() < bytes {
                return Ok(None);
            }
            let range = self.start..self.start + bytes;
            self.start = range.end;
            let frame = decode(&self.buffer[range.clone()])?;
            match (frame.kind, self.version) {
                (Kind::HelloAnswer, None) => {
                    let answer = read::<ArchivedHelloAnswer>(frame.body)?;
                    if answer.error.to_native() != 0 {
                        let why = String::from_utf8_lossy(&answer.message).into_owned();
                        return Err(Error::Version(why));
                    }
                    self.version = Some(answer.version);
                }
                (Kind::Refusal, _) => {
                    let refusal = read::<ArchivedRefusal>(frame.body)?;
                    let code = ErrorCode::from_code(refusal.error.to_native())
                        .unwrap_or(ErrorCode::UnknownServerError);
                    let why = String::from_utf8_lossy(&refusal.message).into_owned();
                    return Err(Error::Refused(code, why));
                }
                (kind, Some(version)) if frame.version == version => {
                    let correlation_id = frame.correlation_id;
                    self.current = range;
                    return Ok(Some(Received {
                        kind,
                        correlation_id,
                    }));
                }
                (kind, _) => return Err(Fault::Kind(kind as u8).into()),
            }
        }
    }

    /// The frame that [`Link::next_frame`] gave last.
    ///
    /// # Panics
    /// If it gave none, or something was received since.
    pub fn frame(&self) -> Frame<'_> {
        decode(&self.buffer[self.current.clone()]).expect("a frame that was looked at")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::native::Body;
    use net::native::hello::{ArchivedHello, HelloAnswer};
    use net::native::v1::{OffsetsAnswer, ProducerIdAnswer};

    fn greeting(version: u8, error: i16) -> Vec<u8> {
        let answer = HelloAnswer {
            version,
            error,
            message: b"no".to_vec(),
            ..HelloAnswer::default()
        };
        Body::HelloAnswer(answer).encode(0, 0, 0)
    }

    fn receive(link: &mut Link, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let input = link.input();
            let count = input.len().min(rest.len());
            input[..count].copy_from_slice(&rest[..count]);
            link.on_read(count);
            rest = &rest[count..];
        }
    }

    #[test]
    fn frames_come_out_however_they_arrive() {
        let first = Body::ProducerIdAnswer(ProducerIdAnswer::default()).encode(0, 7, 0);
        let mut second = Body::OffsetsAnswer(OffsetsAnswer::default()).encode(0, 8, 200_000);
        second.extend(vec![9; 200_000]);
        let stream = [greeting(1, 0), first, second].concat();
        for step in [1, 1000, 65_536, stream.len()] {
            let mut link = Link::new(&"test".into());
            let mut found = Vec::new();
            for part in stream.chunks(step) {
                receive(&mut link, part);
                while let Some(received) = link.next_frame().expect("good frames") {
                    found.push((received.correlation_id, link.frame().records.len()));
                }
            }
            assert_eq!(found, [(7, 0), (8, 200_000)], "in steps of {step}");
        }
    }

    #[test]
    fn a_greeting_asks_for_what_the_caller_wants() {
        for (idle_poll, features) in [(false, 1), (true, 3)] {
            let link = Link::new(&Greeting {
                idle_poll,
                ..Greeting::from("test")
            });
            let frame = decode(link.output()).expect("a whole frame");
            let hello = read::<ArchivedHello>(frame.body).expect("a Hello");
            assert_eq!(hello.features.to_native(), features);
            assert_eq!(hello.software.as_slice(), b"test");
        }
    }

    #[test]
    fn a_broker_of_other_versions_is_told_by_its_sentence() {
        let mut link = Link::new(&"test".into());
        receive(&mut link, &greeting(0, 35));
        assert!(matches!(link.next_frame(), Err(Error::Version(why)) if why == "no"));
        assert!(!link.is_open());
    }
}
