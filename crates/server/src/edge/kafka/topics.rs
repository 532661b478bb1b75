//! Creating and deleting topics, and giving them more partitions.

use std::collections::{BTreeMap, BTreeSet};

use base::{NodeId, TopicId};
use control::{PlaceError, Topic, TopicConfig};
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

use super::{Edge, brokers, configs, errors};
use crate::node::topics::{Copies, NewTopic};

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
    factor: usize,
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
        let factor = i16::try_from(self.factor).unwrap_or(i16::MAX);
        result
            .with_num_partitions(self.partitions)
            .with_replication_factor(factor)
            .with_configs(Some(configs.collect()))
    }
}

async fn create(edge: &Edge, asked: CreatableTopic, validate_only: bool) -> Result<Created, Refusal> {
    let (partitions, copies) = shape_of(edge, &asked)?;
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
    // Placed here for the sake of a clear refusal; what is placed when it is made may differ.
    let replicas = copies.place(&edge.node.state(), partitions).map_err(refused)?;
    if validate_only {
        let factor = replicas.first().map_or(1, Vec::len);
        return Ok(Created { id: TopicId(uuid::Uuid::nil()), partitions, factor, overrides });
    }
    let copies = if replicas.is_empty() { Copies::Default } else { Copies::Given(replicas) };
    let new = NewTopic { name: asked.name.to_string(), partitions, copies, overrides, internal: false };
    match edge.node.create_topic_with(new).await {
        Ok(topic) => Ok(Created {
            id: topic.id,
            partitions: topic.partitions,
            factor: topic.factor(),
            overrides: topic.overrides.clone(),
        }),
        Err(error) => Err(errors::of_node(&error)),
    }
}

/// The number of partitions and where their copies are to be, asked for one way or the other.
fn shape_of(edge: &Edge, asked: &CreatableTopic) -> Result<(i32, Copies), Refusal> {
    if asked.assignments.is_empty() {
        let copies = match i32::from(asked.replication_factor) {
            DEFAULT => Copies::Default,
            factor => Copies::Factor(factor_of(factor)?),
        };
        let partitions = match asked.num_partitions {
            DEFAULT => edge.node.config().log.default_partitions,
            partitions => partitions,
        };
        return Ok((partitions, copies));
    }
    if asked.num_partitions != DEFAULT || i32::from(asked.replication_factor) != DEFAULT {
        return refuse(ErrorCode::InvalidRequest, "an assignment replaces the number of partitions and of replicas");
    }
    let assigned: BTreeMap<i32, Vec<BrokerId>> =
        asked.assignments.iter().map(|partition| (partition.partition_index, partition.broker_ids.clone())).collect();
    let count = i32::try_from(asked.assignments.len()).unwrap_or(i32::MAX);
    if !assigned.keys().copied().eq(0..count) {
        return refuse(ErrorCode::InvalidReplicaAssignment, "the partitions of an assignment are numbered from 0");
    }
    Ok((count, Copies::Given(nodes_of(&assigned)?)))
}

fn factor_of(factor: i32) -> Result<usize, Refusal> {
    let refused = || {
        let error = PlaceError::Outside { factor: i64::from(factor) };
        (ErrorCode::InvalidReplicationFactor, error.to_string())
    };
    usize::try_from(factor).map_err(|_| refused())
}

fn nodes_of(assigned: &BTreeMap<i32, Vec<BrokerId>>) -> Result<Vec<Vec<NodeId>>, Refusal> {
    let nodes = brokers::assignment(assigned);
    nodes.ok_or_else(|| (ErrorCode::InvalidReplicaAssignment, "a node's number is positive".to_owned()))
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
    let replicas = match &asked.assignments {
        None => None,
        Some(assignments) => {
            if i32::try_from(assignments.len()) != Ok(asked.count - topic.partitions) {
                return refuse(ErrorCode::InvalidReplicaAssignment, "an assignment names every new partition");
            }
            let assigned = (0..).zip(assignments.iter().map(|partition| partition.broker_ids.clone())).collect();
            let replicas = nodes_of(&assigned)?;
            control::plan::check(&replicas, replicas.len(), |node| state.is_member(node))
                .map_err(|error| (ErrorCode::InvalidReplicaAssignment, error.to_string()))?;
            Some(replicas)
        }
    };
    if validate_only {
        return Ok(());
    }
    edge.node.add_partitions(&asked.name, asked.count, replicas).await.map_err(|error| errors::of_node(&error))
}
