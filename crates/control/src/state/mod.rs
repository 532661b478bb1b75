//! The state and the one door through which it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{ClusterId, DiskId, LogIndex, NodeId, Timestamp, TopicId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::command::{Applied, Command, Refused};
use crate::node::{NODES_MAX, NodeMode, RegisteredNode};
use crate::refounding::Refounding;
use crate::table::{Table, TableId};
use crate::topic::{self, Topic, TopicConfig};

mod nodes;
pub use nodes::REMOVED_DISKS_MAX;

#[cfg(test)]
pub(crate) mod tests;

/// Tombstones kept after a topic's deletion, the newest first to stay. A node that was away longer than
/// this many deletions keeps the data aside instead of deleting it.
pub const TOMBSTONES_MAX: usize = 10_000;
/// Most producer ids in one block.
pub const PRODUCER_IDS_PER_BLOCK_MAX: u32 = 100_000;

/// The cluster. Cheap to clone: what is large is shared until it changes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct State {
    pub cluster: Option<ClusterId>,
    pub formed: Timestamp,
    /// Of the last applied command.
    pub applied: LogIndex,
    pub topics: BTreeMap<TopicId, Arc<Topic>>,
    pub tables: BTreeMap<TableId, Arc<Table>>,
    /// Topics whose data may be deleted, with the index of the command that said so.
    pub tombstones: BTreeMap<TopicId, LogIndex>,
    pub next_producer_id: i64,
    /// Those the cluster was formed with, registered or not.
    #[serde(default)]
    pub founders: BTreeSet<NodeId>,
    /// Those that the control group had at its very first entry; never changes. Empty in a cluster older than this: as
    /// `founders`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub first_voters: BTreeSet<NodeId>,
    #[serde(default)]
    pub nodes: BTreeMap<NodeId, Arc<RegisteredNode>>,
    /// Disks of nodes that were removed, with the index of the command that did it.
    #[serde(default)]
    pub removed: BTreeMap<DiskId, (NodeId, LogIndex)>,
    /// How often the control plane was formed anew from what was left, the last time last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refoundings: Vec<Refounding>,
    /// Topics by name; follows from `topics`.
    #[serde(skip)]
    names: BTreeMap<String, TopicId>,
}

impl State {
    /// Applies the command committed at `at`.
    ///
    /// # Errors
    /// A [`Refused`] command changed nothing but `applied`.
    ///
    /// # Panics
    /// If `at` is not after the last applied command: the caller applied one twice.
    pub fn apply(&mut self, at: LogIndex, command: &Command) -> Result<Applied, Refused> {
        assert!(at > self.applied, "command at {at} applied after {}", self.applied);
        self.applied = at;
        match command {
            Command::FormCluster { cluster, formed, founders } => self.form(*cluster, *formed, founders),
            Command::RegisterNode { id, disk, addresses, zone, version, at } => self.register(RegisteredNode {
                id: *id,
                disk: *disk,
                addresses: addresses.clone(),
                zone: zone.clone(),
                version: version.clone(),
                mode: NodeMode::Active,
                registered: *at,
                updated: *at,
            }),
            Command::ReplaceDisk { id, disk, at } => self.replace_disk(*id, *disk, *at),
            Command::SetNodeMode { id, mode } => self.set_node_mode(*id, *mode),
            Command::RemoveNode { id } => self.remove_node(at, *id),
            Command::CreateTopic { id, name, partitions, config, internal, created, replicas } => {
                self.create_topic(Topic {
                    id: *id,
                    name: name.clone(),
                    partitions: *partitions,
                    overrides: config.clone(),
                    internal: *internal,
                    created: *created,
                    replicas: replicas.clone(),
                    targets: BTreeMap::new(),
                    called_off: BTreeMap::new(),
                    leaving: BTreeMap::new(),
                })
            }
            Command::SetReplicas { id, partition, target, expected } => {
                self.set_replicas(*id, *partition, target, expected.as_deref())
            }
            Command::ReplicaDeleted { id, partition, node } => self.replica_deleted(*id, *partition, *node),
            Command::FinishReassignment { id, partition, replicas } => {
                self.finish_reassignment(*id, *partition, replicas)
            }
            Command::DeleteTopic { id } => self.delete_topic(at, *id),
            Command::AddPartitions { id, total, replicas } => self.add_partitions(*id, *total, replicas),
            Command::SetTopicConfig { id, config } => {
                TopicConfig::check(config)?;
                self.topic_mut(*id)?.overrides.clone_from(config);
                Ok(Applied::Done)
            }
            Command::CreateTable { .. } => self.create_table(command),
            Command::SetTableSchema { id, schema } => self.change_table(*id, |table| table.schema.clone_from(schema)),
            Command::SetTableSpec { id, spec } => self.change_table(*id, |table| table.spec.clone_from(spec)),
            Command::SetTableMode { id, mode } => self.change_table(*id, |table| table.mode = *mode),
            Command::DropTable { id } => {
                self.tables.remove(id).map(|_| Applied::Done).ok_or_else(|| Refused::UnknownTable(id.to_string()))
            }
            Command::PublishSegments { .. } => self.publish(command),
            Command::AllocateProducerIds { count } => self.allocate_producer_ids(*count),
            Command::AcknowledgeRefounding { id, at } => self.acknowledge_refounding(*id, *at),
        }
    }

    #[must_use]
    pub fn topic_named(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(name)?)
    }

    /// Fills in what follows from the rest, after reading a snapshot.
    pub(crate) fn index(&mut self) {
        self.names = self.topics.values().map(|topic| (topic.name.clone(), topic.id)).collect();
    }

    #[must_use]
    pub fn table_named(&self, name: &str) -> Option<&Arc<Table>> {
        self.tables.values().find(|table| table.name == name)
    }

    /// The tables that read `topic`.
    pub fn readers_of(&self, topic: TopicId) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values().filter(move |table| table.topic == topic)
    }

    fn form(&mut self, cluster: ClusterId, formed: Timestamp, founders: &[NodeId]) -> Result<Applied, Refused> {
        if let Some(before) = self.cluster {
            return Err(Refused::AlreadyFormed(before));
        }
        if founders.len() > NODES_MAX {
            return Err(Refused::TooManyNodes { max: NODES_MAX });
        }
        self.founders = founders.iter().copied().collect();
        self.first_voters.clone_from(&self.founders);
        self.cluster = Some(cluster);
        self.formed = formed;
        Ok(Applied::Done)
    }

    fn create_topic(&mut self, topic: Topic) -> Result<Applied, Refused> {
        topic::check_name(&topic.name)?;
        topic::check_partitions(topic.partitions)?;
        TopicConfig::check(&topic.overrides)?;
        self.check_replicas(&topic.replicas, topic.partitions)?;
        if self.topic_named(&topic.name).is_some() || self.topics.contains_key(&topic.id) {
            return Err(Refused::TopicExists { name: topic.name });
        }
        // Every node deletes the data of a topic with a tombstone.
        if self.tombstones.contains_key(&topic.id) {
            return Err(Refused::TopicDeleted(topic.id.to_string()));
        }
        let id = topic.id;
        self.names.insert(topic.name.clone(), id);
        self.topics.insert(id, Arc::new(topic));
        Ok(Applied::TopicCreated(id))
    }

    fn delete_topic(&mut self, at: LogIndex, id: TopicId) -> Result<Applied, Refused> {
        let topic = self.topics.get(&id).cloned().ok_or_else(|| Refused::UnknownTopic(id.to_string()))?;
        if topic.internal {
            return Err(Refused::InternalTopic(topic.name.clone()));
        }
        if let Some(table) = self.readers_of(id).next() {
            return Err(Refused::TopicInUse { topic: topic.name.clone(), table: table.name.clone() });
        }
        self.names.remove(&topic.name);
        self.topics.remove(&id);
        self.tombstones.insert(id, at);
        if self.tombstones.len() > TOMBSTONES_MAX
            && let Some(oldest) = self.tombstones.iter().min_by_key(|(_, at)| **at).map(|(id, _)| *id)
        {
            self.tombstones.remove(&oldest);
        }
        Ok(Applied::Done)
    }

    fn add_partitions(&mut self, id: TopicId, total: i32, replicas: &[Vec<NodeId>]) -> Result<Applied, Refused> {
        topic::check_partitions(total)?;
        let topic = self.topics.get(&id).ok_or_else(|| Refused::UnknownTopic(id.to_string()))?;
        if topic.internal {
            return Err(Refused::InternalTopic(topic.name.clone()));
        }
        if total <= topic.partitions {
            let reason = "the topic has as many or more, and their number can only grow";
            return Err(Refused::InvalidPartitions { partitions: total, reason });
        }
        self.check_replicas(replicas, total - topic.partitions)?;
        let topic = self.topic_mut(id)?;
        topic.replicas.extend_from_slice(replicas);
        topic.partitions = total;
        Ok(Applied::Done)
    }

    fn create_table(&mut self, command: &Command) -> Result<Applied, Refused> {
        let Command::CreateTable { id, name, topic, spec, schema, begin, created } = command else {
            unreachable!("called with another command")
        };
        check_table_name(name)?;
        if !self.topics.contains_key(topic) {
            return Err(Refused::UnknownTopic(topic.to_string()));
        }
        if self.table_named(name).is_some() || self.tables.contains_key(id) {
            return Err(Refused::TableExists { name: name.clone() });
        }
        let table = Table {
            id: *id,
            name: name.clone(),
            topic: *topic,
            spec: spec.clone(),
            schema: schema.clone(),
            mode: crate::TableMode::Running,
            created: *created,
            published: begin.clone(),
            segments: BTreeMap::new(),
            terms: BTreeMap::new(),
        };
        self.tables.insert(*id, Arc::new(table));
        Ok(Applied::TableCreated(*id))
    }

    fn publish(&mut self, command: &Command) -> Result<Applied, Refused> {
        let Command::PublishSegments { table, partition, from, to, term, segments, published } = command else {
            unreachable!("called with another command")
        };
        let shared = self.tables.get_mut(table).ok_or_else(|| Refused::UnknownTable(table.to_string()))?;
        if from >= to {
            return Err(Refused::EmptyRange { from: *from, to: *to });
        }
        if let Some(newer) = shared.terms.get(partition).filter(|newer| *newer > term) {
            let (table, partition) = (shared.name.clone(), *partition);
            return Err(Refused::Fenced { table, partition, term: *term, newer: *newer });
        }
        let before = shared.published(*partition);
        if before != *from {
            return Err(Refused::PublishGap {
                table: shared.name.clone(),
                partition: *partition,
                published: before,
                from: *from,
            });
        }
        Arc::make_mut(shared).publish(*partition, (*from, *to), *term, segments, *published)?;
        Ok(Applied::Published { to: *to })
    }

    fn allocate_producer_ids(&mut self, count: u32) -> Result<Applied, Refused> {
        if !(1..=PRODUCER_IDS_PER_BLOCK_MAX).contains(&count) {
            return Err(Refused::InvalidCount(count));
        }
        let first = self.next_producer_id;
        self.next_producer_id = first.saturating_add(i64::from(count));
        Ok(Applied::ProducerIds { first, count })
    }

    fn acknowledge_refounding(&mut self, id: Uuid, at: Timestamp) -> Result<Applied, Refused> {
        let known = self.refoundings.iter_mut().find(|refounding| refounding.id == id);
        known.ok_or(Refused::UnknownRefounding(id))?.acknowledged.get_or_insert(at);
        Ok(Applied::Done)
    }

    fn change_table(&mut self, id: TableId, change: impl FnOnce(&mut Table)) -> Result<Applied, Refused> {
        let table = self.tables.get_mut(&id).ok_or_else(|| Refused::UnknownTable(id.to_string()))?;
        change(Arc::make_mut(table));
        Ok(Applied::Done)
    }

    fn topic_mut(&mut self, id: TopicId) -> Result<&mut Topic, Refused> {
        self.topics.get_mut(&id).map(Arc::make_mut).ok_or_else(|| Refused::UnknownTopic(id.to_string()))
    }
}

/// Longest table name in bytes. It becomes part of a path in deep storage.
const TABLE_NAME_BYTES_MAX: usize = 200;

fn check_table_name(name: &str) -> Result<(), Refused> {
    let reason = if name.trim().is_empty() {
        "it is empty"
    } else if name.len() > TABLE_NAME_BYTES_MAX {
        "it is longer than 200 bytes"
    } else if name.contains('/') || name.contains('\\') || name.chars().any(char::is_control) {
        "it may not hold slashes or control characters"
    } else if name.starts_with('.') {
        "it may not begin with a dot"
    } else {
        return Ok(());
    };
    Err(Refused::InvalidTableName { name: name.to_owned(), reason })
}
