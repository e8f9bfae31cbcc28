use proptest::prelude::*;

use super::*;
use crate::batch::{BatchView, Compression};
use crate::builder::BatchBuilder;

const ID: i64 = 1000;

fn batch(id: i64, epoch: i16, base_sequence: i32, records: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None).producer(id, epoch, base_sequence);
    for _ in 0..records {
        builder.push(77, None, None);
    }
    builder.build()
}

/// A partition with its end offset, as the log would drive it.
#[derive(Default)]
struct Partition {
    states: ProducerStates,
    offset_end: i64,
}

impl Partition {
    fn check(&self, epoch: i16, base_sequence: i32, records: usize) -> SequenceCheck {
        let bytes = batch(ID, epoch, base_sequence, records);
        self.states
            .check(BatchView::new(&bytes).expect("whole").header())
    }

    /// What a producer would be told: its base offset, or the error.
    fn produce(&mut self, epoch: i16, base_sequence: i32, records: usize) -> Result<i64, i16> {
        let bytes = batch(ID, epoch, base_sequence, records);
        let header = BatchView::new(&bytes).expect("whole").header();
        match self.states.check(header) {
            SequenceCheck::New => {
                let base = self.offset_end;
                self.states.apply(header, Offset(base), 5000);
                self.offset_end += records as i64;
                Ok(base)
            }
            SequenceCheck::Duplicate(original) => Ok(original.base_offset.0),
            SequenceCheck::OutOfOrder => Err(45),
            SequenceCheck::Fenced => Err(47),
        }
    }
}

#[test]
fn batches_without_a_producer_leave_no_state() {
    let mut states = ProducerStates::new();
    let bytes = batch(-1, -1, -1, 3);
    let header = BatchView::new(&bytes).expect("whole").header();
    assert_eq!(states.check(header), SequenceCheck::New);
    states.apply(header, Offset(0), 1);
    assert!(states.is_empty());
}

#[test]
fn a_producer_without_state_may_start_anywhere() {
    let mut partition = Partition::default();
    assert_eq!(partition.produce(3, 42, 2), Ok(0));
    assert_eq!(partition.produce(3, 44, 1), Ok(2));
    assert_eq!(partition.produce(3, 46, 1), Err(45));
}

#[test]
fn gaps_overlaps_and_rewinds_are_out_of_order() {
    let mut partition = Partition::default();
    assert_eq!(partition.produce(0, 0, 10), Ok(0));
    assert_eq!(partition.produce(0, 11, 1), Err(45), "gap");
    assert_eq!(partition.produce(0, 9, 2), Err(45), "overlap at the end");
    assert_eq!(
        partition.produce(0, 0, 9),
        Err(45),
        "part of a remembered batch"
    );
    assert_eq!(
        partition.produce(0, 0, 11),
        Err(45),
        "more than a remembered batch"
    );
    assert_eq!(
        partition.produce(0, 10, 1),
        Ok(10),
        "and none of them left a trace"
    );
}

#[test]
fn the_last_five_are_remembered_and_the_sixth_is_not() {
    let mut partition = Partition::default();
    for index in 0..6 {
        assert_eq!(partition.produce(0, index * 3, 3), Ok(i64::from(index) * 3));
    }
    for index in 1..6 {
        assert_eq!(
            partition.produce(0, index * 3, 3),
            Ok(i64::from(index) * 3),
            "{index}"
        );
    }
    assert_eq!(partition.produce(0, 0, 3), Err(45));
    assert_eq!(partition.offset_end, 18);
}

#[test]
fn a_duplicate_tells_what_the_original_got() {
    let mut partition = Partition {
        offset_end: 500,
        ..Partition::default()
    };
    assert_eq!(partition.produce(0, 7, 4), Ok(500));
    let original = RememberedBatch {
        base_sequence: 7,
        last_sequence: 10,
        base_offset: Offset(500),
        offset_end: Offset(504),
        timestamp: 77,
    };
    assert_eq!(partition.check(0, 7, 4), SequenceCheck::Duplicate(original));
}

#[test]
fn epochs_rise_and_start_at_zero() {
    let mut partition = Partition::default();
    assert_eq!(partition.produce(5, 0, 1), Ok(0));
    assert_eq!(partition.produce(4, 1, 1), Err(47), "an old epoch");
    assert_eq!(
        partition.produce(4, 0, 1),
        Err(47),
        "an old epoch, even from its start"
    );
    assert_eq!(
        partition.produce(6, 1, 1),
        Err(45),
        "a new epoch that does not start at 0"
    );
    assert_eq!(partition.produce(6, 0, 1), Ok(1));
    assert_eq!(
        partition.produce(5, 0, 1),
        Err(47),
        "what was a duplicate is fenced now"
    );
    assert_eq!(partition.produce(6, 1, 1), Ok(2));
}

#[test]
fn sequences_wrap_between_and_inside_batches() {
    let mut partition = Partition::default();
    assert_eq!(partition.produce(0, i32::MAX - 1, 2), Ok(0));
    assert_eq!(
        partition.produce(0, 0, 1),
        Ok(2),
        "after 2147483647 comes 0"
    );

    let mut partition = Partition::default();
    assert_eq!(partition.produce(0, i32::MAX, 3), Ok(0), "2147483647, 0, 1");
    assert_eq!(partition.produce(0, 3, 1), Err(45));
    assert_eq!(partition.produce(0, 2, 1), Ok(3));
    assert_eq!(partition.produce(0, i32::MAX, 3), Ok(0), "its duplicate");
}

#[test]
fn checking_changes_nothing() {
    let mut partition = Partition::default();
    partition.produce(0, 0, 1).expect("first");
    let before = partition.states.clone();
    for (epoch, sequence) in [(0, 0), (0, 1), (0, 9), (1, 0), (1, 4)] {
        partition.check(epoch, sequence, 1);
    }
    assert_eq!(partition.states, before);
}

#[test]
fn idle_producers_expire_by_the_brokers_clock() {
    let mut partition = Partition::default();
    partition.produce(0, 0, 1).expect("first");
    // Appended at 5000; the record's own time, 77, does not count.
    assert_eq!(partition.states.next_expiry_ms(1000), Some(6000));
    assert_eq!(partition.states.expire(5999, 1000), 0);
    assert_eq!(partition.states.expire(6000, 1000), 1);
    assert_eq!(
        partition.produce(0, 30, 1),
        Ok(1),
        "without state any sequence goes"
    );
}

#[test]
fn producers_are_described() {
    let mut partition = Partition::default();
    partition.produce(2, 0, 5).expect("first");
    let described: Vec<_> = partition.states.describe().collect();
    assert_eq!(
        described,
        [ProducerDescription {
            producer_id: ID,
            producer_epoch: 2,
            last_sequence: 4,
            last_timestamp: 77,
            coordinator_epoch: -1,
            current_txn_start_offset: -1,
        }]
    );
}

#[test]
fn damaged_snapshots_are_refused() {
    let mut partition = Partition::default();
    partition.produce(2, 0, 5).expect("first");
    let mut snapshot = Vec::new();
    partition.states.encode(&mut snapshot);
    for length in 0..snapshot.len() {
        assert_eq!(
            ProducerStates::decode(&snapshot[..length]),
            None,
            "{length}"
        );
    }
    let mut absurd = snapshot.clone();
    absurd[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(ProducerStates::decode(&absurd), None);
    let mut version = snapshot;
    version[0] = 9;
    assert_eq!(ProducerStates::decode(&version), None);
}

proptest! {
    #[test]
    fn snapshots_come_back(
        batches in proptest::collection::vec((0_i64..4, 0_i16..3, any::<i32>(), 1_usize..4), 0..40),
    ) {
        let mut states = ProducerStates::new();
        for (offset, (id, epoch, sequence, records)) in batches.into_iter().enumerate() {
            let bytes = batch(id, epoch, sequence & i32::MAX, records);
            let header = BatchView::new(&bytes).expect("whole").header();
            states.apply(header, Offset(offset as i64 * 10), offset as i64);
        }
        let mut snapshot = Vec::new();
        states.encode(&mut snapshot);
        snapshot.extend_from_slice(b"rest");
        prop_assert_eq!(ProducerStates::decode(&snapshot), Some((states, &b"rest"[..])));
    }

    /// However batches are repeated and shuffled among the last five, every record is appended once
    /// and every retry hears its first offset.
    #[test]
    fn retries_never_duplicate(retries in proptest::collection::vec(0_usize..5, 1..60)) {
        let mut partition = Partition::default();
        let mut sent: Vec<(i32, i64)> = Vec::new();
        let mut next = i32::MAX - 20;
        for back in retries {
            let base = partition.produce(0, next, 3).expect("in sequence");
            sent.push((next, base));
            next = sequence_plus(next, 3);
            if let Some(&(sequence, base)) = sent.iter().rev().nth(back) {
                prop_assert_eq!(partition.produce(0, sequence, 3), Ok(base));
            }
        }
        prop_assert_eq!(partition.offset_end, sent.len() as i64 * 3);
    }
}
