//! ApiVersions: what the broker speaks (key 18). Lives on the core of the connection; knows only the
//! form on the wire.

use std::borrow::Cow;

use super::message::message;

message! {
    /// Asks what the broker speaks.
    request(ApiVersions) ApiVersionsRequest<'a> {
        /// The client's name (KIP-511).
        client_software_name: Cow<'a, str> = 3..;
        /// The client's version.
        client_software_version: Cow<'a, str> = 3..;
    }

    /// Says what the broker speaks.
    response(ApiVersions) ApiVersionsResponse<'a> {
        /// The error, or 0.
        error_code: i16 = 0..;
        /// The APIs.
        api_keys: Vec<ApiVersion> = 0..;
        /// How long the client was throttled, in milliseconds.
        throttle_time_ms: i32 = 1..;
        /// The features that the broker supports (KIP-584).
        supported_features: Vec<SupportedFeatureKey<'a>> = 3.., tag 0;
        /// The epoch of the finalized features, or -1.
        finalized_features_epoch: i64 = 3.., tag 1, default -1;
        /// The features that the cluster has agreed on.
        finalized_features: Vec<FinalizedFeatureKey<'a>> = 3.., tag 2;
        /// Whether a migration from ZooKeeper may go on.
        zk_migration_ready: bool = 3.., tag 3;
    }

    /// The versions of one API.
    struct ApiVersion {
        /// The API key.
        api_key: i16 = 0..;
        /// The oldest version.
        min_version: i16 = 0..;
        /// The newest version.
        max_version: i16 = 0..;
    }

    /// A feature and the levels that the broker supports.
    struct SupportedFeatureKey<'a> {
        /// The feature.
        name: Cow<'a, str> = 3..;
        /// The lowest level.
        min_version: i16 = 3..;
        /// The highest level.
        max_version: i16 = 3..;
    }

    /// A feature and the levels that the cluster has agreed on.
    struct FinalizedFeatureKey<'a> {
        /// The feature.
        name: Cow<'a, str> = 3..;
        /// The highest level.
        max_version_level: i16 = 3..;
        /// The lowest level.
        min_version_level: i16 = 3..;
    }
}
