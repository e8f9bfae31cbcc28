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

/// What Kafka 4.3.1's own producer code writes for these four records, in each compression.
const BY_KAFKA: [(Compression, &str); 5] = [
    (
        Compression::None,
        "00000000000000000000007c0000000302624e129c00000000000300000000000003e800000000000003\
         eb00000000000000070001000000050000000424000000010a000204010304026802010268011e000202\
         046b3101040268020102680128000404046b320a0204010300040268020102680124000606010a030002\
         04010402680201026801",
    ),
    (
        Compression::Gzip,
        "00000000000000000000007700000003023c2b68f800010000000300000000000003e800000000000003\
         eb0000000000000007000100000005000000041f8b08000000000000ff358b210e002010c3b6dd82b847\
         a01058781509fff70471b24d3b00302133ac23eab043f25d2c9eb07d77fe0625075a63c61f4b3d2bc1b5\
         284b000000",
    ),
    (
        Compression::Snappy,
        "0000000000000000000000870000000302c54831fb00020000000300000000000003e800000000000003\
         eb00000000000000070001000000050000000482534e41505059000000000100000001000000424b6824\
         000000010a000204010304026802010268011e000202046b310111101c28000404046b320a0124000011\
         154824000606010a03000204010402680201026801",
    ),
    (
        Compression::Lz4,
        "000000000000000000000081000000030239de1e3d00030000000300000000000003e800000000000003\
         eb00000000000000070001000000050000000404224d1860408241000000f40c24000000010a00020401\
         0304026802010268011e000202046b310110008028000404046b320a2400140015007024000606010a03\
         390080040268020102680100000000",
    ),
    (
        Compression::Zstd,
        "00000000000000000000007b00000003026d50d2f800040000000300000000000003e800000000000003\
         eb00000000000000070001000000050000000428b52ffd0058f40100240324000000010a000204010304\
         026802010268011e000202046b310128000404046b320a020401030024000606010a0300020403004b15\
         0427f90f31c7010000",
    ),
];

fn from_hex(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(digit).collect()
}

#[test]
fn batches_by_kafka_are_read() {
    for (compression, hex) in BY_KAFKA {
        let bytes = from_hex(hex);
        let batch = crate::batch::check_produced(&bytes, 1000).expect("good");
        let header = batch.header();
        assert_eq!(header.attributes().compression(), Some(compression));
        assert_eq!(
            (
                header.producer_id(),
                header.producer_epoch(),
                header.base_sequence()
            ),
            (7, 1, 5)
        );
        assert_eq!(
            header.partition_leader_epoch(),
            crate::types::LeaderEpoch(3)
        );
        let mut scratch = RecordsScratch::new();
        let records = scratch.records(&batch, 1000).expect("readable");
        for (index, record) in records.enumerate() {
            let record = record.expect("readable");
            let key = format!("k{index}").into_bytes();
            let value: Vec<u8> = (0..5)
                .map(|byte| ((index * 31 + byte * 7) % 5) as u8)
                .collect();
            assert_eq!(
                (record.offset, record.timestamp),
                (index as i64, 1000 + index as i64)
            );
            assert_eq!(record.key, (index % 3 != 0).then_some(&key[..]));
            assert_eq!(record.value, (index % 4 != 1).then_some(&value[..]));
            let headers: Vec<Header<'_>> = record.headers.into_iter().collect();
            let expected = [
                Header {
                    key: b"h",
                    value: Some(&[1]),
                },
                Header {
                    key: b"h",
                    value: None,
                },
            ];
            assert_eq!(headers, expected);
        }
    }
}

#[test]
fn the_builder_writes_kafkas_bytes() {
    let mut builder = BatchBuilder::new(Compression::None)
        .producer(7, 1, 5)
        .leader_epoch(3);
    let headers = [
        Header {
            key: b"h",
            value: Some(&[1]),
        },
        Header {
            key: b"h",
            value: None,
        },
    ];
    for index in 0..4 {
        let key = format!("k{index}").into_bytes();
        let value: Vec<u8> = (0..5)
            .map(|byte| ((index * 31 + byte * 7) % 5) as u8)
            .collect();
        let (key, value) = (
            (index % 3 != 0).then_some(key),
            (index % 4 != 1).then_some(value),
        );
        builder.push_with_headers(
            1000 + i64::from(index),
            key.as_deref(),
            value.as_deref(),
            &headers,
        );
    }
    assert_eq!(builder.build(), from_hex(BY_KAFKA[0].1));
}
