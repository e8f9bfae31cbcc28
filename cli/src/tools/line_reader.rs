//! Turns lines of text into records, as Kafka's line reader does. Main thread; knows no producer.

use super::kafka_config::Properties;

/// One record to send.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LineRecord {
    /// The key.
    pub key: Option<String>,
    /// The value.
    pub value: Option<String>,
    /// Headers in order; keys may repeat.
    pub headers: Vec<(String, Option<String>)>,
}

/// How lines are cut.
#[derive(Debug)]
pub struct LineReader {
    parse_key: bool,
    key_separator: String,
    parse_headers: bool,
    headers_delimiter: String,
    headers_separator: fancy_regex::Regex,
    headers_key_separator: String,
    ignore_error: bool,
    null_marker: Option<String>,
    line_number: u64,
}

impl LineReader {
    /// Reads the properties `parse.key`, `key.separator` and so on. The error is Kafka's sentence.
    pub fn new(properties: &Properties) -> Result<LineReader, String> {
        let yes = |name: &str| {
            properties
                .get(name)
                .is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
        };
        let text = |name: &str, default: &str| {
            properties
                .get(name)
                .cloned()
                .unwrap_or_else(|| default.to_owned())
        };
        let key_separator = text("key.separator", "\t");
        let headers_delimiter = text("headers.delimiter", "\t");
        let headers_separator = text("headers.separator", ",");
        let headers_key_separator = text("headers.key.separator", ":");
        let null_marker = properties.get("null.marker").cloned();
        let marker = null_marker.as_deref();
        let equal = |one: &str, other: &str| Err(format!("{one} and {other} may not be equal"));
        if headers_delimiter == headers_separator {
            return equal("headers.delimiter", "headers.separator");
        }
        if headers_delimiter == headers_key_separator {
            return equal("headers.delimiter", "headers.key.separator");
        }
        if headers_separator == headers_key_separator {
            return equal("headers.separator", "headers.key.separator");
        }
        for (name, value) in [
            ("key.separator", &key_separator),
            ("headers.separator", &headers_separator),
            ("headers.delimiter", &headers_delimiter),
            ("headers.key.separator", &headers_key_separator),
        ] {
            if marker == Some(value) {
                return equal("null.marker", name);
            }
        }
        Ok(LineReader {
            parse_key: yes("parse.key"),
            key_separator,
            parse_headers: yes("parse.headers"),
            headers_delimiter,
            headers_separator: fancy_regex::Regex::new(&headers_separator)
                .map_err(|e| e.to_string())?,
            headers_key_separator,
            ignore_error: yes("ignore.error"),
            null_marker,
            line_number: 0,
        })
    }

    /// Cuts the next line. The error is Kafka's sentence.
    pub fn read(&mut self, line: &str) -> Result<LineRecord, String> {
        self.line_number += 1;
        let mut rest = line;
        let headers = self.cut(
            self.parse_headers,
            line,
            &mut rest,
            &self.headers_delimiter,
            "headers delimiter",
        )?;
        let key = self.cut(
            self.parse_key,
            line,
            &mut rest,
            &self.key_separator,
            "key separator",
        )?;
        let headers = match headers {
            Some(headers) if self.not_null(headers).is_some() => self.split_headers(headers)?,
            _ => Vec::new(),
        };
        Ok(LineRecord {
            key: key.and_then(|key| self.not_null(key)).map(str::to_owned),
            value: self.not_null(rest).map(str::to_owned),
            headers,
        })
    }

    fn cut<'a>(
        &self,
        wanted: bool,
        line: &str,
        rest: &mut &'a str,
        separator: &str,
        name: &str,
    ) -> Result<Option<&'a str>, String> {
        if !wanted {
            return Ok(None);
        }
        match rest.find(separator) {
            Some(at) => {
                let part = &rest[..at];
                *rest = &rest[at + separator.len()..];
                Ok(Some(part))
            }
            None if self.ignore_error => Ok(None),
            None => Err(format!(
                "No {name} found on line number {}: '{line}'",
                self.line_number
            )),
        }
    }

    fn not_null<'a>(&self, text: &'a str) -> Option<&'a str> {
        (self.null_marker.as_deref() != Some(text)).then_some(text)
    }

    fn split_headers(&self, headers: &str) -> Result<Vec<(String, Option<String>)>, String> {
        let mut pairs: Vec<&str> = self
            .headers_separator
            .split(headers)
            .filter_map(Result::ok)
            .collect();
        // Java's split leaves out empty texts at the end.
        while pairs.len() > 1 && pairs.last().is_some_and(|pair| pair.is_empty()) {
            pairs.pop();
        }
        let mut found = Vec::with_capacity(pairs.len());
        for pair in pairs {
            match pair.split_once(self.headers_key_separator.as_str()) {
                Some((key, _)) if self.not_null(key).is_none() => {
                    return Err(format!(
                        "Header keys should not be equal to the null marker '{key}' as they can't be null"
                    ));
                }
                Some((key, value)) => {
                    found.push((key.to_owned(), self.not_null(value).map(str::to_owned)))
                }
                None if self.ignore_error => found.push((pair.to_owned(), None)),
                None => {
                    return Err(format!(
                        "No header key separator found in pair '{pair}' on line number {}",
                        self.line_number
                    ));
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(pairs: &[(&str, &str)]) -> Result<LineReader, String> {
        LineReader::new(
            &pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        )
    }

    fn record(
        key: Option<&str>,
        value: Option<&str>,
        headers: &[(&str, Option<&str>)],
    ) -> LineRecord {
        LineRecord {
            key: key.map(str::to_owned),
            value: value.map(str::to_owned),
            headers: headers
                .iter()
                .map(|(k, v)| ((*k).to_owned(), v.map(str::to_owned)))
                .collect(),
        }
    }

    #[test]
    fn lines_are_values_keys_and_headers() {
        let mut plain = reader(&[]).unwrap();
        assert_eq!(plain.read("a\tb"), Ok(record(None, Some("a\tb"), &[])));
        assert_eq!(plain.read(""), Ok(record(None, Some(""), &[])));
        let mut keyed = reader(&[("parse.key", "true"), ("key.separator", ":")]).unwrap();
        assert_eq!(keyed.read("k:v:w"), Ok(record(Some("k"), Some("v:w"), &[])));
        assert_eq!(
            keyed.read("none"),
            Err("No key separator found on line number 2: 'none'".to_owned())
        );
        let mut full = reader(&[("parse.key", "true"), ("parse.headers", "true")]).unwrap();
        assert_eq!(
            full.read("h:1,h:2,i:\tk\tv"),
            Ok(record(
                Some("k"),
                Some("v"),
                &[("h", Some("1")), ("h", Some("2")), ("i", Some(""))]
            ))
        );
        assert_eq!(
            full.read("h\tk\tv"),
            Err("No header key separator found in pair 'h' on line number 2".to_owned())
        );
    }

    #[test]
    fn the_null_marker_makes_nulls() {
        let mut reader = reader(&[
            ("parse.key", "true"),
            ("parse.headers", "true"),
            ("null.marker", "NULL"),
        ])
        .unwrap();
        assert_eq!(reader.read("NULL\tNULL\tNULL"), Ok(record(None, None, &[])));
        assert_eq!(
            reader.read("a:NULL\tk\tv"),
            Ok(record(Some("k"), Some("v"), &[("a", None)]))
        );
        assert!(
            reader
                .read("NULL:a\tk\tv")
                .unwrap_err()
                .starts_with("Header keys should not be equal")
        );
    }

    #[test]
    fn errors_may_be_ignored() {
        let mut reader = reader(&[("parse.key", "true"), ("ignore.error", "true")]).unwrap();
        assert_eq!(reader.read("no key"), Ok(record(None, Some("no key"), &[])));
    }

    #[test]
    fn separators_must_differ() {
        let why = |pairs| reader(pairs).unwrap_err();
        assert_eq!(
            why(&[("headers.delimiter", ",")]),
            "headers.delimiter and headers.separator may not be equal"
        );
        assert_eq!(
            why(&[("headers.separator", ":")]),
            "headers.separator and headers.key.separator may not be equal"
        );
        assert_eq!(
            why(&[("null.marker", "\t")]),
            "null.marker and key.separator may not be equal"
        );
    }
}
