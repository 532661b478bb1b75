//! One partition's committed batches -> rows, rejections and dead letters.

use arrow_array::RecordBatch;
use base::records::Decoded;
use base::{Offset, PartitionIndex, Timestamp};
use bytes::Bytes;
use serde::Serialize;
use std::sync::Arc;

use crate::schema::TableSchema;
use crate::spec::TableSpec;

/// `[from, to)` of one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, serde::Deserialize)]
pub struct OffsetRange {
    pub from: Offset,
    pub to: Offset,
}

/// Why a row was not taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    NotUtf8,
    Malformed,
    TimestampMissing,
    TimestampUnreadable,
    TooManyColumns,
    TooLarge,
}

/// A row that could not be read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DeadLetter {
    pub offset: Offset,
    pub reason: DeadReason,
    pub detail: String,
    #[serde(skip)]
    pub sample: Bytes,
}

/// What became of one batch's rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BatchOutcome {
    pub accepted: u64,
    pub filtered_late: u64,
    pub filtered_early: u64,
    pub empty: u64,
    pub unparseable: u64,
    pub dead: Vec<DeadLetter>,
}

/// Counts since the ingestor was made.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct IngestStats {
    pub processed: u64,
    pub processed_bytes: u64,
    pub processed_with_error: u64,
    pub unparseable: u64,
    pub thrown_away: u64,
}

/// Reads one partition of a table's topic.
#[derive(Debug)]
pub struct Ingestor {
    _private: (),
}

impl Ingestor {
    #[must_use]
    pub fn new(spec: Arc<TableSpec>, schema: &TableSchema, partition: PartitionIndex) -> Self {
        let _ = (spec, schema, partition);
        unimplemented!()
    }
    pub fn push_batch(&mut self, wall: Timestamp, decoded: &Decoded) -> BatchOutcome {
        let _ = (wall, decoded);
        unimplemented!()
    }
    pub fn take_rows(&mut self) -> Option<(RecordBatch, OffsetRange)> {
        unimplemented!()
    }
    /// The schema of what was read so far: what it was made with, widened.
    pub fn schema(&self) -> Arc<TableSchema> {
        unimplemented!()
    }
    pub fn stats(&self) -> &IngestStats {
        unimplemented!()
    }
}
