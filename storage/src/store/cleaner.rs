//! When which log is compacted, and how the result takes its place: journaled, then renamed, then
//! known. Part of a core's store; reads no record.

use std::io;

use crate::checkpoint::{Out, put_replacement};
use crate::clean_task::{CleanJob, CleanOutcome, cleaned_paths, swap_work};
use crate::journal::EntryKind;
use crate::segment::Segment;
use crate::tasks::{FileWork, FilesWhy, Job};
use crate::types::Now;

use super::Store;
use super::api::LogId;
use super::partition::{LogState, PartitionLog};
use super::reads::index_bounds;

/// Closed segments of a log, as far as they may be compacted now: how many, and how many of their
/// bytes are dirty and clean.
fn cleanable(partition: &PartitionLog, now_ms: i64) -> (usize, u64, u64) {
    let config = &partition.config;
    let (mut count, mut dirty, mut clean) = (0, 0, 0);
    for segment in &partition.segments {
        let image = &segment.image;
        let newest_ms = if image.max_timestamp_ms >= 0 {
            image.max_timestamp_ms
        } else {
            image.created_ms
        };
        let lagging = config.min_compaction_lag_ms > 0
            && now_ms.saturating_sub(newest_ms) < config.min_compaction_lag_ms;
        if !image.finished || (image.offset_end > partition.compacted_end && lagging) {
            break;
        }
        count += 1;
        if image.offset_end > partition.compacted_end {
            dirty += image.length_bytes;
        } else {
            clean += image.length_bytes;
        }
    }
    (count, dirty, clean)
}

/// Whether the oldest record that was not compacted has waited for max.compaction.lag.ms.
fn must_compact(partition: &PartitionLog, now_ms: i64) -> bool {
    let oldest = partition
        .segments
        .iter()
        .find(|segment| segment.image.offset_end > partition.compacted_end)
        .map_or(-1, |segment| segment.image.first_timestamp_ms);
    oldest >= 0 && now_ms.saturating_sub(oldest) > partition.config.max_compaction_lag_ms
}

impl Store {
    /// Starts compacting the dirtiest log that is due, if none is being compacted.
    pub(super) fn poll_cleaner(&mut self, now: Now) {
        if self.cleaning || self.shutting_down || now.monotonic_us < self.due.cleaner_us {
            return;
        }
        let mut best: Option<(f64, LogId, usize)> = None;
        let mut roll = Vec::new();
        for (index, partition) in self.logs.iter().enumerate() {
            let Some(partition) = partition else { continue };
            let log = LogId(index as u32);
            let able = partition.configured
                && partition.config.cleanup_compact
                && partition.state == LogState::Live
                && partition.replacements.is_empty()
                && !self.dirs[partition.dir].offline;
            if !able {
                continue;
            }
            let (count, dirty, clean) = cleanable(partition, now.wall_ms);
            let forced = must_compact(partition, now.wall_ms);
            if dirty == 0 {
                // What must be compacted and lies in the active segment is closed first.
                if forced && partition.active().image.length_bytes > 0 {
                    roll.push(log);
                }
                continue;
            }
            let ratio = dirty as f64 / (dirty + clean) as f64;
            let due = forced || ratio > partition.config.min_cleanable_dirty_ratio;
            if due && best.is_none_or(|(most, ..)| ratio > most) {
                best = Some((ratio, log, count));
            }
        }
        for log in roll {
            self.close_active(now, log);
        }
        let Some((_, log, count)) = best else {
            self.due.cleaner_us = self.cleaner_due_us(now);
            return;
        };
        self.start_cleaning(now, log, count);
    }

    /// When to look again, in monotonic microseconds.
    fn cleaner_due_us(&self, now: Now) -> u64 {
        let backoff_us = self.config.cleaner_backoff_ms.saturating_mul(1_000);
        now.monotonic_us.saturating_add(backoff_us)
    }

    fn start_cleaning(&mut self, now: Now, log: LogId, count: usize) {
        let refs: Vec<_> = (0..count)
            .map(|index| self.segment_ref(log, index))
            .collect();
        let memory_bytes = self.config.cleaner_memory_bytes;
        let partition = self.log_mut(log).expect("chosen above");
        let images = partition
            .segments
            .iter()
            .map(|segment| segment.image.clone());
        let generation = 1 + partition
            .segments
            .iter()
            .map(|segment| segment.image.generation)
            .max()
            .unwrap_or(0);
        let job = CleanJob {
            log,
            dir: std::rc::Rc::clone(&partition.path),
            segments: refs.into_iter().zip(images).collect(),
            dirty_from: partition.compacted_end.max(partition.log_start),
            segment_bytes: partition.config.segment_bytes,
            index: index_bounds(&partition.config),
            memory_bytes,
            delete_retention_ms: partition.config.delete_retention_ms,
            now_ms: now.wall_ms,
            generation,
            producers: partition.producers.clone(),
        };
        partition.compacting = true;
        self.cleaning = true;
        self.spawn(Job::Compact(Box::new(job)));
    }

    /// New segments are written and flushed: the journal is told before they take their place.
    pub(super) fn on_compacted(&mut self, now: Now, outcome: CleanOutcome) {
        self.cleaning = false;
        let log = outcome.log;
        if self.was_deleted(log) {
            return;
        }
        let partition = self.log_mut(log).expect("not deleted");
        partition.compacting = false;
        let path = std::rc::Rc::clone(&partition.path);
        let (replacements, compacted_end) = match outcome.result {
            Ok(done) => done,
            Err(error) => {
                tracing::warn!(partition = %partition.key.dir_name(), %error, "compaction gave up");
                self.due.cleaner_us = self.cleaner_due_us(now);
                return;
            }
        };
        if partition.state != LogState::Live {
            // The whole directory is going.
            return;
        }
        if replacements.is_empty() {
            partition.compacted_end = partition.compacted_end.max(compacted_end);
            self.due.cleaner_us = self.cleaner_due_us(now);
            return;
        }
        let current = replacements.iter().all(|replacement| {
            replacement
                .removed
                .iter()
                .all(|base| partition.segment_at(*base).is_some())
        });
        if !current {
            // Retention was quicker: the new files go.
            let work = replacements
                .iter()
                .map(|replacement| &replacement.added)
                .flat_map(|added| cleaned_paths(&path, added.base, added.generation).into_all())
                .map(FileWork::Remove)
                .collect();
            self.spawn_cleanup(log, work);
            return;
        }
        partition.replacements.extend(replacements.iter().cloned());
        for replacement in &replacements {
            let mut out = Out::default();
            put_replacement(&mut out, replacement);
            self.add_control(log, EntryKind::Replaced, &out.0, |_| {});
        }
    }

    /// A replacement is durable in the journal; when all of a round are, files are renamed.
    pub(super) fn start_swap(&mut self, log: LogId) {
        let partition = self.log_mut(log).expect("looked at by the caller");
        partition.swaps_durable += 1;
        if partition.swaps_durable < partition.replacements.len() {
            return;
        }
        self.try_swap(log);
    }

    /// Renames, unless the log's files (or index files) are being written: then after that.
    pub(super) fn try_swap(&mut self, log: LogId) {
        let Some(partition) = self.log_mut(log) else {
            return;
        };
        let ready = !partition.replacements.is_empty()
            && partition.swaps_durable == partition.replacements.len();
        if !ready || partition.busy || partition.indexing {
            return;
        }
        partition.busy = true;
        partition.swapping = true;
        let work = partition
            .replacements
            .iter()
            .flat_map(|replacement| swap_work(&partition.path, replacement))
            .collect();
        let dir = partition.dir;
        self.spawn(Job::Files {
            dir,
            why: FilesWhy::Swap(log),
            work,
        });
    }

    pub(super) fn on_swapped(&mut self, now: Now, dir: usize, log: LogId, result: io::Result<()>) {
        if self.was_deleted(log) {
            return;
        }
        let partition = self.log_mut(log).expect("not deleted");
        partition.busy = false;
        partition.swapping = false;
        if let Err(error) = result {
            self.fail_dir(
                dir,
                format!("compacted segments cannot be put in place: {error}"),
            );
            return;
        }
        let replacements = std::mem::take(&mut partition.replacements);
        partition.swaps_durable = 0;
        let mut removed = 0;
        for replacement in replacements {
            let at = partition
                .segments
                .iter()
                .position(|segment| replacement.removed.contains(&segment.base()))
                .expect("nothing is dropped while a swap is on its way");
            partition
                .segments
                .retain(|segment| !replacement.removed.contains(&segment.base()));
            removed += replacement.removed.len() as u64;
            partition.compacted_end = partition.compacted_end.max(replacement.compacted_end);
            partition
                .segments
                .insert(at, Segment::from_image(replacement.added));
        }
        self.counters.segments_deleted += removed;
        self.counters.compactions += 1;
        self.dirs[dir].checkpoints.changed = true;
        self.drop_segments(now, log);
        self.want_write_back(log, false);
    }
}
