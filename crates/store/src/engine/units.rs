//! The unit of work: a range of blocks of one segment.

use std::ops::Range;

/// A piece of one segment of the snapshot. Idempotent: it can be run again on a fresh partial.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unit {
    /// Index into the snapshot's segments.
    pub segment: usize,
    /// Blocks of 1,024 rows.
    pub blocks: Range<usize>,
    /// Rows in those blocks, before any filter.
    pub rows: usize,
}
