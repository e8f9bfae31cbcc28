//! A client that commits offsets of a group without being a member, and reads them back. Knows what a commit
//! promises, and no group.

use std::collections::BTreeMap;

use net::kafka::ApiKey;
use net::kafka::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use net::kafka::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    OffsetCommitResponse,
};
use net::kafka::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    OffsetFetchResponse,
};

use super::actor::{Actor, gone};
use super::client::{Answer, Client, Context, between, pick};
use super::model::{TopicRef, ensure};

/// Where a coordinator is not there yet: not available, loading, not here.
const NOT_YET: [i16; 3] = [14, 15, 16];

type Name = (TopicRef, i32);

/// What was asked.
#[derive(Debug)]
pub enum GroupAsked {
    /// Who coordinates the group.
    Find,
    /// An offset to keep.
    Commit(Name, i64),
    /// The offset that is kept.
    Read(Name),
}

/// What may be committed of one partition.
#[derive(Clone, Debug, Default)]
struct Committed {
    sure: Option<i64>,
    /// Commits without an answer, since then.
    maybe: Vec<i64>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Committer {
    client: Client<GroupAsked>,
    group: String,
    found: bool,
    next_offset: i64,
    committed: BTreeMap<Name, Committed>,
}

impl Committer {
    /// One for this group, which no other client uses.
    pub fn new(group: String) -> Committer {
        Committer {
            client: Client::default(),
            group,
            found: false,
            next_offset: 0,
            committed: BTreeMap::new(),
        }
    }

    fn find(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        let request = FindCoordinatorRequest {
            key: self.group.clone().into(),
            key_type: 0,
            coordinator_keys: vec![self.group.clone().into()],
        };
        let version = between(cx.rng, 0, 6) as i16;
        let api = ApiKey::FindCoordinator;
        let write = |writer: &mut _, version| request.encode(writer, version);
        self.client
            .ask(cx, api, version, GroupAsked::Find, true, write)
    }

    fn commit(&mut self, cx: &mut Context<'_>, name: Name) -> Result<(), String> {
        self.next_offset += 1;
        let offset = self.next_offset;
        let topic = &cx.model.topics[name.0];
        let request = OffsetCommitRequest {
            group_id: self.group.clone().into(),
            topics: vec![OffsetCommitRequestTopic {
                name: topic.name.clone().into(),
                topic_id: topic.id,
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: name.1,
                    committed_offset: offset,
                    committed_metadata: Some(note(offset).into()),
                    ..Default::default()
                }],
            }],
            ..Default::default()
        };
        self.committed.entry(name).or_default().maybe.push(offset);
        let version = between(cx.rng, 2, 10) as i16;
        let what = GroupAsked::Commit(name, offset);
        let write = |writer: &mut _, version| request.encode(writer, version);
        self.client
            .ask(cx, ApiKey::OffsetCommit, version, what, true, write)
    }

    fn read(&mut self, cx: &mut Context<'_>, name: Name) -> Result<(), String> {
        let topic = &cx.model.topics[name.0];
        let request = OffsetFetchRequest {
            group_id: self.group.clone().into(),
            topics: Some(vec![OffsetFetchRequestTopic {
                name: topic.name.clone().into(),
                partition_indexes: vec![name.1],
            }]),
            groups: vec![OffsetFetchRequestGroup {
                group_id: self.group.clone().into(),
                topics: Some(vec![OffsetFetchRequestTopics {
                    name: topic.name.clone().into(),
                    topic_id: topic.id,
                    partition_indexes: vec![name.1],
                }]),
                ..Default::default()
            }],
            require_stable: false,
        };
        let version = between(cx.rng, 1, 10) as i16;
        let what = GroupAsked::Read(name);
        let write = |writer: &mut _, version| request.encode(writer, version);
        self.client
            .ask(cx, ApiKey::OffsetFetch, version, what, true, write)
    }

    fn on_answer(
        &mut self,
        cx: &mut Context<'_>,
        answer: &Answer<GroupAsked>,
    ) -> Result<(), String> {
        let version = answer.asked.version;
        match answer.asked.what {
            GroupAsked::Find => {
                let response = answer.body(FindCoordinatorResponse::decode)?;
                let error = match response.coordinators.first() {
                    Some(coordinator) => coordinator.error_code,
                    None => response.error_code,
                };
                ensure!(
                    error == 0 || NOT_YET.contains(&error),
                    "FindCoordinator {version} was answered with error {error}"
                );
                self.found = error == 0;
                Ok(())
            }
            GroupAsked::Commit(name, offset) => {
                let response = answer.body(OffsetCommitResponse::decode)?;
                let error = response
                    .topics
                    .first()
                    .and_then(|topic| topic.partitions.first())
                    .ok_or("an OffsetCommit without a result")?
                    .error_code;
                let known = self.committed.entry(name).or_default();
                match error {
                    0 => {
                        known.sure = Some(offset);
                        known.maybe.clear();
                        Ok(())
                    }
                    3 | 100 if gone(cx.model, name.0) => Ok(()),
                    error if NOT_YET.contains(&error) => Ok(()),
                    error => Err(format!(
                        "a commit of group {} was answered with error {error}",
                        self.group
                    )),
                }
            }
            GroupAsked::Read(name) => self.on_read(cx, answer, name),
        }
    }

    fn on_read(
        &mut self,
        cx: &mut Context<'_>,
        answer: &Answer<GroupAsked>,
        name: Name,
    ) -> Result<(), String> {
        let response = answer.body(OffsetFetchResponse::decode)?;
        let (error, found) = if answer.asked.version >= 8 {
            let group = response
                .groups
                .first()
                .ok_or("an OffsetFetch without a group")?;
            let part = group
                .topics
                .first()
                .and_then(|topic| topic.partitions.first());
            let found = part.map(|part| {
                let text = part.metadata.as_deref().unwrap_or_default().to_owned();
                (part.error_code, part.committed_offset, text)
            });
            (group.error_code, found)
        } else {
            let part = response
                .topics
                .first()
                .and_then(|topic| topic.partitions.first());
            let found = part.map(|part| {
                let text = part.metadata.as_deref().unwrap_or_default().to_owned();
                (part.error_code, part.committed_offset, text)
            });
            (response.error_code, found)
        };
        if NOT_YET.contains(&error) || gone(cx.model, name.0) {
            return Ok(());
        }
        let (part_error, offset, metadata) = found.ok_or("an OffsetFetch without a result")?;
        if NOT_YET.contains(&part_error) {
            return Ok(());
        }
        ensure!(
            error == 0 && part_error == 0,
            "an OffsetFetch of group {} was answered with errors {error} and {part_error}",
            self.group
        );
        let known = self.committed.entry(name).or_default();
        let fits = known.sure.unwrap_or(-1) == offset || known.maybe.contains(&offset);
        ensure!(
            fits,
            "group {} has offset {offset} for {}-{}; {:?} was committed last, after it perhaps {:?}",
            self.group,
            cx.model.topics[name.0].name,
            name.1,
            known.sure,
            known.maybe
        );
        ensure!(
            offset < 0 || metadata == note(offset),
            "group {} has offset {offset} with metadata '{metadata}'",
            self.group
        );
        if offset >= 0 {
            known.sure = Some(offset);
        }
        known.maybe.clear();
        Ok(())
    }
}

/// The metadata that goes with an offset.
fn note(offset: i64) -> String {
    format!("note {offset}")
}

impl Actor for Committer {
    fn act(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        if self.client.open_count() > 0 {
            return Ok(());
        }
        if !self.found {
            return self.find(cx);
        }
        let live = cx.model.live();
        if live.is_empty() {
            return Ok(());
        }
        let topic = pick(cx.rng, &live);
        let partition = cx.rng.below(cx.model.topics[topic].partitions.len() as u64) as i32;
        if cx.rng.one_in(2) {
            self.commit(cx, (topic, partition))
        } else {
            self.read(cx, (topic, partition))
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        while let Some(answer) = self.client.answer(cx)? {
            self.on_answer(cx, &answer)?;
        }
        self.client.lost(cx);
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        self.client.is_quiet()
    }

    fn describe(&self) -> String {
        format!("a committer: {}", self.client.oldest())
    }
}
