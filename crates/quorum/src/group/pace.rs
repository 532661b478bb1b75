//! How long silence may last before it means something: measured, not assumed.
//!
//! On a machine that stands still now and then, or over a slow network, a timeout chosen for a quiet one deposes leaders
//! that live. So a follower waits for a multiple of the timeout that fits what it has measured of late: how long its
//! leader was silent and then spoke again, how late its own ticks came, how long answers took. A leader waits as much
//! longer before it takes the silence of a majority for a cut. What never comes back is not measured: a real loss
//! makes nobody more patient.
//!
//! What always holds: no timeout grows past `STRETCH_MAX` times; what was measured is forgotten after `WINDOW_MS` twice;
//! promises and leases keep their length: one that grew would have to be waited out by every voter that restarts.

use base::Tick;
use raft::StateRole;

use super::{Group, GroupConfig};
use crate::Storage;

/// A timeout is at most so many times as long as configured. With the standard one and three voters a loss is noticed
/// within 1.2 s, so that writes go on within two.
pub(crate) const STRETCH_MAX: u32 = 3;
/// What was measured counts for this long, and for as long again.
const WINDOW_MS: u64 = 5_000;
/// Times in a row that a stall of this node puts off its campaign; then it may have lost its leader indeed.
const GRACES: u32 = 2;
/// Ticks that came late by so many are a stall.
const STALL_TICKS: u64 = 3;

/// The longest delays of this window and of the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delays {
    longest_ms: [u64; 2],
    window_from: Tick,
}

impl Delays {
    /// Something that is waited for `timeout_ms` took this long, and then it came. What took longer than any timeout may
    /// get is an outage.
    pub(crate) fn took(&mut self, timeout_ms: u64, now: Tick, delay_ms: u64) {
        self.turn(now);
        if delay_ms <= timeout_ms * u64::from(STRETCH_MAX) {
            self.longest_ms[0] = self.longest_ms[0].max(delay_ms);
        }
    }

    pub(crate) fn turn(&mut self, now: Tick) {
        let windows = now.since(self.window_from) / WINDOW_MS;
        if windows > 0 {
            self.longest_ms = if windows == 1 { [0, self.longest_ms[0]] } else { [0, 0] };
            self.window_from = now;
        }
    }

    /// How many times `timeout_ms` is to be waited: twice what was measured, and what comes every `step_ms` anyhow.
    pub(crate) fn stretch(&self, timeout_ms: u64, step_ms: u64) -> u32 {
        let needed_ms = 2 * self.longest_ms[0].max(self.longest_ms[1]) + step_ms;
        let times = needed_ms.div_ceil(timeout_ms).max(1);
        u32::try_from(times).unwrap_or(STRETCH_MAX).min(STRETCH_MAX)
    }
}

/// What was measured. See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    delays: Delays,
    ticked: Option<Tick>,
    graces_left: u32,
    /// Ticks counted by a leader.
    ticks: u32,
}

impl Pace {
    pub(super) fn took(&mut self, config: &GroupConfig, now: Tick, delay_ms: u64) {
        self.delays.took(election_ms(config), now, delay_ms);
    }

    /// How many times the configured timeout is to be waited.
    pub(super) fn stretch(&self, config: &GroupConfig) -> u32 {
        self.delays.stretch(election_ms(config), u64::from(config.heartbeat_ticks) * config.tick_ms)
    }

    /// Nobody ticked the group for a while, and nobody was to.
    pub(super) fn rested(&mut self) {
        self.ticked = None;
    }

    pub(super) fn heard_leader(&mut self) {
        self.graces_left = GRACES;
    }
}

const fn election_ms(config: &GroupConfig) -> u64 {
    config.election_ticks as u64 * config.tick_ms
}

impl<S: Storage> Group<S> {
    /// Before a tick is counted: was this node itself standing still?
    pub(super) fn keep_pace(&mut self) {
        let (config, now) = (&self.config, self.now);
        let late_ms = self.pace.ticked.map_or(0, |at| now.since(at).saturating_sub(config.tick_ms));
        self.pace.ticked = Some(now);
        self.pace.delays.turn(now);
        let raft = &mut self.node.raft;
        if late_ms >= STALL_TICKS * config.tick_ms {
            self.pace.took(config, now, late_ms);
            // While this node stood still nobody was listened to. What was said meanwhile is still on its way through
            // the node: half a timeout is left to hear it.
            let half = raft.randomized_election_timeout() / 2;
            if raft.state == StateRole::Follower && raft.election_elapsed > half && self.pace.graces_left > 0 {
                self.pace.graces_left -= 1;
                raft.election_elapsed = half;
            }
        }
        if raft.state == StateRole::Leader {
            self.pace.ticks = self.pace.ticks.wrapping_add(1);
            if !self.pace.ticks.is_multiple_of(self.pace.stretch(config)) {
                raft.election_elapsed = raft.election_elapsed.saturating_sub(1);
            }
        }
    }

    /// A leader spoke, that this node follows or has left: how long it was silent before. Of sleeping groups the beats
    /// speak, and nothing is known here.
    pub(super) fn measure_silence(&mut self, last_heard: Option<Tick>) {
        if let Some(at) = last_heard {
            let silent_ms = self.now.since(at);
            self.pace.took(&self.config, self.now, silent_ms);
        }
    }

    /// A heartbeat sent at `sent` was answered. What counts is the answer that makes a majority.
    pub(super) fn measure_answer(&mut self, from: base::NodeId, sent: Tick) {
        let took_ms = self.now.since(sent);
        if let Some(peer) = self.peers.get_mut(from) {
            peer.answered_ms = took_ms;
        }
        let own = self.config.node;
        let of = |node: &base::NodeId| match self.peers.get(*node) {
            Some(peer) if *node != own => peer.answered_ms,
            _ => 0,
        };
        let mut all: Vec<u64> = self.members.voters.iter().map(of).collect();
        all.sort_unstable();
        let majority_ms = all.get(all.len() / 2).copied().unwrap_or(0);
        self.pace.took(&self.config, self.now, majority_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::world::World;
    use base::NodeId;

    fn config() -> GroupConfig {
        GroupConfig::standard(NodeId(1), 1)
    }

    #[test]
    fn what_was_measured_stretches_and_is_forgotten() {
        let mut pace = Pace::default();
        let stretch = |pace: &Pace| pace.stretch(&config());
        assert_eq!(stretch(&pace), 1);
        pace.took(&config(), Tick(10_000), 100);
        assert_eq!(stretch(&pace), 1, "a quiet machine");
        pace.took(&config(), Tick(10_001), 240);
        assert_eq!(stretch(&pace), 3);
        pace.took(&config(), Tick(10_002), 700);
        assert_eq!(stretch(&pace), STRETCH_MAX);
        pace.took(&config(), Tick(10_003), 30_000);
        pace.delays.turn(Tick(15_004));
        assert_eq!(stretch(&pace), STRETCH_MAX, "still remembered");
        pace.delays.turn(Tick(20_010));
        assert_eq!(stretch(&pace), 1, "forgotten");
        pace.took(&config(), Tick(20_011), 30_000);
        assert_eq!(stretch(&pace), 1, "an outage makes nobody patient");
        let longest = u64::from(STRETCH_MAX) * (2 * u64::from(config().election_ticks) - 1) * config().tick_ms;
        assert!(longest <= 2_000, "{longest} ms");
    }

    fn world() -> World {
        let mut world = World::default();
        world.now = Tick(1_000);
        world.open(&[1, 2, 3], &[], 1);
        run(&mut world, 60, &[]);
        world
    }

    /// So many ticks pass on all nodes but those that stand still.
    fn run(world: &mut World, ticks: u32, still: &[u32]) {
        for _ in 0..ticks {
            world.now.0 += 25;
            let now = world.now;
            for (_, node) in world.nodes.iter_mut().filter(|(id, _)| !still.contains(id)) {
                node.group.tick(now);
            }
            if still.is_empty() {
                world.settle();
                continue;
            }
            // Nothing is delivered to who stands still, nor said by it.
            let held: Vec<_> = std::mem::take(&mut world.wire).into();
            let (later, sent): (Vec<_>, Vec<_>) =
                held.into_iter().partition(|m| still.iter().any(|id| m.to() == NodeId(*id)));
            world.wire.extend(sent);
            for id in [1, 2, 3].into_iter().filter(|id| !still.contains(id)) {
                world.pump(id);
            }
            let (more, sent): (Vec<_>, Vec<_>) =
                std::mem::take(&mut world.wire).into_iter().partition(|m| still.iter().any(|id| m.to() == NodeId(*id)));
            sent.into_iter().for_each(|message| world.deliver(message));
            world.wire.extend(later.into_iter().chain(more));
        }
    }

    fn leader(world: &World) -> (u32, base::Term) {
        let leads = |(id, node): (&u32, &crate::group::tests::world::Node)| {
            (node.group.role() == crate::Role::Leader).then(|| (*id, node.group.term()))
        };
        world.nodes.iter().filter_map(leads).max_by_key(|(_, term)| *term).unwrap()
    }

    #[test]
    fn a_leader_that_stands_still_again_and_again_is_kept() {
        let mut world = world();
        let first = leader(&world);
        // Eight ticks of silence are within the timeout, and measured.
        run(&mut world, 8, &[first.0]);
        run(&mut world, 20, &[]);
        assert_eq!(leader(&world), first);
        for _ in 0..4 {
            run(&mut world, 14, &[first.0]);
            run(&mut world, 20, &[]);
            assert_eq!(leader(&world), first, "350 ms are within what was learned");
        }
        // It is not waited for for ever.
        run(&mut world, 80, &[first.0]);
        assert_ne!(leader(&world), first);
    }

    #[test]
    fn a_follower_that_stood_still_does_not_campaign_for_it() {
        let mut world = world();
        let first = leader(&world);
        let follower = if first.0 == 1 { 2 } else { 1 };
        for _ in 0..5 {
            run(&mut world, 30, &[follower]);
            // It goes on, and what was said to it comes through a little later.
            let held = std::mem::take(&mut world.wire);
            let now = world.now;
            for _ in 0..4 {
                world.nodes.get_mut(&follower).unwrap().group.tick(now);
            }
            world.wire = held;
            world.settle();
            run(&mut world, 10, &[]);
            assert_eq!(leader(&world), first);
        }
    }
}
