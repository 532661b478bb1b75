//! Druid's functions in the planner's words. What has a twin there is renamed or recomposed here; what has none is
//! a function of our own (`crate::functions`) under the name used here.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArgumentList, FunctionArguments, ObjectName, OrderByExpr, OrderByOptions,
};

use super::ast::{as_text, call, cast, column, ident, nested, null, number, text};
use super::postgres;
use super::rewrite::{Session, rewrite_cast, unknown_unit};
use super::time::period_of_unit;
use crate::error::QueryError;

/// Functions whose answer is a whole number of another width than Druid's BIGINT.
const TO_BIGINT: [&str; 13] = [
    "character_length",
    "strpos",
    "octet_length",
    "bit_length",
    "ascii",
    "array_length",
    "array_position",
    "array_ndims",
    "cardinality",
    "levenshtein",
    "approx_distinct",
    "regexp_count",
    "regexp_instr",
];
/// The same among window functions.
const WINDOW_TO_BIGINT: [&str; 4] = ["row_number", "rank", "dense_rank", "ntile"];

pub fn rewrite_function(mut function: Function, session: &Session) -> Result<Expr, QueryError> {
    let name = plain_name(&function.name);
    function.name = ObjectName::from(vec![ident(&name)]);
    if let Some(expr) = niladic(&name, &function, session) {
        return Ok(expr);
    }
    if let (FunctionArguments::Subquery(query), "array") = (&function.args, name.as_str())
        && postgres::is_answered_empty(query)
    {
        return Ok(null());
    }
    let returning = take_returning(&mut function);
    let Some(args) = take_args(&mut function) else {
        return Ok(Expr::Function(function));
    };
    if let Some(expr) = aggregate(&name, &args, &mut function)? {
        return Ok(expr);
    }
    let args = match time(&name, args, session)? {
        Ok(expr) => return Ok(expr),
        Err(args) => args,
    };
    let args = match scalar(&name, args)? {
        Ok(expr) => return Ok(expr),
        Err(args) => args,
    };
    let args = match array(&name, args) {
        Ok(expr) => return Ok(expr),
        Err(args) => args,
    };
    let args = match postgres::function(&name, args, session) {
        Ok(expr) => return Ok(expr),
        Err(args) => args,
    };
    put_args(&mut function, args);
    match returning {
        Some(data_type) => Ok(rewrite_cast(Expr::Function(function), data_type, session)),
        None => Ok(widen(&name, function)),
    }
}

/// The type of `JSON_VALUE(x, path RETURNING type)`.
fn take_returning(function: &mut Function) -> Option<DataType> {
    let FunctionArguments::List(list) = &mut function.args else { return None };
    let at = list.clauses.iter().position(|clause| matches!(clause, FunctionArgumentClause::JsonReturningClause(_)))?;
    match list.clauses.remove(at) {
        FunctionArgumentClause::JsonReturningClause(clause) => Some(clause.data_type),
        _ => None,
    }
}

/// The last part of the name in lower case: `pg_catalog.format_type` is `format_type`.
fn plain_name(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map_or_else(String::new, |ident| ident.value.to_lowercase())
}

fn widen(name: &str, function: Function) -> Expr {
    let window = function.over.is_some();
    let widen = TO_BIGINT.contains(&name) || (window && WINDOW_TO_BIGINT.contains(&name));
    let expr = Expr::Function(function);
    if widen { cast(expr, DataType::BigInt(None)) } else { expr }
}

/// Functions without arguments, with or without brackets.
fn niladic(name: &str, function: &Function, session: &Session) -> Option<Expr> {
    let empty = match &function.args {
        FunctionArguments::None => true,
        // CURRENT_TIMESTAMP(3): the precision is ours anyway.
        FunctionArguments::List(list) => list.args.is_empty() || name == "current_timestamp",
        FunctionArguments::Subquery(_) => false,
    };
    if !empty {
        return None;
    }
    Some(match name {
        "current_timestamp"
        | "localtimestamp"
        | "now"
        | "transaction_timestamp"
        | "statement_timestamp"
        | "clock_timestamp" => call("millis_to_timestamp", vec![number(session.now_ms)]),
        "current_date" => {
            let local = store::calendar::format_iso_in(base::Timestamp(session.now_ms), session.zone);
            cast(text(local.get(..10).unwrap_or(&local)), DataType::Date)
        }
        "current_user" | "session_user" => text(session.identity.as_str()),
        _ => return postgres::niladic(name, session),
    })
}

/// The arguments, if they are plain expressions; the function keeps its other clauses.
fn take_args(function: &mut Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &mut function.args else { return None };
    let plain = list.args.iter().all(|arg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Expr(_))));
    if !plain {
        return None;
    }
    let args = std::mem::take(&mut list.args).into_iter().filter_map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    Some(args.collect())
}

fn put_args(function: &mut Function, args: Vec<Expr>) {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    match &mut function.args {
        FunctionArguments::List(list) => list.args = args,
        other => {
            *other = FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] });
        }
    }
}

fn wrong_arguments(name: &str, usage: &str) -> QueryError {
    let name = name.to_uppercase();
    QueryError::validation(format!("{name} was given the wrong arguments; write {name}({usage})"))
}

/// Aggregates: renamed, and stripped of the size limits that Druid wants.
fn aggregate(name: &str, args: &[Expr], function: &mut Function) -> Result<Option<Expr>, QueryError> {
    let first = || args.first().cloned().ok_or_else(|| wrong_arguments(name, "expr"));
    let (new_name, new_args, order) = match name {
        "approx_count_distinct"
        | "approx_count_distinct_builtin"
        | "approx_count_distinct_ds_hll"
        | "approx_count_distinct_ds_theta" => {
            // Exact is the best approximation; a window over distinct values has to be approximate.
            if function.over.is_some() {
                ("approx_distinct", vec![first()?], None)
            } else {
                if let FunctionArguments::List(list) = &mut function.args {
                    list.duplicate_treatment = Some(DuplicateTreatment::Distinct);
                }
                ("count", vec![first()?], None)
            }
        }
        "latest" => ("last_value", vec![first()?], Some(column("__time"))),
        "earliest" => ("first_value", vec![first()?], Some(column("__time"))),
        "latest_by" | "earliest_by" => {
            let time = args.get(1).cloned().ok_or_else(|| wrong_arguments(name, "expr, timestamp"))?;
            let new_name = if name == "latest_by" { "last_value" } else { "first_value" };
            (new_name, vec![first()?], Some(time))
        }
        "any_value" => ("first_value", vec![first()?], None),
        "string_agg" | "listagg" => {
            let separator = args.get(1).cloned().unwrap_or_else(|| text(""));
            ("string_agg", vec![call("native_text", vec![first()?]), separator], None)
        }
        "array_agg" | "array_concat_agg" => (name, vec![first()?], None),
        "variance" => ("var_samp", args.to_vec(), None),
        _ => match super::quantile::arguments(name, args)? {
            Some(args) => ("approx_quantile", args, None),
            None => return Ok(None),
        },
    };
    function.name = ObjectName::from(vec![ident(new_name)]);
    put_args(function, new_args);
    if let (Some(order), FunctionArguments::List(list)) = (order, &mut function.args) {
        let options = OrderByOptions { asc: Some(true), nulls_first: Some(true) };
        list.clauses.push(FunctionArgumentClause::OrderBy(vec![OrderByExpr { expr: order, options, with_fill: None }]));
    }
    Ok(Some(widen(new_name, function.clone())))
}

type Rewritten = Result<Expr, Vec<Expr>>;

/// Functions of time: the zone of the session stands where none is written.
fn time(name: &str, mut args: Vec<Expr>, session: &Session) -> Result<Rewritten, QueryError> {
    let zone = || text(session.zone_name.as_str());
    let (count, usage) = match name {
        "time_floor" | "time_ceil" => (4, "timestamp, period[, origin[, timezone]]"),
        "time_shift" => (4, "timestamp, period, step[, timezone]"),
        "time_extract" => (3, "timestamp, unit[, timezone]"),
        "time_parse" => (3, "text[, pattern[, timezone]]"),
        "time_format" => (3, "timestamp[, pattern[, timezone]]"),
        "time_in_interval" => (3, "timestamp, interval"),
        "timestampadd" => return timestamp_add(args, session).map(Ok),
        "timestampdiff" => return timestamp_diff(args, session).map(Ok),
        "date_trunc" => return date_trunc(args, session).map(Ok),
        "date_part" if args.len() == 2 => {
            let (time, unit) = (args.pop(), args.pop());
            return Ok(Ok(call("time_extract", [time, unit, Some(zone())].into_iter().flatten().collect())));
        }
        _ => return Ok(Err(args)),
    };
    let least = match name {
        "time_parse" | "time_format" => 1,
        "time_shift" => 3,
        _ => 2,
    };
    if args.len() < least || args.len() > count {
        return Err(wrong_arguments(name, usage));
    }
    while args.len() < count - 1 {
        args.push(null());
    }
    if args.len() < count {
        args.push(zone());
    }
    Ok(Ok(call(name, args)))
}

/// The unit as a name, a string, or an interval word.
fn unit_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(ident.value.to_ascii_uppercase()),
        other => as_text(other).map(str::to_ascii_uppercase),
    }
}

fn timestamp_add(args: Vec<Expr>, session: &Session) -> Result<Expr, QueryError> {
    let [unit, count, time] =
        <[Expr; 3]>::try_from(args).map_err(|_| wrong_arguments("timestampadd", "unit, count, timestamp"))?;
    let unit = unit_of(&unit).ok_or_else(|| wrong_arguments("timestampadd", "unit, count, timestamp"))?;
    let unit = unit.strip_prefix("SQL_TSI_").unwrap_or(&unit);
    let period = period_of_unit(unit).ok_or_else(|| unknown_unit(unit))?;
    Ok(call("time_shift", vec![time, text(period), count, text(session.zone_name.as_str())]))
}

fn timestamp_diff(args: Vec<Expr>, session: &Session) -> Result<Expr, QueryError> {
    let usage = || wrong_arguments("timestampdiff", "unit, start, end");
    let [unit, start, end] = <[Expr; 3]>::try_from(args).map_err(|_| usage())?;
    let unit = unit_of(&unit).ok_or_else(usage)?;
    let unit = unit.strip_prefix("SQL_TSI_").unwrap_or(&unit);
    period_of_unit(unit).ok_or_else(|| unknown_unit(unit))?;
    Ok(call("timestamp_diff", vec![text(unit), start, end, text(session.zone_name.as_str())]))
}

fn date_trunc(args: Vec<Expr>, session: &Session) -> Result<Expr, QueryError> {
    let [unit, time] = <[Expr; 2]>::try_from(args).map_err(|_| wrong_arguments("date_trunc", "'unit', timestamp"))?;
    let unit = unit_of(&unit).ok_or_else(|| wrong_arguments("date_trunc", "'unit', timestamp"))?;
    let period = period_of_unit(&unit).ok_or_else(|| unknown_unit(&unit))?;
    Ok(call("time_floor", vec![time, text(period), null(), text(session.zone_name.as_str())]))
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    nested(Expr::BinaryOp { left: Box::new(nested(left)), op, right: Box::new(nested(right)) })
}

/// Text and numbers.
fn scalar(name: &str, mut args: Vec<Expr>) -> Result<Rewritten, QueryError> {
    let bigint = |expr| cast(expr, DataType::BigInt(None));
    Ok(Ok(match (name, args.len()) {
        ("char_length" | "character_length" | "length" | "strlen", 1) => bigint(call("character_length", args)),
        ("concat" | "textcat", 1..) => {
            let mut parts = args.into_iter();
            let first = parts.next().unwrap_or_else(null);
            let part = |expr| call("cast_varchar", vec![expr]);
            parts.fold(part(first), |left, right| binary(left, BinaryOperator::StringConcat, part(right)))
        }
        ("nvl" | "ifnull", 2) => call("coalesce", args),
        ("mod", 2) => {
            let right = args.pop().unwrap_or_else(null);
            let left = args.pop().unwrap_or_else(null);
            binary(left, BinaryOperator::Modulo, right)
        }
        ("regexp_replace", 3) => {
            args.push(text("g"));
            call(name, args)
        }
        ("regexp_extract", 2) => {
            args.push(number(0));
            call(name, args)
        }
        ("truncate", 1 | 2) => call("trunc", args),
        ("ceiling", 1) => call("ceil", args),
        ("grouping_id", _) => call("grouping", args),
        ("nvl" | "mod", _) => return Err(wrong_arguments(name, "a, b")),
        _ => return Ok(Err(args)),
    }))
}

/// Arrays. Druid counts offsets from zero and ordinals from one.
fn array(name: &str, mut args: Vec<Expr>) -> Rewritten {
    let name = name.strip_prefix("mv_").map_or_else(|| name.to_owned(), |rest| format!("array_{rest}"));
    let plus = |expr: Expr, by: i64| match super::ast::as_number(&expr) {
        Some(value) => number(value.saturating_add(by)),
        None => binary(expr, BinaryOperator::Plus, number(by)),
    };
    match (name.as_str(), args.len()) {
        ("array_offset", 2) => {
            let at = args.remove(1);
            Ok(element(args.remove(0), plus(at, 1)))
        }
        ("array_ordinal", 2) => {
            let at = args.remove(1);
            Ok(element(args.remove(0), at))
        }
        ("array_contains", 2) => {
            let all = matches!(args[1], Expr::Array(_));
            Ok(call(if all { "array_has_all" } else { "array_has" }, args))
        }
        ("array_overlap", 2) => Ok(call("array_has_any", args)),
        ("scalar_in_array", 2) => {
            args.reverse();
            Ok(call("array_has", args))
        }
        ("array_offset_of", 2) => Ok(plus(cast(call("array_position", args), DataType::BigInt(None)), -1)),
        ("array_ordinal_of", 2) => Ok(cast(call("array_position", args), DataType::BigInt(None))),
        ("array_slice", 2 | 3) => {
            let start = args.remove(1);
            args.insert(1, plus(start, 1));
            if args.len() == 2 {
                args.push(number(i64::from(i32::MAX)));
            }
            Ok(call("array_slice", args))
        }
        ("array_length", 1) => Ok(cast(call("array_length", args), DataType::BigInt(None))),
        ("array_to_string", 2) => {
            // Druid writes the nulls too.
            args.push(text("null"));
            Ok(call(&name, args))
        }
        ("array_append" | "array_prepend" | "array_concat" | "array_to_string", _) => Ok(call(&name, args)),
        _ => Err(args),
    }
}

/// The element at a place counted from one; NULL outside, also before the first.
fn element(array: Expr, at: Expr) -> Expr {
    match super::ast::as_number(&at) {
        Some(1..) => call("array_element", vec![array, at]),
        Some(_) => call("array_element", vec![array, null()]),
        None => {
            let inside = binary(at.clone(), BinaryOperator::Gt, number(0));
            Expr::Case {
                case_token: super::ast::no_token(),
                end_token: super::ast::no_token(),
                operand: None,
                conditions: vec![datafusion::sql::sqlparser::ast::CaseWhen {
                    condition: inside,
                    result: call("array_element", vec![array, at]),
                }],
                else_result: None,
            }
        }
    }
}
