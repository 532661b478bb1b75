//! Rows as Arrow batches: filter first, then only the rows that are left.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use super::error::EngineError;
use super::query::{Limits, ScanQuery};
use super::units::Unit;
use crate::snapshot::TableSnapshot;

/// A planned scan over one snapshot. Shared by all threads that work on it.
#[derive(Debug)]
pub struct Scan {}

/// The rows of one unit, in batches of at most 8,192.
#[derive(Debug)]
pub struct Cursor {}

impl Scan {
    /// Checks the query against the snapshot and prunes segments.
    pub fn plan(snapshot: &TableSnapshot, query: &ScanQuery, limits: &Limits) -> Result<Self, EngineError> {
        let _ = (snapshot, query, limits);
        unimplemented!()
    }

    /// The projection's columns with the table's types.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        unimplemented!()
    }

    /// The work, cut into pieces of about `rows_per_unit` rows; segments that cannot match are left out.
    #[must_use]
    pub fn units(&self, rows_per_unit: usize) -> Vec<Unit> {
        let _ = rows_per_unit;
        unimplemented!()
    }

    /// Starts on one unit.
    #[must_use]
    pub fn open(self: &Arc<Self>, unit: Unit) -> Cursor {
        let _ = unit;
        unimplemented!()
    }

    /// The `limit` newest (or oldest) rows by `__time` of the whole snapshot, in that order. Needs the scan's `limit`.
    pub fn by_time(&self, descending: bool) -> Result<RecordBatch, EngineError> {
        let _ = descending;
        unimplemented!()
    }
}

impl Iterator for Cursor {
    type Item = Result<RecordBatch, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        unimplemented!()
    }
}
