//! The identity of log directories: the lock that keeps a second broker out, and `meta.properties` with the
//! cluster's, the node's and the directory's ids. Runs on the main thread before any core starts; it knows
//! nothing about logs.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::properties;

/// File that a running broker holds locked.
const LOCK_FILE: &str = ".lock";
/// File with the ids.
const META_FILE: &str = "meta.properties";

/// Why a log directory cannot be used. Nothing in it has been changed.
#[derive(Debug)]
pub enum LogDirError {
    /// Another process holds the lock.
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The file system refuses.
    Io {
        /// What was tried.
        what: String,
        /// The system's words.
        error: io::Error,
    },
    /// The ids in the directory are not this broker's, or not readable.
    Identity {
        /// The directory.
        dir: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
}

impl fmt::Display for LogDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogDirError::Locked { dir } => write!(
                f,
                "log directory {} is in use by another broker (it holds {LOCK_FILE}); stop that one or \
                 set another log.dirs",
                dir.display()
            ),
            LogDirError::Io { what, error } if error.kind() == io::ErrorKind::StorageFull => {
                write!(
                    f,
                    "{what}: {error}; a new log directory needs room: free some on that file system, or set \
                 another log.dirs"
                )
            }
            LogDirError::Io { what, error } => write!(f, "{what}: {error}"),
            LogDirError::Identity { dir, why } => {
                write!(f, "log directory {}: {why}", dir.display())
            }
        }
    }
}

impl std::error::Error for LogDirError {}

/// A log directory that this process holds.
#[derive(Debug)]
pub struct LogDir {
    /// Its path.
    pub path: PathBuf,
    /// Its own id.
    pub id: Uuid,
    /// Closing it gives the lock up; the system does so too when the process ends, however it ends.
    _lock: File,
}

/// The log directories of this broker, locked and checked.
#[derive(Debug)]
pub struct LogDirs {
    /// The id of the cluster they belong to.
    pub cluster_id: String,
    /// The directories, in the order of the configuration.
    pub dirs: Vec<LogDir>,
}

/// An id as Kafka writes it: 22 characters of URL-safe Base64.
pub fn id_text(id: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(id.as_bytes())
}

/// The id that a text of Kafka's form says.
pub fn parse_id(text: &str) -> Option<Uuid> {
    URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| Uuid::from_slice(&bytes).ok())
}

/// Locks every directory, then checks that all belong to this node and one cluster, then writes what new
/// ones lack. `random_id` makes ids for what is new.
///
/// # Errors
/// Another broker holds a directory, the file system refuses, or the ids do not fit together.
pub fn open(
    paths: &[PathBuf],
    node_id: i32,
    mut random_id: impl FnMut() -> Uuid,
) -> Result<LogDirs, LogDirError> {
    let mut locks = Vec::with_capacity(paths.len());
    for path in paths {
        fs::create_dir_all(path).map_err(|error| LogDirError::Io {
            what: format!("cannot create log directory {}", path.display()),
            error,
        })?;
        locks.push(lock(path)?);
    }
    let mut metas = Vec::with_capacity(paths.len());
    for path in paths {
        metas.push(read_meta(path, node_id)?);
    }
    let mut cluster: Option<(&str, &Path)> = None;
    for (meta, path) in metas.iter().zip(paths) {
        let Some(meta) = meta else { continue };
        match cluster {
            Some((id, first)) if id != meta.cluster_id => {
                return Err(LogDirError::Identity {
                    dir: path.clone(),
                    why: format!(
                        "it belongs to cluster {}, but {} to cluster {id}; take one of them out of log.dirs",
                        meta.cluster_id,
                        first.display()
                    ),
                });
            }
            _ => cluster = Some((&meta.cluster_id, path)),
        }
    }
    let cluster_id = match cluster {
        Some((id, _)) => id.to_owned(),
        None => id_text(random_id()),
    };
    let mut dirs: Vec<LogDir> = Vec::with_capacity(paths.len());
    for ((path, meta), lock) in paths.iter().zip(metas).zip(locks) {
        let id = match meta.and_then(|meta| meta.directory_id) {
            Some(id) => id,
            None => {
                let id = random_id();
                write_meta(path, &cluster_id, node_id, id)?;
                id
            }
        };
        if let Some(other) = dirs.iter().find(|dir| dir.id == id) {
            return Err(LogDirError::Identity {
                dir: path.clone(),
                why: format!(
                    "it has the same directory.id as {}: one is a copy of the other; take it out of log.dirs",
                    other.path.display()
                ),
            });
        }
        dirs.push(LogDir {
            path: path.clone(),
            id,
            _lock: lock,
        });
    }
    Ok(LogDirs { cluster_id, dirs })
}

fn lock(dir: &Path) -> Result<File, LogDirError> {
    let path = dir.join(LOCK_FILE);
    let io = |error| LogDirError::Io {
        what: format!("cannot lock {}", path.display()),
        error,
    };
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LogDirError::Locked {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

struct Meta {
    cluster_id: String,
    directory_id: Option<Uuid>,
}

fn read_meta(dir: &Path, node_id: i32) -> Result<Option<Meta>, LogDirError> {
    let path = dir.join(META_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(LogDirError::Io {
                what: format!("cannot read {}", path.display()),
                error,
            });
        }
    };
    let identity = |why: String| LogDirError::Identity {
        dir: dir.to_owned(),
        why,
    };
    let found =
        properties::parse(&text).map_err(|error| identity(format!("{META_FILE}: {error}")))?;
    let value = |key: &str| found.iter().rfind(|p| p.key == key).map(|p| p.value.trim());
    let need = |key: &str| {
        value(key).ok_or_else(|| identity(format!("{META_FILE} lacks {key}; it is damaged")))
    };
    if need("version")? != "1" {
        return Err(identity(format!(
            "{META_FILE} has version {}, but 1 is what this broker reads",
            need("version")?
        )));
    }
    let stored: i32 = need("node.id")?
        .parse()
        .map_err(|_| identity(format!("{META_FILE} has a node.id that is no number")))?;
    if stored != node_id {
        return Err(identity(format!(
            "it belongs to node {stored}, but node.id={node_id} is configured; set node.id={stored} or \
             another log.dirs"
        )));
    }
    let directory_id = match value("directory.id") {
        None => None,
        Some(text) => Some(
            parse_id(text)
                .ok_or_else(|| identity(format!("{META_FILE} has a directory.id that is no id")))?,
        ),
    };
    Ok(Some(Meta {
        cluster_id: need("cluster.id")?.to_owned(),
        directory_id,
    }))
}

/// Writes the file beside its place, makes it durable, and moves it there: a crash leaves all or nothing.
fn write_meta(dir: &Path, cluster_id: &str, node_id: i32, id: Uuid) -> Result<(), LogDirError> {
    let path = dir.join(META_FILE);
    let beside = dir.join("meta.properties.tmp");
    let text = format!(
        "version=1\ncluster.id={cluster_id}\nnode.id={node_id}\ndirectory.id={}\n",
        id_text(id)
    );
    let write = || -> io::Result<()> {
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|error| LogDirError::Io {
        what: format!("cannot write {}", path.display()),
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(mut next: u128) -> impl FnMut() -> Uuid {
        move || {
            next += 1;
            Uuid::from_u128(next)
        }
    }

    #[test]
    fn ids_last_and_a_second_broker_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let paths = [root.path().join("a/b"), root.path().join("c")];
        let first = open(&paths, 3, ids(0)).unwrap();
        assert_eq!(first.cluster_id, "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(first.dirs[0].id, Uuid::from_u128(2));
        let meta = fs::read_to_string(paths[0].join("meta.properties")).unwrap();
        assert_eq!(
            meta,
            "version=1\ncluster.id=AAAAAAAAAAAAAAAAAAAAAQ\nnode.id=3\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAg\n"
        );
        let second = open(&paths[1..], 3, ids(100)).unwrap_err();
        assert!(
            matches!(&second, LogDirError::Locked { dir } if *dir == paths[1]),
            "{second}"
        );
        drop(first);
        let again = open(&paths, 3, ids(100)).unwrap();
        assert_eq!(again.cluster_id, "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(again.dirs[1].id, Uuid::from_u128(3));
    }

    #[test]
    fn a_new_directory_joins_the_cluster_of_the_others() {
        let root = tempfile::tempdir().unwrap();
        let paths = [root.path().join("new"), root.path().join("old")];
        let old = open(&paths[1..], 1, ids(0)).unwrap().cluster_id;
        assert_eq!(open(&paths, 1, ids(50)).unwrap().cluster_id, old);
    }

    #[test]
    fn strangers_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (root.path().join("a"), root.path().join("b"));
        open(std::slice::from_ref(&a), 1, ids(0)).unwrap();
        open(std::slice::from_ref(&b), 1, ids(10)).unwrap();
        let other_node = open(std::slice::from_ref(&a), 2, ids(20))
            .unwrap_err()
            .to_string();
        assert!(other_node.contains("belongs to node 1"), "{other_node}");
        let mixed = open(&[a.clone(), b.clone()], 1, ids(20))
            .unwrap_err()
            .to_string();
        assert!(mixed.contains("belongs to cluster"), "{mixed}");
        fs::copy(a.join("meta.properties"), b.join("meta.properties")).unwrap();
        let copy = open(&[a.clone(), b], 1, ids(20)).unwrap_err().to_string();
        assert!(copy.contains("same directory.id"), "{copy}");
        fs::write(a.join("meta.properties"), "version=1\nnode.id=1\n").unwrap();
        let damaged = open(&[a], 1, ids(20)).unwrap_err().to_string();
        assert!(damaged.contains("lacks cluster.id"), "{damaged}");
    }
}
