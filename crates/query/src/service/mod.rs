//! The door: runs, describes, cancels and lists queries.
//!
//! ```text
//! context   what the query context and SET say: zone, timeout, id, limits
//! registry  queries that run or wait
//! run       one query from request to stream: gate, plan, start
//! stream    the batches: deadline, cancel, counting, clean-up
//! ```

mod context;
mod registry;
mod run;
mod stream;

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use tokio::sync::Semaphore;

use crate::catalog::Catalog;
use crate::error::QueryError;
use crate::limits::QueryLimits;
use crate::plan::{Planner, SharedMemory};
use crate::request::QueryRequest;
use crate::result::{Description, QueryStream};
use registry::Registry;

/// What a cancel did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    Cancelled,
    NotFound,
}

/// Where a query is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryState {
    Waiting,
    Running,
}

/// One row of `sys.queries`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryInfo {
    pub query_id: String,
    pub sql: String,
    pub identity: String,
    pub state: QueryState,
    pub elapsed_ms: u64,
    pub rows: u64,
}

/// Runs queries over one catalog. Cheap to clone; share one per node.
#[derive(Clone)]
pub struct QueryService {
    inner: Arc<Inner>,
}

struct Inner {
    catalog: Arc<dyn Catalog>,
    limits: QueryLimits,
    planner: Planner,
    memory: Arc<SharedMemory>,
    gate: Arc<Semaphore>,
    registry: Arc<Registry>,
}

impl QueryService {
    /// # Panics
    /// If the function library of this build is broken, which a test of this crate proves it is not.
    #[expect(clippy::expect_used, reason = "a fault of ours at start, before any query")]
    pub fn new(catalog: Arc<dyn Catalog>, limits: QueryLimits) -> Self {
        let planner = Planner::new(&limits).expect("the function library registers");
        let inner = Inner {
            catalog,
            planner,
            memory: SharedMemory::new(limits.memory_bytes),
            gate: Arc::new(Semaphore::new(limits.concurrent_max.max(1))),
            registry: Arc::new(Registry::default()),
            limits,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Plans the statement and starts it.
    ///
    /// # Errors
    /// Whatever is wrong before the first row; later errors come through the stream.
    pub async fn run(&self, request: QueryRequest) -> Result<QueryStream, QueryError> {
        Box::pin(self.inner.run(request)).await
    }

    /// What the statement would return. `parameter_types[i]` is the type the client declared for parameter `i`, if any.
    ///
    /// # Errors
    /// As [`QueryService::run`] before it starts.
    pub async fn describe(
        &self,
        request: &QueryRequest,
        parameter_types: &[Option<DataType>],
    ) -> Result<Description, QueryError> {
        self.inner.describe(request, parameter_types)
    }

    /// Stops every query that runs or waits under this id.
    pub fn cancel(&self, query_id: &str) -> CancelOutcome {
        self.inner.registry.cancel(query_id)
    }

    /// Running and waiting queries, oldest first.
    pub fn running(&self) -> Vec<QueryInfo> {
        self.inner.registry.list()
    }
}

impl fmt::Debug for QueryService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryService").field("limits", &self.inner.limits).finish_non_exhaustive()
    }
}
