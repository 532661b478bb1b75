//! What the active master does for the cluster's members, half a second at a time: who votes on the metadata, where the
//! copies of nodes that leave or were lost go, and letting go those that have nothing left.
//!
//! ```text
//! committed state + group 0's members + who is up --control::plan--> one change of group 0 | a few SetReplicas | RemoveNode
//! ```
//! What always holds: every step follows from what is committed, so whoever is active master next takes it up where it
//! stands; a plan names the copies that it saw, so that one of a deposed master does nothing (a term would say less: of two
//! plans of one master the older one is refused too); nobody is let go who has a copy or a vote.
//!
//! Deliberately not here: moving a partition (`node/moves.rs`, where it is led), deleting what a move left behind
//! (`node/leftovers.rs`, where it lies).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::{NodeId, Tick};
use control::plan::{self, Elector, Move, Nodes, Stuck};
use control::{Command, NodeMode, State};

use super::{Node, NodeError, time};

/// Between two looks.
const ROUND: Duration = Duration::from_millis(500);
/// A learner that lacks no more entries of the metadata than this may get a vote.
const BEHIND_MAX: u64 = 100;

/// Does them while this node is the active master, until it ends.
pub fn start(node: &Arc<Node>) {
    if node.peers().is_none() {
        return;
    }
    let node = Arc::downgrade(node);
    tokio::spawn(async move {
        let mut away = BTreeMap::new();
        loop {
            tokio::time::sleep(ROUND).await;
            let Some(node) = Weak::upgrade(&node) else { return };
            if !node.master().is_active {
                // Whoever is active next counts anew: a node is replaced later, never sooner.
                away.clear();
                continue;
            }
            look(&node, &mut away);
            if let Err(error) = round(&node, &lost(&node, &away)).await {
                tracing::debug!(%error, "a change of the cluster's members waits");
            }
        }
    });
}

/// Since when each member cannot be reached.
fn look(node: &Node, away: &mut BTreeMap<NodeId, Tick>) {
    let state = node.state();
    away.retain(|id, _| state.is_member(*id) && !node.is_up(*id));
    for id in state.members().filter(|id| !node.is_up(*id)) {
        away.entry(id).or_insert_with(time::now);
    }
}

/// Those that have been away for too long.
fn lost(node: &Node, away: &BTreeMap<NodeId, Tick>) -> BTreeSet<NodeId> {
    let Some(after) = node.config().cluster.replace_after else { return BTreeSet::new() };
    let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    let now = time::now();
    away.iter().filter(|(_, since)| now.since(**since) >= after_ms).map(|(id, _)| *id).collect()
}

async fn round(node: &Node, lost: &BTreeSet<NodeId>) -> Result<(), NodeError> {
    if step_aside(node) {
        return Ok(());
    }
    vote(node, lost).await?;
    evacuate(node, lost).await?;
    let_go(node).await
}

/// An active master that is to be emptied gives its duties to another node.
fn step_aside(node: &Node) -> bool {
    let (state, master) = (node.state(), node.master());
    let takes = |id: &NodeId| state.nodes.get(id).is_none_or(|known| known.mode.takes_replicas());
    if takes(&node.id()) {
        return false;
    }
    let to = master.voters.iter().copied().find(|id| *id != node.id() && takes(id) && node.is_up(*id));
    if let Some(to) = to {
        tracing::info!(%to, "this node is being emptied: another one becomes the active master");
        node.meta().transfer_leadership(to);
    }
    to.is_some()
}

/// One change of the nodes that have the metadata, if one is due.
async fn vote(node: &Node, lost: &BTreeSet<NodeId>) -> Result<(), NodeError> {
    let Some(status) = node.meta().status().await else { return Ok(()) };
    if status.members.is_joint() {
        return Ok(());
    }
    let state = node.state();
    let elector = |id: NodeId| {
        let known = state.nodes.get(&id);
        let mode = known.map_or(NodeMode::Active, |known| known.mode);
        let peer = status.peers.iter().find(|peer| peer.node == id);
        let has_all = |peer: &quorum::PeerStatus| peer.matched.0 > 0 && peer.matched.0 + BEHIND_MAX >= status.commit.0;
        Elector {
            id,
            zone: known.map_or_else(String::new, |known| known.zone.clone()),
            may_vote: mode.takes_replicas() && !lost.contains(&id),
            is_out: mode.leaves() || lost.contains(&id),
            is_up: node.is_up(id),
            has_caught_up: peer.is_some_and(has_all),
        }
    };
    let electors: Vec<Elector> = state.members().map(elector).collect();
    let wanted = usize::try_from(node.config().cluster.voters).unwrap_or(plan::VOTERS);
    let first = if state.first_voters.is_empty() { state.founders.len() } else { state.first_voters.len() };
    let (voters, learners) = (&status.members.voters, &status.members.learners);
    if let Some((to, follow)) = plan::next_members(voters, learners, &electors, wanted.max(first)) {
        tracing::info!(before = %status.members, voters = ?to, learners = ?follow, "metadata: other members");
        node.meta().set_members(to, follow).await?;
    }
    Ok(())
}

/// Who is to be emptied: said so by someone, or away for too long.
fn leaving(state: &State, lost: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let told = state.nodes.values().filter(|known| !known.mode.takes_replicas()).map(|known| known.id);
    told.chain(lost.iter().copied()).collect()
}

async fn evacuate(node: &Node, lost: &BTreeSet<NodeId>) -> Result<(), NodeError> {
    let state = node.state();
    let leaving = leaving(&state, lost);
    if leaving.is_empty() {
        return Ok(());
    }
    let most = usize::try_from(node.config().cluster.moves_max).unwrap_or(1);
    let (moves, _) = plan::evacuate(&state, &Nodes { leaving: &leaving, is_up: &|id| node.is_up(id) }, most);
    for Move { partition, from, to, was_moving } in moves {
        tracing::info!(%partition, ?from, ?to, "replicas are moved off a node");
        let expected = (!was_moving).then_some(from);
        let (id, partition, target) = (partition.topic, partition.partition, to);
        node.propose(Command::SetReplicas { id, partition, target, expected }).await?;
    }
    Ok(())
}

/// Nodes that leave and have nothing left are members no more.
async fn let_go(node: &Node) -> Result<(), NodeError> {
    let (state, master) = (node.state(), node.master());
    for known in state.nodes.values().filter(|known| known.mode.leaves()) {
        let id = known.id;
        let is_deleting = known.mode == NodeMode::Leaving && plan::left_behind(&state, id).next().is_some();
        let holds = state.partitions_on(id).next().is_some() || is_deleting;
        if id != node.id() && !holds && !master.voters.contains(&id) {
            node.propose(Command::RemoveNode { id }).await?;
            tracing::info!(node = %id, "a node has left the cluster");
        }
    }
    Ok(())
}

/// How far a node that is being emptied has come.
#[derive(Clone, PartialEq, Debug)]
pub struct Progress {
    pub replicas_left: usize,
    /// Copies that were moved away and are still on its disk.
    pub to_delete: usize,
    /// What stands in the way.
    pub stuck: Option<Stuck>,
}

impl Node {
    /// How far the nodes that are being emptied have come.
    pub fn progress(&self) -> BTreeMap<NodeId, Progress> {
        let state = self.state();
        let leaving = leaving(&state, &BTreeSet::new());
        let nodes = Nodes { leaving: &leaving, is_up: &|id| self.is_up(id) };
        let mut stuck = if leaving.is_empty() { BTreeMap::new() } else { plan::evacuate(&state, &nodes, 0).1 };
        let mut all = BTreeMap::new();
        for id in leaving {
            let replicas_left = state.partitions_on(id).count();
            let to_delete = plan::left_behind(&state, id).count();
            all.insert(id, Progress { replicas_left, to_delete, stuck: stuck.remove(&id) });
        }
        all
    }

    /// Has a node emptied (`Draining`), emptied and let go (`Leaving`), let go although it is lost (`Gone`), or used again
    /// (`Active`). Answers when that is committed; [`Node::progress`] tells how far it is.
    ///
    /// # Errors
    /// [`NodeError::Invalid`] with what stands in the way and what to do.
    pub async fn set_node_mode(&self, id: NodeId, mode: NodeMode) -> Result<(), NodeError> {
        let state = self.state();
        let Some(known) = state.nodes.get(&id) else { return Err(control::Refused::UnknownNode(id).into()) };
        if known.mode == mode {
            return Ok(());
        }
        let is_up = self.is_up(id);
        let refuse = |why: String| Err(NodeError::Invalid(why));
        match mode {
            NodeMode::Leaving if !is_up => {
                return refuse(format!(
                    "node {id} cannot be reached: start it, so that what it holds can be moved; if it will not come back: \
                     seawall cluster remove {id}"
                ));
            }
            NodeMode::Gone if is_up => {
                return refuse(format!(
                    "node {id} is up: `seawall cluster decommission {id}` moves what it holds first; stop it if it is to be \
                     removed as it is"
                ));
            }
            NodeMode::Active => {}
            NodeMode::Draining | NodeMode::Leaving | NodeMode::Gone => {
                plan::check_evacuation(&state, id, &|node| self.is_up(node))
                    .map_err(|stuck| NodeError::Invalid(stuck.to_string()))?;
            }
        }
        if mode.leaves() {
            self.check_votes_without(id, &state)?;
        }
        self.propose(Command::SetNodeMode { id, mode }).await.map(drop)
    }

    /// Enough nodes are left to vote.
    fn check_votes_without(&self, id: NodeId, state: &State) -> Result<(), NodeError> {
        let voters = self.master().voters.clone();
        let may = |other: &NodeId| state.nodes.get(other).is_none_or(|known| known.mode.takes_replicas());
        let others = state.members().filter(|other| *other != id && may(other) && self.is_up(*other)).count();
        let needed = voters.len().min(plan::VOTERS);
        if !voters.contains(&id) || others >= needed {
            return Ok(());
        }
        Err(NodeError::Invalid(format!(
            "node {id} is one of {} that vote on the metadata, and without it there are {others} that could: start another \
             node with cluster.join first",
            voters.len()
        )))
    }
}
