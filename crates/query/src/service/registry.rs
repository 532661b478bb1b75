//! Queries that run or wait, by the order they came in.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{CancelOutcome, QueryInfo, QueryState};
use crate::control::{CancelHandle, Running};
use crate::error::{QueryError, QueryErrorKind};

/// All queries of the node.
#[derive(Debug, Default)]
pub struct Registry {
    queries: Mutex<Queries>,
}

#[derive(Debug, Default)]
struct Queries {
    next: u64,
    running: BTreeMap<u64, Arc<Running>>,
}

/// A query's place in the list; gone when this is dropped.
#[derive(Debug)]
pub struct Entry {
    registry: Arc<Registry>,
    key: u64,
    pub query: Arc<Running>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Queries> {
        // A panic while the lock was held leaves the map whole: every change of it is one call.
        self.queries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a query.
    ///
    /// # Errors
    /// `Capacity` if `most` are there already.
    pub fn add(
        self: &Arc<Self>,
        query_id: String,
        sql: String,
        identity: String,
        most: usize,
    ) -> Result<Entry, QueryError> {
        let query = Arc::new(Running {
            query_id,
            sql,
            identity,
            started: Instant::now(),
            waiting: AtomicBool::new(true),
            rows: AtomicU64::new(0),
            cancel: Arc::new(CancelHandle::default()),
        });
        let mut queries = self.lock();
        if queries.running.len() >= most {
            return Err(QueryError::new(
                QueryErrorKind::Capacity,
                format!(
                    "{} queries run or wait, and no more than {most} may; run it again later",
                    queries.running.len()
                ),
            ));
        }
        let key = queries.next;
        queries.next += 1;
        queries.running.insert(key, Arc::clone(&query));
        Ok(Entry { registry: Arc::clone(self), key, query })
    }

    pub fn cancel(&self, query_id: &str) -> CancelOutcome {
        let mut outcome = CancelOutcome::NotFound;
        for query in self.lock().running.values().filter(|query| query.query_id == query_id) {
            query.cancel.cancel();
            outcome = CancelOutcome::Cancelled;
        }
        outcome
    }

    pub fn list(&self) -> Vec<QueryInfo> {
        self.lock()
            .running
            .values()
            .map(|query| QueryInfo {
                query_id: query.query_id.clone(),
                sql: query.sql.clone(),
                identity: query.identity.clone(),
                state: if query.waiting.load(Ordering::Relaxed) { QueryState::Waiting } else { QueryState::Running },
                elapsed_ms: u64::try_from(query.started.elapsed().as_millis()).unwrap_or(u64::MAX),
                rows: query.rows.load(Ordering::Relaxed),
            })
            .collect()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.query.cancel.abandon();
        self.registry.lock().running.remove(&self.key);
    }
}
