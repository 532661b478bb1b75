//! Aggregate over a table becomes one question to the segment engine, wherever the engine gives the same answer.
//! The rest stays with DataFusion: other functions, expressions as keys, grouping sets, filters it could not push.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::Timestamp;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, Result, TableReference};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Cast, Expr, LogicalPlan, Projection, TableScanBuilder, TryCast, cast};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use store::engine::{self, AggregateQuery, Function, Key, KeyKind, LongMap, TimeFloor};
use store::schema::{ColumnType, TableSchema};

use crate::functions::{APPROX_QUANTILE, quantile_of};
use crate::table::filter::{all_of, column, floor_of, long_map, to_filter};
use crate::table::{GroupedTable, SnapshotTable};

/// The rule.
#[derive(Debug)]
pub struct EngineAggregate;

impl OptimizerRule for EngineAggregate {
    fn name(&self) -> &str {
        "engine_aggregate"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
        match engine_plan(aggregate)? {
            Some(new) => Ok(Transformed::yes(new)),
            None => Ok(Transformed::no(plan)),
        }
    }
}

/// A table below an aggregate, and what its columns are called on the way up.
struct Source {
    table: Arc<SnapshotTable>,
    filters: Vec<Expr>,
    /// Column as the aggregate sees it -> expression over the table's columns.
    names: BTreeMap<Column, Expr>,
}

fn engine_plan(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    let Some(source) = source_of(&aggregate.input) else { return Ok(None) };
    let Some(query) = query_of(aggregate, &source)? else { return Ok(None) };
    let snapshot = Arc::clone(source.table.snapshot());
    let name = TableReference::bare(format!("{} grouped", snapshot.table));
    let grouped = match GroupedTable::new(snapshot, query, source.table.limits().clone()) {
        Ok(grouped) => grouped,
        Err(store::engine::EngineError::Unsupported(_)) => return Ok(None),
        Err(error) => return Err(crate::table::engine_error(error)),
    };
    let scan = TableScanBuilder::new(name, provider_as_source(Arc::new(grouped))).build()?;
    let scan = LogicalPlan::TableScan(scan);
    project_as(scan, aggregate).map(Some)
}

/// The engine's columns under the aggregate's names and types.
fn project_as(scan: LogicalPlan, aggregate: &Aggregate) -> Result<LogicalPlan> {
    let found = Arc::clone(scan.schema());
    let exprs = aggregate
        .schema
        .iter()
        .zip(found.iter())
        .map(|((relation, field), found)| {
            let expr = Expr::Column(Column::from(found));
            let expr =
                if field.data_type() == found.1.data_type() { expr } else { cast(expr, field.data_type().clone()) };
            expr.alias_qualified(relation.cloned(), field.name())
        })
        .collect();
    let schema = Arc::clone(&aggregate.schema);
    Ok(LogicalPlan::Projection(Projection::try_new_with_schema(exprs, Arc::new(scan), schema)?))
}

/// The table below, if nothing but renaming and pushed filters is between.
fn source_of(plan: &LogicalPlan) -> Option<Source> {
    match plan {
        LogicalPlan::TableScan(scan) if scan.fetch.is_none() => {
            let provider = source_as_provider(&scan.source).ok()?;
            let provider: Arc<dyn std::any::Any + Send + Sync> = provider;
            let table = provider.downcast::<SnapshotTable>().ok()?;
            let names = scan
                .projected_schema
                .columns()
                .into_iter()
                .map(|column| (column.clone(), Expr::Column(Column::new_unqualified(column.name))))
                .collect();
            let filters = scan.filters.iter().map(|filter| unqualified(filter.clone())).collect::<Option<_>>()?;
            Some(Source { table, filters, names })
        }
        LogicalPlan::Projection(projection) => {
            let below = source_of(&projection.input)?;
            let names = projection
                .schema
                .columns()
                .into_iter()
                .zip(&projection.expr)
                .map(|(column, expr)| Some((column, below.over_table(expr.clone())?)))
                .collect::<Option<_>>()?;
            Some(Source { names, ..below })
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let below = source_of(&alias.input)?;
            let inner = alias.input.schema().columns();
            let names = alias
                .schema
                .columns()
                .into_iter()
                .zip(inner)
                .map(|(outer, inner)| Some((outer, below.names.get(&inner)?.clone())))
                .collect::<Option<_>>()?;
            Some(Source { names, ..below })
        }
        LogicalPlan::Filter(filter) => {
            let mut below = source_of(&filter.input)?;
            let predicate = below.over_table(filter.predicate.clone())?;
            below.filters.push(predicate);
            Some(below)
        }
        _ => None,
    }
}

fn unqualified(expr: Expr) -> Option<Expr> {
    expr.transform(|expr| match expr {
        Expr::Column(column) => Ok(Transformed::yes(Expr::Column(Column::new_unqualified(column.name)))),
        other => Ok(Transformed::no(other)),
    })
    .data()
    .ok()
}

impl Source {
    /// The expression over the table's own columns, without aliases.
    fn over_table(&self, expr: Expr) -> Option<Expr> {
        let mut known = true;
        let expr = expr
            .transform_up(|expr| match expr {
                Expr::Column(column) => match self.names.get(&column) {
                    Some(expr) => Ok(Transformed::yes(expr.clone())),
                    None => {
                        known = false;
                        Ok(Transformed::no(Expr::Column(column)))
                    }
                },
                Expr::Alias(alias) => Ok(Transformed::yes(*alias.expr)),
                other => Ok(Transformed::no(other)),
            })
            .data()
            .ok()?;
        known.then_some(expr)
    }

    fn schema(&self) -> &TableSchema {
        self.table.table_schema()
    }
}

fn query_of(aggregate: &Aggregate, source: &Source) -> Result<Option<AggregateQuery>> {
    let Some(filter) = all_of(&source.filters, source.schema()) else { return Ok(None) };
    let mut query = AggregateQuery { filter, ..AggregateQuery::default() };
    for (at, expr) in aggregate.group_expr.iter().enumerate() {
        let Some(kind) = source.over_table(expr.clone()).and_then(|expr| key_of(&expr, source.schema())) else {
            return Ok(None);
        };
        query.keys.push(Key { name: format!("k{at}"), kind });
    }
    for (at, expr) in aggregate.aggr_expr.iter().enumerate() {
        let Some(found) = aggregate_of(expr, source, format!("a{at}")) else { return Ok(None) };
        query.aggregates.push(found);
    }
    if query.keys.is_empty() && query.aggregates.is_empty() {
        return Ok(None);
    }
    // Buckets of time come in their order, as every client of Druid expects.
    if query.keys.iter().any(|key| matches!(key.kind, KeyKind::TimeFloor { .. })) {
        query.order = (0..query.keys.len())
            .map(|at| engine::OrderBy { target: engine::OrderTarget::Key(at), descending: false, nulls_first: true })
            .collect();
    }
    Ok(Some(query))
}

fn key_of(expr: &Expr, schema: &TableSchema) -> Option<KeyKind> {
    match expr {
        Expr::Column(_) => {
            let (column, ty) = column(expr, schema)?;
            (!ty.is_array() && ty != ColumnType::Json).then_some(KeyKind::Column(column))
        }
        Expr::ScalarFunction(function) if function.func.name() == "time_floor" => {
            let (column, _) = long_map(function, schema)?;
            let granularity = floor_of(function)?;
            let floor = move |time: i64| {
                let bucket = granularity.bucket(Timestamp(time));
                (bucket.start().0, bucket.end().0)
            };
            Some(KeyKind::TimeFloor { column, floor: TimeFloor(Arc::new(floor)) })
        }
        Expr::ScalarFunction(function) if function.func.name() == "time_extract" => {
            let (column, map) = long_map(function, schema)?;
            Some(KeyKind::LongMap { column, map: LongMap(Arc::new(move |time| Some(map(time)))) })
        }
        // CAST(FLOOR(__time TO HOUR) AS BIGINT)
        Expr::ScalarFunction(function) if function.func.name() == "cast_bigint" => match function.args.first()? {
            Expr::ScalarFunction(inner) if inner.func.name() == "time_floor" => {
                let (column, map) = long_map(inner, schema)?;
                Some(KeyKind::LongMap { column, map: LongMap(Arc::new(move |time| Some(map(time)))) })
            }
            _ => None,
        },
        _ => None,
    }
}

fn aggregate_of(expr: &Expr, source: &Source, name: String) -> Option<engine::Aggregate> {
    let function = match expr {
        Expr::Alias(alias) => return aggregate_of(&alias.expr, source, name),
        Expr::AggregateFunction(function) => function,
        _ => return None,
    };
    let AggregateFunction { func, params } = function;
    if !params.order_by.is_empty() || params.null_treatment.is_some() {
        return None;
    }
    let filter = match &params.filter {
        Some(filter) => Some(to_filter(&source.over_table(filter.as_ref().clone())?, source.schema())?),
        None => None,
    };
    let arg = match params.args.first() {
        Some(arg) => Some(source.over_table(arg.clone())?),
        None => None,
    };
    let function = match params.args.as_slice() {
        [_, share, k] if func.name() == APPROX_QUANTILE && !params.distinct => {
            quantile(arg.as_ref()?, share, k, source.schema())?
        }
        [] | [_] => function_of(func.name(), params.distinct, arg.as_ref(), source.schema())?,
        _ => return None,
    };
    Some(engine::Aggregate { name, function, filter })
}

fn quantile(arg: &Expr, share: &Expr, k: &Expr, schema: &TableSchema) -> Option<Function> {
    let (Expr::Literal(share, _), Expr::Literal(k, _)) = (share, k) else { return None };
    // What they are not allowed to be is said where the function runs.
    let (share, k) = quantile_of(share, k).ok()?;
    let (column, ty) = column(without_widening(arg), schema)?;
    matches!(ty, ColumnType::Long | ColumnType::Double).then_some(Function::Quantile { column, share, k })
}

fn function_of(name: &str, distinct: bool, arg: Option<&Expr>, schema: &TableSchema) -> Option<Function> {
    let numeric = |expr: &Expr| {
        let (column, ty) = column(expr, schema)?;
        matches!(ty, ColumnType::Long | ColumnType::Double).then_some((column, ty))
    };
    match (name, distinct) {
        ("count", false) => match arg? {
            Expr::Literal(value, _) if !value.is_null() => Some(Function::Count),
            arg => Some(Function::CountColumn(column(arg, schema)?.0)),
        },
        ("count", true) => {
            let (column, ty) = column(arg?, schema)?;
            let exact =
                matches!(ty, ColumnType::String | ColumnType::Long | ColumnType::Timestamp | ColumnType::Boolean);
            exact.then_some(Function::CountDistinct(column))
        }
        ("sum", false) => Some(Function::Sum(numeric(arg?)?.0)),
        ("avg", false) => Some(Function::Average(numeric(without_widening(arg?))?.0)),
        ("min" | "max", _) => {
            let (column, ty) = column(arg?, schema)?;
            if !matches!(ty, ColumnType::Long | ColumnType::Double | ColumnType::Timestamp) {
                return None;
            }
            Some(if name == "min" { Function::Min(column) } else { Function::Max(column) })
        }
        _ => None,
    }
}

/// AVG is planned over a double; the engine does that itself.
fn without_widening(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(Cast { expr, field, .. }) if field.data_type() == &DataType::Float64 => expr,
        Expr::TryCast(TryCast { expr, field, .. }) if field.data_type() == &DataType::Float64 => expr,
        other => other,
    }
}
