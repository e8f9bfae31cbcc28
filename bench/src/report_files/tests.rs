//! Tables and files of made-up runs.

use super::*;
use crate::recorder;
use crate::results::{FORMAT, Latency, Percentiles, Second};

/// A run of a minute whose latencies are around some milliseconds.
pub fn made_up(name: &str, ms: u64) -> Run {
    let mut histogram = recorder::histogram();
    for i in 0..10_000_u64 {
        recorder::record(&mut histogram, ms * 1_000_000 + i * i * 10);
    }
    let mut run = Run {
        format: FORMAT.to_owned(),
        name: name.to_owned(),
        tool: "bench run".to_owned(),
        started_ms: 1_700_000_000_000,
        elapsed_s: 60.0,
        ..Run::default()
    };
    run.totals.records_acknowledged = 1_200_000;
    run.totals.bytes_acknowledged = 1_228_800_000;
    run.totals.rates(60.0);
    run.versions.put("broker", "Millrace <0.1.0>");
    run.durability.put("fsync", "before every acknowledgement");
    run.machine.put("kernel", "Linux 6.1");
    run.commands.put("client", "millrace bench run a&b.yaml");
    run.workload.put("producerRate", 20_000);
    for since in [Since::Intended, Since::Sent] {
        run.latencies
            .push(Latency::new("publish", since, 1, &histogram));
    }
    for second in 1..=60_u32 {
        run.seconds.push(Second {
            at_s: f64::from(second),
            length_s: 1.0,
            acknowledged: 20_000,
            acknowledged_bytes: 20_480_000,
            publish_us: Some(Percentiles::of(&histogram, 1)),
            ..Second::default()
        });
    }
    run.remarks
        .push("The generator used 0.50 of 2 cores.".to_owned());
    run
}

#[test]
fn the_table_has_a_column_for_each_run_and_its_remarks() {
    let text = table(&[made_up("one", 1), made_up("two", 2)]);
    for expected in [
        "one",
        "two",
        "published records/s",
        "20,000",
        "19.53",
        "* two: The generator used",
    ] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
    assert!(!text.contains("consumed"), "nothing was consumed:\n{text}");
}

#[test]
fn numbers_are_short() {
    assert_eq!(
        [0.0123, 1.0, 12_345.0, 123_456.0].map(ms),
        ["0.000", "0.001", "12.3", "123"]
    );
    assert_eq!(grouped(1_234_567.891, 1), "1,234,567.9");
    assert_eq!(grouped(-123_456.0, 0), "-123,456");
    assert_eq!(grouped(999.0, 0), "999");
    assert_eq!(
        slug("1 topic / 16 partitions / 1Kb"),
        "1-topic-16-partitions-1kb"
    );
    assert_eq!(slug("///"), "run");
}

#[test]
fn a_report_is_made_anew_from_its_result() {
    let directory = tempfile::tempdir().unwrap();
    write_run(directory.path(), None, &made_up("one", 1)).unwrap();
    let json = directory.path().join("run.json");
    assert!(directory.path().join("publish-intended.hgrm").is_file());
    let output = directory.path().join("again");
    run(&Arguments {
        runs: vec![json.clone(), json],
        name: vec!["first".to_owned()],
        output: output.clone(),
    })
    .unwrap();
    let text = std::fs::read_to_string(output.join("report.txt")).unwrap();
    assert!(text.contains("first") && text.contains("one"));
    for name in [
        "report.html",
        "publish-by-percentile.svg",
        "throughput-over-time.png",
    ] {
        assert!(output.join(name).is_file(), "{name}");
    }
    let why = run(&Arguments {
        runs: vec![output.join("report.txt")],
        name: Vec::new(),
        output,
    })
    .unwrap_err();
    assert!(why.0.contains("is no result"), "{why}");
}
