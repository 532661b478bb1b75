//! A frame of a log file: a record batch, or a note of the group that holds no records.
//!
//! Drawn in docs/formats/log-file.md. What always holds: a frame that was checked is whole, its checksum
//! fits, and its lengths fit the bytes it was read from.

use base::batch::{BatchError, BatchHeader, HEADER_BYTES, MAGIC, PREFIX_BYTES};
use base::checksum::crc32c;
use base::{LogIndex, Offset, Term};
use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::NOTE_BYTES_MAX;

/// Bytes to look at before a frame's size is known.
pub(crate) const PEEK_BYTES: usize = 17;
const NOTE_MAGIC: u8 = b'N';
const NOTE_VERSION: u8 = 1;
const NOTE_HEADER_BYTES: usize = 47;
const CRC_FROM: usize = 21;

/// What lies at a position of a log file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Frame {
    Batch(BatchHeader),
    Note(Note),
}

/// An entry without records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Note {
    pub kind: NoteKind,
    pub size_bytes: usize,
    /// Of the next record after it.
    pub offset: Offset,
    pub index: LogIndex,
    pub term: Term,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoteKind {
    /// A new leader's first entry.
    Empty,
    Membership,
    /// Records below the offset of the payload are deleted.
    Start,
}

/// Why bytes are no frame.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("note of version {version} and kind {kind} is unknown: was it written by a newer version?")]
    Note { version: u8, kind: u8 },
    #[error("the frame has {what} {found} where {expected} follows")]
    OutOfPlace { what: &'static str, found: i64, expected: i64 },
}

/// The place in a log file's sequence where the next frame belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub offset: Offset,
    pub index: LogIndex,
}

impl Frame {
    /// The whole frame's size, from its first [`PEEK_BYTES`] bytes.
    pub fn peek_size(bytes: &[u8]) -> Result<usize, FrameError> {
        match bytes.get(PEEK_BYTES - 1) {
            None => Err(BatchError::Truncated { have: bytes.len(), need: PEEK_BYTES }.into()),
            Some(&NOTE_MAGIC) => note_size(bytes),
            Some(&magic) if i8::from_be_bytes([magic]) == MAGIC => Ok(BatchHeader::peek_size(bytes)?),
            Some(&magic) => Err(BatchError::Magic(i8::from_be_bytes([magic])).into()),
        }
    }

    /// Reads the frame at the start of `bytes` without comparing its checksum.
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.get(PEEK_BYTES - 1) == Some(&NOTE_MAGIC) {
            return Note::parse(bytes).map(Self::Note);
        }
        Ok(Self::Batch(BatchHeader::parse(bytes)?))
    }

    /// As `parse`, and compares the checksum.
    pub fn check(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.get(PEEK_BYTES - 1) != Some(&NOTE_MAGIC) {
            return Ok(Self::Batch(BatchHeader::check(bytes)?));
        }
        let note = Note::parse(bytes)?;
        let expected = u32::from_be_bytes(array(bytes, 17));
        let actual = crc32c(&bytes[CRC_FROM..note.size_bytes]);
        if actual != expected {
            return Err(BatchError::Checksum { expected, actual }.into());
        }
        Ok(Self::Note(note))
    }

    pub const fn size_bytes(&self) -> usize {
        match self {
            Self::Batch(header) => header.size_bytes,
            Self::Note(note) => note.size_bytes,
        }
    }

    /// Refuses a frame of another term: a batch's is under no checksum.
    pub fn is_of(&self, term: Term) -> Result<(), FrameError> {
        let epoch = match self {
            Self::Batch(header) => header.leader_epoch,
            Self::Note(note) => epoch_of(note.term),
        };
        same("leader epoch", i64::from(epoch), i64::from(epoch_of(term)))
    }

    /// Where the frame after this one belongs, if this one belongs at `place` of a file of `term`.
    pub fn follow(&self, place: Place, term: Term) -> Result<Place, FrameError> {
        let (offset, next) = match self {
            Self::Batch(header) => (header.base_offset, header.next_offset()),
            Self::Note(note) => (note.offset, note.offset),
        };
        same("offset", offset.0, place.offset.0)?;
        self.is_of(term)?;
        if let Self::Note(note) = self {
            let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            same("index", number(note.index.0), number(place.index.0))?;
            same("term", number(note.term.0), number(term.0))?;
        }
        Ok(Place { offset: next, index: place.index.next() })
    }
}

impl Note {
    /// The bytes of a note.
    pub fn encode(kind: NoteKind, place: Place, term: Term, payload: &[u8]) -> Bytes {
        let size = NOTE_HEADER_BYTES + payload.len();
        let mut bytes = BytesMut::with_capacity(size);
        bytes.put_i64(place.offset.0);
        bytes.put_u32(u32::try_from(size - PREFIX_BYTES).unwrap_or(u32::MAX));
        bytes.put_i32(epoch_of(term));
        bytes.put_u8(NOTE_MAGIC);
        bytes.put_u32(0);
        bytes.put_u8(NOTE_VERSION);
        bytes.put_u8(match kind {
            NoteKind::Empty => 1,
            NoteKind::Membership => 2,
            NoteKind::Start => 3,
        });
        bytes.put_i64(place.offset.0);
        bytes.put_u64(place.index.0);
        bytes.put_u64(term.0);
        bytes.put_slice(payload);
        let crc = crc32c(&bytes[CRC_FROM..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes.freeze()
    }

    /// What follows the header of a note that was checked.
    pub fn payload<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[NOTE_HEADER_BYTES..self.size_bytes]
    }

    /// The start that a note of that kind speaks of; `None` for anything else. `bytes` were checked before.
    pub fn start_of(bytes: &[u8]) -> Option<Offset> {
        let is_note = bytes.get(PEEK_BYTES - 1) == Some(&NOTE_MAGIC);
        let note = is_note.then(|| Self::parse(bytes).ok())?.filter(|note| note.kind == NoteKind::Start)?;
        note.payload(bytes).first_chunk().map(|start| Offset(i64::from_be_bytes(*start)))
    }

    fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        let size_bytes = note_size(bytes)?;
        if bytes.len() < size_bytes {
            return Err(BatchError::Truncated { have: bytes.len(), need: size_bytes }.into());
        }
        let (version, kind) = (bytes[21], bytes[22]);
        let kind = match (version, kind) {
            (NOTE_VERSION, 1) => NoteKind::Empty,
            (NOTE_VERSION, 2) => NoteKind::Membership,
            (NOTE_VERSION, 3) => NoteKind::Start,
            _ => return Err(FrameError::Note { version, kind }),
        };
        let offset = i64::from_be_bytes(array(bytes, 23));
        let before = i64::from_be_bytes(array(bytes, 0));
        if offset < 0 || offset != before {
            return Err(FrameError::OutOfPlace { what: "offset", found: before, expected: offset });
        }
        let term = Term(u64::from_be_bytes(array(bytes, 39)));
        // Under no checksum.
        same("leader epoch", i64::from(i32::from_be_bytes(array(bytes, 12))), i64::from(epoch_of(term)))?;
        let index = LogIndex(u64::from_be_bytes(array(bytes, 31)));
        Ok(Self { kind, size_bytes, offset: Offset(offset), index, term })
    }
}

fn same(what: &'static str, found: i64, expected: i64) -> Result<(), FrameError> {
    if found == expected { Ok(()) } else { Err(FrameError::OutOfPlace { what, found, expected }) }
}

/// A term as the Kafka wire and the batch header have it.
pub(crate) fn epoch_of(term: Term) -> i32 {
    i32::try_from(term.0).unwrap_or(i32::MAX)
}

fn note_size(bytes: &[u8]) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(array(bytes, 8));
    let size = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(PREFIX_BYTES);
    if (NOTE_HEADER_BYTES..=NOTE_HEADER_BYTES + NOTE_BYTES_MAX).contains(&size) {
        Ok(size)
    } else {
        Err(BatchError::Length(i64::from(length)).into())
    }
}

/// `N` bytes at `at`; the caller has seen that they are there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

const _: () = assert!(NOTE_HEADER_BYTES > PEEK_BYTES && HEADER_BYTES > PEEK_BYTES, "every frame can be peeked at");

#[cfg(test)]
mod tests;
