//! Clients that produce: plain ones in every form, and idempotent ones that repeat themselves. Knows what an
//! acknowledgement promises, and no log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use net::kafka::ApiKey;
use net::kafka::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use net::kafka::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};
use storage::batch::Compression;
use storage::builder::BatchBuilder;

use super::actor::{Actor, gone};
use super::client::{Answer, Client, Context, between, pick};
use super::model::{Batch, BatchId, Fate, Life, TopicRef, ensure, value};
use super::world::World;

/// The first version that names topics by id.
const BY_ID: i16 = 13;

/// One batch of a request.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The batch.
    pub batch: BatchId,
    /// Where it goes.
    pub topic: TopicRef,
    /// The partition there.
    pub partition: i32,
}

/// Makes a batch and remembers it.
pub fn new_batch(
    cx: &mut Context<'_>,
    topic: TopicRef,
    partition: i32,
    by_id: bool,
    compression: Compression,
    producer: Option<(i64, i16, i32)>,
) -> BatchId {
    let id = cx.model.batches.len();
    let compact = cx.model.topics[topic].kind.compact;
    let records = between(cx.rng, 1, 6) as usize;
    let bytes = match cx.rng.below(60) {
        0 => between(cx.rng, 5_000, cx.world.shape().value_bytes_max),
        1..=5 => between(cx.rng, 500, 3_000),
        _ => between(cx.rng, 8, 200),
    } as usize;
    let mut builder = BatchBuilder::new(compression);
    if let Some((producer_id, epoch, sequence)) = producer {
        builder = builder.producer(producer_id, epoch, sequence);
    }
    let now_ms = cx.world.now().wall_ms;
    let mut keys = Vec::new();
    let mut timestamps = Vec::new();
    for index in 0..records {
        let timestamp = now_ms - between(cx.rng, 0, 2_000);
        timestamps.push(timestamp);
        let value = value(id, index, bytes);
        if compact {
            let key = cx.rng.below(12) as u32;
            keys.push(key);
            builder.push(timestamp, Some(&key.to_be_bytes()), Some(&value));
        } else {
            builder.push(timestamp, None, Some(&value));
        }
    }
    let known = &cx.model.topics[topic];
    cx.model.batches.push(Batch {
        bytes: builder.build(),
        name: known.name.clone(),
        topic: by_id.then_some(topic),
        partition,
        records: records as i64,
        keys,
        timestamps,
        fate: Fate::Open,
        place: None,
    });
    id
}

/// Writes a Produce request of these batches.
pub fn ask_produce<W>(
    client: &mut Client<W>,
    cx: &mut Context<'_>,
    version: i16,
    acks: i16,
    sent: &[Sent],
    what: W,
) -> Result<(), String> {
    let bytes: Vec<Vec<u8>> = sent
        .iter()
        .map(|sent| cx.model.batches[sent.batch].bytes.clone())
        .collect();
    let mut topics: Vec<TopicProduceData<'_>> = Vec::new();
    let mut names = Vec::new();
    for sent in sent {
        let topic = &cx.model.topics[sent.topic];
        names.push((topic.name.clone(), topic.id));
    }
    for ((sent, bytes), (name, id)) in sent.iter().zip(&bytes).zip(names) {
        topics.push(TopicProduceData {
            name: name.into(),
            topic_id: id,
            partition_data: vec![PartitionProduceData {
                index: sent.partition,
                records: Some(bytes),
            }],
        });
    }
    let request = ProduceRequest {
        transactional_id: None,
        acks,
        timeout_ms: 30_000,
        topic_data: topics,
    };
    client.ask(
        cx,
        ApiKey::Produce,
        version,
        what,
        acks != 0,
        |writer, version| {
            request.encode(writer, version);
        },
    )
}

/// The results of a Produce, in the order of the request: error and base offset.
pub fn results<W>(answer: &Answer<W>, sent: &[Sent]) -> Result<Vec<(i16, i64)>, String> {
    let response = answer.body(ProduceResponse::decode)?;
    let results: Vec<(i32, i16, i64)> = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses)
        .map(|part| (part.index, part.error_code, part.base_offset))
        .collect();
    ensure!(
        results.len() == sent.len()
            && results
                .iter()
                .zip(sent)
                .all(|((index, ..), sent)| *index == sent.partition),
        "a Produce of {} parts was answered with {:?}",
        sent.len(),
        results
    );
    Ok(results
        .into_iter()
        .map(|(_, error, base)| (error, base))
        .collect())
}

/// What a plain producer remembers of a request.
#[derive(Debug)]
pub struct PlainSent {
    parts: Vec<Sent>,
    /// The checksum of the only batch is wrong.
    broken: bool,
}

/// A producer without idempotence.
#[derive(Debug, Default)]
pub struct Plain {
    client: Client<PlainSent>,
    acks: i16,
}

impl Plain {
    /// One that asks for these acknowledgements.
    pub fn new(acks: i16) -> Plain {
        Plain {
            acks,
            ..Plain::default()
        }
    }
}

impl Actor for Plain {
    fn act(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        let live = cx.model.live();
        if live.is_empty() || self.client.open_count() >= 8 {
            return Ok(());
        }
        if cx.rng.one_in(150) {
            self.client.disconnect(cx);
            return Ok(());
        }
        let version = between(cx.rng, 3, 13) as i16;
        let by_id = version >= BY_ID;
        let broken = self.acks != 0 && cx.rng.one_in(40);
        let count = if broken { 1 } else { between(cx.rng, 1, 3) };
        let mut parts: Vec<Sent> = Vec::new();
        for _ in 0..count {
            let topic = pick(cx.rng, &live);
            let partitions = cx.model.topics[topic].partitions.len() as u64;
            let partition = cx.rng.below(partitions) as i32;
            let twice = |sent: &Sent| (sent.topic, sent.partition) == (topic, partition);
            if parts.iter().any(twice) {
                continue;
            }
            let compression = match cx.rng.below(10) {
                0 => Compression::Gzip,
                1 => Compression::Snappy,
                2 => Compression::Lz4,
                3 if version >= 7 => Compression::Zstd,
                _ => Compression::None,
            };
            let batch = new_batch(cx, topic, partition, by_id, compression, None);
            if broken {
                let bytes = &mut cx.model.batches[batch].bytes;
                let at = between(cx.rng, 21, bytes.len() as i64 - 1) as usize;
                bytes[at] ^= 1 << cx.rng.below(8);
            }
            parts.push(Sent {
                batch,
                topic,
                partition,
            });
        }
        let what = PlainSent {
            parts: parts.clone(),
            broken,
        };
        ask_produce(&mut self.client, cx, version, self.acks, &parts, what)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        while let Some(answer) = self.client.answer(cx)? {
            let parts = &answer.asked.what.parts;
            for (sent, (error, base)) in parts.iter().zip(results(&answer, parts)?) {
                let topic = &cx.model.topics[sent.topic];
                let name = topic.name.clone();
                let same = topic.life != Life::Gone;
                match error {
                    0 => {
                        ensure!(
                            !answer.asked.what.broken,
                            "batch {} has a wrong checksum and was taken",
                            sent.batch
                        );
                        if same {
                            cx.acknowledge(sent.topic, sent.partition, sent.batch, base)?;
                        }
                    }
                    2 if answer.asked.what.broken => {
                        cx.model.batches[sent.batch].fate = Fate::Refused;
                    }
                    3 | 100 if gone(cx.model, sent.topic) => {}
                    error if cx.refused(sent.topic, sent.partition, sent.batch, error) => {}
                    error => {
                        return Err(format!(
                            "batch {} for {}-{} was answered with error {error}",
                            sent.batch, name, sent.partition
                        ));
                    }
                }
            }
        }
        self.client.lost(cx);
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        self.client.is_quiet()
    }

    fn overdue(&self, world: &World) -> Option<String> {
        self.client.overdue(world)
    }

    fn describe(&self) -> String {
        format!("a producer: {}", self.client.oldest())
    }
}

/// What an idempotent producer asked.
#[derive(Debug)]
pub enum IdempotentAsked {
    /// An id.
    Id,
    /// A batch, for the first time or again, that is to end up in the log once.
    Batch(TopicRef, i32, BatchId),
    /// A batch that is there: its place again.
    Duplicate(TopicRef, i32, BatchId),
    /// A batch that is too old to be remembered.
    Forgotten(TopicRef, i32, BatchId),
}

/// What went to one partition.
#[derive(Debug, Default)]
struct Flow {
    next_sequence: i32,
    open: VecDeque<BatchId>,
    acked: Vec<BatchId>,
    /// What is open goes out again before anything new, as soon as the topic is known to be there.
    resend: bool,
}

/// OUT_OF_ORDER_SEQUENCE_NUMBER.
const OUT_OF_ORDER: i16 = 45;

/// How many batches of a producer the broker remembers.
const REMEMBERED: usize = 5;

/// An idempotent producer.
#[derive(Debug, Default)]
pub struct Idempotent {
    client: Client<IdempotentAsked>,
    id: Option<(i64, i16)>,
    flows: BTreeMap<(TopicRef, i32), Flow>,
    /// Something was lost: what is open is to be sent again, in order.
    recovering: bool,
    again: VecDeque<(TopicRef, i32, BatchId)>,
}

impl Idempotent {
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        (topic, partition, batch): (TopicRef, i32, BatchId),
        what: IdempotentAsked,
    ) -> Result<(), String> {
        let sent = [Sent {
            batch,
            topic,
            partition,
        }];
        ask_produce(&mut self.client, cx, BY_ID, -1, &sent, what)
    }

    fn repeat(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        let flows: Vec<(TopicRef, i32)> = self
            .flows
            .iter()
            .filter(|(_, flow)| !flow.acked.is_empty())
            .map(|(name, _)| *name)
            .collect();
        if flows.is_empty() {
            return Ok(());
        }
        let (topic, partition) = pick(cx.rng, &flows);
        let flow = &self.flows[&(topic, partition)];
        let back = cx.rng.below(flow.acked.len().min(9) as u64) as usize;
        let place = flow.acked.len() - 1 - back;
        let batch = flow.acked[place];
        let what = if back + flow.open.len() < REMEMBERED {
            IdempotentAsked::Duplicate(topic, partition, batch)
        } else if back >= REMEMBERED {
            IdempotentAsked::Forgotten(topic, partition, batch)
        } else {
            return Ok(());
        };
        self.send(cx, (topic, partition, batch), what)
    }

    fn on_answer(
        &mut self,
        cx: &mut Context<'_>,
        answer: &Answer<IdempotentAsked>,
        ids: &mut BTreeSet<i64>,
    ) -> Result<(), String> {
        let (topic, partition, batch) = match &answer.asked.what {
            IdempotentAsked::Id => {
                let response = answer.body(InitProducerIdResponse::decode)?;
                if response.error_code != 0 && cx.world.is_troubled() {
                    return Ok(());
                }
                ensure!(
                    response.error_code == 0,
                    "InitProducerId was answered with error {}",
                    response.error_code
                );
                ensure!(
                    ids.insert(response.producer_id),
                    "producer id {} was given twice",
                    response.producer_id
                );
                self.id = Some((response.producer_id, response.producer_epoch));
                return Ok(());
            }
            IdempotentAsked::Batch(topic, partition, batch)
            | IdempotentAsked::Duplicate(topic, partition, batch)
            | IdempotentAsked::Forgotten(topic, partition, batch) => (*topic, *partition, *batch),
        };
        let sent = [Sent {
            batch,
            topic,
            partition,
        }];
        let (error, base) = results(answer, &sent)?[0];
        let absent = matches!(error, 3 | 100) && gone(cx.model, topic);
        if absent || cx.may_refuse(topic, partition, error) {
            self.recovering = true;
            return Ok(());
        }
        if self.recovering && error == OUT_OF_ORDER && cx.world.is_troubled() {
            // What was sent before it was refused for want of a disk.
            return Ok(());
        }
        let name = cx.model.topics[topic].name.clone();
        if matches!(answer.asked.what, IdempotentAsked::Forgotten(..)) {
            ensure!(
                error == OUT_OF_ORDER,
                "batch {batch} for {name}-{partition} came again after more than five others, and was \
                 answered with error {error} and offset {base}"
            );
            return Ok(());
        }
        ensure!(
            error == 0,
            "batch {batch} of producer {:?} for {name}-{partition} was answered with error {error}",
            self.id
        );
        cx.acknowledge(topic, partition, batch, base)?;
        if let Some(flow) = self.flows.get_mut(&(topic, partition))
            && flow.open.front() == Some(&batch)
        {
            flow.open.pop_front();
            flow.acked.push(batch);
        }
        Ok(())
    }
}

impl Actor for Idempotent {
    fn act(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        let Some((id, epoch)) = self.id else {
            if self.client.open_count() == 0 {
                let request = InitProducerIdRequest {
                    transactional_id: None,
                    transaction_timeout_ms: 60_000,
                    ..Default::default()
                };
                let version = between(cx.rng, 0, 5) as i16;
                let write = |writer: &mut _, version| request.encode(writer, version);
                return self.client.ask(
                    cx,
                    ApiKey::InitProducerId,
                    version,
                    IdempotentAsked::Id,
                    true,
                    write,
                );
            }
            return Ok(());
        };
        if self.recovering {
            if self.client.open_count() > 0 {
                return Ok(());
            }
            self.recovering = false;
            self.flows
                .retain(|(topic, _), _| cx.model.topics[*topic].life != Life::Gone);
            self.again.clear();
            for flow in self.flows.values_mut() {
                flow.resend = true;
            }
        }
        // A topic whose deletion was asked for and not answered may turn out to have stayed.
        for ((topic, partition), flow) in &mut self.flows {
            if flow.resend && !gone(cx.model, *topic) {
                flow.resend = false;
                let open = flow.open.iter();
                self.again
                    .extend(open.map(|batch| (*topic, *partition, *batch)));
            }
        }
        if self.client.open_count() >= 4 {
            return Ok(());
        }
        if cx.rng.one_in(150) {
            self.client.disconnect(cx);
            return Ok(());
        }
        if let Some((topic, partition, batch)) = self.again.pop_front() {
            let what = IdempotentAsked::Batch(topic, partition, batch);
            return self.send(cx, (topic, partition, batch), what);
        }
        if cx.rng.one_in(6) {
            return self.repeat(cx);
        }
        // A power cut takes acknowledged batches from lazy topics, and their sequence numbers with them.
        let mut live: Vec<TopicRef> = cx.model.live();
        live.retain(|topic| !cx.model.topics[*topic].kind.lazy);
        if live.is_empty() {
            return Ok(());
        }
        let topic = pick(cx.rng, &live);
        let partition = cx.rng.below(cx.model.topics[topic].partitions.len() as u64) as i32;
        let flow = self.flows.entry((topic, partition)).or_default();
        if flow.acked.is_empty() && !flow.open.is_empty() {
            // A broker that knows nothing of a producer takes any of its batches as the first (KIP-360).
            return Ok(());
        }
        let producer = (id, epoch, flow.next_sequence);
        let batch = new_batch(
            cx,
            topic,
            partition,
            true,
            Compression::None,
            Some(producer),
        );
        flow.next_sequence += cx.model.batches[batch].records as i32;
        flow.open.push_back(batch);
        let what = IdempotentAsked::Batch(topic, partition, batch);
        self.send(cx, (topic, partition, batch), what)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        while let Some(answer) = self.client.answer(cx)? {
            let mut ids = std::mem::take(&mut cx.model.producer_ids);
            let outcome = self.on_answer(cx, &answer, &mut ids);
            cx.model.producer_ids = ids;
            outcome?;
        }
        if self.client.lost(cx).is_some() {
            self.recovering = true;
        }
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        self.client.is_quiet()
    }

    fn overdue(&self, world: &World) -> Option<String> {
        self.client.overdue(world)
    }

    fn describe(&self) -> String {
        format!("an idempotent producer: {}", self.client.oldest())
    }
}
