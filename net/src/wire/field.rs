//! The types that message fields have, and how each goes over the wire in a given version. Lives on
//! whichever core holds the frame; knows no particular message.

use std::borrow::Cow;

use ring::buf::Chunk;
use uuid::Uuid;

use super::{DecodeError, Reader, Writer};
use crate::fuzz::Random;

/// What a field's form depends on.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The version of the message.
    pub version: i16,
    /// Whether that version has compact lengths and tagged fields (KIP-482).
    pub flexible: bool,
    /// Whether this field may be null in that version.
    pub nullable: bool,
}

impl Context {
    pub(crate) fn with_nullable(self, nullable: bool) -> Context {
        Context { nullable, ..self }
    }
}

/// A type that a message field can have.
pub trait Field<'a>: Sized {
    /// The fewest bytes that a value takes on the wire.
    fn bytes_min(cx: Context) -> usize;
    /// Reads one value.
    fn read(reader: &mut Reader<'a>, cx: Context) -> Result<Self, DecodeError>;
    /// Writes this value.
    fn write(&self, writer: &mut Writer, cx: Context);
    /// Makes up a value for tests and fuzzing, of which nothing is lost on the wire.
    fn sample(random: &mut Random, cx: Context) -> Self;
}

macro_rules! number_fields {
    ($($type:ty, $method:ident);* $(;)?) => {$(
        impl<'a> Field<'a> for $type {
            fn bytes_min(_: Context) -> usize {
                size_of::<$type>()
            }
            fn read(reader: &mut Reader<'a>, _: Context) -> Result<Self, DecodeError> {
                reader.$method()
            }
            fn write(&self, writer: &mut Writer, _: Context) {
                writer.$method(*self);
            }
            fn sample(random: &mut Random, _: Context) -> Self {
                random.number() as $type
            }
        }
    )*};
}

number_fields! {
    i8, i8;
    i16, i16;
    u16, u16;
    i32, i32;
    u32, u32;
    i64, i64;
    f64, f64;
}

impl<'a> Field<'a> for bool {
    fn bytes_min(_: Context) -> usize {
        1
    }
    fn read(reader: &mut Reader<'a>, _: Context) -> Result<Self, DecodeError> {
        reader.bool()
    }
    fn write(&self, writer: &mut Writer, _: Context) {
        writer.bool(*self);
    }
    fn sample(random: &mut Random, _: Context) -> Self {
        random.below(2) == 1
    }
}

impl<'a> Field<'a> for Uuid {
    fn bytes_min(_: Context) -> usize {
        16
    }
    fn read(reader: &mut Reader<'a>, _: Context) -> Result<Self, DecodeError> {
        reader.uuid()
    }
    fn write(&self, writer: &mut Writer, _: Context) {
        writer.uuid(self);
    }
    fn sample(random: &mut Random, _: Context) -> Self {
        Uuid::from_u64_pair(random.bits(), random.bits())
    }
}

impl<'a> Field<'a> for Cow<'a, str> {
    fn bytes_min(cx: Context) -> usize {
        if cx.flexible { 1 } else { 2 }
    }
    fn read(reader: &mut Reader<'a>, cx: Context) -> Result<Self, DecodeError> {
        reader.string(cx.flexible)
    }
    fn write(&self, writer: &mut Writer, cx: Context) {
        writer.string(self, cx.flexible);
    }
    fn sample(random: &mut Random, _: Context) -> Self {
        Cow::Owned(random.text())
    }
}

impl<'a> Field<'a> for Option<Cow<'a, str>> {
    fn bytes_min(cx: Context) -> usize {
        if cx.flexible { 1 } else { 2 }
    }
    fn read(reader: &mut Reader<'a>, cx: Context) -> Result<Self, DecodeError> {
        let value = reader.nullable_string(cx.flexible)?;
        not_null(value, cx)
    }
    fn write(&self, writer: &mut Writer, cx: Context) {
        writer.nullable_string(or_empty(self.as_deref(), cx), cx.flexible);
    }
    fn sample(random: &mut Random, cx: Context) -> Self {
        sample_present(random, cx).then(|| Cow::Owned(random.text()))
    }
}

impl<'a> Field<'a> for Cow<'a, [u8]> {
    fn bytes_min(cx: Context) -> usize {
        if cx.flexible { 1 } else { 4 }
    }
    fn read(reader: &mut Reader<'a>, cx: Context) -> Result<Self, DecodeError> {
        reader.bytes(cx.flexible).map(Cow::Borrowed)
    }
    fn write(&self, writer: &mut Writer, cx: Context) {
        writer.bytes(self, cx.flexible);
    }
    fn sample(random: &mut Random, _: Context) -> Self {
        Cow::Owned(random.bytes())
    }
}

/// The record data of a Produce request: borrowed from the frame, or null.
impl<'a> Field<'a> for Option<&'a [u8]> {
    fn bytes_min(cx: Context) -> usize {
        if cx.flexible { 1 } else { 4 }
    }
    fn read(reader: &mut Reader<'a>, cx: Context) -> Result<Self, DecodeError> {
        let value = reader.nullable_bytes(cx.flexible)?;
        not_null(value, cx)
    }
    fn write(&self, writer: &mut Writer, cx: Context) {
        writer.nullable_bytes(or_empty(*self, cx), cx.flexible);
    }
    fn sample(random: &mut Random, cx: Context) -> Self {
        const SOME: &[u8] = b"record data is opaque to the codec";
        sample_present(random, cx).then(|| &SOME[..random.below(SOME.len() as u64) as usize])
    }
}

impl<'a, T: Field<'a>> Field<'a> for Vec<T> {
    fn bytes_min(cx: Context) -> usize {
        if cx.flexible { 1 } else { 4 }
    }
    fn read(reader: &mut Reader<'a>, cx: Context) -> Result<Self, DecodeError> {
        read_array(reader, cx)?.ok_or(DecodeError::Null)
    }
    fn write(&self, writer: &mut Writer, cx: Context) {
        write_array(Some(self), writer, cx);
    }
    fn sample(random: &mut Random, cx: Context) -> Self {
        let element = cx.with_nullable(false);
        (0..random.below(3))
            .map(|_| T::sample(random, element))
            .collect()
    }
}

impl<'a, T: Field<'a>> Field<'a> for Option<Vec<T>> {
    fn bytes_min(cx: Context) -> usize {
        if cx.flexible { 1 } else { 4 }
    }
    fn read(reader: &mut Reader<'a>, cx: Context) -> Result<Self, DecodeError> {
        let value = read_array(reader, cx)?;
        not_null(value, cx)
    }
    fn write(&self, writer: &mut Writer, cx: Context) {
        write_array(or_empty(self.as_deref(), cx), writer, cx);
    }
    fn sample(random: &mut Random, cx: Context) -> Self {
        sample_present(random, cx).then(|| Vec::sample(random, cx))
    }
}

fn read_array<'a, T: Field<'a>>(
    reader: &mut Reader<'a>,
    cx: Context,
) -> Result<Option<Vec<T>>, DecodeError> {
    let element = cx.with_nullable(false);
    let count = reader.array_count(cx.flexible, T::bytes_min(element), size_of::<T>())?;
    let Some(count) = count else { return Ok(None) };
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        elements.push(T::read(reader, element)?);
    }
    Ok(Some(elements))
}

fn write_array<'a, T: Field<'a>>(elements: Option<&[T]>, writer: &mut Writer, cx: Context) {
    writer.nullable_length(elements.map(<[T]>::len), cx.flexible);
    for element in elements.unwrap_or_default() {
        element.write(writer, cx.with_nullable(false));
    }
}

/// Whether a tagged field has to be written.
pub(crate) fn differs<T: PartialEq>(value: &T, default: T) -> bool {
    *value != default
}

/// Refuses a null where the version has none.
fn not_null<T>(value: Option<T>, cx: Context) -> Result<Option<T>, DecodeError> {
    match value {
        None if !cx.nullable => Err(DecodeError::Null),
        value => Ok(value),
    }
}

/// What an older version, which has no null, gets in its place: an empty value.
fn or_empty<T: Default>(value: Option<T>, cx: Context) -> Option<T> {
    match value {
        None if !cx.nullable => Some(T::default()),
        value => value,
    }
}

/// Whether a made-up value that may be null is to be one that is not.
fn sample_present(random: &mut Random, cx: Context) -> bool {
    !cx.nullable || random.below(3) > 0
}

/// The record data of one partition in a Fetch answer. Null on the wire reads as empty, and empty is
/// what is written: some clients refuse null.
#[derive(Debug)]
pub enum Records<'a> {
    /// Bytes of a frame that was read, or of the caller; copied when written.
    Borrowed(&'a [u8]),
    /// Buffers that go to the socket as they are.
    Chunks(Vec<Chunk>),
}

impl Records<'_> {
    /// The length of the record data, in bytes.
    pub fn len(&self) -> usize {
        match self {
            Records::Borrowed(bytes) => bytes.len(),
            Records::Chunks(chunks) => chunks.iter().map(|chunk| chunk.len()).sum(),
        }
    }

    /// Whether there is no record data.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        let (borrowed, chunks): (&[u8], &[Chunk]) = match self {
            Records::Borrowed(bytes) => (bytes, &[]),
            Records::Chunks(chunks) => (&[], chunks),
        };
        let chunked = chunks.iter().flat_map(|chunk| chunk.iter());
        borrowed.iter().chain(chunked).copied()
    }
}

impl Default for Records<'_> {
    fn default() -> Self {
        Records::Borrowed(&[])
    }
}

/// Equal if the bytes are, however they are cut.
impl PartialEq for Records<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.bytes().eq(other.bytes())
    }
}

/// Chunks are only given a place here, since they cannot be taken out of a borrowed message; who owns
/// it moves them in with [`Writer::fill_gap`].
impl<'a> Field<'a> for Records<'a> {
    fn bytes_min(cx: Context) -> usize {
        if cx.flexible { 1 } else { 4 }
    }
    fn read(reader: &mut Reader<'a>, cx: Context) -> Result<Self, DecodeError> {
        let bytes = reader.nullable_bytes(cx.flexible)?;
        Ok(Records::Borrowed(bytes.unwrap_or_default()))
    }
    fn write(&self, writer: &mut Writer, cx: Context) {
        match self {
            Records::Borrowed(bytes) => writer.bytes(bytes, cx.flexible),
            Records::Chunks(_) => {
                writer.nullable_length(Some(self.len()), cx.flexible);
                writer.leave_gap(self.len());
            }
        }
    }
    fn sample(random: &mut Random, _: Context) -> Self {
        let chunk = |random: &mut Random| Chunk::Local(random.bytes().into());
        Records::Chunks((0..random.below(3)).map(|_| chunk(random)).collect())
    }
}
