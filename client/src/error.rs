//! What can go wrong between a client and a broker. Plain data; knows no connection.

use std::fmt;
use std::io;

use net::kafka::error::ErrorCode;
use net::native::Fault;

/// Why a client cannot go on, or a request failed.
#[derive(Debug)]
pub enum Error {
    /// The connection.
    Io(io::Error),
    /// Bytes of the broker are not what the protocol demands.
    Fault(Fault),
    /// The broker speaks other versions; its sentence.
    Version(String),
    /// The broker refused a frame, and closes the connection; its sentence.
    Refused(ErrorCode, String),
    /// A request, or a part of one, failed.
    Code(ErrorCode),
    /// A record batch is damaged, or cannot be read.
    Records(String),
}

impl Error {
    /// The error for a code that the broker told.
    pub fn of_code(code: i16) -> Error {
        Error::Code(ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(error) => error.fmt(f),
            Error::Fault(fault) => write!(f, "the broker's bytes are wrong: {fault}"),
            Error::Version(why) => f.write_str(why),
            Error::Refused(code, why) => write!(f, "refused with {}: {why}", code.name()),
            Error::Code(code) => write!(f, "{}: {}", code.name(), code.message()),
            Error::Records(why) => write!(f, "a record batch cannot be read: {why}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Io(error)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        Error::Fault(fault)
    }
}
