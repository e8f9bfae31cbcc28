//! Which answer belongs to which request. Lives in the compiler; knows every request that tools send.

use crate::kafka::ApiKey;
use crate::kafka::{
    alter_configs, api_versions, create_partitions, create_topics, delete_groups, delete_records,
    delete_topics, describe_cluster, describe_configs, describe_groups, describe_log_dirs,
    describe_producers, describe_topic_partitions, find_coordinator, incremental_alter_configs,
    list_config_resources, list_groups, list_offsets, metadata, offset_commit, offset_delete,
    offset_fetch,
};
use crate::wire::{DecodeError, Reader, Writer};

/// A request together with its answer.
pub trait Call {
    /// The API.
    const API: ApiKey;
    /// The answer, borrowed from the received frame.
    type Response<'a>;
    /// Writes the request's body.
    fn write(&self, writer: &mut Writer, version: i16);
    /// Reads the answer's body.
    fn read<'a>(reader: &mut Reader<'a>, version: i16) -> Result<Self::Response<'a>, DecodeError>;
}

macro_rules! calls {
    ($($api:ident: $module:ident :: $request:ident $(<$life:lifetime>)? -> $response:ident;)*) => {$(
        impl Call for $module::$request $(<$life>)? {
            const API: ApiKey = ApiKey::$api;
            type Response<'a> = $module::$response<'a>;
            fn write(&self, writer: &mut Writer, version: i16) {
                self.encode(writer, version);
            }
            fn read<'a>(reader: &mut Reader<'a>, version: i16) -> Result<Self::Response<'a>, DecodeError> {
                $module::$response::decode(reader, version)
            }
        }
    )*};
}

calls! {
    AlterConfigs: alter_configs::AlterConfigsRequest<'_> -> AlterConfigsResponse;
    ApiVersions: api_versions::ApiVersionsRequest<'_> -> ApiVersionsResponse;
    CreatePartitions: create_partitions::CreatePartitionsRequest<'_> -> CreatePartitionsResponse;
    CreateTopics: create_topics::CreateTopicsRequest<'_> -> CreateTopicsResponse;
    DeleteGroups: delete_groups::DeleteGroupsRequest<'_> -> DeleteGroupsResponse;
    DeleteRecords: delete_records::DeleteRecordsRequest<'_> -> DeleteRecordsResponse;
    DeleteTopics: delete_topics::DeleteTopicsRequest<'_> -> DeleteTopicsResponse;
    DescribeCluster: describe_cluster::DescribeClusterRequest -> DescribeClusterResponse;
    DescribeConfigs: describe_configs::DescribeConfigsRequest<'_> -> DescribeConfigsResponse;
    DescribeGroups: describe_groups::DescribeGroupsRequest<'_> -> DescribeGroupsResponse;
    DescribeLogDirs: describe_log_dirs::DescribeLogDirsRequest<'_> -> DescribeLogDirsResponse;
    DescribeProducers: describe_producers::DescribeProducersRequest<'_> -> DescribeProducersResponse;
    DescribeTopicPartitions: describe_topic_partitions::DescribeTopicPartitionsRequest<'_> -> DescribeTopicPartitionsResponse;
    FindCoordinator: find_coordinator::FindCoordinatorRequest<'_> -> FindCoordinatorResponse;
    IncrementalAlterConfigs: incremental_alter_configs::IncrementalAlterConfigsRequest<'_> -> IncrementalAlterConfigsResponse;
    ListConfigResources: list_config_resources::ListConfigResourcesRequest -> ListConfigResourcesResponse;
    ListGroups: list_groups::ListGroupsRequest<'_> -> ListGroupsResponse;
    ListOffsets: list_offsets::ListOffsetsRequest<'_> -> ListOffsetsResponse;
    Metadata: metadata::MetadataRequest<'_> -> MetadataResponse;
    OffsetCommit: offset_commit::OffsetCommitRequest<'_> -> OffsetCommitResponse;
    OffsetDelete: offset_delete::OffsetDeleteRequest<'_> -> OffsetDeleteResponse;
    OffsetFetch: offset_fetch::OffsetFetchRequest<'_> -> OffsetFetchResponse;
}
