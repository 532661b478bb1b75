//! JSON_VALUE, JSON_QUERY, TO_JSON_STRING over JSON kept as text. Paths are `$.a.b[0]['c']`.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};
use serde_json::Value;

use super::scalar::{Constants, Scalar, all_text, answer, array_arg, as_given, returns_text};

pub fn functions() -> Vec<Scalar> {
    vec![
        Scalar::new("json_value", all_text, returns_text, |args| look_up(args, scalar_text)),
        Scalar::new("json_query", all_text, returns_text, |args| look_up(args, |value| Some(value.to_string()))),
        Scalar::new("to_json_string", as_given, returns_text, to_json_string),
    ]
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Element(usize),
}

fn parse_path(text: &str) -> Option<Vec<Step>> {
    let mut rest = text.trim().strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("['") {
            let end = after.find("']")?;
            steps.push(Step::Field(after.get(..end)?.to_owned()));
            rest = after.get(end + 2..)?;
        } else if let Some(after) = rest.strip_prefix('[') {
            let end = after.find(']')?;
            steps.push(Step::Element(after.get(..end)?.trim().parse().ok()?));
            rest = after.get(end + 1..)?;
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            if end > 0 {
                steps.push(Step::Field(after.get(..end)?.to_owned()));
            }
            rest = after.get(end..)?;
        }
    }
    Some(steps)
}

fn walk<'a>(value: &'a Value, steps: &[Step]) -> Option<&'a Value> {
    steps.iter().try_fold(value, |value, step| match step {
        Step::Field(name) => value.get(name),
        Step::Element(at) => value.get(at),
    })
}

fn look_up(args: &ScalarFunctionArgs, show: fn(&Value) -> Option<String>) -> Result<ColumnarValue> {
    let path = Constants(args).needed(1, "the path")?;
    let steps = parse_path(&path)
        .ok_or_else(|| DataFusionError::Execution(format!("{path:?} is no JSON path; write it as $.a.b[0]")))?;
    let texts = array_arg(args, 0)?;
    let found: StringArray = texts
        .as_string::<i32>()
        .iter()
        .map(|text| {
            let value: Value = serde_json::from_str(text?).ok()?;
            walk(&value, &steps).and_then(show)
        })
        .collect();
    answer(args, Arc::new(found) as ArrayRef)
}

/// A string without quotes; objects and arrays are no values.
fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn to_json_string(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let values = array_arg(args, 0)?;
    let texts: StringArray = match values.data_type() {
        DataType::Utf8 => values
            .as_string::<i32>()
            .iter()
            .map(|text| {
                let text = text?;
                // What is JSON already stays as it is; other text becomes a JSON string.
                let json = text.starts_with(['{', '[']) && serde_json::from_str::<Value>(text).is_ok();
                Some(if json { text.to_owned() } else { Value::from(text).to_string() })
            })
            .collect(),
        DataType::Int64 => values.as_primitive::<Int64Type>().iter().map(|v| v.map(|v| v.to_string())).collect(),
        DataType::Float64 => {
            values.as_primitive::<Float64Type>().iter().map(|v| v.map(|v| Value::from(v).to_string())).collect()
        }
        _ => {
            let texts = datafusion::arrow::compute::cast(&values, &DataType::Utf8)?;
            texts.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
        }
    };
    answer(args, Arc::new(texts) as ArrayRef)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_fields_and_elements() {
        let field = |name: &str| Step::Field(name.into());
        assert_eq!(parse_path("$.a.b[0]['c d']"), Some(vec![field("a"), field("b"), Step::Element(0), field("c d")]));
        assert_eq!((parse_path("$"), parse_path("$.")), (Some(vec![]), Some(vec![])));
        for wrong in ["", "a", "$a", "$[x]", "$['a", "$[1"] {
            assert_eq!(parse_path(wrong), None, "{wrong}");
        }
    }
}
