//! ListConfigResources (KIP-714, KIP-1142): the resources that have settings. Answered on the core that
//! accepted the connection from its own metadata.

use net::kafka::error::ErrorCode;
use net::kafka::list_config_resources as wire;
use net::wire::DecodeError;

use super::{Outcome, Request};
use crate::metadata::{MetadataImage, ResourceKind};
use crate::shard::Shard;

/// Handles a ListConfigResources request.
pub fn handle(shard: &mut Shard, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::ListConfigResourcesRequest::decode)?;
    let head = request.head;
    let response = respond(&shard.image, head.version, &body.resource_types);
    Ok(Outcome::Done(head.encode(|writer, version| {
        response.encode(writer, version)
    })))
}

fn respond(
    image: &MetadataImage,
    version: i16,
    asked: &[i8],
) -> wire::ListConfigResourcesResponse<'static> {
    use ResourceKind::*;
    // Version 0 was for client metrics alone.
    let served: &[ResourceKind] = if version == 0 {
        &[ClientMetrics]
    } else {
        &[Group, ClientMetrics, BrokerLogger, Broker, Topic]
    };
    if asked
        .iter()
        .any(|code| !served.iter().any(|kind| kind.code() == *code))
    {
        return wire::ListConfigResourcesResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            ..Default::default()
        };
    }
    let mut config_resources = Vec::new();
    for kind in served
        .iter()
        .filter(|kind| asked.is_empty() || asked.contains(&kind.code()))
    {
        let names: Vec<String> = match kind {
            Topic => image.topics().map(|topic| topic.name.clone()).collect(),
            Broker | BrokerLogger => vec![image.node_id().to_string()],
            Group | ClientMetrics => image.configured(*kind).map(str::to_owned).collect(),
        };
        config_resources.extend(names.into_iter().map(|name| wire::ConfigResource {
            resource_name: name.into(),
            resource_type: kind.code(),
        }));
    }
    wire::ListConfigResourcesResponse {
        config_resources,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerConfig;
    use crate::metadata::MetadataRecord;

    #[test]
    fn kinds_by_version() {
        let mut image = MetadataImage::new("c".to_owned(), BrokerConfig::default());
        image.apply(&MetadataRecord::Configs {
            kind: ResourceKind::ClientMetrics,
            name: "m".to_owned(),
            configs: [("match".to_owned(), "x".to_owned())].into(),
        });
        let told = |version, asked: &[i8]| {
            let response = respond(&image, version, asked);
            let names: Vec<String> = response
                .config_resources
                .iter()
                .map(|resource| format!("{} {}", resource.resource_type, resource.resource_name))
                .collect();
            (response.error_code, names.join(", "))
        };
        assert_eq!(told(0, &[]), (0, "16 m".to_owned()));
        assert_eq!(told(1, &[]), (0, "16 m, 8 1, 4 1".to_owned()));
        assert_eq!(told(1, &[4]), (0, "4 1".to_owned()));
        assert_eq!(told(1, &[4, 3]), (35, String::new()));
    }
}
