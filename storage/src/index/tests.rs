use proptest::prelude::*;

use super::*;
use crate::batch::{Batches, Compression, split};
use crate::builder::BatchBuilder;

fn batch(base_offset: i64, records: usize, timestamp: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None).base_offset(base_offset);
    for _ in 0..records {
        builder.push(timestamp, None, Some(&[0; 90]));
    }
    builder.build()
}

fn build(base_offset: i64, batches: Batches<'_>, interval_bytes: u64) -> SegmentIndex {
    let mut index = SegmentIndex::new(Offset(base_offset));
    let mut position = 0;
    for batch in batches {
        let batch = batch.expect("whole");
        index.on_batch(batch.header(), position, interval_bytes);
        position += batch.len_bytes() as u64;
    }
    index
}

#[test]
fn files_have_kafkas_bytes() {
    // One record each of 97 body bytes + 2 of length: 61 + 99 = 160 bytes a batch.
    let segment = [
        batch(100, 1, 1000),
        batch(101, 1, 3000),
        batch(102, 1, 2000),
    ]
    .concat();
    assert_eq!(segment.len(), 480);
    let mut index = build(100, split(&segment), 159);
    // The first batch gets no entry; the others are each more than 159 bytes after the last.
    assert_eq!(
        index.offset_index_bytes(),
        [
            0, 0, 0, 1, 0, 0, 0, 160, // offset 101 at 160
            0, 0, 0, 2, 0, 0, 1, 64, // offset 102 at 320
        ]
    );
    // Timestamp 3000 came with offset 101; 2000 does not rise above it.
    assert_eq!(
        index.time_index_bytes(),
        [0, 0, 0, 0, 0, 0, 0x0b, 0xb8, 0, 0, 0, 1]
    );
    index.close();
    assert_eq!(index.time_entries().len(), 1, "nothing new at the close");
    assert_eq!(
        (index.max_timestamp(), index.max_timestamp_offset()),
        (3000, Offset(101))
    );
}

#[test]
fn closing_notes_the_largest_timestamp() {
    let segment = batch(100, 2, 1000);
    let mut index = build(100, split(&segment), 4096);
    assert!(index.time_entries().is_empty());
    index.close();
    assert_eq!(
        index.time_index_bytes(),
        [0, 0, 0, 0, 0, 0, 0x03, 0xe8, 0, 0, 0, 1]
    );
}

#[test]
fn relative_offsets_have_31_bits() {
    let index = SegmentIndex::new(Offset(50));
    assert!(index.can_hold(Offset(50)) && index.can_hold(Offset(50 + i64::from(i32::MAX))));
    assert!(!index.can_hold(Offset(51 + i64::from(i32::MAX))) && !index.can_hold(Offset(49)));
}

#[test]
fn an_index_is_full_when_no_entry_fits() {
    let segment = [batch(0, 1, 1), batch(1, 1, 2), batch(2, 1, 3)].concat();
    let index = build(0, split(&segment), 0);
    assert_eq!(
        (index.offset_entries().len(), index.time_entries().len()),
        (2, 2)
    );
    assert!(!index.is_full(36));
    assert!(index.is_full(35));
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let segment: Vec<u8> = (0..5).flat_map(|n| batch(n, 1, n * 10)).collect();
    let index = build(0, split(&segment), 0);
    let (offsets, times) = (index.offset_index_bytes(), index.time_index_bytes());
    let decode = |offsets: &[u8], times: &[u8], bytes: usize, end: i64| {
        SegmentIndex::decode(Offset(0), offsets, times, bytes as u64, Offset(end)).map(drop)
    };
    assert_eq!(decode(offsets, times, segment.len(), 5), Ok(()));
    assert_eq!(
        decode(&offsets[1..], times, segment.len(), 5),
        Err(IndexError::Length)
    );
    assert_eq!(
        decode(offsets, &times[..13], segment.len(), 5),
        Err(IndexError::Length)
    );
    assert_eq!(decode(offsets, times, 300, 5), Err(IndexError::Range));
    assert_eq!(
        decode(offsets, times, segment.len(), 3),
        Err(IndexError::Range)
    );
    let twice = [offsets, offsets].concat();
    assert_eq!(
        decode(&twice, times, segment.len(), 5),
        Err(IndexError::Order)
    );
    let twice = [times, times].concat();
    assert_eq!(
        decode(offsets, &twice, segment.len(), 5),
        Err(IndexError::Order)
    );
    // What a preallocated file that was never cut holds behind its entries.
    let padded = [offsets, &[0; 16]].concat();
    assert_eq!(
        decode(&padded, times, segment.len(), 5),
        Err(IndexError::Order)
    );
}

proptest! {
    /// From every position that the index gives, a scan finds what a scan from the start finds.
    #[test]
    fn lookups_never_overshoot(
        shape in proptest::collection::vec((1_usize..6, 0_i64..50, 0_i64..4), 1..40),
        interval_bytes in 0_u64..2000,
    ) {
        let base = 1000;
        let mut segment = Vec::new();
        let mut batches = Vec::new();
        let mut next = base;
        for (records, timestamp, gap) in shape {
            next += gap;
            let bytes = batch(next, records, timestamp);
            batches.push((segment.len() as u64, next + records as i64 - 1, timestamp));
            segment.extend_from_slice(&bytes);
            next += records as i64;
        }
        let mut index = build(base, split(&segment), interval_bytes);
        index.close();
        let again = SegmentIndex::decode(
            Offset(base),
            index.offset_index_bytes(),
            index.time_index_bytes(),
            segment.len() as u64,
            Offset(next),
        );
        let again = again.expect("its own files fit");
        prop_assert_eq!(again.max_timestamp(), index.max_timestamp());
        for offset in base - 1..next + 2 {
            let holder = batches.iter().find(|(_, last, _)| *last >= offset);
            let position = again.position_for_offset(Offset(offset));
            prop_assert_eq!(position, index.position_for_offset(Offset(offset)));
            if let Some(holder) = holder {
                prop_assert!(position <= holder.0);
            }
            prop_assert!(batches.iter().any(|(at, ..)| *at == position));
        }
        for timestamp in -1..51 {
            let first = batches.iter().find(|(_, _, t)| *t >= timestamp);
            if let Some(first) = first {
                prop_assert!(again.position_for_timestamp(timestamp) <= first.0);
            }
        }
    }
}
