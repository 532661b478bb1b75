//! Configurations of topics, read and changed; those of the node, read.

use std::collections::BTreeMap;

use control::topic::{ConfigDef, ConfigKind, DEFS};
use control::{Topic, TopicConfig};
use kafka::msg::alter_configs_response::AlterConfigsResourceResponse as Altered;
use kafka::msg::describe_configs_request::DescribeConfigsResource;
use kafka::msg::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka::msg::incremental_alter_configs_request::AlterableConfig;
use kafka::msg::incremental_alter_configs_response::AlterConfigsResourceResponse as IncrementallyAltered;
use kafka::msg::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use kafka::{ErrorCode, StrBytes};

use super::{Edge, errors};
use crate::config::KEYS;

/// Kinds of resource.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Where a value comes from.
const SOURCE_TOPIC: i8 = 1;
const SOURCE_STATIC_BROKER: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;

/// Types of values, as clients are told from version 3 on.
const TYPE_STRING: i8 = 2;
const TYPE_LONG: i8 = 5;
const TYPE_LIST: i8 = 7;

/// What IncrementalAlterConfigs can do with a key.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// The one key whose value is a list.
const LIST_KEY: &str = "cleanup.policy";

type Refusal = (ErrorCode, String);

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

pub(super) fn describe_configs(edge: &Edge, version: i16, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let view = View { version, synonyms: request.include_synonyms, documentation: request.include_documentation };
    let results = request.resources.into_iter().map(|asked| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name.clone());
        match describe(edge, &asked, view) {
            Ok(mut configs) => {
                if let Some(keys) = &asked.configuration_keys {
                    configs.retain(|config| keys.contains(&config.name));
                }
                result.with_configs(configs)
            }
            Err((code, message)) => result.with_error_code(code.number()).with_error_message(Some(text(message))),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

/// What the client wants to see of each value.
#[derive(Clone, Copy)]
struct View {
    version: i16,
    synonyms: bool,
    documentation: bool,
}

fn describe(
    edge: &Edge,
    asked: &DescribeConfigsResource,
    view: View,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    match asked.resource_type {
        TOPIC => {
            let state = edge.node.state();
            let unknown = || (ErrorCode::UnknownTopicOrPartition, "the topic does not exist".to_owned());
            let topic = state.topic_named(&asked.resource_name).ok_or_else(unknown)?;
            Ok(DEFS.iter().map(|def| describe_topic_key(edge, topic, def, view)).collect())
        }
        BROKER => {
            let node = edge.node.id().to_string();
            if *asked.resource_name != *node && !asked.resource_name.is_empty() {
                let message = format!("this is node {node}; there is no node {}", &*asked.resource_name);
                return Err((ErrorCode::InvalidRequest, message));
            }
            Ok(describe_node(edge, view))
        }
        other => Err((ErrorCode::InvalidRequest, format!("resources of type {other} have no configuration here"))),
    }
}

/// A key's value for a topic with these overrides, and where it comes from. The node has defaults of its own for some.
pub(super) fn effective(edge: &Edge, overrides: &BTreeMap<String, String>, def: &ConfigDef) -> (String, i8) {
    if let Some(value) = overrides.get(def.name) {
        return (value.clone(), SOURCE_TOPIC);
    }
    let log = &edge.node.config().log;
    let node = match def.name {
        "retention.ms" => log.retention.map_or_else(|| "-1".to_owned(), |time| time.as_millis().to_string()),
        "retention.bytes" => log.retention_bytes.map_or_else(|| "-1".to_owned(), |size| size.0.to_string()),
        "segment.bytes" => log.file_bytes.0.to_string(),
        "segment.ms" => log.file_age.as_millis().to_string(),
        "max.message.bytes" => log.batch_bytes_max.0.to_string(),
        _ => return (def.default.to_owned(), SOURCE_DEFAULT),
    };
    let source = if node == def.default { SOURCE_DEFAULT } else { SOURCE_STATIC_BROKER };
    (node, source)
}

fn describe_topic_key(edge: &Edge, topic: &Topic, def: &ConfigDef, view: View) -> DescribeConfigsResourceResult {
    let (value, source) = effective(edge, &topic.overrides, def);
    let kind = match def.kind {
        ConfigKind::Number { .. } => TYPE_LONG,
        ConfigKind::Word(_) if def.name == LIST_KEY => TYPE_LIST,
        ConfigKind::Word(_) => TYPE_STRING,
    };
    let result = describe_key(def.name, &value, source, kind, def.doc, view);
    if !view.synonyms {
        return result;
    }
    let synonym = |(value, source): (String, i8)| {
        DescribeConfigsSynonym::default().with_name(text(def.name)).with_value(Some(text(value))).with_source(source)
    };
    let own = (source == SOURCE_TOPIC).then_some((value, source));
    let inherited = effective(edge, &BTreeMap::new(), def);
    result.with_synonyms(own.into_iter().chain([inherited]).map(synonym).collect())
}

fn describe_key(name: &str, value: &str, source: i8, kind: i8, doc: &str, view: View) -> DescribeConfigsResourceResult {
    let mut result = DescribeConfigsResourceResult::default()
        .with_name(text(name))
        .with_value(Some(text(value)))
        .with_config_source(source);
    if view.version >= 3 {
        result = result.with_config_type(kind).with_documentation(view.documentation.then(|| text(doc)));
    }
    result
}

/// The node's own settings under their own names, and those that Kafka's tools look for under Kafka's.
fn describe_node(edge: &Edge, view: View) -> Vec<DescribeConfigsResourceResult> {
    let config = edge.node.config();
    let log = &config.log;
    let retention_ms = log.retention.map_or(-1, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    let kafkas = [
        ("broker.id", edge.node.id().to_string()),
        ("auto.create.topics.enable", log.auto_create_topics.to_string()),
        ("num.partitions", log.default_partitions.to_string()),
        ("default.replication.factor", "1".to_owned()),
        ("log.dirs", config.node.data_dir.display().to_string()),
        ("log.retention.ms", retention_ms.to_string()),
        ("log.segment.bytes", log.file_bytes.0.to_string()),
        ("message.max.bytes", log.batch_bytes_max.0.to_string()),
        ("compression.type", "producer".to_owned()),
        ("log.cleanup.policy", "delete".to_owned()),
    ];
    let kafkas = kafkas.into_iter().map(|(name, value)| (name, value, "as Kafka names it".to_owned()));
    let own = KEYS.iter().map(|key| (key.name, key.show(config), key.help()));
    let describe = |(name, value, doc): (&str, String, String)| {
        describe_key(name, &value, SOURCE_STATIC_BROKER, TYPE_STRING, &doc, view).with_read_only(true)
    };
    kafkas.chain(own).map(describe).collect()
}

pub(super) async fn alter_configs(edge: &Edge, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for asked in request.resources {
        let set = asked
            .configs
            .iter()
            .filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.to_string())));
        let set: BTreeMap<_, _> = set.collect();
        let change = |_: &Topic| Ok(set);
        let altered = alter(edge, asked.resource_type, &asked.resource_name, request.validate_only, change).await;
        let (code, message) = code_and_message(altered);
        responses.push(
            Altered::default()
                .with_error_code(code)
                .with_error_message(message)
                .with_resource_type(asked.resource_type)
                .with_resource_name(asked.resource_name),
        );
    }
    AlterConfigsResponse::default().with_responses(responses)
}

pub(super) async fn incremental_alter_configs(
    edge: &Edge,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for asked in request.resources {
        let change = |topic: &Topic| {
            let mut set = topic.overrides.clone();
            asked.configs.iter().try_for_each(|config| change_key(&mut set, config)).map(|()| set)
        };
        // Nothing is set on a node over the wire, so there is nothing to be taken away: kafka-reassign-partitions does that.
        let takes_away = asked.configs.iter().all(|config| config.config_operation == DELETE);
        let altered = if asked.resource_type == BROKER && takes_away {
            Ok(())
        } else {
            alter(edge, asked.resource_type, &asked.resource_name, request.validate_only, change).await
        };
        let (code, message) = code_and_message(altered);
        responses.push(
            IncrementallyAltered::default()
                .with_error_code(code)
                .with_error_message(message)
                .with_resource_type(asked.resource_type)
                .with_resource_name(asked.resource_name),
        );
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

fn code_and_message(altered: Result<(), Refusal>) -> (i16, Option<StrBytes>) {
    match altered {
        Ok(()) => (ErrorCode::None.number(), None),
        Err((code, message)) => (code.number(), Some(text(message))),
    }
}

/// Computes a topic's new set of overrides and has it replaced.
async fn alter(
    edge: &Edge,
    resource_type: i8,
    name: &str,
    validate_only: bool,
    change: impl FnOnce(&Topic) -> Result<BTreeMap<String, String>, Refusal>,
) -> Result<(), Refusal> {
    match resource_type {
        TOPIC => {}
        BROKER => {
            let message = "the node's settings are in its configuration file; restart it to change them";
            return Err((ErrorCode::InvalidRequest, message.to_owned()));
        }
        other => {
            let message = format!("resources of type {other} have no configuration here");
            return Err((ErrorCode::InvalidRequest, message));
        }
    }
    let _one_at_a_time = edge.config_changes.lock().await;
    let state = edge.node.state();
    let unknown = || (ErrorCode::UnknownTopicOrPartition, "the topic does not exist".to_owned());
    let topic = state.topic_named(name).ok_or_else(unknown)?;
    if topic.internal {
        return Err((ErrorCode::InvalidTopic, format!("topic {name} is internal and cannot be changed by a client")));
    }
    let config = change(topic)?;
    TopicConfig::check(&config).map_err(|refused| (errors::of_refused(&refused), refused.to_string()))?;
    if validate_only {
        return Ok(());
    }
    edge.node.set_topic_config(name, config).await.map_err(|error| errors::of_node(&error))
}

fn change_key(set: &mut BTreeMap<String, String>, change: &AlterableConfig) -> Result<(), Refusal> {
    let key = change.name.to_string();
    let refuse = |reason: &str| Err((ErrorCode::InvalidConfig, format!("topic config {key}: {reason}")));
    let Some(def) = DEFS.iter().find(|def| def.name == key) else {
        // Kafka's tools take away throttles that were never set.
        if change.config_operation == DELETE {
            return Ok(());
        }
        return refuse("unknown key; DescribeConfigs lists the known ones");
    };
    if change.config_operation == DELETE {
        set.remove(&key);
        return Ok(());
    }
    let Some(value) = change.value.as_deref() else { return refuse("the value is null") };
    match change.config_operation {
        SET => {
            set.insert(key, value.to_owned());
            Ok(())
        }
        APPEND | SUBTRACT if key != LIST_KEY => refuse("only lists can be appended to or subtracted from"),
        APPEND | SUBTRACT => {
            let current = set.get(&key).map_or(def.default, String::as_str);
            let mut words: Vec<&str> = current.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
            for word in value.split(',').map(str::trim) {
                words.retain(|there| *there != word);
                if change.config_operation == APPEND {
                    words.push(word);
                }
            }
            let words = words.join(",");
            set.insert(key, words);
            Ok(())
        }
        _ => refuse("unknown operation"),
    }
}
