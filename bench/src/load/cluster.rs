//! Where the partitions of the topic are, and the topic itself: made, found, deleted. The calling thread, before and after the load; knows nothing of the load's pace.

use std::borrow::Cow;
use std::collections::BTreeMap;

use net::client::{Client, Options, Target, error_of};
use net::kafka::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use net::kafka::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use net::kafka::error::ErrorCode;
use net::kafka::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use net::kafka::metadata::{MetadataRequest, MetadataRequestTopic};

use crate::Failure;
use crate::load::Arguments;

/// ListOffsets' word for the end of a partition.
const LATEST: i64 = -1;

/// Whom to talk to about what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    bootstrap: String,
    topic: String,
    /// Partitions by the address of their leader.
    leaders: BTreeMap<String, Vec<i32>>,
}

/// What one connection does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Where it goes.
    pub address: String,
    /// The partitions that it writes to, in turn; never empty.
    pub partitions: Vec<i32>,
}

impl From<net::client::ClientError> for Failure {
    fn from(error: net::client::ClientError) -> Failure {
        Failure(error.to_string())
    }
}

impl Cluster {
    /// A cluster that is what it is said to be; nobody is asked.
    pub fn given(address: &str, topic: &str, partitions: u32) -> Cluster {
        let all = (0..partitions.cast_signed()).collect();
        Cluster {
            bootstrap: address.to_owned(),
            topic: topic.to_owned(),
            leaders: BTreeMap::from([(address.to_owned(), all)]),
        }
    }

    /// Creates the topic if that is asked for, and asks who leads its partitions.
    ///
    /// # Errors
    /// If there is no such topic, or it has fewer partitions than asked for.
    pub fn find(arguments: &Arguments) -> Result<Cluster, Failure> {
        let (address, topic) = (&arguments.bootstrap_server, &arguments.topic);
        let partitions = arguments.partitions();
        if arguments.bare {
            return Ok(Cluster::given(address, topic, partitions));
        }
        let mut client = client(address)?;
        if arguments.create_topic {
            create(&mut client, arguments)?;
        }
        let brokers: BTreeMap<i32, String> = client
            .refresh_brokers()?
            .into_iter()
            .map(|broker| (broker.id, format!("{}:{}", broker.host, broker.port)))
            .collect();
        // A new topic may not be known everywhere at once: the client asks again.
        let led = client.retry(|client| {
            let request = MetadataRequest {
                topics: Some(vec![MetadataRequestTopic {
                    name: Some(Cow::Borrowed(topic)),
                    ..MetadataRequestTopic::default()
                }]),
                allow_auto_topic_creation: false,
                ..MetadataRequest::default()
            };
            client.call(Target::Any, &request, |response, _| {
                let Some(found) = response.topics.first() else {
                    return Err((ErrorCode::UnknownTopicOrPartition, None));
                };
                match error_of(found.error_code) {
                    ErrorCode::None => {}
                    code => return Err((code, Some(format!("topic {topic}: {}", code.message())))),
                }
                let mut led = Vec::new();
                for partition in &found.partitions {
                    if partition.leader_id < 0 {
                        return Err((ErrorCode::LeaderNotAvailable, None));
                    }
                    led.push((partition.partition_index, partition.leader_id));
                }
                Ok(led)
            })
        })?;
        if led.len() < partitions as usize {
            return Err(Failure(format!(
                "topic {topic} has {} partitions, fewer than {partitions}",
                led.len()
            )));
        }
        await_leaders(&mut client, topic, &led)?;
        let mut leaders: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for (partition, leader) in led {
            if partition < partitions.cast_signed() {
                let address = brokers
                    .get(&leader)
                    .ok_or_else(|| Failure(format!("no address for broker {leader}")))?;
                leaders.entry(address.clone()).or_default().push(partition);
            }
        }
        for partitions in leaders.values_mut() {
            partitions.sort_unstable();
        }
        Ok(Cluster {
            bootstrap: address.clone(),
            topic: topic.clone(),
            leaders,
        })
    }

    /// Spreads the partitions over connections: as evenly as can be, each connection to one leader, every partition to
    /// at least one connection.
    ///
    /// # Errors
    /// If there are too few connections, or too few partitions for a request.
    pub fn place(
        &self,
        connections: usize,
        partitions_per_request: usize,
    ) -> Result<Vec<Placement>, Failure> {
        if connections < self.leaders.len() {
            return Err(Failure(format!(
                "the partitions are led by {} brokers: that takes as many connections",
                self.leaders.len()
            )));
        }
        let leaders: Vec<_> = self.leaders.iter().collect();
        let mut placements = Vec::with_capacity(connections);
        for connection in 0..connections {
            let (address, partitions) = leaders[connection % leaders.len()];
            let turn = connection / leaders.len();
            let peers = (connections - connection % leaders.len()).div_ceil(leaders.len());
            let mine: Vec<i32> = if partitions.len() >= peers {
                partitions
                    .iter()
                    .copied()
                    .skip(turn)
                    .step_by(peers)
                    .collect()
            } else {
                vec![partitions[turn % partitions.len()]]
            };
            if mine.len() < partitions_per_request {
                return Err(Failure(format!(
                    "{partitions_per_request} partitions a request, but a connection has only {}",
                    mine.len()
                )));
            }
            placements.push(Placement {
                address: address.clone(),
                partitions: mine,
            });
        }
        Ok(placements)
    }

    /// Deletes the topic.
    ///
    /// # Errors
    /// If the broker does not.
    pub fn delete_topic(&self) -> Result<(), Failure> {
        let mut client = client(&self.bootstrap)?;
        // Each version writes its own form.
        let request = DeleteTopicsRequest {
            topics: vec![DeleteTopicState {
                name: Some(Cow::Borrowed(&self.topic)),
                ..DeleteTopicState::default()
            }],
            topic_names: vec![Cow::Borrowed(&self.topic)],
            timeout_ms: client.call_timeout_ms(),
        };
        client.call(Target::Any, &request, |response, _| {
            match response.responses.first().map(|topic| topic.error_code) {
                None | Some(0) => Ok(()),
                Some(code) => Err(Failure(format!(
                    "cannot delete topic {}: {}",
                    self.topic,
                    error_of(code).message()
                ))),
            }
        })?
    }
}

/// Waits until each leader serves its partitions: the metadata of a new topic may be ahead of those who lead it.
fn await_leaders(client: &mut Client, topic: &str, led: &[(i32, i32)]) -> Result<(), Failure> {
    let mut by_leader: BTreeMap<i32, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for &(partition_index, leader) in led {
        let question = ListOffsetsPartition {
            partition_index,
            timestamp: LATEST,
            ..ListOffsetsPartition::default()
        };
        by_leader.entry(leader).or_default().push(question);
    }
    for (leader, partitions) in by_leader {
        client.retry(|client| {
            let request = ListOffsetsRequest {
                replica_id: -1,
                topics: vec![ListOffsetsTopic {
                    name: Cow::Borrowed(topic),
                    partitions: partitions.clone(),
                }],
                timeout_ms: client.call_timeout_ms(),
                ..ListOffsetsRequest::default()
            };
            client.call(Target::Broker(leader), &request, |response, _| {
                let mut answers = response.topics.iter().flat_map(|topic| &topic.partitions);
                match answers.find(|answer| answer.error_code != 0) {
                    Some(answer) => Err((error_of(answer.error_code), None)),
                    None => Ok(()),
                }
            })
        })?;
    }
    Ok(())
}

fn client(bootstrap: &str) -> Result<Client, Failure> {
    let options = Options {
        client_id: "millrace-bench".to_owned(),
        ..Options::default()
    };
    Ok(Client::new(bootstrap, options)?)
}

fn create(client: &mut Client, arguments: &Arguments) -> Result<(), Failure> {
    let configs = arguments
        .topic_config
        .iter()
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) => Ok(CreatableTopicConfig {
                name: Cow::Borrowed(name),
                value: Some(Cow::Borrowed(value)),
            }),
            None => Err(Failure(format!(
                "--topic-config takes KEY=VALUE, not '{pair}'"
            ))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: Cow::Borrowed(&arguments.topic),
            num_partitions: arguments.partitions().cast_signed(),
            replication_factor: -1,
            configs,
            ..CreatableTopic::default()
        }],
        timeout_ms: client.call_timeout_ms(),
        validate_only: false,
    };
    client.call(Target::Any, &request, |response, _| {
        let Some(topic) = response.topics.first() else {
            return Err(Failure("the broker created no topic".to_owned()));
        };
        match error_of(topic.error_code) {
            ErrorCode::None | ErrorCode::TopicAlreadyExists => Ok(()),
            code => Err(Failure(format!(
                "cannot create topic {}: {}",
                arguments.topic,
                topic.error_message.as_deref().unwrap_or(code.message())
            ))),
        }
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(leaders: &[(&str, &[i32])]) -> Cluster {
        Cluster {
            bootstrap: "a:1".to_owned(),
            topic: "t".to_owned(),
            leaders: leaders
                .iter()
                .map(|(address, partitions)| ((*address).to_owned(), partitions.to_vec()))
                .collect(),
        }
    }

    #[test]
    fn partitions_are_shared_out_and_each_connection_has_one_leader() {
        let placed = cluster(&[("a:1", &[0, 2, 4, 6]), ("b:1", &[1, 3])])
            .place(5, 1)
            .unwrap();
        let of = |address: &str| -> Vec<Vec<i32>> {
            placed
                .iter()
                .filter(|placement| placement.address == address)
                .map(|placement| placement.partitions.clone())
                .collect()
        };
        assert_eq!(of("a:1"), [vec![0, 6], vec![2], vec![4]]);
        assert_eq!(of("b:1"), [vec![1], vec![3]]);
    }

    #[test]
    fn more_connections_than_partitions_share_them() {
        let placed = Cluster::given("a:1", "t", 2).place(3, 1).unwrap();
        let partitions: Vec<_> = placed.iter().map(|p| p.partitions.clone()).collect();
        assert_eq!(partitions, [[0], [1], [0]]);
    }

    #[test]
    fn what_cannot_be_placed_is_refused() {
        let two = cluster(&[("a:1", &[0]), ("b:1", &[1])]);
        assert!(two.place(1, 1).unwrap_err().0.contains("2 brokers"));
        let ten = Cluster::given("a:1", "t", 10);
        assert!(ten.place(2, 5).is_ok());
        assert!(ten.place(2, 6).unwrap_err().0.contains("has only 5"));
    }
}
