//! Tests of checking produced batches: what a client is told of each mistake. Expected codes are Kafka's.

use storage::batch::stamp_crc;
use storage::builder::BatchBuilder;

use super::*;

const RULES: Rules = Rules {
    batch_bytes_max: 1000,
    log_append_time: false,
    before_max_ms: i64::MAX,
    after_max_ms: 1000,
    keys_required: false,
    target: None,
    api_version: 9,
    now_ms: 1_000_000,
    walk_compressed: true,
};

fn sample(compression: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::new(compression);
    builder.push(5, None, Some(b"one"));
    builder.push(5, Some(b"key"), Some(b"two"));
    builder.build()
}

fn edited(compression: Compression, edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut batch = sample(compression);
    edit(&mut batch);
    stamp_crc(&mut batch);
    batch
}

fn checked(bytes: &[u8], rules: &Rules) -> Walked {
    match check(bytes, rules, &mut WalkScratch::new()) {
        Checked::Done(walked) => walked,
        Checked::Aside => panic!("a small batch is checked at once"),
    }
}

/// Code, number of refused records, whether there is a message, and whether the log start is told.
fn told(bytes: &[u8], rules: &Rules) -> (i16, usize, bool, bool) {
    match checked(bytes, rules) {
        Walked::Accepted(_) => panic!("accepted"),
        Walked::Refused(refusal) => {
            let fault = refusal.result.fault.as_ref();
            (
                refusal.result.error.code(),
                fault.map_or(0, |fault| fault.record_errors.len()),
                fault.is_some_and(|fault| fault.message.is_some()),
                refusal.tells_log_start,
            )
        }
    }
}

#[test]
fn each_mistake_has_its_code_and_says_as_much_as_kafka_does() {
    let none = Compression::None;
    let gzip = Compression::Gzip;
    let two = [sample(none), sample(none)].concat();
    let deltas = edited(none, |b| b[64] = 2);
    let view = BatchView::new(&deltas).expect("a batch");
    let deltas_gzip =
        storage::walk::recompress(&view, gzip, 6, 1000, &mut RecordsScratch::new()).expect("small");
    let keyed = Rules {
        keys_required: true,
        ..RULES
    };
    let early = Rules {
        now_ms: -2000,
        ..RULES
    };
    let old = Rules {
        api_version: 6,
        ..RULES
    };
    let tight = Rules {
        batch_bytes_max: 61,
        ..RULES
    };
    for (what, bytes, rules, expected) in [
        ("empty", vec![], RULES, (87, 0, false, false)),
        ("short", vec![0; 20], RULES, (2, 0, true, false)),
        (
            "cut off",
            sample(none)[..70].to_vec(),
            RULES,
            (87, 0, false, false),
        ),
        ("two batches", two, RULES, (87, 0, false, false)),
        (
            "magic 1",
            edited(none, |b| b[16] = 1),
            RULES,
            (87, 0, false, false),
        ),
        (
            "magic 3",
            edited(none, |b| b[16] = 3),
            RULES,
            (2, 0, true, false),
        ),
        (
            "length",
            edited(none, |b| b[8..12].copy_from_slice(&[0, 0, 0, 30])),
            RULES,
            (2, 0, false, false),
        ),
        ("too large", sample(none), tight, (10, 0, false, false)),
        (
            "base offset",
            edited(none, |b| b[7] = 5),
            RULES,
            (87, 0, false, true),
        ),
        (
            "no records",
            edited(none, |b| b[60] = 0),
            RULES,
            (87, 0, false, true),
        ),
        (
            "control",
            edited(none, |b| b[22] = 0x20),
            RULES,
            (87, 0, false, true),
        ),
        (
            "codec 5",
            edited(none, |b| b[22] = 5),
            RULES,
            (-1, 0, false, true),
        ),
        (
            "codec 5 up to v6",
            edited(none, |b| b[22] = 5),
            old,
            (-1, 0, false, false),
        ),
        (
            "zstd up to v6",
            sample(Compression::Zstd),
            old,
            (76, 0, false, false),
        ),
        (
            "garbage",
            edited(none, |b| b[61..].fill(0xff)),
            RULES,
            (-1, 0, false, true),
        ),
        (
            "garbage, compressed",
            edited(gzip, |b| b[61..].fill(0xff)),
            RULES,
            (-1, 0, false, true),
        ),
        (
            "a record's end",
            edited(none, |b| b[61] += 2),
            RULES,
            (87, 0, false, true),
        ),
        ("deltas", deltas.clone(), RULES, (87, 1, true, true)),
        (
            "deltas, compressed",
            deltas_gzip,
            RULES,
            (-1, 0, false, true),
        ),
        ("null key", sample(none), keyed, (87, 1, true, true)),
        (
            "null key, compressed",
            sample(gzip),
            keyed,
            (87, 1, true, true),
        ),
        ("the future", sample(none), early, (32, 2, true, true)),
    ] {
        assert_eq!(told(&bytes, &rules), expected, "{what}");
    }
    let mut crc = sample(none);
    crc[17] ^= 1;
    assert_eq!(told(&crc, &RULES), (2, 0, false, false));
    assert!(matches!(
        checked(&sample(gzip), &RULES),
        Walked::Accepted(_)
    ));
}

#[test]
fn what_does_not_fit_in_the_topics_compression_is_too_large() {
    let mut builder = BatchBuilder::new(Compression::Gzip);
    builder.push(5, None, Some(&[7; 5000]));
    let batch = builder.build();
    assert!(batch.len() < RULES.batch_bytes_max);
    assert!(matches!(checked(&batch, &RULES), Walked::Accepted(_)));
    let plain = Rules {
        target: Some((Compression::None, 0)),
        ..RULES
    };
    assert_eq!(told(&batch, &plain), (10, 0, false, false));
    let roomy = Rules {
        batch_bytes_max: 6000,
        ..plain
    };
    let Walked::Accepted(accepted) = checked(&batch, &roomy) else {
        panic!("refused");
    };
    assert!(accepted.rewritten.is_some_and(|bytes| bytes.len() > 5000));
}
