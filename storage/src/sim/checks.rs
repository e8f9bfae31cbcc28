//! What the simulation's model demands of stores: after a recovery, and of what they give to read. Runs on
//! the simulation's one thread; decides nothing about what happens next but how much is read.

use std::collections::BTreeMap;

use crate::store::{PartitionKey, Read, ReadError};
use crate::types::Offset;

use super::World;
use super::model::{is_compacted, note_records};

impl World {
    /// Everything acknowledged came back, and nothing that was never appended.
    pub(super) fn check_recovered(&mut self) -> Result<(), String> {
        let mut gone = Vec::new();
        for (key, model) in &mut self.model {
            let found = self.stores.iter().find_map(|store| {
                let log = store.find(key.topic_id, key.partition)?;
                Some((store.log_start(log)?, store.log_end(log)?))
            });
            if model.deleting {
                gone.push(key.clone());
                continue;
            }
            let Some((start, end)) = found else {
                if model.created {
                    return Err(format!("{} is gone", key.dir_name()));
                }
                gone.push(key.clone());
                continue;
            };
            if end < model.acked_end {
                return Err(format!(
                    "{} ends at {end}, but {} was acknowledged",
                    key.dir_name(),
                    model.acked_end
                ));
            }
            let at_batch = end == Offset(0)
                || end == start
                || model.batches.iter().any(|batch| batch.end == end);
            if end > model.end().max(start) || !at_batch {
                return Err(format!("{} ends at {end}: never appended", key.dir_name()));
            }
            if start < model.start_told {
                return Err(format!(
                    "{} starts at {start}, but {} was told",
                    key.dir_name(),
                    model.start_told
                ));
            }
            // What was not acknowledged and did not come back never will.
            model.batches.retain(|batch| batch.end <= end);
        }
        for key in gone {
            self.model.remove(&key);
        }
        Ok(())
    }

    pub(super) fn check_some(&mut self) -> Result<(), String> {
        let Some(key) = self.pick() else {
            return Ok(());
        };
        self.check_partition(&key)
    }

    pub(super) fn check_all(&mut self) -> Result<(), String> {
        let keys: Vec<PartitionKey> = self.model.keys().cloned().collect();
        for key in keys {
            self.check_partition(&key)?;
        }
        Ok(())
    }

    /// What a compacted partition gave: nothing but what was appended, and each key's newest.
    fn check_compacted(
        &self,
        key: &PartitionKey,
        seen: &BTreeMap<i64, (Vec<u8>, Vec<u8>)>,
        up_to: Offset,
    ) -> Result<(), String> {
        let mut appended = BTreeMap::new();
        for batch in &self.model[key].batches {
            note_records(&batch.bytes, Offset(0), &mut appended).expect("as it was built");
        }
        for (offset, record) in seen {
            if appended.get(offset) != Some(record) {
                return Err(format!(
                    "{} at {offset}: not what was appended",
                    key.dir_name()
                ));
            }
        }
        let (core, log) = self.find(key).expect("read before");
        let start = self.stores[core].log_start(log).expect("found");
        // While this was read, more became acknowledged, and a cleaner may have passed: a record that has a
        // newer one by now may be gone, though that one lies behind what was read.
        let acked_end = self.model[key].acked_end;
        let mut newest = BTreeMap::new();
        for (offset, (record_key, _)) in appended.range(start.0..acked_end.0) {
            newest.insert(record_key.clone(), *offset);
        }
        for (record_key, offset) in newest {
            if offset < up_to.0 && !seen.contains_key(&offset) {
                return Err(format!(
                    "{}: the newest record of key {record_key:?}, at {offset}, is gone",
                    key.dir_name()
                ));
            }
        }
        Ok(())
    }

    /// Reads a partition from its start and compares every byte.
    fn check_partition(&mut self, key: &PartitionKey) -> Result<(), String> {
        if self.model[key].deleting || !self.model[key].created {
            return Ok(());
        }
        let (core, log) = self
            .find(key)
            .ok_or_else(|| format!("{} has no log", key.dir_name()))?;
        let start = self.stores[core].log_start(log).expect("found");
        if start > self.model[key].start_asked && self.model[key].start_asked > Offset(0) {
            self.model.get_mut(key).expect("known").start_asked = start;
        }
        let mut up_to = self.model[key].acked_end;
        let mut seen = BTreeMap::new();
        let mut from = start;
        let bytes_max = 1 + self.rng.below(100_000) as usize;
        let mut turns = 0;
        while from < up_to {
            turns += 1;
            if turns > 10_000 {
                return Err(format!("{} gives nothing at {from}", key.dir_name()));
            }
            let batches = match self.stores[core].read(self.now, log, from, bytes_max, true, up_to)
            {
                Read::Ready(batches) => batches,
                Read::Disk(ticket) => {
                    self.executor.take_actions(core, &mut self.stores[core]);
                    self.until("read", |world| world.reads.contains_key(&(core, ticket)))?;
                    let result = self.reads.remove(&(core, ticket)).expect("just seen");
                    result.map_err(|error| format!("{} at {from}: {error}", key.dir_name()))?
                }
                // The log start moved on while this was reading.
                Read::Err(ReadError::OutOfRange) => {
                    from = self.stores[core].log_start(log).expect("found");
                    continue;
                }
                Read::Err(error) => return Err(format!("{} at {from}: {error}", key.dir_name())),
            };
            if batches.is_empty() && is_compacted(key) {
                // All that was left to read may have gone since this began, for newer records behind it.
                up_to = self.model[key].acked_end;
            }
            for bytes in batches {
                if is_compacted(key) {
                    from = note_records(&bytes, from, &mut seen)
                        .ok_or_else(|| format!("{} at {from}: unreadable", key.dir_name()))?;
                    self.report.read += 1;
                    continue;
                }
                let model = &self.model[key];
                let at = model.batches.partition_point(|batch| batch.end <= from);
                let expected = &model.batches[at];
                if bytes[..] != expected.bytes[..] || expected.base > from {
                    return Err(format!(
                        "{} at {from}: not the batch that was appended",
                        key.dir_name()
                    ));
                }
                from = expected.end;
                self.report.read += 1;
            }
        }
        if is_compacted(key) {
            return self.check_compacted(key, &seen, up_to);
        }
        Ok(())
    }
}
