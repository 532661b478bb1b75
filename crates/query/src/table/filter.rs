//! DataFusion expressions as the engine's filters. Only what means exactly the same is converted; the rest stays
//! with DataFusion above the scan.

use std::sync::Arc;

use base::Timestamp;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{InList, Like, ScalarFunction};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};
use store::engine::{Comparison, Filter, LongTest, StringTest, Value};
use store::schema::{ColumnType, TableSchema};

use crate::functions::time::{Unit, granularity_of, interval_in, zone_of};

/// The filter that selects the same rows as `expr`, if the engine has one.
pub fn to_filter(expr: &Expr, schema: &TableSchema) -> Option<Filter> {
    match expr {
        Expr::Alias(alias) => to_filter(&alias.expr, schema),
        Expr::BinaryExpr(binary) => binary_filter(binary, schema),
        Expr::Not(inner) => Some(Filter::Not(Box::new(to_filter(inner, schema)?))),
        Expr::IsNull(inner) => Some(Filter::IsNull(column(inner, schema)?.0)),
        Expr::IsNotNull(inner) => Some(Filter::Not(Box::new(Filter::IsNull(column(inner, schema)?.0)))),
        Expr::IsTrue(inner) => to_filter(inner, schema),
        Expr::InList(list) => in_list(list, schema),
        Expr::Between(between) => between_filter(between, schema),
        Expr::Like(like) => like_filter(like, schema),
        Expr::Literal(ScalarValue::Boolean(value), _) => Some(match value {
            Some(true) => Filter::True,
            Some(false) => Filter::False,
            None => Filter::Unknown,
        }),
        Expr::Column(_) => {
            let (name, ty) = column(expr, schema)?;
            (ty == ColumnType::Boolean).then_some(Filter::Compare {
                column: name,
                comparison: Comparison::Equal,
                value: Value::Boolean(true),
            })
        }
        Expr::ScalarFunction(function) => function_filter(function, schema),
        _ => None,
    }
}

/// All of them must hold.
pub fn all_of(filters: &[Expr], schema: &TableSchema) -> Option<Option<Filter>> {
    let mut converted = filters.iter().map(|filter| to_filter(filter, schema)).collect::<Option<Vec<_>>>()?;
    Some(match converted.len() {
        0 => None,
        1 => converted.pop(),
        _ => Some(Filter::And(converted)),
    })
}

/// A plain column that the engine compares.
pub fn column(expr: &Expr, schema: &TableSchema) -> Option<(String, ColumnType)> {
    let Expr::Column(column) = expr else { return None };
    let ty = schema.column(&column.name)?.ty;
    Some((column.name.clone(), ty))
}

fn binary_filter(binary: &BinaryExpr, schema: &TableSchema) -> Option<Filter> {
    let BinaryExpr { left, op, right } = binary;
    match op {
        Operator::And => Some(Filter::And(vec![to_filter(left, schema)?, to_filter(right, schema)?])),
        Operator::Or => Some(Filter::Or(vec![to_filter(left, schema)?, to_filter(right, schema)?])),
        Operator::RegexMatch | Operator::RegexIMatch | Operator::RegexNotMatch | Operator::RegexNotIMatch => {
            let Expr::Literal(pattern, _) = right.as_ref() else { return None };
            let fold = matches!(op, Operator::RegexIMatch | Operator::RegexNotIMatch);
            let matched = regex_filter(left, pattern.try_as_str()??, fold, schema)?;
            let negated = matches!(op, Operator::RegexNotMatch | Operator::RegexNotIMatch);
            Some(if negated { Filter::Not(Box::new(matched)) } else { matched })
        }
        _ => {
            let comparison = comparison(*op)?;
            match (left.as_ref(), right.as_ref()) {
                (left, Expr::Literal(value, _)) => compare(left, comparison, value, schema),
                (Expr::Literal(value, _), right) => compare(right, mirrored(comparison), value, schema),
                _ => None,
            }
        }
    }
}

fn comparison(op: Operator) -> Option<Comparison> {
    Some(match op {
        Operator::Eq => Comparison::Equal,
        Operator::NotEq => Comparison::NotEqual,
        Operator::Lt => Comparison::Less,
        Operator::LtEq => Comparison::LessOrEqual,
        Operator::Gt => Comparison::Greater,
        Operator::GtEq => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

/// `5 < x` is `x > 5`.
fn mirrored(comparison: Comparison) -> Comparison {
    match comparison {
        Comparison::Less => Comparison::Greater,
        Comparison::LessOrEqual => Comparison::GreaterOrEqual,
        Comparison::Greater => Comparison::Less,
        Comparison::GreaterOrEqual => Comparison::LessOrEqual,
        same => same,
    }
}

fn compare(left: &Expr, comparison: Comparison, value: &ScalarValue, schema: &TableSchema) -> Option<Filter> {
    if let Expr::ScalarFunction(function) = left {
        return compare_time(function, comparison, value, schema);
    }
    let (column, ty) = column(left, schema)?;
    if value.is_null() {
        return comparable(ty).then_some(Filter::Unknown);
    }
    Some(Filter::Compare { column, comparison, value: constant(value, ty)? })
}

fn comparable(ty: ColumnType) -> bool {
    matches!(
        ty,
        ColumnType::String | ColumnType::Long | ColumnType::Double | ColumnType::Boolean | ColumnType::Timestamp
    )
}

/// The literal as the engine has it, if it is of the column's own type.
fn constant(value: &ScalarValue, ty: ColumnType) -> Option<Value> {
    match (ty, value) {
        (ColumnType::String, _) => Some(Value::String(Arc::from(value.try_as_str()??))),
        (ColumnType::Long, ScalarValue::Int64(Some(value))) => Some(Value::Long(*value)),
        (ColumnType::Timestamp, ScalarValue::TimestampMillisecond(Some(value), _)) => Some(Value::Long(*value)),
        (ColumnType::Double, ScalarValue::Float64(Some(value))) if !value.is_nan() => Some(Value::Double(*value)),
        (ColumnType::Boolean, ScalarValue::Boolean(Some(value))) => Some(Value::Boolean(*value)),
        _ => None,
    }
}

/// `TIME_FLOOR(__time, ..) = t`, `EXTRACT(HOUR FROM __time) > 7`: a test of one time.
fn compare_time(
    function: &ScalarFunction,
    comparison: Comparison,
    value: &ScalarValue,
    schema: &TableSchema,
) -> Option<Filter> {
    let (column, map) = long_map(function, schema)?;
    let against = match value {
        ScalarValue::Int64(Some(value)) | ScalarValue::TimestampMillisecond(Some(value), _) => *value,
        _ => return None,
    };
    let test = move |time| {
        let found = map(time);
        match comparison {
            Comparison::Equal => found == against,
            Comparison::NotEqual => found != against,
            Comparison::Less => found < against,
            Comparison::LessOrEqual => found <= against,
            Comparison::Greater => found > against,
            Comparison::GreaterOrEqual => found >= against,
        }
    };
    Some(Filter::MatchesLong { column, test: LongTest(Arc::new(test)) })
}

/// From milliseconds to a time or a number.
pub type Map = Arc<dyn Fn(i64) -> i64 + Send + Sync>;

/// A function of one time column with constant arguments, as a function of milliseconds.
pub fn long_map(function: &ScalarFunction, schema: &TableSchema) -> Option<(String, Map)> {
    let (column, ty) = column(function.args.first()?, schema)?;
    if ty != ColumnType::Timestamp {
        return None;
    }
    match function.func.name() {
        "time_floor" => {
            let granularity = floor_of(function)?;
            Some((column, Arc::new(move |time| granularity.floor(Timestamp(time)).0)))
        }
        "time_extract" => {
            let unit = Unit::parse(&text_arg(function, 1)??)?;
            let zone = zone_of(text_arg(function, 2)?).ok()?;
            Some((column, Arc::new(move |time| unit.extract(time, zone))))
        }
        _ => None,
    }
}

/// The buckets of a `time_floor` with constant arguments.
pub fn floor_of(function: &ScalarFunction) -> Option<store::granularity::Granularity> {
    let period = text_arg(function, 1)??;
    granularity_of(&period, text_arg(function, 2)?.as_deref(), text_arg(function, 3)?).ok()
}

/// A constant text argument; the inner `None` is NULL or a missing argument.
pub fn text_arg(function: &ScalarFunction, at: usize) -> Option<Option<String>> {
    match function.args.get(at) {
        None => Some(None),
        Some(Expr::Literal(value, _)) if value.is_null() => Some(None),
        Some(Expr::Literal(value, _)) => value.try_as_str().map(|text| text.map(str::to_owned)),
        Some(_) => None,
    }
}

fn in_list(list: &InList, schema: &TableSchema) -> Option<Filter> {
    let (column, ty) = column(&list.expr, schema)?;
    if !comparable(ty) {
        return None;
    }
    let mut values = Vec::with_capacity(list.list.len());
    let mut null_in_list = false;
    for item in &list.list {
        let Expr::Literal(value, _) = item else { return None };
        if value.is_null() {
            null_in_list = true;
        } else {
            values.push(constant(value, ty)?);
        }
    }
    let inside = Filter::In { column, values, null_in_list };
    Some(if list.negated { Filter::Not(Box::new(inside)) } else { inside })
}

fn between_filter(between: &Between, schema: &TableSchema) -> Option<Filter> {
    let bound = |expr: &Expr, comparison| match expr {
        Expr::Literal(value, _) => compare(&between.expr, comparison, value, schema),
        _ => None,
    };
    let inside = Filter::And(vec![
        bound(&between.low, Comparison::GreaterOrEqual)?,
        bound(&between.high, Comparison::LessOrEqual)?,
    ]);
    Some(if between.negated { Filter::Not(Box::new(inside)) } else { inside })
}

fn like_filter(like: &Like, schema: &TableSchema) -> Option<Filter> {
    let (column, ty) = column(&like.expr, schema)?;
    let Expr::Literal(pattern, _) = like.pattern.as_ref() else { return None };
    if ty != ColumnType::String {
        return None;
    }
    let Some(pattern) = pattern.try_as_str()? else { return Some(Filter::Unknown) };
    let matched = match contained(pattern, like.escape_char, like.case_insensitive) {
        Some(text) => Filter::Contains { column, text: text.into() },
        None => {
            let test = like_test(pattern, like.escape_char, like.case_insensitive)?;
            Filter::Matches { column, test: StringTest(test) }
        }
    };
    Some(if like.negated { Filter::Not(Box::new(matched)) } else { matched })
}

type Test = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// The text of `%text%`.
fn contained(pattern: &str, escape: Option<char>, fold: bool) -> Option<&str> {
    let text = pattern.strip_prefix('%')?.strip_suffix('%')?;
    let plain = !text.contains(['%', '_']) && escape.is_none_or(|escape| !pattern.contains(escape));
    (!fold && plain && !text.is_empty()).then_some(text)
}

/// A LIKE pattern as a test: plain string search for the usual forms, else a regular expression.
fn like_test(pattern: &str, escape: Option<char>, fold: bool) -> Option<Test> {
    let inner = pattern.trim_matches('%');
    let plain = !fold && !inner.contains(['%', '_']) && escape.is_none_or(|escape| !pattern.contains(escape));
    if plain && !inner.is_empty() {
        let leading = pattern.len() - pattern.trim_start_matches('%').len();
        let trailing = pattern.len() - pattern.trim_end_matches('%').len();
        let text = inner.to_owned();
        return Some(match (leading > 0, trailing > 0) {
            (false, false) => Arc::new(move |value: &str| value == text),
            (true, false) => Arc::new(move |value: &str| value.ends_with(&text)),
            (false, true) => Arc::new(move |value: &str| value.starts_with(&text)),
            (true, true) => Arc::new(move |value: &str| value.contains(&text)),
        });
    }
    let mut regex = String::from(if fold { "(?is)^" } else { "(?s)^" });
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            _ if Some(c) == escape => regex.push_str(&regex::escape(&chars.next()?.to_string())),
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            other => regex.push_str(&regex::escape(&other.to_string())),
        }
    }
    regex.push('$');
    let regex = crate::functions::compile(&regex).ok()?;
    Some(Arc::new(move |value: &str| regex.is_match(value)))
}

fn regex_filter(expr: &Expr, pattern: &str, fold: bool, schema: &TableSchema) -> Option<Filter> {
    let (column, ty) = column(expr, schema)?;
    if ty != ColumnType::String {
        return None;
    }
    let pattern = if fold { format!("(?i){pattern}") } else { pattern.to_owned() };
    let regex = crate::functions::compile(&pattern).ok()?;
    Some(Filter::Matches { column, test: StringTest(Arc::new(move |value: &str| regex.is_match(value))) })
}

fn function_filter(function: &ScalarFunction, schema: &TableSchema) -> Option<Filter> {
    let first = function.args.first()?;
    match function.func.name() {
        "regexp_like" => regex_filter(first, &text_arg(function, 1)??, false, schema),
        name @ ("contains_string" | "icontains_string" | "contains" | "starts_with" | "ends_with") => {
            let (column, ty) = column(first, schema)?;
            if ty != ColumnType::String {
                return None;
            }
            let needle = text_arg(function, 1)??;
            if matches!(name, "contains_string" | "contains") {
                return Some(Filter::Contains { column, text: needle.into() });
            }
            let test: Test = match name {
                "icontains_string" => {
                    let needle = needle.to_lowercase();
                    Arc::new(move |value: &str| value.to_lowercase().contains(&needle))
                }
                "starts_with" => Arc::new(move |value: &str| value.starts_with(&needle)),
                _ => Arc::new(move |value: &str| value.ends_with(&needle)),
            };
            Some(Filter::Matches { column, test: StringTest(test) })
        }
        "time_in_interval" => {
            let (column, ty) = column(first, schema)?;
            if ty != ColumnType::Timestamp {
                return None;
            }
            let interval = interval_in(&text_arg(function, 1)??, zone_of(text_arg(function, 2)?).ok()?).ok()?;
            let bound = |comparison, time: Timestamp| Filter::Compare {
                column: column.clone(),
                comparison,
                value: Value::Long(time.0),
            };
            Some(Filter::And(vec![
                bound(Comparison::GreaterOrEqual, interval.start()),
                bound(Comparison::Less, interval.end()),
            ]))
        }
        _ => None,
    }
}
