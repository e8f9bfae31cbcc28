//! DescribeConfigs (KIP-133, KIP-226, KIP-569): the settings of topics, brokers, groups and client metrics,
//! and where they come from. Answered on the core that accepted the connection from its own metadata.

use net::kafka::describe_configs as wire;
use net::kafka::error::ErrorCode;
use net::wire::DecodeError;

use super::{Outcome, Request};
use crate::config::ConfigMap;
use crate::config::describe::{self, ConfigEntry};
use crate::metadata::topics::check_name;
use crate::metadata::{MetadataImage, Refusal, ResourceKind};
use crate::shard::Shard;

/// Handles a DescribeConfigs request.
pub fn handle(shard: &mut Shard, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::DescribeConfigsRequest::decode)?;
    let response = respond(&shard.image, &body);
    Ok(Outcome::Done(request.head.encode(|writer, version| {
        response.encode(writer, version)
    })))
}

fn respond<'a>(
    image: &MetadataImage,
    body: &wire::DescribeConfigsRequest<'a>,
) -> wire::DescribeConfigsResponse<'a> {
    // One resource of a kind that nobody knows spoils the request.
    let unknown = body
        .resources
        .iter()
        .any(|r| ResourceKind::of_code(r.resource_type).is_none());
    let results = body
        .resources
        .iter()
        .map(|resource| {
            let described = if unknown {
                Err(Refusal::plain(ErrorCode::InvalidRequest))
            } else {
                entries(image, resource.resource_type, &resource.resource_name)
            };
            let named = wire::DescribeConfigsResult {
                // Kafka says nothing here, but says it as a text.
                error_message: Some("".into()),
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
                ..Default::default()
            };
            match described {
                Err(refusal) => wire::DescribeConfigsResult {
                    error_code: refusal.error.code(),
                    error_message: Some(refusal.message.unwrap_or_default().into()),
                    ..named
                },
                Ok(entries) => {
                    let keys = resource
                        .configuration_keys
                        .as_ref()
                        .filter(|keys| !keys.is_empty());
                    let wanted = |entry: &ConfigEntry| {
                        keys.is_none_or(|keys| keys.iter().any(|k| *k == entry.name))
                    };
                    let configs = entries
                        .into_iter()
                        .filter(wanted)
                        .map(|e| told(e, body))
                        .collect();
                    wire::DescribeConfigsResult { configs, ..named }
                }
            }
        })
        .collect();
    wire::DescribeConfigsResponse {
        results,
        ..Default::default()
    }
}

/// All keys of a resource.
fn entries(image: &MetadataImage, kind: i8, name: &str) -> Result<Vec<ConfigEntry>, Refusal> {
    let none = ConfigMap::new();
    let config = image.config();
    let refuse = |why: String| Err(Refusal::new(ErrorCode::InvalidRequest, why));
    let node_id = image.node_id();
    let broker_id = || -> Result<i32, Refusal> {
        name.parse().map_err(|_| {
            let why = format!("Broker id must be an integer, but it is: {name}");
            Refusal::new(ErrorCode::InvalidRequest, why)
        })
    };
    match ResourceKind::of_code(kind) {
        Some(ResourceKind::Topic) => {
            check_name(name)?;
            if image.topic(name).is_none() {
                return Err(Refusal::silent(ErrorCode::UnknownTopicOrPartition));
            }
            let settings = image.configs(ResourceKind::Topic, name).unwrap_or(&none);
            Ok(describe::topic(config, settings))
        }
        Some(ResourceKind::Broker) if name.is_empty() => Ok(describe::broker_defaults(config)),
        Some(ResourceKind::Broker) if broker_id()? == node_id => Ok(describe::broker(config)),
        Some(ResourceKind::Broker) => refuse(format!(
            "Unexpected broker id, expected {node_id} or empty string, but received {name}"
        )),
        Some(ResourceKind::BrokerLogger) if name.is_empty() => {
            refuse("Broker id must not be empty".to_owned())
        }
        Some(ResourceKind::BrokerLogger) if broker_id()? == node_id => {
            let level = tracing::level_filters::LevelFilter::current();
            Ok(describe::broker_loggers(&level.to_string().to_uppercase()))
        }
        Some(ResourceKind::BrokerLogger) => refuse(format!(
            "Unexpected broker id, expected {node_id} but received {name}"
        )),
        Some(ResourceKind::ClientMetrics) if name.is_empty() => {
            refuse("Client metrics subscription name must not be empty".to_owned())
        }
        Some(ResourceKind::ClientMetrics) => {
            let settings = image
                .configs(ResourceKind::ClientMetrics, name)
                .unwrap_or(&none);
            Ok(describe::client_metrics(settings))
        }
        Some(ResourceKind::Group) if name.is_empty() => {
            refuse("Group name must not be empty".to_owned())
        }
        Some(ResourceKind::Group) => {
            let settings = image.configs(ResourceKind::Group, name).unwrap_or(&none);
            Ok(describe::group(config, settings))
        }
        None => refuse(format!("Unsupported resource type: {kind}")),
    }
}

fn told<'a>(
    entry: ConfigEntry,
    body: &wire::DescribeConfigsRequest<'_>,
) -> wire::DescribeConfigsResourceResult<'a> {
    wire::DescribeConfigsResourceResult {
        name: entry.name.into(),
        value: entry.value.map(Into::into),
        read_only: entry.read_only,
        config_source: entry.source.code(),
        is_sensitive: entry.sensitive,
        synonyms: if body.include_synonyms {
            entry
                .synonyms
                .into_iter()
                .map(|synonym| wire::DescribeConfigsSynonym {
                    name: synonym.name.into(),
                    value: synonym.value.map(Into::into),
                    source: synonym.source.code(),
                })
                .collect()
        } else {
            Vec::new()
        },
        config_type: entry.kind,
        documentation: entry
            .documentation
            .filter(|_| body.include_documentation)
            .map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerConfig;
    use crate::metadata::MetadataRecord;
    use crate::metadata::record::PartitionRun;

    fn image() -> MetadataImage {
        let mut image = MetadataImage::new("c".to_owned(), BrokerConfig::default());
        image.apply(&MetadataRecord::Topic {
            id: storage::types::TopicId::from_u128(9),
            name: "t".to_owned(),
            partitions: vec![PartitionRun {
                count: 1,
                created_at_start: 0,
                replicas: vec![1],
            }],
        });
        image
    }

    fn ask<'a>(
        resource_type: i8,
        name: &'a str,
        keys: Option<&[&'a str]>,
    ) -> wire::DescribeConfigsResult<'a> {
        let body = wire::DescribeConfigsRequest {
            resources: vec![wire::DescribeConfigsResource {
                resource_type,
                resource_name: name.into(),
                configuration_keys: keys.map(|keys| keys.iter().map(|key| (*key).into()).collect()),
            }],
            include_synonyms: true,
            include_documentation: false,
        };
        respond(&image(), &body).results.remove(0)
    }

    #[test]
    fn resources_and_keys_are_chosen() {
        for (kind, name, keys, error, count) in [
            (2, "t", None, 0, 33),
            (2, "t", Some(&[][..]), 0, 33),
            (2, "t", Some(&["retention.ms", "no.such.key"][..]), 0, 1),
            (2, "missing", None, 3, 0),
            (2, "a/b", None, 17, 0),
            (4, "1", None, 0, 340),
            (4, "", None, 0, 0),
            (4, "2", None, 42, 0),
            (4, "x", None, 42, 0),
            (8, "1", None, 0, 1),
            (8, "", None, 42, 0),
            (16, "any", None, 0, 3),
            (16, "", None, 42, 0),
            (32, "any", None, 0, 17),
            (32, "", None, 42, 0),
            (3, "x", None, 42, 0),
        ] {
            let result = ask(kind, name, keys);
            assert_eq!(
                (result.error_code, result.configs.len()),
                (error, count),
                "{kind} {name}"
            );
        }
    }

    #[test]
    fn documentation_only_where_asked_for() {
        let mut body = wire::DescribeConfigsRequest {
            resources: vec![wire::DescribeConfigsResource {
                resource_type: 2,
                resource_name: "t".into(),
                configuration_keys: Some(vec!["segment.bytes".into()]),
            }],
            include_synonyms: false,
            include_documentation: false,
        };
        let plain = respond(&image(), &body).results.remove(0).configs.remove(0);
        assert_eq!((plain.documentation, plain.synonyms.len()), (None, 0));
        assert_eq!(plain.config_source, 5);
        body.include_documentation = true;
        body.include_synonyms = true;
        let full = respond(&image(), &body).results.remove(0).configs.remove(0);
        assert_eq!(
            full.documentation.as_deref(),
            Some("Largest size of a segment in bytes.")
        );
        assert_eq!(full.synonyms[0].name, "log.segment.bytes");
    }
}
