//! A control plane formed anew on one node, from what is left: from a backup, or from the metadata of a survivor.
//!
//! ```text
//! state + what lies on the seed's disk + who is lost for good --refound--> the new state + what becomes of each partition
//! ```
//! The new control group begins with that state as its snapshot, and with one voter, the seed. Nodes that are not lost
//! begin with the same bytes and are let in again one by one, as learners first.
//!
//! What always holds: the new group has an id that the one before did not have, so a node that comes back with the old one is
//! not spoken to; producer ids that may have been handed out after that state are not handed out again; the offsets a table
//! calls published never lie above the end of a log that begins anew, so no later record is passed over; nobody deletes a
//! copy because of what an old state says.
//!
//! Deliberately not here: files, and the members of partition groups (they are in the logs, where the copies lie).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{DiskId, LogIndex, NodeId, Offset, PartitionIndex, Term, Timestamp, TopicPartition};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::node::NodeMode;
use crate::state::State;

/// How often a cluster may have been formed anew and still know each time; older ones are forgotten.
pub const REFOUNDINGS_MAX: usize = 16;
/// Partitions that an act names; more are counted.
pub const NAMED_MAX: usize = 100;
/// Producer ids passed over: more than any cluster hands out between two backups.
const PRODUCER_IDS_SKIPPED: i64 = 1 << 40;

/// Where the state came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Source {
    /// A backup: what was changed after it is forgotten.
    Backup,
    /// The metadata of a node that was left when a majority was gone: changes that only the others had are forgotten.
    Survivor,
}

/// The act, as the state remembers it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refounding {
    /// From now on nodes speak only with those that know it.
    pub id: Uuid,
    pub source: Source,
    pub at: Timestamp,
    /// The first voter.
    pub seed: NodeId,
    /// The last entry that the state contains.
    pub index: LogIndex,
    pub term: Term,
    pub lost: BTreeSet<NodeId>,
    /// Partitions that begin anew, without records: the first ones of them.
    pub empty: Vec<TopicPartition>,
    pub empty_count: u32,
    /// Partitions that go on from one copy, which may lack records that were acknowledged: the first ones of them.
    pub forced: Vec<TopicPartition>,
    pub forced_count: u32,
    /// When somebody said that they have seen it.
    #[serde(default)]
    pub acknowledged: Option<Timestamp>,
}

/// A copy of a partition as it was found on a disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Found {
    /// Of the last entry. A higher one has everything that was acknowledged in lower ones.
    pub term: Term,
    /// The offset after the last record.
    pub end: Offset,
    /// Known to be committed.
    pub committed: Offset,
    /// Who has a copy, as the log itself has it. Empty while that was being changed.
    pub voters: Vec<NodeId>,
    /// False: it is there and was refused, as damaged or missing a part. It stays as it is.
    pub is_readable: bool,
}

/// What lies on a node's disk.
pub type Survey = BTreeMap<TopicPartition, Found>;

/// What is to be done, and what was found.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    pub id: Uuid,
    pub source: Source,
    pub at: Timestamp,
    pub seed: NodeId,
    pub disk: DiskId,
    /// Of the last entry in the state.
    pub term: Term,
    /// Nodes that will not come back.
    pub lost: &'a BTreeSet<NodeId>,
    /// Of the seed, and of other nodes as far as they were looked at.
    pub surveys: &'a BTreeMap<NodeId, Survey>,
}

/// What becomes of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Fate {
    /// Enough of its copies are left to decide by themselves.
    Kept,
    /// The only copy it ever had.
    Alone { end: Offset },
    /// It goes on from this copy: `committed` of it are known to be acknowledged at least, and records after `end` are lost.
    Forced { on: NodeId, committed: Offset, end: Offset },
    /// No copy is left: it begins anew on the seed.
    Empty,
}

/// Why not. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RefoundError {
    #[error("it is the state of no cluster: nothing was ever formed there")]
    NotFormed,
    #[error("node {0} cannot be lost: it is the one that the cluster begins anew on")]
    SeedLost(NodeId),
    #[error("node {0} is not a member: its members are {1:?}")]
    UnknownNode(NodeId, Vec<u32>),
    #[error("node {0} was removed from the cluster, and a number is never used twice: take another one")]
    RemovedNode(NodeId),
    #[error(
        "the disk of node {node} is another one than the cluster knew, and node {others:?} are expected to come back with \
         what they had: begin on one of these instead, or name them all as lost"
    )]
    OtherDisk { node: NodeId, others: Vec<u32> },
    #[error(
        "partition {partition} of topic {topic} has lost its majority, and node {node} may have a better copy than this one: \
         look at its data folder first (`seawall cluster recover --survey FILE` there, `--with FILE` here), or name it as lost"
    )]
    Unknown { topic: String, partition: PartitionIndex, node: NodeId },
}

/// The state that the new control group begins with, and what becomes of each partition.
///
/// # Errors
/// [`RefoundError`] with what to do.
pub fn refound(before: &State, plan: &Plan<'_>) -> Result<(State, BTreeMap<TopicPartition, Fate>), RefoundError> {
    check(before, plan)?;
    let mut state = before.clone();
    adopt(&mut state, plan);
    let mut fates = BTreeMap::new();
    for topic in state.topics.values() {
        for partition in (0..topic.partitions).map(PartitionIndex) {
            let at = TopicPartition { topic: topic.id, partition };
            let unknown = |node| RefoundError::Unknown { topic: topic.name.clone(), partition, node };
            fates.insert(at, fate(topic.replicas_of(partition), at, plan).map_err(unknown)?);
        }
    }
    nodes(&mut state, plan);
    for (at, fate) in &fates {
        place(&mut state, *at, *fate, plan);
    }
    state.next_producer_id = state.next_producer_id.saturating_add(PRODUCER_IDS_SKIPPED);
    remember(&mut state, &fates, plan);
    Ok((state, fates))
}

fn check(state: &State, plan: &Plan<'_>) -> Result<(), RefoundError> {
    let seed = plan.seed;
    if state.cluster.is_none() {
        return Err(RefoundError::NotFormed);
    }
    if plan.lost.contains(&seed) {
        return Err(RefoundError::SeedLost(seed));
    }
    let numbers = |nodes: Vec<NodeId>| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
    if let Some(unknown) = plan.lost.iter().find(|node| !state.is_member(**node)) {
        return Err(RefoundError::UnknownNode(*unknown, numbers(state.members().collect())));
    }
    if state.removed.values().any(|(node, _)| *node == seed) {
        return Err(RefoundError::RemovedNode(seed));
    }
    let others: Vec<NodeId> = state.members().filter(|node| *node != seed && !plan.lost.contains(node)).collect();
    if state.nodes.get(&seed).is_none_or(|known| known.disk != plan.disk) && !others.is_empty() {
        return Err(RefoundError::OtherDisk { node: seed, others: numbers(others) });
    }
    Ok(())
}

/// Copies may have been moved after the state was written: the log itself knows better.
fn adopt(state: &mut State, plan: &Plan<'_>) {
    let Some(survey) = plan.surveys.get(&plan.seed) else { return };
    for (at, found) in survey {
        let is_member = |node: &NodeId| *node == plan.seed || state.is_member(*node);
        let is_sound = found.voters.contains(&plan.seed) && found.voters.iter().all(is_member);
        let Some(topic) = state.topics.get_mut(&at.topic).filter(|_| is_sound) else { continue };
        let known: BTreeSet<NodeId> = topic.replicas_of(at.partition).iter().copied().collect();
        if known.is_empty() || known.iter().eq(found.voters.iter().collect::<BTreeSet<_>>()) {
            continue;
        }
        let topic = Arc::make_mut(topic);
        if let Some(place) = usize::try_from(at.partition.0).ok().and_then(|index| topic.replicas.get_mut(index)) {
            place.clone_from(&found.voters);
        }
        topic.targets.remove(&at.partition);
        topic.called_off.remove(&at.partition);
    }
}

/// Fails with a node that has to be looked at first.
fn fate(replicas: &[NodeId], at: TopicPartition, plan: &Plan<'_>) -> Result<Fate, NodeId> {
    // Before any node had registered there was one.
    let alone = [plan.seed];
    let replicas = if replicas.is_empty() { &alone } else { replicas };
    let left: Vec<NodeId> = replicas.iter().copied().filter(|node| !plan.lost.contains(node)).collect();
    let found = |node: &NodeId| plan.surveys.get(node).and_then(|survey| survey.get(&at));
    if let ([only], [_]) = (&left[..], replicas)
        && *only == plan.seed
    {
        return Ok(match found(only) {
            Some(found) if found.is_readable => Fate::Alone { end: found.end },
            Some(_) => Fate::Kept,
            None => Fate::Empty,
        });
    }
    if 2 * left.len() > replicas.len() {
        return Ok(Fate::Kept);
    }
    if let Some(unseen) = left.iter().find(|node| !plan.surveys.contains_key(node)) {
        return Err(*unseen);
    }
    // Where none of them is left, any copy is better than nothing: one that was on its way, or an old one.
    let others = plan.surveys.keys().filter(|node| !plan.lost.contains(node)).copied();
    let holders: Vec<NodeId> = if left.is_empty() { others.collect() } else { left };
    let copies: Vec<(&Found, NodeId)> = holders.iter().filter_map(|node| Some((found(node)?, *node))).collect();
    let best = copies.iter().filter(|(found, _)| found.is_readable).max_by_key(|(found, node)| {
        // As a group elects: the later term, then the longer log; of two alike the seed's, then the smaller number.
        (found.term, found.end, *node == plan.seed, Reverse(*node))
    });
    Ok(match best {
        Some((found, on)) => Fate::Forced { on: *on, committed: found.committed, end: found.end },
        // What cannot be read now may be mended by a person.
        None if !copies.is_empty() => Fate::Kept,
        None => Fate::Empty,
    })
}

/// Lost ones are as if `cluster remove` had been said of them; the seed is a member with the disk it has.
fn nodes(state: &mut State, plan: &Plan<'_>) {
    for node in state.nodes.values_mut() {
        let node = Arc::make_mut(node);
        if plan.lost.contains(&node.id) {
            node.mode = NodeMode::Gone;
        }
        if node.id == plan.seed {
            node.disk = plan.disk;
            node.mode = NodeMode::Active;
        }
    }
    state.founders.retain(|node| !plan.lost.contains(node));
    if !state.nodes.contains_key(&plan.seed) {
        state.founders.insert(plan.seed);
    }
    state.first_voters = [plan.seed].into();
    for topic in state.topics.values_mut().filter(|topic| !topic.leaving.is_empty()) {
        // Whoever was to delete a copy then may have been given a new one since.
        Arc::make_mut(topic).leaving.clear();
    }
}

fn place(state: &mut State, at: TopicPartition, fate: Fate, plan: &Plan<'_>) {
    let (on, end) = match fate {
        Fate::Kept => return,
        Fate::Alone { end } => (None, end),
        Fate::Forced { on, end, .. } => (Some(on), end),
        Fate::Empty => (Some(plan.seed), Offset::ZERO),
    };
    if let (Some(on), Some(topic)) = (on, state.topics.get_mut(&at.topic).map(Arc::make_mut)) {
        // The others of them that are left get a copy again; those that are lost do not count.
        let before = topic.replicas_of(at.partition).to_vec();
        let mut copies = vec![on];
        copies.extend(before.iter().copied().filter(|node| *node != on && !plan.lost.contains(node)));
        // Two copies are worse than one.
        copies.truncate(if copies.len() < 3 { 1 } else { 3 });
        if let Some(place) = usize::try_from(at.partition.0).ok().and_then(|index| topic.replicas.get_mut(index)) {
            *place = vec![on];
        }
        topic.targets.remove(&at.partition);
        topic.called_off.remove(&at.partition);
        if copies.len() > 1 {
            topic.targets.insert(at.partition, copies);
        }
    }
    for table in state.tables.values_mut().filter(|table| table.topic == at.topic) {
        let is_behind = table.published(at.partition) > end;
        let begins_anew = fate == Fate::Empty && table.terms.contains_key(&at.partition);
        if is_behind || begins_anew {
            let table = Arc::make_mut(table);
            let published = table.published(at.partition).min(end);
            table.published.insert(at.partition, published);
            table.terms.remove(&at.partition);
        }
    }
}

fn remember(state: &mut State, fates: &BTreeMap<TopicPartition, Fate>, plan: &Plan<'_>) {
    let named = |is_so: fn(&Fate) -> bool| {
        let all: Vec<TopicPartition> = fates.iter().filter(|(_, fate)| is_so(fate)).map(|(at, _)| *at).collect();
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        (all.into_iter().take(NAMED_MAX).collect::<Vec<_>>(), count)
    };
    let (empty, empty_count) = named(|fate| *fate == Fate::Empty);
    let (forced, forced_count) = named(|fate| matches!(fate, Fate::Forced { .. }));
    let index = state.applied;
    state.applied = index.next();
    state.refoundings.push(Refounding {
        id: plan.id,
        source: plan.source,
        at: plan.at,
        seed: plan.seed,
        index,
        term: plan.term,
        lost: plan.lost.clone(),
        empty,
        empty_count,
        forced,
        forced_count,
        acknowledged: None,
    });
    if state.refoundings.len() > REFOUNDINGS_MAX {
        state.refoundings.remove(0);
    }
}

impl State {
    /// What nodes compare before they speak with each other: the cluster's id, or that of its last refounding.
    #[must_use]
    pub fn lineage(&self) -> Option<Uuid> {
        let cluster = self.cluster?;
        Some(self.refoundings.last().map_or(cluster.0, |last| last.id))
    }

    /// What [`State::lineage`] was before, with the refounding that ended it.
    pub fn former_lineages(&self) -> impl Iterator<Item = (Uuid, &Refounding)> {
        let first = self.cluster.map(|cluster| cluster.0);
        let ids = first.into_iter().chain(self.refoundings.iter().map(|refounding| refounding.id));
        ids.zip(&self.refoundings)
    }
}

#[cfg(test)]
mod tests;
