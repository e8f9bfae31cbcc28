//! The batches of one log that are in memory. Part of a log in its store; knows no journal, no segment and
//! no disk.

use std::collections::VecDeque;

use ring::buf::Shared;

use crate::journal::ENTRY_HEADER_BYTES;
use crate::types::Offset;

/// A batch in memory: a view of the journal write that carried it.
#[derive(Clone, Debug)]
pub(crate) struct Recent {
    /// The journal write that holds it.
    pub sequence: u64,
    pub segment_base: Offset,
    pub position: u64,
    pub base_offset: Offset,
    pub offset_end: Offset,
    pub bytes: Shared,
}

/// Memory that a batch takes beside its bytes: its place in a log, and its entry's header in the journal
/// write that it keeps.
const RECENT_OVERHEAD_BYTES: u64 = (size_of::<Recent>() + ENTRY_HEADER_BYTES) as u64;

impl Recent {
    /// Memory that it takes in the cache. Of dirty batches only the bytes count: their entries are
    /// bounded by the journal.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.bytes.len() as u64 + RECENT_OVERHEAD_BYTES
    }

    pub(crate) fn position_end(&self) -> u64 {
        self.position + self.bytes.len() as u64
    }
}

/// Batches in offset order, and so in that of their journal writes and segments: first the clean ones, which
/// are wholly in their segment's file and stay as a cache, then the dirty ones. One that becomes clean stays
/// where it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecentBatches {
    all: VecDeque<Recent>,
    clean_count: usize,
}

impl RecentBatches {
    /// Appends a dirty batch. The list grows by quarters: of thousands of logs each has one, and doubling
    /// would leave half of their memory empty.
    pub(crate) fn push(&mut self, recent: Recent) {
        if self.all.len() == self.all.capacity() {
            self.all.reserve_exact((self.all.len() / 4).max(4));
        }
        self.all.push_back(recent);
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Recent> {
        self.all.iter()
    }

    pub(crate) fn first(&self) -> Option<&Recent> {
        self.all.front()
    }

    pub(crate) fn last(&self) -> Option<&Recent> {
        self.all.back()
    }

    /// All from the first one on that is not `before`, where those that are come first.
    pub(crate) fn from(
        &self,
        before: impl FnMut(&Recent) -> bool,
    ) -> impl Iterator<Item = &Recent> {
        self.all.range(self.all.partition_point(before)..)
    }

    pub(crate) fn clean(&self) -> impl Iterator<Item = &Recent> {
        self.all.range(..self.clean_count)
    }

    pub(crate) fn dirty(&self) -> impl DoubleEndedIterator<Item = &Recent> + Clone {
        self.all.range(self.clean_count..)
    }

    pub(crate) fn first_dirty(&self) -> Option<&Recent> {
        self.all.get(self.clean_count)
    }

    /// The dirty ones from the first one on that is not `before`, where those that are come first.
    pub(crate) fn dirty_from(
        &self,
        before: impl FnMut(&Recent) -> bool,
    ) -> impl Iterator<Item = &Recent> + Clone {
        let first = self.all.partition_point(before).max(self.clean_count);
        self.all.range(first..)
    }

    /// The dirty ones that are `before`, where those come first.
    pub(crate) fn dirty_until(
        &self,
        before: impl FnMut(&Recent) -> bool,
    ) -> impl DoubleEndedIterator<Item = &Recent> {
        let end = self.all.partition_point(before).max(self.clean_count);
        self.all.range(self.clean_count..end)
    }

    /// The first dirty one is in its segment's file.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn note_clean(&mut self) {
        assert!(self.clean_count < self.all.len(), "nothing is dirty");
        self.clean_count += 1;
    }

    /// Takes out the first one, if it is clean.
    pub(crate) fn pop_clean(&mut self) -> Option<Recent> {
        self.clean_count = self.clean_count.checked_sub(1)?;
        self.all.pop_front()
    }

    /// Takes out the dirty ones that are `gone`, where those come first. Returns their bytes.
    pub(crate) fn drop_dirty(&mut self, gone: impl FnMut(&Recent) -> bool) -> u64 {
        let end = self.all.partition_point(gone).max(self.clean_count);
        self.all
            .drain(self.clean_count..end)
            .map(|recent| recent.bytes.len() as u64)
            .sum()
    }
}

impl Extend<Recent> for RecentBatches {
    fn extend<I: IntoIterator<Item = Recent>>(&mut self, batches: I) {
        for recent in batches {
            self.push(recent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches of 100 bytes, two in each journal write, four in each segment.
    fn batches(count: u64) -> RecentBatches {
        let mut list = RecentBatches::default();
        list.extend((0..count).map(|n| Recent {
            sequence: n / 2,
            segment_base: Offset((n / 4 * 4) as i64),
            position: n % 4 * 100,
            base_offset: Offset(n as i64),
            offset_end: Offset(n as i64 + 1),
            bytes: vec![n as u8; 100].into(),
        }));
        list
    }

    fn offsets<'a>(batches: impl Iterator<Item = &'a Recent>) -> Vec<i64> {
        batches.map(|recent| recent.base_offset.0).collect()
    }

    #[test]
    fn clean_ones_come_first_and_stay_where_they_are() {
        let mut list = batches(8);
        assert!(list.pop_clean().is_none(), "a dirty one stays");
        for _ in 0..3 {
            list.note_clean();
        }
        assert_eq!(offsets(list.clean()), [0, 1, 2]);
        assert_eq!(offsets(list.dirty()), [3, 4, 5, 6, 7]);
        assert_eq!(offsets(list.iter()), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(
            list.first_dirty().map(|recent| recent.base_offset.0),
            Some(3)
        );
        assert_eq!(list.pop_clean().map(|recent| recent.base_offset.0), Some(0));
        assert_eq!(offsets(list.clean()), [1, 2]);
        assert_eq!(offsets(list.dirty()), [3, 4, 5, 6, 7]);
        assert_eq!(list.first().map(|recent| recent.base_offset.0), Some(1));
        assert_eq!(list.last().map(|recent| recent.base_offset.0), Some(7));
    }

    #[test]
    fn what_is_looked_for_among_the_dirty_ones_is_no_clean_one() {
        let mut list = batches(8);
        for _ in 0..3 {
            list.note_clean();
        }
        assert_eq!(
            offsets(list.from(|recent| recent.offset_end.0 <= 1)),
            [1, 2, 3, 4, 5, 6, 7]
        );
        assert_eq!(
            offsets(list.dirty_from(|recent| recent.offset_end.0 <= 1)),
            [3, 4, 5, 6, 7]
        );
        assert_eq!(
            offsets(list.dirty_from(|recent| recent.segment_base.0 < 4)),
            [4, 5, 6, 7]
        );
        assert_eq!(
            offsets(list.dirty_until(|recent| recent.sequence <= 2)),
            [3, 4, 5]
        );
        assert_eq!(
            offsets(list.dirty_until(|recent| recent.sequence < 1)),
            [0; 0]
        );
    }

    #[test]
    fn dirty_ones_go_from_behind_the_clean_ones() {
        let mut list = batches(8);
        for _ in 0..2 {
            list.note_clean();
        }
        assert_eq!(list.drop_dirty(|recent| recent.segment_base.0 <= 0), 200);
        assert_eq!(offsets(list.iter()), [0, 1, 4, 5, 6, 7]);
        assert_eq!(offsets(list.dirty()), [4, 5, 6, 7]);
        assert_eq!(list.drop_dirty(|recent| recent.segment_base.0 <= 0), 0);
        list.push(batches(9).last().expect("the ninth").clone());
        assert_eq!(offsets(list.dirty()), [4, 5, 6, 7, 8]);
    }
}
