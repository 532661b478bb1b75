//! A share of memory for all connections together: who finds none left waits, in the order of asking.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes per permit: a semaphore counts in 32 bits when asked for many.
const UNIT_BYTES: usize = 1024;

/// So many bytes, handed out in shares.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    units: Arc<Semaphore>,
    total: usize,
}

/// Bytes that are taken until this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    permit: OwnedSemaphorePermit,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        let total = (bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { units: Arc::new(Semaphore::new(total)), total }
    }

    /// Waits for `bytes`, or for the whole budget if that is less: one request is always possible.
    pub(super) async fn take(&self, bytes: usize) -> Share {
        let units = bytes.div_ceil(UNIT_BYTES).clamp(1, self.total);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        match Arc::clone(&self.units).acquire_many_owned(units).await {
            Ok(permit) => Share { permit },
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Share {
    /// Gives back what is beyond `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let beyond = self.permit.num_permits().saturating_sub(bytes.div_ceil(UNIT_BYTES).max(1));
        drop(self.permit.split(beyond));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_larger_than_the_budget_gets_all_of_it() {
        let budget = Budget::new(10 * UNIT_BYTES);
        let mut share = budget.take(1 << 30).await;
        assert!(budget.units.try_acquire().is_err());
        share.shrink_to(3 * UNIT_BYTES);
        assert_eq!(budget.units.available_permits(), 7);
        drop(share);
        assert_eq!(budget.units.available_permits(), 10);
    }
}
