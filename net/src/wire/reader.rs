//! Reads the primitive types of the Kafka protocol out of borrowed bytes. Lives on the core that holds
//! the frame. Trusts no length: each is checked against the bytes that remain before anything is
//! allocated, and the memory of decoded arrays has a bound of its own. Knows no message.

use std::borrow::Cow;
use std::fmt;

use uuid::Uuid;

/// Memory that the arrays of one message may take when decoded, in bytes. An element can be an order
/// of magnitude larger in memory than on the wire (an empty string is one byte there, 24 here), so a
/// frame of the largest size could otherwise claim gigabytes. Ten thousand partitions take about
/// 1 MiB.
pub const ELEMENTS_BYTES_MAX: usize = 32 << 20;

/// The longest string the protocol allows, in bytes; compact strings could say more but must not.
pub(super) const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end inside a field.
    Truncated,
    /// A length or an element count is negative, or larger than what remains could hold.
    Length,
    /// A field that may not be null here is null.
    Null,
    /// A variable-length number does not end, or does not fit its type.
    Varint,
    /// The decoded arrays would take more memory than one message may.
    TooManyElements,
    /// The message does not exist in that version.
    Version,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecodeError::Truncated => "the bytes end inside a field",
            DecodeError::Length => "a length does not fit the bytes that remain",
            DecodeError::Null => "a field that must not be null is null",
            DecodeError::Varint => "a variable-length number is malformed",
            DecodeError::TooManyElements => "the arrays would take more memory than allowed",
            DecodeError::Version => "the message does not exist in that version",
        })
    }
}

impl std::error::Error for DecodeError {}

/// A position in borrowed bytes. Every method either advances past one field or fails and leaves the
/// position unspecified.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    elements_bytes_left: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the first byte; arrays may take [`ELEMENTS_BYTES_MAX`].
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader::with_elements_bytes(bytes, ELEMENTS_BYTES_MAX)
    }

    /// Reads from the first byte; decoded arrays may take `elements_bytes` bytes of memory.
    pub fn with_elements_bytes(bytes: &'a [u8], elements_bytes: usize) -> Reader<'a> {
        Reader {
            rest: bytes,
            elements_bytes_left: elements_bytes,
        }
    }

    /// How many bytes have not been read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The bytes that have not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// A signed byte.
    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    /// A boolean: any byte but 0 is true.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.u8()? != 0)
    }

    /// A 16-bit signed number.
    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    /// A 16-bit unsigned number.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// A 32-bit signed number.
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// A 32-bit unsigned number.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A 64-bit signed number.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// A double.
    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        Ok(f64::from_be_bytes(self.array()?))
    }

    /// A UUID: 16 bytes.
    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    /// An unsigned number of up to 32 bits, seven to a byte, low bits first.
    pub fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.unsigned_varlong_of(5)?).map_err(|_| DecodeError::Varint)
    }

    /// An unsigned number of up to 64 bits, seven to a byte, low bits first.
    pub fn unsigned_varlong(&mut self) -> Result<u64, DecodeError> {
        self.unsigned_varlong_of(10)
    }

    fn unsigned_varlong_of(&mut self, bytes_max: u32) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for index in 0..bytes_max {
            let byte = u64::from(self.u8()?);
            let bits = byte & 0x7f;
            // The tenth byte has room for one bit.
            if index == 9 && bits > 1 {
                return Err(DecodeError::Varint);
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint)
    }

    /// A zigzag number of up to 32 bits.
    pub fn varint(&mut self) -> Result<i32, DecodeError> {
        let value = self.unsigned_varint()?;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    /// A zigzag number of up to 64 bits.
    pub fn varlong(&mut self) -> Result<i64, DecodeError> {
        let value = self.unsigned_varlong()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A length that was read, as bytes that are there; `None` if it is negative: null is -1, and any
    /// other negative length is taken for it too, as in Kafka.
    fn checked_length(&self, length: i64, bytes_max: usize) -> Result<Option<usize>, DecodeError> {
        match usize::try_from(length) {
            Ok(length) if length > bytes_max => Err(DecodeError::Length),
            Ok(length) if length > self.remaining() => Err(DecodeError::Truncated),
            Ok(length) => Ok(Some(length)),
            Err(_) if length < 0 => Ok(None),
            Err(_) => Err(DecodeError::Length),
        }
    }

    /// A length of the compact kind: unsigned, one more than it says, 0 for null.
    fn compact_length(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from(self.unsigned_varint()?) - 1)
    }

    fn text(&mut self, len: usize) -> Result<Cow<'a, str>, DecodeError> {
        // As in Kafka, bytes that are no UTF-8 are replaced, not refused.
        let text = String::from_utf8_lossy(self.take(len)?);
        if let Cow::Owned(owned) = &text {
            // Replacing can treble the length; what can be read must also be writable.
            if owned.len() > STRING_BYTES_MAX {
                return Err(DecodeError::Length);
            }
            self.charge(owned.len())?;
        }
        Ok(text)
    }

    /// A string with a 16-bit length (or a compact one, if `flexible`); `None` if null.
    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<Cow<'a, str>>, DecodeError> {
        let length = match flexible {
            true => self.compact_length()?,
            false => i64::from(self.i16()?),
        };
        match self.checked_length(length, STRING_BYTES_MAX)? {
            Some(len) => Ok(Some(self.text(len)?)),
            None => Ok(None),
        }
    }

    /// A string that must not be null.
    pub fn string(&mut self, flexible: bool) -> Result<Cow<'a, str>, DecodeError> {
        self.nullable_string(flexible)?.ok_or(DecodeError::Null)
    }

    /// Bytes with a 32-bit length (or a compact one, if `flexible`); `None` if null.
    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<&'a [u8]>, DecodeError> {
        let length = match flexible {
            true => self.compact_length()?,
            false => i64::from(self.i32()?),
        };
        match self.checked_length(length, usize::MAX)? {
            Some(len) => Ok(Some(self.take(len)?)),
            None => Ok(None),
        }
    }

    /// Bytes that must not be null.
    pub fn bytes(&mut self, flexible: bool) -> Result<&'a [u8], DecodeError> {
        self.nullable_bytes(flexible)?.ok_or(DecodeError::Null)
    }

    /// The element count of an array whose elements take at least `element_bytes_min` bytes each on
    /// the wire and `element_bytes` in memory; `None` if null. A count that cannot be true, or that
    /// would take too much memory, is an error, so the caller may allocate for it.
    pub fn array_count(
        &mut self,
        flexible: bool,
        element_bytes_min: usize,
        element_bytes: usize,
    ) -> Result<Option<usize>, DecodeError> {
        let count = match flexible {
            true => self.compact_length()?,
            false => i64::from(self.i32()?),
        };
        if count < 0 {
            return Ok(None);
        }
        let count = usize::try_from(count).map_err(|_| DecodeError::Length)?;
        if count > self.remaining() / element_bytes_min.max(1) {
            return Err(DecodeError::Length);
        }
        self.charge(count.saturating_mul(element_bytes))?;
        Ok(Some(count))
    }

    fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.elements_bytes_left = self
            .elements_bytes_left
            .checked_sub(bytes)
            .ok_or(DecodeError::TooManyElements)?;
        Ok(())
    }

    /// Reads a section of tagged fields: `on_field` gets each tag with a reader over just its bytes,
    /// and leaves unread what it does not know.
    pub fn tagged_fields(
        &mut self,
        mut on_field: impl FnMut(u32, &mut Reader<'a>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let count = self.unsigned_varint()?;
        for _ in 0..count {
            let tag = self.unsigned_varint()?;
            let size = self.unsigned_varint()? as usize;
            let mut field = Reader::with_elements_bytes(self.take(size)?, self.elements_bytes_left);
            on_field(tag, &mut field)?;
            self.elements_bytes_left = field.elements_bytes_left;
        }
        Ok(())
    }

    /// Skips a section of tagged fields none of which is known.
    pub fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        self.tagged_fields(|_, _| Ok(()))
    }
}
