//! Produce over the native protocol, version 1. The generator's thread; knows no clock, and of the socket only the greeting.

use std::io::{Read, Write};

use client::stream::Stream;
use client::{Greeting, Link, TopicId};
use net::kafka::error::ErrorCode;
use net::native::v1::{ArchivedProduceAnswer, Produce, ProducePart, VERSION};
use net::native::{HEADER_BYTES, Kind, decode, encode, frame_bytes, read, read_text};

use crate::Failure;
use crate::load::wire::{Batch, Prepared, Wire};
use crate::payload::Random;

/// The largest answer that is believed, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Produce requests for one topic.
#[derive(Debug, Clone)]
pub struct NativeWire {
    greeting: Greeting,
    topic_id: TopicId,
    acks: i8,
    batch: Batch,
    timestamp_ms: i64,
}

impl NativeWire {
    /// Requests for the topic with this id, whose records carry this time.
    pub fn new(
        greeting: Greeting,
        topic_id: TopicId,
        acks: i16,
        batch: Batch,
        timestamp_ms: i64,
    ) -> NativeWire {
        NativeWire {
            greeting,
            topic_id,
            acks: i8::try_from(acks).expect("acks are -1, 0 or 1"),
            batch,
            timestamp_ms,
        }
    }
}

impl Wire for NativeWire {
    const NAME: &'static str = "native";
    const IN_ORDER: bool = true;

    fn open(&self, stream: &mut Stream) -> Result<(), Failure> {
        let mut link = Link::new(&self.greeting);
        stream.write_all(link.output())?;
        link.on_written(link.output().len());
        while !link.is_open() {
            let bytes = stream.read(link.input())?;
            if bytes == 0 {
                return Err(Failure(
                    "the other side closed the connection at the greeting: is it the native listener?"
                        .to_owned(),
                ));
            }
            link.on_read(bytes);
            link.next_frame()
                .map_err(|error| Failure(format!("the greeting failed: {error}")))?;
        }
        match link.version() {
            Some(VERSION) => Ok(()),
            _ => Err(Failure(format!(
                "the broker chose another version of the native protocol than {VERSION}"
            ))),
        }
    }

    fn prepare(&self, number: u32, partitions: &[i32], random: &mut Random) -> Prepared {
        let batches: Vec<Vec<u8>> = partitions
            .iter()
            .map(|_| self.batch.build(self.timestamp_ms, random))
            .collect();
        let part = |(&partition, batch): (&i32, &Vec<u8>)| ProducePart {
            topic_id: self.topic_id,
            partition,
            records_bytes: u32::try_from(batch.len()).expect("a batch below 4 GiB"),
        };
        let body = Produce {
            parts: partitions.iter().zip(&batches).map(part).collect(),
            timeout_ms: 30_000,
            acks: self.acks,
        };
        let records_bytes: usize = batches.iter().map(Vec::len).sum();
        let records_bytes = u32::try_from(records_bytes).expect("a request below 4 GiB");
        let id = u64::from(number);
        let mut bytes = encode(VERSION, Kind::Produce, 0, id, &body, records_bytes);
        bytes.extend(batches.iter().flatten());
        let records = u64::from(self.batch.records) * partitions.len() as u64;
        Prepared {
            bytes,
            partitions: partitions.to_vec(),
            records,
            value_bytes: records * u64::from(self.batch.value_bytes),
        }
    }

    fn answer_bytes(&self, head: &[u8]) -> Result<Option<usize>, String> {
        match head.first_chunk::<HEADER_BYTES>() {
            None => Ok(None),
            Some(header) => frame_bytes(header, ANSWER_BYTES_MAX)
                .map(Some)
                .map_err(|fault| format!("bytes that are no frame: {fault:?}")),
        }
    }

    fn number(&self, answer: &[u8]) -> Result<u32, String> {
        let id = answer.get(24..32).and_then(|rest| rest.first_chunk::<8>());
        id.and_then(|id| u32::try_from(u64::from_le_bytes(*id)).ok())
            .ok_or_else(|| "an answer with another's correlation id".to_owned())
    }

    fn check(&self, answer: &[u8], request: &Prepared) -> Result<(), String> {
        let frame = decode(answer).map_err(|fault| fault.to_string())?;
        if frame.kind == Kind::Refusal {
            let refusal = read::<net::native::hello::ArchivedRefusal>(frame.body)
                .map_err(|fault| fault.to_string())?;
            return Err(format!(
                "refused with {}: {}",
                name(refusal.error.to_native()),
                String::from_utf8_lossy(&refusal.message)
            ));
        }
        if (frame.kind, frame.version) != (Kind::ProduceAnswer, VERSION) {
            return Err(format!("a {} where an answer was due", frame.kind.name()));
        }
        let body = read::<ArchivedProduceAnswer>(frame.body).map_err(|fault| fault.to_string())?;
        if body.results.len() != request.partitions.len() {
            return Err(format!(
                "{} results for {} batches",
                body.results.len(),
                request.partitions.len()
            ));
        }
        for (index, (result, partition)) in body.results.iter().zip(&request.partitions).enumerate()
        {
            let (code, offset) = (result.error.to_native(), result.base_offset.to_native());
            if code != 0 {
                let remark = body
                    .remarks
                    .iter()
                    .find(|remark| remark.part.to_native() as usize == index)
                    .and_then(|remark| {
                        let (start, bytes) = (&remark.text_start, &remark.text_bytes);
                        read_text(&body.texts, start.to_native(), bytes.to_native()).ok()
                    });
                return Err(format!(
                    "partition {partition}: error {code} {}: {}",
                    name(code),
                    remark.unwrap_or("")
                ));
            }
            if offset < 0 {
                return Err(format!(
                    "partition {partition}: no error, and offset {offset}"
                ));
            }
        }
        Ok(())
    }
}

fn name(code: i16) -> &'static str {
    ErrorCode::from_code(code).map_or("UNKNOWN", ErrorCode::name)
}

#[cfg(test)]
mod tests {
    use net::native::Body;
    use net::native::v1::{ProduceAnswer, ProduceRemark, ProduceResult};
    use storage::batch::BatchView;

    use super::*;

    fn wire() -> NativeWire {
        let batch = Batch {
            records: 2,
            value_bytes: 1000,
        };
        NativeWire::new("test".into(), [9; 16], -1, batch, 1_700_000_000_000)
    }

    fn answer(number: u64, errors: &[i16]) -> Vec<u8> {
        let result = |&error: &i16| ProduceResult {
            base_offset: if error == 0 { 12 } else { -1 },
            log_append_time_ms: -1,
            log_start_offset: 0,
            error,
        };
        let body = ProduceAnswer {
            results: errors.iter().map(result).collect(),
            remarks: vec![ProduceRemark {
                part: 1,
                record: -1,
                text_start: 0,
                text_bytes: 3,
            }],
            texts: b"why".to_vec(),
        };
        Body::ProduceAnswer(body).encode(0, number, 0)
    }

    #[test]
    fn a_request_is_what_the_broker_reads() {
        let prepared = wire().prepare(77, &[3, 9], &mut Random::new(5));
        let frame = decode(&prepared.bytes).unwrap();
        assert_eq!((frame.kind, frame.correlation_id), (Kind::Produce, 77));
        let body = read::<net::native::v1::ArchivedProduce>(frame.body).unwrap();
        assert_eq!(body.acks, -1);
        let mut rest = frame.records;
        for (part, partition) in body.parts.iter().zip([3, 9]) {
            assert_eq!(part.topic_id, [9; 16]);
            assert_eq!(part.partition.to_native(), partition);
            let (batch, behind) = rest.split_at(part.records_bytes.to_native() as usize);
            let batch = BatchView::new(batch).unwrap();
            batch.verify().unwrap();
            assert_eq!(batch.header().records_count(), 2);
            rest = behind;
        }
        assert!(rest.is_empty());
        assert_eq!((prepared.records, prepared.value_bytes), (4, 4000));
    }

    #[test]
    fn an_answer_is_a_yes_only_if_it_says_yes_for_every_batch() {
        let wire = wire();
        let request = wire.prepare(4, &[3, 9], &mut Random::new(5));
        let check = |errors: &[i16]| {
            let answer = answer(4, errors);
            assert_eq!(wire.answer_bytes(&answer[..31]), Ok(None));
            assert_eq!(wire.answer_bytes(&answer), Ok(Some(answer.len())));
            assert_eq!(wire.number(&answer), Ok(4));
            wire.check(&answer, &request)
        };
        assert_eq!(check(&[0, 0]), Ok(()));
        let refused = check(&[0, 6]).unwrap_err();
        assert!(
            refused.contains("partition 9") && refused.contains("NOT_LEADER_OR_FOLLOWER: why"),
            "{refused}"
        );
        assert!(check(&[0]).unwrap_err().contains("1 results for 2"));
        let mut damaged = answer(4, &[0, 0]);
        *damaged.last_mut().unwrap() ^= 1;
        assert!(wire.check(&damaged, &request).is_err());
        assert!(wire.answer_bytes(&[0; 32]).is_err());
    }
}
