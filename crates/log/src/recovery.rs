//! Opening: from whatever a crash left to a log that ends after its last good entry.
//!
//! What always holds: nothing at or below the mark is ever cut off or removed; nothing above the end that
//! is found is left lying around; nothing counts as durable before it was synced.

use std::collections::VecDeque;
use std::sync::Arc;

use base::disk::{Disk, DiskError, DiskFile};
use base::marker::EndMarker;
use base::{LogIndex, NodeId, Offset, Term, Timestamp};

use crate::file::{FileName, LogFile, path_of, read_index_file, read_index_header};
use crate::frame::{Frame, FrameError, Note, NoteKind, Place};
use crate::index::{AbortedList, IndexFile, SparseIndex, Summary};
use crate::limits::{PRODUCERS_FILE_BYTES_MAX, SCAN_BYTES};
use crate::mark::{MARK_NAME, Mark, Slot};
use crate::producers::{Producers, SnapshotPlace};
use crate::roster::Roster;
use crate::scan::{ScanError, Scanner};
use crate::stable::Transactions;
use crate::{OpenError, PartitionConfig};

/// What opening found and did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovery {
    /// Bytes cut off after the mark: a torn tail, never acknowledged.
    pub truncated_bytes: u64,
    /// Bytes of log read to get here.
    pub scanned_bytes: u64,
    /// In plain words, what a person should know.
    pub findings: Vec<String>,
}

/// A log ready to go on.
pub(crate) struct Recovered {
    pub files: VecDeque<Arc<LogFile>>,
    /// Files whose `.idx` is missing or behind.
    pub unindexed: Vec<Arc<LogFile>>,
    pub end: Place,
    pub last_term: Term,
    pub mark: Mark,
    pub mark_file: Arc<dyn DiskFile>,
    /// Where the next mark goes.
    pub mark_slot: Slot,
    /// The mark found may be in the page cache only.
    pub mark_in_doubt: bool,
    /// Where the last entry known to be committed ends.
    pub commit: Place,
    /// Where the last entry ends that has taken effect: before a committed change of members that the roster lacks.
    pub applied: Place,
    /// The entries after `commit`, and the offset after each.
    pub undecided: VecDeque<(LogIndex, Offset)>,
    /// The last change of members in the log that the roster does not have in force, committed or not.
    pub changed: Option<LogIndex>,
    pub producers: Producers,
    /// Batches below are in `producers` already, whether they are in the log yet or not.
    pub producers_from: Offset,
    /// Producer snapshots, oldest first.
    pub snapshots: Vec<SnapshotPlace>,
    pub recovery: Recovery,
}

/// Who asks.
pub(crate) struct Asker<'a> {
    pub node: NodeId,
    pub roster: &'a Roster,
    /// The group has voted, so that a log that is not there is a loss.
    pub written_before: bool,
    pub wall: Timestamp,
}

/// Opens the log in `dir`, or creates it.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    dir: &Arc<str>,
    config: &PartitionConfig,
    asker: &Asker<'_>,
) -> Result<Recovered, OpenError> {
    let names = Names::list(disk.as_ref(), dir)?;
    let missing =
        |what: &str| OpenError::Corrupt { path: format!("{dir}/{MARK_NAME}"), position: 0, reason: what.into() };
    let (mark_file, mark, slot) = match names.open_mark(disk.as_ref(), dir)? {
        Some((file, Some((mark, slot)))) => (file, Some(mark), slot.other()),
        // What this replica promised to others stood in the mark.
        _ if !names.logs.is_empty() && !asker.is_sole_voter() => return Err(missing("missing or damaged")),
        _ if !names.logs.is_empty() => (disk_open_or_create(disk.as_ref(), dir)?, None, Slot::A),
        _ if asker.written_before => return Err(OpenError::Missing { dir: dir.to_string() }),
        _ => (Mark::NEW.create(disk.as_ref(), dir)?, Some(Mark::NEW), Slot::B),
    };
    let mut walk = Walk::new(Arc::clone(disk), Arc::clone(dir), config, mark, asker);
    walk.load_producers(&names)?;
    walk.files(&names)?;
    walk.settle(&names, mark_file, slot)
}

impl Asker<'_> {
    fn is_sole_voter(&self) -> bool {
        self.roster.is_sole_voter(self.node)
    }
}

/// What lies in a partition's folder.
struct Names {
    /// By rising index, then term.
    logs: Vec<FileName>,
    /// Snapshots of producers, oldest first.
    snapshots: Vec<SnapshotPlace>,
    /// Left-overs.
    rubbish: Vec<String>,
    has_mark: bool,
}

impl Names {
    fn list(disk: &dyn Disk, dir: &str) -> Result<Self, DiskError> {
        let mut names = Self { logs: Vec::new(), snapshots: Vec::new(), rubbish: Vec::new(), has_mark: false };
        let entries = disk.list(dir)?;
        for entry in entries.iter().filter(|entry| !entry.is_dir) {
            let name = entry.name.as_str();
            if let Some(log) = FileName::parse(name) {
                names.logs.push(log);
            } else if let Some(place) = snapshot_place(name) {
                names.snapshots.push(place);
            } else if name.ends_with(".tmp") {
                names.rubbish.push(name.to_owned());
            }
            names.has_mark |= name == MARK_NAME;
        }
        names.logs.sort_unstable();
        names.snapshots.sort_unstable_by_key(|place| place.last_index);
        let logs = &names.logs;
        let orphan = |name: &&str| {
            let log = name.strip_suffix(".idx").and_then(|stem| FileName::parse(&format!("{stem}.log")));
            log.is_some_and(|log| !logs.contains(&log))
        };
        names.rubbish.extend(entries.iter().map(|entry| entry.name.as_str()).filter(orphan).map(str::to_owned));
        Ok(names)
    }

    /// `None` if there is no mark; none inside if no slot of it is good.
    fn open_mark(&self, disk: &dyn Disk, dir: &str) -> Result<Option<FoundMark>, DiskError> {
        if !self.has_mark {
            return Ok(None);
        }
        let file = disk.open(&format!("{dir}/{MARK_NAME}"))?;
        let mark = Mark::read(file.as_ref())?;
        Ok(Some((file, mark)))
    }
}

/// What is decided of a log; as in [`Recovered`].
struct Decided {
    commit: Place,
    applied: Place,
    undecided: VecDeque<(LogIndex, Offset)>,
    /// Changes of members after what is known to be in force.
    changes: Vec<LogIndex>,
}

impl Decided {
    /// The next entry is, and ends here.
    fn decide(&mut self, end: Place) {
        self.commit = end;
        if self.changes.first().is_none_or(|change| end.index <= *change) {
            self.applied = end;
        }
    }
}

type FoundMark = (Arc<dyn DiskFile>, Option<(Mark, Slot)>);

/// The file name of a snapshot of producers.
pub(crate) fn snapshot_name(place: SnapshotPlace) -> String {
    format!("{:020}-{:020}.producers", place.next_offset.0, place.last_index.0)
}

fn snapshot_place(name: &str) -> Option<SnapshotPlace> {
    let (offset, index) = name.strip_suffix(".producers")?.split_once('-')?;
    let digits = |part: &str| part.len() == 20 && part.bytes().all(|byte| byte.is_ascii_digit());
    let place = |offset: i64, index| SnapshotPlace { next_offset: Offset(offset), last_index: LogIndex(index) };
    (digits(offset) && digits(index)).then(|| Some(place(offset.parse().ok()?, index.parse().ok()?)))?
}

/// The producers as a snapshot has them; `None` if it is not there or damaged.
pub(crate) fn read_snapshot(disk: &dyn Disk, dir: &str, place: SnapshotPlace) -> Result<Option<Producers>, DiskError> {
    let file = match disk.open(&format!("{dir}/{}", snapshot_name(place))) {
        Ok(file) => file,
        Err(DiskError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = file.len_bytes();
    if len > PRODUCERS_FILE_BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    let read = file.read_at(0, &mut bytes)?;
    Ok(Producers::decode(&bytes[..read]).filter(|(_, found)| *found == place).map(|(producers, _)| producers))
}

fn open_error(file: &LogFile, error: ScanError) -> OpenError {
    match error {
        ScanError::Disk(error) => error.into(),
        ScanError::Bad { position, error } => {
            OpenError::Corrupt { path: file.path(), position, reason: error.to_string() }
        }
    }
}

fn disk_open_or_create(disk: &dyn Disk, dir: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
    let path = format!("{dir}/{MARK_NAME}");
    match disk.open(&path) {
        Err(DiskError::NotFound { .. }) => disk.create(&path),
        opened => opened,
    }
}

/// The walk through the files. Changes nothing on disk until `settle`.
struct Walk<'a> {
    disk: Arc<dyn Disk>,
    dir: Arc<str>,
    config: &'a PartitionConfig,
    asker: &'a Asker<'a>,
    mark: Option<Mark>,
    /// Everything up to here was durable: damage there is refused.
    flushed: LogIndex,
    files: VecDeque<Arc<LogFile>>,
    unindexed: Vec<Arc<LogFile>>,
    end: Place,
    last_term: Term,
    /// Files with more bytes than good ones, and how long they are.
    cut: Vec<(Arc<LogFile>, u64)>,
    /// Files that do not join, or hold nothing good.
    dropped: Vec<FileName>,
    producers: Producers,
    /// Batches from here on are not in `producers` yet, and from `transactions_from` on not in its transactions.
    producers_from: Offset,
    transactions_from: Offset,
    recovery: Recovery,
}

impl<'a> Walk<'a> {
    fn new(
        disk: Arc<dyn Disk>,
        dir: Arc<str>,
        config: &'a PartitionConfig,
        mark: Option<Mark>,
        asker: &'a Asker<'a>,
    ) -> Self {
        let known = mark.unwrap_or(Mark::NEW);
        Self {
            disk,
            dir,
            config,
            asker,
            mark,
            flushed: if mark.is_some() { known.flushed_index } else { LogIndex(u64::MAX) },
            files: VecDeque::new(),
            unindexed: Vec::new(),
            end: Place { offset: known.flushed_offset, index: known.trimmed_index.next() },
            last_term: known.trimmed_term,
            cut: Vec::new(),
            dropped: Vec::new(),
            producers: Producers::of_the_rest(mark.is_none() || known.trimmed_index > LogIndex::ZERO),
            producers_from: Offset::ZERO,
            transactions_from: Offset::ZERO,
            recovery: Recovery::default(),
        }
    }

    /// Starts from the newest snapshot of producers that is whole and below the mark, or was a leader's gift.
    fn load_producers(&mut self, names: &Names) -> Result<(), DiskError> {
        let counts: Vec<_> =
            names.snapshots.iter().copied().filter(|place| self.counts(*place, self.flushed)).collect();
        for place in counts.into_iter().rev() {
            if let Some(mut producers) = read_snapshot(self.disk.as_ref(), &self.dir, place)? {
                self.producers_from = place.next_offset;
                self.transactions_from = place.next_offset;
                if self.is_seeded(place) {
                    // It speaks of a place further on: what was open before is in the log that followed.
                    producers.transactions = Transactions::default();
                    self.transactions_from = Offset::ZERO;
                }
                self.producers = producers;
                return Ok(());
            }
            let name = snapshot_name(place);
            self.recovery
                .findings
                .push(format!("{}/{name} was damaged; an older snapshot and the log stood in", self.dir));
        }
        Ok(())
    }

    /// True if a snapshot of producers speaks of this log, which is good up to `last`.
    fn counts(&self, place: SnapshotPlace, last: LogIndex) -> bool {
        place.last_index <= last || self.is_seeded(place)
    }

    /// True of a leader's gift.
    fn is_seeded(&self, place: SnapshotPlace) -> bool {
        self.mark.is_some_and(|mark| mark.seeded_index == place.last_index && mark.seeded_index > LogIndex::ZERO)
    }

    /// All is accounted for below.
    fn known_below(&self) -> Offset {
        self.producers_from.min(self.transactions_from)
    }

    fn files(&mut self, names: &Names) -> Result<(), OpenError> {
        let mut first = true;
        let trimmed = LogIndex(self.end.index.0 - 1);
        let (gone, logs) = names.logs.split_at(names.logs.partition_point(|name| name.base_index <= trimmed));
        if self.mark.is_some() {
            self.dropped.extend_from_slice(gone);
        }
        let mut logs = logs.iter().copied().peekable();
        while let Some(name) = logs.next() {
            if first && (name.base_index == self.end.index || self.mark.is_none()) {
                self.end = name.place();
            }
            first = false;
            let joins = name.place() == self.end && name.term >= self.last_term;
            if !joins {
                self.refuse_below(name, 0, "the file does not join the one before it")?;
                self.dropped.push(name);
                self.dropped.extend(logs);
                return Ok(());
            }
            if !self.file(name, logs.peek().copied())? {
                self.dropped.extend(logs);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes in one file that joins. False if the log ends in it.
    fn file(&mut self, name: FileName, next: Option<FileName>) -> Result<bool, OpenError> {
        let path = path_of(&self.dir, name, "log");
        let handle = self.disk.open(&path)?;
        let len = handle.len_bytes();
        if let Some(next) = next.filter(|next| next.base_index.0 - 1 <= self.flushed.0 && self.mark.is_some())
            && next.base_offset <= self.known_below()
            && let Some(header) = read_index_header(self.disk.as_ref(), &self.dir, name)?
            && let summary = header.summary
            && (summary.bytes, summary.next_offset, summary.next_index) == (len, next.base_offset, next.base_index)
        {
            let aborted = header.is_plain.then(Vec::new);
            self.keep(LogFile::known(Arc::clone(&self.disk), Arc::clone(&self.dir), name, summary, None, aborted));
            return Ok(true);
        }
        let file = self.start_of(name, len)?;
        let from = file.len_bytes();
        let bad = self.scan(&file, handle.as_ref(), len, next)?;
        self.recovery.scanned_bytes += file.len_bytes() - from;
        if let Some((position, error)) = &bad {
            self.end = file.place();
            self.refuse_below(name, *position, &self.describe(&file, error))?;
        }
        let file = self.keep(file);
        if file.len_bytes() > from {
            self.unindexed.push(Arc::clone(&file));
        }
        if file.len_bytes() < len {
            self.cut.push((file, len));
        }
        Ok(bad.is_none())
    }

    /// Walks a file from what is known of it to its end, or to where the next file begins: there it was
    /// closed, so what lies after it was given up then. Returns the first bad byte.
    fn scan(
        &mut self,
        file: &LogFile,
        handle: &dyn DiskFile,
        len: u64,
        next: Option<FileName>,
    ) -> Result<Option<(u64, FrameError)>, DiskError> {
        let mut scanner = Scanner::new(handle, file.len_bytes(), len, SCAN_BYTES);
        while next.is_none_or(|next| next.place() != file.place()) {
            let walked = match scanner.next() {
                Ok(None) => return Ok(None),
                Ok(Some((position, frame, bytes))) => file
                    .walked(position, &frame, self.config.index_step_bytes)
                    .map(|_| self.remember(file, &frame, bytes)),
                Err(error) => Err(error),
            };
            match walked {
                Ok(()) => {}
                Err(ScanError::Bad { position, error }) => return Ok(Some((position, error))),
                Err(ScanError::Disk(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// A file of which what its `.idx` covers is known, if that can be relied on and the producers need
    /// nothing of it; else nothing.
    fn start_of(&self, name: FileName, len: u64) -> Result<LogFile, DiskError> {
        let fresh = Summary {
            bytes: 0,
            next_offset: name.base_offset,
            next_index: name.base_index,
            max_timestamp: Timestamp(-1),
            last_append: self.asker.wall,
        };
        let stored = read_index_file(self.disk.as_ref(), &self.dir, name)?;
        // One term and one index have one content, so what an index says of aborted transactions was never otherwise.
        let aborted = self.aborted_before(name, len, stored.as_ref());
        let (index, summary) = stored
            .filter(|IndexFile { summary, .. }| {
                summary.bytes <= len
                    && summary.next_index.0 <= self.flushed.0.saturating_add(1)
                    && summary.next_offset <= self.known_below()
                    && self.mark.is_some()
            })
            .map_or((SparseIndex::default(), fresh), |stored| (stored.index, stored.summary));
        Ok(LogFile::known(Arc::clone(&self.disk), Arc::clone(&self.dir), name, summary, Some(index), aborted))
    }

    /// What was aborted in a file by markers that are not walked with knowledge of what is open. `None`: not known.
    fn aborted_before(&self, name: FileName, len: u64, stored: Option<&IndexFile>) -> AbortedList {
        if name.base_offset >= self.transactions_from {
            return Some(Vec::new());
        }
        let reaches = |summary: Summary| summary.next_offset >= self.transactions_from || summary.bytes == len;
        let stored = stored.filter(|stored| reaches(stored.summary))?;
        let mut list = stored.aborted.clone()?;
        list.retain(|one| one.last < self.transactions_from);
        Some(list)
    }

    fn remember(&mut self, file: &LogFile, frame: &Frame, bytes: &[u8]) {
        let Frame::Batch(header) = frame else { return };
        let marker = EndMarker::decode(header, bytes);
        let (marker, wall) = (marker.as_ref(), self.asker.wall);
        let aborted = if header.base_offset >= self.producers_from {
            self.producers.record(header, marker, wall, self.config.producers_max)
        } else if header.base_offset >= self.transactions_from {
            self.producers.transactions.record(header, marker, wall)
        } else {
            None
        };
        if let Some(aborted) = aborted {
            file.note_aborted(aborted);
        }
    }

    fn keep(&mut self, file: LogFile) -> Arc<LogFile> {
        self.end = Place { offset: file.next_offset(), index: file.next_index() };
        self.last_term = file.name.term;
        let file = Arc::new(file);
        self.files.push_back(Arc::clone(&file));
        file
    }

    /// Damage at `self.end` is refused if the entry there was durable.
    fn refuse_below(&self, name: FileName, position: u64, reason: &str) -> Result<(), OpenError> {
        if self.end.index > self.flushed {
            return Ok(());
        }
        let path = path_of(&self.dir, name, "log");
        Err(OpenError::Corrupt { path, position, reason: reason.to_owned() })
    }

    fn describe(&self, file: &LogFile, error: &FrameError) -> String {
        format!("entry {} (offset {}): {error}", file.next_index(), file.next_offset())
    }

    /// Cuts, removes and syncs, so that what was found is what is there.
    fn settle(
        mut self,
        names: &Names,
        mark_file: Arc<dyn DiskFile>,
        mut mark_slot: Slot,
    ) -> Result<Recovered, OpenError> {
        self.refuse_short(names)?;
        let tidied = self.tidy(names, mark_file.as_ref())?;
        let last_index = LogIndex(self.end.index.0 - 1);
        let Decided { commit, applied, undecided, changes } = self.decided()?;
        let known = self.mark.unwrap_or(Mark::NEW);
        let behind = |file: &&Arc<LogFile>| self.mark.is_none() || file.next_index().0 > self.flushed.0 + 1;
        let unsynced: Vec<_> = self.files.iter().filter(behind).chain(self.cut.iter().map(|(file, _)| file)).collect();
        let write = tidied || !unsynced.is_empty() || self.mark.is_none();
        let first = self.files.front();
        let trimmed_index = first.map_or(last_index, |file| LogIndex(file.name.base_index.0 - 1));
        let mark = Mark {
            sequence: known.sequence + u64::from(write),
            flushed_index: last_index,
            flushed_offset: self.end.offset,
            start: known.start.max(first.map_or(self.end.offset, |file| file.name.base_offset)),
            trimmed_index,
            trimmed_term: if trimmed_index == known.trimmed_index { known.trimmed_term } else { Term::ZERO },
            committed_index: LogIndex(applied.index.0 - 1),
            committed_offset: applied.offset,
            seeded_index: known.seeded_index,
            repair_term: known.repair_term,
        };
        if write {
            // After SIGKILL these bytes and names may be in the page cache only.
            for file in unsynced {
                file.handle()?.sync()?;
            }
            self.disk.sync_dir(&self.dir)?;
            // What was found in the other slot may be in the page cache only as well.
            mark_file.sync()?;
            mark.write(mark_file.as_ref(), mark_slot)?;
            mark_file.sync()?;
            mark_slot = mark_slot.other();
        }
        if self.mark.is_none() {
            let finding =
                format!("{}/{MARK_NAME} was missing or damaged; the whole log was checked and is good", self.dir);
            self.recovery.findings.push(finding);
        }
        let snapshots = names.snapshots.iter().copied().filter(|place| self.counts(*place, last_index));
        Ok(Recovered {
            snapshots: snapshots.collect(),
            commit,
            applied,
            undecided,
            changed: changes.last().copied(),
            producers_from: self.producers_from,
            files: self.files,
            unindexed: self.unindexed,
            end: self.end,
            last_term: self.last_term,
            mark,
            mark_file,
            mark_slot,
            mark_in_doubt: !write && names.has_mark,
            producers: self.producers,
            recovery: self.recovery,
        })
    }

    /// What is decided of the log that was found. Known to be is what the mark says, and the last members that were in
    /// force: a mark that is behind those, after a loss of power, must not bring back the members before them, who could
    /// elect a leader among themselves. Of the rest, for a sole voter all that is durable is decided, up to an entry that
    /// may give others a vote; for the others, all up to the last change of members but one, because a change is written
    /// only when the one before it is committed. A change that the roster does not have in force is still to take effect,
    /// and so is all after it.
    fn decided(&self) -> Result<Decided, OpenError> {
        let known = self.known_commit()?;
        let is_sole_voter = self.asker.is_sole_voter();
        let mut found = Decided { commit: known, applied: known, undecided: VecDeque::new(), changes: Vec::new() };
        for file in self.files.iter().filter(|file| file.next_index() > known.index) {
            let from = known.index.max(file.name.base_index);
            let walked = file.walk(from, |frame, place| {
                let is_decided = is_sole_voter && found.changes.is_empty();
                if matches!(frame, Frame::Note(Note { kind: NoteKind::Membership, .. })) {
                    found.changes.push(LogIndex(place.index.0 - 1));
                }
                if is_decided {
                    found.decide(place);
                } else {
                    found.undecided.push_back((LogIndex(place.index.0 - 1), place.offset));
                }
            });
            walked.map_err(|error| open_error(file, error))?;
        }
        if let [.., proven, _] = found.changes[..]
            && !is_sole_voter
        {
            while let Some((index, offset)) = found.undecided.pop_front_if(|(index, _)| *index <= proven) {
                found.decide(Place { offset, index: index.next() });
            }
        }
        Ok(found)
    }

    /// Where the last entry ends that is known to be committed, before the rest of the log is looked at.
    fn known_commit(&self) -> Result<Place, OpenError> {
        let last = LogIndex(self.end.index.0 - 1);
        let known = self.mark.unwrap_or(Mark::NEW);
        let in_force = Some(self.asker.roster.in_force()).filter(|index| *index <= last).unwrap_or_default();
        let decided = known.committed_index.max(in_force).min(last);
        if decided == last {
            return Ok(self.end);
        }
        let by_mark = Place { offset: known.committed_offset, index: decided.next() };
        if decided == known.committed_index {
            return Ok(by_mark);
        }
        let file = self.files.iter().rfind(|file| file.name.base_index <= decided);
        file.map_or(Ok(by_mark), |file| file.place_after(decided).map_err(|error| open_error(file, error)))
    }

    /// A log that ends before what was durable is damage. Without a mark the snapshots bear witness.
    fn refuse_short(&self, names: &Names) -> Result<(), OpenError> {
        let witness = names.snapshots.last().map_or(LogIndex::ZERO, |place| place.last_index);
        let durable = if self.mark.is_some() { self.flushed } else { witness };
        let last_index = LogIndex(self.end.index.0 - 1);
        if last_index >= durable {
            return Ok(());
        }
        let reason = format!("the log ends at entry {last_index}, {durable} was durable");
        let path = self.files.back().map_or_else(|| format!("{}/", self.dir), |file| file.path());
        let position = self.files.back().map_or(0, |file| file.len_bytes());
        Err(OpenError::Corrupt { path, position, reason })
    }

    /// Cuts and removes what is not part of the log. True if there was anything.
    fn tidy(&mut self, names: &Names, mark_file: &dyn DiskFile) -> Result<bool, DiskError> {
        if !self.dropped.is_empty() {
            // The mark that calls them trimmed may be in the page cache only; lost after they are, they
            // would be missed.
            mark_file.sync()?;
        }
        let last = LogIndex(self.end.index.0 - 1);
        let stale = names.snapshots.iter().filter(|place| !self.counts(**place, last)).copied().map(snapshot_name);
        let rubbish = names.rubbish.iter().cloned().chain(stale);
        let mut removals: Vec<String> = rubbish.map(|name| format!("{}/{name}", self.dir)).collect();
        for (file, len) in &self.cut {
            file.handle()?.truncate(file.len_bytes())?;
            self.recovery.truncated_bytes += len - file.len_bytes();
        }
        for name in &self.dropped {
            let path = path_of(&self.dir, *name, "log");
            if name.base_index >= self.end.index {
                self.recovery.truncated_bytes += self.disk.open(&path)?.len_bytes();
            }
            removals.extend([path_of(&self.dir, *name, "idx"), path]);
        }
        // A last file without a good frame is as if it had never been created.
        while let Some(last) = self.files.pop_back_if(|file| file.len_bytes() == 0) {
            removals.extend([last.index_path(), last.path()]);
            self.cut.retain(|(file, _)| !Arc::ptr_eq(file, &last));
            let before = self.mark.map_or(Term::ZERO, |mark| mark.trimmed_term);
            self.last_term = self.files.back().map_or(before, |file| file.name.term);
        }
        for path in &removals {
            match self.disk.remove_file(path) {
                Ok(()) | Err(DiskError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(!removals.is_empty())
    }
}
