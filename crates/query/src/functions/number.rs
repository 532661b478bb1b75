//! Rounding that keeps whole numbers whole, division, bits.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, Float64Array, Int64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use super::scalar::{Scalar, answer, array_arg, returns_first, returns_long};

pub fn functions() -> Vec<Scalar> {
    vec![
        Scalar::new("floor", number_scale, returns_first, |args| rounded(args, f64::floor)),
        Scalar::new("ceil", number_scale, returns_first, |args| rounded(args, f64::ceil)),
        Scalar::new("round", number_scale, returns_first, |args| rounded(args, f64::round)),
        Scalar::new("trunc", number_scale, returns_first, |args| rounded(args, f64::trunc)),
        Scalar::new("safe_divide", both_alike, returns_first, safe_divide),
        Scalar::new("div", both_alike, returns_long, div),
        Scalar::new("bitwise_and", longs, returns_long, |args| bits(args, |a, b| a & b)),
        Scalar::new("bitwise_or", longs, returns_long, |args| bits(args, |a, b| a | b)),
        Scalar::new("bitwise_xor", longs, returns_long, |args| bits(args, |a, b| a ^ b)),
        Scalar::new("bitwise_shift_left", longs, returns_long, |args| bits(args, |a, b| a.wrapping_shl(low(b)))),
        Scalar::new("bitwise_shift_right", longs, returns_long, |args| bits(args, |a, b| a.wrapping_shr(low(b)))),
        Scalar::new("bitwise_complement", longs, returns_long, complement),
    ]
}

/// The low six bits of a shift count, as Java takes them.
fn low(count: i64) -> u32 {
    u32::try_from(count & 63).unwrap_or(0)
}

fn number(ty: &DataType) -> DataType {
    if ty.is_integer() { DataType::Int64 } else { DataType::Float64 }
}

fn number_scale(types: &[DataType]) -> Result<Vec<DataType>> {
    match types {
        [value] => Ok(vec![number(value)]),
        [value, _] => Ok(vec![number(value), DataType::Int64]),
        _ => plan_err!("takes a number and, if you like, how many digits"),
    }
}

fn both_alike(types: &[DataType]) -> Result<Vec<DataType>> {
    match types {
        [left, right] => {
            let ty = if number(left) == DataType::Int64 && number(right) == DataType::Int64 {
                DataType::Int64
            } else {
                DataType::Float64
            };
            Ok(vec![ty.clone(), ty])
        }
        _ => plan_err!("takes two numbers"),
    }
}

fn longs(types: &[DataType]) -> Result<Vec<DataType>> {
    Ok(vec![DataType::Int64; types.len()])
}

fn rounded(args: &ScalarFunctionArgs, round: fn(f64) -> f64) -> Result<ColumnarValue> {
    let values = array_arg(args, 0)?;
    let digits = match args.args.get(1) {
        Some(_) => {
            let digits = array_arg(args, 1)?;
            let digits = digits.as_primitive::<Int64Type>();
            if digits.is_empty() || digits.is_null(0) { 0 } else { digits.value(0) }
        }
        None => 0,
    };
    if values.data_type() == &DataType::Int64 && digits >= 0 {
        return answer(args, values);
    }
    let scale = 10f64.powi(i32::try_from(digits.clamp(-300, 300)).unwrap_or(0));
    let is_long = values.data_type() == &DataType::Int64;
    let doubles = cast(&values, &DataType::Float64)?;
    let out: Float64Array = doubles.as_primitive::<Float64Type>().unary(|value| {
        let scaled = value * scale;
        if digits == 0 {
            round(value)
        } else if scaled.is_finite() {
            round(scaled) / scale
        } else {
            value
        }
    });
    if is_long { answer(args, cast(&out, &DataType::Int64)?) } else { answer(args, Arc::new(out)) }
}

fn safe_divide(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (left, right) = (array_arg(args, 0)?, array_arg(args, 1)?);
    if left.data_type() == &DataType::Int64 {
        let out: Int64Array = left
            .as_primitive::<Int64Type>()
            .iter()
            .zip(right.as_primitive::<Int64Type>())
            .map(|(left, right)| left?.checked_div(right?))
            .collect();
        return answer(args, Arc::new(out));
    }
    let out: Float64Array = left
        .as_primitive::<Float64Type>()
        .iter()
        .zip(right.as_primitive::<Float64Type>())
        .map(|(left, right)| right.filter(|right| *right != 0.0).and_then(|right| Some(left? / right)))
        .collect();
    answer(args, Arc::new(out))
}

/// Whole quotient, towards zero.
fn div(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (left, right) = (array_arg(args, 0)?, array_arg(args, 1)?);
    let (left, right) = (cast(&left, &DataType::Int64)?, cast(&right, &DataType::Int64)?);
    let mut out = Vec::with_capacity(left.len());
    for (left, right) in left.as_primitive::<Int64Type>().iter().zip(right.as_primitive::<Int64Type>()) {
        out.push(match (left, right) {
            (Some(_), Some(0)) => return exec_err!("division by zero; use SAFE_DIVIDE to get NULL instead"),
            (Some(left), Some(right)) => Some(left.wrapping_div(right)),
            _ => None,
        });
    }
    answer(args, Arc::new(Int64Array::from(out)))
}

fn bits(args: &ScalarFunctionArgs, apply: fn(i64, i64) -> i64) -> Result<ColumnarValue> {
    let (left, right) = (array_arg(args, 0)?, array_arg(args, 1)?);
    let out: Int64Array = left
        .as_primitive::<Int64Type>()
        .iter()
        .zip(right.as_primitive::<Int64Type>())
        .map(|(left, right)| Some(apply(left?, right?)))
        .collect();
    answer(args, Arc::new(out))
}

fn complement(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let values = array_arg(args, 0)?;
    let out: Int64Array = values.as_primitive::<Int64Type>().unary(|value| !value);
    answer(args, Arc::new(out))
}
