//! From a request to the handler of its API.

use std::net::SocketAddr;
use std::sync::Arc;

use kafka::response::api_versions;
use kafka::{ErrorCode, Request, RequestHeader, Response};

use super::connection::{Answer, Work};
use super::{
    Client, Edge, cluster, configs, described, elections, fetch, groups, metadata, offsets, produce, producers,
    reassign, topics, transactions,
};

/// The handler of one connection's requests.
pub(super) fn handler(edge: Arc<Edge>, peer: SocketAddr, local: SocketAddr) -> impl Fn(RequestHeader, Request) -> Work {
    let turn = Arc::new(tokio::sync::Mutex::new(()));
    move |header, request| {
        let (edge, turn) = (Arc::clone(&edge), Arc::clone(&turn));
        Box::pin(async move {
            let client = Client { peer, local, id: header.client_id.clone().unwrap_or_default(), turn };
            answer(&edge, &client, &header, request).await
        })
    }
}

async fn answer(edge: &Arc<Edge>, client: &Client, header: &RequestHeader, request: Request) -> Answer {
    let version = header.version;
    let response: Response = match request {
        Request::Produce(request) if request.transactional_id.is_some() => {
            return produce::produce_in_transaction(Arc::clone(edge), client.clone(), request).await;
        }
        Request::Produce(request) => return produce::produce(edge, client, request).await,
        Request::Fetch(request) => return Box::pin(fetch::fetch(edge, client, request)).await,
        Request::ApiVersions(_) => api_versions(ErrorCode::None),
        Request::ApiVersionsOfUnknownVersion => api_versions(ErrorCode::UnsupportedVersion),
        Request::Metadata(request) => Box::pin(metadata::metadata(edge, client, version, request)).await.into(),
        Request::DescribeTopicPartitions(request) => described::describe(edge, request).into(),
        Request::DescribeCluster(request) => cluster::describe_cluster(edge, client, version, &request).into(),
        Request::DescribeLogDirs(request) => cluster::describe_log_dirs(edge, version, &request).into(),
        Request::ListOffsets(request) => offsets::list_offsets(edge, version, request).await.into(),
        Request::OffsetForLeaderEpoch(request) => offsets::offset_for_leader_epoch(edge, request).into(),
        Request::DescribeProducers(request) => Box::pin(producers::describe(edge, request)).await.into(),
        Request::DeleteRecords(request) => Box::pin(offsets::delete_records(edge, request)).await.into(),
        Request::CreateTopics(request) => Box::pin(topics::create_topics(edge, version, request)).await.into(),
        Request::DeleteTopics(request) => Box::pin(topics::delete_topics(edge, version, request)).await.into(),
        Request::CreatePartitions(request) => Box::pin(topics::create_partitions(edge, request)).await.into(),
        Request::AlterPartitionReassignments(request) => Box::pin(reassign::alter(edge, request)).await.into(),
        Request::ListPartitionReassignments(request) => reassign::list(edge, request).into(),
        Request::ElectLeaders(request) => Box::pin(elections::elect(edge, request)).await.into(),
        Request::DescribeConfigs(request) => configs::describe_configs(edge, version, request).into(),
        Request::AlterConfigs(request) => Box::pin(configs::alter_configs(edge, request)).await.into(),
        Request::IncrementalAlterConfigs(request) => {
            Box::pin(configs::incremental_alter_configs(edge, request)).await.into()
        }
        other => match Box::pin(transactions::handle(edge, client, header, other)).await {
            Ok(response) => response,
            Err(group) => match Box::pin(groups::handle(edge, client, header, group)).await {
                Some(response) => response,
                None => return Answer::Close("the API has no handler"),
            },
        },
    };
    Answer::Send(response, None)
}
