//! `console-producer`: lines of standard input become records. Main thread; librdkafka's threads send.

use std::io::{BufRead, IsTerminal};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use bench::context::{Quiet, log_line};
use clap::{Arg, ArgMatches};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use super::args::{self, Found, flag, int, long, many, maybe, text};
use super::kafka_config::{self, Properties, merge};
use super::line_reader::{LineReader, LineRecord};
use super::{Help, Outcome, Stop, Tool, out, properties};

/// The tool.
pub const TOOL: Tool = Tool {
    name: "console-producer",
    about: "This tool helps to read data from standard input and publish it to Kafka.",
    options,
    run,
    help: Help::Fails,
};

const READER: &str = "org.apache.kafka.tools.LineMessageReader";

fn options() -> Vec<Arg> {
    vec![
        text(
            "topic",
            "topic",
            "REQUIRED: The topic name to produce messages to.",
        ),
        text(
            "bootstrap-server",
            "server to connect to",
            "REQUIRED: The servers to connect to, as HOST1:PORT1,HOST2:PORT2.",
        ),
        flag("sync", "Send one message at a time and wait for each."),
        maybe(
            "compression-codec",
            "compression-codec",
            "none, gzip, snappy, lz4 or zstd; gzip when no value follows.",
        ),
        int(
            "batch-size",
            "size",
            "Bytes of a batch (batch.size); default 16384.",
        ),
        int(
            "message-send-max-retries",
            "Integer",
            "Retries before a message is given up (retries); default 3.",
        ),
        long(
            "retry-backoff-ms",
            "Long",
            "Wait before a retry (retry.backoff.ms); default 100.",
        ),
        long(
            "timeout",
            "timeout_ms",
            "Longest wait for a batch to fill (linger.ms); default 1000.",
        ),
        text(
            "request-required-acks",
            "request required acks",
            "Acknowledgements to wait for (acks); default -1.",
        ),
        int(
            "request-timeout-ms",
            "request timeout ms",
            "Longest wait for an acknowledgement; default 1500.",
        ),
        long(
            "metadata-expiry-ms",
            "metadata expiration interval",
            "Age at which metadata is fetched anew; default 300000.",
        ),
        long(
            "max-block-ms",
            "max block on send",
            "Longest wait for metadata or room; default 60000.",
        ),
        long(
            "max-memory-bytes",
            "total memory in bytes",
            "Bytes that may wait to be sent (buffer.memory); default 33554432.",
        ),
        int(
            "max-partition-memory-bytes",
            "memory in bytes per partition",
            "(Deprecated) Same as batch-size, which it overrides.",
        ),
        text(
            "line-reader",
            "reader_class",
            "The reader; only org.apache.kafka.tools.LineMessageReader is known.",
        ),
        int(
            "socket-buffer-size",
            "size",
            "Bytes of the socket's send buffer (send.buffer.bytes); default 102400.",
        ),
        many("property", "prop", "(DEPRECATED) Use --reader-property."),
        many(
            "reader-property",
            "prop",
            "parse.key, key.separator, parse.headers, headers.delimiter, headers.separator, headers.key.separator, \
             ignore.error, null.marker, as key=value.",
        ),
        text(
            "reader-config",
            "config file",
            "A file of reader properties; --reader-property wins.",
        ),
        many(
            "producer-property",
            "producer_prop",
            "(DEPRECATED) Use --command-property.",
        ),
        many(
            "command-property",
            "producer_prop",
            "A producer property, as key=value.",
        ),
        text(
            "producer.config",
            "config file",
            "(DEPRECATED) Use --command-config.",
        ),
        text(
            "command-config",
            "config file",
            "A file of producer properties; --command-property wins.",
        ),
    ]
}

fn run(found: &ArgMatches) -> Outcome {
    args::require(found, &["topic"])?;
    args::not_together(found, "command-config", "producer.config")?;
    args::not_together(found, "command-property", "producer-property")?;
    args::not_together(found, "reader-property", "property")?;
    for (old, new) in [
        ("producer-property", "command-property"),
        ("producer.config", "command-config"),
        ("property", "reader-property"),
    ] {
        if found.has(old) {
            out::line(&format!(
                "Warning: --{old} is deprecated and will be removed in a future version. Use --{new} instead."
            ));
        }
    }
    if found.has("max-partition-memory-bytes") {
        out::line(
            "Warning: --max-partition-memory-bytes is deprecated and will be removed in Apache Kafka 5.0. Use --batch-size instead.",
        );
    }
    args::check_bootstrap(found.text("bootstrap-server").unwrap_or_default())?;
    let reader_class = found.text("line-reader").unwrap_or(READER);
    if reader_class.rsplit('.').next() != Some("LineMessageReader") {
        return Err(Stop::Failed(format!(
            "The reader {reader_class} is not known: only {READER} is."
        )));
    }
    let reader = LineReader::new(&reader_properties(found)?).map_err(Stop::Failed)?;
    let sync = found.has("sync");
    let mut properties = producer_properties(found)?;
    if sync && !found.has("timeout") {
        // Nothing can join a batch that is waited for.
        properties.insert("linger.ms".to_owned(), "0".to_owned());
    }
    let config = kafka_config::producer(&properties)?;
    let (settled, acknowledged) = mpsc::channel();
    let context = Context {
        settled: sync.then_some(settled),
        quiet: Quiet::default(),
    };
    let producer: ThreadedProducer<Context> = config
        .create_with_context(context)
        .map_err(|e| Stop::Failed(e.to_string()))?;
    flush_on_signal(producer.clone());
    let topic = found.text("topic").expect("required above");
    let sent = send_lines(&producer, reader, topic, sync.then_some(&acknowledged));
    let flushed = producer.flush(Duration::from_secs(3600));
    sent?;
    flushed.map_err(|e| Stop::Failed(e.to_string()))
}

fn reader_properties(found: &ArgMatches) -> Result<Properties, Stop> {
    let mut read = match found.text("reader-config") {
        Some(path) => properties::load(path)?,
        None => Properties::new(),
    };
    let name = if found.has("property") {
        "property"
    } else {
        "reader-property"
    };
    read.extend(args::pairs(&found.texts(name)));
    Ok(read)
}

fn producer_properties(found: &ArgMatches) -> Result<Properties, Stop> {
    let mut properties = match found
        .text("command-config")
        .or(found.text("producer.config"))
    {
        Some(path) => properties::load(path)?,
        None => Properties::new(),
    };
    let name = if found.has("producer-property") {
        "producer-property"
    } else {
        "command-property"
    };
    properties.extend(args::pairs(&found.texts(name)));
    let bootstrap = found.text("bootstrap-server").unwrap_or_default();
    properties.insert("bootstrap.servers".to_owned(), bootstrap.to_owned());
    let codec = match found.text("compression-codec") {
        None => "none",
        Some("") => "gzip",
        Some(codec) => codec,
    };
    properties.insert("compression.type".to_owned(), codec.to_owned());
    properties
        .entry("client.id".to_owned())
        .or_insert_with(|| "console-producer".to_owned());
    let int = |name: &str| found.int(name).map(|value| value.to_string());
    let long = |name: &str| found.long(name).map(|value| value.to_string());
    merge(&mut properties, "linger.ms", long("timeout"), Some("1000"));
    merge(
        &mut properties,
        "acks",
        found.text("request-required-acks").map(str::to_owned),
        Some("-1"),
    );
    merge(
        &mut properties,
        "request.timeout.ms",
        int("request-timeout-ms"),
        Some("1500"),
    );
    merge(
        &mut properties,
        "retries",
        int("message-send-max-retries"),
        Some("3"),
    );
    merge(
        &mut properties,
        "retry.backoff.ms",
        long("retry-backoff-ms"),
        Some("100"),
    );
    merge(
        &mut properties,
        "send.buffer.bytes",
        int("socket-buffer-size"),
        Some("102400"),
    );
    merge(
        &mut properties,
        "buffer.memory",
        long("max-memory-bytes"),
        Some("33554432"),
    );
    merge(
        &mut properties,
        "batch.size",
        int("batch-size"),
        Some("16384"),
    );
    merge(
        &mut properties,
        "batch.size",
        int("max-partition-memory-bytes"),
        None,
    );
    merge(
        &mut properties,
        "metadata.max.age.ms",
        long("metadata-expiry-ms"),
        Some("300000"),
    );
    merge(
        &mut properties,
        "max.block.ms",
        long("max-block-ms"),
        Some("60000"),
    );
    Ok(properties)
}

/// What the delivery callback needs: failures are logged, and with `--sync` each outcome is told.
struct Context {
    settled: Option<Sender<Option<KafkaError>>>,
    quiet: Quiet,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.quiet.line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.quiet.error(error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Some(settled) = &self.settled {
            // Nobody waits any more when the tool has failed.
            let _ = settled.send(result.as_ref().err().map(|(error, _)| error.clone()));
            return;
        }
        let Err((error, message)) = result else {
            return;
        };
        let size = |bytes: Option<&[u8]>| {
            bytes.map_or("null".to_owned(), |bytes| format!("{} bytes", bytes.len()))
        };
        log_line(
            "ERROR",
            &format!(
                "Error when sending message to topic {} with key: {}, value: {} with error: {error}",
                message.topic(),
                size(message.key()),
                size(message.payload()),
            ),
        );
    }
}

fn send_lines(
    producer: &ThreadedProducer<Context>,
    mut reader: LineReader,
    topic: &str,
    acknowledged: Option<&Receiver<Option<KafkaError>>>,
) -> Outcome {
    let prompt = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let mut input = std::io::stdin().lock();
    let mut line = Vec::new();
    loop {
        if prompt {
            out::text(">");
            out::flush();
        }
        if !next_line(&mut input, &mut line).map_err(|e| Stop::Failed(e.to_string()))? {
            return Ok(());
        }
        let record = reader
            .read(&String::from_utf8_lossy(&line))
            .map_err(Stop::Failed)?;
        send(producer, topic, &record)?;
        if let Some(acknowledged) = acknowledged
            && let Ok(Some(error)) = acknowledged.recv()
        {
            return Err(Stop::Failed(error.to_string()));
        }
    }
}

fn send(producer: &ThreadedProducer<Context>, topic: &str, record: &LineRecord) -> Outcome {
    let mut message: BaseRecord<'_, str, str> = BaseRecord::to(topic);
    if let Some(key) = &record.key {
        message = message.key(key);
    }
    if let Some(value) = &record.value {
        message = message.payload(value);
    }
    if !record.headers.is_empty() {
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: value.as_ref(),
                })
            });
        message = message.headers(headers);
    }
    loop {
        match producer.send(message) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                message = back;
                std::thread::sleep(Duration::from_millis(5));
            }
            // Java logs it and goes on with the next line.
            Err((
                error @ KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge),
                _,
            )) if producer.context().settled.is_none() => {
                log_line(
                    "ERROR",
                    &format!("Error when sending message to topic {topic} with error: {error}"),
                );
                return Ok(());
            }
            Err((error, _)) => return Err(Stop::Failed(error.to_string())),
        }
    }
}

/// Reads up to `\n`, `\r` or `\r\n`, without it. False at the end of input.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let buffer = match input.fill_buf() {
            Ok(buffer) => buffer,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        match buffer.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            None => {
                let length = buffer.len();
                line.extend_from_slice(buffer);
                input.consume(length);
            }
            Some(at) => {
                line.extend_from_slice(&buffer[..at]);
                let carriage_return = buffer[at] == b'\r';
                input.consume(at + 1);
                // Waiting for the next byte would hold the line back on a terminal, which never sends a lone \r.
                if carriage_return && input.fill_buf()?.first() == Some(&b'\n') {
                    input.consume(1);
                }
                return Ok(true);
            }
        }
    }
}

/// Sends what was read before Ctrl-C or SIGTERM, then leaves with the exit code that Java's would have.
fn flush_on_signal(producer: ThreadedProducer<Context>) {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) else {
        return;
    };
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let _ = producer.flush(Duration::from_secs(30));
            std::process::exit(128 + signal);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_in_any_of_three_ways() {
        let mut input = std::io::BufReader::with_capacity(3, &b"ab\r\n\ncd\re"[..]);
        let mut line = Vec::new();
        let mut lines = Vec::new();
        while next_line(&mut input, &mut line).unwrap() {
            lines.push(String::from_utf8(line.clone()).unwrap());
        }
        assert_eq!(lines, ["ab", "", "cd", "e"]);
    }

    #[test]
    fn options_become_properties_and_the_command_line_wins() {
        let found = super::super::command(&TOOL)
            .no_binary_name(true)
            .get_matches_from([
                "--topic",
                "t",
                "--bootstrap-server",
                "h:1",
                "--compression-codec",
                "--command-property",
                "linger.ms=7",
                "--command-property",
                "acks=1",
                "--request-required-acks",
                "all",
                "--max-partition-memory-bytes",
                "99",
            ]);
        let properties = producer_properties(&found).unwrap();
        for (key, value) in [
            ("compression.type", "gzip"),
            ("linger.ms", "7"),
            ("acks", "all"),
            ("batch.size", "99"),
            ("retries", "3"),
            ("client.id", "console-producer"),
            ("bootstrap.servers", "h:1"),
        ] {
            assert_eq!(
                properties.get(key).map(String::as_str),
                Some(value),
                "{key}"
            );
        }
    }
}
