//! Groups that have nothing to do sleep: nobody ticks them, and one beat every other tick and node says of all of them that their
//! leaders live. docs/adr/0006 says how; here an owner's groups fall asleep and wake.
//!
//! What always holds: whatever touches a group wakes it first; a group sleeps or is ticked, never both and never
//! neither, unless its only voter is here; a disk that takes no write stands for nobody.
//!
//! A node has one owner of partitions, so that a beat speaks for all groups that two nodes share. With several disks each
//! owner must say which groups it means, and both nodes the same ones.

use std::collections::BTreeSet;

use base::{Tick, TopicPartition};
use quorum::{GroupKey, Liveness, Message, Slept};

use super::owner::Owner;
use super::replicas::partition_of;
use crate::node::time;
use crate::shell::outbox::BEATS;
use crate::shell::peers::{GroupFrame, Lane};

/// A beat goes out every so many ticks. Three may be lost before a follower misses its leader, and a lease outlasts them.
const BEAT_TICKS: u64 = 2;

/// The groups of an owner, by what they need from time.
pub(super) struct Sleepers {
    liveness: Liveness,
    ticks: u64,
    /// To be ticked.
    pub awake: BTreeSet<TopicPartition>,
}

impl Sleepers {
    pub fn new() -> Self {
        // Names this process: what another one under the same node id led is over.
        let (instance, _) = uuid::Uuid::new_v4().as_u64_pair();
        Self { liveness: Liveness::new(instance), ticks: 0, awake: BTreeSet::new() }
    }

    pub fn is_asleep(&self, id: TopicPartition) -> bool {
        self.liveness.is_asleep(log::group_key(id))
    }

    /// True if the group sleeps and the message tells it nothing.
    pub fn passes_over(&self, group: GroupKey, message: &Message) -> bool {
        self.liveness.passes_over(group, message)
    }

    /// The partition is here no more.
    pub fn forget(&mut self, id: TopicPartition) {
        self.awake.remove(&id);
        drop(self.liveness.wake(log::group_key(id)));
    }
}

impl Owner {
    /// To be called before anything is done with a partition's group.
    pub(super) fn awaken(&mut self, id: TopicPartition) {
        if let Some(slept) = self.sleepers.liveness.wake(log::group_key(id)) {
            self.rouse(id, &slept);
        }
    }

    /// A tick has passed: who has been asleep without a sign wakes, and who has nothing to do falls asleep.
    pub(super) fn tick_sleepers(&mut self, now: Tick) {
        for (group, slept) in self.sleepers.liveness.check(now) {
            self.rouse(partition_of(group), &slept);
        }
        let Sleepers { liveness, awake, .. } = &mut self.sleepers;
        awake.retain(|id| {
            let Some(slot) = self.partitions.get(id).filter(|slot| !slot.is_sole(self.config.node)) else {
                return false;
            };
            let Some(quiet) = slot.partition.may_sleep() else { return true };
            let members = slot.partition.members();
            let others: Vec<_> = members.all().into_iter().filter(|node| *node != self.config.node).collect();
            let sleeps = liveness.sleep(now, log::group_key(*id), quiet, &members.voters, &others);
            if sleeps {
                slot.partition.rest();
            }
            !sleeps
        });
    }

    /// Speaks for all that sleep here.
    pub(super) fn beat(&mut self, now: Tick) {
        self.sleepers.ticks += 1;
        if !self.sleepers.ticks.is_multiple_of(BEAT_TICKS) {
            return;
        }
        for (node, beat) in self.sleepers.liveness.beat(now) {
            // One that is lost is made up for by the next.
            let _is_sent = self.outbox.send(node, Lane::Control, BEATS, beat);
        }
    }

    /// Another node speaks for what sleeps there, or answers.
    pub(super) fn hear_beat(&mut self, frame: GroupFrame) {
        let (from, now, partitions) = (frame.from, time::now(), &self.partitions);
        let Sleepers { liveness, awake, .. } = &mut self.sleepers;
        let received = liveness.receive(now, from, frame.message, &mut |group, quiet| {
            let id = partition_of(group);
            let Some(slot) = partitions.get(&id) else { return false };
            let follows = slot.partition.may_follow(from, quiet) && awake.remove(&id);
            if follows {
                slot.partition.rest();
            }
            follows
        });
        match received {
            Ok(received) => {
                for (group, slept) in &received.woken {
                    self.rouse(partition_of(*group), slept);
                }
                if let Some(answer) = received.answer {
                    let _is_sent = self.outbox.send(from, Lane::Control, BEATS, answer);
                }
            }
            Err(error) => tracing::warn!(%from, %error, "log: a beat was dropped"),
        }
    }

    /// Lets a sleeping leader know what its followers answered, without waking it: for its lease.
    pub(super) fn credit(&mut self, id: TopicPartition) {
        if let Some(slept) = self.sleepers.liveness.slept(log::group_key(id))
            && let Some(slot) = self.partitions.get_mut(&id)
        {
            slot.partition.credit(time::now(), &slept.answered);
        }
    }

    /// This disk takes no write any more: nothing here follows or leads, and the others find out by silence.
    pub(super) fn fall_silent(&mut self) {
        self.sleepers = Sleepers::new();
    }

    fn rouse(&mut self, id: TopicPartition, slept: &Slept) {
        let Some(slot) = self.partitions.get_mut(&id) else { return };
        slot.partition.wake(time::now(), slept);
        self.sleepers.awake.insert(id);
        self.touch(id);
    }
}
