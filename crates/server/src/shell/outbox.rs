//! What the owners of groups need of the way to other nodes, and real time cut into ticks.

use base::{NodeId, Tick};
use bytes::Bytes;
use quorum::{GroupKey, Message};

use super::peers::{Lane, PeersHandle};

/// Takes what a group has to say. Never blocks.
pub trait Outbox: Send + Sync {
    /// False: it was dropped. The group is told, and says it again when it matters.
    fn send(&self, to: NodeId, lane: Lane, group: GroupKey, message: Bytes) -> bool;

    /// So much waits to be sent there that what can wait should: the rest of the room is for what cannot.
    fn is_crowded(&self, _to: NodeId) -> bool {
        false
    }
}

impl Outbox for PeersHandle {
    fn send(&self, to: NodeId, lane: Lane, group: GroupKey, message: Bytes) -> bool {
        Self::send(self, to, lane, group, message).is_ok()
    }

    fn is_crowded(&self, to: NodeId) -> bool {
        Self::is_crowded(self, to)
    }
}

/// A node without peers.
pub struct Nowhere;

impl Outbox for Nowhere {
    fn send(&self, _to: NodeId, _lane: Lane, _group: GroupKey, _message: Bytes) -> bool {
        false
    }
}

/// Sends a group's message; false if it was dropped.
pub fn post(outbox: &dyn Outbox, group: GroupKey, message: &Message) -> bool {
    let lane = if message.is_bulk() { Lane::Bulk } else { Lane::Control };
    outbox.send(message.to(), lane, group, message.encode())
}

/// A thread that is late by this much may have lost leaderships, and is told.
pub const LATE_MS: u64 = 200;

/// The group of the metadata.
pub const CONTROL: GroupKey = GroupKey([0; 20]);

/// No group: what the owners of partitions say of all groups that sleep, [`quorum::Liveness`]. A node that does not know
/// of it has no such group and drops it.
pub const BEATS: GroupKey = GroupKey([0xfe; 20]);

/// Says when a tick is due: one per interval of real time, and after a stall one, not all that were missed. Ticks of all
/// threads fall on the same moments: what they say then leaves together, and an idle processor is woken once.
#[derive(Clone, Copy, Debug)]
pub struct Ticker {
    every_ms: u64,
    next: Tick,
}

impl Ticker {
    pub const fn new(every_ms: u64, now: Tick) -> Self {
        Self { every_ms, next: Self::after(now, every_ms) }
    }

    /// The first moment after `now` that ticks fall on.
    const fn after(now: Tick, every_ms: u64) -> Tick {
        Tick(now.0 - now.0 % every_ms).plus(every_ms)
    }

    pub const fn is_due(&mut self, now: Tick) -> bool {
        if now.0 < self.next.0 {
            return false;
        }
        self.next = Self::after(now, self.every_ms);
        true
    }

    /// How long the next one has been due.
    pub const fn late_ms(&self, now: Tick) -> u64 {
        now.since(self.next)
    }

    /// Until the next one.
    pub const fn wait_ms(&self, now: Tick) -> u64 {
        self.next.since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_one_tick() {
        let mut ticker = Ticker::new(25, Tick(3));
        let at = |ticker: &mut Ticker, now: u64| ticker.is_due(Tick(now));
        assert!(!at(&mut ticker, 24));
        assert!(at(&mut ticker, 30), "a little late");
        assert_eq!(ticker.wait_ms(Tick(30)), 20, "keeps its beat");
        assert!(at(&mut ticker, 5_010));
        assert!(!at(&mut ticker, 5_010) && !at(&mut ticker, 5_024));
        assert!(at(&mut ticker, 5_025));
    }
}
