//! Topics and their configuration, in Kafka's names.

mod config;

use std::collections::{BTreeMap, BTreeSet};

use base::limits::{PARTITIONS_PER_TOPIC_MAX, TOPIC_NAME_BYTES_MAX};
use base::{NodeId, PartitionIndex, Timestamp, TopicId};
use serde::{Deserialize, Serialize};

use crate::command::Refused;

pub use config::{ConfigDef, ConfigKind, DEFS, LostPolicy, TimestampType, TopicConfig};

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Topic {
    pub id: TopicId,
    pub name: String,
    pub partitions: i32,
    /// What was set; every other key has its default.
    pub overrides: BTreeMap<String, String>,
    pub internal: bool,
    pub created: Timestamp,
    /// Per partition, who has a copy; the first is the preferred leader. Empty only while no node has registered.
    #[serde(default)]
    pub replicas: Vec<Vec<NodeId>>,
    /// Partitions whose copies are being moved, and where to.
    #[serde(default)]
    pub targets: BTreeMap<PartitionIndex, Vec<NodeId>>,
    /// Nodes that a move under way was to bring a copy to, before it was given another target.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub called_off: BTreeMap<PartitionIndex, BTreeSet<NodeId>>,
    /// Nodes that have no copy any more and may still have one on their disks: these may delete it, and are given none
    /// until they have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub leaving: BTreeMap<PartitionIndex, BTreeSet<NodeId>>,
}

impl Topic {
    /// The configuration with defaults filled in.
    #[must_use]
    pub fn config(&self) -> TopicConfig {
        TopicConfig::from_checked(&self.overrides)
    }

    /// Who has a copy of `partition`, the preferred leader first. Empty if there is no such partition, or no node has
    /// registered yet.
    #[must_use]
    pub fn replicas_of(&self, partition: PartitionIndex) -> &[NodeId] {
        usize::try_from(partition.0).ok().and_then(|at| self.replicas.get(at)).map_or(&[], Vec::as_slice)
    }

    /// Copies of each partition.
    #[must_use]
    pub fn factor(&self) -> usize {
        self.replicas.first().map_or(1, Vec::len)
    }

    #[must_use]
    pub fn has_partition(&self, partition: PartitionIndex) -> bool {
        (0..self.partitions).contains(&partition.0)
    }
}

/// Kafka's rule for topic names.
///
/// # Errors
/// [`Refused::InvalidTopicName`] with the rule that is broken.
pub fn check_name(name: &str) -> Result<(), Refused> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name == "." || name == ".." {
        "it may not be . or .."
    } else if name.len() > TOPIC_NAME_BYTES_MAX {
        "it is longer than 249 bytes"
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        "only ASCII letters, digits, . _ and - are allowed"
    } else {
        return Ok(());
    };
    Err(Refused::InvalidTopicName { name: name.to_owned(), reason })
}

/// # Errors
/// [`Refused::InvalidPartitions`] outside 1 to 10,000.
pub fn check_partitions(partitions: i32) -> Result<(), Refused> {
    let reason = if partitions < 1 {
        "a topic has at least one"
    } else if partitions > PARTITIONS_PER_TOPIC_MAX {
        "a topic has at most 10000"
    } else {
        return Ok(());
    };
    Err(Refused::InvalidPartitions { partitions, reason })
}
