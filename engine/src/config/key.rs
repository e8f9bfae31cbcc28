//! What a configuration key is: its type, default, allowed values, whether it is honoured here, and how a
//! text becomes a value. Plain data and pure functions on any thread; it knows no particular key.

use std::fmt;

/// Type of a key's value; the number is the one DescribeConfigs answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean = 1,
    /// Any text.
    String = 2,
    /// 32 bits, signed.
    Int = 3,
    /// 16 bits, signed.
    Short = 4,
    /// 64 bits, signed.
    Long = 5,
    /// 64-bit floating point.
    Double = 6,
    /// Texts separated by commas.
    List = 7,
    /// Name of a Java class.
    Class = 8,
    /// A text that is never shown.
    Password = 9,
}

impl Kind {
    /// The number that DescribeConfigs answers.
    pub fn code(self) -> i8 {
        self as i8
    }

    /// Kafka's name of the type, in its error messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "BOOLEAN",
            Kind::String => "STRING",
            Kind::Int => "INT",
            Kind::Short => "SHORT",
            Kind::Long => "LONG",
            Kind::Double => "DOUBLE",
            Kind::List => "LIST",
            Kind::Class => "CLASS",
            Kind::Password => "PASSWORD",
        }
    }
}

/// Which values of its type a key takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allowed {
    /// Every value of the type.
    Any,
    /// Numbers from this one.
    AtLeast(i64),
    /// Numbers between these two, both included.
    Between(i64, i64),
    /// Fractions between these two, both included.
    BetweenFloat(f64, f64),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// One of these texts, in capitals or not.
    OneOfAnyCase(&'static [&'static str]),
    /// A list, possibly empty, of these texts.
    ListOf(&'static [&'static str]),
    /// A text that is not empty.
    NotEmpty,
    /// 1 to 9, or -1.
    GzipLevel,
    /// `*`, or a list of `partition:broker`.
    ThrottledReplicas,
    /// `earliest`, `latest`, or `by_duration:` and an ISO 8601 period.
    ShareOffsetReset,
}

/// What this broker does with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It does what the key says.
    Honoured,
    /// Taken, shown, and without effect.
    Accepted,
    /// Only its default is taken.
    Refused,
}

/// Whether Kafka lets a key change while the broker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dynamic {
    /// Only from the file.
    Static,
    /// For one broker or as a default of the whole cluster.
    Dynamic,
    /// For one broker only.
    PerBroker,
}

/// One key.
#[derive(Debug)]
pub struct KeySpec {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The value where none is set; `None` is Kafka's null.
    pub default: Option<&'static str>,
    /// The values it takes.
    pub allowed: Allowed,
    /// What is done with it.
    pub status: Status,
    /// Whether it may change while the broker runs.
    pub dynamic: Dynamic,
    /// One or two sentences on what it does.
    pub documentation: &'static str,
}

/// The names that rows of the catalogue may use.
pub(crate) mod allowed {
    pub(crate) use super::Allowed::*;
    /// What `compression.type` takes.
    pub(crate) const COMPRESSION_TYPES: &[&str] =
        &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
    /// What `cleanup.policy` takes.
    pub(crate) const CLEANUP_POLICIES: &[&str] = &["compact", "delete"];
    /// What `message.timestamp.type` takes.
    pub(crate) const TIMESTAMP_TYPES: &[&str] = &["CreateTime", "LogAppendTime"];
}

/// Rows of `"name": Kind, default, allowed, status, dynamic; "documentation";` as a table of [`KeySpec`].
macro_rules! keys {
    ($($name:literal : $kind:ident, $default:tt, $allowed:expr, $status:ident, $dynamic:ident; $doc:literal;)*) => {{
        use $crate::config::key::{Dynamic, KeySpec, Kind, Status, allowed::*};
        &[$(KeySpec {
            name: $name,
            kind: Kind::$kind,
            default: $crate::config::key::keys!(@default $default),
            allowed: $allowed,
            status: Status::$status,
            dynamic: Dynamic::$dynamic,
            documentation: $doc,
        }),*]
    }};
    (@default none) => { None };
    (@default $text:literal) => { Some($text) };
}
pub(crate) use keys;

/// Why a text is no value of a key. Displayed in the words of Kafka's own messages, which people search for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidValue {
    /// The key.
    pub key: String,
    /// The value, or the element of the list, that is not allowed.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Invalid value {} for configuration {}: {}",
            self.value, self.key, self.allowed
        )
    }
}

impl std::error::Error for InvalidValue {}

/// A value of the type its key has.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a Boolean key.
    Boolean(bool),
    /// Of an Int, Short or Long key.
    Integer(i64),
    /// Of a Double key.
    Double(f64),
    /// Of a String, Class or Password key.
    Text(String),
    /// Of a List key.
    List(Vec<String>),
}

impl fmt::Display for Value {
    /// As Kafka writes it in DescribeConfigs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Boolean(value) => value.fmt(f),
            Value::Integer(value) => value.fmt(f),
            // Java writes the exponent with a capital.
            Value::Double(value) => f.write_str(&format!("{value:?}").replace('e', "E")),
            Value::Text(value) => value.fmt(f),
            Value::List(values) => f.write_str(&values.join(",")),
        }
    }
}

/// The elements of a list; an empty text is an empty list.
pub fn split_list(text: &str) -> Vec<String> {
    let text = text.trim();
    if text.is_empty() {
        return Vec::new();
    }
    text.split(',')
        .map(|element| element.trim().to_owned())
        .collect()
}

impl KeySpec {
    /// The key's value that `text` says.
    ///
    /// # Errors
    /// The text is not of the key's type, or outside what the key allows.
    pub fn parse(&self, text: &str) -> Result<Value, InvalidValue> {
        let text = if self.kind == Kind::Password {
            text
        } else {
            text.trim()
        };
        let value = match self.kind {
            Kind::Boolean if text.eq_ignore_ascii_case("true") => Value::Boolean(true),
            Kind::Boolean if text.eq_ignore_ascii_case("false") => Value::Boolean(false),
            Kind::Boolean => {
                return Err(self.invalid(text, "Expected value to be either true or false"));
            }
            Kind::Int => Value::Integer(self.number::<i32>(text)?.into()),
            Kind::Short => Value::Integer(self.number::<i16>(text)?.into()),
            Kind::Long => Value::Integer(self.number::<i64>(text)?),
            Kind::Double => Value::Double(
                self.number::<f64>(text)
                    .ok()
                    .filter(|n| n.is_finite())
                    .ok_or_else(|| self.invalid(text, "Not a number of type DOUBLE"))?,
            ),
            Kind::String | Kind::Class | Kind::Password => Value::Text(text.to_owned()),
            Kind::List => Value::List(split_list(text)),
        };
        self.check(&value)?;
        Ok(value)
    }

    /// The default as a value; `None` where Kafka's is null.
    pub fn default_value(&self) -> Option<Value> {
        self.default
            .map(|text| self.parse(text).expect("every default is an allowed value"))
    }

    /// Whether the value is never shown.
    pub fn sensitive(&self) -> bool {
        self.kind == Kind::Password
    }

    fn number<T: std::str::FromStr>(&self, text: &str) -> Result<T, InvalidValue> {
        text.parse()
            .map_err(|_| self.invalid(text, &format!("Not a number of type {}", self.kind.name())))
    }

    fn invalid(&self, value: &str, allowed: &str) -> InvalidValue {
        InvalidValue {
            key: self.name.to_owned(),
            value: if self.sensitive() {
                "[hidden]".to_owned()
            } else {
                value.to_owned()
            },
            allowed: allowed.to_owned(),
        }
    }

    fn check(&self, value: &Value) -> Result<(), InvalidValue> {
        let refuse = |allowed: String| Err(self.invalid(&value.to_string(), &allowed));
        match (self.allowed, value) {
            (Allowed::AtLeast(least), Value::Integer(n)) if *n < least => {
                refuse(format!("Value must be at least {least}"))
            }
            (Allowed::Between(least, _), Value::Integer(n)) if *n < least => {
                refuse(format!("Value must be at least {least}"))
            }
            (Allowed::Between(_, most), Value::Integer(n)) if *n > most => {
                refuse(format!("Value must be no more than {most}"))
            }
            (Allowed::BetweenFloat(least, _), Value::Double(n)) if *n < least => {
                refuse(format!("Value must be at least {least}"))
            }
            (Allowed::BetweenFloat(_, most), Value::Double(n)) if *n > most => {
                refuse(format!("Value must be no more than {most}"))
            }
            (Allowed::GzipLevel, Value::Integer(n)) if *n != -1 && !(1..=9).contains(n) => {
                refuse("Value must be between 1 and 9 or equal to -1".to_owned())
            }
            (Allowed::OneOf(texts), Value::Text(text)) if !texts.contains(&text.as_str()) => {
                refuse(format!("String must be one of: {}", texts.join(", ")))
            }
            (Allowed::OneOfAnyCase(texts), Value::Text(text))
                if !texts.iter().any(|t| t.eq_ignore_ascii_case(text)) =>
            {
                refuse(format!(
                    "String must be one of (case insensitive): {}",
                    texts.join(", ")
                ))
            }
            (Allowed::NotEmpty, Value::Text(text)) if text.is_empty() => {
                refuse("String must be non-empty".to_owned())
            }
            (Allowed::ListOf(texts), Value::List(elements)) => {
                match elements
                    .iter()
                    .find(|element| !texts.contains(&element.as_str()))
                {
                    Some(element) => Err(self.invalid(
                        element,
                        &format!("String must be one of: {}", texts.join(", ")),
                    )),
                    None => Ok(()),
                }
            }
            (Allowed::ThrottledReplicas, Value::List(elements)) => {
                let pair = |element: &String| {
                    element.split_once(':').is_some_and(|(partition, broker)| {
                        let number =
                            |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
                        number(partition) && number(broker)
                    })
                };
                if elements.as_slice() == ["*"] || elements.iter().all(pair) {
                    return Ok(());
                }
                Err(self.invalid(
                    &format!("[{}]", elements.join(", ")),
                    &format!(
                        "{} must be the literal '*' or a list of replicas in the following format: \
                         [partitionId]:[brokerId],[partitionId]:[brokerId],...",
                        self.name
                    ),
                ))
            }
            (Allowed::ShareOffsetReset, Value::Text(text)) => {
                let period = text.strip_prefix("by_duration:").is_some_and(|p| {
                    p.len() > 2 && p.starts_with('P') && p.ends_with(['D', 'H', 'M', 'S'])
                });
                if text == "earliest" || text == "latest" || period {
                    Ok(())
                } else {
                    refuse(
                        "Must be earliest, latest, or by_duration: and a period PnDTnHnMn.nS"
                            .to_owned(),
                    )
                }
            }
            _ => Ok(()),
        }
    }
}
