//! What is done about lost+found while the partition is open.

use std::sync::Arc;

use base::disk::DiskError;
use base::{LogIndex, Term, Timestamp};

use super::Partition;
use crate::lost::{LostFound, LostState, SettleDone, SettleJob};
use crate::{LostPolicy, Rescue};

impl Partition {
    /// The files of lost+found with something to be republished or given up by the topic's policy now, oldest first.
    #[must_use]
    pub fn lost_due(&self, wall: Timestamp) -> Vec<LostFound> {
        let is_due = |found: &&LostFound| {
            self.is_gone_for_good(found)
                && match self.config.lost_policy {
                    LostPolicy::Keep => false,
                    LostPolicy::Republish => Rescue::is_due(found, wall),
                    LostPolicy::Drop => found.kept() > 0,
                }
        };
        self.lost.iter().filter(is_due).cloned().collect()
    }

    /// What republishes the batches of one file: those that the policy would, or with `by_hand` all that may be. `None`:
    /// there is no such file, or another leader may still bring its batches back.
    #[must_use]
    pub fn rescue(&self, path: &str, saved_at: Timestamp, by_hand: bool) -> Option<Rescue> {
        let found = self.lost.iter().find(|found| found.path == path && found.saved_at == saved_at)?;
        let disk = Arc::clone(&self.storage().disk);
        self.is_gone_for_good(found).then(|| Rescue::new(self.node, found.clone(), by_hand, disk, self.reader()))
    }

    /// Once something of a later term is committed here, no leader can have entries of an earlier one that are not
    /// committed before it.
    fn is_gone_for_good(&self, found: &LostFound) -> bool {
        let storage = self.storage();
        let committed = LogIndex(storage.commit.index.0 - 1);
        let term = quorum::Storage::term_of(storage, committed).unwrap_or(Term::ZERO);
        found.batches.last().is_some_and(|last| last.term < term)
    }

    /// Notes what became of batches of a file, by their place in it; to be run elsewhere, then
    /// [`Partition::settled`]. `None`: there is no such file, its batches may still come back, or a job is out: one at a time.
    pub fn settle_job(&mut self, path: &str, saved_at: Timestamp, fates: &[(usize, LostState)]) -> Option<SettleJob> {
        let old = self.lost.iter().find(|found| found.path == path && found.saved_at == saved_at)?;
        if self.settling || !self.is_gone_for_good(old) {
            return None;
        }
        let (old, mut new) = (old.clone(), old.clone());
        for (at, state) in fates {
            if let Some(batch) = new.batches.get_mut(*at).filter(|batch| batch.state.has_bytes()) {
                batch.give_up(*state);
            }
        }
        new.dropped_batches = self.lost_dropped + dropped(&new) - dropped(&old);
        self.settling = true;
        Some(SettleJob { disk: Arc::clone(&self.storage().disk), old, new })
    }

    /// Takes what such a job gave.
    ///
    /// # Errors
    /// The disk failed or is full: the file is as it was.
    pub fn settled(&mut self, done: SettleDone) -> Result<(), DiskError> {
        self.settling = false;
        let new = done.written?;
        let place = self.lost.iter_mut().find(|found| found.path == done.path && found.saved_at == done.saved_at);
        let Some(place) = place else {
            // A cut removed it meanwhile, to make room.
            self.removals.push(done.path);
            return Ok(());
        };
        self.lost_dropped += dropped(&new) - dropped(place);
        *place = new;
        Ok(())
    }
}

fn dropped(found: &LostFound) -> u64 {
    found.batches.iter().filter(|batch| batch.state == LostState::Dropped).count() as u64
}
