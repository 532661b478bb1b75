//! Calls of this node that wait for their answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::frame::Status;

/// Calls of one node to another that wait at the same time.
const WAITING_MAX: usize = 1_024;

/// Of one peer.
#[derive(Debug)]
pub struct Calls {
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<(Status, Bytes)>>>,
    next: AtomicU64,
}

/// A call that waits. Dropping it forgets the call.
pub struct Waiting<'a> {
    pub id: u64,
    calls: &'a Calls,
    answer: oneshot::Receiver<(Status, Bytes)>,
}

impl Calls {
    /// Ids begin anywhere, so that the late answer to a call of an earlier instance is not taken for another's.
    pub fn new(instance: &Uuid) -> Self {
        Self { waiting: Mutex::default(), next: AtomicU64::new(instance.as_u64_pair().1) }
    }

    /// `None`: too many wait.
    pub fn wait(&self) -> Option<Waiting<'_>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.lock();
        if waiting.len() >= WAITING_MAX {
            return None;
        }
        waiting.insert(id, sender);
        Some(Waiting { id, calls: self, answer })
    }

    /// An answer nobody waits for any more is dropped.
    pub fn answer(&self, id: u64, status: Status, body: Bytes) {
        if let Some(waiting) = self.lock().remove(&id) {
            drop(waiting.send((status, body)));
        }
    }

    /// The connection broke.
    pub fn fail_all(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<(Status, Bytes)>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting<'_> {
    /// `None`: the connection broke.
    pub async fn answer(&mut self) -> Option<(Status, Bytes)> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.calls.lock().remove(&self.id);
    }
}
