//! Where a reset moves offsets to: times, durations, plans from files, and how a plan prints. Main thread; knows no broker.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::admin::TopicPartition;
use super::java;

/// New offsets of one group.
pub type Plan = Vec<(TopicPartition, i64)>;

/// `topic:0,1,2`. The error is Kafka's sentence.
pub fn parse_topic_partitions(text: &str) -> Result<Vec<TopicPartition>, String> {
    let mut parts = text.split(':');
    let (Some(topic), Some(partitions), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(format!(
            "Invalid topic arg '{text}', expected topic name and partitions"
        ));
    };
    partitions
        .split(',')
        .map(|partition| {
            let index = partition.parse().map_err(|_| {
                format!("Invalid partition '{partition}' specified in topic arg '{text}''")
            })?;
            Ok((topic.to_owned(), index))
        })
        .collect()
}

/// The order of Java's map.
pub fn order(plan: Plan) -> Plan {
    let table = java::grown_table(plan.len());
    java::hash_order(plan, table, |((topic, partition), _)| {
        java::topic_partition_hash(topic, *partition)
    })
}

/// The table of new offsets.
pub fn table(plans: &[(String, Plan)]) -> String {
    let group_width = plans
        .iter()
        .map(|(group, _)| group.len())
        .max()
        .unwrap_or(0)
        .max(15);
    let topics = plans
        .iter()
        .flat_map(|(_, plan)| plan)
        .map(|((topic, _), _)| topic.len());
    let topic_width = topics.max().unwrap_or(0).max(15);
    let mut text = String::new();
    if !plans.is_empty() {
        let _ = write!(
            text,
            "\n{:<group_width$} {:<topic_width$} {:<10} NEW-OFFSET",
            "GROUP", "TOPIC", "PARTITION"
        );
    }
    for (group, plan) in plans {
        for ((topic, partition), offset) in plan {
            let _ = write!(
                text,
                "\n{group:<group_width$} {topic:<topic_width$} {partition:<10} {offset}"
            );
        }
    }
    text.push('\n');
    text
}

/// The plans as CSV, without the group if it is clear which one is meant.
pub fn csv(plans: &[(String, Plan)], one_group: bool) -> String {
    let mut text = String::new();
    for (group, plan) in plans {
        for ((topic, partition), offset) in plan {
            if !one_group {
                let _ = write!(text, "{},", csv_field(group));
            }
            let _ = writeln!(text, "{},{partition},{offset}", csv_field(topic));
        }
    }
    text
}

/// Quotes what Kafka's CSV writer quotes: long texts, and those with a character that sorts before '-'.
fn csv_field(text: &str) -> String {
    if text.len() > 24 || text.chars().any(|c| c < '-') {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// Reads plans from CSV: `topic,partition,offset` for the one group that was named, or with the group in front.
pub fn parse_csv(text: &str, one_group: Option<&str>) -> Result<BTreeMap<String, Plan>, String> {
    let mut plans: BTreeMap<String, Plan> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let fields = csv_fields(line);
        let (group, rest) = match (one_group, fields.len()) {
            (Some(group), 3) => (group.to_owned(), &fields[..]),
            (_, 4) => (fields[0].clone(), &fields[1..]),
            _ => return Err(format!("'{line}' is not a line of a reset plan")),
        };
        let number = |text: &str| {
            text.trim()
                .parse::<i64>()
                .map_err(|_| format!("'{text}' is not a number in '{line}'"))
        };
        let partition = i32::try_from(number(&rest[1])?)
            .map_err(|_| format!("'{}' is not a partition", rest[1]))?;
        let offset = number(&rest[2])?;
        let key = (rest[0].clone(), partition);
        let plan = plans.entry(group).or_default();
        plan.retain(|(earlier, _)| *earlier != key);
        plan.push((key, offset));
    }
    Ok(plans)
}

fn csv_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("never empty");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            '\r' if !quoted => {}
            other => field.push(other),
        }
    }
    fields
}

/// `2024-01-31T10:20:30.123`, with or without a zone (`Z`, `+02:00`, `+0200`, `+02`); UTC when there is none.
/// Milliseconds since 1970. The error is Java's sentence.
pub fn parse_datetime(text: &str) -> Result<i64, String> {
    if !text.contains('T') {
        return Err(
            "Error parsing timestamp. It does not contain a 'T' according to ISO8601 format"
                .to_owned(),
        );
    }
    read_datetime(text).ok_or_else(|| {
        let zoned = text
            .split_once('T')
            .is_some_and(|(_, time)| time.contains(['+', '-', 'Z']));
        format!(
            "Unparseable date: \"{text}{}\"",
            if zoned { "" } else { "Z" }
        )
    })
}

fn read_datetime(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once('T')?;
    let at = rest.find(['+', '-', 'Z']).unwrap_or(rest.len());
    let (time, zone) = rest.split_at(at);
    let numbers = |text: &str, separator: char| -> Option<Vec<i64>> {
        text.split(separator)
            .map(|part| {
                (!part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
                    .then(|| part.parse().ok())?
            })
            .collect()
    };
    let [year, month, day] = numbers(date, '-')?[..] else {
        return None;
    };
    let (clock, fraction) = time.split_once('.')?;
    let [hour, minute, second] = numbers(clock, ':')?[..] else {
        return None;
    };
    // Java reads the digits after the point as a number of milliseconds.
    let [ms] = numbers(fraction, '.')?[..] else {
        return None;
    };
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 || ms > 999 {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some((seconds - zone_seconds(zone)?) * 1000 + ms)
}

fn zone_seconds(zone: &str) -> Option<i64> {
    if zone.is_empty() || zone == "Z" {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let digits: String = zone[1..].chars().filter(|c| *c != ':').collect();
    if !digits.bytes().all(|b| b.is_ascii_digit()) || !matches!(digits.len(), 2 | 4) {
        return None;
    }
    let hours: i64 = digits[..2].parse().ok()?;
    let minutes: i64 = if digits.len() == 4 {
        digits[2..].parse().ok()?
    } else {
        0
    };
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let years = year - 1;
    let before_year =
        years * 365 + years.div_euclid(4) - years.div_euclid(100) + years.div_euclid(400);
    let before_month: i64 = (1..month).map(|earlier| days_in(year, earlier)).sum();
    before_year + before_month + day - 1 - 719_162
}

/// An ISO-8601 duration as Java's `Duration` reads it: `P1DT2H3M4.5S`, `-PT1H`, `PT-30M`. Milliseconds.
pub fn parse_duration_ms(text: &str) -> Result<i64, String> {
    read_duration(text).ok_or_else(|| "Text cannot be parsed to a Duration".to_owned())
}

fn read_duration(text: &str) -> Option<i64> {
    let upper = text.to_ascii_uppercase();
    let (sign, rest) = signed(&upper);
    let rest = rest.strip_prefix('P')?;
    let (days, time) = match rest.split_once('T') {
        Some((_, "")) => return None,
        Some((days, time)) => (days, time),
        None => (rest, ""),
    };
    let mut total_ms = 0_i64;
    let mut any = false;
    if !days.is_empty() {
        let number: i64 = plain(days.strip_suffix('D')?)?;
        total_ms = number.checked_mul(86_400_000)?;
        any = true;
    }
    let mut rest = time;
    for (unit, unit_ms) in [('H', 3_600_000), ('M', 60_000)] {
        if let Some((number, after)) = rest.split_once(unit) {
            total_ms = total_ms.checked_add(plain(number)?.checked_mul(unit_ms)?)?;
            rest = after;
            any = true;
        }
    }
    if !rest.is_empty() {
        total_ms = total_ms.checked_add(seconds_ms(rest.strip_suffix('S')?)?)?;
        any = true;
    }
    any.then(|| total_ms.checked_mul(sign))?
}

fn signed(text: &str) -> (i64, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    }
}

fn plain(text: &str) -> Option<i64> {
    let (sign, digits) = signed(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<i64>().ok()?.checked_mul(sign)
}

fn seconds_ms(text: &str) -> Option<i64> {
    let (sign, digits) = signed(text);
    let (whole, fraction) = digits.split_once(['.', ',']).unwrap_or((digits, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let whole: i64 = if whole.is_empty() && !fraction.is_empty() {
        0
    } else {
        plain(whole).filter(|n| *n >= 0)?
    };
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    Some(sign * (whole.checked_mul(1000)? + nanos / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tp(topic: &str, partition: i32) -> TopicPartition {
        (topic.to_owned(), partition)
    }

    #[test]
    fn datetimes_are_iso_8601_and_utc_without_a_zone() {
        for (text, expected) in [
            ("1970-01-01T00:00:00.000", Some(0)),
            ("1970-01-01T00:00:00.000Z", Some(0)),
            ("2001-09-09T01:46:40.007", Some(1_000_000_000_007)),
            ("2001-09-09T03:46:40.007+02:00", Some(1_000_000_000_007)),
            ("2001-09-08T20:16:40.007-0530", Some(1_000_000_000_007)),
            ("2001-09-09T03:46:40.007+02", Some(1_000_000_000_007)),
            ("2000-02-29T00:00:00.000", Some(951_782_400_000)),
            ("2001-02-29T00:00:00.000", None),
            ("2001-02-28T24:00:00.000", None),
            ("2001-02-28T00:00:00", None),
            ("yesterdayT", None),
        ] {
            assert_eq!(parse_datetime(text).ok(), expected, "{text}");
        }
        assert!(
            parse_datetime("2001-02-28")
                .unwrap_err()
                .contains("does not contain a 'T'")
        );
    }

    #[test]
    fn durations_are_javas() {
        for (text, expected) in [
            ("P1D", Some(86_400_000)),
            ("PT1H", Some(3_600_000)),
            (
                "P2DT3H4M5.006S",
                Some(2 * 86_400_000 + 3 * 3_600_000 + 4 * 60_000 + 5_006),
            ),
            ("-PT1M", Some(-60_000)),
            ("PT-1M", Some(-60_000)),
            ("pt0.5s", Some(500)),
            ("PT0S", Some(0)),
            ("P", None),
            ("PT", None),
            ("P1DT", None),
            ("1D", None),
            ("PT1D", None),
            ("P1W", None),
        ] {
            assert_eq!(parse_duration_ms(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_plan_prints_as_table_and_csv() {
        let plans = [(
            "g".to_owned(),
            vec![(tp("t", 0), 5), (tp("a-long-topic-name-above-24", 1), 7)],
        )];
        assert_eq!(
            table(&plans),
            "\nGROUP           TOPIC                      PARTITION  NEW-OFFSET\
             \ng               t                          0          5\
             \ng               a-long-topic-name-above-24 1          7\n"
        );
        assert_eq!(
            csv(&plans, true),
            "t,0,5\n\"a-long-topic-name-above-24\",1,7\n"
        );
        assert!(csv(&plans, false).starts_with("g,t,0,5\n"));
        assert_eq!(table(&[]), "\n");
    }

    #[test]
    fn csv_is_read_back() {
        let plans = parse_csv("t,0,5\n\"long,topic\",1,7\r\nt,0,6\n", Some("g")).unwrap();
        assert_eq!(plans["g"], vec![(tp("long,topic", 1), 7), (tp("t", 0), 6)]);
        let plans = parse_csv("g,t,0,5\nh,t,0,6\n", None).unwrap();
        assert_eq!((plans["g"][0].1, plans["h"][0].1), (5, 6));
        assert!(parse_csv("t,0\n", Some("g")).is_err());
        assert!(parse_csv("t,x,1\n", Some("g")).is_err());
    }

    #[test]
    fn partitions_follow_their_topic() {
        assert_eq!(
            parse_topic_partitions("t:0,2"),
            Ok(vec![tp("t", 0), tp("t", 2)])
        );
        assert_eq!(
            parse_topic_partitions("t:a").unwrap_err(),
            "Invalid partition 'a' specified in topic arg 't:a''"
        );
        assert!(
            parse_topic_partitions("t:0:1")
                .unwrap_err()
                .contains("expected topic name and partitions")
        );
    }
}
