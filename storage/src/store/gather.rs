//! The bytes of one write to a segment: large batches as they lie in memory, where they lie there as they will
//! in the file's sectors, everything else copied. Pure code on a core; knows no journal and no task.

use std::ops::Range;

use ring::buf::{AlignedBuf, SECTOR_BYTES, Shared};
use ring::prefetch::prefetch;

use crate::segment::{BLOCK, Segment, block_floor};

use super::recent::{Recent, RecentBatches};

/// A batch is written from where it lies if so many bytes of it are whole sectors: of smaller ones
/// [`IN_PLACE_MAX`] would be too short a write.
const IN_PLACE_BYTES_MIN: u64 = 10 << 10;

/// How many parts of one write are written from where they lie, at most. Each takes two places in the queue of
/// a virtual disk, which may have 256 of them for all that is under way: who finds it full waits, and so does
/// the journal behind it.
const IN_PLACE_MAX: usize = 32;

/// How many batches ahead their memory is asked for when they are copied, and up to which size.
const AHEAD: usize = 6;
const AHEAD_BYTES_MAX: usize = 512;

const SECTOR: u64 = SECTOR_BYTES as u64;

/// The batches of a segment that begin before `to` and are not wholly in its file.
fn dirty_of<'a>(
    segment: &Segment,
    recent: &'a RecentBatches,
    to: u64,
) -> impl Iterator<Item = &'a Recent> + Clone {
    let base = segment.base();
    recent
        .dirty_from(move |recent| recent.segment_base < base)
        .take_while(move |recent| recent.segment_base == base && recent.position < to)
}

/// The part of `from..to` of the file that a batch fills with whole sectors that need no copy.
fn in_place(recent: &Recent, from: u64, to: u64) -> Option<Range<u64>> {
    let start = recent.position.max(from).next_multiple_of(SECTOR);
    let stop = recent.position_end().min(to);
    let stop = stop - stop % SECTOR;
    let address = recent.bytes.as_ptr() as u64;
    let same_phase = address.wrapping_sub(recent.position).is_multiple_of(SECTOR);
    (same_phase && stop >= start + IN_PLACE_BYTES_MIN).then_some(start..stop)
}

fn part(recent: &Recent, range: Range<u64>) -> Range<usize> {
    (range.start - recent.position) as usize..(range.end - recent.position) as usize
}

/// How far one write may go that begins at `from`: to `to`, or to where a block ends before it, so that it has no
/// more than [`IN_PLACE_MAX`] parts that are written from where they lie.
pub(super) fn bounded(segment: &Segment, recent: &RecentBatches, from: u64, to: u64) -> u64 {
    dirty_of(segment, recent, to)
        .filter_map(|recent| in_place(recent, from, to))
        .nth(IN_PLACE_MAX)
        .map_or(to, |range| block_floor(range.start))
}

/// The bytes `from..to` of a segment, of which `recent` has those that are not in its file, filled up with
/// zeros to whole blocks: pieces, one behind the other, and how many bytes were copied for them. `from` is where a
/// block begins.
///
/// # Panics
/// If they are not all there.
pub(super) fn gather(
    segment: &Segment,
    recent: &RecentBatches,
    from: u64,
    to: u64,
) -> (Vec<Shared>, u64) {
    let head = segment.head.as_ref().map_or(&[][..], |head| {
        let known = head.len().min((segment.written - from) as usize);
        &head[..known]
    });
    let mut covered = from + head.len() as u64;
    let from_dirty = covered;
    let batches = dirty_of(segment, recent, to);
    let in_place_bytes: u64 = batches
        .clone()
        .filter_map(|recent| in_place(recent, from_dirty, to))
        .map(|range| range.end - range.start)
        .sum();

    let end = from + (to - from).next_multiple_of(BLOCK);
    let copy_bytes = (end - from - in_place_bytes) as usize;
    let mut buf = AlignedBuf::scratch(copy_bytes);
    // What is written in place, and how much of `buf` goes before it.
    let mut between: Vec<(usize, Shared)> = Vec::new();
    let mut filled = 0;
    let mut copy = |bytes: &[u8]| {
        buf[filled..filled + bytes.len()].copy_from_slice(bytes);
        filled += bytes.len();
        filled
    };
    copy(head);
    let mut ahead = batches.clone().skip(AHEAD);
    for recent in batches {
        // Small batches lie scattered over the journal's writes of a while ago.
        if let Some(ahead) = ahead.next()
            && ahead.bytes.len() <= AHEAD_BYTES_MAX
        {
            prefetch(&ahead.bytes[..]);
        }
        // Of the first batch a part may be in the head, or in the file.
        let stop = recent.position_end().min(to);
        if stop <= covered {
            continue;
        }
        assert!(
            recent.position <= covered,
            "a hole in what is written to a segment"
        );
        match in_place(recent, from_dirty, to) {
            Some(range) => {
                let before = copy(&recent.bytes[part(recent, covered..range.start)]);
                let bytes = recent.bytes.slice(part(recent, range.clone()));
                between.push((before, bytes));
                copy(&recent.bytes[part(recent, range.end..stop)]);
            }
            None => {
                copy(&recent.bytes[part(recent, covered..stop)]);
            }
        }
        covered = stop;
    }
    assert!(covered == to, "a hole in what is written to a segment");
    let copied_bytes = filled as u64;
    buf[filled..].fill(0);
    let copied = buf.freeze().slice(0..copy_bytes);
    let mut pieces = Vec::with_capacity(2 * between.len() + 1);
    let mut at = 0;
    for (before, bytes) in between {
        if before > at {
            pieces.push(copied.slice(at..before));
            at = before;
        }
        pieces.push(bytes);
    }
    if copy_bytes > at {
        pieces.push(copied.slice(at..copy_bytes));
    }
    (pieces, copied_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentImage;
    use crate::sim_disk::SimRng;
    use crate::types::Offset;

    /// A batch whose address is `ahead` bytes further behind a sector than its position.
    fn recent(position: u64, length: usize, ahead: u64) -> Recent {
        let lead = ((position + ahead) % SECTOR) as usize;
        let mut buf = AlignedBuf::zeroed(lead + length);
        for (index, byte) in buf[lead..].iter_mut().enumerate() {
            *byte = byte_at(position + index as u64);
        }
        Recent {
            sequence: 1,
            segment_base: Offset(0),
            position,
            base_offset: Offset(0),
            offset_end: Offset(1),
            bytes: buf.freeze().slice(lead..lead + length),
        }
    }

    fn of(batches: impl IntoIterator<Item = Recent>) -> RecentBatches {
        let mut all = RecentBatches::default();
        all.extend(batches);
        all
    }

    /// What the file has at a position.
    fn byte_at(position: u64) -> u8 {
        ((position / 3) ^ (position >> 9)) as u8
    }

    fn segment(written: u64, head_bytes: u64) -> Segment {
        let mut segment = Segment::from_image(SegmentImage::empty(Offset(0), 0));
        segment.written = written;
        let from = segment.write_from();
        let head = (from..from + head_bytes).map(byte_at).collect();
        segment.head = (head_bytes > 0).then(|| std::rc::Rc::new(head));
        segment
    }

    fn check(segment: &Segment, dirty: &RecentBatches, to: u64) -> (Vec<Shared>, u64) {
        let from = segment.write_from();
        let (pieces, copied_bytes) = gather(segment, dirty, from, to);
        let mut joined = Vec::new();
        for piece in &pieces {
            assert!(!piece.is_empty() && piece.len().is_multiple_of(SECTOR_BYTES));
            assert!((piece.as_ptr() as usize).is_multiple_of(SECTOR_BYTES));
            joined.extend_from_slice(piece);
        }
        assert!(joined.len().is_multiple_of(BLOCK as usize));
        let expected: Vec<u8> = (from..to).map(byte_at).collect();
        assert!(joined[..expected.len()] == expected);
        let rest = &joined[expected.len()..];
        assert!(rest.len() < BLOCK as usize && rest.iter().all(|byte| *byte == 0));
        (pieces, copied_bytes)
    }

    #[test]
    fn any_batches_are_gathered_byte_by_byte() {
        let mut rng = SimRng::new(7);
        let (mut in_place, mut copied) = (0, 0);
        for _ in 0..2_000 {
            let mut position = rng.below(5_000);
            let first = position;
            let mut dirty = RecentBatches::default();
            for _ in 0..=rng.below(12) {
                let length = match rng.below(4) {
                    0 => 1 + rng.below(200),
                    1 => 10_000 + rng.below(1_000),
                    2 => 12_288,
                    _ => 1 + rng.below(60_000),
                };
                let ahead = if rng.one_in(3) { rng.below(SECTOR) } else { 0 };
                dirty.push(recent(position, length as usize, ahead));
                position += length;
            }
            // The tail block that is in the file comes from its head, or from the first batch.
            let (written, head_bytes) = match rng.below(3) {
                0 => (first, first % BLOCK),
                1 if first.is_multiple_of(BLOCK) => (first, 0),
                _ => {
                    let more = rng.below(dirty.first().expect("there is one").bytes.len() as u64);
                    let written = first + more;
                    match block_floor(written) < first {
                        true => (written, written % BLOCK),
                        false => (written, 0),
                    }
                }
            };
            let segment = segment(written, head_bytes);
            let to = match rng.below(3) {
                0 => position,
                _ => written + 1 + rng.below(position - written),
            };
            let to = bounded(&segment, &dirty, segment.write_from(), to);
            if to > segment.written {
                let (pieces, _) = check(&segment, &dirty, to);
                in_place += usize::from(pieces.len() > 1);
                copied += usize::from(pieces.len() == 1);
            }
        }
        assert!(in_place > 500 && copied > 100, "{in_place}, {copied}");
    }

    #[test]
    fn a_large_batch_is_copied_only_around_its_sectors() {
        let dirty = of([recent(100, 40_000, 0), recent(40_100, 20_000, 0)]);
        let (pieces, copied) = check(&segment(0, 0), &of([recent(0, 100, 0)]), 100);
        assert_eq!((pieces.len(), copied), (1, 100));
        let (pieces, copied) = check(&segment(100, 100), &dirty, 60_100);
        // 0 to 512, in place to 39,936 (78 sectors), to 40,448, in place to 59,904 (117), to the end.
        let sizes: Vec<usize> = pieces.iter().map(|piece| piece.len()).collect();
        assert_eq!(sizes, [512, 39_424, 512, 19_456, 61_440 - 59_904]);
        assert_eq!(copied, 512 + 512 + 60_100 - 59_904);
    }

    #[test]
    fn one_write_has_so_many_parts_in_place_at_most() {
        let dirty = of((0..100).map(|i| recent(i * 16_000, 16_000, 0)));
        let segment = segment(0, 0);
        let to = bounded(&segment, &dirty, 0, 1_600_000);
        assert_eq!(to, block_floor(32 * 16_000));
        let (pieces, _) = check(&segment, &dirty, to);
        let large = pieces.iter().filter(|piece| piece.len() > 4096);
        assert_eq!(large.count(), IN_PLACE_MAX);
        let few = of(dirty.dirty().take(32).cloned());
        assert_eq!(bounded(&segment, &few, 0, 512_000), 512_000);
    }
}
