//! The sparse index of a log file: which batch lies about where, and how old what is before it.
//!
//! A help, never a truth: it is rebuilt from the log file whenever it is missing or does not fit. On disk
//! it is the `.idx` file of docs/formats/log-file.md.

use base::checksum::crc32c;
use base::{LogIndex, Offset, Timestamp};
use bytes::{BufMut, Bytes, BytesMut};

use crate::file::FileName;
use crate::limits::INDEX_FILE_BYTES_MAX;

pub(crate) const INDEX_HEADER_BYTES: usize = 80;
const ENTRY_BYTES: usize = 24;
const MAGIC: &[u8; 4] = b"SWIX";
const VERSION: u16 = 1;

/// What is known of a log file without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Summary {
    /// Bytes of the log file this speaks of.
    pub bytes: u64,
    pub next_offset: Offset,
    pub next_index: LogIndex,
    /// -1 if there is no record.
    pub max_timestamp: Timestamp,
    /// Wall clock of the last append.
    pub last_append: Timestamp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IndexEntry {
    pub offset: u32,
    pub index: u32,
    pub position: u32,
    /// Largest timestamp of all batches before `position`; -1 if none.
    pub max_before: Timestamp,
}

/// Entries by rising offset, index and position; relative to the file's base.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct SparseIndex {
    entries: Vec<IndexEntry>,
}

impl SparseIndex {
    /// Notes a batch, if the last one noted is at least `step_bytes` before it.
    pub fn note(&mut self, step_bytes: u64, entry: IndexEntry) {
        let last = self.entries.last().map_or(0, |last| last.position);
        if u64::from(entry.position) >= u64::from(last) + step_bytes.max(1) {
            self.entries.push(entry);
        }
    }

    /// Where to look for the batch that contains `offset` (relative): at this position or after it; and
    /// the relative offset of what lies there.
    pub fn position_of_offset(&self, offset: u64) -> (u64, u32) {
        let count = self.entries.partition_point(|entry| u64::from(entry.offset) <= offset);
        let entry = count.checked_sub(1).map(|at| self.entries[at]);
        entry.map_or((0, 0), |entry| (u64::from(entry.position), entry.offset))
    }

    /// As `position_of_offset`, and the largest timestamp of all batches before that position.
    pub fn before_offset(&self, offset: u64) -> (u64, Timestamp) {
        let count = self.entries.partition_point(|entry| u64::from(entry.offset) <= offset);
        let entry = count.checked_sub(1).map(|at| self.entries[at]);
        entry.map_or((0, Timestamp(-1)), |entry| (u64::from(entry.position), entry.max_before))
    }

    /// Where to look for the entry `index` (relative), and the relative index of what lies there.
    pub fn position_of_index(&self, index: u64) -> (u64, u64) {
        let count = self.entries.partition_point(|entry| u64::from(entry.index) <= index);
        let entry = count.checked_sub(1).map(|at| self.entries[at]);
        entry.map_or((0, 0), |entry| (u64::from(entry.position), u64::from(entry.index)))
    }

    /// The last entry at or before the entry `index` (relative), or the start of the file.
    pub fn near_index(&self, index: u64) -> IndexEntry {
        let count = self.entries.partition_point(|entry| u64::from(entry.index) <= index);
        let start = IndexEntry { offset: 0, index: 0, position: 0, max_before: Timestamp(-1) };
        count.checked_sub(1).map_or(start, |at| self.entries[at])
    }

    /// The entries of what lies before `position`.
    pub fn below(&self, position: u64) -> Self {
        let count = self.entries.partition_point(|entry| u64::from(entry.position) < position);
        Self { entries: self.entries[..count].to_vec() }
    }

    /// Where to look for the first batch at or after `time`.
    pub fn position_of_time(&self, time: Timestamp) -> u64 {
        let count = self.entries.partition_point(|entry| entry.max_before < time);
        count.checked_sub(1).map_or(0, |at| u64::from(self.entries[at].position))
    }

    /// The `.idx` file.
    pub fn encode(&self, name: FileName, summary: Summary) -> Bytes {
        let mut bytes = BytesMut::with_capacity(INDEX_HEADER_BYTES + self.entries.len() * ENTRY_BYTES + 4);
        bytes.put_slice(MAGIC);
        bytes.put_u16(VERSION);
        bytes.put_u16(0);
        bytes.put_i64(name.base_offset.0);
        bytes.put_u64(name.base_index.0);
        bytes.put_u64(name.term.0);
        bytes.put_u64(summary.bytes);
        bytes.put_i64(summary.next_offset.0);
        bytes.put_u64(summary.next_index.0);
        bytes.put_i64(summary.max_timestamp.0);
        bytes.put_i64(summary.last_append.0);
        bytes.put_u32(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        bytes.put_u32(crc32c(&bytes[..INDEX_HEADER_BYTES - 4]));
        for entry in &self.entries {
            bytes.put_u32(entry.offset);
            bytes.put_u32(entry.index);
            bytes.put_u32(entry.position);
            bytes.put_u32(0);
            bytes.put_i64(entry.max_before.0);
        }
        bytes.put_u32(crc32c(&bytes[INDEX_HEADER_BYTES..]));
        bytes.freeze()
    }

    /// What an `.idx` file's header says of the log file `name`, and how long the file is then. `None` if
    /// it is no such header.
    pub fn decode_summary(header: &[u8; INDEX_HEADER_BYTES], name: FileName) -> Option<(Summary, u64)> {
        let number = |at: usize| -> u64 {
            let mut out = [0; 8];
            out.copy_from_slice(&header[at..at + 8]);
            u64::from_be_bytes(out)
        };
        let small = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let fits = header[0..4] == *MAGIC
            && header[4..6] == VERSION.to_be_bytes()
            && small(INDEX_HEADER_BYTES - 4) == crc32c(&header[..INDEX_HEADER_BYTES - 4])
            && number(8) == name.base_offset.0.cast_unsigned()
            && number(16) == name.base_index.0
            && number(24) == name.term.0;
        let summary = Summary {
            bytes: number(32),
            next_offset: Offset(number(40).cast_signed()),
            next_index: LogIndex(number(48)),
            max_timestamp: Timestamp(number(56).cast_signed()),
            last_append: Timestamp(number(64).cast_signed()),
        };
        let len = (INDEX_HEADER_BYTES + 4) as u64 + u64::from(small(72)) * ENTRY_BYTES as u64;
        let sane = summary.next_offset >= name.base_offset && summary.next_index >= name.base_index;
        (fits && sane && len <= INDEX_FILE_BYTES_MAX).then_some((summary, len))
    }

    /// The entries of a whole `.idx` file. `None` if they are damaged or out of order.
    pub fn decode(bytes: &[u8], name: FileName) -> Option<(Self, Summary)> {
        let header = bytes.first_chunk::<INDEX_HEADER_BYTES>()?;
        let (summary, len) = Self::decode_summary(header, name)?;
        if bytes.len() as u64 != len {
            return None;
        }
        let (body, crc) = bytes[INDEX_HEADER_BYTES..].split_last_chunk::<4>()?;
        if crc32c(body) != u32::from_be_bytes(*crc) {
            return None;
        }
        let entries: Vec<IndexEntry> = body
            .chunks_exact(ENTRY_BYTES)
            .map(|entry| {
                let small = |at: usize| u32::from_be_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
                let time = (u64::from(small(16)) << 32 | u64::from(small(20))).cast_signed();
                let max_before = Timestamp(time);
                IndexEntry { offset: small(0), index: small(4), position: small(8), max_before }
            })
            .collect();
        let rising = entries.is_sorted_by(|a, b| a.position < b.position && a.offset <= b.offset && a.index < b.index);
        let inside = entries.last().is_none_or(|last| u64::from(last.position) < summary.bytes);
        (rising && inside).then_some((Self { entries }, summary))
    }
}

#[cfg(test)]
mod tests;
