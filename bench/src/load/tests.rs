//! The generator's requests against the broker's codec, and whole runs against the bare loop.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use net::kafka::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use net::kafka::{ApiKey, ResponseHeader, decode_header};
use net::wire::Writer;
use storage::batch::BatchView;

use super::*;
use crate::bare::{Journal, Server};
use crate::load::kafka::PRODUCE_VERSION;
use crate::load::summary::Summary;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn arguments(options: &[&str]) -> Arguments {
    let line = ["load", "--bootstrap-server", "127.0.0.1:1"].iter();
    Line::parse_from(line.chain(options)).arguments
}

fn wire(acks: i16) -> KafkaWire {
    let batch = Batch {
        records: 2,
        value_bytes: 1000,
    };
    KafkaWire::new("a-topic", acks, batch, 1_700_000_000_000)
}

#[test]
fn a_request_is_what_the_broker_reads() {
    let prepared = wire(-1).prepare(77, &[3, 9], &mut Random::new(5));
    let (size, frame) = prepared.bytes.split_first_chunk::<4>().unwrap();
    assert_eq!(u32::from_be_bytes(*size) as usize, frame.len());
    let (header, mut reader) = decode_header(frame).unwrap();
    assert_eq!(
        (header.api_key, header.api_version, header.correlation_id),
        (ApiKey::Produce, PRODUCE_VERSION, 77)
    );
    let request = ProduceRequest::decode(&mut reader, PRODUCE_VERSION).unwrap();
    assert_eq!(reader.remaining(), 0);
    assert_eq!((request.acks, request.transactional_id), (-1, None));
    assert_eq!(request.topic_data[0].name, "a-topic");
    let parts = &request.topic_data[0].partition_data;
    assert_eq!(parts.iter().map(|p| p.index).collect::<Vec<_>>(), [3, 9]);
    for part in parts {
        let batch = BatchView::new(part.records.unwrap()).unwrap();
        batch.verify().unwrap();
        assert_eq!(batch.header().records_count(), 2);
        assert!(batch.len_bytes() > 2000);
    }
    assert_ne!(parts[0].records, parts[1].records);
    assert_eq!((prepared.records, prepared.value_bytes), (4, 4000));
}

fn answer(correlation_id: i32, parts: Vec<PartitionProduceResponse<'_>>) -> Vec<u8> {
    let mut writer = Writer::framed();
    ResponseHeader { correlation_id }.encode(&mut writer, ApiKey::Produce, PRODUCE_VERSION);
    ProduceResponse {
        responses: vec![TopicProduceResponse {
            name: "a-topic".into(),
            partition_responses: parts,
            ..TopicProduceResponse::default()
        }],
        ..ProduceResponse::default()
    }
    .encode(&mut writer, PRODUCE_VERSION);
    writer.into_bytes()
}

fn part(index: i32, error_code: i16) -> PartitionProduceResponse<'static> {
    PartitionProduceResponse {
        index,
        error_code,
        base_offset: if error_code == 0 { 12 } else { -1 },
        ..PartitionProduceResponse::default()
    }
}

#[test]
fn an_answer_is_a_yes_only_if_it_says_yes_for_every_partition() {
    let wire = wire(-1);
    let request = wire.prepare(4, &[3, 9], &mut Random::new(5));
    let check = |parts| {
        let answer = answer(4, parts);
        assert_eq!(wire.answer_bytes(&answer[..3]), Ok(None));
        assert_eq!(wire.answer_bytes(&answer), Ok(Some(answer.len())));
        assert_eq!(wire.number(&answer), Ok(4));
        wire.check(&answer, &request)
    };
    assert_eq!(check(vec![part(3, 0), part(9, 0)]), Ok(()));
    assert_eq!(check(vec![part(9, 0), part(3, 0)]), Ok(()));
    let refused = check(vec![part(3, 0), part(9, 6)]).unwrap_err();
    assert!(
        refused.contains("partition 9") && refused.contains("NOT_LEADER_OR_FOLLOWER"),
        "{refused}"
    );
    assert!(
        check(vec![part(3, 0)])
            .unwrap_err()
            .contains("partition 9 has no answer")
    );
    assert!(check(vec![part(3, 0), part(8, 0)]).is_err());
    assert!(check(vec![part(3, 0), part(3, 0)]).is_err());
    let whole = answer(4, vec![part(3, 0), part(9, 0)]);
    for end in 8..whole.len() {
        assert!(wire.check(&whole[..end], &request).is_err(), "{end}");
    }
    assert!(wire.answer_bytes(&(-1i32).to_be_bytes()).is_err());
}

#[test]
fn options_have_sound_defaults_and_bounds() {
    let closed = arguments(&["--connections", "64"]);
    assert_eq!(
        (closed.in_flight(), closed.partitions(), closed.acks),
        (1, 64, -1)
    );
    assert_eq!(arguments(&["--rate", "20000"]).in_flight(), 32);
    assert_eq!(arguments(&["--acks", "-1"]).acks, -1);
    assert_eq!(arguments(&["--acks", "0"]).acks, 0);
    let wrong: [&[&str]; 5] = [
        &["--acks", "2"],
        &["--rate", "0"],
        &["--connections", "0"],
        &["--seconds", "-1"],
        &["--bare", "--create-topic"],
    ];
    for options in wrong {
        let line = ["load", "--bootstrap-server", "127.0.0.1:1"].iter();
        assert!(
            Line::try_parse_from(line.chain(options)).is_err(),
            "{options:?}"
        );
    }
}

#[test]
fn a_unix_socket_is_for_the_native_protocol() {
    let mut kafka = arguments(&[]);
    kafka.bootstrap_server = "unix:/nowhere/at/all".to_owned();
    let why = run(&kafka).expect_err("no Kafka there").0;
    assert!(why.ends_with("takes --protocol native"), "{why}");
    let mut native = arguments(&["--protocol", "native"]);
    native.bootstrap_server = kafka.bootstrap_server;
    let why = run(&native).expect_err("nobody is there").0;
    assert!(why.contains("unix:/nowhere/at/all: No such file"), "{why}");
}

/// Runs the generator against a bare loop of its own.
fn against_bare(options: &[&str]) -> Result<Summary, Failure> {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::create(&directory.path().join("journal"), 64 << 20, false).unwrap();
    let mut server = Server::bind((Ipv4Addr::LOCALHOST, 0).into(), journal, false).unwrap();
    let address = server.local().to_string();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let serving = std::thread::spawn(move || server.serve(&stopped).unwrap());
    let mut arguments = arguments(options);
    arguments.bare = true;
    arguments.bootstrap_server = address;
    arguments.warmup_seconds = Duration::from_millis(50);
    arguments.seconds = Duration::from_millis(300);
    let outcome = Cluster::find(&arguments).and_then(|cluster| kafka(&arguments, &cluster));
    stop.store(true, Ordering::Relaxed);
    serving.join().unwrap();
    outcome
}

#[test]
fn a_closed_loop_runs_and_counts() {
    let summary = against_bare(&[
        "--connections",
        "4",
        "--in-flight",
        "3",
        "--record-size",
        "100",
    ])
    .unwrap();
    let measured = &summary.measured;
    assert!(measured.requests > 0);
    assert_eq!(measured.value_bytes, measured.requests * 100);
    // In a closed loop a request is due when it is sent.
    assert_eq!(measured.latencies.intended_us, measured.latencies.actual_us);
    let told = summary.json();
    assert_eq!(told["workload"]["partitions"], 4);
    let age_ms = crate::clock::wall_ms() - told["started_ms"].as_i64().unwrap();
    assert!((0..3_600_000).contains(&age_ms), "{age_ms}");
    assert!(told["latency_from_intended_us"]["histogram"].is_string());
    assert!(summary.text().contains("requests/s"));
}

#[test]
fn an_open_loop_sends_every_request_that_was_due() {
    let options = [
        "--connections",
        "2",
        "--partitions",
        "6",
        "--partitions-per-request",
        "3",
    ];
    let summary = against_bare(&[&options[..], &["--rate", "500"]].concat()).unwrap();
    // 0.3 s of 500 a second, whatever the broker did; the window begins within a request of its time.
    let count = summary.measured.latencies.intended_us.len();
    assert!((149..=151).contains(&count) || count < 149 && summary.measured.window_seconds < 0.299);
    assert_eq!(summary.measured.latencies.actual_us.len(), count);
    assert_eq!(summary.measured.records, summary.measured.requests * 3);
}

#[test]
fn a_counted_run_sends_exactly_so_many() {
    let options = [
        "--connections",
        "3",
        "--in-flight",
        "2",
        "--requests",
        "100",
    ];
    let summary = against_bare(&options).unwrap();
    assert_eq!(summary.measured.requests, 100);
    assert_eq!(summary.measured.latencies.actual_us.len(), 100);
}

#[test]
fn several_threads_are_told_as_one() {
    // Which cores a test may use is the machine's affair, but it has the one it runs on.
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let cores: Vec<String> = (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .take(2)
        .map(|core| core.to_string())
        .collect();
    let (connections, cores) = (cores.len().to_string(), cores.join(","));
    let options = ["--core", &cores, "--connections", &connections];
    let summary = against_bare(&[&options[..], &["--requests", "101"]].concat()).unwrap();
    assert_eq!(summary.measured.requests, 101);
    assert_eq!(summary.measured.latencies.intended_us.len(), 101);
    let told: u64 = summary.measured.seconds.iter().map(|s| s.requests).sum();
    assert_eq!(told, 101);
    // In an open loop all threads together keep the rate.
    let summary = against_bare(&[&options[..], &["--rate", "500"]].concat()).unwrap();
    let count = summary.measured.latencies.intended_us.len();
    assert!((148..=152).contains(&count) || count < 148 && summary.measured.window_seconds < 0.299);
}

#[test]
fn cores_that_make_no_sense_are_refused() {
    let refusal = |options: &[&str]| arguments(options).check_cores().unwrap_err().0;
    assert!(refusal(&["--core", "0,1"]).contains("--connections 1"));
    assert!(refusal(&["--core", "1,1", "--connections", "2"]).contains("twice"));
}

#[test]
fn without_acks_nothing_is_waited_for() {
    let summary = against_bare(&["--acks", "0", "--record-size", "10"]).unwrap();
    assert!(summary.measured.requests > 0);
}

#[test]
fn a_broker_that_hangs_up_fails_the_run() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let hanging_up = std::thread::spawn(move || drop(listener.accept()));
    let mut arguments = arguments(&[]);
    arguments.bare = true;
    arguments.bootstrap_server = address;
    let cluster = Cluster::find(&arguments).unwrap();
    let failure = kafka(&arguments, &cluster).unwrap_err();
    hanging_up.join().unwrap();
    assert!(failure.0.contains("connection 0"), "{failure}");
}
