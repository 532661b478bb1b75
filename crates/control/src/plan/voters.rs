//! Who votes on the metadata: one change at a time, from what the group has now towards what it should have.
//!
//! What always holds: a voter goes only together with the coming of another one, or when so many stay that an odd number
//! of at least three is left; nobody gets a vote before it has caught up; the number of voters only becomes odd.

use std::cmp::Reverse;

use base::NodeId;

#[cfg(test)]
mod tests;

/// Voters of the control group, unless more are asked for.
pub const VOTERS: usize = 3;
/// Most of them.
pub const VOTERS_MAX: usize = 7;
/// Most nodes that follow the metadata without a vote.
pub const LEARNERS_MAX: usize = 32;

/// A member of the cluster, as the active master sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Elector {
    pub id: NodeId,
    /// Empty: it names none, and is a zone of its own.
    pub zone: String,
    /// It may be given a vote: nobody has said that it shall be emptied or leave.
    pub may_vote: bool,
    /// It leaves, or has been away for so long that another shall vote in its place.
    pub is_out: bool,
    pub is_up: bool,
    /// It lacks next to nothing of the metadata's log.
    pub has_caught_up: bool,
}

/// The members that the group should have next. `None`: those that it has.
#[must_use]
pub fn next_members(
    voters: &[NodeId],
    learners: &[NodeId],
    nodes: &[Elector],
    wanted: usize,
) -> Option<(Vec<NodeId>, Vec<NodeId>)> {
    let find = |id: &NodeId| nodes.iter().find(|node| node.id == *id);
    // Those that are members no more, and those that are new.
    let mut follow: Vec<NodeId> = learners.iter().copied().filter(|id| find(id).is_some()).collect();
    let is_new = |node: &&Elector| !voters.contains(&node.id) && !learners.contains(&node.id) && !node.is_out;
    follow.extend(nodes.iter().filter(is_new).map(|node| node.id).take(LEARNERS_MAX.saturating_sub(follow.len())));
    if follow != learners {
        return Some((voters.to_vec(), follow));
    }
    let mut ready: Vec<&Elector> = learners.iter().filter_map(find).filter(|node| node.is_ready()).collect();
    let is_out = |id: &&NodeId| find(id).is_none_or(|node| node.is_out);
    // Who is forgotten goes first, then who cannot be reached.
    let out = voters.iter().filter(is_out).min_by_key(|id| find(id).map(|node| node.is_up));
    if let Some(out) = out {
        let mut stay: Vec<NodeId> = voters.iter().copied().filter(|id| id != out).collect();
        let mut follow = learners.to_vec();
        follow.extend(find(out).map(|node| node.id));
        if let Some(instead) = best(&stay, &ready, nodes) {
            stay.push(instead);
            follow.retain(|id| *id != instead);
            return Some((stay, follow));
        }
        let staying = voters.iter().filter(|id| !is_out(id)).count();
        let has_hope = learners.iter().filter_map(find).any(|node| node.may_vote && !node.is_out);
        if !has_hope && staying >= VOTERS {
            let count = odd(staying);
            stay.sort_by_key(|id| Reverse(find(id).is_some_and(|node| !node.is_out && node.is_up)));
            follow.extend(stay.drain(count..).filter(|id| find(id).is_some()));
            return Some((stay, follow));
        }
        return None;
    }
    let count = odd(wanted.clamp(1, VOTERS_MAX).min(voters.len() + ready.len()));
    if count <= voters.len() {
        return None;
    }
    let (mut all, mut follow) = (voters.to_vec(), learners.to_vec());
    while all.len() < count {
        let next = best(&all, &ready, nodes)?;
        ready.retain(|node| node.id != next);
        follow.retain(|id| *id != next);
        all.push(next);
    }
    Some((all, follow))
}

impl Elector {
    fn is_ready(&self) -> bool {
        self.may_vote && !self.is_out && self.is_up && self.has_caught_up
    }
}

const fn odd(count: usize) -> usize {
    if count.is_multiple_of(2) { count.saturating_sub(1) } else { count }
}

/// Whose zone has the fewest of `voters`.
fn best(voters: &[NodeId], ready: &[&Elector], nodes: &[Elector]) -> Option<NodeId> {
    let in_zone = |zone: &str| {
        let same = |node: &&Elector| !zone.is_empty() && node.zone == zone && voters.contains(&node.id);
        nodes.iter().filter(same).count()
    };
    ready.iter().min_by_key(|node| (in_zone(&node.zone), node.id)).map(|node| node.id)
}
