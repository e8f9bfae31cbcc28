//! Files through one ring, on the file system that holds the build: written and read back, named,
//! removed, and the errors that others must tell apart.

use std::io;
use std::path::Path;

use millrace_ring::buf::{AlignedBuf, BLOCK_BYTES, Shared};
use millrace_ring::clock::monotonic_us;
use millrace_ring::{Completion, File, FileOutcome, OpToken, OpenOptions, Ring, RingConfig};

struct Disk {
    ring: Ring,
    directory: tempfile::TempDir,
}

impl Disk {
    fn new() -> Disk {
        Disk {
            ring: Ring::new(RingConfig::default()).expect("a ring"),
            directory: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory"),
        }
    }

    fn wait(&mut self, token: OpToken) -> FileOutcome {
        let give_up_us = monotonic_us() + 60_000_000;
        let mut completions = Vec::new();
        loop {
            self.ring.turn(&mut completions, 64).expect("a turn");
            for completion in completions.drain(..) {
                if let Completion::File {
                    token: done,
                    outcome,
                } = completion
                {
                    assert_eq!(done, token);
                    return outcome;
                }
            }
            assert!(monotonic_us() < give_up_us, "the ring hangs");
            self.ring.sleep_blocking(1000).expect("a sleep");
        }
    }

    fn done(&mut self, token: OpToken) -> io::Result<u64> {
        match self.wait(token) {
            FileOutcome::Done(result) => result,
            other => panic!("{other:?}"),
        }
    }

    fn open(&mut self, path: &Path, options: OpenOptions) -> io::Result<File> {
        let token = self.ring.open(path, options).unwrap();
        match self.wait(token) {
            FileOutcome::Opened(result) => result,
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, file: &File, position: u64, bytes: usize) -> (usize, AlignedBuf) {
        let token = self.ring.read_at(file, position, AlignedBuf::zeroed(bytes));
        match self.wait(token) {
            FileOutcome::Read(result, buf) => (result.expect("reads"), buf),
            other => panic!("{other:?}"),
        }
    }
}

const NEW_DIRECT: OpenOptions = OpenOptions {
    write: true,
    create: false,
    create_new: true,
    direct: true,
    directory: false,
};

fn blocks(count: usize, seed: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(count * BLOCK_BYTES);
    for (index, byte) in buf.iter_mut().enumerate() {
        *byte = (index / 7) as u8 ^ seed;
    }
    buf
}

#[test]
fn what_is_written_is_read_and_lengths_are_told() {
    let mut disk = Disk::new();
    let path = disk.directory.path().join("a.log");
    let file = disk.open(&path, NEW_DIRECT).expect("made");
    let data = blocks(300, 1).freeze();
    let token = disk.ring.write_at(&file, 4096, data.clone(), true);
    assert_eq!(disk.done(token).unwrap(), 300 * 4096);
    let token = disk.ring.file_length(&file);
    assert_eq!(disk.done(token).unwrap(), 301 * 4096);

    // All of it, and past the end: short.
    let (bytes, buf) = disk.read(&file, 4096, 400 * 4096);
    assert_eq!(bytes, 300 * 4096);
    assert!(buf[..bytes] == data[..]);
    let (bytes, _) = disk.read(&file, 1 << 30, 4096);
    assert_eq!(bytes, 0);

    let token = disk.ring.truncate(&file, 5000);
    disk.done(token).expect("truncated");
    let (bytes, buf) = disk.read(&file, 0, 8192);
    assert_eq!(bytes, 5000, "to the very end, though it is off a block");
    assert!(buf[4096..5000] == data[..904]);

    let token = disk.ring.allocate(&file, 0, 1 << 20);
    disk.done(token).expect("allocated");
    let token = disk.ring.file_length(&file);
    assert_eq!(disk.done(token).unwrap(), 1 << 20);
    let token = disk.ring.sync_data(&file);
    disk.done(token).expect("flushed");
}

#[test]
fn pieces_are_written_one_behind_the_other() {
    let mut disk = Disk::new();
    let path = disk.directory.path().join("a.log");
    let file = disk.open(&path, NEW_DIRECT).expect("made");
    // More than one request takes, in blocks of which each lies elsewhere.
    const BLOCKS: usize = 1_200;
    let data = blocks(BLOCKS, 5).freeze();
    let pieces: Vec<Shared> = (0..BLOCKS)
        .map(|index| (index * 7 % BLOCKS) * BLOCK_BYTES)
        .map(|at| data.slice(at..at + BLOCK_BYTES))
        .collect();
    let expected: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
    let token = disk.ring.write_gathered(&file, 4096, pieces);
    let written = disk.done(token).expect("written");
    assert_eq!(written, data.len() as u64);
    let (bytes, buf) = disk.read(&file, 4096, data.len());
    assert!(bytes == data.len() && buf[..bytes] == expected);
}

#[test]
fn names_come_and_go() {
    let mut disk = Disk::new();
    let root = disk.directory.path().to_owned();
    let token = disk.ring.make_dir(&root.join("topic-0")).unwrap();
    disk.done(token).expect("made");
    let token = disk.ring.make_dir(&root.join("topic-0")).unwrap();
    let error = disk.done(token).expect_err("there already");
    assert_eq!(error.raw_os_error(), Some(17), "EEXIST");

    let file = disk
        .open(&root.join("topic-0/x"), NEW_DIRECT)
        .expect("made");
    let error = disk
        .open(&root.join("topic-0/x"), NEW_DIRECT)
        .expect_err("exists");
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    let token = disk
        .ring
        .rename(&root.join("topic-0/x"), &root.join("topic-0/y"))
        .unwrap();
    disk.done(token).expect("renamed");
    let directory = disk
        .open(
            &root.join("topic-0"),
            OpenOptions {
                directory: true,
                ..OpenOptions::default()
            },
        )
        .expect("opened");
    let token = disk.ring.sync_all(&directory);
    disk.done(token).expect("flushed");

    let list = |disk: &mut Disk, path: &Path| {
        let token = disk.ring.list_dir(path).unwrap();
        match disk.wait(token) {
            FileOutcome::Listed(Ok(entries)) => entries
                .into_iter()
                .map(|entry| (entry.name, entry.is_dir))
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(list(&mut disk, &root), [("topic-0".to_owned(), true)]);
    assert_eq!(
        list(&mut disk, &root.join("topic-0")),
        [("y".to_owned(), false)]
    );

    let token = disk.ring.remove(&root.join("topic-0"), true).unwrap();
    disk.done(token).expect_err("not empty");
    let token = disk.ring.remove(&root.join("topic-0/y"), false).unwrap();
    disk.done(token).expect("removed");
    // An open file outlives its name.
    let token = disk.ring.write_at(&file, 0, blocks(1, 9).freeze(), false);
    disk.done(token).expect("written");
    drop((file, directory));
    let token = disk.ring.remove(&root.join("topic-0"), true).unwrap();
    disk.done(token).expect("removed");
    assert!(list(&mut disk, &root).is_empty());
    let error = disk
        .open(&root.join("y"), OpenOptions::default())
        .expect_err("gone");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn dropped_files_are_closed() {
    let mut disk = Disk::new();
    let path = disk.directory.path().join("f");
    let file = disk.open(&path, NEW_DIRECT).expect("made");
    let open_count = || {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter(|entry| {
                let link = std::fs::read_link(entry.as_ref().unwrap().path());
                link.is_ok_and(|target| target == path)
            })
            .count()
    };
    assert_eq!(open_count(), 1);
    // A clone in flight keeps it open until the write is done.
    let token = disk.ring.write_at(&file, 0, blocks(2, 3).freeze(), true);
    drop(file);
    disk.done(token).expect("written");
    let give_up_us = monotonic_us() + 60_000_000;
    let mut completions = Vec::new();
    while open_count() > 0 {
        disk.ring.turn(&mut completions, 8).unwrap();
        disk.ring.sleep_blocking(10).unwrap();
        assert!(monotonic_us() < give_up_us, "closed in the end");
    }
}

#[test]
fn a_write_that_does_not_fit_says_so() {
    let mut disk = Disk::new();
    let path = disk.directory.path().join("f");
    let file = disk.open(&path, NEW_DIRECT).expect("made");
    drop(file);
    let file = disk.open(
        &path,
        OpenOptions {
            direct: true,
            ..OpenOptions::default()
        },
    );
    let token = disk
        .ring
        .write_at(&file.expect("opened"), 0, blocks(1, 1).freeze(), false);
    let error = disk.done(token).expect_err("opened for reading");
    assert_eq!(error.raw_os_error(), Some(9), "EBADF");
}

#[test]
fn room_is_told() {
    let mut disk = Disk::new();
    let path = disk.directory.path().to_owned();
    let token = disk.ring.space(&path).unwrap();
    match disk.wait(token) {
        FileOutcome::Space(Ok(space)) => {
            assert!(space.free_bytes > 0 && space.free_bytes <= space.total_bytes);
        }
        other => panic!("{other:?}"),
    }
    let token = disk.ring.space(Path::new("/nonexistent")).unwrap();
    assert!(matches!(disk.wait(token), FileOutcome::Space(Err(_))));
}

#[test]
fn hundreds_of_operations_through_a_small_queue() {
    let mut disk = Disk::new();
    disk.ring = Ring::new(RingConfig {
        submission_entries: 4,
        completion_entries: 8,
        ..RingConfig::default()
    })
    .unwrap();
    let path = disk.directory.path().join("f");
    let file = disk.open(&path, NEW_DIRECT).expect("made");
    let mut open: std::collections::HashSet<OpToken> = (0..300u64)
        .map(|block| {
            let data = blocks(1, block as u8).freeze();
            disk.ring.write_at(&file, block * 4096, data, false)
        })
        .collect();
    let give_up_us = monotonic_us() + 60_000_000;
    let mut completions = Vec::new();
    while !open.is_empty() {
        disk.ring.turn(&mut completions, 4).unwrap();
        for completion in completions.drain(..) {
            if let Completion::File {
                token,
                outcome: FileOutcome::Done(result),
            } = completion
            {
                result.expect("written");
                assert!(open.remove(&token), "completes once");
            }
        }
        disk.ring
            .sleep_blocking(if open.is_empty() { 0 } else { 100 })
            .unwrap();
        assert!(monotonic_us() < give_up_us, "the ring hangs");
    }
    let (bytes, buf) = disk.read(&file, 0, 300 * 4096);
    assert_eq!(bytes, 300 * 4096);
    for block in 0..300 {
        assert!(buf[block * 4096..][..4096] == blocks(1, block as u8)[..]);
    }
}

#[test]
fn the_probe_finds_direct_io_here() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    millrace_ring::probe::probe_direct(directory.path()).expect("this file system has it");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_durable_write_is_whole_where_the_flush_is_a_request_of_its_own() {
    // tmpfs is not among the file systems that obey RWF_DSYNC: the write is followed by a flush.
    let directory = match tempfile::tempdir_in("/dev/shm") {
        Ok(directory) => directory,
        Err(error) => panic!("/dev/shm is on every Linux: {error}"),
    };
    let mut disk = Disk::new();
    let path = directory.path().join("a.jnl");
    let options = OpenOptions {
        direct: false,
        ..NEW_DIRECT
    };
    let file = disk.open(&path, options).expect("made");
    let data = blocks(3, 5).freeze();
    let token = disk.ring.write_at(&file, 4096, data.clone(), true);
    assert_eq!(disk.done(token).unwrap(), 3 * 4096);
    let (bytes, buf) = disk.read(&file, 4096, 4 * 4096);
    assert_eq!(bytes, 3 * 4096);
    assert!(buf[..bytes] == data[..]);
}
