//! The keys of consumer, share and streams groups, and of client metrics subscriptions. A table of constants, read on
//! any thread; it knows nothing about how a key is used.

use crate::config::key::{KeySpec, keys};

/// Every group key, sorted by name.
pub static GROUP: &[KeySpec] = keys! {
    "consumer.assignment.interval.ms": Int, "1000", AtLeast(0), Accepted, Dynamic;
    "Milliseconds between two assignments of this group.";
    "consumer.heartbeat.interval.ms": Int, "5000", AtLeast(1), Accepted, Dynamic;
    "Milliseconds between heartbeats of this group's members.";
    "consumer.session.timeout.ms": Int, "45000", AtLeast(1), Accepted, Dynamic;
    "Milliseconds without a heartbeat after which a member of this group is removed.";
    "share.assignment.interval.ms": Int, "1000", AtLeast(0), Accepted, Dynamic;
    "Milliseconds between two assignments of this share group.";
    "share.auto.offset.reset": String, "latest", ShareOffsetReset, Accepted, Dynamic;
    "Where this share group starts without an offset: earliest, latest, or by_duration and a period.";
    "share.delivery.count.limit": Int, "5", AtLeast(2), Accepted, Dynamic;
    "Deliveries of a record after which this share group gives it up.";
    "share.heartbeat.interval.ms": Int, "5000", AtLeast(1), Accepted, Dynamic;
    "Milliseconds between heartbeats of this share group's members.";
    "share.isolation.level": String, "read_uncommitted", OneOf(&["read_committed", "read_uncommitted"]), Accepted, Dynamic;
    "Whether this share group reads records of open and aborted transactions.";
    "share.partition.max.record.locks": Int, "2000", AtLeast(100), Accepted, Dynamic;
    "Most records of a partition that this share group holds locked at once.";
    "share.record.lock.duration.ms": Int, "30000", AtLeast(1000), Accepted, Dynamic;
    "Milliseconds for which a member of this share group keeps a record to itself.";
    "share.renew.acknowledge.enable": Boolean, "true", Any, Accepted, Dynamic;
    "Whether members of this share group may renew their locks.";
    "share.session.timeout.ms": Int, "45000", AtLeast(1), Accepted, Dynamic;
    "Milliseconds without a heartbeat after which a member of this share group is removed.";
    "streams.assignment.interval.ms": Int, "1000", AtLeast(0), Accepted, Dynamic;
    "Milliseconds between two assignments of this streams group.";
    "streams.heartbeat.interval.ms": Int, "5000", AtLeast(1), Accepted, Dynamic;
    "Milliseconds between heartbeats of this streams group's members.";
    "streams.initial.rebalance.delay.ms": Int, "3000", AtLeast(0), Accepted, Dynamic;
    "Milliseconds for which this streams group, when new, waits for more members.";
    "streams.num.standby.replicas": Int, "0", AtLeast(0), Accepted, Dynamic;
    "Standby replicas of each task of this streams group.";
    "streams.session.timeout.ms": Int, "45000", AtLeast(1), Accepted, Dynamic;
    "Milliseconds without a heartbeat after which a member of this streams group is removed.";
};

/// Every key of a client metrics subscription, sorted by name.
pub static CLIENT_METRICS: &[KeySpec] = keys! {
    "interval.ms": Int, "300000", Any, Accepted, Dynamic;
    "Milliseconds between pushes of metrics by matching clients.";
    "match": List, "", Any, Accepted, Dynamic;
    "Patterns that select the clients of this subscription.";
    "metrics": List, "", Any, Accepted, Dynamic;
    "Prefixes of the metrics that clients push.";
};
