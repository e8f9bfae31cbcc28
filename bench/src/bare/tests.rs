//! The bare loop against the codec of the broker, and against the generator.

use net::kafka::produce::ProduceResponse;
use net::kafka::{ApiKey, ResponseHeader};
use net::wire::Reader;

use super::produce::{Offsets, Refusal, serve};
use super::*;
use crate::load::kafka::{KafkaWire, PRODUCE_VERSION};
use crate::load::wire::{Batch, Wire};
use crate::payload::Random;

const BATCH: Batch = Batch {
    records: 3,
    value_bytes: 50,
};

fn journal(directory: &tempfile::TempDir) -> Journal {
    Journal::create(&directory.path().join("journal"), 1 << 20, false).unwrap()
}

fn request(acks: i16, partitions: &[i32]) -> Vec<u8> {
    let wire = KafkaWire::new("some-topic", acks, BATCH, 1_700_000_000_000);
    wire.prepare(7, partitions, &mut Random::new(1)).bytes
}

/// Error and base offset of each partition, after checking what the answer says about itself.
fn outcome(answer: &[u8]) -> Vec<(i32, i16, i64)> {
    let (size, frame) = answer.split_first_chunk::<4>().unwrap();
    assert_eq!(u32::from_be_bytes(*size) as usize, frame.len());
    let mut reader = Reader::new(frame);
    let header = ResponseHeader::decode(&mut reader, ApiKey::Produce, PRODUCE_VERSION).unwrap();
    assert_eq!(header.correlation_id, 7);
    let response = ProduceResponse::decode(&mut reader, PRODUCE_VERSION).unwrap();
    assert_eq!(reader.remaining(), 0);
    assert_eq!(response.responses[0].name, "some-topic");
    response.responses[0]
        .partition_responses
        .iter()
        .map(|part| (part.index, part.error_code, part.base_offset))
        .collect()
}

#[test]
fn every_partition_is_answered_with_its_next_offset() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, mut offsets) = (journal(&directory), Offsets::default());
    let partitions: Vec<i32> = (0..200).collect();
    let request = request(-1, &partitions);
    for round in 0..2 {
        let mut answers = Vec::new();
        serve(&request[4..], &mut journal, &mut offsets, &mut answers).unwrap();
        let expected: Vec<_> = partitions
            .iter()
            .map(|&index| (index, 0, round * 3))
            .collect();
        assert_eq!(outcome(&answers), expected);
    }
}

#[test]
fn a_wrong_checksum_is_refused_alone_and_nothing_else_is_understood() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, mut offsets) = (journal(&directory), Offsets::default());
    let mut damaged = request(-1, &[4, 5]);
    // The last byte but one of the last batch's value: behind it stand the headers' count and three empty lists of
    // tagged fields.
    let last = damaged.len() - 6;
    damaged[last] ^= 1;
    let mut answers = Vec::new();
    serve(&damaged[4..], &mut journal, &mut offsets, &mut answers).unwrap();
    assert_eq!(outcome(&answers), [(4, 0, 0), (5, 2, -1)]);

    let mut other = request(-1, &[0]);
    other[5] = ApiKey::Fetch as u8;
    assert!(matches!(
        serve(&other[4..], &mut journal, &mut offsets, &mut answers),
        Err(Refusal::Unknown(1, PRODUCE_VERSION))
    ));
    let short = request(-1, &[0]);
    for end in 4..short.len() {
        let refused = serve(&short[4..end], &mut journal, &mut offsets, &mut Vec::new());
        assert!(matches!(refused, Err(Refusal::Malformed)), "{end}");
    }
}

#[test]
fn a_request_without_acks_has_no_answer() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, mut offsets) = (journal(&directory), Offsets::default());
    let mut answers = vec![9];
    serve(
        &request(0, &[0])[4..],
        &mut journal,
        &mut offsets,
        &mut answers,
    )
    .unwrap();
    assert_eq!(answers, [9]);
}
