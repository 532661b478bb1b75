//! What can be asked of the cluster, and the two kinds of answer.

use std::collections::BTreeMap;

use base::{ClusterId, Offset, PartitionIndex, Term, Timestamp, TopicId};
use serde::{Deserialize, Serialize};

use crate::segment::{Interval, SegmentId};
use crate::table::{TableId, TableMode};

/// A change of the cluster's state. Everything it needs is in it: ids and times are chosen by who proposes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// The first command of a cluster's life. Refused when the cluster has been formed.
    FormCluster {
        cluster: ClusterId,
        formed: Timestamp,
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
    },
    /// The tombstone that allows a topic's data to be deleted. Refused while a table reads the topic.
    DeleteTopic {
        id: TopicId,
    },
    /// Raises the number of partitions; it can never be lowered.
    AddPartitions {
        id: TopicId,
        total: i32,
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
        /// Of the leader that sealed them.
        term: Term,
        segments: Vec<NewSegment>,
        published: Timestamp,
    },
    /// Hands out a block of producer ids.
    AllocateProducerIds {
        count: u32,
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
    #[error("offsets [{from}, {to}) are not a range")]
    EmptyRange { from: Offset, to: Offset },
    #[error("segment {0} has been published before")]
    SegmentExists(SegmentId),
    #[error("a block of {0} producer ids is refused: ask for 1 to 100000")]
    InvalidCount(u32),
}
