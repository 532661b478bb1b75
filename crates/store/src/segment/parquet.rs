//! A sealed segment's Parquet file -> its column file.
//!
//! Strings are read as dictionaries: where a column chunk has one dictionary page, its indices become our codes
//! through one small table, and no string is looked at per row.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema};
use arrow_select::concat::concat_batches;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Encoding;
use parquet::file::metadata::ColumnChunkMetaData;

use super::build::column_type;
use super::error::SegmentError;
use super::{encode, format};
use crate::schema::ColumnType;
use crate::seal::{SealError, guarded};

/// Rows decoded at once: a whole segment, unless it is larger than segments are made.
const BATCH_ROWS: usize = 16 << 20;

fn fault(error: impl std::fmt::Display) -> SegmentError {
    SegmentError::Parquet(error.to_string())
}

/// The column file of a Parquet file with a table's columns.
pub(crate) fn from_parquet(bytes: Bytes) -> Result<Vec<u8>, SegmentError> {
    guarded(|| encode::encode(&read(bytes)?))
}

impl From<SealError> for SegmentError {
    fn from(error: SealError) -> Self {
        Self::Parquet(error.to_string())
    }
}

/// The rows, strings as dictionaries where the file has them so.
fn read(bytes: Bytes) -> Result<RecordBatch, SegmentError> {
    let found = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new()).map_err(fault)?;
    let rows = usize::try_from(found.metadata().file_metadata().num_rows()).unwrap_or(usize::MAX);
    if rows > format::ROWS_MAX {
        return Err(SegmentError::TooLarge { what: "rows of a segment", found: rows, max: format::ROWS_MAX });
    }
    let schema = Arc::new(with_dictionaries(&found)?);
    let options = ArrowReaderOptions::new().with_schema(Arc::clone(&schema));
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(found.metadata()), options).map_err(fault)?;
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata)
        .with_batch_size(rows.clamp(1, BATCH_ROWS))
        .build()
        .map_err(fault)?;
    let mut batches = reader.collect::<Result<Vec<RecordBatch>, _>>().map_err(fault)?;
    match (batches.len(), batches.pop()) {
        (1, Some(batch)) => Ok(batch),
        (_, last) => {
            batches.extend(last);
            concat_batches(&schema, &batches).map_err(fault)
        }
    }
}

/// The file's schema, with string columns that have only dictionary pages as dictionaries.
fn with_dictionaries(found: &ArrowReaderMetadata) -> Result<Schema, SegmentError> {
    let groups = found.metadata().row_groups();
    let parquet = found.parquet_schema();
    let fields = found.schema().fields().iter().enumerate().map(|(root, field)| {
        if column_type(field)? != ColumnType::String {
            return Ok(Arc::clone(field));
        }
        let leaf = (0..parquet.num_columns()).find(|leaf| parquet.get_column_root_idx(*leaf) == root);
        let chunks = leaf.map(|leaf| groups.iter().filter_map(move |group| group.columns().get(leaf)));
        if !chunks.is_some_and(|mut chunks| chunks.all(only_dictionary)) {
            return Ok(Arc::clone(field));
        }
        let ty = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        Ok(Arc::new(Field::new(field.name(), ty, field.is_nullable())))
    });
    Ok(Schema::new(fields.collect::<Result<Vec<_>, SegmentError>>()?))
}

fn only_dictionary(chunk: &ColumnChunkMetaData) -> bool {
    let dictionary = |encoding| matches!(encoding, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY);
    if chunk.dictionary_page_offset().is_none() {
        return false;
    }
    match (chunk.page_encoding_stats_mask(), chunk.page_encoding_stats()) {
        (Some(mask), _) => mask.encodings().all(dictionary),
        (None, Some(stats)) => stats
            .iter()
            .all(|stats| dictionary(stats.encoding) || stats.page_type == parquet::basic::PageType::DICTIONARY_PAGE),
        // Not said: reading a mixed chunk as a dictionary is right, only slower.
        (None, None) => true,
    }
}
