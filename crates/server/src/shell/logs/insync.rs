//! Which copies keep up with the leader, and which are being repaired.
//!
//! A copy is in sync when a link to it is up and it had everything the leader had at some moment of the last
//! [`LAG_MS_MAX`]. A new leader counts anew, and so does one whose link to a copy was gone: a copy that came back, or
//! lost what it had, is behind until it has shown that it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{LogIndex, NodeId, Term, Tick, TopicPartition};
use quorum::GroupStatus;

use super::owner::{Owner, partition_dir};
use super::slot::Slot;
use crate::node::findings::{Finding, Findings, Severity};
use crate::node::time;

/// A copy that lacks what the leader had so long ago is behind.
const LAG_MS_MAX: u64 = 10_000;
/// Between two looks at partitions of which a copy is behind.
const LOOK_MS: u64 = 100;
/// .. at all others that are awake ..
const LOOK_AT_AWAKE_MS: u64 = 1_000;
/// .. and at those that sleep, while no link comes or goes.
const LOOK_AT_ALL_MS: u64 = 10_000;
/// A repair is told of at least so long: it may be over in less.
const TOLD_MS_MIN: u64 = 3_000;
const DAMAGED: &str = "replica-damaged";

/// Replicas that are behind, in their order.
pub type Behind = Arc<[NodeId]>;

/// What a leader remembers of the others' progress.
#[derive(Default)]
pub(super) struct InSync {
    term: Term,
    follows: BTreeMap<NodeId, Follow>,
}

struct Follow {
    /// Where the leader's log ended at `set`.
    target: LogIndex,
    set: Tick,
    /// When it last had everything.
    caught_up: Option<Tick>,
}

impl InSync {
    /// Those of the leader's peers that are not in sync now.
    fn look(&mut self, status: &GroupStatus, connected: &BTreeSet<NodeId>, now: Tick) -> Vec<NodeId> {
        if self.term != status.term {
            *self = Self { term: status.term, follows: BTreeMap::new() };
        }
        self.follows.retain(|node, _| status.peers.iter().any(|peer| peer.node == *node));
        let mut behind = Vec::new();
        for peer in &status.peers {
            let new = || Follow { target: status.last, set: now, caught_up: None };
            let follow = self.follows.entry(peer.node).or_insert_with(new);
            if !connected.contains(&peer.node) {
                *follow = new();
            } else if peer.matched >= follow.target {
                let has_all = peer.matched >= status.last;
                *follow = Follow { caught_up: Some(if has_all { now } else { follow.set }), ..new() };
            }
            if follow.caught_up.is_none_or(|at| now.since(at) > LAG_MS_MAX) {
                behind.push(peer.node);
            }
        }
        behind
    }
}

/// When what was looked at last.
#[derive(Default)]
pub(super) struct Looked {
    some: Tick,
    awake: Tick,
    all: Tick,
    /// A link came or went since.
    pub(super) is_outdated: bool,
}

/// One look.
struct Looker<'a> {
    node: NodeId,
    connected: &'a BTreeSet<NodeId>,
    findings: &'a Findings,
    now: Tick,
    /// Also those of which no copy is behind.
    whole: bool,
}

impl Looker<'_> {
    fn look(&self, id: TopicPartition, slot: &mut Slot) {
        if let Some(since) = slot.damaged
            && self.now.since(since) >= TOLD_MS_MIN
            && !slot.partition.status().damaged
        {
            slot.damaged = None;
            self.findings.clear(DAMAGED, &partition_dir(id));
        }
        let is_whole = slot.behind.borrow().is_empty();
        let leadership = *slot.leadership.borrow();
        if !leadership.is_mine || slot.is_sole(self.node) {
            if !is_whole {
                slot.behind.send_replace(Behind::default());
            }
        } else if self.whole || !is_whole || slot.in_sync.term != leadership.term {
            let mut status = slot.partition.group_status();
            status.peers.retain(|peer| peer.node != self.node);
            let behind = slot.in_sync.look(&status, self.connected, self.now);
            slot.behind.send_if_modified(|before| {
                let changed = before[..] != behind[..];
                if changed {
                    *before = behind.into();
                }
                changed
            });
        }
    }
}

impl Owner {
    /// Looks who keeps up, and whether what was damaged has been repaired.
    pub(super) fn look_at_copies(&mut self, now: Tick) {
        if now.since(self.looked.some) < LOOK_MS {
            return;
        }
        self.looked.some = now;
        let all = std::mem::take(&mut self.looked.is_outdated) || now.since(self.looked.all) >= LOOK_AT_ALL_MS;
        let whole = all || now.since(self.looked.awake) >= LOOK_AT_AWAKE_MS;
        if whole {
            self.looked.awake = now;
        }
        let (node, connected, findings) = (self.config.node, &self.connected, &self.findings);
        let looker = Looker { node, connected, findings, now, whole };
        if all {
            self.looked.all = now;
            return self.partitions.iter_mut().for_each(|(id, slot)| looker.look(*id, slot));
        }
        // In a group that sleeps nothing has changed.
        for id in &self.sleepers.awake {
            if let Some(slot) = self.partitions.get_mut(id) {
                looker.look(*id, slot);
            }
        }
    }

    /// The replica has no vote until it has fetched everything again.
    pub(super) fn tell_damage(&mut self, id: TopicPartition, causes: &[String]) {
        let Some(slot) = self.partitions.get_mut(&id) else { return };
        if !slot.partition.status().damaged {
            return;
        }
        slot.damaged = Some(time::now());
        let dir = partition_dir(id);
        let cause = causes.last().cloned().unwrap_or_else(|| "an earlier start found its log damaged".to_owned());
        self.findings.raise(
            &dir,
            Finding {
                code: DAMAGED,
                severity: Severity::Warning,
                title: format!("this node's copy of partition {id} is damaged and is being fetched again"),
                since: time::wall(),
                impact: vec!["durability"],
                cause,
                action:
                    "nothing, it repairs itself from the other replicas: do not stop those meanwhile. If it happens \
                         again, check the disk (dmesg, smartctl)"
                        .into(),
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use quorum::{Members, PeerStatus, Role};

    use super::*;

    fn status(term: u64, last: u64, matched: &[(u32, u64)]) -> GroupStatus {
        let peer = |(node, matched): &(u32, u64)| PeerStatus {
            node: NodeId(*node),
            matched: LogIndex(*matched),
            last_heard: None,
            paused: false,
        };
        GroupStatus {
            role: Role::Leader,
            term: Term(term),
            leader: Some(NodeId(1)),
            commit: LogIndex(last),
            last: LogIndex(last),
            members: Members::default(),
            peers: matched.iter().map(peer).collect(),
            lease_left_ms: 0,
            patience: 1,
        }
    }

    #[test]
    fn a_copy_is_in_sync_once_it_has_shown_it_and_as_long_as_it_keeps_up() {
        let both: BTreeSet<NodeId> = [NodeId(2), NodeId(3)].into();
        let mut in_sync = InSync::default();
        let two = [NodeId(2)];
        // A new leader believes nobody; then one shows it, the other is fetching everything again.
        assert_eq!(in_sync.look(&status(1, 100, &[(2, 0), (3, 0)]), &both, Tick(0)).len(), 2);
        assert_eq!(in_sync.look(&status(1, 150, &[(2, 40), (3, 120)]), &both, Tick(100)), two);
        // Always a little behind under load, never by ten seconds.
        for round in 1..400 {
            let last = 150 + 50 * round;
            let seen = in_sync.look(&status(1, last, &[(2, 40), (3, last - 60)]), &both, Tick(100 * (round + 1)));
            assert_eq!(seen, two, "round {round}");
        }
        // It stops, and counts no longer after that time.
        let now = 100 * 401;
        assert_eq!(in_sync.look(&status(1, 90_000, &[(2, 40), (3, 20_000)]), &both, Tick(now + LAG_MS_MAX / 2)), two);
        let late = Tick(now + LAG_MS_MAX + 1_000);
        assert_eq!(in_sync.look(&status(1, 90_000, &[(2, 40), (3, 20_000)]), &both, late).len(), 2);
        // The repaired one has come so far.
        assert_eq!(in_sync.look(&status(1, 90_000, &[(2, 90_000), (3, 20_000)]), &both, late), [NodeId(3)]);
        // Without a link it is behind at once, and after it until it has what the leader has now.
        let one: BTreeSet<NodeId> = [NodeId(3)].into();
        assert_eq!(in_sync.look(&status(1, 90_000, &[(2, 90_000), (3, 90_000)]), &one, late), two);
        assert_eq!(in_sync.look(&status(1, 90_001, &[(2, 90_000), (3, 90_001)]), &both, late), []);
        // Another term, another count.
        assert_eq!(in_sync.look(&status(2, 90_002, &[(2, 0), (3, 0)]), &both, late).len(), 2);
    }
}
