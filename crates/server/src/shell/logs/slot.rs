//! One open partition and everyone who waits on it.

use std::collections::{BTreeMap, VecDeque};

use base::{NodeId, Offset, ProducerId, Tick, Timestamp, TopicPartition};
use log::{AppendError, Appended, Marker, Partition, Role};
use tokio::sync::watch;

use super::handle::Shared;
use super::insync::{Behind, InSync};
use super::waiters::Waiters;
use super::{EAGER_CAMPAIGNS, Leadership, LogsError};

/// Producers whose last marker is remembered, of one partition; past it the older half is forgotten.
const MARKED_MAX: usize = 10_000;

pub(super) struct Slot {
    pub partition: Partition,
    pub waiters: Waiters,
    pub committed: watch::Sender<Offset>,
    pub stable: watch::Sender<Offset>,
    /// A finding says that a transaction does not end.
    pub hangs: bool,
    pub leadership: watch::Sender<Leadership>,
    /// Campaigns left to the one that is to lead a new partition.
    pub eager: u8,
    /// Something was written since the last flush job was taken.
    pub dirty: bool,
    /// It stands in `Owner::dirty`.
    listed: bool,
    /// It stands in `Owner::wanted`.
    pub wanted: bool,
    pub flushing: bool,
    /// It stands in `Owner::touched`.
    pub touched: bool,
    /// Who keeps up, while this node leads.
    pub in_sync: InSync,
    pub behind: watch::Sender<Behind>,
    /// Since when this replica is known to be damaged.
    pub damaged: Option<Tick>,
    /// The last marker of each producer in this term: its number, and what became of it.
    marked: BTreeMap<ProducerId, ((u64, u64), Appended)>,
}

impl Slot {
    pub fn new(partition: Partition, goes_first: bool) -> Self {
        let is_new = partition.term().0 == 0;
        Self {
            committed: watch::channel(partition.committed()).0,
            stable: watch::channel(partition.last_stable()).0,
            hangs: false,
            leadership: watch::channel(Leadership::default()).0,
            waiters: Waiters::default(),
            eager: if goes_first && is_new { EAGER_CAMPAIGNS } else { 0 },
            partition,
            // Opening may have written (a torn tail cut, a new term): the next flush makes it durable.
            dirty: true,
            listed: false,
            wanted: false,
            flushing: false,
            touched: false,
            in_sync: InSync::default(),
            behind: watch::channel(Behind::default()).0,
            damaged: None,
            marked: BTreeMap::new(),
        }
    }

    /// What others may know of it without asking.
    pub fn shared(&self) -> Shared {
        Shared {
            reader: self.partition.reader(),
            committed: self.committed.subscribe(),
            stable: self.stable.subscribe(),
            leadership: self.leadership.subscribe(),
            behind: self.behind.subscribe(),
        }
    }

    /// The nodes that decide, as the partition's own log has it.
    pub fn voters(&self) -> &[NodeId] {
        &self.partition.members().voters
    }

    /// Nobody else decides with this node, and nobody follows.
    pub fn is_sole(&self, node: NodeId) -> bool {
        let members = self.partition.members();
        members.voters == [node] && members.outgoing.is_empty() && members.learners.is_empty()
    }

    /// Who leads now. A sole voter leads whenever it can write.
    pub fn lead(&self, node: NodeId) -> Leadership {
        let term = self.partition.term();
        if self.partition.stopped().is_some() {
            return Leadership { leader: None, term, is_mine: false };
        }
        if self.is_sole(node) {
            return Leadership { leader: Some(node), term, is_mine: true };
        }
        let is_mine = self.partition.role() == Role::Leader;
        // A leader that cannot write leads nobody.
        let leader = self.partition.leader().filter(|leader| is_mine || *leader != node);
        Leadership { leader, term, is_mine }
    }

    /// Ends a transaction, unless this marker, or a later one of its producer, has done so already. A marker sent to a leader of
    /// another term does not get here, so what is remembered need not outlive the term.
    pub fn mark(
        &mut self,
        now: Tick,
        wall: Timestamp,
        marker: Marker,
        mark: (u64, u64),
    ) -> Result<Appended, AppendError> {
        let term = self.partition.term();
        if self.marked.values().next().is_some_and(|(_, appended)| appended.term != term) {
            self.marked.clear();
        }
        if let Some((last, appended)) = self.marked.get(&marker.producer)
            && *last >= mark
        {
            return Ok(*appended);
        }
        let appended = self.partition.append_marker(now, wall, marker)?;
        if self.marked.len() >= MARKED_MAX {
            let mut offsets: Vec<Offset> = self.marked.values().map(|(_, appended)| appended.next_offset).collect();
            let (_, middle, _) = offsets.select_nth_unstable(MARKED_MAX / 2);
            let middle = *middle;
            self.marked.retain(|_, (_, appended)| appended.next_offset >= middle);
        }
        self.marked.insert(marker.producer, (mark, appended));
        Ok(appended)
    }

    /// Why an append has to go elsewhere.
    pub fn not_leader(&self) -> LogsError {
        LogsError::Append(AppendError::NotLeader { leader: self.leadership.borrow().leader })
    }

    /// Answers acks=1 waiters if no other node can have been elected until now.
    pub fn release_leased(&mut self, now: Tick) {
        if self.waiters.wants_lease() && self.partition.lease_valid(now) {
            for (from, to) in self.waiters.release_leased() {
                self.partition.note_acked(from, to);
            }
        }
    }
}

/// Partitions that were written to, and since when the first of them waits for a flush that nobody asks for.
#[derive(Default)]
pub(super) struct Dirty {
    since: Option<Tick>,
    listed: Vec<TopicPartition>,
}

impl Dirty {
    /// Something was written to the partition, at `now` at the latest.
    pub fn note(&mut self, id: TopicPartition, slot: &mut Slot, now: Tick) {
        slot.dirty = true;
        self.since.get_or_insert(now);
        if !slot.listed {
            slot.listed = true;
            self.listed.push(id);
        }
    }

    /// How long the first has waited.
    pub fn waits_ms(&self, now: Tick) -> Option<u64> {
        self.since.map(|since| now.since(since))
    }

    /// All of them, to be flushed now.
    pub fn take(&mut self) -> Vec<TopicPartition> {
        self.since = None;
        std::mem::take(&mut self.listed)
    }
}

/// Puts a partition of [`Dirty::take`] into the queue, if no flush has taken it since.
pub(super) fn want_dirty(wanted: &mut VecDeque<TopicPartition>, id: TopicPartition, slot: &mut Slot) {
    slot.listed = false;
    if slot.dirty {
        want(wanted, id, slot);
    }
}

/// Puts a partition into the queue for the flushers, if it is not there and none of them has it.
pub(super) fn want(wanted: &mut VecDeque<TopicPartition>, id: TopicPartition, slot: &mut Slot) {
    if !slot.wanted && !slot.flushing {
        slot.wanted = true;
        wanted.push_back(id);
    }
}
