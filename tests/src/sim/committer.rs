//! A client that commits offsets of a group without being a member, and reads them back. Knows what a commit
//! promises, and no group.

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

use super::actor::{Asker, gone};
use super::client::{Answer, Client, Context, between, pick};
use super::commits::{Commits, Name, note};
use super::model::ensure;

/// Where a coordinator is not there yet: not available, loading, not here.
pub const NOT_YET: [i16; 3] = [15, 14, 16];

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

/// See the module's documentation.
#[derive(Debug)]
pub struct Committer {
    client: Client<GroupAsked>,
    group: String,
    found: bool,
    commits: Commits,
}

impl Committer {
    /// One for this group, which no other client uses.
    pub fn new(group: String) -> Committer {
        Committer {
            client: Client::default(),
            group,
            found: false,
            commits: Commits::in_order(),
        }
    }

    fn find(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        ask_coordinator(&mut self.client, cx, &self.group, GroupAsked::Find)
    }

    fn commit(&mut self, cx: &mut Context<'_>, name: Name) -> Result<(), String> {
        let version = between(cx.rng, 2, 10) as i16;
        let offset = self.commits.send(name, version, cx.world.time_us());
        let what = GroupAsked::Commit(name, offset);
        let member = ("", -1);
        ask_commit(
            &mut self.client,
            cx,
            &self.group,
            member,
            (name, offset),
            (version, what),
        )
    }

    fn read(&mut self, cx: &mut Context<'_>, name: Name) -> Result<(), String> {
        let version = between(cx.rng, 1, 10) as i16;
        ask_committed(
            &mut self.client,
            cx,
            &self.group,
            name,
            version,
            GroupAsked::Read(name),
        )
    }

    fn on_read(
        &mut self,
        cx: &mut Context<'_>,
        answer: &Answer<GroupAsked>,
        name: Name,
    ) -> Result<(), String> {
        let (error, offset, metadata) = committed(answer)?;
        if NOT_YET.contains(&error) || gone(cx.model, name.0) {
            return Ok(());
        }
        ensure!(
            error == 0,
            "an OffsetFetch of group {} was answered with error {error}",
            self.group
        );
        let asked_us = answer.asked.sent_us;
        let (earlier, asked_for_us) = cx.model.earlier_lives(name.0);
        self.commits
            .follow_name(name, &earlier, offset, asked_for_us);
        self.commits
            .check_read(name, (offset, &metadata), asked_us, cx.world.time_us())
            .map_err(|why| {
                let topic = &cx.model.topics[name.0].name;
                format!("group {}, {topic}-{}: {why}", self.group, name.1)
            })
    }
}

/// Asks who coordinates a group; the first such question makes the offsets topic.
pub fn ask_coordinator<W>(
    client: &mut Client<W>,
    cx: &mut Context<'_>,
    group: &str,
    what: W,
) -> Result<(), String> {
    let request = FindCoordinatorRequest {
        key: group.to_owned().into(),
        key_type: 0,
        coordinator_keys: vec![group.to_owned().into()],
    };
    let version = between(cx.rng, 0, 6) as i16;
    let write = |writer: &mut _, version| request.encode(writer, version);
    client.ask(cx, ApiKey::FindCoordinator, version, what, true, write)
}

/// The error of a search for a coordinator.
pub fn coordinator_error<W>(answer: &Answer<W>) -> Result<i16, String> {
    let response = answer.body(FindCoordinatorResponse::decode)?;
    Ok(match response.coordinators.first() {
        Some(coordinator) => coordinator.error_code,
        None => response.error_code,
    })
}

/// Sends a commit of one offset, by a member of a generation or by nobody in particular.
pub fn ask_commit<W>(
    client: &mut Client<W>,
    cx: &mut Context<'_>,
    group: &str,
    (member_id, generation): (&str, i32),
    (name, offset): (Name, i64),
    (version, what): (i16, W),
) -> Result<(), String> {
    let topic = &cx.model.topics[name.0];
    let request = OffsetCommitRequest {
        group_id: group.to_owned().into(),
        generation_id_or_member_epoch: generation,
        member_id: member_id.to_owned().into(),
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
    let write = |writer: &mut _, version| request.encode(writer, version);
    client.ask(cx, ApiKey::OffsetCommit, version, what, true, write)
}

/// The error of a commit of one offset.
pub fn commit_error<W>(answer: &Answer<W>) -> Result<i16, String> {
    let response = answer.body(OffsetCommitResponse::decode)?;
    let result = response
        .topics
        .first()
        .and_then(|topic| topic.partitions.first())
        .ok_or("an OffsetCommit without a result")?;
    Ok(result.error_code)
}

/// Asks what a group has committed for one partition.
pub fn ask_committed<W>(
    client: &mut Client<W>,
    cx: &mut Context<'_>,
    group: &str,
    name: Name,
    version: i16,
    what: W,
) -> Result<(), String> {
    let topic = &cx.model.topics[name.0];
    let request = OffsetFetchRequest {
        group_id: group.to_owned().into(),
        topics: Some(vec![OffsetFetchRequestTopic {
            name: topic.name.clone().into(),
            partition_indexes: vec![name.1],
        }]),
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.to_owned().into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: topic.name.clone().into(),
                topic_id: topic.id,
                partition_indexes: vec![name.1],
            }]),
            ..Default::default()
        }],
        require_stable: false,
    };
    let write = |writer: &mut _, version| request.encode(writer, version);
    client.ask(cx, ApiKey::OffsetFetch, version, what, true, write)
}

/// What a group has committed for one partition: error, offset and metadata.
pub fn committed<W>(answer: &Answer<W>) -> Result<(i16, i64, String), String> {
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
    if error != 0 {
        return Ok((error, -1, String::new()));
    }
    found.ok_or_else(|| "an OffsetFetch without a result".to_owned())
}

impl Asker for Committer {
    type Asked = GroupAsked;

    const NAME: &str = "a committer";

    fn client(&self) -> &Client<GroupAsked> {
        &self.client
    }

    fn client_mut(&mut self) -> &mut Client<GroupAsked> {
        &mut self.client
    }

    fn ask(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        let open = self.client.open_count();
        if open >= 4 || (open > 0 && !self.found) {
            return Ok(());
        }
        self.commits
            .on_start(cx.world.start_count(), cx.world.time_us());
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

    fn on_answer(
        &mut self,
        cx: &mut Context<'_>,
        answer: &Answer<GroupAsked>,
    ) -> Result<(), String> {
        let version = answer.asked.version;
        match answer.asked.what {
            GroupAsked::Find => {
                let error = coordinator_error(answer)?;
                ensure!(
                    error == 0 || NOT_YET.contains(&error),
                    "FindCoordinator {version} was answered with error {error}"
                );
                self.found = error == 0;
                Ok(())
            }
            GroupAsked::Commit(name, offset) => {
                let error = commit_error(answer)?;
                let now_us = cx.world.time_us();
                match error {
                    0 => self.commits.ack(name, offset, now_us),
                    3 | 100 if gone(cx.model, name.0) => {}
                    error if NOT_YET.contains(&error) => {}
                    error => {
                        return Err(format!(
                            "a commit of group {} was answered with error {error}",
                            self.group
                        ));
                    }
                }
                Ok(())
            }
            GroupAsked::Read(name) => self.on_read(cx, answer, name),
        }
    }
}
