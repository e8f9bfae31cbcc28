//! When which log is compacted, and how the result takes its place. Part of a core's store.

use std::io;

use crate::clean_task::CleanOutcome;
use crate::types::Now;

use super::Store;
use super::api::LogId;

impl Store {
    pub(super) fn poll_cleaner(&mut self, _now: Now) {}

    pub(super) fn on_compacted(&mut self, _now: Now, _outcome: CleanOutcome) {
        self.cleaning = false;
    }

    pub(super) fn start_swap(&mut self, _log: LogId) {}

    pub(super) fn on_swapped(
        &mut self,
        _now: Now,
        _dir: usize,
        _log: LogId,
        _result: io::Result<()>,
    ) {
    }
}
