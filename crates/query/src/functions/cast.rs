//! Casts as Druid does them: a value that does not fit is NULL, text follows the session's zone, and a time as
//! text is `2015-09-12 00:46:58`.

use std::sync::Arc;

use base::Timestamp;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Int64Array, StringArray, TimestampMillisecondArray,
};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Date32Type, Float64Type, TimestampMillisecondType};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, lit};
use store::calendar::{DAY_MS, Zone};

use super::scalar::{Constants, MILLIS, Scalar, answer, array_arg, as_given, returns_long, returns_text, returns_time};
use super::time::{parse_all, zone_of};

const SAFE: CastOptions<'static> =
    CastOptions { safe: true, format_options: datafusion::arrow::util::display::FormatOptions::new() };

pub fn functions() -> Vec<Scalar> {
    vec![
        Scalar::new("cast_timestamp", plain_text, returns_time, to_timestamp),
        Scalar::new("cast_date", plain_text, |_| Ok(DataType::Date32), to_date),
        Scalar::new("cast_varchar", plain_text, returns_text, to_varchar),
        Scalar::new("native_text", plain_text, returns_text, native_text),
        Scalar::new("cast_bigint", plain_text, returns_long, to_bigint),
    ]
}

/// An expression read as a time in a zone: what a comparison with a time wants.
pub fn cast_timestamp(expr: Expr, zone: &str) -> Expr {
    let function = ScalarUDF::new_from_impl(Scalar::new("cast_timestamp", plain_text, returns_time, to_timestamp));
    function.call(vec![expr, lit(zone)])
}

/// An expression as text.
pub fn cast_varchar(expr: Expr, zone: &str) -> Expr {
    let function = ScalarUDF::new_from_impl(Scalar::new("cast_varchar", plain_text, returns_text, to_varchar));
    function.call(vec![expr, lit(zone)])
}

/// All strings as plain `Utf8`; everything else as it is.
fn plain_text(types: &[DataType]) -> Result<Vec<DataType>> {
    if types.is_empty() {
        return plan_err!("CAST needs a value");
    }
    let mut types = as_given(types)?;
    for ty in &mut types {
        if matches!(ty, DataType::Utf8View | DataType::LargeUtf8) {
            *ty = DataType::Utf8;
        }
    }
    Ok(types)
}

fn to_timestamp(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let zone = zone_of(Constants(args).text(1)?)?;
    let values = array_arg(args, 0)?;
    let times = match values.data_type() {
        DataType::Utf8 => parse_all(values.as_string::<i32>(), zone),
        DataType::Date32 => {
            let midnights: TimestampMillisecondArray = values
                .as_primitive::<Date32Type>()
                .iter()
                .map(|day| Some(zone.to_utc(i64::from(day?) * DAY_MS)))
                .collect();
            Arc::new(midnights)
        }
        _ => cast_with_options(&values, &MILLIS, &SAFE)?,
    };
    answer(args, times)
}

fn to_date(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let zone = zone_of(Constants(args).text(1)?)?;
    let values = array_arg(args, 0)?;
    let times = match values.data_type() {
        DataType::Utf8 => parse_all(values.as_string::<i32>(), zone),
        DataType::Date32 => return answer(args, values),
        _ => cast_with_options(&values, &MILLIS, &SAFE)?,
    };
    let dates: Date32Array = times
        .as_primitive::<TimestampMillisecondType>()
        .iter()
        .map(|time| i32::try_from(zone.to_local(time?).div_euclid(DAY_MS)).ok())
        .collect();
    answer(args, Arc::new(dates))
}

fn to_varchar(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let zone = zone_of(Constants(args).text(1)?)?;
    to_text(args, array_arg(args, 0)?, zone)
}

fn to_text(args: &ScalarFunctionArgs, values: ArrayRef, zone: Zone) -> Result<ColumnarValue> {
    let texts: Arc<dyn Array> = match values.data_type() {
        DataType::Utf8 => return answer(args, values),
        DataType::Timestamp(..) => {
            let millis = cast_with_options(&values, &MILLIS, &SAFE)?;
            let texts: StringArray = millis
                .as_primitive::<TimestampMillisecondType>()
                .iter()
                .map(|time| time.map(|time| seconds_text(time, zone)))
                .collect();
            Arc::new(texts)
        }
        DataType::Float64 => {
            let texts: StringArray =
                values.as_primitive::<Float64Type>().iter().map(|value| value.map(double_text)).collect();
            Arc::new(texts)
        }
        _ => cast_with_options(&values, &DataType::Utf8, &SAFE)?,
    };
    answer(args, texts)
}

/// As Druid's engine turns a value into text on its own: a time is its milliseconds.
fn native_text(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let values = array_arg(args, 0)?;
    let values = match values.data_type() {
        DataType::Timestamp(..) => {
            cast_with_options(&cast_with_options(&values, &MILLIS, &SAFE)?, &DataType::Int64, &SAFE)?
        }
        _ => values,
    };
    to_text(args, values, Zone::Utc)
}

/// `2015-09-12 00:46:58`.
fn seconds_text(utc_ms: i64, zone: Zone) -> String {
    let local = store::calendar::format_iso(Timestamp(zone.to_local(utc_ms)));
    match local.rsplit_once('.') {
        Some((seconds, _)) => seconds.replacen('T', " ", 1),
        None => local,
    }
}

/// As Java prints a double: always with a point or an exponent.
fn double_text(value: f64) -> String {
    let size = value.abs();
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else if size != 0.0 && !(1e-3..1e7).contains(&size) {
        let text = format!("{value:E}");
        match text.split_once('E') {
            Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
            _ => text,
        }
    } else if value.fract() == 0.0 {
        format!("{value:.1}")
    } else {
        value.to_string()
    }
}

fn to_bigint(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let values = array_arg(args, 0)?;
    let longs: Arc<dyn Array> = match values.data_type() {
        DataType::Utf8 => {
            let longs: Int64Array = values.as_string::<i32>().iter().map(|text| long_of(text?)).collect();
            Arc::new(longs)
        }
        DataType::Timestamp(..) => {
            cast_with_options(&cast_with_options(&values, &MILLIS, &SAFE)?, &DataType::Int64, &SAFE)?
        }
        DataType::Date32 => cast_with_options(&cast_with_options(&values, &MILLIS, &SAFE)?, &DataType::Int64, &SAFE)?,
        _ => cast_with_options(&values, &DataType::Int64, &SAFE)?,
    };
    answer(args, longs)
}

/// `10`, `10.7` (cut towards zero), else nothing.
fn long_of(text: &str) -> Option<i64> {
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
        #[expect(clippy::cast_possible_truncation, reason = "saturates, which is what a cast of a double does")]
        let whole = value.trunc() as i64;
        Some(whole)
    })
}
