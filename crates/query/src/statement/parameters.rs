//! Values for `$n`: put into the tree as literals, so that a function that wants a constant gets one.

use std::ops::ControlFlow;

use datafusion::arrow::datatypes::DataType as ArrowType;
use datafusion::sql::sqlparser::ast::{
    Array, DataType, ExactNumberInfo, Expr, Query, Value as SqlValue, ValueWithSpan, Visit, VisitMut, Visitor,
    VisitorMut,
};
use serde_json::Value;
use store::calendar::Zone;

use super::ast::{boolean, call, cast, nested, null, number, text};
use super::time::timestamp_literal;
use crate::error::QueryError;
use crate::request::Parameter;

/// Replaces every `$n` by the n-th value.
///
/// # Errors
/// If there are fewer values than parameters, or a value does not fit its type.
pub fn bind(query: &mut Query, parameters: &[Parameter], zone: Zone) -> Result<(), QueryError> {
    match query.visit(&mut Binder { parameters, zone }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Binder<'a> {
    parameters: &'a [Parameter],
    zone: Zone,
}

impl VisitorMut for Binder<'_> {
    type Break = QueryError;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<QueryError> {
        let Expr::Value(ValueWithSpan { value: SqlValue::Placeholder(name), .. }) = expr else {
            return ControlFlow::Continue(());
        };
        match self.literal(name) {
            Ok(literal) => {
                *expr = literal;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Binder<'_> {
    fn literal(&self, name: &str) -> Result<Expr, QueryError> {
        let at = name.trim_start_matches('$').parse::<usize>().unwrap_or(0);
        let parameter = at.checked_sub(1).and_then(|at| self.parameters.get(at)).ok_or_else(|| {
            let count = self.parameters.len();
            QueryError::validation(format!("parameter {at} has no value: {count} were given"))
        })?;
        literal(parameter, self.zone)
            .map_err(|error| QueryError::validation(format!("parameter {at}: {}", error.message)))
    }
}

fn literal(parameter: &Parameter, zone: Zone) -> Result<Expr, QueryError> {
    let sql_type = parameter.sql_type.trim().to_ascii_uppercase();
    let value = &parameter.value;
    let wrong = || QueryError::validation(format!("{value} is no {sql_type}"));
    if value.is_null() {
        return Ok(null());
    }
    Ok(match sql_type.as_str() {
        "BIGINT" | "INTEGER" | "INT" | "SMALLINT" | "TINYINT" | "LONG" => {
            nested(number(whole(value).ok_or_else(wrong)?))
        }
        "DOUBLE" | "FLOAT" | "REAL" | "DECIMAL" | "NUMERIC" => {
            let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).ok_or_else(wrong)?;
            cast(text(number.to_string()), DataType::Double(ExactNumberInfo::None))
        }
        "BOOLEAN" => boolean(truth(value).ok_or_else(wrong)?),
        "TIMESTAMP" | "DATE" => {
            let millis = match value {
                Value::String(text) => timestamp_literal(text, zone)?,
                other => whole(other).ok_or_else(wrong)?,
            };
            let time = call("millis_to_timestamp", vec![number(millis)]);
            if sql_type == "DATE" { cast(time, DataType::Date) } else { time }
        }
        "ARRAY" => array(value).ok_or_else(wrong)?,
        _ => match value {
            Value::String(value) => text(value.as_str()),
            Value::Array(_) => array(value).ok_or_else(wrong)?,
            other => text(other.to_string()),
        },
    })
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_i64(),
    }
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "1" => Some(true),
            "false" | "f" | "0" => Some(false),
            _ => None,
        },
        Value::Number(number) => number.as_i64().map(|number| number != 0),
        _ => None,
    }
}

fn array(value: &Value) -> Option<Expr> {
    let items = value.as_array()?.iter().map(|item| match item {
        Value::Null => Some(null()),
        Value::Bool(value) => Some(boolean(*value)),
        Value::String(value) => Some(text(value.as_str())),
        Value::Number(value) => Some(match value.as_i64() {
            Some(whole) => nested(number(whole)),
            None => cast(text(value.to_string()), DataType::Double(ExactNumberInfo::None)),
        }),
        Value::Array(_) | Value::Object(_) => None,
    });
    Some(Expr::Array(Array { elem: items.collect::<Option<Vec<_>>>()?, named: true }))
}

/// Whether parameter `at` (from zero) stands where only a list can: `x = ANY($1)`.
pub fn takes_list(query: &Query, at: usize) -> bool {
    query.visit(&mut ListFinder { name: format!("${}", at + 1) }).is_break()
}

struct ListFinder {
    name: String,
}

impl Visitor for ListFinder {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let Expr::AnyOp { right, .. } = expr else { return ControlFlow::Continue(()) };
        let mut right = &**right;
        while let Expr::Nested(inner) = right {
            right = inner;
        }
        match right {
            Expr::Value(ValueWithSpan { value: SqlValue::Placeholder(name), .. }) if *name == self.name => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// A value of a type, for planning a statement whose values are not known yet.
pub fn example_of(ty: &ArrowType) -> Parameter {
    let (sql_type, value) = match ty {
        ArrowType::Int64 | ArrowType::Int32 | ArrowType::Int16 | ArrowType::Int8 => ("BIGINT", Value::from(0)),
        ArrowType::Float64 | ArrowType::Float32 => ("DOUBLE", Value::from(0.0)),
        ArrowType::Boolean => ("BOOLEAN", Value::from(false)),
        ArrowType::Timestamp(..) => ("TIMESTAMP", Value::from(0)),
        ArrowType::Date32 => ("DATE", Value::from(0)),
        ArrowType::List(_) => ("ARRAY", Value::from(vec!["1970-01-01"])),
        _ => ("VARCHAR", Value::from("1970-01-01")),
    };
    Parameter { sql_type: sql_type.to_owned(), value }
}
