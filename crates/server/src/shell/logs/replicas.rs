//! The part of the owner that speaks with other replicas: messages in and out, ticks, links, who leads.

use base::{NodeId, Offset, PartitionIndex, ProducerEpoch, ProducerId, Term, TopicId, TopicPartition};
use log::{Message, Role, StepError, Verification};
use quorum::GroupKey;
use uuid::Uuid;

use super::owner::Owner;
use super::slot::want;
use super::{HEAR_MS, HEARS_MAX, Leadership, LogsError};
use crate::node::time;
use crate::shell::outbox::{BEATS, post};
use crate::shell::peers::GroupFrame;

/// Partitions without a leader that are told so in one tick.
const ORPHANS_MAX: usize = 256;

/// A replica as its owner sees it.
#[derive(Clone, PartialEq, Debug)]
pub struct ReplicaStatus {
    pub role: Role,
    pub term: Term,
    pub leader: Option<NodeId>,
    pub voters: Vec<NodeId>,
    pub start: Offset,
    pub committed: Offset,
    pub end: Offset,
    pub has_lease: bool,
    /// Nothing to do: it is not ticked, and a beat stands for its heartbeats.
    pub is_asleep: bool,
    pub replica: log::PartitionStatus,
    /// How far the others are, known to the leader.
    pub group: quorum::GroupStatus,
}

/// The partition whose group this is.
pub(super) fn partition_of(key: GroupKey) -> TopicPartition {
    let [id @ .., a, b, c, d] = key.0;
    TopicPartition { topic: TopicId(Uuid::from_bytes(id)), partition: PartitionIndex(i32::from_be_bytes([a, b, c, d])) }
}

impl Owner {
    pub(super) fn message(&mut self, frame: GroupFrame) {
        if self.stopped.is_some() {
            return;
        }
        if frame.group == BEATS {
            return self.hear_beat(frame);
        }
        let id = partition_of(frame.group);
        // Not open yet, or deleted: the sender finds out or asks again.
        if !self.partitions.contains_key(&id) {
            return;
        }
        let message = match Message::decode(frame.message) {
            Ok(message) if message.from() == frame.from => message,
            Ok(_) => return tracing::warn!(from = %frame.from, "log: a message in another node's name was dropped"),
            Err(error) => return tracing::warn!(from = %frame.from, %error, "log: a message was dropped"),
        };
        if self.sleepers.passes_over(frame.group, &message) {
            return;
        }
        self.awaken(id);
        let Some(slot) = self.partitions.get_mut(&id) else { return };
        match slot.partition.step(time::now(), message) {
            Ok(()) => {}
            Err(StepError::Stopped(stopped)) => return self.partition_stopped(id, &stopped),
            Err(error) => tracing::debug!(partition = %id, %error, "log: a message was dropped"),
        }
        self.touch(id);
    }

    pub(super) fn link(&mut self, node: NodeId, is_connected: bool) {
        let changed = if is_connected { self.connected.insert(node) } else { self.connected.remove(&node) };
        self.looked.is_outdated |= changed;
        if is_connected || !changed {
            return;
        }
        let concerned = self.partitions.iter().filter(|(_, slot)| slot.voters().contains(&node));
        let concerned: Vec<(TopicPartition, bool)> =
            concerned.map(|(id, slot)| (*id, slot.partition.leader() == Some(node))).collect();
        for (id, has_lost_leader) in concerned {
            if has_lost_leader {
                self.orphans.push_back((id, node));
            // A leader that sleeps has nothing to send, and others to answer it.
            } else if !self.sleepers.is_asleep(id)
                && let Some(slot) = self.partitions.get_mut(&id)
            {
                slot.partition.report_unreachable(node);
                self.touch(id);
            }
        }
        self.elect_for_orphans();
    }

    /// Partitions that have lost their leader with its link look for another one: a few in a tick, for ten thousand elections
    /// at a time leave nobody the time to hear the others.
    fn elect_for_orphans(&mut self) {
        let now = time::now();
        for _ in 0..ORPHANS_MAX {
            let Some((id, node)) = self.orphans.pop_front() else { return };
            let is_orphan = self.partitions.get(&id).is_some_and(|slot| slot.partition.leader() == Some(node));
            if self.connected.contains(&node) || !is_orphan {
                continue;
            }
            self.awaken(id);
            let Some(slot) = self.partitions.get_mut(&id) else { continue };
            slot.partition.report_unreachable(node);
            slot.partition.hint_leader_gone(now);
            self.touch(id);
        }
    }

    /// A tick of every group that is awake.
    pub(super) fn tick_groups(&mut self) {
        let now = time::now();
        if !self.ticker.is_due(now) || self.stopped.is_some() {
            return;
        }
        let wall = time::wall();
        self.elect_for_orphans();
        self.tick_sleepers(now);
        for id in &self.sleepers.awake {
            let Some(slot) = self.partitions.get_mut(id) else { continue };
            slot.partition.tick(now, wall);
            if slot.eager > 0 {
                slot.eager -= 1;
                if slot.partition.leader().is_some() {
                    slot.eager = 0;
                } else if slot.eager.is_multiple_of(2) {
                    slot.partition.campaign();
                }
            }
            slot.release_leased(now);
            if !slot.touched {
                slot.touched = true;
                self.touched.push(*id);
            }
        }
        self.beat(now);
    }

    pub(super) fn touch(&mut self, id: TopicPartition) {
        if let Some(slot) = self.partitions.get_mut(&id)
            && !slot.touched
        {
            slot.touched = true;
            self.touched.push(id);
        }
    }

    /// Looks after every partition that something was done to: sends, answers, tells, wants a flush.
    pub(super) fn serve_touched(&mut self) {
        let (mut heard, mut hears, mut at) = (time::now(), 0, 0);
        while let Some(id) = self.touched.get(at).copied() {
            at += 1;
            self.serve(id);
            // Serving may take long when much is written for a leader: the other groups are still listened to.
            if hears < HEARS_MAX && at < self.touched.len() && time::now().since(heard) >= HEAR_MS {
                self.hear();
                (heard, hears) = (time::now(), hears + 1);
            }
        }
        self.touched.clear();
    }

    fn serve(&mut self, id: TopicPartition) {
        let Some(slot) = self.partitions.get_mut(&id) else { return };
        slot.touched = false;
        if !slot.is_sole(self.config.node) && !self.sleepers.is_asleep(id) {
            self.sleepers.awake.insert(id);
        }
        for message in slot.partition.take_messages() {
            if !post(&*self.outbox, log::group_key(id), &message) {
                slot.partition.report_unreachable(message.to());
            }
        }
        self.want_reads(id);
        let Some(slot) = self.partitions.get_mut(&id) else { return };
        let replaced = slot.partition.take_replaced();
        if let Some(from) = replaced {
            let error = slot.not_leader();
            slot.waiters.fail_from(from, &error);
        }
        // Before anybody is answered: who was acknowledged and asks now how far to read must not be told less.
        let stable = slot.partition.last_stable();
        slot.stable.send_if_modified(|before| std::mem::replace(before, stable) != stable);
        let committed = slot.partition.committed();
        if slot.committed.send_if_modified(|before| std::mem::replace(before, committed) != committed) {
            slot.waiters.release(committed);
        }
        let (before, after) = (*slot.leadership.borrow(), slot.lead(self.config.node));
        if before != after {
            // A sole voter begins its term with its first append: there is nobody whose entries could replace its own.
            let is_over = !after.is_mine || (after.term != before.term && !slot.is_sole(self.config.node));
            if before.is_mine && is_over {
                slot.waiters.fail(&LogsError::Append(log::AppendError::NotLeader { leader: after.leader }));
            }
            slot.leadership.send_replace(after);
            self.leadership_changed = true;
            tracing::debug!(partition = %id, term = %after.term, leader = ?after.leader, "log: another leader or term");
        }
        if slot.partition.needs_flush() {
            slot.dirty = true;
            want(&mut self.wanted, id, slot);
        }
    }

    /// Why nobody can write to a partition that this node does not lead.
    pub(super) fn refused(&self, id: TopicPartition, error: log::AppendError) -> LogsError {
        let log::AppendError::NotLeader { leader: None } = error else { return error.into() };
        let Some(slot) = self.partitions.get(&id) else { return error.into() };
        let absent = |node: &&NodeId| **node != self.config.node && !self.connected.contains(node);
        let missing: Vec<NodeId> = slot.voters().iter().filter(absent).copied().collect();
        if missing.len() > slot.voters().len().saturating_sub(1) / 2 {
            return LogsError::NotEnoughReplicas { partition: id, missing };
        }
        error.into()
    }

    /// Asks the group to have other members. Done when its status says so.
    pub(super) fn set_members(
        &mut self,
        id: TopicPartition,
        voters: &[NodeId],
        learners: &[NodeId],
    ) -> Result<(), LogsError> {
        let missing = self.missing(id);
        self.awaken(id);
        let slot = self.partitions.get_mut(&id).ok_or(missing)?;
        let proposed = slot.partition.propose_membership(voters, learners);
        self.touch(id);
        proposed.map_err(|error| LogsError::Members { partition: id, reason: error.to_string() })
    }

    /// A transaction that is open here was verified when it began.
    pub(super) fn verify_begin(
        &mut self,
        id: TopicPartition,
        producer: ProducerId,
        epoch: ProducerEpoch,
    ) -> Result<Option<Verification>, LogsError> {
        let missing = self.missing(id);
        let slot = self.partitions.get_mut(&id).ok_or(missing)?;
        if !slot.lead(self.config.node).is_mine {
            return Err(slot.not_leader());
        }
        let open = slot.partition.open_transactions();
        if open.iter().any(|open| open.producer == producer && open.epoch == epoch) {
            return Ok(None);
        }
        Ok(Some(slot.partition.verify_begin(time::now(), producer, epoch)))
    }

    pub(super) fn status(&mut self, id: TopicPartition) -> Result<ReplicaStatus, LogsError> {
        self.credit(id);
        let slot = self.partitions.get(&id).ok_or_else(|| self.missing(id))?;
        let Leadership { leader, term, .. } = slot.lead(self.config.node);
        Ok(ReplicaStatus {
            role: slot.partition.role(),
            term,
            leader,
            voters: slot.voters().to_vec(),
            start: slot.partition.start(),
            committed: slot.partition.committed(),
            end: slot.partition.end(),
            has_lease: slot.partition.lease_valid(time::now()),
            is_asleep: self.sleepers.is_asleep(id),
            replica: slot.partition.status(),
            group: slot.partition.group_status(),
        })
    }
}
