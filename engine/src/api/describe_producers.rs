//! DescribeProducers (KIP-664): the producers that partitions remember. Asked of the owning cores;
//! answered on the core that accepted the connection.

use net::kafka::describe_producers as wire;
use net::kafka::error::ErrorCode;
use net::wire::DecodeError;
use storage::types::Now;

use super::{Outcome, PartitionQuestion, Request, ask_by_topic};
use crate::mesh::{Ask, PartitionAnswer, ProducerReport};
use crate::shard::Shard;

/// Handles a DescribeProducers request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::DescribeProducersRequest::decode)?;
    let topics = body.topics.iter().map(|topic| {
        let questions = topic
            .partition_indexes
            .iter()
            .map(|index| PartitionQuestion {
                partition: *index,
                current_leader_epoch: -1,
                ask: Ok(Ask::Producers),
            });
        (&*topic.name, questions.collect())
    });
    let topics = topics.collect();
    let head = request.head;
    ask_by_topic(shard, now, topics, move |shard, answers| {
        let topics = answers
            .into_iter()
            .map(|(name, partitions)| {
                // As in Kafka, the reason is told for an unknown topic, not for an unknown partition.
                let known = shard.image.topic(&name).is_some();
                let message = (!known).then(|| ErrorCode::UnknownTopicOrPartition.message());
                wire::TopicResponse {
                    name: name.into(),
                    partitions: partitions
                        .into_iter()
                        .map(|(index, answer)| wire::PartitionResponse {
                            error_message: message.map(Into::into),
                            ..response(index, answer)
                        })
                        .collect(),
                }
            })
            .collect();
        let response = wire::DescribeProducersResponse {
            topics,
            ..Default::default()
        };
        let chunks = head.encode(|writer, version| response.encode(writer, version));
        shard.respond(head, Some(chunks));
    });
    Ok(Outcome::Pending)
}

fn response(index: i32, answer: PartitionAnswer) -> wire::PartitionResponse<'static> {
    let (error_code, producers) = match answer {
        PartitionAnswer::Producers(producers) => (0, producers),
        PartitionAnswer::Error(code) => (code.code(), Vec::new()),
        PartitionAnswer::Offset { .. } => (-1, Vec::new()),
    };
    wire::PartitionResponse {
        partition_index: index,
        error_code,
        active_producers: producers.iter().map(state).collect(),
        ..Default::default()
    }
}

fn state(producer: &ProducerReport) -> wire::ProducerState {
    wire::ProducerState {
        producer_id: producer.producer_id,
        producer_epoch: i32::from(producer.producer_epoch),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp_ms,
        // Without transactions there is no coordinator.
        coordinator_epoch: -1,
        current_txn_start_offset: -1,
    }
}
