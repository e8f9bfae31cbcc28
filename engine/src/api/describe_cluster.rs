//! DescribeCluster (KIP-700, KIP-919): the cluster's id and brokers, at the address of the listener that was
//! asked. Answered on the core that accepted the connection.

use net::kafka::describe_cluster as wire;
use net::kafka::error::ErrorCode;
use net::wire::DecodeError;

use super::metadata::{CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED};
use super::{Outcome, Request};
use crate::shard::Shard;

/// Kafka's number of an endpoint of brokers.
const BROKERS: i8 = 1;
/// Kafka's number of an endpoint of controllers.
const CONTROLLERS: i8 = 2;

/// Handles a DescribeCluster request.
pub fn handle(shard: &mut Shard, request: &Request<'_>) -> Result<Outcome, DecodeError> {
    let body = request.decode(wire::DescribeClusterRequest::decode)?;
    let head = request.head;
    let image = &shard.image;
    let response = match body.endpoint_type {
        BROKERS => wire::DescribeClusterResponse {
            endpoint_type: BROKERS,
            cluster_id: image.cluster_id().into(),
            controller_id: image.node_id(),
            brokers: vec![wire::DescribeClusterBroker {
                broker_id: image.node_id(),
                host: (&*request.listener.advertised.host).into(),
                port: i32::from(request.listener.advertised.port),
                rack: image.config().rack.as_deref().map(Into::into),
                is_fenced: false,
            }],
            cluster_authorized_operations: if body.include_cluster_authorized_operations {
                CLUSTER_OPERATIONS
            } else {
                OPERATIONS_NOT_ASKED
            },
            ..Default::default()
        },
        CONTROLLERS => wire::DescribeClusterResponse {
            error_code: ErrorCode::MismatchedEndpointType.code(),
            error_message: Some(
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type \
                 CONTROLLER"
                    .into(),
            ),
            ..Default::default()
        },
        other => wire::DescribeClusterResponse {
            error_code: ErrorCode::UnsupportedEndpointType.code(),
            error_message: Some(format!("Unsupported endpoint type {other}").into()),
            ..Default::default()
        },
    };
    Ok(Outcome::Done(head.encode(|writer, version| {
        response.encode(writer, version)
    })))
}
