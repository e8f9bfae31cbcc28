//! Any request, decoded by its header. Lives on the core of the connection; knows which API has which
//! message, not what is done with it.

use super::{ApiKey, HeaderError, RequestHeader, decode_header};
use super::{
    alter_configs, api_versions, create_partitions, create_topics, delete_groups, delete_records,
    delete_topics, describe_cluster, describe_configs, describe_groups, describe_log_dirs,
    describe_producers, describe_topic_partitions, fetch, find_coordinator, heartbeat,
    incremental_alter_configs, init_producer_id, join_group, leave_group, list_config_resources,
    list_groups, list_offsets, metadata, offset_commit, offset_delete, offset_fetch,
    offset_for_leader_epoch, produce, sync_group,
};
use crate::wire::{DecodeError, Reader, Writer};

macro_rules! requests {
    ($($name:ident($($type:tt)*);)*) => {
        /// A request of any API.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Request<'a> {
            $(
                #[doc = concat!("A ", stringify!($name), " request.")]
                $name($($type)*),
            )*
        }

        impl<'a> Request<'a> {
            /// Reads the body of a request; bytes after it are left unread, as Kafka leaves them.
            ///
            /// # Errors
            /// If the body is malformed, or that version is not served.
            pub fn decode(
                key: ApiKey,
                version: i16,
                reader: &mut Reader<'a>,
            ) -> Result<Request<'a>, DecodeError> {
                if !key.serves(version) {
                    return Err(DecodeError::Version);
                }
                match key {
                    $(ApiKey::$name => {
                        <$($type)*>::decode(reader, version).map(Request::$name)
                    })*
                }
            }

            /// The API.
            pub fn key(&self) -> ApiKey {
                match self {
                    $(Request::$name(_) => ApiKey::$name,)*
                }
            }

            /// Writes the body.
            pub fn encode(&self, writer: &mut Writer, version: i16) {
                match self {
                    $(Request::$name(request) => request.encode(writer, version),)*
                }
            }

            /// Makes up a request of `key`, of which nothing is lost in `version`.
            pub fn sample(
                random: &mut crate::fuzz::Random,
                key: ApiKey,
                version: i16,
            ) -> Request<'a> {
                match key {
                    $(ApiKey::$name => {
                        Request::$name(crate::wire::Field::sample(random, key.context(version)))
                    })*
                }
            }
        }
    };
}

requests! {
    Produce(produce::ProduceRequest<'a>);
    Fetch(fetch::FetchRequest<'a>);
    ListOffsets(list_offsets::ListOffsetsRequest<'a>);
    Metadata(metadata::MetadataRequest<'a>);
    OffsetCommit(offset_commit::OffsetCommitRequest<'a>);
    OffsetFetch(offset_fetch::OffsetFetchRequest<'a>);
    FindCoordinator(find_coordinator::FindCoordinatorRequest<'a>);
    JoinGroup(join_group::JoinGroupRequest<'a>);
    Heartbeat(heartbeat::HeartbeatRequest<'a>);
    LeaveGroup(leave_group::LeaveGroupRequest<'a>);
    SyncGroup(sync_group::SyncGroupRequest<'a>);
    DescribeGroups(describe_groups::DescribeGroupsRequest<'a>);
    ListGroups(list_groups::ListGroupsRequest<'a>);
    ApiVersions(api_versions::ApiVersionsRequest<'a>);
    CreateTopics(create_topics::CreateTopicsRequest<'a>);
    DeleteTopics(delete_topics::DeleteTopicsRequest<'a>);
    DeleteRecords(delete_records::DeleteRecordsRequest<'a>);
    InitProducerId(init_producer_id::InitProducerIdRequest<'a>);
    OffsetForLeaderEpoch(offset_for_leader_epoch::OffsetForLeaderEpochRequest<'a>);
    DescribeConfigs(describe_configs::DescribeConfigsRequest<'a>);
    AlterConfigs(alter_configs::AlterConfigsRequest<'a>);
    DescribeLogDirs(describe_log_dirs::DescribeLogDirsRequest<'a>);
    CreatePartitions(create_partitions::CreatePartitionsRequest<'a>);
    DeleteGroups(delete_groups::DeleteGroupsRequest<'a>);
    IncrementalAlterConfigs(incremental_alter_configs::IncrementalAlterConfigsRequest<'a>);
    OffsetDelete(offset_delete::OffsetDeleteRequest<'a>);
    DescribeCluster(describe_cluster::DescribeClusterRequest);
    DescribeProducers(describe_producers::DescribeProducersRequest<'a>);
    ListConfigResources(list_config_resources::ListConfigResourcesRequest);
    DescribeTopicPartitions(describe_topic_partitions::DescribeTopicPartitionsRequest<'a>);
}

/// Reads a whole request frame (without its size prefix), whatever API it is for.
///
/// # Errors
/// If the header or the body is malformed, or the API or its version is not served.
pub fn decode_any(frame: &[u8]) -> Result<(RequestHeader<'_>, Request<'_>), HeaderError> {
    let (header, mut reader) = decode_header(frame)?;
    let request = Request::decode(header.api_key, header.api_version, &mut reader)?;
    Ok((header, request))
}
