//! A segment: the immutable columnar unit the engine runs on.

use arrow_array::RecordBatch;
use bytes::Bytes;

use crate::dictionary::TableDictionary;

mod error;

pub use error::{FormatError, SegmentError};

/// Opened from a column file, or built from a batch of live rows.
#[derive(Debug)]
pub struct Segment {}

impl Segment {
    /// Live rows: strings get their table ids at once.
    pub fn from_batch(batch: &RecordBatch, dictionary: &TableDictionary) -> Result<Self, SegmentError> {
        let _ = (batch, dictionary);
        unimplemented!()
    }

    /// A column file (docs/formats/column-file.md), usually a memory map. Everything trusted later is checked here
    /// or at the first touch of a column.
    pub fn open(bytes: Bytes, dictionary: &TableDictionary) -> Result<Self, FormatError> {
        let _ = (bytes, dictionary);
        unimplemented!()
    }

    /// The column file of rows already in their order (time, then dimensions).
    pub fn encode(batch: &RecordBatch) -> Result<Vec<u8>, SegmentError> {
        let _ = batch;
        unimplemented!()
    }

    /// The column file of a sealed segment's Parquet file.
    pub fn from_parquet(bytes: Bytes) -> Result<Vec<u8>, SegmentError> {
        let _ = bytes;
        unimplemented!()
    }

    #[must_use]
    pub fn rows(&self) -> usize {
        unimplemented!()
    }

    /// Least and greatest `__time`; `None` without rows.
    #[must_use]
    pub fn time_range(&self) -> Option<(i64, i64)> {
        unimplemented!()
    }

    /// Memory this segment holds beside its mapped file.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        unimplemented!()
    }

    /// All columns, or those named, as Arrow.
    pub fn to_batch(&self, projection: Option<&[&str]>) -> Result<RecordBatch, FormatError> {
        let _ = projection;
        unimplemented!()
    }
}
