//! The engine on codes: filter, group, aggregate and scan over one snapshot, in blocks of 1,024 rows.
//!
//! ```text
//! query      what is asked: Filter, Key, Aggregate, AggregateQuery, ScanQuery, Limits
//! units      a piece of one segment, the unit of work and of retry; segments that cannot match are left out
//! columns    the columns a query uses, per segment, of the table's type; ids of strings; unpacked blocks
//! filter     normal form -> tied to a segment's codes -> a mask a block
//! keys       rows -> packed keys -> Arrow    table  packed key -> group    spill  rows of very many groups
//! states     what is added up    aggregate  plan -> units -> run on any thread -> merge    finish  order, limit, Arrow
//! scan       plan -> units -> cursor of Arrow batches; the newest rows
//! ```
//!
//! The caller brings the threads: plan once, give each thread a `Partial`, hand out units, then merge and finish, or,
//! where [`Aggregation::merge_parts`] says more than 1, `merge_part` on each thread and `finish_parts`.
//!
//! Always holds: a string is looked at once per dictionary entry, not per row, unless its column is plain; ids mean the
//! same in all segments of a snapshot; a column missing from a segment is null, and one sealed with a narrower type is
//! widened first; group state is within the query's memory bound, or the query ends with an error.
//! Deliberately not here: SQL, threads, clocks (cancel when the time is up), group keys of arrays, what sketches do (`crate::sketch`).

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
