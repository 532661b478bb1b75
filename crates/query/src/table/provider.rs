//! One snapshot of one table as a DataFusion table.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use store::engine::Limits;
use store::schema::TableSchema;
use store::snapshot::TableSnapshot;

use super::filter::{all_of, to_filter};
use super::scan::{Reach, SegmentScanExec};

/// A table at one moment; lives as long as the query.
#[derive(Debug)]
pub struct SnapshotTable {
    snapshot: Arc<TableSnapshot>,
    schema: SchemaRef,
    by_time: Option<ByTime>,
    limits: Limits,
}

/// The newest or oldest rows only, in the order of their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByTime {
    pub descending: bool,
    pub rows: usize,
}

impl SnapshotTable {
    /// `limits` are those of the query.
    pub fn new(snapshot: TableSnapshot, limits: Limits) -> Self {
        let schema = snapshot.schema.arrow();
        Self { snapshot: Arc::new(snapshot), schema, by_time: None, limits }
    }

    /// The same table, of which a scan gives the newest or oldest rows only.
    #[must_use]
    pub fn by_time(&self, by_time: ByTime) -> Self {
        Self {
            snapshot: Arc::clone(&self.snapshot),
            schema: Arc::clone(&self.schema),
            by_time: Some(by_time),
            limits: self.limits.clone(),
        }
    }

    pub fn is_by_time(&self) -> bool {
        self.by_time.is_some()
    }

    pub fn snapshot(&self) -> &Arc<TableSnapshot> {
        &self.snapshot
    }

    /// What the query may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn table_schema(&self) -> &TableSchema {
        &self.snapshot.schema
    }
}

#[async_trait]
impl TableProvider for SnapshotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let pushed = |filter: &&Expr| match to_filter(filter, self.table_schema()) {
            Some(_) => TableProviderFilterPushDown::Exact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(pushed).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let Some(filter) = all_of(filters, self.table_schema()) else {
            return datafusion::common::internal_err!("a filter was pushed down that the engine does not have");
        };
        let reach = match (self.by_time, limit) {
            (Some(by_time), _) => Reach::ByTime(by_time),
            (None, Some(rows)) => Reach::First(rows),
            (None, None) => Reach::All { threads: state.config().target_partitions() },
        };
        Ok(Arc::new(SegmentScanExec::plan(&self.snapshot, schema, filter, reach, &self.limits)?))
    }
}
