//! Windows over groups see the groups in the order of their keys, as Druid's do: where a window's own ORDER BY leaves
//! rows equal (or there is none), LAG or ROW_NUMBER still have one answer.
//!
//! The keys are added to the window's ORDER BY, but only where that cannot change what the function counts as
//! equal: rows numbered or shifted one by one, and frames counted in rows. A rank, or a frame by value, keeps its
//! own order.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{
    Aggregate, Expr, LogicalPlan, SortExpr, Window, WindowFrame, WindowFrameBound, WindowFrameUnits,
};
use datafusion::scalar::ScalarValue;

/// One row after the other: equal rows make no difference to them.
const BY_ROW: [&str; 4] = ["row_number", "lag", "lead", "ntile"];
/// Equal rows get equal answers.
const BY_RANK: [&str; 4] = ["rank", "dense_rank", "percent_rank", "cume_dist"];

/// Gives every window over groups an order by the group keys after its own.
pub fn order_windows(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Window(window) => order_window(window),
        other => Ok(Transformed::no(other)),
    })
    .data()
}

fn order_window(window: Window) -> Result<Transformed<LogicalPlan>> {
    let Some(aggregate) = groups_below(&window.input) else {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    };
    let keys: Vec<SortExpr> = aggregate
        .schema
        .columns()
        .into_iter()
        .take(aggregate.group_expr.len())
        .map(|column| Expr::Column(column).sort(true, true))
        .collect();
    // A window node has one sort; functions whose order has grown get a node of their own, the finest first.
    let mut nodes: Vec<(Vec<SortExpr>, Vec<Expr>)> = Vec::new();
    for expr in window.window_expr.iter().map(|expr| ordered(expr, &keys)) {
        let order = order_of(&expr);
        match nodes.iter_mut().find(|(known, _)| *known == order) {
            Some((_, exprs)) => exprs.push(expr),
            None => nodes.push((order, vec![expr])),
        }
    }
    nodes.sort_by_key(|(order, _)| std::cmp::Reverse(order.len()));
    let mut input = window.input;
    for (_, exprs) in nodes {
        input = Arc::new(LogicalPlan::Window(Window::try_new(exprs, input)?));
    }
    Ok(Transformed::yes(Arc::unwrap_or_clone(input)))
}

fn order_of(expr: &Expr) -> Vec<SortExpr> {
    match expr {
        Expr::Alias(alias) => order_of(&alias.expr),
        Expr::WindowFunction(function) => function.params.order_by.clone(),
        _ => vec![],
    }
}

fn ordered(expr: &Expr, keys: &[SortExpr]) -> Expr {
    let Expr::WindowFunction(function) = expr else { return expr.clone() };
    let name = function.fun.name();
    let params = &function.params;
    let by_row = BY_ROW.contains(&name) || params.window_frame.units == WindowFrameUnits::Rows;
    let whole = params.order_by.is_empty() && params.window_frame.units != WindowFrameUnits::Groups;
    if BY_RANK.contains(&name) || keys.is_empty() || !(by_row || whole) {
        return expr.clone();
    }
    let mut order_by = params.order_by.clone();
    for key in keys {
        if !order_by.iter().any(|known| known.expr == key.expr) && !params.partition_by.contains(&key.expr) {
            order_by.push(key.clone());
        }
    }
    // Without an order of its own a frame by value is the whole partition; with one it would end at the row.
    let window_frame = if whole && !by_row { whole_partition() } else { params.window_frame.clone() };
    let params = WindowFunctionParams { order_by, window_frame, ..params.clone() };
    let new = WindowFunction { fun: function.fun.clone(), params };
    Expr::WindowFunction(Box::new(new)).alias(expr.schema_name().to_string())
}

fn whole_partition() -> WindowFrame {
    WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
        WindowFrameBound::Following(ScalarValue::UInt64(None)),
    )
}

/// The grouping whose rows reach the window unchanged, through filters and other windows only.
fn groups_below(plan: &LogicalPlan) -> Option<&Aggregate> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => Some(aggregate),
        LogicalPlan::Filter(filter) => groups_below(&filter.input),
        LogicalPlan::Window(window) => groups_below(&window.input),
        _ => None,
    }
}
