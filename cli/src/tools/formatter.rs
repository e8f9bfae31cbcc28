//! How console-consumer prints a record: Kafka's message formatters and deserializers. Main thread; knows no consumer.

use super::kafka_config::Properties;

/// A record's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// None.
    None,
    /// The producer's, in milliseconds.
    Created(i64),
    /// The broker's, in milliseconds.
    Appended(i64),
}

/// A record to print.
#[derive(Debug, Clone)]
pub struct Shown<'a> {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The time.
    pub stamp: Stamp,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

/// How bytes become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decoder {
    Raw,
    Text,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    Uuid,
    Boolean,
    Escaped,
    Nothing,
}

impl Decoder {
    fn new(class: &str) -> Option<Decoder> {
        Some(
            match class.rsplit('.').next()?.trim_end_matches("Deserializer") {
                "String" => Decoder::Text,
                "Short" => Decoder::Int16,
                "Integer" => Decoder::Int32,
                "Long" => Decoder::Int64,
                "Float" => Decoder::Float32,
                "Double" => Decoder::Float64,
                "UUID" => Decoder::Uuid,
                "Boolean" => Decoder::Boolean,
                "Bytes" => Decoder::Escaped,
                "ByteArray" | "ByteBuffer" => Decoder::Raw,
                "Void" => Decoder::Nothing,
                _ => return None,
            },
        )
    }

    fn decode(self, bytes: &[u8], text: &mut Vec<u8>) -> Result<(), String> {
        let wrong = |what: &str| {
            format!(
                "Size of data received by {what}Deserializer is not {}",
                width(what)
            )
        };
        let shown = match self {
            Decoder::Raw => {
                text.extend_from_slice(bytes);
                return Ok(());
            }
            Decoder::Text => String::from_utf8_lossy(bytes).into_owned(),
            Decoder::Int16 => {
                i16::from_be_bytes(bytes.try_into().map_err(|_| wrong("Short"))?).to_string()
            }
            Decoder::Int32 => {
                i32::from_be_bytes(bytes.try_into().map_err(|_| wrong("Integer"))?).to_string()
            }
            Decoder::Int64 => {
                i64::from_be_bytes(bytes.try_into().map_err(|_| wrong("Long"))?).to_string()
            }
            Decoder::Float32 => {
                format!(
                    "{:?}",
                    f32::from_be_bytes(bytes.try_into().map_err(|_| wrong("Float"))?)
                )
            }
            Decoder::Float64 => {
                format!(
                    "{:?}",
                    f64::from_be_bytes(bytes.try_into().map_err(|_| wrong("Double"))?)
                )
            }
            Decoder::Uuid => {
                let text = String::from_utf8_lossy(bytes);
                let id = uuid::Uuid::try_parse(&text)
                    .map_err(|_| format!("Error parsing data into UUID: {text}"))?;
                id.to_string()
            }
            Decoder::Boolean => match bytes {
                [0] => "false".to_owned(),
                [1] => "true".to_owned(),
                _ => return Err("Unexpected byte received by BooleanDeserializer".to_owned()),
            },
            Decoder::Escaped => escaped(bytes),
            Decoder::Nothing => "null".to_owned(),
        };
        text.extend_from_slice(shown.as_bytes());
        Ok(())
    }
}

fn width(what: &str) -> usize {
    match what {
        "Short" => 2,
        "Integer" | "Float" => 4,
        _ => 8,
    }
}

/// Bytes as Kafka's `Bytes` prints them: printable ASCII as it is, the rest as \xHH.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b' '..=b'~' if *byte != b'\\' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\x{byte:02X}")),
        }
    }
    text
}

/// A formatter.
#[derive(Debug)]
pub enum Formatter {
    /// `DefaultMessageFormatter`.
    Default(Columns),
    /// `LoggingMessageFormatter`: the default one, and a log line for each record.
    Logging(Columns),
    /// `NoOpMessageFormatter`: prints nothing.
    Nothing,
}

/// What the default formatter prints.
#[derive(Debug)]
pub struct Columns {
    timestamp: bool,
    partition: bool,
    offset: bool,
    delivery: bool,
    epoch: bool,
    headers: bool,
    key: bool,
    value: bool,
    key_separator: Vec<u8>,
    line_separator: Vec<u8>,
    headers_separator: Vec<u8>,
    null_literal: Vec<u8>,
    key_decoder: Decoder,
    value_decoder: Decoder,
    headers_decoder: Decoder,
}

/// The formatter that is used when none is named.
pub const DEFAULT: &str = "org.apache.kafka.tools.consumer.DefaultMessageFormatter";

impl Formatter {
    /// The formatter of this Java class name, with its properties. The error is a sentence.
    pub fn new(class: &str, properties: &Properties) -> Result<Formatter, String> {
        match class.rsplit('.').next() {
            Some("DefaultMessageFormatter") => Columns::new(properties).map(Formatter::Default),
            Some("LoggingMessageFormatter") => Columns::new(properties).map(Formatter::Logging),
            Some("NoOpMessageFormatter") => Ok(Formatter::Nothing),
            _ => Err(format!("{class} is not a formatter that this tool knows")),
        }
    }

    /// Appends the record's text. The error is a deserializer's.
    pub fn write(&self, record: &Shown<'_>, text: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Formatter::Nothing => Ok(()),
            Formatter::Default(columns) => columns.write(record, text),
            Formatter::Logging(columns) => {
                columns.write(record, text)?;
                let part = |bytes: Option<&[u8]>| {
                    bytes.map_or("null".to_owned(), |bytes| {
                        String::from_utf8_lossy(bytes).into_owned()
                    })
                };
                let time = match record.stamp {
                    Stamp::None => String::new(),
                    Stamp::Created(ms) => format!("CreateTime:{ms}, "),
                    Stamp::Appended(ms) => format!("LogAppendTime:{ms}, "),
                };
                bench::context::log_line(
                    "INFO",
                    &format!(
                        "{time}key:{}, value:{}",
                        part(record.key),
                        part(record.value)
                    ),
                );
                Ok(())
            }
        }
    }
}

impl Columns {
    fn new(properties: &Properties) -> Result<Columns, String> {
        let yes = |name: &str, default: bool| {
            properties
                .get(name)
                .map_or(default, |value| value.trim().eq_ignore_ascii_case("true"))
        };
        let bytes = |name: &str, default: &str| {
            properties
                .get(name)
                .map_or(default.as_bytes(), |value| value.as_bytes())
                .to_vec()
        };
        let decoder = |name: &str| match properties.get(name) {
            None => Ok(Decoder::Raw),
            Some(class) => Decoder::new(class)
                .ok_or_else(|| format!("{class} is not a deserializer that this tool knows")),
        };
        Ok(Columns {
            timestamp: yes("print.timestamp", false),
            partition: yes("print.partition", false),
            offset: yes("print.offset", false),
            delivery: yes("print.delivery", false),
            epoch: yes("print.epoch", false),
            headers: yes("print.headers", false),
            key: yes("print.key", false),
            value: yes("print.value", true),
            key_separator: bytes("key.separator", "\t"),
            line_separator: bytes("line.separator", "\n"),
            headers_separator: bytes("headers.separator", ","),
            null_literal: bytes("null.literal", "null"),
            key_decoder: decoder("key.deserializer")?,
            value_decoder: decoder("value.deserializer")?,
            headers_decoder: decoder("headers.deserializer")?,
        })
    }

    fn write(&self, record: &Shown<'_>, text: &mut Vec<u8>) -> Result<(), String> {
        // Each column and whether another one follows it.
        let after_headers = self.key || self.value;
        let after_epoch = self.headers || after_headers;
        let after_delivery = self.epoch || after_epoch;
        let after_offset = self.delivery || after_delivery;
        let after_partition = self.offset || after_offset;
        let after_timestamp = self.partition || after_partition;
        if self.timestamp {
            let shown = match record.stamp {
                Stamp::None => "NO_TIMESTAMP".to_owned(),
                Stamp::Created(ms) => format!("CreateTime:{ms}"),
                Stamp::Appended(ms) => format!("LogAppendTime:{ms}"),
            };
            self.column(text, shown.as_bytes(), after_timestamp);
        }
        if self.partition {
            self.column(
                text,
                format!("Partition:{}", record.partition).as_bytes(),
                after_partition,
            );
        }
        if self.offset {
            self.column(
                text,
                format!("Offset:{}", record.offset).as_bytes(),
                after_offset,
            );
        }
        if self.delivery {
            self.column(text, b"Delivery:NOT_PRESENT", after_delivery);
        }
        if self.epoch {
            self.column(text, b"Epoch:NOT_PRESENT", after_epoch);
        }
        if self.headers {
            self.write_headers(record, text)?;
            self.column(text, b"", after_headers);
        }
        if self.key {
            self.part(text, self.key_decoder, record.key)?;
            self.column(text, b"", self.value);
        }
        if self.value {
            self.part(text, self.value_decoder, record.value)?;
            text.extend_from_slice(&self.line_separator);
        }
        Ok(())
    }

    fn write_headers(&self, record: &Shown<'_>, text: &mut Vec<u8>) -> Result<(), String> {
        if record.headers.is_empty() {
            text.extend_from_slice(b"NO_HEADERS");
        }
        for (index, (key, value)) in record.headers.iter().enumerate() {
            if index > 0 {
                text.extend_from_slice(&self.headers_separator);
            }
            text.extend_from_slice(key.as_bytes());
            text.push(b':');
            self.part(text, self.headers_decoder, *value)?;
        }
        Ok(())
    }

    fn part(
        &self,
        text: &mut Vec<u8>,
        decoder: Decoder,
        bytes: Option<&[u8]>,
    ) -> Result<(), String> {
        match bytes {
            Some(bytes) => decoder.decode(bytes, text),
            None => {
                text.extend_from_slice(&self.null_literal);
                Ok(())
            }
        }
    }

    fn column(&self, text: &mut Vec<u8>, shown: &[u8], more: bool) {
        text.extend_from_slice(shown);
        text.extend_from_slice(if more {
            &self.key_separator
        } else {
            &self.line_separator
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(pairs: &[(&str, &str)], record: &Shown<'_>) -> Result<String, String> {
        let properties = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let mut text = Vec::new();
        Formatter::new(DEFAULT, &properties)?.write(record, &mut text)?;
        Ok(String::from_utf8(text).unwrap())
    }

    fn record() -> Shown<'static> {
        Shown {
            partition: 3,
            offset: 42,
            stamp: Stamp::Created(7),
            key: Some(b"k"),
            value: Some(b"v"),
            headers: vec![("h", Some(b"1")), ("h", None)],
        }
    }

    #[test]
    fn the_default_prints_the_value() {
        assert_eq!(show(&[], &record()).as_deref(), Ok("v\n"));
        assert_eq!(
            show(
                &[],
                &Shown {
                    value: None,
                    ..record()
                }
            )
            .as_deref(),
            Ok("null\n")
        );
        assert_eq!(
            show(
                &[("null.literal", "-")],
                &Shown {
                    value: None,
                    ..record()
                }
            )
            .as_deref(),
            Ok("-\n")
        );
    }

    #[test]
    fn all_columns_come_in_kafkas_order() {
        let all = [
            ("print.timestamp", "true"),
            ("print.partition", "true"),
            ("print.offset", "true"),
            ("print.delivery", "true"),
            ("print.epoch", "true"),
            ("print.headers", "true"),
            ("print.key", "true"),
        ];
        assert_eq!(
            show(&all, &record()).as_deref(),
            Ok(
                "CreateTime:7\tPartition:3\tOffset:42\tDelivery:NOT_PRESENT\tEpoch:NOT_PRESENT\th:1,h:null\tk\tv\n"
            )
        );
        let bare = Shown {
            stamp: Stamp::None,
            headers: Vec::new(),
            key: None,
            ..record()
        };
        assert!(show(&all, &bare).unwrap().starts_with("NO_TIMESTAMP\t"));
        assert!(
            show(&all, &bare)
                .unwrap()
                .ends_with("\tNO_HEADERS\tnull\tv\n")
        );
    }

    #[test]
    fn the_last_column_ends_the_line() {
        let offset = [
            ("print.offset", "true"),
            ("print.value", "false"),
            ("line.separator", ";"),
        ];
        assert_eq!(show(&offset, &record()).as_deref(), Ok("Offset:42;"));
        let key = [
            ("print.key", "true"),
            ("print.value", "false"),
            ("key.separator", "|"),
        ];
        assert_eq!(show(&key, &record()).as_deref(), Ok("k\n"));
    }

    #[test]
    fn deserializers_read_javas_bytes() {
        let shown = |class: &str, bytes: &'static [u8]| {
            let class = format!("org.apache.kafka.common.serialization.{class}");
            show(
                &[("value.deserializer", &class)],
                &Shown {
                    value: Some(bytes),
                    ..record()
                },
            )
        };
        assert_eq!(
            shown("LongDeserializer", &[0, 0, 0, 0, 0, 0, 1, 0]).as_deref(),
            Ok("256\n")
        );
        assert_eq!(
            shown("IntegerDeserializer", &[0xff; 4]).as_deref(),
            Ok("-1\n")
        );
        assert_eq!(
            shown("DoubleDeserializer", &[0x3f, 0xf8, 0, 0, 0, 0, 0, 0]).as_deref(),
            Ok("1.5\n")
        );
        assert_eq!(
            shown("BytesDeserializer", b"a\x00\\").as_deref(),
            Ok("a\\x00\\x5C\n")
        );
        assert_eq!(
            shown("IntegerDeserializer", b"abc"),
            Err("Size of data received by IntegerDeserializer is not 4".to_owned())
        );
        assert!(shown("NoDeserializer", b"").is_err());
    }

    #[test]
    fn other_formatters() {
        let mut text = Vec::new();
        let nothing = Formatter::new(
            "org.apache.kafka.tools.consumer.NoOpMessageFormatter",
            &Properties::new(),
        );
        nothing.unwrap().write(&record(), &mut text).unwrap();
        assert!(text.is_empty());
        assert!(Formatter::new("com.example.Mine", &Properties::new()).is_err());
    }
}
