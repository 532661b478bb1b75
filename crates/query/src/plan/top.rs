//! ORDER BY .. LIMIT over an aggregation of the engine: the engine keeps the best groups only, so that just their
//! names are looked up. ORDER BY __time .. LIMIT over a table: the engine reads the newest or oldest rows only.
//! The sort stays above; DataFusion drops it where it sees that the order is there.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{Expr, LogicalPlan, Sort, TableScan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use store::engine::{OrderBy, OrderTarget};
use store::schema::TIME_COLUMN;

use crate::table::{ByTime, GroupedTable, SnapshotTable};

/// Most rows that are held to find the newest; a sort of DataFusion's does more.
const BY_TIME_ROWS_MAX: usize = 100_000;

/// The rule.
#[derive(Debug)]
pub struct EngineTop;

impl OptimizerRule for EngineTop {
    fn name(&self) -> &str {
        "engine_top"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Sort(sort) = &plan else { return Ok(Transformed::no(plan)) };
        let Some(fetch) = sort.fetch else { return Ok(Transformed::no(plan)) };
        let keys: Vec<(Expr, bool, bool)> =
            sort.expr.iter().map(|key| (key.expr.clone(), key.asc, key.nulls_first)).collect();
        match limited(&sort.input, keys, fetch)? {
            Some(input) => {
                let sort = Sort { expr: sort.expr.clone(), input: Arc::new(input), fetch: sort.fetch };
                Ok(Transformed::yes(LogicalPlan::Sort(sort)))
            }
            None => Ok(Transformed::no(plan)),
        }
    }
}

/// The same plan with the engine's answer limited, if the order is one of its columns.
fn limited(plan: &LogicalPlan, keys: Vec<(Expr, bool, bool)>, fetch: usize) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let below = keys
                .into_iter()
                .map(|(expr, asc, nulls_first)| {
                    let Expr::Column(column) = &expr else { return None };
                    let at = projection.schema.maybe_index_of_column(column)?;
                    Some((projection.expr.get(at)?.clone().unalias(), asc, nulls_first))
                })
                .collect::<Option<Vec<_>>>();
            let Some(below) = below else { return Ok(None) };
            match limited(&projection.input, below, fetch)? {
                Some(input) => plan.with_new_exprs(plan.expressions(), vec![input]).map(Some),
                None => Ok(None),
            }
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let inner = alias.input.schema().columns();
            let below = keys
                .into_iter()
                .map(|(expr, asc, nulls_first)| {
                    let Expr::Column(column) = &expr else { return None };
                    let at = alias.schema.maybe_index_of_column(column)?;
                    Some((Expr::Column(inner.get(at)?.clone()), asc, nulls_first))
                })
                .collect::<Option<Vec<_>>>();
            let Some(below) = below else { return Ok(None) };
            match limited(&alias.input, below, fetch)? {
                Some(input) => plan.with_new_exprs(vec![], vec![input]).map(Some),
                None => Ok(None),
            }
        }
        LogicalPlan::TableScan(scan) => limited_scan(scan, &keys, fetch),
        _ => Ok(None),
    }
}

fn limited_scan(scan: &TableScan, keys: &[(Expr, bool, bool)], fetch: usize) -> Result<Option<LogicalPlan>> {
    let Ok(provider) = source_as_provider(&scan.source) else { return Ok(None) };
    let provider: Arc<dyn std::any::Any + Send + Sync> = provider;
    let provider = match provider.downcast::<SnapshotTable>() {
        Ok(table) => return Ok(newest(scan, &table, keys, fetch)),
        Err(other) => other,
    };
    let Ok(grouped) = provider.downcast::<GroupedTable>() else { return Ok(None) };
    let query = grouped.query();
    if query.limit.is_some() || query.keys.is_empty() {
        return Ok(None);
    }
    let mut order = Vec::with_capacity(keys.len());
    for (expr, asc, nulls_first) in keys {
        let Expr::Column(column) = expr else { return Ok(None) };
        let key = query.keys.iter().position(|key| key.name == column.name).map(OrderTarget::Key);
        let aggregate =
            || query.aggregates.iter().position(|found| found.name == column.name).map(OrderTarget::Aggregate);
        let Some(target) = key.or_else(aggregate) else { return Ok(None) };
        order.push(OrderBy { target, descending: !asc, nulls_first: *nulls_first });
    }
    // Equal groups at the edge: Druid breaks ties by the keys, smallest first.
    for at in 0..query.keys.len() {
        let target = OrderTarget::Key(at);
        if !order.iter().any(|known| known.target == target) {
            order.push(OrderBy { target, descending: false, nulls_first: true });
        }
    }
    let table = grouped.ordered_by(order, fetch);
    let mut scan = scan.clone();
    scan.source = provider_as_source(Arc::new(table));
    Ok(Some(LogicalPlan::TableScan(scan)))
}

/// The table's newest or oldest rows, if that is what the order asks for.
fn newest(scan: &TableScan, table: &SnapshotTable, keys: &[(Expr, bool, bool)], fetch: usize) -> Option<LogicalPlan> {
    let [(Expr::Column(column), asc, _)] = keys else { return None };
    if column.name != TIME_COLUMN || fetch > BY_TIME_ROWS_MAX || table.is_by_time() || scan.fetch.is_some() {
        return None;
    }
    let by_time = table.by_time(ByTime { descending: !asc, rows: fetch });
    let mut scan = scan.clone();
    scan.source = provider_as_source(Arc::new(by_time));
    Some(LogicalPlan::TableScan(scan))
}
