//! Reads what members of protocol type `consumer` embed in their joins and assignments. The coordinator
//! passes those bytes on unread; only the subscribed topics matter here, for which offsets may be
//! deleted. Pure functions that know no group.

use std::collections::BTreeSet;

use super::records::{Input, RecordError};

/// The protocol type of ordinary consumers.
pub const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// A consumer's subscription, as far as its version goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The version that it was written in, 0 to 3; newer ones are read as 3.
    pub version: i16,
    /// The topics that it wants.
    pub topics: Vec<String>,
    /// Whatever the assignor of the client keeps.
    pub user_data: Option<Vec<u8>>,
    /// From version 1: what it owns now (KIP-429).
    pub owned_partitions: Vec<(String, Vec<i32>)>,
    /// From version 2: the generation in which it owned that, else -1.
    pub generation: i32,
    /// From version 3: its rack (KIP-881).
    pub rack: Option<String>,
}

/// A consumer's assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The version that it was written in.
    pub version: i16,
    /// What it may read.
    pub partitions: Vec<(String, Vec<i32>)>,
    /// Whatever the assignor of the client keeps.
    pub user_data: Option<Vec<u8>>,
}

/// The topics of a subscription. All versions begin alike, so the newest is understood too.
///
/// # Errors
/// When the bytes are not a subscription.
pub fn subscribed_topics(bytes: &[u8]) -> Result<BTreeSet<String>, RecordError> {
    let mut input = Input::new(bytes);
    input.i16()?;
    (0..input.array_len()?).map(|_| input.string()).collect()
}

/// Reads a whole subscription.
///
/// # Errors
/// When the bytes are not a subscription.
pub fn decode_subscription(bytes: &[u8]) -> Result<Subscription, RecordError> {
    let mut input = Input::new(bytes);
    let version = input.i16()?;
    if version < 0 {
        return Err(RecordError::UnknownVersion(version));
    }
    let mut subscription = Subscription {
        version: version.min(3),
        topics: Vec::new(),
        user_data: None,
        owned_partitions: Vec::new(),
        generation: -1,
        rack: None,
    };
    for _ in 0..input.array_len()? {
        subscription.topics.push(input.string()?);
    }
    subscription.user_data = input.nullable_bytes()?.map(<[u8]>::to_vec);
    if version >= 1 {
        subscription.owned_partitions = topic_partitions(&mut input)?;
    }
    if version >= 2 {
        subscription.generation = input.i32()?;
    }
    if version >= 3 {
        subscription.rack = input.nullable_string()?;
    }
    Ok(subscription)
}

/// Reads an assignment.
///
/// # Errors
/// When the bytes are not an assignment; an empty one is not.
pub fn decode_assignment(bytes: &[u8]) -> Result<Assignment, RecordError> {
    let mut input = Input::new(bytes);
    let version = input.i16()?;
    if version < 0 {
        return Err(RecordError::UnknownVersion(version));
    }
    Ok(Assignment {
        version: version.min(3),
        partitions: topic_partitions(&mut input)?,
        user_data: input.nullable_bytes()?.map(<[u8]>::to_vec),
    })
}

fn topic_partitions(input: &mut Input<'_>) -> Result<Vec<(String, Vec<i32>)>, RecordError> {
    let mut topics = Vec::new();
    for _ in 0..input.array_len()? {
        let topic = input.string()?;
        let mut partitions = Vec::new();
        for _ in 0..input.array_len()? {
            partitions.push(input.i32()?);
        }
        topics.push((topic, partitions));
    }
    Ok(topics)
}

/// Writes a subscription of version 1, for tests and the tools.
#[cfg(test)]
pub fn encode_subscription(topics: &[&str]) -> Vec<u8> {
    let mut out = vec![0, 1];
    out.extend_from_slice(&(topics.len() as i32).to_be_bytes());
    for topic in topics {
        out.extend_from_slice(&(topic.len() as i16).to_be_bytes());
        out.extend_from_slice(topic.as_bytes());
    }
    out.extend_from_slice(&(-1i32).to_be_bytes());
    out.extend_from_slice(&0i32.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_from_every_version() {
        let bytes = encode_subscription(&["b", "a"]);
        let topics = subscribed_topics(&bytes).unwrap();
        assert_eq!(topics.into_iter().collect::<Vec<_>>(), ["a", "b"]);
        let mut newer = bytes.clone();
        newer[1] = 9;
        newer.push(0);
        assert!(subscribed_topics(&newer).is_ok());
        assert!(subscribed_topics(&bytes[..4]).is_err());
        assert!(subscribed_topics(b"\x00\x01\x7f\xff\xff\xff").is_err());
    }

    #[test]
    fn a_subscription_of_version_3_has_everything() {
        let bytes = b"\x00\x03\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x01\x09\
            \x00\x00\x00\x01\x00\x01t\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x05\
            \x00\x00\x00\x07\x00\x01r";
        assert_eq!(
            decode_subscription(bytes),
            Ok(Subscription {
                version: 3,
                topics: vec!["t".into()],
                user_data: Some(vec![9]),
                owned_partitions: vec![("t".into(), vec![0, 5])],
                generation: 7,
                rack: Some("r".into()),
            })
        );
        assert_eq!(decode_subscription(b""), Err(RecordError::Truncated));
    }

    #[test]
    fn an_assignment_lists_partitions() {
        let bytes =
            b"\x00\x00\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x01\x00\x00\x00\x03\xff\xff\xff\xff";
        let assignment = decode_assignment(bytes).unwrap();
        assert_eq!(assignment.partitions, [("t".to_owned(), vec![3])]);
        assert_eq!(assignment.user_data, None);
    }
}
