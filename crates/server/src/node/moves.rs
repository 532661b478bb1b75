//! Replicas on their way: the leader of a partition whose topic names a target brings its members there, a step at a time.
//!
//! ```text
//! members        what is done
//! A B C          the target has D, who is no member:        D learns
//! A B C + D      D has everything:                          D gets a vote beside the others
//! A B C D        the leader is not of the target:           it hands over to one who is
//! A B C D        the leader is of the target:               those who are not lose their vote
//! B C D          as the target:                             FinishReassignment
//! ```
//! What always holds: every step begins with what the group's own log says of its members, so it can be repeated, stopped
//! and taken up by another leader at any point; a vote is taken away only when all of the target have one; a move is
//! finished when all of the target know that it is, so that none of them counts on the vote of one that has left.
//!
//! Deliberately not here: deleting what the nodes that were left have on their disks (`node/leftovers.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::{LogIndex, NodeId, TopicPartition};
use control::{Command, State};
use quorum::GroupStatus;

use super::{Node, NodeError};

/// Between two looks.
const ROUND: Duration = Duration::from_millis(500);
/// Partitions moved at the same time by one leader.
const MOVING_MAX: usize = 16;
/// A learner that lacks no more entries than this gets a vote; the rest comes as to any follower.
const BEHIND_MAX: u64 = 100;

/// Moves what this node leads, until it ends.
pub fn start(node: &Arc<Node>) {
    let node = Arc::downgrade(node);
    tokio::spawn(async move {
        // Moves that are through but for what some do not know yet, and the entry that all must have.
        let mut settled = BTreeMap::new();
        loop {
            tokio::time::sleep(ROUND).await;
            let Some(node) = Weak::upgrade(&node) else { return };
            let mut wanted = wanted(&node.state());
            wanted.retain(|(partition, _)| node.leads(*partition));
            settled.retain(|partition, _| wanted.iter().any(|(wanted, _)| wanted == partition));
            for (partition, target) in wanted.into_iter().take(MOVING_MAX) {
                if let Err(error) = step(&node, partition, &target, &mut settled).await {
                    tracing::debug!(%partition, %error, "a move of replicas waits");
                }
            }
        }
    });
}

fn wanted(state: &State) -> Vec<(TopicPartition, Vec<NodeId>)> {
    let targets = state.topics.values().flat_map(|topic| {
        let place = |partition| TopicPartition { topic: topic.id, partition };
        topic.targets.iter().map(move |(partition, target)| (place(*partition), target.clone()))
    });
    targets.collect()
}

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    SetMembers { voters: Vec<NodeId>, learners: Vec<NodeId> },
    HandOver(Vec<NodeId>),
    Finish,
    Wait,
}

async fn step(
    node: &Node,
    partition: TopicPartition,
    target: &[NodeId],
    settled: &mut BTreeMap<TopicPartition, LogIndex>,
) -> Result<(), NodeError> {
    let status = node.logs().status(partition).await?.group;
    let next = next(node.id(), &status, target);
    if next != Step::Finish {
        settled.remove(&partition);
    }
    match next {
        Step::Wait => {}
        Step::SetMembers { voters, learners } => node.logs().set_members(partition, voters, learners).await?,
        Step::HandOver(to) => {
            if let Some(to) = node.reachable_of(&to).next() {
                node.logs().transfer(partition, to);
            }
        }
        Step::Finish => {
            let all_know = *settled.entry(partition).or_insert(status.commit);
            if !status.peers.iter().all(|peer| peer.matched >= all_know) {
                return Ok(());
            }
            let (id, partition, replicas) = (partition.topic, partition.partition, target.to_vec());
            node.propose(Command::FinishReassignment { id, partition, replicas }).await?;
        }
    }
    Ok(())
}

/// Decided by the group's members alone.
fn next(own: NodeId, status: &GroupStatus, target: &[NodeId]) -> Step {
    let members = &status.members;
    if members.is_joint() {
        return Step::Wait;
    }
    let set = |nodes: &[NodeId]| nodes.iter().copied().collect::<BTreeSet<NodeId>>();
    let (voters, learners, target) = (set(&members.voters), set(&members.learners), set(target));
    let missing: BTreeSet<NodeId> = target.difference(&voters).copied().collect();
    let list = |nodes: BTreeSet<NodeId>| nodes.into_iter().collect::<Vec<_>>();
    if !missing.is_empty() {
        if !missing.is_subset(&learners) {
            return Step::SetMembers { voters: list(voters), learners: list(missing) };
        }
        let has_caught_up = |id: &NodeId| {
            let peer = status.peers.iter().find(|peer| peer.node == *id);
            peer.is_some_and(|peer| peer.matched.0 > 0 && peer.matched.0 + BEHIND_MAX >= status.commit.0)
        };
        return match missing.iter().all(has_caught_up) {
            true => Step::SetMembers { voters: list(&voters | &target), learners: Vec::new() },
            false => Step::Wait,
        };
    }
    if voters == target && learners.is_empty() {
        return Step::Finish;
    }
    if target.contains(&own) {
        return Step::SetMembers { voters: list(target), learners: Vec::new() };
    }
    Step::HandOver(list(target))
}

#[cfg(test)]
mod tests {
    use base::Term;
    use quorum::{Members, PeerStatus, Role};

    use super::*;

    fn nodes(ids: &[u32]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn status(voters: &[u32], learners: &[u32], matched: u64) -> GroupStatus {
        let members = Members::new(&nodes(voters), &nodes(learners));
        let peer = |node: NodeId| PeerStatus { node, matched: LogIndex(matched), last_heard: None, paused: false };
        let peers = members.all().into_iter().map(peer).collect();
        GroupStatus {
            role: Role::Leader,
            term: Term(3),
            leader: Some(NodeId(1)),
            commit: LogIndex(1_000),
            last: LogIndex(1_000),
            members,
            peers,
            lease_left_ms: 100,
            patience: 1,
        }
    }

    fn members(voters: &[u32], learners: &[u32]) -> Step {
        Step::SetMembers { voters: nodes(voters), learners: nodes(learners) }
    }

    #[test]
    fn a_move_goes_step_by_step() {
        let target = nodes(&[2, 3, 4]);
        let next = |own, status: GroupStatus| next(NodeId(own), &status, &target);
        assert_eq!(next(1, status(&[1, 2, 3], &[], 1_000)), members(&[1, 2, 3], &[4]));
        assert_eq!(next(1, status(&[1, 2, 3], &[4], 0)), Step::Wait, "nothing was heard of it yet");
        assert_eq!(next(1, status(&[1, 2, 3], &[4], 800)), Step::Wait);
        assert_eq!(next(1, status(&[1, 2, 3], &[4], 950)), members(&[1, 2, 3, 4], &[]));
        assert_eq!(next(1, status(&[1, 2, 3, 4], &[], 1_000)), Step::HandOver(target.clone()));
        assert_eq!(next(2, status(&[1, 2, 3, 4], &[], 1_000)), members(&[2, 3, 4], &[]));
        assert_eq!(next(2, status(&[2, 3, 4], &[], 1_000)), Step::Finish);
        let mut joint = status(&[2, 3, 4], &[], 1_000);
        joint.members.outgoing = nodes(&[1, 2, 3]);
        assert_eq!(next(2, joint), Step::Wait);
    }

    #[test]
    fn one_copy_becomes_three_and_one_again() {
        let (three, one) = (nodes(&[1, 2, 3]), nodes(&[3]));
        assert_eq!(next(NodeId(1), &status(&[1], &[], 0), &three), members(&[1], &[2, 3]));
        assert_eq!(next(NodeId(1), &status(&[1], &[2, 3], 1_000), &three), members(&[1, 2, 3], &[]));
        assert_eq!(next(NodeId(1), &status(&[1, 2, 3], &[], 1_000), &three), Step::Finish);
        assert_eq!(next(NodeId(1), &status(&[1, 2, 3], &[], 1_000), &one), Step::HandOver(one.clone()));
        assert_eq!(next(NodeId(3), &status(&[1, 2, 3], &[], 1_000), &one), members(&[3], &[]));
    }

    #[test]
    fn a_move_that_was_called_off_takes_back_its_learners() {
        assert_eq!(next(NodeId(1), &status(&[1, 2, 3], &[4], 10), &nodes(&[1, 2, 3])), members(&[1, 2, 3], &[]));
    }
}
