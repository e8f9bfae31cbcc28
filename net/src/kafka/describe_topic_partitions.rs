//! DescribeTopicPartitions: topics and their partitions, in pages (key 75, KIP-966). Lives on the core
//! of the connection; knows only the form on the wire.

use std::borrow::Cow;

use uuid::Uuid;

use super::message::message;
use crate::fuzz::Random;
use crate::wire::{Context, DecodeError, Field, Reader, Writer};

message! {
    /// Asks for a page of partitions.
    request(DescribeTopicPartitions) DescribeTopicPartitionsRequest<'a> {
        /// The topics; none for all.
        topics: Vec<TopicRequest<'a>> = 0..;
        /// The most partitions to answer with.
        response_partition_limit: i32 = 0.., default 2000;
        /// Where to go on; null for the beginning.
        cursor: Option<Cursor<'a>> = 0.., nullable 0..;
    }

    /// One topic to describe.
    struct TopicRequest<'a> {
        /// The topic's name.
        name: Cow<'a, str> = 0..;
    }

    /// Brings a page of partitions.
    response(DescribeTopicPartitions) DescribeTopicPartitionsResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 0..;
        /// The topics.
        topics: Vec<DescribeTopicPartitionsResponseTopic<'a>> = 0..;
        /// Where the next page starts; null after the last.
        next_cursor: Option<Cursor<'a>> = 0.., nullable 0..;
    }

    /// One topic.
    struct DescribeTopicPartitionsResponseTopic<'a> {
        /// The error, or 0.
        error_code: i16 = 0..;
        /// The topic's name.
        name: Option<Cow<'a, str>> = 0.., nullable 0..;
        /// The topic's id.
        topic_id: Uuid = 0..;
        /// Whether the topic is the broker's own.
        is_internal: bool = 0..;
        /// The partitions.
        partitions: Vec<DescribeTopicPartitionsResponsePartition> = 0..;
        /// What the client may do with the topic.
        topic_authorized_operations: i32 = 0.., default i32::MIN;
    }

    /// One partition.
    struct DescribeTopicPartitionsResponsePartition {
        /// The error, or 0.
        error_code: i16 = 0..;
        /// The partition.
        partition_index: i32 = 0..;
        /// The leader's broker id, or -1.
        leader_id: i32 = 0..;
        /// The leader epoch.
        leader_epoch: i32 = 0.., default -1;
        /// The brokers that have the partition.
        replica_nodes: Vec<i32> = 0..;
        /// Those of them that are in sync.
        isr_nodes: Vec<i32> = 0..;
        /// Those that may lead although not in sync.
        eligible_leader_replicas: Option<Vec<i32>> = 0.., nullable 0..;
        /// The last of those known.
        last_known_elr: Option<Vec<i32>> = 0.., nullable 0..;
        /// Those that are offline.
        offline_replicas: Vec<i32> = 0..;
    }

    /// A place between pages.
    struct Cursor<'a> {
        /// The topic to go on with.
        topic_name: Cow<'a, str> = 0..;
        /// The partition to go on with.
        partition_index: i32 = 0..;
    }
}

/// The only nullable structure there is: a byte says whether it follows, 1, or is null, -1.
impl<'a> Field<'a> for Option<Cursor<'a>> {
    fn bytes_min(_: Context) -> usize {
        1
    }
    fn read(reader: &mut Reader<'a>, cx: Context) -> Result<Self, DecodeError> {
        match reader.i8()? {
            ..0 => Ok(None),
            _ => Cursor::read(reader, cx).map(Some),
        }
    }
    fn write(&self, writer: &mut Writer, cx: Context) {
        match self {
            None => writer.i8(-1),
            Some(cursor) => {
                writer.i8(1);
                cursor.write(writer, cx);
            }
        }
    }
    fn sample(random: &mut Random, cx: Context) -> Self {
        (random.below(2) == 1).then(|| Cursor::sample(random, cx))
    }
}
