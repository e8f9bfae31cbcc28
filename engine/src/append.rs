//! Appending batches to partitions that this core owns: in order of arrival per partition, checked,
//! stamped, acknowledged when they are as safe as was asked for. Knows no request and no connection.

use std::ops::Range;

use net::kafka::error::ErrorCode;
use ring::buf::{Chunk, Shared};
use ring::prefetch::prefetch;
use storage::batch::BatchHeader;
use storage::producer_state::SequenceCheck;
use storage::store::{AppendError, AppendStamp, LogId, Store};
use storage::types::{Now, Offset};
use storage::walk::WalkScratch;

use crate::calls::Origin;
use crate::event::{Action, Task};
use crate::ids::Key;
use crate::mesh::{AppendResult, PartitionRef};
use crate::metrics::{ShardMetrics, Stage};
use crate::partition::{AppendWaiter, Partition, QueuedAppend, Unacked, Waiter, WalkState};
use crate::shard::Shard;
use crate::walk_task::{self, Accepted, Checked, Rules, WalkDone, WalkTask, Walked};

/// How many partitions ahead their memory is asked for, where one after the other is gone through.
const AHEAD: usize = 16;

/// Batches of one Produce request for this core, until each has its result.
#[derive(Debug)]
pub struct AppendGroup {
    origin: Origin,
    results: Vec<Option<AppendResult>>,
    open_count: usize,
    chunks: Vec<Chunk>,
    arrived_us: u64,
    appended_us: u64,
}

impl AppendGroup {
    /// Takes the result of a part; says whether it was the last.
    fn take(&mut self, part: usize, result: AppendResult) -> bool {
        assert!(self.results[part].is_none(), "a part ends once");
        self.results[part] = Some(result);
        self.open_count -= 1;
        self.open_count == 0
    }
}

/// Batches to append, which can be looked at before it is their turn.
pub(crate) trait Parts: ExactSizeIterator<Item = (PartitionRef, Self::Bytes)> {
    /// How the bytes of one are held.
    type Bytes: Into<Chunk>;
    /// Those whose turn has not come.
    fn coming(&self) -> &[(PartitionRef, Self::Bytes)];
}

impl<B: Into<Chunk>> Parts for std::vec::IntoIter<(PartitionRef, B)> {
    type Bytes = B;
    fn coming(&self) -> &[(PartitionRef, B)] {
        self.as_slice()
    }
}

impl<B: Into<Chunk>> Parts for std::array::IntoIter<(PartitionRef, B), 1> {
    type Bytes = B;
    fn coming(&self) -> &[(PartitionRef, B)] {
        self.as_slice()
    }
}

/// What became of an attempt to append.
enum Attempt {
    Refused(Box<AppendResult>),
    Appended(Unacked),
    Duplicate(Unacked),
    Aside(Rules),
    NoRoom(Accepted),
}

/// What the client of an acknowledged batch is told.
fn appended_result(log_start: Option<Offset>, unacked: &Unacked) -> AppendResult {
    AppendResult {
        base_offset: unacked.base_offset,
        log_append_time_ms: unacked.log_append_time_ms,
        log_start_offset: log_start.map_or(-1, |offset| offset.0),
        ..AppendResult::error(ErrorCode::None)
    }
}

fn offline() -> AppendResult {
    AppendResult::refused(ErrorCode::KafkaStorageError, "the log directory is offline")
}

fn refused(result: AppendResult) -> Attempt {
    Attempt::Refused(Box::new(result))
}

/// What an append needs of its core beside its partition.
struct Means<'a> {
    store: &'a mut Store,
    metrics: &'a mut ShardMetrics,
    scratch: &'a mut WalkScratch,
    walks_compressed: bool,
}

impl Means<'_> {
    /// A result that states where the log starts.
    fn with_log_start(&self, log: LogId, result: AppendResult) -> AppendResult {
        AppendResult {
            log_start_offset: self.store.log_start(log).map_or(-1, |offset| offset.0),
            ..result
        }
    }

    fn attempt(
        &mut self,
        now: Now,
        partition: &Partition,
        queued: &QueuedAppend,
        walk: WalkState,
    ) -> Attempt {
        let log = partition.log;
        if self.store.is_offline(log) {
            // Also for a duplicate: what it repeats may never become durable.
            return refused(offline());
        }
        let walked = match walk {
            WalkState::Walked(walked) => *walked,
            WalkState::NotWalked | WalkState::Walking => {
                let rules = Rules::new(
                    &partition.config,
                    queued.api_version,
                    now,
                    self.walks_compressed,
                );
                match walk_task::check(&queued.bytes, &rules, self.scratch) {
                    Checked::Done(walked) => walked,
                    Checked::Aside => return Attempt::Aside(rules),
                }
            }
        };
        let accepted = match walked {
            Walked::Refused(refusal) if refusal.tells_log_start => {
                return refused(self.with_log_start(log, refusal.result));
            }
            Walked::Refused(refusal) => return refused(refusal.result),
            Walked::Accepted(accepted) => accepted,
        };
        let batch: &[u8] = accepted.rewritten.as_deref().unwrap_or(&queued.bytes);
        let waiter = Waiter::Produce(queued.waiter);
        if let Some(header) = BatchHeader::ref_from_prefix(batch)
            && header.has_producer_id()
        {
            match self.store.check_sequence(log, header) {
                Some(SequenceCheck::New) | None => {}
                Some(SequenceCheck::Duplicate(original)) => {
                    return Attempt::Duplicate(Unacked {
                        offset_end: original.offset_end.0,
                        base_offset: original.base_offset.0,
                        // Whatever the topic's timestamp type is, as in Kafka.
                        log_append_time_ms: original.timestamp,
                        bytes: 0,
                        waiter,
                    });
                }
                Some(SequenceCheck::OutOfOrder) => {
                    let result = AppendResult::error(ErrorCode::OutOfOrderSequenceNumber);
                    return refused(self.with_log_start(log, result));
                }
                Some(SequenceCheck::Fenced) => {
                    let result = AppendResult::error(ErrorCode::InvalidProducerEpoch);
                    return refused(self.with_log_start(log, result));
                }
            }
        }
        let stamp = AppendStamp {
            leader_epoch: partition.leader_epoch,
            log_append_time_ms: accepted.log_append_time_ms,
        };
        match self.store.append(now, log, batch, stamp) {
            Ok(appended) => {
                self.metrics.on_appended(
                    partition.name.topic_id,
                    batch.len(),
                    accepted.record_count,
                );
                Attempt::Appended(Unacked {
                    offset_end: appended.offset_end.0,
                    base_offset: appended.base_offset.0,
                    log_append_time_ms: appended.log_append_time_ms.unwrap_or(-1),
                    bytes: batch.len(),
                    waiter,
                })
            }
            Err(AppendError::Busy | AppendError::NotReady) => Attempt::NoRoom(accepted),
            Err(AppendError::Malformed) => refused(AppendResult::error(ErrorCode::CorruptMessage)),
            Err(AppendError::DiskFull) => refused(AppendResult::refused(
                ErrorCode::KafkaStorageError,
                "the log directory is full",
            )),
            Err(AppendError::Offline) => refused(offline()),
        }
    }
}

impl Shard {
    /// Appends batches; with acks=0 the answer comes as soon as they are appended.
    pub(crate) fn serve_append(
        &mut self,
        now: Now,
        origin: Origin,
        acks: i16,
        api_version: i16,
        mut parts: impl Parts,
    ) {
        let group = self.keys.next();
        self.append_groups.insert(
            group,
            AppendGroup {
                origin,
                results: vec![None; parts.len()],
                open_count: parts.len(),
                chunks: Vec::new(),
                arrived_us: now.monotonic_us,
                appended_us: now.monotonic_us,
            },
        );
        let mut part = 0;
        if parts.len() > 1 {
            self.expect_appends(parts.coming(), 0..AHEAD);
        }
        while let Some((name, bytes)) = parts.next() {
            if part % AHEAD == 0 {
                self.expect_appends(parts.coming(), AHEAD..2 * AHEAD);
            }
            let bytes = bytes.into();
            let waiter = AppendWaiter { group, part };
            part += 1;
            let Some(partition) = self.partitions.get_mut(&name) else {
                let result = AppendResult::error(self.absence(name));
                self.keep_chunk(group, bytes);
                self.finish_append(now, waiter, result);
                continue;
            };
            let queued = QueuedAppend {
                waiter,
                bytes,
                api_version,
                acks,
                walk: WalkState::NotWalked,
            };
            if !partition.queue.is_empty() || !partition.created {
                partition.queue.push_back(queued);
                if partition.queue.len() == 1 {
                    self.pump_appends(now, name);
                }
                continue;
            }
            // Nearly always: nobody is before it, and it is appended now.
            let mut means = Means {
                store: &mut self.store,
                metrics: &mut self.metrics,
                scratch: &mut self.walk_scratch,
                walks_compressed: self.config.broker.record_walk_enable,
            };
            match means.attempt(now, partition, &queued, WalkState::NotWalked) {
                Attempt::Appended(unacked) if acks != 0 => {
                    partition.unacked.push_back(unacked);
                    self.keep_chunk(group, queued.bytes);
                }
                attempt => {
                    self.take_attempt(now, name, queued, attempt);
                }
            }
        }
    }

    /// Has the memory of partitions brought near that are appended to soon; of those before `range` what
    /// that leads to.
    fn expect_appends<B>(&self, next: &[(PartitionRef, B)], range: Range<usize>) {
        let end = range.end.min(next.len());
        let start = range.start.min(end);
        for (name, _) in &next[start..end] {
            if let Some(partition) = self.partitions.get(name) {
                prefetch(partition);
                self.store.expect_append(partition.log, true);
            }
        }
        for (name, _) in &next[..start] {
            if let Some(partition) = self.partitions.get(name) {
                self.store.expect_append(partition.log, false);
            }
        }
    }

    /// Has the memory brought near that is touched when the logs of the next notices are durable.
    pub(crate) fn expect_durable(&self) {
        let partition_of = |skip| {
            let log = self.store.durable_ahead(skip)?;
            self.partitions.of_log(log)
        };
        if let Some(partition) = partition_of(AHEAD / 2) {
            prefetch(partition);
        }
        if let Some(unacked) = partition_of(AHEAD / 4).and_then(|next| next.unacked.front()) {
            prefetch(unacked);
        }
    }

    /// Appends what is queued at a partition, as far as it goes.
    pub(crate) fn pump_appends(&mut self, now: Now, name: PartitionRef) {
        loop {
            let Some(partition) = self.partitions.get_mut(&name) else {
                return;
            };
            if !partition.created {
                let log = partition.log;
                if self.store.is_offline(log) {
                    // Its creation never becomes durable.
                    self.fail_appends(now, name, ErrorCode::KafkaStorageError);
                }
                return;
            }
            let Some(mut queued) = partition.queue.pop_front() else {
                return;
            };
            if matches!(queued.walk, WalkState::Walking) {
                partition.queue.push_front(queued);
                return;
            }
            let walk = std::mem::replace(&mut queued.walk, WalkState::NotWalked);
            let mut means = Means {
                store: &mut self.store,
                metrics: &mut self.metrics,
                scratch: &mut self.walk_scratch,
                walks_compressed: self.config.broker.record_walk_enable,
            };
            let attempt = means.attempt(now, partition, &queued, walk);
            if !self.take_attempt(now, name, queued, attempt) {
                return;
            }
        }
    }

    /// Does what an attempt to append came to. Returns whether the next in the queue may be tried.
    fn take_attempt(
        &mut self,
        now: Now,
        name: PartitionRef,
        mut queued: QueuedAppend,
        attempt: Attempt,
    ) -> bool {
        match attempt {
            Attempt::Aside(rules) => {
                let empty = Chunk::Local(Shared::empty());
                let bytes = std::mem::replace(&mut queued.bytes, empty);
                let task = WalkTask::new(name, bytes, rules);
                queued.walk = WalkState::Walking;
                self.requeue(name, queued);
                self.actions.push_back(Action::Spawn(Task::Walk(task)));
                return false;
            }
            Attempt::NoRoom(accepted) => {
                queued.walk = WalkState::Walked(Box::new(Walked::Accepted(accepted)));
                self.requeue(name, queued);
                if !self.blocked.contains(&name) {
                    self.blocked.push(name);
                }
                return false;
            }
            Attempt::Refused(result) => {
                self.keep_chunk(queued.waiter.group, queued.bytes);
                self.finish_append(now, queued.waiter, *result);
            }
            Attempt::Appended(unacked) => {
                self.keep_chunk(queued.waiter.group, queued.bytes);
                self.wait_for_durable(now, name, unacked, queued.acks == 0, false);
            }
            Attempt::Duplicate(unacked) => {
                self.keep_chunk(queued.waiter.group, queued.bytes);
                self.wait_for_durable(now, name, unacked, queued.acks == 0, true);
            }
        }
        true
    }

    fn requeue(&mut self, name: PartitionRef, queued: QueuedAppend) {
        if let Some(partition) = self.partitions.get_mut(&name) {
            partition.queue.push_front(queued);
        }
    }

    fn wait_for_durable(
        &mut self,
        now: Now,
        name: PartitionRef,
        mut unacked: Unacked,
        answer_now: bool,
        duplicate: bool,
    ) {
        if let Waiter::Produce(waiter) = unacked.waiter
            && let Some(group) = self.append_groups.get_mut(&waiter.group)
        {
            group.appended_us = now.monotonic_us;
        }
        if answer_now && let Waiter::Produce(waiter) = unacked.waiter {
            let result = self.append_result(name, &unacked);
            unacked.waiter = Waiter::Nobody;
            self.finish_append(now, waiter, result);
        }
        let Some(partition) = self.partitions.get_mut(&name) else {
            return;
        };
        if !duplicate {
            partition.unacked.push_back(unacked);
        } else if let Waiter::Produce(waiter) = unacked.waiter {
            if self.store.durable_end(partition.log) >= Some(Offset(unacked.offset_end)) {
                let result = self.append_result(name, &unacked);
                self.finish_append(now, waiter, result);
            } else {
                partition.duplicates.push(unacked);
            }
        }
    }

    /// A walk ended: its batch goes on.
    pub(crate) fn on_walked(&mut self, now: Now, done: WalkDone) {
        if let Some(partition) = self.partitions.get_mut(&done.partition)
            && let Some(front) = partition.queue.front_mut()
            && matches!(front.walk, WalkState::Walking)
        {
            front.walk = WalkState::Walked(Box::new(done.walked));
            front.bytes = done.bytes;
            self.pump_appends(now, done.partition);
        } else {
            // The partition is gone and its clients were told.
            self.release([done.bytes]);
        }
    }

    /// Tries again where there was no room.
    pub(crate) fn retry_blocked(&mut self, now: Now) {
        for name in std::mem::take(&mut self.blocked) {
            self.pump_appends(now, name);
        }
    }

    fn append_result(&self, name: PartitionRef, unacked: &Unacked) -> AppendResult {
        let partition = self.partitions.get(&name);
        let log_start = partition.and_then(|partition| self.store.log_start(partition.log));
        appended_result(log_start, unacked)
    }

    /// The batch is copied or refused: remote buffers may go home with the answer.
    fn keep_chunk(&mut self, group: Key, chunk: Chunk) {
        if matches!(chunk, Chunk::Leased(_))
            && let Some(group) = self.append_groups.get_mut(&group)
        {
            group.chunks.push(chunk);
        }
    }

    /// A part has its result; the last one sends the answer.
    pub(crate) fn finish_append(&mut self, now: Now, waiter: AppendWaiter, result: AppendResult) {
        let Some(group) = self.append_groups.get_mut(&waiter.group) else {
            unreachable!("an append group ends with its last part");
        };
        if group.take(waiter.part, result) {
            self.end_group(now, waiter.group);
        }
    }

    fn end_group(&mut self, now: Now, group: Key) {
        if let Some(group) = self.append_groups.remove(&group) {
            let journal_us = group.appended_us.saturating_sub(group.arrived_us);
            let flush_us = now.monotonic_us.saturating_sub(group.appended_us);
            self.metrics.on_produce_stage(Stage::Journal, journal_us);
            self.metrics.on_produce_stage(Stage::Flush, flush_us);
            let results = group.results.into_iter();
            let results = results.map(|result| result.expect("every part has ended"));
            let results = results.collect();
            self.answer_append(now, group.origin, results, group.chunks);
        }
    }

    /// A partition is durable up to `offset_end`: everybody who waited for that is told.
    pub(crate) fn on_durable(
        &mut self,
        now: Now,
        name: PartitionRef,
        log: LogId,
        offset_end: Offset,
    ) {
        let mut bytes = 0;
        let Some(mut partition) = self.partitions.of_log_mut(log) else {
            return;
        };
        let log_start = self.store.log_start(log);
        while let Some(front) = partition.unacked.front() {
            if front.offset_end > offset_end.0 {
                break;
            }
            let Some(unacked) = partition.unacked.pop_front() else {
                break;
            };
            bytes += unacked.bytes;
            let Waiter::Produce(waiter) = unacked.waiter else {
                continue;
            };
            let result = appended_result(log_start, &unacked);
            let Some(group) = self.append_groups.get_mut(&waiter.group) else {
                unreachable!("an append group ends with its last part");
            };
            if group.take(waiter.part, result) {
                self.end_group(now, waiter.group);
                let Some(same) = self.partitions.of_log_mut(log) else {
                    return;
                };
                partition = same;
            }
        }
        if !partition.duplicates.is_empty() || !partition.watches.is_empty() {
            self.tell_others(now, name, offset_end, bytes);
        }
        self.on_internal_durable(now, name, offset_end);
    }

    /// Duplicates whose original is durable now, and parked fetches.
    fn tell_others(&mut self, now: Now, name: PartitionRef, offset_end: Offset, bytes: usize) {
        if let Some(partition) = self.partitions.get_mut(&name)
            && !partition.duplicates.is_empty()
        {
            let (ready, rest): (Vec<Unacked>, Vec<Unacked>) =
                std::mem::take(&mut partition.duplicates)
                    .into_iter()
                    .partition(|unacked| unacked.offset_end <= offset_end.0);
            partition.duplicates = rest;
            for unacked in ready {
                if let Waiter::Produce(waiter) = unacked.waiter {
                    let result = self.append_result(name, &unacked);
                    self.finish_append(now, waiter, result);
                }
            }
        }
        self.feed_watches(now, name, bytes);
    }

    /// A partition is deleted or its disk is lost: everybody who waits there is refused.
    pub(crate) fn fail_appends(&mut self, now: Now, name: PartitionRef, code: ErrorCode) {
        let Some(partition) = self.partitions.get_mut(&name) else {
            return;
        };
        let queue = std::mem::take(&mut partition.queue);
        let unacked = std::mem::take(&mut partition.unacked);
        let duplicates = std::mem::take(&mut partition.duplicates);
        for queued in queue {
            self.keep_chunk(queued.waiter.group, queued.bytes);
            self.finish_append(now, queued.waiter, AppendResult::error(code));
        }
        for unacked in unacked.into_iter().chain(duplicates) {
            if let Waiter::Produce(waiter) = unacked.waiter {
                self.finish_append(now, waiter, AppendResult::error(code));
            }
        }
        self.feed_watches(now, name, usize::MAX);
    }
}
