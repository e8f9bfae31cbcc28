//! Java's `.properties` format, as client configuration files are written in. The calling thread; knows no key.

use std::collections::BTreeMap;

use crate::Failure;

/// Reads a properties file. Later lines win.
///
/// # Errors
/// When the file cannot be read.
pub fn load(path: &str) -> Result<BTreeMap<String, String>, Failure> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(parse(&String::from_utf8_lossy(&bytes))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(Failure(format!("{path} (No such file or directory)")))
        }
        Err(e) => Err(Failure(format!("{path} ({e})"))),
    }
}

/// Parses the text of a properties file: comments, continued lines, escapes, and all three separators.
pub fn parse(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let start = line.trim_start_matches([' ', '\t', '\x0c']);
        if start.is_empty() || start.starts_with(['#', '!']) {
            continue;
        }
        let mut whole = start.to_owned();
        while whole.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1 {
            whole.pop();
            match lines.next() {
                Some(next) => whole.push_str(next.trim_start_matches([' ', '\t', '\x0c'])),
                None => break,
            }
        }
        let (key, value) = split(&whole);
        found.insert(unescape(key), unescape(value));
    }
    found
}

/// Splits at the first unescaped `=`, `:` or blank.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line
        .char_indices()
        .find(|(_, c)| {
            let ends = !escaped && matches!(c, '=' | ':' | ' ' | '\t' | '\x0c');
            escaped = *c == '\\' && !escaped;
            ends
        })
        .map_or(line.len(), |(at, _)| at);
    let blank = [' ', '\t', '\x0c'];
    let rest = line[end..].trim_start_matches(blank);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..end], rest.trim_start_matches(blank))
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('f') => plain.push('\x0c'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16)
                    .ok()
                    .and_then(char::from_u32);
                plain.push(code.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_javas() {
        let text = "# comment\n! another\n\n  a = 1\nb:2\nc 3\nd=x=y\ne\\ f=g\\\n   h\ni=\\u0041\\t\\\\\nj\na=4\n";
        let found = parse(text);
        let expected = [
            ("a", "4"),
            ("b", "2"),
            ("c", "3"),
            ("d", "x=y"),
            ("e f", "gh"),
            ("i", "A\t\\"),
            ("j", ""),
        ];
        assert_eq!(found.len(), expected.len());
        for (key, value) in expected {
            assert_eq!(found.get(key).map(String::as_str), Some(value), "{key}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        assert_eq!(
            load("/nowhere/at.all"),
            Err(Failure(
                "/nowhere/at.all (No such file or directory)".to_owned()
            ))
        );
    }
}
