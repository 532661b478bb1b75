//! One replica among others: messages, roles, and what becomes of what was acknowledged too early.

use base::{LogIndex, NodeId, Offset, Tick};
use quorum::{GroupStatus, MembershipError, Message, ProposeError, Role, TransferError};

use super::Partition;
use crate::{StepError, Stopped};

/// What a replica knows of itself; for `cluster status`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionStatus {
    /// Set after damage: the replica has no vote until it has fetched everything again.
    pub damaged: bool,
    /// A leader's entries wait for room on this disk.
    pub stalled: bool,
    /// Batches in lost+found.
    pub lost_batches: u64,
}

impl Partition {
    /// Takes a message from another replica.
    ///
    /// # Errors
    /// See [`StepError`]: the message was dropped. The sender sends again what matters.
    pub fn step(&mut self, now: Tick, message: Message) -> Result<(), StepError> {
        self.check_running()?;
        if self.stalled.is_some() {
            return Err(StepError::Stalled);
        }
        self.group.step(now, message)?;
        Ok(())
    }

    /// What may be sent now. What promises that something is durable appears only after
    /// [`Partition::flushed`] has said so.
    pub fn take_messages(&mut self) -> Vec<Message> {
        Vec::new()
    }

    /// True if [`Partition::flush_job`] would give one: a message waits for it, not only an append.
    #[must_use]
    pub fn needs_flush(&self) -> bool {
        false
    }

    /// What this replica is. A leader that cannot write counts as a follower: it takes no append.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.group.role() {
            Role::Leader if self.stalled.is_some() || self.stopped.is_some() => Role::Follower,
            role => role,
        }
    }

    /// Who leads, as far as this replica has heard.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.group.leader()
    }

    /// True while no other replica can have been elected: `acks=1` may be answered. To be asked at the time
    /// of the answer, after the append.
    #[must_use]
    pub fn lease_valid(&self, now: Tick) -> bool {
        self.role() == Role::Leader && self.group.lease_valid(now)
    }

    /// Asks for votes now.
    pub fn campaign(&mut self) {
        if self.stalled.is_none() && self.stopped.is_none() {
            self.group.campaign();
        }
    }

    /// Hands the leadership to `to`, which gets all it lacks first. Nothing is appended meanwhile.
    ///
    /// # Errors
    /// Not the leader, or `to` has no vote.
    pub fn transfer_leadership(&mut self, to: NodeId) -> Result<(), TransferError> {
        if self.role() != Role::Leader {
            return Err(TransferError::NotLeader { leader: self.leader() });
        }
        self.group.transfer_leadership(to)
    }

    /// Proposes other members; who they are in force is [`GroupStatus::members`].
    ///
    /// # Errors
    /// Nothing was proposed.
    pub fn propose_membership(&mut self, voters: &[NodeId], learners: &[NodeId]) -> Result<(), MembershipError> {
        if self.role() != Role::Leader {
            return Err(ProposeError::NotLeader { leader: self.leader() }.into());
        }
        self.group.propose_membership(voters, learners).map(|_| ())
    }

    /// The group as an operator sees it.
    #[must_use]
    pub fn group_status(&self) -> GroupStatus {
        self.group.status()
    }

    /// The connection to the leader was closed: no proof that it is gone, but a reason not to wait long.
    pub fn hint_leader_gone(&mut self, now: Tick) {
        if self.stalled.is_none() {
            self.group.hint_leader_gone(now);
        }
    }

    /// A message to `node` was not sent.
    pub fn report_unreachable(&mut self, node: NodeId) {
        if self.stalled.is_none() {
            self.group.report_unreachable(node);
        }
    }

    /// A snapshot sent to `node` arrived, or did not.
    pub fn report_snapshot(&mut self, node: NodeId, ok: bool) {
        if self.stalled.is_none() {
            self.group.report_snapshot(node, ok);
        }
    }

    /// The records of `[from, to)` were acknowledged to their producer before they were committed
    /// (`acks=1`): should they be lost, lost+found says so.
    pub fn note_acked(&mut self, _from: Offset, _to: Offset) {}

    /// The lowest offset from which on records were replaced since the last call: who waits for one at or
    /// above it waits in vain.
    pub fn take_replaced(&mut self) -> Option<Offset> {
        None
    }

    /// What this replica had written and another leader's records have replaced; oldest first.
    #[must_use]
    pub fn lost_and_found(&self) -> Vec<LostFound> {
        Vec::new()
    }

    #[must_use]
    pub fn status(&self) -> PartitionStatus {
        PartitionStatus { damaged: false, stalled: self.stalled.is_some(), lost_batches: 0 }
    }

    /// Bytes that were found damaged by readers since the last call: how often, and the last reason.
    pub fn take_corrupt_reads(&mut self) -> Option<(u64, String)> {
        None
    }

    /// The last entry of the log here, and the last that is decided.
    #[must_use]
    pub fn indexes(&self) -> (LogIndex, LogIndex) {
        (LogIndex(self.storage().end.index.0 - 1), self.group.commit_index())
    }
}

/// Whether a lost batch had been acknowledged to its producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acked {
    No,
    Yes,
    /// Written before this process started: nobody knows any more.
    Unknown,
}

/// A suffix of the log that was replaced, saved in `lost+found/`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LostFound {
    pub path: String,
    pub from: Offset,
    pub to: Offset,
    pub batches: Vec<LostBatch>,
}

/// One batch of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LostBatch {
    pub base_offset: Offset,
    pub next_offset: Offset,
    pub acked: Acked,
}

impl From<Stopped> for StepError {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}
