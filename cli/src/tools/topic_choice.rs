//! Which topics a consumer reads when a pattern names them. Main thread; asks the cluster through librdkafka and matches in Java's syntax, which librdkafka does not speak.

use std::time::{Duration, Instant};

use bench::clock;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;

use super::regex::{Whole, is_internal};

/// How often an empty match is tried anew.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a match is looked at again: Java's `metadata.max.age.ms`.
const AGE: Duration = Duration::from_secs(300);

/// A pattern and what it matched.
pub struct Choice {
    pattern: Whole,
    topics: Vec<String>,
    looked: Option<Instant>,
}

impl Choice {
    /// Nothing is looked up yet.
    pub fn new(pattern: Whole) -> Choice {
        Choice {
            pattern,
            topics: Vec::new(),
            looked: None,
        }
    }

    /// Subscribes to what matches now, if it is time to look and something changed.
    pub fn refresh<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>) -> KafkaResult<()> {
        let wait = if self.topics.is_empty() {
            PATIENCE
        } else {
            AGE
        };
        if self.looked.is_some_and(|at| at.elapsed() < wait) {
            return Ok(());
        }
        let metadata = consumer.fetch_metadata(None, Duration::from_secs(60))?;
        self.looked = Some(clock::now());
        let mut topics: Vec<String> = metadata
            .topics()
            .iter()
            .map(|topic| topic.name())
            .filter(|name| !is_internal(name) && self.pattern.matches(name))
            .map(str::to_owned)
            .collect();
        topics.sort();
        if topics != self.topics {
            self.topics = topics;
            let names: Vec<&str> = self.topics.iter().map(String::as_str).collect();
            if !names.is_empty() {
                consumer.subscribe(&names)?;
            }
        }
        Ok(())
    }
}
