//! How a store begins: what recovery found goes into this start's own journal and checkpoint before
//! the store serves. Part of a core's store.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use crate::journal::{Entry, EntryKind, Journal};
use crate::recovery::{CoreImage, PartitionImage};
use crate::segment::Segment;
use crate::space::DirSpace;
use crate::tasks::{FilesWhy, Job};
use crate::types::{Now, Offset};

use super::api::{LogId, StoreConfig, StoreCounters};
use super::maintain::drop_files;
use super::partition::{LogState, PartitionLog};
use super::{Dir, Store};

impl Store {
    /// A store with the logs of `image`. It serves after [`Notice::Ready`](super::Notice::Ready).
    ///
    /// # Panics
    /// If the image is not of this core and these directories.
    pub fn new(config: StoreConfig, image: CoreImage) -> Store {
        assert_eq!(image.core, config.core, "an image of another core");
        assert_eq!(image.dirs.len(), config.dirs.len(), "other log directories");
        let dirs = config
            .dirs
            .iter()
            .map(|path| Dir {
                path: path.clone(),
                offline: false,
                journal: Journal::new(
                    path,
                    config.epoch,
                    config.core,
                    config.journal_salt,
                    config.journal_file_bytes,
                    config.journal_files_max,
                ),
                sealed: VecDeque::new(),
                straights: Vec::new(),
                straight_bytes: 0,
                straight_arena: None,
                cache: Default::default(),
                flush_due_us: None,
                gathered_due_us: None,
                flushing: false,
                flushes: Default::default(),
                checkpoints: Default::default(),
                space: DirSpace::new(path, config.core, config.reserve_bytes),
                journal_starved: false,
                deletions: Vec::new(),
                deleting: Vec::new(),
                renaming: HashMap::new(),
                waits_for_room: false,
                first_in_line: None,
                partitions: 0,
                start_sequence: 0,
                ready: false,
                settled: false,
            })
            .collect();
        let mut store = Store {
            config,
            dirs,
            logs: Vec::new(),
            by_key: BTreeMap::new(),
            actions: VecDeque::new(),
            notices: VecDeque::new(),
            writes: HashMap::new(),
            next_token: 0,
            next_ticket: 0,
            next_incarnation: 0,
            counters: StoreCounters::default(),
            dirty_bytes: 0,
            clean_bytes: 0,
            waits_for_room: false,
            look_for_room: false,
            write_back: Default::default(),
            reads: Default::default(),
            indexes: Default::default(),
            ready: false,
            shutting_down: false,
            settled: false,
            tasks_running: 0,
            due: Default::default(),
            cleaning: false,
        };
        for (dir, image) in image.dirs.into_iter().enumerate() {
            store.dirs[dir].deletions = image.deletions;
            for partition in image.partitions {
                store.carry(dir, partition);
            }
            store.seal(dir);
            let state = &mut store.dirs[dir];
            state.start_sequence = state.journal.next_sequence() - 1;
            if let Some(why) = image.offline {
                store.fail_dir(dir, why);
                continue;
            }
            store.poll_first_file(dir);
            store.poll_space(Now::default(), dir);
        }
        store
    }

    /// The first journal file is made even if nothing waits for it: it takes longer than an append.
    fn poll_first_file(&mut self, dir: usize) {
        self.poll_journal_need(dir);
    }

    /// Takes over a recovered log; its dirty batches go into this start's journal.
    fn carry(&mut self, dir: usize, image: PartitionImage) {
        let log = LogId(self.logs.len() as u32);
        let record = image.record;
        let path = self.dirs[dir].path.clone();
        let mut partition = PartitionLog::new(
            record.key,
            dir,
            &path,
            record.incarnation,
            Arc::default(),
            0,
        );
        partition.configured = false;
        partition.state = LogState::Live;
        partition.segments = record
            .segments
            .into_iter()
            .map(Segment::from_image)
            .collect();
        let end = partition.active().image.offset_end;
        partition.log_start = record.log_start;
        partition.log_end = end.max(record.log_start);
        partition.durable_end = partition.log_end;
        partition.compacted_end = record.compacted_end;
        partition.epochs = record.epochs;
        partition.producers = record.producers;
        let mut work = Vec::new();
        for base in image.dropped {
            drop_files(
                &partition,
                base,
                0,
                &mut work,
                &mut self.dirs[dir].deletions,
            );
        }
        let entry = Entry {
            kind: EntryKind::Carried,
            topic_id: partition.key.topic_id,
            partition: partition.key.partition,
            incarnation: partition.incarnation,
            segment_base: Offset(0),
            position: 0,
            base_offset: Offset(0),
            offset_end: Offset(0),
            value: 0,
        };
        self.by_key
            .insert((partition.key.topic_id, partition.key.partition), log);
        self.dirs[dir].partitions += 1;
        let active_base = partition.active().base();
        let from = partition.active().write_from();
        self.logs.push(Some(Box::new(partition)));
        if !work.is_empty() {
            self.spawn(Job::Files {
                dir,
                why: FilesWhy::Cleanup(None),
                work,
            });
        }
        if let Some(head) = image.head {
            let sequence = self.add_control(log, EntryKind::TailBlock, &head, |entry| {
                entry.segment_base = active_base;
                entry.position = from;
            });
            let partition = self.log_mut(log).expect("just made");
            let active = partition.active_mut();
            active.head = Some(Rc::new(head));
            active.head_sequence = Some(sequence);
        }
        for dirty in image.dirty {
            let entry = Entry {
                segment_base: dirty.segment_base,
                position: dirty.position,
                base_offset: dirty.base_offset,
                offset_end: dirty.offset_end,
                ..entry
            };
            let bytes = dirty.bytes();
            let (_, sealed) = self.dirs[dir]
                .journal
                .add(log, entry, bytes.len(), true, |out| {
                    out.copy_from_slice(bytes);
                });
            let partition = self.log_mut(log).expect("just made");
            partition.dirty_bytes += bytes.len() as u64;
            self.dirty_bytes += bytes.len() as u64;
            self.dirs[dir].space.on_dirty(bytes.len() as u64);
            if let Some(sealed) = sealed {
                self.on_sealed(dir, sealed);
            }
        }
    }
}
