//! The plain model that the broker is held against: every batch that was ever sent, where each is known to
//! lie, and what each partition has promised. Knows no request form and no schedule.

use std::collections::BTreeMap;

use storage::batch::{self, BatchView, TimestampType};
use storage::records::RecordsScratch;
use storage::types::TopicId;

/// Index of a batch in [`Model::batches`].
pub type BatchId = usize;
/// Index of a topic in [`Model::topics`]: one for each life of a name.
pub type TopicRef = usize;

/// How long after its acknowledgement a batch of a lazy topic is surely flushed: `flush.ms`, and time for the
/// flush itself.
const FLUSH_US_MAX: u64 = 400_000;

/// What a topic is like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kind {
    /// `cleanup.policy=compact`.
    pub compact: bool,
    /// `message.timestamp.type=LogAppendTime`.
    pub append_time: bool,
    /// Retention may delete records.
    pub retention: bool,
    /// `flush.messages` is above 1: acknowledged once written, and flushed within `flush.ms`.
    pub lazy: bool,
}

/// How sure it is that a topic is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Its creation was asked for.
    Creating,
    /// It is there.
    Live,
    /// Its deletion was asked for.
    Deleting,
    /// It is gone.
    Gone,
}

/// One life of a topic's name.
#[derive(Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id, once the broker told it.
    pub id: TopicId,
    /// What it is like.
    pub kind: Kind,
    /// Whether it is there.
    pub life: Life,
    /// Its partitions, as many as are known to be there.
    pub partitions: Vec<Partition>,
    /// When it was asked for, in the world's microseconds.
    pub asked_for_us: u64,
    /// How many partitions were asked for at most.
    pub asked_count: usize,
}

/// What a partition has promised.
#[derive(Clone, Debug, Default)]
pub struct Partition {
    /// Batches by the offset of their first record.
    pub places: BTreeMap<i64, Place>,
    /// Records below this were acknowledged, read, or below a high watermark that was told.
    pub end_floor: i64,
    /// The log start is at least this.
    pub start_floor: i64,
    /// Nobody asked for the deletion of records at or above this.
    pub start_ceiling: i64,
    /// On a lazy topic: records below this were flushed.
    pub flushed_floor: i64,
    /// On a lazy topic: a power cut may have taken what was not flushed; where the log ends is to be asked.
    pub cut: bool,
}

/// Where a batch lies.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Which batch.
    pub batch: BatchId,
    /// One past its last record.
    pub offset_end: i64,
    /// The leader epoch that it was found with; -1: not read yet.
    pub leader_epoch: i32,
    /// When it was acknowledged, in the world's microseconds.
    pub acked_us: Option<u64>,
}

/// What became of a batch, as far as its sender knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It may be in the log or not.
    Open,
    /// It was acknowledged.
    Acked,
    /// It was refused for good: it is nowhere.
    Refused,
}

/// A batch that was sent.
#[derive(Debug)]
pub struct Batch {
    /// The bytes as they were sent.
    pub bytes: Vec<u8>,
    /// The topic's name that it was sent to.
    pub name: String,
    /// The life of the topic that it was sent to, where it was named by id.
    pub topic: Option<TopicRef>,
    /// The partition.
    pub partition: i32,
    /// How many records it has.
    pub records: i64,
    /// Keys of its records, on compacted topics.
    pub keys: Vec<u32>,
    /// Timestamps of its records, in milliseconds.
    pub timestamps: Vec<i64>,
    /// What its sender was told.
    pub fate: Fate,
    /// Where it was found, or said to be.
    pub place: Option<(TopicRef, i64)>,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Model {
    /// All lives of all topics.
    pub topics: Vec<Topic>,
    /// All batches.
    pub batches: Vec<Batch>,
    /// Producer ids that were given away.
    pub producer_ids: std::collections::BTreeSet<i64>,
    scratch: RecordsScratch,
}

/// What a read of a partition said about it.
#[derive(Clone, Copy, Debug)]
pub struct ReadHead {
    /// Where the read began.
    pub from: i64,
    /// The high watermark that was told.
    pub high_watermark: i64,
    /// The log start that was told.
    pub log_start: i64,
    /// The `end_floor` when the request was sent.
    pub end_floor: i64,
    /// The `start_floor` when the request was sent.
    pub start_floor: i64,
}

/// A record that was read.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Its offset.
    pub offset: i64,
    /// Its batch.
    pub batch: BatchId,
    /// Its index in the batch.
    pub index: i64,
}

macro_rules! ensure {
    ($holds:expr, $($why:tt)*) => {
        if !$holds {
            return Err(format!($($why)*));
        }
    };
}
pub(super) use ensure;

impl Model {
    /// The life of a name that may be there now.
    pub fn current(&self, name: &str) -> Option<TopicRef> {
        self.topics
            .iter()
            .rposition(|topic| topic.name == name)
            .filter(|topic| self.topics[*topic].life != Life::Gone)
    }

    /// The earlier lives of a topic's name, and when this one was asked for.
    pub fn earlier_lives(&self, topic: TopicRef) -> (Vec<TopicRef>, u64) {
        let known = &self.topics[topic];
        let earlier = (0..topic).filter(|other| self.topics[*other].name == known.name);
        (earlier.collect(), known.asked_for_us)
    }

    /// The topics that are there for sure.
    pub fn live(&self) -> Vec<TopicRef> {
        (0..self.topics.len())
            .filter(|topic| self.topics[*topic].life == Life::Live)
            .collect()
    }

    /// What a partition promised; `None` for one that is not known to be there.
    pub fn partition(&mut self, topic: TopicRef, partition: i32) -> Option<&mut Partition> {
        let index = usize::try_from(partition).ok()?;
        self.topics[topic].partitions.get_mut(index)
    }

    fn describe(&self, topic: TopicRef, partition: i32) -> String {
        format!("{}-{partition}", self.topics[topic].name)
    }

    /// The lives of all names, in a few words each.
    pub fn summary(&self) -> String {
        let words: Vec<String> = self
            .topics
            .iter()
            .map(|topic| {
                let kind = match topic.kind {
                    Kind { compact: true, .. } => ", compacted",
                    Kind {
                        retention: true, ..
                    } => ", with retention",
                    Kind {
                        append_time: true, ..
                    } => ", with append time",
                    Kind { lazy: true, .. } => ", flushed late",
                    _ => "",
                };
                format!("{} ({:?}{kind})", topic.name, topic.life)
            })
            .collect();
        words.join(", ")
    }

    /// Tells where a batch is; it can be in one place only, and the place held no other.
    pub fn place(
        &mut self,
        topic: TopicRef,
        partition: i32,
        batch: BatchId,
        base: i64,
        leader_epoch: i32,
    ) -> Result<(), String> {
        let who = self.describe(topic, partition);
        let sent = &self.batches[batch];
        let offset_end = base + sent.records;
        ensure!(
            sent.fate != Fate::Refused,
            "{who}: batch {batch} was refused and is at offset {base}"
        );
        ensure!(
            sent.name == self.topics[topic].name
                && sent.partition == partition
                && sent.topic.is_none_or(|known| known == topic),
            "{who}: batch {batch} at offset {base} was sent to {}-{}",
            sent.name,
            sent.partition
        );
        if let Some((known, at)) = sent.place {
            ensure!(
                (known, at) == (topic, base),
                "{who}: batch {batch} is at offset {base} and was at {at} of life {known}"
            );
        }
        let state = &mut self.topics[topic].partitions[partition as usize];
        if let Some(known) = state.places.get_mut(&base) {
            ensure!(
                known.batch == batch,
                "{who}: offset {base} has batch {batch} and had batch {}",
                known.batch
            );
            if leader_epoch >= 0 {
                ensure!(
                    known.leader_epoch < 0 || known.leader_epoch == leader_epoch,
                    "{who}: batch {batch} at offset {base} has leader epoch {leader_epoch} and had {}",
                    known.leader_epoch
                );
                known.leader_epoch = leader_epoch;
            }
        } else {
            let before = state.places.range(..base).next_back();
            if let Some((at, before)) = before {
                ensure!(
                    before.offset_end <= base,
                    "{who}: batch {batch} at offset {base} overlaps batch {} at {at}",
                    before.batch
                );
            }
            if let Some((at, after)) = state.places.range(base..).next() {
                ensure!(
                    offset_end <= *at,
                    "{who}: batch {batch} at offset {base} overlaps batch {} at {at}",
                    after.batch
                );
            }
            state.places.insert(
                base,
                Place {
                    batch,
                    offset_end,
                    leader_epoch,
                    acked_us: None,
                },
            );
        }
        self.batches[batch].place = Some((topic, base));
        Ok(())
    }

    /// Lazy topics have flushed by now what was acknowledged a while ago, where `sound` says that their disk is.
    pub fn note_flushed(&mut self, now_us: u64, sound: impl Fn(&Topic, i32) -> bool) {
        for topic in self.topics.iter_mut().filter(|topic| topic.kind.lazy) {
            let sound: Vec<bool> = (0..topic.partitions.len())
                .map(|at| sound(topic, at as i32))
                .collect();
            for (state, sound) in topic.partitions.iter_mut().zip(sound) {
                if !sound {
                    continue;
                }
                let flushed = state.places.values().filter(|place| {
                    place
                        .acked_us
                        .is_some_and(|acked_us| acked_us + FLUSH_US_MAX < now_us)
                });
                let flushed = flushed.map(|place| place.offset_end).max().unwrap_or(0);
                state.flushed_floor = state.flushed_floor.max(flushed);
            }
        }
    }

    /// The power fails: what lazy topics had not flushed may be gone.
    pub fn cut_power(&mut self) {
        for topic in self.topics.iter_mut().filter(|topic| topic.kind.lazy) {
            for state in &mut topic.partitions {
                // A log start is only told when it is flushed, and with it all that was appended before.
                state.flushed_floor = state.flushed_floor.max(state.start_floor);
                state.end_floor = state.flushed_floor;
                state.cut = true;
            }
        }
    }

    /// Takes where the log of a lazy topic ends after a power cut: what is left is a whole prefix, and what
    /// is not left never comes back.
    pub fn settle_cut(&mut self, topic: TopicRef, partition: i32, end: i64) -> Result<(), String> {
        let who = self.describe(topic, partition);
        let state = &mut self.topics[topic].partitions[partition as usize];
        ensure!(
            end >= state.flushed_floor,
            "{who} ends at {end} after a power cut, and {} was flushed before",
            state.flushed_floor
        );
        state.cut = false;
        state.end_floor = end;
        state.flushed_floor = end;
        let lost = state.places.split_off(&end);
        if let Some((base, last)) = state.places.iter().next_back() {
            ensure!(
                last.offset_end <= end,
                "{who} ends at {end} after a power cut, within batch {} at {base}",
                last.batch
            );
        }
        for place in lost.values() {
            self.batches[place.batch].place = None;
            self.batches[place.batch].fate = Fate::Refused;
        }
        Ok(())
    }

    /// A start brought everything back that had survived, and made it durable.
    pub fn note_start(&mut self, sound: impl Fn(&Topic, i32) -> bool) {
        for topic in self.topics.iter_mut().filter(|topic| topic.kind.lazy) {
            let sound: Vec<bool> = (0..topic.partitions.len())
                .map(|at| sound(topic, at as i32))
                .collect();
            for (state, sound) in topic.partitions.iter_mut().zip(sound) {
                if !state.cut && sound {
                    state.flushed_floor = state.end_floor;
                }
            }
        }
    }

    /// A batch was acknowledged at `base`.
    pub fn acknowledge(
        &mut self,
        topic: TopicRef,
        partition: i32,
        batch: BatchId,
        base: i64,
        now_us: u64,
    ) -> Result<(), String> {
        self.place(topic, partition, batch, base, -1)?;
        self.batches[batch].fate = Fate::Acked;
        let end = base + self.batches[batch].records;
        let state = &mut self.topics[topic].partitions[partition as usize];
        state.end_floor = state.end_floor.max(end);
        if let Some(place) = state.places.get_mut(&base) {
            place.acked_us.get_or_insert(now_us);
        }
        Ok(())
    }

    /// Takes the bounds that the broker told of a partition.
    pub fn bounds(
        &mut self,
        topic: TopicRef,
        partition: i32,
        head: &ReadHead,
    ) -> Result<(), String> {
        let who = self.describe(topic, partition);
        let retention = self.topics[topic].kind.retention;
        let state = &mut self.topics[topic].partitions[partition as usize];
        ensure!(
            head.high_watermark >= head.end_floor,
            "{who}: the high watermark is {}, and {} was promised before it was asked for",
            head.high_watermark,
            head.end_floor
        );
        ensure!(
            head.log_start >= head.start_floor,
            "{who}: the log start went back from {} to {}",
            head.start_floor,
            head.log_start
        );
        ensure!(
            head.log_start <= head.high_watermark,
            "{who}: the log start {} is above the high watermark {}",
            head.log_start,
            head.high_watermark
        );
        ensure!(
            retention || head.log_start <= state.start_ceiling,
            "{who}: the log starts at {}, and nobody deleted more than below {}",
            head.log_start,
            state.start_ceiling
        );
        state.end_floor = state.end_floor.max(head.high_watermark);
        state.start_floor = state.start_floor.max(head.log_start);
        Ok(())
    }

    /// Checks what a read brought, batch by batch and byte by byte. Gives the records, and where the next
    /// read begins.
    pub fn check_records(
        &mut self,
        topic: TopicRef,
        partition: i32,
        head: &ReadHead,
        bytes: &[u8],
    ) -> Result<(Vec<Seen>, i64), String> {
        let who = self.describe(topic, partition);
        let kind = self.topics[topic].kind;
        let mut next = head.from;
        let mut epoch = -1;
        let mut first = true;
        let mut all = Vec::new();
        for batch in batch::split(bytes) {
            let batch = batch.map_err(|error| format!("{who}: not a batch: {error:?}"))?;
            let header = batch.header();
            let (base, end) = (header.base_offset().0, header.offset_end().0);
            batch
                .verify()
                .map_err(|error| format!("{who}: batch at {base}: {error:?}"))?;
            let fits = if kind.compact {
                base >= next || first
            } else {
                base == next || (first && base <= next)
            };
            ensure!(
                fits && end > next,
                "{who}: a batch of offsets {base} to {end} where {next} is next"
            );
            ensure!(
                end <= head.high_watermark,
                "{who}: offsets up to {end} were read, with a high watermark of {}",
                head.high_watermark
            );
            let batch_epoch = header.partition_leader_epoch().0;
            ensure!(
                batch_epoch >= epoch && batch_epoch >= 0,
                "{who}: leader epoch {batch_epoch} at {base} after {epoch}"
            );
            epoch = batch_epoch;
            let records = self.read_batch(&who, &batch)?;
            let whole = !kind.compact;
            if let Some(seen) = records.first() {
                let id = seen.batch;
                if whole {
                    ensure!(
                        records.len() as i64 == self.batches[id].records,
                        "{who}: batch {id} at {base} has {} records",
                        records.len()
                    );
                    same_bytes(&self.batches[id].bytes, batch.bytes(), kind.append_time)
                        .map_err(|why| format!("{who}: batch {id} at {base}: {why}"))?;
                }
                let batch_base = seen.offset - seen.index;
                let epoch = if whole { batch_epoch } else { -1 };
                for record in &records {
                    let at = record.offset - record.index;
                    ensure!(
                        record.batch == id && at == batch_base,
                        "{who}: records of batches {id} and {} in one batch at {base}",
                        record.batch
                    );
                }
                self.place(topic, partition, id, batch_base, epoch)?;
            }
            all.extend(records);
            next = end;
            first = false;
        }
        if let Some(state) = self.partition(topic, partition) {
            state.end_floor = state.end_floor.max(next);
        }
        Ok((all, next))
    }

    /// Reads the records of a batch and checks each against what was sent.
    fn read_batch(&mut self, who: &str, batch: &BatchView<'_>) -> Result<Vec<Seen>, String> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let found = self.read_batch_with(who, batch, &mut scratch);
        self.scratch = scratch;
        found
    }

    fn read_batch_with(
        &self,
        who: &str,
        batch: &BatchView<'_>,
        scratch: &mut RecordsScratch,
    ) -> Result<Vec<Seen>, String> {
        let base = batch.header().base_offset();
        let mut all = Vec::new();
        let records = scratch
            .records(batch, 64 << 20)
            .map_err(|error| format!("{who}: batch at {base}: {error:?}"))?;
        for record in records {
            let record = record.map_err(|error| format!("{who}: batch at {base}: {error:?}"))?;
            let (id, index) = record
                .value
                .and_then(identity)
                .ok_or_else(|| format!("{who}: offset {} has no known value", record.offset))?;
            let sent = self
                .batches
                .get(id)
                .ok_or_else(|| format!("{who}: batch {id} was never sent"))?;
            let key = sent.keys.get(index).map(|key| key.to_be_bytes());
            ensure!(
                (index as i64) < sent.records
                    && record.value
                        == Some(&*value(id, index, record.value.map_or(0, <[u8]>::len)))
                    && record.key == key.as_ref().map(<[u8; 4]>::as_slice),
                "{who}: offset {} is not record {index} of batch {id} as it was sent",
                record.offset
            );
            all.push(Seen {
                offset: record.offset,
                batch: id,
                index: index as i64,
            });
        }
        Ok(all)
    }

    /// What the broker must still have of a partition, given all that was read of it from `log_start` on.
    pub fn check_whole(
        &self,
        topic: TopicRef,
        partition: i32,
        log_start: i64,
        seen: &[Seen],
    ) -> Result<(), String> {
        let who = self.describe(topic, partition);
        let known = &self.topics[topic];
        let state = &known.partitions[partition as usize];
        let offsets: std::collections::BTreeSet<i64> =
            seen.iter().map(|seen| seen.offset).collect();
        let mut newest: BTreeMap<u32, i64> = BTreeMap::new();
        if known.kind.compact {
            for seen in seen {
                let key = self.batches[seen.batch].keys[seen.index as usize];
                let at = newest.entry(key).or_insert(seen.offset);
                *at = seen.offset.max(*at);
            }
        }
        for (&base, place) in &state.places {
            for offset in base.max(log_start)..place.offset_end {
                if offsets.contains(&offset) {
                    continue;
                }
                let superseded = known.kind.compact && {
                    let key = self.batches[place.batch].keys[(offset - base) as usize];
                    newest.get(&key).is_some_and(|at| *at > offset)
                };
                ensure!(
                    superseded,
                    "{who}: offset {offset} of batch {} is lost",
                    place.batch
                );
            }
        }
        Ok(())
    }
}

/// Bytes at the start of every value: batch and index.
const IDENTITY_BYTES: usize = 8;

/// The value of a record: who it is, and filler that depends on that.
pub fn value(batch: BatchId, index: usize, bytes: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(bytes.max(IDENTITY_BYTES));
    value.extend_from_slice(&(batch as u32).to_be_bytes());
    value.extend_from_slice(&(index as u32).to_be_bytes());
    let mut state = (batch as u64) << 32 | index as u64 | 1;
    while value.len() < bytes {
        state = state
            .wrapping_mul(0x5851_F42D_4C95_7F2D)
            .wrapping_add(0x1405_7B7E_F767_814F);
        let word = state.to_be_bytes();
        let count = word.len().min(bytes - value.len());
        value.extend_from_slice(&word[..count]);
    }
    value
}

fn identity(value: &[u8]) -> Option<(BatchId, usize)> {
    let batch = u32::from_be_bytes(*value.first_chunk::<4>()?);
    let index = u32::from_be_bytes(*value.get(4..)?.first_chunk::<4>()?);
    Some((batch as usize, index as usize))
}

/// Compares a stored batch with the one that was sent: base offset and leader epoch are the broker's, and
/// under LogAppendTime the time, its type and with them the checksum.
fn same_bytes(sent: &[u8], stored: &[u8], append_time: bool) -> Result<(), String> {
    let mut sent = sent.to_vec();
    if sent.len() != stored.len() {
        return Err(format!("{} bytes became {}", sent.len(), stored.len()));
    }
    sent[..8].copy_from_slice(&stored[..8]);
    sent[12..16].copy_from_slice(&stored[12..16]);
    if append_time {
        let time = i64::from_be_bytes(*stored[35..].first_chunk::<8>().expect("a header"));
        batch::rewrite_timestamps(&mut sent, TimestampType::LogAppendTime, time);
    }
    match sent.iter().zip(stored).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(at) => Err(format!("byte {at} is not as it was sent")),
    }
}
