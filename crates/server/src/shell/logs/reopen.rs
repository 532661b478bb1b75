//! A replica that stopped because its own disk lost something is opened again, so that it fetches from the others what
//! is gone. It has no vote until it is whole.
//!
//! What always holds: the old one is gone before the new one is opened, and nothing of it is under way; whoever
//! follows the partition goes on following it: what is committed here begins anew and comes back.

use std::collections::BTreeMap;

use base::{Offset, Tick, TopicPartition};
use log::{PartitionConfig, Seats};
use tokio::sync::watch;

use super::Leadership;
use super::insync::Behind;
use super::opening::OpenJob;
use super::owner::{Owner, partition_dir};
use super::slot::Slot;
use super::trouble::STOPPED;
use crate::node::findings::{Finding, Severity};
use crate::node::time;

/// Between two looks, and two attempts.
const LOOK_MS: u64 = 1_000;
const UNREADABLE: &str = "log-unreadable";

/// Partitions on their way from their old selves to their new ones.
#[derive(Default)]
pub(super) struct Reopening {
    looked: Tick,
    formers: BTreeMap<TopicPartition, Former>,
}

/// What is kept of the one that stopped.
struct Former {
    config: PartitionConfig,
    seats: Seats,
    floor: Option<Offset>,
    committed: watch::Sender<Offset>,
    stable: watch::Sender<Offset>,
    leadership: watch::Sender<Leadership>,
    behind: watch::Sender<Behind>,
}

impl Former {
    /// The partition itself ends here.
    fn of(slot: Box<Slot>) -> Self {
        let Slot { partition, committed, stable, leadership, behind, .. } = *slot;
        let members = partition.members();
        let seats = Seats { voters: members.voters.clone(), learners: members.learners.clone() };
        let (config, floor) = (partition.config().clone(), partition.retention_floor());
        Self { config, seats, floor, committed, stable, leadership, behind }
    }

    fn job(&self, partition: TopicPartition) -> OpenJob {
        OpenJob { partition, config: self.config.clone(), seats: self.seats.clone() }
    }
}

impl Reopening {
    /// Its topic was deleted.
    pub fn forget(&mut self, id: TopicPartition) {
        self.formers.remove(&id);
    }
}

impl Owner {
    /// Opens again what stopped for damage, and what could not be opened again so far.
    pub(super) fn reopen_damaged(&mut self, now: Tick) {
        if now.since(self.reopening.looked) < LOOK_MS || self.stopped.is_some() {
            return;
        }
        self.reopening.looked = now;
        let is_due = |id: TopicPartition, slot: &Slot| {
            let is_free = !slot.flushing && !self.care.is_under_way(id);
            slot.partition.is_repaired_by_reopening() && is_free
        };
        let due = self.partitions.iter().filter(|(id, slot)| is_due(**id, slot)).map(|(id, _)| *id);
        let due: Vec<TopicPartition> = due.collect();
        for id in due {
            if let Some(slot) = self.partitions.remove(&id) {
                tracing::warn!(partition = %id, "the damaged replica is opened again, to fetch everything from the others");
                self.sleepers.forget(id);
                self.reopening.formers.insert(id, Former::of(slot));
            }
        }
        let jobs: Vec<OpenJob> = self.reopening.formers.iter().map(|(id, former)| former.job(*id)).collect();
        jobs.into_iter().for_each(|job| self.open_again(job));
    }

    /// A partition was opened. If it is a stopped one's successor, it goes on where that one was followed; answers its
    /// committed offset then.
    pub(super) fn succeed(&mut self, id: TopicPartition) -> Option<watch::Receiver<Offset>> {
        let former = self.reopening.formers.remove(&id)?;
        let slot = self.partitions.get_mut(&id)?;
        slot.partition.set_retention_floor(former.floor);
        former.committed.send_replace(slot.partition.committed());
        former.stable.send_replace(slot.partition.last_stable());
        former.leadership.send_replace(*slot.leadership.borrow());
        former.behind.send_replace(Behind::default());
        slot.committed = former.committed;
        slot.stable = former.stable;
        slot.leadership = former.leadership;
        slot.behind = former.behind;
        let (shared, committed) = (slot.shared(), slot.committed.subscribe());
        self.share(id, shared);
        let dir = partition_dir(id);
        self.findings.clear(STOPPED, &dir);
        self.findings.clear("partition-damaged", &dir);
        Some(committed)
    }

    /// Places of old files that cannot be read, until they have been written again from another replica's copy.
    pub(super) fn tell_unreadable(&self, id: TopicPartition, places: &[String]) {
        let dir = partition_dir(id);
        let Some(first) = places.first() else { return self.findings.clear(UNREADABLE, &dir) };
        let is_alone = self.partitions.get(&id).is_some_and(|slot| slot.is_sole(self.config.node));
        let action = if is_alone {
            "there is no other replica to mend it from: restore the file from a copy; check the disk (dmesg, smartctl)"
        } else {
            "nothing, it is mended from another replica; if it stays or comes again, check the disk (dmesg, smartctl)"
        };
        self.findings.raise(
            &dir,
            Finding {
                code: UNREADABLE,
                severity: if is_alone { Severity::Critical } else { Severity::Warning },
                title: format!("{} places of partition {id} cannot be read: their bytes are damaged", places.len()),
                since: time::wall(),
                impact: vec!["log", "durability"],
                cause: first.clone(),
                action: action.into(),
            },
        );
    }
}
