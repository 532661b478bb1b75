//! Comparisons across types, as Calcite does them: text beside a number is read as a number, text or a date beside
//! a time as a time in the session's zone, text beside a boolean as a boolean. What cannot be read is NULL.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{InList, InSubquery};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Between, BinaryExpr, Expr, ExprSchemable, Like, LogicalPlan, LogicalPlanBuilder, Operator, TryCast, try_cast,
};

use crate::functions::{cast_timestamp, cast_varchar};

/// Rewrites every comparison of the plan, subqueries included. Result names stay.
pub fn coerce(plan: LogicalPlan, zone: &str) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| coerce_node(plan, zone)).data()
}

fn coerce_node(plan: LogicalPlan, zone: &str) -> Result<Transformed<LogicalPlan>> {
    if matches!(plan, LogicalPlan::TableScan(_) | LogicalPlan::Values(_)) {
        return Ok(Transformed::no(plan));
    }
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::Join(_) = plan {
        schema.merge(plan.schema());
    }
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let new = expr.transform_up(|expr| coerce_expr(expr, &schema, zone))?;
        Ok(if new.transformed { new.update_data(|expr| name.restore(expr)) } else { new })
    })?
    .map_data(|plan| plan.recompute_schema())
}

fn coerce_expr(expr: Expr, schema: &DFSchema, zone: &str) -> Result<Transformed<Expr>> {
    let target = |sides: &[&Expr]| common_type(sides, schema);
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
            let Some(ty) = target(&[&left, &right]) else {
                return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            };
            let left = Box::new(convert(*left, &ty, schema, zone));
            let right = Box::new(convert(*right, &ty, schema, zone));
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right })))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let Some(ty) = target(&[&expr, &low, &high]) else {
                return Ok(Transformed::no(Expr::Between(Between { expr, negated, low, high })));
            };
            let [expr, low, high] = [expr, low, high].map(|side| Box::new(convert(*side, &ty, schema, zone)));
            Ok(Transformed::yes(Expr::Between(Between { expr, negated, low, high })))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let sides: Vec<&Expr> = std::iter::once(expr.as_ref()).chain(&list).collect();
            let Some(ty) = target(&sides) else {
                return Ok(Transformed::no(Expr::InList(InList { expr, list, negated })));
            };
            let expr = Box::new(convert(*expr, &ty, schema, zone));
            let list = list.into_iter().map(|item| convert(item, &ty, schema, zone)).collect();
            Ok(Transformed::yes(Expr::InList(InList { expr, list, negated })))
        }
        Expr::Like(like) if like.expr.get_type(schema).is_ok_and(|ty| !is_text(&ty) && ty != DataType::Null) => {
            let expr = Box::new(cast_varchar(*like.expr, zone));
            Ok(Transformed::yes(Expr::Like(Like { expr, ..like })))
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) if subquery.outer_ref_columns.is_empty() => {
            // A value that is there a million times is looked for a million times by the join this becomes.
            if matches!(subquery.subquery.as_ref(), LogicalPlan::Distinct(_)) {
                return Ok(Transformed::no(Expr::InSubquery(InSubquery { expr, subquery, negated })));
            }
            let plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone()).distinct()?.build()?;
            let subquery = subquery.with_plan(Arc::new(plan));
            Ok(Transformed::yes(Expr::InSubquery(InSubquery { expr, subquery, negated })))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn is_text(ty: &DataType) -> bool {
    matches!(ty, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The type that the sides are compared in, if it is not the planner's own choice.
fn common_type(sides: &[&Expr], schema: &DFSchema) -> Option<DataType> {
    let types: Vec<DataType> = sides.iter().map(|side| side.get_type(schema).ok()).collect::<Option<_>>()?;
    let any_text = types.iter().any(is_text);
    let time = types.iter().find(|ty| matches!(ty, DataType::Timestamp(..)));
    if let Some(time) = time {
        let other = types.iter().any(|ty| is_text(ty) || ty.is_integer() || matches!(ty, DataType::Date32));
        return other.then(|| time.clone());
    }
    if types.iter().any(|ty| matches!(ty, DataType::Date32)) && any_text {
        return Some(DataType::Date32);
    }
    if any_text && types.iter().any(DataType::is_numeric) {
        let whole = types.iter().all(|ty| is_text(ty) || ty.is_integer());
        return Some(if whole { DataType::Int64 } else { DataType::Float64 });
    }
    (any_text && types.iter().any(|ty| matches!(ty, DataType::Boolean))).then_some(DataType::Boolean)
}

fn convert(expr: Expr, to: &DataType, schema: &DFSchema, zone: &str) -> Expr {
    let Ok(from) = expr.get_type(schema) else { return expr };
    match to {
        DataType::Timestamp(..) if !matches!(from, DataType::Timestamp(..) | DataType::Null) => {
            cast_timestamp(expr, zone)
        }
        DataType::Timestamp(..) => expr,
        _ if is_text(&from) => Expr::TryCast(TryCast::new(Box::new(expr), to.clone())),
        DataType::Float64 if from.is_integer() => try_cast(expr, DataType::Float64),
        _ => expr,
    }
}
