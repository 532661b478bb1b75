//! Metadata: which topics there are and where to reach them. Creates topics where that is allowed.

use std::sync::Arc;

use base::TopicId;
use control::Topic;
use kafka::msg::metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
use kafka::msg::{MetadataRequest, MetadataResponse, TopicName};
use kafka::{ErrorCode, StrBytes};
use uuid::Uuid;

use super::limits::AUTO_CREATE_MAX;
use super::{Client, Edge, errors};

impl Edge {
    /// Where this client is told to connect: as configured, else where it reached us.
    pub(super) fn address_for(&self, client: &Client) -> (String, i32) {
        let advertised = self.node.config().listen.advertised_kafka.as_deref();
        let parsed = advertised.and_then(|text| text.rsplit_once(':')).and_then(|(host, port)| {
            let port = port.parse::<u16>().ok()?;
            Some((host.trim_matches(['[', ']']).to_owned(), i32::from(port)))
        });
        parsed.unwrap_or_else(|| (client.local.ip().to_canonical().to_string(), i32::from(client.local.port())))
    }

    pub(super) fn cluster_id(&self) -> StrBytes {
        let id = self.node.state().cluster.map(|id| id.to_string());
        StrBytes::from_string(id.unwrap_or_default())
    }
}

/// A topic's name as the generated messages want it.
pub(super) fn name(text: &str) -> TopicName {
    TopicName(StrBytes::from_string(text.to_owned()))
}

pub(super) async fn metadata(edge: &Edge, client: &Client, version: i16, request: MetadataRequest) -> MetadataResponse {
    let may_create = edge.node.config().log.auto_create_topics && (version < 4 || request.allow_auto_topic_creation);
    let mut topics = Vec::new();
    match request.topics {
        Some(asked) if version > 0 || !asked.is_empty() => {
            let mut creations = if may_create { AUTO_CREATE_MAX } else { 0 };
            for asked in asked {
                let topic = match asked.name {
                    Some(name) if asked.topic_id.is_nil() => by_name(edge, name, &mut creations).await,
                    _ => by_id(edge, asked.topic_id),
                };
                topics.push(topic);
            }
        }
        _ => topics.extend(edge.node.state().topics.values().map(|topic| describe(edge, topic))),
    }
    let brokers = edge.brokers_lately(client).into_iter().map(|broker| {
        MetadataResponseBroker::default()
            .with_node_id(broker.broker_id())
            .with_host(broker.host())
            .with_port(broker.port)
            .with_rack(broker.rack())
    });
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(edge.cluster_id()))
        .with_controller_id(edge.controller())
        .with_topics(topics)
}

async fn by_name(edge: &Edge, name: TopicName, creations: &mut usize) -> MetadataResponseTopic {
    let refused =
        |code: ErrorCode| MetadataResponseTopic::default().with_error_code(code.number()).with_name(Some(name.clone()));
    if let Some(topic) = edge.node.state().topic_named(&name) {
        return describe(edge, topic);
    }
    if control::topic::check_name(&name).is_err() {
        return refused(ErrorCode::InvalidTopic);
    }
    if *creations == 0 {
        return refused(ErrorCode::UnknownTopicOrPartition);
    }
    *creations -= 1;
    match edge.node.ensure_topic(&name).await {
        Ok(topic) => describe(edge, &topic),
        Err(error) => {
            tracing::warn!(topic = %**name, %error, "kafka: a topic that a client asked for could not be created");
            refused(errors::of_node(&error).0)
        }
    }
}

fn by_id(edge: &Edge, id: Uuid) -> MetadataResponseTopic {
    match edge.node.state().topics.get(&TopicId(id)) {
        Some(topic) => describe(edge, topic),
        None => {
            let code = ErrorCode::UnknownTopicId.number();
            // Below version 12 a name may not be null; ids are asked for from 12 on only.
            MetadataResponseTopic::default().with_error_code(code).with_topic_id(id).with_name(None)
        }
    }
}

fn describe(edge: &Edge, topic: &Arc<Topic>) -> MetadataResponseTopic {
    let partitions = (0..topic.partitions).map(|index| {
        let placed = edge.placed(topic, index);
        MetadataResponsePartition::default()
            .with_error_code(placed.code.number())
            .with_partition_index(placed.index)
            .with_leader_id(placed.leader)
            .with_leader_epoch(placed.epoch)
            .with_replica_nodes(placed.replicas)
            .with_isr_nodes(placed.isr)
            .with_offline_replicas(placed.offline)
    });
    MetadataResponseTopic::default()
        .with_name(Some(name(&topic.name)))
        .with_topic_id(topic.id.0)
        .with_is_internal(topic.internal)
        .with_partitions(partitions.collect())
}
