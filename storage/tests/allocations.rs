//! What the produce path may not do on a data core: allocate for a header, a checksum or a record.
//! Counts allocations of the test's own thread; knows nothing of speed.

use allocation_counter::measure;
use millrace_storage::batch::{BatchView, Compression, check_produced, rewrite_timestamps, stamp};
use millrace_storage::batch::{TimestampType, split};
use millrace_storage::builder::BatchBuilder;
use millrace_storage::producer_state::{ProducerStates, SequenceCheck};
use millrace_storage::types::{LeaderEpoch, Offset};
use millrace_storage::walk::{TimestampBounds, WalkRules, WalkScratch, walk};

const RULES: WalkRules = WalkRules {
    keys_required: true,
    timestamps: Some(TimestampBounds {
        now_ms: 1000,
        before_max_ms: 1000,
        after_max_ms: 1000,
    }),
    output_bytes_max: 1 << 24,
};

fn batch(compression: Compression, records: usize, record_bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(compression).producer(1, 0, 0);
    let value = vec![b'x'; record_bytes];
    for _ in 0..records {
        builder.push(1000, Some(b"key"), Some(&value));
    }
    builder.build()
}

#[test]
fn header_checksum_walk_and_stamp_allocate_nothing() {
    let mut bytes = batch(Compression::None, 16, 1024);
    let mut scratch = WalkScratch::new();
    let states = ProducerStates::new();
    let counted = measure(|| {
        let view = check_produced(&bytes, 1 << 20).expect("good");
        let summary = walk(&view, &RULES, &mut scratch).expect("good");
        assert_eq!(summary.records_count, 16);
        assert_eq!(states.check(view.header()), SequenceCheck::New);
        stamp(&mut bytes, Offset(5), LeaderEpoch(1));
        rewrite_timestamps(&mut bytes, TimestampType::LogAppendTime, 77);
        assert!(split(&bytes).all(|batch| batch.is_ok_and(|batch| batch.verify().is_ok())));
    });
    assert_eq!(counted.count_total, 0);
}

#[test]
fn walking_compressed_records_allocates_nothing_for_each() {
    for compression in [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let mut scratch = WalkScratch::new();
        let mut count = |records| {
            let bytes = batch(compression, records, 3);
            let view = BatchView::new(&bytes).expect("whole");
            walk(&view, &RULES, &mut scratch).expect("good");
            measure(|| {
                walk(&view, &RULES, &mut scratch).expect("good");
            })
            .count_total
        };
        let (few, many) = (count(10), count(5000));
        assert!(
            many <= few + 8,
            "{compression:?}: {few} for 10 records, {many} for 5000"
        );
    }
}
