//! The log of a partition as its Raft group sees it: the files, and what is known of where they end.
//!
//! What always holds: files join without a gap; one term per file; only the last file may grow, and only
//! while `active`. On the leader the bytes of an entry are written before it is proposed, so that a full disk
//! refuses the append; a follower writes what its group hands out, and waits for room with it.

use std::collections::VecDeque;
use std::sync::Arc;

use base::disk::{Disk, DiskError};
use base::{LogIndex, Offset, Term, Tick, Timestamp};
use quorum::{Entry, HardState, Initial, Snapshot, Storage, StorageError};

use crate::PartitionConfig;
use crate::cut::StartPlace;
use crate::file::{FileName, LogFile};
use crate::frame::{Frame, Note, NoteKind, Place};
use crate::limits::{CATCH_UP_BYTES, CHECKPOINT_BYTES_MIN, UNINDEXED_FILES_MAX};
use crate::producers::SnapshotPlace;
use crate::reader::Shared;
use crate::reading::{Unread, read_entries};
use crate::recovery::read_snapshot;
use crate::roster::Roster;
use crate::stable::Aborted;

/// See the module.
pub(crate) struct LogStorage {
    pub disk: Arc<dyn Disk>,
    pub dir: Arc<str>,
    pub shared: Arc<Shared>,
    pub roster: Roster,
    /// Oldest first.
    pub files: VecDeque<Arc<LogFile>>,
    /// The last file takes appends.
    pub active: bool,
    pub active_since: Tick,
    /// Where the next entry belongs.
    pub end: Place,
    pub last_term: Term,
    /// Where the last entry ends that is written here and known to be committed.
    pub commit: Place,
    /// Where the last entry ends that has taken effect: it is durable here too.
    pub applied: Place,
    /// Records below are deleted. A replica that is catching up may be below it: readers see it when it is not.
    pub start: Offset,
    /// Snapshots of producers, oldest first.
    pub snapshots: Vec<SnapshotPlace>,
    /// The last entry that was removed with its file.
    pub trimmed: (LogIndex, Term),
    /// Term and vote; the commit index is `commit`'s.
    pub hard_state: HardState,
    /// Files with bytes no flush job has taken yet.
    pub dirty: Vec<Arc<LogFile>>,
    pub dirty_bytes: u64,
    /// Names no flush job has taken yet.
    pub new_names: bool,
    /// Files whose `.idx` is missing or behind.
    pub unindexed: Vec<Arc<LogFile>>,
    /// The next flush is to save indexes and producers: a large file was closed, or many small ones were.
    pub checkpoint_due: bool,
}

/// Why bytes were not written. Nothing of them is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum WriteFault {
    Full,
    /// Something else has to go first.
    Wait,
    /// The file's content is unknown.
    Broken(String),
}

/// Bytes written and not yet counted.
pub(crate) struct Written {
    pub size_bytes: usize,
    pub next: Place,
    /// `None` for a note.
    pub max_timestamp: Option<Timestamp>,
}

/// When.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    pub tick: Tick,
    pub wall: Timestamp,
}

impl LogStorage {
    /// Writes a frame at the end; it counts only after `count`. `span` is how many offsets it takes.
    pub fn write(
        &mut self,
        bytes: &[u8],
        term: Term,
        span: i64,
        now: Now,
        config: &PartitionConfig,
    ) -> Result<(), WriteFault> {
        let file = self.writable(bytes.len(), term, span, now, config)?;
        let len = file.len_bytes();
        let handle = file.handle().map_err(broken)?;
        match handle.append(&[bytes]) {
            Ok(position) if position == len => Ok(()),
            Ok(position) => {
                Err(WriteFault::Broken(format!("{}: grew to {position} bytes behind our back, not {len}", file.path())))
            }
            Err(error) => {
                handle.truncate(len).map_err(broken)?;
                Err(fault(error))
            }
        }
    }

    /// Takes back what `write` wrote, durably: a power loss must not bring it back in the place of an entry that is
    /// written there next, under the same term, and that other replicas have.
    pub fn take_back(&mut self) -> Result<(), WriteFault> {
        let Some(file) = self.files.back() else { return Ok(()) };
        let handle = file.handle().map_err(broken)?;
        handle.truncate(file.len_bytes()).and_then(|()| handle.sync()).map_err(broken)
    }

    /// What `write` wrote is an entry now.
    pub fn count(&mut self, written: &Written, term: Term, now: Now, config: &PartitionConfig) {
        let Some(file) = self.files.back() else { return };
        if file.len_bytes() == 0 {
            self.active_since = now.tick;
        }
        file.grew(written.size_bytes, written.next, written.max_timestamp, now.wall, config.index_step_bytes);
        self.dirty_bytes += written.size_bytes as u64;
        if !self.dirty.last().is_some_and(|last| Arc::ptr_eq(last, file)) {
            self.dirty.push(Arc::clone(file));
        }
        self.end = written.next;
        self.last_term = term;
        self.shared.set_end(written.next.offset);
    }

    /// Writes an entry without records.
    pub fn write_note(
        &mut self,
        kind: NoteKind,
        payload: &[u8],
        term: Term,
        now: Now,
        config: &PartitionConfig,
    ) -> Result<(), WriteFault> {
        let bytes = Note::encode(kind, self.end, term, payload);
        self.write(&bytes, term, 0, now, config)?;
        let next = Place { offset: self.end.offset, index: self.end.index.next() };
        self.count(&Written { size_bytes: bytes.len(), next, max_timestamp: None }, term, now, config);
        Ok(())
    }

    /// Writes a frame that a leader gave; `next` is where the one after it belongs.
    pub fn write_frame(
        &mut self,
        frame: &Frame,
        bytes: &[u8],
        next: Place,
        term: Term,
        now: Now,
        config: &PartitionConfig,
    ) -> Result<(), WriteFault> {
        self.write(bytes, term, next.offset.0 - self.end.offset.0, now, config)?;
        let max_timestamp = match frame {
            Frame::Batch(header) => Some(header.max_timestamp),
            Frame::Note(_) => None,
        };
        self.count(&Written { size_bytes: bytes.len(), next, max_timestamp }, term, now, config);
        Ok(())
    }

    /// The last file, if it may take `bytes` more of `term`; else a new one.
    fn writable(
        &mut self,
        bytes: usize,
        term: Term,
        span: i64,
        now: Now,
        config: &PartitionConfig,
    ) -> Result<Arc<LogFile>, WriteFault> {
        if let Some(last) = self.files.back().filter(|_| self.active) {
            let fits = last.len_bytes() + bytes as u64 <= config.file_bytes_bound();
            let has_numbers = !last.is_out_of_numbers(span) && !last.is_full_of_aborted();
            let room = last.len_bytes() == 0 || (fits && has_numbers);
            if last.name.term == term && room {
                return Ok(Arc::clone(last));
            }
        }
        let name = FileName { base_offset: self.end.offset, base_index: self.end.index, term };
        let created = LogFile::created(Arc::clone(&self.disk), Arc::clone(&self.dir), name, now.wall);
        let file = Arc::new(created.map_err(fault)?);
        self.end_file(term);
        self.files.push_back(Arc::clone(&file));
        self.unindexed.push(Arc::clone(&file));
        self.active = true;
        self.active_since = now.tick;
        self.new_names = true;
        self.publish_files();
        Ok(file)
    }

    /// The last file is followed by one of `term`. Of a little one that another leader ended the checkpoint waits.
    fn end_file(&mut self, term: Term) {
        let waits = |last: &Arc<LogFile>| last.name.term != term && last.len_bytes() < CHECKPOINT_BYTES_MIN;
        if self.unindexed.len() < UNINDEXED_FILES_MAX && self.files.back().is_some_and(waits) {
            self.active = false;
        } else {
            self.close_active();
        }
    }

    /// No more appends to the last file: the next one starts a new file.
    pub fn close_active(&mut self) {
        if std::mem::replace(&mut self.active, false) {
            self.checkpoint_due = true;
        }
    }

    /// How many of the oldest files may be removed if all below `offset` may: none that the producers are still to
    /// be read from.
    pub fn removable(&self, offset: Offset) -> usize {
        let saved = self.decided_snapshot().map_or(LogIndex::ZERO, |place| place.last_index.next());
        self.files.iter().take(self.below(offset)).take_while(|file| file.next_index() <= saved).count()
    }

    /// How many of the oldest files are closed and hold only entries below `offset` that have taken effect, which a
    /// restart need not be told again, and nothing of an open transaction: what is not known to be aborted cannot be
    /// noted once its beginning is gone.
    pub fn below(&self, offset: Offset) -> usize {
        let offset = offset.min(self.shared.stable());
        let closed = self.files.len() - usize::from(self.active);
        let decided = self.decided().index;
        let done = |file: &&Arc<LogFile>| file.next_index() <= decided && file.next_offset() <= offset;
        self.files.iter().take(closed).take_while(done).count()
    }

    /// Records below `start` are deleted.
    pub fn delete_below(&mut self, start: Offset) {
        self.start = self.start.max(start);
        self.shared.set_start(self.start.min(self.commit.offset));
    }

    /// What the last marker aborted.
    pub fn note_aborted(&self, aborted: Option<Aborted>) {
        if let (Some(file), Some(aborted)) = (self.files.back(), aborted) {
            file.note_aborted(aborted);
        }
    }

    /// More is committed.
    pub fn committed(&mut self, index: LogIndex, offset: Offset) {
        self.commit = Place { offset, index: index.next() };
        self.shared.set_committed(offset);
        self.delete_below(self.start);
    }

    /// What the mark may call committed: what a restart need not be told again.
    pub fn decided(&self) -> Place {
        if self.applied.index < self.commit.index { self.applied } else { self.commit }
    }

    /// The newest snapshot of producers that speaks of committed entries only.
    pub fn decided_snapshot(&self) -> Option<SnapshotPlace> {
        self.snapshots.iter().rfind(|place| place.last_index < self.commit.index).copied()
    }

    /// Takes back what lies behind a cut. The files were cut and removed.
    pub fn cut(&mut self, place: Place, shortened: Option<Arc<LogFile>>) {
        while self.files.pop_back_if(|file| file.name.base_index >= place.index).is_some() {}
        if let Some(file) = shortened
            && let Some(last) = self.files.back_mut()
        {
            *last = file;
        }
        self.active = false;
        self.checkpoint_due = true;
        self.dirty.clear();
        self.dirty_bytes = 0;
        self.unindexed.retain(|file| file.next_index() <= place.index);
        self.unindexed.extend(self.files.back().cloned());
        self.end = place;
        self.last_term = self.files.back().map_or(self.trimmed.1, |file| file.name.term);
        self.publish_files();
        self.shared.set_end(place.offset);
    }

    /// A snapshot took the place of the log.
    pub fn replace(&mut self, index: LogIndex, term: Term, base_offset: Offset, start: Offset) {
        let place = Place { offset: base_offset, index: index.next() };
        self.files.clear();
        self.trimmed = (index, term);
        self.commit = place;
        self.applied = place;
        self.start = start;
        self.cut(place, None);
        self.unindexed.clear();
        self.shared.set_committed(base_offset);
        self.delete_below(start);
    }

    /// Forgets the oldest `count` files; returns them, to be removed once the mark says so.
    pub fn drop_oldest(&mut self, count: usize) -> Vec<Arc<LogFile>> {
        let dropped: Vec<_> = self.files.drain(..count).collect();
        if let Some(last) = dropped.last() {
            self.trimmed = (LogIndex(last.next_index().0 - 1), last.name.term);
            let first = self.files.front().map_or(self.end.offset, |file| file.name.base_offset);
            // Readers see the new start before the files go.
            self.delete_below(first);
            self.unindexed.retain(|file| !dropped.iter().any(|gone| Arc::ptr_eq(gone, file)));
            self.roster.trimmed(self.trimmed.0);
            self.publish_files();
        }
        dropped
    }

    fn publish_files(&mut self) {
        self.shared.set_files(self.files.make_contiguous());
    }

    fn file_of(&self, index: LogIndex) -> Option<&Arc<LogFile>> {
        let count = self.files.partition_point(|file| file.name.base_index <= index);
        self.files.get(count.checked_sub(1)?).filter(|file| index < file.next_index())
    }

    /// The files that hold entries of `[from, to)`.
    pub fn files_between(&self, from: LogIndex, to: LogIndex) -> Vec<Arc<LogFile>> {
        let first = self.files.partition_point(|file| file.name.base_index <= from).saturating_sub(1);
        let files = self.files.iter().skip(first);
        files.take_while(|file| file.name.base_index < to).cloned().collect()
    }

    /// What it means that entries cannot be read: a file that is closed and decided is mended.
    pub fn unread(&self, unread: Unread) -> StorageError {
        let Unread { file, position, reason } = unread;
        let closed = self.files.iter().take(self.below(Offset(i64::MAX)));
        match position {
            Some(position) if closed.into_iter().any(|known| known.name == file) => {
                self.shared.suspect(file, position);
                StorageError::Mending(reason)
            }
            _ => StorageError::Corrupt(reason),
        }
    }

    /// The entries `first..=last`, or the first of them; `None` if they are not here or cannot be read.
    pub fn copies(&self, first: LogIndex, last: LogIndex) -> Option<Vec<Entry>> {
        let is_here = first > self.trimmed.0 && last.next() <= self.end.index;
        let files = self.files_between(first, last.next());
        if is_here { read_entries(&files, first, last.next(), CATCH_UP_BYTES).ok() } else { None }
    }
}

impl Storage for LogStorage {
    fn initial(&self) -> Initial {
        let commit = LogIndex(self.commit.index.0 - 1);
        let hard_state = HardState { commit, ..self.hard_state };
        // A change of members that is not known to be in force is handed out again.
        let applied = LogIndex(self.applied.index.0 - 1).max(self.trimmed.0).min(commit);
        Initial { hard_state, members: self.roster.members().clone(), applied }
    }

    fn first_index(&self) -> LogIndex {
        self.trimmed.0.next()
    }

    fn last_index(&self) -> LogIndex {
        LogIndex(self.end.index.0 - 1)
    }

    fn term_of(&self, index: LogIndex) -> Result<Term, StorageError> {
        if index == self.trimmed.0 {
            return Ok(self.trimmed.1);
        }
        if index < self.trimmed.0 {
            return Err(StorageError::Compacted);
        }
        self.file_of(index).map(|file| file.name.term).ok_or(StorageError::Unavailable)
    }

    fn entries(&self, from: LogIndex, to: LogIndex, bytes_max: u64) -> Result<Vec<Entry>, StorageError> {
        if from < self.first_index() {
            return Err(StorageError::Compacted);
        }
        if to > self.end.index || from >= to {
            return Err(StorageError::Unavailable);
        }
        let files = self.files_between(from, to);
        read_entries(&files, from, to, bytes_max.min(CATCH_UP_BYTES)).map_err(|unread| self.unread(unread))
    }

    /// For a replica that needs entries which are trimmed: where the log starts, and the producers as they
    /// were at some later, committed place. The entries after it follow one by one.
    fn snapshot(&self) -> Result<Snapshot, StorageError> {
        let (index, term) = self.trimmed;
        let members = self.roster.members_at(index).ok_or(StorageError::Unavailable)?;
        let place = self.decided_snapshot().filter(|place| place.last_index >= index);
        let place = place.ok_or(StorageError::Unavailable)?;
        let producers = read_snapshot(self.disk.as_ref(), &self.dir, place)
            .ok()
            .flatten()
            .ok_or(StorageError::Unavailable)?
            .encode(place);
        let base_offset = self.files.front().map_or(self.end.offset, |file| file.name.base_offset);
        let data = StartPlace { base_offset, start: self.start, producers }.encode();
        Ok(Snapshot { index, term, members: members.clone(), data })
    }
}

fn fault(error: DiskError) -> WriteFault {
    match error {
        DiskError::Full { .. } => WriteFault::Full,
        error => broken(error),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn broken(error: DiskError) -> WriteFault {
    WriteFault::Broken(error.to_string())
}

#[cfg(test)]
mod tests;
