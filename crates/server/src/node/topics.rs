//! Topics: created through control, opened in the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{NodeId, PartitionIndex, ProducerId, TopicId, TopicPartition};
use control::topic::TimestampType;
use control::{Applied, Command, Refused, State, Topic, plan};
use log::PartitionConfig;
use uuid::Uuid;

use super::{Node, NodeError, time};
use crate::config::Config;
use crate::shell::logs::{LogsError, LogsHandle};
use crate::shell::meta::MetaHandle;

/// Producer ids taken from control at a time.
const PRODUCER_IDS_PER_BLOCK: u32 = 1_000;

/// A block of producer ids, handed out one by one.
#[derive(Default)]
pub struct ProducerIds {
    next: i64,
    end: i64,
}

impl ProducerIds {
    pub async fn next(&mut self, meta: &MetaHandle) -> Result<ProducerId, NodeError> {
        if self.next == self.end {
            match meta.propose(Command::AllocateProducerIds { count: PRODUCER_IDS_PER_BLOCK }).await? {
                Applied::ProducerIds { first, count } => {
                    self.next = first;
                    self.end = first.saturating_add(i64::from(count));
                }
                other => {
                    return Err(NodeError::Internal(format!("a block of producer ids was answered with {other:?}")));
                }
            }
        }
        let id = self.next;
        self.next += 1;
        Ok(ProducerId(id))
    }
}

impl Node {
    /// The topic, created with defaults if it is absent and `log.auto_create_topics` is on.
    pub async fn ensure_topic(&self, name: &str) -> Result<Arc<Topic>, NodeError> {
        if let Some(topic) = self.state().topic_named(name) {
            return Ok(Arc::clone(topic));
        }
        if !self.config.log.auto_create_topics {
            return Err(NodeError::UnknownTopic(name.into()));
        }
        self.create_or_find(name).await
    }

    /// A table's topic is made whether or not clients may make topics by asking for them.
    pub(super) async fn topic_for_table(&self, name: &str) -> Result<Arc<Topic>, NodeError> {
        match self.state().topic_named(name) {
            Some(topic) => Ok(Arc::clone(topic)),
            None => self.create_or_find(name).await,
        }
    }

    async fn create_or_find(&self, name: &str) -> Result<Arc<Topic>, NodeError> {
        match self.create_topic(name, self.config.log.default_partitions, BTreeMap::new()).await {
            // Somebody else was faster; their topic may still be opening.
            Err(NodeError::Refused(Refused::TopicExists { .. })) => {
                let topic = self.state().topic_named(name).cloned();
                let topic = topic.ok_or_else(|| NodeError::UnknownTopic(name.into()))?;
                open_topic(&self.logs, &topic, &self.config).await?;
                Ok(topic)
            }
            other => other,
        }
    }

    /// Creates a topic and opens its partitions.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        config: BTreeMap<String, String>,
    ) -> Result<Arc<Topic>, NodeError> {
        self.create_topic_as(name, partitions, config, false).await
    }

    async fn create_topic_as(
        &self,
        name: &str,
        partitions: i32,
        config: BTreeMap<String, String>,
        internal: bool,
    ) -> Result<Arc<Topic>, NodeError> {
        create_topic(&self.meta, &self.logs, &self.config, name, partitions, config, internal).await
    }

    /// Raises the number of partitions and opens the new ones.
    pub async fn add_partitions(&self, name: &str, total: i32) -> Result<(), NodeError> {
        let topic = self.known_topic(name)?;
        let replicas = self.replicas_for_more(&topic, total)?;
        self.propose(Command::AddPartitions { id: topic.id, total, replicas }).await?;
        let topic = self.known_topic(name)?;
        open_topic(&self.logs, &topic, &self.config).await
    }

    /// Replaces a topic's overrides; the open partitions follow at once.
    pub async fn set_topic_config(&self, name: &str, config: BTreeMap<String, String>) -> Result<(), NodeError> {
        let topic = self.known_topic(name)?;
        self.propose(Command::SetTopicConfig { id: topic.id, config }).await?;
        let topic = self.known_topic(name)?;
        let config = partition_config(&topic, &self.config);
        partitions(&topic).for_each(|partition| self.logs.configure(partition, config.clone()));
        Ok(())
    }

    /// Deletes a topic and then its data.
    pub async fn delete_topic(&self, name: &str) -> Result<(), NodeError> {
        let topic = self.known_topic(name)?;
        self.propose(Command::DeleteTopic { id: topic.id }).await?;
        for partition in partitions(&topic) {
            match self.logs.delete(partition).await {
                Ok(()) | Err(LogsError::Unknown(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // A topic that gets this name later starts without what groups had read of this one.
        let forget = log::groups::Request::ForgetTopic { topic: name.to_owned() };
        if let log::groups::Response::ForgetTopic(Err(error)) = self.group(forget).await {
            tracing::warn!(topic = name, %error, "consumer groups still have offsets of a deleted topic");
        }
        Ok(())
    }

    /// Places for the partitions that a topic gets when it has `total`.
    fn replicas_for_more(&self, topic: &Topic, total: i32) -> Result<Vec<Vec<NodeId>>, NodeError> {
        let state = self.state();
        if state.nodes.is_empty() {
            return Ok(Vec::new());
        }
        let more = usize::try_from(total.saturating_sub(topic.partitions)).unwrap_or(0);
        let placed = plan::place(&state.candidates(), &topic.replicas, more, topic.factor());
        Ok(placed.map_err(Refused::from)?)
    }

    fn known_topic(&self, name: &str) -> Result<Arc<Topic>, NodeError> {
        self.state().topic_named(name).cloned().ok_or_else(|| NodeError::UnknownTopic(name.into()))
    }
}

/// Creates a topic through control and opens its partitions.
pub async fn create_topic(
    meta: &MetaHandle,
    logs: &LogsHandle,
    config: &Config,
    name: &str,
    partitions: i32,
    overrides: BTreeMap<String, String>,
    internal: bool,
) -> Result<Arc<Topic>, NodeError> {
    let id = TopicId(Uuid::new_v4());
    control::topic::check_partitions(partitions)?;
    let replicas = replicas_for_new(&meta.state(), partitions)?;
    let (name_given, created) = (name.to_owned(), time::wall());
    let command =
        Command::CreateTopic { id, name: name_given, partitions, config: overrides, internal, created, replicas };
    meta.propose(command).await?;
    let topic = meta.state().topics.get(&id).cloned().ok_or_else(|| NodeError::UnknownTopic(name.into()))?;
    open_topic(logs, &topic, config).await?;
    Ok(topic)
}

/// Places for the partitions of a new topic that names none.
fn replicas_for_new(state: &State, partitions: i32) -> Result<Vec<Vec<NodeId>>, NodeError> {
    if state.nodes.is_empty() {
        return Ok(Vec::new());
    }
    let candidates = state.candidates();
    let factor = plan::default_factor(candidates.len());
    Ok(plan::place(&candidates, &[], usize::try_from(partitions).unwrap_or(0), factor).map_err(Refused::from)?)
}

/// Opens every partition of a topic that is not open yet.
pub async fn open_topic(logs: &LogsHandle, topic: &Topic, config: &Config) -> Result<(), NodeError> {
    let partition_config = partition_config(topic, config);
    for partition in partitions(topic) {
        logs.open(partition, partition_config.clone()).await?;
    }
    Ok(())
}

pub fn partitions(topic: &Topic) -> impl Iterator<Item = TopicPartition> + use<> {
    let id = topic.id;
    (0..topic.partitions).map(move |index| TopicPartition { topic: id, partition: PartitionIndex(index) })
}

/// A topic's own settings where it has them, the node's where it has not.
fn partition_config(topic: &Topic, config: &Config) -> PartitionConfig {
    let own = topic.config();
    let has = |key: &str| topic.overrides.contains_key(key);
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let node = &config.log;
    PartitionConfig {
        retention_ms: if has("retention.ms") { own.retention_ms } else { node.retention.map(ms) },
        retention_bytes: if has("retention.bytes") {
            own.retention_bytes
        } else {
            node.retention_bytes.map(|size| size.0)
        },
        file_bytes_max: if has("segment.bytes") { own.file_bytes_max } else { node.file_bytes.0 },
        file_age_ms_max: if has("segment.ms") { own.file_age_ms_max } else { ms(node.file_age) },
        batch_bytes_max: if has("max.message.bytes") {
            own.batch_bytes_max
        } else {
            usize::try_from(node.batch_bytes_max.0).unwrap_or(own.batch_bytes_max)
        },
        timestamp_type: match own.timestamp_type {
            TimestampType::CreateTime => log::TimestampType::CreateTime,
            TimestampType::LogAppendTime => log::TimestampType::LogAppendTime,
        },
        index_step_bytes: node.index_step_bytes.0,
        ..PartitionConfig::default()
    }
}
