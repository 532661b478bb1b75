//! Looking after old files, one piece at a time for all partitions of the disk: `log` says what is due, a flusher
//! does it.

use std::ops::Bound;

use base::{Tick, TopicPartition};
use log::CareDone;

use super::CARE_CHECK_MS;
use super::owner::{Job, Owner};
use crate::node::time;

/// What the owner knows of it.
#[derive(Default)]
pub(super) struct Care {
    checked: Tick,
    /// A job is out.
    is_out: bool,
    /// The partition that was looked after last: the next one is the one after it.
    last: Option<TopicPartition>,
}

impl Care {
    /// A job of this partition is out.
    pub fn is_under_way(&self, id: TopicPartition) -> bool {
        self.is_out && self.last == Some(id)
    }
}

impl Owner {
    /// The next piece, if it is time and none is under way.
    pub(super) fn care(&mut self, now: Tick) {
        if self.care.is_out || self.stopped.is_some() || now.since(self.care.checked) < CARE_CHECK_MS {
            return;
        }
        let after = self.care.last.map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.partitions.range((after, Bound::Unbounded));
        let earlier = self.care.last.into_iter().flat_map(|last| self.partitions.range(..=last));
        let wanting = later.chain(earlier).filter(|(_, slot)| slot.partition.needs_care(now));
        let due: Vec<TopicPartition> = wanting.map(|(id, _)| *id).collect();
        for id in due {
            let Some(slot) = self.partitions.get_mut(&id) else { continue };
            let job = slot.partition.care_job(now);
            // It may have asked another replica.
            self.touch(id);
            if let Some(job) = job {
                self.care.last = Some(id);
                self.care.is_out = self.send_job(Job::Care(id, job));
                return;
            }
        }
        self.care.checked = now;
    }

    pub(super) fn cared(&mut self, id: TopicPartition, done: CareDone) {
        self.care.is_out = false;
        let Some(slot) = self.partitions.get_mut(&id) else { return };
        let before = slot.partition.status();
        slot.partition.cared(done);
        if self.sleepers.is_asleep(id) {
            // What was opened to be read is closed again.
            slot.partition.rest();
        }
        let after = slot.partition.status();
        for place in after.unreadable.iter().filter(|place| !before.unreadable.contains(place)) {
            tracing::error!(partition = %id, "an old file is damaged: {place}");
        }
        if after.unreadable != before.unreadable {
            self.tell_unreadable(id, &after.unreadable);
        }
        if after.mended > before.mended {
            tracing::warn!(partition = %id, "a damaged place of an old file was written again from another replica's copy");
        }
        let stopped = self.partitions.get(&id).and_then(|slot| slot.partition.stopped().cloned());
        if let Some(stopped) = stopped {
            self.partition_stopped(id, &stopped);
        }
        self.touch(id);
        self.care(time::now());
    }
}
