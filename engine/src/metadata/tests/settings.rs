//! Tests of the metadata machine: settings of topics and of the broker.

use super::*;

fn replace(entries: &[(&str, Option<&str>)]) -> ConfigEdit {
    ConfigEdit::Replace(
        entries
            .iter()
            .map(|(key, value)| (key.to_string(), value.map(str::to_owned)))
            .collect(),
    )
}

#[test]
fn topic_settings_change() {
    use ResourceKind::Topic;
    let mut machine = Machine::new(&[]);
    machine.create(vec![topic("t", 1)]);
    let steps = [
        (
            incremental(&[("retention.ms", 0, Some("9"))]),
            map(&[("retention.ms", "9")]),
        ),
        (
            incremental(&[("cleanup.policy", 2, Some("compact"))]),
            map(&[("retention.ms", "9"), ("cleanup.policy", "delete,compact")]),
        ),
        (
            incremental(&[("cleanup.policy", 2, Some("compact"))]),
            map(&[("retention.ms", "9"), ("cleanup.policy", "delete,compact")]),
        ),
        (
            incremental(&[
                ("cleanup.policy", 3, Some("delete")),
                ("retention.ms", 1, None),
            ]),
            map(&[("cleanup.policy", "compact")]),
        ),
        (
            replace(&[("segment.ms", Some("5"))]),
            map(&[("segment.ms", "5")]),
        ),
        (replace(&[]), map(&[])),
    ];
    for (edit, expected) in steps {
        let results = machine.alter(vec![change(Topic, "t", edit.clone())]);
        assert_eq!(results, [Ok(())], "{edit:?}");
        let now = machine
            .image
            .configs(Topic, "t")
            .cloned()
            .unwrap_or_default();
        assert_eq!(now, expected, "{edit:?}");
    }
    assert_eq!(
        machine.image.topic("t").unwrap().config,
        machine.image.config().topic_defaults
    );
}

#[test]
fn bad_changes_of_settings_are_refused() {
    use ResourceKind::*;
    let mut machine = Machine::new(&[]);
    machine.create(vec![topic("t", 1)]);
    let set = |key: &str, value: &str| incremental(&[(key, 0, Some(value))]);
    let table = [
        (
            change(Topic, "missing", set("retention.ms", "1")),
            3,
            "does not exist",
        ),
        (
            change(Topic, "", set("retention.ms", "1")),
            42,
            "Default topic resources",
        ),
        (change(Topic, "a/b", set("retention.ms", "1")), 17, "ASCII"),
        (
            change(Topic, "t", set("foo", "1")),
            40,
            "Unknown topic config name: foo",
        ),
        (
            change(Topic, "t", set("retention.ms", "x")),
            40,
            "Not a number of type LONG",
        ),
        (
            change(Topic, "t", incremental(&[("retention.ms", 2, Some("1"))])),
            40,
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (
            change(Topic, "t", incremental(&[("retention.ms", 7, Some("1"))])),
            42,
            "Unknown operations",
        ),
        (
            change(Topic, "t", incremental(&[("retention.ms", 0, None)])),
            42,
            "Null value not supported",
        ),
        (
            change(
                Topic,
                "t",
                replace(&[("retention.ms", Some("1")), ("retention.ms", Some("2"))]),
            ),
            42,
            "duplicate config keys",
        ),
        (
            change(Broker, "2", set("message.max.bytes", "1")),
            42,
            "Unexpected broker id, expected 1",
        ),
        (
            change(Broker, "x", set("message.max.bytes", "1")),
            42,
            "must be an integer",
        ),
        (
            change(Broker, "1", set("num.partitions", "2")),
            42,
            "Cannot update these configs dynamically: [num.partitions]",
        ),
        (
            change(Broker, "1", set("num.io.threads", "2")),
            42,
            "[num.io.threads]",
        ),
        (
            change(Broker, "1", set("no.such.key", "2")),
            42,
            "no.such.key",
        ),
        (
            change(Broker, "", set("message.max.bytes", "x")),
            42,
            "Not a number",
        ),
        (
            change(BrokerLogger, "1", set("root", "INFO")),
            42,
            "Unknown resource type 8",
        ),
        (change(Group, "g", set("foo", "1")), 40, "foo"),
        (
            change(Group, "", set("consumer.session.timeout.ms", "1")),
            42,
            "Default group",
        ),
        (
            change(Group, "g", set("consumer.session.timeout.ms", "0")),
            40,
            "at least 1",
        ),
        (
            change(ClientMetrics, "", set("match", "1")),
            42,
            "can't be empty",
        ),
        (
            change(ClientMetrics, "m", set("interval.ms", "99")),
            42,
            "must be between 100 and 3600000",
        ),
        (
            change(ClientMetrics, "m", set("match", "zzz")),
            40,
            "Illegal client matching pattern: zzz",
        ),
        (
            change(Group, "g", set("consumer.session.timeout.ms", "1")),
            40,
            "must be greater than or equal to group.consumer.min.session.timeout.ms",
        ),
        (
            change(Group, "g", set("consumer.session.timeout.ms", "60001")),
            40,
            "must be less than or equal to group.consumer.max.session.timeout.ms",
        ),
    ];
    let before = machine.image.clone();
    for (wanted, code, words) in table {
        let refusal = machine.alter(vec![wanted.clone()]).remove(0).unwrap_err();
        let told = refusal.message.unwrap_or_default();
        assert_eq!(refusal.error as i16, code, "{wanted:?}: {told}");
        assert!(told.contains(words), "{wanted:?}: {told}");
    }
    let unknown = ConfigChange {
        kind: 1,
        name: String::new(),
        edit: replace(&[]),
    };
    assert_eq!(
        machine.alter(vec![unknown])[0].as_ref().unwrap_err().error as i16,
        42
    );
    let same = || change(Topic, "t", set("retention.ms", "1"));
    let results = machine.alter(vec![same(), same()]);
    assert!(
        results
            .iter()
            .all(|result| result.as_ref().unwrap_err().error as i16 == 42)
    );
    assert_eq!(machine.image, before);
}

#[test]
fn broker_settings_reach_topics() {
    use ResourceKind::*;
    let mut machine = Machine::new(&[("message.max.bytes", "500")]);
    machine.create(vec![topic("t", 1)]);
    let set = |name: &str, value: &str| {
        change(
            Broker,
            name,
            incremental(&[("message.max.bytes", 0, Some(value))]),
        )
    };
    assert_eq!(
        machine.alter(vec![set("", "600"), set("1", "700")]),
        [Ok(()), Ok(())]
    );
    assert_eq!(
        machine.image.topic("t").unwrap().config.message_bytes_max,
        700
    );
    machine.alter(vec![change(Broker, "1", replace(&[]))]);
    assert_eq!(
        machine.image.topic("t").unwrap().config.message_bytes_max,
        600
    );
    assert_eq!(machine.image.configured(Broker).collect::<Vec<_>>(), [""]);
    machine.alter(vec![change(Broker, "", replace(&[]))]);
    assert_eq!(
        machine.image.topic("t").unwrap().config.message_bytes_max,
        500
    );
}
