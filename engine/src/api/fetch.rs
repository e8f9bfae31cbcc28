//! Fetch: plans a request over the cores that own its partitions, parks it until there is enough, and
//! answers with the bytes where they lie. Lives on the core that accepted the connection.

use std::sync::Arc;

use net::kafka::error::ErrorCode;
use net::kafka::fetch as wire;
use net::wire::{DecodeError, Records};
use ring::buf::Chunk;
use storage::types::{CoreId, Now, Offset, TopicId};

use super::{Head, Outcome, Request};
use crate::calls::{FetchedPart, Waiting};
use crate::event::ConnId;
use crate::fetch_session::{SessionKey, SessionPartition, SessionPlan};
use crate::ids::Key;
use crate::limits::{ANSWERS_MEMORY_SHARE, FETCH_ROOM_BYTES_MIN};
use crate::mesh::{CallId, FetchCall, FetchHead, FetchPart, MeshMessage, PartitionRef};
use crate::metrics::Stage;
use crate::native;
use crate::shard::{Shard, Timer};

/// A Fetch request until it is answered.
#[derive(Debug)]
pub struct FetchState {
    pub(crate) reply: Reply,
    started_us: u64,
    session: SessionPlan,
    items: Vec<Item>,
    cores: Vec<CoreAsk>,
    bytes_min: usize,
    bytes_max: usize,
    /// What it may bring now, counted in the core's answers; zero while it is parked.
    reserved_bytes: usize,
    deadline_us: u64,
    parked: bool,
    /// When its data was first looked for to the end, monotonic microseconds.
    found_us: Option<u64>,
    due: bool,
    read_committed: bool,
}

/// Who is answered, and in which protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    /// A Kafka client.
    Kafka(Head),
    /// A native client.
    Native(native::Head),
    /// A subscription of that connection.
    Subscription(ConnId, Key),
}

impl Reply {
    /// The connection that gets what is found.
    pub(crate) fn conn(&self) -> ConnId {
        match self {
            Reply::Kafka(head) => head.ticket.conn,
            Reply::Native(head) => head.ticket.conn,
            Reply::Subscription(conn, _) => *conn,
        }
    }
}

/// What is to be fetched, whoever asks.
pub(crate) struct Plan {
    /// Who asks.
    pub reply: Reply,
    /// When handling began, monotonic microseconds.
    pub started_us: u64,
    /// Which session it belongs to.
    pub session: SessionPlan,
    /// The partitions.
    pub wanted: Vec<(SessionKey, SessionPartition)>,
    /// Whether topics are named by id.
    pub by_id: bool,
    /// How long to wait for `bytes_min`; `None`: until it is abandoned.
    pub wait_us: Option<u64>,
    /// Worth answering with.
    pub bytes_min: usize,
    /// No more than this.
    pub bytes_max: usize,
    /// Whether the client reads committed records only.
    pub read_committed: bool,
}

impl FetchState {
    /// How many bytes are worth answering with: what the client waits for, or less where memory is
    /// short and the client has to come again anyhow.
    fn enough_bytes(&self) -> usize {
        if 0 < self.reserved_bytes && self.reserved_bytes < self.bytes_max {
            self.bytes_min.min(self.reserved_bytes / 2)
        } else {
            self.bytes_min.min(self.bytes_max)
        }
    }
}

#[derive(Debug)]
struct Item {
    key: SessionKey,
    topic_id: TopicId,
    part: FetchPart,
    found: Option<FetchedPart>,
}

/// One core's share of a fetch.
#[derive(Debug)]
struct CoreAsk {
    core: CoreId,
    items: Vec<usize>,
    id: CallId,
    asking: bool,
    watched: bool,
}

/// Handles a Fetch request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::FetchRequest::decode)?;
    let version = request.head.version;
    let by_id = version >= 13;
    if !(0..=1).contains(&body.isolation_level) {
        return Ok(Outcome::Done(refused(request.head, &body)));
    }
    let name_of = |topic: &str| -> Arc<str> {
        if by_id {
            Arc::from("")
        } else {
            Arc::from(topic)
        }
    };
    let mut wanted = Vec::new();
    for topic in &body.topics {
        let name = name_of(&topic.topic);
        for partition in &topic.partitions {
            let key = SessionKey {
                topic: Arc::clone(&name),
                topic_id: topic.topic_id,
                partition: partition.partition,
            };
            let want = SessionPartition {
                fetch_offset: partition.fetch_offset,
                bytes_max: partition.partition_max_bytes,
                current_leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
                told_high_watermark: None,
                told_log_start_offset: None,
            };
            wanted.push((key, want));
        }
    }
    let now_us = now.monotonic_us;
    let (session, wanted) = match (body.session_id, body.session_epoch) {
        (id, -1) => {
            shard.sessions.close(id);
            (SessionPlan::Sessionless, wanted)
        }
        (id, 0) => {
            shard.sessions.close(id);
            let session = if version >= 7 {
                shard.sessions.open(now_us, by_id, wanted.clone())
            } else {
                SessionPlan::Sessionless
            };
            (session, wanted)
        }
        (id, epoch) => {
            let forgotten: Vec<SessionKey> = body
                .forgotten_topics_data
                .iter()
                .flat_map(|topic| {
                    let name = name_of(&topic.topic);
                    topic.partitions.iter().map(move |partition| SessionKey {
                        topic: Arc::clone(&name),
                        topic_id: topic.topic_id,
                        partition: *partition,
                    })
                })
                .collect();
            match shard
                .sessions
                .step(now_us, id, epoch, by_id, wanted, &forgotten)
            {
                Ok(all) => (SessionPlan::Incremental(id), all),
                Err(code) => {
                    let response = wire::FetchResponse {
                        error_code: code.code(),
                        session_id: if code == ErrorCode::FetchSessionTopicIdError {
                            id
                        } else {
                            0
                        },
                        ..Default::default()
                    };
                    return Ok(Outcome::Done(
                        request
                            .head
                            .encode(|writer, version| response.encode(writer, version)),
                    ));
                }
            }
        }
    };
    let plan = Plan {
        reply: Reply::Kafka(request.head),
        started_us: request.head.started_us,
        session,
        wanted,
        by_id,
        wait_us: Some(u64::try_from(body.max_wait_ms).unwrap_or(0) * 1000),
        bytes_min: usize::try_from(body.min_bytes).unwrap_or(0),
        bytes_max: usize::try_from(body.max_bytes).unwrap_or(0),
        read_committed: body.isolation_level == 1,
    };
    start(shard, now, plan);
    Ok(Outcome::Pending)
}

/// Begins a fetch; it is answered when there is enough, or its time is over. Gives its key, by which it
/// can be abandoned as long as it is open.
pub(crate) fn start(shard: &mut Shard, now: Now, plan: Plan) -> Key {
    let Plan {
        reply,
        started_us,
        session,
        wanted,
        by_id,
        wait_us,
        bytes_min,
        bytes_max,
        read_committed,
    } = plan;
    let request_key = shard.keys.next();
    let mut cores: Vec<CoreAsk> = Vec::new();
    let mut items = Vec::with_capacity(wanted.len());
    for (key, want) in wanted {
        let topic = if by_id {
            shard.image.topic_by_id(key.topic_id)
        } else {
            shard.image.topic(&key.topic)
        };
        let owner = match topic {
            None if by_id => Err(ErrorCode::UnknownTopicId),
            None => Err(ErrorCode::UnknownTopicOrPartition),
            Some(topic) => match usize::try_from(key.partition) {
                Ok(index) if index < topic.partition_count() as usize => {
                    Ok(topic.core_of(key.partition, shard.config.cores))
                }
                _ => Err(ErrorCode::UnknownTopicOrPartition),
            },
        };
        let topic_id = topic.map_or(key.topic_id, |topic| topic.id);
        let partition = PartitionRef {
            topic_id,
            partition: key.partition,
        };
        let place = items.len();
        if let Ok(core) = owner {
            match cores.iter_mut().find(|ask| ask.core == core) {
                Some(ask) => ask.items.push(place),
                None => cores.push(CoreAsk {
                    core,
                    items: vec![place],
                    id: CallId(0),
                    asking: true,
                    watched: false,
                }),
            }
        }
        items.push(Item {
            topic_id,
            part: FetchPart {
                partition,
                fetch_offset: Offset(want.fetch_offset),
                bytes_max: usize::try_from(want.bytes_max).unwrap_or(0),
                current_leader_epoch: want.current_leader_epoch,
                last_fetched_epoch: want.last_fetched_epoch,
            },
            found: owner.err().map(|code| (FetchHead::error(code), Vec::new())),
            key,
        });
    }
    for ask in &mut cores {
        ask.id = shard.expect(Waiting::Fetch {
            request: request_key,
            core: ask.core,
        });
    }
    let failed = items.iter().any(|item| item.found.is_some());
    let configured = usize::try_from(shard.image.config().fetch_bytes_max).unwrap_or(0);
    let state = FetchState {
        reply,
        started_us,
        session,
        bytes_min,
        bytes_max: bytes_max.min(configured),
        reserved_bytes: 0,
        deadline_us: wait_us.map_or(u64::MAX, |wait_us| now.monotonic_us + wait_us),
        parked: false,
        found_us: None,
        due: failed || wait_us == Some(0),
        read_committed,
        items,
        cores,
    };
    let asks: Vec<usize> = (0..state.cores.len()).collect();
    shard.fetches.insert(request_key, state);
    if asks.is_empty() {
        evaluate(shard, now, request_key);
    }
    for index in asks {
        ask(shard, now, request_key, index);
    }
    request_key
}

/// The answer to a request that makes no sense as a whole; from version 13 on without the partitions.
fn refused(head: Head, body: &wire::FetchRequest<'_>) -> Vec<Chunk> {
    let error_code = ErrorCode::UnknownServerError.code();
    let topics = if head.version >= 13 {
        &[][..]
    } else {
        &body.topics[..]
    };
    let response = wire::FetchResponse {
        error_code,
        session_id: body.session_id,
        responses: topics
            .iter()
            .map(|topic| wire::FetchableTopicResponse {
                topic: topic.topic.clone(),
                partitions: topic
                    .partitions
                    .iter()
                    .map(|partition| wire::PartitionData {
                        partition_index: partition.partition,
                        error_code,
                        high_watermark: -1,
                        last_stable_offset: -1,
                        log_start_offset: -1,
                        aborted_transactions: Some(Vec::new()),
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    head.encode(|writer, version| response.encode(writer, version))
}

/// Whether a partition was not found: as in Kafka its answer then has no aborted transactions, not null
/// for them.
fn is_unknown(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId
    )
}

/// Asks one core for its share.
fn ask(shard: &mut Shard, now: Now, request: Key, index: usize) {
    let Some(state) = shard.fetches.get_mut(&request) else {
        return;
    };
    if state.reserved_bytes == 0 {
        let share = shard.config.memory_bytes / ANSWERS_MEMORY_SHARE;
        let room = share.saturating_sub(shard.answers_bytes) / 2;
        state.reserved_bytes = state.bytes_max.min(room.max(FETCH_ROOM_BYTES_MIN));
        shard.answers_bytes += state.reserved_bytes;
    }
    let bytes_min = state.enough_bytes();
    let watch = !state.due;
    let shares = state.cores.len();
    let core_ask = &mut state.cores[index];
    core_ask.asking = true;
    core_ask.watched = false;
    let mut stale = Vec::new();
    let mut parts = Vec::with_capacity(core_ask.items.len());
    for place in &core_ask.items {
        let item = &mut state.items[*place];
        if let Some((_, chunks)) = item.found.take() {
            stale.extend(chunks);
        }
        parts.push(item.part);
    }
    let call = FetchCall {
        parts,
        bytes_max: state.reserved_bytes,
        bytes_min: bytes_min.div_ceil(shares),
        watch,
    };
    let (id, core) = (core_ask.id, core_ask.core);
    shard.release(stale);
    shard.call_fetch(now, id, core, call);
}

impl Shard {
    /// One core answered its share.
    pub(crate) fn on_fetch_answer(
        &mut self,
        now: Now,
        id: CallId,
        parts: Vec<FetchedPart>,
        watched: bool,
    ) {
        let place = match self.calls.get(&id.0) {
            Some(Waiting::Fetch { request, core }) => Some((*request, *core)),
            _ => None,
        };
        let Some((request, core)) = place else {
            unreachable!("an answer to fetch {id:?} that nobody made");
        };
        let Some(state) = self.fetches.get_mut(&request) else {
            // Its connection is gone.
            self.calls.remove(&id.0);
            self.release(parts.into_iter().flat_map(|(_, chunks)| chunks));
            if watched {
                self.forget(core, id);
            }
            return;
        };
        let Some(ask) = state.cores.iter_mut().find(|ask| ask.id == id) else {
            unreachable!("a fetch knows whom it asked");
        };
        ask.asking = false;
        ask.watched = watched;
        for (place, part) in ask.items.iter().zip(parts) {
            state.items[*place].found = Some(part);
        }
        if state.cores.iter().all(|ask| !ask.asking) {
            evaluate(self, now, request);
        }
    }

    /// A partition of a parked fetch has grown.
    pub(crate) fn on_fetch_wake(&mut self, now: Now, id: CallId) {
        let Some(Waiting::Fetch { request, .. }) = self.calls.get(&id.0) else {
            return;
        };
        let request = *request;
        let Some(state) = self.fetches.get_mut(&request) else {
            return;
        };
        if let Some(index) = state
            .cores
            .iter()
            .position(|ask| ask.id == id && !ask.asking)
        {
            ask(self, now, request, index);
        }
    }

    /// A parked fetch has waited long enough.
    pub(crate) fn on_fetch_deadline(&mut self, now: Now, request: Key) {
        if let Some(state) = self.fetches.get_mut(&request) {
            state.due = true;
            if state.cores.iter().all(|ask| !ask.asking) {
                evaluate(self, now, request);
            }
        }
    }

    /// The connection of a fetch is gone.
    pub(crate) fn abandon_fetch(&mut self, request: Key) {
        let Some(state) = self.fetches.remove(&request) else {
            return;
        };
        self.answers_bytes -= state.reserved_bytes;
        for ask in &state.cores {
            if !ask.asking {
                self.calls.remove(&ask.id.0);
                if ask.watched {
                    self.forget(ask.core, ask.id);
                }
            }
        }
        self.release(
            state
                .items
                .into_iter()
                .filter_map(|item| item.found)
                .flat_map(|(_, chunks)| chunks),
        );
    }

    fn forget(&mut self, core: CoreId, id: CallId) {
        if core == self.core {
            self.forget_watch(core, id);
        } else {
            self.send(core, MeshMessage::FetchForget { id });
        }
    }
}

/// Answers when there is enough, or parks.
fn evaluate(shard: &mut Shard, now: Now, request: Key) {
    let Some(state) = shard.fetches.get_mut(&request) else {
        return;
    };
    state.found_us.get_or_insert(now.monotonic_us);
    let mut bytes = 0;
    let mut failed = false;
    for (head, chunks) in state.items.iter().filter_map(|item| item.found.as_ref()) {
        failed |= head.error != ErrorCode::None || head.diverging.is_some();
        bytes += chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
    }
    let enough = failed || bytes >= state.enough_bytes();
    if enough || state.due || now.monotonic_us >= state.deadline_us {
        finish(shard, now, request);
        return;
    }
    shard.answers_bytes -= state.reserved_bytes;
    state.reserved_bytes = 0;
    if !state.parked {
        state.parked = true;
        let deadline_us = state.deadline_us;
        if deadline_us != u64::MAX {
            shard.set_timer(deadline_us, Timer::Fetch(request));
        }
    }
}

fn finish(shard: &mut Shard, now: Now, request: Key) {
    let Some(mut state) = shard.fetches.remove(&request) else {
        return;
    };
    for ask in &state.cores {
        shard.calls.remove(&ask.id.0);
        if ask.watched {
            shard.forget(ask.core, ask.id);
        }
    }
    shard.answers_bytes -= state.reserved_bytes;
    let found_us = state.found_us.unwrap_or(now.monotonic_us);
    let journal_us = found_us.saturating_sub(state.started_us);
    let flush_us = now.monotonic_us.saturating_sub(found_us);
    shard.metrics.on_fetch_stage(Stage::Journal, journal_us);
    shard.metrics.on_fetch_stage(Stage::Flush, flush_us);
    // A fetch that was parked brings no more than it was parked with: less than it waits for.
    let mut left_bytes = match state.reserved_bytes {
        0 => state.bytes_max,
        reserved_bytes => reserved_bytes,
    };
    let mut any = false;
    let mut dropped: Vec<Chunk> = Vec::new();
    for item in &mut state.items {
        let Some((_, chunks)) = &mut item.found else {
            continue;
        };
        let mut bytes: usize = chunks.iter().map(|chunk| chunk.len()).sum();
        if any && bytes > left_bytes {
            // Another core's share took the room; the client comes again.
            dropped.append(chunks);
            bytes = 0;
        } else {
            left_bytes = left_bytes.saturating_sub(bytes);
            any |= bytes > 0;
        }
        shard.metrics.on_fetched(item.topic_id, bytes);
    }
    shard.release(dropped);
    match state.reply {
        Reply::Kafka(head) => respond(shard, head, state),
        Reply::Native(head) => {
            let found = state.items.into_iter().map(|item| item.found);
            native::fetch::respond(shard, head, found);
        }
        Reply::Subscription(_, key) => {
            let found = state.items.into_iter().map(|item| item.found);
            native::subscribe::deliver(shard, now, key, found);
        }
    }
}

/// The answer in Kafka's protocol, which tells a session only what is new.
fn respond(shard: &mut Shard, reply_head: Head, mut state: FetchState) {
    let mut responses: Vec<wire::FetchableTopicResponse<'static>> = Vec::new();
    for item in std::mem::take(&mut state.items) {
        let Some((head, chunks)) = item.found else {
            continue;
        };
        let failed = head.error != ErrorCode::None || head.diverging.is_some();
        if state.session != SessionPlan::Sessionless {
            let news = shard.sessions.tell(
                state.session.id(),
                &item.key,
                failed,
                !chunks.is_empty(),
                head.high_watermark,
                head.log_start_offset,
            );
            if !news && matches!(state.session, SessionPlan::Incremental(_)) {
                continue;
            }
        }
        let data = wire::PartitionData {
            partition_index: item.key.partition,
            error_code: head.error.code(),
            high_watermark: head.high_watermark,
            last_stable_offset: head.high_watermark,
            log_start_offset: head.log_start_offset,
            diverging_epoch: head
                .diverging
                .map(|(epoch, end_offset)| wire::EpochEndOffset { epoch, end_offset })
                .unwrap_or_default(),
            aborted_transactions: (state.read_committed || is_unknown(head.error)).then(Vec::new),
            records: Records::Chunks(chunks),
            ..Default::default()
        };
        match responses.last_mut() {
            Some(topic)
                if topic.topic_id == item.key.topic_id && *topic.topic == *item.key.topic =>
            {
                topic.partitions.push(data);
            }
            _ => responses.push(wire::FetchableTopicResponse {
                topic: item.key.topic.to_string().into(),
                topic_id: item.key.topic_id,
                partitions: vec![data],
            }),
        }
    }
    shard.sessions.told(state.session.id());
    let response = wire::FetchResponse {
        session_id: state.session.id(),
        responses,
        ..Default::default()
    };
    let chunks = reply_head.encode(|writer, version| response.encode(writer, version));
    shard.respond(reply_head, Some(chunks));
}
