//! A batch of sorted rows -> the column file.

use arrow_array::RecordBatch;
use arrow_buffer::{Buffer, NullBuffer};
use arrow_schema::Field;

use super::bitmap::Bitmap;
use super::build::{FileStrings, column_type, file_strings, other_column};
use super::codes::{Packing, Postings};
use super::column::Data;
use super::error::SegmentError;
use super::format::{self, ColumnEntry, ColumnParts, Encoding};
use super::longs::Longs;
use super::plain::Plain;
use crate::schema::{ColumnType, TIME_COLUMN};

/// Columns with at least this many strings get postings.
pub(crate) const POSTINGS_STRINGS_MIN: usize = 1_024;

/// The column file of `batch`.
pub(crate) fn encode(batch: &RecordBatch) -> Result<Vec<u8>, SegmentError> {
    let rows = batch.num_rows();
    if rows > format::ROWS_MAX {
        return Err(SegmentError::TooLarge { what: "rows of a segment", found: rows, max: format::ROWS_MAX });
    }
    let (mut columns, mut time, mut sorted) = (Vec::with_capacity(batch.num_columns()), None, false);
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let ty = column_type(field)?;
        let parts = match ty {
            ColumnType::String => string_parts(field, file_strings(field.name(), array)?, array.logical_nulls()),
            _ => {
                let column = other_column(field.name(), ty, array, true)?;
                if let (TIME_COLUMN, Data::Longs(longs)) = (field.name().as_str(), &column.data) {
                    time = longs.range();
                    sorted = longs.is_sorted(rows);
                }
                value_parts(field, ty, column.nulls, column.validity.as_ref(), &column.data)
            }
        };
        columns.push(parts);
    }
    check_sizes(&columns)?;
    Ok(format::write(sorted, rows, time, &columns))
}

/// Word positions and lengths of integer columns are counted in 32 bits.
fn check_sizes(columns: &[ColumnParts]) -> Result<(), SegmentError> {
    let max = u32::MAX as usize;
    for column in columns {
        for (kind, bytes) in &column.sections {
            if *kind == format::LONG_WORDS && bytes.len() / 4 > max {
                return Err(SegmentError::TooLarge { what: "words of an integer column", found: bytes.len() / 4, max });
            }
        }
    }
    Ok(())
}

fn string_parts(field: &Field, strings: FileStrings, nulls: Option<NullBuffer>) -> ColumnParts {
    let null_count = nulls.as_ref().map_or(0, NullBuffer::null_count);
    match strings {
        FileStrings::Plain(plain) => {
            let validity = Bitmap::from_nulls(nulls.as_ref());
            value_parts(field, ColumnType::String, null_count, validity.as_ref(), &Data::Plain(plain))
        }
        FileStrings::Coded { codes, strings, dictionary } => {
            let packing = Packing::pack(&codes, strings + 1);
            let width = super::packing::width_of(u32::try_from(strings).unwrap_or(u32::MAX));
            let mut sections = vec![match &packing {
                Packing::Bytes(bytes) => (format::CODES_BYTES, bytes.inner().clone()),
                Packing::Words { words, .. } => (format::CODES_WORDS, words.inner().clone()),
            }];
            sections.push((format::DICTIONARY, Buffer::from(dictionary)));
            if strings >= POSTINGS_STRINGS_MIN {
                let postings = Postings::build(&codes, strings + 1);
                sections.push((format::POSTINGS_STARTS, postings.starts.inner().clone()));
                sections.push((format::POSTINGS_ROWS, postings.rows.inner().clone()));
            }
            let mut entry = entry(field, ColumnType::String, Encoding::Codes, null_count);
            entry.width = width;
            entry.strings = u32::try_from(strings).unwrap_or(u32::MAX);
            ColumnParts { entry, sections }
        }
    }
}

fn value_parts(field: &Field, ty: ColumnType, nulls: usize, validity: Option<&Bitmap>, data: &Data) -> ColumnParts {
    let (encoding, mut sections) = match data {
        Data::Longs(longs) => (
            Encoding::Integers,
            vec![(format::LONG_DIRECTORY, long_directory(longs)), (format::LONG_WORDS, longs.words.inner().clone())],
        ),
        Data::Doubles(doubles) => (Encoding::Doubles, vec![(format::DOUBLES, doubles.inner().clone())]),
        Data::Booleans(bits) => (Encoding::Bits, vec![(format::BITS, bits.buffer())]),
        Data::Plain(plain) => (
            Encoding::Plain,
            vec![(format::PLAIN_DIRECTORY, plain_directory(plain)), (format::PLAIN_DATA, plain.data.clone())],
        ),
        // Coded strings are written by `string_parts`; live codes mean nothing outside their node.
        Data::Codes(_) => (Encoding::Codes, Vec::new()),
    };
    if let Some(validity) = validity {
        sections.push((format::VALIDITY, validity.buffer()));
    }
    ColumnParts { entry: entry(field, ty, encoding, nulls), sections }
}

fn entry(field: &Field, ty: ColumnType, encoding: Encoding, nulls: usize) -> ColumnEntry {
    ColumnEntry {
        name: field.name().clone(),
        ty,
        encoding,
        width: 0,
        strings: 0,
        nulls: nulls as u64,
        sections: Vec::new(),
    }
}

fn long_directory(longs: &Longs) -> Buffer {
    let mut bytes = Vec::with_capacity(longs.blocks.len() * 24);
    for block in &longs.blocks {
        bytes.extend_from_slice(&block.min.to_le_bytes());
        bytes.extend_from_slice(&block.max.to_le_bytes());
        bytes.extend_from_slice(&block.start.to_le_bytes());
        bytes.extend_from_slice(&[block.width, 0, 0, 0]);
    }
    bytes.into()
}

fn plain_directory(plain: &Plain) -> Buffer {
    let numbers = plain.blocks.iter().flat_map(|block| [block.start, block.stored, block.unpacked]);
    numbers.flat_map(u64::to_le_bytes).collect::<Vec<u8>>().into()
}
