//! Sockets of one ring against ordinary blocking peers on other threads: order, sizes, slow and broken
//! peers, and that every buffer comes home.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use millrace_ring::buf::{AlignedBuf, Chunk, LeaseTable, Shared};
use millrace_ring::clock::monotonic_us;
use millrace_ring::listener::UNIX_ADDRESS;
use millrace_ring::{
    BACKLOG_USUAL, Completion, EndReason, IntoBuf, Listener, Ring, RingConfig, SocketId,
    UNIX_PATH_BYTES_MAX, is_unix_served,
};

/// A hang guard, far above what anything here takes.
const GUARD: Duration = Duration::from_secs(60);

/// A ring with a listener, and everything that has happened on it.
struct Server {
    ring: Ring,
    address: SocketAddr,
    give_up_us: u64,
}

impl Server {
    fn new(config: RingConfig) -> Server {
        let listener = Listener::bind_group("127.0.0.1:0".parse().unwrap(), 1)
            .expect("a listener")
            .pop()
            .unwrap();
        Server::on(listener, config)
    }

    /// A ring with one Unix socket, in a directory that goes with it.
    fn on_unix(config: RingConfig) -> (Server, tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let listener = Listener::bind_unix_group(&path, 0o600, 1, BACKLOG_USUAL)
            .expect("a listener")
            .pop()
            .unwrap();
        (Server::on(listener, config), directory, path)
    }

    fn on(listener: Listener, config: RingConfig) -> Server {
        let mut ring = Ring::new(config).expect("a ring");
        let address = listener.local();
        ring.listen(listener);
        Server {
            ring,
            address,
            give_up_us: monotonic_us() + GUARD.as_micros() as u64,
        }
    }

    /// Runs the ring and hands every completion to `each`, until it says that it is done.
    fn run(&mut self, mut each: impl FnMut(&mut Ring, Completion) -> bool) {
        let mut completions = Vec::new();
        loop {
            let count = self.ring.turn(&mut completions, 64).expect("a turn");
            let mut done = false;
            for completion in completions.drain(..) {
                done |= each(&mut self.ring, completion);
            }
            if done {
                return;
            }
            assert!(monotonic_us() < self.give_up_us, "the ring hangs");
            if count == 0 {
                self.ring.sleep_blocking(1000).expect("a sleep");
            }
        }
    }

    fn accept(&mut self) -> SocketId {
        let mut accepted = None;
        self.run(|_, completion| {
            if let Completion::Accepted { socket, .. } = completion {
                accepted = Some(socket);
            }
            accepted.is_some()
        });
        accepted.unwrap()
    }
}

/// Numbers that differ from run to run of the loop, and not from run to run of the test.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, end: u64) -> usize {
        (self.roll() % end) as usize
    }
}

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice(seed | 1);
    (0..len).map(|_| dice.roll() as u8).collect()
}

/// Serves an echo until `peers` sockets are gone, and checks that all buffers are home then.
fn echo_until_gone(server: &mut Server, peers: usize) {
    let mut gone = 0;
    let mut ended: HashMap<SocketId, bool> = HashMap::new();
    server.run(|ring, completion| {
        match completion {
            Completion::Accepted { socket, .. } => {
                ended.insert(socket, false);
                ring.resume_receive(socket);
            }
            Completion::Received { socket, bytes } => {
                assert!(!ended[&socket], "bytes after the end");
                // What pins the pool is copied, as the pool asks for.
                let bytes = if ring.receive_buffers_low() {
                    Shared::from(bytes.to_vec())
                } else {
                    bytes
                };
                ring.send(socket, vec![Chunk::Local(bytes)]);
                if ring.unsent_bytes(socket) > 4 << 20 {
                    ring.pause_receive(socket);
                }
            }
            Completion::Sent { socket, .. } => {
                if ended.contains_key(&socket) && ring.unsent_bytes(socket) < 1 << 20 {
                    ring.resume_receive(socket);
                }
            }
            Completion::ReceiveEnded { socket, reason } => {
                ended.insert(socket, true);
                match reason {
                    EndReason::Finished => ring.close_after_sends(socket),
                    EndReason::Failed(_) => ring.close(socket),
                }
            }
            Completion::SendFailed { socket, .. } => ring.close(socket),
            Completion::Closed { socket, .. } => {
                assert!(ended.remove(&socket).is_some(), "closed once");
                gone += 1;
            }
            other => panic!("unexpected {other:?}"),
        }
        gone == peers
    });
    assert_eq!(server.ring.socket_count(), 0);
    assert_eq!(
        server.ring.receive_buffers_free(),
        server.ring.receive_buffers_count(),
        "all buffers are home"
    );
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        thread.join().expect("a peer's checks hold");
    }
}

/// Both ends of an ordinary stream that both protocols have.
trait Peer: Read + Write + Send + Sized + 'static {
    fn copy(&self) -> Self;
    fn half_close(&self);
}

impl Peer for TcpStream {
    fn copy(&self) -> TcpStream {
        self.try_clone().unwrap()
    }
    fn half_close(&self) {
        self.shutdown(Shutdown::Write).expect("half-closes");
    }
}

impl Peer for UnixStream {
    fn copy(&self) -> UnixStream {
        self.try_clone().unwrap()
    }
    fn half_close(&self) {
        self.shutdown(Shutdown::Write).expect("half-closes");
    }
}

/// Sends random data in random pieces while another thread reads the echo; then checks it.
fn echoing_peer<P: Peer>(
    connect: impl FnOnce() -> P + Send + 'static,
    seed: u64,
    len: usize,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = connect();
        let data = pattern(seed, len);
        let mut reader = stream.copy();
        let expected = data.clone();
        let reading = std::thread::spawn(move || {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).expect("reads the echo");
            assert!(got == expected, "the echo equals what was sent");
        });
        let mut dice = Dice(seed + 1);
        let mut rest = &data[..];
        while !rest.is_empty() {
            let piece = (1 + dice.below(200_000)).min(rest.len());
            stream.write_all(&rest[..piece]).expect("writes");
            rest = &rest[piece..];
        }
        stream.half_close();
        reading.join().expect("the echo is right");
    })
}

fn echo_many(config: RingConfig) {
    let mut server = Server::new(config);
    let address = server.address;
    echo_peers(&mut server, move || {
        TcpStream::connect(address).expect("connects")
    });
}

fn echo_peers<P: Peer>(server: &mut Server, connect: impl Fn() -> P + Clone + Send + 'static) {
    let mut dice = Dice(42);
    let peers = 40;
    let threads = (0..peers)
        .map(|peer| {
            // A few of several megabytes, most small.
            let len = if peer % 10 == 0 {
                3_000_000 + dice.below(2_000_000)
            } else {
                dice.below(60_000)
            };
            echoing_peer(connect.clone(), 1000 + peer as u64, len)
        })
        .collect();
    echo_until_gone(server, peers);
    join(threads);
}

#[test]
fn many_connections_of_all_sizes_are_echoed() {
    echo_many(RingConfig::default());
}

#[test]
fn a_kernel_without_multishot_receives_all_the_same() {
    echo_many(RingConfig {
        multishot_receive: false,
        ..RingConfig::default()
    });
}

#[test]
fn a_tiny_pool_starves_and_recovers() {
    let config = RingConfig {
        receive_buffer_count: 4,
        receive_buffer_bytes: 4096,
        submission_entries: 8,
        completion_entries: 16,
        ..RingConfig::default()
    };
    echo_many(config);
}

#[test]
fn abrupt_closes_bring_everything_home() {
    let mut server = Server::new(RingConfig::default());
    let address = server.address;
    let peers = 60;
    let threads = (0..peers)
        .map(|peer| {
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(address).expect("connects");
                // Large enough that the echo is in flight; never read, so that the close resets.
                let data = pattern(peer as u64 + 7, 300_000 * (peer % 3));
                let _ = stream.write_all(&data);
            })
        })
        .collect();
    echo_until_gone(&mut server, peers);
    join(threads);
}

#[test]
fn a_half_closed_peer_still_gets_its_answer() {
    let mut server = Server::new(RingConfig::default());
    let address = server.address;
    let peer = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.write_all(b"question").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "late answer");
    });
    let socket = server.accept();
    server.ring.resume_receive(socket);
    let mut got = Vec::new();
    server.run(|ring, completion| match completion {
        Completion::Received { bytes, .. } => {
            got.extend_from_slice(&bytes);
            false
        }
        Completion::ReceiveEnded { reason, .. } => {
            assert!(matches!(reason, EndReason::Finished));
            ring.send(
                socket,
                vec![
                    Chunk::Local(b"late ".to_vec().into()),
                    Chunk::Local(Shared::empty()),
                    Chunk::Local(b"answer".to_vec().into()),
                ],
            );
            ring.close_after_sends(socket);
            false
        }
        Completion::Closed { .. } => true,
        _ => false,
    });
    assert_eq!(got, b"question");
    peer.join().unwrap();
}

/// A peer that reads nothing until it is told to, then all.
fn slow_reader(address: SocketAddr) -> (JoinHandle<Vec<u8>>, std::sync::mpsc::Sender<()>) {
    let (go, wait): (_, Receiver<()>) = channel();
    let peer = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).expect("connects");
        wait.recv_timeout(GUARD).expect("told to read");
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("reads");
        got
    });
    (peer, go)
}

#[test]
fn a_slow_reader_gets_all_in_order_and_leases_come_back() {
    let mut server = Server::new(RingConfig::default());
    let (peer, go) = slow_reader(server.address);
    let socket = server.accept();
    let mut table = LeaseTable::new(0);
    let mut expected = Vec::new();
    // More chunks and bytes than one send gathers, and more than the kernel's buffers hold.
    for seed in 0..600u64 {
        let data = pattern(seed, 20_000);
        expected.extend_from_slice(&data);
        let view = Shared::from(data);
        server
            .ring
            .send(socket, vec![Chunk::Leased(table.lend(&view))]);
    }
    server.ring.close_after_sends(socket);
    let mut go = Some(go);
    server.run(|_, completion| match completion {
        Completion::Sent { released, .. } => {
            for chunk in released {
                if let Chunk::Leased(lease) = chunk {
                    table.give_back(lease);
                }
            }
            // It reads once something was sent, by when the rest waits for it.
            if let Some(go) = go.take() {
                go.send(()).unwrap();
            }
            false
        }
        Completion::Closed { released, .. } => {
            assert!(released.is_empty(), "all was sent");
            true
        }
        _ => false,
    });
    assert_eq!(table.lent_count(), 0);
    assert!(peer.join().unwrap() == expected);
}

#[test]
fn a_stalled_reader_loses_its_pins_and_no_bytes() {
    let mut server = Server::new(RingConfig::default());
    let (peer, go) = slow_reader(server.address);
    let socket = server.accept();
    let mut table = LeaseTable::new(0);
    let mut expected = Vec::new();
    for seed in 0..12u64 {
        let data = pattern(seed, 1_000_000);
        expected.extend_from_slice(&data);
        let view = Shared::from(data);
        server
            .ring
            .send(socket, vec![Chunk::Leased(table.lend(&view))]);
    }
    // Until the first chunk is out, so that a send is in flight and blocked.
    let mut give_back = |released: Vec<Chunk>| {
        for chunk in released {
            if let Chunk::Leased(lease) = chunk {
                table.give_back(lease);
            }
        }
        table.lent_count()
    };
    server.run(|_, completion| match completion {
        Completion::Sent { released, .. } => give_back(released) < 12,
        _ => false,
    });
    server.ring.copy_out_unsent(socket);
    server.run(|_, completion| match completion {
        Completion::Sent { released, .. } => give_back(released) == 0,
        _ => false,
    });
    assert!(
        server.ring.unsent_bytes(socket) > 0,
        "the peer has not read"
    );
    go.send(()).unwrap();
    server.ring.close_after_sends(socket);
    server.run(|_, completion| matches!(completion, Completion::Closed { .. }));
    assert!(peer.join().unwrap() == expected);
}

#[test]
fn a_stalled_reader_loses_its_pin_on_one_large_chunk_too() {
    let mut server = Server::new(RingConfig::default());
    let (peer, go) = slow_reader(server.address);
    let socket = server.accept();
    let mut table = LeaseTable::new(0);
    let expected = pattern(7, 12_000_000);
    let view = Shared::from(expected.clone());
    let chunk = Chunk::Leased(table.lend(&view));
    server.ring.send(socket, vec![chunk]);
    let mut completions = Vec::new();
    // Until the kernel's buffers have a part of it, so that it is the rest of a send that is in flight.
    while server.ring.unsent_bytes(socket) == expected.len() {
        server.ring.turn(&mut completions, 64).expect("a turn");
        assert!(completions.is_empty(), "the peer reads nothing");
        assert!(monotonic_us() < server.give_up_us, "nothing is sent");
    }
    server.ring.copy_out_unsent(socket);
    server.run(|_, completion| match completion {
        Completion::Sent { released, .. } => {
            for chunk in released {
                if let Chunk::Leased(lease) = chunk {
                    table.give_back(lease);
                }
            }
            table.lent_count() == 0
        }
        _ => false,
    });
    assert!(server.ring.unsent_bytes(socket) > 0, "nobody has read");
    go.send(()).unwrap();
    server.ring.close_after_sends(socket);
    server.run(|_, completion| matches!(completion, Completion::Closed { .. }));
    assert!(peer.join().unwrap() == expected);
}

#[test]
fn closing_now_returns_what_was_not_sent() {
    let mut server = Server::new(RingConfig::default());
    let (peer, go) = slow_reader(server.address);
    let socket = server.accept();
    let total = 40;
    for _ in 0..total {
        let chunk = Chunk::Local(Shared::from(vec![1u8; 1_000_000]));
        server.ring.send(socket, vec![chunk]);
    }
    let mut back = 0;
    server.run(|ring, completion| {
        match completion {
            Completion::Sent { released, .. } => {
                back += released.len();
                ring.close(socket);
            }
            Completion::Closed { released, .. } => {
                back += released.len();
                return true;
            }
            _ => {}
        }
        false
    });
    assert_eq!(back, total, "every chunk comes back once");
    go.send(()).unwrap();
    assert!(peer.join().unwrap().len() < total * 1_000_000);
    // A socket that is gone gives chunks straight back.
    server
        .ring
        .send(socket, vec![Chunk::Local(Shared::empty())]);
    server.run(|_, completion| matches!(completion, Completion::Sent { released, .. } if released.len() == 1));
}

#[test]
fn a_large_message_is_received_into_one_buffer_in_order() {
    let mut server = Server::new(RingConfig::default());
    let address = server.address;
    let head = 10_000;
    let body = 5_000_000;
    let tail = 3_000;
    let data = pattern(99, head + body + tail);
    let sent = data.clone();
    let peer = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).expect("connects");
        for piece in sent.chunks(70_001) {
            stream.write_all(piece).expect("writes");
        }
    });
    let socket = server.accept();
    server.ring.resume_receive(socket);
    let mut before = Vec::new();
    let mut direct = None;
    let mut after = Vec::new();
    let mut direct_bytes = 0;
    let mut completions = Vec::new();
    let mut ended = false;
    while !ended {
        let count = server.ring.turn(&mut completions, 8).unwrap();
        for completion in completions.drain(..) {
            match completion {
                Completion::Received { bytes, .. } if direct_bytes == 0 => {
                    before.extend_from_slice(&bytes);
                }
                Completion::Received { bytes, .. } => {
                    assert!(direct.is_some(), "nothing overtakes the direct receive");
                    after.extend_from_slice(&bytes);
                }
                Completion::ReceivedInto { buf, .. } => direct = Some(buf),
                Completion::ReceiveEnded { .. } => ended = true,
                other => panic!("{other:?}"),
            }
        }
        // Only when all that was received is handled can the rest be asked for.
        if direct_bytes == 0 && before.len() >= head {
            direct_bytes = head + body - before.len();
            let buf = AlignedBuf::zeroed(direct_bytes + 100);
            let range = 100..100 + direct_bytes;
            let buf = IntoBuf::Aligned(buf);
            server.ring.receive_into(socket, buf, range);
            assert_eq!(server.ring.received_into(socket), Some(100));
        }
        if count == 0 {
            server.ring.sleep_blocking(1000).unwrap();
        }
        assert!(monotonic_us() < server.give_up_us, "the ring hangs");
    }
    peer.join().unwrap();
    let direct = direct.expect("the buffer filled");
    let mut got = before;
    got.extend_from_slice(&direct[100..100 + direct_bytes]);
    got.extend_from_slice(&after);
    assert!(got == data);
}

#[test]
fn a_paused_socket_delivers_nothing_new_until_it_is_resumed() {
    let mut server = Server::new(RingConfig::default());
    let address = server.address;
    let mut peer = TcpStream::connect(address).expect("connects");
    let socket = server.accept();
    server.ring.resume_receive(socket);
    peer.write_all(b"one").unwrap();
    server.run(|_, completion| matches!(completion, Completion::Received { .. }));
    server.ring.pause_receive(socket);
    // Let the cancellation end: only accepting is left with the kernel.
    let mut completions = Vec::new();
    while server.ring.in_flight_count() > 1 {
        server.ring.turn(&mut completions, 64).unwrap();
        server.ring.sleep_blocking(10).unwrap();
        assert!(monotonic_us() < server.give_up_us);
    }
    assert!(completions.is_empty());
    peer.write_all(b"two").unwrap();
    server.ring.sleep_blocking(50).unwrap();
    server.ring.turn(&mut completions, 64).unwrap();
    assert!(completions.is_empty(), "paused: {completions:?}");
    server.ring.resume_receive(socket);
    server.run(|_, completion| match completion {
        Completion::Received { bytes, .. } => {
            assert_eq!(&bytes[..], b"two");
            true
        }
        _ => false,
    });
}

#[test]
fn a_port_that_somebody_listens_on_is_refused_even_when_shared() {
    let group = Listener::bind_group("127.0.0.1:0".parse().unwrap(), 2).expect("free");
    let taken = group[0].local();
    assert_eq!(group[1].local(), taken, "one port for all cores");
    let error = Listener::bind_group(taken, 1).expect_err("taken by a sharing group");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let ordinary = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = Listener::bind_group(ordinary.local_addr().unwrap(), 1).expect_err("taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn after_stop_accepting_nobody_gets_in() {
    let mut server = Server::new(RingConfig::default());
    let address = server.address;
    server.ring.stop_accepting();
    let mut completions = Vec::new();
    while server.ring.in_flight_count() > 0 {
        server.ring.turn(&mut completions, 64).unwrap();
        server.ring.sleep_blocking(10).unwrap();
        assert!(monotonic_us() < server.give_up_us);
    }
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_sleeping_ring_is_woken_by_another_thread_and_by_its_timer() {
    let mut ring = Ring::new(RingConfig::default()).unwrap();
    let waker = ring.waker();
    let start_us = monotonic_us();
    let other = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        waker.wake();
    });
    ring.sleep_blocking(60_000).unwrap();
    assert!(
        monotonic_us() - start_us < 50_000_000,
        "woken, not timed out"
    );
    other.join().unwrap();

    let start_us = monotonic_us();
    ring.set_timer(start_us + 40_000_000);
    // An earlier time replaces a later one, and a later one does not replace an earlier one.
    ring.set_timer(start_us + 20_000);
    ring.set_timer(start_us + 30_000_000);
    let mut completions = Vec::new();
    while ring.turn(&mut completions, 8).unwrap() == 0 || completions.is_empty() {
        ring.sleep_blocking(30_000).unwrap();
    }
    assert!(matches!(completions[..], [Completion::Timer]));
    assert!(monotonic_us() >= start_us + 20_000);
}

#[test]
fn dropping_a_busy_ring_lets_go_of_everything() {
    let mut server = Server::new(RingConfig::default());
    let (peer, go) = slow_reader(server.address);
    let socket = server.accept();
    server.ring.resume_receive(socket);
    server
        .ring
        .send(socket, vec![Chunk::Local(vec![5u8; 20_000_000].into())]);
    server.ring.set_timer(monotonic_us() + 60_000_000);
    let mut completions = Vec::new();
    server.ring.turn(&mut completions, 8).unwrap();
    assert!(server.ring.in_flight_count() >= 4);
    drop(server);
    go.send(()).unwrap();
    assert!(peer.join().unwrap().len() < 20_000_000);
}

fn echo_many_on_unix(config: RingConfig) {
    let (mut server, _directory, path) = Server::on_unix(config);
    echo_peers(&mut server, move || {
        UnixStream::connect(&path).expect("connects")
    });
}

#[test]
fn unix_connections_of_all_sizes_are_echoed() {
    echo_many_on_unix(RingConfig::default());
    echo_many_on_unix(RingConfig {
        multishot_receive: false,
        ..RingConfig::default()
    });
}

#[test]
fn a_unix_peer_has_an_address_of_this_machine_and_what_it_missed_is_known() {
    let (mut server, _directory, path) = Server::on_unix(RingConfig::default());
    let mut peer = UnixStream::connect(&path).expect("connects");
    let mut socket = None;
    server.run(|_, completion| match completion {
        Completion::Accepted {
            socket: id,
            peer,
            local,
            ..
        } => {
            assert_eq!((peer, local), (UNIX_ADDRESS, UNIX_ADDRESS));
            assert_eq!(peer.to_string(), "127.0.0.1:0");
            socket = Some(id);
            true
        }
        other => panic!("unexpected {other:?}"),
    });
    let socket = socket.unwrap();
    peer.write_all(b"ten bytes.").unwrap();
    assert!(!server.ring.cannot_send(socket, 11), "it may send more");
    drop(peer);
    assert!(!server.ring.cannot_send(socket, 10), "all is there");
    assert!(server.ring.cannot_send(socket, 11));
    // What is there still arrives, and then the end.
    server.ring.resume_receive(socket);
    let mut got = Vec::new();
    server.run(|ring, completion| match completion {
        Completion::Received { bytes, .. } => {
            got.extend_from_slice(&bytes);
            false
        }
        Completion::ReceiveEnded { reason, .. } => {
            assert!(matches!(reason, EndReason::Finished));
            ring.close(socket);
            false
        }
        Completion::Closed { .. } => true,
        other => panic!("unexpected {other:?}"),
    });
    assert_eq!(got, b"ten bytes.");
}

/// One thread drives both rings, so that nothing but the kernel decides who accepts.
#[test]
fn rings_that_share_a_unix_socket_all_get_connections() {
    const CONNECTIONS: usize = 60;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let mut rings: Vec<Ring> = Listener::bind_unix_group(&path, 0o600, 2, BACKLOG_USUAL)
        .expect("listeners")
        .into_iter()
        .map(|listener| Server::on(listener, RingConfig::default()).ring)
        .collect();
    let give_up_us = monotonic_us() + GUARD.as_micros() as u64;
    let mut peers = Vec::new();
    for at_once in [1, CONNECTIONS] {
        let mut counts = [0; 2];
        while counts[0] + counts[1] < CONNECTIONS {
            for _ in 0..at_once {
                peers.push(UnixStream::connect(&path).expect("connects"));
            }
            let (before, mut idle) = (counts[0] + counts[1], false);
            // The last look submits what the accepts before it asked for.
            while counts[0] + counts[1] < before + at_once || !idle {
                idle = true;
                for (ring, count) in rings.iter_mut().zip(&mut counts) {
                    let mut completions = Vec::new();
                    idle &= ring.turn(&mut completions, 8).expect("a turn") == 0;
                    *count += completions.len();
                }
                assert!(monotonic_us() < give_up_us, "{counts:?} of {CONNECTIONS}");
            }
        }
        assert!(
            counts.iter().all(|count| *count >= CONNECTIONS / 4),
            "{at_once} at once: {counts:?}"
        );
    }
}

#[test]
fn the_file_of_a_unix_socket_has_its_mode_and_is_nobody_elses() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let bind = || Listener::bind_unix_group(&path, 0o660, 2, BACKLOG_USUAL);
    let group = bind().expect("listeners");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);
    assert!(is_unix_served(&path).unwrap());
    let error = bind().expect_err("taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    drop(group);
    assert!(!is_unix_served(&path).unwrap(), "its file is left");
    std::fs::remove_file(&path).unwrap();
    let error = is_unix_served(&path).expect_err("nothing is there");
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);

    // One that never accepts, with no room for one more, is alive all the same.
    let idle = Listener::bind_unix_group(&path, 0o600, 1, 0).expect("a listener");
    let _waiting = UnixStream::connect(&path).expect("the first that waits");
    assert!(is_unix_served(&path).unwrap());
    drop(idle);

    let long = |bytes: usize| {
        let path = directory.path().to_str().unwrap();
        PathBuf::from(format!("{path}/{}", "x".repeat(bytes - path.len() - 1)))
    };
    Listener::bind_unix_group(&long(UNIX_PATH_BYTES_MAX), 0o600, 1, 1).expect("just fits");
    let error = Listener::bind_unix_group(&long(UNIX_PATH_BYTES_MAX + 1), 0o600, 1, 1)
        .expect_err("too long");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    let ordinary = directory.path().join("ordinary");
    let _listener = UnixListener::bind(&ordinary).unwrap();
    assert!(is_unix_served(&ordinary).unwrap());
}
