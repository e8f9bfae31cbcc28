//! Whole-machine tests of the group coordinator: transcripts for what Kafka's documents promise, and
//! random calls against the replay of their own records.

mod expiry;
mod membership;
mod random;
mod script;
mod storage_failures;

use super::*;

#[test]
fn a_group_belongs_to_the_partition_of_its_java_hash() {
    // "a" is 97; "ab" is 97 * 31 + 98; a character beyond the basic plane is two units.
    assert_eq!(java_string_hash(""), 0);
    assert_eq!(java_string_hash("ab"), 3105);
    assert_eq!(java_string_hash("\u{10000}"), 0xd800 * 31 + 0xdc00);
    assert_eq!(partition_for("ab", 50), 5);
    // Well known: this text hashes to the smallest integer, which has no absolute value.
    assert_eq!(java_string_hash("polygenelubricants"), i32::MIN);
    assert_eq!(partition_for("polygenelubricants", 50), 0);
}
