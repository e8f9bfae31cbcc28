//! Produce: splits a request by the cores that own its partitions, and answers when each part has its
//! result. Lives on the core that accepted the connection; batches stay ranges of the frame.

use std::sync::Arc;

use net::kafka::error::ErrorCode;
use net::kafka::produce as wire;
use storage::types::{CoreId, Now, TopicId};

use super::{Head, Outcome, Request};
use crate::calls::Waiting;
use crate::ids::Key;
use crate::mesh::{AppendResult, PartitionRef};
use crate::shard::Shard;
use net::wire::DecodeError;
use ring::buf::Shared;

/// A Produce request until its last part is answered.
#[derive(Debug)]
pub struct ProduceState {
    head: Head,
    acks: i16,
    topics: Vec<Topic>,
    places: Vec<Place>,
    open_count: usize,
    /// Keeps the batches that other cores read.
    _frame: Shared,
}

#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    topic_id: TopicId,
    partition_count: usize,
}

#[derive(Debug)]
struct Place {
    partition: i32,
    result: Option<AppendResult>,
}

/// Batches for one core.
struct CoreParts {
    core: CoreId,
    places: Vec<usize>,
    parts: Vec<(PartitionRef, Shared)>,
}

/// Handles a Produce request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    if request.head.version < 3 {
        // Advertised for the sake of old librdkafka (KAFKA-18659), but not served, as in Kafka.
        return Ok(Outcome::Close("Produce below version 3 is not served"));
    }
    let body = request.decode(wire::ProduceRequest::decode)?;
    let refusal = if body.transactional_id.is_some() {
        Some(ErrorCode::TransactionalIdAuthorizationFailed)
    } else if !(-1..=1).contains(&body.acks) {
        Some(ErrorCode::InvalidRequiredAcks)
    } else {
        None
    };
    let key = shard.keys.next();
    let mut state = ProduceState {
        head: request.head,
        acks: body.acks,
        topics: Vec::with_capacity(body.topic_data.len()),
        places: Vec::new(),
        open_count: 0,
        _frame: request.frame.clone(),
    };
    let mut by_core: Vec<CoreParts> = Vec::new();
    let by_id = request.head.version >= 13;
    for topic_data in &body.topic_data {
        let topic = if by_id {
            shard.image.topic_by_id(topic_data.topic_id)
        } else {
            shard.image.topic(&topic_data.name)
        };
        let unknown = if by_id {
            ErrorCode::UnknownTopicId
        } else {
            ErrorCode::UnknownTopicOrPartition
        };
        let (name, topic_id, count, internal) = match topic {
            Some(topic) => (
                Arc::from(&*topic.name),
                topic.id,
                topic.partition_count() as usize,
                topic.internal(),
            ),
            None => (Arc::from(&*topic_data.name), topic_data.topic_id, 0, false),
        };
        let known = topic.is_some();
        state.topics.push(Topic {
            name,
            topic_id,
            partition_count: topic_data.partition_data.len(),
        });
        for data in &topic_data.partition_data {
            let place = state.places.len();
            let error = if let Some(code) = refusal {
                Some(code)
            } else if !known {
                Some(unknown)
            } else if usize::try_from(data.index).map_or(true, |index| index >= count) {
                Some(ErrorCode::UnknownTopicOrPartition)
            } else if internal && request.client_id != Some("__admin_client") {
                Some(ErrorCode::InvalidTopicException)
            } else {
                None
            };
            state.places.push(Place {
                partition: data.index,
                result: error.map(AppendResult::error),
            });
            if error.is_some() {
                continue;
            }
            let partition = PartitionRef {
                topic_id,
                partition: data.index,
            };
            let core = shard.owner(partition);
            let batch = match data.records {
                Some(records) => request.share(records),
                None => Shared::empty(),
            };
            let parts = match by_core.iter_mut().find(|parts| parts.core == core) {
                Some(parts) => parts,
                None => {
                    by_core.push(CoreParts {
                        core,
                        places: Vec::new(),
                        parts: Vec::new(),
                    });
                    let last = by_core.len() - 1;
                    &mut by_core[last]
                }
            };
            parts.places.push(place);
            parts.parts.push((partition, batch));
        }
    }
    state.open_count = by_core.len();
    let acks = state.acks;
    shard.produces.insert(key, state);
    if by_core.is_empty() {
        finish(shard, key);
        return Ok(Outcome::Pending);
    }
    for parts in by_core {
        let id = shard.expect(Waiting::Produce {
            request: key,
            places: parts.places,
        });
        let version = request.head.version;
        shard.call_append(now, id, parts.core, acks, version, parts.parts);
    }
    Ok(Outcome::Pending)
}

impl Shard {
    /// One core answered its part of a Produce request.
    pub(crate) fn on_append_answer(
        &mut self,
        _now: Now,
        request: Key,
        places: &[usize],
        results: Vec<AppendResult>,
    ) {
        let Some(state) = self.produces.get_mut(&request) else {
            unreachable!("a produce ends with its last part");
        };
        for (place, result) in places.iter().zip(results) {
            state.places[*place].result = Some(result);
        }
        state.open_count -= 1;
        if state.open_count == 0 {
            finish(self, request);
        }
    }
}

fn finish(shard: &mut Shard, request: Key) {
    let Some(state) = shard.produces.remove(&request) else {
        return;
    };
    let failed = state.places.iter().any(|place| {
        place
            .result
            .as_ref()
            .is_some_and(|result| result.error != ErrorCode::None)
    });
    if state.acks == 0 {
        if failed {
            shard.close(state.head.ticket.conn, "a produce with acks=0 failed");
        }
        shard.respond(state.head, None);
        return;
    }
    let mut places = state.places.into_iter();
    let responses = state
        .topics
        .iter()
        .map(|topic| wire::TopicProduceResponse {
            name: (&*topic.name).into(),
            topic_id: topic.topic_id,
            partition_responses: places
                .by_ref()
                .take(topic.partition_count)
                .filter_map(|place| Some((place.partition, place.result?)))
                .map(|(partition, result)| partition_response(partition, result))
                .collect(),
        })
        .collect();
    let response = wire::ProduceResponse {
        responses,
        ..Default::default()
    };
    let chunks = state
        .head
        .encode(|writer, version| response.encode(writer, version));
    shard.respond(state.head, Some(chunks));
}

fn partition_response(
    partition: i32,
    result: AppendResult,
) -> wire::PartitionProduceResponse<'static> {
    wire::PartitionProduceResponse {
        index: partition,
        error_code: result.error.code(),
        base_offset: result.base_offset,
        log_append_time_ms: result.log_append_time_ms,
        log_start_offset: result.log_start_offset,
        record_errors: result
            .record_errors
            .into_iter()
            .map(|(index, message)| wire::BatchIndexAndErrorMessage {
                batch_index: index,
                batch_index_error_message: message.map(Into::into),
            })
            .collect(),
        error_message: result.message.map(Into::into),
        ..Default::default()
    }
}
