//! Tests of the journal's bytes and of its state machine.

use super::*;
use crate::types::{Offset, TopicId};

fn entry(kind: EntryKind, offset: i64) -> Entry {
    Entry {
        kind,
        topic_id: TopicId::from_u128(7),
        partition: 3,
        incarnation: 9,
        segment_base: Offset(0),
        position: 128,
        base_offset: Offset(offset),
        offset_end: Offset(offset + 1),
        value: -5,
    }
}

/// What is drawn at random for a start.
const SALT: u64 = 0x5a17;

fn journal() -> Journal {
    let mut journal = Journal::new(Path::new("/d"), 4, CoreId(1), SALT, 64 << 10, 3);
    assert_eq!(
        journal.poll_need(false),
        JournalNeed::File {
            id: 0,
            capacity_bytes: 64 << 10
        }
    );
    journal.on_file_made(0, 64 << 10);
    journal
}

/// Adds a batch of some bytes, seals, and hands the write to the queue.
fn write(journal: &mut Journal, payload: &[u8], sync: bool) -> Sealed {
    journal.add(
        LogId(0),
        entry(EntryKind::Append, 10),
        payload.len(),
        sync,
        |out| out.copy_from_slice(payload),
    );
    let sealed = journal.seal().expect("something is gathered");
    journal.enqueue(&sealed, Vec::new());
    sealed
}

#[test]
fn a_write_reads_back_with_every_field() {
    let mut journal = journal();
    let sealed = write(&mut journal, b"payload", true);
    assert_eq!(sealed.bytes.len(), BLOCK_BYTES);
    let header = decode_write(&sealed.bytes, SALT).expect("whole");
    assert_eq!(
        (header.epoch, header.core, header.sequence),
        (4, CoreId(1), 1)
    );
    assert_eq!((header.previous_checksum, header.durable_sequence), (0, 0));
    let body = &sealed.bytes[WRITE_HEADER_BYTES..header.used_bytes as usize];
    let entries: Vec<_> = Entries::new(body).map(|raw| raw.expect("whole")).collect();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].entry, entry(EntryKind::Append, 10));
    assert_eq!(entries[0].payload(), b"payload");
    let at = entries[0].payload_at;
    assert_eq!(&sealed.bytes[at..at + 7], b"payload");
    // The memory that consumers read is that of the write itself.
    assert_eq!(&sealed.bytes[sealed.gathered[0].range.clone()], b"payload");
}

/// Rule 1: a torn or rotten write is none, whichever byte is wrong.
#[test]
fn a_write_with_any_changed_byte_is_not_taken() {
    let mut journal = journal();
    let sealed = write(&mut journal, &[7; 300], true);
    let used = peek_write(&sealed.bytes).expect("whole").used_bytes as usize;
    for at in 0..used {
        let mut bytes = sealed.bytes.to_vec();
        bytes[at] ^= 1;
        // Padding between entries is nobody's.
        let padding = WRITE_HEADER_BYTES + ENTRY_HEADER_BYTES + 300..used;
        if !padding.contains(&at) {
            assert!(decode_write(&bytes, SALT).is_none(), "byte {at}");
        }
    }
    assert!(decode_write(&sealed.bytes[..2048 + 17], SALT).is_some());
    assert!(decode_write(&sealed.bytes[..100], SALT).is_none());
}

/// What write-back relies on: a large batch begins in memory as far behind a sector as in its segment, and is
/// found again wherever it lies.
#[test]
fn a_large_batch_lies_in_its_write_as_in_its_segment() {
    let mut journal = journal();
    let sizes = [12 << 10, 300, 20_001, 40_000, 12_287, 13_000];
    let payloads: Vec<Vec<u8>> = (1..)
        .zip(sizes)
        .map(|(byte, size)| vec![byte; size])
        .collect();
    for (number, payload) in payloads.iter().enumerate() {
        let position = 77 + 1_001 * number as u64;
        let mut entry = entry(EntryKind::Append, number as i64);
        entry.position = position;
        let (_, sealed) = journal.add(LogId(0), entry, payload.len(), true, |out| {
            out.copy_from_slice(payload);
        });
        assert!(sealed.is_none());
    }
    let sealed = journal.seal().expect("something is gathered");
    let header = decode_write(&sealed.bytes, SALT).expect("whole");
    let body = &sealed.bytes[WRITE_HEADER_BYTES..header.used_bytes as usize];
    let entries: Vec<_> = Entries::new(body).map(|raw| raw.expect("whole")).collect();
    assert_eq!(entries.len(), payloads.len());
    for ((raw, payload), gathered) in entries.iter().zip(&payloads).zip(&sealed.gathered) {
        assert!(raw.payload() == payload);
        assert_eq!(
            gathered.range,
            raw.payload_at..raw.payload_at + payload.len()
        );
        if payload.len() >= 12 << 10 {
            let address = sealed.bytes[gathered.range.clone()].as_ptr() as u64;
            assert_eq!(address % 512, raw.entry.position % 512);
        }
    }
    // How far a payload lies behind its header is under the checksum too.
    for at in WRITE_HEADER_BYTES..WRITE_HEADER_BYTES + ENTRY_HEADER_BYTES {
        let mut bytes = sealed.bytes.to_vec();
        bytes[at] ^= 1;
        assert!(decode_write(&bytes, SALT).is_none(), "byte {at}");
    }
    // Others have no sectors to lie in.
    let mut name = entry(EntryKind::Created, 0);
    name.position = 300;
    assert_eq!(name.lead_bytes(WRITE_HEADER_BYTES, 20_000), 0);
}

/// A producer who knows everything but the salt cannot put a write into a batch.
#[test]
fn a_write_under_another_salt_is_none() {
    let mut journal = journal();
    let sealed = write(&mut journal, b"payload", true);
    assert!(decode_write(&sealed.bytes, SALT + 1).is_none());
    let head = journal.file_head();
    assert_eq!(decode_file_head(&head, 4, CoreId(1)), Some(SALT));
    assert_eq!(decode_file_head(&head, 5, CoreId(1)), None);
    assert_eq!(decode_file_head(&head, 4, CoreId(0)), None);
    for at in 0..40 {
        let mut harmed = head.to_vec();
        harmed[at] ^= 1;
        assert_eq!(decode_file_head(&harmed, 4, CoreId(1)), None, "byte {at}");
    }
}

/// Rule 1: writes form a chain and state what was durable when they were sealed.
#[test]
fn writes_are_chained() {
    let mut journal = journal();
    let first = write(&mut journal, b"a", true);
    let (_, out) = journal.poll_write(1).expect("a file is there");
    journal.on_write_done(out.token, &Ok(()));
    let second = write(&mut journal, b"b", true);
    let first = decode_write(&first.bytes, SALT).expect("whole");
    let second = decode_write(&second.bytes, SALT).expect("whole");
    assert_eq!(second.sequence, first.sequence + 1);
    assert_eq!(second.previous_checksum, first.checksum);
    assert_eq!((first.durable_sequence, second.durable_sequence), (0, 1));
}

/// Behind a larger write a small one waits: for company, or for the larger one's end.
#[test]
fn behind_a_write_the_next_gathers_until_it_is_as_large() {
    let gather = |journal: &mut Journal, bytes: usize| {
        journal.add(LogId(0), entry(EntryKind::Append, 10), bytes, true, |out| {
            out.fill(1)
        });
    };
    let mut journal = Journal::new(Path::new("/d"), 4, CoreId(1), SALT, 4 << 20, 3);
    assert!(matches!(journal.poll_need(false), JournalNeed::File { .. }));
    journal.on_file_made(0, 4 << 20);

    // Of one block each they go one behind the other.
    gather(&mut journal, 1000);
    assert!(journal.should_seal());
    let first = journal.seal().expect("gathered");
    journal.enqueue(&first, Vec::new());
    let (first, _) = journal.poll_write(1).expect("a free place");
    gather(&mut journal, 10);
    assert!(journal.should_seal());
    journal.on_write_done(first, &Ok(()));

    let large = 2 * BLOCK_BYTES;
    gather(&mut journal, large);
    assert!(journal.should_seal(), "nothing is ahead");
    let second = journal.seal().expect("gathered");
    journal.enqueue(&second, Vec::new());
    let (second, _) = journal.poll_write(2).expect("a free place");
    gather(&mut journal, large / 2);
    assert!(!journal.should_seal(), "half of what is ahead");
    gather(&mut journal, large / 2);
    assert!(journal.should_seal(), "as much as is ahead, in blocks");
    let third = journal.seal().expect("gathered");
    journal.enqueue(&third, Vec::new());
    let (third, _) = journal.poll_write(3).expect("a free place");
    journal.on_write_done(second, &Ok(()));
    gather(&mut journal, 10);
    assert!(!journal.should_seal(), "a larger one is ahead still");
    journal.on_write_done(third, &Ok(()));
    assert!(journal.should_seal(), "nothing is ahead any more");
}

/// Rules 2 and 4: a write begins on a block of its own, two are in flight, and the durable mark is the
/// contiguous prefix in whatever order they complete.
#[test]
fn marks_are_a_contiguous_prefix() {
    let mut journal = journal();
    for _ in 0..3 {
        write(&mut journal, b"x", true);
    }
    let (_, a) = journal.poll_write(1).expect("the first");
    let (_, b) = journal.poll_write(2).expect("the second");
    assert!(journal.poll_write(3).is_none());
    assert_eq!((a.position, b.position), (4096, 2 * 4096));
    assert_eq!(journal.on_write_done(2, &Ok(())).durable, 0);
    assert!(journal.poll_write(3).is_none());
    assert_eq!(journal.on_write_done(1, &Ok(())).durable, 2);
    let (_, c) = journal.poll_write(3).expect("room again");
    assert_eq!(c.position, 3 * 4096);
}

/// A failed write is never passed: nothing behind it becomes durable.
#[test]
fn nothing_passes_a_failed_write() {
    let mut journal = journal();
    write(&mut journal, b"x", true);
    write(&mut journal, b"y", true);
    journal.poll_write(1).expect("the first");
    journal.poll_write(2).expect("the second");
    let error = Err(io::Error::from_raw_os_error(libc::EIO));
    journal.on_write_done(1, &error);
    assert_eq!(journal.on_write_done(2, &Ok(())), Marks::default());
}

/// Rule 13: a flush covers its own write; what was written before without one waits for a flush of all.
#[test]
fn a_synced_write_does_not_vouch_for_earlier_ones() {
    let mut journal = journal();
    write(&mut journal, b"x", false);
    write(&mut journal, b"y", true);
    journal.poll_write(1).expect("the first");
    journal.poll_write(2).expect("the second");
    journal.on_write_done(1, &Ok(()));
    let marks = journal.on_write_done(2, &Ok(()));
    assert_eq!((marks.written, marks.durable), (2, 0));
    assert_eq!(journal.unflushed_files().len(), 1);
    assert_eq!(journal.on_flushed(2).durable, 2);
}

/// Rule 6: files are freed from the oldest on, only below what a checkpoint allows, never the newest.
#[test]
fn files_are_recycled_only_below_the_checkpoint() {
    let mut journal = journal();
    let payload = vec![1; 30 << 10];
    let mut token = 0;
    for file in 1..3 {
        for _ in 0..2 {
            write(&mut journal, &payload, true);
            let sequence = loop {
                if let Some((sequence, _)) = journal.poll_write(token) {
                    break sequence;
                }
                let JournalNeed::File { id, capacity_bytes } = journal.poll_need(false) else {
                    panic!("no room and no need");
                };
                assert_eq!(id, file - 1);
                journal.on_file_made(id, capacity_bytes);
            };
            journal.on_write_done(sequence, &Ok(()));
            token += 1;
        }
    }
    assert_eq!(journal.oldest_files_end(), Some(2));
    assert!(journal.recycle_below(2).is_none());
    assert_eq!(journal.oldest_files_end(), Some(2));
    journal.recycle_below(100);
    assert_eq!(
        (journal.oldest_files_end(), journal.files_count()),
        (None, 2)
    );
    // The freed file is written again from its beginning.
    write(&mut journal, &payload, true);
    let (_, again) = journal.poll_write(token).expect("a recycled file");
    assert_eq!((again.position, again.file.id), (4096, 0));
}

/// What was made beyond the usual number while nothing could be freed goes again, a file at a time.
#[test]
fn surplus_files_are_given_back_one_at_a_time() {
    let mut journal = journal();
    for id in 1..4 {
        let capacity_bytes = journal.file_bytes;
        journal.on_file_made(id, capacity_bytes);
    }
    journal.files_max = 2;
    assert!(journal.recycle_below(0).is_some());
    assert_eq!(journal.files_count(), 3);
    assert!(journal.recycle_below(0).is_some());
    assert!(journal.recycle_below(0).is_none());
    assert_eq!(journal.files_count(), 2);
}

#[test]
fn a_batch_larger_than_a_file_gets_its_own() {
    let mut journal = journal();
    write(&mut journal, &vec![1; 100 << 10], true);
    assert!(journal.poll_write(1).is_none());
    let JournalNeed::File { id, capacity_bytes } = journal.poll_need(false) else {
        panic!("nothing is asked for");
    };
    assert!(capacity_bytes > 100 << 10);
    journal.on_file_made(id, capacity_bytes);
    assert_eq!(journal.poll_write(1).expect("it fits").1.position, 4096);
}

#[test]
fn file_names_are_read_back() {
    let name = journal_file_name(258, CoreId(17), 3);
    assert_eq!(parse_journal_file_name(&name), Some((258, CoreId(17))));
    assert_eq!(parse_journal_file_name("x.jnl"), None);
    assert_eq!(parse_journal_file_name(&format!("{name}x")), None);
}
