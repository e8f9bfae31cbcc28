//! What a run asks of the broker beside records: its topics, and what it says of itself. The calling thread; knows no workload.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::ClientConfig;

use crate::context::Quiet;
use crate::kafka_config::Properties;
use crate::results::Facts;
use crate::{Failure, clock};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Topics of one request.
const TOPICS_AT_ONCE: usize = 200;

/// A connection for administration.
pub struct Cluster {
    admin: AdminClient<Quiet>,
}

/// Wakes the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(TIMEOUT))
        .operation_timeout(Some(TIMEOUT))
}

impl Cluster {
    /// Connects with a producer's configuration.
    pub fn connect(producer: &ClientConfig) -> Result<Cluster, Failure> {
        let mut config = ClientConfig::new();
        for (name, value) in producer.config_map() {
            // What concerns connections; the rest would only draw warnings.
            let common = [
                "bootstrap.servers",
                "security.",
                "sasl.",
                "ssl.",
                "client.id",
                "socket.",
                "reconnect.",
                "enable.metrics",
            ];
            if common.iter().any(|prefix| name.starts_with(prefix)) {
                config.set(name, value);
            }
        }
        let admin: AdminClient<Quiet> = config.create_with_context(Quiet::default())?;
        admin
            .inner()
            .fetch_metadata(None, Duration::from_secs(10))
            .map_err(|error| {
                let servers = config.get("bootstrap.servers").unwrap_or_default();
                Failure(format!("no broker answers at {servers}: {error}"))
            })?;
        Ok(Cluster { admin })
    }

    /// Makes topics and waits until every partition has a leader.
    pub fn create(
        &self,
        topics: &[String],
        partitions: u32,
        replication_factor: i32,
        configs: &Properties,
        patience: Duration,
    ) -> Result<(), Failure> {
        for some in topics.chunks(TOPICS_AT_ONCE) {
            let wanted: Vec<NewTopic<'_>> = some
                .iter()
                .map(|name| {
                    let replication = TopicReplication::Fixed(replication_factor);
                    let topic = NewTopic::new(name, partitions as i32, replication);
                    configs
                        .iter()
                        .fold(topic, |topic, (key, value)| topic.set(key, value))
                })
                .collect();
            for made in wait(self.admin.create_topics(&wanted, &options()))? {
                made.map_err(|(topic, code)| {
                    Failure(format!("topic {topic} cannot be made: {code}"))
                })?;
            }
        }
        let begin = clock::now();
        for topic in topics {
            loop {
                let metadata = self.admin.inner().fetch_metadata(Some(topic), TIMEOUT)?;
                let led = metadata.topics().first().map_or(0, |topic| {
                    topic
                        .partitions()
                        .iter()
                        .filter(|partition| partition.leader() >= 0)
                        .count()
                });
                if led == partitions as usize {
                    break;
                }
                if begin.elapsed() > patience {
                    return Err(Failure(format!(
                        "topic {topic} has leaders for {led} of {partitions} partitions after {} s",
                        patience.as_secs()
                    )));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// Deletes the topics.
    pub fn delete(&self, topics: &[String]) -> Result<(), Failure> {
        for some in topics.chunks(TOPICS_AT_ONCE) {
            let names: Vec<&str> = some.iter().map(String::as_str).collect();
            for deleted in wait(self.admin.delete_topics(&names, &options()))? {
                deleted.map_err(|(topic, code)| Failure(format!("{topic}: {code}")))?;
            }
        }
        Ok(())
    }

    /// Versions and durability, as the broker tells; what it does not tell is left out.
    pub fn facts(&self, topic: &str, servers: &str) -> (Facts, Facts) {
        let mut versions = Facts::default();
        versions.put(
            "bench tool",
            format!("Millrace {}", env!("CARGO_PKG_VERSION")),
        );
        let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
        versions.put("client", format!("librdkafka {librdkafka}"));
        let options = net::client::Options {
            call_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(3),
            ..net::client::Options::default()
        };
        if let Ok(mut client) = net::client::Client::new(servers, options)
            && let Ok(served) = client.versions(net::client::Target::Any)
        {
            let range = |key: i16| {
                served
                    .iter()
                    .find(|versions| versions.api_key == key)
                    .map_or_else(|| "-".to_owned(), |v| format!("{}-{}", v.min, v.max))
            };
            versions.put(
                "protocol",
                format!(
                    "{} APIs; Produce {}, Fetch {}, ApiVersions {}",
                    served.len(),
                    range(0),
                    range(1),
                    range(18)
                ),
            );
        }
        (versions, self.durability(topic))
    }

    fn durability(&self, topic: &str) -> Facts {
        let mut facts = Facts::default();
        let asked = [ResourceSpecifier::Topic(topic)];
        let Ok(answers) = wait(self.admin.describe_configs(&asked, &options())) else {
            return facts;
        };
        let Some(Ok(resource)) = answers.into_iter().next() else {
            return facts;
        };
        let value = |name: &str| {
            resource
                .entries
                .iter()
                .find(|entry| entry.name == name)
                .and_then(|entry| entry.value.clone())
        };
        if let Some(messages) = value("flush.messages") {
            facts.put("fsync", fsync_mode(&messages));
            facts.put("flush.messages", messages);
        }
        for name in ["flush.ms", "min.insync.replicas"] {
            if let Some(value) = value(name) {
                facts.put(name, value);
            }
        }
        if let Ok(metadata) = self.admin.inner().fetch_metadata(Some(topic), TIMEOUT)
            && let Some(partition) = metadata
                .topics()
                .first()
                .and_then(|topic| topic.partitions().first())
        {
            facts.put("replicas", partition.replicas().len());
            facts.put("brokers", metadata.brokers().len());
        }
        facts
    }
}

/// What a topic's flush.messages means.
fn fsync_mode(messages: &str) -> String {
    match messages.parse::<u64>() {
        Ok(1) => "before every acknowledgement (flush.messages=1)".to_owned(),
        Ok(count) if count >= i64::MAX as u64 => {
            "never forced: an acknowledged record may be in memory only".to_owned()
        }
        Ok(count) => format!("every {count} records (flush.messages={count})"),
        Err(_) => format!("flush.messages={messages}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fsync_mode_is_said_in_words() {
        assert!(fsync_mode("1").starts_with("before every acknowledgement"));
        assert!(fsync_mode("9223372036854775807").starts_with("never forced"));
        assert_eq!(fsync_mode("100"), "every 100 records (flush.messages=100)");
    }

    #[test]
    fn a_future_is_waited_for() {
        assert_eq!(wait(async { 7 }), 7);
    }
}
