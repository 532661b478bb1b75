//! Creating and deleting topics, and giving them more partitions.

use std::collections::{BTreeMap, BTreeSet};

use base::TopicId;
use control::{Topic, TopicConfig};
use kafka::msg::create_partitions_request::CreatePartitionsTopic;
use kafka::msg::create_partitions_response::CreatePartitionsTopicResult;
use kafka::msg::create_topics_request::CreatableTopic;
use kafka::msg::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka::msg::delete_topics_request::DeleteTopicState;
use kafka::msg::delete_topics_response::DeletableTopicResult;
use kafka::msg::{
    BrokerId, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use kafka::{ErrorCode, StrBytes};

use super::{Edge, configs, errors};

/// What clients send for "as the cluster has it".
const DEFAULT: i32 = -1;

/// A refusal in Kafka's code and in words.
type Refusal = (ErrorCode, String);

fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, Refusal> {
    Err((code, message.into()))
}

pub(super) async fn create_topics(edge: &Edge, version: i16, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let repeated = repeated(request.topics.iter().map(|topic| &topic.name));
    let mut results = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let name = asked.name.clone();
        let created = if repeated.contains(&name) {
            refuse(ErrorCode::InvalidRequest, "the topic is named twice in the request")
        } else {
            create(edge, asked, request.validate_only).await
        };
        let result = CreatableTopicResult::default().with_name(name);
        results.push(match created {
            Ok(created) => created.describe(edge, result, version),
            Err((code, message)) => result
                .with_error_code(code.number())
                .with_error_message((version >= 1).then(|| StrBytes::from_string(message))),
        });
    }
    CreateTopicsResponse::default().with_topics(results)
}

struct Created {
    id: TopicId,
    partitions: i32,
    overrides: BTreeMap<String, String>,
}

impl Created {
    fn describe(self, edge: &Edge, result: CreatableTopicResult, version: i16) -> CreatableTopicResult {
        let result = if version >= 7 { result.with_topic_id(self.id.0) } else { result };
        if version < 5 {
            return result;
        }
        let configs = control::topic::DEFS.iter().map(|def| {
            let (value, source) = configs::effective(edge, &self.overrides, def);
            CreatableTopicConfigs::default()
                .with_name(StrBytes::from_static_str(def.name))
                .with_value(Some(StrBytes::from_string(value)))
                .with_config_source(source)
        });
        result.with_num_partitions(self.partitions).with_replication_factor(1).with_configs(Some(configs.collect()))
    }
}

async fn create(edge: &Edge, asked: CreatableTopic, validate_only: bool) -> Result<Created, Refusal> {
    let partitions = partitions_of(edge, &asked)?;
    let overrides: BTreeMap<_, _> = asked
        .configs
        .iter()
        .filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.to_string())))
        .collect();
    let refused = |refused: control::Refused| (errors::of_refused(&refused), refused.to_string());
    control::topic::check_name(&asked.name).map_err(refused)?;
    control::topic::check_partitions(partitions).map_err(refused)?;
    TopicConfig::check(&overrides).map_err(refused)?;
    if edge.node.state().topic_named(&asked.name).is_some() {
        return refuse(ErrorCode::TopicAlreadyExists, format!("topic {} exists", &*asked.name));
    }
    if validate_only {
        return Ok(Created { id: TopicId(uuid::Uuid::nil()), partitions, overrides });
    }
    match edge.node.create_topic(&asked.name, partitions, overrides).await {
        Ok(topic) => Ok(Created { id: topic.id, partitions: topic.partitions, overrides: topic.overrides.clone() }),
        Err(error) => Err(errors::of_node(&error)),
    }
}

/// The number of partitions asked for, one way or the other.
fn partitions_of(edge: &Edge, asked: &CreatableTopic) -> Result<i32, Refusal> {
    if asked.assignments.is_empty() {
        if !matches!(i32::from(asked.replication_factor), DEFAULT | 1) {
            let message = format!("replication factor {} is refused: there is one node", asked.replication_factor);
            return refuse(ErrorCode::InvalidReplicationFactor, message);
        }
        return Ok(match asked.num_partitions {
            DEFAULT => edge.node.config().log.default_partitions,
            partitions => partitions,
        });
    }
    if asked.num_partitions != DEFAULT || i32::from(asked.replication_factor) != DEFAULT {
        return refuse(ErrorCode::InvalidRequest, "an assignment replaces the number of partitions and of replicas");
    }
    let indexes: BTreeSet<i32> = asked.assignments.iter().map(|partition| partition.partition_index).collect();
    let count = i32::try_from(asked.assignments.len()).unwrap_or(i32::MAX);
    if !indexes.iter().copied().eq(0..count) {
        return refuse(ErrorCode::InvalidReplicaAssignment, "the partitions of an assignment are numbered from 0");
    }
    asked.assignments.iter().try_for_each(|partition| check_replicas(edge, &partition.broker_ids))?;
    Ok(count)
}

fn check_replicas(edge: &Edge, replicas: &[BrokerId]) -> Result<(), Refusal> {
    let node = edge.broker_id();
    if replicas == [node] {
        return Ok(());
    }
    refuse(ErrorCode::InvalidReplicaAssignment, format!("the only replica there can be is node {}", node.0))
}

/// Names that occur more than once.
fn repeated<'a>(names: impl Iterator<Item = &'a TopicName>) -> BTreeSet<TopicName> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).cloned().collect()
}

pub(super) async fn delete_topics(edge: &Edge, version: i16, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let named = request.topic_names.into_iter().map(|name| DeleteTopicState::default().with_name(Some(name)));
    let mut responses = Vec::new();
    for asked in request.topics.into_iter().chain(named) {
        let state = edge.node.state();
        let topic = match &asked.name {
            Some(name) => state.topic_named(name),
            None => state.topics.get(&TopicId(asked.topic_id)),
        };
        let deleted = match topic {
            Some(topic) => delete(edge, topic).await,
            None if asked.name.is_some() => refuse(ErrorCode::UnknownTopicOrPartition, "the topic does not exist"),
            None => refuse(ErrorCode::UnknownTopicId, "there is no topic of this id"),
        };
        let name = asked.name.clone().or_else(|| topic.map(|topic| super::metadata::name(&topic.name)));
        let mut result = DeletableTopicResult::default().with_name(name);
        if version >= 6 {
            result = result.with_topic_id(topic.map_or(asked.topic_id, |topic| topic.id.0));
        }
        if let Err((code, message)) = deleted {
            let message = (version >= 5).then(|| StrBytes::from_string(message));
            result = result.with_error_code(code.number()).with_error_message(message);
        }
        responses.push(result);
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

async fn delete(edge: &Edge, topic: &Topic) -> Result<(), Refusal> {
    edge.node.delete_topic(&topic.name).await.map_err(|error| errors::of_node(&error))
}

pub(super) async fn create_partitions(edge: &Edge, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let repeated = repeated(request.topics.iter().map(|topic| &topic.name));
    let mut results = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let name = asked.name.clone();
        let grown = if repeated.contains(&name) {
            refuse(ErrorCode::InvalidRequest, "the topic is named twice in the request")
        } else {
            grow(edge, &asked, request.validate_only).await
        };
        let result = CreatePartitionsTopicResult::default().with_name(name);
        results.push(match grown {
            Ok(()) => result,
            Err((code, message)) => {
                result.with_error_code(code.number()).with_error_message(Some(StrBytes::from_string(message)))
            }
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}

async fn grow(edge: &Edge, asked: &CreatePartitionsTopic, validate_only: bool) -> Result<(), Refusal> {
    let state = edge.node.state();
    let Some(topic) = state.topic_named(&asked.name) else {
        return refuse(ErrorCode::UnknownTopicOrPartition, "the topic does not exist");
    };
    control::topic::check_partitions(asked.count).map_err(|error| (errors::of_refused(&error), error.to_string()))?;
    if asked.count <= topic.partitions {
        let message = format!("the topic has {} partitions, and their number can only grow", topic.partitions);
        return refuse(ErrorCode::InvalidPartitions, message);
    }
    if let Some(assignments) = &asked.assignments {
        if i32::try_from(assignments.len()) != Ok(asked.count - topic.partitions) {
            return refuse(ErrorCode::InvalidReplicaAssignment, "an assignment names every new partition");
        }
        assignments.iter().try_for_each(|partition| check_replicas(edge, &partition.broker_ids))?;
    }
    if validate_only {
        return Ok(());
    }
    edge.node.add_partitions(&asked.name, asked.count).await.map_err(|error| errors::of_node(&error))
}
