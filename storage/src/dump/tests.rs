use super::*;
use crate::batch::{Compression, rewrite_timestamps, split};
use crate::builder::BatchBuilder;
use crate::index::SegmentIndex;
use crate::records::Header;
use crate::types::Offset;

const SHALLOW: DumpOptions = DumpOptions {
    deep: false,
    print_data: false,
    skip_record_metadata: false,
    bytes_max: None,
};

/// A segment at base offset 7. The expected lines of these tests are what Kafka 4.3.1's own tool
/// printed for these very batches.
fn segment() -> Vec<u8> {
    let mut segment = Vec::new();
    let mut next = 7;
    let mut add = |builder: BatchBuilder| {
        let batch = builder.base_offset(next).leader_epoch(3).build();
        next = BatchView::new(&batch)
            .expect("whole")
            .header()
            .offset_end()
            .0;
        segment.extend_from_slice(&batch);
    };
    let mut builder = BatchBuilder::new(Compression::None);
    let headers = [
        Header {
            key: b"h",
            value: Some(b"1"),
        },
        Header {
            key: b"h",
            value: None,
        },
        Header {
            key: b"g",
            value: Some(b"zz"),
        },
    ];
    builder.push_with_headers(1000, Some(b"k"), Some("vé".as_bytes()), &headers);
    builder.push(2000, None, Some(b"novalue"));
    builder.push(1500, Some(b"t"), None);
    builder.push(-1, None, None);
    builder.push(3000, Some(b"big"), Some(b"abcdefghij"));
    add(builder);
    let mut builder = BatchBuilder::new(Compression::None)
        .producer(4001, 1, 0)
        .transactional();
    builder.push(6000, Some(b"tx"), Some(b"q"));
    add(builder);
    for (kind, epoch) in [(1, 9), (0, 8)] {
        let mut builder = BatchBuilder::new(Compression::None)
            .producer(4001, 1, -1)
            .transactional()
            .control();
        builder.push(6001, Some(&[0, 0, 0, kind]), Some(&[0, 0, 0, 0, 0, epoch]));
        add(builder);
    }
    segment
}

fn dump(segment: &[u8], options: DumpOptions) -> Vec<String> {
    LogDump::new(segment, options, plain_text)
        .map(|line| line.expect("readable"))
        .collect()
}

#[test]
fn batches_look_like_kafkas() {
    assert_eq!(
        dump(&segment(), SHALLOW)[..1],
        [
            "baseOffset: 7 lastOffset: 11 count: 5 baseSequence: -1 lastSequence: -1 producerId: -1 \
         producerEpoch: -1 partitionLeaderEpoch: 3 isTransactional: false isControl: false \
         deleteHorizonMs: OptionalLong.empty position: 0 CreateTime: 3000 size: 137 magic: 2 \
         compresscodec: none crc: 3745558154 isvalid: true"
        ]
    );
    let limited = DumpOptions {
        bytes_max: Some(207),
        ..SHALLOW
    };
    assert_eq!(
        dump(&segment(), limited).len(),
        1,
        "the second would end at 208"
    );
}

#[test]
fn records_look_like_kafkas() {
    let deep = DumpOptions {
        deep: true,
        ..SHALLOW
    };
    assert_eq!(
        dump(&segment(), deep)[1..6],
        [
            "| offset: 7 CreateTime: 1000 keySize: 1 valueSize: 3 sequence: -1 headerKeys: [h,h,g]",
            "| offset: 8 CreateTime: 2000 keySize: -1 valueSize: 7 sequence: -1 headerKeys: []",
            "| offset: 9 CreateTime: 1500 keySize: 1 valueSize: -1 sequence: -1 headerKeys: []",
            "| offset: 10 CreateTime: -1 keySize: -1 valueSize: -1 sequence: -1 headerKeys: []",
            "| offset: 11 CreateTime: 3000 keySize: 3 valueSize: 10 sequence: -1 headerKeys: []",
        ]
    );
    let data = DumpOptions {
        print_data: true,
        ..SHALLOW
    };
    let lines = dump(&segment(), data);
    assert_eq!(
        lines[1..4],
        [
            "| offset: 7 CreateTime: 1000 keySize: 1 valueSize: 3 sequence: -1 headerKeys: [h,h,g] \
         key: k payload: vé",
            "| offset: 8 CreateTime: 2000 keySize: -1 valueSize: 7 sequence: -1 headerKeys: [] \
         payload: novalue",
            "| offset: 9 CreateTime: 1500 keySize: 1 valueSize: -1 sequence: -1 headerKeys: [] key: t",
        ]
    );
    assert_eq!(
        lines[7],
        "| offset: 12 CreateTime: 6000 keySize: 2 valueSize: 1 sequence: 0 headerKeys: [] \
         key: tx payload: q"
    );
    assert_eq!(
        [&lines[9], &lines[11]],
        [
            "| offset: 13 CreateTime: 6001 keySize: 4 valueSize: 6 sequence: -1 headerKeys: [] \
         endTxnMarker: COMMIT coordinatorEpoch: 9",
            "| offset: 14 CreateTime: 6001 keySize: 4 valueSize: 6 sequence: -1 headerKeys: [] \
         endTxnMarker: ABORT coordinatorEpoch: 8",
        ]
    );
    let bare = DumpOptions {
        skip_record_metadata: true,
        ..data
    };
    let lines = dump(&segment(), bare);
    assert_eq!(
        lines[1..6],
        [
            "| key: k payload: vé",
            "| payload: novalue",
            "| key: t",
            "",
            "| key: big payload: abcdefghij"
        ]
    );
}

#[test]
fn sequences_wrap_in_the_text_too() {
    let mut builder = BatchBuilder::new(Compression::Lz4)
        .base_offset(32)
        .producer(4000, 2, 2_147_483_646);
    for index in 0..3 {
        builder.push(5000 + index, Some(b"p"), Some(b"q"));
    }
    let lines = dump(
        &builder.build(),
        DumpOptions {
            deep: true,
            ..SHALLOW
        },
    );
    assert!(lines[0].contains("baseSequence: 2147483646 lastSequence: 0 producerId: 4000"));
    let sequences: Vec<&str> = lines[1..]
        .iter()
        .filter_map(|line| line.split("sequence: ").nth(1))
        .collect();
    assert_eq!(
        sequences,
        [
            "2147483646 headerKeys: []",
            "2147483647 headerKeys: []",
            "0 headerKeys: []"
        ]
    );
}

#[test]
fn log_append_time_and_delete_horizon_are_shown() {
    let mut builder = BatchBuilder::new(Compression::Zstd);
    builder.push(10, Some(b"x"), Some(b"y"));
    let mut batch = builder.build();
    rewrite_timestamps(&mut batch, TimestampType::LogAppendTime, 9999);
    let lines = dump(
        &batch,
        DumpOptions {
            deep: true,
            ..SHALLOW
        },
    );
    assert!(
        lines[0].contains("position: 0 LogAppendTime: 9999 size: 79 magic: 2 compresscodec: zstd")
    );
    assert!(lines[1].starts_with("| offset: 0 LogAppendTime: 9999 keySize: 1"));

    let attributes = BatchView::new(&batch).expect("whole").header().attributes();
    let header = BatchView::new(&batch).expect("whole").header();
    let mut builder = BatchBuilder::like(header, attributes.with_delete_horizon(true), 3)
        .with_base_timestamp(87_400_000);
    builder.push(10, Some(b"x"), None);
    let lines = dump(&builder.build(), SHALLOW);
    assert!(lines[0].contains("deleteHorizonMs: OptionalLong[87400000]"));
}

#[test]
fn damage_is_told() {
    let mut damaged = segment();
    damaged[70] ^= 1;
    damaged.truncate(damaged.len() - 5);
    let mut log = LogDump::new(&damaged, SHALLOW, plain_text);
    let lines: Vec<_> = log.by_ref().map(|line| line.expect("readable")).collect();
    assert!(lines[0].ends_with("crc: 3745558154 isvalid: false"));
    assert_eq!((lines.len(), log.trailing_bytes()), (3, 73));

    // A segment in use ends in zeros, which are space set aside; anything behind them is damage.
    let zeros = [segment(), vec![0; 100]].concat();
    let whole = LogDump::new(&segment(), SHALLOW, plain_text).count();
    assert_eq!(LogDump::new(&zeros, SHALLOW, plain_text).count(), whole);
    let damaged = [segment(), vec![0; 100], vec![1]].concat();
    let last = LogDump::new(&damaged, SHALLOW, plain_text).last();
    assert_eq!(last, Some(Err(DumpError::BatchLength(0))));
}

#[test]
fn gaps_are_listed_after_a_deep_dump() {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push_at(0, 1, Some(b"a"), None, &[]);
    builder.push_at(5, 1, Some(b"a"), None, &[]);
    let batch = builder.build();
    let mut log = LogDump::new(
        &batch,
        DumpOptions {
            deep: true,
            ..SHALLOW
        },
        plain_text,
    );
    assert_eq!(log.by_ref().count(), 3);
    assert_eq!(
        log.gaps_report("/x/00.log"),
        [
            "Non-consecutive offsets in /x/00.log",
            "  0 is followed by 5"
        ]
    );
    let mut log = LogDump::new(&batch, SHALLOW, plain_text);
    assert_eq!(
        (log.by_ref().count(), log.gaps_report("/x/00.log").len()),
        (1, 0)
    );
}

#[test]
fn a_decoder_gives_its_own_text() {
    let options = DumpOptions {
        print_data: true,
        skip_record_metadata: true,
        ..SHALLOW
    };
    let mut seen = 0;
    let lines: Vec<_> = LogDump::new(&segment(), options, |record| {
        seen += 1;
        (Some(format!("at {}", record.offset)), None)
    })
    .map(|line| line.expect("readable"))
    .collect();
    assert_eq!(lines[1], "| key: at 7");
    assert_eq!(seen, 6, "control records are not the decoder's");
}

fn indexed() -> (Vec<u8>, SegmentIndex) {
    let segment = segment();
    let mut index = SegmentIndex::new(Offset(7));
    let mut position = 0;
    for batch in split(&segment) {
        let batch = batch.expect("whole");
        index.on_batch(batch.header(), position, 0);
        position += batch.len_bytes() as u64;
    }
    index.close();
    (segment, index)
}

#[test]
fn good_indexes_are_shown_and_agree() {
    let (segment, index) = indexed();
    let offsets = index.offset_index_bytes();
    let dump = dump_offset_index("a", "/a", 7, offsets, &segment, IndexDumpMode::Print);
    assert_eq!(
        dump.lines,
        [
            "offset: 12 position: 137",
            "offset: 13 position: 208",
            "offset: 14 position: 286"
        ]
    );
    assert!(dump.problems.is_empty());
    let times = index.time_index_bytes();
    let dump = dump_time_index("a", "/a", 7, times, &segment, IndexDumpMode::Print);
    assert_eq!(
        dump.lines,
        ["timestamp: 6000 offset: 12", "timestamp: 6001 offset: 13"]
    );
    assert!(dump.problems.is_empty());
    let dump = dump_time_index("a", "/a", 7, times, &segment, IndexDumpMode::Verify);
    assert_eq!(dump, IndexDump::default());
    let dump = dump_time_index("a", "/a", 7, times, &segment, IndexDumpMode::Sanity);
    assert_eq!(dump.lines, ["a passed sanity check."]);
}

#[test]
fn bad_indexes_are_told() {
    let (segment, _) = indexed();
    let offsets = [
        0, 0, 0, 1, 0, 0, 0, 137, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let dump = dump_offset_index("a", "/a", 7, &offsets, &segment, IndexDumpMode::Print);
    assert_eq!(
        dump.lines,
        ["offset: 8 position: 137", "offset: 12 position: 0"]
    );
    assert_eq!(
        dump.problems,
        [
            "Mismatches in :/a",
            "  Index offset: 12, log offset: 11",
            "  Index offset: 8, log offset: 12"
        ]
    );
    let entry = |timestamp: i64, relative: i32| {
        [&timestamp.to_be_bytes()[..], &relative.to_be_bytes()[..]].concat()
    };
    let times = [entry(2999, 4), entry(5, 3), entry(4, 7), entry(3, 90)].concat();
    let dump = dump_time_index("a", "/a", 7, &times, &segment, IndexDumpMode::Verify);
    assert!(dump.lines.is_empty());
    assert_eq!(
        dump.problems,
        [
            "Found timestamp mismatch in :/a",
            "  Index timestamp: 2999, log timestamp: 3000",
            "  Index timestamp: 4, log timestamp: 6001",
            "Found out of order timestamp in :/a",
            "  Index timestamp: 4, Previously indexed timestamp: 5",
            "The following indexed offsets are not found in :/a",
            "Indexed offset: 10, found log offset: 11",
            "Indexed offset: 97, found log offset: -1",
        ]
    );
    let dump = dump_time_index("a", "/a", 7, &times, &segment, IndexDumpMode::Sanity);
    assert!(dump.corrupt && dump.lines.is_empty());
    let dump = dump_offset_index("a", "/a", 7, &[1, 2, 3], &segment, IndexDumpMode::Print);
    assert_eq!(dump.lines, ["a is empty."]);
}
