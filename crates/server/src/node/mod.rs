//! One node: topics, tables, groups and queries composed over the shell's threads.
//!
//! ```text
//! edges --> Node --+-- shell::meta   group 0: commands in, Arc<State> out
//!                  +-- shell::logs   partitions: append, flush, acks
//!                  +-- groups        consumer groups over an internal topic
//!                  +-- tables        ingest -> live rows -> seal -> deep storage -> publish -> load
//!                  +-- query         SQL over the tables' snapshots
//! ```

pub mod error;
pub mod findings;
pub mod groups;
pub mod tables;
pub mod time;

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Offset, ProducerEpoch, ProducerId, Tick, TopicPartition};
use bytes::Bytes;
use control::{Applied, Command, State, Topic};

use crate::config::Config;

pub use error::NodeError;
pub use findings::Finding;

/// When a producer is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acks {
    /// Not at all.
    None,
    /// When the leader has written it.
    Leader,
    /// When a majority has it durably.
    All,
}

/// A node that serves. Shared by every edge as `Arc<Node>`.
pub struct Node {
    config: Arc<Config>,
}

impl Node {
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The metadata as of the last applied command. Cheap.
    pub fn state(&self) -> Arc<State> {
        unimplemented!()
    }

    /// Proposes to group 0; answers when the command has been committed and applied here.
    pub async fn propose(&self, _command: Command) -> Result<Applied, NodeError> {
        unimplemented!()
    }

    /// Appends record batches to a partition; answers as `acks` says. `deadline` is on [`time::now`]'s clock.
    pub async fn append(
        &self,
        _partition: TopicPartition,
        _batches: Bytes,
        _acks: Acks,
        _deadline: Tick,
    ) -> Result<log::Appended, NodeError> {
        unimplemented!()
    }

    /// Reads beside the log's thread. `None`: no such partition on this node.
    pub fn reader(&self, _partition: TopicPartition) -> Option<log::Reader> {
        unimplemented!()
    }

    /// Changes when the partition's committed offset does: what a waiting fetch waits on.
    pub fn committed_signal(&self, _partition: TopicPartition) -> Option<tokio::sync::watch::Receiver<Offset>> {
        unimplemented!()
    }

    /// The topic, created with defaults if it is absent and `log.auto_create_topics` is on.
    pub async fn ensure_topic(&self, _name: &str) -> Result<Arc<Topic>, NodeError> {
        unimplemented!()
    }

    /// Creates a topic and opens its partitions.
    pub async fn create_topic(
        &self,
        _name: &str,
        _partitions: i32,
        _config: BTreeMap<String, String>,
    ) -> Result<Arc<Topic>, NodeError> {
        unimplemented!()
    }

    /// Deletes a topic and then its data.
    pub async fn delete_topic(&self, _name: &str) -> Result<(), NodeError> {
        unimplemented!()
    }

    /// DeleteRecords: forgets everything below `before`; answers the new start.
    pub async fn delete_records(&self, _partition: TopicPartition, _before: Offset) -> Result<Offset, NodeError> {
        unimplemented!()
    }

    /// A producer id for an idempotent producer, with epoch zero.
    pub async fn init_producer_id(&self) -> Result<(ProducerId, ProducerEpoch), NodeError> {
        unimplemented!()
    }

    /// One consumer-group request.
    pub async fn group(&self, _request: log::groups::Request) -> log::groups::Response {
        unimplemented!()
    }

    pub fn query(&self) -> &query::QueryService {
        unimplemented!()
    }

    /// Creates a streaming table, and its topic if that is absent.
    pub async fn create_table(&self, _spec: store::spec::TableSpec) -> Result<(), NodeError> {
        unimplemented!()
    }

    /// Drops a table and its segments; the topic stays.
    pub async fn drop_table(&self, _name: &str) -> Result<(), NodeError> {
        unimplemented!()
    }

    /// Stops (or starts again) a table's reading. What it has stays queryable.
    pub async fn set_suspended(&self, _name: &str, _suspended: bool) -> Result<(), NodeError> {
        unimplemented!()
    }

    /// Every table with its counters.
    pub fn tables(&self) -> Vec<tables::TableStatus> {
        unimplemented!()
    }

    pub fn table(&self, _name: &str) -> Option<tables::TableStatus> {
        unimplemented!()
    }

    /// What is wrong right now, worst first. Empty: all is well.
    pub fn findings(&self) -> Vec<Finding> {
        unimplemented!()
    }

    /// Milliseconds since this node began to serve.
    pub fn uptime_ms(&self) -> u64 {
        unimplemented!()
    }
}
