//! Appending batches to partitions that this core owns: in order of arrival per partition, checked,
//! stamped, acknowledged when they are as safe as was asked for. Knows no request and no connection.

use net::kafka::error::ErrorCode;
use ring::buf::{Chunk, Shared};
use storage::batch::BatchHeader;
use storage::producer_state::SequenceCheck;
use storage::store::{AppendError, AppendStamp};
use storage::types::{Now, Offset};

use crate::calls::Origin;
use crate::event::{Action, Task};
use crate::ids::Key;
use crate::mesh::{AppendResult, PartitionRef};
use crate::metrics::Stage;
use crate::partition::{AppendWaiter, QueuedAppend, Unacked, Waiter, WalkState};
use crate::shard::Shard;
use crate::walk_task::{self, Accepted, Checked, Rules, WalkDone, WalkTask, Walked};

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

/// What became of an attempt to append.
enum Attempt {
    Refused(AppendResult),
    Appended(Unacked),
    Duplicate(Unacked),
    Aside(Rules),
    NoRoom(Accepted),
}

fn offline() -> AppendResult {
    AppendResult::refused(ErrorCode::KafkaStorageError, "the log directory is offline")
}

impl Shard {
    /// Appends batches; with acks=0 the answer comes as soon as they are appended.
    pub(crate) fn serve_append(
        &mut self,
        now: Now,
        origin: Origin,
        acks: i16,
        api_version: i16,
        parts: Vec<(PartitionRef, Chunk)>,
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
        for (part, (name, bytes)) in parts.into_iter().enumerate() {
            let waiter = AppendWaiter { group, part };
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
            partition.queue.push_back(queued);
            if partition.queue.len() == 1 {
                self.pump_appends(now, name);
            }
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
            let attempt = self.attempt_append(now, name, &queued, walk);
            match attempt {
                Attempt::Aside(rules) => {
                    let empty = Chunk::Local(Shared::empty());
                    let bytes = std::mem::replace(&mut queued.bytes, empty);
                    let task = WalkTask::new(name, bytes, rules);
                    queued.walk = WalkState::Walking;
                    self.requeue(name, queued);
                    self.actions.push_back(Action::Spawn(Task::Walk(task)));
                    return;
                }
                Attempt::NoRoom(accepted) => {
                    queued.walk = WalkState::Walked(Box::new(Walked::Accepted(accepted)));
                    self.requeue(name, queued);
                    if !self.blocked.contains(&name) {
                        self.blocked.push(name);
                    }
                    return;
                }
                Attempt::Refused(result) => {
                    self.keep_chunk(queued.waiter.group, queued.bytes);
                    self.finish_append(now, queued.waiter, result);
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
        }
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

    fn attempt_append(
        &mut self,
        now: Now,
        name: PartitionRef,
        queued: &QueuedAppend,
        walk: WalkState,
    ) -> Attempt {
        let Some(partition) = self.partitions.get(&name) else {
            return Attempt::Refused(AppendResult::error(self.absence(name)));
        };
        let log = partition.log;
        if self.store.is_offline(log) {
            // Also for a duplicate: what it repeats may never become durable.
            return Attempt::Refused(offline());
        }
        let walked = match walk {
            WalkState::Walked(walked) => *walked,
            WalkState::NotWalked | WalkState::Walking => {
                let rules = Rules::new(
                    &partition.config,
                    queued.api_version,
                    now,
                    self.config.broker.record_walk_enable,
                );
                match walk_task::check(&queued.bytes, &rules, &mut self.walk_scratch) {
                    Checked::Done(walked) => walked,
                    Checked::Aside => return Attempt::Aside(rules),
                }
            }
        };
        let accepted = match walked {
            Walked::Refused(refusal) if refusal.tells_log_start => {
                return Attempt::Refused(self.with_log_start(name, refusal.result));
            }
            Walked::Refused(refusal) => return Attempt::Refused(refusal.result),
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
                    return Attempt::Refused(self.with_log_start(name, result));
                }
                Some(SequenceCheck::Fenced) => {
                    let result = AppendResult::error(ErrorCode::InvalidProducerEpoch);
                    return Attempt::Refused(self.with_log_start(name, result));
                }
            }
        }
        let stamp = AppendStamp {
            leader_epoch: partition.leader_epoch,
            log_append_time_ms: accepted.log_append_time_ms,
        };
        match self.store.append(now, log, batch, stamp) {
            Ok(appended) => {
                self.metrics
                    .on_appended(name.topic_id, batch.len(), accepted.record_count);
                Attempt::Appended(Unacked {
                    offset_end: appended.offset_end.0,
                    base_offset: appended.base_offset.0,
                    log_append_time_ms: appended.log_append_time_ms.unwrap_or(-1),
                    bytes: batch.len(),
                    waiter,
                })
            }
            Err(AppendError::Busy | AppendError::NotReady) => Attempt::NoRoom(accepted),
            Err(AppendError::Malformed) => {
                Attempt::Refused(AppendResult::error(ErrorCode::CorruptMessage))
            }
            Err(AppendError::DiskFull) => Attempt::Refused(AppendResult::refused(
                ErrorCode::KafkaStorageError,
                "the log directory is full",
            )),
            Err(AppendError::Offline) => Attempt::Refused(offline()),
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

    /// A result that states where the log starts.
    fn with_log_start(&self, name: PartitionRef, result: AppendResult) -> AppendResult {
        let log_start = self
            .partitions
            .get(&name)
            .and_then(|partition| self.store.log_start(partition.log));
        AppendResult {
            log_start_offset: log_start.map_or(-1, |offset| offset.0),
            ..result
        }
    }

    fn append_result(&self, name: PartitionRef, unacked: &Unacked) -> AppendResult {
        let result = AppendResult {
            error: ErrorCode::None,
            base_offset: unacked.base_offset,
            log_append_time_ms: unacked.log_append_time_ms,
            ..AppendResult::error(ErrorCode::None)
        };
        self.with_log_start(name, result)
    }

    /// The batch is copied or refused: remote buffers may go home with the answer.
    fn keep_chunk(&mut self, group: Key, chunk: Chunk) {
        if let (Chunk::Leased(_), Some(group)) = (&chunk, self.append_groups.get_mut(&group)) {
            group.chunks.push(chunk);
        }
    }

    /// A part has its result; the last one sends the answer.
    pub(crate) fn finish_append(&mut self, now: Now, waiter: AppendWaiter, result: AppendResult) {
        let Some(group) = self.append_groups.get_mut(&waiter.group) else {
            unreachable!("an append group ends with its last part");
        };
        assert!(group.results[waiter.part].is_none(), "a part ends once");
        group.results[waiter.part] = Some(result);
        group.open_count -= 1;
        if group.open_count == 0
            && let Some(group) = self.append_groups.remove(&waiter.group)
        {
            let journal_us = group.appended_us.saturating_sub(group.arrived_us);
            let flush_us = now.monotonic_us.saturating_sub(group.appended_us);
            self.metrics.on_produce_stage(Stage::Journal, journal_us);
            self.metrics.on_produce_stage(Stage::Flush, flush_us);
            let results = group.results.into_iter().flatten().collect();
            self.answer_append(now, group.origin, results, group.chunks);
        }
    }

    /// A partition is durable up to `offset_end`: everybody who waited for that is told.
    pub(crate) fn on_durable(&mut self, now: Now, name: PartitionRef, offset_end: Offset) {
        let mut bytes = 0;
        loop {
            let Some(partition) = self.partitions.get_mut(&name) else {
                return;
            };
            let Some(front) = partition.unacked.front() else {
                break;
            };
            if front.offset_end > offset_end.0 {
                break;
            }
            let Some(unacked) = partition.unacked.pop_front() else {
                break;
            };
            bytes += unacked.bytes;
            match unacked.waiter {
                Waiter::Produce(waiter) => {
                    let result = self.append_result(name, &unacked);
                    self.finish_append(now, waiter, result);
                }
                Waiter::Nobody => {}
            }
        }
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
        self.on_internal_durable(now, name, offset_end);
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
