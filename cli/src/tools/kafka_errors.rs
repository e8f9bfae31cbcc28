//! The names and sentences that Java's clients give to the broker's errors, where the tools print them. Any thread; knows codes only.

use net::kafka::error::ErrorCode;

/// The exception's class without its package, and its sentence.
fn row(code: i16) -> Option<(&'static str, &'static str)> {
    Some(match code {
        -1 => (
            "UnknownServerException",
            "The server experienced an unexpected error when processing the request.",
        ),
        1 => (
            "OffsetOutOfRangeException",
            "The requested offset is not within the range of offsets maintained by the server.",
        ),
        2 => (
            "CorruptRecordException",
            "This message has failed its CRC checksum, exceeds the valid size, has a null key for a compacted topic, or is otherwise corrupt.",
        ),
        3 => (
            "UnknownTopicOrPartitionException",
            "This server does not host this topic-partition.",
        ),
        5 => (
            "LeaderNotAvailableException",
            "There is no leader for this topic-partition as we are in the middle of a leadership election.",
        ),
        6 => (
            "NotLeaderOrFollowerException",
            "For requests intended only for the leader, this error indicates that the broker is not the current leader. For requests intended for any replica, this error indicates that the broker is not a replica of the topic partition.",
        ),
        7 => ("TimeoutException", "The request timed out."),
        8 => (
            "BrokerNotAvailableException",
            "The broker is not available.",
        ),
        9 => (
            "ReplicaNotAvailableException",
            "The replica is not available for the requested topic-partition. Produce/Fetch requests and other requests intended only for the leader or follower return NOT_LEADER_OR_FOLLOWER if the broker is not a replica of the topic-partition.",
        ),
        10 => (
            "RecordTooLargeException",
            "The request included a message larger than the max message size the server will accept.",
        ),
        12 => (
            "OffsetMetadataTooLarge",
            "The metadata field of the offset request was too large.",
        ),
        14 => (
            "CoordinatorLoadInProgressException",
            "The coordinator is loading and hence can't process requests.",
        ),
        15 => (
            "CoordinatorNotAvailableException",
            "The coordinator is not available.",
        ),
        16 => (
            "NotCoordinatorException",
            "This is not the correct coordinator.",
        ),
        17 => (
            "InvalidTopicException",
            "The request attempted to perform an operation on an invalid topic.",
        ),
        22 => (
            "IllegalGenerationException",
            "Specified group generation id is not valid.",
        ),
        23 => (
            "InconsistentGroupProtocolException",
            "The group member's supported protocols are incompatible with those of existing members or first group member tried to join with empty protocol type or empty protocol list.",
        ),
        24 => ("InvalidGroupIdException", "The group id is invalid."),
        25 => (
            "UnknownMemberIdException",
            "The coordinator is not aware of this member.",
        ),
        26 => (
            "InvalidSessionTimeoutException",
            "The session timeout is not within the range allowed by the broker (as configured by group.min.session.timeout.ms and group.max.session.timeout.ms).",
        ),
        27 => (
            "RebalanceInProgressException",
            "The group is rebalancing, so a rejoin is needed.",
        ),
        29 => ("TopicAuthorizationException", "Topic authorization failed."),
        30 => ("GroupAuthorizationException", "Group authorization failed."),
        31 => (
            "ClusterAuthorizationException",
            "Cluster authorization failed.",
        ),
        35 => (
            "UnsupportedVersionException",
            "The version of API is not supported.",
        ),
        36 => (
            "TopicExistsException",
            "Topic with this name already exists.",
        ),
        37 => (
            "InvalidPartitionsException",
            "Number of partitions is below 1.",
        ),
        38 => (
            "InvalidReplicationFactorException",
            "Replication factor is below 1 or larger than the number of available brokers.",
        ),
        39 => (
            "InvalidReplicaAssignmentException",
            "Replica assignment is invalid.",
        ),
        40 => ("InvalidConfigurationException", "Configuration is invalid."),
        41 => (
            "NotControllerException",
            "This is not the correct controller for this cluster.",
        ),
        42 => (
            "InvalidRequestException",
            "This most likely occurs because of a request being malformed by the client library or the message was sent to an incompatible broker. See the broker logs for more details.",
        ),
        43 => (
            "UnsupportedForMessageFormatException",
            "The message format version on the broker does not support the request.",
        ),
        44 => (
            "PolicyViolationException",
            "Request parameters do not satisfy the configured policy.",
        ),
        56 => (
            "KafkaStorageException",
            "Disk error when trying to access log file on the disk.",
        ),
        57 => (
            "LogDirNotFoundException",
            "The user-specified log directory is not found in the broker config.",
        ),
        60 => (
            "ReassignmentInProgressException",
            "A partition reassignment is in progress.",
        ),
        68 => ("GroupNotEmptyException", "The group is not empty."),
        69 => ("GroupIdNotFoundException", "The group id does not exist."),
        72 => (
            "ListenerNotFoundException",
            "There is no listener on the leader broker that matches the listener on which metadata request was processed.",
        ),
        73 => (
            "TopicDeletionDisabledException",
            "Topic deletion is disabled.",
        ),
        74 => (
            "FencedLeaderEpochException",
            "The leader epoch in the request is older than the epoch on the broker.",
        ),
        75 => (
            "UnknownLeaderEpochException",
            "The leader epoch in the request is newer than the epoch on the broker.",
        ),
        78 => (
            "OffsetNotAvailableException",
            "The leader high watermark has not caught up from a recent leader election so the offsets cannot be guaranteed to be monotonically increasing.",
        ),
        79 => (
            "MemberIdRequiredException",
            "The group member needs to have a valid member id before actually entering a consumer group.",
        ),
        82 => (
            "FencedInstanceIdException",
            "The broker rejected this static consumer since another consumer with the same group.instance.id has registered with a different member.id.",
        ),
        86 => (
            "GroupSubscribedToTopicException",
            "Deleting offsets of a topic is forbidden while the consumer group is actively subscribed to it.",
        ),
        87 => (
            "InvalidRecordException",
            "This record has failed the validation on broker and hence will be rejected.",
        ),
        88 => (
            "UnstableOffsetCommitException",
            "There are unstable offsets that need to be cleared.",
        ),
        89 => (
            "ThrottlingQuotaExceededException",
            "The throttling quota has been exceeded.",
        ),
        91 => (
            "ResourceNotFoundException",
            "A request illegally referred to a resource that does not exist.",
        ),
        100 => (
            "UnknownTopicIdException",
            "This server does not host this topic ID.",
        ),
        103 => (
            "InconsistentTopicIdException",
            "The log's topic ID did not match the topic ID in the request.",
        ),
        110 => (
            "FencedMemberEpochException",
            "The member epoch is fenced by the group coordinator. The member must abandon all its partitions and rejoin.",
        ),
        113 => (
            "StaleMemberEpochException",
            "The member epoch is stale. The member must retry after receiving its updated member epoch via the ConsumerGroupHeartbeat API.",
        ),
        _ => return None,
    })
}

/// The sentence of an error.
pub fn message(code: ErrorCode) -> &'static str {
    row(code.code()).map_or(code.message(), |(_, message)| message)
}

/// The exception's full class name.
pub fn class(code: ErrorCode) -> String {
    let package = "org.apache.kafka.common.errors";
    match (code, row(code.code())) {
        (ErrorCode::InvalidRecord, _) => {
            "org.apache.kafka.common.InvalidRecordException".to_owned()
        }
        (_, Some((class, _))) => format!("{package}.{class}"),
        // Most classes are named after their code.
        (_, None) => {
            let words = code.name().split('_').map(|word| {
                let (first, rest) = word.split_at(1);
                format!("{first}{}", rest.to_ascii_lowercase())
            });
            format!("{package}.{}Exception", words.collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_javas_names() {
        for (code, name) in [
            (
                ErrorCode::NonEmptyGroup,
                "org.apache.kafka.common.errors.GroupNotEmptyException",
            ),
            (
                ErrorCode::OffsetOutOfRange,
                "org.apache.kafka.common.errors.OffsetOutOfRangeException",
            ),
            (
                ErrorCode::InvalidRecord,
                "org.apache.kafka.common.InvalidRecordException",
            ),
            (
                ErrorCode::ElectionNotNeeded,
                "org.apache.kafka.common.errors.ElectionNotNeededException",
            ),
        ] {
            assert_eq!(class(code), name);
        }
        assert_eq!(message(ErrorCode::NonEmptyGroup), "The group is not empty.");
        assert!(!message(ErrorCode::ElectionNotNeeded).is_empty());
    }
}
