//! Groups come to a window function in the order of their keys, as Druid's do: rows that a window's own ORDER BY
//! leaves equal (or a window without one) are then in a fixed order, and LAG or ROW_NUMBER give one answer.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Sort, SortExpr, Window};

/// Puts a sort below every window over groups: by the window's partition and order, then by the group keys.
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
    let mut expr: Vec<SortExpr> = Vec::new();
    let mut add = |sort: SortExpr| {
        if !expr.iter().any(|known| known.expr == sort.expr) {
            expr.push(sort);
        }
    };
    if let Some(function) = window.window_expr.first().and_then(window_function) {
        function.params.partition_by.iter().for_each(|key| add(key.clone().sort(true, true)));
        function.params.order_by.iter().for_each(|sort| add(sort.clone()));
    }
    for column in aggregate.schema.columns().into_iter().take(aggregate.group_expr.len()) {
        add(Expr::Column(column).sort(true, true));
    }
    if expr.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let sorted = LogicalPlan::Sort(Sort { expr, input: Arc::clone(&window.input), fetch: None });
    let window = Window::try_new(window.window_expr.clone(), Arc::new(sorted))?;
    Ok(Transformed::yes(LogicalPlan::Window(window)))
}

fn window_function(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::WindowFunction(function) => Some(function),
        Expr::Alias(alias) => window_function(&alias.expr),
        _ => None,
    }
}

/// The grouping whose rows reach the window unchanged, through filters and other windows only.
fn groups_below(plan: &LogicalPlan) -> Option<&Aggregate> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => Some(aggregate),
        LogicalPlan::Filter(filter) => groups_below(&filter.input),
        LogicalPlan::Window(window) => groups_below(&window.input),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => groups_below(&sort.input),
        _ => None,
    }
}
