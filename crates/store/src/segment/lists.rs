//! Arrays as bytes: the elements of a row one after another, each with a byte that says whether it is null.

use arrow_array::builder::{ArrayBuilder, Float64Builder, Int64Builder, ListBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, ListArray};
use std::sync::Arc;

use super::error::FormatError;
use crate::schema::ColumnType;

const NULL: u8 = 0;
const VALUE: u8 = 1;

/// Appends one row's elements. The list's item type is one of the three a column can have.
pub(crate) fn encode(items: &dyn Array, out: &mut Vec<u8>) {
    for index in 0..items.len() {
        if items.is_null(index) {
            out.push(NULL);
            continue;
        }
        out.push(VALUE);
        if let Some(longs) = items.as_primitive_opt::<Int64Type>() {
            out.extend_from_slice(&longs.value(index).to_le_bytes());
        } else if let Some(doubles) = items.as_primitive_opt::<Float64Type>() {
            out.extend_from_slice(&doubles.value(index).to_le_bytes());
        } else if let Some(strings) = items.as_string_opt::<i32>() {
            let text = strings.value(index);
            out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// One row of an array column as Arrow would have it.
pub(crate) fn row_bytes(array: &ListArray, row: usize, out: &mut Vec<u8>) {
    out.clear();
    if array.is_valid(row) {
        encode(array.value(row).as_ref(), out);
    }
}

/// Builds an Arrow list from rows of bytes.
pub(crate) enum Decoder {
    Strings(ListBuilder<StringBuilder>),
    Longs(ListBuilder<Int64Builder>),
    Doubles(ListBuilder<Float64Builder>),
}

impl Decoder {
    /// `None` if the type is no array.
    pub(crate) fn new(ty: ColumnType) -> Option<Self> {
        match ty {
            ColumnType::ArrayString => Some(Self::Strings(ListBuilder::new(StringBuilder::new()))),
            ColumnType::ArrayLong => Some(Self::Longs(ListBuilder::new(Int64Builder::new()))),
            ColumnType::ArrayDouble => Some(Self::Doubles(ListBuilder::new(Float64Builder::new()))),
            _ => None,
        }
    }

    pub(crate) fn push(&mut self, row: Option<&[u8]>) -> Result<(), FormatError> {
        let bytes = row.unwrap_or(&[]);
        match self {
            Self::Strings(list) => {
                each(bytes, variable, |item| {
                    let text = item.map(std::str::from_utf8).transpose().map_err(|_| damaged())?;
                    list.values().append_option(text);
                    Ok(())
                })?;
                list.append(row.is_some());
            }
            Self::Longs(list) => {
                each(bytes, fixed, |item| {
                    list.values().append_option(item.map(i64::from_le_bytes));
                    Ok(())
                })?;
                list.append(row.is_some());
            }
            Self::Doubles(list) => {
                each(bytes, fixed, |item| {
                    list.values().append_option(item.map(f64::from_le_bytes));
                    Ok(())
                })?;
                list.append(row.is_some());
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> ArrayRef {
        fn done<T: ArrayBuilder>(mut list: ListBuilder<T>) -> ArrayRef {
            Arc::new(list.finish())
        }
        match self {
            Self::Strings(list) => done(list),
            Self::Longs(list) => done(list),
            Self::Doubles(list) => done(list),
        }
    }
}

fn damaged() -> FormatError {
    FormatError::Structure("an array's elements do not fit its bytes".to_owned())
}

/// Takes the elements apart with `take`, and hands each to `sink`.
fn each<'a, T>(
    mut bytes: &'a [u8],
    take: impl Fn(&'a [u8]) -> Option<(T, &'a [u8])>,
    mut sink: impl FnMut(Option<T>) -> Result<(), FormatError>,
) -> Result<(), FormatError> {
    while let Some((flag, rest)) = bytes.split_first() {
        bytes = match *flag {
            NULL => {
                sink(None)?;
                rest
            }
            VALUE => {
                let (item, rest) = take(rest).ok_or_else(damaged)?;
                sink(Some(item))?;
                rest
            }
            _ => return Err(damaged()),
        };
    }
    Ok(())
}

fn fixed(bytes: &[u8]) -> Option<([u8; 8], &[u8])> {
    bytes.split_first_chunk::<8>().map(|(item, rest)| (*item, rest))
}

fn variable(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}
