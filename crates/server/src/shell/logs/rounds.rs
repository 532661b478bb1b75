//! How long the owner's rounds take, and where the time goes.

use std::sync::atomic::{AtomicU64, Ordering};

use base::Tick;

use crate::node::time;
use crate::shell::outbox::LATE_MS;

/// A round that takes this long is counted: replication of every partition of the disk stands still for it.
const SLOW_MS: u64 = 50;

/// Counted since the start, for `/metrics`.
#[derive(Debug, Default)]
pub struct Rounds {
    pub slow: AtomicU64,
    /// Of all slow rounds.
    pub slow_ms: AtomicU64,
    pub longest_ms: AtomicU64,
}

/// One round, as it goes.
pub(super) struct Round {
    begun: Tick,
    /// How late the tick was that is due in it.
    late_ms: u64,
    part: Tick,
    commands_ms: u64,
    ticks_ms: u64,
    pub commands: usize,
    /// Of appends from other replicas.
    pub bytes: usize,
}

impl Round {
    pub fn begin(late_ms: u64) -> Self {
        let now = time::now();
        Self { begun: now, late_ms, part: now, commands_ms: 0, ticks_ms: 0, commands: 0, bytes: 0 }
    }

    pub fn took_ms(&self) -> u64 {
        time::now().since(self.begun)
    }

    pub fn commands_done(&mut self) {
        self.commands_ms = self.lap();
    }

    pub fn ticks_done(&mut self) {
        self.ticks_ms = self.lap();
    }

    fn lap(&mut self) -> u64 {
        let now = time::now();
        now.since(std::mem::replace(&mut self.part, now))
    }

    pub fn end(mut self, rounds: &Rounds) {
        let (serve_ms, busy_ms) = (self.lap(), self.took_ms());
        let Self { late_ms, commands_ms, ticks_ms, commands, bytes, .. } = self;
        if busy_ms >= SLOW_MS {
            rounds.slow.fetch_add(1, Ordering::Relaxed);
            rounds.slow_ms.fetch_add(busy_ms, Ordering::Relaxed);
            rounds.longest_ms.fetch_max(busy_ms, Ordering::Relaxed);
            tracing::debug!(busy_ms, late_ms, commands_ms, ticks_ms, serve_ms, commands, bytes, "log: a slow round");
        }
        if busy_ms >= LATE_MS || late_ms >= LATE_MS {
            tracing::warn!(
                busy_ms,
                late_ms,
                commands_ms,
                serve_ms,
                commands,
                "the log's thread was slow: leaderships may have moved"
            );
        }
    }
}
