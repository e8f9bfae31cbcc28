//! The APIs of the Kafka protocol that are served, with their versions. Lives on any core; knows no
//! message.

use crate::wire::Context;

/// What is known of one API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    /// The API.
    pub key: ApiKey,
    /// The oldest version that ApiVersions tells of.
    pub advertised_min: i16,
    /// The oldest version that is served. Only Produce advertises older ones, as Kafka does
    /// (KAFKA-18659): some clients take their absence for the absence of other features.
    pub served_min: i16,
    /// The newest version, advertised and served.
    pub max: i16,
    /// The first version with compact lengths and tagged fields (KIP-482); above `max` if none.
    pub flexible_min: i16,
}

/// For an API that has no flexible version.
const NEVER: i16 = i16::MAX;

macro_rules! apis {
    ($($name:ident = $key:literal, advertised $advertised:literal, served $min:literal to $max:literal, flexible $flexible:expr;)*) => {
        /// An API, by its key on the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i16)]
        pub enum ApiKey {
            $(
                #[doc = concat!(stringify!($name), ", served in versions ", $min, " to ", $max, ".")]
                $name = $key,
            )*
        }

        /// Every API that is served, in the order of the keys.
        pub const SUPPORTED: &[Api] = &[$(Api {
            key: ApiKey::$name,
            advertised_min: $advertised,
            served_min: $min,
            max: $max,
            flexible_min: $flexible,
        }),*];

        impl ApiKey {
            /// What is known of this API.
            pub const fn api(self) -> Api {
                match self {
                    $(ApiKey::$name => Api {
                        key: self,
                        advertised_min: $advertised,
                        served_min: $min,
                        max: $max,
                        flexible_min: $flexible,
                    },)*
                }
            }

            /// The name that Kafka gives it, like `ListOffsets`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(ApiKey::$name => stringify!($name),)*
                }
            }
        }

        impl TryFrom<i16> for ApiKey {
            type Error = i16;
            fn try_from(key: i16) -> Result<ApiKey, i16> {
                match key {
                    $($key => Ok(ApiKey::$name),)*
                    other => Err(other),
                }
            }
        }
    };
}

apis! {
    Produce = 0, advertised 0, served 3 to 13, flexible 9;
    Fetch = 1, advertised 4, served 4 to 18, flexible 12;
    ListOffsets = 2, advertised 1, served 1 to 11, flexible 6;
    Metadata = 3, advertised 0, served 0 to 13, flexible 9;
    OffsetCommit = 8, advertised 2, served 2 to 10, flexible 8;
    OffsetFetch = 9, advertised 1, served 1 to 10, flexible 6;
    FindCoordinator = 10, advertised 0, served 0 to 6, flexible 3;
    JoinGroup = 11, advertised 0, served 0 to 9, flexible 6;
    Heartbeat = 12, advertised 0, served 0 to 4, flexible 4;
    LeaveGroup = 13, advertised 0, served 0 to 5, flexible 4;
    SyncGroup = 14, advertised 0, served 0 to 5, flexible 4;
    DescribeGroups = 15, advertised 0, served 0 to 6, flexible 5;
    ListGroups = 16, advertised 0, served 0 to 5, flexible 3;
    ApiVersions = 18, advertised 0, served 0 to 4, flexible 3;
    CreateTopics = 19, advertised 2, served 2 to 7, flexible 5;
    DeleteTopics = 20, advertised 1, served 1 to 6, flexible 4;
    DeleteRecords = 21, advertised 0, served 0 to 2, flexible 2;
    InitProducerId = 22, advertised 0, served 0 to 5, flexible 2;
    OffsetForLeaderEpoch = 23, advertised 2, served 2 to 4, flexible 4;
    DescribeConfigs = 32, advertised 1, served 1 to 4, flexible 4;
    AlterConfigs = 33, advertised 0, served 0 to 2, flexible 2;
    DescribeLogDirs = 35, advertised 1, served 1 to 5, flexible 2;
    CreatePartitions = 37, advertised 0, served 0 to 3, flexible 2;
    DeleteGroups = 42, advertised 0, served 0 to 2, flexible 2;
    IncrementalAlterConfigs = 44, advertised 0, served 0 to 1, flexible 1;
    OffsetDelete = 47, advertised 0, served 0 to 0, flexible NEVER;
    DescribeCluster = 60, advertised 0, served 0 to 2, flexible 0;
    DescribeProducers = 61, advertised 0, served 0 to 0, flexible 0;
    ListConfigResources = 74, advertised 0, served 0 to 1, flexible 0;
    DescribeTopicPartitions = 75, advertised 0, served 0 to 0, flexible 0;
}

impl ApiKey {
    /// Whether requests of that version are served.
    pub const fn serves(self, version: i16) -> bool {
        let api = self.api();
        api.served_min <= version && version <= api.max
    }

    /// Whether that version has compact lengths and tagged fields (KIP-482).
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.api().flexible_min
    }

    pub(crate) const fn context(self, version: i16) -> Context {
        Context {
            version,
            flexible: self.is_flexible(version),
            nullable: false,
        }
    }
}
