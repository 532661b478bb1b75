//! Reading what a follower lacks, on any thread that may block.
//!
//! What always holds: only entries that were counted before the read began are given, their checksums compared; a read
//! costs a bounded number of bytes. A file that is trimmed meanwhile is an error that its asker knows to take.

use std::fmt;
use std::sync::Arc;

use base::{LogIndex, NodeId};
use bytes::Bytes;
use quorum::{Entry, Payload, Read, StorageError};

use crate::file::LogFile;
use crate::frame::{Frame, Note, NoteKind};
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
    pub(crate) entries: Result<Vec<Entry>, StorageError>,
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

/// Entries of `[from, to)`: from `from` on, without a gap, at least one, then until they pass `bytes_max`.
pub(crate) fn read_entries(
    files: &[Arc<LogFile>],
    from: LogIndex,
    to: LogIndex,
    bytes_max: u64,
) -> Result<Vec<Entry>, StorageError> {
    scan(files, from, to, bytes_max).map_err(|error| match error {
        ScanError::Disk(error) => StorageError::Corrupt(error.to_string()),
        ScanError::Bad { position, error } => StorageError::Corrupt(format!("byte {position}: {error}")),
    })
}

fn scan(files: &[Arc<LogFile>], from: LogIndex, to: LogIndex, bytes_max: u64) -> Result<Vec<Entry>, ScanError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut bytes_left = bytes_max;
    for file in files {
        let relative = from.0.saturating_sub(file.name.base_index.0);
        let (position, at) = file.with_index(|index| index.position_of_index(relative))?;
        let mut index = file.name.base_index.plus(at);
        let handle = file.handle().map_err(ScanError::Disk)?;
        let mut scanner = Scanner::new(handle.as_ref(), position, file.len_bytes(), CATCH_UP_READ_BYTES);
        while let Some((_, frame, bytes)) = scanner.next()? {
            if index >= to || (!entries.is_empty() && bytes.len() as u64 > bytes_left) {
                return Ok(entries);
            }
            if index >= from {
                bytes_left = bytes_left.saturating_sub(bytes.len() as u64);
                entries.push(Entry { term: file.name.term, index, payload: payload_of(&frame, bytes) });
            }
            index = index.next();
        }
    }
    Ok(entries)
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
