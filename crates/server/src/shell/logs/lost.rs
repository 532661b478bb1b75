//! What the owner does about lost+found: it tells what is there, and has files of it written anew by a flusher.

use base::TopicPartition;
use log::{LostFound, LostState, Rescue, SettleDone};

use super::owner::{Job, Owner};
use super::waiters::answer;
use super::{LogsError, LostFile, Reply};
use crate::node::time;

impl Owner {
    pub(super) fn lost(&self, id: TopicPartition) -> Result<Vec<LostFound>, LogsError> {
        let slot = self.partitions.get(&id).ok_or_else(|| self.missing(id))?;
        Ok(slot.partition.lost_and_found())
    }

    pub(super) fn lost_due(&self, id: TopicPartition) -> Result<Vec<LostFound>, LogsError> {
        let slot = self.partitions.get(&id).ok_or_else(|| self.missing(id))?;
        Ok(slot.partition.lost_due(time::wall()))
    }

    pub(super) fn rescue(
        &self,
        id: TopicPartition,
        (path, saved_at): &LostFile,
        by_hand: bool,
    ) -> Result<Option<Rescue>, LogsError> {
        let slot = self.partitions.get(&id).ok_or_else(|| self.missing(id))?;
        Ok(slot.partition.rescue(path, *saved_at, by_hand))
    }

    pub(super) fn settle(
        &mut self,
        id: TopicPartition,
        (path, saved_at): &LostFile,
        fates: &[(usize, LostState)],
        reply: Reply<bool>,
    ) {
        let missing = self.missing(id);
        let Some(slot) = self.partitions.get_mut(&id) else { return answer(reply, Err(missing)) };
        match slot.partition.settle_job(path, *saved_at, fates) {
            Some(job) => drop(self.send_job(Job::Settle(id, job, reply))),
            None => answer(reply, Ok(false)),
        }
    }

    pub(super) fn settled(&mut self, id: TopicPartition, done: SettleDone) -> Result<bool, LogsError> {
        let slot = self.partitions.get_mut(&id).ok_or(LogsError::Unknown(id))?;
        slot.partition.settled(done)?;
        // What is to be removed goes with a flush.
        self.touch(id);
        Ok(true)
    }
}
