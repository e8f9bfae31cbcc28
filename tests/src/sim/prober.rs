//! A client that asks about partitions and topics on any core, and deletes records. Knows what must be true
//! of the answers, and no log.

use net::kafka::ApiKey;
use net::kafka::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic,
};
use net::kafka::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use net::kafka::metadata::{MetadataRequest, MetadataResponse};
use net::kafka::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition,
    OffsetForLeaderTopic,
};

use super::actor::{Asker, gone};
use super::client::{Answer, Client, Context, between, pick};
use super::model::{Life, ReadHead, TopicRef, ensure};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;

/// What was asked, with what was known then.
#[derive(Debug)]
pub enum Probe {
    /// An offset.
    Offset {
        topic: TopicRef,
        partition: i32,
        timestamp: i64,
        end_floor: i64,
        start_floor: i64,
    },
    /// A deletion of the records before an offset.
    Delete {
        topic: TopicRef,
        partition: i32,
        before: i64,
    },
    /// Where a leader epoch ends.
    Epoch {
        topic: TopicRef,
        partition: i32,
        epoch: i32,
        end_floor: i64,
    },
    /// All topics; the lives of each then, with how many partitions each had.
    Topics(Vec<(Life, usize)>),
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Prober {
    client: Client<Probe>,
}

impl Prober {
    fn ask_offset(
        &mut self,
        cx: &mut Context<'_>,
        topic: TopicRef,
        partition: i32,
    ) -> Result<(), String> {
        let now_ms = cx.world.now().wall_ms;
        let timestamp = match cx.rng.below(6) {
            0 => LATEST,
            1 => EARLIEST,
            2 => MAX_TIMESTAMP,
            _ => now_ms - between(cx.rng, -10, 20_000),
        };
        let low = if timestamp == MAX_TIMESTAMP { 7 } else { 1 };
        let version = between(cx.rng, low, 11) as i16;
        let known = &cx.model.topics[topic];
        let state = &known.partitions[partition as usize];
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: known.name.clone().into(),
                partitions: vec![ListOffsetsPartition {
                    partition_index: partition,
                    timestamp,
                    ..Default::default()
                }],
            }],
            ..Default::default()
        };
        let probe = Probe::Offset {
            topic,
            partition,
            timestamp,
            end_floor: state.end_floor,
            start_floor: state.start_floor,
        };
        let write = |writer: &mut _, version| request.encode(writer, version);
        self.client
            .ask(cx, ApiKey::ListOffsets, version, probe, true, write)
    }

    fn ask_delete(
        &mut self,
        cx: &mut Context<'_>,
        topic: TopicRef,
        partition: i32,
    ) -> Result<(), String> {
        let version = between(cx.rng, 0, 2) as i16;
        let known = &mut cx.model.topics[topic];
        let state = &mut known.partitions[partition as usize];
        let before = between(cx.rng, state.start_floor, state.end_floor);
        state.start_ceiling = state.start_ceiling.max(before);
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: known.name.clone().into(),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: partition,
                    offset: before,
                }],
            }],
            timeout_ms: 30_000,
        };
        let probe = Probe::Delete {
            topic,
            partition,
            before,
        };
        let write = |writer: &mut _, version| request.encode(writer, version);
        self.client
            .ask(cx, ApiKey::DeleteRecords, version, probe, true, write)
    }

    fn ask_epoch(
        &mut self,
        cx: &mut Context<'_>,
        topic: TopicRef,
        partition: i32,
    ) -> Result<(), String> {
        let known = &cx.model.topics[topic];
        let state = &known.partitions[partition as usize];
        let newest = state.places.values().map(|place| place.leader_epoch).max();
        let epoch = between(cx.rng, -1, i64::from(newest.unwrap_or(0)) + 2) as i32;
        let request = OffsetForLeaderEpochRequest {
            replica_id: -1,
            topics: vec![OffsetForLeaderTopic {
                topic: known.name.clone().into(),
                partitions: vec![OffsetForLeaderPartition {
                    partition,
                    current_leader_epoch: -1,
                    leader_epoch: epoch,
                }],
            }],
        };
        let probe = Probe::Epoch {
            topic,
            partition,
            epoch,
            end_floor: state.end_floor,
        };
        let version = between(cx.rng, 2, 4) as i16;
        let api = ApiKey::OffsetForLeaderEpoch;
        let write = |writer: &mut _, version| request.encode(writer, version);
        self.client.ask(cx, api, version, probe, true, write)
    }

    fn ask_topics(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        // Ids are told from version 10 on.
        let version = between(cx.rng, 10, 13) as i16;
        let request = MetadataRequest {
            topics: None,
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let lives = cx
            .model
            .topics
            .iter()
            .map(|topic| (topic.life, topic.partitions.len()))
            .collect();
        let write = |writer: &mut _, version| request.encode(writer, version);
        self.client.ask(
            cx,
            ApiKey::Metadata,
            version,
            Probe::Topics(lives),
            true,
            write,
        )
    }
}

/// Checks a record that was found by its time, against those that are known.
fn on_time(
    cx: &mut Context<'_>,
    topic: TopicRef,
    partition: i32,
    sought: i64,
    (offset, timestamp, leader_epoch): (i64, i64, i32),
    end_floor: i64,
) -> Result<(), String> {
    let known = &cx.model.topics[topic];
    if known.kind.append_time || known.kind.compact {
        return Ok(());
    }
    let name = &known.name;
    let state = &known.partitions[partition as usize];
    let of =
        |base: i64, batch: usize, at: i64| cx.model.batches[batch].timestamps[(at - base) as usize];
    let holder = state.places.range(..=offset).next_back();
    if let Some((base, place)) = holder
        && offset < place.offset_end
    {
        let own = of(*base, place.batch, offset);
        ensure!(
            own == timestamp,
            "ListOffsets {sought} of {name}-{partition} found {offset} with time {timestamp}, not {own}"
        );
        // Before version 4 no epoch is told.
        ensure!(
            leader_epoch < 0 || place.leader_epoch < 0 || leader_epoch == place.leader_epoch,
            "ListOffsets {sought} of {name}-{partition} found {offset} with epoch {leader_epoch}, not {}",
            place.leader_epoch
        );
    }
    ensure!(
        offset < 0 || sought == MAX_TIMESTAMP || timestamp >= sought,
        "ListOffsets {sought} of {name}-{partition} found {offset}, of time {timestamp}"
    );
    if known.kind.retention {
        return Ok(());
    }
    for (base, place) in &state.places {
        if *base < state.start_ceiling || place.offset_end > end_floor {
            continue;
        }
        for at in *base..place.offset_end {
            let own = of(*base, place.batch, at);
            let better = if sought == MAX_TIMESTAMP {
                offset < 0 || own > timestamp
            } else {
                own >= sought && (offset < 0 || at < offset)
            };
            ensure!(
                !better,
                "ListOffsets {sought} of {name}-{partition} found {offset} with time {timestamp}, and \
                 {at} has time {own}"
            );
        }
    }
    Ok(())
}

/// Checks where a leader epoch is said to end (KIP-101): every record that is known lies on the right side
/// of that end, and no epoch between the one asked for and the one told of has any.
fn on_epoch(
    cx: &mut Context<'_>,
    (topic, partition): (TopicRef, i32),
    asked: i32,
    (epoch, end): (i32, i64),
    end_floor: i64,
) -> Result<(), String> {
    let known = &cx.model.topics[topic];
    let state = &known.partitions[partition as usize];
    let who = format!(
        "OffsetForLeaderEpoch {asked} of {}-{partition} told of epoch {epoch} up to {end}",
        known.name
    );
    ensure!(epoch <= asked, "{who}");
    ensure!((epoch < 0) == (end < 0), "{who}");
    for (base, place) in &state.places {
        let settled = place.leader_epoch >= 0 && place.offset_end <= end_floor;
        if !settled || *base < state.start_ceiling || known.kind.retention {
            continue;
        }
        let of = place.leader_epoch;
        let fits = if epoch < 0 {
            // Either epoch is not one, or the log's own are all older.
            asked < 0 || of < asked
        } else {
            (of <= epoch && place.offset_end <= end) || (of > asked && *base >= end)
        };
        ensure!(
            fits,
            "{who}; offsets {base} to {} have epoch {of}",
            place.offset_end
        );
    }
    Ok(())
}

/// Checks a list of all topics: what was there before the question and after the answer must be in it, what
/// was gone must not.
fn on_topics(
    cx: &mut Context<'_>,
    answer: &Answer<Probe>,
    lives: &[(Life, usize)],
) -> Result<(), String> {
    let response = answer.body(MetadataResponse::decode)?;
    for (index, topic) in cx.model.topics.iter().enumerate() {
        let told = response
            .topics
            .iter()
            .find(|told| !topic.id.is_nil() && told.topic_id == topic.id);
        let then = lives.get(index);
        if let (Some((Life::Live, count)), Life::Live) = (then, topic.life) {
            let Some(told) = told else {
                return Err(format!("{} is there and was not told of", topic.name));
            };
            let told_count = told.partitions.len();
            ensure!(
                told.name.as_deref() == Some(&*topic.name)
                    && told_count >= *count
                    && told_count <= topic.asked_count,
                "{} has {} to {} partitions, and {told_count} were told of",
                topic.name,
                count,
                topic.asked_count
            );
        }
        ensure!(
            !(then.is_some_and(|(life, _)| *life == Life::Gone) && told.is_some()),
            "{} was deleted and is told of",
            topic.name
        );
    }
    Ok(())
}

impl Asker for Prober {
    type Asked = Probe;

    const NAME: &str = "a prober";

    fn client(&self) -> &Client<Probe> {
        &self.client
    }

    fn client_mut(&mut self) -> &mut Client<Probe> {
        &mut self.client
    }

    fn ask(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        if self.client.open_count() >= 3 {
            return Ok(());
        }
        if cx.rng.one_in(40) {
            self.client.disconnect(cx);
            return Ok(());
        }
        let live = cx.model.live();
        if live.is_empty() || cx.rng.one_in(5) {
            return self.ask_topics(cx);
        }
        let topic = pick(cx.rng, &live);
        let partition = cx.rng.below(cx.model.topics[topic].partitions.len() as u64) as i32;
        if cx.rng.one_in(5) {
            return self.ask_epoch(cx, topic, partition);
        }
        if !cx.model.topics[topic].kind.compact && cx.rng.one_in(12) {
            return self.ask_delete(cx, topic, partition);
        }
        self.ask_offset(cx, topic, partition)
    }

    fn on_answer(&mut self, cx: &mut Context<'_>, answer: &Answer<Probe>) -> Result<(), String> {
        match &answer.asked.what {
            Probe::Topics(lives) => on_topics(cx, answer, lives),
            Probe::Epoch {
                topic,
                partition,
                epoch,
                end_floor,
            } => {
                let response = answer.body(OffsetForLeaderEpochResponse::decode)?;
                let result = response
                    .topics
                    .first()
                    .and_then(|topic| topic.partitions.first())
                    .ok_or("an OffsetForLeaderEpoch without a result")?;
                if gone(cx.model, *topic) || cx.may_refuse(*topic, *partition, result.error_code) {
                    return Ok(());
                }
                ensure!(
                    result.error_code == 0,
                    "OffsetForLeaderEpoch {epoch} of {}-{partition} was answered with error {}",
                    cx.model.topics[*topic].name,
                    result.error_code
                );
                let told = (result.leader_epoch, result.end_offset);
                on_epoch(cx, (*topic, *partition), *epoch, told, *end_floor)
            }
            Probe::Delete {
                topic,
                partition,
                before,
            } => {
                let response = answer.body(DeleteRecordsResponse::decode)?;
                let result = response
                    .topics
                    .first()
                    .and_then(|topic| topic.partitions.first())
                    .ok_or("a DeleteRecords without a result")?;
                if gone(cx.model, *topic) {
                    return Ok(());
                }
                if cx.may_refuse(*topic, *partition, result.error_code) {
                    return Ok(());
                }
                let name = cx.model.topics[*topic].name.clone();
                let kind = cx.model.topics[*topic].kind;
                let state = &mut cx.model.topics[*topic].partitions[*partition as usize];
                let low = result.low_watermark;
                if result.error_code == 1 && (*before < state.start_floor || kind.retention) {
                    return Ok(());
                }
                ensure!(
                    result.error_code == 0 && low >= *before,
                    "deleting {name}-{partition} before {before} was answered with error {} and {low}",
                    result.error_code
                );
                ensure!(
                    kind.retention || low <= state.start_ceiling,
                    "deleting {name}-{partition} before {before} deleted before {low}"
                );
                state.start_floor = state.start_floor.max(low);
                Ok(())
            }
            Probe::Offset {
                topic,
                partition,
                timestamp,
                end_floor,
                start_floor,
            } => {
                let response = answer.body(ListOffsetsResponse::decode)?;
                let result = response
                    .topics
                    .first()
                    .and_then(|topic| topic.partitions.first())
                    .ok_or("a ListOffsets without a result")?;
                if gone(cx.model, *topic) {
                    return Ok(());
                }
                if cx.may_refuse(*topic, *partition, result.error_code) {
                    return Ok(());
                }
                let name = cx.model.topics[*topic].name.clone();
                ensure!(
                    result.error_code == 0,
                    "ListOffsets {timestamp} of {name}-{partition} was answered with error {}",
                    result.error_code
                );
                let mut head = ReadHead {
                    from: 0,
                    high_watermark: i64::MAX,
                    log_start: *start_floor,
                    end_floor: *end_floor,
                    start_floor: *start_floor,
                };
                match *timestamp {
                    LATEST => {
                        head.high_watermark = result.offset;
                        head.log_start = head.log_start.min(result.offset);
                        cx.model.bounds(*topic, *partition, &head)
                    }
                    EARLIEST => {
                        let state = &mut cx.model.topics[*topic].partitions[*partition as usize];
                        head.log_start = result.offset;
                        head.high_watermark = state.end_floor.max(result.offset);
                        let floor = state.end_floor;
                        cx.model.bounds(*topic, *partition, &head)?;
                        cx.model.topics[*topic].partitions[*partition as usize].end_floor =
                            floor.max(result.offset);
                        Ok(())
                    }
                    sought => on_time(
                        cx,
                        *topic,
                        *partition,
                        sought,
                        (result.offset, result.timestamp, result.leader_epoch),
                        *end_floor,
                    ),
                }
            }
        }
    }
}
