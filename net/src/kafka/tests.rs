//! Tests of the messages, on no core: round trips, the agreement with another implementation, and
//! hostile bytes. The other implementation is the `kafka-protocol` crate, which knows Kafka 4.1; what
//! it does not know yet is checked against bytes worked out from Kafka's schemas.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{self as other, RequestKind, ResponseKind};
use uuid::Uuid;

use super::*;
use crate::fuzz::Random;
use crate::wire::{DecodeError, Field, Reader, Records, Writer};

/// How many made-up messages are tried for each API and version.
const SAMPLES: u64 = 12;

/// What is done with a message of some type: one decoder and encoder for all.
struct Form {
    /// Makes one up and writes it.
    sample: fn(u64, i16) -> Vec<u8>,
    /// Reads one, checks it against the made-up original, and gives its debugging text.
    check: fn(u64, i16, &[u8]) -> String,
    /// Reads one; tells how many bytes were left.
    decode: fn(&[u8], i16) -> Result<usize, DecodeError>,
}

macro_rules! form {
    ($key:expr, $($type:tt)*) => {
        Form {
            sample: |seed, version| {
                let mut random = Random::new(seed);
                let message: $($type)* = Field::sample(&mut random, $key.context(version));
                let mut writer = Writer::new();
                message.encode(&mut writer, version);
                writer.into_bytes()
            },
            check: |seed, version, bytes| {
                let mut random = Random::new(seed);
                let message: $($type)* = Field::sample(&mut random, $key.context(version));
                let mut reader = Reader::new(bytes);
                let decoded = <$($type)*>::decode(&mut reader, version).expect("a valid message");
                assert_eq!(reader.remaining(), 0, "bytes left over");
                assert_eq!(decoded, message);
                format!("{decoded:?}")
            },
            decode: |bytes, version| {
                let mut reader = Reader::new(bytes);
                <$($type)*>::decode(&mut reader, version)?;
                Ok(reader.remaining())
            },
        }
    };
}

macro_rules! forms {
    ($($key:ident $module:ident $request:ident $response:ident;)*) => {
        /// The request and the answer of an API.
        fn forms(key: ApiKey) -> (Form, Form) {
            match key {
                $(ApiKey::$key => {
                    // Ties each message to its key.
                    assert_eq!($module::$request::API_KEY, key as i16);
                    assert_eq!($module::$response::API_KEY, key as i16);
                    (
                        form!(ApiKey::$key, $module::$request),
                        form!(ApiKey::$key, $module::$response),
                    )
                })*
            }
        }
    };
}

forms! {
    Produce produce ProduceRequest ProduceResponse;
    Fetch fetch FetchRequest FetchResponse;
    ListOffsets list_offsets ListOffsetsRequest ListOffsetsResponse;
    Metadata metadata MetadataRequest MetadataResponse;
    OffsetCommit offset_commit OffsetCommitRequest OffsetCommitResponse;
    OffsetFetch offset_fetch OffsetFetchRequest OffsetFetchResponse;
    FindCoordinator find_coordinator FindCoordinatorRequest FindCoordinatorResponse;
    JoinGroup join_group JoinGroupRequest JoinGroupResponse;
    Heartbeat heartbeat HeartbeatRequest HeartbeatResponse;
    LeaveGroup leave_group LeaveGroupRequest LeaveGroupResponse;
    SyncGroup sync_group SyncGroupRequest SyncGroupResponse;
    DescribeGroups describe_groups DescribeGroupsRequest DescribeGroupsResponse;
    ListGroups list_groups ListGroupsRequest ListGroupsResponse;
    ApiVersions api_versions ApiVersionsRequest ApiVersionsResponse;
    CreateTopics create_topics CreateTopicsRequest CreateTopicsResponse;
    DeleteTopics delete_topics DeleteTopicsRequest DeleteTopicsResponse;
    DeleteRecords delete_records DeleteRecordsRequest DeleteRecordsResponse;
    InitProducerId init_producer_id InitProducerIdRequest InitProducerIdResponse;
    OffsetForLeaderEpoch offset_for_leader_epoch
        OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse;
    DescribeConfigs describe_configs DescribeConfigsRequest DescribeConfigsResponse;
    AlterConfigs alter_configs AlterConfigsRequest AlterConfigsResponse;
    DescribeLogDirs describe_log_dirs DescribeLogDirsRequest DescribeLogDirsResponse;
    CreatePartitions create_partitions CreatePartitionsRequest CreatePartitionsResponse;
    DeleteGroups delete_groups DeleteGroupsRequest DeleteGroupsResponse;
    IncrementalAlterConfigs incremental_alter_configs
        IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse;
    OffsetDelete offset_delete OffsetDeleteRequest OffsetDeleteResponse;
    DescribeCluster describe_cluster DescribeClusterRequest DescribeClusterResponse;
    DescribeProducers describe_producers DescribeProducersRequest DescribeProducersResponse;
    ListConfigResources list_config_resources
        ListConfigResourcesRequest ListConfigResourcesResponse;
    DescribeTopicPartitions describe_topic_partitions
        DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse;
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Side {
    Request,
    Response,
}

/// Calls `with` for both messages of every API in every version.
fn for_each_message(mut with: impl FnMut(ApiKey, i16, Side, &Form)) {
    for api in SUPPORTED {
        let (request, response) = forms(api.key);
        for version in api.served_min..=api.max {
            with(api.key, version, Side::Request, &request);
            with(api.key, version, Side::Response, &response);
        }
    }
}

/// A seed of its own for each made-up message.
fn seed_of(key: ApiKey, version: i16, side: Side, index: u64) -> u64 {
    ((key as u64) << 32) | ((version as u64) << 24) | ((side as u64) << 16) | index
}

#[test]
fn every_api_and_version_round_trips() {
    for_each_message(|key, version, side, form| {
        for index in 0..SAMPLES {
            let seed = seed_of(key, version, side, index);
            let bytes = (form.sample)(seed, version);
            (form.check)(seed, version, &bytes);
        }
    });
}

/// What the other implementation makes of a message: its bytes, and its debugging text. `None` if it
/// does not know that version.
fn other_opinion(key: ApiKey, version: i16, side: Side, bytes: &[u8]) -> Option<(Vec<u8>, String)> {
    let other_key = other::ApiKey::try_from(key as i16).expect("it knows every key");
    let mut input = Bytes::copy_from_slice(bytes);
    let mut output = BytesMut::new();
    let text = match side {
        Side::Request => {
            let message = RequestKind::decode(other_key, &mut input, version);
            let message = known_version(message)?;
            message.encode(&mut output, version).expect("it writes");
            format!("{message:?}")
        }
        Side::Response => {
            let message = ResponseKind::decode(other_key, &mut input, version);
            let message = known_version(message)?;
            message.encode(&mut output, version).expect("it writes");
            format!("{message:?}")
        }
    };
    assert!(input.is_empty(), "it left {} bytes", input.len());
    Some((output.to_vec(), text))
}

fn known_version<T, E: std::fmt::Debug>(decoded: Result<T, E>) -> Option<T> {
    match decoded {
        Ok(message) => Some(message),
        Err(error) => {
            let why = format!("{error:?}");
            assert!(why.contains("not supported by this message type"), "{why}");
            None
        }
    }
}

/// The named numbers and truths in a debugging text, in order: catches what equal bytes do not, two
/// fields of one type with their names exchanged, and defaults of absent fields.
fn named_values(text: &str) -> Vec<(String, String)> {
    let mut values = Vec::new();
    let mut rest = text;
    while let Some(colon) = rest.find(": ") {
        let name: String = rest[..colon]
            .chars()
            .rev()
            .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
            .collect();
        rest = &rest[colon + 2..];
        // The other implementation wraps some: BrokerId(1).
        let value = rest
            .strip_prefix("BrokerId(")
            .or_else(|| rest.strip_prefix("ProducerId("))
            .unwrap_or(rest);
        let value: String = value
            .chars()
            .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '-')
            .collect();
        if value.parse::<i64>().is_ok() || value == "true" || value == "false" {
            values.push((name.chars().rev().collect(), value));
        }
    }
    values
}

/// Fields that the other implementation has beyond the versions served here.
const NOT_SERVED: &[&str] = &[
    // InitProducerId 6 is not stable yet.
    "enable_2_pc",
    "keep_prepared_txn",
    "ongoing_txn_producer_id",
    "ongoing_txn_producer_epoch",
];

/// Fields of versions that the other implementation does not know yet.
const NEWER: &[&str] = &["is_cordoned"];

#[test]
fn every_message_agrees_with_another_implementation() {
    let mut unknown = Vec::new();
    let mut compared_count = 0;
    for_each_message(|key, version, side, form| {
        for index in 0..SAMPLES {
            let seed = seed_of(key, version, side, index);
            let bytes = (form.sample)(seed, version);
            let Some((theirs, their_text)) = other_opinion(key, version, side, &bytes) else {
                unknown.push((key, version, side));
                return;
            };
            assert_eq!(theirs, bytes, "{key:?} {version} {side:?}");
            // Reading what it wrote gives the original back.
            let our_text = (form.check)(seed, version, &theirs);
            let mut their_values = named_values(&their_text);
            their_values.retain(|(name, _)| !NOT_SERVED.contains(&name.as_str()));
            let mut our_values = named_values(&our_text);
            our_values.retain(|(name, _)| !NEWER.contains(&name.as_str()));
            assert_eq!(our_values, their_values, "{key:?} {version} {side:?}");
            compared_count += our_values.len();
        }
    });
    // A name and a value for every number: the comparison has something to compare.
    assert!(compared_count > 15_000, "{compared_count}");
    // What Kafka 4.1 did not have; each has a test of its own below.
    assert_eq!(
        unknown,
        [
            (ApiKey::ListOffsets, 11, Side::Request),
            (ApiKey::ListOffsets, 11, Side::Response),
            (ApiKey::OffsetCommit, 10, Side::Request),
            (ApiKey::OffsetFetch, 10, Side::Request),
            (ApiKey::DescribeLogDirs, 5, Side::Request),
            (ApiKey::DescribeLogDirs, 5, Side::Response),
        ]
    );
}

#[test]
fn a_message_cut_anywhere_is_refused() {
    for_each_message(|key, version, side, form| {
        for index in 0..2 {
            let bytes = (form.sample)(seed_of(key, version, side, index), version);
            for end in 0..bytes.len() {
                let result = (form.decode)(&bytes[..end], version);
                assert!(result.is_err(), "{key:?} {version} {side:?} cut at {end}");
            }
        }
    });
}

#[test]
fn bytes_after_a_message_are_left_alone() {
    for_each_message(|key, version, side, form| {
        let mut bytes = (form.sample)(seed_of(key, version, side, 0), version);
        bytes.extend([0xff; 3]);
        assert_eq!((form.decode)(&bytes, version), Ok(3), "{key:?} {version}");
    });
}

#[test]
fn absurd_lengths_are_no_reason_to_allocate() {
    let fixed = [0x7f, 0xff, 0xff, 0xff];
    let compact = [0xff, 0xff, 0xff, 0xff, 0x0f];
    for_each_message(|key, version, side, form| {
        let bytes = (form.sample)(seed_of(key, version, side, 1), version);
        for position in 0..bytes.len() {
            for absurd in [&fixed[..], &compact] {
                let mut hostile = bytes.clone();
                hostile.truncate(position);
                hostile.extend(absurd);
                hostile.extend(&bytes[position..]);
                // An array is paid for before it is allocated, so this error would mean that more
                // than 32 MiB had passed as the plausible size of a few hundred bytes.
                let result = (form.decode)(&hostile, version);
                assert_ne!(result, Err(DecodeError::TooManyElements));
            }
        }
    });
}

#[test]
fn a_frame_of_empty_elements_stops_at_the_bound() {
    // 10 million topics without a name: a plausible count, but half a gigabyte when decoded.
    let count = 10_000_000;
    let mut bytes = (count as i32).to_be_bytes().to_vec();
    bytes.resize(4 + 2 * count, 0);
    assert_eq!(
        metadata::MetadataRequest::decode(&mut Reader::new(&bytes), 1),
        Err(DecodeError::TooManyElements)
    );
}

/// Encodes, compares with known bytes, and decodes again.
macro_rules! assert_bytes {
    ($type:ty, $version:literal, $message:expr, $bytes:expr) => {
        let bytes: Vec<u8> = $bytes.concat();
        let mut writer = Writer::new();
        $message.encode(&mut writer, $version);
        assert_eq!(writer.into_bytes(), bytes);
        let decoded = <$type>::decode(&mut Reader::new(&bytes), $version);
        assert_eq!(decoded, Ok($message));
    };
}

#[test]
fn describe_log_dirs_5_adds_cordoned_directories() {
    use describe_log_dirs::*;
    let response = || DescribeLogDirsResponse {
        throttle_time_ms: 0,
        error_code: 0,
        results: vec![DescribeLogDirsResult {
            error_code: 0,
            log_dir: "/d".into(),
            topics: Vec::new(),
            total_bytes: 2,
            usable_bytes: 1,
            is_cordoned: true,
        }],
    };
    assert_bytes!(
        DescribeLogDirsResponse,
        5,
        response(),
        [
            &[0, 0, 0, 0][..],
            &[0, 0],
            &[2],
            &[0, 0],
            b"\x03/d",
            &[1],
            &[0, 0, 0, 0, 0, 0, 0, 2],
            &[0, 0, 0, 0, 0, 0, 0, 1],
            &[1],
            &[0],
            &[0],
        ]
    );
    let request = || DescribeLogDirsRequest { topics: None };
    assert_bytes!(DescribeLogDirsRequest, 5, request(), [[0, 0]]);
}

#[test]
fn list_offsets_11_looks_like_10() {
    let (request, response) = forms(ApiKey::ListOffsets);
    for form in [request, response] {
        for seed in 0..SAMPLES {
            assert_eq!((form.sample)(seed, 11), (form.sample)(seed, 10));
        }
    }
}

/// A topic id and its bytes.
fn topic_id() -> (Uuid, [u8; 16]) {
    let bytes = *b"0123456789abcdef";
    (Uuid::from_bytes(bytes), bytes)
}

#[test]
fn offset_commit_10_has_topic_ids() {
    use offset_commit::*;
    let (id, id_bytes) = topic_id();
    let request = || OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: 3,
        member_id: "m".into(),
        topics: vec![OffsetCommitRequestTopic {
            topic_id: id,
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 1,
                committed_offset: 5,
                committed_leader_epoch: 2,
                committed_metadata: None,
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    assert_bytes!(
        OffsetCommitRequest,
        10,
        request(),
        [
            &b"\x02g"[..],
            &[0, 0, 0, 3],
            b"\x02m",
            &[0],
            &[2],
            &id_bytes,
            &[2],
            &[0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 0, 5],
            &[0, 0, 0, 2],
            &[0],
            &[0],
            &[0],
            &[0],
        ]
    );
    let response = || OffsetCommitResponse {
        throttle_time_ms: 0,
        topics: vec![OffsetCommitResponseTopic {
            topic_id: id,
            partitions: vec![OffsetCommitResponsePartition {
                partition_index: 1,
                error_code: 100,
            }],
            ..OffsetCommitResponseTopic::default()
        }],
    };
    assert_bytes!(
        OffsetCommitResponse,
        10,
        response(),
        [
            &[0, 0, 0, 0][..],
            &[2],
            &id_bytes,
            &[2],
            &[0, 0, 0, 1],
            &[0, 100],
            &[0],
            &[0],
            &[0],
        ]
    );
}

#[test]
fn offset_fetch_10_has_topic_ids() {
    use offset_fetch::*;
    let (id, id_bytes) = topic_id();
    let request = || OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                topic_id: id,
                partition_indexes: vec![7],
                ..OffsetFetchRequestTopics::default()
            }]),
            ..OffsetFetchRequestGroup::default()
        }],
        require_stable: true,
        ..OffsetFetchRequest::default()
    };
    assert_bytes!(
        OffsetFetchRequest,
        10,
        request(),
        [
            &[2][..],
            b"\x02g",
            &[0],
            &[0xff, 0xff, 0xff, 0xff],
            &[2],
            &id_bytes,
            &[2],
            &[0, 0, 0, 7],
            &[0],
            &[0],
            &[1],
            &[0],
        ]
    );
    let response = || OffsetFetchResponse {
        groups: vec![OffsetFetchResponseGroup {
            group_id: "g".into(),
            topics: vec![OffsetFetchResponseTopics {
                topic_id: id,
                partitions: vec![OffsetFetchResponsePartitions {
                    partition_index: 7,
                    committed_offset: -1,
                    metadata: Some("".into()),
                    ..OffsetFetchResponsePartitions::default()
                }],
                ..OffsetFetchResponseTopics::default()
            }],
            error_code: 0,
        }],
        ..OffsetFetchResponse::default()
    };
    assert_bytes!(
        OffsetFetchResponse,
        10,
        response(),
        [
            &[0, 0, 0, 0][..],
            &[2],
            b"\x02g",
            &[2],
            &id_bytes,
            &[2],
            &[0, 0, 0, 7],
            &[0xff; 8],
            &[0xff; 4],
            &[1],
            &[0, 0],
            &[0],
            &[0],
            &[0, 0],
            &[0],
            &[0],
        ]
    );
}

#[test]
fn null_is_refused_where_the_version_has_none() {
    use metadata::MetadataRequest;
    // Null topics: all of them from version 1, malformed in version 0.
    let null = [0xff, 0xff, 0xff, 0xff];
    let decode = |version| MetadataRequest::decode(&mut Reader::new(&null), version);
    assert_eq!(decode(0), Err(DecodeError::Null));
    assert_eq!(decode(1).map(|request| request.topics), Ok(None));
    // And an answer that has none where an older version must have text writes it empty.
    let response = join_group::JoinGroupResponse {
        protocol_name: None,
        ..join_group::JoinGroupResponse::default()
    };
    let name_at = |version| {
        let mut writer = Writer::new();
        response.encode(&mut writer, version);
        let bytes = writer.into_bytes();
        let decoded = join_group::JoinGroupResponse::decode(&mut Reader::new(&bytes), version);
        let name = decoded.expect("a valid message").protocol_name;
        name.map(Cow::into_owned)
    };
    assert_eq!(name_at(6), Some(String::new()));
    assert_eq!(name_at(7), None);
}

#[test]
fn absent_fields_have_the_defaults_of_the_schema() {
    let bytes = (forms(ApiKey::Fetch).0.sample)(1, 4);
    let request =
        fetch::FetchRequest::decode(&mut Reader::new(&bytes), 4).expect("a valid message");
    assert_eq!(request.session_epoch, -1);
    assert_eq!(request.rack_id, "");
    assert_eq!(request.replica_state.replica_id, -1);
    let partition = fetch::FetchPartition::default();
    assert_eq!(partition.high_watermark, i64::MAX);
    assert_eq!(partition.current_leader_epoch, -1);
    let metadata = metadata::MetadataRequest::default();
    assert!(metadata.allow_auto_topic_creation);
    assert_eq!(
        describe_cluster::DescribeClusterRequest::default().endpoint_type,
        1
    );
    assert_eq!(
        list_config_resources::ConfigResource::default().resource_type,
        16
    );
}

#[test]
fn produced_records_are_borrowed_from_the_frame() {
    let request = produce::ProduceRequest {
        acks: -1,
        topic_data: vec![produce::TopicProduceData {
            name: "topic".into(),
            partition_data: vec![produce::PartitionProduceData {
                index: 0,
                records: Some(b"a batch"),
            }],
            ..produce::TopicProduceData::default()
        }],
        ..produce::ProduceRequest::default()
    };
    for version in [3, 9] {
        let mut writer = Writer::new();
        request.encode(&mut writer, version);
        let frame = writer.into_bytes();
        let decoded = produce::ProduceRequest::decode(&mut Reader::new(&frame), version)
            .expect("a valid message");
        let topic = &decoded.topic_data[0];
        assert!(matches!(topic.name, Cow::Borrowed("topic")));
        let records = topic.partition_data[0].records.expect("records");
        assert_eq!(records, b"a batch");
        assert!(frame.as_ptr_range().contains(&records.as_ptr()));
    }
}

#[test]
fn empty_records_are_never_null() {
    let response = || fetch::FetchResponse {
        responses: vec![fetch::FetchableTopicResponse {
            partitions: vec![fetch::PartitionData::default()],
            ..fetch::FetchableTopicResponse::default()
        }],
        ..fetch::FetchResponse::default()
    };
    let encoded = |version| {
        let mut writer = Writer::new();
        response().encode(&mut writer, version);
        writer.into_bytes()
    };
    // Version 4 ends with the length of the records; version 12 with it and three tag sections.
    assert!(encoded(4).ends_with(&[0, 0, 0, 0]));
    assert!(encoded(12).ends_with(&[1, 0, 0, 0]));
    // From a server that sends null, it reads as empty.
    let mut null = encoded(4);
    let length_at = null.len() - 4;
    null[length_at..].fill(0xff);
    let decoded = fetch::FetchResponse::decode(&mut Reader::new(&null), 4);
    let decoded = decoded.expect("a valid message");
    assert_eq!(
        decoded.responses[0].partitions[0].records,
        Records::Borrowed(&[])
    );
}

#[test]
fn request_headers_have_their_known_bytes() {
    // ApiVersions 0 of a client called "kcat".
    let frame = b"\x00\x12\x00\x00\x00\x00\x00\x2a\x00\x04kcat";
    let (header, reader) = decode_header(frame).expect("a header");
    assert_eq!(
        header,
        RequestHeader {
            api_key: ApiKey::ApiVersions,
            api_version: 0,
            correlation_id: 42,
            client_id: Some("kcat".into()),
        }
    );
    assert_eq!(reader.remaining(), 0);
    // Metadata 9, flexible: a client id of the old form all the same, null here, then an unknown
    // tagged field, then the body.
    let frame = b"\x00\x03\x00\x09\x00\x00\x00\x01\xff\xff\x01\x05\x02zz\x00\x01\x00\x00\x00";
    let (header, request) = decode_any(frame).expect("a request");
    assert_eq!(header.client_id, None);
    assert_eq!(header.correlation_id, 1);
    let Request::Metadata(request) = request else {
        panic!("{request:?}")
    };
    assert_eq!(request.topics, None);
    assert!(request.allow_auto_topic_creation);
    for (header, bytes) in [
        (header, &b"\x00\x03\x00\x09\x00\x00\x00\x01\xff\xff\x00"[..]),
        (
            RequestHeader {
                api_key: ApiKey::OffsetDelete,
                api_version: 0,
                correlation_id: -1,
                client_id: Some("".into()),
            },
            b"\x00\x2f\x00\x00\xff\xff\xff\xff\x00\x00",
        ),
    ] {
        let mut writer = Writer::new();
        header.encode(&mut writer);
        assert_eq!(writer.into_bytes(), bytes);
    }
}

#[test]
fn strange_keys_and_versions_have_no_answer() {
    let error = |frame| decode_any(frame).expect_err("refused");
    assert_eq!(
        error(b"\x03\xe8\x00\x00\x00\x00\x00\x01\xff\xff"),
        HeaderError::UnknownApi(1000)
    );
    // SaslHandshake exists but is not served.
    assert_eq!(
        error(b"\x00\x11\x00\x00\x00\x00\x00\x01\xff\xff"),
        HeaderError::UnknownApi(17)
    );
    // Produce 2 is advertised but not served, Produce 14 is neither.
    assert_eq!(
        error(b"\x00\x00\x00\x02\x00\x00\x00\x01\xff\xff"),
        HeaderError::UnsupportedVersion(ApiKey::Produce, 2)
    );
    assert_eq!(
        error(b"\x00\x00\x00\x0e\x00\x00\x00\x01\xff\xff"),
        HeaderError::UnsupportedVersion(ApiKey::Produce, 14)
    );
    assert_eq!(
        error(b"\x00\x03\xff\xff\x00\x00\x00\x01\xff\xff"),
        HeaderError::UnsupportedVersion(ApiKey::Metadata, -1)
    );
    assert_eq!(
        error(b"\x00\x03\x00"),
        HeaderError::Malformed(DecodeError::Truncated)
    );
    assert_eq!(
        error(b"\x00\x03\x00\x00\x00\x00\x00\x01\x00\x05kcat"),
        HeaderError::Malformed(DecodeError::Truncated)
    );
}

#[test]
fn api_versions_of_any_version_has_a_header() {
    // Version 5 of a newer client: a flexible header and a body that nobody reads.
    let frame = b"\x00\x12\x00\x05\x00\x00\x00\x07\x00\x01c\x00whatever";
    let (header, _) = decode_header(frame).expect("a header");
    assert_eq!((header.api_version, header.correlation_id), (5, 7));
    assert_eq!(
        decode_any(frame),
        Err(HeaderError::Malformed(DecodeError::Version))
    );
    // The answer in version 0: unsupported version, and only its own range.
    let response = api_versions::ApiVersionsResponse {
        error_code: error::ErrorCode::UnsupportedVersion.code(),
        api_keys: vec![api_versions::ApiVersion {
            api_key: 18,
            min_version: 0,
            max_version: 4,
        }],
        ..api_versions::ApiVersionsResponse::default()
    };
    let mut writer = Writer::framed();
    ResponseHeader { correlation_id: 7 }.encode(&mut writer, ApiKey::ApiVersions, 5);
    response.encode(&mut writer, 0);
    assert_eq!(
        writer.into_bytes(),
        [
            0, 0, 0, 16, 0, 0, 0, 7, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4
        ]
    );
}

#[test]
fn answers_have_flexible_headers_but_for_api_versions() {
    for api in SUPPORTED {
        for version in api.served_min..=api.max {
            let other_key = other::ApiKey::try_from(api.key as i16).expect("it knows every key");
            assert_eq!(
                header_version(api.key, version),
                other_key.request_header_version(version),
                "{api:?} {version}"
            );
            assert_eq!(
                response_header_version(api.key, version),
                other_key.response_header_version(version),
                "{api:?} {version}"
            );
            let mut writer = Writer::new();
            ResponseHeader { correlation_id: 9 }.encode(&mut writer, api.key, version);
            let bytes = writer.into_bytes();
            let mut reader = Reader::new(&bytes);
            let header = ResponseHeader::decode(&mut reader, api.key, version);
            assert_eq!(header, Ok(ResponseHeader { correlation_id: 9 }));
            assert_eq!(reader.remaining(), 0);
        }
    }
}

#[test]
fn the_advertised_ranges_are_those_of_kafka() {
    for pair in SUPPORTED.windows(2) {
        assert!(pair[0].key < pair[1].key);
    }
    assert_eq!(SUPPORTED.len(), 30);
    for api in SUPPORTED {
        assert_eq!(api.key.api(), *api);
        assert_eq!(ApiKey::try_from(api.key as i16), Ok(api.key));
        let exception = api.key == ApiKey::Produce;
        assert_eq!(api.advertised_min != api.served_min, exception);
    }
    let produce = ApiKey::Produce.api();
    assert_eq!((produce.advertised_min, produce.served_min), (0, 3));
}
