//! From Arrow arrays to columns: live ones, whose codes are the table's ids, and ones for a file, whose codes are
//! the places of the segment's own sorted strings.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, DictionaryArray, StringArray};
use arrow_schema::{DataType, Field, TimeUnit};

use super::bitmap::Bitmap;
use super::codes::{Codes, Packing, Remap};
use super::column::{Column, Data};
use super::error::SegmentError;
use super::lists;
use super::longs::Longs;
use super::packing::BLOCK_ROWS;
use super::plain::Plain;
use super::strings;
use crate::dictionary::{Interner, NULL_ID, STRING_BYTES_MAX, TableDictionary, hash_string};
use crate::schema::{ColumnType, TYPE_METADATA_JSON, TYPE_METADATA_KEY};

/// A column whose strings are nearly unique is kept plain, from this many rows on.
const PLAIN_ROWS_MIN: usize = 256;

/// True if so many strings of so many rows are nearly unique. A string that comes back in one row of ten of its segment
/// comes back more often in the table, where all segments share the dictionary.
fn nearly_unique(strings: usize, rows: usize) -> bool {
    rows >= PLAIN_ROWS_MIN && strings > rows / 10 * 9
}

/// Strings for a column file.
pub(crate) enum FileStrings {
    /// Codes, how many strings there are, and the dictionary section that has those of codes 1.. in byte order.
    Coded {
        codes: Vec<u32>,
        strings: usize,
        dictionary: Vec<u8>,
    },
    Plain(Plain),
}

/// The column type of an Arrow field. A dictionary of strings is a string column.
pub(crate) fn column_type(field: &Field) -> Result<ColumnType, SegmentError> {
    let unsupported =
        || SegmentError::UnsupportedType { column: field.name().clone(), found: field.data_type().to_string() };
    let json = field.metadata().get(TYPE_METADATA_KEY).is_some_and(|ty| ty == TYPE_METADATA_JSON);
    Ok(match field.data_type() {
        DataType::Utf8 if json => ColumnType::Json,
        DataType::Utf8 => ColumnType::String,
        DataType::Dictionary(key, value) if **key == DataType::Int32 && **value == DataType::Utf8 => ColumnType::String,
        DataType::Int64 => ColumnType::Long,
        DataType::Float64 => ColumnType::Double,
        DataType::Boolean => ColumnType::Boolean,
        DataType::Timestamp(TimeUnit::Millisecond, None) => ColumnType::Timestamp,
        DataType::List(item) => match item.data_type() {
            DataType::Utf8 => ColumnType::ArrayString,
            DataType::Int64 => ColumnType::ArrayLong,
            DataType::Float64 => ColumnType::ArrayDouble,
            _ => return Err(unsupported()),
        },
        _ => return Err(unsupported()),
    })
}

/// A live column.
pub(crate) fn live_column(
    name: &str,
    ty: ColumnType,
    array: &ArrayRef,
    dictionary: &TableDictionary,
) -> Result<Column, SegmentError> {
    if ty != ColumnType::String {
        return other_column(name, ty, array, false);
    }
    let cast;
    let strings = match array.as_string_opt::<i32>() {
        Some(strings) => strings,
        None => {
            cast = arrow_cast::cast(array, &DataType::Utf8).map_err(|_| unexpected(name, array))?;
            cast.as_string_opt::<i32>().ok_or_else(|| unexpected(name, array))?
        }
    };
    let column = dictionary.column(name);
    let (rows, nulls) = (strings.len(), strings.null_count());
    if !column.nearly_unique(rows - nulls)
        && let Ok(distinct) = column.intern(strings.iter().flatten())
    {
        let mut ids = distinct.into_iter();
        let codes: Vec<u32> =
            (0..rows).map(|row| if strings.is_null(row) { NULL_ID } else { ids.next().unwrap_or(NULL_ID) }).collect();
        let entries = codes.iter().max().map_or(0, |max| *max as usize) + 1;
        let packing = Packing::pack(&codes, entries);
        let codes = Codes { packing, entries, remap: Remap::Identity, dictionary: column, postings: None };
        return Ok(Column::new(name, ty, rows, nulls, None, Data::Codes(codes)));
    }
    let data = Data::Plain(plain_text(strings, false));
    Ok(Column::new(name, ty, rows, nulls, Bitmap::from_nulls(strings.nulls()), data))
}

/// A column whose values are the same in memory and in the file, but for compression: everything but strings.
pub(crate) fn other_column(
    name: &str,
    ty: ColumnType,
    array: &ArrayRef,
    compress: bool,
) -> Result<Column, SegmentError> {
    let wrong = || unexpected(name, array);
    let validity = Bitmap::from_nulls(array.nulls());
    let data = match ty {
        ColumnType::Long => {
            let values = array.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
            Data::Longs(Longs::pack(values.values(), validity.as_ref()))
        }
        ColumnType::Timestamp => {
            let values = array.as_primitive_opt::<TimestampMillisecondType>().ok_or_else(wrong)?;
            Data::Longs(Longs::pack(values.values(), validity.as_ref()))
        }
        ColumnType::Double => {
            let values = array.as_primitive_opt::<Float64Type>().ok_or_else(wrong)?;
            let value = |row: usize| if values.is_valid(row) { values.value(row) } else { 0.0 };
            Data::Doubles((0..values.len()).map(value).collect())
        }
        ColumnType::Boolean => Data::Booleans(Bitmap::from_booleans(array.as_boolean_opt().ok_or_else(wrong)?)),
        ColumnType::String | ColumnType::Json => {
            Data::Plain(plain_text(array.as_string_opt::<i32>().ok_or_else(wrong)?, compress))
        }
        ColumnType::ArrayString | ColumnType::ArrayLong | ColumnType::ArrayDouble => {
            let list = array.as_list_opt::<i32>().ok_or_else(wrong)?;
            let mut rows: Vec<Vec<u8>> = vec![Vec::new(); list.len()];
            for (row, bytes) in rows.iter_mut().enumerate() {
                lists::row_bytes(list, row, bytes);
            }
            Data::Plain(Plain::pack(compress, rows.iter().map(Vec::as_slice)))
        }
    };
    Ok(Column::new(name, ty, array.len(), array.null_count(), validity, data))
}

fn unexpected(name: &str, array: &ArrayRef) -> SegmentError {
    SegmentError::UnsupportedType { column: name.to_owned(), found: array.data_type().to_string() }
}

fn plain_text(strings: &StringArray, compress: bool) -> Plain {
    let value = |row: usize| if strings.is_valid(row) { strings.value(row).as_bytes() } else { &[] };
    Plain::pack(compress, (0..strings.len()).map(value))
}

/// Codes for a file, unless the column is nearly unique or has a string too long for a dictionary.
pub(crate) fn file_strings(name: &str, array: &ArrayRef) -> Result<FileStrings, SegmentError> {
    if let Some(strings) = array.as_string_opt::<i32>() {
        return Ok(code_strings(strings).unwrap_or_else(|| FileStrings::Plain(plain_text(strings, true))));
    }
    if let Some(coded) = array.as_dictionary_opt::<Int32Type>() {
        return code_dictionary(name, coded);
    }
    Err(unexpected(name, array))
}

fn code_strings(strings: &StringArray) -> Option<FileStrings> {
    let mut interner = Interner::default();
    let mut arrival = Vec::with_capacity(strings.len());
    for (row, string) in strings.iter().enumerate() {
        arrival.push(match string {
            Some(string) => interner.intern(hash_string(string), string).ok()?,
            None => NULL_ID,
        });
        if row % (64 * BLOCK_ROWS) == 64 * BLOCK_ROWS - 1 && nearly_unique(interner.len(), row) {
            return None;
        }
    }
    let distinct = interner.len() - 1;
    let valued = strings.len() - strings.null_count();
    if nearly_unique(distinct, valued) {
        return None;
    }
    let texts: Vec<&str> = (1..=distinct).map(|id| interner.get(u32::try_from(id).ok()?)).collect::<Option<_>>()?;
    Some(rank(&texts, &arrival))
}

/// Recodes: `arrival` holds 0 for null, else one more than the place in `texts`. Equal texts become one code, and
/// texts without a row go.
fn rank(texts: &[&str], arrival: &[u32]) -> FileStrings {
    let mut used = vec![false; texts.len() + 1];
    for code in arrival {
        used[*code as usize] = true;
    }
    let mut order: Vec<(u64, u32)> = Vec::with_capacity(texts.len());
    for (place, text) in texts.iter().enumerate() {
        if used[place + 1] {
            order.push((prefix(text), u32::try_from(place).unwrap_or(u32::MAX)));
        }
    }
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| texts[a.1 as usize].cmp(texts[b.1 as usize])));
    let mut strings: Vec<&str> = Vec::with_capacity(order.len());
    let mut codes = vec![NULL_ID; texts.len() + 1];
    for (_, place) in order {
        let text = texts[place as usize];
        if strings.last().is_none_or(|last| *last != text) {
            strings.push(text);
        }
        codes[place as usize + 1] = u32::try_from(strings.len()).unwrap_or(u32::MAX);
    }
    FileStrings::Coded {
        codes: arrival.iter().map(|code| codes[*code as usize]).collect(),
        strings: strings.len(),
        dictionary: strings::write(&strings),
    }
}

/// The first eight bytes as a number that sorts the same way.
fn prefix(text: &str) -> u64 {
    let mut bytes = [0; 8];
    let length = text.len().min(8);
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
    u64::from_be_bytes(bytes)
}

/// Straight from dictionary indices, as a Parquet page or an Arrow array has them.
fn code_dictionary(name: &str, array: &DictionaryArray<Int32Type>) -> Result<FileStrings, SegmentError> {
    let wrong = || SegmentError::UnsupportedType { column: name.to_owned(), found: array.data_type().to_string() };
    let values = array.values().as_string_opt::<i32>().ok_or_else(wrong)?;
    let too_long = values.iter().flatten().any(|text| text.len() > STRING_BYTES_MAX);
    if too_long || nearly_unique(values.len(), array.len() - array.null_count()) {
        let value = |row: usize| match array.key(row) {
            Some(key) if values.is_valid(key) => values.value(key).as_bytes(),
            _ => &[],
        };
        return Ok(FileStrings::Plain(Plain::pack(true, (0..array.len()).map(value))));
    }
    let texts: Vec<&str> = values.iter().map(Option::unwrap_or_default).collect();
    let arrival: Vec<u32> = (0..array.len())
        .map(|row| match array.key(row) {
            Some(key) if values.is_valid(key) => u32::try_from(key + 1).unwrap_or(NULL_ID),
            _ => NULL_ID,
        })
        .collect();
    Ok(rank(&texts, &arrival))
}
