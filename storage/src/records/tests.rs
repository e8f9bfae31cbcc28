use proptest::prelude::*;

use super::*;
use crate::batch::{Compression, rewrite_timestamps};
use crate::builder::BatchBuilder;

/// A record as a test writes it down.
#[derive(Clone, Debug, PartialEq)]
struct Plain {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..80)
}

fn plain() -> impl Strategy<Value = Plain> {
    let headers = proptest::collection::vec((bytes(), proptest::option::of(bytes())), 0..4);
    let field = || proptest::option::of(bytes());
    (any::<i64>(), field(), field(), headers).prop_map(|(timestamp, key, value, headers)| Plain {
        timestamp,
        key,
        value,
        headers,
    })
}

fn compression() -> impl Strategy<Value = Compression> {
    (0_i16..5).prop_map(|id| Compression::from_id(id).expect("known"))
}

fn build(records: &[Plain], compression: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::new(compression).base_offset(40);
    for record in records {
        let headers: Vec<Header<'_>> = record
            .headers
            .iter()
            .map(|(key, value)| Header {
                key,
                value: value.as_deref(),
            })
            .collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder.push_with_headers(record.timestamp, key, value, &headers);
    }
    builder.build()
}

fn read(batch: &[u8]) -> Result<Vec<Plain>, RecordsError> {
    let batch = BatchView::new(batch).expect("whole");
    let mut scratch = RecordsScratch::new();
    let records = scratch.records(&batch, 1 << 24)?;
    records
        .enumerate()
        .map(|(index, record)| {
            let record = record?;
            assert_eq!(record.offset, 40 + index as i64);
            let headers = record.headers.into_iter();
            Ok(Plain {
                timestamp: record.timestamp,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: headers
                    .map(|h| (h.key.to_vec(), h.value.map(<[u8]>::to_vec)))
                    .collect(),
            })
        })
        .collect()
}

proptest! {
    #[test]
    fn records_come_back_as_they_went_in(
        records in proptest::collection::vec(plain(), 1..20),
        compression in compression(),
    ) {
        prop_assert_eq!(read(&build(&records, compression)), Ok(records));
    }

    #[test]
    fn hostile_bytes_are_errors_or_records_but_never_a_panic(
        mut noise in proptest::collection::vec(any::<u8>(), 0..300),
        count in any::<i32>(),
        compression in compression(),
    ) {
        let mut batch = build(&[], compression);
        batch[57..61].copy_from_slice(&count.to_be_bytes());
        batch.append(&mut noise);
        let length = (batch.len() - 12) as i32;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        let view = BatchView::new(&batch).expect("whole");
        let mut scratch = RecordsScratch::new();
        if let Ok(records) = scratch.records(&view, 1 << 20) {
            for record in records.flatten() {
                let _ = record.headers.into_iter().count();
            }
        }
    }

    #[test]
    fn varints_round_trip(value in any::<i64>(), small in any::<i32>()) {
        for value in [value, i64::from(small), i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_varlong(&mut out, value);
            prop_assert_eq!(out.len(), varlong_bytes(value));
            prop_assert_eq!(Cursor { rest: &out }.varlong(), Ok(value));
        }
        let mut out = Vec::new();
        put_varlong(&mut out, i64::from(small));
        prop_assert_eq!(Cursor { rest: &out }.varint(), Ok(small));
    }
}

#[test]
fn varints_have_the_bytes_of_the_specification() {
    // Zigzag: 0, -1, 1, -2 are 0, 1, 2, 3; seven bits a byte, low ones first.
    for (value, expected) in [
        (0_i64, vec![0]),
        (-1, vec![1]),
        (1, vec![2]),
        (-2, vec![3]),
        (63, vec![126]),
        (64, vec![0x80, 0x01]),
        (i64::from(i32::MAX), vec![0xfe, 0xff, 0xff, 0xff, 0x0f]),
        (i64::from(i32::MIN), vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
    ] {
        let mut out = Vec::new();
        put_varlong(&mut out, value);
        assert_eq!(out, expected);
    }
    assert_eq!(
        Cursor { rest: &[0x80; 6] }.varint(),
        Err(RecordsError::Malformed)
    );
    assert_eq!(
        Cursor { rest: &[0x80; 11] }.varlong(),
        Err(RecordsError::Malformed)
    );
}

#[test]
fn duplicate_headers_keep_their_order() {
    let header = |value: &str| (b"same".to_vec(), Some(value.as_bytes().to_vec()));
    let record = Plain {
        timestamp: 5,
        key: None,
        value: None,
        headers: vec![header("b"), header("a"), header("b")],
    };
    let records = vec![record];
    assert_eq!(read(&build(&records, Compression::None)), Ok(records));
}

#[test]
fn log_append_time_is_every_records_timestamp() {
    let record = Plain {
        timestamp: 5,
        key: None,
        value: None,
        headers: Vec::new(),
    };
    let mut batch = build(&[record.clone(), record.clone()], Compression::Lz4);
    rewrite_timestamps(&mut batch, TimestampType::LogAppendTime, 99);
    let expected = Plain {
        timestamp: 99,
        ..record
    };
    assert_eq!(read(&batch), Ok(vec![expected.clone(), expected]));
}

#[test]
fn bytes_after_the_last_record_are_seen() {
    let record = Plain {
        timestamp: 5,
        key: None,
        value: None,
        headers: Vec::new(),
    };
    let mut batch = build(&[record.clone(), record.clone()], Compression::None);
    batch[57..61].copy_from_slice(&1_i32.to_be_bytes());
    assert_eq!(read(&batch), Err(RecordsError::TrailingBytes));
    batch[57..61].copy_from_slice(&3_i32.to_be_bytes());
    assert_eq!(read(&batch), Err(RecordsError::Malformed));
}
