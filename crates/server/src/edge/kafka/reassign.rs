//! Moving replicas: where the copies of partitions shall be, and which are on their way.

use std::collections::BTreeMap;

use base::PartitionIndex;
use control::{Command, Topic};
use kafka::ErrorCode;
use kafka::StrBytes;
use kafka::msg::alter_partition_reassignments_request::ReassignablePartition;
use kafka::msg::alter_partition_reassignments_response::{ReassignablePartitionResponse, ReassignableTopicResponse};
use kafka::msg::list_partition_reassignments_response::{OngoingPartitionReassignment, OngoingTopicReassignment};
use kafka::msg::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, BrokerId,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use super::brokers::{broker_id, node_id};
use super::{Edge, errors};

pub(super) async fn alter(
    edge: &Edge,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let mut responses = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for partition in asked.partitions {
            let answer = ReassignablePartitionResponse::default().with_partition_index(partition.partition_index);
            partitions.push(match move_to(edge, &asked.name, partition).await {
                Ok(()) => answer.with_error_message(None),
                Err((code, message)) => {
                    answer.with_error_code(code.number()).with_error_message(Some(StrBytes::from_string(message)))
                }
            });
        }
        responses.push(ReassignableTopicResponse::default().with_name(asked.name).with_partitions(partitions));
    }
    AlterPartitionReassignmentsResponse::default().with_error_message(None).with_responses(responses)
}

/// Without replicas: the move under way is called off.
async fn move_to(edge: &Edge, topic: &str, asked: ReassignablePartition) -> Result<(), (ErrorCode, String)> {
    let state = edge.node.state();
    let partition = PartitionIndex(asked.partition_index);
    let found = state.topic_named(topic).filter(|topic| topic.has_partition(partition));
    let Some(topic) = found else {
        return Err((ErrorCode::UnknownTopicOrPartition, "there is no such partition".to_owned()));
    };
    let target = match asked.replicas {
        Some(replicas) => replicas
            .into_iter()
            .map(node_id)
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| (ErrorCode::InvalidReplicaAssignment, "a node's number is positive".to_owned()))?,
        None if topic.targets.contains_key(&partition) => topic.replicas_of(partition).to_vec(),
        None => {
            return Err((ErrorCode::NoReassignmentInProgress, "the partition is not being moved".to_owned()));
        }
    };
    let command = Command::SetReplicas { id: topic.id, partition, target, expected: None };
    edge.node.propose(command).await.map(drop).map_err(|error| match errors::of_node(&error) {
        (ErrorCode::InvalidReplicationFactor, message) => (ErrorCode::InvalidReplicaAssignment, message),
        refused => refused,
    })
}

pub(super) fn list(edge: &Edge, request: ListPartitionReassignmentsRequest) -> ListPartitionReassignmentsResponse {
    let state = edge.node.state();
    let asked: Option<BTreeMap<String, Vec<i32>>> = request
        .topics
        .map(|topics| topics.into_iter().map(|topic| (topic.name.to_string(), topic.partition_indexes)).collect());
    let is_asked = |topic: &Topic, partition: PartitionIndex| match &asked {
        None => true,
        Some(asked) => asked.get(&topic.name).is_some_and(|partitions| partitions.contains(&partition.0)),
    };
    let topics = state.topics.values().filter_map(|topic| {
        let moving = topic.targets.keys().filter(|partition| is_asked(topic, **partition));
        let partitions: Vec<_> = moving.map(|partition| on_its_way(topic, *partition)).collect();
        let answer = OngoingTopicReassignment::default().with_name(super::metadata::name(&topic.name));
        (!partitions.is_empty()).then(|| answer.with_partitions(partitions))
    });
    ListPartitionReassignmentsResponse::default().with_error_message(None).with_topics(topics.collect())
}

fn on_its_way(topic: &Topic, partition: PartitionIndex) -> OngoingPartitionReassignment {
    let now = topic.replicas_of(partition);
    let target = topic.targets.get(&partition).map_or(&[][..], Vec::as_slice);
    let adding: Vec<BrokerId> = target.iter().filter(|node| !now.contains(node)).copied().map(broker_id).collect();
    let removing = now.iter().filter(|node| !target.contains(node)).copied().map(broker_id).collect();
    let all = now.iter().copied().map(broker_id).chain(adding.iter().copied()).collect();
    OngoingPartitionReassignment::default()
        .with_partition_index(partition.0)
        .with_replicas(all)
        .with_adding_replicas(adding)
        .with_removing_replicas(removing)
}
