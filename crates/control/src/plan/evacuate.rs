//! Where the copies of nodes that leave, or have been lost, go: a few at a time, spread over zones as when they were placed.

use std::collections::{BTreeMap, BTreeSet};

use base::{NodeId, PartitionIndex, TopicId, TopicPartition};

#[cfg(test)]
mod tests;

use super::Candidate;
use crate::state::State;
use crate::topic::Topic;

/// One partition's copies, from here to there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    pub partition: TopicPartition,
    pub from: Vec<NodeId>,
    pub to: Vec<NodeId>,
    /// It was on its way to somewhere else, which is no place any more.
    pub was_moving: bool,
}

/// Why a node cannot be emptied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Stuck {
    #[error(
        "partition {partition} of topic {topic} has {copies} copies, and without node {node} there are {nodes} nodes that \
         could have one: start another node with cluster.join, or give the topic fewer copies"
    )]
    TooFewNodes { topic: String, partition: PartitionIndex, node: NodeId, copies: usize, nodes: usize },
    #[error(
        "the only copy of partition {partition} of topic {topic} is on node {node}, which cannot be reached: bring it \
         back, or delete the topic and with it what was in it"
    )]
    OnlyCopy { topic: String, partition: PartitionIndex, node: NodeId },
    #[error(
        "most copies of partition {partition} of topic {topic} are out of reach: nobody can decide where they go; bring \
         nodes back (`seawall cluster recover --plan` names them)"
    )]
    NoMajority { topic: String, partition: PartitionIndex },
}

/// What is known of the nodes.
pub struct Nodes<'a> {
    /// To be emptied.
    pub leaving: &'a BTreeSet<NodeId>,
    pub is_up: &'a dyn Fn(NodeId) -> bool,
}

/// The next moves, `most` of them at a time counting those under way; and what stands in the way of others, of each node
/// the first.
#[must_use]
pub fn evacuate(state: &State, nodes: &Nodes<'_>, most: usize) -> (Vec<Move>, BTreeMap<NodeId, Stuck>) {
    let mut candidates: Vec<Candidate> = state.candidates();
    candidates.retain(|candidate| !nodes.leaving.contains(&candidate.id) && (nodes.is_up)(candidate.id));
    let under_way = state.topics.values().map(|topic| topic.targets.len()).sum::<usize>();
    let (mut room, mut moves, mut stuck) = (most.saturating_sub(under_way), Vec::new(), BTreeMap::new());
    for topic in state.topics.values() {
        for partition in (0..topic.partitions).map(PartitionIndex) {
            let from = topic.replicas_of(partition);
            let target = topic.targets.get(&partition);
            let Some(node) = target.map_or(from, Vec::as_slice).iter().find(|node| nodes.leaving.contains(node)) else {
                continue;
            };
            match next(topic, partition, nodes, &mut candidates) {
                Ok(to) if room > 0 || target.is_some() => {
                    room -= usize::from(target.is_none());
                    let partition = TopicPartition { topic: topic.id, partition };
                    moves.push(Move { partition, from: from.to_vec(), to, was_moving: target.is_some() });
                }
                Ok(_) => {}
                Err(reason) => drop(stuck.entry(*node).or_insert(reason)),
            }
        }
    }
    (moves, stuck)
}

/// Whether everything that `node` has could go elsewhere.
///
/// # Errors
/// [`Stuck`] with the first thing that could not.
pub fn check_evacuation(state: &State, node: NodeId, is_up: &dyn Fn(NodeId) -> bool) -> Result<(), Stuck> {
    // Those that are to be emptied anyway are no place either; `candidates` leaves them out.
    let (_, mut stuck) = evacuate(state, &Nodes { leaving: &[node].into(), is_up }, usize::MAX);
    stuck.remove(&node).map_or(Ok(()), Err)
}

fn next(
    topic: &Topic,
    partition: PartitionIndex,
    nodes: &Nodes<'_>,
    candidates: &mut [Candidate],
) -> Result<Vec<NodeId>, Stuck> {
    let from = topic.replicas_of(partition);
    let mut to: Vec<NodeId> = from.iter().copied().filter(|node| !nodes.leaving.contains(node)).collect();
    let gone = from.iter().copied().find(|node| nodes.leaving.contains(node)).unwrap_or(NodeId(0));
    let reached = from.iter().filter(|node| (nodes.is_up)(**node)).count();
    if 2 * reached <= from.len() {
        let (topic, node) = (topic.name.clone(), gone);
        return Err(match from.len() {
            1 => Stuck::OnlyCopy { topic, partition, node },
            _ => Stuck::NoMajority { topic, partition },
        });
    }
    while to.len() < from.len() {
        let in_zone = |zone: &str, to: &[NodeId]| {
            let same =
                |candidate: &&Candidate| !zone.is_empty() && candidate.zone == zone && to.contains(&candidate.id);
            candidates.iter().filter(same).count()
        };
        let is_free = |candidate: &&Candidate| {
            !to.contains(&candidate.id) && !from.contains(&candidate.id) && !topic.is_leaving(partition, candidate.id)
        };
        let best = candidates
            .iter()
            .filter(is_free)
            .min_by_key(|candidate| (in_zone(&candidate.zone, &to), candidate.replicas, candidate.id))
            .map(|candidate| candidate.id);
        let Some(best) = best else {
            let could = |candidate: &&Candidate| to.contains(&candidate.id) || is_free(candidate);
            let nodes = candidates.iter().filter(could).count();
            return Err(Stuck::TooFewNodes {
                topic: topic.name.clone(),
                partition,
                node: gone,
                copies: from.len(),
                nodes,
            });
        };
        if let Some(candidate) = candidates.iter_mut().find(|candidate| candidate.id == best) {
            candidate.replicas = candidate.replicas.saturating_add(1);
        }
        to.push(best);
    }
    if to.first() != from.first() {
        lead(&mut to, candidates);
    }
    Ok(to)
}

/// The one that was first is gone: first is now who is so of the fewest partitions.
fn lead(to: &mut [NodeId], candidates: &mut [Candidate]) {
    let leaders =
        |id: NodeId| candidates.iter().find(|candidate| candidate.id == id).map_or(u32::MAX, |one| one.leaders);
    let best = (0..to.len()).min_by_key(|at| (leaders(to[*at]), *at)).unwrap_or(0);
    to[..=best].rotate_right(1);
    if let Some(candidate) = candidates.iter_mut().find(|candidate| candidate.id == to[0]) {
        candidate.leaders = candidate.leaders.saturating_add(1);
    }
}

/// Who has something to delete: partitions that were moved away from `node`, which it may still have on its disk.
pub fn left_behind(state: &State, node: NodeId) -> impl Iterator<Item = TopicPartition> + '_ {
    state.topics.values().flat_map(move |topic| {
        let id: TopicId = topic.id;
        let partitions = topic.leaving.iter().filter(move |(_, nodes)| nodes.contains(&node));
        partitions.map(move |(partition, _)| TopicPartition { topic: id, partition: *partition })
    })
}
