//! Arrays of a narrower column type -> arrays of a wider one: the pairs that [`ColumnType::widen`] makes.
//! The text of a number is the same as when it is read into a string column at once.

use std::sync::Arc;

use arrow_array::builder::{Float64Builder, Int64Builder, ListBuilder, StringBuilder};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{ArrowError, DataType};

use super::ColumnType;
use crate::calendar::format_iso;
use crate::rows::text::{push_double, push_json_double, push_json_text, push_long};
use base::Timestamp;

/// Widens an array that holds `from` to `to`.
///
/// # Errors
/// If the array does not hold `from`, or `to` is not wider.
pub fn widen_array(array: &ArrayRef, from: ColumnType, to: ColumnType) -> Result<ArrayRef, ArrowError> {
    if from == to {
        return Ok(Arc::clone(array));
    }
    if *array.data_type() != from.arrow() && *array.data_type() != DataType::Null {
        return Err(ArrowError::CastError(format!("a {from} column holds {}", array.data_type())));
    }
    match (from, to) {
        (ColumnType::Boolean, ColumnType::Long | ColumnType::Double)
        | (ColumnType::Long, ColumnType::Double)
        | (ColumnType::ArrayLong, ColumnType::ArrayDouble) => arrow_cast::cast(array, &to.arrow()),
        (_, ColumnType::String | ColumnType::Json) => texts(array, from, to == ColumnType::Json),
        (ColumnType::ArrayLong | ColumnType::ArrayDouble, ColumnType::ArrayString) => Ok(string_lists(array, from)),
        (_, ColumnType::ArrayString | ColumnType::ArrayLong | ColumnType::ArrayDouble) if !from.is_array() => {
            let inner = widen_array(array, from, to.element())?;
            Ok(wrap(&inner, to))
        }
        _ => Err(ArrowError::CastError(format!("a {from} column does not widen to {to}"))),
    }
}

/// The value at a row as text, or as JSON text.
fn push_value(out: &mut String, array: &dyn Array, ty: ColumnType, row: usize, json: bool) {
    match ty {
        ColumnType::String if json => push_json_text(out, array.as_string::<i32>().value(row)),
        ColumnType::String | ColumnType::Json => out.push_str(array.as_string::<i32>().value(row)),
        ColumnType::Long => push_long(out, array.as_primitive::<Int64Type>().value(row)),
        ColumnType::Double if json => push_json_double(out, array.as_primitive::<Float64Type>().value(row)),
        ColumnType::Double => push_double(out, array.as_primitive::<Float64Type>().value(row)),
        ColumnType::Boolean => out.push_str(if array.as_boolean().value(row) { "true" } else { "false" }),
        ColumnType::Timestamp => {
            let text = format_iso(Timestamp(array.as_primitive::<TimestampMillisecondType>().value(row)));
            if json { push_json_text(out, &text) } else { out.push_str(&text) }
        }
        ColumnType::ArrayString | ColumnType::ArrayLong | ColumnType::ArrayDouble => {
            let elements = array.as_list::<i32>().value(row);
            out.push('[');
            for index in 0..elements.len() {
                if index > 0 {
                    out.push(',');
                }
                if elements.is_null(index) {
                    out.push_str("null");
                } else {
                    push_value(out, elements.as_ref(), ty.element(), index, true);
                }
            }
            out.push(']');
        }
    }
}

fn texts(array: &ArrayRef, from: ColumnType, json: bool) -> Result<ArrayRef, ArrowError> {
    let mut builder = StringBuilder::new();
    let mut bytes = 0_usize;
    let mut text = String::new();
    for row in 0..array.len() {
        if array.is_null(row) {
            builder.append_null();
            continue;
        }
        text.clear();
        push_value(&mut text, array.as_ref(), from, row, json);
        bytes += text.len();
        if i32::try_from(bytes).is_err() {
            return Err(ArrowError::CastError(format!("a {from} column as text passes 2 GiB")));
        }
        builder.append_value(&text);
    }
    Ok(Arc::new(builder.finish()))
}

fn string_lists(array: &ArrayRef, from: ColumnType) -> ArrayRef {
    let mut builder = ListBuilder::new(StringBuilder::new());
    let mut text = String::new();
    for list in array.as_list::<i32>().iter() {
        if let Some(elements) = &list {
            for index in 0..elements.len() {
                if elements.is_null(index) {
                    builder.values().append_null();
                    continue;
                }
                text.clear();
                push_value(&mut text, elements.as_ref(), from.element(), index, false);
                builder.values().append_value(&text);
            }
        }
        builder.append(list.is_some());
    }
    Arc::new(builder.finish())
}

/// Every value a list of itself; a null stays a null.
fn wrap(array: &ArrayRef, to: ColumnType) -> ArrayRef {
    match to {
        ColumnType::ArrayLong => {
            let mut builder = ListBuilder::new(Int64Builder::new());
            for value in array.as_primitive::<Int64Type>().iter() {
                if let Some(value) = value {
                    builder.values().append_value(value);
                }
                builder.append(value.is_some());
            }
            Arc::new(builder.finish())
        }
        ColumnType::ArrayDouble => {
            let mut builder = ListBuilder::new(Float64Builder::new());
            for value in array.as_primitive::<Float64Type>().iter() {
                if let Some(value) = value {
                    builder.values().append_value(value);
                }
                builder.append(value.is_some());
            }
            Arc::new(builder.finish())
        }
        _ => {
            let mut builder = ListBuilder::new(StringBuilder::new());
            for value in array.as_string::<i32>() {
                if let Some(value) = value {
                    builder.values().append_value(value);
                }
                builder.append(value.is_some());
            }
            Arc::new(builder.finish())
        }
    }
}
