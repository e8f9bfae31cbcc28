use super::*;
use crate::builder::BatchBuilder;

/// A batch of one record, written down by hand from the format: base offset 0, epoch 5, CreateTime
/// 1000, key "k", value "v", header "h" = null.
fn by_hand() -> Vec<u8> {
    let record: &[u8] = &[
        0x16, // eleven bytes follow (zigzag)
        0x00, // attributes
        0x00, // timestamp delta
        0x00, // offset delta
        0x02, b'k', // key
        0x02, b'v', // value
        0x02, // one header
        0x02, b'h', // its key
        0x01, // its value: null
    ];
    let mut batch = Vec::new();
    batch.extend_from_slice(&0_i64.to_be_bytes());
    batch.extend_from_slice(&((49 + record.len()) as i32).to_be_bytes());
    batch.extend_from_slice(&5_i32.to_be_bytes());
    batch.push(2);
    batch.extend_from_slice(&[0; 4]);
    batch.extend_from_slice(&0_i16.to_be_bytes());
    batch.extend_from_slice(&0_i32.to_be_bytes());
    batch.extend_from_slice(&1000_i64.to_be_bytes());
    batch.extend_from_slice(&1000_i64.to_be_bytes());
    batch.extend_from_slice(&(-1_i64).to_be_bytes());
    batch.extend_from_slice(&(-1_i16).to_be_bytes());
    batch.extend_from_slice(&(-1_i32).to_be_bytes());
    batch.extend_from_slice(&1_i32.to_be_bytes());
    batch.extend_from_slice(record);
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn sample(records: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    for index in 0..records {
        builder.push(1000 + index as i64, Some(b"key"), Some(b"value"));
    }
    builder.build()
}

#[test]
fn builder_writes_what_the_format_says() {
    let mut builder = BatchBuilder::new(Compression::None).leader_epoch(5);
    let headers = [crate::records::Header {
        key: b"h",
        value: None,
    }];
    builder.push_with_headers(1000, Some(b"k"), Some(b"v"), &headers);
    assert_eq!(builder.build(), by_hand());
}

#[test]
fn header_fields_are_read_where_they_stand() {
    let batch = BatchBuilder::new(Compression::Zstd)
        .base_offset(0x0102_0304_0506_0708)
        .leader_epoch(7)
        .producer(0x1112_1314_1516_1718, 0x2122, 0x3132_3334)
        .transactional()
        .control()
        .build();
    let header = BatchHeader::ref_from_prefix(&batch).expect("whole");
    assert_eq!(header.base_offset(), Offset(0x0102_0304_0506_0708));
    assert_eq!(&batch[..8], &[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(header.partition_leader_epoch(), LeaderEpoch(7));
    assert_eq!(
        &batch[43..57],
        [
            0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x21, 0x22, 0x31, 0x32, 0x33, 0x34
        ]
    );
    assert_eq!(header.producer_id(), 0x1112_1314_1516_1718);
    assert_eq!(header.producer_epoch(), 0x2122);
    assert_eq!(header.base_sequence(), 0x3132_3334);
    // zstd is 4, transactional 16, control 32.
    assert_eq!(header.attributes().0, 4 + 16 + 32);
    assert_eq!(header.attributes().compression(), Some(Compression::Zstd));
    assert!(header.attributes().is_transactional() && header.attributes().is_control());
    assert!(!header.attributes().has_delete_horizon());
}

#[test]
fn every_flipped_byte_under_the_checksum_is_seen() {
    let batch = sample(3);
    assert_eq!(BatchView::new(&batch).expect("good").verify(), Ok(()));
    for position in 8..batch.len() {
        for flip in [0x01, 0x80] {
            let mut bad = batch.clone();
            bad[position] ^= flip;
            let seen = BatchView::new(&bad)
                .and_then(|batch| batch.verify())
                .is_err();
            // Base offset and leader epoch are stamped by the broker and lie outside the checksum.
            assert_eq!(seen, !(12..16).contains(&position), "byte {position}");
        }
    }
}

#[test]
fn every_cut_is_seen() {
    let batch = sample(2);
    for length in 0..batch.len() {
        assert!(BatchView::new(&batch[..length]).is_err(), "length {length}");
    }
    assert_eq!(split(&[]).count(), 0);
}

#[test]
fn split_walks_whole_batches_and_ends_at_a_cut_one() {
    let (one, two) = (sample(1), sample(2));
    let mut run = [one.clone(), two.clone(), one.clone()].concat();
    run.truncate(run.len() - 1);
    let found: Vec<_> = split(&run)
        .map(|batch| batch.map(|batch| batch.bytes().to_vec()))
        .collect();
    assert_eq!(found, [Ok(one), Ok(two), Err(BatchError::Truncated)]);
}

#[test]
fn absurd_lengths_are_errors() {
    for batch_length in [i32::MIN, -1, 0, 48] {
        let mut batch = sample(1);
        batch[8..12].copy_from_slice(&batch_length.to_be_bytes());
        assert_eq!(
            BatchView::first(&batch).map(drop),
            Err(BatchError::LengthTooSmall { batch_length })
        );
    }
    let mut batch = sample(1);
    batch[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
    assert_eq!(
        BatchView::first(&batch).map(drop),
        Err(BatchError::Truncated)
    );
}

#[test]
fn stamping_leaves_the_checksum_valid() {
    let mut batch = sample(2);
    stamp(&mut batch, Offset(77), LeaderEpoch(3));
    let view = BatchView::new(&batch).expect("whole");
    assert_eq!(view.verify(), Ok(()));
    assert_eq!(
        (view.header().base_offset(), view.header().offset_end()),
        (Offset(77), Offset(79))
    );
    assert_eq!(view.header().partition_leader_epoch(), LeaderEpoch(3));
}

#[test]
fn log_append_time_gets_a_new_checksum() {
    let mut batch = sample(2);
    rewrite_timestamps(&mut batch, TimestampType::LogAppendTime, 123_456);
    let view = BatchView::new(&batch).expect("whole");
    assert_eq!(view.verify(), Ok(()));
    assert_eq!(view.header().max_timestamp(), 123_456);
    assert_eq!(
        view.header().attributes().timestamp_type(),
        TimestampType::LogAppendTime
    );
    // The base timestamp stays: deltas count from it.
    assert_eq!(view.header().base_timestamp(), 1000);
}

#[test]
fn sequences_wrap_to_zero() {
    assert_eq!(sequence_plus(i32::MAX, 1), 0);
    assert_eq!(sequence_plus(i32::MAX - 1, 5), 3);
    assert_eq!(sequence_plus(0, -1), i32::MAX);
    assert_eq!(sequence_plus(5, 2), 7);
}

#[test]
fn produced_batches_are_refused_by_rule() {
    let limit = 1_000_000;
    let fix = |edit: &dyn Fn(&mut [u8])| {
        let mut batch = sample(2);
        edit(&mut batch);
        stamp_crc(&mut batch);
        batch
    };
    let refused = |bytes: &[u8]| check_produced(bytes, limit).map(drop).expect_err("refused");

    assert!(check_produced(&sample(2), limit).is_ok());
    assert_eq!(refused(&[]), ProducedError::Empty);
    assert_eq!(
        refused(&[sample(1), sample(1)].concat()),
        ProducedError::SeveralBatches
    );
    assert_eq!(refused(&fix(&|b| b[16] = 0)), ProducedError::OldMagic(0));
    assert_eq!(refused(&fix(&|b| b[16] = 1)), ProducedError::OldMagic(1));
    assert_eq!(
        refused(&fix(&|b| b[16] = 3)),
        ProducedError::UnknownMagic(3)
    );
    assert_eq!(
        refused(&fix(&|b| b[16] = 0xff)),
        ProducedError::UnknownMagic(-1)
    );
    // What is cut off is no batch; what is shorter than any batch is a broken one.
    for length in [10, 12, 16, 60, 70] {
        assert_eq!(refused(&sample(2)[..length]), ProducedError::CutOff);
    }
    let stated = |batch_length: i32| {
        refused(&fix(&|b| {
            b[8..12].copy_from_slice(&batch_length.to_be_bytes())
        }))
    };
    assert_eq!(stated(5000), ProducedError::CutOff);
    for batch_length in [-1, 0, 13, 14, 48] {
        assert_eq!(stated(batch_length), ProducedError::Length { batch_length });
    }
    // The length is looked at before the format, and the format before the end.
    assert_eq!(refused(&[0; 12]), ProducedError::Length { batch_length: 0 });
    assert_eq!(
        refused(&fix(&|b| {
            b[8] = 1;
            b[16] = 9;
        })),
        ProducedError::UnknownMagic(9)
    );
    assert_eq!(refused(&fix(&|b| b[7] = 9)), ProducedError::BaseOffset(9));
    let large = sample(2);
    assert_eq!(
        check_produced(&large, large.len() - 1).map(drop),
        Err(ProducedError::TooLarge {
            batch_bytes: large.len()
        })
    );
    let mut corrupt = sample(2);
    corrupt[64] ^= 1;
    assert!(matches!(refused(&corrupt), ProducedError::Crc { .. }));
    assert_eq!(refused(&fix(&|b| b[23] = 0xff)), ProducedError::OffsetRange);
    assert_eq!(refused(&fix(&|b| b[60] = 0)), ProducedError::NoRecords);
    assert_eq!(
        refused(&fix(&|b| b[60] = 3)),
        ProducedError::CountMismatch {
            records_count: 3,
            last_offset_delta: 1
        }
    );
    assert_eq!(refused(&fix(&|b| b[22] |= 0x20)), ProducedError::Control);
    assert_eq!(
        refused(&fix(&|b| b[22] |= 0x05)),
        ProducedError::UnknownCompression(5)
    );
    assert_eq!(
        refused(&fix(&|b| b[43..51].copy_from_slice(&7_i64.to_be_bytes()))),
        ProducedError::NegativeSequence(-1)
    );
}
