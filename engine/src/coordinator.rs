//! The group coordinator of a core: feeds the machine in `group` with calls, time and its log, and does
//! what it asks. Lives on the core that owns the partitions of `__consumer_offsets`; knows no protocol
//! of groups.

use std::collections::VecDeque;

use ring::buf::Shared;
use storage::batch::{self, Compression};
use storage::builder::BatchBuilder;
use storage::records::RecordsScratch;
use storage::store::{AppendError, AppendStamp, Read, ReadError};
use storage::types::{CoreId, Now, Offset};
use storage::walk::output_bytes_max;

use crate::calls::Origin;
use crate::controller::METADATA_PARTITION;
use crate::group::{
    Append, AppendFailure, GroupCall, GroupConfig, GroupCoordinator, ReplyToken, Ticket,
};
use crate::ids::{KeyMap, OwnMap};
use crate::limits::GROUP_LOAD_BYTES;
use crate::mesh::{Answer, PartitionRef};
use crate::metadata::OFFSETS_TOPIC;
use crate::partition::{Unacked, Waiter};
use crate::reading::Ticketed;
use crate::shard::{Shard, ShardConfig};

/// What a batch and a record add to key and value, at most, in bytes.
const BATCH_OVERHEAD_BYTES: usize = 128;

/// The machine and what stands between it and its log.
pub(crate) struct Coordinator {
    groups: GroupCoordinator,
    callers: KeyMap<Origin>,
    logs: OwnMap<i32, GroupLog>,
}

/// One partition of the offsets topic.
#[derive(Debug)]
struct GroupLog {
    name: PartitionRef,
    /// Where the load goes on; `None`: loaded.
    load: Option<Offset>,
    /// Appended, not yet durable.
    appended: VecDeque<(Ticket, Offset)>,
    /// Not yet appended: the store had no room.
    waiting: VecDeque<Append>,
}

impl Coordinator {
    pub(crate) fn new(core: CoreId, config: &ShardConfig) -> Coordinator {
        let broker = &config.broker;
        let group_config = GroupConfig {
            partition_count: broker.offsets_topic_partitions,
            session_timeout_ms_min: broker.group_session_timeout_ms_min,
            session_timeout_ms_max: broker.group_session_timeout_ms_max,
            initial_rebalance_delay_ms: i64::from(broker.group_initial_rebalance_delay_ms),
            size_max: usize::try_from(broker.group_members_max).unwrap_or(0),
            offset_metadata_max: usize::try_from(broker.offset_metadata_bytes_max).unwrap_or(0),
            offsets_retention_ms: broker.offsets_retention_ms,
            offsets_retention_check_ms: broker.offsets_retention_check_interval_ms,
            record_bytes_max: usize::try_from(broker.topic_defaults.message_bytes_max)
                .unwrap_or(0)
                .saturating_sub(BATCH_OVERHEAD_BYTES),
        };
        Coordinator {
            groups: GroupCoordinator::new(group_config, [config.seed, u64::from(core.0)]),
            callers: KeyMap::default(),
            logs: OwnMap::default(),
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.groups.next_deadline()
    }
}

impl Shard {
    /// Serves a call for a group.
    pub(crate) fn serve_group(&mut self, now: Now, origin: Origin, call: GroupCall) {
        let token = self.keys.next();
        self.coordinator.callers.insert(token, origin);
        self.coordinator.groups.handle(now, ReplyToken(token), call);
        self.pump_groups(now);
    }

    /// Does what time demands of groups.
    pub(crate) fn tick_groups(&mut self, now: Now) {
        let due = self.coordinator.next_deadline();
        if due.is_some_and(|due_us| due_us <= now.monotonic_us) {
            self.coordinator.groups.tick(now);
            self.pump_groups(now);
        }
    }

    /// The broker stops: joins and syncs that wait for other members are answered.
    pub(crate) fn stop_groups(&mut self, now: Now) {
        self.coordinator.groups.begin_shutdown();
        self.pump_groups(now);
    }

    fn pump_groups(&mut self, now: Now) {
        while let Some(append) = self.coordinator.groups.poll_append() {
            let partition = append.ticket.partition;
            match self.coordinator.logs.get_mut(&partition) {
                Some(log) => {
                    log.waiting.push_back(append);
                    self.append_groups_log(now, partition);
                }
                None => {
                    let lost = Err(AppendFailure::Storage);
                    self.coordinator.groups.on_appended(append.ticket, lost);
                }
            }
        }
        while let Some((token, answer)) = self.coordinator.groups.poll_reply() {
            if let Some(origin) = self.coordinator.callers.remove(&token.0) {
                self.answer(now, origin, Answer::Group(Box::new(answer)));
            }
        }
    }

    /// Appends what waits for one partition of the offsets topic.
    fn append_groups_log(&mut self, now: Now, partition: i32) {
        while let Some(log) = self.coordinator.logs.get_mut(&partition)
            && let Some(append) = log.waiting.pop_front()
        {
            let name = log.name;
            let mut builder = BatchBuilder::new(Compression::None);
            for record in &append.records {
                builder.push(now.wall_ms, Some(&record.key), record.value.as_deref());
            }
            let outcome = self.append_internal(now, name, &builder.build());
            let Some(log) = self.coordinator.logs.get_mut(&partition) else {
                return;
            };
            match outcome {
                Ok(offset_end) => log.appended.push_back((append.ticket, offset_end)),
                Err(AppendError::Busy | AppendError::NotReady) => {
                    log.waiting.push_front(append);
                    return;
                }
                Err(AppendError::DiskFull | AppendError::Malformed) => {
                    let refused = Err(AppendFailure::Unavailable);
                    self.coordinator.groups.on_appended(append.ticket, refused);
                    // What is in memory may go beyond the log: it is read again.
                    self.reload_groups(now, partition);
                    return;
                }
                Err(AppendError::Offline) => {
                    let lost = Err(AppendFailure::Storage);
                    self.coordinator.groups.on_appended(append.ticket, lost);
                    return;
                }
            }
        }
    }

    /// Appends a batch of the broker's own to a partition of this core.
    fn append_internal(
        &mut self,
        now: Now,
        name: PartitionRef,
        batch: &[u8],
    ) -> Result<Offset, AppendError> {
        let Some(partition) = self.partitions.get_mut(&name) else {
            return Err(AppendError::Offline);
        };
        let stamp = AppendStamp {
            leader_epoch: partition.leader_epoch,
            log_append_time_ms: None,
        };
        let appended = self.store.append(now, partition.log, batch, stamp)?;
        partition.unacked.push_back(Unacked {
            offset_end: appended.offset_end.0,
            base_offset: appended.base_offset.0,
            log_append_time_ms: -1,
            bytes: batch.len(),
            waiter: Waiter::Nobody,
        });
        Ok(appended.offset_end)
    }

    /// Tries again to append what found no room.
    pub(crate) fn retry_groups(&mut self, now: Now) {
        let waiting: Vec<i32> = self
            .coordinator
            .logs
            .iter()
            .filter(|(_, log)| !log.waiting.is_empty())
            .map(|(partition, _)| *partition)
            .collect();
        for partition in waiting {
            self.append_groups_log(now, partition);
        }
        self.pump_groups(now);
    }

    /// A partition of this core can be read, and takes appends if `created`.
    pub(crate) fn on_partition_opened(&mut self, now: Now, name: PartitionRef, created: bool) {
        if name == METADATA_PARTITION {
            self.on_metadata_log_open(now);
        } else if created && self.is_offsets_partition(name) && self.ready_told {
            self.load_group_log(now, name);
        }
    }

    fn is_offsets_partition(&self, name: PartitionRef) -> bool {
        self.image
            .topic(OFFSETS_TOPIC)
            .is_some_and(|topic| topic.id == name.topic_id)
    }

    /// At the start: every group of this core is read back.
    pub(crate) fn load_groups(&mut self, now: Now) {
        let names: Vec<PartitionRef> = self
            .partitions
            .names()
            .filter(|name| self.is_offsets_partition(**name))
            .copied()
            .collect();
        for name in names {
            self.load_group_log(now, name);
        }
    }

    fn load_group_log(&mut self, now: Now, name: PartitionRef) {
        let Some(log) = self.partitions.get(&name).map(|partition| partition.log) else {
            return;
        };
        let begin = self.store.log_start(log).unwrap_or_default();
        self.coordinator.logs.insert(
            name.partition,
            GroupLog {
                name,
                load: Some(begin),
                appended: VecDeque::new(),
                waiting: VecDeque::new(),
            },
        );
        if let Some(topic) = self.image.topic(OFFSETS_TOPIC) {
            let count = topic.partition_count();
            self.coordinator.groups.set_partition_count(count);
        }
        self.coordinator.groups.begin_load(name.partition);
        self.go_on_loading(now, name);
    }

    /// Reads a partition again after an append failed; what was appended before it is waited for.
    fn reload_groups(&mut self, now: Now, partition: i32) {
        let Some(log) = self.coordinator.logs.get_mut(&partition) else {
            return;
        };
        let name = log.name;
        for append in std::mem::take(&mut log.waiting) {
            let refused = Err(AppendFailure::Unavailable);
            self.coordinator.groups.on_appended(append.ticket, refused);
        }
        let Some(store_log) = self.partitions.get(&name).map(|partition| partition.log) else {
            return;
        };
        let begin = self.store.log_start(store_log).unwrap_or_default();
        if let Some(log) = self.coordinator.logs.get_mut(&partition) {
            log.load = Some(begin);
        }
        self.coordinator.groups.begin_load(partition);
        self.go_on_loading(now, name);
    }

    fn go_on_loading(&mut self, now: Now, name: PartitionRef) {
        let Some(log) = self.partitions.get(&name).map(|partition| partition.log) else {
            return;
        };
        loop {
            let Some(state) = self.coordinator.logs.get(&name.partition) else {
                return;
            };
            let Some(next) = state.load else {
                return;
            };
            let end = self.store.durable_end(log).unwrap_or_default();
            if next >= end {
                if !state.appended.is_empty() {
                    // The rest comes with the next flush.
                    return;
                }
                if let Some(state) = self.coordinator.logs.get_mut(&name.partition) {
                    state.load = None;
                }
                self.coordinator.groups.finish_load(now, name.partition);
                self.pump_groups(now);
                return;
            }
            match self.store.read(now, log, next, GROUP_LOAD_BYTES, true, end) {
                Read::Ready(views) => {
                    if !self.apply_group_log(name, &views) {
                        return;
                    }
                }
                Read::Disk(ticket) => {
                    self.tickets.insert(ticket, Ticketed::Group(name));
                    return;
                }
                Read::Err(error) => {
                    self.give_up_groups(name, &error.to_string());
                    return;
                }
            }
        }
    }

    /// A read of a group log ended.
    pub(crate) fn on_group_log_read(
        &mut self,
        now: Now,
        name: PartitionRef,
        result: Result<Vec<Shared>, ReadError>,
    ) {
        match result {
            Ok(views) => {
                if self.apply_group_log(name, &views) {
                    self.go_on_loading(now, name);
                }
            }
            Err(error) => self.give_up_groups(name, &error.to_string()),
        }
    }

    fn apply_group_log(&mut self, name: PartitionRef, views: &[Shared]) -> bool {
        let mut scratch = RecordsScratch::new();
        let mut next = None;
        for view in views {
            for batch in batch::split(view) {
                let Ok(batch) = batch else {
                    self.give_up_groups(name, "a batch cannot be read");
                    return false;
                };
                next = Some(batch.header().offset_end());
                let bound = output_bytes_max(batch.len_bytes());
                let Ok(records) = scratch.records(&batch, bound) else {
                    self.give_up_groups(name, "a batch cannot be decompressed");
                    return false;
                };
                for record in records {
                    let applied = match &record {
                        Ok(record) => record.key.is_none_or(|key| {
                            self.coordinator
                                .groups
                                .apply(name.partition, key, record.value)
                                .is_ok()
                        }),
                        Err(_) => false,
                    };
                    if !applied {
                        tracing::warn!(
                            partition = name.partition,
                            "a record of {OFFSETS_TOPIC} cannot be read; it is passed over"
                        );
                    }
                }
            }
        }
        if let Some(next) = next
            && let Some(state) = self.coordinator.logs.get_mut(&name.partition)
        {
            state.load = state.load.map(|load| load.max(next));
        }
        true
    }

    fn give_up_groups(&mut self, name: PartitionRef, why: &str) {
        tracing::error!(
            partition = name.partition,
            why,
            "groups of this partition of {OFFSETS_TOPIC} cannot be served"
        );
        self.coordinator.groups.unload(name.partition);
        self.coordinator.logs.remove(&name.partition);
    }

    /// A partition of the broker's own is durable up to here.
    pub(crate) fn on_internal_durable(&mut self, now: Now, name: PartitionRef, offset_end: Offset) {
        let Some(log) = self.coordinator.logs.get_mut(&name.partition) else {
            return;
        };
        if log.name != name {
            return;
        }
        while let Some((ticket, end)) = log.appended.front().copied()
            && end <= offset_end
        {
            log.appended.pop_front();
            self.coordinator.groups.on_appended(ticket, Ok(()));
        }
        let loading = log.load.is_some();
        self.pump_groups(now);
        if loading {
            self.go_on_loading(now, name);
        }
    }

    /// A partition is lost: its disk failed, or its topic is deleted.
    pub(crate) fn on_internal_lost(&mut self, now: Now, name: PartitionRef) {
        if self
            .coordinator
            .logs
            .get(&name.partition)
            .is_some_and(|log| log.name == name)
        {
            self.coordinator.logs.remove(&name.partition);
            self.coordinator.groups.unload(name.partition);
            self.pump_groups(now);
        }
    }

    /// A topic is deleted, and with it the offsets committed for it.
    pub(crate) fn forget_topic_offsets(
        &mut self,
        now: Now,
        topic: &str,
        topic_id: storage::types::TopicId,
    ) {
        self.coordinator.groups.on_topic_deleted(topic, topic_id);
        self.pump_groups(now);
    }
}
