//! What a client knows about topics. Plain data out of answers; asks nobody.

use net::native::v1::{
    ASK_TIME, ArchivedMetadataAnswer, ArchivedOffsetsAnswer, METADATA_CREATE, Metadata,
    OffsetQuestion, Offsets, TopicQuery,
};
use net::native::{Frame, Kind, read};

use crate::{Error, Link, TopicId};

/// A topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its id.
    pub id: TopicId,
    /// How many partitions it has; their indexes are those below.
    pub partition_count: i32,
}

/// Asks for one topic by name; gives the correlation id.
pub(crate) fn ask(link: &mut Link, name: &str, create: bool) -> u64 {
    let body = Metadata {
        topics: vec![TopicQuery {
            topic_id: [0; 16],
            name_start: 0,
            name_bytes: u32::try_from(name.len()).unwrap_or(u32::MAX),
        }],
        texts: name.as_bytes().to_vec(),
        flags: if create { METADATA_CREATE } else { 0 },
    };
    link.request(Kind::Metadata, &body, [])
}

/// The topic of an answer about one.
pub(crate) fn topic_of(frame: Frame<'_>) -> Result<Topic, Error> {
    let answer = read::<ArchivedMetadataAnswer>(frame.body)?;
    let row = answer.topics.first().ok_or(net::native::Fault::Body)?;
    match row.error.to_native() {
        0 => Ok(Topic {
            id: row.topic_id,
            partition_count: i32::try_from(row.partitions_count.to_native()).unwrap_or(i32::MAX),
        }),
        code => Err(Error::of_code(code)),
    }
}

/// Asks for offsets by time; gives the correlation id.
pub(crate) fn ask_offsets(
    link: &mut Link,
    topic_id: TopicId,
    partitions: impl IntoIterator<Item = i32>,
    at: i64,
) -> u64 {
    let questions = partitions.into_iter().map(|partition| OffsetQuestion {
        topic_id,
        partition,
        leader_epoch: -1,
        at,
        ask: ASK_TIME,
    });
    let body = Offsets {
        questions: questions.collect(),
    };
    link.request(Kind::Offsets, &body, [])
}

/// The offsets of an answer.
pub(crate) fn offsets_of(frame: Frame<'_>) -> Result<Vec<i64>, Error> {
    let answer = read::<ArchivedOffsetsAnswer>(frame.body)?;
    let offset = |row: &net::native::v1::ArchivedOffsetResult| match row.error.to_native() {
        0 => Ok(row.offset.to_native()),
        code => Err(Error::of_code(code)),
    };
    answer.results.iter().map(offset).collect()
}
