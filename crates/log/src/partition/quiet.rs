//! A replica that has nothing to do sleeps with its group: nobody ticks it. What is rare goes on all the same, when its
//! owner finds the time ([`Partition::chores`]).

use base::{LogIndex, NodeId, Term, Tick, Timestamp};
use quorum::{Quiet, Slept};

use super::Partition;
use crate::limits::{CHECKPOINT_BYTES_MIN, CHECKPOINT_MS, COMMIT_MARK_MS, EXPIRY_MS};
use crate::storage::Now;

impl Partition {
    /// Where the replica stands, if it leads a group that may sleep. It owes the disk nothing then, and says there what
    /// is committed.
    #[must_use]
    pub fn may_sleep(&self) -> Option<Quiet> {
        let decided = LogIndex(self.storage().decided().index.0 - 1);
        let owes = self.flushing.is_some() || self.has_work() || self.mark.committed_index < decided;
        if owes || !self.is_settled() {
            return None;
        }
        self.group.may_sleep()
    }

    /// True if the replica follows `leader` at exactly this place and has nothing to say or write for its group.
    #[must_use]
    pub fn may_follow(&self, leader: NodeId, quiet: Quiet) -> bool {
        self.is_settled() && self.group.may_follow(leader, quiet)
    }

    /// The replica falls asleep: the files of its log are closed, so that many idle partitions need few.
    pub fn rest(&self) {
        if !self.has_work() && self.flushing.is_none() {
            self.storage().files.iter().for_each(|file| file.let_go());
        }
    }

    /// Goes on after a sleep. To be called before anything else then.
    pub fn wake(&mut self, now: Tick, slept: &Slept) {
        self.now.tick = self.now.tick.max(now);
        if self.stalled.is_none() && self.stopped.is_none() {
            self.group.wake(now, slept);
        }
    }

    /// Counts what others answered while the replica, a leader, sleeps: for [`Partition::lease_valid`].
    pub fn credit(&mut self, now: Tick, answered: &[(NodeId, Tick)]) {
        if self.stalled.is_none() && self.stopped.is_none() {
            self.group.credit(now, answered);
        }
    }

    /// Rare work that has nothing to do with the group: old files are closed, marks and checkpoints fall due, producers
    /// are forgotten. [`Partition::tick`] does it too; one that sleeps wants it now and then.
    pub fn chores(&mut self, now: Tick, wall: Timestamp) {
        self.now = Now { tick: now, wall };
        if self.stopped.is_some() {
            return;
        }
        let storage = self.group.storage_mut();
        let filled = storage.active && storage.files.back().is_some_and(|file| file.len_bytes() > 0);
        if filled && now.since(storage.active_since) >= self.config.file_age_ms_max {
            storage.close_active();
        }
        if now.since(self.checkpointed) >= CHECKPOINT_MS && self.bytes_since_checkpoint >= CHECKPOINT_BYTES_MIN {
            self.checkpointed = now;
            storage.checkpoint_due = true;
            self.mark_dirty = true;
        }
        if now.since(self.producers_expired) >= EXPIRY_MS {
            self.producers_expired = now;
            self.producers.expire(wall, self.config.producer_expiry_ms);
        }
        let decided = LogIndex(self.storage().decided().index.0 - 1);
        let behind = self.mark.committed_index < decided && now.since(self.mark_written) >= COMMIT_MARK_MS;
        self.mark_behind |= behind && !self.is_alone();
    }

    /// Nothing is under way between the group and its owner or its disk.
    fn is_settled(&self) -> bool {
        let waits = self.stalled.is_some() || self.cutting.is_some() || self.installed.is_some();
        let owes = !self.unpersisted.is_empty() || !self.messages.is_empty();
        !waits && !owes && self.stopped.is_none() && self.mark.repair_term == Term::ZERO
    }
}
