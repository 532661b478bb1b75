//! skeleton
#![allow(clippy::all, unused_variables, missing_docs, reason = "skeleton")]
use base::{Offset, Timestamp};
use bytes::Bytes;

use crate::ReadError;

/// How far a read may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadLimit {
    /// Durable on a majority: what consumers see.
    Committed,
    /// All that was written here.
    End,
}

/// What a read gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// Whole batches; the first contains the offset asked for. Empty at the limit.
    pub bytes: Bytes,
    /// Where to read on.
    pub next: Offset,
    pub committed: Offset,
    pub start: Offset,
}

/// Reads a partition from any thread; never waits for its owner.
#[derive(Clone, Debug)]
pub struct Reader {
    _private: (),
}

impl Reader {
    pub fn read(&self, from: Offset, bytes_max: usize, limit: ReadLimit) -> Result<Fetched, ReadError> {
        unimplemented!()
    }
    /// The first committed record at or after `time`.
    pub fn offset_for_time(&self, time: Timestamp) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        unimplemented!()
    }
    /// The committed record with the largest timestamp.
    pub fn max_timestamp(&self) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        unimplemented!()
    }
    /// The largest epoch not above `leader_epoch` and the offset after its last record, or (-1, -1).
    pub fn epoch_end(&self, leader_epoch: i32) -> (i32, Offset) {
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
    pub fn size_bytes(&self) -> u64 {
        unimplemented!()
    }
}
