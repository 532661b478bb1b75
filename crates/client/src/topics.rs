//! Topics: list, create, delete.

use kafka_protocol::messages::{
    ApiKey, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, MetadataRequest,
    MetadataResponse, create_topics_request, metadata_request,
};
use kafka_protocol::protocol::StrBytes;

use crate::{ClientError, Connection, Overrides, name};

const METADATA_VERSION: i16 = 9;
const CREATE_TOPICS_VERSION: i16 = 5;
const DELETE_TOPICS_VERSION: i16 = 4;

/// A topic to be created.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicSpec {
    pub name: String,
    /// `None`: as many as the server thinks right.
    pub partitions: Option<i32>,
    pub config: Overrides,
}

/// A topic that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicInfo {
    pub name: String,
    pub partitions: i32,
    pub internal: bool,
}

impl Connection {
    /// Every topic, by name.
    pub fn topics(&mut self) -> Result<Vec<TopicInfo>, ClientError> {
        let mut topics = self.metadata(None, false)?;
        topics.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(topics)
    }

    /// One topic; created with the server's defaults if `create` and the server allows it.
    pub fn topic(&mut self, topic: &str, create: bool) -> Result<TopicInfo, ClientError> {
        let found = self.metadata(Some(topic), create)?.into_iter().next();
        found.ok_or_else(|| self.malformed("a metadata answer without the topic"))
    }

    fn metadata(&mut self, only: Option<&str>, create: bool) -> Result<Vec<TopicInfo>, ClientError> {
        let topics =
            only.map(|only| vec![metadata_request::MetadataRequestTopic::default().with_name(Some(name(only)))]);
        let request = MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(create);
        let response: MetadataResponse = self.call(ApiKey::Metadata, METADATA_VERSION, &request)?;
        response
            .topics
            .into_iter()
            .map(|topic| {
                let name = topic.name.as_ref().map_or_else(String::new, |name| name.0.to_string());
                ClientError::check(format!("topic {name}"), topic.error_code, None)?;
                let partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                Ok(TopicInfo { name, partitions, internal: topic.is_internal })
            })
            .collect()
    }

    pub fn create_topic(&mut self, topic: &TopicSpec) -> Result<(), ClientError> {
        let config = topic.config.iter().map(|(key, value)| {
            create_topics_request::CreatableTopicConfig::default()
                .with_name(StrBytes::from_string(key.clone()))
                .with_value(Some(StrBytes::from_string(value.clone())))
        });
        let creatable = create_topics_request::CreatableTopic::default()
            .with_name(name(&topic.name))
            .with_num_partitions(topic.partitions.unwrap_or(-1))
            .with_replication_factor(-1)
            .with_configs(config.collect());
        let request = CreateTopicsRequest::default().with_topics(vec![creatable]).with_timeout_ms(self.patience_ms());
        let response: CreateTopicsResponse = self.call(ApiKey::CreateTopics, CREATE_TOPICS_VERSION, &request)?;
        response.topics.iter().try_for_each(|result| {
            ClientError::check(format!("topic {}", topic.name), result.error_code, result.error_message.as_ref())
        })
    }

    pub fn delete_topic(&mut self, topic: &str) -> Result<(), ClientError> {
        let request =
            DeleteTopicsRequest::default().with_topic_names(vec![name(topic)]).with_timeout_ms(self.patience_ms());
        let response: DeleteTopicsResponse = self.call(ApiKey::DeleteTopics, DELETE_TOPICS_VERSION, &request)?;
        response.responses.iter().try_for_each(|result| {
            ClientError::check(format!("topic {topic}"), result.error_code, result.error_message.as_ref())
        })
    }
}
