//! What can be asked of the cluster, and the two kinds of answer.

use std::collections::BTreeMap;

use base::{ClusterId, DiskId, NodeId, Offset, PartitionIndex, Term, Timestamp, TopicId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::node::{NodeAddresses, NodeMode};
use crate::plan::PlaceError;
use crate::segment::{Interval, SegmentId};
use crate::table::{TableId, TableMode};

/// A change of the cluster's state. Everything it needs is in it: ids and times are chosen by who proposes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// The first command of a cluster's life. Refused when the cluster has been formed.
    FormCluster {
        cluster: ClusterId,
        formed: Timestamp,
        /// The nodes it begins with. Replicas may be placed on them before they have registered.
        #[serde(default)]
        founders: Vec<NodeId>,
    },
    /// A node is there, at these addresses. Sent by the node itself when it starts and something differs from what is
    /// known of it. Refused under an id that has another disk, and for a disk that another id has.
    RegisterNode {
        id: NodeId,
        disk: DiskId,
        addresses: NodeAddresses,
        zone: String,
        version: String,
        at: Timestamp,
    },
    /// An operator's word that the node's old disk is gone and `disk` takes its place, empty.
    ReplaceDisk {
        id: NodeId,
        disk: DiskId,
        at: Timestamp,
    },
    /// Takes new replicas, or gets nothing new and is emptied.
    SetNodeMode {
        id: NodeId,
        mode: NodeMode,
    },
    /// Takes a node out for good: its disk cannot register again. Refused while a partition has a replica on it.
    RemoveNode {
        id: NodeId,
    },
    CreateTopic {
        id: TopicId,
        name: String,
        partitions: i32,
        /// As the client gave them; keys absent here have their defaults.
        config: BTreeMap<String, String>,
        /// Made by Seawall for itself; clients may read it, not write or delete it.
        internal: bool,
        created: Timestamp,
        /// Per partition, who has a copy; the first is the preferred leader. Empty only while no node has registered.
        #[serde(default)]
        replicas: Vec<Vec<NodeId>>,
    },
    /// The tombstone that allows a topic's data to be deleted. Refused while a table reads the topic.
    DeleteTopic {
        id: TopicId,
    },
    /// Raises the number of partitions; it can never be lowered.
    AddPartitions {
        id: TopicId,
        total: i32,
        /// Of the new partitions.
        #[serde(default)]
        replicas: Vec<Vec<NodeId>>,
    },
    /// Where the copies of a partition shall be; whoever leads it moves them there and then sends
    /// [`Command::FinishReassignment`]. `target` of where they are now: a move under way is called off.
    SetReplicas {
        id: TopicId,
        partition: PartitionIndex,
        target: Vec<NodeId>,
        /// What whoever planned this saw: refused if the copies are elsewhere by now, or on their way. So a plan of an
        /// active master that is one no longer does nothing. `None`: whatever is there.
        #[serde(default)]
        expected: Option<Vec<NodeId>>,
    },
    /// A node has deleted the copy of a partition that was moved away from it: it may be given one again.
    ReplicaDeleted {
        id: TopicId,
        partition: PartitionIndex,
        node: NodeId,
    },
    /// The copies of a partition are where its target says. Refused if the target is another by now.
    FinishReassignment {
        id: TopicId,
        partition: PartitionIndex,
        replicas: Vec<NodeId>,
    },
    /// Replaces the topic's whole set of overrides.
    SetTopicConfig {
        id: TopicId,
        config: BTreeMap<String, String>,
    },
    CreateTable {
        id: TableId,
        name: String,
        topic: TopicId,
        /// JSON text, opaque here.
        spec: String,
        /// JSON text of the columns, opaque here.
        schema: String,
        /// Where reading begins, for partitions that do not begin at zero.
        begin: BTreeMap<PartitionIndex, Offset>,
        created: Timestamp,
    },
    /// The columns as they are known now (discovered ones widen).
    SetTableSchema {
        id: TableId,
        schema: String,
    },
    /// A new spec for a table; its published offsets and segments stay.
    SetTableSpec {
        id: TableId,
        spec: String,
    },
    SetTableMode {
        id: TableId,
        mode: TableMode,
    },
    /// Drops the table and its segments. The topic stays.
    DropTable {
        id: TableId,
    },
    /// Rows `[from, to)` of a partition are in `segments` from now on. Refused unless `from` is the
    /// partition's published offset. `segments` may be empty: every row of the range was refused or late.
    PublishSegments {
        table: TableId,
        partition: PartitionIndex,
        from: Offset,
        to: Offset,
        /// Of the leader that sealed them. Refused if a leader of a later term has published.
        term: Term,
        segments: Vec<NewSegment>,
        published: Timestamp,
    },
    /// Hands out a block of producer ids.
    AllocateProducerIds {
        count: u32,
    },
    /// Somebody has seen what a refounding cost: it is spoken of no more.
    AcknowledgeRefounding {
        id: Uuid,
        at: Timestamp,
    },
}

/// A segment as its sealer describes it. Version and shard are given when it is published.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewSegment {
    pub id: SegmentId,
    pub interval: Interval,
    pub rows: u64,
    /// Of the file in deep storage.
    pub size_bytes: u64,
    /// CRC-32C of the file in deep storage.
    pub checksum: u32,
    /// Key within deep storage.
    pub path: String,
}

/// What an applied command brought about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    Done,
    TopicCreated(TopicId),
    TableCreated(TableId),
    /// First id of the block.
    ProducerIds {
        first: i64,
        count: u32,
    },
    /// The table's published offset of that partition.
    Published {
        to: Offset,
    },
}

/// Why a command changed nothing. Every variant is for the proposer: propose something else.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    #[error("the cluster has been formed before: it is {0}")]
    AlreadyFormed(ClusterId),
    #[error("topic {name} exists")]
    TopicExists { name: String },
    #[error("topic {0} does not exist")]
    UnknownTopic(String),
    /// The same command came a second time, late.
    #[error("topic {0} was deleted: a new one needs an id of its own")]
    TopicDeleted(String),
    #[error("topic name {name:?} is invalid: {reason}")]
    InvalidTopicName { name: String, reason: &'static str },
    #[error("{partitions} partitions are refused: {reason}")]
    InvalidPartitions { partitions: i32, reason: &'static str },
    #[error("topic config {key}: {reason}")]
    InvalidConfig { key: String, reason: String },
    #[error("topic {topic} is read by table {table}: drop the table first")]
    TopicInUse { topic: String, table: String },
    #[error("topic {0} is internal and cannot be changed by a client")]
    InternalTopic(String),
    #[error("table {name} exists")]
    TableExists { name: String },
    #[error("table name {name:?} is invalid: {reason}")]
    InvalidTableName { name: String, reason: &'static str },
    #[error("table {0} does not exist")]
    UnknownTable(String),
    #[error(
        "partition {partition} of table {table} is published up to offset {published}, not {from}: seal from there"
    )]
    PublishGap { table: String, partition: PartitionIndex, published: Offset, from: Offset },
    #[error(
        "partition {partition} of table {table} has been published by a leader of term {newer}; yours is {term}: step down"
    )]
    Fenced { table: String, partition: PartitionIndex, term: Term, newer: Term },
    #[error("offsets [{from}, {to}) are not a range")]
    EmptyRange { from: Offset, to: Offset },
    #[error("segment {0} has been published before")]
    SegmentExists(SegmentId),
    #[error("a block of {0} producer ids is refused: ask for 1 to 100000")]
    InvalidCount(u32),
    #[error("the cluster was never formed anew as {0}: `seawall cluster status` tells what it was")]
    UnknownRefounding(Uuid),
    #[error("node {node} cannot register: {reason}")]
    InvalidNode { node: NodeId, reason: &'static str },
    #[error(
        "node {node} has disk {known}, and this one is {found}: start it with its old data folder; if that is gone, \
         start this one under a number that was never used, with cluster.join, and then tell the cluster that the old \
         one will not come back: seawall cluster remove {node}"
    )]
    OtherDisk { node: NodeId, known: DiskId, found: DiskId },
    #[error("disk {disk} is that of node {node}: a data folder cannot be copied; start the new node with an empty one")]
    DiskInUse { disk: DiskId, node: NodeId },
    #[error("disk {disk} was that of node {node}, which was removed from the cluster: start with an empty data folder")]
    RemovedDisk { disk: DiskId, node: NodeId },
    #[error(
        "node {0} was removed from the cluster, and a number is never used twice: set another node.id, and start with an \
         empty data folder"
    )]
    RemovedNode(NodeId),
    #[error("node {0} is not a member of the cluster")]
    UnknownNode(NodeId),
    #[error("the cluster has as many nodes as it may have, {max}: remove one")]
    TooManyNodes { max: usize },
    #[error("node {node} has a replica of partition {partition} of topic {topic}: drain it first")]
    NodeInUse { node: NodeId, topic: String, partition: PartitionIndex },
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("topic {topic} has no partition {partition}")]
    UnknownPartition { topic: String, partition: PartitionIndex },
    #[error("partition {partition} of topic {topic} is not on its way to those replicas")]
    OtherTarget { topic: String, partition: PartitionIndex },
    #[error("the copies of partition {partition} of topic {topic} are elsewhere by now, or being moved: look again")]
    OtherReplicas { topic: String, partition: PartitionIndex },
    #[error(
        "node {node} still deletes the copy of partition {partition} of topic {topic} that it had before: ask again when \
         it has, or name another node"
    )]
    StillDeleting { topic: String, partition: PartitionIndex, node: NodeId },
}
