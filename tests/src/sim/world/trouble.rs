//! What is wrong with the simulated machine's disk: directories that give EIO, no room, and how long the
//! broker may take to find room again. Knows no core and no request.

use storage::store::partition_metadata;
use storage::types::TopicId;

use super::World;

/// What is wrong with the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// What lies below this path in a log directory cannot be read or written.
    Broken { dir: usize, path: String },
    /// It has no room.
    Full,
    /// It has room again, and the broker is to find out until this time; or, as a failure from before may
    /// be told late, when it looks once more.
    Healing { until_us: u64, looks: u32 },
}

/// How long the broker may take to find room that is there again: it looks every two seconds.
const HEALING_SKIP_US: u64 = 2_500_000;
const HEALING_US: u64 = 60_000;

/// How long the broker may take after the clock jumped to do what was due meanwhile.
const CATCH_UP_US: u64 = 400_000;

impl World {
    /// Breaks a log directory, or the part of it with this path: reads and writes fail with EIO.
    pub fn break_dir(&mut self, dir: usize, part: &str) {
        let path = format!("{}/{part}", self.dirs[dir].display());
        let broken = Some(path.clone());
        self.disk.set_faults(|faults| faults.broken = broken);
        self.fault = Some(Fault::Broken { dir, path });
    }

    /// Leaves room for so many more bytes only.
    pub fn fill_disk(&mut self, left_bytes: u64) {
        let capacity_bytes = self.disk.used_bytes() + left_bytes;
        self.disk
            .set_faults(|faults| faults.capacity_bytes = capacity_bytes);
        self.fault = Some(Fault::Full);
    }

    /// Ends what is wrong with the disk. A broker that runs finds out that there is room after a while.
    pub fn mend_disk(&mut self) {
        self.disk.set_faults(|faults| {
            faults.capacity_bytes = u64::MAX;
            faults.broken = None;
        });
        self.fault = match self.fault.take() {
            Some(Fault::Full) if !self.cores.is_empty() => {
                self.skip();
                let until_us = self.time_us + HEALING_US;
                Some(Fault::Healing { until_us, looks: 1 })
            }
            Some(healing @ Fault::Healing { .. }) => Some(healing),
            _ => None,
        };
    }

    /// Whether anything is wrong with the disk, or was a moment ago.
    pub fn is_troubled(&self) -> bool {
        self.fault.is_some()
    }

    /// What is wrong with the disk, in words.
    pub fn describe_trouble(&self) -> String {
        match &self.fault {
            None => "a sound disk".to_owned(),
            Some(Fault::Broken { path, .. }) => format!("{path} broken"),
            Some(Fault::Full) => "a full disk".to_owned(),
            Some(Fault::Healing { .. }) => "a disk that has room again".to_owned(),
        }
    }

    /// Whether a log directory is broken.
    pub fn is_broken(&self) -> bool {
        matches!(self.fault, Some(Fault::Broken { .. }))
    }

    /// Whether a partition may be refused because of the disk: not one that lies in a sound directory, whatever
    /// has become of the others. One of the same name that was deleted may lie there still; `id` tells them
    /// apart.
    pub fn may_refuse(&self, topic: &str, id: TopicId, partition: i32) -> bool {
        match &self.fault {
            None => false,
            Some(Fault::Full | Fault::Healing { .. }) => true,
            Some(Fault::Broken { dir, .. }) => {
                let metadata = partition_metadata(id).into_bytes();
                let name = format!("{topic}-{partition}/partition.metadata");
                let sound = self.dirs.iter().enumerate();
                !sound.filter(|(index, _)| index != dir).any(|(_, path)| {
                    self.disk.contents(&path.join(&name)).as_ref() == Some(&metadata)
                })
            }
        }
    }

    /// Whether the metadata may be out of reach.
    pub fn has_lost(&self, dir: usize) -> bool {
        matches!(self.fault, Some(Fault::Broken { dir: broken, .. }) if broken == dir)
    }

    /// The broker finds out in time that there is room again, or looks once more.
    pub(super) fn heal(&mut self) {
        if let Some(Fault::Healing { until_us, looks }) = self.fault
            && until_us <= self.time_us
        {
            self.fault = looks.checked_sub(1).map(|looks| {
                self.skip();
                Fault::Healing {
                    until_us: self.time_us + HEALING_US,
                    looks,
                }
            });
        }
    }

    /// A broker that ends has nothing to find out any more.
    pub(super) fn stop_healing(&mut self) {
        if matches!(self.fault, Some(Fault::Healing { .. })) {
            self.fault = None;
        }
    }

    /// Until when everything that was due has surely been done: as if the clock had not jumped, until the
    /// broker had time to notice.
    pub fn caught_up_us(&self) -> u64 {
        let (from_us, to_us) = self.skipped;
        if self.time_us < to_us + CATCH_UP_US {
            from_us
        } else {
            self.time_us
        }
    }

    /// Lets the clock jump over moments at which the broker wanted to do something.
    fn skip(&mut self) {
        let from_us = self.caught_up_us();
        self.time_us += HEALING_SKIP_US;
        self.skipped = (from_us, self.time_us);
    }
}
