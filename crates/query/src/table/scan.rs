//! Rows of one snapshot: units are dealt to partitions, each partition is read by one blocking task.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use store::engine::{Filter, Limits, Scan, ScanQuery, Unit};
use store::schema::TIME_COLUMN;
use store::snapshot::TableSnapshot;

use super::{ByTime, engine_error};

/// Rows of one unit, before any filter: small enough to spread, large enough to be worth a task switch.
const ROWS_PER_UNIT: usize = 128 * 1024;
/// Batches a partition may be ahead of its reader.
const BATCHES_AHEAD: usize = 2;

/// Which rows of those that pass the filter.
#[derive(Clone, Copy, Debug)]
pub enum Reach {
    /// All, in no particular order, read by so many threads at most.
    All { threads: usize },
    /// The table's first ones.
    First(usize),
    /// The newest or oldest, in the order of their time.
    ByTime(ByTime),
}

/// Reads rows on the engine: projection, filter, and how far.
#[derive(Debug)]
pub struct SegmentScanExec {
    table: Arc<str>,
    schema: SchemaRef,
    query: ScanQuery,
    reach: Reach,
    scan: Arc<Scan>,
    units: Vec<Unit>,
    properties: Arc<PlanProperties>,
}

impl SegmentScanExec {
    /// Prunes segments and deals the rest to partitions.
    pub fn plan(
        snapshot: &TableSnapshot,
        schema: SchemaRef,
        filter: Option<Filter>,
        reach: Reach,
        limits: &Limits,
    ) -> Result<Self> {
        let mut projection: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        if projection.is_empty() {
            // Only the number of rows is asked for; some column has to carry it.
            projection.push(TIME_COLUMN.to_owned());
        }
        let limit = match reach {
            Reach::All { .. } => None,
            Reach::First(rows) | Reach::ByTime(ByTime { rows, .. }) => Some(rows),
        };
        let query = ScanQuery { projection, filter, limit, reverse: false };
        let scan = Arc::new(Scan::plan(snapshot, &query, limits).map_err(engine_error)?);
        let units = scan.units(ROWS_PER_UNIT);
        let partitions = match reach {
            Reach::All { threads } => threads.min(units.len()).max(1),
            Reach::First(_) | Reach::ByTime(_) => 1,
        };
        let properties = PlanProperties::new(
            ordering(&schema, reach),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let table = Arc::clone(&snapshot.table);
        Ok(Self { table, schema, query, reach, scan, units, properties: Arc::new(properties) })
    }

    fn partitions(&self) -> usize {
        self.properties.partitioning.partition_count()
    }
}

impl DisplayAs for SegmentScanExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SegmentScanExec: table={}, columns=[{}], units={}",
            self.table,
            self.query.projection.join(", "),
            self.units.len()
        )?;
        if let Some(filter) = &self.query.filter {
            write!(f, ", filter={}", super::grouped::show_filter(filter))?;
        }
        match self.reach {
            Reach::All { .. } => Ok(()),
            Reach::First(rows) => write!(f, ", limit={rows}"),
            Reach::ByTime(ByTime { descending: true, rows }) => write!(f, ", newest={rows}"),
            Reach::ByTime(ByTime { descending: false, rows }) => write!(f, ", oldest={rows}"),
        }
    }
}

impl ExecutionPlan for SegmentScanExec {
    fn name(&self) -> &str {
        "SegmentScanExec"
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

    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition >= self.partitions() {
            return internal_err!("the scan has {} partitions, not {}", self.partitions(), partition + 1);
        }
        let units: Vec<Unit> = self.units.iter().skip(partition).step_by(self.partitions()).cloned().collect();
        let scan = Arc::clone(&self.scan);
        let mut builder = RecordBatchReceiverStreamBuilder::new(Arc::clone(&self.schema), BATCHES_AHEAD);
        let out = builder.tx();
        let schema = Arc::clone(&self.schema);
        if let Reach::ByTime(ByTime { descending, .. }) = self.reach {
            builder.spawn_blocking(move || {
                let rows = scan.by_time(descending).map_err(engine_error)?;
                // If nobody reads on, the query is over.
                let _ = out.blocking_send(conform(rows, &schema));
                Ok(())
            });
            return Ok(builder.build());
        }
        let mut left = self.query.limit;
        builder.spawn_blocking(move || {
            for unit in units {
                if left == Some(0) {
                    break;
                }
                for batch in scan.open(unit) {
                    let batch = conform(batch.map_err(engine_error)?, &schema)?;
                    let batch = match left {
                        Some(rows) if batch.num_rows() > rows => batch.slice(0, rows),
                        _ => batch,
                    };
                    left = left.map(|rows| rows - batch.num_rows());
                    if out.blocking_send(Ok(batch)).is_err() {
                        // Nobody reads on: the query is over.
                        return Ok(());
                    }
                }
            }
            Ok(())
        });
        Ok(builder.build())
    }
}

/// What the rows are known to be ordered by.
fn ordering(schema: &SchemaRef, reach: Reach) -> EquivalenceProperties {
    let plain = || EquivalenceProperties::new(Arc::clone(schema));
    let Reach::ByTime(ByTime { descending, .. }) = reach else { return plain() };
    let Ok(at) = schema.index_of(TIME_COLUMN) else { return plain() };
    // The time is never null, so that either place of nulls is true.
    let sorts = [true, false].map(|nulls_first| {
        let expr: Arc<dyn PhysicalExpr> = Arc::new(Column::new(TIME_COLUMN, at));
        [PhysicalSortExpr { expr, options: SortOptions { descending, nulls_first } }]
    });
    EquivalenceProperties::new_with_orderings(Arc::clone(schema), sorts)
}

/// The batch under the plan's schema: without the column that only carried the number of rows.
fn conform(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let columns = if schema.fields().is_empty() { vec![] } else { batch.columns().to_vec() };
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(DataFusionError::from)
}
