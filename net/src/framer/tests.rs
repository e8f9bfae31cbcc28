//! Tests of the framer, on no core.

use super::*;

const SIZE_MAX: usize = 100 << 20;

fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as i32).to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

fn next(framer: &mut Framer) -> Option<Vec<u8>> {
    let frame = framer.next_frame().expect("good sizes");
    frame.map(|frame| frame.to_vec())
}

#[test]
fn whole_frames_are_slices_of_what_was_received() {
    let mut framer = Framer::new(SIZE_MAX);
    let received = Shared::from([frame(b"one"), frame(b"two")].concat());
    framer.push(received.clone());
    for expected in [b"one", b"two"] {
        let frame = framer.next_frame().expect("a good size").expect("a frame");
        assert_eq!(&frame[..], expected);
        assert!(frame.same_buffer(&received));
    }
    assert_eq!(next(&mut framer), None);
    assert_eq!(framer.straddle_copied_bytes(), 0);
    assert_eq!(framer.held_bytes(), 0);
}

#[test]
fn a_frame_byte_by_byte_is_put_together_and_counted() {
    let mut framer = Framer::new(SIZE_MAX);
    let bytes = [frame(b"hello"), frame(b"!")].concat();
    let mut frames = Vec::new();
    for byte in bytes {
        framer.push(Shared::from(vec![byte]));
        frames.extend(next(&mut framer));
    }
    assert_eq!(frames, [b"hello".to_vec(), b"!".to_vec()]);
    // The size prefixes are read, not copied into a frame.
    assert_eq!(framer.straddle_copied_bytes(), 6);
}

#[test]
fn the_rest_of_a_straddling_frame_is_received_in_place() {
    let mut framer = Framer::new(SIZE_MAX);
    framer.push(Shared::from(frame(b"head and rest")[..8].to_vec()));
    assert_eq!(next(&mut framer), None);
    assert_eq!(
        framer.pending(),
        Some(PendingFrame {
            size_bytes: 13,
            received_bytes: 4
        })
    );
    let mut target = framer.direct_target().expect("a frame is arriving");
    assert_eq!(target.missing().len(), 9);
    assert!(framer.direct_target().is_none(), "it is lent");
    target.missing()[..4].copy_from_slice(b" and");
    framer.direct_received(target, 4);
    assert_eq!(next(&mut framer), None);
    let mut target = framer.direct_target().expect("it still is");
    target.missing().copy_from_slice(b" rest");
    framer.direct_received(target, 5);
    assert_eq!(next(&mut framer), Some(b"head and rest".to_vec()));
    assert_eq!(framer.straddle_copied_bytes(), 4);
    assert!(framer.direct_target().is_none(), "nothing is arriving");
}

#[test]
fn a_received_tail_belongs_to_the_next_frame() {
    let mut framer = Framer::new(SIZE_MAX);
    let bytes = [frame(b"first"), frame(b"second")].concat();
    framer.push(Shared::from(bytes[..6].to_vec()));
    assert_eq!(next(&mut framer), None);
    framer.push(Shared::from(bytes[6..].to_vec()));
    assert!(
        framer.direct_target().is_none(),
        "received bytes come first"
    );
    assert_eq!(next(&mut framer), Some(b"first".to_vec()));
    assert_eq!(next(&mut framer), Some(b"second".to_vec()));
}

#[test]
fn a_claimed_size_reserves_nothing() {
    let mut framer = Framer::new(SIZE_MAX);
    framer.push(Shared::from((SIZE_MAX as i32).to_be_bytes().to_vec()));
    assert_eq!(next(&mut framer), None);
    assert_eq!(framer.held_bytes(), 0);
    // Ten bytes of it cost one step.
    framer.push(Shared::from(vec![7; 10]));
    assert_eq!(next(&mut framer), None);
    assert_eq!(framer.held_bytes(), FIRST_STEP_BYTES);
}

#[test]
fn memory_grows_with_what_arrives() {
    let size = 5 << 20;
    let mut framer = Framer::new(SIZE_MAX);
    framer.push(Shared::from((size as i32).to_be_bytes().to_vec()));
    assert_eq!(next(&mut framer), None);
    let mut received = 0;
    while received < size {
        let mut target = framer.direct_target().expect("more to come");
        target.missing().fill(9);
        let count = target.range.len();
        framer.direct_received(target, count);
        received += count;
        assert!(framer.held_bytes() <= (2 * received).max(FIRST_STEP_BYTES));
        if received < size {
            assert_eq!(next(&mut framer), None);
        }
    }
    assert_eq!(next(&mut framer), Some(vec![9; size]));
    assert_eq!(framer.straddle_copied_bytes(), 0);
    // Moved once at 1, 2 and 4 MiB.
    assert_eq!(framer.moved_bytes(), 7 << 20);
}

#[test]
fn frames_up_to_a_mebibyte_are_never_moved() {
    let size = 1 << 20;
    let mut framer = Framer::new(SIZE_MAX);
    framer.push(Shared::from((size as i32).to_be_bytes().to_vec()));
    for _ in 0..16 {
        framer.push(Shared::from(vec![1; size / 16 - 1]));
        assert_eq!(next(&mut framer), None);
    }
    framer.push(Shared::from(vec![1; 16]));
    assert_eq!(next(&mut framer), Some(vec![1; size]));
    assert_eq!(framer.moved_bytes(), 0);
    assert_eq!(framer.straddle_copied_bytes(), size as u64);
}

#[test]
fn sizes_that_are_not_allowed_are_named() {
    for size in [0, -1, i32::MIN, 101, i32::MAX] {
        let mut framer = Framer::new(100);
        let bytes = size.to_be_bytes();
        framer.push(Shared::from(bytes[..3].to_vec()));
        assert_eq!(next(&mut framer), None);
        framer.push(Shared::from(bytes[3..].to_vec()));
        let error = framer.next_frame().expect_err("a bad size");
        assert_eq!(error.size, size);
        assert!(error.to_string().contains(&size.to_string()));
        // The connection is lost: nothing after it is a frame.
        framer.push(Shared::from(frame(b"good")));
        assert_eq!(framer.next_frame().expect_err("still lost"), error);
    }
    let mut framer = Framer::new(100);
    framer.push(Shared::from(frame(&[5; 100])));
    assert_eq!(next(&mut framer), Some(vec![5; 100]));
}

fn native_frame(records: &[u8]) -> Vec<u8> {
    let body = crate::native::v1::UnsubscribeAnswer { error: 7 };
    let kind = crate::native::Kind::UnsubscribeAnswer;
    let records_bytes = u32::try_from(records.len()).expect("a few bytes");
    let mut frame = crate::native::encode(1, kind, 0, 5, &body, records_bytes);
    frame.extend_from_slice(records);
    frame
}

#[test]
fn native_frames_come_out_with_their_header_however_they_are_cut() {
    let frames = [native_frame(b""), native_frame(b"some records")];
    let stream = frames.concat();
    for step in [1, 3, 31, 32, 33, 45, stream.len()] {
        let mut framer = Framer::native(SIZE_MAX);
        let mut found = Vec::new();
        for part in stream.chunks(step) {
            framer.push(Shared::from(part.to_vec()));
            found.extend(std::iter::from_fn(|| next(&mut framer)));
        }
        assert_eq!(found, frames, "in steps of {step}");
        assert_eq!(framer.held_bytes(), 0);
    }
}

#[test]
fn a_whole_native_frame_is_not_copied() {
    let mut framer = Framer::native(SIZE_MAX);
    let received = Shared::from([native_frame(b"a"), native_frame(b"b")].concat());
    framer.push(received.clone());
    for _ in 0..2 {
        let frame = framer
            .next_frame()
            .expect("a good header")
            .expect("a frame");
        assert!(frame.same_buffer(&received));
    }
    assert_eq!(framer.straddle_copied_bytes(), 0);
}

#[test]
fn what_is_no_native_header_or_too_long_ends_the_connection() {
    let good = native_frame(b"records");
    let mut strange = good.clone();
    strange[8] ^= 1;
    let mut framer = Framer::native(SIZE_MAX);
    framer.push(Shared::from(strange));
    assert_eq!(framer.next_frame().expect_err("no magic").size, -1);
    let mut framer = Framer::native(good.len() - 1);
    framer.push(Shared::from(good.clone()));
    let error = framer.next_frame().expect_err("too long");
    assert_eq!(error.size, i32::try_from(good.len()).expect("a few bytes"));
    let mut absurd = good;
    absurd[16..24].fill(0xff);
    let mut framer = Framer::native(SIZE_MAX);
    framer.push(Shared::from(absurd[..40].to_vec()));
    assert_eq!(framer.next_frame().expect_err("too long").size, i32::MAX);
    assert_eq!(framer.held_bytes(), 0);
}
