//! Reads Java `.properties` text: comments, the three separators, escapes, continuation lines. Runs on
//! the main thread at start; it knows no configuration key.

use std::fmt;

/// One key and its value, as the text has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// The key, escapes resolved.
    pub key: String,
    /// The value, escapes resolved; trailing blanks are part of it, as in Java.
    pub value: String,
    /// The line on which the key begins; counts from 1.
    pub line: u32,
}

/// Why a text is not a `.properties` text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PropertiesError {
    /// The line of the fault; counts from 1.
    pub line: u32,
    /// The escape that is no escape.
    pub escape: String,
}

impl fmt::Display for PropertiesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}: '{}' is not a Unicode escape (allowed: \\u and four hexadecimal digits)",
            self.line, self.escape
        )
    }
}

impl std::error::Error for PropertiesError {}

/// All properties of `text` in their order; a key may come twice.
///
/// # Errors
/// A `\u` that four hexadecimal digits do not follow.
pub fn parse(text: &str) -> Result<Vec<Property>, PropertiesError> {
    let mut found = Vec::new();
    let mut lines = natural_lines(text);
    while let Some((line, first)) = lines.next() {
        let first = first.trim_start_matches(BLANKS);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = String::from(first);
        // Only an odd number of backslashes continues a line: pairs are escaped backslashes. A line that
        // continues another is never a comment.
        while trailing_backslashes(&logical) % 2 == 1 {
            logical.pop();
            match lines.next() {
                Some((_, more)) => logical.push_str(more.trim_start_matches(BLANKS)),
                None => break,
            }
        }
        let (key, value) = split(&logical);
        found.push(Property {
            key: unescape(key, line)?,
            value: unescape(value, line)?,
            line,
        });
    }
    Ok(found)
}

/// What Java takes for blank in a `.properties` text.
const BLANKS: [char; 3] = [' ', '\t', '\u{c}'];

/// Lines as Java ends them (`\n`, `\r`, `\r\n`), with their numbers.
fn natural_lines(text: &str) -> impl Iterator<Item = (u32, &str)> {
    let mut rest = Some(text);
    let mut number = 0u32;
    std::iter::from_fn(move || {
        let text = rest?;
        number = number.saturating_add(1);
        match text.find(['\n', '\r']) {
            None => {
                rest = None;
                Some((number, text))
            }
            Some(end) => {
                let after = &text[end..];
                let skip = if after.starts_with("\r\n") { 2 } else { 1 };
                rest = Some(&after[skip..]);
                Some((number, &text[..end]))
            }
        }
    })
}

fn trailing_backslashes(line: &str) -> usize {
    line.bytes().rev().take_while(|b| *b == b'\\').count()
}

/// The raw key and the raw value of a logical line: the key ends at the first unescaped separator, and
/// blanks around one `=` or `:` belong to neither.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let mut key_end = line.len();
    for (at, c) in line.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == '=' || c == ':' || BLANKS.contains(&c) {
            key_end = at;
            break;
        }
    }
    let (key, rest) = line.split_at(key_end);
    let rest = rest.trim_start_matches(BLANKS);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(BLANKS))
}

fn unescape(raw: &str, line: u32) -> Result<String, PropertiesError> {
    let mut units: Vec<u16> = Vec::new();
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            flush_units(&mut units, &mut out);
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let unit = if digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    u16::from_str_radix(&digits, 16).ok()
                } else {
                    None
                };
                // Two escapes can be the halves of one character, so they are gathered first.
                units.push(unit.ok_or_else(|| PropertiesError {
                    line,
                    escape: format!("\\u{digits}"),
                })?);
            }
            Some(escaped) => {
                flush_units(&mut units, &mut out);
                out.push(match escaped {
                    't' => '\t',
                    'n' => '\n',
                    'r' => '\r',
                    'f' => '\u{c}',
                    other => other,
                });
            }
            None => {}
        }
    }
    flush_units(&mut units, &mut out);
    Ok(out)
}

fn flush_units(units: &mut Vec<u16>, out: &mut String) {
    if !units.is_empty() {
        out.push_str(&String::from_utf16_lossy(units));
        units.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String, u32)> {
        parse(text)
            .unwrap()
            .into_iter()
            .map(|p| (p.key, p.value, p.line))
            .collect()
    }

    #[test]
    fn separators_comments_and_escapes() {
        type Pairs = &'static [(&'static str, &'static str, u32)];
        let table: &[(&str, Pairs)] = &[
            ("a=1", &[("a", "1", 1)]),
            ("a = 1 ", &[("a", "1 ", 1)]),
            (
                "a:1\nb 2\r\nc\t=\t3\rd",
                &[("a", "1", 1), ("b", "2", 2), ("c", "3", 3), ("d", "", 4)],
            ),
            ("# no\n  ! no\n\n \t\na=b#c", &[("a", "b#c", 5)]),
            (
                "a=1,\\\n   2,\\\n\t3\nb=4",
                &[("a", "1,2,3", 1), ("b", "4", 4)],
            ),
            ("a=x\\\\\nb=y", &[("a", "x\\", 1), ("b", "y", 2)]),
            ("a=x\\\n#y", &[("a", "x#y", 1)]),
            ("a=end\\", &[("a", "end", 1)]),
            ("a\\ b\\=c=d", &[("a b=c", "d", 1)]),
            ("a==b", &[("a", "=b", 1)]),
            ("a=\\t\\n\\q\\\\", &[("a", "\t\nq\\", 1)]),
            ("a=\\u00e9\\ud83d\\ude00", &[("a", "é😀", 1)]),
            (
                "listeners=PLAINTEXT://:9092",
                &[("listeners", "PLAINTEXT://:9092", 1)],
            ),
        ];
        for (text, expected) in table {
            let expected: Vec<_> = expected
                .iter()
                .map(|(k, v, l)| (k.to_string(), v.to_string(), *l))
                .collect();
            assert_eq!(pairs(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_broken_unicode_escape_names_its_line() {
        let error = parse("a=1\nb=\\u12g4").unwrap_err();
        assert_eq!(error.line, 2);
        assert_eq!(error.escape, "\\u12g4");
        assert!(parse("b=\\u12").is_err());
    }
}
