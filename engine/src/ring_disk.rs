//! The core's files for slow work: [`Disk`] over the core's ring. Lives on one core; its futures are
//! polled by that core's background tasks and completed by its serving loop. Knows no executor.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ring::buf::{AlignedBuf, Shared};
use ring::{File, FileOutcome, OpToken, OpenOptions, Ring};
use storage::disk::{DirEntry, Disk, OpenMode, Space, joined};

/// Lets other work of the core run once; given by whoever runs the tasks.
pub type Pause = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = ()>>>>;

enum Waiting {
    /// Asked for; the waker of whoever awaits it.
    Open(Option<Waker>),
    Done(FileOutcome),
    /// Nobody awaits it any more.
    Abandoned,
}

/// Files of one core. Cloning shares the ring.
#[derive(Clone)]
pub struct RingDisk {
    ring: Rc<RefCell<Ring>>,
    waiting: Rc<RefCell<HashMap<OpToken, Waiting>>>,
    /// Outcomes that are there and not taken: each is something for a task to go on with.
    done: Rc<Cell<usize>>,
    /// Whether a device refused to write pieces: they are copied into one from then on.
    joins: Rc<Cell<bool>>,
    pause: Pause,
}

struct Outcome {
    disk: RingDisk,
    token: OpToken,
}

impl Future for Outcome {
    type Output = FileOutcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<FileOutcome> {
        let mut waiting = self.disk.waiting.borrow_mut();
        let entry = waiting
            .get_mut(&self.token)
            .expect("an outcome is taken once");
        match entry {
            Waiting::Open(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            Waiting::Done(_) | Waiting::Abandoned => match waiting.remove(&self.token) {
                Some(Waiting::Done(outcome)) => {
                    self.disk.done.update(|count| count - 1);
                    Poll::Ready(outcome)
                }
                _ => unreachable!("only a dropped future is abandoned"),
            },
        }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        let mut waiting = self.disk.waiting.borrow_mut();
        match waiting.get_mut(&self.token) {
            Some(entry @ Waiting::Open(_)) => *entry = Waiting::Abandoned,
            Some(Waiting::Done(_)) => {
                waiting.remove(&self.token);
                self.disk.done.update(|count| count - 1);
            }
            Some(Waiting::Abandoned) | None => {}
        }
    }
}

impl RingDisk {
    /// Files through `ring`. Whoever drives the ring gives every outcome to [`RingDisk::complete`].
    pub fn new(ring: Rc<RefCell<Ring>>, pause: Pause) -> RingDisk {
        RingDisk {
            ring,
            waiting: Rc::new(RefCell::new(HashMap::new())),
            done: Rc::default(),
            joins: Rc::default(),
            pause,
        }
    }

    /// Gives an outcome to who awaits it; gives it back when nobody here asked for it.
    pub fn complete(&self, token: OpToken, outcome: FileOutcome) -> Option<FileOutcome> {
        let mut waiting = self.waiting.borrow_mut();
        match waiting.get_mut(&token) {
            None => return Some(outcome),
            Some(Waiting::Abandoned) => {
                waiting.remove(&token);
            }
            Some(entry) => {
                self.done.update(|count| count + 1);
                if let Waiting::Open(Some(waker)) = std::mem::replace(entry, Waiting::Done(outcome))
                {
                    waker.wake();
                }
            }
        }
        None
    }

    /// Outcomes that tasks have not taken yet: while there are any, some task can go on.
    pub fn done_count(&self) -> usize {
        self.done.get()
    }

    fn ask(&self, submit: impl FnOnce(&mut Ring) -> io::Result<OpToken>) -> io::Result<Outcome> {
        let mut ring = self.ring.borrow_mut();
        let token = submit(&mut ring)?;
        self.waiting.borrow_mut().insert(token, Waiting::Open(None));
        Ok(Outcome {
            disk: self.clone(),
            token,
        })
    }

    async fn done(&self, submit: impl FnOnce(&mut Ring) -> io::Result<OpToken>) -> io::Result<u64> {
        match self.ask(submit)?.await {
            FileOutcome::Done(result) => result,
            _ => unreachable!("this operation ends as done"),
        }
    }

    async fn open_with(&self, path: &Path, options: OpenOptions) -> io::Result<File> {
        match self.ask(|ring| ring.open(path, options))?.await {
            FileOutcome::Opened(result) => result,
            _ => unreachable!("an open ends as opened"),
        }
    }
}

impl Disk for RingDisk {
    type File = File;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<File> {
        let options = OpenOptions {
            write: mode != OpenMode::Read,
            create: mode == OpenMode::Create,
            create_new: mode == OpenMode::CreateNew,
            direct: true,
            directory: false,
        };
        self.open_with(path, options).await
    }

    async fn read_at(
        &self,
        file: &File,
        position: u64,
        buf: AlignedBuf,
    ) -> (io::Result<usize>, AlignedBuf) {
        let asked = self.ask(|ring| Ok(ring.read_at(file, position, buf)));
        match asked {
            Ok(outcome) => match outcome.await {
                FileOutcome::Read(result, buf) => (result, buf),
                _ => unreachable!("a read ends as read"),
            },
            // The ring is broken and has the buffer.
            Err(error) => (Err(error), AlignedBuf::zeroed(0)),
        }
    }

    async fn write_at(&self, file: &File, position: u64, bytes: Shared) -> io::Result<()> {
        self.done(|ring| Ok(ring.write_at(file, position, bytes, false)))
            .await
            .map(drop)
    }

    async fn write_gathered(
        &self,
        file: &File,
        position: u64,
        pieces: &[Shared],
    ) -> io::Result<()> {
        if !self.joins.get() {
            let write = |ring: &mut Ring| ring.write_gathered(file, position, pieces.to_vec());
            match self.done(|ring| Ok(write(ring))).await {
                // A device whose sectors are larger.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.joins.set(true),
                other => return other.map(drop),
            }
        }
        self.write_at(file, position, joined(pieces)).await
    }

    async fn sync_data(&self, file: &File) -> io::Result<()> {
        self.done(|ring| Ok(ring.sync_data(file))).await.map(drop)
    }

    async fn allocate(&self, file: &File, position: u64, length_bytes: u64) -> io::Result<()> {
        self.done(|ring| Ok(ring.allocate(file, position, length_bytes)))
            .await
            .map(drop)
    }

    async fn truncate(&self, file: &File, length_bytes: u64) -> io::Result<()> {
        self.done(|ring| Ok(ring.truncate(file, length_bytes)))
            .await
            .map(drop)
    }

    async fn length(&self, file: &File) -> io::Result<u64> {
        self.done(|ring| Ok(ring.file_length(file))).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.done(|ring| ring.rename(from, to)).await.map(drop)
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.done(|ring| ring.remove(path, false)).await.map(drop)
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.done(|ring| ring.remove(path, true)).await.map(drop)
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        // From the first ancestor that can be made, down.
        let mut missing = vec![path];
        while let Some(next) = missing.last().copied() {
            match self.done(|ring| ring.make_dir(next)).await {
                Ok(_) => {
                    missing.pop();
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    missing.pop();
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => match next.parent() {
                    Some(parent) if !parent.as_os_str().is_empty() => missing.push(parent),
                    _ => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        match self.ask(|ring| ring.list_dir(path))?.await {
            FileOutcome::Listed(result) => Ok(result?
                .into_iter()
                .map(|entry| DirEntry {
                    name: entry.name,
                    is_dir: entry.is_dir,
                })
                .collect()),
            _ => unreachable!("a listing ends as listed"),
        }
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let options = OpenOptions {
            directory: true,
            ..OpenOptions::default()
        };
        let directory = self.open_with(path, options).await?;
        self.done(|ring| Ok(ring.sync_all(&directory)))
            .await
            .map(drop)
    }

    async fn sync_all(&self, directory: &Path, file: &File) -> io::Result<()> {
        self.done(|ring| ring.sync_file_system(directory)).await?;
        // Not every file system tells the device to keep what it has when all of it is flushed; behind
        // the flush of a file it does.
        self.sync_data(file).await
    }

    async fn space(&self, path: &Path) -> io::Result<Space> {
        match self.ask(|ring| ring.space(path))?.await {
            FileOutcome::Space(result) => result.map(|space| Space {
                total_bytes: space.total_bytes,
                free_bytes: space.free_bytes,
            }),
            _ => unreachable!("a question for room ends as room"),
        }
    }

    async fn pause(&self) {
        (self.pause)().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::{Completion, RingConfig};

    /// Polls a future, and drives the ring as a serving loop does.
    fn block_on<T>(disk: &RingDisk, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        let mut completions = Vec::new();
        loop {
            let polled = future
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(value) = polled {
                return value;
            }
            let mut ring = disk.ring.borrow_mut();
            if ring.prepare_sleep() {
                assert!(
                    ring.wait_blocking(60_000).expect("a ring"),
                    "what a task asks for is submitted"
                );
            } else {
                ring.woke();
            }
            ring.turn(&mut completions, 64).expect("a turn");
            drop(ring);
            for completion in completions.drain(..) {
                let Completion::File { token, outcome } = completion else {
                    panic!("only files here");
                };
                assert!(disk.complete(token, outcome).is_none(), "all are awaited");
            }
        }
    }

    fn disk() -> RingDisk {
        let ring = Ring::new(RingConfig::default()).expect("a ring");
        let pause: Pause = Rc::new(|| Box::pin(std::future::ready(())));
        RingDisk::new(Rc::new(RefCell::new(ring)), pause)
    }

    #[test]
    fn pieces_that_a_device_refuses_are_written_as_one() {
        let disk = disk();
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
        block_on(&disk, async {
            let path = root.path().join("a.log");
            let file = disk.open(&path, OpenMode::CreateNew).await.expect("made");
            let mut data = AlignedBuf::zeroed(16 << 10);
            for (index, byte) in data.iter_mut().enumerate() {
                *byte = (index / 5) as u8;
            }
            let data = data.freeze();
            // Off a sector by a byte, as what is no sector looks to a device with larger ones.
            for shift in [0, 1, 0] {
                let pieces = vec![data.slice(shift..4096), data.slice(4096..8192 + shift)];
                disk.write_gathered(&file, 0, &pieces)
                    .await
                    .expect("written");
                let (result, buf) = disk.read_at(&file, 0, AlignedBuf::zeroed(8192)).await;
                assert_eq!(result.expect("read"), 8192);
                assert!(buf[..] == data[shift..8192 + shift]);
            }
        });
    }

    #[test]
    fn a_segment_lives_and_dies() {
        let disk = disk();
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
        let directory = root.path().join("data/topic-0");
        block_on(&disk, async {
            disk.create_dir_all(&directory).await.expect("made");
            disk.create_dir_all(&directory)
                .await
                .expect("there already");
            let path = directory.join("a.log");
            let file = disk.open(&path, OpenMode::CreateNew).await.expect("made");
            disk.allocate(&file, 0, 1 << 20).await.expect("allocated");
            let mut data = AlignedBuf::zeroed(8192);
            data.fill(7);
            disk.write_at(&file, 4096, data.freeze())
                .await
                .expect("written");
            disk.sync_data(&file).await.expect("flushed");
            disk.truncate(&file, 10_000).await.expect("truncated");
            assert_eq!(disk.length(&file).await.expect("a length"), 10_000);
            disk.sync_dir(&directory).await.expect("flushed");
            let (bytes, buf) = disk.read_at(&file, 4096, AlignedBuf::zeroed(8192)).await;
            assert_eq!(bytes.expect("read"), 10_000 - 4096);
            assert!(buf[..10_000 - 4096].iter().all(|byte| *byte == 7));
            disk.pause().await;
            let space = disk.space(&directory).await.expect("room");
            assert!(space.free_bytes <= space.total_bytes);

            let renamed = directory.join("b.log");
            disk.rename(&path, &renamed).await.expect("renamed");
            let listed = disk.list_dir(&directory).await.expect("listed");
            assert_eq!(listed.len(), 1);
            assert_eq!(listed[0].name, "b.log");
            let missing = disk.open(&path, OpenMode::Read).await.expect_err("gone");
            assert_eq!(missing.kind(), io::ErrorKind::NotFound);
            disk.remove_file(&renamed).await.expect("removed");
            disk.remove_dir(&directory).await.expect("removed");
        });
        assert!(disk.waiting.borrow().is_empty());
        assert_eq!(disk.done_count(), 0);
    }

    #[test]
    fn an_outcome_counts_until_it_is_taken_or_dropped() {
        let disk = disk();
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
        let mut completions = Vec::new();
        for taken in [true, false] {
            let mut space = Box::pin(disk.space(root.path()));
            let mut context = Context::from_waker(Waker::noop());
            assert!(space.as_mut().poll(&mut context).is_pending());
            while disk.done_count() == 0 {
                let mut ring = disk.ring.borrow_mut();
                ring.sleep_blocking(1_000).expect("a sleep");
                ring.turn(&mut completions, 64).expect("a turn");
                drop(ring);
                for completion in completions.drain(..) {
                    let Completion::File { token, outcome } = completion else {
                        panic!("only files here");
                    };
                    assert!(disk.complete(token, outcome).is_none());
                }
            }
            assert_eq!(disk.done_count(), 1);
            if taken {
                assert!(space.as_mut().poll(&mut context).is_ready());
            }
            drop(space);
            assert_eq!(disk.done_count(), 0);
        }
    }

    #[test]
    fn a_dropped_future_leaves_nothing_behind() {
        let disk = disk();
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
        let path = root.path().join("f");
        {
            let mut open = std::pin::pin!(disk.open(&path, OpenMode::Create));
            let polled = open.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
        }
        assert_eq!(disk.waiting.borrow().len(), 1);
        // Whatever completes afterwards is taken and dropped.
        block_on(&disk, async {
            while !disk.waiting.borrow().is_empty() {
                disk.space(root.path()).await.expect("room");
            }
        });
        assert!(disk.waiting.borrow().is_empty());
    }
}
