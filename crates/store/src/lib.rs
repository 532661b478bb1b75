//! From committed batches to columns: rows, segments, dictionaries, and the engine that runs on codes.
//!
//! ```text
//! record batch --rows--> typed cells --ingest--> Arrow --live--> queryable now
//!                                        |                         |
//!                                        +--> dead letters         +--seal--> Parquet + manifest --segment--> column file
//! spec        what a table is made from: Druid's supervisor spec or our own JSON
//! schema      column names and types, how they widen, and the Arrow types at the seam
//! calendar    dates, ISO-8601, time zones;  granularity  time buckets;  interval  [start, end)
//! rows        JSON, CSV, TSV -> cells -> column buffers
//! ingest      one partition's batches -> rows, rejections, dead letters
//! seal        when to seal, time chunks, rollup, the Parquet file
//! dictionary  node-wide ids per table column;  segment  the columnar unit;  live  rows not sealed yet
//! engine      filter, group, aggregate and scan on codes;  sketch  approximate states;  snapshot  what one query sees
//! ```
//!
//! Time comes as an argument; the same input gives the same output. What always holds: no byte from a
//! record, a file or a spec makes this crate panic or allocate without a bound. Deliberately not here:
//! DataFusion, sockets, files, clocks, threads, and who leads.

pub mod calendar;
pub mod dictionary;
pub mod engine;
pub mod granularity;
pub mod ingest;
pub mod interval;
pub mod live;
pub mod rows;
pub mod schema;
pub mod seal;
pub mod segment;
pub mod sketch;
pub mod snapshot;
pub mod spec;
