//! SQL as the edges reach it: first the node's tables must hold what was committed when it started, then a query runs,
//! and when it is over it is noted in the node's request log.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use futures::Stream;
use query::{CancelOutcome, Description, QueryError, QueryErrorKind, QueryRequest, QueryService, QueryStream};

use crate::node::Node;
use crate::node::telemetry::RequestRecord;

/// The query room behind the node's readiness. Cheap to clone.
#[derive(Clone)]
pub struct Queries {
    node: Arc<Node>,
    /// Which edge this is, for the request log.
    protocol: &'static str,
}

impl Queries {
    pub fn of(node: &Arc<Node>, protocol: &'static str) -> Self {
        Self { node: Arc::clone(node), protocol }
    }

    /// Plans the statement and starts it.
    ///
    /// # Errors
    /// `Capacity` while the node still reads its log's tail; otherwise as [`QueryService::run`].
    pub async fn run(&self, request: QueryRequest) -> Result<QueryStream, QueryError> {
        let mut note = self.note(&request);
        let started = match self.ready().await {
            Ok(()) => self.service().run(request).await,
            Err(error) => Err(error),
        };
        match started {
            Ok(mut stream) => {
                note.record.query_id.clone_from(&stream.query_id);
                stream.batches = Box::pin(Noted { batches: stream.batches, note });
                Ok(stream)
            }
            Err(error) => {
                note.record.error = error.to_string();
                Err(error)
            }
        }
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
        self.service().describe(request, parameter_types).await
    }

    pub fn cancel(&self, query_id: &str) -> CancelOutcome {
        self.service().cancel(query_id)
    }

    fn service(&self) -> &QueryService {
        self.node.query()
    }

    async fn ready(&self) -> Result<(), QueryError> {
        let ready = self.node.ready_for_queries().await;
        ready.map_err(|error| QueryError::new(QueryErrorKind::Capacity, error.to_string()))
    }

    fn note(&self, request: &QueryRequest) -> Note {
        let record = RequestRecord {
            protocol: self.protocol,
            query_id: request.query_id.clone().unwrap_or_default(),
            identity: request.identity.clone(),
            sql: request.sql.clone(),
            duration_ms: 0,
            rows: 0,
            error: String::new(),
        };
        Note { node: Arc::clone(&self.node), record, began: Instant::now() }
    }
}

/// A request under way; noted when it is let go, however that comes about.
struct Note {
    node: Arc<Node>,
    record: RequestRecord,
    began: Instant,
}

impl Drop for Note {
    fn drop(&mut self) {
        self.record.duration_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.node.telemetry().request(self.record.clone());
    }
}

/// Batches on their way, counted.
struct Noted {
    batches: query::result::BatchStream,
    note: Note,
}

impl Stream for Noted {
    type Item = Result<RecordBatch, QueryError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(self.batches.as_mut().poll_next(context));
        match &next {
            Some(Ok(batch)) => self.note.record.rows += u64::try_from(batch.num_rows()).unwrap_or(0),
            Some(Err(error)) => self.note.record.error = error.to_string(),
            None => {}
        }
        Poll::Ready(next)
    }
}
