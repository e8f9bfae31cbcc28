//! The connection of a client that blocks: TCP, or a Unix socket on the broker's own machine. Lives where its
//! caller does; knows no frame.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// What stands before the path of a Unix socket where an address is asked for.
pub const UNIX_SCHEME: &str = "unix:";

/// The path of a Unix socket, if this address names one: `unix:/run/millrace/native.sock`.
pub fn unix_path(address: &str) -> Option<&Path> {
    address.strip_prefix(UNIX_SCHEME).map(Path::new)
}

/// A connected stream.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP, without Nagle's delay.
    Tcp(TcpStream),
    /// Over a Unix stream socket.
    Unix(UnixStream),
}

impl Stream {
    /// Connects to `host:port` or `unix:/path`: to the first address of a host that accepts. Trying one takes
    /// no longer than `timeout`, where there is one.
    ///
    /// # Errors
    /// Nobody accepts there.
    pub fn connect(address: &str, timeout: Option<Duration>) -> io::Result<Stream> {
        if let Some(path) = unix_path(address) {
            return UnixStream::connect(path).map(Stream::Unix);
        }
        let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
        for place in address.to_socket_addrs()? {
            let connected = match timeout {
                Some(timeout) => TcpStream::connect_timeout(&place, timeout),
                None => TcpStream::connect(place),
            };
            match connected {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Stream::Tcp(stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Whether reading and writing return instead of waiting.
    ///
    /// # Errors
    /// The system's.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_nonblocking(nonblocking),
            Stream::Unix(stream) => stream.set_nonblocking(nonblocking),
        }
    }

    /// How long reading waits; `None`: until something comes.
    ///
    /// # Errors
    /// The system's, or the time is zero.
    pub fn set_read_timeout(&self, wait: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_read_timeout(wait),
            Stream::Unix(stream) => stream.set_read_timeout(wait),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => { stream }.read(buffer),
            Stream::Unix(stream) => { stream }.read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => { stream }.write(bytes),
            Stream::Unix(stream) => { stream }.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => { stream }.write_vectored(slices),
            Stream::Unix(stream) => { stream }.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_scheme_means_a_unix_socket() {
        assert_eq!(unix_path("unix:/a/b"), Some(Path::new("/a/b")));
        assert_eq!(unix_path("/a/b"), None);
        assert_eq!(unix_path("unix.example.org:9192"), None);
    }

    #[test]
    fn nobody_at_either_place_is_an_error() {
        for timeout in [None, Some(Duration::from_secs(10))] {
            let error = Stream::connect("127.0.0.1:1", timeout).expect_err("nobody is there");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
        let error = Stream::connect("unix:/nowhere/at/all", None).expect_err("nobody is there");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
