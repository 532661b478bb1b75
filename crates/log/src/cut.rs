//! Taking back a suffix of the log that another leader's entries replace, or the whole log for a snapshot.
//!
//! ```text
//! producers and members of a snapshot (temporary) -> what is lost is saved -> producers above the cut go
//!   -> both slots of the mark say less -> files are cut and removed
//!   -> (snapshot) both get their names -> both slots say where the log starts now -> all files go
//! ```
//! The mark first, the bytes after it: a crash in between leaves entries that the mark does not promise,
//! which is a log like any other. What always holds: nothing at or below the committed entry is touched, unless
//! a snapshot replaces it; producers above the cut are gone before other entries can take their place; the members of a
//! snapshot, which say that all up to it is committed, never lie beside entries that it replaces.

use std::sync::Arc;

use base::disk::{Disk, DiskError, DiskFile};
use base::marker::EndMarker;
use base::{LogIndex, Offset, Term, Timestamp};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::file::LogFile;
use crate::flush::{SideFile, remove_if_there, unless_full};
use crate::frame::{Frame, Place};
use crate::limits::SCAN_BYTES;
use crate::lost::{LostFound, Saver};
use crate::mark::{Mark, Slot};
use crate::producers::{Producers, SnapshotPlace};
use crate::recovery::{read_snapshot, snapshot_name};
use crate::roster::Roster;
use crate::scan::{ScanError, Scanner};
use crate::stable::Transactions;

/// What a leader sends to a replica whose next entry it no longer has: where its log starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct StartPlace {
    /// Of the first record after the snapshot's entry.
    pub base_offset: Offset,
    /// Records below are deleted.
    pub start: Offset,
    /// A `.producers` file, which may speak of a later place.
    pub producers: Bytes,
}

const START_VERSION: u16 = 1;
const START_HEADER_BYTES: usize = 18;

impl StartPlace {
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(START_HEADER_BYTES + self.producers.len());
        bytes.put_u16(START_VERSION);
        bytes.put_i64(self.base_offset.0);
        bytes.put_i64(self.start.0);
        bytes.put_slice(&self.producers);
        bytes.freeze()
    }

    /// `None` if it makes no sense.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let mut rest = &bytes[..];
        if bytes.len() < START_HEADER_BYTES || rest.get_u16() != START_VERSION {
            return None;
        }
        let place = Self {
            base_offset: Offset(rest.get_i64()),
            start: Offset(rest.get_i64()),
            producers: bytes.slice(START_HEADER_BYTES..),
        };
        (place.base_offset.0 >= 0 && place.start.0 >= 0).then_some(place)
    }
}

/// A snapshot to be put in place of the log.
#[derive(Clone, Debug)]
pub(crate) struct Install {
    pub index: LogIndex,
    pub term: Term,
    pub base_offset: Offset,
    pub start: Offset,
    pub producers: Producers,
    pub place: SnapshotPlace,
}

/// What a flush job does when entries have to go.
#[derive(Debug)]
pub(crate) struct CutJob {
    /// What stays ends here.
    pub place: Place,
    /// Of the whole log, oldest first.
    pub files: Vec<Arc<LogFile>>,
    /// Of the whole log, oldest first.
    pub snapshots: Vec<SnapshotPlace>,
    /// One that may lie above the cut.
    pub seeded: LogIndex,
    pub producers_max: usize,
    pub wall: Timestamp,
    pub install: Option<Install>,
    /// The members with those of the snapshot.
    pub roster: Option<Roster>,
    pub saver: Saver,
    /// What it says after the cut. Its sequence is free, and the three after it.
    pub mark: Mark,
}

/// What it came to.
#[derive(Debug)]
pub(crate) struct CutDone {
    /// The last file, if it was cut and not removed.
    pub shortened: Option<Arc<LogFile>>,
    pub producers: Producers,
    pub producers_from: Offset,
    pub snapshots: Vec<SnapshotPlace>,
    pub mark: Mark,
    pub lost: Option<LostFound>,
    pub dropped_paths: Vec<String>,
    pub dropped_batches: u64,
}

/// Where it is done.
pub(crate) struct Ground<'a> {
    pub disk: &'a dyn Disk,
    pub dir: &'a str,
    pub mark_file: &'a dyn DiskFile,
    pub slot: Slot,
}

impl CutJob {
    /// Does it. `None`: there was no room, and nothing was changed. Blocks.
    pub fn run(self, ground: &Ground<'_>) -> Result<Option<CutDone>, DiskError> {
        let temporary = match &self.install {
            Some(install) => match self.prepare(ground, install)? {
                Some(temporary) => Some(temporary),
                None => return Ok(None),
            },
            None => None,
        };
        let Some(saved) = self.saver.save(ground.disk, ground.dir, &self.files, self.place)? else { return Ok(None) };
        let cut = self.files.iter().find(|file| file.name.base_index < self.place.index && self.reaches(file));
        let shortened = cut.map(|file| file.shortened(self.place)).transpose().map_err(|error| scan(ground, error))?;
        let (gone, kept): (Vec<SnapshotPlace>, Vec<_>) = self.snapshots.iter().partition(|place| !self.counts(**place));
        let (producers, producers_from) = self.producers(ground, &kept)?;
        self.forget(ground, &gone, shortened.as_ref())?;
        lower(ground, self.mark)?;
        self.shorten(ground, cut, shortened.as_ref().map(LogFile::len_bytes))?;
        let mut done = CutDone {
            shortened: shortened.map(Arc::new),
            producers,
            producers_from,
            snapshots: kept,
            mark: Mark { sequence: self.mark.sequence + 1, ..self.mark },
            lost: saved.lost,
            dropped_paths: saved.dropped_paths,
            dropped_batches: saved.dropped_batches,
        };
        if let (Some(install), Some(temporary)) = (&self.install, temporary) {
            self.install(ground, install, &temporary, &mut done)?;
        }
        Ok(Some(done))
    }

    fn reaches(&self, file: &LogFile) -> bool {
        file.next_index() > self.place.index
    }

    fn counts(&self, place: SnapshotPlace) -> bool {
        place.last_index < self.place.index || place.last_index == self.seeded
    }

    /// Writes producers and members of a snapshot under names that count for nothing.
    fn prepare(&self, ground: &Ground<'_>, install: &Install) -> Result<Option<String>, DiskError> {
        let temporary = format!("{}/{}.tmp", ground.dir, snapshot_name(install.place));
        remove_if_there(ground.disk, &temporary)?;
        let content = install.producers.encode(install.place);
        let written = ground.disk.create(&temporary).and_then(|file| {
            file.append(&[&content])?;
            file.sync()?;
            self.roster.as_ref().map_or(Ok(()), |roster| roster.write_aside(ground.disk, ground.dir))
        });
        if !unless_full(written)? {
            remove_if_there(ground.disk, &temporary)?;
            return Ok(None);
        }
        Ok(Some(temporary))
    }

    /// The producers at the cut: from the newest snapshot that counts, and the log after it.
    fn producers(&self, ground: &Ground<'_>, kept: &[SnapshotPlace]) -> Result<(Producers, Offset), DiskError> {
        let mut producers = Producers::of_the_rest(self.mark.trimmed_index > LogIndex::ZERO);
        // Batches from here on are not in them yet, and from the second place on not in their transactions.
        let (mut from, mut open_from) = (Offset::ZERO, Offset::ZERO);
        if self.install.is_some() {
            return Ok((producers, from));
        }
        for place in kept.iter().rev() {
            if let Some(found) = read_snapshot(ground.disk, ground.dir, *place)? {
                (producers, from, open_from) = (found, place.next_offset, place.next_offset);
                if place.last_index == self.seeded {
                    producers.transactions = Transactions::default();
                    open_from = Offset::ZERO;
                }
                break;
            }
        }
        let first = from.min(open_from);
        for file in self.files.iter().filter(|file| file.next_offset() > first) {
            let relative = (first.0 - file.name.base_offset.0).max(0).unsigned_abs();
            let near = file.with_index(|index| index.position_of_offset(relative));
            let (position, _) = near.map_err(|error| scan(ground, error))?;
            let handle = file.handle()?;
            let mut scanner = Scanner::new(handle.as_ref(), position, file.len_bytes(), SCAN_BYTES);
            while let Some((_, frame, bytes)) = scanner.next().map_err(|error| scan(ground, error))? {
                let Frame::Batch(header) = frame else { continue };
                if header.base_offset >= self.place.offset {
                    break;
                }
                let marker = EndMarker::decode(&header, bytes);
                // The files know already what was aborted.
                if header.base_offset >= from {
                    producers.record(&header, marker.as_ref(), self.wall, self.producers_max);
                } else if header.base_offset >= open_from {
                    producers.transactions.record(&header, marker.as_ref(), self.wall);
                }
            }
        }
        Ok((producers, from))
    }

    /// Removes what speaks of entries above the cut; what is left of the last file gets its index at once, for only
    /// that one knows what was aborted in it.
    fn forget(
        &self,
        ground: &Ground<'_>,
        gone: &[SnapshotPlace],
        shortened: Option<&LogFile>,
    ) -> Result<(), DiskError> {
        let paths: Vec<String> = gone.iter().map(|place| format!("{}/{}", ground.dir, snapshot_name(*place))).collect();
        for path in &paths {
            remove_if_there(ground.disk, path)?;
        }
        if let Some(file) = shortened {
            let side = file.encode_index().map(|content| SideFile { path: file.index_path(), content });
            let is_written = side.map_or(Ok(false), |side| side.write(ground.disk))?;
            if !is_written {
                remove_if_there(ground.disk, &file.index_path())?;
            }
        }
        if paths.is_empty() && shortened.is_none() { Ok(()) } else { ground.disk.sync_dir(ground.dir) }
    }

    fn shorten(&self, ground: &Ground<'_>, cut: Option<&Arc<LogFile>>, len: Option<u64>) -> Result<(), DiskError> {
        // The newest first, so that what a crash leaves has no hole.
        for file in self.files.iter().rev().filter(|file| file.name.base_index >= self.place.index) {
            remove_if_there(ground.disk, &file.index_path())?;
            remove_if_there(ground.disk, &file.path())?;
        }
        if let (Some(file), Some(len)) = (cut, len) {
            let handle = file.handle()?;
            handle.truncate(len)?;
            handle.sync()?;
        }
        ground.disk.sync_dir(ground.dir)
    }

    fn install(
        &self,
        ground: &Ground<'_>,
        install: &Install,
        temporary: &str,
        done: &mut CutDone,
    ) -> Result<(), DiskError> {
        let path = format!("{}/{}", ground.dir, snapshot_name(install.place));
        ground.disk.rename(temporary, &path)?;
        if self.roster.is_some() {
            Roster::take_place(ground.disk, ground.dir)?;
        }
        ground.disk.sync_dir(ground.dir)?;
        let mark = Mark {
            sequence: done.mark.sequence + 1,
            flushed_index: install.index,
            flushed_offset: install.base_offset,
            start: install.start,
            trimmed_index: install.index,
            trimmed_term: install.term,
            committed_index: install.index,
            committed_offset: install.base_offset,
            seeded_index: install.place.last_index,
            repair_term: self.mark.repair_term,
        };
        lower(ground, mark)?;
        for file in self.files.iter().filter(|file| file.name.base_index < self.place.index) {
            remove_if_there(ground.disk, &file.index_path())?;
            remove_if_there(ground.disk, &file.path())?;
        }
        for place in done.snapshots.iter().filter(|place| **place != install.place) {
            remove_if_there(ground.disk, &format!("{}/{}", ground.dir, snapshot_name(*place)))?;
        }
        ground.disk.sync_dir(ground.dir)?;
        done.shortened = None;
        done.snapshots = vec![install.place];
        done.producers = install.producers.clone();
        // They are of a place further on: what is open here is seen in the batches that follow.
        done.producers.transactions = Transactions::default();
        done.producers_from = install.place.next_offset;
        done.mark = Mark { sequence: mark.sequence + 1, ..mark };
        Ok(())
    }
}

/// Neither slot promises more from here on.
fn lower(ground: &Ground<'_>, mark: Mark) -> Result<(), DiskError> {
    ground.mark_file.sync()?;
    mark.write(ground.mark_file, ground.slot)?;
    ground.mark_file.sync()?;
    let again = Mark { sequence: mark.sequence + 1, ..mark };
    again.write(ground.mark_file, ground.slot.other())?;
    ground.mark_file.sync()
}

fn scan(ground: &Ground<'_>, error: ScanError) -> DiskError {
    match error {
        ScanError::Disk(error) => error,
        ScanError::Bad { position, error } => {
            DiskError::Io { path: ground.dir.to_owned(), cause: format!("byte {position}: {error}") }
        }
    }
}
