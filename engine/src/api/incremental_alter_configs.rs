//! IncrementalAlterConfigs (KIP-339): changes single settings of resources. Decided on the first core, answered on the core
//! that accepted the connection; but for the wire form the same as AlterConfigs.

use std::borrow::Cow;

use net::kafka::incremental_alter_configs as wire;
use net::wire::DecodeError;
use storage::types::Now;

use super::alter_configs::{Altered, ask};
use super::{Head, Outcome, Request};
use crate::metadata::command::{ConfigChange, ConfigEdit};
use crate::shard::Shard;

/// Handles an IncrementalAlterConfigs request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::IncrementalAlterConfigsRequest::decode)?;
    let resources = body
        .resources
        .into_iter()
        .map(|resource| {
            let changes = resource.configs.into_iter().map(|config| {
                let value = config.value.map(Cow::into_owned);
                (config.name.into_owned(), config.config_operation, value)
            });
            ConfigChange {
                kind: resource.resource_type,
                name: resource.resource_name.into_owned(),
                edit: ConfigEdit::Incremental(changes.collect()),
            }
        })
        .collect();
    let encode = |head: Head, altered: Vec<Altered>| {
        let responses = altered
            .into_iter()
            .map(|one| wire::AlterConfigsResourceResponse {
                error_code: one.error_code,
                error_message: one.error_message,
                resource_type: one.resource_type,
                resource_name: one.resource_name,
            });
        let response = wire::IncrementalAlterConfigsResponse {
            responses: responses.collect(),
            ..Default::default()
        };
        head.encode(|writer, version| response.encode(writer, version))
    };
    Ok(ask(
        shard,
        now,
        request.head,
        resources,
        body.validate_only,
        encode,
    ))
}
