//! One query's share of the memory: bounded by itself and by what all queries use together.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation};

/// What all running queries hold together.
#[derive(Debug)]
pub struct SharedMemory {
    used: AtomicUsize,
    limit: usize,
}

impl SharedMemory {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit })
    }
}

/// The pool of one query; what it still holds when it ends goes back.
#[derive(Debug)]
pub struct QueryPool {
    used: AtomicUsize,
    limit: usize,
    shared: Arc<SharedMemory>,
}

impl QueryPool {
    pub fn new(limit: usize, shared: Arc<SharedMemory>) -> Self {
        Self { used: AtomicUsize::new(0), limit, shared }
    }
}

fn take(used: &AtomicUsize, limit: usize, more: usize) -> Option<()> {
    used.try_update(Ordering::AcqRel, Ordering::Acquire, |used| used.checked_add(more).filter(|sum| *sum <= limit))
        .ok()
        .map(|_| ())
}

fn give(used: &AtomicUsize, less: usize) {
    let _ = used.try_update(Ordering::AcqRel, Ordering::Acquire, |used| Some(used.saturating_sub(less)));
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query"
    }

    fn grow(&self, _reservation: &MemoryReservation, additional: usize) {
        self.used.fetch_add(additional, Ordering::AcqRel);
        self.shared.used.fetch_add(additional, Ordering::AcqRel);
    }

    fn shrink(&self, _reservation: &MemoryReservation, shrink: usize) {
        give(&self.used, shrink);
        give(&self.shared.used, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let name = reservation.consumer().name();
        if take(&self.used, self.limit, additional).is_none() {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{name} needs {additional} more bytes and the query may use {}; narrow its interval or its keys, or raise the limit",
                self.limit
            )));
        }
        if take(&self.shared.used, self.shared.limit, additional).is_none() {
            give(&self.used, additional);
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{name} needs {additional} more bytes and all queries together may use {}; run it again when fewer run",
                self.shared.limit
            )));
        }
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query pool: {} of {} bytes", self.reserved(), self.limit)
    }
}

impl Drop for QueryPool {
    fn drop(&mut self) {
        give(&self.shared.used, *self.used.get_mut());
    }
}
