//! DescribeTopicPartitions: what Metadata tells of topics, a bounded number of partitions at a time, with a cursor.
//!
//! What always holds: topics come by name, partitions by number, each once; the cursor names the first that did not fit.
//! There are no eligible leader replicas: whoever has all that is committed may be elected here. Their lists are empty, never
//! null, as the protocol would allow: Kafka's own admin client (4.1) fails on null.

use std::collections::BTreeSet;

use control::Topic;
use kafka::ErrorCode;
use kafka::msg::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka::msg::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};

use super::Edge;
use super::limits::DESCRIBED_PARTITIONS_MAX;
use super::metadata::name;

/// No operations were asked for: `i32::MIN`, as Kafka has it.
const NO_OPERATIONS: i32 = i32::MIN;

pub(super) fn describe(edge: &Edge, request: DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let state = edge.node.state();
    let asked: BTreeSet<String> = match &request.topics[..] {
        [] => state.topics.values().map(|topic| topic.name.clone()).collect(),
        topics => topics.iter().map(|topic| topic.name.to_string()).collect(),
    };
    let (from_topic, from_partition) =
        request.cursor.map_or_else(Default::default, |at| (at.topic_name.to_string(), at.partition_index.max(0)));
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, DESCRIBED_PARTITIONS_MAX);
    let mut answer = DescribeTopicPartitionsResponse::default();
    let mut left = limit;
    for asked in asked.range(from_topic.clone()..) {
        let first = if *asked == from_topic { from_partition } else { 0 };
        if left == 0 {
            answer.next_cursor = Some(cursor(asked, first));
            break;
        }
        let Some(topic) = state.topic_named(asked) else {
            answer.topics.push(unknown(asked));
            left -= 1;
            continue;
        };
        let count = i32::try_from(left).unwrap_or(i32::MAX);
        let next = first.saturating_add(count).min(topic.partitions);
        answer.topics.push(described(edge, topic, first..next));
        left = left.saturating_sub(usize::try_from(next.saturating_sub(first)).unwrap_or(0));
        if next < topic.partitions {
            answer.next_cursor = Some(cursor(asked, next));
            break;
        }
    }
    answer
}

fn cursor(topic: &str, partition: i32) -> Cursor {
    Cursor::default().with_topic_name(name(topic)).with_partition_index(partition)
}

fn unknown(topic: &str) -> DescribeTopicPartitionsResponseTopic {
    let is_name = control::topic::check_name(topic).is_ok();
    let code = if is_name { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::InvalidTopic };
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(code.number())
        .with_name(Some(name(topic)))
        .with_topic_authorized_operations(NO_OPERATIONS)
}

fn described(edge: &Edge, topic: &Topic, partitions: std::ops::Range<i32>) -> DescribeTopicPartitionsResponseTopic {
    let partitions = partitions.map(|index| {
        let placed = edge.placed(topic, index);
        DescribeTopicPartitionsResponsePartition::default()
            .with_error_code(placed.code.number())
            .with_partition_index(placed.index)
            .with_leader_id(placed.leader)
            .with_leader_epoch(placed.epoch)
            .with_replica_nodes(placed.replicas)
            .with_isr_nodes(placed.isr)
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
            .with_offline_replicas(placed.offline)
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(name(&topic.name)))
        .with_topic_id(topic.id.0)
        .with_is_internal(topic.internal)
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(NO_OPERATIONS)
}
