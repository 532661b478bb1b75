//! Nodes are emptied under many seeds: nothing is lost on the way, and in the end nothing is left.

use base::{DiskId, LogIndex, Timestamp};
use uuid::Uuid;

use super::*;
use crate::command::Command;
use crate::node::NodeMode;
use crate::plan;

fn ids(numbers: &[u32]) -> Vec<NodeId> {
    numbers.iter().copied().map(NodeId).collect()
}

struct World {
    state: State,
    down: BTreeSet<NodeId>,
}

impl World {
    fn new(nodes: u32, zones: u32) -> Self {
        let mut world = Self { state: State::default(), down: BTreeSet::new() };
        for id in 1..=nodes {
            world.apply(&Command::RegisterNode {
                id: NodeId(id),
                disk: DiskId(Uuid::from_u128(id.into())),
                addresses: crate::state::tests::addresses(id),
                zone: format!("zone-{}", id % zones),
                version: "0.2.0".into(),
                at: Timestamp(1),
            });
        }
        world
    }

    fn apply(&mut self, command: &Command) {
        let at = LogIndex(self.state.applied.0 + 1);
        self.state.apply(at, command).expect("is not refused");
    }

    fn topic(&mut self, number: u128, partitions: usize, factor: usize) {
        let replicas = plan::place(&self.state.candidates(), &[], partitions, factor).expect("places");
        self.apply(&Command::CreateTopic {
            id: TopicId(Uuid::from_u128(number)),
            name: format!("t{number}"),
            partitions: i32::try_from(partitions).expect("few"),
            config: BTreeMap::new(),
            internal: false,
            created: Timestamp(1),
            replicas,
        });
    }

    fn plan(&self, leaving: &[u32], most: usize) -> (Vec<Move>, BTreeMap<NodeId, Stuck>) {
        let leaving: BTreeSet<NodeId> = leaving.iter().copied().map(NodeId).collect();
        let is_up = |node| !self.down.contains(&node);
        evacuate(&self.state, &Nodes { leaving: &leaving, is_up: &is_up }, most)
    }

    fn carry_out(&mut self, moves: &[Move]) {
        for Move { partition, from, to, was_moving } in moves {
            let expected = (!was_moving).then(|| from.clone());
            let (id, partition, target) = (partition.topic, partition.partition, to.clone());
            self.apply(&Command::SetReplicas { id, partition, target, expected });
        }
    }

    /// One of the moves under way arrives, and what it left is deleted.
    fn arrive(&mut self) {
        let arriving = self.state.topics.values().find_map(|topic| {
            let (partition, target) = topic.targets.iter().next()?;
            Some((topic.id, *partition, target.clone()))
        });
        let Some((id, partition, replicas)) = arriving else { return };
        self.apply(&Command::FinishReassignment { id, partition, replicas });
        for node in self.state.topics[&id].leaving.get(&partition).cloned().unwrap_or_default() {
            self.apply(&Command::ReplicaDeleted { id, partition, node });
        }
    }
}

#[test]
fn a_node_is_emptied_a_few_moves_at_a_time() {
    for seed in 0..60_u32 {
        let mut world = World::new(4 + seed % 4, 1 + seed % 3);
        world.topic(1, 6, 3);
        world.topic(2, 5, 1);
        world.topic(3, 4, 3);
        let leaving = 1 + seed % 4;
        world.apply(&Command::SetNodeMode { id: NodeId(leaving), mode: NodeMode::Draining });
        for round in 0..100 {
            let (moves, stuck) = world.plan(&[leaving], 3);
            assert!(stuck.is_empty(), "seed {seed}: {stuck:?}");
            for Move { from, to, .. } in &moves {
                let set: BTreeSet<_> = to.iter().collect();
                assert!(set.len() == from.len() && !to.contains(&NodeId(leaving)), "seed {seed}: {from:?} to {to:?}");
                let stay = from.iter().filter(|node| to.contains(node)).count();
                assert_eq!(stay + 1, from.len(), "seed {seed}: no more is moved than must be");
            }
            world.carry_out(&moves);
            let under_way: usize = world.state.topics.values().map(|topic| topic.targets.len()).sum();
            assert!(under_way <= 3, "seed {seed}: {under_way} at a time");
            world.arrive();
            assert!(round < 99 || under_way == 0);
        }
        assert_eq!(world.state.partitions_on(NodeId(leaving)).count(), 0, "seed {seed}");
        assert_eq!(left_behind(&world.state, NodeId(leaving)).count(), 0, "seed {seed}");
        let loads: Vec<u32> = world.state.candidates().iter().map(|candidate| candidate.replicas).collect();
        assert!(loads.iter().max() <= loads.iter().min().map(|least| least + 6).as_ref(), "seed {seed}: {loads:?}");
        world.apply(&Command::RemoveNode { id: NodeId(leaving) });
    }
}

#[test]
fn what_cannot_be_moved_is_said() {
    let mut world = World::new(3, 3);
    world.topic(1, 2, 3);
    let said = check_evacuation(&world.state, NodeId(3), &|_| true).map_err(|stuck| stuck.to_string()).unwrap_err();
    assert!(said.contains("has 3 copies, and without node 3 there are 2 nodes that could have one"), "{said}");
    assert!(said.contains("start another node with cluster.join"), "{said}");
    let (moves, stuck) = world.plan(&[3], 10);
    assert!(moves.is_empty() && stuck.contains_key(&NodeId(3)));
    let mut world = World::new(4, 4);
    world.topic(1, 4, 1);
    world.down = [NodeId(2)].into();
    let (moves, stuck) = world.plan(&[2], 10);
    assert!(moves.is_empty(), "{moves:?}");
    assert!(matches!(stuck[&NodeId(2)], Stuck::OnlyCopy { .. }), "{stuck:?}");
    let mut world = World::new(5, 5);
    world.topic(1, 5, 3);
    world.down = ids(&[1, 2]).into_iter().collect();
    let (_, stuck) = world.plan(&[1, 2], 10);
    assert!(stuck.values().any(|stuck| matches!(stuck, Stuck::NoMajority { .. })), "{stuck:?}");
}

#[test]
fn a_lost_node_is_replaced_also_where_a_move_goes_to_it() {
    let mut world = World::new(5, 5);
    world.topic(1, 1, 3);
    let from =
        world.state.replicas(TopicPartition { topic: TopicId(Uuid::from_u128(1)), partition: PartitionIndex(0) });
    assert_eq!(from, ids(&[1, 2, 3]));
    let first = world.plan(&[3], 10).0;
    assert_eq!(first[0].to, ids(&[1, 2, 4]));
    world.carry_out(&first);
    world.down = [NodeId(4)].into();
    let second = world.plan(&[3, 4], 10).0;
    assert_eq!((second[0].to.clone(), second[0].was_moving), (ids(&[1, 2, 5]), true));
    world.carry_out(&second);
    world.arrive();
    assert!(world.plan(&[3, 4], 10).0.is_empty());
}

#[test]
fn who_still_deletes_its_old_copy_is_no_place_for_a_new_one() {
    let mut world = World::new(4, 4);
    world.topic(1, 1, 3);
    let first = world.plan(&[3], 10).0;
    world.carry_out(&first);
    let (id, partition) = (TopicId(Uuid::from_u128(1)), PartitionIndex(0));
    world.apply(&Command::FinishReassignment { id, partition, replicas: first[0].to.clone() });
    let stuck = world.plan(&[1], 10).1;
    assert!(matches!(stuck[&NodeId(1)], Stuck::TooFewNodes { nodes: 2, .. }), "{stuck:?}");
    world.apply(&Command::ReplicaDeleted { id, partition, node: NodeId(3) });
    assert_eq!(world.plan(&[1], 10).0.len(), 1);
}
