//! The native protocol through a whole shard of one core: frames as bytes in, frames as bytes out, over a
//! simulated disk. What each byte of a frame means is tested in `net::native`.

use std::path::PathBuf;
use std::sync::Arc;

use net::native::hello::{
    FEATURE_IDLE_POLL, FEATURE_SUBSCRIBE, FEATURES, Hello, HelloAnswer, Refusal,
};
use net::native::v1::{
    ASK_TIME, Fetch, FetchPart, FetchResult, METADATA_CREATE, Metadata, OffsetQuestion, Offsets,
    Produce, ProducePart, ProduceResult, Subscribe, TopicQuery, VERSION,
};
use net::native::{Body, HEADER_BYTES, Header, Kind, VERSION_MAX, VERSION_MIN, decode, encode};
use ring::buf::Shared;
use storage::batch::{Compression, stamp};
use storage::blocking_disk::block_on;
use storage::builder::BatchBuilder;
use storage::sim_disk::SimDisk;
use storage::store::{Store, StoreConfig};
use storage::types::{CoreId, LeaderEpoch, Now, Offset};
use xxhash_rust::xxh3::xxh3_64;

use crate::boot;
use crate::config::BrokerConfig;
use crate::event::{Action, ConnId, ControlReply, Event};
use crate::metadata::MetadataImage;
use crate::native::idle_poll_us;
use crate::shard::{Shard, ShardConfig};

/// The native listener comes behind the one of Kafka's protocol.
const NATIVE_LISTENER: usize = 1;

/// Where a header has its checksum and its kind, in bytes.
const CHECKSUM_BYTES: usize = 8;
const KIND_AT: usize = 13;

const WALL_MS: i64 = 1_700_000_000_000;

/// A shard, its disk and its clock.
struct Broker {
    shard: Shard,
    disk: SimDisk,
    now: Now,
    sent: Vec<(ConnId, Vec<u8>)>,
    closed: Vec<ConnId>,
    ready: bool,
}

/// An answer as it came.
struct Answer {
    kind: Kind,
    version: u8,
    correlation_id: u64,
    body: Body,
    records: Vec<u8>,
}

impl Broker {
    fn start() -> Broker {
        Broker::start_with("")
    }

    fn start_with(settings: &str) -> Broker {
        let settings = format!("log.dirs=/data\nnum.partitions=2\n{settings}");
        let (config, _) = BrokerConfig::from_text(&settings, &[]).expect("good settings");
        let disk = SimDisk::new(1);
        let dirs = vec![PathBuf::from("/data")];
        let image = MetadataImage::new("cluster".to_owned(), config.clone());
        let booted = block_on(boot::boot(&disk, &dirs, 1, image)).expect("an empty disk");
        let epoch = booted.recovered.epoch;
        let mut images = booted.recovered.cores.into_iter();
        let store = Store::new(
            StoreConfig::new(CoreId(0), 1, dirs, epoch, 1, 64 << 20),
            images.next().expect("one core"),
        );
        let shard_config = Arc::new(ShardConfig {
            cores: 1,
            memory_bytes: 64 << 20,
            broker: config,
            seed: 1,
        });
        let now = Now {
            monotonic_us: 1_000_000,
            wall_ms: WALL_MS,
        };
        let mut broker = Broker {
            shard: Shard::new(CoreId(0), shard_config, booted.image, store, now),
            disk,
            now,
            sent: Vec::new(),
            closed: Vec::new(),
            ready: false,
        };
        broker.handle(Event::Tick);
        assert!(broker.ready);
        broker
    }

    /// Lets the shard do everything that can be done now.
    fn handle(&mut self, event: Event) {
        self.shard.handle(self.now, event);
        loop {
            self.shard.handle(self.now, Event::TurnEnd);
            let mut events = Vec::new();
            while let Some(action) = self.shard.poll_action() {
                match action {
                    Action::Send { conn, chunks } => {
                        let bytes = chunks.iter().flat_map(|chunk| chunk.to_vec()).collect();
                        self.sent.push((conn, bytes));
                        let released = chunks;
                        events.push(Event::Sent { conn, released });
                    }
                    Action::Close { conn } => {
                        self.closed.push(conn);
                        events.push(Event::Closed { conn });
                    }
                    Action::DurableWrite(write) => {
                        let (token, result) = block_on(write.run(self.disk.clone()));
                        events.push(Event::JournalWritten { token, result });
                    }
                    Action::Spawn(task) => {
                        events.push(Event::TaskDone(block_on(task.run(self.disk.clone()))));
                    }
                    Action::Control(ControlReply::Ready) => self.ready = true,
                    Action::Control(_) => {}
                    other => panic!("unexpected: {other:?}"),
                }
            }
            if events.is_empty() {
                return;
            }
            for event in events {
                self.shard.handle(self.now, event);
            }
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now.monotonic_us += ms * 1000;
        self.now.wall_ms += ms as i64;
        self.handle(Event::Tick);
    }

    fn connect(&mut self, number: u64) -> ConnId {
        let conn = ConnId(number);
        let peer = "127.0.0.1:5000".parse().expect("an address");
        let listener = NATIVE_LISTENER;
        self.handle(Event::Accepted {
            conn,
            listener,
            peer,
        });
        conn
    }

    fn send(&mut self, conn: ConnId, frame: Vec<u8>) {
        let frame = Shared::from(frame);
        self.handle(Event::Frame { conn, frame });
    }

    /// Everything that a connection was sent, frame by frame.
    fn receive(&mut self, conn: ConnId) -> Vec<Answer> {
        let mut bytes = Vec::new();
        self.sent.retain(|(to, sent)| {
            if *to == conn {
                bytes.extend_from_slice(sent);
            }
            *to != conn
        });
        let mut answers = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let header = Header::from_prefix(rest).expect("a header");
            let (frame, behind) = rest.split_at(header.frame_bytes() as usize);
            let decoded = decode(frame).expect("a good frame");
            answers.push(Answer {
                kind: decoded.kind,
                version: decoded.version,
                correlation_id: decoded.correlation_id,
                body: Body::read(decoded.kind, decoded.body).expect("a good body"),
                records: decoded.records.to_vec(),
            });
            rest = behind;
        }
        answers
    }

    /// The one answer to a question.
    fn ask(&mut self, conn: ConnId, id: u64, body: Body, records: &[u8]) -> Answer {
        let mut frame = body.encode(0, id, records.len() as u32);
        frame.extend_from_slice(records);
        self.send(conn, frame);
        self.only(conn, id)
    }

    fn only(&mut self, conn: ConnId, id: u64) -> Answer {
        let mut answers = self.receive(conn);
        assert_eq!(answers.len(), 1, "one answer");
        let answer = answers.remove(0);
        assert_eq!(answer.correlation_id, id);
        answer
    }

    /// A connection that has agreed on version 1.
    fn open(&mut self, number: u64) -> ConnId {
        let conn = self.connect(number);
        let answer = self.ask(conn, 1, hello(VERSION, VERSION), b"");
        assert!(matches!(
            answer.body,
            Body::HelloAnswer(HelloAnswer { error: 0, .. })
        ));
        conn
    }

    /// Makes a topic; its id, and the leader epoch of its partitions.
    fn create(&mut self, conn: ConnId, name: &str) -> ([u8; 16], i32) {
        let body = Body::Metadata(Metadata {
            topics: vec![TopicQuery {
                name_bytes: name.len() as u32,
                ..TopicQuery::default()
            }],
            texts: name.as_bytes().to_vec(),
            flags: METADATA_CREATE,
        });
        let Body::MetadataAnswer(answer) = self.ask(conn, 2, body, b"").body else {
            panic!("another answer");
        };
        let topic = answer.topics[0];
        assert_eq!((topic.error, topic.partitions_count), (0, 2));
        (topic.topic_id, answer.partitions[0].leader_epoch)
    }

    fn produce(
        &mut self,
        conn: ConnId,
        parts: &[(ProducePart, &[u8])],
        acks: i8,
    ) -> Vec<(i64, i16)> {
        let rows = parts.iter().map(|(part, batch)| ProducePart {
            records_bytes: batch.len() as u32,
            ..*part
        });
        let body = Body::Produce(Produce {
            parts: rows.collect(),
            timeout_ms: 1_000,
            acks,
        });
        let records: Vec<u8> = parts.iter().flat_map(|(_, batch)| batch.to_vec()).collect();
        let answer = self.ask(conn, 3, body, &records);
        let Body::ProduceAnswer(answer) = answer.body else {
            panic!("another answer");
        };
        let row = |result: &ProduceResult| (result.base_offset, result.error);
        answer.results.iter().map(row).collect()
    }

    /// That a frame was answered by one refusal with this error, and its connection closed.
    fn assert_refused(&mut self, conn: ConnId, id: u64, error: i16) {
        let answer = self.only(conn, id);
        assert_eq!((answer.kind, answer.version), (Kind::Refusal, 0));
        let Body::Refusal(Refusal {
            message,
            error: told,
        }) = answer.body
        else {
            panic!("another answer");
        };
        assert_eq!(told, error, "{}", String::from_utf8_lossy(&message));
        assert!(!message.is_empty());
        assert_eq!(self.closed.pop(), Some(conn));
    }
}

fn hello(version_min: u8, version_max: u8) -> Body {
    hello_with(u64::MAX, version_min, version_max)
}

fn hello_with(features: u64, version_min: u8, version_max: u8) -> Body {
    Body::Hello(Hello {
        software: b"test 1".to_vec(),
        features,
        version_min,
        version_max,
    })
}

fn part(topic_id: [u8; 16], partition: i32) -> ProducePart {
    ProducePart {
        topic_id,
        partition,
        records_bytes: 0,
    }
}

fn fetch(topic_id: [u8; 16], fetch_offset: i64, wait_ms_max: u32) -> Body {
    Body::Fetch(Fetch {
        parts: vec![FetchPart {
            topic_id,
            partition: 0,
            leader_epoch: -1,
            fetch_offset,
            last_fetched_epoch: -1,
            bytes_max: 1 << 20,
        }],
        wait_ms_max,
        bytes_min: 1,
        bytes_max: 1 << 20,
        isolation: 0,
    })
}

fn batch(values: &[&str]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.push(WALL_MS, None, Some(value.as_bytes()));
    }
    builder.build()
}

/// The batch as the broker keeps it.
fn stamped(mut batch: Vec<u8>, offset: i64, leader_epoch: i32) -> Vec<u8> {
    stamp(&mut batch, Offset(offset), LeaderEpoch(leader_epoch));
    batch
}

/// Makes the checksum of a frame without records right again.
fn restamp(mut frame: Vec<u8>) -> Vec<u8> {
    let checksum = xxh3_64(&frame[CHECKSUM_BYTES..]);
    frame[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    frame
}

#[test]
fn the_newest_common_version_is_spoken() {
    let mut broker = Broker::start();
    let conn = broker.connect(1);
    let answer = broker.ask(conn, 77, hello(0, u8::MAX), b"");
    assert_eq!((answer.kind, answer.version), (Kind::HelloAnswer, 0));
    let Body::HelloAnswer(answer) = answer.body else {
        panic!("another answer");
    };
    assert_eq!((answer.error, answer.version), (0, VERSION_MAX));
    assert_eq!(
        (answer.version_min, answer.version_max),
        (VERSION_MIN, VERSION_MAX)
    );
    // Of what the client would use, the broker names what it has.
    assert_eq!(answer.features, FEATURES);
    assert_eq!(answer.cluster_id, b"cluster");
    assert!(broker.closed.is_empty());
}

/// The features that the broker has of those that a new connection asks for.
fn features(broker: &mut Broker, conn: u64, asked: u64) -> u64 {
    let conn = broker.connect(conn);
    let Body::HelloAnswer(answer) = broker.ask(conn, 1, hello_with(asked, 1, 1), b"").body else {
        panic!("another answer");
    };
    answer.features
}

#[test]
fn a_core_looks_for_work_as_long_as_a_client_asks_for_it() {
    let mut broker = Broker::start();
    assert_eq!(
        features(&mut broker, 1, FEATURE_SUBSCRIBE),
        FEATURE_SUBSCRIBE
    );
    assert_eq!(idle_poll_us(&broker.shard), 0, "nobody asks");
    for conn in [2, 3] {
        assert_eq!(
            features(&mut broker, conn, FEATURE_IDLE_POLL),
            FEATURE_IDLE_POLL
        );
    }
    for (gone, left_us) in [(2, 200), (1, 200), (3, 0)] {
        let conn = ConnId(gone);
        broker.handle(Event::Closed { conn });
        assert_eq!(idle_poll_us(&broker.shard), left_us, "without {gone}");
    }

    let mut longer = Broker::start_with("idle.poll.us=300\n");
    features(&mut longer, 1, FEATURE_IDLE_POLL);
    assert_eq!(idle_poll_us(&longer.shard), 300, "as long as without");

    let mut without = Broker::start_with("native.idle.poll.us=0\n");
    assert_eq!(features(&mut without, 1, FEATURES), FEATURE_SUBSCRIBE);
    assert_eq!(idle_poll_us(&without.shard), 0);
}

#[test]
fn a_client_without_a_common_version_is_told_and_let_go() {
    let mut broker = Broker::start();
    let conn = broker.connect(1);
    let answer = broker.ask(conn, 7, hello(VERSION_MAX + 1, VERSION_MAX + 3), b"");
    let Body::HelloAnswer(answer) = answer.body else {
        panic!("another answer");
    };
    // UNSUPPORTED_VERSION.
    assert_eq!((answer.error, answer.version), (35, 0));
    let message = String::from_utf8(answer.message).expect("UTF-8");
    assert!(message.contains(&format!("{} to {}", VERSION_MAX + 1, VERSION_MAX + 3)));
    assert_eq!(broker.closed, [conn]);
}

#[test]
fn a_frame_out_of_its_place_is_refused() {
    let mut broker = Broker::start();
    // Nothing comes before a Hello.
    let conn = broker.connect(1);
    broker.send(conn, fetch([1; 16], 0, 0).encode(0, 5, 0));
    broker.assert_refused(conn, 5, 42);
    // Nor a second one later.
    let conn = broker.open(2);
    broker.send(conn, hello(VERSION, VERSION).encode(0, 6, 0));
    broker.assert_refused(conn, 6, 42);
    // A version is kept to.
    let conn = broker.open(3);
    let body = Offsets::default();
    broker.send(conn, encode(VERSION + 1, Kind::Offsets, 0, 7, &body, 0));
    broker.assert_refused(conn, 7, 35);
    // What the Hello did not ask for is not there.
    let conn = broker.connect(5);
    broker.ask(conn, 1, hello_with(0, VERSION, VERSION), b"");
    let body = Subscribe::default();
    broker.send(conn, encode(VERSION, Kind::Subscribe, 0, 9, &body, 0));
    broker.assert_refused(conn, 9, 42);
    // What a broker says is no question.
    let conn = broker.open(4);
    let body = Refusal::default();
    broker.send(conn, encode(VERSION, Kind::Refusal, 0, 8, &body, 0));
    broker.assert_refused(conn, 8, 42);
}

#[test]
fn a_malformed_frame_ends_its_connection_only() {
    let mut broker = Broker::start();
    let good = broker.open(1);
    let (topic_id, _) = broker.create(good, "t");
    let frame = |id| fetch(topic_id, 0, 0).encode(0, id, 0);

    let conn = broker.open(2);
    let mut bytes = frame(20);
    bytes[HEADER_BYTES] ^= 1;
    broker.send(conn, bytes);
    // CORRUPT_MESSAGE.
    broker.assert_refused(conn, 20, 2);

    // The rest is INVALID_REQUEST: a body whose rows lie outside of it,
    let conn = broker.open(3);
    let mut bytes = frame(30);
    bytes[HEADER_BYTES..].fill(0xff);
    let body_end = HEADER_BYTES
        + Header::from_prefix(&bytes)
            .expect("a header")
            .body_bytes
            .get() as usize;
    bytes[body_end..].fill(0);
    broker.send(conn, restamp(bytes));
    broker.assert_refused(conn, 30, 42);

    // a kind that nobody knows,
    let conn = broker.open(4);
    let mut bytes = frame(40);
    bytes[KIND_AT] = 0x70;
    broker.send(conn, restamp(bytes));
    broker.assert_refused(conn, 40, 42);

    // records that belong to no batch,
    let conn = broker.open(5);
    let mut bytes = fetch(topic_id, 0, 0).encode(0, 50, 3);
    bytes.extend_from_slice(b"abc");
    broker.send(conn, bytes);
    broker.assert_refused(conn, 50, 42);

    // batches whose lengths are not that of the records.
    let conn = broker.open(6);
    let parts = vec![ProducePart {
        records_bytes: 4,
        ..part(topic_id, 0)
    }];
    let body = Body::Produce(Produce {
        parts,
        timeout_ms: 0,
        acks: -1,
    });
    let mut bytes = body.encode(0, 60, 3);
    bytes.extend_from_slice(b"abc");
    broker.send(conn, bytes);
    broker.assert_refused(conn, 60, 42);

    // Nobody else noticed.
    let taken = batch(&["a"]);
    assert_eq!(
        broker.produce(good, &[(part(topic_id, 0), &taken)], -1),
        [(0, 0)]
    );
}

#[test]
fn what_is_produced_is_fetched() {
    let mut broker = Broker::start();
    let conn = broker.open(1);
    let (topic_id, epoch) = broker.create(conn, "t");
    let (first, second) = (batch(&["a", "b", "c"]), batch(&["d"]));
    let places = [
        (part(topic_id, 0), &first[..]),
        (part(topic_id, 1), &second[..]),
    ];
    assert_eq!(broker.produce(conn, &places, -1), [(0, 0), (0, 0)]);
    assert_eq!(
        broker.produce(conn, &[(part(topic_id, 0), &second)], 1),
        [(3, 0)]
    );

    // An offset within a batch brings the whole of it, and what follows.
    let answer = broker.ask(conn, 4, fetch(topic_id, 1, 0), b"");
    let both = [stamped(first, 0, epoch), stamped(second.clone(), 3, epoch)].concat();
    assert_eq!(answer.records, both);
    let Body::FetchAnswer(found) = answer.body else {
        panic!("another answer");
    };
    let whole = FetchResult {
        high_watermark: 4,
        last_stable_offset: 4,
        log_start_offset: 0,
        diverging_end_offset: -1,
        diverging_epoch: -1,
        part: 0,
        records_bytes: both.len() as u32,
        error: 0,
    };
    assert_eq!(found.results, [whole]);

    // At the end there is nothing to say, and beyond it OFFSET_OUT_OF_RANGE.
    let answer = broker.ask(conn, 5, fetch(topic_id, 4, 0), b"");
    assert!(matches!(answer.body, Body::FetchAnswer(found) if found.results.is_empty()));
    let answer = broker.ask(conn, 6, fetch(topic_id, 5, 0), b"");
    assert!(
        matches!(answer.body, Body::FetchAnswer(found) if found.results[0].error == 1
            && found.results[0].high_watermark == -1)
    );

    // Latest is -1, earliest -2.
    let question = |at| OffsetQuestion {
        topic_id,
        partition: 0,
        leader_epoch: -1,
        at,
        ask: ASK_TIME,
    };
    let questions = vec![question(-1), question(-2)];
    let answer = broker.ask(conn, 7, Body::Offsets(Offsets { questions }), b"");
    let Body::OffsetsAnswer(answer) = answer.body else {
        panic!("another answer");
    };
    let offsets: Vec<i64> = answer.results.iter().map(|result| result.offset).collect();
    assert_eq!(offsets, [4, 0]);
    assert!(broker.closed.is_empty());
}

#[test]
fn a_fetch_at_the_end_waits_for_what_comes() {
    let mut broker = Broker::start();
    let (writer, reader) = (broker.open(1), broker.open(2));
    let (topic_id, epoch) = broker.create(writer, "t");
    broker.send(reader, fetch(topic_id, 0, 500).encode(0, 9, 0));
    broker.wait(300);
    assert!(broker.receive(reader).is_empty());
    let written = batch(&["a"]);
    broker.produce(writer, &[(part(topic_id, 0), &written)], -1);
    assert_eq!(broker.only(reader, 9).records, stamped(written, 0, epoch));
    // Where nothing comes, an empty answer does, in time.
    broker.send(reader, fetch(topic_id, 1, 500).encode(0, 10, 0));
    broker.wait(499);
    assert!(broker.receive(reader).is_empty());
    broker.wait(1);
    assert!(broker.only(reader, 10).records.is_empty());
}

#[test]
fn each_batch_is_refused_for_itself() {
    let mut broker = Broker::start();
    let conn = broker.open(1);
    let (topic_id, _) = broker.create(conn, "t");
    let good = batch(&["a"]);
    let mut rotten = good.clone();
    *rotten.last_mut().expect("bytes") ^= 1;
    let places = [
        (part([9; 16], 0), &good[..]),
        (part(topic_id, 2), &good[..]),
        (part(topic_id, 0), &rotten[..]),
        (part(topic_id, 1), &good[..]),
    ];
    // UNKNOWN_TOPIC_ID, UNKNOWN_TOPIC_OR_PARTITION, CORRUPT_MESSAGE, and one that is taken.
    let results = broker.produce(conn, &places, -1);
    assert_eq!(results, [(-1, 100), (-1, 3), (-1, 2), (0, 0)]);
    // INVALID_REQUIRED_ACKS.
    let results = broker.produce(conn, &[(part(topic_id, 0), &good)], 5);
    assert_eq!(results, [(-1, 21)]);
    assert_eq!(
        broker.produce(conn, &[(part(topic_id, 0), &good)], -1),
        [(0, 0)]
    );
    assert!(broker.closed.is_empty());
}
