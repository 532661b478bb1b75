//! A small blocking Kafka client: what the shell's commands, the demo and the drills talk to a server with.
//!
//! A [`Connection`] is to one server; requests may be pipelined (`send_produce` several, then `receive_produced` as
//! often). A [`Cluster`] finds the leader of a partition through any of its nodes. Every wait has its patience as its bound.
//!
//! Deliberately not here: a background sender, retries, consumer groups. Real clients have those, and the drills use
//! real clients where that is what is tested.

mod cluster;
mod connection;
pub mod edits;
mod groups;
mod topics;

use std::collections::BTreeMap;

use base::{Offset, Timestamp};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ApiKey, BrokerId, FetchRequest, FetchResponse, InitProducerIdRequest, InitProducerIdResponse, ListOffsetsRequest,
    ListOffsetsResponse, ProduceRequest, ProduceResponse, TopicName, fetch_request, list_offsets_request,
    produce_request,
};
use kafka_protocol::protocol::StrBytes;

pub use cluster::{Cluster, ClusterView, PartitionView};
pub use connection::Connection;
pub use groups::{GroupDescription, GroupInfo, GroupMember, TopicSetting};
pub use kafka_protocol::messages;
pub use topics::{TopicInfo, TopicSpec};

/// Why a request gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot connect to {address}: {cause}; is `seawall serve` running there?")]
    Connect { address: String, cause: std::io::Error },
    /// The connection is of no use any more; whether the request was done is unknown.
    #[error("{address}: {cause}")]
    Io { address: String, cause: std::io::Error },
    /// The server answered something this client cannot read.
    #[error("{address}: the answer cannot be read: {cause}")]
    Malformed { address: String, cause: String },
    /// The server refused.
    #[error("{what}: {}", describe(*.code, .message.as_deref()))]
    Refused { what: String, code: i16, message: Option<String> },
}

fn describe(code: i16, message: Option<&str>) -> String {
    let name = ResponseError::try_from_code(code).map_or_else(|| format!("error {code}"), |error| error.to_string());
    message.map_or_else(|| name.clone(), |message| format!("{message} ({name})"))
}

impl ClientError {
    pub(crate) fn check(what: impl Into<String>, code: i16, message: Option<&StrBytes>) -> Result<(), Self> {
        if code == 0 {
            return Ok(());
        }
        Err(Self::Refused { what: what.into(), code, message: message.map(ToString::to_string) })
    }

    /// The server's error code, if it was the server that refused.
    #[must_use]
    pub const fn code(&self) -> Option<i16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// True if the same request may succeed later or elsewhere: the connection failed, or the server said so (not the
    /// leader, no leader yet, not enough replicas, a wait that ended, storage).
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Io { .. } => true,
            Self::Malformed { .. } => false,
            Self::Refused { code, .. } => {
                matches!(code, 3 | 5 | 6 | 7 | 8 | 9 | 13 | 14 | 15 | 16 | 19 | 20 | 41 | 56 | 74 | 75 | 78)
            }
        }
    }

    /// True if the server said that the thing is not there.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Refused { code: 3 | 69 | 100, .. })
    }
}

/// When the server answers a produce request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acks {
    None,
    Leader,
    All,
}

impl Acks {
    const fn wire(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// What a fetch gave.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Whole record batches; the first may begin below the offset asked for.
    pub batches: Bytes,
    /// The first offset that consumers cannot see yet.
    pub high_watermark: Offset,
    pub log_start: Offset,
}

const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 11;
const LIST_OFFSETS_VERSION: i16 = 5;
const INIT_PRODUCER_ID_VERSION: i16 = 4;

/// A timestamp of `list_offset` that means the end of the log.
pub const LATEST: Timestamp = Timestamp(-1);
/// A timestamp of `list_offset` that means the beginning of the log.
pub const EARLIEST: Timestamp = Timestamp(-2);

impl Connection {
    /// Sends one batch and waits; answers its first offset (-1 with [`Acks::None`]).
    pub fn produce(&mut self, topic: &str, partition: i32, batch: Bytes, acks: Acks) -> Result<Offset, ClientError> {
        self.send_produce(topic, partition, batch, acks)?;
        if acks == Acks::None { Ok(Offset(-1)) } else { self.receive_produced() }
    }

    /// Sends one batch without waiting. Unless `acks` is `None`, call `receive_produced` once for it.
    pub fn send_produce(&mut self, topic: &str, partition: i32, batch: Bytes, acks: Acks) -> Result<(), ClientError> {
        let data = produce_request::PartitionProduceData::default().with_index(partition).with_records(Some(batch));
        let topic = produce_request::TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(acks.wire())
            .with_timeout_ms(self.patience_ms())
            .with_topic_data(vec![topic]);
        self.send(ApiKey::Produce, PRODUCE_VERSION, &request)?;
        if acks == Acks::None {
            self.expect_none();
        }
        Ok(())
    }

    /// The answer to the oldest produce request that has not been answered: its first offset.
    pub fn receive_produced(&mut self) -> Result<Offset, ClientError> {
        let response: ProduceResponse = self.receive(ApiKey::Produce, PRODUCE_VERSION)?;
        let topic = response.responses.first();
        let Some(partition) = topic.and_then(|topic| topic.partition_responses.first()) else {
            return Err(self.malformed("a produce answer without a partition"));
        };
        let what = format!("produce to {}", topic.map_or("", |topic| topic.name.0.as_str()));
        ClientError::check(what, partition.error_code, partition.error_message.as_ref())?;
        Ok(Offset(partition.base_offset))
    }

    /// Record batches from `offset` on; waits up to `wait_ms` for at least one.
    pub fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: Offset,
        bytes_max: i32,
        wait_ms: i32,
    ) -> Result<Fetched, ClientError> {
        let ask = fetch_request::FetchPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset.0)
            .with_partition_max_bytes(bytes_max);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(bytes_max)
            .with_session_epoch(-1)
            .with_topics(vec![fetch_request::FetchTopic::default().with_topic(name(topic)).with_partitions(vec![ask])]);
        let response: FetchResponse = self.call(ApiKey::Fetch, FETCH_VERSION, &request)?;
        ClientError::check("fetch", response.error_code, None)?;
        let partition = response.responses.first().and_then(|topic| topic.partitions.first());
        let Some(partition) = partition else { return Err(self.malformed("a fetch answer without a partition")) };
        ClientError::check(format!("fetch of {topic} at {offset}"), partition.error_code, None)?;
        Ok(Fetched {
            batches: partition.records.clone().unwrap_or_default(),
            high_watermark: Offset(partition.high_watermark),
            log_start: Offset(partition.log_start_offset),
        })
    }

    /// The first offset at or after `time`, or [`EARLIEST`], or [`LATEST`]. -1: there is none.
    pub fn list_offset(&mut self, topic: &str, partition: i32, time: Timestamp) -> Result<Offset, ClientError> {
        let ask = list_offsets_request::ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(time.0);
        let topics =
            list_offsets_request::ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![ask]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topics]);
        let response: ListOffsetsResponse = self.call(ApiKey::ListOffsets, LIST_OFFSETS_VERSION, &request)?;
        let partition = response.topics.first().and_then(|topic| topic.partitions.first());
        let Some(partition) = partition else { return Err(self.malformed("an offsets answer without a partition")) };
        ClientError::check(format!("offsets of {topic}"), partition.error_code, None)?;
        Ok(Offset(partition.offset))
    }

    /// A producer id and epoch for idempotent batches.
    pub fn init_producer_id(&mut self) -> Result<(base::ProducerId, base::ProducerEpoch), ClientError> {
        let request = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
        let response: InitProducerIdResponse = self.call(ApiKey::InitProducerId, INIT_PRODUCER_ID_VERSION, &request)?;
        ClientError::check("producer id", response.error_code, None)?;
        Ok((base::ProducerId(response.producer_id.0), base::ProducerEpoch(response.producer_epoch)))
    }
}

pub(crate) fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

/// Config overrides as the wire has them.
pub type Overrides = BTreeMap<String, String>;
