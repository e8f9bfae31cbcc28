//! ApiVersions (KIP-35, KIP-511): what this broker serves, in which versions. Lives on the core that
//! accepted the connection; the table itself is `net::kafka::SUPPORTED`.

use net::kafka::SUPPORTED;
use net::kafka::api_versions as wire;
use net::kafka::error::ErrorCode;
use net::wire::DecodeError;

use super::{Head, Outcome, Request};
use crate::shard::Shard;

/// Handles an ApiVersions request. One in an unknown version is answered in version 0 with only the
/// range of ApiVersions itself, and the connection stays (KIP-511).
pub fn handle(_shard: &mut Shard, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let head = request.head;
    if !head.api.serves(head.version) {
        let head = Head { version: 0, ..head };
        let api = head.api.api();
        let response = wire::ApiVersionsResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            api_keys: vec![wire::ApiVersion {
                api_key: api.key as i16,
                min_version: api.advertised_min,
                max_version: api.max,
            }],
            ..Default::default()
        };
        return Ok(Outcome::Done(
            head.encode(|writer, version| response.encode(writer, version)),
        ));
    }
    let body = request.decode(wire::ApiVersionsRequest::decode)?;
    let refused = head.version >= 3
        && !(is_software_name(&body.client_software_name)
            && is_software_name(&body.client_software_version));
    let response = if refused {
        wire::ApiVersionsResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            ..Default::default()
        }
    } else {
        wire::ApiVersionsResponse {
            api_keys: SUPPORTED
                .iter()
                .map(|api| wire::ApiVersion {
                    api_key: api.key as i16,
                    min_version: api.advertised_min,
                    max_version: api.max,
                })
                .collect(),
            ..Default::default()
        }
    };
    Ok(Outcome::Done(head.encode(|writer, version| {
        response.encode(writer, version)
    })))
}

/// Letters and digits, with dots and dashes between (KIP-511).
fn is_software_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let bytes = name.as_bytes();
    edge(bytes.first().copied()) && edge(bytes.last().copied()) && bytes.iter().copied().all(inner)
}

#[cfg(test)]
mod tests {
    use super::is_software_name;

    #[test]
    fn software_names_follow_kip_511() {
        for good in ["apache-kafka-java", "4.3.1", "a", "x-1.2"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", ".", "a b", "a_b", "\u{e4}"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
