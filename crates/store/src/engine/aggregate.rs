//! Grouped aggregation: plan once, run units on any threads, merge, finish.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use super::error::EngineError;
use super::query::{AggregateQuery, Limits};
use super::units::Unit;
use crate::snapshot::TableSnapshot;

/// A planned aggregation over one snapshot. Shared by all threads that work on it.
#[derive(Debug)]
pub struct Aggregation {}

/// What one thread has added up so far.
#[derive(Debug)]
pub struct Partial {}

impl Aggregation {
    /// Checks the query against the snapshot and prunes segments.
    pub fn plan(snapshot: &TableSnapshot, query: &AggregateQuery, limits: &Limits) -> Result<Self, EngineError> {
        let _ = (snapshot, query, limits);
        unimplemented!()
    }

    /// The answer's columns: keys, then aggregates, in the query's order.
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

    /// An empty partial. Use one per thread, not one per unit.
    #[must_use]
    pub fn start(&self) -> Partial {
        unimplemented!()
    }

    /// Adds one unit's rows to a partial.
    pub fn run(&self, unit: &Unit, partial: &mut Partial) -> Result<(), EngineError> {
        let _ = (unit, partial);
        unimplemented!()
    }

    /// Adds `from` to `into`.
    pub fn merge(&self, into: &mut Partial, from: Partial) -> Result<(), EngineError> {
        let _ = (into, from);
        unimplemented!()
    }

    /// The answer.
    pub fn finish(&self, partial: Partial) -> Result<RecordBatch, EngineError> {
        let _ = partial;
        unimplemented!()
    }
}

/// Plans, runs and finishes on the calling thread.
pub fn aggregate(
    snapshot: &TableSnapshot,
    query: &AggregateQuery,
    limits: &Limits,
) -> Result<RecordBatch, EngineError> {
    let plan = Aggregation::plan(snapshot, query, limits)?;
    let mut partial = plan.start();
    for unit in plan.units(usize::MAX) {
        plan.run(&unit, &mut partial)?;
    }
    plan.finish(partial)
}
