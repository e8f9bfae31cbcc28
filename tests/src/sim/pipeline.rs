//! A client that sends different requests one behind the other without waiting: what a request finds includes
//! what the ones before it on the same connection did. Knows which requests overlap, and no log.

use net::kafka::ApiKey;
use net::kafka::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};

use super::actor::{Asker, gone};
use super::client::{Answer, Client, Context, between, pick};
use super::model::{BatchId, ReadHead, TopicRef, ensure};
use super::producer::{Sent, ask_produce, new_batch, results};
use storage::batch::Compression;

/// What was asked.
#[derive(Debug)]
pub enum Asked {
    /// To append a batch.
    Produce(TopicRef, i32, BatchId),
    /// Where the log ends, after these batches were sent on this connection.
    Latest(TopicRef, i32, Vec<BatchId>),
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Pipeline {
    client: Client<Asked>,
}

impl Pipeline {}

impl Asker for Pipeline {
    type Asked = Asked;

    const NAME: &str = "a pipeline";

    fn client(&self) -> &Client<Asked> {
        &self.client
    }

    fn client_mut(&mut self) -> &mut Client<Asked> {
        &mut self.client
    }

    fn ask(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        let live = cx.model.live();
        if live.is_empty() || self.client.open_count() > 0 {
            return Ok(());
        }
        if cx.rng.one_in(50) {
            self.client.disconnect(cx);
            return Ok(());
        }
        let topic = pick(cx.rng, &live);
        let partition = cx.rng.below(cx.model.topics[topic].partitions.len() as u64) as i32;
        let mut batches = Vec::new();
        for _ in 0..between(cx.rng, 1, 3) {
            for _ in 0..between(cx.rng, 1, 3) {
                let batch = new_batch(cx, topic, partition, false, Compression::None, None);
                batches.push(batch);
                let version = between(cx.rng, 3, 12) as i16;
                let acks = pick(cx.rng, &[1, -1]);
                let sent = [Sent {
                    batch,
                    topic,
                    partition,
                }];
                let what = Asked::Produce(topic, partition, batch);
                ask_produce(&mut self.client, cx, version, acks, &sent, what)?;
            }
            let request = ListOffsetsRequest {
                replica_id: -1,
                topics: vec![ListOffsetsTopic {
                    name: cx.model.topics[topic].name.clone().into(),
                    partitions: vec![ListOffsetsPartition {
                        partition_index: partition,
                        timestamp: -1,
                        ..Default::default()
                    }],
                }],
                ..Default::default()
            };
            let what = Asked::Latest(topic, partition, batches.clone());
            let version = between(cx.rng, 1, 11) as i16;
            let write = |writer: &mut _, version| request.encode(writer, version);
            self.client
                .ask(cx, ApiKey::ListOffsets, version, what, true, write)?;
        }
        Ok(())
    }

    fn on_answer(&mut self, cx: &mut Context<'_>, answer: &Answer<Asked>) -> Result<(), String> {
        match &answer.asked.what {
            Asked::Produce(topic, partition, batch) => {
                let sent = Sent {
                    batch: *batch,
                    topic: *topic,
                    partition: *partition,
                };
                let (error, base) = results(answer, &[sent])?[0];
                if gone(cx.model, *topic) || cx.refused(*topic, *partition, *batch, error) {
                    return Ok(());
                }
                ensure!(
                    error == 0,
                    "batch {batch} in a pipeline was answered with error {error}"
                );
                cx.acknowledge(*topic, *partition, *batch, base)
            }
            Asked::Latest(topic, partition, batches) => {
                let response = answer.body(ListOffsetsResponse::decode)?;
                let result = response
                    .topics
                    .first()
                    .and_then(|topic| topic.partitions.first())
                    .ok_or("a ListOffsets without a result")?;
                if gone(cx.model, *topic) || cx.may_refuse(*topic, *partition, result.error_code) {
                    return Ok(());
                }
                ensure!(
                    result.error_code == 0,
                    "ListOffsets in a pipeline was answered with error {}",
                    result.error_code
                );
                for batch in batches {
                    let known = &cx.model.batches[*batch];
                    let end = known
                        .place
                        .filter(|_| known.fate == super::model::Fate::Acked)
                        .map_or(0, |(_, base)| base + known.records);
                    ensure!(
                        result.offset >= end,
                        "the log ends at {} for a request that followed batch {batch}, which ends at {end}",
                        result.offset
                    );
                }
                let state = &cx.model.topics[*topic].partitions[*partition as usize];
                let head = ReadHead {
                    from: 0,
                    high_watermark: result.offset,
                    log_start: state.start_floor.min(result.offset),
                    end_floor: 0,
                    start_floor: 0,
                };
                cx.model.bounds(*topic, *partition, &head)
            }
        }
    }
}
