//! The asynchronous producer against a broker made by hand, on an executor that only polls.

use std::cell::RefCell;
use std::future::{Ready, ready};
use std::pin::pin;
use std::rc::Rc;
use std::task::Waker;

use net::native::hello::HelloAnswer;
use net::native::v1::{ArchivedProduce, ProduceAnswer, ProduceResult, ProducerIdAnswer};
use net::native::{Body, HEADER_BYTES, Kind, decode, frame_bytes, read};

use super::*;
use crate::Acknowledged;

const TOPIC: TopicId = [7; 16];

/// Both ends of a connection, and the broker behind it.
#[derive(Default)]
struct Broker {
    from_client: Vec<u8>,
    to_client: Vec<u8>,
    /// Bytes that the connection still takes before it is full.
    takes_bytes: usize,
    /// Whether requests are answered.
    answers: bool,
    batches: usize,
    /// Requests without an answer, and their batches.
    unanswered: Vec<(u64, usize)>,
}

impl Broker {
    fn serve(&mut self) {
        while let Some(header) = self.from_client.first_chunk::<HEADER_BYTES>() {
            let length = frame_bytes(header, usize::MAX).expect("a frame");
            if self.from_client.len() < length {
                return;
            }
            let rest = self.from_client.split_off(length);
            let bytes = std::mem::replace(&mut self.from_client, rest);
            let frame = decode(&bytes).expect("a frame");
            let id = frame.correlation_id;
            match frame.kind {
                Kind::Hello => self.say(
                    Body::HelloAnswer(HelloAnswer {
                        version: 1,
                        ..HelloAnswer::default()
                    }),
                    id,
                ),
                Kind::ProducerId => self.say(
                    Body::ProducerIdAnswer(ProducerIdAnswer {
                        producer_id: 1,
                        producer_epoch: 0,
                        error: 0,
                    }),
                    id,
                ),
                Kind::Produce => {
                    let body = read::<ArchivedProduce>(frame.body).expect("a body");
                    self.batches += body.parts.len();
                    if body.acks != 0 {
                        self.unanswered.push((id, body.parts.len()));
                    }
                }
                kind => panic!("a {} was not expected", kind.name()),
            }
        }
        if self.answers {
            for (id, parts) in std::mem::take(&mut self.unanswered) {
                let result = ProduceResult {
                    base_offset: 5,
                    ..ProduceResult::default()
                };
                let answer = ProduceAnswer {
                    results: vec![result; parts],
                    ..ProduceAnswer::default()
                };
                self.say(Body::ProduceAnswer(answer), id);
            }
        }
    }

    fn say(&mut self, body: Body, id: u64) {
        self.to_client.extend(body.encode(0, id, 0));
    }
}

#[derive(Clone)]
struct Stream(Rc<RefCell<Broker>>);

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut broker = self.0.borrow_mut();
        broker.serve();
        if broker.to_client.is_empty() {
            return Poll::Pending;
        }
        let count = buffer.len().min(broker.to_client.len());
        buffer[..count].copy_from_slice(&broker.to_client[..count]);
        broker.to_client.drain(..count);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut broker = self.0.borrow_mut();
        let count = bytes.len().min(broker.takes_bytes);
        if count == 0 {
            return Poll::Pending;
        }
        broker.takes_bytes -= count;
        broker.from_client.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A clock that stands still; what sleeps is through at once.
struct Still;

impl Timer for Still {
    type Sleep = Ready<()>;

    fn monotonic_us(&self) -> u64 {
        0
    }

    fn wall_ms(&self) -> i64 {
        0
    }

    fn sleep_us(&self, _: u64) -> Ready<()> {
        ready(())
    }
}

/// Polls some times; whether it ended.
fn poll_often<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    let mut future = future;
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return Some(done);
        }
    }
    None
}

fn producer(config: ProducerConfig) -> (Rc<RefCell<Broker>>, AsyncProducer<Stream, Still>) {
    let broker = Rc::new(RefCell::new(Broker {
        takes_bytes: usize::MAX,
        ..Broker::default()
    }));
    let opening = Client::open(Stream(Rc::clone(&broker)), "test");
    let client = poll_often(pin!(opening))
        .expect("an answer")
        .expect("a version");
    (broker, client.producer(config, Still))
}

#[test]
fn who_has_no_room_waits_for_it_and_sends_meanwhile() {
    let config = ProducerConfig {
        buffer_bytes: 10_000,
        ..ProducerConfig::default()
    };
    let (broker, mut producer) = producer(config);
    let value = [1; 3000];
    let mut taken = 0;
    while producer.try_append(TOPIC, 0, None, Some(&value)).is_some() {
        taken += 1;
    }
    assert_eq!(taken, 3);
    {
        let mut appending = pin!(producer.append(TOPIC, 0, None, Some(&value)));
        assert!(poll_often(appending.as_mut()).is_none(), "no room");
        assert_eq!(broker.borrow().batches, 1, "what is held was sent");
        broker.borrow_mut().answers = true;
        let record = poll_often(appending).expect("room").expect("a connection");
        assert_eq!(record, 3);
    }
    let failed = poll_often(pin!(producer.flush())).expect("answers");
    assert_eq!(failed.expect("a connection"), None);
    assert_eq!(broker.borrow().batches, 2);
}

#[test]
fn without_acks_a_flush_ends_when_all_is_sent() {
    let config = ProducerConfig {
        acks: Acknowledged::Never,
        ..ProducerConfig::default()
    };
    let (broker, mut producer) = producer(config);
    broker.borrow_mut().takes_bytes = 100;
    assert!(
        producer
            .try_append(TOPIC, 0, None, Some(&[1; 3000]))
            .is_some()
    );
    {
        let mut flushing = pin!(producer.flush());
        assert!(poll_often(flushing.as_mut()).is_none(), "it is not sent");
        broker.borrow_mut().takes_bytes = usize::MAX;
        let failed = poll_often(flushing).expect("the end of it");
        assert_eq!(failed.expect("a connection"), None);
    }
    broker.borrow_mut().serve();
    assert_eq!(broker.borrow().batches, 1);
}
