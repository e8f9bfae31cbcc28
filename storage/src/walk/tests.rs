use proptest::prelude::*;

use super::*;
use crate::batch::HEADER_BYTES;
use crate::builder::BatchBuilder;
use crate::records::{Header, RecordIter, RecordsScratch};

const RULES: WalkRules = WalkRules {
    keys_required: false,
    timestamps: None,
    output_bytes_max: 1 << 24,
};
const ALL: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

fn walk_once(batch: &[u8], rules: &WalkRules) -> Result<WalkSummary, WalkError> {
    walk(
        &BatchView::new(batch).expect("whole"),
        rules,
        &mut WalkScratch::new(),
    )
}

fn walk_in_steps(batch: &BatchView<'_>, rules: &WalkRules) -> Result<WalkSummary, WalkError> {
    let mut scratch = WalkScratch::new();
    let mut walk = Walk::new(batch, rules, &mut scratch)?;
    loop {
        if let Some(summary) = walk.step(10)? {
            return Ok(summary);
        }
    }
}

#[test]
fn what_lies_in_place_is_walked_alike() {
    for append_time in [false, true] {
        let mut builder = BatchBuilder::new(Compression::None);
        let headers = [Header {
            key: b"h",
            value: None,
        }];
        for index in 0..300 {
            builder.push_with_headers(500 - index, Some(b"key"), Some(&[7; 200]), &headers);
        }
        let mut batch = builder.build();
        if append_time {
            crate::batch::rewrite_timestamps(&mut batch, TimestampType::LogAppendTime, 77);
        }
        let view = BatchView::new(&batch).expect("whole");
        let summary = in_place::walk(&view, &RULES);
        assert_eq!(summary, walk_in_steps(&view, &RULES).ok());
        let newest = if append_time { 77 } else { 500 };
        assert_eq!(summary.expect("good").max_timestamp, newest);
        assert_eq!(summary.expect("good").records_count, 300);
    }
}

/// Puts other bytes behind a batch's header, with the length to match.
fn with_payload(header_of: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut batch = [&header_of[..HEADER_BYTES], payload].concat();
    let length = (batch.len() - 12) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch
}

#[test]
fn summary_of_every_codec() {
    for compression in ALL {
        let mut builder = BatchBuilder::new(compression);
        let headers = [
            Header {
                key: b"h",
                value: Some(b"1"),
            },
            Header {
                key: b"h",
                value: None,
            },
        ];
        builder.push_with_headers(100, None, Some(&[7; 100_000]), &headers);
        builder.push(300, Some(b"a"), None);
        builder.push(300, Some(b"b"), Some(b""));
        builder.push(200, None, None);
        let summary = walk_once(&builder.build(), &RULES).expect("good");
        assert_eq!(
            summary,
            WalkSummary {
                records_count: 4,
                max_timestamp: 300,
                max_timestamp_offset_delta: 1,
                uncompressed_bytes: (builder.uncompressed_bytes() - HEADER_BYTES) as u64,
            }
        );
    }
}

#[test]
fn steps_come_to_the_same_end() {
    for compression in ALL {
        let mut builder = BatchBuilder::new(compression);
        for index in 0..200 {
            builder.push(index, Some(b"key"), Some(&vec![index as u8; 5000]));
        }
        let batch = builder.build();
        let view = BatchView::new(&batch).expect("whole");
        let mut scratch = WalkScratch::new();
        let mut walk = Walk::new(&view, &RULES, &mut scratch).expect("good");
        let mut steps = 0;
        let summary = loop {
            steps += 1;
            if let Some(summary) = walk.step(10_000).expect("good") {
                break summary;
            }
        };
        assert_eq!(Ok(summary), walk_once(&batch, &RULES));
        assert!(
            steps > 50,
            "{steps} steps for a megabyte in steps of 10 kB or a window"
        );
        if compression == Compression::None {
            assert!(steps <= 110, "{steps}");
        }
    }
}

#[test]
fn null_keys_are_told_by_index() {
    let mut builder = BatchBuilder::new(Compression::Zstd);
    for index in 0..5 {
        builder.push(1, (index % 2 == 0).then_some(b"k"), Some(b"v"));
    }
    let rules = WalkRules {
        keys_required: true,
        ..RULES
    };
    let error = walk_once(&builder.build(), &rules).expect_err("refused");
    assert!(!error.is_timestamp());
    let refused = |index| RecordError {
        index,
        kind: RecordErrorKind::NullKey,
    };
    assert_eq!(
        error,
        WalkError::Refused {
            errors: vec![refused(1), refused(3)],
            errors_count: 2
        }
    );
    assert!(walk_once(&builder.build(), &RULES).is_ok());
}

#[test]
fn timestamps_are_bounded_on_both_sides_and_none_is_free() {
    let bounds = TimestampBounds {
        now_ms: 10_000,
        before_max_ms: 1000,
        after_max_ms: 500,
    };
    let rules = WalkRules {
        timestamps: Some(bounds),
        ..RULES
    };
    let mut builder = BatchBuilder::new(Compression::None);
    for timestamp in [9000, 8999, 10_500, 10_501, -1, i64::MIN, i64::MAX] {
        builder.push(timestamp, None, None);
    }
    let error = walk_once(&builder.build(), &rules).expect_err("refused");
    assert!(error.is_timestamp());
    let refused = |index, timestamp| RecordError {
        index,
        kind: RecordErrorKind::Timestamp { timestamp },
    };
    let errors = vec![
        refused(1, 8999),
        refused(3, 10_501),
        refused(5, i64::MIN),
        refused(6, i64::MAX),
    ];
    assert_eq!(
        error,
        WalkError::Refused {
            errors,
            errors_count: 4
        }
    );
}

#[test]
fn the_default_bounds_allow_the_distant_past() {
    let bounds = TimestampBounds {
        now_ms: 1_800_000_000_000,
        before_max_ms: i64::MAX,
        after_max_ms: 3_600_000,
    };
    assert!(bounds.allows(0) && bounds.allows(-5) && bounds.allows(1_800_003_600_000));
    assert!(!bounds.allows(1_800_003_600_001));
}

#[test]
fn offsets_count_up_from_zero() {
    for compression in ALL {
        let mut builder = BatchBuilder::new(compression);
        builder.push_at(0, 1, None, None, &[]);
        builder.push_at(2, 1, None, None, &[]);
        builder.push_at(2, 1, None, None, &[]);
        let error = RecordError {
            index: 1,
            kind: RecordErrorKind::OffsetDelta { offset_delta: 2 },
        };
        assert_eq!(
            walk_once(&builder.build(), &RULES),
            Err(WalkError::Refused {
                errors: vec![error],
                errors_count: 1
            })
        );
    }
}

#[test]
fn counts_that_do_not_match_are_seen() {
    for compression in ALL {
        let mut builder = BatchBuilder::new(compression);
        builder.push(1, None, Some(b"one"));
        builder.push(1, None, Some(b"two"));
        let mut batch = builder.build();
        batch[57..61].copy_from_slice(&1_i32.to_be_bytes());
        let too_many = Err(WalkError::Records(RecordsError::TrailingBytes));
        assert_eq!(walk_once(&batch, &RULES), too_many, "{compression:?}");
        batch[57..61].copy_from_slice(&3_i32.to_be_bytes());
        let too_few = Err(WalkError::Records(RecordsError::Malformed));
        assert_eq!(walk_once(&batch, &RULES), too_few, "{compression:?}");
    }
}

#[test]
fn what_cannot_be_decompressed_is_an_error() {
    for compression in &ALL[1..] {
        let mut builder = BatchBuilder::new(*compression);
        builder.push(1, None, Some(b"one"));
        let batch = with_payload(&builder.build(), b"not what it says");
        assert!(
            matches!(walk_once(&batch, &RULES), Err(WalkError::Records(_))),
            "{compression:?}"
        );
    }
}

#[test]
fn bombs_end_at_the_bound() {
    let zeros = vec![0; 16 << 20];
    for compression in &ALL[1..] {
        let mut builder = BatchBuilder::new(*compression);
        builder.push(1, None, Some(&zeros));
        let batch = builder.build();
        let rules = WalkRules {
            output_bytes_max: 8 << 20,
            ..RULES
        };
        let too_large = Err(WalkError::Records(RecordsError::TooLarge));
        assert_eq!(walk_once(&batch, &rules), too_large, "{compression:?}");
    }
}

#[test]
fn a_null_key_in_every_record_costs_bounded_memory() {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..5000 {
        builder.push(1, None, None);
    }
    let rules = WalkRules {
        keys_required: true,
        ..RULES
    };
    match walk_once(&builder.build(), &rules) {
        Err(WalkError::Refused {
            errors,
            errors_count: 5000,
        }) => {
            assert_eq!(errors.len(), RECORD_ERRORS_MAX);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_long_compressed_batches_want_a_task() {
    let batch = |compression| {
        let mut builder = BatchBuilder::new(compression);
        let noise: Vec<u8> = (0..20_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        builder.push(1, None, Some(&noise));
        builder.build()
    };
    let wants = |bytes: &[u8], max| wants_task(&BatchView::new(bytes).expect("whole"), max);
    assert!(!wants(&batch(Compression::None), 1000));
    assert!(wants(&batch(Compression::Lz4), 100));
    assert!(!wants(&batch(Compression::Lz4), 1_000_000));
}

proptest! {
    /// The walk accepts exactly what the record iterator can read with offsets in order.
    #[test]
    fn walk_and_iterator_agree_on_damaged_batches(
        position in any::<proptest::sample::Index>(),
        flip in 1_u8..,
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut builder = BatchBuilder::new(Compression::None);
        let headers = [Header { key: b"h", value: Some(b"x") }];
        builder.push_with_headers(1, Some(b"key"), Some(b"value"), &headers);
        builder.push(2, None, Some(b"second"));
        builder.push_with_headers(3, Some(b""), None, &headers);
        let good = builder.build();
        let mut payload = good[HEADER_BYTES..].to_vec();
        let position = position.index(payload.len());
        payload[position] ^= flip;
        if let Some(cut) = cut {
            payload.truncate(cut.index(payload.len()));
        }
        let batch = with_payload(&good, &payload);
        let view = BatchView::new(&batch).expect("whole");
        let read: Result<Vec<_>, _> = RecordIter::new(view.header(), view.payload()).collect();
        let in_order = read.as_ref().is_ok_and(|records| {
            records.iter().enumerate().all(|(index, record)| record.offset == index as i64)
        });
        prop_assert_eq!(walk_once(&batch, &RULES).is_ok(), in_order);
        let bounds = TimestampBounds { now_ms: 2, before_max_ms: 10, after_max_ms: 100 };
        for keys_required in [false, true] {
            for timestamps in [None, Some(bounds)] {
                let rules = WalkRules { keys_required, timestamps, ..RULES };
                prop_assert_eq!(in_place::walk(&view, &rules), walk_in_steps(&view, &rules).ok());
            }
        }
    }

    /// Whatever a stranger does to a compressed payload, no codec panics or passes its bound.
    #[test]
    fn damaged_payloads_never_panic(
        codec in 1_i16..5,
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
        noise in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
    ) {
        let mut builder = BatchBuilder::new(Compression::from_id(codec).expect("known"));
        for index in 0..200_u32 {
            let value = index.wrapping_mul(2_654_435_761).to_be_bytes().repeat(1 + index as usize % 40);
            builder.push(1, Some(b"key"), Some(&value));
        }
        let good = builder.build();
        let mut payload = good[HEADER_BYTES..].to_vec();
        for (position, byte) in flips {
            let position = position.index(payload.len());
            payload[position] = byte;
        }
        if let Some(cut) = cut {
            payload.truncate(cut.index(payload.len()));
        }
        if let Some(noise) = noise {
            // Keeps the codec's magic, so that more than the first check is reached.
            payload.truncate(8);
            payload.extend_from_slice(&noise);
        }
        let batch = with_payload(&good, &payload);
        let rules = WalkRules { output_bytes_max: 1 << 20, ..RULES };
        if let Ok(summary) = walk_once(&batch, &rules) {
            prop_assert!(summary.uncompressed_bytes <= 1 << 20);
            prop_assert_eq!(summary.records_count, 200);
        }
        let view = BatchView::new(&batch).expect("whole");
        let mut scratch = RecordsScratch::new();
        if let Ok(records) = scratch.records(&view, 1 << 20) {
            prop_assert!(records.count() <= 201);
        }
    }
}
