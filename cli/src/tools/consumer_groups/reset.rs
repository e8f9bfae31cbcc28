//! The part of consumer-groups that moves committed offsets. Main thread.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bench::clock;
use bench::context::log_line;
use net::client::Target;
use net::kafka::error::ErrorCode;
use net::kafka::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};

use super::{Done, Failure, Groups, NAMES_VERSION_MAX, SCENARIOS, print_error, wrapped};
use crate::tools::admin::{AdminError, TopicPartition, check, show};
use crate::tools::args::Found;
use crate::tools::group_report::GroupState;
use crate::tools::offset_reset::{self, Plan};
use crate::tools::progress::Progress;
use crate::tools::{java, out};

impl Groups<'_> {
    pub(super) fn reset(&mut self) -> Done {
        let ids = self.chosen()?;
        let mut plans: Vec<(String, Plan)> = Vec::new();
        let mut progress = Progress::new(ids.len(), "groups");
        for id in ids {
            progress.step();
            let state = match self.describe_one(&id) {
                Ok(description) => description.state,
                Err(AdminError {
                    code: Some(ErrorCode::GroupIdNotFound),
                    ..
                }) => GroupState::Dead,
                Err(error) => return Err(wrapped(error)),
            };
            if matches!(state, GroupState::Empty | GroupState::Dead) {
                let plan = self.reset_one(&id)?;
                plans.push((id, plan));
            } else {
                print_error(&format!(
                    "Assignments can only be reset if the group '{id}' is inactive, but the current state is {}.",
                    state.name()
                ));
                plans.push((id, Plan::new()));
            }
        }
        let ordered: Vec<(String, Plan)> = java::map_order(plans, |(id, _)| id)
            .into_iter()
            .map(|(id, plan)| (id, offset_reset::order(plan)))
            .collect();
        if self.found.has("export") {
            out::line(&offset_reset::csv(
                &ordered,
                self.found.texts("group").len() == 1,
            ));
        } else {
            out::text(&offset_reset::table(&ordered));
        }
        Ok(())
    }

    fn reset_one(&mut self, id: &str) -> Done<Plan> {
        let partitions = self.partitions_to_reset(id)?;
        self.check_partitions(&partitions)?;
        let plan = self.prepare(id, &partitions)?;
        if self.found.has("execute") && !self.found.has("dry-run") {
            self.commit(id, &plan)?;
        }
        Ok(plan)
    }

    fn partitions_to_reset(&mut self, id: &str) -> Done<Vec<TopicPartition>> {
        if self.found.has("all-topics") {
            return Ok(self.committed(id).map_err(wrapped)?.into_keys().collect());
        }
        if !self.found.has("topic") {
            if self.found.has("from-file") {
                return Ok(Vec::new());
            }
            return Err(Failure::Usage(
                "One of the reset scopes should be defined: --all-topics, --topic.".to_owned(),
            ));
        }
        let (with, without): (Vec<&str>, Vec<&str>) = self
            .found
            .texts("topic")
            .into_iter()
            .partition(|topic| topic.contains(':'));
        let mut partitions = Vec::new();
        for topic in with {
            partitions.extend(offset_reset::parse_topic_partitions(topic).map_err(Failure::Usage)?);
        }
        let names: Vec<String> = without.into_iter().map(str::to_owned).collect();
        for topic in self
            .admin
            .describe_topics(&names, 2000)
            .map_err(|error| Failure::Error(error.message))?
        {
            partitions.extend(
                topic
                    .partitions
                    .iter()
                    .map(|info| (topic.name.clone(), info.partition)),
            );
        }
        Ok(partitions)
    }

    /// Every partition must exist and have a leader.
    fn check_partitions(&mut self, partitions: &[TopicPartition]) -> Done {
        let mut names: Vec<String> = partitions.iter().map(|(topic, _)| topic.clone()).collect();
        names.sort();
        names.dedup();
        let topics = self.admin.describe_topics(&names, 2000).map_err(wrapped)?;
        let find = |(topic, partition): &TopicPartition| {
            topics
                .iter()
                .find(|described| described.name == *topic)
                .and_then(|described| {
                    described
                        .partitions
                        .iter()
                        .find(|info| info.partition == *partition)
                })
        };
        let list =
            |bad: Vec<&TopicPartition>| bad.into_iter().map(show).collect::<Vec<_>>().join(",");
        let missing: Vec<&TopicPartition> = partitions
            .iter()
            .filter(|partition| find(partition).is_none())
            .collect();
        if !missing.is_empty() {
            return Err(Failure::Error(format!(
                "The partitions \"{}\" do not exist",
                list(missing)
            )));
        }
        let headless: Vec<&TopicPartition> = partitions
            .iter()
            .filter(|partition| find(partition).is_some_and(|info| info.leader.is_none()))
            .collect();
        if !headless.is_empty() {
            return Err(Failure::Error(format!(
                "The partitions \"{}\" have no leader",
                list(headless)
            )));
        }
        Ok(())
    }

    fn offsets_at(&mut self, partitions: &[TopicPartition], timestamp: i64) -> Done<Plan> {
        let found = self
            .admin
            .list_offsets(partitions, timestamp)
            .map_err(wrapped)?;
        partitions
            .iter()
            .map(|partition| match found.get(partition) {
                Some(Ok(offset)) => Ok((partition.clone(), *offset)),
                Some(Err(error)) => Err(wrapped(error.clone())),
                None => Err(Failure::Usage(format!(
                    "Error getting offset of topic partition: {}",
                    show(partition)
                ))),
            })
            .collect()
    }

    fn offsets_by_time(&mut self, partitions: &[TopicPartition], timestamp: i64) -> Done<Plan> {
        let found = self.offsets_at(partitions, timestamp)?;
        let (hit, missed): (Plan, Plan) = found.into_iter().partition(|(_, offset)| *offset != -1);
        for ((topic, partition), _) in &missed {
            out::line(&format!(
                "\nWarn: Partition {partition} from topic {topic} is empty. Falling back to latest known offset."
            ));
        }
        let missed: Vec<TopicPartition> =
            missed.into_iter().map(|(partition, _)| partition).collect();
        let mut plan = hit;
        plan.extend(self.offsets_at(&missed, -1)?);
        Ok(plan)
    }

    /// Moves wanted offsets into what the logs hold.
    fn within_range(&mut self, wanted: Plan) -> Done<Plan> {
        let partitions: Vec<TopicPartition> = wanted
            .iter()
            .map(|(partition, _)| partition.clone())
            .collect();
        let starts: BTreeMap<TopicPartition, i64> =
            self.offsets_at(&partitions, -2)?.into_iter().collect();
        let ends: BTreeMap<TopicPartition, i64> =
            self.offsets_at(&partitions, -1)?.into_iter().collect();
        Ok(wanted
            .into_iter()
            .map(|(partition, offset)| {
                let (start, end) = (starts[&partition], ends[&partition]);
                let name = show(&partition);
                if offset > end {
                    log_line("WARN", &format!("New offset ({offset}) is higher than latest offset for topic partition {name}. Value will be set to {end}"));
                } else if offset < start {
                    log_line("WARN", &format!("New offset ({offset}) is lower than earliest offset for topic partition {name}. Value will be set to {start}"));
                }
                (partition, if offset > end { end } else { offset.max(start) })
            })
            .collect())
    }

    fn prepare(&mut self, id: &str, partitions: &[TopicPartition]) -> Done<Plan> {
        let found = self.found;
        if let Some(offset) = found.long("to-offset") {
            return self.within_range(
                partitions
                    .iter()
                    .map(|partition| (partition.clone(), offset))
                    .collect(),
            );
        }
        if found.has("to-earliest") {
            return self.offsets_at(partitions, -2);
        }
        if found.has("to-latest") {
            return self.offsets_at(partitions, -1);
        }
        if let Some(shift) = found.long("shift-by") {
            let committed = self.committed(id).map_err(wrapped)?;
            let mut wanted = Plan::new();
            for partition in partitions {
                let Some(at) = committed.get(partition) else {
                    return Err(Failure::Usage(format!(
                        "Cannot shift offset for partition {} since there is no current committed offset",
                        show(partition)
                    )));
                };
                wanted.push((partition.clone(), at.offset.saturating_add(shift)));
            }
            return self.within_range(wanted);
        }
        if let Some(text) = found.text("to-datetime") {
            let timestamp = offset_reset::parse_datetime(text)
                .map_err(|why| Failure::Error(format!("java.text.ParseException: {why}")))?;
            return self.offsets_by_time(partitions, timestamp);
        }
        if let Some(text) = found.text("by-duration") {
            let duration_ms = offset_reset::parse_duration_ms(text).map_err(Failure::Error)?;
            return self.offsets_by_time(partitions, clock::wall_ms() - duration_ms);
        }
        if let Some(path) = found.text("from-file") {
            let text = std::fs::read_to_string(path).map_err(|_| {
                Failure::Error(format!("java.nio.file.NoSuchFileException: {path}"))
            })?;
            let groups = found.texts("group");
            let only = if let [only] = groups[..] {
                Some(only)
            } else {
                None
            };
            let mut plans = offset_reset::parse_csv(&text, only).map_err(Failure::Error)?;
            return match plans.remove(id) {
                Some(plan) => self.within_range(plan),
                None => {
                    print_error(&format!("No reset plan for group {id} found"));
                    Ok(Plan::new())
                }
            };
        }
        if found.has("to-current") {
            let committed = self.committed(id).map_err(wrapped)?;
            let (mut plan, mut without) = (Plan::new(), Vec::new());
            for partition in partitions {
                match committed.get(partition) {
                    Some(at) => plan.push((partition.clone(), at.offset)),
                    None => without.push(partition.clone()),
                }
            }
            plan.extend(self.offsets_at(&without, -1)?);
            return Ok(plan);
        }
        let names: Vec<String> = SCENARIOS.iter().map(|name| format!("[{name}]")).collect();
        Err(Failure::Usage(format!(
            "Option '[reset-offsets]' requires one of the following scenarios: [{}]",
            names.join(", ")
        )))
    }

    fn commit(&mut self, id: &str, plan: &Plan) -> Done {
        let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition<'_>>> = BTreeMap::new();
        for ((topic, partition_index), committed_offset) in plan {
            topics
                .entry(topic)
                .or_default()
                .push(OffsetCommitRequestPartition {
                    partition_index: *partition_index,
                    committed_offset: *committed_offset,
                    committed_metadata: Some(Cow::Borrowed("")),
                    ..OffsetCommitRequestPartition::default()
                });
        }
        let request = OffsetCommitRequest {
            group_id: Cow::Borrowed(id),
            topics: topics
                .into_iter()
                .map(|(name, partitions)| OffsetCommitRequestTopic {
                    name: Cow::Borrowed(name),
                    partitions,
                    ..Default::default()
                })
                .collect(),
            ..OffsetCommitRequest::default()
        };
        self.admin
            .client
            .retry(|client| {
                let target = Target::Broker(client.coordinator(id)?.id);
                client.call_up_to(target, &request, NAMES_VERSION_MAX, |response, _| {
                    let codes = response
                        .topics
                        .iter()
                        .flat_map(|topic| &topic.partitions)
                        .map(|p| p.error_code);
                    match codes.map(|code| check(code, None)).find_map(Result::err) {
                        None => Ok(()),
                        Some(error) => {
                            Err((error.code.unwrap_or(ErrorCode::UnknownServerError), None))
                        }
                    }
                })
            })
            .map_err(|error| Failure::Error(AdminError::from(error).message))
    }
}
