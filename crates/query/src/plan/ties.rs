//! Rows that a window's ORDER BY leaves equal come in the order of the group keys, also where `order` could not add
//! the keys to the window itself: a frame by value treats equal rows alike, but STRING_AGG or LAST_VALUE still see
//! them one after the other. The sort below the window is made finer, which changes nothing else.

use std::sync::Arc;

use datafusion::arrow::compute::SortOptions;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};

use crate::table::SegmentAggregateExec;

/// The rule.
#[derive(Debug)]
pub struct OrderTies;

impl PhysicalOptimizerRule for OrderTies {
    fn name(&self) -> &str {
        "order_ties"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let window = node.is::<WindowAggExec>() || node.is::<BoundedWindowAggExec>();
            let child = node.children().first().map(|child| Arc::clone(child));
            match child.filter(|_| window).and_then(|child| finer(&child)) {
                Some(child) => replace_children_if_necessary(node, vec![child]).map(Transformed::yes),
                None => Ok(Transformed::no(node)),
            }
        })
        .data()
    }
}

/// The sort with all columns behind its own, if groups are below it.
fn finer(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() {
        let input = finer(merge.input())?;
        let expr = with_all_columns(merge.expr(), &input)?;
        return Some(Arc::new(SortPreservingMergeExec::new(expr, input).with_fetch(merge.fetch())));
    }
    if plan.is::<ProjectionExec>() {
        let input = finer(plan.children().first()?)?;
        return replace_children_if_necessary(Arc::clone(plan), vec![input]).ok();
    }
    let sort = plan.downcast_ref::<SortExec>()?;
    if !over_groups(sort.input()) {
        return None;
    }
    let expr = with_all_columns(sort.expr(), sort.input())?;
    let finer = SortExec::new(expr, Arc::clone(sort.input()))
        .with_preserve_partitioning(sort.preserve_partitioning())
        .with_fetch(sort.fetch());
    Some(Arc::new(finer))
}

fn with_all_columns(expr: &LexOrdering, input: &Arc<dyn ExecutionPlan>) -> Option<LexOrdering> {
    let options = SortOptions { descending: false, nulls_first: true };
    let columns = input
        .schema()
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, field)| !field.data_type().is_nested())
        .map(|(at, field)| PhysicalSortExpr { expr: Arc::new(Column::new(field.name(), at)), options })
        .collect::<Vec<_>>();
    LexOrdering::new(expr.iter().cloned().chain(columns))
}

/// True if the rows are groups, renamed and moved at most.
fn over_groups(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if plan.is::<AggregateExec>() || plan.is::<SegmentAggregateExec>() {
        return true;
    }
    match plan.children().as_slice() {
        [child] => over_groups(child),
        _ => false,
    }
}
