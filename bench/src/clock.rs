//! The clocks of tools and load generators, and Java's date patterns. Any thread; the broker's state machines never come here.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Milliseconds since 1970, by the wall clock.
pub fn wall_ms() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "a tool reads the clock itself")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_millis() as i64
}

/// A moment of the monotonic clock.
pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a tool reads the clock itself")]
    let now = Instant::now();
    now
}

/// Formats a time in the machine's zone by a pattern of Java's `SimpleDateFormat`: the letters y M d H h m s S a E z Z
/// X and quoted text. Other letters are an error, as in Java.
pub fn format_local(pattern: &str, wall_ms: i64) -> Result<String, String> {
    format(pattern, wall_ms, &TimeZone::system())
}

fn format(pattern: &str, wall_ms: i64, zone: &TimeZone) -> Result<String, String> {
    let at = Timestamp::from_millisecond(wall_ms)
        .map_err(|e| e.to_string())?
        .to_zoned(zone.clone());
    let mut text = String::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\'' {
            quoted(&mut chars, &mut text);
            continue;
        }
        if !c.is_ascii_alphabetic() {
            text.push(c);
            continue;
        }
        let mut width = 1;
        while chars.peek() == Some(&c) {
            chars.next();
            width += 1;
        }
        let number = match c {
            'y' if width == 2 => i64::from(at.year()) % 100,
            'y' | 'Y' => i64::from(at.year()),
            'M' | 'L' if width == 3 => {
                text.push_str(&at.strftime("%b").to_string());
                continue;
            }
            'M' | 'L' if width > 3 => {
                text.push_str(&at.strftime("%B").to_string());
                continue;
            }
            'M' | 'L' => i64::from(at.month()),
            'd' => i64::from(at.day()),
            'D' => i64::from(at.day_of_year()),
            'H' => i64::from(at.hour()),
            'k' => (i64::from(at.hour()) + 23) % 24 + 1,
            'K' => i64::from(at.hour()) % 12,
            'h' => (i64::from(at.hour()) + 11) % 12 + 1,
            'm' => i64::from(at.minute()),
            's' => i64::from(at.second()),
            'S' => i64::from(at.millisecond()),
            'a' => {
                text.push_str(if at.hour() < 12 { "AM" } else { "PM" });
                continue;
            }
            'E' => {
                text.push_str(&at.strftime(if width > 3 { "%A" } else { "%a" }).to_string());
                continue;
            }
            'z' => {
                text.push_str(&at.strftime("%Z").to_string());
                continue;
            }
            'Z' => {
                text.push_str(&at.strftime("%z").to_string());
                continue;
            }
            'X' => {
                text.push_str(&iso_zone(at.offset().seconds(), width));
                continue;
            }
            other => return Err(format!("Illegal pattern character '{other}'")),
        };
        text.push_str(&format!("{number:0width$}"));
    }
    Ok(text)
}

/// Copies text up to the closing quote; two quotes in a row are one.
fn quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, text: &mut String) {
    if chars.peek() == Some(&'\'') {
        chars.next();
        text.push('\'');
        return;
    }
    while let Some(c) = chars.next() {
        if c != '\'' {
            text.push(c);
        } else if chars.peek() == Some(&'\'') {
            chars.next();
            text.push('\'');
        } else {
            return;
        }
    }
}

fn iso_zone(seconds: i32, width: usize) -> String {
    if seconds == 0 {
        return "Z".to_owned();
    }
    let sign = if seconds < 0 { '-' } else { '+' };
    let (hours, minutes) = (seconds.abs() / 3600, seconds.abs() / 60 % 60);
    match width {
        1 => format!("{sign}{hours:02}"),
        2 => format!("{sign}{hours:02}{minutes:02}"),
        _ => format!("{sign}{hours:02}:{minutes:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_javas() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        // 2001-09-09 01:46:40.007 UTC.
        let at = 1_000_000_000_007;
        for (pattern, expected) in [
            ("yyyy-MM-dd HH:mm:ss:SSS", "2001-09-09 03:46:40:007"),
            ("yy/M/d h:mm a", "01/9/9 3:46 AM"),
            (
                "yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
                "2001-09-09T03:46:40.007+02:00",
            ),
            ("EEE, d MMM", "Sun, 9 Sep"),
            ("'o''clock' H", "o'clock 3"),
        ] {
            assert_eq!(
                format(pattern, at, &zone).as_deref(),
                Ok(expected),
                "{pattern}"
            );
        }
        assert_eq!(
            format("b", at, &zone),
            Err("Illegal pattern character 'b'".to_owned())
        );
        assert_eq!(format("X", at, &TimeZone::UTC).as_deref(), Ok("Z"));
    }
}
