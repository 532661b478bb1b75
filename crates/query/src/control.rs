//! One running query: its place in the list, its deadline, and the word to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use store::engine::Cancel;
use tokio::sync::Notify;

use crate::error::{QueryError, QueryErrorKind};

/// Says stop to one query, in every place that works for it.
#[derive(Debug, Default)]
pub struct CancelHandle {
    engine: Cancel,
    cancelled: AtomicBool,
    notify: Notify,
}

impl CancelHandle {
    /// The engine's flag.
    pub fn engine(&self) -> Cancel {
        self.engine.clone()
    }

    /// Somebody asked to stop.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.engine.cancel();
        self.notify.notify_waiters();
    }

    /// Nobody waits for an answer any more: the engine stops, without a word to anybody.
    pub fn abandon(&self) {
        self.engine.cancel();
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Comes back once somebody asked to stop.
    pub async fn cancelled(&self) {
        let waiting = self.notify.notified();
        tokio::pin!(waiting);
        waiting.as_mut().enable();
        if !self.is_cancelled() {
            waiting.await;
        }
    }
}

/// What `sys.queries` shows of a query while it is there.
#[derive(Debug)]
pub struct Running {
    pub query_id: String,
    pub sql: String,
    pub identity: String,
    pub started: Instant,
    pub waiting: AtomicBool,
    pub rows: AtomicU64,
    pub cancel: std::sync::Arc<CancelHandle>,
}

pub fn cancelled(query_id: &str) -> QueryError {
    QueryError::new(QueryErrorKind::Cancelled, format!("query {query_id} was cancelled"))
}

pub fn timed_out(query_id: &str, timeout_ms: u64) -> QueryError {
    QueryError::new(
        QueryErrorKind::Timeout,
        format!("query {query_id} took longer than {timeout_ms} ms; narrow it, or set timeout in its context"),
    )
}
