use super::*;
use crate::batch::{TimestampType, rewrite_timestamps};
use crate::builder::BatchBuilder;
use crate::compression::default_level;
use crate::records::{Header, RecordsScratch};

const ALL: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

#[test]
fn recompressing_keeps_records_header_fields_and_append_time() {
    for from in ALL {
        for to in ALL {
            let mut builder = BatchBuilder::new(from)
                .base_offset(9)
                .leader_epoch(2)
                .producer(5, 6, 7);
            let headers = [Header {
                key: b"h",
                value: None,
            }];
            builder.push_with_headers(100, Some(b"k"), None, &headers);
            builder.push(50, None, Some(&[1; 1000]));
            let mut batch = builder.build();
            rewrite_timestamps(&mut batch, TimestampType::LogAppendTime, 777);
            let view = BatchView::new(&batch).expect("whole");
            let level = default_level(to);
            let again = recompress(&view, to, level, 1 << 20, &mut RecordsScratch::new())
                .expect("recompresses");
            let again = BatchView::new(&again).expect("whole");
            assert_eq!(again.verify(), Ok(()));
            let (old, new) = (view.header(), again.header());
            assert_eq!(new.attributes(), old.attributes().with_compression(to));
            assert_eq!(
                (
                    new.base_offset(),
                    new.last_offset_delta(),
                    new.partition_leader_epoch()
                ),
                (
                    old.base_offset(),
                    old.last_offset_delta(),
                    old.partition_leader_epoch()
                )
            );
            assert_eq!(
                (new.producer_id(), new.producer_epoch(), new.base_sequence()),
                (5, 6, 7)
            );
            assert_eq!((new.base_timestamp(), new.max_timestamp()), (100, 777));
            let (mut one, mut two) = (RecordsScratch::new(), RecordsScratch::new());
            assert_eq!(
                one.uncompressed(&view, 1 << 20).expect("good"),
                two.uncompressed(&again, 1 << 20).expect("good")
            );
        }
    }
}

fn noise(bytes: u32) -> Vec<u8> {
    (0..bytes)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

#[test]
fn steps_come_to_the_same_batch() {
    for to in ALL {
        let mut builder = BatchBuilder::new(Compression::Gzip);
        for _ in 0..10 {
            builder.push(1, None, Some(&noise(70_000)));
        }
        let batch = builder.build();
        let view = BatchView::new(&batch).expect("whole");
        let (mut scratch, mut stepping) = (RecordsScratch::new(), RecordsScratch::new());
        let mut work =
            Recompress::new(&view, to, default_level(to), 1 << 20, &mut stepping).expect("good");
        let mut steps = 1;
        let stepped = loop {
            match work.step(64 * 1024).expect("good") {
                Some(batch) => break batch,
                None => steps += 1,
            }
        };
        assert!(steps >= 5, "{steps}");
        let at_once = recompress(&view, to, default_level(to), 1 << 20, &mut scratch);
        assert!(at_once == Ok(stepped), "{to:?}");
    }
}

#[test]
fn what_grows_beyond_its_bound_is_refused() {
    let mut builder = BatchBuilder::new(Compression::Zstd);
    builder.push(1, None, Some(&vec![0; 4 << 20]));
    let batch = builder.build();
    let view = BatchView::new(&batch).expect("whole");
    let mut scratch = RecordsScratch::new();
    let uncompressed = builder.uncompressed_bytes();
    let mut into_none = |bytes_max| {
        recompress(&view, Compression::None, 0, bytes_max, &mut scratch).map(|batch| batch.len())
    };
    assert_eq!(into_none(uncompressed as u64), Ok(uncompressed));
    assert_eq!(
        into_none(uncompressed as u64 - 1),
        Err(RecordsError::TooLarge)
    );
    for to in ALL {
        let tiny = recompress(&view, to, default_level(to), 70, &mut scratch);
        assert_eq!(tiny, Err(RecordsError::TooLarge), "{to:?}");
    }
}

#[test]
fn a_batch_without_records_only_changes_its_name() {
    let batch = BatchBuilder::new(Compression::Lz4)
        .producer(1, 2, 3)
        .build();
    let view = BatchView::new(&batch).expect("whole");
    let again = recompress(
        &view,
        Compression::Zstd,
        3,
        1000,
        &mut RecordsScratch::new(),
    );
    let again = again.expect("recompresses");
    let again = BatchView::new(&again).expect("whole");
    assert_eq!(
        (again.len_bytes(), again.verify_crc()),
        (HEADER_BYTES, Ok(()))
    );
    assert_eq!(
        again.header().attributes().compression(),
        Some(Compression::Zstd)
    );
}
