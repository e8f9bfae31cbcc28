//! The chain of writes in the journal of one core, one start and one log directory. Runs in recovery;
//! knows no partition.

use std::path::PathBuf;
use std::sync::Arc;

use crate::checkpoint::CheckpointHead;
use crate::disk::Disk;
use crate::journal::{FILE_HEAD_BYTES, WriteHeader, decode_file_head, decode_write, peek_write};
use crate::segment::BLOCK;
use crate::tasks::read_file;
use crate::types::CoreId;

/// No journal file is larger.
const JOURNAL_BYTES_MAX: u64 = 4 << 30;

/// The writes that count, in sequence.
pub(super) struct Chain {
    pub dir: usize,
    pub epoch: u64,
    pub core: CoreId,
    /// What a checkpoint of the same journal already reflects.
    pub covers_sequence: u64,
    /// Up to here everything that entries refer to is known to be flushed.
    pub confirmed_sequence: u64,
    pub writes: Vec<(u64, Arc<Vec<u8>>)>,
}

/// Reads all files of a journal and follows the chain from where the checkpoint says.
///
/// # Errors
/// If a file cannot be read, or the chain ends before a write that is known to have been durable.
pub(super) async fn read<D: Disk>(
    disk: &D,
    dir: usize,
    epoch: u64,
    core: CoreId,
    paths: &[PathBuf],
    head: Option<CheckpointHead>,
) -> Result<Chain, String> {
    let (covers, from) = head.map_or((0, 1), |head| (head.covers_sequence, head.replay_from));
    let mut found: Vec<(WriteHeader, Arc<Vec<u8>>)> = Vec::new();
    for path in paths {
        let bytes = read_file(disk, path, JOURNAL_BYTES_MAX)
            .await
            .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        let Some(salt) = decode_file_head(&bytes, epoch, core) else {
            // The first block is flushed before anything is written behind it: a file without one was
            // never in use, or is damaged.
            let mut blocks = bytes.chunks(BLOCK as usize);
            if blocks.any(|block| peek_write(block).is_some()) {
                return Err(format!("the first block of {} is damaged", path.display()));
            }
            continue;
        };
        // Every write begins on a block. After a torn one the next may still be whole: it is looked
        // for, to tell a torn end from a hole.
        let mut at = FILE_HEAD_BYTES as usize;
        while at < bytes.len() {
            match decode_write(&bytes[at..], salt) {
                Some(write) if write.epoch == epoch && write.core == core => {
                    let total = write.total_bytes as usize;
                    if write.sequence >= from {
                        found.push((write, Arc::new(bytes[at..at + total].to_vec())));
                    }
                    at += total;
                }
                _ => at += BLOCK as usize,
            }
        }
    }
    found.sort_by_key(|(write, _)| write.sequence);
    let mut chain = Chain {
        dir,
        epoch,
        core,
        covers_sequence: covers,
        // A checkpoint is only written when the journal is durable up to it.
        confirmed_sequence: covers,
        writes: Vec::new(),
    };
    let mut next = from;
    let mut previous: Option<u64> = None;
    let mut rest = found.into_iter().peekable();
    while let Some((write, bytes)) = rest.next_if(|(write, _)| {
        write.sequence == next && previous.is_none_or(|sum| sum == write.previous_checksum)
    }) {
        next += 1;
        previous = Some(write.checksum);
        chain.confirmed_sequence = chain.confirmed_sequence.max(write.durable_sequence);
        chain.writes.push((write.sequence, bytes));
    }
    let end = next - 1;
    if end < covers {
        return Err(format!(
            "the journal of core {core}, start {epoch}, ends at write {end}, but its checkpoint covers {covers}: \
             acknowledged data is missing"
        ));
    }
    // A later write that knew of a durable one beyond the end: the end is a hole, not a torn tail.
    if let Some((write, _)) = rest.find(|(write, _)| write.durable_sequence > end) {
        return Err(format!(
            "the journal of core {core}, start {epoch}, breaks after write {end}, but write {} says that {} was \
             durable: acknowledged data is missing",
            write.sequence, write.durable_sequence
        ));
    }
    Ok(chain)
}
