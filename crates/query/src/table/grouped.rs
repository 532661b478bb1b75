//! A whole aggregation done by the segment engine: what the planner's rule puts in place of Aggregate over a table.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{StreamExt, TryStreamExt, stream};
use store::engine::{AggregateQuery, Aggregation, EngineError, Filter, Limits, OrderBy, OrderTarget, Partial, Unit};
use store::snapshot::TableSnapshot;

use super::engine_error;
use crate::limits::BATCH_ROWS;

/// Rows of one unit, before any filter.
const ROWS_PER_UNIT: usize = 256 * 1024;
/// So few rows are looked at where they are planned: to wake other threads would take longer.
const ROWS_INLINE_MAX: usize = 64 * 1024;
/// So many keys fit whatever their segments hold.
const KEYS_FIT: usize = 7;

/// The answer of an aggregation as a table: keys, then aggregates.
#[derive(Debug)]
pub struct GroupedTable {
    snapshot: Arc<TableSnapshot>,
    query: AggregateQuery,
    schema: SchemaRef,
    limits: Limits,
}

impl GroupedTable {
    /// # Errors
    /// If the engine cannot do it; the caller then leaves it to DataFusion.
    pub fn new(snapshot: Arc<TableSnapshot>, query: AggregateQuery, limits: Limits) -> Result<Self, EngineError> {
        // Whether the engine takes it does not depend on the rows, but for very wide keys.
        let schema = if query.keys.len() <= KEYS_FIT {
            let empty = TableSnapshot { segments: Vec::new(), ..(*snapshot).clone() };
            Aggregation::plan(&empty, &query, &limits)?.schema()
        } else {
            Aggregation::plan(&snapshot, &query, &limits)?.schema()
        };
        Ok(Self { snapshot, query, schema, limits })
    }

    /// The same answer in an order, and cut.
    #[must_use]
    pub fn ordered_by(&self, order: Vec<OrderBy>, limit: usize) -> Self {
        let query = AggregateQuery { order, limit: Some(limit), ..self.query.clone() };
        Self {
            snapshot: Arc::clone(&self.snapshot),
            query,
            schema: Arc::clone(&self.schema),
            limits: self.limits.clone(),
        }
    }

    /// What the engine is asked.
    pub fn query(&self) -> &AggregateQuery {
        &self.query
    }

    /// What the answer is known to be ordered by, so that nobody sorts it again: the longest part of the engine's
    /// order whose columns are in the schema.
    fn ordered(&self, schema: SchemaRef) -> EquivalenceProperties {
        let sort = |order: &OrderBy| {
            let name = match order.target {
                OrderTarget::Key(at) => &self.query.keys.get(at)?.name,
                OrderTarget::Aggregate(at) => &self.query.aggregates.get(at)?.name,
            };
            let expr: Arc<dyn PhysicalExpr> = Arc::new(Column::new(name, schema.index_of(name).ok()?));
            let options = SortOptions { descending: order.descending, nulls_first: order.nulls_first };
            Some(PhysicalSortExpr { expr, options })
        };
        let known: Vec<PhysicalSortExpr> = self.query.order.iter().map_while(sort).collect();
        EquivalenceProperties::new_with_orderings(Arc::clone(&schema), [known])
    }
}

#[async_trait]
impl TableProvider for GroupedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let properties = PlanProperties::new(
            self.ordered(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        let plan = Aggregation::plan(&self.snapshot, &self.query, &self.limits);
        Ok(Arc::new(SegmentAggregateExec {
            table: Arc::clone(&self.snapshot.table),
            query: self.query.clone(),
            plan: Arc::new(plan.map_err(engine_error)?),
            projection: projection.cloned(),
            threads: state.config().target_partitions(),
            properties: Arc::new(properties),
        }))
    }
}

/// Runs the aggregation: one partial per thread, units handed out as threads come free, merged at the end.
#[derive(Debug)]
pub struct SegmentAggregateExec {
    table: Arc<str>,
    query: AggregateQuery,
    plan: Arc<Aggregation>,
    projection: Option<Vec<usize>>,
    threads: usize,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for SegmentAggregateExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<String> = self.query.keys.iter().map(|key| format!("{:?}", key.kind)).collect();
        let aggregates: Vec<String> = self
            .query
            .aggregates
            .iter()
            .map(|aggregate| match &aggregate.filter {
                Some(filter) => format!("{:?} where {}", aggregate.function, show_filter(filter)),
                None => format!("{:?}", aggregate.function),
            })
            .collect();
        write!(f, "SegmentAggregateExec: table={}, keys=[{}]", self.table, keys.join(", "))?;
        write!(f, ", aggregates=[{}]", aggregates.join(", "))?;
        if let Some(filter) = &self.query.filter {
            write!(f, ", filter={}", show_filter(filter))?;
        }
        if let Some(limit) = self.query.limit {
            write!(f, ", top={limit} by {:?}", self.query.order)?;
        }
        Ok(())
    }
}

/// A filter for EXPLAIN; cut where a list is long.
pub fn show_filter(filter: &Filter) -> String {
    const SHOWN_BYTES_MAX: usize = 400;
    let mut text = format!("{filter:?}");
    if text.len() > SHOWN_BYTES_MAX {
        let end = (0..=SHOWN_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}

impl ExecutionPlan for SegmentAggregateExec {
    fn name(&self) -> &str {
        "SegmentAggregateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("the aggregation has one partition, not {}", partition + 1);
        }
        let plan = Arc::clone(&self.plan);
        let work = Arc::new(Work { units: plan.units(ROWS_PER_UNIT), plan, next: AtomicUsize::new(0) });
        let threads = self.threads.min(work.units.len()).max(1);
        let reservation = MemoryConsumer::new("SegmentAggregateExec").register(context.memory_pool());
        let (schema, projection) = (self.schema(), self.projection.clone());
        let batches = stream::once(async move {
            let batch = run(work, threads).await?;
            let batch = match &projection {
                Some(columns) => batch.project(columns)?,
                None => batch,
            };
            reservation.try_grow(batch.get_array_memory_size())?;
            let rows = batch.num_rows();
            let starts = (0..rows.max(1)).step_by(BATCH_ROWS);
            Ok::<_, DataFusionError>(stream::iter(starts.map(move |start| {
                // The reservation lives as long as the answer is being read.
                let _held = &reservation;
                Ok(batch.slice(start, BATCH_ROWS.min(rows - start)))
            })))
        })
        .try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches.boxed())))
    }
}

/// What the threads of one aggregation share.
struct Work {
    plan: Arc<Aggregation>,
    units: Vec<Unit>,
    next: AtomicUsize,
}

impl Work {
    /// One thread's part: takes units until none is left.
    fn part(&self) -> Result<Partial, EngineError> {
        let mut partial = self.plan.start();
        while let Some(unit) = self.units.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            self.plan.run(unit, &mut partial)?;
        }
        Ok(partial)
    }
}

async fn run(work: Arc<Work>, threads: usize) -> Result<RecordBatch> {
    if work.plan.work_rows(&work.units) <= ROWS_INLINE_MAX {
        return work.part().and_then(|partial| work.plan.finish(partial)).map_err(engine_error);
    }
    let tasks: Vec<_> = (0..threads)
        .map(|_| {
            let work = Arc::clone(&work);
            SpawnedTask::spawn_blocking(move || work.part())
        })
        .collect();
    let mut partials = Vec::with_capacity(threads);
    for task in tasks {
        partials.push(join(task).await?);
    }
    let parts = work.plan.merge_parts(threads);
    if parts > 1 && partials.len() > 1 {
        return merge_side_by_side(work, partials, parts).await;
    }
    join(SpawnedTask::spawn_blocking(move || {
        let mut partials = partials.into_iter();
        let mut merged = partials.next().unwrap_or_else(|| work.plan.start());
        for partial in partials {
            work.plan.merge(&mut merged, partial)?;
        }
        work.plan.finish(merged)
    }))
    .await
}

/// Many groups: each thread merges a share of them.
async fn merge_side_by_side(work: Arc<Work>, partials: Vec<Partial>, parts: usize) -> Result<RecordBatch> {
    let partials = Arc::new(partials);
    let tasks: Vec<_> = (0..parts)
        .map(|part| {
            let (work, partials) = (Arc::clone(&work), Arc::clone(&partials));
            SpawnedTask::spawn_blocking(move || work.plan.merge_part(&partials, part, parts))
        })
        .collect();
    let mut merged = Vec::with_capacity(parts);
    for task in tasks {
        merged.push(join(task).await?);
    }
    drop(partials);
    join(SpawnedTask::spawn_blocking(move || work.plan.finish_parts(merged))).await
}

async fn join<T>(task: SpawnedTask<Result<T, EngineError>>) -> Result<T> {
    match task.await {
        Ok(result) => result.map_err(engine_error),
        Err(error) => internal_err!("a thread of the segment engine stopped: {error}"),
    }
}
