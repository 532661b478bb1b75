//! What the state does with nodes and with the places of replicas.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{DiskId, LogIndex, NodeId, PartitionIndex, Timestamp, TopicId, TopicPartition};

use super::State;
use crate::command::{Applied, Refused};
use crate::node::{NODES_MAX, NodeMode, RegisteredNode};
use crate::plan::{self, Candidate};
use crate::topic::Topic;

/// Disks of removed nodes that are remembered, the last ones removed.
pub const REMOVED_DISKS_MAX: usize = 1_000;

impl State {
    /// Registered, or one of those the cluster was formed with.
    #[must_use]
    pub fn is_member(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node) || self.founders.contains(&node)
    }

    /// Every member, registered or not.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + use<> {
        let members: std::collections::BTreeSet<NodeId> =
            self.founders.iter().copied().chain(self.nodes.keys().copied()).collect();
        members.into_iter()
    }

    /// Who has a copy of the partition, the preferred leader first. Empty: no such partition, or no node has registered.
    #[must_use]
    pub fn replicas(&self, partition: TopicPartition) -> &[NodeId] {
        self.topics.get(&partition.topic).map_or(&[], |topic| topic.replicas_of(partition.partition))
    }

    /// Who keeps the partition's live rows: its leader, which seals them, and the first of its replicas up to `count` in
    /// all of those. Everybody finds the same ones; a leader that is not among the first comes on top. First whom to ask.
    #[must_use]
    pub fn live_keepers(&self, partition: TopicPartition, count: usize, leader: Option<NodeId>) -> Vec<NodeId> {
        let preferred = self.replicas(partition).iter().copied().take(count.max(1));
        let others = preferred.filter(|node| Some(*node) != leader);
        leader.into_iter().chain(others).collect()
    }

    /// The members that may be given replicas, with what they have: input for [`plan::place`].
    #[must_use]
    pub fn candidates(&self) -> Vec<Candidate> {
        let mut load: BTreeMap<NodeId, (u32, u32)> = BTreeMap::new();
        let lists = self.topics.values().flat_map(|topic| topic.replicas.iter().chain(topic.targets.values()));
        for replicas in lists {
            for (at, node) in replicas.iter().enumerate() {
                let (copies, leaders) = load.entry(*node).or_default();
                *copies = copies.saturating_add(1);
                *leaders = leaders.saturating_add(u32::from(at == 0));
            }
        }
        let is_active = |id: &NodeId| self.nodes.get(id).is_none_or(|node| node.mode.takes_replicas());
        let candidate = |id: NodeId| {
            let zone = self.nodes.get(&id).map_or_else(String::new, |node| node.zone.clone());
            let (replicas, leaders) = load.get(&id).copied().unwrap_or_default();
            Candidate { id, zone, replicas, leaders }
        };
        self.members().filter(is_active).map(candidate).collect()
    }

    /// Partitions that have, or are to get, a copy on `node`.
    pub fn partitions_on(&self, node: NodeId) -> impl Iterator<Item = TopicPartition> + '_ {
        self.topics.values().flat_map(move |topic| {
            (0..topic.partitions)
                .map(PartitionIndex)
                .filter(move |partition| topic.is_on(*partition, node))
                .map(move |partition| TopicPartition { topic: topic.id, partition })
        })
    }

    pub(super) fn check_replicas(&self, replicas: &[Vec<NodeId>], partitions: i32) -> Result<(), Refused> {
        // Only a node that was alone before there were copies has none to name.
        if replicas.is_empty() && self.members().next().is_none() {
            return Ok(());
        }
        let partitions = usize::try_from(partitions).unwrap_or(0);
        Ok(plan::check(replicas, partitions, |node| self.is_member(node))?)
    }

    pub(super) fn register(&mut self, new: RegisteredNode) -> Result<Applied, Refused> {
        new.check()?;
        self.check_disk(new.id, new.disk)?;
        if self.removed.values().any(|(removed, _)| *removed == new.id) {
            return Err(Refused::RemovedNode(new.id));
        }
        let id = new.id;
        let Some(known) = self.nodes.get_mut(&id) else {
            if self.nodes.len() >= NODES_MAX {
                return Err(Refused::TooManyNodes { max: NODES_MAX });
            }
            if self.nodes.is_empty() {
                self.give_all_to(id);
            }
            self.nodes.insert(id, Arc::new(new));
            return Ok(Applied::Done);
        };
        if known.disk != new.disk {
            return Err(Refused::OtherDisk { node: id, known: known.disk, found: new.disk });
        }
        let (mode, registered) = (known.mode, known.registered);
        *known = Arc::new(RegisteredNode { mode, registered, ..new });
        Ok(Applied::Done)
    }

    /// Topics made before any node registered are on the only node there was: the first to register.
    fn give_all_to(&mut self, node: NodeId) {
        for topic in self.topics.values_mut().filter(|topic| topic.replicas.is_empty()) {
            let partitions = usize::try_from(topic.partitions).unwrap_or(0);
            Arc::make_mut(topic).replicas = vec![vec![node]; partitions];
        }
    }

    pub(super) fn replace_disk(&mut self, id: NodeId, disk: DiskId, at: Timestamp) -> Result<Applied, Refused> {
        self.check_disk(id, disk)?;
        let node = self.nodes.get_mut(&id).ok_or(Refused::UnknownNode(id))?;
        let node = Arc::make_mut(node);
        node.disk = disk;
        node.updated = at;
        Ok(Applied::Done)
    }

    /// A disk belongs to one node for life.
    fn check_disk(&self, id: NodeId, disk: DiskId) -> Result<(), Refused> {
        if let Some((node, _)) = self.removed.get(&disk) {
            return Err(Refused::RemovedDisk { disk, node: *node });
        }
        match self.nodes.values().find(|node| node.disk == disk && node.id != id) {
            Some(owner) => Err(Refused::DiskInUse { disk, node: owner.id }),
            None => Ok(()),
        }
    }

    pub(super) fn set_node_mode(&mut self, id: NodeId, mode: NodeMode) -> Result<Applied, Refused> {
        let node = self.nodes.get_mut(&id).ok_or(Refused::UnknownNode(id))?;
        Arc::make_mut(node).mode = mode;
        Ok(Applied::Done)
    }

    pub(super) fn remove_node(&mut self, at: LogIndex, id: NodeId) -> Result<Applied, Refused> {
        if !self.is_member(id) {
            return Err(Refused::UnknownNode(id));
        }
        if let Some(held) = self.partitions_on(id).next() {
            let topic = self.topics.get(&held.topic).map_or_else(String::new, |topic| topic.name.clone());
            return Err(Refused::NodeInUse { node: id, topic, partition: held.partition });
        }
        self.founders.remove(&id);
        for topic in self.topics.values_mut() {
            if topic.leaving.values().any(|nodes| nodes.contains(&id)) {
                let leaving = &mut Arc::make_mut(topic).leaving;
                leaving.retain(|_, nodes| {
                    nodes.remove(&id);
                    !nodes.is_empty()
                });
            }
        }
        if let Some(node) = self.nodes.remove(&id) {
            self.removed.insert(node.disk, (id, at));
        }
        if self.removed.len() > REMOVED_DISKS_MAX
            && let Some(oldest) = self.removed.iter().min_by_key(|(_, (_, at))| *at).map(|(disk, _)| *disk)
        {
            self.removed.remove(&oldest);
        }
        Ok(Applied::Done)
    }

    pub(super) fn set_replicas(
        &mut self,
        id: TopicId,
        partition: PartitionIndex,
        target: &[NodeId],
        expected: Option<&[NodeId]>,
    ) -> Result<Applied, Refused> {
        self.check_partition(id, partition)?;
        plan::check(&[target.to_vec()], 1, |node| self.is_member(node))?;
        let topic = self.topic_mut(id)?;
        let is_moving = topic.targets.contains_key(&partition);
        if expected.is_some_and(|expected| is_moving || topic.replicas_of(partition) != expected) {
            return Err(Refused::OtherReplicas { topic: topic.name.clone(), partition });
        }
        // What such a node does with its old copy must not happen to the new one.
        if let Some(node) = target.iter().find(|node| topic.is_leaving(partition, **node)) {
            return Err(Refused::StillDeleting { topic: topic.name.clone(), partition, node: *node });
        }
        if let Some(before) = topic.targets.get(&partition).cloned() {
            let called_off = topic.called_off.entry(partition).or_default();
            called_off.extend(before);
            called_off.retain(|node| !target.contains(node));
        }
        // Called off, a move has its way back: what was begun is undone by whoever leads.
        if topic.replicas_of(partition) != target || topic.targets.contains_key(&partition) {
            topic.targets.insert(partition, target.to_vec());
        }
        Ok(Applied::Done)
    }

    pub(super) fn finish_reassignment(
        &mut self,
        id: TopicId,
        partition: PartitionIndex,
        replicas: &[NodeId],
    ) -> Result<Applied, Refused> {
        self.check_partition(id, partition)?;
        let topic = self.topic_mut(id)?;
        let is_target = topic.targets.get(&partition).is_some_and(|target| target == replicas);
        let place = usize::try_from(partition.0).ok().and_then(|at| topic.replicas.get_mut(at));
        let (true, Some(place)) = (is_target, place) else {
            return Err(Refused::OtherTarget { topic: topic.name.clone(), partition });
        };
        let before = std::mem::replace(place, replicas.to_vec());
        topic.targets.remove(&partition);
        let called_off = topic.called_off.remove(&partition).unwrap_or_default();
        let left: Vec<NodeId> = before.into_iter().chain(called_off).filter(|node| !replicas.contains(node)).collect();
        if !left.is_empty() {
            topic.leaving.entry(partition).or_default().extend(left);
        }
        Ok(Applied::Done)
    }

    pub(super) fn replica_deleted(
        &mut self,
        id: TopicId,
        partition: PartitionIndex,
        node: NodeId,
    ) -> Result<Applied, Refused> {
        self.check_partition(id, partition)?;
        let topic = self.topic_mut(id)?;
        if let Some(leaving) = topic.leaving.get_mut(&partition) {
            leaving.remove(&node);
            if leaving.is_empty() {
                topic.leaving.remove(&partition);
            }
        }
        Ok(Applied::Done)
    }

    fn check_partition(&self, id: TopicId, partition: PartitionIndex) -> Result<(), Refused> {
        let topic = self.topics.get(&id).ok_or_else(|| Refused::UnknownTopic(id.to_string()))?;
        if topic.has_partition(partition) {
            return Ok(());
        }
        Err(Refused::UnknownPartition { topic: topic.name.clone(), partition })
    }
}

impl Topic {
    /// `node` has no copy of the partition any more and may delete what it still has of it.
    #[must_use]
    pub fn is_leaving(&self, partition: PartitionIndex, node: NodeId) -> bool {
        self.leaving.get(&partition).is_some_and(|nodes| nodes.contains(&node))
    }

    /// `node` has a copy of the partition, is to get one, or was to get one before the move was called off: its group may
    /// count on that copy until the move has its end.
    #[must_use]
    pub fn is_on(&self, partition: PartitionIndex, node: NodeId) -> bool {
        let target = self.targets.get(&partition).map_or(&[][..], Vec::as_slice);
        let was_to_be = self.called_off.get(&partition).is_some_and(|nodes| nodes.contains(&node));
        self.replicas_of(partition).contains(&node) || target.contains(&node) || was_to_be
    }
}
