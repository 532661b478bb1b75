//! The caller's log as `raft` reads it.

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;

use base::{LogIndex, NodeId, Term};
use bytes::Bytes;
use raft::eraftpb::{self, EntryType};
use raft::{GetEntriesContext, RaftState};

use crate::message::node;
use crate::{Entry, HardState, MEMBERS_MAX, Members, Payload, Snapshot, StorageError};

/// What a group starts from. All of it must be durable: whoever recovers a log syncs it first.
///
/// The commit index may be older than it was, with one exception: if the log above `applied` holds more than
/// one membership entry, all but the last are committed (no leader proposes one before the last took effect
/// with it), and the commit index must say so. A voter that forgot it would elect with voters of the past.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Initial {
    pub hard_state: HardState,
    /// As of `applied`.
    pub members: Members,
    /// The entries up to here have taken effect and are not handed out as committed again.
    pub applied: LogIndex,
}

/// The caller's log. Reads only. What `written` announced is readable at once.
pub trait Storage {
    fn initial(&self) -> Initial;
    /// The first index that [`Storage::entries`] can give; one after the snapshot. 1 for an empty log.
    fn first_index(&self) -> LogIndex;
    /// The last index written; one below `first_index` if there is none.
    fn last_index(&self) -> LogIndex;
    /// The term of an entry from `first_index - 1` (the snapshot's; 0 at index 0) to `last_index`. Answered
    /// from memory: an error other than `Compacted` stops the group.
    fn term_of(&self, index: LogIndex) -> Result<Term, StorageError>;
    /// Entries of `[from, to)`: from `from` on, without a gap, at least one, then until their payloads
    /// pass `bytes_max`. Called for what is no longer in the group's memory: after a restart, or to bring
    /// a slow follower up to date.
    fn entries(&self, from: LogIndex, to: LogIndex, bytes_max: u64) -> Result<Vec<Entry>, StorageError>;
    /// The latest snapshot; `Unavailable` if there is none now.
    fn snapshot(&self) -> Result<Snapshot, StorageError>;
}

/// Serves `raft` from memory what was handed out and is not yet decided, and the rest from the caller's log.
pub(crate) struct Adapter<S> {
    pub(crate) storage: S,
    /// Entries handed out to be written and not yet handed out as committed, without a gap. Bounded by the
    /// group's `uncommitted_bytes_max`.
    recent: VecDeque<eraftpb::Entry>,
    /// The first fault of the caller's log. `raft` would abort on it; here the group stands still.
    fault: OnceCell<StorageError>,
    /// What followers lack is read by the caller, apart from the group.
    pub(crate) reads_apart: bool,
    /// The ranges that are to be read so, one for each place that a follower stands at.
    wanted: RefCell<Vec<(u64, u64)>>,
    /// What was read so, while it is sent.
    given: Vec<eraftpb::Entry>,
}

impl<S: Storage> Adapter<S> {
    pub(crate) fn new(storage: S) -> Self {
        Self {
            storage,
            recent: VecDeque::new(),
            fault: OnceCell::new(),
            reads_apart: false,
            wanted: RefCell::default(),
            given: Vec::new(),
        }
    }

    /// What is to be read apart, since the last call.
    pub(crate) fn take_wanted(&mut self) -> Vec<(u64, u64)> {
        self.wanted.take()
    }

    /// Entries `[low, high)` were read apart: they are at hand until [`Adapter::take_given`].
    pub(crate) fn give(&mut self, low: u64, high: u64, entries: Vec<Entry>) -> Result<(), StorageError> {
        self.given = check_given(low, high, entries)?;
        Ok(())
    }

    /// Bytes of what was read apart of `[low, high)`.
    pub(crate) fn given_between(&self, low: u64, high: u64) -> u64 {
        let given = self.given.iter().filter(|entry| (low..high).contains(&entry.index));
        given.map(|entry| entry.data.len() as u64).sum()
    }

    pub(crate) fn take_given(&mut self) -> Vec<eraftpb::Entry> {
        std::mem::take(&mut self.given)
    }

    /// For a follower that lacks what is not in memory: what was read apart, or a note that it is to be.
    fn read_apart(&self, low: u64, high: u64, bytes_max: u64) -> raft::Result<Vec<eraftpb::Entry>> {
        if low < self.storage.first_index().0 {
            return Err(raft::Error::Store(raft::StorageError::Compacted));
        }
        let at = self.given.first().and_then(|first| usize::try_from(low.checked_sub(first.index)?).ok());
        if let Some(rest) = at.and_then(|at| self.given.get(at..)).filter(|rest| !rest.is_empty()) {
            let wanted = usize::try_from(high - low).unwrap_or(usize::MAX);
            return Ok(some_of(rest.iter().take(wanted), bytes_max));
        }
        let mut wanted = self.wanted.borrow_mut();
        if let Some((_, to)) = wanted.iter_mut().find(|(from, _)| *from == low) {
            *to = high.max(*to);
        } else if wanted.len() < MEMBERS_MAX {
            // Others are asked for again when the follower is heard from.
            wanted.push((low, high));
        }
        Err(raft::Error::Store(raft::StorageError::LogTemporarilyUnavailable))
    }

    pub(crate) fn fault(&self) -> Option<&StorageError> {
        self.fault.get()
    }

    /// Keeps entries that are about to be written, replacing what they replace.
    pub(crate) fn remember(&mut self, entries: &[eraftpb::Entry]) {
        let Some(first) = entries.first() else { return };
        while self.recent.back().is_some_and(|last| last.index >= first.index) {
            self.recent.pop_back();
        }
        if self.recent.back().is_some_and(|last| last.index + 1 != first.index) {
            self.recent.clear();
        }
        self.recent.extend(entries.iter().cloned());
    }

    /// Lets go of entries up to `index`.
    pub(crate) fn forget(&mut self, index: u64) {
        while self.recent.front().is_some_and(|entry| entry.index <= index) {
            self.recent.pop_front();
        }
    }

    pub(crate) fn forget_all(&mut self) {
        self.recent.clear();
    }

    fn recent_at(&self, index: u64) -> Option<usize> {
        let first = self.recent.front()?.index;
        let position = usize::try_from(index.checked_sub(first)?).ok()?;
        (position < self.recent.len()).then_some(position)
    }

    fn read(&self, low: u64, high: u64, bytes_max: u64) -> Result<Vec<eraftpb::Entry>, StorageError> {
        if let Some(start) = self.recent_at(low) {
            let wanted = usize::try_from(high - low).unwrap_or(usize::MAX);
            return Ok(some_of(self.recent.range(start..).take(wanted), bytes_max));
        }
        let high = self.recent.front().map_or(high, |entry| high.min(entry.index));
        check_given(low, high, self.storage.entries(LogIndex(low), LogIndex(high), bytes_max)?)
    }

    pub(crate) fn failed(&self, error: StorageError) {
        let _first_counts = self.fault.set(error);
    }
}

/// The first entries, as many as `bytes_max` allows; at least one.
fn some_of<'a>(entries: impl Iterator<Item = &'a eraftpb::Entry>, bytes_max: u64) -> Vec<eraftpb::Entry> {
    let mut bytes = 0_u64;
    let fits = |entry: &&eraftpb::Entry| {
        let first = bytes == 0;
        bytes = bytes.saturating_add(entry.data.len() as u64 + 1);
        first || bytes <= bytes_max
    };
    entries.take_while(fits).cloned().collect()
}

/// Refuses what was not asked for: the log is not what it must be.
fn check_given(low: u64, high: u64, entries: Vec<Entry>) -> Result<Vec<eraftpb::Entry>, StorageError> {
    let gapless = entries.iter().zip(low..high).all(|(entry, index)| entry.index.0 == index);
    if entries.is_empty() || !gapless || entries.len() as u64 > high - low {
        return Err(StorageError::Corrupt(format!("entries {low}..{high} asked for, others given")));
    }
    Ok(entries.into_iter().map(to_raft_entry).collect())
}

impl<S: Storage> raft::Storage for Adapter<S> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let Initial { hard_state, members, .. } = self.storage.initial();
        Ok(RaftState { hard_state: to_raft_hard_state(&hard_state), conf_state: to_conf_state(&members) })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        if self.reads_apart && context.can_async() && self.recent_at(low).is_none() {
            return self.read_apart(low, high, bytes_max);
        }
        match self.read(low, high, bytes_max) {
            Ok(entries) => Ok(entries),
            // The follower's next heartbeat answer asks for them again.
            Err(StorageError::Mending(_)) if context.can_async() => {
                Err(raft::Error::Store(raft::StorageError::LogTemporarilyUnavailable))
            }
            Err(StorageError::Compacted) => Err(raft::Error::Store(raft::StorageError::Compacted)),
            Err(error) => {
                self.failed(error);
                Ok(Vec::new())
            }
        }
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == 0 {
            return Ok(0);
        }
        if let Some(position) = self.recent_at(index) {
            return Ok(self.recent[position].term);
        }
        self.storage.term_of(LogIndex(index)).map(|term| term.0).map_err(|error| match error {
            StorageError::Compacted => raft::Error::Store(raft::StorageError::Compacted),
            error => {
                self.failed(error);
                raft::Error::Store(raft::StorageError::Unavailable)
            }
        })
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.storage.first_index().0)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.storage.last_index().0)
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<eraftpb::Snapshot> {
        match self.storage.snapshot() {
            Ok(snapshot) if snapshot.index.0 >= request_index && snapshot.index > LogIndex::ZERO => {
                Ok(to_raft_snapshot(&snapshot))
            }
            _ => Err(raft::Error::Store(raft::StorageError::SnapshotTemporarilyUnavailable)),
        }
    }
}

pub(crate) fn to_raft_entry(entry: Entry) -> eraftpb::Entry {
    let mut raft_entry = eraftpb::Entry { term: entry.term.0, index: entry.index.0, ..eraftpb::Entry::default() };
    match entry.payload {
        Payload::Empty => {}
        Payload::Data(data) => raft_entry.data = data,
        Payload::Membership(data) => {
            raft_entry.set_entry_type(EntryType::EntryConfChangeV2);
            raft_entry.data = data;
        }
    }
    raft_entry
}

pub(crate) fn from_raft_entry(entry: &eraftpb::Entry) -> Entry {
    let data: Bytes = entry.data.clone();
    let payload = match entry.get_entry_type() {
        EntryType::EntryNormal if data.is_empty() => Payload::Empty,
        EntryType::EntryNormal => Payload::Data(data),
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => Payload::Membership(data),
    };
    Entry { term: Term(entry.term), index: LogIndex(entry.index), payload }
}

fn to_raft_hard_state(state: &HardState) -> eraftpb::HardState {
    eraftpb::HardState {
        term: state.term.0,
        vote: state.vote.map_or(0, |node| u64::from(node.0)),
        commit: state.commit.0,
        ..eraftpb::HardState::default()
    }
}

pub(crate) fn from_raft_hard_state(state: &eraftpb::HardState) -> HardState {
    HardState {
        term: Term(state.term),
        vote: (state.vote != 0).then(|| node(state.vote)),
        commit: LogIndex(state.commit),
    }
}

pub(crate) fn to_conf_state(members: &Members) -> eraftpb::ConfState {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| u64::from(node.0)).collect::<Vec<_>>();
    let mut state = eraftpb::ConfState::from((ids(&members.voters), ids(&members.learners)));
    state.voters_outgoing = ids(&members.outgoing);
    state.learners_next = ids(&members.learners_next);
    state
}

pub(crate) fn from_conf_state(state: &eraftpb::ConfState) -> Members {
    let nodes = |ids: &[u64]| {
        let mut nodes: Vec<_> = ids.iter().map(|id| node(*id)).collect();
        nodes.sort_unstable();
        nodes
    };
    Members {
        voters: nodes(&state.voters),
        outgoing: nodes(&state.voters_outgoing),
        learners: nodes(&state.learners),
        learners_next: nodes(&state.learners_next),
    }
}

fn to_raft_snapshot(snapshot: &Snapshot) -> eraftpb::Snapshot {
    let mut raft_snapshot = eraftpb::Snapshot { data: snapshot.data.clone(), ..eraftpb::Snapshot::default() };
    let metadata = raft_snapshot.mut_metadata();
    metadata.index = snapshot.index.0;
    metadata.term = snapshot.term.0;
    metadata.set_conf_state(to_conf_state(&snapshot.members));
    raft_snapshot
}

pub(crate) fn from_raft_snapshot(snapshot: &eraftpb::Snapshot) -> Snapshot {
    let metadata = snapshot.get_metadata();
    Snapshot {
        index: LogIndex(metadata.index),
        term: Term(metadata.term),
        members: from_conf_state(metadata.get_conf_state()),
        data: snapshot.data.clone(),
    }
}
