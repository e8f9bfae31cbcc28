//! Load generators and latency reports: what the perf tools run and what benches reuse. Ordinary threads; knows Kafka only through librdkafka, and nothing of the broker's insides.
#![forbid(unsafe_code)]

pub mod bare;
pub mod charts;
pub mod clock;
pub mod command;
pub mod consumer_perf;
pub mod context;
pub mod e2e_latency;
pub mod echo;
pub mod environment;
pub mod hdr_files;
pub mod kafka_config;
pub mod load;
pub mod native_perf;
pub mod page;
pub mod payload;
pub mod process;
pub mod producer_perf;
pub mod properties;
pub mod recorder;
pub mod report;
pub mod report_files;
pub mod results;
pub mod run;
pub mod self_test;
pub mod throttle;
pub mod workload;

/// Why a run failed: a sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<rdkafka::error::KafkaError> for Failure {
    fn from(error: rdkafka::error::KafkaError) -> Failure {
        Failure(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure(error.to_string())
    }
}
