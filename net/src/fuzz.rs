//! Hostile bytes on demand: made-up valid frames, seeded damage to them, and loops that feed them to the
//! decoders. Lives in tests and in the fuzzing command; knows every message but no broker.

mod native;

use std::fmt;

use ring::buf::Shared;

use crate::framer::Framer;
use crate::kafka::{Request, RequestHeader, SUPPORTED, decode_any};
use crate::wire::Writer;

/// A seeded source of numbers (SplitMix64): the same seed gives the same run everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end
    }

    /// A number for a field: small ones and extremes more often than chance has them.
    pub fn number(&mut self) -> i64 {
        match self.below(4) {
            0 => self.below(200) as i64 - 2,
            1 => [0, -1, i64::MAX, i64::from(i32::MAX), i64::MIN][self.below(5) as usize],
            _ => self.bits() as i64,
        }
    }

    /// A short text, some of it outside ASCII.
    pub fn text(&mut self) -> String {
        let count = match self.below(20) {
            // Lengths on both sides of a one-byte varint.
            0 => 126 + self.below(4),
            _ => self.below(8),
        };
        let letters = ['a', 'Z', '0', '.', '-', '\u{e9}', '\u{4e16}', '\u{1f980}'];
        (0..count)
            .map(|_| letters[self.below(letters.len() as u64) as usize])
            .collect()
    }

    /// A few bytes.
    pub fn bytes(&mut self) -> Vec<u8> {
        let count = self.below(40);
        (0..count).map(|_| self.bits() as u8).collect()
    }
}

/// The decoders that can be fuzzed, by name.
pub const TARGETS: &[&str] = &["request", "framer", "native", "native-framer"];

/// No decoder has that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownTarget(pub String);

impl fmt::Display for UnknownTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "nothing to fuzz is called {:?}; there are {TARGETS:?}",
            self.0
        )
    }
}

impl std::error::Error for UnknownTarget {}

/// How a run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Inputs that were decoded.
    pub accepted_count: u64,
    /// Inputs that were refused with an error.
    pub refused_count: u64,
}

/// Feeds `iterations` damaged inputs to the decoder called `name`. The same seed makes the same
/// inputs.
///
/// # Panics
/// If the decoder fails in any other way than by an error: that is what is looked for.
pub fn run(name: &str, seed: u64, iterations: u64) -> Result<Outcome, UnknownTarget> {
    let one: fn(&mut Random) -> bool = match name {
        "request" => fuzz_request,
        "framer" => fuzz_framer,
        "native" => native::fuzz_frame,
        "native-framer" => native::fuzz_framer,
        _ => return Err(UnknownTarget(name.to_owned())),
    };
    let mut random = Random::new(seed);
    let mut outcome = Outcome::default();
    for _ in 0..iterations {
        match one(&mut random) {
            true => outcome.accepted_count += 1,
            false => outcome.refused_count += 1,
        }
    }
    Ok(outcome)
}

/// A valid request frame (without size prefix) of any API and version.
pub fn sample_request(random: &mut Random) -> Vec<u8> {
    let api = SUPPORTED[random.below(SUPPORTED.len() as u64) as usize];
    let versions = (api.max - api.served_min + 1) as u64;
    let version = api.served_min + random.below(versions) as i16;
    let request = Request::sample(random, api.key, version);
    let header = RequestHeader {
        api_key: api.key,
        api_version: version,
        correlation_id: random.bits() as i32,
        client_id: (random.below(4) > 0).then(|| random.text().into()),
    };
    encode_request(&header, &request)
}

fn encode_request(header: &RequestHeader<'_>, request: &Request<'_>) -> Vec<u8> {
    let mut writer = Writer::new();
    header.encode(&mut writer);
    request.encode(&mut writer, header.api_version);
    writer.into_bytes()
}

/// Damages bytes in one to four places.
pub fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let position = random.below(bytes.len() as u64 + 1) as usize;
        match random.below(7) {
            0 => bytes.truncate(position),
            1 => bytes.insert(position, random.bits() as u8),
            2 => {
                let tail = bytes[position..].to_vec();
                bytes.extend_from_slice(&tail[..tail.len().min(64)]);
            }
            3 => overwrite(bytes, position, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            4 => overwrite(bytes, position, &[0x7f, 0xff, 0xff, 0xff]),
            5 => overwrite(bytes, position, &[random.bits() as u8]),
            _ => {
                if let Some(byte) = bytes.get_mut(position) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
}

fn overwrite(bytes: &mut [u8], position: usize, with: &[u8]) {
    for (byte, new) in bytes[position..].iter_mut().zip(with) {
        *byte = *new;
    }
}

/// Whatever decodes must survive being written and read again.
fn fuzz_request(random: &mut Random) -> bool {
    let frame = if random.below(16) == 0 {
        random.bytes()
    } else {
        let mut frame = sample_request(random);
        damage(random, &mut frame);
        frame
    };
    let Ok((header, request)) = decode_any(&frame) else {
        return false;
    };
    let again = encode_request(&header, &request);
    let decoded = decode_any(&again).expect("what was written can be read");
    assert_eq!(decoded, (header, request), "read back differently");
    true
}

/// However bytes are cut, the frames come out as they went in, and memory follows what has arrived.
fn fuzz_framer(random: &mut Random) -> bool {
    let size_max = 1 + random.below(300_000) as usize;
    let mut stream = Vec::new();
    let mut expected = Vec::new();
    let mut bad_size = None;
    for _ in 0..1 + random.below(4) {
        if random.below(8) == 0 {
            let size = [0, -1, i32::MIN, i32::MAX, size_max as i32 + 1][random.below(5) as usize];
            stream.extend_from_slice(&size.to_be_bytes());
            bad_size = Some(size);
            break;
        }
        let size = match random.below(4) {
            0 => size_max,
            _ => 1 + random.below(size_max.min(5000) as u64) as usize,
        };
        let fill = random.bits() as u8;
        let frame: Vec<u8> = (0..size).map(|index| fill ^ index as u8).collect();
        stream.extend_from_slice(&(size as i32).to_be_bytes());
        stream.extend_from_slice(&frame);
        expected.push(frame);
    }
    let mut framer = Framer::new(size_max);
    let mut rest = &stream[..];
    let mut frames = Vec::new();
    let error = loop {
        match framer.next_frame() {
            Ok(Some(frame)) => {
                frames.push(frame.to_vec());
                continue;
            }
            Ok(None) if rest.is_empty() => break None,
            Ok(None) => {}
            Err(error) => break Some(error),
        }
        receive_some(&mut framer, random, &mut rest);
        let arrived = framer.pending().map_or(0, |frame| frame.received_bytes);
        assert!(
            framer.held_bytes() <= 2 * arrived + 140_000,
            "held too much"
        );
    };
    assert_eq!(error.map(|error| error.size), bad_size, "a size misjudged");
    assert!(frames == expected, "a frame came out changed");
    error.is_none()
}

/// Gives a framer some of what is left, received in one of the ways there are.
fn receive_some(framer: &mut Framer, random: &mut Random, rest: &mut &[u8]) {
    let count = if random.below(2) == 0
        && let Some(mut target) = framer.direct_target()
    {
        let room = target.missing().len().min(rest.len());
        let count = 1 + random.below(room as u64) as usize;
        target.missing()[..count].copy_from_slice(&rest[..count]);
        framer.direct_received(target, count);
        count
    } else {
        let longest = [3, 100, 70_000][random.below(3) as usize];
        let count = 1 + random.below(longest.min(rest.len() as u64)) as usize;
        framer.push(Shared::from(rest[..count].to_vec()));
        count
    };
    *rest = &rest[count..];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_requests_are_refused_or_read() {
        let outcome = run("request", 1, 20_000).expect("a target");
        // The damage is such that both happen often.
        assert!(outcome.accepted_count > 1_000, "{outcome:?}");
        assert!(outcome.refused_count > 1_000, "{outcome:?}");
    }

    #[test]
    fn frames_survive_any_cutting() {
        let outcome = run("framer", 1, 200).expect("a target");
        assert!(outcome.accepted_count > 20, "{outcome:?}");
        assert!(outcome.refused_count > 20, "{outcome:?}");
    }

    #[test]
    fn damaged_native_frames_are_refused_or_read() {
        let outcome = run("native", 1, 20_000).expect("a target");
        assert!(outcome.accepted_count > 1_000, "{outcome:?}");
        assert!(outcome.refused_count > 1_000, "{outcome:?}");
        let outcome = run("native-framer", 1, 200).expect("a target");
        assert!(outcome.accepted_count > 20, "{outcome:?}");
        assert!(outcome.refused_count > 20, "{outcome:?}");
    }

    #[test]
    fn an_unknown_target_is_named() {
        let error = run("nothing", 1, 1).expect_err("no such target");
        assert!(error.to_string().contains("\"nothing\""));
    }
}
