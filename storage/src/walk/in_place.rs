//! The walk of records that lie uncompressed in one piece and break no rule: nearly all that are
//! produced. Pure; where anything is not as it should be it says nothing, and the walk in steps finds
//! out what.

use crate::batch::{BatchView, NO_TIMESTAMP, TimestampType};
use crate::records::{read_varint, read_varlong};

use super::{WalkRules, WalkSummary};

/// What the walk in steps would find in an uncompressed batch, if it would refuse nothing.
pub(super) fn walk(batch: &BatchView<'_>, rules: &WalkRules) -> Option<WalkSummary> {
    let header = batch.header();
    let append_time = (header.attributes().timestamp_type() == TimestampType::LogAppendTime)
        .then(|| header.max_timestamp());
    let mut summary = WalkSummary {
        records_count: header.records_count().max(0),
        max_timestamp: NO_TIMESTAMP,
        max_timestamp_offset_delta: 0,
        uncompressed_bytes: batch.payload().len() as u64,
    };
    let mut rest = batch.payload();
    for index in 0..summary.records_count {
        let length = usize::try_from(varint(&mut rest)?).ok()?;
        let mut record;
        (record, rest) = rest.split_at_checked(length)?;
        // Attributes of a record: no bit is in use.
        record.split_off_first()?;
        let timestamp_delta = read_varlong(|| next(&mut record), ()).ok()?;
        let offset_delta = varint(&mut record)?;
        let has_key = skip(&mut record)?;
        // The value.
        skip(&mut record)?;
        for _ in 0..u32::try_from(varint(&mut record)?).ok()? {
            // A header's key is never null.
            if !skip(&mut record)? {
                return None;
            }
            skip(&mut record)?;
        }
        let timestamp =
            append_time.unwrap_or_else(|| header.base_timestamp().wrapping_add(timestamp_delta));
        let allowed = (has_key || !rules.keys_required)
            && rules
                .timestamps
                .is_none_or(|bounds| bounds.allows(timestamp));
        if !record.is_empty() || offset_delta != index || !allowed {
            return None;
        }
        if timestamp > summary.max_timestamp {
            summary.max_timestamp = timestamp;
            summary.max_timestamp_offset_delta = index;
        }
    }
    rest.is_empty().then_some(summary)
}

#[inline]
fn next(bytes: &mut &[u8]) -> Result<u8, ()> {
    bytes.split_off_first().copied().ok_or(())
}

#[inline]
fn varint(bytes: &mut &[u8]) -> Option<i32> {
    // Most are one byte.
    if let Some((&first, rest)) = bytes.split_first()
        && first < 0x80
    {
        *bytes = rest;
        return Some(i32::from(first >> 1) ^ -i32::from(first & 1));
    }
    read_varint(|| next(bytes), ()).ok()
}

/// Passes over a key or a value; false: it is null.
#[inline]
fn skip(bytes: &mut &[u8]) -> Option<bool> {
    let Ok(length) = usize::try_from(varint(bytes)?) else {
        return Some(false);
    };
    *bytes = bytes.get(length..)?;
    Some(true)
}
