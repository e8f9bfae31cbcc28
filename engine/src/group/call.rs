//! What is asked of a group's coordinator and what it answers: owned values that may cross cores.
//! They know neither the wire's versions, but for the few that change a rule, nor the machine.

use storage::types::TopicId;

/// Names a call until its answer is there; chosen by the caller, unique on its core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyToken(pub u64);

/// The errors of the group APIs, with Kafka's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum GroupError {
    /// UNKNOWN_SERVER_ERROR: what was asked cannot be stored.
    UnknownServerError = -1,
    /// NONE.
    #[default]
    None = 0,
    /// UNKNOWN_TOPIC_OR_PARTITION.
    UnknownTopicOrPartition = 3,
    /// OFFSET_METADATA_TOO_LARGE.
    OffsetMetadataTooLarge = 12,
    /// COORDINATOR_LOAD_IN_PROGRESS: the group's partition is being replayed.
    CoordinatorLoadInProgress = 14,
    /// COORDINATOR_NOT_AVAILABLE: what was asked could not be stored just now.
    CoordinatorNotAvailable = 15,
    /// NOT_COORDINATOR: the group's partition is not served here.
    NotCoordinator = 16,
    /// ILLEGAL_GENERATION.
    IllegalGeneration = 22,
    /// INCONSISTENT_GROUP_PROTOCOL.
    InconsistentGroupProtocol = 23,
    /// INVALID_GROUP_ID.
    InvalidGroupId = 24,
    /// UNKNOWN_MEMBER_ID.
    UnknownMemberId = 25,
    /// INVALID_SESSION_TIMEOUT.
    InvalidSessionTimeout = 26,
    /// REBALANCE_IN_PROGRESS.
    RebalanceInProgress = 27,
    /// NON_EMPTY_GROUP.
    NonEmptyGroup = 68,
    /// GROUP_ID_NOT_FOUND.
    GroupIdNotFound = 69,
    /// MEMBER_ID_REQUIRED (KIP-394).
    MemberIdRequired = 79,
    /// GROUP_MAX_SIZE_REACHED (KIP-389).
    GroupMaxSizeReached = 81,
    /// FENCED_INSTANCE_ID (KIP-345).
    FencedInstanceId = 82,
    /// GROUP_SUBSCRIBED_TO_TOPIC (KIP-496).
    GroupSubscribedToTopic = 86,
    /// UNKNOWN_TOPIC_ID.
    UnknownTopicId = 100,
}

impl GroupError {
    /// Kafka's number.
    pub fn code(self) -> i16 {
        self as i16
    }
}

/// A question to the core that owns a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupCall {
    /// JoinGroup.
    Join(JoinCall),
    /// SyncGroup.
    Sync(SyncCall),
    /// Heartbeat.
    Heartbeat(HeartbeatCall),
    /// LeaveGroup.
    Leave(LeaveCall),
    /// OffsetCommit.
    Commit(CommitCall),
    /// OffsetFetch, of one group.
    FetchOffsets(FetchOffsetsCall),
    /// OffsetDelete.
    DeleteOffsets(DeleteOffsetsCall),
    /// DescribeGroups, of one group.
    Describe(DescribeCall),
    /// ListGroups: what this core has. Every core is to be asked.
    List(ListCall),
    /// DeleteGroups, of one group.
    Delete(DeleteGroupCall),
}

/// JoinGroup of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinCall {
    /// From 4 a new dynamic member must come again with the id it is given (KIP-394); from 9 a
    /// returning static leader is told to skip the assignment (KIP-814).
    pub api_version: i16,
    /// The group.
    pub group_id: String,
    /// Empty for a member without an id.
    pub member_id: String,
    /// `group.instance.id` of a static member (KIP-345).
    pub instance_id: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// The client's address as Kafka prints it: `/127.0.0.1`.
    pub client_host: String,
    /// Without a heartbeat for so long the member is out.
    pub session_timeout_ms: i32,
    /// So long a rebalance waits for the member to join (KIP-62); version 0 has the session timeout here.
    pub rebalance_timeout_ms: i32,
    /// `consumer`, `connect` ...
    pub protocol_type: String,
    /// What it can do, the best first: names and metadata.
    pub protocols: Vec<(String, Vec<u8>)>,
}

/// SyncGroup of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncCall {
    /// The group.
    pub group_id: String,
    /// The generation that the join told.
    pub generation: i32,
    /// The member.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// What the member takes the protocol type to be; `None` before version 5 (KIP-559).
    pub protocol_type: Option<String>,
    /// What the member takes the protocol to be; `None` before version 5.
    pub protocol_name: Option<String>,
    /// From the leader: each member's assignment.
    pub assignments: Vec<(String, Vec<u8>)>,
}

/// Heartbeat of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatCall {
    /// The group.
    pub group_id: String,
    /// The generation that the member is in.
    pub generation: i32,
    /// The member.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
}

/// LeaveGroup of one or more members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaveCall {
    /// The group.
    pub group_id: String,
    /// Who leaves.
    pub members: Vec<LeavingMember>,
}

/// One member that leaves or is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeavingMember {
    /// Its id; empty where an administrator names it by its instance.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
}

/// OffsetCommit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitCall {
    /// From 9 an unknown group is GROUP_ID_NOT_FOUND, before ILLEGAL_GENERATION.
    pub api_version: i16,
    /// The group.
    pub group_id: String,
    /// The member's generation; -1 without membership.
    pub generation: i32,
    /// The member; empty without membership.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// How long to keep the offsets, in milliseconds; -1 for the broker's own time.
    pub retention_ms: i64,
    /// The offsets; only of partitions that exist.
    pub topics: Vec<CommitTopic>,
}

/// Offsets of one topic to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitTopic {
    /// Its name.
    pub topic: String,
    /// Its id.
    pub topic_id: TopicId,
    /// The offsets.
    pub partitions: Vec<CommitPartition>,
}

/// An offset to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPartition {
    /// The partition's index.
    pub partition: i32,
    /// The next record to read.
    pub offset: i64,
    /// Leader epoch of the last record read; -1: not known (KIP-320).
    pub leader_epoch: i32,
    /// Whatever the client wants to keep; bounded by `offset.metadata.max.bytes`.
    pub metadata: Option<String>,
}

/// OffsetFetch of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchOffsetsCall {
    /// The group.
    pub group_id: String,
    /// What to tell; `None`: everything there is.
    pub topics: Option<Vec<FetchTopic>>,
}

/// Partitions of one topic whose offsets are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchTopic {
    /// Its name.
    pub topic: String,
    /// Its id; nil: any. An offset committed for another id is not told.
    pub topic_id: TopicId,
    /// The partitions.
    pub partitions: Vec<i32>,
}

/// OffsetDelete of one group (KIP-496).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteOffsetsCall {
    /// The group.
    pub group_id: String,
    /// Topics and partitions; only of those that exist.
    pub topics: Vec<(String, Vec<i32>)>,
}

/// DescribeGroups of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeCall {
    /// From 6 an unknown group is an error.
    pub api_version: i16,
    /// The group.
    pub group_id: String,
}

/// ListGroups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListCall {
    /// Only groups in one of these states, in any case; empty: all (KIP-518).
    pub states: Vec<String>,
    /// Only groups of one of these types, in any case; empty: all (KIP-848).
    pub types: Vec<String>,
}

/// DeleteGroups of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteGroupCall {
    /// The group.
    pub group_id: String,
}

/// The answer to a [`GroupCall`], of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupAnswer {
    /// JoinGroup.
    Join(JoinAnswer),
    /// SyncGroup.
    Sync(SyncAnswer),
    /// Heartbeat.
    Heartbeat(GroupError),
    /// LeaveGroup.
    Leave {
        /// Of the whole call.
        error: GroupError,
        /// Of each member, in the order of the call.
        members: Vec<(LeavingMember, GroupError)>,
    },
    /// OffsetCommit.
    Commit {
        /// Of the whole call; else look at the partitions.
        error: GroupError,
        /// Of each topic's partitions, in the order of the call.
        topics: Vec<Vec<GroupError>>,
    },
    /// OffsetFetch.
    FetchOffsets {
        /// Of the whole group.
        error: GroupError,
        /// In the order of the call; of everything, by name.
        topics: Vec<FetchedTopic>,
    },
    /// OffsetDelete.
    DeleteOffsets {
        /// Of the whole call; else look at the partitions.
        error: GroupError,
        /// Of each topic's partitions, in the order of the call.
        topics: Vec<Vec<GroupError>>,
    },
    /// DescribeGroups.
    Describe(DescribeAnswer),
    /// ListGroups.
    List {
        /// Of the whole call.
        error: GroupError,
        /// What this core has.
        groups: Vec<ListedGroup>,
    },
    /// DeleteGroups.
    Delete(GroupError),
}

/// What a join comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinAnswer {
    /// Why not.
    pub error: GroupError,
    /// The new generation, -1 with an error.
    pub generation: i32,
    /// The group's protocol type.
    pub protocol_type: Option<String>,
    /// The chosen protocol.
    pub protocol_name: Option<String>,
    /// The leader's member id.
    pub leader: String,
    /// To a returning static leader: the assignment stands (KIP-814).
    pub skip_assignment: bool,
    /// The member's id.
    pub member_id: String,
    /// To the leader: all members.
    pub members: Vec<JoinedMember>,
}

impl JoinAnswer {
    /// A refusal.
    pub fn error(error: GroupError, member_id: &str) -> JoinAnswer {
        JoinAnswer {
            error,
            generation: -1,
            protocol_type: None,
            protocol_name: None,
            leader: String::new(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members: Vec::new(),
        }
    }
}

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// What it said for the chosen protocol.
    pub metadata: Vec<u8>,
}

/// What a sync comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncAnswer {
    /// Why not.
    pub error: GroupError,
    /// The group's protocol type.
    pub protocol_type: Option<String>,
    /// The chosen protocol.
    pub protocol_name: Option<String>,
    /// The member's assignment.
    pub assignment: Vec<u8>,
}

impl SyncAnswer {
    /// A refusal.
    pub fn error(error: GroupError) -> SyncAnswer {
        SyncAnswer {
            error,
            protocol_type: None,
            protocol_name: None,
            assignment: Vec::new(),
        }
    }
}

/// Committed offsets of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedTopic {
    /// Its name.
    pub topic: String,
    /// Its id as the call named it; nil where everything was asked for.
    pub topic_id: TopicId,
    /// The offsets.
    pub partitions: Vec<FetchedOffset>,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffset {
    /// The partition's index.
    pub partition: i32,
    /// The offset; -1: none is committed.
    pub offset: i64,
    /// Its leader epoch; -1: not known.
    pub leader_epoch: i32,
    /// What the client wanted to keep.
    pub metadata: String,
}

/// A group as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeAnswer {
    /// Why not.
    pub error: GroupError,
    /// The state's name; `Dead` for an unknown group.
    pub state: &'static str,
    /// The protocol type; empty where none joined yet.
    pub protocol_type: String,
    /// The chosen protocol of a stable group; else empty.
    pub protocol: String,
    /// The members.
    pub members: Vec<DescribedMember>,
}

/// A member as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// Its id.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// Where it connected from.
    pub client_host: String,
    /// In a stable group what it said for the chosen protocol.
    pub metadata: Vec<u8>,
    /// Its assignment.
    pub assignment: Vec<u8>,
}

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its id.
    pub group_id: String,
    /// Its protocol type; empty where none joined yet.
    pub protocol_type: String,
    /// The state's name.
    pub state: &'static str,
    /// The type's name: `classic`.
    pub group_type: &'static str,
}

impl GroupCall {
    /// The group that decides which core is asked; `None`: every core.
    pub fn group_id(&self) -> Option<&str> {
        match self {
            GroupCall::Join(call) => Some(&call.group_id),
            GroupCall::Sync(call) => Some(&call.group_id),
            GroupCall::Heartbeat(call) => Some(&call.group_id),
            GroupCall::Leave(call) => Some(&call.group_id),
            GroupCall::Commit(call) => Some(&call.group_id),
            GroupCall::FetchOffsets(call) => Some(&call.group_id),
            GroupCall::DeleteOffsets(call) => Some(&call.group_id),
            GroupCall::Describe(call) => Some(&call.group_id),
            GroupCall::List(_) => None,
            GroupCall::Delete(call) => Some(&call.group_id),
        }
    }

    /// The answer when the call could not be served at all.
    pub fn refusal(&self, error: GroupError) -> GroupAnswer {
        match self {
            GroupCall::Join(call) => GroupAnswer::Join(JoinAnswer::error(error, &call.member_id)),
            GroupCall::Sync(_) => GroupAnswer::Sync(SyncAnswer::error(error)),
            GroupCall::Heartbeat(_) => GroupAnswer::Heartbeat(error),
            GroupCall::Leave(_) => GroupAnswer::Leave {
                error,
                members: Vec::new(),
            },
            GroupCall::Commit(_) => GroupAnswer::Commit {
                error,
                topics: Vec::new(),
            },
            GroupCall::FetchOffsets(_) => GroupAnswer::FetchOffsets {
                error,
                topics: Vec::new(),
            },
            GroupCall::DeleteOffsets(_) => GroupAnswer::DeleteOffsets {
                error,
                topics: Vec::new(),
            },
            GroupCall::Describe(_) => GroupAnswer::Describe(DescribeAnswer::error(error)),
            GroupCall::List(_) => GroupAnswer::List {
                error,
                groups: Vec::new(),
            },
            GroupCall::Delete(_) => GroupAnswer::Delete(error),
        }
    }

    /// Whether every text fits a record of the offsets topic, whose lengths are two bytes wide; a
    /// member id is made of the client id or the instance id.
    pub(crate) fn fits_records(&self) -> bool {
        const ID_SUFFIX_BYTES: usize = 37;
        let fits = |text: &str| text.len() + ID_SUFFIX_BYTES <= i16::MAX as usize;
        match self {
            GroupCall::Join(call) => {
                fits(&call.group_id)
                    && fits(&call.member_id)
                    && fits(&call.client_id)
                    && fits(&call.protocol_type)
                    && call.instance_id.as_deref().is_none_or(fits)
                    && call.protocols.iter().all(|(name, _)| fits(name))
            }
            GroupCall::Commit(call) => {
                fits(&call.group_id)
                    && call.topics.iter().all(|topic| {
                        fits(&topic.topic)
                            && topic
                                .partitions
                                .iter()
                                .all(|partition| partition.metadata.as_deref().is_none_or(fits))
                    })
            }
            // The others write only about what exists.
            _ => true,
        }
    }
}

impl GroupAnswer {
    /// The answer to the same call when what it says could not be stored.
    pub(crate) fn failed(self, error: GroupError) -> GroupAnswer {
        match self {
            GroupAnswer::Join(answer) => {
                GroupAnswer::Join(JoinAnswer::error(error, &answer.member_id))
            }
            GroupAnswer::Sync(_) => GroupAnswer::Sync(SyncAnswer::error(error)),
            GroupAnswer::Heartbeat(_) => GroupAnswer::Heartbeat(error),
            GroupAnswer::Leave { .. } => GroupAnswer::Leave {
                error,
                members: Vec::new(),
            },
            GroupAnswer::Commit { .. } => GroupAnswer::Commit {
                error,
                topics: Vec::new(),
            },
            GroupAnswer::FetchOffsets { .. } => GroupAnswer::FetchOffsets {
                error,
                topics: Vec::new(),
            },
            GroupAnswer::DeleteOffsets { .. } => GroupAnswer::DeleteOffsets {
                error,
                topics: Vec::new(),
            },
            GroupAnswer::Describe(_) => GroupAnswer::Describe(DescribeAnswer::error(error)),
            GroupAnswer::List { .. } => GroupAnswer::List {
                error,
                groups: Vec::new(),
            },
            GroupAnswer::Delete(_) => GroupAnswer::Delete(error),
        }
    }
}

impl DescribeAnswer {
    /// A refusal.
    pub fn error(error: GroupError) -> DescribeAnswer {
        DescribeAnswer {
            error,
            state: "",
            protocol_type: String::new(),
            protocol: String::new(),
            members: Vec::new(),
        }
    }
}
