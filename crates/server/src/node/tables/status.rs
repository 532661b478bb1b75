//! The tables of this node: their rows on the way from the log to segments, and their snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Offset, PartitionIndex, Timestamp};

/// Reading state of one partition of a table's topic.
#[derive(Clone, PartialEq, Debug)]
pub struct PartitionStatus {
    pub partition: PartitionIndex,
    /// First offset that is not queryable yet.
    pub next: Offset,
    /// First offset that is in no published segment.
    pub published: Offset,
    /// The log's committed offset.
    pub committed: Offset,
}

/// Counters since the node began to serve.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct IngestCounters {
    pub rows: u64,
    pub bytes: u64,
    pub unparseable: u64,
    /// Too late or too early.
    pub thrown_away: u64,
}

/// A record that became no row.
#[derive(Clone, PartialEq, Debug)]
pub struct DeadLetterSample {
    pub partition: PartitionIndex,
    pub offset: Offset,
    pub reason: String,
    pub sample: String,
}

/// One table as it stands.
#[derive(Clone, Debug)]
pub struct TableStatus {
    pub name: String,
    pub topic: String,
    pub spec: store::spec::TableSpec,
    pub suspended: bool,
    pub created: Timestamp,
    /// The columns queries see now.
    pub schema: Arc<store::schema::TableSchema>,
    /// Published segments, those that could not be loaded included.
    pub segments: usize,
    /// Published segments that could not be loaded.
    pub missing_segments: usize,
    pub segment_rows: u64,
    pub segment_bytes: u64,
    pub live_rows: u64,
    pub live_bytes: u64,
    /// Newest `__time` among its rows.
    pub newest: Option<Timestamp>,
    pub partitions: Vec<PartitionStatus>,
    pub counters: IngestCounters,
    /// Rows per second over 1, 5 and 15 minutes, for `/stats`: processed, bytes, unparseable, thrown away.
    pub rates: BTreeMap<&'static str, IngestRates>,
    pub dead_letters: Vec<DeadLetterSample>,
    /// Why it does not take in rows although it should. Empty: it does.
    pub trouble: Option<String>,
}

/// Moving averages per second.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct IngestRates {
    pub processed: f64,
    pub processed_bytes: f64,
    pub unparseable: f64,
    pub thrown_away: f64,
}
