//! The journal of one core in one log directory: the state machine that gathers a turn's entries, orders
//! writes and knows what is durable. Lives on the core that owns the partitions; knows no segment, no
//! checkpoint and does no I/O. What its bytes are says [`format`].
//!
//! Every write starts on a block of its own, so a torn write never touches an older one. At most two
//! are in flight; the durable sequence is the contiguous prefix of what completed.
//!
//! A write may have companions: bytes that go to other files at the same time, and that entries of the
//! write refer to. It counts as written, and as durable, when its companions are too; so a durable
//! sequence that a header states also says that what was referred to up to there is safe.

mod format;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ring::buf::{AlignedBuf, BLOCK_BYTES, Shared};
use xxhash_rust::xxh3::Xxh3;

use crate::store::{DurableWrite, FileRef, LogId, Part};
use crate::types::CoreId;

use format::{ENTRY_ALIGN, MAGIC, begin_checksum};
pub(crate) use format::{
    ENTRY_HEADER_BYTES, Entries, Entry, EntryKind, FILE_HEAD_BYTES, WRITE_HEADER_BYTES,
    WriteHeader, decode_file_head, decode_write, encode_file_head, journal_dir, journal_file_name,
    parse_journal_file_name, peek_write,
};

/// How many writes may be in flight at once.
const IN_FLIGHT_MAX: usize = 2;
/// Size of the buffers that turns are gathered into; larger batches get one of their own.
const ARENA_BYTES: usize = 512 << 10;
/// A write is sealed early when it has grown to this, so that one flush does not wait for a flood.
pub(crate) const WRITE_BYTES_MAX: usize = 4 << 20;

/// A batch or other bytes that a write carries for a partition.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub log: LogId,
    pub entry: Entry,
    /// The payload's place in the write.
    pub range: Range<usize>,
}

/// A write that takes entries.
struct OpenWrite {
    buf: AlignedBuf,
    used: usize,
    hash: Xxh3,
    gathered: Vec<Gathered>,
    parts: Vec<Part>,
    sync: bool,
}

/// A write that is sealed: its bytes never change again.
pub(crate) struct Sealed {
    pub sequence: u64,
    pub bytes: Shared,
    pub gathered: Vec<Gathered>,
    /// What its `Straight` entries refer to, in their order.
    pub parts: Vec<Part>,
    sync: bool,
}

/// Bytes that go to another file beside a write of the journal.
#[derive(Debug)]
pub(crate) struct Companion {
    pub file: FileRef,
    pub position: u64,
    pub bytes: Shared,
}

struct Waiting {
    sequence: u64,
    bytes: Shared,
    sync: bool,
    companions: Vec<Companion>,
}

struct InFlight {
    sequence: u64,
    bytes: u64,
    sync: bool,
    /// The write and its companions, as far as they are not done.
    left: usize,
}

impl Waiting {
    fn all_bytes(&self) -> u64 {
        let beside = self.companions.iter().map(|beside| beside.bytes.len());
        (self.bytes.len() + beside.sum::<usize>()) as u64
    }
}

/// A journal file of this start.
#[derive(Clone, Debug)]
pub(crate) struct JournalFile {
    pub reference: FileRef,
    /// For writes, behind the first block.
    pub capacity_bytes: u64,
    position: u64,
    sequence_last: u64,
}

/// What the owner must do so that the journal can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JournalNeed {
    Nothing,
    /// Make a file with room for so many bytes of writes behind its first block, then call [`Journal::on_file_made`].
    File {
        id: u64,
        capacity_bytes: u64,
    },
}

/// How far a completed write moved the marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Everything up to here is written.
    pub written: u64,
    /// Everything up to here is flushed.
    pub durable: u64,
}

/// The journal of one core in one log directory.
pub(crate) struct Journal {
    dir: PathBuf,
    epoch: u64,
    core: CoreId,
    salt: u64,
    file_bytes: u64,
    files_max: usize,
    /// In use, oldest first; the last one is written to.
    files: VecDeque<JournalFile>,
    spare: Vec<JournalFile>,
    making: bool,
    next_file: u64,
    arena: Option<AlignedBuf>,
    open: Option<OpenWrite>,
    /// How many entries the last write had: about as many are expected of the next.
    gathered_last: usize,
    waiting: VecDeque<Waiting>,
    waiting_bytes: u64,
    in_flight: VecDeque<InFlight>,
    /// Companions of writes that are out, with the write's sequence and whether to flush.
    companions: VecDeque<(u64, bool, Companion)>,
    next_sequence: u64,
    previous_checksum: u64,
    marks: Marks,
}

impl Journal {
    pub(crate) fn new(
        dir: &Path,
        epoch: u64,
        core: CoreId,
        salt: u64,
        file_bytes: u64,
        files_max: usize,
    ) -> Journal {
        Journal {
            dir: journal_dir(dir),
            epoch,
            core,
            salt,
            file_bytes: file_bytes.next_multiple_of(BLOCK_BYTES as u64),
            files_max: files_max.max(2),
            files: VecDeque::new(),
            spare: Vec::new(),
            making: false,
            next_file: 0,
            arena: None,
            open: None,
            gathered_last: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            in_flight: VecDeque::new(),
            companions: VecDeque::new(),
            next_sequence: 1,
            previous_checksum: 0,
            marks: Marks::default(),
        }
    }

    /// Adds an entry; `fill` writes its payload, in place, before the entry's checksum is taken.
    /// Returns the sequence of the write that will hold it and, if a write had to be sealed to make
    /// room, that write.
    pub(crate) fn add(
        &mut self,
        log: LogId,
        entry: Entry,
        payload_bytes: usize,
        sync: bool,
        fill: impl FnOnce(&mut [u8]),
    ) -> (u64, Option<Sealed>) {
        let end = |start: usize| {
            let lead_bytes = entry.lead_bytes(start, payload_bytes);
            let bytes = ENTRY_HEADER_BYTES + lead_bytes + payload_bytes;
            start + bytes.next_multiple_of(ENTRY_ALIGN)
        };
        let full = self
            .open
            .as_ref()
            .is_some_and(|open| end(open.used) > open.buf.len() || open.used > WRITE_BYTES_MAX);
        let sealed = if full { self.seal() } else { None };
        if self.open.is_none() {
            self.open = Some(self.begin_write(end(WRITE_HEADER_BYTES)));
        }
        let open = self.open.as_mut().expect("just begun");
        let start = open.used;
        let lead_bytes = entry.lead_bytes(start, payload_bytes);
        let payload_at = start + ENTRY_HEADER_BYTES + lead_bytes;
        let range = payload_at..payload_at + payload_bytes;
        let (head, rest) = open.buf[start..end(start)].split_at_mut(ENTRY_HEADER_BYTES);
        let (lead, rest) = rest.split_at_mut(lead_bytes);
        let (payload, padding) = rest.split_at_mut(payload_bytes);
        lead.fill(0);
        padding.fill(0);
        fill(payload);
        entry.encode(lead_bytes, payload, head);
        open.hash.update(head);
        open.used = end(start);
        open.sync |= sync;
        open.gathered.push(Gathered { log, entry, range });
        (self.next_sequence, sealed)
    }

    fn begin_write(&mut self, bytes: usize) -> OpenWrite {
        let fits = |buf: &AlignedBuf| buf.len() >= bytes.next_multiple_of(BLOCK_BYTES);
        let buf = match self.arena.take().filter(fits) {
            Some(rest) => rest,
            None => AlignedBuf::scratch(bytes.max(ARENA_BYTES)),
        };
        OpenWrite {
            buf,
            used: WRITE_HEADER_BYTES,
            hash: begin_checksum(self.salt),
            gathered: Vec::with_capacity(self.gathered_last),
            parts: Vec::new(),
            sync: false,
        }
    }

    /// Adds what the entry that was added last refers to.
    pub(crate) fn attach(&mut self, part: Part) {
        let open = self.open.as_mut().expect("its entry is in the open write");
        open.parts.push(part);
    }

    /// Whether a turn's end should seal: something is gathered, a place in flight is free, and what is
    /// gathered is as large as the write that is awaited, in blocks. Else it goes on gathering until that
    /// one is done: each write costs a flush, whatever its size.
    pub(crate) fn should_seal(&self) -> bool {
        let matched = |open: &OpenWrite| {
            self.in_flight
                .back()
                .is_none_or(|ahead| open.used.next_multiple_of(BLOCK_BYTES) as u64 >= ahead.bytes)
        };
        self.may_seal() && self.open.as_ref().is_some_and(matched)
    }

    /// Whether a write that is sealed now may go out.
    pub(crate) fn may_seal(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.len() < IN_FLIGHT_MAX
    }

    /// Seals what is gathered.
    pub(crate) fn seal(&mut self) -> Option<Sealed> {
        let OpenWrite {
            mut buf,
            used,
            mut hash,
            gathered,
            parts,
            sync,
        } = self.open.take()?;
        self.gathered_last = gathered.len();
        let total = used.next_multiple_of(BLOCK_BYTES);
        let sequence = self.next_sequence;
        buf[..8].copy_from_slice(&MAGIC);
        buf[8..16].copy_from_slice(&self.epoch.to_le_bytes());
        buf[16..24].copy_from_slice(&sequence.to_le_bytes());
        buf[24..32].copy_from_slice(&self.previous_checksum.to_le_bytes());
        buf[32..40].copy_from_slice(&self.marks.durable.to_le_bytes());
        buf[40..44].copy_from_slice(&(total as u32).to_le_bytes());
        buf[44..48].copy_from_slice(&(used as u32).to_le_bytes());
        buf[48..52].copy_from_slice(&u32::from(self.core.0).to_le_bytes());
        buf[52..64].fill(0);
        buf[used..total].fill(0);
        hash.update(&buf[..64]);
        let checksum = hash.digest();
        buf[64..72].copy_from_slice(&checksum.to_le_bytes());
        self.next_sequence += 1;
        self.previous_checksum = checksum;
        // What is left of the arena serves the next turn; the sealed part is frozen without a copy.
        let bytes = if total < buf.len() {
            let front = buf.split_to(total);
            self.arena = Some(buf);
            front.freeze()
        } else {
            buf.freeze()
        };
        Some(Sealed {
            sequence,
            bytes,
            gathered,
            parts,
            sync,
        })
    }

    /// Puts a sealed write into the queue for the disk, with what goes beside it.
    pub(crate) fn enqueue(&mut self, sealed: &Sealed, companions: Vec<Companion>) {
        let waiting = Waiting {
            sequence: sealed.sequence,
            bytes: sealed.bytes.clone(),
            sync: sealed.sync,
            companions,
        };
        self.waiting_bytes += waiting.all_bytes();
        self.waiting.push_back(waiting);
    }

    /// The next write that may go to the disk, under `token`, and its sequence or that of the write
    /// that it accompanies.
    pub(crate) fn poll_write(&mut self, token: u64) -> Option<(u64, DurableWrite)> {
        if let Some((sequence, sync, companion)) = self.companions.pop_front() {
            let write = DurableWrite {
                token,
                file: companion.file,
                position: companion.position,
                bytes: companion.bytes,
                sync,
            };
            return Some((sequence, write));
        }
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return None;
        }
        let bytes = self.waiting.front()?.bytes.len() as u64;
        let fits = |file: &JournalFile| file.position + bytes <= file.capacity_bytes;
        if !self.files.back().is_some_and(fits) {
            let at = self.spare.iter().position(fits)?;
            self.files.push_back(self.spare.remove(at));
        }
        let file = self.files.back_mut().expect("a file that fits");
        let waiting = self.waiting.pop_front().expect("looked at above");
        self.waiting_bytes -= waiting.all_bytes();
        let position = FILE_HEAD_BYTES + file.position;
        file.position += bytes;
        file.sequence_last = waiting.sequence;
        let (sequence, sync) = (waiting.sequence, waiting.sync);
        self.in_flight.push_back(InFlight {
            sequence,
            bytes,
            sync,
            left: 1 + waiting.companions.len(),
        });
        let beside = waiting.companions.into_iter();
        self.companions
            .extend(beside.map(|companion| (sequence, sync, companion)));
        let write = DurableWrite {
            token,
            file: file.reference.clone(),
            position,
            bytes: waiting.bytes,
            sync,
        };
        Some((sequence, write))
    }

    /// What stands in the way of the next write or soon will: a file is made ahead.
    /// With `must_grow` beyond the usual number of files too.
    pub(crate) fn poll_need(&mut self, must_grow: bool) -> JournalNeed {
        if self.making {
            return JournalNeed::Nothing;
        }
        let bytes = self
            .waiting
            .front()
            .map_or(0, |write| write.bytes.len() as u64);
        let fits = |file: &JournalFile| file.position + bytes <= file.capacity_bytes;
        let stuck = !self.files.back().is_some_and(fits) && !self.spare.iter().any(fits);
        let current_is_half_full = self
            .files
            .back()
            .is_some_and(|file| file.position * 2 > file.capacity_bytes);
        let ahead = self.spare.is_empty() && current_is_half_full;
        let may_grow = self.files.len() + self.spare.len() < self.files_max;
        // A batch larger than a file gets a file of its own, whatever the count.
        let oversized = bytes > self.file_bytes;
        if (stuck && (may_grow || must_grow || oversized)) || (ahead && may_grow) {
            self.making = true;
            let id = self.next_file;
            self.next_file += 1;
            // The first file is small: zeros of a large one would delay the start.
            let usual = if id == 0 {
                self.file_bytes.min(8 << 20)
            } else {
                self.file_bytes
            };
            return JournalNeed::File {
                id,
                capacity_bytes: usual.max(bytes.next_multiple_of(BLOCK_BYTES as u64)),
            };
        }
        JournalNeed::Nothing
    }

    /// Whether the last file that may be had is in use, or will be soon.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.files.len() > 1 && self.files.len() + 1 >= self.files_max
    }

    /// Bytes that fit into this start's files, and those that may still be made, behind what waits.
    pub(crate) fn room_bytes(&self) -> u64 {
        let current = self
            .files
            .back()
            .map_or(0, |file| file.capacity_bytes - file.position);
        let spare: u64 = self.spare.iter().map(|file| file.capacity_bytes).sum();
        let to_make = self.files_max.saturating_sub(self.files_count()) as u64;
        (current + spare + to_make * self.file_bytes).saturating_sub(self.backlog_bytes())
    }

    /// The last sequence in the oldest files that are freed together, a quarter of all there may be, if a
    /// newer file is in use.
    pub(crate) fn oldest_files_end(&self) -> Option<u64> {
        let newest = self.files.len().checked_sub(1)?;
        let count = (self.files_max / 4).max(1).min(newest);
        Some(self.files.get(count.checked_sub(1)?)?.sequence_last)
    }

    /// The first block of this start's files.
    pub(crate) fn file_head(&self) -> AlignedBuf {
        encode_file_head(self.epoch, self.core, self.salt)
    }

    pub(crate) fn file_path(&self, id: u64) -> PathBuf {
        self.dir.join(journal_file_name(self.epoch, self.core, id))
    }

    /// A file that was asked for exists, is zeroed and flushed.
    pub(crate) fn on_file_made(&mut self, id: u64, capacity_bytes: u64) {
        self.making = false;
        self.spare.push(JournalFile {
            reference: FileRef {
                id,
                path: Rc::new(self.file_path(id)),
            },
            capacity_bytes,
            position: 0,
            sequence_last: 0,
        });
    }

    /// Making a file failed; it may be asked for again.
    pub(crate) fn on_file_failed(&mut self) {
        self.making = false;
    }

    /// A write or a companion of it completed. Returns the marks after it.
    ///
    /// # Panics
    /// If the sequence is not that of a write in flight.
    pub(crate) fn on_write_done(&mut self, sequence: u64, result: &io::Result<()>) -> Marks {
        let write = self
            .in_flight
            .iter_mut()
            .find(|write| write.sequence == sequence)
            .expect("the sequence of a write in flight");
        if result.is_err() {
            // Nothing after a failed write ever becomes durable: the marks stay below it.
            return self.marks;
        }
        write.left -= 1;
        while self.in_flight.front().is_some_and(|write| write.left == 0) {
            let write = self.in_flight.pop_front().expect("just seen");
            // A flush covers its own write only; an earlier write without one holds the mark back
            // until the journal is flushed as a whole.
            if write.sync && self.marks.durable == self.marks.written {
                self.marks.durable = write.sequence;
            }
            self.marks.written = write.sequence;
        }
        self.marks
    }

    /// A flush of every file in use, asked for when `written` was the mark, completed.
    pub(crate) fn on_flushed(&mut self, written: u64) -> Marks {
        self.marks.durable = self.marks.durable.max(written);
        self.marks
    }

    /// The files that may hold unflushed writes.
    pub(crate) fn unflushed_files(&self) -> Vec<Rc<PathBuf>> {
        self.files
            .iter()
            .filter(|file| file.sequence_last > self.marks.durable)
            .map(|file| Rc::clone(&file.reference.path))
            .collect()
    }

    /// Frees the files whose writes all lie below `sequence`: data fsynced in segments and everything
    /// else in a durable checkpoint. One that is not needed any more, of an unusual size or beyond the
    /// usual number, is returned for removal; others like it stay until the next call, since a file
    /// system may be slow to take back much at once.
    pub(crate) fn recycle_below(&mut self, sequence: u64) -> Option<FileRef> {
        while self.files.len() > 1 && self.files[0].sequence_last < sequence {
            let mut file = self.files.pop_front().expect("more than one");
            file.position = 0;
            file.sequence_last = 0;
            self.spare.push(file);
        }
        let usual = self.file_bytes;
        let too_many = self.files.len() + self.spare.len() > self.files_max;
        let unusual = |file: &JournalFile| file.capacity_bytes != usual;
        let at = self.spare.iter().position(unusual);
        let at = at.or_else(|| too_many.then(|| self.spare.len().checked_sub(1)).flatten())?;
        Some(self.spare.remove(at).reference)
    }

    pub(crate) fn marks(&self) -> Marks {
        self.marks
    }

    /// The sequence that the next entry's write will have.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Bytes that are sealed and wait for the disk, or are gathered.
    pub(crate) fn backlog_bytes(&self) -> u64 {
        self.waiting_bytes + self.open.as_ref().map_or(0, |open| open.used as u64)
    }

    pub(crate) fn files_count(&self) -> usize {
        self.files.len() + self.spare.len()
    }

    /// Whether nothing is gathered, waiting or in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_none() && self.waiting.is_empty() && self.in_flight.is_empty()
    }
}

#[cfg(test)]
mod tests;
