//! What every API's behaviour shares: a request in hand, the place of its answer, and the table of
//! who behaves how. Lives on the core that accepted the connection; wire forms are `net::kafka`'s.
//!
//! A handler gets the shard and a [`Request`]. It answers at once ([`Outcome::Done`]), later through
//! [`Shard::respond`] with the request's [`Head`] ([`Outcome::Pending`]), not at all, or closes the
//! connection. Only the handler borrows from the request's frame; what waits keeps a slice of it.

pub mod alter_configs;
pub mod api_versions;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_topic_partitions;
pub mod fetch;
pub mod find_coordinator;
#[cfg(test)]
mod group_tests;
mod groups;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod sync_group;

use std::net::SocketAddr;

use net::kafka::error::ErrorCode;
use net::kafka::{ApiKey, ResponseHeader};
use net::wire::{DecodeError, Reader, Writer};
use ring::buf::{Chunk, Shared};
use storage::types::{Now, TopicId};

use crate::config::listener::Listener;
use crate::connection::Ticket;
use crate::mesh::{Ask, PartitionAnswer, PartitionCall, PartitionRef};
use crate::shard::Shard;

/// Where an answer goes, and in which form.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Its place on the connection.
    pub ticket: Ticket,
    /// The API that was asked.
    pub api: ApiKey,
    /// The version that was asked in, and is answered in.
    pub version: i16,
    /// The client's name for the request.
    pub correlation_id: i32,
    /// When handling began, monotonic microseconds.
    pub started_us: u64,
}

impl Head {
    /// A whole answer: size, header, and the body that `write_body` writes.
    pub fn encode(&self, write_body: impl FnOnce(&mut Writer, i16)) -> Vec<Chunk> {
        let mut writer = Writer::framed();
        let header = ResponseHeader {
            correlation_id: self.correlation_id,
        };
        header.encode(&mut writer, self.api, self.version);
        write_body(&mut writer, self.version);
        writer.into_chunks()
    }
}

/// A request as its handler sees it.
pub struct Request<'a> {
    /// Where its answer goes.
    pub head: Head,
    /// What the client calls itself.
    pub client_id: Option<&'a str>,
    /// The listener that was asked.
    pub listener: &'a Listener,
    /// The client's address.
    pub peer: SocketAddr,
    /// The whole frame.
    pub frame: &'a Shared,
    /// What follows the request header.
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// Decodes the body; what follows it is ignored, as Kafka does.
    pub fn decode<T>(
        &self,
        decode: impl FnOnce(&mut Reader<'a>, i16) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        decode(&mut Reader::new(self.body), self.head.version)
    }

    /// The part of the frame that `bytes`, borrowed from it, stands for.
    pub fn share(&self, bytes: &[u8]) -> Shared {
        let start = bytes.as_ptr() as usize - self.frame.as_ptr() as usize;
        self.frame.slice(start..start + bytes.len())
    }
}

/// What a handler leaves behind.
#[derive(Debug)]
pub enum Outcome {
    /// The answer.
    Done(Vec<Chunk>),
    /// The answer comes later, by [`Shard::respond`].
    Pending,
    /// The protocol knows no answer (acks=0).
    Nothing,
    /// The connection cannot go on, and why.
    Close(&'static str),
}

impl From<DecodeError> for Outcome {
    fn from(_: DecodeError) -> Outcome {
        Outcome::Close("the request's body is malformed")
    }
}

/// Hands a request to its API.
pub(crate) fn dispatch(shard: &mut Shard, now: Now, request: &Request<'_>) -> Outcome {
    let handled = match request.head.api {
        ApiKey::ApiVersions => api_versions::handle(shard, request),
        ApiKey::Produce => produce::handle(shard, now, request),
        ApiKey::Fetch => fetch::handle(shard, now, request),
        ApiKey::ListOffsets => list_offsets::handle(shard, now, request),
        ApiKey::OffsetForLeaderEpoch => offset_for_leader_epoch::handle(shard, now, request),
        ApiKey::InitProducerId => init_producer_id::handle(shard, now, request),
        ApiKey::DeleteRecords => delete_records::handle(shard, now, request),
        ApiKey::DescribeProducers => describe_producers::handle(shard, now, request),
        ApiKey::DescribeLogDirs => describe_log_dirs::handle(shard, now, request),
        ApiKey::FindCoordinator => find_coordinator::handle(shard, now, request),
        ApiKey::JoinGroup => join_group::handle(shard, now, request),
        ApiKey::SyncGroup => sync_group::handle(shard, now, request),
        ApiKey::Heartbeat => heartbeat::handle(shard, now, request),
        ApiKey::LeaveGroup => leave_group::handle(shard, now, request),
        ApiKey::OffsetCommit => offset_commit::handle(shard, now, request),
        ApiKey::OffsetFetch => offset_fetch::handle(shard, now, request),
        ApiKey::OffsetDelete => offset_delete::handle(shard, now, request),
        ApiKey::DescribeGroups => describe_groups::handle(shard, now, request),
        ApiKey::ListGroups => list_groups::handle(shard, now, request),
        ApiKey::DeleteGroups => delete_groups::handle(shard, now, request),
        ApiKey::Metadata => metadata::handle(shard, now, request),
        ApiKey::CreateTopics => create_topics::handle(shard, now, request),
        ApiKey::DeleteTopics => delete_topics::handle(shard, now, request),
        ApiKey::CreatePartitions => create_partitions::handle(shard, now, request),
        ApiKey::DescribeConfigs => describe_configs::handle(shard, request),
        ApiKey::AlterConfigs => alter_configs::handle(shard, now, request),
        ApiKey::IncrementalAlterConfigs => incremental_alter_configs::handle(shard, now, request),
        ApiKey::ListConfigResources => list_config_resources::handle(shard, request),
        ApiKey::DescribeCluster => describe_cluster::handle(shard, request),
        ApiKey::DescribeTopicPartitions => describe_topic_partitions::handle(shard, request),
    };
    handled.unwrap_or_else(Outcome::from)
}

/// An id for a new topic: random, as far as the seed of this start is, and repeatable in a simulation.
pub(crate) fn fresh_topic_id(shard: &mut Shard) -> TopicId {
    loop {
        let mut input = [0; 18];
        input[..8].copy_from_slice(&shard.config.seed.to_le_bytes());
        input[8..10].copy_from_slice(&shard.core.0.to_le_bytes());
        input[10..].copy_from_slice(&shard.keys.next().to_le_bytes());
        let bytes = xxhash_rust::xxh3::xxh3_128(&input).to_be_bytes();
        // In Base64 an id may not begin with a dash: tools would take it for an option.
        if bytes[0] >> 2 != 62 {
            return uuid::Builder::from_random_bytes(bytes).into_uuid();
        }
    }
}

/// A question about one partition of a topic that is named by name, or why it cannot be asked.
pub(crate) struct PartitionQuestion {
    /// The partition.
    pub partition: i32,
    /// The leader epoch that the client knows; -1: none.
    pub current_leader_epoch: i32,
    /// What is asked.
    pub ask: Result<Ask, ErrorCode>,
}

/// Answers by topic and partition, in the order of the questions.
pub(crate) type AnswersByTopic = Vec<(String, Vec<(i32, PartitionAnswer)>)>;

/// Asks the owners of partitions, which the client grouped by topic; unknown ones are answered here.
pub(crate) fn ask_by_topic(
    shard: &mut Shard,
    now: Now,
    topics: Vec<(&str, Vec<PartitionQuestion>)>,
    then: impl FnOnce(&mut Shard, AnswersByTopic) + 'static,
) {
    let mut answers: AnswersByTopic = Vec::with_capacity(topics.len());
    let mut calls = Vec::new();
    let mut places = Vec::new();
    for (name, questions) in topics {
        let topic = shard.image.topic(name);
        let mut partitions = Vec::with_capacity(questions.len());
        for question in questions {
            let index = question.partition;
            let known = topic.filter(|topic| {
                usize::try_from(index).is_ok_and(|index| index < topic.partition_count() as usize)
            });
            let answer = match (known, question.ask) {
                (None, _) => PartitionAnswer::Error(ErrorCode::UnknownTopicOrPartition),
                (Some(_), Err(code)) => PartitionAnswer::Error(code),
                (Some(topic), Ok(ask)) => {
                    places.push((answers.len(), partitions.len()));
                    calls.push(PartitionCall {
                        partition: PartitionRef {
                            topic_id: topic.id,
                            partition: index,
                        },
                        current_leader_epoch: question.current_leader_epoch,
                        ask,
                    });
                    PartitionAnswer::Error(ErrorCode::UnknownServerError)
                }
            };
            partitions.push((index, answer));
        }
        answers.push((name.to_owned(), partitions));
    }
    let gathered = move |shard: &mut Shard, _now: Now, gathered: Vec<PartitionAnswer>| {
        for ((topic, partition), answer) in places.into_iter().zip(gathered) {
            answers[topic].1[partition].1 = answer;
        }
        then(shard, answers);
    };
    shard.ask_partitions(now, calls, Box::new(gathered));
}
