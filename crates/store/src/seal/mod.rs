//! When live rows become segments, how they are cut, ordered and rolled up, and the file they become.
//!
//! ```text
//! should_seal      is it time?           rows of one partition, offsets [from, to)
//! split_by_chunk   one batch per time chunk, in order of time
//! sort_and_roll_up sorted by __time, then by the dimensions in column order, nulls first; equal rows become one
//! to_parquet       docs/formats/segment-parquet.md: one row group, one dictionary page per string column
//! ```
//! All of it is a pure function of its arguments: the same rows give the same bytes.

mod key;
mod manifest;
mod parquet;
mod policy;
mod rollup;

pub use manifest::{MANIFEST_KEY, Manifest};
#[allow(unused_imports, reason = "for the segment loader")]
pub(crate) use parquet::guarded;
pub use parquet::{SealError, read_manifest, read_parquet, to_parquet};
pub use policy::{LiveStats, SealReason, should_seal};
pub use rollup::{roll_up, sort_and_roll_up, split_by_chunk};
