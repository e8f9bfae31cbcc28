//! Produce over the Kafka protocol, in the version that old and new brokers and the bare loop share. The generator's thread; knows no socket and no clock.

use std::borrow::Cow;

use net::client::error_of;
use net::kafka::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};
use net::kafka::{ApiKey, RequestHeader, ResponseHeader};
use net::wire::{DecodeError, Reader, Writer};

use crate::load::wire::{Batch, Prepared, Wire};
use crate::payload::Random;

/// The version of Produce: flexible, and with topics by name.
pub const PRODUCE_VERSION: i16 = 9;

/// The largest answer that is believed, in bytes.
const ANSWER_BYTES_MAX: i32 = 64 << 20;

/// Produce requests for one topic.
#[derive(Debug, Clone)]
pub struct KafkaWire {
    topic: String,
    acks: i16,
    batch: Batch,
    timestamp_ms: i64,
}

impl KafkaWire {
    /// Requests for `topic`, whose records carry this time.
    pub fn new(topic: &str, acks: i16, batch: Batch, timestamp_ms: i64) -> KafkaWire {
        KafkaWire {
            topic: topic.to_owned(),
            acks,
            batch,
            timestamp_ms,
        }
    }

    /// Reads through an answer without keeping anything of it; `Ok(false)` when it is not the yes that was hoped for.
    fn is_plain_yes(answer: &[u8], request: &Prepared) -> Result<bool, DecodeError> {
        let mut reader = Reader::new(answer);
        reader.take(4 + 4)?;
        reader.skip_tagged_fields()?;
        // One topic; compact counts are one more than what they count.
        if reader.unsigned_varint()? != 2 {
            return Ok(false);
        }
        let name_bytes = reader.unsigned_varint()?.saturating_sub(1);
        reader.take(name_bytes as usize)?;
        if reader.unsigned_varint()? as usize != request.partitions.len() + 1 {
            return Ok(false);
        }
        for partition in &request.partitions {
            let index = reader.i32()?;
            let error = reader.i16()?;
            let base_offset = reader.i64()?;
            reader.take(8 + 8)?;
            let no_record_errors = reader.unsigned_varint()? <= 1;
            let no_message = reader.unsigned_varint()? == 0;
            reader.skip_tagged_fields()?;
            let yes = index == *partition
                && error == 0
                && base_offset >= 0
                && no_record_errors
                && no_message;
            if !yes {
                return Ok(false);
            }
        }
        reader.skip_tagged_fields()?;
        reader.i32()?;
        reader.skip_tagged_fields()?;
        Ok(true)
    }

    /// Why an answer is not a yes for every partition of the request, in whatever order they stand; None if it is.
    fn complaint(answer: &[u8], request: &Prepared) -> Result<Option<String>, DecodeError> {
        let mut reader = Reader::new(&answer[4.min(answer.len())..]);
        ResponseHeader::decode(&mut reader, ApiKey::Produce, PRODUCE_VERSION)?;
        let response = ProduceResponse::decode(&mut reader, PRODUCE_VERSION)?;
        let mut missing: std::collections::BTreeSet<i32> =
            request.partitions.iter().copied().collect();
        for part in response
            .responses
            .iter()
            .flat_map(|topic| &topic.partition_responses)
        {
            if part.error_code != 0 {
                let code = error_of(part.error_code);
                let told = part.error_message.as_deref().unwrap_or(code.message());
                return Ok(Some(format!(
                    "partition {}: error {} {}: {told}",
                    part.index,
                    part.error_code,
                    code.name()
                )));
            }
            if part.base_offset < 0 {
                return Ok(Some(format!(
                    "partition {}: no error, and offset {}",
                    part.index, part.base_offset
                )));
            }
            if !missing.remove(&part.index) {
                return Ok(Some(format!("partition {} was not asked for", part.index)));
            }
        }
        Ok(missing
            .first()
            .map(|partition| format!("partition {partition} has no answer")))
    }
}

impl Wire for KafkaWire {
    const NAME: &'static str = "kafka";
    const IN_ORDER: bool = true;

    fn prepare(&self, number: u32, partitions: &[i32], random: &mut Random) -> Prepared {
        let batches: Vec<Vec<u8>> = partitions
            .iter()
            .map(|_| self.batch.build(self.timestamp_ms, random))
            .collect();
        let partition_data = partitions
            .iter()
            .zip(&batches)
            .map(|(&index, batch)| PartitionProduceData {
                index,
                records: Some(batch),
            })
            .collect();
        let request = ProduceRequest {
            transactional_id: None,
            acks: self.acks,
            timeout_ms: 30_000,
            topic_data: vec![TopicProduceData {
                name: Cow::Borrowed(&self.topic),
                partition_data,
                ..TopicProduceData::default()
            }],
        };
        let mut writer = Writer::framed();
        RequestHeader {
            api_key: ApiKey::Produce,
            api_version: PRODUCE_VERSION,
            correlation_id: number.cast_signed(),
            client_id: Some(Cow::Borrowed("millrace-bench")),
        }
        .encode(&mut writer);
        request.encode(&mut writer, PRODUCE_VERSION);
        let records = u64::from(self.batch.records) * partitions.len() as u64;
        Prepared {
            bytes: writer.into_bytes(),
            partitions: partitions.to_vec(),
            records,
            value_bytes: records * u64::from(self.batch.value_bytes),
        }
    }

    fn answer_bytes(&self, head: &[u8]) -> Result<Option<usize>, String> {
        let Some(size) = head.first_chunk::<4>() else {
            return Ok(None);
        };
        let size = i32::from_be_bytes(*size);
        if !(4..=ANSWER_BYTES_MAX).contains(&size) {
            return Err(format!("an answer of {size} bytes"));
        }
        Ok(Some(4 + size as usize))
    }

    fn number(&self, answer: &[u8]) -> Result<u32, String> {
        let number = answer.get(4..).and_then(|rest| rest.first_chunk::<4>());
        number
            .map(|bytes| u32::from_be_bytes(*bytes))
            .ok_or_else(|| "an answer without a correlation id".to_owned())
    }

    fn check(&self, answer: &[u8], request: &Prepared) -> Result<(), String> {
        if KafkaWire::is_plain_yes(answer, request) == Ok(true) {
            return Ok(());
        }
        match KafkaWire::complaint(answer, request) {
            Ok(None) => Ok(()),
            Ok(Some(complaint)) => Err(complaint),
            Err(error) => Err(format!("an answer that cannot be read: {error}")),
        }
    }
}
