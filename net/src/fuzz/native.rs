//! Damaged native frames, and native frames cut anywhere. Part of the fuzzing command; knows every body but
//! no broker.

use super::{Random, damage, receive_some};
use crate::framer::Framer;
use crate::native::header::{CHECKSUM_BYTES, Header};
use crate::native::{self, Body, HEADER_BYTES, Kind};

/// Any body, with odd values.
fn sample(random: &mut Random) -> Body {
    let kind = Kind::ALL[random.below(Kind::ALL.len() as u64) as usize];
    let mut seed = random.clone();
    random.bits();
    Body::sample(kind, &mut || seed.number() as u64)
}

fn frame_of(random: &mut Random) -> Vec<u8> {
    let body = sample(random);
    let records = random.bytes();
    let records_bytes = u32::try_from(records.len()).expect("a few bytes");
    let mut frame = body.encode(random.bits() as u16, random.bits(), records_bytes);
    frame.extend_from_slice(&records);
    frame
}

/// A new checksum and lengths that fit, so that damage gets past the header.
fn mend(frame: &mut [u8]) {
    let length = frame.len();
    let Some((header, rest)) = frame.split_first_chunk_mut::<HEADER_BYTES>() else {
        return;
    };
    let body_bytes = u32::from_le_bytes(header[16..20].try_into().expect("four bytes"));
    let body_bytes = (body_bytes as usize).min(rest.len() & !7);
    header[16..20].copy_from_slice(&(body_bytes as u32).to_le_bytes());
    let front = (HEADER_BYTES + body_bytes).next_multiple_of(8);
    header[20..24].copy_from_slice(&((length - front) as u32).to_le_bytes());
    rest[body_bytes..front - HEADER_BYTES].fill(0);
    let checksum = xxhash_rust::xxh3::xxh3_64(&frame[CHECKSUM_BYTES..front]);
    frame[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

/// Whatever decodes must survive being written and read again.
pub(super) fn fuzz_frame(random: &mut Random) -> bool {
    let mut frame = frame_of(random);
    match random.below(16) {
        0 => frame = random.bytes(),
        1 => {}
        _ => {
            damage(random, &mut frame);
            if random.below(8) > 0 {
                mend(&mut frame);
            }
        }
    }
    let Ok(decoded) = native::decode(&frame) else {
        return false;
    };
    let Ok(body) = Body::read(decoded.kind, decoded.body) else {
        return false;
    };
    let records_bytes = decoded.records.len() as u32;
    let mut again = body.encode(decoded.flags, decoded.correlation_id, records_bytes);
    again.extend_from_slice(decoded.records);
    let second = native::decode(&again).expect("what was written can be read");
    assert_eq!(second.records, decoded.records, "records changed");
    let read = Body::read(second.kind, second.body).expect("what was written can be read");
    assert_eq!(read, body, "read back differently");
    true
}

/// However bytes are cut, the frames come out as they went in.
pub(super) fn fuzz_framer(random: &mut Random) -> bool {
    let mut stream = Vec::new();
    let mut expected = Vec::new();
    for _ in 0..1 + random.below(5) {
        let mut frame = frame_of(random);
        if random.below(4) == 0 {
            let more = vec![random.bits() as u8; random.below(200_000) as usize];
            let records_bytes = Header::from_prefix(&frame)
                .expect("a whole frame")
                .records_bytes
                .get()
                + more.len() as u32;
            frame[20..24].copy_from_slice(&records_bytes.to_le_bytes());
            frame.extend_from_slice(&more);
        }
        stream.extend_from_slice(&frame);
        expected.push(frame);
    }
    let bad = random.below(4) == 0;
    if bad {
        let mut frame = frame_of(random);
        match random.below(2) {
            0 => frame[8 + random.below(4) as usize] ^= 1 << random.below(8),
            _ => frame[16..24].fill(0xff),
        }
        stream.extend_from_slice(&frame);
    }
    let mut framer = Framer::native(1 << 20);
    let mut rest = &stream[..];
    let mut frames = Vec::new();
    let failed = loop {
        match framer.next_frame() {
            Ok(Some(frame)) => {
                frames.push(frame.to_vec());
                continue;
            }
            Ok(None) if rest.is_empty() => break false,
            Ok(None) => {}
            Err(_) => break true,
        }
        receive_some(&mut framer, random, &mut rest);
    };
    assert_eq!(failed, bad, "a header misjudged");
    assert!(frames == expected, "a frame came out changed");
    !failed
}
