//! The parts of consumer-groups that delete: whole groups, and offsets of a group. Main thread.

use std::borrow::Cow;
use std::collections::BTreeMap;

use net::client::{Target, error_of};
use net::kafka::delete_groups::DeleteGroupsRequest;
use net::kafka::error::ErrorCode;
use net::kafka::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};

use super::{Done, Failure, Groups, print_error};
use crate::tools::admin::{AdminError, TopicPartition};
use crate::tools::args::Found;
use crate::tools::progress::Progress;
use crate::tools::{group_report, java, kafka_errors, offset_reset, out};

impl Groups<'_> {
    pub(super) fn delete(&mut self) -> Done {
        let ids = self.chosen()?;
        let mut deleted: Vec<String> = Vec::new();
        let mut failed: Vec<(String, String)> = Vec::new();
        let mut progress = Progress::new(ids.len(), "groups");
        for id in ids {
            progress.step();
            let request = DeleteGroupsRequest {
                groups_names: vec![Cow::Borrowed(id.as_str())],
            };
            let outcome = self.admin.client.retry(|client| {
                let target = Target::Broker(client.coordinator(&id)?.id);
                client.call(target, &request, |response, _| {
                    match response
                        .results
                        .first()
                        .map_or(ErrorCode::UnknownServerError, |found| {
                            error_of(found.error_code)
                        }) {
                        ErrorCode::None => Ok(()),
                        code => Err((code, None)),
                    }
                })
            });
            match outcome {
                Ok(()) => deleted.push(id),
                Err(error) => failed.push((id, AdminError::from(error).java())),
            }
        }
        let quoted = |ids: &[String]| {
            ids.iter()
                .map(|id| format!("'{id}'"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        if failed.is_empty() {
            out::line(&format!(
                "Deletion of requested consumer groups ({}) was successful.",
                quoted(&deleted)
            ));
            return Ok(());
        }
        print_error("Deletion of some consumer groups failed:");
        for (id, error) in java::map_order(failed, |(id, _)| id) {
            out::line(&format!(
                "* Group '{id}' could not be deleted due to: {error}"
            ));
        }
        if !deleted.is_empty() {
            out::line(&format!(
                "\nThese consumer groups were deleted successfully: {}",
                quoted(&deleted)
            ));
        }
        Ok(())
    }

    pub(super) fn delete_offsets(&mut self) -> Done {
        let group = match self.found.texts("group")[..] {
            [group] => group.to_owned(),
            _ => {
                return Err(Failure::Usage(
                    "Found multiple arguments for option group, but you asked for only one"
                        .to_owned(),
                ));
            }
        };
        let mut results: BTreeMap<TopicPartition, Result<(), String>> = BTreeMap::new();
        let mut partitions: Vec<TopicPartition> = Vec::new();
        for topic in self.found.texts("topic") {
            if topic.contains(':') {
                partitions
                    .extend(offset_reset::parse_topic_partitions(topic).map_err(Failure::Usage)?);
                continue;
            }
            match self.admin.describe_topics(&[topic.to_owned()], 2000) {
                Ok(described) => {
                    let described = described.into_iter().flat_map(|topic| {
                        topic
                            .partitions
                            .into_iter()
                            .map(move |p| (topic.name.clone(), p.partition))
                    });
                    partitions.extend(described);
                }
                Err(error) => {
                    results.insert((topic.to_owned(), -1), Err(error.java()));
                }
            }
        }
        partitions.sort();
        partitions.dedup();
        let mut topics: BTreeMap<&str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
        for (topic, partition_index) in &partitions {
            topics
                .entry(topic)
                .or_default()
                .push(OffsetDeleteRequestPartition {
                    partition_index: *partition_index,
                });
        }
        let request = OffsetDeleteRequest {
            group_id: Cow::Borrowed(&group),
            topics: topics
                .into_iter()
                .map(|(name, partitions)| OffsetDeleteRequestTopic {
                    name: Cow::Borrowed(name),
                    partitions,
                })
                .collect(),
        };
        let answer: Result<BTreeMap<TopicPartition, ErrorCode>, _> =
            self.admin.client.retry(|client| {
                let target = Target::Broker(client.coordinator(&group)?.id);
                client.call(target, &request, |response, _| {
                    match error_of(response.error_code) {
                        ErrorCode::None => Ok(response
                            .topics
                            .into_iter()
                            .flat_map(|topic| {
                                let name = topic.name.into_owned();
                                topic.partitions.into_iter().map(move |p| {
                                    ((name.clone(), p.partition_index), error_of(p.error_code))
                                })
                            })
                            .collect()),
                        code => Err((code, None)),
                    }
                })
            });
        let mut top = ErrorCode::None;
        match answer {
            Ok(codes) => {
                // Java looks at the partitions in the order of a hash set; any error is as good as another here.
                for partition in partitions {
                    let code = codes
                        .get(&partition)
                        .copied()
                        .unwrap_or(ErrorCode::UnknownServerError);
                    if top == ErrorCode::None {
                        top = code;
                    }
                    let outcome = if code.is_none() {
                        Ok(())
                    } else {
                        Err(AdminError::new(code, None).java())
                    };
                    results.insert(partition, outcome);
                }
            }
            Err(error) => {
                let error = AdminError::from(error);
                top = error.code.unwrap_or(ErrorCode::RequestTimedOut);
                for partition in partitions {
                    results.insert(partition, Err(error.java()));
                }
            }
        }
        match top {
            ErrorCode::None => out::line(&format!(
                "Request succeeded for deleting offsets from group {group}."
            )),
            ErrorCode::InvalidGroupId
            | ErrorCode::GroupIdNotFound
            | ErrorCode::GroupAuthorizationFailed
            | ErrorCode::NonEmptyGroup => print_error(kafka_errors::message(top)),
            ErrorCode::GroupSubscribedToTopic
            | ErrorCode::TopicAuthorizationFailed
            | ErrorCode::UnknownTopicOrPartition => {
                print_error("Encountered some partition-level error, see the follow-up details.");
            }
            other => print_error(&format!("Encountered some unknown error: {}", other.name())),
        }
        out::text(&group_report::deletions(&results));
        Ok(())
    }
}
