//! Byte vectors of the offsets topic's records, written down from Kafka's schemas by hand.

use super::*;

fn commit(expire_timestamp_ms: i64, topic_id: Uuid) -> OffsetCommitValue {
    OffsetCommitValue {
        offset: 5,
        leader_epoch: 2,
        metadata: "m".into(),
        commit_timestamp_ms: 0x0102,
        expire_timestamp_ms,
        topic_id,
    }
}

#[test]
fn an_offset_commit_is_key_1_and_value_4_with_the_topic_id_in_tag_0() {
    let id = Uuid::from_bytes([7; 16]);
    let record = offset_commit("g", "tp", 3, &commit(-1, id));
    let key = b"\x00\x01\x00\x01g\x00\x02tp\x00\x00\x00\x03";
    assert_eq!(record.key, key);
    let mut value = Vec::new();
    value.extend_from_slice(b"\x00\x04\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x02\x02m");
    value.extend_from_slice(b"\x00\x00\x00\x00\x00\x00\x01\x02\x01\x00\x10");
    value.extend_from_slice(&[7; 16]);
    assert_eq!(record.value.as_deref(), Some(value.as_slice()));
    assert_eq!(
        decode_key(key),
        Ok(Key::OffsetCommit {
            group: "g".into(),
            topic: "tp".into(),
            partition: 3
        })
    );
    assert_eq!(decode_offset_commit_value(&value), Ok((4, commit(-1, id))));
}

#[test]
fn without_a_topic_id_there_is_no_tag() {
    let value = offset_commit("g", "t", 0, &commit(-1, Uuid::nil()))
        .value
        .unwrap();
    assert_eq!(value.last(), Some(&0));
    assert_eq!(value.len(), 2 + 8 + 4 + 2 + 8 + 1);
}

#[test]
fn an_expiry_of_its_own_needs_value_1() {
    let value = offset_commit("g", "t", 0, &commit(0x0304, Uuid::nil()))
        .value
        .unwrap();
    assert_eq!(
        value,
        b"\x00\x01\x00\x00\x00\x00\x00\x00\x00\x05\x00\x01m\x00\x00\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x00\x00\x03\x04"
    );
    let (version, read) = decode_offset_commit_value(&value).unwrap();
    assert_eq!((version, read.expire_timestamp_ms), (1, 0x0304));
    assert_eq!(read.leader_epoch, -1, "version 1 has no leader epoch");
}

#[test]
fn old_offset_commit_values_are_read() {
    for version in [0u8, 2] {
        let mut value = vec![0, version];
        value.extend_from_slice(
            b"\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07",
        );
        let (_, read) = decode_offset_commit_value(&value).unwrap();
        assert_eq!((read.offset, read.commit_timestamp_ms), (9, 7));
        assert_eq!(read.metadata, "");
    }
    let value = b"\x00\x03\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x04\x00\x01x\x00\x00\x00\x00\x00\x00\x00\x07";
    let (_, read) = decode_offset_commit_value(value).unwrap();
    assert_eq!((read.leader_epoch, read.metadata.as_str()), (4, "x"));
}

fn stable_group() -> GroupMetadataValue {
    GroupMetadataValue {
        protocol_type: "consumer".into(),
        generation: 1,
        protocol: Some("range".into()),
        leader: Some("a".into()),
        state_timestamp_ms: 0x10,
        members: vec![MemberValue {
            member_id: "a".into(),
            instance_id: None,
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_timeout_ms: 2,
            session_timeout_ms: 3,
            subscription: vec![1],
            assignment: vec![],
        }],
    }
}

#[test]
fn a_group_is_key_2_and_value_3() {
    let record = group_metadata("g", &stable_group());
    assert_eq!(record.key, b"\x00\x02\x00\x01g");
    let mut value = Vec::new();
    value.extend_from_slice(b"\x00\x03\x00\x08consumer\x00\x00\x00\x01\x00\x05range\x00\x01a");
    value.extend_from_slice(b"\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x01");
    value
        .extend_from_slice(b"\x00\x01a\xff\xff\x00\x01c\x00\x02/h\x00\x00\x00\x02\x00\x00\x00\x03");
    value.extend_from_slice(b"\x00\x00\x00\x01\x01\x00\x00\x00\x00");
    assert_eq!(record.value.as_deref(), Some(value.as_slice()));
    assert_eq!(decode_group_metadata_value(&value), Ok((3, stable_group())));
}

#[test]
fn old_and_flexible_group_values_are_read() {
    // Version 0 has neither a rebalance timeout nor a time.
    let mut value = Vec::new();
    value.extend_from_slice(
        b"\x00\x00\x00\x07connect\x00\x00\x00\x04\xff\xff\xff\xff\x00\x00\x00\x01",
    );
    value.extend_from_slice(
        b"\x00\x01a\x00\x01c\x00\x02/h\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x01\x05",
    );
    let (_, read) = decode_group_metadata_value(&value).unwrap();
    assert_eq!(
        (read.generation, read.protocol, read.leader),
        (4, None, None)
    );
    assert_eq!(read.state_timestamp_ms, -1);
    assert_eq!(read.members[0].rebalance_timeout_ms, -1);
    assert_eq!(read.members[0].assignment, [5]);
    // Version 1 adds the rebalance timeout, version 2 the time.
    let value = b"\x00\x02\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00";
    let (_, read) = decode_group_metadata_value(value).unwrap();
    assert_eq!(read.state_timestamp_ms, 8);
    // Version 4 writes compact lengths and tags.
    let value = b"\x00\x04\x01\x00\x00\x00\x02\x00\x02l\x00\x00\x00\x00\x00\x00\x00\x08\x02\x02a\x00\x02c\x02h\x00\x00\x00\x01\x00\x00\x00\x02\x02\x09\x01\x00\x01\x07\x01\xff";
    let (_, read) = decode_group_metadata_value(value).unwrap();
    assert_eq!((read.generation, read.leader.as_deref()), (2, Some("l")));
    assert_eq!(read.members[0].subscription, [9]);
}

#[test]
fn tombstones_have_a_key_and_no_value() {
    assert_eq!(offset_commit_tombstone("g", "t", 1).value, None);
    assert_eq!(
        decode_key(&group_metadata_tombstone("g").key),
        Ok(Key::GroupMetadata { group: "g".into() })
    );
    assert_eq!(decode_key(b"\x00\x03\x00\x01g"), Ok(Key::Unknown(3)));
    assert!(matches!(
        decode_key(b"\x00\x00\x00\x01g\x00\x01t\x00\x00\x00\x01"),
        Ok(Key::OffsetCommit { partition: 1, .. })
    ));
}

#[test]
fn cut_records_and_absurd_lengths_are_errors() {
    let id = Uuid::from_bytes([7; 16]);
    let offset = offset_commit("g", "t", 3, &commit(-1, id));
    let group = group_metadata("g", &stable_group());
    for length in 0..offset.key.len() {
        assert_eq!(
            decode_key(&offset.key[..length]),
            Err(RecordError::Truncated)
        );
    }
    let value = offset.value.unwrap();
    for length in 0..value.len() {
        assert!(decode_offset_commit_value(&value[..length]).is_err());
    }
    let value = group.value.unwrap();
    for length in 0..value.len() {
        assert!(decode_group_metadata_value(&value[..length]).is_err());
    }
    assert_eq!(
        decode_offset_commit_value(b"\x00\x05"),
        Err(RecordError::UnknownVersion(5))
    );
    let two_billion_members = b"\x00\x03\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x08\x7f\xff\xff\xff";
    assert_eq!(
        decode_group_metadata_value(two_billion_members),
        Err(RecordError::Truncated)
    );
    assert_eq!(
        decode_key(b"\x00\x02\x00\x01\xff"),
        Err(RecordError::NotUtf8)
    );
}
