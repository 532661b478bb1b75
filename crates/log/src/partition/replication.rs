//! One replica among others: messages, roles, what has to go for another leader's entries.

use base::{LogIndex, NodeId, Offset, Term, Tick};
use bytes::Bytes;
use quorum::{Entry, GroupStatus, MembershipError, Message, ProposeError, QuorumError, Role, Snapshot, TransferError};

use super::Partition;
use crate::cut::{CutDone, Install, StartPlace};
use crate::frame::Place;
use crate::lost::{self, LostBatch, LostFound};
use crate::producers::Producers;
use crate::storage::WriteFault;
use crate::{OpenTransaction, ReadError, StepError};

/// What a replica knows of itself, beside its group; for `cluster status`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionStatus {
    /// Set after damage: the replica has no vote until it has fetched everything again.
    pub damaged: bool,
    /// The leader's entries wait for this disk.
    pub stalled: bool,
    /// Batches kept in lost+found.
    pub lost_batches: u64,
    /// Batches that lost+found had no room for, or that were given up.
    pub lost_dropped: u64,
    /// The first offset that readers of committed transactions do not see.
    pub last_stable: Offset,
    /// The open transaction that holds it back, if one does.
    pub oldest_transaction: Option<OpenTransaction>,
    /// Places of old files known to be damaged and not mended, with path and byte. What lies around them is served.
    pub unreadable: Vec<String>,
    /// Such places mended since the start.
    pub mended: u64,
}

/// A suffix that has to go before a ready can be written.
pub(super) struct Cutting {
    /// What stays ends here.
    pub place: Place,
    /// The leadership that replaces it.
    pub by: Term,
    pub install: Option<Install>,
    /// The members of the snapshot.
    pub members: Option<quorum::Members>,
}

impl Partition {
    /// Takes a message from another replica. [`Partition::take_messages`] and [`Partition::needs_flush`] come
    /// after it, or after a few of them.
    ///
    /// # Errors
    /// See [`StepError`]: the message was dropped. The sender sends again what matters.
    pub fn step(&mut self, now: Tick, message: Message) -> Result<(), StepError> {
        self.check_running()?;
        self.now.tick = self.now.tick.max(now);
        if let Some(said) = message.copies() {
            self.hear_copies(message.from(), said);
            return Ok(());
        }
        if self.stalled.is_some() {
            return Err(StepError::Stalled);
        }
        if self.is_damaged() && message.is_vote_request() {
            return Ok(());
        }
        match self.group.step(now, message) {
            Ok(()) => Ok(self.check_group()?),
            Err(error @ QuorumError::LostEntries { .. }) if !self.is_damaged() => {
                Err(StepError::Stopped(self.give_up(error.to_string())))
            }
            Err(error) => Err(StepError::Refused(error)),
        }
    }

    /// What may be sent now. What promises that something is durable appears only after
    /// [`Partition::flushed`] has said so.
    pub fn take_messages(&mut self) -> Vec<Message> {
        // Full is tried again at the next flush; stopped is seen by whoever asks.
        let _seen_elsewhere = self.pump();
        let _stopped = self.check_group();
        std::mem::take(&mut self.messages)
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
        if self.may_ask() {
            self.group.campaign();
        }
    }

    /// The connection to the leader was closed: no proof that it is gone, but a reason not to wait long.
    pub fn hint_leader_gone(&mut self, now: Tick) {
        if self.may_ask() {
            self.group.hint_leader_gone(now);
        }
    }

    fn may_ask(&self) -> bool {
        self.stalled.is_none() && self.stopped.is_none() && !self.is_damaged()
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
        // A sole voter that was never asked to write leads from here on.
        let not_leader = |leader| Err(ProposeError::NotLeader { leader }.into());
        if self.lead().is_err() {
            return not_leader(self.leader().filter(|leader| *leader != self.node));
        }
        // Its entry is written when the group hands it out.
        self.led = None;
        self.group.propose_membership(voters, learners).map(|_| ())
    }

    /// The group as an operator sees it.
    #[must_use]
    pub fn group_status(&self) -> GroupStatus {
        self.group.status()
    }

    #[must_use]
    pub fn status(&self) -> PartitionStatus {
        PartitionStatus {
            damaged: self.is_damaged(),
            stalled: self.stalled.is_some(),
            lost_batches: self.lost.iter().map(LostFound::kept).sum(),
            lost_dropped: self.lost_dropped,
            last_stable: self.last_stable(),
            oldest_transaction: self.oldest_transaction(),
            unreadable: self.care.unreadable(),
            mended: self.care.mended(),
        }
    }

    /// The records of `[from, to)` were acknowledged to their producer before they were committed
    /// (`acks=1`): should they be lost, lost+found says so.
    pub fn note_acked(&mut self, from: Offset, to: Offset) {
        if to > self.committed() {
            self.acked.note(from, to);
        }
    }

    /// The lowest offset from which on records were replaced since the last call: who waits for one at or
    /// above it waits in vain.
    pub fn take_replaced(&mut self) -> Option<Offset> {
        self.replaced.take()
    }

    /// What this replica had written and another leader's records have replaced; oldest first.
    #[must_use]
    pub fn lost_and_found(&self) -> Vec<LostFound> {
        self.lost.iter().cloned().collect()
    }

    /// The bytes of one batch in lost+found, as they were written.
    ///
    /// # Errors
    /// The disk failed, or the file was dropped meanwhile.
    pub fn read_lost(&self, found: &LostFound, batch: &LostBatch) -> Result<Bytes, ReadError> {
        Ok(lost::read_batch(self.storage().disk.as_ref(), &found.path, batch)?)
    }

    /// Bytes that readers found to be damaged since the last call: how often, and the last reason.
    pub fn take_corrupt_reads(&mut self) -> Option<(u64, String)> {
        self.storage().shared.take_corrupt_reads()
    }

    /// The last entry of the log here, and the last that is decided and here.
    #[must_use]
    pub fn indexes(&self) -> (LogIndex, LogIndex) {
        (LogIndex(self.storage().end.index.0 - 1), LogIndex(self.storage().commit.index.0 - 1))
    }

    /// An entry stands where another one is written: all from there on has to go.
    pub(super) fn plan_cut(&mut self, entry: &Entry) -> Result<(), WriteFault> {
        let commit = self.storage().commit;
        let place = match entry.index.0.checked_sub(commit.index.0) {
            Some(0) => Some(commit),
            Some(after) => {
                let before = usize::try_from(after - 1).ok().and_then(|at| self.pending.get(at));
                before.map(|(index, offset)| Place { offset: *offset, index: index.next() })
            }
            None => None,
        };
        let Some(place) = place.filter(|place| place.index == entry.index) else {
            let (index, term, commit) = (entry.index, entry.term, commit.index.0 - 1);
            return Err(WriteFault::Broken(format!(
                "entry {index} of term {term} would replace a committed one: {commit} is committed"
            )));
        };
        self.cut_from(Cutting { place, by: entry.term, install: None, members: None });
        Err(WriteFault::Wait)
    }

    /// A snapshot takes the place of the log.
    pub(super) fn plan_install(&mut self, snapshot: &Snapshot) -> Result<(), WriteFault> {
        let unfit = || WriteFault::Broken(format!("the snapshot at entry {} makes no sense", snapshot.index));
        let start = StartPlace::decode(&snapshot.data).ok_or_else(unfit)?;
        let (producers, place) = Producers::decode(&start.producers).ok_or_else(unfit)?;
        let commit = self.storage().commit;
        if snapshot.index < commit.index || start.base_offset < commit.offset || place.last_index < snapshot.index {
            return Err(unfit());
        }
        let install = Install {
            index: snapshot.index,
            term: snapshot.term,
            base_offset: start.base_offset,
            start: start.start.max(start.base_offset),
            producers,
            place,
        };
        let members = Some(snapshot.members.clone());
        self.cut_from(Cutting { place: commit, by: snapshot.term, install: Some(install), members });
        Ok(())
    }

    fn cut_from(&mut self, cutting: Cutting) {
        let offset = cutting.place.offset;
        if offset < self.end() {
            self.replaced = Some(self.replaced.map_or(offset, |replaced| replaced.min(offset)));
        }
        self.cutting = Some(cutting);
    }

    /// What was planned is done.
    pub(super) fn cut_done(&mut self, done: CutDone) {
        let Some(cutting) = self.cutting.take() else { return };
        let storage = self.group.storage_mut();
        storage.snapshots = done.snapshots;
        match cutting.install {
            None => storage.cut(cutting.place, done.shortened),
            Some(install) => {
                storage.replace(install.index, install.term, install.base_offset, install.start);
                if let Some(members) = cutting.members {
                    storage.roster.applied(install.index, members);
                    storage.roster.trimmed(install.index);
                }
                self.installed = Some(install.index);
                if let Some(ready) = &mut self.stalled {
                    ready.snapshot = None;
                }
            }
        }
        self.pending.retain(|(index, _)| *index < cutting.place.index);
        self.mark = done.mark;
        self.producers = done.producers;
        self.producers_from = done.producers_from;
        self.verifications.clear();
        self.acked.forget_from(cutting.place.offset);
        self.lost.retain(|found| !done.dropped_paths.contains(&found.path));
        self.lost.retain(|found| done.lost.as_ref().is_none_or(|new| new.path != found.path));
        self.lost.extend(done.lost);
        self.lost_dropped = done.dropped_batches;
        self.learn_stable();
    }
}
