//! The error codes of the Kafka protocol: number, name, whether trying again helps, and a sentence. Lives
//! on any core; knows no API.

use std::fmt;

/// Makes the enum and its tables from one list; `retriable` marks errors after which a client may try again.
macro_rules! error_codes {
    (@retriable) => { false };
    (@retriable retriable) => { true };
    ($($code:literal $variant:ident $name:literal, $message:literal $(, $retriable:ident)?;)*) => {
        /// An error code of the protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(
                #[doc = $message]
                $variant = $code,
            )*
        }

        impl ErrorCode {
            /// Every code, in the order of their numbers.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant),*];

            /// The error with that number, if there is one.
            pub fn from_code(code: i16) -> Option<ErrorCode> {
                match code {
                    $($code => Some(ErrorCode::$variant),)*
                    _ => None,
                }
            }

            /// The name that Kafka gives it, like `UNKNOWN_TOPIC_OR_PARTITION`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(ErrorCode::$variant => $name,)*
                }
            }

            /// What it means, in a sentence.
            pub const fn message(self) -> &'static str {
                match self {
                    $(ErrorCode::$variant => $message,)*
                }
            }

            /// Whether the same request may succeed later.
            pub const fn retriable(self) -> bool {
                match self {
                    $(ErrorCode::$variant => error_codes!(@retriable $($retriable)?),)*
                }
            }
        }
    };
}

error_codes! {
    -1 UnknownServerError "UNKNOWN_SERVER_ERROR", "The server met an error that it did not expect.";
    0 None "NONE", "No error.";
    1 OffsetOutOfRange "OFFSET_OUT_OF_RANGE", "The offset lies outside what the log holds.";
    2 CorruptMessage "CORRUPT_MESSAGE", "The batch is damaged: its checksum, its length or its format is wrong.", retriable;
    3 UnknownTopicOrPartition "UNKNOWN_TOPIC_OR_PARTITION", "This server does not have that topic or partition.", retriable;
    4 InvalidFetchSize "INVALID_FETCH_SIZE", "The fetch size is not allowed.";
    5 LeaderNotAvailable "LEADER_NOT_AVAILABLE", "The partition has no leader at the moment.", retriable;
    6 NotLeaderOrFollower "NOT_LEADER_OR_FOLLOWER", "This broker does not lead the partition, or has no replica of it.", retriable;
    7 RequestTimedOut "REQUEST_TIMED_OUT", "The request took longer than its time limit.", retriable;
    8 BrokerNotAvailable "BROKER_NOT_AVAILABLE", "The broker is not available.";
    9 ReplicaNotAvailable "REPLICA_NOT_AVAILABLE", "The replica is not available.", retriable;
    10 MessageTooLarge "MESSAGE_TOO_LARGE", "The message is larger than the topic allows.";
    11 StaleControllerEpoch "STALE_CONTROLLER_EPOCH", "The controller has moved.";
    12 OffsetMetadataTooLarge "OFFSET_METADATA_TOO_LARGE", "The metadata of a committed offset is too long.";
    13 NetworkException "NETWORK_EXCEPTION", "The connection ended before the answer came.", retriable;
    14 CoordinatorLoadInProgress "COORDINATOR_LOAD_IN_PROGRESS", "The coordinator is still loading.", retriable;
    15 CoordinatorNotAvailable "COORDINATOR_NOT_AVAILABLE", "The coordinator is not available.", retriable;
    16 NotCoordinator "NOT_COORDINATOR", "This broker is not the coordinator.", retriable;
    17 InvalidTopicException "INVALID_TOPIC_EXCEPTION", "The topic's name is not allowed, or not for this operation.";
    18 RecordListTooLarge "RECORD_LIST_TOO_LARGE", "The batch is larger than a segment may be.";
    19 NotEnoughReplicas "NOT_ENOUGH_REPLICAS", "Fewer replicas are in sync than the topic asks for.", retriable;
    20 NotEnoughReplicasAfterAppend "NOT_ENOUGH_REPLICAS_AFTER_APPEND", "The records were written, but to fewer in-sync replicas than the topic asks for.", retriable;
    21 InvalidRequiredAcks "INVALID_REQUIRED_ACKS", "The acks value must be -1, 0 or 1.";
    22 IllegalGeneration "ILLEGAL_GENERATION", "The generation is not the group's current one.";
    23 InconsistentGroupProtocol "INCONSISTENT_GROUP_PROTOCOL", "The member's protocols do not fit those of the group.";
    24 InvalidGroupId "INVALID_GROUP_ID", "The group id is not allowed.";
    25 UnknownMemberId "UNKNOWN_MEMBER_ID", "The coordinator does not know that member.";
    26 InvalidSessionTimeout "INVALID_SESSION_TIMEOUT", "The session timeout lies outside what the broker allows.";
    27 RebalanceInProgress "REBALANCE_IN_PROGRESS", "The group is rebalancing; the member must join again.";
    28 InvalidCommitOffsetSize "INVALID_COMMIT_OFFSET_SIZE", "The committed offset data has a wrong size.";
    29 TopicAuthorizationFailed "TOPIC_AUTHORIZATION_FAILED", "Access to the topic is denied.";
    30 GroupAuthorizationFailed "GROUP_AUTHORIZATION_FAILED", "Access to the group is denied.";
    31 ClusterAuthorizationFailed "CLUSTER_AUTHORIZATION_FAILED", "Access to the cluster is denied.";
    32 InvalidTimestamp "INVALID_TIMESTAMP", "The record's timestamp lies outside the allowed range.";
    33 UnsupportedSaslMechanism "UNSUPPORTED_SASL_MECHANISM", "The broker does not offer that SASL mechanism.";
    34 IllegalSaslState "ILLEGAL_SASL_STATE", "The request does not fit the state of the SASL exchange.";
    35 UnsupportedVersion "UNSUPPORTED_VERSION", "The broker does not speak that version.";
    36 TopicAlreadyExists "TOPIC_ALREADY_EXISTS", "A topic of that name already exists.";
    37 InvalidPartitions "INVALID_PARTITIONS", "The number of partitions is not allowed.";
    38 InvalidReplicationFactor "INVALID_REPLICATION_FACTOR", "The replication factor is below 1 or above the number of brokers.";
    39 InvalidReplicaAssignment "INVALID_REPLICA_ASSIGNMENT", "The replica assignment is not valid.";
    40 InvalidConfig "INVALID_CONFIG", "A config is not valid.";
    41 NotController "NOT_CONTROLLER", "This broker is not the controller.", retriable;
    42 InvalidRequest "INVALID_REQUEST", "The request makes no sense.";
    43 UnsupportedForMessageFormat "UNSUPPORTED_FOR_MESSAGE_FORMAT", "The log's message format does not support the request.";
    44 PolicyViolation "POLICY_VIOLATION", "A policy forbids the request.";
    45 OutOfOrderSequenceNumber "OUT_OF_ORDER_SEQUENCE_NUMBER", "The sequence number does not follow the last one.";
    46 DuplicateSequenceNumber "DUPLICATE_SEQUENCE_NUMBER", "The sequence number was already used.";
    47 InvalidProducerEpoch "INVALID_PRODUCER_EPOCH", "The producer's epoch is outdated.";
    48 InvalidTxnState "INVALID_TXN_STATE", "The transaction's state does not allow that.";
    49 InvalidProducerIdMapping "INVALID_PRODUCER_ID_MAPPING", "The producer id does not belong to that transactional id.";
    50 InvalidTransactionTimeout "INVALID_TRANSACTION_TIMEOUT", "The transaction timeout is above the broker's maximum.";
    51 ConcurrentTransactions "CONCURRENT_TRANSACTIONS", "The transaction is being changed by someone else.", retriable;
    52 TransactionCoordinatorFenced "TRANSACTION_COORDINATOR_FENCED", "The transaction coordinator has been replaced.";
    53 TransactionalIdAuthorizationFailed "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", "Access to the transactional id is denied.";
    54 SecurityDisabled "SECURITY_DISABLED", "Security features are switched off.";
    55 OperationNotAttempted "OPERATION_NOT_ATTEMPTED", "The broker did not try this part of the request.";
    56 KafkaStorageError "KAFKA_STORAGE_ERROR", "The disk that holds the log failed.", retriable;
    57 LogDirNotFound "LOG_DIR_NOT_FOUND", "No such log directory.";
    58 SaslAuthenticationFailed "SASL_AUTHENTICATION_FAILED", "The SASL authentication failed.";
    59 UnknownProducerId "UNKNOWN_PRODUCER_ID", "The broker knows nothing of that producer id.";
    60 ReassignmentInProgress "REASSIGNMENT_IN_PROGRESS", "The partition is being reassigned.";
    61 DelegationTokenAuthDisabled "DELEGATION_TOKEN_AUTH_DISABLED", "Delegation tokens are switched off.";
    62 DelegationTokenNotFound "DELEGATION_TOKEN_NOT_FOUND", "No such delegation token.";
    63 DelegationTokenOwnerMismatch "DELEGATION_TOKEN_OWNER_MISMATCH", "The token belongs to somebody else.";
    64 DelegationTokenRequestNotAllowed "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", "Delegation tokens are not allowed on this connection.";
    65 DelegationTokenAuthorizationFailed "DELEGATION_TOKEN_AUTHORIZATION_FAILED", "Access to the delegation token is denied.";
    66 DelegationTokenExpired "DELEGATION_TOKEN_EXPIRED", "The delegation token has expired.";
    67 InvalidPrincipalType "INVALID_PRINCIPAL_TYPE", "That kind of principal is not supported.";
    68 NonEmptyGroup "NON_EMPTY_GROUP", "The group still has members.";
    69 GroupIdNotFound "GROUP_ID_NOT_FOUND", "No such group.";
    70 FetchSessionIdNotFound "FETCH_SESSION_ID_NOT_FOUND", "No such fetch session.", retriable;
    71 InvalidFetchSessionEpoch "INVALID_FETCH_SESSION_EPOCH", "The fetch session is at another epoch.", retriable;
    72 ListenerNotFound "LISTENER_NOT_FOUND", "The leader has no listener of that name.", retriable;
    73 TopicDeletionDisabled "TOPIC_DELETION_DISABLED", "Topics cannot be deleted here.";
    74 FencedLeaderEpoch "FENCED_LEADER_EPOCH", "The request's leader epoch is older than the broker's.", retriable;
    75 UnknownLeaderEpoch "UNKNOWN_LEADER_EPOCH", "The request's leader epoch is newer than the broker's.", retriable;
    76 UnsupportedCompressionType "UNSUPPORTED_COMPRESSION_TYPE", "The client's version does not support that compression.";
    77 StaleBrokerEpoch "STALE_BROKER_EPOCH", "The broker epoch is outdated.";
    78 OffsetNotAvailable "OFFSET_NOT_AVAILABLE", "The new leader does not know yet how far the log is committed.", retriable;
    79 MemberIdRequired "MEMBER_ID_REQUIRED", "The member must join again with the id it was given.";
    80 PreferredLeaderNotAvailable "PREFERRED_LEADER_NOT_AVAILABLE", "The preferred leader is not available.", retriable;
    81 GroupMaxSizeReached "GROUP_MAX_SIZE_REACHED", "The group is full.";
    82 FencedInstanceId "FENCED_INSTANCE_ID", "Another member uses the same group.instance.id.";
    83 EligibleLeadersNotAvailable "ELIGIBLE_LEADERS_NOT_AVAILABLE", "No eligible leader is available.", retriable;
    84 ElectionNotNeeded "ELECTION_NOT_NEEDED", "The partition needs no election.", retriable;
    85 NoReassignmentInProgress "NO_REASSIGNMENT_IN_PROGRESS", "The partition is not being reassigned.";
    86 GroupSubscribedToTopic "GROUP_SUBSCRIBED_TO_TOPIC", "The group is subscribed to the topic.";
    87 InvalidRecord "INVALID_RECORD", "A record was refused by the broker.";
    88 UnstableOffsetCommit "UNSTABLE_OFFSET_COMMIT", "Offsets of an open transaction are pending.", retriable;
    89 ThrottlingQuotaExceeded "THROTTLING_QUOTA_EXCEEDED", "The quota is used up.", retriable;
    90 ProducerFenced "PRODUCER_FENCED", "A newer producer has the same transactional id.";
    91 ResourceNotFound "RESOURCE_NOT_FOUND", "The request names something that does not exist.";
    92 DuplicateResource "DUPLICATE_RESOURCE", "The request names something twice.";
    93 UnacceptableCredential "UNACCEPTABLE_CREDENTIAL", "The credential is not good enough.";
    94 InconsistentVoterSet "INCONSISTENT_VOTER_SET", "The voters named do not match.";
    95 InvalidUpdateVersion "INVALID_UPDATE_VERSION", "The update's version is not valid.";
    96 FeatureUpdateFailed "FEATURE_UPDATE_FAILED", "The features could not be updated.";
    97 PrincipalDeserializationFailure "PRINCIPAL_DESERIALIZATION_FAILURE", "The forwarded principal could not be read.";
    98 SnapshotNotFound "SNAPSHOT_NOT_FOUND", "No such snapshot.";
    99 PositionOutOfRange "POSITION_OUT_OF_RANGE", "The position lies outside the snapshot.";
    100 UnknownTopicId "UNKNOWN_TOPIC_ID", "This server does not have a topic with that id.", retriable;
    101 DuplicateBrokerRegistration "DUPLICATE_BROKER_REGISTRATION", "The broker id is already in use.";
    102 BrokerIdNotRegistered "BROKER_ID_NOT_REGISTERED", "The broker id is not registered.";
    103 InconsistentTopicId "INCONSISTENT_TOPIC_ID", "The topic id is not that of the log.", retriable;
    104 InconsistentClusterId "INCONSISTENT_CLUSTER_ID", "The request is meant for another cluster.";
    105 TransactionalIdNotFound "TRANSACTIONAL_ID_NOT_FOUND", "No such transactional id.";
    106 FetchSessionTopicIdError "FETCH_SESSION_TOPIC_ID_ERROR", "The fetch session mixes requests with and without topic ids.", retriable;
    107 IneligibleReplica "INELIGIBLE_REPLICA", "A replica is not fit to be in sync.";
    108 NewLeaderElected "NEW_LEADER_ELECTED", "The state was changed, and the leader with it.";
    109 OffsetMovedToTieredStorage "OFFSET_MOVED_TO_TIERED_STORAGE", "The offset has moved to tiered storage.";
    110 FencedMemberEpoch "FENCED_MEMBER_EPOCH", "The member's epoch is fenced; it must give up its partitions and join again.";
    111 UnreleasedInstanceId "UNRELEASED_INSTANCE_ID", "The static member's previous holder has not left yet.";
    112 UnsupportedAssignor "UNSUPPORTED_ASSIGNOR", "The group does not support that assignor.";
    113 StaleMemberEpoch "STALE_MEMBER_EPOCH", "The member's epoch is outdated.";
    114 MismatchedEndpointType "MISMATCHED_ENDPOINT_TYPE", "The request reached the wrong kind of endpoint.";
    115 UnsupportedEndpointType "UNSUPPORTED_ENDPOINT_TYPE", "That kind of endpoint is not supported.";
    116 UnknownControllerId "UNKNOWN_CONTROLLER_ID", "No such controller.";
    117 UnknownSubscriptionId "UNKNOWN_SUBSCRIPTION_ID", "The telemetry subscription is unknown or outdated.";
    118 TelemetryTooLarge "TELEMETRY_TOO_LARGE", "The telemetry is larger than the broker accepts.";
    119 InvalidRegistration "INVALID_REGISTRATION", "The broker's registration is not valid.";
    120 TransactionAbortable "TRANSACTION_ABORTABLE", "The transaction must be aborted; the producer may go on.";
    121 InvalidRecordState "INVALID_RECORD_STATE", "The records are not in a state to be acknowledged.";
    122 ShareSessionNotFound "SHARE_SESSION_NOT_FOUND", "No such share session.", retriable;
    123 InvalidShareSessionEpoch "INVALID_SHARE_SESSION_EPOCH", "The share session is at another epoch.", retriable;
    124 FencedStateEpoch "FENCED_STATE_EPOCH", "The share group's state is at another epoch.";
    125 InvalidVoterKey "INVALID_VOTER_KEY", "The voter's key is another.";
    126 DuplicateVoter "DUPLICATE_VOTER", "The voter is already one.";
    127 VoterNotFound "VOTER_NOT_FOUND", "No such voter.";
    128 InvalidRegularExpression "INVALID_REGULAR_EXPRESSION", "The regular expression is not valid.";
    129 RebootstrapRequired "REBOOTSTRAP_REQUIRED", "The client's metadata is outdated; it must start over from its bootstrap servers.";
    130 StreamsInvalidTopology "STREAMS_INVALID_TOPOLOGY", "The topology is not valid.";
    131 StreamsInvalidTopologyEpoch "STREAMS_INVALID_TOPOLOGY_EPOCH", "The topology's epoch is not valid.";
    132 StreamsTopologyFenced "STREAMS_TOPOLOGY_FENCED", "The topology's epoch is outdated.";
    133 ShareSessionLimitReached "SHARE_SESSION_LIMIT_REACHED", "There are too many share sessions.", retriable;
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Whether it is `NONE`.
    pub const fn is_none(self) -> bool {
        matches!(self, ErrorCode::None)
    }
}

impl From<ErrorCode> for i16 {
    fn from(error: ErrorCode) -> i16 {
        error.code()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_run_without_gaps_and_lead_back() {
        assert_eq!(ErrorCode::ALL.len(), 135);
        for (index, error) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(error.code(), index as i16 - 1);
            assert_eq!(ErrorCode::from_code(error.code()), Some(*error));
        }
        assert_eq!(ErrorCode::from_code(-2), None);
        assert_eq!(ErrorCode::from_code(134), None);
    }

    #[test]
    fn names_are_those_of_kafka() {
        for (code, name, retriable) in [
            (-1, "UNKNOWN_SERVER_ERROR", false),
            (0, "NONE", false),
            (3, "UNKNOWN_TOPIC_OR_PARTITION", true),
            (6, "NOT_LEADER_OR_FOLLOWER", true),
            (17, "INVALID_TOPIC_EXCEPTION", false),
            (27, "REBALANCE_IN_PROGRESS", false),
            (45, "OUT_OF_ORDER_SEQUENCE_NUMBER", false),
            (53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", false),
            (56, "KAFKA_STORAGE_ERROR", true),
            (71, "INVALID_FETCH_SESSION_EPOCH", true),
            (79, "MEMBER_ID_REQUIRED", false),
            (87, "INVALID_RECORD", false),
            (100, "UNKNOWN_TOPIC_ID", true),
            (133, "SHARE_SESSION_LIMIT_REACHED", true),
        ] {
            let error = ErrorCode::from_code(code).expect("a known code");
            assert_eq!(error.name(), name);
            assert_eq!(error.retriable(), retriable, "{name}");
        }
    }
}
