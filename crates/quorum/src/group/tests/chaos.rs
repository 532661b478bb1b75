//! A seeded world that loses, delays, reorders and duplicates messages, defers syncs and crashes nodes.
//!
//! Checked all the time: no two leaders in a term; no two nodes apply different data at one index; what was
//! once applied anywhere is applied by all in the end; and after the faults stop there is one leader and
//! every node catches up.

use std::collections::BTreeMap;

use base::LogIndex;
use bytes::Bytes;

use super::world::{World, joined};
use super::*;

const SEEDS: u64 = 150;
const STEPS: usize = 2_000;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(1);
        usize::try_from(mix(self.0) % bound as u64).unwrap()
    }
}

#[derive(Default)]
struct Facts {
    leaders: BTreeMap<Term, u32>,
    applied: BTreeMap<LogIndex, Bytes>,
}

impl Facts {
    fn check(&mut self, world: &World, seed: u64) {
        for (id, node) in &world.nodes {
            assert_eq!(node.group.fault(), None, "seed {seed} node {id}");
            if node.group.role() == Role::Leader {
                let first = *self.leaders.entry(node.group.term()).or_insert(*id);
                assert_eq!(first, *id, "seed {seed}: two leaders in term {}", node.group.term());
            }
            for (index, data) in &node.applied {
                let first = self.applied.entry(*index).or_insert_with(|| data.clone());
                assert_eq!(first, data, "seed {seed} node {id}: two payloads at {index}");
            }
        }
    }
}

fn play(seed: u64) -> Vec<Bytes> {
    let mut random = Random(seed << 20);
    let mut world = World::default();
    world.open(&[1, 2, 3], &[], seed);
    let mut facts = Facts::default();
    for step in 0..STEPS {
        one_step(&mut world, &mut random, step);
        facts.check(&world, seed);
    }
    world.lost.clear();
    for id in 1..=3 {
        world.sync(id);
    }
    world.command("ticks 200");
    facts.check(&world, seed);
    let leaders = world.nodes.values().filter(|node| node.group.role() == Role::Leader).count();
    assert_eq!(leaders, 1, "seed {seed}: no leader after the faults stopped");
    let all: Vec<Bytes> = world.nodes.values().map(|node| joined(&node.applied)).collect();
    let expected = facts.applied.into_iter().collect::<Vec<_>>();
    for (id, data) in (1..).zip(&all) {
        assert_eq!(*data, joined(&expected), "seed {seed}: node {id} lacks what was applied");
    }
    all
}

fn one_step(world: &mut World, random: &mut Random, step: usize) {
    let id = u32::try_from(random.below(3) + 1).unwrap();
    match random.below(100) {
        0..12 => {
            world.now.0 += 8;
            let now = world.now;
            world.nodes.get_mut(&id).unwrap().group.tick(now);
        }
        12..45 => drop(world.pump(id)),
        45..80 if !world.wire.is_empty() => {
            let at = random.below(world.wire.len());
            let message = world.wire.remove(at).unwrap();
            if random.below(10) == 0 {
                world.wire.push_back(message.clone());
            }
            world.deliver(message);
        }
        80..83 if !world.wire.is_empty() => drop(world.wire.remove(random.below(world.wire.len()))),
        83..91 => {
            let data = Bytes::from(format!("s{step}"));
            let _not_leader = world.nodes.get_mut(&id).unwrap().group.propose(data);
        }
        91..93 => world.nodes.get_mut(&id).unwrap().holds = true,
        93..97 => world.sync(id),
        97 => world.crash(id),
        98 if random.below(4) == 0 => drop(world.lost.insert(id)),
        _ => world.lost.clear(),
    }
}

#[test]
fn nothing_decided_is_lost_or_changed() {
    let mut decided = 0;
    for seed in 0..SEEDS {
        decided += play(seed)[0].len();
    }
    assert!(decided > 10_000, "the world does too little: {decided} bytes decided");
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in [3, 77, 12_345] {
        assert_eq!(play(seed), play(seed));
    }
}
