//! The client over any runtime: streams have the traits of `futures-io`, time is the caller's. Its futures
//! run wherever they are polled; knows no executor.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};

use crate::metadata::{self, Topic};
use crate::{
    Consumer, Delivery, Error, Greeting, Link, Outcome, Position, Producer, ProducerConfig,
    TopicId, Window,
};

/// The time of the caller's runtime.
pub trait Timer {
    /// Ends at its time.
    type Sleep: Future<Output = ()> + Unpin;
    /// Monotonic microseconds since any moment.
    fn monotonic_us(&self) -> u64;
    /// Milliseconds since 1970.
    fn wall_ms(&self) -> i64;
    /// Sleeps for so many microseconds.
    fn sleep_us(&self, us: u64) -> Self::Sleep;
}

/// A connection to a broker over the caller's stream.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    link: Link,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Negotiates over a stream that is connected, whatever it is made of: over TCP best without Nagle's
    /// delay, on the broker's own machine best a Unix stream to its `native.unix.socket`.
    ///
    /// # Errors
    /// The stream's, or the broker speaks no version that this client speaks.
    pub async fn open(stream: S, greeting: impl Into<Greeting>) -> Result<Client<S>, Error> {
        let mut client = Client {
            stream,
            link: Link::new(&greeting.into()),
        };
        while !client.link.is_open() {
            client.exchange().await?;
            client.link.next_frame()?;
        }
        Ok(client)
    }

    /// A topic by name, created on request where the broker allows that.
    ///
    /// # Errors
    /// The topic's error, or the connection's.
    pub async fn topic(&mut self, name: &str, create: bool) -> Result<Topic, Error> {
        let id = metadata::ask(&mut self.link, name, create);
        loop {
            while let Some(received) = self.link.next_frame()? {
                if received.correlation_id == id {
                    return metadata::topic_of(self.link.frame());
                }
            }
            self.exchange().await?;
        }
    }

    /// A producer that has this connection to itself.
    pub fn producer<T: Timer>(self, config: ProducerConfig, timer: T) -> AsyncProducer<S, T> {
        AsyncProducer {
            client: self,
            producer: Producer::new(config),
            timer,
        }
    }

    /// A consumer of these partitions (topic, partition, first offset) that has this connection to itself.
    pub fn consumer(
        mut self,
        partitions: Vec<(TopicId, i32, i64)>,
        window: Window,
    ) -> AsyncConsumer<S> {
        let positions = partitions
            .into_iter()
            .map(|(topic_id, partition, offset)| Position {
                topic_id,
                partition,
                offset,
            })
            .collect();
        let mut consumer = Consumer::new(positions, window);
        consumer.subscribe(&mut self.link);
        AsyncConsumer {
            client: self,
            consumer,
        }
    }

    /// Sends what there is, until something was received, or all was sent.
    async fn exchange(&mut self) -> Result<(), Error> {
        poll_fn(|context| self.poll_exchange(context)).await
    }

    fn poll_exchange(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let had_output = !self.link.output().is_empty();
        while !self.link.output().is_empty() {
            let output = self.link.output();
            match Pin::new(&mut self.stream).poll_write(context, output) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(io::Error::from(ErrorKind::WriteZero).into()));
                }
                Poll::Ready(Ok(bytes)) => self.link.on_written(bytes),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => break,
            }
        }
        if self.link.output().is_empty()
            && let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_flush(context)
        {
            return Poll::Ready(Err(error.into()));
        }
        let input = self.link.input();
        match Pin::new(&mut self.stream).poll_read(context, input) {
            Poll::Ready(Ok(0)) => {
                Poll::Ready(Err(io::Error::from(ErrorKind::UnexpectedEof).into()))
            }
            Poll::Ready(Ok(bytes)) => {
                self.link.on_read(bytes);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            // Who has sent the last of it may wait for nothing more: without acks there are no answers.
            Poll::Pending if had_output && self.link.output().is_empty() => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A producer on the caller's runtime. Records are sent while one of its futures is polled. It holds no more
/// than [`ProducerConfig::buffer_bytes`] of them; outcomes wait until they are asked for.
#[derive(Debug)]
pub struct AsyncProducer<S, T> {
    client: Client<S>,
    producer: Producer,
    timer: T,
}

impl<S: AsyncRead + AsyncWrite + Unpin, T: Timer> AsyncProducer<S, T> {
    /// Takes a record; gives its number within its partition. `None`: there is no room for it, and it was not
    /// taken.
    pub fn try_append(
        &mut self,
        topic_id: TopicId,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Option<u64> {
        let bytes = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        if !self.producer.has_room(bytes, &self.client.link) {
            return None;
        }
        let (now_us, wall_ms) = (self.timer.monotonic_us(), self.timer.wall_ms());
        let producer = &mut self.producer;
        Some(producer.append(now_us, topic_id, partition, wall_ms, key, value))
    }

    /// Takes a record; gives its number within its partition. Waits while there is no room, and sends
    /// meanwhile. Dropped before its end, it has not taken the record.
    ///
    /// # Errors
    /// As [`AsyncProducer::next_outcome`]; the record was not taken.
    pub async fn append(
        &mut self,
        topic_id: TopicId,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<u64, Error> {
        loop {
            if let Some(record) = self.try_append(topic_id, partition, key, value) {
                return Ok(record);
            }
            // Who waits for room waits for no company: half-full batches go too.
            self.step(true).await?;
        }
    }

    /// The outcome of the next batch: sends, and waits for its answer. `None` if nothing is open.
    ///
    /// # Errors
    /// The connection's; what is open then goes again after [`AsyncProducer::resume`].
    pub async fn next_outcome(&mut self) -> Result<Option<Outcome>, Error> {
        self.drive(false).await
    }

    /// Waits until everything that was taken has its outcome; gives the first that failed.
    ///
    /// # Errors
    /// As [`AsyncProducer::next_outcome`].
    pub async fn flush(&mut self) -> Result<Option<Outcome>, Error> {
        let mut failed = None;
        while let Some(outcome) = self.drive(true).await? {
            if outcome.result.is_err() && failed.is_none() {
                failed = Some(outcome);
            }
        }
        Ok(failed)
    }

    /// Goes on over another stream, after the connection was lost.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub async fn resume(&mut self, stream: S, greeting: impl Into<Greeting>) -> Result<(), Error> {
        self.producer.on_disconnected();
        self.client = Client::open(stream, greeting).await?;
        Ok(())
    }

    async fn drive(&mut self, flush: bool) -> Result<Option<Outcome>, Error> {
        loop {
            self.take_frames()?;
            // Without answers a record is delivered when it is sent: not before.
            let unsent = flush && !self.client.link.output().is_empty();
            if !unsent && let Some(outcome) = self.producer.next_outcome() {
                return Ok(Some(outcome));
            }
            if !unsent && self.producer.is_idle() {
                return Ok(None);
            }
            self.step(flush).await?;
        }
    }

    fn take_frames(&mut self) -> Result<(), Error> {
        while self.client.link.next_frame()?.is_some() {
            let now_us = self.timer.monotonic_us();
            self.producer.on_frame(now_us, self.client.link.frame())?;
        }
        Ok(())
    }

    /// Sends what is due, until something was received or sent, or the next batch is due.
    async fn step(&mut self, flush: bool) -> Result<(), Error> {
        self.take_frames()?;
        let now_us = self.timer.monotonic_us();
        self.producer.advance(now_us, flush, &mut self.client.link);
        let due_us = self.producer.next_deadline_us();
        let mut sleep = due_us.map(|due_us| self.timer.sleep_us(due_us.saturating_sub(now_us)));
        let client = &mut self.client;
        poll_fn(|context| {
            if let Poll::Ready(done) = client.poll_exchange(context) {
                return Poll::Ready(done);
            }
            match sleep.as_mut().map(|sleep| Pin::new(sleep).poll(context)) {
                Some(Poll::Ready(())) => Poll::Ready(Ok(())),
                Some(Poll::Pending) | None => Poll::Pending,
            }
        })
        .await?;
        self.take_frames()
    }
}

/// A consumer on the caller's runtime.
#[derive(Debug)]
pub struct AsyncConsumer<S> {
    client: Client<S>,
    consumer: Consumer,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncConsumer<S> {
    /// The next delivery. Its batches lie where they were received, until the next call.
    ///
    /// # Errors
    /// The subscription's, or the connection's.
    pub async fn next(&mut self) -> Result<Delivery<'_>, Error> {
        self.consumer.give_back(&mut self.client.link);
        loop {
            let mut found = false;
            while !found && self.client.link.next_frame()?.is_some() {
                found = self.consumer.on_frame(self.client.link.frame())?;
            }
            if found {
                break;
            }
            self.client.exchange().await?;
        }
        self.consumer.delivery(self.client.link.frame())
    }

    /// Goes on over another stream, behind what was delivered.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub async fn resume(&mut self, stream: S, greeting: impl Into<Greeting>) -> Result<(), Error> {
        self.client = Client::open(stream, greeting).await?;
        self.consumer.subscribe(&mut self.client.link);
        Ok(())
    }

    /// Where it is.
    pub fn positions(&self) -> &[Position] {
        self.consumer.positions()
    }
}

#[cfg(test)]
mod tests;
