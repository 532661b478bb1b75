//! Looking after what was written long ago: closed files are read again now and then, and what a disk has changed
//! is written again from another replica's copy.
//!
//! A committed entry is the same bytes on every replica, so a damaged one is mended in place: its file, its vote and
//! its leadership stay. What always holds: bytes are written over damage only if they are frames of the file's term
//! that follow what is before them and end where the damage ends; bytes that are right are not touched; a crash in
//! the middle leaves damage where damage was.

use std::sync::Arc;

use base::disk::{DiskError, DiskFile};
use base::{LogIndex, Term};
use bytes::{Bytes, BytesMut};
use quorum::{Entry, Payload};

use crate::file::{FileName, LogFile};
use crate::frame::{Frame, FrameError, Note, NoteKind, Place};
use crate::index::IndexEntry;
use crate::limits::{MEND_BYTES_MAX, SCAN_BYTES, SCRUB_BYTES};
use crate::scan::{ScanError, Scanner};

/// A place in a log file where a frame begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Spot {
    pub position: u64,
    pub place: Place,
}

/// Frames of a closed file that are not what was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wound {
    pub file: FileName,
    pub from: Spot,
    /// Good from here on, as far as is known.
    pub to: Spot,
    /// In words, with path and byte.
    pub reason: String,
}

impl Wound {
    pub fn size_bytes(&self) -> u64 {
        self.to.position - self.from.position
    }

    pub fn can_be_mended(&self) -> bool {
        self.size_bytes() <= MEND_BYTES_MAX
    }
}

/// A piece of work for a thread that may block; see [`crate::Partition::care_job`].
pub struct CareJob(pub(crate) Work);

pub(crate) enum Work {
    /// Reads files one after another, each from its place on.
    Scrub {
        pieces: Vec<(Arc<LogFile>, Spot)>,
    },
    /// Reads what a reader complained of.
    Suspect {
        file: Arc<LogFile>,
        position: u64,
    },
    Mend {
        file: Arc<LogFile>,
        wound: Wound,
        bytes: Bytes,
    },
}

/// What a [`CareJob`] found or did; for [`crate::Partition::cared`].
#[derive(Debug)]
pub struct CareDone(pub(crate) Outcome);

#[derive(Debug)]
pub(crate) enum Outcome {
    Nothing,
    /// Good up to here.
    Good {
        file: FileName,
        to: Spot,
    },
    Wounded(Wound),
    Mended(Wound),
    /// The file went meanwhile.
    Gone(FileName),
    /// The disk does not give or take bytes.
    Broken {
        file: FileName,
        reason: String,
    },
}

impl CareJob {
    /// Reads at most a few MiB, or writes one place over. Blocks.
    #[must_use]
    pub fn run(self) -> CareDone {
        CareDone(match &self.0 {
            Work::Scrub { pieces } => scrub_all(pieces),
            Work::Suspect { file, position } => outcome(file, suspect(file, *position)),
            Work::Mend { file, wound, bytes } => outcome(file, mend(file, wound, bytes)),
        })
    }
}

fn outcome(file: &LogFile, result: Result<Outcome, DiskError>) -> Outcome {
    match result {
        Ok(outcome) => outcome,
        Err(DiskError::NotFound { .. }) => Outcome::Gone(file.name),
        Err(error) => Outcome::Broken { file: file.name, reason: format!("{}: {error}", file.path()) },
    }
}

/// Up to the first thing worth telling.
fn scrub_all(pieces: &[(Arc<LogFile>, Spot)]) -> Outcome {
    let mut last = Outcome::Nothing;
    for (file, from) in pieces {
        last = outcome(file, scrub(file, *from, SCRUB_BYTES));
        if !matches!(last, Outcome::Good { .. }) {
            break;
        }
    }
    last
}

/// From the last frame before `position` that the index knows; from the beginning if there is no index.
fn suspect(file: &LogFile, position: u64) -> Result<Outcome, DiskError> {
    let near = file.with_index(|index| index.near_position(position)).ok();
    let known = near.flatten().map(|entry| spot_of(file, entry));
    let begin = Spot { position: 0, place: file.name.place() };
    scrub(file, known.unwrap_or(begin), if near.is_some() { SCRUB_BYTES } else { u64::MAX })
}

fn spot_of(file: &LogFile, entry: IndexEntry) -> Spot {
    let place = Place {
        offset: file.name.base_offset.plus(i64::from(entry.offset)),
        index: file.name.base_index.plus(u64::from(entry.index)),
    };
    Spot { position: u64::from(entry.position), place }
}

fn scrub(file: &LogFile, from: Spot, bytes_max: u64) -> Result<Outcome, DiskError> {
    let handle = file.handle()?;
    let len = file.len_bytes();
    let mut at = from;
    let mut scanner = Scanner::new(handle.as_ref(), from.position, len, SCAN_BYTES);
    while at.position - from.position < bytes_max {
        let walked = match scanner.next() {
            Ok(None) => break,
            Ok(Some((position, frame, _))) => frame
                .follow(at.place, file.name.term)
                .map(|place| Spot { position: position + frame.size_bytes() as u64, place }),
            Err(ScanError::Bad { error, .. }) => Err(error),
            Err(ScanError::Disk(error)) => return Err(error),
        };
        match walked {
            Ok(next) => at = next,
            Err(error) => return Ok(Outcome::Wounded(wound(file, at, &error))),
        }
    }
    if at.position >= len && at.place != file.place() {
        let (found, expected) = (at.place.offset.0, file.next_offset().0);
        return Ok(Outcome::Wounded(wound(file, from, &FrameError::OutOfPlace { what: "end", found, expected })));
    }
    Ok(Outcome::Good { file: file.name, to: at })
}

/// What is damaged at `from`: up to the next frame whose place the index knows, or the end of the file.
fn wound(file: &LogFile, from: Spot, error: &FrameError) -> Wound {
    let relative = from.place.index.0 - file.name.base_index.0;
    let known = file.with_index(|index| index.after_index(relative)).ok().flatten();
    let known = known.map(|entry| spot_of(file, entry)).filter(|spot| spot.position > from.position);
    let to = known.unwrap_or(Spot { position: file.len_bytes(), place: file.place() });
    let Place { offset, index } = from.place;
    let reason = format!("{}: byte {}: entry {index} (offset {offset}): {error}", file.path(), from.position);
    Wound { file: file.name, from, to, reason }
}

fn mend(file: &LogFile, wound: &Wound, bytes: &[u8]) -> Result<Outcome, DiskError> {
    let handle = file.handle()?;
    let there = read(handle.as_ref(), wound.from.position, bytes.len())?;
    let differs = |(a, b): (&u8, &u8)| a != b;
    if let Some(first) = there.iter().zip(bytes).position(differs) {
        let last = there.iter().zip(bytes).rposition(differs).unwrap_or(first);
        handle.write_at(wound.from.position + first as u64, &bytes[first..=last])?;
        handle.sync()?;
    }
    if read(handle.as_ref(), wound.from.position, bytes.len())? == bytes {
        return Ok(Outcome::Mended(wound.clone()));
    }
    let reason = format!("{}: what was written at byte {} is not there", file.path(), wound.from.position);
    Ok(Outcome::Broken { file: file.name, reason })
}

fn read(handle: &dyn DiskFile, position: u64, len: usize) -> Result<Vec<u8>, DiskError> {
    let mut bytes = vec![0; len];
    let count = handle.read_at(position, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Copies of a wound's entries as they come from another replica.
#[derive(Debug)]
pub(crate) struct Copied {
    wound: Wound,
    bytes: BytesMut,
    place: Place,
}

impl Copied {
    pub fn new(wound: Wound) -> Self {
        Self { bytes: BytesMut::new(), place: wound.from.place, wound }
    }

    pub fn wound(&self) -> &Wound {
        &self.wound
    }

    /// The entry that is wanted next.
    pub fn next_index(&self) -> LogIndex {
        self.place.index
    }

    /// Takes in entries. False if they are not what is missing.
    pub fn take(&mut self, entries: &[Entry]) -> bool {
        let (term, to, size_bytes) = (self.wound.file.term, self.wound.to.place.index, self.wound.size_bytes());
        for entry in entries {
            if entry.index != self.place.index || entry.term != term || self.place.index >= to {
                return false;
            }
            let bytes = frame_of(entry, self.place, term);
            let Ok(frame) = Frame::check(&bytes) else { return false };
            let Ok(next) = frame.follow(self.place, term) else { return false };
            let is_too_much = (self.bytes.len() + bytes.len()) as u64 > size_bytes;
            if is_too_much || frame.size_bytes() != bytes.len() {
                return false;
            }
            self.bytes.extend_from_slice(&bytes);
            self.place = next;
        }
        !entries.is_empty()
    }

    /// True if no entry is missing.
    pub fn is_whole(&self) -> bool {
        self.place.index >= self.wound.to.place.index
    }

    /// All of it; `None` if it does not fill the place exactly.
    pub fn fitting(self) -> Option<(Wound, Bytes)> {
        let fits = self.place == self.wound.to.place && self.bytes.len() as u64 == self.wound.size_bytes();
        fits.then(|| (self.wound, self.bytes.freeze()))
    }
}

/// An entry as it lies in a log file at `place`.
fn frame_of(entry: &Entry, place: Place, term: Term) -> Bytes {
    match &entry.payload {
        Payload::Data(bytes) => bytes.clone(),
        Payload::Empty => Note::encode(NoteKind::Empty, place, term, &[]),
        Payload::Membership(bytes) => Note::encode(NoteKind::Membership, place, term, bytes),
    }
}
