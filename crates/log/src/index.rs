//! The sparse index of a log file: which batch lies about where, and how old what is before it.
//!
//! A help, never a truth: it is rebuilt from the log file whenever it is missing or does not fit. On disk
//! it is the `.idx` file of docs/formats/log-file.md.

use base::checksum::crc32c;
use base::{LogIndex, Offset, Timestamp};
use bytes::{BufMut, Bytes, BytesMut};

use crate::file::FileName;
use crate::limits::INDEX_FILE_BYTES_MAX;
use crate::stable::{ABORTED_BYTES, Aborted};

pub(crate) const INDEX_HEADER_BYTES: usize = 80;
const ENTRY_BYTES: usize = 24;
const MAGIC: &[u8; 4] = b"SWIX";
/// Nothing was aborted in the file.
const VERSION_PLAIN: u16 = 1;
const VERSION: u16 = 2;
/// In place of a number of aborted transactions.
const UNKNOWN: u32 = u32::MAX;

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

/// The transactions that were aborted in a file, by rising marker. `None`: not known, to be read from the log.
pub(crate) type AbortedList = Option<Vec<Aborted>>;

/// What an `.idx` file's header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IndexHeader {
    pub summary: Summary,
    /// Nothing was aborted in the file.
    pub is_plain: bool,
    /// Up to the end of the entries.
    entries_end: u64,
}

/// What an `.idx` file holds.
pub(crate) struct IndexFile {
    pub index: SparseIndex,
    pub summary: Summary,
    pub aborted: AbortedList,
}

impl IndexHeader {
    /// True if an `.idx` file with this header may be this long.
    pub fn fits(&self, len: u64) -> bool {
        let plain = self.entries_end + 4;
        let rest = len.checked_sub(plain + 4);
        len <= INDEX_FILE_BYTES_MAX
            && if self.is_plain {
                len == plain
            } else {
                rest.is_some_and(|rest| rest.is_multiple_of(ABORTED_BYTES as u64))
            }
    }
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

    /// The first entry after the entry `index` (relative), if there is one.
    pub fn after_index(&self, index: u64) -> Option<IndexEntry> {
        let at = self.entries.partition_point(|entry| u64::from(entry.index) <= index);
        self.entries.get(at).copied()
    }

    /// The last entry at or before `position`, if there is one.
    pub fn near_position(&self, position: u64) -> Option<IndexEntry> {
        let count = self.entries.partition_point(|entry| u64::from(entry.position) <= position);
        self.entries.get(count.checked_sub(1)?).copied()
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
    pub fn encode(&self, name: FileName, summary: Summary, aborted: Option<&[Aborted]>) -> Bytes {
        let mut bytes = BytesMut::with_capacity(INDEX_HEADER_BYTES + self.entries.len() * ENTRY_BYTES + 4);
        let is_plain = aborted.is_some_and(<[Aborted]>::is_empty);
        bytes.put_slice(MAGIC);
        bytes.put_u16(if is_plain { VERSION_PLAIN } else { VERSION });
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
        if !is_plain {
            bytes.put_u32(aborted.map_or(UNKNOWN, |list| u32::try_from(list.len()).unwrap_or(UNKNOWN)));
            aborted.unwrap_or_default().iter().for_each(|one| one.encode(&mut bytes));
        }
        bytes.put_u32(crc32c(&bytes[INDEX_HEADER_BYTES..]));
        bytes.freeze()
    }

    /// What an `.idx` file's header says of the log file `name`. `None` if it is no such header.
    pub fn decode_header(header: &[u8; INDEX_HEADER_BYTES], name: FileName) -> Option<IndexHeader> {
        let number = |at: usize| -> u64 {
            let mut out = [0; 8];
            out.copy_from_slice(&header[at..at + 8]);
            u64::from_be_bytes(out)
        };
        let small = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let is_plain = header[4..6] == VERSION_PLAIN.to_be_bytes();
        let fits = header[0..4] == *MAGIC
            && (is_plain || header[4..6] == VERSION.to_be_bytes())
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
        let entries_end = INDEX_HEADER_BYTES as u64 + u64::from(small(72)) * ENTRY_BYTES as u64;
        let sane = summary.next_offset >= name.base_offset && summary.next_index >= name.base_index;
        let header = IndexHeader { summary, is_plain, entries_end };
        (fits && sane && entries_end + 4 <= INDEX_FILE_BYTES_MAX).then_some(header)
    }

    /// A whole `.idx` file. `None` if it is damaged or out of order.
    pub fn decode(bytes: &[u8], name: FileName) -> Option<IndexFile> {
        let header = Self::decode_header(bytes.first_chunk::<INDEX_HEADER_BYTES>()?, name)?;
        if !header.fits(bytes.len() as u64) {
            return None;
        }
        let (body, crc) = bytes[INDEX_HEADER_BYTES..].split_last_chunk::<4>()?;
        if crc32c(body) != u32::from_be_bytes(*crc) {
            return None;
        }
        let entries_bytes = usize::try_from(header.entries_end).ok()? - INDEX_HEADER_BYTES;
        let (entries, rest) = body.split_at_checked(entries_bytes)?;
        let aborted = if header.is_plain { Some(Vec::new()) } else { decode_aborted(rest)? };
        let entries: Vec<IndexEntry> = entries
            .chunks_exact(ENTRY_BYTES)
            .map(|entry| {
                let small = |at: usize| u32::from_be_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
                let time = (u64::from(small(16)) << 32 | u64::from(small(20))).cast_signed();
                let max_before = Timestamp(time);
                IndexEntry { offset: small(0), index: small(4), position: small(8), max_before }
            })
            .collect();
        let summary = header.summary;
        let rising = entries.is_sorted_by(|a, b| a.position < b.position && a.offset <= b.offset && a.index < b.index);
        let inside = entries.last().is_none_or(|last| u64::from(last.position) < summary.bytes);
        (rising && inside).then_some(IndexFile { index: Self { entries }, summary, aborted })
    }
}

/// `None` if it is not as long as it says, or out of order.
fn decode_aborted(bytes: &[u8]) -> Option<AbortedList> {
    let (count, rest) = bytes.split_first_chunk::<4>()?;
    let count = u32::from_be_bytes(*count);
    if count == UNKNOWN {
        return rest.is_empty().then_some(None);
    }
    let list: Vec<Aborted> = rest.chunks_exact(ABORTED_BYTES).map(Aborted::decode).collect();
    let is_whole = list.len() * ABORTED_BYTES == rest.len() && u32::try_from(list.len()) == Ok(count);
    let rising = list.is_sorted_by(|a, b| a.last < b.last) && list.iter().all(|one| one.first < one.last);
    (is_whole && rising).then_some(Some(list))
}

#[cfg(test)]
mod tests;
