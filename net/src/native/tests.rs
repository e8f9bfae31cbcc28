//! What a frame refuses, that bodies survive their way, and that docs/PROTOCOL.md tells the bytes.

use std::collections::BTreeMap;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::header::{CHECKSUM_BYTES, MAGIC};
use super::hello::{Hello, HelloAnswer, Refusal};
use super::v1::*;
use super::*;

fn topic_id() -> [u8; 16] {
    std::array::from_fn(|index| 0xa0 + index as u8)
}

fn restamp(frame: &mut [u8]) {
    let front = Header::from_prefix(frame)
        .expect("a header")
        .records_start() as usize;
    let checksum = xxh3_64(&frame[CHECKSUM_BYTES..front]);
    frame[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

fn produce_frame() -> Vec<u8> {
    let body = Produce {
        parts: vec![ProducePart {
            topic_id: topic_id(),
            partition: 3,
            records_bytes: 7,
        }],
        timeout_ms: 1000,
        acks: -1,
    };
    let mut frame = encode(VERSION, Kind::Produce, 0, 9, &body, 7);
    frame.extend_from_slice(b"records");
    frame
}

#[test]
fn records_begin_at_a_multiple_of_eight_behind_the_body() {
    let frame = produce_frame();
    // A header, a row of 24 bytes, a root of 13, 3 of padding, the records.
    assert_eq!(frame.len(), 32 + 24 + 13 + 3 + 7);
    let decoded = decode(&frame).expect("a good frame");
    assert_eq!(decoded.records, b"records");
    assert_eq!(decoded.body.len(), 37);
    assert_eq!((decoded.kind, decoded.correlation_id), (Kind::Produce, 9));
}

#[test]
fn a_body_is_read_wherever_it_lies() {
    let frame = produce_frame();
    for shift in 0..8 {
        let moved = [vec![0; shift], frame.clone()].concat();
        let decoded = decode(&moved[shift..]).expect("a good frame");
        let body = read::<ArchivedProduce>(decoded.body).expect("a good body");
        assert_eq!(body.parts[0].partition, 3);
        assert_eq!(body.parts[0].topic_id, topic_id());
        assert_eq!(body.acks, -1);
    }
}

#[test]
fn each_way_to_be_no_frame_has_its_name() {
    let good = produce_frame();
    let fault = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        change(&mut frame);
        decode(&frame).expect_err("a bad frame")
    };
    assert_eq!(fault(&|frame| frame.truncate(31)), Fault::Length);
    assert_eq!(fault(&|frame| frame[8] = b'm'), Fault::Magic);
    assert_eq!(fault(&|frame| frame.push(0)), Fault::Length);
    assert_eq!(fault(&|frame| frame[16..24].fill(0xff)), Fault::Length);
    assert_eq!(fault(&|frame| frame[0] ^= 1), Fault::Checksum);
    for place in [12, 13, 14, 24, 32, 60] {
        assert_eq!(fault(&|frame| frame[place] ^= 1), Fault::Checksum);
    }
    let padding = |frame: &mut Vec<u8>| {
        frame[70] = 1;
        restamp(frame);
    };
    assert_eq!(fault(&padding), Fault::Padding);
    let kind = |frame: &mut Vec<u8>| {
        frame[13] = 0x70;
        restamp(frame);
    };
    assert_eq!(fault(&kind), Fault::Kind(0x70));
    // The records have their own checksums.
    let mut frame = good.clone();
    frame[75] ^= 1;
    assert!(decode(&frame).is_ok());
}

#[test]
fn a_body_that_points_outside_of_itself_is_refused() {
    let body = Fetch {
        parts: vec![FetchPart::default(); 3],
        ..Fetch::default()
    };
    let frame = encode(VERSION, Kind::Fetch, 0, 0, &body, 0);
    let good = decode(&frame).expect("a good frame").body.to_vec();
    assert!(read::<ArchivedFetch>(&good).is_ok());
    let root = good.len() - size_of::<ArchivedFetch>();
    let with = |place: usize, value: u32| {
        let mut body = good.clone();
        body[place..place + 4].copy_from_slice(&value.to_le_bytes());
        read::<ArchivedFetch>(&body).is_ok()
    };
    // Where the rows begin, from where it says so; then how many they are.
    assert!(!with(root, 0));
    assert!(!with(root, 1));
    assert!(!with(root, (-121_i32) as u32));
    assert!(!with(root, i32::MAX as u32));
    assert!(!with(root, i32::MIN as u32));
    assert!(with(root + 4, 2));
    assert!(!with(root + 4, 4));
    assert!(!with(root + 4, u32::MAX));
    for length in 0..size_of::<ArchivedFetch>() {
        assert_eq!(
            read::<ArchivedFetch>(&good[..length]).err(),
            Some(Fault::Body)
        );
    }
}

#[test]
fn texts_outside_of_their_table_are_refused() {
    let texts = "a\u{e9}b".as_bytes();
    assert_eq!(read_text(texts, 1, 2), Ok("\u{e9}"));
    assert_eq!(read_text(texts, 4, 0), Ok(""));
    assert_eq!(read_text(texts, 1, 1), Err(Fault::Text));
    assert_eq!(read_text(texts, 3, 2), Err(Fault::Text));
    assert_eq!(read_text(texts, u32::MAX, u32::MAX), Err(Fault::Text));
}

#[test]
fn every_body_survives_its_way() {
    let mut seed = 0;
    let mut number = || {
        seed += 1;
        xxh3_64(&u64::to_le_bytes(seed))
    };
    for _ in 0..50 {
        for kind in Kind::ALL {
            let body = Body::sample(*kind, &mut number);
            let frame = body.encode(3, 4, 0);
            let decoded = decode(&frame).expect("a good frame");
            assert_eq!((decoded.kind, decoded.flags), (*kind, 3));
            assert_eq!(Body::read(*kind, decoded.body), Ok(body));
        }
    }
}

#[test]
fn old_and_new_choose_the_newest_version_that_both_speak() {
    assert_eq!(hello::choose_version(1, 1), Some(1));
    assert_eq!(hello::choose_version(0, 9), Some(1));
    assert_eq!(hello::choose_version(2, 9), None);
    assert_eq!(hello::choose_version(0, 0), None);
    assert_eq!(hello::choose_version(9, 1), None);
}

/// The examples of the page, by name.
fn examples() -> BTreeMap<&'static str, Vec<u8>> {
    let batch = [0x42; 5];
    let frame = |body: Body, correlation_id, records: &[u8]| {
        let records_bytes = u32::try_from(records.len()).expect("a few bytes");
        let mut frame = body.encode(0, correlation_id, records_bytes);
        frame.extend_from_slice(records);
        frame
    };
    let bare = |body: Body, correlation_id| frame(body, correlation_id, &[]);
    let part = FetchPart {
        topic_id: topic_id(),
        partition: 3,
        leader_epoch: -1,
        fetch_offset: 42,
        last_fetched_epoch: -1,
        bytes_max: 1 << 20,
    };
    let result = FetchResult {
        high_watermark: 43,
        last_stable_offset: 43,
        log_start_offset: 0,
        diverging_end_offset: -1,
        diverging_epoch: -1,
        part: 0,
        records_bytes: 5,
        error: 0,
    };
    BTreeMap::from([
        (
            "hello",
            bare(
                Body::Hello(Hello {
                    software: b"demo 1".to_vec(),
                    features: 1,
                    version_min: 1,
                    version_max: 1,
                }),
                1,
            ),
        ),
        (
            "hello-answer",
            bare(
                Body::HelloAnswer(HelloAnswer {
                    cluster_id: b"cluster".to_vec(),
                    message: Vec::new(),
                    features: 1,
                    node_id: 1,
                    frame_bytes_max: 104_857_600,
                    error: 0,
                    version: 1,
                    version_min: 1,
                    version_max: 1,
                }),
                1,
            ),
        ),
        (
            "refusal",
            bare(
                Body::Refusal(Refusal {
                    message: b"why".to_vec(),
                    error: 42,
                }),
                7,
            ),
        ),
        (
            "metadata",
            bare(
                Body::Metadata(Metadata {
                    topics: vec![TopicQuery {
                        topic_id: [0; 16],
                        name_start: 0,
                        name_bytes: 4,
                    }],
                    texts: b"demo".to_vec(),
                    flags: METADATA_CREATE,
                }),
                2,
            ),
        ),
        (
            "metadata-answer",
            bare(
                Body::MetadataAnswer(MetadataAnswer {
                    topics: vec![TopicRow {
                        topic_id: topic_id(),
                        name_start: 9,
                        name_bytes: 4,
                        partitions_start: 0,
                        partitions_count: 1,
                        error: 0,
                        flags: 0,
                    }],
                    partitions: vec![PartitionRow {
                        partition: 0,
                        leader_id: 1,
                        leader_epoch: 5,
                        error: 0,
                    }],
                    brokers: vec![BrokerRow {
                        node_id: 1,
                        host_start: 0,
                        host_bytes: 9,
                        port: 9192,
                    }],
                    texts: b"127.0.0.1demo".to_vec(),
                    controller_id: 1,
                }),
                2,
            ),
        ),
        (
            "produce",
            frame(
                Body::Produce(Produce {
                    parts: vec![ProducePart {
                        topic_id: topic_id(),
                        partition: 3,
                        records_bytes: 5,
                    }],
                    timeout_ms: 30_000,
                    acks: -1,
                }),
                3,
                &batch,
            ),
        ),
        (
            "produce-answer",
            bare(
                Body::ProduceAnswer(ProduceAnswer {
                    results: vec![ProduceResult {
                        base_offset: 42,
                        log_append_time_ms: -1,
                        log_start_offset: 0,
                        error: 0,
                    }],
                    remarks: Vec::new(),
                    texts: Vec::new(),
                }),
                3,
            ),
        ),
        (
            "fetch",
            bare(
                Body::Fetch(Fetch {
                    parts: vec![part],
                    wait_ms_max: 500,
                    bytes_min: 1,
                    bytes_max: 50 << 20,
                    isolation: 0,
                }),
                4,
            ),
        ),
        (
            "fetch-answer",
            frame(
                Body::FetchAnswer(FetchAnswer {
                    results: vec![result],
                }),
                4,
                &batch,
            ),
        ),
        (
            "subscribe",
            bare(
                Body::Subscribe(Subscribe {
                    parts: vec![part],
                    credit_bytes: 8 << 20,
                    bytes_max: 1 << 20,
                    heartbeat_ms: 0,
                    isolation: 0,
                }),
                5,
            ),
        ),
        (
            "subscribe-answer",
            bare(Body::SubscribeAnswer(SubscribeAnswer { error: 0 }), 5),
        ),
        (
            "delivery",
            frame(
                Body::Delivery(FetchAnswer {
                    results: vec![result],
                }),
                5,
                &batch,
            ),
        ),
        (
            "credit",
            bare(
                Body::Credit(Credit {
                    subscription: 5,
                    bytes: 5,
                }),
                6,
            ),
        ),
        (
            "unsubscribe",
            bare(Body::Unsubscribe(Unsubscribe { subscription: 5 }), 7),
        ),
        (
            "unsubscribe-answer",
            bare(Body::UnsubscribeAnswer(UnsubscribeAnswer { error: 0 }), 7),
        ),
        (
            "offsets",
            bare(
                Body::Offsets(Offsets {
                    questions: vec![OffsetQuestion {
                        topic_id: topic_id(),
                        partition: 3,
                        leader_epoch: -1,
                        at: -1,
                        ask: ASK_TIME,
                    }],
                }),
                8,
            ),
        ),
        (
            "offsets-answer",
            bare(
                Body::OffsetsAnswer(OffsetsAnswer {
                    results: vec![OffsetResult {
                        offset: 43,
                        timestamp_ms: -1,
                        leader_epoch: 5,
                        error: 0,
                    }],
                }),
                8,
            ),
        ),
        (
            "producer-id",
            bare(
                Body::ProducerId(ProducerId {
                    producer_id: -1,
                    producer_epoch: -1,
                }),
                9,
            ),
        ),
        (
            "producer-id-answer",
            bare(
                Body::ProducerIdAnswer(ProducerIdAnswer {
                    producer_id: 1000,
                    producer_epoch: 0,
                    error: 0,
                }),
                9,
            ),
        ),
    ])
}

/// Sixteen bytes a line, behind their position.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, bytes) in bytes.chunks(16).enumerate() {
        let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!("{:04x}  {}\n", line * 16, bytes.join(" ")));
    }
    text
}

/// Every message has an example in docs/PROTOCOL.md, in a block "hex NAME"; `MILLRACE_BLESS=1` writes them
/// anew.
#[test]
fn the_page_shows_the_bytes_of_every_message() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PROTOCOL.md");
    let page = std::fs::read_to_string(&path).expect("the page is there");
    let mut blessed = page.clone();
    for (name, bytes) in examples() {
        let begin = format!("```hex {name}\n");
        let start = page
            .find(&begin)
            .unwrap_or_else(|| panic!("the page has no example of {name}"));
        let old = page[start + begin.len()..]
            .split("```")
            .next()
            .unwrap_or_default();
        let block = format!("{begin}{old}```");
        blessed = blessed.replace(&block, &format!("{begin}{}```", dump(&bytes)));
    }
    if std::env::var_os("MILLRACE_BLESS").is_some() {
        std::fs::write(&path, &blessed).expect("the page can be written");
    }
    let count = page.matches("```hex ").count();
    assert_eq!(count, examples().len(), "an example that no test knows");
    assert!(page == blessed, "an example of the page shows other bytes");
}

/// The tables of the page give each field's place and each row's size.
#[test]
fn the_page_has_the_fields_of_every_row() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PROTOCOL.md");
    let page = std::fs::read_to_string(&path).expect("the page is there");
    for (name, bytes) in sizes() {
        let title = format!("`{name}`, {bytes} bytes");
        assert!(page.contains(&title), "the page does not say: {title}");
    }
    assert!(page.contains(std::str::from_utf8(&MAGIC).expect("text")));
    for kind in Kind::ALL {
        let line = format!("| `{:#04x}` | {} |", *kind as u8, kind.name());
        assert!(page.contains(&line), "the page does not list: {line}");
    }
}

/// The page's values of the checksum are those of the code.
#[test]
fn the_page_has_the_right_checksums() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PROTOCOL.md");
    let page = std::fs::read_to_string(&path).expect("the page is there");
    for length in [0_usize, 3, 8, 16, 100, 200, 1000, 5000] {
        let bytes: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
        let line = format!("| {length} | `{:#018x}` |", xxh3_64(&bytes));
        assert!(page.contains(&line), "the page does not say: {line}");
    }
}

fn sizes() -> Vec<(&'static str, usize)> {
    macro_rules! sizes {
        ($($module:ident::$archived:ident $name:literal),*) => {
            vec![$(($name, size_of::<$module::$archived>()),)*]
        };
    }
    use super::v1;
    sizes![
        hello::ArchivedHello "Hello", hello::ArchivedHelloAnswer "HelloAnswer",
        hello::ArchivedRefusal "Refusal", v1::ArchivedProduce "Produce",
        v1::ArchivedProducePart "ProducePart", v1::ArchivedProduceAnswer "ProduceAnswer",
        v1::ArchivedProduceResult "ProduceResult", v1::ArchivedProduceRemark "ProduceRemark",
        v1::ArchivedFetch "Fetch", v1::ArchivedFetchPart "FetchPart",
        v1::ArchivedFetchAnswer "FetchAnswer", v1::ArchivedFetchResult "FetchResult",
        v1::ArchivedSubscribe "Subscribe", v1::ArchivedSubscribeAnswer "SubscribeAnswer",
        v1::ArchivedUnsubscribe "Unsubscribe", v1::ArchivedUnsubscribeAnswer "UnsubscribeAnswer",
        v1::ArchivedCredit "Credit", v1::ArchivedMetadata "Metadata",
        v1::ArchivedTopicQuery "TopicQuery", v1::ArchivedMetadataAnswer "MetadataAnswer",
        v1::ArchivedTopicRow "TopicRow", v1::ArchivedPartitionRow "PartitionRow",
        v1::ArchivedBrokerRow "BrokerRow", v1::ArchivedOffsets "Offsets",
        v1::ArchivedOffsetQuestion "OffsetQuestion", v1::ArchivedOffsetsAnswer "OffsetsAnswer",
        v1::ArchivedOffsetResult "OffsetResult", v1::ArchivedProducerId "ProducerId",
        v1::ArchivedProducerIdAnswer "ProducerIdAnswer"
    ]
}
