//! DescribeProducers: what a partition remembers of those that write to it, and which of them have a transaction open.

use kafka::ErrorCode;
use kafka::msg::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka::msg::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};
use log::ProducerSeen;

use super::{Edge, errors, offsets};

pub(super) async fn describe(edge: &Edge, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let mut partitions = Vec::with_capacity(asked.partition_indexes.len());
        for index in asked.partition_indexes {
            let answer = PartitionResponse::default().with_partition_index(index);
            partitions.push(match seen(edge, &asked.name, index).await {
                Ok(seen) => answer.with_active_producers(seen.iter().map(told).collect()),
                Err((code, message)) => answer.with_error_code(code.number()).with_error_message(Some(message.into())),
            });
        }
        topics.push(TopicResponse::default().with_name(asked.name).with_partitions(partitions));
    }
    DescribeProducersResponse::default().with_topics(topics)
}

/// The leader's word counts: what others remember may be behind.
async fn seen(edge: &Edge, topic: &str, index: i32) -> Result<Vec<ProducerSeen>, (ErrorCode, String)> {
    let state = edge.node.state();
    let (place, _) = offsets::find(edge, &state, topic, index).map_err(|code| (code, code.to_string()))?;
    edge.node.logs().producers(place).await.map_err(|error| errors::of_node(&error.into()))
}

fn told(seen: &ProducerSeen) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(seen.producer.0))
        .with_producer_epoch(i32::from(seen.epoch.0))
        .with_last_sequence(seen.last_sequence)
        .with_last_timestamp(seen.last_timestamp.0)
        .with_coordinator_epoch(seen.coordinator_epoch)
        .with_current_txn_start_offset(seen.txn_start.map_or(-1, |start| start.0))
}
