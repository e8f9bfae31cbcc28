//! The offsets that a group committed, as a plain history: which of them a read may bring. Knows when each
//! was sent and answered, and no request form.

use std::collections::BTreeMap;

use super::model::{TopicRef, ensure};

/// The first version of OffsetCommit that names topics by id.
const BY_ID: i16 = 10;

/// A partition that offsets are committed for.
pub type Name = (TopicRef, i32);

/// The note that goes with an offset.
pub fn note(offset: i64) -> String {
    format!("note {offset}")
}

/// One commit that was not refused.
#[derive(Clone, Copy, Debug)]
struct Commit {
    offset: i64,
    sent_us: u64,
    /// It names the topic by its name: where that was deleted and made again on its way, it is for the new one.
    by_name: bool,
    /// From here on it can take effect no more; not known yet: the end of time.
    ended_us: u64,
    /// It took effect: it was answered so, or read.
    acked: bool,
    /// It was answered so.
    answered: bool,
}

/// The commits of one group.
#[derive(Clone, Debug, Default)]
pub struct Commits {
    /// One client sends them all, on one connection at a time.
    in_order: bool,
    of: BTreeMap<Name, Vec<Commit>>,
    next_offset: i64,
    /// The start of the broker that open commits went to.
    start: u64,
}

impl Commits {
    /// The commits of one client, which take effect in the order in which it sent them.
    pub fn in_order() -> Commits {
        Commits {
            in_order: true,
            ..Commits::default()
        }
    }

    /// An offset that was never committed before, sent now in this version of OffsetCommit.
    pub fn send(&mut self, name: Name, version: i16, now_us: u64) -> i64 {
        self.next_offset += 1;
        self.of.entry(name).or_default().push(Commit {
            offset: self.next_offset,
            sent_us: now_us,
            by_name: version < BY_ID,
            ended_us: u64::MAX,
            acked: false,
            answered: false,
        });
        self.next_offset
    }

    /// A commit was acknowledged: what ended before it was sent is superseded.
    pub fn ack(&mut self, name: Name, offset: i64, now_us: u64) {
        let Some(commits) = self.of.get_mut(&name) else {
            return;
        };
        let mut sent_us = 0;
        for commit in commits.iter_mut().filter(|commit| commit.offset == offset) {
            commit.acked = true;
            commit.answered = true;
            commit.ended_us = commit.ended_us.min(now_us);
            sent_us = commit.sent_us;
        }
        // A read that is under way may still bring what this one supersedes.
        let long_ago = sent_us.saturating_sub(60_000_000);
        commits.retain(|commit| commit.ended_us >= long_ago);
    }

    /// A commit was refused: it is nowhere.
    pub fn refuse(&mut self, name: Name, offset: i64) {
        if let Some(commits) = self.of.get_mut(&name) {
            commits.retain(|commit| commit.offset != offset);
        }
    }

    /// Notices that the broker was started again: what had no answer will not take effect later.
    pub fn on_start(&mut self, start: u64, now_us: u64) {
        if std::mem::replace(&mut self.start, start) != start {
            for commit in self.of.values_mut().flatten() {
                commit.ended_us = commit.ended_us.min(now_us);
            }
        }
    }

    /// A commit that was sent to an earlier life of a topic's name, and had not ended when this life was asked
    /// for at `asked_for_us`, may have taken effect in this one.
    pub fn follow_name(
        &mut self,
        name: Name,
        earlier: &[TopicRef],
        offset: i64,
        asked_for_us: u64,
    ) {
        let late = earlier.iter().find_map(|topic| {
            let commits = self.of.get(&(*topic, name.1))?;
            let may = |commit: &&Commit| {
                commit.offset == offset && commit.by_name && commit.ended_us >= asked_for_us
            };
            commits.iter().find(may).copied()
        });
        let commits = self.of.entry(name).or_default();
        if commits.iter().all(|commit| commit.offset != offset) {
            commits.extend(late);
        }
    }

    /// Checks what a read brought that was asked for at `asked_us`; -1: nothing is committed.
    pub fn check_read(
        &mut self,
        name: Name,
        (offset, metadata): (i64, &str),
        asked_us: u64,
        now_us: u64,
    ) -> Result<(), String> {
        let commits = self.of.entry(name).or_default();
        let in_order = self.in_order;
        let supersedes = |later: &Commit, found: &Commit| {
            let sent_after = later.sent_us > found.ended_us
                || (in_order && found.answered && later.answered && later.offset > found.offset);
            later.acked && sent_after && later.ended_us < asked_us
        };
        if offset < 0 {
            let lost = commits
                .iter()
                .find(|commit| commit.acked && commit.ended_us < asked_us);
            ensure!(
                lost.is_none(),
                "nothing is committed, and {lost:?} was acknowledged"
            );
            return Ok(());
        }
        ensure!(
            metadata == note(offset),
            "offset {offset} is committed with metadata '{metadata}'"
        );
        let Some(found) = commits.iter().find(|commit| commit.offset == offset) else {
            return Err(format!(
                "offset {offset} is committed, of {commits:?}: refused, superseded long ago, or never sent"
            ));
        };
        let newer = commits.iter().find(|later| supersedes(later, found));
        ensure!(
            newer.is_none(),
            "offset {offset} is committed, and {newer:?} was acknowledged after it"
        );
        // Who has read it may rely on it.
        for commit in commits.iter_mut().filter(|commit| commit.offset == offset) {
            commit.acked = true;
            commit.ended_us = commit.ended_us.min(now_us);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Name = (0, 0);

    #[test]
    fn what_a_read_may_bring() {
        let mut commits = Commits::default();
        let read = |commits: &mut Commits, offset: i64, at: u64| {
            commits.check_read(NAME, (offset, &note(offset)), at, at + 1)
        };
        assert!(read(&mut commits, -1, 5).is_ok(), "nothing was sent");
        let first = commits.send(NAME, 2, 10);
        assert!(read(&mut commits, -1, 12).is_ok(), "not acknowledged yet");
        commits.ack(NAME, first, 15);
        assert!(read(&mut commits, -1, 20).is_err(), "lost");
        let second = commits.send(NAME, 2, 30);
        assert!(read(&mut commits, first, 31).is_ok());
        commits.ack(NAME, second, 40);
        assert!(
            read(&mut commits, first, 35).is_ok(),
            "asked before the end"
        );
        assert!(read(&mut commits, first, 50).is_err(), "superseded");
        assert!(read(&mut commits, second, 50).is_ok());
        let third = commits.send(NAME, 2, 60);
        commits.refuse(NAME, third);
        assert!(read(&mut commits, third, 70).is_err(), "refused");
    }

    #[test]
    fn commits_of_one_client_keep_their_order() {
        let mut commits = Commits::in_order();
        let first = commits.send(NAME, 2, 10);
        let second = commits.send(NAME, 2, 11);
        commits.ack(NAME, first, 20);
        commits.ack(NAME, second, 20);
        let read = commits.check_read(NAME, (first, &note(first)), 30, 31);
        assert!(read.is_err(), "the second came after it");
    }

    #[test]
    fn a_lost_commit_ends_with_the_broker() {
        let mut commits = Commits::default();
        let lost = commits.send(NAME, 2, 10);
        commits.on_start(1, 20);
        let next = commits.send(NAME, 2, 30);
        commits.ack(NAME, next, 40);
        let read = commits.check_read(NAME, (lost, &note(lost)), 50, 51);
        assert!(read.is_err(), "it cannot come after the start");
    }

    #[test]
    fn a_late_commit_by_name_is_for_the_topic_that_has_the_name_then() {
        let mut commits = Commits::default();
        let ended = commits.send(NAME, 2, 10);
        commits.ack(NAME, ended, 15);
        let by_name = commits.send(NAME, 9, 20);
        let by_id = commits.send(NAME, 10, 20);
        let next: Name = (1, 0);
        let mut read = |offset: i64| {
            commits.follow_name(next, &[0], offset, 30);
            commits.check_read(next, (offset, &note(offset)), 50, 51)
        };
        assert!(read(ended).is_err(), "it was over before");
        assert!(read(by_id).is_err(), "the id is that of the old one");
        assert!(read(by_name).is_ok());
    }
}
