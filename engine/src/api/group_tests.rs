//! The group APIs through a whole shard: requests as bytes in, answers as bytes out, the disk a map in
//! memory. One core.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use net::kafka::*;
use net::wire::{DecodeError, Reader, Writer};
use ring::buf::{AlignedBuf, Shared};
use storage::disk::{DirEntry, Disk, OpenMode, Space};
use storage::recovery::recover;
use storage::store::{Store, StoreConfig};
use storage::types::{CoreId, Now};

use crate::config::BrokerConfig;
use crate::event::{Action, ConnId, Event, Task, TaskDone};
use crate::metadata::{MetadataCommand, MetadataImage, MetadataRecord, MetadataReply};
use crate::shard::{Shard, ShardConfig};

/// Files in memory.
#[derive(Clone, Default)]
struct MemoryDisk(Rc<RefCell<BTreeMap<PathBuf, Vec<u8>>>>);

impl MemoryDisk {
    fn with<T>(&self, path: &Path, f: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        let mut files = self.0.borrow_mut();
        let file = files.get_mut(path);
        file.map(f).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for MemoryDisk {
    type File = PathBuf;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<PathBuf> {
        let mut files = self.0.borrow_mut();
        match (files.contains_key(path), mode) {
            (false, OpenMode::Read | OpenMode::ReadWrite) => Err(io::ErrorKind::NotFound.into()),
            (true, OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            _ => {
                files.entry(path.to_owned()).or_default();
                Ok(path.to_owned())
            }
        }
    }

    async fn read_at(
        &self,
        file: &PathBuf,
        position: u64,
        mut buf: AlignedBuf,
    ) -> (io::Result<usize>, AlignedBuf) {
        let read = self.with(file, |bytes| {
            let from = bytes.get(position as usize..).unwrap_or(&[]);
            let length = from.len().min(buf.len());
            buf[..length].copy_from_slice(&from[..length]);
            length
        });
        (read, buf)
    }

    async fn write_at(&self, file: &PathBuf, position: u64, bytes: Shared) -> io::Result<()> {
        let end = position as usize + bytes.len();
        self.with(file, |file| {
            file.resize(file.len().max(end), 0);
            file[position as usize..end].copy_from_slice(&bytes);
        })
    }

    async fn sync_all(&self, _directory: &Path, _file: &PathBuf) -> io::Result<()> {
        Ok(())
    }

    async fn sync_data(&self, _file: &PathBuf) -> io::Result<()> {
        Ok(())
    }

    async fn allocate(&self, file: &PathBuf, position: u64, length: u64) -> io::Result<()> {
        let end = (position + length) as usize;
        self.with(file, |file| file.resize(file.len().max(end), 0))
    }

    async fn truncate(&self, file: &PathBuf, length: u64) -> io::Result<()> {
        self.with(file, |file| file.resize(length as usize, 0))
    }

    async fn length(&self, file: &PathBuf) -> io::Result<u64> {
        self.with(file, |file| file.len() as u64)
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.0.borrow_mut();
        let bytes = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), bytes);
        Ok(())
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.borrow_mut().remove(path);
        Ok(())
    }

    async fn remove_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries: BTreeMap<String, bool> = BTreeMap::new();
        for file in self.0.borrow().keys() {
            if let Ok(below) = file.strip_prefix(path) {
                let mut parts = below.iter().map(|part| part.to_string_lossy().into_owned());
                if let Some(name) = parts.next() {
                    entries.insert(name, parts.next().is_some());
                }
            }
        }
        let entries = entries.into_iter();
        Ok(entries
            .map(|(name, is_dir)| DirEntry { name, is_dir })
            .collect())
    }

    async fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn space(&self, _path: &Path) -> io::Result<Space> {
        Ok(Space {
            total_bytes: 1 << 40,
            free_bytes: 1 << 39,
        })
    }

    async fn pause(&self) {}
}

/// Nothing here ever waits.
fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a disk in memory does not wait"),
    }
}

/// A shard, its disk, its clock and one connection.
struct Broker {
    shard: Shard,
    disk: MemoryDisk,
    image: MetadataImage,
    now: Now,
    sent: Vec<u8>,
}

const CONN: ConnId = ConnId(1);

impl Broker {
    fn start() -> Broker {
        let settings = [
            ("log.dirs", "/data"),
            ("listeners", "PLAINTEXT://127.0.0.1:9092"),
            ("advertised.listeners", "PLAINTEXT://broker.example:9099"),
        ];
        let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let config = BrokerConfig::from_settings(settings.into_iter().collect()).unwrap();
        let mut image = MetadataImage::new("cluster".to_owned(), config);
        let now = Now {
            monotonic_us: 1_000_000,
            wall_ms: 1_700_000_000_000,
        };
        image.apply(&MetadataRecord::Start { count: 1 });
        let topics = vec![("t".to_owned(), uuid::Uuid::from_u128(77))];
        decide(&mut image, now, MetadataCommand::EnsureTopics { topics });
        Broker::over(MemoryDisk::default(), image, now)
    }

    /// A start over what is on the disk.
    fn over(disk: MemoryDisk, image: MetadataImage, now: Now) -> Broker {
        let dirs = vec![PathBuf::from("/data")];
        let mut recovered = run(recover(&disk, &dirs, 1, |_| true, |_| CoreId(0)));
        let config = ShardConfig {
            cores: 1,
            memory_bytes: 64 << 20,
            broker: image.config().clone(),
            seed: recovered.epoch,
        };
        let store_config = StoreConfig::new(CoreId(0), 1, dirs, recovered.epoch, 1, 64 << 20);
        let store = Store::new(store_config, recovered.cores.remove(0));
        let mut broker = Broker {
            shard: Shard::new(CoreId(0), Arc::new(config), image.clone(), store, now),
            disk,
            image,
            now,
            sent: Vec::new(),
        };
        let peer = "127.0.0.1:5000".parse().unwrap();
        broker.handle(Event::Accepted {
            conn: CONN,
            listener: 0,
            peer,
        });
        broker
    }

    /// The same disk after a crash.
    fn restart(self) -> Broker {
        // The offsets topic that the running shard made is metadata too.
        Broker::over(self.disk, self.shard.image.clone(), self.now)
    }

    fn handle(&mut self, event: Event) {
        self.shard.handle(self.now, event);
        loop {
            self.shard.handle(self.now, Event::TurnEnd);
            let mut events = Vec::new();
            while let Some(action) = self.shard.poll_action() {
                match action {
                    Action::Send { conn, chunks } => {
                        for chunk in &chunks {
                            self.sent.extend_from_slice(chunk);
                        }
                        let released = chunks;
                        events.push(Event::Sent { conn, released });
                    }
                    Action::DurableWrite(write) => {
                        let (token, result) = run(write.run(self.disk.clone()));
                        events.push(Event::JournalWritten { token, result });
                    }
                    Action::Spawn(Task::Store(task)) => {
                        let done = run(task.run(self.disk.clone()));
                        events.push(Event::TaskDone(TaskDone::Store(done)));
                    }
                    // Sizes of disks and reports do not matter here.
                    Action::Spawn(_) | Action::Control(_) => {}
                    other => panic!("unexpected: {other:?}"),
                }
            }
            if events.is_empty() {
                return;
            }
            for event in events {
                self.shard.handle(self.now, event);
            }
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now.monotonic_us += ms * 1000;
        self.now.wall_ms += ms as i64;
        self.handle(Event::Tick);
    }

    fn send(&mut self, key: ApiKey, version: i16, body: impl FnOnce(&mut Writer, i16)) {
        let mut writer = Writer::new();
        let header = RequestHeader {
            api_key: key,
            api_version: version,
            correlation_id: 9,
            client_id: Some("c".into()),
        };
        header.encode(&mut writer);
        body(&mut writer, version);
        let chunks = writer.into_chunks();
        let frame: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.to_vec()).collect();
        let frame = Shared::from(frame);
        self.handle(Event::Frame { conn: CONN, frame });
    }

    /// The answer's body, read by `decode`.
    fn receive<T>(
        &mut self,
        key: ApiKey,
        version: i16,
        decode: impl FnOnce(&mut Reader<'_>, i16) -> Result<T, DecodeError>,
    ) -> T {
        let sent = std::mem::take(&mut self.sent);
        let size = u32::from_be_bytes(*sent.first_chunk().expect("an answer"));
        assert_eq!(size as usize + 4, sent.len(), "one whole answer");
        let mut reader = Reader::new(&sent[4..]);
        let header = ResponseHeader::decode(&mut reader, key, version).unwrap();
        assert_eq!(header.correlation_id, 9);
        decode(&mut reader, version).unwrap()
    }

    fn find(&mut self) -> (i16, String, i32) {
        let request = find_coordinator::FindCoordinatorRequest {
            coordinator_keys: vec!["g".into()],
            ..Default::default()
        };
        let (key, version) = (ApiKey::FindCoordinator, 6);
        self.send(key, version, |w, v| request.encode(w, v));
        self.receive(key, version, |r, v| {
            let answer = find_coordinator::FindCoordinatorResponse::decode(r, v)?;
            let found = &answer.coordinators[0];
            Ok((found.error_code, found.host.to_string(), found.port))
        })
    }

    fn commit(&mut self, version: i16) -> Vec<(i32, i16)> {
        let partition = |partition_index| offset_commit::OffsetCommitRequestPartition {
            partition_index,
            committed_offset: 41,
            committed_leader_epoch: -1,
            committed_metadata: Some("note".into()),
        };
        let topic = |name: &'static str, id| offset_commit::OffsetCommitRequestTopic {
            name: name.into(),
            topic_id: uuid::Uuid::from_u128(id),
            partitions: vec![partition(0), partition(7)],
        };
        let request = offset_commit::OffsetCommitRequest {
            group_id: "g".into(),
            topics: vec![topic("t", 77), topic("unknown", 78)],
            ..Default::default()
        };
        let key = ApiKey::OffsetCommit;
        self.send(key, version, |w, v| request.encode(w, v));
        self.receive(key, version, |r, v| {
            let answer = offset_commit::OffsetCommitResponse::decode(r, v)?;
            let topics = answer.topics.into_iter();
            let partitions = topics.flat_map(|topic| topic.partitions);
            let codes =
                partitions.map(|partition| (partition.partition_index, partition.error_code));
            Ok(codes.collect())
        })
    }

    fn fetch(&mut self) -> Vec<(i32, i64, String, i16)> {
        let topic = |id| offset_fetch::OffsetFetchRequestTopics {
            topic_id: uuid::Uuid::from_u128(id),
            partition_indexes: vec![0],
            ..Default::default()
        };
        let request = offset_fetch::OffsetFetchRequest {
            groups: vec![offset_fetch::OffsetFetchRequestGroup {
                group_id: "g".into(),
                topics: Some(vec![topic(78), topic(77)]),
                ..Default::default()
            }],
            ..Default::default()
        };
        let (key, version) = (ApiKey::OffsetFetch, 10);
        self.send(key, version, |w, v| request.encode(w, v));
        self.receive(key, version, |r, v| {
            let answer = offset_fetch::OffsetFetchResponse::decode(r, v)?;
            let group = &answer.groups[0];
            assert_eq!(group.error_code, 0);
            let partitions = group.topics.iter().flat_map(|topic| &topic.partitions);
            let rows = partitions.map(|partition| {
                let metadata = partition.metadata.as_deref().unwrap_or("null").to_owned();
                let (index, offset) = (partition.partition_index, partition.committed_offset);
                (index, offset, metadata, partition.error_code)
            });
            Ok(rows.collect())
        })
    }
}

fn decide(image: &mut MetadataImage, now: Now, command: MetadataCommand) -> MetadataReply {
    let (records, reply) = image.decide(now, &command);
    for record in &records {
        image.apply(record);
    }
    reply
}

#[test]
fn the_offsets_topic_comes_with_the_first_coordinator_and_offsets_outlive_a_crash() {
    let mut broker = Broker::start();
    assert!(broker.image.topic("__consumer_offsets").is_none());
    // Before anybody asked for a coordinator there is none.
    assert_eq!(
        broker.commit(9),
        [(7, 3), (0, 16), (0, 3), (7, 3)],
        "what exists is the coordinator's to refuse"
    );
    assert_eq!(broker.find(), (0, "broker.example".to_owned(), 9099));
    assert_eq!(broker.commit(9), [(7, 3), (0, 0), (0, 3), (7, 3)]);
    assert_eq!(broker.commit(10), [(7, 3), (0, 0), (0, 100), (7, 100)]);
    let expected = [(0, 41, "note".to_owned(), 0), (0, -1, String::new(), 100)];
    assert_eq!(broker.fetch(), expected);
    let mut broker = broker.restart();
    assert_eq!(broker.fetch(), expected);
}

#[test]
fn a_consumer_joins_syncs_and_leaves() {
    let mut broker = Broker::start();
    broker.find();
    let join = |member_id: String| {
        move |w: &mut Writer, v: i16| {
            join_group::JoinGroupRequest {
                group_id: "g".into(),
                session_timeout_ms: 10_000,
                rebalance_timeout_ms: 60_000,
                member_id: member_id.into(),
                protocol_type: "consumer".into(),
                protocols: vec![join_group::JoinGroupRequestProtocol {
                    name: "range".into(),
                    metadata: b"\0\0\0\0\0\0\xff\xff\xff\xff".as_slice().into(),
                }],
                ..Default::default()
            }
            .encode(w, v);
        }
    };
    let read = |r: &mut Reader<'_>, v: i16| {
        let answer = join_group::JoinGroupResponse::decode(r, v)?;
        let member_id = answer.member_id.to_string();
        Ok((
            answer.error_code,
            answer.generation_id,
            member_id,
            answer.members.len(),
        ))
    };
    broker.send(ApiKey::JoinGroup, 9, join(String::new()));
    let (error, _, member_id, _) = broker.receive(ApiKey::JoinGroup, 9, read);
    assert_eq!(error, 79);
    assert!(member_id.starts_with("c-"), "{member_id}");
    broker.send(ApiKey::JoinGroup, 9, join(member_id.clone()));
    assert!(broker.sent.is_empty(), "a new group waits for more members");
    broker.wait(3000);
    let joined = broker.receive(ApiKey::JoinGroup, 9, read);
    assert_eq!(joined, (0, 1, member_id.clone(), 1));

    let sync = sync_group::SyncGroupRequest {
        group_id: "g".into(),
        generation_id: 1,
        member_id: member_id.as_str().into(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: vec![sync_group::SyncGroupRequestAssignment {
            member_id: member_id.as_str().into(),
            assignment: b"all".as_slice().into(),
        }],
        ..Default::default()
    };
    broker.send(ApiKey::SyncGroup, 5, |w, v| sync.encode(w, v));
    broker.receive(ApiKey::SyncGroup, 5, |r, v| {
        let answer = sync_group::SyncGroupResponse::decode(r, v)?;
        assert_eq!(
            (answer.error_code, &*answer.assignment),
            (0, b"all".as_slice())
        );
        Ok(())
    });
    let nameless = sync_group::SyncGroupRequest {
        protocol_name: None,
        ..sync
    };
    broker.send(ApiKey::SyncGroup, 5, |w, v| nameless.encode(w, v));
    let code = broker.receive(ApiKey::SyncGroup, 5, |r, v| {
        Ok(sync_group::SyncGroupResponse::decode(r, v)?.error_code)
    });
    assert_eq!(code, 23, "from version 5 the protocol is named");

    let describe = describe_groups::DescribeGroupsRequest {
        groups: vec!["g".into(), "nobody".into()],
        include_authorized_operations: true,
    };
    broker.send(ApiKey::DescribeGroups, 6, |w, v| describe.encode(w, v));
    broker.receive(ApiKey::DescribeGroups, 6, |r, v| {
        let answer = describe_groups::DescribeGroupsResponse::decode(r, v)?;
        let group = &answer.groups[0];
        assert_eq!((group.error_code, &*group.group_state), (0, "Stable"));
        assert_eq!(group.authorized_operations, 3400);
        assert_eq!(group.members[0].client_host, "/127.0.0.1");
        let nobody = &answer.groups[1];
        assert_eq!((nobody.error_code, &*nobody.group_state), (69, "Dead"));
        assert_eq!(
            nobody.error_message.as_deref(),
            Some("Group nobody not found.")
        );
        Ok(())
    });

    let leave = leave_group::LeaveGroupRequest {
        group_id: "g".into(),
        member_id: member_id.as_str().into(),
        ..Default::default()
    };
    for expected in [0, 25] {
        broker.send(ApiKey::LeaveGroup, 1, |w, v| leave.encode(w, v));
        let code = broker.receive(ApiKey::LeaveGroup, 1, |r, v| {
            Ok(leave_group::LeaveGroupResponse::decode(r, v)?.error_code)
        });
        assert_eq!(code, expected, "an old answer has its one member's error");
    }

    let list = list_groups::ListGroupsRequest::default();
    broker.send(ApiKey::ListGroups, 5, |w, v| list.encode(w, v));
    broker.receive(ApiKey::ListGroups, 5, |r, v| {
        let answer = list_groups::ListGroupsResponse::decode(r, v)?;
        let group = &answer.groups[0];
        assert_eq!(
            (&*group.group_id, &*group.group_state, &*group.group_type),
            ("g", "Empty", "classic")
        );
        Ok(())
    });
    let delete = delete_groups::DeleteGroupsRequest {
        groups_names: vec!["g".into(), "g".into(), "nobody".into()],
    };
    broker.send(ApiKey::DeleteGroups, 2, |w, v| delete.encode(w, v));
    broker.receive(ApiKey::DeleteGroups, 2, |r, v| {
        let answer = delete_groups::DeleteGroupsResponse::decode(r, v)?;
        let codes: Vec<i16> = answer
            .results
            .iter()
            .map(|result| result.error_code)
            .collect();
        assert_eq!(codes, [0, 69]);
        Ok(())
    });
}
