//! The file of the native protocol's Unix socket: made at the start in place of one that nobody serves any
//! more, removed at the end. Used on the main thread before the cores start and after they have stopped;
//! knows no connection.

use std::fmt;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ring::Listener;

/// Its owner and its group may connect, nobody else.
const MODE: u32 = 0o660;

/// Why there is no socket.
#[derive(Debug)]
pub enum BindError {
    /// Somebody accepts connections there.
    Served,
    /// Another broker is looking after files of that directory at this moment.
    Busy,
    /// Something else is there.
    NoSocket,
    /// There is no directory for it.
    NoDirectory(PathBuf),
    /// What the system says.
    Io(io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindError::Served => f.write_str("somebody serves it: another broker perhaps"),
            BindError::Busy => f.write_str("another process has locked its directory"),
            BindError::NoSocket => f.write_str(
                "what is there is no socket, and stays: move it away, or set another path",
            ),
            BindError::NoDirectory(directory) => {
                write!(f, "there is no directory {}", directory.display())
            }
            BindError::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for BindError {
    fn from(error: io::Error) -> BindError {
        BindError::Io(error)
    }
}

/// A file, told apart from one that is made later at the same place. The time is missing where the file
/// system does not keep it.
type Identity = (u64, u64, Option<SystemTime>);

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino(), metadata.created().ok())
}

/// The file of a socket of this process. Dropping it removes the file, unless another is there by now.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// Listens at `path`, an absolute one, for `count` cores. A socket's file that nobody serves is replaced.
///
/// # Errors
/// See [`BindError`]; whatever is at `path` is left alone then. [`BindError::Served`] and
/// [`BindError::Busy`] may pass.
pub fn bind(
    path: &Path,
    count: usize,
    backlog: i32,
) -> Result<(Vec<Listener>, SocketFile), BindError> {
    let directory = path.parent().unwrap_or(path);
    if !directory.is_dir() {
        return Err(BindError::NoDirectory(directory.to_owned()));
    }
    // Two brokers that start at the same moment must not take each other's new file for a stale one.
    let _alone = lock(directory)?;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NoSocket),
        Ok(_) if ring::is_unix_served(path)? => return Err(BindError::Served),
        Ok(_) => fs::remove_file(path)?,
    }
    let group = Listener::bind_unix_group(path, MODE, count, backlog)?;
    let identity = identity(&fs::symlink_metadata(path)?);
    let path = path.to_owned();
    Ok((group, SocketFile { path, identity }))
}

/// Locks a directory against other brokers. None where it cannot be locked at all.
fn lock(directory: &Path) -> Result<Option<File>, BindError> {
    let Ok(file) = File::open(directory) else {
        return Ok(None);
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(BindError::Busy),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Who has the lock may be replacing the file; what is left of it in the other case, the next start
        // replaces.
        let Ok(_alone) = lock(self.path.parent().unwrap_or(&self.path)) else {
            return;
        };
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the file of the Unix socket stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("native.sock");
        (directory, path)
    }

    #[test]
    fn the_file_is_there_as_long_as_it_is_held() {
        let (_directory, path) = place();
        let (group, file) = bind(&path, 2, 10).expect("a socket");
        assert_eq!(group.len(), 2);
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        UnixStream::connect(&path).expect("connects");
        drop(group);
        assert!(path.exists());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_file_is_replaced_and_a_served_one_is_left_alone() {
        let (_directory, path) = place();
        let stale = UnixListener::bind(&path).expect("a socket");
        assert!(matches!(bind(&path, 1, 10), Err(BindError::Served)));
        let (_, file) = {
            drop(stale);
            bind(&path, 1, 10).expect("in place of the stale one")
        };
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_stream_socket_is_left_alone() {
        let (directory, path) = place();
        fs::write(&path, "precious").expect("a file");
        assert!(matches!(bind(&path, 1, 10), Err(BindError::NoSocket)));
        assert_eq!(fs::read(&path).expect("the file"), b"precious");
        let datagrams = directory.path().join("datagrams");
        let _socket = UnixDatagram::bind(&datagrams).expect("a socket");
        assert!(matches!(bind(&datagrams, 1, 10), Err(BindError::Io(_))));
        assert!(datagrams.exists());
        // A link to what could be replaced is still not ours.
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path().join("nowhere"), &link).expect("a link");
        assert!(matches!(bind(&link, 1, 10), Err(BindError::NoSocket)));
    }

    #[test]
    fn a_missing_directory_is_named() {
        let (directory, path) = place();
        let missing = directory.path().join("missing");
        let error = bind(&missing.join("native.sock"), 1, 10).expect_err("no directory");
        assert!(matches!(&error, BindError::NoDirectory(named) if *named == missing));
        let error = bind(&path.join("below"), 1, 10).expect_err("no directory");
        assert!(error.to_string().contains("native.sock"), "{error}");
    }

    #[test]
    fn another_brokers_file_is_not_removed() {
        let (_directory, path) = place();
        let (group, file) = bind(&path, 1, 10).expect("a socket");
        fs::remove_file(&path).expect("somebody removes it");
        let _other = bind(&path, 1, 10).expect("and another broker starts");
        drop((group, file));
        assert!(ring::is_unix_served(&path).expect("a socket"));
    }

    #[test]
    fn a_locked_directory_is_told_apart() {
        let (directory, path) = place();
        let lock = File::open(directory.path()).expect("a directory");
        lock.try_lock().expect("nobody has it");
        assert!(matches!(bind(&path, 1, 10), Err(BindError::Busy)));
        drop(lock);
        bind(&path, 1, 10).expect("a socket");
    }
}
