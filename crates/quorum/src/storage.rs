//! The caller's log as `raft` reads it.

use std::cell::OnceCell;
use std::collections::VecDeque;

use base::{LogIndex, NodeId, Term};
use bytes::Bytes;
use raft::eraftpb::{self, EntryType};
use raft::{GetEntriesContext, RaftState};

use crate::message::node;
use crate::{Entry, HardState, Members, Payload, Snapshot, StorageError};

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
}

impl<S: Storage> Adapter<S> {
    pub(crate) fn new(storage: S) -> Self {
        Self { storage, recent: VecDeque::new(), fault: OnceCell::new() }
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
            let mut bytes = 0_u64;
            let fits = |entry: &&eraftpb::Entry| {
                let first = bytes == 0;
                bytes = bytes.saturating_add(entry.data.len() as u64 + 1);
                first || bytes <= bytes_max
            };
            return Ok(self.recent.range(start..).take(wanted).take_while(fits).cloned().collect());
        }
        let high = self.recent.front().map_or(high, |entry| high.min(entry.index));
        let entries = self.storage.entries(LogIndex(low), LogIndex(high), bytes_max)?;
        let gapless = entries.iter().zip(low..high).all(|(entry, index)| entry.index.0 == index);
        if entries.is_empty() || !gapless || entries.len() as u64 > high - low {
            return Err(StorageError::Corrupt(format!("entries {low}..{high} asked for, others given")));
        }
        Ok(entries.into_iter().map(to_raft_entry).collect())
    }

    fn failed(&self, error: StorageError) {
        let _first_counts = self.fault.set(error);
    }
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
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        match self.read(low, high, max_size.into().unwrap_or(u64::MAX)) {
            Ok(entries) => Ok(entries),
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
