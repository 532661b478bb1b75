//! What followers lack, read apart from the owner.

use base::Tick;

use super::Partition;
use crate::reading::{ReadDone, ReadJob};

impl Partition {
    /// From now on the owner runs [`Partition::take_reads`] where it may block: it never waits for the disk because a
    /// follower comes back.
    pub fn read_apart(&mut self) {
        self.group.read_apart();
    }

    /// What is to be read now, to be taken whenever messages are. Each job is run once and its outcome brought to
    /// [`Partition::read_done`]; it may take its time.
    pub fn take_reads(&mut self) -> Vec<ReadJob> {
        if self.stalled.is_some() || self.stopped.is_some() {
            return Vec::new();
        }
        let reads = self.group.reads();
        let job = |read: quorum::Read| ReadJob { files: self.storage().files_between(read.from, read.to), read };
        reads.into_iter().map(job).collect()
    }

    /// Sends what was read; [`Partition::take_messages`] comes after it.
    pub fn read_done(&mut self, now: Tick, done: ReadDone) {
        self.now.tick = self.now.tick.max(now);
        if self.stalled.is_none() && self.stopped.is_none() {
            let entries = done.entries.map_err(|unread| self.storage().unread(unread));
            self.group.read_done(now, &done.read, entries);
        } else {
            self.group.read_dropped(&done.read);
        }
    }
}
