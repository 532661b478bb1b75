//! What one query sees of a table: taken once at its start, never changed after.

use std::sync::Arc;

use crate::dictionary::TableDictionary;
use crate::interval::Interval;
use crate::schema::TableSchema;
use crate::segment::Segment;

/// A table at one moment.
#[derive(Clone, Debug)]
pub struct TableSnapshot {
    pub table: Arc<str>,
    pub schema: Arc<TableSchema>,
    pub dictionary: Arc<TableDictionary>,
    pub segments: Vec<SnapshotSegment>,
}

/// One segment or live chunk of a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotSegment {
    pub id: String,
    pub interval: Interval,
    pub rows: u64,
    pub segment: Arc<Segment>,
    /// In memory only, not yet published.
    pub live: bool,
}

impl TableSnapshot {
    /// Rows of all segments.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.segments.iter().map(|segment| segment.rows).sum()
    }
}
