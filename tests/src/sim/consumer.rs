//! Clients that fetch: from anywhere, in every version, with sessions and without, waiting and not. Knows
//! what a read may bring, and no log.

use std::collections::{BTreeMap, BTreeSet};

use net::kafka::ApiKey;
use net::kafka::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use net::wire::Records;

use super::actor::{Actor, gone};
use super::client::{Answer, Client, Context, between, pick};
use super::model::{Life, ReadHead, TopicRef, ensure};
use super::world::World;

/// The first version with sessions, and the first that names topics by id.
const SESSIONS: i16 = 7;
const BY_ID: i16 = 13;

/// Codes of an unknown session and of a wrong step of one.
const NO_SESSION: [i16; 2] = [70, 71];

type Name = (TopicRef, i32);

/// What a consumer asked.
#[derive(Debug)]
pub struct Wanted {
    /// All partitions that the request covers, those of its session included.
    heads: BTreeMap<Name, ReadHead>,
    wait_us: u64,
    session: i32,
    epoch: i32,
}

/// A consumer.
#[derive(Debug, Default)]
pub struct Consumer {
    client: Client<Wanted>,
    /// Follows partitions in a session, in this version.
    session_version: Option<i16>,
    session: (i32, i32),
    positions: BTreeMap<Name, i64>,
    /// Positions that the session does not know.
    changed: BTreeSet<Name>,
    stopping: bool,
}

impl Consumer {
    /// One that follows in a session of this version, or reads here and there.
    pub fn new(session_version: Option<i16>) -> Consumer {
        Consumer {
            session_version,
            ..Consumer::default()
        }
    }

    fn ask(
        &mut self,
        cx: &mut Context<'_>,
        version: i16,
        told: &[(Name, i64)],
        all: &[(Name, i64)],
    ) -> Result<(), String> {
        let mut heads = BTreeMap::new();
        for ((topic, partition), from) in all {
            let Some(state) = cx.model.partition(*topic, *partition) else {
                continue;
            };
            let head = ReadHead {
                from: *from,
                high_watermark: -1,
                log_start: -1,
                end_floor: state.end_floor,
                start_floor: state.start_floor,
            };
            heads.insert((*topic, *partition), head);
        }
        let mut topics = Vec::new();
        for ((topic, partition), from) in told {
            let known = &cx.model.topics[*topic];
            topics.push(FetchTopic {
                topic: known.name.clone().into(),
                topic_id: known.id,
                partitions: vec![FetchPartition {
                    partition: *partition,
                    fetch_offset: *from,
                    partition_max_bytes: pick(cx.rng, &[0, 1, 300, 5_000, 1 << 20]),
                    ..FetchPartition::default()
                }],
            });
        }
        let wait_ms = pick(cx.rng, &[0, 0, 20, 300]);
        let max_bytes = pick(cx.rng, &[0, 1_000, 50_000, 1 << 20]);
        let session = self.session;
        let request = FetchRequest {
            max_wait_ms: wait_ms,
            min_bytes: 1,
            max_bytes,
            isolation_level: cx.rng.below(2) as i8,
            session_id: session.0,
            session_epoch: session.1,
            topics,
            ..FetchRequest::default()
        };
        let wanted = Wanted {
            heads,
            // Who wants no bytes does not wait for one, as in Kafka.
            wait_us: if max_bytes > 0 {
                wait_ms as u64 * 1000
            } else {
                0
            },
            session: session.0,
            epoch: session.1,
        };
        let write = |writer: &mut _, version| request.encode(writer, version);
        let wait_us = wait_ms as u64 * 1000;
        self.client
            .ask_to_wait(cx, (ApiKey::Fetch, version), wanted, true, wait_us, write)
    }

    fn act_anywhere(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        let live = cx.model.live();
        if live.is_empty() || self.client.open_count() >= 3 {
            return Ok(());
        }
        let mut wanted: BTreeMap<Name, i64> = BTreeMap::new();
        for _ in 0..between(cx.rng, 1, 4) {
            let topic = pick(cx.rng, &live);
            let partition = cx.rng.below(cx.model.topics[topic].partitions.len() as u64) as i32;
            let state = &cx.model.topics[topic].partitions[partition as usize];
            let from = match cx.rng.below(4) {
                0 => state.start_floor,
                1 => state.end_floor,
                _ => between(cx.rng, state.start_floor, state.end_floor),
            };
            wanted.insert((topic, partition), from);
        }
        let wanted: Vec<(Name, i64)> = wanted.into_iter().collect();
        self.session = (0, -1);
        let version = between(cx.rng, 4, 18) as i16;
        self.ask(cx, version, &wanted, &wanted)
    }

    fn act_in_session(&mut self, cx: &mut Context<'_>, version: i16) -> Result<(), String> {
        if self.client.open_count() > 0 {
            return Ok(());
        }
        let stale = self
            .positions
            .keys()
            .any(|(topic, _)| gone(cx.model, *topic));
        if self.session.0 == 0 || stale || cx.rng.one_in(100) {
            let live = cx.model.live();
            if live.is_empty() {
                return Ok(());
            }
            self.session.1 = 0;
            self.positions
                .retain(|(topic, _), _| !gone(cx.model, *topic));
            for _ in 0..3 {
                let topic = pick(cx.rng, &live);
                let partition = cx.rng.below(cx.model.topics[topic].partitions.len() as u64) as i32;
                let start = cx.model.topics[topic].partitions[partition as usize].start_floor;
                self.positions.entry((topic, partition)).or_insert(start);
            }
            self.changed = self.positions.keys().copied().collect();
        }
        let all: Vec<(Name, i64)> = self.positions.iter().map(|(n, at)| (*n, *at)).collect();
        let told: Vec<(Name, i64)> = std::mem::take(&mut self.changed)
            .into_iter()
            .map(|name| (name, self.positions[&name]))
            .collect();
        self.ask(cx, version, &told, &all)
    }

    fn on_answer(&mut self, cx: &mut Context<'_>, answer: &Answer<Wanted>) -> Result<(), String> {
        let asked = &answer.asked;
        let response = answer.body(FetchResponse::decode)?;
        if NO_SESSION.contains(&response.error_code) && asked.what.epoch > 0 {
            // It lives on the core that made it, and not longer than the broker.
            self.session = (0, 0);
            return Ok(());
        }
        ensure!(
            response.error_code == 0,
            "a Fetch was answered with error {}",
            response.error_code
        );
        if self.session_version.is_some() {
            let epoch = asked.what.epoch + 1;
            self.session = (response.session_id, epoch);
            ensure!(
                asked.what.epoch == 0 || response.session_id == asked.what.session,
                "a step of session {} was answered with session {}",
                asked.what.session,
                response.session_id
            );
        }
        let mut brought = 0;
        let mut failed = false;
        for topic in &response.responses {
            for part in &topic.partitions {
                let name = asked.what.heads.keys().copied().find(|(known, partition)| {
                    let known = &cx.model.topics[*known];
                    *partition == part.partition_index
                        && if asked.version >= BY_ID {
                            known.id == topic.topic_id
                        } else {
                            known.name == topic.topic
                        }
                });
                let Some(name) = name else {
                    return Err(format!(
                        "a Fetch was answered for {}-{}, which it did not ask for",
                        topic.topic, part.partition_index
                    ));
                };
                if gone(cx.model, name.0) {
                    failed = true;
                    continue;
                }
                let mut head = asked.what.heads[&name];
                if part.error_code != 0 {
                    failed = true;
                    if cx.may_refuse(name.0, name.1, part.error_code) {
                        continue;
                    }
                    self.on_error(cx, name, &head, part.error_code)?;
                    continue;
                }
                head.high_watermark = part.high_watermark;
                head.log_start = part.log_start_offset;
                if asked.version < 5 {
                    head.log_start = head.start_floor;
                }
                ensure!(
                    part.last_stable_offset == part.high_watermark,
                    "last stable offset {} beside high watermark {}",
                    part.last_stable_offset,
                    part.high_watermark
                );
                cx.model.bounds(name.0, name.1, &head)?;
                let Records::Borrowed(bytes) = &part.records else {
                    return Err("records that are not bytes".to_owned());
                };
                brought += bytes.len();
                let (_, next) = cx.model.check_records(name.0, name.1, &head, bytes)?;
                if self.session_version.is_some() && next != head.from {
                    self.positions.insert(name, next);
                    self.changed.insert(name);
                }
            }
        }
        if brought > 0 || failed {
            return Ok(());
        }
        let missed = asked.what.heads.iter().find(|(name, head)| {
            !gone(cx.model, name.0) && head.from < head.end_floor && head.from >= head.start_floor
        });
        if let Some((name, head)) = missed {
            return Err(format!(
                "a Fetch brought nothing of {}-{} from {}, and {} was promised before",
                cx.model.topics[name.0].name, name.1, head.from, head.end_floor
            ));
        }
        let waited_us = cx.world.time_us() - asked.sent_us;
        let any_gone = asked.what.heads.keys().any(|name| gone(cx.model, name.0));
        ensure!(
            waited_us >= asked.what.wait_us || self.stopping || any_gone,
            "a Fetch that waits for {} us was answered with nothing after {waited_us} us",
            asked.what.wait_us
        );
        Ok(())
    }

    fn on_error(
        &mut self,
        cx: &mut Context<'_>,
        name: Name,
        head: &ReadHead,
        error: i16,
    ) -> Result<(), String> {
        let (topic, partition) = name;
        let kind = cx.model.topics[topic].kind;
        let Some(state) = cx.model.partition(topic, partition) else {
            return Err("a partition that nobody knows".to_owned());
        };
        // Only a log start that moved makes an offset wrong that was right, or a power cut on a lazy topic.
        let may_be_out = kind.retention
            || head.from < state.start_ceiling
            || (kind.lazy && head.from > head.end_floor);
        if error == 1 && may_be_out {
            let end = state.end_floor;
            if self.session_version.is_some() {
                self.positions.insert(name, end);
                self.changed.insert(name);
            }
            return Ok(());
        }
        Err(format!(
            "a Fetch of {}-{partition} from {} was answered with error {error}; it starts between {} \
             and {} and has at least {}",
            cx.model.topics[topic].name,
            head.from,
            head.start_floor,
            cx.model.topics[topic].partitions[partition as usize].start_ceiling,
            head.end_floor
        ))
    }
}

impl Actor for Consumer {
    fn act(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        if cx.rng.one_in(150) {
            self.client.disconnect(cx);
            return Ok(());
        }
        match self.session_version {
            Some(version) => {
                debug_assert!(version >= SESSIONS);
                self.act_in_session(cx, version)
            }
            None => self.act_anywhere(cx),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        while let Some(answer) = self.client.answer(cx)? {
            self.on_answer(cx, &answer)?;
        }
        if self.client.lost(cx).is_some() {
            // What the session was told last is not known.
            self.changed = self
                .positions
                .keys()
                .filter(|(topic, _)| cx.model.topics[*topic].life != Life::Gone)
                .copied()
                .collect();
        }
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        self.client.is_quiet()
    }

    fn overdue(&self, world: &World) -> Option<String> {
        self.client.overdue(world)
    }

    fn expect_stop(&mut self, stopping: bool) {
        self.stopping = stopping;
    }

    fn describe(&self) -> String {
        format!("a consumer: {}", self.client.oldest())
    }
}
