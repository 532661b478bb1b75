//! Search in text, regular expressions, numbers in and out of text.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, BooleanArray, Int64Array, StringArray};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};
use regex::Regex;

use super::scalar::{Constants, Scalar, all_text, answer, array_arg, returns_boolean, returns_long, returns_text};

/// Memory one compiled regular expression may take.
const REGEX_BYTES_MAX: usize = 4 << 20;

pub fn functions() -> Vec<Scalar> {
    vec![
        Scalar::new("contains_string", all_text, returns_boolean, |args| contains(args, false)),
        Scalar::new("icontains_string", all_text, returns_boolean, |args| contains(args, true)),
        Scalar::new("regexp_extract", text_text_long, returns_text, regexp_extract),
        Scalar::new("regexp_like", all_text, returns_boolean, regexp_like),
        Scalar::new("parse_long", text_long, returns_long, parse_long),
    ]
}

/// A regular expression with a bound on its size.
///
/// # Errors
/// If the pattern is none, or too large.
pub fn compile(pattern: &str) -> Result<Regex> {
    regex::RegexBuilder::new(pattern)
        .size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|error| DataFusionError::Execution(format!("regular expression {pattern:?}: {error}")))
}

fn contains(args: &ScalarFunctionArgs, fold: bool) -> Result<ColumnarValue> {
    let (texts, needles) = (array_arg(args, 0)?, array_arg(args, 1)?);
    let found: BooleanArray = texts
        .as_string::<i32>()
        .iter()
        .zip(needles.as_string::<i32>())
        .map(|(text, needle)| {
            let (text, needle) = (text?, needle?);
            Some(if fold { text.to_lowercase().contains(&needle.to_lowercase()) } else { text.contains(needle) })
        })
        .collect();
    answer(args, Arc::new(found))
}

fn text_text_long(types: &[DataType]) -> Result<Vec<DataType>> {
    match types.len() {
        3 => Ok(vec![DataType::Utf8, DataType::Utf8, DataType::Int64]),
        _ => plan_err!("REGEXP_EXTRACT takes a text, a pattern and an index"),
    }
}

fn regexp_extract(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let regex = compile(&Constants(args).needed(1, "the pattern")?)?;
    let (texts, groups) = (array_arg(args, 0)?, array_arg(args, 2)?);
    let found: StringArray = texts
        .as_string::<i32>()
        .iter()
        .zip(groups.as_primitive::<Int64Type>())
        .map(|(text, group)| {
            let group = usize::try_from(group.unwrap_or(0)).ok()?;
            regex.captures(text?)?.get(group).map(|found| found.as_str())
        })
        .collect();
    answer(args, Arc::new(found))
}

fn regexp_like(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let regex = compile(&Constants(args).needed(1, "the pattern")?)?;
    let texts = array_arg(args, 0)?;
    let found: BooleanArray = texts.as_string::<i32>().iter().map(|text| Some(regex.is_match(text?))).collect();
    answer(args, Arc::new(found))
}

fn text_long(types: &[DataType]) -> Result<Vec<DataType>> {
    match types.len() {
        1 => Ok(vec![DataType::Utf8]),
        2 => Ok(vec![DataType::Utf8, DataType::Int64]),
        _ => plan_err!("PARSE_LONG takes a text and a radix"),
    }
}

fn parse_long(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let texts = array_arg(args, 0)?;
    let radix = match args.args.get(1) {
        Some(_) => {
            let radixes = array_arg(args, 1)?;
            let radixes = radixes.as_primitive::<Int64Type>();
            if radixes.is_empty() || radixes.is_null(0) { 10 } else { radixes.value(0) }
        }
        None => 10,
    };
    let Some(radix) = u32::try_from(radix).ok().filter(|radix| (2..=36).contains(radix)) else {
        return Err(DataFusionError::Execution(format!("radix {radix} is not between 2 and 36")));
    };
    let longs: Int64Array = texts
        .as_string::<i32>()
        .iter()
        .map(|text| {
            let text = text?.trim();
            let digits = if radix == 16 { text.strip_prefix("0x").unwrap_or(text) } else { text };
            i64::from_str_radix(digits, radix).ok()
        })
        .collect();
    answer(args, Arc::new(longs))
}
