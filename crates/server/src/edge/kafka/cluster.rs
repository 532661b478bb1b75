//! What there is once per node: the cluster, the folder of the logs.

use std::collections::BTreeMap;

use base::{PartitionIndex, TopicPartition};
use kafka::msg::describe_cluster_response::DescribeClusterBroker;
use kafka::msg::describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic};
use kafka::msg::{DescribeClusterRequest, DescribeClusterResponse, DescribeLogDirsRequest, DescribeLogDirsResponse};
use kafka::{ErrorCode, StrBytes};

use super::metadata::name;
use super::{Client, Edge};

/// The kind of endpoint a client may ask DescribeCluster for; 2 would be the controllers.
const ENDPOINT_BROKERS: i8 = 1;

pub(super) fn describe_cluster(
    edge: &Edge,
    client: &Client,
    version: i16,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    if version >= 1 && request.endpoint_type != ENDPOINT_BROKERS {
        let text = StrBytes::from_static_str("only brokers can be described: there is no controller beside them");
        return DescribeClusterResponse::default()
            .with_error_code(ErrorCode::UnsupportedEndpointType.number())
            .with_error_message(Some(text));
    }
    let brokers = edge.brokers(client).into_iter().map(|broker| {
        DescribeClusterBroker::default()
            .with_broker_id(broker.broker_id())
            .with_host(broker.host())
            .with_port(broker.port)
            .with_rack(broker.rack())
    });
    DescribeClusterResponse::default()
        .with_cluster_id(edge.cluster_id())
        .with_controller_id(edge.controller())
        .with_brokers(brokers.collect())
}

pub(super) fn describe_log_dirs(
    edge: &Edge,
    version: i16,
    request: &DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let state = edge.node.state();
    let mut wanted: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    match &request.topics {
        None => wanted.extend(state.topics.values().map(|topic| (&*topic.name, (0..topic.partitions).collect()))),
        Some(topics) => wanted.extend(topics.iter().map(|topic| (&**topic.topic, topic.partitions.clone()))),
    }
    let topics = wanted.into_iter().filter_map(|(topic_name, partitions)| {
        let topic = state.topic_named(topic_name)?;
        let partitions = partitions.into_iter().filter_map(|index| {
            let place = TopicPartition { topic: topic.id, partition: PartitionIndex(index) };
            let size = edge.node.reader(place)?.size_bytes();
            let size = i64::try_from(size).unwrap_or(i64::MAX);
            Some(DescribeLogDirsPartition::default().with_partition_index(index).with_partition_size(size))
        });
        Some(DescribeLogDirsTopic::default().with_name(name(topic_name)).with_partitions(partitions.collect()))
    });
    let folder = edge.node.config().node.data_dir.display().to_string();
    let mut result =
        DescribeLogDirsResult::default().with_log_dir(StrBytes::from_string(folder)).with_topics(topics.collect());
    if version >= 4 {
        result = result.with_total_bytes(-1).with_usable_bytes(-1);
    }
    DescribeLogDirsResponse::default().with_results(vec![result])
}
