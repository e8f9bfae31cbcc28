//! A thread that consumes one member's share of a subscription. Knows librdkafka, stamps and windows, and no phase.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Message, Timestamp};

use super::Counter;
use crate::context::{Quiet, log_line};
use crate::recorder::Stamp;
use crate::run::shared::Shared;
use crate::{Failure, clock};

/// Starts a member of a group on one topic.
pub fn start(
    config: &ClientConfig,
    topic: &str,
    counter: Arc<Counter>,
    shared: Arc<Shared>,
) -> Result<JoinHandle<()>, Failure> {
    let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet::default())?;
    consumer.subscribe(&[topic])?;
    Ok(std::thread::Builder::new()
        .name("consumer".to_owned())
        .spawn(move || consume(&consumer, &counter, &shared))?)
}

fn consume(consumer: &BaseConsumer<Quiet>, counter: &Counter, shared: &Shared) {
    // How the run's clock stands to the wall clock, for records without a stamp.
    let wall_ms_at_start = clock::wall_ms() - (shared.now_ns() / 1_000_000) as i64;
    let mut paused = false;
    while !shared.is_stopped() {
        if shared.is_paused() != paused {
            paused = !paused;
            let assignment = consumer.assignment().unwrap_or_default();
            let changed = if paused {
                consumer.pause(&assignment)
            } else {
                consumer.resume(&assignment)
            };
            if let Err(error) = changed {
                shared.fail(format!("a consumer could not pause or go on: {error}"));
                return;
            }
        }
        match consumer.poll(Duration::from_millis(50)) {
            None => {}
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                shared.fail(format!("a consumer failed: {error}"));
                return;
            }
            Some(Err(error)) => log_line("WARN", &error.to_string()),
            Some(Ok(message)) => {
                let now_ns = shared.now_ns();
                let stamp = stamp_of(&message, wall_ms_at_start);
                if stamp == Stamp::PROBE {
                    shared.probe();
                    continue;
                }
                let bytes = (message.key_len() + message.payload_len()) as u64;
                counter.with(|window| {
                    window.received += 1;
                    window.received_bytes += bytes;
                    if shared.is_measured(stamp.intended_ns) {
                        window.end_to_end.record(stamp, now_ns);
                    }
                });
            }
        }
    }
}

/// When a record was sent: by its stamp, or by its timestamp where the value is too short.
fn stamp_of(message: &impl Message, wall_ms_at_start: i64) -> Stamp {
    if let Some(stamp) = message.payload().and_then(Stamp::read) {
        return stamp;
    }
    let at_ms = match message.timestamp() {
        Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) => ms,
        Timestamp::NotAvailable => wall_ms_at_start,
    };
    let at_ns = (at_ms - wall_ms_at_start).max(0) as u64 * 1_000_000;
    Stamp {
        intended_ns: at_ns,
        sent_ns: at_ns,
    }
}
