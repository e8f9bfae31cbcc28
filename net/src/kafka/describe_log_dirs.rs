//! DescribeLogDirs: log directories and what lies in them (key 35, KIP-113). Lives on the core of the
//! connection; knows only the form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Asks about log directories.
    request(DescribeLogDirs) DescribeLogDirsRequest<'a> {
        /// The topics to tell about; null for all.
        topics: Option<Vec<DescribableLogDirTopic<'a>>> = 0.., nullable 0..;
    }

    /// One topic to tell about.
    struct DescribableLogDirTopic<'a> {
        /// The topic's name.
        topic: Cow<'a, str> = 0..;
        /// The partitions.
        partitions: Vec<i32> = 0..;
    }

    /// Tells about log directories.
    response(DescribeLogDirs) DescribeLogDirsResponse<'a> {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 0..;
        /// The error of the whole request, or 0.
        error_code: i16 = 3..;
        /// The directories.
        results: Vec<DescribeLogDirsResult<'a>> = 0..;
    }

    /// One directory.
    struct DescribeLogDirsResult<'a> {
        /// The error, or 0.
        error_code: i16 = 0..;
        /// The directory's absolute path.
        log_dir: Cow<'a, str> = 0..;
        /// What lies in it.
        topics: Vec<DescribeLogDirsTopic<'a>> = 0..;
        /// The size of the volume in bytes, or -1 (KIP-827).
        total_bytes: i64 = 4.., default -1;
        /// The room left on the volume in bytes, or -1.
        usable_bytes: i64 = 4.., default -1;
        /// Whether no new partitions are to be put here (KIP-1066).
        is_cordoned: bool = 5..;
    }

    /// One topic in a directory.
    struct DescribeLogDirsTopic<'a> {
        /// The topic's name.
        name: Cow<'a, str> = 0..;
        /// The partitions.
        partitions: Vec<DescribeLogDirsPartition> = 0..;
    }

    /// One partition in a directory.
    struct DescribeLogDirsPartition {
        /// The partition.
        partition_index: i32 = 0..;
        /// The size of its segments, in bytes.
        partition_size: i64 = 0..;
        /// How far its end lies behind, in records.
        offset_lag: i64 = 0..;
        /// Whether it is being moved here.
        is_future_key: bool = 0..;
    }
}
