//! Druid's quantile functions as one: `approx_quantile(value, share, accuracy)`.

use datafusion::sql::sqlparser::ast::{BinaryOperator, CaseWhen, Expr, UnaryOperator, Value};

use super::ast::{call, nested, no_token, null, number};
use crate::error::QueryError;
use store::sketch::{K_DEFAULT, K_MAX, K_MIN};

/// The arguments of `approx_quantile`, or `None` if the function is another.
pub fn arguments(name: &str, args: &[Expr]) -> Result<Option<Vec<Expr>>, QueryError> {
    let usage = match name {
        "approx_quantile" => "expr, probability[, resolution]",
        "approx_quantile_ds" => "expr, probability[, k]",
        "approx_quantile_fixed_buckets" => {
            "expr, probability, numBuckets, lowerLimit, upperLimit[, outlierHandlingMode]"
        }
        _ => return Ok(None),
    };
    let upper = name.to_uppercase();
    let wrong = || QueryError::validation(format!("{upper} was given the wrong arguments; write {upper}({usage})"));
    let (value, share, rest) = match (name, args) {
        ("approx_quantile_fixed_buckets", [value, share, buckets, low, high, mode @ ..]) if mode.len() < 2 => {
            whole(buckets, "numBuckets", 1, i64::MAX, &upper)?;
            (bounded(value, low, high, mode.first(), &upper)?, share, None)
        }
        ("approx_quantile_fixed_buckets", _) => return Err(wrong()),
        (_, [value, share]) => (value.clone(), share, None),
        (_, [value, share, k]) => (value.clone(), share, Some(k)),
        _ => return Err(wrong()),
    };
    if let Some(found) = as_double(share).filter(|share| !(0.0..=1.0).contains(share)) {
        let message = format!("the probability of {upper} is {found}; it has to be a number from 0 to 1");
        return Err(QueryError::validation(message));
    }
    // The buckets of a histogram say nothing of a sketch, but more of them ask for a closer answer.
    let least = i64::from(if name == "approx_quantile_ds" { K_MIN } else { K_DEFAULT });
    let k = match rest {
        None => i64::from(K_DEFAULT),
        Some(k) => whole(k, usage.rsplit(' ').next().unwrap_or("k").trim_end_matches(']'), 2, i64::MAX, &upper)?,
    };
    if name == "approx_quantile_ds" && (!(i64::from(K_MIN)..=i64::from(K_MAX)).contains(&k) || k.count_ones() != 1) {
        let message = format!("k of {upper} is {k}; it has to be a power of 2 from {K_MIN} to {K_MAX}");
        return Err(QueryError::validation(message));
    }
    Ok(Some(vec![value, share.clone(), number(k.clamp(least, i64::from(K_MAX)))]))
}

/// The value, if it is within the limits: outside of them it is left out, or moved to the limit.
fn bounded(value: &Expr, low: &Expr, high: &Expr, mode: Option<&Expr>, upper: &str) -> Result<Expr, QueryError> {
    if let (Some(low), Some(high)) = (as_double(low), as_double(high))
        && low >= high
    {
        return Err(QueryError::validation(format!(
            "{upper} has the limits {low} and {high}: no value is between them"
        )));
    }
    let mode = mode.map_or(Some("ignore"), super::ast::as_text);
    match mode.map(str::to_ascii_lowercase).as_deref() {
        Some("ignore" | "overflow") => {
            let compare = |op, with: &Expr| Expr::BinaryOp {
                left: Box::new(nested(value.clone())),
                op,
                right: Box::new(nested(with.clone())),
            };
            let inside = Expr::BinaryOp {
                left: Box::new(compare(BinaryOperator::GtEq, low)),
                op: BinaryOperator::And,
                right: Box::new(compare(BinaryOperator::Lt, high)),
            };
            Ok(Expr::Case {
                case_token: no_token(),
                end_token: no_token(),
                operand: None,
                conditions: vec![CaseWhen { condition: inside, result: value.clone() }],
                else_result: Some(Box::new(null())),
            })
        }
        Some("clip") => Ok(call("least", vec![call("greatest", vec![value.clone(), low.clone()]), high.clone()])),
        _ => {
            Err(QueryError::validation(format!("the outlier mode of {upper} has to be 'ignore', 'overflow' or 'clip'")))
        }
    }
}

fn whole(expr: &Expr, what: &str, least: i64, most: i64, upper: &str) -> Result<i64, QueryError> {
    let found = super::ast::as_number(expr).filter(|found| (least..=most).contains(found));
    found.ok_or_else(|| {
        QueryError::validation(format!("{what} of {upper} is {expr}; it has to be a whole number from {least}"))
    })
}

/// A number that is written there.
fn as_double(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => text.parse().ok(),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => as_double(expr).map(|value| -value),
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => as_double(inner),
        _ => None,
    }
}
