//! Appending: admission, rolling, and the one copy of a batch into the journal. Part of a core's
//! store; knows no validation of records and no replication.

use xxhash_rust::xxh3::xxh3_64;

use crate::batch::{self, BatchHeader, BatchView, LENGTH_OVERHEAD_BYTES, TimestampType};
use crate::index::SegmentIndex;
use crate::journal::{Entry, EntryKind};
use crate::segment::{RELATIVE_OFFSET_MAX, Segment, SegmentImage};
use crate::types::{Now, Offset};

use super::Store;
use super::api::{AppendError, AppendStamp, Appended, LogConfig, LogId};
use super::partition::{LogState, PartitionLog};

impl Store {
    /// Appends one whole batch that the caller has validated: it gets the next offset and is copied
    /// once, into the journal's buffer, where offset and leader epoch (and, if asked, LogAppendTime
    /// with a new CRC) are stamped. Durable later: [`Notice::Durable`](super::Notice::Durable).
    ///
    /// # Errors
    /// See [`AppendError`]; nothing is taken then.
    pub fn append(
        &mut self,
        now: Now,
        log: LogId,
        bytes: &[u8],
        stamp: AppendStamp,
    ) -> Result<Appended, AppendError> {
        self.append_as(now, log, bytes, stamp, false)
    }

    /// As [`Store::append`], for what must be written on a full disk too, because it is how room is
    /// made there: changes of metadata. It is small, and a part of the reserve is kept for it.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing is taken then.
    pub fn append_essential(
        &mut self,
        now: Now,
        log: LogId,
        bytes: &[u8],
        stamp: AppendStamp,
    ) -> Result<Appended, AppendError> {
        self.append_as(now, log, bytes, stamp, true)
    }

    fn append_as(
        &mut self,
        now: Now,
        log: LogId,
        bytes: &[u8],
        stamp: AppendStamp,
        essential: bool,
    ) -> Result<Appended, AppendError> {
        let view = BatchView::new(bytes).map_err(|_| AppendError::Malformed)?;
        let header = view.header();
        // What is stamped into the copy is noted from here: reading back what was just written stalls.
        let mut stamped = *header;
        let records = i64::from(header.last_offset_delta()) + 1;
        if records <= 0 {
            return Err(AppendError::Malformed);
        }
        let dir = self.admit(log, bytes.len() as u64, essential)?;
        let partition = self.log(log).expect("admitted");
        if should_roll(partition, now, bytes.len() as u64, header) {
            self.close_active(now, log);
        }
        let straight = self.goes_straight(now, log, bytes.len() as u64);

        let partition = self.logs[log.0 as usize].as_deref_mut().expect("admitted");
        let base_offset = partition.log_end;
        let offset_end = Offset(base_offset.0 + records);
        let log_append_time_ms = stamp
            .log_append_time_ms
            .map(|time| time.max(partition.last_append_time_ms));
        let active = partition.segments.back_mut().expect("a log has a segment");
        let position = active.image.length_bytes;
        let entry = Entry {
            kind: EntryKind::Append,
            topic_id: partition.key.topic_id,
            partition: partition.key.partition,
            incarnation: partition.incarnation,
            segment_base: active.base(),
            position,
            base_offset,
            offset_end,
            value: now.wall_ms,
        };
        let sync = partition.config.flush_messages <= 1;
        let flush_ms = partition.config.flush_ms.unwrap_or(1_000).max(0) as u64;
        let flush_due_us = (!sync).then(|| {
            now.monotonic_us
                .saturating_add(flush_ms.saturating_mul(1_000))
        });
        let interval_bytes = partition.config.index_interval_bytes;
        let (epochs, producers) = (&mut partition.epochs, &mut partition.producers);
        stamped.base_offset.set(base_offset.0);
        stamped.partition_leader_epoch.set(stamp.leader_epoch.0);
        let mut fill = |out: &mut [u8]| {
            out.copy_from_slice(bytes);
            batch::stamp(out, base_offset, stamp.leader_epoch);
            if let Some(time) = log_append_time_ms {
                batch::rewrite_timestamps(out, TimestampType::LogAppendTime, time);
                stamped = *BatchHeader::ref_from_prefix(out).expect("a whole batch");
            }
            note_append(active, position, &stamped, interval_bytes);
            epochs.assign(stamp.leader_epoch, base_offset);
            producers.apply(&stamped, base_offset, now.wall_ms);
        };
        let sealed = if straight {
            let open = partition.straight.as_deref_mut().expect("it goes straight");
            fill(open.place(position, bytes.len(), base_offset, offset_end));
            open.flush_by(flush_due_us);
            self.dirs[dir].straight_bytes += bytes.len() as u64;
            None
        } else {
            let journal = &mut self.dirs[dir].journal;
            let (sequence, sealed) = journal.add(log, entry, bytes.len(), sync, fill);
            partition.gathering.is_in(sequence);
            sealed
        };

        partition.log_end = offset_end;
        partition.last_append_us = now.monotonic_us;
        if let Some(time) = log_append_time_ms {
            partition.last_append_time_ms = time;
        }
        partition.dirty_bytes += bytes.len() as u64;
        self.dirty_bytes += bytes.len() as u64;
        self.counters.appended_batches += 1;
        self.counters.appended_bytes += bytes.len() as u64;
        let dir_state = &mut self.dirs[dir];
        dir_state.space.on_dirty(bytes.len() as u64);
        dir_state.checkpoints.changed = true;
        if let Some(sealed) = sealed {
            self.on_sealed(dir, sealed);
        }
        if !straight {
            self.dirs[dir].flush_by(flush_due_us);
        }
        Ok(Appended {
            base_offset,
            offset_end,
            log_append_time_ms,
        })
    }

    /// Whether `bytes` may be appended to a log now; its directory if so.
    fn admit(&mut self, log: LogId, bytes: u64, essential: bool) -> Result<usize, AppendError> {
        let partition = self.log(log).ok_or(AppendError::NotReady)?;
        if partition.state != LogState::Live {
            return Err(AppendError::NotReady);
        }
        let dir = partition.dir;
        let state = &self.dirs[dir];
        if state.offline {
            return Err(AppendError::Offline);
        }
        if state.space.is_full() && !essential {
            return Err(AppendError::DiskFull);
        }
        let space = essential || state.space.admits(bytes);
        self.wait_in_line(log, dir, bytes, essential, space)?;
        Ok(dir)
    }

    /// Closes the active segment and begins the next. Its file is finished once this is durable.
    pub(super) fn close_active(&mut self, now: Now, log: LogId) {
        self.end_straight(log);
        let active = self.log(log).expect("a log that rolls").active();
        let (base, length, offset_end) = (
            active.base(),
            active.image.length_bytes,
            active.image.offset_end,
        );
        let sequence = self.add_control(log, EntryKind::SegmentClosed, &[], |entry| {
            entry.segment_base = base;
            entry.position = length;
            entry.offset_end = offset_end;
            entry.value = now.wall_ms;
        });
        let partition = self.log_mut(log).expect("a log that rolls");
        let active = partition.active_mut();
        active.image.closed = true;
        active.closed_sequence = sequence;
        let mut next = Segment::from_image(SegmentImage::empty(offset_end, now.wall_ms));
        next.index = Some(SegmentIndex::new(offset_end));
        partition.segments.push_back(next);
        self.want_write_back(log, false);
    }
}

/// Moves a segment's end over a batch that carries its offsets.
pub(crate) fn note_append(
    segment: &mut Segment,
    position: u64,
    header: &BatchHeader,
    index_interval_bytes: u64,
) {
    if let Some(index) = &mut segment.index {
        index.on_batch(header, position, index_interval_bytes);
    }
    note_image(&mut segment.image, position, header);
}

/// As [`note_append`], without indexes: for recovery.
pub(crate) fn note_image(image: &mut SegmentImage, position: u64, header: &BatchHeader) {
    if image.length_bytes == 0 {
        image.first_timestamp_ms = header.max_timestamp();
    }
    image.length_bytes = position + header.batch_length() as u64 + LENGTH_OVERHEAD_BYTES as u64;
    image.offset_end = header.offset_end();
    image.max_timestamp_ms = image.max_timestamp_ms.max(header.max_timestamp());
}

/// Kafka's rules for rolling: size, time by the first batch's timestamp (or, without timestamps, since
/// the segment was made), a full index, an offset too far from the base.
fn should_roll(partition: &PartitionLog, now: Now, bytes: u64, header: &BatchHeader) -> bool {
    let active = partition.active();
    let image = &active.image;
    if image.length_bytes == 0 {
        return false;
    }
    let config = &partition.config;
    let records = i64::from(header.last_offset_delta()) + 1;
    image.length_bytes + bytes > config.segment_bytes.max(1)
        || image.length_bytes + bytes > i32::MAX as u64
        || partition.log_end.0 + records - image.base.0 > RELATIVE_OFFSET_MAX
        || expired(partition, now, header.max_timestamp())
        || active
            .index
            .as_ref()
            .is_some_and(|index| index.is_full(config.segment_index_bytes.max(16) as usize))
}

/// Whether `segment.ms`, less its jitter, has passed.
fn expired(partition: &PartitionLog, now: Now, timestamp_ms: i64) -> bool {
    let image = &partition.active().image;
    let waited = if image.first_timestamp_ms >= 0 && timestamp_ms >= 0 {
        timestamp_ms.saturating_sub(image.first_timestamp_ms)
    } else {
        now.wall_ms.saturating_sub(image.created_ms)
    };
    waited
        > partition
            .config
            .segment_ms
            .saturating_sub(jitter_ms(&partition.config, image.base))
}

/// A segment's share of `segment.jitter.ms`: the same after a restart.
fn jitter_ms(config: &LogConfig, base: Offset) -> i64 {
    let most = config.segment_jitter_ms.min(config.segment_ms);
    if most <= 0 {
        return 0;
    }
    (xxh3_64(&base.0.to_le_bytes()) % most as u64) as i64
}
