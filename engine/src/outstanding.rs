//! What a shard has not finished: counts of everything that waits for someone else. Lives on the core it
//! counts; knows what waits, not why.

use crate::shard::Shard;

/// How much waits; all zero when a shard is at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outstanding {
    /// Buffers of this core that other cores read.
    pub leases: usize,
    /// Calls to other cores, or to this one, without an answer.
    pub calls: usize,
    /// Requests of clients: Produces, Fetches, and what gathers answers of several cores.
    pub requests: usize,
    /// Work for other cores: appends, reads, questions.
    pub served: usize,
    /// Parked fetches of any core that wait for partitions of this one.
    pub watches: usize,
    /// Appends in partitions: queued, unacknowledged, or duplicates of such.
    pub appends: usize,
}

impl Shard {
    /// Counts what is not finished.
    pub fn outstanding(&self) -> Outstanding {
        Outstanding {
            leases: self.leases.lent_count(),
            calls: self.calls.len(),
            requests: self.produces.len()
                + self.fetches.len()
                + self.gatherings.len()
                + self.log_dirs_gatherings.len(),
            served: self.append_groups.len()
                + self.owner_fetches.len()
                + self.questions.len()
                + self.tickets.len(),
            watches: self.watches.len().max(self.watches_by_call.len()),
            appends: self
                .partitions
                .values()
                .map(|partition| {
                    partition.queue.len() + partition.unacked.len() + partition.duplicates.len()
                })
                .sum(),
        }
    }
}
