//! Cancel requests: they come over connections of their own and name a session by its process id and secret.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::edge::queries::Queries;

/// Bytes of the secret of a protocol 3.2 session; one of 3.0 has four.
const SECRET_BYTES: usize = 32;
const SECRET_BYTES_3_0: usize = 4;

/// What a session runs, as a cancel request sees it.
#[derive(Debug)]
pub struct Slot {
    secret: Vec<u8>,
    query_id: Mutex<Option<String>>,
    cancelled: Notify,
}

/// All sessions that can be cancelled.
#[derive(Debug, Default)]
pub struct Cancels {
    sessions: Mutex<BTreeMap<i32, Arc<Slot>>>,
    next: AtomicI32,
}

/// A session's place among them; leaves with it.
#[derive(Debug)]
pub struct Registration {
    pub pid: i32,
    pub slot: Arc<Slot>,
    cancels: Arc<Cancels>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cancels {
    /// A new session. `long_secret` for protocol 3.2.
    pub fn register(self: &Arc<Self>, long_secret: bool) -> Registration {
        let random = [uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes()].concat();
        let secret = random[..if long_secret { SECRET_BYTES } else { SECRET_BYTES_3_0 }].to_vec();
        let slot = Arc::new(Slot { secret, query_id: Mutex::new(None), cancelled: Notify::new() });
        let mut sessions = locked(&self.sessions);
        let pid = loop {
            let pid = self.next.fetch_add(1, Ordering::Relaxed) & i32::MAX;
            if pid != 0 && !sessions.contains_key(&pid) {
                break pid;
            }
        };
        sessions.insert(pid, Arc::clone(&slot));
        Registration { pid, slot, cancels: Arc::clone(self) }
    }

    /// Stops what the session runs, if the secret is its own. Says nothing about it, as the protocol wants.
    pub fn cancel(&self, pid: i32, secret: &[u8], queries: &Queries) {
        let Some(slot) = locked(&self.sessions).get(&pid).cloned() else { return };
        let mut difference = slot.secret.len() ^ secret.len();
        for (own, given) in slot.secret.iter().zip(secret) {
            difference |= usize::from(own ^ given);
        }
        if difference != 0 {
            tracing::warn!(pid, "postgres: a cancel request with a wrong secret");
            return;
        }
        let running = locked(&slot.query_id).clone();
        if let Some(query_id) = running {
            queries.cancel(&query_id);
            slot.cancelled.notify_waiters();
        }
    }
}

impl Slot {
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// Names the query that runs from now on; `None`: nothing does.
    pub fn set_running(&self, query_id: Option<String>) {
        *locked(&self.query_id) = query_id;
    }

    /// Waits for a cancel request.
    pub async fn cancelled(&self) {
        self.cancelled.notified().await;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        locked(&self.cancels.sessions).remove(&self.pid);
    }
}
