//! Reading what a follower lacks, on any thread that may block.
//!
//! What always holds: only entries that were counted before the read began are given, their checksums compared; a read
//! costs a bounded number of bytes. A file that is trimmed meanwhile is an error that its asker knows to take.

use std::fmt;
use std::sync::Arc;

use base::{LogIndex, NodeId};
use bytes::Bytes;
use quorum::{Entry, Payload, Read};

use crate::file::{FileName, LogFile};
use crate::frame::{Frame, Note, NoteKind, Place};
use crate::limits::CATCH_UP_READ_BYTES;
use crate::scan::{ScanError, Scanner};

/// What one partition wants to have read for followers. Blocks while it runs; may run on any thread.
pub struct ReadJob {
    pub(crate) files: Vec<Arc<LogFile>>,
    pub(crate) read: Read,
}

/// What a [`ReadJob`] gave; for [`crate::Partition::read_done`].
#[derive(Debug)]
pub struct ReadDone {
    pub(crate) read: Read,
    pub(crate) entries: Result<Vec<Entry>, Unread>,
}

impl ReadJob {
    #[must_use]
    pub fn run(self) -> ReadDone {
        let entries = read_entries(&self.files, self.read.from, self.read.to, self.read.bytes_max);
        ReadDone { read: self.read, entries }
    }

    /// Whom it is for.
    #[must_use]
    pub fn followers(&self) -> &[NodeId] {
        &self.read.followers
    }
}

impl ReadDone {
    /// Bytes to be sent.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries.iter().flatten().map(|entry| entry.payload.bytes().len()).sum()
    }
}

impl fmt::Debug for ReadJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadJob({:?})", self.read)
    }
}

/// Why entries could not be read.
#[derive(Debug)]
pub(crate) struct Unread {
    pub file: FileName,
    /// Of bytes that are not what was written.
    pub position: Option<u64>,
    pub reason: String,
}

/// Entries of `[from, to)`: from `from` on, without a gap, at least one, then until they pass `bytes_max`.
pub(crate) fn read_entries(
    files: &[Arc<LogFile>],
    from: LogIndex,
    to: LogIndex,
    bytes_max: u64,
) -> Result<Vec<Entry>, Unread> {
    let mut entries = Entries { from, to, list: Vec::new(), bytes_left: bytes_max };
    for file in files {
        match entries.read(file) {
            Ok(true) => {}
            Ok(false) => break,
            // What was read before it is good.
            Err(_) if !entries.list.is_empty() => break,
            Err(error) => {
                let (position, reason) = match error {
                    ScanError::Disk(error) => (None, error.to_string()),
                    ScanError::Bad { position, error } => (Some(position), format!("byte {position}: {error}")),
                };
                return Err(Unread { file: file.name, position, reason: format!("{}: {reason}", file.path()) });
            }
        }
    }
    Ok(entries.list)
}

/// Entries as they are read.
struct Entries {
    from: LogIndex,
    to: LogIndex,
    list: Vec<Entry>,
    bytes_left: u64,
}

impl Entries {
    /// False if that is all.
    fn read(&mut self, file: &LogFile) -> Result<bool, ScanError> {
        let relative = self.from.0.saturating_sub(file.name.base_index.0);
        let near = file.with_index(|index| index.near_index(relative))?;
        let mut place = Place {
            offset: file.name.base_offset.plus(i64::from(near.offset)),
            index: file.name.base_index.plus(u64::from(near.index)),
        };
        let handle = file.handle().map_err(ScanError::Disk)?;
        let start = u64::from(near.position);
        let mut scanner = Scanner::new(handle.as_ref(), start, file.len_bytes(), CATCH_UP_READ_BYTES);
        while let Some((position, frame, bytes)) = scanner.next()? {
            if place.index >= self.to || (!self.list.is_empty() && bytes.len() as u64 > self.bytes_left) {
                return Ok(false);
            }
            // A batch's offset is under no checksum: a follower must not be sent one that the disk has changed.
            let next = frame.follow(place, file.name.term).map_err(|error| ScanError::Bad { position, error })?;
            if place.index >= self.from {
                self.bytes_left = self.bytes_left.saturating_sub(bytes.len() as u64);
                let payload = payload_of(&frame, bytes);
                self.list.push(Entry { term: file.name.term, index: place.index, payload });
            }
            place = next;
        }
        Ok(true)
    }
}

fn payload_of(frame: &Frame, bytes: &[u8]) -> Payload {
    match frame {
        Frame::Batch(_) => Payload::Data(Bytes::copy_from_slice(bytes)),
        Frame::Note(Note { kind: NoteKind::Empty, .. }) => Payload::Empty,
        Frame::Note(note @ Note { kind: NoteKind::Membership, .. }) => {
            Payload::Membership(Bytes::copy_from_slice(note.payload(bytes)))
        }
        Frame::Note(Note { kind: NoteKind::Start, .. }) => Payload::Data(Bytes::copy_from_slice(bytes)),
    }
}
