//! AlterConfigs (KIP-133): replaces all settings of resources. Decided on the first core, answered on the core
//! that accepted the connection. IncrementalAlterConfigs goes the same way, through [`ask`].

use std::borrow::Cow;

use net::kafka::alter_configs as wire;
use net::wire::DecodeError;
use ring::buf::Chunk;
use storage::types::Now;

use super::{Head, Outcome, Request};
use crate::metadata::command::{ConfigChange, ConfigEdit};
use crate::metadata::{MetadataCommand, MetadataReply};
use crate::shard::Shard;

/// What became of one resource, as both answers tell it.
pub(super) struct Altered {
    pub error_code: i16,
    pub error_message: Option<Cow<'static, str>>,
    pub resource_type: i8,
    pub resource_name: Cow<'static, str>,
}

/// Handles an AlterConfigs request.
pub fn handle(shard: &mut Shard, now: Now, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::AlterConfigsRequest::decode)?;
    let resources = body
        .resources
        .into_iter()
        .map(|resource| {
            let settings = resource.configs.into_iter().map(|config| {
                let value = config.value.map(Cow::into_owned);
                (config.name.into_owned(), value)
            });
            ConfigChange {
                kind: resource.resource_type,
                name: resource.resource_name.into_owned(),
                edit: ConfigEdit::Replace(settings.collect()),
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
        let response = wire::AlterConfigsResponse {
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

/// Has the metadata machine decide, and answers with what `encode` makes of its decision.
pub(super) fn ask(
    shard: &mut Shard,
    now: Now,
    head: Head,
    resources: Vec<ConfigChange>,
    validate_only: bool,
    encode: impl FnOnce(Head, Vec<Altered>) -> Vec<Chunk> + 'static,
) -> Outcome {
    let names: Vec<(i8, String)> = resources
        .iter()
        .map(|change| (change.kind, change.name.clone()))
        .collect();
    let command = MetadataCommand::AlterConfigs {
        resources,
        validate_only,
    };
    let then = move |shard: &mut Shard, _now: Now, reply: MetadataReply| {
        let results = match reply {
            MetadataReply::ConfigsAltered(results) => results,
            other => unreachable!("a change of configs is not answered with {other:?}"),
        };
        let altered = names
            .into_iter()
            .zip(results)
            .map(|((kind, name), result)| {
                let refusal = result.err();
                Altered {
                    error_code: refusal.as_ref().map_or(0, |refusal| refusal.error.code()),
                    error_message: refusal.and_then(|refusal| refusal.message).map(Into::into),
                    resource_type: kind,
                    resource_name: name.into(),
                }
            });
        let chunks = encode(head, altered.collect());
        shard.respond(head, Some(chunks));
    };
    shard.ask_metadata(now, command, Box::new(then));
    Outcome::Pending
}
