//! A bounded set of open files over any [`Disk`], least recently used closed first: ten thousand
//! partitions have more files than a process may open. Lives on its core, between the store's tasks
//! and the disk; knows no names' meaning.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ring::buf::{AlignedBuf, Shared};

use crate::disk::{DirEntry, Disk, OpenMode, Space};

/// Files kept open, by path.
struct Cache<F> {
    files: HashMap<PathBuf, (F, bool, u64)>,
    by_use: BTreeMap<u64, PathBuf>,
    uses: u64,
    /// Counts renames and removals: a file whose opening overlapped one is not kept.
    changes: u64,
    files_max: usize,
}

impl<F: Clone> Cache<F> {
    fn get(&mut self, path: &Path, writable: bool) -> Option<F> {
        self.uses += 1;
        let uses = self.uses;
        let (file, may_write, used) = self.files.get_mut(path)?;
        if writable && !*may_write {
            return None;
        }
        let path = self.by_use.remove(used).expect("every file has its use");
        *used = uses;
        self.by_use.insert(uses, path);
        Some(file.clone())
    }

    fn put(&mut self, path: &Path, file: F, writable: bool) {
        self.forget(path);
        self.uses += 1;
        self.files
            .insert(path.to_path_buf(), (file, writable, self.uses));
        self.by_use.insert(self.uses, path.to_path_buf());
        while self.files.len() > self.files_max {
            let (_, oldest) = self.by_use.pop_first().expect("more than none");
            self.files.remove(&oldest);
        }
    }

    fn forget(&mut self, path: &Path) {
        if let Some((_, _, used)) = self.files.remove(path) {
            self.by_use.remove(&used);
        }
    }

    /// Forgets a file, or everything below a directory.
    fn forget_tree(&mut self, path: &Path) {
        if self.files.contains_key(path) {
            self.forget(path);
            return;
        }
        let below: Vec<PathBuf> = self
            .files
            .keys()
            .filter(|known| known.starts_with(path))
            .cloned()
            .collect();
        for path in below {
            self.forget(&path);
        }
    }
}

/// A [`Disk`] that keeps files open between uses.
pub struct OpenFiles<D: Disk> {
    disk: D,
    cache: Rc<RefCell<Cache<D::File>>>,
}

impl<D: Disk> Clone for OpenFiles<D> {
    fn clone(&self) -> OpenFiles<D> {
        OpenFiles {
            disk: self.disk.clone(),
            cache: Rc::clone(&self.cache),
        }
    }
}

impl<D: Disk> OpenFiles<D> {
    /// Keeps at most `files_max` files of `disk` open beyond those in use.
    pub fn new(disk: D, files_max: usize) -> OpenFiles<D> {
        OpenFiles {
            disk,
            cache: Rc::new(RefCell::new(Cache {
                files: HashMap::new(),
                by_use: BTreeMap::new(),
                uses: 0,
                changes: 0,
                files_max: files_max.max(1),
            })),
        }
    }
}

impl<D: Disk> Disk for OpenFiles<D> {
    type File = D::File;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<D::File> {
        let writable = mode != OpenMode::Read;
        if mode != OpenMode::CreateNew
            && let Some(file) = self.cache.borrow_mut().get(path, writable)
        {
            return Ok(file);
        }
        let changes = self.cache.borrow().changes;
        let file = self.disk.open(path, mode).await?;
        let mut cache = self.cache.borrow_mut();
        if cache.changes == changes {
            cache.put(path, file.clone(), writable);
        }
        Ok(file)
    }

    fn read_at(
        &self,
        file: &D::File,
        position: u64,
        buf: AlignedBuf,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuf)> {
        self.disk.read_at(file, position, buf)
    }

    fn write_at(
        &self,
        file: &D::File,
        position: u64,
        bytes: Shared,
    ) -> impl Future<Output = io::Result<()>> {
        self.disk.write_at(file, position, bytes)
    }

    fn write_gathered(
        &self,
        file: &D::File,
        position: u64,
        pieces: &[Shared],
    ) -> impl Future<Output = io::Result<()>> {
        self.disk.write_gathered(file, position, pieces)
    }

    fn sync_data(&self, file: &D::File) -> impl Future<Output = io::Result<()>> {
        self.disk.sync_data(file)
    }

    fn allocate(
        &self,
        file: &D::File,
        position: u64,
        length_bytes: u64,
    ) -> impl Future<Output = io::Result<()>> {
        self.disk.allocate(file, position, length_bytes)
    }

    fn truncate(&self, file: &D::File, length_bytes: u64) -> impl Future<Output = io::Result<()>> {
        self.disk.truncate(file, length_bytes)
    }

    fn length(&self, file: &D::File) -> impl Future<Output = io::Result<u64>> {
        self.disk.length(file)
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to).await?;
        // Only now: a file opened under the old name meanwhile must not stay known by it.
        let mut cache = self.cache.borrow_mut();
        cache.changes += 1;
        cache.forget_tree(from);
        cache.forget_tree(to);
        Ok(())
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let result = self.disk.remove_file(path).await;
        let mut cache = self.cache.borrow_mut();
        cache.changes += 1;
        cache.forget(path);
        result
    }

    fn remove_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> {
        self.disk.remove_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> impl Future<Output = io::Result<()>> {
        self.disk.create_dir_all(path)
    }

    fn list_dir(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirEntry>>> {
        self.disk.list_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> {
        self.disk.sync_dir(path)
    }

    fn sync_all(&self, directory: &Path, file: &D::File) -> impl Future<Output = io::Result<()>> {
        self.disk.sync_all(directory, file)
    }

    fn space(&self, path: &Path) -> impl Future<Output = io::Result<Space>> {
        self.disk.space(path)
    }

    fn pause(&self) -> impl Future<Output = ()> {
        self.disk.pause()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocking_disk::{BlockingDisk, block_on};

    #[test]
    fn a_renamed_name_is_opened_anew_and_the_set_is_bounded() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = OpenFiles::new(BlockingDisk::new(), 2);
        block_on(async {
            let (a, b) = (dir.path().join("a"), dir.path().join("b"));
            for (path, bytes) in [(&a, 4096), (&b, 8192)] {
                let file = disk.open(path, OpenMode::Create).await.unwrap();
                disk.allocate(&file, 0, bytes).await.unwrap();
            }
            disk.rename(&b, &a).await.unwrap();
            let file = disk.open(&a, OpenMode::Read).await.unwrap();
            assert_eq!(disk.length(&file).await.unwrap(), 8192);
            assert!(disk.open(&b, OpenMode::Read).await.is_err());
            for name in 0..5 {
                let path = dir.path().join(format!("{name}"));
                disk.open(&path, OpenMode::Create).await.unwrap();
            }
            assert_eq!(disk.cache.borrow().files.len(), 2);
            assert_eq!(disk.cache.borrow().by_use.len(), 2);
        });
    }
}
