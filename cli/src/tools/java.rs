//! What Java's collections and formatter do, where the tools' output shows it: hash order, base64 ids, numbers. Any thread; knows no tool.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, URL_SAFE_NO_PAD};
use uuid::Uuid;

/// As Java's decoder, it does not mind what the last character says beyond the last byte.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// Java's `String.hashCode`, over UTF-16.
pub fn string_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

/// The hash code of Kafka's `TopicPartition`.
pub fn topic_partition_hash(topic: &str, partition: i32) -> i32 {
    31_i32
        .wrapping_add(partition)
        .wrapping_mul(31)
        .wrapping_add(string_hash(topic))
}

/// The table size of a Java hash map that grew by inserting `count` entries into a default one.
pub fn grown_table(count: usize) -> usize {
    let mut table = 16;
    while count * 4 > table * 3 {
        table *= 2;
    }
    table
}

/// The table size of a Java hash map that was made for `count` entries and holds as many.
pub fn sized_table(count: usize) -> usize {
    let mut table = count.max(1).next_power_of_two();
    while count * 4 > table * 3 {
        table *= 2;
    }
    table
}

/// Puts entries into the order in which a Java hash map of this table size iterates over them: by bucket, and as
/// they came within a bucket.
pub fn hash_order<T>(mut entries: Vec<T>, table: usize, hash: impl Fn(&T) -> i32) -> Vec<T> {
    let mask = table as u32 - 1;
    entries.sort_by_key(|entry| {
        let hash = hash(entry) as u32;
        (hash ^ (hash >> 16)) & mask
    });
    entries
}

/// [`hash_order`] for a default map keyed by text.
pub fn map_order<T>(entries: Vec<T>, key: impl Fn(&T) -> &str) -> Vec<T> {
    let table = grown_table(entries.len());
    hash_order(entries, table, |entry| string_hash(key(entry)))
}

/// An id in Kafka's form: base64 for URLs, without padding.
pub fn uuid_text(id: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(id.as_bytes())
}

/// Reads an id in Kafka's form. The error is Kafka's sentence.
pub fn parse_uuid(text: &str) -> Result<Uuid, String> {
    if text.len() > 24 {
        return Err(format!(
            "Input string with prefix `{}` is too long to be decoded as a base64 UUID",
            prefix(text)
        ));
    }
    let bytes = LENIENT
        .decode(text.trim_end_matches('='))
        .map_err(|e| e.to_string())?;
    let length = bytes.len();
    bytes.try_into().map(Uuid::from_bytes).map_err(|_| {
        format!("Input string `{}` decoded as {length} bytes, which is not equal to the expected 16 bytes of a base64-encoded UUID", prefix(text))
    })
}

fn prefix(text: &str) -> &str {
    text.char_indices()
        .nth(24)
        .map_or(text, |(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_javas() {
        // The documented polynomial: s[0]*31^(n-1) + ... + s[n-1].
        assert_eq!(string_hash(""), 0);
        assert_eq!(string_hash("ab"), 97 * 31 + 98);
        assert_eq!(string_hash("polygenelubricants"), i32::MIN);
        // A character outside the basic plane counts as two units.
        assert_eq!(string_hash("\u{1F600}"), 0xD83D * 31 + 0xDE00);
        assert_eq!(topic_partition_hash("a", 2), 33 * 31 + 97);
    }

    #[test]
    fn a_table_doubles_when_three_quarters_are_passed() {
        for (count, table) in [
            (0, 16),
            (12, 16),
            (13, 32),
            (24, 32),
            (25, 64),
            (48, 64),
            (49, 128),
        ] {
            assert_eq!(grown_table(count), table, "{count}");
        }
    }

    #[test]
    fn entries_come_out_by_bucket_and_then_as_they_went_in() {
        // One-letter names hash to their code: b=98 lies in bucket 2, r=114 too, a=97 in bucket 1.
        let order = map_order(vec!["r", "b", "a"], |name| name);
        assert_eq!(order, ["a", "r", "b"]);
    }

    #[test]
    fn ids_are_url_base64_without_padding() {
        let id = Uuid::from_u128(1);
        assert_eq!(uuid_text(id), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(parse_uuid("AAAAAAAAAAAAAAAAAAAAAQ"), Ok(id));
        assert_eq!(
            parse_uuid(&uuid_text(Uuid::from_u128(u128::MAX))),
            Ok(Uuid::from_u128(u128::MAX))
        );
        assert!(parse_uuid("AAAA").unwrap_err().contains("3 bytes"));
        assert!(parse_uuid("xxx").unwrap_err().contains("2 bytes"));
        assert!(
            parse_uuid("AAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
                .unwrap_err()
                .contains("too long")
        );
    }
}
