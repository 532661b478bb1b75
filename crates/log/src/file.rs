//! A log file: its name, its bytes, and what is known of them. Shared by the owner and the readers.
//!
//! The owner alone appends: first the bytes, then the sparse index, then `len`, which is what readers go
//! by. So a reader never looks at bytes that are not there in full.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use base::disk::{Disk, DiskError, DiskFile};
use base::{LogIndex, Offset, Term, Timestamp};

use crate::frame::{Frame, FrameError, Place};
use crate::index::{AbortedList, INDEX_HEADER_BYTES, IndexEntry, IndexFile, IndexHeader, SparseIndex, Summary};
use crate::limits::{ABORTED_MAX, SCAN_BYTES};
use crate::scan::{ScanError, Scanner};
use crate::stable::Aborted;

/// What a log file's name says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct FileName {
    pub base_index: LogIndex,
    pub term: Term,
    pub base_offset: Offset,
}

impl FileName {
    /// Reads `<base offset>-<base index>-<term>.log`.
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(".log")?.split('-');
        let base_offset = Offset(number(parts.next()?, 20)?.try_into().ok()?);
        let base_index = LogIndex(number(parts.next()?, 20)?);
        let term = Term(number(parts.next()?, 10)?);
        // Entries count from 1, and a leader has a term.
        let possible = base_index > LogIndex::ZERO && term > Term::ZERO && parts.next().is_none();
        possible.then_some(Self { base_index, term, base_offset })
    }

    pub fn place(self) -> Place {
        Place { offset: self.base_offset, index: self.base_index }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-{:020}-{:010}", self.base_offset.0, self.base_index.0, self.term.0)
    }
}

fn number(digits: &str, width: usize) -> Option<u64> {
    (digits.len() == width && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// One log file.
pub(crate) struct LogFile {
    pub name: FileName,
    disk: Arc<dyn Disk>,
    dir: Arc<str>,
    /// Opened at the first use; let go when nothing happens here.
    handle: RwLock<Option<Arc<dyn DiskFile>>>,
    /// `None` until someone needs it.
    index: RwLock<Option<SparseIndex>>,
    /// What its markers aborted, by rising marker; `None` until someone needs it.
    aborted: RwLock<AbortedList>,
    len: AtomicU64,
    next_offset: AtomicI64,
    next_index: AtomicU64,
    max_timestamp: AtomicI64,
    last_append: AtomicI64,
}

impl LogFile {
    /// A file just created.
    pub fn created(disk: Arc<dyn Disk>, dir: Arc<str>, name: FileName, wall: Timestamp) -> Result<Self, DiskError> {
        let path = path_of(&dir, name, "log");
        let handle = match disk.create(&path) {
            Ok(handle) => handle,
            // Left by a creation that failed half-way; nothing was ever acknowledged in it.
            Err(DiskError::AlreadyExists { .. }) => {
                let handle = disk.open(&path)?;
                handle.truncate(0)?;
                handle
            }
            Err(error) => return Err(error),
        };
        let summary = Summary {
            bytes: 0,
            next_offset: name.base_offset,
            next_index: name.base_index,
            max_timestamp: Timestamp(-1),
            last_append: wall,
        };
        let file = Self::known(disk, dir, name, summary, Some(SparseIndex::default()), Some(Vec::new()));
        Ok(Self { handle: RwLock::new(Some(handle)), ..file })
    }

    /// A file of which `summary` is known; its index and what was aborted in it are read when needed, if not given.
    pub fn known(
        disk: Arc<dyn Disk>,
        dir: Arc<str>,
        name: FileName,
        summary: Summary,
        index: Option<SparseIndex>,
        aborted: AbortedList,
    ) -> Self {
        Self {
            name,
            disk,
            dir,
            handle: RwLock::default(),
            index: RwLock::new(index),
            aborted: RwLock::new(aborted),
            len: AtomicU64::new(summary.bytes),
            next_offset: AtomicI64::new(summary.next_offset.0),
            next_index: AtomicU64::new(summary.next_index.0),
            max_timestamp: AtomicI64::new(summary.max_timestamp.0),
            last_append: AtomicI64::new(summary.last_append.0),
        }
    }

    pub fn path(&self) -> String {
        path_of(&self.dir, self.name, "log")
    }

    pub fn index_path(&self) -> String {
        path_of(&self.dir, self.name, "idx")
    }

    pub fn handle(&self) -> Result<Arc<dyn DiskFile>, DiskError> {
        if let Some(handle) = &*self.handle.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Arc::clone(handle));
        }
        let opened = self.disk.open(&self.path())?;
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(handle.get_or_insert(opened)))
    }

    /// Closes the file as soon as nobody uses it; whoever needs it opens it again. Only when all of it is durable.
    pub fn let_go(&self) {
        *self.handle.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What may be read of it.
    pub fn len_bytes(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    pub fn next_offset(&self) -> Offset {
        Offset(self.next_offset.load(Ordering::Acquire))
    }

    pub fn next_index(&self) -> LogIndex {
        LogIndex(self.next_index.load(Ordering::Acquire))
    }

    /// Where the next frame belongs.
    pub fn place(&self) -> Place {
        Place { offset: self.next_offset(), index: self.next_index() }
    }

    /// -1 if there is no record.
    pub fn max_timestamp(&self) -> Timestamp {
        Timestamp(self.max_timestamp.load(Ordering::Acquire))
    }

    pub fn summary(&self) -> Summary {
        Summary {
            bytes: self.len_bytes(),
            next_offset: self.next_offset(),
            next_index: self.next_index(),
            max_timestamp: self.max_timestamp(),
            last_append: Timestamp(self.last_append.load(Ordering::Acquire)),
        }
    }

    /// The owner has written one frame at the end: `place` is where the next belongs. `max_timestamp` is
    /// the batch's, `None` for a note.
    pub fn grew(
        &self,
        size_bytes: usize,
        place: Place,
        max_timestamp: Option<Timestamp>,
        wall: Timestamp,
        step_bytes: u64,
    ) {
        let position = self.len.load(Ordering::Relaxed);
        let before = self.max_timestamp();
        if let Some(entry) = self.entry(position, before) {
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(index) = index.as_mut() {
                index.note(step_bytes, entry);
            }
        }
        if let Some(time) = max_timestamp {
            self.max_timestamp.store(before.max(time).0, Ordering::Release);
        }
        self.last_append.store(wall.0, Ordering::Release);
        self.next_offset.store(place.offset.0, Ordering::Release);
        self.next_index.store(place.index.0, Ordering::Release);
        self.len.store(position + size_bytes as u64, Ordering::Release);
    }

    /// The index entry of a frame at `position`, where the file ends now.
    fn entry(&self, position: u64, max_before: Timestamp) -> Option<IndexEntry> {
        Some(IndexEntry {
            offset: u32::try_from(self.next_offset().0 - self.name.base_offset.0).ok()?,
            index: u32::try_from(self.next_index().0 - self.name.base_index.0).ok()?,
            position: u32::try_from(position).ok()?,
            max_before,
        })
    }

    /// True if index entries could not describe a frame after `count` more offsets.
    pub fn is_out_of_numbers(&self, count: i64) -> bool {
        let span = self.next_offset().0.saturating_add(count) - self.name.base_offset.0;
        u32::try_from(span).is_err()
    }

    /// The `.idx` file of the file as it is now; `None` if no one has needed the index yet.
    pub fn encode_index(&self) -> Option<bytes::Bytes> {
        let summary = self.summary();
        let aborted = self.aborted.read().unwrap_or_else(PoisonError::into_inner);
        self.read_index().as_ref().map(|index| index.encode(self.name, summary, aborted.as_deref()))
    }

    /// A marker that was written here last aborted this.
    pub fn note_aborted(&self, one: Aborted) {
        if let Some(list) = self.aborted.write().unwrap_or_else(PoisonError::into_inner).as_mut() {
            list.push(one);
        }
    }

    /// True if it can note no more.
    pub fn is_full_of_aborted(&self) -> bool {
        let aborted = self.aborted.read().unwrap_or_else(PoisonError::into_inner);
        aborted.as_ref().is_some_and(|list| list.len() >= ABORTED_MAX)
    }

    /// Asks what was aborted; reads the `.idx` first if no one has needed it yet. `None`: it does not say.
    pub fn with_aborted<T>(&self, ask: impl FnOnce(&[Aborted]) -> T) -> Result<Option<T>, DiskError> {
        if let Some(list) = self.aborted.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            return Ok(Some(ask(list)));
        }
        let stored = read_index_file(self.disk.as_ref(), &self.dir, self.name)?;
        let Some(list) =
            stored.filter(|stored| stored.summary.bytes == self.len_bytes()).and_then(|stored| stored.aborted)
        else {
            return Ok(None);
        };
        let answer = ask(&list);
        self.learn_aborted(list);
        Ok(Some(answer))
    }

    /// What was aborted was found in the log.
    pub fn learn_aborted(&self, list: Vec<Aborted>) {
        self.aborted.write().unwrap_or_else(PoisonError::into_inner).get_or_insert(list);
    }

    /// Asks the index; reads or rebuilds it first if no one has needed it yet.
    pub fn with_index<T>(&self, ask: impl Fn(&SparseIndex) -> T) -> Result<T, ScanError> {
        if let Some(index) = self.read_index().as_ref() {
            return Ok(ask(index));
        }
        let index = self.load_index()?;
        let answer = ask(&index);
        let mut slot = self.index.write().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert(index);
        Ok(answer)
    }

    /// Where the entry `index`, which is in this file, ends.
    pub fn place_after(&self, index: LogIndex) -> Result<Place, ScanError> {
        self.walk_to(index.next()).map(|walked| walked.place)
    }

    /// The file as it is up to `place`, where an entry begins: what is left of it after a cut. Reads a little.
    pub fn shortened(&self, place: Place) -> Result<Self, ScanError> {
        let walked = self.walk_to(place.index)?;
        if walked.place != place {
            let (found, expected) = (walked.place.offset.0, place.offset.0);
            let error = FrameError::OutOfPlace { what: "offset", found, expected };
            return Err(ScanError::Bad { position: walked.position, error });
        }
        let index = self.with_index(|index| index.below(walked.position))?;
        let summary = Summary {
            bytes: walked.position,
            next_offset: place.offset,
            next_index: place.index,
            max_timestamp: walked.max_timestamp,
            last_append: self.summary().last_append,
        };
        let mut aborted = self.aborted.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(list) = &mut aborted {
            list.retain(|one| one.last < place.offset);
        }
        Ok(Self::known(Arc::clone(&self.disk), Arc::clone(&self.dir), self.name, summary, Some(index), aborted))
    }

    /// Tells of each entry from `index` on, and where it ends.
    pub fn walk(&self, index: LogIndex, mut tell: impl FnMut(&Frame, Place)) -> Result<(), ScanError> {
        let start = self.walk_to(index)?;
        let mut place = start.place;
        let handle = self.handle().map_err(ScanError::Disk)?;
        let mut scanner = Scanner::new(handle.as_ref(), start.position, self.len_bytes(), SCAN_BYTES);
        while let Some((position, frame, _)) = scanner.next()? {
            place = frame.follow(place, self.name.term).map_err(|error| ScanError::Bad { position, error })?;
            tell(&frame, place);
        }
        Ok(())
    }

    /// Walks from the nearest index entry to where the entry `index` begins.
    fn walk_to(&self, index: LogIndex) -> Result<Walked, ScanError> {
        let relative = index.0.saturating_sub(self.name.base_index.0);
        let near = self.with_index(|sparse| sparse.near_index(relative))?;
        let mut walked = Walked {
            place: Place {
                offset: self.name.base_offset.plus(i64::from(near.offset)),
                index: self.name.base_index.plus(u64::from(near.index)),
            },
            position: u64::from(near.position),
            max_timestamp: near.max_before,
        };
        let handle = self.handle().map_err(ScanError::Disk)?;
        let mut scanner = Scanner::new(handle.as_ref(), walked.position, self.len_bytes(), SCAN_BYTES);
        while walked.place.index < index {
            let Some((position, frame, _)) = scanner.next()? else { break };
            if let Frame::Batch(header) = &frame {
                walked.max_timestamp = walked.max_timestamp.max(header.max_timestamp);
            }
            walked.place =
                frame.follow(walked.place, self.name.term).map_err(|error| ScanError::Bad { position, error })?;
            walked.position = position + frame.size_bytes() as u64;
        }
        Ok(walked)
    }

    fn read_index(&self) -> RwLockReadGuard<'_, Option<SparseIndex>> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of a closed file: from its `.idx`, or by walking it.
    fn load_index(&self) -> Result<SparseIndex, ScanError> {
        let stored = read_index_file(self.disk.as_ref(), &self.dir, self.name).map_err(ScanError::Disk)?;
        if let Some(stored) = stored
            && stored.summary.bytes == self.len_bytes()
        {
            return Ok(stored.index);
        }
        let handle = self.handle().map_err(ScanError::Disk)?;
        let mut scanner = Scanner::new(handle.as_ref(), 0, self.len_bytes(), SCAN_BYTES);
        let copy = Self::known(
            Arc::clone(&self.disk),
            Arc::clone(&self.dir),
            self.name,
            Summary { bytes: 0, next_offset: self.name.base_offset, ..self.summary() },
            Some(SparseIndex::default()),
            None,
        );
        copy.next_index.store(self.name.base_index.0, Ordering::Release);
        copy.max_timestamp.store(-1, Ordering::Release);
        while let Some((position, frame, _)) = scanner.next()? {
            copy.walked(position, &frame, crate::limits::INDEX_STEP_BYTES_DEFAULT)?;
        }
        let index = copy.index.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(index.unwrap_or_default())
    }

    /// A frame was found at `position`, where what is known of the file ends. Refused if it does not
    /// belong there.
    pub fn walked(&self, position: u64, frame: &Frame, step_bytes: u64) -> Result<Place, ScanError> {
        let next = frame.follow(self.place(), self.name.term).map_err(|error| ScanError::Bad { position, error })?;
        let time = match frame {
            Frame::Batch(header) => Some(header.max_timestamp),
            Frame::Note(_) => None,
        };
        let last_append = Timestamp(self.last_append.load(Ordering::Acquire));
        self.grew(frame.size_bytes(), next, time, last_append, step_bytes);
        Ok(next)
    }
}

impl fmt::Debug for LogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogFile({}, {} bytes)", self.name, self.len_bytes())
    }
}

/// How far a walk through a file came.
struct Walked {
    place: Place,
    position: u64,
    max_timestamp: Timestamp,
}

pub(crate) fn path_of(dir: &str, name: FileName, extension: &str) -> String {
    format!("{dir}/{name}.{extension}")
}

/// The `.idx` file of `name`, if it is there and whole.
pub(crate) fn read_index_file(disk: &dyn Disk, dir: &str, name: FileName) -> Result<Option<IndexFile>, DiskError> {
    let Some((file, _)) = open_index(disk, dir, name)? else { return Ok(None) };
    let mut bytes = vec![0; usize::try_from(file.len_bytes()).unwrap_or(0)];
    let read = file.read_at(0, &mut bytes)?;
    Ok(SparseIndex::decode(&bytes[..read], name))
}

/// As `read_index_file`, but the header alone.
pub(crate) fn read_index_header(disk: &dyn Disk, dir: &str, name: FileName) -> Result<Option<IndexHeader>, DiskError> {
    Ok(open_index(disk, dir, name)?.map(|(_, header)| header))
}

type FoundIndex = (Arc<dyn DiskFile>, IndexHeader);

/// An `.idx` file whose length is what its header says.
fn open_index(disk: &dyn Disk, dir: &str, name: FileName) -> Result<Option<FoundIndex>, DiskError> {
    let file = match disk.open(&path_of(dir, name, "idx")) {
        Ok(file) => file,
        Err(DiskError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut header = [0; INDEX_HEADER_BYTES];
    if file.read_at(0, &mut header)? < INDEX_HEADER_BYTES {
        return Ok(None);
    }
    let header = SparseIndex::decode_header(&header, name).filter(|header| header.fits(file.len_bytes()));
    Ok(header.map(|header| (file, header)))
}
