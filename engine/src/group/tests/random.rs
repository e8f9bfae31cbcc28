//! Random calls: whatever happens, the machine holds its promises, and what it holds of settled groups
//! is what a replay of its records gives.

use proptest::prelude::*;

use super::super::classic::{Group, GroupState};
use super::super::coordinator::GroupConfig;
use super::script::Script;

/// What a restart must find again.
fn hard_state(group: &Group) -> String {
    let protocol = group.protocol.clone().unwrap_or_default();
    let members: Vec<_> = group
        .members
        .values()
        .map(|member| member.to_record(&protocol))
        .collect();
    format!(
        "{:?} {} {:?} {:?} {:?} {:?} {:?} {:?}",
        group.state,
        group.generation,
        group.protocol_type,
        group.protocol,
        group.leader,
        group.static_members,
        group.subscribed,
        members
    )
}

fn line() -> impl Strategy<Value = String> {
    let member = prop_oneof![
        (1..4u8).prop_map(|n| format!("a.{n}")),
        (1..3u8).prop_map(|n| format!("i.{n}")),
    ];
    let generation = 0..6i32;
    let protocols = prop_oneof![
        Just("range:t"),
        Just("range:t,rr:u"),
        Just("rr:u,range:t"),
        Just("rr:t+u")
    ];
    let offset = (0..3u8, 0..3u8, 0..9u8).prop_map(|(topic, partition, offset)| {
        format!("{}-{partition}={offset}", ["t", "u", "v"][topic as usize])
    });
    let name = prop_oneof![Just("g"), Just("h")];
    (name, member, generation, protocols, offset, 0..20_000u32).prop_flat_map(
        |(g, m, generation, protos, offset, ms)| {
            prop_oneof![
                Just(format!("x join g={g} v=3 client=a protos={protos}")),
                Just(format!("x join g={g} v=9 client=a protos={protos}")),
                Just(format!("x join g={g} v=9 inst=i protos={protos}")),
                Just(format!("x join g={g} id={m} protos={protos}")),
                Just(format!("x sync {m} {generation} g={g} a.1=A a.2=B i.1=C")),
                Just(format!("x beat {m} {generation} g={g}")),
                Just(format!("x leave {m} g={g}")),
                Just(format!("x leave inst=i g={g}")),
                Just(format!("x commit g={g} {offset}")),
                Just(format!("x commit g={g} id={m} gen={generation} {offset}")),
                Just(format!("x drop g={g} t-0 u-0")),
                Just(format!("x delete g={g}")),
                Just(format!("x fetch g={g} all")),
                Just("topic-deleted t".to_owned()),
                Just(format!("wait {ms}")),
                Just(format!("wait {}", u64::from(ms) * 400)),
            ]
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_replay_of_the_records_gives_the_settled_groups(
        lines in prop::collection::vec(line(), 1..60)
    ) {
        let mut script = Script::new(GroupConfig {
            offsets_retention_ms: 3_600_000,
            ..GroupConfig::default()
        });
        for line in &lines {
            script.run(line);
        }
        let replayed = script.replayed();
        for group in script.machine.groups() {
            let twin = replayed.groups().find(|twin| twin.id == group.id);
            let twin = twin.expect("a group that is there is in the log");
            prop_assert_eq!(&group.offsets, &twin.offsets);
            if matches!(group.state, GroupState::Stable | GroupState::Empty) {
                // A follower's new timeouts are not worth a record, as in Kafka.
                prop_assert_eq!(hard_state(group), hard_state(twin));
            } else {
                prop_assert!(twin.generation <= group.generation);
            }
        }
        for twin in replayed.groups() {
            prop_assert!(script.machine.groups().any(|group| group.id == twin.id));
        }
        // Sessions end, phases end: an hour after the last call nobody is in a group.
        script.run("wait 3600000");
        for group in script.machine.groups() {
            prop_assert_eq!(group.state, GroupState::Empty);
        }
    }
}
