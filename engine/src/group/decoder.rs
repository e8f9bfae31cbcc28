//! Records of `__consumer_offsets` as text, as Kafka's log dump tool prints them with
//! `--offsets-decoder`. Pure functions for the tools; they know no file and no coordinator.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

use super::records::{self, GroupMetadataValue, Key, MemberValue, OffsetCommitValue, RecordError};
use super::subscription::{
    Assignment, CONSUMER_PROTOCOL_TYPE, Subscription, decode_assignment, decode_subscription,
};

/// The texts of a record's key and value; a value that is not printed is `None`.
pub fn decode(offset: i64, key: &[u8], value: Option<&[u8]>) -> (String, Option<String>) {
    match texts(key, value) {
        Ok(Some((key, value))) => (key, Some(value)),
        Ok(None) => {
            let kind = key
                .first_chunk()
                .map_or(-1, |bytes| i16::from_be_bytes(*bytes));
            let text = format!("Unknown record type {kind} at offset {offset}, skipping.");
            (text, None)
        }
        Err(error) => (format!("Error at offset {offset}, skipping. {error}"), None),
    }
}

fn texts(key: &[u8], value: Option<&[u8]>) -> Result<Option<(String, String)>, RecordError> {
    let kind = key
        .first_chunk()
        .map_or(-1, |bytes| i16::from_be_bytes(*bytes));
    let (data, value) = match records::decode_key(key)? {
        Key::OffsetCommit {
            group,
            topic,
            partition,
        } => (
            format!(
                r#"{{"group":{},"topic":{},"partition":{partition}}}"#,
                text(&group),
                text(&topic)
            ),
            match value {
                Some(value) => Some(offset_commit(records::decode_offset_commit_value(value)?)),
                None => None,
            },
        ),
        Key::GroupMetadata { group } => (
            format!(r#"{{"group":{}}}"#, text(&group)),
            match value {
                Some(value) => Some(group_metadata(records::decode_group_metadata_value(value)?)),
                None => None,
            },
        ),
        Key::Unknown(_) => return Ok(None),
    };
    let key = format!(r#"{{"type":"{kind}","data":{data}}}"#);
    Ok(Some((key, value.unwrap_or_else(|| "<DELETE>".into()))))
}

fn offset_commit((version, value): (i16, OffsetCommitValue)) -> String {
    let mut out = format!(
        r#"{{"version":"{version}","data":{{"offset":{}"#,
        value.offset
    );
    if version >= 3 {
        out += &format!(r#","leaderEpoch":{}"#, value.leader_epoch);
    }
    out += &format!(
        r#","metadata":{},"commitTimestamp":{}"#,
        text(&value.metadata),
        value.commit_timestamp_ms
    );
    if version == 1 {
        out += &format!(r#","expireTimestamp":{}"#, value.expire_timestamp_ms);
    }
    if version >= 4 && !value.topic_id.is_nil() {
        let id = BASE64_URL_SAFE_NO_PAD.encode(value.topic_id.as_bytes());
        out += &format!(r#","topicId":"{id}""#);
    }
    out + "}}"
}

fn group_metadata((version, value): (i16, GroupMetadataValue)) -> String {
    let mut out = format!(
        r#"{{"version":"{version}","data":{{"protocolType":{},"generation":{},"protocol":{},"leader":{}"#,
        text(&value.protocol_type),
        value.generation,
        nullable(value.protocol.as_deref()),
        nullable(value.leader.as_deref()),
    );
    if version >= 2 {
        out += &format!(r#","currentStateTimestamp":{}"#, value.state_timestamp_ms);
    }
    let is_consumer = value.protocol_type == CONSUMER_PROTOCOL_TYPE;
    let members = list(value.members, |member| {
        self::member(version, is_consumer, &member)
    });
    out + &format!(r#","members":{members}}}}}"#)
}

fn member(version: i16, is_consumer: bool, value: &MemberValue) -> String {
    let mut out = format!(r#"{{"memberId":{}"#, text(&value.member_id));
    if version >= 3 {
        out += &format!(
            r#","groupInstanceId":{}"#,
            nullable(value.instance_id.as_deref())
        );
    }
    out += &format!(
        r#","clientId":{},"clientHost":{}"#,
        text(&value.client_id),
        text(&value.client_host)
    );
    if version >= 1 {
        out += &format!(r#","rebalanceTimeout":{}"#, value.rebalance_timeout_ms);
    }
    // What is not a consumer's, or cannot be read, stays as it is.
    let subscription = decode_subscription(&value.subscription)
        .ok()
        .filter(|_| is_consumer)
        .map_or_else(|| bytes(&value.subscription), subscription);
    let assignment = decode_assignment(&value.assignment)
        .ok()
        .filter(|_| is_consumer)
        .map_or_else(|| bytes(&value.assignment), assignment);
    out + &format!(
        r#","sessionTimeout":{},"subscription":{subscription},"assignment":{assignment}}}"#,
        value.session_timeout_ms
    )
}

fn subscription(value: Subscription) -> String {
    let mut out = format!(
        r#"{{"topics":{},"userData":{}"#,
        list(value.topics, |topic| text(&topic)),
        value.user_data.map_or("null".into(), |data| bytes(&data))
    );
    if value.version >= 1 {
        out += &format!(
            r#","ownedPartitions":{}"#,
            partitions(value.owned_partitions)
        );
    }
    if value.version >= 2 {
        out += &format!(r#","generationId":{}"#, value.generation);
    }
    if value.version >= 3 {
        out += &format!(r#","rackId":{}"#, nullable(value.rack.as_deref()));
    }
    out + "}"
}

fn assignment(value: Assignment) -> String {
    format!(
        r#"{{"assignedPartitions":{},"userData":{}}}"#,
        partitions(value.partitions),
        value.user_data.map_or("null".into(), |data| bytes(&data))
    )
}

fn partitions(topics: Vec<(String, Vec<i32>)>) -> String {
    list(topics, |(topic, partitions)| {
        format!(
            r#"{{"topic":{},"partitions":{}}}"#,
            text(&topic),
            list(partitions, |partition| partition.to_string())
        )
    })
}

fn list<T>(items: Vec<T>, print: impl Fn(T) -> String) -> String {
    let items: Vec<String> = items.into_iter().map(print).collect();
    format!("[{}]", items.join(","))
}

fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

fn nullable(value: Option<&str>) -> String {
    value.map_or("null".into(), text)
}

fn bytes(value: &[u8]) -> String {
    format!(r#""{}""#, BASE64_STANDARD.encode(value))
}

#[cfg(test)]
mod tests {
    use super::super::subscription::encode_subscription;
    use super::*;
    use uuid::Uuid;

    #[test]
    fn an_offset_commit_is_printed_with_its_topic_id() {
        let value = OffsetCommitValue {
            offset: 7,
            leader_epoch: -1,
            metadata: "a\"b".into(),
            commit_timestamp_ms: 5,
            expire_timestamp_ms: -1,
            topic_id: Uuid::from_bytes([0xff; 16]),
        };
        let record = records::offset_commit("g", "t", 2, &value);
        assert_eq!(
            decode(0, &record.key, record.value.as_deref()),
            (
                r#"{"type":"1","data":{"group":"g","topic":"t","partition":2}}"#.into(),
                Some(
                    r#"{"version":"4","data":{"offset":7,"leaderEpoch":-1,"metadata":"a\"b","commitTimestamp":5,"topicId":"_____________________w"}}"#
                        .into()
                )
            )
        );
    }

    #[test]
    fn consumers_are_printed_with_what_they_want_and_have() {
        let value = GroupMetadataValue {
            protocol_type: "consumer".into(),
            generation: 1,
            protocol: Some("range".into()),
            leader: None,
            state_timestamp_ms: 9,
            members: vec![MemberValue {
                member_id: "m".into(),
                instance_id: None,
                client_id: "c".into(),
                client_host: "/h".into(),
                rebalance_timeout_ms: 1,
                session_timeout_ms: 2,
                subscription: encode_subscription(&["t"]),
                assignment: vec![0xff],
            }],
        };
        let record = records::group_metadata("g", &value);
        let (key, text) = decode(0, &record.key, record.value.as_deref());
        assert_eq!(key, r#"{"type":"2","data":{"group":"g"}}"#);
        assert_eq!(
            text.unwrap(),
            concat!(
                r#"{"version":"3","data":{"protocolType":"consumer","generation":1,"protocol":"range","leader":null,"#,
                r#""currentStateTimestamp":9,"members":[{"memberId":"m","groupInstanceId":null,"clientId":"c","#,
                r#""clientHost":"/h","rebalanceTimeout":1,"sessionTimeout":2,"#,
                r#""subscription":{"topics":["t"],"userData":null,"ownedPartitions":[]},"assignment":"/w=="}]}}"#
            )
        );
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let tombstone = records::group_metadata_tombstone("g");
        assert_eq!(
            decode(0, &tombstone.key, None).1.as_deref(),
            Some("<DELETE>")
        );
        assert_eq!(
            decode(4, &[0, 3, 0, 0], None),
            ("Unknown record type 3 at offset 4, skipping.".into(), None)
        );
        assert!(
            decode(4, &[0, 2, 0, 9], None)
                .0
                .starts_with("Error at offset 4, skipping.")
        );
    }
}
