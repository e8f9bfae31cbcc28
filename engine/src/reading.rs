//! Reading partitions that this core owns: what a fetch finds, who is woken when more arrives, and the
//! questions about single partitions. Bounded by the high watermark, which never passes what is
//! acknowledged. Knows no connection and no session.

use net::kafka::error::ErrorCode;
use ring::buf::Shared;
use storage::store::{Found, LogId, Lookup, LookupKind, Read, ReadError};
use storage::types::{CoreId, LeaderEpoch, Now, Offset};

use crate::calls::Origin;
use crate::ids::Key;
use crate::limits::FETCH_DISK_READS_MAX;
use crate::mesh::{
    Answer, Ask, CallId, FetchCall, FetchHead, FetchPart, LogDirReport, MeshMessage,
    PartitionAnswer, PartitionCall, PartitionRef, ProducerReport,
};
use crate::shard::Shard;

/// How often the reads of one fetch are repeated when segments are replaced or deleted under them: more
/// than ever happens, and an end where compaction left nothing to find.
const READS_REPEATED_MAX: u32 = 32;

/// One core's part of a fetch while the disk is read for it.
#[derive(Debug)]
pub struct OwnerFetch {
    origin: Origin,
    call: FetchCall,
    found: Vec<(FetchHead, Vec<Shared>)>,
    open_count: usize,
    /// Reads that were repeated because the log changed under them.
    repeated: u32,
}

/// A parked fetch that waits for bytes in partitions of this core.
#[derive(Debug)]
pub struct Watch {
    origin: Origin,
    partitions: Vec<PartitionRef>,
    missing_bytes: usize,
}

/// What a ticket of the store is for.
#[derive(Debug)]
pub(crate) enum Ticketed {
    /// A part of a fetch.
    Fetch { fetch: Key, part: usize },
    /// A question about a partition.
    Question { questions: Key, place: usize },
    /// The group coordinator reads its log.
    Group(PartitionRef),
}

/// Questions of one call, until each has its answer.
#[derive(Debug)]
pub(crate) struct Questions {
    origin: Origin,
    answers: Vec<Option<PartitionAnswer>>,
    open_count: usize,
}

impl Shard {
    /// Reads what a fetch asks of this core's partitions.
    pub(crate) fn serve_fetch(&mut self, now: Now, origin: Origin, call: FetchCall) {
        let key = self.keys.next();
        let mut fetch = OwnerFetch {
            origin,
            found: Vec::with_capacity(call.parts.len()),
            open_count: 0,
            repeated: 0,
            call,
        };
        let mut left_bytes = fetch.call.bytes_max;
        let mut found_any = false;
        for index in 0..fetch.call.parts.len() {
            let part = fetch.call.parts[index];
            let (head, read) = self.read_part(now, &part, left_bytes, !found_any);
            let views = match read {
                None | Some(Read::Err(_)) => Vec::new(),
                Some(Read::Ready(views)) => views,
                Some(Read::Disk(ticket)) => {
                    let waiting = Ticketed::Fetch {
                        fetch: key,
                        part: index,
                    };
                    self.tickets.insert(ticket, waiting);
                    fetch.open_count += 1;
                    found_any = true;
                    left_bytes = if fetch.open_count < FETCH_DISK_READS_MAX {
                        left_bytes.saturating_sub(self.expected_bytes(&part))
                    } else {
                        0
                    };
                    Vec::new()
                }
            };
            let bytes: usize = views.iter().map(|view| view.len()).sum();
            found_any |= bytes > 0;
            left_bytes = left_bytes.saturating_sub(bytes);
            fetch.found.push((head, views));
        }
        if fetch.open_count == 0 {
            self.finish_fetch(now, fetch);
        } else {
            self.owner_fetches.insert(key, fetch);
        }
    }

    /// What a read of the disk may bring, at most, but for a batch larger than what was asked for.
    fn expected_bytes(&self, part: &FetchPart) -> usize {
        let whole_bytes = self
            .partitions
            .get(&part.partition)
            .and_then(|partition| self.store.size_bytes(partition.log))
            .map_or(u64::MAX, |(size_bytes, _)| size_bytes);
        part.bytes_max
            .min(usize::try_from(whole_bytes).unwrap_or(usize::MAX))
    }

    fn read_part(
        &mut self,
        now: Now,
        part: &FetchPart,
        left_bytes: usize,
        whole_batch_at_least: bool,
    ) -> (FetchHead, Option<Read>) {
        let (log, leader_epoch) =
            match self.partition_for_read(part.partition, part.current_leader_epoch) {
                Ok(known) => known,
                Err(code) => return (FetchHead::error(code), None),
            };
        let (log_start, high_watermark) = self.bounds(log);
        let mut head = FetchHead {
            error: ErrorCode::None,
            high_watermark: high_watermark.0,
            log_start_offset: log_start.0,
            diverging: None,
        };
        if part.last_fetched_epoch >= 0 {
            let epoch = LeaderEpoch(part.last_fetched_epoch.min(leader_epoch.0));
            if let Some((end_epoch, end)) = self.store.epoch_end(log, epoch, leader_epoch)
                && (end_epoch.0 < part.last_fetched_epoch || end < part.fetch_offset)
            {
                head.diverging = Some((end_epoch.0, end.0));
                return (head, None);
            }
        }
        if part.fetch_offset.0 < head.log_start_offset || part.fetch_offset > high_watermark {
            return (FetchHead::error(ErrorCode::OffsetOutOfRange), None);
        }
        if part.fetch_offset == high_watermark {
            return (head, None);
        }
        let bytes_max = part.bytes_max.min(left_bytes);
        if bytes_max == 0 && !whole_batch_at_least {
            return (head, None);
        }
        match self.store.read(
            now,
            log,
            part.fetch_offset,
            bytes_max,
            whole_batch_at_least,
            high_watermark,
        ) {
            Read::Err(error) => (FetchHead::error(read_error_code(error)), None),
            read => (head, Some(read)),
        }
    }

    /// The log and epoch of a partition that a client reads, with its own idea of the epoch checked
    /// (KIP-320).
    fn partition_for_read(
        &self,
        name: PartitionRef,
        current_leader_epoch: i32,
    ) -> Result<(LogId, LeaderEpoch), ErrorCode> {
        let Some(partition) = self.partitions.get(&name) else {
            return Err(self.absence(name));
        };
        if current_leader_epoch >= 0 && current_leader_epoch < partition.leader_epoch.0 {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        if current_leader_epoch > partition.leader_epoch.0 {
            return Err(ErrorCode::UnknownLeaderEpoch);
        }
        Ok((partition.log, partition.leader_epoch))
    }

    /// Whether a partition's topic lets records be deleted before compaction does so.
    fn deletes(&self, name: PartitionRef) -> bool {
        self.partitions
            .get(&name)
            .is_some_and(|partition| partition.config.log.cleanup_delete)
    }

    /// Log start offset and high watermark.
    fn bounds(&self, log: LogId) -> (Offset, Offset) {
        let start = self.store.log_start(log).unwrap_or_default();
        let high_watermark = self.store.durable_end(log).unwrap_or_default();
        (start, high_watermark)
    }

    fn finish_fetch(&mut self, now: Now, fetch: OwnerFetch) {
        let OwnerFetch {
            origin,
            call,
            found,
            ..
        } = fetch;
        let bytes: usize = found
            .iter()
            .flat_map(|(_, views)| views)
            .map(|view| view.len())
            .sum();
        let failed = found
            .iter()
            .any(|(head, _)| head.error != ErrorCode::None || head.diverging.is_some());
        let watched = call.watch && !failed && bytes < call.bytes_min;
        if watched {
            let key = self.keys.next();
            let mut grown = false;
            for (part, (head, _)) in call.parts.iter().zip(&found) {
                match self.partitions.get_mut(&part.partition) {
                    Some(partition) => {
                        partition.watches.push(key);
                        let log = partition.log;
                        grown |= self.bounds(log).1.0 > head.high_watermark;
                    }
                    None => grown = true,
                }
            }
            let watch = Watch {
                origin,
                partitions: call.parts.iter().map(|part| part.partition).collect(),
                missing_bytes: call.bytes_min - bytes,
            };
            self.watches.insert(key, watch);
            self.watches_by_call.insert(origin, key);
            if grown {
                // It grew while the disk was read: wake it at once, after its answer.
                self.answer_fetch(now, origin, found, watched);
                self.wake_watch(now, key);
                return;
            }
        }
        self.answer_fetch(now, origin, found, watched);
    }

    fn answer_fetch(
        &mut self,
        now: Now,
        origin: Origin,
        found: Vec<(FetchHead, Vec<Shared>)>,
        watched: bool,
    ) {
        if origin.core == self.core {
            let parts = found
                .into_iter()
                .map(|(head, views)| {
                    (
                        head,
                        views.into_iter().map(ring::buf::Chunk::Local).collect(),
                    )
                })
                .collect();
            self.on_fetch_answer(now, origin.id, parts, watched);
        } else {
            let parts = found
                .into_iter()
                .map(|(head, views)| {
                    let leases = views.iter().map(|view| self.leases.lend(view)).collect();
                    (head, leases)
                })
                .collect();
            self.answer(now, origin, Answer::Fetch { parts, watched });
        }
    }

    /// Bytes became readable in a partition: parked fetches that waited for them wake.
    pub(crate) fn feed_watches(&mut self, now: Now, name: PartitionRef, bytes: usize) {
        let Some(partition) = self.partitions.get(&name) else {
            return;
        };
        if partition.watches.is_empty() {
            return;
        }
        let keys = partition.watches.clone();
        for key in keys {
            if let Some(watch) = self.watches.get_mut(&key) {
                watch.missing_bytes = watch.missing_bytes.saturating_sub(bytes);
                if watch.missing_bytes == 0 {
                    self.wake_watch(now, key);
                }
            }
        }
    }

    fn wake_watch(&mut self, now: Now, key: Key) {
        if let Some(origin) = self.drop_watch(key) {
            let id = origin.id;
            if origin.core == self.core {
                self.on_fetch_wake(now, id);
            } else {
                self.send(origin.core, MeshMessage::FetchWake { id });
            }
        }
    }

    fn drop_watch(&mut self, key: Key) -> Option<Origin> {
        let watch = self.watches.remove(&key)?;
        self.watches_by_call.remove(&watch.origin);
        for name in &watch.partitions {
            if let Some(partition) = self.partitions.get_mut(name) {
                partition.watches.retain(|known| *known != key);
            }
        }
        Some(watch.origin)
    }

    /// A parked fetch was answered: it is not to be woken any more.
    pub(crate) fn forget_watch(&mut self, core: CoreId, id: CallId) {
        if let Some(key) = self.watches_by_call.get(&Origin { core, id }).copied() {
            self.drop_watch(key);
        }
    }

    /// A read of the disk ended.
    pub(crate) fn on_read_done(
        &mut self,
        now: Now,
        ticket: u64,
        result: Result<Vec<Shared>, ReadError>,
    ) {
        match self.tickets.remove(&ticket) {
            Some(Ticketed::Fetch { fetch: key, part }) => {
                let Some(fetch) = self.owner_fetches.get_mut(&key) else {
                    unreachable!("a fetch ends with its last read");
                };
                match result {
                    Ok(views) if views.is_empty() && fetch.repeated < READS_REPEATED_MAX => {
                        // The log changed meanwhile: what is there now?
                        fetch.repeated += 1;
                        let wanted = fetch.call.parts[part];
                        let (head, read) = self.read_part(now, &wanted, wanted.bytes_max, true);
                        let views = match read {
                            Some(Read::Disk(ticket)) => {
                                self.tickets
                                    .insert(ticket, Ticketed::Fetch { fetch: key, part });
                                return;
                            }
                            Some(Read::Ready(views)) => views,
                            None | Some(Read::Err(_)) => Vec::new(),
                        };
                        if let Some(fetch) = self.owner_fetches.get_mut(&key) {
                            fetch.found[part] = (head, views);
                        }
                    }
                    Ok(views) => fetch.found[part].1 = views,
                    Err(error) => fetch.found[part].0 = FetchHead::error(read_error_code(error)),
                }
                let Some(fetch) = self.owner_fetches.get_mut(&key) else {
                    unreachable!("a fetch ends with its last read");
                };
                fetch.open_count -= 1;
                if fetch.open_count == 0
                    && let Some(fetch) = self.owner_fetches.remove(&key)
                {
                    self.finish_fetch(now, fetch);
                }
            }
            Some(Ticketed::Group(name)) => self.on_group_log_read(now, name, result),
            Some(Ticketed::Question { .. }) | None => {
                unreachable!("ticket {ticket} was not given for a read")
            }
        }
    }

    /// Answers questions about partitions of this core.
    pub(crate) fn serve_partitions(&mut self, now: Now, origin: Origin, calls: Vec<PartitionCall>) {
        let key = self.keys.next();
        let mut questions = Questions {
            origin,
            answers: Vec::with_capacity(calls.len()),
            open_count: 0,
        };
        for (place, call) in calls.iter().enumerate() {
            let answer = match self.answer_question(now, call) {
                Ok(answer) => Some(answer),
                Err(ticket) => {
                    let waiting = Ticketed::Question {
                        questions: key,
                        place,
                    };
                    self.tickets.insert(ticket, waiting);
                    questions.open_count += 1;
                    None
                }
            };
            questions.answers.push(answer);
        }
        if questions.open_count == 0 {
            let answers = questions.answers.into_iter().flatten().collect();
            self.answer(now, origin, Answer::Partitions(answers));
        } else {
            self.questions.insert(key, questions);
        }
    }

    fn answer_question(&mut self, now: Now, call: &PartitionCall) -> Result<PartitionAnswer, u64> {
        let (log, leader_epoch) =
            match self.partition_for_read(call.partition, call.current_leader_epoch) {
                Ok(known) => known,
                Err(code) => return Ok(PartitionAnswer::Error(code)),
            };
        let (log_start, high_watermark) = self.bounds(log);
        let lookup = match call.ask {
            Ask::Earliest => {
                let epochs = self.store.leader_epochs(log);
                let epoch = epochs.and_then(|epochs| epochs.epoch_for_offset(log_start));
                return Ok(PartitionAnswer::Offset {
                    offset: log_start.0,
                    timestamp_ms: -1,
                    // An empty log starts with what its leader appends next.
                    leader_epoch: epoch.unwrap_or(leader_epoch).0,
                });
            }
            Ask::Latest => {
                return Ok(PartitionAnswer::Offset {
                    offset: high_watermark.0,
                    timestamp_ms: -1,
                    leader_epoch: leader_epoch.0,
                });
            }
            Ask::Tiered => return Ok(looked_up(None)),
            Ask::MaxTimestamp => self.store.lookup(now, log, LookupKind::MaxTimestamp),
            Ask::ByTimestamp(time_ms) => {
                self.store
                    .lookup(now, log, LookupKind::ByTimestamp(time_ms))
            }
            Ask::EpochEnd(epoch) => {
                let (epoch, end) = if epoch == leader_epoch {
                    (epoch.0, high_watermark.0)
                } else {
                    self.store
                        .epoch_end(log, epoch, leader_epoch)
                        .map_or((-1, -1), |(epoch, end)| (epoch.0, end.0))
                };
                return Ok(PartitionAnswer::Offset {
                    offset: end,
                    timestamp_ms: -1,
                    leader_epoch: epoch,
                });
            }
            Ask::DeleteRecords(before) => {
                if !self.deletes(call.partition) {
                    return Ok(PartitionAnswer::Error(ErrorCode::PolicyViolation));
                }
                let before = if before == -1 {
                    high_watermark
                } else {
                    Offset(before)
                };
                if before.0 < 0 || before > high_watermark {
                    return Ok(PartitionAnswer::Error(ErrorCode::OffsetOutOfRange));
                }
                if before < log_start {
                    // Deleted before: what is wanted is the case.
                    return Ok(PartitionAnswer::Offset {
                        offset: log_start.0,
                        timestamp_ms: -1,
                        leader_epoch: -1,
                    });
                }
                return match self.store.delete_records(now, log, before) {
                    Ok(ticket) => Err(ticket),
                    Err(_) => Ok(PartitionAnswer::Error(ErrorCode::KafkaStorageError)),
                };
            }
            Ask::Producers => {
                let reports = self
                    .store
                    .producers(log)
                    .into_iter()
                    .flat_map(|producers| producers.describe())
                    .map(|producer| ProducerReport {
                        producer_id: producer.producer_id,
                        producer_epoch: producer.producer_epoch,
                        last_sequence: producer.last_sequence,
                        last_timestamp_ms: producer.last_timestamp,
                    })
                    .collect();
                return Ok(PartitionAnswer::Producers(reports));
            }
        };
        match lookup {
            Lookup::Ready(found) => Ok(looked_up(found)),
            Lookup::Disk(ticket) => Err(ticket),
            Lookup::Err(error) => Ok(PartitionAnswer::Error(read_error_code(error))),
        }
    }

    /// The store answers a question that needed the disk.
    pub(crate) fn on_question_done(&mut self, now: Now, ticket: u64, answer: PartitionAnswer) {
        let Some(Ticketed::Question {
            questions: key,
            place,
        }) = self.tickets.remove(&ticket)
        else {
            unreachable!("ticket {ticket} was not given for a question");
        };
        let Some(questions) = self.questions.get_mut(&key) else {
            unreachable!("questions end with their last answer");
        };
        questions.answers[place] = Some(answer);
        questions.open_count -= 1;
        if questions.open_count == 0
            && let Some(questions) = self.questions.remove(&key)
        {
            let answers = questions.answers.into_iter().flatten().collect();
            self.answer(now, questions.origin, Answer::Partitions(answers));
        }
    }

    /// Sizes of this core's partitions.
    pub(crate) fn log_dir_reports(&self) -> Vec<LogDirReport> {
        self.partitions
            .values()
            .filter_map(|partition| {
                let (size_bytes, dir) = self.store.size_bytes(partition.log)?;
                Some(LogDirReport {
                    dir,
                    partition: partition.name,
                    size_bytes,
                })
            })
            .collect()
    }
}

/// What a lookup found, as an answer: nothing is no error.
pub(crate) fn looked_up(found: Option<Found>) -> PartitionAnswer {
    match found {
        Some(found) => PartitionAnswer::Offset {
            offset: found.offset.0,
            timestamp_ms: found.timestamp_ms,
            leader_epoch: found.leader_epoch.0,
        },
        None => PartitionAnswer::Offset {
            offset: -1,
            timestamp_ms: -1,
            leader_epoch: -1,
        },
    }
}

/// Kafka's code for a read that failed.
pub(crate) fn read_error_code(error: ReadError) -> ErrorCode {
    match error {
        ReadError::OutOfRange => ErrorCode::OffsetOutOfRange,
        ReadError::Corrupt => ErrorCode::CorruptMessage,
        ReadError::Io => ErrorCode::KafkaStorageError,
        ReadError::NotFound => ErrorCode::UnknownTopicOrPartition,
    }
}
