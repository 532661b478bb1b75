//! Multi-value helpers: a plain string is an array of one.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, ListArray, ListBuilder, StringBuilder};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use super::scalar::{Scalar, all_text, answer, array_arg, as_given};

pub fn functions() -> Vec<Scalar> {
    vec![
        Scalar::new("mv_to_array", as_given, list_of, mv_to_array),
        Scalar::new("array_to_mv", as_given, list_of, mv_to_array),
        Scalar::new("string_to_mv", all_text, |_| Ok(text_list()), string_to_array),
        Scalar::new("string_to_array", all_text, |_| Ok(text_list()), string_to_array),
    ]
}

fn text_list() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

fn list_of(types: &[DataType]) -> Result<DataType> {
    match types {
        [list @ (DataType::List(_) | DataType::LargeList(_))] => Ok(list.clone()),
        [item] => Ok(DataType::List(Arc::new(Field::new_list_field(item.clone(), true)))),
        _ => plan_err!("takes one argument"),
    }
}

fn mv_to_array(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let values = array_arg(args, 0)?;
    if matches!(values.data_type(), DataType::List(_) | DataType::LargeList(_)) {
        return answer(args, values);
    }
    let lengths = (0..values.len()).map(|row| usize::from(values.is_valid(row)));
    let offsets = datafusion::arrow::buffer::OffsetBuffer::from_lengths(lengths);
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let nulls = values.nulls().cloned();
    let kept = match &nulls {
        Some(nulls) => {
            let keep = datafusion::arrow::array::BooleanArray::new(nulls.inner().clone(), None);
            datafusion::arrow::compute::filter(&values, &keep)?
        }
        None => values,
    };
    answer(args, Arc::new(ListArray::try_new(field, offsets, kept, nulls)?))
}

fn string_to_array(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (texts, separators) = (array_arg(args, 0)?, array_arg(args, 1)?);
    let mut out = ListBuilder::new(StringBuilder::new());
    for (text, separator) in texts.as_string::<i32>().iter().zip(separators.as_string::<i32>()) {
        match (text, separator) {
            (Some(text), Some("")) => {
                text.chars().for_each(|c| out.values().append_value(c.to_string()));
                out.append(true);
            }
            (Some(text), Some(separator)) => {
                text.split(separator).for_each(|part| out.values().append_value(part));
                out.append(true);
            }
            _ => out.append(false),
        }
    }
    answer(args, Arc::new(out.finish()))
}
