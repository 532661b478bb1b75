//! A typed response as the chunks of bytes to write.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::Encodable;

use crate::api::{APIS, ApiKey};
use crate::code::ErrorCode;
use crate::fetch::FetchResponse;
use crate::frame::RequestHeader;
use crate::msg;
use crate::produce::ProduceResponse;
use crate::wire::Writer;

/// The response cannot be written in the version that was asked for: our fault. Close the connection.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the answer to {} version {version} does not encode: {cause}", api.name())]
pub struct EncodeError {
    pub api: ApiKey,
    pub version: i16,
    pub cause: String,
}

macro_rules! responses {
    ($($name:ident($message:ty)),* $(,)?) => {
        /// The answer to a [`Request`](crate::Request) of the same name.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Response {
            Produce(ProduceResponse),
            Fetch(FetchResponse),
            $($name($message)),*
        }

        $(impl From<$message> for Response {
            fn from(message: $message) -> Self {
                Self::$name(message)
            }
        })*

        impl Response {
            fn body(self, version: i16, out: &mut BytesMut) -> Result<Vec<Bytes>, String> {
                match self {
                    Self::Produce(message) => {
                        let mut writer = Writer::new(ApiKey::Produce.is_flexible(version));
                        message.write(&mut writer, version);
                        Ok(writer.finish())
                    }
                    Self::Fetch(message) => {
                        let mut writer = Writer::new(ApiKey::Fetch.is_flexible(version));
                        message.write(&mut writer, version);
                        Ok(writer.finish())
                    }
                    $(Self::$name(message) => {
                        message.encode(out, version).map_err(|error| error.to_string())?;
                        Ok(Vec::new())
                    })*
                }
            }
        }
    };
}

responses! {
    ListOffsets(msg::ListOffsetsResponse),
    Metadata(msg::MetadataResponse),
    OffsetCommit(msg::OffsetCommitResponse),
    OffsetFetch(msg::OffsetFetchResponse),
    FindCoordinator(msg::FindCoordinatorResponse),
    JoinGroup(msg::JoinGroupResponse),
    Heartbeat(msg::HeartbeatResponse),
    LeaveGroup(msg::LeaveGroupResponse),
    SyncGroup(msg::SyncGroupResponse),
    DescribeGroups(msg::DescribeGroupsResponse),
    ListGroups(msg::ListGroupsResponse),
    ApiVersions(msg::ApiVersionsResponse),
    CreateTopics(msg::CreateTopicsResponse),
    DeleteTopics(msg::DeleteTopicsResponse),
    DeleteRecords(msg::DeleteRecordsResponse),
    InitProducerId(msg::InitProducerIdResponse),
    OffsetForLeaderEpoch(msg::OffsetForLeaderEpochResponse),
    AddPartitionsToTxn(msg::AddPartitionsToTxnResponse),
    AddOffsetsToTxn(msg::AddOffsetsToTxnResponse),
    EndTxn(msg::EndTxnResponse),
    TxnOffsetCommit(msg::TxnOffsetCommitResponse),
    DescribeTransactions(msg::DescribeTransactionsResponse),
    ListTransactions(msg::ListTransactionsResponse),
    DescribeConfigs(msg::DescribeConfigsResponse),
    AlterConfigs(msg::AlterConfigsResponse),
    DescribeLogDirs(msg::DescribeLogDirsResponse),
    CreatePartitions(msg::CreatePartitionsResponse),
    DeleteGroups(msg::DeleteGroupsResponse),
    ElectLeaders(msg::ElectLeadersResponse),
    IncrementalAlterConfigs(msg::IncrementalAlterConfigsResponse),
    AlterPartitionReassignments(msg::AlterPartitionReassignmentsResponse),
    ListPartitionReassignments(msg::ListPartitionReassignmentsResponse),
    OffsetDelete(msg::OffsetDeleteResponse),
    DescribeCluster(msg::DescribeClusterResponse),
    DescribeProducers(msg::DescribeProducersResponse),
    DescribeTopicPartitions(msg::DescribeTopicPartitionsResponse),
}

impl Response {
    /// The whole frame, its length field included, to be written in this order (one `writev`).
    ///
    /// # Errors
    /// [`EncodeError`] if a field that is set does not exist in the version.
    pub fn encode(self, header: &RequestHeader) -> Result<Vec<Bytes>, EncodeError> {
        let (api, asked) = (header.api, header.version);
        let version = if (api.api().min..=api.api().max).contains(&asked) { asked } else { 0 };
        let mut head = BytesMut::with_capacity(256);
        head.put_i32(0);
        head.put_i32(header.correlation_id);
        // The one exception of the protocol: a client that has not yet seen the versions must be able to read this header.
        if api.is_flexible(version) && api != ApiKey::ApiVersions {
            head.put_u8(0);
        }
        let error = |cause| EncodeError { api, version: asked, cause };
        let rest = self.body(version, &mut head).map_err(error)?;
        let length = head.len() - 4 + rest.iter().map(Bytes::len).sum::<usize>();
        let length = i32::try_from(length).map_err(|_| error(format!("{length} bytes are too many for a frame")))?;
        head[..4].copy_from_slice(&length.to_be_bytes());
        let mut chunks = Vec::with_capacity(1 + rest.len());
        chunks.push(head.freeze());
        chunks.extend(rest);
        Ok(chunks)
    }
}

/// The answer to ApiVersions: every row of the table. `error` is set where the client's version does not exist here.
#[must_use]
pub fn api_versions(error: ErrorCode) -> Response {
    let rows = APIS.iter().map(|api| {
        msg::api_versions_response::ApiVersion::default()
            .with_api_key(api.key.number())
            .with_min_version(api.advertised_min)
            .with_max_version(api.max)
    });
    let response = msg::ApiVersionsResponse::default().with_error_code(error.number()).with_api_keys(rows.collect());
    Response::ApiVersions(response)
}
