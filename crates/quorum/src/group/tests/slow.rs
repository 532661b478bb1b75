//! Elections where messages and disks take long beside a tick, as when thousands of groups elect at once.

use std::collections::{BTreeMap, VecDeque};

use base::Tick;

use super::world::World;
use crate::{Message, Role};

/// Nobody waits longer.
const TICKS_MAX: u64 = 1_000;

/// What a step takes, in ticks.
#[derive(Clone, Copy, Debug)]
struct Slowness {
    message: u64,
    sync: u64,
}

impl Slowness {
    /// The timeout, two questions with their answers, and the votes of two nodes made durable.
    const fn election(self) -> u64 {
        11 + 4 * self.message + 2 * self.sync
    }
}

/// A settled cluster that has just lost its leader.
fn bereaved(voters: u32, seed: u64) -> World {
    let mut world = World::default();
    world.now = Tick(1_000);
    world.open(&(1..=voters).collect::<Vec<_>>(), &[], seed);
    for _ in 0..60 {
        tick(&mut world, false);
        world.settle();
    }
    let leader = leader(&world).expect("a leader");
    world.nodes.remove(&leader);
    world.lost.insert(leader);
    world
}

fn leader(world: &World) -> Option<u32> {
    world.nodes.iter().find(|(_, node)| node.group.role() == Role::Leader).map(|(id, _)| *id)
}

fn tick(world: &mut World, is_gone: bool) {
    world.now.0 += 25;
    let now = world.now;
    for node in world.nodes.values_mut() {
        if is_gone {
            node.group.hint_leader_gone(now);
        }
        node.group.tick(now);
    }
}

/// Ticks until somebody leads. `deaf` is heard and hears nobody.
fn elect(world: &mut World, slow: Slowness, deaf: Option<u32>) -> u64 {
    let mut wire: VecDeque<(u64, Message)> = VecDeque::new();
    let mut syncs: BTreeMap<u32, u64> = BTreeMap::new();
    for now in 0..TICKS_MAX {
        tick(world, now == 0);
        world.nodes.values_mut().for_each(|node| node.holds = true);
        while wire.front().is_some_and(|(due, _)| *due <= now) {
            let (_, message) = wire.pop_front().expect("one");
            if Some(message.to().0) != deaf {
                world.deliver(message);
            }
        }
        for id in world.nodes.keys().copied().collect::<Vec<_>>() {
            if world.pump(id) {
                syncs.entry(id).or_insert(now + slow.sync);
            }
            if syncs.get(&id).is_some_and(|due| *due <= now) {
                syncs.remove(&id);
                world.sync(id);
            }
        }
        wire.extend(world.wire.drain(..).map(|message| (now + slow.message, message)));
        if leader(world).is_some() {
            return now;
        }
    }
    TICKS_MAX
}

#[test]
fn an_election_takes_a_few_times_as_long_as_its_steps() {
    for (message, sync) in [1, 2, 4, 8].into_iter().flat_map(|message| [0, 2, 4, 8, 16].map(|sync| (message, sync))) {
        let slow = Slowness { message, sync };
        for (voters, times_max, seed) in
            [(3, 5), (5, 10)].into_iter().flat_map(|(v, t)| (1..=30).map(move |s| (v, t, s)))
        {
            let took = elect(&mut bereaved(voters, seed), slow, None);
            let times = took / slow.election();
            assert!(times < times_max, "{voters} voters, seed {seed}, {slow:?}: {took} ticks, {times} times its steps");
        }
    }
}

#[test]
fn a_quick_election_is_over_with_the_first_question() {
    for seed in 1..=200 {
        let took = elect(&mut bereaved(3, seed), Slowness { message: 1, sync: 0 }, None);
        assert!(took <= 15, "seed {seed}: {took} ticks");
    }
}

#[test]
fn who_is_heard_and_hears_nobody_holds_nobody_up_for_long() {
    for (seed, at) in (1..=30).flat_map(|seed| (0..4).map(move |at| (seed, at))) {
        let mut world = bereaved(5, seed);
        let deaf = *world.nodes.keys().nth(at).expect("one of four");
        let took = elect(&mut world, Slowness { message: 2, sync: 2 }, Some(deaf));
        assert!(took < 200, "seed {seed}, node {deaf} is deaf: {took} ticks");
    }
}
