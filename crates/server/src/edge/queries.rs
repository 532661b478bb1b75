//! SQL as the edges reach it: first the node's tables must hold what was committed when it started, then a query runs.

use std::sync::Arc;

use arrow::datatypes::DataType;
use query::{CancelOutcome, Description, QueryError, QueryErrorKind, QueryRequest, QueryService, QueryStream};

use crate::node::Node;

/// The query room behind the node's readiness. Cheap to clone.
#[derive(Clone)]
pub struct Queries {
    service: QueryService,
    /// `None` in tests that bring a catalog of their own.
    node: Option<Arc<Node>>,
}

impl Queries {
    pub fn of(node: &Arc<Node>) -> Self {
        Self { service: node.query().clone(), node: Some(Arc::clone(node)) }
    }

    /// Over a catalog that is whole from the start.
    #[cfg(test)]
    pub fn over(service: QueryService) -> Self {
        Self { service, node: None }
    }

    /// Plans the statement and starts it.
    ///
    /// # Errors
    /// `Capacity` while the node still reads its log's tail; otherwise as [`QueryService::run`].
    pub async fn run(&self, request: QueryRequest) -> Result<QueryStream, QueryError> {
        self.ready().await?;
        self.service.run(request).await
    }

    /// What the statement would return.
    ///
    /// # Errors
    /// As [`Queries::run`].
    pub async fn describe(
        &self,
        request: &QueryRequest,
        parameter_types: &[Option<DataType>],
    ) -> Result<Description, QueryError> {
        self.ready().await?;
        self.service.describe(request, parameter_types).await
    }

    pub fn cancel(&self, query_id: &str) -> CancelOutcome {
        self.service.cancel(query_id)
    }

    async fn ready(&self) -> Result<(), QueryError> {
        let Some(node) = &self.node else { return Ok(()) };
        node.ready_for_queries().await.map_err(|error| QueryError::new(QueryErrorKind::Capacity, error.to_string()))
    }
}
