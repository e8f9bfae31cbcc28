//! A producer against answers made by hand.

use super::*;
use net::native::Body;
use net::native::hello::HelloAnswer;
use net::native::v1::{ProduceAnswer, ProduceResult, ProducerIdAnswer};
use storage::batch::BatchHeader;

const TOPIC: TopicId = [7; 16];

struct Pair {
    producer: Producer,
    link: Link,
    sent: Vec<u8>,
}

impl Pair {
    fn new(config: ProducerConfig) -> Pair {
        let mut pair = Pair {
            producer: Producer::new(config),
            link: link(),
            sent: Vec::new(),
        };
        pair.advance(0);
        let mut asked = pair.requests();
        if pair.producer.config.idempotent {
            let (id, _) = asked.pop().expect("an id is asked for");
            pair.answer_id(id, 1000);
        }
        pair
    }

    fn advance(&mut self, now_us: u64) {
        self.producer.advance(now_us, true, &mut self.link);
    }

    fn append(&mut self, value: &[u8]) {
        self.producer.append(0, TOPIC, 0, 5, None, Some(value));
        self.advance(0);
    }

    /// Correlation id and batch of each request that is to be sent.
    fn requests(&mut self) -> Vec<(u64, Vec<u8>)> {
        let bytes = self.link.output().to_vec();
        self.link.on_written(bytes.len());
        self.sent.extend(bytes);
        let mut found = Vec::new();
        while let Some(header) = self.sent.first_chunk() {
            let length = net::native::frame_bytes(header, usize::MAX).expect("a frame");
            let rest = self.sent.split_off(length);
            let frame = net::native::decode(&self.sent).expect("a frame");
            found.push((frame.correlation_id, frame.records.to_vec()));
            self.sent = rest;
        }
        found
    }

    fn take(&mut self, now_us: u64, frame: &[u8]) {
        let frame = net::native::decode(frame).expect("a frame");
        assert!(self.producer.on_frame(now_us, frame).expect("a good frame"));
    }

    fn answer_id(&mut self, correlation_id: u64, producer_id: i64) {
        let body = ProducerIdAnswer {
            producer_id,
            producer_epoch: 0,
            error: 0,
        };
        let frame = Body::ProducerIdAnswer(body).encode(0, correlation_id, 0);
        self.take(0, &frame);
    }

    fn answer(&mut self, now_us: u64, correlation_id: u64, base_offset: i64, code: ErrorCode) {
        let result = ProduceResult {
            base_offset,
            log_append_time_ms: -1,
            log_start_offset: 0,
            error: code.code(),
        };
        let body = ProduceAnswer {
            results: vec![result],
            ..ProduceAnswer::default()
        };
        let frame = Body::ProduceAnswer(body).encode(0, correlation_id, 0);
        self.take(now_us, &frame);
    }

    fn results(&mut self) -> Vec<(u64, Result<i64, ErrorCode>)> {
        std::iter::from_fn(|| self.producer.next_outcome())
            .map(|outcome| (outcome.record, outcome.result))
            .collect()
    }
}

fn link() -> Link {
    let mut link = Link::new(&"test".into());
    let hello = link.output().len();
    link.on_written(hello);
    let answer = HelloAnswer {
        version: 1,
        ..HelloAnswer::default()
    };
    let frame = Body::HelloAnswer(answer).encode(0, 0, 0);
    link.input()[..frame.len()].copy_from_slice(&frame);
    link.on_read(frame.len());
    assert_eq!(link.next_frame().expect("a greeting"), None);
    link
}

fn stamp_of(batch: &[u8]) -> (i64, i32) {
    let header = BatchHeader::ref_from_prefix(batch).expect("a header");
    (header.producer_id(), header.base_sequence())
}

fn sequences(requests: &[(u64, Vec<u8>)]) -> Vec<i32> {
    requests
        .iter()
        .map(|(_, batch)| stamp_of(batch).1)
        .collect()
}

#[test]
fn five_requests_are_on_their_way_and_no_more() {
    let mut pair = Pair::new(ProducerConfig::default());
    for _ in 0..8 {
        pair.append(b"x");
    }
    let first = pair.requests();
    assert_eq!(sequences(&first), [0, 1, 2, 3, 4]);
    pair.answer(0, first[0].0, 70, ErrorCode::None);
    pair.advance(0);
    assert_eq!(sequences(&pair.requests()), [5]);
    assert_eq!(pair.results(), [(0, Ok(70))]);
}

#[test]
fn records_wait_for_company_until_their_time_is_over() {
    let config = ProducerConfig {
        linger_us: 1000,
        ..ProducerConfig::default()
    };
    let mut pair = Pair::new(config);
    for value in [b"a", b"b"] {
        pair.producer.append(10, TOPIC, 0, 5, None, Some(value));
    }
    assert_eq!(pair.producer.next_deadline_us(), Some(1010));
    pair.producer.advance(1009, false, &mut pair.link);
    assert!(pair.requests().is_empty());
    pair.producer.advance(1010, false, &mut pair.link);
    let requests = pair.requests();
    assert_eq!(requests.len(), 1);
    let header = BatchHeader::ref_from_prefix(&requests[0].1).expect("a header");
    assert_eq!(header.records_count(), 2);
}

#[test]
fn what_failed_goes_again_in_its_order_with_its_sequences() {
    let mut pair = Pair::new(ProducerConfig::default());
    for _ in 0..3 {
        pair.append(b"x");
    }
    let sent = pair.requests();
    pair.answer(0, sent[0].0, -1, ErrorCode::NotLeaderOrFollower);
    pair.append(b"x");
    assert!(pair.requests().is_empty(), "two are still on their way");
    pair.answer(0, sent[1].0, -1, ErrorCode::OutOfOrderSequenceNumber);
    pair.answer(0, sent[2].0, -1, ErrorCode::OutOfOrderSequenceNumber);
    let due_us = pair.producer.next_deadline_us().expect("a time to retry");
    pair.advance(due_us - 1);
    assert!(pair.requests().is_empty());
    pair.advance(due_us);
    let again = pair.requests();
    assert_eq!(sequences(&again), [0, 1, 2, 3]);
    assert_eq!(again[0].1, sent[0].1, "the very same batch");
    assert!(pair.results().is_empty());
}

#[test]
fn after_a_lost_connection_everything_open_goes_again() {
    let mut pair = Pair::new(ProducerConfig::default());
    for _ in 0..3 {
        pair.append(b"x");
    }
    let sent = pair.requests();
    pair.answer(0, sent[0].0, 9, ErrorCode::None);
    pair.producer.on_disconnected();
    pair.link = link();
    pair.advance(0);
    let again = pair.requests();
    assert_eq!(sequences(&again), [1, 2]);
    pair.answer(0, again[0].0, 10, ErrorCode::None);
    pair.answer(0, again[1].0, -1, ErrorCode::DuplicateSequenceNumber);
    assert_eq!(pair.results(), [(0, Ok(9)), (1, Ok(10)), (2, Ok(-1))]);
    assert!(pair.producer.is_idle());
}

#[test]
fn a_failure_for_good_is_told_and_the_rest_counts_anew() {
    let mut pair = Pair::new(ProducerConfig::default());
    pair.append(b"too large");
    let sent = pair.requests();
    pair.append(b"fine");
    let second = pair.requests();
    pair.answer(0, sent[0].0, -1, ErrorCode::MessageTooLarge);
    pair.append(b"later");
    assert!(pair.requests().is_empty(), "no id, and one on its way");
    pair.answer(0, second[0].0, -1, ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(pair.results(), [(0, Err(ErrorCode::MessageTooLarge))]);
    pair.advance(0);
    let asked = pair.requests();
    pair.answer_id(asked[0].0, 2000);
    // What gathered meanwhile is closed at once, and goes behind what waits to be sent again.
    pair.advance(0);
    assert!(pair.requests().is_empty());
    let due_us = pair.producer.next_deadline_us().expect("a time to retry");
    pair.advance(due_us);
    let again: Vec<_> = pair.requests();
    let stamps: Vec<_> = again.iter().map(|(_, batch)| stamp_of(batch)).collect();
    assert_eq!(stamps, [(2000, 0), (2000, 1)]);
}

#[test]
fn without_idempotence_one_batch_of_a_partition_is_on_its_way() {
    let config = ProducerConfig {
        idempotent: false,
        ..ProducerConfig::default()
    };
    let mut pair = Pair::new(config);
    pair.append(b"a");
    pair.append(b"b");
    let sent = pair.requests();
    assert_eq!(sent.len(), 1);
    assert_eq!(stamp_of(&sent[0].1), (-1, -1));
    pair.answer(0, sent[0].0, 0, ErrorCode::None);
    pair.advance(0);
    assert_eq!(pair.requests().len(), 1);
}

#[test]
fn acks_zero_counts_as_delivered_when_sent() {
    let config = ProducerConfig {
        acks: Acknowledged::Never,
        ..ProducerConfig::default()
    };
    let mut pair = Pair::new(config);
    pair.append(b"a");
    assert_eq!(pair.requests().len(), 1);
    assert_eq!(pair.results(), [(0, Ok(-1))]);
    assert!(pair.producer.is_idle());
}

#[test]
fn what_is_held_is_counted_from_the_record_to_its_outcome() {
    let config = ProducerConfig {
        buffer_bytes: 4000,
        ..ProducerConfig::default()
    };
    let mut pair = Pair::new(config);
    assert!(
        pair.producer.has_room(1_000_000, &pair.link),
        "nothing else is held"
    );
    pair.producer.append(0, TOPIC, 0, 5, None, Some(&[1; 1000]));
    let open = pair.producer.held_bytes();
    assert!(open > 1000);
    pair.advance(0);
    let sent = pair.requests();
    assert_eq!(
        sent[0].1.len(),
        open,
        "an uncompressed batch is as long as before"
    );
    assert_eq!(pair.producer.held_bytes(), open);
    assert!(pair.producer.has_room(1000, &pair.link));
    pair.append(&[2; 1500]);
    pair.append(&[3; 1000]);
    assert!(!pair.producer.has_room(1000, &pair.link));
    let more = pair.requests();
    pair.answer(0, sent[0].0, 0, ErrorCode::None);
    pair.answer(0, more[0].0, -1, ErrorCode::MessageTooLarge);
    assert!(pair.producer.has_room(1000, &pair.link));
    pair.answer(0, more[1].0, -1, ErrorCode::MessageTooLarge);
    assert_eq!(pair.producer.held_bytes(), 0);
    assert!(pair.producer.is_idle());
}

#[test]
fn what_a_slow_connection_has_not_taken_is_held_too() {
    let config = ProducerConfig {
        acks: Acknowledged::Never,
        buffer_bytes: 4000,
        ..ProducerConfig::default()
    };
    let mut pair = Pair::new(config);
    pair.append(&[1; 3500]);
    assert_eq!(pair.producer.held_bytes(), 0, "delivered when sent");
    assert!(!pair.producer.has_room(1000, &pair.link));
    pair.requests();
    assert!(pair.producer.has_room(1000, &pair.link));
}
