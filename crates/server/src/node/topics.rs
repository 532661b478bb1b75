//! Topics: created through control, carried out by each node that has a replica.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{NodeId, PartitionIndex, ProducerId, TopicId, TopicPartition};
use control::topic::{LostPolicy, TimestampType};
use control::{Applied, Command, Refused, State, Topic, plan};
use log::PartitionConfig;
use log::groups::GroupError;
use uuid::Uuid;

use super::hosting::Hosting;
use super::{Node, NodeError, time};
use crate::config::Config;
use crate::shell::meta::MetaHandle;

/// Producer ids taken from control at a time.
const PRODUCER_IDS_PER_BLOCK: u32 = 1_000;
/// Longest wait of a new topic for the cluster to be formed.
const FORMED_WAIT: Duration = Duration::from_secs(5);
/// Longest wait for this node to do what the metadata says.
const CARRIED_OUT_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for a new partition's leader.
const LEADERS_WAIT: Duration = Duration::from_secs(5);
const LEADERS_POLL: Duration = Duration::from_millis(5);

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

/// A topic to be made.
pub struct NewTopic {
    pub name: String,
    pub partitions: i32,
    pub copies: Copies,
    pub overrides: BTreeMap<String, String>,
    /// Made by Seawall for itself.
    pub internal: bool,
}

/// Where the copies of each partition are to be.
pub enum Copies {
    /// Three of each, one where there are fewer than three nodes.
    Default,
    /// So many of each.
    Factor(usize),
    /// For each partition its nodes, the preferred leader first.
    Given(Vec<Vec<NodeId>>),
}

impl NewTopic {
    pub fn plain(name: &str, partitions: i32, overrides: BTreeMap<String, String>) -> Self {
        Self { name: name.to_owned(), partitions, copies: Copies::Default, overrides, internal: false }
    }
}

impl Copies {
    /// For a new topic.
    ///
    /// # Errors
    /// What breaks a rule of placement.
    pub fn place(self, state: &State, partitions: i32) -> Result<Vec<Vec<NodeId>>, Refused> {
        let count = usize::try_from(partitions).unwrap_or(0);
        let candidates = state.candidates();
        let factor = match self {
            Self::Given(replicas) => {
                plan::check(&replicas, count, |node| state.is_member(node))?;
                return Ok(replicas);
            }
            Self::Factor(factor) => factor,
            Self::Default => plan::default_factor(candidates.len()),
        };
        // A node alone that has not made itself known yet keeps everything.
        if candidates.is_empty() && factor == 1 {
            return Ok(Vec::new());
        }
        Ok(plan::place(&candidates, &[], count, factor)?)
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
        let partitions = match self.spool() {
            Some(spool) => spool.partitions(name).await,
            None => None,
        };
        let partitions = partitions.unwrap_or(self.config.log.default_partitions);
        match self.create_topic(name, partitions, BTreeMap::new()).await {
            // Somebody else was faster; their topic may still be opening.
            Err(NodeError::Refused(Refused::TopicExists { .. })) => {
                let topic = self.known_topic(name)?;
                self.await_topic(&topic).await?;
                Ok(topic)
            }
            other => other,
        }
    }

    /// Creates a topic with the default number of copies.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        overrides: BTreeMap<String, String>,
    ) -> Result<Arc<Topic>, NodeError> {
        self.create_topic_with(NewTopic::plain(name, partitions, overrides)).await
    }

    /// Creates a topic; answers when this node's replicas are open and every partition has a leader, or after
    /// [`LEADERS_WAIT`]: whoever writes then is told to ask again.
    pub async fn create_topic_with(&self, new: NewTopic) -> Result<Arc<Topic>, NodeError> {
        let topic = create_topic(&self.meta, &self.hosting, new).await?;
        self.await_leaders(&topic).await;
        Ok(topic)
    }

    /// Raises the number of partitions. `replicas`: of the new ones; `None` where they fit best.
    pub async fn add_partitions(
        &self,
        name: &str,
        total: i32,
        replicas: Option<Vec<Vec<NodeId>>>,
    ) -> Result<(), NodeError> {
        let topic = self.known_topic(name)?;
        let replicas = match replicas {
            Some(replicas) => replicas,
            None => self.replicas_for_more(&topic, total)?,
        };
        self.propose(Command::AddPartitions { id: topic.id, total, replicas }).await?;
        let topic = self.known_topic(name)?;
        self.await_topic(&topic).await
    }

    /// Replaces a topic's overrides; the open partitions follow.
    pub async fn set_topic_config(&self, name: &str, config: BTreeMap<String, String>) -> Result<(), NodeError> {
        let topic = self.known_topic(name)?;
        self.propose(Command::SetTopicConfig { id: topic.id, config }).await?;
        self.carried_out().await
    }

    /// Deletes a topic and then its data. Other nodes delete theirs as they hear of it.
    pub async fn delete_topic(&self, name: &str) -> Result<(), NodeError> {
        let topic = self.known_topic(name)?;
        self.propose(Command::DeleteTopic { id: topic.id }).await?;
        self.carried_out().await?;
        // A topic that gets this name later starts without what groups had read of this one. Where another node
        // coordinates the groups, it sees the deletion itself.
        let forget = log::groups::Request::ForgetTopic { topic: name.to_owned() };
        match self.group(forget).await {
            log::groups::Response::ForgetTopic(Err(GroupError::NotCoordinator)) => {}
            log::groups::Response::ForgetTopic(Err(error)) => {
                tracing::warn!(topic = name, %error, "consumer groups still have offsets of a deleted topic");
            }
            _ => {}
        }
        Ok(())
    }

    /// Places for the partitions that a topic gets when it has `total`.
    fn replicas_for_more(&self, topic: &Topic, total: i32) -> Result<Vec<Vec<NodeId>>, NodeError> {
        let state = self.state();
        if topic.replicas.is_empty() {
            return Ok(Vec::new());
        }
        let more = usize::try_from(total.saturating_sub(topic.partitions)).unwrap_or(0);
        let placed = plan::place(&state.candidates(), &topic.replicas, more, topic.factor());
        Ok(placed.map_err(Refused::from)?)
    }

    /// Waits until what the metadata says is so on this node.
    async fn carried_out(&self) -> Result<(), NodeError> {
        carried_out(&self.meta, &self.hosting).await
    }

    /// This node's replicas are open, and every partition has a leader that this node knows of.
    async fn await_topic(&self, topic: &Topic) -> Result<(), NodeError> {
        self.carried_out().await?;
        check_open(&self.hosting, topic)?;
        self.await_leaders(topic).await;
        Ok(())
    }

    async fn await_leaders(&self, topic: &Topic) {
        let all_led = async {
            while !partitions(topic).all(|partition| self.leader_of(partition).is_some()) {
                tokio::time::sleep(LEADERS_POLL).await;
            }
        };
        if tokio::time::timeout(LEADERS_WAIT, all_led).await.is_err() {
            tracing::warn!(topic = %topic.name, "not every partition has a leader yet");
        }
    }

    fn known_topic(&self, name: &str) -> Result<Arc<Topic>, NodeError> {
        self.state().topic_named(name).cloned().ok_or_else(|| NodeError::UnknownTopic(name.into()))
    }
}

/// Creates a topic through control; answers when this node's replicas of it are open.
pub async fn create_topic(meta: &MetaHandle, hosting: &Hosting, new: NewTopic) -> Result<Arc<Topic>, NodeError> {
    let NewTopic { name, partitions, copies, overrides, internal } = new;
    control::topic::check_partitions(partitions)?;
    let state = formed(meta).await?;
    if state.topic_named(&name).is_some() {
        return Err(Refused::TopicExists { name }.into());
    }
    let replicas = copies.place(&state, partitions)?;
    let (id, created) = (TopicId(Uuid::new_v4()), time::wall());
    let unknown = NodeError::UnknownTopic(name.clone());
    meta.propose(Command::CreateTopic { id, name, partitions, config: overrides, internal, created, replicas }).await?;
    let topic = meta.state().topics.get(&id).cloned().ok_or(unknown)?;
    carried_out(meta, hosting).await?;
    check_open(hosting, &topic)?;
    Ok(topic)
}

/// The state once the cluster has been formed: before, nobody knows where copies could be.
async fn formed(meta: &MetaHandle) -> Result<Arc<State>, NodeError> {
    let mut states = meta.watch();
    let is_formed = |state: &Arc<State>| state.members().next().is_some() || state.cluster.is_some();
    let formed = tokio::time::timeout(FORMED_WAIT, states.wait_for(is_formed)).await;
    match formed {
        Ok(Ok(state)) => Ok(Arc::clone(&state)),
        _ => {
            Err(NodeError::NoLeader("the cluster has not been formed yet: ask again when most of its nodes run".into()))
        }
    }
}

async fn carried_out(meta: &MetaHandle, hosting: &Hosting) -> Result<(), NodeError> {
    if hosting.reached(meta.state().applied, CARRIED_OUT_WAIT).await {
        return Ok(());
    }
    let waited_ms = u64::try_from(CARRIED_OUT_WAIT.as_millis()).unwrap_or(u64::MAX);
    Err(NodeError::Timeout { what: "the change of the partitions on this node", waited_ms })
}

fn check_open(hosting: &Hosting, topic: &Topic) -> Result<(), NodeError> {
    match partitions(topic).find_map(|partition| Some((partition, hosting.failure(partition)?))) {
        Some((partition, reason)) => Err(NodeError::Broken { partition: partition.to_string(), reason }),
        None => Ok(()),
    }
}

pub fn partitions(topic: &Topic) -> impl Iterator<Item = TopicPartition> + use<> {
    let id = topic.id;
    (0..topic.partitions).map(move |index| TopicPartition { topic: id, partition: PartitionIndex(index) })
}

/// A topic's own settings where it has them, the node's where it has not.
pub fn partition_config(topic: &Topic, config: &Config) -> PartitionConfig {
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
        lost_policy: match own.lost_policy {
            LostPolicy::Keep => log::LostPolicy::Keep,
            LostPolicy::Republish => log::LostPolicy::Republish,
            LostPolicy::Drop => log::LostPolicy::Drop,
        },
        index_step_bytes: node.index_step_bytes.0,
        ..PartitionConfig::default()
    }
}
