//! The walk over the tree: every node that Druid writes in its own way becomes one the planner knows.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, CeilFloorKind, DataType, DateTimeField, ExactNumberInfo, Expr, Fetch, Ident, Interval,
    LimitClause, NamedWindowDefinition, NamedWindowExpr, Query, Select, SetExpr, TimezoneInfo, TypedString,
    UnaryOperator, VisitMut, VisitorMut, WindowFrameBound, WindowSpec, WindowType,
};
use store::calendar::Zone;

use super::ast::{call, cast, null, number, text};
use super::functions::rewrite_function;
use super::time::{Shift, period_of_unit, shift_of, timestamp_literal, unit_name};
use super::{names, postgres, unnest};
use crate::error::QueryError;
use crate::request::Dialect;

/// What the words of a statement depend on.
#[derive(Clone, Debug)]
pub struct Session {
    pub dialect: Dialect,
    pub zone: Zone,
    /// `zone` as text, for functions.
    pub zone_name: String,
    /// Milliseconds since 1970: what CURRENT_TIMESTAMP says for the whole statement.
    pub now_ms: i64,
    pub identity: String,
    /// PostgreSQL's settings of the session, names in lower case.
    pub settings: std::collections::BTreeMap<String, String>,
}

/// Rewrites a query in place. Returns the names of the result's columns as written, unless a wildcard hides them.
///
/// # Errors
/// If a literal, a unit or the number of arguments is wrong.
pub fn rewrite(query: &mut Query, session: &Session) -> Result<Option<Vec<String>>, QueryError> {
    let names = match leftmost(&mut query.body) {
        Some(select) => names::name_items(select, session.dialect),
        None => None,
    };
    let mut rewriter = Rewriter { session, from: Vec::new() };
    match query.visit(&mut rewriter) {
        ControlFlow::Continue(()) => Ok(names),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The select that gives a query's columns their names.
fn leftmost(body: &mut SetExpr) -> Option<&mut Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => leftmost(&mut query.body),
        SetExpr::SetOperation { left, .. } => leftmost(left),
        _ => None,
    }
}

struct Rewriter<'a> {
    session: &'a Session,
    /// Of the selects around this place: has it a FROM?
    from: Vec<bool>,
}

impl VisitorMut for Rewriter<'_> {
    type Break = QueryError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<QueryError> {
        fetch_as_limit(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<QueryError> {
        if postgres::is_answered_empty(query) {
            query.order_by = None;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<QueryError> {
        self.from.push(!select.from.is_empty());
        names::name_items(select, self.session.dialect);
        if self.session.dialect == Dialect::Postgres {
            postgres::answer_empty(select);
        }
        unnest::rewrite_from(select);
        for NamedWindowDefinition(_, window) in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(spec) = window {
                self.frame(spec);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _select: &mut Select) -> ControlFlow<QueryError> {
        self.from.pop();
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<QueryError> {
        let old = std::mem::replace(expr, null());
        match self.rewrite_expr(old) {
            Ok(new) => {
                *expr = new;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Rewriter<'_> {
    fn rewrite_expr(&self, expr: Expr) -> Result<Expr, QueryError> {
        Ok(match expr {
            Expr::Function(function) if names::is_user(&function) => {
                let parts: Vec<Ident> = function.name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
                match (self.from.last(), parts.len()) {
                    (Some(false), 1) => text(self.session.identity.as_str()),
                    (_, 1) => super::ast::column("user"),
                    _ => Expr::CompoundIdentifier(parts),
                }
            }
            Expr::Function(mut function) => {
                if let Some(WindowType::WindowSpec(spec)) = &mut function.over {
                    self.frame(spec);
                }
                rewrite_function(function, self.session)?
            }
            Expr::Floor { expr, field } => self.floor("time_floor", "floor", *expr, field)?,
            Expr::Ceil { expr, field } => self.floor("time_ceil", "ceil", *expr, field)?,
            Expr::Extract { field, expr, .. } => {
                call("time_extract", vec![*expr, text(unit_name(&field)), self.zone()])
            }
            Expr::TypedString(typed) => self.typed(typed)?,
            Expr::Cast { expr, data_type, kind, .. } => cast_as(*expr, data_type, kind, self.session),
            Expr::BinaryOp { left, op, right } => self.binary(*left, op, *right),
            Expr::Position { expr, r#in } => cast(call("strpos", vec![*r#in, *expr]), DataType::BigInt(None)),
            Expr::Collate { expr, .. } => *expr,
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => postgres::any_of(*left, *right),
            Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right } => {
                let any = super::ast::nested(postgres::any_of(*left, *right));
                Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(any) }
            }
            Expr::AtTimeZone { timestamp, .. } if self.session.dialect == Dialect::Postgres => *timestamp,
            other => other,
        })
    }

    /// Druid: without an ORDER BY a window is its whole partition, whatever its frame says. Zero rows before or
    /// behind the row are the row.
    fn frame(&self, spec: &mut WindowSpec) {
        if let Some(frame) = &mut spec.window_frame {
            let zero = |bound: &WindowFrameBound| match bound {
                WindowFrameBound::Preceding(Some(rows)) | WindowFrameBound::Following(Some(rows)) => {
                    super::ast::as_number(rows) == Some(0)
                }
                _ => false,
            };
            if zero(&frame.start_bound) {
                frame.start_bound = WindowFrameBound::CurrentRow;
            }
            if frame.end_bound.as_ref().is_some_and(zero) {
                frame.end_bound = Some(WindowFrameBound::CurrentRow);
            }
        }
        if self.session.dialect == Dialect::Druid && spec.order_by.is_empty() && spec.window_name.is_none() {
            spec.window_frame = None;
        }
    }

    fn zone(&self) -> Expr {
        text(self.session.zone_name.as_str())
    }

    fn floor(&self, time: &str, plain: &str, expr: Expr, field: CeilFloorKind) -> Result<Expr, QueryError> {
        match field {
            CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) => Ok(call(plain, vec![expr])),
            CeilFloorKind::DateTimeField(unit) => {
                let name = unit_name(&unit);
                let period = period_of_unit(&name).ok_or_else(|| unknown_unit(&name))?;
                Ok(call(time, vec![expr, text(period), null(), self.zone()]))
            }
            CeilFloorKind::Scale(scale) => Ok(call(plain, vec![expr, Expr::Value(scale)])),
        }
    }

    fn typed(&self, typed: TypedString) -> Result<Expr, QueryError> {
        let TypedString { data_type, value, .. } = typed;
        let literal = value.value.clone().into_string().unwrap_or_default();
        match data_type {
            DataType::Timestamp(..) | DataType::Datetime(_) => {
                Ok(call("millis_to_timestamp", vec![number(timestamp_literal(&literal, self.session.zone)?)]))
            }
            DataType::Date => {
                let millis = timestamp_literal(&literal, Zone::Utc)?;
                let day = store::calendar::format_iso(base::Timestamp(millis));
                Ok(cast(text(day.get(..10).unwrap_or(&day)), DataType::Date))
            }
            other => Ok(cast_as(Expr::Value(value), other, CastKind::Cast, self.session)),
        }
    }

    fn binary(&self, left: Expr, op: BinaryOperator, right: Expr) -> Expr {
        let shifted = |time: Expr, Shift { period, count }: Shift, sign: i64| {
            let count = if sign < 0 { minus(count) } else { count };
            call("time_shift", vec![time, text(period), count, self.zone()])
        };
        let (left, right) = match (as_shift(&left), op.clone(), as_shift(&right)) {
            (None, BinaryOperator::Plus, Some(shift)) => return shifted(left, shift, 1),
            (None, BinaryOperator::Minus, Some(shift)) => return shifted(left, shift, -1),
            (Some(shift), BinaryOperator::Plus, None) => return shifted(right, shift, 1),
            _ => (left, right),
        };
        let op = postgres::operator(op);
        if op == BinaryOperator::StringConcat && self.session.dialect == Dialect::Druid {
            let [left, right] = [left, right].map(|side| self.concatenated(side));
            return Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) };
        }
        Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
    }
}

impl Rewriter<'_> {
    /// A side of `||`, of any type, as text.
    fn concatenated(&self, side: Expr) -> Expr {
        let text_already = match &side {
            Expr::BinaryOp { op, .. } => *op == BinaryOperator::StringConcat,
            other => super::ast::as_text(other).is_some(),
        };
        if text_already { side } else { call("cast_varchar", vec![side, self.zone()]) }
    }
}

/// `FETCH NEXT n ROWS ONLY` is `LIMIT n`.
fn fetch_as_limit(query: &mut Query) {
    let Some(Fetch { with_ties: false, percent: false, quantity }) = query.fetch.clone() else { return };
    let quantity = quantity.unwrap_or_else(|| number(1));
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => *limit = Some(quantity),
        None => {
            query.limit_clause =
                Some(LimitClause::LimitOffset { limit: Some(quantity), offset: None, limit_by: vec![] });
        }
        Some(_) => return,
    }
    query.fetch = None;
}

pub fn unknown_unit(name: &str) -> QueryError {
    QueryError::validation(format!(
        "{name} is no unit of time; use SECOND, MINUTE, HOUR, DAY, WEEK, MONTH, QUARTER or YEAR"
    ))
}

fn try_cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::TryCast, expr: Box::new(expr), data_type, array: false, format: None }
}

fn minus(count: Expr) -> Expr {
    match super::ast::as_number(&count) {
        Some(value) => number(value.wrapping_neg()),
        None => Expr::BinaryOp {
            left: Box::new(number(0)),
            op: BinaryOperator::Minus,
            right: Box::new(super::ast::nested(count)),
        },
    }
}

fn as_shift(expr: &Expr) -> Option<Shift> {
    match expr {
        Expr::Interval(interval @ Interval { .. }) => shift_of(interval),
        Expr::Nested(inner) => as_shift(inner),
        _ => None,
    }
}

/// Druid's casts give NULL for a value that does not fit; times follow the session's zone.
fn cast_as(expr: Expr, data_type: DataType, kind: CastKind, session: &Session) -> Expr {
    let druid = session.dialect == Dialect::Druid;
    let zone = || text(session.zone_name.as_str());
    match data_type {
        DataType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::Tz | TimezoneInfo::WithTimeZone)
        | DataType::Timestamp(_, TimezoneInfo::WithoutTimeZone)
        | DataType::TimestampNtz(_)
        | DataType::Datetime(_) => call("cast_timestamp", vec![expr, zone()]),
        DataType::Date => match super::ast::as_text(&expr) {
            Some(_) => try_cast(expr, DataType::Date),
            None => call("cast_date", vec![expr, zone()]),
        },
        DataType::Varchar(_)
        | DataType::CharVarying(_)
        | DataType::CharacterVarying(_)
        | DataType::Char(_)
        | DataType::Character(_)
        | DataType::Nvarchar(_)
        | DataType::String(_)
        | DataType::Text => call("cast_varchar", vec![expr, zone()]),
        DataType::Int(_)
        | DataType::Integer(_)
        | DataType::SmallInt(_)
        | DataType::TinyInt(_)
        | DataType::BigInt(_)
        | DataType::Int8(_)
            if druid =>
        {
            call("cast_bigint", vec![expr])
        }
        DataType::Decimal(_) | DataType::Numeric(_) | DataType::Dec(_) => {
            try_cast(expr, DataType::Double(ExactNumberInfo::None))
        }
        DataType::Custom(..) | DataType::Regclass => postgres::cast(expr, data_type, session),
        other if druid => try_cast(expr, other),
        other => Expr::Cast { kind, expr: Box::new(expr), data_type: other, array: false, format: None },
    }
}

/// A cast to a type that a function names itself.
pub fn rewrite_cast(expr: Expr, data_type: DataType, session: &Session) -> Expr {
    cast_as(expr, data_type, CastKind::Cast, session)
}

/// The names a result may not use twice, for columns that wildcards brought.
pub fn deduplicate(names: Vec<String>) -> Vec<String> {
    let mut taken = BTreeSet::new();
    names
        .into_iter()
        .map(|name| {
            let unique = names::unique_name(&name, &taken);
            taken.insert(unique.clone());
            unique
        })
        .collect()
}
