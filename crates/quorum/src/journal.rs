//! The log, snapshot and hard state of one group, in one file at a time.
//!
//! The file is drawn in docs/formats/control-journal.md. It starts with the members and the snapshot and goes
//! on with hard states and entries as they come; a new snapshot starts a new file. Everything above the
//! snapshot is kept in memory, so reads never touch the disk: meant for a group whose state is small and
//! whose owner takes snapshots, as group 0 does.
//!
//! What always holds: after [`Journal::sync`] returned, everything appended before it is there again at the
//! next [`Journal::open`]; what was appended and not synced is there up to some point and not beyond it.

use std::collections::VecDeque;
use std::sync::Arc;

use base::disk::Disk;
use base::{LogIndex, NodeId, Term};
use bytes::Bytes;

use crate::frames::{self, Frame, FrameFile, Frames, Kind, SyncDone, SyncJob, read_u32, read_u64};
use crate::{Entry, HardState, Initial, JournalError, Members, Payload, Snapshot, Storage, StorageError};

const KIND: Kind = Kind { magic: *b"SWjournl", suffix: ".journal" };
const ENTRY: u8 = 1;
const HARD_STATE: u8 = 2;
const MEMBERS: u8 = 3;
const SNAPSHOT: u8 = 4;
const SNAPSHOT_PART: u8 = 5;
const OUTGOING: u8 = 6;
const ENTRY_HEADER_BYTES: usize = 17;
const SNAPSHOT_PART_BYTES: usize = 16 << 20;
/// See the module.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    dir: String,
    file: FrameFile,
    number: u64,
    /// Index 0 and no data if none was taken.
    snapshot: Snapshot,
    hard_state: HardState,
    entries: VecDeque<Entry>,
}

/// What opening found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// True if there was nothing: the journal was created.
    pub created: bool,
    /// What the state machine starts from; entries above it come back as committed.
    pub snapshot: Option<Snapshot>,
    /// Entries above the snapshot.
    pub entries: usize,
    /// Bytes of a write that had not been synced, cut off.
    pub truncated_bytes: u64,
}

impl Journal {
    /// Most data one entry may carry.
    pub const ENTRY_BYTES_MAX: usize = frames::PAYLOAD_BYTES_MAX - ENTRY_HEADER_BYTES;

    /// Opens the journal in `dir`, creating it with `voters` if there is none. Of an existing one the voters
    /// are in the file.
    pub fn open(disk: Arc<dyn Disk>, dir: &str, voters: &[NodeId]) -> Result<(Self, Recovered), JournalError> {
        disk.create_dir_all(dir)?;
        let numbers = frames::numbers(&*disk, dir, KIND)?;
        let Some((newest, older)) = numbers.split_last() else { return Self::create(disk, dir, voters) };
        let found = frames::find(&*disk, dir, *newest, KIND)?;
        let content = Content::read(&found)?;
        let truncated_bytes = found.torn_bytes;
        let file = found.resume()?;
        // The newest name may not be durable yet; the older files may go only when it is.
        disk.sync_dir(dir)?;
        for number in older {
            frames::remove(&*disk, &frames::path(dir, *number, KIND))?;
        }
        let Content { snapshot, hard_state, entries } = content;
        let recovered = Recovered {
            created: false,
            snapshot: (snapshot.index > LogIndex::ZERO).then(|| snapshot.clone()),
            entries: entries.len(),
            truncated_bytes,
        };
        let dir = dir.to_owned();
        Ok((Self { disk, dir, file, number: *newest, snapshot, hard_state, entries }, recovered))
    }

    /// Puts a journal in `dir` that begins with `snapshot`, of which everything is committed, in place of what is there: the
    /// group is not what it was from then on. One rename does it; until then the next open finds the old one, which is
    /// removed only by the open after it. What the old one promised to other members is forgotten: they must not be
    /// spoken to any more.
    ///
    /// # Errors
    /// As of the disk. It may have been done all the same: look by opening it.
    ///
    /// # Panics
    /// If the snapshot is that of no entry.
    pub fn replace(disk: &dyn Disk, dir: &str, snapshot: &Snapshot) -> Result<(), JournalError> {
        assert!(snapshot.index > LogIndex::ZERO, "a group that begins with a snapshot of nothing");
        disk.create_dir_all(dir)?;
        let number = frames::numbers(disk, dir, KIND)?.last().copied().unwrap_or(0) + 1;
        let hard_state = HardState { term: snapshot.term, vote: None, commit: snapshot.index };
        let frames = file_content(snapshot, &hard_state, std::iter::empty())?;
        FrameFile::install(disk, dir, KIND, (number, snapshot.index.0), frames).map(drop)
    }

    /// Appends entries, then a hard state, in one write. An entry at or below the last one replaces it and
    /// everything above. Durable after [`Journal::sync`].
    pub fn append(&mut self, entries: &[Entry], hard_state: Option<&HardState>) -> Result<(), JournalError> {
        let mut frames = Frames::default();
        let mut last = self.last_index();
        for entry in entries {
            let fits = entry.index > self.snapshot.index && entry.index <= last.next();
            assert!(fits, "entry {} after {last}, above the snapshot at {}", entry.index, self.snapshot.index);
            push_entry(&mut frames, entry)?;
            last = entry.index;
        }
        if let Some(state) = hard_state {
            push_hard_state(&mut frames, state)?;
        }
        self.file.append(&mut frames)?;
        for entry in entries {
            put(&mut self.entries, self.snapshot.index, entry.clone());
        }
        self.hard_state = hard_state.copied().unwrap_or(self.hard_state);
        Ok(())
    }

    /// Makes everything appended durable.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.file.sync()
    }

    /// As `sync`, to be run on another thread while the journal goes on; `None` if everything is durable. One at a
    /// time: the next one after [`Journal::synced`].
    pub fn sync_job(&mut self) -> Result<Option<SyncJob>, JournalError> {
        self.file.sync_job()
    }

    /// What was appended before the job was taken is durable, unless this says otherwise.
    pub fn synced(&mut self, done: SyncDone) -> Result<(), JournalError> {
        self.file.synced(done)
    }

    /// Replaces the entries up to `index` by the state after them. Everything appended becomes durable with
    /// it. The members of that moment follow from the entries. After
    /// [`DiskError::Full`](base::disk::DiskError::Full) the journal goes on without the snapshot.
    pub fn save_snapshot(&mut self, index: LogIndex, term: Term, data: Bytes) -> Result<(), JournalError> {
        let members = self.members_at(index);
        self.install(Snapshot { index, term, members, data })
    }

    /// As `save_snapshot`, with the members it names: for a snapshot that a leader sent.
    pub fn install(&mut self, snapshot: Snapshot) -> Result<(), JournalError> {
        if snapshot.index <= self.snapshot.index {
            return Ok(());
        }
        // A log that does not contain the snapshot's entry is another history: none of it stays.
        let kept = match self.term_of(snapshot.index) {
            Ok(term) if term == snapshot.term => self.position(snapshot.index.next()).unwrap_or(self.entries.len()),
            _ => self.entries.len(),
        };
        let mut hard_state = self.hard_state;
        hard_state.commit = hard_state.commit.max(snapshot.index);
        let kept_entries = self.entries.iter().skip(kept);
        let number = self.number + 1;
        let frames = file_content(&snapshot, &hard_state, kept_entries)?;
        match FrameFile::install(&*self.disk, &self.dir, KIND, (number, snapshot.index.0), frames) {
            Ok(file) => self.file = file,
            Err(error) => {
                self.file.stop_unless_full(&error);
                return Err(error);
            }
        }
        let old = frames::path(&self.dir, self.number, KIND);
        (self.number, self.snapshot, self.hard_state) = (number, snapshot, hard_state);
        self.entries.drain(..kept);
        // The new file rules; if the old one cannot be removed now, the next open does it.
        let _best_effort = frames::remove(&*self.disk, &old);
        Ok(())
    }

    /// Index of the snapshot; 0 if there is none.
    #[must_use]
    pub fn snapshot_index(&self) -> LogIndex {
        self.snapshot.index
    }

    /// Entries above the snapshot.
    #[must_use]
    pub fn entries_above_snapshot(&self) -> usize {
        self.entries.len()
    }

    /// Size of the file.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.file.len_bytes()
    }

    fn create(disk: Arc<dyn Disk>, dir: &str, voters: &[NodeId]) -> Result<(Self, Recovered), JournalError> {
        let number = 1;
        let snapshot = Snapshot {
            index: LogIndex::ZERO,
            term: Term::ZERO,
            members: Members::new(voters, &[]),
            data: Bytes::new(),
        };
        let hard_state = HardState::default();
        let frames = file_content(&snapshot, &hard_state, std::iter::empty())?;
        let file = FrameFile::install(&*disk, dir, KIND, (number, 0), frames)?;
        let (dir, entries) = (dir.to_owned(), VecDeque::new());
        let recovered = Recovered { created: true, snapshot: None, entries: 0, truncated_bytes: 0 };
        Ok((Self { disk, dir, file, number, snapshot, hard_state, entries }, recovered))
    }

    /// The members after the entry `index`.
    fn members_at(&self, index: LogIndex) -> Members {
        let entries = self.entries.iter().take_while(|entry| entry.index <= index);
        entries.fold(self.snapshot.members.clone(), |members, entry| match &entry.payload {
            // An entry that makes no sense changes nothing, on every node alike.
            Payload::Membership(payload) => members.after(payload).unwrap_or(members),
            Payload::Empty | Payload::Data(_) => members,
        })
    }

    fn position(&self, index: LogIndex) -> Option<usize> {
        let position = usize::try_from(index.0.checked_sub(self.snapshot.index.0 + 1)?).ok()?;
        (position < self.entries.len()).then_some(position)
    }
}

impl Storage for Journal {
    fn initial(&self) -> Initial {
        Initial { hard_state: self.hard_state, members: self.snapshot.members.clone(), applied: self.snapshot.index }
    }

    fn first_index(&self) -> LogIndex {
        self.snapshot.index.next()
    }

    fn last_index(&self) -> LogIndex {
        self.snapshot.index.plus(self.entries.len() as u64)
    }

    fn term_of(&self, index: LogIndex) -> Result<Term, StorageError> {
        if index == self.snapshot.index {
            return Ok(self.snapshot.term);
        }
        if index < self.snapshot.index {
            return Err(StorageError::Compacted);
        }
        self.position(index).map(|position| self.entries[position].term).ok_or(StorageError::Unavailable)
    }

    fn entries(&self, from: LogIndex, to: LogIndex, bytes_max: u64) -> Result<Vec<Entry>, StorageError> {
        if from <= self.snapshot.index {
            return Err(StorageError::Compacted);
        }
        let start = self.position(from).ok_or(StorageError::Unavailable)?;
        let wanted = usize::try_from(to.0.saturating_sub(from.0)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self.entries.range(start..).take(wanted) {
            bytes += entry.payload.bytes().len() as u64;
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn snapshot(&self) -> Result<Snapshot, StorageError> {
        if self.snapshot.index == LogIndex::ZERO {
            return Err(StorageError::Unavailable);
        }
        Ok(self.snapshot.clone())
    }
}

/// What a file says, put together.
struct Content {
    snapshot: Snapshot,
    hard_state: HardState,
    entries: VecDeque<Entry>,
}

impl Content {
    fn read(found: &frames::Found) -> Result<Self, JournalError> {
        let mut members = None;
        let mut outgoing = Members::default();
        let mut snapshot_at = None;
        let mut data = Vec::new();
        let mut hard_state = HardState::default();
        let mut entries = VecDeque::new();
        let base = LogIndex(found.base);
        for frame in found.frames() {
            let read = match frame.kind {
                ENTRY => read_entry(&frame).filter(|entry| put(&mut entries, base, entry.clone())).map(|_| ()),
                HARD_STATE => read_hard_state(frame.payload).map(|state| hard_state = state),
                MEMBERS => read_members(frame.payload).map(|nodes| members = Some(nodes)),
                OUTGOING => read_members(frame.payload).map(|nodes| outgoing = nodes),
                SNAPSHOT => read_snapshot_header(frame.payload).map(|header| snapshot_at = Some(header)),
                SNAPSHOT_PART => {
                    data.extend_from_slice(frame.payload);
                    Some(())
                }
                _ => None,
            };
            if read.is_none() {
                return Err(damaged(
                    found,
                    frame.position,
                    "a frame's checksum is right but its content makes no sense",
                ));
            }
        }
        let Some(members) = members else { return Err(damaged(found, 0, "the members are missing")) };
        let members = Members { outgoing: outgoing.voters, learners_next: outgoing.learners, ..members };
        let (index, term, data_bytes) = snapshot_at.unwrap_or_default();
        if index != base || data_bytes != data.len() as u64 {
            return Err(damaged(found, 0, "the snapshot is not the one the header names"));
        }
        let last = base.plus(entries.len() as u64);
        if hard_state.commit > last {
            return Err(damaged(found, 0, "more entries were committed than there are"));
        }
        // A torn write may have kept an entry and lost the commit index after it: see `Initial`.
        let mut changes = entries.iter().rev().filter(|entry: &&Entry| matches!(entry.payload, Payload::Membership(_)));
        let surely = changes.nth(1).map_or(base, |entry| entry.index);
        hard_state.commit = hard_state.commit.max(surely);
        let snapshot = Snapshot { index, term, members, data: data.into() };
        Ok(Self { snapshot, hard_state, entries })
    }
}

/// Puts an entry at its place, dropping what it replaces; false if it has no place.
fn put(entries: &mut VecDeque<Entry>, base: LogIndex, entry: Entry) -> bool {
    let Some(position) = entry.index.0.checked_sub(base.0 + 1).and_then(|at| usize::try_from(at).ok()) else {
        return false;
    };
    if position > entries.len() {
        return false;
    }
    entries.truncate(position);
    entries.push_back(entry);
    true
}

fn damaged(found: &frames::Found, position: u64, what: &str) -> JournalError {
    JournalError::Damaged { path: found.path.clone(), position, what: what.to_owned() }
}

fn file_content<'a>(
    snapshot: &Snapshot,
    hard_state: &HardState,
    entries: impl Iterator<Item = &'a Entry>,
) -> Result<Frames, JournalError> {
    let mut frames = Frames::default();
    push_members(&mut frames, MEMBERS, &snapshot.members.voters, &snapshot.members.learners)?;
    if snapshot.members.is_joint() {
        push_members(&mut frames, OUTGOING, &snapshot.members.outgoing, &snapshot.members.learners_next)?;
    }
    if snapshot.index > LogIndex::ZERO {
        let len = snapshot.data.len() as u64;
        let (index, term) = (snapshot.index.0.to_le_bytes(), snapshot.term.0.to_le_bytes());
        frames.push(SNAPSHOT, &[&index, &term, &len.to_le_bytes()])?;
        for part in snapshot.data.chunks(SNAPSHOT_PART_BYTES) {
            frames.push(SNAPSHOT_PART, &[part])?;
        }
    }
    for entry in entries {
        push_entry(&mut frames, entry)?;
    }
    push_hard_state(&mut frames, hard_state)?;
    Ok(frames)
}

fn push_entry(frames: &mut Frames, entry: &Entry) -> Result<(), JournalError> {
    let kind = match &entry.payload {
        Payload::Empty => 0,
        Payload::Data(_) => 1,
        Payload::Membership(_) => 2,
    };
    let (term, index) = (entry.term.0.to_le_bytes(), entry.index.0.to_le_bytes());
    frames.push(ENTRY, &[&term, &index, &[kind], entry.payload.bytes()])
}

fn read_entry(frame: &Frame<'_>) -> Option<Entry> {
    let data = Bytes::copy_from_slice(frame.payload.get(ENTRY_HEADER_BYTES..)?);
    let payload = match (frame.payload[16], data.is_empty()) {
        (0, true) => Payload::Empty,
        (1, false) => Payload::Data(data),
        (2, _) => Payload::Membership(data),
        _ => return None,
    };
    let (term, index) = (Term(read_u64(frame.payload, 0)), LogIndex(read_u64(frame.payload, 8)));
    Some(Entry { term, index, payload })
}

fn push_hard_state(frames: &mut Frames, state: &HardState) -> Result<(), JournalError> {
    frames.push(HARD_STATE, &[&encode_hard_state(state)])
}

/// Twenty bytes: term, commit, vote (0 for none).
pub(crate) fn encode_hard_state(state: &HardState) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&state.term.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&state.commit.0.to_le_bytes());
    bytes[16..].copy_from_slice(&state.vote.map_or(0, |node| node.0).to_le_bytes());
    bytes
}

pub(crate) fn read_hard_state(bytes: &[u8]) -> Option<HardState> {
    (bytes.len() == 20).then(|| HardState {
        term: Term(read_u64(bytes, 0)),
        commit: LogIndex(read_u64(bytes, 8)),
        vote: Some(NodeId(read_u32(bytes, 16))).filter(|node| node.0 != 0),
    })
}

fn push_members(frames: &mut Frames, kind: u8, voters: &[NodeId], learners: &[NodeId]) -> Result<(), JournalError> {
    let count = u32::try_from(voters.len()).unwrap_or(u32::MAX);
    let ids: Vec<u8> = voters.iter().chain(learners).flat_map(|node| node.0.to_le_bytes()).collect();
    frames.push(kind, &[&count.to_le_bytes(), &ids])
}

fn read_members(payload: &[u8]) -> Option<Members> {
    let ids = payload.get(4..).filter(|ids| ids.len().is_multiple_of(4))?;
    let mut voters: Vec<NodeId> = ids.chunks_exact(4).map(|id| NodeId(read_u32(id, 0))).collect();
    let count = usize::try_from(read_u32(payload, 0)).ok().filter(|count| *count <= voters.len())?;
    let learners = voters.split_off(count);
    Some(Members::new(&voters, &learners))
}

fn read_snapshot_header(payload: &[u8]) -> Option<(LogIndex, Term, u64)> {
    (payload.len() == 24).then(|| (LogIndex(read_u64(payload, 0)), Term(read_u64(payload, 8)), read_u64(payload, 16)))
}

#[cfg(test)]
mod tests;
