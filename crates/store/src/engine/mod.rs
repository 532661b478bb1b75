//! The engine on codes: filter, group, aggregate and scan over one snapshot, in blocks of 1,024 rows.
//!
//! ```text
//! query      what is asked: Filter, Key, Aggregate, AggregateQuery, ScanQuery, Limits
//! units      a piece of one segment, the unit of work and of retry
//! aggregate  Aggregation: plan -> units -> run on any thread -> merge -> finish
//! scan       Scan: plan -> units -> cursor of Arrow batches; the newest rows
//! ```
//!
//! The caller brings the threads: plan once, give each thread a `Partial`, hand out units, merge, finish.
//! Deliberately not here: SQL, threads, clocks (cancel when the time is up).

mod aggregate;
mod columns;
mod error;
mod filter;
mod finish;
mod keys;
mod mask;
mod query;
mod scan;
mod spill;
mod states;
mod table;
mod units;

pub use aggregate::{Aggregation, Merged, Partial, aggregate};
pub use error::EngineError;
pub use query::*;
pub use scan::{BATCH_ROWS, Cursor, Scan};
pub use units::Unit;
#[cfg(test)]
mod tests;
