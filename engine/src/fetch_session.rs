//! Incremental fetch sessions (KIP-227): which partitions a consumer reads, and what it was last told,
//! so that requests and answers carry only changes. Lives on the core that made the session; a client
//! that comes back on another core is told that its session is unknown, and starts a new one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use net::kafka::error::ErrorCode;
use storage::types::{PartitionIndex, TopicId};

use crate::ids::OwnMap;

/// A session that was used within this time is not evicted for a new one, in microseconds (Kafka's
/// `min.incremental.fetch.session.eviction.ms`).
const EVICTION_AGE_US: u64 = 120_000_000;

/// A partition as the client names it: by name up to Fetch 12, by topic id from 13.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// The topic's name; empty when it is named by id.
    pub topic: Arc<str>,
    /// The topic's id; nil when it is named by name.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
}

/// What the client wants of a partition, and what it was last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionPartition {
    /// From where.
    pub fetch_offset: i64,
    /// How much, in bytes.
    pub bytes_max: i32,
    /// The leader epoch that the client knows; -1: none.
    pub current_leader_epoch: i32,
    /// The epoch of its last record; -1: none.
    pub last_fetched_epoch: i32,
    /// The high watermark it was told; `None`: nothing yet.
    pub told_high_watermark: Option<i64>,
    /// The log start offset it was told.
    pub told_log_start_offset: Option<i64>,
}

/// A consumer's session.
#[derive(Debug)]
struct Session {
    epoch: i32,
    by_id: bool,
    used_us: u64,
    order: Vec<SessionKey>,
    partitions: HashMap<SessionKey, SessionPartition>,
    /// Which of them bring records in the answer that is being made.
    brought: HashSet<SessionKey>,
}

/// The sessions of one core.
#[derive(Debug)]
pub struct FetchSessions {
    sessions: OwnMap<i32, Session>,
    sessions_max: usize,
    core: u16,
    cores: u16,
    next: u32,
}

/// What a request means for its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionPlan {
    /// No session: answer everything.
    Sessionless,
    /// A new session: answer everything, with this id.
    New(i32),
    /// The next step of this session: answer what changed.
    Incremental(i32),
}

impl SessionPlan {
    /// The id that the answer carries.
    pub fn id(self) -> i32 {
        match self {
            SessionPlan::Sessionless => 0,
            SessionPlan::New(id) | SessionPlan::Incremental(id) => id,
        }
    }
}

impl FetchSessions {
    /// No sessions yet, and room for `sessions_max`.
    pub fn new(core: u16, cores: u16, sessions_max: usize) -> FetchSessions {
        FetchSessions {
            sessions: OwnMap::default(),
            sessions_max,
            core,
            cores,
            next: 0,
        }
    }

    /// Forgets a session.
    pub fn close(&mut self, id: i32) {
        self.sessions.remove(&id);
    }

    /// Makes a session over `partitions`, or none where all places are taken by sessions in use.
    pub fn open(
        &mut self,
        now_us: u64,
        by_id: bool,
        partitions: Vec<(SessionKey, SessionPartition)>,
    ) -> SessionPlan {
        if self.sessions.len() >= self.sessions_max {
            let oldest = self
                .sessions
                .iter()
                .min_by_key(|(_, session)| session.used_us)
                .map(|(id, session)| (*id, session.used_us));
            match oldest {
                Some((id, used_us)) if now_us.saturating_sub(used_us) >= EVICTION_AGE_US => {
                    self.sessions.remove(&id);
                }
                _ => return SessionPlan::Sessionless,
            }
        }
        let id = self.new_id();
        let order = partitions.iter().map(|(key, _)| key.clone()).collect();
        let session = Session {
            epoch: 1,
            by_id,
            used_us: now_us,
            order,
            partitions: partitions.into_iter().collect(),
            brought: HashSet::new(),
        };
        self.sessions.insert(id, session);
        SessionPlan::New(id)
    }

    /// An id that no session of any core has: ids of a core are its number modulo the core count.
    fn new_id(&mut self) -> i32 {
        loop {
            self.next = self.next.wrapping_add(1);
            let spread = u64::from(self.next) * u64::from(self.cores) + u64::from(self.core);
            let id = (spread & 0x7FFF_FFFF) as i32;
            if id != 0 && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }

    /// Takes the next step of a session: what the client changed, and what it forgets. Gives all its
    /// partitions in order.
    ///
    /// # Errors
    /// Kafka's codes for an unknown session, a wrong epoch, and a change between names and ids.
    pub fn step(
        &mut self,
        now_us: u64,
        id: i32,
        epoch: i32,
        by_id: bool,
        changed: Vec<(SessionKey, SessionPartition)>,
        forgotten: &[SessionKey],
    ) -> Result<Vec<(SessionKey, SessionPartition)>, ErrorCode> {
        let Some(session) = self.sessions.get_mut(&id) else {
            return Err(ErrorCode::FetchSessionIdNotFound);
        };
        if session.epoch != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_id != by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        session.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        session.used_us = now_us;
        for (key, wanted) in changed {
            match session.partitions.get_mut(&key) {
                Some(known) => {
                    *known = SessionPartition {
                        told_high_watermark: known.told_high_watermark,
                        told_log_start_offset: known.told_log_start_offset,
                        ..wanted
                    };
                }
                None => {
                    session.order.push(key.clone());
                    session.partitions.insert(key, wanted);
                }
            }
        }
        for key in forgotten {
            session.partitions.remove(key);
        }
        if !forgotten.is_empty() {
            let partitions = &session.partitions;
            session.order.retain(|key| partitions.contains_key(key));
        }
        Ok(session
            .order
            .iter()
            .filter_map(|key| Some((key.clone(), *session.partitions.get(key)?)))
            .collect())
    }

    /// Notes what the client is told of a partition, and says whether it must be: it brings records,
    /// an error, or numbers that changed.
    pub fn tell(
        &mut self,
        id: i32,
        key: &SessionKey,
        failed: bool,
        has_records: bool,
        high_watermark: i64,
        log_start_offset: i64,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else {
            return true;
        };
        let Some(known) = session.partitions.get_mut(key) else {
            return true;
        };
        if failed {
            // Told again each time, and everything anew after it.
            known.told_high_watermark = None;
            known.told_log_start_offset = None;
            return true;
        }
        let changed = known.told_high_watermark != Some(high_watermark)
            || known.told_log_start_offset != Some(log_start_offset);
        known.told_high_watermark = Some(high_watermark);
        known.told_log_start_offset = Some(log_start_offset);
        if has_records {
            session.brought.insert(key.clone());
        }
        changed || has_records
    }

    /// Ends an answer. Fair over time: partitions that brought records go to the end.
    pub fn told(&mut self, id: i32) {
        if let Some(session) = self.sessions.get_mut(&id)
            && !session.brought.is_empty()
        {
            let brought = std::mem::take(&mut session.brought);
            let (last, mut first): (Vec<SessionKey>, Vec<SessionKey>) =
                std::mem::take(&mut session.order)
                    .into_iter()
                    .partition(|key| brought.contains(key));
            first.extend(last);
            session.order = first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> SessionKey {
        SessionKey {
            topic: Arc::from("t"),
            topic_id: TopicId::nil(),
            partition,
        }
    }

    fn wanted(fetch_offset: i64) -> SessionPartition {
        SessionPartition {
            fetch_offset,
            bytes_max: 100,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            told_high_watermark: None,
            told_log_start_offset: None,
        }
    }

    fn open(sessions: &mut FetchSessions, now_us: u64) -> SessionPlan {
        sessions.open(
            now_us,
            false,
            vec![(key(0), wanted(0)), (key(1), wanted(0))],
        )
    }

    #[test]
    fn steps_count_and_carry_changes() {
        let mut sessions = FetchSessions::new(0, 1, 10);
        let id = open(&mut sessions, 0).id();
        assert_ne!(id, 0);
        let step = sessions.step(1, id, 1, false, vec![(key(1), wanted(7))], &[key(0)]);
        assert_eq!(step, Ok(vec![(key(1), wanted(7))]));
        let again = sessions.step(2, id, 1, false, vec![], &[]);
        assert_eq!(again, Err(ErrorCode::InvalidFetchSessionEpoch));
        let by_id = sessions.step(2, id, 2, true, vec![], &[]);
        assert_eq!(by_id, Err(ErrorCode::FetchSessionTopicIdError));
        let unknown = sessions.step(2, id + 1, 2, false, vec![], &[]);
        assert_eq!(unknown, Err(ErrorCode::FetchSessionIdNotFound));
    }

    #[test]
    fn only_news_are_told() {
        let mut sessions = FetchSessions::new(0, 1, 10);
        let id = open(&mut sessions, 0).id();
        assert!(sessions.tell(id, &key(0), false, false, 5, 0));
        assert!(!sessions.tell(id, &key(0), false, false, 5, 0));
        assert!(sessions.tell(id, &key(0), false, false, 6, 0));
        assert!(sessions.tell(id, &key(0), false, true, 6, 0));
        assert!(sessions.tell(id, &key(0), false, false, 6, 1));
        assert!(sessions.tell(id, &key(0), true, false, -1, -1));
        assert!(sessions.tell(id, &key(0), true, false, -1, -1));
    }

    #[test]
    fn a_partition_that_brought_records_goes_to_the_end() {
        let mut sessions = FetchSessions::new(0, 1, 10);
        let id = open(&mut sessions, 0).id();
        sessions.tell(id, &key(0), false, true, 5, 0);
        sessions.tell(id, &key(1), false, false, 5, 0);
        sessions.told(id);
        let step = sessions.step(1, id, 1, false, vec![], &[]).expect("a step");
        let order: Vec<i32> = step.iter().map(|(key, _)| key.partition).collect();
        assert_eq!(order, [1, 0]);
    }

    #[test]
    fn full_means_sessionless_until_one_is_old() {
        let mut sessions = FetchSessions::new(1, 2, 1);
        let first = open(&mut sessions, 0);
        assert_eq!(open(&mut sessions, 1), SessionPlan::Sessionless);
        let second = open(&mut sessions, EVICTION_AGE_US);
        assert_ne!(second.id(), 0);
        assert_ne!(second.id(), first.id());
        assert_eq!(sessions.sessions.len(), 1);
        assert_eq!(second.id() % 2, 1);
    }
}
