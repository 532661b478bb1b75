//! The door: runs, describes, cancels and lists queries.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;

use crate::catalog::Catalog;
use crate::error::QueryError;
use crate::limits::QueryLimits;
use crate::request::QueryRequest;
use crate::result::{Description, QueryStream};

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
    catalog: Arc<dyn Catalog>,
    limits: QueryLimits,
}

impl QueryService {
    pub fn new(catalog: Arc<dyn Catalog>, limits: QueryLimits) -> Self {
        Self { catalog, limits }
    }

    /// Plans the statement and starts it.
    ///
    /// # Errors
    /// Whatever is wrong before the first row; later errors come through the stream.
    pub async fn run(&self, _request: QueryRequest) -> Result<QueryStream, QueryError> {
        let _ = (&self.catalog, &self.limits);
        Err(QueryError::unsupported("not yet"))
    }

    /// What the statement would return. `parameter_types[i]` is the type the client declared for parameter `i`, if any.
    pub async fn describe(
        &self,
        _request: &QueryRequest,
        _parameter_types: &[Option<DataType>],
    ) -> Result<Description, QueryError> {
        Err(QueryError::unsupported("not yet"))
    }

    /// Stops every query that runs or waits under this id.
    pub fn cancel(&self, _query_id: &str) -> CancelOutcome {
        CancelOutcome::NotFound
    }

    /// Running and waiting queries, oldest first.
    pub fn running(&self) -> Vec<QueryInfo> {
        Vec::new()
    }
}
