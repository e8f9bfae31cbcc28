//! Produce: splits a request by the cores that own its partitions, and answers when each part has its
//! result. Lives on the core that accepted the connection; batches stay ranges of the frame.

use net::kafka::error::ErrorCode;
use net::kafka::produce as wire;
use storage::types::{CoreId, Now, TopicId};

use super::{Head, Outcome, Request};
use crate::calls::Waiting;
use crate::connection::Ticket;
use crate::ids::Key;
use crate::mesh::{AppendResult, PartitionRef};
use crate::native;
use crate::shard::Shard;
use net::wire::DecodeError;
use ring::buf::Shared;

/// A Produce request until its last part is answered.
#[derive(Debug)]
pub struct ProduceState {
    reply: Reply,
    acks: i16,
    places: Vec<Place>,
    open_count: usize,
    /// Keeps the batches that other cores read.
    _frame: Shared,
}

/// Bytes of the answer for a batch that was appended, at most.
const PLACE_BYTES: usize = 40;

/// In which protocol a request is answered.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Kafka's, which groups partitions by topic.
    Kafka { head: Head, topics: Vec<Topic> },
    /// The native one.
    Native(native::Head),
}

#[derive(Debug)]
pub(crate) struct Topic {
    /// Empty where the answer names topics by id.
    name: Box<str>,
    topic_id: TopicId,
    partition_count: usize,
}

#[derive(Debug)]
struct Place {
    partition: i32,
    result: Option<AppendResult>,
}

impl Reply {
    fn ticket(&self) -> Ticket {
        match self {
            Reply::Kafka { head, .. } => head.ticket,
            Reply::Native(head) => head.ticket,
        }
    }
}

/// Batches for one core.
struct CoreParts {
    core: CoreId,
    places: Vec<usize>,
    parts: Vec<(PartitionRef, Shared)>,
}

/// The batches of a request, sorted by the cores that own their partitions.
#[derive(Default)]
pub(crate) struct Batches {
    places: Vec<Place>,
    by_core: Vec<CoreParts>,
}

impl Batches {
    /// Nothing yet, of a request that is about as large as this.
    pub(crate) fn with_capacity(places: usize) -> Batches {
        Batches {
            places: Vec::with_capacity(places),
            by_core: Vec::new(),
        }
    }

    /// A batch that is refused before it is looked at.
    pub(crate) fn refuse(&mut self, partition: i32, error: ErrorCode) {
        self.places.push(Place {
            partition,
            result: Some(AppendResult::error(error)),
        });
    }

    /// A batch for a core.
    pub(crate) fn add(&mut self, core: CoreId, partition: PartitionRef, batch: Shared) {
        let place = self.places.len();
        self.places.push(Place {
            partition: partition.partition,
            result: None,
        });
        let parts = match self.by_core.iter_mut().find(|parts| parts.core == core) {
            Some(parts) => parts,
            None => {
                // Most requests are for one core.
                let expected = match self.by_core.is_empty() {
                    true => self.places.capacity(),
                    false => 0,
                };
                self.by_core.push(CoreParts {
                    core,
                    places: Vec::with_capacity(expected),
                    parts: Vec::with_capacity(expected),
                });
                let last = self.by_core.len() - 1;
                &mut self.by_core[last]
            }
        };
        parts.places.push(place);
        parts.parts.push((partition, batch));
    }

    /// Hands the batches to the cores; the answer follows when each has its result. `version` is that of
    /// the Produce request.
    pub(crate) fn append(
        self,
        shard: &mut Shard,
        now: Now,
        reply: Reply,
        acks: i16,
        version: i16,
        frame: &Shared,
    ) {
        let key = shard.keys.next();
        let state = ProduceState {
            reply,
            acks,
            places: self.places,
            open_count: self.by_core.len(),
            _frame: frame.clone(),
        };
        shard.produces.insert(key, state);
        if self.by_core.is_empty() {
            finish(shard, key);
            return;
        }
        for parts in self.by_core {
            let id = shard.expect(Waiting::Produce {
                request: key,
                places: parts.places,
            });
            shard.call_append(now, id, parts.core, acks, version, parts.parts);
        }
    }
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
    let mut topics = Vec::with_capacity(body.topic_data.len());
    let parts = body
        .topic_data
        .iter()
        .map(|topic| topic.partition_data.len());
    let mut batches = Batches::with_capacity(parts.sum());
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
        let (topic_id, count, internal) = match topic {
            Some(topic) => (topic.id, topic.partition_count() as usize, topic.internal()),
            None => (topic_data.topic_id, 0, false),
        };
        topics.push(Topic {
            name: Box::from(&*topic_data.name),
            topic_id,
            partition_count: topic_data.partition_data.len(),
        });
        for data in &topic_data.partition_data {
            let index = usize::try_from(data.index);
            let owner = match (refusal, topic) {
                (Some(code), _) => Err(code),
                (None, None) => Err(unknown),
                (None, Some(_)) if index.map_or(true, |index| index >= count) => {
                    Err(ErrorCode::UnknownTopicOrPartition)
                }
                (None, Some(_)) if internal && request.client_id != Some("__admin_client") => {
                    Err(ErrorCode::InvalidTopicException)
                }
                (None, Some(topic)) => Ok(topic.core_of(data.index, shard.config.cores)),
            };
            let core = match owner {
                Ok(core) => core,
                Err(code) => {
                    batches.refuse(data.index, code);
                    continue;
                }
            };
            let partition = PartitionRef {
                topic_id,
                partition: data.index,
            };
            let batch = match data.records {
                Some(records) => request.share(records),
                None => Shared::empty(),
            };
            batches.add(core, partition, batch);
        }
    }
    let reply = Reply::Kafka {
        head: request.head,
        topics,
    };
    let version = request.head.version;
    batches.append(shard, now, reply, body.acks, version, request.frame);
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
    let ticket = state.reply.ticket();
    if state.acks == 0 {
        if failed {
            shard.close(ticket.conn, "a produce with acks=0 failed");
        }
        shard.respond_to(ticket, None);
        return;
    }
    let (head, topics) = match state.reply {
        Reply::Kafka { head, topics } => (head, topics),
        Reply::Native(head) => {
            let results = state.places.into_iter().filter_map(|place| place.result);
            native::produce::respond(shard, head, results);
            return;
        }
    };
    let places_count = state.places.len();
    let mut places = state.places.into_iter();
    let responses = topics
        .iter()
        .map(|topic| wire::TopicProduceResponse {
            name: (&*topic.name).into(),
            topic_id: topic.topic_id,
            partition_responses: places
                .by_ref()
                .take(topic.partition_count)
                .map(|place| {
                    let result = place.result.expect("every place has its result");
                    partition_response(place.partition, result)
                })
                .collect(),
        })
        .collect();
    let response = wire::ProduceResponse {
        responses,
        ..Default::default()
    };
    let chunks = head.encode(|writer, version| {
        writer.reserve(places_count * PLACE_BYTES);
        response.encode(writer, version);
    });
    shard.respond(head, Some(chunks));
}

fn partition_response(
    partition: i32,
    result: AppendResult,
) -> wire::PartitionProduceResponse<'static> {
    let fault = result.fault.map(|fault| *fault).unwrap_or_default();
    wire::PartitionProduceResponse {
        index: partition,
        error_code: result.error.code(),
        base_offset: result.base_offset,
        log_append_time_ms: result.log_append_time_ms,
        log_start_offset: result.log_start_offset,
        record_errors: fault
            .record_errors
            .into_iter()
            .map(|(index, message)| wire::BatchIndexAndErrorMessage {
                batch_index: index,
                batch_index_error_message: message.map(Into::into),
            })
            .collect(),
        error_message: fault.message.map(Into::into),
        ..Default::default()
    }
}
