//! Time between members: what a voter promised its leader, and how long the leader may rely on it.
//!
//! A voter that took a heartbeat gives no vote to anybody else for `election_ticks - 1` ticks. The leader
//! counts from the moment it sent that heartbeat, by its own clock, and for a shorter time. So between two
//! leases of two leaders there is always a gap, as long as clocks run at about the same rate. Nobody compares
//! two clocks, and a pause of either side only makes the lease end earlier or the promise later.
//!
//! A vote asked for with a hand-over breaks the promise: the leader that hands over gives up its lease for
//! the rest of its term before it says so to anybody.

use std::collections::BTreeMap;

use base::{LogIndex, NodeId, Term, Tick};

use super::GroupConfig;
use crate::{MEMBERS_MAX, Members};

/// Peers remembered: members before and after a change, and some that only knock.
const PEERS_MAX: usize = 4 * MEMBERS_MAX;

/// What a voter promised. Held for the ticks counted and for the time that passed, whichever is longer: ticks
/// that come in a burst do not shorten it, nor does a time of arrival that was read too early.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Promise {
    ticks_left: u32,
    until: Tick,
}

impl Promise {
    /// Of a voter that restarts: it may have promised something just before.
    pub(super) const fn unknown(config: &GroupConfig) -> Self {
        Self { ticks_left: config.election_ticks + 1, until: Tick(0) }
    }

    pub(super) fn make(&mut self, config: &GroupConfig, now: Tick) {
        let until = Tick(now.0.saturating_add(config.promise_ms()));
        *self = Self { ticks_left: self.ticks_left.max(config.election_ticks), until: self.until.max(until) };
    }

    /// A promise made at `at`, since when so many ticks were counted.
    pub(super) const fn made(config: &GroupConfig, at: Tick, ticks: u32) -> Self {
        let until = Tick(at.0.saturating_add(config.promise_ms()));
        Self { ticks_left: config.election_ticks.saturating_sub(ticks), until }
    }

    pub(super) const fn tick(&mut self) {
        self.ticks_left = self.ticks_left.saturating_sub(1);
    }

    pub(super) fn holds(&self, now: Tick) -> bool {
        self.ticks_left > 0 || now < self.until
    }

    /// Ticks until it no longer holds.
    pub(super) fn ticks_left(&self, config: &GroupConfig, now: Tick) -> u32 {
        let by_time = self.until.since(now).div_ceil(config.tick_ms);
        self.ticks_left.max(u32::try_from(by_time).unwrap_or(u32::MAX))
    }
}

/// What is known of another member.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peer {
    pub(super) last_heard: Tick,
    /// When the newest heartbeat it answered was sent, and in which term.
    acked: Option<(Term, Tick)>,
    /// When the last append went there, and in which term.
    pub(super) append_sent: Option<(Term, Tick)>,
    /// Ticks for which a snapshot has been on its way there.
    pub(super) snapshot_ticks: u32,
    pub(super) snapshots_lost: u32,
    /// Bytes that were read apart for it and sent, until it has acknowledged the last of them.
    pub(super) ahead_bytes: u64,
    pub(super) ahead_to: LogIndex,
    /// How long its last answer to a heartbeat took.
    pub(super) answered_ms: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Peers(BTreeMap<NodeId, Peer>);

impl Peers {
    pub(super) fn get(&self, node: NodeId) -> Option<&Peer> {
        self.0.get(&node)
    }

    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut Peer> {
        let room = self.0.len() < PEERS_MAX || self.0.contains_key(&node);
        room.then(|| self.0.entry(node).or_default())
    }

    pub(super) fn heard(&mut self, node: NodeId, now: Tick) {
        if let Some(peer) = self.get_mut(node) {
            peer.last_heard = now;
        }
    }

    /// `node` answered the heartbeat sent at `sent`.
    pub(super) fn acked(&mut self, node: NodeId, term: Term, sent: Tick) {
        if let Some(peer) = self.get_mut(node) {
            let same = peer.acked.filter(|(of, _)| *of == term);
            peer.acked = Some((term, same.map_or(sent, |(_, before)| before.max(sent))));
        }
    }

    pub(super) fn retain(&mut self, members: &Members) {
        self.0.retain(|node, _| members.contains(*node));
    }

    /// The send time that a majority of `voters` answered or outdid, `own` being always up to date. `None` if
    /// no majority answered in this term.
    fn majority_acked(&self, voters: &[NodeId], own: NodeId, term: Term, now: Tick) -> Option<Tick> {
        let acked = |node: &NodeId| match self.get(*node).and_then(|peer| peer.acked) {
            _ if *node == own => Some(now),
            Some((of, sent)) if of == term => Some(sent),
            _ => None,
        };
        let mut sent: Vec<Option<Tick>> = voters.iter().map(acked).collect();
        sent.sort_unstable_by(|a, b| b.cmp(a));
        sent.get(voters.len() / 2).copied().flatten()
    }

    /// When the lease ends that the answers give; joint members need both majorities.
    pub(super) fn lease_end(&self, members: &Members, config: &GroupConfig, term: Term, now: Tick) -> Option<Tick> {
        if members.sole_voter() == Some(config.node) {
            return Some(Tick(now.0.saturating_add(config.lease_ms)));
        }
        let own = config.node;
        let mut sent = self.majority_acked(&members.voters, own, term, now)?;
        if members.is_joint() {
            sent = sent.min(self.majority_acked(&members.outgoing, own, term, now)?);
        }
        Some(Tick(sent.0.saturating_add(config.lease_ms)))
    }
}
