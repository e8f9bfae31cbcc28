//! Tests of the wire's alphabet, on no core.

use ring::buf::{Chunk, LeaseTable, Shared};

use super::*;
use crate::fuzz::Random;

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    write(&mut writer);
    writer.into_bytes()
}

#[test]
fn variable_length_numbers_have_their_known_bytes() {
    // From the specification of protocol buffers, whose encoding it is.
    for (value, bytes) in [
        (0u32, &[0][..]),
        (1, &[1]),
        (127, &[0x7f]),
        (128, &[0x80, 1]),
        (300, &[0xac, 2]),
        (u32::MAX, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
    ] {
        assert_eq!(written(|writer| writer.unsigned_varint(value)), bytes);
        assert_eq!(Reader::new(bytes).unsigned_varint(), Ok(value));
    }
    for (value, bytes) in [
        (0i32, &[0][..]),
        (-1, &[1]),
        (1, &[2]),
        (i32::MAX, &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
        (i32::MIN, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
    ] {
        assert_eq!(written(|writer| writer.varint(value)), bytes);
        assert_eq!(Reader::new(bytes).varint(), Ok(value));
    }
    let mut random = Random::new(3);
    for _ in 0..1000 {
        let value = random.number() >> random.below(64);
        let bytes = written(|writer| writer.varlong(value));
        assert_eq!(Reader::new(&bytes).varlong(), Ok(value));
    }
    for value in [i64::MIN, i64::MAX] {
        let bytes = written(|writer| writer.varlong(value));
        assert_eq!(bytes.len(), 10);
        assert_eq!(Reader::new(&bytes).varlong(), Ok(value));
    }
}

#[test]
fn endless_and_oversized_numbers_are_refused() {
    let endless = [0xff; 12];
    assert_eq!(
        Reader::new(&endless).unsigned_varint(),
        Err(DecodeError::Varint)
    );
    assert_eq!(Reader::new(&endless).varlong(), Err(DecodeError::Varint));
    // One bit more than 32, one more than 64.
    let wide = [0xff, 0xff, 0xff, 0xff, 0x1f];
    assert_eq!(
        Reader::new(&wide).unsigned_varint(),
        Err(DecodeError::Varint)
    );
    let wide = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
    assert_eq!(Reader::new(&wide).varlong(), Err(DecodeError::Varint));
    assert_eq!(Reader::new(&[0x80]).varint(), Err(DecodeError::Truncated));
}

#[test]
fn strings_and_bytes_have_two_forms_each() {
    type Write = fn(&mut Writer);
    let forms: [(Write, &[u8]); 8] = [
        (|w| w.string("kcat", false), b"\x00\x04kcat"),
        (|w| w.string("kcat", true), b"\x05kcat"),
        (|w| w.nullable_string(None, false), b"\xff\xff"),
        (|w| w.nullable_string(None, true), b"\x00"),
        (|w| w.bytes(b"ab", false), b"\x00\x00\x00\x02ab"),
        (|w| w.bytes(b"ab", true), b"\x03ab"),
        (|w| w.nullable_bytes(None, false), b"\xff\xff\xff\xff"),
        (|w| w.nullable_bytes(None, true), b"\x00"),
    ];
    for (write, bytes) in forms {
        assert_eq!(written(write), bytes);
    }
    let text = |bytes, flexible| Reader::new(bytes).nullable_string(flexible);
    assert_eq!(text(b"\x00\x04kcat", false), Ok(Some("kcat".into())));
    assert_eq!(text(b"\x05kcat", true), Ok(Some("kcat".into())));
    assert_eq!(text(b"\xff\xff", false), Ok(None));
    assert_eq!(text(b"\x00", true), Ok(None));
    assert_eq!(text(b"\x00\x05kcat", false), Err(DecodeError::Truncated));
    // As in Kafka, any negative length is null.
    assert_eq!(text(b"\xff\xfe", false), Ok(None));
    assert_eq!(
        Reader::new(b"\xff\xff").string(false),
        Err(DecodeError::Null)
    );
    let data = |bytes, flexible| Reader::new(bytes).nullable_bytes(flexible);
    assert_eq!(data(b"\x00\x00\x00\x02ab", false), Ok(Some(&b"ab"[..])));
    assert_eq!(
        data(b"\x7f\xff\xff\xff", false),
        Err(DecodeError::Truncated)
    );
    assert_eq!(data(b"\x80\x00\x00\x00", false), Ok(None));
    assert_eq!(
        data(b"\xff\xff\xff\xff\x0f", true),
        Err(DecodeError::Truncated)
    );
}

#[test]
fn text_that_is_no_utf8_is_replaced_but_stays_writable() {
    assert_eq!(
        Reader::new(b"\x00\x03a\xffb").string(false),
        Ok("a\u{fffd}b".into())
    );
    let mut bytes = 32767u16.to_be_bytes().to_vec();
    bytes.extend([0xff; 32767]);
    assert_eq!(Reader::new(&bytes).string(false), Err(DecodeError::Length));
}

#[test]
fn a_string_too_long_to_write_loses_its_end() {
    let long = "\u{e9}".repeat(20_000);
    for flexible in [false, true] {
        let bytes = written(|writer| writer.string(&long, flexible));
        let text = Reader::new(&bytes).string(flexible).expect("a string");
        // 32767 is odd and the letter takes two bytes.
        assert_eq!(text, "\u{e9}".repeat(16_383));
    }
}

#[test]
fn counts_that_cannot_be_true_are_refused_before_they_are_paid_for() {
    // Two elements of at least four bytes do not fit six.
    let mut reader = Reader::with_elements_bytes(&[0, 0, 0, 2, 1, 2, 3, 4, 5, 6], 0);
    assert_eq!(reader.array_count(false, 4, 8), Err(DecodeError::Length));
    let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
    assert_eq!(reader.array_count(true, 1, 1), Err(DecodeError::Length));
    let mut reader = Reader::new(&[0x80, 0, 0, 0]);
    assert_eq!(reader.array_count(false, 1, 1), Ok(None));
    let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff]);
    assert_eq!(reader.array_count(false, 1, 1), Ok(None));
}

#[test]
fn arrays_have_a_bound_together() {
    let mut bytes = Vec::new();
    for _ in 0..2 {
        bytes.extend(10i32.to_be_bytes());
        bytes.extend([0; 10]);
    }
    let mut reader = Reader::with_elements_bytes(&bytes, 1500);
    assert_eq!(reader.array_count(false, 1, 100), Ok(Some(10)));
    reader.take(10).expect("the elements");
    assert_eq!(
        reader.array_count(false, 1, 100),
        Err(DecodeError::TooManyElements)
    );
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    // Two fields: tag 3 of two bytes, tag 200 of one.
    let bytes = [2, 3, 2, 0xaa, 0xbb, 0xc8, 1, 1, 0xcc, 0x55];
    let mut seen = Vec::new();
    let mut reader = Reader::new(&bytes);
    reader
        .tagged_fields(|tag, field| {
            seen.push((tag, field.rest().to_vec()));
            field.u8().map(drop)
        })
        .expect("two fields");
    assert_eq!(seen, [(3, vec![0xaa, 0xbb]), (200, vec![0xcc])]);
    assert_eq!(reader.u8(), Ok(0x55));
    let mut reader = Reader::new(&[1, 0, 9, 0]);
    assert_eq!(reader.skip_tagged_fields(), Err(DecodeError::Truncated));
    let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]);
    assert_eq!(reader.skip_tagged_fields(), Err(DecodeError::Truncated));
}

#[test]
fn record_data_is_sent_without_a_copy() {
    let records = Shared::from(vec![1, 2, 3]);
    let mut writer = Writer::framed();
    writer.i16(7);
    writer.chunk(Chunk::Local(records.clone()));
    writer.chunk(Chunk::Local(Shared::empty()));
    writer.i8(9);
    assert_eq!(writer.total_bytes(), 10);
    let chunks = writer.into_chunks();
    let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.to_vec()).collect();
    assert_eq!(bytes, [0, 0, 0, 6, 0, 7, 1, 2, 3, 9]);
    assert_eq!(chunks.len(), 3);
    let Chunk::Local(sent) = &chunks[1] else {
        panic!("a chunk of this core")
    };
    assert!(sent.same_buffer(&records));
}

#[test]
fn a_lease_goes_along_even_if_empty() {
    let mut table = LeaseTable::new(0);
    let mut writer = Writer::new();
    writer.chunk(Chunk::Leased(table.lend(&Shared::empty())));
    for chunk in writer.into_chunks() {
        if let Chunk::Leased(lease) = chunk {
            table.give_back(lease);
        }
    }
    assert_eq!(table.lent_count(), 0);
}

#[test]
fn gaps_are_filled_in_order_and_patches_stay_in_place() {
    let mut writer = Writer::new();
    let position = writer.position();
    writer.i32(0);
    writer.leave_gap(2);
    writer.i16(0x0102);
    writer.leave_gap(0);
    writer.leave_gap(1);
    writer.patch_i32(position, 5);
    writer.fill_gap(vec![
        Chunk::Local(vec![10].into()),
        Chunk::Local(vec![11].into()),
    ]);
    writer.fill_gap(Vec::new());
    writer.fill_gap(vec![Chunk::Local(vec![12].into())]);
    assert_eq!(writer.into_bytes(), [0, 0, 0, 5, 10, 11, 1, 2, 12]);
}

#[test]
#[should_panic(expected = "an empty gap")]
fn an_empty_gap_is_not_sent() {
    let mut writer = Writer::new();
    writer.leave_gap(4);
    writer.into_chunks();
}

#[test]
#[should_panic(expected = "left for another length")]
fn a_gap_takes_only_its_own_length() {
    let mut writer = Writer::new();
    writer.leave_gap(4);
    writer.fill_gap(vec![Chunk::Local(vec![1].into())]);
}

#[test]
fn records_are_equal_if_their_bytes_are() {
    let cut = Records::Chunks(vec![
        Chunk::Local(vec![1].into()),
        Chunk::Local(vec![2, 3].into()),
    ]);
    assert_eq!(cut, Records::Borrowed(&[1, 2, 3]));
    assert_ne!(cut, Records::Borrowed(&[1, 2, 4]));
    assert_ne!(cut, Records::default());
}
