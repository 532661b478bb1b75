//! lost+found: what this replica had written and another leader's records have replaced.
//!
//! Drawn in docs/formats/log-file.md. A suffix is saved before it is cut off, one file for each cut, with what is
//! known of each batch: whether its producer had been told that it is written. What always holds: the folder
//! never holds more than the topic allows; what is dropped to make room is the oldest, and counted; a disk
//! without room costs what would have been saved, never the replica.

use std::collections::VecDeque;
use std::sync::Arc;

use base::batch::BatchHeader;
use base::checksum::crc32c;
use base::disk::{Disk, DiskError, DiskFile};
use base::{LogIndex, Offset, ProducerId, Term, Timestamp};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::config::LostPolicy;
use crate::file::LogFile;
use crate::flush::{remove_if_there, unless_full};
use crate::frame::{Frame, Place};
use crate::limits::{ACKED_RANGES_MAX, LOST_MANIFEST_BYTES_MAX, LOST_SETTLED_MS, SCAN_BYTES};
use crate::scan::Scanner;

mod settle;

pub use settle::{SettleDone, SettleJob};

const FOLDER: &str = "lost+found";
const SUFFIX: &str = ".lost";
const MAGIC: &[u8; 4] = b"SWLF";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 48;
const ENTRY_BYTES: usize = 56;

/// Whether a lost batch had been acknowledged to its producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acked {
    No,
    Yes,
    /// Written before this process started: nobody knows any more.
    Unknown,
}

/// What became of a lost batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LostState {
    /// Its bytes are here.
    Kept,
    /// In the log again, as a new batch.
    Republished,
    /// In the log after all: another leader still had it, or its producer sent it again. Its bytes are here.
    Returned,
    /// Given up: by the topic's policy, or by hand.
    Dropped,
}

impl LostState {
    fn of(byte: u8) -> Option<Self> {
        [Self::Kept, Self::Republished, Self::Returned, Self::Dropped].into_iter().find(|state| state.byte() == byte)
    }

    const fn byte(self) -> u8 {
        match self {
            Self::Kept => 0,
            Self::Republished => 1,
            Self::Returned => 2,
            Self::Dropped => 3,
        }
    }

    /// The batch's bytes are in the file.
    #[must_use]
    pub const fn has_bytes(self) -> bool {
        matches!(self, Self::Kept | Self::Returned)
    }
}

/// A suffix of the log that was replaced, saved in `lost+found/`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LostFound {
    /// Below the root of the disk.
    pub path: String,
    /// When it was saved.
    pub saved_at: Timestamp,
    /// The leadership whose records took its place.
    pub replaced_by: Term,
    /// Batches that were not saved or have been dropped since the partition was made, this cut included.
    pub dropped_batches: u64,
    pub size_bytes: u64,
    /// In the order they were written.
    pub batches: Vec<LostBatch>,
}

/// One batch of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LostBatch {
    pub term: Term,
    pub base_offset: Offset,
    pub next_offset: Offset,
    pub records: u32,
    pub producer: ProducerId,
    pub acked: Acked,
    /// Part of a transaction, or its end: never to be published again, for the transaction went on elsewhere.
    pub transactional: bool,
    pub state: LostState,
    /// Where it lies in the file.
    pub position: u64,
    /// 0 if its bytes are no longer there.
    pub size_bytes: u32,
}

impl LostBatch {
    pub(crate) fn give_up(&mut self, state: LostState) {
        self.state = state;
        if !state.has_bytes() {
            self.size_bytes = 0;
        }
    }
}

impl LostFound {
    /// Batches whose fate is open.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.batches.iter().filter(|batch| batch.state == LostState::Kept).count() as u64
    }

    /// All that was to be done about it was done long ago.
    pub(crate) fn is_over(&self, wall: Timestamp) -> bool {
        self.kept() == 0 && wall.0.saturating_sub(self.saved_at.0) >= LOST_SETTLED_MS
    }
}

/// What was acknowledged before it was committed: ranges of offsets, none touching another, rising.
#[derive(Clone, Default, Debug)]
pub(crate) struct AckedRanges {
    /// Below this no one knows: it was written by an earlier process.
    unknown_below: Offset,
    ranges: VecDeque<(Offset, Offset)>,
}

impl AckedRanges {
    pub fn unknown_below(offset: Offset) -> Self {
        Self { unknown_below: offset, ranges: VecDeque::new() }
    }

    pub fn note(&mut self, from: Offset, to: Offset) {
        if from >= to {
            return;
        }
        let is_full = self.ranges.len() >= ACKED_RANGES_MAX;
        match self.ranges.back_mut() {
            Some((_, end)) if *end >= from => *end = (*end).max(to),
            Some((_, end)) if is_full => *end = to,
            _ => self.ranges.push_back((from, to)),
        }
    }

    /// What is committed cannot be lost.
    pub fn forget_below(&mut self, offset: Offset) {
        while self.ranges.pop_front_if(|(_, to)| *to <= offset).is_some() {}
    }

    pub fn forget_from(&mut self, offset: Offset) {
        while self.ranges.pop_back_if(|(from, _)| *from >= offset).is_some() {}
        if let Some((_, to)) = self.ranges.back_mut() {
            *to = (*to).min(offset);
        }
        self.unknown_below = self.unknown_below.min(offset);
    }

    fn of(&self, header: &BatchHeader) -> Acked {
        let at = self.ranges.partition_point(|(_, to)| *to <= header.base_offset);
        match self.ranges.get(at) {
            Some((from, _)) if *from < header.next_offset() => Acked::Yes,
            _ if header.base_offset < self.unknown_below => Acked::Unknown,
            _ => Acked::No,
        }
    }
}

/// What saving needs to know.
#[derive(Debug)]
pub(crate) struct Saver {
    pub acked: AckedRanges,
    pub policy: LostPolicy,
    pub bytes_max: u64,
    pub wall: Timestamp,
    pub replaced_by: Term,
    /// What is there, oldest first: path, bytes, batches that are kept.
    pub there: Vec<(String, u64, u64)>,
    pub dropped_batches: u64,
}

pub(crate) struct Saved {
    pub lost: Option<LostFound>,
    pub dropped_paths: Vec<String>,
    pub dropped_batches: u64,
}

/// A batch above the cut: its file, position, and what the manifest says.
type Lost = (usize, u64, LogIndex, LostBatch);

impl Saver {
    /// Saves the batches of `files` from `place` on, as far as room is allowed. `None`: the disk has no room for them now, and
    /// they must not go before they are saved.
    pub fn save(
        &self,
        disk: &dyn Disk,
        dir: &str,
        files: &[Arc<LogFile>],
        place: Place,
    ) -> Result<Option<Saved>, DiskError> {
        let mut lost = self.above(files, place);
        let mut dropped_batches = self.dropped_batches;
        let mut dropped_paths = Vec::new();
        if self.policy == LostPolicy::Drop {
            // What they were is still told.
            dropped_batches += lost.len() as u64;
            lost.iter_mut().for_each(|(.., batch)| batch.give_up(LostState::Dropped));
        }
        let size = |lost: &[Lost]| {
            let bytes: u64 = lost.iter().map(|(.., batch)| u64::from(batch.size_bytes)).sum();
            bytes + (HEADER_BYTES + lost.len() * ENTRY_BYTES + 4) as u64
        };
        let too_many = lost.iter().rev().scan(0, |bytes, (.., batch)| {
            *bytes += u64::from(batch.size_bytes) + ENTRY_BYTES as u64;
            Some(*bytes)
        });
        let fit = too_many.take_while(|bytes| bytes + (HEADER_BYTES as u64 + 4) <= self.bytes_max).count();
        let kept = |lost: &[Lost]| lost.iter().filter(|(.., batch)| batch.state == LostState::Kept).count() as u64;
        dropped_batches += kept(&lost[..lost.len() - fit]);
        lost.drain(..lost.len() - fit);
        if lost.is_empty() {
            return Ok(Some(Saved { lost: None, dropped_paths, dropped_batches }));
        }
        let mut total = size(&lost) + self.there.iter().map(|(_, bytes, _)| bytes).sum::<u64>();
        for (path, bytes, batches) in &self.there {
            if total <= self.bytes_max {
                break;
            }
            remove_if_there(disk, path)?;
            total -= bytes;
            dropped_batches += batches;
            dropped_paths.push(path.clone());
        }
        match self.write(disk, dir, files, &lost, dropped_batches) {
            Ok(saved) => Ok(Some(Saved { lost: Some(saved), dropped_paths, dropped_batches })),
            Err(DiskError::Full { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The batches from `place` on. What cannot be read is not there to be saved.
    fn above(&self, files: &[Arc<LogFile>], place: Place) -> Vec<Lost> {
        let mut lost = Vec::new();
        for (at, file) in files.iter().enumerate().filter(|(_, file)| file.next_offset() > place.offset) {
            let relative = place.index.0.saturating_sub(file.name.base_index.0);
            let Ok((position, ahead)) = file.with_index(|index| index.position_of_index(relative)) else { continue };
            let Ok(handle) = file.handle() else { continue };
            let mut index = file.name.base_index.plus(ahead);
            let mut scanner = Scanner::new(handle.as_ref(), position, file.len_bytes(), SCAN_BYTES);
            while let Ok(Some((position, frame, _))) = scanner.next() {
                if let Frame::Batch(header) = frame
                    && header.base_offset >= place.offset
                {
                    let batch = LostBatch {
                        term: file.name.term,
                        base_offset: header.base_offset,
                        next_offset: header.next_offset(),
                        records: header.record_count.unsigned_abs(),
                        producer: header.producer_id,
                        acked: self.acked.of(&header),
                        transactional: header.is_transactional(),
                        state: LostState::Kept,
                        position: 0,
                        size_bytes: u32::try_from(header.size_bytes).unwrap_or(u32::MAX),
                    };
                    lost.push((at, position, index, batch));
                }
                index = index.next();
            }
        }
        lost
    }

    fn write(
        &self,
        disk: &dyn Disk,
        dir: &str,
        files: &[Arc<LogFile>],
        lost: &[Lost],
        dropped_batches: u64,
    ) -> Result<LostFound, DiskError> {
        let folder = format!("{dir}/{FOLDER}");
        disk.create_dir_all(&folder)?;
        let (_, _, index, first) = lost[0];
        let path = format!("{folder}/{:020}-{:020}-{:010}{SUFFIX}", first.base_offset.0, index.0, first.term.0);
        let temporary = format!("{path}.tmp");
        remove_if_there(disk, &temporary)?;
        let mut position = (HEADER_BYTES + lost.len() * ENTRY_BYTES + 4) as u64;
        let mut batches = Vec::with_capacity(lost.len());
        for (.., batch) in lost {
            batches.push(LostBatch { position, ..*batch });
            position += u64::from(batch.size_bytes);
        }
        let found = LostFound {
            path: path.clone(),
            saved_at: self.wall,
            replaced_by: self.replaced_by,
            dropped_batches,
            size_bytes: position,
            batches,
        };
        let file = disk.create(&temporary)?;
        let written = file.append(&[&encode(&found)]).and_then(|_| copy(files, lost, file.as_ref()));
        if !unless_full(written.and_then(|()| file.sync()))? {
            remove_if_there(disk, &temporary)?;
            return Err(DiskError::Full { path });
        }
        disk.rename(&temporary, &path)?;
        disk.sync_dir(&folder)?;
        Ok(found)
    }
}

/// Copies the batches as they are.
fn copy(files: &[Arc<LogFile>], lost: &[Lost], to: &dyn DiskFile) -> Result<(), DiskError> {
    let mut buffer = Vec::new();
    for (at, position, _, batch) in lost {
        buffer.resize(batch.size_bytes as usize, 0);
        files[*at].handle()?.read_at(*position, &mut buffer)?;
        to.append(&[&buffer])?;
    }
    Ok(())
}

/// What lies in the folder, oldest first, and the names of what cannot be read. Forgets what was over long ago.
pub(crate) fn list(disk: &dyn Disk, dir: &str, wall: Timestamp) -> Result<(Vec<LostFound>, Vec<String>), DiskError> {
    let folder = format!("{dir}/{FOLDER}");
    let entries = match disk.list(&folder) {
        Ok(entries) => entries,
        Err(DiskError::NotFound { .. }) => return Ok((Vec::new(), Vec::new())),
        Err(error) => return Err(error),
    };
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    for entry in entries.iter().filter(|entry| !entry.is_dir) {
        let path = format!("{folder}/{}", entry.name);
        if !entry.name.ends_with(SUFFIX) {
            remove_if_there(disk, &path)?;
            continue;
        }
        match read(disk, &path)? {
            Some(one) if one.is_over(wall) => remove_if_there(disk, &path)?,
            Some(one) => found.push(one),
            None => unreadable.push(path),
        }
    }
    found.sort_by(|a, b| (a.saved_at, &a.path).cmp(&(b.saved_at, &b.path)));
    Ok((found, unreadable))
}

fn read(disk: &dyn Disk, path: &str) -> Result<Option<LostFound>, DiskError> {
    let file = disk.open(path)?;
    let mut header = [0; HEADER_BYTES];
    if file.read_at(0, &mut header)? < HEADER_BYTES {
        return Ok(None);
    }
    let Some(len) = manifest_bytes(&header).filter(|len| *len as u64 <= file.len_bytes()) else { return Ok(None) };
    let mut bytes = vec![0; len];
    let count = file.read_at(0, &mut bytes)?;
    Ok(decode(&bytes[..count], path, file.len_bytes()))
}

/// The bytes of one batch of it.
pub(crate) fn read_batch(disk: &dyn Disk, path: &str, batch: &LostBatch) -> Result<Bytes, DiskError> {
    let mut bytes = BytesMut::zeroed(batch.size_bytes as usize);
    let count = disk.open(path)?.read_at(batch.position, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes.freeze())
}

fn encode(found: &LostFound) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + found.batches.len() * ENTRY_BYTES + 4);
    bytes.put_slice(MAGIC);
    bytes.put_u16(VERSION);
    bytes.put_u16(0);
    bytes.put_i64(found.saved_at.0);
    bytes.put_u64(found.replaced_by.0);
    bytes.put_u64(found.dropped_batches);
    bytes.put_u64(0);
    bytes.put_u32(u32::try_from(found.batches.len()).unwrap_or(0));
    bytes.put_u32(crc32c(&bytes));
    for batch in &found.batches {
        bytes.put_u64(batch.term.0);
        bytes.put_i64(batch.base_offset.0);
        bytes.put_i64(batch.next_offset.0);
        bytes.put_i64(batch.producer.0);
        bytes.put_u64(batch.position);
        bytes.put_u32(batch.size_bytes);
        bytes.put_u32(batch.records);
        bytes.put_u8(match batch.acked {
            Acked::No => 0,
            Acked::Yes => 1,
            Acked::Unknown => 2,
        });
        bytes.put_u8(u8::from(batch.transactional));
        bytes.put_u8(batch.state.byte());
        bytes.put_slice(&[0; 5]);
    }
    bytes.put_u32(crc32c(&bytes[HEADER_BYTES..]));
    bytes.freeze()
}

/// How long the manifest is, from its header; `None` if it is none.
fn manifest_bytes(header: &[u8; HEADER_BYTES]) -> Option<usize> {
    let (body, crc) = header.split_last_chunk::<4>()?;
    let good =
        crc32c(body) == u32::from_be_bytes(*crc) && header[0..4] == *MAGIC && header[4..6] == VERSION.to_be_bytes();
    let count = usize::try_from((&header[40..]).get_u32()).ok()?;
    let len = HEADER_BYTES + count.checked_mul(ENTRY_BYTES)? + 4;
    (good && len <= LOST_MANIFEST_BYTES_MAX).then_some(len)
}

fn decode(bytes: &[u8], path: &str, size_bytes: u64) -> Option<LostFound> {
    let len = manifest_bytes(bytes.first_chunk()?)?;
    let (body, crc) = bytes.get(HEADER_BYTES..len)?.split_last_chunk::<4>()?;
    if crc32c(body) != u32::from_be_bytes(*crc) {
        return None;
    }
    let mut header = &bytes[8..];
    let (saved_at, replaced_by) = (Timestamp(header.get_i64()), Term(header.get_u64()));
    let dropped_batches = header.get_u64();
    let batch = |mut entry: &[u8]| {
        Some(LostBatch {
            term: Term(entry.get_u64()),
            base_offset: Offset(entry.get_i64()),
            next_offset: Offset(entry.get_i64()),
            producer: ProducerId(entry.get_i64()),
            position: entry.get_u64(),
            size_bytes: entry.get_u32(),
            records: entry.get_u32(),
            acked: match entry.get_u8() {
                0 => Acked::No,
                1 => Acked::Yes,
                2 => Acked::Unknown,
                _ => return None,
            },
            transactional: entry.get_u8() == 1,
            state: LostState::of(entry.get_u8())?,
        })
    };
    let batches: Option<Vec<LostBatch>> = body.chunks_exact(ENTRY_BYTES).map(batch).collect();
    let batches = batches?;
    let inside = |batch: &LostBatch| batch.position.saturating_add(u64::from(batch.size_bytes)) <= size_bytes;
    let path = path.to_owned();
    batches.iter().all(inside).then_some(LostFound {
        path,
        saved_at,
        replaced_by,
        dropped_batches,
        size_bytes,
        batches,
    })
}

#[cfg(test)]
mod tests;
