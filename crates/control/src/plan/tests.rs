//! Placement under many seeds: the rules hold, and the same question has the same answer.

use std::collections::{BTreeMap, BTreeSet};

use base::NodeId;

use super::*;

/// A small generator of our own (SplitMix64): tests need a spread, not randomness.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("below a usize")
    }
}

fn node(id: u32, zone: &str) -> Candidate {
    Candidate { id: NodeId(id), zone: zone.into(), replicas: 0, leaders: 0 }
}

fn zones_of(nodes: &[Candidate], replicas: &[NodeId]) -> Vec<String> {
    let zone =
        |id: &NodeId| nodes.iter().find(|node| node.id == *id).map_or_else(String::new, |node| node.zone.clone());
    replicas.iter().map(zone).collect()
}

/// Smallest and largest count over all nodes.
fn extremes(
    nodes: &[Candidate],
    lists: &[Vec<NodeId>],
    counts: impl Fn(&Vec<NodeId>, NodeId) -> bool,
) -> (usize, usize) {
    let per_node = nodes.iter().map(|node| lists.iter().filter(|list| counts(list, node.id)).count());
    let per_node: Vec<usize> = per_node.collect();
    (per_node.iter().copied().min().unwrap_or(0), per_node.iter().copied().max().unwrap_or(0))
}

#[test]
fn without_zones_every_node_has_as_much_as_the_others() {
    for seed in 0..500 {
        let mut seeded = Seeded(seed);
        let factor = [1, 3, 5][seeded.below(3)];
        let count = factor + seeded.below(8);
        let nodes: Vec<_> = (1..=u32::try_from(count).expect("few")).map(|id| node(id * 3, "")).collect();
        let partitions = 1 + seeded.below(60);
        let lists = place(&nodes, &[], partitions, factor).expect("places");
        assert_eq!(check(&lists, partitions, |id| nodes.iter().any(|node| node.id == id)), Ok(()), "seed {seed}");
        let (least, most) = extremes(&nodes, &lists, |list, id| list.contains(&id));
        assert!(most - least <= 1, "seed {seed}: replicas {least} to {most}");
        let (least, most) = extremes(&nodes, &lists, |list, id| list[0] == id);
        assert!(most - least <= 2, "seed {seed}: leaders {least} to {most}");
    }
}

#[test]
fn replicas_are_in_as_many_zones_as_there_are() {
    for seed in 0..500 {
        let mut seeded = Seeded(seed);
        let factor = [1, 3, 5][seeded.below(3)];
        let zones = 1 + seeded.below(6);
        let mut nodes: Vec<_> = (1..=u32::try_from(factor + seeded.below(10)).expect("few"))
            .map(|id| node(id, &format!("zone-{}", seeded.below(zones))))
            .collect();
        for node in &mut nodes {
            node.replicas = u32::try_from(seeded.below(50)).expect("few");
        }
        let named: BTreeSet<&str> = nodes.iter().map(|node| node.zone.as_str()).collect();
        let lists = place(&nodes, &[], 1 + seeded.below(40), factor).expect("places");
        for list in &lists {
            let used: BTreeSet<String> = zones_of(&nodes, list).into_iter().collect();
            assert_eq!(used.len(), named.len().min(factor), "seed {seed}: {list:?}");
        }
    }
}

#[test]
fn zones_of_equal_size_share_equally() {
    for seed in 0..200 {
        let mut seeded = Seeded(seed);
        let per_zone = 1 + seeded.below(4);
        let nodes: Vec<_> = (0..3 * per_zone)
            .map(|at| node(u32::try_from(at).expect("few") + 1, &format!("zone-{}", at % 3)))
            .collect();
        let lists = place(&nodes, &[], 1 + seeded.below(80), 3).expect("places");
        let (least, most) = extremes(&nodes, &lists, |list, id| list.contains(&id));
        assert!(most - least <= 1, "seed {seed}: replicas {least} to {most}");
        let (least, most) = extremes(&nodes, &lists, |list, id| list[0] == id);
        assert!(most - least <= 2, "seed {seed}: leaders {least} to {most}");
    }
}

#[test]
fn the_same_question_has_the_same_answer_in_whatever_order_it_is_asked() {
    for seed in 0..200 {
        let mut seeded = Seeded(seed);
        let mut nodes: Vec<_> = (1..=7).map(|id| node(id, ["a", "b", "c", ""][seeded.below(4)])).collect();
        for node in &mut nodes {
            node.replicas = u32::try_from(seeded.below(9)).expect("few");
            node.leaders = u32::try_from(seeded.below(9)).expect("few");
        }
        let first = place(&nodes, &[], 11, 3);
        for at in (1..nodes.len()).rev() {
            nodes.swap(at, seeded.below(at + 1));
        }
        assert_eq!(place(&nodes, &[], 11, 3), first, "seed {seed}");
    }
}

#[test]
fn topics_of_one_partition_are_spread_too() {
    let mut nodes: Vec<_> = (1..=5).map(|id| node(id, "")).collect();
    let mut lists = Vec::new();
    for _ in 0..50 {
        let placed = place(&nodes, &[], 1, 3).expect("places");
        for candidate in &mut nodes {
            candidate.replicas += u32::from(placed[0].contains(&candidate.id));
            candidate.leaders += u32::from(placed[0][0] == candidate.id);
        }
        lists.extend(placed);
    }
    assert_eq!(extremes(&nodes, &lists, |list, id| list.contains(&id)), (30, 30));
    assert_eq!(extremes(&nodes, &lists, |list, id| list[0] == id), (10, 10));
}

#[test]
fn partitions_added_later_continue_what_was_begun() {
    let nodes: Vec<_> = (1..=4).map(|id| node(id, "")).collect();
    let mut lists = place(&nodes, &[], 5, 3).expect("places");
    lists.extend(place(&nodes, &lists, 7, 3).expect("places more"));
    let (least, most) = extremes(&nodes, &lists, |list, id| list.contains(&id));
    assert_eq!((least, most), (9, 9));
    let grown: Vec<_> = (1..=6).map(|id| node(id, "")).collect();
    lists.extend(place(&grown, &lists, 6, 3).expect("places on new nodes first"));
    let (least, most) = extremes(&grown, &lists, |list, id| list.contains(&id));
    assert_eq!((least, most), (6, 11), "the two new nodes are in every new partition");
}

#[test]
fn what_cannot_be_placed_is_refused_with_the_reason() {
    let nodes: Vec<_> = (1..=3).map(|id| node(id, "")).collect();
    let said = |count: usize, factor| place(&nodes[..count], &[], 1, factor).map_err(|error| error.to_string());
    let cases = [
        (
            3,
            2,
            "replication factor 2 is refused: a majority of 2 is 2, so it survives no more failures than 1 and costs \
                a copy more: use 1 or 3",
        ),
        (
            3,
            4,
            "replication factor 4 is refused: a majority of 4 is 3, so it survives no more failures than 3 and costs \
                a copy more: use 3 or 5",
        ),
        (3, 0, "replication factor 0 is refused: use 1, 3 or 5"),
        (3, 7, "replication factor 7 is refused: use 1, 3 or 5"),
        (3, 5, "replication factor 5 needs 5 nodes that take replicas and there are 3: add nodes, or ask for 3"),
        (1, 3, "replication factor 3 needs 3 nodes that take replicas and there are 1: add nodes, or ask for 1"),
        (0, 1, "replication factor 1 needs 1 nodes that take replicas and there are 0: add nodes"),
    ];
    for (count, factor, message) in cases {
        assert_eq!(said(count, factor), Err(message.to_owned()));
    }
    assert_eq!([1, 2, 3, 4, 9].map(default_factor), [1, 1, 3, 3, 3]);
}

#[test]
fn ten_thousand_partitions_are_planned_at_once() {
    let nodes: Vec<_> = (1..=30).map(|id| node(id, ["a", "b", "c"][id as usize % 3])).collect();
    let lists = place(&nodes, &[], 10_000, 3).expect("places");
    let mut leaders: BTreeMap<NodeId, usize> = BTreeMap::new();
    lists.iter().for_each(|list| *leaders.entry(list[0]).or_default() += 1);
    let (least, most) = (leaders.values().min().copied(), leaders.values().max().copied());
    assert!(least >= Some(330) && most <= Some(337), "{least:?} to {most:?}");
}
