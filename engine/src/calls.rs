//! What this core waits for: calls it made to the cores that own partitions, groups and metadata, and
//! what to do with the answers. Lives on every core; a call to the own core takes the same path without
//! a message.

use ring::buf::{Chunk, Lease};
use storage::types::{CoreId, Now};

use crate::event::Action;
use crate::group::{GroupAnswer, GroupCall};
use crate::ids::Key;
use crate::mesh::{
    Answer, AppendCall, AppendResult, Call, CallId, FetchCall, FetchHead, LogDirReport,
    MeshMessage, PartitionAnswer, PartitionCall, PartitionRef,
};
use crate::metadata::{MetadataCommand, MetadataReply};
use crate::shard::Shard;

/// Does something with the answers to questions about partitions.
pub(crate) type PartitionsThen = Box<dyn FnOnce(&mut Shard, Now, Vec<PartitionAnswer>)>;
/// Does something with the sizes of all partitions of all cores.
pub(crate) type LogDirsThen = Box<dyn FnOnce(&mut Shard, Now, Vec<LogDirReport>)>;
/// Does something with the metadata controller's answer.
pub(crate) type MetadataThen = Box<dyn FnOnce(&mut Shard, Now, MetadataReply)>;
/// Does something with a group coordinator's answer.
pub(crate) type GroupThen = Box<dyn FnOnce(&mut Shard, Now, GroupAnswer)>;

/// What an answer is for.
pub(crate) enum Waiting {
    /// Parts of a Produce request: which ones.
    Produce { request: Key, places: Vec<usize> },
    /// All of a native Produce request: one batch for this core.
    NativeProduce(crate::native::produce::OneBatch),
    /// Parts of a Fetch request.
    Fetch { request: Key, core: CoreId },
    /// Some of the questions of a gathering.
    Partitions { gathering: Key, places: Vec<usize> },
    /// One core's share of the sizes.
    LogDirs { gathering: Key },
    /// A metadata change.
    Metadata(MetadataThen),
    /// A group.
    Group(GroupThen),
}

/// Answers to questions about partitions of several cores, until the last has come.
pub(crate) struct Gathering {
    answers: Vec<Option<PartitionAnswer>>,
    open_count: usize,
    then: PartitionsThen,
}

/// Sizes from several cores, until the last has come.
pub(crate) struct LogDirsGathering {
    reports: Vec<LogDirReport>,
    open_count: usize,
    then: LogDirsThen,
}

/// Who made a call that this core serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    /// The core.
    pub core: CoreId,
    /// Its name for the call.
    pub id: CallId,
}

impl Shard {
    /// Names a call that is about to be made.
    pub(crate) fn expect(&mut self, waiting: Waiting) -> CallId {
        let key = self.keys.next();
        self.calls.insert(key, waiting);
        CallId(key)
    }

    pub(crate) fn send(&mut self, to: CoreId, message: MeshMessage) {
        self.actions.push_back(Action::Mesh { to, message });
    }

    pub(crate) fn origin(&self, id: CallId) -> Origin {
        Origin {
            core: self.core,
            id,
        }
    }

    /// Asks the owners of partitions one question each; `then` gets the answers in the same order.
    pub(crate) fn ask_partitions(
        &mut self,
        now: Now,
        questions: Vec<PartitionCall>,
        then: PartitionsThen,
    ) {
        let mut by_core: Vec<(CoreId, Vec<usize>)> = Vec::new();
        for (place, question) in questions.iter().enumerate() {
            let core = self.owner(question.partition);
            match by_core.iter_mut().find(|(known, _)| *known == core) {
                Some((_, places)) => places.push(place),
                None => by_core.push((core, vec![place])),
            }
        }
        if by_core.is_empty() {
            then(self, now, Vec::new());
            return;
        }
        let gathering = self.keys.next();
        self.gatherings.insert(
            gathering,
            Gathering {
                answers: vec![None; questions.len()],
                open_count: by_core.len(),
                then,
            },
        );
        for (core, places) in by_core {
            let calls = places.iter().map(|place| questions[*place]).collect();
            let id = self.expect(Waiting::Partitions { gathering, places });
            if core == self.core {
                let origin = self.origin(id);
                self.serve_partitions(now, origin, calls);
            } else {
                let call = Call::Partitions(calls);
                self.send(core, MeshMessage::Call { id, call });
            }
        }
    }

    /// Asks all cores for the sizes of their partitions.
    pub(crate) fn ask_log_dirs(&mut self, now: Now, then: LogDirsThen) {
        let gathering = self.keys.next();
        self.log_dirs_gatherings.insert(
            gathering,
            LogDirsGathering {
                reports: Vec::new(),
                open_count: usize::from(self.config.cores),
                then,
            },
        );
        for core in (0..self.config.cores).map(CoreId) {
            let id = self.expect(Waiting::LogDirs { gathering });
            if core == self.core {
                let reports = self.log_dir_reports();
                self.on_answer(now, id, Answer::LogDirs(reports));
            } else {
                self.send(
                    core,
                    MeshMessage::Call {
                        id,
                        call: Call::LogDirs,
                    },
                );
            }
        }
    }

    /// Asks the metadata controller for a change.
    pub(crate) fn ask_metadata(&mut self, now: Now, command: MetadataCommand, then: MetadataThen) {
        let id = self.expect(Waiting::Metadata(then));
        if self.core == CoreId(0) {
            let origin = self.origin(id);
            self.serve_metadata(now, origin, command);
        } else {
            let call = Call::Metadata(Box::new(command));
            self.send(CoreId(0), MeshMessage::Call { id, call });
        }
    }

    /// Asks the coordinator of a group.
    pub(crate) fn ask_group(&mut self, now: Now, core: CoreId, call: GroupCall, then: GroupThen) {
        let id = self.expect(Waiting::Group(then));
        if core == self.core {
            let origin = self.origin(id);
            self.serve_group(now, origin, call);
        } else {
            let call = Call::Group(Box::new(call));
            self.send(core, MeshMessage::Call { id, call });
        }
    }

    /// Does what another core asks.
    pub(crate) fn on_call(&mut self, now: Now, origin: Origin, call: Call) {
        match call {
            Call::Append(AppendCall {
                acks,
                api_version,
                parts,
            }) => {
                self.serve_append(now, origin, acks, api_version, parts.into_iter());
            }
            Call::Fetch(call) => self.serve_fetch(now, origin, call),
            Call::Partitions(calls) => self.serve_partitions(now, origin, calls),
            Call::LogDirs => {
                let reports = self.log_dir_reports();
                self.answer(now, origin, Answer::LogDirs(reports));
            }
            Call::Metadata(command) => self.serve_metadata(now, origin, *command),
            Call::Group(call) => self.serve_group(now, origin, *call),
        }
    }

    /// Sends an answer home, or takes it at once where home is here.
    pub(crate) fn answer(&mut self, now: Now, origin: Origin, answer: Answer) {
        if origin.core == self.core {
            self.on_answer(now, origin.id, answer);
        } else {
            let id = origin.id;
            self.send(origin.core, MeshMessage::Answer { id, answer });
        }
    }

    /// Sends the results of an append home, with the leases that came with it.
    pub(crate) fn answer_append(
        &mut self,
        now: Now,
        origin: Origin,
        results: Vec<AppendResult>,
        chunks: Vec<Chunk>,
    ) {
        let leases = chunks
            .into_iter()
            .filter_map(|chunk| match chunk {
                Chunk::Leased(lease) => Some(lease),
                Chunk::Local(_) => None,
            })
            .collect();
        self.answer(now, origin, Answer::Append { results, leases });
    }

    /// Takes an answer.
    pub(crate) fn on_answer(&mut self, now: Now, id: CallId, answer: Answer) {
        if let Answer::Fetch { parts, watched } = answer {
            let parts = parts
                .into_iter()
                .map(|(head, leases)| (head, leases.into_iter().map(Chunk::Leased).collect()))
                .collect();
            self.on_fetch_answer(now, id, parts, watched);
            return;
        }
        let Some(waiting) = self.calls.remove(&id.0) else {
            unreachable!("an answer to call {id:?} that nobody made");
        };
        match (waiting, answer) {
            (Waiting::Produce { request, places }, Answer::Append { results, leases }) => {
                for lease in leases {
                    self.leases.give_back(lease);
                }
                self.on_append_answer(now, request, &places, results);
            }
            (Waiting::NativeProduce(one), Answer::Append { results, .. }) => {
                crate::native::produce::finish_one(self, one, results);
            }
            (Waiting::Partitions { gathering, places }, Answer::Partitions(answers)) => {
                let Some(state) = self.gatherings.get_mut(&gathering) else {
                    unreachable!("a gathering ends with its last answer");
                };
                for (place, answer) in places.into_iter().zip(answers) {
                    state.answers[place] = Some(answer);
                }
                state.open_count -= 1;
                if state.open_count == 0
                    && let Some(state) = self.gatherings.remove(&gathering)
                {
                    let answers = state.answers.into_iter().flatten().collect();
                    (state.then)(self, now, answers);
                }
            }
            (Waiting::LogDirs { gathering }, Answer::LogDirs(reports)) => {
                let Some(state) = self.log_dirs_gatherings.get_mut(&gathering) else {
                    unreachable!("a gathering ends with its last answer");
                };
                state.reports.extend(reports);
                state.open_count -= 1;
                if state.open_count == 0
                    && let Some(state) = self.log_dirs_gatherings.remove(&gathering)
                {
                    (state.then)(self, now, state.reports);
                }
            }
            (Waiting::Metadata(then), Answer::Metadata(reply)) => then(self, now, *reply),
            (Waiting::Group(then), Answer::Group(reply)) => then(self, now, *reply),
            (_, answer) => unreachable!("call {id:?} was answered with {answer:?}"),
        }
    }

    /// Gives buffers of other cores back to them.
    pub(crate) fn release(&mut self, chunks: impl IntoIterator<Item = Chunk>) {
        let mut by_core: Vec<(CoreId, Vec<Lease>)> = Vec::new();
        for chunk in chunks {
            let Chunk::Leased(lease) = chunk else {
                continue;
            };
            let home = CoreId(lease.home());
            match by_core.iter_mut().find(|(core, _)| *core == home) {
                Some((_, leases)) => leases.push(lease),
                None => by_core.push((home, vec![lease])),
            }
        }
        for (core, leases) in by_core {
            self.send(core, MeshMessage::ReturnLeases(leases));
        }
    }

    /// The core that owns a partition; this one, which will say so, where the topic is not known.
    pub(crate) fn owner(&self, partition: PartitionRef) -> CoreId {
        let topic = self.image.topic_by_id(partition.topic_id);
        topic.map_or(self.core, |topic| {
            topic.core_of(partition.partition, self.config.cores)
        })
    }

    /// Sends one core's part of a fetch.
    pub(crate) fn call_fetch(&mut self, now: Now, id: CallId, core: CoreId, call: FetchCall) {
        if core == self.core {
            let origin = self.origin(id);
            self.serve_fetch(now, origin, call);
        } else {
            let call = Call::Fetch(call);
            self.send(core, MeshMessage::Call { id, call });
        }
    }

    /// Sends one core's part of a produce.
    pub(crate) fn call_append(
        &mut self,
        now: Now,
        id: CallId,
        core: CoreId,
        acks: i16,
        api_version: i16,
        parts: Vec<(PartitionRef, ring::buf::Shared)>,
    ) {
        if core == self.core {
            let origin = self.origin(id);
            self.serve_append(now, origin, acks, api_version, parts.into_iter());
        } else {
            let parts = parts
                .into_iter()
                .map(|(partition, bytes)| (partition, self.leases.lend(&bytes)))
                .collect();
            let call = Call::Append(AppendCall {
                acks,
                api_version,
                parts,
            });
            self.send(core, MeshMessage::Call { id, call });
        }
    }
}

/// What a fetch brought from one partition.
pub(crate) type FetchedPart = (FetchHead, Vec<Chunk>);
