//! A client that reads whole partitions and waits for each answer: what was promised must be there. Knows
//! no schedule; the world goes on while it waits.

use net::kafka::ApiKey;
use net::kafka::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use net::kafka::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use net::wire::Records;

use super::client::{Answer, Client, Context};
use super::model::{ReadHead, TopicRef, ensure};

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

/// Steps in which an answer must come.
const STEPS_MAX: u64 = 200_000;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Checker {
    client: Client<()>,
}

impl Checker {
    fn wait(&mut self, cx: &mut Context<'_>) -> Result<Answer<()>, String> {
        for _ in 0..STEPS_MAX {
            if let Some(answer) = self.client.answer(cx)? {
                return Ok(answer);
            }
            cx.world.step()?;
        }
        Err(format!(
            "the checker gets no answer to {}: {:?}",
            self.client.oldest(),
            cx.world.outstanding()
        ))
    }

    fn bound(
        &mut self,
        cx: &mut Context<'_>,
        topic: TopicRef,
        partition: i32,
        timestamp: i64,
    ) -> Result<Option<i64>, String> {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: cx.model.topics[topic].name.clone().into(),
                partitions: vec![ListOffsetsPartition {
                    partition_index: partition,
                    timestamp,
                    ..Default::default()
                }],
            }],
            ..Default::default()
        };
        let write = |writer: &mut _, version| request.encode(writer, version);
        self.client
            .ask(cx, ApiKey::ListOffsets, 7, (), true, write)?;
        let answer = self.wait(cx)?;
        let response = answer.body(ListOffsetsResponse::decode)?;
        let result = response
            .topics
            .first()
            .and_then(|topic| topic.partitions.first())
            .ok_or("a ListOffsets without a result")?;
        if result.error_code == UNKNOWN_TOPIC_OR_PARTITION
            || cx.may_refuse(topic, partition, result.error_code)
        {
            return Ok(None);
        }
        ensure!(
            result.error_code == 0,
            "ListOffsets of {}-{partition} was answered with error {}",
            cx.model.topics[topic].name,
            result.error_code
        );
        Ok(Some(result.offset))
    }

    /// Asks where a partition's log ends; `None` where there is no such topic, or no disk to tell it.
    pub fn latest(
        &mut self,
        cx: &mut Context<'_>,
        topic: TopicRef,
        partition: i32,
    ) -> Result<Option<i64>, String> {
        self.bound(cx, topic, partition, -1)
    }

    fn earliest(
        &mut self,
        cx: &mut Context<'_>,
        topic: TopicRef,
        partition: i32,
    ) -> Result<i64, String> {
        self.bound(cx, topic, partition, -2)?
            .ok_or_else(|| format!("{} is gone", cx.model.topics[topic].name))
    }

    /// Reads a partition from its start to its high watermark, and checks that nothing is missing.
    pub fn check(
        &mut self,
        cx: &mut Context<'_>,
        topic: TopicRef,
        partition: i32,
    ) -> Result<(), String> {
        let mut from = self.earliest(cx, topic, partition)?;
        let mut seen = Vec::new();
        let mut restarts = 0;
        loop {
            let known = &cx.model.topics[topic];
            let name = known.name.clone();
            let state = &known.partitions[partition as usize];
            let mut head = ReadHead {
                from,
                high_watermark: -1,
                log_start: -1,
                end_floor: state.end_floor,
                start_floor: state.start_floor,
            };
            let request = FetchRequest {
                max_bytes: 1 << 20,
                topics: vec![FetchTopic {
                    topic: name.clone().into(),
                    topic_id: known.id,
                    partitions: vec![FetchPartition {
                        partition,
                        fetch_offset: from,
                        partition_max_bytes: 64 << 10,
                        ..FetchPartition::default()
                    }],
                }],
                ..FetchRequest::default()
            };
            let write = |writer: &mut _, version| request.encode(writer, version);
            self.client.ask(cx, ApiKey::Fetch, 13, (), true, write)?;
            let answer = self.wait(cx)?;
            let response = answer.body(FetchResponse::decode)?;
            let part = response
                .responses
                .first()
                .and_then(|topic| topic.partitions.first())
                .ok_or("a Fetch without a result")?;
            if part.error_code == 1 && restarts < 20 {
                restarts += 1;
                from = self.earliest(cx, topic, partition)?;
                continue;
            }
            ensure!(
                part.error_code == 0,
                "a Fetch of {name}-{partition} from {from} was answered with error {}",
                part.error_code
            );
            head.high_watermark = part.high_watermark;
            head.log_start = part.log_start_offset;
            cx.model.bounds(topic, partition, &head)?;
            let Records::Borrowed(bytes) = &part.records else {
                return Err("records that are not bytes".to_owned());
            };
            let (found, next) = cx.model.check_records(topic, partition, &head, bytes)?;
            seen.extend(found);
            let compact = cx.model.topics[topic].kind.compact;
            ensure!(
                next > from || next >= head.high_watermark || (compact && bytes.is_empty()),
                "a Fetch of {name}-{partition} from {from} brought nothing, with a high watermark of {}",
                head.high_watermark
            );
            from = next;
            if next >= head.high_watermark || bytes.is_empty() {
                let log_start = head.log_start;
                return cx.model.check_whole(topic, partition, log_start, &seen);
            }
        }
    }

    /// Goes away.
    pub fn end(&mut self, cx: &mut Context<'_>) {
        self.client.disconnect(cx);
    }
}
