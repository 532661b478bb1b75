//! Reads a partition from any thread, beside its owner and never waiting for it.
//!
//! What always holds: what is given are whole batches whose checksums fit, whose offsets follow one
//! another, and none of which begins at or after the limit asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use base::batch::{BatchError, BatchHeader};
use base::disk::DiskError;
use base::{Offset, Term, Timestamp, records};
use bytes::{Bytes, BytesMut};

use crate::ReadError;
use crate::file::{FileName, LogFile};
use crate::frame::{Frame, FrameError, PEEK_BYTES, epoch_of};
use crate::limits::{READ_BYTES_MAX, SUSPECTS_MAX, TIME_SCAN_BYTES};
use crate::scan::{ScanError, Scanner};
use crate::stable::AbortedTransaction;

mod aborted;

/// How far a read may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadLimit {
    /// Durable on a majority: what consumers see.
    Committed,
    /// Part of no transaction whose end is not committed: what consumers of committed transactions see.
    Stable,
    /// All that was written here.
    End,
}

/// What a read gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// Whole batches, one after another; the first contains the offset asked for. Empty at the limit.
    pub bytes: Bytes,
    /// Where to read on.
    pub next: Offset,
    pub committed: Offset,
    pub stable: Offset,
    pub start: Offset,
    /// Read up to what is stable: what has to be left out of it, by where it begins. Else empty.
    pub aborted: Vec<AbortedTransaction>,
}

/// The part of a partition that owner and readers share.
pub(crate) struct Shared {
    files: RwLock<Arc<[Arc<LogFile>]>>,
    start: AtomicI64,
    committed: AtomicI64,
    stable: AtomicI64,
    end: AtomicI64,
    term: AtomicU64,
    corrupt_reads: AtomicU64,
    corrupt_reason: Mutex<String>,
    /// Files that cannot be read, and where: to be looked at soon.
    suspects: Mutex<BTreeMap<FileName, u64>>,
}

impl Shared {
    pub fn new(files: &[Arc<LogFile>], start: Offset, committed: Offset, end: Offset, term: Term) -> Self {
        Self {
            files: RwLock::new(files.into()),
            start: AtomicI64::new(start.0),
            committed: AtomicI64::new(committed.0),
            stable: AtomicI64::new(start.0),
            end: AtomicI64::new(end.0),
            term: AtomicU64::new(term.0),
            corrupt_reads: AtomicU64::new(0),
            corrupt_reason: Mutex::default(),
            suspects: Mutex::default(),
        }
    }

    /// Counts damage that a reader met, for the owner.
    fn note_corrupt(&self, file: &LogFile, error: ReadError) -> ReadError {
        if let ReadError::Corrupt { position, .. } = &error {
            self.suspect(file.name, *position);
            *self.corrupt_reason.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
            self.corrupt_reads.fetch_add(1, Ordering::AcqRel);
        }
        error
    }

    /// A file cannot be read at `position`.
    pub fn suspect(&self, file: FileName, position: u64) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        if suspects.len() < SUSPECTS_MAX {
            suspects.entry(file).or_insert(position);
        }
    }

    pub fn has_suspects(&self) -> bool {
        !self.suspects.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub fn take_suspect(&self) -> Option<(FileName, u64)> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner).pop_first()
    }

    pub fn take_corrupt_reads(&self) -> Option<(u64, String)> {
        let count = self.corrupt_reads.swap(0, Ordering::AcqRel);
        (count > 0).then(|| (count, self.corrupt_reason.lock().unwrap_or_else(PoisonError::into_inner).clone()))
    }

    pub fn files(&self) -> Arc<[Arc<LogFile>]> {
        Arc::clone(&self.files.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn set_files(&self, files: &[Arc<LogFile>]) {
        *self.files.write().unwrap_or_else(PoisonError::into_inner) = files.into();
    }

    pub fn start(&self) -> Offset {
        Offset(self.start.load(Ordering::Acquire))
    }

    pub fn committed(&self) -> Offset {
        Offset(self.committed.load(Ordering::Acquire))
    }

    pub fn end(&self) -> Offset {
        Offset(self.end.load(Ordering::Acquire))
    }

    pub fn stable(&self) -> Offset {
        Offset(self.stable.load(Ordering::Acquire))
    }

    pub fn set_stable(&self, offset: Offset) {
        self.stable.store(offset.0, Ordering::Release);
    }

    pub fn set_start(&self, offset: Offset) {
        self.start.store(offset.0, Ordering::Release);
    }

    pub fn set_committed(&self, offset: Offset) {
        self.committed.store(offset.0, Ordering::Release);
    }

    pub fn set_end(&self, offset: Offset) {
        self.end.store(offset.0, Ordering::Release);
    }

    pub fn set_term(&self, term: Term) {
        self.term.store(term.0, Ordering::Release);
    }
}

/// Reads a partition. Clones see the same; all see new records, commits and files at once.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Batches from the one that contains `from`, up to `bytes_max` bytes (at most [`READ_BYTES_MAX`]),
    /// but at least one batch if there is any below the limit. One call may give less than there is: read
    /// on at [`Fetched::next`].
    ///
    /// # Errors
    /// `OutOfRange` below the start or past the end; `Corrupt` and `Disk` if the first batch cannot be read.
    pub fn read(&self, from: Offset, bytes_max: usize, limit: ReadLimit) -> Result<Fetched, ReadError> {
        // In this order: what is stable is committed.
        let stable = self.last_stable();
        let (start, committed) = (self.start(), self.committed());
        if from < start || from > self.end() {
            return Err(self.out_of_range(from));
        }
        let stop = match limit {
            ReadLimit::Committed => committed,
            ReadLimit::Stable => stable,
            ReadLimit::End => self.end(),
        };
        let fetched = |bytes, next, aborted| Ok(Fetched { bytes, next, committed, stable, start, aborted });
        if from < stop {
            let files = self.shared.files();
            let first = files.partition_point(|file| file.name.base_offset <= from).saturating_sub(1);
            for file in &files[first..] {
                let read = Read { file, from, stop, bytes_max: bytes_max.min(READ_BYTES_MAX) };
                let with_aborted = |(bytes, next)| match limit {
                    ReadLimit::Stable => Ok((bytes, next, aborted::between(&files, from, next)?)),
                    ReadLimit::Committed | ReadLimit::End => Ok((bytes, next, Vec::new())),
                };
                match read.run().and_then(|read| read.map(with_aborted).transpose()) {
                    Ok(Some((bytes, next, aborted))) => return fetched(bytes, next, aborted),
                    Ok(None) => {}
                    // Trimmed since the check above.
                    Err(ReadError::Disk(DiskError::NotFound { .. })) if from < self.start() => {
                        return Err(self.out_of_range(from));
                    }
                    // Another leader's records take its place, or will.
                    Err(_) if from >= self.end() => return Err(self.out_of_range(from)),
                    Err(error) => return Err(self.shared.note_corrupt(file, error)),
                }
            }
        }
        fetched(Bytes::new(), from, Vec::new())
    }

    /// The first committed record at or after `time`, and its time.
    ///
    /// # Errors
    /// `Corrupt` or `Disk` if the files in question cannot be read.
    pub fn offset_for_time(&self, time: Timestamp) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        let committed = self.committed();
        for file in self.shared.files().iter().filter(|file| file.max_timestamp() >= time) {
            match self.search(file, time, committed) {
                Ok(None) => {}
                Err(ReadError::Disk(DiskError::NotFound { .. })) if file.next_offset() <= self.start() => {}
                found => return found.map_err(|error| self.shared.note_corrupt(file, error)),
            }
        }
        Ok(None)
    }

    /// The first of the committed records with the largest timestamp, and that timestamp.
    ///
    /// # Errors
    /// As [`Reader::offset_for_time`].
    pub fn max_timestamp(&self) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        let committed = self.committed();
        let mut newest: Option<Timestamp> = None;
        for file in self.shared.files().iter().filter(|file| file.name.base_offset < committed) {
            let time = if file.next_offset() <= committed {
                file.max_timestamp()
            } else {
                Self::max_timestamp_below(file, committed)?
            };
            newest = newest.max(Some(time));
        }
        match newest.filter(|time| time.0 >= 0) {
            Some(time) => self.offset_for_time(time),
            None => Ok(None),
        }
    }

    /// The largest timestamp of the batches below `committed` in a file that goes on after it.
    fn max_timestamp_below(file: &LogFile, committed: Offset) -> Result<Timestamp, ReadError> {
        let failed = |error| read_error(file, error);
        let relative = (committed.0 - file.name.base_offset.0).max(0).unsigned_abs();
        let (position, mut newest) = file.with_index(|index| index.before_offset(relative)).map_err(failed)?;
        let handle = file.handle()?;
        let mut scanner = Scanner::new(handle.as_ref(), position, file.len_bytes(), TIME_SCAN_BYTES);
        while let Some((_, frame, _)) = scanner.next().map_err(failed)? {
            match frame {
                Frame::Batch(header) if header.base_offset >= committed => break,
                Frame::Batch(header) => newest = newest.max(header.max_timestamp),
                Frame::Note(_) => {}
            }
        }
        Ok(newest)
    }

    /// The current leadership, as clients number it: what metadata and fetch answers tell.
    #[must_use]
    pub fn leader_epoch(&self) -> i32 {
        epoch_of(Term(self.shared.term.load(Ordering::Acquire)))
    }

    /// The largest leader epoch with records that is not above `leader_epoch`, and the offset after its
    /// last committed record. (-1, -1) if the epoch is unknown, as Kafka's OffsetForLeaderEpoch.
    #[must_use]
    pub fn epoch_end(&self, leader_epoch: i32) -> (i32, Offset) {
        let files = self.shared.files();
        let current = self.leader_epoch();
        let epoch = |file: &Arc<LogFile>| epoch_of(file.name.term);
        if leader_epoch < 0 || leader_epoch > current {
            return (-1, Offset(-1));
        }
        let below = files.partition_point(|file| epoch(file) <= leader_epoch);
        let end = files.get(below).map_or(self.committed(), |next| next.name.base_offset.min(self.committed()));
        let found = below.checked_sub(1).map_or(leader_epoch, |at| epoch(&files[at]));
        (found, end)
    }

    /// The high watermark: the first offset that is not committed.
    #[must_use]
    pub fn committed(&self) -> Offset {
        self.shared.committed()
    }

    /// The first offset that may belong to a transaction whose end is not committed; at most the committed one.
    #[must_use]
    pub fn last_stable(&self) -> Offset {
        let stable = self.shared.stable();
        stable.max(self.start()).min(self.committed())
    }

    /// The first offset not written.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.shared.end()
    }

    /// The first offset that is not deleted.
    #[must_use]
    pub fn start(&self) -> Offset {
        self.shared.start()
    }

    /// Of all log files.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared.files().iter().map(|file| file.len_bytes()).sum()
    }

    fn out_of_range(&self, offset: Offset) -> ReadError {
        ReadError::OutOfRange { offset, start: self.start(), end: self.end() }
    }

    fn search(
        &self,
        file: &LogFile,
        time: Timestamp,
        committed: Offset,
    ) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        let start = self.start();
        let failed = |error| read_error(file, error);
        let position = file.with_index(|index| index.position_of_time(time)).map_err(failed)?;
        let handle = file.handle()?;
        let mut scanner = Scanner::new(handle.as_ref(), position, file.len_bytes(), TIME_SCAN_BYTES);
        while let Some((_, frame, bytes)) = scanner.next().map_err(failed)? {
            let Frame::Batch(header) = frame else { continue };
            if header.base_offset >= committed {
                break;
            }
            if header.next_offset() > start
                && header.max_timestamp >= time
                && let Some(found) = first_record_since(&header, bytes, time, start)
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({}..{}, end {})", self.start(), self.committed(), self.end())
    }
}

/// One read in one file.
struct Read<'a> {
    file: &'a LogFile,
    from: Offset,
    stop: Offset,
    bytes_max: usize,
}

impl Read<'_> {
    /// The batches, and the offset after them; `None` if the file has nothing from `from` on.
    fn run(&self) -> Result<Option<(Bytes, Offset)>, ReadError> {
        let base = self.file.name.base_offset;
        let relative = (self.from.0 - base.0).max(0).unsigned_abs();
        let place = self.file.with_index(|index| index.position_of_offset(relative));
        let (mut position, ahead) = place.map_err(|error| read_error(self.file, error))?;
        let mut expected = base.plus(i64::from(ahead));
        let handle = self.file.handle()?;
        let (len, next_offset) = (self.file.len_bytes(), self.file.next_offset());
        // Enough to skip to `from` within one step of the index, then what was asked for.
        let mut wanted = self.bytes_max.saturating_add(SKIP_BYTES);
        while position < len {
            let count = usize::try_from(len - position).unwrap_or(usize::MAX).min(wanted);
            let mut buffer = BytesMut::zeroed(count);
            let read = handle.read_at(position, &mut buffer)?;
            if read < count {
                return Err(self.corrupt(position + read as u64, "the file is shorter than what was written"));
            }
            match self.pick(&buffer, position, &mut expected)? {
                Picked::Batches { from, to } => return Ok(Some((buffer.freeze().slice(from..to), expected))),
                Picked::Nothing => break,
                Picked::ReadOn { at, size } => {
                    if at as u64 + size as u64 > len - position {
                        return Err(self.corrupt(position + at as u64, "a batch reaches past the end of the file"));
                    }
                    position += at as u64;
                    wanted = wanted.max(size);
                }
            }
        }
        if self.from.max(base) < self.stop.min(next_offset) {
            return Err(self.corrupt(position, &format!("the batch with offset {} is not there", self.from)));
        }
        Ok(None)
    }

    /// Finds what was asked for in `buffer`, which starts at `position`, a frame's start. `expected` is
    /// the offset that follows what was looked at.
    fn pick(&self, buffer: &[u8], position: u64, expected: &mut Offset) -> Result<Picked, ReadError> {
        let mut at = 0;
        let mut first = None;
        while at < buffer.len() {
            let (size, header) = match self.look(&buffer[at..], first.is_some(), *expected) {
                Ok(Look::Frame { size, header }) => (size, header),
                Ok(Look::Cut { size }) if first.is_none() => return Ok(Picked::ReadOn { at, size }),
                Err(error) if first.is_none() => {
                    return Err(self.corrupt(position + at as u64, &error.to_string()));
                }
                // What was found is good; the next read says what is wrong here.
                Ok(Look::Cut { .. }) | Err(_) => break,
            };
            match (header, first) {
                (None, None) => {}
                (None, Some(_)) => break,
                (Some(header), None) if header.next_offset() <= self.from => {}
                (Some(header), _) if header.base_offset >= self.stop => break,
                (Some(_), None) => first = Some(at),
                (Some(_), Some(first)) if at + size - first > self.bytes_max => break,
                (Some(_), Some(_)) => {}
            }
            *expected = header.map_or(*expected, |header| header.next_offset());
            at += size;
        }
        Ok(match first {
            Some(from) => Picked::Batches { from, to: at },
            None if at >= buffer.len() => Picked::ReadOn { at, size: 0 },
            None => Picked::Nothing,
        })
    }

    /// The frame at the start of `rest`; checked, unless it lies before what was asked for.
    fn look(&self, rest: &[u8], collecting: bool, expected: Offset) -> Result<Look, FrameError> {
        if rest.len() < PEEK_BYTES {
            return Ok(Look::Cut { size: PEEK_BYTES });
        }
        let cut = |error: FrameError| match error {
            FrameError::Batch(BatchError::Truncated { need, .. }) => Ok(Look::Cut { size: need }),
            error => Err(error),
        };
        let frame = match Frame::parse(rest) {
            Ok(frame) => frame,
            Err(error) => return cut(error),
        };
        let skipped = matches!(frame, Frame::Batch(header) if !collecting && header.next_offset() <= self.from);
        if !skipped {
            Frame::check(rest)?;
            frame.is_of(self.file.name.term)?;
        }
        let (header, found) = match frame {
            Frame::Batch(header) => (Some(header), header.base_offset),
            Frame::Note(note) => (None, note.offset),
        };
        if found != expected {
            return Err(FrameError::OutOfPlace { what: "offset", found: found.0, expected: expected.0 });
        }
        Ok(Look::Frame { size: frame.size_bytes(), header })
    }

    fn corrupt(&self, position: u64, reason: &str) -> ReadError {
        ReadError::Corrupt { path: self.file.path(), position, reason: reason.to_owned() }
    }
}

/// Read beyond what was asked for: the way from an index entry to the batch in question.
const SKIP_BYTES: usize = 32 << 10;

enum Look {
    Frame {
        size: usize,
        header: Option<BatchHeader>,
    },
    /// `size` bytes are needed to see more.
    Cut {
        size: usize,
    },
}

enum Picked {
    /// `buffer[from..to]`.
    Batches {
        from: usize,
        to: usize,
    },
    /// Read again from `at`, at least `size` bytes.
    ReadOn {
        at: usize,
        size: usize,
    },
    Nothing,
}

fn read_error(file: &LogFile, error: ScanError) -> ReadError {
    match error {
        ScanError::Disk(error) => ReadError::Disk(error),
        ScanError::Bad { position, error } => {
            ReadError::Corrupt { path: file.path(), position, reason: error.to_string() }
        }
    }
}

/// The first record of a batch at or after `time` and `start`.
fn first_record_since(
    header: &BatchHeader,
    bytes: &[u8],
    time: Timestamp,
    start: Offset,
) -> Option<(Offset, Timestamp)> {
    let Ok(decoded) = records::decode(bytes) else {
        // The producer's bytes are no records: the batch is all that can be told apart.
        return Some((header.base_offset.max(start), header.max_timestamp));
    };
    let mut found = decoded.iter().filter_map(Result::ok);
    found
        .find(|record| record.timestamp >= time && record.offset >= start)
        .map(|record| (record.offset, record.timestamp))
}
