//! SQL over tables: text in, a stream of Arrow batches out. The only room that knows DataFusion.
//!
//! ```text
//! request ──> dialect ──> plan ──> engine pushdown ──> stream of batches
//!   sql        parse,       DataFusion's     whole groups      bounded by memory,
//!   context    SET prefix,  planner with     and scans run     time, and a cancel
//!   params     rewrite to   our functions    on the store's    that works at any
//!   dialect    one AST      and rules        codes             moment
//! ```
//!
//! The caller gives a [`Catalog`] (which tables there are, one [`store::snapshot::TableSnapshot`] of each on demand)
//! and runs [`QueryService::run`] on its own tokio runtime; it must poll the stream it is given, and may
//! drop it at any moment, which stops the query.
//!
//! What always holds:
//! - a query sees one snapshot per table, taken when it is planned;
//! - the number of running and of waiting queries is bounded; one more is refused with `Capacity`;
//! - memory held by operators is bounded per query and for all queries together;
//! - every error is a [`QueryError`] that says whose fault it is and what to do next.
//!
//! Where it is not Druid's answer, on purpose:
//! - COUNT(DISTINCT x) and APPROX_COUNT_DISTINCT are exact; only over a window are they approximate;
//! - a whole number divided by zero is an error that names SAFE_DIVIDE, a double divided by zero is infinite;
//! - groups without ORDER BY come in no order, unless time buckets are among their keys;
//! - `user` without quotes is a column wherever there is a FROM, as in Druid's older documents;
//! - PostgreSQL's dialect sorts NULL as Druid does: first upwards, last downwards.
//!
//! Deliberately not here: how rows got into a table (`store`, `log`), sockets, wire formats, rendering of
//! values (the edges do that from [`ResultColumn`]), native JSON queries, statements that change data.

pub mod catalog;
mod control;
pub mod error;
mod functions;
pub mod limits;
mod pg_catalog;
mod plan;
pub mod request;
pub mod result;
pub mod service;
mod statement;
mod system;
mod table;

pub use catalog::{Catalog, Consistency, LOST_BATCHES, LostRow, PastRow, Prepared, SegmentRow, ServerRow};
pub use error::{Position, QueryError, QueryErrorKind};
pub use limits::QueryLimits;
pub use request::{Dialect, Parameter, QueryRequest};
pub use result::{Description, QueryStream, ResultColumn, StatementTag};
pub use service::{CancelOutcome, QueryInfo, QueryService, QueryState};
pub use statement::split_statements;
