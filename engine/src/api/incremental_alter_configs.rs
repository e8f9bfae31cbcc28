//! IncrementalAlterConfigs (KIP-339): changes single settings of resources. Decided on the first core, answered on the core
//! that accepted the connection.

use net::kafka::incremental_alter_configs as wire;
use net::wire::DecodeError;
use storage::types::Now;

use super::{Outcome, Request};
use crate::metadata::command::{ConfigChange, ConfigEdit};
use crate::metadata::{MetadataCommand, MetadataReply};
use crate::shard::Shard;

/// Handles an IncrementalAlterConfigs request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::IncrementalAlterConfigsRequest::decode)?;
    let head = request.head;
    let resources: Vec<ConfigChange> = body
        .resources
        .into_iter()
        .map(|resource| ConfigChange {
            kind: resource.resource_type,
            name: resource.resource_name.into_owned(),
            edit: ConfigEdit::Incremental(
                resource
                    .configs
                    .into_iter()
                    .map(|config| {
                        let value = config.value.map(|value| value.into_owned());
                        (config.name.into_owned(), config.config_operation, value)
                    })
                    .collect(),
            ),
        })
        .collect();
    let names: Vec<(i8, String)> = resources
        .iter()
        .map(|change| (change.kind, change.name.clone()))
        .collect();
    let command = MetadataCommand::AlterConfigs {
        resources,
        validate_only: body.validate_only,
    };
    let then = move |shard: &mut Shard, _now: Now, reply: MetadataReply| {
        let results = match reply {
            MetadataReply::ConfigsAltered(results) => results,
            other => unreachable!("IncrementalAlterConfigs is not answered with {other:?}"),
        };
        let response = wire::IncrementalAlterConfigsResponse {
            responses: names
                .into_iter()
                .zip(results)
                .map(|((kind, name), result)| {
                    let refusal = result.err();
                    wire::AlterConfigsResourceResponse {
                        error_code: refusal.as_ref().map_or(0, |refusal| refusal.error.code()),
                        error_message: refusal.and_then(|r| r.message).map(Into::into),
                        resource_type: kind,
                        resource_name: name.into(),
                    }
                })
                .collect(),
            ..Default::default()
        };
        let chunks = head.encode(|writer, version| response.encode(writer, version));
        shard.respond(head, Some(chunks));
    };
    shard.ask_metadata(now, command, Box::new(then));
    Ok(Outcome::Pending)
}
