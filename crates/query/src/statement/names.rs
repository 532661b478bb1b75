//! What result columns are called: Calcite's `EXPR$0` and `a, a0` for Druid, the function's name for PostgreSQL.
//!
//! The planner wants every column of a select to have its own name, so duplicates are renamed as Calcite does;
//! for PostgreSQL, where duplicates are allowed, the written names are kept beside and restored at the end.

use std::collections::BTreeSet;

use datafusion::sql::sqlparser::ast::{Expr, Function, FunctionArguments, Select, SelectItem};

use super::ast::ident;
use crate::request::Dialect;

/// Names every item of the select. Returns the names as written, or nothing if a wildcard stands among them.
pub fn name_items(select: &mut Select, dialect: Dialect) -> Option<Vec<String>> {
    let mut taken = BTreeSet::new();
    let mut written = Some(Vec::with_capacity(select.projection.len()));
    for (at, item) in select.projection.iter_mut().enumerate() {
        let name = match item {
            SelectItem::UnnamedExpr(expr) => own_name(expr).unwrap_or_else(|| made_name(expr, at, dialect)),
            SelectItem::ExprWithAlias { alias, .. } => alias.value.clone(),
            SelectItem::ExprWithAliases { .. } | SelectItem::QualifiedWildcard(..) | SelectItem::Wildcard(_) => {
                written = None;
                continue;
            }
        };
        let unique = unique_name(&name, &taken);
        set_name(item, &unique);
        taken.insert(unique);
        if let Some(written) = &mut written {
            written.push(name);
        }
    }
    written
}

/// `name`, or `name0`, `name1`, ... where it is taken.
pub fn unique_name(name: &str, taken: &BTreeSet<String>) -> String {
    if !taken.contains(name) {
        return name.to_owned();
    }
    (0..=taken.len()).map(|number| format!("{name}{number}")).find(|name| !taken.contains(name)).unwrap_or_default()
}

/// The parser takes a column called `user` for the function of that name, also behind a table's name.
pub fn is_user(function: &Function) -> bool {
    let last = function.name.0.last().and_then(|part| part.as_ident());
    matches!(function.args, FunctionArguments::None)
        && function.over.is_none()
        && last.is_some_and(|ident| ident.value.eq_ignore_ascii_case("user"))
}

/// The name a plain column has by itself.
fn own_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(ident.value.clone()),
        Expr::CompoundIdentifier(parts) => parts.last().map(|ident| ident.value.clone()),
        Expr::Function(function) if is_user(function) => Some("user".to_owned()),
        _ => None,
    }
}

fn made_name(expr: &Expr, at: usize, dialect: Dialect) -> String {
    match dialect {
        Dialect::Druid => format!("EXPR${at}"),
        Dialect::Postgres => postgres_name(expr).unwrap_or_else(|| "?column?".to_owned()),
    }
}

/// PostgreSQL's choice: the function's name, the name below a cast, a word for a few forms.
fn postgres_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Function(function) => {
            function.name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.to_lowercase())
        }
        Expr::Cast { expr, data_type, .. } => own_name(expr)
            .or_else(|| postgres_name(expr))
            .or_else(|| Some(data_type.to_string().to_lowercase().replace('"', ""))),
        Expr::Nested(expr) | Expr::Collate { expr, .. } => own_name(expr).or_else(|| postgres_name(expr)),
        Expr::Case { .. } => Some("case".to_owned()),
        Expr::Exists { .. } => Some("exists".to_owned()),
        Expr::Extract { .. } => Some("extract".to_owned()),
        Expr::Floor { .. } => Some("floor".to_owned()),
        Expr::Ceil { .. } => Some("ceil".to_owned()),
        Expr::Trim { .. } => Some("btrim".to_owned()),
        Expr::Substring { .. } => Some("substring".to_owned()),
        Expr::Position { .. } => Some("position".to_owned()),
        Expr::Array(_) => Some("array".to_owned()),
        Expr::TypedString(typed) => Some(typed.data_type.to_string().to_lowercase()),
        _ => None,
    }
}

fn set_name(item: &mut SelectItem, name: &str) {
    match item {
        SelectItem::UnnamedExpr(expr) => {
            // A plain column keeps its qualifier, so that `ORDER BY t.a` still finds it.
            if own_name(expr).as_deref() != Some(name) || matches!(expr, Expr::Function(_)) {
                let expr = std::mem::replace(expr, super::ast::null());
                *item = SelectItem::ExprWithAlias { expr, alias: ident(name) };
            }
        }
        SelectItem::ExprWithAlias { alias, .. } => *alias = ident(name),
        SelectItem::ExprWithAliases { .. } | SelectItem::QualifiedWildcard(..) | SelectItem::Wildcard(_) => {}
    }
}
