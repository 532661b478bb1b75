//! A partition's replicas on their way to where its topic wants them: what the leader does next, decided by what its
//! group says of its members alone. The same steps as in the server: who is missing learns, then votes beside the others;
//! a leader that has to go hands over; who is not wanted loses its vote; then the move is finished.

use std::collections::BTreeSet;

use base::NodeId;
use quorum::GroupStatus;

/// A learner that lacks no more entries than this gets a vote.
const BEHIND_MAX: u64 = 100;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    SetMembers { voters: Vec<NodeId>, learners: Vec<NodeId> },
    HandOver(NodeId),
    Finish,
    Wait,
}

pub fn next(own: NodeId, status: &GroupStatus, target: &[NodeId]) -> Step {
    let members = &status.members;
    if members.is_joint() {
        return Step::Wait;
    }
    let set = |nodes: &[NodeId]| nodes.iter().copied().collect::<BTreeSet<NodeId>>();
    let list = |nodes: BTreeSet<NodeId>| nodes.into_iter().collect::<Vec<_>>();
    let (voters, learners, target) = (set(&members.voters), set(&members.learners), set(target));
    let missing: BTreeSet<NodeId> = target.difference(&voters).copied().collect();
    if !missing.is_subset(&learners) {
        return Step::SetMembers { voters: list(voters), learners: list(missing) };
    }
    let is_near = |id: &NodeId| {
        let peer = status.peers.iter().find(|peer| peer.node == *id);
        peer.is_some_and(|peer| peer.matched.0 > 0 && peer.matched.0 + BEHIND_MAX >= status.commit.0)
    };
    if !missing.is_empty() {
        let all_near = missing.iter().all(is_near);
        let beside = Step::SetMembers { voters: list(&voters | &target), learners: Vec::new() };
        return if all_near { beside } else { Step::Wait };
    }
    if voters == target && learners.is_empty() {
        return Step::Finish;
    }
    if target.contains(&own) {
        return Step::SetMembers { voters: list(target), learners: Vec::new() };
    }
    target.into_iter().find(is_near).map_or(Step::Wait, Step::HandOver)
}
