//! One blocking connection to a broker: versions are negotiated once, then request and answer take turns. Lives on the caller's thread; knows frames and headers, and retries nothing.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};

use super::{Attempt, Call, ClientError, Options, Versions, common_version, error_of};
use crate::kafka::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use crate::kafka::error::ErrorCode;
use crate::kafka::{ApiKey, RequestHeader, ResponseHeader};
use crate::wire::{Reader, Writer};

/// The largest answer that is read, in bytes: more than any admin answer, less than a mistaken peer could ask for.
const ANSWER_BYTES_MAX: i32 = 256 << 20;

/// A connection whose broker has told its versions.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    versions: Vec<Versions>,
    correlation_id: i32,
}

impl Connection {
    /// Connects, and asks for the versions.
    pub fn open(address: &str, options: &Options) -> Result<Connection, Attempt> {
        let refused = |error: &dyn std::fmt::Display| {
            Attempt::Broken(format!(
                "Connection to node ({address}) could not be established. Node may not be available. ({error})"
            ))
        };
        let mut last: Option<std::io::Error> = None;
        for found in address.to_socket_addrs().map_err(|error| refused(&error))? {
            match TcpStream::connect_timeout(&found, options.request_timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(options.request_timeout))?;
                    stream.set_write_timeout(Some(options.request_timeout))?;
                    let mut connection = Connection {
                        stream,
                        versions: Vec::new(),
                        correlation_id: 0,
                    };
                    connection.negotiate(&options.client_id)?;
                    return Ok(connection);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(match last {
            Some(error) => refused(&error),
            None => refused(&"the name has no address"),
        })
    }

    /// What the broker serves.
    pub fn versions(&self) -> &[Versions] {
        &self.versions
    }

    /// The newest common version of an API, at most `version_max`.
    pub fn choose(&self, key: ApiKey, version_max: i16) -> Option<i16> {
        common_version(key, &self.versions, version_max)
    }

    /// Asks in the newest version; a broker that does not know it answers in version 0 with what it knows (KIP-511).
    fn negotiate(&mut self, client_id: &str) -> Result<(), Attempt> {
        let request = ApiVersionsRequest {
            client_software_name: Cow::Borrowed("millrace"),
            client_software_version: Cow::Borrowed(env!("CARGO_PKG_VERSION")),
        };
        let mut version = ApiKey::ApiVersions.api().max;
        loop {
            let frame = self.round_trip(client_id, &request, version)?;
            let mut reader = Reader::new(&frame);
            self.check_header(&mut reader, ApiKey::ApiVersions, version)?;
            // Error 35 is always told in version 0.
            let unsupported = reader
                .rest()
                .starts_with(&ErrorCode::UnsupportedVersion.code().to_be_bytes());
            let response =
                ApiVersionsResponse::decode(&mut reader, if unsupported { 0 } else { version })?;
            let served = |key: ApiKey| {
                response
                    .api_keys
                    .iter()
                    .find(|api| api.api_key == key as i16)
            };
            match error_of(response.error_code) {
                ErrorCode::None => {
                    self.versions = response
                        .api_keys
                        .iter()
                        .map(|api| Versions {
                            api_key: api.api_key,
                            min: api.min_version,
                            max: api.max_version,
                        })
                        .collect();
                    return Ok(());
                }
                ErrorCode::UnsupportedVersion if version > 0 => {
                    version = served(ApiKey::ApiVersions)
                        .map_or(0, |api| api.max_version.clamp(0, version - 1));
                }
                code => return Err(Attempt::Final(ClientError::Refused(code, None))),
            }
        }
    }

    /// Sends a request and hands its answer to `read`.
    pub fn exchange<R: Call, T>(
        &mut self,
        client_id: &str,
        request: &R,
        version: i16,
        read: impl FnOnce(R::Response<'_>) -> T,
    ) -> Result<T, Attempt> {
        let frame = self.round_trip(client_id, request, version)?;
        let mut reader = Reader::new(&frame);
        self.check_header(&mut reader, R::API, version)?;
        Ok(read(R::read(&mut reader, version)?))
    }

    fn check_header(
        &self,
        reader: &mut Reader<'_>,
        key: ApiKey,
        version: i16,
    ) -> Result<(), Attempt> {
        let header = ResponseHeader::decode(reader, key, version)?;
        if header.correlation_id != self.correlation_id {
            return Err(Attempt::Broken(
                "The broker answered another request".to_owned(),
            ));
        }
        Ok(())
    }

    fn round_trip<R: Call>(
        &mut self,
        client_id: &str,
        request: &R,
        version: i16,
    ) -> Result<Vec<u8>, Attempt> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let mut writer = Writer::new();
        RequestHeader {
            api_key: R::API,
            api_version: version,
            correlation_id: self.correlation_id,
            client_id: Some(Cow::Borrowed(client_id)),
        }
        .encode(&mut writer);
        request.write(&mut writer, version);
        let body = writer.into_bytes();
        let size = i32::try_from(body.len())
            .map_err(|_| Attempt::Broken("The request is too large".to_owned()))?;
        let mut frame = Vec::with_capacity(4 + body.len());
        frame.extend_from_slice(&size.to_be_bytes());
        frame.extend_from_slice(&body);
        self.stream.write_all(&frame)?;

        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let size = i32::from_be_bytes(size);
        if !(4..=ANSWER_BYTES_MAX).contains(&size) {
            return Err(Attempt::Broken(format!(
                "The broker announced an answer of {size} bytes"
            )));
        }
        // Grows as bytes arrive, so that a false size costs nothing.
        let mut answer = Vec::new();
        let read = (&mut self.stream)
            .take(size as u64)
            .read_to_end(&mut answer)?;
        if read < size as usize {
            return Err(Attempt::Broken(
                "The broker closed the connection within an answer".to_owned(),
            ));
        }
        Ok(answer)
    }
}
