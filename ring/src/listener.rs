//! Listening sockets, TCP and Unix, made at start on any thread and moved to their cores, and the
//! addresses of sockets. Knows no ring and no protocol.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Connections that wait to be accepted, at most; the kernel's own limit may be lower.
pub const BACKLOG_USUAL: i32 = 4096;

/// What either end of a Unix socket counts as where an address is asked for: it has none, and is on this
/// machine.
pub const UNIX_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The longest path of a Unix socket, in bytes: what the kernel has room for, less the zero behind it.
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// What a socket is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Tcp,
    Unix,
}

/// A listening socket that is not yet on a ring; made at start, moved to its core.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    local: SocketAddr,
    family: Family,
}

impl Listener {
    /// Listens on `address` with one socket per core; the kernel spreads connections over them. With
    /// port 0 all get the same free port.
    ///
    /// # Errors
    /// `AddrInUse` also when another process listens there with SO_REUSEPORT: a second broker must not
    /// take half of the connections silently.
    pub fn bind_group(address: SocketAddr, count: usize) -> io::Result<Vec<Listener>> {
        Listener::bind_group_with(address, count, BACKLOG_USUAL)
    }

    /// As [`Listener::bind_group`], with at most `backlog` connections that wait to be accepted, for
    /// each core.
    ///
    /// # Errors
    /// As [`Listener::bind_group`].
    pub fn bind_group_with(
        address: SocketAddr,
        count: usize,
        backlog: i32,
    ) -> io::Result<Vec<Listener>> {
        assert!(count > 0);
        // The guard does not share its port, so it fails where anybody listens. It lets go before the
        // sharing sockets take the port.
        let guard = Listener::bind(address, false)?;
        listen(&guard.fd, backlog)?;
        let address = guard.local;
        drop(guard);
        let group = (0..count)
            .map(|_| Listener::bind(address, true))
            .collect::<io::Result<Vec<_>>>()?;
        for listener in &group {
            listen(&listener.fd, backlog)?;
        }
        Ok(group)
    }

    /// Listens on a Unix stream socket at `path`, with this mode of its file, for all cores together: they
    /// share one socket, because the kernel has no group of several on one path. Who may write to the file
    /// may connect. Nobody can before the mode is set.
    ///
    /// # Errors
    /// `AddrInUse` when there is anything at `path` already; `InvalidInput` when it is too long, empty, or
    /// holds a zero byte.
    pub fn bind_unix_group(
        path: &Path,
        mode: u32,
        count: usize,
        backlog: i32,
    ) -> io::Result<Vec<Listener>> {
        assert!(count > 0);
        let (address, len) = unix_to_kernel(path)?;
        let fd = unix_socket(0)?;
        // SAFETY: `address` is valid for `len` bytes.
        check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) })?;
        let share = |_| {
            Ok(Listener {
                fd: fd.try_clone()?,
                local: UNIX_ADDRESS,
                family: Family::Unix,
            })
        };
        fs::set_permissions(path, Permissions::from_mode(mode))
            .and_then(|()| listen(&fd, backlog))
            .and_then(|()| (0..count).map(share).collect())
            .inspect_err(|_| {
                // Made a moment ago, by nobody else.
                let _ = fs::remove_file(path);
            })
    }

    pub(crate) fn into_fd(self) -> (OwnedFd, Family) {
        (self.fd, self.family)
    }

    /// The address it listens on, with the port that it got; [`UNIX_ADDRESS`] of a Unix socket.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    fn bind(address: SocketAddr, share_port: bool) -> io::Result<Listener> {
        let family = match address {
            SocketAddr::V4(_) => libc::AF_INET,
            SocketAddr::V6(_) => libc::AF_INET6,
        };
        // SAFETY: no memory is passed.
        let fd = check(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: the descriptor is new and ours.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
        if share_port {
            set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
        }
        let (storage, len) = to_kernel(address);
        // SAFETY: `storage` holds an address of this family in its first `len` bytes.
        check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const storage).cast(), len) })?;
        let local = name_of(&fd, libc::getsockname)?;
        Ok(Listener {
            fd,
            local,
            family: Family::Tcp,
        })
    }
}

/// Whether somebody accepts connections on the Unix stream socket at `path`. Never waits.
///
/// # Errors
/// There is nothing at `path`, or it is no stream socket, or this process may not connect to it.
pub fn is_unix_served(path: &Path) -> io::Result<bool> {
    let (address, len) = unix_to_kernel(path)?;
    let fd = unix_socket(libc::SOCK_NONBLOCK)?;
    // SAFETY: `address` is valid for `len` bytes.
    match check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), len) }) {
        Ok(_) => Ok(true),
        // So many wait to be accepted that there is no room for one more.
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => Err(error),
    }
}

fn unix_socket(flags: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | flags;
    // SAFETY: no memory is passed.
    let fd = check(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn unix_to_kernel(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() > UNIX_PATH_BYTES_MAX || bytes.contains(&0) {
        return Err(ErrorKind::InvalidInput.into());
    }
    // SAFETY: all of sockaddr_un is plain numbers, for which zero is a value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = from.cast_signed() as libc::c_char;
    }
    Ok((address, size_of_val(&address) as libc::socklen_t))
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn listen(fd: &OwnedFd, backlog: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) }).map(|_| ())
}

pub(crate) fn set_option(fd: &OwnedFd, level: libc::c_int, name: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` is valid for its size.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    })
    .map(|_| ())
}

fn to_kernel(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all of sockaddr_storage is plain numbers, for which zero is a value.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let len = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is larger than, and aligned for, any address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
            size_of_val(&raw)
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            size_of_val(&raw)
        }
    };
    (storage, len as libc::socklen_t)
}

type NameCall =
    unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

pub(crate) fn name_of(fd: &OwnedFd, call: NameCall) -> io::Result<SocketAddr> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `storage` is valid for `len` bytes, and `call` is getsockname or getpeername.
    check(unsafe { call(fd.as_raw_fd(), storage.as_mut_ptr().cast(), &raw mut len) })?;
    // SAFETY: zeroed memory is a valid sockaddr_storage, and the call filled it.
    let storage = unsafe { storage.assume_init() };
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which address the storage holds.
            let raw = unsafe { *(&raw const storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Ok(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let raw = unsafe { *(&raw const storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            Ok(SocketAddrV6::new(ip, port, raw.sin6_flowinfo, raw.sin6_scope_id).into())
        }
        _ => Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
    }
}
