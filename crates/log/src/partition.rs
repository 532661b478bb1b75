//! skeleton
#![allow(clippy::all, unused_variables, missing_docs, reason = "skeleton")]
use std::sync::{Arc, Mutex};

use base::disk::{Disk, DiskError};
use base::{NodeId, Offset, Term, Tick, Timestamp, TopicPartition};
use bytes::Bytes;

use crate::{AppendError, DeleteError, OpenError, PartitionConfig, Reader, Stopped};

/// The hard states of the node's groups, shared by its partitions. (Will be `Arc<Mutex<quorum::HardStates>>`.)
pub type HardStates = Arc<Mutex<()>>;

pub struct Partition {
    _private: (),
}

/// What an append gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    pub base_offset: Offset,
    /// Offset after the last record: durable once `committed` reaches it.
    pub next_offset: Offset,
    /// Set if the topic's records carry the append's time.
    pub log_append_time: Option<Timestamp>,
    pub log_start_offset: Offset,
    /// The batch was there already; its offsets are given again. It may still wait to be committed.
    pub duplicate: bool,
}

/// What opening found and did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovery {
    /// Bytes cut off after the flushed mark: a torn tail, never acknowledged.
    pub truncated_bytes: u64,
    /// Bytes read to get here.
    pub scanned_bytes: u64,
    /// In plain words, what a person should know.
    pub findings: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trimmed {
    pub files: usize,
    pub bytes: u64,
    pub start: Offset,
}

#[derive(Debug)]
pub struct FlushJob {
    _private: (),
}
#[derive(Debug)]
pub struct FlushDone {
    _private: (),
}
impl FlushJob {
    pub fn run(self) -> Result<FlushDone, DiskError> {
        unimplemented!()
    }
}

impl Partition {
    pub fn open(
        id: TopicPartition,
        dir: &str,
        config: PartitionConfig,
        node: NodeId,
        disk: Arc<dyn Disk>,
        hard: HardStates,
        now: Tick,
        wall: Timestamp,
    ) -> Result<(Self, Recovery), OpenError> {
        unimplemented!()
    }
    pub fn append(&mut self, now: Tick, wall: Timestamp, batches: Bytes) -> Result<Appended, AppendError> {
        unimplemented!()
    }
    /// What has to reach the disk, to be run on a thread that may block. At most one is out at a time.
    pub fn flush_job(&mut self) -> Option<FlushJob> {
        unimplemented!()
    }
    pub fn flushed(&mut self, done: Result<FlushDone, DiskError>) -> Result<Offset, Stopped> {
        unimplemented!()
    }
    pub fn committed(&self) -> Offset {
        unimplemented!()
    }
    pub fn end(&self) -> Offset {
        unimplemented!()
    }
    pub fn start(&self) -> Offset {
        unimplemented!()
    }
    pub fn term(&self) -> Term {
        unimplemented!()
    }
    pub fn size_bytes(&self) -> u64 {
        unimplemented!()
    }
    pub fn stopped(&self) -> Option<&Stopped> {
        unimplemented!()
    }
    pub fn reader(&self) -> Reader {
        unimplemented!()
    }
    pub fn configure(&mut self, config: PartitionConfig) {
        unimplemented!()
    }
    pub fn set_retention_floor(&mut self, floor: Option<Offset>) {
        unimplemented!()
    }
    /// Removes what retention lets go; call `flush_job` after it.
    pub fn trim(&mut self, now: Tick, wall: Timestamp) -> Trimmed {
        unimplemented!()
    }
    /// Moves the start up to `offset`; durable after the next flush. Returns the new start.
    pub fn delete_before(&mut self, offset: Offset) -> Result<Offset, DeleteError> {
        unimplemented!()
    }
    /// Rolls by age; forgets silent producers.
    pub fn tick(&mut self, now: Tick, wall: Timestamp) {
        unimplemented!()
    }
    /// Flushes and leaves a mark, so that the next open reads nothing. Blocks.
    pub fn close(self) -> Result<(), DiskError> {
        unimplemented!()
    }
}
