//! The client against a server that follows a script.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::Duration;

use super::*;
use crate::kafka::api_versions::{ApiVersion, ApiVersionsResponse};
use crate::kafka::find_coordinator::{Coordinator, FindCoordinatorResponse};
use crate::kafka::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};
use crate::kafka::{RequestHeader, ResponseHeader, decode_header};
use crate::wire::Writer;

/// What the server does with the next request.
enum Turn {
    /// Answers it, after checking the API and version.
    Answer(ApiKey, i16, Box<dyn Fn(&mut Writer) + Send>),
    /// Closes the connection instead.
    Close,
    /// Answers with this correlation id.
    Mismatch(i32),
}

/// Serves one turn after another, over as many connections as it takes.
fn serve(script: Vec<Turn>) -> (String, JoinHandle<Vec<(ApiKey, i16)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let mut seen = Vec::new();
        let mut connection = None;
        for turn in script {
            let stream = connection.get_or_insert_with(|| listener.accept().unwrap().0);
            let mut size = [0; 4];
            stream.read_exact(&mut size).unwrap();
            let mut frame = vec![0; u32::from_be_bytes(size) as usize];
            stream.read_exact(&mut frame).unwrap();
            let (header, _) = decode_header(&frame).unwrap();
            let RequestHeader {
                api_key,
                api_version,
                correlation_id,
                ..
            } = header;
            seen.push((api_key, api_version));
            let mut writer = Writer::new();
            let mismatched = matches!(turn, Turn::Mismatch(_));
            match turn {
                Turn::Close => {
                    connection = None;
                    continue;
                }
                Turn::Mismatch(other) => {
                    ResponseHeader {
                        correlation_id: other,
                    }
                    .encode(&mut writer, api_key, api_version);
                }
                Turn::Answer(key, version, body) => {
                    assert_eq!((api_key, api_version), (key, version));
                    ResponseHeader { correlation_id }.encode(&mut writer, api_key, api_version);
                    body(&mut writer);
                }
            }
            let bytes = writer.into_bytes();
            stream
                .write_all(&(bytes.len() as u32).to_be_bytes())
                .unwrap();
            stream.write_all(&bytes).unwrap();
            if mismatched {
                // The client leaves such a connection.
                connection = None;
            }
        }
        seen
    });
    (address, server)
}

fn client(address: &str) -> Client {
    let options = Options {
        call_timeout: Duration::from_secs(5),
        retry_backoff: Duration::from_millis(1),
        ..Options::default()
    };
    Client::new(address, options).unwrap()
}

fn versions(served: &[(ApiKey, i16, i16)]) -> Turn {
    let api_keys = served
        .iter()
        .map(|(key, min_version, max_version)| ApiVersion {
            api_key: *key as i16,
            min_version: *min_version,
            max_version: *max_version,
        })
        .collect();
    let response = ApiVersionsResponse {
        api_keys,
        ..ApiVersionsResponse::default()
    };
    Turn::Answer(
        ApiKey::ApiVersions,
        4,
        Box::new(move |writer| response.encode(writer, 4)),
    )
}

fn groups(version: i16) -> Turn {
    let group = ListedGroup {
        group_id: Cow::Borrowed("g"),
        ..ListedGroup::default()
    };
    let response = ListGroupsResponse {
        groups: vec![group],
        ..ListGroupsResponse::default()
    };
    Turn::Answer(
        ApiKey::ListGroups,
        version,
        Box::new(move |writer| response.encode(writer, version)),
    )
}

fn list(client: &mut Client) -> Result<Vec<String>, ClientError> {
    client.call(Target::Any, &ListGroupsRequest::default(), |response, _| {
        response
            .groups
            .into_iter()
            .map(|group| group.group_id.into_owned())
            .collect()
    })
}

#[test]
fn the_newest_common_version_is_spoken() {
    let (address, server) = serve(vec![
        versions(&[(ApiKey::ListGroups, 0, 3)]),
        groups(3),
        groups(3),
    ]);
    let mut client = client(&address);
    assert_eq!(list(&mut client), Ok(vec!["g".to_owned()]));
    assert_eq!(
        list(&mut client),
        Ok(vec!["g".to_owned()]),
        "the versions are asked for once"
    );
    assert_eq!(server.join().unwrap().len(), 3);
}

#[test]
fn an_old_broker_says_what_it_speaks_in_version_0() {
    let refusal = ApiVersionsResponse {
        error_code: 35,
        api_keys: vec![ApiVersion {
            api_key: 18,
            min_version: 0,
            max_version: 2,
        }],
        ..ApiVersionsResponse::default()
    };
    let served = ApiVersionsResponse {
        api_keys: vec![ApiVersion {
            api_key: 16,
            min_version: 0,
            max_version: 1,
        }],
        ..ApiVersionsResponse::default()
    };
    let (address, server) = serve(vec![
        Turn::Answer(
            ApiKey::ApiVersions,
            4,
            Box::new(move |writer| refusal.encode(writer, 0)),
        ),
        Turn::Answer(
            ApiKey::ApiVersions,
            2,
            Box::new(move |writer| served.encode(writer, 2)),
        ),
        groups(1),
    ]);
    assert_eq!(list(&mut client(&address)), Ok(vec!["g".to_owned()]));
    server.join().unwrap();
}

#[test]
fn a_lost_connection_is_made_anew() {
    let all = || versions(&[(ApiKey::ListGroups, 0, 5)]);
    let (address, server) = serve(vec![
        all(),
        Turn::Close,
        all(),
        Turn::Mismatch(-7),
        all(),
        groups(5),
    ]);
    assert_eq!(list(&mut client(&address)), Ok(vec!["g".to_owned()]));
    assert_eq!(server.join().unwrap().len(), 6);
}

#[test]
fn what_the_broker_does_not_serve_is_told() {
    let (address, server) = serve(vec![versions(&[(ApiKey::Metadata, 0, 13)])]);
    assert_eq!(
        list(&mut client(&address)),
        Err(ClientError::Unsupported(ApiKey::ListGroups))
    );
    server.join().unwrap();
}

#[test]
fn a_coordinator_that_is_not_there_yet_is_asked_for_again() {
    let answer = |error_code: i16| {
        let coordinator = Coordinator {
            key: Cow::Borrowed("g"),
            node_id: 7,
            host: Cow::Borrowed("h"),
            port: 9,
            error_code,
            error_message: None,
        };
        let response = FindCoordinatorResponse {
            coordinators: vec![coordinator],
            ..FindCoordinatorResponse::default()
        };
        Turn::Answer(
            ApiKey::FindCoordinator,
            6,
            Box::new(move |writer: &mut Writer| response.encode(writer, 6)),
        )
    };
    let (address, server) = serve(vec![
        versions(&[(ApiKey::FindCoordinator, 0, 6)]),
        answer(15),
        answer(0),
    ]);
    let found = client(&address).coordinator("g").unwrap();
    assert_eq!(
        found,
        Broker {
            id: 7,
            host: "h".to_owned(),
            port: 9,
            rack: None
        }
    );
    server.join().unwrap();
}

#[test]
fn an_error_that_does_not_pass_is_told_at_once() {
    let mut client = client("127.0.0.1:1");
    let mut steps = 0;
    let failed: Result<(), ClientError> = client.retry(|_| {
        steps += 1;
        Ok(Err((ErrorCode::GroupIdNotFound, Some("gone".to_owned()))))
    });
    assert_eq!(
        failed,
        Err(ClientError::Refused(
            ErrorCode::GroupIdNotFound,
            Some("gone".to_owned())
        ))
    );
    assert_eq!(steps, 1);
}

#[test]
fn nobody_there_times_out_with_the_calls_name() {
    let options = Options {
        call_timeout: Duration::from_millis(20),
        retry_backoff: Duration::from_millis(5),
        ..Options::default()
    };
    // Port 1 is not listened on.
    let mut client = Client::new("127.0.0.1:1", options).unwrap();
    let error = list(&mut client).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Timed out waiting for a node assignment. Call: listGroups"
    );
}

#[test]
fn bootstrap_lists_are_checked() {
    for wrong in ["", ",", "localhost", "a:1,b", ":9092", "a:99999"] {
        assert!(Client::new(wrong, Options::default()).is_err(), "{wrong}");
    }
    assert!(Client::new("a:1, [::1]:9092", Options::default()).is_ok());
    let unknown = Client::new("no-such-host.invalid:9092", Options::default());
    assert_eq!(unknown.err(), Some(ClientError::Unresolvable));
}

#[test]
fn common_versions() {
    let served = [Versions {
        api_key: ApiKey::Metadata as i16,
        min: 2,
        max: 20,
    }];
    assert_eq!(
        common_version(ApiKey::Metadata, &served, i16::MAX),
        Some(13)
    );
    assert_eq!(common_version(ApiKey::Metadata, &served, 5), Some(5));
    assert_eq!(
        common_version(ApiKey::Metadata, &served, 1),
        None,
        "older than they serve"
    );
    assert_eq!(common_version(ApiKey::ListGroups, &served, 5), None);
}
