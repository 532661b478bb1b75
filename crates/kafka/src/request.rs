//! A frame's body as a typed request.

use bytes::Bytes;
use kafka_protocol::protocol::Decodable;

use crate::api::ApiKey;
use crate::fetch::FetchRequest;
use crate::frame::{self, FrameError, RequestHeader};
use crate::msg;
use crate::produce::ProduceRequest;
use crate::schema;
use crate::wire::Reader;

macro_rules! requests {
    ($($name:ident($message:ty)),* $(,)?) => {
        /// A request whose lengths have been checked.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Request {
            Produce(ProduceRequest),
            Fetch(FetchRequest),
            /// ApiVersions of a version that does not exist here: the body is not read, the answer has version 0.
            ApiVersionsOfUnknownVersion,
            $($name($message)),*
        }

        fn body(header: &RequestHeader, reader: &mut Reader) -> Result<Request, FrameError> {
            let (api, version) = (header.api, header.version);
            let flexible = api.is_flexible(version);
            match api {
                ApiKey::Produce => ProduceRequest::read(reader, version, flexible).map(Request::Produce),
                ApiKey::Fetch => FetchRequest::read(reader, version, flexible).map(Request::Fetch),
                $(ApiKey::$name => {
                    schema::check(reader, api.api().body, version, flexible)?;
                    let decoded = <$message>::decode(&mut reader.rest(), version);
                    decoded.map(Request::$name).map_err(|error| FrameError::Body(error.to_string()))
                })*
            }
        }
    };
}

requests! {
    ListOffsets(msg::ListOffsetsRequest),
    Metadata(msg::MetadataRequest),
    OffsetCommit(msg::OffsetCommitRequest),
    OffsetFetch(msg::OffsetFetchRequest),
    FindCoordinator(msg::FindCoordinatorRequest),
    JoinGroup(msg::JoinGroupRequest),
    Heartbeat(msg::HeartbeatRequest),
    LeaveGroup(msg::LeaveGroupRequest),
    SyncGroup(msg::SyncGroupRequest),
    DescribeGroups(msg::DescribeGroupsRequest),
    ListGroups(msg::ListGroupsRequest),
    ApiVersions(msg::ApiVersionsRequest),
    CreateTopics(msg::CreateTopicsRequest),
    DeleteTopics(msg::DeleteTopicsRequest),
    DeleteRecords(msg::DeleteRecordsRequest),
    InitProducerId(msg::InitProducerIdRequest),
    OffsetForLeaderEpoch(msg::OffsetForLeaderEpochRequest),
    AddPartitionsToTxn(msg::AddPartitionsToTxnRequest),
    AddOffsetsToTxn(msg::AddOffsetsToTxnRequest),
    EndTxn(msg::EndTxnRequest),
    TxnOffsetCommit(msg::TxnOffsetCommitRequest),
    DescribeTransactions(msg::DescribeTransactionsRequest),
    ListTransactions(msg::ListTransactionsRequest),
    DescribeConfigs(msg::DescribeConfigsRequest),
    AlterConfigs(msg::AlterConfigsRequest),
    DescribeLogDirs(msg::DescribeLogDirsRequest),
    CreatePartitions(msg::CreatePartitionsRequest),
    DeleteGroups(msg::DeleteGroupsRequest),
    ElectLeaders(msg::ElectLeadersRequest),
    IncrementalAlterConfigs(msg::IncrementalAlterConfigsRequest),
    AlterPartitionReassignments(msg::AlterPartitionReassignmentsRequest),
    ListPartitionReassignments(msg::ListPartitionReassignmentsRequest),
    OffsetDelete(msg::OffsetDeleteRequest),
    DescribeCluster(msg::DescribeClusterRequest),
    DescribeProducers(msg::DescribeProducersRequest),
    DescribeTopicPartitions(msg::DescribeTopicPartitionsRequest),
}

/// Reads a whole frame, without its length field.
///
/// # Errors
/// Any [`FrameError`]: close the connection. A version that does not exist here is one too, but for ApiVersions.
pub fn parse(frame: &Bytes) -> Result<(RequestHeader, Request), FrameError> {
    let (header, mut reader) = frame::header(frame)?;
    let api = header.api.api();
    if !(api.min..=api.max).contains(&header.version) {
        return match header.api {
            ApiKey::ApiVersions => Ok((header, Request::ApiVersionsOfUnknownVersion)),
            api => Err(FrameError::UnsupportedVersion { api, version: header.version }),
        };
    }
    let request = body(&header, &mut reader)?;
    Ok((header, request))
}
