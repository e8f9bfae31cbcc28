//! The journal of one core in one log directory: the bytes of its writes, and the state machine that
//! gathers a turn's entries, orders writes and knows what is durable. Lives on the core that owns the
//! partitions; knows no segment, no checkpoint and does no I/O.
//!
//! A write is a header followed by entries, padded with zeros to whole blocks. The header carries the
//! start epoch, the core, a sequence that counts writes from 1, the checksum of the write before it,
//! and the newest sequence known durable when it was sealed. Replay follows that chain; where it
//! breaks below a stated durable sequence, acknowledged data is gone and recovery says so.
//!
//! Every write starts on a block of its own, so a torn write never touches an older one. At most two
//! are in flight; the durable sequence is the contiguous prefix of what completed.
//!
//! The first block of a file holds a number that was drawn at random for this start, and the checksum of
//! every write in the file begins with it: nobody who may put bytes into a batch can make them look like
//! a write.
//!
//! A write may have companions: bytes that go to other files at the same time, and that entries of the
//! write refer to. It counts as written, and as durable, when its companions are too; so a durable
//! sequence that a header states also says that what was referred to up to there is safe.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ring::buf::{AlignedBuf, BLOCK_BYTES, Shared};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::store::{DurableWrite, FileRef, LogId, Part};
use crate::types::{CoreId, Offset, TopicId};

/// Bytes of a write's header.
pub(crate) const WRITE_HEADER_BYTES: usize = 72;
/// Bytes of an entry's header.
pub(crate) const ENTRY_HEADER_BYTES: usize = 88;
/// First bytes of every write.
const MAGIC: [u8; 8] = *b"millrj\x00\x01";
/// First bytes of every file.
const FILE_MAGIC: [u8; 8] = *b"millrf\x00\x01";
/// The first block of a file, which takes no write.
pub(crate) const FILE_HEAD_BYTES: u64 = BLOCK_BYTES as u64;
/// Entries start at multiples of this within a write.
const ENTRY_ALIGN: usize = 8;
/// How many writes may be in flight at once.
const IN_FLIGHT_MAX: usize = 2;
/// Size of the buffers that turns are gathered into; larger batches get one of their own.
const ARENA_BYTES: usize = 512 << 10;
/// A write is sealed early when it has grown to this, so that one flush does not wait for a flood.
pub(crate) const WRITE_BYTES_MAX: usize = 4 << 20;

/// What an entry redoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// The payload is one batch at `position` of the segment at `segment_base`.
    Append,
    /// As `Append`, written again at a start: the bytes only, everything else is in the checkpoint.
    Carried,
    /// The payload is the head of a settled tail block at `position`.
    TailBlock,
    /// The partition was made; the payload is its topic's name.
    Created,
    /// The segment at `segment_base` ends at `position` bytes and `offset_end`; the next one begins
    /// there, at wall time `value`.
    SegmentClosed,
    /// The log starts at `base_offset`.
    LogStart,
    /// The partition is deleted.
    Deleted,
    /// Compaction replaced segments; the payload is an encoded list, see `checkpoint`.
    Replaced,
    /// Batches from `position` on were written to the segment directly; the payload is a
    /// [`Reference`](crate::reference::Reference).
    Straight,
}

impl EntryKind {
    fn id(self) -> u8 {
        match self {
            EntryKind::Append => 1,
            EntryKind::Carried => 2,
            EntryKind::TailBlock => 3,
            EntryKind::Created => 4,
            EntryKind::SegmentClosed => 5,
            EntryKind::LogStart => 6,
            EntryKind::Deleted => 7,
            EntryKind::Replaced => 8,
            EntryKind::Straight => 9,
        }
    }

    fn from_id(id: u8) -> Option<EntryKind> {
        Some(match id {
            1 => EntryKind::Append,
            2 => EntryKind::Carried,
            3 => EntryKind::TailBlock,
            4 => EntryKind::Created,
            5 => EntryKind::SegmentClosed,
            6 => EntryKind::LogStart,
            7 => EntryKind::Deleted,
            8 => EntryKind::Replaced,
            9 => EntryKind::Straight,
            _ => return None,
        })
    }
}

/// An entry without its payload: physical redo, so every field says exactly where bytes belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub kind: EntryKind,
    pub topic_id: TopicId,
    pub partition: i32,
    /// Which life of the partition; entries of another are dead.
    pub incarnation: u64,
    pub segment_base: Offset,
    pub position: u64,
    pub base_offset: Offset,
    pub offset_end: Offset,
    pub value: i64,
}

impl Entry {
    fn encode(&self, payload: &[u8], out: &mut [u8]) {
        out[0] = self.kind.id();
        out[1..4].fill(0);
        out[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        out[8..24].copy_from_slice(self.topic_id.as_bytes());
        out[24..28].copy_from_slice(&self.partition.to_le_bytes());
        out[28..32].fill(0);
        out[32..40].copy_from_slice(&self.incarnation.to_le_bytes());
        out[40..48].copy_from_slice(&self.segment_base.0.to_le_bytes());
        out[48..56].copy_from_slice(&self.position.to_le_bytes());
        out[56..64].copy_from_slice(&self.base_offset.0.to_le_bytes());
        out[64..72].copy_from_slice(&self.offset_end.0.to_le_bytes());
        out[72..80].copy_from_slice(&self.value.to_le_bytes());
        let checksum = entry_checksum(&out[..80], payload);
        out[80..88].copy_from_slice(&checksum.to_le_bytes());
    }

    /// The entry at the start of `bytes` and its payload; `None` if it is not whole and unharmed.
    fn decode(bytes: &[u8]) -> Option<(Entry, &[u8])> {
        let header = bytes.get(..ENTRY_HEADER_BYTES)?;
        let payload_bytes = u32_at(header, 4) as usize;
        let payload = bytes[ENTRY_HEADER_BYTES..].get(..payload_bytes)?;
        if entry_checksum(&header[..80], payload) != u64_at(header, 80) {
            return None;
        }
        let entry = Entry {
            kind: EntryKind::from_id(header[0])?,
            topic_id: TopicId::from_bytes(header[8..24].try_into().ok()?),
            partition: u32_at(header, 24) as i32,
            incarnation: u64_at(header, 32),
            segment_base: Offset(u64_at(header, 40) as i64),
            position: u64_at(header, 48),
            base_offset: Offset(u64_at(header, 56) as i64),
            offset_end: Offset(u64_at(header, 64) as i64),
            value: u64_at(header, 72) as i64,
        };
        Some((entry, payload))
    }
}

fn entry_checksum(header: &[u8], payload: &[u8]) -> u64 {
    // The payload's checksum is chained into the header's: no streaming state per entry.
    xxh3_64(header) ^ xxh3_64(payload).rotate_left(23)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The header of a write that was found on disk, whole and unharmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriteHeader {
    pub epoch: u64,
    pub core: CoreId,
    pub sequence: u64,
    pub previous_checksum: u64,
    pub durable_sequence: u64,
    /// Bytes of the whole write, padding included.
    pub total_bytes: u32,
    /// Bytes of header and entries.
    pub used_bytes: u32,
    pub checksum: u64,
}

/// The first block of a file.
pub(crate) fn encode_file_head(epoch: u64, core: CoreId, salt: u64) -> AlignedBuf {
    let mut head = AlignedBuf::zeroed(FILE_HEAD_BYTES as usize);
    head[..8].copy_from_slice(&FILE_MAGIC);
    head[8..16].copy_from_slice(&epoch.to_le_bytes());
    head[16..24].copy_from_slice(&salt.to_le_bytes());
    head[24..28].copy_from_slice(&u32::from(core.0).to_le_bytes());
    let checksum = xxh3_64(&head[..32]);
    head[32..40].copy_from_slice(&checksum.to_le_bytes());
    head
}

/// The salt of the file of this start and core that begins with `bytes`; `None` if they are no whole and
/// unharmed first block.
pub(crate) fn decode_file_head(bytes: &[u8], epoch: u64, core: CoreId) -> Option<u64> {
    let head = bytes.get(..40)?;
    let whole = head[..8] == FILE_MAGIC
        && u64_at(head, 8) == epoch
        && u32_at(head, 24) == u32::from(core.0)
        && u64_at(head, 32) == xxh3_64(&head[..32]);
    whole.then(|| u64_at(head, 16))
}

/// What the checksum of a write begins with.
fn begin_checksum(salt: u64) -> Xxh3 {
    let mut hash = Xxh3::new();
    hash.update(&salt.to_le_bytes());
    hash
}

/// Reads the write at the start of `bytes` in a file with this salt; `None` if there is none, or it is
/// torn or rotten.
pub(crate) fn decode_write(bytes: &[u8], salt: u64) -> Option<WriteHeader> {
    let header = peek_write(bytes)?;
    let body = bytes.get(WRITE_HEADER_BYTES..header.used_bytes as usize)?;
    let mut hash = begin_checksum(salt);
    for entry in Entries::new(body) {
        hash.update(&entry?.raw[..ENTRY_HEADER_BYTES]);
    }
    hash.update(&bytes[..64]);
    (hash.digest() == header.checksum).then_some(header)
}

/// Reads a write's header without checking its checksum: how many bytes [`decode_write`] needs.
pub(crate) fn peek_write(bytes: &[u8]) -> Option<WriteHeader> {
    let head = bytes.get(..WRITE_HEADER_BYTES)?;
    if head[..8] != MAGIC {
        return None;
    }
    let header = WriteHeader {
        epoch: u64_at(head, 8),
        sequence: u64_at(head, 16),
        previous_checksum: u64_at(head, 24),
        durable_sequence: u64_at(head, 32),
        total_bytes: u32_at(head, 40),
        used_bytes: u32_at(head, 44),
        core: CoreId(u32_at(head, 48) as u16),
        checksum: u64_at(head, 64),
    };
    let sane = header.used_bytes as usize >= WRITE_HEADER_BYTES
        && header.total_bytes >= header.used_bytes
        && (header.total_bytes as usize).is_multiple_of(BLOCK_BYTES);
    sane.then_some(header)
}

/// An entry as it lies in a write.
pub(crate) struct RawEntry<'a> {
    pub entry: Entry,
    /// Header and payload.
    pub raw: &'a [u8],
    /// Where the payload begins, counted from the write's first byte.
    pub payload_at: usize,
}

impl<'a> RawEntry<'a> {
    pub(crate) fn payload(&self) -> &'a [u8] {
        &self.raw[ENTRY_HEADER_BYTES..]
    }
}

/// Walks the entries behind a write's header; yields `None` once where an entry is harmed.
pub(crate) struct Entries<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Entries<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Entries<'a> {
        Entries { body, at: 0 }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Option<RawEntry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.body.len() {
            return None;
        }
        let rest = &self.body[self.at..];
        let Some((entry, payload)) = Entry::decode(rest) else {
            self.at = self.body.len();
            return Some(None);
        };
        let bytes = ENTRY_HEADER_BYTES + payload.len();
        let payload_at = WRITE_HEADER_BYTES + self.at + ENTRY_HEADER_BYTES;
        self.at += bytes.next_multiple_of(ENTRY_ALIGN);
        Some(Some(RawEntry {
            entry,
            raw: &rest[..bytes],
            payload_at,
        }))
    }
}

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
    waiting: VecDeque<Waiting>,
    waiting_bytes: u64,
    in_flight: VecDeque<InFlight>,
    /// Companions of writes that are out, with the write's sequence and whether to flush.
    companions: VecDeque<(u64, bool, Companion)>,
    next_sequence: u64,
    previous_checksum: u64,
    marks: Marks,
}

/// The directory of a log directory's journals.
pub(crate) fn journal_dir(dir: &Path) -> PathBuf {
    dir.join(".millrace").join("journal")
}

/// The name of a journal file.
pub(crate) fn journal_file_name(epoch: u64, core: CoreId, file: u64) -> String {
    format!("{epoch:016x}-{:04x}-{file:08x}.jnl", core.0)
}

/// Epoch and core of a journal file's name.
pub(crate) fn parse_journal_file_name(name: &str) -> Option<(u64, CoreId)> {
    let mut parts = name.strip_suffix(".jnl")?.split('-');
    let epoch = u64::from_str_radix(parts.next()?, 16).ok()?;
    let core = u16::from_str_radix(parts.next()?, 16).ok()?;
    u64::from_str_radix(parts.next()?, 16).ok()?;
    parts.next().is_none().then_some((epoch, CoreId(core)))
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
        let entry_bytes = (ENTRY_HEADER_BYTES + payload_bytes).next_multiple_of(ENTRY_ALIGN);
        let full = self.open.as_ref().is_some_and(|open| {
            open.used + entry_bytes > open.buf.len() || open.used > WRITE_BYTES_MAX
        });
        let sealed = if full { self.seal() } else { None };
        if self.open.is_none() {
            self.open = Some(self.begin_write(WRITE_HEADER_BYTES + entry_bytes));
        }
        let open = self.open.as_mut().expect("just begun");
        let start = open.used;
        let range = start + ENTRY_HEADER_BYTES..start + ENTRY_HEADER_BYTES + payload_bytes;
        let (head, rest) = open.buf[start..].split_at_mut(ENTRY_HEADER_BYTES);
        let (payload, padding) =
            rest[..entry_bytes - ENTRY_HEADER_BYTES].split_at_mut(payload_bytes);
        padding.fill(0);
        fill(payload);
        entry.encode(payload, head);
        open.hash.update(head);
        open.used = start + entry_bytes;
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
            gathered: Vec::new(),
            parts: Vec::new(),
            sync: false,
        }
    }

    /// Adds what the entry that was added last refers to.
    pub(crate) fn attach(&mut self, part: Part) {
        let open = self.open.as_mut().expect("its entry is in the open write");
        open.parts.push(part);
    }

    /// Whether a turn's end should seal: something is gathered and a place in flight is free. Else it
    /// goes on gathering for the next write.
    pub(crate) fn should_seal(&self) -> bool {
        self.open.is_some() && self.may_seal()
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

    /// Whether files should be freed: early, so that the work has time while the rest is filled.
    pub(crate) fn is_pressed(&self) -> bool {
        self.files.len() > 1 && self.files.len() * 2 >= self.files_max
    }

    /// Whether the last file that may be had is in use, or will be soon.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.files.len() > 1 && self.files.len() + 1 >= self.files_max
    }

    /// The last sequence in the oldest file, if a newer file is in use.
    pub(crate) fn oldest_file_end(&self) -> Option<u64> {
        (self.files.len() > 1).then(|| self.files[0].sequence_last)
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
