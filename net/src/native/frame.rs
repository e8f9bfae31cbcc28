//! Whole native frames: checking and taking apart what was received, putting together what is sent. Lives
//! on the thread that holds the bytes; trusts none of them, allocates nothing to read them, and knows
//! what a body is only by its type.

use std::fmt;

use rkyv::api::low::{LowSerializer, LowValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Failure;
use rkyv::ser::Writer;
use rkyv::ser::allocator::SubAllocator;
use rkyv::vec::ArchivedVec;
use rkyv::{Portable, Serialize};
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::IntoBytes;

use super::header::{CHECKSUM_BYTES, HEADER_BYTES, Header, Kind, MAGIC, RECORDS_ALIGN_BYTES};

/// Why received bytes are not a frame that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The magic is another.
    Magic,
    /// The lengths in the header and that of the frame differ.
    Length,
    /// Header and body are not as they were sent.
    Checksum,
    /// The bytes between body and records are not zero.
    Padding,
    /// No kind has that number.
    Kind(u8),
    /// The body is no archive of what the kind demands, or points outside of itself.
    Body,
    /// A text is no UTF-8, or not inside the table of texts.
    Text,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Magic => f.write_str("not a native frame"),
            Fault::Length => f.write_str("the lengths in the header are not those of the frame"),
            Fault::Checksum => f.write_str("the checksum of header and body is wrong"),
            Fault::Padding => f.write_str("the bytes between body and records are not zero"),
            Fault::Kind(kind) => write!(f, "kind {kind:#04x} is unknown"),
            Fault::Body => f.write_str("the body is malformed"),
            Fault::Text => f.write_str("a text is not UTF-8, or lies outside of the texts"),
        }
    }
}

impl std::error::Error for Fault {}

/// A frame whose header and body are as they were sent.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The version of the body.
    pub version: u8,
    /// What it is.
    pub kind: Kind,
    /// Bits of the kind.
    pub flags: u16,
    /// Which request it is, or answers.
    pub correlation_id: u64,
    /// The archive; read it with [`read`].
    pub body: &'a [u8],
    /// Record batches, not looked at.
    pub records: &'a [u8],
}

/// Takes a whole frame apart: magic, lengths, padding, checksum, kind.
///
/// # Errors
/// The first that is wrong.
pub fn decode(frame: &[u8]) -> Result<Frame<'_>, Fault> {
    let header = Header::from_prefix(frame).ok_or(Fault::Length)?;
    if header.magic != MAGIC {
        return Err(Fault::Magic);
    }
    if header.frame_bytes() != frame.len() as u64 {
        return Err(Fault::Length);
    }
    // It fits the frame, whose length is a usize.
    let (front, records) = frame.split_at(header.records_start() as usize);
    if header.checksum.get() != xxh3_64(&front[CHECKSUM_BYTES..]) {
        return Err(Fault::Checksum);
    }
    let (body, padding) = front[HEADER_BYTES..].split_at(header.body_bytes.get() as usize);
    if padding.iter().any(|byte| *byte != 0) {
        return Err(Fault::Padding);
    }
    let kind = Kind::from_number(header.kind).ok_or(Fault::Kind(header.kind))?;
    Ok(Frame {
        version: header.version,
        kind,
        flags: header.flags.get(),
        correlation_id: header.correlation_id.get(),
        body,
        records,
    })
}

/// Reads a body in place, after checking that all of it can be read.
///
/// # Errors
/// [`Fault::Body`].
pub fn read<T>(body: &[u8]) -> Result<&T, Fault>
where
    T: Portable + for<'a> CheckBytes<LowValidator<'a, Failure>>,
{
    rkyv::api::low::access::<T, Failure>(body).map_err(|_| Fault::Body)
}

/// A text of a body's table of texts.
///
/// # Errors
/// [`Fault::Text`].
pub fn read_text(texts: &[u8], start: u32, bytes: u32) -> Result<&str, Fault> {
    let start = start as usize;
    let end = start.checked_add(bytes as usize).ok_or(Fault::Text)?;
    let text = texts.get(start..end).ok_or(Fault::Text)?;
    std::str::from_utf8(text).map_err(|_| Fault::Text)
}

/// What a body of the protocol can be archived with: nothing on the heap.
pub type BodySerializer<'a> = LowSerializer<&'a mut Vec<u8>, SubAllocator<'a>, Failure>;

/// Header, body and padding of a frame, behind which its `records_bytes` bytes of records are to be sent.
///
/// # Panics
/// If the body is 4 GiB or more; callers bound what they put into it.
pub fn encode<T>(
    version: u8,
    kind: Kind,
    flags: u16,
    correlation_id: u64,
    body: &T,
    records_bytes: u32,
) -> Vec<u8>
where
    T: for<'a> Serialize<BodySerializer<'a>>,
{
    let mut frame = Vec::with_capacity(192);
    encode_into(
        &mut frame,
        version,
        kind,
        flags,
        correlation_id,
        body,
        records_bytes,
    );
    frame
}

/// As [`encode`], behind what `out` holds.
pub fn encode_into<T>(
    out: &mut Vec<u8>,
    version: u8,
    kind: Kind,
    flags: u16,
    correlation_id: u64,
    body: &T,
    records_bytes: u32,
) where
    T: for<'a> Serialize<BodySerializer<'a>>,
{
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    let mut no_scratch = [];
    rkyv::api::low::to_bytes_in_with_alloc::<_, _, Failure>(
        body,
        &mut *out,
        SubAllocator::new(&mut no_scratch),
    )
    .expect("a body of rows of fixed size needs no scratch space");
    let body_bytes = out.len() - start - HEADER_BYTES;
    let front_bytes = (HEADER_BYTES + body_bytes).next_multiple_of(RECORDS_ALIGN_BYTES);
    out.resize(start + front_bytes, 0);
    let mut header = Header {
        checksum: 0.into(),
        magic: MAGIC,
        version,
        kind: kind as u8,
        flags: flags.into(),
        body_bytes: u32::try_from(body_bytes)
            .expect("a body below 4 GiB")
            .into(),
        records_bytes: records_bytes.into(),
        correlation_id: correlation_id.into(),
    };
    out[start..start + HEADER_BYTES].copy_from_slice(header.as_bytes());
    header.checksum = xxh3_64(&out[start + CHECKSUM_BYTES..]).into();
    out[start..start + CHECKSUM_BYTES].copy_from_slice(header.checksum.as_bytes());
}

/// The bytes of an archived table of texts.
pub fn texts(table: &ArchivedVec<u8>) -> &[u8] {
    table.as_slice()
}

/// Appends a text to a table of texts; gives its start and length.
pub fn push_text(texts: &mut Vec<u8>, text: &str) -> (u32, u32) {
    let start = u32::try_from(texts.len()).expect("texts below 4 GiB");
    texts.extend_from_slice(text.as_bytes());
    let bytes = u32::try_from(text.len()).expect("a text below 4 GiB");
    (start, bytes)
}

const _: () = {
    // `Vec<u8>` is where archives are written; its `Writer` only appends.
    const fn is_writer<W: Writer<Failure>>() {}
    is_writer::<Vec<u8>>();
};
