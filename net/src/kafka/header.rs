//! The headers before requests and answers, and which of their versions goes with what. Lives on the core
//! of the connection; knows no message.

use std::borrow::Cow;
use std::fmt;

use super::ApiKey;
use crate::wire::{DecodeError, Reader, Writer};

/// What stands before a request.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestHeader<'a> {
    /// The API.
    pub api_key: ApiKey,
    /// The version that the client speaks; not necessarily one that is served.
    pub api_version: i16,
    /// What the answer must repeat.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<Cow<'a, str>>,
}

/// Why a frame's header is not that of a request that is served. None of them has an answer: the
/// connection closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// No API has that key.
    UnknownApi(i16),
    /// The API is not served in that version. ApiVersions never gives this error, since its answer to
    /// a strange version says what to speak.
    UnsupportedVersion(ApiKey, i16),
    /// The header is malformed.
    Malformed(DecodeError),
}

impl From<DecodeError> for HeaderError {
    fn from(error: DecodeError) -> Self {
        HeaderError::Malformed(error)
    }
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::UnknownApi(key) => write!(f, "unknown API key {key}"),
            HeaderError::UnsupportedVersion(key, version) => {
                write!(f, "{} version {version} is not served", key.name())
            }
            HeaderError::Malformed(error) => write!(f, "malformed request header: {error}"),
        }
    }
}

impl std::error::Error for HeaderError {}

/// The version of the request header before that version of a request: 2 if it is flexible, else 1.
pub const fn header_version(key: ApiKey, version: i16) -> i16 {
    if key.is_flexible(version) { 2 } else { 1 }
}

/// The version of the header before the answer: 1 if it is flexible, else 0. For ApiVersions always 0,
/// because the client cannot know yet what the broker speaks.
pub const fn response_header_version(key: ApiKey, version: i16) -> i16 {
    match key {
        ApiKey::ApiVersions => 0,
        _ if key.is_flexible(version) => 1,
        _ => 0,
    }
}

/// Reads the header of a request frame (without its size prefix); the reader returned stands at the
/// body.
///
/// # Errors
/// If no answer can be given and the connection must close. An ApiVersions request of a version that
/// is not served is no error: check `api_version` before decoding its body.
pub fn decode_header(frame: &[u8]) -> Result<(RequestHeader<'_>, Reader<'_>), HeaderError> {
    let mut reader = Reader::new(frame);
    let key = reader.i16()?;
    let api_version = reader.i16()?;
    let api_key = ApiKey::try_from(key).map_err(HeaderError::UnknownApi)?;
    if !api_key.serves(api_version) && api_key != ApiKey::ApiVersions {
        return Err(HeaderError::UnsupportedVersion(api_key, api_version));
    }
    let correlation_id = reader.i32()?;
    // Its length stays 16 bits in header version 2.
    let client_id = reader.nullable_string(false)?;
    if header_version(api_key, api_version) >= 2 {
        reader.skip_tagged_fields()?;
    }
    let header = RequestHeader {
        api_key,
        api_version,
        correlation_id,
        client_id,
    };
    Ok((header, reader))
}

impl RequestHeader<'_> {
    /// Writes the header, as a client does.
    pub fn encode(&self, writer: &mut Writer) {
        writer.i16(self.api_key as i16);
        writer.i16(self.api_version);
        writer.i32(self.correlation_id);
        writer.nullable_string(self.client_id.as_deref(), false);
        if header_version(self.api_key, self.api_version) >= 2 {
            writer.no_tagged_fields();
        }
    }
}

/// What stands before an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHeader {
    /// The correlation id of the request.
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// Reads the header of the answer to a request of `key` and `version`, as a client does.
    pub fn decode(
        reader: &mut Reader<'_>,
        key: ApiKey,
        version: i16,
    ) -> Result<ResponseHeader, DecodeError> {
        let correlation_id = reader.i32()?;
        if response_header_version(key, version) >= 1 {
            reader.skip_tagged_fields()?;
        }
        Ok(ResponseHeader { correlation_id })
    }

    /// Writes the header before the answer to a request of `key` and `version`.
    pub fn encode(&self, writer: &mut Writer, key: ApiKey, version: i16) {
        writer.i32(self.correlation_id);
        if response_header_version(key, version) >= 1 {
            writer.no_tagged_fields();
        }
    }
}
