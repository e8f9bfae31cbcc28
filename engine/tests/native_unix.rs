//! A whole broker that serves the native protocol on a Unix socket and on nothing else, with the blocking
//! client: the connections of a client, its producer and its consumer, and what becomes of the file.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use client::blocking::Client;
use client::{ProducerConfig, Window};
use millrace_engine::start::{Cores, StartOptions, run};
use signal_hook::consts::SIGTERM;

/// How often something that another thread does is looked for.
const PAUSE: Duration = Duration::from_millis(20);

/// How often it is looked for before it counts as hanging: a minute.
const LOOKS: usize = 3_000;

fn options(directory: &Path) -> StartOptions {
    let data = directory.join("data");
    let socket = directory.join("native.sock");
    StartOptions {
        config_file: None,
        overrides: vec![
            format!("log.dirs={}", data.display()),
            "listeners=PLAINTEXT://127.0.0.1:0".to_owned(),
            "http.listener=".to_owned(),
            "native.listener=".to_owned(),
            format!("native.unix.socket={}", socket.display()),
        ],
        cores: Some(Cores::Count(
            std::thread::available_parallelism().map_or(1, |count| count.get().min(2)),
        )),
        memory_bytes: Some(64 << 20),
    }
}

fn connect(address: &str) -> Client {
    for _ in 0..LOOKS {
        match Client::connect(address, "test") {
            Ok(client) => return client,
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
    panic!("the broker does not serve {address}");
}

fn stop(broker: JoinHandle<Result<(), String>>) {
    for _ in 0..LOOKS {
        if broker.is_finished() {
            return broker.join().expect("no panic").expect("a clean stop");
        }
        // Again and again: the broker may not listen to signals yet.
        signal_hook::low_level::raise(SIGTERM).expect("a signal");
        std::thread::sleep(PAUSE);
    }
    panic!("the broker does not stop");
}

/// One test, because a process has its signals once.
#[test]
fn a_broker_on_a_unix_socket_alone() {
    // So that a signal which comes before the broker listens to it does not end this process.
    signal_hook::flag::register(SIGTERM, Arc::new(AtomicBool::new(false))).expect("a handler");
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let socket = directory.path().join("native.sock");
    let address = format!("unix:{}", socket.display());

    // A file where the socket should be: no start, and the file stays.
    std::fs::write(&socket, "precious").expect("a file");
    let why = run(&options(directory.path())).expect_err("a file is in the way");
    let begins = format!("cannot listen on native.unix.socket={}: ", socket.display());
    assert!(why.starts_with(&begins), "{why}");
    assert_eq!(std::fs::read(&socket).expect("the file"), b"precious");
    std::fs::remove_file(&socket).expect("it is ours");

    // A socket that nobody serves is replaced.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
    let running = options(directory.path());
    let broker = std::thread::spawn(move || run(&running));
    let mut client = connect(&address);

    // One that is served is not: a second broker does not start.
    let other = directory.path().join("other");
    let mut second = options(&other);
    second
        .overrides
        .push(format!("native.unix.socket={}", socket.display()));
    let why = run(&second).expect_err("the socket is served");
    assert!(why.contains("somebody serves it"), "{why}");
    assert!(!other.exists(), "nothing was touched");

    let topic = client.topic("greetings", true).expect("a topic");
    let mut producer = client.producer(ProducerConfig::default());
    let large = vec![b'x'; 900_000];
    for value in [&b"hello"[..], &large, b"again"] {
        let sent = producer.send(topic.id, 0, None, Some(value));
        sent.expect("taken");
        producer.flush().expect("sent");
        let outcome = producer.next_outcome().expect("an outcome");
        outcome.result.expect("acknowledged");
    }
    let positions = vec![(topic.id, 0, 0)];
    let consumer = connect(&address).consumer(positions, Window::default());
    let mut consumer = consumer.expect("a subscription");
    let mut values: Vec<Vec<u8>> = Vec::new();
    while values.len() < 4 {
        if values.len() == 3 {
            // What comes while the subscription waits is delivered too.
            let sent = producer.send(topic.id, 0, None, Some(b"live"));
            sent.expect("taken");
            producer.flush().expect("sent");
        }
        let delivery = consumer.next().expect("a delivery");
        for partition in delivery.partitions() {
            for batch in partition.expect("no error").batches() {
                let mut scratch = Default::default();
                let batch = batch.expect("a whole batch");
                for record in batch.records(&mut scratch).expect("records") {
                    let record = record.expect("a whole record");
                    values.push(record.value.expect("a value").to_vec());
                }
            }
        }
    }
    assert!(
        values
            == [
                b"hello".to_vec(),
                large,
                b"again".to_vec(),
                b"live".to_vec()
            ]
    );

    // Many at once are all served, whichever core has them.
    let mut clients: Vec<Client> = (0..100).map(|_| connect(&address)).collect();
    for client in &mut clients {
        let ends = client.offsets(topic.id, [0], -1).expect("an answer");
        assert_eq!(ends, [4]);
    }

    let kind = std::fs::metadata(&socket).expect("the file").file_type();
    assert!(kind.is_socket());
    stop(broker);
    assert!(!socket.exists(), "a clean stop removes it");
}
