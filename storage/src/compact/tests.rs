use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::batch::{TimestampType, rewrite_timestamps, split};
use crate::types::Offset;

const DAY_MS: i64 = 86_400_000;
const LIMIT: u64 = 1 << 20;

/// A record as a test writes it down: offset, timestamp, key, value.
type Plain = (i64, i64, Vec<u8>, Option<Vec<u8>>);

fn batch(base_offset: i64, compression: Compression, records: &[(&str, Option<&str>)]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(compression)
        .base_offset(base_offset)
        .leader_epoch(1);
    for (index, (key, value)) in records.iter().enumerate() {
        let timestamp = 1000 + base_offset + index as i64;
        builder.push(timestamp, Some(key.as_bytes()), value.map(str::as_bytes));
    }
    builder.build()
}

fn map_of(log: &[u8], memory_bytes: usize) -> OffsetMap {
    let mut map = OffsetMap::new(memory_bytes, 7);
    let mut scratch = RecordsScratch::new();
    for batch in split(log) {
        let batch = batch.expect("whole");
        if map.add_batch(&batch, Offset(0), LIMIT, &mut scratch) != Ok(Mapped::Whole) {
            break;
        }
    }
    map
}

fn clean_with(log: &[u8], map: OffsetMap, producers: &ProducerStates, now_ms: i64) -> Vec<u8> {
    let last = split(log).last().expect("a batch").expect("whole");
    let round_end = last.header().offset_end();
    let mut cleaner = Cleaner::new(map, round_end, producers, now_ms, DAY_MS, LIMIT);
    let mut scratch = RecordsScratch::new();
    let mut out = Vec::new();
    for batch in split(log) {
        let batch = batch.expect("whole");
        match cleaner.clean(&batch, &mut scratch).expect("readable") {
            Cleaned::Kept => out.extend_from_slice(batch.bytes()),
            Cleaned::Replaced(bytes) => {
                let new = BatchView::new(&bytes).expect("whole");
                assert_eq!(new.verify(), Ok(()));
                let (old, new) = (batch.header(), new.header());
                assert_eq!(
                    (
                        new.base_offset(),
                        new.last_offset_delta(),
                        new.base_sequence()
                    ),
                    (
                        old.base_offset(),
                        old.last_offset_delta(),
                        old.base_sequence()
                    )
                );
                out.extend_from_slice(&bytes);
            }
            Cleaned::Dropped => {}
        }
    }
    assert_eq!(cleaner.counters().read_bytes, log.len() as u64);
    assert_eq!(cleaner.counters().kept_bytes, out.len() as u64);
    out
}

fn clean(log: &[u8], now_ms: i64) -> Vec<u8> {
    clean_with(log, map_of(log, 1 << 20), &ProducerStates::new(), now_ms)
}

fn records(log: &[u8]) -> Vec<Plain> {
    let mut scratch = RecordsScratch::new();
    let mut out = Vec::new();
    for batch in split(log) {
        for record in scratch
            .records(&batch.expect("whole"), LIMIT)
            .expect("readable")
        {
            let record = record.expect("readable");
            let key = record.key.unwrap_or(b"(null)").to_vec();
            out.push((
                record.offset,
                record.timestamp,
                key,
                record.value.map(<[u8]>::to_vec),
            ));
        }
    }
    out
}

fn offsets(log: &[u8]) -> Vec<i64> {
    records(log).iter().map(|record| record.0).collect()
}

#[test]
fn the_latest_of_each_key_stays_at_its_offset() {
    let log = [
        batch(
            0,
            Compression::None,
            &[("a", Some("1")), ("b", Some("1")), ("a", Some("2"))],
        ),
        batch(3, Compression::Lz4, &[("c", Some("1")), ("a", Some("3"))]),
    ]
    .concat();
    let cleaned = clean(&log, 0);
    assert_eq!(
        records(&cleaned),
        [
            (1, 1001, b"b".to_vec(), Some(b"1".to_vec())),
            (3, 1003, b"c".to_vec(), Some(b"1".to_vec())),
            (4, 1004, b"a".to_vec(), Some(b"3".to_vec())),
        ]
    );
    let batches: Vec<_> = split(&cleaned).map(|batch| batch.expect("whole")).collect();
    assert_eq!(
        batches[0].header().offset_end(),
        Offset(3),
        "offsets stay taken"
    );
    assert_eq!(
        batches[1].bytes(),
        &log[log.len() - batches[1].len_bytes()..],
        "untouched"
    );
    assert_eq!(
        clean(&cleaned, 0),
        cleaned,
        "a second round finds nothing to do"
    );
}

#[test]
fn codecs_stay_what_they_were() {
    for id in 0..5 {
        let compression = Compression::from_id(id).expect("known");
        let log = batch(
            0,
            compression,
            &[("a", Some("1")), ("b", Some("1")), ("a", Some("2"))],
        );
        let cleaned = clean(&log, 0);
        assert_eq!(offsets(&cleaned), [1, 2]);
        let header = BatchView::new(&cleaned).expect("whole").header();
        assert_eq!(header.attributes().compression(), Some(compression));
        assert_eq!(
            (header.base_timestamp(), header.max_timestamp()),
            (1001, 1002)
        );
    }
}

#[test]
fn tombstones_get_a_horizon_and_go_after_it() {
    let log = [
        batch(0, Compression::None, &[("a", Some("1")), ("b", Some("1"))]),
        batch(2, Compression::Zstd, &[("a", None), ("c", Some("1"))]),
        batch(4, Compression::None, &[("d", Some("1"))]),
    ]
    .concat();
    let now_ms = 1_000_000;
    let first = clean(&log, now_ms);
    assert_eq!(offsets(&first), [1, 2, 3, 4]);
    let horizon = split(&first)
        .nth(1)
        .expect("there")
        .expect("whole")
        .header()
        .delete_horizon_ms();
    assert_eq!(horizon, Some(now_ms + DAY_MS));
    assert_eq!(
        records(&first)[1],
        (2, 1002, b"a".to_vec(), None),
        "its timestamp stays"
    );

    let before = clean(&first, now_ms + DAY_MS - 1);
    assert_eq!(before, first, "the first round's horizon counts");
    let after = clean(&first, now_ms + DAY_MS);
    assert_eq!(offsets(&after), [1, 3, 4]);
}

#[test]
fn log_append_time_survives_rewriting() {
    let mut log = batch(0, Compression::None, &[("a", Some("1")), ("a", Some("2"))]);
    rewrite_timestamps(&mut log, TimestampType::LogAppendTime, 5555);
    let cleaned = clean(&log, 0);
    assert_eq!(
        records(&cleaned),
        [(1, 5555, b"a".to_vec(), Some(b"2".to_vec()))]
    );
}

#[test]
fn the_last_batch_of_a_round_stays_even_if_empty() {
    let log = [
        batch(0, Compression::None, &[("a", Some("1"))]),
        batch(1, Compression::Gzip, &[("a", None)]),
    ]
    .concat();
    let first = clean(&log, 0);
    let second = clean(&first, DAY_MS);
    let left: Vec<_> = split(&second).map(|batch| batch.expect("whole")).collect();
    assert_eq!(left.len(), 1);
    assert_eq!(
        (
            left[0].header().records_count(),
            left[0].header().offset_end()
        ),
        (0, Offset(2))
    );
    assert_eq!(left[0].len_bytes(), 61);
    assert_eq!(left[0].header().max_timestamp(), 1001);
    // Once something follows it, it goes.
    let longer = [second, batch(2, Compression::None, &[("z", Some("1"))])].concat();
    assert_eq!(offsets(&clean(&longer, DAY_MS)), [2]);
    assert_eq!(split(&clean(&longer, DAY_MS)).count(), 1);
}

#[test]
fn a_live_producers_last_sequence_stays() {
    let produce = |base_offset: i64, id: i64, sequence: i32, key: &[u8]| {
        let mut builder = BatchBuilder::new(Compression::None)
            .base_offset(base_offset)
            .producer(id, 3, sequence);
        builder.push(1000, Some(key), Some(b"v"));
        builder.build()
    };
    let log = [
        produce(0, 1, 0, b"a"),
        produce(1, 1, 1, b"a"),
        produce(2, 2, 0, b"a"),
        produce(3, 3, 0, b"a"),
    ]
    .concat();
    let mut producers = ProducerStates::new();
    for batch in split(&log) {
        let header = batch.expect("whole").header();
        if header.producer_id() != 2 {
            producers.apply(header, header.base_offset(), 0);
        }
    }
    let cleaned = clean_with(&log, map_of(&log, 1 << 20), &producers, 0);
    let left: Vec<_> = split(&cleaned)
        .map(|batch| {
            let header = batch.expect("whole").header();
            (
                header.producer_id(),
                header.last_sequence(),
                header.records_count(),
            )
        })
        .collect();
    // Producer 2 has expired; of producer 1 the last batch stays, without its record.
    assert_eq!(left, [(1, 1, 0), (3, 0, 1)]);
    let mut rebuilt = ProducerStates::new();
    for batch in split(&cleaned) {
        let header = batch.expect("whole").header();
        rebuilt.apply(header, header.base_offset(), 0);
    }
    let last = |states: &ProducerStates| {
        states
            .last_batches()
            .map(|(id, batch)| (id, batch.last_sequence))
            .collect::<Vec<_>>()
    };
    assert_eq!(last(&rebuilt), last(&producers));
}

#[test]
fn control_batches_stay() {
    let mut marker = BatchBuilder::new(Compression::None)
        .base_offset(0)
        .producer(1, 0, -1)
        .control();
    marker.push(5, Some(&[0, 0, 0, 1]), Some(&[0, 0, 0, 0, 0, 0]));
    let log = [
        marker.build(),
        batch(1, Compression::None, &[("a", Some("1"))]),
    ]
    .concat();
    assert_eq!(clean(&log, i64::MAX), log);
    assert_eq!(map_of(&log, 1 << 20).len(), 1);
}

#[test]
fn records_without_a_key_go() {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(1, None, Some(b"v"));
    builder.push(1, Some(b"a"), Some(b"v"));
    assert_eq!(offsets(&clean(&builder.build(), 0)), [1]);
}

#[test]
fn a_full_map_ends_the_round_and_later_records_stay() {
    let log: Vec<u8> = (0..100)
        .flat_map(|offset| {
            let key = format!("key {}", offset % 80);
            batch(offset, Compression::None, &[(&key, Some("v"))])
        })
        .collect();
    // The least it takes: 64 slots, of which 51 may be used.
    let map = map_of(&log, 0);
    assert_eq!((map.len(), map.offset_end()), (51, Offset(51)));
    let cleaned = clean_with(&log, map, &ProducerStates::new(), 0);
    assert_eq!(
        offsets(&cleaned),
        (0..100).collect::<Vec<_>>(),
        "no key twice below 51"
    );
    let map = map_of(&log, 1 << 20);
    assert_eq!((map.len(), map.offset_end()), (80, Offset(100)));
    let cleaned = clean_with(&log, map, &ProducerStates::new(), 0);
    assert_eq!(offsets(&cleaned), (20..100).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Against the plain model: of each key the last record stays, at its offset, with its time, in
    /// order; tombstones go only in a second round a day later.
    #[test]
    fn compaction_is_last_value_wins(
        shape in proptest::collection::vec(
            (0_i16..5, proptest::collection::vec((0_u8..6, proptest::option::of(0_u8..9)), 1..6)),
            1..20,
        ),
    ) {
        let mut log = Vec::new();
        let mut next = 0;
        let mut latest: BTreeMap<Vec<u8>, Plain> = BTreeMap::new();
        for (codec, keyed) in shape {
            let compression = Compression::from_id(codec).expect("known");
            let mut builder = BatchBuilder::new(compression).base_offset(next);
            for (index, (key, value)) in keyed.into_iter().enumerate() {
                let value = value.map(|value| vec![value; 20]);
                builder.push(next * 7, Some(&[key]), value.as_deref());
                latest.insert(vec![key], (next + index as i64, next * 7, vec![key], value));
            }
            next += i64::from(builder.records_count());
            log.extend_from_slice(&builder.build());
        }
        let mut expected: Vec<Plain> = latest.into_values().collect();
        expected.sort();
        let first = clean(&log, 0);
        prop_assert_eq!(&records(&first), &expected);
        let second = clean(&first, DAY_MS);
        expected.retain(|record| record.3.is_some());
        prop_assert_eq!(&records(&second), &expected);
        let end = split(&second).last().expect("never empty").expect("whole").header().offset_end();
        prop_assert_eq!(end, Offset(next), "the log still says how far it goes");
    }

    #[test]
    fn the_map_agrees_with_an_ordinary_one(keys in proptest::collection::vec(0_u16..500, 0..2000)) {
        let mut map = OffsetMap::new(1 << 20, 3);
        let mut model = BTreeMap::new();
        for (offset, key) in keys.into_iter().enumerate() {
            prop_assert!(map.put(&key.to_be_bytes(), offset as i64));
            model.insert(key, Offset(offset as i64));
        }
        prop_assert_eq!(map.len(), model.len());
        for key in 0_u16..500 {
            prop_assert_eq!(map.latest(&key.to_be_bytes()), model.get(&key).copied());
        }
    }
}
