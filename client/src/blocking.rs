//! The client over `std::net`, or a Unix socket, for programs without a runtime. Lives on the caller's thread and blocks it.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::metadata::{self, Topic};
use crate::stream::Stream;
use crate::{
    Consumer, Delivery, Error, Greeting, Link, Outcome, Position, Producer, ProducerConfig,
    Received, TopicId, Window,
};

/// The pause before a lost connection is tried again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// A connection to a broker.
#[derive(Debug)]
pub struct Client {
    address: String,
    greeting: Greeting,
    stream: Stream,
    /// What the stream was told last.
    read_timeout: Option<Duration>,
    link: Link,
}

impl Client {
    /// Connects to `host:port`, or on the broker's own machine to its Unix socket at `unix:/path`, and
    /// negotiates. The greeting is a name for the broker's log, or more. After a loss it is the same address again, for
    /// everything: what brokers tell about their addresses is not looked at.
    ///
    /// # Errors
    /// The broker cannot be reached, or speaks no version that this client speaks.
    pub fn connect(address: &str, greeting: impl Into<Greeting>) -> Result<Client, Error> {
        let greeting = greeting.into();
        let stream = Stream::connect(address, None)?;
        let mut client = Client {
            address: address.to_owned(),
            link: Link::new(&greeting),
            greeting,
            stream,
            read_timeout: None,
        };
        while !client.link.is_open() {
            client.write_all()?;
            client.read(None)?;
            client.link.next_frame()?;
        }
        Ok(client)
    }

    fn reconnect(&mut self) -> Result<(), Error> {
        *self = Client::connect(&self.address, self.greeting.clone())?;
        Ok(())
    }

    /// A topic by name, created on request where the broker allows that.
    ///
    /// # Errors
    /// The topic's error, or the connection's.
    pub fn topic(&mut self, name: &str, create: bool) -> Result<Topic, Error> {
        let id = metadata::ask(&mut self.link, name, create);
        self.write_all()?;
        loop {
            let received = self.receive()?;
            if received.correlation_id == id {
                return metadata::topic_of(self.link.frame());
            }
        }
    }

    /// Offsets of partitions of a topic by time, as the protocol's `Offsets` answers them: -1 asks for the end
    /// (the high watermark), -2 for the first offset. In the order of the partitions.
    ///
    /// # Errors
    /// The first partition's error, or the connection's.
    pub fn offsets(
        &mut self,
        topic_id: TopicId,
        partitions: impl IntoIterator<Item = i32>,
        at: i64,
    ) -> Result<Vec<i64>, Error> {
        let id = metadata::ask_offsets(&mut self.link, topic_id, partitions, at);
        self.write_all()?;
        loop {
            let received = self.receive()?;
            if received.correlation_id == id {
                return metadata::offsets_of(self.link.frame());
            }
        }
    }

    /// A producer that has this connection to itself.
    pub fn producer(self, config: ProducerConfig) -> BlockingProducer {
        BlockingProducer {
            client: self,
            producer: Producer::new(config),
            began: now(),
        }
    }

    /// A consumer of these partitions (topic, partition, first offset) that has this connection to itself.
    ///
    /// # Errors
    /// The connection's.
    pub fn consumer(
        mut self,
        partitions: Vec<(TopicId, i32, i64)>,
        window: Window,
    ) -> Result<BlockingConsumer, Error> {
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
        self.write_all()?;
        Ok(BlockingConsumer {
            client: self,
            consumer,
        })
    }

    fn write_all(&mut self) -> Result<(), Error> {
        while !self.link.output().is_empty() {
            let bytes = self.stream.write(self.link.output())?;
            if bytes == 0 {
                return Err(io::Error::from(ErrorKind::WriteZero).into());
            }
            self.link.on_written(bytes);
        }
        Ok(())
    }

    /// Receives what is there.
    fn read_ready(&mut self) -> Result<bool, Error> {
        self.stream.set_nonblocking(true)?;
        let read = self.read_once();
        self.stream.set_nonblocking(false)?;
        read
    }

    /// Receives something; false if nothing came in time.
    fn read(&mut self, wait: Option<Duration>) -> Result<bool, Error> {
        if wait != self.read_timeout {
            self.stream.set_read_timeout(wait)?;
            self.read_timeout = wait;
        }
        self.read_once()
    }

    fn read_once(&mut self) -> Result<bool, Error> {
        match self.stream.read(self.link.input()) {
            Ok(0) => Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
            Ok(bytes) => {
                self.link.on_read(bytes);
                Ok(true)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn receive(&mut self) -> Result<Received, Error> {
        loop {
            if let Some(received) = self.link.next_frame()? {
                return Ok(received);
            }
            self.read(None)?;
        }
    }
}

/// A producer on the caller's thread.
///
/// ```no_run
/// use millrace_client::blocking::Client;
/// use millrace_client::ProducerConfig;
///
/// # fn main() -> Result<(), millrace_client::Error> {
/// let mut client = Client::connect("127.0.0.1:9192", "example")?;
/// let topic = client.topic("orders", true)?;
/// let mut producer = client.producer(ProducerConfig { linger_us: 1000, ..Default::default() });
/// for number in 0..1000_u32 {
///     producer.send(topic.id, 0, None, Some(&number.to_be_bytes()))?;
/// }
/// producer.flush()?;
/// while let Some(outcome) = producer.next_outcome() {
///     println!("{} records: {:?}", outcome.count, outcome.result);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BlockingProducer {
    client: Client,
    producer: Producer,
    began: Instant,
}

impl BlockingProducer {
    /// Takes a record; gives its number within its partition. Blocks only while
    /// [`ProducerConfig::buffer_bytes`] are held.
    ///
    /// # Errors
    /// The connection is lost and cannot be made again; the record was not taken.
    pub fn send(
        &mut self,
        topic_id: TopicId,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<u64, Error> {
        let bytes = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        while !self.producer.has_room(bytes, &self.client.link) {
            // Who waits for room waits for no company: half-full batches go too.
            self.drive(true, Some(Duration::from_millis(100)))?;
        }
        let sealed = self.producer.sealed_count();
        let now_us = self.now_us();
        let record = self
            .producer
            .append(now_us, topic_id, partition, wall_ms(), key, value);
        // A system call for each batch, not for each record.
        let due = self.producer.next_deadline_us();
        if self.producer.sealed_count() > sealed || due.is_some_and(|due_us| due_us <= now_us) {
            self.drive(false, Some(Duration::ZERO))?;
        }
        Ok(record)
    }

    /// Waits until everything that was taken has its outcome.
    ///
    /// # Errors
    /// As [`BlockingProducer::send`].
    pub fn flush(&mut self) -> Result<(), Error> {
        while !self.producer.is_idle() {
            self.drive(true, Some(Duration::from_millis(100)))?;
        }
        Ok(())
    }

    /// Sends what is due and takes what has come, for no longer than `wait`.
    ///
    /// # Errors
    /// As [`BlockingProducer::send`].
    pub fn poll(&mut self, wait: Duration) -> Result<(), Error> {
        self.drive(false, Some(wait))
    }

    /// Whether everything that was taken has its outcome.
    pub fn is_idle(&self) -> bool {
        self.producer.is_idle()
    }

    /// As [`Producer::sealed_count`]: who has no key may go to another partition with each batch.
    pub fn sealed_count(&self) -> u64 {
        self.producer.sealed_count()
    }

    /// What became of batches.
    pub fn next_outcome(&mut self) -> Option<Outcome> {
        self.producer.next_outcome()
    }

    fn drive(&mut self, flush: bool, wait: Option<Duration>) -> Result<(), Error> {
        match self.try_drive(flush, wait) {
            Err(Error::Io(_)) => {
                self.producer.on_disconnected();
                if self.client.reconnect().is_err() {
                    std::thread::sleep(RECONNECT_PAUSE);
                    self.client.reconnect()?;
                }
                Ok(())
            }
            done => done,
        }
    }

    fn try_drive(&mut self, flush: bool, wait: Option<Duration>) -> Result<(), Error> {
        let now_us = self.now_us();
        self.producer.advance(now_us, flush, &mut self.client.link);
        self.client.write_all()?;
        if let Some(wait) = wait {
            let due_us = self.producer.next_deadline_us();
            let left = due_us.map(|due_us| Duration::from_micros(due_us.saturating_sub(now_us)));
            let wait = left.map_or(wait, |left| left.min(wait));
            if wait.is_zero() {
                self.client.read_ready()?;
            } else {
                self.client.read(Some(wait.max(Duration::from_millis(1))))?;
            }
        }
        while self.client.link.next_frame()?.is_some() {
            let now_us = self.now_us();
            self.producer.on_frame(now_us, self.client.link.frame())?;
        }
        let now_us = self.now_us();
        self.producer.advance(now_us, flush, &mut self.client.link);
        self.client.write_all()
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// A consumer on the caller's thread.
#[derive(Debug)]
pub struct BlockingConsumer {
    client: Client,
    consumer: Consumer,
}

impl BlockingConsumer {
    /// Waits for the next delivery. Its batches lie where they were received, until the next call.
    ///
    /// # Errors
    /// The subscription's, or the connection's. [`BlockingConsumer::resume`] goes on after a lost one.
    #[allow(clippy::should_implement_trait)] // what it gives borrows from it, which no iterator can
    pub fn next(&mut self) -> Result<Delivery<'_>, Error> {
        self.consumer.give_back(&mut self.client.link);
        self.client.write_all()?;
        loop {
            self.client.receive()?;
            if self.consumer.on_frame(self.client.link.frame())? {
                break;
            }
        }
        self.consumer.delivery(self.client.link.frame())
    }

    /// Connects again and goes on behind what was delivered.
    ///
    /// # Errors
    /// The connection's.
    pub fn resume(&mut self) -> Result<(), Error> {
        self.client.reconnect()?;
        self.consumer.subscribe(&mut self.client.link);
        self.client.write_all()
    }

    /// As [`BlockingConsumer::next`], for no longer than `wait`; `None` if nothing was delivered.
    ///
    /// # Errors
    /// As [`BlockingConsumer::next`].
    pub fn next_within(&mut self, wait: Duration) -> Result<Option<Delivery<'_>>, Error> {
        self.consumer.give_back(&mut self.client.link);
        self.client.write_all()?;
        let until = now() + wait;
        loop {
            while self.client.link.next_frame()?.is_some() {
                if self.consumer.on_frame(self.client.link.frame())? {
                    return self.consumer.delivery(self.client.link.frame()).map(Some);
                }
            }
            let left = until.saturating_duration_since(now());
            if left.is_zero() {
                return Ok(None);
            }
            self.client.read(Some(left.max(Duration::from_millis(1))))?;
        }
    }

    /// Where it is.
    pub fn positions(&self) -> &[Position] {
        self.consumer.positions()
    }
}

#[allow(clippy::disallowed_methods)] // a client on a thread of its own reads the clock
fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods)] // as `now`
fn wall_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}
