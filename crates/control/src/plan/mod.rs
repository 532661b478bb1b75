//! Where replicas go: balanced over nodes, spread over zones, the same answer for the same question.
//!
//! Planned by whoever proposes and written into the command; applying a command never plans, so that nodes of
//! two releases with two planners agree on the state.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use base::NodeId;

mod evacuate;
#[cfg(test)]
mod tests;
mod voters;

pub use evacuate::{Move, Nodes, Stuck, check_evacuation, evacuate, left_behind};
pub use voters::{Elector, LEARNERS_MAX, VOTERS, VOTERS_MAX, next_members};

/// Most replicas of a partition.
pub const FACTOR_MAX: usize = 5;

/// A node that may be given replicas.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    pub id: NodeId,
    /// Empty: it names none, and is a zone of its own.
    pub zone: String,
    /// Replicas it has, of all topics.
    pub replicas: u32,
    /// Partitions of which it is the preferred leader.
    pub leaders: u32,
}

/// Why replicas cannot be placed so.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlaceError {
    #[error(
        "replication factor {factor} is refused: a majority of {factor} is {majority}, so it survives no more failures \
         than {instead} and costs a copy more: use {instead} or {}", .factor + 1
    )]
    Even { factor: usize, majority: usize, instead: usize },
    #[error("replication factor {factor} is refused: use 1, 3 or 5")]
    Outside { factor: i64 },
    #[error("replication factor {factor} needs {factor} nodes that take replicas and there are {nodes}: {fix}")]
    TooFewNodes { factor: usize, nodes: usize, fix: String },
    #[error("{lists} lists of replicas for {partitions} partitions: give each partition its list")]
    Count { lists: usize, partitions: usize },
    #[error("partition {partition} has {found} replicas and the others {expected}: give all as many")]
    Uneven { partition: usize, found: usize, expected: usize },
    #[error("partition {partition} names node {node} twice")]
    Twice { partition: usize, node: NodeId },
    #[error("node {0} is not a member of the cluster: name those that `seawall cluster members` lists")]
    UnknownNode(NodeId),
}

/// The replication factor of a topic that names none: 3, or 1 where there are fewer nodes.
#[must_use]
pub fn default_factor(nodes: usize) -> usize {
    if nodes >= 3 { 3 } else { 1 }
}

/// # Errors
/// [`PlaceError`] for an even factor, and for one outside 1 to 5.
pub fn check_factor(factor: usize) -> Result<(), PlaceError> {
    match factor {
        1 | 3 | FACTOR_MAX => Ok(()),
        2 | 4 => Err(PlaceError::Even { factor, majority: factor / 2 + 1, instead: factor - 1 }),
        _ => Err(PlaceError::Outside { factor: i64::try_from(factor).unwrap_or(i64::MAX) }),
    }
}

/// Replicas for `partitions` more partitions of a topic that has `existing` ones; the first of each list is the
/// preferred leader. Within the topic the nodes' shares of a topic placed at once differ by one at most where zones allow
/// it, and their leaderships by about as much; between nodes with equal shares the one that has less in all comes first.
///
/// # Errors
/// [`PlaceError`] if the factor is refused or there are fewer candidates than that.
pub fn place(
    nodes: &[Candidate],
    existing: &[Vec<NodeId>],
    partitions: usize,
    factor: usize,
) -> Result<Vec<Vec<NodeId>>, PlaceError> {
    check_factor(factor)?;
    if nodes.len() < factor {
        let fewer = default_factor(nodes.len());
        let fix = if nodes.is_empty() { "add nodes".to_owned() } else { format!("add nodes, or ask for {fewer}") };
        return Err(PlaceError::TooFewNodes { factor, nodes: nodes.len(), fix });
    }
    let mut loads: Vec<Load<'_>> = nodes.iter().map(|node| Load::of(node, existing)).collect();
    loads.sort_by_key(|load| load.node.id);
    Ok((0..partitions).map(|_| next(&mut loads, factor)).collect())
}

/// Compares an assignment given by hand with the rules that [`place`] keeps.
///
/// # Errors
/// [`PlaceError`] naming the first partition that breaks one.
pub fn check(
    assignment: &[Vec<NodeId>],
    partitions: usize,
    is_member: impl Fn(NodeId) -> bool,
) -> Result<(), PlaceError> {
    if assignment.len() != partitions {
        return Err(PlaceError::Count { lists: assignment.len(), partitions });
    }
    let expected = assignment.first().map_or(1, Vec::len);
    check_factor(expected)?;
    for (partition, replicas) in assignment.iter().enumerate() {
        if replicas.len() != expected {
            return Err(PlaceError::Uneven { partition, found: replicas.len(), expected });
        }
        let mut seen = BTreeSet::new();
        for node in replicas {
            if !seen.insert(*node) {
                return Err(PlaceError::Twice { partition, node: *node });
            }
            if !is_member(*node) {
                return Err(PlaceError::UnknownNode(*node));
            }
        }
    }
    Ok(())
}

/// A candidate and what it has so far.
struct Load<'a> {
    node: &'a Candidate,
    /// Of this topic.
    replicas: u32,
    leaders: u32,
    /// Of all topics.
    replicas_all: u32,
    leaders_all: u32,
}

impl<'a> Load<'a> {
    fn of(node: &'a Candidate, existing: &[Vec<NodeId>]) -> Self {
        let count = |is: &dyn Fn(&Vec<NodeId>) -> bool| {
            u32::try_from(existing.iter().filter(|replicas| is(replicas)).count()).unwrap_or(u32::MAX)
        };
        Self {
            node,
            replicas: count(&|replicas| replicas.contains(&node.id)),
            leaders: count(&|replicas| replicas.first() == Some(&node.id)),
            replicas_all: node.replicas,
            leaders_all: node.leaders,
        }
    }

    fn zone(&self) -> Zone<'a> {
        if self.node.zone.is_empty() { Zone::Own(self.node.id) } else { Zone::Named(&self.node.zone) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Zone<'a> {
    Named(&'a str),
    Own(NodeId),
}

fn next(loads: &mut [Load<'_>], factor: usize) -> Vec<NodeId> {
    let mut taken: BTreeSet<usize> = BTreeSet::new();
    let mut zones: BTreeMap<Zone<'_>, u32> = BTreeMap::new();
    while taken.len() < factor {
        let free = loads.iter().enumerate().filter(|(at, _)| !taken.contains(at));
        let best = free.min_by_key(|(_, load)| {
            let in_zone = zones.get(&load.zone()).copied().unwrap_or(0);
            (in_zone, load.replicas, load.replicas_all, load.node.id)
        });
        // The caller has compared the factor with the number of nodes.
        let Some((at, load)) = best else { break };
        *zones.entry(load.zone()).or_default() += 1;
        taken.insert(at);
    }
    let leader = taken.iter().copied().min_by_key(|at| {
        let load = &loads[*at];
        (load.leaders, load.leaders_all, Reverse(load.replicas), load.node.id)
    });
    for at in &taken {
        loads[*at].replicas += 1;
        loads[*at].replicas_all = loads[*at].replicas_all.saturating_add(1);
    }
    let Some(leader) = leader else { return Vec::new() };
    loads[leader].leaders += 1;
    loads[leader].leaders_all = loads[leader].leaders_all.saturating_add(1);
    let mut replicas = vec![leader];
    replicas.extend(taken.into_iter().filter(|at| *at != leader));
    replicas.into_iter().map(|at| loads[at].node.id).collect()
}
