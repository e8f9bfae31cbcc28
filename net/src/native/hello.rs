//! The bodies of negotiation, version 0 of the protocol, which never change: a client says what it
//! speaks, the broker chooses or refuses. Plain data; knows no connection.

use rkyv::{Archive, Deserialize, Serialize};

use super::{VERSION_MAX, VERSION_MIN};

/// Subscriptions are served.
pub const FEATURE_SUBSCRIBE: u64 = 1;

/// As long as the connection is open, the core that serves it looks for work for a while before it sleeps.
pub const FEATURE_IDLE_POLL: u64 = 2;

/// Everything that this code does beside the messages that each version has.
pub const FEATURES: u64 = FEATURE_SUBSCRIBE | FEATURE_IDLE_POLL;

/// What a client speaks: the first frame on a connection.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Hello {
    /// The client's name and version, for the broker's log; UTF-8.
    pub software: Vec<u8>,
    /// Features that it would use, as bits; unknown ones are ignored.
    pub features: u64,
    /// The oldest version that it speaks.
    pub version_min: u8,
    /// The newest version that it speaks.
    pub version_max: u8,
}

/// What the broker makes of it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct HelloAnswer {
    /// The id of the cluster; UTF-8.
    pub cluster_id: Vec<u8>,
    /// With an error, a sentence that names both ranges; UTF-8.
    pub message: Vec<u8>,
    /// Features that both have, as bits.
    pub features: u64,
    /// The broker's id.
    pub node_id: i32,
    /// The largest frame that the broker takes, in bytes.
    pub frame_bytes_max: u32,
    /// 0, or UNSUPPORTED_VERSION (35): then the connection closes.
    pub error: i16,
    /// The version that every later frame has; 0 with an error.
    pub version: u8,
    /// The oldest version that the broker speaks.
    pub version_min: u8,
    /// The newest version that the broker speaks.
    pub version_max: u8,
}

/// Instead of an answer: why a frame cannot be understood. The connection closes behind it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Refusal {
    /// A sentence for whoever writes the client; UTF-8.
    pub message: Vec<u8>,
    /// A code of Kafka's.
    pub error: i16,
}

/// The newest version that both sides speak, if there is one.
pub fn choose_version(client_min: u8, client_max: u8) -> Option<u8> {
    let newest = client_max.min(VERSION_MAX);
    (newest >= client_min.max(VERSION_MIN)).then_some(newest)
}
