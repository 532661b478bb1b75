//! The batches of a running query on their way out: stopped by its deadline or a cancel, counted, brought to the
//! outgoing types. When the stream is dropped, the query ends and its slot is free.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::{FutureExt, StreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::registry::Entry;
use crate::control::{CancelHandle, cancelled, timed_out};
use crate::error::QueryError;
use crate::plan::errors::from_datafusion;
use crate::result::BatchStream;

/// Holds a query's slot and its place in the list; dropping it ends the query.
pub struct Guard {
    entry: Entry,
    deadline: Instant,
    timeout_ms: u64,
    _permit: OwnedSemaphorePermit,
}

impl Guard {
    pub fn new(entry: Entry, permit: OwnedSemaphorePermit, deadline: Instant, timeout_ms: u64) -> Self {
        Self { entry, deadline, timeout_ms, _permit: permit }
    }

    /// Says stop to everything that works for the query.
    pub fn cancel(&self) -> &CancelHandle {
        &self.entry.query.cancel
    }

    /// Waits for something, but no longer than the query may run.
    pub async fn watch<T>(&self, work: impl Future<Output = T>) -> Result<T, QueryError> {
        let query = &self.entry.query;
        // Work that is always ready would otherwise never meet its deadline: it is asked before the clock is.
        if Instant::now() >= self.deadline {
            query.cancel.abandon();
            return Err(timed_out(&query.query_id, self.timeout_ms));
        }
        // A fault of the planner or an operator is this query's end and nobody else's.
        let work = AssertUnwindSafe(work).catch_unwind();
        tokio::select! {
            biased;
            () = query.cancel.cancelled() => Err(cancelled(&query.query_id)),
            done = timeout_at(self.deadline, work) => match done {
                Ok(Ok(done)) => Ok(done),
                Ok(Err(fault)) => Err(fault_of(fault.as_ref())),
                Err(_) => {
                    query.cancel.abandon();
                    Err(timed_out(&query.query_id, self.timeout_ms))
                }
            },
        }
    }

    /// An error met while the query was being stopped is the stop itself.
    fn explain(&self, error: QueryError) -> QueryError {
        let query = &self.entry.query;
        if query.cancel.is_cancelled() {
            cancelled(&query.query_id)
        } else if Instant::now() >= self.deadline {
            timed_out(&query.query_id, self.timeout_ms)
        } else {
            error
        }
    }
}

/// What a panic said.
pub fn fault_of(fault: &(dyn Any + Send)) -> QueryError {
    let text = fault.downcast_ref::<&str>().copied().or_else(|| fault.downcast_ref::<String>().map(String::as_str));
    QueryError::internal(format!("fault in the query engine: {}", text.unwrap_or("no message")))
}

/// The outgoing stream.
pub fn batches(running: SendableRecordBatchStream, schema: SchemaRef, guard: Guard) -> BatchStream {
    let start = Some((running, schema, guard));
    stream::unfold(start, |state| async move {
        let (mut running, schema, guard) = state?;
        loop {
            let next = guard.watch(running.next()).await;
            return match next {
                Err(error) => Some((Err(error), None)),
                Ok(None) => None,
                Ok(Some(Err(error))) => Some((Err(guard.explain(from_datafusion(error))), None)),
                Ok(Some(Ok(batch))) if batch.num_rows() == 0 => continue,
                Ok(Some(Ok(batch))) => {
                    let rows = u64::try_from(batch.num_rows()).unwrap_or(u64::MAX);
                    guard.entry.query.rows.fetch_add(rows, Ordering::Relaxed);
                    match conform(&batch, &schema) {
                        Ok(batch) => Some((Ok(batch), Some((running, schema, guard)))),
                        Err(error) => Some((Err(error), None)),
                    }
                }
            };
        }
    })
    .boxed()
}

fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, QueryError> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| {
            if column.data_type() == field.data_type() {
                return Ok(Arc::clone(column));
            }
            cast_with_options(column, field.data_type(), &options)
        })
        .collect::<Result<Vec<ArrayRef>, _>>()
        .map_err(|error| from_datafusion(DataFusionError::from(error)))?;
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &rows)
        .map_err(|error| from_datafusion(DataFusionError::from(error)))
}
