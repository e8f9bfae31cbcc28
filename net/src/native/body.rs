//! Any body of the protocol as one type: for tools, tests and whoever does not know what is coming. The
//! broker and the client read bodies in place instead. Knows no connection.

use super::frame::{self, Fault};
use super::header::Kind;
use super::{VERSION_HELLO, hello, v1};

macro_rules! bodies {
    ($($kind:ident($module:ident::$type:ident, $archived:ident, $version:expr),)*) => {
        /// A body.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Body {
            $(#[doc = concat!("Of [`Kind::", stringify!($kind), "`].")] $kind($module::$type),)*
        }

        impl Body {
            /// What it is.
            pub fn kind(&self) -> Kind {
                match self {
                    $(Body::$kind(_) => Kind::$kind,)*
                }
            }

            /// Copies a body out of what was received.
            ///
            /// # Errors
            /// [`Fault::Body`].
            pub fn read(kind: Kind, body: &[u8]) -> Result<Body, Fault> {
                match kind {
                    $(Kind::$kind => {
                        let archived = frame::read::<$module::$archived>(body)?;
                        let read = rkyv::api::low::deserialize::<_, rkyv::rancor::Failure>(archived);
                        Ok(Body::$kind(read.map_err(|_| Fault::Body)?))
                    })*
                }
            }

            /// A frame with it, behind which the records are to be sent.
            pub fn encode(&self, flags: u16, correlation_id: u64, records_bytes: u32) -> Vec<u8> {
                match self {
                    $(Body::$kind(body) => {
                        frame::encode($version, Kind::$kind, flags, correlation_id, body, records_bytes)
                    })*
                }
            }

            /// A body of this kind whose numbers, and numbers of rows, are `number`'s: for tests.
            pub fn sample(kind: Kind, number: &mut dyn FnMut() -> u64) -> Body {
                match kind {
                    $(Kind::$kind => Body::$kind(Sample::sample(number)),)*
                }
            }
        }
    };
}

bodies! {
    Hello(hello::Hello, ArchivedHello, VERSION_HELLO),
    HelloAnswer(hello::HelloAnswer, ArchivedHelloAnswer, VERSION_HELLO),
    Refusal(hello::Refusal, ArchivedRefusal, VERSION_HELLO),
    Produce(v1::Produce, ArchivedProduce, v1::VERSION),
    ProduceAnswer(v1::ProduceAnswer, ArchivedProduceAnswer, v1::VERSION),
    Fetch(v1::Fetch, ArchivedFetch, v1::VERSION),
    FetchAnswer(v1::FetchAnswer, ArchivedFetchAnswer, v1::VERSION),
    Subscribe(v1::Subscribe, ArchivedSubscribe, v1::VERSION),
    SubscribeAnswer(v1::SubscribeAnswer, ArchivedSubscribeAnswer, v1::VERSION),
    Unsubscribe(v1::Unsubscribe, ArchivedUnsubscribe, v1::VERSION),
    UnsubscribeAnswer(v1::UnsubscribeAnswer, ArchivedUnsubscribeAnswer, v1::VERSION),
    Credit(v1::Credit, ArchivedCredit, v1::VERSION),
    Delivery(v1::FetchAnswer, ArchivedFetchAnswer, v1::VERSION),
    Metadata(v1::Metadata, ArchivedMetadata, v1::VERSION),
    MetadataAnswer(v1::MetadataAnswer, ArchivedMetadataAnswer, v1::VERSION),
    Offsets(v1::Offsets, ArchivedOffsets, v1::VERSION),
    OffsetsAnswer(v1::OffsetsAnswer, ArchivedOffsetsAnswer, v1::VERSION),
    ProducerId(v1::ProducerId, ArchivedProducerId, v1::VERSION),
    ProducerIdAnswer(v1::ProducerIdAnswer, ArchivedProducerIdAnswer, v1::VERSION),
}

/// Makes a value out of numbers.
trait Sample {
    fn sample(number: &mut dyn FnMut() -> u64) -> Self;
}

macro_rules! sample_number {
    ($($type:ty),*) => {
        $(impl Sample for $type {
            fn sample(number: &mut dyn FnMut() -> u64) -> Self {
                number() as $type
            }
        })*
    };
}

sample_number!(u8, u16, u32, u64, i8, i16, i32, i64);

impl Sample for [u8; 16] {
    fn sample(number: &mut dyn FnMut() -> u64) -> Self {
        std::array::from_fn(|_| number() as u8)
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(number: &mut dyn FnMut() -> u64) -> Self {
        let count = number() % 4;
        (0..count).map(|_| T::sample(number)).collect()
    }
}

macro_rules! sample_struct {
    ($($module:ident::$type:ident { $($field:ident),* })*) => {
        $(impl Sample for $module::$type {
            fn sample(number: &mut dyn FnMut() -> u64) -> Self {
                $module::$type { $($field: Sample::sample(number)),* }
            }
        })*
    };
}

sample_struct! {
    hello::Hello { software, features, version_min, version_max }
    hello::HelloAnswer { cluster_id, message, features, node_id, frame_bytes_max, error, version, version_min, version_max }
    hello::Refusal { message, error }
    v1::Produce { parts, timeout_ms, acks }
    v1::ProducePart { topic_id, partition, records_bytes }
    v1::ProduceAnswer { results, remarks, texts }
    v1::ProduceResult { base_offset, log_append_time_ms, log_start_offset, error }
    v1::ProduceRemark { part, record, text_start, text_bytes }
    v1::Fetch { parts, wait_ms_max, bytes_min, bytes_max, isolation }
    v1::FetchPart { topic_id, partition, leader_epoch, fetch_offset, last_fetched_epoch, bytes_max }
    v1::FetchAnswer { results }
    v1::FetchResult { high_watermark, last_stable_offset, log_start_offset, diverging_end_offset, diverging_epoch, part, records_bytes, error }
    v1::Subscribe { parts, credit_bytes, bytes_max, heartbeat_ms, isolation }
    v1::SubscribeAnswer { error }
    v1::Unsubscribe { subscription }
    v1::UnsubscribeAnswer { error }
    v1::Credit { subscription, bytes }
    v1::Metadata { topics, texts, flags }
    v1::TopicQuery { topic_id, name_start, name_bytes }
    v1::MetadataAnswer { topics, partitions, brokers, texts, controller_id }
    v1::TopicRow { topic_id, name_start, name_bytes, partitions_start, partitions_count, error, flags }
    v1::PartitionRow { partition, leader_id, leader_epoch, error }
    v1::BrokerRow { node_id, host_start, host_bytes, port }
    v1::Offsets { questions }
    v1::OffsetQuestion { topic_id, partition, leader_epoch, at, ask }
    v1::OffsetsAnswer { results }
    v1::OffsetResult { offset, timestamp_ms, leader_epoch, error }
    v1::ProducerId { producer_id, producer_epoch }
    v1::ProducerIdAnswer { producer_id, producer_epoch, error }
}
