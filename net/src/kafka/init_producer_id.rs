//! InitProducerId: an id and an epoch for an idempotent producer (key 22). Lives on the core of the
//! connection; knows only the form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Asks for a producer id.
    request(InitProducerId) InitProducerIdRequest<'a> {
        /// The transactional id, or null for a producer without transactions.
        transactional_id: Option<Cow<'a, str>> = 0.., nullable 0..;
        /// After how long an idle transaction is aborted, in milliseconds.
        transaction_timeout_ms: i32 = 0..;
        /// The id that the producer has, or -1 (KIP-360).
        producer_id: i64 = 3.., default -1;
        /// The epoch that the producer has, or -1.
        producer_epoch: i16 = 3.., default -1;
    }

    /// Brings a producer id.
    response(InitProducerId) InitProducerIdResponse {
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 0..;
        /// The error, or 0.
        error_code: i16 = 0..;
        /// The producer id.
        producer_id: i64 = 0.., default -1;
        /// The producer's epoch.
        producer_epoch: i16 = 0..;
    }
}
