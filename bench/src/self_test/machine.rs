//! Clock, cores, memory and loopback. The calling thread and helpers; knows no broker.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::thread::{CpuSet, sched_getaffinity};

use super::{Measure, Part};
use crate::recorder::{self, record};
use crate::{Failure, clock, environment, process};

/// How long a sender of an open loop may sleep at least.
const SLEEP: Duration = Duration::from_micros(100);
/// How often something could be due that needs a core.
const DUE_EACH_NS: u64 = 10_000;
const KIB: usize = 1024;

/// What reading the clock costs, and how late a sleep ends.
pub fn timer(each: Duration) -> Result<Part, Failure> {
    let mut reads = 0_u64;
    let begin = clock::now();
    while begin.elapsed() < each {
        for _ in 0..1000 {
            black_box(clock::now());
        }
        reads += 1000;
    }
    let read_ns = begin.elapsed().as_nanos() as f64 / reads as f64;
    let reading = Measure {
        name: format!("reading the clock, {read_ns:.0} ns each"),
        per_s: 1e9 / read_ns,
        mib_per_s: None,
        p50_us: None,
        p99_us: None,
        p99_9_us: None,
    };
    // A thread of its own, so that the precision is not this thread's from then on.
    let sleeper = std::thread::spawn(move || {
        environment::wake_exactly();
        let mut late_ns = recorder::histogram();
        let begin = clock::now();
        while begin.elapsed() < each || late_ns.is_empty() {
            let before = clock::now();
            std::thread::sleep(SLEEP);
            let late = before.elapsed().saturating_sub(SLEEP);
            record(&mut late_ns, late.as_nanos() as u64);
        }
        (late_ns, begin.elapsed())
    });
    let (late_ns, elapsed) = sleeper
        .join()
        .map_err(|_| Failure("the thread that sleeps failed".to_owned()))?;
    let sleeping = Measure::timed(
        "a sleep of 100 us ends late by".to_owned(),
        &late_ns,
        elapsed,
        0,
    );
    let late_us = sleeping.p99_us.unwrap_or(0.0);
    let judgement = format!(
        "{} An open loop that sleeps sends up to {late_us:.0} us late in 99 of 100 cases{}.",
        if read_ns < 200.0 {
            "The clock is cheap to read."
        } else {
            "The clock is slow to read: the kernel does not trust the processor's counter, and every latency contains that."
        },
        if late_us > 500.0 {
            ", which is much: another program takes the cores"
        } else {
            ""
        }
    );
    Ok(Part {
        title: "clock".to_owned(),
        measures: vec![reading, sleeping],
        judgement,
    })
}

/// How long each core stands still while all of them are busy: what the kernel, other programs and a host take.
pub fn standstill(each: Duration) -> Result<Part, Failure> {
    let allowed = sched_getaffinity(None).map_err(std::io::Error::from)?;
    let threads: Vec<_> = (0..CpuSet::MAX_CPU)
        .filter(|&core| allowed.is_set(core))
        .map(|core| (core, std::thread::spawn(move || waits_for_core(core, each))))
        .collect();
    let mut measures = Vec::new();
    let (mut worst_core, mut p99_9_us, mut max_us) = (0, 0.0, 0.0);
    for (core, thread) in threads {
        let (waits_ns, elapsed) = thread
            .join()
            .map_err(|_| Failure("a thread that keeps a core busy failed".to_owned()))??;
        let measure = Measure::timed(
            format!("core {core}, wanted every 10 us, comes late by"),
            &waits_ns,
            elapsed,
            0,
        );
        let longest_us = waits_ns.max() as f64 / 1000.0;
        if longest_us >= max_us {
            (worst_core, max_us) = (core, longest_us);
        }
        p99_9_us = measure.p99_9_us.unwrap_or(0.0).max(p99_9_us);
        measures.push(measure);
    }
    Ok(Part {
        title: "cores".to_owned(),
        measures,
        judgement: format!(
            "With all cores busy, core {worst_core} stood still for {max_us:.0} us once, and one moment in a thousand comes {p99_9_us:.0} us \
             late: {}.",
            if p99_9_us < 200.0 {
                "a p99.9 much above that is the broker's"
            } else {
                "another program or the host takes the cores, and every p99.9 on this machine contains that"
            }
        ),
    })
}

/// Keeps a core busy, and takes how late each moment came that something could have been due at.
fn waits_for_core(core: usize, each: Duration) -> Result<(Histogram<u64>, Duration), Failure> {
    process::pin_to(core)?;
    let mut waits_ns = recorder::histogram();
    let (begin, end_ns) = (clock::now(), each.as_nanos() as u64);
    let mut due_ns = 0;
    loop {
        let now_ns = begin.elapsed().as_nanos() as u64;
        while due_ns <= now_ns {
            record(&mut waits_ns, now_ns - due_ns);
            due_ns += DUE_EACH_NS;
        }
        if now_ns >= end_ns {
            return Ok((waits_ns, begin.elapsed()));
        }
    }
}

/// Copying within memory.
pub fn memory(each: Duration) -> Result<Part, Failure> {
    let mut measures = Vec::new();
    for (bytes, place) in [
        (16 * KIB, "16 KiB, in the cache"),
        (64 * KIB * KIB, "64 MiB, in memory"),
    ] {
        let from = vec![1_u8; bytes];
        let mut to = vec![2_u8; bytes];
        let mut times = 0_u64;
        let begin = clock::now();
        while begin.elapsed() < each || times == 0 {
            to.copy_from_slice(black_box(&from));
            black_box(&mut to);
            times += 1;
        }
        measures.push(Measure::moved(
            format!("copy {place}"),
            times * bytes as u64,
            times,
            begin.elapsed(),
        ));
    }
    let gib = measures[1].mib_per_s.unwrap_or(0.0) / 1024.0;
    Ok(Part {
        title: "memory".to_owned(),
        measures,
        judgement: format!(
            "Each copy of data that is not in the cache costs a core {:.2} s per GB.",
            1e9 / (1 << 30) as f64 / gib.max(1e-9)
        ),
    })
}

/// Round trips and a stream between two threads.
pub fn loopback(each: Duration) -> Result<Part, Failure> {
    let mut measures = Vec::new();
    for bytes in [64, KIB, 16 * KIB] {
        measures.push(round_trips(bytes, each)?);
    }
    measures.push(stream(each)?);
    let (p50, p99) = (
        measures[1].p50_us.unwrap_or(0.0),
        measures[1].p99_us.unwrap_or(0.0),
    );
    let judgement = format!(
        "A round trip of 1 KiB takes {p50:.0} us, {p99:.0} us at p99, with nothing behind it: {}.",
        if p50 < 60.0 {
            "what a broker takes beyond that is its own"
        } else {
            "much of a broker's latency here is this machine's way of waking threads"
        }
    );
    Ok(Part {
        title: "loopback".to_owned(),
        measures,
        judgement,
    })
}

fn pair() -> Result<(TcpStream, TcpStream), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    for socket in [&near, &far] {
        socket.set_nodelay(true)?;
    }
    Ok((near, far))
}

fn round_trips(bytes: usize, each: Duration) -> Result<Measure, Failure> {
    let (mut near, mut far) = pair()?;
    let echo = std::thread::spawn(move || {
        let mut buffer = vec![0; bytes];
        // The other side closes at the end.
        while far.read_exact(&mut buffer).is_ok() && far.write_all(&buffer).is_ok() {}
    });
    let mut buffer = vec![7; bytes];
    let mut latencies_ns = recorder::histogram();
    let begin = clock::now();
    while begin.elapsed() < each || latencies_ns.is_empty() {
        let sent = clock::now();
        near.write_all(&buffer)?;
        near.read_exact(&mut buffer)?;
        record(&mut latencies_ns, sent.elapsed().as_nanos() as u64);
    }
    let elapsed = begin.elapsed();
    drop(near);
    let _ = echo.join();
    let size = if bytes < KIB {
        format!("{bytes} B")
    } else {
        format!("{} KiB", bytes / KIB)
    };
    Ok(Measure::timed(
        format!("round trip of {size}"),
        &latencies_ns,
        elapsed,
        0,
    ))
}

fn stream(each: Duration) -> Result<Measure, Failure> {
    let (mut near, mut far) = pair()?;
    let sink = std::thread::spawn(move || {
        let mut buffer = vec![0; 256 * KIB];
        let mut total = 0_u64;
        while let Ok(count) = far.read(&mut buffer) {
            if count == 0 {
                break;
            }
            total += count as u64;
        }
        total
    });
    let block = vec![7; 256 * KIB];
    let mut times = 0;
    let begin = clock::now();
    while begin.elapsed() < each || times == 0 {
        near.write_all(&block)?;
        times += 1;
    }
    drop(near);
    let total = sink.join().unwrap_or(0);
    Ok(Measure::moved(
        "stream in pieces of 256 KiB".to_owned(),
        total,
        times,
        begin.elapsed(),
    ))
}
