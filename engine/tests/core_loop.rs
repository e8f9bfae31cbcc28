//! The core loop with a stand-in for the shard, against ordinary blocking clients: bursts with sleeps
//! between them, frames of all sizes, other cores, the journal, stalled requests, stopping.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use millrace_engine::config::BrokerConfig;
use millrace_engine::connection_limits::ConnectionLimits;
use millrace_engine::core_io::{CoreLinks, Machine};
use millrace_engine::core_loop::{self, CoreConfig};
use millrace_engine::event::{Action, ConnId, ControlMessage, ControlReply, Event};
use millrace_engine::mesh::{CallId, MeshMessage};
use millrace_engine::mesh_link::MeshLinks;
use ring::buf::{AlignedBuf, Chunk, Shared};
use ring::{Listener, RingConfig, Waker};
use storage::store::{DurableWrite, FileRef};
use storage::types::{CoreId, Now};

/// A hang guard, far above what anything here takes.
const GUARD: Duration = Duration::from_secs(60);

const FRAME_BYTES_MAX: usize = 100 << 20;

/// Answers frames by their first byte: `e` echoes, `m` asks the other core first, `w` writes the
/// journal first, `c` answers and closes.
struct Stand {
    core: CoreId,
    journal: FileRef,
    actions: VecDeque<Action>,
    turn_open: bool,
    /// Answers asked for and not reported as sent.
    unsent_count: usize,
}

impl Stand {
    fn new(core: CoreId, journal: PathBuf) -> Stand {
        Stand {
            core,
            journal: FileRef {
                id: 1,
                path: Rc::new(journal),
            },
            actions: VecDeque::from([Action::Control(ControlReply::Ready)]),
            turn_open: false,
            unsent_count: 0,
        }
    }

    fn answer(&mut self, conn: ConnId, frame: Shared) {
        let size = Shared::from((frame.len() as u32).to_be_bytes().to_vec());
        let chunks = vec![Chunk::Local(size), Chunk::Local(frame)];
        self.unsent_count += 1;
        self.actions.push_back(Action::Send { conn, chunks });
    }
}

impl Machine for Stand {
    fn handle(&mut self, _now: Now, event: Event) {
        self.turn_open = true;
        match event {
            Event::Frame { conn, frame } => match frame[0] {
                b'm' => self.actions.push_back(Action::Mesh {
                    to: CoreId(1 - self.core.0),
                    message: MeshMessage::FetchWake { id: CallId(conn.0) },
                }),
                b'w' => {
                    let mut block = AlignedBuf::zeroed(4096);
                    block.fill(frame[1]);
                    self.actions.push_back(Action::DurableWrite(DurableWrite {
                        token: conn.0,
                        file: self.journal.clone(),
                        position: u64::from(frame[1]) * 4096,
                        bytes: block.freeze(),
                        sync: true,
                    }));
                }
                b'c' => {
                    self.answer(conn, frame);
                    self.actions.push_back(Action::Close { conn });
                }
                _ => self.answer(conn, frame),
            },
            Event::Mesh { from, message } => {
                let MeshMessage::FetchWake { id } = message else {
                    panic!("nobody sends anything else");
                };
                if self.core == CoreId(0) {
                    self.answer(ConnId(id.0), b"m".to_vec().into());
                } else {
                    self.actions.push_back(Action::Mesh {
                        to: from,
                        message: MeshMessage::FetchWake { id },
                    });
                }
            }
            Event::JournalWritten { token, result } => {
                let answer = match result {
                    Ok(()) => b"written".to_vec(),
                    Err(error) => error.to_string().into_bytes(),
                };
                self.answer(ConnId(token), answer.into());
            }
            Event::BadFrame { conn, .. } | Event::PeerFinished { conn } => {
                self.actions.push_back(Action::Close { conn })
            }
            Event::Sent { .. } => self.unsent_count -= 1,
            Event::Control(ControlMessage::Shutdown) => {
                assert_eq!(self.unsent_count, 0, "one report for each answer");
                self.actions.push_back(Action::StopAccepting);
                self.actions.push_back(Action::Stop);
            }
            Event::TurnEnd => self.turn_open = false,
            _ => {}
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn next_deadline(&self) -> Option<u64> {
        None
    }

    fn waiting_count(&self) -> usize {
        0
    }

    /// The first sleeps soon, the second looks for work longer.
    fn idle_poll_us(&self) -> u64 {
        1_000 * u64::from(self.core.0)
    }
}

struct Cores {
    address: SocketAddr,
    control: Vec<(Sender<ControlMessage>, Waker)>,
    threads: Vec<JoinHandle<()>>,
    directory: tempfile::TempDir,
}

impl Cores {
    /// Starts cores of which the first listens.
    fn start(count: usize) -> Cores {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let journal = directory.path().join("journal");
        std::fs::write(&journal, vec![0; 1 << 20]).expect("a journal file");
        let wakers: Vec<Waker> = (0..count).map(|_| Waker::new().unwrap()).collect();
        let mut listeners =
            Listener::bind_group("127.0.0.1:0".parse().unwrap(), 1).expect("a free port");
        let address = listeners[0].local();
        let (replies, mut ready) = tokio::sync::mpsc::unbounded_channel();
        let (broker, _) = BrokerConfig::read(None, &[]).expect("the defaults");
        let limits = Arc::new(ConnectionLimits::new(&broker));
        let mut control = Vec::new();
        let mut threads = Vec::new();
        for (core, mesh) in MeshLinks::full_mesh(&wakers, 4).into_iter().enumerate() {
            let (sender, receiver) = std::sync::mpsc::channel();
            control.push((sender, wakers[core].clone()));
            let config = CoreConfig {
                core: CoreId(core as u16),
                cpu: None,
                ring: RingConfig::default(),
                waker: wakers[core].clone(),
                listeners: std::mem::take(&mut listeners),
                native_listeners: 0..0,
                frame_memory_bytes: 16 << 20,
                memory_ahead_bytes: 0,
                limits: Arc::clone(&limits),
                frame_bytes_max: FRAME_BYTES_MAX,
                open_files_max: 100,
            };
            let links = CoreLinks {
                mesh,
                control: receiver,
                replies: replies.clone(),
            };
            let journal = journal.clone();
            let machine = move || Stand::new(CoreId(core as u16), journal);
            threads.push(core_loop::start(config, links, machine).expect("a core starts"));
        }
        for _ in 0..count {
            let (_, reply) = ready.blocking_recv().expect("cores live");
            assert!(matches!(reply, ControlReply::Ready));
        }
        Cores {
            address,
            control,
            threads,
            directory,
        }
    }

    fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// Stops all cores, which takes every check of theirs.
    fn stop(self) {
        // Let the last reports of sent answers come in: the shards check that there is one for each.
        std::thread::sleep(Duration::from_millis(100));
        for (sender, waker) in &self.control {
            sender.send(ControlMessage::Shutdown).expect("it lives");
            waker.wake();
        }
        for thread in self.threads {
            thread.join().expect("it stops");
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(GUARD)).unwrap();
    stream
}

fn send(stream: &mut TcpStream, frame: &[u8]) {
    let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(frame);
    stream.write_all(&bytes).expect("sends");
}

fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let mut size = [0; 4];
    stream.read_exact(&mut size).expect("an answer in time");
    let mut frame = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut frame).expect("a whole answer");
    frame
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    let mut state = seed as u64 * 2 + 1;
    let mut bytes: Vec<u8> = (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect();
    bytes[0] = b'e';
    bytes
}

/// An executor that parks with work to do hangs this.
#[test]
fn bursts_of_connections_do_not_hang_a_core_that_sleeps_between_them() {
    let cores = Cores::start(1);
    for burst in 0..120 {
        let mut clients: Vec<TcpStream> = (0..50).map(|_| cores.connect()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            send(client, &pattern(number, 1 + (number * 37 + burst) % 2000));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let expected = pattern(number, 1 + (number * 37 + burst) % 2000);
            assert!(receive(client) == expected);
        }
        drop(clients);
        if burst % 10 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    cores.stop();
}

#[test]
fn frames_of_all_sizes_come_whole_and_in_order() {
    let cores = Cores::start(1);
    let threads: Vec<_> = (0..4)
        .map(|client| {
            let address = cores.address;
            std::thread::spawn(move || {
                let sizes: Vec<usize> = vec![
                    1, 16_379, 16_380, 16_381, 20_000, 40_000, 65_536, 65_537, 300_000, 1_048_576,
                    1_048_577, 5_000_000, 3, 24_000, 24_001, 2,
                ];
                let mut stream = connect(address);
                let mut reader = stream.try_clone().unwrap();
                let expected = sizes.clone();
                let reading = std::thread::spawn(move || {
                    for size in expected {
                        assert!(receive(&mut reader) == pattern(client + size, size));
                    }
                });
                for size in sizes {
                    let frame = pattern(client + size, size);
                    let mut bytes = (size as u32).to_be_bytes().to_vec();
                    bytes.extend_from_slice(&frame);
                    // In pieces, so that prefixes and frames straddle in all ways.
                    for piece in bytes.chunks(7_777 * (client + 1)) {
                        stream.write_all(piece).expect("sends");
                    }
                }
                reading.join().expect("every answer is right");
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("every answer is right");
    }
    cores.stop();
}

#[test]
fn cores_wake_each_other() {
    let cores = Cores::start(2);
    let mut clients: Vec<TcpStream> = (0..20).map(|_| cores.connect()).collect();
    for round in 0..200 {
        for client in &mut clients {
            send(client, b"m");
        }
        for client in &mut clients {
            assert_eq!(receive(client), b"m");
        }
        if round % 50 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    cores.stop();
}

#[test]
fn journal_writes_are_on_disk_when_they_are_reported() {
    let cores = Cores::start(1);
    let mut clients: Vec<TcpStream> = (0..20).map(|_| cores.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        send(client, &[b'w', number as u8]);
    }
    for client in &mut clients {
        assert_eq!(receive(client), b"written");
    }
    let written = std::fs::read(cores.directory.path().join("journal")).unwrap();
    for number in 0..20 {
        let block = &written[number * 4096..][..4096];
        assert!(block.iter().all(|byte| usize::from(*byte) == number));
    }
    cores.stop();
}

#[test]
fn a_close_comes_after_the_answer_and_a_wrong_size_closes() {
    let cores = Cores::start(1);
    let mut client = cores.connect();
    send(&mut client, b"c last words");
    assert_eq!(receive(&mut client), b"c last words");
    assert_eq!(client.read(&mut [0; 1]).expect("closed in order"), 0);
    for size in [0i32, -1, i32::MIN, FRAME_BYTES_MAX as i32 + 1] {
        let mut client = cores.connect();
        client.write_all(&size.to_be_bytes()).expect("sends");
        assert_eq!(client.read(&mut [0; 1]).expect("closed in order"), 0);
    }
    cores.stop();
}

#[test]
fn a_stalled_large_request_makes_room_for_an_honest_one() {
    let cores = Cores::start(1);
    let mut stalled = cores.connect();
    stalled
        .write_all(&(FRAME_BYTES_MAX as u32).to_be_bytes())
        .expect("sends");
    stalled.write_all(b"e and no more").expect("sends");
    let mut small = cores.connect();
    for size in [100, 60_000, 900_000] {
        send(&mut small, &pattern(1, size));
        assert!(receive(&mut small) == pattern(1, size), "small ones go on");
    }
    // Above a megabyte it needs the memory that the stalled one holds.
    let mut honest = cores.connect();
    let frame = pattern(2, 3_000_000);
    let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(&frame);
    let (head, rest) = bytes.split_at(100_000);
    honest.write_all(head).expect("sends");
    // Two answers later the head has been seen, and what follows it can no longer be received with it.
    for _ in 0..2 {
        send(&mut small, b"e");
        assert_eq!(receive(&mut small), b"e");
    }
    let mut writer = honest.try_clone().unwrap();
    let rest = rest.to_vec();
    let writing = std::thread::spawn(move || writer.write_all(&rest).expect("sends"));
    assert!(receive(&mut honest) == frame);
    writing.join().expect("sent");
    stalled.set_read_timeout(Some(GUARD)).unwrap();
    match stalled.read(&mut [0; 1]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("not closed: {other:?}"),
    }
    cores.stop();
}
