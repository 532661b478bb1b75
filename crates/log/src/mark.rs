//! The mark: how far a partition's log is known to be durable, and where it starts.
//!
//! Two slots. A write goes into the one that does not hold the last synced mark, so that a torn write
//! leaves that one. What always holds: a slot never says more than was durable when it was written, so an
//! old slot is as true as a new one, only further behind.

use std::sync::Arc;

use base::checksum::crc32c;
use base::disk::{Disk, DiskError, DiskFile};
use base::{LogIndex, Offset, Term};

pub(crate) const MARK_NAME: &str = "mark";
const MAGIC: &[u8; 4] = b"SWMK";
const VERSION: u16 = 2;
const SLOT_BYTES: usize = 96;
const SLOT_BYTES_V1: usize = 64;

/// One of the two places.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slot {
    A,
    B,
}

impl Slot {
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    const fn position(self) -> u64 {
        match self {
            Self::A => 0,
            Self::B => 4096,
        }
    }
}

/// What a slot says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    pub sequence: u64,
    /// Everything up to this entry is durable.
    pub flushed_index: LogIndex,
    /// The offset after it.
    pub flushed_offset: Offset,
    /// Records below are deleted.
    pub start: Offset,
    /// Entries up to this one are gone, with their files.
    pub trimmed_index: LogIndex,
    pub trimmed_term: Term,
    /// What is decided, as far as was known; not above what is flushed.
    pub committed_index: LogIndex,
    pub committed_offset: Offset,
    /// A leader gave the producers as they were after this entry, which may lie above the log's end.
    pub seeded_index: LogIndex,
    /// Not zero: this disk lost entries it had promised to keep. No vote, until it has a committed entry of
    /// this term or a later one.
    pub repair_term: Term,
}

impl Mark {
    /// The mark of a partition nothing was written to.
    pub const NEW: Self = Self {
        sequence: 1,
        flushed_index: LogIndex(0),
        flushed_offset: Offset(0),
        start: Offset(0),
        trimmed_index: LogIndex(0),
        trimmed_term: Term(0),
        committed_index: LogIndex(0),
        committed_offset: Offset(0),
        seeded_index: LogIndex(0),
        repair_term: Term(0),
    };

    /// Creates the file with this in slot A, durably.
    pub fn create(&self, disk: &dyn Disk, dir: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        let path = format!("{dir}/{MARK_NAME}");
        match disk.remove_file(&path) {
            Ok(()) | Err(DiskError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let file = disk.create(&path)?;
        // All of the file's room is taken now, so that a full disk can still be marked.
        file.write_at(Slot::B.position(), &[0; SLOT_BYTES])?;
        self.write(file.as_ref(), Slot::A)?;
        file.sync()?;
        disk.sync_dir(dir)?;
        Ok(file)
    }

    /// The newest valid slot.
    pub fn read(file: &dyn DiskFile) -> Result<Option<(Self, Slot)>, DiskError> {
        let mut newest: Option<(Self, Slot)> = None;
        for slot in [Slot::A, Slot::B] {
            let mut bytes = [0; SLOT_BYTES];
            let count = file.read_at(slot.position(), &mut bytes)?;
            let mark = bytes.get(..count).and_then(Self::decode);
            if let Some(mark) = mark
                && newest.is_none_or(|(newest, _)| newest.sequence < mark.sequence)
            {
                newest = Some((mark, slot));
            }
        }
        Ok(newest)
    }

    /// Writes into `slot`. Not durable before the file is synced.
    pub fn write(&self, file: &dyn DiskFile, slot: Slot) -> Result<(), DiskError> {
        file.write_at(slot.position(), &self.encode())
    }

    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[0..4].copy_from_slice(MAGIC);
        slot[4..6].copy_from_slice(&VERSION.to_be_bytes());
        slot[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        slot[16..24].copy_from_slice(&self.flushed_index.0.to_be_bytes());
        slot[24..32].copy_from_slice(&self.flushed_offset.0.to_be_bytes());
        slot[32..40].copy_from_slice(&self.start.0.to_be_bytes());
        slot[40..48].copy_from_slice(&self.trimmed_index.0.to_be_bytes());
        slot[48..56].copy_from_slice(&self.trimmed_term.0.to_be_bytes());
        slot[56..64].copy_from_slice(&self.committed_index.0.to_be_bytes());
        slot[64..72].copy_from_slice(&self.committed_offset.0.to_be_bytes());
        slot[72..80].copy_from_slice(&self.seeded_index.0.to_be_bytes());
        slot[80..88].copy_from_slice(&self.repair_term.0.to_be_bytes());
        let crc = crc32c(&slot[..SLOT_BYTES - 4]);
        slot[SLOT_BYTES - 4..].copy_from_slice(&crc.to_be_bytes());
        slot
    }

    /// A slot of this version or of the one before, which was written by nodes that were alone: what is
    /// durable is decided there.
    fn decode(slot: &[u8]) -> Option<Self> {
        let version = slot.get(4..6)?;
        let (size, is_first) = match u16::from_be_bytes([version[0], version[1]]) {
            VERSION => (SLOT_BYTES, false),
            1 => (SLOT_BYTES_V1, true),
            _ => return None,
        };
        let (body, crc) = slot.get(..size)?.split_last_chunk::<4>()?;
        if slot[0..4] != *MAGIC || u32::from_be_bytes(*crc) != crc32c(body) {
            return None;
        }
        let number = |at: usize| slot[at..].first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let offset = |at: usize| Offset(number(at).cast_signed());
        let later = |at: usize| if is_first { 0 } else { number(at) };
        let mark = Self {
            sequence: number(8),
            flushed_index: LogIndex(number(16)),
            flushed_offset: offset(24),
            start: offset(32),
            trimmed_index: LogIndex(number(40)),
            trimmed_term: Term(number(48)),
            committed_index: LogIndex(number(if is_first { 16 } else { 56 })),
            committed_offset: offset(if is_first { 24 } else { 64 }),
            seeded_index: LogIndex(later(72)),
            repair_term: Term(later(80)),
        };
        let sane = mark.start.0 >= 0
            && mark.flushed_offset.0 >= 0
            && (0..=mark.flushed_offset.0).contains(&mark.committed_offset.0)
            && mark.committed_index <= mark.flushed_index;
        sane.then_some(mark)
    }
}

#[cfg(test)]
mod tests;
