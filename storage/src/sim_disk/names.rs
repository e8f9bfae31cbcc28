//! The names of a simulated disk: directories that keep their identity when they are renamed, each with
//! what it holds now and what of that a power cut cannot take. Knows no contents.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use super::SimRng;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// A file, by inode.
    File(u64),
    /// A directory, by its place in [`Tree`].
    Dir(usize),
}

type Names = BTreeMap<OsString, Node>;

#[derive(Clone, Debug)]
enum Change {
    Set(OsString, Node),
    Remove(OsString),
    Rename(OsString, OsString),
}

fn apply(names: &mut Names, change: &Change) {
    match change {
        Change::Set(name, node) => {
            names.insert(name.clone(), *node);
        }
        Change::Remove(name) => {
            names.remove(name);
        }
        Change::Rename(from, to) => {
            if let Some(node) = names.remove(from) {
                names.insert(to.clone(), node);
            }
        }
    }
}

/// One directory.
#[derive(Debug, Default)]
struct Directory {
    now: Names,
    durable: Names,
    /// What `now` has over `durable`, in order.
    changes: Vec<Change>,
}

impl Directory {
    fn change(&mut self, change: Change) {
        apply(&mut self.now, &change);
        self.changes.push(change);
    }
}

/// All directories; the first is the root.
#[derive(Debug)]
pub(super) struct Tree {
    directories: Vec<Directory>,
}

impl Tree {
    /// Nothing but `/`.
    pub(super) fn new() -> Tree {
        Tree {
            directories: vec![Directory::default()],
        }
    }

    /// What a path names.
    pub(super) fn get(&self, path: &Path) -> Option<Node> {
        let mut at = Node::Dir(0);
        for component in path.components() {
            if let Component::Normal(name) = component {
                let Node::Dir(dir) = at else {
                    return None;
                };
                at = *self.directories[dir].now.get(name)?;
            }
        }
        Some(at)
    }

    fn dir(&self, path: &Path) -> Option<usize> {
        match self.get(path)? {
            Node::Dir(dir) => Some(dir),
            Node::File(_) => None,
        }
    }

    /// The directory that holds a path, and the path's name in it.
    fn place<'p>(&self, path: &'p Path) -> Option<(usize, &'p OsStr)> {
        Some((self.dir(path.parent()?)?, path.file_name()?))
    }

    /// Names a new file; false if its directory is not there.
    pub(super) fn add_file(&mut self, path: &Path, inode: u64) -> bool {
        let Some((dir, name)) = self.place(path) else {
            return false;
        };
        self.directories[dir].change(Change::Set(name.to_owned(), Node::File(inode)));
        true
    }

    /// Makes a directory and its missing parents; false if a file is in the way.
    pub(super) fn add_dirs(&mut self, path: &Path) -> bool {
        let mut at = 0;
        for component in path.components() {
            let Component::Normal(name) = component else {
                continue;
            };
            at = match self.directories[at].now.get(name) {
                Some(Node::Dir(dir)) => *dir,
                Some(Node::File(_)) => return false,
                None => {
                    let made = self.directories.len();
                    self.directories.push(Directory::default());
                    self.directories[at].change(Change::Set(name.to_owned(), Node::Dir(made)));
                    made
                }
            };
        }
        true
    }

    /// Takes a name away; what it named may live on as an open file.
    pub(super) fn remove(&mut self, path: &Path) {
        if let Some((dir, name)) = self.place(path) {
            self.directories[dir].change(Change::Remove(name.to_owned()));
        }
    }

    /// Renames; false if there is nothing to rename or nowhere to put it.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> bool {
        let (Some(node), Some((from_dir, from_name)), Some((to_dir, to_name))) =
            (self.get(from), self.place(from), self.place(to))
        else {
            return false;
        };
        if from_dir == to_dir {
            let change = Change::Rename(from_name.to_owned(), to_name.to_owned());
            self.directories[from_dir].change(change);
        } else {
            self.directories[from_dir].change(Change::Remove(from_name.to_owned()));
            self.directories[to_dir].change(Change::Set(to_name.to_owned(), node));
        }
        true
    }

    /// What a directory holds; none if it is no directory.
    pub(super) fn list(&self, path: &Path) -> Option<impl Iterator<Item = (&OsStr, Node)>> {
        let dir = self.dir(path)?;
        let names = self.directories[dir].now.iter();
        Some(names.map(|(name, node)| (name.as_os_str(), *node)))
    }

    /// Makes a directory's changes durable; they go with the directory, whatever it is called.
    pub(super) fn sync(&mut self, path: &Path) {
        if let Some(dir) = self.dir(path) {
            let directory = &mut self.directories[dir];
            for change in std::mem::take(&mut directory.changes) {
                apply(&mut directory.durable, &change);
            }
        }
    }

    /// The files below a directory, with their paths.
    pub(super) fn files_below(&self, path: &Path) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut open: Vec<(PathBuf, usize)> = Vec::new();
        open.extend(self.dir(path).map(|dir| (path.to_path_buf(), dir)));
        while let Some((path, dir)) = open.pop() {
            for (name, node) in &self.directories[dir].now {
                match node {
                    Node::File(inode) => found.push((path.join(name), *inode)),
                    Node::Dir(inner) => open.push((path.join(name), *inner)),
                }
            }
        }
        found
    }

    /// A directory and those below it.
    pub(super) fn dirs_below(&self, path: &Path) -> Vec<PathBuf> {
        let mut found = vec![path.to_path_buf()];
        let mut at = 0;
        while let Some(path) = found.get(at).cloned() {
            at += 1;
            let inside = self.list(&path).into_iter().flatten();
            let dirs = inside.filter(|(_, node)| matches!(node, Node::Dir(_)));
            found.extend(dirs.map(|(name, _)| path.join(name)));
        }
        found
    }

    /// A power cut: of each directory's changes a first part survives, since file systems keep them
    /// in order. What no surviving directory names is gone.
    pub(super) fn crash(&mut self, rng: &mut SimRng) {
        for directory in &mut self.directories {
            let changes = std::mem::take(&mut directory.changes);
            let survive = rng.below(changes.len() as u64 + 1) as usize;
            for change in &changes[..survive] {
                apply(&mut directory.durable, change);
            }
            directory.now = directory.durable.clone();
        }
    }

    /// The files that have a name.
    pub(super) fn files(&self) -> std::collections::BTreeSet<u64> {
        let mut found = std::collections::BTreeSet::new();
        let mut open = vec![0];
        while let Some(dir) = open.pop() {
            for node in self.directories[dir].now.values() {
                match node {
                    Node::File(inode) => {
                        found.insert(*inode);
                    }
                    Node::Dir(inner) => open.push(*inner),
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tree: &Tree, path: &str) -> Option<Node> {
        tree.get(Path::new(path))
    }

    /// A power cut that takes everything it may: the first seed whose choice is none.
    fn cut(tree: &mut Tree) {
        for directory in &mut tree.directories {
            directory.changes.clear();
        }
        tree.crash(&mut SimRng::new(1));
    }

    #[test]
    fn a_synced_directory_keeps_its_names_under_a_new_name() {
        let mut tree = Tree::new();
        assert!(tree.add_dirs(Path::new("/d/t-0")));
        tree.sync(Path::new("/"));
        tree.sync(Path::new("/d"));
        assert!(tree.add_file(Path::new("/d/t-0/a"), 1));
        tree.sync(Path::new("/d/t-0"));
        // Renamed and not synced; a namesake takes its place, and what it holds is synced.
        assert!(tree.rename(Path::new("/d/t-0"), Path::new("/d/t-0.gone")));
        assert!(tree.add_dirs(Path::new("/d/t-0")));
        assert!(tree.add_file(Path::new("/d/t-0/b"), 2));
        tree.sync(Path::new("/d/t-0"));
        assert_eq!(file(&tree, "/d/t-0/a"), None);
        assert_eq!(file(&tree, "/d/t-0.gone/a"), Some(Node::File(1)));
        cut(&mut tree);
        assert_eq!(file(&tree, "/d/t-0/a"), Some(Node::File(1)));
        assert_eq!(file(&tree, "/d/t-0/b"), None);
    }

    #[test]
    fn what_is_not_synced_may_go() {
        let mut tree = Tree::new();
        assert!(tree.add_file(Path::new("/a"), 1));
        tree.sync(Path::new("/"));
        assert!(tree.rename(Path::new("/a"), Path::new("/b")));
        tree.remove(Path::new("/b"));
        assert_eq!(tree.files().len(), 0);
        cut(&mut tree);
        assert_eq!(file(&tree, "/a"), Some(Node::File(1)));
        assert!(!tree.add_file(Path::new("/no/dir"), 2));
        assert!(!tree.add_dirs(Path::new("/a/under-a-file")));
    }
}
