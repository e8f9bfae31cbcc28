//! Where each leadership of a partition began (KIP-101, KIP-279). Lives on the partition's core; knows
//! no file: checkpoints carry it.

use zerocopy::byteorder::big_endian::{I32, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::types::{LeaderEpoch, Offset};

/// The start of one leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Offset of the first record appended under it.
    pub start_offset: Offset,
}

/// The leaderships of one partition, oldest first; epochs and start offsets both rise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<EpochStart>,
}

impl LeaderEpochs {
    /// No leaderships.
    pub fn new() -> LeaderEpochs {
        LeaderEpochs::default()
    }

    /// All leaderships, oldest first.
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// The newest epoch under which anything was appended.
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// Notes that the batch at `start_offset` was appended under `epoch`. Later batches of the same
    /// epoch change nothing; entries that contradict it (an epoch or an offset not below) go.
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) {
        if self
            .entries
            .last()
            .is_some_and(|last| last.epoch == epoch && last.start_offset <= start_offset)
        {
            return;
        }
        while self
            .entries
            .pop_if(|last| last.epoch >= epoch || last.start_offset >= start_offset)
            .is_some()
        {}
        self.entries.push(EpochStart {
            epoch,
            start_offset,
        });
    }

    /// What OffsetForLeaderEpoch answers: the largest epoch not above `epoch`, and where it ends, which is
    /// where the next one begins. `current` is the leader's epoch: it began at `log_end` as long as
    /// nothing was appended under it, and ends at the log's end. An epoch before all known ones ends
    /// where the first known begins. None for an epoch above `current`, and for -1.
    pub fn end_offset_for(
        &self,
        epoch: LeaderEpoch,
        current: LeaderEpoch,
        log_end: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        let current = self.latest().map_or(current, |latest| latest.max(current));
        if epoch.0 < 0 || epoch > current {
            return None;
        }
        if epoch == current {
            return Some((epoch, log_end));
        }
        let later = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let end = self
            .entries
            .get(later)
            .map_or(log_end, |later| later.start_offset);
        let floor = later
            .checked_sub(1)
            .map_or(epoch, |floor| self.entries[floor].epoch);
        Some((floor, end))
    }

    /// The epoch of the record at `offset`. None before the first leadership.
    pub fn epoch_for_offset(&self, offset: Offset) -> Option<LeaderEpoch> {
        let later = self
            .entries
            .partition_point(|entry| entry.start_offset <= offset);
        Some(self.entries[later.checked_sub(1)?].epoch)
    }

    /// Drops leaderships that end at or before `log_start`; one that reaches over it starts there.
    pub fn truncate_before(&mut self, log_start: Offset) {
        let reached = self
            .entries
            .partition_point(|entry| entry.start_offset <= log_start);
        if let Some(over) = reached.checked_sub(1) {
            self.entries.drain(..over);
            self.entries[0].start_offset = log_start;
        }
    }

    /// Drops leaderships that begin at or after `offset_end`.
    pub fn truncate_from(&mut self, offset_end: Offset) {
        while self
            .entries
            .pop_if(|last| last.start_offset >= offset_end)
            .is_some()
        {}
    }

    /// Appends a snapshot. Its integrity is for the checkpoint around it to keep.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let count = u32::try_from(self.entries.len()).expect("fewer than 2^32 epochs");
        out.extend_from_slice(&count.to_be_bytes());
        for entry in &self.entries {
            let fields = EntryFields {
                epoch: I32::new(entry.epoch.0),
                start_offset: I64::new(entry.start_offset.0),
            };
            out.extend_from_slice(fields.as_bytes());
        }
    }

    /// Reads a snapshot from the front of `bytes` and returns it with the rest. None if it is not one.
    pub fn decode(bytes: &[u8]) -> Option<(LeaderEpochs, &[u8])> {
        let (count, rest) = U32::read_from_prefix(bytes).ok()?;
        let count = usize::try_from(count.get()).ok()?;
        let (fields, rest) = <[EntryFields]>::ref_from_prefix_with_elems(rest, count).ok()?;
        let entries: Vec<EpochStart> = fields
            .iter()
            .map(|fields| EpochStart {
                epoch: LeaderEpoch(fields.epoch.get()),
                start_offset: Offset(fields.start_offset.get()),
            })
            .collect();
        let rising = |pair: &[EpochStart]| {
            pair[0].epoch < pair[1].epoch && pair[0].start_offset < pair[1].start_offset
        };
        entries
            .windows(2)
            .all(rising)
            .then_some((LeaderEpochs { entries }, rest))
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct EntryFields {
    epoch: I32,
    start_offset: I64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::new();
        for &(epoch, start) in entries {
            epochs.assign(LeaderEpoch(epoch), Offset(start));
        }
        epochs
    }

    fn plain(epochs: &LeaderEpochs) -> Vec<(i32, i64)> {
        epochs
            .entries()
            .iter()
            .map(|entry| (entry.epoch.0, entry.start_offset.0))
            .collect()
    }

    #[test]
    fn end_offsets_are_kafkas() {
        let epochs = epochs(&[(2, 10), (3, 20), (7, 30)]);
        let end = |epoch, current| {
            epochs
                .end_offset_for(LeaderEpoch(epoch), LeaderEpoch(current), Offset(45))
                .map(|(epoch, end)| (epoch.0, end.0))
        };
        assert_eq!(end(-1, 7), None);
        assert_eq!(end(0, 7), Some((0, 10)), "before all known epochs");
        assert_eq!(end(2, 7), Some((2, 20)));
        assert_eq!(end(3, 7), Some((3, 30)));
        assert_eq!(
            end(5, 7),
            Some((3, 30)),
            "never led here: the largest below it"
        );
        assert_eq!(
            end(7, 7),
            Some((7, 45)),
            "the newest ends where the log does"
        );
        assert_eq!(end(8, 7), None, "newer than the leader's");
    }

    #[test]
    fn an_epoch_without_records_begins_at_the_logs_end() {
        let epochs = epochs(&[(2, 10), (3, 20)]);
        let end = |epoch| {
            epochs
                .end_offset_for(LeaderEpoch(epoch), LeaderEpoch(6), Offset(45))
                .map(|(epoch, end)| (epoch.0, end.0))
        };
        assert_eq!(end(2), Some((2, 20)));
        assert_eq!(end(3), Some((3, 45)), "it ended when epoch 6 began");
        assert_eq!(end(5), Some((3, 45)), "between the newest known and 6");
        assert_eq!(end(6), Some((6, 45)));
        assert_eq!(end(7), None);
        let none = LeaderEpochs::new();
        let end = |epoch| none.end_offset_for(LeaderEpoch(epoch), LeaderEpoch(4), Offset(9));
        assert_eq!(end(4), Some((LeaderEpoch(4), Offset(9))), "an empty log");
        assert_eq!(end(1), Some((LeaderEpoch(1), Offset(9))));
        assert_eq!(end(5), None);
    }

    #[test]
    fn assigning_keeps_both_columns_rising() {
        assert_eq!(
            plain(&epochs(&[(0, 0), (0, 5), (1, 9), (1, 12)])),
            [(0, 0), (1, 9)]
        );
        // A later leader took over at an offset that an earlier one had passed.
        assert_eq!(
            plain(&epochs(&[(0, 0), (1, 9), (2, 20), (3, 9)])),
            [(0, 0), (3, 9)]
        );
        assert_eq!(plain(&epochs(&[(4, 0), (2, 7)])), [(2, 7)]);
    }

    #[test]
    fn epochs_of_offsets() {
        let epochs = epochs(&[(2, 10), (3, 20)]);
        let epoch = |offset| epochs.epoch_for_offset(Offset(offset)).map(|epoch| epoch.0);
        assert_eq!(
            [epoch(9), epoch(10), epoch(19), epoch(20), epoch(99)],
            [None, Some(2), Some(2), Some(3), Some(3)]
        );
    }

    #[test]
    fn truncation_from_both_ends() {
        let all = epochs(&[(2, 10), (3, 20), (7, 30)]);
        let cut = |edit: &dyn Fn(&mut LeaderEpochs)| {
            let mut epochs = all.clone();
            edit(&mut epochs);
            plain(&epochs)
        };
        assert_eq!(
            cut(&|e| e.truncate_before(Offset(5))),
            [(2, 10), (3, 20), (7, 30)]
        );
        assert_eq!(cut(&|e| e.truncate_before(Offset(25))), [(3, 25), (7, 30)]);
        assert_eq!(cut(&|e| e.truncate_before(Offset(30))), [(7, 30)]);
        assert_eq!(cut(&|e| e.truncate_before(Offset(99))), [(7, 99)]);
        assert_eq!(cut(&|e| e.truncate_from(Offset(30))), [(2, 10), (3, 20)]);
        assert_eq!(
            cut(&|e| e.truncate_from(Offset(31))),
            [(2, 10), (3, 20), (7, 30)]
        );
        assert_eq!(cut(&|e| e.truncate_from(Offset(0))), []);
    }

    #[test]
    fn snapshots_come_back_and_damaged_ones_do_not() {
        let epochs = epochs(&[(2, 10), (3, 20), (7, 30)]);
        let mut snapshot = Vec::new();
        epochs.encode(&mut snapshot);
        for length in 0..snapshot.len() {
            assert_eq!(LeaderEpochs::decode(&snapshot[..length]), None);
        }
        snapshot.push(9);
        assert_eq!(LeaderEpochs::decode(&snapshot), Some((epochs, &[9][..])));
        snapshot[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(LeaderEpochs::decode(&snapshot), None, "an absurd count");
        assert_eq!(
            LeaderEpochs::decode(&[0, 0, 0, 0]),
            Some((LeaderEpochs::new(), &[][..]))
        );
    }
}
