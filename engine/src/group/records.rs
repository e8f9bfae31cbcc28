//! The records of `__consumer_offsets` in Kafka's own formats: what is written is offset commit value 4
//! and group metadata value 3, what is read are all that Kafka wrote since 0.8. Pure functions; they
//! know no group's rules and no log.

use uuid::Uuid;

/// Key types as Kafka numbers them: the first two bytes of a key.
const KEY_OFFSET_COMMIT_LEGACY: i16 = 0;
const KEY_OFFSET_COMMIT: i16 = 1;
const KEY_GROUP_METADATA: i16 = 2;

/// The versions that are written.
const OFFSET_COMMIT_VALUE_VERSION: i16 = 4;
const OFFSET_COMMIT_VALUE_VERSION_EXPIRING: i16 = 1;
const GROUP_METADATA_VALUE_VERSION: i16 = 3;

/// One record for the log; without a value it is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The encoded key.
    pub key: Vec<u8>,
    /// The encoded value; `None` deletes what the key names.
    pub value: Option<Vec<u8>>,
}

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A group's committed offset of one partition.
    OffsetCommit {
        /// The group.
        group: String,
        /// The topic's name.
        topic: String,
        /// The partition's index.
        partition: i32,
    },
    /// A group and its members.
    GroupMetadata {
        /// The group.
        group: String,
    },
    /// A kind of record that is not served here, by its number; other brokers' logs hold them.
    Unknown(i16),
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitValue {
    /// The next record to read.
    pub offset: i64,
    /// Leader epoch of the last record read, -1 where it is not known (KIP-320).
    pub leader_epoch: i32,
    /// Whatever the client wants to keep.
    pub metadata: String,
    /// When it was committed, in milliseconds.
    pub commit_timestamp_ms: i64,
    /// When it expires, in milliseconds, where an old client asked for a time of its own; else -1.
    pub expire_timestamp_ms: i64,
    /// The topic's id, nil where it is not known.
    pub topic_id: Uuid,
}

/// A group as it was when its last generation became stable, or when it became empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadataValue {
    /// `consumer`, `connect` ...; empty where no member ever joined.
    pub protocol_type: String,
    /// The generation.
    pub generation: i32,
    /// The protocol that the members agreed on.
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: Option<String>,
    /// When the group's state last changed, in milliseconds; -1 in old records.
    pub state_timestamp_ms: i64,
    /// The members.
    pub members: Vec<MemberValue>,
}

/// One member of a [`GroupMetadataValue`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberValue {
    /// Its id.
    pub member_id: String,
    /// Its `group.instance.id`, where it is a static member (KIP-345).
    pub instance_id: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// Where it connected from, as Kafka prints it: `/127.0.0.1`.
    pub client_host: String,
    /// In milliseconds; -1 in old records: the session timeout counts (KIP-62).
    pub rebalance_timeout_ms: i32,
    /// In milliseconds.
    pub session_timeout_ms: i32,
    /// What it said in its join for the chosen protocol.
    pub subscription: Vec<u8>,
    /// What the leader gave it.
    pub assignment: Vec<u8>,
}

/// A decoded value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of [`Key::OffsetCommit`].
    OffsetCommit(OffsetCommitValue),
    /// Of [`Key::GroupMetadata`].
    GroupMetadata(GroupMetadataValue),
}

/// Why bytes are not a record of this topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// They end too early, or state a length that is not there.
    Truncated,
    /// Text that is not UTF-8.
    NotUtf8,
    /// A value in a version that nobody wrote yet.
    UnknownVersion(i16),
    /// A null where the format has none.
    UnexpectedNull,
}

impl std::fmt::Display for RecordError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RecordError::Truncated => f.write_str("the record ends too early"),
            RecordError::NotUtf8 => f.write_str("text in the record is not UTF-8"),
            RecordError::UnknownVersion(version) => write!(f, "unknown value version {version}"),
            RecordError::UnexpectedNull => f.write_str("null where the format has no null"),
        }
    }
}

impl std::error::Error for RecordError {}

/// The record of a committed offset.
pub fn offset_commit(
    group: &str,
    topic: &str,
    partition: i32,
    value: &OffsetCommitValue,
) -> Record {
    Record {
        key: offset_commit_key(group, topic, partition),
        value: Some(encode_offset_commit_value(value)),
    }
}

/// The tombstone of a committed offset.
pub fn offset_commit_tombstone(group: &str, topic: &str, partition: i32) -> Record {
    Record {
        key: offset_commit_key(group, topic, partition),
        value: None,
    }
}

/// The record of a group.
pub fn group_metadata(group: &str, value: &GroupMetadataValue) -> Record {
    Record {
        key: group_metadata_key(group),
        value: Some(encode_group_metadata_value(value)),
    }
}

/// The tombstone of a group.
pub fn group_metadata_tombstone(group: &str) -> Record {
    Record {
        key: group_metadata_key(group),
        value: None,
    }
}

fn offset_commit_key(group: &str, topic: &str, partition: i32) -> Vec<u8> {
    let mut out = Vec::with_capacity(10 + group.len() + topic.len());
    put_i16(&mut out, KEY_OFFSET_COMMIT);
    put_string(&mut out, group);
    put_string(&mut out, topic);
    put_i32(&mut out, partition);
    out
}

fn group_metadata_key(group: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + group.len());
    put_i16(&mut out, KEY_GROUP_METADATA);
    put_string(&mut out, group);
    out
}

fn encode_offset_commit_value(value: &OffsetCommitValue) -> Vec<u8> {
    let mut out = Vec::with_capacity(48 + value.metadata.len());
    if value.expire_timestamp_ms != -1 {
        // Only version 1 has a place for an expiry of the commit's own.
        put_i16(&mut out, OFFSET_COMMIT_VALUE_VERSION_EXPIRING);
        put_i64(&mut out, value.offset);
        put_string(&mut out, &value.metadata);
        put_i64(&mut out, value.commit_timestamp_ms);
        put_i64(&mut out, value.expire_timestamp_ms);
        return out;
    }
    put_i16(&mut out, OFFSET_COMMIT_VALUE_VERSION);
    put_i64(&mut out, value.offset);
    put_i32(&mut out, value.leader_epoch);
    put_varint(&mut out, value.metadata.len() as u32 + 1);
    out.extend_from_slice(value.metadata.as_bytes());
    put_i64(&mut out, value.commit_timestamp_ms);
    if value.topic_id.is_nil() {
        put_varint(&mut out, 0);
    } else {
        put_varint(&mut out, 1);
        put_varint(&mut out, 0);
        put_varint(&mut out, 16);
        out.extend_from_slice(value.topic_id.as_bytes());
    }
    out
}

fn encode_group_metadata_value(value: &GroupMetadataValue) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + value.members.len() * 128);
    put_i16(&mut out, GROUP_METADATA_VALUE_VERSION);
    put_string(&mut out, &value.protocol_type);
    put_i32(&mut out, value.generation);
    put_nullable_string(&mut out, value.protocol.as_deref());
    put_nullable_string(&mut out, value.leader.as_deref());
    put_i64(&mut out, value.state_timestamp_ms);
    put_i32(&mut out, value.members.len() as i32);
    for member in &value.members {
        put_string(&mut out, &member.member_id);
        put_nullable_string(&mut out, member.instance_id.as_deref());
        put_string(&mut out, &member.client_id);
        put_string(&mut out, &member.client_host);
        put_i32(&mut out, member.rebalance_timeout_ms);
        put_i32(&mut out, member.session_timeout_ms);
        put_bytes(&mut out, &member.subscription);
        put_bytes(&mut out, &member.assignment);
    }
    out
}

/// Reads a key.
///
/// # Errors
/// When the bytes are cut short or not text where text belongs. An unknown kind is not an error.
pub fn decode_key(bytes: &[u8]) -> Result<Key, RecordError> {
    let mut input = Input::new(bytes);
    match input.i16()? {
        KEY_OFFSET_COMMIT_LEGACY | KEY_OFFSET_COMMIT => Ok(Key::OffsetCommit {
            group: input.string()?,
            topic: input.string()?,
            partition: input.i32()?,
        }),
        KEY_GROUP_METADATA => Ok(Key::GroupMetadata {
            group: input.string()?,
        }),
        other => Ok(Key::Unknown(other)),
    }
}

/// Reads the value of an offset commit; also says which version it was written in.
///
/// # Errors
/// When the bytes are not such a value.
pub fn decode_offset_commit_value(bytes: &[u8]) -> Result<(i16, OffsetCommitValue), RecordError> {
    let mut input = Input::new(bytes);
    let version = input.version()?;
    let mut value = OffsetCommitValue {
        offset: input.i64()?,
        leader_epoch: -1,
        metadata: String::new(),
        commit_timestamp_ms: -1,
        expire_timestamp_ms: -1,
        topic_id: Uuid::nil(),
    };
    if version >= 3 {
        value.leader_epoch = input.i32()?;
    }
    value.metadata = input.string()?;
    value.commit_timestamp_ms = input.i64()?;
    if version == 1 {
        value.expire_timestamp_ms = input.i64()?;
    }
    if version >= 4 {
        for _ in 0..input.varint()? {
            let tag = input.varint()?;
            let length = input.varint()? as usize;
            let field = input.take(length)?;
            if tag == 0 {
                value.topic_id = Uuid::from_slice(field).map_err(|_| RecordError::Truncated)?;
            }
        }
    }
    Ok((version, value))
}

/// Reads the value of a group; also says which version it was written in.
///
/// # Errors
/// When the bytes are not such a value.
pub fn decode_group_metadata_value(bytes: &[u8]) -> Result<(i16, GroupMetadataValue), RecordError> {
    let mut input = Input::new(bytes);
    let version = input.version()?;
    let mut value = GroupMetadataValue {
        protocol_type: input.string()?,
        generation: input.i32()?,
        protocol: input.nullable_string()?,
        leader: input.nullable_string()?,
        state_timestamp_ms: if version >= 2 { input.i64()? } else { -1 },
        members: Vec::new(),
    };
    // No room is set aside for the stated count: each member must be there to be kept.
    for _ in 0..input.array_len()? {
        value.members.push(MemberValue {
            member_id: input.string()?,
            instance_id: if version >= 3 {
                input.nullable_string()?
            } else {
                None
            },
            client_id: input.string()?,
            client_host: input.string()?,
            rebalance_timeout_ms: if version >= 1 { input.i32()? } else { -1 },
            session_timeout_ms: input.i32()?,
            subscription: input.bytes()?.to_vec(),
            assignment: input.bytes()?.to_vec(),
        });
        input.tags()?;
    }
    input.tags()?;
    Ok((version, value))
}

fn put_i16(out: &mut Vec<u8>, value: i16) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_string(out: &mut Vec<u8>, value: &str) {
    // What comes from the wire has the same two-byte length; compact strings beyond it are refused
    // by the handlers before they get here.
    let length = i16::try_from(value.len()).expect("a string of a record is below 32 KiB");
    put_i16(out, length);
    out.extend_from_slice(value.as_bytes());
}

fn put_nullable_string(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        Some(value) => put_string(out, value),
        None => put_i16(out, -1),
    }
}

fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    put_i32(out, value.len() as i32);
    out.extend_from_slice(value);
}

fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads from bytes that may be anything; flexible formats differ only in how lengths are written.
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
    flexible: bool,
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Input {
            bytes,
            flexible: false,
        }
    }

    /// The version of a value, with the flexible encoding switched on from 4.
    fn version(&mut self) -> Result<i16, RecordError> {
        let version = self.i16()?;
        if !(0..=4).contains(&version) {
            return Err(RecordError::UnknownVersion(version));
        }
        self.flexible = version >= 4;
        Ok(version)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], RecordError> {
        let (head, rest) = self
            .bytes
            .split_at_checked(length)
            .ok_or(RecordError::Truncated)?;
        self.bytes = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, rest) = self
            .bytes
            .split_first_chunk::<N>()
            .ok_or(RecordError::Truncated)?;
        self.bytes = rest;
        Ok(*head)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, RecordError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, RecordError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, RecordError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn varint(&mut self) -> Result<u32, RecordError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordError::Truncated)
    }

    /// A length, or `None` for null.
    fn length(&mut self, wide: bool) -> Result<Option<usize>, RecordError> {
        let length = if self.flexible {
            i64::from(self.varint()?) - 1
        } else if wide {
            i64::from(self.i32()?)
        } else {
            i64::from(self.i16()?)
        };
        match length {
            -1 => Ok(None),
            length => Ok(Some(
                usize::try_from(length).map_err(|_| RecordError::Truncated)?,
            )),
        }
    }

    pub(crate) fn nullable_string(&mut self) -> Result<Option<String>, RecordError> {
        let Some(length) = self.length(false)? else {
            return Ok(None);
        };
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| RecordError::NotUtf8)?;
        Ok(Some(text.to_owned()))
    }

    pub(crate) fn string(&mut self) -> Result<String, RecordError> {
        self.nullable_string()?.ok_or(RecordError::UnexpectedNull)
    }

    pub(crate) fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, RecordError> {
        match self.length(true)? {
            Some(length) => self.take(length).map(Some),
            None => Ok(None),
        }
    }

    fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        self.nullable_bytes()?.ok_or(RecordError::UnexpectedNull)
    }

    pub(crate) fn array_len(&mut self) -> Result<usize, RecordError> {
        self.length(true)?.ok_or(RecordError::UnexpectedNull)
    }

    fn tags(&mut self) -> Result<(), RecordError> {
        if self.flexible {
            for _ in 0..self.varint()? {
                self.varint()?;
                let length = self.varint()? as usize;
                self.take(length)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
