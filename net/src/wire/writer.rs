//! Gathers a message as the list of buffers that a socket sends: small fields in one buffer, record
//! data as it is, without a copy. Lives on the core whose socket sends it; knows no message.

use ring::buf::{Chunk, Shared};
use uuid::Uuid;

use super::reader::STRING_BYTES_MAX;

/// Most answers are no larger, record data aside.
const ANSWER_BYTES: usize = 128;

/// Record data that stands between two gathered bytes.
#[derive(Debug)]
struct Insert {
    /// How many gathered bytes go before it.
    at: usize,
    /// Its length, known when its place is made.
    bytes: usize,
    /// What fills the place; `None` until then.
    chunks: Option<Vec<Chunk>>,
}

/// Collects a message. Field writers cannot fail: a value too large for its length field is a bug of
/// the caller and panics.
#[derive(Debug, Default)]
pub struct Writer {
    gathered: Vec<u8>,
    inserts: Vec<Insert>,
    inserted_bytes: usize,
    filled_count: usize,
    framed: bool,
}

impl Writer {
    /// A writer of bare bytes.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// A writer whose output starts with the four bytes that tell the size of the rest.
    pub fn framed() -> Writer {
        let mut gathered = Vec::with_capacity(ANSWER_BYTES);
        gathered.extend([0; 4]);
        Writer {
            gathered,
            framed: true,
            ..Writer::default()
        }
    }

    /// Makes room for `bytes` more gathered bytes.
    pub fn reserve(&mut self, bytes: usize) {
        self.gathered.reserve(bytes);
    }

    /// How many bytes have been written, record data and size prefix included.
    pub fn total_bytes(&self) -> usize {
        self.gathered.len() + self.inserted_bytes
    }

    /// A place among the gathered bytes to come back to with a `patch`.
    pub fn position(&self) -> usize {
        self.gathered.len()
    }

    /// Overwrites the four bytes that were gathered at `position`.
    pub fn patch_i32(&mut self, position: usize, value: i32) {
        self.gathered[position..position + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// Overwrites the two bytes that were gathered at `position`.
    pub fn patch_i16(&mut self, position: usize, value: i16) {
        self.gathered[position..position + 2].copy_from_slice(&value.to_be_bytes());
    }

    /// Copies bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.gathered.extend_from_slice(bytes);
    }

    /// A byte.
    pub fn u8(&mut self, value: u8) {
        self.gathered.push(value);
    }

    /// A signed byte.
    pub fn i8(&mut self, value: i8) {
        self.raw(&value.to_be_bytes());
    }

    /// A boolean.
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// A 16-bit signed number.
    pub fn i16(&mut self, value: i16) {
        self.raw(&value.to_be_bytes());
    }

    /// A 16-bit unsigned number.
    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    /// A 32-bit signed number.
    pub fn i32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    /// A 32-bit unsigned number.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    /// A 64-bit signed number.
    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    /// A double.
    pub fn f64(&mut self, value: f64) {
        self.raw(&value.to_be_bytes());
    }

    /// A UUID: 16 bytes.
    pub fn uuid(&mut self, value: &Uuid) {
        self.raw(value.as_bytes());
    }

    /// An unsigned number, seven bits to a byte, low bits first.
    pub fn unsigned_varint(&mut self, value: u32) {
        self.unsigned_varlong(u64::from(value));
    }

    /// An unsigned number of up to 64 bits, seven to a byte, low bits first.
    pub fn unsigned_varlong(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }

    /// A zigzag number of up to 32 bits.
    pub fn varint(&mut self, value: i32) {
        self.unsigned_varint(((value << 1) ^ (value >> 31)) as u32);
    }

    /// A zigzag number of up to 64 bits.
    pub fn varlong(&mut self, value: i64) {
        self.unsigned_varlong(((value << 1) ^ (value >> 63)) as u64);
    }

    /// A string with a 16-bit length (or a compact one, if `flexible`). One that is longer than the
    /// protocol allows, such as a message that repeats a stranger's long name, loses its end.
    pub fn nullable_string(&mut self, value: Option<&str>, flexible: bool) {
        let value = value.map(|text| &text[..text.floor_char_boundary(STRING_BYTES_MAX)]);
        match (value, flexible) {
            (Some(text), true) => self.compact_length(text.len()),
            (Some(text), false) => self.u16(text.len() as u16),
            (None, true) => self.u8(0),
            (None, false) => self.i16(-1),
        }
        self.raw(value.unwrap_or_default().as_bytes());
    }

    /// A string that is not null.
    pub fn string(&mut self, value: &str, flexible: bool) {
        self.nullable_string(Some(value), flexible);
    }

    /// Bytes with a 32-bit length (or a compact one, if `flexible`), copied.
    pub fn nullable_bytes(&mut self, value: Option<&[u8]>, flexible: bool) {
        self.nullable_length(value.map(<[u8]>::len), flexible);
        self.raw(value.unwrap_or_default());
    }

    /// Bytes that are not null.
    pub fn bytes(&mut self, value: &[u8], flexible: bool) {
        self.nullable_bytes(Some(value), flexible);
    }

    /// The 32-bit (or compact, if `flexible`) length of bytes, or element count of an array.
    pub fn nullable_length(&mut self, length: Option<usize>, flexible: bool) {
        match (length, flexible) {
            (Some(length), true) => self.compact_length(length),
            (Some(length), false) => {
                self.i32(i32::try_from(length).expect("a length of at most 2 GiB"));
            }
            (None, true) => self.u8(0),
            (None, false) => self.i32(-1),
        }
    }

    fn compact_length(&mut self, length: usize) {
        self.unsigned_varint(u32::try_from(length + 1).expect("a length of at most 4 GiB"));
    }

    /// A section of no tagged fields.
    pub fn no_tagged_fields(&mut self) {
        self.u8(0);
    }

    /// One tagged field; the number of them must stand before the first.
    pub fn tagged_field(&mut self, tag: u32, write: impl FnOnce(&mut Writer)) {
        let mut field = Writer::new();
        write(&mut field);
        assert!(field.inserts.is_empty(), "record data in a tagged field");
        self.unsigned_varint(tag);
        self.unsigned_varint(u32::try_from(field.gathered.len()).expect("a small field"));
        self.raw(&field.gathered);
    }

    /// Appends a buffer without copying it.
    pub fn chunk(&mut self, chunk: Chunk) {
        self.leave_gap(chunk.len());
        self.fill_gap(vec![chunk]);
    }

    /// Keeps a place for `bytes` bytes of record data, for a later [`fill_gap`](Writer::fill_gap).
    pub fn leave_gap(&mut self, bytes: usize) {
        self.inserts.push(Insert {
            at: self.gathered.len(),
            bytes,
            chunks: None,
        });
        self.inserted_bytes += bytes;
    }

    /// Puts record data into the first place that is still empty.
    ///
    /// # Panics
    /// If there is no such place, or its length is another.
    pub fn fill_gap(&mut self, chunks: Vec<Chunk>) {
        let gap = self
            .inserts
            .get_mut(self.filled_count)
            .expect("a gap to fill");
        let bytes: usize = chunks.iter().map(|chunk| chunk.len()).sum();
        assert_eq!(bytes, gap.bytes, "the gap was left for another length");
        gap.chunks = Some(chunks);
        self.filled_count += 1;
    }

    /// The message as what a socket sends, in order.
    ///
    /// # Panics
    /// If a gap was left empty, or a framed message passes 2 GiB.
    pub fn into_chunks(mut self) -> Vec<Chunk> {
        assert_eq!(self.filled_count, self.inserts.len(), "an empty gap");
        self.patch_size();
        let gathered = Shared::from(self.gathered);
        let mut out = Vec::with_capacity(2 * self.inserts.len() + 1);
        let mut sent = 0;
        for insert in self.inserts {
            if insert.at > sent {
                out.push(Chunk::Local(gathered.slice(sent..insert.at)));
                sent = insert.at;
            }
            // A lease goes along even if it is empty, so that it comes home.
            out.extend(
                insert
                    .chunks
                    .into_iter()
                    .flatten()
                    .filter(|chunk| !chunk.is_empty() || matches!(chunk, Chunk::Leased(_))),
            );
        }
        if gathered.len() > sent {
            out.push(Chunk::Local(gathered.slice(sent..gathered.len())));
        }
        out
    }

    /// The message as one run of bytes; copies record data. For tools and tests: a leased chunk would
    /// not come home.
    pub fn into_bytes(mut self) -> Vec<u8> {
        if self.inserts.is_empty() {
            self.patch_size();
            return self.gathered;
        }
        let mut out = Vec::with_capacity(self.total_bytes());
        for chunk in self.into_chunks() {
            out.extend_from_slice(&chunk);
        }
        out
    }

    fn patch_size(&mut self) {
        if self.framed {
            let size = i32::try_from(self.total_bytes() - 4).expect("a frame below 2 GiB");
            self.patch_i32(0, size);
        }
    }
}
