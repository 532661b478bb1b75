//! Consumer group APIs: typed Kafka requests to the coordinator's, and its answers back.
//!
//! One node coordinates at a time; the others say so. What is decided here: whether a committed topic exists, and which
//! code a refusal has. Everything else is the coordinator's.

mod wire;

pub(super) use wire::code as code_of_group;

use std::collections::BTreeMap;

use base::{PartitionIndex, TopicPartition};
use kafka::msg::find_coordinator_response::Coordinator;
use kafka::msg::offset_fetch_response::OffsetFetchResponseGroup;
use kafka::msg::{
    BrokerId, DescribeGroupsRequest, DescribeGroupsResponse, FindCoordinatorRequest, FindCoordinatorResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
};
use kafka::{ErrorCode, Request, RequestHeader, Response, StrBytes};
use log::groups;

use super::brokers::Broker;
use super::limits::{COORDINATOR_POLL, COORDINATOR_WAIT_MS_MAX};
use super::{Client, Edge};
use crate::node::groups::TOPIC;
use crate::node::time;
use crate::node::transactions::TOPIC as TRANSACTIONS;

/// Most groups asked for in one request.
const GROUPS_PER_REQUEST_MAX: usize = 10_000;

/// Answers FindCoordinator, JoinGroup, SyncGroup, Heartbeat, LeaveGroup, OffsetCommit, OffsetFetch, DescribeGroups,
/// ListGroups, DeleteGroups and OffsetDelete. `None` for any other request.
pub(super) async fn handle(edge: &Edge, client: &Client, header: &RequestHeader, request: Request) -> Option<Response> {
    let version = header.version;
    let response = match request {
        Request::FindCoordinator(request) => find_coordinator(edge, client, version, request).await.into(),
        Request::JoinGroup(request) => {
            let member = request.member_id.clone();
            let host = format!("/{}", client.peer.ip().to_canonical());
            let join = wire::join(version, request, client.id.clone(), host);
            wire::joined(version, member, edge.node.group(groups::Request::Join(Box::new(join))).await).into()
        }
        Request::SyncGroup(request) => wire::synced(version, edge.node.group(wire::sync(request)).await).into(),
        Request::Heartbeat(request) => wire::beaten(edge.node.group(wire::heartbeat(request)).await).into(),
        Request::LeaveGroup(request) => {
            let (request, leavers) = wire::leave(version, request);
            wire::left(version, leavers, edge.node.group(request).await).into()
        }
        Request::OffsetCommit(request) => offset_commit(edge, request).await.into(),
        Request::OffsetFetch(request) => offset_fetch(edge, version, request).await.into(),
        Request::DescribeGroups(request) => describe_groups(edge, request).await.into(),
        Request::ListGroups(request) => match wire::list(&request) {
            Some(list) => wire::listed(version, edge.node.group(list).await).into(),
            None => wire::listed(version, groups::Response::List(Ok(Vec::new()))).into(),
        },
        Request::DeleteGroups(request) => {
            let mut results = Vec::new();
            for group in request.groups_names.into_iter().take(GROUPS_PER_REQUEST_MAX) {
                let deleted = edge.node.group(groups::Request::Delete { group: group.0.to_string() }).await;
                results.push(wire::deleted(group, &deleted));
            }
            kafka::msg::DeleteGroupsResponse::default().with_results(results).into()
        }
        Request::OffsetDelete(request) => {
            wire::offsets_deleted(edge.node.group(wire::offset_delete(request)).await).into()
        }
        _ => return None,
    };
    Some(response)
}

async fn find_coordinator(
    edge: &Edge,
    client: &Client,
    version: i16,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let found = coordinator(edge, client, request.key_type).await;
    let code = found.as_ref().map_or_else(|code| *code, |_| ErrorCode::None);
    let (node, host, port) = match found {
        Ok(broker) => (broker.broker_id(), broker.host(), broker.port),
        Err(_) => (BrokerId(-1), StrBytes::default(), -1),
    };
    if version < 4 {
        return FindCoordinatorResponse::default()
            .with_error_code(code.number())
            .with_node_id(node)
            .with_host(host)
            .with_port(port);
    }
    let coordinator = |key| {
        Coordinator::default()
            .with_key(key)
            .with_error_code(code.number())
            .with_node_id(node)
            .with_host(host.clone())
            .with_port(port)
    };
    let keys = request.coordinator_keys.into_iter().take(GROUPS_PER_REQUEST_MAX);
    FindCoordinatorResponse::default().with_coordinators(keys.map(coordinator).collect())
}

/// Of a group, of a transactional id: whoever leads the internal topic. Waits a little while one is elected.
async fn coordinator(edge: &Edge, client: &Client, key_type: i8) -> Result<Broker, ErrorCode> {
    let topic = match key_type {
        0 => TOPIC,
        1 => TRANSACTIONS,
        _ => return Err(ErrorCode::InvalidRequest),
    };
    let until = time::now().plus(COORDINATOR_WAIT_MS_MAX);
    loop {
        let found = coordinator_now(edge, client, topic);
        if found.is_some() || time::now() >= until || !is_elected_soon(edge, topic) {
            return found.ok_or(ErrorCode::CoordinatorNotAvailable);
        }
        tokio::time::sleep(COORDINATOR_POLL).await;
    }
}

fn coordinator_now(edge: &Edge, client: &Client, topic: &str) -> Option<Broker> {
    let topic = edge.node.state().topic_named(topic)?.id;
    let (node, _) = edge.node.leader_of(TopicPartition { topic, partition: PartitionIndex(0) })?;
    edge.brokers(client).into_iter().find(|broker| broker.id == node)
}

/// Enough of the internal topic's copies can be reached for one of them to lead.
fn is_elected_soon(edge: &Edge, topic: &str) -> bool {
    let state = edge.node.state();
    state.topic_named(topic).is_some_and(|topic| {
        let replicas = topic.replicas_of(PartitionIndex(0));
        replicas.len() > 1 && edge.node.reaches_majority_of(replicas)
    })
}

async fn offset_commit(edge: &Edge, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let state = edge.node.state();
    let mut partitions: BTreeMap<String, i32> = BTreeMap::new();
    for asked in &request.topics {
        if let Some(topic) = state.topic_named(&asked.name) {
            partitions.insert(topic.name.clone(), topic.partitions);
        }
    }
    let exists =
        |topic: &str, partition: i32| partitions.get(topic).is_some_and(|count| (0..*count).contains(&partition));
    let (asked, commit) = wire::commit(request, exists);
    let answer = match commit {
        Some(commit) => edge.node.group(commit).await,
        None => groups::Response::CommitOffsets(Ok(Vec::new())),
    };
    wire::committed(asked, answer)
}

async fn offset_fetch(edge: &Edge, version: i16, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if version < 8 {
        let topics = request
            .topics
            .map(|topics| topics.into_iter().map(|topic| wire::places(&topic.name, topic.partition_indexes)).collect());
        let fetch = groups::Request::FetchOffsets { group: request.group_id.0.to_string(), topics: topics.clone() };
        return wire::fetched(version, topics, edge.node.group(fetch).await, request.require_stable);
    }
    let mut fetched: Vec<OffsetFetchResponseGroup> = Vec::new();
    for asked in request.groups.into_iter().take(GROUPS_PER_REQUEST_MAX) {
        let topics = asked
            .topics
            .map(|topics| topics.into_iter().map(|topic| wire::places(&topic.name, topic.partition_indexes)).collect());
        let fetch = groups::Request::FetchOffsets { group: asked.group_id.0.to_string(), topics };
        fetched.push(wire::fetched_group(asked.group_id, edge.node.group(fetch).await, request.require_stable));
    }
    OffsetFetchResponse::default().with_groups(fetched)
}

async fn describe_groups(edge: &Edge, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let mut described = Vec::new();
    for group in request.groups.into_iter().take(GROUPS_PER_REQUEST_MAX) {
        let answer = edge.node.group(groups::Request::Describe { group: group.0.to_string() }).await;
        described.push(wire::described(group, answer));
    }
    DescribeGroupsResponse::default().with_groups(described)
}
