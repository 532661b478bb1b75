//! A segment: the immutable columnar unit the engine runs on.
//!
//! ```text
//! mod      Segment: from live rows, or over a column file (docs/formats/column-file.md)
//! column   one column: name, type, nulls, values
//! codes    coded strings    longs  integers and times    plain  values of any length    bitmap  bits
//! packing  the FastLanes kernels    lists  arrays as bytes    strings  the dictionary section
//! build    Arrow -> columns    arrow  columns -> Arrow
//! format   the file's header and directory    encode  columns -> file    open  file -> columns
//! parquet  the sealed segment's Parquet file -> column file    merge  two live segments -> one
//! ```
//! Always holds: rows are cut into blocks of 1,024, the same in memory and in the file; a column is used only after
//! `ready`, which checks its checksums and gives its strings their ids, once. Deliberately not here: files and
//! memory maps (the bytes are given), filters and aggregates (`engine`), when to seal (`seal`).

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_buffer::Buffer;
use arrow_schema::Schema;
use bytes::Bytes;

use crate::dictionary::{IdSet, NULL_ID, TableDictionary};
use crate::schema::TIME_COLUMN;

pub(crate) mod arrow;
pub(crate) mod bitmap;
mod build;
pub(crate) mod codes;
pub(crate) mod column;
mod encode;
mod error;
mod format;
mod lists;
pub(crate) mod longs;
mod merge;
mod open;
pub(crate) mod packing;
mod parquet;
pub(crate) mod plain;
mod strings;
#[cfg(test)]
pub(crate) mod tests;

pub use column::Column;
pub use error::{FormatError, SegmentError};
pub use packing::BLOCK_ROWS;

use column::Data;

/// Opened from a column file, or built from a batch of live rows.
#[derive(Debug)]
pub struct Segment {
    rows: usize,
    sorted: bool,
    time: Option<(i64, i64)>,
    columns: Vec<Arc<Column>>,
    by_name: HashMap<Arc<str>, usize, foldhash::fast::FixedState>,
    file: Option<Buffer>,
}

impl Segment {
    /// Live rows: strings get their table ids at once.
    ///
    /// # Errors
    /// If a column has a type no table column has.
    pub fn from_batch(batch: &RecordBatch, dictionary: &TableDictionary) -> Result<Self, SegmentError> {
        let schema = batch.schema_ref();
        let columns = schema.fields().iter().zip(batch.columns());
        let columns = columns
            .map(|(field, array)| build::live_column(field.name(), build::column_type(field)?, array, dictionary))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self::of_columns(batch.num_rows(), columns))
    }

    /// A segment in memory.
    pub(crate) fn of_columns(rows: usize, columns: Vec<Column>) -> Self {
        let time = columns.iter().find(|column| column.name() == TIME_COLUMN);
        let (mut range, mut sorted) = (None, false);
        if let Some(Data::Longs(longs)) = time.map(|column| &column.data) {
            (range, sorted) = (longs.range(), longs.is_sorted(rows));
        }
        Self::assemble(rows, sorted, range, columns, None)
    }

    fn assemble(
        rows: usize,
        sorted: bool,
        time: Option<(i64, i64)>,
        columns: Vec<Column>,
        file: Option<Buffer>,
    ) -> Self {
        let columns: Vec<Arc<Column>> = columns.into_iter().map(Arc::new).collect();
        let by_name = columns.iter().enumerate().map(|(at, column)| (Arc::clone(&column.name), at)).collect();
        Self { rows, sorted, time, columns, by_name, file }
    }

    /// A column file (docs/formats/column-file.md), usually a memory map. Everything trusted later is checked here
    /// or at the first touch of a column.
    ///
    /// # Errors
    /// If the header, the directory, or a length in them cannot be trusted.
    pub fn open(bytes: Bytes, dictionary: &TableDictionary) -> Result<Self, FormatError> {
        Self::open_buffer(open::aligned(Buffer::from(bytes)), dictionary)
    }

    fn open_buffer(file: Buffer, dictionary: &TableDictionary) -> Result<Self, FormatError> {
        let (head, columns) = open::open(&file, dictionary)?;
        let has_time = head.rows > 0 && head.columns.iter().any(|column| column.name == TIME_COLUMN);
        let time = has_time.then_some((head.time_min, head.time_max));
        let segment = Self::assemble(head.rows, head.sorted, time, columns, Some(file));
        if segment.by_name.len() != segment.columns.len() {
            return Err(FormatError::Structure("two columns of one name".to_owned()));
        }
        let range = segment.column(TIME_COLUMN).and_then(|column| match &column.data {
            Data::Longs(longs) => longs.range(),
            _ => None,
        });
        if range != time {
            return Err(FormatError::Structure("its time range is not that of its blocks".to_owned()));
        }
        Ok(segment)
    }

    /// The column file of rows already in their order (time, then dimensions).
    ///
    /// # Errors
    /// If a column has a type no table column has, or there are more rows than the format counts.
    pub fn encode(batch: &RecordBatch) -> Result<Vec<u8>, SegmentError> {
        encode::encode(batch)
    }

    /// The column file of a sealed segment's Parquet file.
    ///
    /// # Errors
    /// If the bytes are not a Parquet file with a table's columns.
    pub fn from_parquet(bytes: Bytes) -> Result<Vec<u8>, SegmentError> {
        parquet::from_parquet(bytes)
    }

    /// The same rows with the ids of another dictionary, which a new generation needs. A segment over a file is
    /// opened again, a live one is coded again.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Self::from_batch`].
    pub fn rebase(&self, dictionary: &TableDictionary) -> Result<Self, SegmentError> {
        match &self.file {
            Some(file) => Ok(Self::open_buffer(file.clone(), dictionary)?),
            None => Self::from_batch(&self.to_batch(None)?, dictionary),
        }
    }

    /// Touches every column: checks its checksums and gives its strings their ids. What a first query would do.
    ///
    /// # Errors
    /// If a column is damaged; the others are touched all the same.
    pub fn warm(&self) -> Result<(), FormatError> {
        self.columns.iter().map(|column| column.ready()).fold(Ok(()), Result::and)
    }

    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Least and greatest `__time`; `None` without rows.
    #[must_use]
    pub fn time_range(&self) -> Option<(i64, i64)> {
        self.time
    }

    /// True if `__time` never falls from row to row.
    #[must_use]
    pub fn is_sorted_by_time(&self) -> bool {
        self.sorted
    }

    #[must_use]
    pub fn columns(&self) -> &[Arc<Column>] {
        &self.columns
    }

    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Arc<Column>> {
        self.by_name.get(name).and_then(|at| self.columns.get(*at))
    }

    /// Memory this segment holds beside its mapped file.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.columns.iter().map(|column| column.heap_bytes()).sum()
    }

    /// Bytes of the column file; of a live segment, of its columns.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match &self.file {
            Some(file) => file.len(),
            None => self.columns.iter().map(|column| column.size_bytes()).sum(),
        }
    }

    /// Adds the table ids a column uses to `ids`: what a dictionary still has to hold for this segment. Live rows
    /// count with all ids up to their greatest.
    pub fn used_ids(&self, column: &str, ids: &mut IdSet) {
        let Some(Data::Codes(codes)) = self.column(column).map(|column| &column.data) else { return };
        match codes.ids() {
            Some(used) => used.iter().filter(|id| **id != NULL_ID).for_each(|id| _ = ids.insert(*id)),
            None => (1..codes.entries).for_each(|id| _ = ids.insert(u32::try_from(id).unwrap_or(NULL_ID))),
        }
    }

    /// All columns, or those named, as Arrow. A name the segment lacks is left out.
    ///
    /// # Errors
    /// If a column is damaged.
    pub fn to_batch(&self, projection: Option<&[&str]>) -> Result<RecordBatch, FormatError> {
        let columns: Vec<&Arc<Column>> = match projection {
            Some(names) => names.iter().filter_map(|name| self.column(name)).collect(),
            None => self.columns.iter().collect(),
        };
        let arrays: Vec<ArrayRef> = columns.iter().map(|column| arrow::whole(column)).collect::<Result<_, _>>()?;
        let fields: Vec<_> =
            columns.iter().map(|column| arrow::field_of(column.name(), column.ty, column.nulls)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
            .map_err(|error| FormatError::Structure(error.to_string()))
    }
}
