//! The sealed segment: a plain Parquet file, drawn in docs/formats/segment-parquet.md.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, DataType, Schema};
use arrow_select::concat::concat_batches;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

use super::manifest::{MANIFEST_KEY, Manifest, Stored, VERSION};
use crate::schema::{SchemaError, TableSchema};

/// Rows of a data page: what a reader skips by the page index.
const PAGE_ROWS_MAX: usize = 20_480;
/// Dictionary pages are never this large: the writer then never falls back to plain strings.
const DICTIONARY_BYTES_MAX: usize = 1 << 31;
/// Most bytes of a manifest that are read.
const MANIFEST_BYTES_MAX: usize = 1 << 20;
/// Statistics in the footer are cut to this.
const STATISTICS_BYTES_MAX: usize = 64;
/// zstd's own default: half the size of lz4 here, and loading is not bound by it.
const ZSTD_LEVEL: i32 = 3;

/// Why rows are no segment, or a file is none. A file that is refused must not be used: fetch it again, or
/// seal its rows again from the log.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("the rows have no __time column of milliseconds")]
    NoTime,
    #[error("column {name:?} has the type {ty}, which no table has")]
    Column { name: String, ty: String },
    #[error("{0} rows are more than a segment can hold")]
    TooManyRows(usize),
    #[error("the rows do not fit together: {0}")]
    Arrow(#[from] ArrowError),
    #[error("the file is no readable Parquet: {0}")]
    Parquet(String),
    #[error("the file has no manifest under {MANIFEST_KEY}: Seawall did not write it")]
    NoManifest,
    #[error("the manifest cannot be read: {0}")]
    Manifest(String),
    #[error("the manifest has version {found}, this release reads up to {VERSION}; upgrade")]
    Version { found: u32 },
    #[error("the manifest says {manifest} rows, the file has {file}")]
    Rows { manifest: u64, file: u64 },
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

impl From<ParquetError> for SealError {
    fn from(error: ParquetError) -> Self {
        Self::Parquet(error.to_string())
    }
}

/// Writes one time chunk's rows, which [`super::sort_and_roll_up`] has put in order, as one file.
///
/// # Errors
/// If the manifest counts other rows, or the rows are no table's.
pub fn to_parquet(rows: &RecordBatch, manifest: &Manifest) -> Result<Bytes, SealError> {
    TableSchema::from_arrow(rows.schema_ref())?;
    if manifest.rows != rows.num_rows() as u64 {
        return Err(SealError::Rows { manifest: manifest.rows, file: rows.num_rows() as u64 });
    }
    let properties = properties(rows.schema_ref(), manifest)?;
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties))?;
    writer.write(rows)?;
    Ok(Bytes::from(writer.into_inner()?))
}

fn properties(schema: &Schema, manifest: &Manifest) -> Result<WriterProperties, SealError> {
    let stored = Stored { version: VERSION, manifest: manifest.clone() };
    let json = serde_json::to_string(&stored).map_err(|error| SealError::Manifest(error.to_string()))?;
    let sorting = vec![SortingColumn { column_idx: 0, descending: false, nulls_first: true }];
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(concat!("seawall ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(vec![KeyValue::new(MANIFEST_KEY.to_owned(), json)]))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_max_row_group_row_count(None)
        .set_data_page_row_count_limit(PAGE_ROWS_MAX)
        .set_dictionary_enabled(false)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_statistics_truncate_length(Some(STATISTICS_BYTES_MAX))
        .set_column_index_truncate_length(Some(STATISTICS_BYTES_MAX))
        .set_sorting_columns(Some(sorting));
    for field in schema.fields() {
        let (path, ty) = match field.data_type() {
            DataType::List(item) => {
                let parts = [field.name().as_str(), "list", item.name().as_str()];
                (ColumnPath::new(parts.map(str::to_owned).to_vec()), item.data_type())
            }
            ty => (ColumnPath::new(vec![field.name().clone()]), ty),
        };
        builder = match ty {
            DataType::Utf8 => builder.set_column_dictionary_enabled(path, true),
            DataType::Int64 | DataType::Timestamp(..) => {
                builder.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED)
            }
            _ => builder,
        };
    }
    Ok(builder.build())
}

/// Runs the Parquet reader on bytes from outside. It is not ours, and on damaged bytes it may panic instead of
/// returning an error (an Arrow schema in the footer that its IPC reader does not know, for one): such a panic is
/// an error of the file. Nothing that the reader touched is used afterwards.
pub(crate) fn guarded<T, E: From<SealError>>(read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("the reader gave up");
        Err(SealError::Parquet(text.to_owned()).into())
    })
}

/// The manifest of a file, checked against the file's own row count.
///
/// # Errors
/// If the bytes are no file of ours.
pub fn read_manifest(file: &Bytes) -> Result<Manifest, SealError> {
    guarded(|| manifest_of(&ArrowReaderMetadata::load(file, ArrowReaderOptions::new())?))
}

fn manifest_of(metadata: &ArrowReaderMetadata) -> Result<Manifest, SealError> {
    let footer = metadata.metadata().file_metadata();
    let json = footer
        .key_value_metadata()
        .and_then(|pairs| pairs.iter().find(|pair| pair.key == MANIFEST_KEY))
        .and_then(|pair| pair.value.as_deref())
        .ok_or(SealError::NoManifest)?;
    if json.len() > MANIFEST_BYTES_MAX {
        return Err(SealError::Manifest(format!("{} bytes are more than {MANIFEST_BYTES_MAX}", json.len())));
    }
    // The version first: what a later one means is not known here.
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let wrong = |error: serde_json::Error| SealError::Manifest(error.to_string());
    let Version { version } = serde_json::from_str(json).map_err(wrong)?;
    if version == 0 || version > VERSION {
        return Err(SealError::Version { found: version });
    }
    let stored: Stored = serde_json::from_str(json).map_err(wrong)?;
    let file = u64::try_from(footer.num_rows()).unwrap_or(0);
    if stored.manifest.rows != file {
        return Err(SealError::Rows { manifest: stored.manifest.rows, file });
    }
    Ok(stored.manifest)
}

/// All rows of a file, in their order. Strings are whole, not dictionaries.
///
/// # Errors
/// If the bytes are no file of ours, or are damaged.
pub fn read_parquet(file: &Bytes) -> Result<(Manifest, RecordBatch), SealError> {
    guarded(|| rows_of(file))
}

fn rows_of(file: &Bytes) -> Result<(Manifest, RecordBatch), SealError> {
    let metadata = ArrowReaderMetadata::load(file, ArrowReaderOptions::new())?;
    let manifest = manifest_of(&metadata)?;
    let schema = Arc::clone(metadata.schema());
    TableSchema::from_arrow(&schema)?;
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), metadata).build()?;
    let batches = reader.collect::<Result<Vec<_>, ArrowError>>()?;
    let plain = Arc::new(schema.as_ref().clone().with_metadata(std::collections::HashMap::new()));
    let rows = concat_batches(&plain, &batches)?;
    if rows.num_rows() as u64 != manifest.rows {
        return Err(SealError::Rows { manifest: manifest.rows, file: rows.num_rows() as u64 });
    }
    Ok((manifest, rows))
}

#[cfg(test)]
mod tests;
