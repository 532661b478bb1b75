//! Rows that are committed but not yet sealed: queryable chunks per partition.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;
use base::{Offset, PartitionIndex};

use crate::dictionary::TableDictionary;
use crate::segment::{Segment, SegmentError};

/// The live rows of one table.
#[derive(Debug)]
pub struct LiveTable {}

/// One chunk of live rows: which offsets of which partition it covers.
#[derive(Clone, Debug)]
pub struct LiveChunk {
    pub partition: PartitionIndex,
    pub offsets: Range<Offset>,
    pub segment: Arc<Segment>,
}

/// Rows taken for sealing. They stay queryable until [`LiveTable::drop_below`].
#[derive(Clone, Debug)]
pub struct Taken {
    pub partition: PartitionIndex,
    pub offsets: Range<Offset>,
    pub rows: RecordBatch,
}

impl LiveTable {
    #[must_use]
    pub fn new(dictionary: Arc<TableDictionary>) -> Self {
        let _ = dictionary;
        unimplemented!()
    }

    /// Adds the rows of offsets `[start, end)` of a partition; they must follow what was pushed before. Small
    /// chunks are merged on the way. An empty batch moves the end only.
    pub fn push(
        &mut self,
        partition: PartitionIndex,
        offsets: Range<Offset>,
        rows: &RecordBatch,
    ) -> Result<(), LiveError> {
        let _ = (partition, offsets, rows);
        unimplemented!()
    }

    /// The chunks there are; cheap.
    #[must_use]
    pub fn snapshot(&self) -> Vec<LiveChunk> {
        unimplemented!()
    }

    /// All rows of a partition pushed so far, in order of arrival, as one batch. `None` when there are none.
    pub fn take(&mut self, partition: PartitionIndex) -> Result<Option<Taken>, LiveError> {
        let _ = partition;
        unimplemented!()
    }

    /// Forgets the rows below `offset`: they are published. It must be the end of an earlier `take`.
    pub fn drop_below(&mut self, partition: PartitionIndex, offset: Offset) {
        let _ = (partition, offset);
        unimplemented!()
    }

    /// Rows held, all partitions.
    #[must_use]
    pub fn rows(&self) -> u64 {
        unimplemented!()
    }

    /// Memory held, without the dictionary.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        unimplemented!()
    }

    /// Rows held of one partition.
    #[must_use]
    pub fn partition_rows(&self, partition: PartitionIndex) -> u64 {
        let _ = partition;
        unimplemented!()
    }

    /// Where the next push of this partition must start; `None` before its first.
    #[must_use]
    pub fn next_offset(&self, partition: PartitionIndex) -> Option<Offset> {
        let _ = partition;
        unimplemented!()
    }
}

/// Why rows were not taken into the live table.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LiveError {
    /// The rows do not follow what is there. Read the partition again from `expected`.
    #[error("partition {partition}: rows start at offset {found}, the live table expects {expected}")]
    Gap { partition: PartitionIndex, found: Offset, expected: Offset },
    #[error(transparent)]
    Segment(#[from] SegmentError),
}
