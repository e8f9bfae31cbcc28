//! rskafka as a client of the suite: started as `interop-rskafka MODE PLAN.json`, prints JSON lines as client_common.py says.
//! It has no groups and no idempotent producer; its headers are a map by name. Knows nothing of Millrace.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::error::Error;
use std::fmt::{Debug, Write};
use std::time::Duration;

type Outcome = Result<(), Box<dyn Error>>;

/// It sends what it is given as one batch; a broker takes 1 MiB by default.
const BATCH_BYTES: usize = 1_000_000;
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
const FETCH_BYTES_MAX: i32 = 5_000_000;
const WAIT_MS: i32 = 1000;
const TIMEOUT_MS: i32 = 30_000;

async fn step(name: &str, work: impl Future<Output = Outcome>) {
    let outcome = match tokio::time::timeout(STEP_TIMEOUT, work).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(format!("not done within {STEP_TIMEOUT:?}")),
    };
    println!(
        "{}",
        json!({"step": name, "ok": outcome.is_ok(), "error": outcome.err().unwrap_or_default()})
    );
}

fn equal<T: PartialEq + Debug>(what: &str, expected: T, got: T) -> Outcome {
    if expected == got {
        return Ok(());
    }
    Err(format!("{what}: expected {expected:?}, got {got:?}").into())
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().expect(key)
}

fn number(of: &Value, key: &str) -> i64 {
    of[key].as_i64().expect(key)
}

fn decoded(data: &Value) -> Option<Vec<u8>> {
    data.as_str()
        .map(|data| STANDARD.decode(data).expect("base64"))
}

fn encoded(data: Option<&Vec<u8>>) -> Option<String> {
    data.map(|data| STANDARD.encode(data))
}

async fn partition(client: &Client, topic: &str) -> Result<PartitionClient, Box<dyn Error>> {
    Ok(client
        .partition_client(topic, 0, UnknownTopicHandling::Retry)
        .await?)
}

async fn produce(client: &Client, job: &Value) -> Outcome {
    let codec = match text(job, "codec") {
        "none" => Compression::NoCompression,
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        other => return Err(format!("no codec {other}").into()),
    };
    let content: Value = serde_json::from_str(&std::fs::read_to_string(text(job, "records"))?)?;
    let mut batches = vec![Vec::new()];
    let mut bytes = 0;
    for one in content.as_array().expect("records") {
        let headers = one["headers"].as_array().expect("headers").iter();
        let record = Record {
            key: decoded(&one["key"]),
            value: decoded(&one["value"]),
            headers: headers
                .map(|header| {
                    (
                        header[0].as_str().expect("a name").to_string(),
                        decoded(&header[1]).expect("a value"),
                    )
                })
                .collect(),
            timestamp: DateTime::from_timestamp_millis(number(one, "timestamp")).expect("a time"),
        };
        if bytes + record.approximate_size() > BATCH_BYTES {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += record.approximate_size();
        batches.last_mut().expect("a batch").push(record);
    }
    let partition = partition(client, text(job, "topic")).await?;
    let mut offsets = Vec::new();
    for batch in batches {
        offsets.extend(partition.produce(batch, codec).await?);
    }
    equal("offsets", (0..offsets.len() as i64).collect(), offsets)
}

async fn consume(client: &Client, job: &Value) -> Outcome {
    let topic = text(job, "topic");
    let partition = partition(client, topic).await?;
    let mut next = 0;
    while next < number(job, "count") {
        let (records, _) = partition
            .fetch_records(next, 1..FETCH_BYTES_MAX, WAIT_MS)
            .await?;
        for found in records {
            let record = &found.record;
            let sum = record.value.as_ref().map(|value| {
                Sha256::digest(value)
                    .iter()
                    .fold(String::new(), |mut sum, byte| {
                        write!(sum, "{byte:02x}").expect("a string takes all");
                        sum
                    })
            });
            let headers: Vec<_> = record
                .headers
                .iter()
                .map(|(name, content)| json!([name, encoded(Some(content))]))
                .collect();
            let shown = json!({
                "offset": found.offset, "key": encoded(record.key.as_ref()), "value": sum,
                "size": record.value.as_ref().map_or(-1, |value| value.len() as i64), "headers": headers,
                "timestamp": record.timestamp.timestamp_millis(),
            });
            println!("{}", json!({"topic": topic, "record": shown}));
            next = found.offset + 1;
        }
    }
    Ok(())
}

async fn partitions(client: &Client, topic: &str) -> Result<usize, Box<dyn Error>> {
    let topics = client.list_topics().await?;
    Ok(topics
        .iter()
        .find(|one| one.name == topic)
        .map_or(0, |one| one.partitions.len()))
}

async fn admin(client: &Client, plan: &Value) -> Outcome {
    let topic = &format!("{}-admin", text(plan, "prefix"));
    let filled = &partition(client, text(plan, "group_topic")).await?;
    let controller = &client.controller_client()?;
    step("create a topic", async {
        controller.create_topic(topic, 3, 1, TIMEOUT_MS).await?;
        equal("partitions", 3, partitions(client, topic).await?)
    })
    .await;
    step("create it again", async {
        match controller.create_topic(topic, 3, 1, TIMEOUT_MS).await {
            Ok(()) => Err("a second creation of the topic is not refused".into()),
            Err(error) if error.to_string().contains("TopicAlreadyExists") => Ok(()),
            Err(error) => Err(format!("expected TopicAlreadyExists, got {error}").into()),
        }
    })
    .await;
    step("list offsets", async {
        equal(
            "latest offset",
            number(plan, "per_partition"),
            filled.get_offset(OffsetAt::Latest).await?,
        )?;
        equal(
            "earliest offset",
            0,
            filled.get_offset(OffsetAt::Earliest).await?,
        )
    })
    .await;
    step("delete records", async {
        filled.delete_records(7, TIMEOUT_MS).await?;
        equal(
            "earliest offset",
            7,
            filled.get_offset(OffsetAt::Earliest).await?,
        )
    })
    .await;
    step("delete the topic", async {
        controller.delete_topic(topic, TIMEOUT_MS).await?;
        equal("partitions", 0, partitions(client, topic).await?)
    })
    .await;
    Ok(())
}

async fn run(mode: &str, plan: &Value) -> Outcome {
    let client = &ClientBuilder::new(vec![text(plan, "bootstrap").to_string()])
        .build()
        .await?;
    if mode == "admin" {
        return admin(client, plan).await;
    }
    for job in plan["jobs"].as_array().expect("jobs") {
        match mode {
            "produce" => step(text(job, "step"), produce(client, job)).await,
            "consume" => step(text(job, "step"), consume(client, job)).await,
            _ => return Err(format!("no mode {mode}").into()),
        }
    }
    Ok(())
}

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().collect();
    let plan = serde_json::from_str(&std::fs::read_to_string(&arguments[2])?)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(&arguments[1], &plan))
}
