use std::collections::BTreeMap;

use ring::buf::AlignedBuf;

use super::*;
use crate::batch::{BatchView, Compression, split};
use crate::blocking_disk::{BlockingDisk, block_on};
use crate::builder::BatchBuilder;
use crate::index::SegmentIndex;
use crate::records::RecordsScratch;
use crate::sim_disk::SimDisk;
use crate::tasks::read_file;

const BOUNDS: IndexBounds = IndexBounds {
    interval_bytes: 256,
    bytes_max: 10 << 20,
};

/// A closed segment of these batches, as a job is told of it.
struct Written {
    segment: SegmentRef,
    image: SegmentImage,
}

fn write<D: Disk>(disk: &D, dir: &Path, base: i64, batches: &[Vec<u8>]) -> Written {
    let paths = SegmentPaths {
        log: path(dir, Offset(base), "log"),
        offset_index: path(dir, Offset(base), "index"),
        time_index: path(dir, Offset(base), "timeindex"),
    };
    let image = block_on(async {
        let image = SegmentImage::empty(Offset(base), 0);
        let mut writer = SegmentWriter::create(disk, paths, image, BOUNDS)
            .await
            .expect("made");
        for batch in batches {
            writer.push(disk, batch).await.expect("written");
        }
        writer.finish(disk).await.expect("finished")
    });
    Written {
        segment: segment_ref(dir, &image),
        image,
    }
}

fn segment_ref(dir: &Path, image: &SegmentImage) -> SegmentRef {
    SegmentRef {
        log: LogId(0),
        dir: Rc::new(dir.to_path_buf()),
        base: image.base,
        generation: image.generation,
        end: image.length_bytes,
        length_bytes: image.length_bytes,
        offset_end: image.offset_end,
        max_timestamp_ms: image.max_timestamp_ms,
        finished: true,
        index: BOUNDS,
        overlay: None,
    }
}

fn job(dir: &Path, segments: &[Written], dirty_from: i64, memory_bytes: usize) -> CleanJob {
    CleanJob {
        log: LogId(0),
        dir: Rc::new(dir.to_path_buf()),
        segments: segments
            .iter()
            .map(|written| (written.segment.clone(), written.image.clone()))
            .collect(),
        dirty_from: Offset(dirty_from),
        segment_bytes: 64 << 20,
        index: BOUNDS,
        memory_bytes,
        delete_retention_ms: 0,
        now_ms: 1,
        generation: 1 + segments
            .iter()
            .map(|written| written.image.generation)
            .max()
            .unwrap_or(0),
        producers: ProducerStates::new(),
    }
}

fn batch(offset: i64, key: &str, value_bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None).base_offset(offset);
    let value = vec![offset as u8; value_bytes];
    builder.push(1000 + offset, Some(key.as_bytes()), Some(&value));
    builder.build()
}

/// Key and offset of each record.
fn records(log: &[u8]) -> Vec<(String, i64)> {
    let mut scratch = RecordsScratch::new();
    let mut out = Vec::new();
    for batch in split(log) {
        let batch = batch.expect("whole");
        for record in scratch.records(&batch, 1 << 20).expect("readable") {
            let record = record.expect("readable");
            let key = record.key.expect("a key").to_vec();
            out.push((String::from_utf8(key).expect("text"), record.offset));
        }
    }
    out
}

fn contents(disk: &SimDisk, path: &Path) -> Vec<u8> {
    disk.contents(path)
        .unwrap_or_else(|| panic!("{}", path.display()))
}

/// Puts the results of a round in place, as the store does.
fn put_in_place(
    disk: &SimDisk,
    dir: &Path,
    segments: &mut Vec<Written>,
    replacements: &[Replacement],
) {
    for replacement in replacements {
        block_on(crate::tasks::move_files(disk, &swap_work(dir, replacement))).expect("in place");
        let at = segments
            .iter()
            .position(|written| replacement.removed.contains(&written.image.base))
            .expect("there");
        segments.retain(|written| !replacement.removed.contains(&written.image.base));
        let image = replacement.added.clone();
        let segment = segment_ref(dir, &image);
        segments.insert(at, Written { segment, image });
    }
}

/// A map that holds fewer keys than one segment gets through the log all the same, round by round, and
/// in the end only the newest of each key is there.
#[test]
fn a_small_map_takes_several_rounds() {
    let disk = SimDisk::new(1);
    let dir = Path::new("/t-0");
    block_on(disk.create_dir_all(dir)).expect("made");
    let key = |offset: i64| format!("key {}", offset * 7 % 90);
    let mut segments = Vec::new();
    for base in [0, 200] {
        let batches: Vec<_> = (base..base + 200)
            .map(|offset| batch(offset, &key(offset), 40))
            .collect();
        segments.push(write(&disk, dir, base, &batches));
    }
    let mut dirty_from = 0;
    let mut rounds = 0;
    while dirty_from < 400 {
        // The least there is: 51 keys.
        let job = job(dir, &segments, dirty_from, 0);
        let (replacements, end) = block_on(job.run(&disk)).result.expect("cleaned");
        assert!(end.0 > dirty_from, "a round gets on");
        assert_eq!(
            replacements.last().map(|last| last.compacted_end),
            Some(end)
        );
        put_in_place(&disk, dir, &mut segments, &replacements);
        dirty_from = end.0;
        rounds += 1;
    }
    assert!(rounds >= 400 / 51, "{rounds}");
    assert_eq!(segments.len(), 1, "small neighbours become one");
    let mut newest = BTreeMap::new();
    for offset in 0..400 {
        newest.insert(key(offset), offset);
    }
    let mut expected: Vec<_> = newest.into_iter().collect();
    expected.sort_by_key(|(_, offset)| *offset);
    let log = contents(&disk, &path(dir, Offset(0), "log"));
    assert_eq!(records(&log), expected);
    assert_eq!(segments[0].image.offset_end, Offset(400));
    assert_eq!(segments[0].image.length_bytes, log.len() as u64);
}

/// Kafka's rule: neighbours are taken together by what they hold before they are cleaned.
#[test]
fn neighbours_become_one_segment_as_long_as_they_fit() {
    let image = |base: i64, length_bytes: u64| {
        let mut image = SegmentImage::empty(Offset(base), 0);
        (image.length_bytes, image.offset_end) = (length_bytes, Offset(base + 10));
        (segment_ref(Path::new("/t-0"), &image), image)
    };
    let far = i64::from(i32::MAX);
    let segments = [
        image(0, 60),
        image(10, 40),
        image(20, 1),
        image(30, 200),
        image(40, 0),
        image(50, 99),
        image(far + 31, 0),
    ];
    let groups: Vec<Vec<i64>> = group_by_size(&segments, 100)
        .map(|group| group.iter().map(|(_, image)| image.base.0).collect())
        .collect();
    assert_eq!(
        groups,
        [
            vec![0, 10],
            vec![20],
            vec![30],
            vec![40, 50],
            vec![far + 31]
        ]
    );
}

/// What is written in chunks is what was kept, wherever batches and chunks meet, and its indexes are
/// those of a walk.
#[test]
fn chunks_and_indexes_fit_what_was_kept() {
    let disk = SimDisk::new(1);
    let dir = Path::new("/t-0");
    block_on(disk.create_dir_all(dir)).expect("made");
    // Some batches end in a chunk's middle, one is larger than two chunks.
    let mut batches: Vec<_> = (0..40)
        .map(|offset| batch(offset, &format!("key {}", offset % 30), 70_001))
        .collect();
    batches.push(batch(40, "key 40", 5 << 19));
    batches.push(batch(41, "key 41", 10));
    let segments = [write(&disk, dir, 0, &batches)];
    let job = job(dir, &segments, 0, 1 << 20);
    let (replacements, _) = block_on(job.run(&disk)).result.expect("cleaned");
    let added = &replacements[0].added;
    let paths = cleaned_paths(dir, Offset(0), 1);
    let log = contents(&disk, &paths.log);
    assert!(log == batches[10..].concat(), "the newest of each key");
    let mut walked = SegmentIndex::new(Offset(0));
    let mut position = 0;
    for batch in split(&log) {
        let batch = batch.expect("whole");
        walked.on_batch(batch.header(), position, BOUNDS.interval_bytes);
        position += batch.len_bytes() as u64;
    }
    walked.close();
    let (offsets, times) = (
        contents(&disk, &paths.offset_index),
        contents(&disk, &paths.time_index),
    );
    assert_eq!(offsets, walked.offset_index_bytes());
    assert_eq!(times, walked.time_index_bytes());
    assert!(!offsets.is_empty() && !times.is_empty());
    let (length, end) = (added.length_bytes, added.offset_end);
    assert!(SegmentIndex::decode(Offset(0), &offsets, &times, length, end).is_ok());
    assert_eq!(length, log.len() as u64);
}

/// An index that would pass its bound becomes sparser, and still finds every batch.
#[test]
fn an_index_stays_within_its_bound() {
    let disk = SimDisk::new(1);
    let dir = Path::new("/t-0");
    block_on(disk.create_dir_all(dir)).expect("made");
    let batches: Vec<_> = (0..2000).map(|offset| batch(offset, "key", 10)).collect();
    let paths = cleaned_paths(dir, Offset(0), 1);
    let bounds = IndexBounds {
        interval_bytes: 0,
        bytes_max: 1200,
    };
    let image = block_on(async {
        let image = SegmentImage::empty(Offset(0), 0);
        let mut writer = SegmentWriter::create(&disk, paths.clone(), image, bounds)
            .await
            .expect("made");
        for batch in &batches {
            writer.push(&disk, batch).await.expect("written");
        }
        writer.finish(&disk).await.expect("finished")
    });
    let (offsets, times) = (
        contents(&disk, &paths.offset_index),
        contents(&disk, &paths.time_index),
    );
    assert!(
        offsets.len() <= 1200 && times.len() <= 1200 + 12,
        "{}",
        times.len()
    );
    let index = SegmentIndex::decode(
        Offset(0),
        &offsets,
        &times,
        image.length_bytes,
        image.offset_end,
    )
    .expect("it fits");
    let log = contents(&disk, &paths.log);
    for offset in 0..2000 {
        let start = index.position_for_offset(Offset(offset)) as usize;
        let (batch, _) = BatchView::first(&log[start..]).expect("a batch begins there");
        let found = batch.header().base_offset().0;
        assert!(found <= offset && found + 80 > offset, "{offset}");
    }
}

/// The memory of a round is bounded by its chunks and its map, not by the segment: the largest heap is
/// counted while 24 MiB are cleaned, from real files.
#[test]
fn a_round_holds_a_few_chunks() {
    const SEGMENT_BYTES: usize = 24 << 20;
    const MAP_BYTES: usize = 1 << 20;
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path();
    let disk = BlockingDisk::new();
    let batches: Vec<_> = (0..(SEGMENT_BYTES >> 16) as i64)
        .map(|offset| batch(offset, &format!("key {offset}"), 1 << 16))
        .collect();
    let segments = [write(&disk, dir, 0, &batches)];
    drop(batches);
    // Buffers that the thread keeps to use them again are no part of what is counted.
    drop([AlignedBuf::scratch(1), AlignedBuf::scratch(1)]);
    let job = job(dir, &segments, 0, MAP_BYTES);
    let mut kept_bytes = 0;
    let counted = allocation_counter::measure(|| {
        let (replacements, _) = block_on(job.run(&disk)).result.expect("cleaned");
        kept_bytes = replacements[0].added.length_bytes;
    });
    assert!(kept_bytes > SEGMENT_BYTES as u64, "all keys are new");
    // A chunk to write, two windows to read, the map.
    let most = 3 * (1 << 20) + MAP_BYTES + (1 << 20);
    assert!(
        counted.bytes_max <= most as u64,
        "{} bytes at once",
        counted.bytes_max
    );
    let written = block_on(read_file(
        &disk,
        &cleaned_paths(dir, Offset(0), 1).log,
        64 << 20,
    ));
    assert_eq!(written.expect("there").len() as u64, kept_bytes);
}

/// A round that fails leaves nothing behind, and so does the next one of what a crash left.
#[test]
fn nothing_is_left_of_a_round_that_failed() {
    let disk = SimDisk::new(1);
    let dir = Path::new("/t-0");
    block_on(disk.create_dir_all(dir)).expect("made");
    let batches: Vec<_> = (0..200)
        .map(|offset| batch(offset, &format!("key {offset}"), 9_000))
        .collect();
    let segments = [write(&disk, dir, 0, &batches)];
    let leftovers = || -> Vec<String> {
        let entries = block_on(disk.list_dir(dir)).expect("listed");
        let names = entries.into_iter().map(|entry| entry.name);
        names.filter(|name| name.ends_with(CLEANED)).collect()
    };
    // There is room for half of it.
    let room = disk.used_bytes() + (900 << 10);
    disk.set_faults(|faults| faults.capacity_bytes = room);
    let outcome = block_on(job(dir, &segments, 0, 1 << 20).run(&disk));
    assert_eq!(outcome.result, Err(ReadError::Io));
    assert_eq!(leftovers(), Vec::<String>::new());
    disk.set_faults(|faults| faults.capacity_bytes = u64::MAX);
    let orphan = cleaned_paths(dir, Offset(77), 9).log;
    block_on(crate::tasks::write_plain(
        &disk,
        &orphan,
        b"of a round that a crash ended",
    ))
    .expect("written");
    let outcome = block_on(job(dir, &segments, 0, 1 << 20).run(&disk));
    assert_eq!(outcome.result.expect("cleaned").0.len(), 1);
    assert_eq!(leftovers().len(), 3, "the new segment and its indexes");
}
