//! What psql and drivers write that no one else does: `::regclass`, `OPERATOR(pg_catalog.~)`, session functions.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, FunctionArguments, GroupByExpr, JoinOperator, Query, Select, SelectItem,
    SetExpr, TableFactor, TableWithJoins, Value,
};

use super::ast::{as_number, as_text, boolean, call, null, number, text};
use super::rewrite::Session;

/// `OPERATOR(pg_catalog.~)` is `~`.
pub fn operator(op: BinaryOperator) -> BinaryOperator {
    let BinaryOperator::PGCustomBinaryOperator(parts) = &op else { return op };
    match parts.last().map(String::as_str) {
        Some("~") => BinaryOperator::PGRegexMatch,
        Some("!~") => BinaryOperator::PGRegexNotMatch,
        Some("~*") => BinaryOperator::PGRegexIMatch,
        Some("!~*") => BinaryOperator::PGRegexNotIMatch,
        Some("=") => BinaryOperator::Eq,
        Some("<>") => BinaryOperator::NotEq,
        Some("~~") => BinaryOperator::PGLikeMatch,
        Some("!~~") => BinaryOperator::PGNotLikeMatch,
        Some("||") => BinaryOperator::StringConcat,
        _ => op,
    }
}

/// Casts to types that only PostgreSQL has.
pub fn cast(expr: Expr, data_type: DataType, session: &Session) -> Expr {
    let name = data_type.to_string().to_lowercase().replace('"', "");
    let name = name.rsplit('.').next().unwrap_or(&name).to_owned();
    match name.as_str() {
        "regclass" => match (as_number(&expr), as_text(&expr)) {
            (Some(_), _) => expr,
            (None, Some(_)) => call("to_regclass", vec![expr]),
            (None, None) => expr,
        },
        "regtype" | "regproc" | "regprocedure" | "regnamespace" | "regrole" | "oid" | "xid" | "int2" | "int4"
        | "int8" => Expr::Cast {
            kind: CastKind::TryCast,
            expr: Box::new(expr),
            data_type: DataType::BigInt(None),
            array: false,
            format: None,
        },
        "name" | "char" | "bpchar" | "text" | "varchar" | "json" | "jsonb" | "information_schema" => {
            call("cast_varchar", vec![expr, text(session.zone_name.as_str())])
        }
        "bool" => Expr::Cast {
            kind: CastKind::TryCast,
            expr: Box::new(expr),
            data_type: DataType::Boolean,
            array: false,
            format: None,
        },
        "timestamptz" => call("cast_timestamp", vec![expr, text(session.zone_name.as_str())]),
        _ => Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None },
    }
}

/// Session functions without arguments.
pub fn niladic(name: &str, session: &Session) -> Option<Expr> {
    Some(match name {
        "current_catalog" | "current_database" => text(crate::pg_catalog::DATABASE),
        "current_schema" => text(crate::pg_catalog::SCHEMA),
        "current_role" => text(session.identity.as_str()),
        "version" => text(crate::pg_catalog::VERSION),
        "pg_backend_pid" => number(1),
        "pg_is_in_recovery" => boolean(false),
        "pg_postmaster_start_time" => call("millis_to_timestamp", vec![number(session.now_ms)]),
        "txid_current" => number(1),
        "inet_server_addr" | "inet_client_addr" | "inet_server_port" | "inet_client_port" => null(),
        _ => return None,
    })
}

/// Functions with arguments that need the session or have one answer only.
pub fn function(name: &str, args: Vec<Expr>, session: &Session) -> Result<Expr, Vec<Expr>> {
    let setting = |name: &Expr| {
        let key = as_text(name).unwrap_or_default();
        crate::pg_catalog::setting(key, session).map_or_else(null, text)
    };
    match (name, args.len()) {
        ("current_setting", 1 | 2) => Ok(setting(&args[0])),
        ("set_config", 3) => Ok(args.into_iter().nth(1).unwrap_or_else(null)),
        ("current_schemas", 1) => {
            let with_catalog = matches!(&args[0], Expr::Value(value) if value.to_string().eq_ignore_ascii_case("true"));
            let mut schemas = vec![text(crate::pg_catalog::SCHEMA)];
            if with_catalog {
                schemas.insert(0, text("pg_catalog"));
            }
            Ok(Expr::Array(datafusion::sql::sqlparser::ast::Array { elem: schemas, named: true }))
        }
        _ => Err(args),
    }
}

/// `x = ANY(ARRAY[..])` as a list, of another array as a search in it.
pub fn any_of(left: Expr, right: Expr) -> Expr {
    match right {
        Expr::Array(array) => Expr::InList { expr: Box::new(left), list: array.elem, negated: false },
        Expr::Nested(inner) => any_of(left, *inner),
        Expr::Subquery(query) => Expr::InSubquery { expr: Box::new(left), subquery: query, negated: false },
        other => call("array_has", vec![other, left]),
    }
}

/// A select that reads a catalog table without rows, so that nothing can come of it, asks for nothing: its columns
/// become NULL and its tables go. What they were computed from may be beyond what the planner knows.
pub fn answer_empty(select: &mut Select) {
    let never = select.from.iter().any(never_has_rows);
    let grouped = match &select.group_by {
        GroupByExpr::Expressions(keys, _) => !keys.is_empty(),
        GroupByExpr::All(_) => true,
    };
    let plain = select.projection.iter().all(|item| match item {
        SelectItem::ExprWithAlias { expr, .. } | SelectItem::UnnamedExpr(expr) => grouped || !is_aggregate(expr),
        _ => false,
    });
    if !never || !plain {
        return;
    }
    for item in &mut select.projection {
        let name = match item {
            SelectItem::ExprWithAlias { alias, .. } => alias.clone(),
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) => ident.clone(),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => match parts.last() {
                Some(last) => last.clone(),
                None => continue,
            },
            _ => continue,
        };
        *item = SelectItem::ExprWithAlias { expr: null(), alias: name };
    }
    select.from.clear();
    select.group_by = GroupByExpr::Expressions(vec![], vec![]);
    select.having = None;
    select.named_window.clear();
    select.selection = Some(boolean(false));
}

/// True for what [`answer_empty`] left.
pub fn is_answered_empty(query: &Query) -> bool {
    match query.body.as_ref() {
        SetExpr::Select(select) => {
            let never = matches!(&select.selection, Some(Expr::Value(value)) if value.value == Value::Boolean(false));
            select.from.is_empty() && never
        }
        _ => false,
    }
}

fn never_has_rows(table: &TableWithJoins) -> bool {
    let outer = |join: &JoinOperator| {
        matches!(join, JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_))
    };
    if table.joins.iter().any(|join| outer(&join.join_operator)) {
        return false;
    }
    let inner = |join: &JoinOperator| {
        matches!(join, JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_))
    };
    is_empty_table(&table.relation)
        || table.joins.iter().any(|join| inner(&join.join_operator) && is_empty_table(&join.relation))
}

fn is_empty_table(table: &TableFactor) -> bool {
    let TableFactor::Table { name, args: None, .. } = table else { return false };
    let mut parts = name.0.iter().rev().filter_map(|part| part.as_ident());
    let last = parts.next().map(|ident| ident.value.to_lowercase());
    let schema = parts.next().map(|ident| ident.value.to_lowercase());
    schema.is_none_or(|schema| schema == "pg_catalog")
        && last.is_some_and(|name| crate::pg_catalog::is_always_empty(&name))
}

/// One aggregate, as far as catalog queries have them; also inside a cast or a function.
fn is_aggregate(expr: &Expr) -> bool {
    const NAMES: [&str; 11] = [
        "count",
        "sum",
        "min",
        "max",
        "avg",
        "array_agg",
        "string_agg",
        "bool_or",
        "bool_and",
        "json_agg",
        "jsonb_agg",
    ];
    match expr {
        Expr::Function(function) => {
            let name = function.name.to_string().to_lowercase();
            let name = name.rsplit('.').next().unwrap_or(&name).trim_matches('"').to_owned();
            let inside = match &function.args {
                FunctionArguments::List(list) => list.args.iter().any(|arg| match arg {
                    datafusion::sql::sqlparser::ast::FunctionArg::Unnamed(
                        datafusion::sql::sqlparser::ast::FunctionArgExpr::Expr(expr),
                    ) => is_aggregate(expr),
                    _ => false,
                }),
                FunctionArguments::None | FunctionArguments::Subquery(_) => false,
            };
            NAMES.contains(&name.as_str()) || inside
        }
        Expr::Cast { expr, .. } | Expr::Nested(expr) => is_aggregate(expr),
        Expr::BinaryOp { left, right, .. } => is_aggregate(left) || is_aggregate(right),
        _ => false,
    }
}
