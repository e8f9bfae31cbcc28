//! The metadata controller: decides changes one after another, writes them to its own log, and tells all
//! cores when they are durable. Lives on the first core; the machine behind it (`metadata`) knows
//! neither log nor cores.

use std::collections::VecDeque;
use std::sync::Arc;

use net::kafka::error::ErrorCode;
use storage::batch::Compression;
use storage::builder::BatchBuilder;
use storage::store::{AppendError, AppendStamp, LogConfig, LogId, PartitionKey};
use storage::types::{CoreId, LeaderEpoch, Now, Offset};

use crate::calls::Origin;
use crate::mesh::{Answer, MeshMessage, PartitionRef};
use crate::metadata::{
    METADATA_TOPIC, METADATA_TOPIC_ID, MetadataCommand, MetadataImage, MetadataRecord,
    MetadataReply,
};
use crate::shard::Shard;

/// The partition that holds the metadata.
pub(crate) const METADATA_PARTITION: PartitionRef = PartitionRef {
    topic_id: METADATA_TOPIC_ID,
    partition: 0,
};

/// State of the controller.
#[derive(Debug)]
pub struct Controller {
    /// The metadata with every decision in it, also those that are not durable yet: decisions chain.
    image: MetadataImage,
    log: LogId,
    open: bool,
    version: u64,
    changes: VecDeque<Change>,
    waiting: VecDeque<(Origin, MetadataCommand)>,
}

/// Decisions on their way to all cores.
#[derive(Debug)]
struct Change {
    version: u64,
    offset_end: i64,
    records: Arc<Vec<MetadataRecord>>,
    told: bool,
    cores_missing: u16,
    replies: Vec<(Origin, MetadataReply)>,
}

impl Shard {
    /// Opens the controller and its log.
    pub(crate) fn open_metadata_log(&mut self, now: Now) {
        let config = LogConfig {
            cleanup_delete: false,
            cleanup_compact: true,
            retention_ms: None,
            segment_bytes: 16 << 20,
            ..LogConfig::default()
        };
        let found = self.store.find(METADATA_TOPIC_ID, 0);
        let log = match found {
            Some(log) => {
                self.store.set_config(now, log, config);
                log
            }
            None => {
                let key = PartitionKey {
                    topic_id: METADATA_TOPIC_ID,
                    topic: METADATA_TOPIC.to_owned(),
                    partition: 0,
                };
                self.store.create_partition(now, key, config)
            }
        };
        self.logs.insert(log, METADATA_PARTITION);
        self.controller = Some(Controller {
            image: self.image.clone(),
            log,
            open: found.is_some(),
            version: 0,
            changes: VecDeque::new(),
            waiting: VecDeque::new(),
        });
    }

    /// Decides a change.
    pub(crate) fn serve_metadata(&mut self, now: Now, origin: Origin, command: MetadataCommand) {
        let Some(controller) = &mut self.controller else {
            unreachable!("metadata is changed on the first core");
        };
        controller.waiting.push_back((origin, command));
        self.decide_metadata(now);
    }

    fn decide_metadata(&mut self, now: Now) {
        loop {
            let Some(controller) = &mut self.controller else {
                return;
            };
            if !controller.open {
                return;
            }
            let Some((origin, command)) = controller.waiting.pop_front() else {
                return;
            };
            let (records, reply) = controller.image.decide(now, &command);
            if records.is_empty() {
                // What it found may rest on a change that is still under way.
                match controller.changes.back_mut() {
                    Some(change) => change.replies.push((origin, reply)),
                    None => self.answer(now, origin, Answer::Metadata(Box::new(reply))),
                }
                continue;
            }
            let mut batch = BatchBuilder::new(Compression::None);
            for record in &records {
                let raw = record.encode();
                batch.push(now.wall_ms, Some(&raw.key), raw.value.as_deref());
            }
            let stamp = AppendStamp {
                leader_epoch: LeaderEpoch(controller.image.start_count()),
                log_append_time_ms: None,
            };
            match self
                .store
                .append_essential(now, controller.log, &batch.build(), stamp)
            {
                Ok(appended) => {
                    for record in &records {
                        controller.image.apply(record);
                    }
                    controller.version += 1;
                    controller.changes.push_back(Change {
                        version: controller.version,
                        offset_end: appended.offset_end.0,
                        records: Arc::new(records),
                        told: false,
                        cores_missing: self.config.cores,
                        replies: vec![(origin, reply)],
                    });
                }
                Err(AppendError::Busy | AppendError::NotReady) => {
                    controller.waiting.push_front((origin, command));
                    return;
                }
                Err(
                    error @ (AppendError::DiskFull | AppendError::Offline | AppendError::Malformed),
                ) => {
                    tracing::error!(%error, "the metadata log takes no change");
                    let reply = command.refusal(ErrorCode::KafkaStorageError);
                    self.answer(now, origin, Answer::Metadata(Box::new(reply)));
                }
            }
        }
    }

    /// The metadata log takes appends, perhaps again.
    pub(crate) fn on_metadata_log_open(&mut self, now: Now) {
        if let Some(controller) = &mut self.controller {
            controller.open = true;
            self.decide_metadata(now);
        }
    }

    /// The metadata log is durable up to here: all cores are told of the changes below.
    pub(crate) fn on_metadata_durable(&mut self, now: Now, offset_end: Offset) {
        let Some(controller) = &mut self.controller else {
            return;
        };
        let mut told = Vec::new();
        for change in &mut controller.changes {
            if !change.told && change.offset_end <= offset_end.0 {
                change.told = true;
                told.push((change.version, Arc::clone(&change.records)));
            }
        }
        for (version, records) in told {
            for core in (1..self.config.cores).map(CoreId) {
                let records = Arc::clone(&records);
                self.send(core, MeshMessage::Metadata { version, records });
            }
            self.apply_metadata(now, version, &records);
        }
    }

    /// If the metadata log is in a log directory that went offline: what it has not made durable never will
    /// be, as far as anybody can tell before the next start.
    pub(crate) fn on_metadata_dir_offline(&mut self, now: Now) {
        let Some(controller) = &mut self.controller else {
            return;
        };
        if !self.store.is_offline(controller.log) {
            return;
        }
        // Appends are refused from now on, so waiting commands get their answer.
        controller.open = true;
        let (told, lost): (VecDeque<Change>, VecDeque<Change>) =
            std::mem::take(&mut controller.changes)
                .into_iter()
                .partition(|change| change.told);
        controller.changes = told;
        for (origin, reply) in lost.into_iter().flat_map(|change| change.replies) {
            let reply = reply.refused(ErrorCode::KafkaStorageError);
            self.answer(now, origin, Answer::Metadata(Box::new(reply)));
        }
        self.decide_metadata(now);
    }

    /// A core has applied a change: with the last one, who asked for it is answered.
    pub(crate) fn on_metadata_applied(&mut self, now: Now, version: u64) {
        let Some(controller) = &mut self.controller else {
            return;
        };
        for change in &mut controller.changes {
            if change.version == version {
                change.cores_missing -= 1;
            }
        }
        let mut replies = Vec::new();
        while let Some(front) = controller.changes.front()
            && front.told
            && front.cores_missing == 0
            && let Some(change) = controller.changes.pop_front()
        {
            replies.extend(change.replies);
        }
        for (origin, reply) in replies {
            self.answer(now, origin, Answer::Metadata(Box::new(reply)));
        }
    }
}
