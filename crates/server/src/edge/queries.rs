//! SQL as the edges reach it: first the node's tables must hold what was committed when it started, then a query runs on
//! the query threads, and when it is over it is noted in the node's request log.
//!
//! What always holds: however busy a query keeps its threads, the edge that waits for it stays free to hear a cancel; a
//! query computes only a few batches ahead of its client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use futures::{Stream, StreamExt};
use query::result::BatchStream;
use query::{CancelOutcome, Description, QueryError, QueryErrorKind, QueryRequest, QueryService, QueryStream};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::node::Node;
use crate::node::history::{self, Entry, Kind};
use crate::node::telemetry::RequestRecord;

/// Batches that wait for a client; further ones are not computed.
const BATCHES_WAITING_MAX: usize = 2;

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

    /// Plans the statement and starts it, on the query threads. Dropping the stream, or this future, stops it.
    ///
    /// # Errors
    /// `Capacity` while the node still reads its log's tail; otherwise as [`QueryService::run`].
    pub async fn run(&self, request: QueryRequest) -> Result<QueryStream, QueryError> {
        let mut note = self.note(&request);
        let started = match self.ready().await {
            Ok(()) => self.start(request).await,
            Err(error) => Err(error),
        };
        match started {
            Ok((mut stream, work)) => {
                note.record.query_id.clone_from(&stream.query_id);
                stream.batches = Box::pin(Noted { batches: stream.batches, note, _work: work });
                Ok(stream)
            }
            Err(error) => {
                note.record.error = error.to_string();
                Err(error)
            }
        }
    }

    async fn start(&self, request: QueryRequest) -> Result<(QueryStream, Work), QueryError> {
        let (answer, answered) = oneshot::channel();
        let (batches, received) = mpsc::channel(BATCHES_WAITING_MAX);
        let service = self.service().clone();
        let work = Work(self.node.query_threads().spawn(async move {
            match service.run(request).await {
                Ok(mut stream) => {
                    let rows = std::mem::replace(&mut stream.batches, Box::pin(futures::stream::empty()));
                    if answer.send(Ok(stream)).is_ok() {
                        forward(rows, batches).await;
                    }
                }
                Err(error) => drop(answer.send(Err(error))),
            }
        }));
        let broken = || QueryError::internal("the query broke; the node goes on");
        let mut stream = answered.await.map_err(|_| broken())??;
        stream.batches = Box::pin(futures::stream::unfold(received, |mut received| async move {
            received.recv().await.map(|batch| (batch, received))
        }));
        Ok((stream, work))
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
        let (service, request, types) = (self.service().clone(), request.clone(), parameter_types.to_vec());
        let (answer, answered) = oneshot::channel();
        let _work = Work(self.node.query_threads().spawn(async move {
            drop(answer.send(service.describe(&request, &types).await));
        }));
        answered.await.map_err(|_| QueryError::internal("the query broke; the node goes on"))?
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
        let RequestRecord { query_id, identity, sql, duration_ms, rows, error, .. } = self.record.clone();
        self.node.history().note(Entry {
            sequence: 0,
            node: 0,
            kind: Kind::Query,
            id: query_id,
            subject: sql,
            identity,
            began: history::began(self.began.elapsed()),
            duration_ms,
            rows,
            error,
        });
    }
}

/// A task of the query threads that ends with whoever waits for it.
struct Work(JoinHandle<()>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Hands on batches until they end or nobody takes them.
async fn forward(mut rows: BatchStream, batches: mpsc::Sender<Result<RecordBatch, QueryError>>) {
    loop {
        let next = tokio::select! {
            biased;
            () = batches.closed() => return,
            next = rows.next() => next,
        };
        let Some(batch) = next else { return };
        if batches.send(batch).await.is_err() {
            return;
        }
    }
}

/// Batches on their way, counted.
struct Noted {
    batches: BatchStream,
    note: Note,
    _work: Work,
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
