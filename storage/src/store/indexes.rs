//! Which closed segments still need their index files written, and when: those that were begun before
//! this start, of whose first part no index is in memory, and those whose files turned out to be
//! missing. Part of a core's store; reads no segment.

use std::collections::VecDeque;

use crate::index::SegmentIndex;
use crate::index_task::{IndexJob, IndexOutcome};
use crate::tasks::Job;
use crate::types::{Now, Offset};

use super::Store;
use super::api::LogId;

/// Index files to be written, one segment at a time.
#[derive(Default)]
pub(super) struct Indexes {
    wanted: VecDeque<Wanted>,
    running: bool,
}

struct Wanted {
    log: LogId,
    base: Offset,
    generation: u64,
    /// Whether the whole index was built by who missed it, and is in memory.
    built: bool,
}

impl Indexes {
    pub(super) fn want(&mut self, log: LogId, base: Offset, generation: u64, built: bool) {
        let known = self
            .wanted
            .iter()
            .any(|w| (w.log, w.base, w.generation) == (log, base, generation));
        if !known {
            self.wanted.push_back(Wanted {
                log,
                base,
                generation,
                built,
            });
        }
    }
}

impl Store {
    /// Starts writing the next index files. Nothing waits for them: a stop leaves them to whoever
    /// misses them.
    pub(super) fn poll_indexes(&mut self) {
        while !self.indexes.running && self.ready && !self.shutting_down {
            let Some(wanted) = self.indexes.wanted.pop_front() else {
                return;
            };
            if let Some(job) = self.index_job(&wanted) {
                let partition = self.log_mut(wanted.log).expect("just seen");
                partition.indexing = true;
                self.indexes.running = true;
                self.counters.indexes_rebuilt += 1;
                self.spawn(Job::Index(Box::new(job)));
            }
        }
    }

    /// `None` if the segment is no longer what it was, or about to go.
    fn index_job(&self, wanted: &Wanted) -> Option<IndexJob> {
        let partition = self.log(wanted.log)?;
        let index = partition.segment_at(wanted.base)?;
        let segment = &partition.segments[index];
        let going = partition
            .replacements
            .iter()
            .any(|replacement| replacement.removed.contains(&wanted.base));
        let image = &segment.image;
        if going
            || !image.finished
            || image.generation != wanted.generation
            || self.dirs[partition.dir].offline
        {
            return None;
        }
        let mut segment_ref = self.segment_ref(wanted.log, index);
        let known;
        (segment_ref.end, known) = if wanted.built {
            (0, Some(segment.earlier.clone()?))
        } else {
            (segment.index_from, segment.index.clone())
        };
        Some(IndexJob {
            segment: segment_ref,
            known,
        })
    }

    pub(super) fn on_indexed(&mut self, now: Now, outcome: IndexOutcome) {
        self.indexes.running = false;
        let log = outcome.log;
        if self.was_deleted(log) {
            return;
        }
        let partition = self.log_mut(log).expect("not deleted");
        partition.indexing = false;
        let name = partition.key.dir_name();
        if let Some(index) = partition.segment_at(outcome.base)
            && partition.segments[index].image.generation == outcome.generation
        {
            let segment = &mut partition.segments[index];
            match outcome.result {
                // The files say it from now on.
                Ok(()) => (segment.index, segment.earlier) = (None, None),
                Err(error) => {
                    tracing::warn!(partition = %name, base = %outcome.base, %error, "index files were not written");
                }
            }
        }
        self.try_swap(log);
        self.drop_segments(now, log);
    }

    /// Somebody missed index files and has built what should be in them. Whether that is still of
    /// use is seen here.
    pub(super) fn note_built_index(
        &mut self,
        log: LogId,
        base: Offset,
        generation: u64,
        built: SegmentIndex,
    ) {
        let Some(partition) = self.log_mut(log) else {
            return;
        };
        // While files are renamed nobody can say whose contents were read.
        if partition.swapping {
            return;
        }
        let Some(index) = partition.segment_at(base) else {
            return;
        };
        let segment = &mut partition.segments[index];
        if segment.image.generation != generation {
            return;
        }
        segment.earlier = Some(built);
        if segment.image.finished {
            self.indexes.want(log, base, generation, true);
        }
    }
}
