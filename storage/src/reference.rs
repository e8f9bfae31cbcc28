//! What the journal keeps of a straight write: where its bytes lie in the segment, a checksum over
//! them, the header of each batch, and the bytes behind the last whole block. Bytes in, bytes out;
//! knows no journal and no disk.

use xxhash_rust::xxh3::xxh3_64;

use crate::batch::{BatchHeader, HEADER_BYTES, LENGTH_OVERHEAD_BYTES};
use crate::segment::{BLOCK, block_floor};

/// Bytes of the fixed part.
const FIXED_BYTES: usize = 28;

/// A batch of a straight write.
pub(crate) struct Referred<'a> {
    pub header: &'a BatchHeader,
    /// Where it begins in the segment.
    pub position: u64,
    /// One past its last byte in the segment.
    pub position_end: u64,
}

/// The payload of an [`EntryKind::Straight`](crate::journal::EntryKind::Straight) entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference<'a> {
    /// The segment's file was written from here, a block's beginning: what lies before the entry's
    /// position is in earlier entries of the journal too.
    pub from: u64,
    /// To here, exclusive; a block's beginning.
    pub to: u64,
    /// Over what was written.
    checksum: u64,
    headers: &'a [u8],
    /// The bytes behind `to`: they are in no segment yet.
    pub tail: &'a [u8],
}

/// How long the payload for this many batches and tail bytes is.
pub(crate) fn reference_bytes(batches: usize, tail: usize) -> usize {
    FIXED_BYTES + batches * HEADER_BYTES + tail
}

/// Puts a payload together: `written` are the whole blocks from `from` on, `headers` those of the
/// batches, in order.
pub(crate) fn encode<'h>(
    out: &mut [u8],
    from: u64,
    written: &[u8],
    headers: impl ExactSizeIterator<Item = &'h [u8]>,
    tail: &[u8],
) {
    let to = from + written.len() as u64;
    out[0..8].copy_from_slice(&from.to_le_bytes());
    out[8..16].copy_from_slice(&to.to_le_bytes());
    out[16..24].copy_from_slice(&xxh3_64(written).to_le_bytes());
    out[24..28].copy_from_slice(&(headers.len() as u32).to_le_bytes());
    let mut at = FIXED_BYTES;
    for header in headers {
        out[at..at + HEADER_BYTES].copy_from_slice(header);
        at += HEADER_BYTES;
    }
    out[at..].copy_from_slice(tail);
}

impl<'a> Reference<'a> {
    /// Reads the payload of an entry at `position`; `None` if it is none: sizes that do not follow from
    /// each other would be a fault of who wrote it, since the entry's checksum held.
    pub(crate) fn decode(payload: &'a [u8], position: u64) -> Option<Reference<'a>> {
        let fixed = payload.get(..FIXED_BYTES)?;
        let u64_at = |at: usize| Some(u64::from_le_bytes(fixed[at..at + 8].try_into().ok()?));
        let (from, to, checksum) = (u64_at(0)?, u64_at(8)?, u64_at(16)?);
        let batches = u32::from_le_bytes(fixed[24..28].try_into().ok()?) as usize;
        let (headers, tail) =
            payload[FIXED_BYTES..].split_at_checked(batches.checked_mul(HEADER_BYTES)?)?;
        let reference = Reference {
            from,
            to,
            checksum,
            headers,
            tail,
        };
        let end = reference.batches(position).last()?.position_end;
        let fits = block_floor(from) == from
            && from <= position
            && position < to
            && to == block_floor(end)
            && end - to == tail.len() as u64;
        fits.then_some(reference)
    }

    /// The batches, the first one at `position`.
    pub(crate) fn batches(&self, position: u64) -> impl Iterator<Item = Referred<'a>> {
        let mut at = position;
        self.headers.chunks_exact(HEADER_BYTES).map(move |bytes| {
            let header = BatchHeader::ref_from_prefix(bytes).expect("a header's length");
            let position = at;
            at += header.batch_length().max(0) as u64 + LENGTH_OVERHEAD_BYTES as u64;
            Referred {
                header,
                position,
                position_end: at,
            }
        })
    }

    /// Whether a checksum over the bytes that were written is theirs.
    pub(crate) fn matches(&self, checksum: u64) -> bool {
        self.checksum == checksum
    }
}

const _: () = assert!(BLOCK > HEADER_BYTES as u64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Compression, stamp};
    use crate::builder::BatchBuilder;
    use crate::types::{LeaderEpoch, Offset};

    fn batch(offset: i64, length: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(5, None, Some(&vec![7; length]));
        let mut bytes = builder.build();
        stamp(&mut bytes, Offset(offset), LeaderEpoch(2));
        bytes
    }

    #[test]
    fn what_was_written_reads_back() {
        let (first, second) = (batch(4, 9_000), batch(5, 100));
        let mut bytes = vec![1; 96];
        bytes.extend_from_slice(&first);
        bytes.extend_from_slice(&second);
        let whole = bytes.len() - bytes.len() % 4096;
        let (written, tail) = bytes.split_at(whole);
        let headers = [&first[..HEADER_BYTES], &second[..HEADER_BYTES]];
        let mut out = vec![0; reference_bytes(2, tail.len())];
        encode(&mut out, 4096, written, headers.into_iter(), tail);
        let reference = Reference::decode(&out, 4096 + 96).expect("it fits");
        assert_eq!((reference.from, reference.to), (4096, 4096 + whole as u64));
        assert_eq!(reference.tail, tail);
        assert!(reference.matches(xxh3_64(written)));
        assert!(!reference.matches(xxh3_64(&written[1..])));
        let found: Vec<_> = reference
            .batches(4096 + 96)
            .map(|batch| (batch.header.base_offset(), batch.position))
            .collect();
        let at = 4096 + 96;
        assert_eq!(
            found,
            [(Offset(4), at), (Offset(5), at + first.len() as u64)]
        );
        // What does not fit together is none.
        assert!(Reference::decode(&out, 4096 + 97).is_none());
        assert!(Reference::decode(&out[..out.len() - 1], 4096 + 96).is_none());
        assert!(Reference::decode(&out[..20], 4096 + 96).is_none());
    }
}
