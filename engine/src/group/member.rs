//! A member of a classic group: what it said when it joined, what it was given, and which of its calls
//! wait for an answer. Knows nothing of the other members.

use std::rc::Rc;

use super::call::{DescribedMember, JoinedMember, ReplyToken};
use super::records::MemberValue;
use super::timers::Alarm;

/// One member.
#[derive(Debug)]
pub(crate) struct Member {
    pub id: Rc<str>,
    /// `group.instance.id` of a static member (KIP-345).
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// Names and metadata, the best first.
    pub protocols: Vec<(String, Vec<u8>)>,
    pub assignment: Vec<u8>,
    pub awaiting_join: Option<ReplyToken>,
    pub awaiting_sync: Option<ReplyToken>,
    /// Never told that it is a member; its parked join does not keep it alive for ever.
    pub is_new: bool,
    pub session: Alarm,
}

impl Member {
    pub(crate) fn from_record(value: MemberValue, protocol: Option<&str>) -> Member {
        Member {
            id: value.member_id.into(),
            instance_id: value.instance_id,
            client_id: value.client_id,
            client_host: value.client_host,
            rebalance_timeout_ms: match value.rebalance_timeout_ms {
                -1 => value.session_timeout_ms,
                rebalance_timeout_ms => rebalance_timeout_ms,
            },
            session_timeout_ms: value.session_timeout_ms,
            protocols: vec![(protocol.unwrap_or_default().to_owned(), value.subscription)],
            assignment: value.assignment,
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
            session: Alarm::default(),
        }
    }

    pub(crate) fn to_record(&self, protocol: &str) -> MemberValue {
        MemberValue {
            member_id: self.id.to_string(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            subscription: self.metadata(protocol).to_vec(),
            assignment: self.assignment.clone(),
        }
    }

    pub(crate) fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// What the member said for a protocol; nothing for one that it does not support.
    pub(crate) fn metadata(&self, protocol: &str) -> &[u8] {
        self.protocols
            .iter()
            .find(|(name, _)| name == protocol)
            .map_or(&[], |(_, metadata)| metadata)
    }

    /// A member that waits in a rebalance is alive, unless it is one that nobody told of yet.
    pub(crate) fn is_alive_without_heartbeat(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    pub(crate) fn joined(&self, protocol: &str) -> JoinedMember {
        JoinedMember {
            member_id: self.id.to_string(),
            instance_id: self.instance_id.clone(),
            metadata: self.metadata(protocol).to_vec(),
        }
    }

    pub(crate) fn described(&self, protocol: Option<&str>) -> DescribedMember {
        DescribedMember {
            member_id: self.id.to_string(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            metadata: protocol.map_or(Vec::new(), |name| self.metadata(name).to_vec()),
            assignment: self.assignment.clone(),
        }
    }
}
