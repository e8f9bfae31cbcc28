//! The bytes of a journal: its files' names and heads, writes and entries. Pure code, for the journal
//! that writes them and for recovery that reads them; knows no file that is open.
//!
//! A write is a header followed by entries, padded with zeros to whole blocks. The header carries the
//! start epoch, the core, a sequence that counts writes from 1, the checksum of the write before it,
//! and the newest sequence known durable when it was sealed. Replay follows that chain; where it
//! breaks below a stated durable sequence, acknowledged data is gone and recovery says so.
//!
//! The first block of a file holds a number that was drawn at random for this start, and the checksum of
//! every write in the file begins with it: nobody who may put bytes into a batch can make them look like
//! a write.

use std::ops::Range;
use std::path::{Path, PathBuf};

use ring::buf::{AlignedBuf, BLOCK_BYTES, SECTOR_BYTES};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::types::{CoreId, Offset, TopicId};

/// Bytes of a write's header.
pub(crate) const WRITE_HEADER_BYTES: usize = 72;
/// Bytes of an entry's header.
pub(crate) const ENTRY_HEADER_BYTES: usize = 88;
/// First bytes of every write.
pub(super) const MAGIC: [u8; 8] = *b"millrj\x00\x01";
/// First bytes of every file.
const FILE_MAGIC: [u8; 8] = *b"millrf\x00\x01";
/// The first block of a file, which takes no write.
pub(crate) const FILE_HEAD_BYTES: u64 = BLOCK_BYTES as u64;
/// Entries start at multiples of this within a write.
pub(super) const ENTRY_ALIGN: usize = 8;
/// Batches from this size on are aligned: smaller ones are copied to their segment.
const ALIGNED_PAYLOAD_BYTES_MIN: usize = 12 << 10;

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
    /// Bytes to leave between a header at `header_at` of a write and its payload: a large batch lies in
    /// its write as it does in the sectors of its segment, so that most of it can be written there from
    /// here.
    pub(super) fn lead_bytes(&self, header_at: usize, payload_bytes: usize) -> usize {
        let is_batch = matches!(self.kind, EntryKind::Append | EntryKind::Carried);
        if !is_batch || payload_bytes < ALIGNED_PAYLOAD_BYTES_MIN {
            return 0;
        }
        let payload_at = (header_at + ENTRY_HEADER_BYTES) as u64;
        (self.position.wrapping_sub(payload_at) % SECTOR_BYTES as u64) as usize
    }

    pub(super) fn encode(&self, lead_bytes: usize, payload: &[u8], out: &mut [u8]) {
        out[0] = self.kind.id();
        out[1] = 0;
        out[2..4].copy_from_slice(&(lead_bytes as u16).to_le_bytes());
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

    /// The entry at the start of `bytes` and the place of its payload; `None` if it is not whole and
    /// unharmed.
    fn decode(bytes: &[u8]) -> Option<(Entry, Range<usize>)> {
        let header = bytes.get(..ENTRY_HEADER_BYTES)?;
        let start = ENTRY_HEADER_BYTES + u16_at(header, 2) as usize;
        let place = start..start + u32_at(header, 4) as usize;
        let payload = bytes.get(place.clone())?;
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
        Some((entry, place))
    }
}

fn entry_checksum(header: &[u8], payload: &[u8]) -> u64 {
    // The payload's checksum is chained into the header's: no streaming state per entry.
    xxh3_64(header) ^ xxh3_64(payload).rotate_left(23)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
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
pub(super) fn begin_checksum(salt: u64) -> Xxh3 {
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
        hash.update(entry?.header);
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
    /// As it lies there.
    header: &'a [u8],
    payload: &'a [u8],
    /// Where the payload begins, counted from the write's first byte.
    pub payload_at: usize,
}

impl<'a> RawEntry<'a> {
    pub(crate) fn payload(&self) -> &'a [u8] {
        self.payload
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
        let Some((entry, place)) = Entry::decode(rest) else {
            self.at = self.body.len();
            return Some(None);
        };
        let payload_at = WRITE_HEADER_BYTES + self.at + place.start;
        self.at += place.end.next_multiple_of(ENTRY_ALIGN);
        Some(Some(RawEntry {
            entry,
            header: &rest[..ENTRY_HEADER_BYTES],
            payload: &rest[place],
            payload_at,
        }))
    }
}
